//! A hub of eight boxes: how fast it takes their logs in, and how fast it answers when they are large.
//!
//! The boxes are real and so are their seals, with digests as random as documents'. `bulla-hub` pulls, verifies and
//! archives all of them at once; it reads its whole archive again (`fsck`); it makes its index again in a real PostgreSQL.
//! Then one auditor asks the served hub, by HTTPS, from each index. Raw Ed25519 verification on one core is the baseline.
//! Refuses to do: count an answer that is not the one asked for.

use crate::figures::median_of;
use crate::load::{self, Order, Target};
use crate::strangers::Postgres;
use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::sha256;
use bulla_formats::tile::{TileCoordinate, parse_entries, width_at};
use bulla_tests::rig::hub::{HubKeys, HubRig};
use bulla_tests::rig::outage::software;
use bulla_tests::rig::{Rig, Role};
use ed25519_dalek::{Signer as _, SigningKey};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use ureq::Agent;

const BOXES: usize = 8;
/// Clients that fill a log, and the pieces in which they do.
const FILLING: (usize, Duration) = (64, Duration::from_secs(2));
/// Questions of each kind.
const QUESTIONS: u64 = 300;
/// Seconds for which raw signatures are verified, and how often.
const RAW: (f64, usize) = (0.4, 5);

/// What a command of the hub cost.
struct Cost {
    wall: Duration,
    processor: Duration,
    peak_mb: f64,
}

/// Measures with so many entries in all, and prints the tables.
pub fn measure(runtime: &Runtime, entries: u64, target: impl Fn(&Rig) -> Result<Arc<Target>>) -> Result<()> {
    let boxes = (0..BOXES).map(|_| Rig::start_with(&software())).collect::<Result<Vec<_>>>()?;
    for (at, rig) in boxes.iter().enumerate() {
        let target = target(rig)?;
        while rig.log_size()? < entries / BOXES as u64 {
            runtime.block_on(load::run(target.clone(), Order::Digest, FILLING.0, FILLING.1))?;
            eprint!("\rbox {} of {BOXES}: {} entries   ", at + 1, rig.log_size()?);
        }
    }
    eprintln!();
    let origins = boxes.iter().map(origin).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = (1..=BOXES).map(|number| format!("branch-{number}")).collect();
    let sources: Vec<[(&Rig, bool); 1]> = boxes.iter().map(|rig| [(rig, false)]).collect();
    let listed: Vec<_> = (0..BOXES).map(|at| (&*names[at], &*origins[at], &sources[at][..])).collect();
    let hub = HubRig::create(&listed)?;
    let keys = hub.furnish_serve("hub.bulla.test/bench")?;
    // It pulls when it is told to, and not while it is asked.
    let config = fs::read_to_string(hub.file("hub.toml"))?;
    fs::write(hub.file("hub.toml"), config.replace("every_seconds = 1\n", "every_seconds = 86400\n"))?;

    let total = boxes.iter().map(Rig::log_size).sum::<Result<u64>>()?;
    let raw = raw()?;
    println!(
        "\nA hub of {BOXES} boxes with {total} entries in all; raw Ed25519 (strict): {raw:.0} a second and core\n"
    );
    println!(
        "| step | s | entries/s | processor µs an entry | entries/s and core, of raw Ed25519 | peak RSS MB |"
    );
    println!("|---|---|---|---|---|---|");
    let told = |what: &str, cost: &Cost| {
        let (wall, processor) = (cost.wall.as_secs_f64(), cost.processor.as_secs_f64());
        println!(
            "| {what} | {wall:.1} | {:.0} | {:.1} | {:.0} % | {:.0} |",
            total as f64 / wall,
            processor * 1e6 / total as f64,
            100.0 * total as f64 / processor / raw,
            cost.peak_mb
        );
    };
    told("pull: fetch, verify, archive, index", &run(&hub, &["pull"])?);
    let again = run(&hub, &["pull"])?;
    told("fsck: the whole archive again", &run(&hub, &["fsck"])?);
    let (archive, embedded) = (bytes(&hub.file("archive"))?, bytes(&hub.file("state/hub.redb"))?);
    let own = asked(&hub, &keys, &boxes, "embedded")?;

    let postgres = Postgres::start(boxes[0].directory())?;
    let empty = postgres.bytes()?;
    let config = fs::read_to_string(hub.file("hub.toml"))?;
    let section =
        format!("[postgres]\nhost = {:?}\ndatabase = \"postgres\"\nuser = \"bench\"\n", postgres.socket());
    fs::write(hub.file("hub.toml"), config + &section)?;
    hub.lines(&["init"], 0)?;
    told("reindex: the index again, in PostgreSQL", &run(&hub, &["reindex"])?);
    let rows = own.into_iter().chain(asked(&hub, &keys, &boxes, "PostgreSQL")?);

    println!("\nOne auditor asks the served hub, {QUESTIONS} questions of each kind\n");
    println!("| question | index | p50 ms | p99 ms |");
    println!("|---|---|---|---|");
    rows.for_each(|row| println!("{row}"));
    let each = |bytes: u64| bytes as f64 / total as f64;
    println!("\nA pull of all {BOXES} with nothing new: {:.2} s", again.wall.as_secs_f64());
    println!(
        "Bytes an entry: archive {:.0}, embedded index {:.0}, index in PostgreSQL {:.0}",
        each(archive),
        each(embedded),
        each(postgres.bytes()?.saturating_sub(empty))
    );
    Ok(())
}

fn origin(rig: &Rig) -> Result<String> {
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    Ok(status["origin"].as_str().context("its log has a name")?.to_owned())
}

