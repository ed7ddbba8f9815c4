//! One mirrored log: an ordinary [`Ledger`] without requests, openings or queue, and beside it what the mirror knows.
//!
//! Refuses: to take up a log that does not add up; to close files that somebody reads, or of which a write has an unknown
//! effect; everything, once it was removed.
//!
//! Invariants: one writer at a time, per mirror; what failed here concerns no other mirror and not the box's own log;
//! readers go on whatever is wrong with `mirror.redb`; the list of missing objects may have too many, never too few.

use crate::append::Ledger;
use crate::error::{During, ReadError};
use crate::export::Exported;
use crate::fsck::Problem;
use crate::mirror::crowd::Crowd;
use crate::mirror::error::MirrorError;
use crate::mirror::standing::{Kept, Standing};
use crate::mirror::tables::{State, Tables};
use crate::mirror::{MirrorOptions, Shelf};
use crate::paced::Pace;
use crate::reader::Reader;
use crate::scrub::Scrubbed;
use crate::store::Store;
use crate::tree::Tree;
use bulla_formats::hash::Hash;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handle to one mirrored log; clones share it.
#[derive(Debug, Clone)]
pub struct Mirror(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) origin: String,
    directory: String,
    shelf: Arc<dyn Shelf>,
    pub(super) options: Arc<MirrorOptions>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) slot: Mutex<Slot>,
    standing: Mutex<Standing>,
}

/// What is open of a mirror.
#[derive(Debug, Default)]
pub(super) struct Slot {
    removed: bool,
    tables: Option<Tables>,
    ledger: Option<Ledger>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn store(&self) -> Result<Arc<dyn Store>, MirrorError> {
        self.shelf.open(&self.directory).map_err(|source| {
            let directory = self.directory.clone();
            MirrorError::Directory { action: "open", directory, source }
        })
    }

    pub(super) fn tables<'s>(&self, slot: &'s mut Slot) -> Result<&'s mut Tables, MirrorError> {
        if slot.removed {
            return Err(MirrorError::Removed);
        }
        let tables = match slot.tables.take() {
            Some(mut tables) => match tables.refresh() {
                Ok(()) => tables,
                Err(fault) => {
                    slot.tables = Some(tables);
                    return Err(fault.into());
                }
            },
            None => Tables::load(&self.store()?, &self.origin, self.options.log.companion_cache_bytes)?,
        };
        Ok(slot.tables.insert(tables))
    }

    /// Takes the mirrored log up, if it is not.
    fn log<'s>(&self, slot: &'s mut Slot) -> Result<&'s mut Ledger, MirrorError> {
        if slot.removed {
            return Err(MirrorError::Removed);
        }
        let ledger = match slot.ledger.take() {
            Some(ledger) => ledger,
            None => {
                let opened = Ledger::open(self.store()?, &self.origin, self.options.log.clone());
                lock(&self.standing).trouble = opened.as_ref().err().map(ToString::to_string);
                opened?.0
            }
        };
        Ok(slot.ledger.insert(ledger))
    }

    /// State and log, and the wanted objects compared with it.
    fn both<'s>(&self, slot: &'s mut Slot) -> Result<(&'s mut Tables, &'s mut Ledger), MirrorError> {
        self.tables(slot)?;
        self.log(slot)?;
        let (Some(tables), Some(ledger)) = (&mut slot.tables, &mut slot.ledger) else {
            return Err(MirrorError::Removed);
        };
        self.settle(tables, ledger)?;
        Ok((tables, ledger))
    }

    /// Makes the list of wanted objects true: none of entries that never became durable, none that is here; all of it
    /// anew when it was lost or when entries name objects in another way than they did. Until then it has too many.
    ///
    /// Not while the log is poisoned: entries of unknown fate must keep what they want. Nor in a file of which not even
    /// the frozen mark is left: it is an operator's.
    fn settle(&self, tables: &mut Tables, ledger: &Ledger) -> Result<(), MirrorError> {
        if tables.settled || ledger.is_poisoned() || tables.state.frozen.is_err() {
            return Ok(());
        }
        ledger.shared.side.settle()?;
        let references = self.options.references.version();
        if tables.references() == references {
            let mut gone = Vec::new();
            for (index, object) in tables.wanted.in_order() {
                if index >= ledger.size() || is_here(ledger, &object)? {
                    gone.push(object);
                }
            }
            tables.change_wanted(&[], &gone, references)?;
        } else {
            let mut wanted = BTreeMap::new();
            for row in ledger.reader().entries(0..ledger.size()) {
                let (index, entry) = row?;
                for object in self.options.references.of(&entry) {
                    if !wanted.contains_key(&object) && !is_here(ledger, &object)? {
                        wanted.insert(object, index);
                    }
                }
            }
            tables.replace_wanted(&wanted, references)?;
        }
        tables.settled = true;
        Ok(())
    }

    /// What anyone is told from now on.
    pub(super) fn tell(&self, slot: &Slot) {
        let mut standing = lock(&self.standing);
        if let Some(tables) = &slot.tables {
            let State { witness, mirror, head, frozen } = &tables.state;
            (standing.witness, standing.mirror) = (witness.into(), mirror.into());
            standing.head = head.as_ref().ok().cloned().flatten();
            standing.frozen = frozen.into();
            standing.missing = tables.wanted.len();
        }
        if let Some(ledger) = &slot.ledger {
            standing.tree = Tree { size: ledger.size(), root: ledger.root() };
            standing.proven = true;
            standing.poisoned = ledger.is_poisoned();
        }
    }

    /// Closes the files unless somebody reads, writes or has to recover. Whether they are closed.
    pub(super) fn rest(&self) -> bool {
        let Ok(mut slot) = self.slot.try_lock() else { return false };
        let quiet = slot.tables.as_ref().is_none_or(Tables::is_quiet)
            && slot.ledger.as_ref().is_none_or(|it| !it.is_poisoned() && Arc::strong_count(&it.shared) == 1);
        if quiet {
            (slot.tables, slot.ledger) = (None, None);
        }
        quiet
    }
}

