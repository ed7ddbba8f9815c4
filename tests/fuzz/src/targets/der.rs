//! Every DER structure: entries, their bodies, openings, enrolments, revocations, successions, leases, destruction certificates.
//!
//! Holds: what decodes is encoded back to the same bytes, passes its own checks, and survives being asked about.

use super::{seed, split};
use crate::genuine::{LEASES, RETIREMENTS, SIGNED, TRUST, entries};
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Cosignature, Evidence};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::clock::{ClockBody, ClockFinding, TpmClock};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::integrity::{CheckedStore, EntryRange, Finding, IntegrityBody};
use bulla_formats::body::key_epoch::{Endorsement, KeyEpochBody};
use bulla_formats::body::manifest::{
    AtLimit, Holder, Limits, ManifestBody, ManifestStatement, MeasuredBy, Phase, Wording,
};
use bulla_formats::body::mode_change::{LimitReached, ModeChangeBody, ModeStatement, OutageState, Vouched};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::probe::{Failure, ProbeFinding};
use bulla_formats::body::seal::{Opening, SealBody};
use bulla_formats::body::self_test::SelfTestBody;
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::der::{Octets32, encode};
use bulla_formats::endorsement::AttestationKey;
use bulla_formats::enrolment::Enrolment;
use bulla_formats::entry::{Entry, EntryRef, LocalTime, Mode, TreeState};
use bulla_formats::erasure::{LEAVES_MAX, erase_body, erased_leaves};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::lease::Lease;
use bulla_formats::origin::Origin;
use bulla_formats::report::describe;
use bulla_formats::retirement::Certificate;
use bulla_formats::revocation::Revocation;
use bulla_formats::succession::Succession;

const CHOICES: u8 = 19;
const ORIGIN: &str = "bank.example/abababababababababababababababababababab/1";

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
        11 => {
            let Ok(said) = Revocation::decode(data) else { return };
            assert_eq!(encode(&said), data);
            if let Ok(verified) = said.verify(&TRUST.fleet, &TRUST.roots) {
                assert!(SIGNED.revocations.contains(data), "a revocation that nobody signed");
                assert_eq!(*verified.content(), said.content);
            }
        }
        12 => {
            let Ok(body) = AnchorBody::decode(data) else { return };
            assert_eq!((encode(&body).as_slice(), body.check()), (data, Ok(())));
            let another =
                AnchorBody { head: TreeState::new(body.head.size, Hash([0xee; 32])), ..body.clone() };
            let differs = another.head != body.head && body.leads(ORIGIN).is_ok();
            assert!(!differs || another.leads(ORIGIN).is_err(), "two heads at one place of a batch");
        }
        13 => {
            let Ok(body) = ModeChangeBody::decode(data) else { return };
            assert_eq!((encode(&body).as_slice(), body.check()), (data, Ok(())));
        }
        14 => {
            let Ok(body) = ManifestBody::decode(data) else { return };
            assert_eq!((encode(&body).as_slice(), body.check()), (data, Ok(())));
            let said = &body.statement;
            assert!(said.covers(said.first) && !said.covers(said.head.size), "it covers nothing, or more");
        }
        16 => {
            let Ok(said) = Lease::decode(data) else { return };
            assert_eq!((encode(&said).as_slice(), said.content.check()), (data, Ok(())));
            let origin = Origin::parse(&said.content.origin).expect("a lease is for a log");
            let by_hub = said.verify_by_hub(&origin, &said.content.issuer, &LEASES.hub).is_ok();
            if by_hub || said.verify(&origin, &[LEASES.root]).is_ok() {
                assert!(LEASES.valid.contains(data), "a lease that nobody signed");
            }
        }
        17 => {
            let Ok(said) = Succession::decode(data) else { return };
            assert_eq!(encode(&said), data);
            if let Ok(verified) = said.verify(&TRUST.fleet, &TRUST.roots) {
                assert!(SIGNED.successions.contains(data), "a succession that nobody signed");
                assert_eq!(*verified.content(), said.content);
            }
        }
        18 => {
            let Ok(said) = Certificate::decode(data) else { return };
            assert_eq!((said.encode().as_slice(), said.statement.check()), (data, Ok(())));
            assert!(said.outcome.check().is_ok());
            if said.verify(&TRUST.fleet, &TRUST.roots).is_ok() {
                assert!(RETIREMENTS.contains(data), "a certificate that nobody signed");
            }
        }
        _ => {
            let Ok(body) = ClockBody::decode(data) else { return };
            assert_eq!((encode(&body).as_slice(), body.check()), (data, Ok(())));
        }
    }
}

