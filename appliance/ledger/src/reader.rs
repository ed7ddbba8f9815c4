//! The reader: everything that can be asked of the log while one writer goes on.
//!
//! Refuses: anything at or past the published size; so entries that are stored but not yet proven are not there.
//! Invariants: no answer is held open across calls (long read transactions would keep redb from reusing pages);
//! a damaged index never keeps anyone from reading entries.

use crate::digest_filter::Making;
use crate::entry_rows::{EntryRows, Lost};
use crate::error::{Damage, During, ReadError};
use crate::index::DigestMap;
use crate::segment::{SegmentFile, table_or_none};
use crate::shared::Shared;
use crate::snapshot::{Snapshot, entry};
use crate::store::Store;
use crate::tables::{
    DIGESTS, DigestKey, Request, RequestHash, SORTED_DIGEST_BYTES, digest_key, sorted_digest,
    split_sorted_digest,
};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::tile::{push_entry, width_at};
use redb::{ReadableTable as _, ReadableTableMetadata as _};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Entries fetched per read transaction by [`Entries`].
const CHUNK_ENTRIES: u64 = 256;
/// Bytes after which a chunk ends early, so that 256 entries of 64 KiB do not pile up.
const CHUNK_BYTES: usize = 1 << 20;

/// Reads the log; clones share everything.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Shared>);

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// The origin that every segment names.
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.0.head().edge.size()
    }

    /// Root of the log.
    pub fn root(&self) -> Hash {
        self.0.head().root
    }

    /// The latest proven tree.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(&self.0), self.0.head())
    }

    /// The bytes of entry `index`.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, ReadError> {
        self.check(index)?;
        entry(&self.0, index)
    }

    /// Entries of `range` in order, fetched in chunks. A range that reaches past the log ends with an error.
    pub fn entries(&self, range: Range<u64>) -> Entries {
        Entries { reader: self.clone(), next: range.start, end: range.end, chunk: VecDeque::new() }
    }

    /// Entries from `first` on, for a peer: at most `most`, and no more of them than fit into `bytes`, but one at least.
    pub fn range(&self, first: u64, most: u64, bytes: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        self.check(first)?;
        let (mut range, mut taken) = (Vec::new(), 0usize);
        for row in self.entries(first..self.size().min(first.saturating_add(most.max(1)))) {
            let (_, entry) = row?;
            taken = taken.saturating_add(entry.len());
            if taken > bytes && !range.is_empty() {
                break;
            }
            range.push(entry);
        }
        Ok(range)
    }

    /// Leaf hash of entry `index`, computed from its bytes.
    pub fn leaf_hash(&self, index: u64) -> Result<Hash, ReadError> {
        Ok(leaf_hash(&self.entry(index)?))
    }

    /// Inclusion proof of entry `index` in the tree of `size` entries.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        self.snapshot().inclusion_proof_at(index, size)
    }

    /// Consistency proof from the tree of `old` to that of `new` entries.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        self.snapshot().consistency_proof_at(old, new)
    }

    /// Root of the first `size` entries.
    pub fn root_at(&self, size: u64) -> Result<Hash, ReadError> {
        self.snapshot().root_at(size)
    }

    /// Tile of hashes, `width` of them (tlog-tiles): any width that this or an earlier size had.
    pub fn tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<u8>, ReadError> {
        self.snapshot().tile(level, index, width)
    }

    /// Entry bundle of `width` entries (tlog-tiles).
    pub fn entry_bundle(&self, index: u64, width: u16) -> Result<Vec<u8>, ReadError> {
        let size = self.size();
        if width == 0 || width > width_at(0, index, size) {
            return Err(ReadError::NoSuchTile { level: 0, index, width, size });
        }
        let first = index * u64::from(bulla_formats::tile::TILE_WIDTH);
        let mut bundle = Vec::new();
        for row in self.entries(first..first + u64::from(width)) {
            let (index, entry) = row?;
            push_entry(&mut bundle, &entry)
                .map_err(|error| Damage::new("the log", index, error.to_string()))?;
        }
        Ok(bundle)
    }

    /// Indexes whose digest begins like this one (16 bytes are kept), newest first, at most `limit`. Candidates:
    /// the entry itself decides. A digest that is not 32 to 64 bytes long is found nowhere.
    pub fn find_digest(&self, algorithm: u8, digest: &[u8], limit: usize) -> Result<Vec<u64>, ReadError> {
        self.find_digest_below(algorithm, digest, u64::MAX, limit)
    }

    /// Like [`Reader::find_digest`], of the entries below `below` only.
    pub fn find_digest_below(
        &self,
        algorithm: u8,
        digest: &[u8],
        below: u64,
        limit: usize,
    ) -> Result<Vec<u64>, ReadError> {
        let mut found = Vec::new();
        let Some(key) = digest_key(algorithm, digest) else { return Ok(found) };
        let (size, files) = (self.size().min(below), self.0.segments().files.clone());
        for file in files.iter().rev().filter(|file| file.first < size) {
            if found.len() >= limit {
                break;
            }
            let room = limit - found.len();
            let in_memory = {
                let indexes = self.0.indexes();
                let map = indexes.digests.iter().find(|map: &&DigestMap| map.first() == file.first);
                map.map(|map| map.find(&key).filter(|index| *index < size).take(room).collect::<Vec<_>>())
            };
            found.extend(match in_memory {
                Some(indexes) if indexes.is_empty() => indexes,
                Some(indexes) => self.compare_digests(file, &key, indexes)?,
                None if self.0.digest_filters.exclude(file, &key) => Vec::new(),
                None => self.find_sorted(file, &key, size, room)?,
            });
        }
        Ok(found)
    }

    /// Those of `indexes` whose digest is this one.
    fn compare_digests(
        &self,
        file: &SegmentFile,
        key: &DigestKey,
        indexes: Vec<u64>,
    ) -> Result<Vec<u64>, ReadError> {
        self.0.in_segment(file.first, |txn, file| {
            let rows = EntryRows::open(txn, file)?;
            let mut equal = Vec::with_capacity(indexes.len());
            for index in indexes {
                if rows.expect(index)?.parts()?.digest == Some(key) {
                    equal.push(index);
                }
            }
            Ok(equal)
        })
    }

    fn find_sorted(
        &self,
        file: &SegmentFile,
        key: &DigestKey,
        below: u64,
        room: usize,
    ) -> Result<Vec<u64>, ReadError> {
        self.0.in_segment(file.first, |txn, file| {
            let name = file.name();
            let Some(digests) = table_or_none(txn.open_table(DIGESTS)).during("read", &name)? else {
                return Ok(Vec::new());
            };
            let (from, to) = (sorted_digest(key, 0), sorted_digest(key, below));
            let mut found = Vec::new();
            for row in digests
                .range::<&[u8; SORTED_DIGEST_BYTES]>(&from..&to)
                .during("read", &name)?
                .rev()
                .take(room)
            {
                found.push(split_sorted_digest(row.during("read", &name)?.0.value()).1);
            }
            Ok(found)
        })
    }

    /// Makes one filter of digests for a closed segment that has none yet, the newest first: look-ups of digests that
    /// were never sealed then pass by its table. Takes a read through that table (17 MiB a million entries); whether
    /// another one is to be made. A table that cannot be read is left without a filter, and is an error once.
    pub fn make_digest_filter(&self) -> Result<bool, ReadError> {
        let closed = {
            let (segments, indexes) = (self.0.segments(), self.0.indexes());
            let in_memory = |file: &SegmentFile| indexes.digests.iter().any(|map| map.first() == file.first);
            self.0.digest_filters.missing(segments.files.iter().rev().filter(|file| !in_memory(file)))
        };
        let Some(file) = closed else { return Ok(false) };
        let made = self.0.in_segment(file.first, |txn, found| {
            let name = found.name();
            let Some(digests) = table_or_none(txn.open_table(DIGESTS)).during("read", &name)? else {
                return Ok(None);
            };
            let mut making = Making::new(digests.len().during("read", &name)? as usize);
            for row in digests.iter().during("read", &name)? {
                making.insert(&split_sorted_digest(row.during("read", &name)?.0.value()).0);
            }
            Ok(Some(making))
        });
        let (made, outcome) = match made {
            Ok(made) => (made, Ok(true)),
            Err(error) => (None, Err(error)),
        };
        self.0.digest_filters.enter(file, made);
        outcome
    }

    /// The entry and the fingerprint under this idempotency key, if it was used within the window.
    pub fn find_request(&self, key: &RequestHash) -> Result<Option<(u64, RequestHash)>, ReadError> {
        let size = self.size();
        let candidates = self.0.indexes().requests.find(key, size);
        for index in candidates.into_iter().filter(|index| *index < size) {
            let request = self.0.in_segment(index, |txn, file| {
                let rows = EntryRows::open(txn, file)?;
                let request = rows.expect(index)?.parts()?.request.map(Request::from_row);
                request.ok_or_else(|| Damage::new(&file.name(), index, "its request is missing").into())
            })?;
            if request.key == *key {
                return Ok(Some((index, request.fingerprint)));
            }
        }
        Ok(None)
    }

    /// The openings of entry `index`; `None` when it has none or they were erased.
    pub fn openings(&self, index: u64) -> Result<Option<Zeroizing<Vec<u8>>>, ReadError> {
        self.check(index)?;
        self.0.openings.read(index)
    }

    /// The side object with this SHA-256.
    pub fn side(&self, hash: &Hash) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.side.read(hash)
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.0.options.reserve_bytes
    }

    fn check(&self, index: u64) -> Result<(), ReadError> {
        let size = self.size();
        if index < size { Ok(()) } else { Err(ReadError::OutOfRange { index, size }) }
    }

    fn chunk(&self, range: Range<u64>) -> Result<VecDeque<(u64, Vec<u8>)>, ReadError> {
        self.check(range.start)?;
        let end = range.end.min(self.size());
        self.0.in_segment(range.start, |txn, file| {
            let (mut chunk, mut bytes) = (VecDeque::new(), 0);
            for row in EntryRows::open(txn, file)?.range(range.start..end)? {
                let row = row?;
                let entry = row.parts()?.entry;
                bytes += entry.len();
                chunk.push_back((row.index, entry.to_vec()));
                if bytes >= CHUNK_BYTES {
                    break;
                }
            }
            Ok(chunk)
        })
    }
}

