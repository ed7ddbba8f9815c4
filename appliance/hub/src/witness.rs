//! The hub as a witness (c2sp.org/tlog-witness): what it has cosigned, and the entries of its own log that follow from that.
//!
//! `<state_dir>/witness.redb`. `heads-1`: origin -> JSON of [`Cosigned`]. `outbox-1`: index u64 -> an entry of the hub's own
//! log that has its place and may not be in it yet. `archived-1`: origin -> SHA-256 of the text of the archived head that
//! was entered last. `meta-1`: name -> u64.
//!
//! Order: the request is judged -> head and outbox are durable, in one transaction -> the cosignature is answered. So no
//! crash makes the witness forget what it said, and no head is cosigned that does not come into the hub's own log.
//! Refuses to do: cosign for a log that the hub has not archived the beginning of; cosign what contradicts what it
//! cosigned or archived; use keys whose memory is gone.
//! Invariant: of one log, cosigned trees extend one another.

use crate::exit::Failure;
use crate::hub::now_millis;
use crate::keys::HubKeys;
use crate::published::{APPEND_MAX, Published};
use bulla_formats::enrolment::VerifiedEnrolment;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::hub_log::{HubEntry, HubKind, QueriesHead};
use bulla_formats::merkle::{Frontier, verify_consistency};
use bulla_formats::note::{Checkpoint, SignedNote};
use bulla_formats::witness::add_checkpoint::Submission;
use bulla_formats::witness::cosigned;
use ed25519_dalek::Signer as _;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

const HEADS: TableDefinition<&str, &[u8]> = TableDefinition::new("heads-1");
const OUTBOX: TableDefinition<u64, &[u8]> = TableDefinition::new("outbox-1");
const ARCHIVED: TableDefinition<&str, [u8; 32]> = TableDefinition::new("archived-1");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta-1");
/// In `meta-1`: index of the next entry of the hub's own log.
const NEXT: &str = "next";
/// In `meta-1`: queries that the hub's own log told of last.
const QUERIES: &str = "queries";
/// Name of the memory in the state directory.
pub const FILE: &str = "witness.redb";
/// Name of the directory of the hub's own log in the state directory.
pub const PUBLISHED: &str = "published";

/// What was cosigned last of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cosigned {
    /// Size of the tree.
    pub size: u64,
    /// Its root, hex.
    pub root: String,
    /// The checkpoint with the lines of the log's own keys and the hub's.
    pub note: String,
}

/// A log that is cosigned.
pub struct KnownLog {
    /// Who it is.
    pub enrolment: VerifiedEnrolment,
    /// Its archived head: size and root.
    pub archived: (u64, Hash),
}

/// Why nothing was cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 400, and why.
    Malformed(&'static str),
    /// 403.
    NotSigned,
    /// 404.
    UnknownLog,
    /// 409: this size was cosigned last.
    Size(u64),
    /// 422; whether the log's key has signed two trees of one size.
    Inconsistent(bool),
    /// The memory cannot be read or written: nothing was said.
    Memory(String),
}

/// The witness.
pub struct Witness {
    keys: HubKeys,
    /// Check and change are one; the transaction of the database alone would let two readers pass at once.
    memory: Mutex<Database>,
    logs: RwLock<BTreeMap<String, KnownLog>>,
    published: Mutex<Published>,
    directory: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn trouble(error: impl Into<redb::Error>) -> Refusal {
    Refusal::Memory(error.into().to_string())
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    let path = path.display();
    Failure::usage(format!(
        "the witness's memory {path} cannot be used ({reason}); see docs/operating.md, A hub"
    ))
}

impl Witness {
    /// Takes up keys and memory in `state_dir`; makes both when neither is there.
    pub fn open(state_dir: &Path, name: &str) -> Result<Self, Failure> {
        let path = state_dir.join(FILE);
        let keys = match (HubKeys::open(state_dir, name)?, path.exists()) {
            (Some(keys), true) => keys,
            (Some(_), false) => {
                let words = "it is gone, and nobody knows what the keys of hub-keys.json have said: bring it back, or move \
                     hub-keys.json and published/ away and hand out the new keys";
                return Err(broken(&path, &words));
            }
            (None, true) => {
                return Err(broken(
                    &path,
                    &"its keys, hub-keys.json, are gone: bring them back, or move it away, too",
                ));
            }
            // The memory first: a death in between leaves an empty one, and no keys that could have said anything.
            (None, false) => {
                memory(&path)?;
                HubKeys::create(state_dir, name)?
            }
        };
        let memory = memory(&path)?;
        let directory = state_dir.join(PUBLISHED);
        let published = Published::open(&directory, &keys.log_origin, &keys.log)?;
        let witness = Witness {
            keys,
            memory: Mutex::new(memory),
            logs: RwLock::default(),
            published: Mutex::new(published),
            directory,
        };
        let (first, next) = witness.places().map_err(|error| broken(&path, &format!("{error:?}")))?;
        let size = lock(&witness.published).size();
        if size > next {
            return Err(broken(
                &path,
                &"it is older than the hub's own log: this is a copy; bring back the newest",
            ));
        }
        if size < first {
            let words =
                format!("the hub's own log, published/, has {size} entries and had {first}: bring it back");
            return Err(broken(&path, &words));
        }
        Ok(witness)
    }

