//! Carries out what the clocks' keeper wants: keeps what is known of the time, logs what was noticed.

use super::desk::Desk;
use super::kept;
use bulla_formats::body::clock::{ClockBody, ClockFinding as Found, TpmClock as Stated};
use bulla_formats::der;
use bulla_formats::entry::{Kind, LocalTime};
use bulla_formats::report::utc;
use bulla_protocol::time::{Bounds, ClockFinding, TimeEffect, TpmClock};
use std::sync::atomic::Ordering::Relaxed;

impl Desk {
    pub(super) fn clock_effect(&mut self, effect: TimeEffect) {
        match effect {
            TimeEffect::Persist(state) => {
                if let Err(error) = kept::keep_time(&self.control, &state) {
                    log::debug!("what is known of the time could not be kept: {error}");
                }
            }
            TimeEffect::LogClock(finding) => {
                if matches!(finding, ClockFinding::Inverted { .. } | ClockFinding::Behind { .. }) {
                    self.shared.counters.clock_contradictions.fetch_add(1, Relaxed);
                }
                let body = self.words(&finding);
                log::warn!("clock: {}", body.detail);
                let logged = self.append(Kind::Clock, der::encode(&body));
                self.noted();
                if let Err(reason) = logged {
                    log::warn!("what was noticed about the clock could not be logged: {reason}");
                }
            }
        }
    }

    fn words(&self, finding: &ClockFinding) -> ClockBody {
        let now = self.shared.clock.local_time();
        let plain = |unix_millis| LocalTime { unix_millis, uncertainty_millis: None };
        let within = |bounds: &Bounds| LocalTime {
            unix_millis: bounds.lo.midpoint(bounds.hi),
            uncertainty_millis: Some((bounds.hi - bounds.lo).div_ceil(2)),
        };
        let (finding, expected, found, tpm, detail) = match finding {
            ClockFinding::Jump { from, to } => {
                let detail = format!("the wall clock jumped from {} to {}", utc(*from), utc(*to));
                (Found::Jump, plain(*from), plain(*to), None, detail)
            }
            ClockFinding::TpmReset { from, to } => {
                let detail = format!(
                    "the TPM was reset or restarted: {} ms and {} resets, now {} ms and {}",
                    from.clock, from.reset_count, to.clock, to.reset_count
                );
                (Found::TpmReset, now, now, Some(stated(to)), detail)
            }
            ClockFinding::TpmDrift { steady, tpm } => {
                let detail = format!("{steady} ms have passed, {tpm} ms by the TPM's clock");
                (Found::Drift, now, now, None, detail)
            }
            ClockFinding::Correction { ceiling, reading } => {
                let detail = format!(
                    "{} says {}, at most {} was thought possible",
                    self.speaker,
                    span(reading),
                    utc(*ceiling)
                );
                (Found::Correction, plain(*ceiling), within(reading), None, detail)
            }
            ClockFinding::Inverted { floor, reading } => {
                let (said, floor_text) = (span(reading), utc(*floor));
                let who = &self.speaker;
                let detail = format!("{who} says {said}, others have shown that it is {floor_text} at least");
                (Found::Contradiction, plain(*floor), within(reading), None, detail)
            }
            ClockFinding::Behind { wall, floor } => {
                let detail = format!(
                    "the wall clock shows {}, which is over: it is {} at least",
                    utc(*wall),
                    utc(*floor)
                );
                (Found::Correction, plain(*wall), plain(*floor), None, detail)
            }
        };
        ClockBody { finding, expected, found, tpm, detail }
    }
}

fn span(bounds: &Bounds) -> String {
    format!("{} to {}", utc(bounds.lo), utc(bounds.hi))
}

fn stated(clock: &TpmClock) -> Stated {
    Stated {
        millis: clock.clock,
        reset_count: clock.reset_count.into(),
        restart_count: clock.restart_count.into(),
        safe: clock.safe,
    }
}
