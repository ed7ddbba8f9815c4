//! Integrity and self-test entries: what a log may say of its own disk and of its own seals, and what it may not.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use bulla_formats::audit::{AuditError, LogAuditor};
use bulla_formats::body::integrity::{CheckedStore, EntryRange, FINDINGS_MAX, Finding, IntegrityBody};
use bulla_formats::body::seal::{Client, ClientMethod};
use bulla_formats::body::self_test::{self, SelfTestBody};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryRef, Kind, LocalTime, TreeState};
use bulla_formats::hash::Hash;
use common::Log;

const TIME: LocalTime = LocalTime { unix_millis: common::NOW, uncertainty_millis: None };

fn finding() -> Finding {
    Finding {
        file: "seg-0000000000000000.redb".into(),
        entries: Some(EntryRange { first: 0, last: 1 }),
        what: "the entry does not have the hash that its tile records".into(),
        repaired: false,
    }
}

fn integrity(head: TreeState) -> IntegrityBody {
    let stores = vec![CheckedStore { name: "segments".into(), bytes: 1 << 20, damaged: 1 }];
    IntegrityBody {
        head,
        began: TIME,
        ended: TIME,
        complete: true,
        stores,
        findings: vec![finding()],
        more: 0,
    }
}

fn self_test(seal: Option<EntryRef>) -> SelfTestBody {
    let (verdict, failure) = match seal {
        Some(_) => ("valid", None),
        None => ("not-sealed", Some("the disk is full".to_owned())),
    };
    SelfTestBody {
        seal,
        verdict: verdict.into(),
        seal_micros: 900,
        verify_micros: 400,
        attested: false,
        failure,
    }
}

/// A log with a synthetic seal at index 2.
fn log() -> Log {
    let mut log = Log::new(Hardware::Software, 5);
    log.seal(b"one");
    let mut body = log.seal_body(&common::digest(b"synthetic")).0;
    body.client = Client { id: self_test::CLIENT.into(), method: ClientMethod::Local };
    body.media_type = self_test::MEDIA_TYPE.into();
    body.commitments.clear();
    log.append(log.content(Kind::Seal as u16, der::encode(&body)));
    log.attestation();
    log.seal(b"two");
    log
}

fn judge(log: &Log) -> Vec<AuditError> {
    let mut auditor = LogAuditor::new(log.origin.clone(), Some(&log.trust()));
    log.entries.iter().filter_map(|entry| auditor.entry(entry.bytes()).err()).collect()
}

fn judge_with(kind: Kind, body: Vec<u8>) -> Option<AuditError> {
    let mut log = log();
    log.append(log.content(kind as u16, body));
    let faults = judge(&log);
    assert!(faults.len() < 2, "{faults:?}");
    faults.into_iter().next()
}

fn reference(log: &Log, index: u64) -> EntryRef {
    let leaf = log.entries[usize::try_from(index).unwrap()].leaf_hash();
    EntryRef { index, leaf_hash: Octets32::new(leaf.0) }
}

/// The tree of the first `size` entries.
fn head(log: &Log, size: u64) -> TreeState {
    let mut auditor = LogAuditor::new(log.origin.clone(), None);
    for entry in &log.entries[..usize::try_from(size).unwrap()] {
        auditor.entry(entry.bytes()).unwrap();
    }
    TreeState::new(auditor.size(), auditor.root())
}

#[test]
fn an_integrity_entry_speaks_of_a_tree_that_was() {
    let log = log();
    // Also of one that is older than what has been attested since: a pass takes long.
    for size in 2..=log.size() {
        assert_eq!(judge_with(Kind::Integrity, der::encode(&integrity(head(&log, size)))), None, "{size}");
    }
    let refused = |body: &IntegrityBody| judge_with(Kind::Integrity, der::encode(body)).unwrap();
    let other = TreeState::new(3, Hash([7; 32]));
    assert!(matches!(refused(&integrity(other)), AuditError::Integrity(_)));
    let later = TreeState::new(log.size() + 1, log.root());
    assert!(matches!(refused(&integrity(later)), AuditError::Integrity(_)));
    let mut beyond = integrity(head(&log, 3));
    beyond.findings[0].entries = Some(EntryRange { first: 1, last: 3 });
    assert!(matches!(refused(&beyond), AuditError::Integrity(_)));
}

#[test]
fn a_self_test_names_its_own_seal() {
    let log = log();
    assert_eq!(judge_with(Kind::SelfTest, der::encode(&self_test(Some(reference(&log, 2))))), None);
    assert_eq!(judge_with(Kind::SelfTest, der::encode(&self_test(None))), None);
    // A customer's seal, an attestation, an entry to come, the right place with another hash.
    let mut other = reference(&log, 2);
    other.leaf_hash = Octets32::new([1; 32]);
    let to_come = EntryRef { index: 9, ..other.clone() };
    for seal in [reference(&log, 1), reference(&log, 3), to_come, other] {
        let fault = judge_with(Kind::SelfTest, der::encode(&self_test(Some(seal))));
        assert!(matches!(fault, Some(AuditError::SelfTest(_))), "{fault:?}");
    }
}

#[test]
fn integrity_bodies_out_of_bounds_are_refused() {
    let good = integrity(TreeState::new(2, Hash([1; 32])));
    assert_eq!(IntegrityBody::decode(&der::encode(&good)).as_ref(), Ok(&good));
    let changes: [fn(&mut IntegrityBody); 12] = [
        |body| body.stores[0].name.clear(),
        |body| body.stores[0].name = "a".repeat(65),
        |body| body.stores[0].bytes = 1 << 63,
        |body| body.stores = vec![body.stores[0].clone(); 17],
        |body| body.findings = vec![finding(); FINDINGS_MAX + 1],
        |body| body.findings[0].file.clear(),
        |body| body.findings[0].what.clear(),
        |body| body.findings[0].what = "a".repeat(257),
        |body| body.findings[0].entries = Some(EntryRange { first: 2, last: 1 }),
        |body| body.more = 1,
        |body| body.head.size = 1 << 63,
        |body| body.ended.unix_millis = 1 << 63,
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut body = good.clone();
        change(&mut body);
        assert!(IntegrityBody::decode(&der::encode(&body)).is_err(), "change {at}");
    }
    let mut full = good;
    full.findings = vec![finding(); FINDINGS_MAX];
    full.more = 9;
    let bytes = der::encode(&full);
    assert!(IntegrityBody::decode(&bytes).is_ok());
    assert!(IntegrityBody::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "trailing byte");
}

#[test]
fn self_test_bodies_that_contradict_themselves_are_refused() {
    let seal = EntryRef { index: 2, leaf_hash: Octets32::new([1; 32]) };
    let good = self_test(Some(seal));
    assert_eq!(SelfTestBody::decode(&der::encode(&good)).as_ref(), Ok(&good));
    assert!(good.passed() && !self_test(None).passed());
    let changes: [fn(&mut SelfTestBody); 8] = [
        |body| body.seal = None,
        |body| body.verdict = "refused".into(),
        |body| body.verdict.clear(),
        |body| body.failure = Some(String::new()),
        |body| body.failure = Some("a".repeat(1025)),
        |body| (body.seal, body.attested, body.failure) = (None, true, Some("x".into())),
        |body| body.seal_micros = 1 << 63,
        |body| body.seal = body.seal.take().map(|seal| EntryRef { index: 1 << 63, ..seal }),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut body = good.clone();
        change(&mut body);
        assert!(SelfTestBody::decode(&der::encode(&body)).is_err(), "change {at}");
    }
}