    /// The keys.
    pub fn keys(&self) -> &HubKeys {
        &self.keys
    }

    /// Where the hub's own log lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the entries of the hub's own log that may not be in it yet begin and end.
    fn places(&self) -> Result<(u64, u64), Refusal> {
        let read = lock(&self.memory).begin_read().map_err(trouble)?;
        let meta = read.open_table(META).map_err(trouble)?;
        let next = meta.get(NEXT).map_err(trouble)?.map_or(0, |next| next.value());
        let outbox = read.open_table(OUTBOX).map_err(trouble)?;
        let first = outbox.first().map_err(trouble)?.map_or(next, |(index, _)| index.value());
        Ok((first, next))
    }

    /// From now on these logs are cosigned, and no others.
    pub fn know(&self, logs: BTreeMap<String, KnownLog>) {
        *self.logs.write().unwrap_or_else(PoisonError::into_inner) = logs;
    }

    /// What was cosigned last of the log named `origin`.
    pub fn cosigned(&self, origin: &str) -> Result<Option<Cosigned>, Refusal> {
        let read = lock(&self.memory).begin_read().map_err(trouble)?;
        let heads = read.open_table(HEADS).map_err(trouble)?;
        let row = heads.get(origin).map_err(trouble)?;
        row.map(|row| parse(row.value())).transpose()
    }

    /// The same, of the log of whose name this is the SHA-256 in hex.
    pub fn cosigned_by_hash(&self, hash: &str) -> Result<Option<Cosigned>, Refusal> {
        let read = lock(&self.memory).begin_read().map_err(trouble)?;
        let heads = read.open_table(HEADS).map_err(trouble)?;
        for row in heads.iter().map_err(trouble)? {
            let (origin, value) = row.map_err(trouble)?;
            if sha256(&[origin.value().as_bytes()]).to_string() == hash {
                return parse(value.value()).map(Some);
            }
        }
        Ok(None)
    }

    /// Judges a request and, when it is good, cosigns: the line to answer with, which is durable here by then.
    pub fn add_checkpoint(&self, body: &[u8]) -> Result<String, Refusal> {
        let said = Submission::parse(body).map_err(Refusal::Malformed)?;
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        let log = logs.get(&said.origin).ok_or(Refusal::UnknownLog)?;
        let content = log.enrolment.content();
        let (key, origin) = (log.enrolment.log_key(), log.enrolment.origin());
        Checkpoint::open(&said.note, origin, key, &content.log_key, &content.attestation_key)
            .map_err(|_| Refusal::NotSigned)?;
        if log.archived.0 == said.size && log.archived.1 != said.root {
            return Err(Refusal::Inconsistent(true));
        }
        let memory = lock(&self.memory);
        let write = begin(&memory)?;
        let line = {
            let mut heads = write.open_table(HEADS).map_err(trouble)?;
            let known = heads
                .get(said.origin.as_str())
                .map_err(trouble)?
                .map(|row| parse(row.value()))
                .transpose()?;
            let known = match known {
                None => (0, Frontier::new().root()),
                Some(known) => (known.size, root_of(&known)?),
            };
            if said.old != known.0 {
                return Err(Refusal::Size(known.0));
            }
            consistent(&said, known)?;
            let seconds = now_millis() / 1_000;
            let signature = self.keys.witness.sign(&cosigned(&said.note.text, seconds)).to_bytes();
            let line = self.keys.witness_key.line(seconds, &signature);
            let note = HubEntry::own_lines(&said.note, std::slice::from_ref(&line));
            let row = Cosigned { size: said.size, root: hex::encode(said.root.0), note: note.encode() };
            let row = serde_json::to_vec(&row).map_err(|error| Refusal::Memory(error.to_string()))?;
            heads.insert(said.origin.as_str(), row.as_slice()).map_err(trouble)?;
            // Cosigned once more, later: the hub's log has it already.
            if said.size != known.0 {
                enqueue(&write, &HubEntry::head(HubKind::Cosigned, now_millis(), &note))?;
            }
            line
        };
        write.commit().map_err(trouble)?;
        let answer = SignedNote { text: String::new(), lines: vec![line] }.encode();
        Ok(answer.trim_start_matches('\n').to_owned())
    }

    /// Enters the archived head of a log, when it is not the one that was entered last.
    pub fn archived(&self, origin: &str, note: &SignedNote) -> Result<(), Refusal> {
        let memory = lock(&self.memory);
        let write = begin(&memory)?;
        let text = sha256(&[note.text.as_bytes()]).0;
        {
            let mut archived = write.open_table(ARCHIVED).map_err(trouble)?;
            if archived.get(origin).map_err(trouble)?.is_some_and(|known| known.value() == text) {
                return Ok(());
            }
            archived.insert(origin, text).map_err(trouble)?;
            enqueue(
                &write,
                &HubEntry::head(HubKind::Archived, now_millis(), &HubEntry::own_lines(note, &[])),
            )?;
        }
        write.commit().map_err(trouble)
    }

