//! Questions put to neighbours, and what their answers are worth.
//!
//! Invariant: nothing goes on to the machine as verified but entries and proofs that lead to a head under the log's own
//! key, which is on the card that an operator handed in.

use super::copies::stated;
use super::desk::{Desk, Shown};
use crate::driver::clock::now_millis;
use bulla_formats::der::Octets32;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::note::{Checkpoint, SignedNote, checkpoint_text};
use bulla_formats::peer::challenge::Distrust;
use bulla_formats::peer::message::{
    Answer, Asked, ConsistencyAsked, ConsistencySaid, Cosigned, HeadsAsked, Hint, Hinted, OBJECTS_MAX,
    ObjectsAsked, ObjectsSaid, Question, RangeAsked, RangeSaid, Refusal, Said,
};
use bulla_formats::witness::{Role, cosigned};
use bulla_peers::{AskFailure, AskId, PeerKey};
use bulla_protocol::gossip::{Ask, Failure, GossipEvent, Head, Name, Seen};
use ed25519_dalek::Signer as _;
use std::sync::Arc;

impl Desk {
    /// Puts a question; what cannot be put has failed.
    pub(super) fn ask(&mut self, ticket: u64, peer: &Name, ask: Ask) {
        let put = self.question(ticket, peer, &ask).and_then(|question| {
            let card = self.cards.get(peer).ok_or(Failure::Silence)?;
            let key = PeerKey::new(*card.transport_key());
            self.wire.ask(key, question.encode()).map_err(|_| Failure::Silence)
        });
        match put {
            Ok(id) => drop(self.asked.insert(id, (ticket, peer.clone(), ask))),
            Err(failure) => {
                self.challenges.judged(ticket);
                self.events.push_back(GossipEvent::Failed { ticket, failure });
            }
        }
    }

    fn question(&mut self, ticket: u64, peer: &Name, ask: &Ask) -> Result<Question, Failure> {
        let asked = match ask {
            Ask::Heads => Asked::Heads(HeadsAsked { origins: Vec::new() }),
            Ask::Range { origin, from, to } => {
                Asked::Range(RangeAsked { origin: origin.to_string(), from: *from, to: *to })
            }
            Ask::Objects { origin } => {
                let mirror = self.mirrors.get(origin).ok_or(Failure::Own)?;
                let missing = mirror.missing_objects(OBJECTS_MAX).map_err(|_| Failure::Own)?;
                let mut hashes: Vec<Octets32> =
                    missing.iter().map(|one| Octets32::new(one.object.0)).collect();
                hashes.sort_unstable();
                hashes.dedup();
                Asked::Objects(ObjectsAsked { origin: origin.to_string(), hashes })
            }
            Ask::Consistency { origin, old, new } => {
                Asked::Consistency(ConsistencyAsked { origin: origin.to_string(), old: *old, new: *new })
            }
            Ask::Cosigned { head, witness, mirror } => {
                let note = self.cosign(peer, *head, *witness, *mirror).ok_or(Failure::Own)?;
                Asked::Cosigned(Cosigned { origin: peer.to_string(), note: note.encode() })
            }
            Ask::Fork { origin } => Asked::Fork(self.forks.get(origin).cloned().ok_or(Failure::Own)?.into()),
            Ask::Challenge => Asked::Challenge(self.challenge(ticket, peer)?),
            Ask::ForkOf { origin } => Asked::ForkOf(HeadsAsked { origins: vec![origin.to_string()] }),
        };
        Ok(Question::new(asked))
    }

    /// Cosigns a head: the state that allows it is durable. Nothing while a rollback is suspected.
    pub(super) fn cosign(
        &self,
        origin: &Name,
        head: Head,
        witness: bool,
        mirror: bool,
    ) -> Option<SignedNote> {
        if self.is_halted() {
            return None;
        }
        let text = checkpoint_text(origin, head.size, &head.root);
        let seconds = now_millis() / 1_000;
        let message = cosigned(&text, seconds);
        let keys = [(witness, Role::Witness, &self.own.witness), (mirror, Role::Mirror, &self.own.mirror)];
        let line = |(_, role, key): &(bool, Role, &ed25519_dalek::SigningKey)| {
            self.own.card.cosigner(*role).line(seconds, &key.sign(&message).to_bytes())
        };
        let lines = keys.iter().filter(|(wanted, ..)| *wanted).map(line).collect();
        Some(SignedNote { text, lines })
    }

