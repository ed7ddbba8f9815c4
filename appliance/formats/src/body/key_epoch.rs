//! Key-epoch body: the public keys of an epoch, and who vouches for them.
//!
//! The entry that carries it is signed by the very sealing key it introduces, so holding the secret
//! is proven; the endorsement proves where the key lives.
//! Refuses to do: judge the endorsement (see [`crate::verify`]).
//! Invariant: a decoded statement has exactly one sealing key.

use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX, Residency};
use crate::hash::{Hash, sha256};
use crate::sig::{Algorithm, label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most keys in one epoch.
pub const EPOCH_KEYS_MAX: usize = 8;

/// What a key of the epoch is for.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Purpose {
    /// Signs entries.
    Sealing = 0,
    /// Signs RFC 3161 tokens and CMS for stock tools.
    Interop = 1,
}

/// Qualifying data under which the attestation key certifies the key of a role (`sealing`,
/// `interop`, `tls`, `issuing`): SHA-256("bulla/certify/key/v1" || 0x00 || role).
///
/// It names no origin on purpose: a key inside the TPM outlives a log. What binds it to a log is the
/// epoch statement, whose own quote does name the origin.
pub fn key_certification_data(role: &str) -> Hash {
    sha256(&[label::KEY.as_bytes(), &[0], role.as_bytes()])
}

/// TPM2_Certify of a key by the attestation key.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Certification {
    /// TPMT_PUBLIC of the certified key.
    pub public_area: OctetString,
    /// TPMS_ATTEST.
    pub attest: OctetString,
    /// TPMT_SIGNATURE.
    pub signature: OctetString,
}

/// One public key of an epoch.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct EpochKey {
    /// What it signs.
    pub purpose: Purpose,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Where its secret lives.
    pub residency: Residency,
    /// 32 bytes (Ed25519) or 65 bytes (P-256, uncompressed).
    pub public_key: OctetString,
    /// Present exactly for keys inside the TPM.
    #[rasn(tag(context, 0))]
    pub certification: Option<Certification>,
}

/// What an endorsement covers.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct EpochStatement {
    /// 1.
    pub version: u64,
    /// Log origin.
    pub origin: String,
    /// Epoch number, from 0, without gaps.
    pub epoch: u64,
    /// Leaf hash of the key-epoch entry before; absent exactly in epoch 0.
    #[rasn(tag(context, 0))]
    pub previous: Option<Octets32>,
    /// Every key of the epoch.
    pub keys: Vec<EpochKey>,
}

impl EpochStatement {
    /// Qualifying data of the quote, and digest of the software endorsement:
    /// SHA-256("bulla/quote/epoch/v1" || 0x00 || DER of this statement).
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[label::EPOCH.as_bytes(), &[0], &der::encode(self)])
    }

    /// Message the previous epoch's sealing key signs.
    pub fn successor_message(&self) -> Vec<u8> {
        labelled(label::EPOCH_SUCCESSOR, &der::encode(self))
    }

    /// The key that signs entries.
    pub fn sealing_key(&self) -> &EpochKey {
        self.keys
            .iter()
            .find(|key| key.purpose == Purpose::Sealing)
            .expect("check() demands exactly one sealing key")
    }

    fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "epoch statement", reason });
        if self.version != 1 {
            return range("its version is not 1");
        }
        if self.epoch > NUMBER_MAX || (self.epoch == 0) != self.previous.is_none() {
            return range("it must name the epoch before it, except in epoch 0");
        }
        if self.keys.len() > EPOCH_KEYS_MAX
            || self.keys.iter().filter(|k| k.purpose == Purpose::Sealing).count() != 1
        {
            return range("it must have exactly one sealing key and at most 8 keys");
        }
        if self.keys.iter().any(|k| (k.residency == Residency::Tpm) != k.certification.is_some()) {
            return range("exactly the keys inside the TPM carry a certification");
        }
        Ok(())
    }
}

/// One PCR of the SHA-256 bank.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct PcrValue {
    /// PCR number, 0 to 23.
    pub pcr: u8,
    /// Its value.
    pub value: Octets32,
}

/// A quote with the PCR values it covers.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct TpmQuote {
    /// TPMS_ATTEST.
    pub attest: OctetString,
    /// TPMT_SIGNATURE.
    pub signature: OctetString,
    /// PCR values in ascending order.
    pub pcrs: Vec<PcrValue>,
}

impl TpmQuote {
    /// A TPM has PCRs 0 to 23.
    pub(crate) fn check(&self, what: &'static str) -> Result<(), DerError> {
        if self.pcrs.iter().any(|value| value.pcr > 23) {
            return Err(DerError::Range { what, reason: "it has the value of a PCR above 23" });
        }
        Ok(())
    }

    /// The PCR values as number and value.
    pub fn pcr_values(&self) -> Vec<(u8, [u8; 32])> {
        self.pcrs.iter().map(|p| (p.pcr, *p.value)).collect()
    }
}

/// Who vouches for an epoch statement.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Endorsement {
    /// A quote whose qualifying data is [`EpochStatement::qualifying_data`].
    #[rasn(tag(context, 0))]
    Quote(TpmQuote),
    /// Without TPM: ECDSA P-256 (r || s) of the device key over the same 32 bytes as digest.
    #[rasn(tag(context, 1))]
    Software(OctetString),
}

/// Body of a `key-epoch` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyEpochBody {
    /// What is endorsed.
    pub statement: EpochStatement,
    /// Index of the first entry of the epoch: this entry's own.
    pub first_index: u64,
    /// Whether the epoch before outlived its policy because no endorsement could be had.
    pub previous_extended: bool,
    /// The endorsement.
    pub endorsement: Endorsement,
    /// Signature of the previous epoch's sealing key over [`EpochStatement::successor_message`];
    /// absent when that key was gone (after every restart).
    #[rasn(tag(context, 0))]
    pub predecessor: Option<OctetString>,
    /// DER of the enrolment; present exactly in entry 0 of a log.
    #[rasn(tag(context, 1))]
    pub enrolment: Option<OctetString>,
}

impl KeyEpochBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: KeyEpochBody = der::decode("key-epoch body", bytes, ENTRY_BYTES_MAX)?;
        body.statement.check()?;
        if let Endorsement::Quote(quote) = &body.endorsement {
            quote.check("key-epoch body")?;
        }
        if (body.first_index == 0) != body.enrolment.is_some() || body.first_index > NUMBER_MAX {
            let reason = "exactly the first entry of a log carries an enrolment";
            return Err(DerError::Range { what: "key-epoch body", reason });
        }
        if (body.first_index == 0) != (body.statement.epoch == 0) {
            let reason = "exactly the first entry of a log starts epoch 0";
            return Err(DerError::Range { what: "key-epoch body", reason });
        }
        let signed = body.predecessor.as_ref();
        if signed.is_some_and(|signature| signature.len() != 64 || body.statement.epoch == 0) {
            let reason = "a predecessor's signature is 64 bytes, and epoch 0 has no predecessor";
            return Err(DerError::Range { what: "key-epoch body", reason });
        }
        Ok(body)
    }
}
