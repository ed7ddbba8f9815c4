//! Telemetry: where log lines go, and the numbers the HTTP side counts.
//!
//! Refuses to do: log document bytes, names of people, metadata or tokens; label metrics with anything that a
//! client chooses.
//! Invariant: logging never fails a request; a line that cannot be written is dropped.

use crate::config::LogLevel;
use crate::driver::clock::now_millis;
use crate::problem::Kind;
use axum::http::StatusCode;
use bulla_formats::report::utc;
use log::{LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Sends log lines to the journal when systemd listens, else to standard error.
pub fn init(level: LogLevel) -> anyhow::Result<()> {
    if systemd_journal_logger::connected_to_journal() {
        log::set_boxed_logger(Box::new(Journal(systemd_journal_logger::JournalLog::new()?)))?;
    } else {
        log::set_boxed_logger(Box::new(StandardError))?;
    }
    log::set_max_level(match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    });
    Ok(())
}

/// Other people's crates are heard from `warn` up; at `debug` rustls alone would drown the rest.
fn is_heard(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("bulla") || metadata.level() <= LevelFilter::Warn
}

/// The journal, with key-value pairs as fields of their own.
struct Journal(systemd_journal_logger::JournalLog);

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_heard(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_heard(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = format!("{} {:<5} {}", utc(now_millis()), record.level(), record.args());
        let _ = record.key_values().visit(&mut Pairs(&mut line));
        line.push('\n');
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

struct Pairs<'a>(&'a mut String);

impl<'kvs> log::kv::VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={value}").map_err(log::kv::Error::boxed)
    }
}

/// Upper ends of the buckets of the seal histogram, in microseconds, and how Prometheus spells them.
const BUCKETS: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (30_000_000, "30"),
];
const STATUS_FIRST: usize = 100;

/// What the HTTP side counts since the start.
pub struct HttpMetrics {
    responses: [AtomicU64; 500],
    problems: [AtomicU64; Kind::ALL.len()],
    seal_buckets: [AtomicU64; BUCKETS.len()],
    seal_count: AtomicU64,
    seal_micros: AtomicU64,
    /// Document bytes received.
    pub document_bytes: AtomicU64,
    /// Backups sent completely.
    pub backups: AtomicU64,
    /// When the last of them was made (Unix seconds); 0 for none since the start.
    pub last_backup_seconds: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections that are open.
    pub connections_open: AtomicU64,
    /// Connections that failed before the first request, mostly at the TLS handshake.
    pub handshakes_failed: AtomicU64,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        HttpMetrics {
            responses: std::array::from_fn(|_| AtomicU64::new(0)),
            problems: std::array::from_fn(|_| AtomicU64::new(0)),
            seal_buckets: Default::default(),
            seal_count: AtomicU64::new(0),
            seal_micros: AtomicU64::new(0),
            document_bytes: AtomicU64::new(0),
            backups: AtomicU64::new(0),
            last_backup_seconds: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
        }
    }
}

