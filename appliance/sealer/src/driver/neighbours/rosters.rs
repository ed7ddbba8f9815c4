//! Rosters among neighbours: taken from whoever has a newer one, logged, handed on; and what follows for who is let in.
//!
//! Refuses to do: hand the fleet's roster to a box of another fleet; believe whoever brings one.
//! Invariant: whoever a roster shuts out is off the wire's list before this thread does anything else.

use super::desk::Desk;
use crate::driver::Command;
use crate::peers::{Learnt, RosterFault, allowed};
use bulla_formats::body::roster::Came;
use bulla_formats::der;
use bulla_formats::entry::Kind;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::message::{Answer, Asked, Hint, Question, Refusal, Said};
use bulla_formats::peer::roster::{RosterAsked, RosterKnown, RosterSaid};
use bulla_peers::{AskFailure, AskId, PeerKey};
use bulla_protocol::gossip::{GossipEvent, Name};
use bulla_roster::delivery;
use bulla_roster::roster::Roster;
use std::sync::Arc;

/// How often each connected box of the fleet is asked whether it has a newer roster.
const ASK_MILLIS: u64 = 60_000;
/// Pause after the log could not be told.
const LOG_AGAIN_MILLIS: u64 = 5_000;

/// What was taken, for whoever handed it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterFacts {
    /// Fleet domain.
    pub fleet: String,
    /// The version in force.
    pub number: u64,
    /// Its hash.
    pub hash: String,
    /// How it came, and from whom.
    pub came: (String, String),
    /// What this box is in it; none of its boxes in a foreign one.
    pub own: Option<&'static str>,
    /// The branch that this box is in; of the own fleet only.
    pub branch: Option<String>,
    /// Hubs that are let in by it: those of the own fleet.
    pub hubs: Vec<String>,
}

impl Desk {
    /// Takes a roster that an operator hands in.
    pub(super) fn take_roster(&mut self, bytes: &[u8], operator: &str) -> Result<RosterFacts, RosterFault> {
        let roster = Roster::decode(bytes)?;
        let fleet = roster.fleet().to_owned();
        if self.rosters.take(roster, Came::File, operator)? {
            self.roster_taken();
        }
        let facts = self.roster_facts().into_iter().find(|facts| facts.fleet == fleet);
        facts.ok_or(RosterFault::Stopping)
    }

    /// Takes what the registrar or a neighbour tells of the fleet's roster; whether there is more to ask for.
    pub(super) fn take_said(&mut self, said: &RosterSaid, came: Came, from: &str) -> bool {
        let before = self.rosters.of(&self.fleet).map(|held| &held.roster);
        let taken = delivery::take(before, said).map_err(RosterFault::from);
        let taken = taken.and_then(|roster| match roster {
            Some(roster) => self.rosters.take(roster, came, from),
            None => Ok(false),
        });
        let news = match taken {
            Ok(news) => news,
            Err(fault) => {
                log::warn!("what {from} tells of the roster is not taken: {fault}");
                return false;
            }
        };
        let cards = said.moved.iter().filter_map(|card| PeerCard::decode(card).ok());
        let moved = self.rosters.take_moved(cards);
        if news {
            self.roster_taken();
        } else if moved {
            self.take_over();
        }
        news && self.known().is_some_and(|known| known.number < said.last)
    }

    fn roster_taken(&mut self) {
        self.take_over();
        let _ = self.version.send(self.known());
        if let Some(known) = self.known()
            && let Err(error) = self.wire.publish(Hint::roster(known).encode())
        {
            log::debug!("the neighbours are not told of the roster: {error}");
        }
    }

    /// The version of the own fleet's roster.
    pub(super) fn known(&self) -> Option<RosterKnown> {
        self.rosters.of(&self.fleet).map(|held| delivery::known(held.roster.version()))
    }

