//! The error table of the mirrors: every write, sync, resize and name change of every operation, failed in every way.
//!
//! Goal (G9, G10): whatever the disk does at whatever moment, what a mirror reported durable is there afterwards, what it
//! may have cosigned never goes back, and it never says that it holds more than is there.
//! Method: as in `faults.rs`. The judge is fsck, and a look at every entry and object.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::Hash;
use bulla_ledger::{
    FsckOptions, Kept, Mirror, MirrorError, MirrorOptions, Mirrors, References, Shelf, TreeOnly,
    check_mirrors, mirror_directory,
};
use common::crash_shelf::CrashShelf;
use common::crash_store::{Fault, Spared};
use common::neighbour::{NEIGHBOUR, Named, Neighbour, mirror_options, names};
use std::sync::Arc;

const ERRORS: [Fault; 3] = [Fault::Lost, Fault::DoneButErrored, Fault::Torn];

/// How it goes on after the operation.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// In the same process.
    On,
    /// The process ends in order and starts again.
    Restart,
    /// It is killed, and starts again on what the kernel has.
    Kill,
    Cut(Spared),
}

const THEN: [Then; 6] = [
    Then::On,
    Then::Restart,
    Then::Kill,
    Then::Cut(Spared::Nothing),
    Then::Cut(Spared::Everything),
    Then::Cut(Spared::Random(11)),
];

/// What was reported durable.
#[derive(Debug, Clone, Default)]
struct Reported {
    size: u64,
    objects: Vec<Hash>,
    witness: u64,
    mirror: u64,
    head: u64,
    frozen: bool,
}

/// An operation of a mirror.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// First entry, end, and whether their objects come along.
    Range(u64, u64, bool),
    /// The five that are missing first.
    Objects,
    Witness(u64),
    Cosign(u64),
    Head(u64),
    Freeze,
}
use Step::{Cosign, Freeze, Head, Objects, Range, Witness};

impl Step {
    fn take(self, mirror: &Mirror, log: &Neighbour, reported: &mut Reported) -> Result<(), MirrorError> {
        match self {
            // Where a restart found the range durable after all, there is nothing left to do.
            Range(_, to, _) if mirror.held().map(|_| mirror.standing().tree.size)? >= to => {
                reported.size = reported.size.max(to);
            }
            Range(first, to, with_objects) => {
                let objects = if with_objects { log.objects_of(first..to) } else { Vec::new() };
                mirror.store_range(first, log.range(first..to), objects, log.tree(to))?;
                reported.size = to;
                if with_objects {
                    reported.objects.extend(log.named(first..to).iter().map(|(_, name)| *name));
                }
            }
            Objects => {
                let missing = mirror.missing_objects(5)?;
                let objects = missing.iter().map(|it| log.objects[&it.object.0].clone()).collect();
                mirror.store_objects(objects)?;
                reported.objects.extend(missing.iter().map(|it| it.object));
            }
            Witness(size) => {
                mirror.persist_witness(size, log.tree(size).root)?;
                reported.witness = size;
            }
            Cosign(size) => {
                mirror.persist_mirror(size, log.tree(size).root)?;
                reported.mirror = size;
            }
            Head(size) => {
                mirror.persist_head(size, log.tree(size).root, format!("head of {size}").as_bytes())?;
                reported.head = size;
            }
            Freeze => {
                mirror.freeze(b"two heads")?;
                reported.frozen = true;
            }
        }
        Ok(())
    }
}

struct Case {
    name: &'static str,
    segment_entries: u64,
    before: Vec<Step>,
    step: Step,
}

