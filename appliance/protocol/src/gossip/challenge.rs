//! Whether the neighbours' TPMs still vouch for them, and how often one's own is asked to.
//!
//! A neighbour is challenged when it connects and at a period, more often while this box has an outage. Its answer has been verified outside;
//! here its boot is held against the one that is known. That one is made durable before the neighbour counts as fresh, so
//! that nothing that was seen is forgotten. A neighbour that is not good is still mirrored and witnessed: what it logged is
//! evidence all the more.
//! Refuses to do: accept a changed boot, which people do; ask or quote more often than agreed.
//! Invariants: one challenge is under way to a peer, and none within `quote_gap` of the one before; one quote is under way
//! in this box, and none for the same peer within `quote_gap`; a known boot is only replaced by one that follows it.

use super::{Ask, Finding, Gossip, GossipConfig, GossipEffect, Name, Peer, Purpose, Retry};
use bulla_formats::peer::challenge::{Boot, Distrust};

/// How long a box that is quoting for somebody else has others wait.
const BUSY_MILLIS: u64 = 1_000;
/// An answer is fresh for so many periods.
const FRESH_PERIODS: u64 = 3;

/// How a neighbour stands. Times are those of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attested {
    /// No answer of it was good since this box started.
    Never,
    /// Its answers are good.
    Fresh {
        /// Since when without a gap.
        since: u64,
        /// The last of them.
        last: u64,
    },
    /// They were; none has come for a while.
    Stale {
        /// The last of them.
        last: u64,
    },
    /// Its last one is not.
    Refused {
        /// Why.
        why: Distrust,
        /// Since when.
        since: u64,
    },
}

/// What is known of one neighbour's TPM.
#[derive(Debug, Clone, Default)]
pub(super) struct Trust {
    known: Option<Boot>,
    asking: Option<u64>,
    /// When it was challenged last.
    asked: Option<u64>,
    /// When its last answer came.
    ended: Option<u64>,
    retry: Retry,
    persisting: Option<(u64, Boot)>,
    /// Of good answers: the first without a gap, and the last.
    good: Option<(u64, u64)>,
    bad: Option<(Distrust, u64)>,
    /// What the log says of it.
    told: Option<Distrust>,
    logging: Option<(u64, Option<Distrust>)>,
    log_retry: Retry,
    /// When the own TPM quoted for it last.
    quoted: Option<u64>,
}

impl Trust {
    /// When to challenge it again.
    fn due(&self, config: &GossipConfig, period: Option<u64>) -> Option<u64> {
        let regular = self.ended.map_or(0, |at| at.saturating_add(period.unwrap_or(0)));
        let gap = self.asked.map_or(0, |at| at.saturating_add(config.quote_gap));
        let idle = self.asking.is_none() && self.persisting.is_none() && period.is_some();
        idle.then(|| regular.max(gap).max(self.retry.at))
    }

    /// Whatever the period says, it is challenged as soon as the gap allows.
    pub fn ask_again(&mut self) {
        (self.ended, self.retry) = (None, Retry::default());
    }

    fn is_told(&self) -> bool {
        self.told == self.bad.map(|(why, _)| why)
    }

    fn vouched(&mut self, now: u64, fresh_for: u64) {
        let whole = self.good.filter(|(_, last)| now.saturating_sub(*last) <= fresh_for);
        self.good = Some((whole.map_or(now, |(since, _)| since), now));
        self.bad = None;
    }
}

/// When to look at a peer's challenges again, if they are due every `period`; `u64::MAX` for never.
pub(super) fn times(config: &GossipConfig, period: Option<u64>, peer: &Peer) -> [u64; 2] {
    let Peer { link, log, trust, .. } = peer;
    let askable = link.connected && log.copy.size > 0;
    let due = trust.due(config, period).filter(|_| askable);
    let told = (!trust.is_told() && trust.logging.is_none()).then_some(trust.log_retry.at);
    [due.unwrap_or(u64::MAX), told.unwrap_or(u64::MAX)]
}

