//! What is left of a request's body once its answer is ready: read on for a moment and thrown away.
//!
//! A server that answers while the client still sends and then resets the stream or closes the connection loses the
//! answer: many clients never see it. A refused scanner shall see why. So the answer goes out first, and what still
//! comes is read beside it; a client that listens while it sends stops, one that does not has the limits below.
//! Refuses to do: read on without limit, or for clients that asked first whether to send (`Expect`).

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Most bytes read and thrown away.
const BYTES_MAX: usize = 4 << 20;
/// Longest time spent on it.
const TIME_MAX: Duration = Duration::from_secs(2);

type Slot = Arc<Mutex<Option<Incoming>>>;

/// Gets an unfinished body back when the handler drops it.
pub struct Leftover(Option<Slot>);

impl Leftover {
    /// Splits a request's body into the one for the handler and what may come back of it.
    pub fn watch(headers: &HeaderMap, body: Incoming) -> (Self, Body) {
        if body.is_end_stream() || headers.contains_key(EXPECT) {
            return (Leftover(None), Body::new(body));
        }
        let slot = Slot::default();
        let body = Watched { body: Some(body), slot: slot.clone(), done: false };
        (Leftover(Some(slot)), Body::new(body))
    }

    /// Has what is left read in the background, within the limits, so that the answer need not wait for it.
    pub fn discard(self) {
        let slot = self.0.and_then(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(mut body) = slot else { return };
        tokio::spawn(async move {
            let read = async {
                let mut seen = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    seen += frame.data_ref().map_or(0, Bytes::len);
                    if seen > BYTES_MAX {
                        break;
                    }
                }
            };
            // A client that is slower than this may not get to see the answer.
            let _ = tokio::time::timeout(TIME_MAX, read).await;
        });
    }
}

struct Watched {
    body: Option<Incoming>,
    slot: Slot,
    /// At its end, or broken: nothing more can come.
    done: bool,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.done = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.done && !self.is_end_stream() {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
        }
    }
}
