//! How much each neighbour may ask of us, and when it has asked for so much more that it is shut out for a while.
//!
//! Pure. What is over the rate is dropped or refused as busy, which costs little; whoever goes on all the same costs the
//! processor a decryption and a signature check each time, so its connection is closed and its calls refused for a while.

use crate::bucket::Bucket;
use crate::config::Limits;
use std::time::{Duration, Instant};

/// How long somebody is shut out.
pub(crate) const SHUT_OUT: Duration = Duration::from_secs(30);
/// Refusals that are borne a second, and at once.
const STRIKES: (u32, u32) = (20, 400);

/// The meters of one neighbour. They outlive its connections, so that calling anew gains nothing.
#[derive(Debug)]
pub(crate) struct Guard {
    hints: Bucket,
    requests: Bucket,
    strikes: Bucket,
    shut_out_until: Option<Instant>,
}

impl Guard {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        let (hints, requests) = (limits.hints_per_second, limits.requests_per_second);
        Guard {
            hints: Bucket::new(hints, hints.saturating_mul(2), now),
            requests: Bucket::new(requests, requests.saturating_mul(4), now),
            strikes: Bucket::new(STRIKES.0, STRIKES.1, now),
            shut_out_until: None,
        }
    }

    /// Whether a hint of its may pass.
    pub(crate) fn hint(&mut self, now: Instant) -> bool {
        self.hints.take(now)
    }

    /// Whether a request of its may pass.
    pub(crate) fn request(&mut self, now: Instant) -> bool {
        self.requests.take(now)
    }

    /// Something of its was refused. True: it is shut out from now on.
    pub(crate) fn strike(&mut self, now: Instant) -> bool {
        let out = self.shut_out_until.is_none() && !self.strikes.take(now);
        if out {
            self.shut_out_until = Some(now + SHUT_OUT);
        }
        out
    }

    /// Until when it is shut out.
    pub(crate) fn shut_out_until(&self) -> Option<Instant> {
        self.shut_out_until
    }

    /// It may come back.
    pub(crate) fn forgive(&mut self, now: Instant) {
        self.shut_out_until = None;
        self.strikes = Bucket::new(STRIKES.0, STRIKES.1, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_is_shut_out_once_and_comes_back() {
        let now = Instant::now();
        let limits = Limits { hints_per_second: 20, requests_per_second: 200, ..Limits::default() };
        let mut guard = Guard::new(&limits, now);
        assert_eq!((0..1000).filter(|_| guard.hint(now)).count(), 40);
        assert_eq!((0..2000).filter(|_| guard.request(now)).count(), 800);
        assert_eq!((0..STRIKES.1).filter(|_| guard.strike(now)).count(), 0);
        assert_eq!((0..1000).filter(|_| guard.strike(now)).count(), 1);
        let until = guard.shut_out_until().unwrap();
        assert_eq!(until, now + SHUT_OUT);
        guard.forgive(until);
        assert_eq!(guard.shut_out_until(), None);
        assert!(!guard.strike(until));
    }
}
