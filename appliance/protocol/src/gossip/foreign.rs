//! What comes of a neighbour's log: heads, entries, objects and proofs, and what does not come.
//!
//! Every head is held against what is known before it counts: at one size there is one root, and a head is aimed at,
//! never believed, until a proof leads to it.
//! Invariants: nothing is stored that contradicts a signed head that is known; a peer is blamed only for what cannot be
//! explained by another branch of the log.

use super::log::{Round, beyond};
use super::{Failure, Finding, Gossip, GossipEffect, Head, Name, Purpose, Retry, Seen};
use bulla_formats::hash::Hash;

impl Gossip {
    pub(super) fn seen(&mut self, seen: &Seen, effects: &mut Vec<GossipEffect>) {
        if !self.peers.contains_key(&seen.from) || seen.head.size == 0 {
            return;
        }
        self.alive(&seen.from);
        if seen.origin == self.own.name {
            return self.own_seen(seen, effects);
        }
        // Whoever tells only heads tells those of its own log.
        if seen.from != seen.origin && self.peers.get(&seen.from).is_some_and(|peer| peer.heads_only) {
            return;
        }
        let now = self.now;
        let Some(log) = self.peers.get_mut(&seen.origin).map(|peer| &mut peer.log) else { return };
        if seen.from != seen.origin && seen.holds > 0 {
            log.holds.insert(seen.from.clone(), seen.holds);
        }
        if log.is_frozen() {
            return;
        }
        if let Some(other) = log.contradiction(seen.head) {
            return self.prove(&seen.origin, seen.head, other, effects);
        }
        match seen.ours {
            Some(root) if root != seen.head.root => {
                log.suspect = log.suspect.filter(|known| known.size < seen.head.size).or(Some(seen.head));
            }
            // What is on the disk already and not yet reported as stored may lack objects.
            Some(_) if seen.head.size > log.copy.size => log.aim_at(seen.head, now),
            Some(_) if beyond(Some(seen.head), log.reached) => log.reached = Some(seen.head),
            Some(_) => {}
            None => log.aim_at(seen.head, now),
        }
    }

    /// Whoever did not answer, and hints, is asked at once.
    fn alive(&mut self, name: &Name) {
        if self.peers.get(name).is_some_and(|peer| peer.link.is_silent(&self.config))
            && let Some(peer) = self.peers.get_mut(name)
        {
            peer.link.heads_retry.at = self.now;
        }
    }

    /// Two signed heads that cannot both be true: the shell is asked for the proof now and then, until it has it.
    fn prove(&mut self, origin: &Name, one: Head, other: Head, effects: &mut Vec<GossipEffect>) {
        let Some(log) = self.peers.get_mut(origin).map(|peer| &mut peer.log) else { return };
        if self.now >= log.prove_at {
            log.prove_at = self.now.saturating_add(self.config.timeout);
            log.entries.retry.at = log.entries.retry.at.max(self.now.saturating_add(self.config.backoff));
            effects.push(GossipEffect::ProveFork { origin: origin.clone(), one, other });
        }
    }

    /// Entries came and lead to a signed head: are they of the tree that is known?
    pub(super) fn verified(&mut self, ticket: u64, copy: Head, head: Head, effects: &mut Vec<GossipEffect>) {
        let Some(flight) = self.flights.get(ticket) else { return };
        let Purpose::Range { origin, to, .. } = &flight.purpose else { return };
        let (origin, to) = (origin.clone(), *to);
        let Some(log) = self.peers.get_mut(&origin).map(|peer| &mut peer.log) else { return };
        let fits = !log.is_frozen() && log.copy.size < copy.size && copy.size <= to && copy.size <= head.size;
        let known = log.contradiction(head).or_else(|| log.contradiction(copy));
        if known.is_some() || !fits {
            log.fetching = None;
            self.flights.remove(ticket);
            if let Some(known) = known {
                self.prove(&origin, known, head, effects);
            }
            return;
        }
        // It is the disk's turn.
        self.flights.store(ticket, copy, head);
        log.aim_at(head, self.now);
        let reached = log.end(copy, head);
        effects.push(GossipEffect::Store { ticket, origin, reached });
    }

    pub(super) fn stored(&mut self, ticket: u64, lacking: bool) {
        let storing = |purpose: &Purpose| matches!(purpose, Purpose::Range { storing: Some(_), .. });
        let Some(flight) = self.landed(ticket, storing) else { return };
        let Purpose::Range { origin, storing: Some((copy, head)), .. } = flight.purpose else { return };
        let Some(log) = self.peers.get_mut(&origin).map(|peer| &mut peer.log) else { return };
        log.fetching = None;
        log.advance(copy, head);
        if lacking && !log.lacking {
            log.objects = Round::default();
        }
        log.lacking = lacking;
    }

    pub(super) fn objects(&mut self, ticket: u64, got: u64, lacking: bool) {
        let Some(flight) = self.landed(ticket, |purpose| matches!(purpose, Purpose::Objects { .. })) else {
            return;
        };
        let Purpose::Objects { origin } = flight.purpose else { return };
        let Some(log) = self.peers.get_mut(&origin).map(|peer| &mut peer.log) else { return };
        (log.fetching, log.lacking) = (None, lacking);
        if got == 0 {
            log.objects.tried.insert(flight.peer);
        } else {
            log.objects = Round::default();
        }
    }

