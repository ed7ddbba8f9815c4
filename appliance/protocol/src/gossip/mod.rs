//! Mirroring and witnessing the neighbours' logs, and having the own one mirrored and witnessed.
//!
//! Hints tell that there is a new head; what is fetched is proven against it before it is stored; what is stored is
//! cosigned once the cosigner's state is durable, and the cosignature handed to the log's box until that takes it. A log
//! that has signed two histories is frozen by everybody who sees the proof.
//! Refuses to do: I/O, clocks, randomness (it comes as a number); judge signatures and proofs, which the shell does with
//! `bulla-formats`; deal with logs of boxes that it was not told to trust.
//! Invariants: no cosignature is asked for before the state that allows it is durable, and that state never goes back; a
//! head is cosigned only if a proof led to it from what was cosigned before, and by the mirror key only if all of it is
//! stored; a frozen log is neither extended nor cosigned; of a log that is only witnessed nothing is asked but proofs, and
//! only of its own box. Memory is a few heads and tickets for every peer.

mod challenge;
mod events;
mod fetch;
mod flights;
mod foreign;
mod log;
pub mod merge;
mod own;
mod peers;
pub mod reconcile;
mod types;

pub use challenge::Attested;
pub use events::{Ask, Failure, Finding, GossipEffect, GossipEvent, Holder, Seen, Standing};
pub use types::{CopyStart, CosignerState, GossipConfig, GossipStart, Head, Name, PeerFacts};

use challenge::Trust;
use flights::{Flight, Flights};
use log::Log;
use own::{Held, Own};
use peers::{Mark, Peers};
use std::collections::BTreeSet;

/// A pause that doubles, with jitter.
#[derive(Debug, Clone, Copy, Default)]
struct Retry {
    failures: u32,
    at: u64,
}

impl Retry {
    fn failed(&mut self, config: &GossipConfig, now: u64, random: u64) {
        self.failed_up_to(config.backoff_max, config, now, random);
    }

    /// The pause is no longer than `most`.
    fn failed_up_to(&mut self, most: u64, config: &GossipConfig, now: u64, random: u64) {
        let doubled = config.backoff.saturating_mul(1 << self.failures.min(20)).min(most).max(2);
        self.at = now.saturating_add(doubled / 2 + random % (doubled / 2 + 1));
        self.failures = self.failures.saturating_add(1);
    }
}

/// What a question was for.
#[derive(Debug, Clone)]
enum Purpose {
    Heads,
    /// Once the entries are verified and on their way to the disk: what the copy becomes, and the head they lead to.
    Range {
        origin: Name,
        to: u64,
        storing: Option<(Head, Head)>,
    },
    Objects {
        origin: Name,
    },
    /// `dispute`: the peer's entries did not fit the copy.
    Consistency {
        origin: Name,
        old: Head,
        dispute: bool,
    },
    Cosigned {
        head: Head,
        witness: bool,
        mirror: bool,
    },
    Fork {
        origin: Name,
    },
    ForkOf,
    Challenge,
}

impl Purpose {
    /// Whether it is about entries of a log.
    fn fetches(&self) -> bool {
        matches!(self, Purpose::Range { .. } | Purpose::Objects { .. } | Purpose::Consistency { .. })
    }

    /// Whether the answer is on its way to the disk.
    fn is_storing(&self) -> bool {
        matches!(self, Purpose::Range { storing: Some(_), .. })
    }
}

/// The way to a peer.
#[derive(Debug, Clone, Default)]
struct Link {
    connected: bool,
    blamed_until: u64,
    /// It asked for a pause.
    busy_until: u64,
    heads: Option<u64>,
    heads_at: u64,
    heads_retry: Retry,
    /// It has said, since this box started, what it holds.
    answered: bool,
    handing: Option<u64>,
    hand_retry: Retry,
    /// Forks that it was told of since it is connected.
    told: BTreeSet<Name>,
    telling: Option<u64>,
    tell_retry: Retry,
    asking_fork: Option<u64>,
    /// So many questions were left unanswered since anything was.
    silences: u32,
}

