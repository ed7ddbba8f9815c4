//! When a box must be in an emergency, and when it must not: judged by what its probes were told, not by its machine.

use crate::log::Broken;
use crate::nature::{MINUTE, SECOND};
use crate::world::PROBE_EVERY;
use bulla_formats::entry::Mode;
use bulla_protocol::mode::{ModeChange, ModeConfig, ModeRecord};

/// How long a conclusion may take: a probe, its timeout, and the entries before it in the log, with stalls.
const SLACK: u64 = PROBE_EVERY + 10 * SECOND + 30 * SECOND;
/// After an append that failed, the next may wait for so long.
const TROUBLE: u64 = 3 * MINUTE;

#[derive(Clone, Default)]
struct Heard {
    answered: Option<u64>,
    answering_since: Option<u64>,
    failing_since: Option<u64>,
}

pub struct Oracle {
    heard: Vec<Heard>,
    started: u64,
    running: bool,
    trouble: u64,
    lease_since: u64,
    lease_until: u64,
    drill_until: u64,
    drill_before: u64,
    /// Whom the box asks.
    configured: Vec<usize>,
}

impl Oracle {
    pub fn new(authorities: usize) -> Self {
        let heard = vec![Heard::default(); authorities];
        Oracle {
            heard,
            started: 0,
            running: false,
            trouble: 0,
            lease_since: 0,
            lease_until: 0,
            drill_until: 0,
            drill_before: 0,
            configured: (0..authorities).collect(),
        }
    }

    pub fn started(&mut self, now: u64, configured: &[usize]) {
        (self.started, self.running) = (now, true);
        self.configured = configured.to_vec();
        for heard in &mut self.heard {
            *heard = Heard { answered: heard.answered, ..Heard::default() };
        }
    }

    /// A lease is the process's; it dies with it, and so does a drill.
    pub fn stopped(&mut self, now: u64) {
        self.running = false;
        self.lease_until = self.lease_until.min(now);
        self.drill_until = self.drill_until.min(now);
    }

    /// A box that may have an older disk logs nothing, whatever happens.
    pub fn suspected(&mut self) {
        self.running = false;
    }

    /// Somebody has decided that it has not.
    pub fn cleared(&mut self, now: u64) {
        (self.started, self.running) = (now, true);
        self.trouble(now);
    }

    pub fn trouble(&mut self, now: u64) {
        self.trouble = now + TROUBLE;
    }

    pub fn lease(&mut self, now: u64, millis: u64) {
        if now >= self.lease_until {
            self.lease_since = now;
        }
        self.lease_until = now + millis;
    }

    pub fn drill_refused(&mut self) {
        self.drill_until = self.drill_before;
    }

    pub fn drill_asked(&mut self, now: u64, millis: u64) {
        self.drill_before = self.drill_until;
        self.drill_until = self.drill_until.max(now + millis);
    }

    pub fn drill_ended(&mut self, now: u64) {
        self.drill_until = now;
    }

    pub fn probed(&mut self, authority: usize, answered: bool, now: u64) {
        let heard = &mut self.heard[authority];
        if answered {
            heard.answered = Some(now);
            heard.answering_since = heard.answering_since.or(Some(now));
            heard.failing_since = None;
        } else {
            heard.failing_since = heard.failing_since.or(Some(now));
            heard.answering_since = None;
        }
    }

    /// A real outage begins only after `outage_after` without any answer, in earnest, and no outage is over before
    /// something has answered for `recover_after`.
    pub fn changes(
        &self,
        config: &ModeConfig,
        record: &ModeRecord,
        change: &ModeChange,
        now: u64,
    ) -> Result<(), Broken> {
        if record.below == Mode::Emergency && change.below == Mode::Reconciling {
            let answering = self.heard.iter().filter_map(|heard| heard.answering_since);
            let lease = (now <= self.lease_until + SECOND).then_some(self.lease_since);
            let since = answering.chain(lease).min().unwrap_or(now).max(self.drill_until.min(now));
            if now - since < config.recover_after - SECOND {
                return Err(("emergency", format!("over {} ms after an answer: {change:?}", now - since)));
            }
        }
        let begins = change.below == Mode::Emergency && !change.drill;
        let already = record.below == Mode::Emergency && !record.drill;
        if !begins || already {
            return Ok(());
        }
        // The steady clock may be fast, and a lease is an hour long.
        let span = config.outage_after - SECOND;
        let heard = self.heard.iter().filter_map(|heard| heard.answered).max().unwrap_or(0);
        let last = heard.max(self.lease_until.min(now));
        if last > 0 && now - last < span {
            return Err(("emergency", format!("{} ms after an answer: {change:?}", now - last)));
        }
        Ok(())
    }

    /// What the log says fits what has been heard for long enough.
    pub fn check(&self, config: &ModeConfig, record: &ModeRecord, now: u64) -> Result<(), Broken> {
        if !self.running || now < self.trouble {
            return Ok(());
        }
        let long_since = |at: u64, span: u64| now > at + span + span / 1_000 + SLACK;
        let answers = self.heard.iter().filter_map(|heard| heard.answered);
        let dark = answers.chain([self.started, self.lease_until]).max().unwrap_or(0);
        if long_since(dark, config.outage_after) && (record.below != Mode::Emergency || record.drill) {
            return Err(("emergency", format!("nothing heard since {dark}, and the log says {record:?}")));
        }
        let drill_over = long_since(self.drill_until, config.recover_after);
        let answering = self.heard.iter().filter_map(|heard| heard.answering_since).min();
        let recovered =
            answering.is_some_and(|since| long_since(since.max(self.started), config.recover_after));
        if recovered && drill_over && record.below == Mode::Emergency {
            return Err(("emergency", format!("answered since {answering:?}, and the log says {record:?}")));
        }
        let failing = self.heard.iter().filter_map(|heard| heard.failing_since).min();
        if failing.is_some_and(|since| long_since(since, config.degraded_after))
            && record.below == Mode::Online
        {
            return Err(("online", format!("an authority fails since {failing:?}: {record:?}")));
        }
        let mut all = self.configured.iter().map(|place| self.heard[*place].answering_since);
        let all = all.try_fold(0, |latest, since| Some(since?.max(latest)));
        if drill_over
            && all.is_some_and(|since| long_since(since, config.recover_after))
            && record.below == Mode::Degraded
        {
            return Err(("online", format!("all answer since {all:?}, and the log says {record:?}")));
        }
        Ok(())
    }
}
