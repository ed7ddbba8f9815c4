//! What mirrors cost: `cargo run --release -p bulla-ledger --example mirror_cost -- [entries] [mirrors] [entries each]`.
//!
//! Stores a log of entries of usual length in chunks of 1,000 as a mirror, and as a box's own log for comparison, in
//! turns, so that both see the same machine; then many small mirrors. Prints rates, memory and bytes on the disk.

use bulla_formats::hash::leaf_hash;
use bulla_formats::merkle::Frontier;
use bulla_ledger::{
    DirShelf, DirStore, Ledger, MirrorOptions, Mirrors, NewEntry, NoReferences, Options, Shelf, Tree,
};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHUNK: u64 = 1_000;

/// A line of `/proc/self/status` in KiB.
fn resident(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn origin(number: u64) -> String {
    format!("fleet.example/{number:040x}/1")
}

/// The next chunk of a log, and the tree it leads to.
fn chunk(frontier: &mut Frontier) -> (Vec<Vec<u8>>, Tree) {
    let first = frontier.size();
    let entries: Vec<Vec<u8>> =
        (first..first + CHUNK).map(|number| format!("{number} {}", "x".repeat(600)).into_bytes()).collect();
    entries.iter().for_each(|entry| frontier.append(leaf_hash(entry)));
    (entries, Tree { size: frontier.size(), root: frontier.root() })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let mut number = |default| numbers.next().unwrap_or(Ok(default));
    let (size, mirrors, each) = (number(1_000_000)?, number(50)?, number(20_000)?);
    let directory = tempfile::tempdir()?;
    let open = |name: &str| -> Result<Mirrors, Box<dyn Error>> {
        let shelf: Arc<dyn Shelf> = Arc::new(DirShelf::open(&directory.path().join(name))?);
        Ok(Mirrors::open(shelf, MirrorOptions::new(Arc::new(NoReferences)))?)
    };
    println!("at the start: RSS {:.1} MiB", mib(resident("VmRSS")));

    let many = open("many")?;
    let begun = Instant::now();
    for number in 0..mirrors {
        let (mirror, mut frontier) = (many.create(&origin(number))?, Frontier::new());
        while frontier.size() < each {
            let (entries, to) = chunk(&mut frontier);
            mirror.store_range(to.size - CHUNK, entries, Vec::new(), to)?;
        }
    }
    let took = begun.elapsed();
    println!(
        "{mirrors} mirrors of {each} entries in {took:.1?}: RSS {:.1} MiB, {} MiB on the disk",
        mib(resident("VmRSS")),
        many.disk_bytes()? >> 20
    );
    drop(many);
    println!("closed: RSS {:.1} MiB", mib(resident("VmRSS")));
    let begun = Instant::now();
    let many = open("many")?;
    println!("found again in {:.1?}: RSS {:.1} MiB", begun.elapsed(), mib(resident("VmRSS")));
    let begun = Instant::now();
    for mirror in many.all() {
        mirror.reader()?.entry(each / 2)?;
        mirror.persist_witness(each, mirror.standing().tree.root)?;
    }
    println!(
        "each verified, read and witnessed once in {:.1?}: RSS {:.1} MiB",
        begun.elapsed(),
        mib(resident("VmRSS"))
    );
    let mirror = many.get(&origin(0)).ok_or("no mirror")?;
    let mut times = Vec::new();
    for more in 1..=200 {
        let begun = Instant::now();
        mirror.persist_witness(each + more, bulla_formats::hash::Hash([more as u8; 32]))?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("persist_witness: p50 {:.2?}, p99 {:.2?}", times[100], times[198]);
    drop((many, mirror));

    std::fs::create_dir(directory.path().join("own"))?;
    let store = Arc::new(DirStore::open(&directory.path().join("own"))?);
    let mut own = Ledger::create(store, &origin(0), Options::default())?;
    let one = open("one")?;
    let mirror = one.create(&origin(0))?;
    let (mut frontier, before) = (Frontier::new(), resident("VmRSS"));
    let (mut stored, mut appended) = (Duration::ZERO, Duration::ZERO);
    while frontier.size() < size {
        let (entries, to) = chunk(&mut frontier);
        let copies = entries.iter().map(|entry| NewEntry { entry: entry.clone(), ..NewEntry::default() });
        let copies = copies.collect();
        let begun = Instant::now();
        mirror.store_range(to.size - CHUNK, entries, Vec::new(), to)?;
        stored += begun.elapsed();
        let begun = Instant::now();
        own.append(copies)?;
        appended += begun.elapsed();
    }
    let rate = |took: Duration| size as f64 / took.as_secs_f64();
    println!(
        "mirror: {:.0} entries/s in chunks of {CHUNK}; own log: {:.0} entries/s",
        rate(stored),
        rate(appended)
    );
    println!("both open: RSS {:.1} -> {:.1} MiB", mib(before), mib(resident("VmRSS")));
    drop(own);
    println!(
        "the mirror alone: RSS {:.1} MiB, {} MiB on the disk",
        mib(resident("VmRSS")),
        mirror.disk_bytes()? >> 20
    );
    drop((one, mirror));
    let begun = Instant::now();
    let one = open("one")?;
    let found = begun.elapsed();
    let begun = Instant::now();
    one.get(&origin(0)).ok_or("no mirror")?.reader()?;
    println!("started again in {found:.1?}, verified at first use in {:.1?}", begun.elapsed());
    Ok(())
}
