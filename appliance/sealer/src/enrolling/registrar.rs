//! One connection to the registrar: TLS 1.3, its key pinned, and what binds a challenge to this very connection.
//!
//! Refuses to do: TLS 1.2; believe a certificate for any reason but the pinned key (there is no CA yet that could vouch for
//! it); read answers without a limit, or wait for them without one.
//! Invariant: [`Connection::channel`] is the tls-exporter binding (RFC 9266) of the connection that answers come through.

use anyhow::{Context as _, Result, bail, ensure};
use bulla_enrolment::wire::{ANSWER_BYTES_MAX, Answer};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::peer::message::ANSWER_BYTES_MAX as ROSTER_ANSWER_BYTES_MAX;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest wait for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// RFC 9266, section 2.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
/// The registrar's port, unless the address names another.
pub const PORT: u16 = 8444;
/// What travels in both directions: DER of docs/formats.md, section 15.
const CONTENT_TYPE: &str = "application/octet-stream";

/// Where the registrar is, and by what it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrar {
    address: String,
    host: String,
    port: u16,
    pin: Hash,
}

impl Registrar {
    /// Reads `https://HOST[:PORT]` and the pin in hex: SHA-256 of the registrar's SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// Says what is wrong with which of them.
    pub fn parse(address: &str, pin: &str) -> Result<Self> {
        let uri: Uri = address.parse().with_context(|| format!("{address} is no address"))?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https") && bare);
        let host = host.with_context(|| {
            format!(
                "{address} is not the address of a registrar, as in https://registrar.bank.example:{PORT}"
            )
        })?;
        let digits = pin.trim().strip_prefix("sha256:").unwrap_or(pin.trim());
        let pin: [u8; 32] = hex::decode(digits)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .with_context(|| format!("{pin} is no pin: 64 hex digits, as `bulla-fleet serve` prints them"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Registrar {
            address: address.to_owned(),
            host,
            port: uri.port_u16().unwrap_or(PORT),
            pin: Hash(pin),
        })
    }

    /// As it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    pub fn pin(&self) -> Hash {
        self.pin
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody answers, somebody else does, or not in TLS 1.3.
    pub async fn connect(&self) -> Result<Connection> {
        timeout(PATIENCE, self.open()).await.map_err(|_| self.silent())?
    }

    fn silent(&self) -> anyhow::Error {
        anyhow::anyhow!("{} does not answer within {} seconds", self.address, PATIENCE.as_secs())
    }

    fn no_connection(&self, error: io::Error) -> anyhow::Error {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        if matches!(inner, Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)))
        {
            return anyhow::anyhow!(
                "{} has another key than the pinned one: compare --pin with what `bulla-fleet serve` prints, or look for \
                 who stands between",
                self.address
            );
        }
        anyhow::Error::new(error).context(format!("no connection to {}", self.address))
    }

    async fn open(&self) -> Result<Connection> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Pinned { pin: self.pin, provider: Arc::clone(&provider) });
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let name =
            ServerName::try_from(self.host.clone()).with_context(|| format!("{} is no name", self.host))?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .with_context(|| format!("cannot reach {}", self.address))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await;
        let stream = stream.map_err(|error| self.no_connection(error))?;
        let channel = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; what went wrong is told to whoever sends.
        tokio::spawn(connection);
        Ok(Connection { sender, registrar: self.clone(), channel })
    }
}

/// A connection to the registrar.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    registrar: Registrar,
    channel: [u8; 32],
}

impl Connection {
    /// The binding of this connection.
    pub fn channel(&self) -> [u8; 32] {
        self.channel
    }

    /// Asks to be enrolled.
    ///
    /// # Errors
    /// No answer of the registrar.
    pub async fn ask(&mut self, request: Vec<u8>) -> Result<Answer> {
        self.send(Method::POST, "/v1/enrolments", request).await
    }

