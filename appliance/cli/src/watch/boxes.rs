//! Which box is asked: the first that can, the same one again when nobody knows what it did, another one in the end.
//!
//! Certain is only an answer, or a request of which the last byte never went out. A box that got all of a document and did
//! not answer *may* have sealed it: it is asked again, under the same key, for `failover_after`; after that the next box is
//! asked, and the seal that it makes says which box may have made another one. Once the first box is back, it is asked what
//! it did, and the receipt says that.
//! Refuses to do: take a seal of other bytes; send a document to a second box that the first is known to have sealed.
//! Invariant: the journal knows of every box that may have sealed a document.

use super::journal::{Asked, Journal, Made, Record, What};
use crate::client::{BoxClient, CallError, NoAnswer, Tried, problem};
use crate::order::percent_encode;
use crate::output::printable;
use crate::progress::{Progress, Task};
use bulla_formats::body::seal::{DigestAlgorithm, SealBody};
use bulla_formats::entry::Entry;
use bulla_formats::json::{self, base64_encode};
use bulla_formats::seal_file::{SEAL_BYTES_MAX, SealFile};
use bulla_intake::door::{Door, NotSealed, Note, Order, Sealed};
use bulla_intake::folder::Census;
use bulla_intake::options::Options;
use bulla_intake::results;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const ANSWER_BYTES_MAX: usize = SEAL_BYTES_MAX + (64 << 10);
/// First and longest pause before a box that failed is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));
/// When a queued document is asked for again.
const QUEUED_AGAIN: Duration = Duration::from_secs(2);
/// When the same hindrance is said again.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// Duplicates asked about in one go.
const SETTLE_MAX: usize = 64;

/// A box, and how it has been lately.
pub struct Station {
    client: BoxClient,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    until: Option<Instant>,
    reason: String,
}

impl Station {
    /// Nothing is known against it.
    pub fn new(client: BoxClient) -> Self {
        Station { client, health: Mutex::default() }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self) -> bool {
        self.health().until.is_none_or(|until| until <= Instant::now())
    }

    fn works(&self) {
        *self.health() = Health::default();
    }

    fn fails(&self, reason: &str, after: Option<Duration>) {
        let mut health = self.health();
        let doubled = PAUSE.0.saturating_mul(1 << health.failures.min(8)).min(PAUSE.1);
        health.failures += 1;
        health.until = Some(Instant::now() + after.map_or(doubled, |after| after.clamp(PAUSE.0, PAUSE.1)));
        reason.clone_into(&mut health.reason);
    }
}

/// What one box said.
enum Said {
    Sealed(Box<Sealed>, String),
    /// It will; it is to be asked again.
    Queued(String),
    /// It did not, and will not now.
    NotNow(String, Option<Duration>),
    /// Nobody knows.
    Unknown(String),
    Changed,
    Refused(String),
}

/// The boxes of one agent.
pub struct Boxes {
    stations: Vec<Station>,
    journal: Mutex<Journal>,
    failover_after: Duration,
    /// Since when nobody knows whether a document is sealed.
    unknown: Mutex<HashMap<String, Instant>>,
    progress: Progress,
    line: Task,
    /// What was last in the way, and when that was said.
    said: Mutex<Option<(String, Instant)>>,
}

impl Boxes {
    /// The boxes, in the order in which they are preferred.
    pub fn new(
        stations: Vec<Station>,
        journal: Journal,
        failover_after: Duration,
        progress: Progress,
    ) -> Self {
        let line = progress.count("sealed", 0);
        let (journal, unknown) = (Mutex::new(journal), Mutex::default());
        Boxes { stations, journal, failover_after, unknown, progress, line, said: Mutex::default() }
    }

