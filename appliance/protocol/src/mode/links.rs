//! What is known of each authority, with hysteresis on both edges.
//!
//! Invariants: an authority is believed down only after failing for `degraded_after` without one answer between, and
//! up again only after answering for `recover_after` without one failure between; silence is a failure.

use super::ModeConfig;
use crate::authority::{Failure, Finding};

#[derive(Debug, Clone)]
struct Link {
    /// What is believed, after hysteresis.
    up: bool,
    answering_since: Option<u64>,
    failing: Option<(u64, Failure)>,
    heard: u64,
}

/// A hub's word that counts as its presence.
#[derive(Debug, Clone)]
struct Lease {
    since: u64,
    until: u64,
    seals_left: Option<u64>,
}

/// All authorities, and the lease.
#[derive(Debug, Clone)]
pub(super) struct Links {
    links: Vec<Link>,
    lease: Option<Lease>,
    lease_gone: u64,
}

impl Links {
    /// Nothing has been heard yet; `up` is what was believed before.
    pub(super) fn new(count: usize, up: bool, now: u64) -> Self {
        let link = Link { up, answering_since: None, failing: None, heard: now };
        Links { links: vec![link; count], lease: None, lease_gone: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub(super) fn probed(&mut self, authority: usize, result: Result<(), Failure>, now: u64) {
        let Some(link) = self.links.get_mut(authority) else { return };
        link.heard = now;
        match result {
            Ok(()) => {
                link.failing = None;
                link.answering_since = link.answering_since.or(Some(now));
            }
            Err(failure) => {
                link.answering_since = None;
                link.failing = Some((link.failing.map_or(now, |(since, _)| since), failure));
            }
        }
    }

    /// A lease follows on one that holds without a gap.
    pub(super) fn lease(&mut self, millis: u64, seals: Option<u64>, now: u64) {
        let since = self.lease.as_ref().map_or(now, |lease| lease.since);
        self.lease = Some(Lease { since, until: now.saturating_add(millis), seals_left: seals });
    }

    /// For how long the lease holds, and for how many seals.
    pub(super) fn lease_left(&self, now: u64) -> Option<(u64, Option<u64>)> {
        self.lease.as_ref().map(|lease| (lease.until.saturating_sub(now), lease.seals_left))
    }

    pub(super) fn sealed(&mut self, count: u64) {
        if let Some(left) = self.lease.as_mut().and_then(|lease| lease.seals_left.as_mut()) {
            *left = left.saturating_sub(count);
        }
    }

    /// Draws the conclusions that are due.
    pub(super) fn settle(&mut self, config: &ModeConfig, now: u64) {
        for link in &mut self.links {
            if link.failing.is_none() && now >= link.heard.saturating_add(config.outage_after) {
                link.answering_since = None;
                link.failing = Some((link.heard, Failure::Timeout));
            }
            if link.failing.is_some_and(|(since, _)| now >= since.saturating_add(config.degraded_after)) {
                link.up = false;
            }
            if link.answering_since.is_some_and(|since| now >= since.saturating_add(config.recover_after)) {
                link.up = true;
            }
        }
        if self.lease.as_ref().is_some_and(|lease| now >= lease.until || lease.seals_left == Some(0)) {
            self.lease = None;
            self.lease_gone = now;
        }
    }

    pub(super) fn all_up(&self) -> bool {
        self.links.iter().all(|link| link.up)
    }

    /// When it is an outage if nothing answers before: since the last authority or lease fell away, and `outage_after`.
    pub(super) fn outage_at(&self, config: &ModeConfig) -> Option<u64> {
        if self.is_empty() || self.lease.is_some() {
            return None;
        }
        let mut since = self.lease_gone;
        for link in &self.links {
            since = since.max(link.failing?.0);
        }
        Some(since.saturating_add(config.outage_after))
    }

    /// When an outage is over if nothing fails before: something has answered for `recover_after`, counted from
    /// `not_before` on.
    pub(super) fn recovered_at(&self, config: &ModeConfig, not_before: u64) -> Option<u64> {
        let answering = self.links.iter().filter_map(|link| link.answering_since);
        let since = answering.chain(self.lease.as_ref().map(|lease| lease.since)).min()?;
        Some(since.max(not_before).saturating_add(config.recover_after))
    }

    pub(super) fn findings(&self, config: &ModeConfig, now: u64) -> Vec<Finding> {
        let named = config.authorities.iter().zip(&self.links);
        named
            .filter_map(|(authority, link)| {
                let (since, failure) = link.failing?;
                let for_millis = now.saturating_sub(since);
                Some(Finding { authority: authority.id.clone(), failure, for_millis })
            })
            .collect()
    }

    /// Every time at which a conclusion may be due.
    pub(super) fn wakeups(&self, config: &ModeConfig) -> impl Iterator<Item = u64> {
        let ModeConfig { outage_after, degraded_after, recover_after, .. } = *config;
        let links = self.links.iter().flat_map(move |link| {
            let silence = link.failing.is_none().then_some(link.heard.saturating_add(outage_after));
            let down = link.failing.map(|(since, _)| since.saturating_add(degraded_after));
            let up = link.answering_since.map(|since| since.saturating_add(recover_after));
            [silence, down, up]
        });
        links.chain([self.outage_at(config), self.lease.as_ref().map(|lease| lease.until)]).flatten()
    }
}
