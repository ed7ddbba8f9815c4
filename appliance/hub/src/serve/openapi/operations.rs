//! The operations of the hub's API.

use super::Operation;
use super::schemas::{hex64, reference};
use crate::people::Role;
use crate::serve::problem::Kind;
use crate::serve::queries::LIMIT_MAX;
use bulla_formats::entry;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

fn text() -> Value {
    json!({"schema": {"type": "string"}})
}

fn of(name: &str) -> Value {
    json!({"schema": reference(name)})
}

/// `POST /add-checkpoint`.
pub fn add_checkpoint() -> Operation {
    Operation::new("addCheckpoint", "witness", "Cosigns a head of a log of the configuration.")
        .describe(
            "c2sp.org/tlog-witness: `old SIZE`, lines of a consistency proof, an empty line, the signed checkpoint. The log \
             is known from the moment its beginning is archived.",
        )
        .body("text/plain", text())
        .answer(200, "One cosignature line.", TEXT, text())
        .answer(400, "The request is malformed.", TEXT, text())
        .answer(403, "The log's key has not signed this.", TEXT, text())
        .answer(404, "Not a log of this hub, or one that has forked.", TEXT, text())
        .answer(409, "`old` is not what was cosigned last; the size of that is.", "text/x.tlog.size", text())
        .answer(422, "It does not extend what was cosigned or archived.", TEXT, text())
        .problems(&[Kind::TooLarge])
}

/// `GET /{hash}/checkpoint`.
pub fn cosigned() -> Operation {
    Operation::new("readCosigned", "witness", "The head of a log that was cosigned last.")
        .parameter("path", "hash", hex64(), "SHA-256 of the log's origin.")
        .answer(200, "The note, with this hub's cosignature.", TEXT, text())
        .problems(&[Kind::NothingFound])
}

/// `GET /heads/checkpoint`.
pub fn head() -> Operation {
    Operation::new("readHead", "heads", "The newest head of the hub's own log.")
        .answer(200, "A signed note.", TEXT, text())
        .problems(&[Kind::NothingFound])
}

/// `GET /heads/tile/{path}`.
pub fn tile() -> Operation {
    let schema = json!({"type": "string", "examples": ["0/000", "entries/000.p/5"]});
    Operation::new("readTile", "heads", "A tile of the hub's own log.")
        .describe("c2sp.org/tlog-tiles; entries are those of docs/formats.md section 22.")
        .parameter("path", "path", schema, "Level, index and width; or `entries/`, index and width.")
        .answer(200, "The tile.", "application/octet-stream", json!({}))
        .problems(&[Kind::NothingFound])
}

/// `GET /healthz`.
pub fn healthz() -> Operation {
    Operation::new("health", "hub", "The process answers.").answer(200, "It does.", TEXT, text())
}

/// `GET /metrics`.
pub fn metrics() -> Operation {
    Operation::new("metrics", "hub", "Counters and gauges in Prometheus' text format, prefix `bulla_hub_`.")
        .describe("Not in the list of queries: it tells of no document and no person.")
        .needs(Role::Monitor)
        .answer(200, "The metrics.", "text/plain; version=0.0.4; charset=utf-8", text())
}

/// `GET /openapi.json`.
pub fn openapi() -> Operation {
    Operation::new("openapi", "hub", "This document.")
        .describe("The same on every hub of this version.")
        .answer(
            200,
            "The document.",
            JSON,
            json!({"schema": {"type": "object", "additionalProperties": true}}),
        )
}

/// `GET /v1/status`.
pub fn status() -> Operation {
    query("status", "How far each log is archived.", Role::Operator).answer(
        200,
        "The logs of the configuration.",
        JSON,
        of("Status"),
    )
}

/// Any query refuses parameters that it does not have.
fn query(id: &'static str, summary: &'static str, role: Role) -> Operation {
    Operation::new(id, "queries", summary).needs(role).problems(&[Kind::InvalidQuery])
}