    /// Answers a challenge.
    ///
    /// # Errors
    /// No answer of the registrar.
    pub async fn prove(&mut self, evidence: Vec<u8>) -> Result<Answer> {
        self.send(Method::POST, "/v1/enrolments/evidence", evidence).await
    }

    /// Asks how a request stands.
    ///
    /// # Errors
    /// No answer of the registrar.
    pub async fn poll(&mut self, transcript: &Hash) -> Result<Answer> {
        self.send(Method::GET, &format!("/v1/enrolments/{transcript}"), Vec::new()).await
    }

    /// Asks what is new of the roster.
    ///
    /// # Errors
    /// No answer of the registrar.
    pub async fn roster(&mut self, request: Vec<u8>) -> Result<Bytes> {
        let silent = self.registrar.silent();
        let exchange = self.exchange(Method::POST, "/v1/roster", request, ROSTER_ANSWER_BYTES_MAX);
        timeout(PATIENCE, exchange).await.map_err(|_| silent)?
    }

    /// Fetches the configuration file with this hash; whether it is, the caller sees.
    ///
    /// # Errors
    /// No answer of the registrar, or it has no such file.
    pub async fn configuration(&mut self, file: &Hash, limit: usize) -> Result<Bytes> {
        let silent = self.registrar.silent();
        let path = format!("/v1/configurations/{file}");
        let exchange = self.exchange(Method::GET, &path, Vec::new(), limit);
        timeout(PATIENCE, exchange).await.map_err(|_| silent)?
    }

    async fn send(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer> {
        let silent = self.registrar.silent();
        let exchange = self.exchange(method, path, body, ANSWER_BYTES_MAX);
        let bytes = timeout(PATIENCE, exchange).await.map_err(|_| silent)??;
        let address = &self.registrar.address;
        Answer::decode(&bytes).with_context(|| format!("{address} does not answer as a registrar does"))
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Vec<u8>, limit: usize) -> Result<Bytes> {
        let address = &self.registrar.address;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.registrar.host)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(Full::from(body))?;
        let response = self.sender.send_request(request).await;
        let response = response.with_context(|| format!("the connection to {address} broke"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body =
            body.map_err(|error| anyhow::anyhow!("the answer of {address} cannot be read: {error}"))?;
        let bytes = body.to_bytes();
        if status != StatusCode::OK {
            let problem: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
            let detail =
                problem.as_ref().and_then(|problem| problem["detail"].as_str()).unwrap_or("no reason given");
            bail!("{address} answers {status}: {detail}");
        }
        Ok(bytes)
    }
}

/// Believes whoever holds the pinned key.
#[derive(Debug)]
struct Pinned {
    pin: Hash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        if sha256(&[&parsed.subject_public_key_info()]) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// That a registrar answered the question it was asked.
///
/// # Errors
/// It speaks of another request.
pub fn about(answer: &Answer, transcript: &Hash) -> Result<()> {
    let named = answer.transcript();
    ensure!(named.is_none_or(|named| named == *transcript), "the registrar answers another request");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_pins_are_read_or_named() {
        let pin = "4e".repeat(32);
        let read = |address: &str| Registrar::parse(address, &pin);
        let plain = read("https://registrar.bank.example").unwrap();
        assert_eq!(
            (plain.host.as_str(), plain.port, plain.pin),
            ("registrar.bank.example", PORT, Hash([0x4e; 32]))
        );
        let literal = read("https://[2001:db8::1]:9000/").unwrap();
        assert_eq!((literal.host.as_str(), literal.port), ("2001:db8::1", 9000));
        for wrong in [
            "",
            "registrar.bank.example",
            "http://r.example",
            "https://r.example/x",
            "https://r.example?x",
            "https://",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "4e", &"4e".repeat(31), &"4e".repeat(33), &"xx".repeat(32)] {
            let error = Registrar::parse("https://r.example", wrong).unwrap_err();
            assert!(error.to_string().contains("64 hex digits"), "{error}");
        }
        assert!(Registrar::parse("https://r.example", &format!("sha256:{pin}")).is_ok());
    }
}
