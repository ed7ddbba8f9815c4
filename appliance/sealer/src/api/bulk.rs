//! `POST /v1/verify/bulk`: many documents in one request, a verdict for each.
//!
//! Two forms: digests as JSON, and a multipart form of documents, each perhaps followed by its `.seal`. One bad item
//! has an `error` of its own and leaves the others alone.
//! Refuses to do: hold documents in memory; answer for more than [`ITEMS_MAX`] items; answer in part when the request
//! itself does not arrive whole.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use super::seals::{blocking, essence};
use super::upload::{Incoming, STRUCTURED_BYTES_MAX, of_form};
use super::verify::{ALGORITHMS, known};
use crate::problem::{Kind, Problem};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, DocumentHasher};
use bulla_formats::report::Report;
use bulla_formats::seal_file::SEAL_BYTES_MAX;
use bulla_formats::verify::Verifier;
use multer::Field;
use serde_json::{Value, json};

/// Most items of one request.
pub const ITEMS_MAX: usize = 1_000;
/// Longest name that is repeated in the answer, in bytes.
const NAME_BYTES_MAX: usize = 255;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Digests {
    digests: Vec<Digest>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Digest {
    algorithm: String,
    digest: String,
}

/// `POST /v1/verify/bulk`.
pub async fn verify(
    State(api): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.need(Right::Verify)?;
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let results = match essence(&headers).as_deref() {
        Some("application/json") => digests(&api, &headers, body).await?,
        Some("multipart/form-data") => form(&api, &caller, &headers, body).await?,
        _ => {
            let detail = "a bulk request is application/json with digests, or a form of documents";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail).and_close());
        }
    };
    let answer = json!({"items": results.len(), "results": results});
    Ok(respond(StatusCode::OK, "application/json", answer.to_string()))
}

