//! TPM structures field by field, so that a vector can spoil exactly one of them before it is signed.
//!
//! The bytes are those a TPM makes; the key that signs them here is a plain P-256 key.
//! Refuses to do: check anything; making wrong structures is the point.

use super::keys;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::tpm::pcr_digest;

/// TPM_ALG_SHA256.
pub(super) const SHA256: [u8; 2] = [0, 0x0b];
/// TPM_ALG_SHA384.
pub(super) const SHA384: [u8; 2] = [0, 0x0c];
/// TPM_ALG_NULL.
pub(super) const NULL: [u8; 2] = [0, 0x10];
/// TPM_ALG_ECDSA.
pub(super) const ECDSA: [u8; 2] = [0, 0x18];

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign.
const SIGNING_KEY: u32 = 0x0004_0472;
pub(super) const RESTRICTED: u32 = 1 << 16;

/// `u16(length) || bytes`.
pub(super) fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("the structures here are a few hundred bytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// A name: algorithm and digest.
pub(super) fn name_of(structure: &[u8]) -> Vec<u8> {
    [&SHA256[..], &sha256(&[structure]).0].concat()
}

/// TPMT_PUBLIC of a P-256 key.
pub(super) struct PublicArea {
    pub(super) kind: [u8; 2],
    pub(super) name_algorithm: [u8; 2],
    pub(super) attributes: u32,
    pub(super) policy: Vec<u8>,
    pub(super) symmetric: Vec<u8>,
    pub(super) scheme: Vec<u8>,
    pub(super) curve: [u8; 2],
    pub(super) kdf: [u8; 2],
    pub(super) x: Vec<u8>,
    pub(super) y: Vec<u8>,
    pub(super) tail: Vec<u8>,
}

impl PublicArea {
    /// A signing key that never left its TPM; an attestation key when `restricted`.
    pub(super) fn of(key: &p256::ecdsa::SigningKey, restricted: bool) -> Self {
        let point = keys::point(key);
        PublicArea {
            kind: [0, 0x23],
            name_algorithm: SHA256,
            attributes: SIGNING_KEY | if restricted { RESTRICTED } else { 0 },
            policy: Vec::new(),
            symmetric: NULL.to_vec(),
            scheme: [ECDSA, SHA256].concat(),
            curve: [0, 3],
            kdf: NULL,
            x: point[1..33].to_vec(),
            y: point[33..].to_vec(),
            tail: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [
            &self.kind[..],
            &self.name_algorithm,
            &self.attributes.to_be_bytes(),
            &sized(&self.policy),
            &self.symmetric,
            &self.scheme,
            &self.curve,
            &self.kdf,
            &sized(&self.x),
            &sized(&self.y),
            &self.tail,
        ]
        .concat()
    }
}

/// What an attestation is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Quote that endorses an epoch.
    Epoch,
    /// Certification of a key.
    Key,
    /// Quote over a checkpoint.
    Checkpoint,
}

/// TPMS_ATTEST before it is signed, and the key that will sign it.
pub(super) struct Attest {
    pub(super) purpose: Use,
    pub(super) signer: p256::ecdsa::SigningKey,
    pub(super) magic: u32,
    pub(super) kind: u16,
    pub(super) qualified_signer: Vec<u8>,
    pub(super) extra_data: Vec<u8>,
    pub(super) clock: u64,
    pub(super) safe: u8,
    pub(super) attested: Vec<u8>,
    pub(super) tail: Vec<u8>,
}

impl Attest {
    pub(super) fn new(
        purpose: Use,
        signer: p256::ecdsa::SigningKey,
        qualifying: &Hash,
        attested: Vec<u8>,
    ) -> Self {
        Attest {
            purpose,
            signer,
            magic: 0xff54_4347,
            kind: if purpose == Use::Key { 0x8017 } else { 0x8018 },
            qualified_signer: name_of(b"qualified signer"),
            extra_data: qualifying.0.to_vec(),
            clock: 123_456,
            safe: 1,
            attested,
            tail: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [
            &self.magic.to_be_bytes()[..],
            &self.kind.to_be_bytes(),
            &sized(&self.qualified_signer),
            &sized(&self.extra_data),
            &self.clock.to_be_bytes(),
            &7u32.to_be_bytes(),
            &0u32.to_be_bytes(),
            &[self.safe],
            &0x2023_0101_0000_0000u64.to_be_bytes(),
            &self.attested,
            &self.tail,
        ]
        .concat()
    }

    /// Signs the bytes.
    pub(super) fn sign(&self) -> TpmSignature {
        let signature = keys::sign_p256(&self.signer, &self.bytes());
        TpmSignature {
            purpose: self.purpose,
            algorithm: ECDSA,
            hash: SHA256,
            r: signature[..32].to_vec(),
            s: signature[32..].to_vec(),
            tail: Vec::new(),
        }
    }
}

/// TPMT_SIGNATURE.
pub(super) struct TpmSignature {
    pub(super) purpose: Use,
    pub(super) algorithm: [u8; 2],
    pub(super) hash: [u8; 2],
    pub(super) r: Vec<u8>,
    pub(super) s: Vec<u8>,
    pub(super) tail: Vec<u8>,
}

impl TpmSignature {
    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.algorithm[..], &self.hash, &sized(&self.r), &sized(&self.s), &self.tail].concat()
    }
}

/// TPMS_QUOTE_INFO over these PCRs of the SHA-256 bank.
pub(super) fn quote_info(pcrs: &[(u8, [u8; 32])]) -> Vec<u8> {
    quote_info_of(1, SHA256, &selection(pcrs), &pcr_digest(pcrs))
}

/// Bit *n mod 8* of byte *n/8*.
pub(super) fn selection(pcrs: &[(u8, [u8; 32])]) -> Vec<u8> {
    let mut bits = vec![0u8; 3];
    for (pcr, _) in pcrs {
        bits[usize::from(pcr / 8)] |= 1 << (pcr % 8);
    }
    bits
}

/// TPMS_QUOTE_INFO of `count` equal banks.
pub(super) fn quote_info_of(count: u8, bank: [u8; 2], selection: &[u8], digest: &Hash) -> Vec<u8> {
    let length = u8::try_from(selection.len()).expect("three bytes select 24 PCRs");
    let one = [&bank[..], &[length], selection].concat();
    [vec![0, 0, 0, count], one.repeat(usize::from(count)), sized(&digest.0)].concat()
}

/// TPMS_CERTIFY_INFO of an object.
pub(super) fn certify_info(name: &[u8]) -> Vec<u8> {
    [sized(name), sized(&name_of(b"qualified name"))].concat()
}
