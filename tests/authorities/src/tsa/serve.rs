//! Requests over HTTP: counted, held to the quota, delayed, and answered as the switches say.

use super::knobs::{Answer, Counters, Knobs, Quota};
use super::signing::Signing;
use crate::gate::{Body, Gate, Handler, answer, body_of, says};
use crate::stamps::time_not_available;
use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Largest request; real ones have some sixty bytes.
const REQUEST_BYTES_MAX: usize = 16_384;
const REPLY: &str = "application/timestamp-reply";
const HUGE_BYTES: usize = 100_000_000;
const PIECE_BYTES: usize = 65_536;
const TRICKLE: Duration = Duration::from_millis(50);

pub(super) struct Service {
    signing: Signing,
    knobs: Mutex<Knobs>,
    window: Mutex<Window>,
    gate: OnceLock<Gate>,
    requests: AtomicU64,
    stamps: AtomicU64,
    beyond_quota: AtomicU64,
}

/// Where the quota stands.
#[derive(Default)]
struct Window {
    began: Option<Instant>,
    taken: u32,
    blocked_until: Option<Instant>,
}

impl Service {
    pub fn start(signing: Signing, address: SocketAddr) -> Result<Arc<Self>> {
        let service = Arc::new(Service {
            signing,
            knobs: Mutex::default(),
            window: Mutex::default(),
            gate: OnceLock::new(),
            requests: AtomicU64::new(0),
            stamps: AtomicU64::new(0),
            beyond_quota: AtomicU64::new(0),
        });
        let own = service.clone();
        let handler: Handler = Arc::new(move |request| Box::pin(own.clone().handle(request)));
        let gate = Gate::open(address, handler)?;
        service.gate.get_or_init(|| gate);
        Ok(service)
    }

    fn gate(&self) -> &Gate {
        self.gate.get().expect("it is set before the service is handed out")
    }

    pub fn address(&self) -> SocketAddr {
        self.gate().address()
    }

    pub async fn set(&self, knobs: Knobs) -> Result<()> {
        let (before, after) = (self.knobs().transport, knobs.transport);
        if self.knobs().quota != knobs.quota {
            *lock(&self.window) = Window::default();
        }
        *lock(&self.knobs) = knobs;
        if before != after { self.gate().set(after).await } else { Ok(()) }
    }

    pub fn knobs(&self) -> Knobs {
        lock(&self.knobs).clone()
    }

