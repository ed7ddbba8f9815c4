//! `GET /v1/events`: what enters the log, as it enters, as server-sent events.
//!
//! The log itself is the buffer: an event's `id` is its log index, so a reader goes on with `Last-Event-ID` where it
//! stopped, over restarts of either side, without gaps and without doubles. One task reads new entries and hands them to
//! all streams through a ring of [`RING`] events; a stream that falls behind reads from the log until it has caught up.
//! Refuses to do: carry personal data or words for engineers; buffer for a reader that does not read; show a scanner
//! what others sealed.
//! Invariant: a stream sends each event of an index once, in order; it ends when the box stops, and within
//! [`CHECK_PERIOD`] of its client being revoked.

mod event;

use super::Shared;
use super::access::{Caller, Right};
use crate::driver::{Condition, Sealer};
use crate::problem::{Kind, Problem};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::Response;
use bulla_ledger::{ReadError, Reader};
use event::Event;
use futures_util::stream;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::{Instant, sleep_until};

/// Newest events kept for streams that are up to date.
const RING: usize = 1_024;
/// Most entries read at a time to catch up.
const CHUNK_ENTRIES: u64 = 2_048;
/// Bytes after which a piece of a stream is sent.
const PIECE_BYTES: usize = 32 << 10;
/// A line at least this often tells reader and network that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often a stream asks whether its client is still registered.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// How soon readers come back after a stream ended (milliseconds, `retry:`).
const RETRY_MILLIS: u32 = 2_000;

/// All event streams of the box.
pub struct Events {
    sealer: Sealer,
    places: Arc<Semaphore>,
    most: usize,
    /// Made with the first stream.
    ring: OnceLock<broadcast::Sender<Arc<Event>>>,
    stopping: watch::Sender<bool>,
}

impl Events {
    /// No stream yet, and never more than `most` at a time.
    pub fn new(sealer: Sealer, most: usize) -> Self {
        let places = Arc::new(Semaphore::new(most));
        Events { sealer, places, most, ring: OnceLock::new(), stopping: watch::Sender::new(false) }
    }

    /// Ends all streams: they would outlast any grace.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Streams there are now.
    pub fn open(&self) -> usize {
        self.most - self.places.available_permits()
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        let ring = self.ring.get_or_init(|| {
            let ring = broadcast::Sender::new(RING);
            // From here on everything new is seen: what is older, a stream reads from the log.
            let sizes = self.sealer.sizes();
            tokio::spawn(feed(self.sealer.clone(), sizes, ring.clone()));
            ring
        });
        ring.subscribe()
    }
}

/// Reads what is new, once for all streams.
async fn feed(sealer: Sealer, mut sizes: watch::Receiver<u64>, ring: broadcast::Sender<Arc<Event>>) {
    let mut next = *sizes.borrow();
    while sizes.changed().await.is_ok() {
        loop {
            let size = *sizes.borrow_and_update();
            // Nobody listens, or the ring would not hold it all: streams fetch from the log what they miss here.
            if ring.receiver_count() == 0 {
                next = size;
            }
            next = next.max(size.saturating_sub(RING as u64 / 2));
            if next >= size {
                break;
            }
            match read(sealer.reader(), next..size).await {
                Ok(events) => {
                    next += events.len() as u64;
                    for event in events {
                        // Only fails when the last listener has just gone.
                        let _ = ring.send(Arc::new(event));
                    }
                }
                Err(error) => {
                    log::warn!("new entries cannot be read for the event streams: {error}");
                    next = size;
                }
            }
        }
    }
}

