//! `POST /v1/self-tests`: an operator asks the box to try the whole way now.
//!
//! Refuses to do: hide a failure behind an error: a test that ran and failed is a 200 that says so.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use crate::problem::{Kind, Problem};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

/// `POST /v1/self-tests`.
pub async fn run(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.need(Right::SelfTest)?;
    let result = api.sealer.self_test(api.config.self_test_attest_within()).await;
    let text = serde_json::to_string(&result)
        .map_err(|error| Problem::new(Kind::Internal, format!("the result cannot be written ({error})")))?;
    Ok(respond(StatusCode::OK, "application/json", text))
}
