//! The writer thread: the only owner of the ledger and of the sealing key.
//!
//! One round: take what has queued up -> decide about the epoch -> number and sign the entries ->
//! one durable append -> (the ledger re-reads and recomputes the root) -> sign the checkpoint ->
//! publish -> answer everyone. Batches form by themselves while the previous commit runs; a lone
//! request is never delayed by a timer.
//! Refuses to do: talk to the TPM in the default residency; answer anything before the append returned.
//! Invariants: nothing signed in a round leaves this thread before the round's append succeeded; after
//! an append of unknown effect the ledger is recovered onto a fresh file before anything else (G10).

use super::body::{EntryMaker, MakeError};
use super::clock::{Steady, local_time};
use super::epochs::{EpochEvidence, PreparedEpoch};
use super::lock::LockAnswer;
use super::queueing::Draft;
use super::standing::Standing;
use super::{Answer, Command, Condition, Published, SealError, SealOrder, Shared, attest, erase, keeper};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::der;
use bulla_formats::entry::{Entry, Kind, LocalTime, Residency, TreeState};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_keys::SealingKey;
use bulla_ledger::{
    AppendError, Committed, Ledger, NewEntry, QueueId, QueueOutcome, QueuedRow, RecoverError, Request,
    RequestHash,
};
use bulla_protocol::epoch::{EpochDecision, EpochLife, EpochPolicy};
use bulla_protocol::queue::{Gate, Next};
use ed25519_dalek::Signer as _;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{mpsc, oneshot};

/// Shortest pause between two attempts to recover a poisoned ledger.
const RECOVERY_PAUSE_MILLIS: u64 = 1_000;
/// Niceness of the writer: enough to be preferred to every connection's task, not to starve the system.
const WRITER_NICE: i32 = -10;

/// A seal that is durable.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its entry.
    pub entry: Arc<Entry>,
    /// The key-epoch entry of its epoch.
    pub epoch: Arc<EpochEvidence>,
    /// The head right after its batch.
    pub published: Arc<Published>,
    /// Whether it was made for an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// The epoch in force.
pub struct CurrentEpoch {
    /// Its number.
    pub number: u64,
    /// Its sealing key; `None` for the epoch of an earlier run, whose key died with it.
    pub key: Option<SealingKey>,
    /// Where that lives.
    pub residency: Residency,
    /// Its key-epoch entry.
    pub evidence: Arc<EpochEvidence>,
}

/// State of the writer thread.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger,
    pub(super) epoch: CurrentEpoch,
    pub(super) life: EpochLife,
    pub(super) policy: EpochPolicy,
    pub(super) next: Option<PreparedEpoch>,
    pub(super) lamport: u64,
    pub(super) batch_max: usize,
    pub(super) steady: Steady,
    pub(super) attestor: attest::Handle,
    pub(super) trouble: Option<Trouble>,
    /// What stands between requests and their seals.
    pub(super) gate: Gate,
    /// What became of queued requests, while that is not recorded.
    pub(super) unrecorded: Vec<(QueueId, QueueOutcome)>,
    /// Indexes in which a request key counts.
    pub(super) request_window: u64,
    pub(super) keeper: keeper::Handle,
    pub(super) erasure: Option<erase::Pending>,
    pub(super) standing: Standing,
}

/// A state that cannot be logged while it lasts.
pub struct Trouble {
    code: &'static str,
    detail: String,
    began: LocalTime,
    last_attempt: u64,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, SealError>>;

/// Who gets which entry of the batch.
pub(super) enum Waiter {
    Seal(Reply<Answer>),
    Append(Reply<u64>),
    Lock(LockAnswer, Reply<LockAnswer>),
}

#[derive(Default)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    rows: Vec<NewEntry>,
    waiters: Vec<(usize, Waiter)>,
    /// Same idempotency key twice in one batch: the second waits for the first's entry.
    followers: Vec<(usize, Reply<Answer>)>,
    requests: HashMap<RequestHash, (usize, RequestHash)>,
    seals: u64,
    /// Queued requests that are in this batch, and where.
    pub(super) drained: Vec<(QueueId, usize)>,
    /// Queued requests whose outcome needs no entry of this batch.
    pub(super) settled: Vec<(QueueId, QueueOutcome)>,
    /// The key did not sign: nothing that comes later in the round is tried.
    pub(super) key_failed: Option<String>,
    /// A queued request could not be looked at: nothing may overtake it.
    pub(super) stopped: bool,
    /// What the key did not sign.
    unsigned: Vec<(Draft, Reply<Answer>)>,
}