fn cases() -> Vec<Case> {
    let big = 1 << 20;
    vec![
        Case { name: "first range", segment_entries: big, before: vec![], step: Range(0, 9, false) },
        Case {
            name: "first range with objects",
            segment_entries: big,
            before: vec![],
            step: Range(0, 9, true),
        },
        Case {
            name: "one more range",
            segment_entries: big,
            before: vec![Range(0, 9, false), Objects],
            step: Range(9, 22, true),
        },
        Case {
            name: "one more range whose objects are missing",
            segment_entries: big,
            before: vec![Range(0, 9, true), Witness(30), Cosign(9)],
            step: Range(9, 22, false),
        },
        Case {
            name: "a range across a tile",
            segment_entries: big,
            before: vec![Range(0, 250, true)],
            step: Range(250, 262, true),
        },
        Case {
            name: "roll-over",
            segment_entries: 8,
            before: vec![Range(0, 9, true)],
            step: Range(9, 14, false),
        },
        Case {
            name: "objects",
            segment_entries: big,
            before: vec![Range(0, 22, false), Cosign(0), Witness(22)],
            step: Objects,
        },
        Case {
            name: "more objects",
            segment_entries: big,
            before: vec![Range(0, 22, false), Objects],
            step: Objects,
        },
        Case {
            name: "witness",
            segment_entries: big,
            before: vec![Range(0, 9, false), Witness(9)],
            step: Witness(22),
        },
        Case {
            name: "mirror",
            segment_entries: big,
            before: vec![Range(0, 9, true), Cosign(9), Range(9, 22, true)],
            step: Cosign(22),
        },
        Case { name: "head", segment_entries: big, before: vec![Head(9), Range(0, 9, true)], step: Head(22) },
        Case {
            name: "freeze",
            segment_entries: big,
            before: vec![Range(0, 9, true), Cosign(9), Witness(9)],
            step: Freeze,
        },
    ]
}

struct Bench {
    shelf: CrashShelf,
    options: MirrorOptions,
    mirrors: Mirrors,
    mirror: Mirror,
    reported: Reported,
}

impl Bench {
    fn start(case: &Case, log: &Neighbour) -> Self {
        let (shelf, options) = (CrashShelf::default(), mirror_options(case.segment_entries));
        let mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
        let mirror = mirrors.create(NEIGHBOUR).unwrap();
        let mut bench = Self { shelf, options, mirrors, mirror, reported: Reported::default() };
        for step in &case.before {
            step.take(&bench.mirror, log, &mut bench.reported).unwrap();
        }
        bench
    }

    fn go_on(self, then: Then) -> Self {
        let Self { shelf, options, mirrors, mirror, reported } = self;
        match then {
            Then::On => return Self { shelf, options, mirrors, mirror, reported },
            Then::Restart => drop((mirrors, mirror)),
            Then::Kill => std::mem::forget((mirrors, mirror)),
            Then::Cut(spared) => {
                std::mem::forget((mirrors, mirror));
                shelf.reboot(spared);
            }
        }
        let mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
        assert_eq!(mirrors.unreadable(), []);
        let mirror = mirrors.get(NEIGHBOUR).expect("a mirror that was made is there");
        Self { shelf, options, mirrors, mirror, reported }
    }

    /// Everything reported is there; what is said to be held is there; nothing went back.
    fn judge(&self, log: &Neighbour, case: &Case) {
        let (mirror, reported) = (&self.mirror, &self.reported);
        let held = mirror.held().unwrap();
        let standing = mirror.standing();
        let reader = mirror.reader().unwrap();
        let size = reader.size();
        assert!(size >= reported.size, "{size} entries of {} reported", reported.size);
        assert_eq!((standing.tree, standing.proven), (log.tree(size), true));
        let entries: Vec<Vec<u8>> = reader.entries(0..size).map(|row| row.unwrap().1).collect();
        assert!(entries == log.entries[..size as usize]);
        let is_here = |name: &Hash| match reader.side(name).unwrap() {
            Some(found) => {
                assert_eq!(found, log.objects[&name.0]);
                true
            }
            None => false,
        };
        for name in &reported.objects {
            assert!(is_here(name), "the object {name} was reported");
        }
        let complete = entries.iter().take_while(|entry| names(entry).iter().all(is_here)).count() as u64;
        assert!(held <= complete, "held {held}, but only {complete} entries are complete");
        if !standing.poisoned {
            assert_eq!(held, complete);
            let missing = mirror.missing_objects(usize::MAX).unwrap();
            let missing: Vec<_> = missing.iter().map(|it| (it.index, it.object)).collect();
            let truly: Vec<_> = log.named(0..size).into_iter().filter(|(_, name)| !is_here(name)).collect();
            let sorted = |mut list: Vec<(u64, Hash)>| {
                list.sort_unstable_by_key(|(index, name)| (*index, name.0));
                list
            };
            assert_eq!(sorted(missing), sorted(truly));
        }
        let at = |kept: &Kept<bulla_ledger::Tree>| match kept {
            Kept::Known(tree) => {
                assert_eq!(*tree, log.tree(tree.size));
                tree.size
            }
            Kept::Lost(what) => panic!("{what}"),
        };
        let (witness, cosigned) = (at(&standing.witness), at(&standing.mirror));
        assert!(witness >= reported.witness && cosigned >= reported.mirror, "{standing:?}");
        assert!(cosigned <= complete, "cosigned {cosigned}, complete {complete}");
        assert!(standing.head.as_ref().map_or(0, |head| head.tree.size) >= reported.head);
        let Kept::Known(frozen) = &standing.frozen else { panic!("{standing:?}") };
        assert!(frozen.is_some() || !reported.frozen, "the frozen mark is gone");
        let name = case.name;
        assert!(frozen.is_none() || name == "freeze", "{name} froze it");
    }

