//! What the writer does with requests that cannot be sealed now, and with the operator's lock.
//!
//! `bulla_protocol::queue` decides; here is what it takes: rows durable before their clients are answered, rows sealed
//! as entries like any other, what became of them recorded right after.
//! Refuses to do: keep a request whose append was tried and may have succeeded; keep anything on a full disk.
//! Invariants: a row's request key is in the entry that the row becomes, so that a row whose outcome was not recorded
//! finds its entry instead of being sealed again (G3); outcomes are recorded before anything else is drained.

use super::body::MakeError;
use super::clock::{local_time, now_millis};
use super::lock::{LOCK, Lock, LockAnswer, LockChange};
use super::writer::{Batch, Reply, Writer};
use super::{Answer, Command, Condition, Queued, SealError, SealOrder, evidence};
use bulla_formats::body::operator_action::{OperatorActionBody, Parameter};
use bulla_formats::body::seal::{Opening, SealBody};
use bulla_formats::der::{self, DerError};
use bulla_formats::entry::{Kind, Mode};
use bulla_ledger::{
    NewQueued, PushError, QueueId, QueueOutcome, QueuedRow, Request, RequestHash, WaitingRow,
};
use bulla_protocol::queue::{Arrival, Backlog, Cause, Hindrance, Next, Refusal, may_grow};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Most kept requests sealed in one batch by a key in the TPM: newcomers and operators wait for the batch.
pub const DEVICE_BATCH: usize = 16;

/// An order as it will be signed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The entry's body.
    pub body: SealBody,
    /// What its commitments open to, packed.
    pub openings: Option<Vec<u8>>,
    /// Idempotency key.
    pub request: Option<Request>,
}

impl Draft {
    /// The draft of an order, checked.
    pub fn of(order: SealOrder) -> Result<Self, DerError> {
        order.openings.iter().try_for_each(Opening::check)?;
        let body = SealBody {
            algorithm: order.digest.algorithm,
            digest: order.digest.value.into(),
            size: order.digest.size,
            media_type: order.media_type,
            observation: order.observation,
            client: order.client,
            transport: order.transport,
            commitments: order.openings.iter().map(|opening| opening.commitment()).collect(),
            relations: order.relations,
        };
        body.check()?;
        Ok(Draft { body, openings: evidence::pack_openings(&order.openings), request: order.request })
    }

    /// What the queue keeps: length of the body (uint32 BE), its DER, the packed openings.
    pub fn pack(&self) -> Vec<u8> {
        let body = der::encode(&self.body);
        let mut packed = (body.len() as u32).to_be_bytes().to_vec();
        packed.extend_from_slice(&body);
        packed.extend_from_slice(self.openings.as_deref().unwrap_or_default());
        packed
    }

    /// The draft that a row keeps.
    pub fn unpack(row: &QueuedRow) -> Result<Self, &'static str> {
        let packed = row.order.as_ref().ok_or("what was kept of it is damaged")?;
        let cut = "what was kept of it is cut off";
        let (length, rest) = packed.split_first_chunk::<4>().ok_or(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut)?;
        let (body, openings) = rest.split_at_checked(length).ok_or(cut)?;
        let body = SealBody::decode(body).map_err(|_| "what was kept of it breaks a rule of the format")?;
        let openings = (!openings.is_empty()).then(|| openings.to_vec());
        Ok(Draft { body, openings, request: Some(row.row.request) })
    }
}

/// A request for the queue, and who waits for the answer: the same request may have come twice.
struct Keep {
    draft: Draft,
    cause: Cause,
    replies: Vec<Reply<Answer>>,
}

/// What goes to the queue in one write.
#[derive(Default)]
pub struct Keeping {
    list: Vec<Keep>,
    keys: HashMap<RequestHash, usize>,
    kept: Backlog,
}

impl Keeping {
    fn new(kept: Backlog) -> Self {
        Keeping { kept, ..Keeping::default() }
    }

