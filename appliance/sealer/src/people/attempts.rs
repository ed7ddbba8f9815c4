//! How often a password may be tried: by account and address, so that a guesser shuts out nobody but its own machine.
//!
//! Refuses to do: remember without limit.
//! Invariant: of one address, no account is tried more than [`BURST`] times at once, nor more often than once in [`PERIOD`]
//! in the long run, whoever is right.

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Tries at once after a pause.
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
/// One try comes back in this time.
const PERIOD: Duration = Duration::from_secs(30);
/// After so many tries budgets that are whole again are forgotten.
const FORGET_EVERY: u64 = 1_024;

/// Budgets of tries.
pub struct Attempts {
    limiter: DefaultKeyedRateLimiter<(u32, IpAddr)>,
    asked: AtomicU64,
}

impl Default for Attempts {
    fn default() -> Self {
        let quota = Quota::with_period(PERIOD).expect("the period is not zero").allow_burst(BURST);
        Attempts { limiter: RateLimiter::keyed(quota), asked: AtomicU64::new(0) }
    }
}

impl Attempts {
    /// One try of the account with this number (0: a name that nobody has) from `address`; else for how long there is none.
    pub fn spend(&self, number: u32, address: IpAddr) -> Result<(), Duration> {
        if self.asked.fetch_add(1, Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        let now = DefaultClock::default().now();
        self.limiter.check_key(&(number, address)).map_err(|refused| refused.wait_time_from(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_stops_nobody_but_itself() {
        let attempts = Attempts::default();
        let [here, there] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        assert!((0..10).all(|_| attempts.spend(1, here).is_ok()));
        let wait = attempts.spend(1, here).unwrap_err();
        assert!(wait <= PERIOD && wait > PERIOD / 2, "{wait:?}");
        assert!(attempts.spend(1, there).is_ok() && attempts.spend(2, here).is_ok());
    }
}
