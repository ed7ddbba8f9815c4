//! Every directory of `tests/vectors/` verifies to what its `expect.json` says, and is what the generator makes.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, DocumentHasher};
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::{Verifier, verify, wanted_digest};
use bulla_tests::vectors;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Largest vector and largest collection, in bytes.
const VECTOR_BYTES_MAX: usize = 12_000;
const ALL_BYTES_MAX: usize = 17 << 18;

fn directories() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(vectors::directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn read(directory: &Path, name: &str) -> Vec<u8> {
    fs::read(directory.join(name)).unwrap_or_else(|error| panic!("{}/{name}: {error}", directory.display()))
}

fn expectation(directory: &Path) -> Value {
    serde_json::from_slice(&read(directory, "expect.json")).unwrap()
}

fn digest(seal: &[u8], document: &[u8]) -> DocumentDigest {
    let file = SealFile::decode(seal).ok();
    let mut hasher =
        DocumentHasher::new(file.as_ref().and_then(wanted_digest).unwrap_or(DigestAlgorithm::Sha256));
    hasher.update(document);
    hasher.finish()
}

/// What the verifier says, in the form of `expect.json`, and its report for people.
fn judge(directory: &Path) -> (Value, String) {
    let Ok(trust) = TrustFile::decode(&read(directory, "trust.json")) else {
        return (json!({"verdict": "trust-refused"}), String::new());
    };
    let seal = read(directory, "document.seal");
    let report = verify(&seal, &trust, Some(&digest(&seal, &read(directory, "document")))).report;
    let facts: Vec<&str> = report.facts.iter().map(|fact| fact.name()).collect();
    let check = report.failed().map(|check| check.name);
    (json!({"verdict": report.verdict.name(), "check": check, "facts": facts}), report.to_string())
}

#[test]
fn g6_every_vector_is_judged_as_it_says() {
    let mut wrong = Vec::new();
    for directory in directories() {
        let (found, report) = judge(&directory);
        let expected = expectation(&directory);
        if found != expected {
            let name = directory.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!("{name}: expected {expected}, found {found}\n{report}"));
        }
    }
    assert!(wrong.is_empty(), "{} vectors are judged otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whatever a verifier has seen before, and in whatever order, it says the same of every vector as a new one: first
/// warmed with everything valid, then with all the rest on top.
#[test]
fn g6_what_a_verifier_remembers_never_shows() {
    type Case = (String, Vec<u8>, DocumentDigest, bool);
    let mut by_trust = BTreeMap::<Vec<u8>, Vec<Case>>::new();
    for directory in directories() {
        let seal = read(&directory, "document.seal");
        let digest = digest(&seal, &read(&directory, "document"));
        let positive = expectation(&directory)["verdict"] == "valid";
        let case = (directory.display().to_string(), seal, digest, positive);
        by_trust.entry(read(&directory, "trust.json")).or_default().push(case);
    }
    // Seals of other trust files, too: what is valid there may be refused here, and neither may be mixed up.
    let positives: Vec<Case> = by_trust.values().flatten().filter(|case| case.3).cloned().collect();
    let mut judged = 0;
    for (trust, cases) in &by_trust {
        let Ok(trust) = TrustFile::decode(trust) else { continue };
        let cold: Vec<_> =
            cases.iter().map(|(_, seal, digest, _)| verify(seal, &trust, Some(digest))).collect();
        let orders: [Vec<usize>; 3] = [
            (0..cases.len()).collect(),
            (0..cases.len()).rev().collect(),
            (0..cases.len()).step_by(2).chain((1..cases.len()).step_by(2)).collect(),
        ];
        for (order, turn) in orders.iter().zip(0..) {
            let mut warm = Verifier::new(&trust);
            let own = positives.iter().rev().filter(|one| cases.contains(one));
            let warming: Vec<&Case> = match turn {
                0 => own.collect(),
                1 => positives.iter().collect(),
                _ => own.chain(&positives).collect(),
            };
            for (_, seal, digest, _) in warming {
                warm.verify(seal, Some(digest));
            }
            for at in order {
                let (name, seal, digest, _) = &cases[*at];
                let found = warm.verify(seal, Some(digest));
                assert_eq!(found.report, cold[*at].report, "{name}, order {turn}");
                let (found, alone) = (format!("{:?}", found.seal), format!("{:?}", cold[*at].seal));
                assert_eq!(found, alone, "{name}, order {turn}");
                judged += 1;
            }
        }
    }
    assert!(judged > 1_000, "{judged}");
}

/// A file with an escape in the name of a member is read in another way than one without, and says the same.
#[test]
fn g6_a_file_is_judged_the_same_in_another_spelling() {
    let name = b"\"bulla\"";
    let mut judged = 0;
    for directory in directories() {
        let Ok(trust) = TrustFile::decode(&read(&directory, "trust.json")) else { continue };
        let seal = read(&directory, "document.seal");
        let Some(at) = seal.windows(name.len()).position(|window| window == name) else { continue };
        let escaped = [&seal[..at], b"\"\\u0062ulla\"", &seal[at + name.len()..]].concat();
        let digest = digest(&seal, &read(&directory, "document"));
        let [found, other] = [seal, escaped].map(|seal| {
            let mut found = verify(&seal, &trust, Some(&digest));
            // In which column a file ceases to be JSON differs.
            found
                .report
                .checks
                .iter_mut()
                .filter(|check| check.name == "seal-file")
                .for_each(|check| check.detail.clear());
            (found.report, format!("{:?}", found.seal))
        });
        assert_eq!(found, other, "{}", directory.display());
        judged += 1;
    }
    assert!(judged > 400, "{judged}");
}

#[test]
fn the_generator_makes_the_same_bytes() {
    let made: BTreeMap<String, _> =
        vectors::all().into_iter().map(|vector| (vector.name.clone(), vector.files())).collect();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let found: BTreeSet<String> = directories().iter().map(name).collect();
    assert_eq!(made.keys().cloned().collect::<BTreeSet<_>>(), found, "run make-vectors");
    assert_eq!(made.len(), vectors::all().len(), "two vectors of one name");
    for directory in directories() {
        let files = &made[&name(&directory)];
        for (file, bytes) in files {
            assert!(
                read(&directory, file) == *bytes,
                "{}/{file} differs: run make-vectors",
                directory.display()
            );
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), files.len(), "{}", directory.display());
    }
}

#[test]
fn negatives_outnumber_positives_and_all_are_small() {
    let all = vectors::all();
    let positive = all.iter().filter(|vector| vector.expect.is_positive()).count();
    let negative = all.len() - positive;
    assert!(positive >= 30 && negative >= 2 * positive, "{negative} negative, {positive} positive");
    let mut total = 0;
    for vector in &all {
        let bytes: usize = vector.files().iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < VECTOR_BYTES_MAX, "{} has {bytes} bytes", vector.name);
        total += bytes;
    }
    assert!(total < ALL_BYTES_MAX, "{total} bytes");
}

