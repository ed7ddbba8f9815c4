//! The authority that other tests rely on: every switch does what it says, and what it stamps is what stock tools take.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_tests::rig::tsa::{Answer, Handshake, Key, Knobs, Options, Quota, Reply, Stamps, Transport};
use bulla_timestamps::{Expected, Request, TimeStamp, verify};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(20);
const IMPRINT: [u8; 32] = [0x77; 32];

/// A request nobody has made before.
fn fresh() -> (Request, Expected) {
    static NONCES: AtomicU64 = AtomicU64::new(1 << 40);
    let nonce = NONCES.fetch_add(1, Relaxed);
    (Request::new(IMPRINT, nonce, None), Expected { imprint: IMPRINT, nonce: Some(nonce) })
}

fn ask(tsa: &Stamps) -> Reply {
    tsa.ask(&fresh().0, PATIENCE).unwrap()
}

/// The stamp, or the code of the refusal.
fn judged(tsa: &Stamps) -> Result<TimeStamp, &'static str> {
    let (request, expected) = fresh();
    let reply = tsa.ask(&request, PATIENCE).unwrap();
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    verify(&reply.body, &expected, &tsa.authority().unwrap()).map_err(|refusal| refusal.code())
}

/// What the client sees of a request that gets no answer.
fn fails(tsa: &Stamps, patience: Duration) -> (String, Duration) {
    let began = Instant::now();
    let error = tsa.ask(&fresh().0, patience).expect_err("there is no answer");
    (format!("{error:#}").to_lowercase(), began.elapsed())
}

#[test]
fn it_stamps_and_counts_for_every_kind_of_key() {
    for (key, intermediate) in [(Key::P256, false), (Key::P384, true), (Key::Rsa(2048), true)] {
        let options = Options { operator: "Notary & Sons", key, intermediate, ..Options::default() };
        let tsa = Stamps::start_with(&options).unwrap();
        assert_eq!(judged(&tsa).unwrap().signer(), "CN=Notary & Sons, O=Bulla tests, C=AT");
        judged(&tsa).unwrap();
        let counters = tsa.counters();
        assert_eq!((counters.requests, counters.stamps, counters.beyond_quota), (2, 2, 0));
        assert_eq!(tsa.operator(), "Notary & Sons");
    }
}

#[test]
fn every_kind_of_false_stamp_is_false_in_its_own_way() {
    let tsa = Stamps::start("Stamps of tests").unwrap();
    for (answer, code) in [
        (Answer::WrongImprint, "imprint"),
        (Answer::WrongNonce, "nonce"),
        (Answer::Replay, "imprint"),
        (Answer::Damaged, "signature"),
        (Answer::Stranger, "untrusted"),
        (Answer::ExpiredCertificate, "signer-expired"),
        (Answer::WrongPurpose, "purpose-not-sole"),
        (Answer::TimeNotAvailable, "rejected"),
        (Answer::CaptivePortal, "reply-malformed"),
    ] {
        tsa.answer(answer).unwrap();
        assert_eq!(judged(&tsa), Err(code), "{answer:?}");
        assert_eq!(judged(&tsa), Err(code), "{answer:?}, again");
    }
    tsa.set(&Knobs::default()).unwrap();
    judged(&tsa).unwrap();
    // Once it has stamped, it is the first of its stamps that comes again.
    tsa.answer(Answer::Replay).unwrap();
    assert_eq!(judged(&tsa), Err("imprint"));
}

#[test]
fn a_clock_that_is_off_shows_in_a_good_stamp() {
    let tsa = Stamps::start("Stamps of tests").unwrap();
    for offset in [-86_400, 90, 7 * 86_400] {
        tsa.set(&Knobs { clock_offset_seconds: offset, ..Knobs::default() }).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
        let off = judged(&tsa).unwrap().gen_time_micros() as i64 - now - offset * 1_000_000;
        assert!((-2_000_000..20_000_000).contains(&off), "{offset}: {off}");
    }
}

#[test]
fn ports_refuse_swallow_and_come_back() {
    let tsa = Stamps::start("Stamps of tests").unwrap();
    let url = tsa.url();
    for _ in 0..3 {
        tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() }).unwrap();
        let (words, took) = fails(&tsa, PATIENCE);
        assert!(words.contains("refused") && took < PATIENCE / 2, "{words}");
        tsa.set(&Knobs { transport: Transport::BlackHole, ..Knobs::default() }).unwrap();
        let before = tsa.counters();
        let (words, took) = fails(&tsa, Duration::from_millis(300));
        assert!(words.contains("timeout") && took >= Duration::from_millis(250), "{words}");
        let after = tsa.counters();
        assert_eq!((after.connections, after.requests), (before.connections + 1, before.requests));
        tsa.set(&Knobs::default()).unwrap();
        judged(&tsa).unwrap();
    }
    assert_eq!(tsa.url(), url);
}

