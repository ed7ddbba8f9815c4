//! The secrets that the keys of openings follow from: few rows, so that a file without a destroyed one is soon written.
//!
//! A bucket of 2^16 entries has one random node, made durable before the first opening that it encrypts; [`puncture`]
//! has the rest. Commits of openings only read here, but for the first of a bucket.
//!
//! Refuses: to use a row that changed. What it covered cannot be opened any more, and is named; what is sealed from then
//! on gets fresh nodes.
//! Invariants: after an erasure no page of the file holds a secret that the erased keys follow from, nor a damaged row
//! (nobody could tell what that covers). A key is never given out before the node above it is durable.
//!
//! [`puncture`]: crate::puncture

use crate::companion::{Companion, Kind, copy_table};
use crate::error::{Damage, ReadError, StorageFault};
use crate::puncture::{Cover, DEPTH, Node, Place, ROW_BYTES, Secret};
use crate::store::Store;
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableHandle as _, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bucket, level and position to secret 32 and check 8.
const NODES: TableDefinition<(u64, u8, u32), &[u8; ROW_BYTES]> = TableDefinition::new("nodes-1");

pub(crate) const NAME: &str = "opening-keys.redb";

/// Random secrets are not shaped by outsiders, and each row is checked when it is read: one phase is enough.
const KIND: Kind = Kind { name: NAME, two_phase: false, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(NODES, from, to)
}

#[derive(Debug)]
pub(crate) struct OpeningKeys(Companion);

/// What covers an entry.
enum Covering {
    Node(Node),
    /// The row at this place has changed.
    Damaged(Place),
    Nothing,
}

impl OpeningKeys {
    pub(crate) fn new(store: Arc<dyn Store>, present: bool) -> Self {
        Self(Companion::new(store, KIND, present))
    }

    /// For looking only: reads through an overlay and never writes the file.
    pub(crate) fn frozen(store: Arc<dyn Store>, present: bool) -> Self {
        Self(if present { Companion::frozen(store, KIND) } else { Companion::new(store, KIND, false) })
    }

    /// Runs `look` while what the file holds now stays in it; not at all when there is no file.
    pub(crate) fn pinned(&self, mut look: impl FnMut(&str)) -> Result<(), ReadError> {
        self.0.pinned(|| look(NAME))?;
        Ok(())
    }

    /// Copies all nodes into another directory; the name of the file there, if there are any.
    pub(crate) fn copy_to(&self, to: &dyn Store) -> Result<Option<String>, StorageFault> {
        self.0.copy_to(to)
    }

    /// A table that this version does not know.
    pub(crate) fn unknown_table(&self) -> Result<Option<String>, StorageFault> {
        self.0.table_besides(NODES.name())
    }

    /// The keys to encrypt with, one per index. Where nothing covers an index a fresh node does from here on, durably.
    pub(crate) fn to_encrypt(&self, indexes: &[u64]) -> Result<Vec<Secret>, StorageFault> {
        // A node that an earlier failure left may be read and not be on the disk.
        self.0.settle()?;
        let mut keys = self.derive(indexes)?;
        if keys.iter().any(Option::is_none) {
            self.0.write(|txn| {
                let mut table = txn.open_table(NODES)?;
                for (index, _) in indexes.iter().zip(&keys).filter(|(_, key)| key.is_none()) {
                    let place = match covering(&table, *index)? {
                        Covering::Node(_) => continue,
                        Covering::Damaged(_) => free_place(&table, *index, true)?,
                        Covering::Nothing => free_place(&table, *index, false)?,
                    };
                    table.insert(row_key(place), &*Node::fresh(place)?.row())?;
                }
                Ok(())
            })?;
            keys = self.derive(indexes)?;
        }
        let keys: Option<Vec<_>> = keys.into_iter().collect();
        keys.ok_or_else(|| fault("a node that was just written is not there".to_owned()))
    }

    /// The keys of these entries, `None` where there is none.
    fn derive(&self, indexes: &[u64]) -> Result<Vec<Option<Secret>>, StorageFault> {
        let derived = self.0.read(|txn| {
            let table = txn.open_table(NODES)?;
            let (mut keys, mut newest) = (Vec::with_capacity(indexes.len()), None::<Node>);
            for index in indexes {
                let mut key = newest.as_ref().and_then(|node| node.key(*index));
                if key.is_none() {
                    newest = match covering(&table, *index)? {
                        Covering::Node(node) => Some(node),
                        Covering::Damaged(_) | Covering::Nothing => None,
                    };
                    key = newest.as_ref().and_then(|node| node.key(*index));
                }
                keys.push(key);
            }
            Ok(keys)
        })?;
        Ok(derived.unwrap_or_else(|| vec![None; indexes.len()]))
    }

