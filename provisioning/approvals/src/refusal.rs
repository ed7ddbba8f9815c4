//! Why something is not carried out: a code for machines, that never changes, and a sentence for people.
//!
//! Refuses to do: refuse without a reason.

use bulla_formats::der::DerError;
use bulla_formats::report::utc;

/// Why an action, its approvals, or a roster are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not the bytes of a change.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Of another fleet.
    #[error("it is of the fleet {0:?}, not of this one")]
    OtherFleet(String),
    /// For another box, another state of it, or with a nonce that it did not give out.
    #[error("it is not for this place: another box, an older state of it, or a nonce that is spent")]
    OtherTarget,
    /// It was carried out before.
    #[error(
        "it was carried out before: it made version {0} of the roster; whoever wants it again proposes it anew"
    )]
    Used(u64),
    /// It acts on a version that this roster has not reached.
    #[error(
        "it acts on version {asked} of the roster, and this one is at {held}: this roster is older than the people's, \
         perhaps restored from a backup; take up the newer one first"
    )]
    RosterBehind {
        /// Version of this roster.
        held: u64,
        /// Version that people know.
        asked: u64,
    },
    /// Two rosters have different versions of one number.
    #[error(
        "there are two different versions {0} of the roster: stop, keep both as evidence and find out who made the second"
    )]
    Forked(u64),
    /// It acts on a version that was superseded by something else.
    #[error("it acts on version {asked} of the roster, which is at {held} by now; propose it anew")]
    Stale {
        /// Version of this roster.
        held: u64,
        /// Version it acts on.
        asked: u64,
    },
    /// Too late to carry it out.
    #[error("it was to be carried out until {}; propose it anew", utc(*.0))]
    Expired(u64),
    /// Nobody can override in this fleet.
    #[error("a fleet without operators has no override: its custodians decide anyhow")]
    NoOverride,
    /// Approved by a key of nobody who decides about it.
    #[error("the key {} is of nobody who decides about it", hex::encode(.0))]
    Stranger([u8; 32]),
    /// An approval does not verify.
    #[error("the approval of {0} does not verify")]
    BadSignature(String),
    /// Approved after its time.
    #[error("{0} approved it after its time")]
    Late(String),
    /// Two approvals of one person.
    #[error("{0} approved it twice; people are counted, not keys")]
    PersonTwice(String),
    /// Too few people.
    #[error("{got} approved it, and {needed} are needed")]
    NotEnough {
        /// People who did.
        got: usize,
        /// People needed.
        needed: usize,
    },
    /// A roster is older than one that was seen before.
    #[error(
        "this roster is at version {held}, and version {seen} was seen before: it is an old one, perhaps restored from a \
         backup; take up the newer one"
    )]
    RolledBack {
        /// Version of this roster.
        held: u64,
        /// Version seen before.
        seen: u64,
    },
}

impl Refusal {
    /// Stable name, listed in docs/formats.md.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed",
            Refusal::OtherFleet(_) => "other-fleet",
            Refusal::OtherTarget => "other-target",
            Refusal::Used(_) => "used",
            Refusal::RosterBehind { .. } => "roster-behind",
            Refusal::Forked(_) => "forked",
            Refusal::Stale { .. } => "stale",
            Refusal::Expired(_) => "expired",
            Refusal::NoOverride => "no-override",
            Refusal::Stranger(_) => "stranger",
            Refusal::BadSignature(_) => "bad-signature",
            Refusal::Late(_) => "late",
            Refusal::PersonTwice(_) => "person-twice",
            Refusal::NotEnough { .. } => "not-enough",
            Refusal::RolledBack { .. } => "rolled-back",
        }
    }
}

impl From<DerError> for Refusal {
    fn from(error: DerError) -> Self {
        Refusal::Malformed(error.to_string())
    }
}

/// What most functions here return.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;
