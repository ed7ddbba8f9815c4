//! Queue: requests that were promised a seal while none could be made.
//!
//! A row is durable before its client hears of it. It leaves in the same transaction that records what became of it,
//! and only after the entry it became is durable in the log; the request key it carries is what finds that entry
//! when a crash came in between. So a row is sealed once, whatever happens between the two files.
//!
//! Refuses: a row without room on the disk; a row that does not decrypt as the row of this very place.
//! Invariants: places ascend and are never given twice; what waits in memory is what a successful write made
//! durable, never what a failed one may have left behind; a row's content is encrypted under a key of its own, and
//! the file is rewritten after rows have left, so that neither key nor content stays in a page of it.

use crate::companion::{Companion, Kind, copy_table};
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::store::Store;
use crate::tables::{Request, RequestHash};
use bulla_formats::hash::sha256;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use zeroize::Zeroizing;

/// Place to row; its bytes are in docs/ARCHITECTURE.md section 4.
const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows-2");
/// Place to 32-byte random key.
const KEYS: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("keys-1");
/// Place to what became of the row.
const OUTCOMES: TableDefinition<u64, &[u8]> = TableDefinition::new("outcomes-1");
/// `next`: the next place; `dirty`: rows have left since the file was last rewritten.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta-1");
const NEXT: &str = "next";
const DIRTY: &str = "dirty";

pub(crate) const NAME: &str = "queue.redb";
const ROW_VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
/// Outcomes kept. A client asks within minutes; this is days of a busy branch.
const OUTCOMES_MAX: u64 = 1 << 16;
/// Rows that may leave before a queue that never gets empty is rewritten all the same.
const REWRITE_AFTER: u64 = 1024;
/// Label of the request key of a row whose client named none.
const REQUEST_LABEL: &[u8] = b"bulla/queue-request/v1\0";

/// Nothing else verifies this file at start, and its rows are promises: two phases.
const KIND: Kind = Kind { name: NAME, two_phase: true, copy: copy_tables };

fn copy_tables(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(ROWS, from, to)?;
    copy_table(KEYS, from, to)?;
    copy_table(OUTCOMES, from, to)?;
    copy_table(META, from, to)?;
    // A copy holds nothing but what it copied.
    to.open_table(META)?.remove(DIRTY)?;
    Ok(())
}

/// A request to be kept.
#[derive(Debug, Clone)]
pub struct NewQueued {
    /// When the box took it, milliseconds since 1970.
    pub queued_ms: u64,
    /// Idempotency key and fingerprint; `None`: a key is made from the row's own name.
    pub request: Option<Request>,
    /// Registered name of the client, at most 255 bytes.
    pub client: String,
    /// The order. Opaque here, stored encrypted.
    pub order: Vec<u8>,
}

/// Name of a row: its place and 64 random bits, so that a name says nothing about other rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// Its place in the queue's order, counted from 0 over the life of the log.
    pub place: u64,
    /// Random.
    pub tag: [u8; 8],
}

/// A row that waits, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRow {
    /// Its name.
    pub id: QueueId,
    /// When the box took it.
    pub queued_ms: u64,
    /// The client's registered name.
    pub client: String,
    /// Under which the log will know it.
    pub request: Request,
}

