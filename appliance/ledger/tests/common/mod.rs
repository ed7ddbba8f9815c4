//! What the ledger's tests share: the failing disk, the reference log and the judgement after a crash.

#![allow(dead_code)] // each test file is its own crate and uses a part

pub mod crash_shelf;
pub mod crash_store;
pub mod neighbour;

use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{self, Frontier};
use bulla_ledger::{
    Committed, FsckOptions, FsckReport, Ledger, NewEntry, OpenError, Options, Request, Store, TreeOnly, fsck,
};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};
use std::sync::Arc;

pub const ORIGIN: &str = "fleet.example/test/0";

/// Options for tests: small segments, no reserve.
pub fn options(segment_entries: u64) -> Options {
    Options {
        segment_entries,
        reserve_bytes: 0,
        active_cache_bytes: 1 << 20,
        closed_cache_bytes: 1 << 18,
        ..Options::default()
    }
}

/// An entry that uses every table and companion.
pub fn rich_entry(number: u64) -> NewEntry {
    NewEntry {
        entry: format!("entry {number} {}", "x".repeat(number as usize % 300)).into_bytes(),
        digest: Some((1, leaf_hash(&(number % 7).to_be_bytes()).0.to_vec())),
        request: Some(request(number)),
        openings: Some(format!("openings of {number}").into_bytes()),
        side: vec![format!("side object of {number}").into_bytes()],
    }
}

/// An entry that is only bytes.
pub fn plain_entry(number: u64) -> NewEntry {
    NewEntry { entry: format!("plain {number}").into_bytes(), ..NewEntry::default() }
}

pub fn request(number: u64) -> Request {
    Request::new(&leaf_hash(&number.to_be_bytes()), &Hash([number as u8; 32]))
}

/// What was acknowledged: the reference that a log is judged against.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    pub batch: Vec<NewEntry>,
    /// Every (size, root) that the ledger ever stated.
    pub heads: Vec<(u64, Hash)>,
}

impl Acknowledged {
    pub fn size(&self) -> u64 {
        self.batch.len() as u64
    }

    /// Enters a batch that the ledger acknowledged.
    pub fn enter(&mut self, batch: Vec<NewEntry>, committed: &Committed) {
        assert_eq!(committed.first(), self.size(), "indexes are given without gaps");
        self.batch.extend(batch);
        assert_eq!(committed.size(), self.size());
        self.heads.push((committed.size(), committed.root()));
    }

    /// Appends and enters.
    pub fn append(&mut self, ledger: &mut Ledger, batch: Vec<NewEntry>) {
        let committed = ledger.append(batch.clone()).unwrap();
        self.enter(batch, &committed);
    }
}

pub fn run_fsck(store: &Arc<dyn Store>, repair: bool) -> FsckReport {
    let options = FsckOptions { repair, ..FsckOptions::default() };
    fsck(store, ORIGIN, options, &mut TreeOnly, &mut |_, _| {}).unwrap()
}

pub fn reopen(store: &Arc<dyn Store>, options: &Options) -> Result<Ledger, String> {
    match Ledger::open(Arc::clone(store), ORIGIN, options.clone()) {
        Ok((ledger, opened)) => {
            if (opened.size, opened.root) != (ledger.size(), ledger.root()) {
                return Err(format!("{opened:?} is not what the ledger has"));
            }
            Ok(ledger)
        }
        Err(error) => Err(format!("does not open: {error}")),
    }
}

