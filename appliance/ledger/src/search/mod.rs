//! Search: which entries carry a value, and which blocks of entries were made in a stretch of time.
//!
//! Derived, beside the append path, in `search.redb`. Whoever owns the index drives it with
//! [`SearchIndex::advance`]; new rows gather in memory and go to the file in large sorted batches, so a restart
//! after a crash only reads the newest entries again.
//!
//! A value is stored as a *tag*: the first half of SHA-256(label, random key of this file, field, value). The key is
//! prefix-free (fixed length) and half of the hash is dropped, so the construction cannot be extended; who has only
//! the tags cannot try names. Rows are grouped by 2^20 entries: the cost of a row does not grow with the log, where one
//! tree over random tags would touch a page per row.
//!
//! Refuses: to say more than "perhaps": a row is a candidate, the entry and its openings decide. To keep a file that
//! is damaged: it is removed (it may hold rows of values that have been erased) and built again from the entries.
//!
//! Invariants:
//! - `indexed` (how far the file goes) and the rows up to there are one transaction; it counts only while the log's
//!   tree of that size has the root that was stored with it.
//! - Entries past `indexed` and below `next` are in memory, in the same form.
//! - Nothing here is ever waited for by an append. An erasure writes the file anew beside whoever searches; until it is
//!   done new rows stay in memory.

mod erase;

use crate::companion::{Companion, Kind, copy_table};
use crate::contain::contained;
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::reader::Reader;
use crate::store::Store;
use bulla_formats::hash::{Hash, sha256};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Group u32 BE, tag 16, offset in the group u32 BE.
const TAGS: TableDefinition<&Row, ()> = TableDefinition::new("tags-1");
/// Block number to its earliest and latest local time, u64 BE each.
const TIMES: TableDefinition<u64, &Span> = TableDefinition::new("times-1");
/// Batch number to the exclusive-or of the hashes of its rows in both tables: what a damaged page cannot match.
const SUMS: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("sums-1");
/// `key`: 32 random bytes. `indexed`: size u64 BE and root 32 of the tree that the rows cover.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta-1");

pub(crate) const NAME: &str = "search.redb";
const KEY: &str = "key";
const INDEXED: &str = "indexed";
const TAG_LABEL: &[u8] = b"bulla/search-tag/v1\0";

/// Entries per group of rows: a power of two, as in segments.
const GROUP: u64 = 1 << 20;
/// Entries whose rows go to the file together.
const BATCH: u64 = 1 << 14;
/// Entries whose times are one row.
const BLOCK: u64 = 256;
/// Entries that are read before the lock is let go for a moment.
const STEP: u64 = 1024;
/// Room for copies of pages that a batch touches.
const BATCH_BYTES: u64 = 64 << 20;

type Row = [u8; 24];
type Span = [u8; 16];
type Tag = [u8; 16];

/// Tags are keyed hashes and nobody outside shapes them; sums are compared at every start: one phase is enough.
const KIND: Kind = Kind { name: NAME, two_phase: false, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(TAGS, from, to)?;
    copy_table(TIMES, from, to)?;
    copy_table(SUMS, from, to)?;
    copy_table(META, from, to)
}

/// Says what an entry is found by: calls back with (field number, value) and returns its local time in milliseconds.
/// The second argument is the entry's openings, absent when it has none or they are erased.
pub type Describe = Box<dyn Fn(&[u8], Option<&[u8]>, &mut dyn FnMut(u8, &[u8])) -> Option<u64> + Send + Sync>;

/// How far the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    /// Entries that can be found.
    pub next: u64,
    /// Entries in the log.
    pub size: u64,
}

/// The index of one log; share it behind an `Arc`.
pub struct SearchIndex {
    reader: Reader,
    describe: Describe,
    state: Mutex<State>,
}

impl std::fmt::Debug for SearchIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchIndex").finish_non_exhaustive()
    }
}

struct State {
    file: Arc<Companion>,
    /// `None` until the file has been looked at.
    loaded: Option<Loaded>,
    /// An erasure writes the file anew: nobody else writes to it.
    rewriting: bool,
    /// Why the file was given up; taken by [`SearchIndex::take_notice`].
    notice: Option<String>,
}

struct Loaded {
    key: Zeroizing<[u8; 32]>,
    /// Entries in the file.
    stored: u64,
    /// Entries in the file and in memory.
    next: u64,
    rows: BTreeSet<Row>,
    times: BTreeMap<u64, (u64, u64)>,
}

