//! The two lookups that the writer needs at full speed: document digests and idempotency keys, in memory.
//!
//! On disk their rows lie in append order. A B-tree with random keys on the append path made bulk appends 15 times
//! slower at a million entries; so the random order lives in memory and is rebuilt from the rows at start.
//!
//! Invariants: an index is entered only after its batch is durable and re-read; nothing here is ground truth.

use crate::tables::{DigestKey, DigestRow};
use std::collections::HashMap;

/// Digests of one segment that has no sorted table (yet).
#[derive(Debug)]
pub(crate) struct DigestMap {
    first: u64,
    newest: HashMap<DigestKey, u32>,
    /// Per entry of the segment: one more than the offset of the previous entry with the same digest; 0 for none.
    previous: Vec<u32>,
}

impl DigestMap {
    pub(crate) fn new(first: u64) -> Self {
        Self { first, newest: HashMap::new(), previous: Vec::new() }
    }

    /// First index of the segment.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Enters `index`, which is past every index entered before.
    pub(crate) fn insert(&mut self, index: u64, key: DigestKey) {
        let offset = (index - self.first) as u32;
        self.previous.resize(offset as usize + 1, 0);
        if let Some(earlier) = self.newest.insert(key, offset) {
            self.previous[offset as usize] = earlier + 1;
        }
    }

    /// Indexes with this digest, newest first.
    pub(crate) fn find(&self, key: &DigestKey) -> impl Iterator<Item = u64> + '_ {
        let newest = self.newest.get(key).copied();
        std::iter::successors(newest, |offset| self.previous.get(*offset as usize)?.checked_sub(1))
            .map(|offset| self.first + u64::from(offset))
    }

    /// All digests in the order of the sorted table.
    pub(crate) fn sorted(&self) -> Vec<DigestRow> {
        let mut rows: Vec<_> =
            self.newest.keys().flat_map(|key| self.find(key).map(|index| (*key, index))).collect();
        rows.sort_unstable();
        rows
    }
}

/// Idempotency keys of the last `window` indexes, by the first half of their hash. Half of a SHA-256 is enough to
/// find the row, and the row has the rest.
#[derive(Debug)]
pub(crate) struct RequestWindow {
    window: u64,
    /// Oldest first. Whole generations are dropped, so that forgetting costs nothing per append.
    generations: Vec<Generation>,
}

#[derive(Debug)]
struct Generation {
    first: u64,
    newest: HashMap<[u8; 16], u64>,
}

impl RequestWindow {
    pub(crate) fn new(window: u64) -> Self {
        Self { window, generations: Vec::new() }
    }

    /// First index whose request still counts in a log of `size` entries.
    pub(crate) fn start(&self, size: u64) -> u64 {
        size.saturating_sub(self.window)
    }

    /// Enters `index`, which is past every index entered before.
    pub(crate) fn insert(&mut self, index: u64, key: &[u8; 32]) {
        let full = self.generations.last().is_none_or(|last| index >= last.first.saturating_add(self.window));
        if full {
            let start = self.start(index);
            // A generation ends where the next one starts.
            while self.generations.get(1).is_some_and(|next| next.first <= start) {
                self.generations.remove(0);
            }
            self.generations.push(Generation { first: index, newest: HashMap::new() });
        }
        if let Some(last) = self.generations.last_mut() {
            last.newest.insert(half(key), index);
        }
    }

    /// Newest index inside the window of a log of `size` entries that may carry this key.
    pub(crate) fn find(&self, key: &[u8; 32], size: u64) -> Option<u64> {
        let newest = self.generations.iter().rev().find_map(|each| each.newest.get(&half(key)).copied())?;
        (newest >= self.start(size)).then_some(newest)
    }
}

fn half(key: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&key[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_digests_are_found_newest_first_and_sorted_for_the_table() {
        let mut map = DigestMap::new(100);
        for (index, key) in [(100, 7), (101, 9), (105, 7), (106, 7)] {
            map.insert(index, [key; 17]);
        }
        assert_eq!(map.find(&[7; 17]).collect::<Vec<_>>(), [106, 105, 100]);
        assert_eq!(map.find(&[8; 17]).count(), 0);
        let sorted: Vec<_> = map.sorted().into_iter().map(|(key, index)| (key[0], index)).collect();
        assert_eq!(sorted, [(7, 100), (7, 105), (7, 106), (9, 101)]);
    }

    #[test]
    fn g3_a_key_counts_for_exactly_the_window() {
        let mut window = RequestWindow::new(10);
        for index in 0..100u64 {
            window.insert(index, &[index as u8; 32]);
            let size = index + 1;
            for earlier in 0..=index {
                let found = window.find(&[earlier as u8; 32], size);
                assert_eq!(found, (earlier + 10 >= size).then_some(earlier), "{earlier} of {size}");
            }
            assert!(window.generations.len() <= 3);
        }
    }
}
