//! fsck as the judge: it finds what was changed, names the first entry concerned, and repairs only what follows.
//!
//! Method: a log with closed segments, a recovery in its middle, tiles, requests, openings and side objects is
//! built once; each test copies the disk and changes one thing in it, through redb or bit by bit.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::Frontier;
use bulla_ledger::{
    EntryJudge, FsckOptions, FsckReport, Judged, Ledger, NewEntry, OpenError, Problem, ReadError, Rebuilt,
    Store, fsck,
};
use common::crash_store::{CrashStore, Fault};
use common::{Acknowledged, NODES, judge_ledger, options, plain_entry, reopen, rich_entry, run_fsck};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::io;
use std::sync::OnceLock;

const ENTRIES: TableDefinition<u32, &[u8]> = TableDefinition::new("entries-2");
const TILES: TableDefinition<(u8, u64), &[u8; 256]> = TableDefinition::new("tiles-3");
/// What stands for the level of leaves in a key.
const LEAVES: u8 = 255;
/// Rows of a tile.
const ROWS: u64 = 32;
const DIGESTS: TableDefinition<&[u8; 17], ()> = TableDefinition::new("digests-2");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta-1");

const SEGMENT: u64 = 600;
/// seg 0: 0..600, closed by rollover; seg 600: clipped at 900 by a recovery; seg 900: closed at 1200; seg 1200.
const FILES: [&str; 4] = [
    "seg-0000000000000000.redb",
    "seg-0000000000000258.redb",
    "seg-0000000000000384.redb",
    "seg-00000000000004b0.redb",
];
const SIZE: u64 = 1300;

struct Fixture {
    store: CrashStore,
    acknowledged: Acknowledged,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        // The first life counts operations, so that the second can fail the last one of the append at 900: that
        // batch is done although it failed, and its rows stay in the file past the clip.
        let (last_operation, _) = build(None);
        build(Some(last_operation)).1
    })
}

/// Builds the log; returns the number of the last disk operation of the first append at 900.
fn build(failing: Option<u64>) -> (u64, Fixture) {
    let store = CrashStore::new();
    let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options(SEGMENT)).unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut last_operation = 0;
    for first in (0..SIZE).step_by(100) {
        let new = |index| if index % 5 == 0 { plain_entry(index) } else { rich_entry(index) };
        let batch: Vec<NewEntry> = (first..first + 100).map(new).collect();
        if let Some(operation) = failing.filter(|_| first == 900) {
            store.aim(operation, Fault::DoneButErrored);
            ledger.append(vec![rich_entry(5000), rich_entry(5001)]).unwrap_err();
            ledger.recover().unwrap();
        }
        if failing.is_none() && first == 900 {
            ledger.append(vec![rich_entry(5000), rich_entry(5001)]).unwrap();
            last_operation = store.operations() - 1;
            break;
        }
        acknowledged.append(&mut ledger, batch);
    }
    drop(ledger);
    (last_operation, Fixture { store, acknowledged })
}

