//! What a box reads when it takes its next image: the beginning of a bundle, and the record of what became of one.
//!
//! Holds: what is taken is written again as the same bytes; nothing counts as signed that nobody signed.

use super::{seed, split};
use crate::genuine::UPDATES;
use bulla_formats::checked_json::with_checksum;
use bulla_formats::der::Octets32;
use bulla_formats::update::{HEAD_BYTES, Release, Update, parse_head};
use bulla_formats::update_record::{Outcome, UpdateRecord};

const CHOICES: u8 = 3;

/// The first byte chooses: a bundle's beginning, a record's file, a record's object without its checksum.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => beginning(data),
        1 => record(data),
        _ => record(std::str::from_utf8(data).map(with_checksum).unwrap_or_default().as_bytes()),
    }
}

fn beginning(data: &[u8]) {
    let Some((head, statement)) = data.split_at_checked(HEAD_BYTES) else { return };
    let Ok(length) = parse_head(head) else { return };
    let Some(statement) = statement.get(..length) else { return };
    let Ok(said) = Update::decode(statement) else { return };
    let beginning = &data[..HEAD_BYTES + length];
    assert_eq!(said.head(), beginning);
    assert_eq!(said.content.check(), Ok(()));
    let Release { major, minor, patch } = said.content.image;
    assert_eq!(Release::parse(&format!("{major}.{minor}.{patch}")), Some(said.content.image));
    assert_eq!(Release::from_number(said.content.floor.number()), Some(said.content.floor));
    if said.verify(&[UPDATES.key]).is_ok() {
        assert!(UPDATES.signed.contains(beginning), "an update that nobody signed");
    }
}

fn record(data: &[u8]) {
    let Some(record) = UpdateRecord::parse(data) else { return };
    assert_eq!(record.encode().as_bytes(), data);
    assert!(record.from < record.to);
}

/// Updates of the vectors, and records of each outcome.
pub fn seeds() -> Vec<Vec<u8>> {
    let open = UpdateRecord {
        from: Release { major: 0, minor: 1, patch: 0 },
        to: Release { major: 0, minor: 2, patch: 0 },
        statement: Octets32::new([7; 32]),
        staged_millis: 1_790_000_000_000,
        outcome: None,
        detail: "the self-test failed".to_owned(),
    };
    let outcomes = [None, Some((Outcome::Proven, 9)), Some((Outcome::FellBack, 10))];
    let records = outcomes.map(|outcome| UpdateRecord { outcome, ..open.clone() }.encode());
    let mut seeds: Vec<Vec<u8>> = UPDATES.signed.iter().map(|said| seed(0, said)).collect();
    seeds.extend(records.iter().map(|record| seed(1, record.as_bytes())));
    let object = |record: &String| record.split(",\n  \"sha256\"").next().map(|head| format!("{head}\n}}"));
    seeds.extend(records.iter().filter_map(object).map(|object| seed(2, object.as_bytes())));
    seeds
}
