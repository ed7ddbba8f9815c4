//! The search index: complete against a plain scan, through restarts, crashes, damage and erasure.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_ledger::{Describe, DirStore, Ledger, NewEntry, Options, SearchIndex, Store};
use common::{ORIGIN, options, run_fsck};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Field numbers of the test's entries: one value is in the entry, the other in its openings.
const PLACE: u8 = 1;
const NAME: u8 = 2;
const TAGS: TableDefinition<&[u8; 24], ()> = TableDefinition::new("tags-1");
/// Entries of the index's batches, and a log that has two of them and a bit.
const BATCH: u64 = 1 << 14;
const SIZE: u64 = 2 * BATCH + 700;

fn place(index: u64) -> u64 {
    index % 5
}

fn name(index: u64) -> u64 {
    index / 3
}

/// A clock that goes back by a year every 1,000 entries.
fn time(index: u64) -> u64 {
    2_000_000_000_000 + index * 10 - (index / 1_000) * 31_536_000_000
}

fn describe() -> Describe {
    Box::new(|entry, openings, enter| {
        let text = std::str::from_utf8(entry).unwrap();
        let (time, place) = text.split_once(' ').unwrap();
        enter(PLACE, place.as_bytes());
        if let Some(name) = openings {
            enter(NAME, name);
        }
        time.parse().ok()
    })
}

fn entry(index: u64) -> NewEntry {
    NewEntry {
        entry: format!("{} place-{}", time(index), place(index)).into_bytes(),
        openings: Some(format!("name-{}", name(index)).into_bytes()),
        ..NewEntry::default()
    }
}

fn settings() -> Options {
    options(20_000)
}

fn store(path: &Path) -> Arc<dyn Store> {
    Arc::new(DirStore::open(path).unwrap())
}

fn grow(ledger: &mut Ledger, to: u64) {
    while ledger.size() < to {
        let batch = (ledger.size()..to.min(ledger.size() + 4_000)).map(entry).collect();
        ledger.append(batch).unwrap();
    }
}

fn open(path: &Path) -> (Ledger, SearchIndex) {
    let ledger = Ledger::open(store(path), ORIGIN, settings()).unwrap().0;
    let index = SearchIndex::new(ledger.reader(), describe());
    (ledger, index)
}

/// Takes in everything, also when a damaged file has to be thrown away first.
fn catch_up(index: &SearchIndex, size: u64) {
    for _ in 0..3 {
        if index.check().is_ok() && index.advance(u64::MAX).is_ok_and(|indexed| indexed.next == size) {
            return;
        }
    }
    panic!("the index does not catch up");
}

/// Everything that `find` gives, in pages.
fn all(index: &SearchIndex, field: u8, value: &str, page: usize) -> Vec<u64> {
    let (mut found, mut below) = (Vec::new(), u64::MAX);
    loop {
        let more = index.find(field, value.as_bytes(), below, page).unwrap();
        found.extend(&more);
        match more.last() {
            Some(last) if more.len() == page => below = *last,
            _ => return found,
        }
    }
}

fn assert_complete(index: &SearchIndex, size: u64) {
    let wanted: Vec<u64> = (0..size).rev().filter(|index| place(*index) == 4).collect();
    assert_eq!(all(index, PLACE, "place-4", 999), wanted);
    for number in [0, 1, 77, name(BATCH).min(name(size) - 1), name(size - 1) - 1] {
        let wanted: Vec<u64> = (number * 3..number * 3 + 3).rev().collect();
        assert_eq!(all(index, NAME, &format!("name-{number}"), 2), wanted);
    }
    // Another field, a part of a value and a value nobody has are found nowhere.
    for (field, value) in [(NAME, "place-1"), (PLACE, "place-"), (PLACE, "name-1"), (NAME, "name-x"), (9, "")]
    {
        assert!(all(index, field, value, 10).is_empty(), "{field} {value}");
    }
    for times in [time(0)..time(1), time(5_000)..time(5_300), 0..1, time(size - 1)..time(size - 1) + 1] {
        let mut covered = BTreeSet::new();
        let (mut below, mut ranges) = (u64::MAX, 0);
        while let Some(stretch) = index.stretches(times.clone(), below, 1).unwrap().pop() {
            assert!(stretch.end <= below && stretch.end - stretch.start <= 256);
            below = stretch.start;
            covered.extend(stretch);
            ranges += 1;
        }
        for each in (0..size).filter(|each| times.contains(&time(*each))) {
            assert!(covered.contains(&each), "{each} of {times:?}");
        }
        assert!(ranges <= 8, "{ranges} ranges for {times:?}: times do not narrow anything");
    }
}

