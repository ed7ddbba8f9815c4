//! Keys and signatures of the vectors: fixed, public, worth nothing. Also the signatures that a lax
//! implementation accepts and Bulla refuses: small-order points, a second spelling of S, cofactored equations.
//!
//! Refuses to do: draw randomness. Ed25519 is deterministic, P-256 is signed as RFC 6979 says.

use bulla_formats::hash::sha256;
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use sha2::{Digest as _, Sha512};

/// Order of the Ed25519 base point, little-endian.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// Order of the P-256 base point, big-endian.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The encoding of the neutral element, a point of order one: (B, 1) is a "signature" of it over everything.
pub(super) const SMALL_ORDER_KEY: [u8; 32] = {
    let mut point = [0; 32];
    point[0] = 1;
    point
};

/// A second spelling of a point of full order (y = 3): 32 bytes whose number is the prime and three.
pub(super) const NON_CANONICAL_KEY: [u8; 32] = {
    let mut point = [0xff; 32];
    (point[0], point[31]) = (0xf0, 0x7f);
    point
};

fn seed(name: &str) -> [u8; 32] {
    sha256(&[b"bulla vectors: ", name.as_bytes()]).0
}

/// The Ed25519 key of this name.
pub(super) fn ed25519(name: &str) -> SigningKey {
    SigningKey::from_bytes(&seed(name))
}

/// The P-256 key of this name.
pub(super) fn p256(name: &str) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&seed(name))
        .expect("the names in use hash to numbers below the order")
}

/// `0x04 || X || Y`.
pub(super) fn point(key: &p256::ecdsa::SigningKey) -> Vec<u8> {
    key.verifying_key().to_sec1_point(false).as_bytes().to_vec()
}

/// `0x02 or 0x03 || X`.
pub(super) fn compressed_point(key: &p256::ecdsa::SigningKey) -> Vec<u8> {
    key.verifying_key().to_sec1_point(true).as_bytes().to_vec()
}

/// `r || s` over SHA-256 of the message, `s` as it comes.
pub(super) fn sign_p256(key: &p256::ecdsa::SigningKey, message: &[u8]) -> Vec<u8> {
    sign_p256_digest(key, &sha256(&[message]).0)
}

/// `r || s` over a digest.
pub(super) fn sign_p256_digest(key: &p256::ecdsa::SigningKey, digest: &[u8; 32]) -> Vec<u8> {
    let signature: p256::ecdsa::Signature =
        key.sign_prehash(digest).expect("a digest of 32 bytes is what P-256 signs");
    signature.to_bytes().to_vec()
}

