//! Answers of witnesses, their verifier keys, what they are asked, and entries of hubs' own logs.
//!
//! Holds: a cosignature that is taken is one that the key made; a verifier key, a request and an entry have one spelling.

use super::{seed, split};
use bulla_formats::body::anchor::Cosignature;
use bulla_formats::hash::Hash;
use bulla_formats::hub_log::{HubEntry, HubKind, QueriesHead};
use bulla_formats::note::{SignatureLine, SignedNote, checkpoint_text, verifier_key};
use bulla_formats::witness::add_checkpoint::{Submission, parse_answer, request};
use bulla_formats::witness::{WitnessKey, cosigned};
use ed25519_dalek::{Signer as _, SigningKey};
use std::sync::LazyLock;

const CHOICES: u8 = 6;
const SECONDS: u64 = 1_795_303_800;

struct Genuine {
    key: WitnessKey,
    text: String,
    cosignature: Vec<u8>,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let secret = SigningKey::from_bytes(&[5; 32]);
    let key = WitnessKey::new("witness.example/w1", secret.verifying_key().to_bytes()).expect("a good key");
    let text = checkpoint_text("log.example/1", 5, &Hash([1; 32]));
    let cosignature = secret.sign(&cosigned(&text, SECONDS)).to_bytes().to_vec();
    Genuine { key, text, cosignature }
});

/// The first byte chooses what is read; of an answer, the second one its status.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    let Genuine { key, text, cosignature } = &*GENUINE;
    match choice {
        0 => {
            let Ok(Cosignature { name, seconds, signature }) = parse_answer(200, data, text, key) else {
                return;
            };
            assert_eq!((name.as_str(), seconds), (key.name(), SECONDS), "a cosignature that nobody made");
            assert_eq!(&*signature, cosignature);
        }
        1 => {
            let Some((status, body)) = data.split_first_chunk::<2>() else { return };
            let answer = parse_answer(u16::from_be_bytes(*status), body, text, key);
            assert!(answer.is_err() || *status == [0, 200]);
        }
        3 => {
            let Ok(said) = Submission::parse(data) else { return };
            assert!(said.old <= said.size);
            let again = request(said.old, &said.proof, &said.note);
            assert_eq!(again.map(String::into_bytes).as_deref(), Some(data), "a request has one spelling");
        }
        4 => {
            let Ok(entry) = HubEntry::decode(data) else { return };
            assert_eq!(entry.encode(), data, "an entry has one encoding");
            assert_eq!(entry.seen().is_some(), entry.kind != HubKind::Queries);
        }
        5 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let Some(head) = QueriesHead::parse(text) else { return };
            assert_eq!(head.text(), text, "what is said of queries has one spelling");
        }
        _ => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let Some(key) = WitnessKey::parse(text) else { return };
            assert_eq!(key.to_string(), text, "a verifier key has one spelling");
        }
    }
}

/// A cosignature alone and among others; conflicts; keys of witnesses and of logs.
pub fn seeds() -> Vec<Vec<u8>> {
    let Genuine { key, text, cosignature } = &*GENUINE;
    let line = |name: &str, key_id, body: Vec<u8>| SignatureLine { name: name.into(), key_id, body };
    let own = line(key.name(), key.id(), [&SECONDS.to_be_bytes()[..], cosignature].concat());
    let other = line("witness.example/other", [1, 2, 3, 4], vec![7; 72]);
    let answer = |lines: Vec<SignatureLine>| {
        let note = SignedNote { text: text.clone(), lines }.encode();
        note[text.len() + 1..].to_owned()
    };
    let note = SignedNote { text: text.clone(), lines: vec![other.clone()] };
    let asked = request(3, &[Hash([2; 32]), Hash([3; 32])], &note).expect("it is short");
    let queries = QueriesHead { count: 3, hash: Hash([4; 32]) };
    vec![
        seed(3, asked.clone()),
        seed(3, request(5, &[], &note).expect("it is short")),
        seed(4, HubEntry::head(HubKind::Archived, SECONDS, &note).encode()),
        seed(
            4,
            HubEntry::head(
                HubKind::Cosigned,
                SECONDS,
                &HubEntry::own_lines(&note, std::slice::from_ref(&own)),
            )
            .encode(),
        ),
        seed(4, HubEntry::queries(SECONDS, &queries).encode()),
        seed(5, queries.text()),
        seed(0, answer(vec![own.clone()])),
        seed(0, answer(vec![other.clone(), own.clone(), other.clone()])),
        seed(0, answer(vec![own.clone(), own])),
        seed(0, asked),
        seed(1, [&409u16.to_be_bytes()[..], b"20852163\n"].concat()),
        seed(1, [&422u16.to_be_bytes()[..], b"no\n"].concat()),
        seed(2, key.to_string()),
        seed(2, verifier_key("log.example/1", &[7; 32])),
    ]
}
