//! The size benchmark's child process: one ledger on a directory, and what it costs at its size.
//!
//! Entries are what a box stores for a document it saw: a seal body in DER, numbered, timed, signed with Ed25519
//! over the real previous tree, with a digest row and an idempotency row. Only TLS, HTTP and the TPM are left out.
//! Refuses to do: stop cleanly. Whoever started it takes its figures from its output and kills it.

use anyhow::{Context, Result, bail, ensure};
use bulla_formats::body::seal::{Client, ClientMethod, DigestAlgorithm, Observation, SealBody};
use bulla_formats::der;
use bulla_formats::entry::{Entry, EntryContent, Kind, LocalTime, Mode, Residency, TreeState};
use bulla_formats::hash::sha256;
use bulla_ledger::{DirStore, Ledger, NewEntry, Options, Reader, Request, Store};
use ed25519_dalek::{Signer as _, SigningKey};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ORIGIN: &str = "bench.bulla.test/0000000000000000/1";
/// Entries of a full batch, the box's own bound.
const BATCH: u64 = 512;
/// Full batches and single entries that one measurement times.
const BATCHES_TIMED: usize = 200;
const SINGLES_TIMED: usize = 400;
/// Proofs that one measurement times.
const PROOFS_TIMED: u64 = 2_000;

/// Runs one of the three acts: `fill DIR ENTRIES`, `append DIR`, `look DIR`.
pub fn act(arguments: &[String]) -> Result<()> {
    match arguments {
        [act, dir, entries] if act == "fill" => fill(Path::new(dir), entries.parse()?),
        [act, dir] if act == "append" => append(Path::new(dir)),
        [act, dir] if act == "look" => look(Path::new(dir)),
        _ => bail!("usage: bench log fill DIR ENTRIES | append DIR | look DIR"),
    }
}

/// Prints a figure the way the parent reads it.
fn say(name: &str, value: impl std::fmt::Display) -> Result<()> {
    println!("{name} {value}");
    // The parent acts on some of them at once.
    Ok(std::io::stdout().flush()?)
}

fn open(dir: &Path) -> Result<Ledger> {
    let store: Arc<dyn Store> = Arc::new(DirStore::open(dir)?);
    if store.list()?.is_empty() {
        return Ok(Ledger::create(store, ORIGIN, Options::default())?);
    }
    let began = Instant::now();
    let (ledger, opened) = Ledger::open(store, ORIGIN, Options::default())?;
    say("open_ms", began.elapsed().as_millis())?;
    for note in opened.notes {
        eprintln!("at start: {note}");
    }
    say("size", ledger.size())?;
    say("rss_opened", rss("VmRSS:")?)?;
    Ok(ledger)
}

fn fill(dir: &Path, entries: u64) -> Result<()> {
    let mut ledger = open(dir)?;
    let maker = Maker::new();
    let mut told = Instant::now();
    let mut bytes = 0;
    while ledger.size() < entries {
        let batch = maker.batch(&ledger, BATCH.min(entries - ledger.size()))?;
        bytes += batch.iter().map(|new| new.entry.len() as u64).sum::<u64>();
        ledger.append(batch)?;
        if told.elapsed() > Duration::from_millis(500) {
            told = Instant::now();
            say("progress", ledger.size())?;
        }
    }
    say("entry_bytes", bytes)?;
    say("rss_filled", rss("VmRSS:")?)?;
    say("rss_peak", rss("VmHWM:")?)
}

/// Times appends, then appends until it is killed.
fn append(dir: &Path) -> Result<()> {
    let mut ledger = open(dir)?;
    let maker = Maker::new();
    let mut spent = Duration::ZERO;
    for _ in 0..BATCHES_TIMED {
        let batch = maker.batch(&ledger, BATCH)?;
        let began = Instant::now();
        ledger.append(batch)?;
        spent += began.elapsed();
    }
    say("batched_per_second", (BATCHES_TIMED as f64 * BATCH as f64 / spent.as_secs_f64()) as u64)?;
    let mut singles = Vec::with_capacity(SINGLES_TIMED);
    for _ in 0..SINGLES_TIMED {
        let batch = maker.batch(&ledger, 1)?;
        let began = Instant::now();
        ledger.append(batch)?;
        singles.push(began.elapsed());
    }
    singles.sort_unstable();
    let spent: Duration = singles.iter().sum();
    say("single_per_second", (SINGLES_TIMED as f64 / spent.as_secs_f64()) as u64)?;
    say("single_p99_us", singles[SINGLES_TIMED * 99 / 100].as_micros())?;
    say("rss_appended", rss("VmRSS:")?)?;
    say("rss_peak", rss("VmHWM:")?)?;
    say("appending", ledger.size())?;
    loop {
        let batch = maker.batch(&ledger, BATCH / 8)?;
        ledger.append(batch)?;
    }
}