/// Whether an object is here, whole and durable. (What the file of the objects holds is durable once it was settled.)
pub(super) fn is_here(ledger: &Ledger, object: &Hash) -> Result<bool, MirrorError> {
    match ledger.shared.side.read(object) {
        Ok(found) => Ok(found.is_some()),
        Err(ReadError::Damaged(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Mirror {
    pub(super) fn new(
        origin: &str,
        directory: &str,
        shelf: &Arc<dyn Shelf>,
        options: &Arc<MirrorOptions>,
        crowd: &Arc<Crowd>,
        stated: Tree,
    ) -> Result<Self, MirrorError> {
        let standing = Standing {
            origin: origin.to_owned(),
            tree: stated,
            proven: false,
            head: None,
            frozen: Kept::Known(None),
            witness: Kept::Known(Tree::empty()),
            mirror: Kept::Known(Tree::empty()),
            missing: 0,
            poisoned: false,
            trouble: None,
        };
        let inner = Inner {
            origin: origin.to_owned(),
            directory: directory.to_owned(),
            shelf: Arc::clone(shelf),
            options: Arc::clone(options),
            crowd: Arc::clone(crowd),
            slot: Mutex::new(Slot::default()),
            standing: Mutex::new(standing),
        };
        let mut slot = Slot::default();
        inner.tables(&mut slot)?;
        inner.tell(&slot);
        Ok(Self(Arc::new(inner)))
    }

    /// Runs `work` with the state and the log, taken up if need be.
    pub(super) fn with_log<T>(
        &self,
        work: impl FnOnce(&mut Tables, &mut Ledger) -> Result<T, MirrorError>,
    ) -> Result<T, MirrorError> {
        let mut slot = lock(&self.0.slot);
        let done = self.0.both(&mut slot).and_then(|(tables, ledger)| work(tables, ledger));
        self.0.tell(&slot);
        drop(slot);
        self.0.crowd.enter(&self.0);
        done
    }

    /// The mirrored log's name.
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        lock(&self.0.standing).clone()
    }

    /// Reads the mirrored log as a box reads its own. As long as the reader or anything from it lives, the files stay
    /// open. Waits for one write at most.
    pub fn reader(&self) -> Result<Reader, MirrorError> {
        let mut slot = lock(&self.0.slot);
        let reader = self.0.log(&mut slot).map(|ledger| ledger.reader());
        self.0.tell(&slot);
        drop(slot);
        self.0.crowd.enter(&self.0);
        reader
    }

    /// Makes the mirror ready for entries after a write of unknown effect; nothing to do otherwise.
    pub fn recover(&self) -> Result<(), MirrorError> {
        let mut slot = lock(&self.0.slot);
        let recover = |slot: &mut Slot| {
            if let Some(ledger) = &mut slot.ledger {
                ledger.recover()?;
            }
            self.0.both(slot).map(|_| ())
        };
        let done = recover(&mut slot);
        self.0.tell(&slot);
        done
    }

    /// Bytes of its files.
    pub fn disk_bytes(&self) -> Result<u64, MirrorError> {
        let store = self.0.store()?;
        let mut bytes = 0;
        for name in store.list().during("list", "the mirror's directory")? {
            bytes += store.len_of(&name).during("ask for the length of", &name)?;
        }
        Ok(bytes)
    }

    /// One pass of the scrub over all that is stored of it; see [`Reader::scrub`].
    pub fn scrub(
        &self,
        pace: Arc<dyn Pace>,
        found: &mut dyn FnMut(&Problem),
    ) -> Result<Option<Scrubbed>, MirrorError> {
        let reader = self.reader()?;
        let file = self.0.tables(&mut lock(&self.0.slot))?.file();
        Ok(reader.scrub_with(Some(&file), pace, found))
    }

    /// Writes the mirrored log as a log directory of its own into `to`, which is empty: for bringing it back to where it
    /// came from. What the mirror itself knows is not in it.
    pub fn export(&self, to: &dyn Store) -> Result<Exported, MirrorError> {
        Ok(self.reader()?.export_whole(to)?)
    }

    pub(super) fn is_removed(&self) -> bool {
        lock(&self.0.slot).removed
    }

    /// Lets go of the files, moves the directory out of the way and removes it.
    pub(super) fn remove(&self) -> Result<(), MirrorError> {
        let (shelf, name) = (&self.0.shelf, &self.0.directory);
        let failed = |action| {
            let directory = name.clone();
            move |source| MirrorError::Directory { action, directory, source }
        };
        let mut slot = lock(&self.0.slot);
        if slot.removed {
            return Err(MirrorError::Removed);
        }
        (slot.tables, slot.ledger) = (None, None);
        let gone = format!("{name}{}", super::GONE);
        if let Err(source) = shelf.rename(name, &gone) {
            // It may have been done all the same.
            if shelf.list().map_err(failed("list"))?.contains(name) {
                return Err(failed("rename")(source));
            }
        }
        slot.removed = true;
        shelf.sync().map_err(failed("make durable the removal of"))?;
        shelf.remove(&gone).map_err(failed("remove"))
    }
}
