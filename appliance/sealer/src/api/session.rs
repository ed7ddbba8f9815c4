//! `/v1/session`: people log in to the console, choose passwords, log out; and whose session a request belongs to.
//!
//! The session is a cookie that no script reads, no other site sends, and plain HTTP never carries. What changes something
//! needs the session's proof in a header as well, which only a page of this origin can read and send.
//! Refuses to do: say whether a name exists; write a person's name into the log of the program (numbers stand there).
//! Invariants: every login, refusal and logout is in that log; a request with a cookie that is no session is a 401, even
//! with a good client certificate.

use super::access::{Caller, guessed, rights};
use super::receipt::respond;
use super::upload::Incoming;
use super::{Connection, Shared, seals};
use crate::driver::clock::now_millis;
use crate::limits::one_address;
use crate::people::password::{HashError, weakness};
use crate::people::sessions::Session;
use crate::people::{Credential, Person, code_hash};
use crate::problem::{Kind, Problem};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

/// The prefix has browsers refuse it unless it is secure, for this host only and for all paths (RFC 6265bis).
pub const COOKIE_NAME: &str = "__Host-bulla-session";
/// What a page of the console sends with every request that changes something.
pub const PROOF: HeaderName = HeaderName::from_static("bulla-session-proof");
/// What a page sends with what it asks by itself, so that it does not count as use.
const BACKGROUND: HeaderName = HeaderName::from_static("bulla-background");
/// Where a browser says that a request comes from (Fetch Metadata).
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Most bytes of a login or a new password: two passwords of 1,024 characters, each of them escaped, and a name.
const LOGIN_BYTES_MAX: u64 = 32 << 10;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    name: String,
    #[serde(deserialize_with = "secret")]
    password: Zeroizing<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    name: String,
    /// The password so far, or the one-time code.
    #[serde(deserialize_with = "secret")]
    current: Zeroizing<String>,
    #[serde(deserialize_with = "secret")]
    password: Zeroizing<String>,
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    <String as serde::Deserialize>::deserialize(from).map(Zeroizing::new)
}

/// The text of the session's cookie, when there is one.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

/// Whether a request says that it belongs to a session.
pub fn is_claimed(headers: &HeaderMap) -> bool {
    cookie(headers).is_some() && !headers.contains_key(AUTHORIZATION)
}

/// Routes of sessions that look at no session: every request to them counts as its address's.
pub fn is_open_to_all(path: &str) -> bool {
    matches!(path, "/v1/session/password" | "/v1/session")
}

/// The session that a request belongs to, if it says so.
pub fn of(parts: &Parts, api: &Shared) -> Result<Option<Session>, Problem> {
    let Some(text) = cookie(&parts.headers) else { return Ok(None) };
    let used = !parts.headers.contains_key(BACKGROUND);
    let session = api.sessions.find(text, used, Instant::now());
    let session = match session {
        Some(session) if api.people.is_current(&session.person)? => session,
        Some(session) => {
            api.sessions.end(&session);
            return Err(guessed(api, parts, OVER));
        }
        None => return Err(guessed(api, parts, OVER)),
    };
    if !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        own_page(&parts.headers, &parts.uri)?;
        // Both are random and of one session; nothing is learnt from how long this takes that the browser does not have.
        let proven =
            parts.headers.get(PROOF).is_some_and(|proof| proof.as_bytes() == session.proof.as_bytes());
        if !proven {
            return Err(foreign("the request lacks its session's proof"));
        }
    }
    Ok(Some(session))
}

const OVER: &str = "the session is over, or there was none; log in again";

/// Whether the session of an answer that lasts has not ended.
pub fn is_current(api: &Shared, session: &Session) -> bool {
    api.sessions.is_open(session, Instant::now()) && api.people.is_current(&session.person).unwrap_or(false)
}

/// Refuses what a browser says came from another site.
fn own_page(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text(&SITE).is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(foreign("the browser says that another site made it"));
    }
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(&HOST));
    match (text(&ORIGIN), host) {
        (None, _) => Ok(()),
        (Some(origin), Some(host)) if origin.strip_prefix("https://") == Some(host) => Ok(()),
        (Some(_), _) => Err(foreign("its Origin is not this box")),
    }
}

