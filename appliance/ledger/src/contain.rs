//! What redb does on a damaged page, contained: its panics become errors.
//!
//! redb verifies page checksums only when it repairs or is asked to; a read that meets a page of nonsense may end in
//! a panic. No such page may take down a thread, let alone the writer.
//!
//! Refuses: to conclude anything from a panic but that a page could not be read. To judge the one bit of redb's header
//! that says which of its two commits is the newest: a repair that goes back one commit leaves the same header as a flip
//! of that bit does, and a box that refuses to start after a power cut would be the worse of the two.

use crate::error::{Damage, ReadError, StorageFault};
use redb::Database;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
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

/// A database whose closing cannot panic either: redb writes its allocator state when it is dropped, and that may be
/// what the damage hit. A second panic while one unwinds would abort the process.
#[derive(Debug)]
pub(crate) struct Held(Option<Database>);

impl Held {
    pub(crate) fn new(db: Database) -> Self {
        Self(Some(db))
    }
}

impl Deref for Held {
    type Target = Database;
    fn deref(&self) -> &Database {
        self.0.as_ref().expect("taken only by drop")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Database {
        self.0.as_mut().expect("taken only by drop")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let db = self.0.take();
        // A file that cannot be closed in order is repaired, or refused, when it is opened again.
        let _ = contained(|| drop(db));
    }
}
