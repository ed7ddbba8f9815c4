//! A neighbour's log: what is held of it, what is known to be there, and how the rest is fetched.
//!
//! Every head is held against what is known before it counts: at one size there is one root, and a head is aimed at,
//! never believed, until a proof leads to it. A range ends where a cosigned or wanted head does, so that the copy meets
//! each of them exactly and a fork shows before anything of the other branch is stored.
//! Invariants: `wanted` and `durable` never go back, and `wanted` moves only to heads that a proof led to from the one
//! before; `reached` lies in the copy.

use super::{
    Ask, CopyStart, CosignerState, Failure, Finding, Gossip, GossipConfig, GossipEffect, Head, Name, Purpose,
    Retry, Seen,
};
use bulla_formats::hash::Hash;
use std::collections::{BTreeMap, BTreeSet};

/// Whom to ask for what all of them may have: each once, then a pause.
#[derive(Debug, Clone, Default)]
struct Round {
    tried: BTreeSet<Name>,
    retry: Retry,
    /// Somebody's answer did not hold.
    doubt: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Log {
    copy: Head,
    /// The newest signed head that the copy covers.
    reached: Option<Head>,
    lacking: bool,
    /// The newest signed head beyond the copy.
    target: Option<Head>,
    /// A signed head that a proof led to from the copy and from what was witnessed.
    proven: Option<Head>,
    /// So much of the copy is known to agree with what was witnessed, as long as that is larger than the copy.
    agreed: u64,
    /// A signed head that is none of the copy's tree; shown as a fork once a signed head covers it.
    suspect: Option<Head>,
    /// A head that nobody could prove.
    given_up: Option<Head>,
    durable: CosignerState,
    wanted: CosignerState,
    persisting: Option<(u64, CosignerState)>,
    persist_retry: Retry,
    /// The question for entries, objects or proofs that is under way; one at a time.
    fetching: Option<u64>,
    dispute: Option<Name>,
    entries: Round,
    objects: Round,
    disk_retry: Retry,
    prove_at: u64,
    /// What the log's box has taken since it is connected.
    handed: (Option<Head>, Option<Head>),
    /// How many entries others say they hold.
    holds: BTreeMap<Name, u64>,
}

fn beyond(head: Option<Head>, other: Option<Head>) -> bool {
    head.map_or(0, |head| head.size) > other.map_or(0, |head| head.size)
}

impl Log {
    pub fn nothing(origin: Name) -> Self {
        let state = CosignerState::default();
        Log::new(&CopyStart { origin, copy: Head::empty(), reached: None, lacking: false, state })
    }

    pub fn new(start: &CopyStart) -> Self {
        Log {
            copy: start.copy,
            reached: start.reached,
            lacking: start.lacking,
            target: start.state.witnessed.filter(|head| head.size > start.copy.size),
            proven: None,
            agreed: start.state.mirrored.map_or(0, |head| head.size),
            suspect: None,
            given_up: None,
            durable: start.state,
            wanted: start.state,
            persisting: None,
            persist_retry: Retry::default(),
            fetching: None,
            dispute: None,
            entries: Round::default(),
            objects: Round::default(),
            disk_retry: Retry::default(),
            prove_at: 0,
            handed: (None, None),
            holds: BTreeMap::new(),
        }
    }

    pub fn copy(&self) -> Head {
        self.copy
    }

    pub fn durable(&self) -> CosignerState {
        self.durable
    }

    pub fn is_frozen(&self) -> bool {
        self.wanted.frozen
    }

    pub fn freeze(&mut self) {
        self.wanted.frozen = true;
    }

    /// Heads that are known.
    pub fn heads(&self) -> impl Iterator<Item = Head> {
        let CosignerState { witnessed, mirrored, .. } = self.wanted;
        [witnessed, mirrored, self.reached, self.target, self.proven, self.suspect].into_iter().flatten()
    }

    pub fn remembered(&self) -> usize {
        self.holds.len() + self.entries.tried.len() + self.objects.tried.len() + 8
    }

    /// A known head of that size with another root.
    fn contradiction(&self, head: Head) -> Option<Head> {
        self.heads().find(|known| known.size == head.size && known.root != head.root)
    }

    pub fn not_handed(&mut self) {
        self.handed = (None, None);
    }

    pub fn handed(&mut self, head: Head, witness: bool, mirror: bool) {
        if witness {
            self.handed.0 = Some(head);
        }
        if mirror {
            self.handed.1 = Some(head);
        }
    }

    /// The next cosignature to hand over: head, as a witness, as a mirror. Only what is durable.
    pub fn to_hand(&self) -> Option<(Head, bool, bool)> {
        let CosignerState { witnessed, mirrored, .. } = self.durable;
        if self.is_frozen() {
            return None;
        }
        if beyond(mirrored, self.handed.1) {
            return mirrored.map(|head| (head, witnessed == mirrored, true));
        }
        witnessed.filter(|_| beyond(witnessed, self.handed.0)).map(|head| (head, true, false))
    }

    pub fn is_persisting(&self, ticket: u64) -> bool {
        self.persisting.is_some_and(|persisting| persisting.0 == ticket)
    }

