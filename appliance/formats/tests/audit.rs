//! The audit of whole logs: a genuine log passes, and each kind of lie is named at its entry.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use bulla_formats::audit::{AuditError, LogAuditor, ResumeError};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::body::mirror::{CosignedHead, MirrorBody, Neighbour};
use bulla_formats::body::revocation::RevocationBody;
use bulla_formats::body::roster::{Came, RosterBody};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryContent, EntryRef, Kind, TreeState};
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::note::checkpoint_text;
use bulla_formats::origin::Origin;
use bulla_formats::revocation::Cause;
use bulla_formats::trust::TrustFile;
use bulla_formats::witness::{Role, WitnessKey, cosigned};
use common::Log;
use ed25519_dalek::{Signer as _, SigningKey};

/// Index and fault of each refused entry.
fn audit(log: &Log) -> Vec<(u64, AuditError)> {
    audit_bytes(log, &log.entries.iter().map(|entry| entry.bytes().to_vec()).collect::<Vec<_>>())
}

fn audit_bytes(log: &Log, entries: &[Vec<u8>]) -> Vec<(u64, AuditError)> {
    let mut auditor = LogAuditor::new(log.origin.clone(), Some(&log.trust()));
    let mut faults = Vec::new();
    for (index, entry) in (0u64..).zip(entries) {
        assert_eq!(auditor.size(), index);
        faults.extend(auditor.entry(entry).err().map(|error| (index, error)));
    }
    assert_eq!(auditor.summary().entries, entries.len() as u64);
    assert_eq!(common::audit_in_pieces(&log.origin, &log.trust(), entries), faults);
    faults
}

fn roster() -> RosterBody {
    let (fleet, from) = ("bank.example".to_owned(), "olga".to_owned());
    RosterBody { version: 1, fleet, number: 9, hash: Octets32::new([7; 32]), came: Came::File, from }
}

fn revocation() -> RevocationBody {
    RevocationBody {
        version: 1,
        roster: 9,
        origin: Origin::derive("bank.example", &Hash([3; 32]), 1).unwrap().to_string(),
        cause: Cause::Compromise,
        invalid_from: 1_790_000_000_000,
        good: TreeState::new(0, empty_root()),
    }
}

#[test]
fn what_a_log_says_of_rosters_is_read() {
    let (newer, whole) =
        (RosterBody { version: 2, ..roster() }, RevocationBody { roster: 1 << 63, ..revocation() });
    let mut sound = Log::new(Hardware::Software, 5);
    sound.append(sound.content(Kind::Revocation as u16, der::encode(&revocation())));
    sound.append(sound.content(Kind::Roster as u16, der::encode(&roster())));
    assert_eq!(audit(&sound), []);
    for (kind, body) in [
        (Kind::Roster, der::encode(&newer)),
        (Kind::Roster, b"rubbish".to_vec()),
        (Kind::Revocation, der::encode(&whole)),
        (Kind::Revocation, der::encode(&roster())),
    ] {
        let mut log = Log::new(Hardware::Software, 5);
        log.append(log.content(kind as u16, body));
        assert_eq!(audit(&log).len(), 1, "{kind:?}");
    }
}

/// A log with every kind of entry this version makes much of.
fn full(hardware: Hardware) -> Log {
    fill(Log::new(hardware, 5))
}

fn fill(mut log: Log) -> Log {
    log.seal(b"one");
    log.attestation();
    log.seal(b"two");
    log.rotate(true);
    log.seal(b"three");
    log.attestation();
    log.rotate(false);
    log.append(log.content(Kind::Retention as u16, b"reserved".to_vec()));
    log.append(log.content(999, b"from the future".to_vec()));
    log.seal(b"four");
    log
}

#[test]
fn g2_genuine_logs_pass() {
    for log in [full(Hardware::Software), full(Hardware::Tpm), fill(Log::resident(5, "sealing"))] {
        let hardware = log.hardware;
        assert_eq!(audit(&log), []);
        let mut auditor = LogAuditor::new(log.origin.clone(), None);
        for entry in &log.entries {
            assert_eq!(auditor.entry(entry.bytes()).as_ref(), Ok(entry));
        }
        assert_eq!((auditor.size(), auditor.root()), (log.size(), log.root()));
        let summary = auditor.summary();
        assert_eq!(summary.kinds[&(Kind::Seal as u16)], 4);
        let tpm = hardware == Hardware::Tpm;
        assert_eq!(summary.counter, tpm.then_some(41));
        assert_eq!(summary.attested_size, if tpm { 6 } else { 0 });
    }
}

