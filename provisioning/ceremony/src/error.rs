//! What can be wrong with a ceremony, in words for the people in the room.
//!
//! Refuses to do: hold secrets; every variant may be printed and put into the minutes.

use bulla_formats::der::DerError;

/// Why a ceremony does not go on.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// Bytes that are not what they should be.
    #[error(transparent)]
    Der(#[from] DerError),
    /// A card, plan or message whose values are not allowed.
    #[error("{what} is refused: {why}")]
    Refused {
        /// Which one.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A participant said two different things, or things that contradict what the others have seen.
    #[error(
        "custodian {number} ({name}) {what}; stop, keep the exchange directory as evidence and begin anew"
    )]
    Accused {
        /// Number in the plan.
        number: u64,
        /// Name in the plan.
        name: String,
        /// What was seen.
        what: String,
    },
    /// The threshold scheme refuses what a custodian was given by all of them together.
    #[error(
        "the key shares do not fit together ({0}); keep the exchange directory as evidence and begin anew"
    )]
    Scheme(String),
}

impl CeremonyError {
    /// A refusal.
    pub fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        CeremonyError::Refused { what: what.into(), why: why.into() }
    }
}

/// What most functions here return.
pub type Result<T, E = CeremonyError> = std::result::Result<T, E>;