/// Signatures that one core verifies in a second of its time, which is what the hub's commands are counted in, too.
fn raw() -> Result<f64> {
    let spent = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    let key = SigningKey::from_bytes(&[9; 32]);
    let (message, public) = ([7u8; 300], key.verifying_key());
    let signature = key.sign(&message);
    let mut rates = Vec::new();
    for _ in 0..RAW.1 {
        let (began, mut done) = (spent(), 0_u32);
        while spent() - began < RAW.0 {
            ensure!(public.verify_strict(&message, &signature).is_ok(), "a genuine signature is refused");
            done += 1;
        }
        rates.push(f64::from(done) / (spent() - began));
    }
    Ok(median_of(rates.into_iter()))
}

/// Runs a command of the hub to its good end; what it used is read from the kernel while it runs.
fn run(hub: &HubRig, arguments: &[&str]) -> Result<Cost> {
    let began = Instant::now();
    let mut child =
        hub.command(arguments)?.stdout(Stdio::null()).spawn().context("cannot start bulla-hub")?;
    let (mut processor, mut peak_mb) = (Duration::ZERO, 0.0);
    loop {
        if let Some((used, most)) = used(&child) {
            (processor, peak_mb) = (used, most);
        }
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "bulla-hub {arguments:?} ended with {status}");
            return Ok(Cost { wall: began.elapsed(), processor, peak_mb });
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Processor time and largest resident set of a process that may be gone.
fn used(child: &Child) -> Option<(Duration, f64)> {
    let text = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    // proc(5): after the name in parentheses the state, then utime and stime as the 12th and 13th field, in hundredths of a
    // second (USER_HZ).
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = peak.split_whitespace().next()?.parse().ok()?;
    Some((Duration::from_millis(ticks * 10), kilobytes / 1024.0))
}

/// What files take on the disk.
fn bytes(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let about = fs::symlink_metadata(path)?;
    let mut sum = about.blocks() * 512;
    if about.is_dir() {
        for file in fs::read_dir(path)? {
            sum += bytes(&file?.path())?;
        }
    }
    Ok(sum)
}

/// Serves, and asks; rows of the table.
fn asked(hub: &HubRig, keys: &HubKeys, boxes: &[Rig], index: &str) -> Result<Vec<String>> {
    let name = format!("auditor-{index}");
    let person = hub.lines(&["people", "add", &name, "--role", "auditor"], 0)?;
    let token = person[0]["token"].as_str().context("a token")?.to_owned();
    let _serving = hub.serve()?;
    let agent = keys.agent()?;
    let digests = (0..QUESTIONS).map(|number| digest(boxes, number)).collect::<Result<Vec<_>>>()?;
    let strangers =
        (0..QUESTIONS).map(|number| sha256(&[b"nobody sealed it", &number.to_be_bytes()]).to_string());
    let by = |question: &str, digest: &String| format!("/v1/{question}?digest=sha-256:{digest}");
    let kinds: [(&str, Vec<String>, u16); 4] = [
        ("find: where a document was sealed", digests.iter().map(|digest| by("find", digest)).collect(), 200),
        ("find: a document that nobody sealed", strangers.map(|digest| by("find", &digest)).collect(), 404),
        ("statement of a document", digests.iter().map(|digest| by("statement", digest)).collect(), 200),
        (
            "find: a hundred seals of one branch",
            (0..QUESTIONS)
                .map(|number| {
                    format!("/v1/find?kind=seal&box=branch-{}&limit=100", 1 + number % BOXES as u64)
                })
                .collect(),
            200,
        ),
    ];
    let mut rows = Vec::new();
    for (what, questions, status) in kinds {
        let mut millis = Vec::new();
        for question in &questions {
            let began = Instant::now();
            let answered = ask(&agent, &format!("{}{question}", keys.url), &token)?;
            ensure!(answered == status, "{question}: {answered}");
            millis.push(began.elapsed().as_secs_f64() * 1e3);
        }
        millis.sort_by(f64::total_cmp);
        let (half, most) = (millis[millis.len() / 2], millis[millis.len() * 99 / 100]);
        rows.push(format!("| {what} | {index} | {half:.2} | {most:.2} |"));
    }
    Ok(rows)
}

fn ask(agent: &Agent, url: &str, token: &str) -> Result<u16> {
    let mut answer = agent.get(url).header("Authorization", format!("Bearer {token}")).call()?;
    answer.body_mut().read_to_vec()?;
    Ok(answer.status().as_u16())
}

/// The digest of a seal that no cache expects, the same in every run of this size.
fn digest(boxes: &[Rig], number: u64) -> Result<String> {
    let random = sha256(&[&number.to_be_bytes()]).0;
    let random = u64::from_be_bytes(*random.first_chunk().context("eight bytes")?);
    let rig = &boxes[(number % BOXES as u64) as usize];
    let size = rig.log_size()?;
    let bundle = random % size.div_ceil(256);
    let width = width_at(0, bundle, size);
    let path = TileCoordinate::entries(bundle, width)?.path();
    let answer = rig.client(Role::Reader).get(&format!("/{path}"))?;
    ensure!(answer.status == 200, "{path}: {}", answer.status);
    let entries = parse_entries(&answer.body, width)?;
    let seals = entries
        .iter()
        .filter_map(|bytes| Entry::decode(bytes).ok())
        .filter(|entry| entry.kind() == Some(Kind::Seal));
    let seals: Vec<Entry> = seals.collect();
    ensure!(!seals.is_empty(), "{path} holds no seal");
    let seal = &seals[random as usize / 7 % seals.len()];
    let body = SealBody::decode(&seal.content().body)?;
    Ok(body.digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
