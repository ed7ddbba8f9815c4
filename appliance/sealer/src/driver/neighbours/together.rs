//! Heads that are anchored together: what the outage thread and the neighbours say to each other about them is carried here.
//!
//! Refuses to do: decide, which the outage thread does with `bulla_protocol::site`; carry anything to or from boxes to which
//! only heads are told, or while a rollback is suspected; pass on a head that the neighbour's log has not signed.
//! Invariant: every question of the outage thread is told what became of it, or its neighbour is said to be gone.

use super::answer::respond;
use super::desk::Desk;
use crate::config::Level;
use crate::driver::outage::SiteNews;
use bulla_formats::note::SignedNote;
use bulla_formats::peer::message::{Answer, Asked, Question, Refusal, Said};
use bulla_formats::peer::site::{SiteAsked, SiteWish};
use bulla_peers::{AskFailure, AskId, PeerKey, Reply};
use bulla_protocol::gossip::{Head, Name};
use std::collections::{BTreeSet, HashMap};

/// What the outage thread wants carried.
pub(in crate::driver) enum SiteWord {
    /// Ask a neighbour; the ticket names it in what becomes of it.
    Ask(u64, Name, Box<SiteAsked>),
    /// Show what went wrong with a neighbour.
    Trouble(Name, String),
}

/// A question under way.
struct Put {
    ticket: u64,
    peer: Name,
    offer: bool,
}

/// What the thread remembers of it.
#[derive(Default)]
pub(super) struct Together {
    put: HashMap<AskId, Put>,
    /// Who was said to be there.
    told: BTreeSet<Name>,
}

impl Desk {
    /// Who is there to anchor together with.
    pub(super) fn look_at_site(&mut self) {
        let shares = self.config.anchor_together && !self.is_halted();
        let there = self.machine.facts().into_iter().filter(|peer| shares && peer.connected);
        let there: BTreeSet<Name> = there
            .filter(|peer| !peer.state.frozen && self.level(&peer.peer) == Level::Entries)
            .map(|peer| peer.peer)
            .collect();
        if there == self.together.told {
            return;
        }
        for gone in self.together.told.difference(&there) {
            self.outage.site(SiteNews::Disconnected(gone.clone()));
        }
        for new in there.difference(&self.together.told) {
            self.outage.site(SiteNews::Connected(new.clone()));
        }
        self.together.told = there;
    }

    /// Does what the outage thread wants.
    pub(super) fn say_of_site(&mut self, word: SiteWord) {
        match word {
            SiteWord::Trouble(peer, what) => {
                if self.cards.contains_key(&peer) {
                    self.troubles.insert(peer, what);
                }
            }
            SiteWord::Ask(ticket, peer, asked) => {
                let offer = asked.anchored.is_none();
                let question = Question::new(Asked::Site(*asked)).encode();
                let card = self.cards.get(&peer).filter(|_| self.together.told.contains(&peer));
                let put = card.map(|card| self.wire.ask(PeerKey::new(*card.transport_key()), question));
                match put {
                    Some(Ok(id)) => drop(self.together.put.insert(id, Put { ticket, peer, offer })),
                    Some(Err(_)) | None => self.outage.site(SiteNews::Failed(ticket)),
                }
            }
        }
    }

    /// A neighbour asks; the outage thread answers.
    pub(super) fn asked_of_site(&mut self, from: &Name, asked: SiteAsked, reply: Reply) {
        self.look_at_site();
        if !self.together.told.contains(from) {
            return respond(from, reply, Err((Refusal::NotNeeded, None)));
        }
        self.outage.site(match asked.anchored {
            None => SiteNews::Offered(from.clone(), reply),
            Some(anchor) => SiteNews::Handed(from.clone(), Box::new(anchor), reply),
        });
    }

    /// The end of a question of the outage thread; whether it was one.
    pub(super) fn site_answered(&mut self, id: AskId, result: &Result<Vec<u8>, AskFailure>) -> bool {
        let Some(Put { ticket, peer, offer }) = self.together.put.remove(&id) else { return false };
        let said =
            result.as_ref().ok().and_then(|bytes| Answer::decode(bytes).ok()).map(|answer| answer.said);
        let news = match (offer, said) {
            (true, Some(Said::Site(wish))) => {
                let head = self.wished(&peer, &wish);
                if head.is_none() {
                    log::warn!("{peer} wants something anchored that is no head of its log");
                }
                head.map_or(SiteNews::Failed(ticket), |head| SiteNews::Wished(ticket, head))
            }
            (false, Some(Said::Taken(()))) => SiteNews::Taken { ticket, taken: true },
            (false, Some(Said::Refused(refused))) => {
                if refused.code == Refusal::NotGenuine.name() {
                    log::warn!("{peer} finds that an anchor handed to it does not hold");
                }
                SiteNews::Taken { ticket, taken: false }
            }
            (_, Some(_) | None) => SiteNews::Failed(ticket),
        };
        self.outage.site(news);
        true
    }

    /// The head that a neighbour wants anchored: one of its own log, signed by it.
    fn wished(&mut self, peer: &Name, wish: &SiteWish) -> Option<Head> {
        let note = SignedNote::parse(&wish.head).ok()?;
        let checkpoint = self.opened(peer, &note).filter(|_| *wish.origin == **peer)?;
        self.hear(peer, &wish.head, 0);
        Some(Head { size: checkpoint.size(), root: checkpoint.root() })
    }
}