#[test]
fn slow_huge_and_stalled_answers_are_all_of_that() {
    let tsa = Stamps::start("Stamps of tests").unwrap();
    tsa.set(&Knobs { delay_millis: 400, ..Knobs::default() }).unwrap();
    let began = Instant::now();
    judged(&tsa).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400));
    tsa.answer(Answer::Huge).unwrap();
    assert!(fails(&tsa, PATIENCE).0.contains("limit"));
    for answer in [Answer::Stalled, Answer::Trickle] {
        tsa.answer(answer).unwrap();
        assert!(fails(&tsa, Duration::from_millis(500)).0.contains("timeout"), "{answer:?}");
    }
    tsa.answer(Answer::Unavailable).unwrap();
    assert_eq!(ask(&tsa).status, 503);
    tsa.answer(Answer::Redirect).unwrap();
    assert_eq!(ask(&tsa).status, 302);
}

#[test]
fn a_quota_is_kept_and_what_goes_beyond_is_counted() {
    let tsa = Stamps::start("Stamps of tests").unwrap();
    let quota = Quota { requests: 3, period_millis: 3_000, blocked_millis: 0 };
    tsa.set(&Knobs { quota: Some(quota), ..Knobs::default() }).unwrap();
    for _ in 0..3 {
        judged(&tsa).unwrap();
    }
    let refusal = ask(&tsa);
    assert_eq!(refusal.status, 429);
    let wait = refusal.retry_after.unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    std::thread::sleep(Duration::from_secs(wait));
    judged(&tsa).unwrap();
    assert_eq!(tsa.counters().beyond_quota, 1);

    let quota = Quota { requests: 1, period_millis: 1, blocked_millis: 1_500 };
    tsa.set(&Knobs { quota: Some(Quota { period_millis: 60_000, ..quota }), ..Knobs::default() }).unwrap();
    judged(&tsa).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&tsa).status, 403);
    }
    assert_eq!(tsa.counters().beyond_quota, 3);
    // A changed quota begins anew.
    tsa.set(&Knobs { quota: Some(quota), ..Knobs::default() }).unwrap();
    judged(&tsa).unwrap();
}

#[test]
fn switches_can_be_thrown_from_outside() {
    let tsa = Stamps::start("Stamps of tests").unwrap();
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let knobs = format!("{}/knobs", tsa.control_url());
    let put = |body: &str| {
        let mut answer = agent.put(&knobs).send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    assert_eq!(put(r#"{"answer": "captive-portal", "delayMillis": 5}"#).0, 200);
    assert_eq!(judged(&tsa), Err("reply-malformed"));
    assert_eq!(put(r#"{"transport": "down"}"#).0, 200);
    assert!(fails(&tsa, PATIENCE).0.contains("refused"));
    for bad in ["", "{", r#"{"answer": "none of these"}"#, r#"{"other": 1}"#] {
        assert_eq!(put(bad).0, 400, "{bad}");
    }
    let (status, now) = put("{}");
    let all = r#"{"transport":"up","handshake":"good","delayMillis":0,"answer":"stamp","clockOffsetSeconds":0,"quota":null,"crl":"good"}"#;
    assert_eq!((status, now.as_str()), (200, all));
    judged(&tsa).unwrap();
    let counters = agent.get(format!("{}/counters", tsa.control_url())).call().unwrap();
    let counters = counters.into_body().read_to_string().unwrap();
    assert!(counters.contains(r#""requests":2,"stamps":1,"beyondQuota":0"#), "{counters}");
}

/// What the server says to a client's first words in a while.
fn first_words(tsa: &Stamps) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(tsa.tls_ca_pem().unwrap()).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let url = tsa.url();
    let address = url.strip_prefix("https://").unwrap().strip_suffix("/stamp").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    client.write_tls(&mut stream).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut words = Vec::new();
    let error = stream.read_to_end(&mut words).expect_err("the connection stays");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    words
}

#[test]
fn a_handshake_stalls_before_or_in_the_servers_first_words() {
    let tsa = Stamps::start_with(&Options { https: &["127.0.0.1"], ..Options::default() }).unwrap();
    let said = |handshake| {
        tsa.set(&Knobs { handshake, ..Knobs::default() }).unwrap();
        first_words(&tsa)
    };
    let whole = said(Handshake::Good);
    let record = usize::from(u16::from_be_bytes([whole[3], whole[4]]));
    assert!(whole.len() > 5 + record, "a server hello, and more");
    assert_eq!(said(Handshake::Stalled), b"");
    let half = said(Handshake::HalfStalled);
    // The same record as before, as far as it goes; its random bytes are its own.
    assert_eq!((&half[..9], half.len()), (&whole[..9], 5 + record / 2));
    assert_eq!(tsa.counters().requests, 0);
}
