//! The error table: every write, sync, resize and name change of every ledger operation, failed in every way.
//!
//! Goal (G1, G2, G10): whatever the disk does at whatever moment, everything acknowledged is there afterwards, at
//! its index, under a root consistent with every root ever stated; and sealing goes on.
//! Method: run the operation once to count what it does to the disk. Then, for each of these operations and each
//! fault, run it again from the same start with the fault aimed there, and follow each way on: recover in the
//! running process, restart the process, cut the power. fsck is the judge each time.
//! Two negative controls show that the table can see loss: a disk whose sync does nothing, and a start that trusts
//! the page cache.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::der;
use bulla_formats::entry::{Entry, EntryContent, Kind, LocalTime, Mode, Residency, TreeState};
use bulla_formats::hash::empty_root;
use bulla_formats::retirement::RETIRE;
use bulla_ledger::{AppendError, Ledger, NewEntry, Options};
use common::crash_store::{CrashStore, Fault, Spared};
use common::{
    Acknowledged, is_missing, judge_ledger, judge_store, options, plain_entry, reopen, rich_entry, run_fsck,
};

const ERRORS: [Fault; 3] = [Fault::Lost, Fault::DoneButErrored, Fault::Torn];
const CUTS: [Spared; 5] =
    [Spared::Nothing, Spared::Everything, Spared::Random(1), Spared::Random(2), Spared::Random(3)];

/// One row group of the table: how the log stands before, and the batch whose append is made to fail.
struct Case {
    name: &'static str,
    options: Options,
    before: Vec<Vec<NewEntry>>,
    batch: Vec<NewEntry>,
}

impl Case {
    fn start(&self, store: CrashStore) -> (CrashStore, Ledger, Acknowledged) {
        let mut ledger = Ledger::create(store.shared(), common::ORIGIN, self.options.clone()).unwrap();
        let mut acknowledged = Acknowledged::default();
        self.before.iter().for_each(|batch| acknowledged.append(&mut ledger, batch.clone()));
        (store, ledger, acknowledged)
    }

    /// Disk operations of the append, as a range of operation numbers.
    fn span(&self) -> std::ops::Range<u64> {
        let (store, mut ledger, _) = self.start(CrashStore::new());
        let first = store.operations();
        ledger.append(self.batch.clone()).unwrap();
        first..store.operations()
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case { name: "first append", options: options(1 << 20), before: vec![], batch: vec![rich_entry(0)] },
        Case {
            name: "one more append",
            options: options(1 << 20),
            before: vec![vec![rich_entry(0), rich_entry(1)], vec![rich_entry(2)]],
            batch: vec![rich_entry(3), rich_entry(4)],
        },
        Case {
            name: "append across a tile boundary",
            options: options(1 << 20),
            before: vec![(0..254).map(plain_entry).collect(), vec![rich_entry(254)]],
            batch: (255..258).map(rich_entry).collect(),
        },
        Case {
            name: "rollover",
            options: options(4),
            before: vec![
                vec![rich_entry(0), rich_entry(1), rich_entry(2)],
                vec![rich_entry(3), rich_entry(4)],
            ],
            batch: vec![rich_entry(5)],
        },
    ]
}

/// The append failed or not; what follows must hold in both cases.
fn appended(
    case: &Case,
    ledger: &mut Ledger,
    acknowledged: &mut Acknowledged,
    context: &str,
) -> Result<(), AppendError> {
    match ledger.append(case.batch.clone()) {
        Ok(committed) => {
            acknowledged.enter(case.batch.clone(), &committed);
            Ok(())
        }
        Err(error) => {
            let storage = matches!(error, AppendError::Storage(_) | AppendError::Mismatch(_));
            assert!(storage, "{context}: {error}");
            assert!(ledger.is_poisoned(), "{context}: {error}");
            assert!(matches!(ledger.append(vec![plain_entry(9)]), Err(AppendError::Poisoned)), "{context}");
            Err(error)
        }
    }
}