/// A row to be sealed.
#[derive(Debug, Clone)]
pub struct QueuedRow {
    /// Everything but the content.
    pub row: WaitingRow,
    /// The order; `None` when the row is damaged.
    pub order: Option<Zeroizing<Vec<u8>>>,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOutcome {
    /// It is this entry.
    Sealed {
        /// Index of the entry.
        index: u64,
    },
    /// It can never be one.
    Refused {
        /// Why, for the client.
        reason: String,
    },
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueState {
    /// It waits.
    Waiting {
        /// The row.
        row: WaitingRow,
        /// 1 for the row that is next.
        position: u64,
    },
    /// It has left.
    Done {
        /// The client's registered name.
        client: String,
        /// When the box took it.
        queued_ms: u64,
        /// What became of it.
        outcome: QueueOutcome,
    },
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Rows.
    pub entries: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// When the oldest was taken.
    pub oldest_ms: Option<u64>,
}

/// Why rows were not taken: none of them was.
#[derive(Debug, Error)]
pub enum PushError {
    /// The disk is too full; nothing was written.
    #[error(
        "the disk has {free} bytes free where the queue needs {needed} with the reserve; free some space"
    )]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// Writing failed. The rows do not count here; after a crash they may turn out durable and be sealed.
    #[error(transparent)]
    Storage(#[from] StorageFault),
}

/// Handle to the queue; clones share it. One writer, any readers.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    companion: Companion,
    reserve_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, (WaitingRow, u64)>,
    requests: HashMap<RequestHash, u64>,
    bytes: u64,
    left_since_rewrite: u64,
    dirty: bool,
}

impl Queue {
    /// Reads which rows wait.
    pub(crate) fn open(store: Arc<dyn Store>, present: bool, reserve_bytes: u64) -> Result<Self, ReadError> {
        let companion = Companion::new(Arc::clone(&store), KIND, present);
        let state = load(&companion)?;
        Ok(Self(Arc::new(Inner { store, companion, reserve_bytes, state: Mutex::new(state) })))
    }

    /// Takes requests, durably, in this order; all or none.
    pub fn push(&self, new: &[NewQueued]) -> Result<Vec<WaitingRow>, PushError> {
        let content: u64 = new.iter().map(|each| each.order.len() as u64).sum();
        // Copy-on-write touches more pages than the bytes alone fill, and a rewrite needs the file twice.
        let waiting = self.lock().bytes;
        let needed = self.0.reserve_bytes.saturating_add((content + waiting).saturating_mul(4));
        let free = self.0.store.free_bytes().during("ask for the free space of", "the log directory")?;
        if free < needed {
            return Err(PushError::Full { free, needed });
        }
        let mut state = self.lock();
        let first = state.next;
        let mut taken: Vec<(WaitingRow, u64)> = Vec::with_capacity(new.len());
        self.0.companion.write(|txn| {
            clip(txn, first)?;
            let (mut rows, mut keys) = (txn.open_table(ROWS)?, txn.open_table(KEYS)?);
            for (place, each) in (first..).zip(new) {
                let id = QueueId { place, tag: *random::<8>()? };
                let request = each.request.unwrap_or_else(|| request_of(&id));
                let row = WaitingRow { id, queued_ms: each.queued_ms, client: each.client.clone(), request };
                let (key, bytes) = seal_row(&row, &each.order)?;
                keys.insert(place, &*key)?;
                rows.insert(place, bytes.as_slice())?;
                taken.push((row, each.order.len() as u64));
            }
            txn.open_table(META)?.insert(NEXT, first + new.len() as u64)?;
            Ok(())
        })?;
        for (row, bytes) in &taken {
            state.add(row.clone(), *bytes);
        }
        Ok(taken.into_iter().map(|(row, _)| row).collect())
    }

    /// Copies everything into another directory; the name of the file there, if there is one.
    pub(crate) fn copy_to(&self, to: &dyn Store) -> Result<Option<String>, StorageFault> {
        self.0.companion.copy_to(to)
    }

    /// How much waits.
    pub fn depth(&self) -> QueueDepth {
        let state = self.lock();
        let oldest_ms = state.waiting.values().next().map(|(row, _)| row.queued_ms);
        QueueDepth { entries: state.waiting.len() as u64, bytes: state.bytes, oldest_ms }
    }

    /// The waiting row with this request key, and its position.
    pub fn find_request(&self, key: &RequestHash) -> Option<(WaitingRow, u64)> {
        let state = self.lock();
        let place = state.requests.get(key)?;
        let (row, _) = state.waiting.get(place)?;
        Some((row.clone(), state.position(*place)))
    }

