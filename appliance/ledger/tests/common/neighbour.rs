//! A neighbour's log: entries that name objects, and the trees they lead to. Its own code, not the ledger's.

use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle;
use bulla_ledger::{Mirror, MirrorOptions, Options, References, Tree};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub const NEIGHBOUR: &str = "fleet.example/00112233445566778899aabbccddeeff00112233/1";

/// Origin of the `number`-th neighbour.
pub fn origin(number: u64) -> String {
    format!("fleet.example/{number:040x}/1")
}

/// An entry names as many objects as its first byte says, 32 bytes each.
#[derive(Debug)]
pub struct Named(pub u32);

impl References for Named {
    fn version(&self) -> u32 {
        self.0
    }

    fn of(&self, entry: &[u8]) -> Vec<Hash> {
        names(entry)
    }
}

pub fn names(entry: &[u8]) -> Vec<Hash> {
    let Some((count, rest)) = entry.split_first() else { return Vec::new() };
    rest.chunks_exact(32).take(usize::from(*count)).filter_map(Hash::from_slice).collect()
}

pub fn object(number: u64) -> Vec<u8> {
    format!("object {number} {}", "y".repeat(number as usize * 37 % 500)).into_bytes()
}

/// Every third entry names an object of its own, every seventh one that others name as well.
pub fn entry(number: u64) -> Vec<u8> {
    let mut objects = Vec::new();
    if number.is_multiple_of(3) {
        objects.push(object(number));
    }
    if number.is_multiple_of(7) {
        objects.push(object(1_000_000 + number / 28));
    }
    let mut entry = vec![objects.len() as u8];
    objects.iter().for_each(|object| entry.extend_from_slice(&sha256(&[object]).0));
    entry.extend_from_slice(format!("entry {number} {}", "x".repeat(number as usize % 200)).as_bytes());
    entry
}

#[derive(Debug, Clone)]
pub struct Neighbour {
    pub entries: Vec<Vec<u8>>,
    pub objects: BTreeMap<[u8; 32], Vec<u8>>,
    leaves: Vec<Hash>,
}

impl Neighbour {
    pub fn new(size: u64) -> Self {
        let entries: Vec<_> = (0..size).map(entry).collect();
        let made = (0..size).chain(1_000_000..=1_000_000 + size / 28).map(object);
        let objects = made.map(|object| (sha256(&[&object]).0, object)).collect();
        let leaves = entries.iter().map(|entry| leaf_hash(entry)).collect();
        Self { entries, objects, leaves }
    }

    /// The same after its entries were changed.
    pub fn again(self) -> Self {
        let leaves = self.entries.iter().map(|entry| leaf_hash(entry)).collect();
        Self { leaves, ..self }
    }

    pub fn tree(&self, size: u64) -> Tree {
        Tree { size, root: merkle::root(size, self.leaves.as_slice()).unwrap() }
    }

    pub fn range(&self, range: Range<u64>) -> Vec<Vec<u8>> {
        self.entries[range.start as usize..range.end as usize].to_vec()
    }

    /// The objects that these entries name, in order and each once.
    pub fn named(&self, range: Range<u64>) -> Vec<(u64, Hash)> {
        let mut seen = Vec::new();
        for index in range {
            for name in names(&self.entries[index as usize]) {
                if !seen.iter().any(|(_, it)| *it == name) {
                    seen.push((index, name));
                }
            }
        }
        seen
    }

    pub fn objects_of(&self, range: Range<u64>) -> Vec<Vec<u8>> {
        self.named(range).iter().map(|(_, name)| self.objects[&name.0].clone()).collect()
    }

    /// Brings a mirror up to `to`, with objects.
    pub fn feed(&self, mirror: &Mirror, to: u64) {
        let first = mirror.held().map(|_| mirror.standing().tree.size).unwrap();
        if first < to {
            mirror.store_range(first, self.range(first..to), Vec::new(), self.tree(to)).unwrap();
        }
        self.complete(mirror);
    }

    /// Gives a mirror the objects that it lacks.
    pub fn complete(&self, mirror: &Mirror) {
        let missing = mirror.missing_objects(usize::MAX).unwrap();
        if !missing.is_empty() {
            let objects = missing.iter().map(|it| self.objects[&it.object.0].clone()).collect();
            mirror.store_objects(objects).unwrap();
        }
    }
}

/// Small segments, no reserve.
pub fn mirror_options(segment_entries: u64) -> MirrorOptions {
    let options = MirrorOptions::new(Arc::new(Named(1)));
    let log = Options { segment_entries, reserve_bytes: 0, ..options.log };
    MirrorOptions { log, ..options }
}
