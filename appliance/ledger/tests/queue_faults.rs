//! The error table of the queue: a request that was promised a seal is never lost and never in the queue twice,
//! whatever the disk does at whatever moment of queueing and draining (G3).
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_ledger::{
    Ledger, NewEntry, NewQueued, Options, PushError, Queue, QueueId, QueueOutcome, QueueState, Request,
};
use common::crash_store::{CrashStore, Fault, Spared};
use common::{options, plain_entry, reopen, request, run_fsck};

const ERRORS: [Fault; 3] = [Fault::Lost, Fault::DoneButErrored, Fault::Torn];
const CUTS: [Spared; 4] = [Spared::Nothing, Spared::Everything, Spared::Random(1), Spared::Random(2)];

fn order(number: u64) -> Vec<u8> {
    format!("order {number} {}", "of a person ".repeat(number as usize % 9)).into_bytes()
}

fn queued(number: u64) -> NewQueued {
    NewQueued {
        queued_ms: 1_000 + number,
        request: Some(request(number)),
        client: format!("scanner-{}", number % 2),
        order: order(number),
    }
}

/// The entry that a queued order becomes.
fn entry(number: u64, request: Request) -> NewEntry {
    NewEntry { entry: order(number), request: Some(request), ..NewEntry::default() }
}

/// Orders that wait, oldest first, after checking what the handle says of each.
fn waiting(queue: &Queue) -> Vec<Vec<u8>> {
    let rows = queue.oldest(usize::MAX).unwrap();
    let depth = queue.depth();
    assert_eq!(depth.entries, rows.len() as u64);
    assert_eq!(depth.oldest_ms, rows.first().map(|row| row.row.queued_ms));
    let mut bytes = 0;
    let orders = rows.iter().zip(1u64..).map(|(row, at)| {
        let order = row.order.as_ref().expect("a promised row decrypts").to_vec();
        bytes += order.len() as u64;
        let (found, position) = queue.find_request(&row.row.request.key).unwrap();
        assert_eq!((&found, position), (&row.row, at));
        assert_eq!(
            queue.look(row.row.id).unwrap(),
            Some(QueueState::Waiting { row: row.row.clone(), position })
        );
        order
    });
    let orders: Vec<_> = orders.collect();
    assert_eq!(depth.bytes, bytes);
    orders
}

/// A log with one entry, whose queue holds orders `0..rows`.
fn start(rows: u64) -> (CrashStore, Ledger) {
    let store = CrashStore::new();
    let mut ledger = Ledger::create(store.shared(), common::ORIGIN, options(8)).unwrap();
    ledger.append(vec![plain_entry(0)]).unwrap();
    if rows > 0 {
        let new: Vec<_> = (0..rows).map(queued).collect();
        ledger.queue().push(&new).unwrap();
    }
    (store, ledger)
}

/// Disk operations of what `work` does after `start(rows)`.
fn span(rows: u64, work: fn(&mut Ledger)) -> std::ops::Range<u64> {
    let (store, mut ledger) = start(rows);
    let first = store.operations();
    work(&mut ledger);
    first..store.operations()
}

fn clean(store: &CrashStore, context: &str) {
    let report = run_fsck(&store.shared(), false);
    assert!(report.is_clean(), "{context}: {:?}", report.problems);
}

#[test]
fn g3_a_promise_survives_every_failed_operation_of_queueing() {
    fn push(ledger: &mut Ledger) {
        ledger.queue().push(&[queued(7), queued(8)]).unwrap();
    }
    for rows in [0, 2] {
        let before: Vec<_> = (0..rows).map(order).collect();
        let after: Vec<_> = before.iter().cloned().chain([order(7), order(8)]).collect();
        for operation in span(rows, push) {
            for fault in ERRORS.into_iter().chain([Fault::PowerCut]) {
                for cut in CUTS {
                    let context = format!("{rows} rows, operation {operation}, {fault:?}, {cut:?}");
                    let (store, ledger) = start(rows);
                    let queue = ledger.queue();
                    store.aim(operation, fault);
                    let outcome = queue.push(&[queued(7), queued(8)]);
                    let mut promised = if outcome.is_ok() { after.clone() } else { before.clone() };
                    let mut limbo = outcome.is_err();
                    if fault != Fault::PowerCut {
                        store.disarm();
                        // What failed is not there, and does not come back behind what is taken next.
                        assert_eq!(waiting(&queue), promised, "{context}");
                        if limbo {
                            queue.push(&[queued(9)]).unwrap_or_else(|error| panic!("{context}: {error}"));
                            promised.push(order(9));
                            limbo = false;
                            assert_eq!(waiting(&queue), promised, "{context}");
                        }
                    }
                    std::mem::forget((ledger, queue));
                    store.reboot(cut);
                    let ledger = reopen(&store.shared(), &options(8)).unwrap();
                    let found = waiting(&ledger.queue());
                    assert!(found == promised || (limbo && found == after), "{context}: {found:?}");
                    drop(ledger);
                    clean(&store, &context);
                }
            }
        }
    }
}

