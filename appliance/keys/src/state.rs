//! `keys.json`: what must be kept between starts. For a TPM that is public areas and wrapped private areas, which only
//! that TPM can use; in software it is the secrets themselves.
//!
//! Refuses: a checksum that is not that of the bytes, unknown members and versions, files that exist (on writing).
//! Always mode 0600.
//! Invariant: after a crash the file is either absent or whole: written aside, synced, linked into place, directory synced.

use crate::KeyError;
use bulla_formats::checked_json;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u32 = 2;
/// Three wrapped keys, their certifications and an EK certificate take about 10 kB.
const MAX_BYTES: u64 = 262_144;

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    keys: State,
}

/// Keys of one provider.
#[derive(Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum State {
    /// Keys in a TPM.
    Tpm(TpmState),
    /// Keys in this file.
    Software(SoftwareState),
}

/// Public and wrapped areas of the TPM's keys.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct TpmState {
    /// TPMT_PUBLIC of the endorsement key.
    #[serde(with = "hex::serde")]
    pub ek_public: Vec<u8>,
    /// DER X.509, empty when the TPM has none.
    pub ek_certificates: Vec<HexBytes>,
    /// TPMT_PUBLIC of the attestation key.
    #[serde(with = "hex::serde")]
    pub attestation_public: Vec<u8>,
    /// TPMT_PUBLIC of the storage key.
    #[serde(with = "hex::serde")]
    pub storage_public: Vec<u8>,
    /// TPMS_NV_PUBLIC of the counter.
    #[serde(with = "hex::serde")]
    pub counter_public: Vec<u8>,
    pub tls: WrappedKey,
    pub issuing: WrappedKey,
    pub sealing: WrappedKey,
}

/// Bytes as hex text.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct HexBytes(#[serde(with = "hex::serde")] pub Vec<u8>);

/// A key that only its TPM can load, and the attestation key's certificate for it.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrappedKey {
    /// TPMT_PUBLIC.
    #[serde(with = "hex::serde")]
    pub public: Vec<u8>,
    /// Content of TPM2B_PRIVATE.
    #[serde(with = "hex::serde")]
    pub private: Vec<u8>,
    /// TPMS_ATTEST of TPM2_Certify.
    #[serde(with = "hex::serde")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE of TPM2_Certify.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
}

/// Secrets of the software provider.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(crate) struct SoftwareState {
    /// P-256 scalars.
    #[serde(with = "hex::serde")]
    pub attestation: [u8; 32],
    #[serde(with = "hex::serde")]
    pub tls: [u8; 32],
    #[serde(with = "hex::serde")]
    pub issuing: [u8; 32],
    #[serde(with = "hex::serde")]
    pub sealing: [u8; 32],
    /// ChaCha20-Poly1305 key of sealed blobs.
    #[serde(with = "hex::serde")]
    pub seal: [u8; 32],
}

/// The key file of a directory.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("keys.json")
}

/// Fails when the directory holds keys.
pub(crate) fn require_absent(dir: &Path) -> Result<(), KeyError> {
    let path = path(dir);
    match fs::symlink_metadata(&path) {
        Ok(_) => Err(KeyError::Exists { path }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(KeyError::Io { path, source }),
    }
}

/// Reads the key file.
pub(crate) fn read(dir: &Path) -> Result<State, KeyError> {
    let path = path(dir);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(KeyError::Missing { path }),
        Err(source) => return Err(KeyError::Io { path, source }),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| KeyError::Io { path: path.clone(), source })?;
    parse(&bytes).map_err(|reason| KeyError::Damaged { what: path.display().to_string(), reason })
}

/// The keys in the bytes of a key file; else what is wrong with them.
pub(crate) fn parse(bytes: &[u8]) -> Result<State, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    let bytes = Zeroizing::new(checked_json::body(bytes).map_err(|error| error.to_string())?);
    // serde_json's messages can quote a wrong value, which may be a secret: give the place only.
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|error| format!("not a key file, line {} column {}", error.line(), error.column()))?;
    if document.version != VERSION {
        return Err(format!("version {}, this program reads {VERSION}", document.version));
    }
    Ok(document.keys)
}

/// The text of a key file.
pub(crate) fn text(keys: State) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let document = Document { version: VERSION, keys };
    let text = Zeroizing::new(serde_json::to_string_pretty(&document)?);
    Ok(Zeroizing::new(checked_json::with_checksum(&text).into_bytes()))
}

/// Writes the key file, creating the directory (mode 0700) when it is not there. Fails when the file exists.
pub(crate) fn write(dir: &Path, keys: State) -> Result<(), KeyError> {
    let path = path(dir);
    let aside = dir.join(".keys.json.new");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Io { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
    let bytes = text(keys)
        .map_err(|error| KeyError::Damaged { what: path.display().to_string(), reason: error.to_string() })?;
    match fs::remove_file(&aside) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(KeyError::Io { path: aside, source });
        }
        // Left over from a crash in an earlier attempt; it was never the key file.
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).map_err(io(&aside))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io(&aside))?;
    // A link, unlike a rename, never replaces a file that came into being meanwhile.
    match fs::hard_link(&aside, &path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(KeyError::Exists { path }),
        Err(source) => return Err(KeyError::Io { path, source }),
    }
    fs::remove_file(&aside).map_err(io(&aside))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))
}