    pub fn not_persisted(&mut self, config: &GossipConfig, now: u64, random: u64) {
        self.persisting = None;
        self.persist_retry.failed(config, now, random);
    }

    /// A peer is there again.
    pub fn try_again(&mut self, name: &Name) {
        for round in [&mut self.entries, &mut self.objects] {
            round.tried.remove(name);
            round.retry = Retry::default();
        }
    }

    /// Peers and tickets that are no more.
    pub fn forget(&mut self, alive: impl Fn(u64) -> bool, known: impl Fn(&Name) -> bool) {
        self.fetching = self.fetching.filter(|ticket| alive(*ticket));
        self.dispute = self.dispute.take().filter(&known);
        self.holds.retain(|name, _| known(name));
        self.entries.tried.retain(&known);
        self.objects.tried.retain(&known);
    }

    pub fn times(&self) -> [u64; 4] {
        [self.persist_retry.at, self.entries.retry.at, self.objects.retry.at, self.disk_retry.at]
    }

    fn aim_at(&mut self, head: Head, now: u64) {
        let dropped = self.given_up == Some(head) && now < self.entries.retry.at;
        if head.size > self.copy.size && beyond(Some(head), self.target) && !dropped {
            self.target = Some(head);
        }
    }

    /// The copy has become this, which leads to that signed head.
    fn advance(&mut self, copy: Head, head: Head) {
        self.copy = copy;
        self.reached = self.end(copy, head).or(self.reached);
        // A proof led from the copy to the head; and from what was witnessed, when that is in the copy or the head.
        let witnessed = self.wanted.witnessed;
        if witnessed.is_none_or(|witnessed| witnessed.size <= copy.size || witnessed == head) {
            (self.proven, self.agreed) = (Some(head), copy.size);
        }
        self.target = self.target.filter(|target| target.size > copy.size);
        self.entries = Round::default();
        self.disk_retry = Retry::default();
    }

    /// What may be cosigned now, once it is durable.
    fn settle(&mut self) {
        if self.is_frozen() {
            return;
        }
        if beyond(self.proven, self.wanted.witnessed) {
            self.wanted.witnessed = self.proven;
        }
        let witnessed = self.wanted.witnessed.map_or(0, |head| head.size);
        let agreed = if witnessed <= self.copy.size { self.copy.size } else { self.agreed };
        let reached = self.reached.filter(|head| head.size <= agreed);
        if !self.lacking && beyond(reached, self.wanted.mirrored) {
            self.wanted.mirrored = reached;
        }
    }

    /// The signed head that a copy, which leads to `head`, covers exactly.
    fn end(&self, copy: Head, head: Head) -> Option<Head> {
        self.heads().chain([head]).find(|end| *end == copy)
    }
}

impl Gossip {
    pub(super) fn seen(&mut self, seen: &Seen, effects: &mut Vec<GossipEffect>) {
        if !self.peers.contains_key(&seen.from) || seen.head.size == 0 {
            return;
        }
        if seen.origin == self.own.name {
            return self.own_seen(seen, effects);
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
        let Some(flight) = self.flights.get_mut(&ticket) else { return };
        let Purpose::Range { origin, to, storing } = &mut flight.purpose else { return };
        let Some(log) = self.peers.get_mut(&*origin).map(|peer| &mut peer.log) else { return };
        let origin = origin.clone();
        let fits =
            !log.is_frozen() && log.copy.size < copy.size && copy.size <= *to && copy.size <= head.size;
        let known = log.contradiction(head).or_else(|| log.contradiction(copy));
        if known.is_some() || !fits {
            log.fetching = None;
            self.flights.remove(&ticket);
            if let Some(known) = known {
                self.prove(&origin, known, head, effects);
            }
            return;
        }
        // It is the disk's turn, which takes as long as it takes.
        (*storing, flight.deadline) = (Some((copy, head)), u64::MAX);
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

    pub(super) fn persisted(&mut self, ticket: u64, effects: &mut Vec<GossipEffect>) {
        let found = self.peers.iter_mut().find(|(_, peer)| peer.log.is_persisting(ticket));
        let Some((origin, peer)) = found else { return };
        let log = &mut peer.log;
        let Some((_, state)) = log.persisting.take() else { return };
        log.persist_retry = Retry::default();
        let fresh = state.frozen && !log.durable.frozen;
        log.durable = state;
        if fresh {
            effects.push(GossipEffect::Report(Finding::Forked { origin: origin.clone() }));
            effects.push(GossipEffect::HintFork { origin: origin.clone() });
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

    /// Asks for what is missing of a log: the proof in a dispute, objects, entries.
    pub(super) fn fetch(&mut self, origin: &Name, random: u64, effects: &mut Vec<GossipEffect>) {
        let now = self.now;
        let Some(log) = self.peers.get_mut(origin).map(|peer| &mut peer.log) else { return };
        if log.is_frozen() || log.fetching.is_some() {
            return;
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
        let fine = |peer: &super::Peer| peer.link.connected && peer.link.blamed_until <= self.now;
        self.peers.get(name).is_some_and(fine) && self.fetching_from(name) < self.config.asks_per_peer
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
