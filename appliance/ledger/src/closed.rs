//! What a start takes from the closed segments: that each continues the one before it, and the indexes that are kept in
//! memory. They were proven when they closed; fsck and the scrub read them all.
//!
//! Refuses: a gap between segments, a segment on top of another tree.
//! Invariant: a rotten row or tile of a closed segment is a note and costs what it held, an idempotency key or a digest;
//! it never keeps the box from sealing.

use crate::contain::contain;
use crate::entry_rows::{EntryRow, EntryRows};
use crate::error::{Damage, During, ReadError};
use crate::index::DigestMap;
use crate::segment::{SegmentFile, has_sorted_digests};
use crate::shared::Indexes;
use crate::tables::{Head, Header, Request};
use crate::tile_rows::{TILES, read_tile};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::tile::TILE_WIDTH;
use redb::ReadTransaction;

/// A segment begins where the one before it ended, with the same root. (Where that one goes on past the clip, after
/// a recovery, only fsck's full scan can compare the roots.)
pub(crate) fn check_chain(previous: Option<Head>, file: &SegmentFile, header: &Header) -> Result<(), Damage> {
    let Some(previous) = previous else { return Ok(()) };
    if previous.size < file.first {
        return Err(Damage::new(&file.name(), previous.size, "entries before this segment are missing"));
    }
    if previous.size == file.first && previous.root != header.root {
        return Err(Damage::new(
            &file.name(),
            file.first,
            "it does not continue the tree of the segment before it",
        ));
    }
    Ok(())
}

/// The last full tile of a closed segment against its entries. A wrong one is a note: entries are still there, and
/// a damaged index must not keep the box from sealing.
pub(crate) fn check_last_tile(
    txn: &ReadTransaction,
    file: &SegmentFile,
    end: u64,
) -> Result<Option<String>, ReadError> {
    let name = file.name();
    let width = u64::from(TILE_WIDTH);
    let last = (end / width).checked_sub(1).filter(|tile| tile * width >= file.first);
    let Some(tile) = last else { return Ok(None) };
    let mut hashes = Vec::with_capacity(usize::from(TILE_WIDTH) * 32);
    EntryRows::open(txn, file)?.survey(tile * width..(tile + 1) * width, |_, row| {
        hashes.extend(row.iter().flat_map(|row| leaf_hash(row.entry).0));
    });
    let tiles = txn.open_table(TILES).during("read", &name)?;
    let right = read_tile(&tiles, 0, tile).during("read", &name)?.is_some_and(|stored| stored == hashes);
    Ok((!right).then(|| format!("{name}: its last tile is not what its entries imply; run fsck")))
}

/// The in-memory indexes of a closed segment: its digests if it has no sorted table, its requests if recent.
pub(crate) fn load(
    txn: &ReadTransaction,
    file: &SegmentFile,
    end: u64,
    window_start: u64,
    indexes: &mut Indexes,
) -> Result<Vec<String>, ReadError> {
    let mut map = (!has_sorted_digests(txn, &file.name())?).then(|| DigestMap::new(file.first));
    let window_start = window_start.max(file.first);
    let start = if map.is_some() { file.first } else { window_start };
    let (mut damaged, mut lost) = (Rotten::default(), Rotten::default());
    if start < end {
        EntryRows::open(txn, file)?.survey(start..end, |index, row| {
            let Ok(row) = row else { return lost.add(index) };
            if let (Some(map), Some(digest)) = (&mut map, row.digest) {
                map.insert(index, digest);
            }
            let Some(request) = row.request.filter(|_| index >= window_start) else { return };
            match own_request(txn, file, index, &row, request) {
                Some((request, sound)) => {
                    indexes.requests.insert(index, &request.key);
                    if !sound {
                        damaged.add(index);
                    }
                }
                None => lost.add(index),
            }
        });
    }
    indexes.digests.extend(map);
    Ok([
        damaged.note(file, "damaged, their idempotency keys are not; run fsck"),
        lost.note(file, "damaged, and their idempotency keys count no more; run fsck"),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// The request beside an entry, if it is the entry's; and whether the entry itself is sound. Where it is not, the
/// request is as true as the tile that has the entry's hash.
fn own_request(
    txn: &ReadTransaction,
    file: &SegmentFile,
    index: u64,
    row: &EntryRow<'_>,
    request: &[u8; crate::tables::REQUEST_BYTES],
) -> Option<(Request, bool)> {
    if let Some(request) = Request::check_row(request, index, &leaf_hash(row.entry)) {
        return Some((request, true));
    }
    let leaf = tile_leaf(txn, &file.name(), index)?;
    Some((Request::check_row(request, index, &leaf)?, false))
}

/// The hash that a stored full tile has for an entry.
fn tile_leaf(txn: &ReadTransaction, name: &str, index: u64) -> Option<Hash> {
    let width = u64::from(TILE_WIDTH);
    let read = || {
        let tiles = txn.open_table(TILES).during("read", name)?;
        Ok(read_tile(&tiles, 0, index / width).during("read", name)?)
    };
    let tile = contain(name, index, read).ok().flatten()?;
    let at = (index % width) as usize * 32;
    Hash::from_slice(tile.get(at..at + 32)?)
}

/// How many entries share a damage, and the first of them.
#[derive(Default)]
struct Rotten {
    count: u64,
    first: u64,
}

impl Rotten {
    fn add(&mut self, index: u64) {
        if self.count == 0 {
            self.first = index;
        }
        self.count += 1;
    }

    fn note(&self, file: &SegmentFile, what: &str) -> Option<String> {
        let (name, Rotten { count, first }) = (file.name(), self);
        (*count > 0).then(|| format!("{name}: {count} entries from {first} on are {what}"))
    }
}
