//! Why the roster does not change: codes that never change, and sentences for people.
//!
//! Refuses to do: refuse without a reason.

use crate::inventory::State;
use bulla_approvals::Refusal;
use bulla_ceremony::CeremonyError;
use bulla_formats::der::DerError;

/// Why a roster, or a change of it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterRefusal {
    /// For a reason that concerns any action.
    #[error(transparent)]
    Approval(#[from] Refusal),
    /// The minutes it begins with are refused.
    #[error("the minutes it begins with are refused: {0}")]
    Founding(String),
    /// It begins with minutes of a root that is not believed here.
    #[error("its fleet or the root of its minutes is not the trust file's")]
    OtherRoot,
    /// Parameters that are not those of the kind.
    #[error("its parameters are refused: {0}")]
    Parameters(String),
    /// No box of the inventory.
    #[error("no box in the inventory has the endorsement key or the log {0}")]
    UnknownBox(String),
    /// A box that is listed already.
    #[error("the endorsement key {0} is in the inventory already")]
    KnownBox(String),
    /// A box that left.
    #[error("the endorsement key {0} has left the fleet; only a pardon lets it in again")]
    Tombstoned(String),
    /// Another box has that serial number.
    #[error("the serial number {0:?} is another box's, which has not left the fleet")]
    KnownSerial(String),
    /// The box is not in a state in which that can be done.
    #[error("the box {serial:?} is {}, so it cannot be done", state.name())]
    WrongState {
        /// Its serial number.
        serial: String,
        /// What it is.
        state: State,
    },
    /// An enrolment whose log is not one that this box can begin now.
    #[error("the origin {0} is not one that this box can begin now")]
    OtherOrigin(String),
    /// An enrolment or a card with a key that another one has.
    #[error("a key of {0} is another box's, or not that of its log")]
    KnownKey(String),
    /// A card that is not newer than the one there.
    #[error("the card of {0} that the roster has is as new or newer")]
    OlderCard(String),
    /// A revocation that does not name the logs of the box.
    #[error("a revocation names every log of the box that is not given up yet, in order, and nothing else")]
    LogsDiffer,
    /// A head of a lost log that is not that log's, or that nobody else of the fleet has cosigned.
    #[error("the head of {log} is not vouched for: {why}")]
    NotVouched {
        /// The log.
        log: String,
        /// What is wrong.
        why: String,
    },
    /// A policy that nothing can meet.
    #[error(
        "the policy requires the fact {0:?}, and the roster names nobody whose time is believed; change both, the anchors \
         before the policy asks for them"
    )]
    Unprovable(&'static str),
    /// An action for a box.
    #[error("a box carries it out, not the roster")]
    NotHere,
}

impl RosterRefusal {
    /// Stable name, listed in docs/formats.md.
    pub fn code(&self) -> &'static str {
        match self {
            RosterRefusal::Approval(refusal) => refusal.code(),
            RosterRefusal::Founding(_) => "founding",
            RosterRefusal::OtherRoot => "other-root",
            RosterRefusal::Parameters(_) => "parameters",
            RosterRefusal::UnknownBox(_) => "unknown-box",
            RosterRefusal::KnownBox(_) => "known-box",
            RosterRefusal::Tombstoned(_) => "tombstoned",
            RosterRefusal::KnownSerial(_) => "known-serial",
            RosterRefusal::WrongState { .. } => "wrong-state",
            RosterRefusal::OtherOrigin(_) => "other-origin",
            RosterRefusal::KnownKey(_) => "known-key",
            RosterRefusal::OlderCard(_) => "older-card",
            RosterRefusal::LogsDiffer => "logs-differ",
            RosterRefusal::NotVouched { .. } => "not-vouched",
            RosterRefusal::Unprovable(_) => "unprovable",
            RosterRefusal::NotHere => "not-here",
        }
    }

    /// A refusal of parameters.
    pub(crate) fn parameters(why: impl ToString) -> Self {
        RosterRefusal::Parameters(why.to_string())
    }
}

impl From<DerError> for RosterRefusal {
    fn from(error: DerError) -> Self {
        RosterRefusal::Approval(error.into())
    }
}

impl From<CeremonyError> for RosterRefusal {
    fn from(error: CeremonyError) -> Self {
        RosterRefusal::Founding(error.to_string())
    }
}

/// What most functions here return.
pub type Result<T, E = RosterRefusal> = std::result::Result<T, E>;
