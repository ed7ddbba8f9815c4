//! The scrub thread: reads everything that the box has stored, again and again, slowly, and says in the log what it
//! found.
//!
//! One pass: segments, control, openings, side objects (the ledger's part), then the small files of the state
//! directory. At the first finding of a pass an `integrity` entry is sent ahead, at its end the whole one.
//! Refuses to do: repair anything (a closed segment is evidence; `bulla-box fsck --repair` rebuilds what follows from
//! the entries), read faster than `scrub_bytes_per_second`, or run while the box is asked to stop.
//! Invariant: a pass that was broken off says nothing.

use super::clock::{local_time, now_millis};
use super::{Command, Shared};
use crate::config::SelfCheckConfig;
use crate::state_files;
use bulla_formats::body::integrity::{
    CheckedStore, EntryRange, FINDINGS_MAX, Finding, IntegrityBody, STORE_BYTES_MAX, WHAT_BYTES_MAX,
};
use bulla_formats::der;
use bulla_formats::entry::{Kind, LocalTime, TreeState};
use bulla_ledger::{Pace, Problem, Scrubbed};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Longest pause between a start and the first pass.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(600);
/// Scheduling priority of the thread (nice): it gets what others leave.
const NICE: i32 = 19;
/// Findings spelt out in the status.
const SHOWN_MAX: usize = 8;

