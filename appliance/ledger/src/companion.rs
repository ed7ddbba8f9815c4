//! The small databases beside the segments: openings, side objects, control.
//!
//! Refuses: writing to a file after a write of unknown effect. The next write first copies what the *disk* holds to
//! a fresh file, makes that durable and lets it take the name: creation, recovery and erasure are this one path.
//!
//! Invariants:
//! - Under the final name there is always a complete, committed database (it was renamed into place).
//! - A file is opened only when it is needed; a log that never stores a side object never has `side.redb`.

use crate::backend::{Writable, open_frozen};
use crate::contain::{Held, contain_fault};
use crate::error::{During, StorageFault};
use crate::store::Store;
use redb::{Database, Key, ReadTransaction, ReadableDatabase, TableDefinition, TableHandle as _, Value};
use redb::{ReadableTable, TableError, WriteTransaction};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ending of a file that is not yet what its name says; removed at start.
pub(crate) const NEW: &str = ".new";

/// Page cache of one companion, bytes.
const CACHE_BYTES: usize = 8 << 20;

/// What is particular to one companion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Whether outsiders shape the stored bytes and nothing verifies them at start. redb's one-phase commit relies
    /// on a checksum that is not keyed; two phases do not.
    pub(crate) two_phase: bool,
    /// Copies every table, creating those that are missing.
    pub(crate) copy: fn(Option<&ReadTransaction>, &WriteTransaction) -> Result<(), redb::Error>,
}

#[derive(Debug)]
pub(crate) struct Companion {
    store: Arc<dyn Store>,
    kind: Kind,
    cache_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Absent,
    Closed,
    Open(Writable),
    /// A write had an unknown effect. Readable through an overlay until the next write makes a fresh file.
    Suspect(Option<Held>),
}

/// A complete file that has not its name yet.
#[derive(Debug)]
pub(crate) struct Composed(Writable);

impl Composed {
    /// Lets go of it; its bytes stay in the directory until they are removed.
    pub(crate) fn abandon(self) {
        self.0.abandon();
    }
}

impl Companion {
    /// `present`: whether the directory has the file.
    pub(crate) fn new(store: Arc<dyn Store>, kind: Kind, present: bool) -> Self {
        let state = if present { State::Closed } else { State::Absent };
        Self { store, kind, cache_bytes: CACHE_BYTES, state: Mutex::new(state) }
    }

    /// An existing file that is only looked at: through an overlay, so that not even a repair is written.
    pub(crate) fn frozen(store: Arc<dyn Store>, kind: Kind) -> Self {
        Self { store, kind, cache_bytes: CACHE_BYTES, state: Mutex::new(State::Suspect(None)) }
    }

    /// With another page cache.
    pub(crate) fn with_cache(self, cache_bytes: usize) -> Self {
        Self { cache_bytes, ..self }
    }

    /// One durable transaction. After an error the file is suspect, and nothing of it counts until the next write
    /// has moved it to a fresh file.
    pub(crate) fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StorageFault> {
        let mut state = self.lock();
        if matches!(*state, State::Closed) {
            *state = State::Open(Writable::open(self.store.as_ref(), self.kind.name, self.cache_bytes)?);
        }
        if !matches!(*state, State::Open(_)) {
            *state = State::Open(self.fresh_file()?);
        }
        let State::Open(open) = &*state else { return Ok(()) };
        let name = self.kind.name;
        let transact = || self.transact(&open.db, change).during("commit to", name);
        let done = contain_fault("commit to", name, transact);
        if done.is_err() {
            self.suspect(&mut state);
        }
        done
    }

    /// Reads from the newest committed state; `None` when there is no file yet.
    pub(crate) fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<Option<T>, StorageFault> {
        let name = self.kind.name;
        let mut state = self.lock();
        if matches!(*state, State::Closed) {
            *state = State::Open(Writable::open(self.store.as_ref(), name, self.cache_bytes)?);
        }
        let txn = match &mut *state {
            State::Absent | State::Closed => return Ok(None),
            State::Open(open) => open.db.begin_read(),
            State::Suspect(Some(frozen)) => frozen.begin_read(),
            State::Suspect(slot) => {
                slot.insert(open_frozen(self.store.as_ref(), name, self.cache_bytes)?).begin_read()
            }
        };
        let txn = txn.during("read", name)?;
        // Readers do not hold up the writer's next commit.
        drop(state);
        contain_fault("read", name, || look(&txn).during("read", name)).map(Some)
    }

    /// A table that the file has besides this one.
    pub(crate) fn table_besides(&self, known: &str) -> Result<Option<String>, StorageFault> {
        let found = self.read(|txn| {
            let mut names = txn.list_tables()?.map(|table| table.name().to_owned());
            Ok(names.find(|name| name != known))
        })?;
        Ok(found.flatten())
    }

    /// Runs `look` under a read transaction, so that no page of the state it sees is used again meanwhile.
    pub(crate) fn pinned(&self, mut look: impl FnMut()) -> Result<(), StorageFault> {
        self.read(|_pinned| {
            look();
            Ok(())
        })
        .map(drop)
    }

