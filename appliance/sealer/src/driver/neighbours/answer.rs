//! Answers to neighbours' questions: from the own log, and from the copies of others.
//!
//! Refuses to do: answer with a head that the log has not signed, or with more than an answer may hold.
//! Invariant: every answer about a log stands under a signed head that covers it.

use super::copies::stated;
use super::desk::Desk;
use bulla_formats::der::Octets32;
use bulla_formats::peer::message::{
    Answer, Asked, ConsistencyAsked, ConsistencySaid, ENTRIES_MAX, Held, LOGS_MAX, ObjectsAsked, ObjectsSaid,
    Question, RangeAsked, RangeSaid, Refusal, Said,
};
use bulla_ledger::{ReadError, Reader};
use bulla_peers::Reply;
use bulla_protocol::gossip::{Head, Name};

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
        let answer = match Question::decode(bytes) {
            Ok(question) => self.answer(from, question.asked),
            Err(error) => Err(error.refusal()),
        };
        let answer = match answer {
            Ok(said) => Answer::new(said),
            Err(refusal) => {
                log::debug!("{from} is refused an answer: {}", refusal.name());
                Answer::refused(refusal, None)
            }
        };
        if let Err(error) = reply.answer(answer.encode()) {
            log::debug!("{from} has no answer: {error}");
        }
    }

    fn answer(&mut self, from: &Name, asked: Asked) -> Result<Said, Refusal> {
        match asked {
            Asked::Heads(asked) => Ok(Said::Heads(self.heads(&asked.origins))),
            Asked::Range(asked) => self.range(&asked).map(Said::Range),
            Asked::Objects(asked) => self.objects(asked).map(Said::Objects),
            Asked::Cosigned(cosigned) => {
                let note = cosigned.read().map_err(|_| Refusal::Malformed)?;
                if stated(&note).is_none_or(|(origin, _)| origin != cosigned.origin) {
                    return Err(Refusal::Malformed);
                }
                self.take_cosignatures(from, &note)?;
                Ok(Said::Taken(()))
            }
            Asked::Consistency(asked) => self.consistency(&asked).map(Said::Consistency),
            Asked::Fork(proof) => {
                self.take_fork(&proof)?;
                Ok(Said::Taken(()))
            }
            Asked::ForkOf(asked) => {
                let proof = asked.origins.first().and_then(|origin| self.forks.get(origin.as_str()));
                proof.map(|proof| Said::Fork(proof.clone().into())).ok_or(Refusal::UnknownLog)
            }
        }
    }

    /// What is held of each log, under the newest signed head that was found consistent.
    fn heads(&self, origins: &[String]) -> Vec<Held> {
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
                let (origin, entries) = (peer.peer.to_string(), peer.copy.min(head.size));
                held.push(Held { origin, head: note, entries, frozen: peer.state.frozen });
            }
        }
        held.sort_by(|a, b| a.origin.cmp(&b.origin));
        held.truncate(LOGS_MAX);
        held
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

    fn range(&self, asked: &RangeAsked) -> Result<RangeSaid, Refusal> {
        let Served { reader, head, note } = self.served(&asked.origin)?;
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

fn failing(error: ReadError) -> Refusal {
    log::warn!("a neighbour's question cannot be answered: {error}");
    Refusal::Failing
}
