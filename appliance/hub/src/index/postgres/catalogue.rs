//! What logs are asked by, as statements.
//!
//! Refuses to do: fetch row by row what one statement can. Invariant: the bounds are all judged by the authorities named
//! beside them.

use super::{Postgres, Trouble, column, got, put};
use crate::index::IndexError;
use crate::index::catalogue::{Bound, Catalogue, Entries, said_of, said_text};
use bulla_formats::hash::Hash;
use postgres::Transaction;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Name of the row that says whom the authorities are that bounds were judged by.
const AUTHORITIES: &str = "authorities";
/// Name of the row that says how far the webhook has been told.
const TOLD: &str = "told";
const PUT_ABOUT: &str =
    "INSERT INTO about VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Puts the rows of a step.
pub(super) fn add(change: &mut Transaction<'_>, log: u32, rows: &Entries) -> Result<(), Trouble> {
    let id = log as i32;
    if !rows.places.is_empty() {
        let (lamports, at) = (column(&rows.places, |row| row.0), column(&rows.places, |row| row.1));
        change.execute(
            "INSERT INTO places SELECT DISTINCT ON (l) $1::integer, l, i \
             FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS t (l, i, n) ORDER BY l, n DESC \
             ON CONFLICT (log, lamport) DO UPDATE SET index = excluded.index",
            &[&id, &lamports, &at],
        )?;
    }
    if !rows.others.is_empty() {
        let kinds: Vec<i32> = rows.others.iter().map(|(_, kind)| i32::from(*kind)).collect();
        change.execute(
            "INSERT INTO others SELECT $1::integer, i, k FROM unnest($2::bigint[], $3::integer[]) AS t (i, k) \
             ON CONFLICT (log, index) DO UPDATE SET kind = excluded.kind",
            &[&id, &column(&rows.others, |row| row.0), &kinds],
        )?;
    }
    if !rows.evidence.is_empty() {
        let named: Vec<Option<i64>> = rows.evidence.iter().map(|(_, named)| named.map(put)).collect();
        change.execute(
            "INSERT INTO evidence SELECT $1::integer, i, e FROM unnest($2::bigint[], $3::bigint[]) AS t (i, e) \
             ON CONFLICT (log, index) DO UPDATE SET named = excluded.named",
            &[&id, &column(&rows.evidence, |row| row.0), &named],
        )?;
    }
    if !rows.relations.is_empty() {
        let leaves: Vec<&[u8]> = rows.relations.iter().map(|(leaf, ..)| &leaf.0[..]).collect();
        let kinds: Vec<i16> = rows.relations.iter().map(|(_, kind, _)| i16::from(*kind)).collect();
        change.execute(
            "INSERT INTO relations SELECT l, k, $1::integer, i FROM unnest($2::bytea[], $3::smallint[], $4::bigint[]) \
             AS t (l, k, i) ON CONFLICT DO NOTHING",
            &[&id, &leaves, &kinds, &column(&rows.relations, |row| row.2)],
        )?;
    }
    add_bounds(change, log, &rows.bounds)
}

fn add_bounds(change: &mut Transaction<'_>, log: u32, rows: &[Bound]) -> Result<(), Trouble> {
    if rows.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = rows.iter().map(|(_, _, said)| said_text(said)).collect();
    change.execute(
        "INSERT INTO bounds SELECT $1::integer, s, i, w::json FROM unnest($2::bigint[], $3::bigint[], $4::text[]) AS t (s, i, w) \
         ON CONFLICT (log, size, index) DO UPDATE SET said = excluded.said",
        &[&(log as i32), &column(rows, |row| row.0), &column(rows, |row| row.1), &said],
    )?;
    Ok(())
}

impl Postgres {
    fn about(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
        self.attempt(|client| {
            let row = client.query_opt("SELECT value FROM about WHERE name = $1", &[&name])?;
            Ok(row.map(|row| row.get(0)))
        })
    }
}

impl Catalogue for Postgres {
    fn is_catalogued(&self) -> Result<bool, IndexError> {
        // Every version of its tables has been.
        Ok(true)
    }