async fn digests(api: &Shared, headers: &HeaderMap, body: Body) -> Result<Vec<Value>, Problem> {
    let incoming = Incoming::new(headers, body, STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let items = read_all(&incoming.collect().await?)?;
    let sealer = api.sealer.clone();
    let look = move || {
        items.into_iter().map(|item| {
        let Some(digest) = item else {
            return Ok(json!({"error": "algorithm is sha-256, sha-512 or sha3-256, and digest as many hex digits as it has"}));
        };
        Ok(told(&known(&sealer, &[digest])?))
    }).collect()
    };
    blocking(look).await
}

/// The digests in a body; `None` for an item that says none.
pub fn read_all(body: &[u8]) -> Result<Vec<Option<DocumentDigest>>, Problem> {
    let order: Digests = serde_json::from_slice(body).map_err(|error| {
        Problem::invalid(format!("the body is not {{\"digests\": [{{algorithm, digest}}]}} ({error})"))
    })?;
    if order.digests.is_empty() || order.digests.len() > ITEMS_MAX {
        return Err(Problem::invalid(format!("digests has 1 to {ITEMS_MAX} items")));
    }
    Ok(order.digests.iter().map(read).collect())
}

fn read(item: &Digest) -> Option<DocumentDigest> {
    let algorithm = DigestAlgorithm::from_name(&item.algorithm)?;
    let value = hex::decode(&item.digest).ok().filter(|value| value.len() == algorithm.digest_bytes())?;
    Some(DocumentDigest { algorithm, value, size: None })
}

fn told(seals: &[String]) -> Value {
    json!({"known": !seals.is_empty(), "seals": seals})
}

/// A document of the form, waiting for its `.seal` or for the next document.
struct Document {
    name: Option<String>,
    digests: Result<[DocumentDigest; ALGORITHMS.len()], &'static str>,
}

async fn form(api: &Shared, caller: &Caller, headers: &HeaderMap, body: Body) -> Result<Vec<Value>, Problem> {
    let _permit = api.upload_permit(caller, headers).await?;
    let largest = api.config.limits.document_bytes_max;
    let incoming = Incoming::new(headers, body, largest, api.config.body_pace())?;
    let mut form = incoming.multipart(headers, largest)?;
    let (mut results, mut waiting) = (Vec::new(), None::<Document>);
    // Of this request alone: what a client's seals make it remember goes with the request.
    let mut verifier = Verifier::new(api.sealer.trust());
    while let Some(field) = form.next_field().await.map_err(of_form)? {
        match field.name() {
            Some("document") => {
                if results.len() + usize::from(waiting.is_some()) == ITEMS_MAX {
                    let detail =
                        format!("a form has at most {ITEMS_MAX} documents; send the rest in another");
                    return Err(Problem::new(Kind::TooLarge, detail).and_close());
                }
                if let Some(document) = waiting.take() {
                    results.push(look_up(api, document).await?);
                }
                waiting = Some(take_document(field).await?);
            }
            Some("seal") => {
                let Some(document) = waiting.take() else {
                    let detail =
                        "a seal in the form has no document before it; send each seal after its document";
                    return Err(Problem::invalid(detail).and_close());
                };
                results.push(match take_seal(field).await? {
                    Some(seal) => compare(&mut verifier, document, &seal),
                    None => item(document.name, json!({"error": "its .seal file has more than 4 MiB"})),
                });
            }
            other => {
                let other = other.unwrap_or_default();
                let detail =
                    format!("the form's field {other:?} is unknown; send document and seal by turns");
                return Err(Problem::invalid(detail).and_close());
            }
        }
    }
    if let Some(document) = waiting {
        results.push(look_up(api, document).await?);
    }
    if results.is_empty() {
        return Err(Problem::invalid("the form has no field named document; add the files as such"));
    }
    Ok(results)
}

async fn take_document(mut field: Field<'static>) -> Result<Document, Problem> {
    let name = field.file_name().filter(|name| name.len() <= NAME_BYTES_MAX).map(str::to_owned);
    let mut hashers = ALGORITHMS.map(DocumentHasher::new);
    let mut empty = true;
    while let Some(piece) = field.chunk().await.map_err(of_form)? {
        empty &= piece.is_empty();
        hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
    }
    let digests =
        if empty { Err("the document has no bytes") } else { Ok(hashers.map(DocumentHasher::finish)) };
    Ok(Document { name, digests })
}

/// `None` when it is too long; the rest of it is read away.
async fn take_seal(mut field: Field<'static>) -> Result<Option<Vec<u8>>, Problem> {
    let mut bytes = Some(Vec::new());
    while let Some(piece) = field.chunk().await.map_err(of_form)? {
        bytes = bytes.filter(|bytes| bytes.len() + piece.len() <= SEAL_BYTES_MAX);
        if let Some(bytes) = &mut bytes {
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes)
}

async fn look_up(api: &Shared, document: Document) -> Result<Value, Problem> {
    let result = match document.digests {
        Err(error) => json!({"error": error}),
        Ok(digests) => {
            let sealer = api.sealer.clone();
            told(&blocking(move || known(&sealer, &digests)).await?)
        }
    };
    Ok(item(document.name, result))
}

fn compare(verifier: &mut Verifier<'_>, document: Document, seal: &[u8]) -> Value {
    let result = match document.digests {
        Err(error) => json!({"error": error}),
        Ok(digests) => {
            let seal = verifier.unpack(seal);
            // A file that does not say is refused by the verifier before it looks at the document.
            let wanted = seal.wanted_digest().unwrap_or(DigestAlgorithm::Sha256);
            let digest = digests.iter().find(|digest| digest.algorithm == wanted);
            summary(&verifier.judge(seal, digest).report)
        }
    };
    item(document.name, result)
}

/// A report without the checks that passed: a thousand whole reports would be megabytes.
fn summary(report: &Report) -> Value {
    let whole = report.to_json();
    let failed = report.failed().map(|check| json!({"check": check.name, "detail": check.detail}));
    json!({
        "verdict": whole["verdict"], "sentence": whole["sentence"], "facts": whole["facts"],
        "interval": whole["interval"], "failed": failed
    })
}

fn item(name: Option<String>, mut result: Value) -> Value {
    if let Some(name) = name {
        result["name"] = name.into();
    }
    result
}
