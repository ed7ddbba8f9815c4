//! `POST /tsa`: every token is a logged seal, states no time that the box cannot answer for, and who may not ask gets none.
//!
//! Method: a client of RFC 3161 that shares no code with the responder's writers judges each reply by the box's CA; the log
//! is asked what became of it. What stock tools say is in `interop.rs`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::key_epoch::{KeyEpochBody, Purpose};
use bulla_formats::body::seal::{ClientMethod, DigestAlgorithm, Observation, SealBody};
use bulla_formats::entry::{Entry, Kind, Residency};
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::outage::{self, entries, seal_now, wait_mode};
use bulla_tests::rig::stamp::{UNSTATED, ask, imprint, judge, post, refusal, seal_id, stamp};
use bulla_tests::rig::tsa::{Knobs, Stamps, Transport};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use bulla_timestamps::{Failure, Oid, Request};
use sha2::{Digest as _, Sha384, Sha512};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn software(extra: &str) -> RigOptions<'_> {
    RigOptions { keys: Keys::Software, residency: "software", extra, ..RigOptions::default() }
}

fn body_of(seal: &SealFile) -> Result<(Entry, SealBody)> {
    let entry = Entry::decode(&seal.entry)?;
    let body = SealBody::decode(&entry.content().body)?;
    Ok((entry, body))
}

/// A request over another hash, which our own client does not make: the imprint of `Request` exchanged.
fn query_of(algorithm: u8, hash: &[u8]) -> Vec<u8> {
    let mut imprint = vec![0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, algorithm];
    imprint.extend([0x05, 0x00, 0x04, hash.len() as u8]);
    imprint.extend(hash);
    let mut inside = vec![0x02, 0x01, 0x01, 0x30, imprint.len() as u8];
    inside.extend(imprint);
    inside.extend([0x01, 0x01, 0xff]);
    [vec![0x30, inside.len() as u8], inside].concat()
}

