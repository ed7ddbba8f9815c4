//! Incident body: a state that could not be logged while it lasted, told afterwards.
//!
//! Refuses to do: carry anything but a stable code, the times, and words for an engineer.

use super::TEXT_BYTES_MAX;
use crate::der::{self, DerError};
use crate::entry::{ENTRY_BYTES_MAX, LocalTime, NUMBER_MAX};
use rasn::{AsnType, Decode, Decoder, Encode};

/// Body of an `incident` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct IncidentBody {
    /// Stable code, e.g. `disk-full`; `docs/failure-modes.md` lists them.
    pub code: String,
    /// When it was noticed.
    pub began: LocalTime,
    /// When it was over.
    #[rasn(tag(context, 0))]
    pub ended: Option<LocalTime>,
    /// What happened, for people.
    pub detail: String,
}

impl IncidentBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: IncidentBody = der::decode("incident body", bytes, ENTRY_BYTES_MAX)?;
        let range = |reason| Err(DerError::Range { what: "incident body", reason });
        if body.code.is_empty() || body.code.len() > 64 || body.detail.len() > TEXT_BYTES_MAX {
            return range("its code is empty or too long, or its detail longer than 1024 bytes");
        }
        let late = |time: &LocalTime| time.unix_millis > NUMBER_MAX;
        if late(&body.began) || body.ended.as_ref().is_some_and(late) {
            return range("a time is larger than 2^63 - 1");
        }
        Ok(body)
    }
}
