//! `POST /v1/seals`, `GET /v1/seals/{id}` and its file.
//!
//! Three ways to hand in a document: its bytes as the body, a multipart form, or its digest. All become one
//! [`SealOrder`]; nothing is sealed before the whole body has come and held every digest announced for it.
//! Refuses to do: keep a document; look at personal data beyond passing it on.

use super::access::{Caller, Right};
use super::content_digest::{CONTENT_DIGEST, CheckedHasher, announced};
use super::description::{Description, Target};
use super::receipt::{self, Made, ReceiptView, SEAL_MEDIA_TYPE};
use super::search::related_by;
use super::upload::{Incoming, STRUCTURED_BYTES_MAX, empty, of_form, text_field};
use super::{Api, Connection, Shared};
use crate::driver::{AttestError, Held, LookupError, Outcome, Receipt, SealOrder, Sealer};
use crate::problem::{Kind, Problem, unknown_relation};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use bulla_formats::body::seal::{
    Assurance, DigestAlgorithm, DocumentDigest, Field, Observation, Opening, Relation, RelationKind, SealBody,
};
use bulla_formats::der::Octets32;
use bulla_formats::entry::Entry;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::seal_file::SealFile;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const DIGEST_MEDIA_TYPE: &str = "application/vnd.bulla.digest+json";
/// Seconds to wait for a fact when the client names none.
const DEADLINE_DEFAULT: u64 = 10;
/// Most seconds to wait for a fact.
const DEADLINE_MAX: u64 = 60;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SealQuery {
    wait: Option<String>,
    deadline_seconds: Option<u64>,
    digest: Option<String>,
}

/// A fact to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// A TPM quote covers the entry.
    Attested,
    /// As many operators as policy asks for have anchored it.
    Anchored,
    /// So many neighbours hold it, or have witnessed it.
    Held(Held, usize),
}

impl Wait {
    /// Reads `attested`, `anchored`, `mirrored(k)` or `witnessed(k)` with k from 1 to 8.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "attested" => return Some(Wait::Attested),
            "anchored" => return Some(Wait::Anchored),
            _ => {}
        }
        let (name, rest) = text.split_once('(')?;
        let peers = match rest.strip_suffix(')')?.as_bytes() {
            [digit @ b'1'..=b'8'] => usize::from(digit - b'0'),
            _ => return None,
        };
        match name {
            "mirrored" => Some(Wait::Held(Held::Mirrored, peers)),
            "witnessed" => Some(Wait::Held(Held::Witnessed, peers)),
            _ => None,
        }
    }
}

/// The query, understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// For what to wait, and how long; `None`: not at all.
    wait: Option<(Wait, Duration)>,
    /// How long to wait for the seal itself when the request is queued.
    patience: Duration,
    /// For uploads.
    algorithm: DigestAlgorithm,
}

impl Options {
    /// Reads the query of a request.
    pub fn read(uri: &Uri) -> Result<Self, Problem> {
        let query = match uri.query() {
            None | Some("") => SealQuery::default(),
            Some(_) => {
                let query: Result<Query<SealQuery>, _> = Query::try_from_uri(uri);
                query.map_err(|error| Problem::invalid(format!("the query is not understood ({error})")))?.0
            }
        };
        let algorithm = match &query.digest {
            None => DigestAlgorithm::Sha256,
            Some(name) => DigestAlgorithm::from_name(name)
                .ok_or_else(|| Problem::invalid("digest is one of sha-256, sha-512, sha3-256"))?,
        };
        let seconds = query.deadline_seconds.unwrap_or(DEADLINE_DEFAULT);
        if seconds > DEADLINE_MAX {
            return Err(Problem::invalid("deadlineSeconds is at most 60"));
        }
        let wait = match query.wait.as_deref() {
            None | Some("sealed") => None,
            Some(text) => {
                let wait = Wait::parse(text).ok_or_else(|| {
                    Problem::invalid(
                        "wait is one of sealed, attested, anchored, mirrored(k), witnessed(k), with k from 1 to 8",
                    )
                })?;
                Some((wait, Duration::from_secs(seconds)))
            }
        };
        let patience = Duration::from_secs(if query.wait.is_some() { seconds } else { 0 });
        Ok(Options { wait, patience, algorithm })
    }
}

/// What has come in, whichever way.
struct Handed {
    digest: DocumentDigest,
    observation: Observation,
    description: Description,
}

