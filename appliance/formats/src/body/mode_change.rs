//! Mode-change body: the box is in another mode from this very entry on, and why.
//!
//! Refuses to do: claim that the TPM saw the change; the quote, where there is one, covers the statement and says in
//! which boot state the box was.
//! Invariants: a decoded body has a quote or the reason for having none; an outage number exactly where one belongs.

use super::TEXT_BYTES_MAX;
use super::key_epoch::TpmQuote;
use super::probe::{ProbeFinding, check_findings};
use crate::der::{self, DerError};
use crate::entry::{ENTRY_BYTES_MAX, Mode, NUMBER_MAX, TreeState};
use crate::hash::{Hash, sha256};
use crate::sig::label;
use rasn::{AsnType, Decode, Decoder, Encode};

/// The TPM's word beside a statement, or why there is none.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Vouched {
    /// A quote over the statement.
    #[rasn(tag(context, 0))]
    Quote(TpmQuote),
    /// Why there is no quote; 1 to 1024 bytes.
    #[rasn(tag(context, 1))]
    None(String),
}

impl Vouched {
    pub(super) fn check(&self, what: &'static str) -> Result<(), DerError> {
        match self {
            Vouched::None(reason) if reason.is_empty() || reason.len() > TEXT_BYTES_MAX => {
                let reason = "the reason for having no quote is empty or longer than 1024 bytes";
                Err(DerError::Range { what, reason })
            }
            Vouched::None(_) => Ok(()),
            Vouched::Quote(quote) => quote.check(what),
        }
    }
}

/// An outage, as far as it has come.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutageState {
    /// Index of the mode change that began it; absent in that very entry.
    #[rasn(tag(context, 0))]
    pub first: Option<u64>,
    /// How long it has lasted, or lasted in all, milliseconds.
    pub elapsed_millis: u64,
    /// Manifests so far, without the closing one.
    pub manifests: u64,
    /// Index of its last entry; absent while it lasts, and in the mode change that ends it.
    #[rasn(tag(context, 1))]
    pub last: Option<u64>,
    /// Index of the closing manifest.
    #[rasn(tag(context, 2))]
    pub closing: Option<u64>,
}

/// A limit of emergency operation.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum LimitReached {
    /// Its longest duration.
    Duration = 0,
    /// Its most seals.
    Seals = 1,
    /// Its fewest peers that hold copies.
    Holders = 2,
}

/// What a mode change says; the TPM's quote covers it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModeStatement {
    /// 1.
    pub version: u64,
    /// Log origin.
    pub origin: String,
    /// The mode until now.
    pub from: Mode,
    /// The mode from this entry on.
    pub to: Mode,
    /// The mode that would be in force if nothing forced `safe`; else the same as `to`.
    pub below: Mode,
    /// Outages so far in this log, with the one that begins here.
    pub outages: u64,
    /// The outage that begins, lasts, or has ended and is being reconciled.
    #[rasn(tag(context, 0))]
    pub outage: Option<OutageState>,
    /// Whether an operator has locked the box.
    pub locked: bool,
    /// Limits of emergency operation that are reached.
    pub limits: Vec<LimitReached>,
    /// The log when the statement was made; entries may stand between it and this one.
    pub head: TreeState,
    /// How the authorities were.
    pub findings: Vec<ProbeFinding>,
    /// Why, for people.
    pub reason: String,
}

impl ModeStatement {
    /// Qualifying data: SHA-256("bulla/quote/mode/v1" || 0x00 || DER of this statement).
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[label::MODE_QUOTE.as_bytes(), &[0], &der::encode(self)])
    }
}

/// Body of a `mode-change` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModeChangeBody {
    /// What changed.
    pub statement: ModeStatement,
    /// The TPM's word for it.
    pub vouched: Vouched,
}

impl ModeChangeBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: ModeChangeBody = der::decode(WHAT, bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape; also for bodies about to be signed.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: WHAT, reason });
        let statement = &self.statement;
        if statement.version != 1 {
            return range("its version is not 1");
        }
        let of_outage = matches!(statement.below, Mode::Emergency | Mode::Reconciling);
        if statement.outage.is_some() != of_outage || of_outage && statement.outages == 0 {
            return range("it has an outage exactly in emergency and while reconciling, counted from 1");
        }
        if statement.to != statement.below && statement.to != Mode::Safe {
            return range("only safe lies on top of another mode");
        }
        let outage = statement.outage.iter().flat_map(|outage| {
            let indexes = [outage.first, outage.last, outage.closing];
            [outage.elapsed_millis, outage.manifests].into_iter().chain(indexes.into_iter().flatten())
        });
        if outage.chain([statement.outages]).any(|number| number > NUMBER_MAX) || statement.limits.len() > 3 {
            return range("a number is larger than 2^63 - 1, or it has more than 3 limits");
        }
        if statement.head.size > NUMBER_MAX || statement.reason.len() > TEXT_BYTES_MAX {
            return range("its size is larger than 2^63 - 1, or its reason longer than 1024 bytes");
        }
        check_findings(WHAT, &statement.findings)?;
        self.vouched.check(WHAT)
    }
}

const WHAT: &str = "mode-change body";
