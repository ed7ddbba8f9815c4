//! The clock of a box against what authorities prove: how far outside its proven interval the local time of an entry lies,
//! and whether the uncertainty that the box stated covers that.
//!
//! Refuses to do: call a clock right; inside an interval nobody knows.
//! Invariant: memory is bounded, however long the log is: beyond a second, distances are counted to three digits.

use crate::config::BoxConfig;
use crate::finding::{Finding, Kind};
use crate::hub::{Hub, HubError};
use crate::order::{Merged, Query, Row};
use crate::progress::Progress;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is found of one box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// Entries.
    pub entries: u64,
    /// Of them, those with a proven bound.
    pub bounded: u64,
    /// Of these, those whose stated uncertainty covers the distance.
    pub held: u64,
    /// Those whose stated uncertainty does not.
    pub broken: u64,
    /// Those that state none, and lie outside.
    pub unstated: u64,
    /// The first broken one.
    pub first_broken: Option<u64>,
    /// The largest distance, milliseconds, and its entry.
    pub worst: (u64, u64),
    distances: BTreeMap<u64, u64>,
}

/// How far the local time lies outside the interval.
fn distance(row: &Row) -> u64 {
    let local = row.local.unix_millis;
    let early = row.after.map_or(0, |after| after.saturating_sub(local));
    let late = row.before.map_or(0, |before| local.saturating_sub(before));
    early.max(late)
}

fn rounded(millis: u64) -> u64 {
    let mut unit = 1;
    while millis / unit >= 1_000 {
        unit *= 10;
    }
    millis / unit * unit
}

impl Drift {
    fn take(&mut self, row: &Row) {
        self.entries += 1;
        if row.after.is_none() && row.before.is_none() {
            return;
        }
        self.bounded += 1;
        let outside = distance(row);
        *self.distances.entry(rounded(outside)).or_default() += 1;
        if outside > self.worst.0 {
            self.worst = (outside, row.place.index);
        }
        match row.local.uncertainty_millis {
            Some(stated) if stated < outside => {
                self.broken += 1;
                self.first_broken = self.first_broken.or(Some(row.place.index));
            }
            None if outside > 0 => self.unstated += 1,
            _ => self.held += 1,
        }
    }

    /// The distance that half of the bounded entries do not exceed.
    pub fn median(&self) -> Option<u64> {
        let mut seen = 0;
        self.distances.iter().find_map(|(distance, count)| {
            seen += count;
            (seen * 2 >= self.bounded).then_some(*distance)
        })
    }

    /// For people.
    pub fn sentence(&self, name: &str) -> String {
        let Some(median) = self.median() else {
            return format!("{name}: {} entries, none with a proven bound", self.entries);
        };
        format!(
            "{name}: {} of {} entries have a proven bound; the box's clock was outside by {median} ms (median), {} ms at \
             most (entry {}); its uncertainty held for {}, did not for {}, was not stated where it was outside for {}",
            self.bounded, self.entries, self.worst.0, self.worst.1, self.held, self.broken, self.unstated
        )
    }

    /// For machines.
    pub fn to_json(&self, name: &str) -> Value {
        json!({
            "box": name,
            "entries": self.entries,
            "bounded": self.bounded,
            "held": self.held,
            "broken": self.broken,
            "unstated": self.unstated,
            "outsideMillisP50": self.median(),
            "outsideMillisMax": (self.bounded > 0).then_some(self.worst.0),
            "firstBroken": self.first_broken,
        })
    }

    /// That the stated uncertainty did not hold.
    pub fn findings(&self, origin: &str) -> Vec<Finding> {
        let Some(first) = self.first_broken else { return Vec::new() };
        let detail = format!(
            "the box's clock was further off than it said for {} entries from {first} on, by {} ms at most",
            self.broken, self.worst.0
        );
        vec![Finding::new(Kind::Clock, origin, "uncertainty", detail)]
    }
}

/// Reads the whole log of a box.
pub fn of(hub: &Hub, branch: &BoxConfig, progress: &Progress) -> Result<Drift, HubError> {
    let query = Query { origin: Some(branch.origin.clone()), ..Query::default() };
    let mut merged = Merged::new(hub, &query)?;
    let size = match hub.index.known(&branch.origin)? {
        Some(id) => hub.index.state(id)?.progress,
        None => 0,
    };
    let bar = progress.bar(&branch.name, 0, size);
    let mut drift = Drift::default();
    while let Some(row) = merged.next()? {
        drift.take(&row);
        if let Some(bar) = &bar
            && drift.entries.is_multiple_of(1_024)
        {
            bar.set_position(drift.entries);
        }
    }
    Ok(drift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::entry::LocalTime;
    use bulla_formats::hash::Hash;
    use bulla_protocol::gossip::merge::Place;

    fn row(index: u64, local: u64, stated: Option<u64>, after: Option<u64>, before: Option<u64>) -> Row {
        Row {
            place: Place { lamport: index + 1, origin: "o".into(), index },
            kind: 0,
            leaf: Hash([0; 32]),
            local: LocalTime { unix_millis: local, uncertainty_millis: stated },
            after,
            before,
        }
    }

    #[test]
    fn a_clock_is_judged_by_what_is_proven_and_what_it_said() {
        let mut drift = Drift::default();
        for row in [
            row(0, 500, Some(1), None, None),
            row(1, 500, Some(0), Some(400), Some(600)),
            row(2, 390, Some(10), Some(400), None),
            row(3, 389, Some(10), Some(400), None),
            row(4, 620, None, None, Some(600)),
            row(5, 2_234_567, Some(5), None, Some(1_000_000)),
        ] {
            drift.take(&row);
        }
        assert_eq!((drift.entries, drift.bounded), (6, 5));
        assert_eq!((drift.held, drift.broken, drift.unstated), (2, 2, 1));
        assert_eq!((drift.first_broken, drift.worst), (Some(3), (1_234_567, 5)));
        assert_eq!(drift.median(), Some(11));
        assert_eq!(drift.distances.keys().next_back(), Some(&1_230_000), "three digits");
        assert_eq!(drift.findings("o").len(), 1);
        assert!(Drift::default().findings("o").is_empty() && Drift::default().median().is_none());
    }
}
