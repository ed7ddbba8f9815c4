//! People who use the console: who they are, what they are there for, and what they prove it with.
//!
//! `<state>/people.json` (mode 0600) holds names, roles and what checks passwords, never passwords. `bulla-box people` and
//! the console replace the file atomically under a lock; the running box looks at the file's identity whenever somebody
//! asks for anything, so that a change counts at once.
//! A person is added with a one-time code, which is shown once and turned into a password by its owner: nobody ever knows
//! somebody else's password, and no box has one of its own.
//! Refuses to do: let anybody in while the file is unreadable; give a name to a second person, because names are in seals;
//! believe a file whose checksum is not that of its bytes.
//! Invariant: a [`Person`] handed out was not removed when the file was last looked at.

pub mod attempts;
pub mod password;
pub mod sessions;

use crate::driver::clock::now_millis;
use crate::list_file::{Fault, ListFile, Stamp};
use crate::random;
use bulla_formats::checked_json;
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use zeroize::Zeroizing;

/// Format of the file.
const FORMAT: &str = "people/v1";
/// The client that seals name when a person seals in the console; the person is a commitment beside it (G5).
pub const CONSOLE: &str = "console";
/// Stands before a person's number where the log and the box's own messages name whoever acted.
const LABEL: &str = "person.";
/// How long a one-time code is good for.
pub const CODE_LASTS: Duration = Duration::from_secs(24 * 3_600);
/// Random bytes of a one-time code: 80 bits, which nobody guesses in a day.
const CODE_BYTES: usize = 10;

/// Names that no registered client can have, because the console seals and acts under them.
pub fn is_reserved(name: &str) -> bool {
    name == CONSOLE || name.starts_with(LABEL)
}

/// Why people cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The operating system refused.
    #[error("{path}: {source}; check that it exists and that this user may use it")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The file is there but not understood.
    #[error("{path} is not a list of people ({reason}); restore it from a copy")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The name has been given.
    #[error("the name {0:?} was given before; names stay in seals, so choose another")]
    Taken(String),
    /// The name cannot be used.
    #[error("{0:?} is not a person's name here: use 1 to 64 of the characters a-z 0-9 . _ -")]
    Name(String),
    /// No such person.
    #[error("nobody is named {0:?}; see `bulla-box people list`")]
    Unknown(String),
    /// Removed before.
    #[error("{0:?} is removed already")]
    Removed(String),
    /// What was to be replaced has been replaced by somebody else.
    #[error("what {0:?} proves itself with was changed at the same moment; log in again")]
    Changed(String),
    /// The operating system has no randomness.
    #[error("no random bytes: {0}")]
    Random(String),
}

impl From<Fault> for PeopleError {
    fn from(Fault { path, source }: Fault) -> Self {
        PeopleError::Io { path, source }
    }
}

/// What a person is there for; `docs/console.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    /// Seals documents and annuls what it has mis-scanned itself.
    Clerk,
    /// Seals, and annuls whatever was mis-scanned.
    Qa,
    /// Runs the box.
    Ops,
    /// Looks at everything, changes nothing.
    Auditor,
}

impl Duty {
    /// All of them.
    pub const ALL: [Duty; 4] = [Duty::Clerk, Duty::Qa, Duty::Ops, Duty::Auditor];

    /// The name used in files, answers and messages.
    pub fn name(self) -> &'static str {
        match self {
            Duty::Clerk => "clerk",
            Duty::Qa => "qa",
            Duty::Ops => "ops",
            Duty::Auditor => "auditor",
        }
    }
}

/// What a person proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", rename_all_fields = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum Credential {
    /// A one-time code, for choosing a password and nothing else.
    Code {
        /// SHA-256 of the code's characters, in hex.
        sha256: String,
        /// Until when (Unix milliseconds).
        expires_millis: u64,
    },
    /// A password.
    Password {
        /// Its Argon2id hash as a PHC string.
        phc: String,
    },
}

/// One person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Person {
    /// Counts from 1; stands for the person wherever a name would be personal data.
    pub number: u32,
    /// As the person logs in.
    pub name: String,
    /// What the person is there for.
    pub duty: Duty,
    /// What the person proves itself with.
    pub credential: Credential,
    /// When it was added (Unix milliseconds).
    pub created_millis: u64,
    /// When it was removed; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_millis: Option<u64>,
}

