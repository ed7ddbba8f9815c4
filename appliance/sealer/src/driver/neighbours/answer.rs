//! Answers to neighbours' questions: from the own log, and from the copies of others.
//!
//! Refuses to do: answer with a head that the log has not signed, or with more than an answer may hold.
//! Invariant: every answer about a log stands under a signed head that covers it.

use super::copies::stated;
use super::desk::Desk;
use crate::config::Level;
use bulla_formats::der::Octets32;
use bulla_formats::note::{NOTE_LINES_MAX, SignedNote};
use bulla_formats::peer::HEAD_BYTES_MAX;
use bulla_formats::peer::message::{
    Answer, Asked, ConsistencyAsked, ConsistencySaid, Cosigned, ENTRIES_MAX, Held, LOGS_MAX, ObjectsAsked,
    ObjectsSaid, Question, RangeAsked, RangeSaid, Refusal, Said,
};
use bulla_ledger::{Kept, ReadError, Reader};
use bulla_peers::Reply;
use bulla_protocol::gossip::{CosignerState, Head, Name};

/// Bytes of entries in one answer: with what is around them it stays below the answer's limit.
const RANGE_BYTES: usize = 3 << 20;

/// A log that is served: up to a signed head.
struct Served {
    reader: Reader,
    head: Head,
    note: String,
}

impl Desk {
    /// Answers a question.
    pub(super) fn asked(&mut self, from: &Name, bytes: &[u8], reply: Reply) {
        match Question::decode(bytes) {
            Ok(question) => self.answer(from, question.asked, reply),
            Err(error) => respond(from, reply, Err((error.refusal(), None))),
        }
    }

    fn answer(&mut self, from: &Name, asked: Asked, reply: Reply) {
        let heads_only = self.level(from) != Level::Entries;
        if heads_only && !self.is_about_heads(&asked) {
            return respond(from, reply, Err((Refusal::NotAllowed, None)));
        }
        let said = match asked {
            Asked::Heads(asked) => {
                let mut held = self.heads(from, &asked.origins);
                held.retain(|held| !heads_only || *held.origin == *self.name);
                Ok(Said::Heads(held))
            }
            Asked::Range(asked) => self.range(from, &asked).map(Said::Range),
            Asked::Objects(asked) => self.objects(asked).map(Said::Objects),
            Asked::Cosigned(cosigned) => self.cosigned(from, &cosigned).map(Said::Taken),
            Asked::Consistency(asked) => self.consistency(&asked).map(Said::Consistency),
            Asked::Fork(proof) => self.take_fork(&proof).map(Said::Taken),
            Asked::Roster(asked) => self.tell_roster(from, &asked).map(Said::Roster),
            Asked::ForkOf(asked) => {
                let proof = asked.origins.first().and_then(|origin| self.forks.get(origin.as_str()));
                proof.map(|proof| Said::Fork(proof.clone().into())).ok_or(Refusal::UnknownLog)
            }
            Asked::Challenge(challenge) => return self.challenged(from, challenge, reply),
            Asked::Site(asked) => return self.asked_of_site(from, asked, reply),
        };
        respond(from, reply, said.map_err(|refusal| (refusal, None)));
    }

    fn cosigned(&mut self, from: &Name, cosigned: &Cosigned) -> Result<(), Refusal> {
        let note = cosigned.read().map_err(|_| Refusal::Malformed)?;
        if stated(&note).is_none_or(|(origin, _)| origin != cosigned.origin) {
            return Err(Refusal::Malformed);
        }
        self.take_cosignatures(from, &note)
    }

    pub(super) fn level(&self, name: &Name) -> Level {
        self.allowed.neighbours.get(&**name).map_or(Level::Nothing, |neighbour| neighbour.level)
    }

    /// What a box may ask to which only heads of the own log are told.
    fn is_about_heads(&self, asked: &Asked) -> bool {
        match asked {
            Asked::Heads(_) | Asked::Cosigned(_) | Asked::Fork(_) => true,
            Asked::Consistency(asked) => *asked.origin == *self.name,
            Asked::Range(_)
            | Asked::Objects(_)
            | Asked::ForkOf(_)
            | Asked::Roster(_)
            | Asked::Site(_)
            | Asked::Challenge(_) => false,
        }
    }

