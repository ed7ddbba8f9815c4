//! The one place of this program that reads clocks.
//!
//! Wall time is advisory and only ever stated; every decision uses the steady clock, so that a jump
//! of the wall clock moves no timer.

use bulla_formats::entry::LocalTime;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time in Unix milliseconds; 0 for a clock before 1970.
pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Wall time as entries state it. The uncertainty is absent: no authority has been asked.
pub fn local_time() -> LocalTime {
    LocalTime { unix_millis: now_millis(), uncertainty_millis: None }
}

/// Milliseconds on a clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub struct Steady(Instant);

impl Steady {
    /// Starts at 0.
    pub fn start() -> Self {
        Steady(Instant::now())
    }

    /// Milliseconds since the start.
    pub fn millis(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}