    pub fn counters(&self) -> Counters {
        Counters {
            connections: self.gate().connections(),
            requests: self.requests.load(Relaxed),
            stamps: self.stamps.load(Relaxed),
            beyond_quota: self.beyond_quota.load(Relaxed),
        }
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let knobs = self.knobs();
        let content_type = request.headers().get("content-type").map(|value| value.as_bytes().to_vec());
        if request.method() != Method::POST {
            return says(StatusCode::METHOD_NOT_ALLOWED, "time-stamp requests are posted");
        }
        if content_type.as_deref() != Some(b"application/timestamp-query") {
            return says(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a request is application/timestamp-query");
        }
        self.requests.fetch_add(1, Relaxed);
        if let Some(refusal) = knobs.quota.and_then(|quota| self.held_back(quota)) {
            self.beyond_quota.fetch_add(1, Relaxed);
            return refusal;
        }
        let Some(body) = body_of(request, REQUEST_BYTES_MAX).await else {
            return says(StatusCode::PAYLOAD_TOO_LARGE, "a request has some sixty bytes");
        };
        tokio::time::sleep(Duration::from_millis(knobs.delay_millis)).await;
        match knobs.answer {
            Answer::TimeNotAvailable => answer(StatusCode::OK, REPLY, time_not_available()),
            Answer::Unavailable => says(StatusCode::SERVICE_UNAVAILABLE, "maintenance"),
            Answer::CaptivePortal => answer(StatusCode::OK, "text/html", PORTAL),
            Answer::Redirect => {
                let mut redirect = says(StatusCode::FOUND, "log in first");
                let portal = hyper::header::HeaderValue::from_static("http://portal.example/login");
                redirect.headers_mut().insert("location", portal);
                redirect
            }
            Answer::Huge => {
                let piece = Bytes::from_static(&[0x30; PIECE_BYTES]);
                streamed(stream::iter(std::iter::repeat_n(piece, HUGE_BYTES / PIECE_BYTES)))
            }
            Answer::Stalled => {
                let beginning = stream::iter([Bytes::from_static(&[0x30, 0x82])]);
                streamed(beginning.chain(stream::pending()))
            }
            Answer::Trickle => match self.reply(body, &knobs).await {
                Ok(reply) => streamed(stream::unfold(reply.into_iter(), |mut bytes| async {
                    let byte = bytes.next()?;
                    tokio::time::sleep(TRICKLE).await;
                    Some((Bytes::copy_from_slice(&[byte]), bytes))
                })),
                Err(error) => says(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
            },
            _ => match self.reply(body, &knobs).await {
                Ok(reply) => answer(StatusCode::OK, REPLY, reply),
                Err(error) => says(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
            },
        }
    }

    async fn reply(self: &Arc<Self>, request: Bytes, knobs: &Knobs) -> Result<Vec<u8>> {
        let (service, answer, offset) = (self.clone(), knobs.answer, knobs.clock_offset_seconds);
        let made = tokio::task::spawn_blocking(move || service.signing.reply(&request, answer, offset));
        let reply = made.await??;
        self.stamps.fetch_add(1, Relaxed);
        Ok(reply)
    }

    fn held_back(&self, quota: Quota) -> Option<Response<Body>> {
        let (now, period) = (Instant::now(), Duration::from_millis(quota.period_millis));
        let mut window = lock(&self.window);
        if window.blocked_until.is_some_and(|until| now < until) {
            return Some(says(StatusCode::FORBIDDEN, "blocked"));
        }
        window.blocked_until = None;
        let began = window.began.filter(|began| now < *began + period).unwrap_or(now);
        if window.began != Some(began) {
            (window.began, window.taken) = (Some(began), 0);
        }
        window.taken += 1;
        if window.taken <= quota.requests {
            return None;
        }
        if quota.blocked_millis > 0 {
            window.blocked_until = Some(now + Duration::from_millis(quota.blocked_millis));
            return Some(says(StatusCode::FORBIDDEN, "blocked"));
        }
        let wait = (began + period).saturating_duration_since(now).as_millis().div_ceil(1000);
        let mut refusal = says(StatusCode::TOO_MANY_REQUESTS, "too many requests");
        refusal.headers_mut().insert("retry-after", (wait as u64).into());
        Some(refusal)
    }
}

/// A panic of another request leaves nothing half done in what these guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PORTAL: &str = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head>\
    <body><form>Please accept the terms of this network.</form></body></html>\n";

fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let response = Response::builder().header("content-type", REPLY);
    response.body(StreamBody::new(frames).boxed_unsync()).expect("a constant is a header value")
}

/// The port of the switches.
pub(super) fn switches(service: Arc<Service>) -> Handler {
    Arc::new(move |request| Box::pin(switch(service.clone(), request)))
}

async fn switch(service: Arc<Service>, request: Request<Incoming>) -> Response<Body> {
    let json = |value: serde_json::Result<Vec<u8>>| match value {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => says(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    match (request.method().as_str(), request.uri().path()) {
        ("GET", "/knobs") => json(serde_json::to_vec(&service.knobs())),
        ("GET", "/counters") => json(serde_json::to_vec(&service.counters())),
        ("PUT", "/knobs") => {
            let body = body_of(request, REQUEST_BYTES_MAX).await.unwrap_or_default();
            match serde_json::from_slice::<Knobs>(&body) {
                Err(error) => says(StatusCode::BAD_REQUEST, error),
                Ok(knobs) => match service.set(knobs).await {
                    Ok(()) => json(serde_json::to_vec(&service.knobs())),
                    Err(error) => says(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
                },
            }
        }
        _ => says(StatusCode::NOT_FOUND, "there are GET and PUT /knobs, and GET /counters"),
    }
}
