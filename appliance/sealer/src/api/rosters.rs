//! Rosters over the API: an operator hands one in.
//!
//! Refuses to do: hand one out; whoever may have it asks the registrar, or the fleet's people.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::upload::Incoming;
use crate::driver::Sealer;
use crate::driver::neighbours::RosterFacts;
use crate::peers::RosterFault;
use crate::problem::{Kind, Problem};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_formats::json::base64_decode;
use serde_json::{Value, json};

/// Longest body: a roster of some nine thousand enrolments. Longer ones come from the registrar and from neighbours, in parts.
const BODY_BYTES_MAX: u64 = 16 << 20;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct HandedIn {
    roster: String,
}

/// `POST /v1/roster`.
pub async fn take(State(api): State<Shared>, caller: Caller, request: Request) -> Result<Response, Problem> {
    caller.need(Right::Roster)?;
    let (parts, body) = request.into_parts();
    let incoming = Incoming::new(&parts.headers, body, BODY_BYTES_MAX, api.config.body_pace())?;
    let body = incoming.collect().await?;
    let HandedIn { roster } = serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(format!("the body is not {{\"roster\": \"<base64>\"}} ({error})"))
    })?;
    let roster = base64_decode(&roster)
        .map_err(|_| Problem::invalid("\"roster\" is not base64 with padding and without line breaks"))?;
    match api.sealer.take_roster(roster, caller.name().to_owned()).await {
        Ok(facts) => Ok(respond(StatusCode::OK, "application/json", describe(&facts).to_string())),
        Err(error @ (RosterFault::Refused(_) | RosterFault::Fleet(_) | RosterFault::NoPeers)) => {
            Err(Problem::new(Kind::RosterRefused, error.to_string()))
        }
        Err(error @ (RosterFault::NotKept(_) | RosterFault::Stopping)) => {
            Err(Problem::new(Kind::Locked, error.to_string()).retry_after(5))
        }
    }
}

/// A roster as status and answers show it.
pub fn describe(facts: &RosterFacts) -> Value {
    // The branch is for the console of the machine.
    let RosterFacts { fleet, number, hash, came: (came, from), own, hubs, branch: _ } = facts;
    json!({
        "fleet": fleet, "version": number, "hash": hash, "came": came, "from": from, "thisBox": own, "hubs": hubs
    })
}

impl Sealer {
    /// Takes a roster; answers with the one that then counts.
    async fn take_roster(&self, roster: Vec<u8>, operator: String) -> Result<RosterFacts, RosterFault> {
        match self.neighbours_handle() {
            Some(handle) => handle.take_roster(roster, operator).await,
            None => Err(RosterFault::NoPeers),
        }
    }
}
