//! Enrolment: the fleet says which TPM, which attestation key and which log key belong together.
//!
//! Signed by the fleet root, or by a fleet CA that the root certified. A fleet of one signs its own.
//! Refuses to do: judge the EK certificate (that happened at enrolment) or revocation.
//! Invariant: a [`VerifiedEnrolment`] exists only for an enrolment whose chain ends in a given root.

use crate::der::{self, DerError, Octets32};
use crate::entry::NUMBER_MAX;
use crate::hash::Hash;
use crate::origin::{Origin, OriginError};
use crate::sig::{Algorithm, PublicKey, SignatureError, label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest enrolment in bytes; it fits into entry 0 together with a quote.
pub const ENROLMENT_BYTES_MAX: usize = 32_768;
/// Most fleet certificates between root and enrolment.
pub const CHAIN_MAX: usize = 4;

/// What the keys of a box rest on.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Hardware {
    /// A TPM 2.0.
    Tpm = 0,
    /// Nothing; a laptop.
    Software = 1,
}

/// What a fleet certificate lets its key do.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum FleetRole {
    /// Signs enrolments.
    FleetCa = 0,
}

/// What the issuer of a fleet certificate signs.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct FleetCertificateContent {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// What the key may do.
    pub role: FleetRole,
    /// Ed25519 public key.
    pub public_key: Octets32,
    /// First millisecond of validity (Unix).
    pub not_before: u64,
    /// Last millisecond of validity (Unix).
    pub not_after: u64,
}

/// A key of the fleet, certified by the key above it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct FleetCertificate {
    /// What is certified.
    pub content: FleetCertificateContent,
    /// Ed25519 signature over label "bulla/fleet-certificate/v1".
    pub signature: OctetString,
}

/// What the fleet says of a box.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnrolmentContent {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// Log origin.
    pub origin: String,
    /// TPM or not.
    pub hardware: Hardware,
    /// SHA-256 of the EK's SubjectPublicKeyInfo (software: of the device key's).
    pub ek_spki_sha256: Octets32,
    /// EK certificates, DER X.509, leaf first; empty without TPM.
    pub ek_certificates: Vec<OctetString>,
    /// TPMT_PUBLIC of the attestation key (software: the device key, 65-byte P-256 point).
    pub attestation_key: OctetString,
    /// Ed25519 public key of the log.
    pub log_key: Octets32,
    /// When it was enrolled (Unix milliseconds, the enroller's clock).
    pub enrolled_at: u64,
}

/// A signed enrolment.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Enrolment {
    /// What is said.
    pub content: EnrolmentContent,
    /// Certificates from the root's child down to the signer; empty when the root itself signs.
    pub chain: Vec<FleetCertificate>,
    /// Ed25519 signature over label "bulla/enrolment/v1".
    pub signature: OctetString,
}

/// Why an enrolment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// Not the bytes of an enrolment.
    #[error(transparent)]
    Der(#[from] DerError),
    /// The origin is no origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The origin does not follow from fleet and EK.
    #[error("the origin {0} does not follow from the fleet and the endorsement key")]
    OriginMismatch(String),
    /// It is of another fleet than the trust file.
    #[error("it belongs to fleet {found}, the trust file to fleet {expected}")]
    OtherFleet {
        /// Fleet in the enrolment.
        found: String,
        /// Fleet of the trust file.
        expected: String,
    },
    /// No root of the trust file signed it, directly or through its chain.
    #[error("no root of the trust file vouches for it: {0}")]
    NotVouchedFor(&'static str),
}

/// An enrolment that a root of the trust file vouches for.
#[derive(Debug, Clone)]
pub struct VerifiedEnrolment {
    content: EnrolmentContent,
    origin: Origin,
    log_key: PublicKey,
    by_root: bool,
}

impl VerifiedEnrolment {
    /// What the fleet says.
    pub fn content(&self) -> &EnrolmentContent {
        &self.content
    }
    /// The log's origin.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
    /// The log's key.
    pub fn log_key(&self) -> &PublicKey {
        &self.log_key
    }
    /// Whether the root itself signed it, and no fleet CA in between.
    pub fn by_root(&self) -> bool {
        self.by_root
    }
}

impl EnrolmentContent {
    /// The message its issuer signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::ENROLMENT, &der::encode(self))
    }
}

impl FleetCertificateContent {
    /// The message its issuer signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::FLEET_CERTIFICATE, &der::encode(self))
    }
}

impl Enrolment {
    /// Reads an enrolment without judging it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let enrolment: Enrolment = der::decode("enrolment", bytes, ENROLMENT_BYTES_MAX)?;
        let content = &enrolment.content;
        let range = |reason| Err(DerError::Range { what: "enrolment", reason });
        if content.version != 1 || enrolment.chain.iter().any(|c| c.content.version != 1) {
            return range("its version is not 1");
        }
        let late =
            |c: &FleetCertificate| c.content.not_before > NUMBER_MAX || c.content.not_after > NUMBER_MAX;
        if content.enrolled_at > NUMBER_MAX
            || enrolment.chain.iter().any(late)
            || enrolment.chain.len() > CHAIN_MAX
            || content.ek_certificates.len() > 8
        {
            return range("a number is too large, or it has more than 4 fleet or 8 EK certificates");
        }
        Ok(enrolment)
    }

    /// Verifies the chain from one of `roots` (Ed25519 public keys) down to this enrolment.
    pub fn verify(&self, fleet: &str, roots: &[[u8; 32]]) -> Result<VerifiedEnrolment, EnrolmentError> {
        let content = &self.content;
        if content.fleet != fleet {
            let (found, expected) = (content.fleet.clone(), fleet.to_owned());
            return Err(EnrolmentError::OtherFleet { found, expected });
        }
        let message = content.message();
        let vouched = roots.iter().any(|root| {
            chain_reaches(root, fleet, &self.chain, content.enrolled_at, &message, &self.signature)
        });
        if !vouched {
            return Err(EnrolmentError::NotVouchedFor(
                "its signature or its certificate chain does not lead to one",
            ));
        }
        let origin = Origin::parse(&content.origin)?;
        if !origin.belongs_to(fleet, &Hash(*content.ek_spki_sha256)) {
            return Err(EnrolmentError::OriginMismatch(content.origin.clone()));
        }
        let log_key = PublicKey::from_bytes(Algorithm::Ed25519, &*content.log_key)
            .map_err(|_| EnrolmentError::NotVouchedFor("its log key is not a valid key"))?;
        let by_root = self.chain.is_empty();
        Ok(VerifiedEnrolment { content: content.clone(), origin, log_key, by_root })
    }
}

/// Whether `signature` over `message`, made at `at`, is of `root` itself or of the last key that `chain` certifies from it
/// down, in `fleet`.
pub(crate) fn chain_reaches(
    root: &[u8; 32],
    fleet: &str,
    chain: &[FleetCertificate],
    at: u64,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let walk = || -> Result<bool, SignatureError> {
        let mut signer = PublicKey::from_bytes(Algorithm::Ed25519, root)?;
        for certificate in chain {
            signer.verify(&certificate.content.message(), &certificate.signature)?;
            let valid = certificate.content.not_before..=certificate.content.not_after;
            if certificate.content.fleet != fleet || !valid.contains(&at) {
                return Ok(false);
            }
            signer = PublicKey::from_bytes(Algorithm::Ed25519, &*certificate.content.public_key)?;
        }
        signer.verify(message, signature)?;
        Ok(true)
    };
    walk().unwrap_or(false)
}
