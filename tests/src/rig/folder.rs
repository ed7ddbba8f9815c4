//! Scanners that write badly into a folder, and the account of what came of it.
//!
//! Files of mixed kinds and sizes are written slowly, with the file held open or opened anew for every piece, under
//! temporary names, over one another, under locks, in any order, with and without sidecars; some never to the end.
//! Refuses to do: count on when anything is looked at. A version that was whole for a moment may have been sealed; half a
//! file may never.

use super::{Rig, Role};
use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// SHA-256 as hex.
pub fn digest(bytes: &[u8]) -> String {
    let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
    hasher.update(bytes);
    hex::encode(hasher.finish().value)
}

/// A whole PDF of about `size` bytes that no other number has.
pub fn pdf(number: u32, size: usize) -> Vec<u8> {
    let mut bytes =
        format!("%PDF-1.4\n% scan {number}\n1 0 obj\n<< /Length {size} >>\nstream\n").into_bytes();
    bytes.extend(noise(number, size));
    bytes.extend(b"\nendstream\nendobj\n");
    let table = bytes.len();
    bytes.extend(
        format!("xref\n0 1\n0000000000 65535 f \ntrailer\n<< /Size 1 >>\nstartxref\n{table}\n%%EOF\n")
            .bytes(),
    );
    bytes
}

/// A whole TIFF whose directory stands in front of its picture.
pub fn tiff(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0\x02\0".to_vec();
    for (tag, value) in [(273u16, 38), (279, size as u32)] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(4u16.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(noise(number, size));
    bytes
}

/// A whole JPEG.
pub fn jpeg(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = b"\xff\xd8\xff\xda\x00\x02".to_vec();
    bytes.extend(noise(number, size).iter().map(|byte| byte & 0x7f));
    bytes.extend(b"\xff\xd9");
    bytes
}

fn noise(number: u32, size: usize) -> Vec<u8> {
    let mut state = u64::from(number) << 20 | 0x1_0001;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next().max(1)).collect()
}

/// What has been written.
#[derive(Default)]
pub struct Written {
    /// Whole documents by name, as they are in the end.
    pub whole: BTreeMap<String, Vec<u8>>,
    /// Names of files that are not whole and stay so.
    pub halves: BTreeSet<String>,
    /// Sidecars by name of their document.
    pub sidecars: BTreeMap<String, Vec<u8>>,
    /// Digests of versions that were whole for a moment.
    pub passing: BTreeSet<String>,
}

/// Writes `count` files with `writers` hands at a time.
pub fn write_badly(folder: &Path, count: u32, writers: u32) -> Result<Written> {
    let (written, next) = (Mutex::new(Written::default()), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let hands: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return Ok(());
                        }
                        one(folder, number, &written).with_context(|| format!("file {number}"))?;
                    }
                })
            })
            .collect();
        hands.into_iter().try_for_each(|hand| hand.join().expect("a writer does not panic"))
    })?;
    Ok(written.into_inner().expect("no writer panicked"))
}

