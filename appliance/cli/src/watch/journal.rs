//! What the agent remembers: which box was asked for which document, and which one sealed it.
//!
//! One file of JSON lines that only grows and is written anew, shorter, at each start. It is what keeps a document from
//! being sealed by a second box after a restart; without it nothing is lost, and duplicates on one box are still impossible.
//! Refuses to do: be opened by two agents at one time; hold document bytes.
//! Invariant: a box is asked only after it is on the disk that it will be.

use crate::exit::Failure;
use bulla_intake::results::put;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

/// Most documents remembered whose story is over; the newest count.
const RECORDS_MAX: usize = 1 << 18;
/// Longest line that is read.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A box was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Asked {
    /// Its address.
    pub url: String,
    /// Boxes that may have sealed the document before, as the request said.
    pub marks: Vec<String>,
}

/// A seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Made {
    /// Address of its box.
    pub url: String,
    /// Its id there.
    pub id: String,
    /// Name of the document in the folder.
    pub name: PathBuf,
    /// SHA-256 of the document.
    pub sha256: String,
}

/// What is known of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Boxes that were asked and have not said no, the latest last.
    pub asked: Vec<Asked>,
    /// Its seal.
    pub made: Option<Made>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    key: String,
    #[serde(flatten)]
    what: What,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// A box is going to be asked.
    Ask(Asked),
    /// A box has not sealed it.
    Not(String),
    /// A box has sealed it.
    Sealed(Made),
}

/// The journal of one folder.
pub struct Journal {
    file: File,
    /// Held as long as the journal is.
    _lock: File,
    records: HashMap<String, Record>,
}

impl Journal {
    /// Opens or begins the journal in `directory`.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let shown = directory.display();
        let unusable = |error: io::Error| {
            Failure::usage(format!("{shown} cannot be used as state ({error}); give another --state"))
        };
        fs::create_dir_all(directory).map_err(unusable)?;
        let lock =
            OpenOptions::new().create(true).append(true).open(directory.join("lock")).map_err(unusable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Failure::usage(format!(
                "another agent works with {shown}; stop it, or give this one another --state"
            ))
        })?;
        let path = directory.join("journal");
        let (records, order) = match File::open(&path) {
            Ok(file) => read(BufReader::new(file)).map_err(unusable)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            Err(error) => return Err(unusable(error)),
        };
        let mut short = Vec::new();
        for key in &order {
            let Some(record) = records.get(key) else { continue };
            for what in record.lines() {
                write_line(&mut short, key, &what);
            }
        }
        put(&path, &short).map_err(unusable)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(unusable)?;
        Ok(Journal { file, _lock: lock, records })
    }

    /// What is known of the document with this key.
    pub fn record(&self, key: &str) -> Record {
        self.records.get(key).cloned().unwrap_or_default()
    }

    /// Takes down what happened. That a box is going to be asked, or has sealed, is on the disk when it returns.
    pub fn note(&mut self, key: &str, what: What) -> io::Result<()> {
        let mut line = Vec::new();
        write_line(&mut line, key, &what);
        self.file.write_all(&line)?;
        if !matches!(what, What::Not(_)) {
            self.file.sync_data()?;
        }
        apply(self.records.entry(key.to_owned()).or_default(), what);
        Ok(())
    }

    /// Documents that have a seal and of which other boxes may have one, too; at most `most`.
    pub fn unsettled(&self, most: usize) -> Vec<(String, Record)> {
        let unsettled = |(_, record): &(&String, &Record)| {
            record.made.as_ref().is_some_and(|made| record.asked.iter().any(|asked| asked.url != made.url))
        };
        self.records
            .iter()
            .filter(unsettled)
            .take(most)
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect()
    }
}

impl Record {
    fn lines(&self) -> Vec<What> {
        let asked = self.asked.iter().cloned().map(What::Ask);
        asked.chain(self.made.clone().map(What::Sealed)).collect()
    }
}

fn write_line(out: &mut Vec<u8>, key: &str, what: &What) {
    let line = Line { key: key.to_owned(), what: what.clone() };
    out.extend(serde_json::to_vec(&line).expect("strings always serialise"));
    out.push(b'\n');
}

fn apply(record: &mut Record, what: What) {
    match what {
        What::Ask(asked) => {
            record.asked.retain(|other| other.url != asked.url);
            record.asked.push(asked);
        }
        What::Not(url) => record.asked.retain(|asked| asked.url != url),
        What::Sealed(made) => {
            record.asked.retain(|asked| asked.url != made.url);
            record.made = Some(made);
        }
    }
}

type Records = (HashMap<String, Record>, Vec<String>);

/// Lines that are not understood, such as one that a power cut tore, are passed over: what they said is asked of the box.
fn read(mut file: impl io::BufRead) -> io::Result<Records> {
    let (mut records, mut order) = (HashMap::<String, Record>::new(), Vec::new());
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let length = io::Read::take(&mut file, LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
        if length == 0 {
            break;
        }
        let Ok(line) = serde_json::from_slice::<Line>(&bytes) else { continue };
        if !records.contains_key(&line.key) {
            order.push(line.key.clone());
        }
        apply(records.entry(line.key).or_default(), line.what);
    }
    let surplus = order.len().saturating_sub(RECORDS_MAX);
    for key in order.drain(..surplus) {
        records.remove(&key);
    }
    Ok((records, order))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(url: &str) -> What {
        What::Ask(Asked { url: url.into(), marks: vec!["https://z".into()] })
    }

    fn sealed(url: &str) -> What {
        What::Sealed(Made { url: url.into(), id: "1-ab".into(), name: "a.pdf".into(), sha256: "00".into() })
    }

    #[test]
    fn it_remembers_over_restarts_and_torn_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        {
            let (mut records, _) = read(&b""[..]).unwrap();
            assert!(records.is_empty());
            for what in [ask("https://a"), ask("https://b"), What::Not("https://a".into())] {
                apply(records.entry("k".into()).or_default(), what);
            }
            assert_eq!(records["k"].asked.len(), 1);
        }
        let mut lines = Vec::new();
        for (key, what) in [
            ("k", ask("https://a")),
            ("k", ask("https://b")),
            ("k", sealed("https://b")),
            ("l", ask("https://a")),
        ] {
            write_line(&mut lines, key, &what);
        }
        lines.extend(b"{\"key\":\"m\",\"ask\":{\"url\":\"https");
        fs::write(&path, &lines).unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let record = journal.record("k");
        assert_eq!(record.made.as_ref().map(|made| made.url.as_str()), Some("https://b"));
        assert_eq!(record.asked.len(), 1, "the other box may have sealed it, too");
        assert_eq!(journal.unsettled(9).len(), 1);
        assert_eq!((journal.record("l").asked.len(), journal.record("m")), (1, Record::default()));
        assert!(fs::read(&path).unwrap().len() < lines.len(), "it is written anew");
    }

    #[test]
    fn two_agents_never_share_a_state() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Journal::open(directory.path()).unwrap();
        let second = Journal::open(directory.path()).map(|_| ()).unwrap_err();
        assert!(second.to_string().contains("another agent"), "{second}");
    }
}
