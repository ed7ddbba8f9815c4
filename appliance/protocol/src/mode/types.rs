//! What goes into the mode machine and what comes out of it.

use crate::authority::{Authority, Failure, Finding};
use bulla_formats::entry::Mode;

/// What the mode machine goes by. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeConfig {
    /// Whose answers count. None: the box is air-gapped, and nothing is expected to be reachable.
    pub authorities: Vec<Authority>,
    /// No authority for this long is an outage. Every authority must be probed several times in it: silence for as
    /// long counts as failure.
    pub outage_after: u64,
    /// An authority failing for this long is down.
    pub degraded_after: u64,
    /// One answering for this long is up again, and an outage is over.
    pub recover_after: u64,
    /// How often the manifest is refreshed while an outage lasts.
    pub refresh_every: u64,
    /// What an outage may cost before somebody has to look.
    pub limits: Limits,
}

impl Default for ModeConfig {
    fn default() -> Self {
        ModeConfig {
            authorities: Vec::new(),
            outage_after: 60_000,
            degraded_after: 30_000,
            recover_after: 30_000,
            refresh_every: 900_000,
            limits: Limits::default(),
        }
    }
}

/// How far a box goes on by itself in an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Longest outage.
    pub duration: Option<u64>,
    /// Most seals in an outage.
    pub seals: Option<u64>,
    /// Fewest peers that hold copies; 0 asks for none.
    pub holders: u32,
    /// What happens at a limit.
    pub at_limit: AtLimit,
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtLimit {
    /// Seal on; manifests and mode changes say that the limit was reached.
    #[default]
    Continue,
    /// Refuse new seals until the outage is over. Never in a drill, which must cost no seal.
    Safe,
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Of duration.
    Duration,
    /// Of seals.
    Seals,
    /// Of peers that hold copies. The only one that may be left again within an outage.
    Holders,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeEvent {
    /// Time has passed.
    Tick,
    /// An authority (its place in the configuration) gave a verified answer, or failed to.
    Probed {
        /// Which one.
        authority: usize,
        /// What came of it.
        result: Result<(), Failure>,
    },
    /// Seals are in the log.
    Sealed {
        /// How many.
        count: u64,
    },
    /// An operator has locked (true) or unlocked the box.
    Locked(bool),
    /// Whether the state on disk may be older than what the box has signed. Nothing is logged while it may.
    RollbackSuspected(bool),
    /// The tree of this size is anchored by as many operators as policy asks for; less than before when anchors turned
    /// out to count for nothing.
    Anchored {
        /// The size.
        size: u64,
    },
    /// So many peers hold copies of the log.
    Holders {
        /// How many.
        count: u32,
    },
    /// A verified lease: a hub counts as reachable until it expires.
    Lease {
        /// Milliseconds until then.
        expires_in: u64,
        /// Most seals under it.
        seals: Option<u64>,
    },
    /// From now on these limits hold, in an outage under way too.
    Limits(Limits),
    /// Treat every authority as unreachable for a while.
    DrillStart {
        /// For so many milliseconds.
        millis: u64,
    },
    /// End the drill.
    DrillStop,
    /// What an effect asked to append is durable, at this index.
    Logged {
        /// The effect's ticket.
        ticket: u64,
        /// The entry's index.
        index: u64,
    },
    /// It is certain that it is not in the log.
    NotLogged {
        /// The effect's ticket.
        ticket: u64,
    },
    /// It was not certain, and this is what the log says, read again.
    Reread(super::ModeRecord),
}

/// What is to be done. Every effect with a ticket is answered by [`ModeEvent::Logged`], [`ModeEvent::NotLogged`] or
/// [`ModeEvent::Reread`]; there is at most one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeEffect {
    /// Append a `mode-change` entry; this entry is the first in the new mode.
    LogModeChange {
        /// Names it in the answer.
        ticket: u64,
        /// What it says.
        change: ModeChange,
    },
    /// Append a `manifest` entry.
    LogManifest {
        /// Names it in the answer.
        ticket: u64,
        /// What it says.
        manifest: Manifest,
    },
    /// Tell people: a limit was reached, once for each limit and outage.
    LimitReached {
        /// Which one.
        limit: Limit,
        /// In which outage.
        outage: u64,
        /// Whether that outage is a drill.
        drill: bool,
    },
    /// Tell people: the drill is over.
    DrillEnded(DrillEnd),
    /// Tell whoever asked: there will be no drill now.
    DrillRefused(DrillRefusal),
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillEnd {
    /// Its time was over.
    Over,
    /// Somebody stopped it.
    Stopped,
    /// No authority is reachable in earnest.
    RealOutage,
}

/// Why there is no drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillRefusal {
    /// No authority is configured: there is nothing to lose.
    AirGapped,
    /// An outage, or its reconciliation, is under way.
    OutageUnderWay,
    /// A drill is.
    DrillUnderWay,
    /// A rollback is suspected.
    RollbackSuspected,
}

/// What a `mode-change` entry says. With the manifests after it, the newest one is all that a restart must read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange {
    /// The mode before.
    pub from: Mode,
    /// The mode from this entry on.
    pub to: Mode,
    /// The mode that would be in force if nothing forced `safe`; else the same as `to`.
    pub below: Mode,
    /// Whether this entry and those after it belong to a drill.
    pub drill: bool,
    /// Outages so far in this log, with the one that begins here.
    pub outages: u64,
    /// The outage under way or being reconciled.
    pub outage: Option<OutageRecord>,
    /// Whether an operator has locked the box.
    pub locked: bool,
    /// Limits reached.
    pub limits: Vec<Limit>,
    /// Which authorities do not answer, and how they fail.
    pub findings: Vec<Finding>,
}

/// What the log says of an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutageRecord {
    /// Index of the mode change that began it; `None` in that very entry.
    pub first: Option<u64>,
    /// How long it has lasted, or lasted in all, in milliseconds.
    pub elapsed: u64,
    /// Seals in it.
    pub seals: u64,
    /// Manifests logged, without the closing one.
    pub manifests: u64,
    /// Index of the last entry of the outage; `None` while it lasts, and in the mode change that ends it.
    pub last: Option<u64>,
    /// Index of the closing manifest.
    pub closing: Option<u64>,
}

/// Which manifest it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The outage has begun.
    Opening,
    /// It lasts.
    Refresh,
    /// It is over; exactly one for each outage.
    Closing,
}

/// What a `manifest` entry says, as far as the machine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which one.
    pub stage: Stage,
    /// Number of the outage: 1, 2, 3 ... in this log.
    pub outage: u64,
    /// Number of the manifest within the outage, from 0.
    pub number: u64,
    /// Whether the outage is a drill.
    pub drill: bool,
    /// Index of the outage's first entry.
    pub first: u64,
    /// Of its last one; `None` while it lasts.
    pub last: Option<u64>,
    /// How long it has lasted, or lasted in all, in milliseconds.
    pub elapsed: u64,
    /// Seals in it.
    pub seals: u64,
    /// Limits reached.
    pub limits: Vec<Limit>,
    /// Which authorities do not answer, and how they fail.
    pub findings: Vec<Finding>,
}
