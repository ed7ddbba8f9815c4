//! `tests/vectors-lease/`: leases that are a fleet's word, and files that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-formats --test lease` writes them. Every
//! expectation is the name of the file, before the two hyphens.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::body::manifest::AtLimit;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{FleetCertificate, FleetCertificateContent, FleetRole};
use bulla_formats::lease::{LEASE_BYTES_MAX, LEASE_MILLIS_MAX, Lease, LeaseContent, LeaseError, LeaseLimits};
use bulla_formats::origin::Origin;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const FLEET: &str = "bank.example";
const ORIGIN: &str = "bank.example/abababababababababababababababababababab/1";
const NOW: u64 = 1_790_000_000_000;
const HOUR: u64 = 3_600_000;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-lease")
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn content() -> LeaseContent {
    LeaseContent {
        version: 1,
        fleet: FLEET.to_owned(),
        origin: ORIGIN.to_owned(),
        issuer: "hub-west".to_owned(),
        issued_at: NOW,
        expires_at: NOW + 8 * HOUR,
        seals: Some(100_000),
        limits: LeaseLimits {
            seconds: Some(86_400),
            seals: Some(50_000),
            holders: Some(2),
            at_limit: AtLimit::Safe,
        },
    }
}

fn certificate(of: u8, by: u8) -> FleetCertificate {
    let content = FleetCertificateContent {
        version: 1,
        fleet: FLEET.to_owned(),
        role: FleetRole::FleetCa,
        public_key: Octets32::new(key(of).verifying_key().to_bytes()),
        not_before: NOW - HOUR,
        not_after: NOW + HOUR,
    };
    let signature = key(by).sign(&content.message()).to_bytes().to_vec().into();
    FleetCertificate { content, signature }
}

/// Signed by this key, with this chain.
fn signed(content: LeaseContent, by: u8, chain: Vec<FleetCertificate>) -> Lease {
    let signature = key(by).sign(&content.message()).to_bytes().to_vec().into();
    Lease { content, chain, signature }
}

/// Of the fleet CA (key 2), which the root (key 1) certified.
fn usual(change: impl FnOnce(&mut LeaseContent)) -> Vec<u8> {
    let mut content = content();
    change(&mut content);
    der::encode(&signed(content, 2, vec![certificate(2, 1)]))
}

/// The usual one, changed after it was signed.
fn after(change: impl FnOnce(&mut Lease)) -> Vec<u8> {
    let mut lease = signed(content(), 2, vec![certificate(2, 1)]);
    change(&mut lease);
    der::encode(&lease)
}

