//! One watched folder as a state machine: what has been seen and found comes in, what to do comes out.
//!
//! A file is *waiting* until it has rested long enough, nobody writes to it, and its sidecars have rested too; then it is
//! *examined*, and if it is whole, *sealed*; then it is *done* until it changes. What cannot be sealed goes to the error
//! folder. Whatever a worker reports about a state that has passed counts for nothing.
//! Refuses to do: read a clock, a file or a folder.
//! Invariants: at most one effect is out for a file, at most `policy.jobs` for all; a file is sealed only with the content
//! of an examination that found it unchanged; a file that changes is judged anew from the beginning; memory is bounded by
//! [`FILES_MAX`].

use crate::key::Content;
use crate::names::{self, Role};
use crate::options::{Policy, Sidecars};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most files known at one time; more are seen when others have gone.
pub const FILES_MAX: usize = 1 << 20;
/// First pause after something that may pass by itself.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Most files of one stem that are looked at for a sidecar's document.
const STEM_MAX: usize = 64;

/// Steady milliseconds.
pub type Millis = u64;

/// What tells one state of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// When it was last written, in Unix nanoseconds.
    pub modified_nanos: u64,
    /// Its inode.
    pub inode: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is there, like this.
    Seen(PathBuf, Stamp),
    /// It is not there.
    Gone(PathBuf),
    /// Somebody writes to it.
    Written(PathBuf),
    /// Whoever wrote to it has closed it.
    Closed(PathBuf),
    /// Some of what happened was not told; who writes where is unknown.
    Lost,
    /// A look through the whole folder begins.
    LookBegins,
    /// It ends: what was not seen in it is not there.
    LookEnds,
    /// The answer to [`Effect::Examine`].
    Examined(PathBuf, Stamp, Finding),
    /// The answer to [`Effect::Seal`].
    Sealed(PathBuf, Stamp, Ending),
    /// The answer to [`Effect::Reject`]: whether it has left the folder.
    Rejected(PathBuf, Stamp, bool),
}

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is whole.
    Complete(Content),
    /// It is whole and its results are here.
    Known,
    /// It is not whole.
    Incomplete(String),
    /// Somebody holds it, or it cannot be read now.
    Busy(String),
    /// It changed while it was read, or is gone.
    Changed,
}

/// What became of a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Sealed, and its results are on the disk.
    Done,
    /// Not now; perhaps after this pause.
    Later(String, Option<Duration>),
    /// It changed meanwhile.
    Changed,
    /// Never.
    Refused(String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Read it, with these sidecars.
    Examine(PathBuf, Stamp, Vec<PathBuf>),
    /// Have it sealed, and write its results.
    Seal(PathBuf, Stamp, Content),
    /// Move it to the error folder with this reason.
    Reject(PathBuf, Stamp, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// For rest, or for something to pass.
    Waiting,
    /// For a place in work.
    Ready(Next),
    /// With a worker, who took this version of it.
    InWork(u64),
    /// Until it changes.
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Seal(Content),
    Reject(String),
}

/// Why a file waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It is not whole, or lacks its sidecar.
    Wanting(String),
    /// Somebody holds it.
    Busy(String),
    /// It cannot be sealed at present.
    Door(String),
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    phase: Phase,
    /// Grows with everything that happens to it.
    version: u64,
    /// Since when nothing has.
    resting: Millis,
    /// Its place in the queue.
    due: Option<Millis>,
    pauses: u32,
    /// Since when it has been found wanting.
    wanting: Option<Millis>,
    trouble: Option<Trouble>,
    writing: bool,
    gone: bool,
    seen_in: u64,
}

/// How many files are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Census {
    /// Resting, or waiting for something.
    pub waiting: usize,
    /// Being examined, sealed or moved.
    pub in_work: usize,
    /// Sealed, and still here.
    pub done: usize,
}

/// The state machine.
pub struct Folder {
    policy: Policy,
    files: BTreeMap<PathBuf, File>,
    queue: BTreeSet<(Millis, PathBuf)>,
    in_work: usize,
    done: usize,
    look: u64,
}

impl Folder {
    /// Nothing has been seen.
    pub fn new(policy: Policy) -> Self {
        Folder { policy, files: BTreeMap::new(), queue: BTreeSet::new(), in_work: 0, done: 0, look: 0 }
    }

