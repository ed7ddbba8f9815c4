//! `cargo xtask bench`: how fast a box seals and how a log grows, as ratios against baselines of the same run.
//!
//! Machines are noisy: box and baseline take turns, three times, and each figure is the median of its
//! three runs. Box, load and baselines run at the same scheduling priority, on the same disk.
//! Refuses to do: judge. `docs/performance.md` says what bounds each figure.

mod drain;
mod enrol;
mod figures;
mod folder;
mod heal;
mod hub;
mod judge;
mod load;
mod log;
mod outage;
mod plot;
mod sizes;
mod stamps;
mod strangers;

use anyhow::{Context, Result, bail, ensure};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use bulla_tests::rig::{Rig, RigOptions, Role};
use figures::Rate;
use load::{Measured, Order, Target};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strangers::{Postgres, Signers};
use tokio::runtime::Runtime;
use xtask::samples;

const ROUNDS: usize = 3;
const RUN: Duration = Duration::from_secs(4);
const CLIENTS: [usize; 3] = [1, 8, 64];
/// Documents of the comparison, and the pages of each (50 kB).
const DOCUMENTS: usize = 100;
const PAGES: usize = 20;
const PARTS: [&str; 11] = [
    "seals",
    "uploads",
    "folder",
    "verify",
    "strangers",
    "stamps",
    "enrol",
    "outage",
    "heal",
    "hub",
    "sizes",
];

/// What to measure and where.
struct Arguments {
    sizes: Vec<u64>,
    outage: u64,
    hub: u64,
    parts: Vec<String>,
    plot: Option<PathBuf>,
    python: PathBuf,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self {
            sizes: vec![10_000, 1_000_000, 10_000_000],
            outage: 1_000_000,
            hub: 1_000_000,
            parts: PARTS.map(str::to_owned).to_vec(),
            plot: None,
            python: PathBuf::from("python3"),
        };
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} wants a value"))?;
            match word.as_str() {
                "--sizes" => arguments.sizes = value.split(',').map(size).collect::<Result<_>>()?,
                "--outage" => arguments.outage = size(&value)?,
                "--hub" => arguments.hub = size(&value)?,
                "--only" => arguments.parts = value.split(',').map(str::to_owned).collect(),
                "--plot" => arguments.plot = Some(PathBuf::from(value)),
                "--python" => arguments.python = PathBuf::from(value),
                _ => bail!(
                    "usage: bench [--sizes 10k,1m,10m] [--outage 1m] [--hub 1m] [--only {}] [--plot FILE]",
                    PARTS.join(",")
                ),
            }
        }
        arguments.sizes.sort_unstable();
        let unknown = arguments.parts.iter().find(|part| !PARTS.contains(&part.as_str()));
        ensure!(unknown.is_none(), "there is no part {unknown:?}; there are {}", PARTS.join(", "));
        Ok(arguments)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|wanted| wanted == part)
    }
}

/// `10k`, `1m`, `5000`.
fn size(text: &str) -> Result<u64> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1_000),
        None => text.strip_suffix('m').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text:?} is no size"))?;
    ensure!(number > 0, "a log of no entries has no proofs");
    Ok(number * unit)
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("log", act)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return log::act(act);
    }
    let arguments = Arguments::read(words.into_iter())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rig = Rig::start()?;
    let (mut rates, mut logs) = (Vec::new(), Vec::new());
    println!("{ROUNDS} rounds of {} s each; medians", RUN.as_secs());
    if arguments.wants("seals") {
        seals(&runtime, &rig)?;
    }
    if arguments.wants("uploads") {
        uploads(&runtime, &rig)?;
    }
    if arguments.wants("folder") {
        folder::measure()?;
    }
    if arguments.wants("verify") {
        judge::measure(&rig)?;
    }
    if arguments.wants("strangers") {
        rates = strangers(&runtime, &rig, &arguments.python)?;
    }
    if arguments.wants("stamps") {
        stamps::measure(&runtime, target)?;
    }
    if arguments.wants("enrol") {
        enrol::measure()?;
    }
    if arguments.wants("outage") {
        outage::measure(&runtime, target)?;
    }
    if arguments.wants("heal") {
        heal::measure(&runtime, arguments.outage, target)?;
    }
    if arguments.wants("hub") {
        hub::measure(&runtime, arguments.hub, target)?;
    }
    if arguments.wants("sizes") {
        // The box idles meanwhile; what it keeps in memory is not the logs'.
        logs = sizes::measure(rig.directory(), &arguments.sizes)?;
    }
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot::draw(&rates, &logs))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nplot: {}", path.display());
    }
    Ok(())
}

