//! Whom to ask for what of a neighbour's log.
//!
//! A range ends where a cosigned or wanted head does, so that the copy meets each of them exactly and a fork shows before
//! anything of the other branch is stored.
//! Invariants: one question about a log is under way at a time, and few to one peer; who has failed is asked again only
//! after everybody else, and a pause.

use super::log::{Log, Round};
use super::{Ask, Finding, Gossip, GossipEffect, Link, Name, Peer, Purpose};

impl Gossip {
    /// Asks for what is missing of a log: the proof in a dispute, objects, entries.
    pub(super) fn fetch(&mut self, origin: &Name, random: u64, effects: &mut Vec<GossipEffect>) {
        let now = self.now;
        let Some(Peer { log, heads_only, .. }) = self.peers.get_mut(origin) else { return };
        if log.is_frozen() || log.fetching.is_some() {
            return;
        }
        if *heads_only {
            return self.witness(origin, random, effects);
        }
        let old = log.reached;
        if let (Some(peer), Some(old), Some(target)) = (log.dispute.take(), old, log.target) {
            if self.is_askable(&peer) {
                let (old_size, new) = (old.size, target.size);
                let ask = Ask::Consistency { origin: origin.clone(), old: old_size, new };
                let purpose = Purpose::Consistency { origin: origin.clone(), old, dispute: true };
                return self.ask_for(origin, &peer, ask, purpose, effects);
            }
        } else if log.lacking && log.objects.retry.at <= now && log.disk_retry.at <= now {
            if let Some(peer) = self.holder(origin, |log| &log.objects, |log| log.copy.size) {
                let (ask, purpose) =
                    (Ask::Objects { origin: origin.clone() }, Purpose::Objects { origin: origin.clone() });
                return self.ask_for(origin, &peer, ask, purpose, effects);
            }
            self.round_over(origin, |log| &mut log.objects, random);
        }
        self.fetch_entries(origin, random, effects);
    }

    /// Asks the log's own box for the proof that its newest head continues what was witnessed; the first head continues
    /// nothing.
    fn witness(&mut self, origin: &Name, random: u64, effects: &mut Vec<GossipEffect>) {
        let Some(log) = self.peers.get_mut(origin).map(|peer| &mut peer.log) else { return };
        let Some(target) = log.target else { return };
        let Some(old) = log.wanted.witnessed else {
            log.proven = Some(target);
            return self.settle(origin, effects);
        };
        if target.size <= old.size {
            (log.target, log.entries) = (None, Round::default());
            return;
        }
        if log.entries.retry.at > self.now {
            return;
        }
        if log.entries.tried.contains(origin) {
            self.round_over(origin, |log| &mut log.entries, random);
        } else if self.is_askable(origin) {
            let ask = Ask::Consistency { origin: origin.clone(), old: old.size, new: target.size };
            let purpose = Purpose::Consistency { origin: origin.clone(), old, dispute: false };
            self.ask_for(origin, &origin.clone(), ask, purpose, effects);
        }
    }

    fn fetch_entries(&mut self, origin: &Name, random: u64, effects: &mut Vec<GossipEffect>) {
        let (now, chunk) = (self.now, self.config.chunk);
        let Some(log) = self.peers.get(origin).map(|peer| &peer.log) else { return };
        let Some(target) = log.target.filter(|target| target.size > log.copy.size) else { return };
        if log.entries.retry.at > now {
            return;
        }
        let Some(peer) = self.holder(origin, |log| &log.entries, |log| log.copy.size + 1) else {
            if let Some(log) = self.round_over(origin, |log| &mut log.entries, random)
                && std::mem::take(&mut log.entries.doubt)
            {
                (log.given_up, log.target) = (Some(target), None);
                let finding = Finding::Unproven { origin: origin.clone(), head: target };
                effects.push(GossipEffect::Report(finding));
            }
            return;
        };
        let (from, witnessed) = (log.copy.size, log.wanted.witnessed);
        if log.disk_retry.at > now {
            // Nothing can be stored; a witness needs nothing but a proof.
            let Some(old) = witnessed.filter(|old| target.size > old.size) else { return };
            let ask = Ask::Consistency { origin: origin.clone(), old: old.size, new: target.size };
            let purpose = Purpose::Consistency { origin: origin.clone(), old, dispute: false };
            return self.ask_for(origin, &peer, ask, purpose, effects);
        }
        let met = witnessed.map(|head| head.size).filter(|size| *size > from);
        let to = target.size.min(from.saturating_add(chunk)).min(met.unwrap_or(u64::MAX));
        let ask = Ask::Range { origin: origin.clone(), from, to };
        let purpose = Purpose::Range { origin: origin.clone(), to, storing: None };
        self.ask_for(origin, &peer, ask, purpose, effects);
    }

    fn ask_for(
        &mut self,
        origin: &Name,
        peer: &Name,
        ask: Ask,
        purpose: Purpose,
        effects: &mut Vec<GossipEffect>,
    ) {
        let ticket = self.ask(peer, ask, purpose, effects);
        if let Some(peer) = self.peers.get_mut(origin) {
            peer.log.fetching = Some(ticket);
        }
    }

    fn is_askable(&self, name: &Name) -> bool {
        let free = |link: &Link| link.is_free(self.now) && !link.is_silent(&self.config);
        let free = self.peers.get(name).is_some_and(|peer| free(&peer.link));
        free && self.flights.fetching_from(name) < self.config.asks_per_peer
    }

    /// Whom to ask next: the log's own box first, then whoever says it holds most beyond what is held here.
    fn holder(
        &self,
        origin: &Name,
        round: impl Fn(&Log) -> &Round,
        least: impl Fn(&Log) -> u64,
    ) -> Option<Name> {
        let log = &self.peers.get(origin)?.log;
        let others = log.holds.iter().filter(|(_, holds)| **holds >= least(log));
        let candidates = others.map(|(name, holds)| (false, *holds, name)).chain([(true, 0, origin)]);
        // Whoever exchanges heads only has no entries to give.
        let heads_only = |name: &Name| self.peers.get(name).is_some_and(|peer| peer.heads_only);
        let candidates = candidates.filter(|(_, _, name)| !heads_only(name));
        let free =
            candidates.filter(|(_, _, name)| !round(log).tried.contains(*name) && self.is_askable(name));
        free.max().map(|(_, _, name)| name.clone())
    }

    /// Everybody has been tried, if anybody was: all again after a pause.
    fn round_over(
        &mut self,
        origin: &Name,
        round: impl Fn(&mut Log) -> &mut Round,
        random: u64,
    ) -> Option<&mut Log> {
        let (config, now) = (&self.config, self.now);
        let log = self.peers.get_mut(origin).map(|peer| &mut peer.log)?;
        let round = round(log);
        if round.tried.is_empty() {
            return None;
        }
        round.tried.clear();
        round.retry.failed(config, now, random);
        Some(log)
    }
}
