//! `POST /tsa`: RFC 3161 time stamps for programs that know nothing of Bulla.
//!
//! What is wrong with the exchange (credential, size, rate, a full queue) is a problem document as everywhere; what is wrong
//! with the request, the time or the state of the box is an RFC 3161 rejection with status 200, because that is what such
//! programs read.
//! Refuses to do: make a token whose seal is not durable; state a time without knowing how wrong it may be, unless told to.
//! Invariant: one token is one seal, and its serial number finds it.

mod asker;

pub use asker::Asker;

use super::seals::essence;
use super::upload::Incoming;
use super::{Connection, Shared};
use crate::config::{ResponderConfig, UnknownTime};
use crate::driver::{SealError, SealOrder};
use crate::problem::{Kind, Problem};
use crate::telemetry::{family, line};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, Observation};
use bulla_formats::entry::LocalTime;
use bulla_formats::hash::sha256;
use bulla_timestamps::responder::{
    Imprint, ImprintHash, QUERY_BYTES_MAX, Query, Statement, granted, rejected,
};
use bulla_timestamps::{Failure, Oid, Request as Wire};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What may be refused, in the order of [`Tsa::refused`].
const REFUSALS: [Failure; 7] = [
    Failure::BadAlgorithm,
    Failure::BadRequest,
    Failure::BadDataFormat,
    Failure::TimeNotAvailable,
    Failure::UnacceptedPolicy,
    Failure::UnacceptedExtension,
    Failure::SystemFailure,
];

/// The responder's own state.
#[derive(Debug)]
pub struct Tsa {
    policy: Oid,
    tokens: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
}

/// A rejection on its way to the client.
#[derive(Debug)]
struct Rejection {
    failure: Failure,
    words: String,
}

impl Rejection {
    fn new(failure: Failure, words: impl Into<String>) -> Self {
        Rejection { failure, words: words.into() }
    }
}

impl Tsa {
    /// Nothing stamped yet.
    pub fn new(config: &ResponderConfig) -> Self {
        Tsa { policy: config.policy(), tokens: AtomicU64::new(0), refused: Default::default() }
    }

    /// Appends what was counted in the Prometheus text format.
    pub fn metrics(&self, out: &mut String) {
        let name = "bulla_tsa_tokens_total";
        family(out, name, "counter", "Time-stamp tokens made.");
        line(out, name, "", self.tokens.load(Relaxed));
        let name = "bulla_tsa_refusals_total";
        family(out, name, "counter", "Requests for time stamps that were rejected, by RFC 3161 failure.");
        for (failure, count) in REFUSALS.iter().zip(&self.refused) {
            line(out, name, &format!("failure=\"{}\"", failure.name()), count.load(Relaxed));
        }
    }

    /// Requests that were rejected for the box's own state, not for what they are.
    pub fn refused_by_itself(&self) -> u64 {
        let own = |failure: &Failure| matches!(failure, Failure::TimeNotAvailable | Failure::SystemFailure);
        let counts = REFUSALS.iter().zip(&self.refused).filter(|(failure, _)| own(failure));
        counts.map(|(_, count)| count.load(Relaxed)).sum()
    }

    fn refused(&self, failure: Failure) {
        if let Some(at) = REFUSALS.iter().position(|one| *one == failure) {
            self.refused[at].fetch_add(1, Relaxed);
        }
    }
}

/// `POST /tsa`.
pub async fn stamp(State(api): State<Shared>, asker: Asker, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if essence(&parts.headers).as_deref() != Some(Wire::CONTENT_TYPE) {
        let detail = "a request for a time stamp has the Content-Type application/timestamp-query";
        return Err(Problem::new(Kind::UnsupportedMediaType, detail).close_if_large(&parts.headers));
    }
    api.refuse_when_full(&parts.headers).await?;
    let incoming = Incoming::new(&parts.headers, body, QUERY_BYTES_MAX as u64, api.config.body_pace())?;
    let bytes = incoming.collect().await?;
    let transport =
        parts.extensions.get::<Arc<Connection>>().map_or("https", |connection| connection.transport);
    let begun = Instant::now();
    let reply = match token(&api, &asker, transport, &bytes).await? {
        Ok(token) => {
            api.tsa.tokens.fetch_add(1, Relaxed);
            api.metrics.seal(begun.elapsed());
            granted(&token)
        }
        Err(Rejection { failure, words }) => {
            api.tsa.refused(failure);
            log::debug!("a time stamp was refused ({}): {words}", failure.name());
            rejected(failure, &words)
        }
    };
    Ok(super::receipt::respond(StatusCode::OK, Wire::REPLY_CONTENT_TYPE, reply))
}

/// `GET /tsa/certificate`: the certificate of the key that signs now, and the CA above it, in PEM.
pub async fn certificate(State(api): State<Shared>) -> Result<Response, Problem> {
    if !api.config.tsa.enabled {
        return Err(off());
    }
    let stamper =
        api.sealer.stamper().map_err(|reason| Problem::new(Kind::Locked, reason).retry_after(30))?;
    let pem = format!("{}{}", pem(stamper.certificate().der()), api.certificates.ca_pem());
    Ok(super::receipt::respond(StatusCode::OK, "application/x-pem-file", pem))
}

fn off() -> Problem {
    Problem::new(
        Kind::NoTimeStamps,
        "this box makes no RFC 3161 time stamps; the operator turns them on with enabled = true in [tsa]",
    )
}

