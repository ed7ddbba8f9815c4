//! The routes: who may come in, how much may be sent, what is answered.
//!
//! Refuses to do: keep more of a body than a request can have; answer a query of somebody who is not known, or before it is
//! in the list of queries; do blocking work on the server's threads.
//! Invariant: whatever comes in, the answer is one of the protocol's, or a problem.

use super::Desk;
use super::door::Caller;
use super::openapi::{self, Routes, operations};
use super::problem::{Kind, Problem};
use super::queries::{self, Asked};
use crate::exit::{Exit, Failure};
use crate::journal::{self, Who};
use crate::people::{self, Person, Role};
use crate::published;
use crate::witness::Refusal;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use bulla_formats::witness::add_checkpoint::REQUEST_BYTES_MAX;
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time from a request's headers to its answer.
const REQUEST_MAX: Duration = Duration::from_secs(120);

/// Bytes of a body that is too long that are read all the same.
const FORGOTTEN_BYTES_MAX: usize = 1 << 20;

const TEXT: &str = "text/plain; charset=utf-8";

/// Everything that is served, with its description.
pub fn routes() -> Routes {
    Routes::new()
        .add("post", "/add-checkpoint", post(add_checkpoint), operations::add_checkpoint())
        .add("get", "/{hash}/checkpoint", get(cosigned), operations::cosigned())
        .add("get", "/heads/checkpoint", get(head), operations::head())
        .add("get", "/heads/tile/{*path}", get(tile), operations::tile())
        .add("get", "/healthz", get(async || plain(StatusCode::OK, "ok\n")), operations::healthz())
        .add("get", "/metrics", get(metrics), operations::metrics())
        .add("get", "/openapi.json", get(openapi::serve), operations::openapi())
        .add("get", "/v1/status", asks("status"), operations::status())
        .add("get", "/v1/findings", asks("findings"), operations::findings())
        .add("get", "/v1/find", asks("find"), operations::find())
        .add("get", "/v1/statement", asks("statement"), operations::statement())
        .add("get", "/v1/timeline", asks("timeline"), operations::timeline())
        .add("get", "/v1/audit", asks("audit"), operations::audit())
}

/// What answers requests.
pub fn router(desk: Arc<Desk>) -> Router {
    let (router, _) = routes().into_parts();
    router
        .fallback(async || {
            Problem::new(Kind::NotFound, "no route has this path; GET /openapi.json lists the routes")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::MethodNotAllowed, "use one of the methods in the Allow header")
        })
        .layer(from_fn_with_state(desk.clone(), bounded))
        .with_state(desk)
}

/// Answers the query of this name.
fn asks(name: &'static str) -> MethodRouter<Arc<Desk>> {
    get(move |desk: State<Arc<Desk>>, caller: Extension<Caller>, headers: HeaderMap, uri: Uri| {
        query(name, desk, caller, headers, uri)
    })
}

/// What the witness's memory, or the keys, say of themselves, for the hub's own output.
pub fn memory(refusal: Refusal) -> Failure {
    Failure::usage(format!("the witness's memory cannot be used ({refusal:?}); check the disk"))
}

async fn bounded(
    State(desk): State<Arc<Desk>>,
    Extension(Caller { address, .. }): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let response = if desk.budgets.spend(address) {
        match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(Kind::Unavailable, "it took too long; try again later").into_response(),
        }
    } else {
        let detail = "too many requests came from this address; wait, then go on more slowly";
        Problem::new(Kind::RateLimited, detail).into_response()
    };
    desk.metrics.answered(response.status().as_u16(), response.extensions().get().copied());
    response
}

/// Runs what blocks elsewhere.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::new(Kind::Unavailable, "the hub failed; its operator sees why"))
}

fn plain(status: StatusCode, words: impl Into<String>) -> Response {
    (status, [(CONTENT_TYPE, TEXT)], words.into()).into_response()
}

/// The disk of the witness or of the hub's own log fails.
fn failing(desk: &Desk, why: &str) -> Response {
    desk.progress.complain(why);
    Problem::new(Kind::Unavailable, "the hub's memory cannot be used now; its operator sees why")
        .into_response()
}

