//! Erasure: destroys the openings of seals, and says in the log that it has.
//!
//! The order, and what a crash after each step leaves:
//! 1. the intent (seals, reason, size of the log) durable in the control store: from here on it is promised;
//! 2. ciphertexts and keys gone from the openings, on the writer thread: what takes as long for a large log as for a
//!    small one;
//! 3. their tags gone from the search index, whose file is written anew on the thread of the index, while seals go on;
//! 4. `operator-action` entries durable in the log: they say "erased" only after it is so;
//! 5. the intent removed, and answered.
//!
//! A crash before 1 erases nothing and has promised nothing. After 1, 2 or 3 the next start does 2 again and has 3 done
//! again beside its first seals, which changes nothing that is done, and records it then. After 4 the next start finds
//! the entries and does 5. From 2 on nobody is shown what is erased, nor finds it: a tag is a hint, the openings decide.
//!
//! Refuses to do: name what was erased, or for whom; begin a second erasure while one is not recorded.
//! Invariant: an intent holds indexes, leaf hashes and the operator's words, never a value that was searched for.

use super::search::PATIENCE;
use super::writer::{Work, Writer};
use super::{LookupError, Query, SealError, Sealer, SearchError, Shared, Viewer};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::erasure::{LEAVES_MAX, erase_body, erased_leaves};
use bulla_formats::hash::Hash;
use std::collections::BTreeSet;
use tokio::sync::oneshot;

/// Name of the intent in the control store; an empty value is none.
const INTENT: &str = "erasure";
const INTENT_VERSION: u8 = 1;
/// Most seals in one erasure.
pub const ERASE_MAX: usize = 10_000;

/// What is to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Index and leaf hash of each seal.
    pub seals: Vec<(u64, Hash)>,
    /// Who and why, for the log; without personal data.
    pub reason: String,
}

/// An erasure that has been promised and is not recorded yet.
pub struct Pending {
    order: Order,
    /// Entries in the log when it was promised.
    size: u64,
    stage: Stage,
    /// Gets the indexes of the entries.
    reply: Option<ErasureReply>,
}

/// Gets the indexes of the entries that record an erasure.
pub type ErasureReply = oneshot::Sender<Result<Vec<u64>, EraseError>>;

/// What is still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Steps 2 to 5.
    Keys,
    /// Steps 3 to 5; the thread of the search index is at it.
    Tags,
    /// Steps 4 and 5.
    Record,
}

impl Pending {
    /// The bodies of its entries, once there is something to record.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        if self.stage != Stage::Record {
            return Vec::new();
        }
        let leaves: Vec<Hash> = self.order.seals.iter().map(|(_, leaf)| *leaf).collect();
        let body =
            |leaves: &[Hash]| bulla_formats::der::encode(&erase_body(leaves, self.order.reason.clone()));
        leaves.chunks(LEAVES_MAX).map(body).collect()
    }

    /// As the control store keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![INTENT_VERSION];
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&(self.order.reason.len() as u32).to_be_bytes());
        bytes.extend_from_slice(self.order.reason.as_bytes());
        for (index, leaf) in &self.order.seals {
            bytes.extend_from_slice(&index.to_be_bytes());
            bytes.extend_from_slice(&leaf.0);
        }
        bytes
    }

    /// What the control store keeps.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (reason, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let reason = std::str::from_utf8(reason).ok()?.to_owned();
        let (rows, tail) = rest.as_chunks::<40>();
        let seals = rows.iter().map(|row| {
            let (index, leaf) = row.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*index), Hash(leaf.try_into().ok()?)))
        });
        let seals = seals.collect::<Option<Vec<_>>>()?;
        let whole = *version == INTENT_VERSION && tail.is_empty();
        let size = u64::from_be_bytes(*size);
        whole.then_some(Pending { order: Order { seals, reason }, size, stage: Stage::Keys, reply: None })
    }
}

