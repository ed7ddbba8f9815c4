//! `tests/vectors-approvals/`: changes that are carried out, and changes that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-approvals --test approvals` writes
//! them. Every expectation is the name of the file, before the two hyphens: `valid`, or the code of the refusal.

use crate::common::{FLEET, NOW, action, approved, electorate, history, key};
use bulla_approvals::Record;
use bulla_approvals::action::{Action, Approval, Change, Kind, Target, Version};
use bulla_formats::der::{self, Octets32};
use bulla_formats::sig::{label, labelled};
use ed25519_dalek::Signer;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-approvals")
}

/// A change whose action was changed before everybody signed it.
fn with(record: &Record, change: impl FnOnce(&mut Action)) -> Vec<u8> {
    by(record, &["olga", "omar"], change)
}

fn by(record: &Record, keys: &[&str], change: impl FnOnce(&mut Action)) -> Vec<u8> {
    let mut action = action(record, Kind::Revoke);
    change(&mut action);
    approved(&action, keys).encode()
}

/// A good change, with its approvals changed afterwards.
fn then(record: &Record, change: impl FnOnce(&mut Change)) -> Vec<u8> {
    let mut all = approved(&action(record, Kind::Revoke), &["olga", "omar"]);
    change(&mut all);
    all.encode()
}

fn target() -> Target {
    let origin = format!("{FLEET}/{}/1", "0f".repeat(20));
    Target { origin, size: 1, root: Octets32::new([1; 32]), nonce: Octets32::new([2; 32]) }
}

