//! Succession: the fleet says that a log takes the place of a lost one, and whose cosignatures that one's last head has.
//!
//! Signed as a revocation is. Nothing depends on it: seals of either log verify without. It says where the evidence of
//! a branch goes on.
//! Refuses to do: prove the cosignatures; the roster that it names holds them, and whoever replays it verifies them.
//! Invariant: a [`VerifiedSuccession`] exists only for a statement whose chain ends in a given root.

use crate::der::{self, DerError, Octets32};
use crate::enrolment::{CHAIN_MAX, FleetCertificate, chain_reaches};
use crate::entry::{NUMBER_MAX, TreeState};
use crate::origin::Origin;
use crate::revocation::RevocationError;
use crate::sig::{label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest succession in bytes.
pub const SUCCESSION_BYTES_MAX: usize = 16_384;
/// Most holders that one names.
pub const HOLDERS_MAX: usize = 32;
/// Longest name of a cosigner's key in bytes.
const HOLDER_BYTES_MAX: usize = 255;

/// What the fleet says of two logs.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct SuccessionContent {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// The log that ended.
    pub predecessor: String,
    /// The log that takes its place; of another box.
    pub successor: String,
    /// The last head of the log that ended, as its holders have it; at least one entry.
    pub head: TreeState,
    /// Names of the keys whose cosignatures of that head the roster holds, ascending: `<origin>/mirror`,
    /// `<origin>/witness`.
    pub holders: Vec<String>,
    /// Number of the version of the roster by which both are so.
    pub roster: u64,
    /// Hash of that version.
    pub roster_hash: Octets32,
    /// When it was stated (Unix milliseconds, the fleet's clock).
    pub issued_at: u64,
}

impl SuccessionContent {
    /// The message its issuer signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::SUCCESSION, &der::encode(self))
    }
}

/// A signed succession.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Succession {
    /// What is said.
    pub content: SuccessionContent,
    /// Certificates from the root's child down to the signer; empty when the root itself signs.
    pub chain: Vec<FleetCertificate>,
    /// Ed25519 signature over label "bulla/succession/v1".
    pub signature: OctetString,
}

/// A succession that a root of the trust file vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSuccession(SuccessionContent);

impl VerifiedSuccession {
    /// What the fleet says.
    pub fn content(&self) -> &SuccessionContent {
        &self.0
    }
}

impl Succession {
    /// Reads a succession without judging it.
    ///
    /// # Errors
    /// Not one spelling of one succession, or a condition of docs/formats.md section 8 that it breaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let succession: Succession = der::decode("succession", bytes, SUCCESSION_BYTES_MAX)?;
        let content = &succession.content;
        let range = |reason| Err(DerError::Range { what: "succession", reason });
        if content.version != 1 || succession.chain.iter().any(|c| c.content.version != 1) {
            return range("its version is not 1");
        }
        let certified = succession.chain.iter().flat_map(|c| [c.content.not_before, c.content.not_after]);
        let numbers = [content.head.size, content.roster, content.issued_at];
        if numbers.into_iter().chain(certified).any(|number| number > NUMBER_MAX)
            || succession.chain.len() > CHAIN_MAX
        {
            return range("a number is too large, or it has more than 4 fleet certificates");
        }
        if content.head.size == 0 {
            return range("its head is that of nothing");
        }
        let (Ok(from), Ok(to)) = (Origin::parse(&content.predecessor), Origin::parse(&content.successor))
        else {
            return range("an origin is none");
        };
        if from.fleet() != content.fleet || to.fleet() != content.fleet || from.box_id() == to.box_id() {
            return range("its origins are not of two boxes of its fleet");
        }
        let named = |name: &String| {
            let plain = !name.contains('+') && !name.chars().any(|c| c.is_whitespace() || c.is_control());
            plain && (1..=HOLDER_BYTES_MAX).contains(&name.len())
        };
        let ascending = content.holders.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending
            || !(1..=HOLDERS_MAX).contains(&content.holders.len())
            || !content.holders.iter().all(named)
        {
            return range("its holders are not 1 to 32 names in ascending order");
        }
        Ok(succession)
    }

    /// Verifies the chain from one of `roots` (Ed25519 public keys) down to this succession.
    ///
    /// # Errors
    /// Of another fleet, or of nobody whom a root vouches for.
    pub fn verify(&self, fleet: &str, roots: &[[u8; 32]]) -> Result<VerifiedSuccession, RevocationError> {
        let content = &self.content;
        if content.fleet != fleet {
            return Err(RevocationError::OtherFleet(content.fleet.clone()));
        }
        let message = content.message();
        let vouched = roots.iter().any(|root| {
            chain_reaches(root, fleet, &self.chain, content.issued_at, &message, &self.signature)
        });
        if vouched { Ok(VerifiedSuccession(content.clone())) } else { Err(RevocationError::NotVouchedFor) }
    }
}
