//! A copy made beside the running writer is a whole log: everything acknowledged before it is in it.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_ledger::{DirStore, Exported, Ledger, Options, Reader, Store};
use common::{
    Acknowledged, holds_any, judge_store, options, plain_entry, reopen, rich_entry, run_fsck, secrets_above,
};
use std::path::Path;
use std::sync::Arc;

/// Exports into `to` and adds the closed segments, as whoever makes a backup does.
fn export(reader: &Reader, from: &Path, to: &Path) -> Exported {
    let exported = {
        let store = DirStore::open(to).unwrap();
        reader.export(&store).unwrap()
    };
    for name in &exported.closed {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    exported
}

fn dir_store(path: &Path) -> Arc<dyn Store> {
    Arc::new(DirStore::open(path).unwrap())
}

#[test]
fn a_copy_is_the_log_of_its_moment_at_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(16);
    let mut ledger = Ledger::create(dir_store(dir.path()), common::ORIGIN, options.clone()).unwrap();
    let mut acknowledged = Acknowledged::default();
    for number in 0..50 {
        // Every size around the roll-overs, an empty log and an empty segment among them.
        let to = tempfile::tempdir().unwrap();
        let exported = export(&ledger.reader(), dir.path(), to.path());
        assert_eq!((exported.size, exported.root), (ledger.size(), ledger.root()));
        let copy = dir_store(to.path());
        if exported.size > 0 {
            judge_store(&copy, &options, &acknowledged, &[]).unwrap();
        }
        acknowledged.append(&mut ledger, vec![rich_entry(number)]);
    }
}

#[test]
fn a_copy_made_while_entries_come_in_is_a_prefix_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(256);
    let mut ledger = Ledger::create(dir_store(dir.path()), common::ORIGIN, options.clone()).unwrap();
    ledger.append((0..200).map(rich_entry).collect()).unwrap();
    let reader = ledger.reader();
    let copies: Vec<_> = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for first in (200..1_200).step_by(20) {
                ledger.append((first..first + 20).map(rich_entry).collect()).unwrap();
                ledger.erase_openings(&[first]).unwrap();
            }
            ledger
        });
        let mut copies = Vec::new();
        while !writer.is_finished() {
            let to = tempfile::tempdir().unwrap();
            let exported = export(&reader, dir.path(), to.path());
            copies.push((to, exported));
        }
        let ledger = writer.join().unwrap();
        for (_, exported) in &copies {
            assert_eq!(ledger.reader().root_at(exported.size).unwrap(), exported.root);
        }
        copies
    });
    assert!(!copies.is_empty());
    for (to, exported) in &copies {
        let store = dir_store(to.path());
        let copy = reopen(&store, &options).unwrap();
        assert_eq!((copy.size(), copy.root()), (exported.size, exported.root));
        let reader = copy.reader();
        for number in 0..exported.size {
            assert_eq!(reader.entry(number).unwrap(), rich_entry(number).entry);
            let openings = reader.openings(number).unwrap();
            // One that was erased about then may be in the copy or not.
            let erased = openings.is_none() && number >= 200 && number % 20 == 0;
            assert!(erased || openings.as_deref() == rich_entry(number).openings.as_ref(), "{number}");
        }
        drop(copy);
        assert!(run_fsck(&store, false).is_clean());
    }
}

/// docs/threat-model.md: a copy from before an erasure has the openings still, and can be made to forget them too.
#[test]
fn a_copy_from_before_an_erasure_has_to_be_erased_again() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = dir_store(dir.path());
    let mut ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options(256)).unwrap();
    ledger.append((0..20).map(rich_entry).collect()).unwrap();
    export(&ledger.reader(), dir.path(), to.path());
    let secrets = secrets_above(&store, 7);
    ledger.erase_openings(&[7]).unwrap();
    assert!(!holds_any(&store, &secrets), "the log has forgotten");
    let store = dir_store(to.path());
    assert!(holds_any(&store, &secrets), "the copy has not");
    let mut copy = reopen(&store, &options(256)).unwrap();
    assert_eq!(copy.reader().openings(7).unwrap().as_deref(), rich_entry(7).openings.as_ref());
    copy.erase_openings(&[7]).unwrap();
    copy.append(vec![rich_entry(20)]).unwrap();
    for index in 0..21 {
        let wanted = rich_entry(index).openings.filter(|_| index != 7);
        assert_eq!(copy.reader().openings(index).unwrap().as_deref(), wanted.as_ref(), "{index}");
    }
    drop(copy);
    assert!(!holds_any(&store, &secrets), "the copy has too");
    assert!(run_fsck(&store, false).is_clean());
}

#[test]
fn the_copy_of_a_damaged_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // No page cache to speak of, so that reads come from the file.
    let options = Options { active_cache_bytes: 0, ..options(1 << 10) };
    let mut ledger = Ledger::create(dir_store(dir.path()), common::ORIGIN, options).unwrap();
    for first in (0..300).step_by(10) {
        ledger.append((first..first + 10).map(plain_entry).collect()).unwrap();
    }
    // The disk rots under the running box.
    let path = dir.path().join("seg-0000000000000000.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"plain 150";
    for at in 0..bytes.len() - needle.len() {
        if bytes[at..].starts_with(needle) {
            bytes[at] ^= 1;
        }
    }
    std::fs::write(&path, &bytes).unwrap();
    let to = tempfile::tempdir().unwrap();
    let refused = ledger.reader().export(&DirStore::open(to.path()).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
    let names = std::fs::read_dir(to.path()).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(
        names.filter(|name| name == "seg-0000000000000000.redb").count(),
        0,
        "a half copy got its name"
    );
}
