//! Who asks for a time stamp: a client as on every route or as devices do ([`Device`]: most such programs know only HTTP
//! Basic), or an address of a network that may ask without.
//!
//! Refuses to do: let a name and another client's token pass; seal for a network in anybody's name but a registered scanner's.
//! Invariant: whoever it is, the limits of a registered client count.

use super::off;
use crate::api::access::{Caller, Device, Right};
use crate::api::{Connection, Shared};
use crate::clients::Role;
use crate::limits::Admission;
use crate::problem::{Kind, Problem};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use bulla_formats::body::seal::{Client, ClientMethod};
use std::sync::Arc;

/// Who asks, and is sealed for.
pub struct Asker {
    /// As seals name it.
    pub client: Client,
    /// Whether nothing but its address says so.
    pub is_known_by_network: bool,
    _place: Place,
}

/// Its place among its client's requests, for as long as the request lasts.
enum Place {
    Caller(#[expect(dead_code, reason = "held")] Caller),
    Network(#[expect(dead_code, reason = "held")] Admission),
}

impl FromRequestParts<Shared> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, Problem> {
        let connection = parts.extensions.get::<Arc<Connection>>().cloned();
        let certified = connection.as_ref().is_some_and(|connection| connection.common_name.is_some());
        if !certified && !parts.headers.contains_key(AUTHORIZATION) {
            let from = connection.and_then(|connection| api.config.tsa.client_of(connection.peer));
            if let Some(name) = from {
                return by_network(parts, api, name).await;
            }
        }
        let Device(caller) = Device::from_request_parts(parts, api).await?;
        caller.need(Right::Seal)?;
        if !api.config.tsa.enabled {
            return Err(off());
        }
        Ok(Asker { client: caller.client(), is_known_by_network: false, _place: Place::Caller(caller) })
    }
}

async fn by_network(parts: &Parts, api: &Shared, name: &str) -> Result<Asker, Problem> {
    let client = api.clients.by_name(name)?.filter(|client| client.role == Role::Scanner);
    let client = client.ok_or_else(|| {
        log::warn!("[tsa] network_client: no scanner named {name:?} is registered, so nobody is let in for it");
        let detail = "this network may ask without a credential, but the scanner that it is sealed for is not \
                      registered; tell the operator";
        Problem::new(Kind::Unauthenticated, detail)
    })?;
    match api.limits.admit(&client.name, &client.limits) {
        Ok(admission) => Ok(Asker {
            client: Client { id: client.name.clone(), method: ClientMethod::Local },
            is_known_by_network: true,
            _place: Place::Network(admission),
        }),
        Err(problem) => {
            api.limits.slow_down(&client.name, &client.limits).await;
            Err(problem.close_if_large(&parts.headers))
        }
    }
}
