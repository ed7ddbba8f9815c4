//! What a box on an image of its own says of itself to the console of its machine: a file that is written anew every second
//! (docs/formats.md, *Status for the console*). The console is another program with other rights, and asks nothing.
//!
//! Refuses to do: say anything that is secret, or that names a document or a person.
//! Invariant: whoever reads the file meets a whole status; each says when it was written, on a clock that nobody sets.

use crate::api::Shared;
use crate::driver::Condition;
use bulla_formats::box_status::{
    ATTENTION_MAX, Anchors, BoxStatus, Enrolling, Neighbours, Outage, Running, one_line,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(1);

/// Tells how the box does; for ever.
pub async fn tell(api: Shared, file: PathBuf) {
    let mut warned = false;
    loop {
        // Facts are read under short locks, and the file is on a file system in memory.
        let written = write(&file, &BoxStatus::running(boottime_millis(), running(&api)));
        if let Err(error) = &written
            && !warned
        {
            log::warn!("the console is told nothing, {} cannot be written: {error}", file.display());
        }
        warned = written.is_err();
        tokio::time::sleep(PERIOD).await;
    }
}

/// Tells how far an enrolment is, until it is dropped.
pub struct Teller {
    said: Arc<Mutex<Enrolling>>,
    file: PathBuf,
    end: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Teller {
    /// Begins.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn start(file: PathBuf, said: Enrolling) -> io::Result<Self> {
        let said = Arc::new(Mutex::new(said));
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let again = {
            let (said, file) = (said.clone(), file.clone());
            move || write(&file, &BoxStatus::enrolling(boottime_millis(), locked(&said).clone()))
        };
        again()?;
        // The enrolment itself may wait for a registrar that does not answer.
        let thread = std::thread::Builder::new().name("console".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                if let Err(error) = again() {
                    log::debug!("the console is told nothing: {error}");
                }
            }
        })?;
        Ok(Teller { said, file, end: Some(end), thread: Some(thread) })
    }

    /// How far it is now.
    pub fn progress(&self, text: &str) {
        locked(&self.said).progress = one_line(text);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing left to lose.
            let _ended = thread.join();
        }
        // What is over is not shown.
        let _gone = std::fs::remove_file(&self.file);
    }
}

fn locked(said: &Mutex<Enrolling>) -> std::sync::MutexGuard<'_, Enrolling> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

fn running(api: &Shared) -> Running {
    let sealer = &api.sealer;
    let (status, facts, neighbours) = (sealer.glance(), sealer.outage(), sealer.neighbours());
    let (condition, why) = named(&status.condition);
    let mut attention = Vec::new();
    if let Some(trouble) = &status.attestation_trouble {
        attention.push(format!("The TPM does not attest: {trouble}"));
    }
    if let Some(failure) = status.self_test.as_ref().and_then(|test| test.failure.as_ref()) {
        attention.push(format!("The self-test failed: {failure}"));
    }
    if status.scrub.damaged > 0 {
        attention.push(format!(
            "{} damaged places were found on the disk; run bulla-box fsck.",
            status.scrub.damaged
        ));
    }
    if let Some(trouble) = neighbours.as_ref().and_then(|facts| facts.trouble.as_ref()) {
        attention.push(format!("No neighbour can be reached: {trouble}"));
    }
    let firing = api.alerts.firing();
    let pages = firing.iter().filter(|alert| alert.page).chain(firing.iter().filter(|alert| !alert.page));
    attention.extend(pages.map(|alert| format!("Alert {} {}", alert.key.name, alert.key.subject)));
    attention.truncate(ATTENTION_MAX);
    let fleet = &api.config.identity.fleet;
    let branch = neighbours.as_ref().and_then(|facts| {
        facts.rosters.iter().find(|roster| roster.fleet == *fleet).and_then(|roster| roster.branch.clone())
    });
    Running {
        condition: condition.to_owned(),
        why: why.as_deref().map(one_line),
        mode: status.mode.clone(),
        drill: facts.as_ref().is_some_and(|facts| facts.modes.drill),
        origin: one_line(&status.origin),
        branch: branch.as_deref().map(one_line),
        ca: api.certificates.ca_fingerprint(),
        version: status.version.to_owned(),
        uptime_seconds: status.uptime_seconds,
        entries: status.size,
        seals: status.seals_since_start,
        queued: status.queue.depth,
        outage: facts.as_ref().and_then(|facts| {
            let outage = facts.modes.outage.as_ref()?;
            Some(Outage { number: facts.modes.outages, seconds: outage.elapsed / 1_000, seals: outage.seals })
        }),
        anchors: facts.as_ref().filter(|facts| !facts.authorities.is_empty()).map(|facts| Anchors {
            age_seconds: facts.anchors.last_anchor.map(|millis| millis / 1_000),
            anchored: facts.anchored,
            needed: facts.needed as u64,
        }),
        neighbours: neighbours.map(|facts| Neighbours {
            connected: facts.peers.iter().filter(|peer| peer.connected).count() as u64,
            known: facts.peers.len() as u64,
        }),
        free_bytes: sealer.facts().headroom(),
        attention: attention.iter().map(|reason| one_line(reason.trim_end())).collect(),
    }
}

/// The name of a condition in `/v1/status`, and more for people.
fn named(condition: &Condition) -> (&'static str, Option<String>) {
    match condition {
        Condition::Sealing => ("sealing", None),
        Condition::DiskFull => ("disk-full", None),
        Condition::Poisoned { reason } => ("poisoned", Some(format!("storage failed: {reason}"))),
        Condition::Locked(lock) => ("locked", Some(format!("{} ({})", lock.reason, lock.operator))),
        Condition::Retiring => ("retiring", None),
        Condition::Limited => ("limited", None),
        Condition::KeyAway { reason } => ("key-away", Some(format!("the sealing key cannot sign: {reason}"))),
        Condition::RollbackSuspected { finding } => ("rollback-suspected", Some(finding.clone())),
    }
}

fn write(path: &Path, status: &BoxStatus) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let new = path.with_extension("new");
    std::fs::write(&new, status.encode())?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&new, path)
}

/// Milliseconds since the machine started, sleep included.
fn boottime_millis() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}
