//! Connections to a hub that cannot open one to this box: a few wait there, and what comes through one of them is served as
//! if it had come to the listener.
//!
//! The hub shows its certificate before it is told the token; through the connection it meets the box's own TLS, client
//! certificates, tokens and limits, as everybody does.
//! Refuses to do: trust the hub for having been dialled; wait for one that has fallen silent.
//! Invariant: so many connections are opened or wait as are configured; one that was taken is replaced at once.

use crate::config::DialOutConfig;
use crate::telemetry::{family, line};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bulla_formats::dial::{ALPN, FULL, GO, Greeting, REFUSED, STILL, WAIT};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

/// How long connecting, shaking hands and being greeted may take, each.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Longest silence of the hub, which says every 20 seconds that it is still there.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// First pause after a failure; doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A connection that the hub has begun to speak through.
pub struct Arrived {
    /// What comes is a client's connection to the HTTPS listener.
    pub stream: TlsStream<TcpStream>,
    /// The hub's address.
    pub peer: IpAddr,
}

struct Hub {
    config: DialOutConfig,
    connector: TlsConnector,
    host: String,
    port: u16,
    server: ServerName<'static>,
    token: Zeroizing<String>,
}

/// How it stands.
#[derive(Debug, Clone, Default)]
struct Facts {
    waiting: usize,
    trouble: Option<String>,
}

/// The hub that is dialled, if there is one.
pub struct DialOut {
    hub: Option<Arc<Hub>>,
    facts: Mutex<Facts>,
    taken: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
}

