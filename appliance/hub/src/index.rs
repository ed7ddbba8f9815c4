//! The index: how far each log has been pulled, what stands where, what was found. All of it but the numbers of findings
//! can be made again from the archive.
//!
//! It is embedded (`index/embedded.rs`: `hub.redb` in the state directory) or in PostgreSQL (`index/postgres.rs`), as the
//! configuration says; both answer the same. What logs are asked by: `index/catalogue.rs`.
//!
//! Refuses to do: open an index of another version, or make one where none is expected.
//! Invariant: a step of a pull is one transaction: all of it is there, or nothing; doing it twice adds nothing.

pub mod catalogue;
mod embedded;
mod postgres;

use crate::config::Config;
use crate::finding::Finding;
use bulla_formats::body::seal::DigestAlgorithm;
use bulla_formats::hash::Hash;
use catalogue::Catalogue;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// How long another command that has the index is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

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
    Busy(String),
    /// There is one already.
    #[error("there is an index at {0} already; nothing was changed")]
    Exists(String),
    /// Reading or writing failed.
    #[error("the index cannot be read or written ({0}); check the disk, then pull again")]
    Store(String),
    /// A row is not what it must be.
    #[error(
        "the index is damaged: {0}; `bulla-hub reindex` makes it again (move hub.redb away first, if that is it)"
    )]
    Damaged(&'static str),
    /// A new index cannot be put beside the old one.
    #[error("the directory {path} cannot be used ({source})")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// PostgreSQL cannot be used.
    #[error(transparent)]
    Postgres(#[from] postgres::PostgresError),
}

impl IndexError {
    /// Whether there is nothing left of it to keep; otherwise it may only be out of reach.
    pub fn is_loss(&self) -> bool {
        match self {
            IndexError::Busy(_) => false,
            IndexError::Postgres(error) => matches!(error, postgres::PostgresError::Missing(_)),
            _ => true,
        }
    }
}

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

/// A seal found by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The log.
    pub origin: String,
    /// Its index there.
    pub index: u64,
}

/// What was found, and how far the webhook has been told: all that cannot be made again.
#[derive(Debug, Default)]
pub struct Kept {
    /// Number, key and line of each finding.
    pub findings: Vec<(u64, [u8; 32], String)>,
    /// Number of the finding that the webhook is told next.
    pub told: u64,
}

/// An index.
pub trait Index: Catalogue + Send + Sync {
    /// From now on only this program changes how far logs have been pulled; waits a while for another one.
    fn exclusive(&self) -> Result<(), IndexError>;

    /// The number of a log, given it the first time.
    fn id(&self, origin: &str) -> Result<u32, IndexError>;

    /// The number of a log that has been pulled before.
    fn known(&self, origin: &str) -> Result<Option<u32>, IndexError>;

    /// What is known of a log.
    fn state(&self, id: u32) -> Result<LogState, IndexError>;

    /// The saved audit of a log with its boundaries.
    #[expect(clippy::type_complexity, reason = "two parts of one thing, taken apart at once")]
    fn audit(&self, id: u32) -> Result<Option<(Vec<u8>, Vec<(u64, Hash)>)>, IndexError>;

    /// Size of the newest boundary of a log; 0 when there is none.
    fn newest_boundary(&self, id: u32) -> Result<u64, IndexError>;

    /// Makes a step durable. Returns the findings that are new.
    fn step(
        &self,
        id: u32,
        state: &LogState,
        audit: Option<&[u8]>,
        rows: &Rows,
        now_millis: u64,
    ) -> Result<Vec<Value>, IndexError>;

    /// Records findings; returns those that are new.
    fn found(&self, findings: &[Finding], now_millis: u64) -> Result<Vec<Value>, IndexError>;

    /// All findings from number `from` on, oldest first.
    fn findings(&self, from: u64) -> Result<Vec<Value>, IndexError>;

    /// Seals of this digest, in the order of logs and indexes.
    fn find(&self, algorithm: DigestAlgorithm, digest: &[u8]) -> Result<Vec<Found>, IndexError>;

    /// Marks of a kind with `a` at least so, in the order of `a` and index: a, index, b.
    fn marks(&self, id: u32, mark: Mark, from: u64, most: usize) -> Result<Vec<(u64, u64, u64)>, IndexError>;

    /// The entry that says that the openings of this seal were destroyed.
    fn erased(&self, id: u32, leaf: &Hash) -> Result<Option<u64>, IndexError>;

    /// Why an entry was quarantined, if it was.
    fn quarantined(&self, id: u32, index: u64) -> Result<Option<String>, IndexError>;

    /// What cannot be made again.
    fn kept(&self) -> Result<Kept, IndexError>;

    /// Takes that over from the index before; for an empty index.
    fn adopt(&self, kept: &Kept) -> Result<(), IndexError>;
}

/// Makes an empty index where the configuration wants it.
pub fn create(config: &Config) -> Result<(), IndexError> {
    match &config.postgres {
        Some(postgres) => postgres::Postgres::create(postgres).map(drop),
        None => embedded::Embedded::create(&config.state_dir, config.index_cache()).map(drop),
    }
}

/// Reads the files that the configuration of a database names.
pub fn check(config: &Config) -> Result<(), IndexError> {
    config.postgres.as_ref().map_or(Ok(()), postgres::Postgres::check)
}

/// Opens the one that is there.
pub fn open(config: &Config) -> Result<Box<dyn Index>, IndexError> {
    Ok(match &config.postgres {
        Some(postgres) => Box::new(postgres::Postgres::open(postgres)?),
        None => Box::new(embedded::Embedded::open(&config.state_dir, config.index_cache())?),
    })
}

/// Makes an empty index beside the one that is in force, if there is one.
pub fn begin_again(config: &Config) -> Result<Box<dyn Index>, IndexError> {
    Ok(match &config.postgres {
        Some(postgres) => Box::new(postgres::Postgres::begin_again(postgres)?),
        None => Box::new(embedded::Embedded::begin_again(&config.state_dir, config.index_cache())?),
    })
}

/// Puts what [`begin_again`] began in the place of the old one, at once.
pub fn take_over(config: &Config, new: Box<dyn Index>) -> Result<(), IndexError> {
    match &config.postgres {
        Some(postgres) => postgres::Postgres::take_over(postgres, new),
        None => {
            drop(new);
            embedded::Embedded::take_over(&config.state_dir)
        }
    }
}

fn duplicate(algorithm: DigestAlgorithm, digest: &[u8]) -> Finding {
    let subject = format!("{algorithm}:{}", hex::encode(digest));
    let detail = format!("more than one log has sealed {subject}; `bulla-hub find --digest` lists the seals");
    Finding::new(crate::finding::Kind::Duplicate, "", subject, detail)
}

/// The state of a log as it is stored.
fn state_text(state: &LogState) -> Result<String, IndexError> {
    serde_json::to_string(state).map_err(|error| IndexError::Store(error.to_string()))
}

/// The same, read.
fn state_of(text: &[u8]) -> Result<LogState, IndexError> {
    serde_json::from_slice(text).map_err(|_| IndexError::Damaged("the state of a log is not understood"))
}

/// A line of the feed as it is stored, read.
fn finding_of(text: &[u8]) -> Result<Value, IndexError> {
    serde_json::from_slice(text).map_err(|_| IndexError::Damaged("a finding is not understood"))
}
