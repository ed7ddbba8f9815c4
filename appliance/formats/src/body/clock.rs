//! Clock body: something was noticed about the box's clocks, after which its stated times mean something else.
//!
//! Refuses to do: set a clock, or correct entries that exist; it is said once, and stands in the log.

use super::TEXT_BYTES_MAX;
use crate::der::{self, DerError};
use crate::entry::{ENTRY_BYTES_MAX, LocalTime, NUMBER_MAX};
use rasn::{AsnType, Decode, Decoder, Encode};

/// What was noticed.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum ClockFinding {
    /// The wall clock was set, or ran away, while the steady clock did not.
    Jump = 0,
    /// The TPM was reset or cleared, or its clock went back.
    TpmReset = 1,
    /// TPM clock and steady clock differ by more than the drift allowed for.
    Drift = 2,
    /// An authority's time was outside the uncertainty that the box had stated.
    Correction = 3,
    /// Authorities contradict each other.
    Contradiction = 4,
}

impl ClockFinding {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            ClockFinding::Jump => "jump",
            ClockFinding::TpmReset => "tpm-reset",
            ClockFinding::Drift => "drift",
            ClockFinding::Correction => "correction",
            ClockFinding::Contradiction => "contradiction",
        }
    }
}

/// A reading of the TPM's clock.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct TpmClock {
    /// Milliseconds powered since the TPM was last cleared.
    pub millis: u64,
    /// Resets since then.
    pub reset_count: u64,
    /// Restarts and resumes since the last reset.
    pub restart_count: u64,
    /// Whether the TPM vouches that its clock never went back.
    pub safe: bool,
}

/// Body of a `clock` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClockBody {
    /// What was noticed.
    pub finding: ClockFinding,
    /// What the box would have said at that instant without it.
    pub expected: LocalTime,
    /// What it says from now on.
    pub found: LocalTime,
    /// The TPM's clock, when it was asked.
    #[rasn(tag(context, 0))]
    pub tpm: Option<TpmClock>,
    /// For people.
    pub detail: String,
}

impl ClockBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: ClockBody = der::decode("clock body", bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "clock body", reason });
        let times = [&self.expected, &self.found];
        let times = times.iter().flat_map(|t| [t.unix_millis, t.uncertainty_millis.unwrap_or(0)]);
        let tpm = self.tpm.iter().flat_map(|t| [t.millis, t.reset_count, t.restart_count]);
        if times.chain(tpm).any(|number| number > NUMBER_MAX) {
            return range("a number is larger than 2^63 - 1");
        }
        if self.detail.len() > TEXT_BYTES_MAX {
            return range("its detail is longer than 1024 bytes");
        }
        Ok(())
    }
}
