//! Where the log's files live: the [`Store`] trait, and the directory that implements it.
//!
//! Refuses: a directory that another process has open (two writers would be a fork), names with a slash.
//!
//! Invariants:
//! - Creating, renaming and removing are durable only after [`Store::sync_dir`].
//! - Whatever [`Store::open`] returns reads what the *disk* holds. After a failed fsync Linux marks the dirty
//!   pages clean and drops the error, so the page cache shows bytes that were never written; a log that trusted
//!   them would acknowledge entries that the next power cut removes. The cache is therefore dropped before every
//!   open.
//!
//! Everything the ledger does to a disk passes through this trait: the fault tests stand here.

use redb::StorageBackend;
use rustix::fs::{Advice, FlockOperation};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A flat set of named files. Implementations model or are one directory.
pub trait Store: Debug + Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing, with nothing of it left in a cache.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;
    /// Says that an open file is about to be read from end to end. A hint: whatever it does, reads stay right.
    fn will_read(&self, name: &str) {
        let _ = name;
    }
    /// Length of an existing file, bytes.
    fn len_of(&self, name: &str) -> io::Result<u64> {
        self.open(name)?.len()
    }
    /// Creates a file, or empties it if it exists.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;
    /// Renames, replacing `to` in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that can still be written by this process.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// A directory on a local file system, locked for as long as this value lives.
#[derive(Debug)]
pub struct DirStore {
    path: PathBuf,
    /// Held open for `sync_dir`, and so that the directory cannot be swapped under us.
    dir: File,
    /// The lock goes when this is closed, also when the process dies. Directories below one that is locked share its.
    _lock: Arc<File>,
}

pub(crate) const LOCK_NAME: &str = "lock";

/// Takes the exclusive lock of the directory `path`.
pub(crate) fn lock(path: &Path) -> io::Result<Arc<File>> {
    let lock = private().create(true).truncate(false).open(path.join(LOCK_NAME))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Arc::new(lock))
}

impl DirStore {
    /// Opens the directory `path`, which must exist, and takes its exclusive lock.
    /// `WouldBlock` means that another process has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::under(path, lock(path)?)
    }

    /// Opens the directory `path` under a lock that covers it.
    pub(crate) fn under(path: &Path, lock: Arc<File>) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), dir: File::open(path)?, _lock: lock })
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
        }
        Ok(self.path.join(name))
    }
}

impl Store for DirStore {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            // A name that is not UTF-8 is none of ours.
            if let Some(name) = name.to_str().filter(|name| *name != LOCK_NAME) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let file = private().open(self.file(name)?)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(Box::new(DirFile(file)))
    }

    fn will_read(&self, name: &str) {
        // Reading ahead in large pieces what would be asked for page by page; a hint that fails is none.
        let file = self.file(name).and_then(File::open);
        let _ = file.map(|file| rustix::fs::fadvise(&file, 0, None, Advice::WillNeed));
    }

    fn len_of(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.file(name)?)?.len())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(DirFile(private().create(true).truncate(true).open(self.file(name)?)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from)?, self.file(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name)?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Entries are the institution's: nobody else on the machine reads the files.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// One file. No lock of its own: the directory's lock covers it.
#[derive(Debug)]
struct DirFile(File);

impl StorageBackend for DirFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