/// Events of entries from the start of `range`, at least one and at most [`CHUNK_ENTRIES`].
async fn read(reader: &Reader, range: std::ops::Range<u64>) -> Result<Vec<Event>, ReadError> {
    let (reader, end) = (reader.clone(), range.end.min(range.start + CHUNK_ENTRIES));
    let work = move || {
        let mut events: Vec<Event> = Vec::new();
        for (index, row) in (range.start..end).zip(reader.entries(range.start..end)) {
            match row {
                Ok((index, bytes)) => events.push(Event::of_entry(index, &bytes)),
                // The rest stays readable: this one is told as what it is, and reading goes on behind it.
                Err(ReadError::Damaged(_)) => {
                    events.push(Event::unreadable(index));
                    break;
                }
                Err(error) if events.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(events)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(events) => events,
        // The box is stopping; nothing was read, and the stream ends by itself.
        Err(_) => Ok(Vec::new()),
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    from: Option<u64>,
}

/// `GET /v1/events`.
pub async fn events(
    State(api): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need(Right::ReadEvents)?;
    let size = api.sealer.reader().size();
    let next = begin(&uri, &headers, size)?;
    let permit = api.events.places.clone().try_acquire_owned().map_err(|_| {
        let detail = "all places for event streams are taken; come back after the pause, or close a stream";
        Problem::new(Kind::Overloaded, detail).retry_after(5)
    })?;
    let live = api.events.subscribe();
    let stream = EventStream {
        own: (!caller.has(Right::ReadForeignEvents)).then(|| caller.name().to_owned()),
        conditions: api.sealer.conditions(),
        stopping: api.events.stopping.subscribe(),
        condition: None,
        caller,
        api,
        next,
        behind: true,
        live,
        spoken: Instant::now(),
        checked: Instant::now(),
        _permit: permit,
    };
    let pieces = stream::unfold(stream, |mut stream| async move {
        let piece = stream.piece().await?;
        Some((Ok::<_, Infallible>(piece), stream))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Index of the first event to send.
fn begin(uri: &Uri, headers: &HeaderMap, size: u64) -> Result<u64, Problem> {
    let query = match uri.query() {
        None | Some("") => EventsQuery::default(),
        Some(_) => {
            let query: Result<Query<EventsQuery>, _> = Query::try_from_uri(uri);
            query.map_err(|error| Problem::invalid(format!("the query is not understood ({error})")))?.0
        }
    };
    let beyond = || {
        Problem::invalid(format!(
            "this log has {size} entries and none there; after a new log was begun, start with from=0"
        ))
    };
    let mut last = headers.get_all("last-event-id").iter();
    if let Some(value) = last.next() {
        let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let index: Option<u64> = text.and_then(|text| text.parse().ok());
        return match index {
            Some(index) if last.next().is_none() && index < size => Ok(index + 1),
            Some(_) => Err(beyond()),
            None => Err(Problem::invalid("Last-Event-ID is the id of an event of this stream, a number")),
        };
    }
    match query.from {
        Some(from) if from > size => Err(beyond()),
        Some(from) => Ok(from),
        None => Ok(size),
    }
}

/// One stream.
struct EventStream {
    api: Shared,
    caller: Caller,
    /// Only this client's seals, when it may not see others'.
    own: Option<String>,
    /// Index of the next event.
    next: u64,
    /// What the ring has next may not be what is next here.
    behind: bool,
    live: broadcast::Receiver<Arc<Event>>,
    conditions: watch::Receiver<Condition>,
    stopping: watch::Receiver<bool>,
    /// As the reader knows it.
    condition: Option<Condition>,
    spoken: Instant,
    checked: Instant,
    _permit: OwnedSemaphorePermit,
}

impl EventStream {
    /// The next piece of the stream; `None` ends it.
    async fn piece(&mut self) -> Option<String> {
        let mut piece = String::new();
        loop {
            if *self.stopping.borrow() || !self.still_registered() {
                return None;
            }
            if self.condition.is_none() {
                piece.push_str(&format!("retry: {RETRY_MILLIS}\n\n"));
            }
            self.tell_condition(&mut piece);
            if self.behind {
                self.catch_up(&mut piece).await?;
            }
            while !self.behind && piece.len() < PIECE_BYTES {
                match self.live.try_recv() {
                    Ok(event) => self.take(&event, &mut piece),
                    Err(broadcast::error::TryRecvError::Lagged(_)) => self.behind = true,
                    Err(_) => break,
                }
            }
            if piece.is_empty() && self.spoken.elapsed() >= HEARTBEAT {
                // An id without data moves the reader's position and shows it nothing.
                match self.next.checked_sub(1) {
                    Some(last) => piece.push_str(&format!(": alive\nid: {last}\n\n")),
                    None => piece.push_str(": alive\n\n"),
                }
            }
            if !piece.is_empty() {
                self.spoken = Instant::now();
                return Some(piece);
            }
            if self.behind {
                continue;
            }
            let wake = (self.checked + CHECK_PERIOD).min(self.spoken + HEARTBEAT);
            tokio::select! {
                _ = self.stopping.changed() => {}
                _ = self.conditions.changed() => {}
                event = self.live.recv() => match event {
                    Ok(event) => self.take(&event, &mut piece),
                    Err(_) => self.behind = true,
                },
                // Should the feeding task have missed something, the log has it.
                () = sleep_until(wake) => self.behind = self.live.is_empty(),
            }
        }
    }

    /// Whether the client is still who it was. A list that cannot be read ends the stream: nobody could say.
    fn still_registered(&mut self) -> bool {
        if self.checked.elapsed() < CHECK_PERIOD {
            return true;
        }
        self.checked = Instant::now();
        self.caller.is_current(&self.api)
    }

    fn tell_condition(&mut self, piece: &mut String) {
        let now = self.conditions.borrow_and_update().clone();
        if self.condition.as_ref() != Some(&now) {
            piece.push_str(&event::of_condition(&now));
            self.condition = Some(now);
        }
    }

    /// Takes one chunk from the log; `None` when it cannot be read.
    async fn catch_up(&mut self, piece: &mut String) -> Option<()> {
        let size = self.api.sealer.reader().size();
        if self.next >= size {
            self.behind = false;
            return Some(());
        }
        let events = match read(self.api.sealer.reader(), self.next..size).await {
            Ok(events) if !events.is_empty() => events,
            Ok(_) => return None,
            Err(error) => {
                log::warn!("an event stream ends, because the log cannot be read: {error}");
                return None;
            }
        };
        for event in events {
            self.take(&event, piece);
            if piece.len() >= PIECE_BYTES {
                break;
            }
        }
        Some(())
    }

    /// Adds an event if it is the next one and may be seen.
    fn take(&mut self, event: &Event, piece: &mut String) {
        match event.index.cmp(&self.next) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => self.behind = true,
            std::cmp::Ordering::Equal => {
                self.next += 1;
                if self.own.is_none() || self.own == event.client {
                    piece.push_str(&event.text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn at(uri: &'static str, last: Option<&'static str>, size: u64) -> Option<u64> {
        let name = HeaderName::from_static("last-event-id");
        let headers: HeaderMap =
            last.map(|value| (name, HeaderValue::from_static(value))).into_iter().collect();
        begin(&Uri::from_static(uri), &headers, size).ok()
    }

    #[test]
    fn a_stream_begins_now_or_where_the_reader_says() {
        assert_eq!(at("/v1/events", None, 7), Some(7));
        assert_eq!(at("/v1/events?from=0", None, 7), Some(0));
        assert_eq!(at("/v1/events?from=7", None, 7), Some(7));
        // A browser repeats the address it was given, with the header.
        assert_eq!(at("/v1/events?from=0", Some("6"), 7), Some(7));
        for (uri, last) in [
            ("/v1/events?from=8", None),
            ("/v1/events?from=-1", None),
            ("/v1/events?bogus=1", None),
            ("/v1/events", Some("7")),
            ("/v1/events", Some("+1")),
            ("/v1/events", Some("")),
            ("/v1/events", Some("99999999999999999999")),
        ] {
            assert_eq!(at(uri, last, 7), None, "{uri} {last:?}");
        }
    }
}
