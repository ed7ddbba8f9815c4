//! Heads of a site anchored together: whoever reaches an authority offers to take its neighbours' heads along, and hands
//! each of them what came of it.
//!
//! What is handed over is an anchor body as the receiver would have made it, but for what only the receiver knows: the
//! closing manifests under its head. So nobody who verifies the receiver's log later learns of a new rule.
//! Refuses to do: carry cosignatures, which are of one checkpoint and not of a batch; judge stamps, which whoever receives
//! them does by the authorities that it trusts itself.
//! Invariants: whatever decodes has 1 to 8 time stamps, names no manifest, and keeps the limits of an anchor body and of a
//! question; whether its path leads is said by [`SiteAnchor::leads`] alone.

use super::message::{MessageError, check_head, check_origin, demand};
use crate::body::anchor::{AnchorBody, Evidence};
use crate::merkle::ProofError;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most bytes of DER(AnchorBody) that is handed over: with what is around it, it fits a question.
pub const HANDED_BYTES_MAX: usize = 61_440;

/// Concerning heads that are anchored together.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct SiteAsked {
    /// What came of an offer; absent: the offer. Answered by `taken`, and by [`SiteWish`].
    pub anchored: Option<SiteAnchor>,
}

/// What authorities gave over a batch that the receiver's head is in.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct SiteAnchor {
    /// The receiver's log.
    pub origin: String,
    /// Over one of its heads; with time stamps alone, and without manifests. The names are the sender's.
    pub body: AnchorBody,
}

/// The head that a box would like to have anchored.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct SiteWish {
    /// Its log.
    pub origin: String,
    /// A checkpoint note of at least one entry.
    pub head: String,
}

impl SiteAsked {
    pub(super) fn check(&self) -> Result<(), MessageError> {
        self.anchored.as_ref().map_or(Ok(()), SiteAnchor::check)
    }
}

impl SiteAnchor {
    fn check(&self) -> Result<(), MessageError> {
        check_origin(&self.origin)?;
        self.body.check()?;
        demand(self.body.manifests.is_empty(), "an anchor that is handed over names manifests")?;
        let stamps = self.body.proofs.iter().all(|proof| matches!(proof.evidence, Evidence::Timestamp(_)));
        demand(stamps, "an anchor that is handed over has something else than time stamps")
    }

    /// Checks that the path leads from the head to the batch.
    ///
    /// # Errors
    /// Why it does not.
    pub fn leads(&self) -> Result<(), ProofError> {
        self.body.leads(&self.origin)
    }
}

impl SiteWish {
    pub(super) fn check(&self) -> Result<(), MessageError> {
        demand(check_head(&self.origin, &self.head)? > 0, "a head to be anchored is empty")
    }
}