    /// The hubs that the roster names now, for the listener and for leases.
    pub(super) fn follow_hubs(&self) {
        let hubs = self.rosters.of(&self.fleet).map(|held| &held.roster.terms().hubs[..]);
        self.shared.hubs.set(hubs.unwrap_or_default());
        self.outage.look();
    }

    /// Who is let in now: to the wire first, then to the machine.
    pub(super) fn take_over(&mut self) {
        self.follow_hubs();
        let all = allowed(&self.own.card, &self.config, &self.by_hand, self.rosters.all());
        if all == self.allowed {
            return;
        }
        let known: Vec<Name> = self.machine.facts().into_iter().map(|peer| peer.peer).collect();
        for (origin, why) in &all.kept_out {
            if self.allowed.kept_out.get(origin) != Some(why) {
                log::warn!("{origin} is kept out: {why}");
            }
        }
        self.allowed = all;
        self.cards = self.allowed.cards();
        if let Err(error) = self.wire.set_neighbours(&super::desk::neighbours(&self.cards)) {
            log::error!("the list of neighbours cannot be taken over: {error}");
        }
        log::info!("{} neighbours from now on", self.cards.len());
        self.by_key = super::desk::by_key(&self.cards);
        self.cosigned.retain(|(peer, _), _| self.cards.contains_key(peer));
        self.troubles.retain(|peer, _| self.cards.contains_key(peer));
        let names: Vec<Name> = self.cards.keys().cloned().collect();
        self.challenges.retain(|name| names.contains(name));
        self.tell(GossipEvent::Peers(names.clone()));
        self.tell(GossipEvent::WitnessOnly(self.allowed.witness_only()));
        // Whoever comes back finds its copy as it was left, and is known.
        let new: Vec<Name> = names.into_iter().filter(|name| !known.contains(name)).collect();
        let copies = self.take_up_of(new.iter().cloned());
        for peer in new {
            if let Some(boot) = self.known_boot(&peer) {
                self.tell(GossipEvent::BootKnown { peer, boot });
            }
        }
        copies.into_iter().for_each(|copy| self.tell(GossipEvent::TakenUp(copy)));
    }

    /// Whether a neighbour is of the own fleet, so that the roster is its, too.
    fn is_fellow(&self, name: &Name) -> bool {
        self.cards.get(name).is_some_and(|card| card.origin().fleet() == self.fleet)
    }

    /// Asks a box of the fleet for a newer roster.
    pub(super) fn ask_roster(&mut self, name: &Name) {
        let under_way = self.asked_roster.values().any(|asked| asked == name);
        if under_way || !self.is_fellow(name) {
            return;
        }
        let Some(card) = self.cards.get(name) else { return };
        let question = Question::new(Asked::Roster(RosterAsked { known: self.known() }));
        match self.wire.ask(PeerKey::new(*card.transport_key()), question.encode()) {
            Ok(id) => drop(self.asked_roster.insert(id, name.clone())),
            Err(error) => log::debug!("{name} is not asked for the roster: {error}"),
        }
    }

    /// Now and then, everybody who is there.
    pub(super) fn ask_rosters(&mut self, now: u64) {
        if now < self.rosters_at {
            return;
        }
        self.rosters_at = now + ASK_MILLIS;
        let there = self.machine.facts().into_iter().filter(|peer| peer.connected).map(|peer| peer.peer);
        for name in there.collect::<Vec<_>>() {
            self.ask_roster(&name);
        }
    }

    /// The end of a question for the roster; whether it was one.
    pub(super) fn roster_answered(&mut self, id: AskId, result: &Result<Vec<u8>, AskFailure>) -> bool {
        let Some(name) = self.asked_roster.remove(&id) else { return false };
        let said = result.as_ref().ok().map(|bytes| Answer::decode(bytes).map(|answer| answer.said));
        match said {
            Some(Ok(Said::Roster(said))) => {
                // It may have left since it was asked.
                let more = self.is_fellow(&name) && self.take_said(&said, Came::Neighbour, &name);
                if more {
                    self.ask_roster(&name);
                }
            }
            Some(Ok(Said::Refused(refused))) => {
                log::debug!("{name} tells nothing of the roster: {}", refused.code)
            }
            Some(Ok(_) | Err(_)) => log::warn!("{name} answers something else than was asked"),
            None => {}
        }
        true
    }

