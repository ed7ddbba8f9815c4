//! When to fetch CRLs: after a stamp whose certificates no kept CRL speaks of, and from time to time after that, so that a
//! revocation is heard of. One at a time, so many tries, then a long rest.
//!
//! Refuses to do: I/O, clocks, randomness (jitter comes as a number); delay an anchor, which is in the log before its
//! certificates are told of here.
//! Invariants: one fetch at a time; of one certificate at most `tries` that fail between two rests of `refresh`; while a
//! certificate is known, a fetch of it runs or `next_wakeup` is not `None`; at most [`CERTIFICATES_MAX`] are known.

/// Most certificates that are looked after; the one that stamped longest ago goes first.
pub const CERTIFICATES_MAX: usize = 32;
/// Pauses double up to this many times the first.
const PAUSE_GROWS: u32 = 6;

/// How often to fetch. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlPolicy {
    /// From one good fetch, or from giving up, to the next round.
    pub refresh: u64,
    /// First pause after a failure; doubles up to 64 times this, and never beyond `refresh`.
    pub retry: u64,
    /// Failures after which a round is given up.
    pub tries: u32,
}

/// Name of a certificate: SHA-256 of its DER.
pub type Certificate = [u8; 32];

/// Fetch the CRL of this certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// Which.
    pub certificate: Certificate,
    /// Failures before it in this round: whoever knows several addresses takes the next each time.
    pub attempt: u32,
}

/// Decides when CRLs are fetched.
#[derive(Debug, Clone)]
pub struct CrlPlanner {
    policy: CrlPolicy,
    items: Vec<Item>,
    running: Option<Certificate>,
}

#[derive(Debug, Clone)]
struct Item {
    certificate: Certificate,
    stamped: u64,
    due: u64,
    failures: u32,
    resting: Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// A round is under way.
    No,
    /// After a good fetch: a stamp that it does not speak of ends the rest.
    Light,
    /// After giving up: nothing ends it early.
    Deep,
}

impl CrlPlanner {
    /// A planner that knows no certificate.
    pub fn new(policy: CrlPolicy) -> Self {
        CrlPlanner { policy, items: Vec::new(), running: None }
    }

    /// A stamp rests on this certificate; `covered`: a kept CRL speaks of it for that stamp. Returns the certificate that
    /// is not looked after any more for want of room.
    pub fn stamped(&mut self, certificate: Certificate, covered: bool, now: u64) -> Option<Certificate> {
        let (due, resting) =
            if covered { (now.saturating_add(self.policy.refresh), Rest::Light) } else { (now, Rest::No) };
        if let Some(item) = self.items.iter_mut().find(|item| item.certificate == certificate) {
            item.stamped = now;
            if !covered && item.resting == Rest::Light {
                (item.due, item.resting, item.failures) = (due, resting, 0);
            }
            return None;
        }
        self.items.push(Item { certificate, stamped: now, due, failures: 0, resting });
        if self.items.len() <= CERTIFICATES_MAX {
            return None;
        }
        let oldest = (0..self.items.len()).min_by_key(|at| self.items[*at].stamped)?;
        Some(self.items.remove(oldest).certificate)
    }

    /// What to fetch now. The caller fetches exactly that, and says how it went.
    pub fn poll(&mut self, now: u64) -> Option<Fetch> {
        if self.running.is_some() {
            return None;
        }
        let item = self.items.iter_mut().filter(|item| item.due <= now).min_by_key(|item| item.due)?;
        if item.resting != Rest::No {
            (item.resting, item.failures) = (Rest::No, 0);
        }
        self.running = Some(item.certificate);
        Some(Fetch { certificate: item.certificate, attempt: item.failures })
    }

    /// When to poll again if nothing happens before.
    pub fn next_wakeup(&self) -> Option<u64> {
        if self.running.is_some() { None } else { self.items.iter().map(|item| item.due).min() }
    }

    /// The running fetch brought a CRL that is good.
    pub fn fetched(&mut self, now: u64) {
        let due = now.saturating_add(self.policy.refresh);
        if let Some(item) = self.ended() {
            (item.due, item.resting, item.failures) = (due, Rest::Light, 0);
        }
    }

    /// The running fetch brought nothing good. Whether the round is given up. `random` spreads the retries.
    pub fn failed(&mut self, now: u64, random: u64) -> bool {
        let CrlPolicy { refresh, retry, tries } = self.policy;
        let Some(item) = self.ended() else { return false };
        let pause = retry.saturating_mul(1 << item.failures.min(PAUSE_GROWS)).min(refresh);
        item.failures = item.failures.saturating_add(1);
        if item.failures >= tries {
            (item.due, item.resting) = (now.saturating_add(refresh), Rest::Deep);
            return true;
        }
        let jitter = random % (pause / 2 + 1);
        item.due = now.saturating_add(pause - pause / 2 + jitter);
        false
    }

    /// There is nothing more to learn of this certificate.
    pub fn finished(&mut self, certificate: &Certificate) {
        if self.running.as_ref() == Some(certificate) {
            self.running = None;
        }
        self.items.retain(|item| item.certificate != *certificate);
    }

