//! Files: written whole or not at all, private where they hold secrets, read only up to a size.
//!
//! Refuses to do: follow a half-written file (names beginning with a dot are nobody's), or leave a secret readable by
//! others.
//! Invariant: after [`write()`] or [`write_private`] returns, the file and its name survive a power cut.

use crate::exit::Failure;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Reads a file of at most `limit` bytes; the bytes are wiped after use.
pub fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error| Failure::file("read", path, error);
    let mut bytes = Zeroizing::new(Vec::new());
    // Opening a named pipe that somebody laid there would wait for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Failure::usage(format!("{} is no file that can be read as a whole", path.display())));
    }
    let file = File::open(path).map_err(failed)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(Failure::usage(format!(
            "{} is longer than {limit} bytes: not what is expected here",
            path.display()
        )));
    }
    Ok(bytes)
}

/// The same for a file that may not be there.
pub fn read_if_there(path: &Path, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => read(path, limit).map(Some),
    }
}

/// Writes a file that everybody may read, in place of the one there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    put(path, bytes, 0o644)
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    put(path, bytes, 0o600)
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let (Some(name), Some(dir)) = (path.file_name(), path.parent()) else {
        return Err(Failure::usage(format!("{} names no file", path.display())));
    };
    // A bare name stands in the directory where one is.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let fresh = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let put = || {
        let _absent = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(dir)?.sync_all()
    };
    put().map_err(|error| {
        let _absent = fs::remove_file(&fresh);
        Failure::file("write", path, error)
    })
}

/// Makes a directory that only its owner may enter; it may exist.
pub fn make_private_dir(path: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::file("make", path, error))
}

/// Keeps other processes of this program away from a directory for as long as it lives.
pub struct Lock(#[expect(dead_code, reason = "held for its lock, which ends with it")] File);

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another process has it: two processes with one custodian's key could use the same nonces twice.
    pub fn take(dir: &Path) -> Result<Self, Failure> {
        let (path, file) = Self::open(dir)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::usage(format!(
                "{} is in use by another process of bulla-fleet; wait for it or stop it",
                dir.display()
            ))),
            Err(error) => Err(Failure::file("lock", &path, error)),
        }
    }

    /// Waits for the lock: where every process holds it for a moment only.
    ///
    /// # Errors
    /// The file system's.
    pub fn wait(dir: &Path) -> Result<Self, Failure> {
        let (path, file) = Self::open(dir)?;
        let locked = flock(&file, FlockOperation::LockExclusive);
        locked.map(|()| Lock(file)).map_err(|error| Failure::file("lock", &path, error))
    }

    fn open(dir: &Path) -> Result<(PathBuf, File), Failure> {
        let path = dir.join(".lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        open.map(|file| (path.clone(), file)).map_err(|error| Failure::file("open", &path, error))
    }
}
