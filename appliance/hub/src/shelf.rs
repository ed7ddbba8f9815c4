//! One archived log, read: entries, proofs, the head.
//!
//! Refuses to do: hand out an entry whose bytes do not lead to the archived head.

use crate::archive::ArchivedLog;
use crate::hub::{Hub, HubError};
use crate::tiles::Tiles;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::enrolment::{Enrolment, VerifiedEnrolment};
use bulla_formats::entry::Entry;
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{BuildError, inclusion_proof, verify_inclusion};
use bulla_formats::note::{Checkpoint, SignedNote, parse_checkpoint_text};
use bulla_formats::origin::Origin;
use bulla_formats::tile::width_at;

/// An archived log.
pub struct Shelf {
    /// Its name.
    pub origin: Origin,
    /// Its objects.
    pub log: ArchivedLog,
    /// Who it is.
    pub enrolment: VerifiedEnrolment,
    /// DER of that.
    pub enrolment_der: Vec<u8>,
    /// The archived head as it was signed.
    pub note: String,
    /// The same, verified.
    pub head: Checkpoint,
}

fn damaged(log: &ArchivedLog, path: &str) -> HubError {
    log.damaged(path, "is not what it must be").into()
}

impl Shelf {
    /// Opens the archived log named `origin`; `None` when there is none.
    pub fn open(hub: &Hub, origin: &str) -> Result<Option<Self>, HubError> {
        let log = hub.archive.log(origin);
        let Some(note) = log.get("checkpoint")? else { return Ok(None) };
        let broken = || damaged(&log, "checkpoint");
        let origin = Origin::parse(origin).map_err(|_| broken())?;
        let note = String::from_utf8(note).map_err(|_| broken())?;
        let signed = SignedNote::parse(&note).map_err(|_| broken())?;
        let (_, size, _) = parse_checkpoint_text(&signed.text).map_err(|_| broken())?;
        let first = log.entries(0, width_at(0, 0, size))?;
        let enrolment_der = first
            .first()
            .and_then(|entry| Entry::decode(entry).ok())
            .and_then(|entry| KeyEpochBody::decode(&entry.content().body).ok())
            .and_then(|body| body.enrolment)
            .ok_or_else(|| damaged(&log, "tile/entries/000"))?
            .to_vec();
        let enrolment = Enrolment::decode(&enrolment_der)
            .ok()
            .and_then(|enrolment| enrolment.verify(&hub.trust.fleet, &hub.trust.roots).ok())
            .ok_or_else(|| damaged(&log, "tile/entries/000"))?;
        let (key, content) = (enrolment.log_key(), enrolment.content());
        let head = Checkpoint::open(&signed, &origin, key, &content.log_key, &content.attestation_key);
        let head = head.map_err(|_| broken())?;
        Ok(Some(Shelf { origin, log, enrolment, enrolment_der, note, head }))
    }

    /// Inclusion proof of the entry at `index` in the tree of the first `size` entries.
    pub fn proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, HubError> {
        let tiles = Tiles::new(self.head.size(), |level, tile, width| self.log.hashes(level, tile, width));
        inclusion_proof(index, size, &tiles).map_err(|error| match error {
            BuildError::Reader(error) => error.into(),
            BuildError::Request(error) => HubError::Contradiction(error.to_string()),
        })
    }

    /// The bytes of the entry at `index`, proven to be under the archived head; `None` beyond it.
    pub fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, HubError> {
        if index >= self.head.size() {
            return Ok(None);
        }
        let bundle = self.log.entries(index / 256, width_at(0, index / 256, self.head.size()))?;
        let path = format!("tile/entries of entry {index}");
        let bytes =
            bundle.into_iter().nth((index % 256) as usize).ok_or_else(|| damaged(&self.log, &path))?;
        let proof = self.proof(index, self.head.size())?;
        verify_inclusion(index, self.head.size(), &leaf_hash(&bytes), &proof, &self.head.root())
            .map_err(|_| damaged(&self.log, &path))?;
        Ok(Some(bytes))
    }

    /// An entry that must be there, decoded.
    pub fn decoded(&self, index: u64) -> Result<Entry, HubError> {
        let path = format!("tile/entries of entry {index}");
        let bytes = self.entry(index)?.ok_or_else(|| damaged(&self.log, &path))?;
        Entry::decode(&bytes).map_err(|_| damaged(&self.log, &path))
    }
}