/// Bodies of an outage: an anchor, the mode change that begins it, its closing manifest, and what clocks did.
fn of_outages() -> [(u8, Vec<u8>); 4] {
    let (head, time) =
        (TreeState::new(7, Hash([7; 32])), LocalTime { unix_millis: 1, uncertainty_millis: None });
    let proof = |authority: &str, evidence| AnchorProof {
        authority: authority.to_owned(),
        operator: "one".to_owned(),
        evidence,
    };
    let cosignature =
        Cosignature { name: "witness.example/w1".to_owned(), seconds: 5, signature: vec![9; 64].into() };
    let mut anchor = AnchorBody {
        version: 1,
        batch: TreeState::new(1, Hash([0; 32])),
        index: 0,
        path: Vec::new(),
        head: head.clone(),
        proofs: vec![
            proof("tsa", Evidence::Timestamp(vec![0x30, 0].into())),
            proof("witness", Evidence::Cosignature(cosignature)),
        ],
        manifests: vec![EntryRef { index: 5, leaf_hash: Octets32::new([3; 32]) }],
    };
    let leaf = leaf_hash(anchor.checkpoint_text(ORIGIN).as_bytes());
    anchor.batch = TreeState::new(1, leaf);
    let finding = ProbeFinding {
        authority: "tsa".to_owned(),
        operator: "one".to_owned(),
        failure: Some(Failure::Timeout),
        for_millis: 60_000,
        detail: String::new(),
    };
    let change = ModeStatement {
        version: 1,
        origin: ORIGIN.to_owned(),
        from: Mode::Degraded,
        to: Mode::Emergency,
        below: Mode::Emergency,
        outages: 1,
        outage: Some(OutageState { first: None, elapsed_millis: 0, manifests: 0, last: None, closing: None }),
        locked: false,
        limits: vec![LimitReached::Holders],
        head: head.clone(),
        findings: vec![finding.clone()],
        reason: "nothing is in reach".to_owned(),
    };
    let manifest = ManifestStatement {
        version: 1,
        origin: ORIGIN.to_owned(),
        outage: 1,
        sequence: 2,
        phase: Phase::Close,
        drill: false,
        began: time,
        made: time,
        duration_millis: 9,
        measured_by: MeasuredBy::SteadyClock,
        first: 2,
        head,
        entries: Octets32::new([4; 32]),
        seals: 3,
        evidence: Some(EntryRef { index: 1, leaf_hash: Octets32::new([5; 32]) }),
        findings: vec![finding],
        holders: vec![Holder { name: "peer".to_owned(), size: 6 }],
        wording: Wording { id: "bulla/default-en/1".to_owned(), sha256: Octets32::new([6; 32]) },
        limits: Some(Limits {
            seconds: Some(1),
            seals: None,
            holders: Some(2),
            at_limit: AtLimit::Safe,
            reached: vec![LimitReached::Duration],
        }),
        event_log: Some(Octets32::new([8; 32])),
        approvals: Vec::new(),
    };
    let vouched = || Vouched::None("a box without TPM".to_owned());
    let clock = ClockBody {
        finding: ClockFinding::Jump,
        expected: time,
        found: time,
        tpm: Some(TpmClock { millis: 1, reset_count: 2, restart_count: 3, safe: true }),
        detail: "x".to_owned(),
    };
    [
        (12, encode(&anchor)),
        (13, encode(&ModeChangeBody { statement: change, vouched: vouched() })),
        (14, encode(&ManifestBody { statement: manifest, vouched: vouched() })),
        (15, encode(&clock)),
    ]
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
    seeds.extend(SIGNED.successions.iter().map(|said| seed(17, said)));
    seeds.extend(LEASES.valid.iter().map(|said| seed(16, said)));
    seeds.extend(RETIREMENTS.iter().map(|said| seed(18, said)));
    let (head, time) =
        (TreeState::new(7, Hash([7; 32])), LocalTime { unix_millis: 1, uncertainty_millis: Some(2) });
    let reference = EntryRef { index: 3, leaf_hash: Octets32::new([3; 32]) };
    let quoteless = AttestationBody {
        head: head.clone(),
        log_signature: vec![9; 64].into(),
        quote: None,
        counter: None,
        event_log: None,
        reason: Some("no TPM".to_owned()),
    };
    let succession = SuccessionBody {
        predecessor: ORIGIN.to_owned(),
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
    seeds.extend(made.into_iter().chain(of_outages()).map(|(choice, body)| seed(choice, body)));
    seeds
}
