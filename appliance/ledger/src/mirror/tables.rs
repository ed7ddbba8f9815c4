//! `mirror.redb`: what a mirror knows beside the log itself, that is cosigner state, newest head, frozen mark and the
//! objects that are still wanted.
//!
//! Refuses: to write over a row that was lost, but by [`Tables::restate`]; to believe a list of wanted objects that does
//! not add up.
//!
//! Invariants:
//! - What is in memory here was read from the disk or was durable before it got here. After a write of unknown effect
//!   all of it is read again, from a file that was made durable first.
//! - Whatever may be missing of the entries below the log's size is in `wanted`; it is entered before the entries are.

use crate::companion::{Companion, Kind, copy_table};
use crate::error::{During, ReadError, StorageFault};
use crate::mirror::error::MirrorError;
use crate::mirror::rows::{
    FROZEN, HEAD, MIRROR, MirrorHead, ORIGIN, STATE, WANTED, WANTED_SUM, WITNESS, WantedSum, frozen_row,
    head_row, origin_row, read_frozen, read_head, read_origin, read_sum, read_tree, sum_row, tree_row,
};
use crate::mirror::wanted::Wanted;
use crate::store::Store;
use crate::tree::Tree;
use bulla_formats::hash::Hash;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

pub(crate) const NAME: &str = "mirror.redb";
/// What a file is called that could not be read when an operator had it stated anew. Kept, read by nothing.
const SET_ASIDE: &str = "mirror.redb.damaged";

/// Its rows are what a cosignature rests on, and nothing else vouches for them: two phases.
const KIND: Kind = Kind { name: NAME, two_phase: true, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(STATE, from, to)?;
    copy_table(WANTED, from, to)
}

/// As whom a box cosigns: with two keys, of which the state is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CosignerRole {
    /// It saw that a head is consistent with those before.
    Witness,
    /// It holds all entries below a head, and what they refer to.
    Mirror,
}

impl CosignerRole {
    fn row(self) -> &'static str {
        match self {
            CosignerRole::Witness => WITNESS,
            CosignerRole::Mirror => MIRROR,
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            CosignerRole::Witness => "witness state",
            CosignerRole::Mirror => "mirror state",
        }
    }
}

/// Why a row is not there.
pub(super) type Lost = String;

/// Everything but the wanted objects.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) witness: Result<Tree, Lost>,
    pub(super) mirror: Result<Tree, Lost>,
    pub(super) head: Result<Option<MirrorHead>, Lost>,
    pub(super) frozen: Result<Option<Arc<[u8]>>, Lost>,
}

impl State {
    fn lost(what: &str) -> Self {
        let what = what.to_owned();
        Self {
            witness: Err(what.clone()),
            mirror: Err(what.clone()),
            head: Err(what.clone()),
            frozen: Err(what),
        }
    }

    pub(super) fn cosigned(&self, role: CosignerRole) -> &Result<Tree, Lost> {
        match role {
            CosignerRole::Witness => &self.witness,
            CosignerRole::Mirror => &self.mirror,
        }
    }
}

#[derive(Debug)]
pub(super) struct Tables {
    store: Arc<dyn Store>,
    origin: String,
    file: Arc<Companion>,
    cache_bytes: usize,
    pub(super) state: State,
    pub(super) wanted: Wanted,
    sum: WantedSum,
    /// A write had an unknown effect: nothing in memory counts until it is read again.
    stale: bool,
    /// The wanted objects were compared with the log and the objects that are there.
    pub(super) settled: bool,
}

/// The file as its name stands in the directory.
fn companion(store: &Arc<dyn Store>, cache_bytes: usize) -> Result<Companion, StorageFault> {
    let present = store.list().during("list", NAME)?.iter().any(|name| name == NAME);
    Ok(Companion::new(Arc::clone(store), KIND, present).with_cache(cache_bytes))
}

