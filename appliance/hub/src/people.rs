//! Who may ask a served hub, and for what: `bulla-hub people`.
//!
//! `<state_dir>/people.json` (mode 0600, `hub-people/v2`) holds names, roles, and by what each is known: the hash of a token,
//! never the token, or the common name of a certificate. It is one JSON object closed by a checksum, read again at every
//! request, so that a removal counts at once. `hub-people/v1`, which knew tokens only, is read, too.
//! Refuses to do: give a name to a second person, even after removal, because names are in the list of queries for ever;
//! let anybody in while the file is not understood.
//! Invariant: a token is printed once and kept nowhere.

use crate::config::Config;
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
const FORMAT: &str = "hub-people/v2";
const FORMAT_OF_TOKENS: &str = "hub-people/v1";
/// Longest common name in characters (X.520, ub-common-name).
const COMMON_NAME_MAX: usize = 64;
/// What every token starts with, so that secret scanners find leaked ones.
const TOKEN_PREFIX: &str = "bullahub_";

/// `people ...`.
#[derive(Debug, Subcommand)]
pub enum PeopleCommand {
    /// Let somebody in; prints the token, once, where they are known by one
    Add {
        /// 1 to 64 of the characters a-z A-Z 0-9 . _ -
        name: String,
        /// What they may ask for
        #[arg(long)]
        role: Role,
        /// They are known by a certificate of `serve.client_ca` with this common name, and get no token
        #[arg(long, value_name = "COMMON NAME")]
        certificate: Option<String>,
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
    /// SHA-256 (hex) of their token, where they have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// Common name of their certificate, where they are known by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
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
    if file.bulla != FORMAT && file.bulla != FORMAT_OF_TOKENS {
        return Err(unusable(&path, &"it is of another version"));
    }
    let known_by_one = |person: &Person| person.token_sha256.is_some() != person.certificate.is_some();
    if !file.people.iter().all(known_by_one) {
        return Err(unusable(&path, &"somebody in it is known by nothing, or by two things"));
    }
    Ok(file.people)
}

/// Who has this token, and has not been removed.
pub fn by_token(state_dir: &Path, token: &str) -> Result<Option<Person>, Failure> {
    // Comparing hashes leaves timing nothing to tell of the token.
    let hash = sha256(&[token.as_bytes()]).to_string();
    let has = |person: &Person| person.token_sha256.as_ref() == Some(&hash);
    let all = list(state_dir)?;
    Ok(all.into_iter().find(|person| person.removed_millis.is_none() && has(person)))
}

/// Who is known by a certificate of this common name, and has not been removed.
pub fn by_certificate(state_dir: &Path, name: &str) -> Result<Option<Person>, Failure> {
    let has = |person: &Person| person.certificate.as_deref() == Some(name);
    let all = list(state_dir)?;
    Ok(all.into_iter().find(|person| person.removed_millis.is_none() && has(person)))
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

/// A token, and what is kept of it.
fn token() -> Result<(Zeroizing<String>, String), Failure> {
    let mut raw = Zeroizing::new([0; 32]);
    getrandom::fill(raw.as_mut_slice())
        .map_err(|error| Failure::usage(format!("the operating system gives no random bytes ({error})")))?;
    let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", *Zeroizing::new(hex::encode(*raw))));
    let hash = sha256(&[token.as_bytes()]).to_string();
    Ok((token, hash))
}

/// Lets somebody in; the token, where they are not known by a certificate of this common name.
fn add(
    state_dir: &Path,
    name: &str,
    role: Role,
    certificate: Option<&str>,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let words = format!("{name:?} is no name: use 1 to 64 of the characters a-z A-Z 0-9 . _ -");
        return Err(Failure::usage(words));
    }
    let (token, token_sha256) = match certificate {
        None => token().map(|(token, hash)| (Some(token), Some(hash)))?,
        Some(common) if common.trim() != common || common.chars().any(char::is_control) => {
            return Err(Failure::usage(format!(
                "{common:?} is no common name: it begins or ends with a space, or has control characters"
            )));
        }
        Some(common) if !(1..=COMMON_NAME_MAX).contains(&common.chars().count()) => {
            let words = format!("{common:?} is no common name: those have 1 to {COMMON_NAME_MAX} characters");
            return Err(Failure::usage(words));
        }
        Some(_) => (None, None),
    };
    change(state_dir, |people| {
        if people.iter().any(|person| person.name == name) {
            let words = format!(
                "the name {name:?} was given before; names stay in the list of queries, choose another"
            );
            return Err(Failure::usage(words));
        }
        let has = |person: &&Person| {
            person.removed_millis.is_none() && person.certificate.as_deref() == certificate
        };
        if let (Some(common), Some(other)) = (certificate, people.iter().find(has)) {
            let words = format!("{} is known by the certificate {common:?} already", other.name);
            return Err(Failure::usage(words));
        }
        people.push(Person {
            name: name.to_owned(),
            role,
            token_sha256,
            certificate: certificate.map(str::to_owned),
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
pub fn execute(config: &Config, command: &PeopleCommand, json: bool) -> Result<Exit, Failure> {
    let (progress, state_dir) = (Progress::new(json), &config.state_dir);
    match command {
        PeopleCommand::Add { name, role, certificate } => {
            let vouched = config.serve.as_ref().is_some_and(|serve| serve.client_ca.is_some());
            if certificate.is_some() && !vouched {
                return Err(Failure::usage(
                    "nobody vouches for certificates: name the CA in serve.client_ca, restart the hub, then add people",
                ));
            }
            let token = add(state_dir, name, *role, certificate.as_deref())?;
            let mut value = json!({"name": name, "role": role.name()});
            match (&token, certificate) {
                (Some(token), _) => {
                    value["token"] = token.as_str().into();
                    progress.say(token, &value);
                    progress.complain(&format!(
                        "{name} may ask as {}; the token above is not shown again",
                        role.name()
                    ));
                }
                (None, common) => {
                    value["certificate"] = common.as_deref().into();
                    let common = common.as_deref().unwrap_or_default();
                    progress.say(
                        &format!("{name} may ask as {}, by certificate {common:?}", role.name()),
                        &value,
                    );
                }
            }
        }
        PeopleCommand::List => {
            let all = list(state_dir)?;
            for person in &all {
                let removed =
                    person.removed_millis.map_or_else(String::new, |at| format!(", removed {}", utc(at)));
                let by = person
                    .certificate
                    .as_ref()
                    .map_or_else(|| "token".to_owned(), |common| format!("certificate {common:?}"));
                let line = format!(
                    "{}: {}, by {by}, since {}{removed}",
                    person.name,
                    person.role.name(),
                    utc(person.added_millis)
                );
                let value = json!({
                    "name": person.name, "role": person.role.name(), "addedMillis": person.added_millis,
                    "removedMillis": person.removed_millis, "certificate": person.certificate,
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
        let anna = add(state, "anna", Role::Auditor, None).unwrap().unwrap();
        let otto = add(state, "otto", Role::Operator, None).unwrap().unwrap();
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
        assert!(remove(state, "anna").is_err() && add(state, "anna", Role::Auditor, None).is_err());
        for bad in ["", "a b", "a/b", &"x".repeat(65)] {
            assert!(add(state, bad, Role::Operator, None).is_err(), "{bad:?}");
        }
        fs::write(path(state), text.replace("auditor", "supervisor")).unwrap();
        assert!(by_token(state, &otto).is_err(), "nobody comes in by a file that was changed");
    }

    #[test]
    fn certificates_are_known_by_their_name_until_they_are_removed_and_by_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        assert!(add(state, "anna", Role::Auditor, Some("Anna Berg")).unwrap().is_none(), "no token");
        let who = |common: &str| by_certificate(state, common).unwrap().map(|person| person.name);
        assert_eq!(who("Anna Berg").as_deref(), Some("anna"));
        assert!(
            add(state, "anna2", Role::Operator, Some("Anna Berg")).is_err(),
            "two people, one certificate"
        );
        for other in ["anna", "Anna", "anna berg", "Anna Berg ", ""] {
            assert_eq!(who(other), None, "{other:?}");
        }
        for bad in ["", " Anna", "Anna\n", &"x".repeat(65)] {
            assert!(add(state, "new", Role::Operator, Some(bad)).is_err(), "{bad:?}");
        }
        // Without a token nobody comes in by one, not even by the empty one.
        assert_eq!(by_token(state, "").unwrap(), None);
        remove(state, "anna").unwrap();
        assert_eq!(who("Anna Berg"), None);
        assert!(
            add(state, "anna-berg", Role::Operator, Some("Anna Berg")).is_ok(),
            "the certificate is free"
        );

        // The file of a hub that knew tokens only; and one in which somebody is known by nothing.
        let file = |bulla: &str, known: &str| {
            let person =
                format!("{{\"name\": \"vera\", \"role\": \"supervisor\", {known}\"addedMillis\": 1}}");
            let text = format!("{{\"bulla\": \"{bulla}\", \"people\": [{person}]}}");
            fs::write(path(state), checked_json::with_checksum(&text)).unwrap();
        };
        let hash = sha256(&[b"bullahub_1"]);
        file("hub-people/v1", &format!("\"tokenSha256\": \"{hash}\", "));
        assert_eq!(by_token(state, "bullahub_1").unwrap().map(|person| person.name).as_deref(), Some("vera"));
        for (bulla, known) in [
            ("hub-people/v2", String::new()),
            ("hub-people/v2", format!("\"tokenSha256\": \"{hash}\", \"certificate\": \"v\", ")),
            ("hub-people/v3", format!("\"tokenSha256\": \"{hash}\", ")),
        ] {
            file(bulla, &known);
            assert!(by_token(state, "bullahub_1").is_err(), "{bulla} {known}");
        }
    }
}
