//! When to attest: TPM quotes run beside the write path, coalesced, and move the counter rarely.
//!
//! A quote covers every entry sealed before it, so at most one runs at a time and everything that
//! arrives meanwhile shares the next. A client that waits starts one at once; nobody waiting, the
//! oldest unattested seal waits at most the configured window. The NV counter is flash: it moves at
//! most once per its own interval.
//! Refuses to do: delay a seal.
//! Invariant: while a seal is unattested, either an attestation runs or `next_wakeup` names a time.

/// How often to attest. All times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowPolicy {
    /// Longest time a seal stays unattested while nobody waits and the TPM answers.
    pub window: u64,
    /// Shortest time between two counter increments.
    pub counter_interval: u64,
    /// First pause after a failed attestation; doubles up to 64 times this.
    pub retry: u64,
}

/// Start an attestation of the current head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartAttestation {
    /// Whether this one moves the counter.
    pub move_counter: bool,
}

/// Decides when attestations start.
#[derive(Debug, Clone)]
pub struct WindowPlanner {
    policy: WindowPolicy,
    oldest_unattested: Option<u64>,
    someone_waits: bool,
    running: Option<Running>,
    last_counter_move: Option<u64>,
    failures: u32,
    not_before: u64,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    sealed_since: Option<u64>,
    moves_counter: bool,
}

impl WindowPlanner {
    /// A planner with nothing to attest; the first attestation moves the counter.
    pub fn new(policy: WindowPolicy) -> Self {
        WindowPlanner {
            policy,
            oldest_unattested: None,
            someone_waits: false,
            running: None,
            last_counter_move: None,
            failures: 0,
            not_before: 0,
        }
    }

    /// A batch with seals has been committed.
    pub fn sealed(&mut self, now: u64) {
        match &mut self.running {
            // The running quote may have taken its head before this batch.
            Some(running) => running.sealed_since = running.sealed_since.or(Some(now)),
            None => self.oldest_unattested = self.oldest_unattested.or(Some(now)),
        }
    }

    /// A client waits for its seal to be attested.
    pub fn waits(&mut self) {
        self.someone_waits = true;
    }

    /// Whether to start now. The caller starts exactly what is returned.
    pub fn poll(&mut self, now: u64) -> Option<StartAttestation> {
        if self.running.is_some() || now < self.not_before {
            return None;
        }
        let due = self.oldest_unattested.is_some_and(|since| now >= since.saturating_add(self.policy.window));
        let asked_for = self.someone_waits && self.oldest_unattested.is_some();
        if !due && !asked_for {
            return None;
        }
        let move_counter = self
            .last_counter_move
            .is_none_or(|last| now >= last.saturating_add(self.policy.counter_interval));
        self.running = Some(Running { sealed_since: None, moves_counter: move_counter });
        self.someone_waits = false;
        Some(StartAttestation { move_counter })
    }

    /// When to poll again if nothing happens before; `None` when only an event can make work.
    pub fn next_wakeup(&self) -> Option<u64> {
        if self.running.is_some() {
            return None;
        }
        let since = self.oldest_unattested?;
        let due = if self.someone_waits { 0 } else { since.saturating_add(self.policy.window) };
        Some(due.max(self.not_before))
    }

    /// The running attestation is in the log.
    pub fn succeeded(&mut self, now: u64) {
        if let Some(running) = self.running.take() {
            self.oldest_unattested = running.sealed_since;
            if running.moves_counter {
                self.last_counter_move = Some(now);
            }
        }
        self.failures = 0;
        self.not_before = 0;
    }

    /// The counter has been moved outside the windows; the next move may wait its interval.
    pub fn counter_moved(&mut self, now: u64) {
        self.last_counter_move = Some(now);
    }

    /// The running attestation failed: the TPM is away or slow. Tries again, ever more rarely.
    pub fn failed(&mut self, now: u64) {
        if self.running.take().is_some() {
            // Whatever it was to cover is still uncovered, and due.
            self.oldest_unattested = Some(self.oldest_unattested.unwrap_or(now).min(now));
            self.someone_waits = true;
        }
        let factor = 1u64 << self.failures.min(6);
        self.not_before = now.saturating_add(self.policy.retry.saturating_mul(factor));
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether the last attestation failed.
    pub fn failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: WindowPolicy = WindowPolicy { window: 60_000, counter_interval: 600_000, retry: 500 };

    #[test]
    fn nothing_sealed_nothing_attested() {
        let mut planner = WindowPlanner::new(POLICY);
        planner.waits();
        assert_eq!(planner.poll(1_000_000), None);
        assert_eq!(planner.next_wakeup(), None);
    }

    #[test]
    fn seals_share_an_attestation_and_the_counter_moves_rarely() {
        let mut planner = WindowPlanner::new(POLICY);
        planner.sealed(10);
        planner.sealed(20);
        assert_eq!(planner.next_wakeup(), Some(60_010));
        assert_eq!(planner.poll(60_009), None);
        assert_eq!(planner.poll(60_010), Some(StartAttestation { move_counter: true }));
        planner.sealed(60_020);
        assert_eq!(planner.poll(60_020), None, "one at a time");
        planner.succeeded(60_030);
        planner.waits();
        assert_eq!(planner.poll(60_031), Some(StartAttestation { move_counter: false }));
        planner.succeeded(60_040);
        assert_eq!(planner.next_wakeup(), None);
        planner.sealed(700_000);
        planner.waits();
        assert_eq!(planner.poll(700_001), Some(StartAttestation { move_counter: true }));
        planner.failed(700_002);
        planner.counter_moved(700_100);
        assert_eq!(planner.poll(701_000), Some(StartAttestation { move_counter: false }), "moved elsewhere");
    }

    #[test]
    fn a_dead_tpm_is_asked_ever_more_rarely_and_never_forgotten() {
        let mut planner = WindowPlanner::new(POLICY);
        planner.sealed(0);
        planner.waits();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let at = planner.next_wakeup().expect("unattested seals are never forgotten").max(now);
            pauses.push(at - now);
            now = at;
            assert!(planner.poll(now).is_some());
            planner.failed(now);
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16000, 32000, 32000, 32000]);
        assert!(planner.failing());
        now += 32_000;
        assert!(planner.poll(now).is_some());
        planner.succeeded(now);
        assert!(!planner.failing());
        assert_eq!(planner.next_wakeup(), None);
    }
}
