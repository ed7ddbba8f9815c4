//! `tests/vectors-peers/`: cards, messages, fork proofs, mirror bodies and statements about media that hold, and many that must be refused.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-formats --test peers` writes them. Every
//! expectation is the name of the file, before the two hyphens.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod peer_roster;
mod peer_site;
mod site_anchors;

use bulla_formats::body::mirror::{CosignedHead, MirrorBody};
use bulla_formats::body::revocation::RevocationBody;
use bulla_formats::body::roster::RosterBody;
use bulla_formats::der::{Octets32, encode};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::medium::{MediumId, MediumStatement};
use bulla_formats::merkle::{Frontier, consistency_proof, inclusion_proof};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::{CardContent, PeerCard};
use bulla_formats::peer::challenge::{Challenge, ChallengeSaid, Voucher};
use bulla_formats::peer::fork::{ForkProof, Shown};
use bulla_formats::peer::message::{
    Answer, Asked, ConsistencyAsked, ConsistencySaid, Cosigned, HeadsAsked, Held, Hint, Hinted, ObjectsAsked,
    ObjectsSaid, Question, RangeAsked, RangeError, RangeSaid, Refusal, Refused, Said,
};
use bulla_formats::peer::roster::RosterRequest;
use bulla_formats::witness::Role;
use ed25519_dalek::{Signer as _, SigningKey};
use peer_site::{Site, octets};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// One vector: its name, what it is, its bytes, and what else there is to know.
struct Vector {
    name: String,
    what: &'static str,
    bytes: Vec<u8>,
    more: Value,
}

fn vector(name: &str, what: &'static str, bytes: Vec<u8>) -> Vector {
    Vector { name: name.to_owned(), what, bytes, more: json!({}) }
}

/// Whether a reader takes the bytes.
fn holds(what: &str, bytes: &[u8], more: &Value) -> bool {
    match what {
        "card" => PeerCard::decode(bytes).is_ok_and(|card| card.bytes() == bytes),
        "hint" => Hint::decode(bytes).is_ok_and(|hint| hint.encode() == bytes),
        "question" => Question::decode(bytes).is_ok_and(|question| question.encode() == bytes),
        "answer" => Answer::decode(bytes).is_ok_and(|answer| answer.encode() == bytes),
        "fork" => {
            let key = hex::decode(more["logKey"].as_str().unwrap()).unwrap().try_into().unwrap();
            ForkProof::decode(bytes).and_then(|proof| proof.verify(&key)).is_ok()
        }
        "mirror" => {
            let origin = Origin::parse(more["origin"].as_str().unwrap()).unwrap();
            MirrorBody::decode(bytes).is_ok_and(|body| body.verify(&origin).is_ok())
        }
        "medium" => {
            let origin = Origin::parse(more["origin"].as_str().unwrap()).unwrap();
            let key = hex::decode(more["logKey"].as_str().unwrap()).unwrap().try_into().unwrap();
            std::str::from_utf8(bytes).is_ok_and(|note| MediumStatement::open(note, &origin, &key).is_ok())
        }
        "roster" => RosterBody::decode(bytes).is_ok_and(|body| encode(&body) == bytes),
        "revocation" => RevocationBody::decode(bytes).is_ok_and(|body| encode(&body) == bytes),
        "roster-request" => {
            let channel = hex::decode(more["channel"].as_str().unwrap()).unwrap().try_into().unwrap();
            RosterRequest::open(bytes, &channel).is_ok()
        }
        other => panic!("{other} is nothing between peers"),
    }
}

fn changed<T: Clone>(genuine: &T, change: impl FnOnce(&mut T)) -> T {
    let mut value = genuine.clone();
    change(&mut value);
    value
}

/// One item less.
fn shorter<T>(items: &mut Vec<T>) {
    items.truncate(items.len() - 1);
}

/// A byte too few, one too many, none at all, and the whole thing inside another.
fn damaged(name: &str, genuine: &Vector) -> Vec<Vector> {
    let bytes = &genuine.bytes;
    let mut longer = vec![0x30, 0x83];
    longer.extend(&u32::to_be_bytes(bytes.len() as u32)[1..]);
    longer.extend(bytes);
    let rows = [
        ("cut", bytes[..bytes.len() - 1].to_vec()),
        ("trailing-byte", [&bytes[..], &[0]].concat()),
        ("empty", Vec::new()),
        ("in-another-sequence", longer),
    ];
    let made = |(what, bytes): (&str, Vec<u8>)| Vector {
        name: format!("refused--{name}-{what}"),
        what: genuine.what,
        bytes,
        more: genuine.more.clone(),
    };
    rows.into_iter().map(made).collect()
}

