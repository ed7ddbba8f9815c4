//! The neighbours' thread: mirrors and witnesses the neighbours' logs, and has the own one mirrored and witnessed.
//!
//! One std thread owns the machine of `bulla_protocol::gossip`, the mirrors and the wire; one channel of bounded length
//! leads to it. Start reading at `desk::Desk::run`: `own` speaks of the box's own log, `copies` of the neighbours' logs,
//! `ask` puts and judges questions, `answer` answers those of others, `forks` deals with proofs, `challenge` with TPMs.
//! `together` carries what is said of heads that are anchored together. `rosters` takes the fleet's roster from whoever has a newer one, and `courier` asks the registrar for it.
//! Refuses to do: talk to anybody whom neither a roster nor an operator names; store what does not lead to a signed head; cosign
//! what is not durable, or anything while a rollback is suspected.
//! Invariant: nobody who seals ever waits for this thread; it reads the log like anybody else, and what it wants logged it
//! hands to the writer as everybody does.

mod answer;
mod ask;
mod begin;
mod challenge;
mod copies;
mod cosigned;
mod courier;
mod desk;
mod elsewhere;
mod facts;
mod forks;
mod own;
mod rosters;
mod together;

pub(in crate::driver) use begin::begin;
pub use copies::edge;
pub use cosigned::CosignedNote;
pub use desk::{MIRRORS, mirror_options};
pub use elsewhere::{Documents, Elsewhere, Searched, seal_file};
pub use facts::{Facts, Holding, PeerFacts};
pub use rosters::RosterFacts;
pub(in crate::driver) use together::SiteWord;

use crate::peers::RosterFault;
use bulla_formats::peer::roster::RosterSaid;
use bulla_protocol::gossip::Standing;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;

/// Messages that wait for the thread.
const INBOX_MAX: usize = 64;

/// What the thread is told.
enum Message {
    /// The wire has something.
    Wire(bulla_peers::Event),
    /// The log has grown, somebody waits, or it is time to stop.
    Look,
    /// The outage thread has something to say of heads that are anchored together.
    Site(SiteWord),
    /// The registrar, at this address, has told of the roster.
    Registrar(RosterSaid, String),
    /// An operator, of this name, hands in a roster.
    Roster(Vec<u8>, String, oneshot::Sender<Result<RosterFacts, RosterFault>>),
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

    /// Has something said to a neighbour. Never waits: `false` when there is no room now.
    pub(in crate::driver) fn site(&self, word: SiteWord) -> bool {
        self.sender.try_send(Message::Site(word)).is_ok()
    }

    /// Hands in a roster.
    pub async fn take_roster(&self, roster: Vec<u8>, operator: String) -> Result<RosterFacts, RosterFault> {
        let (reply, answer) = oneshot::channel();
        let sender = self.sender.clone();
        let message = Message::Roster(roster, operator, reply);
        // The thread may be busy with a disk.
        let sent = tokio::task::spawn_blocking(move || sender.send(message).is_ok()).await;
        if !sent.unwrap_or(false) {
            return Err(RosterFault::Stopping);
        }
        answer.await.unwrap_or(Err(RosterFault::Stopping))
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