/// Iterator over entries; see [`Reader::entries`].
#[derive(Debug)]
pub struct Entries {
    reader: Reader,
    next: u64,
    end: u64,
    chunk: VecDeque<(u64, Vec<u8>)>,
}

impl Iterator for Entries {
    type Item = Result<(u64, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        if self.chunk.is_empty() {
            // One chunk never straddles two segments: the rows past a segment's clip are not entries.
            let boundary = self.reader.next_segment_first(self.next);
            let to = self.end.min(self.next.saturating_add(CHUNK_ENTRIES)).min(boundary);
            match self.reader.chunk(self.next..to) {
                Ok(chunk) => self.chunk = chunk,
                Err(error) => {
                    self.end = self.next;
                    return Some(Err(error));
                }
            }
        }
        let row = self.chunk.pop_front().filter(|(index, _)| *index == self.next);
        let Some(row) = row else {
            let missing = Damage::new("the log", self.next, Lost::Missing.what());
            self.end = self.next;
            return Some(Err(missing.into()));
        };
        self.next += 1;
        Some(Ok(row))
    }
}

impl Reader {
    /// First index of the segment after the one that holds `index`; the far end when that is the last.
    fn next_segment_first(&self, index: u64) -> u64 {
        let segments = self.0.segments();
        let at = segments.files.partition_point(|file| file.first <= index);
        segments.files.get(at).map_or(u64::MAX, |file| file.first)
    }
}
