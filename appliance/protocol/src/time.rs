//! How far the wall clock may be off, and what its jumps, the TPM's clock and authorities say against it.
//!
//! An authority's answer is an interval that contained the true time at some instant between question and answer. From
//! then on the interval grows with the steady clock's drift; the stated uncertainty of the wall clock is its distance
//! from the farther end. Nobody has to believe the wall clock for that, so it may jump as it likes.
//! A restart of the process changes nothing while the machine runs on. A reboot does: nobody knows how long the power
//! was off. The TPM's clock stands still meanwhile, and falls back when the power goes without warning, so what it
//! shows is the *least* time that has passed; the upper end is lost, and with it the uncertainty, until an authority
//! answers.
//!
//! Refuses to do: clocks (all of them are arguments); set any.
//! Invariants: with honest authorities and a steady clock within its drift, true time is inside the interval; of two
//! authorities that contradict each other neither is believed alone, and while they go on it is told once an hour.

/// What is believed of clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeConfig {
    /// How far the steady clock may drift, in millionths.
    pub drift_ppm: u64,
    /// How far the TPM's clock may.
    pub tpm_ppm: u64,
    /// A wall clock that moves by more than this against the steady clock has jumped.
    pub jump_millis: u64,
}

impl Default for TimeConfig {
    fn default() -> Self {
        TimeConfig { drift_ppm: 100, tpm_ppm: 150_000, jump_millis: 1_000 }
    }
}

/// How fast a wall clock may be slewed without having jumped, in millionths: twice what kernels do.
const SLEW_PPM: u64 = 1_000;
/// How late a TPM's answer may be read.
const TPM_SLACK_MILLIS: u64 = 5_000;
/// An authority that is off says so with every answer; the log need not.
const REPEAT_MILLIS: u64 = 3_600_000;

/// Bounds of the true time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Not before.
    pub lo: u64,
    /// Not after.
    pub hi: u64,
}

/// The TPM's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TpmClock {
    /// Milliseconds that the TPM has had power, roughly.
    pub clock: u64,
    /// How often it was reset.
    pub reset_count: u32,
    /// How often it was restarted or resumed since.
    pub restart_count: u32,
    /// Whether the clock has never shown a later value.
    pub safe: bool,
}

/// An instant as a box can remember it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The kernel's id of this boot.
    pub boot: [u8; 16],
    /// Milliseconds since it, with the time asleep.
    pub at: u64,
    /// The TPM's clock, read before.
    pub tpm: Option<TpmClock>,
    /// How long before, in milliseconds.
    pub tpm_age: u64,
}

impl Moment {
    /// How much time has passed since `earlier` at least; 0 if nobody knows.
    pub fn since(&self, earlier: &Moment, config: &TimeConfig) -> u64 {
        if self.boot == earlier.boot {
            return self.at.saturating_sub(earlier.at);
        }
        let fast = config.tpm_ppm.saturating_add(1_000_000);
        let powered = match (&earlier.tpm, &self.tpm) {
            // Fewer resets than before: it was cleared, and began again at 0.
            (Some(before), Some(after)) if after.reset_count >= before.reset_count => {
                let by_then = scale(earlier.tpm_age, fast, 1_000_000).saturating_add(TPM_SLACK_MILLIS);
                after.clock.saturating_sub(before.clock.saturating_add(by_then))
            }
            _ => 0,
        };
        scale(powered, 1_000_000, fast)
    }
}

