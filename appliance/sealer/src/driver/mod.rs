//! The driver: carries out what `protocol` decides, on ledger and keys.
//!
//! Threads: one *writer* owns the ledger and the sealing key; one *attestor* talks to the TPM beside
//! it, so that a slow TPM never delays a seal; everything else is async and only asks. Queues: the
//! writer's holds `queue_max` seals and refuses beyond (the client gets 503 at once).
//! Refuses to do: answer before the entry is durable; seal while a rollback is suspected.
//! Invariant: a [`Receipt`] exists only for an entry that a `bulla_ledger::Committed` covers (G1).

mod anchored;
mod attest;
mod attested;
mod backup;
pub mod body;
mod checks;
pub mod clock;
pub mod crls;
mod epochs;
mod erase;
mod evidence;
pub mod fuzzing;
mod image;
mod keeper;
mod lock;
pub mod medium;
pub mod neighbours;
pub mod outage;
pub mod outside;
mod queueing;
mod scrub;
mod search;
mod self_test;
pub mod stamping;
pub mod standing;
mod start;
mod status;
mod succession;
mod writer;

pub use checks::ScrubResult;
pub use erase::{ERASE_MAX, EraseError, Selection};
pub use lock::{Lock, LockAnswer, LockChange};
pub use queueing::{parse_queue_id, queue_id};
pub use search::{Found, Query, Related, SearchError, Viewer};
pub use start::start;
pub use status::{Condition, Counters, Status};

use crate::peers::Hubs;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::seal::{Client, DocumentDigest, Observation, Opening, Relation, SealBody};
use bulla_formats::der;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Entry, EntryContent, Kind, Mode};
use bulla_formats::hash::Hash;
use bulla_formats::origin::Origin;
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_ledger::{Mirrors, Queue, QueueId, QueueOutcome, QueueState, ReadError, Reader, Request, Snapshot};
use ed25519_dalek::SigningKey;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Longest time for which a lock, or its end, waits for the mode change that goes with it.
const MODE_FOLLOWS_WITHIN: Duration = Duration::from_secs(5);

/// A document to seal.
#[derive(Debug, Clone)]
pub struct SealOrder {
    /// Its digest.
    pub digest: DocumentDigest,
    /// Media type as the client named it.
    pub media_type: String,
    /// What the box saw.
    pub observation: Observation,
    /// Who sent it.
    pub client: Client,
    /// How it travelled.
    pub transport: String,
    /// What the commitments open to, with their salts.
    pub openings: Vec<Opening>,
    /// Relations to other entries.
    pub relations: Vec<Relation>,
    /// Idempotency key, if the client gave one.
    pub request: Option<Request>,
}

/// A durable seal.
#[derive(Debug)]
pub struct Receipt {
    /// Index of its entry.
    pub index: u64,
    /// Leaf hash of its entry.
    pub leaf_hash: Hash,
    /// The `.seal` file, with the openings the client sent.
    pub seal: SealFile,
    /// Header of the entry.
    pub content: EntryContent,
    /// Whether the idempotency key had been used before and this is the seal made then.
    pub replayed: bool,
    /// Earlier seals of the same digest, newest first, at most eight.
    pub earlier: Vec<u64>,
    /// Seals of the same digest in copies of other boxes' logs, at most eight.
    pub elsewhere: Vec<neighbours::Elsewhere>,
}

/// A request that was promised a seal: it is durable, and sealed in its turn.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Its name.
    pub id: QueueId,
    /// 1 for the request that is next.
    pub position: u64,
    /// Why it is not sealed at once.
    pub reason: String,
    /// Whether it waits for an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// What the writer answers an order.
enum Answer {
    Sealed(writer::Sealed),
    Queued(Queued),
}

/// What becomes of an order.
#[derive(Debug)]
pub enum Outcome {
    /// It is sealed.
    Sealed(Box<Receipt>),
    /// It will be.
    Queued(Queued),
}

/// What is known of a queued request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant: whose it is, when the box took it, and what its name says")]
pub enum QueuedState {
    /// It waits; 1 is next.
    Waiting { client: String, queued_ms: u64, position: u64 },
    /// It is this entry.
    Sealed { client: String, queued_ms: u64, index: u64 },
    /// It can never be sealed.
    Refused { client: String, queued_ms: u64, reason: String },
}

