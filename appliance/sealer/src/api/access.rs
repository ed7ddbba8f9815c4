//! Who is calling, and what a role may do: the authorisation matrix.
//!
//! Refuses to do: fall back. A token that is not known is a 401 even when the connection has a good client
//! certificate, so that a mistyped token never acts as somebody else.
//! People of the console are known by their session's cookie, after a token and before a certificate; what changes
//! something in a session needs a proof besides, which only the console's own pages have (CSRF).
//! Limits are the credential's second half: whoever is known is let in by `crate::limits` or gets a 429, and whoever is
//! not known spends what its address may ask without a good credential.
//! Invariant: a [`Caller`] was registered and not revoked when its request began.

use super::session;
use super::{Connection, Shared};
use crate::clients::{ClientLimits, RegisteredClient, Role};
use crate::limits::Admission;
use crate::people::sessions::Session;
use crate::people::{CONSOLE, Duty};
use crate::problem::{Kind, Problem};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bulla_formats::body::seal::{Client, ClientMethod};
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
    /// Annuls or replaces seals that somebody else made.
    AnnulAny,
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
        Right::AnnulAny => role == Role::Scanner,
    }
}

/// The same for people. What takes data away from the box or out of it (backups, erasures), and what decides for the
/// fleet (leases, rosters), is for tokens only: a browser that was left open must not do it.
fn lets(duty: Duty, right: Right) -> bool {
    match right {
        Right::ReadSeals
        | Right::ReadOpenings
        | Right::Verify
        | Right::ReadStatus
        | Right::ReadQueue
        | Right::ReadAnyQueued
        | Right::ReadEvents
        | Right::ReadForeignEvents => true,
        Right::Seal => matches!(duty, Duty::Clerk | Duty::Qa),
        Right::AnnulAny => duty == Duty::Qa,
        Right::Expedite => matches!(duty, Duty::Clerk | Duty::Qa | Duty::Ops),
        Right::ReadMetrics | Right::ReadReconciled => matches!(duty, Duty::Ops | Duty::Auditor),
        Right::Lock | Right::Rotate | Right::SelfTest | Right::Drill => duty == Duty::Ops,
        Right::Backup | Right::Erase | Right::Lease | Right::Roster => false,
    }
}

/// The same for hubs of the fleet, which the roster names: they pull logs, read nobody's personal data, and hand in what
/// speaks for itself (rosters, leases).
fn serves(right: Right) -> bool {
    match right {
        Right::ReadSeals
        | Right::Verify
        | Right::ReadStatus
        | Right::ReadMetrics
        | Right::ReadReconciled
        | Right::ReadEvents
        | Right::ReadForeignEvents
        | Right::Lease
        | Right::Roster => true,
        Right::Seal
        | Right::ReadOpenings
        | Right::ReadQueue
        | Right::ReadAnyQueued
        | Right::Lock
        | Right::Rotate
        | Right::Backup
        | Right::Erase
        | Right::SelfTest
        | Right::Drill
        | Right::Expedite
        | Right::AnnulAny => false,
    }
}

/// What a page of the console has to know of its person's rights.
pub fn rights(duty: Duty) -> Vec<&'static str> {
    let named = [
        ("seal", Right::Seal),
        ("annul-any", Right::AnnulAny),
        ("anchor", Right::Expedite),
        ("metrics", Right::ReadMetrics),
        ("lock", Right::Lock),
        ("self-test", Right::SelfTest),
        ("rotate", Right::Rotate),
        ("drill", Right::Drill),
    ];
    named.into_iter().filter(|(_, right)| lets(duty, *right)).map(|(name, _)| name).collect()
}

/// What people must be there for to have a right.
pub fn duties(right: Right) -> Vec<Duty> {
    Duty::ALL.into_iter().filter(|duty| lets(*duty, right)).collect()
}

/// The roles that have a right.
pub fn roles(right: Right) -> Vec<Role> {
    Role::ALL.into_iter().filter(|role| allows(*role, right)).collect()
}

/// Who calls.
#[derive(Debug, Clone)]
enum Who {
    Client(Arc<RegisteredClient>),
    Person(Session),
    /// A hub of the fleet, and the key of the certificate by which it is known.
    Hub(Arc<str>, [u8; 32]),
}

/// An authenticated client, or a person in a session.
#[derive(Debug, Clone)]
pub struct Caller {
    who: Who,
    admission: Arc<Admission>,
}

impl Caller {
    /// What the log calls it: a client's name, a person's number.
    pub fn name(&self) -> &str {
        match &self.who {
            Who::Client(client) => &client.name,
            Who::Person(session) => &session.label,
            Who::Hub(name, _) => name,
        }
    }

    /// As seals name it. A person is not named: that is personal data, and a commitment beside it.
    pub fn client(&self) -> Client {
        match &self.who {
            Who::Client(client) => Client { id: client.name.clone(), method: client.seal_method() },
            Who::Person(_) => Client { id: CONSOLE.to_owned(), method: ClientMethod::Local },
            Who::Hub(name, _) => Client { id: name.to_string(), method: ClientMethod::ClientCertificate },
        }
    }

    /// The session that it is, if it is a person.
    pub fn session(&self) -> Option<&Session> {
        match &self.who {
            Who::Client(_) | Who::Hub(..) => None,
            Who::Person(session) => Some(session),
        }
    }

