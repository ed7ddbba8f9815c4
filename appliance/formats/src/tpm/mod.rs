//! TPM 2.0 evidence as bytes: what a TPM signed, with which kind of key, about which state.
//!
//! Does: strict parsing of TPMS_ATTEST, TPMT_PUBLIC, TPMT_SIGNATURE and TPMS_NV_PUBLIC (TPM 2.0 Library, Part 2),
//! and the checks that turn those bytes into facts. Needs no TPM and no TPM library.
//! Refuses: trailing bytes, sizes outside what the field allows, algorithms other than the few Bulla uses,
//! structures not made inside a TPM, and evidence signed by a key that could have signed anything else.
//! Invariant: no fact is returned before the signature, the magic number, the type and the qualifying data hold.

mod attest;
mod error;
mod nv_public;
mod public;
mod reader;
mod signature;
mod spki;

pub use attest::{Attest, Attested, ClockInfo};
pub use error::TpmError;
pub use nv_public::NvPublic;
pub use public::{EccCurve, HashAlgorithm, PublicKey, Scheme, Symmetric, TpmtPublic};
pub use signature::TpmtSignature;

use crate::hash::{Hash, sha256};
use p256::ecdsa::signature::Verifier;
use public::attributes;

/// What a verified TPM2_Quote says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteFacts {
    /// Milliseconds the TPM was powered since it was last cleared. Not UTC, and it may go back after a power cut.
    pub clock: u64,
    /// TPM resets (power cycles) since the TPM was last cleared.
    pub reset_count: u32,
    /// TPM restarts and resumes since the last reset.
    pub restart_count: u32,
    /// False when `clock` may have been seen before with the same value (the TPM was not shut down in order).
    pub safe: bool,
    /// The vendor's firmware version number.
    pub firmware: u64,
    /// Quoted PCR indexes of the SHA-256 bank, ascending, at least one.
    pub pcr_selection: Vec<u8>,
    /// SHA-256 over the concatenated PCR values in ascending order of index.
    pub pcr_digest: Hash,
}

impl QuoteFacts {
    /// Checks that `values` are the PCRs that were quoted: same indexes in ascending order, same digest.
    pub fn check_pcrs(&self, values: &[(u8, [u8; 32])]) -> Result<(), TpmError> {
        if !values.iter().map(|(index, _)| *index).eq(self.pcr_selection.iter().copied()) {
            return Err(TpmError::Mismatch { field: "quote.pcrSelect" });
        }
        if pcr_digest(values) != self.pcr_digest {
            return Err(TpmError::Mismatch { field: "quote.pcrDigest" });
        }
        Ok(())
    }
}

/// What a verified TPM2_Certify says: the key with this name is loaded in the TPM that holds the attestation key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertifyFacts {
    /// The clock at the moment of certification.
    pub clock_info: ClockInfo,
    /// The vendor's firmware version number.
    pub firmware: u64,
    /// Name of the certified key: name algorithm and digest of its public area.
    pub name: Vec<u8>,
    /// Qualified name: binds the name to all its ancestors in the hierarchy.
    pub qualified_name: Vec<u8>,
}

/// What a verified TPM2_NV_Certify of an 8-byte index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvFacts {
    /// The clock at the moment of certification.
    pub clock_info: ClockInfo,
    /// The vendor's firmware version number.
    pub firmware: u64,
    /// Name of the NV index; [`NvPublic::name`] of the index that was meant must equal it.
    pub index_name: Vec<u8>,
    /// The counter's value.
    pub counter: u64,
}

/// Verifies a quote by `ak` over `attest` with exactly `qualifying` as its qualifying data.
///
/// The PCR values themselves are checked with [`QuoteFacts::check_pcrs`]. TPM 2.0 Part 3, 18.4.
pub fn verify_quote(
    ak: &TpmtPublic,
    attest: &[u8],
    signature: &[u8],
    qualifying: &[u8; 32],
) -> Result<QuoteFacts, TpmError> {
    let attest = verify_attest(ak, attest, signature, qualifying)?;
    let Attested::Quote { pcr_selection, pcr_digest } = attest.attested else {
        return Err(TpmError::WrongType { expected: "quote", found: attest.attested.name() });
    };
    Ok(QuoteFacts {
        clock: attest.clock_info.clock,
        reset_count: attest.clock_info.reset_count,
        restart_count: attest.clock_info.restart_count,
        safe: attest.clock_info.safe,
        firmware: attest.firmware_version,
        pcr_selection,
        pcr_digest,
    })
}

/// Verifies that `ak` certified the key named `expected_name` ([`TpmtPublic::name`]). TPM 2.0 Part 3, 18.2.
pub fn verify_certify(
    ak: &TpmtPublic,
    attest: &[u8],
    signature: &[u8],
    qualifying: &[u8; 32],
    expected_name: &[u8],
) -> Result<CertifyFacts, TpmError> {
    let attest = verify_attest(ak, attest, signature, qualifying)?;
    let Attested::Certify { name, qualified_name } = attest.attested else {
        return Err(TpmError::WrongType { expected: "certify", found: attest.attested.name() });
    };
    if name != expected_name {
        return Err(TpmError::Mismatch { field: "certify.name" });
    }
    Ok(CertifyFacts {
        clock_info: attest.clock_info,
        firmware: attest.firmware_version,
        name,
        qualified_name,
    })
}

