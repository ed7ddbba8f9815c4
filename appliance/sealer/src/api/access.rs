//! Who is calling, and what a role may do: the authorisation matrix.
//!
//! Refuses to do: fall back. A token that is not known is a 401 even when the connection has a good client
//! certificate, so that a mistyped token never acts as somebody else.
//! Limits are the credential's second half: whoever is known is let in by `crate::limits` or gets a 429, and whoever is
//! not known spends what its address may ask without a good credential.
//! Invariant: a [`Caller`] was registered and not revoked when its request began.

use super::{Connection, Shared};
use crate::clients::{RegisteredClient, Role};
use crate::limits::Admission;
use crate::problem::{Kind, Problem};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bulla_formats::body::seal::Client;
use std::sync::Arc;

/// What a route asks for. Routes without a [`Caller`] are open to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// `POST /v1/seals`.
    Seal,
    /// `GET /v1/seals/{id}` and its file.
    ReadSeals,
    /// Opened personal data of seals that somebody else made.
    ReadOpenings,
    /// `POST /v1/verify`.
    Verify,
    /// `GET /v1/status`.
    ReadStatus,
    /// `GET /v1/events`.
    ReadEvents,
    /// Events beside those of its own seals.
    ReadForeignEvents,
    /// `GET /metrics`.
    ReadMetrics,
    /// `GET /v1/reconciled`.
    ReadReconciled,
    /// `GET /v1/queue/{id}` of one's own requests.
    ReadQueue,
    /// The same of anybody's.
    ReadAnyQueued,
    /// `POST /v1/lock` and `/v1/unlock`.
    Lock,
    /// `POST /v1/epochs`.
    Rotate,
    /// `POST /v1/backups`.
    Backup,
    /// `POST /v1/erasures`.
    Erase,
    /// `POST /v1/self-tests`.
    SelfTest,
    /// `POST /v1/drills` and `/v1/drills/stop`.
    Drill,
    /// `POST /v1/leases`.
    Lease,
    /// `POST /v1/roster`.
    Roster,
    /// `POST /v1/seals/{id}/anchor`.
    Expedite,
}

/// The authorisation matrix.
fn allows(role: Role, right: Right) -> bool {
    match right {
        Right::Seal => role == Role::Scanner,
        Right::ReadSeals | Right::Verify | Right::ReadStatus | Right::ReadQueue | Right::ReadEvents => true,
        Right::ReadOpenings | Right::ReadMetrics | Right::ReadAnyQueued | Right::ReadForeignEvents => {
            matches!(role, Role::Reader | Role::Operator)
        }
        Right::ReadReconciled => matches!(role, Role::Reader | Role::Operator),
        Right::Rotate | Right::Backup | Right::Lock | Right::Erase | Right::SelfTest => {
            role == Role::Operator
        }
        Right::Drill | Right::Lease | Right::Roster => role == Role::Operator,
        Right::Expedite => matches!(role, Role::Scanner | Role::Operator),
    }
}

/// The roles that have a right.
pub fn roles(right: Right) -> Vec<Role> {
    Role::ALL.into_iter().filter(|role| allows(*role, right)).collect()
}

/// An authenticated client.
#[derive(Debug, Clone)]
pub struct Caller {
    client: Arc<RegisteredClient>,
    admission: Arc<Admission>,
}

impl Caller {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.client.name
    }

    /// As seals name it.
    pub fn client(&self) -> Client {
        Client { id: self.client.name.clone(), method: self.client.seal_method() }
    }

    /// Its place among its requests, and what it may send.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Its row in the list of clients.
    pub fn registration(&self) -> &RegisteredClient {
        &self.client
    }

    /// Whether its role has this right.
    pub fn has(&self, right: Right) -> bool {
        allows(self.client.role, right)
    }

    /// 403 unless its role has this right.
    pub fn need(&self, right: Right) -> Result<(), Problem> {
        if self.has(right) {
            return Ok(());
        }
        let detail = format!(
            "{:?} is registered as {}, which does not include this; use a client of another role",
            self.client.name,
            self.client.role.name()
        );
        Err(Problem::new(Kind::Forbidden, detail))
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, Problem> {
        let told = "the Authorization header is not \"Bearer <token>\"; send the token of `scanner add`";
        caller(parts, api, |value| Some((None, bearer_token(value)?.to_owned())), told).await
    }
}

/// A scanner or capture program that has its own idea of credentials: HTTP Basic with the client's name and its token
/// as password (RFC 7617), or `Token <token>`, beside what everybody may send.
pub struct Device(pub Caller);

impl FromRequestParts<Shared> for Device {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, Problem> {
        let told = "the Authorization header is neither \"Basic\" with the scanner's name and its token as password, nor \
                    \"Token <token>\", nor \"Bearer <token>\"";
        caller(parts, api, device_credential, told).await.map(Device)
    }
}

/// A name, where the scheme has one, and a token.
type Credential = (Option<String>, String);

