//! The witness that other tests rely on: it cosigns what is consistent, and nothing else; and every switch does what it
//! says. Requests and answers are those of the formats; consistency is judged by another implementation.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::body::anchor::Cosignature;
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{consistency_proof, root};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line, verifier_key};
use bulla_formats::witness::add_checkpoint::{WitnessRefusal, request};
use bulla_tests::rig::witness::{Answer, Knobs, Quota, Transport, Witness, submit};
use ed25519_dalek::{Signer as _, SigningKey};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(20);
const ORIGIN: &str = "log.example/1";

/// A log that grows as it is told, and can tell two stories.
struct Log {
    key: SigningKey,
    leaves: Vec<Hash>,
}

impl Log {
    fn new(size: u64) -> Self {
        Log {
            key: SigningKey::from_bytes(&[3; 32]),
            leaves: (0..size).map(|at| leaf_hash(&at.to_be_bytes())).collect(),
        }
    }

    fn verifier_key(&self) -> String {
        verifier_key(ORIGIN, self.key.verifying_key().as_bytes())
    }

    fn text(&self, size: u64) -> String {
        checkpoint_text(ORIGIN, size, &root(size, &self.leaves[..]).unwrap())
    }

    fn note(&self, text: String) -> SignedNote {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        SignedNote { lines: vec![log_line(ORIGIN, self.key.verifying_key().as_bytes(), &signature)], text }
    }

    fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        consistency_proof(old, new, &self.leaves[..]).unwrap()
    }

    fn request(&self, old: u64, new: u64) -> String {
        request(old, &self.proof(old, new), &self.note(self.text(new))).unwrap()
    }

    /// Shows a witness the tree of this size, from where it is said to stand.
    fn show(&self, witness: &Witness, old: u64, new: u64) -> Result<Cosignature, WitnessRefusal> {
        submit(witness, &self.request(old, new), &self.text(new), PATIENCE).unwrap()
    }
}

