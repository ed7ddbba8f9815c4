//! Very many clients at once, good and bad: connections that say little or nothing, and more requests than fit.
//!
//! All connections of a flood share one thread, so that they take as little as possible from the box they share a
//! machine with; whoever measures an honest client does it on a thread of its own ([`honest`]).
//! Refuses to do: retry; hide what was refused.

use super::Wire;
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections of one source address; below the number of ports of the loopback's range.
const PER_SOURCE: usize = 3_000;
/// Handshakes on their way at one time.
const HANDSHAKES: usize = 64;
/// A request that finds no free connection for so long is given up by its client.
const GIVE_UP: Duration = Duration::from_millis(100);
/// Numbers orders, so that each digest is its own.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a bad client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Shakes hands, then sends one byte of a request header a second.
    SlowHeaders,
    /// Sends the beginning of a ClientHello and nothing more.
    StalledHandshake,
}

/// Where a flood goes.
#[derive(Clone)]
pub struct Target {
    /// Port on the loopback.
    pub port: u16,
    /// TLS.
    pub connector: TlsConnector,
}

impl Target {
    /// A box; `alpn` is what the client offers.
    pub fn new(port: u16, ca_pem: &str, alpn: &[&[u8]]) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Target { port, connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn tcp(&self, source: Ipv4Addr) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((source, 0)))?;
        let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection after its handshake.
    pub async fn tls(&self, source: Ipv4Addr) -> Result<TlsStream<TcpStream>> {
        let tcp = self.tcp(source).await?;
        Ok(self.connector.connect(ServerName::try_from("localhost")?, tcp).await?)
    }
}

/// Lets this process have as many open files as it may.
pub fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?)
}

