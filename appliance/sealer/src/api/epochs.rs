//! `POST /v1/epochs`: an operator asks for the next sealing key now.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::upload::{Incoming, STRUCTURED_BYTES_MAX};
use crate::problem::Problem;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_formats::body::TEXT_BYTES_MAX;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 900;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    reason: String,
}

/// `POST /v1/epochs`.
pub async fn rotate(
    State(api): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.need(Right::Rotate)?;
    let (parts, body) = request.into_parts();
    let incoming = Incoming::new(&parts.headers, body, STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let body = incoming.collect().await?;
    let rotation: Rotation = serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid(format!("the body is not {{\"reason\": \"...\"}} ({error})")))?;
    let reason = rotation.reason.trim();
    // The entry also names the operator.
    let room = TEXT_BYTES_MAX - 8 - caller.name().len();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX.min(room) {
        return Err(Problem::invalid("\"reason\" says why in 1 to 900 bytes"));
    }
    api.sealer
        .rotate(format!("{}: {reason}", caller.name()))
        .await
        .map_err(|error| Problem::of_seal_error(error, &api.sealer))?;
    let number = api.sealer.status().epoch;
    log::info!("operator {} began epoch {number}", caller.name());
    let body = serde_json::json!({"epoch": number}).to_string();
    Ok(respond(StatusCode::CREATED, "application/json", body))
}