/// Whether the disk refused, rather than gave something else than what was written.
fn is_passing(fault: &StorageFault) -> bool {
    match fault.source.as_ref() {
        redb::Error::Io(error) => {
            !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        redb::Error::PreviousIo => true,
        _ => false,
    }
}

/// The origin that the file in `store` is about, if it says so.
pub(super) fn origin_of(store: &Arc<dyn Store>) -> Option<String> {
    let file = Companion::frozen(Arc::clone(store), KIND);
    let row = file.read(|txn| Ok(txn.open_table(STATE)?.get(ORIGIN)?.map(|row| row.value().to_vec())));
    read_origin(row.ok()??.as_deref()?)
}

/// Writes the rows of a mirror of which nothing is known yet.
pub(super) fn create(store: &Arc<dyn Store>, origin: &str, references: u32) -> Result<(), StorageFault> {
    let sum = WantedSum { references, ..WantedSum::default() };
    Companion::new(Arc::clone(store), KIND, false).write(|txn| {
        let mut state = txn.open_table(STATE)?;
        state.insert(ORIGIN, origin_row(origin).as_slice())?;
        for name in [WITNESS, MIRROR] {
            state.insert(name, tree_row(origin, name, &Tree::empty()).as_slice())?;
        }
        state.insert(HEAD, head_row(origin, None).as_slice())?;
        state.insert(FROZEN, frozen_row(origin, None).as_slice())?;
        state.insert(WANTED_SUM, sum_row(origin, &sum).as_slice())?;
        txn.open_table(WANTED)?;
        Ok(())
    })
}

impl Tables {
    /// Reads the file. What cannot be read is lost, and said to be.
    pub(super) fn load(
        store: &Arc<dyn Store>,
        origin: &str,
        cache_bytes: usize,
    ) -> Result<Self, StorageFault> {
        Self::of(store, origin, companion(store, cache_bytes)?, cache_bytes)
    }

    /// For looking only: never writes the file.
    pub(super) fn frozen(store: &Arc<dyn Store>, origin: &str) -> Result<Self, StorageFault> {
        let present = store.list().during("list", NAME)?.iter().any(|name| name == NAME);
        let file = match present {
            true => Companion::frozen(Arc::clone(store), KIND),
            false => Companion::new(Arc::clone(store), KIND, false),
        };
        Self::of(store, origin, file, 0)
    }

    fn of(
        store: &Arc<dyn Store>,
        origin: &str,
        file: Companion,
        cache_bytes: usize,
    ) -> Result<Self, StorageFault> {
        let mut tables = Self {
            store: Arc::clone(store),
            origin: origin.to_owned(),
            file: Arc::new(file),
            cache_bytes,
            state: State::lost("it was not read"),
            wanted: Wanted::default(),
            sum: WantedSum::default(),
            stale: false,
            settled: false,
        };
        tables.read()?;
        Ok(tables)
    }

    /// Takes everything from the disk. An error is one of the disk's, and nothing is concluded from it.
    fn read(&mut self) -> Result<(), StorageFault> {
        let origin = &self.origin;
        let rows = self.file.read(|txn| {
            let state = txn.open_table(STATE)?;
            let mut rows = BTreeMap::new();
            for name in [ORIGIN, WITNESS, MIRROR, HEAD, FROZEN, WANTED_SUM] {
                rows.extend(state.get(name)?.map(|row| (name, row.value().to_vec())));
            }
            Ok(rows)
        });
        let rows = match rows {
            Ok(Some(rows)) => Ok(rows),
            Ok(None) => Err("the file is gone".to_owned()),
            Err(fault) if is_passing(&fault) => return Err(fault),
            Err(fault) => Err(fault.to_string()),
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(what) => {
                (self.state, self.wanted, self.sum) =
                    (State::lost(&what), Wanted::default(), WantedSum::default());
                (self.stale, self.settled) = (false, false);
                return Ok(());
            }
        };
        let row = |name: &str| rows.get(name).ok_or_else(|| "it is not there".to_owned());
        fn damaged<T>(found: Option<T>) -> Result<T, Lost> {
            found.ok_or_else(|| "it does not pass its check".to_owned())
        }
        let tree = |name: &str| damaged(read_tree(origin, name, row(name)?));
        let state = State {
            witness: tree(WITNESS),
            mirror: tree(MIRROR),
            head: row(HEAD).and_then(|row| damaged(read_head(origin, row))),
            frozen: row(FROZEN)
                .and_then(|row| damaged(read_frozen(origin, row)))
                .map(|proof| proof.map(Arc::from)),
        };
        let stated = rows.get(WANTED_SUM).and_then(|row| read_sum(origin, row));
        // What does not add up is made anew from the entries.
        (self.sum, self.wanted) = stated.map_or(Ok(None), |sum| self.read_wanted(sum))?.unwrap_or_default();
        self.state = state;
        (self.stale, self.settled) = (false, false);
        Ok(())
    }

    /// The wanted objects, if they add up to what was stated.
    fn read_wanted(&self, stated: WantedSum) -> Result<Option<(WantedSum, Wanted)>, StorageFault> {
        let mut wanted = Wanted::default();
        let mut sum = WantedSum { references: stated.references, ..WantedSum::default() };
        let read = self.file.read(|txn| {
            for row in txn.open_table(WANTED)?.iter()? {
                let (object, index) = row?;
                let (object, index) = (Hash(*object.value()), index.value());
                sum.toggle(&object, index);
                wanted.insert(object, index);
            }
            Ok(())
        });
        sum.count = wanted.len() as u32;
        match read {
            Err(fault) if is_passing(&fault) => Err(fault),
            read => Ok((read.is_ok() && sum == stated).then_some((sum, wanted))),
        }
    }

    /// The version of the references that the wanted objects follow from; 0 when they are to be made anew.
    pub(super) fn references(&self) -> u32 {
        self.sum.references
    }

    /// After a write of unknown effect: makes what the disk has durable, and reads it again.
    pub(super) fn refresh(&mut self) -> Result<(), StorageFault> {
        if self.stale {
            self.file.settle()?;
            self.read()?;
        }
        Ok(())
    }

    /// Whether nothing is in doubt and nobody else looks at the file.
    pub(super) fn is_quiet(&self) -> bool {
        !self.stale && Arc::strong_count(&self.file) == 1
    }

    /// The file, to be looked at beside whoever uses it.
    pub(super) fn file(&self) -> Arc<Companion> {
        Arc::clone(&self.file)
    }

    fn write(
        &mut self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StorageFault> {
        let done = self.file.write(change);
        self.stale |= done.is_err();
        done
    }

    fn put(&mut self, name: &str, row: &[u8]) -> Result<(), StorageFault> {
        self.write(|txn| {
            txn.open_table(STATE)?.insert(name, row)?;
            Ok(())
        })
    }

    /// Whether entries may be added and trees cosigned: not when the log is frozen or may be.
    pub(super) fn check_open(&self) -> Result<(), MirrorError> {
        match &self.state.frozen {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(MirrorError::Frozen),
            Err(what) => Err(MirrorError::RowLost { row: FROZEN, what: what.clone() }),
        }
    }

    /// The newest tree that may have been cosigned in this role.
    pub(super) fn cosigned(&self, role: CosignerRole) -> Result<Tree, MirrorError> {
        let lost = |what: &Lost| MirrorError::RowLost { row: role.row(), what: what.clone() };
        self.state.cosigned(role).as_ref().copied().map_err(lost)
    }

    /// Makes `tree` the newest that may have been cosigned. The caller has checked that it may.
    pub(super) fn persist(&mut self, role: CosignerRole, tree: Tree) -> Result<(), StorageFault> {
        self.put(role.row(), &tree_row(&self.origin.clone(), role.row(), &tree))?;
        match role {
            CosignerRole::Witness => self.state.witness = Ok(tree),
            CosignerRole::Mirror => self.state.mirror = Ok(tree),
        }
        Ok(())
    }

    pub(super) fn persist_head(&mut self, head: MirrorHead) -> Result<(), StorageFault> {
        self.put(HEAD, &head_row(&self.origin.clone(), Some(&head)))?;
        self.state.head = Ok(Some(head));
        Ok(())
    }

    pub(super) fn freeze(&mut self, proof: &[u8]) -> Result<(), StorageFault> {
        self.put(FROZEN, &frozen_row(&self.origin.clone(), Some(proof)))?;
        self.state.frozen = Ok(Some(Arc::from(proof)));
        Ok(())
    }

    /// Enters objects that are wanted and takes out those that are not any more, in one transaction.
    pub(super) fn change_wanted(
        &mut self,
        add: &[(Hash, u64)],
        remove: &[Hash],
        references: u32,
    ) -> Result<(), StorageFault> {
        let mut sum = WantedSum { references, ..self.sum };
        let gone: Vec<(Hash, u64)> =
            remove.iter().filter_map(|object| Some((*object, self.wanted.get(object)?))).collect();
        gone.iter().chain(add).for_each(|(object, index)| sum.toggle(object, *index));
        sum.count = (self.wanted.len() - gone.len() + add.len()) as u32;
        if sum == self.sum {
            return Ok(());
        }
        let row = sum_row(&self.origin, &sum);
        self.write(|txn| {
            let mut wanted = txn.open_table(WANTED)?;
            for (object, _) in &gone {
                wanted.remove(&object.0)?;
            }
            for (object, index) in add {
                wanted.insert(&object.0, index)?;
            }
            txn.open_table(STATE)?.insert(WANTED_SUM, row.as_slice())?;
            Ok(())
        })?;
        self.sum = sum;
        gone.iter().for_each(|(object, _)| self.wanted.remove(object));
        add.iter().for_each(|(object, index)| self.wanted.insert(*object, *index));
        Ok(())
    }

    /// Puts a whole list of wanted objects in place of what is there.
    pub(super) fn replace_wanted(
        &mut self,
        objects: &BTreeMap<Hash, u64>,
        references: u32,
    ) -> Result<(), StorageFault> {
        let mut sum = WantedSum { references, count: objects.len() as u32, ..WantedSum::default() };
        objects.iter().for_each(|(object, index)| sum.toggle(object, *index));
        let row = sum_row(&self.origin, &sum);
        self.write(|txn| {
            let mut wanted = txn.open_table(WANTED)?;
            wanted.retain(|_, _| false)?;
            for (object, index) in objects {
                wanted.insert(&object.0, index)?;
            }
            txn.open_table(STATE)?.insert(WANTED_SUM, row.as_slice())?;
            Ok(())
        })?;
        self.sum = sum;
        self.wanted = Wanted::default();
        objects.iter().for_each(|(object, index)| self.wanted.insert(*object, *index));
        Ok(())
    }

    /// An operator's word in place of what was lost; what was not lost stays. Where the file itself cannot be used it is
    /// set aside and made anew.
    pub(super) fn restate(
        &mut self,
        witness: Tree,
        mirror: Tree,
        frozen: Option<&[u8]>,
    ) -> Result<(), MirrorError> {
        let origin = self.origin.clone();
        let usable = [ORIGIN, WITNESS, MIRROR, HEAD, FROZEN];
        let usable = self.file.read(|txn| {
            let state = txn.open_table(STATE)?;
            for name in usable {
                state.get(name)?;
            }
            Ok(())
        });
        if !matches!(usable, Ok(Some(()))) {
            let names = self.store.list().during("list", NAME)?;
            self.file = Arc::new(Companion::new(Arc::clone(&self.store), KIND, false));
            if names.iter().any(|name| name == NAME) {
                self.store.rename(NAME, SET_ASIDE).during("rename", NAME)?;
                self.store.sync_dir().during("make durable the name of", SET_ASIDE)?;
            }
            self.file = Arc::new(companion(&self.store, self.cache_bytes)?);
        }
        let State { witness: w, mirror: m, head, frozen: f } = &self.state;
        let (witness, mirror) = (*w.as_ref().unwrap_or(&witness), *m.as_ref().unwrap_or(&mirror));
        let head = head.as_ref().ok().and_then(Option::as_ref);
        let frozen = f.as_ref().map_or(frozen, |known| known.as_deref());
        let rows = [
            (ORIGIN, origin_row(&origin)),
            (WITNESS, tree_row(&origin, WITNESS, &witness)),
            (MIRROR, tree_row(&origin, MIRROR, &mirror)),
            (HEAD, head_row(&origin, head)),
            (FROZEN, frozen_row(&origin, frozen)),
            (WANTED_SUM, sum_row(&origin, &WantedSum::default())),
        ];
        let done = self.file.write(|txn| {
            let mut state = txn.open_table(STATE)?;
            for (name, row) in &rows {
                state.insert(*name, row.as_slice())?;
            }
            txn.open_table(WANTED)?.retain(|_, _| false)?;
            Ok(())
        });
        // Read again below, or before anything else is done with it.
        self.stale = true;
        done?;
        Ok(self.read()?)
    }

    /// Whether a row was lost that only an operator can state anew. (Of a lost head the next one takes the place.)
    pub(super) fn is_lost(&self) -> bool {
        self.state.witness.is_err() || self.state.mirror.is_err() || self.state.frozen.is_err()
    }

    /// Rows that were lost, in words.
    pub(super) fn losses(&self) -> Vec<String> {
        let State { witness, mirror, head, frozen } = &self.state;
        let rows = [
            (WITNESS, witness.as_ref().err()),
            (MIRROR, mirror.as_ref().err()),
            (HEAD, head.as_ref().err()),
            (FROZEN, frozen.as_ref().err()),
        ];
        rows.into_iter()
            .filter_map(|(name, lost)| Some(format!("the row {name:?} is lost: {}", lost?)))
            .collect()
    }
}

/// Rows of a live file that do not pass their checks, for the scrub.
pub(crate) fn lost_rows(file: &Companion, origin: &str) -> Result<Vec<String>, ReadError> {
    let rows = file.read(|txn| {
        let state = txn.open_table(STATE)?;
        let mut lost = Vec::new();
        for name in [ORIGIN, WITNESS, MIRROR, HEAD, FROZEN, WANTED_SUM] {
            let row = state.get(name)?;
            let sound = row.is_some_and(|row| match name {
                ORIGIN => read_origin(row.value()).is_some_and(|found| found == origin),
                HEAD => read_head(origin, row.value()).is_some(),
                FROZEN => read_frozen(origin, row.value()).is_some(),
                WANTED_SUM => read_sum(origin, row.value()).is_some(),
                name => read_tree(origin, name, row.value()).is_some(),
            });
            if !sound {
                lost.push(format!("the row {name:?} is lost"));
            }
        }
        Ok(lost)
    })?;
    Ok(rows.unwrap_or_else(|| vec!["the file is gone".to_owned()]))
}
