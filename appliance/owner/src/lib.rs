//! One state directory, one user.
//!
//! Refuses to do: work on a state directory as somebody else than its owner, root included. Files are made with mode
//! 0600; what root makes among the files of a service user, the service cannot read at its next start.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why this process does not work on a state directory.
#[derive(Debug, thiserror::Error)]
pub enum NotTheOwner {
    /// It is another user's.
    #[error(
        "{place} belongs to user {owner} and this is user {this}, whose files the service could not read; run it as the \
         owner, which for the Debian package is: runuser -u {service} -- {program} ..."
    )]
    Another {
        /// What belongs to another user: the directory, or where it would be made.
        place: PathBuf,
        /// Number of its owner.
        owner: u32,
        /// Number of the user that runs this process.
        this: u32,
        /// The user of the program's Debian package.
        service: &'static str,
        /// The program.
        program: &'static str,
    },
    /// Nobody can say whose it is.
    #[error("{place} cannot be looked at ({source}); check the directory and its permissions")]
    Unknown {
        /// The directory.
        place: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// Checks that this process runs as the owner of `state_dir`; where it is yet to be created, root checks its parent.
/// `program` and the `service` user of its Debian package are for the sentence that says what to do.
///
/// # Errors
/// It belongs to another user, or cannot be looked at.
pub fn check(state_dir: &Path, program: &'static str, service: &'static str) -> Result<(), NotTheOwner> {
    let this = rustix::process::geteuid();
    let parent = state_dir.parent().filter(|_| this.is_root());
    let places = [Some(state_dir), parent];
    for place in places.into_iter().flatten() {
        let owner = match std::fs::metadata(place) {
            Ok(metadata) => metadata.uid(),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(NotTheOwner::Unknown { place: place.to_owned(), source }),
        };
        if owner != this.as_raw() {
            let (place, this) = (place.to_owned(), this.as_raw());
            return Err(NotTheOwner::Another { place, owner, this, service, program });
        }
        // It is there, and whose it is has been looked at.
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(state_dir: &Path) -> Result<(), NotTheOwner> {
        check(state_dir, "bulla-box", "bulla")
    }

    #[test]
    fn only_the_owner_works_on_a_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        checked(directory.path()).unwrap();
        checked(&directory.path().join("not-there-yet")).unwrap();
        // Who owns the root directory is not the user of this test, unless that is root: then somebody else is made.
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(4_711), None).unwrap();
            directory.path()
        } else {
            Path::new("/")
        };
        let error = checked(foreign).unwrap_err().to_string();
        assert!(error.contains("runuser -u bulla -- bulla-box"), "{error}");
        if rustix::process::geteuid().is_root() {
            assert!(
                checked(&foreign.join("not-there-yet")).is_err(),
                "root makes no state in others' directories"
            );
        }
    }
}