fn cards() -> Vec<Vector> {
    let site = Site::new(1);
    let genuine = site.card_content();
    let card = |name: &str, content: CardContent| vector(name, "card", site.signed_card(&content, |_| {}));
    let with = |name: &str, change: fn(&mut CardContent)| card(name, changed(&genuine, change));
    let signatures =
        |name: &str, change: fn(&mut [Vec<u8>; 4])| vector(name, "card", site.signed_card(&genuine, change));
    let mut all = vec![
        with("valid--card", |_| {}),
        with("valid--card-without-addresses", |content| content.addresses.clear()),
        with("valid--card-of-the-last-number", |content| content.sequence = (1 << 63) - 1),
        with("valid--card-with-8-addresses", |content| {
            content.addresses = (0..8).map(|n| format!("/ip6/2001:db8::{n}/tcp/7070")).collect();
        }),
        with("refused--card-of-version-2", |content| content.version = 2),
        with("refused--card-of-number-0", |content| content.sequence = 0),
        with("refused--card-of-a-number-above-the-limit", |content| content.sequence = 1 << 63),
        with("refused--card-of-no-origin", |content| content.origin = "bank.example".into()),
        with("refused--card-with-9-addresses", |content| {
            content.addresses = (0..9).map(|n| format!("/ip6/2001:db8::{n}/tcp/7070")).collect();
        }),
        with("refused--card-with-an-address-twice", |content| {
            content.addresses = vec!["/ip4/192.0.2.7/tcp/1".into(), "/ip4/192.0.2.7/tcp/1".into()];
        }),
        with("refused--card-with-an-address-of-257-bytes", |content| {
            content.addresses = vec![format!("/{}", "a".repeat(256))];
        }),
        with("refused--card-with-an-empty-address", |content| content.addresses = vec![String::new()]),
        with("refused--card-with-an-address-without-slash", |content| {
            content.addresses = vec!["192.0.2.7:7070".into()];
        }),
        with("refused--card-with-a-line-feed-in-an-address", |content| {
            content.addresses = vec!["/ip4/192.0.2.7\n/tcp/1".into()];
        }),
        with("refused--card-whose-witness-key-is-its-mirror-key", |content| {
            content.mirror_key = content.witness_key;
        }),
        with("refused--card-whose-log-key-is-its-transport-key", |content| {
            content.transport_key = content.log_key;
        }),
        with("refused--card-with-a-key-of-small-order", |content| {
            content.witness_key = Octets32::new([0; 32]);
        }),
        signatures("refused--card-not-signed-by-the-log-key", |all| all[0] = all[1].clone()),
        signatures("refused--card-not-signed-by-the-witness-key", |all| all[1] = all[0].clone()),
        signatures("refused--card-not-signed-by-the-mirror-key", |all| all[2][5] ^= 1),
        signatures("refused--card-not-signed-by-the-transport-key", |all| all[3] = vec![0; 64]),
        signatures("refused--card-with-a-signature-of-63-bytes", |all| shorter(&mut all[3])),
    ];
    let foreign = Site::new(40).card_content();
    let stolen = changed(&genuine, |content| content.mirror_key = foreign.mirror_key);
    all.push(card("refused--card-with-a-key-of-another-box", stolen));
    let unlabelled = site.card_without_label(&genuine);
    all.push(vector("refused--card-signed-without-label", "card", unlabelled));
    all.extend(damaged("card", &all[0]));
    all
}

fn hints() -> Vec<Vector> {
    let site = Site::new(1);
    let hint = |name: &str, hint: Hint| vector(name, "hint", hint.encode());
    let head = |text: String| Hint { version: 1, said: Hinted::Head(text) };
    let note = site.note(site.honest());
    let fork = Hint::fork(&site.origin(), Hash([7; 32]));
    let mut all = vec![
        hint("valid--hint-of-a-head", Hint::head(&note)),
        hint("valid--hint-of-a-fork", fork.clone()),
        hint("refused--hint-of-version-2", changed(&fork, |hint| hint.version = 2)),
        hint("refused--hint-of-text", head("hello".into())),
        hint("refused--hint-of-a-note-that-is-no-checkpoint", head("hello\n\n\u{2014} a AAAAAAAA\n".into())),
        hint(
            "refused--hint-of-a-checkpoint-of-no-origin",
            head(note.encode().replacen(site.origin().as_str(), "bank.example", 1)),
        ),
        hint("refused--hint-of-a-checkpoint-without-lines", head(format!("{}\n", note.text))),
        hint(
            "refused--hint-of-a-head-of-6145-bytes",
            head(changed(&note, |note| note.lines[0].body = vec![1; 4_500]).encode()),
        ),
        hint(
            "refused--hint-of-a-fork-of-no-origin",
            changed(&fork, |hint| {
                let Hinted::Fork(fork) = &mut hint.said else { panic!() };
                fork.origin = "log".into();
            }),
        ),
    ];
    all.extend(damaged("hint", &all[0]));
    all
}

