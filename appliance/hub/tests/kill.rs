//! Kill -9 while pulling: whatever moment it hits, the next pull goes on, and in the end archive and index hold what an
//! undisturbed pull makes.
//!
//! Two logs grow between the kills, one of them with bad entries, so that deaths fall into first pulls, into steps, between
//! the index and the checkpoint, and into the removal of tiles that have been filled. 30 kills; 100 with `BULLA_SOAK=1`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryContent, Kind};
use bulla_formats::hash::sha256;
use common::Log;
use standin::{Boxes, Served, StandIn, TestHub, grow};
use std::time::{Duration, Instant};

const SEED: u64 = 7;

/// Numbers that follow from the seed and a counter alone.
fn number(of: u64, below: u64) -> u64 {
    let hash = sha256(&[&SEED.to_be_bytes(), &of.to_be_bytes()]);
    u64::from_be_bytes(*hash.0.first_chunk().unwrap()) % below
}

#[test]
fn g1_kill_9_while_pulling_converges_to_what_an_undisturbed_pull_makes() {
    let kills = if std::env::var_os("BULLA_SOAK").is_some() { 100 } else { 30 };
    let (one, two) = (StandIn::start(), StandIn::start());
    let mut a = Log::new(Hardware::Tpm, 1);
    grow(&mut a, 0, 300);
    let lie =
        EntryContent { lamport: 1, ..a.content(Kind::Seal as u16, a.entries[3].content().body.to_vec()) };
    // Every entry after it goes on from its Lamport time, and is refused until that has caught up: a flood.
    a.append(lie);
    grow(&mut a, 300, 1_500);
    let mut b = Log::new(Hardware::Tpm, 2);
    grow(&mut b, 1_000, 2_000);
    let boxes: &Boxes<'_> = &[("a", &a, &[(&one, false)]), ("b", &b, &[(&two, false)])];
    let serve = |part: u64, of: u64| {
        one.serve(Served::upto(&a, (a.size() * part / of).max(1)));
        two.serve(Served::upto(&b, (b.size() * part / of).max(1)));
    };
    serve(1, 1);
    let undisturbed = TestHub::new(boxes);
    let began = Instant::now();
    assert_eq!(undisturbed.pull().0, 1, "the bad entry is told");
    let mut span = began.elapsed().as_micros() as u64;

    let hub = TestHub::new(boxes);
    let mut in_the_middle = 0;
    for kill in 0..kills {
        serve(kill / 3 * 3 + 3, kills + 3);
        let mut pulling = hub.start(&["pull"]);
        std::thread::sleep(Duration::from_micros(number(kill, span)));
        let running = pulling.try_wait().unwrap().is_none();
        in_the_middle += u64::from(running);
        // Pulls get shorter and longer; about half of the deaths shall come before the end.
        span = if running { span * 5 / 4 } else { (span * 2 / 3).max(2_000) };
        pulling.kill().unwrap();
        pulling.wait().unwrap();
        if kill % 10 == 9 {
            // Whatever was left is a sound archive of some head, or of none yet.
            let (code, lines) = hub.lines(&["fsck"]);
            assert_eq!(code, 0, "after kill {kill}: {lines:?}");
        }
    }
    assert!(
        in_the_middle > kills / 3,
        "only {in_the_middle} of {kills} pulls were still running when they were killed"
    );
    serve(1, 1);
    let (code, said) = hub.pull();
    assert!(code == 0 || code == 1, "{said:?}");
    for name in ["a", "b"] {
        assert_eq!(said[name]["complete"], true, "{said:?}");
    }
    hub.fsck();
    let (ours, theirs) = (hub.archive(), undisturbed.archive());
    let names = |archive: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| -> Vec<_> {
        archive.keys().cloned().collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    assert!(ours == theirs, "the objects differ");
    let sample = || (0..2_000).step_by(97);
    assert_eq!(hub.index(sample()), undisturbed.index(sample()));
}
