//! The loop: what is noticed goes into [`Folder`], what it wants done goes to workers, and their answers come back.
//!
//! Refuses to do: begin on a folder that is not there, or one whose results would be documents of another.
//! Invariants: one thread owns the state; workers hold at most `policy.jobs` documents, each read in pieces; what a worker
//! was told is in the event it answers with.

use crate::door::{Door, NotSealed, Note, Order};
use crate::examine::{examine, open_at_rest, unchanged};
use crate::folder::{Effect, Ending, Event, Finding, Folder, Millis, Stamp, Trouble};
use crate::key::Content;
use crate::names;
use crate::options::{Notice, Options, Policy};
use crate::results;
use crate::watch::Watch;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// Longest pause of the loop: how late a stop, or what the kernel told, is noticed.
const TURN: Duration = Duration::from_millis(50);
/// How often the door hears how many files are where.
const CENSUS_EVERY: Duration = Duration::from_secs(1);
/// How often a folder is looked through that nobody tells about.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// Names in the summary of what is left.
const LEFT_MAX: usize = 20;

/// Why a folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// A directory is not there or cannot be used.
    #[error("{path} cannot be used ({source}); check that it exists and that this user may write to it")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// When to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When told.
    Stopped,
    /// When nothing is left to do, or nothing has been done for this long.
    Settled(Duration),
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Documents whose results were written.
    pub sealed: u64,
    /// Documents moved to the error folder.
    pub rejected: u64,
    /// What is left, and why: names of at most 20.
    pub left: Vec<(PathBuf, Option<Trouble>)>,
    /// How many are left.
    pub left_count: usize,
}

struct Shared<'a> {
    options: &'a Options,
    door: &'a dyn Door,
}

/// Watches until `until`, or until `stop` is set; what is in work is finished first.
pub fn run(
    options: &Options,
    door: &dyn Door,
    stop: &AtomicBool,
    until: Until,
) -> Result<Summary, IntakeError> {
    prepare(options)?;
    let shared = Shared { options, door };
    let (to_workers, jobs) = mpsc::sync_channel::<Effect>(options.policy.jobs);
    let (to_loop, answers) = mpsc::channel::<Event>();
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..options.policy.jobs {
            let (to_loop, jobs, shared) = (to_loop.clone(), &jobs, &shared);
            scope.spawn(move || {
                loop {
                    let job = jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
                    let Ok(job) = job else { return };
                    if to_loop.send(shared.work(job)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(to_loop);
        let summary = turn(&shared, &to_workers, &answers, stop, until);
        drop(to_workers);
        Ok(summary)
    })
}

fn prepare(options: &Options) -> Result<(), IntakeError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| IntakeError::Directory { path, source }
    };
    fs::read_dir(&options.folder).map_err(refused(&options.folder))?;
    for path in [Some(&options.errors), options.results.as_ref()].into_iter().flatten() {
        fs::create_dir_all(path).map_err(refused(path))?;
    }
    let results = options.results.as_ref().unwrap_or(&options.folder);
    for path in [results, &options.errors] {
        let probe = path.join(".probe.bulla-tmp");
        results::put(&probe, b"").map_err(refused(path))?;
        results::sweep(path, names::DEPTH_MAX).map_err(refused(path))?;
    }
    Ok(())
}

fn turn(
    shared: &Shared<'_>,
    workers: &mpsc::SyncSender<Effect>,
    answers: &mpsc::Receiver<Event>,
    stop: &AtomicBool,
    until: Until,
) -> Summary {
    let (options, door) = (shared.options, shared.door);
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(Millis::MAX);
    let mut folder = Folder::new(Policy { jobs: options.policy.jobs.max(1), ..options.policy.clone() });
    let mut watch = Watch::new(options);
    door.note(&Note::Watching(watch.means()));
    let polling = options.notice == Notice::Polling || watch.means() == "polling";
    let look_every = if polling { POLL_EVERY.min(options.look_every) } else { options.look_every };
    let mut look_at = Instant::now();
    let (mut census_at, mut progress_at) = (Instant::now(), Instant::now());
    let mut last = String::new();
    let mut summary = Summary::default();
    let mut looked = false;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let mut told = Vec::new();
        if watch.listen(&mut |event| told.push(event)) {
            look_at = Instant::now();
        }
        told.drain(..).for_each(|event| folder.handle(now(), event));
        if look_at <= Instant::now() && !stopping {
            match watch.look(&mut |event| folder.handle(now(), event)) {
                Ok(()) => looked = true,
                Err(error) => {
                    let reason = format!("the folder cannot be looked through ({error}); it is tried again");
                    door.note(&Note::Waits { name: Path::new(""), reason: &reason });
                }
            }
            look_at = Instant::now() + look_every;
        }
        if !stopping {
            for effect in folder.poll(now()) {
                // There are as many places as files in work.
                if workers.send(effect).is_err() {
                    return summary;
                }
            }
        }
        let census = folder.census();
        if census_at <= Instant::now() {
            door.census(census, &last);
            census_at = Instant::now() + CENSUS_EVERY;
        }
        let idle = looked && census.waiting == 0 && census.in_work == 0;
        let over = match until {
            Until::Stopped => false,
            Until::Settled(patience) => idle || (census.in_work == 0 && progress_at.elapsed() >= patience),
        };
        if over || (stopping && census.in_work == 0) {
            door.census(census, &last);
            summary.left_count = census.waiting;
            summary.left = folder.left(LEFT_MAX);
            return summary;
        }
        let pause =
            folder.wake().map_or(TURN, |due| Duration::from_millis(due.saturating_sub(now())).min(TURN));
        let pause = if census.in_work >= options.policy.jobs { TURN } else { pause };
        let Ok(event) = answers.recv_timeout(pause) else { continue };
        for event in std::iter::once(event).chain(answers.try_iter()) {
            match &event {
                Event::Sealed(_, _, Ending::Done) => summary.sealed += 1,
                Event::Rejected(_, _, true) => summary.rejected += 1,
                Event::Sealed(name, _, Ending::Later(why, _)) => {
                    last.clone_from(why);
                    door.note(&Note::Waits { name, reason: why });
                }
                _ => {}
            }
            if matches!(
                &event,
                Event::Sealed(_, _, Ending::Done)
                    | Event::Rejected(_, _, true)
                    | Event::Examined(_, _, Finding::Complete(_) | Finding::Known)
            ) {
                progress_at = Instant::now();
            }
            folder.handle(now(), event);
        }
    }
}

