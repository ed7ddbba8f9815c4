//! What the log says about modes: the part of the machine's state that a restart brings back.
//!
//! The machine changes its record only when an entry is durable, by the very functions with which a restart reads
//! entries: running on and starting again cannot differ.

use super::{Manifest, ModeChange, OutageRecord, Stage};
use bulla_formats::entry::Mode;

/// What the log says about modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeRecord {
    /// The mode in force.
    pub mode: Mode,
    /// The mode that would be in force if nothing forced `safe`.
    pub below: Mode,
    /// Whether entries are marked as belonging to a drill.
    pub drill: bool,
    /// Outages so far; the newest one has this number.
    pub outages: u64,
    /// The outage under way or being reconciled.
    pub outage: Option<OutageRecord>,
}

impl ModeRecord {
    /// The record of a log without a mode change.
    pub fn new(mode: Mode) -> Self {
        ModeRecord { mode, below: mode, drill: false, outages: 0, outage: None }
    }

    /// The mode in which a log begins: nothing has been reached yet.
    pub fn first_mode(has_authorities: bool) -> Mode {
        if has_authorities { Mode::Degraded } else { Mode::AirGapped }
    }

    /// A mode change is in the log. Whoever reads a log may begin with its newest one.
    pub fn changed(&mut self, index: u64, change: &ModeChange) {
        self.mode = change.to;
        self.below = change.below;
        self.drill = change.drill;
        let seals =
            self.outage.as_ref().filter(|_| self.outages == change.outages).map_or(0, |outage| outage.seals);
        self.outages = change.outages;
        self.outage = change.outage.clone();
        if let Some(outage) = &mut self.outage {
            outage.first = outage.first.or(Some(index));
            // Seals may have been logged while the change was on its way.
            outage.seals = outage.seals.max(seals);
            if self.below == Mode::Reconciling {
                outage.last = outage.last.or(Some(index.saturating_sub(1)));
            }
        }
    }

    /// A manifest is in the log.
    pub fn manifested(&mut self, index: u64, manifest: &Manifest) {
        let Some(outage) = &mut self.outage else { return };
        match manifest.stage {
            Stage::Opening | Stage::Refresh => outage.manifests = manifest.number + 1,
            Stage::Closing => outage.closing = outage.closing.or(Some(index)),
        }
    }

    /// Seals are in the log.
    pub fn sealed(&mut self, count: u64) {
        if self.below == Mode::Emergency
            && let Some(outage) = &mut self.outage
        {
            outage.seals = outage.seals.saturating_add(count);
        }
    }
}
