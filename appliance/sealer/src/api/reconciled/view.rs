//! One page of the reconciled view, out of the logs themselves.
//!
//! Refuses to do: hold more than the page and a chunk of each log; say anything that depends on the box that is asked:
//! what is here depends on the logs and the two cursors, so boxes that hold the same logs give the same bytes.
//! Invariant: a log's own order is kept, and what cannot be read is named in its place, never left out.

use bulla_formats::body::seal::{DocumentDigest, SealBody};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::leaf_hash;
use bulla_formats::json::base64_encode;
use bulla_ledger::{Entries, ReadError, Reader};
use bulla_protocol::gossip::Name;
use bulla_protocol::gossip::merge::Place;
use bulla_protocol::gossip::reconcile::{Cursor, Merged, Row};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bytes after which a page ends, so that nobody holds much of it.
const PAGE_BYTES: usize = 4 << 20;
/// Entries of each log before the page that are searched for the documents in it.
pub const LOOK_BACK: u64 = 1_024;

/// What is merged of one log.
pub struct Log {
    /// Its name.
    pub origin: Name,
    /// Where it is read.
    pub reader: Reader,
    /// Entries that the page goes on after.
    pub after: u64,
    /// Entries that it ends with at most.
    pub to: u64,
    /// It has forked: this copy never grows.
    pub frozen: bool,
}

/// A page.
pub struct Page {
    /// Its lines.
    pub body: Vec<u8>,
    /// Entries in it.
    pub entries: u64,
}

/// An entry as it is on the disk.
enum Held {
    Entry(Box<Entry>),
    /// Bytes that this program does not understand.
    Opaque(Vec<u8>),
    /// Bytes that are not those which were logged.
    Damaged,
}

impl Held {
    fn lamport(&self) -> Option<u64> {
        match self {
            Held::Entry(entry) => Some(entry.content().lamport),
            Held::Opaque(_) | Held::Damaged => None,
        }
    }

    /// The document, of a seal.
    fn digest(&self) -> Option<DocumentDigest> {
        let Held::Entry(entry) = self else { return None };
        let is_seal = entry.kind() == Some(Kind::Seal);
        is_seal
            .then(|| SealBody::decode(&entry.content().body).ok())
            .flatten()
            .map(|body| body.document_digest())
    }
}

/// The rows of one log.
struct Rows {
    reader: Reader,
    next: u64,
    end: u64,
    chunk: Option<Entries>,
}

impl Rows {
    fn new(reader: &Reader, range: std::ops::Range<u64>) -> Self {
        Rows { reader: reader.clone(), next: range.start, end: range.end, chunk: None }
    }

