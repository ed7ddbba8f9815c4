//! One request to an authority, or to whoever publishes CRLs: name, connection, TLS, answer, each with its own way to fail, all within one deadline.
//!
//! Refuses to do: follow redirects, keep connections, read an answer without a limit, or wait without one.
//! Invariants: what fails is classified by the step that failed; nothing of an answer is believed here.

use bulla_protocol::authority::Failure;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HeaderName;
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 65_536;
/// CAs of https servers, unless others are named.
pub const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In which way.
    pub failure: Failure,
    /// What was seen, for people.
    pub detail: String,
    /// How long the authority wants to be left alone, milliseconds.
    pub retry_after: Option<u64>,
    /// A connection, with TLS where there is any, had come about: another one proves nothing.
    pub connected: bool,
}

impl Trouble {
    /// Without a connection, or whatever there was of it.
    pub fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Trouble { failure, detail: detail.into(), retry_after: None, connected: false }
    }

    /// With what came over a connection.
    pub fn of_answer(failure: Failure, detail: impl Into<String>) -> Self {
        Trouble { connected: true, ..Self::new(failure, detail) }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its media type, without parameters; empty when there is none.
    pub media_type: String,
    /// Its body.
    pub body: Bytes,
}

/// Where an authority is.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    path: String,
    tls: Option<Arc<ClientConfig>>,
}

/// How far a request has come; what a timeout means depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Name,
    Connection,
    Tls,
    Answer,
}

impl Target {
    /// Reads an address that the configuration has passed; `tls_ca` counts for https.
    ///
    /// # Errors
    /// The CAs cannot be read.
    pub fn new(url: &str, tls_ca: Option<&Path>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse()?;
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            path: path.to_owned(),
            tls: secure.then(|| tls(tls_ca.unwrap_or(Path::new(SYSTEM_CAS)))).transpose()?,
        })
    }

    /// A host and a port without a path, for other protocols; with TLS when `tls_ca` names the CAs.
    ///
    /// # Errors
    /// The CAs cannot be read.
    pub fn of(host: &str, port: u16, tls_ca: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Target { host: host.to_owned(), port, path: String::new(), tls: tls_ca.map(tls).transpose()? })
    }

    /// Asks for what is there; at most so many bytes.
    pub async fn get(&self, bytes_max: usize, within: Duration) -> Result<Answer, Trouble> {
        let step = Mutex::new(Step::Name);
        let asked = async {
            let stream = self.open(&step).await?;
            let request = Request::builder().method(Method::GET);
            self.exchange(stream, request, Bytes::new(), bytes_max).await
        };
        self.limited(asked, within, &step).await
    }

    /// Sends `body`, and returns what is answered.
    pub async fn post(&self, media_type: &str, body: Vec<u8>, within: Duration) -> Result<Answer, Trouble> {
        self.post_with(&[(header::CONTENT_TYPE, media_type)], body, within).await
    }

    /// The same with headers of one's own. A value that no header may have fails like an answer that never came.
    pub async fn post_with(
        &self,
        headers: &[(HeaderName, &str)],
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Answer, Trouble> {
        let step = Mutex::new(Step::Name);
        let asked = async {
            let stream = self.open(&step).await?;
            let mut request = Request::builder().method(Method::POST);
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            self.exchange(stream, request, body.into(), ANSWER_BYTES_MAX).await
        };
        self.limited(asked, within, &step).await
    }

    /// Connects, with TLS where there is any, for another protocol than HTTP.
    pub async fn stream(&self, within: Duration) -> Result<Box<dyn Stream>, Trouble> {
        let step = Mutex::new(Step::Name);
        self.limited(self.open(&step), within, &step).await
    }

    /// Only connects, with TLS where there is any.
    pub async fn connect(&self, within: Duration) -> Result<(), Trouble> {
        let step = Mutex::new(Step::Name);
        self.limited(async { self.open(&step).await.map(drop) }, within, &step).await
    }

    async fn limited<T>(
        &self,
        work: impl Future<Output = Result<T, Trouble>>,
        within: Duration,
        step: &Mutex<Step>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(within, work).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = within.as_secs();
                let step = *step.lock().unwrap_or_else(PoisonError::into_inner);
                let (failure, what) = match step {
                    Step::Name => (Failure::Dns, "its name was not resolved"),
                    Step::Connection => (Failure::Timeout, "the connection was not accepted"),
                    Step::Tls => (Failure::Timeout, "the TLS handshake stalled"),
                    Step::Answer => (Failure::Timeout, "no answer came"),
                };
                let detail = format!("{what} within {seconds} s");
                Err(Trouble { connected: step == Step::Answer, ..Trouble::new(failure, detail) })
            }
        }
    }

    async fn open(&self, step: &Mutex<Step>) -> Result<Box<dyn Stream>, Trouble> {
        let set = |next| *step.lock().unwrap_or_else(PoisonError::into_inner) = next;
        let addresses = lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<_> = addresses
            .map_err(|error| Trouble::new(Failure::Dns, format!("{}: {error}", self.host)))?
            .collect();
        set(Step::Connection);
        let mut last = Trouble::new(Failure::Dns, format!("{} has no address", self.host));
        let mut connected = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => last = Trouble::new(no_connection(&error), format!("{address}: {error}")),
            }
        }
        let stream = connected.ok_or(last)?;
        set(Step::Tls);
        let Some(tls) = &self.tls else {
            set(Step::Answer);
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| Trouble::new(Failure::Tls, format!("{} is no name for TLS", self.host)))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| Trouble::new(Failure::Tls, error.to_string()))?;
        set(Step::Answer);
        Ok(Box::new(stream))
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        request: Builder,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Answer, Trouble> {
        let broken = |error: hyper::Error| {
            Trouble::of_answer(Failure::Other, format!("the connection broke: {error}"))
        };
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driving = tokio::spawn(connection);
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let request = request
            .uri(&self.path)
            .header(header::HOST, format!("{host}:{}", self.port))
            .header(header::USER_AGENT, concat!("bulla-box/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| Trouble::new(Failure::Other, error.to_string()))?;
        let answered = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            let (parts, body) = answer.into_parts();
            let retry_after = parts
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
                .map(|seconds| seconds.saturating_mul(1_000));
            let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
            let media_type = media_type.trim().to_ascii_lowercase();
            if matches!(parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                let failure = match parts.status {
                    StatusCode::TOO_MANY_REQUESTS => Failure::Quota,
                    _ => Failure::HttpStatus,
                };
                let trouble = Trouble::of_answer(failure, parts.status.to_string());
                return Err(Trouble { retry_after, ..trouble });
            }
            let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    let detail = format!("its answer is longer than {bytes_max} bytes");
                    Trouble::of_answer(Failure::BadAnswer, detail)
                } else {
                    Trouble::of_answer(Failure::Other, format!("the answer broke off: {error}"))
                }
            })?;
            Ok(Answer { status: parts.status, media_type, body: body.to_bytes() })
        };
        let answer = answered.await;
        driving.abort();
        answer
    }
}

/// What bytes travel over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug> Stream for T {}

/// How a socket that cannot be reached fails.
pub(super) fn no_connection(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Failure::Unreachable
        }
        io::ErrorKind::TimedOut => Failure::Timeout,
        _ => Failure::Other,
    }
}

fn tls(cas: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    use anyhow::Context as _;
    let what = || format!("cannot read the CAs of https servers in {}", cas.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(cas).with_context(what)? {
        roots.add(certificate.with_context(what)?).with_context(what)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
