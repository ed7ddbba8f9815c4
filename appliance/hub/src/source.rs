//! One place where a log can be had: C2SP tlog-tiles over HTTPS, one pinned CA, the hub's own certificate.
//!
//! Refuses to do: speak plain HTTP, follow redirects, use proxies from the environment, trust any CA but the one given,
//! believe anything of what comes. Invariant: no answer is read beyond the size that it may have.

use crate::config::SourceConfig;
use crate::dialled::{Dialled, Nowhere};
use crate::room::Room;
use bulla_formats::hash::Hash;
use bulla_formats::note::NOTE_BYTES_MAX;
use bulla_formats::tile::{ENTRY_BYTES_MAX, TileCoordinate, TileKind, parse_entries, parse_hashes};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{Connector as _, RustlsConnector};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a source gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file of the configuration cannot be used.
    #[error("{0}")]
    Configured(String),
    /// No answer.
    #[error("{url} cannot be reached ({reason})")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// It answered with another status than 200.
    #[error("{url} was answered with status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer is not what was asked for.
    #[error("{url}: the answer is {what}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A source; clones share connections.
#[derive(Clone)]
pub struct Source {
    agent: Agent,
    base: String,
    authorization: Option<Zeroizing<String>>,
    own: bool,
}

/// Longest answer that is read of what was posted.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| {
        let words = format!("{} cannot be read ({error}); the configuration names it", path.display());
        SourceError::Configured(words)
    })
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, SourceError> {
    let bytes = read(path)?;
    let found: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        let words = format!("{} holds no certificate in PEM", path.display());
        return Err(SourceError::Configured(words));
    }
    Ok(found)
}

/// Only certificates by the CAs in this file are believed.
pub fn roots(path: &Path) -> Result<RootCerts, SourceError> {
    Ok(RootCerts::from(certificates(path)?))
}

impl Source {
    /// Reads certificates and token; connects to nothing yet. `room` is where boxes that dial the hub wait, if they do.
    pub fn new(
        config: &SourceConfig,
        origin: &str,
        timeout: Duration,
        room: Option<&Arc<Room>>,
    ) -> Result<Self, SourceError> {
        let client = match (&config.certificate, &config.key) {
            (Some(chain), Some(key)) => {
                let words = format!("{} holds no private key in PEM", key.display());
                let private = PrivateKey::from_pem(&read(key)?);
                let private = private.map_err(|_| SourceError::Configured(words))?;
                Some(ClientCert::new_with_certs(&certificates(chain)?, private))
            }
            _ => None,
        };
        let tls = TlsConfig::builder().root_certs(roots(&config.ca)?).client_cert(client).build();
        let settings = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("bulla-hub/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout))
            .build();
        let agent = match (&config.dial_in, room) {
            (None, _) => settings.new_agent(),
            (Some(name), Some(room)) => {
                let (room, name) = (room.clone(), name.clone());
                let dialled = Dialled { room, name, patience: CONNECT_TIMEOUT };
                Agent::with_parts(settings, dialled.chain(RustlsConnector::default()), Nowhere)
            }
            (Some(name), None) => {
                let words = format!("the box {name:?} dials the hub, which only `bulla-hub serve` hears");
                return Err(SourceError::Configured(words));
            }
        };
        let authorization = match &config.token_file {
            None => None,
            Some(path) => {
                let bytes = read(path)?;
                let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
                if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    let words = format!("{} holds no token", path.display());
                    return Err(SourceError::Configured(words));
                }
                Some(Zeroizing::new(format!("Bearer {token}")))
            }
        };
        Ok(Source { agent, base: config.base(origin), authorization, own: !config.mirror })
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether it is the log's own box.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Posts JSON; answers with the status, and what was said if it is text.
    pub fn post(&self, path: &str, json: String) -> Result<(u16, String), SourceError> {
        let url = format!("{}/{path}", self.base);
        let unreachable = |reason: String| SourceError::Unreachable { url: url.clone(), reason };
        let mut request = Request::post(&url).header("Content-Type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.as_str());
        }
        let request = request.body(json).map_err(|error| unreachable(error.to_string()))?;
        let mut answer = self.agent.run(request).map_err(|error| unreachable(error.to_string()))?;
        let mut said = Vec::new();
        let read = answer.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut said);
        read.map_err(|error| unreachable(error.to_string()))?;
        Ok((answer.status().as_u16(), String::from_utf8_lossy(&said).into_owned()))
    }