/// What survives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeState {
    /// When it was kept.
    pub moment: Moment,
    /// No earlier than this, then.
    pub lo: u64,
    /// No later than this, then; `None` if nobody knew.
    pub hi: Option<u64>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeEvent {
    /// The wall clock shows this.
    Wall {
        /// Milliseconds since 1970.
        millis: u64,
    },
    /// A verified answer of an authority.
    Reading {
        /// Its time, less and plus its accuracy.
        bounds: Bounds,
        /// When the question left, by the steady clock; its answer is here now.
        sent: u64,
    },
    /// Some of the answers so far may have been false (the key of an authority was taken): nothing is known of the time
    /// until the next one.
    Disbelieved,
    /// The TPM's clock shows this.
    Tpm(TpmClock),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeEffect {
    /// Keep this for the next start; what was kept before stays true.
    Persist(TimeState),
    /// Append a `clock` entry.
    LogClock(ClockFinding),
}

/// Something about the clocks that an auditor must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockFinding {
    /// The wall clock jumped against the steady clock.
    Jump {
        /// What it would have shown.
        from: u64,
        /// What it shows.
        to: u64,
    },
    /// The TPM was reset or restarted.
    TpmReset {
        /// Its clock as last seen.
        from: TpmClock,
        /// As seen now.
        to: TpmClock,
    },
    /// TPM and steady clock disagree on how long ago the last look was.
    TpmDrift {
        /// Milliseconds by the steady clock.
        steady: u64,
        /// By the TPM.
        tpm: u64,
    },
    /// An authority says it is later than was thought possible: the steady clock drifts, or stood still.
    Correction {
        /// What was thought possible at most.
        ceiling: u64,
        /// What the authority says.
        reading: Bounds,
    },
    /// An authority says it is earlier than another one has shown: one of the two is wrong.
    Inverted {
        /// No earlier than this, as was known.
        floor: u64,
        /// What the authority says.
        reading: Bounds,
    },
    /// The wall clock shows a time that is certainly over.
    Behind {
        /// What it shows.
        wall: u64,
        /// No earlier than this.
        floor: u64,
    },
}

/// What is known of the true time at one instant.
#[derive(Debug, Clone, Copy)]
struct Known {
    lo: u64,
    hi: Option<u64>,
    at: u64,
}

/// A look at the TPM's clock.
#[derive(Debug, Clone, Copy)]
struct Look {
    clock: TpmClock,
    /// When, by the steady clock; `None` in an earlier boot.
    at: Option<u64>,
}

/// Keeps the interval, and looks at the clocks.
#[derive(Debug, Clone)]
pub struct TimeKeeper {
    config: TimeConfig,
    boot: [u8; 16],
    now: u64,
    known: Option<Known>,
    /// What an earlier boot kept, until the TPM's clock says how long ago that is at least.
    unbridged: Option<TimeState>,
    wall: Option<(u64, u64)>,
    tpm: Option<Look>,
    is_behind: bool,
    /// When an answer was last told of that came before the interval, and after it.
    told: [Option<u64>; 2],
}

impl TimeKeeper {
    /// A keeper of a process that starts. `now` is in milliseconds since this boot, with the time asleep.
    pub fn new(config: TimeConfig, boot: [u8; 16], kept: Option<TimeState>, now: u64) -> Self {
        let mut keeper = TimeKeeper {
            config,
            boot,
            now,
            known: None,
            unbridged: None,
            wall: None,
            tpm: None,
            is_behind: false,
            told: [None; 2],
        };
        if let Some(state) = kept {
            let moment = state.moment;
            let looked_at = moment.at.saturating_sub(moment.tpm_age);
            let look = |at| moment.tpm.map(|clock| Look { clock, at });
            if moment.boot == boot && moment.at <= now {
                keeper.known = Some(Known { lo: state.lo, hi: state.hi, at: moment.at });
                keeper.tpm = look(Some(looked_at));
            } else {
                keeper.known = Some(Known { lo: state.lo, hi: None, at: now });
                keeper.tpm = look(None);
                keeper.unbridged = Some(state);
            }
        }
        keeper
    }

    /// Bounds of the true time, if an authority has answered since the boot.
    pub fn bounds(&self, now: u64) -> Option<Bounds> {
        let known = self.grown(now)?;
        Some(Bounds { lo: known.lo, hi: known.hi? })
    }

    /// The true time is not before this, as far as anybody knows.
    pub fn floor(&self, now: u64) -> Option<u64> {
        self.grown(now).map(|known| known.lo)
    }

    /// How far the wall clock, which shows `wall`, may be off; `None` if nobody knows.
    pub fn uncertainty(&self, wall: u64, now: u64) -> Option<u64> {
        let bounds = self.bounds(now)?;
        Some(wall.abs_diff(bounds.lo).max(wall.abs_diff(bounds.hi)))
    }

    /// This instant, for whoever must know later how long ago it was.
    pub fn moment(&self, now: u64) -> Moment {
        let at = now.max(self.now);
        let look = self.tpm.and_then(|look| Some((look.clock, at.saturating_sub(look.at?))));
        Moment {
            boot: self.boot,
            at,
            tpm: look.map(|(clock, _)| clock),
            tpm_age: look.map_or(0, |(_, age)| age),
        }
    }

