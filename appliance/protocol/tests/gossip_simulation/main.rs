//! Boxes that mirror and witness each other over a bad network, some of them liars, in thousands of short lives.
//!
//! Each seed is a site of three to six boxes for minutes (some are of twelve, and some of fifty for two weeks and more, in
//! which mostly nothing happens: `weather.rs`): links that break, packets that are lost, doubled and late, boxes that die at any effect and come back with what was durable, disks replaced by older
//! copies, neighbours that are struck off a list and put back, and boxes that fork their log, lie about entries, replay heads, flood, relabel cosignatures and overstate
//! Lamport times. Then the network heals. A seed that fails says how to run it again:
//! `BULLA_SIM_SEED=<seed> cargo test -p bulla-protocol --test gossip_simulation -- replay --nocapture`.
//! A long run (`BULLA_SOAK=1`) says every hundred sites how far it is; `BULLA_SIM_SKIP=<sites>` goes on from there.
//!
//! What is checked: `consistent` (no honest box cosigns two heads that cannot both be true), `mirrored` (no mirror
//! cosignature before entries and objects are durable), `persisted` (nothing is cosigned that the disk does not allow, and
//! that never goes back), `frozen` (a fork that honest boxes hold both sides of is frozen by all; nothing is added after),
//! `converged` (every honest log is held by every honest box), `behind` (a box with an older disk learns it), `counted`
//! (who holds how much is what was cosigned), `vouched` (a neighbour is fresh only by an answer of its own chip to this box's
//! own nonce, and what has changed shows), `quotes` (nobody challenges or quotes more often than agreed), `blame` (no honest box is blamed), `lamport`, `bounded`, `notes`. And that
//! each check can fail: a driver that breaks one rule is found out by the check that stands for it.

mod chips;
mod driver;
mod judge;
mod liars;
#[path = "../simulation/rng.rs"]
#[allow(dead_code, reason = "the other simulation uses all of it")]
mod rng;
mod tree;
mod weather;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Broken, World};

/// A rule that a driver breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// States are said to be durable before they are.
    SayPersisted,
    /// A restart begins with empty cosigner states.
    ForgetState,
    /// Entries are not held against the head.
    BelieveEntries,
    /// Entries are said to be stored before they are.
    SayStored,
    /// Missing objects are not mentioned.
    IgnoreObjects,
    /// Heads are taken without the log's signature.
    BelieveHeads,
    /// Cosignatures are taken for whoever hands them over.
    BelieveLabels,
    /// Nobody makes or passes on fork proofs.
    KeepForks,
    /// Frozen logs thaw in a restart.
    Thaw,
    /// Nobody wakes the machine.
    NoTicks,
    /// A connection that comes back is not reported.
    OneConnection,
    /// The own log is said to have every head it is asked about.
    KnowEverything,
    /// Lamport times are taken over as they come.
    NoCap,
    /// Notes are thrown away at once.
    ForgetNotes,
    /// A neighbour that comes back is treated as a new one.
    LeaveCopies,
    /// Boots are said to be durable before they are.
    SayBootKept,
    /// A restart begins without known boots.
    ForgetBoots,
    /// Answers to challenges are not held against key and nonce.
    BelieveVouchers,
    /// The chip quotes for whoever asks, as often as it asks.
    QuoteAlways,
}

#[derive(Clone, Copy)]
struct Options {
    seed: u64,
    boxes: usize,
    /// Weeks with little to do; not minutes with everything at once.
    weeks: bool,
    fault: Fault,
    trace: bool,
}

fn soak() -> bool {
    std::env::var_os("BULLA_SOAK").is_some()
}

fn options(seed: u64, fault: Fault) -> Options {
    let boxes = match seed {
        WEEKS.. => 50,
        LARGE.. => 12,
        _ => 3 + (seed % 4) as usize,
    };
    Options { seed, boxes, weeks: seed >= WEEKS, fault, trace: false }
}

/// Seeds from here on are large sites.
const LARGE: u64 = 1 << 32;
/// And from here on sites of fifty boxes, for two weeks and more.
const WEEKS: u64 = 1 << 33;

/// Runs seeds on all processors; returns the first that breaks something, and what.
fn search(seeds: std::ops::Range<u64>, fault: Fault, events: &AtomicU64) -> Option<(u64, Broken)> {
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let worker = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return None;
                }
                let end = std::panic::catch_unwind(|| {
                    let mut world = World::new(options(seed, fault));
                    let end = world.go();
                    events.fetch_add(world.events, Ordering::Relaxed);
                    end
                });
                let end = end.unwrap_or_else(|_| Err(("panic", "see above".to_owned())));
                if let Err(broken) = end {
                    next.store(seeds.end, Ordering::Relaxed);
                    return Some((seed, broken));
                }
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let found = threads.into_iter().filter_map(|thread| thread.join().expect("a panic is caught"));
        found.min_by_key(|(seed, _)| *seed)
    })
}