/// Ends the thread.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// From now on.
    pub fn stop(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; returns whether it was told to stop.
    fn wait(&self, pause: Duration) -> bool {
        let stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(stopped, pause, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The thread's state.
pub struct Scrubber {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Sender<Command>,
    pub(super) state_dir: PathBuf,
    pub(super) config: SelfCheckConfig,
    pub(super) stop: Stop,
}

/// So many bytes a second, counted from the start of the pass.
#[derive(Debug)]
struct Allowance {
    stop: Stop,
    begun: Instant,
    per_second: u64,
    read: AtomicU64,
    shared: Arc<super::checks::Checks>,
}

impl Pace for Allowance {
    fn before_read(&self, bytes: usize) -> io::Result<()> {
        self.shared.scrub_bytes.fetch_add(bytes as u64, Relaxed);
        let read = self.read.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        let due = Duration::from_secs_f64(read as f64 / self.per_second as f64);
        let pause = due.saturating_sub(self.begun.elapsed());
        if self.stop.is_set() || (!pause.is_zero() && self.stop.wait(pause)) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the box is stopping"));
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.is_set()
    }
}

impl Scrubber {
    /// Works until told to stop.
    pub fn run(self) {
        // Only for this thread: Linux takes a thread's id here.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            log::warn!("the scrub runs at normal priority: {error}");
        }
        let period = Duration::from_secs(self.config.scrub_pass_seconds);
        let mut pause = period.min(FIRST_AFTER_MAX);
        while !self.stop.wait(pause) {
            let begun = Instant::now();
            self.pass();
            pause = period.saturating_sub(begun.elapsed());
        }
    }

    fn pass(&self) {
        let began = local_time();
        self.shared.checks.scrub_mut().running = true;
        let pace = Arc::new(Allowance {
            stop: self.stop.clone(),
            begun: Instant::now(),
            per_second: self.config.scrub_bytes_per_second,
            read: AtomicU64::new(0),
            shared: Arc::clone(&self.shared.checks),
        });
        let mut first = true;
        let scrubbed = self.shared.reader.scrub(pace, &mut |problem| {
            log::error!("scrub: {problem}");
            if first {
                first = false;
                self.sent_ahead(began, problem);
            }
        });
        let Some(scrubbed) = scrubbed else {
            self.shared.checks.scrub_mut().running = false;
            return;
        };
        let files = state_files::check(&self.state_dir);
        for damaged in &files.damaged {
            log::error!("scrub: {}: {}", damaged.file, damaged.what);
        }
        self.publish(&scrubbed, &files);
        self.say(&complete(began, &scrubbed, &files));
    }

    /// The word sent ahead at the first finding.
    fn sent_ahead(&self, began: LocalTime, problem: &Problem) {
        let snapshot = self.shared.reader.snapshot();
        let mut checks = self.shared.checks.scrub_mut();
        checks.damaged += 1;
        if checks.findings.len() < SHOWN_MAX {
            checks.findings.push(problem.to_string());
        }
        drop(checks);
        self.say(&IntegrityBody {
            head: TreeState::new(snapshot.size(), snapshot.root()),
            began,
            ended: local_time(),
            complete: false,
            stores: Vec::new(),
            findings: vec![finding(problem, snapshot.size())],
            more: 0,
        });
    }

    fn publish(&self, scrubbed: &Scrubbed, files: &state_files::Judged) {
        let damaged = scrubbed.problems_total + files.damaged.len() as u64;
        let words = scrubbed.problems.iter().map(ToString::to_string);
        let files_words = files.damaged.iter().map(|damaged| format!("{}: {}", damaged.file, damaged.what));
        let bytes = scrubbed.stores.iter().map(|store| store.bytes).sum::<u64>() + files.bytes;
        *self.shared.checks.scrub_mut() = super::checks::ScrubResult {
            ended_millis: Some(now_millis()),
            bytes,
            running: false,
            damaged,
            findings: files_words.chain(words).take(SHOWN_MAX).collect(),
        };
        self.shared.checks.passed_over();
        log::info!("scrub: {bytes} bytes read, {damaged} finding(s)");
    }

    /// Has an entry written; a box that cannot write now says it in the next pass.
    fn say(&self, body: &IntegrityBody) {
        if let Err(error) = body.check() {
            log::error!("the integrity entry cannot be made: {error}");
            return;
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(Kind::Integrity, der::encode(body), reply);
        let answered = self.queue.blocking_send(command).is_ok().then(|| answer.blocking_recv());
        match answered {
            Some(Ok(Ok(_))) => {}
            Some(Ok(Err(error))) => log::warn!("the integrity entry could not be logged: {error}"),
            Some(Err(_)) | None => log::warn!("the integrity entry could not be logged: the box is stopping"),
        }
    }
}

fn complete(began: LocalTime, scrubbed: &Scrubbed, files: &state_files::Judged) -> IntegrityBody {
    let mut stores: Vec<CheckedStore> = scrubbed
        .stores
        .iter()
        .map(|store| CheckedStore { name: store.name.clone(), bytes: store.bytes, damaged: store.damaged })
        .collect();
    let damaged = files.damaged.len() as u64;
    stores.push(CheckedStore { name: "files".to_owned(), bytes: files.bytes, damaged });
    let of_files = files.damaged.iter().map(|damaged| Finding {
        file: clipped(&damaged.file, STORE_BYTES_MAX),
        entries: None,
        what: clipped(&damaged.what, WHAT_BYTES_MAX),
        repaired: false,
    });
    let of_log = scrubbed.problems.iter().map(|problem| finding(problem, scrubbed.size));
    let findings: Vec<Finding> = of_files.chain(of_log).take(FINDINGS_MAX).collect();
    IntegrityBody {
        head: TreeState::new(scrubbed.size, scrubbed.root),
        began,
        ended: local_time(),
        complete: true,
        stores,
        more: scrubbed.problems_total + damaged - findings.len() as u64,
        findings,
    }
}

/// A problem as entries tell it. What lies past the head belongs to no entry of it.
fn finding(problem: &Problem, size: u64) -> Finding {
    let last = problem.last.filter(|last| *last >= problem.index && problem.index < size);
    Finding {
        file: clipped(&problem.file, STORE_BYTES_MAX),
        entries: last.map(|last| EntryRange { first: problem.index, last: last.min(size - 1) }),
        what: clipped(&problem.what, WHAT_BYTES_MAX),
        repaired: false,
    }
}

fn clipped(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