fn all() -> BTreeMap<&'static str, Vec<u8>> {
    let chain = |length: u8| -> Vec<FleetCertificate> {
        (0..length)
            .map(|place| {
                certificate(
                    if place + 1 == length { 2 } else { 10 + place },
                    if place == 0 { 1 } else { 9 + place },
                )
            })
            .collect()
    };
    let none = LeaseLimits { seconds: None, seals: None, holders: None, at_limit: AtLimit::Continue };
    let good = usual(|_| {});
    let bytes = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    BTreeMap::from([
        ("valid--", good.clone()),
        ("valid--of-the-root", der::encode(&signed(content(), 1, Vec::new()))),
        ("valid--chain-of-four", der::encode(&signed(content(), 2, chain(4)))),
        ("valid--without-limits", usual(|said| (said.seals, said.limits) = (None, none))),
        ("valid--for-no-seals", usual(|said| said.seals = Some(0))),
        ("valid--limit-of-no-seals", usual(|said| said.limits.seals = Some(0))),
        ("valid--a-millisecond", usual(|said| said.expires_at = NOW + 1)),
        ("valid--31-days", usual(|said| said.expires_at = NOW + LEASE_MILLIS_MAX)),
        ("valid--32-holders", usual(|said| said.limits.holders = Some(32))),
        ("valid--issuer-of-64-bytes", usual(|said| said.issuer = "h".repeat(64))),
        ("malformed--empty", Vec::new()),
        ("malformed--cut-short", bytes(|bytes| bytes.truncate(bytes.len() - 1))),
        ("malformed--trailing-byte", bytes(|bytes| bytes.push(0))),
        ("malformed--too-long", vec![0x30; LEASE_BYTES_MAX + 1]),
        // The outer length, 0x82 and two digits, with a zero in front.
        (
            "malformed--long-length",
            bytes(|bytes| {
                bytes[1] = 0x83;
                bytes.insert(2, 0);
            }),
        ),
        ("malformed--version-2", usual(|said| said.version = 2)),
        ("malformed--version-0", usual(|said| said.version = 0)),
        ("malformed--ends-before-it-begins", usual(|said| said.expires_at = NOW - 1)),
        ("malformed--ends-as-it-begins", usual(|said| said.expires_at = NOW)),
        (
            "malformed--for-a-millisecond-more-than-31-days",
            usual(|said| said.expires_at = NOW + LEASE_MILLIS_MAX + 1),
        ),
        (
            "malformed--time-above-the-limit",
            usual(|said| (said.issued_at, said.expires_at) = (1 << 63, (1 << 63) + 1)),
        ),
        ("malformed--seals-above-the-limit", usual(|said| said.seals = Some(1 << 63))),
        ("malformed--limit-of-no-seconds", usual(|said| said.limits.seconds = Some(0))),
        ("malformed--limit-of-no-holders", usual(|said| said.limits.holders = Some(0))),
        ("malformed--33-holders", usual(|said| said.limits.holders = Some(33))),
        ("malformed--issuer-without-name", usual(|said| said.issuer = String::new())),
        ("malformed--issuer-of-65-bytes", usual(|said| said.issuer = "h".repeat(65))),
        ("malformed--issuer-with-a-line-feed", usual(|said| said.issuer = "hub\nwest".to_owned())),
        ("malformed--fleet-of-another-name", usual(|said| said.fleet = "bank.test".to_owned())),
        ("malformed--no-origin", usual(|said| said.origin = "bank.example".to_owned())),
        ("malformed--chain-of-five", der::encode(&signed(content(), 2, chain(5)))),
        ("malformed--certificate-version-2", after(|lease| lease.chain[0].content.version = 2)),
        (
            "malformed--certificate-time-above-the-limit",
            after(|lease| lease.chain[0].content.not_after = 1 << 63),
        ),
        ("other-origin--another-log", usual(|said| said.origin = ORIGIN.replace("/1", "/2"))),
        ("other-origin--another-box", usual(|said| said.origin = ORIGIN.replace("ab", "cd"))),
        ("not-vouched-for--flipped", bytes(|bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("not-vouched-for--longer-afterwards", after(|lease| lease.content.expires_at += 1)),
        ("not-vouched-for--more-seals-afterwards", after(|lease| lease.content.seals = None)),
        (
            "not-vouched-for--wider-afterwards",
            after(|lease| lease.content.limits.at_limit = AtLimit::Continue),
        ),
        ("not-vouched-for--by-another-key", der::encode(&signed(content(), 3, vec![certificate(2, 1)]))),
        (
            "not-vouched-for--by-a-key-nobody-certified",
            der::encode(&signed(content(), 3, vec![certificate(3, 3)])),
        ),
        ("not-vouched-for--without-its-chain", der::encode(&signed(content(), 2, Vec::new()))),
        ("not-vouched-for--chain-reversed", {
            let mut turned = chain(2);
            turned.reverse();
            der::encode(&signed(content(), 2, turned))
        }),
        (
            "not-vouched-for--issued-after-its-certificate",
            usual(|said| {
                (said.issued_at, said.expires_at) = (NOW + HOUR + 1, NOW + 2 * HOUR);
            }),
        ),
        ("not-vouched-for--issued-before-its-certificate", usual(|said| said.issued_at = NOW - HOUR - 1)),
        (
            "not-vouched-for--signature-of-63-bytes",
            after(|lease| lease.signature = lease.signature[..63].to_vec().into()),
        ),
        (
            "not-vouched-for--signed-without-label",
            after(|lease| {
                lease.signature = key(2).sign(&der::encode(&lease.content)).to_bytes().to_vec().into();
            }),
        ),
        (
            "not-vouched-for--signed-as-a-revocation",
            after(|lease| {
                let message = [&b"bulla/revocation/v1\0"[..], &der::encode(&lease.content)].concat();
                lease.signature = key(2).sign(&message).to_bytes().to_vec().into();
            }),
        ),
    ])
}

/// The hub whose leases are taken has the key 7 and the name of the usual issuer.
fn of_hubs() -> BTreeMap<&'static str, Vec<u8>> {
    let by = |key: u8, change: fn(&mut LeaseContent)| {
        let mut content = content();
        change(&mut content);
        der::encode(&signed(content, key, Vec::new()))
    };
    let after = |change: fn(&mut Lease)| {
        let mut lease = signed(content(), 7, Vec::new());
        change(&mut lease);
        der::encode(&lease)
    };
    BTreeMap::from([
        ("valid--hub", by(7, |_| {})),
        ("valid--hub-and-the-fleet-ca", usual(|_| {})),
        ("malformed--hub-for-a-millisecond-more", {
            by(7, |said| said.expires_at = NOW + LEASE_MILLIS_MAX + 1)
        }),
        ("malformed--hub-without-name", by(7, |said| said.issuer = String::new())),
        ("other-origin--hub-for-another-box", by(7, |said| said.origin = ORIGIN.replace("ab", "cd"))),
        ("not-vouched-for--hub-of-another-name", by(7, |said| said.issuer = "hub-east".to_owned())),
        ("not-vouched-for--hub-with-another-key", by(8, |_| {})),
        ("not-vouched-for--hub-by-the-fleet-ca-alone", by(2, |_| {})),
        ("not-vouched-for--hub-with-a-chain", after(|lease| lease.chain = vec![certificate(2, 1)])),
        (
            "not-vouched-for--hub-with-a-chain-of-its-own",
            after(|lease| lease.chain = vec![certificate(7, 7)]),
        ),
        ("not-vouched-for--hub-longer-afterwards", after(|lease| lease.content.expires_at += 1)),
        ("not-vouched-for--hub-signed-without-label", {
            after(|lease| {
                lease.signature = key(7).sign(&der::encode(&lease.content)).to_bytes().to_vec().into();
            })
        }),
        // The same bytes as `valid--hub`, for a box whose roster names no hub.
        ("not-vouched-for--of-a-hub-that-nobody-named", by(7, |_| {})),
    ])
}