/// What the writer does with the queue's oldest rows; `Err` at the first failure, as a dying process would.
fn drain(ledger: &mut Ledger) -> Result<(), String> {
    let queue = ledger.queue();
    let mut outcomes: Vec<(QueueId, QueueOutcome)> = Vec::new();
    let mut batch = Vec::new();
    let mut fresh = Vec::new();
    for row in queue.oldest(2).map_err(|error| error.to_string())? {
        let known = ledger.reader().find_request(&row.row.request.key).map_err(|error| error.to_string())?;
        match known {
            Some((index, _)) => outcomes.push((row.row.id, QueueOutcome::Sealed { index })),
            None => {
                fresh.push(row.row.id);
                let entry = row.order.expect("a promised row decrypts").to_vec();
                batch.push(NewEntry { entry, request: Some(row.row.request), ..NewEntry::default() });
            }
        }
    }
    if !batch.is_empty() {
        let committed = ledger.append(batch).map_err(|error| error.to_string())?;
        let sealed = (committed.first()..).map(|index| QueueOutcome::Sealed { index });
        outcomes.extend(fresh.into_iter().zip(sealed));
    }
    queue.finish(&outcomes).map_err(|error| error.to_string())?;
    queue.scrub().map_err(|error| error.to_string())
}

#[test]
fn g3_each_promise_becomes_one_entry_whatever_fails_while_draining() {
    fn work(ledger: &mut Ledger) {
        drain(ledger).unwrap();
    }
    for rows in [2, 3] {
        for operation in span(rows, work) {
            for fault in ERRORS.into_iter().chain([Fault::PowerCut]) {
                for restart in [None, Some(CUTS[0]), Some(CUTS[1]), Some(CUTS[2])] {
                    if fault == Fault::PowerCut && restart.is_none() {
                        continue;
                    }
                    let context = format!("{rows} rows, operation {operation}, {fault:?}, then {restart:?}");
                    let (store, mut ledger) = start(rows);
                    store.aim(operation, fault);
                    let _failed = drain(&mut ledger);
                    if fault != Fault::PowerCut {
                        store.disarm();
                    }
                    let mut ledger = match restart {
                        None => ledger,
                        Some(spared) => {
                            std::mem::forget(ledger);
                            store.reboot(spared);
                            reopen(&store.shared(), &options(8)).unwrap_or_else(|e| panic!("{context}: {e}"))
                        }
                    };
                    if ledger.is_poisoned() {
                        ledger.recover().unwrap_or_else(|error| panic!("{context}: {error}"));
                    }
                    while ledger.queue().depth().entries > 0 {
                        drain(&mut ledger).unwrap_or_else(|error| panic!("{context}: {error}"));
                    }
                    ledger.queue().scrub().unwrap_or_else(|error| panic!("{context}: {error}"));
                    let sealed: Vec<Vec<u8>> =
                        ledger.reader().entries(1..ledger.size()).map(|row| row.unwrap().1).collect();
                    let expected: Vec<_> = (0..rows).map(order).collect();
                    assert_eq!(sealed, expected, "{context}");
                    drop(ledger);
                    store.reboot(Spared::Nothing);
                    let ledger = reopen(&store.shared(), &options(8)).unwrap();
                    assert_eq!((ledger.size(), ledger.queue().depth().entries), (1 + rows, 0), "{context}");
                    drop(ledger);
                    clean(&store, &context);
                }
            }
        }
    }
}

