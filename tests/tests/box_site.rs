//! A branch office's site: five boxes, each with its own TPM, on a switch whose cables are cut, throttled and thinned,
//! while all of them seal for documents that two others must hold.
//!
//! Clients and TPMs reach the boxes past the switch, so what is cut is between the boxes. Figures are printed; what is
//! asserted of them is generous, because other tests run beside these, and programs here are built for debugging.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, bail, ensure};
use bulla_formats::hash::leaf_hash;
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::site::{Site, until};
use bulla_tests::rig::{Client, Keys, Rig, Role, rounds, stop_still};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A box with that many neighbours holds the log.
const HOLDERS: usize = 2;
const DISK_BYTES: u64 = 512 << 20;

/// One scanner for each box: seals, waits until two others hold it, and notes what it was promised.
struct Scanners {
    stop: Arc<AtomicBool>,
    promised: Arc<AtomicUsize>,
    threads: BTreeMap<usize, JoinHandle<Result<Harvest>>>,
}

#[derive(Default)]
struct Harvest {
    /// Leaf hashes of what was said to be held by two others.
    held: BTreeSet<String>,
    /// Sealed, and nobody said in time that others hold it.
    alone: usize,
}

impl Scanners {
    fn start(site: &Site) -> Self {
        let (stop, promised) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut scanners = Scanners { stop, promised, threads: BTreeMap::new() };
        (0..site.boxes.len()).for_each(|at| scanners.begin(site, at));
        scanners
    }

    fn begin(&mut self, site: &Site, at: usize) {
        let client = site.boxes[at].client(Role::Scanner);
        let (stop, promised) = (self.stop.clone(), self.promised.clone());
        let thread = std::thread::spawn(move || scan(&client, at, &stop, &promised));
        self.threads.insert(at, thread);
    }

