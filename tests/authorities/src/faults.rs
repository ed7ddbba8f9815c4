//! What the world puts between a client and an authority, whatever the authority is: quotas, portals, endless answers.

use crate::gate::{Body, answer, says};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const HUGE_BYTES: usize = 100_000_000;
const PIECE_BYTES: usize = 65_536;
const TRICKLE: Duration = Duration::from_millis(50);
const PORTAL: &str = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head>\
    <body><form>Please accept the terms of this network.</form></body></html>\n";

/// How much one may ask, and what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Quota {
    /// Requests in one period.
    pub requests: u32,
    /// How long a period is; it begins with a request.
    pub period_millis: u64,
    /// How long whoever asks beyond it gets HTTP 403. 0: HTTP 429 with `Retry-After` until the period ends.
    pub blocked_millis: u64,
}

/// Where a quota stands.
#[derive(Default)]
pub struct Window(Mutex<State>);

#[derive(Default)]
struct State {
    began: Option<Instant>,
    taken: u32,
    blocked_until: Option<Instant>,
}

impl Window {
    /// Begins anew.
    pub fn reset(&self) {
        *lock(&self.0) = State::default();
    }

    /// Counts a request; the answer to it when it goes beyond the quota.
    pub fn take(&self, quota: Quota) -> Option<Response<Body>> {
        let (now, period) = (Instant::now(), Duration::from_millis(quota.period_millis));
        let mut state = lock(&self.0);
        if state.blocked_until.is_some_and(|until| now < until) {
            return Some(says(StatusCode::FORBIDDEN, "blocked"));
        }
        state.blocked_until = None;
        let began = state.began.filter(|began| now < *began + period).unwrap_or(now);
        if state.began != Some(began) {
            (state.began, state.taken) = (Some(began), 0);
        }
        state.taken += 1;
        if state.taken <= quota.requests {
            return None;
        }
        if quota.blocked_millis > 0 {
            state.blocked_until = Some(now + Duration::from_millis(quota.blocked_millis));
            return Some(says(StatusCode::FORBIDDEN, "blocked"));
        }
        let wait = (began + period).saturating_duration_since(now).as_millis().div_ceil(1000);
        let mut refusal = says(StatusCode::TOO_MANY_REQUESTS, "too many requests");
        refusal.headers_mut().insert("retry-after", (wait as u64).into());
        Some(refusal)
    }
}

/// A panic of another request leaves nothing half done in what these guard.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// HTTP 200, and a page of the network's owner.
pub fn portal() -> Response<Body> {
    answer(StatusCode::OK, "text/html", PORTAL)
}

/// HTTP 302 to such a page.
pub fn redirect() -> Response<Body> {
    let mut redirect = says(StatusCode::FOUND, "log in first");
    let portal = hyper::header::HeaderValue::from_static("http://portal.example/login");
    redirect.headers_mut().insert("location", portal);
    redirect
}

/// HTTP 503.
pub fn unavailable() -> Response<Body> {
    says(StatusCode::SERVICE_UNAVAILABLE, "maintenance")
}

/// A hundred million bytes.
pub fn huge(content_type: &str) -> Response<Body> {
    let piece = Bytes::from_static(&[0x30; PIECE_BYTES]);
    streamed(content_type, stream::iter(std::iter::repeat_n(piece, HUGE_BYTES / PIECE_BYTES)))
}

/// Headers, a few bytes, then nothing.
pub fn stalled(content_type: &str) -> Response<Body> {
    let beginning = stream::iter([Bytes::from_static(&[0x30, 0x82])]);
    streamed(content_type, beginning.chain(stream::pending()))
}

/// These bytes, one every 50 ms.
pub fn trickle(content_type: &str, bytes: Vec<u8>) -> Response<Body> {
    let pieces = stream::unfold(bytes.into_iter(), |mut bytes| async {
        let byte = bytes.next()?;
        tokio::time::sleep(TRICKLE).await;
        Some((Bytes::copy_from_slice(&[byte]), bytes))
    });
    streamed(content_type, pieces)
}

fn streamed(content_type: &str, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let response = Response::builder().header("content-type", content_type);
    response
        .body(StreamBody::new(frames).boxed_unsync())
        .expect("every content type in this crate is a header value")
}
