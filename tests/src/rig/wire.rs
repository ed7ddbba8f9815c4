//! One TLS connection in a test's own hands: sends any bytes, is cut anywhere, reads what comes back.
//!
//! Refuses to do: understand chunked answers; the box sends none.

use super::client::Response;
use anyhow::{Context, Result, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

/// Longest wait for the box; nothing is asserted about time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The one TLS version a connection offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// An open connection.
pub struct Wire {
    tls: StreamOwned<ClientConnection, TcpStream>,
}

impl Wire {
    /// Connects and shakes hands; fails when the box does not accept the version.
    pub fn open(port: u16, ca_pem: &str, offered: TlsVersion) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let versions = match offered {
            TlsVersion::V1_2 => [&version::TLS12],
            TlsVersion::V1_3 => [&version::TLS13],
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tls = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).context("the handshake failed")?;
        }
        Ok(Wire { tls: StreamOwned::new(tls, socket) })
    }

    /// Sends bytes. That the box has closed already is no error: it may have heard enough.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.tls.write_all(bytes).and_then(|()| self.tls.flush()) {
            Err(error) if !is_end(error.kind()) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Ends the connection as a pulled cable does (`clean` false) or as TLS asks (`clean` true).
    pub fn cut(mut self, clean: bool) -> Result<()> {
        if clean {
            self.tls.conn.send_close_notify();
            let _gone_already = self.tls.flush();
        }
        let _gone_already = self.tls.sock.shutdown(Shutdown::Both);
        Ok(())
    }

    /// Says that nothing more comes, and goes on listening.
    pub fn half_close(&mut self) {
        self.tls.conn.send_close_notify();
        let _gone_already = self.tls.flush();
        let _gone_already = self.tls.sock.shutdown(Shutdown::Write);
    }

    /// The next answer; `None` when the box closes instead.
    pub fn answer(&mut self) -> Result<Option<Response>> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more(&mut bytes)? {
                ensure!(bytes.is_empty(), "half an answer: {}", String::from_utf8_lossy(&bytes));
                return Ok(None);
            }
        };
        let text = std::str::from_utf8(&bytes[..head])?.to_owned();
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?;
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").with_context(|| format!("no header: {line:?}"))?;
            headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let length: usize = header("content-length").map_or(Ok(0), |text| text.parse())?;
        let mut body = bytes.split_off(head);
        while body.len() < length && self.more(&mut body)? {}
        ensure!(body.len() == length, "{} bytes follow the headers, {length} were announced", body.len());
        Ok(Some(Response {
            status: status.parse()?,
            content_type: header("content-type").unwrap_or_default(),
            location: header("location"),
            headers,
            body,
        }))
    }

    /// Adds what comes next; false when the box has closed.
    pub(super) fn more(&mut self, bytes: &mut Vec<u8>) -> Result<bool> {
        let mut piece = [0; 4096];
        match self.tls.read(&mut piece) {
            Ok(0) => Ok(false),
            Ok(read) => {
                bytes.extend_from_slice(&piece[..read]);
                Ok(true)
            }
            Err(error) if is_end(error.kind()) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
    )
}