#[test]
fn an_audit_is_taken_up_only_where_it_was_laid_aside() {
    let log = full(Hardware::Tpm);
    let mut auditor = LogAuditor::new(log.origin.clone(), Some(&log.trust()));
    for entry in &log.entries {
        auditor.entry(entry.bytes()).unwrap();
    }
    let saved = auditor.save();
    let boundaries: Vec<(u64, Hash)> =
        [(0, bulla_formats::hash::empty_root())].into_iter().chain(auditor.boundaries_after(0)).collect();
    let resume = |origin: &Origin, trust: &TrustFile, saved: &[u8], boundaries: &[(u64, Hash)]| {
        LogAuditor::resume(origin.clone(), Some(trust), saved, boundaries.iter().copied())
    };
    assert!(resume(&log.origin, &log.trust(), &saved, &boundaries).is_ok());
    let other = Log::new(Hardware::Tpm, 6);
    assert!(resume(&other.origin, &log.trust(), &saved, &boundaries).is_err(), "another log");
    assert!(resume(&log.origin, &log.trust(), &saved[1..], &boundaries).is_err(), "cut short");
    assert!(resume(&log.origin, &log.trust(), &saved, &boundaries[..boundaries.len() - 1]).is_err());
    assert!(resume(&log.origin, &log.trust(), &saved, &[]).is_err(), "no boundaries");
    let turned: Vec<(u64, Hash)> = boundaries.iter().rev().copied().collect();
    assert!(resume(&log.origin, &log.trust(), &saved, &turned).is_err(), "in another order");
    // Whom the fleet's root does not vouch for any more is not followed any further.
    let mut trust = log.trust();
    trust.roots = vec![SigningKey::from_bytes(&[77; 32]).verifying_key().to_bytes()];
    assert!(matches!(
        resume(&log.origin, &trust, &saved, &boundaries),
        Err(ResumeError::Beginning(AuditError::Enrolment(_)))
    ));
}

#[test]
fn batches_share_the_tree_before_them() {
    let mut log = Log::new(Hardware::Software, 5);
    let before = TreeState::new(log.size(), log.root());
    for document in [b"one", b"two"] {
        let body = der::encode(&log.seal_body(&common::digest(document)).0);
        let content = EntryContent { previous: before.clone(), ..log.content(Kind::Seal as u16, body) };
        log.append(content);
    }
    log.seal(b"next batch");
    assert_eq!(audit(&log), []);
    let body = der::encode(&log.seal_body(&common::digest(b"three")).0);
    let content = EntryContent { previous: before, ..log.content(Kind::Seal as u16, body) };
    let index = log.append(content);
    assert_eq!(audit(&log), [(index, AuditError::Previous { size: 1 })], "a batch that was over");
}

#[test]
fn any_flipped_bit_is_found_at_its_entry() {
    let log = full(Hardware::Tpm);
    let entries: Vec<Vec<u8>> = log.entries.iter().map(|entry| entry.bytes().to_vec()).collect();
    for at in 0..entries.len() {
        // A stride that is prime to 8 visits every bit position.
        for bit in (0..entries[at].len() * 8).step_by(37) {
            let mut changed = entries.clone();
            changed[at][bit / 8] ^= 1 << (bit % 8);
            let faults = audit_bytes(&log, &changed);
            assert_eq!(faults.first().map(|fault| fault.0), Some(at as u64), "entry {at}, bit {bit}");
        }
    }
}

#[test]
fn one_bad_entry_does_not_blame_all_others() {
    let log = full(Hardware::Software);
    let mut entries: Vec<Vec<u8>> = log.entries.iter().map(|entry| entry.bytes().to_vec()).collect();
    let last = entries.len() - 1;
    // The right entries under a wrong leaf: only the tree named right after it can disagree.
    entries[last - 1] = b"not an entry".to_vec();
    let faults = audit_bytes(&log, &entries);
    assert_eq!(faults.iter().map(|fault| fault.0).collect::<Vec<_>>(), [last as u64 - 1, last as u64]);
    assert!(matches!(faults[0].1, AuditError::Der(_)));
    assert!(matches!(faults[1].1, AuditError::Previous { .. }));
}

#[test]
fn g2_missing_repeated_and_exchanged_entries_are_found() {
    let log = full(Hardware::Software);
    let entries: Vec<Vec<u8>> = log.entries.iter().map(|entry| entry.bytes().to_vec()).collect();
    for at in 1..entries.len() {
        let mut missing = entries.clone();
        missing.remove(at);
        if at < missing.len() {
            let expected = (at as u64, AuditError::Index { found: at as u64 + 1 });
            assert_eq!(audit_bytes(&log, &missing)[0], expected);
        }
        let mut twice = entries.clone();
        twice.insert(at, entries[at - 1].clone());
        assert_eq!(audit_bytes(&log, &twice)[0].0, at as u64);
    }
}

