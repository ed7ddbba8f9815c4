//! Search: finds seals by digest, document id, user, client and time, and who names a seal as its target.
//!
//! The index of `bulla_ledger` proposes, entries and openings decide: what is returned has been read from the log a
//! moment ago. A thread of low priority keeps the index near the end of the log; a query takes in what is missing,
//! for a bounded time.
//!
//! Refuses to do: answer from half an index; look at more than a bounded number of entries for one page; compare
//! values in any other way than byte by byte.
//! Invariants: a caller who may see only its own openings learns nothing from the document id or user of others; a
//! page and the pages after it hold each seal once, whatever is sealed meanwhile.

use super::{Command, LookupError, Sealer, Shared, erase, evidence};
use bulla_formats::body::seal::{DocumentDigest, Field, Opening, RelationKind, SealBody};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::Hash;
use bulla_ledger::{Indexed, ReadError, Reader, SearchIndex};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Entries looked at for one page; a page that ends here may be short and says where to go on.
const EXAMINED_MAX: usize = 16_384;
/// Candidates asked for at once.
const CHUNK: usize = 256;
/// Relations shown of one seal.
const RELATED_MAX: usize = 100;
/// How long a query that needs the index works on it before it asks for patience.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a look at one seal does.
const SHORT_PATIENCE: Duration = Duration::from_millis(50);
/// How often the thread looks for new entries.
const PERIOD: Duration = Duration::from_millis(500);
/// Pause after a fault, so that a full disk is not asked all the time.
const FAULT_PAUSE: Duration = Duration::from_secs(10);
/// Entries taken in between two looks at the stop flag.
const STEP: u64 = 2_048;

/// Field numbers of tags; private to the index file, whose tables carry their version.
const DOCUMENT_ID: u8 = 1;
const USER: u8 = 2;
const CLIENT: u8 = 3;
/// The value is the leaf hash of the related entry.
const RELATION: u8 = 4;
/// The value is the leaf hash of a seal whose openings the entry says are erased.
const ERASED: u8 = 5;

/// What is looked for; all of it must hold.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Digest of the document.
    pub digest: Option<DocumentDigest>,
    /// The institution's id of the document.
    pub document_id: Option<String>,
    /// The person at the scanner.
    pub user: Option<String>,
    /// The registered client that sent it.
    pub client: Option<String>,
    /// Local time of the seal in Unix milliseconds.
    pub times: Option<Range<u64>>,
    /// Only seals below this index.
    pub below: Option<u64>,
    /// Most seals to return.
    pub limit: usize,
}

/// Whose openings may be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer {
    /// Everybody's.
    All,
    /// Those of this client's own seals.
    Own(String),
}

impl Viewer {
    fn may_open(&self, client: &str) -> bool {
        match self {
            Viewer::All => true,
            Viewer::Own(name) => name == client,
        }
    }
}

/// A seal that names another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// What it is to the other one.
    pub kind: RelationKind,
    /// Its index.
    pub index: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
}

/// A seal that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its entry.
    pub entry: Entry,
    /// What it seals.
    pub body: SealBody,
    /// Its openings; empty when the viewer may not see them.
    pub openings: Vec<Opening>,
    /// Whether it committed to values and its openings are gone.
    pub erased: bool,
    /// Who names it; `None` while the index is too far behind to know.
    pub related_by: Option<Vec<Related>>,
}

/// One page, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The seals.
    pub seals: Vec<Found>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
    /// Entries that might have belonged here and cannot be read.
    pub unreadable: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The index is being built.
    #[error("{next} of {size} entries are in the search index")]
    Building {
        /// Entries that can be found.
        next: u64,
        /// Entries in the log.
        size: u64,
    },
    /// Reading failed.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// The index and what its thread is asked for.
pub struct Search {
    index: SearchIndex,
    wishes: (Mutex<Wishes>, Condvar),
}

#[derive(Default)]
struct Wishes {
    stop: bool,
    /// Entries whose openings are erased, and whose tags are to go.
    erase: Option<BTreeSet<u64>>,
}

impl Search {
    /// The index of the log; nothing is read yet.
    pub fn new(reader: Reader) -> Self {
        Search { index: SearchIndex::new(reader, Box::new(describe)), wishes: Default::default() }
    }