    /// Its place among its requests, and what it may send.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Whether it would still be let in, for answers that last.
    pub fn is_current(&self, api: &Shared) -> bool {
        match &self.who {
            Who::Client(client) => api.clients.is_current(client).unwrap_or(false),
            Who::Person(session) => session::is_current(api, session),
            Who::Hub(name, pin) => {
                api.sealer.hubs().by_client(pin).is_some_and(|now| hub_name(&now) == *name)
            }
        }
    }

    /// Whether its role has this right.
    pub fn has(&self, right: Right) -> bool {
        match &self.who {
            Who::Client(client) => allows(client.role, right),
            Who::Person(session) => lets(session.person.duty, right),
            Who::Hub(..) => serves(right),
        }
    }

    /// 403 unless its role has this right.
    pub fn need(&self, right: Right) -> Result<(), Problem> {
        if self.has(right) {
            return Ok(());
        }
        let detail = match &self.who {
            Who::Client(client) => format!(
                "{:?} is registered as {}, which does not include this; use a client of another role",
                client.name,
                client.role.name()
            ),
            Who::Person(session) => format!(
                "you are here as {}, which does not include this; ask somebody of another role",
                session.person.duty.name()
            ),
            Who::Hub(name, _) => format!(
                "{name} is known as a hub of the fleet, which does not include this; use a client of another role"
            ),
        };
        Err(Problem::new(Kind::Forbidden, detail))
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, Problem> {
        let told = "the Authorization header is not \"Bearer <token>\"; send the token of `scanner add`";
        if !parts.headers.contains_key(AUTHORIZATION)
            && let Some(session) = session::of(parts, api)?
        {
            return admitted(parts, api, Who::Person(session)).await;
        }
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
            if let Some((name, pin)) = connection.and_then(|connection| hub_of(api, connection)) {
                return admitted(parts, api, Who::Hub(name, pin)).await;
            }
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
    admitted(parts, api, Who::Client(client)).await
}

/// What the log and the limits call a hub; no client's name has a colon.
fn hub_name(name: &str) -> Arc<str> {
    Arc::from(format!("hub:{name}"))
}

/// The hub of the fleet that has made this connection, if the roster names it one now.
fn hub_of(api: &Shared, connection: &Arc<Connection>) -> Option<(Arc<str>, [u8; 32])> {
    let pin = connection.client_spki?;
    let name = api.sealer.hubs().by_client(&pin)?;
    Some((hub_name(&name), pin))
}

/// Lets somebody known in, within the limits that it has.
async fn admitted(parts: &Parts, api: &Shared, who: Who) -> Result<Caller, Problem> {
    let usual = ClientLimits::default();
    let (name, own): (&str, &ClientLimits) = match &who {
        Who::Client(client) => (&client.name, &client.limits),
        Who::Person(session) => (&session.label, &usual),
        Who::Hub(name, _) => (name, &usual),
    };
    match api.limits.admit(name, own) {
        Ok(admission) => Ok(Caller { who, admission: Arc::new(admission) }),
        Err(problem) => {
            api.limits.slow_down(name, own).await;
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
        let known = |connection: &Arc<Connection>| {
            connection.common_name.is_some() || hub_of(api, connection).is_some()
        };
        let certified = parts.extensions.get::<Arc<Connection>>().is_some_and(known);
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
pub fn guessed(api: &Shared, parts: &Parts, detail: &'static str) -> Problem {
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
    fn people_may_what_the_documentation_says() {
        use Right::{
            AnnulAny, Backup, Drill, Erase, Expedite, Lease, Lock, ReadMetrics, ReadOpenings, ReadReconciled,
            ReadSeals, ReadStatus, Roster, Rotate, Seal, SelfTest, Verify,
        };
        let all = [Seal, AnnulAny, Expedite, ReadMetrics, ReadReconciled, Lock, Rotate, SelfTest, Drill];
        for (duty, granted) in [
            (Duty::Clerk, [Seal, Expedite].to_vec()),
            (Duty::Qa, [Seal, AnnulAny, Expedite].to_vec()),
            (Duty::Ops, [Expedite, ReadMetrics, ReadReconciled, Lock, Rotate, SelfTest, Drill].to_vec()),
            (Duty::Auditor, [ReadMetrics, ReadReconciled].to_vec()),
        ] {
            for right in all {
                assert_eq!(lets(duty, right), granted.contains(&right), "{duty:?} {right:?}");
            }
            assert!([ReadSeals, ReadOpenings, ReadStatus, Verify].into_iter().all(|right| lets(duty, right)));
            assert!(![Backup, Erase, Lease, Roster].into_iter().any(|right| lets(duty, right)));
        }
        assert_eq!(rights(Duty::Clerk), ["seal", "anchor"]);
    }

    #[test]
    fn hubs_read_what_they_pull_and_hand_in_what_speaks_for_itself() {
        use Right::{
            Lease, ReadEvents, ReadForeignEvents, ReadMetrics, ReadReconciled, ReadSeals, ReadStatus, Roster,
            Verify,
        };
        let granted = [
            Lease,
            ReadEvents,
            ReadForeignEvents,
            ReadMetrics,
            ReadReconciled,
            ReadSeals,
            ReadStatus,
            Roster,
            Verify,
        ];
        assert!(granted.into_iter().all(serves));
        let more = [
            Right::Seal,
            Right::ReadOpenings,
            Right::ReadQueue,
            Right::Lock,
            Right::Rotate,
            Right::Backup,
            Right::Erase,
            Right::Expedite,
            Right::AnnulAny,
        ];
        assert!(!more.into_iter().any(serves));
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