fn questions() -> Vec<Vector> {
    let site = Site::new(1);
    let (origin, other) = (site.origin().to_string(), Site::new(40).origin().to_string());
    let ask = |name: &str, asked: Asked| vector(name, "question", Question::new(asked).encode());
    let heads = |origins: Vec<String>| Asked::Heads(HeadsAsked { origins });
    let range = |from, to| Asked::Range(RangeAsked { origin: origin.clone(), from, to });
    let objects = |hashes: &[u8]| {
        let hashes = hashes.iter().map(|byte| Octets32::new([*byte; 32])).collect();
        Asked::Objects(ObjectsAsked { origin: origin.clone(), hashes })
    };
    let consistency = |old, new| Asked::Consistency(ConsistencyAsked { origin: origin.clone(), old, new });
    let cosigned = |origin: &str, note: String| Asked::Cosigned(Cosigned { origin: origin.into(), note });
    let both = {
        let mut both = [origin.clone(), other.clone()];
        both.sort();
        both
    };
    let note = Site::new(40).cosigned(&site, &Role::ALL).encode();
    let many: Vec<Octets32> = (0..1_025u16)
        .map(|n| {
            let mut hash = [0; 32];
            hash[..2].copy_from_slice(&n.to_be_bytes());
            Octets32::new(hash)
        })
        .collect();
    let challenge = |name: &str, size| {
        let card = |site: &Site| PeerCard::decode(&site.signed_card(&site.card_content(), |_| {})).unwrap();
        let head = TreeState::new(size, site.honest().root());
        ask(name, Asked::Challenge(Challenge::new(&card(&Site::new(40)), &card(&site), [0x5a; 32], head)))
    };
    let mut all = vec![
        ask("valid--question-for-all-heads", heads(vec![])),
        ask("valid--question-for-heads", heads(both.to_vec())),
        ask("valid--question-for-entries", range(0, 1)),
        ask("valid--question-for-objects", objects(&[1, 2, 9])),
        ask("valid--question-with-cosignatures", cosigned(&origin, note.clone())),
        ask("valid--question-for-a-consistency-proof", consistency(1, 9)),
        ask("valid--question-with-a-fork", Asked::Fork(site.forked_heads().encode().into())),
        ask("valid--question-for-a-fork", Asked::ForkOf(HeadsAsked { origins: vec![origin.clone()] })),
        challenge("valid--question-that-challenges", 8),
        challenge("refused--question-that-challenges-with-a-root-of-nothing", 0),
        ask("refused--question-for-heads-out-of-order", heads(vec![both[1].clone(), both[0].clone()])),
        ask("refused--question-for-heads-of-one-log-twice", heads(vec![origin.clone(), origin.clone()])),
        ask("refused--question-for-heads-of-no-origin", heads(vec!["log".into()])),
        ask("refused--question-for-no-entries", range(5, 5)),
        ask("refused--question-for-entries-backwards", range(5, 4)),
        ask("refused--question-for-entries-above-the-limit", range(5, 1 << 63)),
        ask("refused--question-for-no-objects", objects(&[])),
        ask("refused--question-for-objects-out-of-order", objects(&[2, 1])),
        ask("refused--question-for-an-object-twice", objects(&[2, 2])),
        ask(
            "refused--question-for-1025-objects",
            Asked::Objects(ObjectsAsked { origin: origin.clone(), hashes: many }),
        ),
        ask("refused--question-with-cosignatures-for-another-log", cosigned(&other, note.clone())),
        ask(
            "refused--question-with-cosignatures-without-lines",
            cosigned(&origin, format!("{}\n", site.note(site.honest()).text)),
        ),
        ask("refused--question-for-a-proof-from-nothing", consistency(0, 9)),
        ask("refused--question-for-a-proof-backwards", consistency(9, 8)),
        ask("refused--question-for-the-forks-of-all", Asked::ForkOf(HeadsAsked { origins: vec![] })),
        ask("refused--question-for-two-forks", Asked::ForkOf(HeadsAsked { origins: both.to_vec() })),
        ask("refused--question-with-a-fork-of-24577-bytes", Asked::Fork(vec![0; 24_577].into())),
        vector(
            "refused--question-of-version-2",
            "question",
            encode(&Question { version: 2, asked: heads(vec![]) }),
        ),
        vector(
            "refused--question-of-version-0",
            "question",
            encode(&Question { version: 0, asked: range(0, 1) }),
        ),
        vector(
            "refused--question-that-is-a-hint",
            "question",
            Hint::head(&site.note(site.honest())).encode(),
        ),
    ];
    all.extend(damaged("question", &all[2]));
    all
}

fn range_said(site: &Site) -> RangeSaid {
    let tree = site.honest();
    RangeSaid {
        origin: site.origin().to_string(),
        from: 2,
        entries: tree.entries[2..5].iter().map(|entry| entry.clone().into()).collect(),
        proof: octets(&consistency_proof(5, tree.size(), &tree.leaves[..]).unwrap()),
        head: site.note(tree).encode(),
    }
}

