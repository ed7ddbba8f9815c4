//! When to ask servers that tell the time and vouch for nothing (Roughtime): every so often, sooner while nobody knows the
//! time, later and later while one does not answer.
//!
//! Refuses to do: I/O, clocks, randomness (a number is an argument); judge answers ([`crate::time`] does); hold up anything
//! else, which is why neither modes nor anchors hear of these servers.
//! Invariants: one question to a server at a time; never two within half of `retry`; a server that is not being asked is
//! asked again within `every` and a quarter of it, and within [`UNKNOWN_PAUSES`] of `retry` while the time is not known.

/// While nobody knows the time, no pause is longer than so many of the first.
pub const UNKNOWN_PAUSES: u64 = 8;
/// Pauses double up to this many times the first.
const PAUSE_GROWS: u32 = 10;

/// How often to ask. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePolicy {
    /// From one good answer to the next question, give or take a quarter; and the longest pause of all.
    pub every: u64,
    /// First pause after a failure; doubles.
    pub retry: u64,
}

/// Decides which server is asked, and when.
#[derive(Debug, Clone)]
pub struct SourcePlanner {
    policy: SourcePolicy,
    sources: Vec<Source>,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    /// When to ask if the time is known.
    due: u64,
    /// When at the latest if it is not.
    soon: u64,
    running: bool,
    failures: u32,
}

impl SourcePlanner {
    /// A planner of so many servers at a start. `random` spreads the first questions: where the power comes back for many
    /// boxes at once, they need not all ask at once.
    pub fn new(policy: SourcePolicy, count: usize, now: u64, random: u64) -> Self {
        let source = |place: usize| {
            let spread = random.rotate_left(place as u32 * 11) % (policy.retry / 2 + 1);
            let due = now.saturating_add(spread);
            Source { due, soon: due, running: false, failures: 0 }
        };
        SourcePlanner { policy, sources: (0..count).map(source).collect() }
    }

    /// Whom to ask now; `known`: whether the time is. The caller asks exactly these, and says how each went.
    pub fn poll(&mut self, known: bool, now: u64) -> Vec<usize> {
        let is_due = |source: &Source| !source.running && source.at(known) <= now;
        let due: Vec<usize> = (0..self.sources.len()).filter(|place| is_due(&self.sources[*place])).collect();
        for place in &due {
            self.sources[*place].running = true;
        }
        due
    }

    /// When to poll again if nothing happens before.
    pub fn next_wakeup(&self, known: bool) -> Option<u64> {
        self.sources.iter().filter(|source| !source.running).map(|source| source.at(known)).min()
    }

    /// A question has ended, with an answer or without. `random` spreads the next ones.
    pub fn ended(&mut self, place: usize, answered: bool, now: u64, random: u64) {
        let SourcePolicy { every, retry } = self.policy;
        let Some(source) = self.sources.get_mut(place).filter(|source| source.running) else { return };
        source.running = false;
        let pause = if answered {
            source.failures = 0;
            (every - every / 4).saturating_add(random % (every / 4 * 2 + 1))
        } else {
            let pause = retry.saturating_mul(1 << source.failures.min(PAUSE_GROWS)).min(every);
            source.failures = source.failures.saturating_add(1);
            pause - pause / 2 + random % (pause / 2 + 1)
        };
        source.due = now.saturating_add(pause.max(retry / 2));
        let soon = now.saturating_add(retry.saturating_mul(UNKNOWN_PAUSES).max(retry / 2));
        source.soon = source.due.min(soon);
    }
}

impl Source {
    fn at(&self, known: bool) -> u64 {
        if known { self.due } else { self.soon }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: SourcePolicy = SourcePolicy { every: 900_000, retry: 10_000 };

    #[test]
    fn at_a_start_all_are_asked_soon_and_once() {
        let mut planner = SourcePlanner::new(POLICY, 3, 1_000, 0x1234_5678_9abc_def0);
        let mut asked = Vec::new();
        for now in (1_000..=6_000).step_by(100) {
            asked.extend(planner.poll(false, now));
        }
        asked.sort_unstable();
        assert_eq!(asked, [0, 1, 2], "within half of `retry`, each once while it is under way");
        assert_eq!((planner.next_wakeup(false), planner.poll(false, u64::MAX)), (None, vec![]));
        planner.ended(1, true, 10_000, 0);
        assert_eq!(planner.next_wakeup(true), Some(10_000 + 675_000));
        planner.ended(7, true, 10_000, 0);
        planner.ended(1, false, 10_001, 0);
        assert_eq!(planner.next_wakeup(true), Some(10_000 + 675_000), "it was not under way");
    }

    #[test]
    fn failures_make_pauses_longer_and_an_answer_ends_that() {
        let mut planner = SourcePlanner::new(POLICY, 1, 0, 0);
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..9 {
            assert_eq!(planner.poll(true, now), [0]);
            planner.ended(0, false, now, u64::MAX);
            let next = planner.next_wakeup(true).unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
        assert!(pauses[0] <= 10_000 && pauses[8] <= 900_000 && pauses[8] >= 450_000, "{pauses:?}");
        assert_eq!(planner.poll(true, now), [0]);
        planner.ended(0, true, now, 0);
        let next = planner.next_wakeup(true).unwrap();
        assert_eq!(planner.poll(true, next), [0]);
        planner.ended(0, false, next, 0);
        assert_eq!(planner.next_wakeup(true), Some(next + 5_000), "the first failure after an answer");
    }

    #[test]
    fn while_nobody_knows_the_time_pauses_are_short() {
        let mut planner = SourcePlanner::new(POLICY, 1, 0, 0);
        planner.poll(true, 0);
        planner.ended(0, true, 0, 0);
        assert_eq!(planner.poll(true, 80_000), Vec::<usize>::new());
        assert_eq!(planner.next_wakeup(false), Some(80_000));
        assert_eq!(planner.poll(false, 80_000), [0], "what was known is doubted");
    }

    #[test]
    fn a_quarter_is_a_quarter_whatever_it_is_rounded_to() {
        for every in 1..64 {
            let policy = SourcePolicy { every, retry: 1 };
            let mut planner = SourcePlanner::new(policy, 1, 0, 0);
            planner.poll(true, 0);
            planner.ended(0, true, 0, every / 4 * 2);
            assert_eq!(planner.next_wakeup(true), Some(every + every / 4), "the longest pause of {every}");
        }
    }

    proptest! {
        /// However answers come and the time is known or not.
        #[test]
        fn never_too_often_and_never_forgotten(
            every in 1u64..100_000, retry in 1u64..20_000, start in any::<u64>(),
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u64>(), 0u64..5_000), 1..60)
        ) {
            let policy = SourcePolicy { every: every.max(retry), retry };
            let mut planner = SourcePlanner::new(policy, 1, 0, start);
            let (mut now, mut ended) = (0, None);
            for (known, answered, random, took) in steps {
                let at = planner.next_wakeup(known).unwrap();
                let longest = policy.every + policy.every / 4;
                let longest = if known { longest } else { longest.min(UNKNOWN_PAUSES * retry) };
                if let Some(ended) = ended {
                    prop_assert!(at >= ended + retry / 2 && at <= ended + longest.max(retry), "{at} {ended}");
                }
                now = at.max(now);
                prop_assert_eq!(planner.poll(known, now), vec![0]);
                prop_assert!(planner.poll(known, now).is_empty(), "one question at a time");
                now += took;
                planner.ended(0, answered, now, random);
                ended = Some(now);
            }
        }
    }
}
