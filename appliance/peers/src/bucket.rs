//! How much of something is allowed: so much a second, and a burst of it at once.
//!
//! Pure: the time is an argument. Invariant: in any span of `t` seconds at most `burst + t * per_second` are taken.

use std::time::{Duration, Instant};

/// A bucket of tokens.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Bucket { per_second: f64::from(per_second), burst, tokens: burst, filled: now }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Nothing has been taken for so long that it makes no difference whether it is remembered.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.checked_duration_since(self.filled).unwrap_or(Duration::ZERO);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(10, 5, begin);
        assert_eq!((0..100).filter(|_| bucket.take(begin)).count(), 5);
        let later = begin + Duration::from_millis(350);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 3);
        assert!(!bucket.is_full(later));
        assert!(bucket.is_full(later + Duration::from_secs(1)));
        // A clock that stands still or falls back gives nothing.
        while bucket.take(later + Duration::from_secs(1)) {}
        assert!(!bucket.take(begin));
    }
}
