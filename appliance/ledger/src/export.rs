//! Export: a copy of the log as it is now, made beside the running writer, for a backup.
//!
//! Closed segments never change and are named, not copied. The segment that takes entries is written anew, row by
//! row up to the head of the moment, and its root is recomputed from what was written; so the copy of a damaged
//! segment is refused here and not discovered when it is needed. The databases beside the segments are copied from
//! one read transaction each.
//!
//! Refuses: to leave anything under a final name in the target that is not complete.
//! Invariants: `control` and the queue are copied before the entries (a request that leaves the queue meanwhile is in both,
//! and its request key says so; the other way round it could be in neither), and everything that entries refer to after them, so that the
//! copy has every opening with its key and every object of its entries, and a counter intent that is not ahead of them. Short read
//! transactions only: the writer is held up for the length of one chunk at a time, and only at a roll-over.

use crate::backend::Writable;
use crate::entry_rows::{ENTRIES, EntryRows, EntryWriter};
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::reader::Reader;
use crate::segment::{self, SegmentFile};
use crate::shared::Shared;
use crate::store::Store;
use crate::tables::{HEAD, HEADER, Head, Header, META};
use crate::tile_rows::{TILES, write_tiles};
use bulla_formats::hash::Hash;
use std::ops::Range;

/// Entries copied per transaction.
const CHUNK_ENTRIES: u64 = 4096;
/// Page cache of the copy while it is written, bytes.
const CACHE_BYTES: usize = 16 << 20;

/// What a copy of the log consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Entries in the copy.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
    /// Files of the log's own directory that belong to the copy and never change again.
    pub closed: Vec<String>,
    /// Files that were written to the target.
    pub copied: Vec<String>,
}

impl Reader {
    /// Copies what changes into `to`, which is empty, and names what does not.
    pub fn export(&self, to: &dyn Store) -> Result<Exported, ReadError> {
        let shared = self.shared();
        let mut copied = Vec::new();
        copied.extend(shared.control.copy_to(to)?);
        copied.extend(shared.queue.copy_to(to)?);
        // Files and head together: a roll-over waits for this guard, so the last file is the one of the head.
        let (files, head) = {
            let segments = shared.segments();
            (segments.files.clone(), shared.head())
        };
        let (size, root) = (head.edge.size(), head.root);
        let Some((active, closed)) = files.split_last() else {
            return Err(Damage::new("the log", 0, "it has no segment").into());
        };
        copy_segment(shared, active, size, root, to)?;
        copied.push(active.name());
        copied.extend(shared.openings.copy_to(to)?);
        copied.extend(shared.side.copy_to(to)?);
        let closed = closed.iter().map(SegmentFile::name).collect();
        Ok(Exported { size, root, closed, copied })
    }
}

impl Reader {
    /// Copies the whole log into `to`, which is empty, the files that do not change any more among it.
    pub(crate) fn export_whole(&self, to: &dyn Store) -> Result<Exported, ReadError> {
        let exported = self.export(to)?;
        for name in &exported.closed {
            copy_file(self.store().as_ref(), name, to)?;
        }
        let Exported { size, root, closed, copied } = exported;
        Ok(Exported { size, root, closed: Vec::new(), copied: closed.into_iter().chain(copied).collect() })
    }
}

/// Copies a file that does not change any more, byte for byte.
fn copy_file(from: &dyn Store, name: &str, to: &dyn Store) -> Result<(), StorageFault> {
    const PIECE: u64 = 1 << 20;
    let new = format!("{name}{}", crate::companion::NEW);
    let source = from.open(name).during("open", name)?;
    let copy = to.create(&new).during("create", &new)?;
    let len = source.len().during("ask for the length of", name)?;
    copy.set_len(len).during("write", &new)?;
    let mut piece = vec![0; len.min(PIECE) as usize];
    for offset in (0..len).step_by(PIECE as usize) {
        let part = &mut piece[..(len - offset).min(PIECE) as usize];
        source.read(offset, part).during("read", name)?;
        copy.write(offset, part).during("write", &new)?;
    }
    copy.sync_data().during("make durable", &new)?;
    drop(copy);
    to.rename(&new, name).during("rename", &new)?;
    to.sync_dir().during("make durable the name of", name)
}

/// Writes `file` anew in `to`, with the entries below `size`, whose root must be `root`.
fn copy_segment(
    shared: &Shared,
    file: &SegmentFile,
    size: u64,
    root: Hash,
    to: &dyn Store,
) -> Result<(), ReadError> {
    let name = file.name();
    let new = format!("{name}{}", crate::companion::NEW);
    let (header, _) =
        shared.in_segment(file.first, |txn, found| segment::read_meta(txn, found, &shared.origin))?;
    let copy = Writable::create(to, &new, CACHE_BYTES)?;
    let mut next = file.first;
    while next < size {
        let chunk = next..size.min(next + CHUNK_ENTRIES);
        next = chunk.end;
        copy_rows(shared, &copy, chunk, &name)?;
    }
    let head = Head { size, root, batch_first: size };
    finish(&copy, &header, head).during("commit to", &new)?;
    let txn = segment::begin(&copy.db, &new)?;
    let found = segment::scan(&txn, file, &header, size, |_, _, _| Ok(()))?;
    drop(txn);
    if found.edge.root() != root {
        return Err(Damage::new(&name, file.first, "the copied entries have another root").into());
    }
    let tiled = || -> Result<(), redb::Error> {
        let txn = copy.db.begin_write()?;
        write_tiles(&txn, &found.wrong_tiles)?;
        Ok(txn.commit()?)
    };
    tiled().during("commit to", &new)?;
    // Closed before it gets its name: what is taken away is a database that was shut down in order.
    drop(copy);
    to.rename(&new, &name).during("rename", &new)?;
    to.sync_dir().during("make durable the name of", &name)?;
    Ok(())
}

/// The rows of one chunk. They are never changed once they are below the head.
fn copy_rows(shared: &Shared, copy: &Writable, chunk: Range<u64>, name: &str) -> Result<(), ReadError> {
    let txn = copy.db.begin_write().during("commit to", name)?;
    shared.in_segment(chunk.start, |from, file| {
        let mut to = EntryWriter::open(&txn, file.first).during("commit to", name)?;
        for row in EntryRows::open(from, file)?.range(chunk.clone())? {
            let row = row?;
            to.put(row.index, &row.parts()?).during("commit to", name)?;
        }
        Ok(())
    })?;
    Ok(txn.commit().during("commit to", name)?)
}

fn finish(copy: &Writable, header: &Header, head: Head) -> Result<(), redb::Error> {
    let txn = copy.db.begin_write()?;
    {
        // All of them exist, also in a segment without entries.
        txn.open_table(ENTRIES)?;
        txn.open_table(TILES)?;
        let mut meta = txn.open_table(META)?;
        meta.insert(HEADER, header.to_bytes().as_slice())?;
        meta.insert(HEAD, head.to_bytes().as_slice())?;
    }
    Ok(txn.commit()?)
}
