//! Who asks for a time stamp: a client as on every route, one that sends name and token as HTTP Basic (most such programs
//! know nothing else), or an address of a network that may ask without.
//!
//! Refuses to do: let a name and another client's token pass; seal for a network in anybody's name but a registered scanner's.
//! Invariant: whoever it is, the limits of a registered client count.

use super::off;
use crate::api::access::{Caller, Right};
use crate::api::{Connection, Shared};
use crate::clients::Role;
use crate::limits::Admission;
use crate::problem::{Kind, Problem};
use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
        let basic =
            parts.headers.get(AUTHORIZATION).and_then(|value| basic_credentials(value.to_str().ok()?));
        if let Some((_, token)) = &basic
            && let Ok(bearer) = HeaderValue::try_from(format!("Bearer {token}"))
        {
            parts.headers.insert(AUTHORIZATION, bearer);
        }
        let caller = Caller::from_request_parts(parts, api).await?;
        if basic.is_some_and(|(name, _)| name != caller.name()) {
            let detail = "the token is not that of the client that is named as the user; send its own name";
            return Err(Problem::new(Kind::Unauthenticated, detail));
        }
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
    match api.limits.admit(&client) {
        Ok(admission) => Ok(Asker {
            client: Client { id: client.name.clone(), method: ClientMethod::Local },
            is_known_by_network: true,
            _place: Place::Network(admission),
        }),
        Err(problem) => {
            api.limits.slow_down(&client).await;
            Err(problem.close_if_large(&parts.headers))
        }
    }
}

/// Name and password of `Basic` (RFC 7617). The scheme is case-insensitive.
fn basic_credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_a_name_and_a_token() {
        let read = |text: &str| basic_credentials(text);
        // "desk-1:bulla_x"
        let both = Some(("desk-1".to_owned(), "bulla_x".to_owned()));
        assert_eq!(read("Basic ZGVzay0xOmJ1bGxhX3g="), both);
        assert_eq!(read("basic ZGVzay0xOmJ1bGxhX3g="), both);
        for bad in
            ["Basic", "Basic ", "Basic !", "Basic ZGVzay0x", "Bearer ZGVzay0xOmJ1bGxhX3g=", "Basic /w=="]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
