//! The error table of the control database: the counter intent must never be lost once it was acknowledged, because
//! a lost intent looks like a rolled-back disk (G2).
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::sha256;
use bulla_ledger::{Intent, Ledger};
use common::crash_store::{CrashStore, Fault, Spared};
use common::{options, reopen};

fn intent(counter: u64) -> Intent {
    Intent { counter, size: counter, root: sha256(&[&counter.to_be_bytes()]) }
}

fn start(existing: bool) -> (CrashStore, Ledger) {
    let store = CrashStore::new();
    let ledger = Ledger::create(store.shared(), common::ORIGIN, options(8)).unwrap();
    if existing {
        ledger.control().commit_intent(intent(1)).unwrap();
    }
    (store, ledger)
}

#[test]
fn g2_an_acknowledged_intent_survives_every_failed_operation_and_power_cut() {
    for existing in [false, true] {
        let span = {
            let (store, ledger) = start(existing);
            let first = store.operations();
            ledger.control().commit_intent(intent(2)).unwrap();
            first..store.operations()
        };
        for operation in span {
            for fault in [Fault::Lost, Fault::DoneButErrored, Fault::Torn, Fault::PowerCut] {
                for spared in [Spared::Nothing, Spared::Everything, Spared::Random(operation)] {
                    let context =
                        format!("existing {existing}, operation {operation}, {fault:?}, {spared:?}");
                    let (store, ledger) = start(existing);
                    let control = ledger.control();
                    store.aim(operation, fault);
                    let mut acknowledged = existing.then(|| intent(1));
                    let mut limbo = None;
                    match control.commit_intent(intent(2)) {
                        Ok(()) => acknowledged = Some(intent(2)),
                        Err(_) => limbo = Some(intent(2)),
                    }
                    if fault != Fault::PowerCut {
                        // Readable at once, and writable again without any ceremony: to a fresh file.
                        let read = control.intent().unwrap_or_else(|error| panic!("{context}: {error}"));
                        assert!(read == acknowledged || read == limbo, "{context}: {read:?}");
                        control.commit_intent(intent(3)).unwrap_or_else(|error| panic!("{context}: {error}"));
                        (acknowledged, limbo) = (Some(intent(3)), None);
                    }
                    std::mem::forget((ledger, control));
                    store.reboot(spared);
                    let control = reopen(&store.shared(), &options(8)).unwrap().control();
                    let read = control.intent().unwrap_or_else(|error| panic!("{context}: {error}"));
                    assert!(
                        read == acknowledged || (limbo.is_some() && read == limbo),
                        "{context}: {read:?}"
                    );
                }
            }
        }
    }
}
