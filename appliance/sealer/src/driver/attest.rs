//! The attestor thread: TPM quotes, counter moves and the next epoch's endorsement, beside the write path.
//!
//! Refuses to do: hold up the writer; it only queues entries like everybody else.
//! Invariants: the counter moves only after its intent is durable (`bulla_protocol::rollback`); at most
//! one attestation runs; a TPM that is away is asked ever more rarely and never forgotten.

use super::clock::{Steady, local_time};
use super::epochs::Workshop;
use super::{Command, Condition, Published, Shared, body, outage};
use bulla_formats::body::attestation::{AttestationBody, CheckpointClaim, CounterClaim, CounterEvidence};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::der;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Kind, LocalTime, TreeState};
use bulla_formats::hash::Hash;
use bulla_formats::peer::challenge::Voucher;
use bulla_keys::{KeyError, KeyService};
use bulla_ledger::{Control, Intent};
use bulla_protocol::rollback::{Event as WindowEvent, Step, Window};
use bulla_protocol::window::{WindowPlanner, WindowPolicy};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Name of the control value that holds the index of the newest attestation entry.
pub const ATTESTED_HINT: &str = "attested";
/// Pause before asking again for an endorsement that failed.
const EPOCH_RETRY_MILLIS: u64 = 2_000;

/// What is done with the device's word.
type Then = Box<dyn FnOnce(Result<Voucher, KeyError>) + Send>;

enum Message {
    Sealed,
    Waits,
    PrepareEpoch { number: u64, previous: Hash },
    MoveCounter(oneshot::Sender<Result<(), String>>),
    Vouch { qualifying: Hash, then: Then },
    Stop,
}

/// Talks to the attestor; clones share it.
#[derive(Clone)]
pub struct Handle(Sender<Message>);

impl Handle {
    /// A handle and what the thread reads from.
    pub fn new() -> (Self, Inbox) {
        let (sender, receiver) = channel();
        (Handle(sender), Inbox(receiver))
    }

    /// A batch with seals is durable.
    pub fn sealed(&self) {
        self.tell(Message::Sealed);
    }

    /// A client waits for its seal to be attested.
    pub fn someone_waits(&self) {
        self.tell(Message::Waits);
    }

    /// Epoch `number` will follow the key-epoch entry with leaf hash `previous`: have it ready.
    pub fn prepare_epoch(&self, number: u64, previous: Hash) {
        self.tell(Message::PrepareEpoch { number, previous });
    }

    /// Moves the counter past everything in the log now, whatever the windows say.
    pub fn move_counter(&self, reply: oneshot::Sender<Result<(), String>>) {
        self.tell(Message::MoveCounter(reply));
    }

