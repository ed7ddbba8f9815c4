//! Random lives of a log against a plain list (G1, G2, G3, G5).
//!
//! Goal: whatever mixture of appends, repeated keys, restarts, power cuts, failed writes and erasures happens, with
//! whatever segment size and key window, the log answers every question as the list does.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{verify_consistency, verify_inclusion};
use bulla_formats::tile::{TileCoordinate, parse_entries, width_at};
use bulla_ledger::{AppendError, Ledger, NewEntry, Options, ReadError};
use common::crash_store::{CrashStore, Fault, Spared};
use common::{options, plain_entry, request, rich_entry, run_fsck};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    /// One entry whose idempotency key was used so many entries ago.
    Repeat(u64),
    Restart,
    PowerCut(u64),
    /// The operation so many ahead fails; then recovery.
    FailedWrite(u64, bool),
    Erase(u64),
    /// So many filters of digests are made, or as many as can be.
    Filters(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1usize..9).prop_map(Step::Append),
        1 => (200usize..300).prop_map(Step::Append),
        3 => (0u64..40).prop_map(Step::Repeat),
        2 => Just(Step::Restart),
        2 => any::<u64>().prop_map(Step::PowerCut),
        3 => (0u64..40, any::<bool>()).prop_map(|(ahead, done)| Step::FailedWrite(ahead, done)),
        1 => any::<u64>().prop_map(Step::Erase),
        2 => (1usize..4).prop_map(Step::Filters),
    ];
    prop::collection::vec(step, 1..25)
}

/// The reference: what was appended, in order.
struct List {
    rows: Vec<NewEntry>,
    numbers: u64,
}

impl List {
    fn fresh(&mut self) -> NewEntry {
        self.numbers += 1;
        if self.numbers.is_multiple_of(3) { plain_entry(self.numbers) } else { rich_entry(self.numbers) }
    }
}

fn check_everything(ledger: &Ledger, list: &List, options: &Options) {
    let (reader, size) = (ledger.reader(), list.rows.len() as u64);
    assert_eq!(reader.size(), size);
    let leaves: Vec<Hash> = list.rows.iter().map(|row| leaf_hash(&row.entry)).collect();
    let read: Vec<(u64, Vec<u8>)> = reader.entries(0..size).collect::<Result<_, _>>().unwrap();
    assert!(read.iter().map(|(index, _)| *index).eq(0..size));
    assert!(read.iter().map(|(_, entry)| entry).eq(list.rows.iter().map(|row| &row.entry)));
    assert_eq!(reader.root(), bulla_formats::merkle::root(size, leaves.as_slice()).unwrap());
    assert!(matches!(reader.entry(size), Err(ReadError::OutOfRange { .. })));

    let snapshot = reader.snapshot();
    for index in (0..size).step_by(7) {
        let proof = snapshot.inclusion_proof(index).unwrap();
        verify_inclusion(index, size, &leaves[index as usize], &proof, &snapshot.root()).unwrap();
        let earlier = index + (size - index).div_ceil(2);
        let proof = reader.inclusion_proof(index, earlier).unwrap();
        let root = reader.root_at(earlier).unwrap();
        verify_inclusion(index, earlier, &leaves[index as usize], &proof, &root).unwrap();
        let proof = reader.consistency_proof(index, earlier).unwrap();
        verify_consistency(index, &reader.root_at(index).unwrap(), earlier, &root, &proof).unwrap();
    }
    for index in 0..=size / 256 {
        for width in [1, width_at(0, index, size) / 2, width_at(0, index, size)] {
            if width == 0 || width > width_at(0, index, size) {
                continue;
            }
            let first = index as usize * 256;
            let rows = first..first + usize::from(width);
            let tile: Vec<u8> = leaves[rows.clone()].iter().flat_map(|leaf| leaf.0).collect();
            assert_eq!(reader.tile(0, index, width).unwrap(), tile);
            let bundle = reader.entry_bundle(index, width).unwrap();
            let entries = parse_entries(&bundle, width).unwrap();
            assert!(entries.iter().copied().eq(list.rows[rows].iter().map(|row| row.entry.as_slice())));
            TileCoordinate::entries(index, width).unwrap();
        }
        let beyond = width_at(0, index, size) + 1;
        assert!(reader.tile(0, index, beyond).is_err() && reader.entry_bundle(index, beyond).is_err());
    }
    for level in 1..3u8 {
        let width = width_at(level, 0, size);
        assert_eq!(reader.tile(level, 0, width.max(1)).is_ok(), width > 0);
    }

    for (index, row) in (0u64..).zip(&list.rows) {
        assert_eq!(reader.openings(index).unwrap().as_deref(), row.openings.as_ref(), "openings of {index}");
        if let Some(request) = row.request {
            let newest = list.rows.iter().rposition(|it| it.request.is_some_and(|it| it.key == request.key));
            let newest = newest.unwrap() as u64;
            let found = reader.find_request(&request.key).unwrap();
            let fingerprint = list.rows[newest as usize].request.unwrap().fingerprint;
            assert_eq!(found, (newest + options.request_window >= size).then_some((newest, fingerprint)));
        }
    }
    // The last kinds were never sealed.
    for kind in 0..12u64 {
        let digest = leaf_hash(&kind.to_be_bytes()).0;
        let has = |row: &NewEntry| row.digest.as_ref().is_some_and(|(_, it)| *it == digest);
        let all: Vec<u64> = (0..size).rev().filter(|index| has(&list.rows[*index as usize])).collect();
        assert_eq!(reader.find_digest(1, &digest, usize::MAX).unwrap(), all);
        assert_eq!(reader.find_digest(1, &digest, 2).unwrap(), all[..all.len().min(2)]);
        assert_eq!(reader.find_digest(2, &digest, 9).unwrap(), [0u64; 0]);
    }
}

