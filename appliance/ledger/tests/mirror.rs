//! What a mirror takes, what it refuses, and that it is the same log as the one it mirrors (G9).
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::{Hash, sha256};
use bulla_ledger::{
    AppendError, CheckedMirror, DirShelf, DirStore, FsckOptions, Kept, Ledger, Mirror, MirrorError, Mirrors,
    NewEntry, Options, Pace, References, Shelf, Store, Tree, TreeOnly, check_mirrors, mirror_directory,
};
use common::crash_shelf::CrashShelf;
use common::crash_store::Spared;
use common::neighbour::{NEIGHBOUR, Named, Neighbour, mirror_options, names, object, origin};
use proptest::prelude::*;
use redb::ReadableTable as _;
use std::path::Path;
use std::sync::Arc;

const BIG: u64 = 1 << 20;

fn begin() -> (CrashShelf, Mirrors, Mirror) {
    let shelf = CrashShelf::default();
    let mirrors = Mirrors::open(shelf.shared(), mirror_options(BIG)).unwrap();
    let mirror = mirrors.create(NEIGHBOUR).unwrap();
    (shelf, mirrors, mirror)
}

fn checked(shelf: &Arc<dyn Shelf>, repair: bool) -> Vec<CheckedMirror> {
    let references: Arc<dyn References> = Arc::new(Named(1));
    let options = FsckOptions { repair, ..FsckOptions::default() };
    check_mirrors(shelf, &references, options, &mut |_| Box::new(TreeOnly), &mut |_, _, _| {}).unwrap()
}

fn problems(shelf: &Arc<dyn Shelf>) -> Vec<String> {
    checked(shelf, false).iter().flat_map(|it| it.report.problems.iter().map(ToString::to_string)).collect()
}

fn dir_shelf(path: &Path) -> Arc<dyn Shelf> {
    Arc::new(DirShelf::open(&path.join("mirrors")).unwrap())
}

