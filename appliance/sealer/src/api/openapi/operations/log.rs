//! Operations on the log as C2SP tlog-tiles.

use super::super::Operation;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::{Value, json};

/// `GET /checkpoint`.
pub fn checkpoint() -> Operation {
    Operation::new("readCheckpoint", "log", "The newest signed head (C2SP tlog-checkpoint).")
        .answer(200, "A signed note.", "text/plain; charset=utf-8", json!({"schema": {"type": "string"}}))
        .problems(&[Kind::RollbackSuspected])
}

/// `GET /v1/events`.
pub fn events() -> Operation {
    let index = || json!({"type": "integer", "minimum": 0, "maximum": i64::MAX});
    Operation::new("events", "log", "What enters the log, as it enters (server-sent events).")
        .describe(
            "Never ends by itself. `id` is the log index; after a cut, come back with `Last-Event-ID` and get what was \
             missed, each event once. `event` and the members of `data` (JSON): `seal` {id, index, client, \
             sealedAtMillis}; `attestation` {index, size, quoted, atMillis}; `epoch` {index, epoch, atMillis}; `incident` \
             {index, code, beganMillis, endedMillis, atMillis}; `entry` {index, kind, atMillis} for everything else; \
             `unreadable` {index} for a damaged entry; and without `id`, at the beginning and at every change, \
             `condition` {state}. Unknown events are to be ignored. A scanner gets its own seals and the condition. A \
             comment comes at least every 10 seconds.",
        )
        .needs(Right::ReadEvents)
        .parameter("query", "from", index(), "Index of the first event; default: from now on. Last-Event-ID goes first.")
        .parameter("header", "Last-Event-ID", index(), "Index of the last event that was received.")
        .answer(200, "The stream.", "text/event-stream", json!({
            "schema": {"type": "string"},
            "example": "id: 4711\nevent: seal\ndata: {\"id\":\"4711-9f86d081884c7d65\",\"index\":4711,\"client\":\"mfp-1\",\"sealedAtMillis\":1795219200123}\n\n"
        }))
        .problems(&[Kind::Overloaded])
}

/// The coordinate of a tile.
pub fn tile_path() -> Value {
    json!({
        "type": "string",
        "pattern": "^([0-9]{1,2}|entries)/(x[0-9]{3}/){0,6}[0-9]{3}(\\.p/[1-9][0-9]{0,2})?$",
        "examples": ["0/000.p/7", "entries/x001/x234/067"]
    })
}

/// `GET /tile/...`.
pub fn tile() -> Operation {
    Operation::new(
        "readTile",
        "log",
        "Hashes or entries (C2SP tlog-tiles). What a coordinate names never changes.",
    )
    .parameter("path", "path", tile_path(), "Coordinate; its slashes are not encoded.")
    .answer(
        200,
        "The tile.",
        "application/octet-stream",
        json!({"schema": {"type": "string", "format": "binary"}}),
    )
    .problems(&[Kind::UnknownTile])
}
