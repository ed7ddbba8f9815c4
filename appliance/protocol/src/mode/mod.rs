//! In which mode a box is, and what its log says about it.
//!
//! `online` (every authority answers), `degraded` (some are down), `emergency` (none, and no hub, for `outage_after`),
//! `reconciling` (the world is back, the gap is not anchored yet), `air-gapped` (none is configured); `safe` lies on top
//! while an operator has locked the box or a limit is reached, and the outage below goes on being tracked. A suspected
//! rollback lies on top of everything, and nothing is logged while it does: the log may have to be abandoned.
//!
//! The mode in force is what the newest `mode-change` entry says, not what the machine would like it to be; so every
//! entry's mode can be checked against the log itself.
//!
//! Refuses to do: I/O, clocks; guess. A verified answer, or a lease that holds, is reachability; nothing else is, and a
//! stamp by a revoked signer is none. Go back to `reconciling`: an outage that was closed stays closed, though an anchor of
//! it may turn out to count for nothing (the planner has it anchored again).
//! Invariants: outages are numbered 1, 2, 3 ... without gaps; each gets one opening manifest before anything else of
//! it, and one closing manifest before the next outage begins or the mode becomes `online` again; at most one append is
//! under way; a drill ends with the process, and no real outage hides in one.

mod links;
mod record;
mod types;

pub use record::ModeRecord;
pub use types::{
    AtLimit, DrillEnd, DrillRefusal, Limit, Limits, Manifest, ModeChange, ModeConfig, ModeEffect, ModeEvent,
    OutageRecord, Stage,
};

use crate::authority::Finding;
use bulla_formats::entry::Mode;
use links::Links;

/// First pause after an append that failed; doubles up to 64 times this.
const RETRY_MILLIS: u64 = 1_000;

#[derive(Debug, Clone)]
enum Append {
    Change(ModeChange),
    Manifest(Manifest),
}

/// An append under way, and when it was asked for.
#[derive(Debug, Clone)]
struct InFlight {
    ticket: u64,
    asked: u64,
    append: Append,
}

#[derive(Debug, Clone, Copy)]
struct Drill {
    began: u64,
    until: u64,
}

/// The mode machine.
#[derive(Debug, Clone)]
pub struct ModeMachine {
    config: ModeConfig,
    /// The newest time seen.
    now: u64,
    links: Links,
    record: ModeRecord,
    /// When the elapsed time of the record's outage was right.
    elapsed_at: u64,
    /// When the last manifest of the record's outage was logged, as far as this run knows.
    manifested_at: u64,
    /// There is something to say before the next refresh is due: a restart, a limit.
    refresh_now: bool,
    /// Limits that this run has reported of the record's outage.
    reported: Vec<Limit>,
    locked: bool,
    rollback: bool,
    holders: u32,
    anchored: u64,
    drill: Option<Drill>,
    drill_ended: u64,
    in_flight: Option<InFlight>,
    ticket: u64,
    failures: u32,
    retry_at: u64,
}

/// What a status page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeFacts {
    /// The mode in force.
    pub mode: Mode,
    /// The mode below `safe` and `rollback-suspected`.
    pub below: Mode,
    /// Whether entries are marked as belonging to a drill.
    pub drill: bool,
    /// Milliseconds until the drill ends by itself, while one runs.
    pub drill_left: Option<u64>,
    /// Outages so far in this log.
    pub outages: u64,
    /// The outage under way or being reconciled.
    pub outage: Option<OutageRecord>,
    /// Limits reached.
    pub limits: Vec<Limit>,
    /// Which authorities do not answer, and how they fail.
    pub findings: Vec<Finding>,
    /// The lease in force: for how many milliseconds, and how many seals.
    pub lease: Option<(u64, Option<u64>)>,
}

impl ModeMachine {
    /// A machine of a box that starts, with what its log says. `now` is in milliseconds of a clock that only goes
    /// forward, the same for all calls.
    pub fn new(config: ModeConfig, record: ModeRecord, now: u64) -> Self {
        let links = Links::new(config.authorities.len(), record.below == Mode::Online, now);
        let refresh_now = record.below == Mode::Emergency;
        ModeMachine {
            config,
            now,
            links,
            record,
            elapsed_at: now,
            manifested_at: now,
            refresh_now,
            reported: Vec::new(),
            locked: false,
            rollback: false,
            holders: 0,
            anchored: 0,
            drill: None,
            drill_ended: 0,
            in_flight: None,
            ticket: 0,
            failures: 0,
            retry_at: 0,
        }
    }

