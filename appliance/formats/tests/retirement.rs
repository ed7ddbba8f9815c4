//! `tests/vectors-retirement/`: destruction certificates that hold, and files that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-formats --test retirement` writes them.
//! Every expectation is the name of the file, before the two hyphens: what is shown of the TPM, or the code of the refusal.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use bulla_formats::audit::{AuditError, LogAuditor};
use bulla_formats::body::key_epoch::Endorsement;
use bulla_formats::body::operator_action::{OperatorActionBody, Parameter};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{Enrolment, Hardware};
use bulla_formats::entry::{Entry, Kind, TreeState};
use bulla_formats::hash::Hash;
use bulla_formats::retirement::{
    CERTIFICATE_BYTES_MAX, Certificate, Clearing, ERASED_MAX, Extent, Farewell, Outcome, RETIRE, Statement,
    is_final,
};
use common::{FLEET, Log, NOW};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const ACTION: [u8; 32] = [0xac; 32];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-retirement")
}

fn body(action: &str, extent: &str, approved: bool) -> Vec<u8> {
    let parameter = |name: &str, value: String| Parameter { name: name.to_owned(), value };
    let mut parameters = vec![parameter("extent", extent.to_owned())];
    if approved {
        parameters.push(parameter("action", Hash(ACTION).to_string()));
    }
    let reason = "end of life".to_owned();
    der::encode(&OperatorActionBody { action: action.to_owned(), parameters, reason, approvals: Vec::new() })
}

/// A log of three entries and its end.
fn log(hardware: Hardware) -> Log {
    let mut log = Log::new(hardware, 7);
    log.seal(b"one");
    log.seal(b"two");
    log.append(log.content(Kind::OperatorAction as u16, body(RETIRE, "keep-log", true)));
    log
}

fn statement(log: &Log) -> Statement {
    Statement {
        version: 1,
        origin: log.origin.to_string(),
        head: TreeState::new(log.size(), log.root()),
        extent: Extent::KeepLog,
        action: Some(Octets32::new(ACTION)),
        reason: "end of life".to_owned(),
        unanchored: 2,
        unmirrored: 0,
        counter: (log.hardware == Hardware::Tpm).then_some(41),
        made_at: NOW,
    }
}

/// A certificate of the last entry of `log`, all of whose signatures hold.
fn certify(
    log: &Log,
    statement: Statement,
    outcome: impl FnOnce(&mut Outcome),
    clock: (u64, u32),
) -> Certificate {
    let qualifying = statement.qualifying_data();
    let tpm = log.hardware == Hardware::Tpm;
    let mut said = Outcome {
        version: 1,
        statement: Octets32::new(qualifying.0),
        erased: vec!["identity.json".to_owned(), "keys".to_owned()],
        cleared: tpm,
        why_not: if tpm { String::new() } else { "there is no TPM".to_owned() },
        made_at: NOW + 1_000,
    };
    outcome(&mut said);
    let last = log.size() - 1;
    let endorsement = match tpm {
        true => Endorsement::Quote(log.quote(&qualifying)),
        false => Endorsement::Software(log.signed_by_device(&qualifying).into()),
    };
    let farewell = tpm.then(|| {
        let (public_area, attest, signature) = log.parting_key(&qualifying, true);
        Farewell {
            public_area: public_area.into(),
            attest: attest.into(),
            signature: signature.into(),
            quote: log.parting_quote(&said.qualifying_data(), clock),
        }
    });
    let path = log.proof(last, log.size());
    Certificate {
        enrolment: log.enrolment.clone().into(),
        entry: log.entries[last as usize].bytes().to_vec().into(),
        path: path.into_iter().map(|hash| Octets32::new(hash.try_into().unwrap())).collect(),
        signature: log.signed_by_log_key(&statement.message()).into(),
        statement,
        endorsement,
        outcome: said,
        farewell,
    }
}

const ANEW: (u64, u32) = (800, 0);