fn pem(der: &[u8]) -> String {
    let text = bulla_formats::json::base64_encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

async fn token(
    api: &Shared,
    asker: &Asker,
    transport: &str,
    bytes: &[u8],
) -> Result<Result<Vec<u8>, Rejection>, Problem> {
    let query = match ask(api, bytes) {
        Ok(query) => query,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let stamper = match api.sealer.stamper() {
        Ok(stamper) => stamper,
        Err(reason) => return Ok(Err(Rejection::new(Failure::SystemFailure, reason))),
    };
    let order = order(&query.imprint, asker, transport);
    let stamped = match api.sealer.stamp(order, stamper).await {
        Ok(stamped) => stamped,
        // As on every route: whoever asks too fast is told when to come back.
        Err(error @ SealError::Overloaded) => return Err(Problem::of_seal_error(error, &api.sealer)),
        Err(error) => return Ok(Err(Rejection::new(Failure::SystemFailure, error.to_string()))),
    };
    let time = stamped.entry.content().time;
    let accuracy_millis = match accuracy(&api.config.tsa, &time) {
        Ok(accuracy) => accuracy,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let certificate = stamped.stamper.certificate();
    if !certificate.is_valid_at(time.unix_millis) {
        let words = "the box's clock is outside the validity of its certificate";
        return Ok(Err(Rejection::new(Failure::TimeNotAvailable, words)));
    }
    let statement = Statement {
        query: &query,
        policy: &api.tsa.policy,
        serial: stamped.serial(),
        unix_millis: time.unix_millis,
        accuracy_millis,
    };
    let signed = statement
        .token(certificate, |message| Ok::<_, std::convert::Infallible>(stamped.stamper.sign(message)));
    match signed {
        Ok(token) => Ok(Ok(token)),
        Err(never) => match never {},
    }
}

/// Reads a request, and refuses before anything is sealed what would get no token.
fn ask<'a>(api: &Shared, bytes: &'a [u8]) -> Result<Query<'a>, Rejection> {
    let query = Query::decode(bytes).map_err(|error| Rejection::new(error.failure(), error.to_string()))?;
    if query.policy.as_ref().is_some_and(|policy| *policy != api.tsa.policy) {
        let words = format!("the only policy here is {}", api.tsa.policy);
        return Err(Rejection::new(Failure::UnacceptedPolicy, words));
    }
    accuracy(&api.config.tsa, &api.sealer.local_time())?;
    Ok(query)
}

/// What a token of this time states of its accuracy, in milliseconds. The time is cut to a millisecond, which may be the
/// whole of the next one.
fn accuracy(config: &ResponderConfig, time: &LocalTime) -> Result<Option<u64>, Rejection> {
    let no = |words: String| Err(Rejection::new(Failure::TimeNotAvailable, words));
    match (time.uncertainty_millis, config.unknown_time) {
        (None, UnknownTime::Unstated) => Ok(None),
        (None, UnknownTime::Refuse) => {
            no("no authority has told the box the time, so it knows no bound of its clock's error".to_owned())
        }
        (Some(millis), _) if millis >= config.accuracy_max_seconds * 1_000 => {
            no(format!("the box's clock may be off by {millis} ms, more than its policy allows"))
        }
        (Some(millis), _) => Ok(Some(millis + 1)),
    }
}

/// What is sealed. The log knows SHA-256 and SHA-512; of a SHA-384 imprint it has the SHA-256 of its 48 bytes.
fn order(imprint: &Imprint<'_>, asker: &Asker, transport: &str) -> SealOrder {
    let (algorithm, value, size, media_type) = match imprint.hash {
        ImprintHash::Sha256 => (DigestAlgorithm::Sha256, imprint.value.to_vec(), None, Wire::CONTENT_TYPE),
        ImprintHash::Sha512 => (DigestAlgorithm::Sha512, imprint.value.to_vec(), None, Wire::CONTENT_TYPE),
        ImprintHash::Sha384 => (
            DigestAlgorithm::Sha256,
            sha256(&[imprint.value]).0.to_vec(),
            Some(imprint.value.len() as u64),
            "application/timestamp-query; imprint=sha-384",
        ),
    };
    let observation = if size.is_some() { Observation::BytesObserved } else { Observation::DigestClaimed };
    let credential = if asker.is_known_by_network { "; no credential" } else { "" };
    SealOrder {
        digest: DocumentDigest { algorithm, value, size },
        media_type: media_type.to_owned(),
        observation,
        client: asker.client.clone(),
        transport: format!("{transport}; rfc3161{credential}"),
        openings: Vec::new(),
        relations: Vec::new(),
        request: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_is_stated_or_refused_and_never_guessed() {
        let at = |uncertainty_millis| LocalTime { unix_millis: 1_795_303_800_500, uncertainty_millis };
        let config = ResponderConfig::default();
        assert_eq!(accuracy(&config, &at(Some(0))).unwrap(), Some(1));
        assert_eq!(accuracy(&config, &at(Some(59_999))).unwrap(), Some(60_000));
        for unknown in [Some(60_000), None] {
            let refused = accuracy(&config, &at(unknown)).unwrap_err();
            assert_eq!(refused.failure, Failure::TimeNotAvailable);
        }
        let told = ResponderConfig { unknown_time: UnknownTime::Unstated, ..config };
        assert_eq!(accuracy(&told, &at(None)).unwrap(), None);
        assert!(accuracy(&told, &at(Some(60_000))).is_err(), "what is known to be bad is not left out");
    }

    #[test]
    fn pem_has_lines_of_64() {
        let text = pem(&[7; 100]);
        assert!(text.lines().all(|line| line.len() <= 64) && text.lines().count() == 5, "{text}");
    }
}
