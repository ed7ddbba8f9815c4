//! What a hub hands to the boxes that it pulls: the fleet's roster, and leases of its own.
//!
//! A box believes neither for the hub's sake. It replays every change of the roster from the fleet's root on, and takes a
//! lease only while that roster names this hub as one that issues leases.
//! Each lease is an entry of the box's log, so `<state_dir>/leases.json` (mode 0600, `hub-leases/v1`, closed by a checksum)
//! remembers what boxes took: neither a restart nor a pull from a timer issues one needlessly. A lost memory costs a box one
//! entry.
//! Refuses to do: hand anything to a neighbour that mirrors the log; answer for a log that has forked; keep a pull from
//! ending well because of it.
//! Invariant: a process hands a box a roster again only when the file is another one, and a lease when half of the last is
//! over, or when it was of other terms, another key or another log.

use crate::config::{BoxConfig, Config, LeaseTerms};
use crate::hub::{Hub, now_millis};
use crate::keys::{HubKeys, write_private};
use crate::lease;
use crate::source::Source;
use bulla_formats::checked_json;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::json::base64_encode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const FILE: &str = "leases.json";
const FORMAT: &str = "hub-leases/v1";
/// Longest roster that a box takes in one piece, of the file's bytes.
const ROSTER_BYTES_MAX: usize = 12_000_000;

/// A lease that a box took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Leased {
    /// Of which log.
    origin: String,
    /// SHA-256 of the terms, and of the key that signed.
    terms: String,
    issued_millis: u64,
    expires_millis: u64,
}