    fn fsck(&self) {
        let references: Arc<dyn References> = Arc::new(Named(1));
        let shelf: Arc<dyn Shelf> = self.shelf.shared();
        let options = FsckOptions::default();
        let checked =
            check_mirrors(&shelf, &references, options, &mut |_| Box::new(TreeOnly), &mut |_, _, _| {});
        for checked in checked.unwrap() {
            assert_eq!(checked.origin.as_deref(), Some(NEIGHBOUR));
            assert!(checked.report.is_clean(), "{:?}", checked.report.problems);
        }
    }

    /// The operation again, and from there to the end: a mirror with all entries and objects, cosigned.
    fn finish(&mut self, log: &Neighbour, case: &Case) {
        self.mirror.recover().unwrap();
        case.step.take(&self.mirror, log, &mut self.reported).unwrap();
        self.judge(log, case);
        let all = log.entries.len() as u64;
        if self.reported.frozen {
            let refused = self.mirror.persist_witness(all, log.tree(all).root);
            assert!(matches!(refused, Err(MirrorError::Frozen)), "{refused:?}");
            return;
        }
        log.feed(&self.mirror, all);
        assert!(self.mirror.holds(all).unwrap());
        self.mirror.persist_witness(all, log.tree(all).root).unwrap();
        self.mirror.persist_mirror(all, log.tree(all).root).unwrap();
        (self.reported.size, self.reported.witness, self.reported.mirror) = (all, all, all);
        self.reported.objects = log.named(0..all).into_iter().map(|(_, name)| name).collect();
        self.judge(log, case);
    }
}

/// Disk operations of the step.
fn span(case: &Case, log: &Neighbour) -> std::ops::Range<u64> {
    let mut bench = Bench::start(case, log);
    let first = bench.shelf.switch.operations();
    case.step.take(&bench.mirror, log, &mut bench.reported).unwrap();
    first..bench.shelf.switch.operations()
}