    /// What the scanner of a box that has gone was promised.
    fn of(&mut self, at: usize) -> Result<Harvest> {
        let thread = self.threads.remove(&at).context("it has a scanner")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn finish(mut self) -> Result<BTreeMap<usize, Harvest>> {
        self.stop.store(true, Relaxed);
        let all: Vec<usize> = self.threads.keys().copied().collect();
        all.into_iter().map(|at| Ok((at, self.of(at)?))).collect()
    }
}

fn scan(client: &Client, at: usize, stop: &AtomicBool, promised: &AtomicUsize) -> Result<Harvest> {
    let mut harvest = Harvest::default();
    for number in 0u64.. {
        let document = format!("document {number} of box {at}, {:?}", Instant::now());
        let path = format!("/v1/seals?wait=mirrored({HOLDERS})&deadlineSeconds=5");
        if stop.load(Relaxed) {
            break;
        }
        // Its box has gone.
        let Ok(answer) = client.post(&path, &[("Content-Type", "text/plain")], document.as_bytes()) else {
            break;
        };
        ensure!(answer.status == 201, "box {at}: {}", String::from_utf8_lossy(&answer.body));
        let json = answer.json()?;
        if json["waited"] == "mirrored" {
            harvest.held.insert(json["leafHash"].as_str().context("a leaf hash")?.to_owned());
            promised.fetch_add(1, Relaxed);
        } else {
            harvest.alone += 1;
        }
    }
    Ok(harvest)
}

fn all_connected(site: &Site, among: &[usize]) -> Result<bool> {
    for at in among {
        for of in among.iter().filter(|of| *of != at) {
            if site.neighbour(*at, *of)?["connected"] != true {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Every box holds and has cosigned every other one's log to its end.
fn converged(site: &Site, among: &[usize]) -> Result<bool> {
    for of in among {
        let size = site.boxes[*of].log_size()?;
        for at in among.iter().filter(|at| *at != of) {
            if site.neighbour(*at, *of)?["copy"]["mirrored"].as_u64() != Some(size) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn percentile(millis: &mut [f64], hundredths: usize) -> f64 {
    millis.sort_by(f64::total_cmp);
    millis[(millis.len() - 1) * hundredths / 100]
}

fn processor_time(rig: &Rig) -> Result<Duration> {
    let pid = rig.sealer.pid().context("it runs")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    ensure!(fields.len() > 12, "{stat}");
    // User and system time, in ticks of a hundredth of a second.
    Ok(Duration::from_millis((fields[11].parse::<u64>()? + fields[12].parse::<u64>()?) * 10))
}

#[test]
fn g1_five_boxes_lose_nothing_that_was_mirrored_whatever_happens_to_the_site() -> Result<()> {
    let mut disk = Disk::new(DiskKind::Ext4, DISK_BYTES)?;
    let state = disk.state();
    let mut site = Site::create_on_lan(&[Keys::Tpm; 5], &[None, None, Some(&state)])?;
    site.introduce_all()?;
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    let all = [0, 1, 2, 3, 4];
    until("all are connected", || all_connected(&site, &all))?;

    // At rest.
    std::thread::sleep(Duration::from_secs(3));
    let (begun, before) = (Instant::now(), processor_time(&site.boxes[0])?);
    std::thread::sleep(Duration::from_secs(rounds(5, 60) as u64));
    let used = (processor_time(&site.boxes[0])? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    println!("a box with four neighbours and nothing to do: {:.2} % of a core", used * 1e2);

    // Undisturbed.
    let (wire, size) = (site.lan()?.carried(0)?, site.boxes[0].log_size()?);
    let mut millis = Vec::new();
    for number in 0..rounds(100, 2_000) {
        let begun = Instant::now();
        site.mirrored(0, &format!("undisturbed {number}"), HOLDERS)?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    until("all hold all", || converged(&site, &all))?;
    let (wire, size) = (site.lan()?.carried(0)? - wire, site.boxes[0].log_size()? - size);
    println!(
        "one scanner, seal held by {HOLDERS} of 4 neighbours: p50 {:.1} ms, p99 {:.1} ms; {} bytes on the origin's cable an \
         entry, all four copies and heads together",
        percentile(&mut millis, 50),
        percentile(&mut millis, 99),
        wire / size
    );

    // Everybody seals, and the site has a bad day.
    let mut scanners = Scanners::start(&site);
    let day = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    day(2);
    site.lan()?.part(&[0, 1])?;
    day(12);
    heal(&site, "two halves", &all)?;
    site.lan()?.plug(4, false)?;
    day(12);
    site.lan()?.plug(4, true)?;
    heal(&site, "a pulled cable", &all)?;
    site.lan()?.slow(3, 2_000)?;
    site.lan()?.thin(1, 10)?;
    let before = scanners.promised.load(Relaxed);
    day(8);
    let thin = scanners.promised.load(Relaxed) - before;
    ensure!(thin > 0, "a slow line and lost packets cost time, not seals");
    println!(
        "{thin} seals held by others in 8 s with one line at 2 Mbit/s and every tenth packet of another lost"
    );
    site.lan()?.quicken(3)?;
    heal(&site, "a slow line and lost packets", &all)?;

    // A mirror loses its power right after it cosigned: the log of box 0 grows, with its cosignature.
    let cosigned = || -> Result<u64> { Ok(site.neighbour(0, 2)?["mirrored"].as_u64().unwrap_or(0)) };
    let before = cosigned()?;
    until("box 2 cosigns", || Ok(cosigned()? > before))?;
    stop_still(&site.boxes[2])?;
    disk.cut_power()?;
    let held = cosigned()?;
    site.boxes[2].sealer.kill()?;
    disk.power_on()?;
    scanners.of(2)?;
    site.boxes[2].sealer.start()?;
    until("the mirror is back with all that it cosigned", || {
        let copy = site.neighbour(2, 0)?;
        Ok(copy["copy"]["mirrored"].as_u64().unwrap_or(0) >= held)
    })?;
    let kept = site.copy(2, 0)?.len() as u64;
    ensure!(kept >= held, "box 2 cosigned {held} entries and holds {kept}");
    scanners.begin(&site, 2);

    // A box burns.
    day(2);
    site.boxes[0].sealer.kill()?;
    std::fs::remove_dir_all(site.boxes[0].state())?;
    let burnt = scanners.of(0)?;
    day(3);
    let rest = [1, 2, 3, 4];
    let harvest = scanners.finish()?;
    until("the rest hold all", || converged(&site, &rest))?;
    let mut promised = 0;
    for (of, harvest) in std::iter::once((0, burnt)).chain(harvest) {
        println!(
            "box {of}: {} seals held by others, {} by nobody in time",
            harvest.held.len(),
            harvest.alone
        );
        ensure!(harvest.held.len() > 10, "box {of} had nothing mirrored");
        promised += harvest.held.len();
        let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
        for at in rest.into_iter().filter(|at| *at != of) {
            let copy: BTreeSet<String> =
                site.copy(at, of)?.iter().map(|entry| leaf_hash(entry).to_string()).collect();
            for leaf in harvest.held.iter().filter(|leaf| copy.contains(*leaf)) {
                *holders.entry(leaf).or_default() += 1;
            }
        }
        let lost =
            harvest.held.iter().find(|leaf| holders.get(leaf.as_str()).copied().unwrap_or(0) < HOLDERS);
        ensure!(lost.is_none(), "of box {of}, {lost:?} was held by two others and is not");
    }
    println!("{promised} seals were said to be held by others, and are");
    for at in rest {
        let log = site.boxes[at].log();
        ensure!(!log.contains("ShutOut"), "an honest neighbour was taken for a flooder: {log}");
        site.boxes[at].sealer.stop()?;
        let said = site.boxes[at].fsck()?;
        for of in all.into_iter().filter(|of| *of != at) {
            ensure!(said.contains(&format!("clean: the copy of {}", site.origin(of))), "box {at}: {said}");
        }
    }
    Ok(())
}

/// Takes back every rule, and waits until all are connected again.
fn heal(site: &Site, after: &str, among: &[usize]) -> Result<()> {
    site.lan()?.heal()?;
    let healed = Instant::now();
    while !all_connected(site, among)? {
        ensure!(
            healed.elapsed() < Duration::from_secs(60),
            "they do not find each other again after {after}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("after {after}: all connected {:.1} s after it was healed", healed.elapsed().as_secs_f64());
    Ok(())
}

/// How fast a stock copy goes from one member to another: bytes over one TCP connection, written and synced in pieces.
fn plain_copy(site: &Site, from: usize, to: usize, bytes: usize) -> Result<Duration> {
    const PIECE: usize = 1 << 20;
    let lan = site.lan()?;
    let address = (lan.address(to), 9_999);
    let listener = bulla_tests::rig::netns::inside(&lan.space(to), || std::net::TcpListener::bind(address))??;
    let file = site.boxes[to].directory().join("plain");
    let (space, piece) = (lan.space(from), vec![0x5a; PIECE]);
    let begun = Instant::now();
    let writer = std::thread::spawn(move || -> Result<()> {
        let (mut from, _) = listener.accept()?;
        let (mut file, mut piece, mut left) = (std::fs::File::create(file)?, vec![0; PIECE], bytes);
        while left > 0 {
            let next = left.min(PIECE);
            from.read_exact(&mut piece[..next])?;
            file.write_all(&piece[..next])?;
            file.sync_data()?;
            left -= next;
        }
        Ok(())
    });
    let mut stream = bulla_tests::rig::netns::inside(&space, || std::net::TcpStream::connect(address))??;
    let mut left = bytes;
    while left > 0 {
        let next = left.min(PIECE);
        stream.write_all(&piece[..next])?;
        left -= next;
    }
    writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(begun.elapsed())
}

/// Fills a log as fast as it goes, by digests.
fn fill(rig: &Rig, entries: usize) -> Result<()> {
    const SCANNERS: usize = 64;
    let next = Arc::new(AtomicUsize::new(0));
    let scanners: Vec<_> = (0..SCANNERS)
        .map(|_| {
            let (client, next) = (rig.client(Role::Scanner), next.clone());
            std::thread::spawn(move || -> Result<()> {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= entries {
                        return Ok(());
                    }
                    let digest = bulla_formats::hash::sha256(&[&number.to_be_bytes()]).to_string();
                    let order: Value =
                        json!({"algorithm": "sha-256", "digest": digest, "size": 8, "mediaType": "application/pdf"});
                    let answer = client.seal_digest(&order, &[])?;
                    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
                }
            })
        })
        .collect();
    for scanner in scanners {
        match scanner.join() {
            Ok(done) => done?,
            Err(_) => bail!("a scanner panicked"),
        }
    }
    Ok(())
}

#[test]
fn a_neighbour_that_was_away_converges() -> Result<()> {
    let mut site = Site::create_on_lan(&[Keys::Software; 2], &[])?;
    site.introduce_all()?;
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    site.mirrored(0, "before the cut", 1)?;
    let entries = rounds(3_000, 100_000);
    site.lan()?.plug(1, false)?;
    until("the cut is noticed", || Ok(site.neighbour(0, 1)?["connected"] == false))?;
    fill(&site.boxes[0], entries)?;
    // As branches have it.
    site.lan()?.slow(1, 100_000)?;
    let (size, wire) = (site.boxes[0].log_size()?, site.lan()?.carried(1)?);
    let healed = Instant::now();
    site.lan()?.plug(1, true)?;
    while site.neighbour(0, 1)?["connected"] != true {
        ensure!(healed.elapsed() < Duration::from_secs(60), "they do not find each other again");
        std::thread::sleep(Duration::from_millis(10));
    }
    let met = healed.elapsed();
    while site.neighbour(0, 1)?["mirrored"].as_u64().unwrap_or(0) < size {
        ensure!(healed.elapsed() < Duration::from_secs(600), "it does not catch up");
        std::thread::sleep(Duration::from_millis(10));
    }
    let caught_up = healed.elapsed() - met;
    let wire = site.lan()?.carried(1)? - wire;
    let plain = plain_copy(&site, 0, 1, usize::try_from(wire)?)?;
    println!(
        "connected {:.2} s after the cable was back; {size} entries, {wire} bytes on the cable ({} an entry), converged \
         {:.2} s after that: {:.0} entries/s, {:.0} % of what a plain copy of as many bytes over this line, synced every \
         MiB, allows ({:.2} s)",
        met.as_secs_f64(),
        wire / size,
        caught_up.as_secs_f64(),
        size as f64 / caught_up.as_secs_f64(),
        plain.as_secs_f64() / caught_up.as_secs_f64() * 1e2,
        plain.as_secs_f64()
    );
    assert_eq!(site.copy(1, 0)?.len() as u64, site.boxes[0].log_size()?);
    Ok(())
}
