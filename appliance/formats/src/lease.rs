//! Lease: for a while a hub answers for a box, and says how far the box may go on by itself afterwards.
//!
//! Signed by the fleet root, or by a key that the root certified, like a revocation; or by a hub that the fleet's roster names.
//! Under a lease a box without any
//! authority counts as reached; its limits bound the emergency that may follow.
//! Refuses to do: judge whether it is in force; that takes a clock, and is `bulla_protocol::lease`.
//! Invariant: a [`VerifiedLease`] exists only for a statement whose chain ends in a given root, or that a given hub signed.

use crate::body::manifest::{AtLimit, HOLDERS_MAX};
use crate::body::probe::is_name;
use crate::der::{self, DerError};
use crate::enrolment::{CHAIN_MAX, FleetCertificate, chain_reaches};
use crate::entry::NUMBER_MAX;
use crate::origin::Origin;
use crate::sig::{Algorithm, PublicKey, label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest lease file in bytes.
pub const LEASE_BYTES_MAX: usize = 8_192;
/// Longest time from issue to expiry: 31 days in milliseconds. Who cannot reach a hub for longer is in an emergency.
pub const LEASE_MILLIS_MAX: u64 = 31 * 86_400_000;

/// How far a box may go on by itself once nobody answers for it.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseLimits {
    /// Longest emergency, seconds; at least 1.
    #[rasn(tag(context, 0))]
    pub seconds: Option<u64>,
    /// Most seals in one emergency.
    #[rasn(tag(context, 1))]
    pub seals: Option<u64>,
    /// Fewest peers that must hold copies; 1 to 32.
    #[rasn(tag(context, 2))]
    pub holders: Option<u64>,
    /// What happens at a limit.
    pub at_limit: AtLimit,
}

/// What a lease says.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseContent {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// The log it is for.
    pub origin: String,
    /// Who issued it, for people; 1 to 64 bytes without control characters.
    pub issuer: String,
    /// When it was issued (Unix milliseconds, the issuer's clock). Of two leases the later one counts.
    pub issued_at: u64,
    /// Until when it holds (Unix milliseconds); after `issued_at`, by at most 31 days.
    pub expires_at: u64,
    /// After how many seals under it it is used up.
    #[rasn(tag(context, 0))]
    pub seals: Option<u64>,
    /// What holds in an emergency, also after the lease has ended.
    pub limits: LeaseLimits,
}

impl LeaseContent {
    /// The message its issuer signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::LEASE, &der::encode(self))
    }

    /// Whether it is within what the format allows.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "lease", reason });
        let LeaseLimits { seconds, seals, holders, .. } = self.limits;
        let given = [self.seals, seconds, seals, holders].into_iter().flatten();
        if given.chain([self.issued_at, self.expires_at]).any(|number| number > NUMBER_MAX) {
            return range("a number is too large");
        }
        if self.version != 1 {
            return range("its version is not 1");
        }
        if !is_name(&self.issuer) || self.issuer.chars().any(char::is_control) {
            return range("its issuer is not named in 1 to 64 bytes without control characters");
        }
        if self.expires_at <= self.issued_at || self.expires_at - self.issued_at > LEASE_MILLIS_MAX {
            return range("it does not end within 31 days of its issue");
        }
        if seconds == Some(0) || holders.is_some_and(|count| count == 0 || count > HOLDERS_MAX as u64) {
            return range("a limit of no seconds, or not of 1 to 32 holders");
        }
        if !Origin::parse(&self.origin).is_ok_and(|origin| origin.fleet() == self.fleet) {
            return range("its origin is none of its fleet");
        }
        Ok(())
    }
}

/// A signed lease.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// What is said.
    pub content: LeaseContent,
    /// Certificates from the root's child down to the signer; empty when the root itself signs.
    pub chain: Vec<FleetCertificate>,
    /// Ed25519 signature over label "bulla/lease/v1".
    pub signature: OctetString,
}

/// Why a lease is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Not the bytes of a lease.
    #[error(transparent)]
    Der(#[from] DerError),
    /// It is for another log.
    #[error("it is for the log {0}")]
    OtherOrigin(String),
    /// No root signed it, directly or through its chain, and no hub that may.
    #[error("no root of this fleet vouches for it, and no hub whose leases are taken here")]
    NotVouchedFor,
}

/// A lease that a root or a hub vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLease(LeaseContent);

impl VerifiedLease {
    /// What it says.
    pub fn content(&self) -> &LeaseContent {
        &self.0
    }
}

impl Lease {
    /// Reads a lease without judging who signed it.
    ///
    /// # Errors
    /// Anything but the one encoding of a lease within its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let lease: Lease = der::decode("lease", bytes, LEASE_BYTES_MAX)?;
        let range = |reason| Err(DerError::Range { what: "lease", reason });
        if lease.chain.len() > CHAIN_MAX || lease.chain.iter().any(|each| each.content.version != 1) {
            return range("it has more than 4 fleet certificates, or one whose version is not 1");
        }
        let times = lease.chain.iter().flat_map(|each| [each.content.not_before, each.content.not_after]);
        if times.into_iter().any(|time| time > NUMBER_MAX) {
            return range("a time of a fleet certificate is too large");
        }
        lease.content.check()?;
        Ok(lease)
    }

    /// Verifies that it is for `origin`, and the chain from one of `roots` (Ed25519 public keys) down to it.
    ///
    /// # Errors
    /// It is for another log, or nobody vouches for it.
    pub fn verify(&self, origin: &Origin, roots: &[[u8; 32]]) -> Result<VerifiedLease, LeaseError> {
        let content = &self.content;
        if content.origin != origin.as_str() {
            return Err(LeaseError::OtherOrigin(content.origin.clone()));
        }
        let message = content.message();
        let vouched = roots.iter().any(|root| {
            let (fleet, at) = (&content.fleet, content.issued_at);
            chain_reaches(root, fleet, &self.chain, at, &message, &self.signature)
        });
        if vouched { Ok(VerifiedLease(content.clone())) } else { Err(LeaseError::NotVouchedFor) }
    }

    /// Verifies that it is for `origin`, and that the hub called `name` issued it: its Ed25519 key `key` has signed, with no
    /// certificate in between. Whether that hub may issue leases, the fleet's roster says.
    ///
    /// # Errors
    /// It is for another log, or another one's.
    pub fn verify_by_hub(
        &self,
        origin: &Origin,
        name: &str,
        key: &[u8; 32],
    ) -> Result<VerifiedLease, LeaseError> {
        let content = &self.content;
        if content.origin != origin.as_str() {
            return Err(LeaseError::OtherOrigin(content.origin.clone()));
        }
        let signed = PublicKey::from_bytes(Algorithm::Ed25519, key)
            .is_ok_and(|key| key.verify(&content.message(), &self.signature).is_ok());
        if content.issuer == name && self.chain.is_empty() && signed {
            return Ok(VerifiedLease(content.clone()));
        }
        Err(LeaseError::NotVouchedFor)
    }
}
