//! The right edge of the tree: the partial tile of every level, in memory, with its inner nodes.
//!
//! Tiles reach the disk only when they are full; until then they live here and are rebuilt from the entries at
//! start. Inner nodes are kept because a receipt needs its inclusion proof at once, and hashing 256 leaves per
//! proof would cost more than the commit.
//!
//! Invariants:
//! - The partial tile of level L holds `floor(size / 256^L) mod 256` hashes.
//! - A snapshot never changes: levels are shared by reference count and copied when the writer goes on.

use bulla_formats::hash::{Hash, empty_root, node_hash};
use bulla_formats::merkle::{self, HashReader};
use bulla_formats::tile::{TILE_HEIGHT, TILE_WIDTH, parse_hashes};
use std::sync::Arc;

const WIDTH: usize = TILE_WIDTH as usize;
/// 256 + 128 + ... + 1 nodes of a full tile.
const NODES: usize = 2 * WIDTH - 1;

/// A tile, full or partial, with every inner node that is complete so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TileNodes {
    width: u16,
    /// Row s (nodes of height s) starts at `row(s)`.
    nodes: Box<[Hash; NODES]>,
}

/// Start of the row of height `s` in `TileNodes::nodes`.
const fn row(s: u8) -> usize {
    2 * WIDTH - ((2 * WIDTH) >> s)
}

impl TileNodes {
    fn new() -> Self {
        Self { width: 0, nodes: Box::new([Hash([0; 32]); NODES]) }
    }

    /// Reads a tile's hashes; `None` unless `bytes` are whole hashes, at most 256.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let width = u16::try_from(bytes.len() / 32).ok().filter(|width| *width <= TILE_WIDTH)?;
        let mut tile = Self::new();
        parse_hashes(bytes, width)?.into_iter().for_each(|hash| tile.push(hash));
        Some(tile)
    }

    /// From exactly 256 hashes or fewer, in order.
    pub(crate) fn collect(hashes: impl IntoIterator<Item = Hash>) -> Self {
        let mut tile = Self::new();
        hashes.into_iter().take(WIDTH).for_each(|hash| tile.push(hash));
        tile
    }

    /// Adds a hash; callers stop at 256.
    fn push(&mut self, hash: Hash) {
        let mut at = usize::from(self.width);
        self.nodes[at] = hash;
        self.width += 1;
        let mut s = 0;
        while at & 1 == 1 && s < TILE_HEIGHT {
            let parent = node_hash(&self.nodes[row(s) + at - 1], &self.nodes[row(s) + at]);
            at /= 2;
            s += 1;
            self.nodes[row(s) + at] = parent;
        }
    }

    /// Hashes in the tile.
    pub(crate) fn width(&self) -> u16 {
        self.width
    }

    /// The complete node of height `s` at `at`; `None` where the tile is not that wide yet.
    pub(crate) fn node(&self, s: u8, at: usize) -> Option<Hash> {
        (s <= TILE_HEIGHT && at < usize::from(self.width) >> s).then(|| self.nodes[row(s) + at])
    }

    /// The tile's bytes, cut to `width` hashes.
    pub(crate) fn to_bytes(&self, width: u16) -> Vec<u8> {
        self.nodes[..usize::from(width.min(self.width))].iter().flat_map(|hash| hash.0).collect()
    }
}

/// A tile that has just become full.
#[derive(Debug, Clone)]
pub(crate) struct FullTile {
    pub(crate) level: u8,
    pub(crate) index: u64,
    pub(crate) nodes: Arc<TileNodes>,
}

/// The partial tiles of every level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Edge {
    size: u64,
    levels: Vec<Arc<TileNodes>>,
}

impl Edge {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; tiles that it completes are pushed to `full`, lowest level first.
    pub(crate) fn append(&mut self, leaf: Hash, full: &mut Vec<FullTile>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0u8.. {
            let at = usize::from(level);
            if at == self.levels.len() {
                self.levels.push(Arc::new(TileNodes::new()));
            }
            // Copies the level when a snapshot still shares it.
            let tile = Arc::make_mut(&mut self.levels[at]);
            tile.push(hash);
            let Some(root) = tile.node(TILE_HEIGHT, 0) else { return };
            let nodes = std::mem::replace(&mut self.levels[at], Arc::new(TileNodes::new()));
            let index = (self.size >> (u32::from(level + 1) * u32::from(TILE_HEIGHT))) - 1;
            full.push(FullTile { level, index, nodes });
            hash = root;
        }
    }

