//! Erasures: the log's word that openings were destroyed, and everything that looks like it and is not.

use super::plan::Plan;
use super::{ATTESTED, SEALED, Vector, refused, valid};
use bulla_formats::body::operator_action::Parameter;
use bulla_formats::entry::Kind;
use bulla_formats::hash::sha256;
use bulla_formats::note::{SignedNote, checkpoint_text};
use bulla_formats::seal_file::SealFile;

pub(super) fn all() -> Vec<Vector> {
    let mut all = positive();
    all.extend(statements());
    all.extend(proofs());
    all.extend(shapes());
    all
}

/// Two commitments, nothing opened, and the erasure as the last entry of the log.
fn erased() -> Plan {
    Plan { erased: true, ..Plan::software() }.with_openings().tree(2, 6).file(|_, file| file.openings.clear())
}

fn other_leaf(name: &str) -> Parameter {
    Parameter { name: "leaf".into(), value: sha256(&[name.as_bytes()]).to_string() }
}

fn positive() -> Vec<Vector> {
    vec![
        valid("valid-erased", SEALED, erased()),
        valid(
            "valid-erased-attested",
            ATTESTED,
            Plan { erased: true, ..Plan::quoted() }.with_openings().file(|_, file| file.openings.clear()),
        ),
        // A file from before the erasure that was upgraded after it.
        valid(
            "valid-erased-still-opened-here",
            SEALED,
            Plan { erased: true, ..Plan::software() }.with_openings().tree(2, 6),
        ),
        valid(
            "valid-erased-among-32",
            SEALED,
            erased().erasure_body(|body| {
                let others = (0..31).map(|number| other_leaf(&format!("seal {number}")));
                body.parameters.splice(0..0, others);
            }),
        ),
        valid(
            "valid-erasures-none",
            SEALED,
            Plan::software().swap("\"openings\": []\n", "\"openings\": [],\n  \"erasures\": []\n"),
        ),
        valid(
            "valid-erasures-critical",
            SEALED,
            erased().swap("{\n", "{\n  \"critical\": [\"erasures\"],\n"),
        ),
    ]
}

/// Entries that say something else.
fn statements() -> Vec<Vector> {
    let body = |what, change: fn(&mut bulla_formats::body::operator_action::OperatorActionBody)| {
        refused("erasure", what, erased().erasure_body(change))
    };
    vec![
        body("of-another-seal", |body| body.parameters = vec![other_leaf("another seal")]),
        body("of-nothing", |body| body.parameters.clear()),
        body("of-33-leaves", |body| body.parameters = vec![body.parameters[0].clone(); 33]),
        body("another-action", |body| body.action = "rotate-epoch".into()),
        body("action-in-upper-case", |body| body.action = "Erase".into()),
        body("leaf-in-upper-case", |body| body.parameters[0].value.make_ascii_uppercase()),
        body("leaf-cut", |body| body.parameters[0].value.truncate(63)),
        body("parameter-of-another-name", |body| body.parameters[0].name = "leafHash".into()),
        body("more-parameters-than-leaves", |body| {
            body.parameters.push(Parameter { name: "field".into(), value: "user".into() });
        }),
        body("approval-cut", |body| {
            body.approvals.push(bulla_formats::body::operator_action::Approval {
                operator: bulla_formats::der::Octets32::new([1; 32]),
                signature: vec![0; 63].into(),
            });
        }),
        refused(
            "erasure",
            "of-another-kind-of-entry",
            erased().erasure_content(|content| content.kind = Kind::Incident as u16),
        ),
        refused(
            "erasure",
            "of-an-unknown-kind-of-entry",
            erased().erasure_content(|content| content.kind = 99),
        ),
        refused("erasure", "before-the-token", erased().erasure_content(|content| content.index = 1)),
        refused("erasure", "at-another-index", erased().erasure_content(|content| content.index += 1)),
        refused(
            "erasure",
            "body-with-a-byte-more",
            erased().erasure_content(|content| {
                content.body = [content.body.as_ref(), &[0]].concat().into();
            }),
        ),
    ]
}

