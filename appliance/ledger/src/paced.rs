//! What a scrub reads: the log's directory at a pace, or a copy of one file.
//!
//! Refuses: every write.
//! Invariant: a copy is what the file held between one moment and the next; nothing changes in it any more.

use crate::store::Store;
use redb::StorageBackend;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Sets the pace. The ledger has no clock: whoever scrubs sleeps.
pub trait Pace: Debug + Send + Sync {
    /// Called before `bytes` are read. An error ends the pass.
    fn before_read(&self, bytes: usize) -> io::Result<()>;
    /// Whether the pass is to end; then nothing that it found counts.
    fn stopped(&self) -> bool;
}

/// The log's directory, and how much of it was read.
#[derive(Debug)]
pub(crate) struct PacedStore {
    inner: Arc<dyn Store>,
    pace: Arc<dyn Pace>,
    read: AtomicU64,
}

impl PacedStore {
    pub(crate) fn new(inner: Arc<dyn Store>, pace: Arc<dyn Pace>) -> Self {
        Self { inner, pace, read: AtomicU64::new(0) }
    }

    pub(crate) fn account(&self, bytes: usize) -> io::Result<()> {
        self.read.fetch_add(bytes as u64, Relaxed);
        self.pace.before_read(bytes)
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    pub(crate) fn stopped(&self) -> bool {
        self.pace.stopped()
    }

    /// Without waiting, and not counted.
    pub(crate) fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.inner.open(name)
    }
}

/// What fsck's machinery is given of it.
#[derive(Debug)]
pub(crate) struct Watched {
    store: Arc<PacedStore>,
    /// The one file that can be opened.
    copy: Option<(String, Arc<[u8]>)>,
}

impl Watched {
    /// Every file, from the disk.
    pub(crate) fn at_a_pace(store: &Arc<PacedStore>) -> Self {
        Self { store: Arc::clone(store), copy: None }
    }

    /// The first `most` bytes of one file as they are now, read without waiting.
    pub(crate) fn still(store: &Arc<PacedStore>, name: &str, most: u64) -> io::Result<Self> {
        let file = store.inner.open(name)?;
        let mut bytes = vec![0; file.len()?.min(most) as usize];
        file.read(0, &mut bytes)?;
        store.read.fetch_add(bytes.len() as u64, Relaxed);
        Ok(Self { store: Arc::clone(store), copy: Some((name.to_owned(), bytes.into())) })
    }
}

fn only_reads() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a scrub only reads")
}

impl Store for Watched {
    fn list(&self) -> io::Result<Vec<String>> {
        self.store.inner.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        match &self.copy {
            Some((copied, bytes)) if copied == name => Ok(Box::new(CopiedFile(Arc::clone(bytes)))),
            Some(_) => Err(io::ErrorKind::NotFound.into()),
            None => {
                Ok(Box::new(PacedFile { file: self.store.inner.open(name)?, store: Arc::clone(&self.store) }))
            }
        }
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageBackend>> {
        Err(only_reads())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(only_reads())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(only_reads())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(only_reads())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.store.inner.free_bytes()
    }
}

#[derive(Debug)]
struct PacedFile {
    file: Box<dyn StorageBackend>,
    store: Arc<PacedStore>,
}

impl StorageBackend for PacedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.store.account(out.len())?;
        self.file.read(offset, out)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(only_reads())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(only_reads())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(only_reads())
    }
}

#[derive(Debug)]
struct CopiedFile(Arc<[u8]>);

impl StorageBackend for CopiedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range =
            usize::try_from(offset).ok().and_then(|from| self.0.get(from..from.checked_add(out.len())?));
        out.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(only_reads())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(only_reads())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(only_reads())
    }
}
