//! The load generator: keep-alive TLS connections that each wait for their answer, as scanners do.
//!
//! It speaks just enough HTTP/1.1 to count: the cheaper the client, the more of the two cores is left
//! for the box. Refuses to do: count an answer that is not 201.

use anyhow::{Context, Result, ensure};
use bulla_formats::hash::sha256;
use hdrhistogram::Histogram;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What one run measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Answers a second.
    pub per_second: f64,
    /// Median latency in microseconds.
    pub p50: u64,
    /// 99th percentile in microseconds.
    pub p99: u64,
}

/// What to send.
#[derive(Clone)]
pub enum Order {
    /// A digest only; each its own, and as far from the one before as digests are.
    Digest,
    /// A document of this many bytes; each its own first bytes.
    Document(usize),
    /// These documents, in turn.
    Files(Arc<Vec<Vec<u8>>>),
    /// These requests for RFC 3161 time stamps, in turn.
    Stamps(Arc<Vec<Vec<u8>>>),
}

/// Where to send it.
pub struct Target {
    /// Port on the loopback.
    pub port: u16,
    /// Bearer token.
    pub token: String,
    /// TLS.
    pub connector: TlsConnector,
}

/// A TLS 1.3 client that trusts this CA only.
pub fn connector(ca_pem: &[u8]) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// `clients` connections for `time`, after a short warm-up that is not counted.
pub async fn run(target: Arc<Target>, order: Order, clients: usize, time: Duration) -> Result<Measured> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let warm = Instant::now() + Duration::from_millis(500);
    let end = warm + time;
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (target, order) = (target.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            let mut stream = connect(&target).await?;
            let mut own = Histogram::<u64>::new(3)?;
            let mut buffer = vec![0; 64 << 10];
            let mut document = match order {
                Order::Document(size) => vec![0x41; size],
                Order::Digest | Order::Files(_) | Order::Stamps(_) => Vec::new(),
            };
            loop {
                let number = NEXT.fetch_add(1, Relaxed);
                let request = request(&target.token, &order, number, &mut document);
                let asked = Instant::now();
                if asked >= end {
                    return Ok::<_, anyhow::Error>(own);
                }
                stream.write_all(&request).await?;
                let sent = match &order {
                    Order::Files(files) | Order::Stamps(files) => &files[number as usize % files.len()],
                    Order::Digest | Order::Document(_) => &document,
                };
                if !sent.is_empty() {
                    stream.write_all(sent).await?;
                }
                stream.flush().await?;
                answer(&mut stream, &mut buffer).await?;
                if asked >= warm {
                    own.record(asked.elapsed().as_micros().max(1) as u64)?;
                }
            }
        }));
    }
    let mut all = Histogram::<u64>::new(3)?;
    for task in tasks {
        all.add(task.await??)?;
    }
    Ok(Measured {
        per_second: all.len() as f64 / time.as_secs_f64(),
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
    })
}

async fn connect(target: &Target) -> Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", target.port)).await?;
    tcp.set_nodelay(true)?;
    Ok(target.connector.connect(ServerName::try_from("localhost")?, tcp).await?)
}

fn request(token: &str, order: &Order, number: u64, document: &mut [u8]) -> Vec<u8> {
    let (kind, body, length) = match order {
        Order::Digest => {
            let digest = sha256(&[&number.to_be_bytes()]);
            let body =
                format!(r#"{{"algorithm":"sha-256","digest":"{digest}","mediaType":"application/pdf"}}"#);
            let length = body.len();
            ("application/vnd.bulla.digest+json", body, length)
        }
        Order::Document(size) => {
            document[..8].copy_from_slice(&number.to_be_bytes());
            ("application/pdf", String::new(), *size)
        }
        Order::Files(files) => ("application/pdf", String::new(), files[number as usize % files.len()].len()),
        Order::Stamps(queries) => {
            ("application/timestamp-query", String::new(), queries[number as usize % queries.len()].len())
        }
    };
    let path = if matches!(order, Order::Stamps(_)) { "/tsa" } else { "/v1/seals" };
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Reads one answer: status line, `Content-Length`, body.
async fn answer(stream: &mut TlsStream<TcpStream>, buffer: &mut [u8]) -> Result<()> {
    let mut have = 0;
    let head_end = loop {
        let read = stream.read(&mut buffer[have..]).await?;
        ensure!(read > 0, "the box closed the connection");
        have += read;
        if let Some(at) = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = std::str::from_utf8(&buffer[..head_end])?.to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 20"), "{}", String::from_utf8_lossy(&buffer[..have]));
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .context("answers carry a content-length")?;
    let mut left = (head_end + length.trim().parse::<usize>()?).saturating_sub(have);
    while left > 0 {
        let most = left.min(buffer.len());
        let read = stream.read(&mut buffer[..most]).await?;
        ensure!(read > 0, "the box closed the connection");
        left -= read;
    }
    Ok(())
}