#[test]
fn outcomes_are_found_by_name_and_places_are_never_given_twice() {
    let (store, mut ledger) = start(3);
    let queue = ledger.queue();
    let names: Vec<QueueId> = queue.oldest(9).unwrap().iter().map(|row| row.row.id).collect();
    let committed = ledger.append(vec![entry(0, request(0))]).unwrap();
    let sealed = QueueOutcome::Sealed { index: committed.first() };
    let refused = QueueOutcome::Refused { reason: "it is damaged".to_owned() };
    queue.finish(&[(names[0], sealed.clone()), (names[1], refused.clone())]).unwrap();
    // A second time, as after an error of unknown effect.
    queue.finish(&[(names[0], sealed.clone())]).unwrap();
    for queue in [queue, {
        drop(ledger);
        reopen(&store.shared(), &options(8)).unwrap().queue()
    }] {
        for (name, outcome, client) in [(names[0], &sealed, "scanner-0"), (names[1], &refused, "scanner-1")] {
            let expected = QueueState::Done {
                client: client.to_owned(),
                queued_ms: 1_000 + name.place,
                outcome: outcome.clone(),
            };
            assert_eq!(queue.look(name).unwrap(), Some(expected));
            assert_eq!(
                queue.look(QueueId { tag: [0; 8], ..name }).unwrap(),
                None,
                "the tag is part of the name"
            );
        }
        assert!(matches!(queue.look(names[2]).unwrap(), Some(QueueState::Waiting { position: 1, .. })));
        assert_eq!(queue.look(QueueId { place: 99, tag: [0; 8] }).unwrap(), None);
        assert_eq!(waiting(&queue), [order(2)]);
    }
    let ledger = reopen(&store.shared(), &options(8)).unwrap();
    let queue = ledger.queue();
    queue.finish(&[(names[2], refused)]).unwrap();
    queue.scrub().unwrap();
    drop((ledger, queue));
    let ledger = reopen(&store.shared(), &options(8)).unwrap();
    let rows = ledger.queue().push(&[queued(4)]).unwrap();
    assert_eq!(rows[0].id.place, 3);
}

#[test]
fn a_request_without_a_key_gets_one_of_its_own() {
    let (_store, ledger) = start(0);
    let anonymous = NewQueued { request: None, ..queued(1) };
    let rows = ledger.queue().push(&[anonymous.clone(), anonymous]).unwrap();
    assert_ne!(rows[0].request.key, rows[1].request.key);
    assert_ne!(rows[0].id.tag, rows[1].id.tag);
    assert_eq!(ledger.queue().find_request(&rows[1].request.key), Some((rows[1].clone(), 2)));
}

#[test]
fn nothing_is_queued_without_room() {
    let store = CrashStore::new();
    let reserve = Options { reserve_bytes: 1 << 20, ..options(8) };
    let ledger = Ledger::create(store.shared(), common::ORIGIN, reserve).unwrap();
    store.set_room(u64::MAX, (1 << 20) + 50);
    let before = store.operations();
    let refused = ledger.queue().push(&[queued(1)]).unwrap_err();
    assert!(matches!(refused, PushError::Full { .. }), "{refused}");
    assert_eq!((store.operations(), ledger.queue().depth().entries), (before, 0));
}

/// G5: what a drained order held is in no byte of the file; a waiting one is there only encrypted.
#[test]
fn g5_drained_orders_are_in_no_byte_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store: std::sync::Arc<dyn bulla_ledger::Store> =
        std::sync::Arc::new(bulla_ledger::DirStore::open(dir.path()).unwrap());
    let ledger = Ledger::create(store, common::ORIGIN, options(8)).unwrap();
    let queue = ledger.queue();
    let rows = queue.push(&(0..20).map(queued).collect::<Vec<_>>()).unwrap();
    let file = || std::fs::read(dir.path().join("queue.redb")).unwrap();
    let holds = |needle: &[u8]| file().windows(needle.len()).any(|bytes| bytes == needle);
    assert!(!holds(b"of a person"));
    let (tag, key) = (rows[5].id.tag, rows[5].request.key);
    assert!(holds(&key));
    let outcomes: Vec<_> =
        rows.iter().map(|row| (row.id, QueueOutcome::Sealed { index: row.id.place })).collect();
    queue.finish(&outcomes).unwrap();
    queue.scrub().unwrap();
    assert!(holds(&tag), "the outcome is kept");
    assert!(!holds(&key), "the row is not");
}

/// A changed row is found by fsck, is given out as damaged, and holds up nobody.
#[test]
fn damage_to_a_row_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let open = || -> std::sync::Arc<dyn bulla_ledger::Store> {
        std::sync::Arc::new(bulla_ledger::DirStore::open(dir.path()).unwrap())
    };
    let mut ledger = Ledger::create(open(), common::ORIGIN, options(8)).unwrap();
    ledger.append(vec![plain_entry(0)]).unwrap();
    ledger.queue().push(&[queued(0), queued(1)]).unwrap();
    drop(ledger);
    {
        let db = redb::Database::open(dir.path().join("queue.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        let rows = redb::TableDefinition::<u64, &[u8]>::new("rows-2");
        let mut bytes =
            redb::ReadableTable::get(&txn.open_table(rows).unwrap(), 0).unwrap().unwrap().value().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        txn.open_table(rows).unwrap().insert(0, bytes.as_slice()).unwrap();
        txn.commit().unwrap();
    }
    let report = run_fsck(&open(), false);
    assert!(report.problems.iter().any(|it| it.file == "queue.redb" && it.what.contains("place 0")));
    let ledger = reopen(&open(), &options(8)).unwrap();
    let rows = ledger.queue().oldest(9).unwrap();
    assert!(rows[0].order.is_none() && rows[1].order.is_some());
}