fn nothing(detail: &str) -> Response {
    Problem::new(Kind::NothingFound, detail).into_response()
}

/// A body, as far as a request can be long. What is longer is read on for a while and forgotten: who is still sending would
/// not hear the answer over the end of the connection.
async fn whole(body: Body) -> Result<Vec<u8>, Response> {
    let (mut bytes, mut came, mut pieces) = (Vec::new(), 0, body.into_data_stream());
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            return Err(plain(StatusCode::BAD_REQUEST, "the body did not come whole\n"));
        };
        came += piece.len();
        if came <= REQUEST_BYTES_MAX {
            bytes.extend_from_slice(&piece);
        } else if came > FORGOTTEN_BYTES_MAX {
            break;
        }
    }
    if came <= REQUEST_BYTES_MAX {
        return Ok(bytes);
    }
    let words = format!("a request has {REQUEST_BYTES_MAX} bytes at most");
    Err(Problem::new(Kind::TooLarge, words).into_response())
}

async fn add_checkpoint(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let own = desk.clone();
    let answered = match elsewhere(move || own.witness.add_checkpoint(&body)).await {
        Ok(answered) => answered,
        Err(problem) => return problem.into_response(),
    };
    match answered {
        Ok(line) => {
            desk.metrics.cosigned.fetch_add(1, Ordering::Relaxed);
            plain(StatusCode::OK, line)
        }
        Err(Refusal::Malformed(why)) => plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
        Err(Refusal::NotSigned) => plain(StatusCode::FORBIDDEN, "the log's key has not signed this\n"),
        Err(Refusal::UnknownLog) => plain(
            StatusCode::NOT_FOUND,
            "this hub has not archived the beginning of this log, or it has forked\n",
        ),
        Err(Refusal::Size(size)) => {
            (StatusCode::CONFLICT, [(CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n")).into_response()
        }
        Err(Refusal::Inconsistent(forked)) => {
            if forked {
                desk.progress
                    .complain("a log's key has signed two trees of one size; the next pull has the evidence");
            }
            plain(StatusCode::UNPROCESSABLE_ENTITY, "this does not extend what was cosigned or archived\n")
        }
        Err(refusal @ Refusal::Memory(_)) => failing(&desk, &memory(refusal).to_string()),
    }
}

async fn cosigned(State(desk): State<Arc<Desk>>, hash: Result<Path<String>, PathRejection>) -> Response {
    let unknown = "nothing of this log was cosigned";
    let Ok(Path(hash)) = hash else { return nothing(unknown) };
    let own = desk.clone();
    match elsewhere(move || own.witness.cosigned_by_hash(&hash)).await {
        Ok(Ok(Some(head))) => plain(StatusCode::OK, head.note),
        Ok(Ok(None)) => nothing(unknown),
        Ok(Err(refusal)) => failing(&desk, &memory(refusal).to_string()),
        Err(problem) => problem.into_response(),
    }
}

async fn head(State(desk): State<Arc<Desk>>) -> Response {
    published(desk, "checkpoint".to_owned(), TEXT, "no-cache").await
}

async fn tile(State(desk): State<Arc<Desk>>, path: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(path)) = path else { return nothing("the log has no such tile") };
    let forever = "public, max-age=31536000, immutable";
    published(desk, format!("tile/{path}"), "application/octet-stream", forever).await
}

/// A file of the hub's own log.
async fn published(desk: Arc<Desk>, name: String, kind: &'static str, cache: &'static str) -> Response {
    let own = desk.clone();
    match elsewhere(move || published::read(own.witness.directory(), &name)).await {
        Ok(Ok(Some(bytes))) => ([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)], bytes).into_response(),
        Ok(Ok(None)) => nothing("the log has no such tile, or no head yet"),
        Ok(Err(error)) => failing(&desk, &format!("the hub's own log cannot be read: {error}")),
        Err(problem) => problem.into_response(),
    }
}

/// The token of a request: `Err` when it has something else to say who asks.
fn token(headers: &HeaderMap) -> Result<Option<&str>, ()> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(())?;
    let alone = all.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
    alone.then_some(Some(token.trim())).ok_or(())
}

