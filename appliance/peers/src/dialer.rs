//! Who calls whom, and when again: the part of a neighbour that waits to be called.
//!
//! Pure: time is an argument, and jitter follows from the keys and the count of tries.
//!
//! - The smaller key calls. The other side calls only when it has not been reached for a while, because the first may not
//!   know where it is.
//! - A second between tries while the neighbour is not long gone, a few seconds later on, forever: the LAN that heals shall
//!   have its mirror back within three seconds.
//! - Who lets us not in is called seldom: it has us off its list, and its own call tells when that changes.

use std::time::{Duration, Instant};

/// The other side waits so long for the first one's call.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same, when an address is news.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);
/// Between tries, while it is not long gone.
const YOUNG_AGAIN: Duration = Duration::from_secs(1);
/// So long it is not long gone.
const YOUNG: Duration = Duration::from_secs(60);
/// Between tries at most, later on.
const OLD_AGAIN: Duration = Duration::from_secs(5);
/// Between tries at most, when it lets us not in.
const UNWANTED_AGAIN: Duration = Duration::from_secs(30);
/// Between tries at least, whatever news there is.
const NEWS_AGAIN: Duration = Duration::from_millis(500);

/// Where the calling of one neighbour stands.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// We are the one who calls first.
    first: bool,
    salt: u32,
    /// Since when it has not been there.
    down_since: Instant,
    /// When to try next; `None` while it is there or being called.
    due: Option<Instant>,
    tried: Option<Instant>,
    tries: u32,
    /// How often in a row it did not let us in.
    unwanted: u32,
}

impl Call {
    /// Nobody has been called yet. The salt keeps neighbours from being called all at once.
    pub(crate) fn new(first: bool, salt: u32, now: Instant) -> Self {
        let due = Some(if first { now } else { now + PATIENCE });
        Call { first, salt, down_since: now, due, tried: None, tries: 0, unwanted: 0 }
    }

    /// Whether the neighbour's side of a pair of calls made at once yields to ours.
    pub(crate) fn is_first(&self) -> bool {
        self.first
    }