    /// What follows from `event`.
    pub fn handle(&mut self, event: TimeEvent, now: u64) -> Vec<TimeEffect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        match event {
            TimeEvent::Wall { millis } => self.looked_at_wall(millis, &mut effects),
            TimeEvent::Reading { bounds, sent } => self.read(bounds, sent, &mut effects),
            TimeEvent::Disbelieved => {
                self.unbridged = None;
                self.told = [None; 2];
                self.keep(Known { lo: 0, hi: None, at: self.now }, &mut effects);
            }
            TimeEvent::Tpm(clock) => self.looked_at_tpm(clock, &mut effects),
        }
        effects
    }

    fn grown(&self, now: u64) -> Option<Known> {
        let known = self.known?;
        let at = now.max(known.at);
        let elapsed = at - known.at;
        let slack = scale(elapsed, self.config.drift_ppm, 1_000_000).saturating_add(u64::from(elapsed > 0));
        Some(Known {
            lo: known.lo.saturating_add(elapsed.saturating_sub(slack)),
            hi: known.hi.map(|hi| hi.saturating_add(elapsed).saturating_add(slack)),
            at,
        })
    }

    fn keep(&mut self, known: Known, effects: &mut Vec<TimeEffect>) {
        self.known = Some(known);
        let moment = self.moment(known.at);
        effects.push(TimeEffect::Persist(TimeState { moment, lo: known.lo, hi: known.hi }));
    }

    fn looked_at_wall(&mut self, wall: u64, effects: &mut Vec<TimeEffect>) {
        if let Some((before, at)) = self.wall {
            let elapsed = self.now.saturating_sub(at);
            let expected = before.saturating_add(elapsed);
            let slewed = scale(elapsed, SLEW_PPM, 1_000_000);
            if wall.abs_diff(expected) > self.config.jump_millis.saturating_add(slewed) {
                effects.push(TimeEffect::LogClock(ClockFinding::Jump { from: expected, to: wall }));
            }
        }
        self.wall = Some((wall, self.now));
        let floor = self.floor(self.now).filter(|floor| wall < *floor);
        // With both bounds the uncertainty says so already.
        let floor = floor.filter(|_| self.bounds(self.now).is_none());
        if let Some(floor) = floor.filter(|_| !self.is_behind) {
            effects.push(TimeEffect::LogClock(ClockFinding::Behind { wall, floor }));
        }
        self.is_behind = floor.is_some();
    }

    fn read(&mut self, reading: Bounds, sent: u64, effects: &mut Vec<TimeEffect>) {
        let underway = self.now.saturating_sub(sent);
        let slack = scale(underway, self.config.drift_ppm, 1_000_000).saturating_add(1);
        let latest = reading.hi.saturating_add(underway).saturating_add(slack);
        let reading = Bounds { lo: reading.lo.min(latest), hi: latest };
        let (lo, hi) = match self.grown(self.now) {
            None => (reading.lo, Some(reading.hi)),
            Some(Known { lo: floor, hi: ceiling, .. }) => {
                let finding = if reading.hi < floor {
                    Some(ClockFinding::Inverted { floor, reading })
                } else {
                    let over = ceiling.filter(|ceiling| reading.lo > *ceiling);
                    over.map(|ceiling| ClockFinding::Correction { ceiling, reading })
                };
                match finding {
                    None => {
                        (reading.lo.max(floor), Some(ceiling.map_or(reading.hi, |hi| hi.min(reading.hi))))
                    }
                    Some(finding) => {
                        let is_late = matches!(finding, ClockFinding::Correction { .. });
                        let told = &mut self.told[usize::from(is_late)];
                        if told.is_none_or(|at| self.now.saturating_sub(at) >= REPEAT_MILLIS) {
                            *told = Some(self.now);
                            effects.push(TimeEffect::LogClock(finding));
                        }
                        // Nobody knows which of the two is right: the truth is in one of them, or between.
                        (reading.lo.min(floor), ceiling.map(|hi| hi.max(reading.hi)))
                    }
                }
            }
        };
        self.unbridged = None;
        self.keep(Known { lo, hi, at: self.now }, effects);
    }

    fn looked_at_tpm(&mut self, clock: TpmClock, effects: &mut Vec<TimeEffect>) {
        if let Some(Look { clock: before, at }) = self.tpm {
            let counts = |clock: &TpmClock| (clock.reset_count, clock.restart_count);
            if counts(&before) != counts(&clock) {
                effects.push(TimeEffect::LogClock(ClockFinding::TpmReset { from: before, to: clock }));
            } else if let Some(at) = at {
                let (steady, tpm) = (self.now.saturating_sub(at), clock.clock.saturating_sub(before.clock));
                let slack = scale(steady, self.config.tpm_ppm, 1_000_000).saturating_add(TPM_SLACK_MILLIS);
                if clock.clock < before.clock || steady.abs_diff(tpm) > slack {
                    effects.push(TimeEffect::LogClock(ClockFinding::TpmDrift { steady, tpm }));
                }
            }
        }
        self.tpm = Some(Look { clock, at: Some(self.now) });
        let Some(mut known) = self.grown(self.now) else { return };
        if let Some(state) = self.unbridged.take() {
            let passed = self.moment(self.now).since(&state.moment, &self.config);
            known.lo = known.lo.max(state.lo.saturating_add(passed));
        }
        self.keep(known, effects);
    }
}

