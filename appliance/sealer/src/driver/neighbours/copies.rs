//! The neighbours' logs as they are here: taken up at the start, extended by what was verified, cosigned once durable.
//!
//! Invariants: the right edge kept here is that of the mirror's entries; a state is persisted, frozen or refused as a
//! whole, and the machine hears of it only then.

use super::desk::Desk;
use crate::config::Level;
use bulla_formats::entry::Entry;
use bulla_formats::hash::Hash;
use bulla_formats::merkle::{Frontier, HashReader as _};
use bulla_formats::note::{SignedNote, parse_checkpoint_text};
use bulla_formats::peer::fork::ForkProof;
use bulla_ledger::{Kept, Mirror, MirrorError, ReadError, Reader, Tree};
use bulla_protocol::gossip::{CopyStart, CosignerState, Failure, GossipEvent, Head, Name};
use std::sync::Arc;

/// The right edge of a copy.
pub(super) type Copy = Frontier;

/// The right edge of a log as its reader has it.
pub fn edge(reader: &Reader) -> Result<Copy, ReadError> {
    let snapshot = reader.snapshot();
    let (size, mut peaks, mut first) = (snapshot.size(), Vec::new(), 0u64);
    for level in (0..64u8).rev().filter(|level| size >> level & 1 == 1) {
        peaks.push(snapshot.subtree(level, first >> level)?);
        first += 1 << level;
    }
    // One peak for every bit of the size.
    Ok(Frontier::from_peaks(size, peaks).unwrap_or_default())
}

fn head(tree: Tree) -> Option<Head> {
    (tree.size > 0).then_some(Head { size: tree.size, root: tree.root })
}

impl Desk {
    /// What is on the disk of the neighbours' logs. What cannot be taken up is told, and nothing is added to it.
    pub(super) fn take_up(&mut self) -> Vec<CopyStart> {
        let all: Vec<Name> = self.mirrors.all().iter().map(|mirror| Arc::from(mirror.origin())).collect();
        self.take_up_of(all.into_iter())
    }

    /// The same, of these logs only.
    pub(super) fn take_up_of(&mut self, origins: impl Iterator<Item = Name>) -> Vec<CopyStart> {
        let mut copies = Vec::new();
        // Neighbours' copies of the own log may be here, when a restore was interrupted; it is nobody's copy to extend.
        let own = self.name.clone();
        for origin in origins.filter(|origin| *origin != own) {
            let Some(mirror) = self.mirrors.get(&origin) else { continue };
            match self.take_up_one(&origin, &mirror) {
                Ok(copy) => {
                    copies.push(copy);
                    self.search_in(&origin);
                }
                Err(error) => {
                    log::error!("the copy of {origin} cannot be taken up: {error}");
                    self.troubles.insert(origin, error.to_string());
                }
            }
        }
        copies
    }

    fn take_up_one(&mut self, origin: &Name, mirror: &Mirror) -> Result<CopyStart, MirrorError> {
        let edge = edge(&mirror.reader()?)?;
        let standing = mirror.standing();
        let copy = Head { size: edge.size(), root: edge.root() };
        self.copies.insert(origin.clone(), edge);
        let mut state = CosignerState::default();
        if let Kept::Known(tree) = standing.witness {
            state.witnessed = head(tree);
        }
        if let Kept::Known(tree) = standing.mirror {
            state.mirrored = head(tree);
        }
        match standing.frozen {
            Kept::Known(Some(proof)) => {
                state.frozen = true;
                self.forks.insert(origin.clone(), proof.to_vec());
            }
            Kept::Known(None) => {}
            // Nobody knows whether it has forked: nothing is added before an operator has said so.
            Kept::Lost(_) => state.frozen = true,
        }
        let mut reached = None;
        if let Some(kept) = standing.head
            && let (Some(known), Ok(note)) = (head(kept.tree), String::from_utf8(kept.note))
        {
            reached = Some(known).filter(|known| known.size <= copy.size);
            self.notes.entry(origin.clone()).or_default().insert(known, note);
        }
        let lacking = standing.missing > 0;
        Ok(CopyStart { origin: origin.clone(), copy, reached, lacking, state })
    }

    fn mirror(&self, origin: &str) -> Result<Mirror, MirrorError> {
        match self.mirrors.get(origin) {
            Some(mirror) => Ok(mirror),
            None => self.mirrors.create(origin),
        }
    }

    /// The right edge of the copy of a log.
    pub(super) fn edge(&self, origin: &str) -> Copy {
        self.copies.get(origin).cloned().unwrap_or_default()
    }

    /// Reads the copy of a log.
    pub(super) fn reader(&self, origin: &str) -> Option<Reader> {
        if *origin == *self.name {
            return Some(self.shared.reader.clone());
        }
        self.mirrors.get(origin)?.reader().ok()
    }

    /// Root that a log has here at that size, if it is so large.
    pub(super) fn root_at(&self, origin: &str, size: u64) -> Option<Hash> {
        if *origin != *self.name {
            let edge = self.copies.get(origin)?;
            if edge.size() <= size {
                return (edge.size() == size).then(|| edge.root());
            }
        }
        self.reader(origin)?.root_at(size).ok()
    }

