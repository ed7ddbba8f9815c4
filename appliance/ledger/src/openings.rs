//! Openings: what opens the salted commitments in entries, encrypted under a key per entry.
//!
//! Committed *before* the entries they belong to: an entry must not become durable whose openings can still be
//! lost. Rows past the end of the log are therefore leftovers of batches that never became durable; they are
//! removed at start and before the log goes on after a failure.
//!
//! The keys are not here: they follow from the secrets in `opening-keys.redb`. Erasing an entry's openings is destroying
//! its key there; the row goes too, but what pages of this file still hold of it is noise without the key.
//!
//! Refuses: handing out openings that do not decrypt as the openings of this very index; a file of another layout.
//! Invariants: no nonce is ever used twice under a key: an index that is given again after a crash has the same key, so
//! every row has its own random nonce. An erasure removes the row before the key: a row without a key is damage.

use crate::companion::{Companion, Kind, copy_table};
use crate::error::{Damage, ReadError, StorageFault};
use crate::opening_keys::{self, OpeningKeys};
use crate::store::Store;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use redb::{ReadTransaction, TableDefinition, TableHandle as _, WriteTransaction};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Index to nonce 12 and ChaCha20-Poly1305 ciphertext, with the index as associated data.
const OPENINGS: TableDefinition<u64, &[u8]> = TableDefinition::new("openings-2");

pub(crate) const NAME: &str = "openings.redb";
const NONCE_BYTES: usize = 12;

/// Ciphertext under random keys is not shaped by outsiders, and each row is authenticated when it is read: one
/// phase is enough, and this commit is on the way of every seal with metadata.
const KIND: Kind = Kind { name: NAME, two_phase: false, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(OPENINGS, from, to)
}

#[derive(Debug)]
pub(crate) struct Openings {
    rows: Companion,
    keys: OpeningKeys,
}

impl Openings {
    /// Runs `look` while what the file of the rows holds now stays in it; not at all when there is no file.
    pub(crate) fn pinned(&self, mut look: impl FnMut(&str)) -> Result<(), ReadError> {
        self.rows.pinned(|| look(NAME))?;
        Ok(())
    }

    /// `present`: whether the directory has a file of that name.
    pub(crate) fn new(store: Arc<dyn Store>, present: impl Fn(&str) -> bool) -> Self {
        let keys = OpeningKeys::new(Arc::clone(&store), present(opening_keys::NAME));
        Self { rows: Companion::new(store, KIND, present(NAME)), keys }
    }

    /// For looking only: reads through an overlay and never writes the files.
    pub(crate) fn frozen(store: Arc<dyn Store>, present: impl Fn(&str) -> bool) -> Self {
        let keys = OpeningKeys::frozen(Arc::clone(&store), present(opening_keys::NAME));
        let rows =
            if present(NAME) { Companion::frozen(store, KIND) } else { Companion::new(store, KIND, false) };
        Self { rows, keys }
    }

    /// The secrets that the keys follow from.
    pub(crate) fn keys(&self) -> &OpeningKeys {
        &self.keys
    }

    /// A file with a table that this version does not know, and that table: another version wrote it.
    pub(crate) fn unknown_table(&self) -> Result<Option<(&'static str, String)>, StorageFault> {
        let rows = self.rows.table_besides(OPENINGS.name())?.map(|table| (NAME, table));
        let keys = || Ok(self.keys.unknown_table()?.map(|table| (opening_keys::NAME, table)));
        rows.map_or_else(keys, |found| Ok(Some(found)))
    }

    /// Copies all openings and what their keys follow from into another directory; the names of the files there. The
    /// secrets first: what is erased meanwhile then lacks its row, and not its key.
    pub(crate) fn copy_to(&self, to: &dyn Store) -> Result<Vec<String>, StorageFault> {
        let keys = self.keys.copy_to(to)?;
        Ok(keys.into_iter().chain(self.rows.copy_to(to)?).collect())
    }