fn witness(log: &Log) -> Witness {
    let witness = Witness::start("witness.example/w1", 0, 0).unwrap();
    witness.know(&log.verifier_key()).unwrap();
    witness
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_log_that_grows_is_cosigned_at_every_step() {
    let log = Log::new(300);
    let witness = witness(&log);
    let mut old = 0;
    for new in [1, 1, 2, 3, 7, 8, 9, 64, 65, 255, 256, 257, 300, 300] {
        let cosignature = log.show(&witness, old, new).unwrap();
        assert!(now().abs_diff(cosignature.seconds) <= 5);
        assert_eq!((cosignature.name.as_str(), witness.size(ORIGIN)), ("witness.example/w1", Some(new)));
        old = new;
    }
    let counters = witness.counters();
    assert_eq!((counters.requests, counters.cosignatures, counters.conflicts), (14, 14, 0));
    // Anybody can fetch the last one.
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(ORIGIN));
    let mut answer = ureq::get(format!("{}/{hash}/checkpoint", witness.url())).call().unwrap();
    let note = SignedNote::parse(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!((note.text, note.lines.len()), (log.text(300), 1));
}

#[test]
fn who_does_not_know_where_it_stands_is_told() {
    let log = Log::new(40);
    let witness = witness(&log);
    assert_eq!(log.show(&witness, 3, 9), Err(WitnessRefusal::Size(0)));
    log.show(&witness, 0, 9).unwrap();
    for (old, new) in [(0, 9), (0, 40), (8, 9), (10, 40)] {
        assert_eq!(log.show(&witness, old, new), Err(WitnessRefusal::Size(9)), "{old} to {new}");
    }
    log.show(&witness, 9, 40).unwrap();
    // A log that has lost entries learns it here.
    assert_eq!(log.show(&witness, 0, 20), Err(WitnessRefusal::Size(40)));
    witness.forget();
    assert_eq!(log.show(&witness, 40, 40), Err(WitnessRefusal::Size(0)));
    assert_eq!(witness.counters().conflicts, 7);
}

#[test]
fn nothing_inconsistent_is_cosigned() {
    let (log, mut fork) = (Log::new(60), Log::new(60));
    let witness = witness(&log);
    log.show(&witness, 0, 30).unwrap();
    fork.leaves[29] = Hash([9; 32]);
    assert_eq!(fork.show(&witness, 30, 30), Err(WitnessRefusal::Inconsistent));
    assert_eq!(fork.show(&witness, 30, 60), Err(WitnessRefusal::Inconsistent));

    let (text, proof) = (log.text(60), log.proof(30, 60));
    let post = |proof: &[Hash]| {
        let body = request(30, proof, &log.note(text.clone())).unwrap();
        submit(&witness, &body, &text, PATIENCE).unwrap()
    };
    for at in 0..proof.len() {
        let mut other = proof.clone();
        other[at].0[7] ^= 1;
        assert_eq!(post(&other), Err(WitnessRefusal::Inconsistent));
        other.remove(at);
        assert_eq!(post(&other), Err(WitnessRefusal::Inconsistent));
    }
    assert_eq!(post(&[proof.clone(), vec![Hash([0; 32])]].concat()), Err(WitnessRefusal::Inconsistent));
    assert_eq!(witness.size(ORIGIN), Some(30));
    post(&proof).unwrap();

    let empty = Witness::start("witness.example/w2", 0, 0).unwrap();
    empty.know(&log.verifier_key()).unwrap();
    let full = checkpoint_text(ORIGIN, 0, &Hash([0; 32]));
    let body = request(0, &[], &log.note(full.clone())).unwrap();
    assert_eq!(submit(&empty, &body, &full, PATIENCE).unwrap(), Err(WitnessRefusal::Inconsistent));
    let body = request(0, &[Hash([0; 32])], &log.note(text.clone())).unwrap();
    assert_eq!(submit(&empty, &body, &text, PATIENCE).unwrap(), Err(WitnessRefusal::Inconsistent));
    log.show(&empty, 0, 0).unwrap();
    log.show(&empty, 0, 5).unwrap();
}

#[test]
fn strangers_and_nonsense_are_refused() {
    let log = Log::new(10);
    let witness = Witness::start("witness.example/w1", 0, 0).unwrap();
    assert_eq!(log.show(&witness, 0, 5), Err(WitnessRefusal::UnknownLog));
    assert!(witness.know("log.example+00000000+AAAA").is_err());
    witness.know(&log.verifier_key()).unwrap();
    let thief = Log { key: SigningKey::from_bytes(&[4; 32]), ..Log::new(10) };
    assert_eq!(thief.show(&witness, 0, 5), Err(WitnessRefusal::NotSigned));
    let text = log.text(5);
    let post = |body: &str| submit(&witness, body, &text, PATIENCE).unwrap();
    let mut damaged = log.note(text.clone());
    damaged.lines[0].body[9] ^= 1;
    assert_eq!(post(&request(0, &[], &damaged).unwrap()), Err(WitnessRefusal::NotSigned));
    // A good line does not make up for a bad one.
    let good = log.note(text.clone());
    damaged.lines.push(good.lines[0].clone());
    assert_eq!(post(&request(0, &[], &damaged).unwrap()), Err(WitnessRefusal::NotSigned));
    let body = request(0, &[], &good).unwrap();
    for bad in [
        String::new(),
        "old 0\n".into(),
        body.replacen("old 0", "old 00", 1),
        body.replacen("old 0", "old -1", 1),
        body.replacen("old 0", "old 6", 1),
        body.replacen("old 0\n", "old 0\nAAAA\n", 1),
        body.replacen("old 0\n", "old 0", 1),
        body.trim_end().to_owned(),
        body.replacen("old 0\n", &format!("old 0\n{}", format!("{}=\n", "A".repeat(43)).repeat(64)), 1),
    ] {
        assert_eq!(post(&bad), Err(WitnessRefusal::Malformed), "{bad:?}");
    }
    assert_eq!(witness.size(ORIGIN), None);
    post(&body).unwrap();
}

#[test]
fn of_two_at_once_one_wins() {
    let log = Log::new(200);
    let witness = witness(&log);
    log.show(&witness, 0, 1).unwrap();
    for round in 0..10 {
        let old = witness.size(ORIGIN).unwrap();
        let shown = std::thread::scope(|scope| {
            let each = [1, 2, 3].map(|more| {
                let (log, witness) = (&log, &witness);
                scope.spawn(move || (old + more, log.show(witness, old, old + more)))
            });
            each.map(|one| one.join().unwrap())
        });
        let won: Vec<u64> =
            shown.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(size, _)| *size).collect();
        assert_eq!(won, [witness.size(ORIGIN).unwrap()], "round {round}: {shown:?}");
        for (_, outcome) in shown.iter().filter(|(_, outcome)| outcome.is_err()) {
            assert_eq!(*outcome, Err(WitnessRefusal::Size(won[0])));
        }
    }
}

