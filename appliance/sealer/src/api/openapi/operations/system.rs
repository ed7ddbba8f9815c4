//! Operations on the box itself.

use super::super::Operation;
use super::super::schemas::reference;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::{Value, json};

const TEXT: &str = "text/plain; charset=utf-8";

fn text() -> Value {
    json!({"schema": {"type": "string"}})
}

/// `GET /healthz`.
pub fn healthz() -> Operation {
    Operation::new("health", "box", "The process answers.").answer(200, "It does.", TEXT, text())
}

/// `GET /readyz`.
pub fn readyz() -> Operation {
    Operation::new("readiness", "box", "The box seals.").answer(200, "It does.", TEXT, text()).problems(&[
        Kind::Locked,
        Kind::Retiring,
        Kind::RollbackSuspected,
    ])
}

/// `GET /metrics`.
pub fn metrics() -> Operation {
    Operation::new("metrics", "box", "Counters and gauges in Prometheus' text format, prefix `bulla_`.")
        .needs(Right::ReadMetrics)
        .answer(200, "The metrics.", "text/plain; version=0.0.4; charset=utf-8", text())
}

/// `GET /v1/ca` and, as `caFile`, `GET /v1/ca.pem`.
pub fn ca(id: &'static str) -> Operation {
    Operation::new(id, "box", "The CA certificate for clients' trust stores, as PEM.")
        .describe("Compare the fingerprint with the one that the operator has, then trust it.")
        .answer(200, "The certificate.", "application/x-pem-file", text())
        .answer_header(200, "Bulla-CA-Fingerprint", "`sha256:` and the SHA-256 of its DER in hex.")
}

/// `GET /v1/status`.
pub fn status() -> Operation {
    Operation::new("status", "box", "What the box says about itself.").needs(Right::ReadStatus).answer(
        200,
        "The status.",
        "application/json",
        json!({"schema": reference("Status")}),
    )
}

/// `POST /v1/epochs`.
pub fn rotate() -> Operation {
    Operation::new("beginEpoch", "box", "Begins the next key epoch.")
        .describe("Reason and operator are in the log for ever.")
        .needs(Right::Rotate)
        .body("application/json", json!({"schema": reference("Rotation")}))
        .answer(201, "It began.", "application/json", json!({"schema": reference("Epoch")}))
        .problems(&[Kind::Overloaded, Kind::RollbackSuspected, Kind::DiskFull])
}

/// `POST /v1/backups`.
pub fn backup() -> Operation {
    Operation::new(
        "takeBackup",
        "box",
        "A backup of the running box as one stream, encrypted to `backup.recipients`.",
    )
    .describe(
        "The answer begins once the TPM counter has moved past the copy. One that ends early is no backup.",
    )
    .needs(Right::Backup)
    .answer(
        200,
        "The backup (docs/formats.md section 8).",
        "application/vnd.bulla.backup",
        json!({"schema": {"type": "string", "format": "binary"}}),
    )
    .answer_header(200, "Content-Disposition", "Names the file.")
    .problems(&[Kind::BackupUnavailable, Kind::Overloaded, Kind::RollbackSuspected, Kind::DiskFull])
}

/// `GET /openapi.json`.
pub fn openapi() -> Operation {
    Operation::new("openapi", "box", "This document.").answer(
        200,
        "OpenAPI 3.1.",
        "application/json",
        json!({"schema": {"type": "object"}}),
    )
}