#[test]
fn g10_after_any_failed_operation_of_an_append_the_log_recovers_in_place() {
    for case in cases() {
        for operation in case.span() {
            for fault in ERRORS {
                let context = format!("{}, operation {operation}, {fault:?}", case.name);
                let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
                store.aim(operation, fault);
                let outcome = appended(&case, &mut ledger, &mut acknowledged, &context);
                assert!(!store.disarm(), "{context}: the fault did not happen");
                // Proven entries stay readable while the writer is poisoned.
                judge_ledger(&ledger, &acknowledged, &[]).unwrap_or_else(|what| panic!("{context}: {what}"));
                if outcome.is_err() {
                    ledger.recover().unwrap_or_else(|error| panic!("{context}: {error}"));
                    // Without openings first: those of the batch in limbo must not turn up at its index.
                    acknowledged.append(&mut ledger, vec![plain_entry(99)]);
                    acknowledged.append(&mut ledger, case.batch.clone());
                    judge_ledger(&ledger, &acknowledged, &[])
                        .unwrap_or_else(|what| panic!("{context}: {what}"));
                }
                drop(ledger);
                // What was acknowledged after the recovery must not stand on what the failed sync lost.
                store.reboot(Spared::Nothing);
                judge_store(&store.shared(), &case.options, &acknowledged, &[])
                    .unwrap_or_else(|what| panic!("{context}: {what}"));
            }
        }
    }
}

#[test]
fn g1_after_any_failed_operation_of_an_append_a_restart_has_everything_acknowledged() {
    for case in cases() {
        for operation in case.span() {
            for fault in ERRORS {
                for cut in [None, Some(Spared::Nothing), Some(Spared::Random(operation))] {
                    let context = format!("{}, operation {operation}, {fault:?}, then {cut:?}", case.name);
                    let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
                    store.aim(operation, fault);
                    let outcome = appended(&case, &mut ledger, &mut acknowledged, &context);
                    match cut {
                        None => drop(ledger),
                        Some(spared) => {
                            // Dropping closes the files; a process that lost its power does not get to do that.
                            std::mem::forget(ledger);
                            store.reboot(spared);
                        }
                    }
                    let limbo = if outcome.is_err() { case.batch.as_slice() } else { &[] };
                    judge_store(&store.shared(), &case.options, &acknowledged, limbo)
                        .unwrap_or_else(|what| panic!("{context}: {what}"));
                }
            }
        }
    }
}

/// An entry after which its log takes no other one.
fn final_entry() -> NewEntry {
    let body = OperatorActionBody {
        action: RETIRE.to_owned(),
        parameters: Vec::new(),
        reason: "end of life".to_owned(),
        approvals: Vec::new(),
    };
    let content = EntryContent {
        version: 1,
        index: 3,
        lamport: 9,
        time: LocalTime { unix_millis: 1_790_000_000_000, uncertainty_millis: None },
        mode: Mode::AirGapped,
        drill: false,
        epoch: 0,
        residency: Residency::Software,
        previous: TreeState::new(0, empty_root()),
        evidence: None,
        kind: Kind::OperatorAction as u16,
        body: der::encode(&body).into(),
    };
    let entry = Entry::assemble(content, vec![7; 64]).unwrap();
    NewEntry { entry: entry.bytes().to_vec(), ..NewEntry::default() }
}

/// The log has ended, here and after every start.
fn has_ended(ledger: &mut Ledger, context: &str) {
    assert!(ledger.has_ended(), "{context}");
    let size = ledger.size();
    for batch in [vec![plain_entry(9)], vec![final_entry()], vec![rich_entry(10), final_entry()]] {
        let refused = ledger.append(batch);
        assert!(matches!(refused, Err(AppendError::Ended { index }) if index + 1 == size), "{context}");
    }
    assert!(!ledger.is_poisoned() && ledger.size() == size, "{context}");
}

/// Whatever fails while the final entry is written: the log has it and takes nothing more, or has it not and goes on.
#[test]
fn g10_a_log_ends_whole_or_goes_on_whatever_fails_while_its_final_entry_is_written() {
    let case = Case {
        name: "final entry",
        options: options(1 << 20),
        before: vec![vec![rich_entry(0), rich_entry(1)], vec![rich_entry(2)]],
        batch: vec![final_entry()],
    };
    let (_, mut ledger, _) = case.start(CrashStore::new());
    for batch in [vec![final_entry(), plain_entry(3)], vec![final_entry(), final_entry()]] {
        assert!(matches!(ledger.append(batch), Err(AppendError::BehindTheEnd { position: 0 })));
    }
    assert!(!ledger.has_ended() && ledger.size() == 3);
    for operation in case.span() {
        for fault in ERRORS {
            for cut in
                [None, Some(Spared::Nothing), Some(Spared::Everything), Some(Spared::Random(operation))]
            {
                let context = format!("operation {operation}, {fault:?}, then {cut:?}");
                let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
                store.aim(operation, fault);
                let outcome = appended(&case, &mut ledger, &mut acknowledged, &context);
                assert_eq!(ledger.has_ended(), outcome.is_ok(), "{context}");
                store.disarm();
                match cut {
                    // In place: what is in limbo is not in the log, which goes on, and ends later.
                    None if outcome.is_err() => {
                        ledger.recover().unwrap_or_else(|error| panic!("{context}: {error}"));
                        assert!(!ledger.has_ended(), "{context}");
                        acknowledged.append(&mut ledger, vec![plain_entry(99)]);
                        acknowledged.append(&mut ledger, case.batch.clone());
                        drop(ledger);
                    }
                    None => drop(ledger),
                    Some(spared) => {
                        std::mem::forget(ledger);
                        store.reboot(spared);
                    }
                }
                let mut ledger = reopen(&store.shared(), &case.options).unwrap();
                let limbo = if ledger.size() > acknowledged.size() { case.batch.as_slice() } else { &[] };
                judge_ledger(&ledger, &acknowledged, limbo)
                    .unwrap_or_else(|what| panic!("{context}: {what}"));
                assert!(ledger.size() == 3 || ledger.has_ended(), "{context}");
                if !ledger.has_ended() {
                    ledger.append(case.batch.clone()).unwrap_or_else(|error| panic!("{context}: {error}"));
                }
                has_ended(&mut ledger, &context);
                drop(ledger);
                has_ended(&mut reopen(&store.shared(), &case.options).unwrap(), &context);
            }
        }
    }
}

