//! What the box last found out about itself: the newest self-test and the newest pass of the scrub, for status and
//! telemetry.
//!
//! Refuses to do: decide anything; neither result changes whether the box seals.

use super::clock::Steady;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A self-test as `/v1/status` and `POST /v1/self-tests` tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTestResult {
    /// Whether the whole way worked.
    pub passed: bool,
    /// When it ended (Unix milliseconds).
    pub at_millis: u64,
    /// Id of the synthetic seal; absent when none was made.
    pub seal: Option<String>,
    /// Verdict of the box's own verifier, or `not-sealed`.
    pub verdict: String,
    /// Time from the order to the durable seal, microseconds.
    pub seal_micros: u64,
    /// Time of the verification, microseconds.
    pub verify_micros: u64,
    /// Whether the verified seal carried a TPM quote.
    pub attested: bool,
    /// Why it failed.
    pub failure: Option<String>,
}

/// The newest pass of the scrub as `/v1/status` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct ScrubResult {
    /// When the last complete pass ended (Unix milliseconds); absent before the first since this start.
    pub ended_millis: Option<u64>,
    /// Bytes that it read.
    pub bytes: u64,
    /// Whether a pass runs now.
    pub running: bool,
    /// Damage found in the last complete pass, and in the running one so far.
    pub damaged: u64,
    /// What was found: at most eight, in words.
    pub findings: Vec<String>,
}

/// Results and counters since this start.
#[derive(Debug)]
pub struct Checks {
    steady: Steady,
    self_test: Mutex<Option<SelfTestResult>>,
    scrub: Mutex<ScrubResult>,
    /// Self-tests run.
    pub self_tests: AtomicU64,
    /// Self-tests that failed.
    pub self_test_failures: AtomicU64,
    /// Complete passes of the scrub.
    pub scrub_passes: AtomicU64,
    /// Bytes read by the scrub, the running pass included.
    pub scrub_bytes: AtomicU64,
    last_success: AtomicU64,
    last_pass: AtomicU64,
}

impl Default for Checks {
    fn default() -> Self {
        Checks {
            steady: Steady::start(),
            self_test: Mutex::default(),
            scrub: Mutex::default(),
            self_tests: AtomicU64::default(),
            self_test_failures: AtomicU64::default(),
            scrub_passes: AtomicU64::default(),
            scrub_bytes: AtomicU64::default(),
            last_success: AtomicU64::default(),
            last_pass: AtomicU64::default(),
        }
    }
}

impl Checks {
    /// Books a self-test.
    pub fn self_tested(&self, result: SelfTestResult) {
        self.self_tests.fetch_add(1, Relaxed);
        if result.passed {
            self.last_success.store(self.now(), Relaxed);
        } else {
            self.self_test_failures.fetch_add(1, Relaxed);
        }
        *self.self_test.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    /// The newest self-test.
    pub fn self_test(&self) -> Option<SelfTestResult> {
        self.self_test.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The scrub, to be written to.
    pub fn scrub_mut(&self) -> MutexGuard<'_, ScrubResult> {
        self.scrub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scrub.
    pub fn scrub(&self) -> ScrubResult {
        self.scrub_mut().clone()
    }

    /// A pass is complete.
    pub fn passed_over(&self) {
        self.scrub_passes.fetch_add(1, Relaxed);
        self.last_pass.store(self.now(), Relaxed);
    }

    /// Seconds since the newest self-test that passed; `None` before the first since this start.
    pub fn self_test_age(&self) -> Option<f64> {
        self.age(&self.last_success)
    }

    /// Seconds since the newest complete pass of the scrub; `None` before the first since this start.
    pub fn scrub_age(&self) -> Option<f64> {
        self.age(&self.last_pass)
    }

    /// Never 0, which stands for never.
    fn now(&self) -> u64 {
        self.steady.millis() + 1
    }

    fn age(&self, at: &AtomicU64) -> Option<f64> {
        let at = at.load(Relaxed);
        (at > 0).then(|| self.now().saturating_sub(at) as f64 / 1e3)
    }
}
