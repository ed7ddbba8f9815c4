//! `POST /v1/verify`: is there a seal for these bytes, and does a `.seal` file hold.
//!
//! Refuses to do: say "forged". Bytes without a seal are bytes for which no seal is known here; a file is
//! judged by this box's own trust file, and the report says which check failed.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::{SEAL_MEDIA_TYPE, elsewhere, respond};
use super::seals::{blocking, essence};
use super::upload::{Incoming, STRUCTURED_BYTES_MAX, empty, of_form};
use crate::driver::{LookupError, Sealer};
use crate::problem::{Kind, Problem};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, DocumentHasher, SealBody};
use bulla_formats::entry::Kind as EntryKind;
use bulla_formats::seal_file::SEAL_BYTES_MAX;
use bulla_formats::verify::{Verification, Verifier, verify as judge};
use serde_json::json;

/// Most seals named for one document, newest first.
const SEALS_MAX: usize = 100;
/// What a document may have been sealed with.
pub const ALGORITHMS: [DigestAlgorithm; 3] =
    [DigestAlgorithm::Sha256, DigestAlgorithm::Sha512, DigestAlgorithm::Sha3_256];

/// `POST /v1/verify`.
pub async fn verify(
    State(api): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.need(Right::Verify)?;
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    match essence(&headers).as_deref() {
        Some(SEAL_MEDIA_TYPE) => {
            let limit = SEAL_BYTES_MAX as u64;
            let seal = Incoming::new(&headers, body, limit, api.config.body_pace())?.collect().await?;
            Ok(respond_with(&judge(&seal, api.sealer.trust(), None)))
        }
        Some("multipart/form-data") => form(&api, &caller, &headers, body).await,
        _ => bytes(&api, &caller, &headers, body).await,
    }
}

async fn bytes(api: &Shared, caller: &Caller, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let _permit = api.upload_permit(caller, headers).await?;
    let most = caller.admission().document_bytes_max();
    let mut incoming = Incoming::new(headers, body, most, api.config.body_pace())?;
    let mut hashers = ALGORITHMS.map(DocumentHasher::new);
    while let Some(piece) = incoming.piece().await? {
        hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
    }
    if incoming.seen() == 0 {
        return Err(empty());
    }
    let digests = hashers.map(DocumentHasher::finish);
    let sealer = api.sealer.clone();
    let look = move || {
        let copies =
            digests.iter().flat_map(|digest| sealer.find_elsewhere(digest, SEALS_MAX)).collect::<Vec<_>>();
        Ok((known(&sealer, &digests)?, elsewhere(&copies)))
    };
    let (seals, elsewhere) = blocking(look).await?;
    let known = !seals.is_empty();
    let sentence = match (known, elsewhere.is_empty()) {
        (true, _) => "This box has sealed these bytes.",
        (false, true) => "No seal is known for these bytes on this box.",
        (false, false) => {
            "No seal is known for these bytes on this box, but other boxes have sealed them, whose logs it holds copies of."
        }
    };
    let mut body = json!({"known": known, "sentence": sentence, "seals": seals});
    if !elsewhere.is_empty() {
        body["elsewhere"] = elsewhere.into();
    }
    Ok(respond(StatusCode::OK, "application/json", body.to_string()))
}

/// Ids of the seals of any of these digests, newest first. Index and hash are confirmed by the entry itself.
pub fn known(sealer: &Sealer, digests: &[DocumentDigest]) -> Result<Vec<String>, LookupError> {
    let mut found = Vec::new();
    for digest in digests {
        for index in sealer.find_digest(digest, SEALS_MAX)? {
            let entry = sealer.entry(index)?;
            let body = SealBody::decode(&entry.content().body).ok().filter(|body| {
                entry.kind() == Some(EntryKind::Seal)
                    && body.algorithm == digest.algorithm
                    && body.digest.as_ref() == digest.value.as_slice()
            });
            if body.is_some() {
                found.push((index, entry.leaf_hash()));
            }
        }
    }
    found.sort_unstable_by_key(|(index, _)| std::cmp::Reverse(*index));
    found.truncate(SEALS_MAX);
    Ok(found.iter().map(|(index, leaf)| Sealer::id(*index, leaf)).collect())
}

async fn form(api: &Shared, caller: &Caller, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let _permit = api.upload_permit(caller, headers).await?;
    let largest = caller.admission().document_bytes_max();
    let limit = largest + SEAL_BYTES_MAX as u64 + STRUCTURED_BYTES_MAX;
    let incoming = Incoming::new(headers, body, limit, api.config.body_pace())?;
    let mut form = incoming.multipart(headers, largest)?;
    let (mut document, mut seal) = (None, None);
    while let Some(mut field) = form.next_field().await.map_err(of_form)? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            // Which digest the seal needs may not be known yet.
            "document" if document.is_none() => {
                let mut hashers = ALGORITHMS.map(DocumentHasher::new);
                while let Some(piece) = field.chunk().await.map_err(of_form)? {
                    hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
                }
                document = Some(hashers.map(DocumentHasher::finish));
            }
            "seal" if seal.is_none() => {
                let mut bytes = Vec::new();
                while let Some(piece) = field.chunk().await.map_err(of_form)? {
                    if bytes.len() + piece.len() > SEAL_BYTES_MAX {
                        let detail = "a .seal file has at most 4 MiB; this is none";
                        return Err(Problem::new(Kind::TooLarge, detail).and_close());
                    }
                    bytes.extend_from_slice(&piece);
                }
                seal = Some(bytes);
            }
            other => {
                return Err(Problem::invalid(format!(
                    "the form's field {other:?} is unknown or given twice; send document and seal"
                ))
                .and_close());
            }
        }
    }
    let (Some(document), Some(seal)) = (document, seal) else {
        return Err(Problem::invalid("the form needs both fields, document and seal"));
    };
    let mut verifier = Verifier::new(api.sealer.trust());
    let seal = verifier.unpack(&seal);
    // A file that does not say is refused by the verifier before it looks at the document.
    let wanted = seal.wanted_digest().unwrap_or(DigestAlgorithm::Sha256);
    let digest = document.iter().find(|digest| digest.algorithm == wanted);
    Ok(respond_with(&verifier.judge(seal, digest)))
}

fn respond_with(verification: &Verification) -> Response {
    respond(StatusCode::OK, "application/json", verification.report.to_json().to_string())
}