    /// Enters how far the list of queries is, when it has grown.
    pub fn queries(&self, head: &QueriesHead) -> Result<(), Refusal> {
        let memory = lock(&self.memory);
        let write = begin(&memory)?;
        {
            let mut meta = write.open_table(META).map_err(trouble)?;
            if meta.get(QUERIES).map_err(trouble)?.is_some_and(|known| known.value() >= head.count) {
                return Ok(());
            }
            meta.insert(QUERIES, head.count).map_err(trouble)?;
            drop(meta);
            enqueue(&write, &HubEntry::queries(now_millis(), head))?;
        }
        write.commit().map_err(trouble)
    }

    /// Brings what is in the outbox into the hub's own log; returns how many entries that log has.
    pub fn publish(&self) -> Result<u64, Failure> {
        let path = self.directory.with_file_name(FILE);
        let wrong = |error: Refusal| broken(&path, &format!("{error:?}"));
        let mut published = lock(&self.published);
        loop {
            let waiting = self.outbox(published.size()).map_err(wrong)?;
            if waiting.is_empty() {
                return Ok(published.size());
            }
            if let Err(failure) = published.append(&waiting) {
                *published = Published::open(&self.directory, &self.keys.log_origin, &self.keys.log)?;
                return Err(failure);
            }
            self.clear(published.size()).map_err(wrong)?;
        }
    }

    fn outbox(&self, from: u64) -> Result<Vec<Vec<u8>>, Refusal> {
        let read = lock(&self.memory).begin_read().map_err(trouble)?;
        let outbox = read.open_table(OUTBOX).map_err(trouble)?;
        let (mut waiting, mut next) = (Vec::new(), from);
        for row in outbox.range(from..).map_err(trouble)?.take(APPEND_MAX) {
            let (index, entry) = row.map_err(trouble)?;
            if index.value() != next {
                return Err(Refusal::Memory(format!("entry {next} of the hub's own log is missing")));
            }
            waiting.push(entry.value().to_vec());
            next += 1;
        }
        Ok(waiting)
    }

    fn clear(&self, below: u64) -> Result<(), Refusal> {
        let memory = lock(&self.memory);
        let write = begin(&memory)?;
        write.open_table(OUTBOX).map_err(trouble)?.retain_in(..below, |_, _| false).map_err(trouble)?;
        write.commit().map_err(trouble)
    }
}

fn memory(path: &Path) -> Result<Database, Failure> {
    let database = Database::create(path).map_err(|error| broken(path, &error))?;
    let made = (|| {
        let write = begin(&database)?;
        write.open_table(HEADS).map_err(trouble)?;
        write.open_table(OUTBOX).map_err(trouble)?;
        write.open_table(ARCHIVED).map_err(trouble)?;
        write.open_table(META).map_err(trouble)?;
        write.commit().map_err(trouble)
    })();
    made.map_err(|error: Refusal| broken(path, &format!("{error:?}")))?;
    Ok(database)
}

fn begin(memory: &Database) -> Result<WriteTransaction, Refusal> {
    let mut write = memory.begin_write().map_err(trouble)?;
    // Boxes shape what is written: see the ledger's choice.
    write.set_two_phase_commit(true);
    Ok(write)
}

/// Gives an entry its place in the hub's own log.
fn enqueue(write: &WriteTransaction, entry: &HubEntry) -> Result<(), Refusal> {
    let mut meta = write.open_table(META).map_err(trouble)?;
    let next = meta.get(NEXT).map_err(trouble)?.map_or(0, |next| next.value());
    write.open_table(OUTBOX).map_err(trouble)?.insert(next, entry.encode().as_slice()).map_err(trouble)?;
    meta.insert(NEXT, next + 1).map_err(trouble)?;
    Ok(())
}

fn parse(row: &[u8]) -> Result<Cosigned, Refusal> {
    serde_json::from_slice(row).map_err(|error| Refusal::Memory(format!("a head is not understood: {error}")))
}

/// The root of what was cosigned.
pub fn root_of(known: &Cosigned) -> Result<Hash, Refusal> {
    let root = hex::decode(&known.root).ok().and_then(|raw| Hash::from_slice(&raw));
    root.ok_or_else(|| Refusal::Memory("a root is none".to_owned()))
}

/// Whether the tree that is shown extends the one that was cosigned last.
fn consistent(said: &Submission, (size, root): (u64, Hash)) -> Result<(), Refusal> {
    let empty = said.size == 0 && said.root != Frontier::new().root();
    let holds = match said.size {
        _ if size == 0 => said.proof.is_empty() && !empty,
        same if same == size => said.proof.is_empty() && said.root == root,
        _ => verify_consistency(size, &root, said.size, &said.root, &said.proof).is_ok(),
    };
    let forked = said.size == size && size > 0 && said.root != root;
    if holds { Ok(()) } else { Err(Refusal::Inconsistent(forked)) }
}