/// redb on a file of the failing disk.
#[derive(Debug)]
struct Boxed(Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

fn edit(store: &CrashStore, file: &str, change: impl FnOnce(&redb::WriteTransaction)) {
    let db = Database::builder().create_with_backend(Boxed(store.open(file).unwrap())).unwrap();
    let txn = db.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

/// Changes the row of an entry: the entry, its digest 9 and its request 40 if there, and last which of them are.
fn edit_row(store: &CrashStore, index: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let (first, file) = segment_of(store, index);
    edit(store, &file, |txn| {
        let (mut table, offset) = (txn.open_table(ENTRIES).unwrap(), (index - first) as u32);
        let mut row = table.get(offset).unwrap().unwrap().value().to_vec();
        change(&mut row);
        table.insert(offset, row.as_slice()).unwrap();
    });
}

/// The row of an entry.
fn row_of(store: &CrashStore, index: u64) -> Vec<u8> {
    let mut found = Vec::new();
    edit_row(&store.copy(), index, |row| found = row.clone());
    found
}

fn flip_entry(store: &CrashStore, index: u64) {
    edit_row(store, index, |row| row[0] ^= 1);
}

fn file_of(store: &CrashStore, index: u64) -> String {
    segment_of(store, index).1
}

/// First index and name of the segment that has this entry.
fn segment_of(store: &CrashStore, index: u64) -> (u64, String) {
    let mut files: Vec<(u64, String)> = store
        .names()
        .into_iter()
        .filter_map(|name| Some((u64::from_str_radix(name.strip_prefix("seg-")?.get(..16)?, 16).ok()?, name)))
        .collect();
    files.sort();
    files.into_iter().rev().find(|(first, _)| *first <= index).unwrap()
}

/// Repair must not touch what is not derived: the same damage is there afterwards.
fn repair_changes_nothing(store: &CrashStore, report: &FsckReport) {
    assert!(report.problems.iter().any(|problem| !problem.derived), "{:?}", report.problems);
    let repaired = run_fsck(&store.shared(), true);
    assert_eq!(repaired.first_bad, report.first_bad);
    assert_eq!(run_fsck(&store.shared(), false).first_bad, report.first_bad);
}

#[test]
fn a_sound_log_is_clean_and_fsck_writes_nothing() {
    let Fixture { store, acknowledged } = fixture();
    let store = store.copy();
    let operations = store.operations();
    let report = run_fsck(&store.shared(), false);
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!((report.entries, report.first_bad.clone()), (acknowledged.size(), None));
    assert_eq!(report.root, reopen(&store.copy().shared(), &options(SEGMENT)).unwrap().root());
    assert_eq!(store.operations(), operations);
    let segments = store.names().into_iter().filter(|name| name.starts_with("seg-")).count();
    assert!(segments >= FILES.len(), "{:?}", store.names());
    judge_ledger(&reopen(&store.shared(), &options(SEGMENT)).unwrap(), acknowledged, &[]).unwrap();
}

#[test]
fn g2_a_changed_entry_is_named() {
    let Fixture { store, acknowledged } = fixture();
    for index in [0, 1, 255, 256, 300, 511, 700, 767, 950, 1100, 1199] {
        let store = store.copy();
        flip_entry(&store, index);
        let report = run_fsck(&store.shared(), false);
        assert_eq!(report.first_bad.as_ref().map(|bad| bad.0), Some(index), "{:?}", report.problems);
        repair_changes_nothing(&store, &report);
    }
    // Past the last full tile the request beside it tells, where there is one.
    let last = acknowledged.size() - 1;
    let tail = last & !0xff;
    for index in tail..=last {
        let store = store.copy();
        flip_entry(&store, index);
        let report = run_fsck(&store.shared(), false);
        let rich = acknowledged.batch[index as usize].request.is_some();
        let named = report.first_bad.as_ref().unwrap().0;
        let stretch = tail.max(1200);
        assert!(if rich { named == index || named == stretch } else { named == stretch }, "{index}: {named}");
        if rich {
            assert!(report.problems.iter().any(|problem| problem.index == index), "{:?}", report.problems);
        }
    }
}

#[test]
fn g2_a_changed_entry_keeps_the_log_from_starting() {
    let Fixture { store, acknowledged } = fixture();
    let store = store.copy();
    flip_entry(&store, acknowledged.size() - 1);
    let refused = Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).unwrap_err();
    assert!(matches!(refused, OpenError::Read(ReadError::Damaged(_))), "{refused}");
}

#[test]
fn g2_a_removed_entry_is_named() {
    let Fixture { store, .. } = fixture();
    for index in [0, 599, 600, 1000, 1250] {
        let store = store.copy();
        let (first, file) = segment_of(&store, index);
        edit(&store, &file, |txn| {
            txn.open_table(ENTRIES).unwrap().remove((index - first) as u32).unwrap();
        });
        let report = run_fsck(&store.shared(), false);
        assert_eq!(report.first_bad.as_ref().map(|bad| bad.0), Some(index), "{:?}", report.problems);
        repair_changes_nothing(&store, &report);
    }
}

#[test]
fn a_damaged_tile_is_rebuilt_and_never_keeps_the_log_from_starting() {
    let Fixture { store, acknowledged } = fixture();
    for (tile, damage) in [(0u64, 0usize), (1, 1), (2, 2), (3, 0), (4, 1)] {
        let store = store.copy();
        edit(&store, &file_of(&store, tile * 256 + 255), |txn| {
            let mut tiles = txn.open_table(TILES).unwrap();
            let row = (LEAVES, tile * ROWS + 7);
            let mut bytes = *tiles.get(row).unwrap().unwrap().value();
            match damage {
                0 => {
                    bytes[100] ^= 1;
                    tiles.insert(row, &bytes).unwrap();
                }
                1 => drop(tiles.remove(row).unwrap()),
                _ => {
                    tiles.retain_in((LEAVES, tile * ROWS)..(LEAVES, (tile + 1) * ROWS), |_, _| false).unwrap()
                }
            }
        });
        let report = run_fsck(&store.shared(), false);
        assert_eq!(report.first_bad.as_ref().map(|bad| bad.0), Some(tile * 256), "{:?}", report.problems);
        assert!(report.problems.iter().all(|problem| problem.derived), "{:?}", report.problems);
        // Entries stay readable, sealing goes on, and no wrong proof is handed out.
        let other = store.copy();
        let mut ledger = reopen(&other.shared(), &options(SEGMENT)).unwrap();
        ledger.append(vec![plain_entry(1)]).unwrap();
        assert_eq!(ledger.reader().entries(0..ledger.size()).filter_map(Result::ok).count() as u64, SIZE + 1);
        let snapshot = ledger.reader().snapshot();
        if let Ok(proof) = snapshot.inclusion_proof(tile * 256 + 3) {
            let leaf = leaf_hash(&acknowledged.batch[tile as usize * 256 + 3].entry);
            let root = snapshot.root();
            bulla_formats::merkle::verify_inclusion(tile * 256 + 3, SIZE + 1, &leaf, &proof, &root).unwrap();
        }
        let repaired = run_fsck(&store.shared(), true);
        assert_eq!(repaired.rebuilt.tiles, 1);
        assert!(run_fsck(&store.shared(), false).is_clean());
        judge_ledger(&reopen(&store.shared(), &options(SEGMENT)).unwrap(), acknowledged, &[]).unwrap();
    }
}

#[test]
fn a_tile_that_does_not_exist_is_named_by_its_number_and_removed() {
    let store = fixture().store.copy();
    for (key, name) in [((LEAVES, 9 * ROWS + 3), "tile 9 of level 0"), ((LEAVES - 1, 0), "tile 0 of level 1")]
    {
        edit(&store, FILES[3], |txn| drop(txn.open_table(TILES).unwrap().insert(key, &[7; 256]).unwrap()));
        let report = run_fsck(&store.shared(), true);
        let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
        assert!(problem.derived && problem.what.contains(name), "{problem}");
        assert!(run_fsck(&store.shared(), false).is_clean());
    }
}

#[test]
fn g3_a_request_of_another_entry_is_named() {
    let Fixture { store, .. } = fixture();
    for index in [1, 601, 1251] {
        let store = store.copy();
        let other = row_of(&store, index + 1);
        edit_row(&store, index, |row| {
            let (to, from) = (row.len() - 41, other.len() - 41);
            row[to..].copy_from_slice(&other[from..]);
        });
        let report = run_fsck(&store.shared(), false);
        assert_eq!(report.first_bad.as_ref().map(|bad| bad.0), Some(index), "{:?}", report.problems);
        repair_changes_nothing(&store, &report);
    }
    let store = store.copy();
    let (first, file) = segment_of(&store, SIZE - 1);
    edit(&store, &file, |txn| {
        let row = [7, 0xf0].as_slice();
        txn.open_table(ENTRIES).unwrap().insert((SIZE - first) as u32, row).unwrap();
    });
    assert_eq!(run_fsck(&store.shared(), false).first_bad.unwrap().0, SIZE);
    Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).map(drop).unwrap_err();
}