/// A process dies where a file has its name and the name is not durable yet: what the next one writes to that file must
/// not go with the name.
#[test]
fn g1_a_restart_builds_on_no_name_that_is_not_durable() {
    for case in cases() {
        for operation in case.span() {
            for fault in ERRORS {
                let context = format!("{}, operation {operation}, {fault:?}", case.name);
                let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
                store.aim(operation, fault);
                if appended(&case, &mut ledger, &mut acknowledged, &context).is_ok() {
                    continue;
                }
                std::mem::forget(ledger);
                let mut ledger = reopen(&store.shared(), &case.options).unwrap();
                if ledger.size() > acknowledged.size() {
                    acknowledged.batch.extend_from_slice(&case.batch);
                    acknowledged.heads.push((ledger.size(), ledger.root()));
                }
                acknowledged.append(&mut ledger, vec![rich_entry(70), rich_entry(71)]);
                std::mem::forget(ledger);
                store.reboot(Spared::Nothing);
                judge_store(&store.shared(), &case.options, &acknowledged, &[])
                    .unwrap_or_else(|what| panic!("{context}: {what}"));
            }
        }
    }
}

#[test]
fn g1_a_power_cut_before_any_operation_of_an_append_loses_nothing_acknowledged() {
    for case in cases() {
        for operation in case.span() {
            for spared in CUTS {
                let context = format!("{}, power cut at operation {operation}, {spared:?}", case.name);
                let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
                store.aim(operation, Fault::PowerCut);
                let outcome = appended(&case, &mut ledger, &mut acknowledged, &context);
                std::mem::forget(ledger);
                store.reboot(spared);
                let limbo = if outcome.is_err() { case.batch.as_slice() } else { &[] };
                judge_store(&store.shared(), &case.options, &acknowledged, limbo)
                    .unwrap_or_else(|what| panic!("{context}: {what}"));
            }
        }
    }
}

#[test]
fn g1_a_power_cut_right_after_the_answer_loses_nothing() {
    for case in cases() {
        for spared in CUTS {
            let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
            acknowledged.append(&mut ledger, case.batch.clone());
            std::mem::forget(ledger);
            store.reboot(spared);
            judge_store(&store.shared(), &case.options, &acknowledged, &[])
                .unwrap_or_else(|what| panic!("{}, {spared:?}: {what}", case.name));
        }
    }
}

#[test]
fn g10_a_fault_inside_the_recovery_is_recovered_from_too() {
    for case in cases() {
        // The failing append: its last sync is lost, so the batch is in limbo.
        let last_operation = case.span().end - 1;
        let fail = |store: &CrashStore, ledger: &mut Ledger, acknowledged: &mut Acknowledged| {
            store.aim(last_operation, Fault::Lost);
            appended(&case, ledger, acknowledged, case.name).unwrap_err();
        };
        let span = {
            let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
            fail(&store, &mut ledger, &mut acknowledged);
            let first = store.operations();
            ledger.recover().unwrap();
            first..store.operations()
        };
        assert!(!span.is_empty());
        for operation in span {
            for fault in ERRORS.into_iter().chain([Fault::PowerCut]) {
                for restart in
                    [None, Some(Spared::Nothing), Some(Spared::Everything), Some(Spared::Random(operation))]
                {
                    let context =
                        format!("{}, operation {operation} of recover, {fault:?}, {restart:?}", case.name);
                    let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
                    fail(&store, &mut ledger, &mut acknowledged);
                    store.aim(operation, fault);
                    let failed = ledger.recover().is_err();
                    judge_ledger_unless_dark(&ledger, &acknowledged, fault, &context);
                    match restart {
                        None if fault != Fault::PowerCut => {
                            if failed {
                                assert!(ledger.is_poisoned(), "{context}");
                                ledger.recover().unwrap_or_else(|error| panic!("{context}: {error}"));
                            }
                            acknowledged.append(&mut ledger, case.batch.clone());
                            drop(ledger);
                            store.reboot(Spared::Nothing);
                            judge_store(&store.shared(), &case.options, &acknowledged, &[])
                        }
                        None => continue,
                        Some(spared) => {
                            std::mem::forget(ledger);
                            store.reboot(spared);
                            judge_store(&store.shared(), &case.options, &acknowledged, &case.batch)
                        }
                    }
                    .unwrap_or_else(|what| panic!("{context}: {what}"));
                }
            }
        }
    }
}