    /// The key of an entry; `None` when it was destroyed, or never was.
    pub(crate) fn key(&self, index: u64) -> Result<Option<Secret>, ReadError> {
        let found = self.0.read(|txn| covering(&txn.open_table(NODES)?, index))?;
        match found {
            Some(Covering::Node(node)) => Ok(node.key(index)),
            Some(Covering::Damaged(place)) => {
                Err(Damage::new(NAME, *place.indexes().start(), damaged(place)).into())
            }
            Some(Covering::Nothing) | None => Ok(None),
        }
    }

    /// Destroys the keys of these entries and every page that held a secret above them. Damaged rows go too: what they
    /// covered is not known, and cannot be opened.
    pub(crate) fn erase(&self, indexes: &[u64]) -> Result<(), StorageFault> {
        if !self.0.is_present() {
            return Ok(());
        }
        let mut buckets: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        indexes.iter().for_each(|index| buckets.entry(Place::of(*index).bucket).or_default().push(*index));
        self.0.write(|txn| {
            let mut table = txn.open_table(NODES)?;
            table.retain(|key, row| Node::parse(place(key), row).is_some())?;
            for (bucket, indexes) in buckets {
                let (mut cover, mut before) = (Cover::default(), BTreeSet::new());
                for row in table.range((bucket, 0, 0)..=(bucket, u8::MAX, u32::MAX))? {
                    let (key, row) = row?;
                    before.insert(place(key.value()));
                    Node::parse(place(key.value()), row.value())
                        .into_iter()
                        .for_each(|node| cover.insert(node));
                }
                indexes.into_iter().for_each(|index| cover.puncture(index));
                for node in cover.nodes().filter(|node| !before.contains(&node.place)) {
                    table.insert(row_key(node.place), &*node.row())?;
                }
                let after: BTreeSet<Place> = cover.nodes().map(|node| node.place).collect();
                for gone in before.difference(&after) {
                    table.remove(row_key(*gone))?;
                }
            }
            Ok(())
        })?;
        // Also when nothing was there to destroy: a crash may have come between the two.
        self.0.rewrite()
    }

    /// What is wrong with the rows: the entries concerned, first and last, and why.
    pub(crate) fn damages(&self) -> Result<Vec<(u64, u64, String)>, StorageFault> {
        let found = self.0.read(|txn| {
            let table = txn.open_table(NODES)?;
            let mut wrong = Vec::new();
            for row in table.iter()? {
                let (key, row) = row?;
                let place = place(key.value());
                if Node::parse(place, row.value()).is_none() {
                    let indexes = if place.exists() { place.indexes() } else { 0..=0 };
                    wrong.push((*indexes.start(), *indexes.end(), damaged(place)));
                } else if let Covering::Node(above) = covering(&table, *place.indexes().start())?
                    && above.place != place
                {
                    let what = format!("{} lies under {}", name(place), name(above.place));
                    wrong.push((*place.indexes().start(), *place.indexes().end(), what));
                }
            }
            Ok(wrong)
        })?;
        Ok(found.unwrap_or_default())
    }
}

fn row_key(place: Place) -> (u64, u8, u32) {
    (place.bucket, place.level, place.position)
}

fn place((bucket, level, position): (u64, u8, u32)) -> Place {
    Place { bucket, level, position }
}

fn name(place: Place) -> String {
    format!("node {} of level {} in bucket {}", place.position, place.level, place.bucket)
}

fn damaged(place: Place) -> String {
    format!("{} has changed, so no openings under it can be opened", name(place))
}

fn fault(what: String) -> StorageFault {
    StorageFault { action: "read", file: NAME.to_owned(), source: Box::new(redb::Error::Corrupted(what)) }
}

/// The topmost row above the key of an entry that has not changed, else one that has.
fn covering(
    table: &impl ReadableTable<(u64, u8, u32), &'static [u8; ROW_BYTES]>,
    index: u64,
) -> Result<Covering, redb::Error> {
    let mut found = Covering::Nothing;
    for place in Place::of(index).path() {
        if let Some(row) = table.get(row_key(place))? {
            match Node::parse(place, row.value()) {
                Some(node) => return Ok(Covering::Node(node)),
                None => found = Covering::Damaged(place),
            }
        }
    }
    Ok(found)
}

/// The largest subtree with the entry that holds no node: the whole bucket, unless the log has become shorter than it
/// was when entries were erased, or rows are lost. `from_here`: the subtree begins with the entry, so that what a
/// damaged node covered before it is not taken for its own.
fn free_place(
    table: &impl ReadableTable<(u64, u8, u32), &'static [u8; ROW_BYTES]>,
    index: u64,
    from_here: bool,
) -> Result<Place, redb::Error> {
    for place in Place::of(index).path() {
        let mut free = !from_here || *place.indexes().start() == index;
        for level in place.level..=DEPTH {
            let (first, last) = place.below(level).into_inner();
            let rows = (place.bucket, level, first)..=(place.bucket, level, last);
            free &= table.range(rows)?.next().is_none();
        }
        if free {
            return Ok(place);
        }
    }
    // Only a damaged key of this very entry is left: it gives way.
    Ok(Place::of(index))
}