/// Verifies that `ak` certified the content of an 8-byte NV index, read from offset 0. TPM 2.0 Part 3, 31.16.
///
/// Which index that was, and that it is a counter, is checked with [`NvPublic::check_counter`] and by comparing names.
pub fn verify_nv_certify(
    ak: &TpmtPublic,
    attest: &[u8],
    signature: &[u8],
    qualifying: &[u8; 32],
) -> Result<NvFacts, TpmError> {
    let attest = verify_attest(ak, attest, signature, qualifying)?;
    let Attested::Nv { index_name, offset, contents } = attest.attested else {
        return Err(TpmError::WrongType { expected: "nv", found: attest.attested.name() });
    };
    if offset != 0 {
        return Err(TpmError::Value { field: "nv.offset", found: u64::from(offset), expected: "0" });
    }
    let counter = <[u8; 8]>::try_from(contents.as_slice()).map_err(|_| TpmError::Size {
        field: "nv.nvContents",
        found: contents.len(),
        allowed: "8",
    })?;
    Ok(NvFacts {
        clock_info: attest.clock_info,
        firmware: attest.firmware_version,
        index_name,
        counter: u64::from_be_bytes(counter),
    })
}

/// Checks that a public area is that of an attestation key: one that signs what the TPM itself made, and nothing else.
///
/// Required: ECC P-256 with ECDSA-SHA256, name algorithm SHA-256, restricted, sign, not decrypt, fixedTPM, fixedParent,
/// sensitiveDataOrigin, noDA; stClear and x509sign clear.
pub fn check_ak_template(public: &TpmtPublic) -> Result<(), TpmError> {
    check_p256_signer(public)?;
    public.require(attributes::RESTRICTED, true, "objectAttributes.restricted")?;
    if public.scheme != Scheme::Ecdsa(HashAlgorithm::Sha256) {
        return Err(TpmError::Template { field: "scheme", expected: "ECDSA with SHA-256" });
    }
    Ok(())
}

/// Checks that a public area is that of a service key that never left its TPM: unrestricted ECC P-256, sign only,
/// fixedTPM, fixedParent, sensitiveDataOrigin, noDA.
pub fn check_signing_key_template(public: &TpmtPublic) -> Result<(), TpmError> {
    check_p256_signer(public)?;
    if !matches!(public.scheme, Scheme::Null | Scheme::Ecdsa(HashAlgorithm::Sha256)) {
        return Err(TpmError::Template { field: "scheme", expected: "NULL, or ECDSA with SHA-256" });
    }
    public.require(attributes::RESTRICTED, false, "objectAttributes.restricted")
}

/// SHA-256 over the PCR values in the order given, which must be ascending by index (as the TPM does it).
///
/// [`QuoteFacts::check_pcrs`] also compares the indexes; use it wherever a quote is at hand.
pub fn pcr_digest(values: &[(u8, [u8; 32])]) -> Hash {
    let parts: Vec<&[u8]> = values.iter().map(|(_, value)| value.as_slice()).collect();
    sha256(&parts)
}

fn check_p256_signer(public: &TpmtPublic) -> Result<(), TpmError> {
    public.p256_point()?;
    if public.name_algorithm != HashAlgorithm::Sha256 {
        return Err(TpmError::Template { field: "nameAlg", expected: "SHA-256" });
    }
    if public.symmetric != Symmetric::Null {
        return Err(TpmError::Template { field: "symmetric", expected: "NULL" });
    }
    public.require(attributes::SIGN, true, "objectAttributes.sign")?;
    public.require(attributes::DECRYPT, false, "objectAttributes.decrypt")?;
    public.require(attributes::FIXED_TPM, true, "objectAttributes.fixedTPM")?;
    public.require(attributes::FIXED_PARENT, true, "objectAttributes.fixedParent")?;
    public.require(attributes::SENSITIVE_DATA_ORIGIN, true, "objectAttributes.sensitiveDataOrigin")?;
    public.require(attributes::NO_DA, true, "objectAttributes.noDA")?;
    public.require(attributes::ST_CLEAR, false, "objectAttributes.stClear")?;
    public.require(attributes::X509_SIGN, false, "objectAttributes.x509sign")
}

/// Everything all attestation types share. The signature is checked over the raw bytes before they are parsed.
fn verify_attest(
    ak: &TpmtPublic,
    attest: &[u8],
    signature: &[u8],
    qualifying: &[u8; 32],
) -> Result<Attest, TpmError> {
    // An unrestricted key signs any digest, so its "attestations" could be forged by whoever may use it.
    check_ak_template(ak)?;
    let signature = TpmtSignature::parse(signature)?.to_p256()?;
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&ak.p256_point()?)
        .map_err(|_| TpmError::Point { field: "unique" })?;
    key.verify(attest, &signature).map_err(|_| TpmError::Signature)?;
    let attest = Attest::parse(attest)?;
    if attest.extra_data != qualifying {
        return Err(TpmError::Mismatch { field: "extraData" });
    }
    Ok(attest)
}
