//! The listener: accepts, shakes hands, serves HTTP/1.1 and HTTP/2, and stops in order.
//!
//! Every wait for a client has a limit: handshake, request headers, pauses inside bodies (in `api::upload`),
//! HTTP/2 connections without a request, answers that are not read ([`UNREAD_MAX`]), connections in number and by
//! address (`crate::limits`). Refuses to do: plain HTTP; wait for slow clients longer than [`STOP_GRACE`] at a stop.
//! Invariant: a connection holds its permit until its last task is gone.

use crate::api::{self, Connection, Shared};
use crate::dial_out::Arrived;
use crate::limits::ConnectionPlace;
use crate::tls;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ProtocolVersion, ServerConfig};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long requests may take to finish once the box stops.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// Flow-control window of one HTTP/2 stream: the default of 64 KiB halves upload speed on a LAN.
const STREAM_WINDOW: u32 = 1 << 20;
/// Flow-control window of one HTTP/2 connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Most HTTP/2 requests at a time on one connection.
const STREAMS_MAX: u32 = 128;
/// Most bytes of HTTP/2 request headers before they are refused without words; `api` refuses less with words.
const HTTP2_HEADERS: u32 = 64 << 10;
/// Read buffer of one HTTP/1.1 connection; also bounds the size of request headers.
const HTTP1_BUFFER: usize = 64 << 10;
/// Longest time that sent bytes stay unacknowledged, or the client's window shut, before the kernel ends the
/// connection (`TCP_USER_TIMEOUT`): a client that does not read its answers must not keep them in memory.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// How often what was held back of warnings is looked at.
const WARNINGS_PERIOD: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// One warning about it in this time.
const ACCEPT_WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Accepts until `stop` says so, then waits for the requests that are running.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Shared,
    mut dialled: mpsc::Receiver<Arrived>,
    mut stop: watch::Receiver<bool>,
) {
    let (most, header_timeout) = (api.config.limits.connections_max, api.config.header_timeout());
    let permits = Arc::new(Semaphore::new(most));
    let http2_idle = Duration::from_secs(api.config.limits.http2_idle_seconds);
    let (acceptor, router) = (TlsAcceptor::from(tls), api::router(api.clone()));
    let door = Door { acceptor, router, api, header_timeout, http2_idle };
    let door = Arc::new(door);
    let warnings = tokio::spawn(summaries(door.api.clone()));
    let samples = tokio::spawn(api::sample(door.api.clone()));
    let mut last_warned: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &permits) => accepted,
            Some(Arrived { stream, peer }) = dialled.recv() => {
                // A hub whose connection ends here tries again.
                if let Ok(permit) = permits.clone().try_acquire_owned()
                    && let Ok(place) = door.api.limits.addresses.connect(peer)
                {
                    tokio::spawn(door.clone().connection(stream, peer, (permit, place), stop.clone()));
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                // Receipts are small; waiting for more to send would add 40 ms to each.
                let _ = stream.set_nodelay(true);
                let unread = u32::try_from(UNREAD_MAX.as_millis()).unwrap_or(u32::MAX);
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, unread);
                // Refused before the handshake, which is what costs.
                if let Ok(place) = door.api.limits.addresses.connect(peer) {
                    tokio::spawn(door.clone().connection(stream, peer, (permit, place), stop.clone()));
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: connections must end before others can begin.
                if last_warned.is_none_or(|at| at.elapsed() > ACCEPT_WARNING_PERIOD) {
                    log::warn!("no connection can be accepted ({error}); trying again until one can");
                    last_warned = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    warnings.abort();
    samples.abort();
    // They would last as long as the box does.
    door.api.events.stop();
    let all = u32::try_from(most).unwrap_or(u32::MAX);
    if timeout(STOP_GRACE, permits.acquire_many(all)).await.is_err() {
        log::warn!("some clients did not finish within {} seconds and are cut off", STOP_GRACE.as_secs());
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip(), permit))
}

/// Returns once the box stops. The guard of the watch must not live across an await.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Writes the number of warnings held back.
async fn summaries(api: Shared) {
    loop {
        tokio::time::sleep(WARNINGS_PERIOD).await;
        for (kind, held) in api.warnings.flush(Instant::now()) {
            log::warn!("{held} more answers were {}; this is said once a minute", kind.slug());
        }
    }
}

/// What a connection comes over: TCP, or one that waited at a hub.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

struct Door {
    acceptor: TlsAcceptor,
    router: Router,
    api: Shared,
    header_timeout: Duration,
    http2_idle: Duration,
}

/// Requests of one connection that are being answered, and since when they are that many.
#[derive(Debug, Clone, Copy)]
struct Activity {
    requests: usize,
    since: Instant,
}

/// A request from its headers to the last byte handed to the connection; event streams last.
struct Running(Arc<watch::Sender<Activity>>);

impl Running {
    fn begin(all: &Arc<watch::Sender<Activity>>) -> Self {
        all.send_modify(|now| *now = Activity { requests: now.requests + 1, since: Instant::now() });
        Running(all.clone())
    }

    /// Keeps the request among the running ones until its answer has been taken.
    fn until_sent(self, response: Response) -> hyper::Response<Sending> {
        response.map(|body| Sending { body, _running: self })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|now| *now = Activity { requests: now.requests - 1, since: Instant::now() });
    }
}