fn all() -> BTreeMap<&'static str, Vec<u8>> {
    let tpm = log(Hardware::Tpm);
    let software = log(Hardware::Software);
    let good = || certify(&tpm, statement(&tpm), |_| {}, ANEW);
    let of = |log: &Log| certify(log, statement(log), |_| {}, ANEW);
    let said = |change: &dyn Fn(&mut Statement)| {
        let mut statement = statement(&tpm);
        change(&mut statement);
        certify(&tpm, statement, |_| {}, ANEW).encode()
    };
    let done = |change: fn(&mut Outcome)| certify(&tpm, statement(&tpm), change, ANEW).encode();
    let then = |change: &dyn Fn(&mut Certificate)| {
        let mut certificate = good();
        change(&mut certificate);
        certificate.encode()
    };
    let bytes = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good().encode();
        change(&mut bytes);
        bytes
    };
    let ended_by = |action: &str, extent: &str, approved: bool| {
        let mut log = Log::new(Hardware::Tpm, 7);
        log.append(log.content(Kind::OperatorAction as u16, body(action, extent, approved)));
        of(&log).encode()
    };
    let clock = |clock| certify(&tpm, statement(&tpm), |_| {}, clock).encode();
    let quote = |certificate: &mut Certificate| match &mut certificate.endorsement {
        Endorsement::Quote(quote) => quote.signature = vec![0; 72].into(),
        Endorsement::Software(_) => unreachable!(),
    };
    let parting = |change: fn(&Log, &mut Farewell, &Hash)| {
        let mut certificate = good();
        let qualifying = certificate.statement.qualifying_data();
        change(&tpm, certificate.farewell.as_mut().unwrap(), &qualifying);
        certificate.encode()
    };
    let behind = {
        let mut log = log(Hardware::Tpm);
        let statement = statement(&log);
        let mut certificate = certify(&log, statement, |_| {}, ANEW);
        log.seal(b"three");
        certificate.statement.head = TreeState::new(log.size(), log.root());
        certificate.signature = log.signed_by_log_key(&certificate.statement.message()).into();
        certificate
    };
    BTreeMap::from([
        ("shown--", good().encode()),
        ("shown--never-reset-before", clock((123_455, 0))),
        ("shown--clock-beyond-that-of-before", clock((999_999, 0))),
        ("refused--by-the-tpm", {
            let why = "the TPM does not permit it";
            certify(
                &tpm,
                statement(&tpm),
                |said| (said.cleared, said.why_not) = (false, why.to_owned()),
                (200_000, 7),
            )
            .encode()
        }),
        ("no-tpm--", of(&software).encode()),
        ("malformed--empty", Vec::new()),
        ("malformed--cut-short", bytes(|bytes| bytes.truncate(bytes.len() - 1))),
        ("malformed--trailing-byte", bytes(|bytes| bytes.push(0))),
        ("malformed--too-long", vec![0x30; CERTIFICATE_BYTES_MAX + 1]),
        ("malformed--version-2", said(&|said| said.version = 2)),
        ("malformed--outcome-version-2", done(|said| said.version = 2)),
        ("malformed--no-reason", said(&|said| said.reason = String::new())),
        ("malformed--reason-with-a-line-feed", said(&|said| said.reason = "a\nb".to_owned())),
        ("malformed--time-above-the-limit", said(&|said| said.made_at = 1 << 63)),
        ("malformed--counter-above-the-limit", said(&|said| said.counter = Some(1 << 63))),
        ("malformed--without-counter", said(&|said| said.counter = None)),
        ("malformed--empty-log", said(&|said| said.head.size = 0)),
        ("malformed--erased-in-another-order", done(|said| said.erased.reverse())),
        ("malformed--erased-twice", done(|said| said.erased = vec!["keys".to_owned(); 2])),
        (
            "malformed--too-much-erased",
            done(|said| said.erased = (0..=ERASED_MAX).map(|file| format!("{file:05}")).collect()),
        ),
        ("malformed--erased-without-name", done(|said| said.erased[0] = String::new())),
        ("malformed--not-cleared-without-a-reason", done(|said| said.cleared = false)),
        ("malformed--cleared-and-a-reason", done(|said| said.why_not = "it would not".to_owned())),
        ("malformed--without-farewell", then(&|all| all.farewell = None)),
        ("malformed--signature-of-63-bytes", then(&|all| all.signature = vec![0; 63].into())),
        ("enrolment--of-nobody", {
            let mut certificate = good();
            let mut enrolment = Enrolment::decode(&certificate.enrolment).unwrap();
            enrolment.signature = vec![0; 64].into();
            certificate.enrolment = der::encode(&enrolment).into();
            certificate.encode()
        }),
        ("other-log--", said(&|said| said.origin = said.origin.replace("/1", "/2") + "0")),
        ("final-entry--another-action", ended_by("rotate-epoch", "keep-log", true)),
        ("final-entry--another-extent", ended_by(RETIRE, "everything", true)),
        ("final-entry--approved-by-nobody", ended_by(RETIRE, "keep-log", false)),
        ("final-entry--a-seal", then(&|all| all.entry = tpm.entries[1].bytes().to_vec().into())),
        ("final-entry--damaged", then(&|all| all.entry = vec![0; 9].into())),
        ("final-entry--path-cut", then(&|all| all.path.truncate(1))),
        ("final-entry--of-another-root", then(&|all| all.statement.head.root = Octets32::new([9; 32]))),
        ("final-entry--not-the-last", behind.encode()),
        ("signature--flipped", then(&|all| all.signature = vec![0; 64].into())),
        ("signature--another-reason-afterwards", then(&|all| all.statement.reason = "sold".to_owned())),
        ("signature--fewer-seals-afterwards", then(&|all| all.statement.unanchored = 0)),
        ("attestation--flipped", then(&|all| quote(all))),
        (
            "attestation--of-another-statement",
            then(&|all| all.endorsement = Endorsement::Quote(tpm.quote(&Hash([0; 32])))),
        ),
        ("attestation--device-of-another-box", {
            let mut certificate = of(&software);
            certificate.endorsement = Endorsement::Software(vec![1; 64].into());
            certificate.encode()
        }),
        ("other-outcome--", done(|said| said.statement = Octets32::new([3; 32]))),
        ("farewell--more-erased-afterwards", then(&|all| all.outcome.erased.push("log-1".to_owned()))),
        ("farewell--made-earlier-afterwards", then(&|all| all.outcome.made_at -= 1)),
        (
            "farewell--key-certified-for-something-else",
            parting(|log, farewell, _| {
                let (_, attest, signature) = log.parting_key(&Hash([0; 32]), true);
                (farewell.attest, farewell.signature) = (attest.into(), signature.into());
            }),
        ),
        (
            "farewell--key-that-signs-anything",
            parting(|log, farewell, qualifying| {
                let (area, attest, signature) = log.parting_key(qualifying, false);
                farewell.public_area = area.into();
                (farewell.attest, farewell.signature) = (attest.into(), signature.into());
            }),
        ),
        (
            "farewell--quote-of-the-attestation-key",
            parting(|log, farewell, qualifying| farewell.quote = log.quote(qualifying)),
        ),
        ("farewell--no-key", parting(|_, farewell, _| farewell.public_area = vec![0; 8].into())),
        ("not-cleared--clock-went-on", clock((123_457, 7))),
        ("not-cleared--reset-instead", clock((800, 8))),
    ])
}