/// What stands beside an entry is damaged, and it alone: the entry reads, is proven, and the log starts and goes on.
#[test]
fn g6_damage_beside_an_entry_costs_neither_the_entry_nor_the_start() {
    let Fixture { store, acknowledged } = fixture();
    let rich = |index: u64| &acknowledged.batch[index as usize];
    // From the end of the row: the last byte, the request's binding, fingerprint and key, the digest.
    for (at, words) in [(1, "told from"), (3, "request"), (20, "request"), (40, "request"), (45, "digest")] {
        for index in [1, 301, 601, 1001] {
            let store = store.copy();
            edit_row(&store, index, |row| {
                let at = row.len() - at;
                row[at] ^= 0x10;
            });
            let report = fsck_with_digests(&store, false);
            let named: Vec<_> = report.problems.iter().map(|problem| (problem.index, problem.last)).collect();
            assert_eq!(named, [(index, Some(index))], "{at}: {:?}", report.problems);
            assert!(report.problems[0].what.contains(words), "{at}: {:?}", report.problems);
            let (mut ledger, opened) =
                Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).unwrap();
            // Of the digest a start does not know better.
            let noted = opened.notes.iter().any(|note| note.contains(&format!("1 entries from {index} on")));
            assert_eq!(noted, words != "digest", "{at}: {:?}", opened.notes);
            ledger.append(vec![plain_entry(1)]).unwrap();
            let (reader, snapshot) = (ledger.reader(), ledger.reader().snapshot());
            let leaf = leaf_hash(&rich(index).entry);
            let proof = snapshot.inclusion_proof(index).unwrap();
            bulla_formats::merkle::verify_inclusion(index, SIZE + 1, &leaf, &proof, &snapshot.root())
                .unwrap();
            if words == "told from" {
                reader.entry(index).unwrap_err();
            } else {
                assert_eq!(reader.entry(index).unwrap(), rich(index).entry);
            }
            // Its key counts no more where it was the damage; all others do.
            for each in [index, index + 1] {
                let request = rich(each).request.unwrap();
                let found = reader.find_request(&request.key).unwrap();
                let lost = each == index && words != "digest";
                assert_eq!(found, (!lost).then_some((each, request.fingerprint)), "{at}");
            }
        }
    }
}