/// The same signature with the larger of its two possible `s`.
pub(super) fn high_s(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut other = [0; 32];
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let digit = i16::from(P256_ORDER[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(digit < 0);
        other[at] = digit.rem_euclid(256) as u8;
    }
    [r, s.max(&other)].concat()
}

/// `r || s` as the DER SEQUENCE that X.509 carries.
pub(super) fn p256_der(signature: &[u8]) -> Vec<u8> {
    let signature = p256::ecdsa::Signature::from_slice(signature).expect("made by sign_p256");
    signature.to_der().as_bytes().to_vec()
}

/// The same signature with S + L in place of S: equal modulo the order, another spelling.
pub(super) fn non_canonical_s(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut sum = [0; 32];
    let mut carry = 0u16;
    for at in 0..32 {
        let digit = u16::from(s[at]) + u16::from(ED25519_ORDER[at]) + carry;
        sum[at] = digit as u8;
        carry = digit >> 8;
    }
    [r, &sum].concat()
}

/// What verifies under [`SMALL_ORDER_KEY`] for every message, where such keys are let in.
pub(super) fn signature_of_small_order_key() -> Vec<u8> {
    let one = Scalar::ONE.to_bytes();
    [ED25519_BASEPOINT_POINT.compress().0, one].concat()
}

/// A signature by `key` whose R is the neutral element; the equation holds, strictness refuses it.
pub(super) fn small_order_r(key: &SigningKey, message: &[u8]) -> Vec<u8> {
    with_nonce(key, message, Scalar::ZERO, EIGHT_TORSION[0])
}

/// A signature by `key` whose R has a part of small order: only the equation times eight holds.
pub(super) fn cofactored_only(key: &SigningKey, message: &[u8]) -> Vec<u8> {
    let nonce = Scalar::from_bytes_mod_order(seed("nonce"));
    with_nonce(key, message, nonce, EIGHT_TORSION[1])
}

fn with_nonce(key: &SigningKey, message: &[u8], nonce: Scalar, torsion: EdwardsPoint) -> Vec<u8> {
    let digest: [u8; 64] = Sha512::digest(key.to_bytes()).into();
    let mut half = [0; 32];
    half.copy_from_slice(&digest[..32]);
    let secret = Scalar::from_bytes_mod_order(clamp_integer(half));
    let r = (EdwardsPoint::mul_base(&nonce) + torsion).compress().0;
    let hash =
        Sha512::new().chain_update(r).chain_update(key.verifying_key().to_bytes()).chain_update(message);
    let challenge = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    [r, (nonce + challenge * secret).to_bytes()].concat()
}

/// An Ed25519 signature as bytes.
pub(super) fn sign_ed25519(key: &SigningKey, message: &[u8]) -> Vec<u8> {
    key.sign(message).to_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

    /// A refused vector proves something only if a lax verifier accepts it.
    #[test]
    fn lax_signatures_verify_where_checks_are_lax() {
        let (key, message) = (ed25519("some key"), b"message");
        let public = key.verifying_key();
        let lax = |public: &VerifyingKey, raw: &[u8]| {
            let signature = Signature::from_slice(raw).unwrap();
            (public.verify(message, &signature).is_ok(), public.verify_strict(message, &signature).is_ok())
        };
        let small = VerifyingKey::from_bytes(&SMALL_ORDER_KEY).unwrap();
        let respelt = VerifyingKey::from_bytes(&NON_CANONICAL_KEY).unwrap();
        assert!(!respelt.is_weak() && respelt.to_edwards().compress().0 != NON_CANONICAL_KEY);
        assert_eq!(lax(&public, &sign_ed25519(&key, message)), (true, true));
        assert_eq!(lax(&small, &signature_of_small_order_key()), (true, false));
        assert_eq!(lax(&public, &small_order_r(&key, message)), (true, false));
        assert_eq!(lax(&public, &cofactored_only(&key, message)), (false, false));
    }

    #[test]
    fn cofactored_equation_holds() {
        let (key, message) = (ed25519("some key"), b"message");
        let raw = cofactored_only(&key, message);
        let (r, s) = raw.split_at(32);
        let hash = Sha512::new().chain_update(r).chain_update(key.verifying_key().to_bytes());
        let challenge = Scalar::from_bytes_mod_order_wide(&hash.chain_update(message).finalize().into());
        let point = |bytes: &[u8]| {
            curve25519_dalek::edwards::CompressedEdwardsY::from_slice(bytes).unwrap().decompress().unwrap()
        };
        let scalar = Scalar::from_canonical_bytes(s.try_into().unwrap()).unwrap();
        let rest =
            EdwardsPoint::mul_base(&scalar) - challenge * point(key.verifying_key().as_bytes()) - point(r);
        assert!(rest != EdwardsPoint::default() && rest.mul_by_cofactor() == EdwardsPoint::default());
    }

    #[test]
    fn other_spellings_are_of_the_same_number() {
        let signature = sign_ed25519(&ed25519("some key"), b"message");
        let other = non_canonical_s(&signature);
        assert_ne!(other, signature);
        let reduced = Scalar::from_bytes_mod_order(other[32..].try_into().unwrap());
        assert_eq!(reduced.to_bytes()[..], signature[32..]);
        let key = p256("some key");
        for message in [&b"a"[..], b"b", b"c", b"d"] {
            let high = high_s(&sign_p256(&key, message));
            assert!(high[32] >= 0x7f, "more than half of the order");
            let signature = p256::ecdsa::Signature::from_slice(&high).unwrap();
            key.verifying_key().verify(message, &signature).unwrap();
        }
    }
}
