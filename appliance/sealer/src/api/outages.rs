//! Outages over the API: drills, manifests, and anchors that somebody waits for.
//!
//! Refuses to do: end a real outage, or hide one: a drill is a drill in every entry it touches.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::seals::blocking;
use super::upload::{Incoming, STRUCTURED_BYTES_MAX};
use crate::driver::outage::lease::{LeaseFault, LeaseOrder};
use crate::driver::outage::{DrillError, DrillOrder, FORMS};
use crate::problem::{Kind, Problem};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bulla_formats::json::base64_decode;
use serde_json::{Value, json};

/// Longest drill, seconds.
const DRILL_SECONDS_MAX: u64 = 86_400;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Drill {
    kind: String,
    seconds: u64,
}

/// `POST /v1/drills`.
pub async fn drill(State(api): State<Shared>, caller: Caller, request: Request) -> Result<Response, Problem> {
    caller.need(Right::Drill)?;
    let (parts, body) = request.into_parts();
    let incoming = Incoming::new(&parts.headers, body, STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let body = incoming.collect().await?;
    let Drill { kind, seconds } = serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(format!("the body is not {{\"kind\": \"wan-down\", \"seconds\": 600}} ({error})"))
    })?;
    if kind != "wan-down" || !(1..=DRILL_SECONDS_MAX).contains(&seconds) {
        return Err(Problem::invalid("the drill there is is \"wan-down\", for 1 to 86400 \"seconds\""));
    }
    log::warn!("operator {} starts a drill: wan-down for {seconds} s", caller.name());
    answer(api.sealer.drill(DrillOrder::Start(seconds * 1_000)).await)
}

/// `POST /v1/drills/stop`.
pub async fn stop(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.need(Right::Drill)?;
    log::warn!("operator {} stops the drill", caller.name());
    answer(api.sealer.drill(DrillOrder::Stop).await)
}

fn answer(done: Result<Value, DrillError>) -> Result<Response, Problem> {
    match done {
        Ok(outage) => Ok(respond(StatusCode::OK, "application/json", outage.to_string())),
        Err(error @ DrillError::Refused(_)) => Err(Problem::new(Kind::DrillRefused, error.to_string())),
        Err(error @ DrillError::Stopping) => {
            Err(Problem::new(Kind::Locked, error.to_string()).retry_after(5))
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct HandedIn {
    lease: String,
}

/// `POST /v1/leases`.
pub async fn lease(State(api): State<Shared>, caller: Caller, request: Request) -> Result<Response, Problem> {
    caller.need(Right::Lease)?;
    let (parts, body) = request.into_parts();
    let incoming = Incoming::new(&parts.headers, body, STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let body = incoming.collect().await?;
    let HandedIn { lease } = serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(format!("the body is not {{\"lease\": \"<base64>\"}} ({error})"))
    })?;
    let lease = base64_decode(&lease)
        .map_err(|_| Problem::invalid("\"lease\" is not base64 with padding and without line breaks"))?;
    let order = LeaseOrder { lease, operator: caller.name().to_owned() };
    match api.sealer.lease(order).await {
        Ok(state) => Ok(respond(StatusCode::OK, "application/json", state.to_string())),
        Err(error @ (LeaseFault::Unfounded(_) | LeaseFault::Refused(_))) => {
            Err(Problem::new(Kind::LeaseRefused, error.to_string()))
        }
        Err(error @ (LeaseFault::NotKept(_) | LeaseFault::Stopping)) => {
            Err(Problem::new(Kind::Locked, error.to_string()).retry_after(5))
        }
    }
}

/// `POST /v1/seals/{id}/anchor`: somebody waits for the anchor of this seal.
pub async fn expedite(
    State(api): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    caller.need(Right::Expedite)?;
    let Path(id) = id?;
    let sealer = api.sealer.clone();
    let state = blocking(move || sealer.expedite(&id)).await?;
    Ok(respond(StatusCode::ACCEPTED, "application/json", state.to_string()))
}

/// `GET /v1/manifests`.
pub async fn manifests(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.need(Right::ReadStatus)?;
    let sealer = api.sealer.clone();
    let list = blocking(move || sealer.manifests()).await?;
    Ok(respond(StatusCode::OK, "application/json", json!({"manifests": list}).to_string()))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    form: Option<String>,
}

/// `GET /v1/manifests/{index}`: as DER with the best evidence there is now, as text, or as a page to print.
pub async fn manifest(
    State(api): State<Shared>,
    caller: Caller,
    index: Result<Path<String>, PathRejection>,
    form: Result<Query<Form>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.need(Right::ReadStatus)?;
    let Path(index) = index?;
    let Query(Form { form }) = form.map_err(|error| Problem::invalid(error.body_text()))?;
    let unknown =
        || Problem::new(Kind::UnknownManifest, "no entry of this log with this index is a manifest");
    let plain = !index.is_empty() && index.len() <= 19 && index.bytes().all(|byte| byte.is_ascii_digit());
    let index: u64 = index.parse().ok().filter(|_| plain).ok_or_else(unknown)?;
    let form = form.as_deref().unwrap_or("der");
    let known = FORMS.iter().find(|(extension, _)| *extension == form);
    let (extension, media_type) =
        *known.ok_or_else(|| Problem::invalid("\"form\" is \"der\", \"txt\" or \"pdf\""))?;
    let sealer = api.sealer.clone();
    let made = blocking(move || sealer.manifest(index, extension)).await?;
    let (name, bytes) = made.ok_or_else(unknown)?;
    let mut response =
        (StatusCode::OK, [(CONTENT_TYPE, HeaderValue::from_static(media_type))]).into_response();
    *response.body_mut() = bytes.into();
    let disposition = format!("attachment; filename=\"{name}.{extension}\"");
    if let Ok(value) = HeaderValue::from_maybe_shared(disposition.into_bytes()) {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}
