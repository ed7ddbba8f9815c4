//! A removable medium with a copy of the log on it: what a box without neighbours has instead of them.
//!
//! One thread looks whether the medium is there, brings what is new (`copy`), and states it in writing, signed by the log
//! key. Nobody waits for it; a medium that hangs holds up this thread and nothing else, not even the end of the program.
//! A medium is no peer: it is never counted among those who mirror, and what the status says of it is a fact of its own.
//! Refuses to do: write where nothing is mounted, or on another medium than the configured one; go on over a head that this
//! log signed and does not have, which speaks for an older disk.
//! Invariant: what is stated was read back from the medium before.

mod copy;
mod place;

use super::clock::now_millis;
use super::{Condition, Published, Shared};
use crate::config::{Config, MediumConfig};
use anyhow::{Context as _, Result};
use bulla_formats::medium::{MediumId, MediumStatement};
use bulla_formats::note::{SignedNote, log_line};
use bulla_ledger::Control;
use copy::{CopyError, Found, Signer, bring, found, log_name, write_whole};
use ed25519_dalek::Signer as _;
use place::{Mounted, mounted};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

/// Where the log's control values name the media it was copied to.
const KNOWN: &str = "media";
/// Media that are remembered, newest first.
const KNOWN_MAX: usize = 16;
/// Statements, beside the logs.
const STATEMENTS: &str = "statements";
/// Longest wait at a start for what the medium knows.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// Longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How it stands with the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is mounted.
    Absent,
    /// Another medium than the configured one.
    Foreign,
    /// It holds less than the log, and is being written or checked.
    Copying,
    /// It holds every signed head.
    Current,
    /// There is no room for what is new.
    Full,
    /// It takes nothing.
    ReadOnly,
    /// It failed, or was pulled out.
    Failed,
    /// It holds a head that this disk does not have.
    Ahead,
}

impl State {
    /// All of them.
    pub const ALL: [State; 8] = [
        State::Absent,
        State::Foreign,
        State::Copying,
        State::Current,
        State::Full,
        State::ReadOnly,
        State::Failed,
        State::Ahead,
    ];

    /// As status and telemetry name it.
    pub fn name(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Foreign => "foreign",
            State::Copying => "copying",
            State::Current => "current",
            State::Full => "full",
            State::ReadOnly => "read-only",
            State::Failed => "failed",
            State::Ahead => "ahead",
        }
    }
}

/// A medium that the log was copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub id: MediumId,
    /// Entries that were read back from it.
    pub size: u64,
    /// When, Unix milliseconds.
    pub stated_millis: u64,
}

/// What the thread shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// How it stands.
    pub state: State,
    /// Why it does not go on.
    pub trouble: Option<String>,
    /// What is mounted, and as what.
    pub mounted: Option<(String, String)>,
    /// The medium that is in.
    pub id: Option<MediumId>,
    /// Every medium that this log was copied to, the newest first.
    pub media: Vec<Known>,
}

/// Where the thread shows it; empty without `[medium]`.
#[derive(Default)]
pub(super) struct Shown(RwLock<Option<Arc<Facts>>>);

impl Shown {
    pub(super) fn get(&self) -> Option<Arc<Facts>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, facts: Facts) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(facts));
    }
}

/// Begins the thread and waits, for a bounded time, for what the medium knows: a finding that speaks for an older disk.
pub(super) fn begin(config: &Config, shared: &Arc<Shared>, control: &Control) -> Result<Option<String>> {
    // A command at the stopped box copies nothing.
    let (Some(medium), Ok(_)) = (&config.medium, tokio::runtime::Handle::try_current()) else {
        return Ok(None);
    };
    let (first, looked) = channel();
    let keeper = Keeper {
        config: medium.clone(),
        control: control.clone(),
        known: remembered(control),
        facts: None,
        checked: None,
        failed: None,
        first: Some(first),
    };
    let weak = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("medium".to_owned())
        .spawn(move || keeper.run(&weak))
        .context("cannot start a thread")?;
    Ok(looked.recv_timeout(START_PATIENCE).ok().flatten())
}

/// A mount, and the medium on it. Numbers of mounts are used again.
type Place = (Mounted, Option<MediumId>);

/// State of the thread.
struct Keeper {
    config: MediumConfig,
    control: Control,
    known: Vec<Known>,
    facts: Option<Facts>,
    /// The medium, and its mount, on which so many entries were read back.
    checked: Option<(Place, u64)>,
    /// What failed, how long to leave it alone, and since when.
    failed: Option<(Place, Duration, Instant)>,
    /// Whoever starts the box waits here.
    first: Option<Sender<Option<String>>>,
}

/// What a look comes to.
struct Looked {
    state: State,
    trouble: Option<String>,
    id: Option<MediumId>,
}