/// Proofs that prove something else, or nothing.
fn proofs() -> Vec<Vector> {
    let file = |what, change: fn(&super::log::Log<'_>, &mut SealFile)| {
        refused("erasure", what, erased().file(change))
    };
    vec![
        file("entry-empty", |_, file| file.erasures[0].entry.clear()),
        file("entry-cut", |_, file| {
            let cut = file.erasures[0].entry.len() - 1;
            file.erasures[0].entry.truncate(cut);
        }),
        file("entry-with-a-byte-more", |_, file| file.erasures[0].entry.push(0)),
        file("entry-with-another-signature", |_, file| {
            let last = file.erasures[0].entry.len() - 1;
            file.erasures[0].entry[last] ^= 1;
        }),
        file("entry-is-the-token", |log, file| {
            file.erasures[0].entry = file.entry.clone();
            file.erasures[0].entry_proof = log.proof(2, 6);
        }),
        file("entry-that-is-not-in-the-log", |log, file| {
            let entry =
                bulla_formats::entry::Entry::decode(&file.erasures[0].entry).expect("it was just made");
            let mut content = entry.content().clone();
            content.lamport += 1;
            file.erasures[0].entry = log.entry(&content);
        }),
        file("proof-empty", |_, file| file.erasures[0].entry_proof.clear()),
        file("proof-flipped", |_, file| file.erasures[0].entry_proof[0][0] ^= 1),
        file("proof-cut", |_, file| drop(file.erasures[0].entry_proof.pop())),
        file("proof-with-a-hash-more", |_, file| file.erasures[0].entry_proof.push(vec![0; 32])),
        file("proof-hash-of-31-bytes", |_, file| file.erasures[0].entry_proof[0].truncate(31)),
        file("proof-of-the-token", |log, file| file.erasures[0].entry_proof = log.proof(2, 6)),
        file("checkpoint-too-old", |log, file| {
            file.erasures[0].checkpoint = log.checkpoint(5, false, &Vec::new());
        }),
        file("checkpoint-unsigned", |_, file| {
            let end = file.erasures[0].checkpoint.find("\n\n").expect("a note has an empty line") + 2;
            file.erasures[0].checkpoint.truncate(end);
        }),
        file("checkpoint-of-another-text", |_, file| {
            file.erasures[0].checkpoint = file.erasures[0].checkpoint.replacen("\n6\n", "\n7\n", 1);
        }),
        file("checkpoint-of-another-log", |log, file| {
            let note = SignedNote::parse(&file.erasures[0].checkpoint).expect("it was just made");
            let root = bulla_formats::merkle::Frontier::new().root();
            assert!(!note.text.is_empty());
            let text = checkpoint_text(&format!("{}0", log.origin), 6, &root);
            let lines = vec![log.sign_text(&text)];
            file.erasures[0].checkpoint = SignedNote { text, lines }.encode();
        }),
        file("checkpoint-no-note", |_, file| file.erasures[0].checkpoint = "erased".into()),
        file("second-one-broken", |_, file| {
            file.erasures.push(file.erasures[0].clone());
            file.erasures[1].entry_proof[0][31] ^= 0x80;
        }),
    ]
}

/// Members that are no erasures at all.
fn shapes() -> Vec<Vector> {
    let none = |what: &str, value: &'static str| {
        let plan = Plan::software().text(move |text| {
            super::plan::swap(
                text,
                "\"openings\": []\n",
                &format!("\"openings\": [],\n  \"erasures\": {value}\n"),
            );
        });
        refused("seal-file", &format!("erasures-{what}"), plan)
    };
    let swapped = |what: &str, from: &'static str, to: &'static str| {
        let plan = erased().text(move |text| {
            let at = text.find("\"erasures\"").expect("it has one");
            let mut tail = text.split_off(at);
            super::plan::swap(&mut tail, from, to);
            text.push_str(&tail);
        });
        refused("seal-file", &format!("erasures-{what}"), plan)
    };
    vec![
        none("null", "null"),
        none("true", "true"),
        none("an-object", "{}"),
        none("of-a-string", "[\"erased\"]"),
        none("of-an-array", "[[\"AA==\", \"x\", []]]"),
        none("of-an-empty-object", "[{}]"),
        swapped("without-entry", "\"entry\"", "\"Entry\""),
        swapped("without-checkpoint", "\"checkpoint\"", "\"note\""),
        swapped("with-another-member", "\"checkpoint\"", "\"at\": 1,\n      \"checkpoint\""),
        swapped("member-twice", "\"checkpoint\"", "\"checkpoint\": \"\",\n      \"checkpoint\""),
        swapped("proof-of-numbers", "\"entryProof\": [", "\"entryProof\": [ 0,"),
        refused(
            "seal-file",
            "erasures-17",
            Plan::software().text(|text| {
                let one = r#"{"entry": "", "checkpoint": "", "entryProof": []}"#;
                let all = format!("\"openings\": [],\n  \"erasures\": [{}]\n", [one; 17].join(", "));
                super::plan::swap(text, "\"openings\": []\n", &all);
            }),
        ),
        refused(
            "seal-file",
            "erasures-proof-of-65-hashes",
            erased().file(|_, file| file.erasures[0].entry_proof = vec![vec![0; 32]; 65]),
        ),
    ]
}
