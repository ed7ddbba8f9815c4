//! The neighbours' thread: mirrors and witnesses the neighbours' logs, and has the own one mirrored and witnessed.
//!
//! One std thread owns the machine of `bulla_protocol::gossip`, the mirrors and the wire; one channel of bounded length
//! leads to it. Start reading at `desk::Desk::run`: `own` speaks of the box's own log, `copies` of the neighbours' logs,
//! `ask` puts and judges questions, `answer` answers those of others, `forks` deals with proofs.
//! Refuses to do: talk to anybody whose card no operator has handed in; store what does not lead to a signed head; cosign
//! what is not durable, or anything while a rollback is suspected.
//! Invariant: nobody who seals ever waits for this thread; it reads the log like anybody else, and what it wants logged it
//! hands to the writer as everybody does.

mod answer;
mod ask;
mod begin;
mod copies;
mod desk;
mod facts;
mod forks;
mod own;

pub(in crate::driver) use begin::begin;
pub use desk::MIRRORS;
pub use facts::{Facts, Holding, PeerFacts};

use bulla_protocol::gossip::Standing;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Messages that wait for the thread.
const INBOX_MAX: usize = 64;

/// What the thread is told.
enum Message {
    /// The wire has something.
    Wire(bulla_peers::Event),
    /// The log has grown, somebody waits, or it is time to stop.
    Look,
}

/// Talks to the thread; clones share it.
#[derive(Clone)]
pub struct Handle {
    sender: SyncSender<Message>,
    /// A look is on its way already.
    looking: Arc<AtomicBool>,
    /// Somebody waits until the tree of this size is mirrored.
    awaited: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
}

/// What the thread reads from.
pub struct Inbox {
    receiver: Receiver<Message>,
    looking: Arc<AtomicBool>,
    awaited: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
}

impl Handle {
    /// A handle and what the thread reads from.
    pub fn new() -> (Self, Inbox) {
        let (sender, receiver) = sync_channel(INBOX_MAX);
        let (looking, stopping) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let awaited = Arc::<AtomicU64>::default();
        let inbox = Inbox {
            receiver,
            looking: looking.clone(),
            awaited: awaited.clone(),
            stopping: stopping.clone(),
        };
        (Handle { sender, looking, awaited, stopping }, inbox)
    }

    /// The log has grown. Never waits: what does not fit is looked at within a second anyway.
    pub fn look(&self) {
        if !self.looking.swap(true, Relaxed)
            && let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Look)
        {
            self.looking.store(false, Relaxed);
        }
    }

    /// Somebody waits until the tree of `size` entries is mirrored.
    pub fn wait_for(&self, size: u64) {
        self.awaited.fetch_max(size, Relaxed);
        self.look();
    }

    /// Ends the thread, as soon as it has looked.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.look();
    }

    /// Hands over what the wire has; waits while the thread is busy, so that the peers do. `false` when it is gone.
    fn wire(&self, event: bulla_peers::Event) -> bool {
        self.sender.send(Message::Wire(event)).is_ok()
    }
}

/// What a start learns from the neighbours: what to refuse for, or nothing.
pub fn finding(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Behind { head, from } => Some(format!(
            "{from} holds a head of this log with {} entries that this disk does not have: the disk is an older copy, or \
             another box runs with this box's keys",
            head.size
        )),
        Standing::Equal | Standing::Nobody => None,
    }
}
