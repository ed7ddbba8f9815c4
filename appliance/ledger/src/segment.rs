//! Segments: the files that hold the entries, their names, how one comes to be and how one is verified.
//!
//! `seg-<first index, 16 hex digits>.redb` covers the indexes from its first to the first of the next segment.
//! After a write of unknown effect the log goes on in a fresh file at the proven size; if that size is where the
//! failed segment began, the fresh one gets a generation: `seg-<hex>-g<k>.redb`, and the highest generation wins.
//!
//! Refuses: a scan whose entries do not add up to the head row; a segment of another log.
//! Invariants:
//! - Under a final name there is always a segment with a committed header: it is written under `.new`, synced,
//!   renamed and the directory synced before the first entry goes in. So a torn creation is never mistaken for a
//!   damaged segment, and a damaged one never removed as a torn creation.
//! - Entries at or past the first index of the next segment do not exist, whatever the file holds.

use crate::backend::{Writable, open_frozen};
use crate::companion::NEW;
use crate::contain::contain;
use crate::edge::{Edge, FullTile};
use crate::entry_rows::{ENTRIES, EntryRow, EntryRows, Lost};
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::store::Store;
use crate::tables::{DIGESTS, HEAD, HEADER, Head, Header, META};
use crate::tile_rows::{TILES, read_tile};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::Frontier;
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableError};

/// A segment file as its name tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentFile {
    pub(crate) first: u64,
    pub(crate) generation: u32,
}

impl SegmentFile {
    pub(crate) fn name(&self) -> String {
        match self.generation {
            0 => format!("seg-{:016x}.redb", self.first),
            generation => format!("seg-{:016x}-g{generation}.redb", self.first),
        }
    }

    /// Reads a name as printed by [`SegmentFile::name`]; `None` for anything else.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix("seg-")?.strip_suffix(".redb")?;
        let (first, generation) = match stem.split_once("-g") {
            Some((first, generation)) => (first, generation.parse().ok()?),
            None => (stem, 0),
        };
        let file = Self { first: u64::from_str_radix(first, 16).ok()?, generation };
        (file.name() == name).then_some(file)
    }
}

/// The segments that count, in order: of each first index the highest generation.
pub(crate) fn current_segments(names: &[String]) -> Vec<SegmentFile> {
    let mut files: Vec<_> = names.iter().filter_map(|name| SegmentFile::parse(name)).collect();
    files.sort_unstable();
    // Sorted by (first, generation): the later one replaces its predecessor.
    let mut current: Vec<SegmentFile> = Vec::with_capacity(files.len());
    for file in files {
        match current.last_mut().filter(|last| last.first == file.first) {
            Some(last) => *last = file,
            None => current.push(file),
        }
    }
    current
}

/// Makes a segment that continues the tree of `header`, durably under its final name, ready for entries.
pub(crate) fn create(
    store: &dyn Store,
    header: &Header,
    cache_bytes: usize,
) -> Result<(SegmentFile, Writable), ReadError> {
    let first = header.first();
    let names = store.list().during("list", "the log directory")?;
    let taken = names.iter().filter_map(|name| SegmentFile::parse(name)).filter(|file| file.first == first);
    let generation = taken.map(|file| file.generation + 1).max().unwrap_or(0);
    let file = SegmentFile { first, generation };
    let (name, new) = (file.name(), format!("{}{NEW}", file.name()));
    let writable = Writable::create(store, &new, cache_bytes)?;
    let made = write_header(&writable, header)
        .during("commit to", &new)
        .and_then(|()| store.rename(&new, &name).during("rename", &new))
        .and_then(|()| store.sync_dir().during("make durable the name of", &name));
    // Read back before anything builds on it, like every batch.
    let verified = made.map_err(ReadError::from).and_then(|()| {
        let (stored, _) = read_meta(&begin(&writable.db, &name)?, &file, &header.origin)?;
        if stored == *header {
            Ok(())
        } else {
            Err(Damage::new(&name, first, "its header reads back changed").into())
        }
    });
    match verified {
        Ok(()) => Ok((file, writable)),
        Err(error) => {
            writable.abandon();
            Err(error)
        }
    }
}

fn write_header(writable: &Writable, header: &Header) -> Result<(), redb::Error> {
    let txn = writable.db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(HEADER, header.to_bytes().as_slice())?;
        let head = Head { size: header.first(), root: header.root, batch_first: header.first() };
        meta.insert(HEAD, head.to_bytes().as_slice())?;
        // All tables of an open segment exist from the start: readers never meet a missing one.
        txn.open_table(ENTRIES)?;
        txn.open_table(TILES)?;
    }
    Ok(txn.commit()?)
}

/// Header and head of a segment, checked against its name and log.
pub(crate) fn read_meta(
    txn: &ReadTransaction,
    file: &SegmentFile,
    origin: &str,
) -> Result<(Header, Head), ReadError> {
    let name = file.name();
    let damaged = |what: &str| Damage::new(&name, file.first, what);
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Err(damaged("it has no header").into()),
        Err(error) => return Err(error).during("read", &name)?,
    };
    let header = meta.get(HEADER).during("read", &name)?.ok_or_else(|| damaged("it has no header"))?;
    let header = Header::parse(header.value()).map_err(|what| damaged(&what))?;
    let head = meta.get(HEAD).during("read", &name)?.and_then(|head| Head::parse(head.value()));
    let head = head.ok_or_else(|| damaged("it has no well-formed head row"))?;
    if header.first() != file.first {
        return Err(damaged("its header begins at another index than its name says").into());
    }
    if header.origin != origin {
        return Err(damaged("it belongs to the log of another origin").into());
    }
    if head.size < head.batch_first || head.batch_first < header.first() {
        return Err(damaged("its head row ends before it begins").into());
    }
    Ok((header, head))
}