    fn ended(&mut self) -> Option<&mut Item> {
        let certificate = self.running.take()?;
        self.items.iter_mut().find(|item| item.certificate == certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: CrlPolicy = CrlPolicy { refresh: 100_000, retry: 1_000, tries: 4 };
    const A: Certificate = [1; 32];
    const B: Certificate = [2; 32];

    fn fetch(certificate: Certificate, attempt: u32) -> Option<Fetch> {
        Some(Fetch { certificate, attempt })
    }

    #[test]
    fn a_stamp_is_followed_by_a_fetch_and_that_by_a_rest() {
        let mut planner = CrlPlanner::new(POLICY);
        assert_eq!((planner.poll(0), planner.next_wakeup()), (None, None));
        planner.stamped(A, false, 10);
        planner.stamped(B, true, 10);
        assert_eq!(planner.poll(10), fetch(A, 0));
        assert_eq!((planner.poll(10), planner.next_wakeup()), (None, None), "one at a time");
        planner.fetched(20);
        assert_eq!((planner.poll(20), planner.next_wakeup()), (None, Some(100_010)), "B was covered");
        planner.stamped(A, true, 30);
        assert_eq!(planner.poll(30), None, "what is kept is good enough");
        planner.stamped(A, false, 40);
        assert_eq!(planner.poll(40), fetch(A, 0), "it is not any more");
        planner.fetched(50);
        assert_eq!(planner.poll(100_010), fetch(B, 0), "to hear of a revocation");
        planner.finished(&B);
        assert_eq!((planner.poll(100_049), planner.poll(100_050)), (None, fetch(A, 0)));
    }

    #[test]
    fn failures_are_followed_by_longer_pauses_and_then_by_a_rest() {
        let mut planner = CrlPlanner::new(POLICY);
        planner.stamped(A, false, 0);
        let mut now = 0;
        for (attempt, pause) in [(0, 1_000), (1, 2_000), (2, 4_000)] {
            assert_eq!(planner.poll(now), fetch(A, attempt));
            assert!(!planner.failed(now, u64::MAX / 3));
            let due = planner.next_wakeup().unwrap();
            assert!((now + pause / 2..=now + pause).contains(&due), "{attempt}: {due}");
            assert_eq!(planner.poll(due - 1), None);
            now = due;
        }
        assert_eq!(planner.poll(now), fetch(A, 3));
        assert!(planner.failed(now, 0), "given up");
        planner.stamped(A, false, now + 1);
        assert_eq!(planner.poll(now + 99_999), None, "whoever stamps");
        assert_eq!(planner.poll(now + 100_000), fetch(A, 0), "and begun again");
        planner.fetched(now + 100_000);
        assert!(!planner.failed(now, 0), "nothing runs");
    }

    #[test]
    fn who_stamped_longest_ago_makes_room() {
        let mut planner = CrlPlanner::new(POLICY);
        let name = |n: u64| [n as u8; 32];
        for n in 0..CERTIFICATES_MAX as u64 {
            assert_eq!(planner.stamped(name(n), true, n), None);
        }
        planner.stamped(name(0), true, 100);
        assert_eq!(planner.stamped(name(200), false, 101), Some(name(1)));
        assert_eq!(planner.items.len(), CERTIFICATES_MAX);
    }

    proptest! {
        /// Whatever happens: one at a time, never more failures between two rests than allowed, always something to wait
        /// for.
        #[test]
        fn rounds_are_bounded_and_never_forgotten(
            steps in proptest::collection::vec((0u8..5, 0u8..40, 1u64..5_000, any::<u64>()), 1..400),
        ) {
            let mut planner = CrlPlanner::new(POLICY);
            let (mut now, mut running) = (0, None);
            let mut failures = std::collections::HashMap::<Certificate, Vec<u64>>::new();
            for (what, which, pause, random) in steps {
                now += pause;
                match what {
                    0 | 1 => {
                        if let Some(gone) = planner.stamped([which; 32], what == 0, now) {
                            failures.remove(&gone);
                        }
                    }
                    2 if running.is_some() => {
                        planner.fetched(now);
                        failures.remove(&running.take().unwrap());
                    }
                    3 if running.is_some() => {
                        let of = running.take().unwrap();
                        let known = planner.items.iter().any(|item| item.certificate == of);
                        planner.failed(now, random);
                        if known {
                            let all = failures.entry(of).or_default();
                            all.push(now);
                            let recent = all.iter().filter(|at| **at + POLICY.refresh > now).count();
                            prop_assert!(recent <= POLICY.tries as usize, "{recent} failures in one rest");
                        }
                    }
                    _ => {
                        let due = planner.items.iter().any(|item| item.due <= now);
                        let fetch = planner.poll(now);
                        prop_assert_eq!(fetch.is_some(), due && running.is_none());
                        running = running.or(fetch.map(|fetch| fetch.certificate));
                    }
                }
                prop_assert!(planner.items.len() <= CERTIFICATES_MAX);
                let waits = running.is_some() || planner.next_wakeup().is_some();
                prop_assert!(waits || planner.items.is_empty());
            }
        }
    }
}