impl Gossip {
    /// How often neighbours are challenged now; never for `None`.
    pub(super) fn period(&self) -> Option<u64> {
        let GossipConfig { challenge_every, challenge_outage, .. } = self.config;
        match (self.outage, challenge_every) {
            (true, 0) => Some(challenge_outage),
            (true, every) => Some(every.min(challenge_outage)),
            (false, 0) => None,
            (false, every) => Some(every),
        }
    }

    fn fresh_for(&self) -> u64 {
        FRESH_PERIODS.saturating_mul(self.period().unwrap_or(self.config.challenge_outage))
    }

    pub(super) fn attested(&self, trust: &Trust) -> Attested {
        match (trust.bad, trust.good) {
            (Some((why, since)), _) => Attested::Refused { why, since },
            (None, Some((since, last))) if self.now.saturating_sub(last) <= self.fresh_for() => {
                Attested::Fresh { since, last }
            }
            (None, Some((_, last))) => Attested::Stale { last },
            (None, None) => Attested::Never,
        }
    }

    /// Challenges a neighbour of whose log something is held: who it is, its entry 0 says.
    pub(super) fn challenge(&mut self, name: &Name, effects: &mut Vec<GossipEffect>) {
        let (now, period) = (self.now, self.period());
        let Some(peer) = self.peers.get(name) else { return };
        let due = peer.trust.due(&self.config, period).is_some_and(|at| at <= now);
        if !due || !peer.link.is_free(now) || peer.log.copy.size == 0 {
            return;
        }
        let ticket = self.ask(name, Ask::Challenge, Purpose::Challenge, effects);
        if let Some(peer) = self.peers.get_mut(name) {
            (peer.trust.asking, peer.trust.asked) = (Some(ticket), Some(now));
        }
    }

    /// The answer holds. A TPM's boot is made durable before it counts; a software key has none.
    pub(super) fn vouched(&mut self, ticket: u64, boot: Option<Boot>, effects: &mut Vec<GossipEffect>) {
        let Some(flight) = self.landed(ticket, |purpose| matches!(purpose, Purpose::Challenge)) else {
            return;
        };
        let (now, fresh_for) = (self.now, self.fresh_for());
        let Some(peer) = self.peers.get_mut(&flight.peer) else { return };
        let trust = &mut peer.trust;
        (trust.asking, trust.ended, trust.retry) = (None, Some(now), Retry::default());
        let Some(boot) = boot else { return trust.vouched(now, fresh_for) };
        match trust.known.as_ref().map_or(Ok(()), |known| boot.follows(known)) {
            Ok(()) => {
                trust.persisting = Some((ticket, boot.clone()));
                effects.push(GossipEffect::KeepBoot { ticket, peer: flight.peer, boot });
            }
            Err(why) => self.distrusted(&flight.peer, why, effects),
        }
    }

    /// The boot is durable, or perhaps not.
    pub(super) fn boot_kept(&mut self, ticket: u64, kept: bool, random: u64) {
        let (now, fresh_for, config) = (self.now, self.fresh_for(), self.config.clone());
        let is_it =
            |trust: &Trust| trust.persisting.as_ref().is_some_and(|persisting| persisting.0 == ticket);
        let Some(trust) = self.trust_of(is_it) else { return };
        // It may be on the disk, so nothing that contradicts it may follow.
        trust.known = trust.persisting.take().map(|(_, boot)| boot);
        if kept {
            trust.vouched(now, fresh_for);
        } else {
            trust.ended = None;
            trust.retry.failed(&config, now, random);
        }
    }