fn judge(bytes: &[u8]) -> &'static str {
    let root = Log::new(Hardware::Tpm, 7).trust().roots[0];
    match Certificate::decode(bytes).and_then(|certificate| certificate.verify(FLEET, &[root])) {
        Ok(verified) => match verified.clearing() {
            Clearing::Shown => "shown",
            Clearing::Refused => "refused",
            Clearing::NoTpm => "no-tpm",
        },
        Err(error) => error.code(),
    }
}

#[test]
fn every_certificate_is_judged_as_it_says() {
    let made = all();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        let _absent = fs::remove_dir_all(directory());
        fs::create_dir_all(directory()).unwrap();
        for (name, bytes) in &made {
            fs::write(directory().join(name), bytes).unwrap();
        }
    }
    let mut read = BTreeMap::new();
    for file in fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(judge(&bytes), name.split("--").next().unwrap(), "{name}");
        read.insert(name, bytes);
    }
    let made: BTreeMap<String, Vec<u8>> =
        made.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    assert_eq!(read.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
    assert!(read == made, "the files are what this source makes");
}

#[test]
fn every_flipped_bit_of_a_certificate_is_refused() {
    let good = all().remove("shown--").unwrap();
    for bit in (0..good.len() * 8).step_by(7) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!["shown", "refused", "no-tpm"].contains(&judge(&bytes)), "bit {bit}");
    }
}

#[test]
fn nothing_stands_behind_a_final_entry() {
    let mut log = log(Hardware::Tpm);
    log.seal(b"three");
    let mut auditor = LogAuditor::new(log.origin.clone(), Some(&log.trust()));
    let judged: Vec<_> = log.entries.iter().map(|entry| auditor.entry(entry.bytes())).collect();
    assert!(judged[..4].iter().all(Result::is_ok), "{judged:?}");
    assert!(matches!(judged[4], Err(AuditError::Ended)), "{:?}", judged[4]);
    // It does not forget when it is laid aside.
    let mut before = LogAuditor::new(log.origin.clone(), Some(&log.trust()));
    for entry in &log.entries[..4] {
        before.entry(entry.bytes()).unwrap();
    }
    let boundaries: Vec<_> = before.boundaries_after(0).collect();
    let first = std::iter::once((0, bulla_formats::hash::empty_root()));
    let mut again =
        LogAuditor::resume(log.origin.clone(), Some(&log.trust()), &before.save(), first.chain(boundaries))
            .unwrap();
    assert!(matches!(again.entry(log.entries[4].bytes()), Err(AuditError::Ended)));
    let finals = log.entries.iter().filter(|entry| is_final(entry.bytes()));
    assert_eq!(finals.map(|entry: &Entry| entry.content().index).collect::<Vec<_>>(), [3]);
    assert!(!is_final(b"\x0c\x06retire"));
}
