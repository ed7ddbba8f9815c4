//! What a hub that serves counts and measures, as Prometheus text, prefix `bulla_hub_`.
//!
//! Refuses to do: label a number with anything but names of boxes in the configuration, problem types, status codes and
//! severities; tell of a document or a person.
//! Invariant: ages are by the monotonic clock of this run; what has never happened is as old as the run.

use super::problem::Kind;
use crate::commands;
use crate::exit::Failure;
use crate::finding::Severity;
use crate::hub::Hub;
use crate::pull::Outcome;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const STATUS_FIRST: usize = 100;
const SEVERITIES: [Severity; 4] = [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical];

/// What is known of a box.
#[derive(Debug, Default, Clone)]
struct Branch {
    entries: u64,
    anchored: u64,
    quarantined: u64,
    frozen: bool,
    /// Entries that are signed and not archived, by the last pull.
    behind: Option<u64>,
    /// Things that went wrong in the last pull.
    trouble: u64,
    /// When a pull last archived all that is signed.
    complete: Option<Instant>,
    /// Seconds that it has a lease of this hub for, and when that was so; where it is to have one.
    lease: Option<(u64, Instant)>,
}

#[derive(Debug, Default)]
struct Rounds {
    /// When the last one ended well, and how many seconds it took.
    well: Option<(Instant, f64)>,
    failed: u64,
    webhook_failing: bool,
    boxes: BTreeMap<String, Branch>,
    /// Findings of the index by severity, once they were counted, and the number of the first that was not.
    findings: Option<[u64; SEVERITIES.len()]>,
    next: u64,
}

/// The numbers.
pub struct Metrics {
    started: Instant,
    responses: [AtomicU64; 500],
    problems: [AtomicU64; Kind::ALL.len()],
    rounds: Mutex<Rounds>,
    /// Heads that the witness has cosigned.
    pub cosigned: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections that are open, those of boxes that wait included.
    pub connections_open: AtomicU64,
    /// Connections that ended at the handshake.
    pub handshakes_failed: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            started: Instant::now(),
            responses: std::array::from_fn(|_| AtomicU64::new(0)),
            problems: Default::default(),
            rounds: Mutex::default(),
            cosigned: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer, and the problem that it is.
    pub fn answered(&self, status: u16, problem: Option<Kind>) {
        if let Some(count) = self.responses.get(usize::from(status).wrapping_sub(STATUS_FIRST)) {
            count.fetch_add(1, Relaxed);
        }
        if let Some(at) = problem.and_then(|kind| Kind::ALL.iter().position(|other| *other == kind)) {
            self.problems[at].fetch_add(1, Relaxed);
        }
    }

    /// Takes note of how a pull of a box ended.
    pub fn pulled(&self, name: &str, outcome: &Outcome) {
        let mut rounds = self.rounds();
        let branch = rounds.boxes.entry(name.to_owned()).or_default();
        branch.behind = outcome.reached.then(|| outcome.newest.saturating_sub(outcome.size));
        branch.trouble = outcome.trouble.len() as u64;
        if outcome.is_complete() {
            branch.complete = Some(Instant::now());
        }
    }

    /// Takes note of how far the logs are archived and of what was found, by whomever.
    pub fn standing(&self, hub: &Hub) -> Result<(), Failure> {
        let next = self.rounds().next;
        self.found(&hub.index.findings(next)?);
        for of in &hub.config.boxes {
            let (_, value) = commands::standing(hub, of)?;
            let number = |member: &str| value[member].as_u64().unwrap_or(0);
            let mut rounds = self.rounds();
            let branch = rounds.boxes.entry(of.name.clone()).or_default();
            branch.entries = number("entries");
            branch.anchored = number("anchored");
            branch.quarantined = number("quarantined");
            branch.frozen = !value["frozen"].is_null();
            let left = || (hub.handed.lease_left_seconds(&of.name), Instant::now());
            branch.lease = hub.config.leases.is_some().then(left);
        }
        let mut rounds = self.rounds();
        // A box that has left the configuration leaves its numbers.
        rounds.boxes.retain(|name, _| hub.config.boxes.iter().any(|branch| branch.name == *name));
        Ok(())
    }

    /// Counts lines of the feed. It is the index's count, so that no finding is lost to a restart, nor told twice by one.
    fn found(&self, lines: &[Value]) {
        let mut rounds = self.rounds();
        let mut counts = rounds.findings.unwrap_or_default();
        for line in lines {
            let severity = SEVERITIES.iter().position(|severity| line["severity"] == severity.to_string());
            if let Some(at) = severity {
                counts[at] += 1;
            }
            rounds.next = rounds.next.max(line["seq"].as_u64().map_or(0, |seq| seq + 1));
        }
        rounds.findings = Some(counts);
    }

    /// A round that began then has ended.
    pub fn round(&self, began: Instant, well: bool) {
        let mut rounds = self.rounds();
        if well {
            rounds.well = Some((Instant::now(), began.elapsed().as_secs_f64()));
        } else {
            rounds.failed += 1;
        }
    }

    /// Whether the webhook took what it was owed.
    pub fn webhook(&self, taken: bool) {
        self.rounds().webhook_failing = !taken;
    }