    /// The answer does not hold.
    pub(super) fn disowned(&mut self, ticket: u64, why: Distrust, effects: &mut Vec<GossipEffect>) {
        let Some(flight) = self.landed(ticket, |purpose| matches!(purpose, Purpose::Challenge)) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&flight.peer) {
            let trust = &mut peer.trust;
            (trust.asking, trust.ended, trust.retry) = (None, Some(self.now), Retry::default());
        }
        self.distrusted(&flight.peer, why, effects);
    }

    fn distrusted(&mut self, name: &Name, why: Distrust, effects: &mut Vec<GossipEffect>) {
        let now = self.now;
        let Some(trust) = self.peers.get_mut(name).map(|peer| &mut peer.trust) else { return };
        trust.good = None;
        if trust.bad.is_none_or(|(known, _)| known != why) {
            trust.bad = Some((why, now));
            effects.push(GossipEffect::Report(Finding::Distrusted { peer: name.clone(), why }));
        }
    }

    /// No answer came: what is known stays, and grows old.
    pub(super) fn challenge_failed(&mut self, name: &Name, after: Option<u64>, random: u64) {
        let (config, now) = (&self.config, self.now);
        let Some(trust) = self.peers.get_mut(name).map(|peer| &mut peer.trust) else { return };
        (trust.asking, trust.ended) = (None, None);
        trust.retry.failed(config, now, random);
        let after = after.map_or(0, |millis| now.saturating_add(millis.min(config.backoff_max)));
        trust.retry.at = trust.retry.at.max(after);
    }

    /// What is known of a neighbour's boot from before; counts while nothing newer is.
    pub(super) fn boot_known(&mut self, name: &Name, boot: Boot) {
        let trust = self.peers.get_mut(name).map(|peer| &mut peer.trust);
        if let Some(trust) = trust.filter(|trust| trust.known.is_none()) {
            trust.known = Some(boot);
        }
    }

    /// An operator takes whatever boot the neighbour shows next.
    pub(super) fn boot_accepted(&mut self, name: &Name) {
        if let Some(trust) = self.peers.get_mut(name).map(|peer| &mut peer.trust) {
            (trust.known, trust.ended) = (None, None);
        }
    }

    /// A neighbour challenges this box.
    pub(super) fn challenged(&mut self, from: &Name, call: u64, effects: &mut Vec<GossipEffect>) {
        let (now, gap) = (self.now, self.config.quote_gap);
        let quoting = self.quoting.is_some();
        let after = match self.peers.get_mut(from).map(|peer| &mut peer.trust) {
            None => gap,
            Some(trust) => match trust.quoted.map(|at| at.saturating_add(gap)).filter(|at| *at > now) {
                Some(at) => at - now,
                None if quoting => BUSY_MILLIS,
                None => {
                    (trust.quoted, self.quoting) = (Some(now), Some(call));
                    return effects.push(GossipEffect::Quote { call });
                }
            },
        };
        effects.push(GossipEffect::Busy { call, after });
    }

    /// The TPM has answered, or will not.
    pub(super) fn quoted(&mut self, call: u64) {
        self.quoting.take_if(|quoting| *quoting == call);
    }

    /// Has the log say when a neighbour is not good any more, and when it is again.
    pub(super) fn tell_trust(&mut self, name: &Name, effects: &mut Vec<GossipEffect>) {
        let Some(trust) = self.peers.get_mut(name).map(|peer| &mut peer.trust) else { return };
        if trust.is_told() || trust.logging.is_some() || trust.log_retry.at > self.now {
            return;
        }
        self.ticket += 1;
        let (ticket, why) = (self.ticket, trust.bad.map(|(why, _)| why));
        trust.logging = Some((ticket, why));
        effects.push(GossipEffect::LogTrust { ticket, peer: name.clone(), before: trust.told, why });
    }

    /// Whether it was that entry.
    pub(super) fn trust_logged(&mut self, ticket: u64, logged: bool, random: u64) {
        let (now, config) = (self.now, self.config.clone());
        let is_it = |trust: &Trust| trust.logging.as_ref().is_some_and(|logging| logging.0 == ticket);
        let Some(trust) = self.trust_of(is_it) else { return };
        let Some((_, why)) = trust.logging.take() else { return };
        if logged {
            (trust.told, trust.log_retry) = (why, Retry::default());
        } else {
            trust.log_retry.failed(&config, now, random);
        }
    }

    /// The one that this is true of.
    fn trust_of(&mut self, is_it: impl Fn(&Trust) -> bool) -> Option<&mut Trust> {
        let name = self.peers.iter().find(|(_, peer)| is_it(&peer.trust))?.0.clone();
        self.peers.get_mut(&name).map(|peer| &mut peer.trust)
    }
}
