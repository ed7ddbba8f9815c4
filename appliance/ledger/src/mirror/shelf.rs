//! Where the mirrors' directories are: one below another's roof, one for each log.
//!
//! Refuses: a shelf that another process has open; names with a slash.
//! Invariants: creating, renaming and removing directories is durable only after [`Shelf::sync`]. The shelf's lock covers
//! all directories on it.

use crate::store::{DirStore, LOCK_NAME, Store, lock};
use std::fmt::Debug;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Named directories, each a [`Store`].
pub trait Shelf: Debug + Send + Sync {
    /// The names of all directories.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An existing directory.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Store>>;
    /// Makes a directory, which must not exist.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Store>>;
    /// Gives a directory another name, which must be free. What was opened under the old one is not used any more.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a directory with everything in it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of directories on a local file system, locked for as long as this value or a store of it lives.
#[derive(Debug)]
pub struct DirShelf {
    path: PathBuf,
    dir: File,
    lock: Arc<File>,
}

impl DirShelf {
    /// Opens the directory `path`, makes it if there is none (its parent exists), and takes its exclusive lock.
    /// `WouldBlock` means that another process has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
            Ok(()) => path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?,
        }
        Ok(Self { path: path.to_owned(), dir: File::open(path)?, lock: lock(path)? })
    }

    fn below(&self, name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') || name == LOCK_NAME {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain directory name"));
        }
        Ok(self.path.join(name))
    }
}

impl Shelf for DirShelf {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|name| *name != LOCK_NAME) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Store>> {
        Ok(Arc::new(DirStore::under(&self.below(name)?, Arc::clone(&self.lock))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Store>> {
        DirBuilder::new().mode(0o700).create(self.below(name)?)?;
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        // rename(2) would replace an empty directory.
        let to = self.below(to)?;
        if to.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(self.below(from)?, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.below(name)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.dir.sync_all()
    }
}