/// Changes rows of `mirror.redb` behind everybody's back.
fn tamper(path: &Path, change: impl Fn(&mut redb::Table<'_, &'static str, &'static [u8]>)) {
    let file = path.join("mirrors").join(mirror_directory(NEIGHBOUR)).join("mirror.redb");
    let db = redb::Database::open(file).unwrap();
    let txn = db.begin_write().unwrap();
    change(&mut txn.open_table(redb::TableDefinition::new("state-1")).unwrap());
    txn.commit().unwrap();
}

#[test]
fn g9_a_mirror_is_the_log_that_it_mirrors() {
    let log = Neighbour::new(1_000);
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = Options { segment_entries: 300, reserve_bytes: 0, ..Options::default() };
    let store: Arc<dyn Store> = Arc::new(DirStore::open(home.path()).unwrap());
    let mut own = Ledger::create(store, NEIGHBOUR, options).unwrap();
    let shelf = dir_shelf(away.path());
    let mirrors = Mirrors::open(Arc::clone(&shelf), mirror_options(300)).unwrap();
    let mirror = mirrors.create(NEIGHBOUR).unwrap();
    for first in (0..1_000).step_by(125) {
        let range = first..first + 125;
        let new = |entry: &Vec<u8>| NewEntry {
            entry: entry.clone(),
            side: names(entry).iter().map(|name| log.objects[&name.0].clone()).collect(),
            ..NewEntry::default()
        };
        own.append(log.range(range.clone()).iter().map(new).collect()).unwrap();
        // What the origin answers is what the mirror takes.
        let entries = own.reader().range(first, 125, usize::MAX).unwrap();
        let tree = Tree { size: own.size(), root: own.root() };
        let stored = mirror.store_range(first, entries, log.objects_of(range), tree).unwrap();
        assert_eq!(stored, tree);
        assert!(mirror.holds(tree.size).unwrap());
    }
    let (ours, theirs) = (own.reader(), mirror.reader().unwrap());
    assert_eq!((theirs.origin(), theirs.size(), theirs.root()), (NEIGHBOUR, ours.size(), ours.root()));
    for index in 0..4 {
        let width = if index < 3 { 256 } else { 1_000 - 768 };
        assert_eq!(theirs.tile(0, index, width).unwrap(), ours.tile(0, index, width).unwrap());
        assert_eq!(theirs.entry_bundle(index, width).unwrap(), ours.entry_bundle(index, width).unwrap());
    }
    assert_eq!(theirs.tile(1, 0, 3).unwrap(), ours.tile(1, 0, 3).unwrap());
    for (at, index) in (1..1_000).step_by(37).zip((0..999).step_by(37)) {
        assert_eq!(
            theirs.inclusion_proof(index, 1_000).unwrap(),
            ours.inclusion_proof(index, 1_000).unwrap()
        );
        assert_eq!(theirs.consistency_proof(at, 1_000).unwrap(), ours.consistency_proof(at, 1_000).unwrap());
    }
    for name in log.objects.keys().filter(|name| ours.side(&Hash(**name)).unwrap().is_some()) {
        assert_eq!(theirs.side(&Hash(*name)).unwrap(), ours.side(&Hash(*name)).unwrap());
    }
    // Ranges end early at their bound in bytes, but never without an entry.
    let first = ours.range(10, 5, 1).unwrap();
    assert_eq!(first, log.range(10..11));
    let bytes = log.entries[10..13].iter().map(Vec::len).sum();
    assert_eq!(ours.range(10, 5, bytes).unwrap(), log.range(10..13));
    assert!(ours.range(1_000, 5, 1).is_err());

    // Brought back: a log directory that starts, with everything but what never left its branch.
    let back = tempfile::tempdir().unwrap();
    let to: Arc<dyn Store> = Arc::new(DirStore::open(back.path()).unwrap());
    let exported = mirror.export(to.as_ref()).unwrap();
    assert_eq!((exported.size, exported.root), (1_000, own.root()));
    assert!(exported.closed.is_empty() && exported.copied.len() == 4, "{exported:?}");
    assert!(!to.list().unwrap().iter().any(|name| name.contains("mirror")));
    let options = Options { segment_entries: 300, reserve_bytes: 0, ..Options::default() };
    let report =
        bulla_ledger::fsck(&to, NEIGHBOUR, FsckOptions::default(), &mut TreeOnly, &mut |_, _| {}).unwrap();
    assert!(report.is_clean() && report.root == own.root(), "{:?}", report.problems);
    let (mut restored, _) = Ledger::open(to, NEIGHBOUR, options).unwrap();
    assert_eq!(restored.reader().side(&sha256(&[&object(0)])).unwrap(), Some(object(0)));
    restored.append(vec![NewEntry { entry: b"it goes on".to_vec(), ..NewEntry::default() }]).unwrap();

    drop((mirrors, mirror, theirs));
    assert_eq!(problems(&shelf), [""; 0]);
}

#[test]
fn g9_what_does_not_lead_to_the_proven_tree_is_refused_and_leaves_no_trace() {
    let log = Neighbour::new(40);
    let (shelf, _mirrors, mirror) = begin();
    mirror.store_range(0, log.range(0..10), log.objects_of(0..10), log.tree(10)).unwrap();
    let before = (shelf.switch.operations(), mirror.standing());
    let refused = |first, entries: Vec<Vec<u8>>, objects, to| {
        let refused = mirror.store_range(first, entries, objects, to).unwrap_err();
        assert_eq!((shelf.switch.operations(), mirror.standing()), before, "{refused}");
        refused
    };
    let (good, objects) = (|| log.range(10..20), || log.objects_of(10..20));
    // Another entry, another order, one byte changed, one too few, one too many.
    for at in 0..10 {
        let mut changed = good();
        changed[at].push(0);
        let error = refused(10, changed, Vec::new(), log.tree(20));
        assert!(matches!(error, MirrorError::Append(AppendError::OtherTree { size: 20, .. })), "{error}");
        let mut swapped = good();
        swapped.swap(at, (at + 1) % 10);
        let error = refused(10, swapped, objects(), log.tree(20));
        assert!(matches!(error, MirrorError::Append(AppendError::OtherTree { .. })), "{error}");
        let mut flipped = good();
        let byte = flipped[at].len() - 1;
        flipped[at][byte] ^= 1;
        let error = refused(10, flipped, objects(), log.tree(20));
        assert!(matches!(error, MirrorError::Append(AppendError::OtherTree { .. })), "{error}");
    }
    let error = refused(10, good(), objects(), Tree { root: log.tree(19).root, ..log.tree(20) });
    assert!(matches!(error, MirrorError::Append(AppendError::OtherTree { .. })), "{error}");
    // Gaps, overlaps, a size that is not where the entries end.
    for (first, range, to) in [
        (11, 11..20, log.tree(20)),
        (9, 9..20, log.tree(20)),
        (0, 0..10, log.tree(10)),
        (10, 10..19, log.tree(20)),
        (10, 10..20, log.tree(19)),
        (u64::MAX, 10..20, log.tree(20)),
    ] {
        let error = refused(first, log.range(range), Vec::new(), to);
        assert!(matches!(error, MirrorError::Gap { size: 10, .. }), "{error}");
    }
    let error = refused(10, Vec::new(), Vec::new(), log.tree(10));
    assert!(matches!(error, MirrorError::Append(AppendError::BatchSize { entries: 0 })), "{error}");
    // Objects: changed, of nobody, of entries that are complete; too large; too many entries; an entry too long.
    let mut changed = objects();
    changed[0][0] ^= 1;
    for objects in [changed, vec![b"who asked for this".to_vec()], log.objects_of(0..1)] {
        let error = refused(10, good(), objects, log.tree(20));
        assert!(matches!(error, MirrorError::Unasked { .. }), "{error}");
    }
    let error = refused(10, good(), vec![vec![0; (32 << 20) + 1]], log.tree(20));
    assert!(matches!(error, MirrorError::TooMuch { .. }), "{error}");
    let many = vec![Vec::new(); 5_000];
    let error = refused(10, many, Vec::new(), Tree { size: 5_010, root: log.tree(20).root });
    assert!(matches!(error, MirrorError::Append(AppendError::BatchSize { entries: 5_000 })), "{error}");
    let long = vec![vec![0; 65_536]];
    let error = refused(10, long, Vec::new(), Tree { size: 11, root: log.tree(11).root });
    assert!(matches!(error, MirrorError::Append(AppendError::TooLarge { .. })), "{error}");
    let huge = vec![vec![0; 65_535]; 600];
    let error = refused(10, huge, Vec::new(), Tree { size: 610, root: log.tree(11).root });
    assert!(matches!(error, MirrorError::TooMuch { .. }), "{error}");
    let error = mirror.store_objects(vec![object(0)]).unwrap_err();
    assert!(matches!(error, MirrorError::Unasked { .. }), "{error}");
    // And the true ones are taken.
    mirror.store_range(10, good(), objects(), log.tree(20)).unwrap();
    assert!(mirror.holds(20).unwrap() && !mirror.holds(21).unwrap());
}

#[test]
fn g9_nothing_that_was_cosigned_or_authenticated_is_contradicted() {
    let (log, mut other) = (Neighbour::new(40), Neighbour::new(40));
    other.entries[15] = b"\0another history".to_vec();
    let other = other.again();
    assert_eq!(log.tree(15), other.tree(15));
    for known in ["witness", "head", "both"] {
        let (_shelf, _mirrors, mirror) = begin();
        log.feed(&mirror, 10);
        if known != "head" {
            mirror.persist_witness(18, log.tree(18).root).unwrap();
        }
        if known != "witness" {
            mirror.persist_head(18, log.tree(18).root, b"a head").unwrap();
        }
        // The entries of the other history pass through 18 with another root.
        for to in [18, 20] {
            let refused =
                mirror.store_range(10, other.range(10..to), Vec::new(), other.tree(to)).unwrap_err();
            let at_18 = matches!(refused, MirrorError::Append(AppendError::OtherTree { size: 18, .. }));
            assert!(at_18, "{known}: {refused}");
        }
        let contradicts = |refused: Result<(), MirrorError>, size: u64| {
            let expected = (log.tree(size), other.tree(size));
            match refused {
                Err(MirrorError::Contradiction { known, asked }) => assert_eq!((known, asked), expected),
                other => panic!("{other:?}"),
            }
        };
        contradicts(mirror.persist_witness(18, other.tree(18).root), 18);
        contradicts(mirror.persist_head(18, other.tree(18).root, b"another"), 18);
        log.feed(&mirror, 30);
        contradicts(mirror.persist_mirror(18, other.tree(18).root), 18);
        // Its own entries speak as well.
        contradicts(mirror.persist_mirror(25, other.tree(25).root), 25);
        contradicts(mirror.persist_witness(25, other.tree(25).root), 25);
        contradicts(mirror.persist_head(25, other.tree(25).root, b"another"), 25);
    }
}

#[test]
fn g9_cosigner_state_only_grows_and_never_past_what_is_held() {
    let log = Neighbour::new(40);
    let (shelf, mirrors, mirror) = begin();
    let root = |size| log.tree(size).root;
    // A witness may be ahead of the copy, a mirror may not.
    mirror.persist_witness(30, root(30)).unwrap();
    mirror.store_range(0, log.range(0..20), Vec::new(), log.tree(20)).unwrap();
    let first = mirror.missing_objects(1).unwrap()[0];
    assert_eq!((first.index, mirror.held().unwrap()), (0, 0));
    let refused = mirror.persist_mirror(1, root(1)).unwrap_err();
    assert!(matches!(refused, MirrorError::NotHeld { held: 0, asked: 1 }), "{refused}");
    log.complete(&mirror);
    mirror.persist_mirror(12, root(12)).unwrap();
    let refused = mirror.persist_mirror(21, root(21)).unwrap_err();
    assert!(matches!(refused, MirrorError::NotHeld { held: 20, asked: 21 }), "{refused}");
    mirror.persist_head(25, root(25), b"head of 25").unwrap();
    for (refused, at) in [
        (mirror.persist_witness(29, root(29)), 30),
        (mirror.persist_mirror(11, root(11)), 12),
        (mirror.persist_head(24, root(24), b"head of 24"), 25),
    ] {
        assert!(matches!(refused, Err(MirrorError::Behind { known, .. }) if known == at), "{refused:?}");
    }
    // The same again is no news, and writes nothing.
    let operations = shelf.switch.operations();
    mirror.persist_witness(30, root(30)).unwrap();
    mirror.persist_mirror(12, root(12)).unwrap();
    mirror.persist_head(25, root(25), b"head of 25").unwrap();
    assert_eq!(shelf.switch.operations(), operations);
    assert!(matches!(mirror.restate(log.tree(0), log.tree(0), None), Err(MirrorError::NothingLost)));
    // Frozen: nothing but objects and readers, also after a restart.
    mirror.store_range(20, log.range(20..30), Vec::new(), log.tree(30)).unwrap();
    assert!(mirror.freeze(b"two heads of 31").unwrap());
    assert!(!mirror.freeze(b"another proof").unwrap());
    std::mem::forget((mirrors, mirror));
    shelf.reboot(Spared::Nothing);
    let mirrors = Mirrors::open(shelf.shared(), mirror_options(BIG)).unwrap();
    let mirror = mirrors.get(NEIGHBOUR).unwrap();
    let standing = mirror.standing();
    assert!(!standing.proven && standing.tree == log.tree(30) && standing.missing > 0);
    assert_eq!((standing.witness, standing.mirror), (Kept::Known(log.tree(30)), Kept::Known(log.tree(12))));
    assert_eq!(standing.frozen, Kept::Known(Some(Arc::from(b"two heads of 31".as_slice()))));
    assert_eq!(standing.head.unwrap().note, b"head of 25");
    for refused in [
        mirror.store_range(30, log.range(30..31), Vec::new(), log.tree(31)).map(drop),
        mirror.persist_witness(31, root(31)),
        mirror.persist_mirror(20, root(20)),
        mirror.persist_head(31, root(31), b"head"),
    ] {
        assert!(matches!(refused, Err(MirrorError::Frozen)), "{refused:?}");
    }
    log.complete(&mirror);
    assert!(mirror.holds(30).unwrap());
    assert_eq!(mirror.reader().unwrap().entry(29).unwrap(), log.entries[29]);
}

/// A damaged row of cosigner state ends cosigning until an operator states it anew; nobody guesses.
#[test]
fn g9_a_lost_row_is_never_guessed() {
    let log = Neighbour::new(40);
    for row in ["witness", "mirror", "frozen", "head", "origin", "wanted"] {
        for gone in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            {
                let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(BIG)).unwrap();
                let mirror = mirrors.create(NEIGHBOUR).unwrap();
                mirror.store_range(0, log.range(0..20), Vec::new(), log.tree(20)).unwrap();
                log.complete(&mirror);
                mirror.persist_witness(20, log.tree(20).root).unwrap();
                mirror.persist_mirror(20, log.tree(20).root).unwrap();
                mirror.persist_head(20, log.tree(20).root, b"head").unwrap();
                mirror.store_range(20, log.range(20..30), Vec::new(), log.tree(30)).unwrap();
            }
            tamper(dir.path(), |state| {
                let mut bytes = state.get(row).unwrap().unwrap().value().to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                match gone {
                    true => drop(state.remove(row).unwrap()),
                    false => drop(state.insert(row, bytes.as_slice()).unwrap()),
                }
            });
            let found = problems(&dir_shelf(dir.path()));
            assert_eq!(found.is_empty(), row == "origin", "{row}: {found:?}");
            let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(BIG)).unwrap();
            let mirror = mirrors.get(NEIGHBOUR).expect("the segments say whose it is");
            let (witness, cosign) = (
                || mirror.persist_witness(30, log.tree(30).root),
                || mirror.persist_mirror(30, log.tree(30).root),
            );
            let lost = |done: Result<(), MirrorError>| matches!(done, Err(MirrorError::RowLost { row: lost, .. }) if lost == row);
            assert_eq!(mirror.reader().unwrap().size(), 30, "reading goes on");
            if row != "frozen" {
                log.complete(&mirror);
            }
            assert_eq!(lost(witness()), row == "witness" || row == "frozen", "{row}");
            assert_eq!(lost(cosign()), row == "mirror" || row == "frozen", "{row}");
            if !["witness", "mirror", "frozen"].contains(&row) {
                assert!(matches!(
                    mirror.restate(log.tree(0), log.tree(0), None),
                    Err(MirrorError::NothingLost)
                ));
                mirror.persist_head(30, log.tree(30).root, b"head of 30").unwrap();
                continue;
            }
            mirror.restate(log.tree(25), log.tree(25), None).unwrap();
            let expected = |name| {
                if name == row { log.tree(25) } else { log.tree(if row == "frozen" { 20 } else { 30 }) }
            };
            assert_eq!(mirror.standing().witness, Kept::Known(expected("witness")), "{row}");
            assert_eq!(mirror.standing().mirror, Kept::Known(expected("mirror")), "{row}");
            log.complete(&mirror);
            witness().unwrap();
            cosign().unwrap();
            drop((mirrors, mirror));
            assert_eq!(problems(&dir_shelf(dir.path())), [""; 0], "{row}");
        }
    }
}