fn answers() -> Vec<Vector> {
    let site = Site::new(1);
    let say = |name: &str, said: Said| vector(name, "answer", Answer::new(said).encode());
    let held = |site: &Site| Held {
        origin: site.origin().to_string(),
        head: site.note(site.honest()).encode(),
        entries: 4,
        frozen: false,
    };
    let both = {
        let mut both = vec![held(&site), held(&Site::new(40))];
        both.sort_by(|a, b| a.origin.cmp(&b.origin));
        both
    };
    let said = range_said(&site);
    let range = |name: &str, change: &dyn Fn(&mut RangeSaid)| say(name, Said::Range(changed(&said, change)));
    let tree = site.honest();
    let consistency = ConsistencySaid {
        origin: site.origin().to_string(),
        old: 3,
        root: Octets32::new(tree.root_at(3).0),
        proof: octets(&consistency_proof(3, tree.size(), &tree.leaves[..]).unwrap()),
        head: site.note(tree).encode(),
    };
    let proof = |name: &str, change: &dyn Fn(&mut ConsistencySaid)| {
        say(name, Said::Consistency(changed(&consistency, change)))
    };
    let objects = |name: &str, found: Vec<Vec<u8>>, lacking: &[u8]| {
        let found = found.into_iter().map(Into::into).collect();
        let lacking = lacking.iter().map(|byte| Octets32::new([*byte; 32])).collect();
        say(name, Said::Objects(ObjectsSaid { found, lacking }))
    };
    let refused = |name: &str, code: &str, after_millis| {
        say(name, Said::Refused(Refused { code: code.into(), after_millis }))
    };
    // Whether it answers anything, `challenges.rs` judges.
    let challenged = |name: &str, length: usize| {
        let (origin, head) = (site.origin().to_string(), site.note(tree).encode());
        let voucher = Voucher::Software(vec![0x5a; length].into());
        say(name, Said::Challenge(ChallengeSaid { origin, head, voucher }))
    };
    let other = Site::new(40);
    let mut all = vec![
        say("valid--answer-of-no-heads", Said::Heads(vec![])),
        say("valid--answer-of-heads", Said::Heads(both.clone())),
        range("valid--answer-of-entries", &|_| {}),
        objects("valid--answer-of-objects", vec![b"event log".to_vec(), vec![]], &[3, 4]),
        objects("valid--answer-of-objects-that-lack", vec![], &[3]),
        say("valid--answer-taken", Said::Taken(())),
        challenged("valid--answer-to-a-challenge", 64),
        challenged("refused--answer-to-a-challenge-with-a-signature-of-65-bytes", 65),
        proof("valid--answer-of-consistency", &|_| {}),
        say("valid--answer-of-a-fork", Said::Fork(site.forked_leaves().encode().into())),
        refused("valid--answer-refused", Refusal::Busy.name(), Some(5_000)),
        refused("valid--answer-refused-by-an-unknown-code", "bored-2", None),
        say("refused--answer-of-heads-out-of-order", Said::Heads(vec![both[1].clone(), both[0].clone()])),
        say(
            "refused--answer-of-heads-of-another-log",
            Said::Heads(vec![Held { head: both[1].head.clone(), ..both[0].clone() }]),
        ),
        say(
            "refused--answer-of-heads-with-entries-above-the-limit",
            Said::Heads(vec![Held { entries: 1 << 63, ..both[0].clone() }]),
        ),
        range("refused--answer-of-entries-that-has-none", &|said| said.entries.clear()),
        range("refused--answer-of-entries-with-an-empty-one", &|said| said.entries[1] = vec![].into()),
        range("refused--answer-of-entries-with-one-of-65536-bytes", &|said| {
            said.entries[1] = vec![0; 65_536].into();
        }),
        range("refused--answer-of-entries-beyond-its-head", &|said| said.from = 7),
        range("refused--answer-of-entries-beyond-every-head", &|said| said.from = u64::MAX),
        range("refused--answer-of-entries-with-65-hashes", &|said| {
            said.proof = vec![Octets32::new([1; 32]); 65];
        }),
        range("refused--answer-of-entries-under-a-foreign-head", &|said| {
            said.head = other.note(other.honest()).encode();
        }),
        range("refused--answer-of-entries-of-no-origin", &|said| said.origin = "log".into()),
        range("refused--answer-of-4097-entries", &|said| said.entries = vec![vec![1].into(); 4_097]),
        objects("refused--answer-of-no-objects", vec![], &[]),
        objects("refused--answer-of-objects-lacking-out-of-order", vec![], &[2, 1]),
        objects("refused--answer-of-1025-objects", vec![vec![]; 1_025], &[]),
        proof("refused--answer-of-consistency-from-nothing", &|said| said.old = 0),
        proof("refused--answer-of-consistency-to-a-smaller-head", &|said| said.old = 9),
        proof("refused--answer-of-consistency-with-65-hashes", &|said| {
            said.proof = vec![Octets32::new([1; 32]); 65];
        }),
        refused("refused--answer-refused-without-code", "", None),
        refused("refused--answer-refused-in-capitals", "Busy", None),
        refused("refused--answer-refused-by-a-code-of-33-letters", &"a".repeat(33), None),
        refused("refused--answer-refused-for-ever", "busy", Some(1 << 63)),
        vector(
            "refused--answer-of-version-2",
            "answer",
            Answer { version: 2, said: Said::Taken(()) }.encode(),
        ),
    ];
    all.extend(damaged("answer", &all[2]));
    all
}

