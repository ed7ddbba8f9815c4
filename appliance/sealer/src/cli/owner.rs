//! One state directory, one user.
//!
//! Refuses to do: work on a state directory as somebody else than its owner, root included. Files are made with mode
//! 0600; what root makes among the files of a service user, the service cannot read at its next start.

use anyhow::{Context, Result, ensure};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Checks that this process runs as the owner of `state_dir`; where it is yet to be created, root checks its parent.
pub fn check(state_dir: &Path) -> Result<()> {
    let this = rustix::process::geteuid();
    let parent = state_dir.parent().filter(|_| this.is_root());
    let places = [Some(state_dir), parent];
    for place in places.into_iter().flatten() {
        let owner = match std::fs::metadata(place) {
            Ok(metadata) => metadata.uid(),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be looked at", place.display()));
            }
        };
        ensure!(
            owner == this.as_raw(),
            "{} belongs to user {owner} and this is user {}, whose files the box could not read; run it as the owner, \
             which for the Debian package is: runuser -u bulla -- bulla-box ...",
            place.display(),
            this.as_raw()
        );
        // It is there, and whose it is has been looked at.
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_works_on_a_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        check(directory.path()).unwrap();
        check(&directory.path().join("not-there-yet")).unwrap();
        // Who owns the root directory is not the user of this test, unless that is root: then somebody else is made.
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(4_711), None).unwrap();
            directory.path()
        } else {
            Path::new("/")
        };
        let error = check(foreign).unwrap_err().to_string();
        assert!(error.contains("runuser"), "{error}");
        if rustix::process::geteuid().is_root() {
            assert!(
                check(&foreign.join("not-there-yet")).is_err(),
                "root makes no state in others' directories"
            );
        }
    }
}
