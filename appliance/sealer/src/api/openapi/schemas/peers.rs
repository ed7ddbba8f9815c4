//! Components of neighbours and mirrors.

use super::{list, number, object, one_of, text};
use serde_json::{Value, json};

/// All of them.
pub fn all() -> Value {
    json!({
        "Peers": peers(),
        "Mirrors": object("Copies of the neighbours' logs.", json!({
            "mirrors": list(mirror(), 64, "One for each log."),
        })),
    })
}

fn peers() -> Value {
    object(
        "The neighbours; absent without [peers].",
        json!({
            "atStart": one_of(&["waiting", "nobody", "equal", "behind"], "What they knew of this log when the box started."),
            "trouble": {"type": ["string", "null"], "description": "Why the box runs without its neighbours."},
            "neighbours": list(object("A neighbour.", json!({
                "origin": text("Origin of its log."),
                "connected": {"type": "boolean", "description": "Whether it can be asked."},
                "mirrored": number("Entries of this log that it holds durably, as it has cosigned."),
                "witnessed": number("Entries of this log that it has found consistent, as it has cosigned."),
                "copy": object("Its log, here.", json!({
                    "size": number("Entries that are durable here."),
                    "known": number("Entries under the newest signed head that is known."),
                    "mirrored": number("Entries that this box has cosigned as a mirror."),
                    "witnessed": number("Entries that this box has cosigned as a witness."),
                    "frozen": {"type": "boolean", "description": "Its log has forked."},
                })),
                "leftAloneSeconds": {"type": ["integer", "null"], "description": "For how long it is not asked, because an answer of it did not hold."},
                "trouble": {"type": ["string", "null"], "description": "What last went wrong."},
            })), 64, "By origin."),
        }),
    )
}

fn mirror() -> Value {
    object(
        "A copy.",
        json!({
            "origin": text("Origin of the log."),
            "directory": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "Its name under /mirrors/."},
            "size": number("Entries that are durable here."),
            "root": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "Root over them."},
            "headSize": {"type": ["integer", "null"], "description": "Entries under the newest head kept with it."},
            "frozen": {"type": "boolean", "description": "The log has forked: kept and served, never extended."},
            "missingObjects": number("Objects that its entries name and that are not here."),
        }),
    )
}