impl Looked {
    fn new(state: State, id: Option<MediumId>) -> Self {
        Looked { state, trouble: None, id }
    }

    fn because(self, trouble: impl Into<String>) -> Self {
        Looked { trouble: Some(trouble.into()), ..self }
    }
}

impl Keeper {
    fn run(mut self, shared: &Weak<Shared>) {
        loop {
            let Some(shared) = shared.upgrade() else { return };
            let there = mounted(&self.config.path);
            let looked = match &there {
                Ok(None) => {
                    let what = format!("nothing is mounted at {}", self.config.path.display());
                    Looked::new(State::Absent, None).because(what)
                }
                Err(error) => Looked::new(State::Failed, None).because(error.to_string()),
                Ok(Some(mounted)) => self.look(&shared, mounted),
            };
            self.show(&shared, there.ok().flatten(), looked);
            // Whoever started is told of an older disk by `look`, and else that there is nothing to tell.
            self.tell_start(None);
            drop(shared);
            std::thread::sleep(Duration::from_secs(self.config.every_seconds));
        }
    }

    fn tell_start(&mut self, finding: Option<String>) -> bool {
        self.first.take().is_some_and(|first| first.send(finding).is_ok())
    }

    fn look(&mut self, shared: &Shared, mounted: &Mounted) -> Looked {
        let directory = place::directory(&self.config.path);
        let (id, wanted) = (place::id(&directory), self.config.wanted());
        let id = match id {
            Ok(id) => id,
            Err(error) => return self.fail((mounted.clone(), None), &error.into()),
        };
        let place = (mounted.clone(), id);
        if let Some((at, pause, since)) = &self.failed
            && *at == place
            && since.elapsed() < *pause
            && let Some(facts) = &self.facts
        {
            return Looked { state: facts.state, trouble: facts.trouble.clone(), id };
        }
        if wanted.is_some() && id != wanted {
            let what = "it is not the medium of medium.id; put that one in, or change the configuration";
            return Looked::new(State::Foreign, id).because(what);
        }
        match self.copy(shared, &place) {
            Ok(looked) => {
                self.failed = None;
                looked
            }
            Err(error) => self.fail(place, &error),
        }
    }

    fn copy(&mut self, shared: &Shared, at: &Place) -> Result<Looked, CopyError> {
        let (id, directory) = (at.1, place::directory(&self.config.path));
        let log = directory.join("logs").join(log_name(shared.origin.as_str()));
        let log_key = shared.log_key.verifying_key().to_bytes();
        if self.checked.as_ref().is_some_and(|(checked, _)| checked != at) {
            self.checked = None;
        }
        if self.checked.is_none() {
            let signer = Signer { origin: &shared.origin, log_key, attestation_key: &shared.attestation_key };
            match found(&log, &signer, &shared.reader)? {
                Found::Ahead { size, forked } => return Ok(self.ahead(shared, id, size, forked)),
                Found::Nothing(Some(why)) => log::warn!("the medium is written anew: {why}"),
                Found::Nothing(None) => {}
                Found::Head(size) => {
                    log::info!("a medium with {size} entries of this log is in, and is checked")
                }
            }
        }
        self.tell_start(None);
        // Nothing is signed before the first epoch of this run, and nothing while a rollback is suspected.
        let published = shared.published().filter(|_| !is_suspected(shared));
        let Some(published) = published else {
            let what =
                "nothing is stated before the first head of this run, or while a rollback is suspected";
            return Ok(Looked::new(State::Copying, id).because(what));
        };
        let (from, to) = (self.checked.as_ref().map_or(0, |(_, size)| *size), published.snapshot.size());
        if from == to {
            return Ok(Looked::new(State::Current, id));
        }
        self.show(shared, Some(at.0.clone()), Looked::new(State::Copying, id));
        let id = id.map_or_else(|| place::name(&directory), Ok)?;
        let written = bring(&log, &shared.reader, from, to, &published.note)?;
        self.state_it(shared, &published, id)?;
        log::debug!("the medium {id} holds {to} entries; {written} files were written");
        self.checked = Some(((at.0.clone(), Some(id)), to));
        Ok(Looked::new(State::Current, Some(id)))
    }