fn stored_rows(path: &Path) -> Vec<[u8; 24]> {
    let database = redb::Database::open(path.join("search.redb")).unwrap();
    let table = database.begin_read().unwrap().open_table(TAGS).unwrap();
    table.iter().unwrap().map(|row| *row.unwrap().0.value()).collect()
}

fn index_of(row: &[u8; 24]) -> u64 {
    u64::from(u32::from_be_bytes(row[..4].try_into().unwrap())) << 20
        | u64::from(u32::from_be_bytes(row[20..].try_into().unwrap()))
}

#[test]
fn what_is_found_is_what_a_scan_finds_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("search.redb");
    let mut ledger = Ledger::create(store(dir.path()), ORIGIN, settings()).unwrap();
    let index = SearchIndex::new(ledger.reader(), describe());
    assert!(index.find(PLACE, b"place-0", u64::MAX, 10).unwrap().is_empty());
    // In step with the log, in memory alone at first.
    grow(&mut ledger, 700);
    assert_eq!(index.advance(300).unwrap().next, 300);
    catch_up(&index, 700);
    assert_complete(&index, 700);
    assert!(!file.exists(), "a small log needs no file");
    grow(&mut ledger, SIZE);
    catch_up(&index, SIZE);
    assert_complete(&index, SIZE);
    let stored = stored_rows_while_open(&index, &file);
    assert_eq!(stored, 2 * BATCH, "two batches are in the file, the rest is in memory");

    // A crash: memory is gone, the file stays.
    drop((index, ledger));
    let (mut ledger, index) = open(dir.path());
    let again = index.advance(1).unwrap();
    assert_eq!(again.next, 2 * BATCH + 1, "only what was in memory is read again");
    catch_up(&index, SIZE);
    assert_complete(&index, SIZE);
    assert_eq!(index.take_notice(), None);
    // An orderly stop writes full blocks; the log goes on.
    index.flush().unwrap();
    drop(index);
    grow(&mut ledger, SIZE + 500);
    drop(ledger);
    let (_ledger, index) = open(dir.path());
    assert_eq!(index.advance(1).unwrap().next, SIZE / 256 * 256 + 1);
    catch_up(&index, SIZE + 500);
    assert_complete(&index, SIZE + 500);
}

#[test]
fn a_lost_or_damaged_file_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("search.redb");
    let mut ledger = Ledger::create(store(dir.path()), ORIGIN, settings()).unwrap();
    grow(&mut ledger, 1_100);
    let index = SearchIndex::new(ledger.reader(), describe());
    catch_up(&index, 1_100);
    index.flush().unwrap();
    drop((index, ledger));
    let good = std::fs::read(&file).unwrap();
    let mut zeroed = good.clone();
    zeroed[4096..].fill(0);
    for (what, bytes) in [
        ("lost", None),
        ("empty", Some(Vec::new())),
        ("short", Some(good[..good.len() / 2].to_vec())),
        ("zeroed", Some(zeroed)),
        ("garbage", Some(vec![0x5a; 100_000])),
        ("of another log", Some(other_log())),
    ] {
        match &bytes {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let (ledger, index) = open(dir.path());
        catch_up(&index, 1_100);
        assert_complete(&index, 1_100);
        // A lost file is nothing to be told of: a young log has none either.
        assert_eq!(index.take_notice().is_some(), bytes.is_some(), "{what}");
        index.flush().unwrap();
        drop((index, ledger));
        assert!(run_fsck(&store(dir.path()), false).is_clean(), "{what}");
    }
}