    /// The oldest rows, in order, at most `limit`.
    pub fn oldest(&self, limit: usize) -> Result<Vec<QueuedRow>, StorageFault> {
        let rows: Vec<WaitingRow> =
            self.lock().waiting.values().take(limit).map(|(row, _)| row.clone()).collect();
        let orders = self.0.companion.read(|txn| {
            let (table, keys) = (txn.open_table(ROWS)?, txn.open_table(KEYS)?);
            let mut orders = Vec::with_capacity(rows.len());
            for row in &rows {
                let key = keys.get(row.id.place)?.map(|key| Zeroizing::new(*key.value()));
                let bytes = table.get(row.id.place)?.map(|bytes| bytes.value().to_vec());
                orders.push(key.zip(bytes).and_then(|(key, bytes)| open_row(row.id.place, &key, &bytes)));
            }
            Ok(orders)
        })?;
        let orders = orders.unwrap_or_default().into_iter().chain(std::iter::repeat_with(|| None));
        Ok(rows.into_iter().zip(orders).map(|(row, order)| QueuedRow { row, order }).collect())
    }

    /// Records what became of rows and removes them, durably; a row that has left already is left alone.
    pub fn finish(&self, outcomes: &[(QueueId, QueueOutcome)]) -> Result<(), StorageFault> {
        let mut state = self.lock();
        let next = state.next;
        self.0.companion.write(|txn| {
            clip(txn, next)?;
            let (mut rows, mut keys) = (txn.open_table(ROWS)?, txn.open_table(KEYS)?);
            let mut table = txn.open_table(OUTCOMES)?;
            for (id, outcome) in outcomes {
                rows.remove(id.place)?;
                keys.remove(id.place)?;
                if let Some((row, _)) = state.waiting.get(&id.place) {
                    table.insert(id.place, outcome_bytes(row, outcome).as_slice())?;
                }
            }
            while table.len()? > OUTCOMES_MAX {
                table.pop_first()?;
            }
            let mut meta = txn.open_table(META)?;
            meta.insert(DIRTY, 1)?;
            meta.insert(NEXT, next)?;
            Ok(())
        })?;
        for (id, _) in outcomes {
            state.remove(id.place);
        }
        Ok(())
    }

    /// Rewrites the file when rows have left it: always once it is empty, now and then while it is not.
    pub fn scrub(&self) -> Result<(), StorageFault> {
        let mut state = self.lock();
        let due = state.waiting.is_empty()
            || state.left_since_rewrite >= REWRITE_AFTER.max(state.waiting.len() as u64);
        if !state.dirty || !due {
            return Ok(());
        }
        self.0.companion.rewrite()?;
        (state.dirty, state.left_since_rewrite) = (false, 0);
        Ok(())
    }

    /// What is known of this name; `None` when nothing is, or not any more.
    pub fn look(&self, id: QueueId) -> Result<Option<QueueState>, ReadError> {
        {
            let state = self.lock();
            if let Some((row, _)) = state.waiting.get(&id.place) {
                let position = state.position(id.place);
                return Ok((row.id == id).then(|| QueueState::Waiting { row: row.clone(), position }));
            }
        }
        let bytes = self
            .0
            .companion
            .read(|txn| Ok(txn.open_table(OUTCOMES)?.get(id.place)?.map(|bytes| bytes.value().to_vec())))?;
        let Some(bytes) = bytes.flatten() else { return Ok(None) };
        let (tag, done) = parse_outcome(&bytes)
            .ok_or_else(|| Damage::new(NAME, 0, "what became of a queued request is not readable"))?;
        Ok((tag == id.tag).then_some(done))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Values change only after the write they follow succeeded, in steps that do not panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, row: WaitingRow, bytes: u64) {
        let place = row.id.place;
        self.next = self.next.max(place + 1);
        self.requests.insert(row.request.key, place);
        self.bytes += bytes;
        self.waiting.insert(place, (row, bytes));
    }

