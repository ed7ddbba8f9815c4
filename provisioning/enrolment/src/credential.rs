//! TPM2_MakeCredential without a TPM: a secret that only the TPM with this endorsement key can read, and only while the
//! named key is loaded in it. TPM 2.0 Part 1, 24; annexes B.10 (RSA) and C.6 (ECC).
//!
//! Refuses: endorsement keys other than RSA-2048, P-256 and P-384, and points that lie on no curve.
//! Invariant: the seed and everything derived from it are wiped after use.

use aes::{Aes128, Aes256};
use bulla_formats::tpm::{EccCurve, HashAlgorithm, PublicKey, TpmtPublic};
use cfb_mode::cipher::KeyIvInit;
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

/// Secret and label of Part 1, 24.4.
const IDENTITY: &[u8] = b"IDENTITY\0";
const STORAGE: &[u8] = b"STORAGE\0";
const INTEGRITY: &[u8] = b"INTEGRITY\0";

/// Bytes of random numbers, from the caller.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// What TPM2_ActivateCredential takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// TPMS_ID_OBJECT.
    pub id_object: Vec<u8>,
    /// The content of TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
}

/// Why no credential can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The endorsement key is of another kind.
    #[error("a credential is made for endorsement keys P-384, P-256 and RSA-2048 only")]
    Kind,
    /// The key's numbers are no key.
    #[error("the endorsement key's numbers are no key")]
    Key,
}

fn digest(algorithm: HashAlgorithm, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    fn run<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
        parts.iter().fold(D::new(), |hash, part| hash.chain_update(part)).finalize().to_vec()
    }
    Zeroizing::new(match algorithm {
        HashAlgorithm::Sha256 => run::<Sha256>(parts),
        HashAlgorithm::Sha384 => run::<Sha384>(parts),
    })
}

fn hmac(algorithm: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    fn run<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }
    Zeroizing::new(match algorithm {
        HashAlgorithm::Sha256 => run::<Hmac<Sha256>>(key, parts),
        HashAlgorithm::Sha384 => run::<Hmac<Sha384>>(key, parts),
    })
}

fn digest_len(algorithm: HashAlgorithm) -> usize {
    match algorithm {
        HashAlgorithm::Sha256 => 32,
        HashAlgorithm::Sha384 => 48,
    }
}

/// AES-128 in the SHA-256 templates, AES-256 in the SHA-384 ones.
fn cipher_len(algorithm: HashAlgorithm) -> usize {
    match algorithm {
        HashAlgorithm::Sha256 => 16,
        HashAlgorithm::Sha384 => 32,
    }
}

/// KDFa (Part 1, 11.4.10.2) for at most one digest of output.
fn kdfa(
    algorithm: HashAlgorithm,
    key: &[u8],
    label: &[u8],
    context: &[u8],
    len: usize,
) -> Zeroizing<Vec<u8>> {
    let bits = (len as u32 * 8).to_be_bytes();
    let mut derived = hmac(algorithm, key, &[&1u32.to_be_bytes(), label, context, &bits]);
    derived.truncate(len);
    derived
}

/// Encrypts `secret` for the TPM with `ek`, to be read while the object with this name is loaded.
///
/// # Errors
/// When the endorsement key is of another kind, or none.
pub fn make(
    ek: &TpmtPublic,
    name: &[u8],
    secret: &[u8],
    random: Random<'_>,
) -> Result<Credential, CredentialError> {
    let algorithm = ek.name_algorithm;
    let (seed, encrypted_secret) = share_seed(ek, random)?;
    let key = kdfa(algorithm, &seed, STORAGE, name, cipher_len(algorithm));
    let len = u16::try_from(secret.len()).map_err(|_| CredentialError::Key)?;
    let mut identity = [&len.to_be_bytes()[..], secret].concat();
    let iv = [0; 16];
    match algorithm {
        HashAlgorithm::Sha256 => {
            let key: &[u8; 16] = key[..].try_into().expect("that is what was derived");
            cfb_mode::Encryptor::<Aes128>::new(key.into(), &iv.into()).encrypt(&mut identity);
        }
        HashAlgorithm::Sha384 => {
            let key: &[u8; 32] = key[..].try_into().expect("that is what was derived");
            cfb_mode::Encryptor::<Aes256>::new(key.into(), &iv.into()).encrypt(&mut identity);
        }
    }
    let key = kdfa(algorithm, &seed, INTEGRITY, &[], digest_len(algorithm));
    let integrity = hmac(algorithm, &key, &[&identity, name]);
    let len = (integrity.len() as u16).to_be_bytes();
    let id_object = [&len[..], &integrity, &identity].concat();
    Ok(Credential { id_object, encrypted_secret })
}

/// A fresh seed, and how the TPM learns it.
fn share_seed(ek: &TpmtPublic, random: Random<'_>) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CredentialError> {
    match &ek.key {
        PublicKey::Ecc { curve: EccCurve::P256, x, y } => {
            let point = p256::PublicKey::from_sec1_bytes(&sec1(x, y)).map_err(|_| CredentialError::Key)?;
            let own = scalar(32, random, |bytes| p256::SecretKey::from_slice(bytes).ok());
            let shared = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), point.as_affine());
            let public = own.public_key().to_sec1_bytes();
            Ok(share_point(ek.name_algorithm, shared.raw_secret_bytes(), &public, x))
        }
        PublicKey::Ecc { curve: EccCurve::P384, x, y } => {
            let point = p384::PublicKey::from_sec1_bytes(&sec1(x, y)).map_err(|_| CredentialError::Key)?;
            let own = scalar(48, random, |bytes| p384::SecretKey::from_slice(bytes).ok());
            let shared = p384::ecdh::diffie_hellman(own.to_nonzero_scalar(), point.as_affine());
            let public = own.public_key().to_sec1_bytes();
            Ok(share_point(ek.name_algorithm, shared.raw_secret_bytes(), &public, x))
        }
        PublicKey::Rsa { modulus, exponent } if modulus.len() == 256 => {
            let mut seed = Zeroizing::new(vec![0; digest_len(ek.name_algorithm)]);
            random(&mut seed);
            let padded = oaep(ek.name_algorithm, &seed, modulus.len(), random);
            Ok((seed, power(&padded, *exponent, modulus)?))
        }
        PublicKey::Rsa { .. } => Err(CredentialError::Kind),
    }
}

