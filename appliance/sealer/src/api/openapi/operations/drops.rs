//! Operations of documents that programs post as to paperless-ngx.

use super::super::Operation;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::json;

/// `POST /api/documents/post_document/`.
pub fn post() -> Operation {
    let text = || json!({"type": "string", "maxLength": 1_048_576});
    Operation::new("postDocument", "seals", "Takes a document into the scanner's folder, as paperless-ngx does.")
        .describe(
            "For programs that know paperless-ngx. The document is kept in the folder of the scanner ([[ingest.folder]] \
             with paperless = true) and sealed from there; other fields go beside it as a JSON sidecar, under the same seal. \
             The credential may also be `Token <token>`, or HTTP Basic with the scanner's name and its token. The answer is \
             a task id, and comes when the document is on the disk; `GET /api/tasks/` tells what became of it.",
        )
        .needs(Right::Seal)
        .body(
            "multipart/form-data",
            json!({"schema": {
                "type": "object",
                "required": ["document"],
                "properties": {
                    "document": {"type": "string", "format": "binary", "minLength": 1},
                    "title": text(),
                    "created": text(),
                    "correspondent": text(),
                    "document_type": text(),
                    "storage_path": text(),
                    "tags": {"type": "array", "items": text()},
                    "archive_serial_number": text(),
                    "custom_fields": text()
                }
            }}),
        )
        .answer(200, "The task id, a UUID.", "application/json", json!({"schema": {"type": "string"}}))
        .problems(&[
            Kind::EmptyDocument,
            Kind::ReservedName,
            Kind::NoDrop,
            Kind::Overloaded,
            Kind::DiskFull,
        ])
}

/// `GET /api/tasks/`.
pub fn tasks() -> Operation {
    let maybe = || json!({"type": ["string", "null"]});
    Operation::new("listTasks", "seals", "Tells what became of posted documents.")
        .describe(
            "The caller's own, since the box started, at most 10,000. PENDING: in the folder, to be sealed; SUCCESS: \
             sealed, `related_document` is the id of the seal; FAILURE: in the error folder, or taken away.",
        )
        .needs(Right::ReadQueue)
        .parameter("query", "task_id", json!({"type": "string", "maxLength": 64}), "Only this one.")
        .answer(
            200,
            "Tasks, the oldest first.",
            "application/json",
            json!({"schema": {"type": "array", "items": {
                "type": "object",
                "required": ["task_id", "task_file_name", "type", "status", "result", "acknowledged", "related_document"],
                "properties": {
                    "task_id": {"type": "string"},
                    "task_file_name": {"type": "string"},
                    "type": {"type": "string", "enum": ["file"]},
                    "status": {"type": "string", "enum": ["PENDING", "SUCCESS", "FAILURE"]},
                    "result": maybe(),
                    "acknowledged": {"type": "boolean"},
                    "related_document": maybe()
                }
            }}}),
        )
        .problems(&[Kind::NoDrop])
}
