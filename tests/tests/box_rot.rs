//! A disk that changes what it was given: every flipped bit, every zeroed block and every block that was written to
//! another place is found and localised, or is provably without effect.
//!
//! Method: a real box seals documents; its entries, with their openings, are laid out in a log of several closed
//! segments with side objects, intent, journal and values beside them. Each case injures a fresh copy in one place,
//! drawn at random over all bytes of all files, and has fsck judge it. What fsck calls clean must read back as a
//! whole: every entry, tile, request, digest, opening, side object and control row is compared. Any panic that leaves
//! fsck ends the test. The small files of the state directory are judged by the program itself.

use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::merkle::verify_inclusion;
use bulla_ledger::{
    DirStore, FsckOptions, FsckReport, Intent, Ledger, NewEntry, Options, Request, Store, TreeOnly, fsck,
};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, rounds};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BLOCK: u64 = 4096;
const BATCH: usize = 20;

/// splitmix64; the seed is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }
}

/// Opens a log's directory. A child that another test has forked holds each lock of this process until it runs its own
/// program: that is waited out.
fn open(directory: &Path) -> io::Result<Arc<dyn Store>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match DirStore::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return Ok(Arc::new(opened?)),
        }
    }
}

fn options(segment_entries: u64) -> Options {
    Options { segment_entries, reserve_bytes: 0, ..Options::default() }
}

/// A log in several segments with the entries of a real box.
struct Specimen {
    origin: String,
    log: TempDir,
    segment_entries: u64,
    requests: Vec<Request>,
    digests: Vec<Vec<u8>>,
    sides: Vec<Hash>,
    rows: Vec<NewEntry>,
}

fn specimen(entries: usize, segment_entries: u64) -> Result<Specimen> {
    let rig = Rig::start_with(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        ..RigOptions::default()
    })?;
    let scanner = rig.client(Role::Scanner);
    for number in 0..entries {
        let (name, body) = (format!("file={number}"), format!("%PDF-1.7 agreement {number}"));
        let headers =
            [("Content-Type", "application/pdf"), ("Bulla-User", "teller 7"), ("Bulla-Metadata", &*name)];
        ensure!(scanner.post("/v1/seals", &headers, body.as_bytes())?.status == 201, "seal {number}");
    }
    let mut rig = rig;
    rig.sealer.stop()?;
    let identity: serde_json::Value = serde_json::from_slice(&fs::read(rig.state().join("identity.json"))?)?;
    let origin = identity["origin"].as_str().context("an identity names its log")?.to_owned();
    let mut directories = fs::read_dir(rig.state())?.filter_map(|entry| Some(entry.ok()?.path()));
    let own = directories.find(|path| path.join("lock").exists()).context("a box has a log")?;
    let (real, _) = Ledger::open(open(&own)?, &origin, options(1 << 20))?;

    let log = tempfile::Builder::new().prefix("bulla-rot-").tempdir()?;
    let mut made = Specimen {
        origin,
        log,
        segment_entries,
        requests: Vec::new(),
        digests: Vec::new(),
        sides: Vec::new(),
        rows: Vec::new(),
    };
    let mut ledger = Ledger::create(open(made.log.path())?, &made.origin, options(segment_entries))?;
    for row in real.reader().entries(0..real.size()) {
        let (index, bytes) = row?;
        let entry = Entry::decode(&bytes)?;
        let mut new = NewEntry {
            openings: real.reader().openings(index)?.map(|it| it.to_vec()),
            ..NewEntry::default()
        };
        if entry.kind() == Some(Kind::Seal) {
            let body = SealBody::decode(&entry.content().body)?;
            made.digests.push(body.digest.to_vec());
            new.digest = Some((body.algorithm as u8, body.digest.to_vec()));
            let request = Request::new(&sha256(&[b"key", &bytes]), &sha256(&[&bytes]));
            made.requests.push(request);
            new.request = Some(request);
        }
        if index % 40 == 1 {
            let side = [index.to_be_bytes().as_slice(), &[7; 600]].concat();
            made.sides.push(sha256(&[&side]));
            new.side = vec![side];
        }
        new.entry = bytes;
        made.rows.push(new);
    }
    for (number, batch) in made.rows.chunks(BATCH).enumerate() {
        let committed = ledger.append(batch.to_vec())?;
        let control = ledger.control();
        if number % 5 == 0 {
            let intent = Intent { counter: number as u64, size: committed.size(), root: committed.root() };
            control.commit_intent(intent)?;
            control.journal(number as u64, &format!("a line of the journal, number {number}"))?;
            control.put(&format!("value-{number}"), &[number as u8; 40])?;
        }
    }
    drop(ledger);
    let segments = made.files()?.iter().filter(|(name, _)| name.starts_with("seg-")).count();
    ensure!(segments >= 3, "only {segments} segments");
    Ok(made)
}

