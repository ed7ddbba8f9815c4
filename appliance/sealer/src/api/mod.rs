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
mod leftover;
mod lock;
mod log;
mod queue;
mod receipt;
mod seals;
mod search;
mod system;
mod upload;
mod verify;

use crate::clients::ClientStore;
use crate::config::Config;
use crate::driver::Sealer;
use crate::problem::{Kind, Problem};
use crate::telemetry::HttpMetrics;
use crate::tls::Certificates;
use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use leftover::Leftover;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::Service as _;

/// Most bytes of request headers, names and values together. HTTP servers in front of this one have similar
/// limits; metadata that needs more goes into a form or into JSON.
const HEADER_BYTES_MAX: usize = 32 << 10;

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
    /// One permit per document on its way in.
    uploads: Semaphore,
    /// One backup at a time.
    backups: Arc<Semaphore>,
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
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
        let backups = Arc::new(Semaphore::new(1));
        Api { sealer, config, clients, certificates, metrics: HttpMetrics::default(), uploads, backups }
    }

    /// A place among the documents on their way in; refused at once when there is none.
    fn upload_permit(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.uploads.try_acquire().map_err(|_| {
            let detail = "too many documents are on their way in, and this one was not taken; send it again \
                          after the pause";
            Problem::new(Kind::Overloaded, detail).retry_after(1).and_close()
        })
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
    let response = if header_bytes(request.headers()) > HEADER_BYTES_MAX {
        let detail = "the request headers are longer than 32768 bytes; send metadata in a form or as JSON";
        axum::response::IntoResponse::into_response(Problem::new(Kind::HeadersTooLarge, detail).and_close())
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

fn finish(api: &Api, method: &axum::http::Method, path: &str, mut response: Response) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        api.metrics.problem(problem.kind());
        if problem.kind().status().is_server_error() {
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
