//! A long outage's end: a million seals that nobody vouched for, one manifest, one anchor, all of them upgraded.
//!
//! The seals are real, made through the box's API while its authorities are down. Then the authorities come back; what
//! is timed is the way to the closing manifest and to both operators' anchors, and random seals are fetched as they are
//! now and judged by the trust file.
//! Refuses to do: accept one seal that is not valid and anchored, or more requests than one anchor takes.

use crate::load::{self, Order, Target};
use crate::outage::{PATIENCE, lines};
use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::{DocumentDigest, SealBody};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::report::{Fact, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_formats::verify::Verifier;
use bulla_tests::rig::outage::{wait_anchored, wait_for, wait_mode};
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Rig, RigOptions, Role, account};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Clients that fill the log, and the pieces in which they do.
const FILLING: (usize, Duration) = (64, Duration::from_secs(5));
/// Seals that are fetched again, and clients that fetch.
const UPGRADES: u64 = 10_000;
const FETCHING: u64 = 4;
/// Most requests that all this may cost, at both authorities.
const REQUESTS_MAX: u64 = 5;

/// What a process has used.
#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    cpu: Duration,
    rss_mb: f64,
}

impl Used {
    fn now(rig: &Rig) -> Result<Self> {
        let pid = rig.sealer.pid().context("the box runs")?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc(5): after the name in parentheses the state, then utime and stime as the 12th and 13th field, in hundredths
        // of a second (USER_HZ).
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let cpu = Duration::from_millis((ticks(11).context("utime")? + ticks(12).context("stime")?) * 10);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: f64 = rss.split_whitespace().next().context("a figure")?.parse()?;
        Ok(Used { at: Instant::now(), cpu, rss_mb: kilobytes / 1024.0 })
    }
}

/// Measures with so many entries, and prints the table.
pub fn measure(runtime: &Runtime, entries: u64, target: impl Fn(&Rig) -> Result<Arc<Target>>) -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    for tsa in [&a, &b] {
        tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    }
    // Nothing is asked for but at the end of the outage.
    let extra = lines(&[&a, &b], "connect", 3_600);
    let rig = Rig::start_with(&RigOptions { extra: &extra, ..RigOptions::default() })?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    let first = rig.log_size()?;
    let target = target(&rig)?;
    while rig.log_size()? < first + entries {
        runtime.block_on(load::run(target.clone(), Order::Digest, FILLING.0, FILLING.1))?;
        eprint!("\r{} entries in the outage   ", rig.log_size()? - first);
    }
    eprintln!();
    let (size, before) = (rig.log_size()?, Used::now(&rig)?);
    for tsa in [&a, &b] {
        tsa.answer(Answer::Stamp)?;
    }
    let closed = |status: &serde_json::Value| {
        !status["outage"]["outage"]["closing"].is_null() || status["mode"] == "online"
    };
    wait_for(&rig, "the closing manifest", PATIENCE, closed)?;
    let manifest = Used::now(&rig)?;
    wait_anchored(&rig, PATIENCE)?;
    wait_mode(&rig, "online", PATIENCE)?;
    let anchored = Used::now(&rig)?;
    let requests = a.counters().requests + b.counters().requests;
    let covered = covered(&rig, first, size)?;
    println!("\nThe end of an outage of {covered} seals\n");
    println!("| from the authorities' return to | s | box processor s | box RSS MB |");
    println!("|---|---|---|---|");
    for (what, used) in [("the closing manifest", manifest), ("anchors of both operators", anchored)] {
        println!(
            "| {what} | {:.2} | {:.2} | {:.0} |",
            (used.at - before.at).as_secs_f64(),
            (used.cpu - before.cpu).as_secs_f64(),
            used.rss_mb
        );
    }
    println!("\nRequests to authorities: {requests}; RSS before: {:.0} MB", before.rss_mb);
    ensure!(requests <= REQUESTS_MAX, "{requests} requests for one manifest\n{}", rig.log());
    upgrades(&rig, first, size)
}