fn sec1(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[0x04], x, y].concat()
}

/// Draws until the bytes are a secret key; all but one in 2^32 are.
fn scalar<K>(len: usize, random: Random<'_>, read: impl Fn(&[u8]) -> Option<K>) -> K {
    let mut bytes = Zeroizing::new(vec![0; len]);
    loop {
        random(&mut bytes);
        if let Some(key) = read(&bytes) {
            return key;
        }
    }
}

/// KDFe (Part 1, 11.4.10.3) over the shared x coordinate, and TPMS_ECC_POINT of our point.
fn share_point(
    algorithm: HashAlgorithm,
    shared: &[u8],
    public: &[u8],
    their_x: &[u8],
) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
    let (x, y) = public[1..].split_at(their_x.len());
    let seed = digest(algorithm, &[&1u32.to_be_bytes(), shared, IDENTITY, x, their_x]);
    let len = (their_x.len() as u16).to_be_bytes();
    (seed, [&len[..], x, &len, y].concat())
}

/// EME-OAEP encoding (RFC 8017, 7.1.1) with the label IDENTITY, whose zero byte counts; both hashes are the name's.
fn oaep(algorithm: HashAlgorithm, message: &[u8], len: usize, random: Random<'_>) -> Zeroizing<Vec<u8>> {
    let hash_len = digest_len(algorithm);
    let mut seed = Zeroizing::new(vec![0; hash_len]);
    random(&mut seed);
    let mut block = Zeroizing::new(vec![0; len - hash_len - 1]);
    let message_at = block.len() - message.len();
    block[..hash_len].copy_from_slice(&digest(algorithm, &[IDENTITY]));
    block[message_at - 1] = 0x01;
    block[message_at..].copy_from_slice(message);
    mask(algorithm, &seed, &mut block);
    mask(algorithm, &block, &mut seed);
    Zeroizing::new([&[0x00], &seed[..], &block].concat())
}

/// MGF1 (RFC 8017, B.2.1), exclusive-or'ed onto `data`.
fn mask(algorithm: HashAlgorithm, seed: &[u8], data: &mut [u8]) {
    for (counter, chunk) in (0u32..).zip(data.chunks_mut(digest_len(algorithm))) {
        let stream = digest(algorithm, &[seed, &counter.to_be_bytes()]);
        chunk.iter_mut().zip(stream.iter()).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// RSAEP (RFC 8017, 5.1.1). The first byte of `message` is zero, hence it is less than the modulus.
fn power(message: &[u8], exponent: u32, modulus: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let bits = modulus.len() as u32 * 8;
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, bits).map_err(|_| CredentialError::Key);
    let modulus: Option<Odd<BoxedUint>> = Odd::new(number(modulus)?).into();
    let parameters = BoxedMontyParams::new_vartime(modulus.ok_or(CredentialError::Key)?);
    let message = BoxedMontyForm::new(number(message)?, &parameters);
    let power = message.pow_bounded_exp(&BoxedUint::from(exponent), 32).retrieve();
    Ok(power.to_be_bytes().into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> impl FnMut(&mut [u8]) {
        let mut next = 0u8;
        move |bytes| {
            for byte in bytes {
                next = next.wrapping_add(1);
                *byte = next;
            }
        }
    }

    /// RSAEP against a number whose powers are known: with modulus 2^2047 + 1, 2^e mod n for small exponents is a shift.
    #[test]
    fn a_power_is_a_power() {
        let mut modulus = [0u8; 256];
        (modulus[0], modulus[255]) = (0x80, 0x01);
        let mut two = [0u8; 256];
        two[255] = 2;
        let mut expected = [0u8; 256];
        expected[255 - 2046 / 8] = 1 << (2046 % 8);
        assert_eq!(power(&two, 2046, &modulus).unwrap(), expected);
        // 2^2047 = -1, so 2^2048 = -2 = n - 2.
        let mut expected = [0xff; 256];
        expected[0] = 0x7f;
        assert_eq!(power(&two, 2048, &modulus).unwrap(), expected);
        modulus[255] = 0;
        assert_eq!(power(&two, 3, &modulus), Err(CredentialError::Key));
    }

    #[test]
    fn oaep_can_be_taken_off_again() {
        let (message, hash) = ([0x5a; 32], HashAlgorithm::Sha256);
        let padded = oaep(hash, &message, 256, &mut counting());
        assert_eq!((padded.len(), padded[0]), (256, 0));
        let (mut seed, mut block) = (padded[1..33].to_vec(), padded[33..].to_vec());
        mask(hash, &block, &mut seed);
        mask(hash, &seed, &mut block);
        assert_eq!(seed, (1..=32).collect::<Vec<u8>>());
        assert_eq!(block[..32], digest(hash, &[b"IDENTITY\0"])[..]);
        assert!(block[32..190].iter().all(|byte| *byte == 0));
        assert_eq!((block[190], &block[191..]), (1, &message[..]));
    }
}