/// A page of entries in a closed segment is nonsense: they are named, and the box starts and seals.
#[test]
fn g10_a_rotten_page_of_a_closed_segment_does_not_keep_the_log_from_starting() {
    let Fixture { store, acknowledged } = fixture();
    // Leaves that hold entry 99 and its neighbours: one is in use, others may be what it was before.
    let holds = |page: &[u8], index: usize| {
        let words = &acknowledged.batch[index].entry;
        page.windows(words.len()).any(|window| window == words)
    };
    let bytes = common::bytes_of(&store.copy().shared(), FILES[0]);
    let is_leaf = |page: &&[u8]| page[0] == 1 && (98..=100).all(|index| holds(page, index));
    let pages: Vec<_> = (0..).zip(bytes.chunks(4096)).filter(|(_, page)| is_leaf(page)).collect();
    let mut hit = 0;
    for (number, _) in pages {
        let store = store.copy();
        // All but its kind and count, which redb looks at when it opens a file in a debug build.
        for byte in number * 4096 + 4..(number + 1) * 4096 {
            [0, 3, 6].iter().for_each(|bit| store.flip(FILES[0], byte, *bit));
        }
        let (mut ledger, opened) = Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).unwrap();
        ledger.append(vec![plain_entry(1)]).unwrap();
        let lost: Vec<_> = (0..SIZE).filter(|index| ledger.reader().entry(*index).is_err()).collect();
        drop(ledger);
        if lost.is_empty() {
            continue;
        }
        hit += 1;
        let note = format!("{} entries from {} on are damaged", lost.len(), lost[0]);
        assert!(opened.notes.iter().any(|said| said.contains(&note)), "{note}: {:?}", opened.notes);
        assert!(lost.contains(&99) && lost.len() < 40, "{lost:?}");
        let report = run_fsck(&store.shared(), false);
        let ranges = report.problems.iter().filter(|problem| problem.what.contains("page is damaged"));
        let named: Vec<_> = ranges.flat_map(|problem| problem.index..=problem.last.unwrap()).collect();
        assert_eq!(named, lost, "{:?}", report.problems);
    }
    assert_eq!(hit, 1);
}

/// A segment of another version: both versions are said, and nothing is written to it.
#[test]
fn a_segment_of_another_version_is_refused_by_its_name() {
    for version in [1u16, 2, 4] {
        let store = fixture().store.copy();
        edit(&store, FILES[3], |txn| {
            let mut meta = txn.open_table(META).unwrap();
            let mut header = meta.get("header").unwrap().unwrap().value().to_vec();
            header[..2].copy_from_slice(&version.to_be_bytes());
            meta.insert("header", header.as_slice()).unwrap();
        });
        let names = |text: &str| text.contains(&format!("version {version}")) && text.contains("none but 3");
        let refused = Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).unwrap_err().to_string();
        assert!(names(&refused) && refused.contains(FILES[3]), "{refused}");
        let report = run_fsck(&store.shared(), true);
        let said = |problem: &Problem| problem.file == FILES[3] && names(&problem.what);
        assert!(report.problems.iter().any(said), "{:?}", report.problems);
        assert_eq!(report.rebuilt, Rebuilt::default());
    }
}

