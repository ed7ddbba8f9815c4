//! The real directory: locking, restarts, concurrent readers, erasure that leaves no trace, the control database.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle::{Frontier, verify_consistency, verify_inclusion};
use bulla_formats::tile::{parse_hashes, width_at};
use bulla_ledger::{DirStore, Intent, Ledger, NewEntry, Options, ReadError, Store};
use common::{
    Acknowledged, bytes_of, holds_any, judge_store, options, plain_entry, reopen, rich_entry, run_fsck,
    secrets_above,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn dir_store(path: &Path) -> Arc<dyn Store> {
    Arc::new(DirStore::open(path).unwrap())
}

/// Readers, snapshots and answers go to other threads; the writer can be moved to its own.
#[test]
fn handles_can_cross_threads() {
    fn shared<T: Clone + Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<bulla_ledger::Reader>();
    shared::<bulla_ledger::Snapshot>();
    shared::<bulla_ledger::Committed>();
    shared::<bulla_ledger::Control>();
    moved::<Ledger>();
}

#[test]
fn g2_a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open(dir.path()).unwrap();
    let second = DirStore::open(dir.path()).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    drop(store);
    DirStore::open(dir.path()).unwrap();
    DirStore::open(&dir.path().join("nowhere")).unwrap_err();
}

#[test]
fn g1_a_log_on_a_real_disk_survives_restarts_and_rollovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let options = options(64);
    let mut acknowledged = Acknowledged::default();
    let mut ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options.clone()).unwrap();
    for round in 0..6u64 {
        for first in (0..40).step_by(8) {
            let batch = (first..first + 8).map(|number| rich_entry(round * 40 + number)).collect();
            acknowledged.append(&mut ledger, batch);
        }
        drop(ledger);
        ledger = reopen(&store, &options).unwrap();
    }
    drop(ledger);
    assert!(run_fsck(&store, false).is_clean());
    judge_store(&store, &options, &acknowledged, &[]).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "nobody else reads the log");
    }
    assert!(store.free_bytes().unwrap() > 0);
    for name in ["", "../x", "a/b", ".hidden"] {
        assert_eq!(store.open(name).unwrap_err().kind(), std::io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn g2_readers_see_only_proven_trees_while_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(dir_store(dir.path()), common::ORIGIN, options(100)).unwrap();
    let done = AtomicBool::new(false);
    let (reader, done) = (ledger.reader(), &done);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let reader = reader.clone();
            scope.spawn(move || {
                let mut earlier: Option<(u64, Hash)> = None;
                while !done.load(Ordering::Relaxed) {
                    let snapshot = reader.snapshot();
                    let (size, root) = (snapshot.size(), snapshot.root());
                    if let Some((old, old_root)) = earlier.replace((size, root)) {
                        let proof = snapshot.consistency_proof(old).unwrap();
                        verify_consistency(old, &old_root, size, &root, &proof).unwrap();
                    }
                    let mut frontier = Frontier::new();
                    for row in reader.entries(0..size) {
                        frontier.append(leaf_hash(&row.unwrap().1));
                    }
                    assert_eq!(frontier.root(), root);
                    if size > 0 {
                        let leaf = reader.leaf_hash(size / 2).unwrap();
                        let proof = snapshot.inclusion_proof(size / 2).unwrap();
                        verify_inclusion(size / 2, size, &leaf, &proof, &root).unwrap();
                        let (algorithm, digest) = rich_entry(3).digest.unwrap();
                        reader.find_digest(algorithm, &digest, 10).unwrap();
                    }
                }
            });
        }
        for number in 0..350 {
            ledger.append(vec![rich_entry(number * 2), rich_entry(number * 2 + 1)]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(reader.size(), 700);
}

#[test]
fn g5_erased_openings_are_in_no_byte_of_the_file_and_break_no_proof() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let mut ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options(1 << 20)).unwrap();
    ledger.append((0..20).map(rich_entry).collect()).unwrap();
    let (root, reader) = (ledger.root(), ledger.reader());
    let clear = |store: &Arc<dyn Store>| {
        let bytes = bytes_of(store, "openings.redb");
        bytes.windows(13).any(|window| window == b"openings of 7")
    };
    assert!(!clear(&store), "openings are never in clear on the disk");
    let (erased, kept) = (secrets_above(&store, 7), secrets_above(&store, 9));
    assert_eq!((erased.len(), kept.len()), (17, 17), "both follow from the root of their bucket");
    assert!(holds_any(&store, &erased));
    let names = |store: &Arc<dyn Store>| {
        let mut names = store.list().unwrap();
        names.sort();
        names
    };
    let before = names(&store);
    ledger.erase_openings(&[7, 8]).unwrap();
    assert!(!holds_any(&store, &erased), "a secret above the erased key is still in a file");
    assert_eq!(names(&store), before, "no file is left over");
    // The key of the other one is as it was, and follows from less.
    let now = secrets_above(&store, 9);
    assert!(now.len() < kept.len() && kept.ends_with(&now) && holds_any(&store, &now));
    // Again, and what has no key: nothing changes.
    ledger.erase_openings(&[8, 7, 20, 1 << 40]).unwrap();
    assert_eq!((secrets_above(&store, 9), secrets_above(&store, 7)), (now, Vec::new()));
    for index in 0..20 {
        let expected = (!(7..=8).contains(&index)).then(|| format!("openings of {index}").into_bytes());
        assert_eq!(reader.openings(index).unwrap().as_deref(), expected.as_ref());
    }
    assert!(matches!(reader.openings(20), Err(ReadError::OutOfRange { index: 20, size: 20 })));
    assert_eq!(ledger.root(), root);
    ledger.append(vec![rich_entry(20)]).unwrap();
    drop(ledger);
    assert!(run_fsck(&store, false).is_clean());
    let ledger = reopen(&store, &options(1 << 20)).unwrap();
    assert_eq!(ledger.reader().openings(8).unwrap(), None);
    assert_eq!(ledger.reader().openings(20).unwrap().as_deref(), Some(&b"openings of 20".to_vec()));
}

