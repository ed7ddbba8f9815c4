//! The HTTP API: routes, and what every request passes on its way in and out.
//!
//! Refuses to do: decide anything about seals (that is the driver's), or answer with an error that is not a
//! problem document. `docs/api.md` describes the API to those who use it.
//! Invariant: every answer leaves through [`handle`], which counts it and renders problems.

mod access;
mod alerts;
mod anchor_metrics;
mod backups;
mod bulk;
mod certificate;
mod console;
mod content_digest;
mod dav;
pub mod description;
mod epochs;
mod erasures;
mod events;
pub mod fuzzing;
mod history;
mod leftover;
mod lock;
mod log;
mod medium;
mod openapi;
mod outages;
mod paperless;
mod peers;
mod queue;
pub mod receipt;
mod reconciled;
mod rosters;
mod seals;
mod search;
mod self_tests;
mod session;
mod system;
mod time;
mod tsa;
mod upload;
mod verifier;
mod verify;

use crate::alerts::Alerts;
use crate::clients::ClientStore;
use crate::config::Config;
use crate::dial_out::DialOut;
use crate::driver::{SealError, Sealer};
use crate::ingest::Ingest;
use crate::limits::{Limits, Warnings};
use crate::people::PeopleStore;
use crate::people::attempts::Attempts;
use crate::people::password::Passwords;
use crate::people::sessions::Sessions;
use crate::problem::{Kind, Problem};
use crate::telemetry::HttpMetrics;
use crate::tls::Certificates;
use access::Caller;
use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use axum::response::Response;
use leftover::Leftover;
use openapi::{Routes, operations};
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
    /// People who use the console.
    pub people: PeopleStore,
    /// Those who are logged in.
    pub sessions: Sessions,
    /// How often passwords may be tried.
    pub attempts: Attempts,
    /// Checks them.
    pub passwords: Passwords,
    /// What charts are drawn from.
    pub history: history::History,
    /// The listener's certificates; the CA is public.
    pub certificates: Arc<Certificates>,
    /// What is counted.
    pub metrics: HttpMetrics,
    /// What one client and one address may ask.
    pub limits: Limits,
    /// What has been warned of.
    pub warnings: Warnings,
    /// Folders whose files are sealed.
    pub ingest: Ingest,
    /// Who is told when something is the matter.
    pub alerts: Alerts,
    /// The hub that is dialled.
    pub dial_out: Arc<DialOut>,
    /// What was posted as to paperless-ngx, and what to tell of it.
    pub posted: paperless::Posted,
    /// Event streams.
    pub events: events::Events,
    /// Time stamps.
    pub tsa: tsa::Tsa,
    /// Pages of the reconciled view.
    pub views: reconciled::Views,
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
    /// SHA-256 of the SubjectPublicKeyInfo of the certificate that was shown, whoever vouches for it: it may be a hub's.
    pub client_spki: Option<[u8; 32]>,
}

/// Shared by all connections.
pub type Shared = Arc<Api>;