    /// Where lines go.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: &str, what: What) -> Result<(), NotSealed> {
        self.journal().note(key, what).map_err(|error| {
            let reason = format!("the agent's journal cannot be written ({error})");
            NotSealed::Later { reason, after: None }
        })
    }

    /// Those to be asked, the first first.
    fn candidates(&self, key: &str, record: &Record) -> Vec<&Station> {
        let of = |url: &str| self.stations.iter().find(|station| station.client.url() == url);
        if let Some(made) = &record.made {
            // Nobody else is asked for what is sealed already, unless its box is not one of ours any more.
            return of(&made.url).map_or_else(|| self.stations.iter().collect(), |station| vec![station]);
        }
        let unknown: Vec<&Station> = record.asked.iter().rev().filter_map(|asked| of(&asked.url)).collect();
        let mut since = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.is_empty() {
            since.remove(key);
        } else if since.entry(key.to_owned()).or_insert_with(Instant::now).elapsed() < self.failover_after {
            return unknown;
        }
        let others =
            self.stations.iter().filter(|one| unknown.iter().all(|other| !std::ptr::eq(*one, *other)));
        unknown.iter().copied().chain(others).collect()
    }

    fn ask(&self, station: &Station, order: &Order<'_>) -> Result<Said, NotSealed> {
        let (url, record) = (station.client.url(), self.journal().record(&order.key));
        let before = record.asked.iter().find(|asked| asked.url == url);
        let marks = match before {
            // Another question under the same key would be refused.
            Some(asked) => asked.marks.clone(),
            None => record.asked.iter().map(|asked| asked.url.clone()).collect(),
        };
        if before.is_none() && record.made.is_none() {
            self.note(&order.key, What::Ask(Asked { url: url.to_owned(), marks: marks.clone() }))?;
        }
        let reader = At { file: order.file, at: 0 };
        let said = match station.client.post_once(
            "/v1/seals",
            &headers(order, &marks),
            order.content.size,
            reader,
        ) {
            Ok(tried) => self.understand(station, order, tried, &marks),
            Err(NoAnswer { error, handed_over }) => match error {
                CallError::Local(_) => Said::Changed,
                CallError::Unreachable(why)
                | CallError::Refused { detail: why, .. }
                | CallError::Busy { detail: why, .. } => {
                    let why = format!("{url} does not answer ({why})");
                    if handed_over { Said::Unknown(why) } else { Said::NotNow(why, None) }
                }
            },
        };
        match &said {
            Said::Sealed(_, id) => {
                station.works();
                let made = Made {
                    url: url.to_owned(),
                    id: id.clone(),
                    name: order.name.to_owned(),
                    sha256: hex::encode(order.content.sha256),
                };
                self.note(&order.key, What::Sealed(made))?;
            }
            Said::Queued(_) => station.works(),
            Said::NotNow(why, after) => {
                station.fails(why, *after);
                // Whether an earlier question was answered with a seal is still not known.
                if before.is_none() && record.made.is_none() {
                    self.note(&order.key, What::Not(url.to_owned()))?;
                }
            }
            Said::Unknown(why) => station.fails(why, None),
            Said::Changed | Said::Refused(_) => {
                if before.is_none() && record.made.is_none() {
                    self.note(&order.key, What::Not(url.to_owned()))?;
                }
            }
        }
        Ok(said)
    }

    fn understand(&self, station: &Station, order: &Order<'_>, tried: Tried, marks: &[String]) -> Said {
        let url = station.client.url();
        let (slug, detail) = problem(&tried.body);
        let detail =
            detail.unwrap_or_else(|| format!("HTTP status {}, without an explanation", tried.status));
        match (tried.status, slug.as_str()) {
            (200 | 201, _) => self.receipt(url, order, &tried.body, marks),
            (202, _) => Said::Queued(format!("{url} has queued it and seals it in its turn")),
            (422, "idempotency-key-reused") => {
                // The same bytes under another name, sealed before.
                let first = json::parse(&tried.body, ANSWER_BYTES_MAX).ok();
                let first = first.as_ref().and_then(|value| value.get("first")?.as_str().map(str::to_owned));
                let Some(first) = first.filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
                else {
                    return Said::NotNow(format!("{url} has it in its queue under another name"), None);
                };
                match station.client.get_once(&format!("/v1/seals/{first}")) {
                    Ok(tried) if tried.status == 200 => self.receipt(url, order, &tried.body, marks),
                    Ok(tried) => {
                        Said::Unknown(format!("{url} does not show the seal it made ({})", tried.status))
                    }
                    Err(_) => Said::Unknown(format!("{url} does not show the seal it made")),
                }
            }
            (400, "digest-mismatch" | "truncated-body") => Said::Changed,
            (401 | 403, _) => {
                Said::NotNow(format!("{url} does not let this agent in ({detail}); look at its token"), None)
            }
            (408 | 429 | 503 | 507, _) => {
                Said::NotNow(format!("{url} cannot do it now ({detail})"), tried.after)
            }
            (400..500, slug) if !slug.is_empty() => Said::Refused(format!("the box refused it: {detail}")),
            // Not the box's words, or its own failure.
            (400..500, _) => Said::NotNow(format!("{url} answers as no box does ({detail})"), None),
            _ => Said::Unknown(format!("{url} failed ({detail})")),
        }
    }

    fn receipt(&self, url: &str, order: &Order<'_>, body: &[u8], marks: &[String]) -> Said {
        let wrong = |what: &str| {
            Said::Unknown(format!("the receipt of {url} {what}; do not use this box until that is explained"))
        };
        let Ok(Value::Object(mut receipt)) = json::parse(body, ANSWER_BYTES_MAX) else {
            return wrong("is not what this program understands");
        };
        let seal = receipt.remove("seal").map(|seal| seal.to_string()).unwrap_or_default();
        let Ok(seal) = SealFile::decode(seal.as_bytes()) else { return wrong("has no usable seal in it") };
        let body = Entry::decode(&seal.entry).and_then(|entry| SealBody::decode(&entry.content().body));
        let ours = body.is_ok_and(|body| {
            body.algorithm == DigestAlgorithm::Sha256 && *body.digest == order.content.sha256[..]
        });
        if !ours {
            return wrong("is of other bytes than this document's");
        }
        let Some(id) = receipt.get("id").and_then(Value::as_str).map(str::to_owned) else {
            return wrong("names no seal");
        };
        ["links", "document", "relatedBy"].iter().for_each(|name| drop(receipt.remove(*name)));
        let mut said = Map::new();
        said.insert("box".to_owned(), url.into());
        if !marks.is_empty() {
            said.insert(
                "possibleDuplicates".to_owned(),
                marks.iter().map(|mark| json!({"box": mark})).collect(),
            );
        }
        said.extend(receipt);
        Said::Sealed(Box::new(Sealed { seal: seal.encode(), receipt: Value::Object(said) }), id)
    }

    /// Asks boxes that may have made a second seal what they did, and has receipts say it.
    pub fn settle(&self, options: &Options) {
        let unsettled = self.journal().unsettled(SETTLE_MAX);
        for (key, record) in unsettled {
            let Some(made) = &record.made else { continue };
            for asked in record.asked.iter().filter(|asked| asked.url != made.url) {
                let station = self.stations.iter().find(|station| station.client.url() == asked.url);
                let Some(station) = station.filter(|station| station.is_up()) else { continue };
                let found = match seals_of(&station.client, &made.sha256) {
                    Ok(found) => found,
                    Err(reason) => {
                        station.fails(&reason, None);
                        continue;
                    }
                };
                let noted =
                    results::amend(options, &made.name, |receipt| settle_in(receipt, &asked.url, &found));
                if noted.is_ok() && self.note(&key, What::Not(asked.url.clone())).is_ok() {
                    let name = made.name.display();
                    let line = match found.first() {
                        None => format!("single   {name}  {} has not sealed it", asked.url),
                        Some(other) => {
                            format!("DOUBLE   {name}  {} has sealed it as {}, too", asked.url, other.0)
                        }
                    };
                    self.progress.say(&line);
                }
            }
        }
    }
}

