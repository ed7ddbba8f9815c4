//! A port that can be up, down or a black hole, and the HTTP behind it, with TLS before it or without.
//!
//! - Down refuses connections and keeps the port: a socket is bound to it and does not listen.
//! - A black hole takes connections and never answers.
//! - It closes when the last [`Gate`] of it is dropped. A change ends every connection; whoever ordered it hears when it is in force.

use crate::tls::{Front, Handshake};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// A body of whatever makes it.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// Answers a request.
pub type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;
/// How often, and after which pause, a port that is not free is tried again.
const AGAIN: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// What the network makes of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// It answers.
    #[default]
    Up,
    /// Connections are refused.
    Down,
    /// Connections are taken, and that is all.
    BlackHole,
}

/// A port.
#[derive(Clone)]
pub struct Gate {
    address: SocketAddr,
    orders: mpsc::Sender<(Transport, oneshot::Sender<()>)>,
    connections: Arc<AtomicU64>,
    handshake: watch::Sender<Handshake>,
}

/// What is behind a port.
#[derive(Clone)]
struct Behind {
    handler: Handler,
    front: Option<Arc<Front>>,
}

impl Gate {
    /// Opens it on the current runtime, up. Port 0 is any free one.
    pub fn open(address: SocketAddr, handler: Handler) -> Result<Self> {
        Self::open_behind(address, None, handler)
    }

    /// The same with TLS before it.
    pub fn open_behind(address: SocketAddr, front: Option<Arc<Front>>, handler: Handler) -> Result<Self> {
        let listener = bind(address)?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let (orders, received) = mpsc::channel(1);
        let connections = Arc::new(AtomicU64::new(0));
        let (handshake, shaken) = watch::channel(Handshake::Good);
        let behind = Behind { handler, front };
        tokio::spawn(keep(address, listener, received, behind, shaken, connections.clone()));
        Ok(Gate { address, orders, connections, handshake })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// What becomes of handshakes from now on, where there are any.
    pub fn shake(&self, handshake: Handshake) {
        self.handshake.send_replace(handshake);
    }

    /// Orders a change and waits for it.
    pub async fn set(&self, transport: Transport) -> Result<()> {
        let (done, heard) = oneshot::channel();
        self.orders.send((transport, done)).await.ok().context("the gate is gone")?;
        heard.await.context("the port could not be taken again")
    }
}

fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket)
}

/// Between closing a port and taking it again somebody else's connection may have begun at it.
async fn again<T>(mut take: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..AGAIN {
        if let Ok(taken) = take() {
            return Ok(taken);
        }
        tokio::time::sleep(PAUSE).await;
    }
    take()
}

async fn keep(
    address: SocketAddr,
    first: TcpListener,
    mut orders: mpsc::Receiver<(Transport, oneshot::Sender<()>)>,
    behind: Behind,
    handshake: watch::Receiver<Handshake>,
    connections: Arc<AtomicU64>,
) {
    let mut transport = Transport::Up;
    let mut listener = Some(first);
    // Taking the port anew may fail; whoever ordered it then hears nothing, and that is an error there.
    let mut tell: Option<oneshot::Sender<()>> = None;
    loop {
        let open = match transport {
            Transport::Down => None,
            Transport::Up | Transport::BlackHole => {
                let Ok(taken) = again(|| match listener.take() {
                    Some(listener) => Ok(listener),
                    None => Ok(bind(address)?.listen(BACKLOG)?),
                })
                .await
                else {
                    return;
                };
                Some(taken)
            }
        };
        let _kept = match open {
            Some(_) => None,
            None => match again(|| bind(address)).await {
                Ok(kept) => Some(kept),
                Err(_) => return,
            },
        };
        if let Some(tell) = tell.take() {
            let _nobody_waits = tell.send(());
        }
        let mut served = JoinSet::new();
        let mut held = Vec::new();
        let order = loop {
            let accepted = async {
                match &open {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => break order,
                Some(_ended) = served.join_next() => {}
                accepted = accepted => {
                    let Ok((stream, _)) = accepted else { continue };
                    connections.fetch_add(1, Relaxed);
                    if transport == Transport::BlackHole {
                        held.push(stream);
                        continue;
                    }
                    let (behind, handshake) = (behind.clone(), *handshake.borrow());
                    served.spawn(async move {
                        match &behind.front {
                            None => serve(stream, behind.handler).await,
                            Some(front) => {
                                if let Some(stream) = front.accept(stream, handshake).await {
                                    serve(stream, behind.handler).await;
                                }
                            }
                        }
                    });
                }
            }
        };
        let Some((next, done)) = order else { return };
        transport = next;
        tell = Some(done);
        served.shutdown().await;
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Handler) {
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _client_gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An answer of these bytes.
pub fn answer(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).boxed_unsync();
    let response = Response::builder().status(status).header("content-type", content_type).body(body);
    response.expect("every content type in this crate is a header value")
}

/// An answer of one line of text.
pub fn says(status: StatusCode, text: impl std::fmt::Display) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// The body of a request, when it is no longer than `most`.
pub async fn body_of(request: Request<Incoming>, most: usize) -> Option<Bytes> {
    let body = http_body_util::Limited::new(request.into_body(), most);
    Some(body.collect().await.ok()?.to_bytes())
}