fn one(folder: &Path, number: u32, written: &Mutex<Written>) -> Result<()> {
    let size = match number % 50 {
        0 => 1_500_000,
        n if n % 5 == 0 => 120_000,
        n => 500 + 37 * n as usize,
    };
    let (extension, bytes) = match number % 3 {
        0 => ("pdf", pdf(number, size)),
        1 => ("tif", tiff(number, size)),
        _ => ("jpg", jpeg(number, size)),
    };
    let name = format!("scan-{number:04}.{extension}");
    let path = folder.join(&name);
    let pause = || std::thread::sleep(Duration::from_millis(30));
    let pieces = || bytes.chunks(bytes.len() / 5 + 1);
    let note = |change: &dyn Fn(&mut Written)| change(&mut written.lock().expect("no writer panicked"));
    match number % 10 {
        0 | 1 => fs::write(&path, &bytes)?,
        2 => {
            let mut file = File::create(&path)?;
            for piece in pieces() {
                file.write_all(piece)?;
                pause();
            }
        }
        3 => {
            for piece in pieces() {
                File::options().create(true).append(true).open(&path)?.write_all(piece)?;
                pause();
            }
        }
        4 => {
            let passing = folder.join(format!("{name}.part"));
            fs::write(&passing, &bytes)?;
            pause();
            fs::rename(passing, &path)?;
        }
        5 => {
            // Written, and at once written anew as something else.
            let first = pdf(number + 1_000_000, size);
            note(&|written| written.passing.extend([digest(&first)]));
            fs::write(&path, &first)?;
            pause();
            fs::write(&path, &bytes)?;
        }
        6 => {
            // Whole and held: nobody may take it yet.
            let file = File::create(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            (&file).write_all(&bytes)?;
            std::thread::sleep(Duration::from_millis(250));
        }
        7 => {
            // Its length first, then its pieces from the last to the first.
            let file = File::create(&path)?;
            file.set_len(bytes.len() as u64)?;
            let size = bytes.len() / 5 + 1;
            for (at, piece) in bytes.chunks(size).enumerate().rev() {
                file.write_all_at(piece, (at * size) as u64)?;
                pause();
            }
        }
        8 => {
            let sidecar = format!("<scan><user>user {number}</user></scan>").into_bytes();
            if number.is_multiple_of(4) {
                fs::write(path.with_extension("xml"), &sidecar)?;
                fs::write(&path, &bytes)?;
            } else {
                let other = folder.join(format!("moving-{number:04}.{extension}"));
                fs::write(&other, &bytes)?;
                fs::write(path.with_extension("xml"), &sidecar)?;
                fs::rename(other, &path)?;
            }
            note(&|written| written.sidecars.extend([(name.clone(), sidecar.clone())]));
        }
        _ => {
            fs::write(&path, &bytes[..bytes.len() * 3 / 4])?;
            note(&|written| written.halves.extend([name.clone()]));
            return Ok(());
        }
    }
    note(&|written| written.whole.extend([(name.clone(), bytes.clone())]));
    Ok(())
}

impl Written {
    /// Waits until every whole document has a receipt and every half has left the folder.
    pub fn settled(&self, folder: &Path, errors: &Path, within: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let missing = self.whole.keys().find(|name| !self.is_done(folder, name));
            let left = self.halves.iter().find(|name| !errors.join(format!("{name}.reason.txt")).exists());
            if missing.is_none() && left.is_none() {
                return Ok(());
            }
            ensure!(began.elapsed() < within, "after {within:?} still open: {missing:?}, half: {left:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn is_done(&self, folder: &Path, name: &str) -> bool {
        let receipt = fs::read(folder.join(format!("{name}.receipt.json"))).unwrap_or_default();
        let receipt: Value = serde_json::from_slice(&receipt).unwrap_or_default();
        let with = self.sidecars.get(name).map(|sidecar| digest(sidecar));
        receipt["file"]["sha256"] == digest(&self.whole[name])
            && with.is_none_or(|with| receipt["sidecars"][0]["sha256"] == with)
    }

    /// Every document lies there unchanged beside a seal that a verifier accepts, of one of these boxes; halves lie in the
    /// error folder with a reason.
    pub fn judge(&self, folder: &Path, errors: &Path, rigs: &[&Rig]) -> Result<()> {
        for (name, bytes) in &self.whole {
            ensure!(fs::read(folder.join(name))? == *bytes, "{name} was changed");
            let seal = SealFile::decode(&fs::read(folder.join(format!("{name}.seal")))?)?;
            let fine = |rig: &&&Rig| rig.judge(&seal, bytes).report.verdict == Verdict::Valid;
            ensure!(rigs.iter().any(|rig| fine(&rig)), "no box stands behind the seal of {name}");
        }
        for name in &self.halves {
            ensure!(!folder.join(name).exists() && errors.join(name).is_file(), "{name} is still there");
            let reason = fs::read_to_string(errors.join(format!("{name}.reason.txt")))?;
            ensure!(reason.contains("not complete"), "{reason}");
        }
        let leftovers: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let leftover = leftovers.iter().find(|path| path.to_string_lossy().contains("bulla-tmp"));
        ensure!(leftover.is_none(), "{leftover:?} was left lying about");
        Ok(())
    }

    /// What a box made of them: each document at most `most` seals, in all as many as given back; nothing else was sealed but
    /// versions that were whole for a moment.
    pub fn count(&self, rig: &Rig, client: &str) -> Result<HashMap<String, usize>> {
        let seals = seals_of(rig, client)?;
        let mut known: HashMap<String, &str> = HashMap::new();
        for (name, bytes) in &self.whole {
            known.insert(digest(bytes), name);
        }
        let mut counts = HashMap::new();
        for (digest, count) in seals {
            match known.get(&digest) {
                // A document whose sidecar came after it had rested alone is sealed again, with it.
                Some(name) => {
                    let most = if self.sidecars.contains_key(*name) { 2 } else { 1 };
                    ensure!(count <= most, "{name} was sealed {count} times");
                    counts.insert((*name).to_owned(), count);
                }
                None => {
                    let fine = self.passing.contains(&digest) && count == 1;
                    ensure!(fine, "a document that nobody had finished was sealed {count} times");
                }
            }
        }
        Ok(counts)
    }
}

/// Digests that a client has sealed, and how often.
pub fn seals_of(rig: &Rig, client: &str) -> Result<HashMap<String, usize>> {
    let reader = rig.client(Role::Reader);
    let mut counts = HashMap::new();
    let mut cursor = String::new();
    loop {
        let answer = reader.get(&format!("/v1/seals?client={client}&limit=500{cursor}"))?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        let page = answer.json()?;
        for seal in page["seals"].as_array().context("a page has seals")? {
            let digest = seal["digest"].as_str().context("a seal has a digest")?;
            *counts.entry(digest.to_owned()).or_insert(0) += 1;
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(counts),
        }
    }
}
