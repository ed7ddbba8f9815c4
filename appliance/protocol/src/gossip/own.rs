//! The own log among its peers: hinting at its heads, counting who holds them, and what they know of it at a start.
//!
//! Invariants: who holds how much is only ever counted up, by cosignatures of trees that this log had; a mirror entry is
//! logged only when it tells of entries that are no mirror entries.

use super::{
    Finding, Gossip, GossipConfig, GossipEffect, GossipStart, Head, Holder, Name, Retry, Seen, Standing,
    merge,
};
use bulla_formats::witness::Role;

/// A hint that somebody waits for is repeated so often.
const HINTS_MAX: u32 = 10;

/// What a peer holds of the own log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub witnessed: Option<Head>,
    pub mirrored: Option<Head>,
    /// Sizes that the newest mirror entry of this run tells of.
    told: (u64, u64),
}

impl Held {
    pub fn holder(&self, peer: &Name) -> Holder {
        Holder { peer: peer.clone(), mirrored: self.mirrored, witnessed: self.witnessed }
    }

    fn sizes(&self) -> (u64, u64) {
        let size = |head: Option<Head>| head.map_or(0, |head| head.size);
        (size(self.mirrored), size(self.witnessed))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Own {
    pub name: Name,
    pub head: Head,
    pub forked: bool,
    worth: u64,
    lamport: u64,
    /// There is a head that was not hinted at.
    due: bool,
    hinted: Option<u64>,
    /// Somebody waits for this size, and has been hinted for so often.
    awaited: u64,
    hints: u32,
    /// Until when a box that starts waits for its peers.
    starting: Option<u64>,
    behind: Option<Head>,
    entry_at: u64,
    /// Whether a mirror entry would tell of entries that none told of before; `None` when that may have changed.
    telling: Option<bool>,
    logging: Option<(u64, Vec<Holder>)>,
    log_retry: Retry,
}

impl Own {
    pub fn new(config: &GossipConfig, start: &GossipStart, now: u64) -> Self {
        Own {
            name: start.own.clone(),
            head: start.head,
            forked: false,
            worth: 0,
            lamport: start.lamport,
            due: true,
            hinted: None,
            awaited: 0,
            hints: 0,
            starting: Some(now.saturating_add(config.start_wait)),
            behind: None,
            entry_at: now.saturating_add(config.entry_every),
            telling: None,
            logging: None,
            log_retry: Retry::default(),
        }
    }

    pub fn advanced(&mut self, head: Head, worth: u64, lamport: u64) {
        if head.size > self.head.size {
            (self.head, self.due) = (head, true);
        }
        self.worth = self.worth.max(worth.min(head.size));
        self.telling = None;
        self.lamport = self.lamport.max(lamport);
    }

    pub fn wait(&mut self, size: u64) {
        if size > self.awaited {
            (self.awaited, self.hints) = (size, 0);
        }
    }

    pub fn hint(&mut self) {
        self.due = true;
    }

    pub fn not_logged(&mut self, ticket: u64, config: &GossipConfig, now: u64, random: u64) {
        if self.logging.take_if(|logging| logging.0 == ticket).is_some() {
            self.log_retry.failed(config, now, random);
        }
    }
}

impl Gossip {
    /// A head of the own log came from outside.
    pub(super) fn own_seen(&mut self, seen: &Seen, effects: &mut Vec<GossipEffect>) {
        if seen.head.size > self.own.head.size || seen.ours != Some(seen.head.root) {
            self.behind(seen.head, &seen.from, effects);
        }
    }

    /// A peer knows what the own log does not.
    fn behind(&mut self, head: Head, from: &Name, effects: &mut Vec<GossipEffect>) {
        if self.own.behind.is_none_or(|known| known.size < head.size) {
            self.own.behind = Some(head);
            self.own.starting = None;
            effects.push(GossipEffect::Standing(Standing::Behind { head, from: from.clone() }));
        }
    }

    /// A neighbour's entries of that Lamport time have been stored.
    pub(super) fn heard_of(&mut self, lamport: u64, effects: &mut Vec<GossipEffect>) {
        let time = merge::take_over(self.own.lamport, lamport, self.config.lamport_cap);
        if time > self.own.lamport {
            self.own.lamport = time;
            effects.push(GossipEffect::Lamport { time });
        }
    }

    pub(super) fn cosigned(
        &mut self,
        from: &Name,
        role: Role,
        head: Head,
        ours: bool,
        effects: &mut Vec<GossipEffect>,
    ) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        if !ours {
            let finding = Finding::OtherTree { peer: from.clone(), head };
            effects.push(GossipEffect::Report(finding));
            return;
        }
        let held = match role {
            Role::Witness => &mut peer.held.witnessed,
            Role::Mirror => &mut peer.held.mirrored,
        };
        if held.is_none_or(|held| held.size < head.size) {
            *held = Some(head);
            self.own.telling = None;
            effects.push(GossipEffect::Counted);
        }
    }

    pub(super) fn logged(&mut self, ticket: u64) {
        let Some((_, holders)) = self.own.logging.take_if(|logging| logging.0 == ticket) else { return };
        (self.own.log_retry, self.own.telling) = (Retry::default(), None);
        self.own.entry_at = self.now.saturating_add(self.config.entry_every);
        let size = |head: Option<Head>| head.map_or(0, |head| head.size);
        for holder in holders {
            if let Some(peer) = self.peers.get_mut(&holder.peer) {
                peer.held.told = (size(holder.mirrored), size(holder.witnessed));
            }
        }
    }

    pub(super) fn peers_changed(&mut self) {
        self.own.telling = None;
    }

    fn is_worth_telling(&self) -> bool {
        let worth = self.own.worth;
        self.peers.values().any(|peer| {
            let (mirrored, witnessed) = peer.held.sizes();
            mirrored.min(worth) > peer.held.told.0 || witnessed.min(worth) > peer.held.told.1
        })
    }

    /// When the head is to be hinted at.
    fn hint_at(&self) -> Option<u64> {
        let Own { due, hinted, awaited, hints, .. } = self.own;
        // Most of the time there is nothing to tell: then nobody is looked at.
        let waits = (due || hints < HINTS_MAX)
            && awaited > 0
            && awaited <= self.own.head.size
            && self.peers.values().any(|peer| peer.link.connected && peer.held.sizes().0 < awaited);
        let Some(hinted) = hinted else { return Some(self.now) };
        match (due, waits) {
            (true, true) => Some(hinted.saturating_add(self.config.hint_gap)),
            (false, true) if hints == 0 => Some(hinted.saturating_add(self.config.hint_gap)),
            (false, true) if hints < HINTS_MAX => Some(hinted.saturating_add(self.config.hint_again)),
            (true, false) => Some(hinted.saturating_add(self.config.hint_every)),
            (false, _) => None,
        }
    }

    pub(super) fn own_times(&self) -> impl Iterator<Item = u64> {
        let telling = self.own.logging.is_none() && self.own.telling.unwrap_or(false);
        let entry = telling.then(|| self.own.entry_at.max(self.own.log_retry.at));
        self.hint_at().into_iter().chain(self.own.starting).chain(entry)
    }

    pub(super) fn plan_own(&mut self, effects: &mut Vec<GossipEffect>) {
        self.start_over(effects);
        if self.hint_at().is_some_and(|at| at <= self.now) {
            (self.own.due, self.own.hinted) = (false, Some(self.now));
            self.own.hints = self.own.hints.saturating_add(1);
            effects.push(GossipEffect::Hint);
        }
        let telling = self.own.telling.unwrap_or_else(|| self.is_worth_telling());
        self.own.telling = Some(telling);
        let at = self.own.entry_at.max(self.own.log_retry.at);
        if self.own.logging.is_none() && at <= self.now && telling {
            self.ticket += 1;
            let holders = self.peers.iter().filter(|(_, peer)| peer.held.sizes() != (0, 0));
            let holders: Vec<Holder> = holders.map(|(name, peer)| peer.held.holder(name)).collect();
            self.own.logging = Some((self.ticket, holders.clone()));
            effects.push(GossipEffect::LogMirror { ticket: self.ticket, holders });
        }
    }

    /// Ends the wait of a box that starts: when everybody has answered, or it is over.
    fn start_over(&mut self, effects: &mut Vec<GossipEffect>) {
        let Some(until) = self.own.starting else { return };
        let answered = self.peers.values().filter(|peer| peer.link.answered).count();
        if answered < self.peers.len() && self.now < until {
            return;
        }
        self.own.starting = None;
        let standing = if answered > 0 { Standing::Equal } else { Standing::Nobody };
        effects.push(GossipEffect::Standing(standing));
    }
}
