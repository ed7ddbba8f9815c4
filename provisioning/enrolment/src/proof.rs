//! What a box proves, and to whom: the transcript of its request, and the proofs bound to it.
//!
//! Invariants: the attestation key is never an oracle: each qualifying datum is SHA-256 over a label and a structure that
//! names both sides, the connection, the registrar's nonce, the log's head and the purpose. Two purposes never share one.

use crate::wire::{Challenge, Request};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::sig::{label, labelled};
use bulla_formats::tpm::{TpmError, TpmtPublic};
use bulla_formats::trust::spoken;
use hmac::{Hmac, KeyInit, Mac};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use sha2::Sha256;

/// What a proof is for.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Purpose {
    /// The TPM with the endorsement key holds the attestation key.
    Activation = 0,
    /// State of the boot.
    Quote = 1,
    /// The TLS key lives in the TPM of the attestation key.
    TlsKey = 2,
    /// So does the issuing key.
    IssuingKey = 3,
    /// Value of the rollback counter.
    Counter = 4,
    /// The sender holds the log key.
    LogKey = 5,
}

/// The structure behind every proof.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
struct Statement {
    version: u64,
    purpose: Purpose,
    transcript: Octets32,
    registrar: Octets32,
    origin: String,
    attestation_key: OctetString,
    channel: Octets32,
    nonce: Octets32,
    head: TreeState,
}

/// Everything the proofs of one enrolment have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs {
    common: Statement,
}

impl Proofs {
    /// What `request` is to prove in answer to a challenge with this nonce that came through this connection.
    ///
    /// # Errors
    /// When the attestation key of the request is no public area.
    pub fn new(request: &Request, nonce: &[u8; 32], channel: &[u8; 32]) -> Result<Self, TpmError> {
        let name = TpmtPublic::parse(&request.attestation_key)?.name();
        let common = Statement {
            version: 1,
            purpose: Purpose::Activation,
            transcript: Octets32::new(request.transcript().0),
            registrar: request.registrar,
            origin: request.origin.clone(),
            attestation_key: name.into(),
            channel: Octets32::new(*channel),
            nonce: Octets32::new(*nonce),
            head: request.head.clone(),
        };
        Ok(Proofs { common })
    }

    /// The box's: what to prove in answer to `challenge`; `None` when it answers another request.
    pub fn of(request: &Request, challenge: &Challenge, channel: &[u8; 32]) -> Option<Self> {
        let fits = request.transcript().0 == *challenge.transcript;
        fits.then(|| Self::new(request, &challenge.nonce, channel).ok()).flatten()
    }

    /// "bulla/enrolment-proof/v1" || 0x00 || DER of the statement.
    pub fn message(&self, purpose: Purpose) -> Vec<u8> {
        labelled(label::ENROLMENT_PROOF, &der::encode(&Statement { purpose, ..self.common.clone() }))
    }

    /// Qualifying data of a quote or certification: SHA-256 of the message.
    pub fn qualifying(&self, purpose: Purpose) -> [u8; 32] {
        sha256(&[&self.message(purpose)]).0
    }

    /// HMAC-SHA-256 under the activated secret over the message of [`Purpose::Activation`]: the secret itself is not sent.
    pub fn activation(&self, secret: &[u8]) -> [u8; 32] {
        self.mac(secret).finalize().into_bytes().into()
    }

    /// Whether `answer` is that, in constant time.
    pub fn is_activation(&self, secret: &[u8], answer: &[u8; 32]) -> bool {
        self.mac(secret).verify_slice(answer).is_ok()
    }

    fn mac(&self, secret: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        mac.update(&self.message(Purpose::Activation));
        mac
    }
}

/// SHA-256("bulla/enrolment-request/v1" || 0x00 || DER of the request).
pub fn transcript(request: &[u8]) -> Hash {
    sha256(&[label::ENROLMENT_REQUEST.as_bytes(), &[0], request])
}

/// What the box shows and a person reads out: five groups of four characters, 100 bits of
/// SHA-256("bulla/enrolment-fingerprint/v1" || 0x00 || transcript).
pub fn fingerprint(transcript: &Hash) -> String {
    spoken(&sha256(&[label::ENROLMENT_FINGERPRINT.as_bytes(), &[0], &transcript.0]))
}

/// Under which a request is found: the first two groups of its fingerprint.
pub fn claim_code(transcript: &Hash) -> String {
    let mut code = fingerprint(transcript);
    code.truncate(9);
    code
}
