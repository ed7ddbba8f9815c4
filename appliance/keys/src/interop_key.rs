//! The interop key of an epoch: P-256 in RAM, for what stock tools verify (RFC 3161 tokens); they refuse Ed25519 there.
//!
//! Refuses: to show or store the secret. Invariant: it is zeroized when dropped.

use crate::KeyError;
use crate::epoch_key::random;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use std::fmt;
use zeroize::Zeroizing;

/// An ephemeral P-256 key that exists in this process only.
pub struct InteropKey {
    key: SigningKey,
    public: [u8; 65],
}

impl InteropKey {
    /// Makes a new key from the operating system's random numbers.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn generate() -> Result<Self, KeyError> {
        let mut scalar = Zeroizing::new([0; 32]);
        let key = loop {
            random(scalar.as_mut())?;
            // One draw in 2^32 is not below the group order.
            if let Ok(key) = SigningKey::from_slice(scalar.as_slice()) {
                break key;
            }
        };
        let point = key.verifying_key().to_sec1_point(false);
        let public = point.as_bytes().try_into().map_err(|_| KeyError::Damaged {
            what: "the interop key".into(),
            reason: "not an uncompressed point".into(),
        })?;
        Ok(InteropKey { key, public })
    }

    /// The public key, uncompressed.
    pub fn public(&self) -> [u8; 65] {
        self.public
    }

    /// Signs a message: DER of an ECDSA signature with SHA-256.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl fmt::Debug for InteropKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InteropKey({})", hex::encode(self.public))
    }
}
