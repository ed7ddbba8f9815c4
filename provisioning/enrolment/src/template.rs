//! Public areas that a registrar accepts: of the endorsement key, of the attestation key, of service keys and counter.
//!
//! Refuses: an endorsement key that is none of the TCG's templates, keys that could leave their TPM or sign what others
//! made, a counter that could repeat itself.
//! Invariant: names are computed over the bytes that were presented.

use crate::refusal::{Code, Judged, Refusal};
use bulla_formats::hash::sha256;
use bulla_formats::tpm::{
    EccCurve, HashAlgorithm, NvPublic, PublicKey, Scheme, Symmetric, TpmtPublic, check_ak_template,
    check_signing_key_template,
};
use sha2::{Digest, Sha384};

/// TPMA_OBJECT, Part 2, 8.3.
const ST_CLEAR: u32 = 1 << 2;
const ENCRYPTED_DUPLICATION: u32 = 1 << 11;
const SIGN: u32 = 1 << 18;
const X509_SIGN: u32 = 1 << 19;
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt: what all templates share.
const EK_SET: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 16 | 1 << 17;
const EK_CLEAR: u32 = ST_CLEAR | ENCRYPTED_DUPLICATION | SIGN | X509_SIGN;
/// Policies of the templates (EK Credential Profile 2.5, B.3, B.4, B.6): PolicyA and PolicyB.
const POLICIES: [&str; 3] = [
    "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
    "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0",
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
];
/// TPM_RH_ENDORSEMENT: the parent of an endorsement key.
const ENDORSEMENT: u32 = 0x4000_000b;

/// An endorsement key of one of the templates that a credential can be made for.
pub fn endorsement_key(public: &[u8]) -> Judged<TpmtPublic> {
    let refused = |why: String| Err(Refusal::new(Code::EkTemplate, format!("the endorsement key {why}")));
    let key = match TpmtPublic::parse(public) {
        Ok(key) => key,
        Err(error) => return refused(format!("is no public area of a TPM: {error}")),
    };
    if key.attributes & EK_SET != EK_SET || key.attributes & EK_CLEAR != 0 {
        return refused(format!("has attributes {:#010x}, which no endorsement key has", key.attributes));
    }
    if !POLICIES.contains(&hex::encode(&key.policy).as_str()) {
        return refused("has a policy that is none of the TCG's".into());
    }
    let (hash, cipher) = match &key.key {
        PublicKey::Ecc { curve: EccCurve::P384, .. } => (HashAlgorithm::Sha384, 256),
        PublicKey::Ecc { curve: EccCurve::P256, .. } => (HashAlgorithm::Sha256, 128),
        PublicKey::Rsa { modulus, exponent: 65_537 } if modulus.len() == 256 => (HashAlgorithm::Sha256, 128),
        PublicKey::Rsa { modulus, exponent } => {
            let bits = modulus.len() * 8;
            return refused(format!(
                "is RSA-{bits} with exponent {exponent}; a credential is made for P-384, P-256 and RSA-2048 with 65537"
            ));
        }
    };
    if key.name_algorithm != hash || key.symmetric != Symmetric::AesCfb(cipher) || key.scheme != Scheme::Null
    {
        return refused("names another hash, cipher or scheme than its template".into());
    }
    Ok(key)
}

/// An attestation key: signs only what its TPM made, and never leaves it.
pub fn attestation_key(public: &[u8]) -> Judged<TpmtPublic> {
    let key = TpmtPublic::parse(public).and_then(|key| check_ak_template(&key).map(|()| key));
    key.map_err(|error| {
        Refusal::new(Code::AttestationKeyTemplate, format!("the attestation key is not one: {error}"))
    })
}

/// A key that signs digests and never leaves its TPM; `what` names it.
pub fn service_key(what: &str, public: &[u8]) -> Judged<TpmtPublic> {
    let key = TpmtPublic::parse(public).and_then(|key| check_signing_key_template(&key).map(|()| key));
    key.map_err(|error| {
        Refusal::new(Code::ServiceKeyTemplate, format!("the {what} key cannot be trusted to stay: {error}"))
    })
}

/// A rollback counter.
pub fn counter(public: &[u8]) -> Judged<NvPublic> {
    let counter = NvPublic::parse(public).and_then(|counter| counter.check_counter().map(|()| counter));
    counter.map_err(|error| {
        Refusal::new(Code::CounterTemplate, format!("the counter is no rollback counter: {error}"))
    })
}

/// Qualified name of an attestation key that was made under this endorsement key. TPM 2.0 Part 1, 16.
///
/// Only a key in the endorsement hierarchy shows clock, resets and firmware as they are (Part 1, 36.7).
pub fn qualified_name(ek: &TpmtPublic, attestation_key: &TpmtPublic) -> Vec<u8> {
    let parent = [&ENDORSEMENT.to_be_bytes()[..], &ek.name()].concat();
    let digest = match ek.name_algorithm {
        HashAlgorithm::Sha256 => sha256(&[&parent]).0.to_vec(),
        HashAlgorithm::Sha384 => Sha384::digest(&parent).to_vec(),
    };
    let ek = [&ek.name_algorithm.id().to_be_bytes()[..], &digest].concat();
    [&[0x00, 0x0b][..], &sha256(&[&ek, &attestation_key.name()]).0].concat()
}
