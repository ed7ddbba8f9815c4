//! Status and counters: what the box says about itself to people and to telemetry.
//!
//! Refuses to do: name documents, users or secrets.

use super::Shared;
use super::checks::{ScrubResult, SelfTestResult};
use super::clock::{Steady, now_millis};
use super::lock::Lock;
use bulla_formats::enrolment::Hardware;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

/// Whether the box seals, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Condition {
    /// It seals.
    Sealing,
    /// Too little room; it seals again when there is.
    DiskFull,
    /// Storage failed; it recovers by itself when it can.
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// An operator has locked it.
    Locked(Lock),
    /// It is decided that it retires; what is left to do is done, and nothing new is taken.
    Retiring,
    /// A limit of emergency operation is reached, and policy says that the box stops then.
    Limited,
    /// The device of the sealing key does not answer; it is asked again.
    KeyAway {
        /// What it said last.
        reason: String,
    },
    /// The disk may be an older copy: read-only until an operator decides.
    RollbackSuspected {
        /// What was found.
        finding: String,
    },
}

/// Counters since this start.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each name is the metric's name in docs/api.md")]
pub struct Counters {
    pub seals: AtomicU64,
    pub entries: AtomicU64,
    pub batches: AtomicU64,
    pub attestations: AtomicU64,
    pub attestation_failures: AtomicU64,
    pub attestation_millis: AtomicU64,
    pub neighbour_quotes: AtomicU64,
    pub site_given: AtomicU64,
    pub site_taken: AtomicU64,
    pub site_refused: AtomicU64,
    pub counter_increments: AtomicU64,
    pub disk_full: AtomicU64,
    pub poisonings: AtomicU64,
    pub recoveries: AtomicU64,
    pub queued: AtomicU64,
    pub drained: AtomicU64,
    pub queue_refused: AtomicU64,
    /// Findings by which a clock was wrong; alerts go by it.
    pub clock_contradictions: AtomicU64,
}

/// What changes rarely and is only reported.
#[derive(Debug)]
pub struct Facts {
    steady: Steady,
    started_millis: u64,
    size_at_start: u64,
    epoch: AtomicU64,
    epoch_extended: AtomicBool,
    attestation_trouble: RwLock<Option<String>>,
    /// Times on the steady clock; 0 for never.
    trouble_since: AtomicU64,
    trouble_before: AtomicU64,
    attested_at: AtomicU64,
    checkpoint_at: AtomicU64,
    log_directory: PathBuf,
    reserve_bytes: u64,
}

impl Facts {
    /// Facts of a box that starts with `size` entries in `epoch`, and keeps `reserve_bytes` free where
    /// its log is.
    pub fn new(size: u64, epoch: u64, log_directory: PathBuf, reserve_bytes: u64) -> Self {
        Facts {
            log_directory,
            reserve_bytes,
            steady: Steady::start(),
            started_millis: now_millis(),
            size_at_start: size,
            epoch: AtomicU64::new(epoch),
            epoch_extended: AtomicBool::new(false),
            attestation_trouble: RwLock::new(None),
            trouble_since: AtomicU64::new(0),
            trouble_before: AtomicU64::new(0),
            attested_at: AtomicU64::new(0),
            checkpoint_at: AtomicU64::new(0),
        }
    }

