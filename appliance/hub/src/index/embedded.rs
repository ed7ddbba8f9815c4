//! The index in one file, `hub.redb` in the state directory.
//!
//! Integers big-endian. `origins-1`: origin -> id u32. `logs-1`: id -> JSON of [`LogState`]. `audits-1`: id -> the saved
//! audit. `boundaries-1`: id, size u64 -> root. `digests-1`: algorithm u8, digest, id, index u64 -> nothing. `marks-1`: id, what u8, a
//! u64, index u64 -> b u64. `erased-1`: id, leaf hash -> index. `quarantine-1`: id, index -> reason. `findings-1`: number ->
//! JSON line. `found-1`: key of a finding -> number. What logs are asked by: `embedded/catalogue.rs`.
//!
//! Refuses to do: share the file with another command; wait for one for longer than half a minute.
//! Invariant: what was written was committed in two phases, for boxes shape it and nothing verifies it at a start.

mod catalogue;

use super::{
    Found, Index, IndexError, Kept, LogState, Mark, PATIENCE, Rows, duplicate, finding_of, state_of,
    state_text,
};
use crate::finding::Finding;
use crate::index::catalogue::Catalogue as _;
use bulla_formats::audit::BOUNDARIES_MAX;
use bulla_formats::body::seal::DigestAlgorithm;
use bulla_formats::hash::Hash;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const ORIGINS: TableDefinition<&str, u32> = TableDefinition::new("origins-1");
const LOGS: TableDefinition<u32, &[u8]> = TableDefinition::new("logs-1");
const AUDITS: TableDefinition<u32, &[u8]> = TableDefinition::new("audits-1");
const BOUNDARIES: TableDefinition<(u32, u64), [u8; 32]> = TableDefinition::new("boundaries-1");
const DIGESTS: TableDefinition<&[u8], ()> = TableDefinition::new("digests-1");
const MARKS: TableDefinition<(u32, u8, u64, u64), u64> = TableDefinition::new("marks-1");
const ERASED: TableDefinition<(u32, [u8; 32]), u64> = TableDefinition::new("erased-1");
const QUARANTINE: TableDefinition<(u32, u64), &str> = TableDefinition::new("quarantine-1");
const FINDINGS: TableDefinition<u64, &[u8]> = TableDefinition::new("findings-1");
const FOUND: TableDefinition<[u8; 32], u64> = TableDefinition::new("found-1");

/// Name of the index in the state directory.
const FILE: &str = "hub.redb";
/// Directory in the state directory where an index is made that takes the place of another.
const BESIDE: &str = "reindex";

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for IndexError {
            fn from(error: $error) -> Self {
                IndexError::Store(error.to_string())
            }
        })*
    };
}
from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// The index.
pub struct Embedded {
    database: Database,
}

impl Embedded {
    /// Makes an empty one, of which at most `cache` bytes are kept in memory.
    pub fn create(directory: &Path, cache: usize) -> Result<Self, IndexError> {
        let path = directory.join(FILE);
        if path.exists() {
            return Err(IndexError::Exists(path.display().to_string()));
        }
        let made = Database::builder().set_cache_size(cache).create(&path);
        let database = made.map_err(|error| IndexError::Open { path, reason: error.to_string() })?;
        let write = database.begin_write()?;
        write.open_table(ORIGINS)?;
        write.open_table(LOGS)?;
        write.open_table(AUDITS)?;
        write.open_table(BOUNDARIES)?;
        write.open_table(DIGESTS)?;
        write.open_table(MARKS)?;
        write.open_table(ERASED)?;
        write.open_table(QUARANTINE)?;
        write.open_table(FINDINGS)?;
        write.open_table(FOUND)?;
        catalogue::create(&write)?;
        write.commit()?;
        Ok(Embedded { database })
    }

    /// Opens the one that is there, with as much memory.
    pub fn open(directory: &Path, cache: usize) -> Result<Self, IndexError> {
        let path = directory.join(FILE);
        let end = Instant::now() + PATIENCE;
        let opened = loop {
            match Database::builder().set_cache_size(cache).open(&path) {
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(DatabaseError::DatabaseAlreadyOpen) => {
                    return Err(IndexError::Busy(path.display().to_string()));
                }
                opened => break opened,
            }
        };
        let database = opened.map_err(|error| IndexError::Open { path, reason: error.to_string() })?;
        database.begin_read()?.open_table(ORIGINS)?;
        Ok(Embedded { database })
    }

    /// Makes an empty one beside the one that is in force.
    pub fn begin_again(state_dir: &Path, cache: usize) -> Result<Self, IndexError> {
        let directory = state_dir.join(BESIDE);
        let unusable = |source| IndexError::Directory { path: directory.clone(), source };
        if directory.exists() {
            std::fs::remove_dir_all(&directory).map_err(unusable)?;
        }
        std::fs::create_dir_all(&directory).map_err(unusable)?;
        Self::create(&directory, cache)
    }