/// Knows the entries of these tests: their digest follows from their number.
struct KnowsDigests<'a>(&'a [NewEntry]);

impl EntryJudge for KnowsDigests<'_> {
    fn judge(&mut self, index: u64, _: &[u8], before: &Frontier) -> Result<Judged, String> {
        assert_eq!(before.size(), index);
        Ok(Judged::Digest(self.0[index as usize].digest.clone()))
    }
}

fn fsck_with_digests(store: &CrashStore, repair: bool) -> FsckReport {
    let mut judge = KnowsDigests(&fixture().acknowledged.batch);
    let options = FsckOptions { repair, ..FsckOptions::default() };
    fsck(&store.shared(), common::ORIGIN, options, &mut judge, &mut |_, _| {}).unwrap()
}

#[test]
fn a_damaged_digest_index_is_named_and_rebuilt() {
    let Fixture { store, acknowledged } = fixture();
    let sorted = |index: u64| {
        let (algorithm, digest) = acknowledged.batch[index as usize].digest.clone().unwrap();
        let mut row = [algorithm; 17];
        row[1..9].copy_from_slice(&digest[..8]);
        row[9..].copy_from_slice(&index.to_be_bytes());
        row
    };
    assert!(fsck_with_digests(store, false).is_clean());
    type Change = Box<dyn Fn(&CrashStore, u64)>;
    let other = |store: &CrashStore, index| {
        edit_row(store, index, |row| {
            let at = row.len() - 50;
            row[at..at + 9].copy_from_slice(&[9; 9]);
        });
    };
    let changes: [(u64, Change); 4] = [
        (
            11,
            Box::new(move |store, _| {
                edit(store, FILES[0], |txn| {
                    assert!(txn.open_table(DIGESTS).unwrap().remove(&sorted(11)).unwrap().is_some());
                });
            }),
        ),
        (13, Box::new(other)),
        (
            1252,
            Box::new(|store, index| {
                edit_row(store, index, |row| {
                    let at = row.len() - 50;
                    drop(row.drain(at..at + 9));
                    *row.last_mut().unwrap() = 0xd2;
                });
            }),
        ),
        (
            1255,
            // A plain entry: it gets a digest that it does not have.
            Box::new(|store, index| {
                edit_row(store, index, |row| {
                    row.pop();
                    row.extend([9; 9]);
                    row.push(0xe1);
                });
            }),
        ),
    ];
    for (index, change) in changes {
        let store = store.copy();
        change(&store, index);
        let report = fsck_with_digests(&store, false);
        // A missing sorted row shows at the row that is met in its place.
        assert!(
            !report.is_clean() && report.problems.iter().all(|problem| problem.derived),
            "{:?}",
            report.problems
        );
        assert!(
            index == 11 || report.first_bad.as_ref().map(|bad| bad.0) == Some(index),
            "{:?}",
            report.problems
        );
        assert!(fsck_with_digests(&store, true).rebuilt.digests > 0);
        assert!(fsck_with_digests(&store, false).is_clean());
        assert_eq!(row_of(&store, index), row_of(&fixture().store, index), "as it was before the damage");
        judge_ledger(&reopen(&store.shared(), &options(SEGMENT)).unwrap(), acknowledged, &[]).unwrap();
    }
}

#[test]
fn g2_a_changed_header_or_head_is_named() {
    let Fixture { store, .. } = fixture();
    for (file, row, at) in [
        (FILES[0], "head", 20),
        (FILES[3], "head", 20),
        (FILES[3], "header", 40),
        (FILES[2], "header", 30),
        (FILES[1], "header", 0),
    ] {
        let store = store.copy();
        edit(&store, file, |txn| {
            let mut meta = txn.open_table(META).unwrap();
            let mut bytes = meta.get(row).unwrap().unwrap().value().to_vec();
            bytes[at] ^= 1;
            meta.insert(row, bytes.as_slice()).unwrap();
        });
        let report = run_fsck(&store.shared(), false);
        assert!(
            report.problems.iter().any(|problem| !problem.derived && problem.file == file),
            "{:?}",
            report.problems
        );
        let refused = Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).map(drop);
        refused.expect_err("a start does not believe it either");
    }
}