/// Opens what a kill left, and times proofs.
fn look(dir: &Path) -> Result<()> {
    let ledger = open(dir)?;
    let snapshot = ledger.reader().snapshot();
    let size = snapshot.size();
    let mut times = Vec::new();
    for number in 0..PROOFS_TIMED {
        // Indexes that no cache expects, the same in every run.
        let random = sha256(&[&number.to_be_bytes()]).0;
        let index = u64::from_be_bytes(random.first_chunk().copied().unwrap_or_default()) % size;
        let began = Instant::now();
        std::hint::black_box(snapshot.inclusion_proof(index)?);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    say("proof_p50_us", times[times.len() / 2].as_micros())?;
    say("proof_p99_us", times[times.len() * 99 / 100].as_micros())?;
    say("proof_max_us", times[times.len() - 1].as_micros())?;
    let began = Instant::now();
    while ledger.reader().make_digest_filter()? {}
    say("filters_ms", began.elapsed().as_millis())?;
    say("stranger_p50_us", strangers(&ledger.reader())?)?;
    say("rss_proved", rss("VmRSS:")?)?;
    say("rss_peak", rss("VmHWM:")?)
}

/// Microseconds, at the median, to learn that a document was never sealed: every seal asks.
fn strangers(reader: &Reader) -> Result<f64> {
    let mut times = Vec::new();
    for number in 0..PROOFS_TIMED {
        let digest = sha256(&[b"stranger", &number.to_be_bytes()]).0;
        let began = Instant::now();
        let found = reader.find_digest(DigestAlgorithm::Sha256 as u8, &digest, 9)?;
        times.push(began.elapsed());
        ensure!(found.is_empty(), "a digest that nobody sealed was found");
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_nanos() as f64 / 1e3)
}

/// A figure of `/proc/self/status`, in kB.
fn rss(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no such line in status")?;
    Ok(number.parse()?)
}

/// Makes seal entries as the box's writer does.
struct Maker {
    key: SigningKey,
    threads: u64,
}

impl Maker {
    fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
        Self { key: SigningKey::from_bytes(&[7; 32]), threads }
    }

    /// The next `count` entries of the log; signing them is shared among all cores.
    fn batch(&self, ledger: &Ledger, count: u64) -> Result<Vec<NewEntry>> {
        let first = ledger.size();
        let previous = TreeState::new(first, ledger.root());
        if count < 64 {
            return (first..first + count).map(|index| self.entry(index, &previous)).collect();
        }
        let share = count.div_ceil(self.threads);
        std::thread::scope(|scope| {
            let parts: Vec<_> = (0..self.threads)
                .map(|part| {
                    let (from, to) = (first + part * share, first + ((part + 1) * share).min(count));
                    let previous = &previous;
                    scope.spawn(move || {
                        (from..to).map(|index| self.entry(index, previous)).collect::<Result<Vec<_>>>()
                    })
                })
                .collect();
            let mut batch = Vec::with_capacity(count as usize);
            for part in parts {
                batch.extend(part.join().map_err(|_| anyhow::anyhow!("a signer panicked"))??);
            }
            Ok(batch)
        })
    }

    fn entry(&self, index: u64, previous: &TreeState) -> Result<NewEntry> {
        let digest = sha256(&[b"document", &index.to_be_bytes()]).0.to_vec();
        let body = SealBody {
            algorithm: DigestAlgorithm::Sha256,
            digest: digest.clone().into(),
            size: Some(48_000 + index % 1_000),
            media_type: "application/pdf".to_owned(),
            observation: Observation::BytesObserved,
            client: Client { id: "scanner-1".to_owned(), method: ClientMethod::BearerToken },
            transport: "https/1.1 tls1.3".to_owned(),
            commitments: Vec::new(),
            relations: Vec::new(),
        };
        let content = EntryContent {
            version: 1,
            index,
            lamport: index + 1,
            time: LocalTime { unix_millis: 1_790_000_000_000 + index, uncertainty_millis: None },
            mode: Mode::AirGapped,
            drill: false,
            epoch: 1,
            residency: Residency::TpmEndorsedRam,
            previous: previous.clone(),
            evidence: None,
            kind: Kind::Seal as u16,
            body: der::encode(&body).into(),
        };
        let signature = self.key.sign(&content.message(ORIGIN)).to_bytes().to_vec();
        let entry = Entry::assemble(content, signature)?;
        Ok(NewEntry {
            entry: entry.bytes().to_vec(),
            digest: Some((DigestAlgorithm::Sha256 as u8, digest)),
            request: Some(Request::new(
                &sha256(&[b"key", &index.to_be_bytes()]),
                &sha256(&[b"request", &index.to_be_bytes()]),
            )),
            ..NewEntry::default()
        })
    }
}
