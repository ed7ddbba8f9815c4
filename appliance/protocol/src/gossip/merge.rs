//! One order for the entries of many logs, the same wherever it is computed: by Lamport time, then log, then index.
//!
//! Refuses to do: tell what happened first. Lamport time only says what cannot have been the other way round.
//! Invariants: merging is commutative, associative and idempotent; the order of each log is kept, because Lamport times
//! grow within a log.

use super::Name;
use bulla_formats::entry::NUMBER_MAX;
use std::cmp::Ordering;

/// Where an entry stands in the order of all logs. The derived order is that order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Lamport time.
    pub lamport: u64,
    /// The log.
    pub origin: Name,
    /// Its index there.
    pub index: u64,
}

/// Merges two lists that are in order and name no entry twice.
pub fn merge(one: &[Place], other: &[Place]) -> Vec<Place> {
    let (mut one, mut other) = (one, other);
    let mut merged = Vec::with_capacity(one.len() + other.len());
    while let (Some(a), Some(b)) = (one.first(), other.first()) {
        let order = a.cmp(b);
        if order != Ordering::Greater {
            merged.push(a.clone());
            one = &one[1..];
        } else {
            merged.push(b.clone());
        }
        if order != Ordering::Less {
            other = &other[1..];
        }
    }
    merged.extend_from_slice(one);
    merged.extend_from_slice(other);
    merged
}

/// The Lamport time that a log goes on from when a neighbour's entry of time `seen` has been stored: never back, and
/// never more than `cap` further at once, so that a liar cannot use up the numbers there are.
pub fn take_over(own: u64, seen: u64, cap: u64) -> u64 {
    own.max(seen.min(own.saturating_add(cap)).min(NUMBER_MAX - 1))
}
