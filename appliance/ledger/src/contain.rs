//! What redb does on a damaged page, contained: its panics become errors.
//!
//! redb verifies page checksums only when it repairs or is asked to; a read that meets a page of nonsense may end in
//! a panic. No such page may take down a thread, let alone the writer.
//!
//! A *commit* that meets one may panic in a destructor while it unwinds, and that ends the process: nothing contains
//! it. So nothing is committed to a database that is only looked at, not even by closing it ([`Held`]); and a repair,
//! which commits, verifies every page before. A file that takes entries is closed in order all the same: what panics
//! while it is read are pages of its tables, what closing reads is the tree of freed pages, and a file that was not
//! closed in order cannot be opened again around a page that has rotted.
//!
//! Refuses: to conclude anything from a panic but that a page could not be read. To judge the one bit of redb's header
//! that says which of its two commits is the newest: a repair that goes back one commit leaves the same header as a flip
//! of that bit does, and a box that refuses to start after a power cut would be the worse of the two.

use crate::error::{Damage, ReadError, StorageFault};
use redb::Database;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

const GAVE_UP: &str = "redb gave up on a damaged page";

thread_local! {
    /// How many contained looks this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `work`; `Err` when it panicked. What redb says about its own source then means nothing to who reads the log of
/// a box, so a contained panic is not printed; the error that it becomes is.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    static QUIET: Once = Once::new();
    // A thread that unwinds may not change the hook.
    if !thread::panicking() {
        QUIET.call_once(|| {
            let loud = take_hook();
            set_hook(Box::new(move |panic| {
                if DEPTH.get() == 0 {
                    loud(panic);
                }
            }));
        });
    }
    DEPTH.set(DEPTH.get() + 1);
    // What `work` can see is either dropped with the panic (transactions, handles) or only read.
    let done = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    done
}

/// Runs `look` on the file `name`; a panic in it is damage at `index`.
pub(crate) fn contain<T>(
    name: &str,
    index: u64,
    look: impl FnOnce() -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    contained(look).unwrap_or_else(|_| Err(Damage::new(name, index, GAVE_UP).into()))
}

/// The same for what fails as storage does: opening and transactions of the companions.
pub(crate) fn contain_fault<T>(
    action: &'static str,
    name: &str,
    work: impl FnOnce() -> Result<T, StorageFault>,
) -> Result<T, StorageFault> {
    contained(work).unwrap_or_else(|_| {
        let source = Box::new(redb::Error::Corrupted(GAVE_UP.to_owned()));
        Err(StorageFault { action, file: name.to_owned(), source })
    })
}

/// A database, and how it is closed. redb commits when one is dropped: it writes which pages are free, for a quicker
/// start, and reads the tree of freed pages for it.
#[derive(Debug)]
pub(crate) struct Held {
    db: Option<Database>,
    /// Whether closing commits.
    in_order: AtomicBool,
}

impl Held {
    /// One that takes writes.
    pub(crate) fn writable(db: Database) -> Self {
        Self { db: Some(db), in_order: AtomicBool::new(true) }
    }

    /// One that is only looked at.
    pub(crate) fn frozen(db: Database) -> Self {
        Self { db: Some(db), in_order: AtomicBool::new(false) }
    }

    /// Nothing will be committed by closing it.
    pub(crate) fn let_go(&self) {
        self.in_order.store(false, Relaxed);
    }
}

impl Deref for Held {
    type Target = Database;
    fn deref(&self) -> &Database {
        self.db.as_ref().expect("taken only by drop")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Database {
        self.db.as_mut().expect("taken only by drop")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let db = self.db.take();
        let in_order = self.in_order.load(Relaxed);
        let _ = contained(|| {
            let _db = db;
            if !in_order && !thread::panicking() {
                // redb leaves a file as it is when it is closed by a thread that unwinds. There is no other way to have
                // it not commit.
                resume_unwind(Box::new(()));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;
    use redb::{ReadableDatabase as _, StorageBackend, TableDefinition};
    use std::io;
    use std::sync::Arc;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");

    /// Counts what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Counted(Arc<(InMemoryBackend, std::sync::atomic::AtomicU64)>);

    impl Counted {
        fn writes(&self) -> u64 {
            self.0.1.load(Relaxed)
        }

        fn database(&self) -> Database {
            Database::builder().create_with_backend(self.clone()).unwrap()
        }
    }

    impl StorageBackend for Counted {
        fn len(&self) -> io::Result<u64> {
            self.0.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.1.fetch_add(1, Relaxed);
            self.0.0.write(offset, data)
        }
    }

    /// Writes one row and closes; returns whether closing wrote anything.
    fn closing_writes(hold: impl FnOnce(Database) -> Held) -> bool {
        let file = Counted::default();
        let held = hold(file.database());
        let txn = held.begin_write().unwrap();
        txn.open_table(TABLE).unwrap().insert(1, [7; 9].as_slice()).unwrap();
        txn.commit().unwrap();
        let before = file.writes();
        drop(held);
        let wrote = file.writes() > before;
        // Whatever way it was closed, what was committed is there.
        let again = file.database();
        let table = again.begin_read().unwrap().open_table(TABLE).unwrap();
        assert_eq!(table.get(1).unwrap().unwrap().value(), [7; 9]);
        wrote
    }

    #[test]
    fn what_is_only_looked_at_is_not_written_to_when_it_is_closed() {
        assert!(closing_writes(Held::writable));
        assert!(!closing_writes(Held::frozen));
        assert!(!closing_writes(|db| {
            let held = Held::writable(db);
            held.let_go();
            held
        }));
    }

    #[test]
    fn a_thread_that_unwinds_can_let_go_too() {
        let file = Counted::default();
        let held = Held::writable(file.database());
        let before = file.writes();
        let ended = contained(move || {
            let _held = held;
            panic!("something else");
        });
        assert!(ended.is_err() && file.writes() == before);
    }
}
