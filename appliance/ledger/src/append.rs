//! The writer: one batch, one transaction, proven before it is answered.
//!
//! The order of an append, and what is true after each step:
//! 1. checks (sizes, space, idempotency keys; in a copy of somebody else's log: the tree that was proven): nothing
//!    written, a refusal costs only this batch;
//! 2. side objects and openings committed: what the entries refer to cannot be lost any more;
//! 3. entries with their requests and digests, tiles that became full and the head in one transaction, committed;
//! 4. the batch read back in a fresh transaction, hashed again, the root recomputed from those bytes. (One bit that
//!    flipped between hashing and storing ended a certificate log: its signed root could never be reproduced.)
//! 5. the new head published; only now can anyone see it or get a [`Committed`].
//!
//! Refuses: to write after an error of unknown effect until [`Ledger::recover`]; a second use of an idempotency key
//! inside the window; starting a batch without the space to finish it; entries that lead to another tree than stated.
//!
//! Invariants: one `Ledger` per store, so one writer; no batch straddles two segments; an index is given once.

use crate::contain::{contain, contain_fault};
use crate::control::Control;
use crate::edge::FullTile;
use crate::entry_rows::{EntryRow, EntryRows, EntryWriter};
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::index::DigestMap;
use crate::kept::KeptObjects;
use crate::queue::Queue;
use crate::reader::Reader;
use crate::segment::{self, SegmentFile};
use crate::shared::{HeadState, Shared};
use crate::snapshot::Snapshot;
use crate::tables::{
    DIGESTS, DigestKey, DigestRow, HEAD, Head, Header, META, Request, digest_key, sorted_digest,
};
use crate::tile_rows::{TILES, read_tile, write_tiles};
use crate::tree::Tree;
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::Frontier;
use bulla_formats::retirement::is_final;
use bulla_formats::tile::ENTRY_BYTES_MAX;
use redb::{Database, ReadTransaction};
use std::collections::HashSet;
use std::sync::Arc;
use thiserror::Error;

/// Entries per batch. Bounds the time a reader of the newest entries waits and the memory of one transaction
/// (256 MiB at 65,535 bytes each).
pub(crate) const BATCH_ENTRIES_MAX: usize = 4096;

/// What is appended.
#[derive(Debug, Clone, Default)]
pub struct NewEntry {
    /// The entry's bytes, at most 65,535. Opaque here.
    pub entry: Vec<u8>,
    /// Algorithm number and document digest (32 to 64 bytes), to be found by [`Reader::find_digest`].
    pub digest: Option<(u8, Vec<u8>)>,
    /// Idempotency key and request fingerprint, stored atomically with the entry.
    pub request: Option<Request>,
    /// Openings of the entry's commitments; stored encrypted, erasable, outside the tree.
    pub openings: Option<Vec<u8>>,
    /// Objects that the entry refers to by SHA-256; durable before the entry is.
    pub side: Vec<Vec<u8>>,
}

/// A batch that is durable and was proven so. Only the ledger can make one: hold it to sign or answer.
#[derive(Debug, Clone)]
pub struct Committed {
    first: u64,
    leaves: Vec<Hash>,
    snapshot: Snapshot,
}

impl Committed {
    /// Index of the batch's first entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Entries in the log, with the batch.
    pub fn size(&self) -> u64 {
        self.snapshot.size()
    }

    /// Root of the log, with the batch.
    pub fn root(&self) -> Hash {
        self.snapshot.root()
    }

    /// Leaf hashes of the batch, in order.
    pub fn leaves(&self) -> &[Hash] {
        &self.leaves
    }