/// Finds out who calls; `read` takes a name, if there is one, and a token from the Authorization header.
async fn caller(
    parts: &mut Parts,
    api: &Shared,
    read: fn(&str) -> Option<Credential>,
    told: &'static str,
) -> Result<Caller, Problem> {
    let client = match parts.headers.get(AUTHORIZATION) {
        Some(value) => {
            let (name, token) =
                value.to_str().ok().and_then(read).ok_or_else(|| guessed(api, parts, told))?;
            let client = api.clients.by_token(&token)?;
            client.filter(|client| name.is_none_or(|name| name == client.name))
        }
        None => {
            let connection = parts.extensions.get::<Arc<Connection>>();
            match connection.and_then(|connection| connection.common_name.as_deref()) {
                Some(name) => api.clients.by_common_name(name)?,
                None => {
                    return Err(refused(
                        "no credential was sent; send \"Authorization: Bearer <token>\", or use a client \
                         certificate that is registered here",
                    ));
                }
            }
        }
    };
    let client = client.ok_or_else(|| {
        let detail = "the credential is not known here, or revoked; ask the operator to add this client";
        guessed(api, parts, detail)
    })?;
    match api.limits.admit(&client) {
        Ok(admission) => Ok(Caller { client, admission: Arc::new(admission) }),
        Err(problem) => {
            api.limits.slow_down(&client).await;
            Err(problem.close_if_large(&parts.headers))
        }
    }
}

/// Whoever asks for what is open to everybody: with a good credential within the limits of that client, else within
/// those of its address.
pub struct Visitor(
    #[expect(dead_code, reason = "held while the request lasts: it is one of the client's")] Option<Caller>,
);

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, Problem> {
        let common_name = |connection: &Arc<Connection>| connection.common_name.is_some();
        let certified = parts.extensions.get::<Arc<Connection>>().is_some_and(common_name);
        if !certified && !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Visitor(None));
        }
        match Caller::from_request_parts(parts, api).await {
            Ok(caller) => Ok(Visitor(Some(caller))),
            // The address has paid for the guess; what it asks for needs no credential.
            Err(problem) if problem.kind() == Kind::Unauthenticated => Ok(Visitor(None)),
            Err(problem) => Err(problem),
        }
    }
}

fn refused(detail: &'static str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail)
}

/// A wrong credential: 401, or 429 when too many come from the address.
fn guessed(api: &Shared, parts: &Parts, detail: &'static str) -> Problem {
    let connection = parts.extensions.get::<Arc<Connection>>();
    match connection.map(|connection| api.limits.addresses.anonymous(connection.peer)) {
        Some(Err(problem)) => problem.close_if_large(&parts.headers),
        _ => refused(detail),
    }
}

/// The scheme is case-insensitive (RFC 9110 section 11.1).
pub fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Name and token, as devices send them.
fn device_credential(value: &str) -> Option<Credential> {
    if let Some(token) = bearer_token(value) {
        return Some((None, token.to_owned()));
    }
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("token") && !rest.is_empty() {
        return Some((None, rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (name, token) = text.split_once(':')?;
    Some((Some(name.to_owned()), token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_the_documented_one() {
        use Right::{
            Backup, Erase, Lock, ReadAnyQueued, ReadEvents, ReadForeignEvents, ReadMetrics, ReadOpenings,
            ReadQueue, ReadReconciled, ReadSeals, ReadStatus, Rotate, Seal, SelfTest, Verify,
        };
        let reading = [
            ReadReconciled,
            ReadSeals,
            ReadOpenings,
            Verify,
            ReadStatus,
            ReadMetrics,
            ReadQueue,
            ReadAnyQueued,
            ReadEvents,
            ReadForeignEvents,
        ];
        let all = [Seal, Rotate, Lock, Backup, Erase, SelfTest].into_iter().chain(reading);
        for (role, granted) in [
            (Role::Scanner, [Seal, ReadSeals, Verify, ReadStatus, ReadQueue, ReadEvents].to_vec()),
            (Role::Reader, reading.to_vec()),
            (Role::Operator, reading.into_iter().chain([Rotate, Lock, Backup, Erase, SelfTest]).collect()),
        ] {
            for right in all.clone() {
                assert_eq!(allows(role, right), granted.contains(&right), "{role:?} {right:?}");
            }
        }
    }

    #[test]
    fn only_bearer_credentials_are_read() {
        assert_eq!(bearer_token("Bearer bulla_x"), Some("bulla_x"));
        assert_eq!(bearer_token("bearer bulla_x"), Some("bulla_x"));
        for bad in ["Bearer", "Bearer ", "Basic bulla_x", "bulla_x"] {
            assert_eq!(bearer_token(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn devices_have_three_spellings() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let read = |value: &str| device_credential(value);
        assert_eq!(read(&basic("desk-1:bulla_x")), Some((Some("desk-1".into()), "bulla_x".into())));
        assert_eq!(read("Token bulla_x"), Some((None, "bulla_x".into())));
        assert_eq!(read("Bearer bulla_x"), Some((None, "bulla_x".into())));
        for bad in ["Token ", "Basic", "Basic %%%", "Digest bulla_x", &basic("no colon")] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
