//! Why a mirror did not do what it was asked: whose fault it is, and what follows.

use crate::append::AppendError;
use crate::error::{ReadError, StorageFault};
use crate::open::OpenError;
use crate::recover::RecoverError;
use crate::tree::Tree;
use bulla_formats::hash::Hash;
use bulla_formats::origin::OriginError;
use std::io;
use thiserror::Error;

/// Every refusal but those of storage leaves everything as it was.
#[derive(Debug, Error)]
pub enum MirrorError {
    /// The caller's name is no log's.
    #[error(transparent)]
    NotAnOrigin(#[from] OriginError),
    /// As many logs are mirrored as may be. Remove one, or raise the limit.
    #[error("{most} logs are mirrored, and no more may be; remove one or raise the limit")]
    Limit {
        /// How many may be.
        most: usize,
    },
    /// There is a mirror of this log already.
    #[error("{origin} is mirrored already")]
    Exists {
        /// The log.
        origin: String,
    },
    /// There is no mirror of this log.
    #[error("{origin} is not mirrored here")]
    Unknown {
        /// The log.
        origin: String,
    },
    /// The mirror was removed while this handle was held.
    #[error("this mirror was removed")]
    Removed,
    /// A fork of the log was proven: it is kept and read, never extended or cosigned.
    #[error("a fork of this log was proven; it is kept as it is")]
    Frozen,
    /// A row of the state is damaged or gone, and nobody guesses what it said: an operator states it anew, or has the
    /// mirror removed.
    #[error("the row {row:?} of mirror.redb is lost ({what}); an operator has to state what it said")]
    RowLost {
        /// Its name.
        row: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing was lost that an operator could state anew.
    #[error("no row of mirror.redb is lost; there is nothing to state anew")]
    NothingLost,
    /// The range does not begin where the mirror ends, or does not end where it is said to. The caller's fault.
    #[error("the mirror has {size} entries; {count} from {first} on do not lead to {stated}")]
    Gap {
        /// Entries in the mirror.
        size: u64,
        /// First index of the range.
        first: u64,
        /// Entries in it.
        count: usize,
        /// Size that it was said to lead to.
        stated: u64,
    },
    /// The range or the objects are too long for one call. The caller's fault.
    #[error("{bytes} bytes at a time are too many; at most {most}")]
    TooMuch {
        /// Bytes in the call.
        bytes: usize,
        /// How many may be.
        most: usize,
    },
    /// An object that no entry refers to, or that is here already.
    #[error("nothing that is mirrored needs the object {object}")]
    Unasked {
        /// Its SHA-256.
        object: Hash,
    },
    /// So many objects are missing that no more entries are taken before some of them come.
    #[error("{missing} objects would be missing, and at most {most} may be; fetch some of them first")]
    ObjectsFirst {
        /// How many would be.
        missing: usize,
        /// How many may be.
        most: usize,
    },
    /// The state is past what was asked for. Nothing goes back.
    #[error("the {what} of this log is at {known} entries, which is past {asked}; it never goes back")]
    Behind {
        /// What does not go back.
        what: &'static str,
        /// The newest size.
        known: u64,
        /// The size asked for.
        asked: u64,
    },
    /// Two trees that cannot both be of one log. Whoever has heads of both has proof of a fork.
    #[error("two trees of one size: {known} is known, {asked} was stated")]
    Contradiction {
        /// What this box holds or has cosigned.
        known: Tree,
        /// What was asked for.
        asked: Tree,
    },
    /// Not everything below that size is here and durable.
    #[error("everything below entry {held} is here, not everything below {asked}")]
    NotHeld {
        /// Up to where all is held.
        held: u64,
        /// Size asked for.
        asked: u64,
    },
    /// The entries cannot be appended, or could not be.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The mirrored log does not start. Other mirrors and the box's own log are not concerned.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The mirrored log is still poisoned.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Reading failed, or what was read is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory of the mirrors could not be used.
    #[error("could not {action} the mirror's directory {directory}: {source}")]
    Directory {
        /// What was being done.
        action: &'static str,
        /// Its name.
        directory: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl From<StorageFault> for MirrorError {
    fn from(fault: StorageFault) -> Self {
        MirrorError::Read(fault.into())
    }
}
