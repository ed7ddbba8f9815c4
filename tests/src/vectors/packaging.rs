//! Refused packaging: `.seal` files and trust files that are not the JSON of their format, or of a later one.

use super::plan::Plan;
use super::{Vector, keys, not_understood, refused, trust_refused};
use bulla_formats::trust::Reference;

pub(super) fn all() -> Vec<Vector> {
    let mut all = json();
    all.extend(members());
    all.extend(base64());
    all.extend(heads());
    all.extend(later());
    all.extend(trust());
    all
}

/// The next character of the base64 alphabet: one more in the last six bits.
pub(super) fn next_base64(character: &str) -> &'static str {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let at = ALPHABET.find(character).expect("it is of the alphabet") + 1;
    &ALPHABET[at..=at]
}

fn no(what: &str, plan: Plan) -> Vector {
    refused("seal-file", what, plan)
}

fn swapped(what: &str, from: &'static str, to: &'static str) -> Vector {
    no(what, Plan::software().swap(from, to))
}

fn json() -> Vec<Vector> {
    vec![
        no("empty", Plan::software().bytes(Vec::clear)),
        no("truncated", Plan::software().bytes(|bytes| bytes.truncate(bytes.len() - 2))),
        no("text-after-its-end", Plan::software().bytes(|bytes| bytes.extend_from_slice(b"{}"))),
        no("zero-byte-after-its-end", Plan::software().bytes(|bytes| bytes.push(0))),
        no("byte-order-mark", Plan::software().bytes(|bytes| drop(bytes.splice(..0, *b"\xef\xbb\xbf")))),
        no(
            "not-utf-8",
            Plan::software().swap("{\n", "{\n  \"x\": \"#\",\n").bytes(|bytes| {
                let at = bytes.iter().position(|byte| *byte == b'#').expect("it was just put there");
                bytes[at] = 0xff;
            }),
        ),
        swapped("lone-surrogate", "{\n", "{\n  \"x\": \"\\ud800\",\n"),
        swapped("line-feed-in-a-string", "{\n", "{\n  \"x\": \"a\nb\",\n"),
        swapped("comment", "{\n", "{ // seal\n"),
        swapped("comma-at-the-end", "\"openings\": []\n", "\"openings\": [],\n"),
        swapped("single-quotes", "\"seal/v1\"", "'seal/v1'"),
        no("array-around-it", Plan::software().text(|text| *text = format!("[{text}]"))),
        no("a-string", Plan::software().text(|text| *text = "\"seal/v1\"".into())),
        swapped("member-twice", "{\n", "{\n  \"openings\": [],\n"),
        swapped("member-twice-once-escaped", "{\n", "{\n  \"openin\\u0067s\": [],\n"),
        swapped("unknown-member-twice", "{\n", "{\n  \"x\": 1,\n  \"x\": 1,\n"),
        swapped("member-of-an-unknown-member-twice", "{\n", "{\n  \"x\": [{\"a\": 1, \"a\": 2}],\n"),
        swapped("member-of-a-head-twice", "\"entryProof\"", "\"epochProof\": [],\n      \"entryProof\""),
    ]
}

fn members() -> Vec<Vector> {
    vec![
        swapped("of-another-format", "seal/v1", "receipt/v1"),
        swapped("format-is-a-number", "\"seal/v1\"", "1"),
        swapped("format-missing", "\"bulla\"", "\"Bulla\""),
        swapped("origin-missing", "\"origin\"", "\"Origin\""),
        swapped("entry-missing", "\"entry\"", "\"token\""),
        swapped("epoch-missing", "\"epoch\"", "\"epochs\""),
        swapped("enrolment-missing", "\"enrolment\"", "\"enrollment\""),
        swapped("heads-missing", "\"heads\"", "\"head\""),
        swapped("openings-missing", "\"openings\"", "\"opening\""),
        swapped("openings-null", "\"openings\": []", "\"openings\": null"),
        swapped("opening-is-a-number", "\"openings\": []", "\"openings\": [1]"),
        swapped("critical-is-a-string", "{\n", "{\n  \"critical\": \"heads\",\n"),
        swapped("critical-of-a-number", "{\n", "{\n  \"critical\": [1],\n"),
    ]
}