impl Link {
    /// It is connected, and does not answer.
    fn is_silent(&self, config: &GossipConfig) -> bool {
        self.silences >= config.silent_after
    }

    /// Whether it can be asked for something now.
    fn is_free(&self, now: u64) -> bool {
        self.connected && self.blamed_until <= now && self.busy_until <= now
    }
}

/// A peer: the way to it, its log, and what it holds of the own log.
#[derive(Debug, Clone)]
struct Peer {
    link: Link,
    log: Log,
    held: Held,
    trust: Trust,
    /// Only heads are exchanged with it.
    heads_only: bool,
    mark: Mark,
}

impl Peer {
    fn new(name: &Name) -> Self {
        let (log, held, trust) = (Log::nothing(name.clone()), Held::default(), Trust::default());
        Peer { link: Link::default(), log, held, trust, heads_only: false, mark: Mark::none() }
    }

    /// When it is to be looked at again; what is past counts no more.
    fn times(&self) -> impl Iterator<Item = u64> {
        let Link { heads_at, heads_retry, hand_retry, tell_retry, blamed_until, busy_until, .. } = &self.link;
        let link = [*heads_at, heads_retry.at, hand_retry.at, tell_retry.at, *blamed_until, *busy_until];
        link.into_iter().filter(|_| self.link.connected).chain(self.log.times())
    }
}

/// Decides what is asked, stored, cosigned and told.
#[derive(Debug, Clone)]
pub struct Gossip {
    config: GossipConfig,
    now: u64,
    ticket: u64,
    own: Own,
    peers: Peers,
    flights: Flights,
    /// This box has an outage.
    outage: bool,
    /// The own TPM is quoting for a neighbour.
    quoting: Option<u64>,
}

impl Gossip {
    /// A machine of a box that starts. `now` is in milliseconds of a clock that only goes forward, the same for all
    /// calls.
    pub fn new(config: GossipConfig, start: &GossipStart, now: u64) -> Self {
        let own = Own::new(&config, start, now);
        let (peers, flights) = (Peers::default(), Flights::default());
        let mut gossip = Gossip { config, now, ticket: 0, own, peers, flights, outage: false, quoting: None };
        gossip.roster(&start.peers);
        for copy in &start.copies {
            if let Some(peer) = gossip.peers.get_mut(&copy.origin) {
                peer.log = Log::new(copy);
            }
        }
        for (name, boot) in &start.boots {
            gossip.boot_known(name, boot.clone());
        }
        gossip
    }

