//! The same bytes in the copies of other boxes' logs: whoever seals them again is told where they were sealed before.
//!
//! The neighbours' thread hands out readers of the copies; whoever asks reads through them, and never waits for a write to
//! a copy. Refuses to do: keep a box from sealing, whatever is wrong with a copy; believe a look-up that the entry itself
//! does not confirm.
//! Invariant: at most [`COPIES_MAX`] copies are held open for it, those used first.

use super::desk::Desk;
use crate::driver::{LookupError, Shared};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::body::seal::{DocumentDigest, SealBody};
use bulla_formats::enrolment::Enrolment;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::Hash;
use bulla_formats::note::{SignedNote, checkpoint_text, log_line, quote_line};
use bulla_formats::seal_file::{Head, SealFile};
use bulla_ledger::{Mirror, ReadError, Reader, References};
use std::sync::{Arc, PoisonError};

/// Copies that are looked through for every seal.
const COPIES_MAX: usize = 16;
/// Entries looked through for an attestation that covers a seal.
const ATTESTED_WITHIN: u64 = 100_000;

/// What an entry of a mirrored log is to its copy: it names no objects, and a seal is found by its document.
#[derive(Debug, Clone, Copy)]
pub struct Documents;

impl References for Documents {
    fn version(&self) -> u32 {
        1
    }

    fn of(&self, _: &[u8]) -> Vec<Hash> {
        Vec::new()
    }

    fn digest(&self, entry: &[u8]) -> Option<(u8, Vec<u8>)> {
        let body = seal(&Entry::decode(entry).ok()?)?;
        Some((body.algorithm as u8, body.digest.to_vec()))
    }
}

fn seal(entry: &Entry) -> Option<SealBody> {
    (entry.kind() == Some(Kind::Seal)).then(|| SealBody::decode(&entry.content().body).ok()).flatten()
}

/// A copy that may be looked through.
pub type Searched = (Arc<str>, Reader);

/// A seal in the copy of another box's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// That log.
    pub origin: String,
    /// Its entry.
    pub index: u64,
    /// The entry's leaf hash.
    pub leaf_hash: Hash,
    /// When, by that box's clock.
    pub sealed_at: u64,
}

impl Desk {
    /// From now on a copy is looked through, as it is and as it grows.
    pub(super) fn search_in(&self, origin: &str) {
        let Some(mirror) = self.mirrors.get(origin) else { return };
        let mut searched = self.shared.searched.write().unwrap_or_else(PoisonError::into_inner);
        let place = searched.iter().position(|(name, _)| **name == *origin);
        if place.is_none() && searched.len() >= COPIES_MAX {
            return;
        }
        let Ok(reader) = mirror.reader() else { return };
        match place {
            Some(at) => searched[at].1 = reader,
            None => searched.push((Arc::from(origin), reader)),
        }
    }
}

impl Shared {
    /// Seals of these bytes in copies of other boxes' logs, the latest first; what cannot be read is not told.
    pub(in crate::driver) fn elsewhere(&self, digest: &DocumentDigest, limit: usize) -> Vec<Elsewhere> {
        let searched = self.searched.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = Vec::new();
        for (origin, reader) in &searched {
            match look(origin, reader, digest, limit) {
                Ok(seals) => found.extend(seals),
                Err(error) => log::warn!("the copy of {origin} is not looked through: {error}"),
            }
        }
        found.sort_by(|a, b| (b.sealed_at, &a.origin, b.index).cmp(&(a.sealed_at, &b.origin, a.index)));
        found.truncate(limit);
        found
    }
}

fn look(
    origin: &Arc<str>,
    reader: &Reader,
    digest: &DocumentDigest,
    limit: usize,
) -> Result<Vec<Elsewhere>, ReadError> {
    let mut found = Vec::new();
    for index in reader.find_digest(digest.algorithm as u8, &digest.value, limit)? {
        let Ok(entry) = Entry::decode(&reader.entry(index)?) else { continue };
        let same = seal(&entry).is_some_and(|body| body.document_digest() == *digest);
        if same {
            let (leaf_hash, sealed_at) = (entry.leaf_hash(), entry.content().time.unix_millis);
            found.push(Elsewhere { origin: origin.to_string(), index, leaf_hash, sealed_at });
        }
    }
    Ok(found)
}

