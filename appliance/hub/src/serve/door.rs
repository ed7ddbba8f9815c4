//! The listener: HTTPS only, bounded in connections, requests by address, and every wait.
//!
//! Refuses to do: plain HTTP; wait for slow clients without end; make a certificate where there is one.
//! Invariant: a connection holds its permit until it is gone.

use crate::config::ServeConfig;
use crate::exit::Failure;
use crate::keys::write_private;
use crate::room::Room;
use crate::serve::metrics::Metrics;
use crate::serve::shown::{Shown, shown};
use axum::Router;
use bulla_formats::dial::ALPN;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: Duration = Duration::from_secs(10);
/// Longest time that sent bytes stay unacknowledged.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// Longest life of a connection, whatever is going on.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// How long requests may take to finish once the hub stops.
const STOP_GRACE: Duration = Duration::from_secs(10);
const HTTP2_STREAMS: u32 = 32;
/// So many seconds' worth of requests may come at once.
const BURST_SECONDS: u32 = 5;
/// After so many requests budgets that are whole again are forgotten.
const FORGET_EVERY: u32 = 4_096;
/// Addresses with a budget of their own; the rest share one.
const ADDRESSES_MAX: usize = 65_536;
/// Days that a certificate of the hub's own making is good for.
const VALID_DAYS: u64 = 3_650;
const DAY: Duration = Duration::from_secs(86_400);

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("serve: {} cannot be used ({reason})", path.display()))
}

/// The hub's certificate and key (PEM): those of the configuration, or its own, made when there are none.
pub fn certificate(config: &ServeConfig, state_dir: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    if let (Some(certificate), Some(key)) = (&config.certificate, &config.key) {
        return Ok((certificate.clone(), key.clone()));
    }
    let (certificate, key) = (state_dir.join("hub-tls.pem"), state_dir.join("hub-tls.key"));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    let made = (|| {
        let mut params = rcgen::CertificateParams::new(config.names.clone())?;
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("Bulla hub {}", config.name));
        let now = Duration::from_millis(crate::hub::now_millis());
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(DAY);
        params.not_after = params.not_before + DAY * VALID_DAYS as u32;
        let secret = rcgen::KeyPair::generate()?;
        let signed = params.self_signed(&secret)?;
        Ok((signed.pem(), zeroize::Zeroizing::new(secret.serialize_pem())))
    })();
    let (pem, secret) = made.map_err(|error: rcgen::Error| unusable(&certificate, &error))?;
    write_private(&key, secret.as_bytes()).map_err(|error| unusable(&key, &error))?;
    write_private(&certificate, pem.as_bytes()).map_err(|error| unusable(&certificate, &error))?;
    Ok((certificate, key))
}

/// What vouches for people who show a certificate.
pub type People = Arc<dyn ClientCertVerifier>;

/// The cryptography of every connection.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What connections are shaken hands with.
pub fn tls(certificate: &Path, key: &Path, people: Option<&People>) -> Result<Arc<ServerConfig>, Failure> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|error| unusable(certificate, &error))?.collect();
    let chain = chain.map_err(|error| unusable(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(certificate, &error))?;
    let builder = match people {
        Some(people) => builder.with_client_cert_verifier(people.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(chain, secret).map_err(|error| unusable(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// What each address may ask.
pub struct Budgets {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    asked: AtomicU32,
}

impl Budgets {
    /// So many requests a second.
    pub fn new(per_second: u32) -> Self {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = rate.saturating_mul(NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN));
        let limiter = RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst));
        Budgets { limiter, asked: AtomicU32::new(0) }
    }

    /// Spends one request; `false`: there is none left.
    pub fn spend(&self, address: IpAddr) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        let shared = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let key = if self.limiter.len() > ADDRESSES_MAX { shared } else { place(address) };
        self.limiter.check_key(&key).is_ok()
    }
}

/// An IPv4 address, or the /64 of an IPv6 address, which is what one subscriber is given.
fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// Where a request came from, and the certificate that its connection has shown.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The address.
    pub address: IpAddr,
    /// The certificate, where `serve.client_ca` vouches for it.
    pub shown: Option<Arc<Shown>>,
}

/// What is behind the listener.
pub struct Door {
    /// What connections are shaken hands with.
    pub tls: Arc<ServerConfig>,
    /// What vouches for people.
    pub people: Option<People>,
    /// What answers requests.
    pub router: Router,
    /// Where boxes that dial the hub wait.
    pub room: Arc<Room>,
    /// Connections at the same time, but for boxes that wait.
    pub connections_max: usize,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        metrics.connections_open.fetch_add(1, Ordering::Relaxed);
        Counted(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until `stop` says so, then waits a while for what is being answered.
pub async fn serve(listener: TcpListener, door: Door, mut stop: watch::Receiver<bool>) {
    let Door { tls, people, router, room, connections_max, metrics } = door;
    let acceptor = TlsAcceptor::from(tls);
    let permits = Arc::new(Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = async {
                // Closed by nobody.
                let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
                listener.accept().await.map(|(stream, peer)| (stream, peer, permit))
            } => accepted,
        };
        let Ok((stream, peer, permit)) = accepted else {
            // Out of file descriptors, most likely: connections must end before others can begin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (acceptor, stop) = (acceptor.clone(), stop.clone());
        let (router, room, people) = (router.clone(), room.clone(), people.clone());
        let counted = Counted::new(&metrics);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let unread = u32::try_from(UNREAD_MAX.as_millis()).unwrap_or(u32::MAX);
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, unread);
            let shaken = match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    shown(stream.get_ref().1, people.as_ref()).ok().map(|shown| (stream, shown))
                }
                _ => None,
            };
            if let Some((stream, shown)) = shaken {
                if stream.get_ref().1.alpn_protocol() == Some(ALPN) {
                    room.attend(stream, permit, stop).await;
                    return drop(counted);
                }
                let caller = Caller { address: peer.ip(), shown: shown.map(Arc::new) };
                let router = router.layer(axum::Extension(caller));
                let _ = timeout(CONNECTION_MAX, connection(TokioIo::new(stream), router, stop)).await;
            } else {
                counted.0.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            }
            drop((permit, counted));
        });
    }
    drop(listener);
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    // Whoever has not finished by then is cut off.
    let _ = timeout(STOP_GRACE, permits.acquire_many(all)).await;
}

async fn connection(
    stream: TokioIo<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(64 << 10);
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        // How a client ends its connection is its own affair.
        let _ = connection.await;
    }
}
