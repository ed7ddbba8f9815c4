//! Sites whose boxes anchor together, over many bad hours.
//!
//! Each seed is a site: two to five boxes, two authorities, WANs that go and come box by box, cables that are cut, messages
//! that are late or lost, boxes that die and come back, writes that fail; and up to two liars, who offer and bring nothing,
//! bring it late, bring stamps over something else or for somebody else, or offer all day long.
//! A seed that fails says how to run it again:
//! `BULLA_SIM_SEED=<seed> cargo test -p bulla-protocol --test site_simulation -- replay --nocapture`.
//! `BULLA_SOAK=1` runs twenty thousand seeds.
//!
//! What is checked: `genuine` (an honest log holds only stamps over its own head), `quota` (by the authorities' own count),
//! `bounded` (whoever reaches the authorities is anchored in time, whatever liars do), `served` (so is, in calm weather,
//! whoever reaches nobody but a neighbour that does), `together` (when the WAN comes back, the site asks less
//! than its boxes would each for itself), `memory`. And that `genuine`,
//! `bounded`, `served` and `together` can fail: a driver that breaks one rule is found out by the check that stands for it.
//! No driver here breaks `quota` (the other simulation has one) or `memory`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use world::{Broken, World};

/// A rule that a driver breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// None.
    None,
    /// What neighbours hand over is not verified.
    BelieveAll,
    /// A hold that has ended goes on.
    KeepHolding,
    /// The planner is not told to hold off.
    IgnoreHold,
    /// Neighbours are not asked for their heads.
    GatherNothing,
    /// What came is kept, and not handed over.
    HandNothing,
}

fn search(
    seeds: std::ops::Range<u64>,
    fault: Fault,
    run: fn(u64, Fault) -> Result<(), Broken>,
) -> Option<(u64, Broken)> {
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let worker = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return None;
                }
                if let Err(broken) = run(seed, fault) {
                    next.store(seeds.end, Ordering::Relaxed);
                    return Some((seed, broken));
                }
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min_by_key(|(seed, _)| *seed)
    })
}

fn rough(seed: u64, fault: Fault) -> Result<(), Broken> {
    World::rough(seed, fault).go()
}

fn reunion(seed: u64, fault: Fault) -> Result<(), Broken> {
    World::reunion(seed, fault).go()
}

fn seeds() -> u64 {
    if std::env::var_os("BULLA_SOAK").is_some() { 20_000 } else { 150 }
}

#[test]
fn g4_g7_bad_neighbours_cost_nobody_an_anchor() {
    if let Some((seed, (invariant, what))) = search(0..seeds(), Fault::None, rough) {
        panic!(
            "seed {seed} breaks {invariant}: {what}\nagain, with a trace: \
             BULLA_SIM_SEED={seed} cargo test -p bulla-protocol --test site_simulation -- replay --nocapture"
        );
    }
}

#[test]
fn a_site_asks_less_than_its_boxes_would_when_the_wan_is_back() {
    if let Some((seed, (invariant, what))) = search(0..seeds(), Fault::None, reunion) {
        panic!(
            "seed {seed} breaks {invariant}: {what}\nagain, with a trace: BULLA_SIM_REUNION=1 \
             BULLA_SIM_SEED={seed} cargo test -p bulla-protocol --test site_simulation -- replay --nocapture"
        );
    }
}

#[test]
fn replay() {
    let seed = std::env::var("BULLA_SIM_SEED").map_or(0, |seed| seed.parse().unwrap());
    let reunion = std::env::var_os("BULLA_SIM_REUNION").is_some();
    let make = if reunion { World::reunion } else { World::rough };
    let mut world = make(seed, Fault::None);
    world.trace = Some(Vec::new());
    let end = world.go();
    let trace = world.trace.take().unwrap();
    println!("{}", trace.join("\n"));
    assert!(trace.len() > 10, "a run has something to tell");
    if let Err((invariant, what)) = end {
        panic!("seed {seed} breaks {invariant}: {what}");
    }
}

/// A simulation in which nothing happens finds nothing.
#[test]
fn the_hours_are_bad_enough() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 0..40 {
        let mut world = World::rough(seed, Fault::None);
        world.go().unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}"));
        for what in &world.seen {
            *seen.entry(what).or_default() += 1;
        }
    }
    for what in ["taken", "refused", "late", "held off", "restart", "gathered", "for others", "lost"] {
        assert!(seen.get(what).is_some_and(|times| *times >= 3), "{what}: {seen:?}");
    }
}

/// A rule that is broken, the checks that may find it out, and in which hours.
type Row = (Fault, &'static [&'static str], fn(u64, Fault) -> Result<(), Broken>);

#[test]
fn every_check_can_fail() {
    let rows: [Row; 6] = [
        (Fault::BelieveAll, &["genuine"], rough),
        (Fault::KeepHolding, &["bounded", "served"], rough),
        (Fault::GatherNothing, &["served"], rough),
        (Fault::HandNothing, &["served"], rough),
        (Fault::IgnoreHold, &["together"], reunion),
        (Fault::GatherNothing, &["together"], reunion),
    ];
    for (fault, expected, run) in rows {
        let found = search(0..500, fault, run);
        let (seed, (invariant, what)) = found.unwrap_or_else(|| panic!("{fault:?} is not found out"));
        assert!(expected.contains(&invariant), "{fault:?} breaks {invariant} at seed {seed}: {what}");
    }
}