/// Spellings of the same bytes that strict base64 has not: a proof hash ends in one sign of padding.
fn base64() -> Vec<Vector> {
    let hash = |what, change: fn(&mut String, usize)| {
        no(
            what,
            Plan::software().text(move |text| {
                let start = text.find("\"entryProof\"").expect("every head has one");
                let end = start + text[start..].find("=\"").expect("a hash of 32 bytes is padded");
                change(text, end);
            }),
        )
    };
    let letter = |what, from: &'static str, to: &'static str| {
        no(
            what,
            Plan::software().text(move |text| {
                let start = text.find("\"entry\"").expect("it has one");
                let at = start
                    + 10
                    + text[start + 10..].find(from).expect("a kilobyte of base64 has every letter");
                text.replace_range(at..=at, to);
            }),
        )
    };
    vec![
        hash("base64-without-padding", |text, end| {
            text.remove(end);
        }),
        hash("base64-with-more-padding", |text, end| text.insert(end, '=')),
        hash("base64-with-trailing-bits", |text, end| {
            let next = next_base64(&text[end - 1..end]);
            text.replace_range(end - 1..end, next);
        }),
        hash("base64-with-line-feed", |text, end| text.insert_str(end - 8, "\\n")),
        hash("base64-with-space", |text, end| text.insert(end - 8, ' ')),
        hash("base64-ends-in-line-feed", |text, end| text.insert_str(end + 1, "\\n")),
        letter("base64-of-the-url-alphabet", "/", "_"),
        letter("base64-with-a-foreign-letter", "A", "*"),
        swapped("proof-hash-in-hex-number", "\"entryProof\": [", "\"entryProof\": [ 0,"),
    ]
}

fn heads() -> Vec<Vector> {
    let pcr = |what, from: &'static str, to: &'static str| no(what, Plan::quoted().swap(from, to));
    vec![
        no("heads-empty", Plan::software().file(|_, file| file.heads.clear())),
        no("heads-17", Plan::software().tree(1, 4).heads((0..17).map(|at| (2 + at % 3, None)).collect())),
        swapped("head-with-an-unknown-member", "\"entryProof\"", "\"note\": \"\",\n      \"entryProof\""),
        swapped("pcrs-null", "\"epochProof\"", "\"pcrs\": null,\n      \"epochProof\""),
        no(
            "head-is-an-array",
            Plan::software().text(|text| {
                let mut file: serde_json::Value = serde_json::from_str(text).expect("it was just written");
                let head = &file["heads"][0];
                file["heads"][0] =
                    serde_json::json!([head["checkpoint"], head["entryProof"], head["epochProof"], null]);
                *text = file.to_string();
            }),
        ),
        no(
            "pcr-is-an-array",
            Plan::quoted().text(|text| {
                let mut file: serde_json::Value = serde_json::from_str(text).expect("it was just written");
                let pcr = &file["heads"][0]["pcrs"][0];
                file["heads"][0]["pcrs"][0] = serde_json::json!([pcr["pcr"], pcr["value"]]);
                *text = file.to_string();
            }),
        ),
        swapped("head-without-epoch-proof", "\"epochProof\"", "\"epoch\""),
        swapped("head-is-null", "\"heads\": [", "\"heads\": [ null,"),
        no(
            "proof-of-65-hashes",
            Plan::software().file(|_, file| file.heads[0].entry_proof = vec![vec![0; 32]; 65]),
        ),
        pcr("pcr-24", "\"pcr\": 11", "\"pcr\": 24"),
        pcr("pcr-negative", "\"pcr\": 0", "\"pcr\": -1"),
        pcr("pcr-is-a-fraction", "\"pcr\": 11", "\"pcr\": 11.0"),
        pcr("pcr-with-exponent", "\"pcr\": 11", "\"pcr\": 11e0"),
        pcr("pcr-with-leading-zero", "\"pcr\": 7", "\"pcr\": 07"),
        pcr("pcr-is-a-string", "\"pcr\": 11", "\"pcr\": \"11\""),
        pcr("pcr-with-an-unknown-member", "\"pcr\": 11", "\"bank\": \"sha1\", \"pcr\": 11"),
        no(
            "pcr-value-in-capitals",
            Plan::quoted().text(|text| {
                let start = text.find("\"value\"").expect("the head has PCR values") + 10;
                text[start..start + 64].make_ascii_uppercase();
            }),
        ),
        no(
            "pcr-value-too-short",
            Plan::quoted().text(|text| {
                let start = text.find("\"value\"").expect("the head has PCR values") + 10;
                text.replace_range(start..start + 2, "");
            }),
        ),
    ]
}

