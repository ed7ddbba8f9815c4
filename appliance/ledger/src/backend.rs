//! Two wrappers between redb and a file: the fence and the overlay.
//!
//! - [`Fenced`] passes everything through until it is shut; then nothing can change the file any more. redb writes
//!   when a `Database` is dropped (allocator state, shutdown mark); after a commit of unknown effect that write
//!   must not happen.
//! - [`Overlay`] never writes: changes stay in memory. redb repairs a file that was not closed cleanly by writing
//!   to it; through the overlay a poisoned or closed segment is read without being touched, and fsck stays a judge
//!   that changes no evidence.

use crate::contain::{Held, contain_fault};
use crate::error::{During, StorageFault};
use crate::store::Store;
use redb::{Database, StorageBackend};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Shuts a file against writing, for good.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fence(Arc<AtomicBool>);

impl Fence {
    /// From here on every write, sync and resize of the file fails without reaching it.
    pub(crate) fn shut(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::other("this file takes no writes after a write of unknown effect"));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Fenced {
    file: Box<dyn StorageBackend>,
    fence: Fence,
}

impl StorageBackend for Fenced {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fence.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fence.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fence.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Overlay granularity, bytes; redb's page size.
const PAGE: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Overlay {
    file: Box<dyn StorageBackend>,
    changed: RwLock<Changed>,
}

#[derive(Debug)]
struct Changed {
    /// Length as redb sees it.
    len: u64,
    /// Length below which unchanged bytes still come from the file; a shrink hides what lay behind.
    file_len: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn new(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, changed: RwLock::new(Changed { len, file_len: len, pages: BTreeMap::new() }) })
    }

    /// Fills `out` from the file; zeros where the file has ended.
    fn read_file(&self, file_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = file_len.saturating_sub(offset).min(out.len() as u64) as usize;
        let (from_file, zeros) = out.split_at_mut(there);
        zeros.fill(0);
        if there > 0 { self.file.read(offset, from_file) } else { Ok(()) }
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed.read().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed.read().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= changed.len);
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        self.read_file(changed.file_len, offset, out)?;
        for (number, page) in changed.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = ((number * PAGE).max(offset), (number * PAGE + PAGE).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - number * PAGE) as usize..(to - number * PAGE) as usize]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = self.changed.write().unwrap_or_else(PoisonError::into_inner);
        changed.len = len;
        changed.file_len = changed.file_len.min(len);
        changed.pages.split_off(&len.div_ceil(PAGE));
        if let Some(page) = changed.pages.get_mut(&(len / PAGE)) {
            page[(len % PAGE) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed.write().unwrap_or_else(PoisonError::into_inner);
        let file_len = changed.file_len;
        let end = offset + data.len() as u64;
        for number in offset / PAGE..end.div_ceil(PAGE) {
            let page = match changed.pages.entry(number) {
                Entry::Occupied(page) => page.into_mut(),
                Entry::Vacant(vacant) => {
                    let mut page = vec![0; PAGE as usize].into_boxed_slice();
                    self.read_file(file_len, number * PAGE, &mut page)?;
                    vacant.insert(page)
                }
            };
            let (from, to) = ((number * PAGE).max(offset), (number * PAGE + PAGE).min(end));
            page[(from - number * PAGE) as usize..(to - number * PAGE) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A database that can be written until its fence is shut.
#[derive(Debug)]
pub(crate) struct Writable {
    pub(crate) db: Held,
    pub(crate) fence: Fence,
}

impl Writable {
    /// A new database in the file `name`, which is emptied first.
    pub(crate) fn create(store: &dyn Store, name: &str, cache_bytes: usize) -> Result<Self, StorageFault> {
        Self::new(store.create(name).during("create", name)?, name, cache_bytes)
    }

    /// The database in the existing file `name`, repaired to its last commit if it was not closed cleanly.
    pub(crate) fn open(store: &dyn Store, name: &str, cache_bytes: usize) -> Result<Self, StorageFault> {
        let file = store.open(name).during("open", name)?;
        refuse_empty(file.as_ref()).during("open", name)?;
        // A start verifies all of it, and so does a repair.
        store.will_read(name);
        Self::new(file, name, cache_bytes)
    }

    fn new(file: Box<dyn StorageBackend>, name: &str, cache_bytes: usize) -> Result<Self, StorageFault> {
        let fence = Fence::default();
        let backend = Fenced { file, fence: fence.clone() };
        let open = || Database::builder().set_cache_size(cache_bytes).create_with_backend(backend);
        let db = contain_fault("open", name, || open().during("open", name))?;
        Ok(Self { db: Held::writable(db), fence })
    }

    /// Lets go of the file without another byte written to it.
    pub(crate) fn abandon(self) {
        self.fence.shut();
        self.db.let_go();
    }
}

/// Opens the database in the file `name` for reading only, from the disk and without changing it.
pub(crate) fn open_frozen(store: &dyn Store, name: &str, cache_bytes: usize) -> Result<Held, StorageFault> {
    let file = store.open(name).during("open", name)?;
    let overlay = Overlay::new(file).during("open", name)?;
    refuse_empty(&overlay).during("open", name)?;
    let open = || Database::builder().set_cache_size(cache_bytes).create_with_backend(overlay);
    Ok(Held::frozen(contain_fault("open", name, || open().during("open", name))?))
}

/// redb would make an empty file a new database; under a final name it is a lost one.
fn refuse_empty(file: &dyn StorageBackend) -> io::Result<()> {
    if file.len()? == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty, its contents are lost"));
    }
    Ok(())
}