    /// Somebody has a roster of that version.
    pub(super) fn roster_hinted(&mut self, from: &Name, theirs: &RosterKnown) {
        if self.known().is_none_or(|known| known.number < theirs.number) {
            self.ask_roster(from);
        }
    }

    /// Tells a box of the fleet what it has not.
    pub(super) fn tell_roster(&mut self, from: &Name, asked: &RosterAsked) -> Result<RosterSaid, Refusal> {
        if !self.is_fellow(from) {
            return Err(Refusal::NotAllowed);
        }
        if let Some(theirs) = &asked.known {
            self.roster_hinted(from, theirs);
        }
        let held = self.rosters.of(&self.fleet).ok_or(Refusal::NotHeld)?;
        let moved: Vec<PeerCard> = held.moved.values().cloned().collect();
        delivery::tell(&held.roster, asked.known.as_ref(), &moved).map_err(|refusal| {
            log::error!("{from} has another roster: {refusal}; keep both, and find out who made the second");
            Refusal::OtherRoster
        })
    }

    /// Has the log say which rosters count, and which logs they gave up.
    pub(super) fn log_rosters(&mut self, now: u64) {
        if now < self.log_rosters_at || self.is_starting() || self.is_halted() {
            return;
        }
        for Learnt { body, revocations } in self.rosters.untold() {
            let entries = revocations.iter().map(|body| (Kind::Revocation, body.check(), der::encode(body)));
            let entries = entries.chain([(Kind::Roster, body.check(), der::encode(&body))]);
            for (kind, checked, bytes) in entries.collect::<Vec<_>>() {
                let append = |reply| Command::Append(kind, bytes, reply);
                let logged = checked.map_err(|error| error.to_string()).and_then(|()| {
                    let done = crate::driver::outage::through(&self.queue, append);
                    done.unwrap_or_else(|| Err(crate::driver::stopping())).map_err(|error| error.to_string())
                });
                if let Err(reason) = logged {
                    log::warn!("which roster counts is not logged yet: {reason}");
                    self.log_rosters_at = now + LOG_AGAIN_MILLIS;
                    return;
                }
            }
            self.rosters.told(&body);
        }
    }

    /// What is shown of the rosters.
    pub(super) fn roster_facts(&self) -> Vec<RosterFacts> {
        let facts = |(fleet, held): (&String, &crate::peers::Held)| {
            let (version, (came, from)) = (held.roster.version(), held.came());
            RosterFacts {
                fleet: fleet.clone(),
                number: version.number,
                hash: hex::encode(*version.hash),
                came: (came.to_owned(), from.to_owned()),
                own: held.listed(&self.name).map(|listed| listed.state.name()),
                branch: held.listed(&self.name).map(|listed| listed.row.branch.clone()),
                hubs: if *fleet == self.fleet {
                    held.roster.terms().hubs.iter().map(|hub| hub.name.clone()).collect()
                } else {
                    Vec::new()
                },
            }
        };
        self.rosters.all().iter().map(facts).collect()
    }
}

impl crate::peers::Allowed {
    /// Cards of all neighbours, by their logs.
    pub(super) fn cards(&self) -> std::collections::BTreeMap<Name, PeerCard> {
        let card = |(origin, neighbour): (&String, &crate::peers::Neighbour)| {
            (Arc::from(origin.as_str()), neighbour.card.clone())
        };
        self.neighbours.iter().map(card).collect()
    }

    /// Neighbours of whose logs no copies are held.
    pub(super) fn witness_only(&self) -> Vec<Name> {
        let heads = self.neighbours.iter().filter(|(_, one)| one.level == crate::config::Level::Heads);
        heads.map(|(origin, _)| Arc::from(origin.as_str())).collect()
    }
}