#[test]
fn g1_g8_a_token_is_a_durable_seal_signed_by_a_key_that_the_tpm_has_endorsed() -> Result<()> {
    let mut rig = Rig::start_with(&RigOptions { extra: UNSTATED, ..RigOptions::default() })?;
    let scanner = rig.client(Role::Scanner);
    let before = ask(&scanner, b"before", 1, None)?;
    let first = judge(&rig, &before, b"before", Some(1))?;
    ensure!(first.policy() == &Oid::of_boxes() && first.accuracy_micros().is_none());
    let epoch = rig.next_epoch("a test")?;
    let later = ask(&scanner, b"after", 2, None)?;
    let second = judge(&rig, &later, b"after", Some(2))?;
    ensure!(first.signer() != second.signer(), "each epoch has a certificate of its own");
    // Nothing that was handed out is lost, and tokens of a key that is gone still verify.
    rig.sealer.kill()?;
    rig.sealer.start()?;
    ensure!(judge(&rig, &before, b"before", Some(1))? == first);
    let log = entries(&rig)?;
    for (token, reply, document) in [(&first, &before, &b"before"[..]), (&second, &later, b"after")] {
        let id = seal_id(token.serial())?;
        let seal = seal_now(&rig, &id)?;
        let judged = rig.judge(&seal, document);
        ensure!(judged.report.verdict == Verdict::Valid, "{}", judged.report);
        let (entry, body) = body_of(&seal)?;
        ensure!(entry.content().time.unix_millis * 1_000 == token.gen_time_micros(), "{id}");
        ensure!(body.observation == Observation::DigestClaimed && body.size.is_none());
        ensure!(body.media_type == "application/timestamp-query", "{}", body.media_type);
        ensure!(body.transport.ends_with(" tls1.3; rfc3161"), "{}", body.transport);
        ensure!(
            (body.client.id.as_str(), body.client.method) == ("scanner-1", ClientMethod::BearerToken),
            "{:?}",
            body.client
        );
        let epochs = log.iter().filter(|entry| entry.kind() == Some(Kind::KeyEpoch));
        let of =
            epochs.filter(|one| one.content().epoch == entry.content().epoch).last().context("its epoch")?;
        let statement = KeyEpochBody::decode(&of.content().body)?.statement;
        let interop = statement.keys.iter().find(|key| key.purpose == Purpose::Interop).context("a key")?;
        ensure!(interop.residency == Residency::TpmEndorsedRam);
        // The certificate that signed this token has exactly the key which that epoch states.
        let has = reply.windows(65).any(|point| point == &interop.public_key[..]);
        ensure!(has, "the token's certificate is of another key");
    }
    ensure!(entries(&rig)?.iter().any(|entry| entry.content().epoch == epoch));
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn what_is_wrong_with_a_request_is_an_rfc_3161_rejection_and_no_seal() -> Result<()> {
    let rig = Rig::start_with(&software(UNSTATED))?;
    let scanner = rig.client(Role::Scanner);
    let good = Request::new(imprint(b"x"), 1, None).encode();
    let mut version = good.clone();
    version[4] = 2;
    let sha1 = [
        &[0x30, 0x26, 2, 1, 1, 0x30, 0x21, 0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 20][..],
        &[7; 20],
    ]
    .concat();
    let policy = Request::new(imprint(b"x"), 1, Some(Oid::parse("1.2.3.4.1")?)).encode();
    let before = rig.log_size()?;
    for (query, failure) in [
        (&b""[..], Failure::BadDataFormat),
        (b"%PDF-1.7", Failure::BadDataFormat),
        (&good[..20], Failure::BadDataFormat),
        (&version, Failure::BadRequest),
        (&sha1, Failure::BadAlgorithm),
        (&query_of(1, &[7; 31]), Failure::BadDataFormat),
        // SHA-224 and SHA3-256.
        (&query_of(4, &[7; 28]), Failure::BadAlgorithm),
        (&query_of(8, &[7; 32]), Failure::BadAlgorithm),
        (&policy, Failure::UnacceptedPolicy),
    ] {
        let answer = post(&scanner, &[], query)?;
        ensure!(answer.status == 200, "{failure:?}: {}", answer.status);
        let (said, words) = refusal(&answer.body)?;
        ensure!(said == failure && !words.is_empty(), "{failure:?}: {said:?} {words}");
    }
    ensure!(rig.log_size()? == before, "nothing was sealed");
    // The policy that is configured is granted by name.
    judge(&rig, &ask(&scanner, b"x", 5, Some(Oid::of_boxes()))?, b"x", Some(5))?;
    let metrics = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    for line in [
        "bulla_tsa_tokens_total 1",
        "bulla_tsa_refusals_total{failure=\"badAlg\"} 3",
        "bulla_tsa_refusals_total{failure=\"badDataFormat\"} 4",
        "bulla_tsa_refusals_total{failure=\"unacceptedPolicy\"} 1",
    ] {
        ensure!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    Ok(())
}

#[test]
fn imprints_of_sha_384_and_sha_512_are_sealed_so_that_they_are_found() -> Result<()> {
    let rig = Rig::start_with(&software(UNSTATED))?;
    let scanner = rig.client(Role::Scanner);
    let wide = Sha512::digest(b"a document");
    let reply = post(&scanner, &[], &query_of(3, &wide))?.body;
    ensure!(bulla_timestamps::Reply::decode(&reply).is_ok(), "{:?}", refusal(&reply));
    let found = scanner.get(&format!("/v1/seals?digest=sha-512:{}", hex::encode(wide)))?.json()?;
    ensure!(found["seals"][0]["client"] == "scanner-1", "{found}");
    // The log has no SHA-384: sealed are the 48 bytes of the imprint.
    let middle = Sha384::digest(b"a document");
    let reply = post(&scanner, &[], &query_of(2, &middle))?.body;
    ensure!(bulla_timestamps::Reply::decode(&reply).is_ok(), "{:?}", refusal(&reply));
    let digest = hex::encode(imprint(&middle));
    let found = scanner.get(&format!("/v1/seals?digest=sha-256:{digest}"))?.json()?;
    let id = found["seals"][0]["id"].as_str().with_context(|| format!("{found}"))?;
    let seal = seal_now(&rig, id)?;
    let (_, body) = body_of(&seal)?;
    ensure!((body.algorithm, body.size) == (DigestAlgorithm::Sha256, Some(48)));
    ensure!(body.media_type == "application/timestamp-query; imprint=sha-384");
    ensure!(rig.judge(&seal, &middle).report.verdict == Verdict::Valid);
    Ok(())
}

#[test]
fn who_may_not_ask_gets_no_stamp() -> Result<()> {
    let off = Rig::start_with(&software(""))?;
    let query = Request::new(imprint(b"x"), 1, None).encode();
    let refused = post(&off.client(Role::Scanner), &[], &query)?;
    ensure!((refused.status, refused.problem()?.as_str()) == (404, "no-time-stamps"));
    ensure!(post(&off.client_with(None), &[], &query)?.problem()? == "unauthenticated");
    ensure!(off.client_with(None).get("/tsa/certificate")?.problem()? == "no-time-stamps");
    let statement = entries(&off)?.into_iter().rfind(|entry| entry.kind() == Some(Kind::KeyEpoch));
    let statement = KeyEpochBody::decode(&statement.context("an epoch")?.content().body)?.statement;
    ensure!(statement.keys.len() == 1, "a box that stamps nothing has no key for it");
    drop(off);

    let rig = Rig::start_with(&software(UNSTATED))?;
    let (nobody, scanner) = (rig.client_with(None), rig.client(Role::Scanner));
    ensure!(post(&nobody, &[], &query)?.problem()? == "unauthenticated");
    ensure!(post(&rig.client_with(Some("bulla_wrong")), &[], &query)?.problem()? == "unauthenticated");
    for role in [Role::Reader, Role::Operator] {
        ensure!(post(&rig.client(role), &[], &query)?.problem()? == "forbidden", "{role:?}");
    }
    let other = [("Content-Type", "application/octet-stream")];
    ensure!(scanner.post("/tsa", &other, &query)?.problem()? == "unsupported-media-type");
    ensure!(post(&scanner, &[], &vec![0; 4_097])?.problem()? == "too-large");
    // HTTP Basic: the client's own name and its token, and nothing else.
    let basic = |name: &str, token: &str| {
        use base64::Engine as _;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{token}"));
        post(&nobody, &[("Authorization", &format!("Basic {both}"))], &query)
    };
    let token = rig.token(Role::Scanner);
    let granted = basic("scanner-1", token)?;
    judge(&rig, &granted.body, b"x", Some(1))?;
    ensure!(basic("reader-1", token)?.problem()? == "unauthenticated");
    ensure!(basic("scanner-1", "bulla_wrong")?.problem()? == "unauthenticated");
    ensure!(basic("reader-1", rig.token(Role::Reader))?.problem()? == "forbidden");
    Ok(())
}

#[test]
fn a_network_may_ask_without_a_credential_when_the_operator_says_so() -> Result<()> {
    let extra = format!("{UNSTATED}networks = [\"127.0.0.0/8\"]\nnetwork_client = \"lan\"\n");
    let rig = Rig::start_with(&software(&extra))?;
    let nobody = rig.client_with(None);
    let query = Request::new(imprint(b"x"), 1, None).encode();
    ensure!(post(&nobody, &[], &query)?.problem()? == "unauthenticated", "lan is not registered yet");
    rig.add_client_with("lan", "scanner", &["--rate", "5"])?;
    let token = stamp(&rig, &nobody, b"x")?;
    let (_, body) = body_of(&seal_now(&rig, &seal_id(token.serial())?)?)?;
    ensure!(
        (body.client.id.as_str(), body.client.method) == ("lan", ClientMethod::Local),
        "{:?}",
        body.client
    );
    ensure!(body.transport.ends_with("; rfc3161; no credential"), "{}", body.transport);
    // Its limits are that client's.
    let answers: Vec<u16> = (0..40).map(|_| Ok(post(&nobody, &[], &query)?.status)).collect::<Result<_>>()?;
    ensure!(answers.contains(&429) && answers.contains(&200), "{answers:?}");
    // A wrong credential is not let in as the network.
    ensure!(post(&rig.client_with(Some("bulla_wrong")), &[], &query)?.problem()? == "unauthenticated");
    rig.run(&["scanner", "revoke", "--name", "lan"])?;
    ensure!(post(&nobody, &[], &query)?.problem()? == "unauthenticated");
    Ok(())
}

#[test]
fn g7_a_token_states_how_wrong_its_time_may_be_and_an_emergency_stops_none() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    // Nobody has said what the time is: no token, and no seal either.
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    let more = "[tsa]\nenabled = true\npolicy = \"1.2.3.4.1\"\n";
    let quick = "[anchors]\noperators = 1\n";
    let anchors = outage::anchors(&[(&tsa, outage::LOOK)]).replace("[anchors]\n", quick);
    let extra = format!("{more}{}{anchors}", outage::QUICK);
    let rig = Rig::start_with(&software(&extra))?;
    let scanner = rig.client(Role::Scanner);
    let (failure, words) = refusal(&ask(&scanner, b"too early", 1, None)?)?;
    ensure!(failure == Failure::TimeNotAvailable, "{failure:?} {words}");
    tsa.set(&Knobs::default())?;
    wait_mode(&rig, "online", PATIENCE)?;
    let policy = Oid::parse("1.2.3.4.1")?;
    let online = judge(&rig, &ask(&scanner, b"online", 2, Some(policy.clone()))?, b"online", Some(2))?;
    ensure!(online.policy() == &policy);
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    let emergency = judge(&rig, &ask(&scanner, b"emergency", 3, None)?, b"emergency", Some(3))?;
    for (token, document) in [(&online, &b"online"[..]), (&emergency, b"emergency")] {
        let accuracy = token.accuracy_micros().context("an accuracy")?;
        let seal = seal_now(&rig, &seal_id(token.serial())?)?;
        let (entry, _) = body_of(&seal)?;
        let uncertainty = entry.content().time.uncertainty_millis.context("an uncertainty")?;
        ensure!(accuracy == (uncertainty + 1) * 1_000, "{accuracy} of {uncertainty}");
        ensure!(token.gen_time_micros() == entry.content().time.unix_millis * 1_000);
        ensure!(rig.judge(&seal, document).report.verdict == Verdict::Valid);
    }
    // Locked: no token, in words that such programs show; and nothing is queued for later.
    let operator = rig.client(Role::Operator);
    let reason = br#"{"reason":"a test"}"#;
    ensure!(operator.post("/v1/lock", &[], reason)?.status == 200);
    let before = rig.log_size()?;
    let (failure, words) = refusal(&ask(&scanner, b"locked", 4, None)?)?;
    ensure!(failure == Failure::SystemFailure && words.contains("locked"), "{failure:?} {words}");
    ensure!(rig.log_size()? == before);
    ensure!(operator.post("/v1/unlock", &[], reason)?.status == 200);
    judge(&rig, &ask(&scanner, b"again", 5, None)?, b"again", Some(5))?;
    Ok(())
}
