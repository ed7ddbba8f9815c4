//! Cosignatures: a witness's word that it saw this checkpoint, consistent with all it saw before, at a time of its clock
//! (c2sp.org/tlog-cosignature, Ed25519).
//!
//! Refuses to do: ML-DSA cosignatures (key type 0x06), which this version does not know.
//! Invariant: a [`WitnessKey`] has one spelling.

pub mod add_checkpoint;

use crate::body::anchor::Cosignature;
use crate::entry::NUMBER_MAX;
use crate::hash::sha256;
use crate::json::{base64_decode, base64_encode};
use crate::note::{SignatureLine, SignedNote};
use crate::origin::Origin;
use crate::sig::{Algorithm, PublicKey, SignatureError};
use std::fmt;

/// Signature type of a timestamped Ed25519 cosignature.
const COSIGNATURE_TYPE: u8 = 0x04;
/// Most bytes of a witness's name.
const NAME_BYTES_MAX: usize = 255;

/// What a box says of another box's log by cosigning its head. Each role has its own key, since a cosignature does not
/// cover the name of who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The head is consistent with all that this box has cosigned before.
    Witness,
    /// Moreover every entry under it, and what those refer to, is durable here.
    Mirror,
}

impl Role {
    /// Both.
    pub const ALL: [Role; 2] = [Role::Witness, Role::Mirror];

    /// The last part of the key's name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Witness => "witness",
            Role::Mirror => "mirror",
        }
    }
}

/// A witness's verifier key: `name+hash+base64(0x04 || key)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    bytes: [u8; 32],
    key: PublicKey,
}

impl WitnessKey {
    /// Reads a verifier key; `None` unless it is exactly as it would be written.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('+')?;
        let (_, encoded) = rest.split_once('+')?;
        let raw = base64_decode(encoded).ok()?;
        let (&COSIGNATURE_TYPE, bytes) = raw.split_first()? else { return None };
        let key = Self::new(name, bytes.try_into().ok()?)?;
        (key.to_string() == text).then_some(key)
    }

    /// The key `bytes` under `name`; `None` when either cannot be a witness's.
    pub fn new(name: &str, bytes: [u8; 32]) -> Option<Self> {
        let plain = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.contains('+')
            && !name.chars().any(|c| c.is_whitespace() || c.is_control());
        let key = PublicKey::from_bytes(Algorithm::Ed25519, &bytes).ok()?;
        plain.then(|| WitnessKey { name: name.to_owned(), bytes, key })
    }

    /// The key of the box whose log is `origin` in a role: its name is `<origin>/witness` or `<origin>/mirror`.
    pub fn of_peer(origin: &Origin, role: Role, bytes: [u8; 32]) -> Option<Self> {
        Self::new(&format!("{origin}/{}", role.name()), bytes)
    }

    /// Its key name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 32 bytes of its Ed25519 key.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// First four bytes of SHA-256(name || 0x0A || 0x04 || key).
    pub fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), &[0x0a, COSIGNATURE_TYPE], &self.bytes]).0;
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// The note line of a cosignature made at `seconds` (Unix).
    pub fn line(&self, seconds: u64, signature: &[u8; 64]) -> SignatureLine {
        let body = [&seconds.to_be_bytes()[..], signature].concat();
        SignatureLine { name: self.name.clone(), key_id: self.id(), body }
    }

    /// The cosignature by this key among the lines of a note, if it has one; an error when it has two, or one that does
    /// not verify or states a time that no anchor could hold.
    pub fn cosignature(&self, note: &SignedNote) -> Result<Option<Cosignature>, SignatureError> {
        let id = self.id();
        let mut own = note.lines.iter().filter(|line| line.name == self.name && line.key_id == id);
        let Some(line) = own.next() else { return Ok(None) };
        let bad = SignatureError::BadSignature;
        let (seconds, signature) = line.body.split_first_chunk::<8>().ok_or(bad)?;
        let seconds = u64::from_be_bytes(*seconds);
        if own.next().is_some() || seconds == 0 || seconds > NUMBER_MAX / 1_000 {
            return Err(bad);
        }
        self.verify(&note.text, seconds, signature)?;
        Ok(Some(Cosignature { name: self.name.clone(), seconds, signature: signature.to_vec().into() }))
    }

    /// Checks a cosignature of the checkpoint with this text, made at `seconds` (Unix).
    pub fn verify(&self, text: &str, seconds: u64, signature: &[u8]) -> Result<(), SignatureError> {
        self.key.verify(&cosigned(text, seconds), signature)
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = [&[COSIGNATURE_TYPE][..], &self.bytes].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), base64_encode(&raw))
    }
}

/// What a witness signs for a checkpoint with this text at `seconds` (Unix).
pub fn cosigned(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    #[test]
    fn one_spelling_and_one_message() {
        let secret = SigningKey::from_bytes(&[5; 32]);
        let key = WitnessKey::new("witness.example/w1", secret.verifying_key().to_bytes()).unwrap();
        let text = key.to_string();
        assert_eq!(WitnessKey::parse(&text), Some(key.clone()));
        for bad in
            [text.replacen('w', "W", 1), text.replace('+', "-"), format!("{text} "), format!("{text}A")]
        {
            assert_eq!(WitnessKey::parse(&bad), None, "{bad}");
        }
        let log_key = crate::note::verifier_key("witness.example/w1", &secret.verifying_key().to_bytes());
        assert_eq!(WitnessKey::parse(&log_key), None, "a log's key is not a witness's");
        let note = "log.example\n1\nAAAA\n";
        let signature = secret.sign(&cosigned(note, 1_700_000_000)).to_bytes();
        assert_eq!(key.verify(note, 1_700_000_000, &signature), Ok(()));
        assert!(key.verify(note, 1_700_000_001, &signature).is_err());
        assert!(key.verify("log.example\n2\nAAAA\n", 1_700_000_000, &signature).is_err());
    }
}