    /// What is held of each log, under the newest signed head that was found consistent. Whoever asks for certain logs also
    /// gets this box's word: the lines by which it cosigns that head, as far as it has.
    fn heads(&self, from: &Name, origins: &[String]) -> Vec<Held> {
        let wanted = |origin: &str| origins.is_empty() || origins.iter().any(|one| one == origin);
        let mut held = Vec::new();
        if let Some(served) = self.served_own().filter(|_| wanted(&self.name)) {
            let (origin, entries) = (self.name.to_string(), served.head.size);
            held.push(Held { origin, head: served.note, entries, frozen: false });
        }
        for peer in self.machine.facts() {
            let heads = [peer.state.witnessed, peer.state.mirrored];
            let Some((head, note)) = self.newest_noted(&peer.peer, heads.into_iter().flatten()) else {
                continue;
            };
            if wanted(&peer.peer) {
                let note = match origins {
                    [] => note,
                    [..] => self.vouched(&peer.peer, &peer.state, head, note),
                };
                let (origin, entries) = (peer.peer.to_string(), peer.copy.min(head.size));
                held.push(Held { origin, head: note, entries, frozen: peer.state.frozen });
            }
        }
        for origin in origins.iter().take(LOGS_MAX) {
            if held.iter().all(|known| known.origin != *origin)
                && let Some((Served { head, note, .. }, frozen)) = self.former(from, origin)
            {
                held.push(Held { origin: origin.clone(), head: note, entries: head.size, frozen });
            }
        }
        held.sort_by(|a, b| a.origin.cmp(&b.origin));
        held.truncate(LOGS_MAX);
        held
    }

    /// The note, with the cosignatures that this box's durable state allows.
    fn vouched(&self, origin: &Name, state: &CosignerState, head: Head, note: String) -> String {
        let (witness, mirror) = (state.witnessed == Some(head), state.mirrored == Some(head));
        let Ok(mut vouched) = SignedNote::parse(&note) else { return note };
        let Some(cosigned) = self.cosign(origin, head, witness, mirror) else { return note };
        // A frozen log is cosigned by nobody.
        if state.frozen || cosigned.text != vouched.text || cosigned.lines.is_empty() {
            return note;
        }
        vouched.lines.retain(|line| !cosigned.lines.iter().any(|own| own.name == line.name));
        vouched.lines.extend(cosigned.lines);
        let vouched = if vouched.lines.len() <= NOTE_LINES_MAX { vouched.encode() } else { return note };
        if vouched.len() <= HEAD_BYTES_MAX { vouched } else { note }
    }

    fn newest_noted(&self, origin: &str, heads: impl Iterator<Item = Head>) -> Option<(Head, String)> {
        let noted = heads.filter_map(|head| Some((head, self.note(origin, &head)?.clone())));
        noted.max_by_key(|(head, _)| head.size)
    }

    fn served_own(&self) -> Option<Served> {
        let signed = self.signed()?;
        let head = Head { size: signed.snapshot.size(), root: signed.snapshot.root() };
        Some(Served { reader: self.shared.reader.clone(), head, note: signed.note.clone() })
    }

    fn served(&self, origin: &str) -> Result<Served, Refusal> {
        if *origin == *self.name {
            return self.served_own().ok_or(Refusal::NotHeld);
        }
        let facts = self.machine.facts().into_iter().find(|peer| *peer.peer == *origin);
        let facts = facts.ok_or(Refusal::UnknownLog)?;
        let known = self.machine.heads(origin).into_iter();
        // Of heads that the copy covers, one that it was found to be the tree of.
        let cosigned = [facts.state.witnessed, facts.state.mirrored].into_iter().flatten();
        let ours =
            |head: &Head| head.size <= facts.copy && self.root_at(origin, head.size) == Some(head.root);
        let (head, note) =
            self.newest_noted(origin, known.chain(cosigned).filter(ours)).ok_or(Refusal::NotHeld)?;
        Ok(Served { reader: self.reader(origin).ok_or(Refusal::Failing)?, head, note })
    }