fn forks() -> Vec<Vector> {
    let site = Site::new(1);
    let more = json!({"logKey": hex::encode(site.log_key())});
    let fork = |name: &str, proof: &ForkProof| Vector {
        name: name.to_owned(),
        what: "fork",
        bytes: proof.encode(),
        more: more.clone(),
    };
    let (heads, same, leaves) = (site.forked_heads(), site.forked_at_one_size(), site.forked_leaves());
    let heads_with =
        |name: &str, of: &ForkProof, change: &dyn Fn(&mut bulla_formats::peer::fork::ForkedHeads)| {
            let changed = changed(of, |proof| match &mut proof.shown {
                Shown::Heads(heads) => change(heads),
                Shown::Leaves(_) => panic!("they are heads"),
            });
            fork(name, &changed)
        };
    let leaves_with = |name: &str, change: &dyn Fn(&mut bulla_formats::peer::fork::ForkedLeaves)| {
        let changed = changed(&leaves, |proof| match &mut proof.shown {
            Shown::Leaves(leaves) => change(leaves),
            Shown::Heads(_) => panic!("they are leaves"),
        });
        fork(name, &changed)
    };
    let (honest, forked) = (site.honest(), site.forked());
    let consistent = site.show_heads(&honest.at(5), honest, honest.root_at(5));
    let mut all = vec![
        fork("valid--fork-of-two-sizes", &heads),
        fork("valid--fork-of-one-size", &same),
        fork("valid--fork-at-a-power-of-two", &site.show_heads(&honest.at(4), forked, forked.root_at(4))),
        fork("valid--fork-of-leaves", &leaves),
        fork("refused--fork-of-version-2", &changed(&heads, |proof| proof.version = 2)),
        fork("refused--fork-of-no-origin", &changed(&heads, |proof| proof.origin = "log".into())),
        fork(
            "refused--fork-of-another-log",
            &changed(&heads, |proof| proof.origin = Site::new(40).origin().to_string()),
        ),
        fork("refused--fork-of-two-heads-that-are-consistent", &consistent),
        fork("refused--fork-of-one-head-twice", &site.show_heads(honest, honest, honest.root())),
        heads_with("refused--fork-of-consistent-heads-and-an-invented-root", &consistent, &|heads| {
            heads.root = Octets32::new([1; 32]);
        }),
        heads_with("refused--fork-with-another-root", &heads, &|heads| heads.root = Octets32::new([1; 32])),
        heads_with("refused--fork-with-a-hash-less", &heads, &|heads| shorter(&mut heads.proof)),
        heads_with("refused--fork-with-a-hash-more", &heads, &|heads| {
            heads.proof.push(Octets32::new([1; 32]))
        }),
        heads_with("refused--fork-with-a-hash-flipped", &heads, &|heads| {
            heads.proof[0] = Octets32::new([1; 32]);
        }),
        heads_with("refused--fork-with-sizes-exchanged", &heads, &|heads| {
            std::mem::swap(&mut heads.smaller, &mut heads.larger);
        }),
        heads_with("refused--fork-of-one-size-in-the-other-order", &same, &|heads| {
            std::mem::swap(&mut heads.smaller, &mut heads.larger);
            let Hash(root) = site.honest().root();
            let other = site.forked().at(site.honest().size()).root();
            heads.root = Octets32::new(if root > other.0 { other.0 } else { root });
        }),
        heads_with("refused--fork-of-one-size-with-a-hash", &same, &|heads| {
            heads.proof.push(Octets32::new([1; 32]));
        }),
        heads_with("refused--fork-signed-by-another-key", &heads, &|heads| {
            heads.smaller = Site::new(40).note_for(&site.origin(), &site.honest().at(5)).encode();
        }),
        heads_with("refused--fork-with-a-broken-signature", &heads, &|heads| {
            heads.larger = changed(&site.note(site.forked()), |note| note.lines[0].body[3] ^= 1).encode();
        }),
        heads_with("refused--fork-with-a-cosignature", &heads, &|heads| {
            let mut note = Site::new(40).cosigned(&site, &[Role::Witness]);
            note.lines.splice(0..0, site.note(site.honest()).lines);
            heads.smaller = note.encode();
        }),
        heads_with("refused--fork-of-nothing", &heads, &|heads| {
            heads.smaller = site.signed(0, Hash([1; 32])).encode();
            heads.root = Octets32::new(bulla_formats::hash::empty_root().0);
            heads.proof.clear();
        }),
        leaves_with("refused--fork-of-leaves-at-another-index", &|leaves| leaves.index = 2),
        leaves_with("refused--fork-of-leaves-beyond-the-trees", &|leaves| leaves.index = 60),
        leaves_with("refused--fork-of-leaves-in-the-other-order", &|leaves| {
            std::mem::swap(&mut leaves.first, &mut leaves.second);
        }),
        leaves_with("refused--fork-of-one-leaf-twice", &|leaves| leaves.second = leaves.first.clone()),
        leaves_with("refused--fork-of-an-invented-leaf", &|leaves| {
            leaves.second.leaf_hash = Octets32::new([0xff; 32]);
        }),
        leaves_with("refused--fork-of-leaves-with-a-hash-less", &|leaves| shorter(&mut leaves.first.path)),
        leaves_with("refused--fork-of-leaves-with-a-hash-more", &|leaves| {
            leaves.first.path.push(Octets32::new([1; 32]));
        }),
        leaves_with("refused--fork-of-leaves-under-one-checkpoint", &|leaves| {
            leaves.second.checkpoint = leaves.first.checkpoint.clone();
        }),
        leaves_with("refused--fork-of-leaves-with-65-hashes", &|leaves| {
            leaves.first.path = vec![Octets32::new([1; 32]); 65];
        }),
    ];
    all.extend(damaged("fork", &all[0]));
    all
}