    /// A proof leads from a tree of the size asked about to a signed head: was it the tree that is known?
    pub(super) fn consistent(
        &mut self,
        ticket: u64,
        root: Hash,
        head: Head,
        effects: &mut Vec<GossipEffect>,
    ) {
        let consistency = |purpose: &Purpose| matches!(purpose, Purpose::Consistency { .. });
        let Some(flight) = self.landed(ticket, consistency) else { return };
        let Purpose::Consistency { origin, old, dispute } = flight.purpose else { return };
        let Some(log) = self.peers.get_mut(&origin).map(|peer| &mut peer.log) else { return };
        log.fetching = None;
        log.entries.tried.insert(flight.peer.clone());
        if root != old.root {
            return self.prove(&origin, old, head, effects);
        }
        if let Some(other) = log.contradiction(head) {
            return self.prove(&origin, head, other, effects);
        }
        if !dispute {
            if log.wanted.witnessed == Some(old) {
                log.proven = Some(head);
            }
        } else if log.copy.size == old.size {
            // Its tree begins with the copy, and yet its entries did not extend it.
            log.entries.doubt = true;
            self.blame(&flight.peer, &origin, effects);
        } else {
            // The copy has gone on to another head; it is led there first.
            log.target = log.proven.filter(|head| head.size > log.copy.size);
        }
    }

    pub(super) fn range_failed(
        &mut self,
        peer: &Name,
        origin: &Name,
        storing: Option<(Head, Head)>,
        failure: Failure,
        random: u64,
        effects: &mut Vec<GossipEffect>,
    ) {
        let (config, now) = (&self.config, self.now);
        let Some(log) = self.peers.get_mut(origin).map(|peer| &mut peer.log) else { return };
        log.fetching = None;
        match failure {
            Failure::Own => log.disk_retry.failed(config, now, random),
            _ if storing.is_some() => log.disk_retry.failed(config, now, random),
            Failure::False if log.reached.is_some() && log.target.is_some() => {
                log.dispute = Some(peer.clone());
            }
            Failure::False => {
                log.entries.doubt = true;
                log.entries.tried.insert(peer.clone());
                if log.copy.size == 0 {
                    self.blame(&peer.clone(), origin, effects);
                }
            }
            Failure::Silence | Failure::Refused { .. } => {
                log.entries.tried.insert(peer.clone());
            }
        }
    }

    pub(super) fn objects_failed(
        &mut self,
        peer: &Name,
        origin: &Name,
        failure: Failure,
        random: u64,
        effects: &mut Vec<GossipEffect>,
    ) {
        let (config, now) = (&self.config, self.now);
        let Some(log) = self.peers.get_mut(origin).map(|peer| &mut peer.log) else { return };
        log.fetching = None;
        match failure {
            Failure::Own => log.disk_retry.failed(config, now, random),
            _ => drop(log.objects.tried.insert(peer.clone())),
        }
        if failure == Failure::False {
            self.blame(&peer.clone(), origin, effects);
        }
    }

    pub(super) fn consistency_failed(
        &mut self,
        peer: &Name,
        origin: &Name,
        failure: Failure,
        effects: &mut Vec<GossipEffect>,
    ) {
        let Some(log) = self.peers.get_mut(origin).map(|peer| &mut peer.log) else { return };
        log.fetching = None;
        log.entries.tried.insert(peer.clone());
        log.entries.doubt = true;
        if failure == Failure::False {
            self.blame(&peer.clone(), origin, effects);
        }
    }

    /// The log whose state is on its way to the disk under this ticket.
    pub(super) fn persisting(&self, ticket: u64) -> Option<Name> {
        let found = self.peers.iter().find(|(_, peer)| peer.log.is_persisting(ticket));
        found.map(|(origin, _)| origin.clone())
    }

    pub(super) fn persisted(&mut self, ticket: u64, effects: &mut Vec<GossipEffect>) {
        let Some(origin) = self.persisting(ticket) else { return };
        let Some(log) = self.peers.get_mut(&origin).map(|peer| &mut peer.log) else { return };
        let Some((_, state)) = log.persisting.take() else { return };
        log.persist_retry = Retry::default();
        let fresh = state.frozen && !log.durable.frozen;
        log.durable = state;
        if fresh {
            effects.push(GossipEffect::Report(Finding::Forked { origin: origin.clone() }));
            effects.push(GossipEffect::HintFork { origin });
        }
    }

    /// Decides what may be cosigned, and has it made durable.
    pub(super) fn settle(&mut self, origin: &Name, effects: &mut Vec<GossipEffect>) {
        let Some(log) = self.peers.get_mut(origin).map(|peer| &mut peer.log) else { return };
        log.settle();
        if log.wanted != log.durable && log.persisting.is_none() && log.persist_retry.at <= self.now {
            self.ticket += 1;
            log.persisting = Some((self.ticket, log.wanted));
            let (ticket, origin, state) = (self.ticket, origin.clone(), log.wanted);
            effects.push(GossipEffect::Persist { ticket, origin, state });
        }
        if let (Some(suspect), Some(reached), false) = (log.suspect, log.reached, log.is_frozen())
            && reached.size >= suspect.size
        {
            self.prove(origin, suspect, reached, effects);
        }
    }
}
