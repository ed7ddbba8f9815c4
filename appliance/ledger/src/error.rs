//! What goes wrong on the way to the disk, said once for every operation of the crate.
//!
//! Invariant: a message names the file and the action, never the bytes that were being stored.

use bulla_formats::merkle::ProofError;
use thiserror::Error;

/// The storage below failed or refused. The fault of the disk, the file system or the permissions.
#[derive(Debug, Error)]
#[error("could not {action} {file}: {source}")]
pub struct StorageFault {
    /// What was being done.
    pub action: &'static str,
    /// The file inside the log directory.
    pub file: String,
    /// What redb or the operating system said.
    #[source]
    pub source: Box<redb::Error>,
}

/// A stored fact contradicts another: damage or tampering, never a passing condition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file} is damaged at entry {index}: {what}; stop sealing, keep the file and run fsck")]
pub struct Damage {
    /// The file inside the log directory.
    pub file: String,
    /// First entry index that the contradiction concerns.
    pub index: u64,
    /// What contradicts what.
    pub what: String,
}

impl Damage {
    pub(crate) fn new(file: &str, index: u64, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), index, what: what.into() }
    }
}

/// Why something could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The log has no such entry, tile or size. The caller's fault.
    #[error("{index} is outside the log, which has {size} entries")]
    OutOfRange {
        /// Index or size asked for.
        index: u64,
        /// Entries in the log.
        size: u64,
    },
    /// No tile or bundle of that level, position and width exists at this size. The caller's fault.
    #[error("no tile of level {level}, index {index} and width {width} exists in a log of {size} entries")]
    NoSuchTile {
        /// Tile level.
        level: u8,
        /// Position in the level.
        index: u64,
        /// Width asked for.
        width: u16,
        /// Entries in the log.
        size: u64,
    },
    /// The disk's fault.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The stored bytes contradict the log.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

impl From<ProofError> for ReadError {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::OutOfRange { index, size } => ReadError::OutOfRange { index, size },
            ProofError::Shrunk { old, new } => ReadError::OutOfRange { index: old, size: new },
            // Builders report requests only; lengths and roots are a verifier's findings.
            ProofError::Length { .. } | ProofError::RootMismatch { .. } => {
                ReadError::Damaged(Damage::new("the log", 0, error.to_string()))
            }
        }
    }
}

/// Names the action and the file of a storage error.
pub(crate) trait During<T> {
    fn during(self, action: &'static str, file: &str) -> Result<T, StorageFault>;
}

impl<T, E: Into<redb::Error>> During<T> for Result<T, E> {
    fn during(self, action: &'static str, file: &str) -> Result<T, StorageFault> {
        self.map_err(|error| StorageFault { action, file: file.to_owned(), source: Box::new(error.into()) })
    }
}
