//! `tests/vectors-ceremony/`: minutes that verify and minutes that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-ceremony --test ceremony` writes
//! them. Every expectation is the name of the file: `valid-*` verifies, `refused-*` does not.

use crate::common::Room;
use bulla_ceremony::transcript::{Transcript, TranscriptContent, fleet_ca_content};
use bulla_ceremony::wire::{Card, Duty, Message, Plan, ResultBody, Step};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::FleetCertificate;
use ed25519_dalek::{Signer, SigningKey};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-ceremony")
}

/// Minutes of one custodian, whose root is at hand, so that anything can be signed with it.
struct Alone {
    root: SigningKey,
    custodian: SigningKey,
    plan: Plan,
}

impl Alone {
    fn new() -> Self {
        let room = Room::new(1, 1);
        let (root, custodian) = (SigningKey::from_bytes(&[33; 32]), SigningKey::from_bytes(&[1; 32]));
        Alone { root, custodian, plan: room.plan }
    }

    fn content(&self) -> TranscriptContent {
        let seen = bulla_ceremony::board::Board::new(self.plan.clone()).seen().unwrap();
        let root = Octets32::new(self.root.verifying_key().to_bytes());
        let body = ResultBody { seen: Octets32::new(seen.0), root, public_package: Vec::new().into() };
        let results = vec![Message::sign(&self.plan, 1, Step::Result, 0, &body, &self.custodian)];
        let content = fleet_ca_content(&self.plan);
        let signature = self.root.sign(&content.message()).to_bytes().to_vec().into();
        let fleet_ca = FleetCertificate { content, signature };
        TranscriptContent { version: 1, plan: self.plan.clone(), root, results, fleet_ca }
    }

    fn sign(&self, content: TranscriptContent) -> Vec<u8> {
        let signature = self.root.sign(&content.message()).to_bytes().to_vec().into();
        der::encode(&Transcript { content, signature })
    }

    /// Minutes that the root signed, with one thing changed before.
    fn with(&self, change: impl FnOnce(&mut TranscriptContent)) -> Vec<u8> {
        let mut content = self.content();
        change(&mut content);
        self.sign(content)
    }
}

fn transcript(threshold: u64, custodians: usize) -> Vec<u8> {
    let all: Vec<usize> = (1..=custodians).collect();
    der::encode(&Room::new(threshold, custodians).run(&all).unwrap())
}

fn all() -> BTreeMap<String, Vec<u8>> {
    let alone = Alone::new();
    let mut operated = Alone::new();
    let operator = |name: &str, seed| {
        Card::sign(Duty::Operator, name, &SigningKey::from_bytes(&[seed; 32]), None).unwrap()
    };
    operated.plan.operators = vec![operator("Omar", 71), operator("Olga", 72)];
    operated.plan.operators_needed = 2;
    let good = alone.sign(alone.content());
    let (two_of_three, two_of_two) = (transcript(2, 3), transcript(2, 2));
    let decoded = Transcript::decode(&two_of_three).unwrap();
    let stranger = SigningKey::from_bytes(&[99; 32]);
    // A shared root cannot be used here, so these keep a signature that does not fit; what they break is checked first.
    let shared = |change: &dyn Fn(&mut TranscriptContent)| {
        let mut changed = decoded.clone();
        change(&mut changed.content);
        der::encode(&changed)
    };
    let vectors: Vec<(&str, Vec<u8>)> = vec![
        ("valid-one-of-one", good.clone()),
        ("valid-two-of-two", two_of_two),
        ("valid-two-of-three", two_of_three.clone()),
        ("valid-three-of-five", transcript(3, 5)),
        ("valid-with-operators", operated.sign(operated.content())),
        ("refused-empty", Vec::new()),
        ("refused-trailing-byte", [&good[..], &[0]].concat()),
        ("refused-cut-short", good[..good.len() - 1].to_vec()),
        ("refused-long-length", [&[0x30, 0x83, 0x00][..], &good[2..]].concat()),
        ("refused-version-2", alone.with(|content| content.version = 2)),
        ("refused-plan-version-2", alone.with(|content| content.plan.version = 2)),
        ("refused-plan-of-another-nonce", alone.with(|content| content.plan.nonce = Octets32::new([1; 32]))),
        ("refused-no-result", alone.with(|content| content.results.clear())),
        ("refused-result-twice", alone.with(|content| content.results.push(content.results[0].clone()))),
        (
            "refused-result-of-another-root",
            alone.with(|content| content.root = Octets32::new(stranger.verifying_key().to_bytes())),
        ),
        (
            "refused-result-by-a-stranger",
            alone.with(|content| {
                let body: ResultBody = content.results[0].body("result").unwrap();
                content.results = vec![Message::sign(&content.plan, 1, Step::Result, 0, &body, &stranger)];
            }),
        ),
        (
            "refused-request-for-a-result",
            alone.with(|content| {
                let body: ResultBody = content.results[0].body("result").unwrap();
                content.results =
                    vec![Message::sign(&content.plan, 1, Step::Nonces, 1, &body, &alone.custodian)];
            }),
        ),
        (
            "refused-certificate-of-another-key",
            alone.with(|content| {
                content.fleet_ca.content.public_key = Octets32::new(stranger.verifying_key().to_bytes());
                content.fleet_ca.signature =
                    alone.root.sign(&content.fleet_ca.content.message()).to_bytes().to_vec().into();
            }),
        ),
        (
            "refused-certificate-for-longer",
            alone.with(|content| {
                content.fleet_ca.content.not_after += 1;
                content.fleet_ca.signature =
                    alone.root.sign(&content.fleet_ca.content.message()).to_bytes().to_vec().into();
            }),
        ),
        (
            "refused-certificate-by-a-stranger",
            alone.with(|content| {
                content.fleet_ca.signature =
                    stranger.sign(&content.fleet_ca.content.message()).to_bytes().to_vec().into();
            }),
        ),
        ("refused-signed-by-a-stranger", {
            let content = alone.content();
            let signature = stranger.sign(&content.message()).to_bytes().to_vec().into();
            der::encode(&Transcript { content, signature })
        }),
        ("refused-signed-under-another-label", {
            let content = alone.content();
            let signature = alone.root.sign(&der::encode(&content)).to_bytes().to_vec().into();
            der::encode(&Transcript { content, signature })
        }),
        ("refused-one-result-of-three", shared(&|content| content.results.truncate(1))),
        ("refused-results-of-two-of-three", shared(&|content| content.results.truncate(2))),
        ("refused-threshold-lowered", shared(&|content| content.plan.threshold = 1)),
        (
            "refused-custodian-renamed",
            shared(&|content| content.plan.custodians[1].content.name = "Eve".into()),
        ),
        ("refused-custodian-removed", shared(&|content| content.plan.custodians.truncate(2))),
        ("refused-results-in-another-order", shared(&|content| content.results.swap(0, 2))),
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
    let (mut valid, mut refused) = (0, 0);
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let outcome = Transcript::decode(&fs::read(entry.path()).unwrap());
        if name.starts_with("valid-") {
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
            valid += 1;
        } else {
            assert!(name.starts_with("refused-"), "{name} says nothing");
            assert!(outcome.is_err(), "{name} is accepted");
            refused += 1;
        }
    }
    assert!(valid >= 5 && refused > valid, "{valid} valid, {refused} refused");
}
