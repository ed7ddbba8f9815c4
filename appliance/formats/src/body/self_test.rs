//! Self-test body: how the box fared when it sealed a synthetic document and verified the result itself.
//!
//! Refuses to do: stand for a seal. The synthetic document was random bytes that nobody kept; what counts is that
//! the whole way worked, and how long it took.
//! Invariant: a decoded body has a verdict of a seal that exists, or a failure, and a pass has no failure.

use super::TEXT_BYTES_MAX;
use crate::der::{self, DerError};
use crate::entry::{ENTRY_BYTES_MAX, EntryRef, NUMBER_MAX};
use rasn::{AsnType, Decode, Decoder, Encode};

/// Client id in the seals of self-tests; reserved, together with the method *local*.
pub const CLIENT: &str = "self-test";
/// Media type of the synthetic document.
pub const MEDIA_TYPE: &str = "application/vnd.bulla.self-test";

/// Body of a `self-test` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct SelfTestBody {
    /// The synthetic seal; absent when none was made.
    #[rasn(tag(context, 0))]
    pub seal: Option<EntryRef>,
    /// Verdict of the box's own verifier on it, e.g. `valid`; `not-sealed` when there is none.
    pub verdict: String,
    /// Time from the order to the durable seal, microseconds.
    pub seal_micros: u64,
    /// Time of the verification, microseconds; 0 when it was not reached.
    pub verify_micros: u64,
    /// Whether the verified seal carried a TPM quote.
    pub attested: bool,
    /// Why the test failed; absent when it passed.
    #[rasn(tag(context, 1))]
    pub failure: Option<String>,
}

impl SelfTestBody {
    /// Whether the whole way worked.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: SelfTestBody = der::decode("self-test body", bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "self-test body", reason });
        if self.verdict.is_empty() || self.verdict.len() > 64 {
            return range("its verdict is empty or longer than 64 bytes");
        }
        if self.failure.as_ref().is_some_and(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            return range("its failure is empty or longer than 1024 bytes");
        }
        if self.failure.is_none() && (self.seal.is_none() || self.verdict != "valid") {
            return range("it passed without a valid seal");
        }
        if self.attested && self.seal.is_none() {
            return range("it was attested without a seal");
        }
        let index = self.seal.as_ref().map_or(0, |seal| seal.index);
        if index.max(self.seal_micros).max(self.verify_micros) > NUMBER_MAX {
            return range("a number is larger than 2^63 - 1");
        }
        Ok(())
    }
}