fn seals(runtime: &Runtime, rig: &Rig) -> Result<()> {
    let ceiling = std::env::current_exe()?.with_file_name("examples").join("group_commit_ceiling");
    ensure!(ceiling.is_file(), "{} is missing; run it through `cargo xtask bench`", ceiling.display());
    let tpm = Rig::start_with(&RigOptions { residency: "tpm", ..RigOptions::default() })?;
    println!("\nDurable hash-only seals over keep-alive TLS 1.3, one connection a client\n");
    println!("| clients | what | per second | p50 ms | p99 ms | of the ceiling |");
    println!("|---|---|---|---|---|---|");
    for clients in CLIENTS {
        let mut rows: [Vec<Measured>; 3] = Default::default();
        for _ in 0..ROUNDS {
            rows[0].push(run_ceiling(&ceiling, rig.directory(), clients)?);
            rows[1].push(runtime.block_on(load::run(target(rig)?, Order::Digest, clients, RUN))?);
            rows[2].push(runtime.block_on(load::run(target(&tpm)?, Order::Digest, clients, RUN))?);
        }
        let [ceiling, sealed, signed] = rows.map(median);
        for (what, measured) in [
            ("redb group commit alone (ceiling)", ceiling),
            ("box, tpm-endorsed-ram", sealed),
            ("box, one TPM signature a seal", signed),
        ] {
            println!(
                "| {clients} | {what} | {:.0} | {:.2} | {:.2} | {:.0} % |",
                measured.per_second,
                measured.p50 as f64 / 1_000.0,
                measured.p99 as f64 / 1_000.0,
                100.0 * measured.per_second / ceiling.per_second
            );
        }
    }
    Ok(())
}

fn uploads(runtime: &Runtime, rig: &Rig) -> Result<()> {
    println!("\nUploads, one client\n");
    println!("| size | SHA-256 alone MB/s | TLS drain MB/s | box MB/s | of the slower baseline |");
    println!("|---|---|---|---|---|");
    let (drain_port, drain_pem) = runtime.block_on(drain::start())?;
    let drained = Arc::new(Target {
        port: drain_port,
        token: "none".to_owned(),
        connector: load::connector(drain_pem.as_bytes())?,
    });
    for size in [1_000_000usize, 20_000_000] {
        let mut rows: [Vec<Measured>; 2] = Default::default();
        let mut hashed = Vec::new();
        for _ in 0..ROUNDS {
            hashed.push(hash_rate(size));
            let order = Order::Document(size);
            rows[0].push(runtime.block_on(load::run(drained.clone(), order.clone(), 1, RUN))?);
            rows[1].push(runtime.block_on(load::run(target(rig)?, order, 1, RUN))?);
        }
        hashed.sort_by(f64::total_cmp);
        let hashed = hashed[ROUNDS / 2];
        let [drained, sealed] = rows.map(|row| median(row).per_second * size as f64 / 1e6);
        println!(
            "| {} MB | {hashed:.0} | {drained:.0} | {sealed:.0} | {:.0} % |",
            size / 1_000_000,
            100.0 * sealed / hashed.min(drained)
        );
    }
    Ok(())
}