    /// Whether the same request is in here already; gives the reply back when it is not.
    fn joins(&mut self, request: Option<Request>, reply: Reply<Answer>) -> Option<Reply<Answer>> {
        let Some(request) = request else { return Some(reply) };
        let Some(keep) = self.keys.get(&request.key).and_then(|at| self.list.get_mut(*at)) else {
            return Some(reply);
        };
        if keep.draft.request == Some(request) {
            keep.replies.push(reply);
        } else {
            // Another request under the same key; asked again, it hears which one has it.
            drop(reply.send(Err(SealError::Overloaded)));
        }
        None
    }

    fn push(&mut self, draft: Draft, cause: Cause, bytes: u64, reply: Reply<Answer>) {
        if let Some(request) = draft.request {
            self.keys.insert(request.key, self.list.len());
        }
        self.kept = Backlog { entries: self.kept.entries + 1, bytes: self.kept.bytes.saturating_add(bytes) };
        self.list.push(Keep { draft, cause, replies: vec![reply] });
    }
}

/// The public name of a row.
pub fn queue_id(id: &QueueId) -> String {
    format!("{}-{}", id.place, hex::encode(id.tag))
}

/// The row that a public name names.
pub fn parse_queue_id(text: &str) -> Option<QueueId> {
    let (place, tag) = text.split_once('-')?;
    let id = QueueId { place: place.parse().ok()?, tag: hex::decode(tag).ok()?.try_into().ok()? };
    (queue_id(&id) == text).then_some(id)
}

impl Writer {
    pub(super) fn backlog(&self) -> Backlog {
        let depth = self.shared.kept.depth();
        Backlog { entries: depth.entries, bytes: depth.bytes }
    }

    /// What comes next; nothing while a rollback is suspected.
    pub(super) fn next_step(&self) -> Next {
        if let Condition::RollbackSuspected { .. } = self.shared.condition() {
            return Next::Wait;
        }
        self.gate.next(self.backlog(), self.unrecorded.len() as u64)
    }

    /// The rows to be sealed in this round. `newcomers`: others come behind them, and are to hear what the disk says.
    pub(super) fn rows_to_seal(&mut self, newcomers: bool) -> Vec<QueuedRow> {
        if self.next_step() == Next::Record {
            self.record();
        }
        let Next::Drain(most) = self.next_step() else { return Vec::new() };
        if !newcomers && self.shared.condition() == Condition::DiskFull {
            self.hold();
            return Vec::new();
        }
        match self.shared.kept.oldest(usize::try_from(most).unwrap_or(usize::MAX)) {
            Ok(rows) => rows,
            Err(error) => {
                log::error!("queued requests cannot be read: {error}");
                self.hold();
                Vec::new()
            }
        }
    }

    /// Nothing more is tried before the keeper says so.
    pub(super) fn hold(&mut self) {
        self.gate.hold();
        self.keeper.watch();
    }

    /// Sorts what has arrived: what stays in `work` is to be sealed now, behind what is kept.
    pub(super) fn admit(&mut self, work: &mut Vec<Command>) -> Keeping {
        let kept = self.backlog();
        let grows = self.may_grow();
        if kept.entries == 0 && self.gate.hindrance().is_none() && grows {
            return Keeping::default();
        }
        // A full disk may have got room, whose answer is better than "behind".
        self.gate.retry();
        let mut keeping = Keeping::new(kept);
        for command in std::mem::take(work) {
            let Command::Seal(order, reply) = command else {
                work.push(command);
                continue;
            };
            let reply = match order.request {
                None => reply,
                Some(request) => match self.answer_known_request(&mut Batch::default(), request, reply) {
                    Some(reply) => reply,
                    None => continue,
                },
            };
            if !grows {
                let reason = "what became of queued requests cannot be recorded, storage fails".to_owned();
                drop(reply.send(Err(SealError::Locked { reason })));
                continue;
            }
            let Some(reply) = keeping.joins(order.request, reply) else { continue };
            let bytes = order_bytes(&order);
            match self.gate.arrival(keeping.kept, bytes) {
                Arrival::Seal => work.push(Command::Seal(order, reply)),
                Arrival::Refuse(refusal) => drop(reply.send(Err(self.refusal(refusal)))),
                Arrival::Keep(cause) => match Draft::of(*order) {
                    Ok(draft) => keeping.push(draft, cause, bytes, reply),
                    Err(error) => drop(reply.send(Err(SealError::Invalid { reason: error.to_string() }))),
                },
            }
        }
        keeping
    }

