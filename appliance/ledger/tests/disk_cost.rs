//! What a log occupies on its disk, beside the bytes of its entries. Not a timed test: pages are counted.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

use bulla_formats::hash::leaf_hash;
use bulla_ledger::{DirStore, Ledger, NewEntry, Options, Request, Store};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

/// Enough that there are tiles above those of leaves.
const SEGMENT: u64 = 131_072;

/// Bytes that a closed segment occupies whose entries have `bytes` each, all with a digest and a request.
fn occupied_by(bytes: usize) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(DirStore::open(dir.path()).unwrap());
    let options = Options { segment_entries: SEGMENT, ..Options::default() };
    let mut ledger = Ledger::create(store, "test/disk/0", options).unwrap();
    let entry = |number: u64| {
        let hash = leaf_hash(&number.to_be_bytes());
        NewEntry {
            entry: hash.0.repeat(bytes.div_ceil(32))[..bytes].to_vec(),
            digest: Some((1, hash.0.to_vec())),
            request: Some(Request::new(&hash, &hash)),
            ..NewEntry::default()
        }
    };
    for first in (0..=SEGMENT).step_by(4096) {
        ledger.append((first..first + 4096).map(entry).collect()).unwrap();
    }
    drop(ledger);
    // The closed segment: the active one has room for what is still to come.
    std::fs::metadata(dir.path().join("seg-0000000000000000.redb")).unwrap().blocks() * 512
}

/// 252 bytes is the smallest seal there is, without document id and user; 255 the same one in a log of ten million.
#[test]
fn the_smallest_entries_occupy_at_most_1_5_times_their_bytes() {
    for bytes in [252, 255] {
        let (occupied, entries) = (occupied_by(bytes), SEGMENT * bytes as u64);
        println!("{bytes}: {} bytes an entry", occupied / SEGMENT);
        assert!(occupied * 10 <= entries * 15, "{occupied} bytes for {entries} bytes of entries");
        assert!(occupied > entries, "{occupied} bytes cannot hold {entries}");
    }
}
