//! TLS before an authority's port: a CA of its own, and the ways in which a handshake comes to nothing.
//!
//! Refuses to do: time stamps; its keys are for the line and for nothing else.
//! Invariant: all certificates but [`Handshake::UnknownCa`]'s are by the one CA that clients are given.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bytes of a record's header.
const HEADER: usize = 5;
/// More than any client's first words.
const HELLO_BYTES_MAX: usize = 16_384;

/// What becomes of a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handshake {
    /// It succeeds.
    #[default]
    Good,
    /// The client's first words are taken, and nothing is said.
    Stalled,
    /// The server's first words break off in the middle; the connection stays.
    HalfStalled,
    /// The certificate is for somebody else.
    OtherName,
    /// The certificate has expired.
    Expired,
    /// The certificate is by a CA that nobody was told of.
    UnknownCa,
}

/// The line's keys and certificates.
pub struct Front {
    ca: PathBuf,
    good: Arc<ServerConfig>,
    other_name: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
    unknown_ca: Arc<ServerConfig>,
}

impl Front {
    /// Makes them for a server of these names and addresses; the CA's certificate goes to `directory`.
    pub fn new(directory: &Path, names: &[&str]) -> Result<Self> {
        let (ca, issuer) = authority("Line of tests")?;
        let (_, stranger) = authority("Somebody else's line")?;
        let file = directory.join("tls-ca.pem");
        fs::write(&file, ca).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Front {
            ca: file,
            good: server(&issuer, names, false)?,
            other_name: server(&issuer, &["elsewhere.example"], false)?,
            expired: server(&issuer, names, true)?,
            unknown_ca: server(&stranger, names, false)?,
        })
    }

    /// The CA's certificate, in PEM.
    pub fn ca_pem(&self) -> &Path {
        &self.ca
    }

    /// The handshake; `None` when it came to nothing and the client is gone.
    pub async fn accept(&self, mut stream: TcpStream, handshake: Handshake) -> Option<TlsStream<TcpStream>> {
        let config = match handshake {
            Handshake::Good => &self.good,
            Handshake::OtherName => &self.other_name,
            Handshake::Expired => &self.expired,
            Handshake::UnknownCa => &self.unknown_ca,
            Handshake::Stalled => {
                let _client_gone = copy(&mut stream, &mut sink()).await;
                return None;
            }
            Handshake::HalfStalled => {
                let words = self.half_an_answer(&mut stream).await?;
                stream.write_all(&words).await.ok()?;
                let _client_gone = copy(&mut stream, &mut sink()).await;
                return None;
            }
        };
        TlsAcceptor::from(config.clone()).accept(stream).await.ok()
    }

    /// Half of the first record that is answered to what the client says first.
    async fn half_an_answer(&self, stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut server = ServerConnection::new(self.good.clone()).ok()?;
        let (mut said, mut answer) = ([0; HELLO_BYTES_MAX], Vec::new());
        while !server.wants_write() {
            let read = stream.read(&mut said).await.ok().filter(|read| *read > 0)?;
            server.read_tls(&mut Cursor::new(&said[..read])).ok()?;
            server.process_new_packets().ok()?;
        }
        server.write_tls(&mut answer).ok()?;
        let length = usize::from(u16::from_be_bytes([*answer.get(3)?, *answer.get(4)?]));
        answer.truncate(HEADER + length / 2);
        Some(answer)
    }
}

/// A CA: its certificate in PEM, and what issues.
fn authority(name: &str) -> Result<(String, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key)?.pem();
    Ok((certificate, Issuer::new(params, key)))
}

fn server(issuer: &Issuer<'static, KeyPair>, names: &[&str], expired: bool) -> Result<Arc<ServerConfig>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    if expired {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }
    let certificate = params.signed_by(&key, issuer)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(Arc::new(config))
}