    /// The key did not sign these: keep them if policy says so.
    pub(super) fn unsigned(&mut self, unsigned: Vec<(Draft, Reply<Answer>)>) -> Keeping {
        let mut keeping = Keeping::new(self.backlog());
        for (draft, reply) in unsigned {
            let Some(reply) = keeping.joins(draft.request, reply) else { continue };
            let bytes = draft.pack().len() as u64;
            match self.gate.arrival(keeping.kept, bytes) {
                Arrival::Keep(cause) => keeping.push(draft, cause, bytes, reply),
                Arrival::Refuse(refusal) => drop(reply.send(Err(self.refusal(refusal)))),
                // The key has answered in the meantime.
                Arrival::Seal => drop(reply.send(Err(SealError::Overloaded))),
            }
        }
        keeping
    }

    /// Makes requests durable and answers them; one write for all of them.
    pub(super) fn keep(&mut self, keeping: Keeping) {
        let keep = keeping.list;
        let Some(first) = keep.first().map(|keep| keep.cause) else { return };
        let now = now_millis();
        let rows: Vec<NewQueued> = keep
            .iter()
            .map(|Keep { draft, .. }| {
                let mut draft = draft.clone();
                draft.body.transport.push_str(&format!("; queued-at={now}"));
                NewQueued {
                    queued_ms: now,
                    request: draft.request,
                    client: draft.body.client.id.clone(),
                    order: draft.pack(),
                }
            })
            .collect();
        let before = self.backlog().entries;
        match self.shared.kept.push(&rows) {
            Ok(rows) => {
                self.shared.counters.queued.fetch_add(rows.len() as u64, Relaxed);
                if before == 0 {
                    log::warn!("requests are queued from now on: {}", self.cause_text(first));
                }
                for ((row, position), Keep { cause, replies, .. }) in rows.iter().zip(before + 1..).zip(keep)
                {
                    for (at, reply) in replies.into_iter().enumerate() {
                        let reason = self.cause_text(cause);
                        let queued = Queued { id: row.id, position, reason, replayed: at > 0 };
                        // A client that has hung up finds it by its idempotency key.
                        drop(reply.send(Ok(Answer::Queued(queued))));
                    }
                }
                if self.gate.hindrance() != Some(Hindrance::Locked) {
                    self.keeper.watch();
                }
            }
            Err(error) => {
                log::error!("requests could not be queued: {error}");
                let error = match error {
                    PushError::Full { free, needed } => {
                        self.shared.counters.disk_full.fetch_add(1, Relaxed);
                        SealError::DiskFull { free, needed }
                    }
                    PushError::Storage(fault) => {
                        SealError::Failed { reason: format!("it could not be queued: {fault}") }
                    }
                };
                for reply in keep.into_iter().flat_map(|keep| keep.replies) {
                    drop(reply.send(Err(error.clone())));
                }
            }
        }
    }

    /// Puts the oldest rows into a batch, in front of everything else; after a failure of the key, nothing more.
    pub(super) fn push_row(
        &self,
        maker: &mut super::body::EntryMaker<'_>,
        batch: &mut Batch,
        row: &QueuedRow,
    ) {
        if batch.key_failed.is_some() || batch.stopped {
            return;
        }
        let id = row.row.id;
        let refused = |reason: &str| QueueOutcome::Refused { reason: reason.to_owned() };
        match self.shared.reader.find_request(&row.row.request.key) {
            Ok(None) => {}
            // Sealed before, and the process died before that was recorded.
            Ok(Some((index, fingerprint))) if fingerprint == row.row.request.fingerprint => {
                return batch.settled.push((id, QueueOutcome::Sealed { index }));
            }
            Ok(Some(_)) => {
                return batch.settled.push((id, refused("its idempotency key belongs to another request")));
            }
            Err(error) => {
                log::error!("a queued request cannot be looked up: {error}");
                batch.stopped = true;
                return;
            }
        }
        let draft = match Draft::unpack(row) {
            Ok(draft) => draft,
            Err(reason) => return batch.settled.push((id, refused(reason))),
        };
        match maker.make(Kind::Seal, der::encode(&draft.body)) {
            Ok(entry) => {
                let position = batch.push_seal(entry, draft, None);
                batch.drained.push((id, position));
            }
            Err(MakeError::Key(error)) => batch.key_failed = Some(error.to_string()),
            Err(MakeError::Body(error)) => batch.settled.push((id, refused(&error.to_string()))),
        }
    }

