//! When whom to tell of what: the decisions of alert delivery, without a clock, a disk or a network.
//!
//! A condition that holds for its hold time *begins* an alert; one that has not held for the settle time ends it. What a
//! receiver is owed follows from what is firing and what it was told last, so nothing depends on a moment that a crash may
//! have swallowed. Per alert a receiver is owed at most one end and one beginning, however long it was away: ends are
//! folded into one with a count, and a beginning that was never told is superseded by its end.
//! Refuses to do: I/O, clocks, randomness; know what an alert means; grow beyond [`ALERTS_MAX`] alerts.
//! Invariants: what is sent again unchanged has the id it had; of what may have arrived nothing is changed; a beginning is
//! told once to each receiver, or superseded by its end; the end of what nobody was told of is told to nobody.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most alerts at one time; further ones wait until others are over.
pub const ALERTS_MAX: usize = 256;
/// Most alerts in one notification.
pub const ITEMS_MAX: usize = 64;
/// Longest name, subject or detail, bytes.
pub const TEXT_MAX: usize = 512;
/// Longest pause that a receiver may ask for, milliseconds.
const ASKED_MAX: u64 = 3_600_000;

/// A time as the box states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Said {
    /// Unix milliseconds by the box's clock.
    pub millis: u64,
    /// Bound of its error, where one is known.
    pub uncertainty_millis: Option<u64>,
}

/// An instant: on a clock in milliseconds that never goes back within a run and stands near Unix time, and as stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The clock.
    pub at: u64,
    /// What messages say.
    pub said: Said,
}

/// Which alert: a condition, and whom it is about where there are several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Name of the condition.
    pub name: String,
    /// A neighbour, a folder's client, a receiver; empty where there is only one.
    pub subject: String,
}

/// What is seen of one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub name: &'static str,
    /// Worth waking somebody.
    pub page: bool,
    /// How long it has to hold, milliseconds.
    pub hold: u64,
    /// Whom it holds for, with a detail each; `None`: it cannot be told now, and everything stays as it was.
    pub holds: Option<Vec<(String, String)>>,
}

/// Whom to tell, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanConfig {
    /// Name, and whether only pages are for it.
    pub receivers: Vec<(String, bool)>,
    /// A condition that has not held for so long is over. Milliseconds, as all that follow.
    pub settle: u64,
    /// What goes on is told again so often.
    pub repeat: u64,
    /// What begins within this time goes into one notification; also the shortest time between two.
    pub group: u64,
    /// First pause after a failure; it doubles.
    pub retry: u64,
    /// Longest pause.
    pub retry_max: u64,
}

/// A condition that holds, or has held a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Alert {
    /// Which.
    pub key: Key,
    /// Worth waking somebody.
    pub page: bool,
    /// What is to be added to the condition's sentence.
    pub detail: String,
    /// When it began, on the clock; with the key it names the episode.
    pub began_at: u64,
    /// When it began, as stated.
    pub began: Said,
    /// It has held for its hold time.
    pub firing: bool,
    /// Since when it does not hold.
    pub calm_at: Option<u64>,
    /// The same, as stated.
    pub calm: Option<Said>,
}

/// What a receiver is to be told of one alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Item {
    /// Which.
    pub key: Key,
    /// Worth waking somebody.
    pub page: bool,
    /// What is to be added to the condition's sentence.
    pub detail: String,
    /// Which episode.
    pub began_at: u64,
    /// When it began.
    pub began: Said,
    /// When it ended; `None`: it goes on.
    pub ended: Option<Said>,
    /// The receiver was told of it before.
    pub again: bool,
    /// Episodes folded into this one, itself included.
    pub times: u64,
    /// Since when the receiver is owed it, on the clock.
    pub owed_at: u64,
}

/// What is sent at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Notification {
    /// The same whenever it is sent again; of no other.
    pub id: String,
    /// In the order in which they became known.
    pub items: Vec<Item>,
}

