//! What the box knows of the time, and who told it, as status and telemetry show it.
//!
//! Refuses to do: tell the time (entries do, with the uncertainty stated here); say which of two servers that contradict
//! each other is wrong.

use crate::driver::Sealer;
use crate::driver::outage::{LastAnswer, SourceFacts};
use crate::telemetry::{family, line};
use serde_json::{Value, json};

/// Member `time` of the status; `None` while nobody looks after the clocks.
pub fn status(sealer: &Sealer) -> Option<Value> {
    let facts = sealer.outage()?;
    let known = sealer.known_time();
    let last = |last: &LastAnswer| {
        json!({
            "secondsAgo": last.ago_millis() / 1_000,
            "midpoint": last.said.midpoint,
            "radiusSeconds": last.said.radius,
            "aheadMillis": last.ahead_millis,
            "tookMillis": last.took_millis,
            "contradicted": last.contradicted,
        })
    };
    let source = |source: &SourceFacts| {
        json!({
            "name": source.name,
            "operator": source.operator,
            "asked": source.asked,
            "answers": source.answers,
            "contradictions": source.contradictions,
            "failing": source.failing,
            "last": source.last.as_ref().map(last),
        })
    };
    Some(json!({
        "uncertaintyMillis": known.uncertainty,
        "notBeforeMillis": known.floor,
        "notAfterMillis": known.ceiling,
        "sources": facts.sources.iter().map(source).collect::<Vec<_>>(),
    }))
}

/// Metrics; of servers nothing without `[[time.roughtime]]`.
pub fn metrics(out: &mut String, sealer: &Sealer) {
    let Some(facts) = sealer.outage() else { return };
    let known = sealer.known_time().uncertainty;
    let name = "bulla_clock_known";
    family(out, name, "gauge", "1 while the box can state how far its clock may be off.");
    line(out, name, "", u64::from(known.is_some()));
    if let Some(millis) = known {
        let name = "bulla_clock_uncertainty_seconds";
        family(out, name, "gauge", "How far the wall clock may be off.");
        line(out, name, "", millis as f64 / 1e3);
    }
    if facts.sources.is_empty() {
        return;
    }
    let label = |source: &SourceFacts| format!("source=\"{}\"", source.name.replace(['\\', '"', '\n'], "_"));
    let name = "bulla_time_source_up";
    family(out, name, "gauge", "1 while the last question to the Roughtime server was answered.");
    for source in &facts.sources {
        let up = source.failing.is_none() && source.last.is_some();
        line(out, name, &label(source), u64::from(up));
    }
    let counter = |out: &mut String, name: &str, help: &str, count: fn(&SourceFacts) -> u64| {
        family(out, name, "counter", help);
        for source in &facts.sources {
            line(out, name, &label(source), count(source));
        }
    };
    counter(out, "bulla_time_source_requests_total", "Questions asked.", |source| source.asked);
    counter(out, "bulla_time_source_answers_total", "Answers that hold.", |source| source.answers);
    let help = "Answers that contradicted what was known; which side is wrong nobody can tell.";
    counter(out, "bulla_time_source_contradictions_total", help, |source| source.contradictions);
    let name = "bulla_time_source_failures_total";
    family(out, name, "counter", "Questions that failed.");
    for source in &facts.sources {
        for (failure, count) in &source.failures {
            line(out, name, &format!("{},failure=\"{failure}\"", label(source)), *count);
        }
    }
    let name = "bulla_time_source_ahead_seconds";
    family(out, name, "gauge", "The server's time less the wall clock's, at its last answer.");
    for source in &facts.sources {
        if let Some(last) = &source.last {
            line(out, name, &label(source), last.ahead_millis as f64 / 1e3);
        }
    }
}