    /// Something was hinted at.
    pub(super) fn hinted(&mut self, from: &Name, bytes: &[u8]) {
        match Hint::decode(bytes).map(|hint| hint.said) {
            Ok(Hinted::Head(note)) => self.hear(from, &note, 0),
            Ok(Hinted::Fork(fork)) => {
                let origin = Arc::from(fork.origin.as_str());
                self.tell(GossipEvent::ForkHinted { origin, from: from.clone() });
            }
            Ok(Hinted::Roster(known)) => self.roster_hinted(from, &known),
            Err(error) => log::debug!("{from} hints at something that is not understood: {error}"),
        }
    }

    /// A head from outside: verified, and held against what is here.
    pub(super) fn hear(&mut self, from: &Name, note: &str, holds: u64) {
        let Ok(note) = SignedNote::parse(note) else { return };
        let Some((origin, head)) = stated(&note) else { return };
        if !self.machine.is_news(&origin, &head, from, holds) {
            return;
        }
        if self.opened(&origin, &note).is_none() {
            return;
        }
        let (ours, origin): (_, Name) = (self.root_at(&origin, head.size), Arc::from(origin));
        if ours.is_none() && *origin == *self.name && head.size <= self.shared.reader.size() {
            // A disk that cannot be read is no older disk.
            return log::warn!("the root of the own log at {} entries cannot be had", head.size);
        }
        if *origin != *self.name {
            self.keep_note(&origin, head, note.encode());
        }
        self.tell(GossipEvent::Seen(Seen { origin, from: from.clone(), head, holds, ours }));
    }

    /// A checkpoint of a log whose card is here, verified by it.
    pub(super) fn opened(&self, origin: &str, note: &SignedNote) -> Option<Checkpoint> {
        let card = if *origin == *self.name { &self.own.card } else { self.cards.get(origin)? };
        card.checkpoint(note).ok()
    }

    /// A question of this box's has come to its end.
    pub(super) fn answered(&mut self, id: AskId, result: Result<Vec<u8>, AskFailure>) {
        let Some((ticket, peer, ask)) = self.asked.remove(&id) else { return };
        let said = match result {
            Ok(bytes) => Answer::decode(&bytes).map(|answer| answer.said).map_err(|_| Failure::False),
            Err(AskFailure::Broken) => Err(Failure::False),
            Err(AskFailure::Busy | AskFailure::Declined) => Err(Failure::Refused { after: None }),
            Err(error) => {
                log::debug!("{peer}: {error}");
                Err(Failure::Silence)
            }
        };
        let challenged = ask == Ask::Challenge;
        let judged = said.and_then(|said| self.judge(ticket, &peer, ask, said));
        self.challenges.judged(ticket);
        match judged {
            Ok(event) => self.tell(event),
            // Of the TPM it says something, of what the peer mirrors nothing.
            Err(Failure::False) if challenged => {
                self.tell(GossipEvent::Disowned { ticket, why: Distrust::NotGenuine });
            }
            Err(failure) => self.tell(GossipEvent::Failed { ticket, failure }),
        }
    }

