//! What an outage costs: the latency of seals before, in and after it, in one run.
//!
//! One box, two time-stamping authorities of distinct operators. Online, in emergency and from the return of the
//! authorities on take turns, so that the noise of the machine shows; each is compared with online of its own turn.
//! Refuses to do: count a phase that did not end in its mode; of reconciling, which ends by itself, the row names the share.

use crate::load::{self, Measured, Order, Target};
use anyhow::{Context, Result, ensure};
use bulla_tests::rig::outage::{wait_anchored, wait_mode};
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Rig, RigOptions, Role};
use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const TURNS: usize = 9;
const CLIENTS: usize = 8;
const RUN: Duration = Duration::from_secs(3);
/// Longest wait for a mode or an anchor.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// What an authority takes to answer when it is back; it makes reconciling long enough to be measured.
const SLOW_MILLIS: u64 = 1_500;

/// Lines of `box.toml`: short times, so that an outage is a matter of seconds, and few looks, because what stamps in
/// this run are processes on the box's own cores.
pub fn lines(authorities: &[&Stamps], probe: &str, window_seconds: u64) -> String {
    let mut text = format!(
        "\n[outage]\nafter_seconds = 6\ndegraded_after_seconds = 2\nrecover_after_seconds = 1\nprobe_seconds = 2\n\
         [anchors]\nwindow_entries = 1000000000\nwindow_seconds = {window_seconds}\n"
    );
    for (at, tsa) in authorities.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[anchors.tsa]]\nname = \"tsa-{at}\"\noperator = {:?}\nurl = {:?}\nroots = {:?}\ntimeout_seconds = 5\nprobe = {probe:?}",
            tsa.operator(),
            tsa.url(),
            tsa.root_pem()
        );
    }
    text
}

/// Measures and prints the table.
pub fn measure(runtime: &Runtime, target: impl Fn(&Rig) -> Result<Arc<Target>>) -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let extra = lines(&[&a, &b], "stamp", 5);
    let rig = Rig::start_with(&RigOptions { extra: &extra, ..RigOptions::default() })?;
    let target = target(&rig)?;
    let load = || runtime.block_on(load::run(target.clone(), Order::Digest, CLIENTS, RUN));
    println!("\nSeals in an outage: {CLIENTS} clients, digests, {TURNS} turns of {} s each\n", RUN.as_secs());
    println!("| turn | mode | per second | p50 ms | p99 ms | p50 of online | p99 of online |");
    println!("|---|---|---|---|---|---|---|");
    let mut ratios: [Vec<f64>; 2] = Default::default();
    for turn in 1..=TURNS {
        wait_mode(&rig, "online", PATIENCE)?;
        let online = load()?;
        row(turn, "online", online, online);
        ensure!(mode(&rig)? == "online", "the authorities were there, and the box was not online");
        for tsa in [&a, &b] {
            tsa.set(&Knobs { transport: Transport::BlackHole, ..Knobs::default() })?;
        }
        wait_mode(&rig, "emergency", PATIENCE)?;
        let emergency = load()?;
        row(turn, "emergency", emergency, online);
        ensure!(mode(&rig)? == "emergency", "the outage ended by itself");
        for tsa in [&a, &b] {
            tsa.set(&Knobs { delay_millis: SLOW_MILLIS, ..Knobs::default() })?;
        }
        wait_mode(&rig, "reconciling", PATIENCE)?;
        let (back, share) = watched(&rig, load)?;
        row(turn, &format!("reconciling ({:.0} % of the time)", 100.0 * share), back, online);
        for tsa in [&a, &b] {
            tsa.answer(Answer::Stamp)?;
        }
        for (ratios, phase) in ratios.iter_mut().zip([emergency, back]) {
            ratios.push(phase.p99 as f64 / online.p99 as f64);
        }
        wait_anchored(&rig, PATIENCE)?;
    }
    for (what, ratios) in ["emergency", "reconciling"].iter().zip(ratios) {
        println!(
            "\np99 in {what}, median of the turns: {:.2} of online",
            crate::figures::median_of(ratios.into_iter())
        );
    }
    Ok(())
}

fn row(turn: usize, what: &str, phase: Measured, online: Measured) {
    println!(
        "| {turn} | {what} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
        phase.per_second,
        phase.p50 as f64 / 1e3,
        phase.p99 as f64 / 1e3,
        phase.p50 as f64 / online.p50 as f64,
        phase.p99 as f64 / online.p99 as f64
    );
}

fn mode(rig: &Rig) -> Result<String> {
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    Ok(status["mode"].as_str().context("a status names the mode")?.to_owned())
}

/// Runs the load, and looks for what share of it the box was reconciling.
fn watched(rig: &Rig, load: impl FnOnce() -> Result<Measured>) -> Result<(Measured, f64)> {
    let began = Instant::now();
    thread::scope(|scope| {
        let watcher = scope.spawn(move || -> Result<Duration> {
            while began.elapsed() < RUN && mode(rig)? == "reconciling" {
                thread::sleep(Duration::from_millis(100));
            }
            Ok(began.elapsed())
        });
        let measured = load()?;
        let reconciled = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        Ok((measured, (reconciled.as_secs_f64() / RUN.as_secs_f64()).min(1.0)))
    })
}
