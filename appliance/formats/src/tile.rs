//! Tiles: which 256-wide slice of the tree a path names, and the bytes of tiles and entry bundles.
//! <https://c2sp.org/tlog-tiles>: `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`.
//!
//! Refuses: any path that this module would not print itself (leading zeros, missing `x`, width 0 or 256, level
//! above 63), entry bundles with trailing bytes or the wrong number of entries.
//!
//! Invariants:
//! - `path()` and `parse()` are inverse: one coordinate has one spelling, so caches and proxies see one name.
//! - A tile with hashes names only complete subtrees; an empty tile has no coordinate.

use crate::hash::{Hash, node_hash};
use std::fmt::Write as _;
use thiserror::Error;

/// Levels of the binary tree that one tile spans.
pub const TILE_HEIGHT: u8 = 8;
/// Hashes in a full tile.
pub const TILE_WIDTH: u16 = 1 << TILE_HEIGHT;
/// Bytes of a full tile: 256 hashes of 32 bytes.
pub const FULL_TILE_BYTES: usize = TILE_WIDTH as usize * 32;
/// Highest tile level that the path grammar allows.
pub const TILE_LEVEL_MAX: u8 = 63;
/// Longest entry, in bytes: its length is a `uint16` in an entry bundle.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of complete subtrees of 256^level leaves.
    Hashes {
        /// Tile level, 0 to 63. A log of 2^64 entries has levels 0 to 7 only.
        level: u8,
    },
    /// The entries themselves.
    Entries,
}

/// A tile's coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileCoordinate {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// Why a tile path or an entry bundle was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TileError {
    /// Not a path of the grammar, or not its only spelling.
    #[error("not a tile path; expected tile/<level>/<index>[.p/<width>] or tile/entries/<index>[.p/<width>]")]
    Path,
    /// Width outside 1 to 256 or level above 63.
    #[error("a tile has level 0 to 63 and width 1 to 256, not level {level} and width {width}")]
    Range {
        /// Level asked for (0 for entries).
        level: u8,
        /// Width asked for.
        width: u16,
    },
    /// An entry longer than its 16-bit length can say.
    #[error("an entry of {0} bytes does not fit an entry bundle; at most 65535 bytes")]
    EntryTooLarge(usize),
    /// The bundle ends inside an entry, has bytes left over, or holds another number of entries.
    #[error("entry bundle is malformed: expected exactly {expected} entries")]
    Bundle {
        /// Entries that the coordinate calls for.
        expected: u16,
    },
}

impl TileCoordinate {
    /// A tile of hashes at `level`, the `index`-th of that level, `width` hashes wide (256 = full).
    pub fn hashes(level: u8, index: u64, width: u16) -> Result<Self, TileError> {
        if level > TILE_LEVEL_MAX || width == 0 || width > TILE_WIDTH {
            return Err(TileError::Range { level, width });
        }
        Ok(Self { kind: TileKind::Hashes { level }, index, width })
    }

    /// An entry bundle, `width` entries wide (256 = full).
    pub fn entries(index: u64, width: u16) -> Result<Self, TileError> {
        if width == 0 || width > TILE_WIDTH {
            return Err(TileError::Range { level: 0, width });
        }
        Ok(Self { kind: TileKind::Entries, index, width })
    }

    /// Hashes or entries.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Position within its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes or entries in it, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it is full, and so will never change.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The only spelling of this coordinate, without a leading slash.
    pub fn path(&self) -> String {
        let mut path = match self.kind {
            TileKind::Hashes { level } => format!("tile/{level}/"),
            TileKind::Entries => String::from("tile/entries/"),
        };
        push_index(&mut path, self.index);
        if !self.is_full() {
            // Writing to a String cannot fail.
            let _ = write!(path, ".p/{}", self.width);
        }
        path
    }

    /// Reads a path as printed by [`TileCoordinate::path`]; anything else is refused.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        let rest = path.strip_prefix("tile/").ok_or(TileError::Path)?;
        let (kind, rest) = rest.split_once('/').ok_or(TileError::Path)?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse::<u16>().map_err(|_| TileError::Path)?),
            None => (rest, TILE_WIDTH),
        };
        let index = parse_index(index)?;
        let coordinate = if kind == "entries" {
            Self::entries(index, width)?
        } else {
            Self::hashes(kind.parse().map_err(|_| TileError::Path)?, index, width)?
        };
        // One coordinate, one spelling: this also refuses `+1`, `007`, `.p/256`, `x000/001`.
        if coordinate.path() == path { Ok(coordinate) } else { Err(TileError::Path) }
    }
}

/// Width of the `index`-th tile of `level` in a tree of `size` leaves: 256 for a full one, 0 for none.
pub fn width_at(level: u8, index: u64, size: u64) -> u16 {
    let hashes = size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0);
    let first = index.checked_mul(u64::from(TILE_WIDTH));
    let width = first.and_then(|first| hashes.checked_sub(first)).unwrap_or(0);
    width.min(u64::from(TILE_WIDTH)) as u16
}

/// Reads a tile of exactly `width` hashes; `None` for any other length.
pub fn parse_hashes(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    if bytes.len() != usize::from(width) * 32 {
        return None;
    }
    bytes.chunks_exact(32).map(Hash::from_slice).collect()
}

/// Root of a full tile: the hash that stands for it one tile level up. `None` unless there are 256 hashes.
pub fn full_tile_root(hashes: &[Hash]) -> Option<Hash> {
    if hashes.len() != usize::from(TILE_WIDTH) {
        return None;
    }
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    row.first().copied()
}

/// Appends one entry to a bundle: `uint16` big-endian length, then the entry.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let len = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLarge(entry.len()))?;
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// Splits a bundle into exactly `width` entries; refuses bytes left over.
pub fn parse_entries(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let malformed = TileError::Bundle { expected: width };
    let mut entries = Vec::with_capacity(usize::from(width));
    let mut rest = bundle;
    for _ in 0..width {
        let (len, tail) = rest.split_first_chunk::<2>().ok_or_else(|| malformed.clone())?;
        let (entry, tail) =
            tail.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or_else(|| malformed.clone())?;
        entries.push(entry);
        rest = tail;
    }
    if rest.is_empty() { Ok(entries) } else { Err(malformed) }
}

/// Groups of three digits, all but the last prefixed with `x`: 1234067 is `x001/x234/067`.
fn push_index(path: &mut String, index: u64) {
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    for (place, group) in groups.iter().enumerate().rev() {
        // Writing to a String cannot fail.
        let _ = if place > 0 { write!(path, "x{group:03}/") } else { write!(path, "{group:03}") };
    }
}

/// Lax on spelling (the caller compares with the printed form), strict on digits and overflow.
fn parse_index(text: &str) -> Result<u64, TileError> {
    text.split('/').try_fold(0u64, |index, group| {
        let digits = group.strip_prefix('x').unwrap_or(group);
        let value: u64 = digits.parse().map_err(|_| TileError::Path)?;
        index.checked_mul(1000).and_then(|index| index.checked_add(value)).ok_or(TileError::Path)
    })
}