#[test]
fn g9_a_lost_file_is_an_operators_matter() {
    let log = Neighbour::new(40);
    type Ruin = fn(&Path);
    let ruins: [Ruin; 3] = [
        |file| std::fs::remove_file(file).unwrap(),
        |file| std::fs::write(file, b"").unwrap(),
        |file| std::fs::write(file, vec![7; 8192]).unwrap(),
    ];
    for ruin in ruins {
        let dir = tempfile::tempdir().unwrap();
        {
            let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(BIG)).unwrap();
            let mirror = mirrors.create(NEIGHBOUR).unwrap();
            mirror.store_range(0, log.range(0..20), Vec::new(), log.tree(20)).unwrap();
            mirror.persist_witness(20, log.tree(20).root).unwrap();
        }
        ruin(&dir.path().join("mirrors").join(mirror_directory(NEIGHBOUR)).join("mirror.redb"));
        assert!(!problems(&dir_shelf(dir.path())).is_empty());
        let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(BIG)).unwrap();
        let mirror = mirrors.get(NEIGHBOUR).unwrap();
        assert!(matches!(mirror.standing().witness, Kept::Lost(_)));
        assert_eq!((mirror.held().unwrap(), mirror.reader().unwrap().size()), (0, 20));
        for refused in [
            mirror.store_range(20, log.range(20..21), Vec::new(), log.tree(21)).map(drop),
            mirror.store_objects(log.objects_of(0..1)),
            mirror.persist_witness(30, log.tree(30).root),
            mirror.missing_objects(1).map(drop),
        ] {
            assert!(matches!(refused, Err(MirrorError::RowLost { .. })), "{refused:?}");
        }
        mirror.restate(log.tree(20), log.tree(0), None).unwrap();
        // The list of missing objects follows from the entries.
        assert!(!mirror.missing_objects(1).unwrap().is_empty());
        log.feed(&mirror, 40);
        mirror.persist_mirror(40, log.tree(40).root).unwrap();
        assert!(matches!(mirror.persist_witness(19, log.tree(19).root), Err(MirrorError::Behind { .. })));
        drop((mirrors, mirror));
        assert_eq!(problems(&dir_shelf(dir.path())), [""; 0]);
    }
}