    /// Remembers what became of rows, and records it.
    pub(super) fn settle(&mut self, outcomes: Vec<(QueueId, QueueOutcome)>) {
        if outcomes.is_empty() {
            return;
        }
        self.unrecorded.extend(outcomes);
        self.record();
    }

    /// Records what became of rows, durably; they leave the queue with it.
    fn record(&mut self) {
        if let Err(error) = self.shared.kept.finish(&self.unrecorded) {
            log::error!("what became of queued requests could not be recorded, it is tried again: {error}");
            return self.hold();
        }
        let counters = &self.shared.counters;
        for (id, outcome) in self.unrecorded.drain(..) {
            match outcome {
                QueueOutcome::Sealed { .. } => drop(counters.drained.fetch_add(1, Relaxed)),
                QueueOutcome::Refused { reason } => {
                    counters.queue_refused.fetch_add(1, Relaxed);
                    log::warn!("queued request {} can never be sealed: {reason}", queue_id(&id));
                }
            }
        }
        if self.backlog().entries == 0 {
            log::info!("every queued request is sealed");
        }
        // Rows are gone already; what this does is that no page of the file still holds them.
        if let Err(error) = self.shared.kept.scrub() {
            log::error!("the queue's file could not be rewritten, it is tried again: {error}");
        }
        self.shared.settled.send_modify(|settled| *settled += 1);
    }

    /// Whether the log may take more while outcomes are unrecorded.
    fn may_grow(&self) -> bool {
        let oldest = self.unrecorded.iter().filter_map(|(_, outcome)| match outcome {
            QueueOutcome::Sealed { index } => Some(*index),
            QueueOutcome::Refused { .. } => None,
        });
        may_grow(self.ledger.size(), oldest.min(), self.request_window)
    }

    /// Whether this request waits already; gives the reply back when it does not.
    pub(super) fn answer_waiting_request(
        &self,
        request: Request,
        reply: Reply<Answer>,
    ) -> Option<Reply<Answer>> {
        let Some((row, position)) = self.shared.kept.find_request(&request.key) else { return Some(reply) };
        let answer = if row.request.fingerprint == request.fingerprint {
            Ok(Answer::Queued(self.still_waiting(&row, position)))
        } else {
            Err(SealError::KeyQueued { id: queue_id(&row.id) })
        };
        drop(reply.send(answer));
        None
    }

    fn still_waiting(&self, row: &WaitingRow, position: u64) -> Queued {
        let cause = self.gate.hindrance().map_or(Cause::Behind, Cause::Hindered);
        Queued { id: row.id, position, reason: self.cause_text(cause), replayed: true }
    }

    fn cause_text(&self, cause: Cause) -> String {
        match cause {
            Cause::Hindered(hindrance) => self.hindrance_text(hindrance),
            Cause::Behind => "requests queued earlier are sealed first".to_owned(),
        }
    }

    fn hindrance_text(&self, hindrance: Hindrance) -> String {
        match hindrance {
            Hindrance::Locked if self.shared.lock().is_none() && !self.standing.limited => {
                "the box is being unlocked".to_owned()
            }
            Hindrance::Locked if self.shared.lock().is_none() => {
                "a limit of emergency operation is reached, and policy says that the box stops then"
                    .to_owned()
            }
            Hindrance::Locked => "an operator has locked the box".to_owned(),
            Hindrance::KeyAway => "the sealing key cannot sign, its device does not answer".to_owned(),
            Hindrance::StorageFailed => "storage failed and has not recovered yet".to_owned(),
        }
    }

