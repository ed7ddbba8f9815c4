//! Entries and objects of a mirrored log, on their way in.
//!
//! The order of [`Mirror::store_range`], and what is true after each step:
//! 1. checks, among them that own tree and entries lead to the tree that the caller proved, and through every tree that
//!    was ever cosigned or authenticated: nothing written, a refusal costs only this range;
//! 2. the objects that came along are durable and read back;
//! 3. the objects that did not come are entered as wanted: from here on nobody can take the entries for complete;
//! 4. the entries, through [`Ledger::append`]'s own path: durable, read back, hashed again.
//!
//! Refuses: entries that lead elsewhere; objects that no entry names; more than a call may bring; to go on after a fork was
//! proven.
//! Invariant: [`Mirror::holds`] never says more than is durable.

use crate::append::{AppendError, BATCH_ENTRIES_MAX, Ledger, NewEntry};
use crate::error::{Damage, During, ReadError};
use crate::mirror::copy::{Mirror, is_here};
use crate::mirror::error::MirrorError;
use crate::mirror::standing::MissingObject;
use crate::mirror::tables::Tables;
use crate::tree::Tree;
use bulla_formats::hash::{Hash, sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of the entries, and of the objects, that one call takes.
const RANGE_BYTES_MAX: usize = 32 << 20;

/// Up to where all is held. Objects are wanted before their entries are here, and until they themselves are; so a list
/// that can be read and has all names in it never says too much.
pub(super) fn held(tables: &Tables, ledger: &Ledger, references: u32) -> u64 {
    if tables.references() != references {
        return 0;
    }
    tables.wanted.first().map_or(ledger.size(), |index| index.min(ledger.size()))
}

impl Mirror {
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
            let entries = entries.into_iter().map(|entry| {
                let digest = options.references.digest(&entry);
                NewEntry { entry, digest, ..NewEntry::default() }
            });
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