impl Writer {
    /// Begins an erasure, steps 1 and 2; the answer comes when it is recorded.
    pub fn erase(&mut self, order: Order, reply: ErasureReply) {
        if let Err(error) = self.begin_erasure(order) {
            return drop(reply.send(Err(error)));
        }
        if let Some(pending) = &mut self.erasure {
            pending.reply = Some(reply);
        }
    }

    fn begin_erasure(&mut self, order: Order) -> Result<(), EraseError> {
        let failed = |reason: String| EraseError::Seal(SealError::Failed { reason });
        self.destroy_keys().map_err(failed)?;
        if self.erasure.as_ref().is_some_and(|pending| pending.stage == Stage::Record) {
            self.commit(Work::default(), false);
        }
        if self.erasure.is_some() {
            return Err(EraseError::Running);
        }
        let pending = Pending { order, size: self.ledger.size(), stage: Stage::Keys, reply: None };
        let stored = self.ledger.control().put(INTENT, &pending.encode());
        stored.map_err(|error| failed(format!("nothing was erased: {error}")))?;
        self.erasure = Some(pending);
        self.destroy_keys().map_err(|reason| failed(promised(&reason)))
    }

    /// Step 2; step 3 is the indexer's from there on.
    fn destroy_keys(&mut self) -> Result<(), String> {
        let Some(pending) = self.erasure.as_mut().filter(|pending| pending.stage == Stage::Keys) else {
            return Ok(());
        };
        let indexes: BTreeSet<u64> = pending.order.seals.iter().map(|(index, _)| *index).collect();
        let listed: Vec<u64> = indexes.iter().copied().collect();
        self.ledger.erase_openings(&listed).map_err(|error| error.to_string())?;
        pending.stage = Stage::Tags;
        self.shared.search.erase(indexes);
        Ok(())
    }

    /// The indexer has done step 3, or could not and goes on trying.
    pub(super) fn tags_erased(&mut self, done: Result<(), String>) {
        let Some(pending) = self.erasure.as_mut().filter(|pending| pending.stage == Stage::Tags) else {
            return;
        };
        let unfinished = match done {
            Ok(()) => {
                pending.stage = Stage::Record;
                if self.ready_again().is_ok() {
                    self.commit(Work::default(), false);
                }
                // Not recorded: promised all the same, and the next batch records it.
                "the openings are destroyed, but the log could not record it yet; it will with the next seal"
                    .to_owned()
            }
            Err(reason) => promised(&reason),
        };
        if let Some(reply) = self.erasure.as_mut().and_then(|pending| pending.reply.take()) {
            drop(reply.send(Err(EraseError::Seal(SealError::Failed { reason: unfinished }))));
        }
    }

    /// Step 5, after the batch that recorded the erasure is durable. `entries`: their indexes.
    pub(super) fn erasure_recorded(&mut self, entries: Vec<u64>) {
        let Some(pending) = self.erasure.take_if(|pending| pending.stage == Stage::Record) else { return };
        self.clear_intent();
        log::info!("the openings of {} seal(s) were erased, entries {entries:?}", pending.order.seals.len());
        if let Some(reply) = pending.reply {
            drop(reply.send(Ok(entries)));
        }
    }

    fn clear_intent(&self) {
        // Left in place it is found to be recorded at the next start.
        if let Err(error) = self.ledger.control().put(INTENT, &[]) {
            log::warn!("the record of a finished erasure could not be cleared: {error}");
        }
    }

    /// Goes on with what the last run promised; called once, before the first batch. What is left to do then is done
    /// beside the seals of this run.
    pub fn resume_erasure(&mut self) -> anyhow::Result<()> {
        let Some(bytes) = self.ledger.control().get(INTENT)?.filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        let pending = Pending::decode(&bytes).ok_or_else(|| {
            anyhow::anyhow!(
                "the promise of an erasure in control.redb is not understood; was it made by a newer version?"
            )
        })?;
        if is_recorded(&self.shared, &pending) {
            self.clear_intent();
            return Ok(());
        }
        log::warn!("an erasure of {} seal(s) was promised and is finished now", pending.order.seals.len());
        self.erasure = Some(pending);
        self.destroy_keys()
            .map_err(|reason| anyhow::anyhow!("a promised erasure cannot be finished: {reason}"))
    }
}

