//! The list of queries: who asked the hub for what, each line chained to the one before.
//!
//! `<state_dir>/queries.jsonl` (mode 0600). A line is one JSON object: `seq`, `atMillis`, `who` (`person` and `role`, with
//! `certificate`, its SHA-256, where they are known by one; or `unixUser` and `uid`), `from` (`cli`, or the address), `query`, `asked`, and `previous`, the SHA-256 (hex) of the line
//! before without its line feed; of the first one, 64 zeros. While `bulla-hub serve` runs, the hub's own log says how many
//! lines there are and the hash of the newest: lines that are changed, or cut off, are noticed.
//! Refuses to do: let a query begin that is not in the list; go on after a line that is not understood.
//! Invariant: a query's line is durable before its answer begins. A line that a crash tore was never answered, and goes.

use crate::exit::{Exit, Failure};
use crate::hub::now_millis;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::hub_log::QueriesHead;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const FILE: &str = "queries.jsonl";
/// Longest line in bytes.
const LINE_BYTES_MAX: usize = 65_536;

/// Who asks.
#[derive(Debug, Clone)]
pub enum Who<'a> {
    /// Somebody at the hub's own command line.
    Unix,
    /// Somebody of `people.json`, by HTTPS.
    Person {
        /// Their name.
        name: &'a str,
        /// Their role.
        role: &'a str,
        /// Where they came from.
        address: std::net::IpAddr,
        /// SHA-256 of the certificate that they are known by, where they are.
        certificate: Option<&'a Hash>,
    },
}

impl Who<'_> {
    fn to_json(&self) -> (Value, String) {
        match self {
            Who::Unix => {
                let uid = rustix::process::getuid().as_raw();
                (json!({"unixUser": user_name(uid), "uid": uid}), "cli".to_owned())
            }
            Who::Person { name, role, address, certificate } => {
                let mut who = json!({"person": name, "role": role});
                if let Some(certificate) = certificate {
                    who["certificate"] = certificate.to_string().into();
                }
                (who, address.to_string())
            }
        }
    }
}

/// The name of a user of this machine, when `/etc/passwd` has one.
fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (name, number) = (parts.next()?, parts.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    let path = path.display();
    Failure::usage(format!(
        "the list of queries {path} cannot be written ({reason}); nothing is answered that is not in it"
    ))
}

fn damaged(path: &Path, seq: u64, what: &str) -> Failure {
    let message = format!("the list of queries {} {what} at line {seq}: it was changed", path.display());
    Failure { exit: Exit::Found, message }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Enters a query, durably.
pub fn record(state_dir: &Path, who: &Who<'_>, query: &str, asked: &Value) -> Result<(), Failure> {
    let path = path(state_dir);
    let wrong = |error: io::Error| failed(&path, &error);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).mode(0o600).open(&path).map_err(wrong)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| wrong(error.into()))?;
    let new = file.metadata().map_err(wrong)?.len() == 0;
    let last = last(&mut file).map_err(wrong)?;
    let (seq, previous) = match &last {
        None => (0, Hash([0; 32])),
        Some(line) => {
            let value: Value = serde_json::from_slice(line).map_err(|error| failed(&path, &error))?;
            let seq = value["seq"].as_u64().ok_or_else(|| failed(&path, &"its last line has no number"))?;
            (seq + 1, sha256(&[line]))
        }
    };
    let (who, from) = who.to_json();
    let line = json!({
        "seq": seq, "atMillis": now_millis(), "who": who, "from": from, "query": query, "asked": asked,
        "previous": previous.to_string(),
    });
    let line = format!("{line}\n");
    if line.len() > LINE_BYTES_MAX {
        return Err(failed(&path, &"the query is longer than a line may be"));
    }
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    if new {
        File::open(state_dir).and_then(|directory| directory.sync_all()).map_err(wrong)?;
    }
    Ok(())
}