    /// The tree right after the batch.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// Why a batch was not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The disk is too full to start; nothing was written. Free space or enlarge the disk.
    #[error(
        "the disk has {free} bytes free where this batch needs {needed} with the reserve; free some space"
    )]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// The caller's entry is too long; nothing was written.
    #[error("entry {position} of the batch has {bytes} bytes; at most 65535")]
    TooLarge {
        /// Position in the batch.
        position: usize,
        /// Its length.
        bytes: usize,
    },
    /// The caller's batch is empty or too long; nothing was written.
    #[error("a batch has 1 to 4096 entries, not {entries}")]
    BatchSize {
        /// Entries in the batch.
        entries: usize,
    },
    /// The caller's digest has no length that a digest has; nothing was written.
    #[error("the digest of entry {position} of the batch has {bytes} bytes; 32 to 64 are allowed")]
    DigestLength {
        /// Position in the batch.
        position: usize,
        /// Its length.
        bytes: usize,
    },
    /// The idempotency key is taken, by an earlier entry or by one in the same batch; nothing was written.
    #[error(
        "the idempotency key of entry {position} of the batch is already used by entry {index}; answer with that one"
    )]
    DuplicateRequest {
        /// Position in the batch.
        position: usize,
        /// The entry that has the key (or would have had it).
        index: u64,
    },
    /// The entries do not lead to a tree that they were said to lead to; nothing was written.
    #[error(
        "with these entries the tree of {size} has the root {found}, not {stated}; whoever sent them is wrong"
    )]
    OtherTree {
        /// Entries in the tree where the two part.
        size: u64,
        /// Its root, computed.
        found: Hash,
        /// Its root as it was stated.
        stated: Hash,
    },
    /// The log has its final entry; nothing was written, and never will be.
    #[error("the log ended with entry {index}, and takes no entry ever again")]
    Ended {
        /// Index of the final entry.
        index: u64,
    },
    /// The caller's batch goes on behind a final entry; nothing was written.
    #[error("entry {position} of the batch ends the log, and others stand behind it")]
    BehindTheEnd {
        /// Position in the batch.
        position: usize,
    },
    /// An earlier write had an unknown effect; nothing was written. Call [`Ledger::recover`].
    #[error("an earlier write failed and its effect is unknown; recover before sealing again")]
    Poisoned,
    /// Looking up idempotency keys or the free space failed; nothing was written.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Writing failed; the effect is unknown and the writer is poisoned from here on.
    #[error("{0}; its effect is unknown, so nothing is sealed before a recovery")]
    Storage(#[from] StorageFault),
    /// What was read back is not what was written; the writer is poisoned from here on.
    #[error(
        "{0}; the batch was not what it should be when read back, so nothing is sealed before a recovery"
    )]
    Mismatch(Damage),
}

/// The log's only writer.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) shared: Arc<Shared>,
    /// The proven tree again, kept apart from the published edge: the two must agree at every batch, so that a bit
    /// that flips in one of them is found before it is signed.
    pub(crate) frontier: Frontier,
    pub(crate) poisoned: bool,
    /// The newest entry is a final one.
    pub(crate) ended: bool,
}

/// A batch with everything computed that the transaction needs.
#[derive(Debug)]
pub(crate) struct Prepared {
    first: u64,
    batch: Vec<NewEntry>,
    leaves: Vec<Hash>,
    digests: Vec<Option<DigestKey>>,
    tiles: Vec<FullTile>,
    head: Arc<HeadState>,
}

impl Ledger {
    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root of the log.
    pub fn root(&self) -> Hash {
        self.shared.head().root
    }

    /// A reader; any number, from any thread.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Objects kept beside this log, for its evidence.
    pub fn kept_objects(&self) -> KeptObjects {
        KeptObjects::new(Arc::clone(&self.shared))
    }

    /// The control database of this log.
    pub fn control(&self) -> Control {
        self.shared.control.clone()
    }

    /// The queue of this log: requests promised a seal while none can be made.
    pub fn queue(&self) -> Queue {
        self.shared.queue.clone()
    }

    /// Whether a write of unknown effect happened; only [`Ledger::recover`] leads on.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Destroys the keys of these entries' openings, at a cost that does not grow with the log. The entries and every
    /// proof stay as they are.
    pub fn erase_openings(&self, indexes: &[u64]) -> Result<(), StorageFault> {
        let there: Vec<u64> = indexes.iter().copied().filter(|index| *index < self.size()).collect();
        self.shared.openings.erase(&there)
    }