fn judge_ledger_unless_dark(ledger: &Ledger, acknowledged: &Acknowledged, fault: Fault, context: &str) {
    if fault != Fault::PowerCut {
        judge_ledger(ledger, acknowledged, &[]).unwrap_or_else(|what| panic!("{context}: {what}"));
    }
}

/// Erased is erased, whatever failed: done again, as the promise of the erasure has it done, nothing is left of the
/// key, and nothing else is lost.
#[test]
fn g5_an_erasure_that_fails_at_any_operation_can_be_done_again() {
    let start = || {
        let store = CrashStore::new();
        let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options(1 << 20)).unwrap();
        let mut acknowledged = Acknowledged::default();
        acknowledged.append(&mut ledger, (0..6).map(rich_entry).collect());
        // Two earlier ones, so that the node that gives way is not the root.
        ledger.erase_openings(&[1, 5]).unwrap();
        acknowledged.batch[1].openings = None;
        acknowledged.batch[5].openings = None;
        (store, ledger, acknowledged)
    };
    let others_are_there = |ledger: &Ledger, acknowledged: &Acknowledged, context: &str| {
        for (index, new) in (0..).zip(&acknowledged.batch).filter(|(index, _)| *index != 2) {
            let found = ledger.reader().openings(index).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(found.as_deref(), new.openings.as_ref(), "{context}: {index}");
        }
    };
    let span = {
        let (store, ledger, _) = start();
        let first = store.operations();
        ledger.erase_openings(&[2]).unwrap();
        first..store.operations()
    };
    let restarts = [None, Some(Spared::Nothing), Some(Spared::Everything), Some(Spared::Random(5))];
    for operation in span {
        for fault in ERRORS.into_iter().chain([Fault::PowerCut]) {
            for restart in restarts.into_iter().filter(|it| it.is_some() || fault != Fault::PowerCut) {
                let context = format!("operation {operation} of erase, {fault:?}, {restart:?}");
                let (mut store, mut ledger, mut acknowledged) = start();
                let secrets = common::secrets_above(&store.shared(), 2);
                assert!((2..17).contains(&secrets.len()));
                store.aim(operation, fault);
                let erased = ledger.erase_openings(&[2]);
                assert!(!store.disarm(), "{context}: the fault did not happen");
                if let Some(spared) = restart {
                    // What the old process does while it ends reaches the old disk only.
                    store = store.copy();
                    store.reboot(spared);
                    let report = run_fsck(&store.shared(), false);
                    assert!(report.is_clean(), "{context}: {:?}", report.problems);
                    ledger = reopen(&store.shared(), &options(1 << 20)).unwrap();
                }
                others_are_there(&ledger, &acknowledged, &context);
                if erased.is_err() {
                    ledger.erase_openings(&[2]).unwrap_or_else(|error| panic!("{context}: {error}"));
                }
                assert!(!common::holds_any(&store.shared(), &secrets), "{context}: a secret is left");
                acknowledged.batch[2].openings = None;
                acknowledged.append(&mut ledger, vec![rich_entry(6)]);
                drop(ledger);
                // Nor does it come back with what the disk has.
                store.reboot(Spared::Nothing);
                assert!(!common::holds_any(&store.shared(), &secrets), "{context}: a secret came back");
                judge_store(&store.shared(), &options(1 << 20), &acknowledged, &[])
                    .unwrap_or_else(|what| panic!("{context}: {what}"));
            }
        }
    }
}