    /// What follows from `event`. `random` is any number that nobody can foresee; it spreads retries.
    pub fn handle(&mut self, event: GossipEvent, now: u64, random: u64) -> Vec<GossipEffect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        self.take(event, random, &mut effects);
        for ticket in self.flights.late(self.now) {
            self.failed(ticket, Failure::Silence, random, &mut effects);
        }
        self.plan(random, &mut effects);
        effects
    }

    /// When to send a [`GossipEvent::Tick`] if nothing happens before.
    pub fn next_wakeup(&self) -> Option<u64> {
        let deadline = self.flights.first_deadline().into_iter();
        let times = deadline.chain(self.peers.alarm()).chain(self.own_times());
        times.filter(|at| *at > self.now && *at < u64::MAX).min()
    }

    /// The largest size of the own log that so many peers hold durably, as they have cosigned.
    pub fn mirrored(&self, peers: usize) -> u64 {
        self.counted(peers, |held| held.mirrored)
    }

    /// The largest size that so many peers have found consistent.
    pub fn witnessed(&self, peers: usize) -> u64 {
        self.counted(peers, |held| held.witnessed)
    }

    fn counted(&self, peers: usize, head: impl Fn(&Held) -> Option<Head>) -> u64 {
        let sizes = self.peers.values().map(|peer| head(&peer.held).map_or(0, |head| head.size));
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        peers.checked_sub(1).and_then(|place| sizes.get(place)).copied().unwrap_or(0)
    }

    /// Heads of a log whose notes the shell must keep at hand.
    pub fn heads(&self, origin: &str) -> Vec<Head> {
        self.peers.get(origin).map(|peer| peer.log.heads().collect()).unwrap_or_default()
    }

    /// Whether telling this head could change anything: what is known already need not even be verified. `holds` is how
    /// many entries `from` says it holds, 0 when it does not say.
    pub fn is_news(&self, origin: &str, head: &Head, from: &Name, holds: u64) -> bool {
        match self.peers.get(origin) {
            None => *origin == *self.own.name && *head != self.own.head,
            Some(Peer { log, .. }) => {
                let more = **from != *origin && log.is_more(from, holds);
                !log.is_frozen() && (!log.is_known(*head, self.now) || more)
            }
        }
    }

    /// What a status page shows.
    pub fn facts(&self) -> Vec<PeerFacts> {
        let facts = |(name, peer): (&Name, &Peer)| PeerFacts {
            peer: name.clone(),
            connected: peer.link.connected,
            blamed: peer.link.blamed_until.checked_sub(self.now).filter(|left| *left > 0),
            copy: peer.log.copy.size,
            known: peer.log.heads().map(|head| head.size).max().unwrap_or(0),
            state: peer.log.durable,
            holds: peer.held.holder(name),
            attested: self.attested(&peer.trust),
        };
        self.peers.iter().map(facts).collect()
    }

    fn take(&mut self, event: GossipEvent, random: u64, effects: &mut Vec<GossipEffect>) {
        match event {
            GossipEvent::Tick => {}
            GossipEvent::Own { head, worth, lamport } => self.own.advanced(head, worth, lamport),
            GossipEvent::Awaited { size } => self.own.wait(size),
            GossipEvent::Peers(names) => self.roster(&names),
            GossipEvent::WitnessOnly(names) => {
                for name in self.peers.keys().cloned().collect::<Vec<_>>() {
                    if let Some(peer) = self.peers.get_mut(&name) {
                        peer.heads_only = names.contains(&name);
                    }
                }
            }
            GossipEvent::TakenUp(copy) => {
                let peer = self.peers.get_mut(&copy.origin).filter(|peer| peer.log.is_nothing());
                if let Some(peer) = peer {
                    peer.log = Log::new(&copy);
                }
            }
            GossipEvent::Connected(name) => self.connected(&name),
            GossipEvent::Disconnected(name) => self.disconnected(&name, random, effects),
            GossipEvent::Seen(seen) => self.seen(&seen, effects),
            GossipEvent::HeadsRead { ticket } => {
                let Some(flight) = self.landed(ticket, |purpose| matches!(purpose, Purpose::Heads)) else {
                    return;
                };
                let every = self.config.heads_pause(self.peers.len());
                if let Some(peer) = self.peers.get_mut(&flight.peer) {
                    (peer.link.heads, peer.link.heads_retry, peer.link.answered) =
                        (None, Retry::default(), true);
                    peer.link.heads_at = self.now.saturating_add(every);
                }
            }
            GossipEvent::Verified { ticket, copy, head } => self.verified(ticket, copy, head, effects),
            GossipEvent::Stored { ticket, lacking, lamport } => {
                self.stored(ticket, lacking);
                self.heard_of(lamport, effects);
            }
            GossipEvent::Objects { ticket, got, lacking } => self.objects(ticket, got, lacking),
            GossipEvent::Consistent { ticket, root, head } => {
                self.consistent(ticket, root, head, effects);
            }
            GossipEvent::Taken { ticket } => self.taken(ticket),
            GossipEvent::Failed { ticket, failure } => self.failed(ticket, failure, random, effects),
            GossipEvent::Persisted { ticket } => self.persisted(ticket, effects),
            GossipEvent::NotPersisted { ticket } => {
                if let Some(peer) = self.persisting(ticket).and_then(|name| self.peers.get_mut(&name)) {
                    peer.log.not_persisted(&self.config, self.now, random);
                }
            }
            GossipEvent::Cosigned { from, role, head, ours } => {
                self.cosigned(&from, role, head, ours, effects);
            }
            GossipEvent::Logged { ticket } => {
                self.logged(ticket);
                self.trust_logged(ticket, true, random);
            }
            GossipEvent::NotLogged { ticket } => {
                self.own.not_logged(ticket, &self.config, self.now, random);
                self.trust_logged(ticket, false, random);
            }
            GossipEvent::Forked { origin } => self.forked(&origin, effects),
            GossipEvent::ForkHinted { origin, from } => self.fork_hinted(origin, &from, effects),
            GossipEvent::Outage(outage) => {
                self.outage = outage;
                // When to challenge depends on it.
                self.peers.touch_all();
            }
            GossipEvent::Vouched { ticket, boot } => self.vouched(ticket, boot, effects),
            GossipEvent::Disowned { ticket, why } => self.disowned(ticket, why, effects),
            GossipEvent::BootKept { ticket } => self.boot_kept(ticket, true, random),
            GossipEvent::BootNotKept { ticket } => self.boot_kept(ticket, false, random),
            GossipEvent::BootKnown { peer, boot } => self.boot_known(&peer, boot),
            GossipEvent::BootAccepted(peer) => self.boot_accepted(&peer),
            GossipEvent::Challenged { from, call } => self.challenged(&from, call, effects),
            GossipEvent::QuoteDone { call } => self.quoted(call),
        }
    }

    fn roster(&mut self, names: &[Name]) {
        let wanted: BTreeSet<&Name> = names.iter().filter(|name| **name != self.own.name).collect();
        self.peers.set(&wanted, Peer::new);
        self.peers_changed();
        let peers = &self.peers;
        let gone = self.flights.select(|flight| {
            let log = match &flight.purpose {
                Purpose::Range { origin, .. }
                | Purpose::Objects { origin }
                | Purpose::Consistency { origin, .. } => peers.contains_key(origin),
                _ => true,
            };
            // What is on its way to the disk arrives there, whoever sent it.
            !log || !(flight.purpose.is_storing() || peers.contains_key(&flight.peer))
        });
        for ticket in gone {
            self.flights.remove(ticket);
        }
        for peer in self.peers.all_mut() {
            peer.log.forget(|ticket| self.flights.get(ticket).is_some(), |name| wanted.contains(name));
        }
    }

    fn connected(&mut self, name: &Name) {
        let Some(peer) = self.peers.get_mut(name).filter(|peer| !peer.link.connected) else { return };
        let Link { blamed_until, answered, .. } = peer.link;
        peer.link = Link { connected: true, blamed_until, answered, heads_at: self.now, ..Link::default() };
        peer.log.not_handed();
        // It may have been somewhere else meanwhile, or started into something else.
        peer.trust.ask_again();
        self.peers.all_mut().for_each(|peer| peer.log.try_again(name));
        self.own.hint();
    }

    fn disconnected(&mut self, name: &Name, random: u64, effects: &mut Vec<GossipEffect>) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.link.connected = false;
        for ticket in self.flights.select(|flight| flight.peer == *name && !flight.purpose.is_storing()) {
            self.failed(ticket, Failure::Silence, random, effects);
        }
    }

    /// Takes a question off the list when it was for that.
    fn landed(&mut self, ticket: u64, what: impl Fn(&Purpose) -> bool) -> Option<Flight> {
        let found = self.flights.get(ticket).is_some_and(|flight| what(&flight.purpose));
        let flight = found.then(|| self.flights.remove(ticket)).flatten()?;
        if let Some(peer) = self.peers.get_mut(&flight.peer) {
            peer.link.silences = 0;
        }
        Some(flight)
    }

    fn ask(&mut self, peer: &Name, ask: Ask, purpose: Purpose, effects: &mut Vec<GossipEffect>) -> u64 {
        self.ticket += 1;
        let (ticket, timeout) = (self.ticket, self.config.timeout);
        let deadline = self.now.saturating_add(timeout);
        self.flights.insert(ticket, peer, purpose, deadline);
        effects.push(GossipEffect::Ask { ticket, peer: peer.clone(), ask, timeout });
        ticket
    }

    fn taken(&mut self, ticket: u64) {
        let handed = |purpose: &Purpose| matches!(purpose, Purpose::Cosigned { .. } | Purpose::Fork { .. });
        let Some(flight) = self.landed(ticket, handed) else { return };
        let Some(peer) = self.peers.get_mut(&flight.peer) else { return };
        match flight.purpose {
            Purpose::Fork { origin } => {
                (peer.link.telling, peer.link.tell_retry) = (None, Retry::default());
                peer.link.told.insert(origin);
            }
            Purpose::Cosigned { head, witness, mirror } => {
                (peer.link.handing, peer.link.hand_retry) = (None, Retry::default());
                peer.log.handed(head, witness, mirror);
            }
            _ => {}
        }
    }

    fn failed(&mut self, ticket: u64, failure: Failure, random: u64, effects: &mut Vec<GossipEffect>) {
        let Some(flight) = self.flights.remove(ticket) else { return };
        if let Purpose::Range { origin, storing: storing @ Some(_), .. } = &flight.purpose {
            return self.range_failed(&flight.peer, origin, *storing, failure, random, effects);
        }
        let (config, now) = (&self.config, self.now);
        let Some(peer) = self.peers.get_mut(&flight.peer) else { return };
        let link = &mut peer.link;
        let others = !matches!(flight.purpose, Purpose::Challenge);
        if let (Failure::Refused { after: Some(millis) }, true) = (failure, others) {
            link.busy_until = now.saturating_add(millis.min(config.backoff_max));
        }
        link.silences = if failure == Failure::Silence { link.silences.saturating_add(1) } else { 0 };
        let silent = if link.is_silent(config) { config.silent_max } else { 0 };
        match flight.purpose {
            Purpose::Heads => {
                link.heads = None;
                link.heads_retry.failed_up_to(silent.max(config.backoff_max), config, now, random);
            }
            Purpose::Cosigned { .. } => {
                link.handing = None;
                link.hand_retry.failed(config, now, random);
            }
            Purpose::Fork { .. } => {
                link.telling = None;
                link.tell_retry.failed(config, now, random);
            }
            Purpose::ForkOf => {
                link.asking_fork = None;
                if failure == Failure::False {
                    self.blame(&flight.peer.clone(), &flight.peer, effects);
                }
            }
            Purpose::Range { origin, storing, .. } => {
                self.range_failed(&flight.peer, &origin, storing, failure, random, effects);
            }
            Purpose::Objects { origin } => {
                self.objects_failed(&flight.peer, &origin, failure, random, effects);
            }
            Purpose::Consistency { origin, .. } => {
                self.consistency_failed(&flight.peer, &origin, failure, effects);
            }
            Purpose::Challenge => {
                let after = if let Failure::Refused { after } = failure { after } else { None };
                self.challenge_failed(&flight.peer, after, random);
            }
        }
    }

    /// A peer's answer about a log does not hold.
    fn blame(&mut self, name: &Name, origin: &Name, effects: &mut Vec<GossipEffect>) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.link.blamed_until = self.now.saturating_add(self.config.liar_pause);
            let finding = Finding::Lied { peer: name.clone(), origin: origin.clone() };
            effects.push(GossipEffect::Report(finding));
        }
    }

    fn forked(&mut self, origin: &Name, effects: &mut Vec<GossipEffect>) {
        if *origin == self.own.name {
            if !std::mem::replace(&mut self.own.forked, true) {
                effects.push(GossipEffect::Report(Finding::OwnForked));
            }
        } else if let Some(peer) = self.peers.get_mut(origin) {
            peer.log.freeze();
        }
    }

    fn fork_hinted(&mut self, origin: Name, from: &Name, effects: &mut Vec<GossipEffect>) {
        let known = match self.peers.get(&origin) {
            Some(peer) => peer.log.is_frozen(),
            None => origin != self.own.name || self.own.forked,
        };
        let free = self
            .peers
            .get(from)
            .is_some_and(|peer| peer.link.is_free(self.now) && peer.link.asking_fork.is_none());
        if known || !free {
            return;
        }
        let ticket = self.ask(from, Ask::ForkOf { origin }, Purpose::ForkOf, effects);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.link.asking_fork = Some(ticket);
        }
    }

    fn plan(&mut self, random: u64, effects: &mut Vec<GossipEffect>) {
        self.plan_own(effects);
        let names = self.peers.due(self.now);
        for name in &names {
            self.settle(name, effects);
            self.fetch(name, random, effects);
            self.hand_over(name, effects);
            self.tell_forks(name, effects);
            self.ask_heads(name, effects);
        }
        for name in &names {
            self.challenge(name, effects);
            self.tell_trust(name, effects);
        }
        let (config, period) = (&self.config, self.period());
        self.peers.seen(&names, self.now, |peer| challenge::times(config, period, peer));
    }

    fn ask_heads(&mut self, name: &Name, effects: &mut Vec<GossipEffect>) {
        let now = self.now;
        let due = self.peers.get(name).is_some_and(|Peer { link, .. }| {
            link.is_free(now) && link.heads.is_none() && link.heads_at.max(link.heads_retry.at) <= now
        });
        if due {
            let ticket = self.ask(name, Ask::Heads, Purpose::Heads, effects);
            if let Some(peer) = self.peers.get_mut(name) {
                peer.link.heads = Some(ticket);
            }
        }
    }

    /// Hands cosignatures to the box whose log it is, until it has taken them.
    fn hand_over(&mut self, name: &Name, effects: &mut Vec<GossipEffect>) {
        let Some(Peer { link, log, .. }) = self.peers.get(name) else { return };
        let busy = link.handing.is_some() || link.hand_retry.at > self.now;
        if !link.connected || busy || link.is_silent(&self.config) {
            return;
        }
        let Some((head, witness, mirror)) = log.to_hand() else { return };
        let (ask, purpose) =
            (Ask::Cosigned { head, witness, mirror }, Purpose::Cosigned { head, witness, mirror });
        let ticket = self.ask(name, ask, purpose, effects);
        if let Some(peer) = self.peers.get_mut(name) {
            peer.link.handing = Some(ticket);
        }
    }

    /// Tells a peer of every fork that is durable here.
    fn tell_forks(&mut self, name: &Name, effects: &mut Vec<GossipEffect>) {
        let Some(Peer { link, heads_only, .. }) = self.peers.get(name) else { return };
        let busy = link.telling.is_some() || link.tell_retry.at > self.now;
        if !link.connected || busy || link.is_silent(&self.config) {
            return;
        }
        let tells = |origin: &&Name| !link.told.contains(*origin) && (!heads_only || *origin == name);
        let Some(origin) = self.peers.frozen().iter().find(tells).cloned() else { return };
        let ticket = self.ask(name, Ask::Fork { origin: origin.clone() }, Purpose::Fork { origin }, effects);
        if let Some(peer) = self.peers.get_mut(name) {
            peer.link.telling = Some(ticket);
        }
    }

    /// How many things this machine remembers; bounded by the number of peers.
    pub fn remembered(&self) -> usize {
        let each = |peer: &Peer| peer.log.remembered() + peer.link.told.len() + 24;
        self.flights.len() + self.peers.values().map(each).sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