/// The last line without its line feed; what a crash tore is cut off.
fn last(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(2 * LINE_BYTES_MAX as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < tail.len() {
        file.set_len(from + whole as u64)?;
        tail.truncate(whole);
    }
    let Some(body) = tail.strip_suffix(b"\n") else { return Ok(None) };
    let begin = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Ok(Some(body[begin..].to_vec()))
}

/// How far the list is, by its last line alone.
pub fn head(state_dir: &Path) -> Result<Option<QueriesHead>, Failure> {
    let path = path(state_dir);
    let wrong = |error: io::Error| failed(&path, &error);
    let mut file = match OpenOptions::new().read(true).append(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| wrong(error.into()))?;
    let Some(line) = last(&mut file).map_err(wrong)? else { return Ok(None) };
    let value: Value = serde_json::from_slice(&line).map_err(|error| failed(&path, &error))?;
    let seq = value["seq"].as_u64().ok_or_else(|| failed(&path, &"its last line has no number"))?;
    Ok(Some(QueriesHead { count: seq + 1, hash: sha256(&[&line]) }))
}

/// Goes through the list from its beginning and hands out each line with its hash; returns how far it is.
pub fn walk(state_dir: &Path, mut each: impl FnMut(Value, Hash)) -> Result<Option<QueriesHead>, Failure> {
    let path = path(state_dir);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, &error)),
    };
    rustix::fs::flock(&file, FlockOperation::LockShared)
        .map_err(|error| failed(&path, &io::Error::from(error)))?;
    let mut reader = BufReader::new(file);
    let (mut seq, mut previous) = (0u64, Hash([0; 32]));
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        (&mut reader).take(limit).read_until(b'\n', &mut line).map_err(|error| failed(&path, &error))?;
        // Whole lines only: the rest is what a crash tore.
        let Some(body) = line.strip_suffix(b"\n") else {
            if line.len() > LINE_BYTES_MAX {
                return Err(damaged(&path, seq, "is not understood"));
            }
            break;
        };
        let value: Value =
            serde_json::from_slice(body).map_err(|_| damaged(&path, seq, "is not understood"))?;
        if value["seq"] != seq || value["previous"] != previous.to_string() {
            return Err(damaged(&path, seq, "does not follow from the line before"));
        }
        previous = sha256(&[body]);
        seq += 1;
        each(value, previous);
    }
    Ok((seq > 0).then_some(QueriesHead { count: seq, hash: previous }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(state: &Path) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        walk(state, |line, _| all.push(line)).map(|_| all)
    }

    #[test]
    fn lines_are_chained_and_any_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        assert_eq!(walk(state, |_, _| ()).unwrap(), None);
        let address = "192.0.2.7".parse().unwrap();
        record(state, &Who::Unix, "find", &json!({"digest": "sha-256:00"})).unwrap();
        record(
            state,
            &Who::Person { name: "anna", role: "auditor", address, certificate: None },
            "timeline",
            &json!({}),
        )
        .unwrap();
        record(state, &Who::Unix, "findings", &json!({})).unwrap();
        let all = list(state).unwrap();
        assert_eq!(
            (all.len(), &all[1]["who"]["person"], &all[1]["from"]),
            (3, &json!("anna"), &json!("192.0.2.7"))
        );
        assert!(all[0]["who"]["uid"].is_u64());
        assert_eq!(head(state).unwrap(), walk(state, |_, _| ()).unwrap());
        let file = path(state);
        let genuine = std::fs::read(&file).unwrap();
        for at in (0..genuine.len()).step_by(11) {
            let mut bent = genuine.clone();
            bent[at] ^= 1;
            std::fs::write(&file, &bent).unwrap();
            let last = genuine[..genuine.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
            // The newest line is held by the head in the hub's own log only.
            assert!(at > last || list(state).is_err(), "byte {at}");
        }
        // Torn by a crash: cut off, and the next goes on from the line before.
        std::fs::write(&file, &genuine[..genuine.len() - 4]).unwrap();
        assert_eq!(list(state).unwrap().len(), 2);
        record(state, &Who::Unix, "find", &json!({})).unwrap();
        assert_eq!(list(state).unwrap().len(), 3);
        let lines: Vec<&[u8]> = genuine.split_inclusive(|byte| *byte == b'\n').collect();
        std::fs::write(&file, [lines[0], lines[2]].concat()).unwrap();
        assert!(list(state).is_err(), "a line was taken out");
        assert!(record(state, &Who::Unix, "find", &json!({"long": "x".repeat(LINE_BYTES_MAX)})).is_err());
    }
}