impl Person {
    /// What the log and the box's messages call the person.
    pub fn label(&self) -> String {
        format!("{LABEL}{}", self.number)
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (label, name, duty) = (self.label(), &self.name, self.duty.name());
        write!(f, "{label}\t{name}\t{duty}\tadded {}", utc(self.created_millis))?;
        match (&self.credential, self.removed_millis) {
            (_, Some(removed)) => write!(f, "\tremoved {}", utc(removed)),
            (Credential::Code { expires_millis, .. }, None) => {
                write!(f, "\tone-time code until {}", utc(*expires_millis))
            }
            (Credential::Password { .. }, None) => write!(f, "\tpassword"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeopleFile {
    bulla: String,
    people: Vec<Person>,
}

#[derive(Default)]
struct Snapshot {
    stamp: Option<Stamp>,
    by_name: HashMap<String, Arc<Person>>,
}

/// The people of one box.
pub struct PeopleStore {
    file: ListFile,
    current: RwLock<Arc<Snapshot>>,
}

impl PeopleStore {
    /// The people in `state_dir`; nothing is read yet. No file means nobody.
    pub fn new(state_dir: &Path) -> Self {
        PeopleStore { file: ListFile::new(state_dir, "people"), current: RwLock::default() }
    }

    /// The person of this name, unless removed.
    pub fn by_name(&self, name: &str) -> Result<Option<Arc<Person>>, PeopleError> {
        Ok(self.snapshot()?.by_name.get(name).cloned())
    }

    /// Whether nothing about this person has changed.
    pub fn is_current(&self, person: &Person) -> Result<bool, PeopleError> {
        Ok(self.snapshot()?.by_name.get(&person.name).is_some_and(|current| **current == *person))
    }

    /// All people, removed ones included, in the order they were added.
    pub fn list(&self) -> Result<Vec<Person>, PeopleError> {
        Ok(self.read()?.1)
    }

    /// Adds a person; returns the one-time code, which is kept nowhere.
    pub fn add(&self, name: &str, duty: Duty) -> Result<Zeroizing<String>, PeopleError> {
        // One spelling of a name only: two that differ in case would be two people to the box and one to everybody else.
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(PeopleError::Name(name.chars().take(80).collect()));
        }
        let (code, credential) = new_code()?;
        self.change(|people| {
            if people.iter().any(|person| person.name == name) {
                return Err(PeopleError::Taken(name.to_owned()));
            }
            let number = people.iter().map(|person| person.number).max().unwrap_or(0) + 1;
            let (name, created_millis) = (name.to_owned(), now_millis());
            people.push(Person { number, name, duty, credential, created_millis, removed_millis: None });
            Ok(())
        })?;
        Ok(code)
    }

    /// Takes a person's password away and gives a one-time code for a new one; sessions end.
    pub fn reset(&self, name: &str) -> Result<Zeroizing<String>, PeopleError> {
        let (code, credential) = new_code()?;
        self.change_one(name, |person| {
            person.credential = credential;
            Ok(())
        })?;
        Ok(code)
    }

    /// Gives a person another role; sessions end.
    pub fn assign(&self, name: &str, duty: Duty) -> Result<(), PeopleError> {
        self.change_one(name, |person| {
            person.duty = duty;
            Ok(())
        })
    }

    /// Removes a person for good; sessions end.
    pub fn remove(&self, name: &str) -> Result<(), PeopleError> {
        self.change_one(name, |person| {
            person.removed_millis = Some(now_millis());
            Ok(())
        })
    }

    /// Puts a password in place of what this person had when it was looked up.
    pub fn set_password(&self, person: &Person, phc: String) -> Result<Person, PeopleError> {
        let mut changed = person.clone();
        changed.credential = Credential::Password { phc };
        self.change_one(&person.name, |kept| {
            if kept != person {
                return Err(PeopleError::Changed(person.name.clone()));
            }
            *kept = changed.clone();
            Ok(())
        })?;
        Ok(changed)
    }

    fn change_one(
        &self,
        name: &str,
        edit: impl FnOnce(&mut Person) -> Result<(), PeopleError>,
    ) -> Result<(), PeopleError> {
        self.change(|people| {
            let person = people.iter_mut().find(|person| person.name == name);
            let person = person.ok_or_else(|| PeopleError::Unknown(name.chars().take(80).collect()))?;
            if person.removed_millis.is_some() {
                return Err(PeopleError::Removed(name.to_owned()));
            }
            edit(person)
        })
    }

    fn change(
        &self,
        edit: impl FnOnce(&mut Vec<Person>) -> Result<(), PeopleError>,
    ) -> Result<(), PeopleError> {
        let lock = self.file.lock()?;
        let (_, mut people) = self.read()?;
        edit(&mut people)?;
        let text = text(people).expect("strings and numbers always serialise");
        Ok(self.file.replace(&lock, text.as_bytes())?)
    }

    /// The stamp is taken before reading: a file replaced in between is read again next time.
    fn read(&self) -> Result<(Option<Stamp>, Vec<Person>), PeopleError> {
        let stamp = self.file.stamp()?;
        if stamp.is_none() {
            return Ok((None, Vec::new()));
        }
        let people = parse(&self.file.read()?)
            .map_err(|reason| PeopleError::Damaged { path: self.file.path().to_owned(), reason })?;
        Ok((stamp, people))
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, PeopleError> {
        let stamp = self.file.stamp()?;
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.stamp == stamp {
                return Ok(Arc::clone(&current));
            }
        }
        let (stamp, people) = self.read()?;
        let present = people.into_iter().filter(|person| person.removed_millis.is_none());
        let by_name = present.map(|person| (person.name.clone(), Arc::new(person))).collect();
        let fresh = Arc::new(Snapshot { stamp, by_name });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }
}

/// The people in the bytes of their file; else what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Vec<Person>, String> {
    let bytes = checked_json::body(bytes).map_err(|error| error.to_string())?;
    let file: PeopleFile = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if file.bulla != FORMAT {
        return Err(format!("it is of format {:?}", file.bulla));
    }
    for (at, person) in file.people.iter().enumerate() {
        if file.people[..at].iter().any(|other| other.name == person.name || other.number == person.number) {
            return Err(format!("person {} is there twice", person.number));
        }
    }
    Ok(file.people)
}

/// The text of their file.
pub fn text(people: Vec<Person>) -> Result<String, serde_json::Error> {
    let file = PeopleFile { bulla: FORMAT.to_owned(), people };
    Ok(checked_json::with_checksum(&serde_json::to_string_pretty(&file)?))
}

/// A new code, and what checks it.
fn new_code() -> Result<(Zeroizing<String>, Credential), PeopleError> {
    let code = random::text::<CODE_BYTES>("").map_err(PeopleError::Random)?;
    let expires_millis = now_millis() + CODE_LASTS.as_millis() as u64;
    let credential = Credential::Code { sha256: code_hash(&code), expires_millis };
    // In groups, as people read it out; the groups are no part of it.
    let mut grouped = Zeroizing::new(String::with_capacity(code.len() + 3));
    for (at, character) in code.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            grouped.push('-');
        }
        grouped.push(character);
    }
    Ok((grouped, credential))
}