#[test]
fn a_missing_segment_and_another_origin_are_refused() {
    let Fixture { store, .. } = fixture();
    for file in FILES {
        let store = store.copy();
        Store::remove(&store, file).unwrap();
        let clean = run_fsck(&store.shared(), false).is_clean();
        let opens = Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).is_ok();
        // Without the last file the log is a shorter one; only the counter and the peers can know better (G2).
        assert_eq!((clean, opens), (file == FILES[3], file == FILES[3]), "{file}");
    }
    let refused = Ledger::open(store.copy().shared(), "fleet.example/other/0", options(SEGMENT)).unwrap_err();
    assert!(matches!(refused, OpenError::Read(ReadError::Damaged(_))), "{refused}");
    let refused = Ledger::create(store.copy().shared(), common::ORIGIN, options(SEGMENT)).unwrap_err();
    assert!(matches!(refused, OpenError::Exists(_)), "{refused}");
    let refused = Ledger::open(CrashStore::new().shared(), common::ORIGIN, options(SEGMENT)).unwrap_err();
    assert!(matches!(refused, OpenError::Missing), "{refused}");
}

#[test]
fn damaged_openings_and_side_objects_are_named() {
    const OPENINGS: TableDefinition<u64, &[u8]> = TableDefinition::new("openings-2");
    const OBJECTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("objects-1");
    let copy = fixture().store.copy();
    edit(&copy, "openings.redb", |txn| {
        let mut openings = txn.open_table(OPENINGS).unwrap();
        // Another entry's openings under this index do not pass either.
        let other = openings.get(8).unwrap().unwrap().value().to_vec();
        openings.insert(7, other.as_slice()).unwrap();
    });
    let report = run_fsck(&copy.shared(), false);
    assert_eq!((report.problems_total, report.first_bad.unwrap().0), (1, 7));
    let copy = fixture().store.copy();
    edit(&copy, "side.redb", |txn| {
        let mut objects = txn.open_table(OBJECTS).unwrap();
        let name = *objects.first().unwrap().unwrap().0.value();
        objects.insert(&name, b"something else".as_slice()).unwrap();
    });
    let report = run_fsck(&copy.shared(), false);
    assert_eq!((report.problems_total, report.problems[0].file.as_str()), (1, "side.redb"));
}

/// A damaged secret is named with all entries that it covers; what is sealed from then on has openings again.
#[test]
fn a_damaged_secret_is_named_and_costs_no_later_opening() {
    let Fixture { store, .. } = fixture();
    for bit in [0, 255, 256, 319] {
        let copy = store.copy();
        edit(&copy, "opening-keys.redb", |txn| {
            let mut nodes = txn.open_table(NODES).unwrap();
            let mut row = *nodes.get((0, 0, 0)).unwrap().unwrap().value();
            row[bit / 8] ^= 1 << (bit % 8);
            nodes.insert((0, 0, 0), &row).unwrap();
        });
        let report = run_fsck(&copy.shared(), false);
        assert_eq!(report.problems_total, 1, "{:?}", report.problems);
        let problem = &report.problems[0];
        assert_eq!((problem.file.as_str(), problem.derived), ("opening-keys.redb", false));
        assert_eq!((problem.index, problem.last), (0, Some(SIZE - 1)));
        let mut ledger = reopen(&copy.shared(), &options(SEGMENT)).unwrap();
        for index in [1, 8, 1299] {
            let refused = ledger.reader().openings(index).unwrap_err();
            assert!(refused.to_string().contains("opening-keys.redb"), "{refused}");
        }
        for number in 0..3 {
            ledger.append(vec![rich_entry(SIZE + number), rich_entry(9_000 + number)]).unwrap();
        }
        let openings = |index| ledger.reader().openings(index).unwrap().map(|it| it.to_vec());
        assert_eq!(openings(SIZE), rich_entry(SIZE).openings);
        assert_eq!(openings(SIZE + 5), rich_entry(9_002).openings);
        assert_eq!(run_fsck(&copy.shared(), false).problems_total, 1);
        // Nobody knows what the damaged row leads to: an erasure leaves none of it.
        ledger.erase_openings(&[SIZE + 1]).unwrap();
        assert_eq!((openings(SIZE + 1), openings(SIZE)), (None, rich_entry(SIZE).openings));
        // Lost is not erased.
        let lost = ledger.reader().openings(8).unwrap_err();
        assert!(lost.to_string().contains("no key"), "{lost}");
        let report = run_fsck(&copy.shared(), false);
        let (first, what) = report.first_bad.unwrap();
        assert!(first == 1 && what.contains("the openings have no key"), "{what}");
    }
}