#[test]
fn g9_fsck_and_scrub_find_what_is_not_there_any_more() {
    #[derive(Debug)]
    struct Fast;
    impl Pace for Fast {
        fn before_read(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn stopped(&self) -> bool {
            false
        }
    }
    let log = Neighbour::new(40);
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(BIG)).unwrap();
    let mirror = mirrors.create(NEIGHBOUR).unwrap();
    log.feed(&mirror, 20);
    mirror.persist_mirror(20, log.tree(20).root).unwrap();
    let scrubbed = mirror.scrub(Arc::new(Fast), &mut |_| {}).unwrap().unwrap();
    assert_eq!((scrubbed.size, scrubbed.problems_total), (20, 0));
    assert!(scrubbed.stores.iter().any(|store| store.name == "mirror" && store.bytes > 0));
    drop((mirrors, mirror));
    let path = dir.path().join("mirrors").join(mirror_directory(NEIGHBOUR));
    // The objects are gone, and nothing says so but the entries.
    std::fs::rename(path.join("side.redb"), dir.path().join("side")).unwrap();
    let found = problems(&dir_shelf(dir.path()));
    assert!(found.iter().any(|it| it.contains("the list of missing ones does not have it")), "{found:?}");
    assert!(found.iter().any(|it| it.contains("cosigned 20 entries, but all is here of the first 0 only")));
    // Repair has the list made anew, and the objects can be fetched again.
    checked(&dir_shelf(dir.path()), true);
    let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(BIG)).unwrap();
    let mirror = mirrors.get(NEIGHBOUR).unwrap();
    assert!(!mirror.holds(1).unwrap());
    log.complete(&mirror);
    assert!(mirror.holds(20).unwrap());
    drop((mirrors, mirror));
    assert_eq!(problems(&dir_shelf(dir.path())), [""; 0]);
    // Cosigner state of another tree than that of the entries.
    let other = tempfile::tempdir().unwrap();
    {
        let mirrors = Mirrors::open(dir_shelf(other.path()), mirror_options(BIG)).unwrap();
        let mirror = mirrors.create(NEIGHBOUR).unwrap();
        mirror.persist_witness(10, Hash([9; 32])).unwrap();
    }
    let stray = other.path().join("mirrors").join(mirror_directory(NEIGHBOUR)).join("mirror.redb");
    std::fs::copy(stray, path.join("mirror.redb")).unwrap();
    let found = problems(&dir_shelf(dir.path()));
    assert!(found.iter().any(|it| it.contains("the witness state is of another tree")), "{found:?}");
    let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(BIG)).unwrap();
    let refused = mirrors.get(NEIGHBOUR).unwrap().persist_witness(10, log.tree(10).root);
    assert!(matches!(refused, Err(MirrorError::Contradiction { .. })), "{refused:?}");
}

