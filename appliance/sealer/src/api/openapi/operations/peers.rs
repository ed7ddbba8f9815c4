//! Operations on the copies of neighbours' logs.

use super::super::Operation;
use super::super::schemas::reference;
use super::log;
use crate::api::access::Right;
use crate::api::receipt::SEAL_MEDIA_TYPE;
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

/// `GET /mirrors/{directory}/seals/{index}`.
pub fn seal_file() -> Operation {
    Operation::new("readMirrorSealFile", "log", "The .seal file of an entry of a mirrored log.")
        .describe(
            "Under the copy's newest head, and the first attested one. Without openings, which never left the other box, and \
             without anchors, which a hub adds.",
        )
        .needs(Right::ReadSeals)
        .parameter("path", "directory", directory(), "SHA-256 of the log's origin.")
        .parameter("path", "index", json!({"type": "integer", "minimum": 0}), "Index of the entry.")
        .answer(200, "The .seal file.", SEAL_MEDIA_TYPE, json!({"schema": reference("SealFile")}))
        .problems(&[Kind::UnknownMirror, Kind::UnknownSeal])
}

/// `POST /v1/roster`.
pub fn roster() -> Operation {
    Operation::new("takeRoster", "box", "Hands in a roster: who the boxes of a fleet are.")
        .describe(
            "Of the box's own fleet, or of one that the configuration names with its root. Whoever left it is shut out at \
             once. A roster that is older than the one seen before is refused. The log has an entry of each version.",
        )
        .needs(Right::Roster)
        .body("application/json", json!({"schema": reference("RosterOrder")}))
        .answer(200, "It counts.", "application/json", json!({"schema": reference("Roster")}))
        .problems(&[Kind::RosterRefused, Kind::TooLarge, Kind::Locked])
}
