//! Revocation: the fleet says that a log is given up, why, and what of it is good all the same.
//!
//! Signed by the fleet root, or by a fleet CA that the root certified, like an enrolment; so it speaks for itself in a
//! trust file and in a `.seal`.
//! Refuses to do: judge a token; [`crate::verify`] does.
//! Invariant: a [`VerifiedRevocation`] exists only for a statement whose chain ends in a given root.

use crate::der::{self, DerError, Octets32};
use crate::enrolment::{CHAIN_MAX, FleetCertificate, chain_reaches};
use crate::entry::{NUMBER_MAX, TreeState};
use crate::hash::{Hash, empty_root};
use crate::origin::Origin;
use crate::sig::{label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest revocation in bytes.
pub const REVOCATION_BYTES_MAX: usize = 8_192;
/// Most revocations in one `.seal`.
pub const REVOCATIONS_MAX: usize = 16;

/// Why a log is given up.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Cause {
    /// Somebody else may have used its keys: what is not under the last good tree is worth nothing by itself.
    Compromise = 0,
    /// Its box has served its time: everything it sealed stays good.
    Retirement = 1,
    /// Its box is broken and another one takes its place: everything it sealed stays good.
    Replaced = 2,
}

impl Cause {
    /// Name in texts and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Compromise => "compromise",
            Cause::Retirement => "retirement",
            Cause::Replaced => "replaced",
        }
    }
}

/// What the fleet says of a log.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RevocationContent {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// The log.
    pub origin: String,
    /// Why.
    pub cause: Cause,
    /// The last tree that is known to be good; of no entries when none is.
    pub good: TreeState,
    /// From when on its keys may have been in other hands, or its service had ended (Unix milliseconds).
    pub invalid_from: u64,
    /// Number of the version of the roster that says so.
    pub roster: u64,
    /// Hash of that version.
    pub roster_hash: Octets32,
    /// When it was stated (Unix milliseconds, the fleet's clock).
    pub issued_at: u64,
}

impl RevocationContent {
    /// The message its issuer signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::REVOCATION, &der::encode(self))
    }
}

/// A signed revocation.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// What is said.
    pub content: RevocationContent,
    /// Certificates from the root's child down to the signer; empty when the root itself signs.
    pub chain: Vec<FleetCertificate>,
    /// Ed25519 signature over label "bulla/revocation/v1".
    pub signature: OctetString,
}

/// Why a revocation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Not the bytes of a revocation.
    #[error(transparent)]
    Der(#[from] DerError),
    /// It is of another fleet than the trust file.
    #[error("it is of the fleet {0}")]
    OtherFleet(String),
    /// No root of the trust file signed it, directly or through its chain.
    #[error("no root of the trust file vouches for it")]
    NotVouchedFor,
}

/// A revocation that a root of the trust file vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRevocation(RevocationContent);

impl VerifiedRevocation {
    /// What the fleet says.
    pub fn content(&self) -> &RevocationContent {
        &self.0
    }
}

impl Revocation {
    /// Reads a revocation without judging it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let revocation: Revocation = der::decode("revocation", bytes, REVOCATION_BYTES_MAX)?;
        let content = &revocation.content;
        let range = |reason| Err(DerError::Range { what: "revocation", reason });
        if content.version != 1 || revocation.chain.iter().any(|c| c.content.version != 1) {
            return range("its version is not 1");
        }
        let certified = revocation.chain.iter().flat_map(|c| [c.content.not_before, c.content.not_after]);
        let numbers = [content.good.size, content.invalid_from, content.roster, content.issued_at];
        if numbers.into_iter().chain(certified).any(|number| number > NUMBER_MAX)
            || revocation.chain.len() > CHAIN_MAX
        {
            return range("a number is too large, or it has more than 4 fleet certificates");
        }
        if content.good.size == 0 && Hash(*content.good.root) != empty_root() {
            return range("the tree of no entries has another root");
        }
        if !Origin::parse(&content.origin).is_ok_and(|origin| origin.fleet() == content.fleet) {
            return range("its origin is none of its fleet");
        }
        Ok(revocation)
    }

    /// Verifies the chain from one of `roots` (Ed25519 public keys) down to this revocation.
    pub fn verify(&self, fleet: &str, roots: &[[u8; 32]]) -> Result<VerifiedRevocation, RevocationError> {
        let content = &self.content;
        if content.fleet != fleet {
            return Err(RevocationError::OtherFleet(content.fleet.clone()));
        }
        let message = content.message();
        let vouched = roots.iter().any(|root| {
            chain_reaches(root, fleet, &self.chain, content.issued_at, &message, &self.signature)
        });
        if vouched { Ok(VerifiedRevocation(content.clone())) } else { Err(RevocationError::NotVouchedFor) }
    }
}

/// A revocation in a `.seal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationEvidence {
    /// DER of the revocation.
    pub statement: Vec<u8>,
    /// Inclusion proof of the token in the last good tree, if it stands there and somebody has looked.
    pub entry_proof: Option<Vec<Vec<u8>>>,
}
