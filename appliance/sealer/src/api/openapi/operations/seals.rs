//! Operations on seals.

use super::super::Operation;
use super::super::schemas::reference;
use crate::api::access::Right;
use crate::api::receipt::SEAL_MEDIA_TYPE;
use crate::problem::Kind;
use serde_json::{Value, json};

const DIGEST_MEDIA_TYPE: &str = "application/vnd.bulla.digest+json";

/// `POST /v1/seals`.
pub fn create() -> Operation {
    let once = |pattern: &str, longest: u32| json!({"type": "string", "minLength": 1, "maxLength": longest, "pattern": pattern});
    let encoded = || once("^([\\t -$&-~]|%[0-9A-Fa-f]{2})+$", 8192);
    let relation = || reference("Relation");
    Operation::new("sealDocument", "seals", "Seals one document.")
        .describe(
            "The answer comes when the entry is durable. Three ways to hand a document in: its bytes as the body (any \
             media type but the other two; described by the `Bulla-` headers, percent-encoded UTF-8), a form, or its \
             digest as application/vnd.bulla.digest+json. The headers go with bytes only.",
        )
        .needs(Right::Seal)
        .parameter("query", "digest", json!({"type": "string", "enum": ["sha-256", "sha-512", "sha3-256"], "default": "sha-256"}), "How an uploaded document is hashed.")
        .parameter("query", "wait", json!({"type": "string", "pattern": "^(sealed|attested|anchored|(mirrored|witnessed)\\([1-8]\\))$", "default": "sealed", "examples": ["attested", "anchored", "mirrored(2)"]}), "Answer only when this fact holds, or the deadline has passed; the answer says which in `waited`.")
        .parameter("query", "deadlineSeconds", json!({"type": "integer", "minimum": 0, "maximum": 60, "default": 10}), "How long to wait for the fact. The seal is made all the same.")
        .parameter("header", "Idempotency-Key", once("^[!-~]([ -~]*[!-~])?$", 255), "Makes a retry safe: the same key with the same document and description is the same seal, also after a crash of the box. Scope: the client.")
        .parameter("header", "Content-Digest", json!({"type": "string"}), "RFC 9530, `sha-256` or `sha-512`; a mismatch seals nothing.")
        .parameter("header", "Bulla-User", encoded(), "The person at the scanner, as asserted by the client. Bytes only.")
        .parameter("header", "Bulla-Document-Id", encoded(), "The institution's id of the document. Bytes only.")
        .parameter("header", "Bulla-Metadata", once("^([\\t -$&-<>-~]|%[0-9A-Fa-f]{2})+=([\\t -$&-~]|%[0-9A-Fa-f]{2})*$", 8321), "`name=value`, each part encoded; up to 62 times, a name once. Bytes only.")
        .parameter("header", "Bulla-Supersedes", relation(), "The seal that this one replaces; the three relations up to 16 times together. Bytes only.")
        .parameter("header", "Bulla-Derived-From", relation(), "The seal of what this document was made from. Bytes only.")
        .parameter("header", "Bulla-Annuls", relation(), "The seal that this one declares void. Bytes only.")
        .body("application/octet-stream", json!({"schema": {"type": "string", "format": "binary", "minLength": 1}}))
        .body("application/pdf", json!({"schema": {"type": "string", "format": "binary", "minLength": 1}}))
        .body("multipart/form-data", json!({
            "schema": reference("SealForm"),
            "encoding": {"metadata": {"contentType": "application/json"}}
        }))
        .body(DIGEST_MEDIA_TYPE, json!({"schema": reference("DigestOrder")}))
        .answer(201, "The seal was made.", "application/json", receipt())
        .answer(201, "", SEAL_MEDIA_TYPE, json!({"schema": reference("SealFile")}))
        .answer_header(201, "Location", "Path of the receipt.")
        .link(201, "readSeal")
        .link(201, "readSealFile")
        .answer(200, "The seal had been made before, under the same Idempotency-Key.", "application/json", receipt())
        .answer(200, "", SEAL_MEDIA_TYPE, json!({"schema": reference("SealFile")}))
        .answer_header(200, "Location", "Path of the receipt.")
        .answer(202, "Sealing is not possible now; the request is durable and will be sealed in order.", "application/json", json!({"schema": reference("Queued")}))
        .answer_header(202, "Location", "Path of the queued request.")
        .answer_header(202, "Retry-After", "Seconds after which to ask again.")
        .problems(&[
            Kind::DigestMismatch,
            Kind::EmptyDocument,
            Kind::KeyReused,
            Kind::UnknownRelation,
            Kind::InvalidSeal,
            Kind::Overloaded,
            Kind::Retiring,
            Kind::RollbackSuspected,
            Kind::DiskFull,
        ])
}