    /// Stores the openings of a batch, durably.
    pub(crate) fn store(&self, rows: &[(u64, &[u8])]) -> Result<(), StorageFault> {
        if rows.is_empty() {
            return Ok(());
        }
        let indexes: Vec<u64> = rows.iter().map(|(index, _)| *index).collect();
        let keys = self.keys.to_encrypt(&indexes)?;
        self.rows.write(|txn| {
            let mut openings = txn.open_table(OPENINGS)?;
            for ((index, plain), key) in rows.iter().zip(&keys) {
                let mut nonce = [0; NONCE_BYTES];
                getrandom::fill(&mut nonce).map_err(std::io::Error::other)?;
                let cipher = ChaCha20Poly1305::new(&Key::from(**key));
                let sealed = cipher
                    .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: &index.to_be_bytes() })
                    .map_err(|_| std::io::Error::other("the openings are too long to encrypt"))?;
                openings.insert(index, [nonce.as_slice(), &sealed].concat().as_slice())?;
            }
            Ok(())
        })
    }

    /// The openings of an entry; `None` when it has none or they have been erased, never because a secret is lost.
    pub(crate) fn read(&self, index: u64) -> Result<Option<Zeroizing<Vec<u8>>>, ReadError> {
        let Some(sealed) = self.row(index)? else { return Ok(None) };
        let Some(key) = self.keys.key(index)? else {
            // An erasure between the two looks has removed the row as well; a lost secret has not.
            return match self.row(index)? {
                Some(_) => Err(Damage::new(NAME, index, "the openings have no key").into()),
                None => Ok(None),
            };
        };
        let damaged = || Damage::new(NAME, index, "the openings do not decrypt");
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let cipher = ChaCha20Poly1305::new(&Key::from(*key));
        let plain = cipher
            .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: &index.to_be_bytes() })
            .map_err(|_| damaged())?;
        Ok(Some(Zeroizing::new(plain)))
    }

    fn row(&self, index: u64) -> Result<Option<Vec<u8>>, StorageFault> {
        let look = |txn: &ReadTransaction| {
            Ok(txn.open_table(OPENINGS)?.get(index)?.map(|sealed| sealed.value().to_vec()))
        };
        Ok(self.rows.read(look)?.flatten())
    }

    /// Removes the rows of batches that never became durable.
    pub(crate) fn clip(&self, size: u64) -> Result<(), StorageFault> {
        if self.rows.read(|txn| Ok(txn.open_table(OPENINGS)?.range(size..)?.next().is_some()))? != Some(true)
        {
            return Ok(());
        }
        self.rows.write(|txn| {
            txn.open_table(OPENINGS)?.retain_in(size.., |_, _| false)?;
            Ok(())
        })
    }

    /// Removes the rows of these entries, then destroys their keys and every page that held a secret above them. Done
    /// again it changes nothing.
    pub(crate) fn erase(&self, indexes: &[u64]) -> Result<(), StorageFault> {
        if self.rows.is_present() {
            self.rows.write(|txn| {
                let mut openings = txn.open_table(OPENINGS)?;
                for index in indexes {
                    openings.remove(index)?;
                }
                Ok(())
            })?;
        }
        self.keys.erase(indexes)
    }

    /// Indexes that have openings, in order, from `start` on, at most `limit`: for fsck.
    pub(crate) fn indexes(&self, start: u64, limit: usize) -> Result<Vec<u64>, StorageFault> {
        let found = self.rows.read(|txn| {
            let mut indexes = Vec::new();
            for row in txn.open_table(OPENINGS)?.range(start..)?.take(limit) {
                indexes.push(row?.0.value());
            }
            Ok(indexes)
        })?;
        Ok(found.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DirStore;

    fn start(dir: &tempfile::TempDir) -> (Arc<dyn Store>, Openings) {
        let store: Arc<dyn Store> = Arc::new(DirStore::open(dir.path()).unwrap());
        let names = store.list().unwrap();
        (Arc::clone(&store), Openings::new(store, |name| names.iter().any(|each| each == name)))
    }

    fn plain(openings: &Openings, index: u64) -> Option<String> {
        let read = openings.read(index).unwrap()?;
        Some(String::from_utf8(read.to_vec()).unwrap())
    }

    #[test]
    fn a_batch_may_cross_into_new_buckets() {
        let dir = tempfile::tempdir().unwrap();
        let (store, openings) = start(&dir);
        let batch = [65_534u64, 65_535, 65_536, 131_073, u64::MAX];
        let names: Vec<String> = batch.iter().map(u64::to_string).collect();
        let rows: Vec<(u64, &[u8])> = batch.iter().copied().zip(names.iter().map(String::as_bytes)).collect();
        openings.store(&rows).unwrap();
        openings.erase(&[65_535, 65_536]).unwrap();
        openings.store(&[(65_537, b"later"), (131_074, b"later too")]).unwrap();
        drop((store, openings));
        let (_store, openings) = start(&dir);
        let found: Vec<_> = batch.iter().map(|index| plain(&openings, *index)).collect();
        let wanted = [Some("65534"), None, None, Some("131073"), Some("18446744073709551615")];
        assert_eq!(found, wanted.map(|text| text.map(str::to_owned)));
        assert_eq!(plain(&openings, 65_537).unwrap(), "later");
        assert!(openings.keys().damages().unwrap().is_empty());
        assert_eq!(openings.keys().key(65_535).unwrap(), None);
    }

    /// After a crash an index is given again, with the same key: the nonce must not be.
    #[test]
    fn a_clipped_index_has_the_same_key_and_another_nonce() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, openings) = start(&dir);
        let row = |openings: &Openings| openings.row(7).unwrap();
        openings.store(&[(6, b"kept"), (7, b"never sealed")]).unwrap();
        let (first, key) = (row(&openings).unwrap(), openings.keys().key(7).unwrap());
        openings.clip(7).unwrap();
        assert_eq!((row(&openings), plain(&openings, 7)), (None, None));
        openings.store(&[(7, b"sealed after")]).unwrap();
        assert_eq!(openings.keys().key(7).unwrap(), key);
        assert_ne!(row(&openings).unwrap()[..NONCE_BYTES], first[..NONCE_BYTES]);
        assert_eq!(plain(&openings, 7).unwrap(), "sealed after");
        assert_eq!(plain(&openings, 6).unwrap(), "kept");
    }

    #[test]
    fn a_log_without_openings_has_nothing_to_erase() {
        let dir = tempfile::tempdir().unwrap();
        let (store, openings) = start(&dir);
        openings.erase(&[1, 2]).unwrap();
        openings.store(&[]).unwrap();
        assert_eq!(store.list().unwrap().iter().filter(|name| name.ends_with("redb")).count(), 0);
    }
}