impl SearchIndex {
    /// The index of the reader's log. Nothing is read yet.
    pub fn new(reader: Reader, describe: Describe) -> Self {
        let state = State { file: companion(reader.store()), loaded: None, rewriting: false, notice: None };
        Self { reader, describe, state: Mutex::new(state) }
    }

    /// Takes in at most `most` entries more. Other callers get their turn in between.
    pub fn advance(&self, most: u64) -> Result<Indexed, ReadError> {
        let mut left = most;
        loop {
            let mut state = self.lock();
            let size = self.reader.size();
            let before = self.loaded(&mut state)?.next;
            let end = size.min(before.saturating_add(left.min(STEP)));
            let next = self.take_in(&mut state, end)?;
            left = left.saturating_sub(next - before);
            if left == 0 || next >= size || next == before {
                return Ok(Indexed { next, size });
            }
        }
    }

    /// Writes full blocks that are still in memory; for an orderly stop.
    pub fn flush(&self) -> Result<(), ReadError> {
        let mut state = self.lock();
        let end = self.loaded(&mut state)?.next / BLOCK * BLOCK;
        self.write(&mut state, end)
    }

    /// Indexes below `below` that may carry `value`, newest first, at most `most`.
    pub fn find(&self, field: u8, value: &[u8], below: u64, most: usize) -> Result<Vec<u64>, ReadError> {
        let (file, tag, stored, mut found) = {
            let mut state = self.lock();
            let file = self.file(&mut state)?;
            let loaded = self.loaded(&mut state)?;
            let tag = tag(&loaded.key, field, value);
            let mut found = Vec::new();
            for group in groups(loaded.stored..below.min(loaded.next)) {
                let rows = loaded.rows.range(row(group, &tag, 0)..=row(group, &tag, u32::MAX)).rev();
                found.extend(rows.map(index_of).filter(|index| *index < below).take(most - found.len()));
            }
            (file, tag, loaded.stored, found)
        };
        let below = below.min(stored);
        let look = |txn: &ReadTransaction| -> Result<Vec<u64>, redb::Error> {
            let table = txn.open_table(TAGS)?;
            let mut older = Vec::new();
            for group in groups(0..below) {
                let (from, to) = (row(group, &tag, 0), row(group, &tag, u32::MAX));
                for each in table.range::<&Row>(&from..=&to)?.rev() {
                    if found.len() + older.len() >= most {
                        return Ok(older);
                    }
                    let index = index_of(each?.0.value());
                    if index < below {
                        older.push(index);
                    }
                }
            }
            Ok(older)
        };
        if below > 0 && found.len() < most {
            let older = guarded(|| file.read(look)).or_else(|fault| self.give_up(&file, fault))?;
            found.extend(older.unwrap_or_default());
        }
        Ok(found)
    }

    /// Ranges of at most 256 indexes below `below`, newest first and at most `most` of them, in which an entry may
    /// have a local time in `times`. Clocks jump, so the order of the ranges says nothing about their times.
    pub fn stretches(
        &self,
        times: Range<u64>,
        below: u64,
        most: usize,
    ) -> Result<Vec<Range<u64>>, ReadError> {
        let meets = |(earliest, latest): (u64, u64)| earliest < times.end && latest >= times.start;
        let cut = |block: u64| block * BLOCK..below.min((block + 1) * BLOCK);
        let (file, stored, mut found) = {
            let mut state = self.lock();
            let file = self.file(&mut state)?;
            let loaded = self.loaded(&mut state)?;
            let newest = loaded.times.range(..below.div_ceil(BLOCK)).rev();
            let found: Vec<_> =
                newest.filter(|(_, span)| meets(**span)).map(|(block, _)| cut(*block)).take(most).collect();
            (file, loaded.stored, found)
        };
        let look = |txn: &ReadTransaction| -> Result<Vec<Range<u64>>, redb::Error> {
            let mut older = Vec::new();
            for each in txn.open_table(TIMES)?.range(..below.min(stored).div_ceil(BLOCK))?.rev() {
                let (block, span) = each?;
                if meets(split_span(span.value())) {
                    older.push(cut(block.value()));
                    if found.len() + older.len() >= most {
                        break;
                    }
                }
            }
            Ok(older)
        };
        if below.min(stored) > 0 && found.len() < most {
            let older = guarded(|| file.read(look)).or_else(|fault| self.give_up(&file, fault))?;
            found.extend(older.unwrap_or_default());
        }
        Ok(found)
    }

    /// Compares the file with its sums; a damaged one is given up.
    pub fn check(&self) -> Result<(), ReadError> {
        let file = self.file(&mut self.lock())?;
        let wrong = guarded(|| file.read(wrong_batch));
        match wrong {
            Ok(None | Some(None)) => Ok(()),
            Ok(Some(Some(batch))) => {
                let what = format!("the rows of entries from {} on do not add up", batch * BATCH);
                self.give_up(&file, fault(what))
            }
            Err(fault) => self.give_up(&file, fault),
        }
    }

