//! What a hub hands to the boxes that it pulls: the fleet's roster, and leases of its own.
//!
//! A box believes neither for the hub's sake. It replays every change of the roster from the fleet's root on, and takes a
//! lease only while that roster names this hub as one that issues leases.
//! Refuses to do: hand anything to a neighbour that mirrors the log; keep a pull from ending well because of it.
//! Invariant: a box is handed a roster again only when the file is another one, and a lease when half of the last is over.

use crate::config::{BoxConfig, LeaseTerms};
use crate::hub::{Hub, now_millis};
use crate::keys::HubKeys;
use crate::lease;
use crate::source::Source;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::json::base64_encode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Longest roster that a box takes in one piece, of the file's bytes.
const ROSTER_BYTES_MAX: usize = 12_000_000;

/// What a box has.
#[derive(Debug, Clone, Copy, Default)]
struct Has {
    roster: Option<Hash>,
    /// When the next lease is due, in Unix milliseconds.
    lease_due: u64,
}

/// What each box has of this process, by its name. A process that begins hands everything again.
#[derive(Debug, Default)]
pub struct Handed(Mutex<BTreeMap<String, Has>>);

impl Handed {
    fn of(&self, name: &str) -> Has {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    fn note(&self, name: &str, has: Has) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), has);
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
    let (mut has, mut trouble) = (hub.handed.of(&branch.name), Vec::new());
    if let Some(path) = &hub.config.roster {
        trouble.extend(roster(path, source, &mut has).err().map(|why| format!("the roster: {why}")));
    }
    if let (Some(terms), Some(serve)) = (&hub.config.leases, &hub.config.serve)
        && now_millis() >= has.lease_due
    {
        let keys = HubKeys::open(&hub.config.state_dir, &serve.name).map_err(|failure| failure.to_string());
        let leased = keys.and_then(|keys| {
            let keys = keys.ok_or("this hub has no keys yet: `bulla-hub keys` makes them")?;
            leased(&keys, &serve.name, &branch.origin, terms, source)
        });
        match leased {
            Ok(due) => has.lease_due = due,
            Err(why) => trouble.push(format!("a lease: {why}")),
        }
    }
    hub.handed.note(&branch.name, has);
    trouble
}

fn roster(path: &Path, source: &Source, has: &mut Has) -> Result<(), String> {
    let bytes =
        std::fs::read(path).map_err(|error| format!("{} cannot be read ({error})", path.display()))?;
    let hash = sha256(&[&bytes]);
    if has.roster == Some(hash) {
        return Ok(());
    }
    if bytes.len() > ROSTER_BYTES_MAX {
        let longest = "is longer than a box takes of a hub; the registrar and neighbours hand it on in parts";
        return Err(format!("{} {longest}", path.display()));
    }
    match post(source, "v1/roster", &json!({"roster": base64_encode(&bytes)}))? {
        Taken::Yes => has.roster = Some(hash),
        Taken::Never(why) => {
            has.roster = Some(hash);
            return Err(why);
        }
        Taken::No(why) => return Err(why),
    }
    Ok(())
}

/// When the next one is due.
fn leased(
    keys: &HubKeys,
    name: &str,
    origin: &str,
    terms: &LeaseTerms,
    source: &Source,
) -> Result<u64, String> {
    let (lease, bytes) = lease::sign(keys, name, origin, terms)?;
    let content = &lease.content;
    match post(source, "v1/leases", &json!({"lease": base64_encode(&bytes)}))? {
        Taken::Yes => Ok(content.issued_at + (content.expires_at - content.issued_at) / 2),
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
