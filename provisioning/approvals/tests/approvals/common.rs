//! A fleet of three operators, one of them with two keys, and three custodians; and a roster that went through three
//! changes.

use bulla_approvals::Record;
use bulla_approvals::action::{Action, Approval, Change, Kind, Version};
use bulla_approvals::electorate::{Bench, Electorate, Person};
use bulla_formats::der::Octets32;
use ed25519_dalek::SigningKey;

/// When everything is judged.
pub const NOW: u64 = 1_790_000_000_000;
pub const FLEET: &str = "bank.example";

/// Key of an operator: `olga`, `olga's other`, `omar`, `oya`; of a custodian: `ada`, `bo`, `cem`; of anybody else.
pub fn key(whose: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..whose.len()].copy_from_slice(whose.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub fn person(name: &str, keys: &[&str]) -> Person {
    let keys = keys.iter().map(|whose| Octets32::new(key(whose).verifying_key().to_bytes())).collect();
    Person { name: name.into(), keys }
}

pub fn custodians() -> Bench {
    let people = ["ada", "bo", "cem"].map(|name| person(name, &[name])).to_vec();
    Bench { people, needed: 2 }
}

pub fn operators(needed: usize) -> Bench {
    let people =
        vec![person("olga", &["olga", "olga's other"]), person("omar", &["omar"]), person("oya", &["oya"])];
    Bench { people, needed }
}

pub fn electorate() -> Electorate {
    Electorate::new(Some(operators(2)), custodians()).unwrap()
}

/// An action on the last version of `record`.
pub fn action(record: &Record, kind: Kind) -> Action {
    Action {
        version: 1,
        fleet: FLEET.into(),
        roster: record.version().clone(),
        target: None,
        kind,
        parameters: vec![0x30, 0].into(),
        reason: "branch 7 opens".into(),
        overriding: false,
        nonce: Octets32::new([7; 32]),
        proposed_at: NOW - 1_000,
        not_after: NOW + 1_000,
    }
}

/// `action` approved with these keys.
pub fn approved(action: &Action, keys: &[&str]) -> Change {
    let approvals = keys.iter().map(|whose| Approval::sign(action, NOW - 500, &key(whose))).collect();
    Change::new(action.clone(), approvals)
}

/// The founding and what came after: three changes, each by olga and omar.
pub fn history() -> (Record, Vec<Change>) {
    let mut record = Record::founded(FLEET, Version::made_by(0, b"a founding"));
    let mut changes = Vec::new();
    for nonce in 1..=3 {
        let action = Action { nonce: Octets32::new([nonce; 32]), ..action(&record, Kind::Import) };
        let change = approved(&action, &["olga", "omar"]);
        let judged = record.judge(&change, &electorate(), None, Some(NOW)).unwrap();
        record.consume(&judged).unwrap();
        changes.push(change);
    }
    (record, changes)
}