/// Why there is no seal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SealError {
    /// The key was used before for something else.
    #[error("this idempotency key was used for another request, sealed as entry {index}")]
    KeyReused {
        /// The entry it was used for.
        index: u64,
    },
    /// The key belongs to another request, which waits to be sealed.
    #[error("this idempotency key was used for another request, queued as {id}")]
    KeyQueued {
        /// Public name of that request in the queue.
        id: String,
    },
    /// Too little room; nothing was promised.
    #[error("{free} bytes are free, {needed} must stay free")]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        needed: u64,
    },
    /// The queue is full.
    #[error("too many seals are waiting")]
    Overloaded,
    /// The box does not seal now.
    #[error("{reason}")]
    Locked {
        /// Why.
        reason: String,
    },
    /// The disk may be an older copy; an operator must decide.
    #[error("a rollback is suspected: {finding}")]
    RollbackSuspected {
        /// What was found at start.
        finding: String,
    },
    /// The box retires, and takes no new seals ever again.
    #[error("this box retires and takes no new seals")]
    Retiring,
    /// The seal failed; it is not in the log under this answer, retry with the same idempotency key.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The order cannot be expressed as an entry.
    #[error("{reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
}

/// What a neighbour has done about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It holds the entry durably.
    Mirrored,
    /// It has found the entry's tree consistent with all before.
    Witnessed,
}

/// Why a wait for attestation ended without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// Not within the deadline; it is still tried.
    #[error("the TPM has not attested in time; it is still tried")]
    TimedOut,
    /// This box has no TPM.
    #[error("this box has no TPM and never attests")]
    NotHardware,
}

/// Why an entry cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("no such entry")]
    Unknown,
    /// There is one, but it is no seal.
    #[error("the entry is not a seal")]
    NotASeal,
    /// It cannot be read.
    #[error("{0}")]
    Storage(String),
}

impl From<ReadError> for LookupError {
    fn from(error: ReadError) -> Self {
        LookupError::Storage(error.to_string())
    }
}

/// The newest head: signed only after it was durable and had been read back.
#[derive(Debug)]
struct Published {
    snapshot: Snapshot,
    text: String,
    signature: [u8; 64],
    note: String,
    /// Seals of the outage under way, up to this head.
    outage_seals: Option<u64>,
}

/// What threads and handlers share.
struct Shared {
    origin: Origin,
    enrolment_der: Vec<u8>,
    attestation_key: Vec<u8>,
    hardware: Hardware,
    log_key: SigningKey,
    reader: Reader,
    trust: TrustFile,
    /// The fleet's hubs by its roster.
    hubs: Hubs,
    epochs: epochs::EpochIndex,
    published: RwLock<Option<Arc<Published>>>,
    /// Size of the newest attested head.
    attested: watch::Sender<u64>,
    /// Entries that as many operators as policy asks for have anchored, by proofs that count.
    anchored: watch::Sender<u64>,
    /// Entries in the log, as published.
    size: watch::Sender<u64>,
    /// Attested head size to the attestation entry's index, for entries since this start.
    attestations: Mutex<BTreeMap<u64, u64>>,
    /// Attestations looked for among entries made before it.
    found: attested::Found,
    condition: watch::Sender<Condition>,
    counters: Counters,
    checks: Arc<checks::Checks>,
    status: status::Facts,
    search: search::Search,
    /// Requests promised a seal.
    kept: Queue,
    /// The operator's lock.
    lock: RwLock<Option<Lock>>,
    /// It is decided that the box retires.
    retiring: bool,
    /// Grows when queued requests have left the queue.
    settled: watch::Sender<u64>,
    clock: clock::Clock,
    /// One past the newest entry that is worth an anchor.
    worth: AtomicU64,
    /// Where anchors stand.
    anchors: anchored::Anchors,
    /// CRLs kept as evidence beside them.
    crls: crls::Crls,
    manifests: outage::Manifests,
    outage: RwLock<Option<outage::Facts>>,
    wording: outage::manifests::Wording,
    standing: watch::Sender<standing::Standing>,
    /// What signs time-stamp tokens, while the box makes any.
    stamper: RwLock<Option<Arc<stamping::Stamper>>>,
    /// How much of the log each neighbour holds.
    held: watch::Sender<Arc<Vec<neighbours::Holding>>>,
    /// Checkpoints of this log that neighbours cosigned.
    cosigned: RwLock<Arc<Vec<neighbours::CosignedNote>>>,
    neighbours: RwLock<Option<Arc<neighbours::Facts>>>,
    /// Copies of the neighbours' logs, while there are neighbours.
    mirrors: OnceLock<Arc<Mirrors>>,
    /// The medium that the log is copied to.
    medium: medium::Shown,
    /// Copies of other boxes' logs that are looked through for the bytes of a seal.
    searched: RwLock<Vec<neighbours::Searched>>,
}

