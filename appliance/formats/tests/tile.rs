//! Tile paths against tlog_tiles, one spelling per coordinate, and bundles without a byte left over.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

use bulla_formats::hash::{Hash, leaf_hash, node_hash};
use bulla_formats::tile::{
    TILE_WIDTH, TileCoordinate, TileError, TileKind, full_tile_root, parse_entries, parse_hashes, push_entry,
    width_at,
};
use proptest::prelude::*;

#[test]
fn paths_of_the_specification() {
    for (path, level, index, width) in [
        ("tile/0/000", 0, 0, 256),
        ("tile/0/x001/x234/067", 0, 1_234_067, 256),
        ("tile/5/x001/000.p/17", 5, 1000, 17),
        ("tile/63/x018/x446/x744/x073/x709/x551/615.p/255", 63, u64::MAX, 255),
    ] {
        let coordinate = TileCoordinate::hashes(level, index, width).unwrap();
        assert_eq!(coordinate.path(), path);
        assert_eq!(TileCoordinate::parse(path), Ok(coordinate));
    }
    let entries = TileCoordinate::parse("tile/entries/x001/234.p/1").unwrap();
    assert_eq!((entries.kind(), entries.index(), entries.width()), (TileKind::Entries, 1234, 1));
}

#[test]
fn every_other_spelling_is_refused() {
    for path in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/+0/000",
        "tile/64/000",
        "tile/256/000",
        "tile/-1/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/x1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/+1",
        "tile/0/000.p/",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/0/000 ",
        "tile/0/000\n",
        "tile/data/000",
        "tile/entries/x001",
        "tile/Entries/000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/xx001/000",
        "tile/0/x018/x446/x744/x073/x709/x551/x615/000",
        "tile/8/0/000",
        "tile/0/-01",
        "tile/0/000.P/1",
    ] {
        assert!(TileCoordinate::parse(path).is_err(), "{path:?}");
    }
    assert_eq!(TileCoordinate::hashes(0, 0, 0), Err(TileError::Range { level: 0, width: 0 }));
    assert_eq!(TileCoordinate::hashes(64, 0, 1), Err(TileError::Range { level: 64, width: 1 }));
    assert_eq!(TileCoordinate::entries(0, 257), Err(TileError::Range { level: 0, width: 257 }));
}

#[test]
fn widths_of_the_specifications_example_of_70_000_entries() {
    let widths = |level| (0..300).map(move |index| width_at(level, index, 70_000)).filter(|width| *width > 0);
    assert_eq!((widths(0).filter(|width| *width == 256).count(), widths(0).next_back()), (273, Some(112)));
    assert_eq!(widths(1).collect::<Vec<_>>(), [256, 17]);
    assert_eq!(widths(2).collect::<Vec<_>>(), [1]);
    assert_eq!(widths(3).count(), 0);
    assert_eq!(
        (width_at(255, 0, u64::MAX), width_at(0, u64::MAX, u64::MAX), width_at(7, 0, u64::MAX)),
        (0, 0, 255)
    );
}

#[test]
fn tile_bytes_have_exactly_their_width() {
    let hashes: Vec<Hash> = (0..256u64).map(|index| leaf_hash(&index.to_be_bytes())).collect();
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    assert_eq!(parse_hashes(&bytes, 256).as_ref(), Some(&hashes));
    assert_eq!(
        (parse_hashes(&bytes, 255), parse_hashes(&bytes[1..], 256), parse_hashes(&bytes[..33], 1)),
        (None, None, None)
    );
    let tree = tlog_tiles::Hash(full_tile_root(&hashes).unwrap().0);
    assert_eq!(tlog_tiles::Tile::subtree_hash(&bytes).0, tree.0);
    assert_eq!(full_tile_root(&hashes[1..]), None);
    assert_ne!(node_hash(&hashes[0], &hashes[1]), full_tile_root(&hashes).unwrap());
}

#[test]
fn bundles_hold_exactly_their_entries() {
    let entries: [&[u8]; 4] = [b"one", b"", &[7; 65_535], b"four"];
    let mut bundle = Vec::new();
    entries.iter().for_each(|entry| push_entry(&mut bundle, entry).unwrap());
    assert_eq!(parse_entries(&bundle, 4).unwrap(), entries);
    assert!(parse_entries(&bundle, 3).is_err());
    assert!(parse_entries(&bundle, 5).is_err());
    for cut in [1, 2, 4, 100] {
        assert!(parse_entries(&bundle[..bundle.len() - cut], 4).is_err(), "{cut}");
    }
    assert_eq!(parse_entries(&[bundle.as_slice(), &[0]].concat(), 4), Err(TileError::Bundle { expected: 4 }));
    assert_eq!(push_entry(&mut bundle, &[0; 65_536]), Err(TileError::EntryTooLarge(65_536)));
}

proptest! {
    #[test]
    fn paths_are_those_of_tlog_tiles_and_come_back(level in 0u8..=63, index in any::<u64>(), width in 1..=TILE_WIDTH) {
        let coordinate = TileCoordinate::hashes(level, index, width).unwrap();
        // tlog_tiles prints the tile height, which the C2SP grammar leaves out.
        let theirs = tlog_tiles::Tile::new(8, level, index, u32::from(width), false).path();
        prop_assert_eq!(theirs.replacen("tile/8/", "tile/", 1), coordinate.path());
        prop_assert_eq!(TileCoordinate::parse(&coordinate.path()), Ok(coordinate));
    }

    #[test]
    fn random_text_never_panics_and_never_has_two_spellings(text in "tile/(entries|[0-9]{1,3})/[x0-9/]{1,12}(\\.p/[0-9]{1,3})?") {
        if let Ok(coordinate) = TileCoordinate::parse(&text) {
            prop_assert_eq!(coordinate.path(), text);
        }
    }
}