#[test]
fn secrets_that_should_not_be_there_are_named_and_lost_ones_are_missed() {
    let Fixture { store, .. } = fixture();
    let root = |txn: &redb::WriteTransaction| {
        let nodes = txn.open_table(NODES).unwrap();
        *nodes.get((0, 0, 0)).unwrap().unwrap().value()
    };
    type Change = Box<dyn Fn(&redb::WriteTransaction)>;
    let moved = |to: (u64, u8, u32)| -> Change {
        Box::new(move |txn| {
            let row = root(txn);
            txn.open_table(NODES).unwrap().insert(to, &row).unwrap();
        })
    };
    // A row at another place, at places that no tree has, and a key that is gone.
    let changes = [
        (moved((0, 3, 2)), "opening-keys.redb", "has changed"),
        (moved((4, 0, 0)), "opening-keys.redb", "has changed"),
        (moved((0, 17, 1)), "opening-keys.redb", "has changed"),
        (moved((0, 2, 9)), "opening-keys.redb", "has changed"),
        (moved((u64::MAX, 255, u32::MAX)), "opening-keys.redb", "has changed"),
        (
            Box::new(|txn: &redb::WriteTransaction| {
                drop(txn.open_table(NODES).unwrap().remove((0, 0, 0)).unwrap());
            }) as Change,
            "openings.redb",
            "no key",
        ),
    ];
    for (change, file, words) in changes {
        let copy = store.copy();
        edit(&copy, "opening-keys.redb", change);
        let report = run_fsck(&copy.shared(), false);
        let problem = report.problems.first().unwrap_or_else(|| panic!("{words}"));
        assert!(problem.file == file && problem.what.contains(words), "{problem}");
        assert!(file != "opening-keys.redb" || report.problems_total == 1, "{:?}", report.problems);
        let mut ledger = reopen(&copy.shared(), &options(SEGMENT)).unwrap();
        ledger.append(vec![rich_entry(SIZE)]).unwrap();
        assert_eq!(
            ledger.reader().openings(SIZE).unwrap().as_deref(),
            rich_entry(SIZE).openings.as_ref(),
            "{problem}"
        );
    }
    // A secret below another one: what was erased could be derived again.
    let copy = store.copy();
    let ledger = reopen(&copy.shared(), &options(SEGMENT)).unwrap();
    let mut above = None;
    edit(&copy.copy(), "opening-keys.redb", |txn| above = Some(root(txn)));
    ledger.erase_openings(&[8]).unwrap();
    drop(ledger);
    assert!(run_fsck(&copy.shared(), false).is_clean());
    edit(&copy, "opening-keys.redb", |txn| {
        txn.open_table(NODES).unwrap().insert((0, 0, 0), &above.unwrap()).unwrap();
    });
    let report = run_fsck(&copy.shared(), false);
    assert_eq!(report.problems_total, 16, "{:?}", report.problems);
    assert!(report.problems.iter().all(|problem| problem.what.contains("lies under")));
    // The whole file gone: every opening is missed, sealing goes on.
    let copy = store.copy();
    Store::remove(&copy, "opening-keys.redb").unwrap();
    assert!(run_fsck(&copy.shared(), false).problems_total > 1_000);
    let mut ledger = reopen(&copy.shared(), &options(SEGMENT)).unwrap();
    assert!(ledger.reader().openings(8).unwrap_err().to_string().contains("no key"));
    ledger.append(vec![rich_entry(SIZE)]).unwrap();
    assert!(ledger.reader().openings(8).unwrap_err().to_string().contains("do not decrypt"));
    assert_eq!(ledger.reader().openings(SIZE).unwrap().as_deref(), rich_entry(SIZE).openings.as_ref());
}

