//! Scanners that seal as fast as they are answered, and keep every receipt.
//!
//! Most hand in digests, some documents, and some repeat themselves under an Idempotency-Key when they got no
//! answer. Each document is its own, so that a digest found twice in the log is a request sealed twice.
//! Refuses to do: retry. What happened to a request is for [`super::account`] to judge.

use super::client::{Client, Response};
use super::{Rig, Role};
use anyhow::{Context, Result, bail, ensure};
use bulla_formats::hash::{Hash, sha256};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A long note, as metadata go; it makes a batch need room that freed pages do not give.
const LONG_NOTE_BYTES: usize = 3 << 10;
/// Pause of a scanner after a refusal.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// One request to seal, as it can be sent again.
#[derive(Debug, Clone)]
pub struct Order {
    /// The document.
    pub document: Vec<u8>,
    /// Whether the document itself is sent, or only its digest.
    pub upload: bool,
    /// Length of the note that goes with a digest; its opening is stored outside the tree.
    pub note_bytes: usize,
    /// Idempotency key.
    pub key: Option<String>,
}

impl Order {
    /// SHA-256 of the document.
    pub fn digest(&self) -> Hash {
        sha256(&[&self.document])
    }

    /// Sends it. An error means that no complete answer came.
    pub fn send(&self, client: &Client) -> Result<Response> {
        let key = self.key.iter().map(|key| ("Idempotency-Key", key.as_str()));
        if self.upload {
            let headers: Vec<_> = key.chain([("Content-Type", "application/pdf")]).collect();
            return client.post("/v1/seals", &headers, &self.document);
        }
        let mut order = json!({
            "algorithm": "sha-256",
            "digest": self.digest().to_string(),
            "size": self.document.len(),
            "mediaType": "application/pdf",
            "user": "teller 7",
        });
        if self.note_bytes > 0 {
            order["metadata"] = json!({ "note": "x".repeat(self.note_bytes) });
        }
        client.seal_digest(&order, &key.collect::<Vec<_>>())
    }
}

/// A receipt that was handed out.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// What it was given for.
    pub order: Order,
    /// Public id of the seal.
    pub id: String,
    /// Index of its entry.
    pub index: u64,
    /// Leaf hash of its entry.
    pub leaf: Hash,
    /// Whether the box had made the seal before.
    pub replayed: bool,
    /// The answer, with the `.seal` in it.
    pub answer: Response,
    /// When it had come.
    pub at: Instant,
}

impl Receipt {
    /// Reads the answer to `order`, which must be a 201 or, for a replay, a 200.
    pub fn read(order: Order, answer: Response) -> Result<Self> {
        let (at, json) = (Instant::now(), answer.json()?);
        let (id, leaf) = (text(&json, "id")?, text(&json, "leafHash")?);
        let replayed = json["replayed"].as_bool().context("a receipt says whether it is a replay")?;
        let wanted = if replayed { 200 } else { 201 };
        ensure!(answer.status == wanted, "status {} with replayed = {replayed}", answer.status);
        let leaf = hex::decode(&leaf).ok().and_then(|bytes| Hash::from_slice(&bytes));
        Ok(Receipt {
            order,
            id,
            index: json["index"].as_u64().context("a receipt has an index")?,
            leaf: leaf.context("a leaf hash is 64 hex digits")?,
            replayed,
            answer,
            at,
        })
    }
}

fn text(json: &Value, member: &str) -> Result<String> {
    Ok(json[member].as_str().with_context(|| format!("a receipt has a member {member}: {json}"))?.to_owned())
}

/// A request that was answered with a problem.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The request.
    pub order: Order,
    /// HTTP status.
    pub status: u16,
    /// Slug of the problem type.
    pub problem: String,
}

/// What became of the requests of one load.
#[derive(Debug, Default)]
pub struct Harvest {
    /// Sealed.
    pub receipts: Vec<Receipt>,
    /// Refused.
    pub refusals: Vec<Refusal>,
    /// The connection broke before the answer was complete.
    pub unanswered: Vec<Order>,
}

/// Scanners at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    sealed: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<Harvest>>>,
}

impl Load {
    /// Sets `threads` scanners to work, each on a connection of its own. `label` makes their documents unique.
    pub fn start(rig: &Rig, threads: usize, label: &str) -> Self {
        let (stop, sealed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..threads)
            .map(|thread| {
                let (client, stop, sealed) = (rig.client(Role::Scanner), stop.clone(), sealed.clone());
                let label = format!("{label}, scanner {thread}");
                std::thread::spawn(move || scan(&client, &label, &stop, &sealed))
            })
            .collect();
        Load { stop, sealed, threads }
    }

    /// Receipts so far.
    pub fn sealed(&self) -> usize {
        self.sealed.load(Relaxed)
    }

    /// Waits for what is on its way, and hands over everything. A scanner whose connection breaks ends by itself.
    pub fn finish(self) -> Result<Harvest> {
        self.stop.store(true, Relaxed);
        let mut all = Harvest::default();
        for thread in self.threads {
            let Ok(harvest) = thread.join() else { bail!("a scanner panicked") };
            let harvest = harvest?;
            all.receipts.extend(harvest.receipts);
            all.refusals.extend(harvest.refusals);
            all.unanswered.extend(harvest.unanswered);
        }
        Ok(all)
    }
}

fn scan(client: &Client, label: &str, stop: &AtomicBool, sealed: &AtomicUsize) -> Result<Harvest> {
    let mut harvest = Harvest::default();
    for number in 0u64.. {
        if stop.load(Relaxed) {
            break;
        }
        let name = format!("{label}, document {number}");
        let order = Order {
            document: name.clone().into_bytes(),
            upload: number % 8 == 3,
            note_bytes: if number % 4 == 1 { LONG_NOTE_BYTES } else { 0 },
            key: (number % 3 == 0).then_some(name),
        };
        match order.send(client) {
            Err(_) => {
                harvest.unanswered.push(order);
                break;
            }
            Ok(answer) if answer.status == 201 || answer.status == 200 => {
                harvest.receipts.push(Receipt::read(order, answer)?);
                sealed.fetch_add(1, Relaxed);
            }
            Ok(answer) => {
                harvest.refusals.push(Refusal { order, status: answer.status, problem: answer.problem()? });
                std::thread::sleep(REFUSED_PAUSE);
            }
        }
    }
    Ok(harvest)
}

/// A random time between `least` and `most` milliseconds. Instants of a kill cannot be repeated anyway, so there is
/// no seed to keep.
pub fn random_millis(least: u64, most: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Nanoseconds of the clock, spread by one round of a hash.
    let hash = sha256(&[&now.as_nanos().to_be_bytes()]);
    let number = hash.0[..8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    Duration::from_millis(least + number % (most - least + 1))
}