impl DialOut {
    /// Reads certificates and token; dials nobody yet.
    pub fn new(config: Option<&DialOutConfig>) -> Result<Self> {
        let hub = config.map(|config| Hub::new(config.clone())).transpose().context("dial_out")?;
        let (facts, tasks) = (Mutex::default(), Mutex::default());
        Ok(DialOut { hub: hub.map(Arc::new), facts, taken: AtomicU64::new(0), tasks })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to dial. Nothing ever arrives where no hub is configured.
    pub fn start(self: &Arc<Self>) -> mpsc::Receiver<Arrived> {
        let (sender, receiver) = mpsc::channel(1);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = &self.hub {
            for _ in 0..hub.config.waiting {
                tasks.spawn(self.clone().keep(hub.clone(), sender.clone()));
            }
        }
        receiver
    }

    /// Ends what waits; what was taken goes on.
    pub fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// Keeps one connection waiting.
    async fn keep(self: Arc<Self>, hub: Arc<Hub>, sender: mpsc::Sender<Arrived>) {
        let mut pause = PAUSE_MIN;
        loop {
            match hub.dial().await {
                Ok(waiting) => {
                    pause = PAUSE_MIN;
                    self.waits(&hub);
                    let ended = hub.wait(waiting).await;
                    self.facts().waiting -= 1;
                    match ended {
                        Ok(arrived) => {
                            self.taken.fetch_add(1, Relaxed);
                            if sender.send(arrived).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => self.failed(&hub, &error),
                    }
                }
                Err(error) => {
                    self.failed(&hub, &error);
                    sleep(jittered(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn waits(&self, hub: &Hub) {
        let mut facts = self.facts();
        facts.waiting += 1;
        if facts.trouble.take().is_some() || self.taken.load(Relaxed) == 0 && facts.waiting == 1 {
            log::info!(
                "the hub at {} can speak to this box through connections that wait there",
                hub.config.hub
            );
        }
    }

    fn failed(&self, hub: &Hub, error: &anyhow::Error) {
        let trouble = format!("{error:#}");
        let mut facts = self.facts();
        if facts.trouble.as_ref() != Some(&trouble) && facts.waiting == 0 {
            log::warn!("the hub at {} is not reached, and goes on being dialled: {trouble}", hub.config.hub);
        }
        if facts.waiting == 0 {
            facts.trouble = Some(trouble);
        }
    }

    /// Member `dialOut` of the status.
    pub fn status(&self) -> Option<Value> {
        let (hub, facts) = (self.hub.as_ref()?, self.facts().clone());
        let taken = self.taken.load(Relaxed);
        Some(
            json!({"hub": hub.config.hub, "waiting": facts.waiting, "taken": taken, "trouble": facts.trouble}),
        )
    }

    /// Metrics.
    pub fn metrics(&self, out: &mut String) {
        if self.hub.is_none() {
            return;
        }
        let name = "bulla_dial_out_waiting";
        family(out, name, "gauge", "Connections that wait at the hub which this box dials.");
        line(out, name, "", self.facts().waiting);
        let name = "bulla_dial_out_taken_total";
        family(out, name, "counter", "Of them, those that the hub has spoken through.");
        line(out, name, "", self.taken.load(Relaxed));
    }

    /// What is the matter when nothing waits at the hub; `None` where no hub is dialled.
    pub fn trouble(&self) -> Option<Option<String>> {
        self.hub.as_ref()?;
        let facts = self.facts();
        Some(
            (facts.waiting == 0)
                .then(|| facts.trouble.clone().unwrap_or_else(|| "not dialled yet".to_owned())),
        )
    }
}

/// Half of it and a random part of the other half: boxes whose hub comes back do not all dial at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness they do.
    let part = getrandom::fill(&mut random).map_or(u16::MAX, |()| u16::from_be_bytes(random));
    pause / 2 + pause.mul_f64(f64::from(part) / f64::from(u16::MAX) / 2.0)
}

impl Hub {
    fn new(config: DialOutConfig) -> Result<Self> {
        let ca = || format!("the CA certificates in {} cannot be used", config.ca.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&config.ca).with_context(ca)? {
            roots.add(certificate.with_context(ca)?).with_context(ca)?;
        }
        ensure!(!roots.is_empty(), "{} holds no certificate in PEM", config.ca.display());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let token = std::fs::read_to_string(&config.token_file).map(Zeroizing::new);
        let token = token.with_context(|| format!("{} cannot be read", config.token_file.display()))?;
        let token = Zeroizing::new(token.trim().to_owned());
        ensure!(
            Greeting::new(&config.name, &token).is_some(),
            "{} holds no token of 32 to 128 visible characters",
            config.token_file.display()
        );
        let (host, port) = config.address().context("no name and port of the hub")?;
        let (host, server) = (host.to_owned(), ServerName::try_from(host.to_owned())?);
        Ok(Hub { connector: TlsConnector::from(Arc::new(tls)), host, port, server, token, config })
    }

    /// A connection that the hub has given a place.
    async fn dial(&self) -> Result<Arrived> {
        let late = |what: &str| anyhow!("{what} took longer than {} seconds", STEP_MAX.as_secs());
        let stream = timeout(STEP_MAX, TcpStream::connect((self.host.as_str(), self.port))).await;
        let stream = stream.map_err(|_| late("the connection"))?.context("no connection")?;
        stream.set_nodelay(true)?;
        let unread = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, unread)?;
        let peer = stream.peer_addr()?.ip();
        let stream = timeout(STEP_MAX, self.connector.connect(self.server.clone(), stream)).await;
        let mut stream = stream.map_err(|_| late("the handshake"))?.context("the handshake failed")?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(ALPN), "this hub takes no calls of boxes");
        let reply = timeout(STEP_MAX, async {
            let greeting = Greeting::new(&self.config.name, &self.token).context("no greeting")?;
            stream.write_all(Zeroizing::new(greeting.encode()).as_bytes()).await?;
            stream.flush().await?;
            Ok::<_, anyhow::Error>(stream.read_u8().await?)
        });
        match reply.await.map_err(|_| late("the hub's answer"))?? {
            WAIT => Ok(Arrived { stream, peer }),
            REFUSED => bail!("the hub knows no box {:?} with this token", self.config.name),
            FULL => bail!("at the hub enough connections of {:?} wait already", self.config.name),
            other => bail!("the hub said {other:#04x}, which means nothing"),
        }
    }

    /// Waits until the hub speaks through it.
    async fn wait(&self, mut waiting: Arrived) -> Result<Arrived> {
        loop {
            let said = timeout(SILENCE_MAX, waiting.stream.read_u8()).await;
            match said
                .map_err(|_| anyhow!("the hub has fallen silent"))?
                .context("the hub ended the connection")?
            {
                STILL => {}
                GO => return Ok(waiting),
                other => bail!("the hub said {other:#04x}, which means nothing"),
            }
        }
    }
}