enum Command {
    Seal(Box<SealOrder>, oneshot::Sender<Result<Answer, SealError>>),
    Append(Kind, Vec<u8>, oneshot::Sender<Result<u64, SealError>>),
    NextEpoch(epochs::PreparedEpoch),
    Rotate(String, oneshot::Sender<Result<u64, SealError>>),
    Erase(erase::Order, erase::ErasureReply),
    /// The tags of the erasure that is going on are gone, or why not yet.
    TagsErased(Result<(), String>),
    /// The log ends with this body, alone behind everything else of its round.
    End(Vec<u8>, oneshot::Sender<Result<u64, SealError>>),
    /// Take the log up again if storage has failed, and what was held back with it.
    Recover,
    /// The device of the sealing key answers again.
    KeyAnswers,
    Lock(LockChange, oneshot::Sender<Result<LockAnswer, SealError>>),
    /// The Lamport time goes on from here: a neighbour's log has come so far.
    Lamport(u64),
    Mode(standing::ModeOrder, oneshot::Sender<Result<standing::ModeLogged, SealError>>),
    Stop,
}

/// The sealing service of this box; clones share it.
#[derive(Clone)]
pub struct Sealer {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    attestor: attest::Handle,
    keeper: keeper::Handle,
    outage: outage::Handle,
    neighbours: Option<neighbours::Handle>,
    threads: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
    scrub: scrub::Stop,
    self_testing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) control: bulla_ledger::Control,
}

impl Sealer {
    /// The fleet's hubs, as its roster names them now.
    pub fn hubs(&self) -> &Hubs {
        &self.shared.hubs
    }

    /// Seals a document; the answer comes when its entry is durable (G1), or when it is durably queued.
    pub async fn seal(&self, order: SealOrder) -> Result<Outcome, SealError> {
        let digest = order.digest.clone();
        let openings: Vec<Opening> = order.openings.clone();
        let sealed = match self.order(order).await? {
            Answer::Sealed(sealed) => sealed,
            Answer::Queued(queued) => return Ok(Outcome::Queued(queued)),
        };
        let failed = |error: LookupError| SealError::Failed { reason: error.to_string() };
        let seal = if sealed.replayed {
            self.seal_file(sealed.entry.content().index, true).map_err(failed)?
        } else {
            evidence::fresh(&self.shared, &sealed, &openings).map_err(failed)?
        };
        let receipt = self.receipt(&sealed.entry, &digest, seal, sealed.replayed).map_err(failed)?;
        Ok(Outcome::Sealed(Box::new(receipt)))
    }