    /// Appends a batch. On success everything of it is durable and proven.
    pub fn append(&mut self, batch: Vec<NewEntry>) -> Result<Committed, AppendError> {
        if self.ended {
            return Err(AppendError::Ended { index: self.size().saturating_sub(1) });
        }
        let last = batch.iter().position(|new| is_final(&new.entry));
        if let Some(position) = last.filter(|position| position + 1 < batch.len()) {
            return Err(AppendError::BehindTheEnd { position });
        }
        let prepared = self.make_ready(batch, &[])?;
        let committed = self.put(prepared)?;
        self.ended = last.is_some();
        Ok(committed)
    }

    /// Whether the log has its final entry: it is never written again.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Step 1: everything that can be refused or computed before anything is written. The batch must lead through the
    /// `stated` trees, which are in ascending order and past the present size.
    pub(crate) fn make_ready(
        &mut self,
        batch: Vec<NewEntry>,
        stated: &[Tree],
    ) -> Result<Prepared, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let digests = self.check(&batch)?;
        let prepared = self.prepare(batch, digests, stated);
        if matches!(prepared, Err(AppendError::Mismatch(_))) {
            self.poison();
        }
        prepared
    }

    /// Steps 2 to 5, with what was made ready at the present size.
    pub(crate) fn put(&mut self, prepared: Prepared) -> Result<Committed, AppendError> {
        let written = self.write(prepared);
        if written.is_err() {
            self.poison();
        }
        let prepared = written?;
        Ok(self.publish(prepared))
    }

    /// Refusals that leave no trace.
    fn check(&self, batch: &[NewEntry]) -> Result<Vec<Option<DigestKey>>, AppendError> {
        if batch.is_empty() || batch.len() > BATCH_ENTRIES_MAX {
            return Err(AppendError::BatchSize { entries: batch.len() });
        }
        let mut digests = Vec::with_capacity(batch.len());
        let mut keys = HashSet::new();
        let (reader, first) = (self.reader(), self.size());
        let asked = batch.iter().filter_map(|new| Some(&new.request.as_ref()?.key));
        self.shared.indexes().requests.warm(asked);
        let mut bytes = 0u64;
        for (position, new) in batch.iter().enumerate() {
            if new.entry.len() > ENTRY_BYTES_MAX {
                return Err(AppendError::TooLarge { position, bytes: new.entry.len() });
            }
            bytes += new.entry.len() as u64;
            bytes += new.openings.as_ref().map_or(0, Vec::len) as u64;
            bytes += new.side.iter().map(Vec::len).sum::<usize>() as u64;
            digests.push(match &new.digest {
                None => None,
                Some((algorithm, digest)) => Some(
                    digest_key(*algorithm, digest)
                        .ok_or(AppendError::DigestLength { position, bytes: digest.len() })?,
                ),
            });
            if let Some(request) = &new.request {
                if let Some((index, _)) = reader.find_request(&request.key)? {
                    return Err(AppendError::DuplicateRequest { position, index });
                }
                if !keys.insert(request.key) {
                    let earlier =
                        batch.iter().position(|each| each.request.is_some_and(|it| it.key == request.key));
                    let index = first + earlier.unwrap_or(position) as u64;
                    return Err(AppendError::DuplicateRequest { position, index });
                }
            }
        }
        // Copy-on-write touches more pages than the bytes alone fill.
        let needed = self.shared.options.reserve_bytes.saturating_add(bytes.saturating_mul(4));
        let free = self.shared.store.free_bytes().during("ask for the free space of", "the log directory");
        let free = free.map_err(ReadError::from)?;
        if free < needed {
            return Err(AppendError::Full { free, needed });
        }
        Ok(digests)
    }

    /// Steps 2 to 4. Any error means unknown effect.
    fn write(&mut self, prepared: Prepared) -> Result<Prepared, AppendError> {
        self.roll_over_if_full()?;
        let objects = prepared.batch.iter().flat_map(|new| new.side.iter().map(Vec::as_slice));
        self.shared.side.store(objects)?;
        let openings: Vec<(u64, &[u8])> = (prepared.first..)
            .zip(&prepared.batch)
            .filter_map(|(index, new)| Some((index, new.openings.as_deref()?)))
            .collect();
        self.shared.openings.store(&openings)?;

        let segments = self.shared.segments();
        let (Some(active), Some(file)) = (&segments.active, segments.files.last()) else {
            return Err(AppendError::Poisoned);
        };
        let name = file.name();
        // A damaged page that the commit must pass through has an effect as unknown as any failed write.
        let two_phase = self.shared.options.two_phase_commit;
        contain_fault("commit to", &name, || {
            commit(&active.db, file.first, &prepared, two_phase).during("commit to", &name)
        })?;
        let read_back = || reread(&segment::begin(&active.db, &name)?, file, &prepared, &self.frontier);
        let frontier = contain(&name, prepared.first, read_back).map_err(unknown_effect)?;
        drop(segments);
        self.frontier = frontier;
        Ok(prepared)
    }

    /// Hashes the batch and computes the tree with it, twice: on the published edge and on the writer's frontier. A
    /// bit that has flipped in either must not reach the disk, let alone a signature.
    fn prepare(
        &self,
        batch: Vec<NewEntry>,
        digests: Vec<Option<DigestKey>>,
        stated: &[Tree],
    ) -> Result<Prepared, AppendError> {
        let leaves: Vec<Hash> = batch.iter().map(|new| leaf_hash(&new.entry)).collect();
        let (mut edge, mut frontier) = (self.shared.head().edge.clone(), self.frontier.clone());
        let mut tiles = Vec::new();
        let mut stated = stated.iter().peekable();
        for leaf in &leaves {
            edge.append(*leaf, &mut tiles);
            frontier.append(*leaf);
            while let Some(tree) = stated.next_if(|tree| tree.size == frontier.size()) {
                if tree.root != frontier.root() {
                    let (found, stated) = (frontier.root(), tree.root);
                    return Err(AppendError::OtherTree { size: tree.size, found, stated });
                }
            }
        }
        if let Some(tree) = stated.next() {
            // No tree of this batch has that size.
            let (found, stated) = (frontier.root(), tree.root);
            return Err(AppendError::OtherTree { size: frontier.size(), found, stated });
        }
        let head = Arc::new(HeadState { root: edge.root(), edge });
        if frontier.root() != head.root {
            let what = "the root computed twice differs: the memory is not reliable";
            return Err(AppendError::Mismatch(Damage::new("the tree in memory", self.size(), what)));
        }
        Ok(Prepared { first: self.size(), batch, leaves, digests, tiles, head })
    }

    /// Step 5.
    fn publish(&mut self, prepared: Prepared) -> Committed {
        {
            let mut indexes = self.shared.indexes_mut();
            if let Some(map) = indexes.digests.last() {
                map.warm(prepared.digests.iter().flatten());
            }
            let requests = prepared.batch.iter().filter_map(|new| new.request.as_ref());
            indexes.requests.warm(requests.map(|request| &request.key));
            for ((index, new), digest) in (prepared.first..).zip(&prepared.batch).zip(&prepared.digests) {
                if let (Some(digest), Some(map)) = (digest, indexes.digests.last_mut()) {
                    map.insert(index, digest);
                }
                if let Some(request) = &new.request {
                    indexes.requests.insert(index, &request.key);
                }
            }
        }
        for tile in prepared.tiles {
            self.shared.cache_tile(tile.level, tile.index, tile.nodes);
        }
        self.shared.publish(Arc::clone(&prepared.head));
        let snapshot = Snapshot::new(Arc::clone(&self.shared), prepared.head);
        Committed { first: prepared.first, leaves: prepared.leaves, snapshot }
    }

    /// Closes the segment once it has reached its boundary, and goes on in the next. A batch that began below the
    /// boundary may have run past it: a batch that straddled two files could become durable by half.
    fn roll_over_if_full(&mut self) -> Result<(), AppendError> {
        let size = self.size();
        let segments = self.shared.segments();
        let Some(file) = segments.files.last().cloned() else { return Ok(()) };
        let per_segment = self.shared.options.segment_entries;
        if size < (file.first / per_segment + 1) * per_segment {
            return Ok(());
        }
        if let Some(active) = &segments.active {
            let sorted = contain(&file.name(), file.first, || sorted_digests(&active.db, &file, size));
            let sorted = sorted.map_err(unknown_effect)?;
            write_sorted_digests(&active.db, &sorted).during("commit the digest table to", &file.name())?;
        }
        drop(segments);
        self.start_segment().map_err(unknown_effect)?;
        // The sorted table answers from here on.
        let mut indexes = self.shared.indexes_mut();
        indexes.digests.retain(|map| map.first() != file.first);
        Ok(())
    }

    /// Makes a fresh segment at the proven size and lets it take the entries from here on. Rollover and recovery
    /// share it.
    pub(crate) fn start_segment(&mut self) -> Result<(), ReadError> {
        let head = self.shared.head();
        let header = Header { origin: self.shared.origin.clone(), root: head.root, edge: head.edge.clone() };
        let cache_bytes = self.shared.options.active_cache_bytes;
        let (file, writable) = segment::create(self.shared.store.as_ref(), &header, cache_bytes)?;
        let mut segments = self.shared.segments_mut();
        // Closing the full segment writes redb's shutdown mark. If that fails the file is repaired in memory
        // whenever it is read; nothing is lost.
        drop(segments.active.replace(writable));
        segments.files.retain(|each: &SegmentFile| each.first != file.first);
        segments.files.push(file.clone());
        drop(segments);
        let mut indexes = self.shared.indexes_mut();
        indexes.digests.retain(|map| map.first() != file.first);
        indexes.digests.push(DigestMap::new(file.first));
        Ok(())
    }

    /// After an error of unknown effect: not one more byte to that file. Reads of proven entries go to the disk.
    fn poison(&mut self) {
        self.poisoned = true;
        if let Some(active) = self.shared.segments_mut().active.take() {
            active.abandon();
        }
    }
}

