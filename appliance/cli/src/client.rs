//! The box over HTTPS: one pinned CA, one token, a bounded number of attempts.
//!
//! Refuses to do: speak plain HTTP, follow redirects, use proxies from the environment, trust any CA but the one
//! given, retry what the box has refused for good.
//! Invariant: the token appears in the Authorization header and nowhere else.

use crate::exit::{Exit, Failure};
use crate::files::read_limited;
use bulla_formats::json;
use clap::Args;
use serde_json::Value;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};
use zeroize::Zeroizing;

/// Largest answer that is read: a receipt with a whole `.seal` in it.
const ANSWER_BYTES_MAX: usize = 8 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the last byte sent to the first byte of the answer; waiting for a fact takes at most 60 s of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Where the box is and how to speak to it.
#[derive(Debug, Clone, Args)]
pub struct BoxOptions {
    /// Address of the box, e.g. `https://bulla.branch.example:8443`
    #[arg(long = "box", value_name = "URL")]
    pub url: String,
    /// The box's own CA certificate (PEM); only certificates of this CA are accepted
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// File that holds the token which the box's operator issued
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// How often a request is tried when the box is busy or cannot be reached
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
}

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// No answer; trying again may help.
    Unreachable(String),
    /// The box answered that it cannot now; trying again may help.
    Busy {
        /// Its words.
        detail: String,
        /// When it asks to be tried again.
        after: Option<Duration>,
    },
    /// The box refused for good.
    Refused {
        /// Stable name of the problem; empty when the answer was not the box's.
        slug: String,
        /// Its words.
        detail: String,
    },
    /// A local file failed while it was being sent.
    Local(String),
}

impl CallError {
    /// The failure to end with.
    pub fn into_failure(self, what: &str) -> Failure {
        match self {
            CallError::Unreachable(detail) => Failure::new(
                Exit::Box,
                format!("{what}: the box cannot be reached ({detail}); check --box and the network"),
            ),
            CallError::Busy { detail, .. } => Failure::new(
                Exit::Box,
                format!("{what}: the box cannot do it now ({detail}); try again later"),
            ),
            CallError::Refused { detail, .. } => {
                Failure::new(Exit::Box, format!("{what}: the box refused: {detail}"))
            }
            CallError::Local(detail) => Failure::usage(format!("{what}: {detail}")),
        }
    }
}

/// The body of an answer with status 2xx.
#[derive(Debug)]
pub struct Answer {
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as strict JSON.
    pub fn json(&self) -> Result<Value, CallError> {
        json::parse(&self.body, ANSWER_BYTES_MAX).map_err(|error| {
            let detail = format!("its answer is not what this program understands ({error}); check that --box names a Bulla box of this version");
            CallError::Refused { slug: String::new(), detail }
        })
    }
}

/// A box to talk to; clones share connections.
#[derive(Clone)]
pub struct BoxClient {
    agent: Agent,
    url: String,
    authorization: Zeroizing<String>,
    attempts: u32,
}

