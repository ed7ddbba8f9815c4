//! Which algorithms sign stamps and certificates, each named in full; everything else is refused.
//!
//! Refuses to do: SHA-1, SHA-224, MD5, DSA, Ed25519 (no stock verifier of stamps takes it), a hash in the signature
//! that is not the one of the attributes, RSA below 2048 bits, PSS with a mask or salt of another hash.

use crate::der::{self, INTEGER, Malformed, NULL, OBJECT_IDENTIFIER, Reader, Result, SEQUENCE};
use crate::oid;
use rustls_pki_types::SignatureVerificationAlgorithm;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use webpki::ring as by;

/// `AlgorithmIdentifier`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AlgorithmIdentifier<'a> {
    pub oid: &'a [u8],
    /// The element after the identifier, whole.
    pub parameters: Option<&'a [u8]>,
}

impl<'a> AlgorithmIdentifier<'a> {
    pub fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let mut inside = reader.enter(SEQUENCE)?;
        let oid = inside.take(OBJECT_IDENTIFIER)?.content;
        let parameters = if inside.is_empty() { None } else { Some(inside.any()?.raw) };
        inside.end()?;
        Ok(AlgorithmIdentifier { oid, parameters })
    }

    fn is_plain(&self) -> bool {
        matches!(self.parameters, None | Some([NULL, 0]))
    }
}

/// A hash that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    pub fn of(algorithm: &AlgorithmIdentifier<'_>) -> Option<Self> {
        match algorithm.oid {
            oid::SHA256 if algorithm.is_plain() => Some(Digest::Sha256),
            oid::SHA384 if algorithm.is_plain() => Some(Digest::Sha384),
            oid::SHA512 if algorithm.is_plain() => Some(Digest::Sha512),
            _ => None,
        }
    }

    pub fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Digest::Sha256 => Sha256::digest(bytes).to_vec(),
            Digest::Sha384 => Sha384::digest(bytes).to_vec(),
            Digest::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn length(self) -> u64 {
        match self {
            Digest::Sha256 => 32,
            Digest::Sha384 => 48,
            Digest::Sha512 => 64,
        }
    }
}

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// What a signer's signature may be verified with: one for each kind of key that fits. `None` for what is not accepted.
pub(crate) fn of_signer(algorithm: &AlgorithmIdentifier<'_>, digest: Digest) -> Option<Vec<Algorithm>> {
    let plain = algorithm.is_plain();
    let rsa = |named: Option<Digest>| -> Option<Vec<Algorithm>> {
        if !plain || named.is_some_and(|named| named != digest) {
            return None;
        }
        Some(match digest {
            Digest::Sha256 => vec![by::RSA_PKCS1_2048_8192_SHA256],
            Digest::Sha384 => vec![by::RSA_PKCS1_2048_8192_SHA384],
            Digest::Sha512 => vec![by::RSA_PKCS1_2048_8192_SHA512],
        })
    };
    match algorithm.oid {
        oid::RSA_ENCRYPTION => rsa(None),
        oid::RSA_SHA256 => rsa(Some(Digest::Sha256)),
        oid::RSA_SHA384 => rsa(Some(Digest::Sha384)),
        oid::RSA_SHA512 => rsa(Some(Digest::Sha512)),
        oid::RSASSA_PSS if is_pss_of(algorithm.parameters?, digest).is_ok() => Some(match digest {
            Digest::Sha256 => vec![by::RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
            Digest::Sha384 => vec![by::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
            Digest::Sha512 => vec![by::RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
        }),
        oid::ECDSA_SHA256 if digest == Digest::Sha256 && algorithm.parameters.is_none() => {
            Some(vec![by::ECDSA_P256_SHA256, by::ECDSA_P384_SHA256])
        }
        oid::ECDSA_SHA384 if digest == Digest::Sha384 && algorithm.parameters.is_none() => {
            Some(vec![by::ECDSA_P256_SHA384, by::ECDSA_P384_SHA384])
        }
        _ => None,
    }
}

/// What an issuer's signature may be verified with: its algorithm names the hash.
pub(crate) fn of_issuer(algorithm: &AlgorithmIdentifier<'_>) -> Option<Vec<Algorithm>> {
    if algorithm.oid == oid::RSA_ENCRYPTION {
        return None;
    }
    [Digest::Sha256, Digest::Sha384, Digest::Sha512]
        .into_iter()
        .find_map(|digest| of_signer(algorithm, digest))
}

/// RFC 4055, 3.1: hash, mask by the same hash, salt as long as the hash; the trailer by default.
fn is_pss_of(parameters: &[u8], digest: Digest) -> Result<()> {
    let mut parameters = Reader::whole(parameters, SEQUENCE)?;
    let mut hash = parameters.enter(der::context(0))?;
    let mut mask = parameters.enter(der::context(1))?;
    let mut salt = parameters.enter(der::context(2))?;
    parameters.end()?;
    let same = |algorithm: &AlgorithmIdentifier<'_>| Digest::of(algorithm) == Some(digest);
    let hash_is = same(&AlgorithmIdentifier::read(&mut hash)?);
    let generator = AlgorithmIdentifier::read(&mut mask)?;
    let mut inner = Reader::new(generator.parameters.ok_or(Malformed)?);
    let mask_is = generator.oid == oid::MGF1 && same(&AlgorithmIdentifier::read(&mut inner)?);
    let salt_is = salt.take(INTEGER)?.number()? == digest.length();
    for reader in [hash, mask, salt, inner] {
        reader.end()?;
    }
    if hash_is && mask_is && salt_is { Ok(()) } else { Err(Malformed) }
}

/// What may stand between certificates.
pub(crate) static OF_CERTIFICATES: &[Algorithm] = &[
    by::ECDSA_P256_SHA256,
    by::ECDSA_P256_SHA384,
    by::ECDSA_P384_SHA256,
    by::ECDSA_P384_SHA384,
    by::RSA_PKCS1_2048_8192_SHA256,
    by::RSA_PKCS1_2048_8192_SHA384,
    by::RSA_PKCS1_2048_8192_SHA512,
    by::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    by::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    by::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];
