//! The outage thread: asks the world whether it is there, says in the log when it is not, and has others vouch for the
//! log when it is.
//!
//! `bulla_protocol` decides: [`bulla_protocol::mode`] in which mode the box is, [`bulla_protocol::anchoring`] whom to ask
//! and when, [`bulla_protocol::time`] what the clocks are worth, [`bulla_protocol::sources`] whom to
//! ask for the time. Here it is carried out, beside the write path.
//! Refuses to do: hold up a seal; decide.
//! Invariants: everything logged here is noted before and after ([`kept`]), so that a crash between leaves nothing
//! unknown; what goes out leaves only after the state that counts it is durable.

mod anchors;
pub mod authority;
mod changes;
mod clocks;
mod crls;
mod desk;
mod doubt;
mod facts;
mod files;
pub mod http;
pub mod kept;
pub mod lease;
pub mod manifests;
pub mod restore;
mod sources;
mod together;
mod tree;
mod words;

pub(in crate::driver) use changes::tpm_clock;
pub use crls::CrlFacts;
pub(super) use desk::through;
pub use desk::{Desk, Parts};
pub use facts::{AuthorityFacts, Facts, LATENCY_MILLIS};
pub use files::{FORMS, file_name, page_of};
pub use manifests::Manifests;
pub use sources::{LastAnswer, SourceFacts};
pub(in crate::driver) use together::SiteNews;

use authority::Proof;
use bulla_protocol::anchoring::Batch;
use bulla_protocol::mode::{DrillRefusal, ModeFacts};
use bulla_protocol::time::TpmClock;
use bulla_roughtime::Answer;
use http::Trouble;
use lease::{LeaseFacts, LeaseFault, LeaseOrder};
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// What an operator asks of drills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillOrder {
    /// Treat every authority as unreachable for so many milliseconds.
    Start(u64),
    /// End it.
    Stop,
}

/// Why there is no drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DrillError {
    /// The rules say no.
    #[error("{}", refusal_sentence(*.0))]
    Refused(DrillRefusal),
    /// The box is stopping.
    #[error("the box is stopping; retry in a moment")]
    Stopping,
}

fn refusal_sentence(refusal: DrillRefusal) -> &'static str {
    match refusal {
        DrillRefusal::AirGapped => "this box has no authorities: there is nothing to lose in a drill",
        DrillRefusal::OutageUnderWay => {
            "an outage, or its reconciliation, is under way: wait until the box is online"
        }
        DrillRefusal::DrillUnderWay => "a drill is under way: stop it first",
        DrillRefusal::RollbackSuspected => {
            "a rollback is suspected: an operator must decide about the log first"
        }
    }
}

enum Message {
    /// An authority was looked at.
    Probed {
        authority: usize,
        result: Result<Option<Proof>, Trouble>,
        sent: u64,
    },
    /// A question was answered.
    Answered {
        ticket: u64,
        authority: usize,
        /// What the question was over.
        over: (Batch, u64),
        result: Result<Proof, Trouble>,
        sent: u64,
    },
    /// Of heads that are anchored together.
    Site(SiteNews),
    /// A fetch of a CRL has ended.
    Crl {
        certificate: bulla_protocol::crl::Certificate,
        fetched: crls::Fetched,
    },
    /// A Roughtime server was asked; with an answer comes when the question left.
    Told {
        source: usize,
        result: Result<(Answer, u64), Trouble>,
        sent: u64,
    },
    Tpm(TpmClock),
    /// Something has changed that is looked at from time to time anyway.
    Look,
    Expedite(u64),
    Drill(DrillOrder, oneshot::Sender<Result<ModeFacts, DrillError>>),
    Lease(LeaseOrder, oneshot::Sender<Result<LeaseFacts, LeaseFault>>),
    /// So many neighbours hold copies of the log.
    Holders(u32),
    Stop,
}

/// Talks to the outage thread; clones share it.
#[derive(Clone)]
pub struct Handle(Sender<Message>);

/// What the outage thread reads from.
pub struct Inbox(Receiver<Message>);

impl Handle {
    /// A handle and what the thread reads from.
    pub fn new() -> (Self, Inbox) {
        let (sender, receiver) = channel();
        (Handle(sender), Inbox(receiver))
    }

    /// The TPM's clock was seen.
    pub fn tpm(&self, clock: TpmClock) {
        self.tell(Message::Tpm(clock));
    }

    /// The lock has changed.
    pub fn look(&self) {
        self.tell(Message::Look);
    }

    /// Somebody waits for the anchor of entry `index`.
    pub fn expedite(&self, index: u64) {
        self.tell(Message::Expedite(index));
    }

    /// Starts or stops a drill; answers with the modes as they then are.
    pub async fn drill(&self, order: DrillOrder) -> Result<ModeFacts, DrillError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Drill(order, reply));
        answer.await.map_err(|_| DrillError::Stopping)?
    }

    /// Hands in a lease.
    pub async fn lease(&self, order: LeaseOrder) -> Result<LeaseFacts, LeaseFault> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Lease(order, reply));
        answer.await.map_err(|_| LeaseFault::Stopping)?
    }

    /// So many neighbours hold copies of the log.
    pub fn holders(&self, count: u32) {
        self.tell(Message::Holders(count));
    }

    /// What neighbours say of heads that are anchored together.
    pub(in crate::driver) fn site(&self, news: SiteNews) {
        self.tell(Message::Site(news));
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.tell(Message::Stop);
    }

    fn tell(&self, message: Message) {
        // The thread ends only at stop; what is said after that needs no listener.
        let _ = self.0.send(message);
    }
}