    /// Why the file was last given up and is being built again; each reason is told once.
    pub fn take_notice(&self) -> Option<String> {
        self.lock().notice.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, read from the file when that has not been done yet.
    fn loaded<'a>(&self, state: &'a mut State) -> Result<&'a mut Loaded, ReadError> {
        if state.loaded.is_none() {
            let meta = guarded(|| state.file.read(read_meta));
            let found = match meta {
                Ok(Some(Some((key, size, root)))) => match self.reader.root_at(size) {
                    Ok(here) if here == root => Some((key, size)),
                    Ok(_) | Err(ReadError::OutOfRange { .. }) => {
                        self.discard(state, &"it is of another state of the log");
                        None
                    }
                    Err(error) => return Err(error),
                },
                Ok(None) => None,
                Ok(Some(None)) => {
                    self.discard(state, &"its head row is missing or malformed");
                    None
                }
                Err(fault) => {
                    self.discard(state, &fault);
                    None
                }
            };
            let (key, stored) = match found {
                Some(found) => found,
                None => (fresh_key()?, 0),
            };
            let (rows, times) = (BTreeSet::new(), BTreeMap::new());
            state.loaded = Some(Loaded { key, stored, next: stored, rows, times });
        }
        match &mut state.loaded {
            Some(loaded) => Ok(loaded),
            None => Err(Damage::new(NAME, 0, "it could not be loaded").into()),
        }
    }

    /// The file that goes with the loaded state.
    fn file(&self, state: &mut State) -> Result<Arc<Companion>, ReadError> {
        self.loaded(state)?;
        Ok(Arc::clone(&state.file))
    }

    /// Takes in entries up to `end`; returns how far it came.
    fn take_in(&self, state: &mut State, end: u64) -> Result<u64, ReadError> {
        loop {
            let rewriting = state.rewriting;
            let loaded = self.loaded(state)?;
            // While the file is written anew, all that comes stays in memory.
            let full = if rewriting { u64::MAX } else { (loaded.stored / BATCH + 1) * BATCH };
            if loaded.next >= full {
                self.write(state, full)?;
                continue;
            }
            let stop = end.min(full);
            if loaded.next >= stop {
                return Ok(loaded.next);
            }
            for each in self.reader.entries(loaded.next..stop) {
                let (index, entry) = match each {
                    Ok(each) => each,
                    // Nobody can be shown this one; fsck names it. The others stay findable.
                    Err(ReadError::Damaged(_)) => {
                        loaded.next += 1;
                        break;
                    }
                    Err(error) => return Err(error),
                };
                let mut rows = Vec::new();
                let time = self.describe(&mut rows, &loaded.key, index, &entry)?;
                loaded.rows.extend(rows);
                if let Some(time) = time {
                    let span = loaded.times.entry(index / BLOCK).or_insert((time, time));
                    *span = (span.0.min(time), span.1.max(time));
                }
                loaded.next = index + 1;
            }
        }
    }

    fn describe(
        &self,
        rows: &mut Vec<Row>,
        key: &[u8; 32],
        index: u64,
        entry: &[u8],
    ) -> Result<Option<u64>, ReadError> {
        let openings = match self.reader.openings(index) {
            Ok(openings) => openings,
            // Openings that do not decrypt open nothing.
            Err(ReadError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        let openings = openings.as_ref().map(|openings| openings.as_slice());
        let mut enter = |field: u8, value: &[u8]| {
            rows.push(row(index / GROUP, &tag(key, field, value), offset_of(index)))
        };
        Ok((self.describe)(entry, openings, &mut enter))
    }

    /// Moves the rows below `end` to the file; `end` is a multiple of a block.
    fn write(&self, state: &mut State, end: u64) -> Result<(), ReadError> {
        let rewriting = state.rewriting;
        let loaded = self.loaded(state)?;
        if end <= loaded.stored || rewriting {
            return Ok(());
        }
        self.room_for(BATCH_BYTES)?;
        let root = self.reader.root_at(end)?;
        let (rows, later): (BTreeSet<Row>, BTreeSet<Row>) =
            std::mem::take(&mut loaded.rows).into_iter().partition(|row| index_of(row) < end);
        let later_times = loaded.times.split_off(&(end / BLOCK));
        let times = std::mem::replace(&mut loaded.times, later_times);
        loaded.rows = later;
        let key = loaded.key.clone();
        let file = Arc::clone(&state.file);
        let written = guarded(|| {
            file.write(|txn| {
                let mut changes: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
                {
                    let (mut tags, mut spans) = (txn.open_table(TAGS)?, txn.open_table(TIMES)?);
                    for row in &rows {
                        tags.insert(row, ())?;
                        add(changes.entry(index_of(row) / BATCH).or_default(), row);
                    }
                    for (block, (earliest, latest)) in &times {
                        let span = span(*earliest, *latest);
                        spans.insert(block, &span)?;
                        add(changes.entry(block * BLOCK / BATCH).or_default(), &time_row(*block, &span));
                    }
                }
                apply(&mut txn.open_table(SUMS)?, &changes)?;
                let mut meta = txn.open_table(META)?;
                meta.insert(KEY, key.as_slice())?;
                meta.insert(INDEXED, [&end.to_be_bytes()[..], &root.0].concat().as_slice())?;
                Ok(())
            })
        });
        match written {
            Ok(()) => {
                if let Some(loaded) = &mut state.loaded {
                    loaded.stored = end;
                }
                Ok(())
            }
            // The rows are not in memory any more; what the file holds after this is not known.
            Err(fault) => {
                self.discard(state, &fault);
                Err(fault.into())
            }
        }
    }

    /// Whether so much more may be written: the rest is kept for seals.
    fn room_for(&self, bytes: u64) -> Result<(), StorageFault> {
        let free =
            self.reader.store().free_bytes().during("ask for the free space of", "the log directory")?;
        if free >= self.reader.reserve_bytes().saturating_add(bytes) {
            return Ok(());
        }
        let full = std::io::Error::new(std::io::ErrorKind::StorageFull, "the room left is kept for seals");
        Err::<(), _>(full).during("write to", NAME)
    }

    /// Gives the file up, unless somebody else has done so meanwhile.
    fn give_up<T>(&self, file: &Arc<Companion>, fault: StorageFault) -> Result<T, ReadError> {
        let mut state = self.lock();
        if Arc::ptr_eq(&state.file, file) {
            self.discard(&mut state, &fault);
        }
        Err(Damage::new(NAME, 0, "the search index was damaged and is built again").into())
    }

    /// Removes the file. When that fails, the next look at it ends here again.
    fn discard(&self, state: &mut State, why: &dyn std::fmt::Display) {
        let store = self.reader.store();
        state.loaded = None;
        let removed = store.remove(NAME).and_then(|()| store.sync_dir());
        let gone = removed.is_ok() || store.list().is_ok_and(|names| names.iter().all(|name| name != NAME));
        if gone {
            state.file = companion(store);
            state.notice = Some(why.to_string());
        } else {
            state.notice = Some(format!("{why}; the damaged file cannot be removed"));
        }
    }
}

fn companion(store: &Arc<dyn Store>) -> Arc<Companion> {
    // A directory that cannot be listed now fails at the next write; until then there is no file.
    let present = store.list().is_ok_and(|names| names.iter().any(|name| name == NAME));
    Arc::new(Companion::new(Arc::clone(store), KIND, present))
}

/// Judges the file for fsck: what is wrong with it, if anything. `size`: entries in the log.
pub(crate) fn judge(store: &Arc<dyn Store>, size: u64) -> Option<String> {
    let file = Companion::frozen(Arc::clone(store), KIND);
    let found =
        guarded(|| file.read(|txn| Ok((read_meta(txn)?.map(|(_, indexed, _)| indexed), wrong_batch(txn)?))));
    match found {
        Err(fault) => Some(fault.to_string()),
        Ok(None | Some((None, _))) => Some("its head row is missing or malformed".to_owned()),
        Ok(Some((Some(indexed), _))) if indexed > size => {
            Some("it covers more entries than there are".to_owned())
        }
        Ok(Some((_, Some(batch)))) => {
            Some(format!("the rows of entries from {} on do not add up", batch * BATCH))
        }
        Ok(Some((_, None))) => None,
    }
}

type Meta = (Zeroizing<[u8; 32]>, u64, Hash);

fn read_meta(txn: &ReadTransaction) -> Result<Option<Meta>, redb::Error> {
    let table = txn.open_table(META)?;
    let key = table.get(KEY)?.and_then(|key| Some(Zeroizing::new(<[u8; 32]>::try_from(key.value()).ok()?)));
    let indexed = table.get(INDEXED)?.and_then(|row| {
        let (size, root) = row.value().split_first_chunk::<8>()?;
        let size = u64::from_be_bytes(*size);
        (size % BLOCK == 0).then_some((size, Hash(root.try_into().ok()?)))
    });
    Ok(key.zip(indexed).map(|(key, (size, root))| (key, size, root)))
}

/// The first batch whose rows do not have the sum that is stored for it.
fn wrong_batch(txn: &ReadTransaction) -> Result<Option<u64>, redb::Error> {
    let mut found: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
    for each in txn.open_table(SUMS)?.iter()? {
        let (batch, sum) = each?;
        found.insert(batch.value(), *sum.value());
    }
    for each in txn.open_table(TAGS)?.iter()? {
        let row = *each?.0.value();
        add(found.entry(index_of(&row) / BATCH).or_default(), &row);
    }
    for each in txn.open_table(TIMES)?.iter()? {
        let (block, span) = each?;
        let batch = block.value().saturating_mul(BLOCK) / BATCH;
        add(found.entry(batch).or_default(), &time_row(block.value(), span.value()));
    }
    Ok(found.into_iter().find(|(_, left)| *left != [0; 32]).map(|(batch, _)| batch))
}

/// Runs `work` on the file; redb asserts on some damaged pages instead of returning an error, and a derived file is
/// no reason to lose a thread.
fn guarded<T>(work: impl FnOnce() -> Result<T, StorageFault>) -> Result<T, StorageFault> {
    contained(work).unwrap_or_else(|_| Err(fault("its pages are damaged".to_owned())))
}

fn fault(what: String) -> StorageFault {
    StorageFault { action: "read", file: NAME.to_owned(), source: Box::new(redb::Error::Corrupted(what)) }
}

fn fresh_key() -> Result<Zeroizing<[u8; 32]>, StorageFault> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice()).map_err(std::io::Error::other).during("make a key for", NAME)?;
    Ok(key)
}

