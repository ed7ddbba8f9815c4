//! The index (`hub.redb`): how far each log has been pulled, what stands where, what was found. All of it can be made
//! again from the archive's logs by pulling.
//!
//! Integers big-endian. `origins-1`: origin -> id u32. `logs-1`: id -> JSON of [`LogState`]. `audits-1`: id -> the saved
//! audit. `boundaries-1`: id, size u64 -> root. `digests-1`: algorithm u8, digest, id, index u64 -> nothing. `marks-1`: id, what u8, a
//! u64, index u64 -> b u64. `erased-1`: id, leaf hash -> index. `quarantine-1`: id, index -> reason. `findings-1`: number ->
//! JSON line. `found-1`: key of a finding -> number. What logs are asked by: `index/catalogue.rs`.
//!
//! Refuses to do: open an index of another version, or make one where none is expected.
//! Invariant: a step of a pull is one transaction: all of it is there, or nothing.

pub mod catalogue;

use crate::finding::Finding;
use bulla_formats::audit::BOUNDARIES_MAX;
use bulla_formats::body::seal::DigestAlgorithm;
use bulla_formats::hash::Hash;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
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

/// How long another command that has the index open is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Name of the index in the state directory.
pub const FILE: &str = "hub.redb";

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is not there, or somebody else has it open.
    #[error(
        "the index {path} cannot be opened ({reason}); `bulla-hub init` makes it; one command at a time may have it open"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another command has it open.
    #[error("the index {0} is in use by another command; wait for it, then try again")]
    Busy(PathBuf),
    /// There is one already.
    #[error("there is an index at {0} already; nothing was changed")]
    Exists(PathBuf),
    /// Reading or writing failed.
    #[error("the index cannot be read or written ({0}); check the disk, then pull again")]
    Store(String),
    /// A row is not what it must be.
    #[error("the index is damaged: {0}; move hub.redb away, `bulla-hub init`, and pull again")]
    Damaged(&'static str),
}

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

/// What stands at an index of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A key-epoch entry; `a` is the epoch.
    Epoch = 1,
    /// An attestation with a quote; `a` is the size of its head.
    Attestation = 2,
    /// An anchor; `a` is the size of its head.
    Anchor = 3,
    /// A manifest; `a` is the size of its head, `b` its first entry.
    Manifest = 4,
    /// What neighbours mirror; `a` is the size of a head that one of them holds.
    Mirror = 5,
}

/// What is known of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogState {
    /// The newest head all of whose entries are archived: a signed note.
    pub head: Option<String>,
    /// The head that is being pulled, or was when a pull ended early: a signed note.
    pub pending: Option<String>,
    /// Entries that have been judged and archived.
    pub progress: u64,
    /// Sizes of heads whose unfilled tiles may still lie in the archive.
    pub sweep: Vec<u64>,
    /// Why nothing more is taken from this log.
    pub frozen: Option<String>,
    /// Local time of the newest entry.
    pub newest_millis: u64,
    /// Entries that an anchor covers.
    pub anchored: u64,
    /// Index and local time of the newest seal.
    pub last_seal: Option<(u64, u64)>,
    /// Local time of the first seal that no anchor covers, or of one soon after it.
    pub unanchored_since: Option<u64>,
    /// The outage under way or not closed: number, and local time of its first entry.
    pub outage: Option<(u64, u64)>,
    /// Entries that were quarantined.
    pub quarantined: u64,
    /// The time evidence that the newest entry names.
    pub evidence: Option<u64>,
}

/// Rows of one step.
#[derive(Debug, Default)]
pub struct Rows {
    /// Digests of seals.
    pub digests: Vec<(DigestAlgorithm, Vec<u8>, u64)>,
    /// What stands where: mark, a, index, b.
    pub marks: Vec<(Mark, u64, u64, u64)>,
    /// Seals whose openings were destroyed, and the entry that says so.
    pub erased: Vec<(Hash, u64)>,
    /// Bad entries and why.
    pub quarantined: Vec<(u64, String)>,
    /// New boundaries.
    pub boundaries: Vec<(u64, Hash)>,
    /// Boundaries of smaller trees than this are forgotten.
    pub oldest_boundary: u64,
    /// Findings.
    pub findings: Vec<Finding>,
    /// What logs are asked by.
    pub catalogue: catalogue::Entries,
}

/// The index.
pub struct Index {
    database: Database,
}

/// A seal found by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The log.
    pub origin: String,
    /// Its index there.
    pub index: u64,
}

impl Index {
    /// Makes an empty one.
    pub fn create(directory: &Path) -> Result<Self, IndexError> {
        let path = directory.join(FILE);
        if path.exists() {
            return Err(IndexError::Exists(path));
        }
        let made = Database::create(&path);
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
        Ok(Index { database })
    }