    fn get(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, SourceError> {
        let url = format!("{}/{path}", self.base);
        let unreachable = |reason: String| SourceError::Unreachable { url: url.clone(), reason };
        let mut request = Request::get(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.as_str());
        }
        let request = request.body(()).map_err(|error| unreachable(error.to_string()))?;
        let mut answer = self.agent.run(request).map_err(|error| unreachable(error.to_string()))?;
        if answer.status() != 200 {
            return Err(SourceError::Status { url, status: answer.status().as_u16() });
        }
        let mut body = Vec::new();
        let limit = bytes_max as u64 + 1;
        let read = answer.body_mut().as_reader().take(limit).read_to_end(&mut body);
        read.map_err(|error| unreachable(error.to_string()))?;
        if body.len() > bytes_max {
            return Err(SourceError::Malformed { url, what: "longer than it may be" });
        }
        Ok(body)
    }

    /// The newest signed head, as it came.
    pub fn checkpoint(&self) -> Result<String, SourceError> {
        let bytes = self.get("checkpoint", NOTE_BYTES_MAX)?;
        String::from_utf8(bytes)
            .map_err(|_| SourceError::Malformed { url: format!("{}/checkpoint", self.base), what: "no text" })
    }

    /// A tile; where a partial one is gone, the beginning of the full one that took its place.
    fn tile(&self, asked: TileCoordinate) -> Result<(Vec<u8>, u16), SourceError> {
        let each = match asked.kind() {
            TileKind::Hashes { .. } => 32,
            TileKind::Entries => 2 + ENTRY_BYTES_MAX,
        };
        let full = match asked.kind() {
            TileKind::Hashes { level } => TileCoordinate::hashes(level, asked.index(), 256),
            TileKind::Entries => TileCoordinate::entries(asked.index(), 256),
        };
        match (self.get(&asked.path(), each * usize::from(asked.width())), full) {
            (Err(SourceError::Status { status: 404, .. }), Ok(full)) if !asked.is_full() => {
                Ok((self.get(&full.path(), each * 256)?, 256))
            }
            (bytes, _) => Ok((bytes?, asked.width())),
        }
    }

    /// The first `width` entries of a bundle.
    pub fn entries(&self, index: u64, width: u16) -> Result<Vec<Vec<u8>>, SourceError> {
        let asked = TileCoordinate::entries(index, width);
        let malformed = || SourceError::Malformed {
            url: format!("{}/tile/entries/{index}", self.base),
            what: "no entry bundle of that width",
        };
        let (bytes, came) = self.tile(asked.map_err(|_| malformed())?)?;
        let entries = parse_entries(&bytes, came).map_err(|_| malformed())?;
        Ok(entries.into_iter().take(usize::from(width)).map(<[u8]>::to_vec).collect())
    }

    /// The first `width` hashes of a tile.
    pub fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<Hash>, SourceError> {
        let asked = TileCoordinate::hashes(level, index, width);
        let malformed = || SourceError::Malformed {
            url: format!("{}/tile/{level}/{index}", self.base),
            what: "no tile of that width",
        };
        let (bytes, came) = self.tile(asked.map_err(|_| malformed())?)?;
        let mut hashes = parse_hashes(&bytes, came).ok_or_else(malformed)?;
        hashes.truncate(usize::from(width));
        Ok(hashes)
    }
}