impl BoxClient {
    /// Reads CA and token; connects to nothing yet.
    pub fn new(options: &BoxOptions) -> Result<Self, Failure> {
        let url = options.url.trim_end_matches('/').to_owned();
        if !url.starts_with("https://") || url.len() <= "https://".len() {
            return Err(Failure::usage(format!(
                "--box {url:?} is not an https:// address; the box speaks HTTPS only, e.g. https://bulla.branch.example:8443"
            )));
        }
        let roots = read_ca(&options.ca)?;
        let tls = TlsConfig::builder().root_certs(RootCerts::from(roots)).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("bulla/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .build()
            .new_agent();
        let authorization = read_token(&options.token_file)?;
        Ok(BoxClient { agent, url, authorization, attempts: options.attempts })
    }

    /// The address without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// GET, tried as often as allowed.
    pub fn get(&self, path: &str, accept: &str) -> Result<Answer, CallError> {
        let target = format!("{}{path}", self.url);
        self.attempt(&|_| {}, || {
            let request = self
                .agent
                .get(&target)
                .header("accept", accept)
                .header("authorization", self.authorization.as_str());
            answer(request.call())
        })
    }

    /// POST of what `body` opens, tried as often as allowed; each try opens it anew. `again` hears why a try
    /// is repeated.
    pub fn post<R: Read>(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        length: u64,
        mut body: impl FnMut() -> io::Result<R>,
        again: &dyn Fn(&str),
    ) -> Result<Answer, CallError> {
        let target = format!("{}{path}", self.url);
        self.attempt(again, || {
            let mut source = Source { reader: body().map_err(local)?, left: length, failed: None };
            let mut request = Request::post(&target)
                .header("authorization", self.authorization.as_str())
                .header("content-length", length);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            // The box says no before a large document has been sent for nothing.
            if length > 0 {
                request = request.header("expect", "100-continue");
            }
            let request = request
                .body(SendBody::from_reader(&mut source))
                .map_err(|error| CallError::Local(format!("the request cannot be made: {error}")))?;
            let result = answer(self.agent.run(request));
            match source.failed {
                Some(error) => Err(local(error)),
                None => result,
            }
        })
    }

    /// POST, tried once, whatever the answer says.
    pub fn post_once<R: Read>(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        length: u64,
        reader: R,
    ) -> Result<Tried, NoAnswer> {
        let mut source = Source { reader, left: length, failed: None };
        let mut request = Request::post(format!("{}{path}", self.url))
            .header("authorization", self.authorization.as_str())
            .header("content-length", length)
            .header("expect", "100-continue");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answered = match request.body(SendBody::from_reader(&mut source)) {
            Ok(request) => tried(self.agent.run(request)),
            Err(error) => Err(CallError::Local(format!("the request cannot be made: {error}"))),
        };
        // The box seals nothing before the last byte.
        let handed_over = source.left == 0;
        match source.failed {
            Some(error) => Err(NoAnswer { error: local(error), handed_over: false }),
            None => answered.map_err(|error| NoAnswer { error, handed_over }),
        }
    }

    /// GET, tried once, whatever the answer says.
    pub fn get_once(&self, path: &str) -> Result<Tried, CallError> {
        let request = self.agent.get(format!("{}{path}", self.url));
        tried(request.header("authorization", self.authorization.as_str()).call())
    }

    /// POST without a body; `take` gets the answer of a success while it arrives. An answer that breaks off is not
    /// asked for again.
    pub fn post_for_stream<T>(
        &self,
        path: &str,
        take: impl Fn(&mut dyn Read) -> io::Result<T>,
    ) -> Result<T, CallError> {
        let target = format!("{}{path}", self.url);
        let response = self.attempt(&|_| {}, || {
            let request = self.agent.post(&target).header("authorization", self.authorization.as_str());
            let response = request.send_empty().map_err(unreachable)?;
            if response.status().is_success() { Ok(response) } else { Err(refusal(response)) }
        })?;
        take(&mut response.into_body().as_reader()).map_err(|error| {
            CallError::Local(format!("the answer did not arrive whole ({error}); try again"))
        })
    }

    fn attempt<T>(
        &self,
        again: &dyn Fn(&str),
        mut call: impl FnMut() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut backoff = BACKOFF_FIRST;
        for _ in 1..self.attempts {
            let pause = match call() {
                Err(CallError::Unreachable(detail)) => {
                    again(&format!("no answer ({detail}), trying again"));
                    backoff
                }
                Err(CallError::Busy { detail, after }) => {
                    again(&format!("the box cannot do it now ({detail}), trying again"));
                    after.map_or(backoff, |after| after.clamp(backoff, RETRY_AFTER_MAX))
                }
                other => return other,
            };
            std::thread::sleep(pause);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        call()
    }
}

/// What is being sent: at most the announced length, and a reader's own failure kept apart from the network's.
struct Source<R> {
    reader: R,
    left: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        match self.reader.read(&mut buffer[..limit]) {
            Ok(length) if length > 0 => {
                self.left -= length as u64;
                Ok(length)
            }
            Ok(_) => self.fail(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was being sent",
            )),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => self.fail(error),
        }
    }
}

impl<R> Source<R> {
    fn fail(&mut self, error: io::Error) -> io::Result<usize> {
        let told = io::Error::new(error.kind(), error.to_string());
        self.failed = Some(error);
        Err(told)
    }
}

fn local(error: io::Error) -> CallError {
    CallError::Local(format!(
        "the file cannot be read ({error}); nothing was sealed, try again when it is at rest"
    ))
}

/// An answer, whatever it says.
#[derive(Debug)]
pub struct Tried {
    /// HTTP status.
    pub status: u16,
    /// When the box asks to be asked again.
    pub after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

/// A request without an answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// Why.
    pub error: CallError,
    /// Whether all of the body had gone out, so that the box may have acted on it.
    pub handed_over: bool,
}

fn tried(result: Result<Response<Body>, ureq::Error>) -> Result<Tried, CallError> {
    let mut response = result.map_err(unreachable)?;
    let (status, after) = (response.status().as_u16(), retry_after(&response));
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX as u64).read_to_vec();
    Ok(Tried { status, after, body: body.map_err(unreachable)? })
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

fn answer(result: Result<Response<Body>, ureq::Error>) -> Result<Answer, CallError> {
    let mut response = result.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(refusal(response));
    }
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX as u64).read_to_vec();
    Ok(Answer { body: body.map_err(unreachable)? })
}