/// A receipt in which it is known what the box at `url` did.
fn settle_in(receipt: &mut Map<String, Value>, url: &str, found: &[(String, String)]) {
    if let Some(Value::Array(possible)) = receipt.get_mut("possibleDuplicates") {
        possible.retain(|one| one.get("box").and_then(Value::as_str) != Some(url));
    }
    let seals = found.iter().map(|(id, leaf)| json!({"box": url, "id": id, "leafHash": leaf}));
    if let (true, Value::Array(list)) =
        (!found.is_empty(), receipt.entry("duplicates").or_insert_with(|| json!([])))
    {
        list.extend(seals);
    }
}

/// This agent's seals of a digest on a box: id and leaf hash. Only those of its own come with openings.
fn seals_of(client: &BoxClient, sha256: &str) -> Result<Vec<(String, String)>, String> {
    let tried = client
        .get_once(&format!("/v1/seals?digest=sha-256:{sha256}"))
        .map_err(|error| format!("{error:?}"))?;
    let list = json::parse(&tried.body, ANSWER_BYTES_MAX).ok().filter(|_| tried.status == 200);
    let list = list.ok_or_else(|| format!("{} does not say what it has sealed", client.url()))?;
    let text = |seal: &Value, name: &str| seal.get(name).and_then(Value::as_str).map(str::to_owned);
    let own =
        |seal: &&Value| seal.get("openings").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let seals = list.get("seals").and_then(Value::as_array).into_iter().flatten().filter(own);
    Ok(seals.filter_map(|seal| Some((text(seal, "id")?, text(seal, "leafHash")?))).collect())
}