/// SHA-256 of a code as somebody typed it: case, hyphens and spaces do not matter. Its 80 bits need no slow hash.
pub fn code_hash(typed: &str) -> String {
    let typed = typed.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_lowercase());
    let plain: Zeroizing<String> = Zeroizing::new(typed.collect());
    sha256(&[b"bulla/one-time-code/v1\0", plain.as_bytes()]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn people_come_with_a_code_and_go_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let (running, administrator) =
            (PeopleStore::new(directory.path()), PeopleStore::new(directory.path()));
        assert!(running.by_name("m.keller").unwrap().is_none());
        let code = administrator.add("m.keller", Duty::Ops).unwrap();
        assert_eq!((code.len(), code.matches('-').count()), (19, 3));
        let person = running.by_name("m.keller").unwrap().unwrap();
        assert_eq!((person.label().as_str(), person.duty), ("person.1", Duty::Ops));
        let Credential::Code { sha256, .. } = &person.credential else { panic!("{person}") };
        assert_eq!(*sha256, code_hash(&code.to_uppercase().replace('-', " ")));
        assert_ne!(*sha256, code_hash(&code[1..]));

        let changed = running.set_password(&person, "$argon2id$x".to_owned()).unwrap();
        assert!(matches!(running.set_password(&person, String::new()), Err(PeopleError::Changed(_))));
        assert!(administrator.is_current(&changed).unwrap() && !running.is_current(&person).unwrap());
        administrator.assign("m.keller", Duty::Auditor).unwrap();
        assert!(!running.is_current(&changed).unwrap());
        administrator.reset("m.keller").unwrap();
        administrator.remove("m.keller").unwrap();
        assert!(running.by_name("m.keller").unwrap().is_none());
        assert!(matches!(administrator.remove("m.keller"), Err(PeopleError::Removed(_))));
        assert!(matches!(administrator.reset("nobody"), Err(PeopleError::Unknown(_))));
        assert!(matches!(administrator.add("m.keller", Duty::Qa), Err(PeopleError::Taken(_))));
        administrator.add("second", Duty::Clerk).unwrap();
        let numbers: Vec<u32> = running.list().unwrap().iter().map(|person| person.number).collect();
        assert_eq!(numbers, [1, 2]);
        for bad in ["", "M.Keller", "a b", "\u{e4}", &"x".repeat(65)] {
            assert!(matches!(administrator.add(bad, Duty::Qa), Err(PeopleError::Name(_))), "{bad:?}");
        }
        let path = directory.path().join("people.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(path).unwrap().contains(&code.replace('-', "")));
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let directory = tempfile::tempdir().unwrap();
        let store = PeopleStore::new(directory.path());
        store.add("a", Duty::Clerk).unwrap();
        let path = directory.path().join("people.json");
        let good = fs::read_to_string(&path).unwrap();
        let (_, people) = store.read().unwrap();
        let twice = text([people.clone(), people].concat()).unwrap();
        for bad in [
            "{".to_owned(),
            good.replace("clerk", "ops"),
            checked_json::with_checksum("{\"bulla\":\"people/v2\",\"people\":[]}"),
            checked_json::with_checksum("{\"bulla\":\"people/v1\",\"people\":[],\"x\":1}"),
            twice,
        ] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(store.by_name("a"), Err(PeopleError::Damaged { .. })));
        }
    }

    #[test]
    fn the_consoles_names_are_nobody_elses() {
        assert!(is_reserved("console") && is_reserved("person.1") && is_reserved("person.x"));
        assert!(!is_reserved("console-2") && !is_reserved("person"));
    }
}