/// One round's work, sorted.
#[derive(Default)]
pub(super) struct Work {
    /// Orders and entries, in the order in which they came.
    commands: Vec<Command>,
    rotations: Vec<(String, Reply<u64>)>,
    locks: Vec<(LockAnswer, Vec<Vec<u8>>, Reply<LockAnswer>)>,
    queued: Vec<QueuedRow>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.commands.is_empty()
            && self.rotations.is_empty()
            && self.locks.is_empty()
            && self.queued.is_empty()
    }
}

impl Batch {
    pub(super) fn push(&mut self, entry: Entry, row: NewEntry, waiter: Option<Waiter>) {
        if let Some(waiter) = waiter {
            self.waiters.push((self.entries.len(), waiter));
        }
        self.entries.push(entry);
        self.rows.push(row);
    }

    /// Takes a signed draft; its position.
    pub(super) fn push_seal(&mut self, entry: Entry, draft: Draft, waiter: Option<Waiter>) -> usize {
        let position = self.entries.len();
        if let Some(request) = draft.request {
            self.requests.insert(request.key, (position, request.fingerprint));
        }
        let row = NewEntry {
            entry: entry.bytes().to_vec(),
            digest: Some((draft.body.algorithm as u8, draft.body.digest.to_vec())),
            request: draft.request,
            openings: draft.openings,
            side: Vec::new(),
        };
        self.seals += 1;
        self.push(entry, row, waiter);
        position
    }

    fn refuse(self, error: &SealError) -> Vec<(LockAnswer, Reply<LockAnswer>)> {
        let mut locks = Vec::new();
        for (_, waiter) in self.waiters {
            // A waiter that has hung up needs no answer.
            match waiter {
                Waiter::Seal(reply) => drop(reply.send(Err(error.clone()))),
                Waiter::Append(reply) => drop(reply.send(Err(error.clone()))),
                Waiter::Lock(answer, reply) => locks.push((answer, reply)),
            }
        }
        for (_, reply) in self.followers {
            drop(reply.send(Err(error.clone())));
        }
        locks
    }
}