    fn origins(&self) -> Result<BTreeMap<u32, String>, IndexError> {
        self.attempt(|client| {
            let rows = client.query("SELECT id, origin FROM logs", &[])?;
            Ok(rows.iter().map(|row| (row.get::<_, i32>(0) as u32, row.get(1))).collect())
        })
    }

    fn authorities(&self) -> Result<Option<Vec<u8>>, IndexError> {
        self.about(AUTHORITIES)
    }

    fn untold(&self) -> Result<u64, IndexError> {
        let row = self.about(TOLD)?;
        Ok(row.and_then(|row| row.first_chunk().copied()).map_or(0, u64::from_be_bytes))
    }

    fn told(&self, next: u64) -> Result<(), IndexError> {
        self.change(|change| {
            change.execute(PUT_ABOUT, &[&TOLD, &&next.to_be_bytes()[..]])?;
            Ok(())
        })
    }

    fn judged_by(&self, authorities: &[u8], all: &[(u32, Vec<Bound>)]) -> Result<(), IndexError> {
        self.change(|change| {
            change.execute("DELETE FROM bounds", &[])?;
            for (log, rows) in all {
                add_bounds(change, *log, rows)?;
            }
            change.execute(PUT_ABOUT, &[&AUTHORITIES, &authorities])?;
            Ok(())
        })
    }

    fn bounds(&self, id: u32) -> Result<Vec<Bound>, IndexError> {
        let ask = "SELECT size, index, said::text FROM bounds WHERE log = $1 ORDER BY size, index";
        self.attempt(|client| {
            let mut bounds = Vec::new();
            for row in client.query(ask, &[&(id as i32)])? {
                bounds.push((got(row.get(0)), got(row.get(1)), said_of(row.get::<_, &str>(2).as_bytes())?));
            }
            Ok(bounds)
        })
    }

    fn evidence(&self, id: u32) -> Result<Vec<(u64, Option<u64>)>, IndexError> {
        let ask = "SELECT index, named FROM evidence WHERE log = $1 ORDER BY index";
        self.attempt(|client| {
            let rows = client.query(ask, &[&(id as i32)])?;
            Ok(rows.iter().map(|row| (got(row.get(0)), row.get::<_, Option<i64>>(1).map(got))).collect())
        })
    }

    fn at_lamport(&self, id: u32, lamport: u64) -> Result<u64, IndexError> {
        let ask = "SELECT index FROM places WHERE log = $1 AND lamport <= $2 ORDER BY lamport DESC LIMIT 1";
        self.attempt(|client| {
            let row = client.query_opt(ask, &[&(id as i32), &put(lamport)])?;
            Ok(row.map_or(0, |row| got(row.get(0))))
        })
    }

    fn next_of_kind(&self, id: u32, kind: u16, range: Range<u64>) -> Result<Option<u64>, IndexError> {
        let ask = "SELECT index FROM others WHERE log = $1 AND kind = $2 AND index >= $3 AND index < $4 \
                   ORDER BY index LIMIT 1";
        self.attempt(|client| {
            let ends = (put(range.start), put(range.end));
            let row = client.query_opt(ask, &[&(id as i32), &i32::from(kind), &ends.0, &ends.1])?;
            Ok(row.map(|row| got(row.get(0))))
        })
    }

    fn quarantined_in(&self, id: u32, range: Range<u64>) -> Result<BTreeSet<u64>, IndexError> {
        let ask = "SELECT index FROM quarantine WHERE log = $1 AND index >= $2 AND index < $3";
        self.attempt(|client| {
            let rows = client.query(ask, &[&(id as i32), &put(range.start), &put(range.end)])?;
            Ok(rows.iter().map(|row| got(row.get(0))).collect())
        })
    }

    fn relations(&self, leaf: &Hash, most: usize) -> Result<Vec<(u8, u32, u64)>, IndexError> {
        let ask = "SELECT kind, log, index FROM relations WHERE leaf = $1 ORDER BY kind, log, index LIMIT $2";
        self.attempt(|client| {
            let rows = client.query(ask, &[&&leaf.0[..], &put(most as u64)])?;
            let of = |row: &postgres::Row| {
                (row.get::<_, i16>(0) as u8, row.get::<_, i32>(1) as u32, got(row.get(2)))
            };
            Ok(rows.iter().map(of).collect())
        })
    }
}