/// How many entries are in the file of an index that is in use: a copy is looked at.
fn stored_rows_while_open(index: &SearchIndex, file: &Path) -> u64 {
    index.check().unwrap();
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(file, copy.path().join("search.redb")).unwrap();
    stored_rows(copy.path()).iter().map(index_of).max().unwrap() + 1
}

/// The index file of a log with other entries.
fn other_log() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(store(dir.path()), ORIGIN, settings()).unwrap();
    ledger.append((0..512).map(|at| entry(at + 9)).collect()).unwrap();
    let index = SearchIndex::new(ledger.reader(), describe());
    index.advance(u64::MAX).unwrap();
    index.flush().unwrap();
    drop((index, ledger));
    std::fs::read(dir.path().join("search.redb")).unwrap()
}

#[test]
fn a_changed_byte_is_noticed_or_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("search.redb");
    let mut ledger = Ledger::create(store(dir.path()), ORIGIN, settings()).unwrap();
    grow(&mut ledger, 1_024);
    drop(ledger);
    let (ledger, index) = open(dir.path());
    catch_up(&index, 1_024);
    index.flush().unwrap();
    drop((index, ledger));
    let good = std::fs::read(&file).unwrap();
    let rounds = if std::env::var_os("BULLA_SOAK").is_some() { 2_000 } else { 60 };
    let (mut noticed, mut random) = (0, 0x9e37_79b9_7f4a_7c15u64);
    for _ in 0..rounds {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let at = (random >> 16) as usize % good.len();
        let mut bad = good.clone();
        bad[at] ^= 1 << (random >> 60 & 7);
        std::fs::write(&file, &bad).unwrap();
        let (ledger, index) = open(dir.path());
        catch_up(&index, 1_024);
        let wanted: Vec<u64> = (0..1_024).rev().filter(|index| place(*index) == 2).collect();
        assert_eq!(all(&index, PLACE, "place-2", 100), wanted, "byte {at}");
        let wanted: Vec<u64> = (300..303).rev().collect();
        assert_eq!(all(&index, NAME, "name-100", 100), wanted, "byte {at}");
        noticed += usize::from(index.take_notice().is_some());
        drop((index, ledger));
    }
    assert!(noticed > 0, "of {rounds} changed bytes none was noticed");
}

#[test]
fn fsck_names_a_damaged_index_and_repair_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("search.redb");
    let mut ledger = Ledger::create(store(dir.path()), ORIGIN, settings()).unwrap();
    grow(&mut ledger, 512);
    let index = SearchIndex::new(ledger.reader(), describe());
    catch_up(&index, 512);
    index.flush().unwrap();
    drop((index, ledger));
    // One row less than there should be: the pages are whole, the sum is not.
    let database = redb::Database::open(&file).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(TAGS).unwrap().pop_first().unwrap();
    txn.commit().unwrap();
    drop(database);
    let report = run_fsck(&store(dir.path()), false);
    assert_eq!(report.problems_total, 1);
    assert!(report.problems[0].derived && report.problems[0].file == "search.redb", "{:?}", report.problems);
    assert!(file.exists(), "without repair nothing is touched");
    let report = run_fsck(&store(dir.path()), true);
    assert_eq!(report.rebuilt.search_indexes, 1);
    assert!(!file.exists());
    assert!(run_fsck(&store(dir.path()), false).is_clean());
}

