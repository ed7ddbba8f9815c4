//! Who may ask a served hub, and for what: `bulla-hub people`.
//!
//! `<state_dir>/people.json` (mode 0600, `hub-people/v1`) holds names, roles and hashes of tokens, never tokens; it is one
//! JSON object closed by a checksum, read again at every request, so that a removal counts at once.
//! Refuses to do: give a name to a second person, even after removal, because names are in the list of queries for ever;
//! let anybody in while the file is not understood.
//! Invariant: a token is printed once and kept nowhere.

use crate::exit::{Exit, Failure};
use crate::hub::now_millis;
use crate::keys::write_private;
use crate::progress::Progress;
use bulla_formats::checked_json;
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;
use clap::Subcommand;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE: &str = "people.json";
const FORMAT: &str = "hub-people/v1";
/// What every token starts with, so that secret scanners find leaked ones.
const TOKEN_PREFIX: &str = "bullahub_";

/// `people ...`.
#[derive(Debug, Subcommand)]
pub enum PeopleCommand {
    /// Let somebody in; prints the token, once
    Add {
        /// 1 to 64 of the characters a-z A-Z 0-9 . _ -
        name: String,
        /// What they may ask for
        #[arg(long)]
        role: Role,
    },
    /// Show who may ask
    List,
    /// Let somebody in no more
    Remove {
        /// Their name
        name: String,
    },
}

/// What somebody may ask for; each role may what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Metrics.
    Monitor,
    /// How far logs are archived, and findings, too.
    Operator,
    /// Documents, too: find, statement, timeline.
    Auditor,
    /// Who asked for what, too.
    Supervisor,
}

impl Role {
    /// All of them, each with more rights than the one before.
    pub const ALL: [Role; 4] = [Role::Monitor, Role::Operator, Role::Auditor, Role::Supervisor];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Monitor => "monitor",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
            Role::Supervisor => "supervisor",
        }
    }
}

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Person {
    /// Their name.
    pub name: String,
    /// What they may ask for.
    pub role: Role,
    /// SHA-256 (hex) of their token.
    pub token_sha256: String,
    /// When they were let in (Unix milliseconds).
    pub added_millis: u64,
    /// When they were let in no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_millis: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeopleFile {
    bulla: String,
    people: Vec<Person>,
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{} cannot be used ({reason}); restore it from a copy", path.display()))
}

/// Everybody, those who were removed included.
pub fn list(state_dir: &Path) -> Result<Vec<Person>, Failure> {
    let path = path(state_dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unusable(&path, &error)),
    };
    let body = checked_json::body(&bytes).map_err(|error| unusable(&path, &error))?;
    let file: PeopleFile = serde_json::from_slice(&body).map_err(|error| unusable(&path, &error))?;
    if file.bulla != FORMAT {
        return Err(unusable(&path, &"it is of another version"));
    }
    Ok(file.people)
}

/// Who has this token, and has not been removed.
pub fn by_token(state_dir: &Path, token: &str) -> Result<Option<Person>, Failure> {
    // Comparing hashes leaves timing nothing to tell of the token.
    let hash = sha256(&[token.as_bytes()]).to_string();
    let all = list(state_dir)?;
    Ok(all.into_iter().find(|person| person.removed_millis.is_none() && person.token_sha256 == hash))
}

fn change(
    state_dir: &Path,
    change: impl FnOnce(&mut Vec<Person>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = path(state_dir);
    let directory = File::open(state_dir).map_err(|error| unusable(state_dir, &error))?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)
        .map_err(|error| unusable(&path, &io::Error::from(error)))?;
    let mut people = list(state_dir)?;
    change(&mut people)?;
    let file = PeopleFile { bulla: FORMAT.to_owned(), people };
    let text = serde_json::to_string_pretty(&file).map_err(|error| unusable(&path, &error))?;
    write_private(&path, checked_json::with_checksum(&text).as_bytes())
        .map_err(|error| unusable(&path, &error))
}