    /// Signs what the medium holds, on the medium, and remembers it.
    fn state_it(&mut self, shared: &Shared, head: &Published, id: MediumId) -> Result<(), CopyError> {
        let (size, root) = (head.snapshot.size(), head.snapshot.root());
        let (origin, unix_millis) = (shared.origin.clone(), now_millis());
        let text = MediumStatement { origin, size, root, medium: id, unix_millis }.text();
        let signature = shared.log_key.sign(text.as_bytes()).to_bytes();
        let line = log_line(shared.origin.as_str(), &shared.log_key.verifying_key().to_bytes(), &signature);
        let note = SignedNote { text, lines: vec![line] }.encode();
        let statements = place::directory(&self.config.path).join(STATEMENTS);
        fs::create_dir_all(&statements)?;
        write_whole(&statements, &log_name(shared.origin.as_str()), note.as_bytes())?;
        self.known.retain(|known| known.id != id);
        self.known.insert(0, Known { id, size, stated_millis: unix_millis });
        self.known.truncate(KNOWN_MAX);
        if let Err(error) = self.control.put(KNOWN, rows(&self.known).to_string().as_bytes()) {
            log::warn!("which media hold the log cannot be noted: {error}");
        }
        Ok(())
    }

    /// The medium knows more than the disk: nothing on it is touched.
    fn ahead(&mut self, shared: &Shared, id: Option<MediumId>, size: u64, forked: bool) -> Looked {
        let name = id.map_or_else(|| "without a name".to_owned(), |id| id.to_string());
        let what =
            if forked { "which is of another history than this disk" } else { "more than this disk has" };
        let finding = format!(
            "the medium {name} holds a head of this log with {size} entries, {what}: the disk is an older copy, or \
             another box runs with this box's keys"
        );
        // Whoever starts the box takes it from there.
        if !self.tell_start(Some(finding.clone())) && !is_suspected(shared) {
            log::error!("rollback suspected: {finding}; the box is read-only until an operator decides");
            if let Err(error) = self.control.journal(now_millis(), &format!("rollback-suspected: {finding}"))
            {
                log::error!("the finding could not be journalled: {error}");
            }
            shared.set_condition(Condition::RollbackSuspected { finding: finding.clone() });
        }
        Looked::new(State::Ahead, id).because(finding)
    }

    /// What failed is tried again later, after longer and longer pauses; another medium at once.
    fn fail(&mut self, at: Place, error: &CopyError) -> Looked {
        let (state, words) = match error {
            CopyError::Medium(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
                    State::Full,
                    "there is no room on it; what it holds stays, put in a larger one".to_owned(),
                ),
                io::ErrorKind::ReadOnlyFilesystem => {
                    (State::ReadOnly, "it is mounted read-only, or locked; what it holds stays".to_owned())
                }
                _ => (State::Failed, format!("{error}; was it pulled out? What it held before stays")),
            },
            CopyError::Log(_) | CopyError::Lies(_) => (State::Failed, error.to_string()),
        };
        // What was read back once is not read again only because there is no room for more.
        if state != State::Full {
            self.checked = None;
        }
        let before = self.failed.take().filter(|(failed, ..)| *failed == at).map(|(_, pause, _)| pause * 2);
        let pause = before.unwrap_or(Duration::from_secs(self.config.every_seconds)).min(PAUSE_MAX);
        let id = at.1;
        self.failed = Some((at, pause, Instant::now()));
        Looked::new(state, id).because(words)
    }

    /// Shows it; what has changed is logged.
    fn show(&mut self, shared: &Shared, mounted: Option<Mounted>, looked: Looked) {
        let facts = Facts {
            state: looked.state,
            trouble: looked.trouble,
            mounted: mounted.map(|mounted| (mounted.device, mounted.file_system)),
            id: looked.id,
            media: self.known.clone(),
        };
        let before = self.facts.as_ref();
        if before.is_none_or(|before| (before.state, before.id) != (facts.state, facts.id)) {
            let id = facts.id.map_or_else(|| "(new)".to_owned(), |id| id.to_string());
            match (facts.state, &facts.trouble) {
                (State::Current | State::Copying, _) => log::info!("medium {id}: {}", facts.state.name()),
                (state, Some(why)) => log::warn!("medium {id}: {}: {why}", state.name()),
                (state, None) => log::warn!("medium {id}: {}", state.name()),
            }
        }
        self.facts = Some(facts.clone());
        shared.medium.set(facts);
    }
}

fn is_suspected(shared: &Shared) -> bool {
    matches!(*shared.condition.borrow(), Condition::RollbackSuspected { .. })
}

fn rows(known: &[Known]) -> Value {
    let row = |known: &Known| json!({"id": known.id.to_string(), "size": known.size, "statedMillis": known.stated_millis});
    known.iter().map(row).collect()
}

/// The media of earlier runs. A value that cannot be read is forgotten: the media themselves say more.
fn remembered(control: &Control) -> Vec<Known> {
    let bytes = control.get(KNOWN).ok().flatten().unwrap_or_default();
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let read = |row: &Value| {
        let id = MediumId::parse(row["id"].as_str()?)?;
        Some(Known { id, size: row["size"].as_u64()?, stated_millis: row["statedMillis"].as_u64()? })
    };
    value.as_array().into_iter().flatten().filter_map(read).take(KNOWN_MAX).collect()
}
