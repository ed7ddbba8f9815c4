//! Every DER structure: entries, their bodies, openings, enrolments, revocations.
//!
//! Holds: what decodes is encoded back to the same bytes, passes its own checks, and survives being asked about.

use super::{seed, split};
use crate::genuine::{SIGNED, TRUST, entries};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::integrity::{CheckedStore, EntryRange, Finding, IntegrityBody};
use bulla_formats::body::key_epoch::{Endorsement, KeyEpochBody};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::seal::{Opening, SealBody};
use bulla_formats::body::self_test::SelfTestBody;
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::der::encode;
use bulla_formats::endorsement::AttestationKey;
use bulla_formats::enrolment::Enrolment;
use bulla_formats::entry::{Entry, EntryRef, LocalTime, TreeState};
use bulla_formats::erasure::{LEAVES_MAX, erase_body, erased_leaves};
use bulla_formats::hash::Hash;
use bulla_formats::report::describe;
use bulla_formats::revocation::Revocation;

const CHOICES: u8 = 12;

fn epoch(body: &KeyEpochBody, data: &[u8]) {
    assert_eq!(encode(body), data);
    let statement = &body.statement;
    assert_ne!(statement.qualifying_data().0.to_vec(), statement.successor_message());
    assert!(statement.keys.contains(statement.sealing_key()));
    if let Endorsement::Quote(quote) = &body.endorsement {
        assert_eq!(quote.pcr_values().len(), quote.pcrs.len());
    }
}

fn enrolment(enrolment: &Enrolment, data: &[u8]) {
    assert_eq!(encode(enrolment), data);
    if let Ok(verified) = enrolment.verify(&TRUST.fleet, &TRUST.roots) {
        assert!(SIGNED.enrolments.contains(data), "an enrolment that nobody signed");
        assert_eq!(verified.origin().as_str(), verified.content().origin);
    }
    let content = &enrolment.content;
    if let Ok(AttestationKey::Tpm(key)) = AttestationKey::read(content.hardware, &content.attestation_key) {
        assert_eq!(key.as_bytes(), content.attestation_key.as_ref());
    }
}

fn action(body: &OperatorActionBody, data: &[u8]) {
    assert_eq!(encode(body), data);
    let Some(leaves) = erased_leaves(body) else { return };
    assert!((1..=LEAVES_MAX).contains(&leaves.len()));
    let again = erase_body(&leaves, body.reason.clone());
    assert_eq!(again.parameters, body.parameters, "leaves have one spelling");
}

/// The first byte chooses the structure.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => {
            let Ok(entry) = Entry::decode(data) else { return };
            assert_eq!(entry.bytes(), data);
            let again = Entry::assemble(entry.content().clone(), entry.signature().to_vec());
            assert_eq!(again.as_ref(), Ok(&entry), "its parts make another entry");
            assert_eq!(entry.kind().map_or(entry.content().kind, |kind| kind as u16), entry.content().kind);
        }
        1 => {
            let Ok(body) = SealBody::decode(data) else { return };
            assert_eq!(encode(&body), data);
            assert_eq!(body.check(), Ok(()));
            assert_eq!(body.document_digest().value.len(), body.algorithm.digest_bytes());
            assert_eq!(body.related().count(), body.relations.len());
            assert!(!describe(&body).is_empty());
        }
        2 => drop(KeyEpochBody::decode(data).map(|body| epoch(&body, data))),
        3 => drop(AttestationBody::decode(data).map(|body| assert_eq!(encode(&body), data))),
        4 => drop(SuccessionBody::decode(data).map(|body| assert_eq!(encode(&body), data))),
        5 => drop(OperatorActionBody::decode(data).map(|body| action(&body, data))),
        6 => drop(IncidentBody::decode(data).map(|body| assert_eq!(encode(&body), data))),
        7 => {
            let Ok(body) = IntegrityBody::decode(data) else { return };
            assert_eq!((encode(&body).as_slice(), body.check()), (data, Ok(())));
        }
        8 => {
            let Ok(body) = SelfTestBody::decode(data) else { return };
            assert_eq!((encode(&body).as_slice(), body.check()), (data, Ok(())));
            assert_eq!(body.passed(), body.failure.is_none());
        }
        9 => {
            let Ok(opening) = Opening::decode(data) else { return };
            assert_eq!((encode(&opening).as_slice(), opening.check()), (data, Ok(())));
            assert_eq!(opening.commitment(), opening.commitment());
        }
        10 => drop(Enrolment::decode(data).map(|found| enrolment(&found, data))),
        _ => {
            let Ok(said) = Revocation::decode(data) else { return };
            assert_eq!(encode(&said), data);
            if let Ok(verified) = said.verify(&TRUST.fleet, &TRUST.roots) {
                assert!(SIGNED.revocations.contains(data), "a revocation that nobody signed");
                assert_eq!(*verified.content(), said.content);
            }
        }
    }
}

/// Entries and bodies of the vectors, and bodies that only logs hold.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for entry in entries() {
        seeds.push(seed(0, entry.bytes()));
        let body = &entry.content().body;
        seeds.push(seed(entry.content().kind.min(CHOICES.into()) as u8, body));
        for choice in [1, 2, 5] {
            seeds.push(seed(choice, body));
        }
    }
    seeds.extend(SIGNED.openings.iter().map(|opening| seed(9, opening)));
    seeds.extend(SIGNED.enrolments.iter().map(|enrolment| seed(10, enrolment)));
    seeds.extend(SIGNED.revocations.iter().map(|said| seed(11, said)));
    let (head, time) =
        (TreeState::new(7, Hash([7; 32])), LocalTime { unix_millis: 1, uncertainty_millis: Some(2) });
    let reference = EntryRef { index: 3, leaf_hash: bulla_formats::der::Octets32::new([3; 32]) };
    let quoteless = AttestationBody {
        head: head.clone(),
        log_signature: vec![9; 64].into(),
        quote: None,
        counter: None,
        event_log: None,
        reason: Some("no TPM".to_owned()),
    };
    let origin = format!("bank.example/{}/1", "ab".repeat(20));
    let succession = SuccessionBody {
        predecessor: origin,
        head: head.clone(),
        cause: Cause::Rollback,
        reason: String::new(),
    };
    let incident =
        IncidentBody { code: "disk-full".to_owned(), began: time, ended: Some(time), detail: "x".to_owned() };
    let finding = Finding {
        file: "seg-0000000000000000.redb".to_owned(),
        entries: Some(EntryRange { first: 1, last: 2 }),
        what: "rot".to_owned(),
        repaired: false,
    };
    let store = CheckedStore { name: "log".to_owned(), bytes: 10, damaged: 1 };
    let integrity = IntegrityBody {
        head,
        began: time,
        ended: time,
        complete: true,
        stores: vec![store],
        findings: vec![finding],
        more: 0,
    };
    let test = SelfTestBody {
        seal: Some(reference),
        verdict: "valid".to_owned(),
        seal_micros: 1,
        verify_micros: 2,
        attested: true,
        failure: None,
    };
    let made = [
        (3, encode(&quoteless)),
        (4, encode(&succession)),
        (5, encode(&erase_body(&[Hash([1; 32]), Hash([2; 32])], "why".to_owned()))),
        (6, encode(&incident)),
        (7, encode(&integrity)),
        (8, encode(&test)),
    ];
    seeds.extend(made.map(|(choice, body)| seed(choice, body)));
    seeds
}