fn append(ledger: &mut Ledger, list: &mut List, batch: Vec<NewEntry>) {
    let committed = ledger.append(batch.clone()).unwrap();
    assert_eq!(committed.first(), list.rows.len() as u64);
    list.rows.extend(batch);
    assert_eq!(committed.size(), list.rows.len() as u64);
}

fn open(store: &CrashStore, options: &Options) -> Ledger {
    Ledger::open(store.shared(), common::ORIGIN, options.clone()).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g2_a_log_answers_as_a_list_does(steps in steps(), segment_entries in 1u64..400, request_window in 1u64..60) {
        let options = Options { request_window, ..options(segment_entries) };
        let store = CrashStore::new();
        let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options.clone()).unwrap();
        let mut list = List { rows: Vec::new(), numbers: 0 };
        for step in steps {
            match step {
                Step::Append(count) => {
                    let batch: Vec<_> = (0..count).map(|_| list.fresh()).collect();
                    append(&mut ledger, &mut list, batch);
                }
                Step::Repeat(ago) => {
                    let size = list.rows.len() as u64;
                    let earlier = list.rows.iter().rev().nth(ago as usize).and_then(|row| row.request);
                    let Some(earlier) = earlier else { continue };
                    let newest = list.rows.iter().rposition(|row| row.request.is_some_and(|it| it.key == earlier.key));
                    let newest = newest.unwrap() as u64;
                    let batch = vec![NewEntry { request: Some(earlier), ..plain_entry(u64::MAX - size) }];
                    match ledger.append(batch.clone()) {
                        Ok(_) => {
                            prop_assert!(newest + request_window < size, "{newest} of {size} still counts");
                            list.rows.extend(batch);
                        }
                        Err(AppendError::DuplicateRequest { position: 0, index }) => {
                            prop_assert_eq!(index, newest);
                            prop_assert!(newest + request_window >= size);
                            prop_assert!(!ledger.is_poisoned());
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                Step::Restart => {
                    drop(ledger);
                    ledger = open(&store, &options);
                }
                Step::PowerCut(seed) => {
                    std::mem::forget(ledger);
                    store.reboot(Spared::Random(seed));
                    ledger = open(&store, &options);
                }
                Step::FailedWrite(ahead, done) => {
                    let fault = if done { Fault::DoneButErrored } else { Fault::Lost };
                    store.aim(store.operations() + ahead, fault);
                    let batch = vec![list.fresh()];
                    match ledger.append(batch.clone()) {
                        Ok(_) => list.rows.extend(batch),
                        Err(_) => {
                            prop_assert!(ledger.is_poisoned());
                            prop_assert!(matches!(ledger.append(batch), Err(AppendError::Poisoned)));
                            ledger.recover().unwrap();
                        }
                    }
                    store.disarm();
                }
                Step::Filters(most) => {
                    let reader = ledger.reader();
                    for _ in 0..most {
                        reader.make_digest_filter().unwrap();
                    }
                }
                Step::Erase(pick) => {
                    let Some(at) = pick.checked_rem(list.rows.len() as u64) else { continue };
                    ledger.erase_openings(&[at]).unwrap();
                    list.rows[at as usize].openings = None;
                }
            }
            prop_assert_eq!(ledger.size(), list.rows.len() as u64);
        }
        check_everything(&ledger, &list, &options);
        while ledger.reader().make_digest_filter().unwrap() {}
        check_everything(&ledger, &list, &options);
        drop(ledger);
        // The window of fsck is the default one: keys that were rightly given again would look like duplicates.
        let report = run_fsck(&store.shared(), false);
        let duplicates_only = report.problems.iter().all(|problem| problem.what.contains("idempotency key of entry"));
        prop_assert!(duplicates_only, "{:?}", report.problems);
        prop_assert_eq!(report.entries, list.rows.len() as u64);
        check_everything(&open(&store, &options), &list, &options);
    }
}

#[test]
fn a_batch_that_repeats_a_key_or_breaks_a_bound_is_refused_without_a_trace() {
    let store = CrashStore::new();
    let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options(1 << 20)).unwrap();
    ledger.append(vec![rich_entry(0)]).unwrap();
    let operations = store.operations();
    let with_key = |number, key| NewEntry { request: Some(request(key)), ..plain_entry(number) };
    let twice = ledger.append(vec![with_key(1, 5), plain_entry(2), with_key(3, 5)]).unwrap_err();
    assert!(matches!(twice, AppendError::DuplicateRequest { position: 2, index: 1 }), "{twice}");
    let again = ledger.append(vec![plain_entry(1), with_key(2, 0)]).unwrap_err();
    assert!(matches!(again, AppendError::DuplicateRequest { position: 1, index: 0 }), "{again}");
    assert!(matches!(ledger.append(vec![]), Err(AppendError::BatchSize { entries: 0 })));
    let many = ledger.append(vec![NewEntry::default(); 4097]).unwrap_err();
    assert!(matches!(many, AppendError::BatchSize { entries: 4097 }), "{many}");
    let large = NewEntry { entry: vec![0; 65_536], ..NewEntry::default() };
    let large = ledger.append(vec![plain_entry(1), large]).unwrap_err();
    assert!(matches!(large, AppendError::TooLarge { position: 1, bytes: 65_536 }), "{large}");
    let digest = NewEntry { digest: Some((1, vec![0; 31])), ..plain_entry(1) };
    let digest = ledger.append(vec![digest]).unwrap_err();
    assert!(matches!(digest, AppendError::DigestLength { position: 0, bytes: 31 }), "{digest}");
    assert_eq!(store.operations(), operations);
    assert!(!ledger.is_poisoned());
    // The bounds themselves are inside.
    let longest = NewEntry { entry: vec![7; 65_535], digest: Some((1, vec![1; 64])), ..NewEntry::default() };
    assert_eq!(ledger.append(vec![longest, NewEntry::default()]).unwrap().size(), 3);
    assert_eq!(ledger.reader().entry(1).unwrap(), vec![7; 65_535]);
    assert_eq!(ledger.reader().entry(2).unwrap(), vec![0u8; 0]);
}
