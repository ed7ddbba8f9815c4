//! Requests over HTTP: counted, held to the quota, delayed, and answered as the switches say.

use super::knobs::{Answer, Counters, CrlAnswer, Knobs};
use super::shelf::Shelf;
use super::signing::Signing;
use crate::faults::{Window, huge, lock, portal, redirect, stalled, trickle, unavailable};
use crate::gate::{Body, Gate, Handler, answer, body_of, says};
use crate::stamps::time_not_available;
use crate::tls::Front;
use anyhow::Result;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Largest request; real ones have some sixty bytes.
const REQUEST_BYTES_MAX: usize = 16_384;
const REPLY: &str = "application/timestamp-reply";

pub(super) struct Service {
    signing: Signing,
    knobs: Mutex<Knobs>,
    window: Window,
    gate: OnceLock<Gate>,
    shelf: Option<Shelf>,
    crls: AtomicU64,
    requests: AtomicU64,
    stamps: AtomicU64,
    beyond_quota: AtomicU64,
}

impl Service {
    pub fn start(
        signing: Signing,
        address: SocketAddr,
        front: Option<Arc<Front>>,
        shelf: Option<Shelf>,
    ) -> Result<Arc<Self>> {
        let service = Arc::new(Service {
            signing,
            knobs: Mutex::default(),
            window: Window::default(),
            gate: OnceLock::new(),
            shelf,
            crls: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            stamps: AtomicU64::new(0),
            beyond_quota: AtomicU64::new(0),
        });
        let own = service.clone();
        let handler: Handler = Arc::new(move |request| Box::pin(own.clone().handle(request)));
        let gate = Gate::open_behind(address, front, handler)?;
        service.gate.get_or_init(|| gate);
        if let Some(shelf) = &service.shelf {
            shelf.of(&service);
        }
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
            self.window.reset();
        }
        self.gate().shake(knobs.handshake);
        if let Some(shelf) = &self.shelf {
            shelf.reachable(knobs.crl != CrlAnswer::Unreachable).await?;
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
            crls: self.crls.load(Relaxed),
        }
    }

    pub fn crl_url(&self) -> Option<String> {
        self.shelf.as_ref().map(Shelf::url)
    }

    /// A CRL, or what the switches make of it.
    pub async fn crl(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        const CRL: &str = "application/pkix-crl";
        self.crls.fetch_add(1, Relaxed);
        if request.method() != Method::GET {
            return says(StatusCode::METHOD_NOT_ALLOWED, "CRLs are there to be read");
        }
        let how = self.knobs().crl;
        match how {
            CrlAnswer::Missing => return says(StatusCode::NOT_FOUND, "no such CRL"),
            CrlAnswer::CaptivePortal => return portal(),
            CrlAnswer::Stalled => return stalled(CRL),
            CrlAnswer::Giant => return huge(CRL),
            _ => {}
        }
        let name = request.uri().path().trim_start_matches('/').to_owned();
        match tokio::task::spawn_blocking(move || self.signing.crl(&name, how)).await {
            Ok(Ok(Some(crl))) => answer(StatusCode::OK, CRL, crl),
            Ok(Ok(None)) => says(StatusCode::NOT_FOUND, "no such CRL"),
            Ok(Err(error)) => says(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
            Err(error) => says(StatusCode::INTERNAL_SERVER_ERROR, error),
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
        if let Some(refusal) = knobs.quota.and_then(|quota| self.window.take(quota)) {
            self.beyond_quota.fetch_add(1, Relaxed);
            return refusal;
        }
        let Some(body) = body_of(request, REQUEST_BYTES_MAX).await else {
            return says(StatusCode::PAYLOAD_TOO_LARGE, "a request has some sixty bytes");
        };
        tokio::time::sleep(Duration::from_millis(knobs.delay_millis)).await;
        match knobs.answer {
            Answer::TimeNotAvailable => answer(StatusCode::OK, REPLY, time_not_available()),
            Answer::Unavailable => unavailable(),
            Answer::CaptivePortal => portal(),
            Answer::Redirect => redirect(),
            Answer::Huge => huge(REPLY),
            Answer::Stalled => stalled(REPLY),
            Answer::Trickle => match self.reply(body, &knobs).await {
                Ok(reply) => trickle(REPLY, reply),
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
