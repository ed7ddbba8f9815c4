//! The part of an entry's audit that needs nothing of the entries right before it: read, hashed, its signature checked.
//! Any thread may do it for any entry, while one goes through the log in order.
//!
//! Refuses to do: decide. What was found beforehand is the same as what would be found in order, or is not used.
//! Invariant: a signature counts only under the key-epoch entry under which it was checked.

use super::{AuditError, LogAuditor};
use crate::der::DerError;
use crate::entry::{Entry, Kind};
use crate::hash::{Hash, leaf_hash};
use crate::sig::SignatureError;

/// An entry as [`LogAuditor::read_ahead`] found it.
#[derive(Debug, Clone)]
pub struct ReadAhead {
    pub(super) leaf: Hash,
    pub(super) entry: Result<Entry, DerError>,
    /// The key-epoch entry whose key was tried, and what came of it.
    pub(super) signature: Option<(Hash, Result<(), SignatureError>)>,
}

impl ReadAhead {
    /// Its leaf hash.
    pub fn leaf_hash(&self) -> Hash {
        self.leaf
    }

    /// What is known of the signature by the key of the epoch that began with `epoch`.
    pub(super) fn signature_under(&self, epoch: &Hash) -> Option<Result<(), SignatureError>> {
        self.signature.as_ref().filter(|(of, _)| of == epoch).map(|(_, found)| *found)
    }
}

impl LogAuditor {
    /// Reads an entry that stands somewhere ahead, under the key of the epoch in force now. Where another epoch begins
    /// before it, its signature is checked again in order.
    pub fn read_ahead(&self, bytes: &[u8]) -> ReadAhead {
        let entry = Entry::decode(bytes);
        let signature = match (&entry, &self.epoch) {
            (Ok(entry), Some(epoch))
                if entry.kind() != Some(Kind::KeyEpoch) && entry.content().epoch == epoch.number =>
            {
                let found = entry.verify_signature(self.origin.as_str(), &epoch.key);
                Some((epoch.leaf_hash, found))
            }
            _ => None,
        };
        ReadAhead { leaf: leaf_hash(bytes), entry, signature }
    }

    /// Judges the next entry as [`LogAuditor::entry`] does, going by what was found ahead.
    pub fn take(&mut self, ahead: ReadAhead) -> Result<Entry, AuditError> {
        let (leaf, index) = (ahead.leaf, self.size());
        let judged = self.judge(index, ahead);
        let is_seal = judged.as_ref().is_ok_and(|entry| entry.kind() == Some(Kind::Seal));
        self.append(leaf, is_seal);
        self.summary.entries += 1;
        judged
    }
}
