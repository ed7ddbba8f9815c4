//! Attestation body: a checkpoint covered by a TPM quote, and the rollback counter beside it.
//!
//! Refuses to do: judge boot state; it records what the TPM said.
//! Invariant: a decoded body has a quote, or a reason for having none, never both and never neither.

use super::TEXT_BYTES_MAX;
use super::key_epoch::TpmQuote;
use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX, TreeState};
use crate::hash::{Hash, sha256};
use crate::sig::label;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// What the attestation key certifies together with the counter.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct CounterClaim {
    /// Log origin.
    pub origin: String,
    /// The head the value stands for.
    pub head: TreeState,
    /// Counter value.
    pub value: u64,
}

impl CounterClaim {
    /// Qualifying data: SHA-256("bulla/certify/counter/v1" || 0x00 || DER of this claim).
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[label::COUNTER.as_bytes(), &[0], &der::encode(self)])
    }
}

/// TPM2_NV_Certify of the rollback counter.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct CounterEvidence {
    /// Counter value.
    pub value: u64,
    /// TPMS_ATTEST of type NV.
    pub attest: OctetString,
    /// TPMT_SIGNATURE.
    pub signature: OctetString,
    /// TPMS_NV_PUBLIC of the counter.
    pub nv_public: OctetString,
}

/// What a checkpoint quote covers.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckpointClaim {
    /// Log origin.
    pub origin: String,
    /// Text of the checkpoint note (three lines, each ending in a line feed).
    pub text: OctetString,
}

impl CheckpointClaim {
    /// Qualifying data: SHA-256("bulla/quote/checkpoint/v1" || 0x00 || DER of this claim).
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[label::CHECKPOINT_QUOTE.as_bytes(), &[0], &der::encode(self)])
    }
}

/// Body of an `attestation` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttestationBody {
    /// The head attested.
    pub head: TreeState,
    /// The log key's Ed25519 signature over the checkpoint text of that head.
    pub log_signature: OctetString,
    /// The quote.
    #[rasn(tag(context, 0))]
    pub quote: Option<TpmQuote>,
    /// The counter.
    #[rasn(tag(context, 1))]
    pub counter: Option<CounterEvidence>,
    /// SHA-256 of the firmware event log, when there is one.
    #[rasn(tag(context, 2))]
    pub event_log: Option<Octets32>,
    /// Why there is no quote.
    #[rasn(tag(context, 3))]
    pub reason: Option<String>,
}

impl AttestationBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: AttestationBody = der::decode("attestation body", bytes, ENTRY_BYTES_MAX)?;
        let range = |reason| Err(DerError::Range { what: "attestation body", reason });
        if body.quote.is_some() == body.reason.is_some() {
            return range("it must have either a quote or the reason for having none");
        }
        if body.log_signature.len() != 64 || body.head.size > NUMBER_MAX {
            return range("its log signature is not 64 bytes or its size is too large");
        }
        if body.reason.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return range("its reason is longer than 1024 bytes");
        }
        body.quote.iter().try_for_each(|quote| quote.check("attestation body"))?;
        Ok(body)
    }
}
