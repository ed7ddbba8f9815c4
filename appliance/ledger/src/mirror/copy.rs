//! One mirrored log: an ordinary [`Ledger`] without requests, openings or queue, and beside it what the mirror knows.
//!
//! The order of [`Mirror::store_range`], and what is true after each step:
//! 1. checks, among them that own tree and entries lead to the tree that the caller proved, and through every tree that
//!    was ever cosigned or authenticated: nothing written, a refusal costs only this range;
//! 2. the objects that came along are durable and read back;
//! 3. the objects that did not come are entered as wanted: from here on nobody can take the entries for complete;
//! 4. the entries, through [`Ledger::append`]'s own path: durable, read back, hashed again.
//!
//! Refuses: entries that lead elsewhere; objects that no entry names; to go back, to contradict itself, to go on after a
//! fork was proven, to guess a row that was lost.
//!
//! Invariants: one writer at a time, per mirror; what failed here concerns no other mirror and not the box's own log;
//! [`Mirror::holds`] never says more than is durable.

use crate::append::{AppendError, BATCH_ENTRIES_MAX, Ledger, NewEntry};
use crate::error::{Damage, During, ReadError};
use crate::export::Exported;
use crate::fsck::Problem;
use crate::mirror::crowd::Crowd;
use crate::mirror::error::MirrorError;
use crate::mirror::rows::MirrorHead;
use crate::mirror::tables::{CosignerRole, State, Tables};
use crate::mirror::{MirrorOptions, Shelf};
use crate::paced::Pace;
use crate::reader::Reader;
use crate::scrub::Scrubbed;
use crate::store::Store;
use crate::tree::Tree;
use bulla_formats::hash::{Hash, sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of the entries, and of the objects, that one call takes.
const RANGE_BYTES_MAX: usize = 32 << 20;
/// Bytes of a signed note or a fork proof.
const NOTE_BYTES_MAX: usize = 1 << 20;

/// What an object is to the mirror that lacks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingObject {
    /// Its SHA-256.
    pub object: Hash,
    /// The first entry that refers to it.
    pub index: u64,
}

/// What is known of a row that may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept<T> {
    /// It says this.
    Known(T),
    /// It is damaged or gone; this is what is wrong.
    Lost(String),
}

impl<T> From<&Result<T, String>> for Kept<T>
where
    T: Clone,
{
    fn from(row: &Result<T, String>) -> Self {
        match row {
            Ok(value) => Kept::Known(value.clone()),
            Err(what) => Kept::Lost(what.clone()),
        }
    }
}

/// How a mirror stands. Costs nothing: no file is touched for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The mirrored log.
    pub origin: String,
    /// Its entries here. Until the mirror is first used: as its last segment states them.
    pub tree: Tree,
    /// Whether `tree` was proven in this process.
    pub proven: bool,
    /// The newest authenticated head.
    pub head: Option<MirrorHead>,
    /// The fork proof that froze it, if it is frozen.
    pub frozen: Kept<Option<Arc<[u8]>>>,
    /// The newest tree that may have been cosigned as witness.
    pub witness: Kept<Tree>,
    /// The newest tree that may have been cosigned as mirror.
    pub mirror: Kept<Tree>,
    /// Objects that are missing. Until the mirror is first used: as it was noted.
    pub missing: usize,
    /// Whether a write of unknown effect happened; [`Mirror::recover`] leads on.
    pub poisoned: bool,
    /// Why the mirrored log could not be taken up when it was last tried.
    pub trouble: Option<String>,
}

/// Handle to one mirrored log; clones share it.
#[derive(Debug, Clone)]
pub struct Mirror(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) origin: String,
    directory: String,
    shelf: Arc<dyn Shelf>,
    options: Arc<MirrorOptions>,
    crowd: Arc<Crowd>,
    slot: Mutex<Slot>,
    standing: Mutex<Standing>,
}

/// What is open of a mirror.
#[derive(Debug, Default)]
struct Slot {
    removed: bool,
    tables: Option<Tables>,
    ledger: Option<Ledger>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn store(&self) -> Result<Arc<dyn Store>, MirrorError> {
        self.shelf.open(&self.directory).map_err(|source| {
            let directory = self.directory.clone();
            MirrorError::Directory { action: "open", directory, source }
        })
    }

