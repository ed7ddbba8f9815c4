//! The leaf hashes of a segment that may be damaged: what its entries hash to, and where they cannot be read or were
//! changed, what its tiles say they hashed to.
//!
//! Invariants: a hash taken from a tile counts only when all hashes together lead to a root recorded elsewhere; then
//! the damaged entries are exactly those named, and every other entry is proven.

use crate::contain::contain;
use crate::edge::{Edge, locate};
use crate::error::{During, ReadError};
use crate::segment::table_or_none;
use crate::tables::ENTRIES;
use crate::tile_rows::{TILES, read_tile};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::tile::{FULL_TILE_BYTES, TILE_WIDTH};
use redb::ReadTransaction;

/// One entry as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// It is there, and hashes to this.
    Read(Hash),
    /// There is none under this index.
    Missing,
    /// The page it lies in cannot be read.
    Unreadable,
}

impl Leaf {
    fn hash(self) -> Option<Hash> {
        if let Leaf::Read(hash) = self { Some(hash) } else { None }
    }

    fn what(self) -> &'static str {
        match self {
            Leaf::Read(_) => "the entry does not have the hash that its tile records",
            Leaf::Missing => "the entry is missing",
            Leaf::Unreadable => "the entry cannot be read, its page is damaged",
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

/// Reads all entries in `[first, end)`; where the pass breaks off, goes around what cannot be read.
pub(super) fn read(txn: &ReadTransaction, name: &str, first: u64, end: u64) -> Vec<Leaf> {
    let mut leaves = Vec::with_capacity((end - first) as usize);
    let mut next = first;
    while next < end {
        // What was read before a panic stays: a panic is no return value.
        let swept = contain(name, next, || sweep(txn, name, &mut leaves, first, end));
        next = first + leaves.len() as u64;
        if swept.is_ok() || next >= end {
            break;
        }
        next = skip_unreadable(txn, name, next, end);
        leaves.resize((next - first) as usize, Leaf::Unreadable);
    }
    leaves.resize((end - first) as usize, Leaf::Missing);
    leaves
}

/// One pass in order, from the first entry that is not in `leaves` yet.
fn sweep(
    txn: &ReadTransaction,
    name: &str,
    leaves: &mut Vec<Leaf>,
    first: u64,
    end: u64,
) -> Result<(), ReadError> {
    let entries = txn.open_table(ENTRIES).during("read", name)?;
    for row in entries.range(first + leaves.len() as u64..end).during("read", name)? {
        let (index, entry) = row.during("read", name)?;
        let next = first + leaves.len() as u64;
        if !(next..end).contains(&index.value()) {
            // Out of order: the page is nonsense that happens to parse. (Counting on also ends a circle of pages.)
            return Err(crate::Damage::new(name, next, "entries out of order").into());
        }
        leaves.resize((index.value() - first) as usize, Leaf::Missing);
        leaves.push(Leaf::Read(leaf_hash(entry.value())));
    }
    Ok(())
}

/// First entry after `from` that can be asked for: by strides that double, then halve. What cannot be read are pages,
/// stretches of neighbours, so this asks a few dozen times where one by one would ask a million times.
fn skip_unreadable(txn: &ReadTransaction, name: &str, from: u64, end: u64) -> u64 {
    let (mut bad, mut stride) = (from, 1);
    let mut good = loop {
        let Some(probe) = bad.checked_add(stride).filter(|probe| *probe < end) else { break end };
        if can_ask(txn, name, probe) {
            break probe;
        }
        (bad, stride) = (probe, stride * 2);
    };
    while bad + 1 < good {
        let middle = bad + (good - bad) / 2;
        if can_ask(txn, name, middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

fn can_ask(txn: &ReadTransaction, name: &str, index: u64) -> bool {
    let ask = || {
        let entries = txn.open_table(ENTRIES).during("read", name)?;
        entries.get(index).map(|row| row.map(|row| row.value().len())).during("read", name)
    };
    let asked = contain(name, index, || Ok(ask()?));
    asked.is_ok()
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