/// How it stands with one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Line {
    /// Its name.
    pub name: String,
    /// What it is owed.
    pub owed: Vec<Item>,
    /// What may have arrived, and is not known to.
    pub sending: Option<Notification>,
    /// What it knows to be firing, and when it was told last, on the clock.
    pub told: Vec<(Key, u64)>,
}

/// All that a restart must not forget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What holds.
    pub alerts: Vec<Alert>,
    /// Each receiver.
    pub receivers: Vec<Line>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It has it not, or nobody knows.
    Failed {
        /// It surely has it not: there was no connection.
        surely: bool,
        /// How long it wants to be left alone, milliseconds.
        retry_after: Option<u64>,
    },
}

/// What a status shows of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFacts {
    /// Alerts that it has not been told of.
    pub undelivered: u64,
    /// How long the oldest of them has waited, milliseconds.
    pub waiting: u64,
    /// Failures since the last success.
    pub failures: u32,
}

#[derive(Debug)]
struct Receiver {
    pages_only: bool,
    line: Line,
    told: BTreeMap<Key, u64>,
    in_flight: bool,
    /// An attempt at what is being sent ended without an answer, or in an earlier run: it may have arrived.
    unsure: bool,
    failures: u32,
    not_before: u64,
}

/// The decisions.
#[derive(Debug)]
pub struct Plan {
    config: PlanConfig,
    alerts: BTreeMap<Key, Alert>,
    receivers: Vec<Receiver>,
    series: String,
    number: u64,
    changed: bool,
}

impl Plan {
    /// Goes on where `kept` ends. `series` is of this run alone: ids of two runs never meet. Receivers that are configured
    /// no more are forgotten; times that lie ahead, because the clock was set back, count as now.
    pub fn new(config: PlanConfig, kept: Kept, series: String, now: u64) -> Self {
        let mut lines: BTreeMap<String, Line> =
            kept.receivers.into_iter().map(|line| (line.name.clone(), line)).collect();
        let receivers = config.receivers.iter().map(|(name, pages_only)| {
            let empty = || Line { name: name.clone(), owed: Vec::new(), sending: None, told: Vec::new() };
            let mut line = lines.remove(name).unwrap_or_else(empty);
            let items = line.sending.iter_mut().flat_map(|sending| &mut sending.items);
            items.chain(&mut line.owed).for_each(|item| item.owed_at = item.owed_at.min(now));
            let unsure = line.sending.is_some();
            let told = line.told.drain(..).map(|(key, at)| (key, at.min(now))).collect();
            Receiver {
                pages_only: *pages_only,
                line,
                told,
                in_flight: false,
                unsure,
                failures: 0,
                not_before: 0,
            }
        });
        let receivers = receivers.collect();
        let alerts = kept.alerts.into_iter().map(|mut alert| {
            alert.began_at = if alert.firing { alert.began_at } else { alert.began_at.min(now) };
            alert.calm_at = alert.calm_at.map(|at| at.min(now));
            (alert.key.clone(), alert)
        });
        Plan { alerts: alerts.collect(), config, receivers, series, number: 0, changed: false }
    }

    /// What a restart must not forget.
    pub fn kept(&self) -> Kept {
        let line = |receiver: &Receiver| Line {
            told: receiver.told.iter().map(|(key, at)| (key.clone(), *at)).collect(),
            ..receiver.line.clone()
        };
        Kept {
            alerts: self.alerts.values().cloned().collect(),
            receivers: self.receivers.iter().map(line).collect(),
        }
    }

