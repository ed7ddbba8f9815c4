//! Backup v1: the manifest that closes a backup of a box, and what its log key signs.
//!
//! Refuses to do: open archives or judge files; a caller compares what it unpacked with the manifest.
//! Invariants: a [`Manifest`] names every file once, under a name that cannot lead out of the directory it is
//! unpacked into, and there is one spelling of a manifest.

use crate::entry::TreeState;
use crate::hash::Hash;
use crate::json::{self, JsonError};
use crate::origin::Origin;
use crate::sig::{Algorithm, PublicKey, SignatureError, label, labelled};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The value of the member `bulla`.
pub const BACKUP_VERSION: &str = "backup/v1";
/// Name of the manifest in the archive; after it comes only the signature.
pub const MANIFEST_NAME: &str = "backup.json";
/// Name of the signature in the archive, its last member: 64 bytes.
pub const SIGNATURE_NAME: &str = "backup.sig";
/// Largest manifest in bytes.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Not strict JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not as the format says.
    #[error("it is not a backup manifest of version 1: {0}")]
    Malformed(String),
    /// Of another version.
    #[error("it is of version {0:?}; use a newer program")]
    NotUnderstood(String),
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Its name inside the state directory.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: Hash,
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The log in force when it was made.
    pub origin: String,
    /// When it was made (Unix milliseconds, the box's clock).
    pub made_millis: u64,
    /// The tree of that log in the backup.
    pub head: TreeState,
    /// Every file, in the order of the archive.
    pub files: Vec<BackupFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ManifestWire {
    bulla: String,
    origin: String,
    made_millis: u64,
    size: u64,
    root: String,
    files: Vec<FileWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWire {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Reads a manifest; refuses names that [`is_file_name`] does not allow, and a name that comes twice.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        let malformed = |what: String| BackupError::Malformed(what);
        let value = json::parse(bytes, MANIFEST_BYTES_MAX)?;
        match value.get("bulla").and_then(Value::as_str) {
            Some(BACKUP_VERSION) => {}
            Some(other) if other.starts_with("backup/") => {
                return Err(BackupError::NotUnderstood(other.to_owned()));
            }
            _ => return Err(malformed("its member \"bulla\" is not \"backup/v1\"".into())),
        }
        if !value.get("files").is_some_and(json::is_array_of_objects) {
            return Err(malformed("its files are not an array of objects".into()));
        }
        let wire: ManifestWire =
            serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
        Origin::parse(&wire.origin).map_err(|error| malformed(error.to_string()))?;
        let root = hash(&wire.root).ok_or_else(|| malformed("its root is not 64 hex digits".into()))?;
        let mut files = Vec::with_capacity(wire.files.len());
        let mut names = std::collections::BTreeSet::new();
        for file in wire.files {
            let sha256 =
                hash(&file.sha256).ok_or_else(|| malformed(format!("{:?}: not a SHA-256", file.name)))?;
            if !is_file_name(&file.name) || !names.insert(file.name.clone()) {
                return Err(malformed(format!("{:?} is no file name, or comes twice", file.name)));
            }
            files.push(BackupFile { name: file.name, bytes: file.bytes, sha256 });
        }
        let head = TreeState::new(wire.size, root);
        let manifest = Manifest { origin: wire.origin, made_millis: wire.made_millis, head, files };
        if manifest.encode().as_bytes() == bytes {
            Ok(manifest)
        } else {
            Err(malformed("it is spelled in another way than a box spells it".into()))
        }
    }

    /// The bytes that are stored and signed: members in the order of `docs/formats.md`, no white space.
    pub fn encode(&self) -> String {
        let files = self.files.iter().map(|file| FileWire {
            name: file.name.clone(),
            bytes: file.bytes,
            sha256: file.sha256.to_string(),
        });
        let wire = ManifestWire {
            bulla: BACKUP_VERSION.to_owned(),
            origin: self.origin.clone(),
            made_millis: self.made_millis,
            size: self.head.size,
            root: self.head.root().to_string(),
            files: files.collect(),
        };
        serde_json::to_string(&wire).expect("strings and numbers are always JSON")
    }

    /// What the log key signs: label, zero byte, the manifest's bytes.
    pub fn message(encoded: &str) -> Vec<u8> {
        labelled(label::BACKUP, encoded.as_bytes())
    }

    /// Verifies the signature (64 bytes, Ed25519) by `log_key` over the encoded manifest.
    pub fn verify(encoded: &str, log_key: &[u8; 32], signature: &[u8]) -> Result<(), SignatureError> {
        PublicKey::from_bytes(Algorithm::Ed25519, log_key)?.verify(&Self::message(encoded), signature)
    }
}

