//! Public areas of the objects a box makes in its TPM.
//!
//! Invariant: noDA everywhere. Without it, every unorderly shutdown after a use counts towards dictionary-attack
//! lockout, and three power cuts would stop the box from signing.

use super::fault::{Fault, tss};
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{
    EccParameter, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Public,
    PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters, SymmetricDefinitionObject,
};

const WHAT: &str = "key template";

/// The attestation key: restricted, so that it signs only what the TPM made.
pub(super) fn attestation() -> Result<Public, Fault> {
    let attributes = common().with_sensitive_data_origin(true).with_sign_encrypt(true).with_restricted(true);
    signing(attributes)
}

/// A farewell key: as an attestation key, but a primary one, which this `unique` part of the template makes its own.
pub(super) fn farewell(unique: &[u8]) -> Result<Public, Fault> {
    let attributes = common().with_sensitive_data_origin(true).with_sign_encrypt(true).with_restricted(true);
    let x = EccParameter::try_from(unique.to_vec()).map_err(tss(WHAT))?;
    signing_with(attributes, EccPoint::new(x, EccParameter::default()))
}

/// A service key: signs any digest.
pub(super) fn service() -> Result<Public, Fault> {
    signing(common().with_sensitive_data_origin(true).with_sign_encrypt(true))
}

/// The storage key: parent of the service keys and of sealed objects.
pub(super) fn storage() -> Result<Public, Fault> {
    let attributes = common().with_sensitive_data_origin(true).with_decrypt(true).with_restricted(true);
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::AES_128_CFB)
        .with_ecc_scheme(EccScheme::Null)
        .with_is_decryption_key(true)
        .with_restricted(true);
    ecc(attributes, parameters)
}

/// A sealed object: the data comes from outside, hence no sensitiveDataOrigin.
pub(super) fn sealed() -> Result<Public, Fault> {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(build(common())?)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Default::default())
        .build()
        .map_err(tss(WHAT))
}

fn common() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .with_no_da(true)
}

fn build(attributes: ObjectAttributesBuilder) -> Result<ObjectAttributes, Fault> {
    attributes.build().map_err(tss(WHAT))
}

fn signing(attributes: ObjectAttributesBuilder) -> Result<Public, Fault> {
    signing_with(attributes, EccPoint::default())
}

fn signing_with(attributes: ObjectAttributesBuilder, unique: EccPoint) -> Result<Public, Fault> {
    let restricted = build(attributes)?.restricted();
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_is_signing_key(true)
        .with_restricted(restricted);
    ecc_with(attributes, parameters, unique)
}

fn ecc(attributes: ObjectAttributesBuilder, parameters: PublicEccParametersBuilder) -> Result<Public, Fault> {
    ecc_with(attributes, parameters, EccPoint::default())
}

fn ecc_with(
    attributes: ObjectAttributesBuilder,
    parameters: PublicEccParametersBuilder,
    unique: EccPoint,
) -> Result<Public, Fault> {
    let parameters = parameters
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .build()
        .map_err(tss(WHAT))?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(build(attributes)?)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(unique)
        .build()
        .map_err(tss(WHAT))
}