fn mirrors() -> Vec<Vector> {
    let site = Site::new(1);
    let more = json!({"origin": site.origin().as_str()});
    let genuine = site.mirror_body(&[Site::new(40), Site::new(80), Site::new(120)]);
    let with = |name: &str, change: &dyn Fn(&mut MirrorBody)| Vector {
        name: name.to_owned(),
        what: "mirror",
        bytes: encode(&changed(&genuine, change)),
        more: more.clone(),
    };
    fn head(body: &mut MirrorBody) -> &mut CosignedHead {
        body.neighbours[1].mirrored.as_mut().unwrap()
    }
    let mut all = vec![
        with("valid--mirror", &|_| {}),
        with("valid--mirror-of-a-witness-alone", &|body| {
            body.neighbours.truncate(1);
            body.neighbours[0].mirrored = None;
        }),
        with("refused--mirror-of-version-2", &|body| body.version = 2),
        with("refused--mirror-of-nobody", &|body| body.neighbours.clear()),
        with("refused--mirror-of-33", &|body| {
            body.neighbours = vec![body.neighbours[0].clone(); 33];
        }),
        with("refused--mirror-out-of-order", &|body| body.neighbours.swap(0, 1)),
        with("refused--mirror-of-one-twice", &|body| body.neighbours[1] = body.neighbours[0].clone()),
        with("refused--mirror-of-no-origin", &|body| body.neighbours[0].origin = "a".into()),
        with("refused--mirror-of-one-who-has-nothing", &|body| {
            (body.neighbours[1].mirrored, body.neighbours[1].witnessed) = (None, None);
        }),
        with("refused--mirror-with-one-key-for-both", &|body| {
            body.neighbours[1].witnessed = body.neighbours[1].mirrored.clone();
        }),
        with("refused--mirror-with-one-key-for-two", &|body| {
            body.neighbours[1].mirrored = body.neighbours[0].mirrored.clone();
        }),
        with("refused--mirror-relabelled", &|body| {
            let neighbour = &mut body.neighbours[1];
            neighbour.mirrored.as_mut().unwrap().key = neighbour.witnessed.take().unwrap().key;
        }),
        with("refused--mirror-of-an-empty-head", &|body| head(body).head.size = 0),
        with("refused--mirror-of-another-size", &|body| head(body).head.size += 1),
        with("refused--mirror-of-a-size-above-the-limit", &|body| head(body).head.size = 1 << 63),
        with("refused--mirror-of-another-root", &|body| {
            head(body).head = TreeState::new(head(body).head.size, Hash([1; 32]));
        }),
        with("refused--mirror-of-another-second", &|body| head(body).seconds += 1),
        with("refused--mirror-of-second-0", &|body| head(body).seconds = 0),
        with("refused--mirror-of-a-second-above-the-limit", &|body| {
            head(body).seconds = u64::MAX / 2_000 + 1
        }),
        with("refused--mirror-with-a-signature-of-63-bytes", &|body| {
            let signature = head(body).signature.to_vec();
            head(body).signature = signature[..63].to_vec().into();
        }),
        with("refused--mirror-with-a-broken-signature", &|body| {
            let mut signature = head(body).signature.to_vec();
            signature[9] ^= 1;
            head(body).signature = signature.into();
        }),
        with("refused--mirror-with-a-key-of-small-order", &|body| head(body).key = Octets32::new([0; 32])),
    ];
    all.extend(damaged("mirror", &all[0]));
    all
}