/// `POST /v1/seals`.
pub async fn create(
    State(api): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.need(Right::Seal)?;
    let options = Options::read(request.uri())?;
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let key = idempotency_key(&headers)?;
    api.refuse_when_full(&headers).await?;
    let handed = match essence(&headers).as_deref() {
        Some(DIGEST_MEDIA_TYPE) => take_digest(&api, &headers, body).await?,
        Some("multipart/form-data") => take_form(&api, &caller, &headers, body, options.algorithm).await?,
        _ => take_bytes(&api, &caller, &headers, body, options.algorithm).await?,
    };
    let mut handed = handed;
    if let Some(session) = caller.session() {
        handed.description.authenticate(&session.person.name)?;
    }
    let begun = Instant::now();
    let relations = relations(&api, &caller, &handed.description).await?;
    let transport =
        parts.extensions.get::<Arc<Connection>>().map_or("https", |connection| connection.transport);
    let request = key.map(|key| {
        let key = sha256(&[b"bulla/request-key/v1\0", caller.name().as_bytes(), &[0], key]);
        bulla_ledger::Request::new(&key, &handed.description.fingerprint(&handed.digest, handed.observation))
    });
    let openings = handed.description.openings()?;
    let handed_relations = handed.description.relations;
    let order = SealOrder {
        digest: handed.digest,
        observation: handed.observation,
        client: caller.client(),
        transport: transport.to_owned(),
        openings,
        media_type: handed.description.media_type,
        relations,
        request,
    };
    let outcome = api.sealer.seal(order).await.map_err(|error| Problem::of_seal_error(error, &api.sealer))?;
    if let Some(session) = caller.session() {
        // Who annulled what is in the log, as a commitment; this is for whoever runs the box.
        for (kind, target) in handed_relations.iter().filter(|(kind, _)| *kind != RelationKind::DerivedFrom) {
            log::info!("{} has a seal that {} {target}", session.label, kind.name());
        }
    }
    let mut receipt = match outcome {
        Outcome::Sealed(receipt) => *receipt,
        Outcome::Queued(queued) => match api.sealer.sealed_from_queue(queued.id, options.patience).await? {
            Some(receipt) => receipt,
            None => return super::queue::accepted(&queued),
        },
    };
    api.metrics.seal(begun.elapsed());
    let (waited, held_by) = match options.wait {
        None => (None, None),
        Some((Wait::Attested, deadline)) => {
            (Some(wait_for_attestation(&api, &mut receipt, deadline).await?), None)
        }
        Some((Wait::Anchored, deadline)) => {
            (Some(wait_for_anchor(&api, &mut receipt, deadline).await?), None)
        }
        Some((Wait::Held(what, peers), deadline)) => {
            let (waited, names) = wait_for_neighbours(&api, receipt.index, what, peers, deadline).await;
            (Some(waited), Some(names))
        }
    };
    answer(&api, &headers, receipt, (waited, held_by))
}

async fn wait_for_attestation(
    api: &Shared,
    receipt: &mut Receipt,
    deadline: Duration,
) -> Result<&'static str, Problem> {
    match api.sealer.attested(receipt.index, deadline).await {
        Ok(()) => {
            let (sealer, index) = (api.sealer.clone(), receipt.index);
            receipt.seal = blocking(move || sealer.seal_file(index, true)).await?;
            Ok("attested")
        }
        Err(AttestError::TimedOut) => Ok("timed-out"),
        Err(AttestError::NotHardware) => Ok("not-hardware"),
    }
}

async fn wait_for_anchor(
    api: &Shared,
    receipt: &mut Receipt,
    deadline: Duration,
) -> Result<&'static str, Problem> {
    match api.sealer.anchored(receipt.index, deadline).await {
        Some(true) => {
            let (sealer, index) = (api.sealer.clone(), receipt.index);
            receipt.seal = blocking(move || sealer.seal_file(index, true)).await?;
            Ok("anchored")
        }
        Some(false) => Ok("timed-out"),
        None => Ok("no-authorities"),
    }
}