    /// When to call.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It is being called.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.due = None;
        self.tried = Some(now);
        self.tries = self.tries.saturating_add(1);
    }

    /// The call came to nothing.
    pub(crate) fn failed(&mut self, now: Instant) {
        let again = if now.duration_since(self.down_since) < YOUNG { YOUNG_AGAIN } else { self.later() };
        self.due = Some(now + self.jittered(again));
    }

    /// A connection is there. Whether it lets us in is not known yet.
    pub(crate) fn connected(&mut self) {
        self.due = None;
    }

    /// It has let us in.
    pub(crate) fn let_in(&mut self) {
        (self.tries, self.unwanted) = (0, 0);
    }

    /// The last connection has ended; it had let us in.
    pub(crate) fn gone(&mut self, now: Instant) {
        self.down_since = now;
        let wait = if self.first { NEWS_AGAIN } else { PATIENCE };
        self.due = Some(now + self.jittered(wait));
    }

    /// The last connection has ended before it let us in.
    pub(crate) fn not_let_in(&mut self, now: Instant) {
        self.unwanted = self.unwanted.saturating_add(1);
        let again = YOUNG_AGAIN.saturating_mul(1 << self.unwanted.min(8)).min(UNWANTED_AGAIN);
        self.due = Some(now + self.jittered(again));
    }

    /// It may be reached now: an address of it or of ours is new. The first one has heard of it, too, and calls.
    pub(crate) fn news(&mut self, now: Instant) {
        self.hasten(if self.first { now } else { now + NEWS_PATIENCE }, now);
    }

    /// It cannot know where we are any more: it is on us to call, whoever calls first.
    pub(crate) fn moved(&mut self, now: Instant) {
        self.hasten(now, now);
    }

    fn hasten(&mut self, then: Instant, now: Instant) {
        let Some(due) = self.due else { return };
        let soonest = self.tried.map_or(now, |tried| now.max(tried + NEWS_AGAIN));
        if self.unwanted == 0 {
            self.due = Some(due.min(then.max(soonest)));
        }
    }

    /// It is not to be called before then.
    pub(crate) fn not_before(&mut self, then: Instant) {
        self.due = Some(self.due.map_or(then, |due| due.max(then)));
    }

    fn later(&self) -> Duration {
        YOUNG_AGAIN.saturating_mul(self.tries.clamp(2, 5)).min(OLD_AGAIN)
    }

    /// Between four and six fifths of it.
    fn jittered(&self, wait: Duration) -> Duration {
        let mixed = self.salt.wrapping_add(self.tries).wrapping_mul(0x9e37_79b9).rotate_left(16) % 401;
        wait * (800 + mixed) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The times at which somebody who is never there is called.
    fn calls(first: bool, during: Duration) -> Vec<Duration> {
        let begin = Instant::now();
        let mut call = Call::new(first, 7, begin);
        let mut times = Vec::new();
        while let Some(due) = call.due().filter(|due| due.duration_since(begin) < during) {
            call.begin(due);
            assert_eq!(call.due(), None, "one call at a time");
            times.push(due.duration_since(begin));
            call.failed(due);
        }
        times
    }

    #[test]
    fn the_smaller_key_calls_at_once_the_other_after_a_while() {
        assert_eq!(calls(true, 10 * SECOND)[0], Duration::ZERO);
        assert_eq!(calls(false, 10 * SECOND)[0], PATIENCE);
    }

    #[test]
    fn every_second_at_first_and_every_few_seconds_forever() {
        let times = calls(true, 3600 * SECOND);
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let young = times.iter().filter(|time| **time < YOUNG).count();
        assert!((50..=75).contains(&young), "{young}");
        assert!(gaps.iter().all(|gap| *gap >= SECOND * 4 / 5 && *gap <= OLD_AGAIN * 6 / 5), "{gaps:?}");
        let distinct: std::collections::HashSet<&Duration> = gaps.iter().collect();
        assert!(distinct.len() > 20, "jitter");
    }

    #[test]
    fn who_lets_us_not_in_is_called_seldom_until_it_does() {
        let mut now = Instant::now();
        let mut call = Call::new(true, 1, now);
        for _ in 0..20 {
            call.begin(now);
            call.connected();
            call.not_let_in(now);
            call.news(now);
            now = call.due().unwrap();
        }
        let wait = |call: &mut Call, now| {
            call.not_let_in(now);
            call.due().unwrap() - now
        };
        assert!(wait(&mut call, now) >= UNWANTED_AGAIN * 4 / 5);
        call.let_in();
        assert!(wait(&mut call, now) <= 3 * SECOND);
    }

    #[test]
    fn both_sides_hear_news_and_one_calls() {
        let now = Instant::now();
        let mut calls = [true, false].map(|first| Call::new(first, 1, now));
        calls.iter_mut().for_each(|call| call.news(now));
        assert_eq!(calls[0].due(), Some(now));
        assert_eq!(calls[1].due(), Some(now + NEWS_PATIENCE));
        calls[1].moved(now);
        assert_eq!(calls[1].due(), Some(now));
    }

    #[test]
    fn news_hasten_a_call_but_not_without_end() {
        let now = Instant::now();
        let mut call = Call::new(true, 1, now);
        call.begin(now);
        call.failed(now);
        call.news(now);
        assert_eq!(call.due(), Some(now + NEWS_AGAIN));
        call.begin(now + NEWS_AGAIN);
        call.news(now + NEWS_AGAIN);
        assert_eq!(call.due(), None, "it is being called");
        call.connected();
        call.let_in();
        call.gone(now + SECOND);
        assert!(call.due().unwrap() <= now + 2 * SECOND);
    }
}
