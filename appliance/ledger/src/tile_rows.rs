//! How a full tile lies in its segment: in rows of eight hashes, because a whole tile does not fit two pages of redb
//! with its key, and then takes four.
//!
//! | table | key | value |
//! |---|---|---|
//! | `tiles-3` | (255 - level u8, 32 x tile + part u64) | 256 bytes: hashes 8 x part to 8 x part + 7 of the tile |
//!
//! The tiles of leaves, 255 of 256, come last: redb fills the pages of what is added at the end of a table, and leaves
//! every other one half empty.
//!
//! Refuses: to judge. What is read is compared, or parsed and proven, by who asked.
//! Invariant: a tile of which any row is missing reads as shorter than a tile, never as another one.

use crate::edge::FullTile;
use bulla_formats::tile::FULL_TILE_BYTES;
use redb::{ReadableTable, StorageError, TableDefinition, WriteTransaction};

pub(crate) const TILES: TableDefinition<(u8, u64), &[u8; ROW_BYTES]> = TableDefinition::new("tiles-3");

/// Bytes of a row: fifteen rows with their keys fill a page of 4096 bytes.
const ROW_BYTES: usize = 8 * 32;
/// Rows of a tile.
const ROWS: u64 = (FULL_TILE_BYTES / ROW_BYTES) as u64;

/// Key of a row of tiles of `level`.
fn key(level: u8, row: u64) -> (u8, u64) {
    (u8::MAX - level, row)
}

/// What is stored of a tile: all of it, less than it (see the invariant), or nothing.
pub(crate) fn read_tile(
    tiles: &impl ReadableTable<(u8, u64), &'static [u8; ROW_BYTES]>,
    level: u8,
    index: u64,
) -> Result<Option<Vec<u8>>, StorageError> {
    let first = index * ROWS;
    let mut bytes = Vec::with_capacity(FULL_TILE_BYTES);
    for row in tiles.range(key(level, first)..key(level, first + ROWS))? {
        bytes.extend_from_slice(row?.1.value());
    }
    Ok((!bytes.is_empty()).then_some(bytes))
}

/// Writes tiles that are new, or were missing or wrong; they follow from the entries.
pub(crate) fn write_tiles(txn: &WriteTransaction, tiles: &[FullTile]) -> Result<(), redb::Error> {
    let mut table = txn.open_table(TILES)?;
    for tile in tiles {
        let bytes = tile.nodes.to_bytes(tile.nodes.width());
        for (row, part) in (tile.index * ROWS..).zip(bytes.as_chunks::<ROW_BYTES>().0) {
            table.insert(key(tile.level, row), part)?;
        }
    }
    Ok(())
}

/// The tile that the row under a key belongs to: level and index.
pub(crate) fn tile_of((key, row): (u8, u64)) -> (u8, u64) {
    (u8::MAX - key, row / ROWS)
}