    /// Puts it in the place of the old one.
    pub fn take_over(state_dir: &Path) -> Result<(), IndexError> {
        let unusable = |source| IndexError::Directory { path: state_dir.to_owned(), source };
        let directory = state_dir.join(BESIDE);
        std::fs::rename(directory.join(FILE), state_dir.join(FILE)).map_err(unusable)?;
        std::fs::remove_dir(&directory).map_err(unusable)?;
        std::fs::File::open(state_dir).and_then(|directory| directory.sync_all()).map_err(unusable)
    }

    fn write(&self) -> Result<WriteTransaction, IndexError> {
        let mut write = self.database.begin_write()?;
        // Boxes shape what is written: see the ledger's choice.
        write.set_two_phase_commit(true);
        Ok(write)
    }
}

impl Index for Embedded {
    fn exclusive(&self) -> Result<(), IndexError> {
        // Whoever has it open has it alone.
        Ok(())
    }

    fn id(&self, origin: &str) -> Result<u32, IndexError> {
        if let Some(id) = self.known(origin)? {
            return Ok(id);
        }
        let write = self.write()?;
        let id = {
            let mut origins = write.open_table(ORIGINS)?;
            let known = origins.get(origin)?.map(|id| id.value());
            match known {
                Some(id) => id,
                None => {
                    let id = origins.iter()?.count() as u32;
                    origins.insert(origin, id)?;
                    id
                }
            }
        };
        write.commit()?;
        Ok(id)
    }

    fn known(&self, origin: &str) -> Result<Option<u32>, IndexError> {
        Ok(self.database.begin_read()?.open_table(ORIGINS)?.get(origin)?.map(|id| id.value()))
    }

    fn state(&self, id: u32) -> Result<LogState, IndexError> {
        let read = self.database.begin_read()?.open_table(LOGS)?;
        match read.get(id)? {
            None => Ok(LogState::default()),
            Some(row) => state_of(row.value()),
        }
    }

    fn audit(&self, id: u32) -> Result<Option<(Vec<u8>, Vec<(u64, Hash)>)>, IndexError> {
        let read = self.database.begin_read()?;
        let Some(saved) = read.open_table(AUDITS)?.get(id)?.map(|row| row.value().to_vec()) else {
            return Ok(None);
        };
        let mut boundaries = Vec::new();
        for row in read.open_table(BOUNDARIES)?.range((id, 0)..=(id, u64::MAX))?.rev().take(BOUNDARIES_MAX) {
            let (key, root) = row?;
            boundaries.push((key.value().1, Hash(root.value())));
        }
        boundaries.reverse();
        Ok(Some((saved, boundaries)))
    }

    fn newest_boundary(&self, id: u32) -> Result<u64, IndexError> {
        let read = self.database.begin_read()?.open_table(BOUNDARIES)?;
        let newest = read.range((id, 0)..=(id, u64::MAX))?.next_back();
        Ok(newest.transpose()?.map_or(0, |(key, _)| key.value().1))
    }

    fn step(
        &self,
        id: u32,
        state: &LogState,
        audit: Option<&[u8]>,
        rows: &Rows,
        now_millis: u64,
    ) -> Result<Vec<Value>, IndexError> {
        let write = self.write()?;
        let mut findings = rows.findings.clone();
        {
            let mut digests = write.open_table(DIGESTS)?;
            for (algorithm, digest, index) in &rows.digests {
                let key = digest_key(*algorithm, digest, id, *index);
                let prefix = &key[..key.len() - 12];
                let others = digests.range(prefix..)?.map_while(|row| {
                    let key = row.ok()?.0.value().to_vec();
                    key.starts_with(prefix).then_some(key)
                });
                let elsewhere = others.into_iter().any(|other| split(&other).is_some_and(|(of, _)| of != id));
                if elsewhere {
                    findings.push(duplicate(*algorithm, digest));
                }
                digests.insert(key.as_slice(), ())?;
            }
            let mut marks = write.open_table(MARKS)?;
            for (mark, a, index, b) in &rows.marks {
                marks.insert((id, *mark as u8, *a, *index), b)?;
            }
            let mut erased = write.open_table(ERASED)?;
            for (leaf, index) in &rows.erased {
                erased.insert((id, leaf.0), index)?;
            }
            let mut quarantine = write.open_table(QUARANTINE)?;
            for (index, reason) in &rows.quarantined {
                quarantine.insert((id, *index), reason.as_str())?;
            }
            let mut boundaries = write.open_table(BOUNDARIES)?;
            for (size, root) in &rows.boundaries {
                boundaries.insert((id, *size), root.0)?;
            }
            boundaries.retain_in((id, 0)..(id, rows.oldest_boundary), |_, _| false)?;
            catalogue::put(&write, id, &rows.catalogue)?;
            if let Some(audit) = audit {
                write.open_table(AUDITS)?.insert(id, audit)?;
            }
            write.open_table(LOGS)?.insert(id, state_text(state)?.as_bytes())?;
        }
        let new = add_findings(&write, &findings, now_millis)?;
        write.commit()?;
        Ok(new)
    }