    /// The partial tile at `level`, if it is the `index`-th of its level and not empty.
    pub(crate) fn partial(&self, level: u8, index: u64) -> Option<&Arc<TileNodes>> {
        let tile = self.levels.get(usize::from(level))?;
        (tile.width() > 0 && self.partial_index(level) == Some(index)).then_some(tile)
    }

    fn partial_index(&self, level: u8) -> Option<u64> {
        self.size.checked_shr((u32::from(level) + 1) * u32::from(TILE_HEIGHT)).or(Some(0))
    }

    /// The tree's root; the edge holds every complete subtree that it is made of.
    pub(crate) fn root(&self) -> Hash {
        // The reader fails only for hashes outside the edge, which the root never needs.
        merkle::root(self.size, self).unwrap_or_else(|OutsideEdge| empty_root())
    }

    /// Level count u8, then per level a u16 width and the hashes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.push(self.levels.len() as u8);
        for tile in &self.levels {
            bytes.extend_from_slice(&tile.width().to_be_bytes());
            bytes.extend_from_slice(&tile.to_bytes(tile.width()));
        }
        bytes
    }

    /// Refuses widths that do not follow from the size, and trailing bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let size = u64::from_be_bytes(*size);
        let (count, mut rest) = rest.split_first()?;
        let mut levels = Vec::new();
        for level in 0..*count {
            let (width, tail) = rest.split_first_chunk::<2>()?;
            let width = u16::from_be_bytes(*width);
            let hashes = size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT))?;
            if u64::from(width) != hashes % u64::from(TILE_WIDTH) {
                return None;
            }
            let (tile, tail) = tail.split_at_checked(usize::from(width) * 32)?;
            levels.push(Arc::new(TileNodes::parse(tile)?));
            rest = tail;
        }
        let above = size.checked_shr(u32::from(*count) * u32::from(TILE_HEIGHT)).unwrap_or(0);
        (above == 0 && rest.is_empty()).then_some(Self { size, levels })
    }
}

/// The hash asked for lies in a full tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutsideEdge;

impl HashReader for Edge {
    type Error = OutsideEdge;
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, OutsideEdge> {
        let (tile_level, tile_index, s, at) = locate(level, index);
        self.partial(tile_level, tile_index).and_then(|tile| tile.node(s, at)).ok_or(OutsideEdge)
    }
}

/// Which tile holds the complete subtree (level, index), and where in it: (tile level, tile index, height inside
/// the tile, position in that row).
pub(crate) fn locate(level: u8, index: u64) -> (u8, u64, u8, usize) {
    let s = level % TILE_HEIGHT;
    let per_tile = TILE_HEIGHT - s;
    (level / TILE_HEIGHT, index >> per_tile, s, (index & ((1 << per_tile) - 1)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::hash::leaf_hash;
    use bulla_formats::merkle::Frontier;

    #[test]
    fn the_edge_has_the_frontiers_root_at_every_size_and_survives_its_bytes() {
        let (mut edge, mut frontier, mut full) = (Edge::default(), Frontier::new(), Vec::new());
        for index in 0..=66_000u64 {
            if index < 600 || index % 251 == 0 || index.is_multiple_of(256) {
                assert_eq!(edge.root(), frontier.root(), "{index}");
                assert_eq!(Edge::parse(&edge.to_bytes()), Some(edge.clone()), "{index}");
            }
            let leaf = leaf_hash(&index.to_be_bytes());
            edge.append(leaf, &mut full);
            frontier.append(leaf);
        }
        assert_eq!(full.iter().filter(|tile| tile.level == 0).count(), 66_000 / 256);
        assert_eq!(full.iter().filter(|tile| tile.level == 1).count(), 1);
        assert!(full.iter().all(|tile| tile.nodes.width() == 256));
    }

    #[test]
    fn edge_bytes_of_another_size_are_refused() {
        let (mut edge, mut full) = (Edge::default(), Vec::new());
        (0..300u64).for_each(|index| edge.append(leaf_hash(&index.to_be_bytes()), &mut full));
        let good = edge.to_bytes();
        for at in 0..11 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Edge::parse(&bad), None, "byte {at}");
        }
        assert_eq!(Edge::parse(&good[..good.len() - 1]), None);
        assert_eq!(Edge::parse(&[good.as_slice(), &[0]].concat()), None);
    }
}