/// The `.seal` file of an entry of a copy, with what the copy itself has for it: its newest head, and the first attested
/// one. Openings never left the other box; anchors and the rest are a hub's to add.
pub fn seal_file(mirror: &Mirror, index: u64) -> Result<SealFile, LookupError> {
    let damaged = |what: String| LookupError::Storage(format!("the copy of {}: {what}", mirror.origin()));
    let reader = mirror.reader().map_err(|error| damaged(error.to_string()))?;
    let standing = mirror.standing();
    let head = standing.head.filter(|head| head.tree.size <= reader.size() && index < head.tree.size);
    let head = head.ok_or(LookupError::Unknown)?;
    let note = String::from_utf8(head.note).map_err(|error| damaged(error.to_string()))?;
    let read = |index: u64| -> Result<Entry, LookupError> {
        Entry::decode(&reader.entry(index)?).map_err(|error| damaged(format!("entry {index}: {error}")))
    };
    let entry = read(index)?;
    if seal(&entry).is_none() {
        return Err(LookupError::NotASeal);
    }
    let first = KeyEpochBody::decode(&read(0)?.content().body).map_err(|error| damaged(error.to_string()))?;
    let enrolment =
        first.enrolment.ok_or_else(|| damaged("its first entry has no enrolment".to_owned()))?.to_vec();
    let mut epoch = None;
    for candidate in (0..index).rev() {
        let candidate = read(candidate)?;
        if candidate.kind() == Some(Kind::KeyEpoch) && candidate.content().epoch == entry.content().epoch {
            epoch = Some(candidate);
            break;
        }
    }
    let epoch = epoch.ok_or_else(|| damaged(format!("no key epoch of entry {index} is there")))?;
    let proof = |of: u64, size: u64| -> Result<Vec<Vec<u8>>, LookupError> {
        Ok(reader.inclusion_proof(of, size)?.iter().map(|hash| hash.0.to_vec()).collect())
    };
    let under = |checkpoint: String, size: u64, pcrs| -> Result<Head, LookupError> {
        let (entry_proof, epoch_proof) = (proof(index, size)?, proof(epoch.content().index, size)?);
        Ok(Head { checkpoint, entry_proof, epoch_proof, pcrs })
    };
    let mut heads = vec![under(note, head.tree.size, None)?];
    let parsed = Enrolment::decode(&enrolment).map_err(|error| damaged(error.to_string()))?;
    for candidate in index + 1..reader.size().min(index + ATTESTED_WITHIN) {
        let candidate = read(candidate)?;
        let body = match candidate.kind() {
            Some(Kind::Attestation) => AttestationBody::decode(&candidate.content().body).ok(),
            _ => None,
        };
        let Some(body) = body.filter(|body| body.head.size > index && body.head.size <= reader.size()) else {
            continue;
        };
        if let (Some(quote), Ok(signature)) =
            (&body.quote, <&[u8; 64]>::try_from(body.log_signature.as_ref()))
        {
            let (origin, keys) = (mirror.origin(), &parsed.content);
            let note = SignedNote {
                text: checkpoint_text(origin, body.head.size, &body.head.root()),
                lines: vec![
                    log_line(origin, &keys.log_key, signature),
                    quote_line(origin, &keys.attestation_key, &quote.attest, &quote.signature),
                ],
            };
            heads.push(under(note.encode(), body.head.size, Some(quote.pcr_values()))?);
            break;
        }
    }
    let evidence = entry.content().evidence.as_ref().map(|named| reader.entry(named.index)).transpose()?;
    Ok(SealFile {
        origin: mirror.origin().to_owned(),
        entry: entry.bytes().to_vec(),
        epoch: epoch.bytes().to_vec(),
        enrolment,
        heads,
        openings: Vec::new(),
        erasures: Vec::new(),
        anchors: Vec::new(),
        cosignatures: Vec::new(),
        evidence,
        crls: Vec::new(),
        manifests: Vec::new(),
        revocations: Vec::new(),
        unknown: serde_json::Map::new(),
    })
}