impl Shared<'_> {
    fn work(&self, effect: Effect) -> Event {
        match effect {
            Effect::Examine(name, at, sidecars) => {
                let finding = self.examine(&name, at, &sidecars);
                Event::Examined(name, at, finding)
            }
            Effect::Seal(name, at, content) => {
                let ending = self.seal(&name, at, &content);
                Event::Sealed(name, at, ending)
            }
            Effect::Reject(name, at, reason) => {
                let moved = self.reject(&name, &reason);
                Event::Rejected(name, at, moved)
            }
        }
    }

    fn examine(&self, name: &Path, at: Stamp, sidecars: &[PathBuf]) -> Finding {
        if results::are_here(self.options, name, at, sidecars) {
            return Finding::Known;
        }
        let content = match examine(&self.options.folder, name, at, sidecars) {
            Ok((_, content)) => content,
            Err(finding) => return finding,
        };
        let known = results::receipt(self.options, name).is_some_and(|receipt| receipt.is_of(&content));
        if known && results::restamp(self.options, name, at, &content).is_ok() {
            return Finding::Known;
        }
        Finding::Complete(content)
    }

    fn seal(&self, name: &Path, at: Stamp, content: &Content) -> Ending {
        let path = self.options.folder.join(name);
        let file = match open_at_rest(&path, at) {
            Ok(file) => file,
            Err(Finding::Busy(why)) => return Ending::Later(why, None),
            Err(_) => return Ending::Changed,
        };
        let before = results::receipt(self.options, name).filter(|receipt| receipt.is_of_document(content));
        let order = Order {
            file: &file,
            name,
            content,
            media_type: content.format.media_type(names::extension(name)),
            key: content.key(&self.options.identity),
            supersedes: before.map(|receipt| receipt.leaf_hash().to_owned()),
        };
        let sealed = match self.door.seal(&order) {
            Ok(sealed) => sealed,
            Err(NotSealed::Later { reason, after }) => return Ending::Later(reason, after),
            Err(NotSealed::Changed) => return Ending::Changed,
            Err(NotSealed::Refused { reason }) => return Ending::Refused(reason),
        };
        // Whatever replaced it meanwhile is examined; the seal is of what was there, and found again by its bytes.
        if unchanged(&path, &file, at).is_err() {
            return Ending::Changed;
        }
        match results::write(self.options, &order, at, &sealed) {
            Ok(()) => {
                self.door.note(&Note::Sealed { name, sealed: &sealed });
                Ending::Done
            }
            Err(error) => {
                let reason = format!("it is sealed, but its results cannot be written ({error})");
                Ending::Later(reason, None)
            }
        }
    }

    fn reject(&self, name: &Path, reason: &str) -> bool {
        let with: Vec<PathBuf> =
            names::sidecars_of(name).filter(|sidecar| self.options.folder.join(sidecar).is_file()).collect();
        match results::reject(self.options, name, &with, reason) {
            Ok(moved) => {
                self.door.note(&Note::Rejected { name, reason });
                moved
            }
            Err(error) => {
                let why = format!(
                    "it cannot be sealed ({reason}), and the error folder cannot be written ({error})"
                );
                self.door.note(&Note::Waits { name, reason: &why });
                false
            }
        }
    }
}
