//! The registrar's listener: TLS 1.3, DER in and out; configuration files as they are.
//!
//! Refuses to do: speak to anybody without a limit on connections, time and bytes; give reasons for its own faults.
//! Invariant: the binding that a challenge is made for is that of the very connection it leaves through.

use super::office::Office;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bulla_enrolment::wire::{Answer, EVIDENCE_BYTES_MAX, REQUEST_BYTES_MAX};
use bulla_formats::der;
use bulla_formats::hash::Hash;
use bulla_formats::peer::roster::ROSTER_REQUEST_BYTES_MAX;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::exit::Failure;

/// Most connections at a time: boxes come once in their lives.
const CONNECTIONS_MAX: usize = 256;
/// Longest handshake, and longest wait for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest life of a connection.
const LIFE: Duration = Duration::from_secs(60);
/// RFC 9266, section 2.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Shared = Arc<Mutex<Office>>;

/// Binding of the connection.
#[derive(Clone, Copy)]
struct Channel([u8; 32]);

fn router(office: Shared) -> Router {
    Router::new()
        .route("/v1/enrolments", post(ask).layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX)))
        .route("/v1/enrolments/evidence", post(prove).layer(DefaultBodyLimit::max(EVIDENCE_BYTES_MAX)))
        .route("/v1/enrolments/{transcript}", get(poll))
        .route("/v1/roster", post(roster).layer(DefaultBodyLimit::max(ROSTER_REQUEST_BYTES_MAX)))
        .route("/v1/configurations/{sha256}", get(configuration))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(office)
}

async fn ask(State(office): State<Shared>, Extension(channel): Extension<Channel>, body: Bytes) -> Response {
    answered(office, move |office| office.ask(&body, &channel.0)).await
}

async fn prove(State(office): State<Shared>, body: Bytes) -> Response {
    answered(office, move |office| office.prove(&body)).await
}

async fn poll(State(office): State<Shared>, Path(transcript): Path<String>) -> Response {
    let digits = hex::decode(&transcript).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    match digits {
        Some(digits) => answered(office, move |office| office.poll(&Hash(digits))).await,
        None => problem(StatusCode::BAD_REQUEST, "malformed", "a transcript is 64 hex digits"),
    }
}

async fn roster(
    State(office): State<Shared>,
    Extension(channel): Extension<Channel>,
    body: Bytes,
) -> Response {
    let done = decided(office, move |office| office.roster(&body, &channel.0)).await;
    match done {
        Ok(Ok(said)) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], der::encode(&said)).into_response()
        }
        Ok(Err(sentence)) => {
            let sentence: String = sentence.chars().filter(|c| !c.is_control()).collect();
            crate::say(&format!("refused (roster): {sentence}\n"));
            problem(StatusCode::FORBIDDEN, "roster", &sentence)
        }
        Err(response) => response,
    }
}

/// Whoever knows the hash, from the roster, may have the file: there is nothing secret in it.
async fn configuration(State(office): State<Shared>, Path(sha256): Path<String>) -> Response {
    let digits = hex::decode(&sha256).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let Some(digits) = digits else {
        return problem(StatusCode::BAD_REQUEST, "malformed", "a SHA-256 is 64 hex digits");
    };
    match decided(office, move |office| office.configuration(&Hash(digits))).await {
        Ok(Some(bytes)) => ([(header::CONTENT_TYPE, "application/toml")], bytes).into_response(),
        Ok(None) => {
            problem(StatusCode::NOT_FOUND, "not-found", "there is no configuration file with this hash")
        }
        Err(response) => response,
    }
}

/// Signatures and files keep a thread busy, one enrolment at a time.
async fn answered(
    office: Shared,
    work: impl FnOnce(&mut Office) -> Result<Answer, Failure> + Send + 'static,
) -> Response {
    match decided(office, work).await {
        Ok(answer) => {
            if let Answer::Refused(refused) = &answer {
                // It may quote what a stranger sent.
                let sentence: String = refused.sentence.chars().filter(|c| !c.is_control()).collect();
                crate::say(&format!("refused ({}): {sentence}\n", refused.code));
            }
            ([(header::CONTENT_TYPE, "application/octet-stream")], answer.encode()).into_response()
        }
        Err(response) => response,
    }
}

async fn decided<T: Send + 'static>(
    office: Shared,
    work: impl FnOnce(&mut Office) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Response> {
    let internal = || {
        let why = "the registrar could not decide; its log says why";
        problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", why)
    };
    let done = tokio::task::spawn_blocking(move || {
        // What it has decided is on the disk; a panic leaves nothing half done in memory but a challenge.
        work(&mut office.lock().unwrap_or_else(PoisonError::into_inner))
    });
    match done.await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(failure)) => {
            eprintln!("bulla-fleet: {failure}");
            Err(internal())
        }
        Err(error) => {
            eprintln!("bulla-fleet: {error}");
            Err(internal())
        }
    }
}

fn problem(status: StatusCode, slug: &str, detail: &str) -> Response {
    let body = json!({
        "type": format!("urn:bulla:problem:{slug}"),
        "title": status.canonical_reason().unwrap_or("Problem"),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response()
}

/// Accepts until `stop` is ready.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    office: Office,
    stop: impl Future<Output = ()>,
) {
    let (acceptor, router) = (TlsAcceptor::from(tls), router(Arc::new(Mutex::new(office))));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = std::pin::pin!(stop);
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, place) {
            (Ok((stream, _)), Ok(place)) => {
                tokio::spawn(timeout(LIFE, connection(acceptor.clone(), router.clone(), stream, place)));
            }
            (Err(error), _) => {
                eprintln!("bulla-fleet: no connection can be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
            // The semaphore is never closed.
            (_, Err(_)) => return,
        }
    }
}

async fn connection(acceptor: TlsAcceptor, router: Router, stream: TcpStream, _place: OwnedSemaphorePermit) {
    let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
    let Ok(channel) = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None) else { return };
    let service = TowerToHyperService::new(router.layer(Extension(Channel(channel))));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // The client has gone, or was not one; it comes back if it is.
    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
}
