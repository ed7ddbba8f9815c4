//! Heads of a site anchored together: who asks authorities for whom, and what neighbours are told of it.
//!
//! Whoever is about to ask offers its neighbours to take their heads along. Who lacks an anchor gives its newest head and
//! holds off asking by itself for a bounded time; what came is handed over, verified by whoever receives it, and logged
//! there like an answer of its own. Of two that are about to ask at the same time the first by name does.
//! Refuses to do: I/O, clocks; ask authorities or count quotas ([`crate::anchoring`] does); verify, which the shell does with
//! `bulla-formats`; believe an offer, an anchor, or a neighbour that let this box wait before.
//! Invariants: nothing is taken but over a head that was given to that very neighbour a while ago; this box holds off for
//! `hold_off` at most, twice in a row, then not for as long; when nothing came of it, not again before an anchor is in its log; a neighbour
//! whose anchor did not hold is left alone for a while. Memory is a few heads and tickets for every neighbour.

use crate::gossip::{Head, Name};
use std::collections::{BTreeMap, VecDeque};

/// Heads that one neighbour was given and has not brought back.
const GIVEN_MAX: usize = 4;
/// So often a box holds off one time after the other when something came of it: once for each of two authorities that are
/// seen one after the other.
const IN_A_ROW_MAX: u32 = 2;

/// What the machine goes by. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteConfig {
    /// How long neighbours' heads are waited for.
    pub answer_wait: u64,
    /// How long a box that has given its head asks nobody itself.
    pub hold_off: u64,
    /// How long a neighbour is left alone whose anchor did not hold.
    pub liar_pause: u64,
    /// How long the answer to an anchor handed over is waited for.
    pub hand_wait: u64,
    /// Pause before it is handed over again.
    pub hand_again: u64,
    /// For how long that goes on.
    pub hand_for: u64,
}

impl Default for SiteConfig {
    fn default() -> Self {
        SiteConfig {
            answer_wait: 2_000,
            hold_off: 30_000,
            liar_pause: 600_000,
            hand_wait: 15_000,
            hand_again: 5_000,
            hand_for: 600_000,
        }
    }
}

/// What a neighbour is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteAsk {
    /// For the head that it wants anchored.
    Offer,
    /// To take what came.
    HandOver {
        /// Ticket of the gathering.
        gather: u64,
    },
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteEvent {
    /// Time has passed.
    Tick,
    /// A neighbour that anchors are shared with can be asked.
    Connected(Name),
    /// It cannot, or is none any more.
    Disconnected(Name),
    /// This box is about to ask authorities.
    Gather {
        /// Names it in the effect.
        ticket: u64,
    },
    /// A neighbour has given a head, signed by its log.
    Wished {
        /// The question's ticket.
        ticket: u64,
        /// The head.
        head: Head,
    },
    /// What was handed over has been judged: taken, or refused for good.
    Taken {
        /// The question's ticket.
        ticket: u64,
    },
    /// A neighbour gives nothing, or does not answer.
    Failed {
        /// The question's ticket.
        ticket: u64,
    },
    /// Proofs came over what was gathered, and can be handed over.
    Anchored {
        /// Ticket of the gathering.
        gather: u64,
    },
    /// A neighbour offers.
    Offered {
        /// Which one.
        from: Name,
        /// Names it in the effect.
        call: u64,
        /// The newest head that the own log has signed, if something under it wants an anchor.
        lacking: Option<Head>,
    },
    /// A neighbour hands over an anchor.
    Handed {
        /// Which one.
        from: Name,
        /// Names it in the effect.
        call: u64,
        /// What came of judging it.
        judged: Judged,
    },
    /// An anchor of the own log is durable in it.
    Logged,
}

/// What an anchor that was handed over is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It is over this head, which the own log had, and every stamp in it that this box can judge holds.
    Holds {
        /// The head.
        head: Head,
        /// How many stamps are by authorities of this box.
        stamps: usize,
    },
    /// It is not what it says.
    False,
}

/// What a neighbour is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteAnswer {
    /// The head that was said to be lacking an anchor.
    Give,
    /// It is taken.
    Taken,
    /// Nothing is wanted.
    NotNeeded,
    /// It does not hold.
    NotGenuine,
}

