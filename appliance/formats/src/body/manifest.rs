//! Manifest body: the state of the box while no authority could be reached, and the collective receipt of that time.
//!
//! One is made when an outage begins, more while it lasts, and exactly one when it ends: the closing one covers the
//! whole gap.
//! Refuses to do: replace the evidence of single seals; it says what the box did, and is itself anchored afterwards.
//! Invariants: a decoded body has a quote over its statement or the reason for having none; it covers at least the
//! mode change that began the outage.

use super::TEXT_BYTES_MAX;
use super::mode_change::{LimitReached, Vouched};
use super::operator_action::Approval;
use super::probe::{ProbeFinding, check_findings, is_name};
use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, EntryRef, LocalTime, NUMBER_MAX, TreeState};
use crate::hash::{Hash, sha256};
use crate::sig::label;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most holders in one manifest.
pub const HOLDERS_MAX: usize = 32;

/// Which of an outage's manifests it is.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Phase {
    /// The first: the outage has begun.
    Open = 0,
    /// It lasts.
    Refresh = 1,
    /// The last: it is over.
    Close = 2,
}

impl Phase {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Refresh => "refresh",
            Phase::Close => "close",
        }
    }
}

/// By which clock a duration was measured.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum MeasuredBy {
    /// The box's steady clock: it ran all the time.
    SteadyClock = 0,
    /// The box's wall clock: it did not, so this is only what that clock said at both ends.
    WallClock = 1,
}

/// A peer that holds a copy.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Who.
    pub name: String,
    /// How many entries of this log it says it holds.
    pub size: u64,
}

/// The legal wording in force.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wording {
    /// Its id, with its version, e.g. `bulla/default-en/1`.
    pub id: String,
    /// SHA-256 of its text in UTF-8.
    pub sha256: Octets32,
}

/// What happens when a limit of emergency operation is reached.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum AtLimit {
    /// Sealing goes on, and manifests say which limit was passed.
    Continue = 0,
    /// The box takes no new seals.
    Safe = 1,
}

/// Limits of emergency operation.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Longest duration, seconds.
    #[rasn(tag(context, 0))]
    pub seconds: Option<u64>,
    /// Most seals.
    #[rasn(tag(context, 1))]
    pub seals: Option<u64>,
    /// Fewest peers that must hold copies.
    #[rasn(tag(context, 2))]
    pub holders: Option<u64>,
    /// What happens then.
    pub at_limit: AtLimit,
    /// Which are reached.
    pub reached: Vec<LimitReached>,
}

/// What a manifest says; the TPM's quote covers it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestStatement {
    /// 1.
    pub version: u64,
    /// Log origin: which box.
    pub origin: String,
    /// Number of the outage, counted from 1 in each log.
    pub outage: u64,
    /// 0 for the opening manifest of the outage, then counting up.
    pub sequence: u64,
    /// Which of them it is.
    pub phase: Phase,
    /// Whether the outage is a drill.
    pub drill: bool,
    /// Local time when the outage was declared.
    pub began: LocalTime,
    /// Local time of this statement.
    pub made: LocalTime,
    /// How long the outage has lasted, milliseconds.
    pub duration_millis: u64,
    /// By which clock.
    pub measured_by: MeasuredBy,
    /// Index of the mode-change entry that began the outage.
    pub first: u64,
    /// The log as far as the manifest covers it: entries `first` to `head.size - 1`. Of a closing manifest these are all
    /// entries of the outage, and no other.
    pub head: TreeState,
    /// RFC 9162 root over the leaf hashes of exactly those entries, the first of them at index 0.
    pub entries: Octets32,
    /// How many of them are seals.
    pub seals: u64,
    /// The newest external time evidence in the log.
    #[rasn(tag(context, 0))]
    pub evidence: Option<EntryRef>,
    /// How the authorities were.
    pub findings: Vec<ProbeFinding>,
    /// Peers that hold copies.
    pub holders: Vec<Holder>,
    /// The legal wording in force.
    pub wording: Wording,
    /// Limits of emergency operation, when there are any.
    #[rasn(tag(context, 1))]
    pub limits: Option<Limits>,
    /// SHA-256 of the firmware's event log, when there is one.
    #[rasn(tag(context, 2))]
    pub event_log: Option<Octets32>,
    /// Who approved, when approval was required.
    pub approvals: Vec<Approval>,
}

impl ManifestStatement {
    /// Qualifying data: SHA-256("bulla/quote/manifest/v1" || 0x00 || DER of this statement).
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[label::MANIFEST_QUOTE.as_bytes(), &[0], &der::encode(self)])
    }

    /// Whether it covers the entry at this index.
    pub fn covers(&self, index: u64) -> bool {
        (self.first..self.head.size).contains(&index)
    }
}

/// Body of a `manifest` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestBody {
    /// What it says.
    pub statement: ManifestStatement,
    /// The TPM's word for it.
    pub vouched: Vouched,
}

impl ManifestBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: ManifestBody = der::decode(WHAT, bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape; also for bodies about to be signed.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: WHAT, reason });
        let said = &self.statement;
        if said.version != 1 {
            return range("its version is not 1");
        }
        if said.outage == 0 || (said.sequence == 0) != (said.phase == Phase::Open) {
            return range("its outage is not counted from 1, or its sequence does not fit its phase");
        }
        let limits = said.limits.iter().flat_map(|l| [l.seconds, l.seals, l.holders]).flatten();
        let times = [&said.began, &said.made];
        let times = times.iter().flat_map(|t| [t.unix_millis, t.uncertainty_millis.unwrap_or(0)]);
        let numbers = [said.outage, said.sequence, said.duration_millis, said.head.size, said.seals];
        let holders = said.holders.iter().map(|holder| holder.size);
        if numbers.into_iter().chain(limits).chain(times).chain(holders).any(|n| n > NUMBER_MAX) {
            return range("a number is larger than 2^63 - 1");
        }
        if said.first >= said.head.size || said.seals > said.head.size - said.first {
            return range(
                "it does not cover the mode change that began it, or counts more seals than entries",
            );
        }
        if said.evidence.as_ref().is_some_and(|evidence| evidence.index >= said.head.size) {
            return range("its time evidence is not under its head");
        }
        if said.holders.len() > HOLDERS_MAX || said.holders.iter().any(|h| h.name.len() > 255) {
            return range("it has more than 32 holders, or one with a name longer than 255 bytes");
        }
        if !is_name(&said.wording.id) {
            return range("the id of its wording is empty or longer than 64 bytes");
        }
        if said.limits.as_ref().is_some_and(|limits| limits.reached.len() > 3) {
            return range("it has reached more than 3 limits");
        }
        if said.approvals.len() > 16 || said.approvals.iter().any(|a| a.signature.len() != 64) {
            return range("it has more than 16 approvals, or one whose signature is not 64 bytes");
        }
        if said.origin.len() > TEXT_BYTES_MAX {
            return range("its origin is too long");
        }
        check_findings(WHAT, &said.findings)?;
        self.vouched.check(WHAT)
    }
}

const WHAT: &str = "manifest body";