    /// How many files are where.
    pub fn census(&self) -> Census {
        let waiting = self.files.len() - self.in_work - self.done;
        Census { waiting, in_work: self.in_work, done: self.done }
    }

    /// When [`Folder::poll`] has something next, if nothing happens before.
    pub fn wake(&self) -> Option<Millis> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Files that are not done, and why, when it is for more than rest; at most `most`.
    pub fn left(&self, most: usize) -> Vec<(PathBuf, Option<Trouble>)> {
        let left = self.files.iter().filter(|(_, file)| file.phase != Phase::Done);
        left.take(most).map(|(name, file)| (name.clone(), file.trouble.clone())).collect()
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Millis, event: Event) {
        match event {
            Event::Seen(name, stamp) => self.seen(now, name, stamp),
            Event::Gone(name) => self.gone(now, &name),
            Event::Written(name) => self.happened(now, &name, |file| file.writing = true),
            Event::Closed(name) => self.happened(now, &name, |file| file.writing = false),
            Event::Lost => {
                let names: Vec<PathBuf> = self
                    .files
                    .iter()
                    .filter(|(_, file)| file.writing)
                    .map(|(name, _)| name.clone())
                    .collect();
                names.iter().for_each(|name| self.happened(now, name, |file| file.writing = false));
            }
            Event::LookBegins => self.look += 1,
            Event::LookEnds => {
                let look = self.look;
                let missing = self.files.iter().filter(|(_, file)| file.seen_in != look);
                let missing: Vec<PathBuf> = missing.map(|(name, _)| name.clone()).collect();
                missing.iter().for_each(|name| self.gone(now, name));
            }
            Event::Examined(name, stamp, finding) => self.examined(now, &name, stamp, finding),
            Event::Sealed(name, stamp, ending) => self.sealed(now, &name, stamp, ending),
            Event::Rejected(name, stamp, moved) => {
                if self.back(now, &name, stamp) {
                    if moved { self.forget(now, &name) } else { self.finish(&name) }
                }
            }
        }
    }

    /// What to do now; as much as there are places for.
    pub fn poll(&mut self, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.in_work < self.policy.jobs {
            let Some((due, name)) = self.queue.first().filter(|(due, _)| *due <= now).cloned() else { break };
            self.queue.remove(&(due, name.clone()));
            let Some(file) = self.files.get_mut(&name) else { continue };
            file.due = None;
            let (stamp, version) = (file.stamp, file.version);
            let phase = std::mem::replace(&mut file.phase, Phase::Waiting);
            let effect = match phase {
                Phase::Ready(Next::Seal(content)) if self.lies_there(&content) => {
                    Effect::Seal(name.clone(), stamp, content)
                }
                Phase::Ready(Next::Reject(reason)) => Effect::Reject(name.clone(), stamp, reason),
                // A sidecar that was examined has left since: what is there now is another unit.
                Phase::Waiting | Phase::Ready(Next::Seal(_)) => match self.next(now, &name, stamp) {
                    Some(effect) => effect,
                    None => continue,
                },
                other => {
                    self.files.entry(name).and_modify(|file| file.phase = other);
                    continue;
                }
            };
            if let Some(file) = self.files.get_mut(&name) {
                file.phase = Phase::InWork(version);
                self.in_work += 1;
                effects.push(effect);
            }
        }
        effects
    }

    /// Whether the sidecars that an examination found are still there. (One that changes sends its document back itself.)
    fn lies_there(&self, content: &Content) -> bool {
        content.sidecars.iter().all(|sidecar| self.files.get(&sidecar.name).is_some_and(|file| !file.gone))
    }