impl Leased {
    /// Whether the next is due: at half of its time, or at once when it is not such a one as would be issued now.
    fn is_over_by_half(&self, origin: &str, terms: &str, now: u64) -> bool {
        let half = self.issued_millis + self.expires_millis.saturating_sub(self.issued_millis) / 2;
        // Issued in the future: a clock was set back, and nobody knows how long it holds.
        self.origin != origin || self.terms != terms || now >= half || now < self.issued_millis
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeasesFile {
    bulla: String,
    leases: BTreeMap<String, Leased>,
}

#[derive(Debug, Default)]
struct Memory {
    rosters: BTreeMap<String, Hash>,
    leases: BTreeMap<String, Leased>,
}

/// What boxes have, by their names.
#[derive(Debug)]
pub struct Handed {
    path: PathBuf,
    memory: Mutex<Memory>,
    /// Why the memory of leases could not be read.
    lost: Mutex<Option<String>>,
}

impl Handed {
    /// What is remembered in the state directory.
    pub fn open(config: &Config) -> Self {
        let path = config.state_dir.join(FILE);
        let (leases, lost) = match Self::read(&path) {
            Ok(leases) => (leases, None),
            Err(why) => {
                let words = format!("{} cannot be read ({why}); each box is handed one more", path.display());
                (BTreeMap::new(), Some(words))
            }
        };
        let memory = Memory { leases, ..Memory::default() };
        Handed { path, memory: Mutex::new(memory), lost: Mutex::new(lost) }
    }

    fn read(path: &Path) -> Result<BTreeMap<String, Leased>, String> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.to_string()),
        };
        let body = checked_json::body(&bytes).map_err(|error| error.to_string())?;
        let file: LeasesFile = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        if file.bulla == FORMAT { Ok(file.leases) } else { Err("it is of another version".to_owned()) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leased(&self, name: &str, lease: Leased) -> Result<(), String> {
        let mut memory = self.memory();
        memory.leases.insert(name.to_owned(), lease);
        let file = LeasesFile { bulla: FORMAT.to_owned(), leases: memory.leases.clone() };
        let text = serde_json::to_string_pretty(&file).map_err(|error| error.to_string())?;
        let written = write_private(&self.path, checked_json::with_checksum(&text).as_bytes());
        written.map_err(|error| {
            format!(
                "it was taken, and {} cannot be written ({error}): the next process issues one more",
                self.path.display()
            )
        })
    }

    /// For how many seconds a box has a lease of this hub.
    pub fn lease_left_seconds(&self, name: &str) -> u64 {
        let ends = self.memory().leases.get(name).map_or(0, |lease| lease.expires_millis);
        ends.saturating_sub(now_millis()) / 1_000
    }
}

/// How a box took it.
enum Taken {
    Yes,
    /// It will not take this one, and says why.
    Never(String),
    /// Not now, or not of this hub.
    No(String),
}

/// Hands a box what it lacks, by the source that is the box itself; answers with what went wrong.
pub fn hand_over(hub: &Hub, branch: &BoxConfig, source: &Source) -> Vec<String> {
    let mut trouble = Vec::new();
    if let Some(path) = &hub.config.roster {
        trouble.extend(roster(hub, path, branch, source).err().map(|why| format!("the roster: {why}")));
    }
    if let (Some(terms), Some(serve)) = (&hub.config.leases, &hub.config.serve) {
        let lost = hub.handed.lost.lock().unwrap_or_else(PoisonError::into_inner).take();
        trouble.extend(lost.map(|why| format!("leases: {why}")));
        let keys = HubKeys::open(&hub.config.state_dir, &serve.name).map_err(|failure| failure.to_string());
        let leased = keys.and_then(|keys| {
            let keys = keys.ok_or("this hub has no keys yet: `bulla-hub keys` makes them")?;
            leased(hub, (&keys, &serve.name), branch, terms, source)
        });
        trouble.extend(leased.err().map(|why| format!("a lease: {why}")));
    }
    trouble
}

/// Reads the roster, if boxes would take it in one piece.
///
/// # Errors
/// A sentence: it cannot be read, or is longer than that.
pub fn read_roster(path: &Path) -> Result<Vec<u8>, String> {
    let bytes =
        std::fs::read(path).map_err(|error| format!("{} cannot be read ({error})", path.display()))?;
    if bytes.len() > ROSTER_BYTES_MAX {
        let longest = "is longer than a box takes of a hub; the registrar and neighbours hand it on in parts";
        return Err(format!("{} {longest}", path.display()));
    }
    Ok(bytes)
}

fn roster(hub: &Hub, path: &Path, branch: &BoxConfig, source: &Source) -> Result<(), String> {
    let bytes = read_roster(path)?;
    let hash = sha256(&[&bytes]);
    if hub.handed.memory().rosters.get(&branch.name) == Some(&hash) {
        return Ok(());
    }
    let taken = post(source, "v1/roster", &json!({"roster": base64_encode(&bytes)}))?;
    if !matches!(taken, Taken::No(_)) {
        hub.handed.memory().rosters.insert(branch.name.clone(), hash);
    }
    match taken {
        Taken::Yes => Ok(()),
        Taken::Never(why) | Taken::No(why) => Err(why),
    }
}

/// Hands the box a lease, when one is due.
fn leased(
    hub: &Hub,
    (keys, name): (&HubKeys, &str),
    branch: &BoxConfig,
    terms: &LeaseTerms,
    source: &Source,
) -> Result<(), String> {
    let of = json!([name, keys.log_verifier_key(), terms]).to_string();
    let terms_hash = sha256(&[of.as_bytes()]).to_string();
    let last = hub.handed.memory().leases.get(&branch.name).cloned();
    if last.is_some_and(|last| !last.is_over_by_half(&branch.origin, &terms_hash, now_millis())) {
        return Ok(());
    }
    let (lease, bytes) = lease::sign(keys, name, &branch.origin, terms)?;
    let content = &lease.content;
    match post(source, "v1/leases", &json!({"lease": base64_encode(&bytes)}))? {
        Taken::Yes => hub.handed.leased(
            &branch.name,
            Leased {
                origin: branch.origin.clone(),
                terms: terms_hash,
                issued_millis: content.issued_at,
                expires_millis: content.expires_at,
            },
        ),
        Taken::Never(why) | Taken::No(why) => Err(why),
    }
}

fn post(source: &Source, path: &str, body: &Value) -> Result<Taken, String> {
    let (status, said) = source.post(path, body.to_string()).map_err(|error| error.to_string())?;
    let problem: Value = serde_json::from_str(&said).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("it gave no reason");
    Ok(match status {
        200 => Taken::Yes,
        400 | 409 | 422 => Taken::Never(format!("the box refuses it: {detail}")),
        _ => Taken::No(format!("the box does not take it (status {status}): {detail}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_lease_is_due_at_half_of_the_last_ones_time() {
        let (origin, terms) = ("bank.example/00/1".to_owned(), "ab".to_owned());
        let lease = Leased { origin, terms, issued_millis: 1_000, expires_millis: 3_601_000 };
        let due = |now| lease.is_over_by_half("bank.example/00/1", "ab", now);
        for (now, expected) in [
            (1_000, false),
            (1_800_999, false),
            (1_801_000, true),
            (3_601_000, true),
            (u64::MAX, true),
            // The clock was set back.
            (999, true),
        ] {
            assert_eq!(due(now), expected, "{now}");
        }
        assert!(lease.is_over_by_half("bank.example/00/2", "ab", 2_000), "another log");
        assert!(lease.is_over_by_half("bank.example/00/1", "cd", 2_000), "other terms");
    }
}
