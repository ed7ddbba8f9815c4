//! Trust files of version 3: whose time is believed, and everything that does not say so.

use super::anchors::{WITNESS, anchored, stamp, trusting};
use super::plan::{NOW, Plan, swap};
use super::stamps::{self, POLICY, Stamp};
use super::{ANCHORED, Vector, keys, trust_refused, valid};
use bulla_formats::hash::sha256;
use bulla_formats::json::base64_encode;
use bulla_formats::note::verifier_key;
use bulla_formats::trust::Authorities;
use bulla_timestamps::{Authority, Oid};

fn plan() -> Plan {
    trusting(anchored(Plan::software().tree(2, 8), vec![stamp("one", 10)]), 1)
}

fn with(change: impl Fn(&mut Authorities) + 'static) -> Plan {
    plan().trust(move |trust| change(trust.authorities.as_mut().expect("it has them")))
}

/// Swaps the item of operator *one* among the TSAs for this text.
fn item(text: &str) -> Plan {
    let own = format!(
        "{{\n      \"operator\": \"one\",\n      \"certificates\": [\n        \"{}\"\n      ],\n      \"policies\": []\n    }}",
        base64_encode(&stamps::root("one"))
    );
    let text = text.to_owned();
    plan().trust_text(move |trust| swap(trust, &own, &text))
}

/// Swaps its list of certificates for these.
fn certificates(all: &[Vec<u8>]) -> Plan {
    let all: Vec<String> = all.iter().map(|one| format!("\"{}\"", base64_encode(one))).collect();
    item(&format!("{{\"operator\": \"one\", \"certificates\": [{}], \"policies\": []}}", all.join(", ")))
}

/// Swaps its list of policies for this text.
fn policies(text: &str) -> Plan {
    let root = base64_encode(&stamps::root("one"));
    item(&format!("{{\"operator\": \"one\", \"certificates\": [\"{root}\"], \"policies\": {text}}}"))
}

/// Swaps the verifier key of the witness for this one.
fn witness(key: &str) -> Plan {
    let own = bulla_formats::witness::WitnessKey::new(
        WITNESS,
        keys::ed25519("witness three").verifying_key().to_bytes(),
    );
    let (own, key) = (own.expect("a good key").to_string(), key.to_owned());
    plan().trust_text(move |trust| swap(trust, &own, &key))
}

pub(super) fn all() -> Vec<Vector> {
    let mut all = positive();
    all.extend(operators());
    all.extend(roots());
    all.extend(witnesses());
    all
}

fn positive() -> Vec<Vector> {
    vec![
        valid("valid-trust-v3-without-witnesses", ANCHORED, with(|all| all.witnesses.clear())),
        valid("valid-trust-v3-of-eight-roots-and-policies", ANCHORED, {
            with(|all| {
                let mut roots: Vec<_> = (0..7).map(|number| stamps::root(&format!("one {number}"))).collect();
                roots.push(stamps::root("one"));
                let named = |number| Oid::parse(&format!("2.999.{number}")).expect("a policy");
                let mut policies: Vec<_> = (0..7).map(named).collect();
                policies.push(Oid::parse(POLICY).expect("a policy"));
                all.tsas[0].authority = Authority::new(&roots, policies).expect("roots are roots");
            })
        }),
        valid("valid-trust-v3-one-operator-of-both", ANCHORED, {
            with(|all| all.witnesses[0].operator = "one".into())
        }),
    ]
}

fn operators() -> Vec<Vector> {
    let refused = |what: &str, plan: Plan| trust_refused(&format!("v3-{what}"), plan);
    let text = |what: &str, from: &'static str, to: &'static str| refused(what, plan().swap_trust(from, to));
    let nobody = || with(|all| (all.tsas, all.witnesses) = (Vec::new(), Vec::new()));
    vec![
        refused("operators-0", with(|all| all.operators = 0)),
        refused("operators-9", with(|all| all.operators = 9)),
        text("operators-negative", "\"operators\": 1", "\"operators\": -1"),
        text("operators-of-a-string", "\"operators\": 1", "\"operators\": \"1\""),
        text("operators-missing", ",\n    \"operators\": 1", ""),
        text("operators-twice", "\"operators\": 1", "\"operators\": 1, \"operators\": 1"),
        refused("without-authorities", nobody()),
        refused("33-operators", {
            with(|all| {
                let mut witness = all.witnesses[0].clone();
                all.witnesses = (0..33)
                    .map(|number| {
                        let name = format!("{WITNESS}{number}");
                        let key = keys::ed25519("witness three").verifying_key().to_bytes();
                        witness.key =
                            bulla_formats::witness::WitnessKey::new(&name, key).expect("a good key");
                        witness.clone()
                    })
                    .collect();
            })
        }),
        refused("operator-twice", with(|all| all.tsas.push(all.tsas[0].clone()))),
        refused("operator-without-name", with(|all| all.tsas[0].operator.clear())),
        refused("operator-of-65-bytes", with(|all| all.tsas[0].operator = "o".repeat(65))),
        text("as-v1", "trust/v3", "trust/v1"),
        text("as-v4", "trust/v3", "trust/v4"),
        text("tsa-roots-missing", "\"tsaRoots\"", "\"tsaroots\""),
        text("witnesses-missing", "\"witnesses\"", "\"Witnesses\""),
        text("with-an-unknown-member", "\"roots\"", "\"colour\": 1,\n  \"roots\""),
        trust_refused("v1-with-witnesses", {
            Plan::software().swap_trust("\"tsaRoots\": []", "\"tsaRoots\": [], \"witnesses\": []")
        }),
        trust_refused("v1-with-operators", {
            Plan::software().swap_trust("\"requireFacts\": []", "\"requireFacts\": [], \"operators\": 1")
        }),
        trust_refused("v1-requires-anchored", {
            Plan::software().trust(|trust| trust.policy.require_facts = vec!["anchored".into()])
        }),
    ]
}

