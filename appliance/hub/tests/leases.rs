//! Leases of a hub: one at a time, the next when half of it is over, whatever is restarted; none for a log with two
//! histories, whoever was shown the second.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::checked_json;
use bulla_formats::enrolment::Hardware;
use bulla_formats::json::base64_decode;
use bulla_formats::lease::Lease;
use bulla_formats::note::SignedNote;
use bulla_formats::witness::add_checkpoint::request;
use common::Log;
use serde_json::{Value, json};
use standin::{Served, StandIn, TestHub, free_ports, grow};
use std::process::Child;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const NAME: &str = "hub.example/north";
const PATIENCE: Duration = Duration::from_secs(60);

fn pull(port: u16, hours: u64) -> String {
    format!(
        "every_seconds = 1\ntimeout_seconds = 10\n[serve]\nlisten = \"127.0.0.1:{port}\"\nname = {NAME:?}\n\
         names = [\"127.0.0.1\"]\nrequests_per_second = 1000\n[leases]\nhours = {hours}\nlimit_seals = 7\n"
    )
}

/// The leases that a box took, all of them good ones of this hub for this log.
fn taken(standin: &StandIn, log: &Log, key: &str) -> Vec<Lease> {
    let key = base64_decode(key.splitn(3, '+').nth(2).unwrap()).unwrap();
    let key: [u8; 32] = key[1..].try_into().unwrap();
    let read = |posted: &Value| {
        let lease = Lease::decode(&base64_decode(posted["lease"].as_str().unwrap()).unwrap()).unwrap();
        lease.verify_by_hub(&log.origin, NAME, &key).unwrap();
        lease
    };
    standin.posted("v1/leases").iter().map(read).collect()
}

/// The hub's memory of leases, as if `minutes` had passed since.
fn age(hub: &TestHub, minutes: u64) {
    let path = hub.path("state/leases.json");
    let body = checked_json::body(&std::fs::read(&path).unwrap()).unwrap();
    let mut value: Value = serde_json::from_slice(&body).unwrap();
    for lease in value["leases"].as_object_mut().unwrap().values_mut() {
        for time in ["issuedMillis", "expiresMillis"] {
            lease[time] = json!(lease[time].as_u64().unwrap() - minutes * 60_000);
        }
    }
    std::fs::write(&path, checked_json::with_checksum(&format!("{value:#}"))).unwrap();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A hub that serves; killed when it is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets the hub serve until it has come round some times; it answers nobody then.
fn rounds(hub: &TestHub, standin: &StandIn) {
    let _serving = Serving(hub.start(&["serve"]));
    let before = standin.asked();
    until("the hub comes round", || standin.asked() > before + 4);
}

#[test]
fn a_lease_is_renewed_at_half_of_its_time_and_never_needlessly() {
    let standin = StandIn::start();
    let mut a = Log::new(Hardware::Tpm, 1);
    grow(&mut a, 0, 20);
    standin.serve(Served::of(&a));
    let [port] = free_ports();
    let boxes = [("a", &a, &[(&standin, false)][..])];
    let hub = TestHub::with(&boxes, &pull(port, 1));
    let key = hub.lines(&["keys"]).1[0]["log"].as_str().unwrap().to_owned();
    let count = || taken(&standin, &a, &key).len();
    // A box that does not take it is asked again, and the pull is a good one that tells of it.
    standin.answer_posts(503);
    let (code, said) = hub.pull();
    assert!(code == 0 && said["a"]["trouble"][0].as_str().unwrap().contains("a lease: "), "{said:?}");
    standin.answer_posts(200);
    assert_eq!((hub.pull().0, count()), (0, 1));
    let lease = taken(&standin, &a, &key).remove(0).content;
    assert_eq!((lease.expires_at - lease.issued_at, lease.limits.seals), (3_600_000, Some(7)));

    // Neither more pulls, each a process of its own, nor a hub that serves and is killed issue another.
    hub.pull();
    hub.pull();
    rounds(&hub, &standin);
    rounds(&hub, &standin);
    assert_eq!(count(), 1);
    age(&hub, 29);
    hub.pull();
    rounds(&hub, &standin);
    assert_eq!(count(), 1, "less than half of it is over");
    age(&hub, 2);
    rounds(&hub, &standin);
    assert_eq!(count(), 2, "half of it is over");
    hub.pull();
    assert_eq!(count(), 2);
    // It ran out while the hub was away.
    age(&hub, 600);
    assert_eq!((hub.pull().0, count()), (0, 3));

    // Other terms are handed over at once, and once.
    hub.configure(&boxes, &pull(port, 2));
    hub.pull();
    hub.pull();
    assert_eq!(count(), 4);
    assert_eq!(
        taken(&standin, &a, &key)[3].content.expires_at - taken(&standin, &a, &key)[3].content.issued_at,
        7_200_000
    );
    // A memory that was bent is told of, and costs one lease.
    let path = hub.path("state/leases.json");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, said) = hub.pull();
    assert!(
        code == 0 && said["a"]["trouble"][0].as_str().unwrap().contains("leases.json cannot be read"),
        "{said:?}"
    );
    assert_eq!(hub.pull().1["a"]["trouble"], json!([]));
    assert_eq!(count(), 5);
}

