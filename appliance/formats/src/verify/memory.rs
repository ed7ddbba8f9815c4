//! What a verifier remembers from one seal to the next: checks that passed, under keys that cover every byte they read.
//!
//! Refuses to do: remember that something failed, or anything of the token, its place in the tree, its openings, or the
//! document: those are judged for every seal.
//! Invariants: a [`Key`] is the SHA-256 of bytes, or of the keys of all the parts that its check reads, so other bytes
//! never meet an old answer. Each [`Store`] holds at most its number of items, none
//! of them of more bytes than it takes; when it is full it forgets everything and begins anew.

use crate::anchoring::Judged;
use crate::body::key_epoch::KeyEpochBody;
use crate::endorsement::AttestationKey;
use crate::enrolment::VerifiedEnrolment;
use crate::entry::{ENTRY_BYTES_MAX, Entry};
use crate::hash::{Hash, sha256};
use crate::note::Checkpoint;
use crate::sig::PublicKey;
use std::collections::HashMap;
use std::sync::Arc;

/// Most enrolments remembered.
pub const ENROLMENTS_REMEMBERED: usize = 16;
/// Most key-epoch entries remembered.
pub const EPOCHS_REMEMBERED: usize = 64;
/// Most checkpoints remembered, and most quotes, anchors and paths of key-epoch entries.
pub const CHECKPOINTS_REMEMBERED: usize = 4_096;
/// Longest enrolment or key-epoch entry remembered, in bytes.
const ENTRY_BYTES: usize = 32_768;
/// Longest checkpoint note remembered, in bytes.
const NOTE_BYTES: usize = 4_096;

/// Name of everything that a check read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(Hash);

impl Key {
    /// Of bytes that are read alone.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Key(sha256(&[bytes]))
    }

    /// Of `part`, read together with what `self` names. Names are all of one length, so that none runs into the next.
    pub(super) fn with(&self, part: Key) -> Self {
        Key(sha256(&[&self.0.0, &part.0.0]))
    }
}

/// The outcome of one kind of check.
#[derive(Debug)]
pub(super) struct Store<T> {
    items: HashMap<Key, Arc<T>>,
    most: usize,
    item_bytes: usize,
}

impl<T> Store<T> {
    fn new(most: usize, item_bytes: usize) -> Self {
        Store { items: HashMap::new(), most, item_bytes }
    }

    /// What the check of these bytes came to, if it passed not too long ago.
    pub(super) fn recall(&self, key: &Key) -> Option<Arc<T>> {
        self.items.get(key).cloned()
    }

    /// Keeps what the check of `bytes` bytes came to. Only after it passed.
    pub(super) fn keep(&mut self, key: Key, bytes: usize, value: T) -> Arc<T> {
        let value = Arc::new(value);
        if bytes <= self.item_bytes {
            if self.items.len() == self.most {
                self.items.clear();
            }
            self.items.insert(key, value.clone());
        }
        value
    }
}

/// A key-epoch entry, taken apart.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) entry: Entry,
    pub(super) body: KeyEpochBody,
    pub(super) sealing_key: PublicKey,
    pub(super) leaf: Hash,
}

/// What the report says of a quote.
#[derive(Debug)]
pub(super) struct Quoted {
    pub(super) clock: u64,
    pub(super) reset_count: u32,
}

/// Everything one verifier remembers. It is of one trust file and never leaves its verifier.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) enrolments: Store<VerifiedEnrolment>,
    pub(super) attestation_keys: Store<AttestationKey>,
    pub(super) epochs: Store<Epoch>,
    pub(super) epoch_signatures: Store<()>,
    pub(super) endorsements: Store<()>,
    pub(super) checkpoints: Store<Checkpoint>,
    pub(super) epoch_paths: Store<()>,
    pub(super) quotes: Store<Quoted>,
    pub(super) anchors: Store<Vec<(String, Judged)>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Memory {
            enrolments: Store::new(ENROLMENTS_REMEMBERED, ENTRY_BYTES),
            attestation_keys: Store::new(ENROLMENTS_REMEMBERED, ENTRY_BYTES),
            epochs: Store::new(EPOCHS_REMEMBERED, ENTRY_BYTES),
            epoch_signatures: Store::new(EPOCHS_REMEMBERED, ENTRY_BYTES),
            endorsements: Store::new(EPOCHS_REMEMBERED, ENTRY_BYTES),
            checkpoints: Store::new(CHECKPOINTS_REMEMBERED, NOTE_BYTES),
            epoch_paths: Store::new(CHECKPOINTS_REMEMBERED, NOTE_BYTES),
            quotes: Store::new(CHECKPOINTS_REMEMBERED, NOTE_BYTES),
            anchors: Store::new(CHECKPOINTS_REMEMBERED, ENTRY_BYTES_MAX),
        }
    }

    /// Number of items in all.
    pub(super) fn len(&self) -> usize {
        self.enrolments.items.len()
            + self.attestation_keys.items.len()
            + self.epochs.items.len()
            + self.epoch_signatures.items.len()
            + self.endorsements.items.len()
            + self.checkpoints.items.len()
            + self.epoch_paths.items.len()
            + self.quotes.items.len()
            + self.anchors.items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_stays_small_and_takes_no_large_items() {
        let mut store = Store::new(3, 10);
        let key = |n: u8| Key::of(&[n]);
        for n in 0..10u8 {
            assert_eq!(*store.keep(key(n), 10, n), n);
            assert!(store.items.len() <= 3);
            assert_eq!(store.recall(&key(n)).as_deref(), Some(&n));
        }
        assert!(store.recall(&key(0)).is_none());
        assert_eq!(*store.keep(key(99), 11, 99), 99, "what is too long is handed back all the same");
        assert!(store.recall(&key(99)).is_none());
    }

    #[test]
    fn keys_of_other_bytes_or_other_parents_differ() {
        let (one, two) = (Key::of(b"one"), Key::of(b"two"));
        assert_ne!(one, two);
        let (x, y) = (Key::of(b"x"), Key::of(b"y"));
        assert_ne!(one.with(x), two.with(x));
        assert_ne!(one.with(x), one.with(y));
        assert_ne!(one.with(two), two.with(one));
        assert_ne!(one.with(Key::of(b"")), one);
    }
}
