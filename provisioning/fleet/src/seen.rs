//! What a person's own directory remembers of the roster: the newest version it was shown.
//!
//! Refuses to do: go back, or believe a second roster of the same fleet.
//! Invariant: whatever its person approved, acts on this version or on a later one.

use crate::exit::Failure;
use crate::files;
use bulla_approvals::action::Version;
use bulla_formats::der;
use bulla_roster::roster::Roster;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::path::{Path, PathBuf};

const SEEN_BYTES_MAX: usize = 1 << 10;

/// `roster-<fleet>`: docs/formats.md section 15.
#[derive(AsnType, Decode, Encode)]
struct SeenFile {
    version: u64,
    fleet: String,
    founding: Version,
    last: Version,
}

/// The memory of one person about one fleet.
pub struct Seen {
    path: PathBuf,
    file: Option<SeenFile>,
}

impl Seen {
    /// What the directory of a person knows of this roster's fleet.
    pub fn open(dir: &Path, fleet: &str) -> Result<Self, Failure> {
        let path = dir.join(format!("roster-{fleet}"));
        let bytes = files::read_if_there(&path, SEEN_BYTES_MAX)?;
        let file: Option<SeenFile> = bytes
            .map(|bytes| der::decode("memory of the roster", &bytes, SEEN_BYTES_MAX))
            .transpose()
            .map_err(|error| Failure::file("read", &path, error))?;
        if file.as_ref().is_some_and(|file| file.version != 1 || file.fleet != fleet) {
            return Err(Failure::usage(format!(
                "{} is not this program's, or of another fleet",
                path.display()
            )));
        }
        Ok(Seen { path, file })
    }

    /// Whether nothing was seen yet.
    pub fn is_new(&self) -> bool {
        self.file.is_none()
    }

    /// Whether `roster` continues what was seen.
    pub fn check(&self, roster: &Roster) -> Result<(), Failure> {
        if let Some(file) = &self.file {
            roster.check_seen(&file.founding)?;
            roster.check_seen(&file.last)?;
        }
        Ok(())
    }

    /// Remembers `roster`, which was checked.
    pub fn keep(&mut self, roster: &Roster) -> Result<(), Failure> {
        if self.file.as_ref().is_some_and(|file| file.last == *roster.version()) {
            return Ok(());
        }
        let founding = roster.versions()[0].clone();
        let file = SeenFile {
            version: 1,
            fleet: roster.fleet().to_owned(),
            founding,
            last: roster.version().clone(),
        };
        files::write_private(&self.path, &der::encode(&file))?;
        self.file = Some(file);
        Ok(())
    }
}
