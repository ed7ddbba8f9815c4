//! The claim page on the LAN: plain HTTP, one page to read, and only while `bulla-box enroll` waits.
//!
//! There is no key yet that a browser could believe, so the page claims no protection: nothing on it is secret, nothing can
//! be sent to it, and it says itself what counts more than it does. It has a thread of its own; whoever is slow, or many,
//! costs the enrolment nothing.
//! Refuses to do: answer anybody from outside of private networks, or under a name that is not this box's (a page of
//! another site could read it otherwise); read a body; keep a connection; wait longer than [`CONNECTION_MAX`].
//! Invariant: it changes nothing on the box, and is gone when the command ends.

use crate::config::{Config, LimitsConfig, is_private};
use crate::limits::Addresses;
use crate::problem::{Kind, Problem};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bulla_console::claim::{Claim, Progress, page};
use bulla_console::{CLAIM_PATHS, Language};
use bulla_formats::hash::Hash;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use qrcode::render::svg::Color;
use qrcode::{EcLevel, QrCode};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tower::ServiceExt as _;

/// Most connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Most of them from one address.
const ADDRESS_CONNECTIONS_MAX: usize = 8;
/// How long a connection may take, from its first byte to the last of the answer.
const CONNECTION_MAX: Duration = Duration::from_secs(20);
/// Most bytes of request headers.
const HEADERS_MAX: usize = 16 << 10;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Somebody who has looked within this time is told how it ended. Pages look every two seconds, five without scripts.
const LOOKING: Duration = Duration::from_secs(15);
/// How long the page stays for them.
const LAST_WORD: Duration = Duration::from_secs(12);

/// What the QR code of a request holds, on the page as at the terminal.
pub fn code_text(transcript: &Hash) -> String {
    format!("bulla-enrol:{transcript}")
}