fn tag(key: &[u8; 32], field: u8, value: &[u8]) -> Tag {
    let mut tag = [0; 16];
    tag.copy_from_slice(&sha256(&[TAG_LABEL, key, &[field], value]).0[..16]);
    tag
}

fn row(group: u64, tag: &Tag, offset: u32) -> Row {
    let mut row = [0; 24];
    row[..4].copy_from_slice(&(group as u32).to_be_bytes());
    row[4..20].copy_from_slice(tag);
    row[20..].copy_from_slice(&offset.to_be_bytes());
    row
}

fn offset_of(index: u64) -> u32 {
    (index % GROUP) as u32
}

fn index_of(row: &Row) -> u64 {
    let (mut group, mut offset) = ([0; 4], [0; 4]);
    group.copy_from_slice(&row[..4]);
    offset.copy_from_slice(&row[20..]);
    u64::from(u32::from_be_bytes(group)) * GROUP + u64::from(u32::from_be_bytes(offset))
}

/// Groups that hold rows of these indexes, newest first.
fn groups(indexes: Range<u64>) -> impl Iterator<Item = u64> {
    (indexes.start / GROUP..indexes.end.div_ceil(GROUP)).rev().filter(move |_| !indexes.is_empty())
}

fn span(earliest: u64, latest: u64) -> Span {
    let mut span = [0; 16];
    span[..8].copy_from_slice(&earliest.to_be_bytes());
    span[8..].copy_from_slice(&latest.to_be_bytes());
    span
}

