//! What logs are asked by, in `hub.redb`.
//!
//! `about-1`: name -> value. `places-1`: id, Lamport time -> index, of every 256th entry. `others-1`: id, index -> kind, of
//! entries that are no seals. `evidence-1`: id, index -> 1 + index of the time evidence that entries name from there on, 0
//! for none. `bounds-1`: id, size, index -> what the anchor at that index proves of the first `size` entries, as JSON.
//! `relations-1`: leaf hash, kind, id, index -> nothing: that entry says this of the entry with that leaf hash.
//!
//! Refuses to do: guess at tables that are not there; the index is then of an earlier version.
//! Invariant: the bounds are all judged by the authorities named beside them.

use super::{Embedded, ORIGINS, QUARANTINE};
use crate::index::IndexError;
use crate::index::catalogue::{Bound, Catalogue, Entries, said_of, said_text};
use bulla_formats::anchoring::Attested;
use bulla_formats::hash::Hash;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about-1");
const PLACES: TableDefinition<(u32, u64), u64> = TableDefinition::new("places-1");
const OTHERS: TableDefinition<(u32, u64), u16> = TableDefinition::new("others-1");
const EVIDENCE: TableDefinition<(u32, u64), u64> = TableDefinition::new("evidence-1");
const BOUNDS: TableDefinition<(u32, u64, u64), &[u8]> = TableDefinition::new("bounds-1");
const RELATIONS: TableDefinition<([u8; 32], u8, u32, u64), ()> = TableDefinition::new("relations-1");

/// Name of the row that says whom the authorities are that `bounds-1` was judged by.
const AUTHORITIES: &str = "authorities";
/// Name of the row that says how far the webhook has been told.
const TOLD: &str = "told";

pub(super) fn create(write: &WriteTransaction) -> Result<(), IndexError> {
    write.open_table(ABOUT)?;
    write.open_table(PLACES)?;
    write.open_table(OTHERS)?;
    write.open_table(EVIDENCE)?;
    write.open_table(BOUNDS)?;
    write.open_table(RELATIONS)?;
    Ok(())
}

pub(super) fn put(write: &WriteTransaction, id: u32, rows: &Entries) -> Result<(), IndexError> {
    let mut places = write.open_table(PLACES)?;
    for (lamport, index) in &rows.places {
        places.insert((id, *lamport), index)?;
    }
    let mut others = write.open_table(OTHERS)?;
    for (index, kind) in &rows.others {
        others.insert((id, *index), kind)?;
    }
    let mut evidence = write.open_table(EVIDENCE)?;
    for (index, named) in &rows.evidence {
        evidence.insert((id, *index), named.map_or(0, |named| named + 1))?;
    }
    let mut relations = write.open_table(RELATIONS)?;
    for (leaf, kind, index) in &rows.relations {
        relations.insert((leaf.0, *kind, id, *index), ())?;
    }
    put_bounds(write, id, &rows.bounds)
}

fn put_bounds(
    write: &WriteTransaction,
    id: u32,
    rows: &[(u64, u64, Vec<Attested>)],
) -> Result<(), IndexError> {
    let mut bounds = write.open_table(BOUNDS)?;
    for (size, index, said) in rows {
        bounds.insert((id, *size, *index), said_text(said).as_bytes())?;
    }
    Ok(())
}

impl Embedded {
    fn about(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.database.begin_read()?.open_table(ABOUT)?.get(name)?.map(|row| row.value().to_vec()))
    }
}

impl Catalogue for Embedded {
    fn is_catalogued(&self) -> Result<bool, IndexError> {
        let names: BTreeSet<String> = {
            use redb::TableHandle as _;
            self.database.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect()
        };
        Ok(names.contains("about-1") && names.contains("relations-1"))
    }

    fn origins(&self) -> Result<BTreeMap<u32, String>, IndexError> {
        let read = self.database.begin_read()?.open_table(ORIGINS)?;
        read.iter()?
            .map(|row| row.map(|(origin, id)| (id.value(), origin.value().to_owned())).map_err(Into::into))
            .collect()
    }

    fn authorities(&self) -> Result<Option<Vec<u8>>, IndexError> {
        self.about(AUTHORITIES)
    }

    fn untold(&self) -> Result<u64, IndexError> {
        let row = self.about(TOLD)?;
        Ok(row.and_then(|row| row.first_chunk().copied()).map_or(0, u64::from_be_bytes))
    }

    fn told(&self, next: u64) -> Result<(), IndexError> {
        let write = self.write()?;
        write.open_table(ABOUT)?.insert(TOLD, &next.to_be_bytes()[..])?;
        Ok(write.commit()?)
    }

    fn judged_by(&self, authorities: &[u8], all: &[(u32, Vec<Bound>)]) -> Result<(), IndexError> {
        let write = self.write()?;
        write.open_table(BOUNDS)?.retain(|_, _| false)?;
        for (id, rows) in all {
            put_bounds(&write, *id, rows)?;
        }
        write.open_table(ABOUT)?.insert(AUTHORITIES, authorities)?;
        Ok(write.commit()?)
    }

    fn bounds(&self, id: u32) -> Result<Vec<Bound>, IndexError> {
        let read = self.database.begin_read()?.open_table(BOUNDS)?;
        read.range((id, 0, 0)..=(id, u64::MAX, u64::MAX))?
            .map(|row| {
                let (key, value) = row?;
                let (_, size, index) = key.value();
                Ok((size, index, said_of(value.value())?))
            })
            .collect()
    }

    fn evidence(&self, id: u32) -> Result<Vec<(u64, Option<u64>)>, IndexError> {
        let read = self.database.begin_read()?.open_table(EVIDENCE)?;
        read.range((id, 0)..=(id, u64::MAX))?
            .map(|row| {
                let (key, value) = row?;
                Ok((key.value().1, value.value().checked_sub(1)))
            })
            .collect()
    }

    fn at_lamport(&self, id: u32, lamport: u64) -> Result<u64, IndexError> {
        let read = self.database.begin_read()?.open_table(PLACES)?;
        let before = read.range((id, 0)..=(id, lamport))?.next_back();
        Ok(before.transpose()?.map_or(0, |(_, index)| index.value()))
    }

    fn next_of_kind(&self, id: u32, kind: u16, range: Range<u64>) -> Result<Option<u64>, IndexError> {
        let read = self.database.begin_read()?.open_table(OTHERS)?;
        for row in read.range((id, range.start)..(id, range.end))? {
            let (key, found) = row?;
            if found.value() == kind {
                return Ok(Some(key.value().1));
            }
        }
        Ok(None)
    }

    fn quarantined_in(&self, id: u32, range: Range<u64>) -> Result<BTreeSet<u64>, IndexError> {
        let read = self.database.begin_read()?.open_table(QUARANTINE)?;
        read.range((id, range.start)..(id, range.end))?
            .map(|row| row.map(|(key, _)| key.value().1).map_err(Into::into))
            .collect()
    }

    fn relations(&self, leaf: &Hash, most: usize) -> Result<Vec<(u8, u32, u64)>, IndexError> {
        let read = self.database.begin_read()?.open_table(RELATIONS)?;
        read.range((leaf.0, 0, 0, 0)..=(leaf.0, u8::MAX, u32::MAX, u64::MAX))?
            .take(most)
            .map(|row| {
                let (_, kind, id, index) = row?.0.value();
                Ok((kind, id, index))
            })
            .collect()
    }
}