fn headers(order: &Order<'_>, marks: &[String]) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("idempotency-key", order.key.clone()),
        ("accept", "application/json".to_owned()),
        ("content-type", order.media_type.to_owned()),
        ("content-digest", format!("sha-256=:{}:", base64_encode(&order.content.sha256))),
    ];
    let mut metadata = order.metadata();
    if !marks.is_empty() {
        metadata.push(("possible-duplicate".to_owned(), marks.join(" ")));
    }
    for (name, value) in metadata {
        headers.push(("bulla-metadata", format!("{}={}", percent_encode(&name), percent_encode(&value))));
    }
    headers.extend(order.supersedes.iter().map(|leaf| ("bulla-supersedes", leaf.clone())));
    headers
}

impl Door for Boxes {
    fn seal(&self, order: &Order<'_>) -> Result<Sealed, NotSealed> {
        let record = self.journal().record(&order.key);
        let mut reasons: Vec<String> = Vec::new();
        for station in self.candidates(&order.key, &record) {
            if !station.is_up() {
                reasons.push(station.health().reason.clone());
                continue;
            }
            match self.ask(station, order)? {
                Said::Sealed(sealed, _) => return Ok(*sealed),
                Said::Changed => return Err(NotSealed::Changed),
                Said::Refused(reason) => return Err(NotSealed::Refused { reason }),
                Said::Queued(reason) => return Err(NotSealed::Later { reason, after: Some(QUEUED_AGAIN) }),
                // It is asked again first; perhaps it is only starting anew.
                Said::Unknown(reason) => return Err(NotSealed::Later { reason, after: None }),
                Said::NotNow(reason, _) => reasons.push(reason),
            }
        }
        Err(NotSealed::Later { reason: reasons.join("; "), after: None })
    }

    fn note(&self, note: &Note<'_>) {
        match note {
            Note::Watching(means) => self.progress.say(&format!("watching by {means}")),
            Note::Sealed { name, sealed } => {
                let text =
                    |member: &str| sealed.receipt.get(member).and_then(Value::as_str).unwrap_or_default();
                let mut line = format!("sealed   {}  {} by {}", name.display(), text("id"), text("box"));
                if sealed.receipt.get("replayed").and_then(Value::as_bool) == Some(true) {
                    line.push_str("; the box had sealed it before, for the same request");
                }
                if sealed.receipt.get("possibleDuplicates").is_some() {
                    line.push_str("; another box may have sealed it, too");
                }
                self.progress.say(&line);
            }
            Note::Rejected { name, reason } => {
                self.progress.complain(&format!("ERROR    {}  {}", name.display(), printable(reason)));
            }
            Note::Waits { name, reason } => {
                let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.as_ref().is_some_and(|(text, at)| text == reason && at.elapsed() < SAY_AGAIN) {
                    return;
                }
                *said = Some(((*reason).to_owned(), Instant::now()));
                let line = format!("waits    {}  {}", name.display(), printable(reason));
                self.progress.complain(&line);
            }
        }
    }

    fn census(&self, census: Census, _: &str) {
        let all = census.done + census.waiting + census.in_work;
        self.line.set(census.done as u64, all as u64);
    }
}

/// An open file from its beginning, whatever others read of it.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}