    fn refusal(&self, refusal: Refusal) -> SealError {
        match refusal {
            Refusal::Hindered(hindrance) => SealError::Locked { reason: self.hindrance_text(hindrance) },
            Refusal::Full(hindrance) => SealError::Locked {
                reason: format!("{}, and the queue for such times is full", self.hindrance_text(hindrance)),
            },
            Refusal::Behind => SealError::Overloaded,
        }
    }

    /// The key did not sign: stated once, and looked after by the keeper.
    pub(super) fn key_failed(&mut self, reason: String) {
        if !self.gate.is_key_away() {
            log::error!("the sealing key cannot sign: {reason}");
            self.trouble_begins("key-away", reason.clone(), self.steady.millis());
        }
        self.gate.key_failed();
        self.shared.set_condition(Condition::KeyAway { reason });
        self.keeper.watch();
    }

    /// The lock or its end, durable before it is answered. Returns the bodies that the log is to have of it.
    pub(super) fn change_lock(
        &mut self,
        change: LockChange,
    ) -> Result<(LockAnswer, Vec<Vec<u8>>), SealError> {
        let control = self.ledger.control();
        let old = self.shared.lock();
        let locked = old.is_some();
        if locked == change.lock {
            let logged = old.is_none_or(|lock| lock.logged);
            return Ok((LockAnswer { locked, changed: false, logged }, Vec::new()));
        }
        let now = now_millis();
        let new = change.lock.then(|| Lock {
            since_millis: now,
            operator: change.operator.clone(),
            reason: change.reason.clone(),
            logged: false,
        });
        let bytes = new.as_ref().map(Lock::encode).unwrap_or_default();
        control.put(LOCK, &bytes).map_err(|fault| SealError::Failed {
            reason: format!("the lock could not be changed durably: {fault}"),
        })?;
        let mut bodies = Vec::new();
        if let Some(late) = old.filter(|lock| !lock.logged) {
            bodies.push(action("lock", &late.operator, &late.reason, Some(late.since_millis)));
        }
        let verb = if change.lock { "lock" } else { "unlock" };
        bodies.push(action(verb, &change.operator, &change.reason, None));
        self.shared.set_lock(new);
        // Unlocked once the log says so: nothing is sealed in mode safe.
        self.gate.set_locked(change.lock || self.standing.mode == Mode::Safe);
        log::warn!("operator {}: {verb}", change.operator);
        Ok((LockAnswer { locked: change.lock, changed: true, logged: false }, bodies))
    }

    /// The log has the lock's entry, or cannot have it now.
    pub(super) fn lock_logged(&mut self, answer: LockAnswer, logged: bool) -> LockAnswer {
        let control = self.ledger.control();
        let written = match (logged, self.shared.lock()) {
            (true, Some(lock)) => {
                let lock = Lock { logged: true, ..lock };
                let written = control.put(LOCK, &lock.encode());
                self.shared.set_lock(Some(lock));
                written
            }
            (true, None) => Ok(()),
            (false, lock) => {
                let verb = if lock.is_some() { "lock" } else { "unlock" };
                control.journal(local_time().unix_millis, &format!("{verb} could not be logged"))
            }
        };
        if let Err(fault) = written {
            log::error!("the record of the lock's entry could not be written: {fault}");
        }
        LockAnswer { logged, ..answer }
    }
}

fn action(name: &str, operator: &str, reason: &str, since: Option<u64>) -> Vec<u8> {
    let parameter = |since: u64| Parameter { name: "since".to_owned(), value: since.to_string() };
    der::encode(&OperatorActionBody {
        action: name.to_owned(),
        parameters: since.map(parameter).into_iter().collect(),
        reason: format!("{operator}: {reason}"),
        approvals: Vec::new(),
    })
}

/// About what the queue will keep of an order; policy counts it before it is built.
fn order_bytes(order: &SealOrder) -> u64 {
    let openings: usize = order.openings.iter().map(|o| o.name.len() + o.value.len() + 64).sum();
    (512 + openings + order.openings.len() * 48 + order.relations.len() * 40) as u64
}