/// The origin that a segment's header names, whatever else is true of it.
pub(crate) fn origin_stated(store: &dyn Store, file: &SegmentFile) -> Option<String> {
    let name = file.name();
    let db = open_frozen(store, &name, 0).ok()?;
    let read = || {
        let meta = begin(&db, &name)?.open_table(META).during("read", &name)?;
        Ok(meta.get(HEADER).during("read", &name)?.and_then(|row| Header::parse(row.value()).ok()))
    };
    Some(contain(&name, file.first, read).ok()??.origin)
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) edge: Edge,
    /// Tiles that the entries imply but the segment does not hold so.
    pub(crate) wrong_tiles: Vec<FullTile>,
}

/// Reads all entries in `[header.first(), end)`, recomputes leaf hashes, tiles and root, and compares with the
/// stored tiles; calls `visit(index, row, leaf hash)` for each. Start, recovery and fsck share it.
///
/// The root is computed twice, by the edge and by the frontier: one flipped bit in memory must not become the
/// root that the log stands for.
pub(crate) fn scan(
    txn: &ReadTransaction,
    file: &SegmentFile,
    header: &Header,
    end: u64,
    mut visit: impl FnMut(u64, &EntryRow<'_>, &Hash) -> Result<(), ReadError>,
) -> Result<Scan, ReadError> {
    let name = &file.name();
    let entries = EntryRows::open(txn, file)?;
    let tiles = table_or_none(txn.open_table(TILES)).during("read", name)?;
    let mut edge = header.edge.clone();
    let mut frontier =
        frontier_of(&edge).ok_or_else(|| Damage::new(name, edge.size(), "its right edge is malformed"))?;
    let (mut full, mut wrong_tiles) = (Vec::new(), Vec::new());
    for row in entries.range(header.first()..end)? {
        let (row, expected) = (row?, edge.size());
        if row.index != expected {
            return Err(entries.lost(expected, Lost::Missing).into());
        }
        let row = row.parts()?;
        let leaf = leaf_hash(row.entry);
        visit(expected, &row, &leaf)?;
        edge.append(leaf, &mut full);
        frontier.append(leaf);
        for tile in full.drain(..) {
            let stored = match &tiles {
                Some(tiles) => read_tile(tiles, tile.level, tile.index).during("read", name)?,
                None => None,
            };
            if stored.is_none_or(|stored| stored != tile.nodes.to_bytes(tile.nodes.width())) {
                wrong_tiles.push(tile);
            }
        }
    }
    if edge.size() != end {
        return Err(entries.lost(edge.size(), Lost::Missing).into());
    }
    if edge.root() != frontier.root() {
        return Err(
            Damage::new(name, end, "the root computed twice differs: the memory is not reliable").into()
        );
    }
    Ok(Scan { edge, wrong_tiles })
}

/// The frontier of the same tree as the edge.
pub(crate) fn frontier_of(edge: &Edge) -> Option<Frontier> {
    use bulla_formats::merkle::HashReader;
    let size = edge.size();
    let peaks = (0..64u8).rev().filter(|level| size >> level & 1 == 1);
    let peaks =
        peaks.map(|level| edge.subtree(level, (size >> level) - 1).ok()).collect::<Option<Vec<_>>>()?;
    Frontier::from_peaks(size, peaks)
}

/// A table that older states of a file may lack.
pub(crate) fn table_or_none<K: redb::Key + 'static, V: redb::Value + 'static>(
    table: Result<ReadOnlyTable<K, V>, TableError>,
) -> Result<Option<ReadOnlyTable<K, V>>, TableError> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the sorted digest table has been written, which is the last thing done to a segment.
pub(crate) fn has_sorted_digests(txn: &ReadTransaction, name: &str) -> Result<bool, StorageFault> {
    Ok(table_or_none(txn.open_table(DIGESTS)).during("read", name)?.is_some())
}

/// A read transaction, with the file named in the error.
pub(crate) fn begin(db: &Database, name: &str) -> Result<ReadTransaction, StorageFault> {
    db.begin_read().during("read", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling_and_the_highest_generation_counts() {
        for name in [
            "seg-0.redb",
            "seg-0000000000000000-g0.redb",
            "seg-000000000000000A.redb",
            "seg-0000000000000000-g01.redb",
        ] {
            assert_eq!(SegmentFile::parse(name), None, "{name}");
        }
        let names = [
            "seg-000000000000000a.redb",
            "seg-0000000000000000-g10.redb",
            "seg-0000000000000000-g9.redb",
            "seg-0000000000000000.redb",
            "lock",
            "seg-000000000000000b.redb.new",
        ];
        let current = current_segments(&names.map(str::to_owned));
        assert_eq!(
            current,
            [SegmentFile { first: 0, generation: 10 }, SegmentFile { first: 10, generation: 0 }]
        );
        assert!(current.iter().all(|file| SegmentFile::parse(&file.name()).as_ref() == Some(file)));
    }
}