/// Whether a name can be a file of a backup: one or two parts joined by `/`, each of 1 to 100 characters `a-z`, `0-9`,
/// `-`, `_` and `.`, not beginning with a dot; and not a name of the archive's own.
pub fn is_file_name(name: &str) -> bool {
    let part = |part: &str| {
        (1..=100).contains(&part.len())
            && !part.starts_with('.')
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
    };
    let mut parts = name.split('/');
    let known = parts.next().is_some_and(part) && parts.next().is_none_or(part) && parts.next().is_none();
    known && name != MANIFEST_NAME && name != SIGNATURE_NAME
}

fn hash(text: &str) -> Option<Hash> {
    let bytes = hex::decode(text).ok()?;
    let hash = Hash::from_slice(&bytes)?;
    (hash.to_string() == text).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use ed25519_dalek::{Signer as _, SigningKey};

    fn manifest() -> Manifest {
        Manifest {
            origin: format!("bank.example/{}/3", "ab".repeat(20)),
            made_millis: 1_795_219_200_123,
            head: TreeState::new(7, sha256(&[b"root"])),
            files: vec![
                BackupFile { name: "identity.json".into(), bytes: 5, sha256: sha256(&[b"hello"]) },
                BackupFile { name: "log-3/seg-0000000000000000.redb".into(), bytes: 0, sha256: sha256(&[]) },
            ],
        }
    }

    #[test]
    fn a_manifest_has_one_spelling() {
        let text = manifest().encode();
        assert_eq!(Manifest::decode(text.as_bytes()).unwrap(), manifest());
        let another = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Manifest::decode(text.replacen(from, to, 1).as_bytes())
        };
        for (from, to) in [
            (",", ", "),
            ("backup/v1", "seal/v1"),
            ("\"size\":7", "\"size\":7,\"size\":7"),
            ("\"size\":7", "\"size\":7,\"more\":1"),
            ("\"size\":7", "\"size\":-7"),
            ("\"size\":7,", ""),
            ("bank.example", "Bank.example"),
            ("identity.json", "../identity.json"),
            ("identity.json", "/identity.json"),
            ("identity.json", "a/b/c"),
            ("identity.json", ".ssh"),
            ("identity.json", "a//b"),
            ("identity.json", "Identity.json"),
            ("identity.json", "backup.json"),
            ("identity.json", "log-3/seg-0000000000000000.redb"),
            ("identity.json", ""),
            ("\"files\":[{", "\"files\":[[\"a\",1,\"b\"],{"),
        ] {
            assert!(another(from, to).is_err(), "{from:?} -> {to:?}");
        }
        let upper = text.replacen(
            &sha256(&[b"hello"]).to_string(),
            &sha256(&[b"hello"]).to_string().to_uppercase(),
            1,
        );
        assert!(Manifest::decode(upper.as_bytes()).is_err());
        assert_eq!(another("backup/v1", "backup/v2"), Err(BackupError::NotUnderstood("backup/v2".into())));
    }

    #[test]
    fn every_changed_byte_breaks_the_signature() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let text = manifest().encode();
        let signature = key.sign(&Manifest::message(&text)).to_bytes();
        Manifest::verify(&text, &public, &signature).unwrap();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(Manifest::verify(&changed, &public, &signature).is_err(), "byte {at}");
            }
        }
        for at in 0..64 {
            let mut changed = signature;
            changed[at] ^= 1;
            assert!(Manifest::verify(&text, &public, &changed).is_err(), "signature byte {at}");
        }
        // The label keeps a signature over a manifest from being one over anything else.
        assert!(Manifest::verify(&text, &public, &key.sign(text.as_bytes()).to_bytes()).is_err());
    }
}