    fn read(&mut self, index: u64) -> Result<Held, ReadError> {
        let chunk = self.chunk.get_or_insert_with(|| self.reader.entries(index..self.end));
        let bytes = match chunk.next() {
            Some(Ok((_, bytes))) => Ok(bytes),
            // Which of the chunk it is that cannot be read, only that one says.
            Some(Err(_)) | None => {
                self.chunk = None;
                self.reader.entry(index)
            }
        };
        match bytes {
            Ok(bytes) => Ok(match Entry::decode(&bytes) {
                Ok(entry) => Held::Entry(Box::new(entry)),
                Err(_) => Held::Opaque(bytes),
            }),
            Err(ReadError::Damaged(_)) => Ok(Held::Damaged),
            Err(error) => Err(error),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Row<Held>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        if index >= self.end {
            return None;
        }
        self.next += 1;
        Some(self.read(index).map(|row| Row { lamport: row.lamport(), index, row }))
    }
}

/// Where documents were sealed, first in each log, of what was handed out.
#[derive(Default)]
struct Documents(BTreeMap<(u8, Vec<u8>), Vec<Place>>);

impl Documents {
    /// Takes in a seal; the first of the same document in another log, if one was handed out before it.
    fn meet(&mut self, digest: &DocumentDigest, place: &Place) -> Option<Place> {
        let known = self.0.entry((digest.algorithm as u8, digest.value.clone())).or_default();
        let elsewhere = known.iter().filter(|one| one.origin != place.origin).min().cloned();
        if known.iter().all(|one| one.origin != place.origin) {
            known.push(place.clone());
        }
        elsewhere
    }
}

/// Lamport time of the last of so many entries.
fn time_at(reader: &Reader, size: u64) -> Result<u64, ReadError> {
    match size.checked_sub(1).map(|last| reader.entry(last)) {
        Some(Ok(bytes)) => Ok(Entry::decode(&bytes).map_or(0, |entry| entry.content().lamport)),
        None | Some(Err(ReadError::Damaged(_))) => Ok(0),
        Some(Err(error)) => Err(error),
    }
}

/// Makes the page: at most `limit` entries.
pub fn page(logs: &[Log], after: &Cursor, limit: u64) -> Result<Page, ReadError> {
    let (mut to, mut known, mut handed_out) = (Cursor::default(), Documents::default(), None::<Place>);
    let (mut described, mut stable, mut newest) = (Vec::new(), None::<u64>, 0);
    for log in logs {
        to.set(&log.origin, log.to);
        let time = time_at(&log.reader, log.to)?;
        newest = newest.max(time);
        if !log.frozen {
            stable = Some(stable.map_or(time, |least| least.min(time)));
        }
        described.push(json!({
            "origin": log.origin.as_ref(), "after": log.after, "to": log.to, "lamport": time,
            "root": log.reader.root_at(log.to)?.to_string(), "frozen": log.frozen,
        }));
        for row in Rows::new(&log.reader, log.after.saturating_sub(LOOK_BACK)..log.after) {
            let row = row?;
            let place =
                Place { lamport: row.lamport.unwrap_or(0), origin: log.origin.clone(), index: row.index };
            if let Some(digest) = row.row.digest() {
                known.meet(&digest, &place);
            }
            if row.index + 1 == log.after {
                handed_out = handed_out.max(Some(place));
            }
        }
    }
    let mut body = Vec::new();
    let head = json!({
        "reconciled": "v1", "after": after.to_string(), "to": to.to_string(),
        "stable": stable.unwrap_or(newest), "logs": described,
    });
    put_line(&mut body, &head);
    let rows = logs.iter().map(|log| (log.origin.clone(), Rows::new(&log.reader, log.after..log.to)));
    let mut merged = Merged::begin(rows)?;
    let (mut next, mut entries) = (after.clone(), 0);
    while entries < limit && body.len() < PAGE_BYTES {
        let Some((place, _, row)) = merged.next_row()? else { break };
        let mut line = json!({"origin": place.origin.as_ref(), "index": place.index, "lamport": row.lamport});
        if row.lamport.is_some() && handed_out.as_ref().is_some_and(|highest| place < *highest) {
            line["late"] = true.into();
        }
        match &row.row {
            Held::Damaged => line["unreadable"] = true.into(),
            Held::Opaque(bytes) => describe(&mut line, bytes, None),
            Held::Entry(entry) => describe(&mut line, entry.bytes(), entry.kind()),
        }
        if let Some(digest) = row.row.digest() {
            line["digest"] = format!("{}:{}", digest.algorithm.name(), hex::encode(&digest.value)).into();
            if let Some(first) = known.meet(&digest, &place) {
                line["again"] = json!({"origin": first.origin.as_ref(), "index": first.index});
            }
        }
        put_line(&mut body, &line);
        next.set(&place.origin, place.index + 1);
        handed_out = handed_out.max(Some(place));
        entries += 1;
    }
    let more = logs.iter().any(|log| next.of(&log.origin) < log.to);
    put_line(&mut body, &json!({"next": next.to_string(), "entries": entries, "more": more}));
    Ok(Page { body, entries })
}

fn describe(line: &mut Value, bytes: &[u8], kind: Option<Kind>) {
    line["leafHash"] = leaf_hash(bytes).to_string().into();
    line["kind"] = kind.map(Kind::name).into();
    line["entry"] = base64_encode(bytes).into();
}

fn put_line(body: &mut Vec<u8>, line: &Value) {
    body.extend_from_slice(line.to_string().as_bytes());
    body.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_ledger::{DirStore, Ledger, NewEntry, Options};
    use std::sync::Arc;

    #[test]
    fn what_nobody_understands_stands_where_it_is_and_is_handed_out_whole() {
        let directory = tempfile::tempdir().unwrap();
        let logs: Vec<(Ledger, Name)> = (1..=2)
            .map(|number| {
                let origin = format!("bank.example/{:040x}/1", number);
                let path = directory.path().join(number.to_string());
                std::fs::create_dir(&path).unwrap();
                let store = Arc::new(DirStore::open(&path).unwrap());
                let options = Options { reserve_bytes: 0, ..Options::default() };
                let mut ledger = Ledger::create(store, &origin, options).unwrap();
                let entries = (0..300).map(|entry| format!("nonsense {entry} of {number}").into_bytes());
                let entries = entries.map(|entry| NewEntry { entry, ..NewEntry::default() });
                ledger.append(entries.collect()).unwrap();
                (ledger, Name::from(origin.as_str()))
            })
            .collect();
        let page_after = |after: &Cursor, limit: u64| {
            let log = |(ledger, origin): &(Ledger, Name)| Log {
                origin: origin.clone(),
                reader: ledger.reader(),
                after: after.of(origin),
                to: 300,
                frozen: false,
            };
            let made = page(&logs.iter().map(log).collect::<Vec<_>>(), after, limit).unwrap();
            let lines = made.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let mut lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
            let last = lines.pop().unwrap();
            (Cursor::parse(last["next"].as_str().unwrap()).unwrap(), last["more"] == true, lines.split_off(1))
        };
        let (mut cursor, mut all) = (Cursor::default(), Vec::new());
        for limit in [1, 255, 256, 600] {
            let (next, more, lines) = page_after(&cursor, limit);
            assert_eq!(more, limit != 600);
            all.extend(lines);
            cursor = next;
        }
        assert_eq!(all, page_after(&Cursor::default(), 600).2, "pages are the order of the whole");
        for (at, line) in all.iter().enumerate() {
            let (log, index) = (at / 300, at % 300);
            let bytes = format!("nonsense {index} of {}", log + 1).into_bytes();
            assert_eq!(
                (&line["origin"], &line["index"]),
                (&logs[log].1.as_ref().into(), &index.into()),
                "{at}"
            );
            assert_eq!(line["entry"], base64_encode(&bytes));
            assert_eq!(line["leafHash"], leaf_hash(&bytes).to_string());
            assert!(line["lamport"].is_null() && line["kind"].is_null() && line["late"].is_null(), "{line}");
        }
    }
}
