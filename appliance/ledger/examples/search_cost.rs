//! What search and erasure cost at a given size: `cargo run --release -p bulla-ledger --example search_cost -- 1000000`.
//!
//! Makes a log of entries of usual length with openings in a temporary directory, indexes it, asks for values that one
//! entry has, erases one entry, then many, and prints times, file sizes and the memory of the index.

use bulla_ledger::{DirStore, Ledger, NewEntry, Options, SearchIndex};
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const BATCH: u64 = 4_000;
const QUERIES: u64 = 1_000;
/// As many as one request may erase.
const SCATTERED: u64 = 10_000;

fn resident(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() -> Result<(), Box<dyn Error>> {
    let size: u64 = std::env::args().nth(1).map_or(Ok(100_000), |number| number.parse())?;
    let directory = tempfile::tempdir()?;
    let store = Arc::new(DirStore::open(directory.path())?);
    let mut ledger = Ledger::create(store, "fleet.example/search/0", Options::default())?;
    let begun = Instant::now();
    while ledger.size() < size {
        let entries = ledger.size()..size.min(ledger.size() + BATCH);
        let entry = |number: u64| NewEntry {
            entry: format!("{number} {}", "x".repeat(600)).into_bytes(),
            openings: Some(format!("document-{number} {}", "y".repeat(150)).into_bytes()),
            ..NewEntry::default()
        };
        ledger.append(entries.map(entry).collect())?;
    }
    println!("appended {size} entries in {:.1?}", begun.elapsed());
    let index = SearchIndex::new(
        ledger.reader(),
        Box::new(|entry, openings, enter| {
            let number = std::str::from_utf8(entry).ok()?.split(' ').next()?;
            enter(1, b"the one scanner");
            let openings = openings.unwrap_or_default();
            enter(2, openings.split(|byte| *byte == b' ').next().unwrap_or_default());
            number.parse().ok()
        }),
    );
    let (before, begun) = (resident("VmRSS"), Instant::now());
    index.advance(u64::MAX)?;
    let took = begun.elapsed();
    let rate = size as f64 / took.as_secs_f64();
    println!("indexed in {took:.1?} ({rate:.0} entries/s); RSS {before} -> {} MiB", resident("VmRSS"));
    let begun = Instant::now();
    index.check()?;
    println!("checked in {:.1?}", begun.elapsed());
    let mut times: Vec<_> = (0..QUERIES)
        .map(|query| {
            let number = query * (size / QUERIES.min(size));
            let begun = Instant::now();
            let found = index.find(2, format!("document-{number}").as_bytes(), u64::MAX, 50);
            (begun.elapsed(), found.is_ok_and(|found| found == [number]))
        })
        .collect();
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2].0, times[times.len() * 99 / 100].0);
    println!(
        "found {} of {QUERIES}: p50 {p50:.1?}, p99 {p99:.1?}",
        times.iter().filter(|(_, hit)| *hit).count()
    );
    let begun = Instant::now();
    ledger.erase_openings(&[7])?;
    println!("openings erased in {:.1?}", begun.elapsed());
    let begun = Instant::now();
    index.erase(&BTreeSet::from([7]), &|| false)?;
    println!("tags erased in {:.1?}; highest RSS {} MiB", begun.elapsed(), resident("VmHWM"));
    let scattered: Vec<u64> = (0..SCATTERED.min(size)).map(|n| n * (size / SCATTERED.min(size))).collect();
    let begun = Instant::now();
    ledger.erase_openings(&scattered)?;
    println!("openings of {} scattered entries erased in {:.1?}", scattered.len(), begun.elapsed());
    let begun = Instant::now();
    ledger.erase_openings(&[8])?;
    println!("one more after that in {:.1?}", begun.elapsed());
    for file in std::fs::read_dir(directory.path())? {
        let file = file?;
        println!("{:>6} MiB {}", file.metadata()?.len() >> 20, file.file_name().to_string_lossy());
    }
    Ok(())
}
