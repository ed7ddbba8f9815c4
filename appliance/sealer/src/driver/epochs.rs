//! Key epochs: finding the key-epoch entry of any entry, and having the next epoch ready.
//!
//! Where an epoch begins is derived data: a cache, then a hint in the control store, then a walk
//! back through the log. A wrong or missing hint costs time, never a wrong answer.
//! Invariant: a [`PreparedEpoch`] is endorsed by the device.

use super::stamping::Stamper;
use super::{LookupError, body};
use crate::tls::{AuthorityError, Certifier};
use bulla_formats::body::key_epoch::{Endorsement, EpochStatement, KeyEpochBody};
use bulla_formats::entry::{Entry, Kind, Residency};
use bulla_formats::hash::Hash;
use bulla_keys::{EpochKey, KeyError, KeyService, SealingKey};
use bulla_ledger::{Control, Reader};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// A key-epoch entry, as evidence for the entries of its epoch.
#[derive(Debug)]
pub struct EpochEvidence {
    /// Its index.
    pub index: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its leaf hash.
    pub leaf_hash: Hash,
}

/// Finds key-epoch entries.
pub struct EpochIndex {
    reader: Reader,
    control: Control,
    known: Mutex<HashMap<u64, Arc<EpochEvidence>>>,
}

impl EpochIndex {
    /// An index with nothing cached.
    pub fn new(reader: Reader, control: Control) -> Self {
        EpochIndex { reader, control, known: Mutex::new(HashMap::new()) }
    }

    /// The key-epoch entry of `epoch`, which begins at or before entry `at`.
    pub fn find(&self, epoch: u64, at: u64) -> Result<Arc<EpochEvidence>, LookupError> {
        if let Some(found) = self.cache().get(&epoch) {
            return Ok(found.clone());
        }
        let hint = self.control.get(&hint_name(epoch)).ok().flatten();
        let hint = hint.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        if let Some(found) = hint.map(|index| self.read(epoch, index)).transpose()?.flatten() {
            return Ok(self.remember(epoch, found));
        }
        for index in (0..=at).rev() {
            if let Some(found) = self.read(epoch, index)? {
                return Ok(self.remember(epoch, found));
            }
        }
        Err(LookupError::Storage(format!("the log has no key-epoch entry of epoch {epoch} before {at}")))
    }

    /// Takes note of a key-epoch entry that has just become durable.
    pub fn committed(&self, epoch: u64, entry: &Entry) {
        let index = entry.content().index;
        let evidence = EpochEvidence { index, bytes: entry.bytes().to_vec(), leaf_hash: entry.leaf_hash() };
        self.remember(epoch, evidence);
        if let Err(error) = self.control.put(&hint_name(epoch), &index.to_be_bytes()) {
            log::warn!("the hint for epoch {epoch} could not be stored ({error}); it will be searched for");
        }
    }

    fn read(&self, epoch: u64, index: u64) -> Result<Option<EpochEvidence>, LookupError> {
        if index >= self.reader.size() {
            return Ok(None);
        }
        let bytes = self.reader.entry(index)?;
        let entry =
            Entry::decode(&bytes).map_err(|error| LookupError::Storage(format!("entry {index}: {error}")))?;
        if entry.kind() != Some(Kind::KeyEpoch) || entry.content().epoch != epoch {
            return Ok(None);
        }
        Ok(Some(EpochEvidence { index, leaf_hash: entry.leaf_hash(), bytes }))
    }

    fn remember(&self, epoch: u64, evidence: EpochEvidence) -> Arc<EpochEvidence> {
        let mut known = self.cache();
        // A box that rotates often for years must not remember every epoch; 4096 are a megabyte or two.
        if known.len() >= 4_096 {
            known.clear();
        }
        let evidence = Arc::new(evidence);
        known.insert(epoch, evidence.clone());
        evidence
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<EpochEvidence>>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn hint_name(epoch: u64) -> String {
    format!("epoch-{epoch}")
}

/// The next epoch, endorsed and ready.
pub struct PreparedEpoch {
    /// What is endorsed.
    pub statement: EpochStatement,
    /// By whom.
    pub endorsement: Endorsement,
    /// The key.
    pub key: SealingKey,
    /// Where it lives.
    pub residency: Residency,
    /// What signs time-stamp tokens, if the box makes any.
    pub stamper: Option<Stamper>,
}

/// Makes the keys of epochs.
pub struct Workshop {
    /// The device.
    pub keys: KeyService,
    /// Where sealing keys live.
    pub residency: Residency,
    /// Certifies the keys that sign time-stamp tokens; `None` when the box makes none.
    pub certifier: Option<Certifier>,
}

/// Why an epoch is not ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The device does not make or endorse the keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The box's CA does not certify the one for time stamps.
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
}

impl Workshop {
    /// Makes the keys of epoch `number`, which follows the key-epoch entry with leaf hash `previous`,
    /// and has the device vouch for them.
    pub fn prepare(&self, origin: &str, number: u64, previous: Hash) -> Result<PreparedEpoch, PrepareError> {
        let (keys, residency) = (&self.keys, self.residency);
        let key = match residency {
            Residency::Tpm => SealingKey::Device(keys.clone()),
            Residency::TpmEndorsedRam | Residency::Software => SealingKey::Ram(EpochKey::generate()?),
        };
        let mut statement = body::epoch_statement(origin, number, Some(previous), &key, residency, keys);
        let stamper = self.certifier.as_ref().map(|certifier| Stamper::make(certifier, origin, number));
        let stamper = stamper.transpose()?;
        statement.keys.extend(stamper.as_ref().map(|stamper| stamper.epoch_key(residency)));
        let endorsement = body::endorse(keys, &statement)?;
        Ok(PreparedEpoch { statement, endorsement, key, residency, stamper })
    }
}

impl PreparedEpoch {
    /// The body of its key-epoch entry at `first_index`.
    pub fn body(&self, first_index: u64, extended: bool, predecessor: Option<Vec<u8>>) -> KeyEpochBody {
        KeyEpochBody {
            statement: self.statement.clone(),
            first_index,
            previous_extended: extended,
            endorsement: self.endorsement.clone(),
            predecessor: predecessor.map(Into::into),
            enrolment: None,
        }
    }
}