struct Sending {
    body: Body,
    _running: Running,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns once nothing has been asked for so long.
async fn nothing_asked(activity: &mut watch::Receiver<Activity>, so_long: Duration) {
    loop {
        let now = *activity.borrow_and_update();
        if now.requests == 0 {
            let left = so_long.saturating_sub(now.since.elapsed());
            match timeout(left, activity.changed()).await {
                Ok(Ok(())) => {}
                // The time is over; or the service is gone, and the connection with it.
                Err(_) | Ok(Err(_)) => return,
            }
        } else if activity.changed().await.is_err() {
            return;
        }
    }
}

impl Door {
    async fn connection<S: Stream>(
        self: Arc<Self>,
        stream: S,
        peer: IpAddr,
        places: (OwnedSemaphorePermit, ConnectionPlace),
        stop: watch::Receiver<bool>,
    ) {
        let metrics = &self.api.metrics;
        metrics.connections.fetch_add(1, Relaxed);
        match timeout(self.header_timeout, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                metrics.connections_open.fetch_add(1, Relaxed);
                self.http(stream, peer, stop).await;
                metrics.connections_open.fetch_sub(1, Relaxed);
            }
            Ok(Err(error)) => {
                metrics.handshakes_failed.fetch_add(1, Relaxed);
                log::debug!("TLS handshake: {error}");
            }
            Err(_) => {
                metrics.handshakes_failed.fetch_add(1, Relaxed);
                log::debug!("TLS handshake: no answer in time");
            }
        }
        drop(places);
    }

    async fn http<S: Stream>(
        self: &Arc<Self>,
        stream: TlsStream<S>,
        peer: IpAddr,
        mut stop: watch::Receiver<bool>,
    ) {
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        let connection = Arc::new(Connection {
            peer,
            transport: transport(http2, session.protocol_version()),
            common_name: session
                .peer_certificates()
                .and_then(|chain| self.api.certificates.client_name(chain)),
            client_spki: session
                .peer_certificates()
                .and_then(|chain| chain.first())
                .and_then(tls::spki_sha256),
        });
        let door = self.clone();
        let (running, mut idle) = watch::channel(Activity { requests: 0, since: Instant::now() });
        let running = Arc::new(running);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (door, connection, running) = (door.clone(), connection.clone(), Running::begin(&running));
            async move {
                let router = door.router.clone();
                let response = api::handle(router, &door.api, connection, request).await;
                Ok::<_, Infallible>(running.until_sent(response))
            }
        });
        let io = TokioIo::new(stream);
        // ALPN has decided; looking for an HTTP/2 preface would be one more wait without a limit.
        let ended = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HTTP2_HEADERS)
                .keep_alive_interval(self.header_timeout)
                .keep_alive_timeout(self.header_timeout);
            let mut http = std::pin::pin!(builder.serve_connection(io, service));
            tokio::select! {
                ended = http.as_mut() => ended,
                () = stopped(&mut stop) => {
                    http.as_mut().graceful_shutdown();
                    http.await
                }
                () = nothing_asked(&mut idle, self.http2_idle) => {
                    http.as_mut().graceful_shutdown();
                    // It may have begun a request in the meantime, or half of one.
                    timeout(self.header_timeout, http).await.unwrap_or(Ok(()))
                }
            }
        } else {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(self.header_timeout)
                .max_buf_size(HTTP1_BUFFER);
            let mut http = std::pin::pin!(builder.serve_connection(io, service));
            tokio::select! {
                ended = http.as_mut() => ended,
                () = stopped(&mut stop) => {
                    http.as_mut().graceful_shutdown();
                    http.await
                }
            }
        };
        if let Err(error) = ended {
            log::debug!("connection: {error}");
        }
    }
}

/// How the document travelled, as seals name it.
fn transport(http2: bool, version: Option<ProtocolVersion>) -> &'static str {
    match (http2, version) {
        (false, Some(ProtocolVersion::TLSv1_3)) => "https/1.1 tls1.3",
        (false, _) => "https/1.1 tls1.2",
        (true, Some(ProtocolVersion::TLSv1_3)) => "https/2 tls1.3",
        (true, _) => "https/2 tls1.2",
    }
}
