//! The browser verifier and the Rust verifier say the same: of every vector, and of genuine seals damaged by chance.
//!
//! The two share no code. The page's own script runs under Node here; `browser.rs` has it in a browser.
//! Invariant: a disagreement names the seed that shows it again.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::json::{base64_decode, base64_encode};
use bulla_tests::browser_verifier::{AT_ONCE, Case, Node};
use bulla_tests::damage::{self, Dice};
use bulla_tests::{rig, vectors};
use bulla_timestamps::{Authority, Expected, Oid, Refusal, verify};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn vectors() -> Vec<Case> {
    let mut found: Vec<Case> = fs::read_dir(vectors::directory())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let read = |name: &str| fs::read(path.join(name)).unwrap();
            Case {
                name: path.file_name().unwrap().to_string_lossy().into_owned(),
                seal: read("document.seal"),
                trust: read("trust.json"),
                document: Some(read("document")),
            }
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn agreed(found: &[String], of: usize) {
    assert!(
        found.is_empty(),
        "{} of {of} are judged otherwise by the page:\n{}",
        found.len(),
        found[..found.len().min(20)].join("\n")
    );
}

#[test]
fn g6_every_vector_is_judged_the_same_check_by_check() {
    let mut cases = vectors();
    assert!(cases.len() > 800);
    // Without their documents, too.
    let alone = cases.clone().into_iter().filter(|case| case.name.starts_with("valid"));
    cases.extend(
        alone
            .map(|case| Case { name: format!("{} alone", case.name), document: None, ..case })
            .collect::<Vec<_>>(),
    );
    agreed(&Node::start().unwrap().disagreements(&cases).unwrap(), cases.len());
}

/// One damaged case, from its number.
fn damaged(number: u64, genuine: &[Case]) -> Case {
    let mut dice = Dice::new(number);
    let mut case = dice.one(genuine).clone();
    let other = dice.one(genuine);
    case.name = format!("seed {number}, from {}", case.name);
    let file = if dice.below(8) == 0 { &mut case.trust } else { &mut case.seal };
    match dice.below(5) {
        0 => damage::bytes(&mut dice, file),
        1 => {
            let once = damage::json(&mut dice, file, &other.seal);
            *file = damage::json(&mut dice, &once, &other.seal);
        }
        _ => *file = damage::json(&mut dice, file, &other.seal),
    }
    if dice.below(16) == 0 {
        case.trust.clone_from(&other.trust);
    }
    case
}

/// Judges as many cases as `count`, each made from its number.
fn compare(count: usize, make: impl Fn(u64) -> Case) {
    let first: u64 = std::env::var("BULLA_SEED").ok().map_or(0, |seed| seed.parse().unwrap());
    let numbers: Vec<u64> = (first..first + count as u64).collect();
    let mut node = Node::start().unwrap();
    let mut found = Vec::new();
    for some in numbers.chunks(AT_ONCE * 8) {
        let cases: Vec<Case> = some.iter().map(|number| make(*number)).collect();
        found.extend(node.disagreements(&cases).unwrap());
        if found.len() > 20 {
            break;
        }
    }
    agreed(&found, numbers.len());
}

#[test]
fn g6_damaged_seals_are_judged_the_same() {
    let starts = ["valid", "indeterminate", "policy", "not-understood"];
    let mut genuine = vectors();
    genuine.retain(|case| starts.iter().any(|start| case.name.starts_with(start)));
    assert!(genuine.len() > 100);
    compare(rig::rounds(12_000, 120_000), |number| damaged(number, &genuine));
}

/// What a box or a fleet gone bad would sign.
#[test]
fn g6_signed_damage_is_judged_the_same() {
    compare(rig::rounds(2_000, 30_000), |number| {
        let vector = vectors::damaged(number);
        Case {
            name: format!("signed damage, seed {number}"),
            seal: vector.seal,
            trust: vector.trust,
            document: Some(vector.document),
        }
    });
}

/// Browsers before 2025 have no Ed25519; the page's own is as strict.
#[test]
fn g6_an_older_browser_judges_the_same() {
    let mut cases = vectors();
    if !rig::soak() {
        cases.retain(|case| {
            ["signature", "small-order", "cofactored", "log-line", "root"]
                .iter()
                .any(|part| case.name.contains(part))
                || case.name.starts_with("valid-a")
        });
    }
    assert!(cases.len() > 60);
    agreed(&Node::without_ed25519().unwrap().disagreements(&cases).unwrap(), cases.len());
}

/// A time-stamp reply as both are asked about it: what must be the same of the two answers.
fn stamp(reply: &[u8], imprint: [u8; 32], roots: &[Vec<u8>], policies: &[String]) -> (Value, Value) {
    let roots64: Vec<String> = roots.iter().map(|root| base64_encode(root)).collect();
    let question = json!({"stamp": base64_encode(reply), "imprint": hex::encode(imprint), "roots": roots64, "policies": policies});
    let policies = policies.iter().map(|policy| Oid::parse(policy).unwrap()).collect();
    let authority = Authority::new(roots, policies).unwrap();
    // The nonce is known to whoever asked, and to no verifier of a seal.
    let ours = match verify(reply, &Expected { imprint, nonce: None }, &authority) {
        Ok(stamp) => json!({
            "stamp": "holds",
            "earliest": stamp.earliest_micros().to_string(),
            "latest": stamp.latest_micros().to_string(),
        }),
        Err(reason @ (Refusal::Untrusted | Refusal::Policy(_))) => json!({"stamp": reason.code()}),
        Err(_) => json!({"stamp": "refused"}),
    };
    (question, ours)
}

#[test]
fn time_stamps_and_damaged_ones_are_judged_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors-timestamps");
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let bytes = |value: &Value| base64_decode(value.as_str().unwrap()).unwrap();
        let roots: Vec<Vec<u8>> = vector["roots"].as_array().unwrap().iter().map(bytes).collect();
        let texts = |value: &Value| value.as_str().unwrap().to_owned();
        let policies: Vec<String> = vector["policies"].as_array().unwrap().iter().map(texts).collect();
        let imprint: [u8; 32] = hex::decode(texts(&vector["imprint"])).unwrap().try_into().unwrap();
        cases.push((
            path.file_name().unwrap().to_string_lossy().into_owned(),
            bytes(&vector["reply"]),
            imprint,
            roots,
            policies,
        ));
    }
    assert!(cases.len() > 50);
    cases.sort();
    let mut node = Node::start().unwrap();
    let mut wrong = Vec::new();
    let rounds = rig::rounds(40, 1_000);
    for round in 0..rounds as u64 {
        for some in cases.chunks(AT_ONCE) {
            let (questions, ours): (Vec<Value>, Vec<Value>) = some
                .iter()
                .enumerate()
                .map(|(at, (_, reply, imprint, roots, policies))| {
                    let mut reply = reply.clone();
                    if round > 0 {
                        damage::der(&mut Dice::new(round * 1_000 + at as u64), &mut reply);
                    }
                    stamp(&reply, *imprint, roots, policies)
                })
                .unzip();
            for ((case, ours), mut said) in some.iter().zip(ours).zip(node.ask(&questions).unwrap()) {
                let why = said.as_object_mut().unwrap().remove("why");
                if ours != said {
                    wrong.push(format!("{} round {round}: Rust {ours}, page {said} {why:?}", case.0));
                }
            }
        }
    }
    agreed(&wrong, cases.len() * rounds);
}