/// Whether the open ledger holds everything acknowledged, and nothing but one batch in limbo beside it.
pub fn judge_ledger(ledger: &Ledger, acknowledged: &Acknowledged, limbo: &[NewEntry]) -> Result<(), String> {
    let reader = ledger.reader();
    let (size, known) = (ledger.size(), acknowledged.size());
    if size != known && size != known + limbo.len() as u64 {
        return Err(format!("size {size}; {known} entries were acknowledged, {} are in limbo", limbo.len()));
    }
    let expected: Vec<&NewEntry> = acknowledged.batch.iter().chain(limbo).take(size as usize).collect();
    let mut frontier = Frontier::new();
    let mut heads = acknowledged.heads.iter().peekable();
    for (row, new) in reader.entries(0..size).zip(&expected) {
        let (index, entry) = row.map_err(|error| error.to_string())?;
        if entry != new.entry {
            return Err(format!("entry {index} is not what was acknowledged"));
        }
        frontier.append(leaf_hash(&entry));
        while let Some((at, root)) = heads.next_if(|(at, _)| *at <= frontier.size()) {
            if *at == frontier.size() && *root != frontier.root() {
                return Err(format!("the root at {at} is not the one that was stated"));
            }
        }
        let openings = reader.openings(index).map_err(|error| error.to_string())?;
        if openings.as_deref() != new.openings.as_ref() {
            return Err(format!("the openings of {index} are lost"));
        }
        for object in &new.side {
            let name = bulla_formats::hash::sha256(&[object]);
            if reader.side(&name).map_err(|error| error.to_string())?.as_ref() != Some(object) {
                return Err(format!("a side object of {index} is lost"));
            }
        }
        if let Some(request) = new.request {
            let found = reader.find_request(&request.key).map_err(|error| error.to_string())?;
            if found != Some((index, request.fingerprint)) {
                return Err(format!("the idempotency key of {index} is lost: {found:?}"));
            }
        }
        if let Some((algorithm, digest)) = &new.digest {
            let found = reader.find_digest(*algorithm, digest, 1000).map_err(|error| error.to_string())?;
            if !found.contains(&index) || !found.is_sorted_by(|a, b| a > b) {
                return Err(format!("the digest of {index} is not found: {found:?}"));
            }
        }
    }
    if frontier.size() != size || ledger.root() != frontier.root() {
        return Err(format!("the root of {size} entries is not theirs"));
    }
    let snapshot = reader.snapshot();
    for (at, root) in acknowledged.heads.iter().filter(|(at, _)| *at > 0) {
        let proof = snapshot.consistency_proof(*at).map_err(|error| error.to_string())?;
        merkle::verify_consistency(*at, root, size, &snapshot.root(), &proof)
            .map_err(|error| error.to_string())?;
        let proof = snapshot.inclusion_proof(at - 1).map_err(|error| error.to_string())?;
        let leaf = leaf_hash(&expected[*at as usize - 1].entry);
        merkle::verify_inclusion(at - 1, size, &leaf, &proof, &snapshot.root())
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The whole judgement: fsck, reopen, everything acknowledged there, sealing goes on, fsck again.
pub fn judge_store(
    store: &Arc<dyn Store>,
    options: &Options,
    acknowledged: &Acknowledged,
    limbo: &[NewEntry],
) -> Result<(), String> {
    let mut ledger = reopen(store, options)?;
    judge_ledger(&ledger, acknowledged, limbo)?;
    let mut after = acknowledged.clone();
    if ledger.size() > acknowledged.size() {
        // The limbo batch turned out durable: from here on it is a batch like any other.
        after.batch.extend_from_slice(limbo);
        after.heads.push((ledger.size(), ledger.root()));
    }
    // Without openings first: leftovers of a batch in limbo must not turn up at its index.
    for batch in [vec![plain_entry(1_000_000)], vec![rich_entry(1_000_001)]] {
        let committed = ledger.append(batch.clone()).map_err(|error| format!("cannot seal: {error}"))?;
        after.enter(batch, &committed);
    }
    judge_ledger(&ledger, &after, &[])?;
    drop(ledger);
    let report = run_fsck(store, false);
    if !report.is_clean() || report.entries != after.size() {
        return Err(format!("fsck: {} entries, {:?}", report.entries, report.problems));
    }
    let ledger = reopen(store, options)?;
    judge_ledger(&ledger, &after, &[])
}

/// Whether a log is there at all.
pub fn is_missing(store: &Arc<dyn Store>, options: &Options) -> bool {
    matches!(Ledger::open(Arc::clone(store), ORIGIN, options.clone()), Err(OpenError::Missing))
}

/// Rows of `opening-keys.redb`: bucket, level and position to secret 32 and check 8.
pub const NODES: TableDefinition<(u64, u8, u32), &[u8; 40]> = TableDefinition::new("nodes-1");

/// Every byte of a file.
pub fn bytes_of(store: &Arc<dyn Store>, name: &str) -> Vec<u8> {
    let file = store.open(name).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read(0, &mut bytes).unwrap();
    bytes
}

/// The secrets that the key of an entry follows from, down to the key: what an erasure has to destroy. Written from
/// docs/ARCHITECTURE.md, without the ledger's code.
pub fn secrets_above(store: &Arc<dyn Store>, index: u64) -> Vec<[u8; 32]> {
    let bytes = bytes_of(store, "opening-keys.redb");
    let copy = InMemoryBackend::new();
    copy.set_len(bytes.len() as u64).unwrap();
    copy.write(0, &bytes).unwrap();
    let db = Database::builder().create_with_backend(copy).unwrap();
    let table = db.begin_read().unwrap().open_table(NODES).unwrap();
    let (bucket, leaf) = (index / 65_536, (index % 65_536) as u32);
    for level in 0..=16u8 {
        let Some(row) = table.get((bucket, level, leaf >> (16 - level))).unwrap() else { continue };
        let mut secrets = vec![<[u8; 32]>::try_from(&row.value()[..32]).unwrap()];
        for bit in (0..16 - level).rev() {
            let above = secrets.last().unwrap();
            let side = [(leaf >> bit & 1) as u8];
            secrets.push(bulla_formats::hash::sha256(&[b"bulla/opening-node/v1\0", above, &side]).0);
        }
        return secrets;
    }
    Vec::new()
}

/// Whether any file holds one of the secrets.
pub fn holds_any(store: &Arc<dyn Store>, secrets: &[[u8; 32]]) -> bool {
    const PIECE: usize = 4096;
    let found = |bytes: &[u8]| bytes.windows(32).any(|window| secrets.iter().any(|secret| secret == window));
    store.list().unwrap().iter().any(|name| {
        let bytes = bytes_of(store, name);
        let piece = |at: usize| &bytes[at..bytes.len().min(at + PIECE + 31)];
        // Most of a small database is zeros, and a random secret is not.
        let mut pieces = (0..bytes.len())
            .step_by(PIECE)
            .map(piece)
            .filter(|piece| **piece != [0; PIECE + 31][..piece.len()]);
        pieces.any(found)
    })
}
