//! An audit laid aside and taken up again: what a [`LogAuditor`] knows as bytes, for programs that follow a log for years.
//!
//! Refuses to do: take up an audit of another log, or under a trust file that does not vouch for its beginning any more.
//! Invariants: an audit that was laid aside and taken up judges every entry as one that never was; the bytes are trusted as
//! much as whoever keeps them, and are private to the program that wrote them.

use super::outages::SavedOutages;
use super::{AuditError, AuditSummary, Epoch, LogAuditor};
use crate::body::key_epoch::KeyEpochBody;
use crate::der::{self, DerError, Octets32};
use crate::endorsement::check_statement;
use crate::entry::{Entry, EntryRef, TreeState};
use crate::hash::Hash;
use crate::merkle::Frontier;
use crate::origin::Origin;
use crate::trust::TrustFile;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::collections::BTreeMap;

/// Largest saved audit: an outage of a million batches.
const SAVED_BYTES_MAX: usize = 128 << 20;
const WHAT: &str = "saved audit";

#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
struct Count {
    kind: u16,
    entries: u64,
}

#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
struct Saved {
    version: u64,
    origin: String,
    size: u64,
    peaks: Vec<Octets32>,
    batch: TreeState,
    lamport: u64,
    evidence: Vec<EntryRef>,
    self_tests: Vec<EntryRef>,
    attested_head: u64,
    kinds: Vec<Count>,
    attested_size: u64,
    outages: SavedOutages,
    /// The enrolment in entry 0.
    #[rasn(tag(context, 0))]
    enrolment: Option<OctetString>,
    /// The key-epoch entry in force.
    #[rasn(tag(context, 1))]
    epoch: Option<OctetString>,
    #[rasn(tag(context, 2))]
    counter: Option<u64>,
    #[rasn(tag(context, 3))]
    counter_index: Option<OctetString>,
    /// TRUE behind a final entry, else absent.
    #[rasn(tag(context, 4))]
    ended: Option<bool>,
}

/// Why a saved audit cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The bytes are no saved audit, or contradict themselves.
    #[error(transparent)]
    Der(#[from] DerError),
    /// The log's beginning is not vouched for (any more).
    #[error(transparent)]
    Beginning(#[from] AuditError),
}

impl LogAuditor {
    /// The audit as bytes, but for the boundaries: those only ever grow, see [`LogAuditor::boundaries_after`].
    pub fn save(&self) -> Vec<u8> {
        let octets = |hash: &Hash| Octets32::new(hash.0);
        let refs = |map: &BTreeMap<u64, Hash>| {
            map.iter().map(|(index, leaf)| EntryRef { index: *index, leaf_hash: octets(leaf) }).collect()
        };
        let summary = &self.summary;
        der::encode(&Saved {
            version: 1,
            origin: self.origin.to_string(),
            size: self.size(),
            peaks: self.frontier.peaks().iter().map(octets).collect(),
            batch: TreeState::new(self.batch.0, self.batch.1),
            lamport: self.lamport,
            evidence: refs(&self.evidence),
            self_tests: refs(&self.self_tests),
            attested_head: self.attested_head,
            kinds: summary
                .kinds
                .iter()
                .map(|(kind, entries)| Count { kind: *kind, entries: *entries })
                .collect(),
            attested_size: summary.attested_size,
            outages: self.outages.save(),
            enrolment: self.identity.as_ref().map(|identity| identity.enrolment.clone().into()),
            epoch: self.epoch.as_ref().map(|epoch| epoch.entry.clone().into()),
            counter: summary.counter,
            counter_index: self.counter_index.clone().map(Into::into),
            ended: self.ended.then_some(true),
        })
    }

    /// Sizes and roots between batches beyond `size`, oldest first.
    pub fn boundaries_after(&self, size: u64) -> impl Iterator<Item = (u64, Hash)> + '_ {
        let first = self.boundaries.partition_point(|boundary| boundary.0 <= size);
        self.boundaries.range(first..).copied()
    }

    /// Size of the oldest boundary that is remembered: rows of older ones are of no use any more.
    pub fn oldest_boundary(&self) -> u64 {
        self.boundaries.front().map_or(0, |boundary| boundary.0)
    }

    /// Takes an audit up again: `saved` and the newest [`super::BOUNDARIES_MAX`] boundaries at most, oldest first.
    pub fn resume(
        origin: Origin,
        trust: Option<&TrustFile>,
        saved: &[u8],
        boundaries: impl IntoIterator<Item = (u64, Hash)>,
    ) -> Result<Self, ResumeError> {
        let range = |reason| Err(DerError::Range { what: WHAT, reason }.into());
        let saved: Saved = der::decode(WHAT, saved, SAVED_BYTES_MAX)?;
        if saved.version != 1 || saved.origin != origin.as_str() {
            return range("it is of another version or another log");
        }
        let peaks = saved.peaks.iter().map(|hash| Hash(**hash)).collect();
        let Some(frontier) = Frontier::from_peaks(saved.size, peaks) else {
            return range("its tree does not add up");
        };
        let refs = |list: &[EntryRef]| -> BTreeMap<u64, Hash> {
            list.iter().map(|entry| (entry.index, Hash(*entry.leaf_hash))).collect()
        };
        let mut auditor = LogAuditor::new(origin, trust);
        auditor.frontier = frontier;
        auditor.batch = (saved.batch.size, saved.batch.root());
        auditor.boundaries = boundaries.into_iter().collect();
        let ascending = auditor.boundaries.iter().is_sorted_by(|a, b| a.0 < b.0);
        if !ascending || auditor.boundaries.back() != Some(&auditor.batch) {
            return range("its boundaries are not those that belong to it");
        }
        auditor.lamport = saved.lamport;
        auditor.evidence = refs(&saved.evidence);
        auditor.self_tests = refs(&saved.self_tests);
        auditor.attested_head = saved.attested_head;
        auditor.ended = saved.ended == Some(true);
        auditor.counter_index = saved.counter_index.map(|name| name.to_vec());
        auditor.summary = AuditSummary {
            entries: saved.size,
            kinds: saved.kinds.iter().map(|count| (count.kind, count.entries)).collect(),
            attested_size: saved.attested_size,
            counter: saved.counter,
        };
        let Some(outages) = super::outages::Outages::resume(saved.outages) else {
            return range("its outage does not add up");
        };
        auditor.outages = outages;
        if let Some(enrolment) = saved.enrolment {
            auditor.identity = Some(auditor.enrolled(&enrolment)?);
        }
        if let (Some(bytes), Some(identity)) = (saved.epoch, &auditor.identity) {
            let entry = Entry::decode(&bytes)?;
            let body = KeyEpochBody::decode(&entry.content().body)?;
            let key = check_statement(&entry, &body, auditor.origin.as_str(), identity.hardware)
                .map_err(AuditError::from)?;
            auditor.epoch = Some(Epoch::new(&body, key, &entry));
        }
        Ok(auditor)
    }
}