fn judge(vector: &Value) -> &'static str {
    let text = |name: &str| vector[name].as_str().unwrap();
    let Ok(lease) = Lease::decode(&hex::decode(text("lease")).unwrap()) else { return "malformed" };
    let root: [u8; 32] = hex::decode(text("root")).unwrap().try_into().unwrap();
    let origin = Origin::parse(text("origin")).unwrap();
    let verified = lease.verify(&origin, &[root]);
    let verified = match (verified, vector.get("hub")) {
        (Err(LeaseError::NotVouchedFor), Some(hub)) => {
            let key: [u8; 32] = hex::decode(hub["key"].as_str().unwrap()).unwrap().try_into().unwrap();
            lease.verify_by_hub(&origin, hub["name"].as_str().unwrap(), &key)
        }
        (verified, _) => verified,
    };
    match verified {
        Ok(verified) => {
            assert_eq!(verified.content(), &lease.content);
            "valid"
        }
        Err(LeaseError::Der(_)) => "malformed",
        Err(LeaseError::OtherOrigin(_)) => "other-origin",
        Err(LeaseError::NotVouchedFor) => "not-vouched-for",
    }
}

#[test]
fn g6_every_lease_is_judged_as_it_says() {
    let root = hex::encode(key(1).verifying_key().to_bytes());
    let hub = hex::encode(key(7).verifying_key().to_bytes());
    let made = all().into_iter().chain(of_hubs()).map(|(name, lease)| {
        let expect = name.split("--").next().unwrap();
        let mut vector =
            json!({"origin": ORIGIN, "root": root, "lease": hex::encode(lease), "expect": expect});
        if name.contains("--hub") {
            vector["hub"] = json!({"name": "hub-west", "key": hub});
        }
        (name.to_owned(), vector)
    });
    let made: BTreeMap<String, Value> = made.collect();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(directory()).unwrap();
        for (name, vector) in &made {
            fs::write(directory().join(format!("{name}.json")), format!("{vector:#}\n")).unwrap();
        }
    }
    let mut read = BTreeMap::new();
    for file in fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert_eq!(judge(&vector), vector["expect"].as_str().unwrap(), "{name}");
        read.insert(name, vector);
    }
    assert_eq!(read, made, "the files are what this source makes");
    let valid = read.keys().filter(|name| name.starts_with("valid")).count();
    assert!(read.len() > 3 * valid, "refusals outnumber what is taken");
}
