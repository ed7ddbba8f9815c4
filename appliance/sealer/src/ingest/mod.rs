//! Hot folders of the box: documents that scanners write into folders, sealed like those of the API.
//!
//! `bulla_intake` decides about each folder, on a thread of its own; [`door`] has the box seal. A folder acts as one
//! registered client: its limits, its revocation and its name in seals are that client's.
//! Refuses to do: seal past the order queue, for a client that is not registered as a scanner, or on a box that refuses the
//! API's documents; such files wait.

pub mod arrival;
mod door;

pub use door::Tally;

use crate::api::Shared;
use crate::config::IngestFolder;
use crate::telemetry::{family, line};
use bulla_intake::folder::Census;
use bulla_intake::names::DEPTH_MAX;
use bulla_intake::run::{Until, run};
use door::BoxDoor;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// When a folder that cannot be watched is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// One folder, as status and metrics show it.
pub struct Watched {
    /// How it is configured.
    pub folder: IngestFolder,
    /// What has happened.
    pub tally: Tally,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    means: &'static str,
    census: Census,
    trouble: Option<String>,
}

impl Watched {
    fn new(folder: &IngestFolder) -> Self {
        Watched { folder: folder.clone(), tally: Tally::default(), state: Mutex::default() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is in the way; each thing is logged once.
    fn trouble(&self, reason: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.trouble != reason {
            match &reason {
                Some(reason) => log::warn!("the folder of {} waits: {reason}", self.folder.client),
                None => log::info!("the folder of {} goes on", self.folder.client),
            }
            state.trouble = reason;
        }
    }
}

/// All folders of the box.
pub struct Ingest {
    watched: Vec<Arc<Watched>>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Ingest {
    /// The folders, not watched yet.
    pub fn new(folders: &[IngestFolder]) -> Self {
        let watched = folders.iter().map(|folder| Arc::new(Watched::new(folder))).collect();
        Ingest { watched, stop: Arc::default(), threads: Mutex::default() }
    }

    /// Begins to watch. Call it on the runtime.
    pub fn start(&self, api: &Shared) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for watched in &self.watched {
            let (watched, api, stop) = (watched.clone(), api.clone(), self.stop.clone());
            let runtime = tokio::runtime::Handle::current();
            let name = format!("in-{}", watched.folder.client).chars().take(15).collect();
            let body = move || {
                let door = BoxDoor { api, runtime, watched: watched.clone() };
                let folder = &watched.folder;
                if (folder.webdav || folder.paperless)
                    && let Err(error) = arrival::sweep(&folder.path, DEPTH_MAX)
                {
                    log::warn!("what was half written in the folder of {} stays: {error}", folder.client);
                }
                while !stop.load(Ordering::Relaxed) {
                    match run(&watched.folder.options(), &door, &stop, Until::Stopped) {
                        Ok(_) => return,
                        Err(error) => watched.trouble(Some(error.to_string())),
                    }
                    pause(&stop, AGAIN);
                }
            };
            match std::thread::Builder::new().name(name).spawn(body) {
                Ok(thread) => threads.push(thread),
                Err(error) => log::error!("a folder is not watched, no thread for it: {error}"),
            }
        }
    }

    /// Ends the watch; what is being sealed is finished.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if thread.join().is_err() {
                log::error!("a folder's thread had panicked before the stop");
            }
        }
    }

    /// Whether there are folders.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// What the status says.
    pub fn status(&self) -> Value {
        let of = |watched: &Arc<Watched>| {
            let state = watched.state.lock().unwrap_or_else(PoisonError::into_inner);
            json!({
                "client": watched.folder.client,
                "watching": state.means,
                "waiting": state.census.waiting,
                "inWork": state.census.in_work,
                "done": state.census.done,
                "sealed": watched.tally.sealed.load(Ordering::Relaxed),
                "rejected": watched.tally.rejected.load(Ordering::Relaxed),
                "trouble": state.trouble,
            })
        };
        self.watched.iter().map(of).collect()
    }

    /// Of each folder its client, whether something is in the way, and how many files went to the error folder.
    pub fn troubles(&self) -> impl Iterator<Item = (String, bool, u64)> {
        self.watched.iter().map(|watched| {
            let hindered = watched.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.is_some();
            (watched.folder.client.clone(), hindered, watched.tally.rejected.load(Ordering::Relaxed))
        })
    }

    /// What the metrics say.
    pub fn metrics(&self, out: &mut String) {
        if self.is_empty() {
            return;
        }
        // A client's name is made of letters, digits and three signs: nothing to escape.
        type Of = fn(&Watched) -> u64;
        type OfState = fn(&State) -> u64;
        let state = |watched: &Watched, of: OfState| {
            of(&watched.state.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let counters: [(&str, &str, Of); 3] = [
            ("bulla_ingest_sealed_total", "Documents of folders whose results were written.", |one| {
                one.tally.sealed.load(Ordering::Relaxed)
            }),
            ("bulla_ingest_rejected_total", "Files moved to the error folder.", |one| {
                one.tally.rejected.load(Ordering::Relaxed)
            }),
            ("bulla_ingest_retries_total", "Times that a document could not be sealed at once.", |one| {
                one.tally.retries.load(Ordering::Relaxed)
            }),
        ];
        for (name, help, of) in counters {
            family(out, name, "counter", help);
            for one in &self.watched {
                line(out, name, &format!("client=\"{}\"", one.folder.client), of(one));
            }
        }
        let gauges: [(&str, &str, OfState); 3] = [
            ("bulla_ingest_waiting", "Files that rest or wait.", |state| state.census.waiting as u64),
            ("bulla_ingest_in_work", "Files being read or sealed.", |state| state.census.in_work as u64),
            ("bulla_ingest_hindered", "1 while something is in the way of a folder.", |state| {
                state.trouble.is_some().into()
            }),
        ];
        for (name, help, of) in gauges {
            family(out, name, "gauge", help);
            for one in &self.watched {
                line(out, name, &format!("client=\"{}\"", one.folder.client), state(one, of));
            }
        }
    }
}

fn pause(stop: &AtomicBool, long: Duration) {
    let until = std::time::Instant::now() + long;
    while !stop.load(Ordering::Relaxed) && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
}
