//! Succession body: this log continues the evidence of another one, and why.
//!
//! A log whose latest state is gone is never continued under its own name: that could sign two
//! histories (G2). A new incarnation starts and names the last head it knows of.

use super::TEXT_BYTES_MAX;
use crate::der::{self, DerError};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX, TreeState};
use crate::origin::Origin;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Why a log ended.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Cause {
    /// Its state on disk was older than what the box had signed.
    Rollback = 0,
    /// Its disk was lost.
    LostDisk = 1,
    /// The box was replaced.
    Replaced = 2,
    /// Its log key was compromised.
    KeyCompromise = 3,
}

/// Body of a `succession` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct SuccessionBody {
    /// Origin of the log that ended.
    pub predecessor: String,
    /// The last head of it that this box knows; later ones may exist.
    pub head: TreeState,
    /// Why it ended.
    pub cause: Cause,
    /// The operator's words.
    pub reason: String,
}

impl SuccessionBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: SuccessionBody = der::decode("succession body", bytes, ENTRY_BYTES_MAX)?;
        if Origin::parse(&body.predecessor).is_err()
            || body.head.size > NUMBER_MAX
            || body.reason.len() > TEXT_BYTES_MAX
        {
            let reason = "its predecessor is no origin, or a part of it is too long";
            return Err(DerError::Range { what: "succession body", reason });
        }
        Ok(body)
    }
}
