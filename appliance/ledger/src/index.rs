//! The two lookups that the writer needs at full speed: document digests and idempotency keys, in memory.
//!
//! On disk their rows lie in append order. A B-tree with random keys on the append path made bulk appends 15 times
//! slower at a million entries; so the random order lives in memory and is rebuilt from the rows at start.
//! It is kept small: 64 bits of a keyed hash and two 32-bit offsets an entry, because a box holds a million of each.
//!
//! Refuses: to decide. Two keys may share their 64 bits, so the reader compares whatever is found with its row. (fsck
//! takes the hash's word: it would cry wolf once in a million runs over ten million entries.)
//! Invariants: an index is entered only after its batch is durable and re-read; nothing here is ground truth;
//! nobody outside can choose keys that collide, for the hash has a key of its own in each process.

use crate::tables::{DigestKey, RequestHash};
use std::hash::{BuildHasher, Hash, RandomState};

/// Slots of an empty table; doubled whenever five eighths of them are taken: a window of 2^20 and its quarter to forget
/// fit into 2^21, just.
const SLOTS_MIN: usize = 64;
/// Bits of a slot that say where its row is: one more than an offset, of which no table has 2^25.
const ROW_BITS: u32 = 25;
/// Offsets that are entered anew at a time.
const AT_A_TIME: usize = 256;

/// 64 bits that stand for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyHash {
    /// Where its search begins.
    place: u32,
    rest: u32,
}

impl KeyHash {
    fn new(hasher: &RandomState, key: &impl Hash) -> Self {
        let hash = hasher.hash_one(key);
        Self { place: hash as u32, rest: (hash >> 32) as u32 }
    }

    /// What a slot has of it, so that hardly any look at a slot of another hash leads on to a row.
    fn tag(self) -> u32 {
        self.rest >> ROW_BITS
    }
}

/// What is kept of an offset.
#[derive(Debug, Clone, Copy)]
struct Row {
    hash: KeyHash,
    /// One more than the previous offset with the same hash; 0 for none.
    previous: u32,
}

impl Row {
    /// Of an offset that has no key. Nothing ever leads to it.
    const NONE: Self = Self { hash: KeyHash { place: 0, rest: 0 }, previous: u32::MAX };
}

/// Offsets by the hash of their key, newest first.
#[derive(Debug, Default)]
struct Offsets {
    rows: Vec<Row>,
    /// Open addressing, a power of two: below one more than the newest offset of a hash, above the tag; 0 for free.
    slots: Vec<u32>,
    taken: usize,
}

impl Offsets {
    /// One more than the offset in a slot.
    fn row_of(slot: u32) -> u32 {
        slot & ((1 << ROW_BITS) - 1)
    }

