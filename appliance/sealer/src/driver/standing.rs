//! What every entry's header says beside its own matter: the mode in force, whether it is a drill, the newest time
//! evidence. And how far the outage under way has come.
//!
//! Refuses to do: decide on a mode; `bulla_protocol::mode` does, and the outage thread asks for it here.
//! Invariants: a mode is in force from the entry that changes it on, and that entry begins a batch of its own, so the
//! tree before it is one that was published; seals are counted in the same step in which they become durable.

use super::body::EntryMaker;
use super::writer::{Batch, Reply, Waiter, Writer};
use super::{SealError, Shared, outage};
use bulla_formats::entry::{Entry, EntryRef, Kind, Mode, TreeState};
use bulla_ledger::NewEntry;
use std::sync::atomic::Ordering::Relaxed;

/// The writer's own state of it.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Mode in force.
    pub mode: Mode,
    /// Whether entries belong to a drill.
    pub drill: bool,
    /// The newest anchor entry.
    pub evidence: Option<EntryRef>,
    /// Seals of the outage under way; `None` while there is none.
    pub seals: Option<u64>,
    /// Whether a limit of emergency operation keeps the box from sealing.
    pub limited: bool,
}

/// What a mode change does to the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// It begins with this entry.
    Begins,
    /// It goes on, or there is none.
    Goes,
    /// It ended with the entry before.
    Ends,
}

/// A mode change to be logged.
#[derive(Debug, Clone)]
pub struct ModeOrder {
    /// The mode from its entry on.
    pub to: Mode,
    /// Whether entries belong to a drill from then on.
    pub drill: bool,
    /// What becomes of the outage.
    pub movement: Movement,
    /// Whether a limit keeps the box from sealing from then on.
    pub limited: bool,
    /// DER of the body.
    pub body: Vec<u8>,
}

/// A mode change that is durable.
#[derive(Debug, Clone)]
pub struct ModeLogged {
    /// Index of its entry.
    pub index: u64,
    /// The tree before it.
    pub before: TreeState,
    /// Seals of the outage before it.
    pub seals: u64,
}

impl Writer {
    /// Logs a mode change, in a batch of its own, and puts the mode in force.
    pub(super) fn change_mode(&mut self, order: ModeOrder, reply: Reply<ModeLogged>) {
        let answer = self.log_mode(order);
        // Whoever asked may have given up; then it is read back from the log at the next start.
        drop(reply.send(answer));
    }

    fn log_mode(&mut self, order: ModeOrder) -> Result<ModeLogged, SealError> {
        self.ready_again()?;
        let locked = |reason: &str| SealError::Locked { reason: reason.to_owned() };
        if self.gate.is_key_away() {
            return Err(locked("the sealing key cannot sign, its device does not answer"));
        }
        let key = self.epoch.key.as_ref().ok_or_else(|| locked("this run has no sealing key yet"))?;
        let before = TreeState::new(self.ledger.size(), self.ledger.root());
        let seals = self.standing.seals.unwrap_or(0);
        let mut maker = EntryMaker {
            origin: &self.shared.origin,
            clock: &self.shared.clock,
            mode: order.to,
            drill: order.drill,
            evidence: self.standing.evidence.clone(),
            epoch: self.epoch.number,
            residency: self.epoch.residency,
            key,
            next_index: before.size,
            previous: before.clone(),
            lamport: self.lamport,
        };
        let entry = maker.make(Kind::ModeChange, order.body.clone()).map_err(super::writer::make_error)?;
        let lamport = maker.lamport;
        let mut batch = Batch::default();
        let row = NewEntry { entry: entry.bytes().to_vec(), ..NewEntry::default() };
        batch.push(entry, row, None::<Waiter>);
        let committed = self.append(&batch)?;
        self.lamport = lamport;
        let index = before.size;
        self.standing = Standing {
            mode: order.to,
            drill: order.drill,
            evidence: self.standing.evidence.clone(),
            seals: match order.movement {
                Movement::Begins => Some(0),
                Movement::Goes => self.standing.seals,
                Movement::Ends => None,
            },
            limited: order.limited,
        };
        self.gate.set_locked(self.shared.lock().is_some() || order.to == Mode::Safe);
        self.shared.set_standing(self.standing.clone());
        // Nobody waits in this batch: publishing it is all there is to answer.
        let waiting = self.answer(batch, committed);
        debug_assert!(waiting.is_empty());
        log::info!("mode {} from entry {index} on{}", order.to, if order.drill { " (drill)" } else { "" });
        Ok(ModeLogged { index, before, seals })
    }

    /// Takes note of what has become durable.
    pub(super) fn stands(&mut self, entries: &[Entry], seals: u64) {
        let anchor = entries.iter().rev().find(|entry| entry.kind() == Some(Kind::Anchor));
        if let Some(entry) = anchor {
            let leaf_hash = bulla_formats::der::Octets32::new(entry.leaf_hash().0);
            self.standing.evidence = Some(EntryRef { index: entry.content().index, leaf_hash });
        }
        if let Some(all) = &mut self.standing.seals {
            *all += seals;
        }
        let worthy = entries.iter().rev().find(|entry| outage::restore::is_worth(entry.kind()));
        if let Some(entry) = worthy {
            self.shared.worth.store(entry.content().index + 1, Relaxed);
        }
        if let Some(entry) = anchor {
            self.shared.anchors.added(entry);
            self.shared.set_standing(self.standing.clone());
        }
    }
}

impl Shared {
    /// What stands now, as the writer last said.
    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    fn set_standing(&self, standing: Standing) {
        self.standing.send_replace(standing);
    }
}