/// The checks of `docs/formats.md` section 9, in its order, and the one that ends an opaque leaf.
const CHECKS: [&str; 21] = [
    "seal-file",
    "enrolment",
    "attestation-key",
    "epoch-entry",
    "epoch-signature",
    "epoch-endorsement",
    "token",
    "token-signature",
    "checkpoint",
    "inclusion",
    "epoch-inclusion",
    "quote",
    "openings",
    "erasure",
    "anchor",
    "time-evidence",
    "revocation-status",
    "revocation",
    "cosignatures",
    "document",
    "policy",
];

#[test]
fn every_check_and_every_verdict_has_a_vector_that_fails_it() {
    let expectations: Vec<Value> = directories().iter().map(|directory| expectation(directory)).collect();
    let with = |member: &str, value: &str| expectations.iter().filter(|e| e[member] == value).count();
    for check in CHECKS {
        assert!(with("check", check) > 0, "no vector fails {check}");
    }
    let verdicts = [
        "valid",
        "refused",
        "indeterminate",
        "other-document",
        "not-understood",
        "policy-unmet",
        "trust-refused",
    ];
    for verdict in verdicts {
        assert!(with("verdict", verdict) > 0, "no vector is {verdict}");
    }
}

#[test]
fn positives_encode_back_and_stand_without_document() {
    for directory in directories() {
        if expectation(&directory)["verdict"] != "valid" {
            continue;
        }
        let name = directory.display();
        let bytes = read(&directory, "document.seal");
        let file = SealFile::decode(&bytes).unwrap();
        let again = SealFile::decode(file.encode().as_bytes()).unwrap();
        assert_eq!(again, file, "{name}");
        let trust = read(&directory, "trust.json");
        let trust = TrustFile::decode(&trust).unwrap();
        assert_eq!(TrustFile::decode(trust.encode().as_bytes()).unwrap(), trust, "{name}");
        let rewritten = file.encode();
        for seal in [&bytes[..], rewritten.as_bytes()] {
            let alone = verify(seal, &trust, None);
            assert_eq!(alone.report.verdict.name(), "seal-only", "{name}");
            assert!(alone.seal.is_some(), "{name}");
        }
        let mut same = file.clone();
        assert_eq!(same.upgrade(file.clone()), Some(false), "{name}: a file has nothing to add to itself");
        assert_eq!(same, file, "{name}");
    }
}
