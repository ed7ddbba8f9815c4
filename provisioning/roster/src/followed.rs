//! Which log takes the place of which: what follows from replacements and from the enrolments before or after them.
//!
//! Refuses to do: name a successor whose box has no log of its own yet.
//! Invariant: it follows from the roster alone, so the same version says the same to everybody.

use crate::inventory::{Listed, Tombstone};
use crate::roster::Roster;
use crate::vouched::Held;
use std::collections::BTreeMap;

/// A log that takes the place of a lost one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed<'a> {
    /// The log that ended, its last head, and who cosigned that.
    pub held: &'a Held,
    /// The log that takes its place.
    pub successor: &'a str,
    /// Version of the roster since when both are so.
    pub version: u64,
}

/// The log of the box that took the other's place by `stone`: the one it had then, or the next one it was enrolled with.
fn log_of<'a>(successor: &'a Listed, stone: &Tombstone) -> Option<(&'a str, u64)> {
    let given_up = |origin: &str| {
        let mut before = successor.tombstones.iter().filter(|other| other.version < stone.version);
        before.any(|other| other.revocation.logs.iter().any(|log| log.origin == origin))
    };
    let logs =
        || successor.logs.iter().map(|log| log.origin.as_str()).zip(successor.enrolled_by.iter().copied());
    let then = logs().filter(|(origin, by)| *by < stone.version && !given_up(origin)).last();
    then.or_else(|| logs().find(|(_, by)| *by > stone.version))
}

impl Roster {
    /// Every such step, by the log that ended.
    pub fn successions(&self) -> BTreeMap<&str, Followed<'_>> {
        let mut all = BTreeMap::new();
        for stone in self.inventory().boxes().flat_map(|listed| &listed.tombstones) {
            // The last log is the one that is continued; those before it were continued by it.
            let held = stone.held.last().and_then(Option::as_ref);
            let by = stone.revocation.successor.as_ref().and_then(|ek| self.inventory().get(ek));
            let (Some(held), Some(by)) = (held, by) else { continue };
            let Some((successor, enrolled_by)) = log_of(by, stone) else { continue };
            let version = enrolled_by.max(stone.version);
            all.insert(held.tree.origin.as_str(), Followed { held, successor, version });
        }
        all
    }
}
