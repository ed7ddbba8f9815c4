//! DER SubjectPublicKeyInfo of a TPM key, so that it can be compared with a certificate's. RFC 5280, RFC 5480, RFC 8017.
//!
//! Invariant: the output is the only DER encoding of the key.

use super::{EccCurve, PublicKey};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
/// AlgorithmIdentifier: id-ecPublicKey with prime256v1.
const EC_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3,
    1, 7,
];
/// AlgorithmIdentifier: id-ecPublicKey with secp384r1.
const EC_P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22,
];
/// AlgorithmIdentifier: rsaEncryption with NULL.
const RSA: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

pub(super) fn encode(key: &PublicKey) -> Vec<u8> {
    let (algorithm, public) = match key {
        PublicKey::Ecc { curve: EccCurve::P256, x, y } => (EC_P256, [&[0x04], x.as_slice(), y].concat()),
        PublicKey::Ecc { curve: EccCurve::P384, x, y } => (EC_P384, [&[0x04], x.as_slice(), y].concat()),
        PublicKey::Rsa { modulus, exponent } => {
            let numbers = [unsigned(modulus), unsigned(&exponent.to_be_bytes())].concat();
            (RSA, tlv(SEQUENCE, &numbers))
        }
    };
    // A bit string starts with the count of unused bits.
    let bits = tlv(BIT_STRING, &[&[0], public.as_slice()].concat());
    tlv(SEQUENCE, &[algorithm, &bits].concat())
}

/// A non-negative INTEGER from big-endian bytes: shortest form, with a zero in front when the highest bit is set.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = &bytes[first..];
    match digits.first() {
        None => tlv(INTEGER, &[0]),
        Some(high) if high & 0x80 != 0 => tlv(INTEGER, &[&[0], digits].concat()),
        Some(_) => tlv(INTEGER, digits),
    }
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let first = len.iter().position(|byte| *byte != 0).unwrap_or(len.len() - 1);
    let digits = &len[first..];
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        out.push(0x80 | digits.len() as u8);
    }
    out.extend_from_slice(digits);
    out.extend_from_slice(content);
    out
}