    fn remove(&mut self, place: u64) {
        self.dirty = true;
        let Some((row, bytes)) = self.waiting.remove(&place) else { return };
        self.bytes -= bytes;
        self.left_since_rewrite += 1;
        if self.requests.get(&row.request.key) == Some(&place) {
            self.requests.remove(&row.request.key);
        }
    }

    fn position(&self, place: u64) -> u64 {
        self.waiting.range(..=place).count() as u64
    }
}

/// Rows at or past `next` are what a failed write left: nobody was promised anything for them.
fn clip(txn: &WriteTransaction, next: u64) -> Result<(), redb::Error> {
    let (mut rows, mut keys) = (txn.open_table(ROWS)?, txn.open_table(KEYS)?);
    if keys.range(next..)?.next().is_none() && rows.range(next..)?.next().is_none() {
        return Ok(());
    }
    rows.retain_in(next.., |_, _| false)?;
    keys.retain_in(next.., |_, _| false)?;
    txn.open_table(META)?.insert(DIRTY, 1)?;
    Ok(())
}

fn load(companion: &Companion) -> Result<State, ReadError> {
    let rows = companion.read(|txn| {
        let mut found = Vec::new();
        for row in txn.open_table(ROWS)?.iter()? {
            let (place, bytes) = row?;
            found.push((place.value(), bytes.value().to_vec()));
        }
        let meta = txn.open_table(META)?;
        let value = |name: &str| -> Result<u64, redb::Error> { Ok(meta.get(name)?.map_or(0, |v| v.value())) };
        let last = txn.open_table(OUTCOMES)?.last()?.map_or(0, |(place, _)| place.value() + 1);
        Ok((found, value(NEXT)?.max(last), value(DIRTY)? != 0))
    })?;
    let mut state = State::default();
    let Some((rows, next, dirty)) = rows else { return Ok(state) };
    (state.next, state.dirty) = (next, dirty);
    for (place, bytes) in rows {
        let (row, header) = parse_row(place, &bytes).ok_or_else(|| {
            Damage::new(NAME, 0, format!("the queued request at place {place} is malformed"))
        })?;
        state.add(row, bytes.len().saturating_sub(header + NONCE_BYTES + 16) as u64);
    }
    Ok(state)
}

/// What fsck has to say: rows that do not decrypt, keys without a row.
pub(crate) fn damages(store: Arc<dyn Store>) -> Result<Vec<String>, StorageFault> {
    let found = Companion::frozen(store, KIND).read(|txn| {
        let (rows, keys) = (txn.open_table(ROWS)?, txn.open_table(KEYS)?);
        let mut damages = Vec::new();
        for row in rows.iter()? {
            let (place, bytes) = row?;
            let place = place.value();
            let key = keys.get(place)?.map(|key| Zeroizing::new(*key.value()));
            if key.and_then(|key| open_row(place, &key, bytes.value())).is_none() {
                damages.push(format!("the queued request at place {place} does not decrypt"));
            }
        }
        for key in keys.iter()? {
            let place = key?.0.value();
            if rows.get(place)?.is_none() {
                damages.push(format!("place {place} has a key and no queued request"));
            }
        }
        for outcome in txn.open_table(OUTCOMES)?.iter()? {
            let (place, bytes) = outcome?;
            if parse_outcome(bytes.value()).is_none() {
                damages.push(format!("what became of the request at place {} is malformed", place.value()));
            }
        }
        Ok(damages)
    })?;
    Ok(found.unwrap_or_default())
}

fn request_of(id: &QueueId) -> Request {
    let key = sha256(&[REQUEST_LABEL, &id.place.to_be_bytes(), &id.tag]);
    Request::new(&key, &key)
}

/// Version, tag, time, request, client; then nonce and ciphertext with place and header as associated data.
fn row_header(row: &WaitingRow) -> Result<Vec<u8>, std::io::Error> {
    let client = u8::try_from(row.client.len())
        .map_err(|_| std::io::Error::other("the client's name is longer than 255 bytes"))?;
    let mut header = vec![ROW_VERSION];
    header.extend_from_slice(&row.id.tag);
    header.extend_from_slice(&row.queued_ms.to_be_bytes());
    header.extend_from_slice(&row.request.key);
    header.extend_from_slice(&row.request.fingerprint);
    header.push(client);
    header.extend_from_slice(row.client.as_bytes());
    Ok(header)
}