fn all() -> BTreeMap<String, Vec<u8>> {
    let (record, changes) = history();
    let record = &record;
    let good = with(record, |_| {});
    let resign = |approval: &mut Approval, message: &[u8], whose: &str| {
        approval.signature = key(whose).sign(message).to_bytes().to_vec().into();
    };
    let olga = |change: &Change| {
        let of = Octets32::new(key("olga").verifying_key().to_bytes());
        change.approvals.iter().position(|approval| approval.key == of).unwrap()
    };
    let founding = || Record::founded(FLEET, Version::made_by(0, b"a founding"));
    let vectors: Vec<(&str, Vec<u8>)> = vec![
        ("valid--two-operators", good.clone()),
        ("valid--three-operators", by(record, &["olga", "omar", "oya"], |_| {})),
        ("valid--her-other-key", by(record, &["olga's other", "omar"], |_| {})),
        ("valid--one-holds-a-box-back", by(record, &["oya"], |action| action.kind = Kind::Quarantine)),
        ("valid--override", by(record, &["ada", "cem"], |action| action.overriding = true)),
        (
            "valid--last-millisecond",
            with(record, |action| (action.proposed_at, action.not_after) = (NOW - 9_000, NOW)),
        ),
        ("malformed--empty", Vec::new()),
        ("malformed--trailing-byte", [&good[..], &[0]].concat()),
        ("malformed--cut-short", good[..good.len() - 1].to_vec()),
        ("malformed--long-length", [&[0x30, 0x83, 0x00][..], &good[2..]].concat()),
        ("malformed--version-2", with(record, |action| action.version = 2)),
        ("malformed--unknown-kind", {
            let mut bytes = good.clone();
            let at = bytes.windows(3).position(|three| three == [0x0a, 1, Kind::Revoke as u8]).unwrap();
            bytes[at + 2] = 99;
            bytes
        }),
        ("malformed--no-reason", with(record, |action| action.reason = String::new())),
        ("malformed--reason-of-blanks", with(record, |action| action.reason = "  ".into())),
        ("malformed--reason-with-a-line-feed", with(record, |action| action.reason = "a\nb".into())),
        ("malformed--reason-of-1025-bytes", with(record, |action| action.reason = "a".repeat(1025))),
        ("malformed--fleet-in-capitals", with(record, |action| action.fleet = "Bank.example".into())),
        ("malformed--ends-before-it-begins", with(record, |action| action.not_after = NOW - 1_001)),
        (
            "malformed--open-for-longer-than-30-days",
            with(record, |action| action.not_after = action.proposed_at + 30 * 24 * 3_600_000 + 1),
        ),
        ("malformed--time-above-the-limit", with(record, |action| action.not_after = 1 << 63)),
        ("malformed--a-box-that-nobody-asked-for", with(record, |action| action.target = Some(target()))),
        ("malformed--box-without-a-box", with(record, |action| action.kind = Kind::Box)),
        (
            "malformed--box-of-another-fleet",
            with(record, |action| {
                let origin = target().origin.replace("bank", "bonk");
                (action.kind, action.target) = (Kind::Box, Some(Target { origin, ..target() }));
            }),
        ),
        ("malformed--no-approvals", then(record, |change| change.approvals.clear())),
        ("malformed--approvals-in-another-order", then(record, |change| change.approvals.reverse())),
        (
            "malformed--approval-twice",
            then(record, |change| change.approvals.insert(0, change.approvals[0].clone())),
        ),
        (
            "malformed--signature-of-63-bytes",
            then(record, |change| {
                let short = change.approvals[0].signature[..63].to_vec();
                change.approvals[0].signature = short.into();
            }),
        ),
        ("other-fleet--", with(record, |action| action.fleet = "bank.test".into())),
        (
            "other-target--for-a-box",
            with(record, |action| (action.kind, action.target) = (Kind::Box, Some(target()))),
        ),
        ("used--first", changes[0].encode()),
        ("used--last", changes[2].encode()),
        ("used--by-other-people", approved(&changes[2].action, &["omar", "oya"]).encode()),
        ("used--with-nobody-who-may", approved(&changes[1].action, &["eve"]).encode()),
        ("stale--on-the-founding", with(&founding(), |_| {})),
        ("stale--on-version-2", with(record, |action| action.roster = record.versions()[2].clone())),
        ("roster-behind--version-4", with(record, |action| action.roster.number = 4)),
        ("roster-behind--version-max", with(record, |action| action.roster.number = (1 << 63) - 1)),
        ("forked--last-version", with(record, |action| action.roster.hash = Octets32::new([1; 32]))),
        (
            "forked--hash-of-another-number",
            with(record, |action| action.roster.hash = record.versions()[2].hash),
        ),
        (
            "forked--another-founding",
            with(&Record::founded(FLEET, Version::made_by(0, b"another founding")), |_| {}),
        ),
        ("expired--a-millisecond-ago", with(record, |action| action.not_after = NOW - 1)),
        ("stranger--eve", by(record, &["olga", "omar", "eve"], |_| {})),
        ("stranger--custodian", by(record, &["olga", "ada"], |_| {})),
        ("stranger--operators-override", by(record, &["olga", "omar"], |action| action.overriding = true)),
        (
            "stranger--small-order-key",
            then(record, |change| {
                let mut weak = change.approvals[0].clone();
                weak.key = Octets32::new([0; 32]);
                change.approvals.insert(0, weak);
            }),
        ),
        (
            "bad-signature--flipped",
            then(record, |change| {
                let mut bytes = change.approvals[1].signature.to_vec();
                bytes[40] ^= 1;
                change.approvals[1].signature = bytes.into();
            }),
        ),
        (
            "bad-signature--of-another-action",
            then(record, |change| change.action.nonce = Octets32::new([8; 32])),
        ),
        ("bad-signature--of-another-time", then(record, |change| change.approvals[0].at += 1)),
        (
            "bad-signature--reason-changed-afterwards",
            then(record, |change| change.action.reason = "branch 8 opens".into()),
        ),
        (
            "bad-signature--parameters-changed-afterwards",
            then(record, |change| change.action.parameters = vec![0x30, 1, 0].into()),
        ),
        ("bad-signature--kind-changed-afterwards", then(record, |change| change.action.kind = Kind::Pardon)),
        (
            "bad-signature--swapped",
            then(record, |change| {
                let (first, second) = change.approvals.split_at_mut(1);
                std::mem::swap(&mut first[0].signature, &mut second[0].signature);
            }),
        ),
        (
            "bad-signature--without-label",
            then(record, |change| {
                let at = olga(change);
                let message = der::encode(&change.action);
                resign(&mut change.approvals[at], &message, "olga");
            }),
        ),
        (
            "bad-signature--under-another-label",
            then(record, |change| {
                let at = olga(change);
                let mut message = labelled(label::ACTION, &der::encode(&change.action));
                message.push(0);
                resign(&mut change.approvals[at], &message, "olga");
            }),
        ),
        (
            "bad-signature--non-canonical-s",
            then(record, |change| {
                // s + L, where L is the order of the group, little-endian.
                const ORDER: [u8; 32] = [
                    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
                    0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
                ];
                let mut bytes = change.approvals[0].signature.to_vec();
                let mut carry = 0u16;
                for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
                    let sum = u16::from(*byte) + u16::from(order) + carry;
                    (*byte, carry) = (sum as u8, sum >> 8);
                }
                change.approvals[0].signature = bytes.into();
            }),
        ),
        (
            "late--a-millisecond",
            then(record, |change| {
                let at = olga(change);
                change.approvals[at] = Approval::sign(&change.action, NOW + 1_001, &key("olga"));
            }),
        ),
        ("person-twice--her-two-keys", by(record, &["olga", "olga's other"], |_| {})),
        ("person-twice--and-another", by(record, &["olga", "olga's other", "oya"], |_| {})),
        ("not-enough--one-of-two", by(record, &["olga"], |_| {})),
        ("not-enough--override-by-one", by(record, &["bo"], |action| action.overriding = true)),
        ("not-enough--one-lets-a-box-go", by(record, &["oya"], |action| action.kind = Kind::Release)),
    ];
    vectors.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

#[test]
fn the_vectors_are_what_this_source_makes() {
    let all = all();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        let _absent = fs::remove_dir_all(directory());
        fs::create_dir_all(directory()).unwrap();
        for (name, bytes) in &all {
            fs::write(directory().join(name), bytes).unwrap();
        }
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        found.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    for (name, bytes) in &all {
        assert_eq!(found[name], *bytes, "{name}");
    }
}

#[test]
fn every_vector_is_judged_as_its_name_says() {
    let (record, _) = history();
    let (mut valid, mut refused) = (0, 0);
    let mut codes = BTreeSet::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let judged =
            Change::decode(&bytes).and_then(|change| record.judge(&change, &electorate(), None, Some(NOW)));
        let found = judged.as_ref().map_or_else(|refusal| refusal.code(), |_| "valid");
        assert_eq!(found, name.split("--").next().unwrap(), "{name}: {judged:?}");
        match found {
            "valid" => valid += 1,
            code => {
                codes.insert(code);
                refused += 1;
            }
        }
    }
    assert!(valid >= 5 && refused > 5 * valid, "{valid} valid, {refused} refused");
    // Of those that this roster and these people can give; the others are in `rules`.
    assert_eq!(codes.len(), 13, "{codes:?}");
}
