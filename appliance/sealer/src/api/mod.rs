//! The HTTP API: routes, and what every request passes on its way in and out.
//!
//! Refuses to do: decide anything about seals (that is the driver's), or answer with an error that is not a
//! problem document. `docs/api.md` describes the API to those who use it.
//! Invariant: every answer leaves through [`handle`], which counts it and renders problems.

mod access;
mod backups;
mod content_digest;
mod description;
mod epochs;
mod erasures;
mod leftover;
mod lock;
mod log;
mod queue;
mod receipt;
mod seals;
mod search;
mod self_tests;
mod system;
mod upload;
mod verify;

use crate::clients::ClientStore;
use crate::config::Config;
use crate::driver::{SealError, Sealer};
use crate::limits::{Limits, Warnings};
use crate::problem::{Kind, Problem};
use crate::telemetry::HttpMetrics;
use crate::tls::Certificates;
use access::Caller;
use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use axum::response::Response;
use axum::routing::{get, post};
use leftover::Leftover;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tower::Service as _;

/// Most bytes of request headers, names and values together. HTTP servers in front of this one have similar
/// limits; metadata that needs more goes into a form or into JSON.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Headers that name one thing. Of two, one program would take the first and another the last, and what is in the seal
/// would depend on who looked. Content-Length is hyper's to refuse.
const SINGLE: [HeaderName; 3] = [AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("idempotency-key")];

/// What the handlers share.
pub struct Api {
    /// The driver.
    pub sealer: Sealer,
    /// The configuration.
    pub config: Config,
    /// Registered clients.
    pub clients: ClientStore,
    /// The listener's certificates; the CA is public.
    pub certificates: Arc<Certificates>,
    /// What is counted.
    pub metrics: HttpMetrics,
    /// What one client and one address may ask.
    pub limits: Limits,
    /// What has been warned of.
    pub warnings: Warnings,
    /// One permit per document on its way in.
    uploads: Semaphore,
    /// One backup at a time.
    backups: Arc<Semaphore>,
}

/// Places of a document among those on their way in: the box's, and its client's.
type UploadPermit<'a> = (SemaphorePermit<'a>, Option<OwnedSemaphorePermit>);

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Where it comes from.
    pub peer: IpAddr,
    /// As seals name it, e.g. `https/1.1 tls1.3`.
    pub transport: &'static str,
    /// Common name of the verified client certificate, when there is one.
    pub common_name: Option<Arc<str>>,
}

/// Shared by all connections.
pub type Shared = Arc<Api>;

impl Api {
    /// Puts together what the handlers share.
    pub fn new(sealer: Sealer, config: Config, certificates: Arc<Certificates>) -> Self {
        let clients = ClientStore::new(&config.state_dir);
        let uploads = Semaphore::new(config.limits.uploads_max);
        let (backups, metrics) = (Arc::new(Semaphore::new(1)), HttpMetrics::default());
        let (limits, warnings) = (Limits::new(&config.limits), Warnings::default());
        Api { sealer, config, clients, certificates, metrics, limits, warnings, uploads, backups }
    }

    /// A place among the documents on their way in; refused at once when there is none.
    async fn upload_permit(&self, caller: &Caller, headers: &HeaderMap) -> Result<UploadPermit<'_>, Problem> {
        let own = caller.admission().upload().map_err(|problem| problem.close_if_large(headers))?;
        match self.uploads.try_acquire() {
            Ok(ours) => Ok((ours, own)),
            Err(_) => {
                self.limits.slow_down_overload().await;
                let detail = "too many documents are on their way in, and this one was not taken; send it again \
                              after the pause";
                Err(Problem::new(Kind::Overloaded, detail).retry_after(1).close_if_large(headers))
            }
        }
    }

    /// Refuses a seal before its document comes when the writer could not take it anyway.
    async fn refuse_when_full(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.sealer.is_full() {
            self.limits.slow_down_overload().await;
            let refused = Problem::of_seal_error(SealError::Overloaded, &self.sealer);
            return Err(refused.close_if_large(headers));
        }
        Ok(())
    }
}

/// All routes. `access` has the authorisation matrix.
pub fn router(api: Shared) -> Router {
    Router::new()
        .route("/healthz", get(system::healthz))
        .route("/readyz", get(system::readyz))
        .route("/metrics", get(system::metrics))
        .route("/checkpoint", get(log::checkpoint))
        .route("/tile/{*path}", get(log::tile))
        .route("/v1/ca", get(system::ca))
        .route("/v1/ca.pem", get(system::ca))
        .route("/v1/status", get(system::status))
        .route("/v1/seals", post(seals::create).get(search::search))
        .route("/v1/seals/{id}", get(seals::read))
        .route("/v1/seals/{id}/seal-file", get(seals::read_file))
        .route("/v1/verify", post(verify::verify))
        .route("/v1/queue/{id}", get(queue::read))
        .route("/v1/lock", post(lock::lock))
        .route("/v1/unlock", post(lock::unlock))
        .route("/v1/epochs", post(epochs::rotate))
        .route("/v1/backups", post(backups::create))
        .route("/v1/erasures", post(erasures::erase))
        .route("/v1/self-tests", post(self_tests::run))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

async fn nothing_here() -> Problem {
    Problem::new(Kind::NotFound, "no route has this path; docs/api.md lists the routes")
}

async fn no_such_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "use one of the methods in the Allow header")
}

/// Answers one request.
pub async fn handle(
    mut router: Router,
    api: &Api,
    connection: Arc<Connection>,
    request: hyper::Request<hyper::body::Incoming>,
) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = if let Err(problem) = acceptable(api, &connection, &request) {
        axum::response::IntoResponse::into_response(problem)
    } else {
        let (parts, body) = request.into_parts();
        let (leftover, body) = Leftover::watch(&parts.headers, body);
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(connection);
        let response = match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        leftover.discard();
        response
    };
    finish(api, &method, uri.path(), response)
}

/// What is refused whatever the route.
fn acceptable<B>(api: &Api, connection: &Connection, request: &hyper::Request<B>) -> Result<(), Problem> {
    let headers = request.headers();
    if header_bytes(headers) > HEADER_BYTES_MAX {
        let detail = "the request headers are longer than 32768 bytes; send metadata in a form or as JSON";
        return Err(Problem::new(Kind::HeadersTooLarge, detail).and_close());
    }
    if let Some(name) = SINGLE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        let detail =
            format!("the header {name} is there more than once and has one reading only; send it once");
        return Err(Problem::invalid(detail).close_if_large(headers));
    }
    // `access` counts wrong credentials; where none is looked at, every request counts.
    let path = request.uri().path();
    let looked_at = path.starts_with("/v1/") || path == "/metrics";
    let shown = headers.contains_key(AUTHORIZATION) || connection.common_name.is_some();
    if !(looked_at && shown) {
        api.limits.addresses.anonymous(connection.peer).map_err(|problem| problem.close_if_large(headers))?;
    }
    Ok(())
}

fn finish(api: &Api, method: &axum::http::Method, path: &str, mut response: Response) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        api.metrics.problem(problem.kind());
        let kind = problem.kind();
        if (kind.status().is_server_error() || kind == Kind::RateLimited)
            && api.warnings.first(kind, Instant::now())
        {
            ::log::warn!("{method} {path}: {problem}");
        } else {
            ::log::debug!("{method} {path}: {problem}");
        }
        response = problem.render(path, response);
    }
    api.metrics.response(response.status());
    response
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}