#[test]
fn g2_a_bit_that_changes_on_the_way_to_the_disk_is_never_handed_out() {
    for case in cases() {
        for operation in case.span() {
            for restart in [None, Some(Spared::Nothing)] {
                let context = format!("{}, bit flip at operation {operation}, {restart:?}", case.name);
                let (store, mut ledger, mut acknowledged) = case.start(CrashStore::new());
                store.aim(operation, Fault::BitFlip);
                appended(&case, &mut ledger, &mut acknowledged, &context).unwrap_or(());
                match restart {
                    None => drop(ledger),
                    Some(spared) => {
                        std::mem::forget(ledger);
                        store.reboot(spared);
                    }
                }
                // A disk that changes bits can lose what it was given, and only a mirror brings that back; but what
                // a start accepts is what was acknowledged, never other bytes under the same index.
                let Ok(ledger) = reopen(&store.shared(), &case.options) else { continue };
                for row in ledger.reader().entries(0..ledger.size()) {
                    let (index, entry) = row.unwrap_or_else(|error| panic!("{context}: {error}"));
                    assert_eq!(entry, acknowledged.batch[index as usize].entry, "{context}");
                    if let Ok(Some(openings)) = ledger.reader().openings(index) {
                        assert_eq!(
                            Some(&*openings),
                            acknowledged.batch[index as usize].openings.as_ref(),
                            "{context}"
                        );
                    }
                }
                let stated = acknowledged.heads.iter().find(|(size, _)| *size == ledger.size());
                assert!(stated.is_none_or(|(_, root)| *root == ledger.root()), "{context}");
            }
        }
    }
}

#[test]
fn creation_is_done_or_not_done_and_can_be_repeated() {
    let options = options(1 << 20);
    let create = |store: &CrashStore| Ledger::create(store.shared(), common::ORIGIN, options.clone());
    let store = CrashStore::new();
    create(&store).unwrap();
    for operation in 0..store.operations() {
        for fault in ERRORS.into_iter().chain([Fault::PowerCut]) {
            for restart in
                [None, Some(Spared::Nothing), Some(Spared::Random(operation)), Some(Spared::Everything)]
            {
                let context = format!("operation {operation} of create, {fault:?}, {restart:?}");
                let store = CrashStore::new();
                store.aim(operation, fault);
                let created = create(&store).map(std::mem::forget);
                store.disarm();
                match restart {
                    Some(spared) => store.reboot(spared),
                    None if fault == Fault::PowerCut => continue,
                    None => {}
                }
                if is_missing(&store.shared(), &options) {
                    assert!(created.is_err(), "{context}: created and gone");
                    drop(create(&store).unwrap_or_else(|error| panic!("{context}: {error}")));
                }
                judge_store(&store.shared(), &options, &Acknowledged::default(), &[])
                    .unwrap_or_else(|what| panic!("{context}: {what}"));
            }
        }
    }
}

#[test]
fn negative_control_a_disk_whose_sync_does_nothing_is_noticed() {
    for case in cases() {
        let (store, mut ledger, mut acknowledged) = case.start(CrashStore::whose_sync_does_nothing());
        acknowledged.append(&mut ledger, case.batch.clone());
        std::mem::forget(ledger);
        store.reboot(Spared::Nothing);
        judge_store(&store.shared(), &case.options, &acknowledged, &[])
            .expect_err("the harness must see that acknowledged entries are lost");
    }
}

#[test]
fn negative_control_a_start_that_trusts_the_page_cache_is_noticed() {
    // Large enough that the next commit does not rewrite every page of the lost one.
    let large = |number| NewEntry { entry: vec![number as u8; 3000], ..NewEntry::default() };
    let case = Case {
        name: "large batch",
        options: options(1 << 20),
        before: vec![vec![rich_entry(0)]],
        batch: (0..40).map(large).collect(),
    };
    // A restart after a failed sync, without a power cut: the kernel still shows what the disk never got.
    let lost = |store: CrashStore| {
        let (store, mut ledger, acknowledged) = case.start(store);
        let last = case.span().end - 1;
        store.aim(last, Fault::Lost);
        ledger.append(case.batch.clone()).unwrap_err();
        std::mem::forget(ledger);
        let mut ledger = reopen(&store.shared(), &case.options)?;
        let limbo = if ledger.size() > acknowledged.size() { case.batch.as_slice() } else { &[] };
        let mut after = acknowledged.clone();
        after.batch.extend_from_slice(limbo);
        after.heads.push((ledger.size(), ledger.root()));
        after.append(&mut ledger, vec![rich_entry(77)]);
        std::mem::forget(ledger);
        store.reboot(Spared::Nothing);
        judge_store(&store.shared(), &case.options, &after, &[])
    };
    lost(CrashStore::new()).unwrap();
    lost(CrashStore::that_keeps_the_cache()).expect_err("the harness must see that the cache was believed");
}