    /// The copy of a log whose box is no neighbour under that name any more, and whether it is frozen: for the box itself
    /// under its new name, and for the one that takes its place. Which these are, the roster says.
    fn former(&self, from: &Name, origin: &str) -> Option<(Served, bool)> {
        self.rosters.of(&self.fleet).filter(|held| held.roster.hands_over(origin, from))?;
        let mirror = self.mirrors.get(origin)?;
        let standing = mirror.standing();
        let kept = standing.head?;
        let (head, note) =
            (Head { size: kept.tree.size, root: kept.tree.root }, String::from_utf8(kept.note).ok()?);
        let reader = mirror.reader().ok()?;
        let covered = head.size > 0 && reader.root_at(head.size).ok() == Some(head.root);
        covered.then(|| (Served { reader, head, note }, !matches!(standing.frozen, Kept::Known(None))))
    }

    fn range(&self, from: &Name, asked: &RangeAsked) -> Result<RangeSaid, Refusal> {
        let served = match self.served(&asked.origin) {
            Err(Refusal::UnknownLog) => {
                self.former(from, &asked.origin).map(|(served, _)| served).ok_or(Refusal::UnknownLog)
            }
            served => served,
        };
        let Served { reader, head, note } = served?;
        let end = asked.to.min(head.size);
        if asked.from >= end {
            return Err(Refusal::NotHeld);
        }
        let most = (end - asked.from).min(ENTRIES_MAX as u64);
        let entries = reader.range(asked.from, most, RANGE_BYTES).map_err(failing)?;
        let end = asked.from + entries.len() as u64;
        let proof = if end == head.size {
            Vec::new()
        } else {
            reader.consistency_proof(end, head.size).map_err(failing)?
        };
        Ok(RangeSaid {
            origin: asked.origin.clone(),
            from: asked.from,
            entries: entries.into_iter().map(Into::into).collect(),
            proof: proof.iter().map(|hash| Octets32::new(hash.0)).collect(),
            head: note,
        })
    }

    fn consistency(&self, asked: &ConsistencyAsked) -> Result<ConsistencySaid, Refusal> {
        let Served { reader, head, note } = self.served(&asked.origin)?;
        if asked.old > head.size {
            return Err(Refusal::NotHeld);
        }
        let root = reader.root_at(asked.old).map_err(failing)?;
        let proof = if asked.old == head.size {
            Vec::new()
        } else {
            reader.consistency_proof(asked.old, head.size).map_err(failing)?
        };
        Ok(ConsistencySaid {
            origin: asked.origin.clone(),
            old: asked.old,
            root: Octets32::new(root.0),
            proof: proof.iter().map(|hash| Octets32::new(hash.0)).collect(),
            head: note,
        })
    }

    /// No kind of entry names objects so far, so that nobody has any to give.
    fn objects(&self, asked: ObjectsAsked) -> Result<ObjectsSaid, Refusal> {
        let known = *asked.origin == *self.name || self.cards.contains_key(asked.origin.as_str());
        let lacking = asked.hashes;
        if known { Ok(ObjectsSaid { found: Vec::new(), lacking }) } else { Err(Refusal::UnknownLog) }
    }
}

/// Sends an answer; or a refusal, perhaps with the milliseconds after which to ask again.
pub(super) fn respond(from: &Name, reply: Reply, said: Result<Said, (Refusal, Option<u64>)>) {
    let answer = match said {
        Ok(said) => Answer::new(said),
        Err((refusal, after)) => {
            log::debug!("{from} is refused an answer: {}", refusal.name());
            Answer::refused(refusal, after)
        }
    };
    if let Err(error) = reply.answer(answer.encode()) {
        log::debug!("{from} has no answer: {error}");
    }
}

fn failing(error: ReadError) -> Refusal {
    log::warn!("a neighbour's question cannot be answered: {error}");
    Refusal::Failing
}
