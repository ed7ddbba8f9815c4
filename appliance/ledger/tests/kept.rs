//! Objects that no entry refers to: they stay until they are forgotten, and forgetting touches nothing else.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::{Hash, sha256};
use bulla_ledger::{DirStore, Ledger, Store};
use common::crash_store::{CrashStore, Fault, Spared};
use common::{Acknowledged, judge_store, options, reopen, rich_entry, run_fsck};
use redb::{Database, TableDefinition};
use std::path::Path;
use std::sync::Arc;

const KEPT: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("kept-1");

fn dir_store(path: &Path) -> Arc<dyn Store> {
    Arc::new(DirStore::open(path).unwrap())
}

#[test]
fn what_is_kept_stays_until_it_is_forgotten_and_entries_lose_nothing() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = dir_store(dir.path());
    let mut ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options(16)).unwrap();
    let mut acknowledged = Acknowledged::default();
    acknowledged.append(&mut ledger, (0..40).map(rich_entry).collect());
    let kept = ledger.kept_objects();
    let (one, two) = (kept.keep(b"one").unwrap(), kept.keep(&vec![7; 300_000]).unwrap());
    assert_eq!(one, sha256(&[b"one"]));
    kept.keep(b"one").unwrap();
    // An object of an entry that is kept, too, stays the entry's when it is forgotten.
    let object = rich_entry(0).side.first().cloned().unwrap();
    kept.keep(&object).unwrap();
    kept.keep_only(&[two]).unwrap();
    assert_eq!(kept.read(&one).unwrap(), None);
    assert_eq!(kept.read(&two).unwrap().map(|object| object.len()), Some(300_000));
    assert_eq!(kept.read(&sha256(&[&object])).unwrap(), Some(object));
    {
        let copy = DirStore::open(to.path()).unwrap();
        let exported = ledger.reader().export(&copy).unwrap();
        for name in &exported.closed {
            std::fs::copy(dir.path().join(name), to.path().join(name)).unwrap();
        }
    }
    drop((kept, ledger));
    for store in [store, dir_store(to.path())] {
        let ledger = reopen(&store, &options(16)).unwrap();
        assert_eq!(ledger.kept_objects().read(&two).unwrap().map(|object| object.len()), Some(300_000));
        drop(ledger);
        judge_store(&store, &options(16), &acknowledged, &[]).unwrap();
    }
}

#[test]
fn a_file_from_before_there_was_anything_to_keep_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let mut ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options(16)).unwrap();
    ledger.append((0..4).map(rich_entry).collect()).unwrap();
    drop(ledger);
    {
        let db = Database::open(dir.path().join("side.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        txn.delete_table(KEPT).unwrap();
        txn.commit().unwrap();
    }
    assert!(run_fsck(&store, false).is_clean());
    let ledger = reopen(&store, &options(16)).unwrap();
    let kept = ledger.kept_objects();
    assert_eq!(kept.read(&Hash([9; 32])).unwrap(), None);
    kept.keep_only(&[]).unwrap();
    let name = kept.keep(b"something").unwrap();
    assert_eq!(kept.read(&name).unwrap().as_deref(), Some(&b"something"[..]));
}

#[test]
fn one_that_rots_is_named_and_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let ledger = Ledger::create(Arc::clone(&store), common::ORIGIN, options(16)).unwrap();
    let name = ledger.kept_objects().keep(b"as it was").unwrap();
    drop(ledger);
    {
        let db = Database::open(dir.path().join("side.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(KEPT).unwrap().insert(&name.0, &b"something else"[..]).unwrap();
        txn.commit().unwrap();
    }
    let report = run_fsck(&store, false);
    assert_eq!((report.problems_total, report.problems[0].file.as_str()), (1, "side.redb"));
    let ledger = reopen(&store, &options(16)).unwrap();
    assert!(ledger.kept_objects().read(&name).is_err());
}

/// Every operation of keeping and of forgetting x every way to fail: what was kept before is there, what failed may be
/// tried again at once, and the log goes on.
#[test]
fn g10_a_failed_keeping_costs_nothing_that_was_kept() {
    let start = || {
        let store = CrashStore::new();
        let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options(8)).unwrap();
        let mut acknowledged = Acknowledged::default();
        acknowledged.append(&mut ledger, vec![rich_entry(0)]);
        let old = ledger.kept_objects().keep(b"old").unwrap();
        (store, ledger, acknowledged, old)
    };
    let replace = |ledger: &Ledger| {
        let kept = ledger.kept_objects();
        let new = kept.keep(b"new")?;
        kept.keep_only(&[new]).map(|()| new)
    };
    let span = {
        let (store, ledger, ..) = start();
        let first = store.operations();
        replace(&ledger).unwrap();
        first..store.operations()
    };
    for operation in span {
        for fault in [Fault::Lost, Fault::DoneButErrored, Fault::Torn, Fault::PowerCut] {
            let context = format!("operation {operation}, {fault:?}");
            let (store, mut ledger, mut acknowledged, old) = start();
            store.aim(operation, fault);
            let outcome = replace(&ledger);
            if fault != Fault::PowerCut {
                replace(&ledger).unwrap_or_else(|error| panic!("{context}: {error}"));
                acknowledged.append(&mut ledger, vec![rich_entry(1)]);
            }
            std::mem::forget(ledger);
            store.reboot(Spared::Random(operation));
            let ledger = reopen(&store.shared(), &options(8)).unwrap();
            let kept = ledger.kept_objects();
            let there = |name: &Hash| kept.read(name).unwrap().is_some();
            let new = sha256(&[b"new"]);
            assert!(there(&old) || there(&new), "{context}: one of the two is there");
            if fault != Fault::PowerCut || outcome.is_ok() {
                assert!(there(&new), "{context}");
            }
            drop(ledger);
            judge_store(&store.shared(), &options(8), &acknowledged, &[]).unwrap();
        }
    }
}
