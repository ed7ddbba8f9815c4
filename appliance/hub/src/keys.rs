//! The hub's own keys: one by which it cosigns heads of branches, one by which it signs its own log and its leases.
//!
//! `<state_dir>/hub-keys.json` (mode 0600, `hub-keys/v1`): the hub's name and two Ed25519 secrets in base64, closed by a
//! checksum. They are in a file because a hub has no TPM of ours; whoever reads it can speak as this hub's witness.
//! Refuses to do: make keys where there are some; use keys whose memory is gone (`witness.redb`), because what they said
//! is then not known, and a second word could contradict it.
//! Invariant: secrets leave this module only as keys that are zeroised when dropped.

use crate::exit::Failure;
use bulla_formats::checked_json;
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::note::verifier_key;
use bulla_formats::witness::WitnessKey;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize as _, Zeroizing};

const FILE: &str = "hub-keys.json";
const FORMAT: &str = "hub-keys/v1";

/// The hub's keys.
pub struct HubKeys {
    /// Cosigns heads of branches.
    pub witness: SigningKey,
    /// Who that is.
    pub witness_key: WitnessKey,
    /// Signs the hub's own log, and its leases.
    pub log: SigningKey,
    /// The name of that log.
    pub log_origin: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeysFile {
    bulla: String,
    name: String,
    witness_key: String,
    log_key: String,
}

impl Drop for KeysFile {
    fn drop(&mut self) {
        self.witness_key.zeroize();
        self.log_key.zeroize();
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    let path = path.display();
    Failure::usage(format!(
        "the hub's keys {path} cannot be used ({reason}); bring back the file, see docs/operating.md"
    ))
}

/// Writes a file whole or not at all, readable by its owner only.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // Of a bare name the parent is the empty path, which cannot be opened.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

fn secret() -> Result<Zeroizing<[u8; 32]>, Failure> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice())
        .map_err(|error| Failure::usage(format!("the operating system gives no random bytes ({error})")))?;
    Ok(secret)
}

impl HubKeys {
    /// The keys in `state_dir`, if there are any. `name` is `serve.name`.
    pub fn open(state_dir: &Path, name: &str) -> Result<Option<Self>, Failure> {
        let path = path(state_dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error)),
        };
        let body = checked_json::body(&bytes).map_err(|error| unusable(&path, &error))?;
        let file: KeysFile =
            serde_json::from_slice(&Zeroizing::new(body)).map_err(|error| unusable(&path, &error))?;
        if file.bulla != FORMAT {
            return Err(unusable(&path, &"it is of another version"));
        }
        if file.name != name {
            let words = format!("they are those of {:?}, and serve.name is {name:?}", file.name);
            return Err(unusable(&path, &words));
        }
        let key = |text: &str| {
            let raw = Zeroizing::new(base64_decode(text).ok()?);
            let secret: &[u8; 32] = raw.as_slice().try_into().ok()?;
            Some(SigningKey::from_bytes(secret))
        };
        let keys = key(&file.witness_key).zip(key(&file.log_key));
        let keys = keys.and_then(|(witness, log)| Self::of(name, witness, log));
        keys.map(Some).ok_or_else(|| unusable(&path, &"they are no keys"))
    }

    /// Makes the keys of the hub named `name`.
    pub fn create(state_dir: &Path, name: &str) -> Result<Self, Failure> {
        let path = path(state_dir);
        if path.exists() {
            return Err(unusable(&path, &"there are some already"));
        }
        let (witness, log) = (secret()?, secret()?);
        let file = KeysFile {
            bulla: FORMAT.to_owned(),
            name: name.to_owned(),
            witness_key: base64_encode(witness.as_slice()),
            log_key: base64_encode(log.as_slice()),
        };
        let text = serde_json::to_string_pretty(&file).map_err(|error| unusable(&path, &error))?;
        let text = Zeroizing::new(checked_json::with_checksum(&Zeroizing::new(text)));
        write_private(&path, text.as_bytes()).map_err(|error| unusable(&path, &error))?;
        let keys = Self::of(name, SigningKey::from_bytes(&witness), SigningKey::from_bytes(&log));
        keys.ok_or_else(|| unusable(&path, &"serve.name is no name of a key"))
    }

    fn of(name: &str, witness: SigningKey, log: SigningKey) -> Option<Self> {
        let witness_key = WitnessKey::new(&format!("{name}/witness"), witness.verifying_key().to_bytes())?;
        Some(HubKeys { witness, witness_key, log, log_origin: format!("{name}/heads") })
    }

    /// Verifier key of the hub's own log.
    pub fn log_verifier_key(&self) -> String {
        verifier_key(&self.log_origin, self.log.verifying_key().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_are_those_of_one_name() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        assert!(HubKeys::open(state, "hub.example/north").unwrap().is_none());
        let made = HubKeys::create(state, "hub.example/north").unwrap();
        assert!(HubKeys::create(state, "hub.example/north").is_err());
        let read = HubKeys::open(state, "hub.example/north").unwrap().unwrap();
        assert_eq!(read.witness_key, made.witness_key);
        assert_eq!(read.log_verifier_key(), made.log_verifier_key());
        assert!(read.witness_key.to_string().starts_with("hub.example/north/witness+"));
        assert!(HubKeys::open(state, "hub.example/south").is_err());
        let file = path(state);
        let genuine = fs::read(&file).unwrap();
        for at in (0..genuine.len()).step_by(7) {
            let mut bent = genuine.clone();
            bent[at] ^= 1;
            fs::write(&file, &bent).unwrap();
            assert!(HubKeys::open(state, "hub.example/north").is_err(), "byte {at}");
        }
        fs::write(&file, &genuine[..genuine.len() - 1]).unwrap();
        assert!(HubKeys::open(state, "hub.example/north").is_err());
    }
}