/// Seals in the closing manifest, which covers all of these entries.
fn covered(rig: &Rig, first: u64, size: u64) -> Result<u64> {
    let answer = rig.client(Role::Reader).get("/v1/manifests")?.json()?;
    let all = answer["manifests"].as_array().context("manifests")?;
    let closing = all.iter().find(|manifest| manifest["phase"] == "close").context("a closing manifest")?;
    let (from, to) = (closing["first"].as_u64(), closing["last"].as_u64());
    ensure!(
        from.is_some_and(|from| from <= first) && to.is_some_and(|to| to + 1 >= size),
        "not all are covered: {closing}"
    );
    closing["seals"].as_u64().context("a manifest counts its seals")
}

/// Fetches random seals as they are now, and judges them on every core.
fn upgrades(rig: &Rig, first: u64, size: u64) -> Result<()> {
    let leaves = account::leaves(&rig.client(Role::Reader))?;
    let before = Used::now(rig)?;
    let parts = parallel(FETCHING, |part| fetch(rig, &leaves[..size as usize], first, part))?;
    let after = Used::now(rig)?;
    let seals = parts.concat();
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let began = Instant::now();
    let judged = parallel(cores, |core| judge(rig, &seals, core as usize, cores as usize))?;
    let spent = began.elapsed();
    ensure!(judged.iter().sum::<usize>() == seals.len(), "{judged:?} of {} were judged", seals.len());
    let rate = |time: Duration| seals.len() as f64 / time.as_secs_f64();
    println!(
        "\n| random seals of it, as they are now | seals | per second | box processor ms a seal | bytes |"
    );
    println!("|---|---|---|---|---|");
    println!(
        "| fetched by {FETCHING} clients | {} | {:.0} | {:.2} | {} |",
        seals.len(),
        rate(after.at - before.at),
        (after.cpu - before.cpu).as_secs_f64() * 1e3 / seals.len() as f64,
        seals.iter().map(|(seal, _)| seal.len()).sum::<usize>() / seals.len()
    );
    println!(
        "| valid and anchored, one verifier a core ({cores}) | {} | {:.0} | | |",
        seals.len(),
        rate(spent)
    );
    Ok(())
}

type Fetched = (Vec<u8>, DocumentDigest);

fn fetch(rig: &Rig, leaves: &[Hash], first: u64, part: u64) -> Result<Vec<Fetched>> {
    let client = rig.client(Role::Operator);
    let (mut seals, mut number) = (Vec::new(), part);
    while seals.len() < (UPGRADES / FETCHING) as usize {
        // Places that no cache expects, the same in every run.
        let random =
            u64::from_be_bytes(sha256(&[&number.to_be_bytes()]).0.first_chunk().copied().unwrap_or_default());
        number += FETCHING;
        let index = first + random % (leaves.len() as u64 - first);
        let id = format!("{index}-{}", hex::encode(&leaves[index as usize].0[..8]));
        let answer = client.get(&format!("/v1/seals/{id}/seal-file"))?;
        if answer.status == 404 {
            // What is there is an attestation or a manifest.
            continue;
        }
        ensure!(answer.status == 200, "{id}: {}", String::from_utf8_lossy(&answer.body));
        let file = SealFile::decode(&answer.body)?;
        let entry = bulla_formats::entry::Entry::decode(&file.entry)?;
        let body = SealBody::decode(&entry.content().body)?;
        let digest =
            DocumentDigest { algorithm: body.algorithm, value: body.digest.to_vec(), size: body.size };
        seals.push((answer.body, digest));
    }
    Ok(seals)
}

/// Judges every `of`-th seal; returns how many.
fn judge(rig: &Rig, seals: &[Fetched], from: usize, of: usize) -> Result<usize> {
    let (mut verifier, mut judged) = (Verifier::new(rig.trust()), 0);
    for (seal, digest) in seals.iter().skip(from).step_by(of) {
        let report = verifier.verify(seal, Some(digest)).report;
        ensure!(report.verdict == Verdict::Valid && report.facts.contains(&Fact::Anchored), "{report}");
        judged += 1;
    }
    Ok(judged)
}

fn parallel<T: Send>(count: u64, work: impl Fn(u64) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        let done =
            workers.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?);
        done.collect()
    })
}