/// `value * by / of`, rounded down.
fn scale(value: u64, by: u64, of: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: [u8; 16] = [1; 16];
    const NEXT: [u8; 16] = [2; 16];
    /// Some instant, in milliseconds since 1970.
    const T: u64 = 1_700_000_000_000;
    const YEAR: u64 = 31_536_000_000;

    fn keeper(kept: Option<TimeState>) -> TimeKeeper {
        TimeKeeper::new(TimeConfig::default(), BOOT, kept, 0)
    }

    fn bounds(lo: u64, hi: u64) -> Bounds {
        Bounds { lo: T + lo, hi: T + hi }
    }

    fn tpm(clock: u64, reset_count: u32) -> TpmClock {
        TpmClock { clock, reset_count, restart_count: 0, safe: true }
    }

    fn findings(effects: &[TimeEffect]) -> Vec<ClockFinding> {
        let finding = |effect: &TimeEffect| match effect {
            TimeEffect::LogClock(finding) => Some(*finding),
            TimeEffect::Persist(_) => None,
        };
        effects.iter().filter_map(finding).collect()
    }

    fn kept(effects: &[TimeEffect]) -> TimeState {
        let state = |effect: &TimeEffect| match effect {
            TimeEffect::Persist(state) => Some(*state),
            TimeEffect::LogClock(_) => None,
        };
        effects.iter().find_map(state).expect("it is kept")
    }

    #[test]
    fn nothing_is_known_before_an_authority_answers() {
        let mut keeper = keeper(None);
        assert!(findings(&keeper.handle(TimeEvent::Wall { millis: T }, 0)).is_empty());
        assert_eq!((keeper.uncertainty(T, 5), keeper.floor(5)), (None, None));
    }

    #[test]
    fn the_uncertainty_grows_and_an_answer_shrinks_it() {
        let mut keeper = keeper(None);
        keeper.handle(TimeEvent::Reading { bounds: bounds(0, 1_000), sent: 0 }, 200);
        assert_eq!(keeper.bounds(200), Some(bounds(0, 1_201)), "the answer was 200 ms on its way");
        assert_eq!(keeper.uncertainty(T + 500, 200), Some(701));
        assert_eq!(keeper.uncertainty(T + YEAR, 200), Some(YEAR), "a wrong wall clock is this uncertain");
        let day = 86_400_000;
        assert_eq!(keeper.bounds(200 + day), Some(bounds(day - 8_641, day + 1_201 + 8_641)));
        keeper.handle(TimeEvent::Reading { bounds: bounds(day, day + 500), sent: day + 200 }, day + 200);
        assert_eq!(keeper.bounds(day + 200), Some(bounds(day, day + 501)));
    }

    #[test]
    fn a_restart_of_the_process_changes_nothing_and_a_reboot_loses_the_upper_end() {
        let mut first = keeper(None);
        first.handle(TimeEvent::Tpm(tpm(7_000_000, 3)), 0);
        let state = kept(&first.handle(TimeEvent::Reading { bounds: bounds(0, 100), sent: 50 }, 50));
        let mut second = TimeKeeper::new(TimeConfig::default(), BOOT, Some(state), 3_600_050);
        assert_eq!(second.bounds(3_600_050), first.bounds(3_600_050));
        let same = second.handle(TimeEvent::Tpm(tpm(10_600_000, 3)), 3_600_050);
        assert!(findings(&same).is_empty(), "{same:?}");

        let state = kept(&same);
        let mut third = TimeKeeper::new(TimeConfig::default(), NEXT, Some(state), 9_000);
        assert_eq!((third.bounds(9_000), third.uncertainty(T, 9_000)), (None, None));
        assert_eq!(third.floor(9_000), first.floor(3_600_050));
        let behind = third.handle(TimeEvent::Wall { millis: T }, 9_000);
        assert!(matches!(findings(&behind)[..], [ClockFinding::Behind { wall: T, .. }]), "{behind:?}");
        assert!(findings(&third.handle(TimeEvent::Wall { millis: T + 1_000 }, 10_000)).is_empty(), "once");
        // 23 minutes of power later: at least 20, because the TPM may be fast by 15 per cent.
        let effects = third.handle(TimeEvent::Tpm(tpm(10_600_000 + 1_380_000 + 5_000, 4)), 10_000);
        let reset = findings(&effects);
        assert!(matches!(reset[..], [ClockFinding::TpmReset { .. }]), "{reset:?}");
        assert_eq!(third.floor(10_000), first.floor(3_600_050).map(|floor| floor + 1_200_000));
        assert_eq!(third.bounds(10_000), None, "how long the power was off nobody knows");
    }

    #[test]
    fn what_an_old_look_at_the_tpm_says_is_not_too_much() {
        let mut first = keeper(None);
        first.handle(TimeEvent::Tpm(tpm(0, 3)), 0);
        let late = 1_000_000;
        let state = kept(&first.handle(TimeEvent::Reading { bounds: bounds(late, late), sent: late }, late));
        let mut second = TimeKeeper::new(TimeConfig::default(), NEXT, Some(state), 0);
        // 100 s later by a TPM that is 15 per cent fast.
        second.handle(TimeEvent::Tpm(tpm(1_265_000, 4)), 100_000);
        assert!(second.floor(100_000) <= Some(T + late + 100_000));
        let config = TimeConfig::default();
        let cleared = Moment { tpm: Some(tpm(u64::MAX, 0)), ..second.moment(100_000) };
        assert_eq!(cleared.since(&state.moment, &config), 0, "a TPM that was cleared tells nothing");
        let fallen_back = Moment { tpm: Some(tpm(0, 4)), ..second.moment(100_000) };
        assert_eq!(fallen_back.since(&state.moment, &config), 0);
    }

    #[test]
    fn jumps_are_found_both_ways_and_slewing_is_none() {
        // Ten seconds may be slewed by ten milliseconds.
        for (to, found) in [(T + YEAR, true), (T - YEAR, true), (T + 11_011, true), (T + 11_010, false)] {
            let mut keeper = keeper(None);
            keeper.handle(TimeEvent::Wall { millis: T }, 0);
            let effects = keeper.handle(TimeEvent::Wall { millis: to }, 10_000);
            let expected = ClockFinding::Jump { from: T + 10_000, to };
            assert_eq!(findings(&effects), if found { vec![expected] } else { Vec::new() });
            let after = keeper.handle(TimeEvent::Wall { millis: to + 1_000 }, 11_000);
            assert!(findings(&after).is_empty(), "it is found once");
        }
        let mut keeper = keeper(None);
        for second in 0..100_000_u64 {
            let slewed = T + second * 1_000 + second / 2;
            let effects = keeper.handle(TimeEvent::Wall { millis: slewed }, second * 1_000);
            assert!(findings(&effects).is_empty());
        }
    }

    #[test]
    fn the_tpm_against_the_steady_clock() {
        let mut keeper = keeper(None);
        keeper.handle(TimeEvent::Tpm(tpm(1_000, 3)), 0);
        assert!(findings(&keeper.handle(TimeEvent::Tpm(tpm(3_700_000, 3)), 3_600_000)).is_empty());
        let drift = findings(&keeper.handle(TimeEvent::Tpm(tpm(13_700_000, 3)), 7_200_000));
        assert_eq!(drift, [ClockFinding::TpmDrift { steady: 3_600_000, tpm: 10_000_000 }]);
        let back = findings(&keeper.handle(TimeEvent::Tpm(tpm(13_699_999, 3)), 7_200_001));
        assert!(matches!(back[..], [ClockFinding::TpmDrift { .. }]), "a clock never goes back by itself");
        let reset = findings(&keeper.handle(TimeEvent::Tpm(tpm(13_000_000, 4)), 7_200_002));
        assert!(matches!(reset[..], [ClockFinding::TpmReset { .. }]));
    }

    #[test]
    fn authorities_that_contradict_each_other_are_found_and_neither_is_believed_alone() {
        let mut keeper = keeper(None);
        keeper.handle(TimeEvent::Reading { bounds: bounds(10_000, 11_000), sent: 0 }, 0);
        let early = keeper.handle(TimeEvent::Reading { bounds: bounds(0, 1_000), sent: 0 }, 0);
        assert!(matches!(findings(&early)[..], [ClockFinding::Inverted { .. }]), "{early:?}");
        assert_eq!(keeper.bounds(0), Some(bounds(0, 11_001)));
        let late = keeper.handle(TimeEvent::Reading { bounds: bounds(50_000, 51_000), sent: 0 }, 0);
        assert!(matches!(findings(&late)[..], [ClockFinding::Correction { .. }]), "{late:?}");
        assert_eq!(keeper.bounds(0), Some(bounds(0, 51_001)));
        // After a reboot the upper end is unknown, and an answer from before the floor does not bring it back.
        let state = kept(&late);
        let mut next = TimeKeeper::new(TimeConfig::default(), NEXT, Some(state), 0);
        let reading = Bounds { lo: T - 2_000, hi: T - 1_000 };
        let early = next.handle(TimeEvent::Reading { bounds: reading, sent: 0 }, 0);
        assert!(matches!(findings(&early)[..], [ClockFinding::Inverted { .. }]));
        assert_eq!(next.bounds(0), None);
    }

    #[test]
    fn what_a_thief_may_have_said_is_forgotten_and_the_next_answer_counts() {
        let mut keeper = keeper(None);
        keeper.handle(TimeEvent::Reading { bounds: bounds(YEAR, YEAR + 1_000), sent: 0 }, 0);
        let state = kept(&keeper.handle(TimeEvent::Disbelieved, 10));
        assert_eq!((keeper.bounds(10), keeper.uncertainty(T, 10)), (None, None));
        let mut next = TimeKeeper::new(TimeConfig::default(), NEXT, Some(state), 0);
        for keeper in [&mut keeper, &mut next] {
            let honest = TimeEvent::Reading { bounds: bounds(20, 30), sent: 20 };
            assert!(findings(&keeper.handle(honest, 20)).is_empty(), "nothing is left to contradict it");
            assert_eq!(keeper.bounds(20), Some(bounds(20, 31)));
        }
    }

    #[test]
    fn authorities_that_go_on_contradicting_each_other_are_told_of_once_an_hour() {
        let mut keeper = keeper(None);
        let mut told = [0, 0];
        for minute in 0u64..150 {
            let now = minute * 60_000;
            for (which, off) in [(0, -2 * 3_600_000i64), (1, 2 * 3_600_000)] {
                for off in [0, off] {
                    let lo = (now + 10_000_000).saturating_add_signed(off);
                    let reading = TimeEvent::Reading { bounds: bounds(lo, lo + 1_000), sent: now };
                    let found = findings(&keeper.handle(reading, now)).len();
                    assert!(off != 0 || found == 0, "minute {minute}: the truth is no surprise");
                    told[which] += found;
                }
            }
        }
        assert_eq!(told, [3, 3]);
    }

    proptest! {
        /// Honest authorities, a steady clock that drifts within its bound, a wall clock set by anybody, restarts:
        /// true time is inside the interval, and the stated uncertainty is never too small.
        #[test]
        fn g7_true_time_is_within_the_stated_uncertainty(
            drift in -100i64..=100,
            steps in prop::collection::vec((1u64..20_000_000, 0u8..4, 0u64..2_000, 0u64..3_000, -40_000_000_000i64..40_000_000_000), 1..80)
        ) {
            let (mut now, mut elapsed, mut state) = (0u64, 0u64, None);
            let mut keeper = keeper(None);
            for (pause, what, early, late, offset) in steps {
                elapsed += pause;
                now += pause.saturating_add_signed(pause as i64 * drift / 1_000_000);
                let truth = T + elapsed;
                match what {
                    0 => {
                        let reading = Bounds { lo: truth - early, hi: truth + late };
                        let effects = keeper.handle(TimeEvent::Reading { bounds: reading, sent: now }, now);
                        prop_assert!(findings(&effects).is_empty(), "{effects:?}");
                        state = Some(kept(&effects));
                    }
                    1 => keeper = TimeKeeper::new(TimeConfig::default(), BOOT, state, now),
                    _ => {}
                }
                if let Some(known) = keeper.bounds(now) {
                    prop_assert!(known.lo <= truth && truth <= known.hi, "{known:?} {truth}");
                }
                let wall = truth.saturating_add_signed(offset);
                if let Some(uncertainty) = keeper.uncertainty(wall, now) {
                    prop_assert!(wall.abs_diff(truth) <= uncertainty);
                }
            }
        }
    }
}
