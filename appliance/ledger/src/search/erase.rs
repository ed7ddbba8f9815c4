//! Erasing tags: the file is copied without them, beside whoever searches.
//!
//! Refuses: to take the room that seals need for the second file; then the first one is removed, and built again.
//! Invariants: the file is as it was until the copy takes its name; while it is copied nobody writes to it, and rows
//! that come gather in memory. A copy of a file that was given up meanwhile is thrown away.

use super::{BATCH, META, NAME, Row, SUMS, SearchIndex, State, TAGS, TIMES, add, apply, guarded, index_of};
use crate::companion::{Companion, NEW, copy_table};
use crate::error::{During, ReadError, StorageFault};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rows copied between two looks at whether to stop.
const STOP_ROWS: usize = 4096;

impl SearchIndex {
    /// Takes the values that these entries were found by out of memory and out of every byte of the file, which is written
    /// anew beside whoever searches. Their openings must be erased before: what an entry says without them is entered
    /// again. `stopped` is asked now and then; once it says so, this ends with `false` and the file as it was.
    ///
    /// One caller at a time.
    pub fn erase(&self, indexes: &BTreeSet<u64>, stopped: &dyn Fn() -> bool) -> Result<bool, ReadError> {
        let mut state = self.lock();
        let loaded = self.loaded(&mut state)?;
        let (stored, next) = (loaded.stored, loaded.next);
        loaded.rows.retain(|row| !indexes.contains(&index_of(row)));
        let mut kept = Vec::new();
        for index in indexes.iter().filter(|index| **index < next) {
            match self.reader.entry(*index) {
                Ok(entry) => drop(self.describe(&mut kept, &loaded.key, *index, &entry)?),
                // As when it was taken in: nobody can be shown this one.
                Err(ReadError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let (filed, fresh): (Vec<Row>, Vec<Row>) = kept.into_iter().partition(|row| index_of(row) < stored);
        loaded.rows.extend(fresh);
        if indexes.range(..stored).next().is_none() {
            return Ok(true);
        }
        state.rewriting = true;
        let file = Arc::clone(&state.file);
        drop(state);
        let composed = self.room_to_rewrite().and_then(|()| {
            guarded(|| file.compose(|from, to| copy_without(from, to, indexes, &filed, stopped)))
        });
        let mut state = self.lock();
        state.rewriting = false;
        let given_up = !Arc::ptr_eq(&state.file, &file);
        let adopted = match composed {
            Ok(Some(composed)) if given_up || stopped() => {
                composed.abandon();
                Ok(())
            }
            Ok(Some(composed)) => return self.adopted(&mut state, &file, guarded(|| file.adopt(composed))),
            Ok(None) => Ok(()),
            Err(fault) => Err(fault),
        };
        let store = self.reader.store();
        // What is left of the attempt is removed by the next start at the latest.
        let _ = store.remove(&format!("{NAME}{NEW}")).and_then(|()| store.sync_dir());
        if stopped() {
            return Ok(false);
        }
        if given_up { Ok(true) } else { self.adopted(&mut state, &file, adopted) }
    }

    /// Without the file, and with new ones built from entries whose openings are gone, erased values are gone too.
    fn adopted(
        &self,
        state: &mut State,
        file: &Arc<Companion>,
        adopted: Result<(), StorageFault>,
    ) -> Result<bool, ReadError> {
        let Err(fault) = adopted else { return Ok(true) };
        self.discard(state, &fault);
        if Arc::ptr_eq(&state.file, file) { Err(fault.into()) } else { Ok(true) }
    }

    /// A second file of the size of this one must not take the room that seals need.
    fn room_to_rewrite(&self) -> Result<(), StorageFault> {
        let store = self.reader.store();
        let size = store.open(NAME).and_then(|file| file.len()).during("open", NAME)?;
        self.room_for(size)
    }
}

/// Copies the file without the tags of `indexes` and with the rows `kept`; an error once `stopped` says so.
fn copy_without(
    from: &ReadTransaction,
    to: &WriteTransaction,
    indexes: &BTreeSet<u64>,
    kept: &[Row],
    stopped: &dyn Fn() -> bool,
) -> Result<(), redb::Error> {
    copy_table(TIMES, Some(from), to)?;
    copy_table(SUMS, Some(from), to)?;
    copy_table(META, Some(from), to)?;
    let mut changes: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
    let mut tags = to.open_table(TAGS)?;
    for (count, each) in from.open_table(TAGS)?.iter()?.enumerate() {
        let row = *each?.0.value();
        let index = index_of(&row);
        if indexes.contains(&index) {
            add(changes.entry(index / BATCH).or_default(), &row);
        } else {
            tags.insert(&row, ())?;
        }
        if count % STOP_ROWS == 0 && stopped() {
            return Err(std::io::Error::other("the box stops").into());
        }
    }
    for row in kept {
        tags.insert(row, ())?;
        add(changes.entry(index_of(row) / BATCH).or_default(), row);
    }
    apply(&mut to.open_table(SUMS)?, &changes)
}