/// An error after writing has begun.
fn unknown_effect(error: ReadError) -> AppendError {
    match error {
        ReadError::Storage(fault) => AppendError::Storage(fault),
        ReadError::Damaged(damage) => AppendError::Mismatch(damage),
        // Reading back asks for nothing outside the batch; if it seems so, what was read is not what was written.
        other => AppendError::Mismatch(Damage::new("the log", 0, other.to_string())),
    }
}

/// Step 3.
fn commit(db: &Database, first: u64, prepared: &Prepared, two_phase: bool) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_two_phase_commit(two_phase);
    {
        let mut entries = EntryWriter::open(&txn, first)?;
        for (position, index) in (prepared.first..).take(prepared.batch.len()).enumerate() {
            let new = &prepared.batch[position];
            let request = new.request.map(|request| request.to_row(index, &prepared.leaves[position]));
            let digest = prepared.digests[position].as_ref();
            entries.put(index, &EntryRow { entry: &new.entry, digest, request: request.as_ref() })?;
        }
        if !prepared.tiles.is_empty() {
            write_tiles(&txn, &prepared.tiles)?;
        }
        let head =
            Head { size: prepared.head.edge.size(), root: prepared.head.root, batch_first: prepared.first };
        txn.open_table(META)?.insert(HEAD, head.to_bytes().as_slice())?;
    }
    Ok(txn.commit()?)
}

