//! Revocation body: the box has learned from a roster that a neighbour's log is given up, and shuts its box out.
//!
//! Refuses to do: prove it; the version of the roster that it names does, and [`crate::revocation`] does for verifiers.
//! Invariant: a decoded body names a log of the fleet whose roster says so.

use crate::der::{self, DerError};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX, TreeState};
use crate::hash::empty_root;
use crate::origin::Origin;
use crate::revocation::Cause;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Body of a `revocation` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RevocationBody {
    /// 1.
    pub version: u64,
    /// Number of the version of the roster that gave the log up.
    pub roster: u64,
    /// The log.
    pub origin: String,
    /// Why.
    pub cause: Cause,
    /// From when on its keys may have been in other hands, or its service had ended (Unix milliseconds).
    pub invalid_from: u64,
    /// The last tree that is known to be good; of no entries when none is.
    pub good: TreeState,
}

impl RevocationBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: RevocationBody = der::decode("revocation body", bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape; also for bodies about to be signed.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "revocation body", reason });
        if self.version != 1 {
            return range("its version is not 1");
        }
        if Origin::parse(&self.origin).is_err() {
            return range("its log is no origin");
        }
        if self.roster.max(self.invalid_from).max(self.good.size) > NUMBER_MAX {
            return range("a number is above 2^63 - 1");
        }
        if self.good.size == 0 && self.good.root() != empty_root() {
            return range("the tree of no entries has another root");
        }
        Ok(())
    }
}
