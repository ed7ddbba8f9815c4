//! Tiles: proofs from tiles that lie somewhere, and the tiles that a growing log fills.
//!
//! Refuses to do: hold more than the tiles that the proofs at hand need. Invariant: a tile that [`Growing`] hands out
//! full is never handed out again.

use bulla_formats::hash::{Hash, node_hash};
use bulla_formats::merkle::HashReader;
use bulla_formats::tile::{TileCoordinate, full_tile_root, width_at};
use std::cell::RefCell;
use std::collections::HashMap;

/// Most tiles remembered by one reader: 8 KiB each.
const REMEMBERED: usize = 512;

/// The tiles of a log of `size` entries as a source of hashes; `load` gets a tile by level, index and width.
pub struct Tiles<F> {
    size: u64,
    load: F,
    known: RefCell<HashMap<(u8, u64), Vec<Hash>>>,
}

impl<E, F: Fn(u8, u64, u16) -> Result<Vec<Hash>, E>> Tiles<F> {
    /// Reads nothing yet.
    pub fn new(size: u64, load: F) -> Self {
        Tiles { size, load, known: RefCell::default() }
    }
}

impl<E, F: Fn(u8, u64, u16) -> Result<Vec<Hash>, E>> HashReader for Tiles<F> {
    type Error = E;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, E> {
        let (tile_level, below) = (level / 8, level % 8);
        let first = index << below;
        let (tile, offset) = (first / 256, (first % 256) as usize);
        let mut known = self.known.borrow_mut();
        if known.len() > REMEMBERED {
            known.clear();
        }
        let row = match known.entry((tile_level, tile)) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert((self.load)(tile_level, tile, width_at(tile_level, tile, self.size))?)
            }
        };
        let mut row = row[offset..offset + (1 << below)].to_vec();
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        Ok(row[0])
    }
}

/// The right edge of a log's tiles, level by level.
#[derive(Debug, Clone, Default)]
pub struct Growing {
    size: u64,
    rows: Vec<Vec<Hash>>,
}

impl Growing {
    /// The edge of a log of `size` entries. `load` gets a tile by level, index and width: the unfilled one of the lowest
    /// level, and full ones to make those above from.
    pub fn resume<E>(size: u64, load: impl Fn(u8, u64, u16) -> Result<Vec<Hash>, E>) -> Result<Self, E> {
        let mut rows = Vec::new();
        for level in 0u8..8 {
            let hashes = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
            if hashes == 0 {
                break;
            }
            let (tile, width) = (hashes / 256, (hashes % 256) as u16);
            let mut row = Vec::with_capacity(256);
            if level == 0 && width > 0 {
                row = load(0, tile, width)?;
            } else {
                for below in 0..u64::from(width) {
                    let full = load(level - 1, tile * 256 + below, 256)?;
                    row.extend(full_tile_root(&full));
                }
            }
            rows.push(row);
        }
        Ok(Growing { size, rows })
    }

    /// Adds a leaf; returns the tiles that it fills, lowest level first.
    pub fn push(&mut self, leaf: Hash) -> Vec<(u8, u64, Vec<Hash>)> {
        let (mut filled, mut hash) = (Vec::new(), leaf);
        self.size += 1;
        for level in 0u8.. {
            let at = usize::from(level);
            if self.rows.len() == at {
                self.rows.push(Vec::with_capacity(256));
            }
            self.rows[at].push(hash);
            let Some(root) = full_tile_root(&self.rows[at]) else { break };
            let index = (self.size >> (8 * (u32::from(level) + 1))) - 1;
            filled.push((level, index, std::mem::take(&mut self.rows[at])));
            hash = root;
        }
        filled
    }

    /// The unfilled tiles.
    pub fn unfilled(&self) -> impl Iterator<Item = (u8, u64, &[Hash])> {
        let size = self.size;
        self.rows.iter().enumerate().filter(|(_, row)| !row.is_empty()).map(move |(level, row)| {
            let level = level as u8;
            (level, size >> (8 * (u32::from(level) + 1)), row.as_slice())
        })
    }
}

/// The unfilled tiles of a log of `size` entries, entry bundle first.
pub fn unfilled(size: u64) -> Vec<TileCoordinate> {
    let mut found = Vec::new();
    for level in 0u8..8 {
        let hashes = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
        let (index, width) = (hashes / 256, (hashes % 256) as u16);
        if level == 0 {
            found.extend(TileCoordinate::entries(index, width));
        }
        found.extend(TileCoordinate::hashes(level, index, width));
    }
    found
}

/// The bytes of a tile of hashes.
pub fn encode(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::hash::{leaf_hash, sha256};
    use bulla_formats::merkle::{Frontier, root};
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    #[test]
    fn tiles_of_a_growing_log_lead_to_its_root_wherever_it_is_taken_up() {
        let (mut growing, mut frontier) = (Growing::default(), Frontier::new());
        let mut stored: BTreeMap<(u8, u64), Vec<Hash>> = BTreeMap::new();
        for number in 0u64..66_000 {
            let leaf = leaf_hash(sha256(&[&number.to_be_bytes()]).0.as_slice());
            frontier.append(leaf);
            for (level, index, hashes) in growing.push(leaf) {
                assert!(stored.insert((level, index), hashes).is_none(), "handed out once");
            }
            let size = number + 1;
            if ![1, 255, 256, 257, 600, 5_000, 65_535, 65_536, 65_537, 66_000].contains(&size) {
                continue;
            }
            let mut all = stored.clone();
            for (level, index, hashes) in growing.unfilled() {
                all.insert((level, index), hashes.to_vec());
            }
            let names: Vec<_> = unfilled(size).into_iter().skip(usize::from(size % 256 != 0)).collect();
            assert_eq!(names.len(), growing.unfilled().count(), "{size}");
            let load = |level: u8, index: u64, width: u16| -> Result<Vec<Hash>, Infallible> {
                Ok(all[&(level, index)][..usize::from(width)].to_vec())
            };
            assert_eq!(root(size, &Tiles::new(size, load)).unwrap(), frontier.root(), "{size}");
            let again = Growing::resume(size, load).unwrap();
            let rows = |growing: &Growing| -> Vec<_> {
                growing.unfilled().map(|(level, index, row)| (level, index, row.to_vec())).collect()
            };
            assert_eq!(rows(&again), rows(&growing), "{size}");
        }
    }
}