    /// What is done with a file that has rested; nothing while its unit is not all there or not all at rest.
    fn next(&mut self, now: Millis, name: &Path, stamp: Stamp) -> Option<Effect> {
        let sidecars = self.policy.sidecars != Sidecars::Off;
        let mut with = Vec::new();
        if names::role(name, sidecars) == Role::Sidecar {
            let resting = self.files.get(name).map_or(now, |file| file.resting);
            let alone = resting.saturating_add(millis(self.policy.alone));
            if !self.documents_of(name).is_empty() {
                // Its document takes it along.
                self.finish(name);
                return None;
            }
            if now < alone {
                self.queue_at(name, alone);
                return None;
            }
        } else if sidecars {
            for sidecar in names::sidecars_of(name) {
                let Some(file) = self.files.get(&sidecar).filter(|file| !file.gone) else { continue };
                let rested = file.resting.saturating_add(millis(self.policy.stability));
                if file.writing || now < rested {
                    self.queue_at(name, rested.max(now.saturating_add(millis(PAUSE_FIRST))));
                    return None;
                }
                with.push(sidecar);
            }
            if with.is_empty() && self.policy.sidecars == Sidecars::Required {
                self.want(now, name, "there is no XML or JSON of the same name beside it");
                return None;
            }
        }
        Some(Effect::Examine(name.to_owned(), stamp, with))
    }

    fn seen(&mut self, now: Millis, name: PathBuf, stamp: Stamp) {
        let role = names::role(&name, self.policy.sidecars != Sidecars::Off);
        if role == Role::Ignored {
            return;
        }
        let (look, full) = (self.look, self.files.len() >= FILES_MAX);
        match self.files.get_mut(&name) {
            Some(file) => {
                file.seen_in = look;
                if file.stamp == stamp && !file.gone {
                    return;
                }
                (file.stamp, file.gone) = (stamp, false);
                self.happened(now, &name, |_| ());
            }
            None if full => return,
            None => {
                let file = File {
                    stamp,
                    phase: Phase::Waiting,
                    version: 0,
                    resting: now,
                    due: None,
                    pauses: 0,
                    wanting: None,
                    trouble: None,
                    writing: false,
                    gone: false,
                    seen_in: look,
                };
                self.files.insert(name.clone(), file);
                self.queue_at(&name, now.saturating_add(millis(self.policy.stability)));
            }
        }
        if role == Role::Sidecar {
            self.unit_changed(now, &name);
        }
    }

    /// A sidecar is another one now: so is what it describes.
    fn unit_changed(&mut self, now: Millis, sidecar: &Path) {
        for document in self.documents_of(sidecar) {
            self.happened(now, &document, |_| ());
        }
    }

    /// The documents that a sidecar may describe.
    fn documents_of(&self, sidecar: &Path) -> Vec<PathBuf> {
        let stem = sidecar.with_extension("");
        let from = names::beside(&stem, "");
        let family = self.files.range::<Path, _>((Bound::Included(from.as_path()), Bound::Unbounded));
        let begins = |name: &Path| {
            name.as_os_str().as_encoded_bytes().starts_with(stem.as_os_str().as_encoded_bytes())
        };
        let document = |(name, file): (&PathBuf, &File)| {
            let fits =
                !file.gone && names::role(name, true) == Role::Document && names::describes(sidecar, name);
            fits.then(|| name.clone())
        };
        family.take_while(|(name, _)| begins(name)).take(STEM_MAX).filter_map(document).collect()
    }

    /// Something happened to a file: it is judged anew when it has rested.
    fn happened(&mut self, now: Millis, name: &Path, change: impl FnOnce(&mut File)) {
        let Some(file) = self.files.get_mut(name) else { return };
        change(file);
        file.version += 1;
        file.resting = now;
        (file.wanting, file.pauses, file.trouble) = (None, 0, None);
        match file.phase {
            Phase::InWork(_) => return,
            Phase::Done => self.done -= 1,
            Phase::Waiting | Phase::Ready(_) => {}
        }
        file.phase = Phase::Waiting;
        if file.writing {
            self.unqueue(name);
        } else {
            self.queue_at(name, now.saturating_add(millis(self.policy.stability)));
        }
    }

    fn gone(&mut self, now: Millis, name: &Path) {
        let Some(file) = self.files.get_mut(name) else { return };
        if let Phase::InWork(_) = file.phase {
            // Its worker's answer is still to come.
            file.gone = true;
            file.version += 1;
        } else {
            self.forget(now, name);
        }
    }

    fn forget(&mut self, now: Millis, name: &Path) {
        self.unqueue(name);
        let Some(file) = self.files.remove(name) else { return };
        if file.phase == Phase::Done {
            self.done -= 1;
        }
        // What it leaves behind may be a document itself now.
        if self.policy.sidecars != Sidecars::Off && names::role(name, true) == Role::Document {
            names::sidecars_of(name).for_each(|sidecar| self.happened(now, &sidecar, |_| ()));
        }
    }

