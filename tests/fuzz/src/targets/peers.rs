//! What peers say: cards, hints, questions, answers, fork proofs, and the bodies of mirror entries.
//!
//! Holds: what decodes is encoded back to the same bytes; a card, a cosignature or a fork that verifies was signed in
//! the vectors.

use super::{seed, split};
use bulla_formats::body::mirror::{CosignedHead, MirrorBody, Neighbour};
use bulla_formats::der::encode;
use bulla_formats::note::SignedNote;
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::fork::{ForkProof, Shown};
use bulla_formats::peer::message::{Answer, Asked, Hint, Question, Said};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const KINDS: [&str; 6] = ["card", "hint", "question", "answer", "fork", "mirror"];

/// A vector of `tests/vectors-peers`.
struct Vector {
    what: usize,
    valid: bool,
    bytes: Vec<u8>,
    more: Value,
}

static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors-peers");
    let listing = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> =
        listing.map(|entry| entry.expect("a directory that could be opened can be listed").path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let more: Value = serde_json::from_slice(&text).expect("a vector is JSON");
        let text = |name: &str| more[name].as_str().expect("a vector has it").to_owned();
        let what = KINDS.iter().position(|kind| *kind == text("what")).expect("a kind that is known");
        let bytes = hex::decode(text("bytes")).expect("bytes are hex");
        Vector { what, valid: text("expect") == "valid", bytes, more }
    };
    paths.iter().map(read).collect()
});

/// What the boxes of the vectors have signed.
struct Signed {
    cards: BTreeSet<Vec<u8>>,
    texts: BTreeSet<String>,
    cosigned: BTreeSet<Vec<u8>>,
    log_key: [u8; 32],
    origin: Origin,
}

static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    let of = |what: usize| VECTORS.iter().filter(move |vector| vector.what == what);
    let more = |what: usize, name: &str| {
        let vector = of(what).next().expect("there is one of each kind");
        vector.more[name].as_str().expect("a vector says so").to_owned()
    };
    let notes =
        of(4).filter_map(|vector| ForkProof::decode(&vector.bytes).ok()).flat_map(|proof| notes(&proof));
    let bodies = of(5).filter(|vector| vector.valid);
    let bodies = bodies.map(|vector| MirrorBody::decode(&vector.bytes).expect("a valid body"));
    Signed {
        cards: of(0).filter(|vector| vector.valid).map(|vector| vector.bytes.clone()).collect(),
        texts: notes.filter_map(|note| SignedNote::parse(&note).ok()).map(|note| note.text).collect(),
        cosigned: bodies.flat_map(|body| cosignatures(&body)).collect(),
        log_key: hex::decode(more(4, "logKey")).expect("hex").try_into().expect("32 bytes"),
        origin: Origin::parse(&more(5, "origin")).expect("an origin"),
    }
});

fn notes(proof: &ForkProof) -> [String; 2] {
    match &proof.shown {
        Shown::Heads(heads) => [heads.smaller.clone(), heads.larger.clone()],
        Shown::Leaves(leaves) => [leaves.first.checkpoint.clone(), leaves.second.checkpoint.clone()],
    }
}

/// Role by role, what was cosigned, with whose key.
fn cosignatures(body: &MirrorBody) -> Vec<Vec<u8>> {
    let each = |neighbour: &Neighbour| -> Vec<CosignedHead> {
        neighbour.heads().map(|(_, cosigned)| cosigned.clone()).collect()
    };
    body.neighbours.iter().flat_map(each).map(|cosigned| encode(&cosigned)).collect()
}

/// The first byte chooses what the rest is taken for.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, 6) else { return };
    match choice {
        0 => {
            let Ok(card) = PeerCard::decode(data) else { return };
            assert_eq!(card.bytes(), data);
            assert!(SIGNED.cards.contains(data), "a card that nobody signed");
            assert_eq!(card.fingerprint().len(), 24);
        }
        1 => {
            let Ok(hint) = Hint::decode(data) else { return };
            assert_eq!(hint.encode(), data);
        }
        2 => {
            let Ok(question) = Question::decode(data) else { return };
            assert_eq!(question.encode(), data);
            match question.asked {
                Asked::Fork(proof) => fork(&proof),
                Asked::Cosigned(cosigned) => assert!(cosigned.read().is_ok(), "it was read before"),
                _ => {}
            }
        }
        3 => {
            let Ok(answer) = Answer::decode(data) else { return };
            assert_eq!(answer.encode(), data);
            if let Said::Fork(proof) = answer.said {
                fork(&proof);
            }
        }
        4 => fork(data),
        _ => {
            let Ok(body) = MirrorBody::decode(data) else { return };
            assert_eq!(encode(&body), data);
            if body.verify(&SIGNED.origin).is_ok() {
                let made = |cosigned: &Vec<u8>| SIGNED.cosigned.contains(cosigned);
                assert!(cosignatures(&body).iter().all(made), "a cosignature that nobody made");
            }
        }
    }
}

fn fork(data: &[u8]) {
    let Ok(proof) = ForkProof::decode(data) else { return };
    assert_eq!(proof.encode(), data);
    let Ok(fork) = proof.verify(&SIGNED.log_key) else { return };
    assert_eq!(fork.origin().as_str(), proof.origin);
    assert!(fork.detail().len() <= 1_024);
    for note in notes(&proof) {
        let note = SignedNote::parse(&note).expect("it was verified");
        assert!(SIGNED.texts.contains(&note.text), "a head that the log never signed");
    }
}

/// Every vector that holds, and some that do not.
pub fn seeds() -> Vec<Vec<u8>> {
    let chosen = VECTORS.iter().enumerate().filter(|(place, vector)| vector.valid || place % 9 == 0);
    let kind = |what: usize| u8::try_from(what).expect("there are six");
    chosen.map(|(_, vector)| seed(kind(vector.what), &vector.bytes)).collect()
}
