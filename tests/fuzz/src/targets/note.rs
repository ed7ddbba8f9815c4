//! Signed notes and checkpoints; and what a box says that dials a hub.
//!
//! Holds: a greeting, a note and a checkpoint's text have one spelling; a checkpoint that opens was signed by a box of the vectors.

use crate::genuine::{SEALS, SIGNED};
use bulla_formats::dial::Greeting;
use bulla_formats::enrolment::Enrolment;
use bulla_formats::hash::Hash;
use bulla_formats::note::{
    Checkpoint, SignedNote, checkpoint_text, log_line, parse_checkpoint_text, verifier_key,
};
use bulla_formats::origin::Origin;
use bulla_formats::sig::{Algorithm, PublicKey};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A log of the vectors.
struct Log {
    origin: Origin,
    key: [u8; 32],
    attestation_key: Vec<u8>,
}

static LOGS: LazyLock<Vec<Log>> = LazyLock::new(|| {
    let mut logs = BTreeMap::new();
    for (_, seal) in SEALS.iter() {
        let enrolment = Enrolment::decode(&seal.enrolment).expect("it was verified");
        let content = enrolment.content;
        let log = Log {
            origin: Origin::parse(&content.origin).expect("it was verified"),
            key: *content.log_key,
            attestation_key: content.attestation_key.to_vec(),
        };
        logs.insert(content.origin, log);
    }
    logs.into_values().collect()
});

/// Reads `data` as a note, and as the text of a checkpoint.
pub fn run(data: &[u8]) {
    if let Some(greeting) = Greeting::parse(data) {
        assert_eq!(greeting.encode().as_bytes(), data, "a greeting has one spelling");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    checkpoint(text);
    let Ok(note) = SignedNote::parse(text) else { return };
    assert_eq!(note.encode(), text, "a note has one spelling");
    checkpoint(&note.text);
    for Log { origin, key, attestation_key } in LOGS.iter() {
        let public = PublicKey::from_bytes(Algorithm::Ed25519, key).expect("a genuine key");
        let Ok(opened) = Checkpoint::open(&note, origin, &public, key, attestation_key) else { continue };
        assert!(SIGNED.checkpoints.contains(opened.text()), "a checkpoint that nobody signed");
        assert_eq!(checkpoint_text(origin.as_str(), opened.size(), &opened.root()), opened.text());
        if let Some((attest, signature)) = opened.quote() {
            assert!(attest.len() + signature.len() < data.len());
        }
    }
}

fn checkpoint(text: &str) {
    if let Ok((origin, size, root)) = parse_checkpoint_text(text) {
        assert_eq!(checkpoint_text(origin, size, &root), text, "a checkpoint has one spelling");
    }
}

/// Notes and texts of the vectors, and a note with lines of strangers.
pub fn seeds() -> Vec<Vec<u8>> {
    let heads = SEALS.iter().flat_map(|(_, seal)| &seal.heads);
    let mut seeds: Vec<_> = heads.map(|head| head.checkpoint.clone().into_bytes()).collect();
    seeds.extend(SIGNED.checkpoints.iter().take(8).map(|text| text.clone().into_bytes()));
    let text = checkpoint_text("a.example/x", 5, &Hash([1; 32]));
    let lines = vec![log_line("a.example/x", &[7; 32], &[9; 64]), log_line("witness", &[8; 32], &[9; 64])];
    seeds.push(SignedNote { text, lines }.encode().into_bytes());
    seeds.push(verifier_key("a.example/x", &[7; 32]).into_bytes());
    let greeting = Greeting::new("bulla-4711", "0123456789abcdef0123456789abcdef");
    seeds.push(greeting.expect("it can be said").encode().into_bytes());
    seeds
}