/// What an answer that is no success says.
fn refusal(mut response: Response<Body>) -> CallError {
    let status = response.status();
    let after = retry_after(&response);
    let body = match response.body_mut().with_config().limit(ANSWER_BYTES_MAX as u64).read_to_vec() {
        Ok(body) => body,
        Err(error) => return unreachable(error),
    };
    let (slug, detail) = problem(&body);
    let detail = detail.unwrap_or_else(|| format!("HTTP status {status}, without an explanation"));
    match status.as_u16() {
        408 | 429 | 503 => CallError::Busy { detail, after },
        _ => CallError::Refused { slug, detail },
    }
}

/// Slug and detail of an RFC 9457 problem.
pub fn problem(body: &[u8]) -> (String, Option<String>) {
    let Ok(value) = json::parse(body, ANSWER_BYTES_MAX) else { return (String::new(), None) };
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let slug = text("type").and_then(|kind| kind.rsplit(':').next()).unwrap_or_default();
    let detail = text("detail").or(text("title")).map(str::to_owned);
    (slug.to_owned(), detail)
}

fn unreachable(error: ureq::Error) -> CallError {
    let refused = |detail: String| CallError::Refused { slug: String::new(), detail };
    let certificate = |error: &dyn std::fmt::Display| {
        refused(format!(
            "its TLS certificate is not accepted ({error}); check that --ca is the CA of this very box and that --box uses a name of its certificate"
        ))
    };
    match &error {
        ureq::Error::Rustls(inner) => certificate(inner),
        ureq::Error::Io(inner) if inner.kind() == io::ErrorKind::InvalidData => certificate(inner),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            refused(format!("the address is not usable ({error})"))
        }
        ureq::Error::BodyExceedsLimit(_) => {
            refused("its answer is larger than any this program knows".into())
        }
        _ => CallError::Unreachable(error.to_string()),
    }
}

fn read_ca(path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let shown = path.display();
    let pem = read_limited(path, 1 << 20).map_err(|error| {
        Failure::usage(format!(
            "the CA file {shown} cannot be read: {error}; fetch it from the box, see `bulla-box --help`"
        ))
    })?;
    authorities(&pem).map_err(|reason| {
        Failure::usage(format!("the CA file {shown} {reason}; fetch it from the box again"))
    })
}

/// The certificates in a CA file, at least one; else what is wrong with the file.
pub fn authorities(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let items = parse_pem(pem).collect::<Result<Vec<_>, _>>();
    let items = items.map_err(|error| format!("is not PEM ({error})"))?;
    let certificates: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(certificates)
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let shown = path.display();
    let bytes = read_limited(path, 4_096).map(Zeroizing::new).map_err(|error| {
        Failure::usage(format!(
            "the token file {shown} cannot be read: {error}; ask the box's operator for a token"
        ))
    })?;
    let Some(token) = token(&bytes) else {
        let message =
            format!("the token file {shown} does not hold one token; ask the box's operator for a new one");
        return Err(Failure::usage(message));
    };
    Ok(Zeroizing::new(format!("Bearer {token}")))
}

/// The one token in a token file.
pub fn token(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path, url: &str) -> BoxOptions {
        BoxOptions {
            url: url.into(),
            ca: directory.join("ca.pem"),
            token_file: directory.join("token"),
            attempts: 2,
        }
    }

    #[test]
    fn what_cannot_work_is_said_before_anything_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let said = |url: &str| BoxClient::new(&options(directory.path(), url)).err().unwrap();
        assert!(said("http://box").message.contains("https://"));
        assert!(said("https://box").message.contains("cannot be read"));
        std::fs::write(directory.path().join("ca.pem"), "no pem").unwrap();
        assert!(said("https://box").message.contains("no certificate"));
        assert_eq!(said("https://box").exit, Exit::Usage);
    }

    #[test]
    fn problems_are_read_and_anything_else_is_survived() {
        let body = br#"{"type":"urn:bulla:problem:digest-mismatch","title":"t","status":400,"detail":"why"}"#;
        assert_eq!(problem(body), ("digest-mismatch".into(), Some("why".into())));
        assert_eq!(problem(b"<html>"), (String::new(), None));
        assert_eq!(problem(b"[]"), (String::new(), None));
    }

    #[test]
    fn a_source_never_gives_more_or_silently_less_than_announced() {
        let mut long = Source { reader: &b"abcdef"[..], left: 4, failed: None };
        let mut read = Vec::new();
        long.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"abcd");
        let mut short = Source { reader: &b"ab"[..], left: 4, failed: None };
        assert!(short.read_to_end(&mut Vec::new()).is_err());
        assert!(short.failed.is_some());
    }
}