fn add(state_dir: &Path, name: &str, role: Role) -> Result<Zeroizing<String>, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let words = format!("{name:?} is no name: use 1 to 64 of the characters a-z A-Z 0-9 . _ -");
        return Err(Failure::usage(words));
    }
    let mut raw = Zeroizing::new([0; 32]);
    getrandom::fill(raw.as_mut_slice())
        .map_err(|error| Failure::usage(format!("the operating system gives no random bytes ({error})")))?;
    let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", *Zeroizing::new(hex::encode(*raw))));
    change(state_dir, |people| {
        if people.iter().any(|person| person.name == name) {
            let words = format!(
                "the name {name:?} was given before; names stay in the list of queries, choose another"
            );
            return Err(Failure::usage(words));
        }
        people.push(Person {
            name: name.to_owned(),
            role,
            token_sha256: sha256(&[token.as_bytes()]).to_string(),
            added_millis: now_millis(),
            removed_millis: None,
        });
        Ok(())
    })?;
    Ok(token)
}

fn remove(state_dir: &Path, name: &str) -> Result<(), Failure> {
    change(state_dir, |people| {
        let found = people.iter_mut().find(|person| person.name == name && person.removed_millis.is_none());
        let words = format!("nobody who may ask is named {name:?}; see `bulla-hub people list`");
        found.ok_or_else(|| Failure::nothing(words))?.removed_millis = Some(now_millis());
        Ok(())
    })
}

/// `people ...`.
pub fn execute(state_dir: &Path, command: &PeopleCommand, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    match command {
        PeopleCommand::Add { name, role } => {
            let token = add(state_dir, name, *role)?;
            let value = json!({"name": name, "role": role.name(), "token": *token});
            progress.say(&token, &value);
            progress
                .complain(&format!("{name} may ask as {}; the token above is not shown again", role.name()));
        }
        PeopleCommand::List => {
            let all = list(state_dir)?;
            for person in &all {
                let removed =
                    person.removed_millis.map_or_else(String::new, |at| format!(", removed {}", utc(at)));
                let line = format!(
                    "{}: {}, since {}{removed}",
                    person.name,
                    person.role.name(),
                    utc(person.added_millis)
                );
                let value = json!({
                    "name": person.name, "role": person.role.name(), "addedMillis": person.added_millis,
                    "removedMillis": person.removed_millis,
                });
                progress.say(&line, &value);
            }
            if all.is_empty() {
                return Ok(Exit::Nothing);
            }
        }
        PeopleCommand::Remove { name } => {
            remove(state_dir, name)?;
            progress.say(&format!("{name} may ask no more"), &json!({"name": name, "removed": true}));
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_by_their_hash_until_they_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        assert_eq!(by_token(state, "bullahub_").unwrap(), None);
        let anna = add(state, "anna", Role::Auditor).unwrap();
        let otto = add(state, "otto", Role::Operator).unwrap();
        assert_eq!(
            by_token(state, &anna).unwrap().map(|person| (person.name, person.role)),
            Some(("anna".into(), Role::Auditor))
        );
        assert_eq!(by_token(state, &otto).unwrap().map(|person| person.role), Some(Role::Operator));
        for bad in ["", "anna", &anna[..anna.len() - 1], &anna.to_uppercase()] {
            assert_eq!(by_token(state, bad).unwrap(), None);
        }
        let text = fs::read_to_string(path(state)).unwrap();
        assert!(!text.contains(anna.as_str()), "a token is kept nowhere");
        remove(state, "anna").unwrap();
        assert_eq!(by_token(state, &anna).unwrap(), None);
        assert!(remove(state, "anna").is_err() && add(state, "anna", Role::Auditor).is_err());
        for bad in ["", "a b", "a/b", &"x".repeat(65)] {
            assert!(add(state, bad, Role::Operator).is_err(), "{bad:?}");
        }
        fs::write(path(state), text.replace("auditor", "supervisor")).unwrap();
        assert!(by_token(state, &otto).is_err(), "nobody comes in by a file that was changed");
    }
}