    /// Everything. `pulls`: this program pulls, so its pulls are told of.
    pub fn render(&self, pulls: bool) -> String {
        let mut out = Text(String::with_capacity(8 << 10));
        out.one(
            "build_info",
            "gauge",
            "Version of bulla-hub.",
            &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
            1,
        );
        out.one("uptime_seconds", "gauge", "Age of this run.", "", self.started.elapsed().as_secs());
        out.family("http_responses_total", "counter", "Answers by status code.");
        for (at, count) in self.responses.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                out.line("http_responses_total", &format!("code=\"{}\"", at + STATUS_FIRST), count);
            }
        }
        out.family("problems_total", "counter", "Refusals and failures by problem type.");
        for (kind, count) in Kind::ALL.iter().zip(&self.problems) {
            out.line("problems_total", &format!("type=\"{}\"", kind.row().1), count.load(Relaxed));
        }
        for (name, kind, help, value) in [
            ("connections_total", "counter", "Connections accepted.", &self.connections),
            ("connections_open", "gauge", "Connections that are open.", &self.connections_open),
            (
                "handshakes_failed_total",
                "counter",
                "Connections that ended at the handshake.",
                &self.handshakes_failed,
            ),
            ("cosigned_total", "counter", "Heads that the witness has cosigned.", &self.cosigned),
        ] {
            out.one(name, kind, help, "", value.load(Relaxed));
        }
        self.boxes(pulls, &mut out);
        out.0
    }

    fn boxes(&self, pulls: bool, out: &mut Text) {
        let rounds = self.rounds();
        let age = |since: Option<Instant>| since.unwrap_or(self.started).elapsed().as_secs();
        let name = "round_age_seconds";
        out.one(name, "gauge", "Since a round last ended well.", "", age(rounds.well.map(|(at, _)| at)));
        if let Some((_, took)) = rounds.well {
            out.one("round_seconds", "gauge", "How long that round took.", "", took);
        }
        let help = "Rounds that the hub's own disk, database or bucket has ended.";
        out.one("rounds_failed_total", "counter", help, "", rounds.failed);
        let help = "Whether the webhook has not taken what it is owed.";
        out.one("webhook_failing", "gauge", help, "", u8::from(rounds.webhook_failing));
        if let Some(counts) = rounds.findings {
            out.family("findings_total", "counter", "Findings in the feed.");
            for (severity, count) in SEVERITIES.iter().zip(counts) {
                out.line("findings_total", &format!("severity=\"{severity}\""), count);
            }
        }
        type Of = fn(&Branch) -> u64;
        let archived: [(&str, &str, Of); 4] = [
            ("box_entries", "Archived entries.", |branch| branch.entries),
            ("box_anchored_entries", "Archived entries that an anchor covers.", |branch| branch.anchored),
            ("box_quarantined_entries", "Entries that the audit refuses.", |branch| branch.quarantined),
            ("box_frozen", "Whether nothing more is taken from the log.", |branch| u64::from(branch.frozen)),
        ];
        for (name, help, of) in archived {
            out.of_boxes(name, help, rounds.boxes.iter().map(|(name, branch)| (name, of(branch))));
        }
        if !pulls {
            return;
        }
        let help = "Entries that are signed and not archived; absent while no source answers.";
        let behind = rounds.boxes.iter().filter_map(|(name, branch)| Some((name, branch.behind?)));
        out.of_boxes("box_behind_entries", help, behind);
        let help = "Sources, and things to hand over, that failed in the last pull.";
        out.of_boxes("box_trouble", help, rounds.boxes.iter().map(|(name, branch)| (name, branch.trouble)));
        let help = "For how long the box has a lease of this hub; 0: it has none.";
        let leases = rounds.boxes.iter().filter_map(|(name, branch)| {
            let (left, at) = branch.lease?;
            Some((name, left.saturating_sub(at.elapsed().as_secs())))
        });
        out.of_boxes("box_lease_left_seconds", help, leases);
        let help = "Since a pull last archived all that is signed.";
        let ages = rounds.boxes.iter().map(|(name, branch)| (name, age(branch.complete)));
        out.of_boxes("box_pulled_age_seconds", help, ages);
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP bulla_hub_{name} {help}\n# TYPE bulla_hub_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "bulla_hub_{name} {value}")
        } else {
            writeln!(self.0, "bulla_hub_{name}{{{labels}}} {value}")
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(name, labels, value);
    }

    fn of_boxes<'a>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (&'a String, u64)>) {
        self.family(name, "gauge", help);
        for (of, value) in values {
            // A name is whatever the configuration calls a box.
            let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.line(name, &format!("box=\"{of}\""), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metrics_are_prometheus_text() {
        let metrics = Metrics::default();
        metrics.answered(200, None);
        metrics.answered(403, Some(Kind::Forbidden));
        metrics.answered(9_999, None);
        assert!(!metrics.render(true).contains("findings_total"), "nothing is said before it is known");
        metrics.found(&[json!({"seq": 6, "severity": "critical"}), json!({"seq": 7, "severity": "loud"})]);
        assert_eq!(metrics.rounds().next, 8);
        let outcome = Outcome { size: 5, newest: 7, reached: true, ..Outcome::default() };
        metrics.pulled("north \"4711\"\n", &outcome);
        metrics.round(Instant::now(), true);
        metrics.round(Instant::now(), false);
        metrics.webhook(false);
        let text = metrics.render(true);
        for expected in [
            "bulla_hub_http_responses_total{code=\"200\"} 1\n",
            "bulla_hub_problems_total{type=\"hub-forbidden\"} 1\n",
            "bulla_hub_findings_total{severity=\"critical\"} 1\n",
            "bulla_hub_findings_total{severity=\"info\"} 0\n",
            "bulla_hub_rounds_failed_total 1\n",
            "bulla_hub_webhook_failing 1\n",
            "bulla_hub_box_behind_entries{box=\"north \\\"4711\\\"\\n\"} 2\n",
            "bulla_hub_box_frozen{box=\"north \\\"4711\\\"\\n\"} 0\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert!(
            !metrics.render(false).contains("box_behind_entries"),
            "who does not pull says nothing of pulls"
        );
    }
}