    fn tables<'s>(&self, slot: &'s mut Slot) -> Result<&'s mut Tables, MirrorError> {
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
    fn tell(&self, slot: &Slot) {
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
fn is_here(ledger: &Ledger, object: &Hash) -> Result<bool, MirrorError> {
    match ledger.shared.side.read(object) {
        Ok(found) => Ok(found.is_some()),
        Err(ReadError::Damaged(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Up to where all is held. Objects are wanted before their entries are here, and until they themselves are; so a list
/// that can be read and has all names in it never says too much.
fn held(tables: &Tables, ledger: &Ledger, references: u32) -> u64 {
    if tables.references() != references {
        return 0;
    }
    tables.wanted.first().map_or(ledger.size(), |index| index.min(ledger.size()))
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
    fn with_log<T>(
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

    /// Stores entries `first` to `first + entries.len() - 1`, which lead to the tree `to` that the caller proved to be one
    /// of a head of the log, and objects that they or earlier entries refer to. On success all of it is durable and was
    /// read back. At most 4,096 entries and 32 MiB at a time.
    pub fn store_range(
        &self,
        first: u64,
        entries: Vec<Vec<u8>>,
        objects: Vec<Vec<u8>>,
        to: Tree,
    ) -> Result<Tree, MirrorError> {
        let options = Arc::clone(&self.0.options);
        self.with_log(|tables, ledger| {
            tables.check_open()?;
            check_writable(tables, ledger, options.references.version())?;
            let (size, count) = (ledger.size(), entries.len());
            if first != size || first.checked_add(count as u64) != Some(to.size) {
                return Err(MirrorError::Gap { size, first, count, stated: to.size });
            }
            if count == 0 || count > BATCH_ENTRIES_MAX {
                return Err(AppendError::BatchSize { entries: count }.into());
            }
            check_bytes(&entries)?;
            let mut named: BTreeMap<Hash, u64> = BTreeMap::new();
            for (index, entry) in (first..).zip(&entries) {
                for object in options.references.of(entry) {
                    named.entry(object).or_insert(index);
                }
            }
            let given = asked_for(tables, Some(&named), &objects)?;
            let mut add = Vec::new();
            for (object, index) in named {
                let known = given.contains_key(&object) || tables.wanted.get(&object).is_some();
                if !known && !is_here(ledger, &object)? {
                    add.push((object, index));
                }
            }
            let missing = tables.wanted.len() + add.len();
            let bounded = missing <= options.wanted_max || tables.wanted.len() == 0 && count == 1;
            if !add.is_empty() && !bounded {
                return Err(MirrorError::ObjectsFirst { missing, most: options.wanted_max });
            }
            let mut stated = vec![to];
            let known = [&tables.state.witness, &tables.state.mirror].into_iter().flatten().copied();
            let head = tables.state.head.iter().flatten().map(|head| head.tree);
            stated.extend(known.chain(head).filter(|tree| tree.size > size && tree.size <= to.size));
            stated.sort_unstable_by_key(|tree| tree.size);
            let entries = entries.into_iter().map(|entry| NewEntry { entry, ..NewEntry::default() });
            let ready = ledger.make_ready(entries.collect(), &stated)?;
            check_room(ledger, &given)?;
            // If anything fails from here on, what is wanted stays entered until it is known what is there.
            tables.settled = false;
            store_objects(ledger, &given)?;
            let here: Vec<Hash> = given.into_keys().collect();
            tables.change_wanted(&add, &here, options.references.version())?;
            let committed = ledger.put(ready)?;
            tables.settled = true;
            Ok(Tree { size: committed.size(), root: committed.root() })
        })
    }

    /// Stores objects that are missing. A frozen log takes them too: they complete what is kept.
    pub fn store_objects(&self, objects: Vec<Vec<u8>>) -> Result<(), MirrorError> {
        let references = self.0.options.references.version();
        self.with_log(|tables, ledger| {
            check_writable(tables, ledger, references)?;
            let given = asked_for(tables, None, &objects)?;
            check_room(ledger, &given)?;
            tables.settled = false;
            store_objects(ledger, &given)?;
            let here: Vec<Hash> = given.into_keys().collect();
            tables.change_wanted(&[], &here, references)?;
            tables.settled = true;
            Ok(())
        })
    }

    /// Objects that entries refer to and that are not here, those of the earliest entries first.
    pub fn missing_objects(&self, limit: usize) -> Result<Vec<MissingObject>, MirrorError> {
        self.with_log(|tables, ledger| {
            check_wanted(tables, self.0.options.references.version())?;
            let size = ledger.size();
            let missing = tables.wanted.in_order().filter(|(index, _)| *index < size).take(limit);
            Ok(missing.map(|(index, object)| MissingObject { object, index }).collect())
        })
    }

    /// Whether the first `size` entries and all objects that they refer to are here and durable.
    pub fn holds(&self, size: u64) -> Result<bool, MirrorError> {
        Ok(size <= self.held()?)
    }

    /// The largest size that [`Mirror::holds`].
    pub fn held(&self) -> Result<u64, MirrorError> {
        let references = self.0.options.references.version();
        self.with_log(|tables, ledger| Ok(held(tables, ledger, references)))
    }

    /// Makes durable that `tree` may have been cosigned as witness. Sign after it has returned, and only then.
    pub fn persist_witness(&self, size: u64, root: Hash) -> Result<(), MirrorError> {
        self.persist(CosignerRole::Witness, Tree { size, root })
    }

    /// Makes durable that `tree` may have been cosigned as mirror, which is refused while anything below it is missing.
    /// Sign after it has returned, and only then.
    pub fn persist_mirror(&self, size: u64, root: Hash) -> Result<(), MirrorError> {
        self.persist(CosignerRole::Mirror, Tree { size, root })
    }

    fn persist(&self, role: CosignerRole, tree: Tree) -> Result<(), MirrorError> {
        self.with_log(|tables, ledger| {
            tables.check_open()?;
            let known = tables.cosigned(role)?;
            if tree.size < known.size {
                return Err(MirrorError::Behind { what: role.what(), known: known.size, asked: tree.size });
            }
            check_against_known(tables, ledger, tree)?;
            let held = held(tables, ledger, self.0.options.references.version());
            if role == CosignerRole::Mirror && held < tree.size {
                return Err(MirrorError::NotHeld { held, asked: tree.size });
            }
            if tree != known {
                tables.persist(role, tree)?;
            }
            Ok(())
        })
    }

    /// Makes the newest head durable. The caller has verified its signature and that it is consistent with what went
    /// before.
    pub fn persist_head(&self, size: u64, root: Hash, note: &[u8]) -> Result<(), MirrorError> {
        check_note(note)?;
        self.with_log(|tables, ledger| {
            tables.check_open()?;
            check_against_known(tables, ledger, Tree { size, root })?;
            let head = MirrorHead { tree: Tree { size, root }, note: note.to_vec() };
            match &tables.state.head {
                Ok(Some(known)) if *known == head => Ok(()),
                Ok(Some(known)) if size < known.tree.size => {
                    Err(MirrorError::Behind { what: "newest head", known: known.tree.size, asked: size })
                }
                // A lost one is worth nothing by itself: the next takes its place.
                Ok(_) | Err(_) => Ok(tables.persist_head(head)?),
            }
        })
    }

    /// Freezes the mirror, durably: it is read and completed, never extended or cosigned again. The first proof stays;
    /// whether this was it.
    pub fn freeze(&self, proof: &[u8]) -> Result<bool, MirrorError> {
        check_note(proof)?;
        let mut slot = lock(&self.0.slot);
        let freeze = |slot: &mut Slot| {
            let tables = self.0.tables(slot)?;
            if let Ok(Some(_)) = tables.state.frozen {
                return Ok(false);
            }
            tables.freeze(proof)?;
            Ok(true)
        };
        let done = freeze(&mut slot);
        self.0.tell(&slot);
        drop(slot);
        self.0.crowd.enter(&self.0);
        done
    }

    /// An operator's decision after damage to `mirror.redb`: states what the lost rows said. `witness` and `mirror` are the
    /// newest trees that may have been cosigned with this box's keys (from the origin's own log, from neighbours), `frozen`
    /// is the fork proof if there was one. Rows that are not lost stay as they are. Nothing else ever replaces a lost
    /// row, and until this is done the log is neither extended nor cosigned.
    pub fn restate(&self, witness: Tree, mirror: Tree, frozen: Option<&[u8]>) -> Result<(), MirrorError> {
        let mut slot = lock(&self.0.slot);
        let restate = |slot: &mut Slot| {
            let tables = self.0.tables(slot)?;
            if !tables.is_lost() {
                return Err(MirrorError::NothingLost);
            }
            tables.restate(witness, mirror, frozen)
        };
        let done = restate(&mut slot);
        self.0.tell(&slot);
        drop(slot);
        self.0.crowd.enter(&self.0);
        done
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

/// The note of a head or a proof is no larger than either can be.
fn check_note(note: &[u8]) -> Result<(), MirrorError> {
    match note.len() {
        bytes if bytes > NOTE_BYTES_MAX => Err(MirrorError::TooMuch { bytes, most: NOTE_BYTES_MAX }),
        _ => Ok(()),
    }
}

fn check_bytes(parts: &[Vec<u8>]) -> Result<(), MirrorError> {
    match parts.iter().map(Vec::len).sum() {
        bytes if bytes > RANGE_BYTES_MAX => Err(MirrorError::TooMuch { bytes, most: RANGE_BYTES_MAX }),
        _ => Ok(()),
    }
}

/// What is wanted is known. (Where it is not, it was not made anew because the file is lost.)
fn check_wanted(tables: &Tables, references: u32) -> Result<(), MirrorError> {
    if tables.references() == references {
        return Ok(());
    }
    let what = "the list of missing objects does not add up".to_owned();
    Err(MirrorError::RowLost { row: "wanted", what })
}

fn check_writable(tables: &Tables, ledger: &Ledger, references: u32) -> Result<(), MirrorError> {
    check_wanted(tables, references)?;
    if ledger.is_poisoned() { Err(AppendError::Poisoned.into()) } else { Ok(()) }
}

/// The objects by their hash, if all of them are needed by entries that are here or that `named` them.
fn asked_for<'o>(
    tables: &Tables,
    named: Option<&BTreeMap<Hash, u64>>,
    objects: &'o [Vec<u8>],
) -> Result<BTreeMap<Hash, &'o [u8]>, MirrorError> {
    check_bytes(objects)?;
    let mut given = BTreeMap::new();
    for bytes in objects {
        let object = sha256(&[bytes]);
        if tables.wanted.get(&object).is_none() && !named.is_some_and(|named| named.contains_key(&object)) {
            return Err(MirrorError::Unasked { object });
        }
        given.insert(object, bytes.as_slice());
    }
    Ok(given)
}

/// There is room for the objects, as there must be for entries.
fn check_room(ledger: &Ledger, given: &BTreeMap<Hash, &[u8]>) -> Result<(), MirrorError> {
    let bytes: u64 = given.values().map(|object| object.len() as u64).sum();
    let needed = ledger.shared.options.reserve_bytes.saturating_add(4 * bytes);
    let free = ledger.shared.store.free_bytes();
    let free = free.during("ask for the free space of", "the mirror's directory")?;
    if free < needed { Err(AppendError::Full { free, needed }.into()) } else { Ok(()) }
}

/// Stores objects durably and reads them back.
fn store_objects(ledger: &Ledger, given: &BTreeMap<Hash, &[u8]>) -> Result<(), MirrorError> {
    let side = &ledger.shared.side;
    side.store(given.values().copied())?;
    for object in given.keys() {
        if side.read(object)?.is_none() {
            let what = format!("the object {object} is not there when it is read back");
            return Err(ReadError::from(Damage::new(crate::side::NAME, 0, what)).into());
        }
    }
    Ok(())
}

/// No tree that is known here has this size and another root.
fn check_against_known(tables: &Tables, ledger: &Ledger, asked: Tree) -> Result<(), MirrorError> {
    let State { witness, mirror, head, .. } = &tables.state;
    let head = head.iter().flatten().map(|head| head.tree);
    let own = match asked.size <= ledger.size() {
        true => Some(Tree { size: asked.size, root: ledger.reader().root_at(asked.size)? }),
        false => None,
    };
    let known = [witness, mirror].into_iter().flatten().copied().chain(head).chain(own);
    match known.into_iter().find(|known| known.size == asked.size && known.root != asked.root) {
        Some(known) => Err(MirrorError::Contradiction { known, asked }),
        None => Ok(()),
    }
}