/// Waits until so many neighbours have done that; who has by then.
async fn wait_for_neighbours(
    api: &Shared,
    index: u64,
    what: Held,
    peers: usize,
    deadline: Duration,
) -> (&'static str, Vec<String>) {
    if !api.sealer.has_neighbours() {
        return ("no-neighbours", Vec::new());
    }
    match (api.sealer.held_by(index, what, peers, deadline).await, what) {
        ((names, true), Held::Mirrored) => ("mirrored", names),
        ((names, true), Held::Witnessed) => ("witnessed", names),
        ((names, false), _) => ("timed-out", names),
    }
}

fn answer(
    api: &Api,
    headers: &HeaderMap,
    receipt: Receipt,
    (waited, held_by): (Option<&'static str>, Option<Vec<String>>),
) -> Result<Response, Problem> {
    let id = Sealer::id(receipt.index, &receipt.leaf_hash);
    let status = if receipt.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = if wants_seal(headers) {
        receipt::respond(status, SEAL_MEDIA_TYPE, receipt.seal.encode())
    } else {
        let earlier = receipt::ids(&api.sealer, &receipt.earlier);
        let elsewhere = receipt::elsewhere(&receipt.elsewhere);
        let made = Made { waited, held_by, replayed: receipt.replayed, earlier, elsewhere };
        ReceiptView::new(&id, receipt.leaf_hash, &receipt.content, &receipt.seal).made(made).respond(status)
    };
    let location = HeaderValue::from_maybe_shared(format!("/v1/seals/{id}").into_bytes()).map_err(|_| {
        Problem::new(Kind::Internal, "the id does not fit a header; ask for the seal by its digest")
    })?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

async fn take_digest(api: &Api, headers: &HeaderMap, body: Body) -> Result<Handed, Problem> {
    Description::refuse_headers(headers)?;
    let body = Incoming::new(headers, body, STRUCTURED_BYTES_MAX, api.config.body_pace())?.collect().await?;
    // Here Content-Digest is of the order, not of the document.
    let mut check = CheckedHasher::new(DigestAlgorithm::Sha256, announced(headers)?);
    check.update(&body);
    check.finish()?;
    let (digest, description) = Description::from_digest_json(&body)?;
    Ok(Handed { digest, observation: Observation::DigestClaimed, description })
}

async fn take_bytes(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    algorithm: DigestAlgorithm,
) -> Result<Handed, Problem> {
    let _permit = api.upload_permit(caller, headers).await?;
    let description = Description::from_headers(headers)?;
    let hasher = CheckedHasher::new(algorithm, announced(headers)?);
    let most = caller.admission().document_bytes_max();
    let mut incoming = Incoming::new(headers, body, most, api.config.body_pace())?;
    let digest = incoming.hash(hasher).await?;
    api.metrics.document_bytes.fetch_add(incoming.seen(), Relaxed);
    Ok(Handed { digest, observation: Observation::BytesObserved, description })
}

async fn take_form(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    algorithm: DigestAlgorithm,
) -> Result<Handed, Problem> {
    let _permit = api.upload_permit(caller, headers).await?;
    Description::refuse_headers(headers)?;
    if headers.contains_key(CONTENT_DIGEST) {
        let detail = "for a form, Content-Digest would be of the form and not of the document; put it into the \
                      headers of the document's part";
        return Err(Problem::invalid(detail).and_close());
    }
    let largest = caller.admission().document_bytes_max();
    let incoming = Incoming::new(headers, body, largest + STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let mut form = incoming.multipart(headers, largest)?;
    let mut description = Description::default();
    let mut digest = None;
    while let Some(mut field) = form.next_field().await.map_err(of_form)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != "document" {
            description.take_field(&name, text_field(field).await?)?;
            continue;
        }
        if digest.is_some() {
            return Err(Problem::invalid("the form has two documents; seal each by itself").and_close());
        }
        description.set_media_type(field.content_type().map(AsRef::as_ref))?;
        let mut hasher = CheckedHasher::new(algorithm, announced(field.headers())?);
        while let Some(piece) = field.chunk().await.map_err(of_form)? {
            hasher.update(&piece);
        }
        digest = Some(hasher.finish()?);
    }
    let digest: DocumentDigest = digest
        .ok_or_else(|| Problem::invalid("the form has no field named document; add the file as such"))?;
    let size = digest.size.filter(|size| *size > 0).ok_or_else(empty)?;
    api.metrics.document_bytes.fetch_add(size, Relaxed);
    Ok(Handed { digest, observation: Observation::BytesObserved, description: description.check()? })
}

async fn relations(
    api: &Shared,
    caller: &Caller,
    description: &Description,
) -> Result<Vec<Relation>, Problem> {
    let mut relations = Vec::with_capacity(description.relations.len());
    for (kind, target) in &description.relations {
        let own = match caller.session() {
            Some(session) if *kind != RelationKind::DerivedFrom && !caller.has(Right::AnnulAny) => {
                Some(session.person.name.clone())
            }
            _ => None,
        };
        let leaf = match target {
            Target::Leaf(_) if own.is_some() => return Err(not_own()),
            Target::Leaf(leaf) => *leaf,
            Target::Id(id) => {
                let (sealer, wanted) = (api.sealer.clone(), id.clone());
                let look = move || {
                    let (index, leaf) = sealer.resolve(&wanted)?;
                    // The log's own entries have ids of the same form, and none of them is a document.
                    let is_seal = sealer.entry(index)?.kind() == Some(bulla_formats::entry::Kind::Seal);
                    if !is_seal {
                        return Err(LookupError::NotASeal);
                    }
                    let made = match &own {
                        Some(person) => is_made_by(&sealer, index, person)?,
                        None => true,
                    };
                    Ok((leaf, made))
                };
                match tokio::task::spawn_blocking(look).await {
                    Ok(Ok((leaf, true))) => leaf,
                    Ok(Ok((_, false))) => return Err(not_own()),
                    Ok(Err(LookupError::Unknown | LookupError::NotASeal)) => {
                        return Err(unknown_relation(id));
                    }
                    Ok(Err(error @ LookupError::Storage(_))) => return Err(error.into()),
                    Err(_) => return Err(stopped()),
                }
            }
        };
        relations.push(Relation { kind: *kind, entry: Octets32::new(leaf.0) });
    }
    Ok(relations)
}

/// Whether a person who was logged in made this seal.
fn is_made_by(sealer: &Sealer, index: u64, person: &str) -> Result<bool, LookupError> {
    let seal = sealer.seal_file(index, true)?;
    let openings = seal.openings.iter().filter_map(|bytes| Opening::decode(bytes).ok());
    let mut users = openings.filter(|opening| opening.field == Field::User);
    Ok(users.any(|user| user.assurance == Assurance::Authenticated && user.value == person))
}

fn not_own() -> Problem {
    let detail = "you annul and replace only what you sealed in the console yourself; ask somebody of quality assurance";
    Problem::new(Kind::Forbidden, detail)
}

pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let key = first.as_bytes();
    let printable = key.iter().all(|byte| (b' '..=b'~').contains(byte));
    if values.next().is_some() || key.is_empty() || key.len() > 255 || !printable {
        return Err(Problem::invalid(
            "Idempotency-Key is given once and has 1 to 255 printable ASCII characters",
        ));
    }
    Ok(Some(key))
}

/// Media type without parameters, in lower case: media types are case-insensitive (RFC 9110 section 8.3.1), and a
/// form or a digest order that is not recognised would be sealed as if it were the document.
pub fn essence(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn wants_seal(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|one| one.split(';').next().is_some_and(|one| one.trim() == SEAL_MEDIA_TYPE))
}

/// What `GET` found.
struct Found {
    id: String,
    leaf_hash: Hash,
    entry: Entry,
    body: SealBody,
    seal: SealFile,
    related_by: Option<serde_json::Value>,
}

/// `GET /v1/seals/{id}`.
pub async fn read(
    State(api): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let found = find(&api, &caller, id).await?;
    if wants_seal(&headers) {
        return file(&found);
    }
    let openings: Vec<Opening> = found
        .seal
        .openings
        .iter()
        .map(|bytes| Opening::decode(bytes))
        .collect::<Result<_, _>>()
        .map_err(|error| LookupError::Storage(error.to_string()))?;
    let view = ReceiptView::new(&found.id, found.leaf_hash, found.entry.content(), &found.seal);
    let view = view.document(&found.body, &openings).related_by(found.related_by);
    Ok(view.respond(StatusCode::OK))
}

/// `GET /v1/seals/{id}/seal-file`.
pub async fn read_file(
    State(api): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    file(&find(&api, &caller, id).await?)
}

fn file(found: &Found) -> Result<Response, Problem> {
    let mut response = receipt::respond(StatusCode::OK, SEAL_MEDIA_TYPE, found.seal.encode());
    let name = format!("attachment; filename=\"{}.seal\"", found.id);
    let name = HeaderValue::from_maybe_shared(name.into_bytes())
        .map_err(|_| Problem::new(Kind::Internal, "the id does not fit a header; ask without /seal-file"))?;
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(response)
}

/// The seal of `id` with what `caller` may see: openings of other clients' seals need a right of their own.
async fn find(api: &Shared, caller: &Caller, id: String) -> Result<Found, Problem> {
    caller.need(Right::ReadSeals)?;
    let (sealer, all, name) = (api.sealer.clone(), caller.has(Right::ReadOpenings), caller.name().to_owned());
    blocking(move || {
        let (index, leaf_hash) = sealer.resolve(&id)?;
        let entry = sealer.entry(index)?;
        if entry.kind() != Some(bulla_formats::entry::Kind::Seal) {
            return Err(LookupError::NotASeal);
        }
        let body = SealBody::decode(&entry.content().body)
            .map_err(|error| LookupError::Storage(error.to_string()))?;
        let seal = sealer.seal_file(index, all || body.client.id == name)?;
        let related_by = sealer.related_by(leaf_hash).map(|related| related_by(&related));
        Ok(Found { id, leaf_hash, entry, body, seal, related_by })
    })
    .await
}

/// Runs a look-up beside the connections: a cold disk answers in milliseconds.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LookupError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Problem::from),
        Err(_) => Err(stopped()),
    }
}