/// Sites of a long run that are looked at between two words about how far it is.
const PIECE: u64 = 100;

fn nothing_breaks(seeds: std::ops::Range<u64>) {
    let (events, first) = (AtomicU64::new(0), seeds.start);
    let skipped = std::env::var("BULLA_SIM_SKIP").map_or(0, |sites| sites.parse().expect("a number"));
    let mut found = None;
    for begin in (first + skipped..seeds.end).step_by(PIECE as usize) {
        let end = seeds.end.min(begin + PIECE);
        found = search(begin..end, Fault::None, &events);
        println!(
            "sites {skipped} to {} of {}, {} events",
            end - first,
            seeds.end - first,
            events.load(Ordering::Relaxed)
        );
        if found.is_some() {
            break;
        }
    }
    if let Some((seed, (invariant, what))) = found {
        panic!(
            "seed {seed} breaks {invariant}: {what}\nagain, with a trace: \
             BULLA_SIM_SEED={seed} cargo test -p bulla-protocol --test gossip_simulation -- replay --nocapture"
        );
    }
}

#[test]
fn g2_g9_bad_neighbours_break_nothing() {
    nothing_breaks(0..if soak() { 50_000 } else { 1_000 });
}

#[test]
fn a_large_site_converges() {
    nothing_breaks(LARGE..LARGE + if soak() { 200 } else { 4 });
}

#[test]
fn fifty_boxes_live_for_weeks() {
    nothing_breaks(WEEKS..WEEKS + if soak() { 2_000 } else { 3 });
}

#[test]
fn replay() {
    let seed = std::env::var("BULLA_SIM_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    let mut world = World::new(Options { trace: true, ..options(seed, Fault::None) });
    let end = world.go();
    println!("{}", world.trace.join("\n"));
    assert!(world.trace.len() > 10, "a run has something to tell");
    if let Err((invariant, what)) = end {
        panic!("seed {seed} breaks {invariant}: {what}");
    }
}

#[test]
fn a_run_is_its_seed() {
    let trace = |seed| {
        let mut world = World::new(Options { trace: true, ..options(seed, Fault::None) });
        (world.go(), world.trace)
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7).1, trace(8).1);
}

/// A simulation in which nothing happens finds nothing.
#[test]
fn the_sites_are_bad_enough() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..120 {
        let mut world = World::new(options(seed, Fault::None));
        world.go().unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}"));
        for what in &world.seen {
            *seen.entry(what).or_default() += 1;
        }
    }
    assert!(seen.contains_key("own fork told"), "{seen:?}");
    for what in [
        "crash",
        "older disk",
        "fork proven",
        "fork frozen",
        "lied",
        "behind",
        "equal",
        "nobody",
        "mirror entry",
        "dispute",
        "objects",
        "lamport",
        "other tree",
        "disk failed",
        "struck",
        "taken up",
        "fresh",
        "trust logged",
        "good again",
        "busy",
        "boot-changed",
        "reset-went-back",
        "other-key",
        "not-genuine",
    ] {
        assert!(seen.get(what).is_some_and(|times| *times >= 5), "{what}: {seen:?}");
    }
}

#[test]
fn every_check_can_fail() {
    let rows: [(Fault, &[&str]); 19] = [
        (Fault::SayPersisted, &["persisted"]),
        (Fault::ForgetState, &["persisted", "consistent"]),
        (Fault::BelieveEntries, &["mirrored", "consistent", "converged", "frozen"]),
        (Fault::SayStored, &["mirrored"]),
        (Fault::IgnoreObjects, &["mirrored"]),
        (Fault::BelieveHeads, &["behind", "blame", "converged", "frozen"]),
        (Fault::BelieveLabels, &["counted"]),
        (Fault::KeepForks, &["frozen"]),
        (Fault::Thaw, &["frozen", "persisted"]),
        (Fault::NoTicks, &["converged", "behind", "frozen", "vouched"]),
        (Fault::OneConnection, &["converged", "frozen", "vouched"]),
        (Fault::KnowEverything, &["behind"]),
        (Fault::NoCap, &["lamport"]),
        (Fault::ForgetNotes, &["notes"]),
        (Fault::LeaveCopies, &["persisted", "consistent", "converged"]),
        (Fault::SayBootKept, &["persisted"]),
        (Fault::ForgetBoots, &["persisted"]),
        (Fault::BelieveVouchers, &["vouched"]),
        (Fault::QuoteAlways, &["quotes"]),
    ];
    for (fault, expected) in rows {
        let found = search(0..1_500, fault, &AtomicU64::new(0));
        let (seed, (invariant, what)) = found.unwrap_or_else(|| panic!("{fault:?} is not found out"));
        assert!(expected.contains(&invariant), "{fault:?}, seed {seed}: {invariant}: {what}");
    }
}
