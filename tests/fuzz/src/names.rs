//! Small texts with one spelling: origins, fleet domains, tile paths, names in backups, names of algorithms.
//!
//! A part of the target `trees`, which has time to spare.
//! Holds: what is read is written back to the same text, and no name leads out of the directory it is for.

use crate::targets::{seed, split};
use bulla_formats::backup::is_file_name;
use bulla_formats::body::seal::DigestAlgorithm;
use bulla_formats::hash::Hash;
use bulla_formats::origin::{Origin, check_fleet};
use bulla_formats::tile::{TileCoordinate, TileKind};
use std::path::{Component, Path};

const CHOICES: u8 = 5;

/// The first byte chooses the kind of name.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    match choice {
        0 => {
            let Ok(origin) = Origin::parse(text) else { return };
            let parts = format!("{}/{}/{}", origin.fleet(), origin.box_id(), origin.incarnation());
            assert_eq!((origin.as_str(), parts.as_str()), (text, text));
        }
        1 => {
            if check_fleet(text).is_err() {
                return;
            }
            let key = Hash([7; 32]);
            let origin = Origin::derive(text, &key, 3).expect("a good fleet has origins");
            assert!(origin.belongs_to(text, &key));
            assert_eq!(Origin::parse(origin.as_str()), Ok(origin));
        }
        2 => {
            let Ok(tile) = TileCoordinate::parse(text) else { return };
            assert_eq!(tile.path(), text);
            let again = match tile.kind() {
                TileKind::Hashes { level } => TileCoordinate::hashes(level, tile.index(), tile.width()),
                TileKind::Entries => TileCoordinate::entries(tile.index(), tile.width()),
            };
            assert_eq!(again, Ok(tile));
        }
        3 => {
            let inside = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
            assert!(!is_file_name(text) || inside && Path::new(text).components().count() <= 2, "{text:?}");
        }
        _ => {
            let Some(algorithm) = DigestAlgorithm::from_name(text) else { return };
            assert_eq!(algorithm.name(), text);
        }
    }
}

/// One or two of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let origin = format!("bank.example/{}/17", "0f".repeat(20));
    [
        (0, origin.as_str()),
        (1, "branch-7.bank.example"),
        (2, "tile/0/x001/x234/067"),
        (2, "tile/entries/x001/000.p/255"),
        (3, "log-3/seg-0000000000000000-g2.redb"),
        (3, "identity.json"),
        (4, "sha3-256"),
    ]
    .map(|(choice, text)| seed(choice, text))
    .to_vec()
}
