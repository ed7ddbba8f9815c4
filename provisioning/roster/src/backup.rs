//! Backup of a fleet directory: its files, signed by the fleet CA.
//!
//! Inside an age file, because the fleet CA's key is one of the files; age says who can read it, the signature who made
//! it. Refuses to do: I/O; hold a file whose name leads out of the directory, or is hidden.
//! Invariants: names are in ascending order, each once; a [`Backup`] that verifies came from the fleet CA that the root
//! of a given trust file certified, and its roster is the one that it says.

use crate::roster::Roster;
use crate::{Result, RosterRefusal};
use bulla_approvals::Refusal;
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::sig::{Algorithm, PublicKey, label, labelled};
use bulla_formats::trust::TrustFile;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use zeroize::Zeroizing;

/// Largest backup in bytes.
pub const BACKUP_BYTES_MAX: usize = 256 << 20;
/// Most files in it.
pub const FILES_MAX: usize = 100_000;
/// Name of the roster among the files.
const ROSTER: &str = "roster";

/// One file.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Where it stands below the fleet directory: one to three parts of letters, digits, `.`, `-` and `_`, between
    /// slashes; no part begins with a dot.
    pub name: String,
    /// Whether only its owner may read it.
    pub private: bool,
    /// What is in it.
    pub bytes: OctetString,
}

/// What the fleet CA signs.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct BackupContent {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// When it was made (Unix milliseconds).
    pub made_at: u64,
    /// Number of the roster's version.
    pub roster: u64,
    /// Its hash.
    pub roster_hash: Octets32,
    /// The files, by name.
    pub files: Vec<BackupFile>,
}

/// A backup.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// What is in it.
    pub content: BackupContent,
    /// Ed25519 of the fleet CA over label "bulla/fleet-backup/v1".
    pub signature: OctetString,
}

impl BackupContent {
    /// The message that the fleet CA signs.
    pub fn message(&self) -> Zeroizing<Vec<u8>> {
        let content = Zeroizing::new(der::encode(self));
        Zeroizing::new(labelled(label::FLEET_BACKUP, &content))
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.version != 1 {
            return Err("its version is not 1");
        }
        if self.made_at > NUMBER_MAX || self.roster > NUMBER_MAX {
            return Err("a number is too large");
        }
        if self.files.len() > FILES_MAX || !self.files.is_sorted_by(|one, next| one.name < next.name) {
            return Err("its files are too many, not in order, or there twice");
        }
        match self.files.iter().all(|file| is_file_name(&file.name)) {
            true => Ok(()),
            false => Err("the name of a file leads elsewhere, or is hidden"),
        }
    }
}

/// Whether a backup may hold a file of this name.
pub fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let part = |part: &str| {
        !part.is_empty() && part.len() <= 128 && !part.starts_with('.') && part.bytes().all(plain)
    };
    name.split('/').count() <= 3 && name.split('/').all(part)
}

impl Backup {
    /// Puts one together; `sign` is Ed25519 by the fleet CA. `roster` is the one among the files.
    ///
    /// # Errors
    /// There is no such backup: a file of a name that cannot be in it, or too many.
    pub fn make(
        roster: &Roster,
        mut files: Vec<BackupFile>,
        made_at: u64,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<Self> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let content = BackupContent {
            version: 1,
            fleet: roster.fleet().to_owned(),
            made_at,
            roster: roster.version().number,
            roster_hash: roster.version().hash,
            files,
        };
        content.check().map_err(malformed)?;
        let signature = sign(&content.message()).to_vec().into();
        Ok(Backup { content, signature })
    }

    /// Its bytes, with every secret of the fleet directory in them.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(der::encode(self))
    }

    /// Reads one without judging who made it.
    ///
    /// # Errors
    /// Anything but the one encoding of a backup within its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let backup: Backup = der::decode("backup", bytes, BACKUP_BYTES_MAX)?;
        backup.content.check().map_err(malformed)?;
        Ok(backup)
    }

    /// Verifies that it came from the fleet CA of the fleet of `trust`; returns the roster in it.
    ///
    /// # Errors
    /// The roster's own refusals; `other-root`; `bad-signature`; `malformed` when the roster is not the one it says.
    pub fn verify(&self, trust: &TrustFile) -> Result<Roster> {
        let content = &self.content;
        let file = content.files.iter().find(|file| file.name == ROSTER);
        let file = file.ok_or_else(|| malformed("there is no roster in it"))?;
        let roster = Roster::decode(&file.bytes)?;
        roster.check_root(trust)?;
        let certificate = &roster.founding().content.fleet_ca.content;
        let signed = PublicKey::from_bytes(Algorithm::Ed25519, &*certificate.public_key)
            .and_then(|key| key.verify(&content.message(), &self.signature));
        signed.map_err(|_| Refusal::BadSignature("the fleet CA".to_owned()))?;
        let version = roster.version();
        if (content.fleet.as_str(), content.roster, content.roster_hash)
            != (roster.fleet(), version.number, version.hash)
        {
            return Err(malformed("its roster is another one than it says"));
        }
        Ok(roster)
    }
}

fn malformed(what: &'static str) -> RosterRefusal {
    Refusal::Malformed(what.into()).into()
}