    /// Whether [`Plan::kept`] has changed since this was asked last.
    pub fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What is firing, in order of names.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values().filter(|alert| alert.firing)
    }

    /// How it stands with the receivers, as configured.
    pub fn facts(&self, now: u64) -> Vec<LineFacts> {
        let of = |receiver: &Receiver| {
            let sending = receiver.line.sending.iter().flat_map(|sending| &sending.items);
            let owed = || sending.clone().chain(&receiver.line.owed);
            let oldest = owed().map(|item| item.owed_at).min();
            LineFacts {
                undelivered: owed().count() as u64,
                waiting: oldest.map_or(0, |at| now.saturating_sub(at)),
                failures: receiver.failures,
            }
        };
        self.receivers.iter().map(of).collect()
    }

    /// Takes note of every condition as it is now. Alerts of conditions that are not among them are over.
    pub fn look(&mut self, reports: &[Report], now: Now) {
        for report in reports {
            for (subject, detail) in report.holds.iter().flatten() {
                let (subject, detail) = (cut(subject), cut(detail));
                self.holds(Key { name: report.name.to_owned(), subject }, report, detail, now);
            }
        }
        let unknown: BTreeSet<&str> =
            reports.iter().filter(|report| report.holds.is_none()).map(|report| report.name).collect();
        let holding: BTreeSet<(&str, String)> = reports
            .iter()
            .flat_map(|report| report.holds.iter().flatten().map(|(subject, _)| (report.name, cut(subject))))
            .collect();
        let calm: Vec<Key> = self
            .alerts
            .keys()
            .filter(|key| !unknown.contains(key.name.as_str()))
            .filter(|key| !holding.contains(&(key.name.as_str(), key.subject.clone())))
            .cloned()
            .collect();
        for key in calm {
            self.holds_not(&key, now);
        }
        self.owe_what_is_firing(now);
    }

    fn holds(&mut self, key: Key, report: &Report, detail: String, now: Now) {
        let room = self.alerts.len() < ALERTS_MAX;
        if !room && !self.alerts.contains_key(&key) {
            return;
        }
        let alert = self.alerts.entry(key.clone()).or_insert_with(|| {
            self.changed = true;
            Alert {
                key,
                page: report.page,
                detail: String::new(),
                began_at: now.at,
                began: now.said,
                firing: false,
                calm_at: None,
                calm: None,
            }
        });
        let fires = now.at.saturating_sub(alert.began_at) >= report.hold;
        // A detail may hold a number that moves: it is kept with the next thing that is.
        alert.detail = detail;
        alert.page = report.page;
        self.changed |= alert.calm_at.is_some() || (fires && !alert.firing);
        alert.firing |= fires;
        (alert.calm_at, alert.calm) = (None, None);
    }

    fn holds_not(&mut self, key: &Key, now: Now) {
        let Some(alert) = self.alerts.get_mut(key) else { return };
        if alert.calm_at.is_none() {
            (alert.calm_at, alert.calm) = (Some(now.at), Some(now.said));
            self.changed = true;
        }
        let calm_for = alert.calm_at.map_or(0, |at| now.at.saturating_sub(at));
        if alert.firing && calm_for < self.config.settle {
            return;
        }
        self.changed = true;
        let Some(alert) = self.alerts.remove(key) else { return };
        if !alert.firing {
            return;
        }
        for receiver in &mut self.receivers {
            // One that was never told, and is not owed it, has no use for its end.
            if receiver.told.remove(key).is_some() || receiver.has_open(&alert) {
                let ended = Some(alert.calm.unwrap_or(now.said));
                receiver.owe(Item { ended, ..item(&alert, now.at, false) });
            }
        }
    }

    fn owe_what_is_firing(&mut self, now: Now) {
        for receiver in &mut self.receivers {
            for alert in self.alerts.values().filter(|alert| alert.firing && alert.calm_at.is_none()) {
                if (receiver.pages_only && !alert.page) || receiver.has_open(alert) {
                    continue;
                }
                let told = receiver.told.get(&alert.key);
                if told.is_none_or(|at| now.at.saturating_sub(*at) >= self.config.repeat) {
                    receiver.owe(item(alert, now.at, told.is_some()));
                    self.changed = true;
                }
            }
        }
    }

    /// What is to be sent now, by the number of the receiver. Keep [`Plan::kept`] before it leaves.
    pub fn due(&mut self, now: u64) -> Vec<(usize, Notification)> {
        let mut due = Vec::new();
        for (at, receiver) in self.receivers.iter_mut().enumerate() {
            if receiver.in_flight || now < receiver.not_before {
                continue;
            }
            if receiver.line.sending.is_none() {
                let oldest = receiver.line.owed.iter().map(|item| item.owed_at).min();
                // After a failure it has been gathered long enough.
                let ripe = |oldest: u64| receiver.failures > 0 || now >= oldest + self.config.group;
                if !oldest.is_some_and(ripe) {
                    continue;
                }
                self.number += 1;
                let some = receiver.line.owed.len().min(ITEMS_MAX);
                let items = receiver.line.owed.drain(..some).collect();
                let id = format!("{}-{}", self.series, self.number);
                receiver.line.sending = Some(Notification { id, items });
                receiver.unsure = false;
                self.changed = true;
            }
            if let Some(sending) = &receiver.line.sending {
                receiver.in_flight = true;
                due.push((at, sending.clone()));
            }
        }
        due
    }

    /// How what was sent to a receiver fared. `random` spreads the pause.
    pub fn sent(&mut self, receiver: usize, outcome: Outcome, now: u64, random: u64) {
        let Some(receiver) = self.receivers.get_mut(receiver) else { return };
        receiver.in_flight = false;
        match outcome {
            Outcome::Delivered => {
                let items = receiver.line.sending.take().map(|sent| sent.items).unwrap_or_default();
                for item in items.into_iter().filter(|item| item.ended.is_none()) {
                    let goes_on = self.alerts.get(&item.key);
                    if goes_on.is_some_and(|alert| alert.began_at == item.began_at) {
                        receiver.told.insert(item.key, now);
                    }
                }
                (receiver.failures, receiver.not_before) = (0, now + self.config.group);
                self.changed = true;
            }
            Outcome::Failed { surely, retry_after } => {
                receiver.failures = receiver.failures.saturating_add(1);
                let doubled = self.config.retry.saturating_mul(1 << (receiver.failures - 1).min(20));
                let pause = spread(doubled.min(self.config.retry_max), random);
                receiver.not_before = now + pause.max(retry_after.unwrap_or(0).min(ASKED_MAX));
                receiver.unsure |= !surely;
                if !receiver.unsure
                    && let Some(sending) = receiver.line.sending.take()
                {
                    receiver.take_back(sending.items);
                    self.changed = true;
                }
            }
        }
    }

    /// The world is back: nobody waits out a long pause.
    pub fn healed(&mut self, now: u64, random: u64) {
        for receiver in &mut self.receivers {
            receiver.not_before = receiver.not_before.min(now + spread(self.config.retry, random));
        }
    }
}

