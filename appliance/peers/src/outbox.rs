//! What waits for whoever reads the events. Every kind has its own bound, so that none pushes out another.
//!
//! - Who is connected is kept as it is now and as it was last told: however often a cable comes and goes, one event waits.
//! - Answers are bounded by the requests of ours that are under way, requests by what each peer may have waiting.
//! - Hints and reports beyond their bound are dropped; nothing rests on them.

use crate::error::AskFailure;
use crate::event::{AskId, Event, Gone, Reply};
use crate::key::PeerKey;
use libp2p::request_response::InboundRequestId;
use std::collections::{HashMap, VecDeque};

/// Reports that wait.
const REPORTS_MAX: usize = 64;

/// An answer of a peer, or why there is none.
pub(crate) struct Answered {
    pub(crate) id: AskId,
    pub(crate) peer: PeerKey,
    pub(crate) result: Result<Vec<u8>, AskFailure>,
    /// Given back when the event has been handed over.
    pub(crate) place: tokio::sync::OwnedSemaphorePermit,
}

/// A request of a peer.
pub(crate) struct Asked {
    pub(crate) id: InboundRequestId,
    pub(crate) from: PeerKey,
    pub(crate) bytes: Vec<u8>,
    pub(crate) reply: Reply,
}

#[derive(Debug)]
struct Standing {
    told: bool,
    now: Result<(), Gone>,
}

/// Events, and what becomes one.
#[derive(Default)]
pub(crate) struct Outbox {
    standings: HashMap<PeerKey, Standing>,
    /// Whose standing may be news.
    changed: VecDeque<PeerKey>,
    answered: VecDeque<Answered>,
    asked: VecDeque<Asked>,
    hints: VecDeque<(PeerKey, Vec<u8>)>,
    reports: VecDeque<Event>,
    hints_max: usize,
}

impl Outbox {
    pub(crate) fn new(hints_max: usize) -> Self {
        Outbox { hints_max, ..Outbox::default() }
    }

    /// A peer is there, or is not.
    pub(crate) fn stands(&mut self, peer: PeerKey, now: Result<(), Gone>) {
        let standing = self.standings.entry(peer).or_insert(Standing { told: false, now });
        standing.now = now;
        if !self.changed.contains(&peer) {
            self.changed.push_back(peer);
        }
    }

    pub(crate) fn answered(&mut self, answered: Answered) {
        self.answered.push_back(answered);
    }

    pub(crate) fn asked(&mut self, asked: Asked) {
        self.asked.push_back(asked);
    }

    /// Nobody waits for an answer to this request any more. True: nobody has seen it, either.
    pub(crate) fn withdraw(&mut self, id: InboundRequestId) -> bool {
        let before = self.asked.len();
        self.asked.retain(|asked| asked.id != id);
        self.asked.len() < before
    }

    /// False: dropped.
    pub(crate) fn hint(&mut self, from: PeerKey, bytes: Vec<u8>) -> bool {
        let room = self.hints.len() < self.hints_max;
        if room {
            self.hints.push_back((from, bytes));
        }
        room
    }

    pub(crate) fn report(&mut self, event: Event) {
        if self.reports.len() < REPORTS_MAX {
            self.reports.push_back(event);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty()
            && self.answered.is_empty()
            && self.asked.is_empty()
            && self.hints.is_empty()
            && self.reports.is_empty()
    }

    /// Answers that wait.
    pub(crate) fn answers_waiting(&self) -> usize {
        self.answered.len()
    }

    /// What is to be told next.
    pub(crate) fn next(&mut self) -> Option<Event> {
        while let Some(peer) = self.changed.pop_front() {
            let Some(standing) = self.standings.get_mut(&peer) else { continue };
            let (told, now) = (standing.told, standing.now);
            standing.told = now.is_ok();
            if now.is_err() {
                self.standings.remove(&peer);
            }
            match (told, now) {
                (false, Ok(())) => return Some(Event::Connected { peer }),
                (true, Err(why)) => return Some(Event::Disconnected { peer, why }),
                _ => {}
            }
        }
        if let Some(Answered { id, peer, result, place }) = self.answered.pop_front() {
            drop(place);
            return Some(Event::Answered { id, peer, result });
        }
        if let Some(Asked { from, bytes, reply, .. }) = self.asked.pop_front() {
            return Some(Event::Asked { from, bytes, reply });
        }
        if let Some((from, bytes)) = self.hints.pop_front() {
            return Some(Event::Hint { from, bytes });
        }
        self.reports.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_comes_and_goes_is_one_event() {
        let mut outbox = Outbox::new(2);
        let peer = PeerKey::new([1; 32]);
        for _ in 0..1000 {
            outbox.stands(peer, Ok(()));
            outbox.stands(peer, Err(Gone::Closed));
        }
        assert!(outbox.next().is_none(), "nobody was told of it");
        outbox.stands(peer, Ok(()));
        assert!(matches!(outbox.next(), Some(Event::Connected { .. })));
        for _ in 0..1000 {
            outbox.stands(peer, Err(Gone::Closed));
            outbox.stands(peer, Ok(()));
        }
        assert!(outbox.next().is_none(), "it is there, as told");
        outbox.stands(peer, Err(Gone::Silent));
        assert!(matches!(outbox.next(), Some(Event::Disconnected { why: Gone::Silent, .. })));
        assert!(outbox.is_empty());
    }

    #[test]
    fn hints_beyond_the_bound_are_dropped() {
        let mut outbox = Outbox::new(2);
        let peer = PeerKey::new([1; 32]);
        assert_eq!([0; 4].map(|byte| outbox.hint(peer, vec![byte])), [true, true, false, false]);
    }
}