#[test]
fn header_lies_are_named() {
    let lie = |change: &dyn Fn(&mut EntryContent)| {
        let mut log = Log::new(Hardware::Software, 5);
        log.seal(b"one");
        let body = der::encode(&log.seal_body(&common::digest(b"two")).0);
        let mut content = log.content(Kind::Seal as u16, body);
        change(&mut content);
        log.append(content);
        let faults = audit(&log);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].0, 2);
        faults[0].1.clone()
    };
    assert_eq!(lie(&|c| c.index = 3), AuditError::Index { found: 3 });
    assert_eq!(lie(&|c| c.previous = TreeState::new(2, Hash([1; 32]))), AuditError::Previous { size: 2 });
    assert_eq!(lie(&|c| c.lamport = 2), AuditError::Lamport { found: 2, before: 2 });
    let evidence = EntryRef { index: 1, leaf_hash: der::Octets32::new([1; 32]) };
    assert_eq!(lie(&|c| c.evidence = Some(evidence.clone())), AuditError::Evidence);
    assert!(matches!(lie(&|c| c.epoch = 1), AuditError::OtherEpoch { found: 1, .. }));
    assert!(matches!(lie(&|c| c.body = b"no seal body".to_vec().into()), AuditError::Der(_)));
}

/// The body of a sound next key epoch, changed, in an entry signed by the new key.
fn epoch_lie(change: impl Fn(&mut KeyEpochBody)) -> AuditError {
    let mut log = Log::new(Hardware::Software, 5);
    log.seal(b"one");
    log.rotate(true);
    let honest = log.entries.pop().unwrap();
    let mut changed = Log::new(Hardware::Software, 5);
    changed.seal(b"one");
    changed.rotate(true);
    changed.entries.pop();
    let mut content = honest.content().clone();
    let mut body = KeyEpochBody::decode(&content.body).unwrap();
    change(&mut body);
    content.body = der::encode(&body).into();
    changed.append(content);
    let faults = audit(&changed);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].0, 2);
    faults[0].1.clone()
}

#[test]
fn g8_the_chain_of_epochs_is_judged() {
    let broken = epoch_lie(|body| body.statement.previous = Some(der::Octets32::new([1; 32])));
    assert!(matches!(broken, AuditError::EpochChain(_)), "{broken}");
    let unsigned = epoch_lie(|body| body.predecessor = Some(vec![1; 64].into()));
    assert!(matches!(unsigned, AuditError::Signature { .. }), "{unsigned}");
    let unendorsed = epoch_lie(|body| {
        body.endorsement = bulla_formats::body::key_epoch::Endorsement::Software(vec![1; 64].into());
    });
    assert!(matches!(unendorsed, AuditError::Endorsement(_)), "{unendorsed}");
    let misplaced = epoch_lie(|body| body.first_index = 1);
    assert!(matches!(misplaced, AuditError::Endorsement(_)), "{misplaced}");
}

/// The body of a sound attestation, changed.
fn attestation_lie(change: impl Fn(&Log, &mut AttestationBody)) -> AuditError {
    let mut log = full(Hardware::Tpm);
    let mut body = log.attestation_body();
    change(&log, &mut body);
    let index = log.append(log.content(Kind::Attestation as u16, der::encode(&body)));
    let faults = audit(&log);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].0, index);
    faults[0].1.clone()
}

#[test]
fn g2_g8_attestations_are_judged() {
    let fault = attestation_lie(|_, body| body.head.root = der::Octets32::new([1; 32]));
    assert!(matches!(fault, AuditError::Attestation(_)), "{fault}");
    let fault = attestation_lie(|log, body| body.head.size = log.size() + 5);
    assert!(matches!(fault, AuditError::Attestation(_)), "{fault}");
    let fault = attestation_lie(|_, body| body.log_signature = vec![1; 64].into());
    assert!(matches!(fault, AuditError::Signature { .. }), "{fault}");
    let fault = attestation_lie(|log, body| body.quote = Some(log.quote(&Hash([1; 32]))));
    assert!(matches!(fault, AuditError::Tpm { what: "quote", .. }), "{fault}");
    let fault =
        attestation_lie(|_, body| body.quote.as_mut().unwrap().pcrs[0].value = der::Octets32::new([1; 32]));
    assert!(matches!(fault, AuditError::Tpm { what: "quote", .. }), "{fault}");
    let fault = attestation_lie(|_, body| body.counter.as_mut().unwrap().value += 1);
    assert!(matches!(fault, AuditError::Tpm { what: "counter", .. }), "{fault}");
    let fault = attestation_lie(|log, body| body.counter = Some(log.counter_evidence(&body.head, 40)));
    assert_eq!(fault, AuditError::Attestation("its counter has gone back"));
}