fn stopped() -> Problem {
    Problem::new(
        Kind::Internal,
        "the look-up did not finish; try again, and look at the box's log if it repeats",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_strict() {
        let read = |text: &'static str| Options::read(&Uri::from_static(text));
        let plain = Options { wait: None, patience: Duration::ZERO, algorithm: DigestAlgorithm::Sha256 };
        assert_eq!(read("/v1/seals").unwrap(), plain);
        let waiting = read("/v1/seals?wait=attested&deadlineSeconds=3&digest=sha3-256").unwrap();
        let three = Duration::from_secs(3);
        let wait = Some((Wait::Attested, three));
        let expected = Options { wait, patience: three, algorithm: DigestAlgorithm::Sha3_256 };
        assert_eq!(waiting, expected);
        let mirrored = read("/v1/seals?wait=mirrored(2)&deadlineSeconds=3").unwrap();
        assert_eq!(mirrored.wait, Some((Wait::Held(Held::Mirrored, 2), three)));
        let anchored = read("/v1/seals?wait=anchored&deadlineSeconds=3").unwrap();
        assert_eq!((anchored.wait, anchored.patience), (Some((Wait::Anchored, three)), three));
        let witnessed = read("/v1/seals?wait=witnessed(8)&deadlineSeconds=3").unwrap();
        assert_eq!(witnessed.wait, Some((Wait::Held(Held::Witnessed, 8), three)));
        for bad in [
            "",
            "mirrored",
            "mirrored()",
            "mirrored(0)",
            "mirrored(9)",
            "mirrored(02)",
            "mirrored(2",
            "held(2)",
            "anchored(2)",
        ] {
            assert_eq!(Wait::parse(bad), None, "{bad}");
        }
        for bad in
            ["/?wait=mirrored(9)", "/?deadlineSeconds=61", "/?digest=md5", "/?bogus=1", "/?deadlineSeconds=x"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_and_media_types_are_read_from_headers() {
        let one = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(
                axum::http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )])
        };
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(idempotency_key(&one(IDEMPOTENCY_KEY, "a b")).unwrap(), Some(&b"a b"[..]));
        assert!(idempotency_key(&one(IDEMPOTENCY_KEY, "")).is_err());
        assert!(idempotency_key(&one(IDEMPOTENCY_KEY, "a\tb")).is_err());
        assert!(idempotency_key(&one(IDEMPOTENCY_KEY, "\u{fc}")).is_err());
        assert!(idempotency_key(&one(IDEMPOTENCY_KEY, &"x".repeat(256))).is_err());
        assert_eq!(
            essence(&one("content-type", "Multipart/Form-Data; boundary=x")).as_deref(),
            Some("multipart/form-data")
        );
        assert!(wants_seal(&one("accept", "text/html, application/vnd.bulla.seal+json;q=0.9")));
        assert!(!wants_seal(&one("accept", "*/*")));
    }
}