impl Api {
    /// Puts together what the handlers share.
    pub fn new(
        sealer: Sealer,
        config: Config,
        certificates: Arc<Certificates>,
        dial_out: Arc<DialOut>,
    ) -> Self {
        let clients = ClientStore::new(&config.state_dir);
        let uploads = Semaphore::new(config.limits.uploads_max);
        let (backups, metrics) = (Arc::new(Semaphore::new(1)), HttpMetrics::default());
        let (ingest, alerts) = (Ingest::new(&config.ingest.folder), Alerts::new(&config.alerts));
        let (limits, warnings) = (Limits::new(&config.limits), Warnings::default());
        let events = events::Events::new(sealer.clone(), config.limits.event_streams_max);
        let tsa = tsa::Tsa::new(&config.tsa);
        let people = PeopleStore::new(&config.state_dir);
        let sessions = Sessions::new(config.console.idle(), config.console.longest());
        Api {
            sealer,
            config,
            clients,
            people,
            sessions,
            attempts: Attempts::default(),
            passwords: Passwords::default(),
            history: history::History::default(),
            certificates,
            metrics,
            limits,
            warnings,
            ingest,
            alerts,
            dial_out,
            posted: paperless::Posted::default(),
            events,
            tsa,
            views: reconciled::Views::default(),
            uploads,
            backups,
        }
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

/// All routes, each with its description. `access` has the authorisation matrix.
fn routes() -> Routes {
    Routes::new()
        .get("/healthz", system::healthz, operations::system::healthz())
        .get("/readyz", system::readyz, operations::system::readyz())
        .get("/metrics", system::metrics, operations::system::metrics())
        .get("/openapi.json", openapi::serve, operations::system::openapi())
        .get("/checkpoint", log::checkpoint, operations::log::checkpoint())
        .get("/tile/{*path}", log::tile, operations::log::tile())
        .get("/mirrors/{directory}/checkpoint", peers::checkpoint, operations::peers::checkpoint())
        .get("/mirrors/{directory}/tile/{*path}", peers::tile, operations::peers::tile())
        .get("/mirrors/{directory}/seals/{index}", peers::seal_file, operations::peers::seal_file())
        .get("/v1/mirrors", peers::mirrors, operations::peers::mirrors())
        .get("/v1/reconciled", reconciled::reconciled, operations::reconciled::reconciled())
        .get("/verify", verifier::page, operations::verify::page())
        .get("/", console::home, operations::console::home())
        .get("/console/{file}", console::file, operations::console::file())
        .post("/v1/session", session::begin, operations::console::begin())
        .get("/v1/session", session::read, operations::console::read())
        .post("/v1/session/password", session::choose, operations::console::choose())
        .post("/v1/session/end", session::end, operations::console::end())
        .get("/v1/history", history::history, operations::console::history())
        .get("/v1/seals/{id}/code", certificate::code, operations::console::code())
        .get("/v1/ca", system::ca, operations::system::ca("ca"))
        .get("/v1/ca.pem", system::ca, operations::system::ca("caFile"))
        .get("/v1/status", system::status, operations::system::status())
        .get("/v1/events", events::events, operations::log::events())
        .post("/v1/seals", seals::create, operations::seals::create())
        .get("/v1/seals", search::search, operations::seals::search())
        .get("/v1/seals/{id}", seals::read, operations::seals::read())
        .get("/v1/seals/{id}/seal-file", seals::read_file, operations::seals::read_file())
        .post("/v1/verify", verify::verify, operations::verify::verify())
        .post("/v1/verify/bulk", bulk::verify, operations::verify::bulk())
        .post("/v1/epochs", epochs::rotate, operations::system::rotate())
        .post("/v1/backups", backups::create, operations::system::backup())
        .post("/v1/erasures", erasures::erase, operations::acts::erase())
        .post("/v1/self-tests", self_tests::run, operations::acts::self_test())
        .post("/v1/lock", lock::lock, operations::acts::lock())
        .post("/v1/unlock", lock::unlock, operations::acts::unlock())
        .get("/v1/queue/{id}", queue::read, operations::seals::queued())
        .post("/v1/seals/{id}/anchor", outages::expedite, operations::outages::expedite())
        .get("/v1/manifests", outages::manifests, operations::outages::manifests())
        .get("/v1/manifests/{index}", outages::manifest, operations::outages::manifest())
        .post("/v1/drills", outages::drill, operations::outages::drill())
        .post("/v1/drills/stop", outages::stop, operations::outages::stop())
        .post("/v1/leases", outages::lease, operations::outages::lease())
        .post(paperless::POST, paperless::post, operations::drops::post())
        .get(paperless::TASKS, paperless::tasks, operations::drops::tasks())
        .post("/tsa", tsa::stamp, operations::tsa::stamp())
        .get("/tsa/certificate", tsa::certificate, operations::tsa::certificate())
        .post("/v1/roster", rosters::take, operations::peers::roster())
}

/// The router of all routes.
pub fn router(api: Shared) -> Router {
    let (router, _) = routes().into_parts();
    router
        .merge(dav::router())
        .fallback(openapi::nothing_here)
        .method_not_allowed_fallback(openapi::no_such_method)
        .with_state(api)
}

/// The OpenAPI document.
pub fn openapi() -> &'static str {
    openapi::text()
}

/// Takes the samples that charts are drawn from, for as long as the box runs.
pub async fn sample(api: Shared) {
    history::sample(api).await;
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
    let looked_at = ["/v1/", "/metrics", "/checkpoint", "/tile/", "/dav/", "/api/"]
        .iter()
        .any(|start| path.starts_with(start))
        || path == "/tsa";
    let shown = headers.contains_key(AUTHORIZATION)
        || connection.common_name.is_some()
        || (session::is_claimed(headers) && !session::is_open_to_all(path));
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