#[test]
fn only_so_many_origins_are_mirrored_and_each_by_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let options = bulla_ledger::MirrorOptions { origins_max: 3, open_max: 2, ..mirror_options(BIG) };
    let mirrors = Mirrors::open(dir_shelf(dir.path()), options.clone()).unwrap();
    for name in ["", "fleet.example", "fleet.example/xyz/0", "../../etc", "fleet.example/test/0"] {
        assert!(matches!(mirrors.create(name), Err(MirrorError::NotAnOrigin(_))), "{name}");
    }
    let log = Neighbour::new(30);
    for number in 0..3 {
        log.feed(&mirrors.create(&origin(number)).unwrap(), 10 + number);
    }
    assert!(matches!(mirrors.create(&origin(3)), Err(MirrorError::Limit { most: 3 })));
    assert!(matches!(mirrors.create(&origin(0)), Err(MirrorError::Exists { .. })));
    assert!(matches!(mirrors.remove(&origin(3)), Err(MirrorError::Unknown { .. })));
    assert!(DirShelf::open(&dir.path().join("mirrors")).is_err(), "the lock covers all of them");
    let before = mirrors.disk_bytes().unwrap();
    mirrors.remove(&origin(1)).unwrap();
    assert!(mirrors.disk_bytes().unwrap() < before && before > 0);
    drop(mirrors);
    // Another log's directory under a name that is not its own is no mirror, and stays.
    let path = dir.path().join("mirrors");
    std::fs::rename(path.join(mirror_directory(&origin(0))), path.join(mirror_directory(&origin(1))))
        .unwrap();
    std::fs::create_dir(path.join(format!("{}.new", mirror_directory(&origin(9))))).unwrap();
    let mirrors = Mirrors::open(dir_shelf(dir.path()), options).unwrap();
    assert_eq!(mirrors.all().len(), 1);
    assert_eq!(mirrors.get(&origin(2)).unwrap().standing().tree, log.tree(12));
    let unreadable = mirrors.unreadable();
    assert_eq!(unreadable[0].directory, mirror_directory(&origin(1)));
    assert!(matches!(mirrors.create(&origin(1)), Err(MirrorError::Exists { .. })));
    assert!(!path.join(format!("{}.new", mirror_directory(&origin(9)))).exists());
    mirrors.remove_unreadable(&unreadable[0].directory).unwrap();
    mirrors.create(&origin(1)).unwrap();
}

