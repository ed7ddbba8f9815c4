//! Side objects: raw quotes, foreign replies, signed notes; whatever an entry refers to by its SHA-256. And kept ones, which
//! no entry refers to: evidence that stands for itself and may be replaced by newer (CRLs).
//!
//! Those of an entry are committed before it and never go; those kept go when they are forgotten.
//! Refuses: handing out bytes that do not hash to their name.

use crate::companion::{Companion, Kind, copy_table};
use crate::error::{Damage, ReadError, StorageFault};
use crate::store::Store;
use bulla_formats::hash::{Hash, sha256};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use std::sync::Arc;

/// SHA-256 of the object to the object.
const OBJECTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("objects-1");

/// The same, of what is kept for its own sake.
const KEPT: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("kept-1");

pub(crate) const NAME: &str = "side.redb";

/// Replies of remote services end up here: bytes that outsiders shape.
const KIND: Kind = Kind { name: NAME, two_phase: true, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(OBJECTS, from, to)?;
    copy_table(KEPT, from, to)
}

type Table = ReadOnlyTable<&'static [u8; 32], &'static [u8]>;

/// A table as it is; `None` in a file from before there was one.
fn table(
    txn: &ReadTransaction,
    which: TableDefinition<&'static [u8; 32], &'static [u8]>,
) -> Result<Option<Table>, redb::Error> {
    match txn.open_table(which) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug)]
pub(crate) struct SideObjects(Companion);

impl SideObjects {
    /// Runs `look` while what the file holds now stays in it; not at all when there is no file.
    pub(crate) fn pinned(&self, mut look: impl FnMut(&str)) -> Result<(), ReadError> {
        self.0.pinned(|| look(NAME))?;
        Ok(())
    }

    pub(crate) fn new(store: Arc<dyn Store>, present: bool, cache_bytes: usize) -> Self {
        Self(Companion::new(store, KIND, present).with_cache(cache_bytes))
    }

    /// Copies all objects into another directory; the name of the file there, if there are any.
    pub(crate) fn copy_to(&self, to: &dyn Store) -> Result<Option<String>, StorageFault> {
        self.0.copy_to(to)
    }

    /// For looking only: reads through an overlay and never writes the file.
    pub(crate) fn frozen(store: Arc<dyn Store>) -> Self {
        Self(Companion::frozen(store, KIND))
    }

    /// Names of the objects whose bytes have another hash.
    pub(crate) fn damaged(&self) -> Result<Vec<Hash>, StorageFault> {
        let damaged = self.0.read(|txn| {
            let mut damaged = Vec::new();
            for which in [OBJECTS, KEPT] {
                let Some(table) = table(txn, which)? else { continue };
                for row in table.iter()? {
                    let (name, object) = row?;
                    let name = Hash(*name.value());
                    if sha256(&[object.value()]) != name {
                        damaged.push(name);
                    }
                }
            }
            Ok(damaged)
        })?;
        Ok(damaged.unwrap_or_default())
    }

    /// Stores objects, durably.
    pub(crate) fn store<'a>(&self, objects: impl Iterator<Item = &'a [u8]>) -> Result<(), StorageFault> {
        let mut objects = objects.peekable();
        if objects.peek().is_none() {
            return Ok(());
        }
        self.0.write(|txn| {
            let mut table = txn.open_table(OBJECTS)?;
            for object in objects {
                table.insert(&sha256(&[object]).0, object)?;
            }
            Ok(())
        })
    }

    /// Keeps an object that no entry refers to, durably, until it is forgotten.
    pub(crate) fn keep(&self, object: &[u8]) -> Result<(), StorageFault> {
        self.0.write(|txn| {
            txn.open_table(KEPT)?.insert(&sha256(&[object]).0, object)?;
            Ok(())
        })
    }

    /// Forgets what is kept, but for these.
    pub(crate) fn keep_only(&self, wanted: &[Hash]) -> Result<(), StorageFault> {
        let unwanted = |name: &[u8; 32]| !wanted.contains(&Hash(*name));
        let surplus = self.0.read(|txn| {
            let Some(table) = table(txn, KEPT)? else { return Ok(false) };
            for row in table.iter()? {
                if unwanted(row?.0.value()) {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        if surplus != Some(true) {
            return Ok(());
        }
        self.0.write(|txn| Ok(txn.open_table(KEPT)?.retain(|name, _| !unwanted(name))?))
    }

    /// After a write of unknown effect: makes durable what is there.
    pub(crate) fn settle(&self) -> Result<(), StorageFault> {
        self.0.settle()
    }

    /// The object with this SHA-256, of an entry or kept.
    pub(crate) fn read(&self, hash: &Hash) -> Result<Option<Vec<u8>>, ReadError> {
        let object = self.0.read(|txn| {
            for which in [OBJECTS, KEPT] {
                let Some(table) = table(txn, which)? else { continue };
                if let Some(object) = table.get(&hash.0)? {
                    return Ok(Some(object.value().to_vec()));
                }
            }
            Ok(None)
        })?;
        match object.flatten() {
            Some(object) if sha256(&[&object]) != *hash => {
                Err(Damage::new(NAME, 0, format!("the object {hash} has another hash")).into())
            }
            object => Ok(object),
        }
    }
}