    /// Has the thread take what the openings of these entries, which are erased, were found by out of the index and its
    /// file. It says so with [`Command::TagsErased`].
    pub fn erase(&self, indexes: BTreeSet<u64>) {
        self.wishes().erase = Some(indexes);
        self.wishes.1.notify_all();
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.wishes().stop = true;
        self.wishes.1.notify_all();
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `pause` at most, or until there is something to erase; `None` when the thread is to end.
    fn next_wish(&self, pause: Duration) -> Option<Option<BTreeSet<u64>>> {
        let waits = |wishes: &mut Wishes| !wishes.stop && wishes.erase.is_none();
        let waited = self.wishes.1.wait_timeout_while(self.wishes(), pause, waits);
        let wishes = waited.unwrap_or_else(PoisonError::into_inner).0;
        (!wishes.stop).then(|| wishes.erase.clone())
    }

    /// Whether to stop; waits for `pause` at most.
    fn stopped_after(&self, pause: Duration) -> bool {
        let waited = self.wishes.1.wait_timeout_while(self.wishes(), pause, |wishes| !wishes.stop);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Takes the tags of `indexes` out and tells the writer. A fault is told too, and the wish stays.
    fn erase_now(&self, indexes: &BTreeSet<u64>, writer: &mpsc::Sender<Command>) {
        let done = match self.index.erase(indexes, &|| self.wishes().stop) {
            // Stopped: the next start goes on with it.
            Ok(false) => return,
            Ok(true) => {
                self.wishes().erase = None;
                Ok(())
            }
            Err(error) => {
                log::error!("search: the tags of erased openings are still there ({error}); trying again");
                Err(error.to_string())
            }
        };
        self.tell();
        let failed = done.is_err();
        // A writer that has ended needs no word: the promise is on the disk.
        let _ = writer.blocking_send(Command::TagsErased(done));
        if failed {
            self.stopped_after(FAULT_PAUSE);
        }
    }

    fn tell(&self) {
        if let Some(why) = self.index.take_notice() {
            log::warn!("the search index is built again: {why}");
        }
    }

    pub(super) fn catch_up(&self, target: u64, patience: Duration) -> Result<(), SearchError> {
        let begun = Instant::now();
        loop {
            let Indexed { next, size } = match self.index.advance(STEP) {
                Ok(indexed) => indexed,
                Err(error) => {
                    self.tell();
                    return Err(LookupError::from(error).into());
                }
            };
            if next >= target {
                return Ok(());
            }
            if begun.elapsed() > patience {
                return Err(SearchError::Building { next, size });
            }
        }
    }
}

/// The indexer's work until it is stopped.
pub fn run(shared: &Shared, writer: &mpsc::Sender<Command>) {
    if let Err(error) = rustix::process::nice(10) {
        log::debug!("the indexer keeps its priority: {error}");
    }
    let search = &shared.search;
    // What a damaged page lost would otherwise be missing in answers without a word.
    let mut pause = match search.index.check() {
        Ok(()) => Duration::ZERO,
        Err(error) => {
            log::warn!("search: {error}");
            Duration::ZERO
        }
    };
    while let Some(erase) = search.next_wish(pause) {
        if let Some(indexes) = erase {
            search.erase_now(&indexes, writer);
            continue;
        }
        let begun = Instant::now();
        pause = match search.index.advance(STEP) {
            Ok(Indexed { next, size }) if next >= size => filters_made(shared, begun),
            // Half of the time belongs to the others.
            Ok(_) => begun.elapsed(),
            Err(error) => {
                log::warn!("search: {error}; trying again");
                FAULT_PAUSE
            }
        };
        search.tell();
    }
    if let Err(error) = search.index.flush() {
        log::warn!("search: {error}; the newest entries are read again after the next start");
    }
}

/// With the index complete there is time for a filter of digests; the pause after it.
fn filters_made(shared: &Shared, begun: Instant) -> Duration {
    match shared.reader.make_digest_filter() {
        Ok(true) => begun.elapsed(),
        Ok(false) => PERIOD,
        Err(error) => {
            log::warn!("search: {error}; documents are looked for in the table of that segment");
            PERIOD
        }
    }
}

/// What an entry is found by. An entry that is no seal has only its time.
fn describe(bytes: &[u8], openings: Option<&[u8]>, enter: &mut dyn FnMut(u8, &[u8])) -> Option<u64> {
    let entry = Entry::decode(bytes).ok()?;
    let time = entry.content().time.unix_millis;
    if entry.kind() != Some(Kind::Seal) {
        erase::leaves_of(bytes).unwrap_or_default().iter().for_each(|leaf| enter(ERASED, &leaf.0));
        return Some(time);
    }
    let Ok(body) = SealBody::decode(&entry.content().body) else { return Some(time) };
    enter(CLIENT, body.client.id.as_bytes());
    body.related().for_each(|(_, leaf)| enter(RELATION, &leaf.0));
    for opening in openings.and_then(evidence::unpack_openings).unwrap_or_default() {
        let Ok(opening) = Opening::decode(opening) else { continue };
        match opening.field {
            Field::DocumentId => enter(DOCUMENT_ID, opening.value.as_bytes()),
            Field::User => enter(USER, opening.value.as_bytes()),
            Field::Metadata => {}
        }
    }
    Some(time)
}

impl Sealer {
    /// One page of the seals that match `query`, as far as `viewer` may know of them. A viewer with rights to its own
    /// openings only finds its own seals, and by digest all of that digest.
    pub fn search(&self, query: &Query, viewer: &Viewer) -> Result<Page, SearchError> {
        let (shared, size) = (&self.shared, self.shared.reader.size());
        let mut below = query.below.unwrap_or(size).min(size);
        let Some(driver) = Driver::of(query) else { return Ok(Page::default()) };
        if driver.needs_index() {
            shared.search.catch_up(below, PATIENCE)?;
        }
        let mut page = Page::default();
        let mut examined = 0;
        'candidates: loop {
            let (candidates, on) = driver.candidates(shared, below)?;
            for index in candidates {
                if page.seals.len() >= query.limit || examined >= EXAMINED_MAX {
                    page.next = Some(index + 1);
                    break 'candidates;
                }
                examined += 1;
                match judge(shared, query, viewer, index) {
                    Ok(found) => page.seals.extend(found),
                    Err(ReadError::Damaged(damage)) => {
                        log::warn!("search: {damage}");
                        page.unreadable += 1;
                    }
                    Err(error) => return Err(LookupError::from(error).into()),
                }
            }
            match on {
                Some(on) => below = on,
                None => break,
            }
        }
        for found in &mut page.seals {
            found.related_by = related_by(shared, found.entry.leaf_hash());
            if found.related_by.is_none() {
                break;
            }
        }
        Ok(page)
    }

    /// The seals that name the entry with this leaf hash, oldest first and at most 100; `None` while the index is too
    /// far behind to know.
    pub fn related_by(&self, leaf_hash: Hash) -> Option<Vec<Related>> {
        related_by(&self.shared, leaf_hash)
    }
}

fn related_by(shared: &Shared, leaf_hash: Hash) -> Option<Vec<Related>> {
    shared.search.catch_up(shared.reader.size(), SHORT_PATIENCE).ok()?;
    let indexes = shared.search.index.find(RELATION, &leaf_hash.0, u64::MAX, RELATED_MAX);
    shared.search.tell();
    let indexes = indexes.ok()?;
    let mut related = Vec::new();
    for index in indexes.into_iter().rev() {
        let Ok(entry) = shared.entry(index) else { continue };
        let Some(body) = seal_body(&entry) else { continue };
        let kinds = body.related().filter(|(_, leaf)| *leaf == leaf_hash).map(|(kind, _)| kind);
        let of = entry.leaf_hash();
        related.extend(kinds.map(|kind| Related { kind, index, leaf_hash: of }));
    }
    Some(related)
}

/// The entry that records that the openings of the seal with this leaf hash are erased, as far as is known.
pub(super) fn erased_by(shared: &Shared, leaf_hash: Hash) -> Option<u64> {
    shared.search.catch_up(shared.reader.size(), SHORT_PATIENCE).ok()?;
    let found = shared.search.index.find(ERASED, &leaf_hash.0, u64::MAX, 1);
    shared.search.tell();
    let index = *found.ok()?.first()?;
    erase::leaves_of(&shared.reader.entry(index).ok()?)?.contains(&leaf_hash).then_some(index)
}

pub(super) fn seal_body(entry: &Entry) -> Option<SealBody> {
    (entry.kind() == Some(Kind::Seal)).then(|| SealBody::decode(&entry.content().body).ok()).flatten()
}

/// The filter that proposes candidates: the one that usually has the fewest.
enum Driver<'a> {
    Digest(&'a DocumentDigest),
    Value(u8, &'a str),
    Times(Range<u64>),
    Everything,
}

/// Candidates, newest first, and below which index the next ones are; `None` when there are no more.
type Candidates = (Vec<u64>, Option<u64>);

impl<'a> Driver<'a> {
    /// `None` when nothing can match.
    fn of(query: &'a Query) -> Option<Self> {
        Some(if let Some(digest) = &query.digest {
            Driver::Digest(digest)
        } else if let Some(id) = &query.document_id {
            Driver::Value(DOCUMENT_ID, id)
        } else if let Some(user) = &query.user {
            Driver::Value(USER, user)
        } else if let Some(times) = &query.times {
            if times.is_empty() {
                return None;
            }
            Driver::Times(times.clone())
        } else if let Some(client) = &query.client {
            Driver::Value(CLIENT, client)
        } else {
            Driver::Everything
        })
    }

    fn needs_index(&self) -> bool {
        matches!(self, Driver::Value(..) | Driver::Times(_))
    }

    fn candidates(&self, shared: &Shared, below: u64) -> Result<Candidates, SearchError> {
        let index = &shared.search.index;
        let full = |found: Vec<u64>| {
            let on = found.last().copied().filter(|_| found.len() >= CHUNK);
            (found, on)
        };
        let candidates = match self {
            Driver::Digest(digest) => {
                let algorithm = digest.algorithm as u8;
                shared.reader.find_digest_below(algorithm, &digest.value, below, CHUNK).map(full)
            }
            Driver::Value(field, value) => index.find(*field, value.as_bytes(), below, CHUNK).map(full),
            Driver::Times(times) => index.stretches(times.clone(), below, 1).map(|stretches| {
                let on = stretches.last().map(|stretch| stretch.start);
                (stretches.into_iter().flat_map(|stretch| stretch.rev()).collect(), on)
            }),
            Driver::Everything => {
                let on = below.saturating_sub(CHUNK as u64);
                Ok(((on..below).rev().collect(), Some(on).filter(|on| *on > 0)))
            }
        };
        candidates.map_err(|error| {
            shared.search.tell();
            LookupError::from(error).into()
        })
    }
}

/// The seal at `index`, if it is one that matches and that the viewer may find.
fn judge(shared: &Shared, query: &Query, viewer: &Viewer, index: u64) -> Result<Option<Found>, ReadError> {
    let Ok(entry) = Entry::decode(&shared.reader.entry(index)?) else { return Ok(None) };
    let Some(body) = seal_body(&entry) else { return Ok(None) };
    let may_open = viewer.may_open(&body.client.id);
    let by_value = query.document_id.is_some() || query.user.is_some();
    let visible = may_open || (query.digest.is_some() && !by_value);
    let digest = |digest: &DocumentDigest| {
        digest.algorithm == body.algorithm && digest.value.as_slice() == body.digest.as_ref()
    };
    let time = entry.content().time.unix_millis;
    let matches = query.digest.as_ref().is_none_or(digest)
        && query.client.as_ref().is_none_or(|client| *client == body.client.id)
        && query.times.as_ref().is_none_or(|times| times.contains(&time));
    if !visible || !matches {
        return Ok(None);
    }
    let mut openings = Vec::new();
    let packed = shared.reader.openings(index)?;
    let erased = packed.is_none() && !body.commitments.is_empty();
    if let Some(packed) = packed.filter(|_| may_open) {
        let unpacked = evidence::unpack_openings(&packed).unwrap_or_default();
        openings = unpacked.into_iter().filter_map(|opening| Opening::decode(opening).ok()).collect();
    }
    let has = |field: Field, value: &Option<String>| {
        value.as_ref().is_none_or(|value| openings.iter().any(|o| o.field == field && o.value == *value))
    };
    if !has(Field::DocumentId, &query.document_id) || !has(Field::User, &query.user) {
        return Ok(None);
    }
    Ok(Some(Found { entry, body, openings, erased, related_by: None }))
}
