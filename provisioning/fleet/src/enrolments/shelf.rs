//! Enrolments on the disk: one file each in `enrolments` of the fleet directory, named by its transcript.
//!
//! The registrar and the commands for people both work here, one at a time: whoever reads in order to write holds the
//! lock. What a restored backup has forgotten, boxes ask for again, and the roster still knows which of their logs the
//! fleet took up.
//! Refuses to do: believe a file that is not the record its name says.

use crate::exit::{Exit, Failure};
use crate::files::{self, Lock};
use bulla_enrolment::proof::fingerprint;
use bulla_enrolment::record::{RECORD_BYTES_MAX, Record};
use bulla_formats::hash::Hash;
use bulla_formats::report::utc;
use std::fs;
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "enrolments";
/// Where TPMs are noted that came without being listed.
const STRANGERS: &str = "strangers";
/// Most strangers that are noted: they cost nothing to make up.
const STRANGERS_MAX: usize = 1_024;
/// Longest note of a stranger in bytes.
const NOTE_BYTES_MAX: usize = 4 << 10;

/// The directory of enrolments.
pub struct Shelf {
    dir: PathBuf,
}

/// A TPM that came without being listed.
pub struct Stranger {
    /// Hash of its endorsement key, in hex.
    pub ek: String,
    /// When it came last, and what its maker says of it.
    pub note: String,
}

impl Shelf {
    /// Opens that of a fleet directory; makes it.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(fleet: &Path) -> Result<Self, Failure> {
        if !fleet.join(crate::desk::ROSTER).exists() {
            return Err(Failure::usage(format!(
                "{} holds no roster; `bulla-fleet init` makes a fleet",
                fleet.display()
            )));
        }
        let dir = fleet.join(DIRECTORY);
        files::make_private_dir(&dir.join(STRANGERS))?;
        Ok(Shelf { dir })
    }

    /// Waits until nobody else changes anything.
    ///
    /// # Errors
    /// The file system's.
    pub fn lock(&self) -> Result<Lock, Failure> {
        Lock::wait(&self.dir)
    }

    /// The enrolment with this transcript.
    ///
    /// # Errors
    /// The file cannot be read, or is none of ours.
    pub fn get(&self, transcript: &Hash) -> Result<Option<Record>, Failure> {
        let path = self.dir.join(transcript.to_string());
        let Some(bytes) = files::read_if_there(&path, RECORD_BYTES_MAX)? else { return Ok(None) };
        let failed =
            |why: String| Failure::new(Exit::Refused, format!("{} is damaged: {why}", path.display()));
        let record = Record::decode(&bytes).map_err(|error| failed(error.to_string()))?;
        match record.transcript() == *transcript {
            true => Ok(Some(record)),
            false => Err(failed("it is another enrolment's".to_owned())),
        }
    }

    /// Makes a record durable, in place of what was there. The caller holds the lock.
    ///
    /// # Errors
    /// The file system's.
    pub fn put(&self, record: &Record) -> Result<(), Failure> {
        files::write_private(&self.dir.join(record.transcript().to_string()), &record.encode())
    }

    /// Removes a record. The caller holds the lock.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(&self, transcript: &Hash) -> Result<(), Failure> {
        let path = self.dir.join(transcript.to_string());
        fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, error))
    }

    /// All of them, in the order they came.
    ///
    /// # Errors
    /// A file cannot be read, or is none of ours.
    pub fn all(&self) -> Result<Vec<Record>, Failure> {
        let mut records = Vec::new();
        for name in self.names(&self.dir)? {
            let digits = hex::decode(&name).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            if let Some(digits) = digits {
                records.extend(self.get(&Hash(digits))?);
            }
        }
        records.sort_by_key(|record| (record.received_at, record.transcript()));
        Ok(records)
    }

    /// The one whose fingerprint or transcript begins like this.
    ///
    /// # Errors
    /// None does, or several do.
    pub fn find(&self, which: &str) -> Result<Record, Failure> {
        let plain = |text: &str| text.replace(['-', ' '], "").to_uppercase();
        let wanted = plain(which.strip_prefix("bulla-enrol:").unwrap_or(which));
        let mut found: Vec<Record> = self.all()?;
        found.retain(|record| {
            let transcript = record.transcript();
            wanted.len() >= 8
                && [plain(&fingerprint(&transcript)), plain(&transcript.to_string())]
                    .iter()
                    .any(|name| name.starts_with(&wanted))
        });
        match (found.pop(), found.len()) {
            (Some(record), 0) => Ok(record),
            (None, _) => Err(Failure::usage(format!(
                "no enrolment has the claim code {which}; `bulla-fleet enrolments list` shows them"
            ))),
            (Some(_), more) => {
                Err(Failure::usage(format!("{} enrolments begin with {which}; give more of it", more + 1)))
            }
        }
    }

    /// Notes a TPM that came without being listed. The caller holds the lock.
    ///
    /// # Errors
    /// The file system's.
    pub fn note_stranger(&self, ek: &Hash, described: &str, now_millis: u64) -> Result<(), Failure> {
        let dir = self.dir.join(STRANGERS);
        let path = dir.join(ek.to_string());
        if path.exists() || self.names(&dir)?.len() < STRANGERS_MAX {
            files::write_private(&path, format!("{} {described}", utc(now_millis)).as_bytes())?;
        }
        Ok(())
    }

    /// TPMs that came without being listed.
    ///
    /// # Errors
    /// The file system's.
    pub fn strangers(&self) -> Result<Vec<Stranger>, Failure> {
        let dir = self.dir.join(STRANGERS);
        let read = |ek: String| {
            let bytes = files::read(&dir.join(&ek), NOTE_BYTES_MAX)?;
            Ok(Stranger { ek, note: String::from_utf8_lossy(&bytes).into_owned() })
        };
        self.names(&dir)?.into_iter().map(read).collect()
    }

    fn names(&self, dir: &Path) -> Result<Vec<String>, Failure> {
        let failed = |error| Failure::file("read", dir, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.file_type().map_err(failed)?.is_file() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}
