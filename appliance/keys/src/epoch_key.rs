//! The sealing key of an epoch: Ed25519 in RAM, or the P-256 sealing key of the device.
//!
//! Refuses: to show or store the RAM key. Invariant: it is zeroized when dropped.

use crate::{KeyError, KeyService, Role};
use bulla_formats::hash::sha256;
use bulla_formats::sig::Algorithm;
use ed25519_dalek::{Signer, SigningKey};
use std::fmt;
use zeroize::Zeroizing;

/// An ephemeral Ed25519 key that exists in this process only.
pub struct EpochKey(SigningKey);

impl EpochKey {
    /// Makes a new key from the operating system's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        random(seed.as_mut())?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The public key, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a message (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochKey({})", hex::encode(self.public()))
    }
}

/// What signs sealing tokens during an epoch.
#[derive(Debug)]
pub enum SealingKey {
    /// In RAM, endorsed by the device.
    Ram(EpochKey),
    /// The device's own sealing key: one device signature per token.
    Device(KeyService),
}

impl SealingKey {
    /// Algorithm and public key, encoded as `bulla_formats::sig::PublicKey` reads it.
    pub fn public(&self) -> (Algorithm, Vec<u8>) {
        match self {
            Self::Ram(key) => (Algorithm::Ed25519, key.public().to_vec()),
            Self::Device(service) => {
                (Algorithm::P256, service.description().key(Role::Sealing).point.to_vec())
            }
        }
    }

    /// Signs a message: 64 bytes. The RAM key cannot fail; the device can be away.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Ram(key) => Ok(key.sign(message).to_vec()),
            Self::Device(service) => {
                service.sign(Role::Sealing, sha256(&[message]).0).map(|signature| signature.to_vec())
            }
        }
    }
}

/// Fills a buffer with random numbers fit for keys.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| KeyError::Io {
        path: "getrandom".into(),
        source: std::io::Error::other(error.to_string()),
    })
}
