//! What a log occupies on its disk, beside the bytes of its entries. Not a timed test: pages are counted.

use bulla_formats::hash::leaf_hash;
use bulla_ledger::{DirStore, Ledger, NewEntry, Options, Request, Store};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

/// The smallest seal there is: no document id, no user.
const ENTRY_BYTES: u64 = 252;
const SEGMENT: u64 = 16_384;

#[test]
fn the_smallest_entries_occupy_at_most_1_6_times_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(DirStore::open(dir.path()).unwrap());
    let options = Options { segment_entries: SEGMENT, ..Options::default() };
    let mut ledger = Ledger::create(store, "test/disk/0", options).unwrap();
    let entry = |number: u64| {
        let hash = leaf_hash(&number.to_be_bytes());
        NewEntry {
            entry: hash.0.repeat(8)[..ENTRY_BYTES as usize].to_vec(),
            digest: Some((1, hash.0.to_vec())),
            request: Some(Request::new(&hash, &hash)),
            ..NewEntry::default()
        }
    };
    for first in (0..=SEGMENT).step_by(512) {
        ledger.append((first..first + 512).map(entry).collect()).unwrap();
    }
    drop(ledger);
    // The closed segment: the active one has room for what is still to come.
    let closed = std::fs::metadata(dir.path().join("seg-0000000000000000.redb")).unwrap();
    let (occupied, entries) = (closed.blocks() * 512, SEGMENT * ENTRY_BYTES);
    assert!(occupied * 10 <= entries * 16, "{occupied} bytes for {entries} bytes of entries");
    assert!(occupied > entries, "{occupied} bytes cannot hold {entries}");
}
