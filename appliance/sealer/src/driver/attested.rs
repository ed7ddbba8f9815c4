//! What looking through the log for attestations has found, so that nothing is looked for twice.
//!
//! Entries made before this start are looked for from the seal on; a busy minute can stand between a seal and its
//! attestation. What covers a seal covers the seals between it and the head as well, because no attestation in between
//! covered even the first of them.
//! Refuses to do: read the log.
//! Invariant: pieces do not overlap; there are no more of them than attestations looked at, and one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Pieces of the log: first entry, to the end and the attestation that covers the piece; `None` when there is none in the
/// log as it was at this start.
#[derive(Debug, Default)]
pub struct Found(Mutex<BTreeMap<u64, (u64, Option<u64>)>>);

impl Found {
    /// What is known of the entry at `index`: nothing, or what looking for its attestation has found.
    pub fn of(&self, index: u64) -> Option<Option<u64>> {
        let pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, (end, attestation)) = pieces.range(..=index).next_back()?;
        (index < *end).then_some(*attestation)
    }

    /// Looking from `index` has found this attestation, of a head of `end` entries; or none up to `end`.
    pub fn found(&self, index: u64, end: u64, attestation: Option<u64>) {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A piece of the same end began later.
        pieces.retain(|first, (known, _)| *known != end || *first < index);
        if pieces.range(..=index).next_back().is_none_or(|(_, (known, _))| *known <= index) {
            pieces.insert(index, (end, attestation));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_covers_an_entry_covers_those_up_to_the_head_and_no_others() {
        let found = Found::default();
        found.found(50, 100, Some(103));
        assert_eq!((found.of(49), found.of(50), found.of(99)), (None, Some(Some(103)), Some(Some(103))));
        assert_eq!(found.of(100), None, "the head ends there");
        found.found(20, 100, Some(103));
        assert_eq!((found.of(19), found.of(20), found.of(60)), (None, Some(Some(103)), Some(Some(103))));
        assert_eq!(found.0.lock().unwrap().len(), 1, "one piece an attestation");
    }

    #[test]
    fn nothing_found_is_remembered_too_and_pieces_do_not_mix() {
        let found = Found::default();
        found.found(120, 200, None);
        found.found(10, 100, Some(103));
        assert_eq!((found.of(130), found.of(99), found.of(110)), (Some(None), Some(Some(103)), None));
        // Two readers looked at the same time; the later start tells nothing new.
        found.found(30, 100, Some(103));
        assert_eq!(found.of(15), Some(Some(103)));
        assert_eq!(found.0.lock().unwrap().len(), 2);
    }
}
