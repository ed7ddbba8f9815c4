//! The one place of this program that reads clocks.
//!
//! Wall time is advisory and only ever stated; every decision uses the steady clock, so that a jump
//! of the wall clock moves no timer.

use bulla_formats::entry::LocalTime;
use bulla_protocol::time::{Moment, TimeConfig, TimeEffect, TimeEvent, TimeKeeper, TimeState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time in Unix milliseconds; 0 for a clock before 1970.
pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Wall time as entries state it. The uncertainty is absent: no authority has been asked.
pub fn local_time() -> LocalTime {
    LocalTime { unix_millis: now_millis(), uncertainty_millis: None }
}

/// What the box says of the time: shared by all who make entries.
#[derive(Debug)]
pub struct Clock {
    keeper: Mutex<TimeKeeper>,
}

impl Clock {
    /// Goes on from what the last run kept.
    pub fn new(kept: Option<TimeState>) -> Self {
        let keeper = TimeKeeper::new(TimeConfig::default(), boot_id(), kept, boottime_millis());
        Clock { keeper: Mutex::new(keeper) }
    }

    /// Wall time as entries state it, with the bound of its error when one is known.
    pub fn local_time(&self) -> LocalTime {
        let (wall, now) = (now_millis(), boottime_millis());
        LocalTime { unix_millis: wall, uncertainty_millis: self.keeper().uncertainty(wall, now) }
    }

    /// What follows from something that was noticed about time.
    pub fn handle(&self, event: TimeEvent) -> Vec<TimeEffect> {
        self.keeper().handle(event, boottime_millis())
    }

    /// This instant, as a later run can remember it.
    pub fn moment(&self) -> Moment {
        self.keeper().moment(boottime_millis())
    }

    /// The earliest and the latest that the true time may be, Unix milliseconds, as far as anybody knows.
    pub fn limits(&self) -> (Option<u64>, Option<u64>) {
        let (now, keeper) = (boottime_millis(), self.keeper());
        (keeper.floor(now), keeper.bounds(now).map(|bounds| bounds.hi))
    }

    fn keeper(&self) -> MutexGuard<'_, TimeKeeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since this boot, with the time asleep: a clock that nobody can set, and that outlives the process.
pub fn boottime_millis() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The kernel's id of this boot; all zeros where it says none, which no boot is the same as but such ones.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    if hex::decode_to_slice(&digits, &mut id).is_err() {
        id = [0; 16];
    }
    id
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