impl HttpMetrics {
    /// Counts an answer.
    pub fn response(&self, status: StatusCode) {
        if let Some(count) = self.responses.get(usize::from(status.as_u16()).wrapping_sub(STATUS_FIRST)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a problem.
    pub fn problem(&self, kind: Kind) {
        if let Some(count) = self.problems.get(kind as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Problems of this kind so far.
    pub fn problems(&self, kind: Kind) -> u64 {
        self.problems.get(kind as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Counts a new seal and how long its request took after the document had arrived.
    pub fn seal(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        if let Some(at) = BUCKETS.iter().position(|(end, _)| micros <= *end) {
            self.seal_buckets[at].fetch_add(1, Relaxed);
        }
        self.seal_count.fetch_add(1, Relaxed);
        self.seal_micros.fetch_add(micros, Relaxed);
    }

    /// Seals by how long they took: by bucket, not cumulative; the last is beyond all of them.
    pub fn seal_latencies(&self) -> [u64; BUCKETS.len() + 1] {
        let mut counts = [0; BUCKETS.len() + 1];
        for (count, bucket) in counts.iter_mut().zip(&self.seal_buckets) {
            *count = bucket.load(Relaxed);
        }
        let within: u64 = counts.iter().sum();
        counts[BUCKETS.len()] = self.seal_count.load(Relaxed).saturating_sub(within);
        counts
    }

    /// Upper end of a bucket in microseconds; `None` beyond all of them.
    pub fn latency_bound(bucket: usize) -> Option<u64> {
        BUCKETS.get(bucket).map(|(end, _)| *end)
    }

    /// Appends everything in the Prometheus text format.
    pub fn render(&self, out: &mut String) {
        family(out, "bulla_build_info", "gauge", "Version of bulla-box.");
        line(out, "bulla_build_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
        family(out, "bulla_http_responses_total", "counter", "Answers by status code.");
        for (at, count) in self.responses.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                line(out, "bulla_http_responses_total", &format!("code=\"{}\"", at + STATUS_FIRST), count);
            }
        }
        family(out, "bulla_problems_total", "counter", "Refusals and failures by problem type.");
        for kind in Kind::ALL {
            let count = self.problems[*kind as usize].load(Relaxed);
            line(out, "bulla_problems_total", &format!("type=\"{}\"", kind.slug()), count);
        }
        let name = "bulla_seal_request_seconds";
        family(out, name, "histogram", "Time from the arrival of the document to its receipt.");
        let mut below = 0;
        for (at, (_, end)) in BUCKETS.iter().enumerate() {
            below += self.seal_buckets[at].load(Relaxed);
            line(out, "bulla_seal_request_seconds_bucket", &format!("le=\"{end}\""), below);
        }
        let count = self.seal_count.load(Relaxed);
        line(out, "bulla_seal_request_seconds_bucket", "le=\"+Inf\"", count);
        line(out, "bulla_seal_request_seconds_sum", "", self.seal_micros.load(Relaxed) as f64 / 1e6);
        line(out, "bulla_seal_request_seconds_count", "", count);
        for (name, kind, help, value) in [
            ("bulla_document_bytes_total", "counter", "Document bytes received.", &self.document_bytes),
            ("bulla_backups_total", "counter", "Backups sent completely.", &self.backups),
            (
                "bulla_last_backup_timestamp_seconds",
                "gauge",
                "When the last backup since the start was made, 0 for none.",
                &self.last_backup_seconds,
            ),
            ("bulla_connections_total", "counter", "Connections accepted.", &self.connections),
            ("bulla_connections_open", "gauge", "Connections that are open.", &self.connections_open),
            (
                "bulla_handshakes_failed_total",
                "counter",
                "Connections that failed before their first request.",
                &self.handshakes_failed,
            ),
        ] {
            family(out, name, kind, help);
            line(out, name, "", value.load(Relaxed));
        }
    }
}

/// Opens a metric family.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample of a family; `labels` without braces, empty for none.
pub fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_prometheus_text() {
        let metrics = HttpMetrics::default();
        metrics.response(StatusCode::CREATED);
        metrics.problem(Kind::DiskFull);
        metrics.seal(Duration::from_millis(2));
        metrics.seal(Duration::from_secs(100));
        let mut text = String::new();
        metrics.render(&mut text);
        for expected in [
            "bulla_http_responses_total{code=\"201\"} 1\n",
            "bulla_problems_total{type=\"disk-full\"} 1\n",
            "bulla_seal_request_seconds_bucket{le=\"0.0025\"} 1\n",
            "bulla_seal_request_seconds_bucket{le=\"+Inf\"} 2\n",
            "bulla_seal_request_seconds_count 2\n",
            "bulla_connections_open 0\n",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        let well_formed = |line: &str| line.starts_with("# ") || line.split(' ').count() == 2;
        assert!(text.lines().all(well_formed));
    }
}