    /// The slot that has this hash or would take it.
    fn slot(&self, hash: KeyHash) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash.place as usize & mask;
        while let Some(offset) = Self::row_of(self.slots[at]).checked_sub(1) {
            if self.slots[at] >> ROW_BITS == hash.tag() && self.rows[offset as usize].hash == hash {
                break;
            }
            at = (at + 1) & mask;
        }
        at
    }

    /// Enters `offset`, which is past every offset entered before.
    fn insert(&mut self, offset: u32, hash: KeyHash) {
        if self.taken * 8 >= self.slots.len() * 5 {
            self.enter_anew((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.rows.resize(offset as usize, Row::NONE);
        self.rows.push(Row { hash, previous: 0 });
        self.link(offset as usize);
    }

    /// Makes an offset that has a row the newest of its hash.
    fn link(&mut self, offset: usize) {
        let hash = self.rows[offset].hash;
        let at = self.slot(hash);
        self.rows[offset].previous = Self::row_of(self.slots[at]);
        self.taken += usize::from(self.slots[at] == 0);
        self.slots[at] = hash.tag() << ROW_BITS | (offset as u32 + 1);
    }

    /// Enters all rows into a table of so many slots.
    fn enter_anew(&mut self, slots: usize) {
        // The old ones go first: two tables are more memory than one.
        self.slots = Vec::new();
        self.slots.resize(slots, 0);
        self.taken = 0;
        for first in (0..self.rows.len()).step_by(AT_A_TIME) {
            let some = first..(first + AT_A_TIME).min(self.rows.len());
            self.warm(&self.rows[some.clone()].iter().map(|row| row.hash).collect::<Vec<_>>());
            for offset in some {
                if self.rows[offset].previous != Row::NONE.previous {
                    self.link(offset);
                }
            }
        }
    }

    /// Forgets the oldest offsets; the others are so many fewer from then on.
    fn forget(&mut self, oldest: usize) {
        self.rows.drain(..oldest);
        self.enter_anew(self.slots.len());
    }

    /// Reads where `hashes` lead to, for the sake of having read it. Reads that do not depend on each other wait for
    /// the memory together, if nothing stands between them; one look-up after the other waits for each, and a large
    /// table is in no cache.
    fn warm(&self, hashes: &[KeyHash]) {
        if let Some(mask) = self.slots.len().checked_sub(1) {
            let slots = hashes.iter().map(|hash| self.slots[hash.place as usize & mask]);
            std::hint::black_box(slots.fold(0, |all, slot| all ^ slot));
        }
    }

    /// Offsets that may have this key, newest first.
    fn find(&self, hash: KeyHash) -> impl Iterator<Item = u32> + '_ {
        let newest = if self.slots.is_empty() { 0 } else { Self::row_of(self.slots[self.slot(hash)]) };
        let previous = |offset: &u32| self.rows[*offset as usize].previous.checked_sub(1);
        std::iter::successors(newest.checked_sub(1), previous)
    }
}

/// Digests of one segment that has no sorted table (yet).
#[derive(Debug)]
pub(crate) struct DigestMap {
    first: u64,
    hasher: RandomState,
    offsets: Offsets,
}

impl DigestMap {
    pub(crate) fn new(first: u64) -> Self {
        Self { first, hasher: RandomState::new(), offsets: Offsets::default() }
    }

    /// First index of the segment.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Makes ready for these keys; changes nothing but the time they take.
    pub(crate) fn warm<'k>(&self, keys: impl Iterator<Item = &'k DigestKey>) {
        self.offsets.warm(&keys.map(|key| KeyHash::new(&self.hasher, key)).collect::<Vec<_>>());
    }

    /// Enters `index`, which is past every index entered before.
    pub(crate) fn insert(&mut self, index: u64, key: &DigestKey) {
        self.offsets.insert((index - self.first) as u32, KeyHash::new(&self.hasher, key));
    }

    /// Indexes that may have this digest, newest first.
    pub(crate) fn find(&self, key: &DigestKey) -> impl Iterator<Item = u64> + '_ {
        let hash = KeyHash::new(&self.hasher, key);
        self.offsets.find(hash).map(|offset| self.first + u64::from(offset))
    }
}

/// The longest window.
pub(crate) const WINDOW_MAX: u64 = 1 << 24;

/// Idempotency keys of the last `window` indexes.
#[derive(Debug)]
pub(crate) struct RequestWindow {
    window: u64,
    hasher: RandomState,
    /// Index of the first offset.
    first: u64,
    offsets: Offsets,
}

impl RequestWindow {
    /// `window` is at most [`WINDOW_MAX`]; more is as good as that.
    pub(crate) fn new(window: u64) -> Self {
        let window = window.min(WINDOW_MAX);
        Self { window, hasher: RandomState::new(), first: 0, offsets: Offsets::default() }
    }

    /// First index whose request still counts in a log of `size` entries.
    pub(crate) fn start(&self, size: u64) -> u64 {
        size.saturating_sub(self.window)
    }