/// Files of mirrors that are not in use are closed; whoever reads keeps them open, and nothing is lost by it.
#[test]
fn mirrors_take_turns() {
    let log = Neighbour::new(200);
    let dir = tempfile::tempdir().unwrap();
    let options = bulla_ledger::MirrorOptions { open_max: 2, ..mirror_options(64) };
    let mirrors = Mirrors::open(dir_shelf(dir.path()), options).unwrap();
    let all: Vec<_> = (0..6).map(|number| mirrors.create(&origin(number)).unwrap()).collect();
    let readers: Vec<_> = all[..3].iter().map(|mirror| mirror.reader().unwrap()).collect();
    for to in (20..=200).step_by(20) {
        for mirror in &all {
            log.feed(mirror, to);
        }
        for reader in &readers {
            assert_eq!(
                (reader.size(), reader.entry(to - 1).unwrap()),
                (to, log.entries[to as usize - 1].clone())
            );
        }
    }
    let open_files = |number: u64| {
        let directory = mirror_directory(&origin(number));
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter(|it| {
                std::fs::read_link(it.path()).is_ok_and(|to| to.to_string_lossy().contains(&directory))
            })
            .count()
    };
    let open: Vec<usize> = (0..6).map(open_files).collect();
    assert!(open[..3].iter().all(|files| *files > 0), "readers keep their files: {open:?}");
    assert_eq!(open[3..].iter().filter(|files| **files > 0).count(), 1, "the last one used: {open:?}");
    drop(readers);
    for mirror in &all {
        assert!(mirror.holds(200).unwrap());
    }
    let open: Vec<usize> = (0..6).map(open_files).collect();
    assert_eq!(open.iter().filter(|files| **files > 0).count(), 2, "{open:?}");
    drop((mirrors, all));
    assert_eq!(problems(&dir_shelf(dir.path())), [""; 0]);
}

/// Entries are about the SHA-256 of their own bytes, for whoever looks for them in a copy.
#[derive(Debug)]
struct About;

impl References for About {
    fn version(&self) -> u32 {
        1
    }

    fn of(&self, entry: &[u8]) -> Vec<Hash> {
        names(entry)
    }

    fn digest(&self, entry: &[u8]) -> Option<(u8, Vec<u8>)> {
        Some((0, sha256(&[entry]).0.to_vec()))
    }
}