    /// The mode in force, for the next entry.
    pub fn mode(&self) -> Mode {
        if self.rollback { Mode::RollbackSuspected } else { self.record.mode }
    }

    /// Whether the next entry belongs to a drill.
    pub fn is_drill(&self) -> bool {
        self.record.drill
    }

    /// What a status page shows.
    pub fn facts(&self) -> ModeFacts {
        ModeFacts {
            mode: self.mode(),
            below: self.record.below,
            drill: self.record.drill,
            drill_left: self.drill.map(|drill| drill.until.saturating_sub(self.now)),
            outages: self.record.outages,
            outage: self.outage_now(),
            limits: self.limits(),
            findings: self.links.findings(&self.config, self.now),
            lease: self.links.lease_left(self.now),
        }
    }

    /// What follows from `event`.
    pub fn handle(&mut self, event: ModeEvent, now: u64) -> Vec<ModeEffect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        self.take(event, &mut effects);
        self.links.settle(&self.config, self.now);
        self.settle_drill(&mut effects);
        self.report_limits(&mut effects);
        effects.extend(self.next_append());
        effects
    }

    /// When to send a [`ModeEvent::Tick`] if nothing happens before.
    pub fn next_wakeup(&self) -> Option<u64> {
        let config = &self.config;
        let drill = self.drill.map(|drill| {
            let after = |millis: u64| drill.began.saturating_add(millis);
            [drill.until, after(config.outage_after), after(config.degraded_after)]
        });
        let lasting = (self.record.below == Mode::Emergency).then(|| {
            let limit =
                config.limits.duration.zip(self.record.outage.as_ref()).map(|(limit, outage)| {
                    self.elapsed_at.saturating_add(limit.saturating_sub(outage.elapsed))
                });
            [Some(self.refresh_at()), limit, self.links.recovered_at(config, self.drill_ended)]
        });
        let times = self.links.wakeups(config).chain(drill.into_iter().flatten());
        let times = times.chain(lasting.into_iter().flatten().flatten()).chain([self.retry_at]);
        times.filter(|at| *at > self.now).min()
    }

    fn take(&mut self, event: ModeEvent, effects: &mut Vec<ModeEffect>) {
        match event {
            ModeEvent::Tick => {}
            ModeEvent::Probed { authority, result } => self.links.probed(authority, result, self.now),
            ModeEvent::Sealed { count } => {
                self.links.sealed(count);
                self.record.sealed(count);
            }
            ModeEvent::Locked(locked) => self.locked = locked,
            ModeEvent::RollbackSuspected(suspected) => self.rollback = suspected,
            ModeEvent::Anchored { size } => self.anchored = size,
            ModeEvent::Holders { count } => self.holders = count,
            ModeEvent::Lease { expires_in, seals } => self.links.lease(expires_in, seals, self.now),
            ModeEvent::Limits(limits) => self.config.limits = limits,
            ModeEvent::DrillStart { millis } => match self.refuse_drill() {
                Some(refusal) => effects.push(ModeEffect::DrillRefused(refusal)),
                None => {
                    let until = self.now.saturating_add(millis);
                    self.drill = Some(Drill { began: self.now, until });
                }
            },
            ModeEvent::DrillStop => self.end_drill(DrillEnd::Stopped, effects),
            ModeEvent::Logged { ticket, index } => self.logged(ticket, index),
            ModeEvent::NotLogged { ticket } => {
                if self.in_flight.take_if(|flight| flight.ticket == ticket).is_some() {
                    self.retry_at = self.now.saturating_add(RETRY_MILLIS << self.failures.min(6));
                    self.failures = self.failures.saturating_add(1);
                }
            }
            ModeEvent::Reread(record) => {
                self.in_flight = None;
                if record.outages != self.record.outages {
                    self.reported.clear();
                }
                self.record = record;
                self.elapsed_at = self.now;
            }
        }
    }

    fn logged(&mut self, ticket: u64, index: u64) {
        let Some(flight) = self.in_flight.take_if(|flight| flight.ticket == ticket) else { return };
        self.failures = 0;
        self.retry_at = 0;
        match &flight.append {
            Append::Change(change) => {
                if self.record.outages != change.outages {
                    self.reported.clear();
                }
                self.record.changed(index, change);
                self.elapsed_at = flight.asked;
            }
            Append::Manifest(manifest) => {
                self.record.manifested(index, manifest);
                self.manifested_at = flight.asked;
                let goes_on = self.record.below == Mode::Emergency;
                self.refresh_now = goes_on && manifest.limits != self.limits();
            }
        }
    }

    fn refuse_drill(&self) -> Option<DrillRefusal> {
        if self.links.is_empty() {
            Some(DrillRefusal::AirGapped)
        } else if self.rollback {
            Some(DrillRefusal::RollbackSuspected)
        } else if self.drill.is_some() {
            Some(DrillRefusal::DrillUnderWay)
        } else {
            let normal = matches!(self.record.below, Mode::Online | Mode::Degraded);
            (!normal || self.really_out()).then_some(DrillRefusal::OutageUnderWay)
        }
    }

    fn end_drill(&mut self, end: DrillEnd, effects: &mut Vec<ModeEffect>) {
        if self.drill.take().is_some() {
            self.drill_ended = self.now;
            effects.push(ModeEffect::DrillEnded(end));
        }
    }

    fn settle_drill(&mut self, effects: &mut Vec<ModeEffect>) {
        if self.drill.is_some() && self.really_out() {
            self.end_drill(DrillEnd::RealOutage, effects);
        } else if self.drill.is_some_and(|drill| self.now >= drill.until) {
            self.end_drill(DrillEnd::Over, effects);
        }
    }

    /// Whether no authority is reachable in earnest.
    fn really_out(&self) -> bool {
        self.links.outage_at(&self.config).is_some_and(|at| self.now >= at)
    }

    fn is_out(&self) -> bool {
        let for_drill = self.drill.is_some_and(|drill| self.now >= drill.began + self.config.outage_after);
        for_drill || self.really_out()
    }

    fn has_recovered(&self) -> bool {
        let at = self.links.recovered_at(&self.config, self.drill_ended);
        self.drill.is_none() && at.is_some_and(|at| self.now >= at)
    }

    /// `online` or `degraded`.
    fn normal(&self) -> Mode {
        let for_drill = self.drill.is_some_and(|drill| self.now >= drill.began + self.config.degraded_after);
        if self.links.all_up() && !for_drill { Mode::Online } else { Mode::Degraded }
    }

    /// The mode that should be in force if nothing forced `safe`.
    fn wanted_below(&self) -> Mode {
        let closing = self.record.outage.as_ref().and_then(|outage| outage.closing);
        let alone = self.links.is_empty();
        match self.record.below {
            Mode::Emergency if alone || self.has_recovered() => Mode::Reconciling,
            Mode::Emergency => Mode::Emergency,
            _ if alone => Mode::AirGapped,
            _ if self.is_out() => Mode::Emergency,
            Mode::Reconciling if closing.is_some_and(|index| self.anchored <= index) => Mode::Reconciling,
            _ => self.normal(),
        }
    }

    fn outage_now(&self) -> Option<OutageRecord> {
        let mut outage = self.record.outage.clone()?;
        if outage.last.is_none() && self.record.below == Mode::Emergency {
            outage.elapsed = outage.elapsed.saturating_add(self.now - self.elapsed_at);
        }
        Some(outage)
    }

    /// Limits reached now.
    fn limits(&self) -> Vec<Limit> {
        if self.record.below == Mode::Emergency { self.reached() } else { Vec::new() }
    }

    /// Limits that the outage, over or not, has reached.
    fn reached(&self) -> Vec<Limit> {
        let Some(outage) = self.outage_now() else { return Vec::new() };
        let Limits { duration, seals, holders, .. } = self.config.limits;
        [
            (duration.is_some_and(|most| outage.elapsed >= most), Limit::Duration),
            (seals.is_some_and(|most| outage.seals >= most), Limit::Seals),
            (self.holders < holders, Limit::Holders),
        ]
        .into_iter()
        .filter_map(|(reached, limit)| reached.then_some(limit))
        .collect()
    }

    fn report_limits(&mut self, effects: &mut Vec<ModeEffect>) {
        for limit in self.limits() {
            if !self.reported.contains(&limit) {
                self.reported.push(limit);
                self.refresh_now = true;
                let (outage, drill) = (self.record.outages, self.record.drill);
                effects.push(ModeEffect::LimitReached { limit, outage, drill });
            }
        }
    }

    fn refresh_at(&self) -> u64 {
        self.manifested_at.saturating_add(self.config.refresh_every)
    }

    /// What the log should say next, and does not yet.
    fn next_append(&mut self) -> Option<ModeEffect> {
        if self.in_flight.is_some() || self.rollback || self.now < self.retry_at {
            return None;
        }
        let append = self.wanted()?;
        self.ticket += 1;
        let ticket = self.ticket;
        self.in_flight = Some(InFlight { ticket, asked: self.now, append: append.clone() });
        Some(match append {
            Append::Change(change) => ModeEffect::LogModeChange { ticket, change },
            Append::Manifest(manifest) => ModeEffect::LogManifest { ticket, manifest },
        })
    }

    fn wanted(&self) -> Option<Append> {
        if let Some(outage) = self.record.outage.as_ref().filter(|outage| outage.closing.is_none()) {
            if outage.last.is_some() {
                return Some(Append::Manifest(self.manifest(Stage::Closing)));
            }
            if outage.manifests == 0 {
                return Some(Append::Manifest(self.manifest(Stage::Opening)));
            }
        }
        let below = self.wanted_below();
        let limits = self.limits();
        let in_drill = self.drill.is_some() || (self.record.outage.is_some() && self.record.drill);
        let drill = match below {
            Mode::Emergency => in_drill && !self.really_out(),
            Mode::Reconciling => in_drill,
            _ => self.drill.is_some(),
        };
        // The limits are those of the outage that is going on; the change that ends it ends them.
        let limited = below == self.record.below && !limits.is_empty() && !drill;
        let safe = self.locked || (limited && self.config.limits.at_limit == AtLimit::Safe);
        let to = if safe { Mode::Safe } else { below };
        if (to, below, drill) != (self.record.mode, self.record.below, self.record.drill) {
            return Some(Append::Change(self.change(to, below, drill, limits)));
        }
        let refresh = below == Mode::Emergency && (self.refresh_now || self.now >= self.refresh_at());
        refresh.then(|| Append::Manifest(self.manifest(Stage::Refresh)))
    }

    fn change(&self, to: Mode, below: Mode, drill: bool, limits: Vec<Limit>) -> ModeChange {
        let begins = below == Mode::Emergency && self.record.below != Mode::Emergency;
        let new = OutageRecord { first: None, elapsed: 0, seals: 0, manifests: 0, last: None, closing: None };
        let outage = match below {
            Mode::Emergency if begins => Some(new),
            Mode::Emergency | Mode::Reconciling => self.outage_now(),
            _ => None,
        };
        ModeChange {
            from: self.record.mode,
            to,
            below,
            drill,
            outages: self.record.outages + u64::from(begins),
            outage,
            locked: self.locked,
            limits,
            findings: self.links.findings(&self.config, self.now),
        }
    }

    fn manifest(&self, stage: Stage) -> Manifest {
        let outage = self.outage_now();
        let outage = outage.as_ref();
        Manifest {
            stage,
            outage: self.record.outages,
            number: outage.map_or(0, |outage| outage.manifests),
            drill: self.record.drill,
            first: outage.and_then(|outage| outage.first).unwrap_or(0),
            last: outage.and_then(|outage| outage.last),
            elapsed: outage.map_or(0, |outage| outage.elapsed),
            seals: outage.map_or(0, |outage| outage.seals),
            // The last one speaks of the whole outage.
            limits: if stage == Stage::Closing { self.reached() } else { self.limits() },
            findings: self.links.findings(&self.config, self.now),
        }
    }
}

#[cfg(test)]
mod tests;