/// A mirror entry of two neighbours under the head of the log, changed; `None` when it is sound.
fn mirror_lie(change: impl Fn(&Log, &mut MirrorBody)) -> Option<AuditError> {
    let mut log = full(Hardware::Software);
    let head = TreeState::new(log.size(), log.root());
    let neighbour = |seed: u8| {
        let origin = Origin::derive(common::FLEET, &Hash([seed; 32]), 1).unwrap();
        let head_by = |role: Role, seed: u8| {
            let key = SigningKey::from_bytes(&[seed; 32]);
            let text = checkpoint_text(log.origin.as_str(), head.size, &head.root());
            let key_bytes = key.verifying_key().to_bytes();
            assert!(WitnessKey::of_peer(&origin, role, key_bytes).is_some());
            CosignedHead {
                key: der::Octets32::new(key_bytes),
                head: head.clone(),
                seconds: 1_790_000_000,
                signature: key.sign(&cosigned(&text, 1_790_000_000)).to_bytes().to_vec().into(),
            }
        };
        Neighbour {
            origin: origin.to_string(),
            mirrored: Some(head_by(Role::Mirror, seed)),
            witnessed: Some(head_by(Role::Witness, seed + 1)),
        }
    };
    let mut neighbours = vec![neighbour(40), neighbour(60)];
    neighbours.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut body = MirrorBody { version: 1, neighbours };
    change(&log, &mut body);
    let index = log.append(log.content(Kind::Mirror as u16, der::encode(&body)));
    let faults = audit(&log);
    assert!(faults.len() <= 1 && faults.iter().all(|fault| fault.0 == index), "{faults:?}");
    faults.first().map(|fault| fault.1.clone())
}

#[test]
fn mirror_entries_are_judged() {
    let mirrored = |body: &mut MirrorBody| body.neighbours[0].mirrored.clone().unwrap();
    assert_eq!(mirror_lie(|_, _| {}), None);
    let beyond = mirror_lie(|log, body| {
        let head = TreeState::new(log.size() + 1, log.root());
        body.neighbours[0].mirrored = Some(CosignedHead { head, ..mirrored(body) });
    });
    assert!(matches!(beyond, Some(AuditError::Mirror(_))), "{beyond:?}");
    let other = mirror_lie(|log, body| {
        let head = TreeState::new(log.size(), Hash([1; 32]));
        body.neighbours[1].witnessed = Some(CosignedHead { head, ..mirrored(body) });
        body.neighbours[0].mirrored = None;
    });
    assert!(matches!(other, Some(AuditError::Mirror(_))), "{other:?}");
    let own = mirror_lie(|log, body| {
        body.neighbours.truncate(1);
        body.neighbours[0].origin = log.origin.to_string();
    });
    assert!(matches!(own, Some(AuditError::Mirror(_))), "{own:?}");
    let never = mirror_lie(|_, body| body.neighbours[1].mirrored.as_mut().unwrap().seconds += 1);
    assert!(matches!(never, Some(AuditError::Signature { .. })), "{never:?}");
    let nobody = mirror_lie(|_, body| body.neighbours.clear());
    assert!(matches!(nobody, Some(AuditError::Der(_))), "{nobody:?}");
}

#[test]
fn the_beginning_must_be_this_logs_enrolment() {
    let log = full(Hardware::Software);
    let other = Origin::derive(common::FLEET, &Hash([9; 32]), 1).unwrap();
    let first = log.entries[0].bytes();
    let fault = LogAuditor::new(other, None).entry(first).unwrap_err();
    assert!(matches!(fault, AuditError::OtherLog { .. }), "{fault}");
    let mut trust = log.trust();
    trust.roots = vec![[7; 32]];
    let fault = LogAuditor::new(log.origin.clone(), Some(&trust)).entry(first).unwrap_err();
    assert!(matches!(fault, AuditError::Enrolment(_)), "{fault}");
    let mut auditor = LogAuditor::new(log.origin.clone(), None);
    assert!(matches!(auditor.entry(b"\x30\x00").unwrap_err(), AuditError::Der(_)));
    assert!(auditor.entry(log.entries[1].bytes()).is_err(), "nothing can be judged without a beginning");
}
