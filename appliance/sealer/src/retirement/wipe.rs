//! What goes, and how: overwritten once, synced, removed.
//!
//! Overwriting a file does not reach what a flash drive or a copying file system has put elsewhere; what makes the rest
//! unreadable is that its keys were sealed to a TPM that is cleared.
//! Refuses to do: follow symbolic links. Invariant: what is gone stays gone, and is no error the next time.

use super::destroy::CHECKPOINT;
use super::{BEGUN, CERTIFICATE, ORDER};
use crate::identity::sync_parent;
use anyhow::{Context as _, Result};
use bulla_formats::retirement::Extent;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

/// Never touched: what tells how far it came, and what belongs to the file system.
const OURS: [&str; 5] = [ORDER, BEGUN, CERTIFICATE, CHECKPOINT, "lost+found"];
/// What an auditor needs, and is no secret.
const KEPT: [&str; 5] = ["manifests", "rosters", "mirrors", "ca.pem", "fleet.json"];
const BLOCK: usize = 1 << 20;

/// Names below `state` that go, ascending.
pub fn names(state: &Path, extent: Extent) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in listed(state)? {
        let kept = OURS.contains(&&*name) || (extent == Extent::KeepLog && KEPT.contains(&&*name));
        if kept {
            continue;
        }
        if extent == Extent::KeepLog && name.starts_with("log-") {
            let inside = listed(&state.join(&name))?;
            let entries = |file: &&String| !(file.starts_with("seg-") || *file == "side.redb");
            names.extend(inside.iter().filter(entries).map(|file| format!("{name}/{file}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn listed(directory: &Path) -> Result<Vec<String>> {
    let list = || -> std::io::Result<Vec<String>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    list().with_context(|| format!("cannot list {}", directory.display()))
}

/// Destroys a file or a directory with all that is in it.
pub fn wipe(path: &Path) -> Result<()> {
    let wiped = overwrite(path).and_then(|()| match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    });
    match wiped {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot destroy {}", path.display())),
    }
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    let about = fs::symlink_metadata(path)?;
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            let inside = entry?.path();
            overwrite(&inside)?;
            match fs::symlink_metadata(&inside)?.is_dir() {
                true => fs::remove_dir(&inside)?,
                false => fs::remove_file(&inside)?,
            }
        }
        return Ok(());
    }
    if !about.is_file() {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).open(path)?;
    let zeros = vec![0; BLOCK];
    let mut rest = about.len();
    while rest > 0 {
        let now = rest.min(BLOCK as u64);
        file.write_all(&zeros[..now as usize])?;
        rest -= now;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_goes_and_what_an_auditor_needs_stays() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        for inside in ["log-7", "keys", "manifests"] {
            fs::create_dir(state.join(inside)).unwrap();
        }
        let files =
            ["identity.json", "keys/keys.json", "log-7/seg-0.redb", "log-7/openings.redb", "ca.pem", ORDER];
        for file in files {
            fs::write(state.join(file), vec![7; BLOCK + 9]).unwrap();
        }
        let kept = names(state, Extent::KeepLog).unwrap();
        assert_eq!(kept, ["identity.json", "keys", "log-7/openings.redb"]);
        let all = names(state, Extent::Everything).unwrap();
        assert_eq!(all, ["ca.pem", "identity.json", "keys", "log-7", "manifests"]);
        // A link is removed, not what it leads to.
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "theirs").unwrap();
        std::os::unix::fs::symlink(outside.path(), state.join("keys/link")).unwrap();
        for name in &all {
            wipe(&state.join(name)).unwrap();
            wipe(&state.join(name)).unwrap();
        }
        assert_eq!(listed(state).unwrap(), [ORDER]);
        assert_eq!(fs::read(outside.path()).unwrap(), b"theirs");
    }
}