    /// Moves what is stored to a fresh file, so that what was deleted is in no page of the file any more.
    pub(crate) fn rewrite(&self) -> Result<(), StorageFault> {
        let mut state = self.lock();
        if matches!(*state, State::Absent) {
            return Ok(());
        }
        self.suspect(&mut state);
        *state = State::Open(self.fresh_file()?);
        Ok(())
    }

    /// After a write of unknown effect, moves what is stored to a fresh file: from then on what is read is durable.
    pub(crate) fn settle(&self) -> Result<(), StorageFault> {
        let mut state = self.lock();
        if matches!(*state, State::Suspect(_)) {
            *state = State::Open(self.fresh_file()?);
        }
        Ok(())
    }

    /// Makes a fresh file that is to take the place of this one, beside whoever reads; `None` when there is no file. The
    /// caller sees to it that nobody writes until [`Companion::adopt`]. What stays in the directory after an error has
    /// no name that counts.
    pub(crate) fn compose(
        &self,
        fill: impl FnOnce(&ReadTransaction, &WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Option<Composed>, StorageFault> {
        if !self.is_present() {
            return Ok(None);
        }
        let new = self.new_name();
        let fresh = Writable::create(self.store.as_ref(), &new, self.cache_bytes)?;
        let filled = self.read(|from| self.transact(&fresh.db, |to| fill(from, to)));
        match filled {
            Ok(_) => Ok(Some(Composed(fresh))),
            Err(fault) => {
                fresh.abandon();
                Err(fault)
            }
        }
    }

    /// Gives the name, durably, to a file made by [`Companion::compose`].
    pub(crate) fn adopt(&self, Composed(fresh): Composed) -> Result<(), StorageFault> {
        let mut state = self.lock();
        self.suspect(&mut state);
        match self.name_fresh() {
            Ok(()) => {
                *state = State::Open(fresh);
                Ok(())
            }
            Err(fault) => {
                fresh.abandon();
                Err(fault)
            }
        }
    }

    /// Writes a complete copy under the same name into `to`; `None` when there is no file. What is stored meanwhile is
    /// not in it.
    pub(crate) fn copy_to(&self, to: &dyn Store) -> Result<Option<String>, StorageFault> {
        if !self.is_present() {
            return Ok(None);
        }
        let name = self.kind.name;
        let new = format!("{name}{NEW}");
        let copy = Writable::create(to, &new, self.cache_bytes)?;
        self.read(|from| self.transact(&copy.db, |txn| (self.kind.copy)(Some(from), txn)))?;
        drop(copy);
        to.rename(&new, name).during("rename", &new)?;
        to.sync_dir().during("make durable the name of", name)?;
        Ok(Some(name.to_owned()))
    }

    /// Whether the file is there.
    pub(crate) fn is_present(&self) -> bool {
        !matches!(*self.lock(), State::Absent)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspect(&self, state: &mut State) {
        if let State::Open(open) = std::mem::replace(state, State::Suspect(None)) {
            open.abandon();
        }
    }

    fn transact(
        &self,
        db: &Database,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let mut txn = db.begin_write()?;
        txn.set_two_phase_commit(self.kind.two_phase);
        change(&txn)?;
        Ok(txn.commit()?)
    }

    fn new_name(&self) -> String {
        format!("{}{NEW}", self.kind.name)
    }

    fn name_fresh(&self) -> Result<(), StorageFault> {
        let (name, new) = (self.kind.name, self.new_name());
        self.store.rename(&new, name).during("rename", &new)?;
        self.store.sync_dir().during("make durable the name of", name)
    }

    fn fresh_file(&self) -> Result<Writable, StorageFault> {
        let (name, new) = (self.kind.name, self.new_name());
        // Asks the directory: an earlier attempt may have succeeded and said it failed.
        let present = self.store.list().during("list", name)?.iter().any(|each| each == name);
        let old =
            if present { Some(open_frozen(self.store.as_ref(), name, self.cache_bytes)?) } else { None };
        let old = old.as_ref().map(|old| old.begin_read()).transpose().during("read", name)?;
        let fresh = Writable::create(self.store.as_ref(), &new, self.cache_bytes)?;
        let moved = self
            .transact(&fresh.db, |txn| (self.kind.copy)(old.as_ref(), txn))
            .during("commit to", &new)
            .and_then(|()| self.name_fresh());
        match moved {
            Ok(()) => Ok(fresh),
            Err(fault) => {
                fresh.abandon();
                Err(fault)
            }
        }
    }
}

/// Copies one table row by row; an old file that lacks it is older than the table.
pub(crate) fn copy_table<K: Key + 'static, V: Value + 'static>(
    table: TableDefinition<K, V>,
    from: Option<&ReadTransaction>,
    to: &WriteTransaction,
) -> Result<(), redb::Error> {
    let mut to = to.open_table(table)?;
    let Some(from) = from else { return Ok(()) };
    match from.open_table(table) {
        Ok(from) => {
            for row in from.iter()? {
                let (key, value) = row?;
                to.insert(key.value(), value.value())?;
            }
            Ok(())
        }
        Err(TableError::TableDoesNotExist(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