impl Writer {
    /// Works until told to stop or until nobody can ask any more.
    pub fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        go_first();
        let mut round = Vec::with_capacity(self.batch_max);
        loop {
            // With queued requests to seal, what arrives is only looked for.
            if self.next_step() == Next::Wait {
                match queue.blocking_recv() {
                    Some(first) => round.push(first),
                    None => return,
                }
            }
            while round.len() < self.batch_max {
                let Ok(next) = queue.try_recv() else { break };
                round.push(next);
            }
            if self.round(&mut round) {
                return;
            }
        }
    }

    /// One round; returns whether to stop.
    fn round(&mut self, commands: &mut Vec<Command>) -> bool {
        let (mut stop, mut recover) = (false, false);
        let (mut erasures, mut tags, mut modes, mut ends) = (Vec::new(), None, Vec::new(), Vec::new());
        let mut work = Work { commands: Vec::with_capacity(commands.len()), ..Work::default() };
        for command in commands.drain(..) {
            match command {
                Command::NextEpoch(prepared) => self.take_next_epoch(prepared),
                Command::Rotate(reason, reply) => work.rotations.push((reason, reply)),
                Command::Erase(order, reply) => erasures.push((order, reply)),
                Command::TagsErased(done) => tags = Some(done),
                Command::Lamport(time) => self.lamport = self.lamport.max(time),
                Command::Mode(order, reply) => modes.push((order, reply)),
                Command::End(body, reply) => ends.push((body, reply)),
                Command::Lock(change, reply) => match self.change_lock(change) {
                    Ok((answer, bodies)) if bodies.is_empty() => drop(reply.send(Ok(answer))),
                    Ok((answer, bodies)) => work.locks.push((answer, bodies, reply)),
                    Err(error) => drop(reply.send(Err(error))),
                },
                Command::KeyAnswers => {
                    self.gate.key_answers();
                    self.shared.key_answers();
                }
                Command::Recover => {
                    self.gate.retry();
                    recover = true;
                }
                Command::Stop => stop = true,
                seal_or_append => work.commands.push(seal_or_append),
            }
        }
        if stop {
            // What is queued stays for the next run.
            self.gate.hold();
        }
        for (order, reply) in modes {
            self.change_mode(order, reply);
        }
        // With nothing to seal, what is committed is the incident; that proves that storage works again.
        recover |= !work.is_empty() || self.next_step() != Next::Wait;
        let unready = if recover { self.ready_again().err() } else { None };
        self.gate.set_storage_failed(self.ledger.is_poisoned());
        if let Some(error @ SealError::DiskFull { .. }) = &unready {
            // Nothing can be promised on a full disk.
            let orders = work.commands.extract_if(.., |command| matches!(command, Command::Seal(..)));
            refuse_all(orders.collect(), Vec::new(), error);
        }
        let keeping = self.admit(&mut work.commands);
        match unready {
            None => {
                let newcomers = work.commands.iter().any(|command| matches!(command, Command::Seal(..)));
                work.queued = self.rows_to_seal(newcomers);
                if (work.queued.len() as u64) < self.backlog().entries {
                    // Older requests could not be had, and nothing overtakes them.
                    let orders = work.commands.extract_if(.., |command| matches!(command, Command::Seal(..)));
                    refuse_all(orders.collect(), Vec::new(), &SealError::Overloaded);
                }
                let unsigned = self.commit(work, false);
                let unsigned = self.unsigned(unsigned);
                self.keep(unsigned);
            }
            Some(error) => {
                self.refuse_work(work, &error);
                self.keeper.watch();
            }
        }
        self.keep(keeping);
        if let Some(done) = tags {
            self.tags_erased(done);
        }
        for (order, reply) in erasures {
            match self.ready_again() {
                Ok(()) => self.erase(order, reply),
                Err(error) => drop(reply.send(Err(error.into()))),
            }
        }
        for (body, reply) in ends {
            match self.ready_again() {
                Ok(()) => {
                    let commands = vec![Command::Append(Kind::OperatorAction, body, reply)];
                    let unsigned = self.commit(Work { commands, ..Work::default() }, false);
                    let unsigned = self.unsigned(unsigned);
                    self.keep(unsigned);
                }
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        stop
    }

    fn refuse_work(&mut self, work: Work, error: &SealError) {
        refuse_all(work.commands, work.rotations, error);
        for (answer, _, reply) in work.locks {
            // The lock holds all the same; its entry follows when the log takes entries again.
            let answer = self.lock_logged(answer, false);
            drop(reply.send(Ok(answer)));
        }
    }

    fn take_next_epoch(&mut self, prepared: PreparedEpoch) {
        // A successor of an epoch that has meanwhile ended is useless: its statement names the wrong one.
        if prepared.statement.epoch == self.epoch.number + 1 {
            self.next = Some(prepared);
        } else {
            self.attestor.prepare_epoch(self.epoch.number + 1, self.epoch.evidence.leaf_hash);
        }
    }

    /// When the last append had an unknown effect, recovers before anything else is written. Nothing is while a rollback
    /// is suspected.
    pub(super) fn ready_again(&mut self) -> Result<(), SealError> {
        if let Condition::RollbackSuspected { finding } = self.shared.condition() {
            // Nothing is added to a log of which another history may exist.
            return Err(SealError::RollbackSuspected { finding });
        }
        if !self.ledger.is_poisoned() {
            return Ok(());
        }
        let now = self.steady.millis();
        let last = self.trouble.as_ref().map_or(0, |trouble| trouble.last_attempt);
        match self.shared.condition() {
            // Trying reads the whole segment; looking for room costs nothing.
            Condition::Poisoned { reason } if now < last + RECOVERY_PAUSE_MILLIS => {
                Err(not_recovered(&reason))
            }
            _ => self.recover(),
        }
    }

    fn recover(&mut self) -> Result<(), SealError> {
        let now = self.steady.millis();
        let error = match self.ledger.recover() {
            Ok(()) => {
                self.shared.counters.recoveries.fetch_add(1, Relaxed);
                log::warn!("the log was taken up again on a fresh file at entry {}", self.ledger.size());
                return Ok(());
            }
            Err(error) => error,
        };
        let reason = error.to_string();
        // Tried again every second: said once for each way in which it fails.
        let news = self.trouble.as_ref().is_none_or(|trouble| trouble.detail != reason);
        self.trouble_begins("storage-failed", reason.clone(), now);
        if let RecoverError::Full { free, needed } = error {
            // Only room is missing: clients hear the same as from any full disk.
            self.shared.set_condition(Condition::DiskFull);
            return Err(SealError::DiskFull { free, needed });
        }
        if news {
            log::error!("the log cannot be taken up again: {reason}; trying every second");
        }
        self.shared.set_condition(Condition::Poisoned { reason: reason.clone() });
        Err(not_recovered(&reason))
    }

    pub(super) fn trouble_begins(&mut self, code: &'static str, detail: String, now: u64) {
        match &mut self.trouble {
            Some(trouble) => {
                trouble.detail = detail;
                trouble.last_attempt = now;
            }
            None => {
                // The control store is another file and keeps room of its own; when it fails too, the
                // journal line is in the system's log at least.
                let began = local_time();
                if let Err(error) =
                    self.ledger.control().journal(began.unix_millis, &format!("{code}: {detail}"))
                {
                    log::error!("{code} could not be journalled either: {error}");
                }
                self.trouble = Some(Trouble { code, detail, began, last_attempt: now });
            }
        }
    }

    /// One batch. `first`: the epoch of this run must begin with it. Returns what the key did not sign.
    pub(super) fn commit(&mut self, work: Work, first: bool) -> Vec<(Draft, Reply<Answer>)> {
        if self.gate.is_key_away() {
            let reason = "the sealing key cannot sign, its device does not answer".to_owned();
            self.refuse_work(work, &SealError::Locked { reason });
            return Vec::new();
        }
        let mut batch = Batch::default();
        let now = self.steady.millis();
        let decision = self.life.decide(now, self.next.is_some(), first || !work.rotations.is_empty());
        let rotate = match decision {
            EpochDecision::Rotate { extended } => self.next.take().map(|next| (next, extended)),
            EpochDecision::Keep | EpochDecision::Extend => None,
        };
        let previous = TreeState::new(self.ledger.size(), self.ledger.root());
        let number = rotate.as_ref().map_or(self.epoch.number, |(next, _)| next.statement.epoch);
        let (key, residency) = match (&rotate, &self.epoch.key) {
            (Some((next, _)), _) => (&next.key, next.residency),
            (None, Some(key)) => (key, self.epoch.residency),
            (None, None) => {
                let reason = "this run has no sealing key yet".to_owned();
                self.refuse_work(work, &SealError::Locked { reason });
                return Vec::new();
            }
        };
        let mut maker = EntryMaker {
            origin: &self.shared.origin,
            clock: &self.shared.clock,
            mode: self.standing.mode,
            drill: self.standing.drill,
            evidence: self.standing.evidence.clone(),
            epoch: number,
            residency,
            key,
            next_index: previous.size,
            previous,
            lamport: self.lamport,
        };
        if let Some((next, extended)) = &rotate {
            let message = next.statement.successor_message();
            let predecessor = self.epoch.key.as_ref().and_then(|key| key.sign(&message).ok());
            let body = next.body(maker.next_index, *extended, predecessor);
            match maker.make(Kind::KeyEpoch, der::encode(&body)) {
                Ok(entry) => {
                    let row = NewEntry { entry: entry.bytes().to_vec(), ..NewEntry::default() };
                    batch.push(entry, row, None);
                }
                // Its own key cannot sign (a TPM key, and the TPM is away): nothing else could be signed either.
                Err(error) => batch.key_failed = Some(format!("the next key epoch cannot begin: {error}")),
            }
        }
        let begun = rotate.as_ref().is_some_and(|_| !batch.entries.is_empty());
        for (reason, reply) in work.rotations {
            if !begun {
                let reason =
                    "the next epoch is not endorsed yet (the TPM is away or busy); ask again in a moment";
                drop(reply.send(Err(SealError::Locked { reason: reason.to_owned() })));
                continue;
            }
            push_body(&mut maker, &mut batch, Kind::OperatorAction, rotate_action(reason), Some(reply));
        }
        let mut locks = Vec::new();
        for (answer, bodies, reply) in work.locks {
            match push_lock(&mut maker, &mut batch, bodies) {
                Some(position) => batch.waiters.push((position, Waiter::Lock(answer, reply))),
                None => locks.push((answer, reply)),
            }
        }
        let told = self.trouble.is_some() && batch.key_failed.is_none();
        if let Some(trouble) = self.trouble.as_ref().filter(|_| told) {
            let ended = IncidentBody {
                code: trouble.code.to_owned(),
                began: trouble.began,
                ended: Some(local_time()),
                detail: trouble.detail.chars().take(500).collect(),
            };
            push_body(&mut maker, &mut batch, Kind::Incident, der::encode(&ended), None);
        }
        let first_erasure = maker.next_index;
        for body in self.erasure.as_ref().map(erase::Pending::bodies).unwrap_or_default() {
            push_body(&mut maker, &mut batch, Kind::OperatorAction, body, None);
        }
        let erasures = first_erasure..maker.next_index;
        for row in &work.queued {
            self.push_row(&mut maker, &mut batch, row);
        }
        for command in work.commands {
            match command {
                Command::Seal(order, reply) => self.push_seal(&mut maker, &mut batch, *order, reply),
                Command::Append(kind, body, reply) => {
                    push_body(&mut maker, &mut batch, kind, body, Some(reply))
                }
                _ => {}
            }
        }
        let lamport = maker.lamport;
        let (unsigned, key_failed) = (std::mem::take(&mut batch.unsigned), batch.key_failed.take());
        let stopped = batch.stopped;
        let mut outcomes = std::mem::take(&mut batch.settled);
        let mut logged = Vec::new();
        if batch.entries.is_empty() {
            self.next = rotate.map(|(next, _)| next).or(self.next.take());
        } else {
            match self.append(&batch) {
                Ok(committed) => {
                    self.lamport = lamport;
                    if let Some((next, _)) = rotate {
                        self.begin_epoch(next, &batch.entries[0]);
                    }
                    // What only began in this very append is for the next batch to tell.
                    if told {
                        self.trouble = None;
                    }
                    self.shared.set_condition(Condition::Sealing);
                    let sealed = |(id, position): (QueueId, usize)| {
                        let index = batch.entries[position].content().index;
                        (id, QueueOutcome::Sealed { index })
                    };
                    outcomes.extend(std::mem::take(&mut batch.drained).into_iter().map(sealed));
                    logged = self.answer(batch, committed);
                    if !erasures.is_empty() {
                        self.erasure_recorded(erasures.collect());
                    }
                }
                Err(error) => {
                    // The endorsement is still good: its statement names no index.
                    if let Some((next, _)) = rotate {
                        self.next = Some(next);
                    }
                    locks.extend(batch.refuse(&error));
                    self.hold();
                }
            }
        }
        for (answers, is_logged) in [(logged, true), (locks, false)] {
            for (answer, reply) in answers {
                let answer = self.lock_logged(answer, is_logged);
                drop(reply.send(Ok(answer)));
            }
        }
        if stopped {
            self.hold();
        }
        if let Some(reason) = key_failed {
            self.key_failed(reason);
        }
        self.settle(outcomes);
        unsigned
    }

    fn push_seal(
        &self,
        maker: &mut EntryMaker<'_>,
        batch: &mut Batch,
        order: SealOrder,
        reply: Reply<Answer>,
    ) {
        let reply = match order.request {
            None => reply,
            Some(request) => match self.answer_known_request(batch, request, reply) {
                Some(reply) => reply,
                None => return,
            },
        };
        if batch.stopped {
            drop(reply.send(Err(SealError::Overloaded)));
            return;
        }
        let draft = match Draft::of(order) {
            Ok(draft) => draft,
            Err(error) => return drop(reply.send(Err(make_error(MakeError::Body(error))))),
        };
        if batch.key_failed.is_some() {
            return batch.unsigned.push((draft, reply));
        }
        match maker.make(Kind::Seal, der::encode(&draft.body)) {
            Ok(entry) => {
                batch.push_seal(entry, draft, Some(Waiter::Seal(reply)));
            }
            Err(MakeError::Key(error)) => {
                batch.key_failed = Some(error.to_string());
                batch.unsigned.push((draft, reply));
            }
            Err(error) => drop(reply.send(Err(make_error(error)))),
        }
    }

    /// Gives the reply back when the key is new.
    pub(super) fn answer_known_request(
        &self,
        batch: &mut Batch,
        request: Request,
        reply: Reply<Answer>,
    ) -> Option<Reply<Answer>> {
        if let Some((position, fingerprint)) = batch.requests.get(&request.key) {
            if *fingerprint == request.fingerprint {
                batch.followers.push((*position, reply));
            } else {
                let index = batch.entries[*position].content().index;
                drop(reply.send(Err(SealError::KeyReused { index })));
            }
            return None;
        }
        let answer = match self.shared.reader.find_request(&request.key) {
            Ok(None) => return self.answer_waiting_request(request, reply),
            Ok(Some((index, fingerprint))) if fingerprint != request.fingerprint => {
                Err(SealError::KeyReused { index })
            }
            Ok(Some((index, _))) => self.replay(index).map(Answer::Sealed),
            Err(error) => Err(SealError::Failed { reason: error.to_string() }),
        };
        drop(reply.send(answer));
        None
    }

    fn replay(&self, index: u64) -> Result<Sealed, SealError> {
        let failed = |error: super::LookupError| SealError::Failed { reason: error.to_string() };
        let entry = self.shared.entry(index).map_err(failed)?;
        let epoch = self.shared.epochs.find(entry.content().epoch, index).map_err(failed)?;
        let published = self.shared.published().ok_or_else(super::stopping)?;
        Ok(Sealed { entry: Arc::new(entry), epoch, published, replayed: true })
    }

    /// Appends durably. After an error of unknown effect: recovers onto a fresh file and appends the
    /// same entries there, once.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<Committed, SealError> {
        let error = match self.ledger.append(batch.rows.clone()) {
            Ok(committed) => return Ok(committed),
            Err(error) if !self.ledger.is_poisoned() => return Err(self.refused(error)),
            Err(error) => error,
        };
        self.shared.counters.poisonings.fetch_add(1, Relaxed);
        log::error!("an append had an unknown effect ({error}); the log goes to a fresh file");
        self.trouble_begins("storage-failed", error.to_string(), self.steady.millis());
        if self.recover().is_err() {
            return Err(SealError::Failed { reason: format!("storage failed: {error}") });
        }
        // From here on the first attempt is known not to be in the log.
        self.ledger.append(batch.rows.clone()).map_err(|error| self.refused(error))
    }

    fn refused(&mut self, error: AppendError) -> SealError {
        match error {
            AppendError::Full { free, needed } => {
                self.shared.counters.disk_full.fetch_add(1, Relaxed);
                self.shared.set_condition(Condition::DiskFull);
                let detail = format!("{free} bytes free, {needed} needed");
                self.trouble_begins("disk-full", detail, self.steady.millis());
                SealError::DiskFull { free, needed }
            }
            error => {
                let reason = format!("storage failed: {error}");
                if self.ledger.is_poisoned() {
                    self.shared.set_condition(Condition::Poisoned { reason: reason.clone() });
                }
                SealError::Failed { reason }
            }
        }
    }

    /// The key-epoch entry is durable: its key is the one in force, the old one is zeroised by its drop.
    fn begin_epoch(&mut self, next: PreparedEpoch, entry: &Entry) {
        let evidence = EpochEvidence {
            index: entry.content().index,
            bytes: entry.bytes().to_vec(),
            leaf_hash: entry.leaf_hash(),
        };
        let number = next.statement.epoch;
        self.shared.epochs.committed(number, entry);
        self.shared.set_stamper(next.stamper);
        self.epoch = CurrentEpoch {
            number,
            key: Some(next.key),
            residency: next.residency,
            evidence: Arc::new(evidence),
        };
        self.life = EpochLife::begin(self.policy, self.steady.millis());
        self.shared.status.epoch_began(number);
        log::info!("key epoch {number} begins at entry {}", self.epoch.evidence.index);
        self.attestor.prepare_epoch(number + 1, self.epoch.evidence.leaf_hash);
    }

    /// Answers everyone; gives back the locks, whose entries are to be noted first.
    pub(super) fn answer(
        &mut self,
        batch: Batch,
        committed: Committed,
    ) -> Vec<(LockAnswer, Reply<LockAnswer>)> {
        self.stands(&batch.entries, batch.seals);
        let seals = self.standing.seals;
        let published = Arc::new(publish(&self.shared, committed.snapshot().clone(), seals));
        *self.shared.published.write().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            Some(published.clone());
        self.shared.size.send_replace(published.snapshot.size());
        let counters = &self.shared.counters;
        counters.batches.fetch_add(1, Relaxed);
        counters.entries.fetch_add(batch.entries.len() as u64, Relaxed);
        counters.seals.fetch_add(batch.seals, Relaxed);
        self.life.sealed(batch.seals);
        self.shared.status.extended(self.life.is_extended());
        let entries: Vec<Arc<Entry>> = batch.entries.into_iter().map(Arc::new).collect();
        let sealed = |position: usize, replayed: bool| {
            Answer::Sealed(Sealed {
                entry: entries[position].clone(),
                epoch: self.epoch.evidence.clone(),
                published: published.clone(),
                replayed,
            })
        };
        let mut locks = Vec::new();
        for (position, waiter) in batch.waiters {
            // A waiter that has hung up needs no answer: its seal is durable all the same.
            match waiter {
                Waiter::Seal(reply) => drop(reply.send(Ok(sealed(position, false)))),
                Waiter::Append(reply) => drop(reply.send(Ok(entries[position].content().index))),
                Waiter::Lock(answer, reply) => locks.push((answer, reply)),
            }
        }
        for (position, reply) in batch.followers {
            drop(reply.send(Ok(sealed(position, true))));
        }
        if batch.seals > 0 {
            self.attestor.sealed();
        }
        locks
    }

    /// The log came from a backup made at `made` (Unix milliseconds): the first batch says so.
    pub fn restored(&mut self, made: &str) {
        let detail = format!("restored from a backup made at Unix time {made} ms");
        self.trouble_begins("restored-from-backup", detail, self.steady.millis());
    }

    /// Starts the epoch of this run; called once, before the thread.
    pub fn first_epoch(&mut self, first: PreparedEpoch) -> anyhow::Result<()> {
        self.next = Some(first);
        self.commit(Work::default(), true);
        anyhow::ensure!(
            self.next.is_none() && self.shared.published().is_some(),
            "the key epoch of this run could not be written: {}",
            self.trouble.as_ref().map_or("see the log", |trouble| trouble.detail.as_str())
        );
        Ok(())
    }
}