#[test]
fn a_copy_is_found_in_by_digest_from_where_its_box_began_to_keep_them() {
    let log = Neighbour::new(200);
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(dir_shelf(dir.path()), mirror_options(64)).unwrap();
    log.feed(&mirrors.create(NEIGHBOUR).unwrap(), 30);
    drop(mirrors);
    let options = bulla_ledger::MirrorOptions { references: Arc::new(About), ..mirror_options(64) };
    let again = || Mirrors::open(dir_shelf(dir.path()), options.clone()).unwrap();
    let mirrors = again();
    let mirror = mirrors.get(NEIGHBOUR).unwrap();
    for to in [50, 64, 100, 200] {
        log.feed(&mirror, to);
    }
    let found = |reader: &bulla_ledger::Reader, index: usize| {
        reader.find_digest(0, &sha256(&[&log.entries[index]]).0, 9).unwrap()
    };
    let reader = mirror.reader().unwrap();
    for index in 0..200 {
        let expected = if index < 30 { vec![] } else { vec![index as u64] };
        assert_eq!(found(&reader, index), expected, "{index}");
    }
    assert_eq!(
        reader.find_digest(1, &sha256(&[&log.entries[199]]).0, 9).unwrap(),
        [0; 0],
        "another algorithm"
    );
    drop((reader, mirror, mirrors));
    let mirrors = again();
    let reader = mirrors.get(NEIGHBOUR).unwrap().reader().unwrap();
    assert_eq!((found(&reader, 29), found(&reader, 31), found(&reader, 199)), (vec![], vec![31], vec![199]));
    drop((reader, mirrors));
    assert_eq!(problems(&dir_shelf(dir.path())), [""; 0]);
}

/// What entries name may be read in another way by a later program: the list is made anew.
#[test]
fn missing_objects_follow_from_the_entries_whenever_names_are_read_in_another_way() {
    let log = Neighbour::new(40);
    let shelf = CrashShelf::default();
    let with =
        |references: Arc<dyn References>| bulla_ledger::MirrorOptions { references, ..mirror_options(8) };
    {
        let blind: Arc<dyn References> = Arc::new(bulla_ledger::NoReferences);
        let mirrors = Mirrors::open(shelf.shared(), with(blind)).unwrap();
        let mirror = mirrors.create(NEIGHBOUR).unwrap();
        mirror.store_range(0, log.range(0..40), Vec::new(), log.tree(40)).unwrap();
        assert!(mirror.holds(40).unwrap());
    }
    let mirrors = Mirrors::open(shelf.shared(), with(Arc::new(Named(2)))).unwrap();
    let mirror = mirrors.get(NEIGHBOUR).unwrap();
    assert_eq!(mirror.held().unwrap(), 0);
    assert_eq!(mirror.missing_objects(usize::MAX).unwrap().len(), log.named(0..40).len());
    log.complete(&mirror);
    assert!(mirror.holds(40).unwrap());
}

#[test]
fn so_many_objects_may_be_missing_and_then_no_more_entries_come() {
    let log = Neighbour::new(60);
    let options = bulla_ledger::MirrorOptions { wanted_max: 5, ..mirror_options(BIG) };
    let shelf = CrashShelf::default();
    let mirrors = Mirrors::open(shelf.shared(), options).unwrap();
    let mirror = mirrors.create(NEIGHBOUR).unwrap();
    let store =
        |first: u64, to: u64| mirror.store_range(first, log.range(first..to), Vec::new(), log.tree(to));
    assert!(matches!(store(0, 30), Err(MirrorError::ObjectsFirst { most: 5, .. })));
    store(0, 10).unwrap();
    assert!(matches!(store(10, 20), Err(MirrorError::ObjectsFirst { most: 5, .. })));
    log.complete(&mirror);
    store(10, 20).unwrap();
}

#[test]
fn a_full_disk_is_said_before_anything_is_written() {
    let log = Neighbour::new(20);
    let shelf = CrashShelf::default();
    let mut options = mirror_options(BIG);
    options.log.reserve_bytes = 1 << 20;
    let mirrors = Mirrors::open(shelf.shared(), options).unwrap();
    let mirror = mirrors.create(NEIGHBOUR).unwrap();
    mirror.store_range(0, log.range(0..10), Vec::new(), log.tree(10)).unwrap();
    shelf.directory(&mirror_directory(NEIGHBOUR)).set_room(u64::MAX, 1 << 20);
    let before = shelf.switch.operations();
    let missing = mirror.missing_objects(1).unwrap();
    for refused in [
        mirror.store_range(10, log.range(10..20), Vec::new(), log.tree(20)).map(drop),
        mirror.store_objects(vec![log.objects[&missing[0].object.0].clone()]),
    ] {
        assert!(matches!(refused, Err(MirrorError::Append(AppendError::Full { .. }))), "{refused:?}");
    }
    assert_eq!((shelf.switch.operations(), mirror.standing().poisoned), (before, false));
}