/// Statements about a medium that a box copied its log to: signed by its log key, and no checkpoints.
fn media() -> Vec<Vector> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let origin = Site::new(1).origin();
    let (root, medium) = (Hash([0xfb; 32]), MediumId([0xab; 16]));
    let stated =
        MediumStatement { origin: origin.clone(), size: 4_711, root, medium, unix_millis: 1_800_000_000_000 };
    let more = json!({"origin": origin.as_str(), "logKey": hex::encode(key.verifying_key().to_bytes())});
    let signed = |name: &str, text: &str, key: &SigningKey, origin: &str| {
        let signature = key.sign(text.as_bytes()).to_bytes();
        let line = log_line(origin, &key.verifying_key().to_bytes(), &signature);
        let note = SignedNote { text: text.to_owned(), lines: vec![line] }.encode();
        Vector { name: name.to_owned(), what: "medium", bytes: note.into_bytes(), more: more.clone() }
    };
    let text = stated.text();
    let mut all = vec![signed("valid--medium", &text, &key, origin.as_str())];
    let head = checkpoint_text(origin.as_str(), stated.size, &stated.root);
    all.push(signed("refused--medium-that-is-a-checkpoint", &head, &key, origin.as_str()));
    all.push(signed(
        "refused--medium-under-another-key",
        &text,
        &SigningKey::from_bytes(&[8; 32]),
        origin.as_str(),
    ));
    let other = Site::new(2).origin();
    all.push(signed("refused--medium-signed-as-another-log", &text, &key, other.as_str()));
    let of_other = MediumStatement { origin: other.clone(), ..stated.clone() }.text();
    all.push(signed("refused--medium-of-another-log", &of_other, &key, origin.as_str()));
    for (what, from, to) in [
        ("of-version-2", "statement/v1", "statement/v2"),
        ("of-nothing", "4711", "0"),
        ("with-a-leading-zero", "4711", "04711"),
        ("of-a-size-above-the-limit", "4711", "9223372036854775808"),
        ("with-a-short-id", "abab", "ab"),
        ("with-an-id-in-capitals", "abab", "ABAB"),
        ("with-a-root-without-padding", "=\n", "\n"),
        ("without-time", "1800000000000\n", ""),
        ("with-a-line-more", "1800000000000\n", "1800000000000\nmore\n"),
    ] {
        let name = format!("refused--medium-{what}");
        all.push(signed(&name, &text.replacen(from, to, 1), &key, origin.as_str()));
    }
    let mut unsigned = all[0].bytes.clone();
    unsigned.truncate(text.len() + 1);
    let name = "refused--medium-without-signature".to_owned();
    all.push(Vector { name, what: "medium", bytes: unsigned, more: more.clone() });
    all.extend(damaged("medium", &all[0]));
    all
}