fn later() -> Vec<Vector> {
    let later = |what, from: &'static str, to: &'static str| {
        not_understood(what, "seal-file", Plan::software().swap(from, to))
    };
    vec![
        later("seal-v2", "seal/v1", "seal/v2"),
        later("seal-draft", "seal/v1", "seal/v1-draft"),
        later("critical-unknown", "{\n", "{\n  \"critical\": [\"colour\"],\n  \"colour\": \"red\",\n"),
        later("critical-unknown-and-absent", "{\n", "{\n  \"critical\": [\"heads\", \"colour\"],\n"),
        later("critical-reserved", "{\n", "{\n  \"critical\": [\"witnesses\"],\n  \"witnesses\": [],\n"),
        // Not even the rest of a later file is known to have this format's shape.
        not_understood(
            "seal-v2-of-another-shape",
            "seal-file",
            Plan::software().text(|text| {
                *text = "{\"bulla\": \"seal/v2\"}\n".into();
            }),
        ),
    ]
}

fn trust() -> Vec<Vector> {
    let text = |what, from: &'static str, to: &'static str| {
        trust_refused(what, Plan::software().swap_trust(from, to))
    };
    let reference = |what, change: fn(&mut Reference)| {
        trust_refused(
            what,
            Plan::quoted().trust(move |trust| {
                let mut reference = Reference { name: "image 1".into(), pcrs: super::plan::pcrs(1) };
                change(&mut reference);
                trust.references.push(reference);
            }),
        )
    };
    vec![
        text("unknown-member", "{\n", "{\n  \"colour\": \"red\",\n"),
        text("member-twice", "{\n", "{\n  \"references\": [],\n"),
        text("revocations", "\"revocations\": []", "\"revocations\": [{}]"),
        text("tsa-roots", "\"tsaRoots\": []", "\"tsaRoots\": [\"AAAA\"]"),
        text("revocations-missing", "\"revocations\": [],", ""),
        text("v2", "trust/v1", "trust/v2"),
        text("of-another-format", "trust/v1", "seal/v1"),
        text("fleet-in-capitals", "bank.test", "Bank.test"),
        text("fleet-with-empty-label", "bank.test", "bank..test"),
        text("issued-is-a-fraction", "1790000000000", "1790000000000.0"),
        text("issued-is-negative", "1790000000000", "-1"),
        text("accept-software-is-a-number", "\"acceptSoftware\": true", "\"acceptSoftware\": 1"),
        text("policy-with-an-unknown-member", "\"acceptSoftware\"", "\"maxAge\": 1,\n    \"acceptSoftware\""),
        text("policy-missing", "\"policy\"", "\"policies\""),
        text("root-without-padding", "=\"", "\""),
        trust_refused(
            "required-fact-unknown",
            Plan::software().trust(|trust| {
                trust.policy.require_facts = vec!["sealed".into(), "blessed".into()];
            }),
        ),
        trust_refused("roots-empty", Plan::software().trust(|trust| trust.roots.clear())),
        trust_refused(
            "roots-17",
            Plan::software().trust(|trust| {
                let root = |number| keys::ed25519(&format!("root {number}")).verifying_key().to_bytes();
                trust.roots.extend((0..16).map(root));
            }),
        ),
        reference("reference-without-pcrs", |reference| reference.pcrs.clear()),
        reference("reference-pcrs-in-another-order", |reference| reference.pcrs.reverse()),
        reference("reference-pcr-twice", |reference| reference.pcrs.insert(0, reference.pcrs[0])),
        reference("reference-pcr-24", |reference| reference.pcrs[2].0 = 24),
        trust_refused(
            "reference-value-in-capitals",
            Plan::quoted()
                .trust(|trust| {
                    trust.references.push(Reference { name: "image 1".into(), pcrs: super::plan::pcrs(1) });
                })
                .trust_text(|text| {
                    let start = text.find("\"value\"").expect("the reference has PCR values") + 10;
                    text[start..start + 64].make_ascii_uppercase();
                }),
        ),
        trust_refused("truncated", Plan::software().trust_text(|text| text.truncate(text.len() - 3))),
        trust_refused(
            "policy-is-an-array",
            Plan::software().trust_text(|text| {
                let mut file: serde_json::Value = serde_json::from_str(text).expect("it was just written");
                file["policy"] = serde_json::json!([true, []]);
                *text = file.to_string();
            }),
        ),
        trust_refused(
            "reference-is-an-array",
            Plan::quoted()
                .trust(|trust| {
                    trust.references.push(Reference { name: "image 1".into(), pcrs: super::plan::pcrs(1) });
                })
                .trust_text(|text| {
                    let mut file: serde_json::Value =
                        serde_json::from_str(text).expect("it was just written");
                    let reference = &file["references"][0];
                    file["references"][0] = serde_json::json!([reference["name"], reference["pcrs"]]);
                    *text = file.to_string();
                }),
        ),
        trust_refused("array", Plan::software().trust_text(|text| *text = format!("[{text}]"))),
    ]
}
