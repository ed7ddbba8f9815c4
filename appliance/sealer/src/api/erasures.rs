//! `POST /v1/erasures`: an operator has the openings of seals destroyed.
//!
//! Refuses to do: repeat what was searched for, in an answer, an error, the log or the box's own log.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::upload::{Incoming, STRUCTURED_BYTES_MAX};
use crate::driver::{ERASE_MAX, EraseError, Sealer, Selection};
use crate::problem::{Kind, Problem};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_formats::body::TEXT_BYTES_MAX;
use bulla_formats::hash::Hash;
use serde_json::json;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ErasureRequest {
    document_id: Option<String>,
    user: Option<String>,
    seals: Option<Vec<String>>,
    reason: String,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/erasures`.
pub async fn erase(State(api): State<Shared>, caller: Caller, request: Request) -> Result<Response, Problem> {
    caller.need(Right::Erase)?;
    let (parts, body) = request.into_parts();
    let incoming = Incoming::new(&parts.headers, body, STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let body = incoming.collect().await?;
    // What the parser says of a wrong value could repeat it.
    let request: ErasureRequest = serde_json::from_slice(&body).map_err(|_| {
        Problem::invalid(
            "the body is {\"documentId\": ..., or \"user\": ..., or \"seals\": [ids], \"reason\": \"...\"}",
        )
    })?;
    let selection = match (request.document_id, request.user, request.seals) {
        (Some(id), None, None) if !id.is_empty() => Selection::DocumentId(id),
        (None, Some(user), None) if !user.is_empty() => Selection::User(user),
        (None, None, Some(seals)) if (1..=ERASE_MAX).contains(&seals.len()) => Selection::Seals(seals),
        _ => {
            let detail =
                "name exactly one of documentId, user and seals (1 to 10000 ids), and not an empty one";
            return Err(Problem::invalid(detail));
        }
    };
    let reason = request.reason.trim();
    if reason.is_empty() || reason.len() + caller.name().len() > TEXT_BYTES_MAX - 8 {
        return Err(Problem::invalid("\"reason\" says why in 1 to 900 bytes, without personal data"));
    }
    if selection.value().is_some_and(|value| reason.to_lowercase().contains(&value.to_lowercase())) {
        let detail =
            "the reason stays in the log for ever, and it repeats what is to be erased; name a file number";
        return Err(Problem::invalid(detail));
    }
    let order = format!("{}: {reason}", caller.name());
    let done = api.sealer.erase(selection, order, request.dry_run).await.map_err(|error| match error {
        EraseError::Unknown => {
            Problem::new(Kind::UnknownSeal, "one of the ids is no seal of this log; nothing was erased")
        }
        error @ EraseError::Running => Problem::new(Kind::ErasureRunning, error.to_string()).retry_after(10),
        error @ EraseError::Stopping => Problem::new(Kind::Locked, error.to_string()).retry_after(30),
        EraseError::Search(error) => super::search::of_search_error(error),
        EraseError::Seal(error) => Problem::of_seal_error(error, &api.sealer),
    })?;
    let ids = |seals: &[(u64, Hash)]| -> Vec<String> {
        seals.iter().map(|(index, leaf)| Sealer::id(*index, leaf)).collect()
    };
    log::info!("operator {} had the openings of {} seal(s) erased", caller.name(), done.erased.len());
    let status = if done.entries.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
    let answer = json!({
        "erased": ids(&done.erased),
        "already": ids(&done.already),
        "withoutOpenings": ids(&done.without),
        "entries": done.entries,
        "more": done.more,
        "dryRun": request.dry_run,
    });
    Ok(respond(status, "application/json", answer.to_string()))
}