fn all() -> Vec<Vector> {
    [
        cards(),
        hints(),
        questions(),
        answers(),
        forks(),
        mirrors(),
        media(),
        peer_roster::all(),
        site_anchors::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-peers")
}

fn file(vector: &Vector) -> (String, String) {
    let expect = vector.name.split("--").next().unwrap();
    let mut value = json!({"what": vector.what, "expect": expect, "bytes": hex::encode(&vector.bytes)});
    value.as_object_mut().unwrap().extend(vector.more.as_object().unwrap().clone());
    (format!("{}.json", vector.name), value.to_string() + "\n")
}

#[test]
fn every_vector_is_judged_as_its_name_says() {
    let mut wrong = Vec::new();
    let (mut valid, mut refused) = (0, 0);
    for vector in all() {
        let expected = vector.name.starts_with("valid--");
        *if expected { &mut valid } else { &mut refused } += 1;
        if holds(vector.what, &vector.bytes, &vector.more) != expected {
            wrong.push(vector.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(refused > 3 * valid, "{refused} against {valid}");
}

#[test]
fn the_files_are_what_this_source_makes() {
    // A kilobyte of zeros teaches nobody anything; what is refused for its length alone has no file.
    let all = all();
    let files: BTreeMap<String, String> =
        all.iter().filter(|vector| vector.bytes.len() <= 16_384).map(file).collect();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(directory()).unwrap();
        for (name, text) in &files {
            fs::write(directory().join(name), text).unwrap();
        }
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        found.insert(name, fs::read_to_string(path).unwrap());
    }
    assert!(found == files, "the vectors differ; BULLA_WRITE_VECTORS=1 writes them");
}

#[test]
fn entries_extend_a_copy_only_when_they_lead_to_the_head() {
    let site = Site::new(1);
    let said = range_said(&site);
    let card = PeerCard::decode(&site.signed_card(&site.card_content(), |_| {})).unwrap();
    let head = card.checkpoint(&site.note(site.honest())).unwrap();
    let mut held = Frontier::new();
    assert_eq!(said.extend(&held, &head), Err(RangeError::Elsewhere { expected: 0, found: 2 }));
    site.honest().entries[..2].iter().for_each(|entry| held.append(leaf_hash(entry)));
    let tree = said.extend(&held, &head).unwrap();
    assert_eq!((tree.size(), tree.root()), (5, site.honest().root_at(5)));
    let lies: [fn(&mut RangeSaid); 4] = [
        |said| said.entries.swap(0, 1),
        |said| shorter(&mut said.entries),
        |said| shorter(&mut said.proof),
        |said| said.entries[0] = b"another".to_vec().into(),
    ];
    for lie in lies {
        assert!(matches!(changed(&said, lie).extend(&held, &head), Err(RangeError::Proof(_))));
    }
    let other = card.checkpoint(&site.note(site.forked())).unwrap();
    assert!(matches!(said.extend(&held, &other), Err(RangeError::Proof(_))));
}

#[test]
fn g9_an_answer_of_consistency_from_another_tree_is_a_fork() {
    let site = Site::new(1);
    let (honest, forked) = (site.honest().at(5), site.forked());
    let said = ConsistencySaid {
        origin: site.origin().to_string(),
        old: 5,
        root: Octets32::new(forked.root_at(5).0),
        proof: octets(&consistency_proof(5, forked.size(), &forked.leaves[..]).unwrap()),
        head: site.note(forked).encode(),
    };
    let card = PeerCard::decode(&site.signed_card(&site.card_content(), |_| {})).unwrap();
    let larger = (site.note(forked), card.checkpoint(&site.note(forked)).unwrap());
    let smaller = (site.note(&honest), card.checkpoint(&site.note(&honest)).unwrap());
    said.leads(&larger.1).unwrap();
    assert!(said.leads(&card.checkpoint(&site.note(site.honest())).unwrap()).is_err());
    let proof: Vec<Hash> = said.proof.iter().map(|hash| Hash(**hash)).collect();
    let root = Hash(*said.root);
    let shown =
        ForkProof::of_heads(&site.origin(), &(&smaller.0, &smaller.1), &(&larger.0, &larger.1), root, &proof);
    let fork = shown.verify(&site.log_key()).unwrap();
    assert_eq!(fork.origin(), &site.origin());
    assert!(fork.detail().len() <= 1_024 && fork.detail().contains("5 entries"), "{}", fork.detail());
    // Whoever shows it first: of one size, both ways round are the same bytes.
    let pair = [(&smaller.0, &smaller.1), {
        let note = site.note(&forked.at(5));
        let checkpoint = card.checkpoint(&note).unwrap();
        (&*Box::leak(Box::new(note)), &*Box::leak(Box::new(checkpoint)))
    }];
    let one = ForkProof::of_heads(&site.origin(), &pair[0], &pair[1], pair[1].1.root(), &[]);
    let other = ForkProof::of_heads(&site.origin(), &pair[1], &pair[0], pair[0].1.root(), &[]);
    assert_eq!(one.hash(), other.hash());
    one.verify(&site.log_key()).unwrap();
}

#[test]
fn leaves_prove_a_fork_whoever_is_named_first() {
    let site = Site::new(1);
    let (honest, forked) = (site.honest(), site.forked());
    let (one, other) = (site.note(honest), site.note(forked));
    let path = |tree: &peer_site::Tree| inclusion_proof(3, tree.size(), &tree.leaves[..]).unwrap();
    let (a, b) = (path(honest), path(forked));
    let here = (honest.leaves[3], &a[..], &one);
    let there = (forked.leaves[3], &b[..], &other);
    let proof = ForkProof::of_leaves(&site.origin(), 3, here, there);
    assert_eq!(proof, ForkProof::of_leaves(&site.origin(), 3, there, here));
    proof.verify(&site.log_key()).unwrap();
    assert!(proof.verify(&Site::new(40).log_key()).is_err());
}

#[test]
fn codes_of_refusals_are_told_apart() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_name(refusal.name()), Some(refusal));
        let answer = Answer::decode(&Answer::refused(refusal, None).encode()).unwrap();
        assert!(matches!(answer.said, Said::Refused(Refused { code, .. }) if code == refusal.name()));
    }
    let newer = encode(&Question { version: 7, asked: Asked::Heads(HeadsAsked { origins: vec![] }) });
    assert_eq!(Question::decode(&newer).unwrap_err().refusal(), Refusal::Version);
    for rubbish in
        [&b""[..], b"\x30\x00", b"GET / HTTP/1.1\r\n", b"\x30\x03\x02\x01", b"\x04\x03\x02\x01\x07"]
    {
        assert_eq!(Question::decode(rubbish).unwrap_err().refusal(), Refusal::Malformed, "{rubbish:?}");
    }
}
