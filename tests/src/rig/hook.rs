//! A web server that takes alerts, over TLS, with every way of not taking them a switch.
//!
//! It runs inside the test and ends with it. What it was sent is kept with its headers, taken or not.
//! Refuses to do: judge what it is sent; a test does.

use anyhow::{Context, Result, bail};
use bulla_authorities::tls::{Front, Handshake};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What it is called beyond a `Wan`.
pub const FAR_NAME: &str = "hook.test";

/// How it takes a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// With 204.
    Good,
    /// The connection ends before a word.
    Down,
    /// It reads, keeps what it read, and says nothing.
    Hangs,
    /// It reads, keeps what it read, and hangs up.
    HangsUp,
    /// With this status.
    Status(u16),
    /// It points to itself.
    Redirects,
    /// It talks without end, and not HTTP.
    Garbage,
    /// TLS goes wrong.
    Tls(Handshake),
}

/// A post.
#[derive(Debug, Clone)]
pub struct Post {
    /// Headers, lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether it was answered with 2xx.
    pub taken: bool,
}

impl Post {
    /// A header; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context("a post is JSON")
    }
}

struct State {
    mood: Mutex<Mood>,
    posts: Mutex<Vec<Post>>,
    front: Front,
}

/// The server.
pub struct Hook {
    state: Arc<State>,
    port: u16,
    directory: TempDir,
    _runtime: Runtime,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hook {
    /// Starts it; it takes everything.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bulla-hook-").tempdir()?;
        let front = Front::new(directory.path(), &["127.0.0.1", FAR_NAME])?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State { mood: Mutex::new(Mood::Good), posts: Mutex::default(), front });
        let shared = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(shared.clone(), stream));
            }
        });
        Ok(Hook { state, port, directory, _runtime: runtime })
    }

    /// From now on.
    pub fn set(&self, mood: Mood) {
        *locked(&self.state.mood) = mood;
    }

    /// Where to post.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/hooks/S3CR3T-PATH", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What its certificate leads to.
    pub fn ca(&self) -> &Path {
        self.state.front.ca_pem()
    }

    /// A directory for what belongs to it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Everything that came, taken or not.
    pub fn posts(&self) -> Vec<Post> {
        locked(&self.state.posts).clone()
    }

    /// Everything that was taken.
    pub fn taken(&self) -> Vec<Post> {
        self.posts().into_iter().filter(|post| post.taken).collect()
    }

    /// The posts, once `holds` says so of them.
    pub fn wait(&self, what: &str, patience: Duration, holds: impl Fn(&[Post]) -> bool) -> Result<Vec<Post>> {
        let until = Instant::now() + patience;
        loop {
            let posts = self.posts();
            if holds(&posts) {
                return Ok(posts);
            }
            if Instant::now() > until {
                let bodies: Vec<_> = posts.iter().map(|post| String::from_utf8_lossy(&post.body)).collect();
                bail!("{what}: not within {patience:?}; what came is {bodies:#?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) {
    let mood = *locked(&state.mood);
    let handshake = match mood {
        Mood::Down => return,
        Mood::Tls(handshake) => handshake,
        _ => Handshake::Good,
    };
    let Some(mut stream) = state.front.accept(stream, handshake).await else { return };
    if mood == Mood::Garbage {
        let mut words = [0; 4_096];
        let _ = stream.read(&mut words).await;
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| answer(state.clone(), mood, request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    state: Arc<State>,
    mood: Mood,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let header = |(name, value): (&hyper::header::HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers = request.headers().iter().map(header).collect();
    let body = request.into_body().collect().await?.to_bytes().to_vec();
    locked(&state.posts).push(Post { headers, body, taken: mood == Mood::Good });
    let mut response = Response::new(Full::default());
    *response.status_mut() = match mood {
        Mood::Hangs => std::future::pending::<StatusCode>().await,
        Mood::HangsUp => return Err("it hangs up".into()),
        Mood::Status(status) => StatusCode::from_u16(status)?,
        Mood::Redirects => {
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/elsewhere"));
            StatusCode::TEMPORARY_REDIRECT
        }
        _ => StatusCode::NO_CONTENT,
    };
    Ok::<_, Infallible>(response).map_err(Into::into)
}
