//! What peers say: cards, hints, questions, answers, fork proofs, requests for rosters, bodies of entries; and what a box
//! states about a medium.
//!
//! Holds: what decodes is encoded back to the same bytes; a card, a cosignature, a fork or a statement that verifies was
//! signed in the vectors.

use super::{seed, split};
use bulla_formats::body::key_epoch::PcrValue;
use bulla_formats::body::mirror::{CosignedHead, MirrorBody, Neighbour};
use bulla_formats::body::revocation::RevocationBody;
use bulla_formats::body::roster::RosterBody;
use bulla_formats::der::{Octets32, encode};
use bulla_formats::medium::{MediumId, MediumStatement};
use bulla_formats::note::SignedNote;
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::challenge::Boot;
use bulla_formats::peer::fork::{ForkProof, Shown};
use bulla_formats::peer::message::{Answer, Asked, Hint, Question, Said};
use bulla_formats::peer::roster::{RosterRequest, RosterSaid};
use bulla_formats::report::Fact;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const KINDS: [&str; 10] = [
    "card",
    "hint",
    "question",
    "answer",
    "fork",
    "mirror",
    "roster",
    "revocation",
    "roster-request",
    "medium",
];

/// Behind the kinds: what a box keeps of a neighbour's boot, what a registrar answers, and names.
const BOOT: u8 = 10;
const ROSTER_SAID: u8 = 11;
const NAMES: u8 = 12;
const CHOICES: u8 = 13;

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
    channel: [u8; 32],
    requests: BTreeSet<Vec<u8>>,
    media: BTreeSet<String>,
    medium_key: [u8; 32],
    medium_origin: Origin,
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
    let channel: [u8; 32] = hex::decode(more(8, "channel")).expect("hex").try_into().expect("32 bytes");
    let requests = of(8).filter_map(|vector| RosterRequest::open(&vector.bytes, &channel).ok());
    let stated = |vector: &Vector| {
        let note = std::str::from_utf8(&vector.bytes).expect("a valid statement is text");
        SignedNote::parse(note).expect("a valid statement is a note").text
    };
    let medium = of(9).find(|vector| vector.valid).expect("there is a valid one");
    let medium_says = |name: &str| medium.more[name].as_str().expect("a vector says so").to_owned();
    Signed {
        media: of(9).filter(|vector| vector.valid).map(stated).collect(),
        medium_key: hex::decode(medium_says("logKey")).expect("hex").try_into().expect("32 bytes"),
        medium_origin: Origin::parse(&medium_says("origin")).expect("an origin"),
        requests: requests.map(|(content, _)| content.message()).collect(),
        channel,
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
    let Some((choice, data)) = split(data, CHOICES) else { return };
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
                Asked::Site(asked) => {
                    let Some(anchor) = asked.anchored else { return };
                    assert!(anchor.body.check().is_ok() && anchor.body.manifests.is_empty());
                    if anchor.leads().is_ok() {
                        assert!(anchor.body.leads(&anchor.origin).is_ok(), "there is one rule");
                    }
                }
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
        6 => {
            let Ok(body) = RosterBody::decode(data) else { return };
            assert_eq!(encode(&body), data);
        }
        7 => {
            let Ok(body) = RevocationBody::decode(data) else { return };
            assert_eq!(encode(&body), data);
        }
        8 => {
            let Ok((content, card)) = RosterRequest::open(data, &SIGNED.channel) else { return };
            assert!(SIGNED.requests.contains(&content.message()), "a request that nobody signed");
            assert_eq!(card.bytes(), &content.card[..]);
        }
        9 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            if let Ok(statement) = MediumStatement::parse(text) {
                assert_eq!(statement.text(), text);
            }
            let opened = MediumStatement::open(text, &SIGNED.medium_origin, &SIGNED.medium_key);
            let Ok(statement) = opened else { return };
            assert!(SIGNED.media.contains(&statement.text()), "a statement that nobody signed");
        }
        BOOT => {
            let Ok(boot) = Boot::decode(data) else { return };
            assert_eq!(boot.encode(), data);
        }
        ROSTER_SAID => {
            let Ok(said) = RosterSaid::decode(data) else { return };
            assert_eq!(encode(&said), data);
        }
        NAMES => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            if let Some(id) = MediumId::parse(text) {
                assert_eq!(id.to_string(), text);
            }
            if let Some(fact) = Fact::parse(text) {
                assert_eq!(fact.name(), text);
            }
        }
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
    let kind = |what: usize| u8::try_from(what).expect("there are ten");
    let vectors = chosen.map(|(_, vector)| seed(kind(vector.what), &vector.bytes));
    let pcrs = vec![PcrValue { pcr: 7, value: Octets32::new([7; 32]) }];
    let boot = Boot { pcrs, resets: 3, restarts: 1, clock: 1_000 };
    let said = VECTORS.iter().filter(|vector| vector.what == 3 && vector.valid);
    let said = said.filter_map(|vector| match Answer::decode(&vector.bytes).ok()?.said {
        Said::Roster(said) => Some(seed(ROSTER_SAID, encode(&said))),
        _ => None,
    });
    let names = ["00112233445566778899aabbccddeeff", "sealed", "mirrored(2)", "witnessed(8)"];
    let names = names.into_iter().map(|name| seed(NAMES, name));
    vectors.chain(said).chain(names).chain([seed(BOOT, boot.encode())]).collect()
}
