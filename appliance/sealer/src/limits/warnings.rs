//! Warnings about refusals: the first of a kind in full, then one line a minute with their number.
//!
//! A box that refuses ten thousand requests a second must not write ten thousand lines, which would cost more than
//! the refusals and push everything else out of the journal.
//! Refuses to do: lose a count. What is held back is written by [`Warnings::flush`], at the latest a minute later.

use crate::problem::Kind;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One line of a kind in this time.
const PERIOD: Duration = Duration::from_secs(60);

/// What has been warned of, by problem type.
pub struct Warnings([Mutex<State>; Kind::ALL.len()]);

#[derive(Default)]
struct State {
    since: Option<Instant>,
    held: u64,
}

impl Default for Warnings {
    fn default() -> Self {
        Warnings(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Warnings {
    /// Counts a refusal of this kind; true when it is to be written in full.
    pub fn first(&self, kind: Kind, now: Instant) -> bool {
        let Some(state) = self.0.get(kind as usize) else { return true };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_some() {
            state.held += 1;
            return false;
        }
        state.since = Some(now);
        true
    }

    /// Kinds whose minute is over, with how many of them were held back; call it every few seconds. A kind that went
    /// on has its next minute at once, one that did not is written in full when it comes again.
    pub fn flush(&self, now: Instant) -> Vec<(Kind, u64)> {
        let due = |kind: &Kind| {
            let mut state = self.0.get(*kind as usize)?.lock().unwrap_or_else(PoisonError::into_inner);
            if now.duration_since(state.since?) < PERIOD {
                return None;
            }
            let held = std::mem::take(&mut state.held);
            state.since = (held > 0).then_some(now);
            (held > 0).then_some((*kind, held))
        };
        Kind::ALL.iter().filter_map(due).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_refusals_are_two_lines() {
        let (warnings, start) = (Warnings::default(), Instant::now());
        let written = (0..1000).filter(|_| warnings.first(Kind::Overloaded, start)).count();
        assert_eq!(written, 1);
        assert!(warnings.first(Kind::DiskFull, start), "another kind is another warning");
        assert!(warnings.flush(start + PERIOD / 2).is_empty());
        assert_eq!(warnings.flush(start + PERIOD), [(Kind::Overloaded, 999)]);
        assert!(!warnings.first(Kind::Overloaded, start + PERIOD), "it goes on");
        assert!(warnings.first(Kind::DiskFull, start + PERIOD), "it had ended");
        assert_eq!(warnings.flush(start + PERIOD * 2), [(Kind::Overloaded, 1)]);
        assert!(warnings.flush(start + PERIOD * 3).is_empty());
        assert!(warnings.first(Kind::Overloaded, start + PERIOD * 3));
    }
}