#[test]
fn a_log_with_two_histories_gets_no_lease() {
    let log = |seed: u8, then: u64| {
        let mut log = Log::new(Hardware::Tpm, seed);
        grow(&mut log, 0, 60);
        grow(&mut log, then, then + 40);
        log
    };
    let (a, other, b) = (log(1, 60), log(1, 1_060), log(2, 60));
    let (one, two) = (StandIn::start(), StandIn::start());
    one.serve(Served::upto(&a, 130));
    two.serve(Served::upto(&b, 130));
    let [port] = free_ports();
    let boxes = [("a", &a, &[(&one, false)][..]), ("b", &b, &[(&two, false)][..])];

    // The box itself shows the second one.
    let hub = TestHub::with(&boxes, &pull(port, 1));
    let key = hub.lines(&["keys"]).1[0]["log"].as_str().unwrap().to_owned();
    assert_eq!(hub.pull().0, 0);
    assert_eq!((taken(&one, &a, &key).len(), taken(&two, &b, &key).len()), (1, 1));
    one.serve(Served::upto(&other, 140));
    age(&hub, 31);
    assert_eq!(hub.pull().0, 1);
    assert_eq!((taken(&one, &a, &key).len(), taken(&two, &b, &key).len()), (1, 2), "b is not to blame");
    let issue = |hub: &TestHub, name: &str| {
        let done = hub.run(&["lease", "issue", name, "--hours", "1", "--out", "lease"]);
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, words) = issue(&hub, "a");
    assert!(code == Some(1) && words.contains("two histories"), "{words}");
    assert_eq!(issue(&hub, "b").0, Some(0));

    // Somebody with its key shows the second one to the hub's witness, and the box goes on as if nothing had been.
    one.serve(Served::upto(&a, 130));
    let hub = TestHub::with(&boxes, &pull(port, 1));
    let keys = hub.lines(&["keys"]).1;
    let pem = std::fs::read(keys[0]["certificate"].as_str().unwrap()).unwrap();
    let roots = RootCerts::new_with_certs(&[Certificate::from_pem(&pem).unwrap()]);
    let tls = TlsConfig::builder().root_certs(roots).build();
    let agent: Agent =
        Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None).build().new_agent();
    let show = |note: &str| {
        let body = request(0, &[], &SignedNote::parse(note).unwrap()).unwrap();
        let sent = agent.post(format!("https://127.0.0.1:{port}/add-checkpoint")).send(body);
        sent.map_or(0, |answer| answer.status().as_u16())
    };
    let before = one.posted("v1/leases").len();
    let serving = Serving(hub.start(&["serve"]));
    until("the second history is cosigned", || show(&other.head(0, 140, false).checkpoint) == 200);
    let leased = || one.posted("v1/leases").len() - before;
    assert_eq!(leased(), 1);
    one.serve(Served::upto(&a, 150));
    until("the fork is found", || hub.kinds().contains(&"fork".to_owned()));
    drop(serving);
    let (_, standing) = hub.lines(&["status"]);
    assert!(
        standing[0]["frozen"].as_str().is_some_and(|why| why.contains("another history")),
        "{standing:?}"
    );
    std::fs::remove_file(hub.path("state/leases.json")).unwrap();
    let fresh = two.posted("v1/leases").len();
    rounds(&hub, &two);
    assert_eq!(hub.pull().0, 1);
    assert_eq!((leased(), two.posted("v1/leases").len() - fresh), (1, 1));
    assert_eq!(issue(&hub, "a").0, Some(1));
    // What was proven before stays archived, and sound.
    hub.fsck();
}
