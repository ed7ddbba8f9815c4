//! Endorsement: what a key-epoch entry must show before its sealing key counts, judged in one place
//! for a single `.seal` ([`crate::verify`]) and for a whole log ([`crate::audit`]).
//!
//! Refuses to do: judge boot state, or the order of epochs; the two callers do.
//! Invariant: the sealing key comes out of [`check_statement`] only for an entry whose header,
//! statement and hardware agree, and it counts only after [`check_endorsement`] too.

use crate::body::key_epoch::{
    Certification, Endorsement, EpochKey, KeyEpochBody, Purpose, key_certification_data,
};
use crate::enrolment::Hardware;
use crate::entry::{Entry, Residency};
use crate::hash::Hash;
use crate::sig::{Algorithm, PublicKey, SignatureError};
use crate::tpm::{self, TpmError, TpmtPublic};

/// The key an enrolment names for endorsements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttestationKey {
    /// A TPM's restricted key.
    Tpm(TpmtPublic),
    /// A software box's device key.
    Software(PublicKey),
}

/// Why a key-epoch entry or the attestation key behind it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndorsementError {
    /// Header, statement, enrolment and hardware contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// A key is no valid key, or the device key's signature does not verify.
    #[error("{what}: {error}")]
    Signature {
        /// Which key or signature.
        what: &'static str,
        /// What is wrong with it.
        error: SignatureError,
    },
    /// TPM evidence does not hold.
    #[error("{what}: {error}")]
    Tpm {
        /// Which evidence.
        what: &'static str,
        /// What is wrong with it.
        error: TpmError,
    },
}

fn at<T>(what: &'static str, result: Result<T, TpmError>) -> Result<T, EndorsementError> {
    result.map_err(|error| EndorsementError::Tpm { what, error })
}

impl AttestationKey {
    /// Reads the key of an enrolment: TPMT_PUBLIC of a restricted signing key, or a 65-byte P-256 point.
    pub fn read(hardware: Hardware, bytes: &[u8]) -> Result<Self, EndorsementError> {
        match hardware {
            Hardware::Tpm => {
                let key = at("the attestation key", TpmtPublic::parse(bytes))?;
                at("the attestation key", tpm::check_ak_template(&key))?;
                Ok(AttestationKey::Tpm(key))
            }
            Hardware::Software => {
                let what = "the device key";
                let key = PublicKey::from_bytes(Algorithm::P256, bytes);
                let key = key.map_err(|error| EndorsementError::Signature { what, error })?;
                Ok(AttestationKey::Software(key))
            }
        }
    }

    /// The TPM's key; `None` for a software box.
    pub fn tpm(&self) -> Option<&TpmtPublic> {
        match self {
            AttestationKey::Tpm(key) => Some(key),
            AttestationKey::Software(_) => None,
        }
    }
}

/// Checks that entry, statement and hardware say the same, and returns the sealing key introduced.
/// Neither the entry's signature nor the endorsement is checked here.
pub fn check_statement(
    entry: &Entry,
    body: &KeyEpochBody,
    origin: &str,
    hardware: Hardware,
) -> Result<PublicKey, EndorsementError> {
    let demand =
        |holds, otherwise| if holds { Ok(()) } else { Err(EndorsementError::Contradiction(otherwise)) };
    let (content, statement) = (entry.content(), &body.statement);
    demand(statement.origin == origin, "its statement names another log")?;
    demand(body.first_index == content.index, "its first index is not its own")?;
    demand(statement.epoch == content.epoch, "its epoch is not its statement's")?;
    let key = statement.sealing_key();
    demand(key.residency == content.residency, "its key lives elsewhere than it says")?;
    let fits = |key: &EpochKey| (hardware == Hardware::Software) == (key.residency == Residency::Software);
    demand(statement.keys.iter().all(fits), "a key's residency does not fit the box's hardware")?;
    for key in &statement.keys {
        PublicKey::from_bytes(key.algorithm, &key.public_key)
            .map_err(|error| EndorsementError::Signature { what: "a key of its epoch", error })?;
    }
    PublicKey::from_bytes(key.algorithm, &key.public_key)
        .map_err(|error| EndorsementError::Signature { what: "its sealing key", error })
}

/// Checks that `key` vouches for exactly this statement (which names its log), and for each key that claims to be in the TPM.
pub fn check_endorsement(body: &KeyEpochBody, key: &AttestationKey) -> Result<(), EndorsementError> {
    let qualifying = body.statement.qualifying_data();
    match (&body.endorsement, key) {
        (Endorsement::Quote(quote), AttestationKey::Tpm(ak)) => {
            let what = "the endorsing quote";
            let facts = at(what, tpm::verify_quote(ak, &quote.attest, &quote.signature, &qualifying.0))?;
            at(what, facts.check_pcrs(&quote.pcr_values()))?;
            let certified = |key: &EpochKey| match &key.certification {
                Some(certification) => check_certification(ak, key, certification),
                None => Ok(()),
            };
            body.statement.keys.iter().try_for_each(certified)
        }
        (Endorsement::Software(signature), AttestationKey::Software(key)) => {
            if verify_prehashed(key, &qualifying, signature) {
                return Ok(());
            }
            let what = "the device key's signature over the statement";
            Err(EndorsementError::Signature { what, error: SignatureError::BadSignature })
        }
        _ => Err(EndorsementError::Contradiction("its kind does not fit the box's hardware")),
    }
}

fn check_certification(
    ak: &TpmtPublic,
    key: &EpochKey,
    certification: &Certification,
) -> Result<(), EndorsementError> {
    let area = at("a TPM key's public area", TpmtPublic::parse(&certification.public_area))?;
    at("a TPM key's public area", tpm::check_signing_key_template(&area))?;
    let point = at("a TPM key's public area", area.p256_point())?;
    if key.algorithm != Algorithm::P256 || point[..] != key.public_key[..] {
        let what = "a certified public area is not the key it stands beside";
        return Err(EndorsementError::Contradiction(what));
    }
    let role = match key.purpose {
        Purpose::Sealing => "sealing",
        Purpose::Interop => "interop",
    };
    let (attest, signature) = (&certification.attest, &certification.signature);
    let qualifying = key_certification_data(role);
    let facts = tpm::verify_certify(ak, attest, signature, &qualifying.0, &area.name());
    at("a TPM key's certification", facts).map(drop)
}

/// Whether `key` has signed this digest itself.
pub(crate) fn verify_prehashed(key: &PublicKey, digest: &Hash, signature: &[u8]) -> bool {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    let (PublicKey::P256(key), Ok(signature)) = (key, p256::ecdsa::Signature::from_slice(signature)) else {
        return false;
    };
    key.verify_prehash(&digest.0, &signature).is_ok()
}