/// Raises this thread's priority: everybody waits for it, and it sleeps in fsync more than it computes. Linux counts
/// niceness by thread, so the others stay as they are. Without the right to it (no `LimitNICE`), as before.
fn go_first() {
    if let Err(error) = rustix::process::setpriority_process(None, WRITER_NICE) {
        log::info!("the writer runs at the usual priority ({error}): the service has no LimitNICE");
    }
}

/// Signs the checkpoint of a committed snapshot, with `outage_seals` seals of an outage under way.
pub(super) fn publish(
    shared: &Shared,
    snapshot: bulla_ledger::Snapshot,
    outage_seals: Option<u64>,
) -> Published {
    let origin = shared.origin.as_str();
    let text = checkpoint_text(origin, snapshot.size(), &snapshot.root());
    let signature = shared.log_key.sign(text.as_bytes()).to_bytes();
    let line = log_line(origin, &shared.log_key.verifying_key().to_bytes(), &signature);
    let note = SignedNote { text: text.clone(), lines: vec![line] }.encode();
    shared.status.checkpoint_made();
    Published { snapshot, text, signature, note, outage_seals }
}

/// Signs what the log is to have of a lock: all of it or nothing. The position of the last entry.
fn push_lock(maker: &mut EntryMaker<'_>, batch: &mut Batch, bodies: Vec<Vec<u8>>) -> Option<usize> {
    for body in bodies {
        if batch.key_failed.is_some() {
            return None;
        }
        match maker.make(Kind::OperatorAction, body) {
            Ok(entry) => {
                let row = NewEntry { entry: entry.bytes().to_vec(), ..NewEntry::default() };
                batch.push(entry, row, None);
            }
            Err(error) => {
                batch.key_failed = Some(error.to_string());
                return None;
            }
        }
    }
    batch.entries.len().checked_sub(1)
}

