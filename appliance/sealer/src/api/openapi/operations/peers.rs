//! Operations on the copies of neighbours' logs.

use super::super::Operation;
use super::super::schemas::reference;
use super::log;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::{Value, json};

fn directory() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
}

/// `GET /v1/mirrors`.
pub fn mirrors() -> Operation {
    Operation::new("mirrors", "log", "Copies of the neighbours' logs that this box holds.")
        .needs(Right::ReadStatus)
        .answer(200, "The copies.", "application/json", json!({"schema": reference("Mirrors")}))
}

/// `GET /mirrors/{directory}/checkpoint`.
pub fn checkpoint() -> Operation {
    Operation::new(
        "readMirrorCheckpoint",
        "log",
        "The newest signed head of a mirrored log that its copy covers.",
    )
    .parameter("path", "directory", directory(), "SHA-256 of the log's origin.")
    .answer(200, "A signed note.", "text/plain; charset=utf-8", json!({"schema": {"type": "string"}}))
    .problems(&[Kind::UnknownMirror])
}

/// `GET /mirrors/{directory}/tile/...`.
pub fn tile() -> Operation {
    Operation::new("readMirrorTile", "log", "Hashes or entries of a mirrored log (C2SP tlog-tiles).")
        .parameter("path", "directory", directory(), "SHA-256 of the log's origin.")
        .parameter("path", "path", log::tile_path(), "Coordinate; its slashes are not encoded.")
        .answer(
            200,
            "The tile.",
            "application/octet-stream",
            json!({"schema": {"type": "string", "format": "binary"}}),
        )
        .problems(&[Kind::UnknownMirror, Kind::UnknownTile])
}