    fn judge(&mut self, ticket: u64, peer: &Name, ask: Ask, said: Said) -> Result<GossipEvent, Failure> {
        match (ask, said) {
            (Ask::Challenge, Said::Refused(refused)) if refused.code == Refusal::OtherTpm.name() => {
                Ok(GossipEvent::Disowned { ticket, why: Distrust::OtherKey })
            }
            (Ask::Challenge, Said::Challenge(said)) => self.judge_challenge(ticket, peer, &said),
            (ask, Said::Refused(refused)) => {
                log::debug!("{peer} refuses {ask:?}: {}", refused.code);
                Err(Failure::Refused { after: refused.after_millis })
            }
            (Ask::Heads, Said::Heads(held)) => {
                for held in held {
                    self.hear(peer, &held.head, held.entries);
                    if held.frozen {
                        let origin = Arc::from(held.origin.as_str());
                        self.tell(GossipEvent::ForkHinted { origin, from: peer.clone() });
                    }
                }
                Ok(GossipEvent::HeadsRead { ticket })
            }
            (Ask::Range { origin, from, to }, Said::Range(said)) => {
                self.judge_range(ticket, origin, from..to, said)
            }
            (Ask::Objects { origin }, Said::Objects(said)) => self.judge_objects(ticket, &origin, said),
            (Ask::Consistency { origin, old, .. }, Said::Consistency(said)) => {
                self.judge_consistency(ticket, origin, old, &said)
            }
            (Ask::Cosigned { .. } | Ask::Fork { .. }, Said::Taken(())) => Ok(GossipEvent::Taken { ticket }),
            (Ask::ForkOf { origin }, Said::Fork(proof)) => {
                self.take_fork(&proof).map_err(|_| Failure::False)?;
                // What was asked for is here; there is nothing more to come.
                log::info!("{peer} has handed over a proof that {origin} has forked");
                Err(Failure::Refused { after: None })
            }
            _ => Err(Failure::False),
        }
    }

    fn judge_range(
        &mut self,
        ticket: u64,
        origin: Name,
        asked: std::ops::Range<u64>,
        said: RangeSaid,
    ) -> Result<GossipEvent, Failure> {
        let held = self.edge(&origin);
        if held.size() != asked.start {
            // The copy has gone on meanwhile.
            return Err(Failure::Refused { after: None });
        }
        let note = SignedNote::parse(&said.head).map_err(|_| Failure::False)?;
        let end = said.from.saturating_add(said.entries.len() as u64);
        if *said.origin != *origin || said.from != asked.start || end > asked.end {
            return Err(Failure::False);
        }
        let checkpoint = self.opened(&origin, &note).ok_or(Failure::False)?;
        let tree = said.extend(&held, &checkpoint).map_err(|_| Failure::False)?;
        let copy = Head { size: tree.size(), root: tree.root() };
        let head = Head { size: checkpoint.size(), root: checkpoint.root() };
        self.keep_note(&origin, head, said.head);
        let proof = said.proof.iter().map(|hash| Hash(**hash)).collect();
        self.shown = Some(Shown { origin, begins: copy, head, proof });
        let entries = said.entries.into_iter().map(|entry| entry.to_vec()).collect();
        self.verified.insert(ticket, (entries, tree));
        Ok(GossipEvent::Verified { ticket, copy, head })
    }

    fn judge_objects(
        &mut self,
        ticket: u64,
        origin: &Name,
        said: ObjectsSaid,
    ) -> Result<GossipEvent, Failure> {
        let mirror = self.mirrors.get(origin).ok_or(Failure::Own)?;
        let missing = mirror.missing_objects(usize::MAX).map_err(|_| Failure::Own)?;
        let objects: Vec<Vec<u8>> = said.found.into_iter().map(|object| object.to_vec()).collect();
        let wanted = |object: &Vec<u8>| missing.iter().any(|one| one.object == sha256(&[object]));
        if !objects.iter().all(wanted) {
            return Err(Failure::False);
        }
        let got = objects.len() as u64;
        if got > 0 {
            mirror.store_objects(objects).map_err(|_| Failure::Own)?;
        }
        Ok(GossipEvent::Objects { ticket, got, lacking: mirror.standing().missing > 0 })
    }

    fn judge_consistency(
        &mut self,
        ticket: u64,
        origin: Name,
        old: u64,
        said: &ConsistencySaid,
    ) -> Result<GossipEvent, Failure> {
        let note = SignedNote::parse(&said.head).map_err(|_| Failure::False)?;
        if *said.origin != *origin || said.old != old {
            return Err(Failure::False);
        }
        let checkpoint = self.opened(&origin, &note).ok_or(Failure::False)?;
        said.leads(&checkpoint).map_err(|_| Failure::False)?;
        let head = Head { size: checkpoint.size(), root: checkpoint.root() };
        let root = Hash(*said.root);
        self.keep_note(&origin, head, said.head.clone());
        let proof = said.proof.iter().map(|hash| Hash(**hash)).collect();
        self.shown = Some(Shown { origin, begins: Head { size: old, root }, head, proof });
        Ok(GossipEvent::Consistent { ticket, root, head })
    }
}
