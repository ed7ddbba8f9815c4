//! Operations on the log as C2SP tlog-tiles.

use super::super::Operation;
use crate::problem::Kind;
use serde_json::json;

/// `GET /checkpoint`.
pub fn checkpoint() -> Operation {
    Operation::new("readCheckpoint", "log", "The newest signed head (C2SP tlog-checkpoint).")
        .answer(200, "A signed note.", "text/plain; charset=utf-8", json!({"schema": {"type": "string"}}))
        .problems(&[Kind::RollbackSuspected])
}

/// `GET /tile/...`.
pub fn tile() -> Operation {
    let path = json!({
        "type": "string",
        "pattern": "^([0-9]{1,2}|entries)/(x[0-9]{3}/){0,6}[0-9]{3}(\\.p/[1-9][0-9]{0,2})?$",
        "examples": ["0/000.p/7", "entries/x001/x234/067"]
    });
    Operation::new(
        "readTile",
        "log",
        "Hashes or entries (C2SP tlog-tiles). What a coordinate names never changes.",
    )
    .parameter("path", "path", path, "Coordinate; its slashes are not encoded.")
    .answer(
        200,
        "The tile.",
        "application/octet-stream",
        json!({"schema": {"type": "string", "format": "binary"}}),
    )
    .problems(&[Kind::UnknownTile])
}
