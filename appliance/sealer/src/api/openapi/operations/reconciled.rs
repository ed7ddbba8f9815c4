//! The operation on the reconciled view.

use super::super::Operation;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::json;

/// `GET /v1/reconciled`.
pub fn reconciled() -> Operation {
    let cursor = || {
        json!({
            "type": "string", "maxLength": 40_000,
            "pattern": "^([a-z0-9.-]+/[0-9a-f]{40}/[0-9]+:[1-9][0-9]{0,18}(,|$))*$",
        })
    };
    Operation::new("reconciled", "log", "The entries of all logs that this box holds, in one order, page by page.")
        .describe(
            "One JSON value a line: first what is merged (`reconciled`, `after`, `to`, `stable`, `logs`), then the entries \
             by Lamport time, origin and index (`origin`, `index`, `lamport`, `kind`, `leafHash`, `entry` in base64; \
             `digest` and `again` of seals, `late`, `unreadable`), last `next`, `entries`, `more`. docs/api.md says what \
             they mean. The same logs, cursors and limit give the same bytes on every box.",
        )
        .needs(Right::ReadReconciled)
        .parameter("query", "after", cursor(), "`next` of the page before; default: from the beginning.")
        .parameter("query", "to", cursor(), "Which logs, and up to which size; default: all that is here.")
        .parameter(
            "query",
            "limit",
            json!({"type": "integer", "minimum": 1, "maximum": 5_000, "default": 1_000}),
            "Most entries; a page also ends after 4 MiB.",
        )
        .answer(200, "The page.", "application/jsonl", json!({"schema": {"type": "string"}}))
        .problems(&[Kind::InvalidCursor, Kind::CursorAhead, Kind::Overloaded])
}