/// The row without its content, and where the header ends.
pub(crate) fn parse_row(place: u64, bytes: &[u8]) -> Option<(WaitingRow, usize)> {
    let (version, rest) = bytes.split_first()?;
    let (tag, rest) = rest.split_first_chunk::<8>()?;
    let (queued, rest) = rest.split_first_chunk::<8>()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (fingerprint, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (client, rest) = rest.split_at_checked(usize::from(*length))?;
    let row = WaitingRow {
        id: QueueId { place, tag: *tag },
        queued_ms: u64::from_be_bytes(*queued),
        client: std::str::from_utf8(client).ok()?.to_owned(),
        request: Request { key: *key, fingerprint: *fingerprint },
    };
    (*version == ROW_VERSION).then_some((row, bytes.len() - rest.len()))
}

fn associated(place: u64, header: &[u8]) -> Vec<u8> {
    [&place.to_be_bytes(), header].concat()
}

pub(crate) fn seal_row(
    row: &WaitingRow,
    order: &[u8],
) -> Result<(Zeroizing<[u8; 32]>, Vec<u8>), std::io::Error> {
    let (key, nonce) = (random::<32>()?, random::<NONCE_BYTES>()?);
    let mut bytes = row_header(row)?;
    let aad = associated(row.id.place, &bytes);
    let sealed = ChaCha20Poly1305::new(&Key::from(*key))
        .encrypt(&Nonce::from(*nonce), Payload { msg: order, aad: &aad })
        .map_err(|_| std::io::Error::other("the order is too long to encrypt"))?;
    bytes.extend_from_slice(nonce.as_slice());
    bytes.extend_from_slice(&sealed);
    Ok((key, bytes))
}

pub(crate) fn open_row(place: u64, key: &[u8; 32], bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (_, end) = parse_row(place, bytes)?;
    let (header, rest) = bytes.split_at_checked(end)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
    ChaCha20Poly1305::new(&Key::from(*key))
        .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: &associated(place, header) })
        .ok()
        .map(Zeroizing::new)
}

pub(crate) fn outcome_bytes(row: &WaitingRow, outcome: &QueueOutcome) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION];
    bytes.extend_from_slice(&row.id.tag);
    bytes.extend_from_slice(&row.queued_ms.to_be_bytes());
    // `row_header` bounded it when the row was taken.
    bytes.push(row.client.len() as u8);
    bytes.extend_from_slice(row.client.as_bytes());
    match outcome {
        QueueOutcome::Sealed { index } => {
            bytes.push(0);
            bytes.extend_from_slice(&index.to_be_bytes());
        }
        QueueOutcome::Refused { reason } => {
            bytes.push(1);
            bytes.extend_from_slice(reason.as_bytes());
        }
    }
    bytes
}

pub(crate) fn parse_outcome(bytes: &[u8]) -> Option<([u8; 8], QueueState)> {
    let (version, rest) = bytes.split_first()?;
    let (tag, rest) = rest.split_first_chunk::<8>()?;
    let (queued, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first()?;
    let (client, rest) = rest.split_at_checked(usize::from(*length))?;
    let (state, rest) = rest.split_first()?;
    let outcome = match state {
        0 => QueueOutcome::Sealed { index: u64::from_be_bytes(rest.try_into().ok()?) },
        1 => QueueOutcome::Refused { reason: std::str::from_utf8(rest).ok()?.to_owned() },
        _ => return None,
    };
    let client = std::str::from_utf8(client).ok()?.to_owned();
    let done = QueueState::Done { client, queued_ms: u64::from_be_bytes(*queued), outcome };
    (*version == ROW_VERSION).then_some((*tag, done))
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, std::io::Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(std::io::Error::other)?;
    Ok(bytes)
}