#[test]
fn g5_erased_values_are_in_no_byte_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(store(dir.path()), ORIGIN, settings()).unwrap();
    grow(&mut ledger, 1_000);
    let index = SearchIndex::new(ledger.reader(), describe());
    catch_up(&index, 1_000);
    index.flush().unwrap();
    drop(index);
    let rows_before = stored_rows(dir.path());
    let index = SearchIndex::new(ledger.reader(), describe());
    catch_up(&index, 1_000);
    // Three in the file, one still in memory.
    let erased = BTreeSet::from([300, 301, 302, 999]);
    ledger.erase_openings(&erased.iter().copied().collect::<Vec<_>>()).unwrap();
    assert!(index.erase(&erased, &|| false).unwrap());
    assert!(index.erase(&erased, &|| false).unwrap());
    for (field, value, wanted) in
        [(NAME, "name-100", vec![]), (NAME, "name-333", vec![]), (NAME, "name-99", vec![299, 298, 297])]
    {
        assert_eq!(all(&index, field, value, 10), wanted, "{value}");
    }
    // What an entry says openly stays findable.
    assert_complete_places(&index);
    index.check().unwrap();
    index.flush().unwrap();
    drop((index, ledger));
    let bytes = std::fs::read(dir.path().join("search.redb")).unwrap();
    let rows_after: BTreeSet<_> = stored_rows(dir.path()).into_iter().collect();
    let gone: Vec<_> = rows_before.iter().filter(|row| !rows_after.contains(*row)).collect();
    assert_eq!(gone.len(), 3, "one row of a name per entry in the file");
    for row in gone {
        assert!(erased.contains(&index_of(row)));
        assert!(!bytes.windows(16).any(|window| window == &row[4..20]), "a tag is still in the file");
    }
    assert!(run_fsck(&store(dir.path()), false).is_clean());
    let (_ledger, index) = open(dir.path());
    catch_up(&index, 1_000);
    assert_eq!(index.take_notice(), None);
    assert!(all(&index, NAME, "name-100", 10).is_empty());
    assert_complete_places(&index);
}

/// While the file is written anew the log grows, is searched and indexed; a stop leaves the file as it was.
#[test]
fn g5_erasing_tags_holds_up_nobody_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(store(dir.path()), ORIGIN, settings()).unwrap();
    grow(&mut ledger, BATCH + 256);
    let index = SearchIndex::new(ledger.reader(), describe());
    catch_up(&index, BATCH + 256);
    index.flush().unwrap();
    let file = dir.path().join("search.redb");
    let before = std::fs::read(&file).unwrap();
    let erased = BTreeSet::from([300, 301, 302]);
    ledger.erase_openings(&[300, 301, 302]).unwrap();
    assert!(!index.erase(&erased, &|| true).unwrap(), "stopped");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert!(!dir.path().join("search.redb.new").exists());
    assert_eq!(all(&index, NAME, "name-100", 10), [302, 301, 300], "only a hint: their openings are gone");

    let (asked, asks) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new((wait, true));
    // Held in the middle until the log has grown past the next two batches of the index.
    let hold = || {
        let mut wait = wait.lock().unwrap();
        if std::mem::take(&mut wait.1) {
            asked.send(()).unwrap();
            wait.0.recv().unwrap();
        }
        false
    };
    let size = 3 * BATCH + 500;
    std::thread::scope(|scope| {
        let erasing = scope.spawn(|| {
            let hold: &dyn Fn() -> bool = &hold;
            index.erase(&erased, hold)
        });
        asks.recv().unwrap();
        grow(&mut ledger, size);
        catch_up(&index, size);
        assert_complete(&index, size);
        index.flush().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), before, "nobody else writes to the file");
        go_on.send(()).unwrap();
        assert!(erasing.join().unwrap().unwrap());
    });
    assert!(all(&index, NAME, "name-100", 10).is_empty());
    assert_complete(&index, size);
    // What came meanwhile goes to the new file.
    grow(&mut ledger, size + 300);
    catch_up(&index, size + 300);
    assert_eq!(stored_rows_while_open(&index, &file), 3 * BATCH);
    assert_eq!(index.take_notice(), None);
    drop((index, ledger));
    assert!(run_fsck(&store(dir.path()), false).is_clean());
    let (_ledger, index) = open(dir.path());
    catch_up(&index, size + 300);
    assert!(all(&index, NAME, "name-100", 10).is_empty());
    assert_eq!(index.take_notice(), None);
}

fn assert_complete_places(index: &SearchIndex) {
    let wanted: Vec<u64> = (0..1_000).rev().filter(|index| place(*index) == 0).collect();
    assert_eq!(all(index, PLACE, "place-0", 77), wanted);
}