impl Specimen {
    /// Names and lengths of the files that hold anything.
    fn files(&self) -> Result<BTreeMap<String, u64>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.log.path())? {
            let entry = entry?;
            let length = entry.metadata()?.len();
            if length > 0 {
                files.insert(entry.file_name().into_string().expect("the ledger's names are ASCII"), length);
            }
        }
        Ok(files)
    }

    /// A fresh copy in `to`.
    fn copy(&self, to: &Path) -> Result<()> {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        fs::create_dir(to)?;
        for name in self.files()?.keys() {
            fs::copy(self.log.path().join(name), to.join(name))?;
        }
        Ok(())
    }

    fn judge(&self, directory: &Path) -> Result<FsckReport> {
        let store = open(directory)?;
        Ok(fsck(&store, &self.origin, FsckOptions::default(), &mut TreeOnly, &mut |_, _| {})?)
    }

    /// Everything that can be read, as one hash. Opens the log, which may write to it.
    fn dump(&self, directory: &Path) -> Result<Hash> {
        let (ledger, opened) = Ledger::open(open(directory)?, &self.origin, options(self.segment_entries))?;
        ensure!(opened.notes.is_empty(), "a start had something to say: {:?}", opened.notes);
        let (reader, size) = (ledger.reader(), ledger.size());
        let mut all = vec![ledger.root().0.to_vec()];
        for row in reader.entries(0..size) {
            let (index, entry) = row?;
            all.push(entry);
            all.push(reader.openings(index)?.map_or_else(Vec::new, |openings| openings.to_vec()));
            all.push(reader.inclusion_proof(index, size)?.iter().flat_map(|hash| hash.0).collect());
        }
        for tile in 0..size / 256 {
            all.push(reader.tile(0, tile, 256)?);
        }
        for request in &self.requests {
            all.push(format!("{:?}", reader.find_request(&request.key)?).into_bytes());
        }
        for digest in &self.digests {
            all.push(format!("{:?}", reader.find_digest(0, digest, 100)?).into_bytes());
        }
        for side in &self.sides {
            all.push(reader.side(side)?.context("a side object is gone")?);
        }
        let control = ledger.control();
        all.push(format!("{:?}{:?}", control.intent()?, control.journal_rows(0, 10_000)?).into_bytes());
        for number in 0..self.rows.len().div_ceil(BATCH) {
            all.push(format!("{:?}", control.get(&format!("value-{number}"))?).into_bytes());
        }
        let parts: Vec<[u8; 32]> = all.iter().map(|part| sha256(&[part]).0).collect();
        Ok(sha256(&parts.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Injury {
    FlippedBit,
    ZeroedBlock,
    MisdirectedBlock,
}

/// Injures one place of the copy; returns the file and where. Places are drawn over all bytes; one in five over the
/// files, so that small ones are met too.
fn injure(specimen: &Specimen, copy: &Path, injury: Injury, random: &mut Random) -> Result<(String, u64)> {
    let files: Vec<(String, u64)> = specimen.files()?.into_iter().collect();
    let mut at = random.below(files.iter().map(|file| file.1).sum());
    let mut chosen = 0;
    while at >= files[chosen].1 {
        at -= files[chosen].1;
        chosen += 1;
    }
    if random.below(5) == 0 {
        chosen = random.below(files.len() as u64) as usize;
        at = random.below(files[chosen].1);
    }
    let (name, length) = &files[chosen];
    let file = fs::OpenOptions::new().read(true).write(true).open(copy.join(name))?;
    if injury == Injury::FlippedBit {
        let (mut byte, mut bit) = ([0], random.below(8));
        if at == NEWEST_COMMIT.0 && bit == NEWEST_COMMIT.1 && name.ends_with(".redb") {
            bit += 1;
        }
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, at)?;
        return Ok((name.clone(), at));
    }
    let at = at / BLOCK * BLOCK;
    let mut block = vec![0; BLOCK.min(length - at) as usize];
    if injury == Injury::MisdirectedBlock {
        // A block of the same or of another file, as it was.
        let (other, other_length) = &files[random.below(files.len() as u64) as usize];
        let from = random.below(other_length.div_ceil(BLOCK)) * BLOCK;
        let whole = fs::File::open(specimen.log.path().join(other))?;
        let bytes = (other_length - from).min(block.len() as u64) as usize;
        whole.read_exact_at(&mut block[..bytes], from)?;
    }
    file.write_all_at(&block, at)?;
    Ok((name.clone(), at))
}

/// Byte and bit of a redb file that say which of its two commits is the newest. Nothing vouches for that bit: flipped, it
/// shows the state before the last commit, as a repair after a power cut may do rightly (docs/failure-modes.md).
const NEWEST_COMMIT: (u64, u64) = (9, 0);

#[test]
fn every_rotten_place_of_a_log_is_found_and_localised_or_without_effect() -> Result<()> {
    let specimen = specimen(rounds(300, 1_000), rounds(110, 300) as u64)?;
    let work = tempfile::Builder::new().prefix("bulla-rot-").tempdir()?;
    let copy: PathBuf = work.path().join("copy");
    specimen.copy(&copy)?;
    let clean = specimen.judge(&copy)?;
    ensure!(clean.is_clean(), "the specimen itself is sound: {:?}", clean.problems);
    let whole = specimen.dump(&copy)?;

    // redb's panics are contained and become findings; thousands of their backtraces help nobody.
    std::panic::set_hook(Box::new(|_| ()));
    let seed = std::env::var("BULLA_ROT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
    println!("BULLA_ROT_SEED={seed}");
    let mut random = Random(seed);
    let mut counts: BTreeMap<(Injury, &str), usize> = BTreeMap::new();
    let (flips, blocks) = (rounds(340, 10_000), rounds(140, 1_000));
    let mut dirty = None;
    for number in 0..flips + blocks {
        let injury = match number {
            flip if flip < flips => Injury::FlippedBit,
            block if block % 2 == 0 => Injury::ZeroedBlock,
            _ => Injury::MisdirectedBlock,
        };
        // fsck writes nothing: as long as nothing else has been opened, healing the injured file is enough.
        match dirty.take() {
            Some(name) => drop(fs::copy(specimen.log.path().join(&name), copy.join(&name))?),
            None => specimen.copy(&copy)?,
        }
        let (name, at) = injure(&specimen, &copy, injury, &mut random)?;
        let place = || format!("{injury:?} at byte {at} of {name} (case {number}, seed {seed})");
        let report = specimen.judge(&copy).with_context(place)?;
        let outcome = if report.is_clean() {
            let found = specimen.dump(&copy).with_context(|| format!("called clean: {}", place()))?;
            ensure!(found == whole, "called clean, reads back changed: {}", place());
            "without effect"
        } else {
            // The next segment's header can be all that vouches for this one's tail, so a segment may be blamed for
            // what its successor's header lost; the injured file must be named in any case.
            let named = report.problems.iter().any(|problem| problem.file == name);
            ensure!(named, "not localised: {}: {:?}", place(), report.problems);
            dirty = Some(name);
            "found"
        };
        *counts.entry((injury, outcome)).or_default() += 1;
    }
    println!(
        "{} entries, {} bytes: {counts:?}",
        specimen.rows.len(),
        specimen.files()?.values().sum::<u64>()
    );
    for injury in [Injury::FlippedBit, Injury::ZeroedBlock, Injury::MisdirectedBlock] {
        ensure!(counts.contains_key(&(injury, "found")), "no {injury:?} met anything");
    }
    Ok(())
}

/// Around a damaged entry everything else is proven: fsck names that entry alone, and proofs of all others, and of
/// the damaged one, are served and lead to the root.
#[test]
fn g6_what_is_not_damaged_stays_provable() -> Result<()> {
    let specimen = specimen(560, 270)?;
    let copy = specimen.log.path().parent().context("a directory has a parent")?.join(format!(
        "{}-copy",
        specimen.log.path().file_name().context("a directory has a name")?.to_string_lossy()
    ));
    specimen.copy(&copy)?;
    // Entry 100 in the first, closed segment: one bit of its own bytes, on the disk.
    let (victim, path) = (100usize, copy.join("seg-0000000000000000.redb"));
    let mut bytes = fs::read(&path)?;
    let words = &specimen.rows[victim].entry;
    let places: Vec<usize> =
        (0..bytes.len() - words.len()).filter(|at| bytes[*at..].starts_with(words)).collect();
    ensure!(!places.is_empty(), "the entry lies in one piece on its page");
    for at in places {
        bytes[at + words.len() / 2] ^= 4;
    }
    fs::write(&path, &bytes)?;
    let report = specimen.judge(&copy)?;
    let ranges: Vec<_> = report
        .problems
        .iter()
        .filter(|problem| problem.what.contains("entry"))
        .map(|problem| (problem.index, problem.last))
        .collect();
    assert_eq!(ranges, [(100, Some(100))], "{:?}", report.problems);

    let (ledger, _) = Ledger::open(open(&copy)?, &specimen.origin, options(specimen.segment_entries))?;
    let snapshot = ledger.reader().snapshot();
    let (size, root) = (snapshot.size(), snapshot.root());
    for (index, row) in specimen.rows.iter().enumerate() {
        // What was handed out long ago: the entry's own bytes, and a proof asked for today.
        let leaf = bulla_formats::hash::leaf_hash(&row.entry);
        let proof = snapshot.inclusion_proof(index as u64)?;
        verify_inclusion(index as u64, size, &leaf, &proof, &root)?;
        if index != victim {
            assert_eq!(ledger.reader().entry(index as u64)?, row.entry, "entry {index}");
        }
    }
    drop(ledger);
    fs::remove_dir_all(&copy)?;
    Ok(())
}

/// A role, a key or a name that changed by one bit is refused by the program, and the file is named.
#[test]
fn no_bit_of_the_small_files_can_change_unnoticed() -> Result<()> {
    let rig =
        Rig::create(&RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() })?;
    rig.fsck()?;
    let seed = 7;
    let mut random = Random(seed);
    for number in 0..rounds(40, 1_000) {
        let name = ["identity.json", "keys/keys.json", "clients.json", "ca.pem"][number % 4];
        let path = rig.state().join(name);
        let good = fs::read(&path)?;
        let mut bad = good.clone();
        let bit = random.below(8 * good.len() as u64) as usize;
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad)?;
        let judged = rig.try_run(&["fsck"])?;
        let said = String::from_utf8_lossy(&[judged.stdout, judged.stderr].concat()).into_owned();
        ensure!(judged.status.code() == Some(1), "bit {bit} of {name}: {said}");
        ensure!(
            said.contains(name) && !said.contains("panicked"),
            "bit {bit} of {name} is not named: {said}"
        );
        fs::write(&path, &good)?;
    }
    rig.fsck()?;
    Ok(())
}
