//! No seal waits for an authority: the slowest seal in each kind of cut, held against the slowest online in the same run.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::load::Order;
use bulla_tests::rig::outage::{start_behind, wait_anchored, wait_mode};
use bulla_tests::rig::tsa::{Options, Stamps};
use bulla_tests::rig::wan::{Cut, Wan};
use bulla_tests::rig::{Client, Rig, Role};
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 4;
/// Between two seals of a client: what is measured is waiting, not a full machine.
const PAUSE: Duration = Duration::from_millis(20);
const ONLINE: Duration = Duration::from_secs(3);
/// From the cut on, through noticing (4 s) into the emergency.
const AWAY: Duration = Duration::from_secs(6);
/// Whoever waits for an authority that is cut off waits this long at least: the shortest time-out there is.
const WAITED: Duration = Duration::from_secs(1);
const LEAST_BOUND: Duration = Duration::from_millis(500);

/// From when to when something took.
type Span = (Instant, Instant);

fn took(span: &Span) -> Duration {
    span.1 - span.0
}

/// Seals by all clients for a while; every seal is a 201.
fn seals(rig: &Rig, what: &str, how_long: Duration) -> Result<Vec<Span>> {
    let until = Instant::now() + how_long;
    let work = |client: Client, number: usize| {
        let mut spans = Vec::new();
        while Instant::now() < until {
            let document = format!("{what}, client {number}, {}", spans.len()).into_bytes();
            let order = Order { document, upload: false, note_bytes: 0, key: None };
            let begun = Instant::now();
            let answer = order.send(&client)?;
            spans.push((begun, Instant::now()));
            ensure!(answer.status == 201, "{what}: {}", String::from_utf8_lossy(&answer.body));
            thread::sleep(PAUSE);
        }
        Ok(spans)
    };
    thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|number| (number, rig.client(Role::Scanner)));
        let threads: Vec<_> =
            clients.map(|(number, client)| scope.spawn(move || work(client, number))).collect();
        let spans = threads.into_iter().map(|thread| thread.join().ok().context("a client panicked")?);
        Ok(spans.collect::<Result<Vec<_>>>()?.concat())
    })
}

/// What the machine does to somebody who has nothing to do with the box: a write to the same disk, again and again.
struct Bystander<'a> {
    stop: &'a AtomicBool,
    file: File,
}

impl Bystander<'_> {
    fn watch(mut self) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        while !self.stop.load(Relaxed) {
            let begun = Instant::now();
            self.file.write_all(&[0x5a; 512])?;
            self.file.sync_data()?;
            thread::sleep(Duration::from_millis(2));
            spans.push((begun, Instant::now()));
        }
        Ok(spans)
    }
}

/// How long a seal took beyond the longest that the bystander had to wait at the same time.
fn alone(seal: &Span, bystander: &[Span]) -> Duration {
    let same_time = |span: &&Span| span.0 < seal.1 && seal.0 < span.1;
    let machine = bystander.iter().filter(same_time).map(took).max().unwrap_or_default();
    took(seal).saturating_sub(machine)
}

/// The seal that waited, if one did.
fn waited(cut: &[Span], bound: Duration, bystander: &[Span]) -> Option<Duration> {
    let slow = cut.iter().filter(|seal| took(seal) > bound && alone(seal, bystander) > bound);
    slow.map(took).max()
}

fn row(what: &str, spans: &[Span]) -> Result<Duration> {
    let mut times: Vec<Duration> = spans.iter().map(took).collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).or(times.last()).copied();
    let (p50, p99, slowest) =
        (at(50).context("a seal")?, at(99).context("a seal")?, at(100).context("a seal")?);
    let [p50, p99, most] = [p50, p99, slowest].map(|time| time.as_secs_f64() * 1e3);
    println!("| {what} | {} | {p50:.1} | {p99:.1} | {most:.1} |", times.len());
    Ok(slowest)
}

/// A bound on *waiting for whom the cut has taken away*, not on speed: whatever the machine, a seal in a cut may take ten
/// times the slowest seal online, and what the machine does to a bystander at the same time is not the box's.
#[test]
fn no_seal_waits_for_an_authority_in_any_cut() -> Result<()> {
    let wan = Wan::new()?;
    // One by http and one by https: where connections stall, a request stalls, and a handshake.
    let plain = Stamps::start("Operator A")?;
    let https =
        Stamps::start_with(&Options { operator: "Operator B", https: &["b.test"], ..Options::default() })?;
    let mut rig = start_behind(&wan, &[&plain, &https], true)?;
    let (stop, file) = (AtomicBool::new(false), File::create(rig.directory().join("bystander"))?);
    let bystander = Bystander { stop: &stop, file };
    let (online, cuts, bystander) = thread::scope(|scope| {
        let bystander = scope.spawn(|| bystander.watch());
        let measured = phases(&wan, &rig);
        stop.store(true, Relaxed);
        let (online, cuts) = measured?;
        anyhow::Ok((online, cuts, bystander.join().ok().context("it panicked")??))
    })?;
    println!("\n| while | seals | p50 ms | p99 ms | slowest ms |\n|---|---|---|---|---|");
    let slowest = row("online, before each", &online)?;
    for (cut, spans) in &cuts {
        row(&format!("{cut:?}"), spans)?;
    }
    row("a bystander's write", &bystander)?;
    let most = online.iter().map(|seal| alone(seal, &bystander)).max().context("a seal")?;
    let bound = (10 * most).max(LEAST_BOUND);
    println!("\nbound {bound:?}; slowest online {slowest:?}, of it beyond the bystander's {most:?}");
    // The judge would notice.
    let begun = Instant::now();
    ensure!(waited(&[(begun, begun + bound + WAITED)], bound, &bystander).is_some());
    for (cut, spans) in &cuts {
        let waited = waited(spans, bound, &bystander);
        ensure!(
            waited.is_none(),
            "{cut:?}: a seal took {waited:?}, online {slowest:?} at most\n{}",
            rig.log()
        );
    }
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

type Phases = (Vec<Span>, Vec<(Cut, Vec<Span>)>);

/// Online and cut by turns. What is compared was sealed in the mode that it should have been.
fn phases(wan: &Wan, rig: &Rig) -> Result<Phases> {
    let (mut online, mut cuts) = (Vec::new(), Vec::new());
    for cut in Cut::ALL {
        wait_mode(rig, "online", PATIENCE)?;
        online.extend(seals(rig, &format!("before {cut:?}"), ONLINE)?);
        wan.cut(cut)?;
        let mut spans = seals(rig, &format!("in {cut:?}"), AWAY)?;
        wait_mode(rig, "emergency", PATIENCE)?;
        spans.extend(seals(rig, &format!("late in {cut:?}"), ONLINE)?);
        cuts.push((cut, spans));
        wan.heal()?;
    }
    Ok((online, cuts))
}