/// `GET /v1/seals`.
pub fn search() -> Operation {
    let value = || json!({"type": "string", "minLength": 1, "maxLength": 8192});
    let millis = || json!({"type": "integer", "minimum": 0, "maximum": 9_999_999_999_999_999_999_u64});
    let digest = json!({
        "type": "string",
        "pattern": "^((sha-256|sha3-256):[0-9a-fA-F]{64}|sha-512:[0-9a-fA-F]{128})$"
    });
    Operation::new("searchSeals", "seals", "Finds seals, newest first.")
        .describe(
            "Filters can be combined, and all of them must hold; values are compared byte by byte. A scanner finds its own \
             seals; by digest alone it finds all of that digest, without other clients' openings.",
        )
        .needs(Right::ReadSeals)
        .parameter("query", "digest", digest, "Of this digest: algorithm, colon, hex.")
        .parameter("query", "documentId", value(), "With exactly this document id.")
        .parameter("query", "user", value(), "With exactly this user.")
        .parameter(
            "query",
            "client",
            value(),
            "Sent by this client; 403 for a scanner that asks for another client's, unless it gives the digest.",
        )
        .parameter("query", "from", millis(), "Whose local time (Unix milliseconds) is at or after this; before `to`.")
        .parameter("query", "to", millis(), "Whose local time (Unix milliseconds) is before this.")
        .parameter(
            "query",
            "limit",
            json!({"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
            "At most so many on this page.",
        )
        .parameter(
            "query",
            "cursor",
            json!({"type": "string", "pattern": "^b1-(0|[1-9a-f][0-9a-f]{0,14})$"}),
            "Of the next page: `next` of the answer before.",
        )
        .answer(200, "One page.", "application/json", json!({"schema": reference("SearchPage")}))
        .problems(&[Kind::Forbidden, Kind::SearchBuilding])
}

/// `GET /v1/seals/{id}`.
pub fn read() -> Operation {
    Operation::new("readSeal", "seals", "The receipt of a seal, with the best evidence there is by now.")
        .describe(
            "With `document`: what was sealed. A scanner sees the openings of its own seals only. With \
             `Accept: application/vnd.bulla.seal+json` the answer is the bare `.seal` file.",
        )
        .needs(Right::ReadSeals)
        .parameter("path", "id", reference("SealId"), "Id of the seal.")
        .answer(200, "The receipt.", "application/json", receipt())
        .answer(200, "", SEAL_MEDIA_TYPE, json!({"schema": reference("SealFile")}))
        .problems(&[Kind::UnknownSeal])
}

/// `GET /v1/seals/{id}/seal-file`.
pub fn read_file() -> Operation {
    Operation::new("readSealFile", "seals", "The .seal file of a seal, for download.")
        .needs(Right::ReadSeals)
        .parameter("path", "id", reference("SealId"), "Id of the seal.")
        .answer(200, "The .seal file.", SEAL_MEDIA_TYPE, json!({"schema": reference("SealFile")}))
        .answer_header(200, "Content-Disposition", "Names the file.")
        .problems(&[Kind::UnknownSeal])
}

/// `GET /v1/queue/{id}`.
pub fn queued() -> Operation {
    Operation::new("readQueued", "seals", "What became of a request that was queued (202).")
        .describe("A scanner sees its own only.")
        .needs(Right::ReadQueue)
        .parameter("path", "id", reference("QueueId"), "Id of the queued request.")
        .answer(200, "Its state.", "application/json", json!({"schema": reference("QueuedState")}))
        .problems(&[Kind::UnknownQueueId])
}

fn receipt() -> Value {
    json!({"schema": reference("Receipt")})
}
