//! What an entry costs a hub: bytes in the archive, bytes in the index, requests of a pull. `docs/scale.md` reckons with
//! these; `cargo test -p bulla-hub --test cost -- --nocapture` prints them.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::enrolment::Hardware;
use common::Log;
use standin::{Served, StandIn, TestHub, grow};

const SEALS: u64 = 16_000;

#[test]
fn an_entry_costs_the_archive_little_more_than_its_bytes() {
    let mut log = Log::new(Hardware::Tpm, 1);
    grow(&mut log, 0, 100);
    let standin = StandIn::start();
    standin.serve(Served::of(&log));
    let hub = TestHub::with(&[("a", &log, &[(&standin, false)])], "threads = 2\n");
    assert_eq!(hub.pull().0, 0);
    let index = || std::fs::metadata(hub.path("state/hub.redb")).unwrap().len();
    let (empty, first) = (index(), log.size());
    grow(&mut log, 100, 100 + SEALS / 2);
    standin.serve(Served::of(&log));
    let before = standin.asked();
    assert_eq!(hub.pull().0, 0);
    let (entries, asked) = (log.size() - first, standin.asked() - before);
    let bytes: usize = log.entries[first as usize..].iter().map(|entry| entry.bytes().len()).sum();
    let archived: usize = hub.archive().values().map(Vec::len).sum();
    let total: usize = log.entries.iter().map(|entry| entry.bytes().len()).sum();
    let beside = (archived - total) as f64 / log.size() as f64;
    let indexed = (index() - empty) as f64 / entries as f64;
    // The usual pull: one batch more than the last time.
    grow(&mut log, 100 + SEALS / 2, 135 + SEALS / 2);
    standin.serve(Served::of(&log));
    let before = standin.asked();
    assert_eq!(hub.pull().0, 0);
    let usual = standin.asked() - before;
    let before = standin.asked();
    assert_eq!(hub.pull().0, 0);
    let idle = standin.asked() - before;
    println!(
        "{entries} entries of {:.0} bytes: {beside:.1} bytes beside each in the archive, {indexed:.0} in the index; {asked} requests; \
         {usual} requests for 70 more, {idle} for none",
        bytes as f64 / entries as f64
    );
    // Two bytes of length and a hash, and what lies above it.
    assert!(beside < 45.0, "{beside}");
    assert!(indexed < 600.0, "{indexed}");
    assert!(asked < 4 * entries / 256 + 50 && usual < 20 && idle <= 2, "{asked} {usual} {idle}");
}