fn promised(reason: &str) -> String {
    format!("the erasure is promised and will be finished, at the latest after the next start ({reason})")
}

/// Whether the log says that all of it is erased.
fn is_recorded(shared: &Shared, pending: &Pending) -> bool {
    let mut recorded = BTreeSet::new();
    // All that came after the promise: seals have gone on meanwhile.
    for row in shared.reader.entries(pending.size..shared.reader.size()) {
        let Ok((_, bytes)) = row else { break };
        recorded.extend(leaves_of(&bytes).unwrap_or_default().into_iter().map(|leaf| leaf.0));
    }
    pending.order.seals.iter().all(|(_, leaf)| recorded.contains(&leaf.0))
}

/// The leaves that an entry says are erased.
pub(super) fn leaves_of(bytes: &[u8]) -> Option<Vec<Hash>> {
    let entry = Entry::decode(bytes).ok().filter(|entry| entry.kind() == Some(Kind::OperatorAction))?;
    erased_leaves(&OperatorActionBody::decode(&entry.content().body).ok()?)
}

/// Whether a seal's openings are gone although it committed to something.
pub(super) fn is_open(shared: &Shared, index: u64) -> Result<bool, LookupError> {
    match shared.reader.openings(index) {
        Ok(openings) => Ok(openings.is_some()),
        // What does not decrypt is there all the same, and can be destroyed.
        Err(bulla_ledger::ReadError::Damaged(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Which seals an erasure is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All with exactly this document id.
    DocumentId(String),
    /// All with exactly this user.
    User(String),
    /// These ids.
    Seals(Vec<String>),
}

impl Selection {
    /// The personal value that selects, which may stand nowhere else.
    pub fn value(&self) -> Option<&str> {
        match self {
            Selection::DocumentId(value) | Selection::User(value) => Some(value),
            Selection::Seals(_) => None,
        }
    }
}

/// What an erasure did, or would do.
#[derive(Debug, Clone, Default)]
pub struct Erased {
    /// Seals whose openings are destroyed.
    pub erased: Vec<(u64, Hash)>,
    /// Seals whose openings had been destroyed before.
    pub already: Vec<(u64, Hash)>,
    /// Seals that never had openings.
    pub without: Vec<(u64, Hash)>,
    /// Entries that record it; none when nothing was left to erase, or in a dry run.
    pub entries: Vec<u64>,
    /// Whether more seals match: ask again.
    pub more: bool,
}

/// Why nothing, or not everything, was erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// An id is not of a seal of this log.
    #[error("one of the ids is no seal of this log")]
    Unknown,
    /// The seals could not be found.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// An earlier one is being carried out.
    #[error(
        "an earlier erasure is being carried out; nothing was erased for this one, ask again when it is recorded"
    )]
    Running,
    /// The box stops; what was begun is finished after its next start.
    #[error("the box is stopping; an erasure that it has begun is finished after its next start")]
    Stopping,
    /// It could not be carried out or recorded.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<LookupError> for EraseError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Unknown | LookupError::NotASeal => EraseError::Unknown,
            error @ LookupError::Storage(_) => EraseError::Search(error.into()),
        }
    }
}

impl Sealer {
    /// Destroys the openings of the selected seals and records it; `dry_run` only says which. Seals made after the
    /// call began are not part of it.
    pub async fn erase(
        &self,
        selection: Selection,
        reason: String,
        dry_run: bool,
    ) -> Result<Erased, EraseError> {
        let stopped = || EraseError::Stopping;
        let sealer = self.clone();
        let select = tokio::task::spawn_blocking(move || select(&sealer, &selection));
        let mut done = select.await.map_err(|_| stopped())??;
        if dry_run || done.erased.is_empty() {
            return Ok(done);
        }
        self.shared.may_seal()?;
        let (reply, answer) = oneshot::channel();
        let order = Order { seals: done.erased.clone(), reason };
        self.queue.send(super::Command::Erase(order, reply)).await.map_err(|_| stopped())?;
        done.entries = answer.await.map_err(|_| stopped())??;
        Ok(done)
    }
}

