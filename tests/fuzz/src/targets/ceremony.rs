//! What lies in the exchange directory of a key ceremony, and a custodian's own state.
//!
//! Holds: what is taken is encoded back to the same bytes; no message is of a person who did not sign it, and no
//! minutes of a root that did not.

use super::{seed, split};
use bulla_ceremony::board::Board;
use bulla_ceremony::state::{Answer, Round, Stage, State};
use bulla_ceremony::transcript::Transcript;
use bulla_ceremony::wire::{Card, Message, Plan};
use bulla_formats::der::{Octets32, encode};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CHOICES: u8 = 5;

/// The minutes of `tests/vectors-ceremony` that verify.
static GENUINE: LazyLock<Vec<(Vec<u8>, Transcript)>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors-ceremony");
    let listing = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut genuine: Vec<(Vec<u8>, Transcript)> = listing
        .filter_map(|entry| {
            let path = entry.expect("a directory that could be opened can be listed").path();
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Transcript::decode(&bytes).ok().map(|transcript| (bytes, transcript))
        })
        .collect();
    genuine.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(genuine.len() >= 5, "some vectors verify");
    genuine
});

/// The largest of them.
fn genuine() -> &'static Transcript {
    let largest = GENUINE.iter().max_by_key(|(bytes, _)| bytes.len());
    &largest.expect("there are some").1
}

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => drop(Card::decode(data).map(|card| assert_eq!(encode(&card), data))),
        1 => {
            let Ok(plan) = Plan::decode(data) else { return };
            assert_eq!(encode(&plan), data);
            assert!(plan.check().is_ok() && !plan.custodians.is_empty());
        }
        2 => {
            let content = &genuine().content;
            let Ok(message) = Message::decode(&content.plan, data) else { return };
            assert!(content.results.contains(&message), "a message that nobody signed");
            assert!(Board::new(content.plan.clone()).add(data).is_ok());
        }
        3 => {
            let Ok(transcript) = Transcript::decode(data) else { return };
            assert_eq!(encode(&transcript), data);
            assert!(!transcript.to_text("").is_empty());
            // What verifies under one of their roots is what that root signed.
            let of_root =
                |genuine: &&(Vec<u8>, Transcript)| genuine.1.content.root == transcript.content.root;
            let signed: Vec<_> = GENUINE.iter().filter(of_root).collect();
            assert!(
                signed.is_empty() || signed.iter().any(|(bytes, _)| bytes == data),
                "minutes that nobody signed"
            );
        }
        _ => drop(State::decode(data).map(|state| assert_eq!(state.encode().as_slice(), data))),
    }
}

/// Everything the genuine ceremonies consist of.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (bytes, transcript) in GENUINE.iter() {
        let content = &transcript.content;
        seeds.push(seed(1, encode(&content.plan)));
        seeds.push(seed(3, bytes));
        let people = content.plan.custodians.iter().chain(&content.plan.operators);
        seeds.extend(people.map(|card| seed(0, encode(card))));
        seeds.extend(content.results.iter().map(|message| seed(2, message.encode())));
    }
    let plan = genuine().content.plan.id().0;
    let mut state = State::fresh(plan);
    seeds.push(seed(4, state.encode()));
    state.said.push(genuine().content.results[0].encode().into());
    for stage in
        [Stage::First(vec![1; 40].into()), Stage::Second(vec![2; 40].into()), Stage::Done(vec![3; 40].into())]
    {
        state.stage = stage;
        seeds.push(seed(4, state.encode()));
    }
    let answers = [
        Answer::Declined(true),
        Answer::Nonces(vec![4; 80].into()),
        Answer::Answered(Octets32::new([5; 32])),
    ];
    for (answer, number) in answers.into_iter().zip(1..) {
        state.rounds.push(Round { number, hash: Octets32::new([6; 32]), answer });
        seeds.push(seed(4, state.encode()));
    }
    seeds
}
