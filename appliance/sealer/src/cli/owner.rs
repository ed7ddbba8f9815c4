//! One state directory, one user.
//!
//! Refuses to do: work on a state directory as somebody else than its owner, root included. Files are made with mode
//! 0600; what root makes among the files of a service user, the service cannot read at its next start.

use anyhow::{Context, Result, ensure};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Checks that this process runs as the owner of `state_dir`. A directory that is not there has no owner yet.
pub fn check(state_dir: &Path) -> Result<()> {
    let owner = match std::fs::metadata(state_dir) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("the state directory {} cannot be looked at", state_dir.display()));
        }
    };
    let this = rustix::process::geteuid().as_raw();
    ensure!(
        owner == this,
        "the state directory {} belongs to user {owner} and this is user {this}, whose files the box could not read; \
         run it as the owner, which for the Debian package is: runuser -u bulla -- bulla-box ...",
        state_dir.display()
    );
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
    }
}
