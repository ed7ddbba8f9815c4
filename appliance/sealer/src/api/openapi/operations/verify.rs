//! Operations that ask whether something holds.

use super::super::Operation;
use super::super::schemas::reference;
use crate::api::access::Right;
use crate::api::receipt::SEAL_MEDIA_TYPE;
use crate::problem::Kind;
use serde_json::json;

/// `GET /verify`.
pub fn page() -> Operation {
    Operation::new("verifier", "verify", "The browser verifier: one HTML file that can use no network.")
        .describe("It is the box's word; whoever examines the box takes the file from elsewhere and compares its SHA-256.")
        .answer(200, "The page.", "text/html; charset=utf-8", json!({"schema": {"type": "string"}}))
        .answer_header(200, "ETag", "`sha256-` and the SHA-256 of the page in hex, quoted.")
        .answer_header(200, "Content-Security-Policy", "What the page may do: run its own scripts, and nothing else.")
}

/// `POST /v1/verify`.
pub fn verify() -> Operation {
    Operation::new("verify", "verify", "Is there a seal for these bytes, and does a .seal file hold.")
        .describe(
            "A document as the body (any media type but the other two) is looked up: the answer is `Known`. A form \
             with `document` and `seal`, or a `.seal` file alone, is judged: the answer is `Report`. A report with a \
             bad verdict is still a 200: the question was answered.",
        )
        .needs(Right::Verify)
        .body("application/octet-stream", json!({"schema": {"type": "string", "format": "binary", "minLength": 1}}))
        .body("multipart/form-data", json!({"schema": reference("VerifyForm")}))
        .body(SEAL_MEDIA_TYPE, json!({"schema": {"description": "A .seal file; whatever comes is judged."}}))
        .answer(
            200,
            "What is known of the bytes, or the report on the .seal file.",
            "application/json",
            json!({"schema": {"oneOf": [reference("Known"), reference("Report")]}}),
        )
        .problems(&[Kind::EmptyDocument, Kind::Overloaded])
}

/// `POST /v1/verify/bulk`.
pub fn bulk() -> Operation {
    Operation::new("verifyBulk", "verify", "Many documents in one request, a verdict for each.")
        .describe(
            "Either digests, or a form of documents (field `document`, up to 1000), each perhaps followed by its .seal \
             (field `seal`); the whole form is at most `limits.document_bytes_max`. Results come in the order of the items. \
             A bad item has an `error` of its own and leaves the others alone.",
        )
        .needs(Right::Verify)
        .body("application/json", json!({"schema": reference("Digests")}))
        .body("multipart/form-data", json!({"schema": reference("BulkForm")}))
        .answer(200, "A result for each item.", "application/json", json!({"schema": reference("BulkResults")}))
        .problems(&[Kind::Overloaded])
}