fn select(sealer: &Sealer, selection: &Selection) -> Result<Erased, EraseError> {
    let shared = &sealer.shared;
    let (indexes, more) = match selection {
        Selection::Seals(ids) => {
            shared.search.catch_up(shared.reader.size(), PATIENCE)?;
            let indexes = ids
                .iter()
                .map(|id| Ok(sealer.resolve(id)?.0))
                .collect::<Result<BTreeSet<_>, LookupError>>()?;
            (indexes, false)
        }
        Selection::DocumentId(id) => {
            matching(sealer, Query { document_id: Some(id.clone()), ..Query::default() })?
        }
        Selection::User(user) => matching(sealer, Query { user: Some(user.clone()), ..Query::default() })?,
    };
    let mut found = Erased { more, ..Erased::default() };
    for index in indexes {
        let entry = shared.entry(index)?;
        let leaf = entry.leaf_hash();
        let Some(body) = super::search::seal_body(&entry) else { return Err(EraseError::Unknown) };
        let list = if body.commitments.is_empty() {
            &mut found.without
        } else if is_open(shared, index)? || super::search::erased_by(shared, leaf).is_none() {
            &mut found.erased
        } else {
            &mut found.already
        };
        list.push((index, leaf));
    }
    Ok(found)
}

/// Indexes of the seals that match, and whether there are more than fit one erasure.
fn matching(sealer: &Sealer, query: Query) -> Result<(BTreeSet<u64>, bool), EraseError> {
    let (mut indexes, mut below) = (BTreeSet::new(), None);
    loop {
        let page = sealer
            .search(&Query { below, limit: ERASE_MAX - indexes.len(), ..query.clone() }, &Viewer::All)?;
        if page.unreadable > 0 {
            let what = format!("{} entries that may match cannot be read; run fsck", page.unreadable);
            return Err(LookupError::Storage(what).into());
        }
        indexes.extend(page.seals.iter().map(|seal| seal.entry.content().index));
        below = page.next;
        if below.is_none() || indexes.len() >= ERASE_MAX {
            return Ok((indexes, below.is_some()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_survives_its_encoding_and_nothing_else_is_one() {
        let seals = vec![(7, Hash([1; 32])), (u64::MAX, Hash([0xff; 32]))];
        let order = Order { seals, reason: "operator-1: request 12/2026 \u{fc}".to_owned() };
        let pending = Pending { order: order.clone(), size: 99, stage: Stage::Record, reply: None };
        let bytes = pending.encode();
        let read = Pending::decode(&bytes).unwrap();
        assert_eq!((read.order, read.size, read.stage), (order, 99, Stage::Keys));
        for cut in 0..bytes.len() {
            let read = Pending::decode(&bytes[..cut]).map(|read| read.order.seals.len());
            // Cut between two rows it is a shorter list; the control store keeps rows whole.
            assert!(read.is_none() || read.is_some_and(|rows| rows < 2), "{cut}");
        }
        assert!(Pending::decode(&[&[2], &bytes[1..]].concat()).is_none());
    }

    #[test]
    fn one_entry_names_at_most_32_seals() {
        let seals = (0..70).map(|index| (index, Hash([index as u8; 32]))).collect();
        let order = Order { seals, reason: "x".to_owned() };
        let mut pending = Pending { order, size: 0, stage: Stage::Keys, reply: None };
        assert!(pending.bodies().is_empty(), "nothing is recorded before it is true");
        pending.stage = Stage::Tags;
        assert!(pending.bodies().is_empty(), "tags may be there still");
        pending.stage = Stage::Record;
        let leaves: Vec<usize> = pending
            .bodies()
            .iter()
            .map(|body| erased_leaves(&OperatorActionBody::decode(body).unwrap()).unwrap().len())
            .collect();
        assert_eq!(leaves, [32, 32, 6]);
    }
}