#[test]
fn every_switch_does_what_it_says() {
    let log = Log::new(100);
    let witness = witness(&log);
    log.show(&witness, 0, 10).unwrap();
    let mut size = 10;
    for (answer, code) in [
        (Answer::Damaged, "cosignature"),
        (Answer::OtherCheckpoint, "cosignature"),
        (Answer::Strangers, "cosignature-absent"),
        (Answer::FalseSize, "other-size"),
        (Answer::Unavailable, "status"),
        (Answer::CaptivePortal, "answer-unreadable"),
        (Answer::Redirect, "status"),
    ] {
        witness.answer(answer).unwrap();
        assert_eq!(log.show(&witness, size, size + 1).map_err(WitnessRefusal::code), Err(code), "{answer:?}");
        size = witness.size(ORIGIN).unwrap();
    }
    witness.answer(Answer::Crowd).unwrap();
    log.show(&witness, size, size + 1).unwrap();
    size += 1;
    let fails = |patience| {
        let (body, text) = (log.request(size, size), log.text(size));
        format!("{:#}", submit(&witness, &body, &text, patience).unwrap_err()).to_lowercase()
    };
    witness.answer(Answer::Huge).unwrap();
    assert!(fails(PATIENCE).contains("limit"));
    witness.answer(Answer::Stalled).unwrap();
    assert!(fails(Duration::from_millis(300)).contains("timeout"));
    for (transport, words) in [(Transport::Down, "refused"), (Transport::BlackHole, "timeout")] {
        witness.set(&Knobs { transport, ..Knobs::default() }).unwrap();
        let said = fails(Duration::from_millis(500));
        assert!(said.contains(words), "{said}");
    }
    for offset in [-3_600, 86_400] {
        witness.set(&Knobs { clock_offset_seconds: offset, delay_millis: 200, ..Knobs::default() }).unwrap();
        let began = Instant::now();
        let cosignature = log.show(&witness, size, size).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(200));
        assert!(cosignature.seconds.abs_diff(now().saturating_add_signed(offset)) <= 5);
    }
    let quota = Quota { requests: 1, period_millis: 60_000, blocked_millis: 0 };
    witness.set(&Knobs { quota: Some(quota), ..Knobs::default() }).unwrap();
    log.show(&witness, size, size).unwrap();
    assert_eq!(log.show(&witness, size, size), Err(WitnessRefusal::Status(429)));
    assert_eq!(witness.counters().beyond_quota, 1);

    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let control = |path: &str| format!("{}/{path}", witness.control_url());
    let put = |body: &str| agent.put(control("knobs")).send(body).unwrap().status().as_u16();
    assert_eq!((put("{}"), put("{"), put(r#"{"answer": "?"}"#)), (200, 400, 400));
    log.show(&witness, size, size).unwrap();
    assert_eq!(agent.post(control("logs")).send("no key").unwrap().status(), 400);
    assert_eq!(agent.post(control("logs")).send(log.verifier_key()).unwrap().status(), 200);
    assert_eq!(agent.delete(control("memory")).call().unwrap().status(), 200);
    assert_eq!(witness.size(ORIGIN), None);
}