/// The page, while it is served.
pub struct ClaimPage {
    address: SocketAddr,
    desk: Arc<Desk>,
    end: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// What requests are answered from.
struct Desk {
    claim: Claim,
    code: String,
    progress: watch::Sender<Progress>,
    looked: Mutex<Option<Instant>>,
    names: Vec<String>,
    addresses: Addresses,
    headers_within: Duration,
}

impl ClaimPage {
    /// Listens, and serves from now on.
    ///
    /// # Errors
    /// Nobody can listen at this address, or nothing be drawn or started.
    pub fn open(address: SocketAddr, claim: Claim, transcript: &Hash, config: &Config) -> io::Result<Self> {
        let code = QrCode::with_error_correction_level(code_text(transcript), EcLevel::M)
            .map_err(io::Error::other)?;
        let code = code
            .render()
            .min_dimensions(240, 240)
            .dark_color(Color("#000"))
            .light_color(Color("#fff"))
            .build();
        let limits =
            LimitsConfig { address_connections_max: ADDRESS_CONNECTIONS_MAX, ..config.limits.clone() };
        let desk = Arc::new(Desk {
            claim,
            code,
            progress: watch::Sender::new(Progress::Asking),
            looked: Mutex::new(None),
            names: config.identity.names.clone(),
            addresses: Addresses::new(&limits),
            headers_within: config.header_timeout().min(CONNECTION_MAX),
        });
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (end, ended) = watch::channel(false);
        let serving = serve(listener, desk.clone(), ended);
        let thread = std::thread::Builder::new()
            .name("claim-page".to_owned())
            .spawn(move || runtime.block_on(serving))?;
        Ok(ClaimPage { address, desk, end, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows how far it is.
    pub fn tell(&self, progress: Progress) {
        self.desk.progress.send_replace(progress);
    }

    /// Ends it; whoever was looking sees the last word first.
    pub fn close(self) {
        let looked = *self.desk.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if self.desk.progress.borrow().is_last() && looked.is_some_and(|at| at.elapsed() < LOOKING) {
            std::thread::sleep(LAST_WORD);
        }
        self.end.send_replace(true);
        // It has nothing left to lose.
        let _ended = self.thread.join();
    }
}

async fn serve(listener: tokio::net::TcpListener, desk: Arc<Desk>, mut ended: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = router(desk.clone());
    loop {
        let accepted = tokio::select! {
            // Also when the command has ended without a word.
            _ = ended.wait_for(|ended| *ended) => return,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) if is_private(peer) => {
                if let Ok(place) = desk.addresses.connect(peer) {
                    let answering = connection(stream, router.clone(), desk.clone());
                    tokio::spawn(async move {
                        // Whoever is slower than this has no use for the page either.
                        let _in_time = timeout(CONNECTION_MAX, answering).await;
                        drop((permit, place));
                    });
                }
            }
            Ok((_, peer, _)) => log::debug!("{peer} is of no private network, and was not answered"),
            Err(error) => {
                log::debug!("no connection can be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &tokio::net::TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip(), permit))
}

async fn connection(stream: TcpStream, router: Router, desk: Arc<Desk>) {
    let headers_within = desk.headers_within;
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, desk) = (router.clone(), desk.clone());
        async move { Ok::<_, Infallible>(answer(router, &desk, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_within)
        .keep_alive(false)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        log::debug!("claim page: {error}");
    }
}

async fn answer(router: Router, desk: &Desk, request: Request<Incoming>) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = if desk.is_named(request.headers()) {
        // A body, if there is one, is left where it is.
        router.oneshot(request.map(|_| Body::empty())).await.unwrap_or_else(|never| match never {})
    } else {
        Problem::new(
            Kind::NotFound,
            "this box has another name; open the address that `bulla-box enroll` printed",
        )
        .into_response()
    };
    if let Some(problem) = response.extensions().get::<Problem>().cloned() {
        response = problem.render(&path, response);
    }
    for (name, value) in FIXED {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// On every answer.
const FIXED: [(HeaderName, &str); 3] = [
    (CONTENT_SECURITY_POLICY, bulla_console::CONTENT_SECURITY_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

fn router(desk: Arc<Desk>) -> Router {
    let [own, german, english, code] = CLAIM_PATHS;
    Router::new()
        .route(own, get(preferred))
        .route(german, get(async |State(desk): State<Arc<Desk>>| desk.shown(Language::German)))
        .route(english, get(async |State(desk): State<Arc<Desk>>| desk.shown(Language::English)))
        .route(
            code,
            get(async |State(desk): State<Arc<Desk>>| text("image/svg+xml", "no-store", desk.code.clone())),
        )
        .route("/console/console.css", get(async |headers: HeaderMap| file("console.css", &headers)))
        .route("/console/mark.svg", get(async |headers: HeaderMap| file("mark.svg", &headers)))
        .route("/console/claim.js", get(async |headers: HeaderMap| file("claim.js", &headers)))
        .fallback(async || {
            Problem::new(Kind::NotFound, "the claim page has its own address and those of its two languages")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::MethodNotAllowed, "the claim page is for reading; nothing can be sent to it")
        })
        .with_state(desk)
}

async fn preferred(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = desk.shown(Language::preferred(accepted));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Language"));
    response
}

impl Desk {
    fn shown(&self, language: Language) -> Response {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let page = page(&self.claim, &self.progress.borrow(), language);
        text("text/html; charset=utf-8", "no-store", page)
    }

    /// Whether whoever asks knows this box by an address or a name of its own. A name of somebody else's that leads here
    /// would make the page readable for that somebody's scripts (DNS rebinding).
    fn is_named(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        bare.parse::<IpAddr>().is_ok() || self.names.iter().any(|name| name.eq_ignore_ascii_case(bare))
    }
}

fn text(kind: &'static str, keep: &'static str, text: String) -> Response {
    let mut response = (StatusCode::OK, text).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    response
}

fn file(name: &str, asked: &HeaderMap) -> Result<Response, Problem> {
    let file = bulla_console::file(name);
    let file = file.ok_or_else(|| Problem::new(Kind::NotFound, "the console has no such file"))?;
    let tag =
        HeaderValue::from_str(&file.tag).map_err(|_| Problem::new(Kind::Internal, "a tag is no header"))?;
    let known = asked.get_all(IF_NONE_MATCH).iter().any(|value| *value == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        text(file.media_type, "no-cache", file.text.clone())
    };
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}