/// The same documents through the box, PostgreSQL, openssl and pyHanko.
fn strangers(runtime: &Runtime, rig: &Rig, python: &Path) -> Result<Vec<Rate>> {
    let documents: Vec<Vec<u8>> = (0..DOCUMENTS).map(document).collect();
    let digests: Vec<String> = documents.iter().map(|document| hex::encode(sha256(document))).collect();
    let postgres = Postgres::start(rig.directory().parent().context("the rig has a place")?)?;
    let signers = Signers::set_up(&documents)?;
    let files = Order::Files(Arc::new(documents.clone()));
    let (mut rows, mut process): (Vec<Vec<Measured>>, _) = (vec![Vec::new(); 10], Duration::ZERO);
    for _ in 0..ROUNDS {
        for (at, clients) in [(0, 1), (4, 64)] {
            rows[at].push(runtime.block_on(load::run(target(rig)?, files.clone(), clients, RUN))?);
            rows[at + 1].push(runtime.block_on(load::run(target(rig)?, Order::Digest, clients, RUN))?);
            rows[at + 2].push(postgres.insert(&digests, true, clients, RUN)?);
            rows[at + 3].push(postgres.insert(&digests, false, clients, RUN)?);
        }
        let (replies, alone) = signers.openssl_ts()?;
        rows[8].push(replies);
        process = alone;
        rows[9].push(signers.pyhanko(python)?);
    }
    let bytes = documents.iter().map(Vec::len).sum::<usize>() / DOCUMENTS;
    println!("\nThe same {DOCUMENTS} PDF documents of {} kB; {}\n", bytes / 1_000, postgres.version()?);
    println!("| what | clients | per second | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|");
    let names = [
        ("box, documents sent over TLS", 1),
        ("box, digests sent over TLS", 1),
        ("PostgreSQL hash chain, by socket", 1),
        ("PostgreSQL insert without chain", 1),
        ("box, documents sent over TLS", 64),
        ("box, digests sent over TLS", 64),
        ("PostgreSQL hash chain, by socket", 64),
        ("PostgreSQL insert without chain", 64),
        ("openssl ts -reply, nothing stored", 1),
        ("pyHanko, nothing stored", 1),
    ];
    let mut rates = Vec::new();
    for ((what, clients), row) in names.into_iter().zip(rows) {
        let measured = median(row);
        println!(
            "| {what} | {clients} | {:.0} | {:.2} | {:.2} |",
            measured.per_second,
            measured.p50 as f64 / 1_000.0,
            measured.p99 as f64 / 1_000.0
        );
        let what = format!("{what}, {clients} client{}", if clients == 1 { "" } else { "s" });
        rates.push(Rate { ours: what.starts_with("box"), what, per_second: measured.per_second });
    }
    println!("\nA process of openssl that does nothing takes {:.1} ms of that.", process.as_secs_f64() * 1e3);
    Ok(rates)
}

fn document(number: usize) -> Vec<u8> {
    let line = format!("Agreement {number:06}: the parties keep to what is written here, line after line.");
    let page = vec![line.as_str(); 30];
    samples::pdf(&format!("Agreement {number:06}"), &vec![page.as_slice(); PAGES])
}

fn sha256(document: &[u8]) -> Vec<u8> {
    let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
    hasher.update(document);
    hasher.finish().value
}

fn target(rig: &Rig) -> Result<Arc<Target>> {
    let ca = std::fs::read(rig.file("ca.pem"))?;
    Ok(Arc::new(Target {
        port: rig.sealer.port(),
        token: rig.token(Role::Scanner).to_owned(),
        connector: load::connector(&ca)?,
    }))
}

fn run_ceiling(program: &Path, directory: &Path, clients: usize) -> Result<Measured> {
    let output = Command::new(program)
        .arg(directory)
        .args([clients.to_string(), RUN.as_secs().to_string()])
        .output()
        .context("cannot start the ceiling")?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [per_second, p50, p99] = numbers[..] else {
        anyhow::bail!("the ceiling said {text:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(Measured { per_second: per_second as f64, p50, p99 })
}

fn median(mut runs: Vec<Measured>) -> Measured {
    let middle = runs.len() / 2;
    let pick = |runs: &mut Vec<Measured>, key: fn(&Measured) -> f64| {
        runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
        key(&runs[middle])
    };
    Measured {
        per_second: pick(&mut runs, |m| m.per_second),
        p50: pick(&mut runs, |m| m.p50 as f64) as u64,
        p99: pick(&mut runs, |m| m.p99 as f64) as u64,
    }
}

/// Megabytes a second of the box's own hash on one core.
fn hash_rate(size: usize) -> f64 {
    let document = vec![0x41; size];
    let began = Instant::now();
    let mut bytes = 0usize;
    while began.elapsed() < RUN / 4 {
        let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
        document.chunks(64 << 10).for_each(|piece| hasher.update(piece));
        std::hint::black_box(hasher.finish());
        bytes += size;
    }
    bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
}
