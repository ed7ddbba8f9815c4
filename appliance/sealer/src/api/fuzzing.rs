//! For fuzz targets: readers of requests one by one, and a whole box behind an HTTP/1.1 connection in memory.
//!
//! The box is a real one with software keys, less TLS: who asks is told by name, as for a client certificate.

use super::access::bearer_token;
use super::content_digest;
use super::description::Description;
use super::{Api, Connection, Shared, bulk, handle, router, seals, search};
use crate::clients::{ClientLimits, ClientStore, Role};
use crate::config::Config;
use crate::dial_out::DialOut;
use crate::{driver, identity, tls};
use anyhow::Result;
use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, Observation, Opening};
use bulla_formats::hash::Hash;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

/// Header fields; `None` when HTTP has no such field.
fn header_map(fields: &[(&str, &[u8])]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

/// The token of an `Authorization` value.
pub fn bearer(value: &str) -> Option<&str> {
    bearer_token(value)
}

/// Digests announced by header fields; `None` when these are refused.
pub fn announced(fields: &[(&str, &[u8])]) -> Option<Vec<(DigestAlgorithm, Vec<u8>)>> {
    let announced = content_digest::announced(&header_map(fields)?).ok()?;
    Some(announced.into_iter().map(|one| (one.algorithm, one.value)).collect())
}

/// The idempotency key of header fields: refused, none, or a key.
pub fn idempotency_key(fields: &[(&str, &[u8])]) -> Option<Option<Vec<u8>>> {
    let headers = header_map(fields)?;
    seals::idempotency_key(&headers).ok().map(|key| key.map(<[u8]>::to_vec))
}

/// What a document's description comes to: its openings, and the request's fingerprint.
pub type Described = (Vec<Opening>, Hash);

/// What header fields say about a document.
pub fn described_by_fields(fields: &[(&str, &[u8])], digest: &DocumentDigest) -> Option<Described> {
    let description = Description::from_headers(&header_map(fields)?).ok()?;
    let openings = description.openings().ok()?;
    Some((openings, description.fingerprint(digest, Observation::BytesObserved)))
}

/// What an order by digest says.
pub fn described_by_json(bytes: &[u8]) -> Option<(DocumentDigest, Described)> {
    let (digest, description) = Description::from_digest_json(bytes).ok()?;
    let openings = description.openings().ok()?;
    let fingerprint = description.fingerprint(&digest, Observation::DigestClaimed);
    Some((digest, (openings, fingerprint)))
}

fn uri(query: &str) -> Option<Uri> {
    format!("/v1/seals?{query}").parse().ok()
}

/// Whether the query of `POST /v1/seals` is understood.
pub fn order_query(query: &str) -> bool {
    uri(query).is_some_and(|uri| seals::Options::read(&uri).is_ok())
}

/// Times, cursor and length of the page that the query of `GET /v1/seals` asks for.
pub fn search_query(query: &str) -> Option<(Option<Range<u64>>, Option<u64>, usize)> {
    let query = search::read(&uri(query)?).ok()?;
    Some((query.times, query.below, query.limit))
}

/// Digests in the body of a bulk request: `None` for the items that say none.
pub fn bulk_digests(bytes: &[u8]) -> Option<Vec<Option<DocumentDigest>>> {
    bulk::read_all(bytes).ok()
}

/// A box with software keys, and nobody in front of it.
pub struct TestBox {
    runtime: Runtime,
    api: Shared,
    router: Router,
}

impl TestBox {
    /// Makes a box in `state`, which must not exist. Its clients are named after their roles.
    pub fn create(state: &Path) -> Result<Self> {
        let text = format!(
            "state_dir = {:?}\n[identity]\nfleet = \"fuzz.example\"\n[software]\naccept = true\n\
             [limits]\nclient_requests_per_second = 0\nanonymous_requests_per_second = 0\n\
             [selfcheck]\nself_test_seconds = 0\nscrub_pass_seconds = 0\n",
            state.display().to_string(),
        );
        let config = Config::parse(&text)?;
        identity::create(&config)?;
        let clients = ClientStore::new(&config.state_dir);
        for role in Role::ALL {
            clients.add_certificate(role.name(), role, role.name(), ClientLimits::default())?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // What starts a box's tasks wants a runtime around it.
        let _within = runtime.enter();
        let identity = identity::open(&config)?;
        let (_, certificates) = tls::server_config(&identity.keys, &config, identity.hubs.clone())?;
        let sealer = driver::start(&config, identity)?;
        let dial_out = Arc::new(DialOut::new(None)?);
        let api = Arc::new(Api::new(sealer, config, certificates, dial_out));
        // Streams of events would last as long as the box does.
        api.events.stop();
        let router = router(api.clone());
        drop(_within);
        Ok(TestBox { runtime, api, router })
    }

    /// Sends the bytes of a connection as the client of this role, or as nobody, and gives back what is answered.
    pub fn ask(&self, role: Option<&str>, bytes: &[u8]) -> Vec<u8> {
        let connection = Arc::new(Connection {
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            transport: "https/1.1 tls1.3",
            common_name: role.map(Arc::from),
            client_spki: None,
        });
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (router, api, connection) = (self.router.clone(), self.api.clone(), connection.clone());
            async move { Ok::<_, Infallible>(handle(router, &api, connection, request).await) }
        });
        self.runtime.block_on(async {
            let (client, server) = tokio::io::duplex(bytes.len().max(64 << 10));
            // Without half-closing, the end of the request would be taken for the client's going away.
            let serve = http1::Builder::new()
                .half_close(true)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(server), service);
            let (mut answer, mut request) = tokio::io::split(client);
            let send = async {
                drop(request.write_all(bytes).await);
                drop(request.shutdown().await);
            };
            let mut answered = Vec::new();
            let (_, (), _) = tokio::join!(serve, send, answer.read_to_end(&mut answered));
            answered
        })
    }

    /// Entries in the box's log.
    pub fn size(&self) -> u64 {
        self.api.sealer.reader().snapshot().size()
    }

    /// Stops its threads.
    pub fn close(self) {
        self.runtime.block_on(self.api.sealer.clone().close());
    }
}
