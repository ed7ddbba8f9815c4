//! Requests that are queued: the 202 of `POST /v1/seals`, and `GET /v1/queue/{id}`.
//!
//! Refuses to do: tell one scanner about another's requests.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::seals::blocking;
use crate::driver::{Queued, QueuedState, Sealer, parse_queue_id, queue_id};
use crate::problem::{Kind, Problem};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

/// Seconds after which it makes sense to ask for a queued request again.
const ASK_AGAIN_SECONDS: u32 = 30;

/// The answer to a request that is durably queued.
pub fn accepted(queued: &Queued) -> Result<Response, Problem> {
    let id = queue_id(&queued.id);
    let link = format!("/v1/queue/{id}");
    let body = json!({
        "queued": true,
        "queueId": id,
        "position": queued.position,
        "reason": queued.reason,
        "replayed": queued.replayed,
        "links": {"self": link},
    });
    let mut response = respond(StatusCode::ACCEPTED, "application/json", body.to_string());
    let location = HeaderValue::from_maybe_shared(link.into_bytes()).map_err(|_| {
        Problem::new(Kind::Internal, "the id does not fit a header; send the same Idempotency-Key again")
    })?;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(RETRY_AFTER, ASK_AGAIN_SECONDS.into());
    Ok(response)
}

/// `GET /v1/queue/{id}`.
pub async fn read(
    State(api): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    caller.need(Right::ReadQueue)?;
    let Path(text) = id?;
    let id = parse_queue_id(&text).ok_or_else(unknown)?;
    let sealer = api.sealer.clone();
    let look = move || {
        let Some(state) = sealer.queued(id)? else { return Ok(None) };
        let seal = match &state {
            QueuedState::Sealed { index, .. } => Some(Sealer::id(*index, &sealer.entry(*index)?.leaf_hash())),
            QueuedState::Waiting { .. } | QueuedState::Refused { .. } => None,
        };
        Ok(Some((state, seal)))
    };
    let (state, seal) = blocking(look).await?.ok_or_else(unknown)?;
    let (QueuedState::Waiting { client, queued_ms, .. }
    | QueuedState::Sealed { client, queued_ms, .. }
    | QueuedState::Refused { client, queued_ms, .. }) = &state;
    if client != caller.name() && !caller.has(Right::ReadAnyQueued) {
        return Err(unknown());
    }
    let own = format!("/v1/queue/{text}");
    let mut body = json!({"queueId": text, "queuedAtMillis": queued_ms, "links": {"self": own}});
    match (&state, seal) {
        (QueuedState::Waiting { position, .. }, _) => {
            body["state"] = "queued".into();
            body["position"] = (*position).into();
        }
        (QueuedState::Refused { reason, .. }, _) => {
            body["state"] = "refused".into();
            body["reason"] = reason.as_str().into();
        }
        (QueuedState::Sealed { .. }, seal) => {
            let seal = seal.unwrap_or_default();
            body["state"] = "sealed".into();
            body["links"]["seal"] = format!("/v1/seals/{seal}").into();
            body["links"]["sealFile"] = format!("/v1/seals/{seal}/seal-file").into();
            body["seal"] = seal.into();
        }
    }
    Ok(respond(StatusCode::OK, "application/json", body.to_string()))
}

fn unknown() -> Problem {
    Problem::new(
        Kind::UnknownQueueId,
        "no request of yours is known under this id; it may have been sealed long ago: send it again with the same \
         Idempotency-Key, or look for the seal of the document",
    )
}
