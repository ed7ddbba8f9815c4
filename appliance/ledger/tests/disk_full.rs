//! A disk without room (G1): refused before anything is promised, survived when it happens in the middle.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_ledger::{AppendError, Ledger, Options, RecoverError};
use common::crash_store::CrashStore;
use common::{Acknowledged, judge_ledger, judge_store, options, rich_entry};

#[test]
fn g1_a_full_disk_is_refused_before_anything_is_written() {
    let options = Options { reserve_bytes: 1 << 20, ..options(1 << 20) };
    let store = CrashStore::new();
    let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options.clone()).unwrap();
    let mut acknowledged = Acknowledged::default();
    acknowledged.append(&mut ledger, vec![rich_entry(0)]);
    store.set_room(u64::MAX, (1 << 20) + 10);
    let operations = store.operations();
    let refused = ledger.append(vec![rich_entry(1)]).unwrap_err();
    assert!(matches!(refused, AppendError::Full { free, needed } if free < needed), "{refused}");
    assert_eq!(store.operations(), operations, "a refusal leaves no trace");
    assert!(!ledger.is_poisoned());
    judge_ledger(&ledger, &acknowledged, &[]).unwrap();
    store.set_room(u64::MAX, u64::MAX);
    acknowledged.append(&mut ledger, vec![rich_entry(1)]);
    drop(ledger);
    judge_store(&store.shared(), &options, &acknowledged, &[]).unwrap();
}

#[test]
fn g1_a_disk_that_fills_up_in_the_middle_of_a_write_loses_nothing_acknowledged() {
    // Every amount of room from none to enough: the write that does not fit is another one each time.
    let mut room = 0;
    loop {
        let options = options(4);
        let store = CrashStore::new();
        let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options.clone()).unwrap();
        let mut acknowledged = Acknowledged::default();
        acknowledged.append(&mut ledger, (0..4).map(rich_entry).collect());
        // The disk lies about its free space, or another program takes it in between.
        store.set_room(room, u64::MAX);
        let batch = vec![rich_entry(4)];
        match ledger.append(batch.clone()) {
            Ok(committed) => {
                acknowledged.enter(batch, &committed);
                store.set_room(u64::MAX, u64::MAX);
                judge_store_after_drop(ledger, &store, &options, &acknowledged);
                assert!(room > 0, "an append takes room");
                return;
            }
            Err(AppendError::Storage(_) | AppendError::Mismatch(_)) => {}
            Err(other) => panic!("{room}: {other}"),
        }
        judge_ledger(&ledger, &acknowledged, &[]).unwrap_or_else(|what| panic!("{room}: {what}"));
        store.set_room(0, 0);
        ledger.recover().expect_err("no room for a fresh segment");
        assert!(ledger.is_poisoned());
        // Somebody makes room.
        store.set_room(u64::MAX, u64::MAX);
        ledger.recover().unwrap_or_else(|error| panic!("{room}: {error}"));
        acknowledged.append(&mut ledger, batch);
        judge_store_after_drop(ledger, &store, &options, &acknowledged);
        room += 4096;
    }
}

fn judge_store_after_drop(
    ledger: Ledger,
    store: &CrashStore,
    options: &Options,
    acknowledged: &Acknowledged,
) {
    drop(ledger);
    judge_store(&store.shared(), options, acknowledged, &[]).unwrap();
}

#[test]
fn recovery_on_a_full_disk_says_so_before_it_writes() {
    let options = Options { reserve_bytes: 1 << 20, ..options(1 << 20) };
    let store = CrashStore::new();
    let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options).unwrap();
    store.set_room(0, u64::MAX);
    ledger.append(vec![rich_entry(0)]).unwrap_err();
    store.set_room(u64::MAX, 5);
    let operations = store.operations();
    let refused = ledger.recover().unwrap_err();
    assert!(matches!(refused, RecoverError::Full { free: 5, needed } if needed == 1 << 20), "{refused}");
    assert_eq!(store.operations(), operations);
    store.set_room(u64::MAX, u64::MAX);
    ledger.recover().unwrap();
    ledger.append(vec![rich_entry(0)]).unwrap();
}