    /// Opens the one that is there.
    pub fn open(directory: &Path) -> Result<Self, IndexError> {
        let path = directory.join(FILE);
        let end = Instant::now() + PATIENCE;
        let opened = loop {
            match Database::open(&path) {
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(DatabaseError::DatabaseAlreadyOpen) => return Err(IndexError::Busy(path)),
                opened => break opened,
            }
        };
        let database = opened.map_err(|error| IndexError::Open { path, reason: error.to_string() })?;
        database.begin_read()?.open_table(ORIGINS)?;
        Ok(Index { database })
    }

    /// The number of a log, given it the first time.
    pub fn id(&self, origin: &str) -> Result<u32, IndexError> {
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

    /// The number of a log that has been pulled before.
    pub fn known(&self, origin: &str) -> Result<Option<u32>, IndexError> {
        Ok(self.database.begin_read()?.open_table(ORIGINS)?.get(origin)?.map(|id| id.value()))
    }

    /// What is known of a log.
    pub fn state(&self, id: u32) -> Result<LogState, IndexError> {
        let read = self.database.begin_read()?.open_table(LOGS)?;
        match read.get(id)? {
            None => Ok(LogState::default()),
            Some(row) => serde_json::from_slice(row.value())
                .map_err(|_| IndexError::Damaged("the state of a log is not understood")),
        }
    }

    /// The saved audit of a log with its boundaries.
    #[expect(clippy::type_complexity, reason = "two parts of one thing, taken apart at once")]
    pub fn audit(&self, id: u32) -> Result<Option<(Vec<u8>, Vec<(u64, Hash)>)>, IndexError> {
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

    /// Size of the newest boundary of a log; 0 when there is none.
    pub fn newest_boundary(&self, id: u32) -> Result<u64, IndexError> {
        let read = self.database.begin_read()?.open_table(BOUNDARIES)?;
        let newest = read.range((id, 0)..=(id, u64::MAX))?.next_back();
        Ok(newest.transpose()?.map_or(0, |(key, _)| key.value().1))
    }

    /// Makes a step durable. Returns the findings that are new.
    pub fn step(
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
            let text = serde_json::to_vec(state).map_err(|error| IndexError::Store(error.to_string()))?;
            write.open_table(LOGS)?.insert(id, text.as_slice())?;
        }
        let new = add_findings(&write, &findings, now_millis)?;
        write.commit()?;
        Ok(new)
    }

    /// Records findings; returns those that are new.
    pub fn found(&self, findings: &[Finding], now_millis: u64) -> Result<Vec<Value>, IndexError> {
        if findings.is_empty() {
            return Ok(Vec::new());
        }
        let write = self.write()?;
        let new = add_findings(&write, findings, now_millis)?;
        write.commit()?;
        Ok(new)
    }

    fn write(&self) -> Result<WriteTransaction, IndexError> {
        let mut write = self.database.begin_write()?;
        // Boxes shape what is written: see the ledger's choice.
        write.set_two_phase_commit(true);
        Ok(write)
    }

    /// All findings from number `from` on, oldest first.
    pub fn findings(&self, from: u64) -> Result<Vec<Value>, IndexError> {
        let read = self.database.begin_read()?.open_table(FINDINGS)?;
        read.range(from..)?
            .map(|row| {
                serde_json::from_slice(row?.1.value())
                    .map_err(|_| IndexError::Damaged("a finding is not understood"))
            })
            .collect()
    }

    /// Seals of this digest, in the order of logs and indexes.
    pub fn find(&self, algorithm: DigestAlgorithm, digest: &[u8]) -> Result<Vec<Found>, IndexError> {
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

    /// Marks of a kind with `a` at least so, in the order of `a` and index: a, index, b.
    pub fn marks(
        &self,
        id: u32,
        mark: Mark,
        from: u64,
        most: usize,
    ) -> Result<Vec<(u64, u64, u64)>, IndexError> {
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

    /// The entry that says that the openings of this seal were destroyed.
    pub fn erased(&self, id: u32, leaf: &Hash) -> Result<Option<u64>, IndexError> {
        Ok(self.database.begin_read()?.open_table(ERASED)?.get((id, leaf.0))?.map(|row| row.value()))
    }

    /// Why an entry was quarantined, if it was.
    pub fn quarantined(&self, id: u32, index: u64) -> Result<Option<String>, IndexError> {
        let read = self.database.begin_read()?.open_table(QUARANTINE)?;
        Ok(read.get((id, index))?.map(|row| row.value().to_owned()))
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

fn duplicate(algorithm: DigestAlgorithm, digest: &[u8]) -> Finding {
    let subject = format!("{algorithm}:{}", hex::encode(digest));
    let detail = format!("more than one log has sealed {subject}; `bulla-hub find --digest` lists the seals");
    Finding::new(crate::finding::Kind::Duplicate, "", subject, detail)
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