    /// Whether more than the reserve is free; unknown counts as no.
    pub fn has_room(&self) -> bool {
        rustix::fs::statvfs(&self.log_directory)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) > self.reserve_bytes)
    }

    /// A checkpoint was signed.
    pub fn checkpoint_made(&self) {
        self.checkpoint_at.store(self.steady.millis() + 1, Relaxed);
    }

    /// Seconds since the newest checkpoint of this run.
    pub fn checkpoint_age(&self) -> Option<f64> {
        self.age(&self.checkpoint_at)
    }

    /// Seconds since the newest attestation of this run.
    pub fn attestation_age(&self) -> Option<f64> {
        self.age(&self.attested_at)
    }

    /// Seconds of this run in which attestations failed, the present trouble included.
    pub fn attestation_down(&self) -> f64 {
        let now = self.age(&self.trouble_since).unwrap_or(0.0);
        self.trouble_before.load(Relaxed) as f64 / 1e3 + now
    }

    /// Bytes free beyond the reserve; `None` when the file system does not say.
    pub fn headroom(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.log_directory).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(self.reserve_bytes))
    }

    fn age(&self, at: &AtomicU64) -> Option<f64> {
        let at = at.load(Relaxed);
        (at > 0).then(|| (self.steady.millis() + 1).saturating_sub(at) as f64 / 1e3)
    }

    /// Entries there were at start.
    pub fn size_at_start(&self) -> u64 {
        self.size_at_start
    }

    /// A new epoch is in force.
    pub fn epoch_began(&self, number: u64) {
        self.epoch.store(number, Relaxed);
    }

    /// Whether the epoch has outlived its policy.
    pub fn extended(&self, extended: bool) {
        self.epoch_extended.store(extended, Relaxed);
    }

    /// Why the last attestation failed; `None` when it did not.
    pub fn attestation_trouble(&self, trouble: Option<String>) {
        let now = self.steady.millis() + 1;
        if trouble.is_some() {
            let _ = self.trouble_since.compare_exchange(0, now, Relaxed, Relaxed);
        } else {
            self.attested_at.store(now, Relaxed);
            let since = self.trouble_since.swap(0, Relaxed);
            if since > 0 {
                self.trouble_before.fetch_add(now.saturating_sub(since), Relaxed);
            }
        }
        *self.attestation_trouble.write().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Requests promised a seal.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// How many wait.
    pub depth: u64,
    /// Bytes kept of them.
    pub bytes: u64,
    /// When the oldest was taken (Unix milliseconds).
    pub oldest_millis: Option<u64>,
}

impl QueueStatus {
    /// Age of the oldest by the wall clock, 0 when nothing waits.
    pub fn oldest_seconds(&self) -> u64 {
        self.oldest_millis.map_or(0, |oldest| now_millis().saturating_sub(oldest) / 1_000)
    }
}

/// What `/v1/status` answers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether it seals.
    pub condition: Condition,
    /// Mode in force.
    pub mode: String,
    /// Log origin.
    pub origin: String,
    /// `tpm` or `software`.
    pub hardware: &'static str,
    /// Entries in the log.
    pub size: u64,
    /// Root of the log, hex.
    pub root: String,
    /// Seals since this start.
    pub seals_since_start: u64,
    /// Key epoch in force.
    pub epoch: u64,
    /// Whether that epoch has outlived its policy for want of an endorsed successor.
    pub epoch_extended: bool,
    /// Entries that a TPM quote covers.
    pub attested_size: u64,
    /// Why the last attestation failed.
    pub attestation_trouble: Option<String>,
    /// Requests promised a seal.
    pub queue: QueueStatus,
    /// The newest self-test since this start.
    pub self_test: Option<SelfTestResult>,
    /// The scrub since this start.
    pub scrub: ScrubResult,
    /// Wall time of this start (Unix milliseconds).
    pub started_millis: u64,
    /// Seconds since this start, on a steady clock.
    pub uptime_seconds: u64,
    /// Program version.
    pub version: &'static str,
}

impl Shared {
    pub(super) fn status(&self) -> Status {
        let facts = &self.status;
        let snapshot = self.reader.snapshot();
        let depth = self.kept.depth();
        Status {
            condition: self.condition(),
            mode: self.standing().mode.to_string(),
            queue: QueueStatus { depth: depth.entries, bytes: depth.bytes, oldest_millis: depth.oldest_ms },
            origin: self.origin.as_str().to_owned(),
            hardware: match self.hardware {
                Hardware::Tpm => "tpm",
                Hardware::Software => "software",
            },
            size: snapshot.size(),
            root: snapshot.root().to_string(),
            seals_since_start: self.counters.seals.load(Relaxed),
            epoch: facts.epoch.load(Relaxed),
            epoch_extended: facts.epoch_extended.load(Relaxed),
            attested_size: *self.attested.borrow(),
            attestation_trouble: facts
                .attestation_trouble
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            self_test: self.checks.self_test(),
            scrub: self.checks.scrub(),
            started_millis: facts.started_millis,
            uptime_seconds: facts.steady.millis() / 1_000,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