/// Step 4: believes nothing that is still in the writer's hands. Returns the frontier computed from the bytes that
/// were read.
fn reread(
    txn: &ReadTransaction,
    file: &SegmentFile,
    prepared: &Prepared,
    before: &Frontier,
) -> Result<Frontier, ReadError> {
    let (name, end) = (&file.name(), prepared.head.edge.size());
    let differs = |index: u64, what: &str| Damage::new(name, index, format!("{what} reads back changed"));
    let entries = EntryRows::open(txn, file)?;
    let mut frontier = before.clone();
    for row in entries.range(prepared.first..u64::MAX)? {
        let row = row?;
        let (position, parts) = ((row.index - prepared.first) as usize, row.parts()?);
        if row.index != frontier.size() || row.index >= end {
            return Err(differs(frontier.size(), "the list of entries").into());
        }
        let leaf = leaf_hash(parts.entry);
        frontier.append(leaf);
        let request = parts.request.map(|request| Request::check_row(request, row.index, &leaf));
        if request != prepared.batch[position].request.map(Some) {
            return Err(differs(row.index, "a request").into());
        }
        if parts.digest != prepared.digests[position].as_ref() {
            return Err(differs(row.index, "a digest").into());
        }
    }
    if frontier.size() != end || frontier.root() != prepared.head.root {
        return Err(differs(prepared.first, "the batch").into());
    }
    let meta = txn.open_table(META).during("read back", name)?;
    let head = meta.get(HEAD).during("read back", name)?.and_then(|row| Head::parse(row.value()));
    if head != Some(Head { size: end, root: frontier.root(), batch_first: prepared.first }) {
        return Err(differs(prepared.first, "the head").into());
    }
    let tiles = txn.open_table(TILES).during("read back", name)?;
    for tile in &prepared.tiles {
        let row = read_tile(&tiles, tile.level, tile.index).during("read back", name)?;
        if row.is_none_or(|row| row != tile.nodes.to_bytes(tile.nodes.width())) {
            return Err(differs(prepared.first, "a tile").into());
        }
    }
    Ok(frontier)
}