    pub(super) fn note(&self, origin: &str, head: &Head) -> Option<&String> {
        self.notes.get(origin)?.get(head)
    }

    pub(super) fn keep_note(&mut self, origin: &Name, head: Head, note: String) {
        self.notes.entry(origin.clone()).or_default().insert(head, note);
    }

    /// Stores what has been verified.
    pub(super) fn store(&mut self, ticket: u64, origin: &Name) {
        let Some((entries, edge)) = self.verified.remove(&ticket) else {
            return self.events.push_back(GossipEvent::Failed { ticket, failure: Failure::Own });
        };
        let lamport = |bytes: &Vec<u8>| Entry::decode(bytes).ok().map(|entry| entry.content().lamport);
        let lamport = entries.iter().filter_map(lamport).max().unwrap_or(0);
        let tree = Tree { size: edge.size(), root: edge.root() };
        let first = edge.size() - entries.len() as u64;
        let stored = self.mirror(origin).and_then(|mirror| {
            if mirror.standing().poisoned {
                mirror.recover()?;
            }
            mirror.store_range(first, entries, Vec::new(), tree)?;
            Ok(mirror.standing().missing > 0)
        });
        let event = match stored {
            Ok(lacking) => {
                self.copies.insert(origin.clone(), edge);
                self.search_in(origin);
                GossipEvent::Stored { ticket, lacking, lamport }
            }
            Err(error) => {
                log::warn!("entries of {origin} could not be stored: {error}");
                self.troubles.insert(origin.clone(), error.to_string());
                self.take_up_again(origin);
                GossipEvent::Failed { ticket, failure: Failure::Own }
            }
        };
        self.events.push_back(event);
    }

    /// After a write of unknown effect: what is there now.
    fn take_up_again(&mut self, origin: &Name) {
        let read = || edge(&self.mirrors.get(origin)?.reader().ok()?).ok();
        if let Some(edge) = read() {
            self.copies.insert(origin.clone(), edge);
        }
    }

    /// Makes a cosigner's state durable, or a fork.
    pub(super) fn persist(&mut self, ticket: u64, origin: &Name, state: CosignerState) {
        let done = if state.frozen { self.freeze(origin) } else { self.persist_heads(origin, state) };
        let event = match done {
            Ok(()) => GossipEvent::Persisted { ticket },
            Err(reason) => {
                log::warn!("what this box may cosign of {origin} is not durable yet: {reason}");
                self.troubles.insert(origin.clone(), reason);
                GossipEvent::NotPersisted { ticket }
            }
        };
        self.events.push_back(event);
    }

    fn persist_heads(&self, origin: &Name, state: CosignerState) -> Result<(), String> {
        if self.is_halted() {
            return Err("a rollback is suspected, and this box cosigns nothing".to_owned());
        }
        let persist = || -> Result<(), MirrorError> {
            let mirror = self.mirror(origin)?;
            let standing = mirror.standing();
            let newer = |kept: &Kept<Tree>, head: &Head| !matches!(kept, Kept::Known(tree) if tree.size == head.size && tree.root == head.root);
            if let Some(head) = state.witnessed.filter(|head| newer(&standing.witness, head)) {
                mirror.persist_witness(head.size, head.root)?;
                // Where there are no entries, the head itself is what later ones are held against.
                if self.level(origin) == Level::Heads
                    && let Some(note) = self.note(origin, &head)
                {
                    mirror.persist_head(head.size, head.root, note.as_bytes())?;
                }
            }
            if let Some(head) = state.mirrored.filter(|head| newer(&standing.mirror, head)) {
                mirror.persist_mirror(head.size, head.root)?;
                // Whoever starts anew serves the copy under it, and holds later heads against it.
                if let Some(note) = self.note(origin, &head) {
                    mirror.persist_head(head.size, head.root, note.as_bytes())?;
                }
            }
            Ok(())
        };
        persist().map_err(|error| error.to_string())
    }

    /// The log says it, then the copy is frozen: after a crash in between it is said twice rather than never.
    fn freeze(&self, origin: &Name) -> Result<(), String> {
        let Some(proof) = self.forks.get(origin) else {
            return Err("the proof that its log has forked is not at hand".to_owned());
        };
        let mirror = self.mirror(origin).map_err(|error| error.to_string())?;
        if let Kept::Known(Some(_)) = mirror.standing().frozen {
            return Ok(());
        }
        let key = self.cards.get(origin).map(|card| card.content().log_key);
        let fork = key.and_then(|key| ForkProof::decode(proof).ok()?.verify(&key).ok());
        let detail = fork.map_or_else(|| origin.to_string(), |fork| fork.detail().to_owned());
        if !self.is_halted() {
            self.log_incident(ForkProof::INCIDENT, &detail).map_err(|error| error.to_string())?;
        }
        mirror.freeze(proof).map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// The log that a checkpoint is of, and its head; nothing is verified.
pub(super) fn stated(note: &SignedNote) -> Option<(String, Head)> {
    let (origin, size, root) = parse_checkpoint_text(&note.text).ok()?;
    Some((origin.to_owned(), Head { size, root }))
}