/// A log that has become shorter than it was when its last entries were erased gives those indexes again.
#[test]
fn an_index_whose_key_was_destroyed_can_be_given_again() {
    let store = fixture().store.copy();
    let ledger = reopen(&store.shared(), &options(SEGMENT)).unwrap();
    ledger.erase_openings(&[1250, 1251, 8]).unwrap();
    drop(ledger);
    Store::remove(&store, FILES[3]).unwrap();
    let mut ledger = reopen(&store.shared(), &options(SEGMENT)).unwrap();
    assert_eq!(ledger.size(), 1200);
    ledger.append((1200..1260).map(rich_entry).collect()).unwrap();
    for index in 1200..1260 {
        assert_eq!(ledger.reader().openings(index).unwrap().as_deref(), rich_entry(index).openings.as_ref());
    }
    assert_eq!(ledger.reader().openings(8).unwrap(), None);
    drop(ledger);
    assert!(run_fsck(&store.shared(), false).is_clean());
}

#[test]
fn openings_of_another_layout_are_refused_with_a_sentence() {
    for (file, name) in [("openings.redb", "keys-1"), ("opening-keys.redb", "nodes-2")] {
        let other: TableDefinition<u64, &[u8; 32]> = TableDefinition::new(name);
        let store = fixture().store.copy();
        edit(&store, file, |txn| drop(txn.open_table(other).unwrap().insert(7, &[1; 32]).unwrap()));
        let refused = Ledger::open(store.shared(), common::ORIGIN, options(SEGMENT)).unwrap_err();
        assert!(
            matches!(&refused, OpenError::Layout { table, file: of } if table == name && *of == file),
            "{refused}"
        );
        assert!(refused.to_string().contains("start the version that wrote it"), "{refused}");
        let report = run_fsck(&store.shared(), false);
        assert!(report.problems[0].file == file && report.problems[0].what.contains(name), "{name}");
    }
}

/// The first entry of each batch states the tree before it, as real entries do; here every entry does.
struct ChainJudge(Option<Hash>);

impl EntryJudge for ChainJudge {
    fn judge(&mut self, index: u64, entry: &[u8], before: &Frontier) -> Result<Judged, String> {
        self.0 = Some(before.root());
        if entry == before.root().0 {
            Ok(Judged::Opaque)
        } else {
            Err(format!("entry {index} states another tree"))
        }
    }
}

#[test]
fn the_judge_sees_the_tree_before_each_entry_and_its_finding_is_reported() {
    let store = CrashStore::new();
    let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options(3)).unwrap();
    for index in 0..8 {
        let entry = if index == 6 { vec![0; 32] } else { ledger.root().0.to_vec() };
        ledger.append(vec![NewEntry { entry, ..NewEntry::default() }]).unwrap();
    }
    drop(ledger);
    let mut judge = ChainJudge(None);
    let mut calls = Vec::new();
    let report =
        fsck(&store.shared(), common::ORIGIN, FsckOptions::default(), &mut judge, &mut |done, total| {
            calls.push((done, total))
        })
        .unwrap();
    assert_eq!(report.first_bad, Some((6, "entry 6 states another tree".to_owned())));
    assert_eq!(report.problems_total, 1);
    assert_eq!(calls.last(), Some(&(8, 8)));
}

#[test]
fn random_bit_flips_on_the_disk_are_reported_or_harmless() {
    let Fixture { store, acknowledged } = fixture();
    let (mut seed, mut found) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    for _ in 0..60 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let copy = store.copy();
        let file = FILES[(seed >> 60) as usize % FILES.len()];
        copy.flip(file, (seed >> 16) % copy.file_len(file), (seed & 7) as u8);
        if run_fsck(&copy.shared(), false).is_clean() {
            // The bit was in a page that nobody refers to: then everything must still be there.
            judge_ledger(&reopen(&copy.shared(), &options(SEGMENT)).unwrap(), acknowledged, &[]).unwrap();
        } else {
            found += 1;
        }
    }
    assert!(found > 2, "only {found} flips hit a page in use");
}

#[test]
fn the_fixture_has_the_shape_that_the_tests_speak_of() {
    let store = fixture().store.copy();
    let db = Database::builder().create_with_backend(Boxed(store.open(FILES[1]).unwrap())).unwrap();
    let past_clip = db.begin_read().unwrap().open_table(ENTRIES).unwrap().range(300..).unwrap().count();
    assert_eq!(past_clip, 2);
    assert_eq!(fixture().acknowledged.size(), SIZE);
    FILES
        .iter()
        .for_each(|file| assert!(store.names().iter().any(|name| name == file), "{:?}", store.names()));
}