fn split_span(span: &Span) -> (u64, u64) {
    let (mut earliest, mut latest) = ([0; 8], [0; 8]);
    earliest.copy_from_slice(&span[..8]);
    latest.copy_from_slice(&span[8..]);
    (u64::from_be_bytes(earliest), u64::from_be_bytes(latest))
}

/// A row of the times table as it is summed up: no row of the other table has its length plus one.
fn time_row(block: u64, span: &Span) -> [u8; 25] {
    let mut row = [0; 25];
    row[..8].copy_from_slice(&block.to_be_bytes());
    row[8..24].copy_from_slice(span);
    row
}

/// Adds a row to a sum, or takes it out: exclusive-or is its own inverse.
fn add(sum: &mut [u8; 32], row: &[u8]) {
    for (byte, hash) in sum.iter_mut().zip(sha256(&[row]).0) {
        *byte ^= hash;
    }
}

fn apply(
    sums: &mut redb::Table<'_, u64, &'static [u8; 32]>,
    changes: &BTreeMap<u64, [u8; 32]>,
) -> Result<(), redb::Error> {
    for (batch, change) in changes {
        let mut sum = sums.get(batch)?.map_or([0; 32], |sum| *sum.value());
        for (byte, other) in sum.iter_mut().zip(change) {
            *byte ^= other;
        }
        sums.insert(batch, &sum)?;
    }
    Ok(())
}
