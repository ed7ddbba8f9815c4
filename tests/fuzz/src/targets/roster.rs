//! What people's programs exchange after the ceremony: actions, approvals, rosters, and tables of boxes.
//!
//! Holds: what is taken is encoded back to the same bytes; nothing is carried out that its people did not sign; and no
//! roster of a known founding is read that is not one of the genuine ones, or an earlier version of it.

use super::{seed, split};
use bulla_approvals::action::{Action, Approval, Change, Kind};
use bulla_approvals::at_box::{Ask, BoxAction};
use bulla_roster::deed::Deed;
use bulla_roster::roster::Roster;
use bulla_roster::rows;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CHOICES: u8 = 7;
const KINDS: u8 = 13;

fn vectors(directory: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
    let listing = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut vectors: Vec<(String, Vec<u8>)> = listing
        .map(|entry| {
            let path = entry.expect("a directory that could be opened can be listed").path();
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    vectors.sort();
    vectors
}

/// The rosters of `tests/vectors-roster` that are read.
static GENUINE: LazyLock<Vec<Roster>> = LazyLock::new(|| {
    let vectors = vectors("vectors-roster");
    let genuine: Vec<Roster> = vectors.iter().filter_map(|(_, bytes)| Roster::decode(bytes).ok()).collect();
    assert!(genuine.len() >= 5, "some vectors are read");
    genuine
});

/// Hashes of every version that people signed.
static SIGNED: LazyLock<BTreeSet<[u8; 32]>> = LazyLock::new(|| {
    let versions = GENUINE.iter().flat_map(|roster| roster.versions());
    versions.map(|version| *version.hash).collect()
});

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => {
            let Ok(action) = Action::decode(data) else { return };
            assert_eq!(action.encode(), data);
            assert!(action.check().is_ok());
        }
        1 => drop(Approval::decode(data).map(|approval| assert_eq!(approval.encode(), data))),
        2 => {
            let Ok(change) = Change::decode(data) else { return };
            assert_eq!(change.encode(), data);
            for roster in GENUINE.iter() {
                let mut roster = roster.clone();
                let before = roster.version().clone();
                match roster.apply(change.clone(), change.action.proposed_at) {
                    Ok(version) => assert_eq!(version.number, before.number + 1),
                    Err(_) => assert_eq!(*roster.version(), before, "a refused change left something behind"),
                }
            }
        }
        3 => {
            let Ok(roster) = Roster::decode(data) else { return };
            assert_eq!(roster.encode(), data);
            let founded = roster.versions()[0].hash;
            if GENUINE.iter().any(|genuine| genuine.versions()[0].hash == founded) {
                assert!(SIGNED.contains(&*roster.version().hash), "a version that nobody signed");
            }
        }
        4 => {
            let Some((kind, data)) = split(data, KINDS) else { return };
            let kinds = GENUINE.iter().flat_map(|roster| roster.history()).map(|done| done.deed.kind());
            let Some(kind) = kinds.into_iter().find(|known| *known as u8 == kind) else { return };
            let Ok(deed) = Deed::decode(kind, data) else { return };
            assert_eq!((deed.kind(), &deed.encode()[..]), (kind, data));
        }
        6 => {
            if let Ok(action) = BoxAction::decode(data) {
                assert_eq!(action.encode(), data);
                let deed = Deed::decode(Kind::Box, data);
                assert_eq!(deed, Ok(Deed::AtBox(action)));
            }
            let Ok(ask) = Ask::decode(data) else { return };
            assert_eq!(ask.encode(), data);
            assert!(ask.action().is_ok() && ask.target.size > 0);
        }
        _ => {
            let Ok(found) = rows::parse(data) else { return };
            assert_eq!(rows::parse(rows::print(&found).as_bytes()).as_ref(), Ok(&found));
        }
    }
}

/// Everything the genuine rosters consist of.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for roster in GENUINE.iter() {
        seeds.push(seed(3, roster.encode()));
        let listed: Vec<_> = roster.inventory().boxes().map(|listed| listed.row.clone()).collect();
        seeds.push(seed(5, rows::print(&listed)));
    }
    // One of each kind is enough: the vectors say much the same many times.
    let mut kinds = BTreeSet::new();
    for done in GENUINE.iter().flat_map(|roster| roster.history()) {
        if kinds.insert(done.deed.kind() as u8) {
            seeds.push(seed(0, done.change.action.encode()));
            seeds.push(seed(1, done.change.approvals[0].encode()));
            seeds.push(seed(2, done.change.encode()));
            seeds.push(seed(4, seed(done.deed.kind() as u8, done.deed.encode())));
        }
    }
    seeds
        .push(seed(5, "EK;Serial;Branch;Model\r\n".to_owned() + &"0a".repeat(32) + ";S-1;\"a \"\"b\"\"\";M"));
    for (_, bytes) in vectors("vectors-ask").into_iter().filter(|(name, _)| name.starts_with("valid")) {
        let ask = Ask::decode(&bytes).expect("it says that it is valid");
        seeds.push(seed(6, &ask.parameters));
        seeds.push(seed(6, bytes));
    }
    let others = vectors("vectors-approvals").into_iter().filter(|(name, _)| name.starts_with("valid"));
    seeds.extend(others.map(|(_, bytes)| seed(2, bytes)));
    seeds
}