    /// Makes ready for these keys; changes nothing but the time they take.
    pub(crate) fn warm<'k>(&self, keys: impl Iterator<Item = &'k RequestHash>) {
        self.offsets.warm(&keys.map(|key| KeyHash::new(&self.hasher, key)).collect::<Vec<_>>());
    }

    /// Enters `index`, which is past every index entered before.
    pub(crate) fn insert(&mut self, index: u64, key: &RequestHash) {
        if self.offsets.rows.is_empty() {
            self.first = index;
        }
        // A quarter of the window at a time: forgetting each by itself would enter all the others anew each time.
        if index - self.first >= self.window + (self.window / 4).max(1) {
            let forgotten = (self.start(index) - self.first).min(self.offsets.rows.len() as u64);
            self.offsets.forget(forgotten as usize);
            self.first = if self.offsets.rows.is_empty() { index } else { self.first + forgotten };
        }
        self.offsets.insert((index - self.first) as u32, KeyHash::new(&self.hasher, key));
    }

    /// Indexes inside the window of a log of `size` entries that may carry this key, newest first: hardly ever more
    /// than one.
    pub(crate) fn find(&self, key: &RequestHash, size: u64) -> Vec<u64> {
        let found = self.offsets.find(KeyHash::new(&self.hasher, key));
        let indexes = found.map(|offset| self.first + u64::from(offset));
        indexes.filter(|index| *index >= self.start(size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_digests_are_found_newest_first() {
        let mut map = DigestMap::new(100);
        for (index, key) in [(100, 7), (101, 9), (105, 7), (106, 7)] {
            map.insert(index, &[key; 9]);
        }
        assert_eq!(map.find(&[7; 9]).collect::<Vec<_>>(), [106, 105, 100]);
        assert_eq!(map.find(&[9; 9]).collect::<Vec<_>>(), [101]);
        assert_eq!(map.find(&[8; 9]).count(), 0);
        assert_eq!(DigestMap::new(0).find(&[8; 9]).count(), 0);
    }

    /// Thousands of distinct and repeated keys with gaps, against a map from the standard library.
    #[test]
    fn a_grown_table_finds_what_a_map_finds() {
        let mut map = DigestMap::new(1_000_000);
        let mut model: std::collections::HashMap<DigestKey, Vec<u64>> = Default::default();
        for number in 0..20_000u64 {
            let mut key = [0; 9];
            key[..8].copy_from_slice(&(number * number % 9_973).to_be_bytes());
            let index = 1_000_000 + number * 3;
            map.insert(index, &key);
            model.entry(key).or_default().insert(0, index);
        }
        for (key, indexes) in &model {
            assert_eq!(map.find(key).collect::<Vec<_>>(), *indexes);
        }
        for absent in 9_973..20_000u64 {
            let mut key = [0; 9];
            key[..8].copy_from_slice(&absent.to_be_bytes());
            assert_eq!(map.find(&key).count(), 0);
        }
    }

    #[test]
    fn g3_a_key_counts_for_exactly_the_window() {
        for length in [1u64, 3, 10, 64] {
            let mut window = RequestWindow::new(length);
            for index in 0..200u64 {
                window.insert(index, &[index as u8; 16]);
                let size = index + 1;
                for earlier in 0..=index {
                    let found = window.find(&[earlier as u8; 16], size);
                    let expected = if earlier + length >= size { vec![earlier] } else { Vec::new() };
                    assert_eq!(found, expected, "{earlier} of {size}");
                }
                assert!(window.offsets.rows.len() as u64 <= length + (length / 4).max(1));
            }
        }
    }
    /// Keys that come again, and indexes without a key, while whole quarters are forgotten.
    #[test]
    fn g3_a_window_that_forgets_finds_what_a_list_finds() {
        for length in [1u64, 5, 40, 300] {
            let mut window = RequestWindow::new(length);
            let mut list: Vec<(u64, RequestHash)> = Vec::new();
            let mut index = 7_000;
            for number in 0..2_000u64 {
                // Now and then further than the window reaches.
                index += if number % 500 == 499 { 2 * length } else { 1 + number % 3 };
                let key = [(number * number % 31) as u8; 16];
                window.insert(index, &key);
                list.push((index, key));
                let size = index + 1;
                for key in (0..32).map(|byte| [byte; 16]) {
                    let counts = |row: &&(u64, RequestHash)| row.1 == key && row.0 + length >= size;
                    let expected: Vec<u64> =
                        list.iter().rev().take(300).filter(counts).map(|row| row.0).collect();
                    assert_eq!(window.find(&key, size), expected, "{length} {number}");
                }
            }
        }
    }

    #[test]
    fn a_window_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(crate::DirStore::open(dir.path()).unwrap());
        let options = crate::Options { request_window: WINDOW_MAX + 1, ..crate::Options::default() };
        let refused = crate::Ledger::create(store, "test/window/0", options).unwrap_err();
        assert!(refused.to_string().contains("at most 2^24 entries, not for 16777217"), "{refused}");
    }
}
