//! `POST /v1/lock` and `POST /v1/unlock`: an operator stops sealing, and lets it go on.
//!
//! Refuses to do: lock or unlock without a reason; the log gets it.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::upload::{Incoming, STRUCTURED_BYTES_MAX};
use crate::driver::LockChange;
use crate::problem::{Kind, Problem};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_formats::body::TEXT_BYTES_MAX;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: String,
}

/// `POST /v1/lock`.
pub async fn lock(api: State<Shared>, caller: Caller, request: Request) -> Result<Response, Problem> {
    change(api, caller, request, true).await
}

/// `POST /v1/unlock`.
pub async fn unlock(api: State<Shared>, caller: Caller, request: Request) -> Result<Response, Problem> {
    change(api, caller, request, false).await
}

async fn change(
    State(api): State<Shared>,
    caller: Caller,
    request: Request,
    lock: bool,
) -> Result<Response, Problem> {
    caller.need(Right::Lock)?;
    let (parts, body) = request.into_parts();
    let incoming = Incoming::new(&parts.headers, body, STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let body = incoming.collect().await?;
    let Reason { reason } = serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid(format!("the body is not {{\"reason\": \"...\"}} ({error})")))?;
    let reason = reason.trim();
    // The entry also names the operator.
    if reason.is_empty() || reason.len() + caller.name().len() > TEXT_BYTES_MAX - 8 {
        return Err(Problem::invalid("\"reason\" says why in 1 to 900 bytes"));
    }
    let change = LockChange { lock, operator: caller.name().to_owned(), reason: reason.to_owned() };
    let answer =
        api.sealer.change_lock(change).await.map_err(|error| Problem::of_seal_error(error, &api.sealer))?;
    let text = serde_json::to_string(&answer)
        .map_err(|error| Problem::new(Kind::Internal, format!("the answer cannot be written ({error})")))?;
    Ok(respond(StatusCode::OK, "application/json", text))
}