/// Who asks: by the token, and without one by the certificate.
fn person(desk: &Desk, caller: &Caller, headers: &HeaderMap) -> Result<Person, Problem> {
    let unknown = || {
        let by_certificate = match (&desk.serve.client_ca, &caller.shown) {
            (None, _) => "",
            (_, None) => {
                ", or show a certificate that is registered with `bulla-hub people add --certificate`"
            }
            (_, Some(_)) => "; the certificate that was shown is not registered here",
        };
        let detail =
            format!("send the token of `bulla-hub people add` as Authorization: Bearer{by_certificate}");
        Problem::new(Kind::Unauthenticated, detail)
    };
    let found = match (token(headers).map_err(|()| unknown())?, &caller.shown) {
        (Some(token), _) => people::by_token(&desk.state_dir, token),
        (None, Some(shown)) => people::by_certificate(&desk.state_dir, &shown.name),
        (None, None) => return Err(unknown()),
    };
    match found {
        Ok(person) => person.ok_or_else(unknown),
        Err(failure) => {
            desk.progress.complain(&failure.to_string());
            Err(Problem::new(Kind::Unavailable, "the hub lets nobody in at present; its operator sees why"))
        }
    }
}

/// Numbers, for anybody with a role. They tell of no document and no person, so the list of queries has no line of it.
async fn metrics(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let own = desk.clone();
    match elsewhere(move || person(&own, &caller, &headers)).await {
        Ok(Ok(_)) => {
            let headers =
                [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")];
            (headers, desk.metrics.render(desk.pulls)).into_response()
        }
        Ok(Err(problem)) | Err(problem) => problem.into_response(),
    }
}

async fn query(
    name: &'static str,
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let parameters = uri.query().unwrap_or_default().to_owned();
    let done = elsewhere(move || answer(&desk, &caller, name, &headers, &parameters)).await;
    match done {
        Ok(Ok(answer)) => answer,
        Ok(Err(problem)) | Err(problem) => problem.into_response(),
    }
}

/// One query from who asks to the last byte; blocks.
fn answer(
    desk: &Desk,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
    parameters: &str,
) -> Result<Response, Problem> {
    let person = person(desk, caller, headers)?;
    let asked = Asked::parse(name, parameters)?;
    let unavailable = |failure: Failure| {
        desk.progress.complain(&failure.to_string());
        Problem::new(
            Kind::Unavailable,
            "the archive, the index or the list of queries cannot be used now; try again later",
        )
    };
    let allowed = person.role >= asked.role();
    let who = Who::Person {
        name: &person.name,
        role: person.role.name(),
        address: caller.address,
        certificate: person.certificate.as_ref().and(caller.shown.as_ref()).map(|shown| &shown.sha256),
    };
    let mut entered = asked.to_json();
    if !allowed {
        entered["refused"] = true.into();
    }
    journal::record(&desk.state_dir, &who, name, &entered).map_err(unavailable)?;
    if !allowed {
        let detail = format!(
            "{} needs the role {}, and {} has {}",
            name,
            asked.role().name(),
            person.name,
            person.role.name()
        );
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    if asked.role() == Role::Supervisor {
        let body = queries::audit(&desk.state_dir, &asked).map_err(unavailable)?;
        return Ok(json(&body));
    }
    let hub = desk.hub().map_err(unavailable)?;
    let answered = queries::answer(&hub, &asked).map_err(|failure| match failure.exit {
        Exit::Nothing => Problem::new(Kind::NothingFound, failure.message),
        _ => unavailable(failure),
    })?;
    Ok(match answered {
        queries::Answer::Json(value) => json(&value),
        queries::Answer::Pdf(bytes) => {
            let headers = [(CONTENT_TYPE, "application/pdf"), (CACHE_CONTROL, "no-store")];
            (headers, bytes).into_response()
        }
    })
}

fn json(value: &serde_json::Value) -> Response {
    let mut response = value.to_string().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