/// Bad clients at work; they end when it is dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Opens `connections` and keeps them; those that end are not opened again. Sources are 127.0.0.2 and on, or
    /// with `one_source` all 127.0.0.2.
    pub fn start(target: &Target, manner: Manner, connections: usize, one_source: bool) -> Result<Self> {
        let (stop, held, failed) = (Arc::<AtomicBool>::default(), Arc::default(), Arc::default());
        let mut flood = Flood { stop: stop.clone(), held, failed, thread: None };
        let (held, failed, target) = (flood.held.clone(), flood.failed.clone(), target.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        flood.thread = Some(std::thread::spawn(move || {
            runtime.block_on(async move {
                let gate = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
                for number in 0..connections {
                    let source = 2 + if one_source { 0 } else { number / PER_SOURCE };
                    let source = Ipv4Addr::new(127, 0, 0, u8::try_from(source).unwrap_or(254));
                    let (gate, target) = (gate.clone(), target.clone());
                    let (held, failed, stop) = (held.clone(), failed.clone(), stop.clone());
                    tokio::spawn(async move {
                        let connected = {
                            let _permit = gate.acquire().await;
                            connect(&target, manner, source).await
                        };
                        match connected {
                            Ok(connection) => {
                                held.fetch_add(1, Relaxed);
                                connection.linger(&stop).await;
                                held.fetch_sub(1, Relaxed);
                                failed.fetch_add(1, Relaxed);
                            }
                            Err(_) => drop(failed.fetch_add(1, Relaxed)),
                        }
                    });
                }
                while !stop.load(Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }));
        Ok(flood)
    }

    /// Connections that are open, as the bad clients see it.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Connections that were refused or have ended.
    pub fn ended(&self) -> usize {
        self.failed.load(Relaxed)
    }

    /// Waits until each connection is held or has failed.
    pub fn settle(&self, connections: usize, within: Duration) -> Result<()> {
        let began = Instant::now();
        while self.held() + self.ended() < connections {
            ensure!(
                began.elapsed() < within,
                "{} held and {} ended of {connections}",
                self.held(),
                self.ended()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

enum Connection {
    Slow(Box<TlsStream<TcpStream>>),
    Stalled(TcpStream),
}

async fn connect(target: &Target, manner: Manner, source: Ipv4Addr) -> Result<Connection> {
    Ok(match manner {
        Manner::SlowHeaders => Connection::Slow(Box::new(target.tls(source).await?)),
        Manner::StalledHandshake => {
            let mut tcp = target.tcp(source).await?;
            // A handshake record of 512 bytes, of which the first come.
            tcp.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await?;
            Connection::Stalled(tcp)
        }
    })
}

impl Connection {
    /// Until the box ends it or the flood ends.
    async fn linger(self, stop: &AtomicBool) {
        match self {
            Connection::Stalled(mut tcp) => {
                let _ended = tcp.read_u8().await;
            }
            Connection::Slow(mut tls) => {
                let head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".iter().copied();
                for byte in head.chain(std::iter::repeat(b'x')) {
                    let ended = tls.write_all(&[byte]).await.is_err() || tls.flush().await.is_err();
                    if ended || stop.load(Relaxed) {
                        return;
                    }
                    let mut sink = [0; 512];
                    // Whatever is read is the box's end of it: nothing complete was asked.
                    if tokio::time::timeout(Duration::from_secs(1), tls.read(&mut sink)).await.is_ok() {
                        return;
                    }
                }
            }
        }
    }
}

/// What an honest client met.
#[derive(Debug)]
pub struct Honest {
    /// Latency of seals in microseconds.
    pub latency: Histogram<u64>,
    /// Answers that were no 201.
    pub refused: usize,
}

impl Honest {
    /// 99th percentile in milliseconds.
    pub fn p99(&self) -> f64 {
        self.latency.value_at_quantile(0.99) as f64 / 1_000.0
    }

    /// Median in milliseconds.
    pub fn p50(&self) -> f64 {
        self.latency.value_at_quantile(0.5) as f64 / 1_000.0
    }
}

/// A digest order of its own, as it goes over the wire.
pub fn order(token: &str) -> Vec<u8> {
    order_with_notes(token, 0)
}

/// The same with so many notes of 3 KiB, for which the box needs room.
pub fn order_with_notes(token: &str, notes: usize) -> Vec<u8> {
    let number = NEXT.fetch_add(1, Relaxed);
    let note = "x".repeat(3 << 10);
    let notes: Vec<_> = (0..notes).map(|name| format!(r#""{name}":"{note}""#)).collect();
    let body = format!(
        r#"{{"algorithm":"sha-256","digest":"{number:064x}","mediaType":"application/pdf","metadata":{{{}}}}}"#,
        notes.join(",")
    );
    format!(
        "POST /v1/seals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/vnd.bulla.digest+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Seals one order after the other on `wire` for `time`, with a pause after each.
pub fn honest(wire: &mut Wire, token: &str, time: Duration, pause: Duration) -> Result<Honest> {
    let mut met = Honest { latency: Histogram::new(3)?, refused: 0 };
    let began = Instant::now();
    while began.elapsed() < time {
        let (order, asked) = (order(token), Instant::now());
        wire.send(&order)?;
        let answer = wire.answer()?.context("the box ended an honest client's connection")?;
        if answer.status == 201 {
            met.latency.record(asked.elapsed().as_micros().max(1) as u64)?;
        } else {
            met.refused += 1;
        }
        std::thread::sleep(pause);
    }
    Ok(met)
}

/// What became of an open load.
#[derive(Debug)]
pub struct Offered {
    /// Requests that were due in the time.
    pub due: usize,
    /// Of them, those for which no connection was free: the client gave up by itself.
    pub unsent: usize,
    /// Sealed.
    pub sealed: usize,
    /// Answers by status that were no 201.
    pub refused: std::collections::BTreeMap<u16, usize>,
    /// Connections that broke.
    pub broken: usize,
    /// How long it took until everything was answered.
    pub took: Duration,
    /// Latency of seals in microseconds.
    pub sealed_latency: Histogram<u64>,
    /// Latency of refusals in microseconds.
    pub refused_latency: Histogram<u64>,
}

impl Offered {
    /// Seals a second.
    pub fn rate(&self) -> f64 {
        self.sealed as f64 / self.took.as_secs_f64()
    }

    /// Answers that were no 201.
    pub fn refusals(&self) -> usize {
        self.refused.values().sum()
    }

    fn empty() -> Result<Self> {
        Ok(Offered {
            due: 0,
            unsent: 0,
            sealed: 0,
            refused: Default::default(),
            broken: 0,
            took: Duration::ZERO,
            sealed_latency: Histogram::new(3)?,
            refused_latency: Histogram::new(3)?,
        })
    }

    fn count(&mut self, answer: Result<u16>, latency: Duration) -> Result<()> {
        let micros = latency.as_micros().max(1) as u64;
        match answer {
            Ok(201) => {
                self.sealed += 1;
                self.sealed_latency.record(micros)?;
            }
            Ok(status) => {
                *self.refused.entry(status).or_default() += 1;
                self.refused_latency.record(micros)?;
            }
            Err(_) => self.broken += 1,
        }
        Ok(())
    }
}

/// As many seals as `connections` clients get that each wait for their answer: the peak.
pub fn closed(target: &Target, token: &str, connections: usize, time: Duration) -> Result<Offered> {
    offer(target, token, connections, None, time)
}

/// `rate` requests a second whatever becomes of them, over at most `connections` connections. Real clients have
/// processors of their own: these take what the box and its TPM leave of the shared ones.
pub fn open(target: &Target, token: &str, connections: usize, rate: f64, time: Duration) -> Result<Offered> {
    std::thread::scope(|scope| {
        let yielding = scope.spawn(|| {
            rustix::process::nice(15)?;
            offer(target, token, connections, Some(rate), time)
        });
        yielding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn offer(
    target: &Target,
    token: &str,
    connections: usize,
    rate: Option<f64>,
    time: Duration,
) -> Result<Offered> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            all.push(target.tls(Ipv4Addr::LOCALHOST).await?);
        }
        let (begun, offered) = (Instant::now(), Arc::new(std::sync::Mutex::new(Offered::empty()?)));
        let due = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = all
            .into_iter()
            .map(|mut connection| {
                let (token, offered, due) = (token.to_owned(), offered.clone(), due.clone());
                tokio::spawn(async move {
                    let mut buffer = vec![0; 32 << 10];
                    loop {
                        // With a rate, request n is due at n / rate; whoever is free takes the next one.
                        let number = due.fetch_add(1, Relaxed);
                        let at = rate
                            .map_or(begun.elapsed(), |rate| Duration::from_secs_f64(number as f64 / rate));
                        if at >= time {
                            return Ok(());
                        }
                        if begun.elapsed() > at + GIVE_UP {
                            continue;
                        }
                        tokio::time::sleep_until((begun + at).into()).await;
                        let asked = Instant::now();
                        let answer = ask(&mut connection, &order(&token), &mut buffer).await;
                        let broken = answer.is_err();
                        let mut offered = offered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        offered.count(answer, asked.elapsed())?;
                        if broken {
                            return Ok::<_, anyhow::Error>(());
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let mut offered = offered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut offered = std::mem::replace(&mut *offered, Offered::empty()?);
        offered.took = begun.elapsed();
        let sent = offered.sealed + offered.refusals() + offered.broken;
        offered.due = rate.map_or(sent, |rate| (rate * time.as_secs_f64()) as usize);
        offered.unsent = offered.due.saturating_sub(sent);
        Ok(offered)
    })
}

/// Sends a request and reads its answer; its status.
async fn ask(connection: &mut TlsStream<TcpStream>, request: &[u8], buffer: &mut [u8]) -> Result<u16> {
    connection.write_all(request).await?;
    connection.flush().await?;
    let mut have = 0;
    let head_end = loop {
        let read = connection.read(&mut buffer[have..]).await?;
        ensure!(read > 0, "the box closed the connection");
        have += read;
        if let Some(at) = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = std::str::from_utf8(&buffer[..head_end])?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("answers carry a content-length")?.trim().parse()?;
    let status = head.split(' ').nth(1).context("an answer has a status")?.parse()?;
    let mut left = (head_end + length).saturating_sub(have);
    while left > 0 {
        let most = left.min(buffer.len());
        let read = connection.read(&mut buffer[..most]).await?;
        ensure!(read > 0, "the box closed the connection");
        left -= read;
    }
    Ok(status)
}
