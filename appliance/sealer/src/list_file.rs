//! A list in one file of the state directory, which the command line replaces while the box goes by it.
//!
//! The file is replaced whole, under a lock, and is on the disk before its new name is; a running box tells one version
//! from the next by its [`Stamp`] and reads it again when that has changed.
//! Refuses to do: know what is in the list.
//! Invariant: whoever reads sees one version or the next, never half of one; the file is for its owner's eyes (0600).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The operating system refused.
#[derive(Debug)]
pub struct Fault {
    /// The file or directory.
    pub path: PathBuf,
    /// Its reason.
    pub source: io::Error,
}

/// What tells one version of the file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Whoever holds this is the only one that changes the list.
pub struct Locked(#[expect(dead_code, reason = "the lock goes with the descriptor")] File);

/// `<directory>/<name>.json`, with `<name>.lock` beside it.
pub struct ListFile {
    directory: PathBuf,
    name: &'static str,
    path: PathBuf,
}

impl ListFile {
    /// The file of this name; nothing is read yet.
    pub fn new(directory: &Path, name: &'static str) -> Self {
        ListFile { directory: directory.to_owned(), name, path: directory.join(format!("{name}.json")) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which version is there; `None` for no file.
    pub fn stamp(&self) -> Result<Option<Stamp>, Fault> {
        match fs::metadata(&self.path) {
            Ok(meta) => Ok(Some(Stamp {
                inode: meta.ino(),
                length: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Fault { path: self.path.clone(), source }),
        }
    }

    /// Its bytes.
    pub fn read(&self) -> Result<Vec<u8>, Fault> {
        fs::read(&self.path).map_err(|source| Fault { path: self.path.clone(), source })
    }

    /// Waits until nobody else changes the list: two administrators at once must not undo each other.
    pub fn lock(&self) -> Result<Locked, Fault> {
        let path = self.directory.join(format!("{}.lock", self.name));
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = open.map_err(|source| Fault { path: path.clone(), source })?;
        // The box may run as another user than the administrator who was here first.
        self.give_to_owner(&lock).map_err(|source| Fault { path: path.clone(), source })?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| Fault { path, source: error.into() })?;
        Ok(Locked(lock))
    }

    /// Puts these bytes in place of the file, durably.
    pub fn replace(&self, _lock: &Locked, bytes: &[u8]) -> Result<(), Fault> {
        let fresh = self.directory.join(format!("{}.json.new", self.name));
        let attempt = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(bytes)?;
            self.give_to_owner(&file)?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)?;
            File::open(&self.directory)?.sync_all()
        };
        attempt().map_err(|source| Fault { path: fresh.clone(), source })
    }

    /// The box may run as another user than the administrator who changes the list.
    fn give_to_owner(&self, file: &File) -> io::Result<()> {
        let owner = fs::metadata(&self.directory)?;
        if file.metadata()?.uid() != owner.uid() {
            std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }
}
