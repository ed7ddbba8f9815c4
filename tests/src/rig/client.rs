//! A client of a box: HTTPS with the box's own CA pinned, a bearer token, answers as they are.
//!
//! Refuses to do: retry or follow redirects; a test wants to see what happened.

use anyhow::{Context, Result, ensure};
use bulla_formats::seal_file::SealFile;
use serde_json::Value;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, SendBody};

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// `Location`.
    pub location: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// A header, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON ({}): {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The slug of a problem's type (RFC 9457), after checking that it is one.
    pub fn problem(&self) -> Result<String> {
        ensure!(
            self.content_type.starts_with("application/problem+json"),
            "{} {} is no problem document: {}",
            self.status,
            self.content_type,
            String::from_utf8_lossy(&self.body)
        );
        let json = self.json()?;
        ensure!(json["status"] == self.status, "the problem's status is not the answer's");
        for member in ["title", "detail"] {
            ensure!(json[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {json}");
        }
        let kind = json["type"].as_str().context("a problem has a type")?;
        Ok(kind.rsplit([':', '/']).next().unwrap_or(kind).to_owned())
    }

    /// The `.seal` of a receipt.
    pub fn seal(&self) -> Result<SealFile> {
        let json = self.json()?;
        let seal = if json["bulla"].is_string() { &json } else { &json["seal"] };
        Ok(SealFile::decode(seal.to_string().as_bytes())?)
    }
}

/// A client; clones share connections.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
}

impl Client {
    /// A client of the box on this port.
    pub fn new(port: u16, ca_pem: &str, token: Option<&str>) -> Self {
        let roots: Vec<Certificate<'static>> = parse_pem(ca_pem.as_bytes())
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Client { agent, base: format!("https://127.0.0.1:{port}"), token: token.map(str::to_owned) }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Result<Response> {
        self.send("GET", path, &[], ())
    }

    /// POST with headers.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        self.send("POST", path, headers, body)
    }

    /// POST of whatever `body` reads, in chunks, without its length.
    pub fn post_stream(&self, path: &str, headers: &[(&str, &str)], body: &mut dyn Read) -> Result<Response> {
        self.send("POST", path, headers, SendBody::from_reader(body))
    }

    /// Any request.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsSendBody,
    ) -> Result<Response> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.agent.run(request.body(body)?)?)
    }

    /// Seals a PDF.
    pub fn seal(&self, document: &[u8]) -> Result<Response> {
        self.post("/v1/seals", &[("Content-Type", "application/pdf")], document)
    }

    /// Seals by digest only; the body of `application/vnd.bulla.digest+json`.
    pub fn seal_digest(&self, order: &Value, headers: &[(&str, &str)]) -> Result<Response> {
        let mut all = vec![("Content-Type", "application/vnd.bulla.digest+json")];
        all.extend_from_slice(headers);
        self.post("/v1/seals", &all, order.to_string().as_bytes())
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Response> {
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (content_type, location) = (header("content-type").unwrap_or_default(), header("location"));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.body_mut().with_config().limit(64 << 20).read_to_vec()?;
    Ok(Response { status, content_type, location, headers, body })
}