    fn unqueue(&mut self, name: &Path) {
        if let Some(due) = self.files.get_mut(name).and_then(|file| file.due.take()) {
            self.queue.remove(&(due, name.to_owned()));
        }
    }

    fn queue_at(&mut self, name: &Path, due: Millis) {
        self.unqueue(name);
        if let Some(file) = self.files.get_mut(name) {
            file.due = Some(due);
            self.queue.insert((due, name.to_owned()));
        }
    }

    /// Ends the work on a file; whether what was found still counts.
    fn back(&mut self, now: Millis, name: &Path, stamp: Stamp) -> bool {
        let Some(file) = self.files.get_mut(name) else { return false };
        let Phase::InWork(taken) = file.phase else { return false };
        self.in_work -= 1;
        file.phase = Phase::Waiting;
        if file.gone {
            self.forget(now, name);
            return false;
        }
        if taken == file.version && stamp == file.stamp {
            return true;
        }
        let rested = file.resting.saturating_add(millis(self.policy.stability));
        if !file.writing {
            self.queue_at(name, rested.max(now));
        }
        false
    }

    fn finish(&mut self, name: &Path) {
        self.unqueue(name);
        if let Some(file) = self.files.get_mut(name) {
            (file.phase, file.trouble, file.wanting, file.pauses) = (Phase::Done, None, None, 0);
            self.done += 1;
        }
    }

    fn ready(&mut self, now: Millis, name: &Path, next: Next) {
        if let Some(file) = self.files.get_mut(name) {
            file.phase = Phase::Ready(next);
        }
        // In front of what is yet to be examined: what has begun is finished first.
        self.queue_at(name, now.min(1));
    }

    /// It is not all there: it waits, and in the end it is given up.
    fn want(&mut self, now: Millis, name: &Path, why: &str) {
        let Some(file) = self.files.get_mut(name) else { return };
        let since = *file.wanting.get_or_insert(now);
        if now.saturating_sub(since) >= millis(self.policy.give_up) {
            self.ready(now, name, Next::Reject(format!("it is not complete: {why}")));
        } else {
            let given_up = since.saturating_add(millis(self.policy.give_up));
            self.pause(now, name, Trouble::Wanting(why.to_owned()), None, given_up);
        }
    }

    fn pause(&mut self, now: Millis, name: &Path, trouble: Trouble, after: Option<Duration>, most: Millis) {
        let Some(file) = self.files.get_mut(name) else { return };
        let doubled = PAUSE_FIRST.saturating_mul(1 << file.pauses.min(5)).min(PAUSE_MAX);
        file.pauses += 1;
        file.trouble = Some(trouble);
        let pause = after.map_or(doubled, |after| after.clamp(PAUSE_FIRST, PAUSE_MAX));
        self.queue_at(name, now.saturating_add(millis(pause)).min(most));
    }

    fn examined(&mut self, now: Millis, name: &Path, stamp: Stamp, finding: Finding) {
        if !self.back(now, name, stamp) {
            return;
        }
        match finding {
            Finding::Complete(content) => {
                let accepted =
                    self.policy.formats.is_empty() || self.policy.formats.contains(&content.format);
                let next = if accepted {
                    Next::Seal(content)
                } else {
                    let what = content.format.media_type(names::extension(name));
                    Next::Reject(format!("files of this kind ({what}) are not accepted in this folder"))
                };
                self.ready(now, name, next);
            }
            Finding::Known => self.finish(name),
            Finding::Incomplete(why) => self.want(now, name, &why),
            Finding::Busy(why) => self.pause(now, name, Trouble::Busy(why), None, Millis::MAX),
            Finding::Changed => self.happened(now, name, |_| ()),
        }
    }

    fn sealed(&mut self, now: Millis, name: &Path, stamp: Stamp, ending: Ending) {
        if !self.back(now, name, stamp) {
            return;
        }
        match ending {
            Ending::Done => self.finish(name),
            // It is examined again before it is sent again: by then it may be another one.
            Ending::Later(why, after) => self.pause(now, name, Trouble::Door(why), after, Millis::MAX),
            Ending::Changed => self.happened(now, name, |_| ()),
            Ending::Refused(why) => self.ready(now, name, Next::Reject(why)),
        }
    }
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