fn table(only: impl Fn(&Case) -> bool) {
    let log = Neighbour::new(270);
    for case in cases().iter().filter(|case| only(case)) {
        let span = span(case, &log);
        assert!(!span.is_empty(), "{}", case.name);
        for operation in span {
            for fault in ERRORS.into_iter().chain([Fault::PowerCut]) {
                for then in THEN {
                    if fault == Fault::PowerCut && !matches!(then, Then::Cut(_)) {
                        continue;
                    }
                    let context = format!("{}, operation {operation}, {fault:?}, {then:?}", case.name);
                    let judged = std::panic::catch_unwind(|| {
                        let mut bench = Bench::start(case, &log);
                        bench.shelf.switch.aim(operation, fault);
                        let done = case.step.take(&bench.mirror, &log, &mut bench.reported);
                        if fault != Fault::PowerCut {
                            assert!(!bench.shelf.switch.disarm(), "the fault did not happen");
                            bench.judge(&log, case);
                        }
                        if let Err(error) = done {
                            let storage = matches!(
                                error,
                                MirrorError::Append(_) | MirrorError::Read(_) | MirrorError::Open(_)
                            );
                            assert!(storage, "{error}");
                        }
                        bench = bench.go_on(then);
                        bench.judge(&log, case);
                        if matches!(then, Then::Cut(_)) {
                            bench.fsck();
                        }
                        bench.finish(&log, case);
                        // What was reported after a failure does not stand on what the failure lost.
                        bench = bench.go_on(Then::Cut(Spared::Nothing));
                        bench.judge(&log, case);
                        drop(bench.mirrors);
                        drop(bench.mirror);
                        let shelf = CrashShelf::clone(&bench.shelf);
                        let again = Bench {
                            mirrors: Mirrors::open(shelf.shared(), bench.options.clone()).unwrap(),
                            mirror: Mirrors::open(shelf.shared(), bench.options.clone())
                                .unwrap()
                                .get(NEIGHBOUR)
                                .unwrap(),
                            shelf,
                            options: bench.options,
                            reported: bench.reported,
                        };
                        again.fsck();
                    });
                    if let Err(panic) = judged {
                        eprintln!("in: {context}");
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }
}

#[test]
fn g9_g10_no_failed_operation_of_a_range_loses_or_invents_anything() {
    table(|case| case.name.contains("range") || case.name == "roll-over");
}

#[test]
fn g9_g10_no_failed_operation_of_storing_objects_loses_or_invents_anything() {
    table(|case| case.name.contains("objects") && !case.name.contains("range"));
}

#[test]
fn g9_cosigner_state_never_goes_back_whatever_fails() {
    table(|case| ["witness", "mirror", "head", "freeze"].contains(&case.name));
}

/// A mirror is there as a whole or not at all; one that was reported is there.
#[test]
fn g10_a_failed_creation_or_removal_leaves_a_whole_mirror_or_none() {
    let (log, options) = (Neighbour::new(12), mirror_options(1 << 20));
    let begin = || {
        let shelf = CrashShelf::default();
        let mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
        (shelf, mirrors)
    };
    for removal in [false, true] {
        let work = |mirrors: &Mirrors| match removal {
            false => mirrors.create(NEIGHBOUR).map(drop),
            true => mirrors.remove(NEIGHBOUR),
        };
        let prepare = |mirrors: &Mirrors| {
            if removal {
                log.feed(&mirrors.create(NEIGHBOUR).unwrap(), 12);
            }
        };
        let span = {
            let (shelf, mirrors) = begin();
            prepare(&mirrors);
            let first = shelf.switch.operations();
            work(&mirrors).unwrap();
            first..shelf.switch.operations()
        };
        for operation in span {
            for fault in ERRORS.into_iter().chain([Fault::PowerCut]) {
                for then in THEN {
                    if fault == Fault::PowerCut && !matches!(then, Then::Cut(_)) {
                        continue;
                    }
                    let context = format!("removal {removal}, operation {operation}, {fault:?}, {then:?}");
                    let (shelf, mirrors) = begin();
                    prepare(&mirrors);
                    shelf.switch.aim(operation, fault);
                    let done = work(&mirrors).is_ok();
                    let mirrors = match then {
                        Then::On => mirrors,
                        _ => {
                            match then {
                                Then::Restart => drop(mirrors),
                                _ => std::mem::forget(mirrors),
                            }
                            if let Then::Cut(spared) = then {
                                shelf.reboot(spared);
                            }
                            Mirrors::open(shelf.shared(), options.clone())
                                .unwrap_or_else(|error| panic!("{context}: {error}"))
                        }
                    };
                    assert_eq!(mirrors.unreadable(), [], "{context}");
                    let there = mirrors.get(NEIGHBOUR);
                    if done {
                        assert_eq!(there.is_some(), !removal, "{context}");
                    }
                    match (removal, there) {
                        (false, Some(mirror)) => log.feed(&mirror, 12),
                        (false, None) => log.feed(
                            &mirrors.create(NEIGHBOUR).unwrap_or_else(|error| panic!("{context}: {error}")),
                            12,
                        ),
                        (true, Some(mirror)) => {
                            assert!(mirror.holds(12).unwrap(), "{context}");
                            mirrors.remove(NEIGHBOUR).unwrap_or_else(|error| panic!("{context}: {error}"));
                            assert!(matches!(mirror.holds(0), Err(MirrorError::Removed)));
                        }
                        // Refused, and gone from here: whether the disk has it is not known before the next start.
                        (true, None) if !done && matches!(then, Then::On) => {
                            drop(mirrors);
                            shelf.reboot(Spared::Random(operation));
                            let mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
                            assert!(
                                mirrors.get(NEIGHBOUR).is_none_or(|it| it.holds(12).unwrap()),
                                "{context}"
                            );
                            continue;
                        }
                        (true, None) => {}
                    }
                    assert_eq!(mirrors.get(NEIGHBOUR).is_some(), !removal, "{context}");
                    drop(mirrors);
                    shelf.reboot(Spared::Nothing);
                    let mirrors = Mirrors::open(shelf.shared(), options.clone()).unwrap();
                    assert_eq!(mirrors.unreadable(), [], "{context}");
                    let there = mirrors.get(NEIGHBOUR);
                    assert_eq!(there.is_some(), !removal, "{context}");
                    assert!(there.is_none_or(|mirror| mirror.holds(12).unwrap()), "{context}");
                    assert_eq!(shelf.list().unwrap().len(), usize::from(!removal), "{context}");
                }
            }
        }
    }
}

/// A failed write concerns one mirror: the others go on while it is poisoned.
#[test]
fn g10_a_failed_write_poisons_one_mirror_only() {
    let log = Neighbour::new(60);
    let shelf = CrashShelf::default();
    let mirrors = Mirrors::open(shelf.shared(), mirror_options(1 << 20)).unwrap();
    let (one, other) = (NEIGHBOUR, common::neighbour::origin(7));
    let (one, other) = (mirrors.create(one).unwrap(), mirrors.create(&other).unwrap());
    log.feed(&one, 20);
    log.feed(&other, 20);
    shelf.switch.aim(shelf.switch.operations() + 6, Fault::Lost);
    one.store_range(20, log.range(20..40), log.objects_of(20..40), log.tree(40)).unwrap_err();
    assert!(!shelf.switch.disarm());
    log.feed(&other, 60);
    assert!(other.holds(60).unwrap() && !other.standing().poisoned);
    one.recover().unwrap();
    log.feed(&one, 60);
    assert!(one.holds(60).unwrap());
}

/// A bit that changes on the way to the disk makes a mirror refuse or name its damage; it never makes it say something
/// that is not so.
#[test]
fn g9_a_bit_that_changes_on_the_way_to_the_disk_is_never_cosigned_over() {
    let log = Neighbour::new(270);
    for case in &cases() {
        for operation in span(case, &log) {
            let context = format!("{}, operation {operation}", case.name);
            let mut bench = Bench::start(case, &log);
            bench.shelf.switch.aim(operation, Fault::BitFlip);
            let _refused = case.step.take(&bench.mirror, &log, &mut bench.reported);
            let Bench { shelf, options, mirrors, mirror, reported } = bench;
            std::mem::forget((mirrors, mirror));
            shelf.reboot(Spared::Nothing);
            let Ok(mirrors) = Mirrors::open(shelf.shared(), options) else { continue };
            let Some(mirror) = mirrors.get(NEIGHBOUR) else {
                assert_eq!(mirrors.unreadable().len(), 1, "{context}");
                assert_eq!(mirrors.unreadable()[0].directory, mirror_directory(NEIGHBOUR), "{context}");
                continue;
            };
            let standing = mirror.standing();
            for (kept, known) in [(standing.witness, reported.witness), (standing.mirror, reported.mirror)] {
                if let Kept::Known(tree) = kept {
                    assert!(tree.size >= known && tree == log.tree(tree.size), "{context}: {tree}");
                }
            }
            if reported.frozen {
                let refused = mirror.persist_witness(270, log.tree(270).root);
                assert!(refused.is_err(), "{context}");
            }
            let Ok(reader) = mirror.reader() else { continue };
            for (row, entry) in reader.entries(0..reader.size()).zip(&log.entries) {
                let Ok((_, found)) = row else { break };
                assert!(found == *entry, "{context}");
            }
            for (_, name) in log.named(0..reader.size()) {
                if let Ok(Some(found)) = reader.side(&name) {
                    assert_eq!(found, log.objects[&name.0], "{context}");
                }
            }
        }
    }
}
