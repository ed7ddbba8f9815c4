//! Control: what must be durable *outside* the log: the counter intent, the journal of states that cannot be
//! logged (disk full, rollback suspected), and small named values.
//!
//! The intent is committed before the TPM counter is incremented, so that at start "database = counter + 1" means a
//! crash in between and "database < counter" means an older disk.
//!
//! Refuses: nothing that fits; bounds are the callers'. Each write is one durable two-phase transaction, because
//! nothing in here is verified against hashes at start.

use crate::companion::{Companion, Kind, copy_table};
use crate::error::{Damage, ReadError, StorageFault};
use crate::store::Store;
use bulla_formats::hash::Hash;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use std::sync::Arc;

/// One row under key 0: counter u64, size u64, root 32.
const INTENT: TableDefinition<u8, &[u8; INTENT_BYTES]> = TableDefinition::new("intent-1");
/// Sequence number to (milliseconds since 1970, text).
const JOURNAL: TableDefinition<u64, (u64, &str)> = TableDefinition::new("journal-1");
/// Name to bytes.
const VALUES: TableDefinition<&str, &[u8]> = TableDefinition::new("values-1");

pub(crate) const NAME: &str = "control.redb";
const INTENT_BYTES: usize = 8 + 8 + 32;

const KIND: Kind = Kind { name: NAME, two_phase: true, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(INTENT, from, to)?;
    copy_table(JOURNAL, from, to)?;
    copy_table(VALUES, from, to)
}

/// "The counter is about to become `counter`, over this tree."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// Value that the TPM counter will have.
    pub counter: u64,
    /// Entries in the log when the intent was committed.
    pub size: u64,
    /// Root of that tree.
    pub root: Hash,
}

/// A journal line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    /// Position in the journal, from 0.
    pub sequence: u64,
    /// Local time, milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub text: String,
}

/// Handle to the control database; clones share it.
#[derive(Debug, Clone)]
pub struct Control(Arc<Companion>);

impl Control {
    /// Runs `look` while what the file holds now stays in it; not at all when there is no file.
    pub(crate) fn pinned(&self, mut look: impl FnMut(&str)) -> Result<(), ReadError> {
        self.0.pinned(|| look(NAME))?;
        Ok(())
    }

    pub(crate) fn new(store: Arc<dyn Store>, present: bool) -> Self {
        Self(Arc::new(Companion::new(store, KIND, present)))
    }

    /// Copies everything into another directory; the name of the file there, if there is one.
    pub(crate) fn copy_to(&self, to: &dyn Store) -> Result<Option<String>, StorageFault> {
        self.0.copy_to(to)
    }

    /// The last committed intent.
    pub fn intent(&self) -> Result<Option<Intent>, ReadError> {
        let row = self.0.read(|txn| Ok(txn.open_table(INTENT)?.get(0)?.map(|row| *row.value())))?;
        let Some(row) = row.flatten() else { return Ok(None) };
        let damaged = || Damage::new(NAME, 0, "the intent row is malformed");
        let (counter, rest) = row.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (size, root) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        Ok(Some(Intent {
            counter: u64::from_be_bytes(*counter),
            size: u64::from_be_bytes(*size),
            root: Hash::from_slice(root).ok_or_else(damaged)?,
        }))
    }

    /// Replaces the intent, durably.
    pub fn commit_intent(&self, intent: Intent) -> Result<(), StorageFault> {
        let mut row = [0; INTENT_BYTES];
        row[..8].copy_from_slice(&intent.counter.to_be_bytes());
        row[8..16].copy_from_slice(&intent.size.to_be_bytes());
        row[16..].copy_from_slice(&intent.root.0);
        self.0.write(|txn| {
            txn.open_table(INTENT)?.insert(0, &row)?;
            Ok(())
        })
    }

    /// Adds a line to the journal, durably.
    pub fn journal(&self, at_ms: u64, text: &str) -> Result<(), StorageFault> {
        self.0.write(|txn| {
            let mut journal = txn.open_table(JOURNAL)?;
            let next = journal.last()?.map_or(0, |(sequence, _)| sequence.value() + 1);
            journal.insert(next, (at_ms, text))?;
            Ok(())
        })
    }

    /// Journal lines from `sequence` on, at most `limit`.
    pub fn journal_rows(&self, sequence: u64, limit: usize) -> Result<Vec<JournalRow>, StorageFault> {
        let rows = self.0.read(|txn| {
            let mut rows = Vec::new();
            for row in txn.open_table(JOURNAL)?.range(sequence..)?.take(limit) {
                let (sequence, row) = row?;
                let (at_ms, text) = row.value();
                rows.push(JournalRow { sequence: sequence.value(), at_ms, text: text.to_owned() });
            }
            Ok(rows)
        })?;
        Ok(rows.unwrap_or_default())
    }

    /// Stores a named value, durably; replaces an earlier one.
    pub fn put(&self, name: &str, value: &[u8]) -> Result<(), StorageFault> {
        self.0.write(|txn| {
            txn.open_table(VALUES)?.insert(name, value)?;
            Ok(())
        })
    }

    /// The named value.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StorageFault> {
        let value =
            self.0.read(|txn| Ok(txn.open_table(VALUES)?.get(name)?.map(|value| value.value().to_vec())))?;
        Ok(value.flatten())
    }
}
