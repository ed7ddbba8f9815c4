//! The leaf hashes of a segment that may be damaged: what its entries hash to, and where they cannot be read or were
//! changed, what its tiles say they hashed to.
//!
//! Invariants: a hash taken from a tile counts only when all hashes together lead to a root recorded elsewhere; then
//! the damaged entries are exactly those named, and every other entry is proven.

use crate::contain::contain;
use crate::edge::{Edge, locate};
use crate::entry_rows::{EntryRows, Lost};
use crate::error::During;
use crate::segment::{SegmentFile, table_or_none};
use crate::tile_rows::{TILES, read_tile};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::tile::{FULL_TILE_BYTES, TILE_WIDTH};
use redb::ReadTransaction;

/// One entry as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// It is there, and hashes to this.
    Read(Hash),
    /// There is none to be had.
    Lost(Lost),
}

impl Leaf {
    fn hash(self) -> Option<Hash> {
        if let Leaf::Read(hash) = self { Some(hash) } else { None }
    }

    fn what(self) -> &'static str {
        match self {
            Leaf::Read(_) => "the entry does not have the hash that its tile records",
            Leaf::Lost(lost) => lost.what(),
        }
    }
}

/// Entries that share a damage, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) what: &'static str,
}

/// Reads all entries up to `end`, and goes around what cannot be read.
pub(super) fn read(txn: &ReadTransaction, file: &SegmentFile, end: u64) -> Vec<Leaf> {
    let mut leaves = Vec::with_capacity((end - file.first) as usize);
    match contain(&file.name(), file.first, || Ok(EntryRows::open(txn, file)?)) {
        Ok(rows) => rows.survey(file.first..end, |_, row| {
            leaves.push(row.map_or_else(Leaf::Lost, |row| Leaf::Read(leaf_hash(row.entry))));
        }),
        Err(_) => leaves.resize((end - file.first) as usize, Leaf::Lost(Lost::Unreadable)),
    }
    leaves
}

/// The hashes of a segment, each from its entry or else from its tile.
pub(super) struct Resolved {
    pub(super) hashes: Vec<Hash>,
    /// Entries whose hash is not their own.
    pub(super) damaged: Vec<Damaged>,
}

impl Resolved {
    /// Takes the entries' word for everything. `None` when one of them has none.
    pub(super) fn of_entries(leaves: &[Leaf]) -> Option<Self> {
        let hashes = leaves.iter().map(|leaf| leaf.hash()).collect::<Option<Vec<_>>>()?;
        Some(Self { hashes, damaged: Vec::new() })
    }

    /// Takes the tiles' word where the entries have none, or another. `None` where neither has one.
    pub(super) fn of_tiles(
        txn: &ReadTransaction,
        name: &str,
        first: u64,
        leaves: &[Leaf],
        next_edge: Option<&Edge>,
    ) -> Option<Self> {
        let mut tile = (u64::MAX, None);
        let mut resolved = Self { hashes: Vec::with_capacity(leaves.len()), damaged: Vec::new() };
        for (index, leaf) in (first..).zip(leaves) {
            let number = index / u64::from(TILE_WIDTH);
            if tile.0 != number {
                tile = (number, stored_tile(txn, name, number));
            }
            let recorded = match &tile.1 {
                Some(bytes) => hash_at(bytes, (index % u64::from(TILE_WIDTH)) as usize),
                None => next_edge.and_then(|edge| {
                    let (level, number, height, at) = locate(0, index);
                    edge.partial(level, number)?.node(height, at)
                }),
            };
            let hash = match (recorded, leaf.hash()) {
                (Some(recorded), own) if own != Some(recorded) => {
                    resolved.damage(index, *leaf);
                    recorded
                }
                (_, Some(own)) => own,
                (recorded, None) => recorded?,
            };
            resolved.hashes.push(hash);
        }
        Some(resolved)
    }

    fn damage(&mut self, index: u64, leaf: Leaf) {
        extend(&mut self.damaged, index, leaf.what());
    }

    pub(super) fn is_damaged(&self, index: u64) -> bool {
        let at = self.damaged.partition_point(|range| range.last < index);
        self.damaged.get(at).is_some_and(|range| range.first <= index)
    }
}

/// Entries without a hash of their own, as ranges.
pub(super) fn unread(first: u64, leaves: &[Leaf]) -> Vec<Damaged> {
    let mut ranges = Vec::new();
    for (index, leaf) in (first..).zip(leaves).filter(|(_, leaf)| leaf.hash().is_none()) {
        extend(&mut ranges, index, leaf.what());
    }
    ranges
}

fn extend(ranges: &mut Vec<Damaged>, index: u64, what: &'static str) {
    match ranges.last_mut().filter(|range| range.last + 1 == index && range.what == what) {
        Some(range) => range.last = index,
        None => ranges.push(Damaged { first: index, last: index, what }),
    }
}

fn stored_tile(txn: &ReadTransaction, name: &str, number: u64) -> Option<Vec<u8>> {
    let read = || {
        let Some(tiles) = table_or_none(txn.open_table(TILES)).during("read", name)? else { return Ok(None) };
        Ok(read_tile(&tiles, 0, number).during("read", name)?)
    };
    let row = contain(name, number * u64::from(TILE_WIDTH), read).ok().flatten();
    row.filter(|row| row.len() == FULL_TILE_BYTES)
}

fn hash_at(tile: &[u8], at: usize) -> Option<Hash> {
    Hash::from_slice(tile.get(at * 32..at * 32 + 32)?)
}