/// The digests of the entries below `end`, in the order of the sorted table. What cannot be read is left out: one rotten
/// page must not keep the box from sealing, and what it held is lost in any case.
fn sorted_digests(db: &Database, file: &SegmentFile, end: u64) -> Result<Vec<DigestRow>, ReadError> {
    let txn = segment::begin(db, &file.name())?;
    let mut sorted = Vec::with_capacity((end - file.first) as usize);
    EntryRows::open(&txn, file)?.survey(file.first..end, |index, row| {
        sorted.extend(row.ok().and_then(|row| Some((*row.digest?, index))));
    });
    sorted.sort_unstable();
    Ok(sorted)
}

/// Written once, in order, when the segment closes: sequential inserts instead of random ones on every append.
pub(crate) fn write_sorted_digests(db: &Database, sorted: &[DigestRow]) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        let mut digests = txn.open_table(DIGESTS)?;
        for (key, index) in sorted {
            digests.insert(&sorted_digest(key, *index), ())?;
        }
    }
    Ok(txn.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry_rows::ENTRIES;
    use crate::store::DirStore;
    use crate::{Options, Store};
    use redb::ReadableTable;

    fn batch(first: u64, count: u64) -> Vec<NewEntry> {
        let new = |number: u64| NewEntry {
            entry: number.to_be_bytes().to_vec(),
            digest: Some((1, number.to_be_bytes().repeat(4))),
            request: Some(Request {
                key: number.to_be_bytes().repeat(2).try_into().unwrap(),
                fingerprint: [1; 16],
            }),
            ..NewEntry::default()
        };
        (first..first + count).map(new).collect()
    }

    fn start(dir: &tempfile::TempDir) -> (Arc<dyn Store>, Ledger) {
        let store: Arc<dyn Store> = Arc::new(DirStore::open(dir.path()).unwrap());
        let options = Options { reserve_bytes: 0, ..Options::default() };
        let mut ledger = Ledger::create(Arc::clone(&store), "test/memory/0", options).unwrap();
        ledger.append(batch(0, 300)).unwrap();
        (store, ledger)
    }

    /// A bit flips in memory: in the frontier, or in the published right edge.
    #[test]
    fn g2_a_bit_that_flips_in_memory_is_found_before_anything_is_written() {
        for in_edge in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (store, mut ledger) = start(&dir);
            let root = ledger.root();
            if in_edge {
                let mut bytes = ledger.shared.head().edge.to_bytes();
                let last = bytes.len() - 40;
                bytes[last] ^= 8;
                let edge = crate::edge::Edge::parse(&bytes).unwrap();
                ledger.shared.publish(Arc::new(HeadState { edge, root }));
            } else {
                let mut peaks = ledger.frontier.peaks().to_vec();
                peaks[1].0[7] ^= 8;
                ledger.frontier = Frontier::from_peaks(300, peaks).unwrap();
            }
            let refused = ledger.append(batch(300, 1)).unwrap_err();
            assert!(matches!(refused, AppendError::Mismatch(_)), "{refused}");
            assert!(ledger.is_poisoned());
            // The disk and the stated root agree: the tree in memory is taken from them.
            ledger.recover().unwrap();
            assert_eq!((ledger.size(), ledger.root()), (300, root));
            assert_eq!(ledger.append(batch(300, 1)).unwrap().first(), 300);
            drop(ledger);
            let (ledger, _) = Ledger::open(store, "test/memory/0", Options::default()).unwrap();
            assert_eq!(ledger.size(), 301);
        }
    }

    /// Whatever differs between what was meant and what is stored, reading back finds it.
    #[test]
    fn g1_whatever_reads_back_changed_is_not_answered_for() {
        type Change = fn(&redb::WriteTransaction);
        /// Puts another row in place of an entry's.
        fn replace(txn: &redb::WriteTransaction, index: u32, change: impl Fn(EntryRow<'_>) -> Vec<u8>) {
            let mut table = txn.open_table(ENTRIES).unwrap();
            let row = table.get(index).unwrap().unwrap().value().to_vec();
            table.insert(index, change(EntryRow::parse(&row).unwrap()).as_slice()).unwrap();
        }
        let changes: [(&str, Change); 12] = [
            ("nothing", |_| {}),
            ("entry", |txn| replace(txn, 301, |row| EntryRow { entry: &[9; 8], ..row }.to_bytes())),
            ("missing entry", |txn| drop(txn.open_table(ENTRIES).unwrap().remove(511).unwrap())),
            ("surplus entry", |txn| {
                let row = EntryRow { entry: &[9], digest: None, request: None }.to_bytes();
                drop(txn.open_table(ENTRIES).unwrap().insert(512, row.as_slice()).unwrap())
            }),
            ("no row", |txn| replace(txn, 303, |row| row.to_bytes().split_off(4)[..40].to_vec())),
            ("digest", |txn| replace(txn, 304, |row| EntryRow { digest: Some(&[9; 9]), ..row }.to_bytes())),
            ("missing digest", |txn| replace(txn, 305, |row| EntryRow { digest: None, ..row }.to_bytes())),
            ("request", |txn| {
                replace(txn, 306, |row| EntryRow { request: Some(&[9; 40]), ..row }.to_bytes())
            }),
            ("missing request", |txn| replace(txn, 307, |row| EntryRow { request: None, ..row }.to_bytes())),
            ("head", |txn| {
                let mut meta = txn.open_table(META).unwrap();
                let head = Head { size: 512, root: Hash([7; 32]), batch_first: 300 };
                drop(meta.insert(HEAD, head.to_bytes().as_slice()).unwrap());
            }),
            ("tile", |txn| drop(txn.open_table(TILES).unwrap().insert((255, 32), &[9; 256]).unwrap())),
            ("missing row of a tile", |txn| drop(txn.open_table(TILES).unwrap().remove((255, 63)).unwrap())),
        ];
        for (what, change) in changes {
            let dir = tempfile::tempdir().unwrap();
            let (_store, ledger) = start(&dir);
            let new = batch(300, 212);
            let digests = ledger.check(&new).unwrap();
            let prepared = ledger.prepare(new, digests, &[]).unwrap();
            let segments = ledger.shared.segments();
            let db = &segments.active.as_ref().unwrap().db;
            commit(db, 0, &prepared, false).unwrap();
            let txn = db.begin_write().unwrap();
            change(&txn);
            txn.commit().unwrap();
            let txn = segment::begin(db, "segment").unwrap();
            let file = SegmentFile { first: 0, generation: 0 };
            let read = reread(&txn, &file, &prepared, &ledger.frontier);
            assert_eq!(read.is_ok(), what == "nothing", "{what}: {read:?}");
        }
    }
}
