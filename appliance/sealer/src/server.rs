//! The listener: accepts, shakes hands, serves HTTP/1.1 and HTTP/2, and stops in order.
//!
//! Every wait for a client has a limit: handshake, request headers, pauses inside bodies (in `api::upload`),
//! connections in number. Refuses to do: plain HTTP; wait for slow clients longer than [`STOP_GRACE`] at a stop.
//! Invariant: a connection holds its permit until its last task is gone.

use crate::api::{self, Connection, Shared};
use crate::tls;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ProtocolVersion, ServerConfig};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
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

/// Accepts until `stop` says so, then waits for the requests that are running.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Shared,
    mut stop: watch::Receiver<bool>,
) {
    let (most, header_timeout) = (api.config.limits.connections_max, api.config.header_timeout());
    let permits = Arc::new(Semaphore::new(most));
    let door =
        Door { acceptor: TlsAcceptor::from(tls), router: api::router(api.clone()), api, header_timeout };
    let door = Arc::new(door);
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                tokio::spawn(door.clone().connection(stream, permit, stop.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: connections must end before others can begin.
                log::warn!("no connection can be accepted ({error}); trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(most).unwrap_or(u32::MAX);
    if timeout(STOP_GRACE, permits.acquire_many(all)).await.is_err() {
        log::warn!("some clients did not finish within {} seconds and are cut off", STOP_GRACE.as_secs());
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Returns once the box stops. The guard of the watch must not live across an await.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Door {
    acceptor: TlsAcceptor,
    router: Router,
    api: Shared,
    header_timeout: Duration,
}

impl Door {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
        stop: watch::Receiver<bool>,
    ) {
        let metrics = &self.api.metrics;
        metrics.connections.fetch_add(1, Relaxed);
        // Receipts are small; waiting for more to send would add 40 ms to each.
        let _ = stream.set_nodelay(true);
        match timeout(self.header_timeout, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                metrics.connections_open.fetch_add(1, Relaxed);
                self.http(stream, stop).await;
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
        drop(permit);
    }

    async fn http(self: &Arc<Self>, stream: TlsStream<TcpStream>, mut stop: watch::Receiver<bool>) {
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        let connection = Arc::new(Connection {
            transport: transport(http2, session.protocol_version()),
            common_name: session
                .peer_certificates()
                .and_then(|chain| chain.first())
                .and_then(|certificate| tls::common_name(certificate))
                .map(Arc::from),
        });
        let door = self.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (door, connection) = (door.clone(), connection.clone());
            async move {
                let router = door.router.clone();
                Ok::<_, Infallible>(api::handle(router, &door.api, connection, request).await)
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