fn push_body(
    maker: &mut EntryMaker<'_>,
    batch: &mut Batch,
    kind: Kind,
    body: Vec<u8>,
    reply: Option<Reply<u64>>,
) {
    match maker.make(kind, body) {
        Ok(entry) => {
            let row = NewEntry { entry: entry.bytes().to_vec(), ..NewEntry::default() };
            batch.push(entry, row, reply.map(Waiter::Append));
        }
        Err(error) => {
            log::error!("a {} entry could not be made: {error}", kind.name());
            if let Some(reply) = reply {
                drop(reply.send(Err(make_error(error))));
            }
        }
    }
}

fn rotate_action(reason: String) -> Vec<u8> {
    der::encode(&OperatorActionBody {
        action: "rotate-epoch".to_owned(),
        parameters: Vec::new(),
        reason,
        approvals: Vec::new(),
    })
}

fn refuse_all(work: Vec<Command>, rotations: Vec<(String, Reply<u64>)>, error: &SealError) {
    for command in work {
        match command {
            Command::Seal(_, reply) => drop(reply.send(Err(error.clone()))),
            Command::Append(_, _, reply) => drop(reply.send(Err(error.clone()))),
            _ => {}
        }
    }
    for (_, reply) in rotations {
        drop(reply.send(Err(error.clone())));
    }
}

fn not_recovered(reason: &str) -> SealError {
    SealError::Locked { reason: format!("storage failed and has not recovered yet: {reason}") }
}

pub(super) fn make_error(error: MakeError) -> SealError {
    match error {
        MakeError::Body(error) => SealError::Invalid { reason: error.to_string() },
        MakeError::Key(error) => {
            SealError::Locked { reason: format!("the sealing key cannot sign: {error}") }
        }
    }
}
