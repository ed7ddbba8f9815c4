//! How often an authority may be asked: sliding windows that also hold across restarts.
//!
//! A request takes a slot from the moment it is decided until it can no longer count in the authority's own window,
//! however late it got there. What is kept is how long each slot is still taken, never a date: no clock that somebody
//! sets can free one.
//! Invariant: in no window of the quota's period do more requests leave than it allows, whatever is restarted, as long
//! as the time said to have passed since a state was kept is never more than what has.

/// So many requests in any period of so many milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests.
    pub requests: u32,
    /// The period.
    pub period: u64,
}

/// How long each slot is still taken that is free again at these times.
pub(super) fn remaining(free_at: &[u64], now: u64) -> Vec<u64> {
    free_at.iter().filter(|at| **at > now).map(|at| at - now).collect()
}

/// The slots of one quota.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    quota: Option<Quota>,
    /// How long a slot is taken: the period, and the longest that a request may be on its way.
    hold: u64,
    /// When each taken slot is free again, in ascending order.
    free_at: Vec<u64>,
}

impl Slots {
    /// `on_its_way`: longest time from the decision to a request's arrival.
    pub(super) fn new(quota: Option<Quota>, on_its_way: u64) -> Self {
        let hold = quota.map_or(0, |quota| quota.period.saturating_add(on_its_way));
        Slots { quota, hold, free_at: Vec::new() }
    }

    /// Takes slots that are still taken for so long.
    pub(super) fn restore(&mut self, remaining: impl Iterator<Item = u64>, now: u64) {
        if self.quota.is_some() {
            self.free_at.extend(remaining.map(|millis| now.saturating_add(millis.min(self.hold))));
            self.free_at.sort_unstable();
        }
    }

    /// How long each slot is still taken.
    pub(super) fn remaining(&self, now: u64) -> Vec<u64> {
        remaining(&self.free_at, now)
    }

    /// Takes a slot. The caller has seen that one is free.
    pub(super) fn take(&mut self, now: u64) {
        self.free_at.retain(|at| *at > now);
        if self.quota.is_some() {
            self.free_at.push(now.saturating_add(self.hold));
        }
    }

    /// Gives the newest slot back: the request never left.
    pub(super) fn give_back(&mut self) {
        self.free_at.pop();
    }

    /// Slots free now; `None` if there is no quota.
    pub(super) fn left(&self, now: u64) -> Option<u32> {
        let taken = self.free_at.iter().filter(|at| **at > now).count();
        self.quota.map(|quota| quota.requests.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)))
    }

    /// When a slot is free, `None` for never.
    pub(super) fn available_at(&self) -> Option<u64> {
        let Some(quota) = self.quota else { return Some(0) };
        let requests = usize::try_from(quota.requests).unwrap_or(usize::MAX);
        if requests == 0 {
            return None;
        }
        match self.free_at.len().checked_sub(requests) {
            None => Some(0),
            Some(place) => self.free_at.get(place).copied(),
        }
    }

    /// Until when requests that can wait should wait, so that the slots are spread over the period.
    pub(super) fn spaced_at(&self) -> u64 {
        let (Some(quota), Some(last)) = (self.quota, self.free_at.last()) else { return 0 };
        let spacing = self.hold.div_ceil(u64::from(quota.requests.max(1)));
        last.saturating_sub(self.hold).saturating_add(spacing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUOTA: Quota = Quota { requests: 3, period: 1_000 };

    #[test]
    fn the_oldest_slot_is_free_first() {
        let mut slots = Slots::new(Some(QUOTA), 20);
        for now in [0, 10, 20] {
            assert!(slots.available_at() <= Some(now));
            slots.take(now);
        }
        assert_eq!((slots.left(20), slots.available_at()), (Some(0), Some(1_020)));
        assert_eq!(slots.spaced_at(), 20 + 340);
        slots.give_back();
        assert_eq!((slots.left(20), slots.available_at()), (Some(1), Some(0)));
    }

    #[test]
    fn no_quota_no_limit_and_a_quota_of_none_is_none() {
        let mut free = Slots::new(None, 20);
        for _ in 0..1_000 {
            free.take(5);
        }
        assert_eq!((free.left(5), free.available_at(), free.spaced_at()), (None, Some(0), 0));
        let none = Slots::new(Some(Quota { requests: 0, period: 1_000 }), 20);
        assert_eq!(none.available_at(), None);
    }

    proptest! {
        /// Requests at any times, each on its way for any time up to the longest, restarts between them that know
        /// less time to have passed than did: no window of the authority sees more than its quota.
        #[test]
        fn g4_no_window_sees_more_than_the_quota(
            steps in prop::collection::vec((0u64..400, 0u64..=20, any::<bool>(), 0u64..400), 1..120)
        ) {
            let mut slots = Slots::new(Some(QUOTA), 20);
            let (mut now, mut arrived) = (0, Vec::new());
            for (pause, on_its_way, restart, forgotten) in steps {
                now += pause;
                if restart {
                    let kept = slots.remaining(now);
                    now += forgotten;
                    slots = Slots::new(Some(QUOTA), 20);
                    slots.restore(kept.into_iter(), now);
                }
                if slots.available_at().is_some_and(|at| at <= now) {
                    slots.take(now);
                    arrived.push(now + on_its_way);
                }
            }
            arrived.sort_unstable();
            for (n, at) in arrived.iter().enumerate() {
                let within = arrived[n..].iter().take_while(|other| **other < at + QUOTA.period).count();
                prop_assert!(within <= 3, "{arrived:?}");
            }
        }
    }
}