fn roots() -> Vec<Vector> {
    let refused = |what: &str, plan: Plan| trust_refused(&format!("v3-tsa-{what}"), plan);
    let signer = Stamp::of("one", [0; 32], NOW).certificate();
    let mut trailing = stamps::root("one");
    trailing.push(0);
    let root = stamps::root("one");
    let policy = |text: &str| policies(&format!("[\"{text}\"]"));
    vec![
        refused("of-a-string", item("\"one\"")),
        refused("of-an-array", item("[\"one\", [], []]")),
        refused("null", item("null")),
        refused("empty", item("{}")),
        refused("with-an-unknown-member", {
            item(&format!(
                "{{\"operator\": \"one\", \"certificates\": [\"{}\"], \"policies\": [], \"url\": \"\"}}",
                base64_encode(&root)
            ))
        }),
        refused("without-certificates", certificates(&[])),
        refused("of-nine-certificates", certificates(&vec![root.clone(); 9])),
        refused("certificate-empty", certificates(&[Vec::new()])),
        refused("certificate-is-none", certificates(&[b"no certificate".to_vec()])),
        refused("certificate-cut", certificates(&[root[..root.len() - 1].to_vec()])),
        refused("certificate-trailing-byte", certificates(&[trailing])),
        refused("certificate-of-a-signer", certificates(&[signer])),
        refused("second-certificate-is-none", certificates(&[root.clone(), vec![0x30, 0]])),
        refused(
            "certificate-in-pem",
            item("{\"operator\": \"one\", \"certificates\": [\"-----BEGIN\"], \"policies\": []}"),
        ),
        refused("policies-null", policies("null")),
        refused("policy-of-a-number", policies("[1.3]")),
        refused("policy-empty", policy("")),
        refused("policy-of-one-arc", policy("1")),
        refused("policy-of-words", policy("id-timestamp")),
        refused("policy-with-leading-zero", policy("1.03.6")),
        refused("policy-of-a-first-arc-3", policy("3.1")),
        refused("of-nine-policies", policies(&format!("[{}]", ["\"2.999.1\""; 9].join(", ")))),
    ]
}

/// A verifier key as C2SP spells that of a witness, whatever name and key are.
fn spelt(name: &str, public: [u8; 32]) -> String {
    let typed = [&[4][..], &public].concat();
    let id = sha256(&[name.as_bytes(), b"\n", &typed]).0;
    format!("{name}+{}+{}", hex::encode(&id[..4]), base64_encode(&typed))
}

fn witnesses() -> Vec<Vector> {
    let refused = |what: &str, plan: Plan| trust_refused(&format!("v3-witness-{what}"), plan);
    let public = keys::ed25519("witness three").verifying_key().to_bytes();
    let good = bulla_formats::witness::WitnessKey::new(WITNESS, public).expect("a good key").to_string();
    let (_, encoded) = good.rsplit_once('+').expect("it has three parts");
    let text = |what: &str, from: &'static str, to: &'static str| refused(what, plan().swap_trust(from, to));
    vec![
        // Signature type 1: the verifier key of a log.
        refused("key-of-a-log", witness(&verifier_key(WITNESS, &public))),
        refused("key-in-another-spelling", witness(&spelt(WITNESS, keys::NON_CANONICAL_KEY))),
        refused("key-of-small-order", witness(&spelt(WITNESS, keys::SMALL_ORDER_KEY))),
        refused("name-with-a-control-character", {
            let key = spelt("witness\u{1}", public);
            witness(&key.replace('\u{1}', "\\u0001"))
        }),
        refused("key-of-another-id", witness(&format!("{WITNESS}+00000000+{encoded}"))),
        refused("key-without-id", witness(&format!("{WITNESS}+{encoded}"))),
        refused("key-cut", witness(&good[..good.len() - 4])),
        refused("key-in-lax-base64", witness(&format!("{good}="))),
        refused("key-empty", witness("")),
        refused("key-of-another-name", witness(&good.replacen(WITNESS, "witness.test/w4", 1))),
        refused("key-twice", with(|all| all.witnesses.push(all.witnesses[0].clone()))),
        refused("without-operator", with(|all| all.witnesses[0].operator.clear())),
        refused("operator-of-65-bytes", with(|all| all.witnesses[0].operator = "o".repeat(65))),
        text("with-an-unknown-member", "\"operator\": \"three\"", "\"operator\": \"three\", \"url\": \"\""),
        text("of-an-empty-object", "\"witnesses\": [", "\"witnesses\": [{},"),
        text("of-a-string", "\"witnesses\": [", "\"witnesses\": [\"w\","),
    ]
}
