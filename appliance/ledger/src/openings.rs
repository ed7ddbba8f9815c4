//! Openings: what opens the salted commitments in entries, encrypted under a key per entry.
//!
//! Committed *before* the entries they belong to: an entry must not become durable whose openings can still be
//! lost. Rows past the end of the log are therefore leftovers of batches that never became durable; they are
//! removed at start and before the log goes on after a failure.
//!
//! Refuses: handing out openings that do not decrypt as the openings of this very index.
//! Invariants: no nonce is ever used twice under a key, because no key is used twice; erasing the key is erasing
//! the openings, and the file is rewritten so that the key is in no page of it.

use crate::companion::{Companion, Kind, copy_table};
use crate::error::{Damage, ReadError, StorageFault};
use crate::store::Store;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use redb::{ReadTransaction, TableDefinition, WriteTransaction};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Index to 32-byte random key.
const KEYS: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("keys-1");
/// Index to nonce 12 and ChaCha20-Poly1305 ciphertext, with the index as associated data.
const OPENINGS: TableDefinition<u64, &[u8]> = TableDefinition::new("openings-1");

pub(crate) const NAME: &str = "openings.redb";
const NONCE_BYTES: usize = 12;

/// Ciphertext under random keys is not shaped by outsiders, and each row is authenticated when it is read: one
/// phase is enough, and this commit is on the way of every seal with metadata.
const KIND: Kind = Kind { name: NAME, two_phase: false, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(KEYS, from, to)?;
    copy_table(OPENINGS, from, to)
}

#[derive(Debug)]
pub(crate) struct Openings(Companion);

impl Openings {
    /// Runs `look` while what the file holds now stays in it; not at all when there is no file.
    pub(crate) fn pinned(&self, mut look: impl FnMut(&str)) -> Result<(), ReadError> {
        self.0.pinned(|| look(NAME))?;
        Ok(())
    }

    pub(crate) fn new(store: Arc<dyn Store>, present: bool) -> Self {
        Self(Companion::new(store, KIND, present))
    }

    /// Copies all openings into another directory; the name of the file there, if there are any.
    pub(crate) fn copy_to(&self, to: &dyn Store) -> Result<Option<String>, StorageFault> {
        self.0.copy_to(to)
    }

    /// For looking only: reads through an overlay and never writes the file.
    pub(crate) fn frozen(store: Arc<dyn Store>) -> Self {
        Self(Companion::frozen(store, KIND))
    }

    /// Stores the openings of a batch, durably.
    pub(crate) fn store(&self, rows: &[(u64, &[u8])]) -> Result<(), StorageFault> {
        if rows.is_empty() {
            return Ok(());
        }
        self.0.write(|txn| {
            let (mut keys, mut openings) = (txn.open_table(KEYS)?, txn.open_table(OPENINGS)?);
            for (index, plain) in rows {
                let key = random::<32>()?;
                let nonce = random::<NONCE_BYTES>()?;
                let cipher = ChaCha20Poly1305::new(&Key::from(*key));
                let sealed = cipher
                    .encrypt(&Nonce::from(*nonce), Payload { msg: plain, aad: &index.to_be_bytes() })
                    .map_err(|_| std::io::Error::other("the openings are too long to encrypt"))?;
                keys.insert(index, &*key)?;
                openings.insert(index, [nonce.as_slice(), &sealed].concat().as_slice())?;
            }
            Ok(())
        })
    }

    /// The openings of an entry; `None` when it has none or they have been erased.
    pub(crate) fn read(&self, index: u64) -> Result<Option<Zeroizing<Vec<u8>>>, ReadError> {
        let row = self.0.read(|txn| {
            let key = txn.open_table(KEYS)?.get(index)?.map(|key| Zeroizing::new(*key.value()));
            let sealed = txn.open_table(OPENINGS)?.get(index)?.map(|sealed| sealed.value().to_vec());
            Ok(key.zip(sealed))
        })?;
        let Some((key, sealed)) = row.flatten() else { return Ok(None) };
        let damaged = || Damage::new(NAME, index, "the openings do not decrypt");
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let cipher = ChaCha20Poly1305::new(&Key::from(*key));
        let plain = cipher
            .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: &index.to_be_bytes() })
            .map_err(|_| damaged())?;
        Ok(Some(Zeroizing::new(plain)))
    }

    /// Removes the rows of batches that never became durable.
    pub(crate) fn clip(&self, size: u64) -> Result<(), StorageFault> {
        if self.0.read(|txn| Ok(txn.open_table(KEYS)?.range(size..)?.next().is_some()))? != Some(true) {
            return Ok(());
        }
        self.0.write(|txn| {
            txn.open_table(KEYS)?.retain_in(size.., |_, _| false)?;
            txn.open_table(OPENINGS)?.retain_in(size.., |_, _| false)?;
            Ok(())
        })
    }

    /// Destroys the keys of these entries and every page that held them.
    pub(crate) fn erase(&self, indexes: &[u64]) -> Result<(), StorageFault> {
        if !self.0.is_present() {
            return Ok(());
        }
        self.0.write(|txn| {
            let (mut keys, mut openings) = (txn.open_table(KEYS)?, txn.open_table(OPENINGS)?);
            for index in indexes {
                keys.remove(index)?;
                openings.remove(index)?;
            }
            Ok(())
        })?;
        self.0.rewrite()
    }

    /// Indexes that have openings, in order, from `start` on, at most `limit`: for fsck.
    pub(crate) fn indexes(&self, start: u64, limit: usize) -> Result<Vec<u64>, StorageFault> {
        let found = self.0.read(|txn| {
            let mut indexes = Vec::new();
            for row in txn.open_table(OPENINGS)?.range(start..)?.take(limit) {
                indexes.push(row?.0.value());
            }
            Ok(indexes)
        })?;
        Ok(found.unwrap_or_default())
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, std::io::Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(std::io::Error::other)?;
    Ok(bytes)
}
