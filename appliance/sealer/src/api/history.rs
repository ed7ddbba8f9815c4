//! `GET /v1/history`: what the console draws its charts from.
//!
//! The box samples itself every [`PERIOD_SECONDS`] and keeps [`SAMPLES_MAX`] samples, in memory only: a restart begins
//! anew. Whoever wants more takes `/metrics` into a Prometheus. Latencies come out of the histogram of `/metrics`: a
//! quantile is the upper end of its bucket, which is what can be said of it.
//! Refuses to do: name a document, a person or a client.
//! Invariant: a sample says what happened since the one before it.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use crate::driver::clock::now_millis;
use crate::problem::Problem;
use crate::telemetry::HttpMetrics;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Seconds between two samples.
const PERIOD_SECONDS: u64 = 10;
/// Samples kept: six hours.
const SAMPLES_MAX: usize = 2_160;

/// What the box was like at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at: u64,
    seals: u64,
    half_micros: Option<u64>,
    most_micros: Option<u64>,
    unanchored: Option<u64>,
    waiting_seconds: Option<u64>,
    unattested: u64,
}

/// The newest samples, oldest first.
#[derive(Default)]
pub struct History {
    samples: Mutex<VecDeque<Sample>>,
}

/// Samples for as long as the box runs.
pub async fn sample(api: Shared) {
    let mut before = (api.sealer.counters().seals.load(Relaxed), api.metrics.seal_latencies());
    loop {
        tokio::time::sleep(Duration::from_secs(PERIOD_SECONDS)).await;
        let now = (api.sealer.counters().seals.load(Relaxed), api.metrics.seal_latencies());
        let mut took = now.1;
        took.iter_mut().zip(before.1).for_each(|(now, before)| *now = now.saturating_sub(before));
        let anchors = api.sealer.outage().filter(|facts| !facts.authorities.is_empty());
        let status = api.sealer.status();
        let sample = Sample {
            at: now_millis(),
            seals: now.0.saturating_sub(before.0),
            half_micros: quantile(&took, 50),
            most_micros: quantile(&took, 99),
            unanchored: anchors.as_ref().map(|facts| facts.anchors.unanchored.last().copied().unwrap_or(0)),
            waiting_seconds: anchors.map(|facts| facts.anchors.waiting.unwrap_or(0) / 1_000),
            unattested: status.size.saturating_sub(status.attested_size),
        };
        before = now;
        let mut samples = api.history.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// Upper end of the bucket in which so many per cent of the answers are; `None` without answers. Beyond all buckets it is
/// the last one's end: it was at least that.
fn quantile(counts: &[u64], per_cent: u64) -> Option<u64> {
    let all: u64 = counts.iter().sum();
    let wanted = (all * per_cent).div_ceil(100).max(1);
    let mut below = 0;
    let bucket = counts.iter().position(|count| {
        below += count;
        below >= wanted
    })?;
    HttpMetrics::latency_bound(bucket).or_else(|| HttpMetrics::latency_bound(counts.len() - 2))
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    after: Option<u64>,
}

/// `GET /v1/history`.
pub async fn history(State(api): State<Shared>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    caller.need(Right::ReadMetrics)?;
    let query = match uri.query() {
        None | Some("") => HistoryQuery::default(),
        Some(_) => {
            let query: Result<Query<HistoryQuery>, _> = Query::try_from_uri(&uri);
            query.map_err(|error| Problem::invalid(format!("the query is not understood ({error})")))?.0
        }
    };
    let after = query.after.unwrap_or(0);
    let samples = api.history.samples.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let rows: Vec<Value> = samples.iter().filter(|sample| sample.at > after).map(view).collect();
    let answer = json!({"periodSeconds": PERIOD_SECONDS, "samples": rows});
    Ok(respond(StatusCode::OK, "application/json", answer.to_string()))
}

fn view(sample: &Sample) -> Value {
    json!({
        "atMillis": sample.at,
        "seals": sample.seals,
        "halfMicros": sample.half_micros,
        "mostMicros": sample.most_micros,
        "unanchored": sample.unanchored,
        "anchorLagSeconds": sample.waiting_seconds,
        "unattested": sample.unattested,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_ends() {
        let mut counts = [0; 13];
        assert_eq!(quantile(&counts, 50), None);
        (counts[0], counts[3]) = (98, 2);
        assert_eq!((quantile(&counts, 50), quantile(&counts, 99)), (Some(500), Some(5_000)));
        counts = [0; 13];
        counts[12] = 1;
        assert_eq!((quantile(&counts, 50), quantile(&counts, 99)), (Some(30_000_000), Some(30_000_000)));
    }
}