    /// Puts an order into the writer's queue; what the writer answers.
    async fn order(&self, order: SealOrder) -> Result<Answer, SealError> {
        self.shared.may_seal()?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Command::Seal(Box::new(order), reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SealError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answer.await.map_err(|_| stopping())?
    }

    fn receipt(
        &self,
        entry: &Entry,
        digest: &DocumentDigest,
        seal: SealFile,
        replayed: bool,
    ) -> Result<Receipt, LookupError> {
        let content = entry.content().clone();
        let mut earlier = self.find_digest(digest, 9)?;
        earlier.retain(|found| *found < content.index);
        earlier.truncate(8);
        let elsewhere = self.shared.elsewhere(digest, 8);
        let (index, leaf_hash) = (content.index, entry.leaf_hash());
        Ok(Receipt { index, leaf_hash, seal, content, replayed, earlier, elsewhere })
    }

    /// Waits until a queued request is sealed, at most so long; `None`: it still waits, or never will be.
    pub async fn sealed_from_queue(
        &self,
        id: QueueId,
        deadline: Duration,
    ) -> Result<Option<Receipt>, LookupError> {
        if deadline.is_zero() {
            return Ok(None);
        }
        let mut settled = self.shared.settled.subscribe();
        let until = tokio::time::Instant::now() + deadline;
        loop {
            settled.borrow_and_update();
            let sealer = self.clone();
            let looked = tokio::task::spawn_blocking(move || sealer.queued(id));
            match looked
                .await
                .map_err(|_| LookupError::Storage("the look-up did not finish".to_owned()))??
            {
                Some(QueuedState::Sealed { index, .. }) => return self.receipt_at(index).await.map(Some),
                Some(QueuedState::Waiting { .. }) => {}
                Some(QueuedState::Refused { .. }) | None => return Ok(None),
            }
            match tokio::time::timeout_at(until, settled.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    /// The receipt of an entry that is a seal.
    pub async fn receipt_at(&self, index: u64) -> Result<Receipt, LookupError> {
        let sealer = self.clone();
        let read = move || {
            let entry = sealer.entry(index)?;
            let body = SealBody::decode(&entry.content().body)
                .map_err(|error| LookupError::Storage(error.to_string()))?;
            let seal = sealer.seal_file(index, true)?;
            sealer.receipt(&entry, &body.document_digest(), seal, false)
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|_| LookupError::Storage("the look-up did not finish".to_owned()))?
    }

    /// What is known of a queued request; `None` when nothing is, or not any more.
    pub fn queued(&self, id: QueueId) -> Result<Option<QueuedState>, LookupError> {
        let Some(state) = self.shared.kept.look(id)? else { return Ok(None) };
        Ok(Some(match state {
            QueueState::Waiting { row, position } => {
                // Sealed a moment ago, and not recorded yet.
                match self.shared.reader.find_request(&row.request.key)? {
                    Some((index, print)) if print == row.request.fingerprint => {
                        QueuedState::Sealed { client: row.client, queued_ms: row.queued_ms, index }
                    }
                    _ => QueuedState::Waiting { client: row.client, queued_ms: row.queued_ms, position },
                }
            }
            QueueState::Done { client, queued_ms, outcome } => match outcome {
                QueueOutcome::Sealed { index } => QueuedState::Sealed { client, queued_ms, index },
                QueueOutcome::Refused { reason } => QueuedState::Refused { client, queued_ms, reason },
            },
        }))
    }

    /// Locks or unlocks sealing; durable when answered.
    pub async fn change_lock(&self, change: LockChange) -> Result<LockAnswer, SealError> {
        if let Condition::RollbackSuspected { finding } = self.shared.condition() {
            return Err(SealError::RollbackSuspected { finding });
        }
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::Lock(change, reply)).await.map_err(|_| stopping())?;
        let answer = answer.await.map_err(|_| stopping())??;
        // The lock holds already; whoever asked sees the mode that goes with it, unless the log takes no entry now.
        let mut standing = self.shared.standing.subscribe();
        self.outage.look();
        let follows = standing
            .wait_for(|standing| (standing.mode == Mode::Safe) == (answer.locked || standing.limited));
        let _ = tokio::time::timeout(MODE_FOLLOWS_WITHIN, follows).await;
        Ok(answer)
    }

    /// Writes the final entry of the log; its index. Nothing is logged after it.
    ///
    /// # Errors
    /// It is not in the log; the log goes on as before.
    pub async fn log_end(&self, body: &OperatorActionBody) -> Result<u64, SealError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::End(der::encode(body), reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Requests that were promised a seal and have none yet.
    pub fn requests_waiting(&self) -> u64 {
        self.shared.kept.depth().entries
    }

    /// Whether it is decided that this box retires.
    pub fn is_retiring(&self) -> bool {
        self.shared.retiring
    }

    /// Whether the queue is full; a seal that came now would be refused.
    pub fn is_full(&self) -> bool {
        self.queue.capacity() == 0
    }

    /// Waits until a TPM quote covers entry `index`; asks for one at once.
    pub async fn attested(&self, index: u64, deadline: Duration) -> Result<(), AttestError> {
        if self.shared.hardware == Hardware::Software {
            return Err(AttestError::NotHardware);
        }
        let mut attested = self.shared.attested.subscribe();
        self.attestor.someone_waits();
        let covered = attested.wait_for(|size| *size > index);
        match tokio::time::timeout(deadline, covered).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(AttestError::TimedOut),
        }
    }

    /// Waits until as many operators as policy asks for have anchored entry `index`, and has that done before others that
    /// can wait; whether they have. `None`: there are no authorities.
    pub async fn anchored(&self, index: u64, deadline: Duration) -> Option<bool> {
        self.shared.trust.authorities.as_ref()?;
        let mut anchored = self.shared.anchored.subscribe();
        self.outage.expedite(index);
        let covered = anchored.wait_for(|size| *size > index);
        Some(matches!(tokio::time::timeout(deadline, covered).await, Ok(Ok(_))))
    }

    /// Waits until so many neighbours hold entry `index` durably, or have found its tree consistent, as they have
    /// cosigned; asks them at once. Those that do by then, by their logs' names, and whether they are enough.
    pub async fn held_by(
        &self,
        index: u64,
        what: Held,
        peers: usize,
        deadline: Duration,
    ) -> (Vec<String>, bool) {
        let Some(handle) = &self.neighbours else { return (Vec::new(), false) };
        let mut held = self.shared.held.subscribe();
        handle.wait_for(index + 1);
        let holders = |held: &[neighbours::Holding]| -> Vec<String> {
            let size = |holding: &neighbours::Holding| match what {
                Held::Mirrored => holding.mirrored,
                Held::Witnessed => holding.witnessed,
            };
            held.iter().filter(|one| size(one) > index).map(|one| one.origin.clone()).collect()
        };
        // However it ends, what holds by then is told.
        let enough = held.wait_for(|held| holders(held).len() >= peers);
        let _ = tokio::time::timeout(deadline, enough).await;
        let names = holders(&self.shared.held.borrow());
        let enough = names.len() >= peers;
        (names, enough)
    }

    /// Whether this box has neighbours at all.
    pub fn has_neighbours(&self) -> bool {
        self.neighbours.is_some()
    }

    /// The way to the neighbours' thread.
    pub fn neighbours_handle(&self) -> Option<&neighbours::Handle> {
        self.neighbours.as_ref()
    }

    /// How it goes with the neighbours; `None` without `[peers]`.
    pub fn neighbours(&self) -> Option<Arc<neighbours::Facts>> {
        self.shared.neighbours.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Copies of the neighbours' logs.
    pub fn mirrors(&self) -> Option<&Arc<Mirrors>> {
        self.shared.mirrors.get()
    }

    /// How it stands with the medium that the log is copied to; `None` without `[medium]`.
    pub fn medium(&self) -> Option<Arc<medium::Facts>> {
        self.shared.medium.get()
    }

    /// The `.seal` file of an entry with the best evidence there is now.
    pub fn seal_file(&self, index: u64, with_openings: bool) -> Result<SealFile, LookupError> {
        evidence::current(&self.shared, index, with_openings)
    }

    /// An entry.
    pub fn entry(&self, index: u64) -> Result<Entry, LookupError> {
        self.shared.entry(index)
    }

    /// Seals of a digest, newest first.
    pub fn find_digest(&self, digest: &DocumentDigest, limit: usize) -> Result<Vec<u64>, LookupError> {
        Ok(self.shared.reader.find_digest(digest.algorithm as u8, &digest.value, limit)?)
    }

    /// Seals of a digest in copies of other boxes' logs, the latest first.
    pub fn find_elsewhere(&self, digest: &DocumentDigest, limit: usize) -> Vec<neighbours::Elsewhere> {
        self.shared.elsewhere(digest, limit)
    }

    /// The public id of an entry: `<index>-<first 16 hex digits of the leaf hash>`.
    pub fn id(index: u64, leaf_hash: &Hash) -> String {
        format!("{index}-{}", hex::encode(&leaf_hash.0[..8]))
    }

    /// Finds the entry of an id; a right index with a wrong hash is unknown.
    pub fn resolve(&self, id: &str) -> Result<(u64, Hash), LookupError> {
        let (number, _) = id.split_once('-').ok_or(LookupError::Unknown)?;
        let index: u64 = number.parse().map_err(|_| LookupError::Unknown)?;
        if index >= self.shared.reader.size() {
            return Err(LookupError::Unknown);
        }
        let hash = self.shared.reader.leaf_hash(index)?;
        if Self::id(index, &hash) == id { Ok((index, hash)) } else { Err(LookupError::Unknown) }
    }

    /// Read access to the log.
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// Entries in the log, as it grows.
    pub fn sizes(&self) -> watch::Receiver<u64> {
        self.shared.size.subscribe()
    }

    /// Whether the box seals, as it changes.
    pub fn conditions(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    /// The newest checkpoint; `None` while a rollback is suspected, when nothing is signed.
    pub fn checkpoint(&self) -> Option<String> {
        self.shared.published().map(|published| published.note.clone())
    }

    /// The trust file of this box's own fleet.
    pub fn trust(&self) -> &TrustFile {
        &self.shared.trust
    }

    /// The log's name.
    pub fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// What the box is doing, for whoever only watches: nothing is set going by it.
    pub fn glance(&self) -> Status {
        self.shared.status()
    }

    /// What the box is doing.
    pub fn status(&self) -> Status {
        let status = self.shared.status();
        if let Condition::Poisoned { .. } = status.condition {
            // Whoever waits for readiness sends nothing that would make the writer try. A full queue will.
            let _ = self.queue.try_send(Command::Recover);
        }
        status
    }

    /// Begins the next key epoch; returns the index of the entry that records the operator's act.
    pub async fn rotate(&self, reason: String) -> Result<u64, SealError> {
        self.shared.may_seal()?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::Rotate(reason, reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Counters for telemetry.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What the box last found out about itself.
    pub fn checks(&self) -> &checks::Checks {
        &self.shared.checks
    }

    /// Facts for telemetry.
    pub fn facts(&self) -> &status::Facts {
        &self.shared.status
    }

    /// Seals waiting for the writer now.
    pub fn queue_length(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Stops the threads after what is queued, and the TPM in order.
    pub async fn close(self) {
        self.scrub.stop();
        self.attestor.stop();
        self.shared.search.stop();
        self.keeper.stop();
        self.outage.stop();
        if let Some(neighbours) = &self.neighbours {
            neighbours.stop();
        }
        let _ = self.queue.send(Command::Stop).await;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(|p| p.into_inner()));
        let join = move || {
            for thread in threads {
                if thread.join().is_err() {
                    log::error!("a driver thread had panicked before the stop");
                }
            }
        };
        if tokio::task::spawn_blocking(join).await.is_err() {
            log::error!("the driver threads could not be joined");
        }
    }
}

fn stopping() -> SealError {
    SealError::Locked { reason: "the box is stopping; retry in a moment".to_owned() }
}

impl Shared {
    fn published(&self) -> Option<Arc<Published>> {
        self.published.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn set_cosigned(&self, notes: Vec<neighbours::CosignedNote>) {
        *self.cosigned.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(notes);
    }

    /// Checkpoints of this log that neighbours cosigned, the largest first.
    fn cosigned(&self) -> Arc<Vec<neighbours::CosignedNote>> {
        self.cosigned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_neighbour_facts(&self, facts: neighbours::Facts) {
        *self.neighbours.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(facts));
    }

    fn set_condition(&self, condition: Condition) {
        self.condition.send_if_modified(|now| {
            // Only an operator leads out of it, and another run.
            if matches!(now, Condition::RollbackSuspected { .. }) {
                return false;
            }
            let changed = *now != condition;
            *now = condition;
            changed
        });
    }

    fn key_is_away(&self) -> bool {
        matches!(*self.condition.borrow(), Condition::KeyAway { .. })
    }

    fn key_answers(&self) {
        if self.key_is_away() {
            self.set_condition(Condition::Sealing);
        }
    }

    fn lock(&self) -> Option<Lock> {
        self.lock.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn set_lock(&self, lock: Option<Lock>) {
        *self.lock.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = lock;
    }

    fn condition(&self) -> Condition {
        let condition = self.unlocked_condition();
        match (&condition, self.lock()) {
            (Condition::Sealing | Condition::KeyAway { .. }, _) if self.retiring => Condition::Retiring,
            (Condition::Sealing | Condition::KeyAway { .. }, Some(lock)) => Condition::Locked(lock),
            (Condition::Sealing, None) if self.standing().limited => Condition::Limited,
            _ => condition,
        }
    }

    fn unlocked_condition(&self) -> Condition {
        let condition = self.condition.borrow().clone();
        // Whoever waits for readiness before sending would otherwise wait for ever: room is looked at
        // here, not only by the next seal.
        if condition == Condition::DiskFull && self.status.has_room() {
            self.set_condition(Condition::Sealing);
            return Condition::Sealing;
        }
        condition
    }

    fn may_seal(&self) -> Result<(), SealError> {
        if self.retiring {
            return Err(SealError::Retiring);
        }
        match self.condition() {
            Condition::Retiring => Err(SealError::Retiring),
            Condition::Sealing => Ok(()),
            // The writer is asked all the same: it may be able to recover.
            Condition::Poisoned { .. } | Condition::DiskFull => Ok(()),
            // The writer knows whether to queue it.
            Condition::Locked(_) | Condition::Limited | Condition::KeyAway { .. } => Ok(()),
            Condition::RollbackSuspected { finding } => Err(SealError::RollbackSuspected { finding }),
        }
    }

    fn entry(&self, index: u64) -> Result<Entry, LookupError> {
        if index >= self.reader.size() {
            return Err(LookupError::Unknown);
        }
        let bytes = self.reader.entry(index)?;
        Entry::decode(&bytes).map_err(|error| LookupError::Storage(format!("entry {index}: {error}")))
    }
}
