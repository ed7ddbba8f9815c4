//! A snapshot: one proven tree, and every proof about it, whatever the writer does meanwhile.
//!
//! Refuses: handing out a proof that does not lead to the snapshot's own root. A damaged tile on the disk becomes
//! an error here, never a wrong proof in somebody's archive.

use crate::edge::{TileNodes, locate};
use crate::entry_rows::EntryRows;
use crate::error::{Damage, During, ReadError};
use crate::segment::table_or_none;
use crate::shared::{HeadState, Shared};
use crate::tile_rows::{TILES, read_tile};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{self, BuildError, HashReader, verify_consistency, verify_inclusion};
use bulla_formats::tile::{FULL_TILE_BYTES, TILE_HEIGHT, TILE_WIDTH};
use std::sync::Arc;

/// An immutable view of the log at one size. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    shared: Arc<Shared>,
    head: Arc<HeadState>,
}

impl Snapshot {
    pub(crate) fn new(shared: Arc<Shared>, head: Arc<HeadState>) -> Self {
        Self { shared, head }
    }

    /// Entries in the tree.
    pub fn size(&self) -> u64 {
        self.head.edge.size()
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        self.head.root
    }

    /// Inclusion proof of entry `index` in this tree, verified before it is returned.
    pub fn inclusion_proof(&self, index: u64) -> Result<Vec<Hash>, ReadError> {
        let size = self.size();
        let proof = merkle::inclusion_proof(index, size, self).map_err(flatten)?;
        let leaf = self.subtree(0, index)?;
        match verify_inclusion(index, size, &leaf, &proof, &self.head.root) {
            Ok(()) => Ok(proof),
            Err(_) => Err(Damage::new("a tile", index, "the stored tiles do not lead to the root").into()),
        }
    }

    /// Consistency proof from the tree of `old` entries to this one, verified before it is returned.
    pub fn consistency_proof(&self, old: u64) -> Result<Vec<Hash>, ReadError> {
        let size = self.size();
        let proof = merkle::consistency_proof(old, size, self).map_err(flatten)?;
        let old_root = merkle::root(old, self)?;
        match verify_consistency(old, &old_root, size, &self.head.root, &proof) {
            Ok(()) => Ok(proof),
            Err(_) => Err(Damage::new("a tile", old, "the stored tiles do not lead to the root").into()),
        }
    }

    /// Root of the first `size` entries.
    pub fn root_at(&self, size: u64) -> Result<Hash, ReadError> {
        if size > self.size() {
            return Err(ReadError::OutOfRange { index: size, size: self.size() });
        }
        merkle::root(size, self)
    }

    /// Proof that entry `index` is in the earlier tree of `size` entries.
    pub(crate) fn inclusion_proof_at(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        if size > self.size() {
            return Err(ReadError::OutOfRange { index: size, size: self.size() });
        }
        merkle::inclusion_proof(index, size, self).map_err(flatten)
    }

    /// Proof between two earlier trees.
    pub(crate) fn consistency_proof_at(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        if new > self.size() {
            return Err(ReadError::OutOfRange { index: new, size: self.size() });
        }
        merkle::consistency_proof(old, new, self).map_err(flatten)
    }

    /// Bytes of a tile of hashes, cut to `width`.
    pub(crate) fn tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<u8>, ReadError> {
        let available = bulla_formats::tile::width_at(level, index, self.size());
        if width == 0 || width > available {
            return Err(ReadError::NoSuchTile { level, index, width, size: self.size() });
        }
        if available == TILE_WIDTH {
            return Ok(self.full_tile(level, index)?.to_bytes(width));
        }
        let partial = self.head.edge.partial(level, index);
        partial.map(|tile| tile.to_bytes(width)).ok_or(ReadError::NoSuchTile {
            level,
            index,
            width,
            size: self.size(),
        })
    }

    /// A full tile of this tree: from the cache, the segment where it became full, or the entries.
    fn full_tile(&self, level: u8, index: u64) -> Result<Arc<TileNodes>, ReadError> {
        if let Some(tile) = self.shared.cached_tile(level, index) {
            return Ok(tile);
        }
        let last_leaf = ((index + 1) << (u32::from(level + 1) * u32::from(TILE_HEIGHT))) - 1;
        let stored = self.shared.in_segment(last_leaf, |txn, file| {
            let name = file.name();
            let Some(tiles) = table_or_none(txn.open_table(TILES)).during("read", &name)? else {
                return Ok(None);
            };
            let row = read_tile(&tiles, level, index).during("read", &name)?;
            Ok(row.filter(|row| row.len() == FULL_TILE_BYTES).and_then(|row| TileNodes::parse(&row)))
        })?;
        let tile = Arc::new(match stored {
            Some(tile) => tile,
            None => self.rebuild_tile(level, index)?,
        });
        self.shared.cache_tile(level, index, Arc::clone(&tile));
        Ok(tile)
    }

    /// A damaged or missing tile must not keep a proof from anyone: the entries are still there.
    fn rebuild_tile(&self, level: u8, index: u64) -> Result<TileNodes, ReadError> {
        let first = index * u64::from(TILE_WIDTH);
        let children = first..first + u64::from(TILE_WIDTH);
        let hashes: Result<Vec<Hash>, ReadError> = match level.checked_sub(1) {
            None => children.map(|leaf| Ok(leaf_hash(&entry(&self.shared, leaf)?))).collect(),
            Some(below) => children
                .map(|child| {
                    let tile = self.full_tile(below, child)?;
                    tile.node(TILE_HEIGHT, 0)
                        .ok_or_else(|| Damage::new("a tile", child, "a full tile is not full").into())
                })
                .collect(),
        };
        Ok(TileNodes::collect(hashes?))
    }
}

impl HashReader for Snapshot {
    type Error = ReadError;
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, ReadError> {
        let (tile_level, tile_index, s, at) = locate(level, index);
        let node = match self.head.edge.partial(tile_level, tile_index) {
            Some(tile) => tile.node(s, at),
            None => self.full_tile(tile_level, tile_index)?.node(s, at),
        };
        node.ok_or(ReadError::OutOfRange { index, size: self.size() })
    }
}

/// The bytes of one entry; the caller has checked that it exists.
pub(crate) fn entry(shared: &Shared, index: u64) -> Result<Vec<u8>, ReadError> {
    shared
        .in_segment(index, |txn, file| Ok(EntryRows::open(txn, file)?.expect(index)?.parts()?.entry.to_vec()))
}

fn flatten(error: BuildError<ReadError>) -> ReadError {
    match error {
        BuildError::Request(error) => error.into(),
        BuildError::Reader(error) => error,
    }
}
