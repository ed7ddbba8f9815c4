//! The software provider: P-256 keys and a sealing key in `keys.json`, for laptops and trials.
//!
//! Refuses: quotes and counters, which nothing here could back. Invariant: what it signs is marked as software by the
//! device description, so no verifier takes it for hardware.

use crate::device::{Device, DeviceKey, Role};
use crate::epoch_key::random;
use crate::state::SoftwareState;
use crate::{KeyError, MAX_SEALED};
use bulla_formats::enrolment::Hardware;
use bulla_formats::hash::sha256;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use zeroize::Zeroizing;

const NONCE_LEN: usize = 12;

/// Keys in memory.
pub(crate) struct Software {
    keys: [SigningKey; 4],
    seal: ChaCha20Poly1305,
}

/// Makes new secrets.
pub(crate) fn create() -> Result<SoftwareState, KeyError> {
    let mut state = SoftwareState {
        attestation: [0; 32],
        tls: [0; 32],
        issuing: [0; 32],
        sealing: [0; 32],
        seal: [0; 32],
    };
    for scalar in [&mut state.attestation, &mut state.tls, &mut state.issuing, &mut state.sealing] {
        // One draw in 2^32 is not below the group order.
        while SigningKey::from_slice(scalar).is_err() {
            random(scalar)?;
        }
    }
    random(&mut state.seal)?;
    Ok(state)
}

impl Software {
    /// Loads stored secrets and describes their public keys.
    pub(crate) fn load(state: &SoftwareState) -> Result<(Self, Device), KeyError> {
        let load = |role: Role, scalar: &[u8; 32]| {
            SigningKey::from_slice(scalar).map_err(|_| KeyError::Damaged {
                what: format!("the {} key", role.name()),
                reason: "not a P-256 scalar".into(),
            })
        };
        let keys = [
            load(Role::Attestation, &state.attestation)?,
            load(Role::Tls, &state.tls)?,
            load(Role::Issuing, &state.issuing)?,
            load(Role::Sealing, &state.sealing)?,
        ];
        let describe = |role: Role| device_key(role, &keys[role as usize]);
        let described = [
            describe(Role::Attestation)?,
            describe(Role::Tls)?,
            describe(Role::Issuing)?,
            describe(Role::Sealing)?,
        ];
        let device = Device {
            hardware: Hardware::Software,
            ek_certificates: Vec::new(),
            ek_spki_sha256: sha256(&[&described[0].spki]),
            ek_public: Vec::new(),
            counter_public: Vec::new(),
            attestation_public: described[0].point.to_vec(),
            keys: described,
        };
        Ok((Self { keys, seal: ChaCha20Poly1305::new(&state.seal.into()) }, device))
    }

    /// ECDSA over a digest, r || s.
    pub(crate) fn sign(&self, role: Role, digest: &[u8; 32]) -> Result<[u8; 64], KeyError> {
        let signature: Signature = self.keys[role as usize]
            .sign_prehash(digest)
            .map_err(|error| KeyError::Refused { what: "software signature", reason: error.to_string() })?;
        Ok(signature.to_bytes().into())
    }

    /// nonce || ciphertext || tag.
    pub(crate) fn seal(&self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let sealed = self
            .seal
            .encrypt(&Nonce::from(nonce), secret)
            .map_err(|_| KeyError::Argument { what: "seal", reason: "the secret is too long" })?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The inverse of [`Software::seal`].
    pub(crate) fn unseal(&self, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let damaged =
            |reason: &str| KeyError::Damaged { what: "sealed blob".into(), reason: reason.to_owned() };
        let (nonce, sealed) = blob
            .split_first_chunk::<NONCE_LEN>()
            .filter(|_| blob.len() <= NONCE_LEN + MAX_SEALED + 16)
            .ok_or_else(|| damaged("wrong length"))?;
        self.seal
            .decrypt(&Nonce::from(*nonce), sealed)
            .map(Zeroizing::new)
            .map_err(|_| damaged("altered, or sealed with another key"))
    }
}

fn device_key(role: Role, key: &SigningKey) -> Result<DeviceKey, KeyError> {
    let public = p256::PublicKey::from(key.verifying_key());
    let spki = public
        .to_public_key_der()
        .map_err(|error| KeyError::Damaged { what: role.name().into(), reason: error.to_string() })?;
    let point = key.verifying_key().to_sec1_point(false);
    let point = point.as_bytes().try_into().map_err(|_| KeyError::Damaged {
        what: role.name().into(),
        reason: "not an uncompressed point".into(),
    })?;
    Ok(DeviceKey { role, spki: spki.as_bytes().to_vec(), point, certification: None })
}