fn foreign(why: &str) -> Problem {
    log::warn!("a request in a person's session was refused: {why}");
    let detail = format!("{why}, so nothing was done; go to the console itself and try there");
    Problem::new(Kind::ForeignRequest, detail).and_close()
}

/// The JSON body of a request that needs no session.
async fn body<T: serde::de::DeserializeOwned>(
    api: &Shared,
    request: Request,
) -> Result<(T, IpAddr), Problem> {
    if !api.config.console.enabled {
        return Err(Problem::new(
            Kind::NotFound,
            "the console is off; the operator turns it on in [console]",
        ));
    }
    let (parts, body) = request.into_parts();
    own_page(&parts.headers, &parts.uri)?;
    // A form of another site cannot have this type without asking first.
    if seals::essence(&parts.headers).as_deref() != Some("application/json") {
        let detail = "logging in is a request of the type application/json";
        return Err(Problem::new(Kind::UnsupportedMediaType, detail).close_if_large(&parts.headers));
    }
    let address = parts.extensions.get::<Arc<Connection>>().map(|connection| connection.peer);
    let incoming = Incoming::new(&parts.headers, body, LOGIN_BYTES_MAX, api.config.body_pace())?;
    let bytes = incoming.collect_secret().await?;
    let read = serde_json::from_slice(&bytes);
    // The parser's words may repeat what was sent.
    let read =
        read.map_err(|_| Problem::invalid("the body is not what docs/api.md says for this request"))?;
    Ok((read, address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
}

/// The person of this name, after one try of it from `address` was spent.
fn attempt(api: &Shared, name: &str, address: IpAddr) -> Result<Option<Arc<Person>>, Problem> {
    let person = api.people.by_name(name)?;
    let number = person.as_ref().map_or(0, |person| person.number);
    api.attempts.spend(number, one_address(address)).map_err(|wait| {
        log::warn!("{} is tried too often from one address", label(person.as_deref()));
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let detail = format!("too many tries from this computer; wait {seconds} seconds");
        Problem::new(Kind::RateLimited, detail).retry_after(seconds)
    })?;
    Ok(person)
}

fn label(person: Option<&Person>) -> String {
    person.map_or_else(|| "a name that nobody has".to_owned(), Person::label)
}

fn refused(person: Option<&Person>) -> Problem {
    log::warn!("a login was refused: {}", label(person));
    Problem::new(
        Kind::Unauthenticated,
        "name and password do not belong together; try again, or ask the operator for a new one-time code",
    )
}

fn of_hash(error: HashError) -> Problem {
    match error {
        HashError::Busy => {
            Problem::new(Kind::Overloaded, "many people log in at once; try again after the pause")
                .retry_after(5)
        }
        HashError::Failed(reason) => {
            log::error!("a password cannot be checked: {reason}");
            Problem::new(Kind::Internal, "the password could not be checked; try again")
        }
    }
}

/// `POST /v1/session`: logs in.
pub async fn begin(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    let (login, address) = body::<Login>(&api, request).await?;
    let person = attempt(&api, &login.name, address)?;
    let phc = match person.as_deref().map(|person| &person.credential) {
        Some(Credential::Password { phc }) => Some(phc.clone()),
        Some(Credential::Code { .. }) | None => None,
    };
    let right = api.passwords.is(login.password, phc).await.map_err(of_hash)?;
    match person {
        Some(person) if right => started(&api, person),
        person => Err(refused(person.as_deref())),
    }
}

/// `POST /v1/session/password`: chooses a password, with the one before or a one-time code, and logs in.
pub async fn choose(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    let (asked, address) = body::<NewPassword>(&api, request).await?;
    let person = attempt(&api, &asked.name, address)?;
    let (phc, by_code) = match person.as_deref().map(|person| &person.credential) {
        // Nothing that a stopwatch tells of a hash leads to its code.
        Some(Credential::Code { sha256, expires_millis }) => {
            (None, *sha256 == code_hash(&asked.current) && now_millis() < *expires_millis)
        }
        Some(Credential::Password { phc }) => (Some(phc.clone()), false),
        None => (None, false),
    };
    let by_password = api.passwords.is(asked.current.clone(), phc).await.map_err(of_hash)?;
    let person = match person {
        Some(person) if by_code || by_password => person,
        person => return Err(refused(person.as_deref())),
    };
    if *asked.password == *asked.current {
        return Err(Problem::new(Kind::WeakPassword, "the new password is the one before; choose another"));
    }
    if let Some(weakness) = weakness(&person.name, &asked.password) {
        return Err(Problem::new(Kind::WeakPassword, weakness));
    }
    let phc = api.passwords.hash(asked.password).await.map_err(of_hash)?;
    let (store, before) = (api.clone(), person.clone());
    let changed = tokio::task::spawn_blocking(move || store.people.set_password(&before, phc)).await;
    let changed =
        changed.map_err(|_| Problem::new(Kind::Internal, "the password was not kept; try again"))?;
    log::info!("{} chose a password", person.label());
    started(&api, Arc::new(changed?))
}

fn started(api: &Shared, person: Arc<Person>) -> Result<Response, Problem> {
    let begun = api.sessions.begin(person, Instant::now());
    let (text, session) = begun.map_err(|reason| {
        log::error!("no session can begin: {reason}");
        Problem::new(Kind::Internal, "the box has no random numbers at present; try again")
    })?;
    log::info!("{} ({}) logged in", session.label, session.person.duty.name());
    let mut response = view(api, &session);
    set_cookie(&mut response, &text, "")?;
    Ok(response)
}

fn set_cookie(response: &mut Response, text: &str, more: &str) -> Result<(), Problem> {
    let line =
        Zeroizing::new(format!("{COOKIE_NAME}={text}; Path=/; Secure; HttpOnly; SameSite=Strict{more}"));
    let mut value = HeaderValue::from_str(&line)
        .map_err(|_| Problem::new(Kind::Internal, "the session does not fit a header; try again"))?;
    value.set_sensitive(true);
    response.headers_mut().insert(SET_COOKIE, value);
    Ok(())
}

fn view(api: &Shared, session: &Session) -> Response {
    let person = &session.person;
    let view = json!({
        "name": person.name,
        "label": &*session.label,
        "role": person.duty.name(),
        "rights": rights(person.duty),
        "proof": &*session.proof,
        "idleSeconds": api.sessions.idle().as_secs(),
    });
    respond(StatusCode::OK, "application/json", view.to_string())
}

/// `GET /v1/session`: who is logged in.
pub async fn read(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    Ok(view(&api, caller.session().ok_or_else(nobody)?))
}

/// `POST /v1/session/end`: logs out.
pub async fn end(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    let session = caller.session().ok_or_else(nobody)?;
    api.sessions.end(session);
    log::info!("{} logged out", session.label);
    let mut response = respond(StatusCode::OK, "application/json", "{\"ended\":true}");
    set_cookie(&mut response, "", "; Max-Age=0")?;
    Ok(response)
}

fn nobody() -> Problem {
    Problem::new(Kind::Forbidden, "sessions are for people; a client's token has none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let of = |text| cookie(&headers(&[("cookie", text)])).map(str::to_owned);
        assert_eq!(of("a=b; __Host-bulla-session=xyz; c=d").as_deref(), Some("xyz"));
        assert_eq!(of("__Host-bulla-session=xyz").as_deref(), Some("xyz"));
        for other in ["", "bulla-session=xyz", "x__Host-bulla-session=xyz", "__host-bulla-session=xyz"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(!is_claimed(&headers(&[
            ("cookie", "__Host-bulla-session=x"),
            ("authorization", "Bearer x")
        ])));
    }

    #[test]
    fn other_sites_are_refused() {
        let check = |fields: &[(&'static str, &'static str)]| {
            own_page(&headers(fields), &Uri::from_static("/v1/session")).is_ok()
        };
        let (host, own) = (("host", "box.example:8443"), ("origin", "https://box.example:8443"));
        assert!(
            check(&[host]) && check(&[host, own]) && check(&[host, own, ("sec-fetch-site", "same-origin")])
        );
        for bad in [
            ("origin", "https://evil.example"),
            ("origin", "http://box.example:8443"),
            ("origin", "https://box.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(!check(&[host, bad]), "{bad:?}");
        }
        assert!(!check(&[own]));
        let h2 = Uri::from_static("https://box.example:8443/v1/session");
        assert!(own_page(&headers(&[own]), &h2).is_ok());
    }
}