    /// Has the device vouch for a neighbour's challenge, whose qualifying data this is. `then` never waits. `false`: nobody
    /// asks the TPM in this run.
    pub fn vouch(&self, qualifying: Hash, then: Then) -> bool {
        self.0.send(Message::Vouch { qualifying, then }).is_ok()
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

/// What the attestor thread reads from.
pub struct Inbox(Receiver<Message>);

/// State of the attestor thread.
pub struct Attestor {
    pub(super) shared: Arc<Shared>,
    pub(super) keys: KeyService,
    pub(super) control: Control,
    pub(super) queue: mpsc::Sender<Command>,
    pub(super) outage: outage::Handle,
    pub(super) planner: WindowPlanner,
    pub(super) pcrs: Vec<u8>,
    pub(super) event_log: Option<PathBuf>,
    pub(super) workshop: Workshop,
    pub(super) steady: Steady,
    pub(super) away_since: Option<(LocalTime, String)>,
    pub(super) epoch_wanted: Option<(u64, Hash, u64)>,
}

#[derive(Debug, thiserror::Error)]
enum AttestFailure {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the counter intent could not be made durable: {0}")]
    Intent(String),
    #[error("the attestation entry was not accepted: {0}")]
    Append(String),
    #[error("the TPM counter stands at {found}, {expected} was expected: somebody else moved it")]
    Alarm { expected: u64, found: u64 },
}

impl Attestor {
    /// The planner of a box: software boxes never attest and only prepare epochs.
    pub fn planner(policy: WindowPolicy) -> WindowPlanner {
        WindowPlanner::new(policy)
    }

    /// Works until told to stop.
    pub fn run(mut self, inbox: Inbox) {
        loop {
            let now = self.steady.millis();
            let attest_at = self.planner.next_wakeup().filter(|_| self.has_tpm());
            let epoch_at = self.epoch_wanted.as_ref().map(|(_, _, at)| *at);
            let wakeup = attest_at.into_iter().chain(epoch_at).min();
            let pause =
                wakeup.map_or(Duration::from_secs(3_600), |at| Duration::from_millis(at.saturating_sub(now)));
            let mut message = match inbox.0.recv_timeout(pause) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            while let Some(next) = message {
                match next {
                    Message::Sealed => self.planner.sealed(self.steady.millis()),
                    Message::Waits => self.planner.waits(),
                    Message::PrepareEpoch { number, previous } => {
                        self.epoch_wanted = Some((number, previous, 0));
                    }
                    Message::MoveCounter(reply) => {
                        let moved = self.move_counter_now();
                        // Whoever asked may have given up; the counter has moved all the same.
                        let _ = reply.send(moved);
                    }
                    Message::Vouch { qualifying, then } => then(self.vouch(&qualifying)),
                    Message::Stop => {
                        self.keys.shutdown();
                        return;
                    }
                }
                message = inbox.0.try_recv().ok();
            }
            self.prepare_epoch();
            self.attest_if_due();
        }
    }

    fn vouch(&self, qualifying: &Hash) -> Result<Voucher, KeyError> {
        if self.has_tpm() {
            let quote = self.keys.quote(qualifying.0, &self.pcrs)?;
            return Ok(Voucher::Quote(body::tpm_quote(quote)));
        }
        Ok(match self.keys.endorse(qualifying.0)? {
            bulla_keys::Endorsement::Tpm(quote) => Voucher::Quote(body::tpm_quote(quote)),
            bulla_keys::Endorsement::Software(signature) => Voucher::Software(signature.to_vec().into()),
        })
    }

    fn has_tpm(&self) -> bool {
        self.shared.hardware == Hardware::Tpm
    }

    fn prepare_epoch(&mut self) {
        let Some((number, previous, at)) = self.epoch_wanted else { return };
        let now = self.steady.millis();
        if now < at {
            return;
        }
        match self.workshop.prepare(self.shared.origin.as_str(), number, previous) {
            Ok(prepared) => {
                self.epoch_wanted = None;
                // A stopped writer needs no epoch.
                let _ = self.queue.blocking_send(Command::NextEpoch(prepared));
            }
            Err(error) => {
                log::warn!("epoch {number} is not endorsed yet: {error}");
                self.epoch_wanted = Some((number, previous, now + EPOCH_RETRY_MILLIS));
            }
        }
    }

    fn attest_if_due(&mut self) {
        if !self.has_tpm() {
            return;
        }
        let Some(start) = self.planner.poll(self.steady.millis()) else { return };
        let Some(head) = self.shared.published() else { return };
        // What failed is in the status, and the planner asks again.
        let _ = self.attempt(&head, start.move_counter);
    }

    fn move_counter_now(&mut self) -> Result<(), String> {
        if !self.has_tpm() {
            return Ok(());
        }
        let head = self.shared.published().ok_or("nothing is signed while a rollback is suspected")?;
        self.attempt(&head, true)?;
        self.planner.counter_moved(self.steady.millis());
        Ok(())
    }

    fn attempt(&mut self, head: &Published, move_counter: bool) -> Result<(), String> {
        let begun = std::time::Instant::now();
        let outcome = self.attest(head, move_counter);
        let now = self.steady.millis();
        match outcome {
            Ok(entry) => {
                let counters = &self.shared.counters;
                counters.attestations.fetch_add(1, Relaxed);
                counters.attestation_millis.store(begun.elapsed().as_millis() as u64, Relaxed);
                if move_counter {
                    counters.counter_increments.fetch_add(1, Relaxed);
                }
                self.planner.succeeded(now);
                self.covered(head.snapshot.size(), entry);
                self.back();
                Ok(())
            }
            Err(error) => {
                self.shared.counters.attestation_failures.fetch_add(1, Relaxed);
                self.planner.failed(now);
                if self.away_since.is_none() {
                    log::warn!("no attestation now, sealing goes on: {error}");
                }
                // A log that takes no entry is the writer's to tell, and not the TPM's fault.
                if self.away_since.is_none() && !matches!(error, AttestFailure::Append(_)) {
                    self.away_since = Some((local_time(), error.to_string()));
                }
                self.shared.status.attestation_trouble(Some(error.to_string()));
                if let AttestFailure::Alarm { .. } = error {
                    self.shared.set_condition(Condition::RollbackSuspected { finding: error.to_string() });
                    log::error!("{error}");
                }
                Err(error.to_string())
            }
        }
    }

    fn covered(&self, size: u64, entry: u64) {
        self.shared.attestations.lock().unwrap_or_else(|p| p.into_inner()).insert(size, entry);
        self.shared.attested.send_replace(size);
        self.shared.status.attestation_trouble(None);
        if let Err(error) = self.control.put(ATTESTED_HINT, &entry.to_be_bytes()) {
            log::warn!("the hint to the newest attestation could not be stored: {error}");
        }
    }

    /// The TPM answers again: what could not be said while it was away is said now.
    fn back(&mut self) {
        let Some((began, detail)) = self.away_since.take() else { return };
        log::info!("the TPM attests again");
        let incident = IncidentBody {
            code: "tpm-unavailable".to_owned(),
            began,
            ended: Some(local_time()),
            detail: detail.chars().take(500).collect(),
        };
        if let Err(error) = self.append(Kind::Incident, der::encode(&incident)) {
            log::warn!("the incident could not be logged: {error}");
        }
    }

    fn attest(&mut self, head: &Published, move_counter: bool) -> Result<u64, AttestFailure> {
        let origin = self.shared.origin.as_str().to_owned();
        let (size, root) = (head.snapshot.size(), head.snapshot.root());
        let mut value = self.counter()?;
        if move_counter {
            value = self.move_counter(value, size, root)?;
        }
        let claim = CounterClaim { origin: origin.clone(), head: TreeState::new(size, root), value };
        let certificate = self.keys.counter_certify(claim.qualifying_data().0)?;
        if certificate.value != value {
            return Err(AttestFailure::Alarm { expected: value, found: certificate.value });
        }
        let counter = CounterEvidence {
            value,
            attest: certificate.attest.into(),
            signature: certificate.signature.into(),
            nv_public: certificate.nv_public.into(),
        };
        let claim = CheckpointClaim { origin, text: head.text.clone().into_bytes().into() };
        let quote = self.keys.quote(claim.qualifying_data().0, &self.pcrs)?;
        if let Some(clock) = outage::tpm_clock(&quote.attest) {
            self.outage.tpm(clock);
        }
        let attestation = AttestationBody {
            head: TreeState::new(size, root),
            log_signature: head.signature.to_vec().into(),
            quote: Some(body::tpm_quote(quote)),
            counter: Some(counter),
            event_log: event_log_hash(self.event_log.as_deref()),
            reason: None,
        };
        self.append(Kind::Attestation, der::encode(&attestation))
    }

    fn counter(&self) -> Result<u64, AttestFailure> {
        let what = "reading the counter";
        Ok(self.keys.counter()?.ok_or(KeyError::NotHardware { what })?)
    }

    /// Runs one window of the rollback rule up to the certify step; returns the counter's new value.
    fn move_counter(&self, value: u64, size: u64, root: Hash) -> Result<u64, AttestFailure> {
        let (mut window, mut step) = Window::open(value, size, root);
        loop {
            step = match step {
                Step::CommitIntent(intent) => {
                    let intent = Intent { counter: intent.counter, size: intent.size, root: intent.root };
                    self.control
                        .commit_intent(intent)
                        .map_err(|error| AttestFailure::Intent(error.to_string()))?;
                    window.handle(WindowEvent::IntentCommitted)
                }
                Step::Increment => {
                    let answer = self.keys.counter_increment();
                    // A lost answer does not say whether the counter moved: reading it does.
                    let value = match answer {
                        Ok(value) => value,
                        Err(KeyError::Unavailable { .. }) => self.counter()?,
                        Err(error) => return Err(error.into()),
                    };
                    if value + 1 == self.wanted(&window) {
                        return Err(KeyError::Unavailable {
                            what: "moving the counter",
                            reason: "the increment was not made".to_owned(),
                        }
                        .into());
                    }
                    window.handle(WindowEvent::Counter(value))
                }
                Step::Attest(intent) => return Ok(intent.counter),
                Step::Alarm { expected, found } => return Err(AttestFailure::Alarm { expected, found }),
            };
        }
    }

    fn wanted(&self, window: &Window) -> u64 {
        window.intent().counter
    }

    fn append(&self, kind: Kind, body: Vec<u8>) -> Result<u64, AttestFailure> {
        let stopped = || AttestFailure::Append("the box is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queue.blocking_send(Command::Append(kind, body, reply)).map_err(|_| stopped())?;
        let index = answer.blocking_recv().map_err(|_| stopped())?;
        index.map_err(|error| AttestFailure::Append(error.to_string()))
    }
}

/// SHA-256 of the firmware's event log, where there is one.
pub(super) fn event_log_hash(path: Option<&Path>) -> Option<der::Octets32> {
    let log = std::fs::read(path?).ok()?;
    Some(der::Octets32::new(bulla_formats::hash::sha256(&[&log]).0))
}
