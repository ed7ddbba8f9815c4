//! The baseline of uploads: a TLS server that reads a body, hashes nothing, keeps nothing, and says 201.

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Starts it; returns its port and its certificate in PEM.
pub async fn start() -> Result<(u16, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that goes away ends its own connection only.
            tokio::spawn(serve(acceptor.clone(), tcp));
        }
    });
    Ok((port, made.cert.pem()))
}

async fn serve(acceptor: TlsAcceptor, tcp: TcpStream) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut have = 0;
        let head_end = loop {
            let read = stream.read(&mut buffer[have..]).await?;
            if read == 0 {
                return Ok(());
            }
            have += read;
            if let Some(at) = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(&buffer[..head_end])?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("requests carry a content-length")?.trim().parse()?;
        let mut left = (head_end + length).saturating_sub(have);
        while left > 0 {
            let read = stream.read(&mut buffer).await?;
            left = left.saturating_sub(read);
        }
        stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await?;
        stream.flush().await?;
    }
}