fn page(operation: Operation, first: &str) -> Operation {
    let number = json!({"type": "integer", "minimum": 0, "maximum": u64::MAX, "default": 0});
    limit(operation.parameter("query", "from", number, first))
}

fn limit(operation: Operation) -> Operation {
    let schema = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": 100});
    operation.parameter("query", "limit", schema, "Most of one answer.")
}

/// `GET /v1/findings`.
pub fn findings() -> Operation {
    page(
        query("findings", "What was found: the event feed, oldest first.", Role::Operator),
        "Number of the first.",
    )
    .answer(200, "Lines of the feed.", JSON, of("Findings"))
}

fn digest(operation: Operation) -> Operation {
    let pattern = "^(sha-256:([0-9a-f]{2}){32}|sha-512:([0-9a-f]{2}){64}|sha3-256:([0-9a-f]{2}){32})$";
    let schema = json!({"type": "string", "pattern": pattern});
    operation.parameter("query", "digest", schema, "Digest of the document's bytes.")
}

/// `GET /v1/find`.
pub fn find() -> Operation {
    let time = || json!({"type": "string", "pattern": "^([0-9]{1,15}|(19[7-9][0-9]|2[0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?)$"});
    let kinds: Vec<&str> = entry::Kind::ALL.into_iter().map(entry::Kind::name).collect();
    let place = json!({"type": "string", "pattern": "^[0-9]{1,19},[^,]+,[0-9]{1,19}$"});
    let found = query("find", "Seals of a document in all logs; or entries of all logs in one order.", Role::Auditor)
        .describe(
            "With `digest`: every seal of the document, each verified, in one answer; `kind` and `after` do not go with it. \
             Without: entries, in pages; `next` is the place after which there is more. `from` and `to` are about proven \
             times, never about clocks.",
        );
    limit(
        digest(found)
            .parameter("query", "box", json!({"type": "string"}), "This box only: its name or its origin.")
            .parameter(
                "query",
                "kind",
                json!({"type": "string", "enum": kinds}),
                "Entries of this kind only.",
            )
            .parameter(
                "query",
                "from",
                time(),
                "Not older, as far as proven: a UTC date or time, or Unix milliseconds.",
            )
            .parameter("query", "to", time(), "Not younger, as far as proven.")
            .parameter(
                "query",
                "within",
                json!({"type": "string", "enum": ["true", "false"], "default": "false"}),
                "Entries that must have been made in that time, not all that may have been.",
            )
            .parameter("query", "after", place, "A place that an earlier page ended with."),
    )
    .answer(200, "Rows, at least one.", JSON, of("Rows"))
    .problems(&[Kind::NothingFound])
}

/// `GET /v1/statement`.
pub fn statement() -> Operation {
    digest(
        query("statement", "What the archive knows of a document.", Role::Auditor)
            .describe("The PDF has the `.seal` files and the JSON inside."),
    )
    .required()
    .parameter(
        "query",
        "form",
        json!({"type": "string", "enum": ["json", "pdf"], "default": "json"}),
        "For machines or for people.",
    )
    .answer(200, "The statement.", JSON, of("Statement"))
    .answer(200, "The statement.", "application/pdf", json!({}))
    .problems(&[Kind::NothingFound])
}

/// `GET /v1/timeline`.
pub fn timeline() -> Operation {
    digest(query("timeline", "What happened to a document's seals, in the order of all logs.", Role::Auditor))
        .required()
        .answer(200, "The chain of custody.", JSON, of("Timeline"))
        .problems(&[Kind::NothingFound])
}

/// `GET /v1/audit`.
pub fn audit() -> Operation {
    page(
        query("audit", "Who asked for what: the list of queries, found to be chained.", Role::Supervisor),
        "Number of the first.",
    )
    .answer(200, "Queries, oldest first.", JSON, of("Queries"))
}