/// What people should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteFinding {
    /// What a neighbour handed over does not hold. It is left alone for a while.
    Lied {
        /// The neighbour.
        peer: Name,
    },
    /// A neighbour had this box wait, and brought nothing.
    Late {
        /// The neighbour.
        peer: Name,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteEffect {
    /// Ask a neighbour.
    Ask {
        /// Names it in the answer.
        ticket: u64,
        /// Whom.
        peer: Name,
        /// What.
        ask: SiteAsk,
    },
    /// These heads go into the batch; tell the planner.
    Gathered {
        /// Its ticket.
        ticket: u64,
        /// Of each neighbour that gave one, in ascending order of names.
        heads: Vec<(Name, Head)>,
    },
    /// Tell the planner to ask nobody before this time; 0: not any more.
    HoldOff {
        /// When.
        until: u64,
    },
    /// Answer a neighbour.
    Answer {
        /// Whom.
        call: u64,
        /// What.
        answer: SiteAnswer,
    },
    /// Tell the planner of the anchor that was handed over in this call.
    Take {
        /// Which one.
        call: u64,
    },
    /// Tell people.
    Report(SiteFinding),
}

#[derive(Debug, Clone)]
struct Gathering {
    ticket: u64,
    until: u64,
    /// Tickets of those that have not answered yet.
    asked: BTreeMap<u64, Name>,
    heads: BTreeMap<Name, Head>,
}

/// What a neighbour is to be handed.
#[derive(Debug, Clone)]
struct Owed {
    gather: u64,
    until: u64,
    again: u64,
    asking: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Peer {
    connected: bool,
    blamed_until: u64,
    /// And until when it may bring them back.
    given: VecDeque<(Head, u64)>,
    owed: Option<Owed>,
}

/// What a status page shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteFacts {
    /// For whom this box holds off, and for how long still.
    pub holding: Option<(Name, u64)>,
    /// Neighbours that are still to be handed an anchor.
    pub owed: usize,
    /// Neighbours that are left alone because an anchor of theirs did not hold.
    pub blamed: Vec<Name>,
}

/// Decides who is offered, given and handed what.
#[derive(Debug, Clone)]
pub struct Site {
    config: SiteConfig,
    own: Name,
    now: u64,
    ticket: u64,
    peers: BTreeMap<Name, Peer>,
    gathering: Option<Gathering>,
    /// Who gave heads for the last gathering.
    gathered: Option<(u64, Vec<Name>)>,
    hold: Option<(Name, u64)>,
    /// It held off since the last anchor was logged, and nothing came.
    in_vain: bool,
    /// It does not hold off before.
    rest_until: u64,
    /// So often it has held off without a rest.
    in_a_row: u32,
}

impl Site {
    /// A machine of a box that starts, and is of this name.
    pub fn new(config: SiteConfig, own: Name) -> Self {
        let (peers, gathering, gathered, hold) = (BTreeMap::new(), None, None, None);
        let (now, ticket, in_vain, rest_until, in_a_row) = (0, 0, false, 0, 0);
        Site { config, own, now, ticket, peers, gathering, gathered, hold, in_vain, rest_until, in_a_row }
    }

    /// What follows from `event`. `now` is in milliseconds of a clock that only goes forward, the planner's.
    pub fn handle(&mut self, event: SiteEvent, now: u64) -> Vec<SiteEffect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        self.take(event, &mut effects);
        self.time_out(&mut effects);
        self.end_gathering(&mut effects);
        self.hand_over(&mut effects);
        effects
    }

    /// When to send a [`SiteEvent::Tick`] if nothing happens before.
    pub fn next_wakeup(&self) -> Option<u64> {
        let owed = self.peers.values().filter(|peer| peer.connected).filter_map(|peer| peer.owed.as_ref());
        let owed = owed.map(|owed| owed.asking.map_or(owed.again, |(_, until)| until).min(owed.until));
        let gathering = self.gathering.as_ref().map(|gathering| gathering.until);
        let hold = self.hold.as_ref().map(|(_, until)| *until);
        owed.chain(gathering).chain(hold).filter(|at| *at > self.now).min()
    }

    /// Whether what came over this gathering is still to be handed to somebody, or may be.
    pub fn wants(&self, gather: u64) -> bool {
        self.gathered.as_ref().is_some_and(|(of, _)| *of == gather)
            || self.peers.values().any(|peer| peer.owed.as_ref().is_some_and(|owed| owed.gather == gather))
    }

    /// What a status page shows.
    pub fn facts(&self) -> SiteFacts {
        let blamed = self.peers.iter().filter(|(_, peer)| peer.blamed_until > self.now);
        SiteFacts {
            holding: self.hold.as_ref().map(|(from, until)| (from.clone(), until.saturating_sub(self.now))),
            owed: self.peers.values().filter(|peer| peer.owed.is_some()).count(),
            blamed: blamed.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// How many things this machine remembers; bounded by the number of peers.
    pub fn remembered(&self) -> usize {
        let gathering =
            self.gathering.as_ref().map_or(0, |gathering| gathering.asked.len() + gathering.heads.len());
        let gathered = self.gathered.as_ref().map_or(0, |(_, names)| names.len());
        gathering + gathered + self.peers.values().map(|peer| 2 + peer.given.len()).sum::<usize>()
    }

    fn take(&mut self, event: SiteEvent, effects: &mut Vec<SiteEffect>) {
        match event {
            SiteEvent::Tick => {}
            SiteEvent::Connected(name) => {
                if name != self.own {
                    self.peers.entry(name).or_default().connected = true;
                }
            }
            SiteEvent::Disconnected(name) => self.disconnected(&name, effects),
            SiteEvent::Gather { ticket } => self.gather(ticket, effects),
            SiteEvent::Wished { ticket, head } => {
                if let Some(gathering) = &mut self.gathering
                    && let Some(peer) = gathering.asked.remove(&ticket)
                {
                    gathering.heads.insert(peer, head);
                }
            }
            SiteEvent::Taken { ticket } => {
                for peer in self.peers.values_mut() {
                    let asked = |owed: &mut Owed| owed.asking.is_some_and(|(of, _)| of == ticket);
                    peer.owed.take_if(asked);
                }
            }
            SiteEvent::Failed { ticket } => self.failed(ticket),
            SiteEvent::Anchored { gather } => self.anchored(gather),
            SiteEvent::Offered { from, call, lacking } => self.offered(&from, call, lacking, effects),
            SiteEvent::Handed { from, call, judged } => self.handed(&from, call, judged, effects),
            SiteEvent::Logged => {
                self.in_vain = false;
                self.release(effects);
            }
        }
    }

    fn disconnected(&mut self, name: &Name, effects: &mut Vec<SiteEffect>) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.connected = false;
        if let Some(owed) = &mut peer.owed {
            owed.asking = None;
        }
        if let Some(gathering) = &mut self.gathering {
            gathering.asked.retain(|_, asked| asked != name);
        }
        if self.hold.as_ref().is_some_and(|(from, _)| from == name) {
            self.in_vain = true;
            self.release(effects);
        }
    }

    fn gather(&mut self, ticket: u64, effects: &mut Vec<SiteEffect>) {
        let (now, mut asked) = (self.now, BTreeMap::new());
        let there = self.peers.iter().filter(|(_, peer)| peer.connected && peer.blamed_until <= now);
        for name in there.map(|(name, _)| name.clone()) {
            self.ticket += 1;
            asked.insert(self.ticket, name.clone());
            effects.push(SiteEffect::Ask { ticket: self.ticket, peer: name, ask: SiteAsk::Offer });
        }
        let until = now.saturating_add(self.config.answer_wait);
        self.gathering = Some(Gathering { ticket, until, asked, heads: BTreeMap::new() });
    }

    /// Everybody has answered, or there was time enough.
    fn end_gathering(&mut self, effects: &mut Vec<SiteEffect>) {
        let now = self.now;
        let over = |gathering: &mut Gathering| gathering.asked.is_empty() || gathering.until <= now;
        let Some(Gathering { ticket, heads, .. }) = self.gathering.take_if(over) else { return };
        self.gathered = Some((ticket, heads.keys().cloned().collect()));
        effects.push(SiteEffect::Gathered { ticket, heads: heads.into_iter().collect() });
    }

    fn failed(&mut self, ticket: u64) {
        if let Some(gathering) = &mut self.gathering {
            gathering.asked.remove(&ticket);
        }
        let again = self.now.saturating_add(self.config.hand_again);
        for owed in self.peers.values_mut().filter_map(|peer| peer.owed.as_mut()) {
            if owed.asking.take_if(|(of, _)| *of == ticket).is_some() {
                owed.again = again;
            }
        }
    }

    fn anchored(&mut self, gather: u64) {
        let Some((_, names)) = self.gathered.take_if(|(of, _)| *of == gather) else { return };
        let until = self.now.saturating_add(self.config.hand_for);
        for name in names {
            // What came before is of a smaller tree: who has not taken it yet does better with this.
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.owed = Some(Owed { gather, until, again: self.now, asking: None });
            }
        }
    }

    fn hand_over(&mut self, effects: &mut Vec<SiteEffect>) {
        let (now, wait) = (self.now, self.config.hand_wait);
        for (name, peer) in &mut self.peers {
            let Some(owed) = peer.owed.as_mut().filter(|_| peer.connected) else { continue };
            if owed.asking.is_none() && owed.again <= now {
                self.ticket += 1;
                owed.asking = Some((self.ticket, now.saturating_add(wait)));
                let ask = SiteAsk::HandOver { gather: owed.gather };
                effects.push(SiteEffect::Ask { ticket: self.ticket, peer: name.clone(), ask });
            }
        }
    }

    fn offered(&mut self, from: &Name, call: u64, lacking: Option<Head>, effects: &mut Vec<SiteEffect>) {
        let (now, config) = (self.now, &self.config);
        let waits = self.hold.is_none() && !self.in_vain && self.rest_until <= now;
        // Who is about to ask itself leaves it to the first by name, unless that one had it wait for nothing.
        let mine = self.gathering.is_some() && !(*from < self.own && waits);
        let peer = self.peers.get_mut(from).filter(|peer| peer.connected && peer.blamed_until <= now);
        let (Some(peer), Some(head), false) = (peer, lacking, mine) else {
            return effects.push(SiteEffect::Answer { call, answer: SiteAnswer::NotNeeded });
        };
        peer.given.retain(|(given, _)| *given != head);
        peer.given.push_back((head, now.saturating_add(config.hand_for)));
        if peer.given.len() > GIVEN_MAX {
            peer.given.pop_front();
        }
        self.gathering = None;
        if waits {
            let until = now.saturating_add(config.hold_off);
            self.hold = Some((from.clone(), until));
            effects.push(SiteEffect::HoldOff { until });
        }
        effects.push(SiteEffect::Answer { call, answer: SiteAnswer::Give });
    }

    fn handed(&mut self, from: &Name, call: u64, judged: Judged, effects: &mut Vec<SiteEffect>) {
        let held = self.hold.as_ref().is_some_and(|(of, _)| of == from);
        let (now, pause) = (self.now, self.config.liar_pause);
        let answer = match (self.peers.get_mut(from), judged) {
            (Some(peer), _) if peer.blamed_until > now => SiteAnswer::NotNeeded,
            (Some(peer), Judged::False) => {
                (peer.blamed_until, peer.owed) = (now.saturating_add(pause), None);
                peer.given.clear();
                effects.push(SiteEffect::Report(SiteFinding::Lied { peer: from.clone() }));
                SiteAnswer::NotGenuine
            }
            (Some(peer), Judged::Holds { head, stamps })
                if peer.given.iter().any(|(given, until)| *given == head && *until > now) =>
            {
                // One head, one anchor: more of the same would only fill the log.
                peer.given.retain(|(given, _)| given.size > head.size);
                if stamps > 0 { SiteAnswer::Taken } else { SiteAnswer::NotNeeded }
            }
            _ => SiteAnswer::NotNeeded,
        };
        effects.push(SiteEffect::Answer { call, answer });
        if answer == SiteAnswer::Taken {
            // Before this box may ask again: it has nothing to ask for.
            effects.push(SiteEffect::Take { call });
        }
        if held {
            self.in_vain |= answer != SiteAnswer::Taken;
            self.release(effects);
        }
    }

    fn release(&mut self, effects: &mut Vec<SiteEffect>) {
        if self.hold.take().is_some() {
            self.in_a_row += 1;
            if self.in_vain || self.in_a_row >= IN_A_ROW_MAX {
                (self.in_a_row, self.rest_until) = (0, self.now.saturating_add(self.config.hold_off));
            }
            effects.push(SiteEffect::HoldOff { until: 0 });
        }
    }

    fn time_out(&mut self, effects: &mut Vec<SiteEffect>) {
        let now = self.now;
        let late = self.hold.as_ref().filter(|(_, until)| *until <= now).map(|(from, _)| from.clone());
        if let Some(peer) = late {
            self.in_vain = true;
            self.release(effects);
            effects.push(SiteEffect::Report(SiteFinding::Late { peer }));
        }
        let again = now.saturating_add(self.config.hand_again);
        for peer in self.peers.values_mut() {
            peer.owed.take_if(|owed| owed.until <= now);
            peer.given.retain(|(_, until)| *until > now);
            if let Some(owed) = &mut peer.owed
                && owed.asking.take_if(|(_, until)| *until <= now).is_some()
            {
                owed.again = again;
            }
        }
        let idle = |peer: &Peer| {
            peer.connected || peer.blamed_until > now || peer.owed.is_some() || !peer.given.is_empty()
        };
        self.peers.retain(|_, peer| idle(peer));
    }
}

#[cfg(test)]
mod tests;