    fn found(&self, findings: &[Finding], now_millis: u64) -> Result<Vec<Value>, IndexError> {
        if findings.is_empty() {
            return Ok(Vec::new());
        }
        let write = self.write()?;
        let new = add_findings(&write, findings, now_millis)?;
        write.commit()?;
        Ok(new)
    }

    fn findings(&self, from: u64) -> Result<Vec<Value>, IndexError> {
        let read = self.database.begin_read()?.open_table(FINDINGS)?;
        read.range(from..)?.map(|row| finding_of(row?.1.value())).collect()
    }

    fn find(&self, algorithm: DigestAlgorithm, digest: &[u8]) -> Result<Vec<Found>, IndexError> {
        let read = self.database.begin_read()?;
        let names = self.origins()?;
        let (first, last) =
            (digest_key(algorithm, digest, 0, 0), digest_key(algorithm, digest, u32::MAX, u64::MAX));
        let digests = read.open_table(DIGESTS)?;
        let mut found = Vec::new();
        for row in digests.range(first.as_slice()..=last.as_slice())? {
            let row = row?;
            let (id, index) =
                split(row.0.value()).ok_or(IndexError::Damaged("a row of a digest is too short"))?;
            let origin = names.get(&id).cloned().ok_or(IndexError::Damaged("a log has no name"))?;
            found.push(Found { origin, index });
        }
        found.sort_by(|a, b| (&a.origin, a.index).cmp(&(&b.origin, b.index)));
        Ok(found)
    }

    fn marks(&self, id: u32, mark: Mark, from: u64, most: usize) -> Result<Vec<(u64, u64, u64)>, IndexError> {
        let read = self.database.begin_read()?.open_table(MARKS)?;
        let mark = mark as u8;
        let rows = read.range((id, mark, from, 0)..=(id, mark, u64::MAX, u64::MAX))?;
        rows.take(most)
            .map(|row| {
                let (key, b) = row?;
                let (_, _, a, index) = key.value();
                Ok((a, index, b.value()))
            })
            .collect()
    }

    fn erased(&self, id: u32, leaf: &Hash) -> Result<Option<u64>, IndexError> {
        Ok(self.database.begin_read()?.open_table(ERASED)?.get((id, leaf.0))?.map(|row| row.value()))
    }

    fn quarantined(&self, id: u32, index: u64) -> Result<Option<String>, IndexError> {
        let read = self.database.begin_read()?.open_table(QUARANTINE)?;
        Ok(read.get((id, index))?.map(|row| row.value().to_owned()))
    }

    fn kept(&self) -> Result<Kept, IndexError> {
        let read = self.database.begin_read()?;
        let mut keys = BTreeMap::new();
        for row in read.open_table(FOUND)?.iter()? {
            let (key, number) = row?;
            keys.insert(number.value(), key.value());
        }
        let mut kept = Kept::default();
        for row in read.open_table(FINDINGS)?.iter()? {
            let (number, line) = row?;
            let key = keys.get(&number.value()).ok_or(IndexError::Damaged("a finding has no key"))?;
            let line = String::from_utf8(line.value().to_vec())
                .map_err(|_| IndexError::Damaged("a finding is not understood"))?;
            kept.findings.push((number.value(), *key, line));
        }
        if self.is_catalogued()? {
            kept.told = self.untold()?;
        }
        Ok(kept)
    }

    fn adopt(&self, kept: &Kept) -> Result<(), IndexError> {
        let write = self.write()?;
        {
            let (mut findings, mut found) = (write.open_table(FINDINGS)?, write.open_table(FOUND)?);
            for (number, key, line) in &kept.findings {
                findings.insert(number, line.as_bytes())?;
                found.insert(key, number)?;
            }
        }
        write.commit()?;
        self.told(kept.told)
    }
}

fn add_findings(
    write: &WriteTransaction,
    findings: &[Finding],
    now_millis: u64,
) -> Result<Vec<Value>, IndexError> {
    let mut rows = write.open_table(FINDINGS)?;
    let mut found = write.open_table(FOUND)?;
    let mut next = rows.last()?.map_or(0, |(seq, _)| seq.value() + 1);
    let mut new = Vec::new();
    for finding in findings {
        let key = finding.key().0;
        if found.get(key)?.is_none() {
            let line = finding.to_json(next, now_millis);
            rows.insert(next, line.to_string().as_bytes())?;
            found.insert(key, next)?;
            next += 1;
            new.push(line);
        }
    }
    Ok(new)
}

fn digest_key(algorithm: DigestAlgorithm, digest: &[u8], id: u32, index: u64) -> Vec<u8> {
    let mut key = vec![algorithm as u8];
    key.extend_from_slice(digest);
    key.extend_from_slice(&id.to_be_bytes());
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// Log and index at the end of a digest's key.
fn split(key: &[u8]) -> Option<(u32, u64)> {
    let (rest, index) = key.split_last_chunk::<8>()?;
    let (_, id) = rest.split_last_chunk::<4>()?;
    Some((u32::from_be_bytes(*id), u64::from_be_bytes(*index)))
}
