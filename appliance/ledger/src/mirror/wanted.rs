//! The objects that a mirror lacks, in memory: by hash, and in the order of the entries that refer to them.

use bulla_formats::hash::Hash;
use std::collections::{BTreeSet, HashMap};

/// Objects that are not here yet, by hash and in the order of the entries that refer to them.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    by_hash: HashMap<Hash, u64>,
    in_order: BTreeSet<(u64, Hash)>,
}

impl Wanted {
    pub(super) fn insert(&mut self, object: Hash, index: u64) {
        if let Some(index) = self.by_hash.insert(object, index) {
            self.in_order.remove(&(index, object));
        }
        self.in_order.insert((index, object));
    }

    pub(super) fn remove(&mut self, object: &Hash) {
        if let Some(index) = self.by_hash.remove(object) {
            self.in_order.remove(&(index, *object));
        }
    }

    pub(super) fn get(&self, object: &Hash) -> Option<u64> {
        self.by_hash.get(object).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.in_order.first().map(|(index, _)| *index)
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = (u64, Hash)> + '_ {
        self.in_order.iter().copied()
    }
}