#[derive(Debug, Clone)]
enum Step {
    Range(u64, u8),
    Objects(usize),
    Witness(u64),
    Cosign(u64),
    Wrong(u64),
    Restart,
    PowerCut(u64),
    FailedWrite(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1u64..40, 0u8..3).prop_map(|(count, objects)| Step::Range(count, objects)),
        3 => (1usize..20).prop_map(Step::Objects),
        2 => (0u64..400).prop_map(Step::Witness),
        2 => (0u64..400).prop_map(Step::Cosign),
        1 => (1u64..9).prop_map(Step::Wrong),
        2 => Just(Step::Restart),
        2 => any::<u64>().prop_map(Step::PowerCut),
        3 => (0u64..60).prop_map(Step::FailedWrite),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random lives of a mirror against what is true of the log.
    #[test]
    fn g9_a_mirror_says_what_is_true_whatever_happens_to_it(steps in steps(), segment_entries in 1u64..200) {
        let log = Neighbour::new(400);
        let (shelf, options) = (CrashShelf::default(), mirror_options(segment_entries));
        let mut mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
        let mut mirror = mirrors.create(NEIGHBOUR).unwrap();
        let (mut size, mut witness, mut cosigned) = (0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Range(count, with) => {
                    let to = (size + count).min(400);
                    if to > size {
                        let mut objects = if with > 0 { log.objects_of(size..to) } else { Vec::new() };
                        if with == 2 {
                            objects.truncate(objects.len() / 2);
                        }
                        let reader = mirror.reader().unwrap();
                        let wanted = mirror.missing_objects(usize::MAX).unwrap();
                        objects.retain(|it| {
                            let name = sha256(&[it]);
                            log.named(size..to).iter().any(|(_, it)| *it == name)
                                || wanted.iter().any(|it| it.object == name)
                        });
                        drop(reader);
                        prop_assert_eq!(mirror.store_range(size, log.range(size..to), objects, log.tree(to)).unwrap(), log.tree(to));
                        size = to;
                    }
                }
                Step::Objects(count) => {
                    let missing = mirror.missing_objects(count).unwrap();
                    let objects = missing.iter().map(|it| log.objects[&it.object.0].clone()).collect();
                    mirror.store_objects(objects).unwrap();
                }
                Step::Witness(at) => match mirror.persist_witness(at, log.tree(at).root) {
                    Ok(()) => { prop_assert!(at >= witness); witness = at; }
                    Err(error) => { prop_assert!(at < witness, "{}", error); }
                },
                Step::Cosign(at) => {
                    let held = mirror.held().unwrap();
                    match mirror.persist_mirror(at, log.tree(at).root) {
                        Ok(()) => { prop_assert!(at >= cosigned && at <= held); cosigned = at; }
                        Err(error) => { prop_assert!(at < cosigned || at > held, "{}", error); }
                    }
                }
                Step::Wrong(count) => {
                    let to = (size + count).min(400);
                    let mut entries = log.range(size..to);
                    if let Some(last) = entries.last_mut() {
                        last.push(1);
                        prop_assert!(mirror.store_range(size, entries, Vec::new(), log.tree(to)).is_err());
                    }
                }
                Step::Restart => {
                    drop((mirrors, mirror));
                    mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
                    mirror = mirrors.get(NEIGHBOUR).unwrap();
                }
                Step::PowerCut(seed) => {
                    std::mem::forget((mirrors, mirror));
                    shelf.reboot(Spared::Random(seed));
                    mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
                    mirror = mirrors.get(NEIGHBOUR).unwrap();
                }
                Step::FailedWrite(ahead) => {
                    let to = (size + 3).min(400);
                    if to == size { continue; }
                    shelf.switch.aim(shelf.switch.operations() + ahead, common::crash_store::Fault::Lost);
                    let done = mirror.store_range(size, log.range(size..to), log.objects_of(size..to), log.tree(to));
                    shelf.switch.disarm();
                    match done {
                        Ok(_) => size = to,
                        Err(_) => mirror.recover().unwrap(),
                    }
                }
            }
            let reader = mirror.reader().unwrap();
            prop_assert_eq!((reader.size(), reader.root()), (size, log.tree(size).root));
            let is_here = |name: &Hash| reader.side(name).unwrap().is_some();
            let complete = log.entries[..size as usize].iter().take_while(|entry| names(entry).iter().all(is_here)).count();
            prop_assert_eq!(mirror.held().unwrap(), complete as u64);
            let standing = mirror.standing();
            prop_assert_eq!(standing.witness, Kept::Known(log.tree(witness)));
            prop_assert_eq!(standing.mirror, Kept::Known(log.tree(cosigned)));
        }
        let all: Vec<Vec<u8>> = mirror.reader().unwrap().entries(0..size).map(|row| row.unwrap().1).collect();
        prop_assert!(all == log.entries[..size as usize]);
        drop((mirrors, mirror));
        prop_assert_eq!(problems(&shelf.shared()), Vec::<String>::new());
    }
}
