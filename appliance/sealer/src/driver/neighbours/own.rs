//! The own log among the neighbours: told of, cosigned by them, and who holds it logged.
//!
//! Invariant: a cosignature counts when it verifies with the neighbour's card and is of a tree that this log had.

use super::desk::Desk;
use crate::driver::clock::{boottime_millis, local_time};
use crate::driver::{Command, LookupError, Published, SealError};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::mirror::{CosignedHead, MirrorBody, NEIGHBOURS_MAX, Neighbour};
use bulla_formats::der;
use bulla_formats::entry::{Kind, TreeState};
use bulla_formats::note::SignedNote;
use bulla_formats::peer::message::{Hint, Refusal};
use bulla_formats::witness::Role;
use bulla_protocol::gossip::{GossipEvent, Head, Holder, Name};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A neighbour that was there so long ago counts as a holder: one that starts again is not lost.
const AWAY_MILLIS: u64 = 60_000;

impl Desk {
    /// Has the own log grown?
    pub(super) fn look(&mut self) {
        let Some(published) = self.shared.published() else { return };
        let (size, root) = (published.snapshot.size(), published.snapshot.root());
        self.told_heads.keep(size, &published.note);
        if size <= self.told {
            return;
        }
        self.told = size;
        let (worth, lamport) = (self.shared.worth.load(Relaxed), self.lamport(size));
        self.tell(GossipEvent::Own { head: Head { size, root }, worth, lamport });
    }

    /// Lamport time of the newest of so many entries.
    pub(super) fn lamport(&self, size: u64) -> u64 {
        let newest = size.checked_sub(1).ok_or(LookupError::Unknown);
        newest.and_then(|index| self.shared.entry(index)).map_or(0, |entry| entry.content().lamport)
    }

    /// The newest head that this box has signed in this run.
    pub(super) fn signed(&self) -> Option<Arc<Published>> {
        self.shared.published()
    }

    pub(super) fn hint(&mut self) {
        if self.is_halted() {
            return;
        }
        let Some(note) = self.signed().and_then(|head| SignedNote::parse(&head.note).ok()) else { return };
        if let Err(error) = self.wire.publish(Hint::head(&note).encode()) {
            log::debug!("the neighbours are not told of the newest head: {error}");
        }
    }

    /// Cosignatures that a neighbour hands over.
    pub(super) fn take_cosignatures(&mut self, from: &Name, note: &SignedNote) -> Result<(), Refusal> {
        let Some(card) = self.cards.get(from) else { return Err(Refusal::UnknownLog) };
        let stated = bulla_formats::note::parse_checkpoint_text(&note.text);
        let (origin, size, root) = stated.map_err(|_| Refusal::Malformed)?;
        if *origin != *self.name {
            return Err(Refusal::UnknownLog);
        }
        let head = Head { size, root };
        let ours = self.shared.reader.root_at(size).is_ok_and(|own| own == root);
        let mut made = Vec::new();
        for role in Role::ALL {
            let key = card.cosigner(role);
            match key.cosignature(note) {
                Ok(Some(cosignature)) => made.push((role, cosignature)),
                Ok(None) => {}
                Err(_) => return Err(Refusal::NotGenuine),
            }
        }
        if made.is_empty() {
            return Err(Refusal::NotGenuine);
        }
        let keys = [card.content().witness_key, card.content().mirror_key];
        let roles: Vec<Role> = made.iter().map(|(role, _)| *role).collect();
        for (role, cosignature) in made.into_iter().filter(|_| ours) {
            let key = keys[usize::from(role == Role::Mirror)];
            let (seconds, signature) = (cosignature.seconds, cosignature.signature);
            let cosigned = CosignedHead { key, head: TreeState::new(size, root), seconds, signature };
            let place = (from.clone(), role);
            if self.cosigned.get(&place).is_none_or(|known| known.head.size < size) {
                self.cosigned.insert(place, cosigned);
            }
        }
        // Before anybody who waits for it is answered.
        self.show_cosigned();
        for role in roles {
            self.tell(GossipEvent::Cosigned { from: from.clone(), role, head, ours });
        }
        if ours { Ok(()) } else { Err(Refusal::OtherTree) }
    }

    /// Others hold more of the own log than before.
    pub(super) fn counted(&mut self) {
        self.look_at_holders();
        self.show();
    }

    /// How many hold it now: whoever has cosigned as a mirror in this run, is a neighbour still, and was there a moment ago.
    pub(super) fn look_at_holders(&mut self) {
        let (now, facts) = (boottime_millis(), self.machine.facts());
        for peer in facts.iter().filter(|peer| peer.connected) {
            self.there.insert(peer.peer.clone(), now);
        }
        self.there.retain(|name, _| facts.iter().any(|peer| peer.peer == *name));
        let is_there = |name: &Name| self.there.get(name).is_some_and(|at| now - at <= AWAY_MILLIS);
        let holders = facts.iter().filter(|peer| peer.holds.mirrored.is_some() && is_there(&peer.peer));
        let holders = u32::try_from(holders.count()).unwrap_or(u32::MAX);
        if holders != self.holders {
            self.holders = holders;
            self.outage.holders(holders);
        }
    }

    pub(super) fn log_mirror(&mut self, ticket: u64, holders: &[Holder]) {
        let cosigned = |peer: &Name, role: Role| self.cosigned.get(&(peer.clone(), role)).cloned();
        let neighbours = holders.iter().map(|holder| Neighbour {
            origin: holder.peer.to_string(),
            mirrored: cosigned(&holder.peer, Role::Mirror),
            witnessed: cosigned(&holder.peer, Role::Witness),
        });
        let mut neighbours: Vec<Neighbour> =
            neighbours.filter(|each| each.heads().next().is_some()).collect();
        neighbours.sort_by(|a, b| a.origin.cmp(&b.origin));
        neighbours.truncate(NEIGHBOURS_MAX);
        let body = MirrorBody { version: 1, neighbours };
        let logged = match body.check() {
            Ok(()) => self.append(Kind::Mirror, der::encode(&body)).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let event = match logged {
            Ok(index) => {
                log::info!("entry {index} says which neighbours hold this log");
                GossipEvent::Logged { ticket }
            }
            Err(reason) => {
                log::warn!("which neighbours hold this log is not logged yet: {reason}");
                GossipEvent::NotLogged { ticket }
            }
        };
        self.events.push_back(event);
    }

    /// Has the log say what has happened.
    pub(super) fn log_incident(&self, code: &str, detail: &str) -> Result<u64, SealError> {
        let detail = detail.chars().take(500).collect();
        let body = IncidentBody { code: code.to_owned(), began: local_time(), ended: None, detail };
        self.append(Kind::Incident, der::encode(&body))
    }

    pub(super) fn append(&self, kind: Kind, body: Vec<u8>) -> Result<u64, SealError> {
        let append = |reply| Command::Append(kind, body, reply);
        crate::driver::outage::through(&self.queue, append).unwrap_or_else(|| Err(crate::driver::stopping()))
    }
}