impl Receiver {
    /// Whether it is owed, or being told, that this episode is firing.
    fn has_open(&self, alert: &Alert) -> bool {
        let sending = self.line.sending.iter().flat_map(|sending| &sending.items);
        let mut open = sending.chain(&self.line.owed).filter(|item| item.ended.is_none());
        open.any(|item| item.key == alert.key && item.began_at == alert.began_at)
    }

    fn owe(&mut self, mut item: Item) {
        let owed = &mut self.line.owed;
        if item.ended.is_some() {
            owed.retain(|other| {
                if other.key == item.key && other.ended.is_some() {
                    (item.began, item.owed_at) = (other.began, other.owed_at);
                    item.times += other.times;
                }
                other.key != item.key
            });
        }
        owed.push(item);
    }

    /// What surely did not arrive is owed again, before what came after it; what is superseded is dropped.
    fn take_back(&mut self, items: Vec<Item>) {
        let newer = std::mem::replace(&mut self.line.owed, items);
        for item in newer {
            self.owe(item);
        }
    }
}

fn item(alert: &Alert, now: u64, again: bool) -> Item {
    let Alert { key, page, detail, began_at, began, .. } = alert.clone();
    Item { key, page, detail, began_at, began, ended: None, again, times: 1, owed_at: now }
}

/// Between half of a pause and all of it.
fn spread(pause: u64, random: u64) -> u64 {
    pause / 2 + random % (pause / 2 + 1)
}

/// As much of a text as is kept.
fn cut(text: &str) -> String {
    let end = (0..=text.len().min(TEXT_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
