//! What the box says about itself: health, readiness, status, metrics, its CA.
//!
//! Refuses to do: be ready while it does not seal; publish a number that names a document or a person.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use crate::approved;
use crate::driver::clock::now_millis;
use crate::driver::{Condition, ScrubResult, Sealer, outside};
use crate::problem::{Kind, Problem};
use crate::staging;
use crate::telemetry::{family, line};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use std::sync::atomic::Ordering::Relaxed;

const CA_FINGERPRINT: HeaderName = HeaderName::from_static("bulla-ca-fingerprint");

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Response {
    respond(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

/// `GET /readyz`: the box seals.
pub async fn readyz(State(api): State<Shared>) -> Result<Response, Problem> {
    match api.sealer.status().condition {
        Condition::Sealing => Ok(respond(StatusCode::OK, "text/plain; charset=utf-8", "ready\n")),
        Condition::DiskFull => Err(Problem::new(
            Kind::Locked,
            "the disk is full below the reserve; free space, and the box seals again by itself",
        )
        .retry_after(30)),
        Condition::Poisoned { reason } => Err(Problem::new(
            Kind::Locked,
            format!("storage failed ({reason}); the box recovers by itself when it can"),
        )
        .retry_after(5)),
        Condition::Locked(_) => Err(Problem::new(
            Kind::Locked,
            "an operator has locked the box; /v1/status says why, POST /v1/unlock ends it",
        )
        .retry_after(30)),
        Condition::Limited => Err(Problem::new(
            Kind::Locked,
            "a limit of emergency operation is reached; the box seals again when the outage is over",
        )
        .retry_after(60)),
        Condition::KeyAway { reason } => Err(Problem::new(
            Kind::Locked,
            format!("the sealing key cannot sign ({reason}); the box asks again by itself"),
        )
        .retry_after(5)),
        Condition::Retiring => Err(Problem::retiring()),
        Condition::RollbackSuspected { finding } => Err(Problem::rollback_suspected(&finding)),
    }
}

/// `GET /v1/status`.
pub async fn status(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.need(Right::ReadStatus)?;
    let mut status = serde_json::to_value(api.sealer.status())
        .map_err(|error| Problem::new(Kind::Internal, format!("the status cannot be written ({error})")))?;
    let (metrics, addresses) = (&api.metrics, &api.limits.addresses);
    status["connections"] = json!({
        "open": metrics.connections_open.load(Relaxed),
        "max": api.config.limits.connections_max,
        "refused": addresses.refused_open.load(Relaxed) + addresses.refused_arrivals.load(Relaxed),
    });
    if let Some(facts) = api.sealer.outage() {
        status["outage"] = outside::modes(&facts.modes);
        if let Some(lease) = &facts.lease {
            status["lease"] = outside::lease(lease);
        }
        if !facts.authorities.is_empty() {
            status["anchors"] = outside::anchors(&facts);
        }
    }
    if let Some(time) = super::time::status(&api.sealer) {
        status["time"] = time;
    }
    if let Some(peers) = super::peers::status(&api.sealer) {
        status["peers"] = peers;
    }
    if let Some(medium) = super::medium::status(&api.sealer) {
        status["medium"] = medium;
    }
    if let Some(dial_out) = api.dial_out.status() {
        status["dialOut"] = dial_out;
    }
    if !api.ingest.is_empty() {
        status["ingest"] = api.ingest.status();
    }
    if let Some(alerts) = super::alerts::status(&api) {
        status["alerts"] = alerts;
    }
    let state_dir = api.config.state_dir.clone();
    let configuration = tokio::task::spawn_blocking(move || approved::status(&state_dir)).await;
    if let Some(configuration) = configuration.ok().flatten() {
        status["configuration"] = configuration;
    }
    status["refusals"] = json!({
        "rateLimited": metrics.problems(Kind::RateLimited),
        "overloaded": metrics.problems(Kind::Overloaded),
        "bodyTimeout": metrics.problems(Kind::BodyTimeout),
    });
    Ok(respond(StatusCode::OK, "application/json", status.to_string()))
}

/// `GET /v1/ca` and `/v1/ca.pem`: what clients put into their trust store, after comparing the fingerprint.
pub async fn ca(State(api): State<Shared>) -> Response {
    let mut response = (StatusCode::OK, [(CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file"))])
        .into_response();
    *response.body_mut() = api.certificates.ca_pem().to_owned().into();
    if let Ok(value) =
        HeaderValue::from_maybe_shared(format!("sha256:{}", api.certificates.ca_fingerprint()).into_bytes())
    {
        response.headers_mut().insert(CA_FINGERPRINT, value);
    }
    response
}

/// `GET /metrics`: Prometheus text.
pub async fn metrics(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.need(Right::ReadMetrics)?;
    let mut out = String::with_capacity(8 << 10);
    api.metrics.render(&mut out);
    let (name, addresses) = ("bulla_connections_refused_total", &api.limits.addresses);
    family(
        &mut out,
        name,
        "counter",
        "Connections closed before their handshake, by the limit of their address.",
    );
    line(&mut out, name, "limit=\"open\"", addresses.refused_open.load(Relaxed));
    line(&mut out, name, "limit=\"per-second\"", addresses.refused_arrivals.load(Relaxed));
    let name = "bulla_connections_max";
    family(
        &mut out,
        name,
        "gauge",
        "Most connections at one time; open files may allow fewer than configured.",
    );
    line(&mut out, name, "", api.config.limits.connections_max);
    let (counters, status) = (api.sealer.counters(), api.sealer.status());
    for (name, help, counter) in [
        ("bulla_seals_total", "Seals made.", &counters.seals),
        ("bulla_entries_total", "Entries written.", &counters.entries),
        ("bulla_batches_total", "Commits.", &counters.batches),
        ("bulla_attestations_total", "Heads quoted by the TPM.", &counters.attestations),
        ("bulla_attestation_failures_total", "Attestations that failed.", &counters.attestation_failures),
        ("bulla_neighbour_quotes_total", "Neighbours' challenges answered.", &counters.neighbour_quotes),
        (
            "bulla_site_anchors_given_total",
            "Anchors that neighbours have taken of this box.",
            &counters.site_given,
        ),
        (
            "bulla_site_anchors_taken_total",
            "Anchors that this box has taken of neighbours.",
            &counters.site_taken,
        ),
        (
            "bulla_site_anchors_refused_total",
            "Anchors handed over by neighbours that did not hold.",
            &counters.site_refused,
        ),
        (
            "bulla_tpm_nv_increments_total",
            "Moves of the TPM's rollback counter.",
            &counters.counter_increments,
        ),
        ("bulla_disk_full_total", "Times that seals were refused for want of space.", &counters.disk_full),
        ("bulla_poisonings_total", "Writes of unknown effect.", &counters.poisonings),
        ("bulla_recoveries_total", "Recoveries after such writes.", &counters.recoveries),
        ("bulla_queued_total", "Requests queued because they could not be sealed at once.", &counters.queued),
        ("bulla_queue_drained_total", "Queued requests that were sealed.", &counters.drained),
        ("bulla_queue_refused_total", "Queued requests that can never be sealed.", &counters.queue_refused),
    ] {
        family(&mut out, name, "counter", help);
        line(&mut out, name, "", counter.load(Relaxed));
    }
    let locked = matches!(status.condition, Condition::Locked(_));
    let sealing = status.condition == Condition::Sealing;
    for (name, help, value) in [
        ("bulla_event_streams_open", "Event streams.", api.events.open() as u64),
        ("bulla_log_entries", "Entries in the log.", status.size),
        ("bulla_attested_entries", "Entries that a TPM quote covers.", status.attested_size),
        ("bulla_key_epoch", "Key epoch in force.", status.epoch),
        (
            "bulla_key_epoch_extended",
            "1 while the epoch has outlived its policy.",
            status.epoch_extended.into(),
        ),
        ("bulla_queue_depth", "Requests that wait in the queue.", status.queue.depth),
        ("bulla_queue_bytes", "Bytes kept of them.", status.queue.bytes),
        ("bulla_queue_oldest_seconds", "Age of the oldest of them.", status.queue.oldest_seconds()),
        ("bulla_locked", "1 while an operator has locked the box.", locked.into()),
        ("bulla_sealing", "1 while the box seals.", sealing.into()),
        ("bulla_uptime_seconds", "Seconds since the start.", status.uptime_seconds),
    ] {
        family(&mut out, name, "gauge", help);
        line(&mut out, name, "", value);
    }
    super::anchor_metrics::write(&mut out, &api.sealer);
    super::time::metrics(&mut out, &api.sealer);
    super::peers::metrics(&mut out, &api.sealer);
    api.views.metrics(&mut out);
    super::medium::metrics(&mut out, &api.sealer);
    api.dial_out.metrics(&mut out);
    api.ingest.metrics(&mut out);
    super::alerts::metrics(&mut out, &api);
    if let Some(staged) = staging::waiting(&api.config, api.sealer.origin().as_str(), now_millis()) {
        let name = "bulla_staged_seconds";
        family(&mut out, name, "gauge", "For how long the staged log can be begun; 0: there is none.");
        line(&mut out, name, "", staged.left_millis / 1_000);
        let name = "bulla_staged_allowed_seconds";
        family(&mut out, name, "gauge", "For how long the policy lets a staged log wait.");
        line(&mut out, name, "", staged.allowed_millis / 1_000);
    }
    if let Some(refused) = approved::is_refused(&api.config.state_dir) {
        let name = "bulla_configuration_refused";
        family(
            &mut out,
            name,
            "gauge",
            "1 while the box does not go by the configuration that was approved last.",
        );
        line(&mut out, name, "", u64::from(refused));
    }
    if api.config.tsa.enabled {
        api.tsa.metrics(&mut out);
    }
    self_check(&mut out, &api.sealer, &status.scrub);
    let name = "bulla_last_attestation_seconds";
    family(&mut out, name, "gauge", "How long the newest attestation took.");
    line(&mut out, name, "", counters.attestation_millis.load(Relaxed) as f64 / 1e3);
    Ok(respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", out))
}

/// What the box knows of its own health. Ages are absent until there is something to be old.
fn self_check(out: &mut String, sealer: &Sealer, scrub: &ScrubResult) {
    let (checks, facts) = (sealer.checks(), sealer.facts());
    for (name, help, counter) in [
        ("bulla_self_tests_total", "Synthetic documents sealed and verified.", &checks.self_tests),
        ("bulla_self_test_failures_total", "Self-tests that failed.", &checks.self_test_failures),
        ("bulla_scrub_passes_total", "Complete passes over everything stored.", &checks.scrub_passes),
        ("bulla_scrub_bytes_total", "Bytes read by the scrub.", &checks.scrub_bytes),
    ] {
        family(out, name, "counter", help);
        line(out, name, "", counter.load(Relaxed));
    }
    let name = "bulla_attestation_down_seconds_total";
    family(out, name, "counter", "Time in which attestations failed.");
    line(out, name, "", facts.attestation_down());
    let last = checks.self_test().map(|test| f64::from(u8::from(test.passed)));
    for (name, help, value) in [
        ("bulla_self_test_passed", "1 when the newest self-test passed.", last),
        ("bulla_self_test_age_seconds", "Since the newest self-test that passed.", checks.self_test_age()),
        ("bulla_scrub_age_seconds", "Since the newest complete pass of the scrub.", checks.scrub_age()),
        ("bulla_scrub_damaged", "Findings of the scrub.", Some(scrub.damaged as f64)),
        ("bulla_attestation_age_seconds", "Since the newest attestation.", facts.attestation_age()),
        ("bulla_checkpoint_age_seconds", "Since the newest checkpoint.", facts.checkpoint_age()),
        ("bulla_seals_waiting", "Orders in the writer's queue.", Some(sealer.queue_length() as f64)),
        ("bulla_disk_headroom_bytes", "Free beyond the reserve.", facts.headroom().map(|bytes| bytes as f64)),
    ] {
        if let Some(value) = value {
            family(out, name, "gauge", help);
            line(out, name, "", value);
        }
    }
}