#[test]
fn tiles_of_a_tree_with_three_levels_are_those_of_the_specification() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let options = Options { segment_entries: 30_000, ..options(1) };
    let mut ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options.clone()).unwrap();
    // The specification's example: 273 full and one partial tile of level 0, one full and one partial of level 1.
    let size = 70_000u64;
    for first in (0..size).step_by(4000) {
        ledger.append((first..(first + 4000).min(size)).map(plain_entry).collect()).unwrap();
    }
    drop(ledger);
    let ledger = reopen(&store, &options).unwrap();
    let reader = ledger.reader();
    let tile = |level, index, width| parse_hashes(&reader.tile(level, index, width).unwrap(), width).unwrap();
    let level_1: Vec<Hash> = [tile(1, 0, 256), tile(1, 1, 17)].concat();
    for (index, expected) in level_1.iter().enumerate() {
        let leaves = tile(0, index as u64, 256);
        assert_eq!(bulla_formats::tile::full_tile_root(&leaves), Some(*expected));
        assert_eq!(leaves[9], leaf_hash(&plain_entry(index as u64 * 256 + 9).entry));
    }
    assert_eq!(tile(2, 0, 1), [bulla_formats::tile::full_tile_root(&level_1[..256]).unwrap()]);
    assert_eq!(tile(0, 273, 112)[111], leaf_hash(&plain_entry(69_999).entry));
    for (level, index, width) in
        [(0, 273, 113), (1, 1, 18), (2, 0, 2), (3, 0, 1), (0, 274, 1), (0, 0, 0), (200, 0, 1)]
    {
        assert!(
            matches!(reader.tile(level, index, width), Err(ReadError::NoSuchTile { .. })),
            "{level}/{index}"
        );
        assert!(width > width_at(level, index, size) || width == 0);
    }
    let snapshot = reader.snapshot();
    for index in [0, 255, 256, 29_999, 32_000, 65_535, 65_536, 69_999] {
        let proof = snapshot.inclusion_proof(index).unwrap();
        verify_inclusion(index, size, &reader.leaf_hash(index).unwrap(), &proof, &snapshot.root()).unwrap();
    }
    assert!(matches!(snapshot.inclusion_proof(size), Err(ReadError::OutOfRange { .. })));
    assert!(matches!(snapshot.consistency_proof(size + 1), Err(ReadError::OutOfRange { .. })));
    assert!(reader.inclusion_proof(5, size + 1).is_err() && reader.consistency_proof(9, 8).is_err());
    drop(ledger);
    assert!(run_fsck(&store, false).is_clean());
}

#[test]
fn g2_the_control_database_keeps_the_intent_the_journal_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options(8)).unwrap();
    let control = ledger.control();
    assert_eq!((control.intent().unwrap(), control.get("a").unwrap()), (None, None));
    assert!(control.journal_rows(0, 10).unwrap().is_empty());
    for counter in 1..4 {
        control
            .commit_intent(Intent { counter, size: counter * 2, root: sha256(&[&[counter as u8]]) })
            .unwrap();
        control.journal(counter * 1000, &format!("line {counter}")).unwrap();
        control.put("a", &[counter as u8]).unwrap();
    }
    drop((ledger, control));
    let control = reopen(&store, &options(8)).unwrap().control();
    assert_eq!(control.intent().unwrap(), Some(Intent { counter: 3, size: 6, root: sha256(&[&[3]]) }));
    assert_eq!(control.get("a").unwrap(), Some(vec![3]));
    let rows = control.journal_rows(1, 5).unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.sequence, row.at_ms, row.text.as_str())).collect();
    assert_eq!(rows, [(1, 2000, "line 2"), (2, 3000, "line 3")]);
    assert_eq!(control.journal_rows(0, 1).unwrap().len(), 1);
}

#[test]
fn a_log_without_openings_or_side_objects_has_no_such_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(dir_store(dir.path()), common::ORIGIN, options(8)).unwrap();
    ledger.append(vec![plain_entry(0), NewEntry::default()]).unwrap();
    let names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    assert_eq!(names, ["seg-0000000000000000.redb"]);
}

/// Filters change no answer.
#[test]
fn with_filters_of_digests_everything_sealed_is_found_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let digest = |number: u64| sha256(&[b"digest", &number.to_be_bytes()]).0.to_vec();
    let mut ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options(1_000)).unwrap();
    for first in (0..4_500u64).step_by(500) {
        let entry = |number| NewEntry { digest: Some((1, digest(number))), ..plain_entry(number) };
        ledger.append((first..first + 500).map(entry).collect()).unwrap();
    }
    let reader = ledger.reader();
    let found = |number: u64| reader.find_digest(1, &digest(number), 9).unwrap();
    let all = |from: u64, to: u64| (from..to).filter(|number| found(*number) == [*number]).count() as u64;
    let none = |from: u64, to: u64| (from..to).filter(|number| found(*number).is_empty()).count() as u64;
    assert_eq!((all(0, 4_500), none(1_000_000, 1_002_000)), (4_500, 2_000));
    let mut made = 0;
    while reader.make_digest_filter().unwrap() {
        made += 1;
    }
    assert_eq!(made, 4, "one for each closed segment, none for the open one");
    assert_eq!((all(0, 4_500), none(1_000_000, 1_002_000)), (4_500, 2_000));
}
