//! Components of neighbours and mirrors.

use super::{closed, list, number, object, one_of, reference, text};
use serde_json::{Value, json};

/// All of them.
pub fn all() -> Value {
    json!({
        "Peers": peers(),
        "RosterOrder": closed("A roster to take.", json!({
            "roster": {"type": "string", "contentEncoding": "base64", "maxLength": 16777000, "description": "DER of a roster."},
        })),
        "Roster": roster(),
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
                "attested": attested(),
                "trust": one_of(&["roster", "by-hand"], "Why it is a neighbour."),
                "exchanged": one_of(&["nothing", "heads", "entries"], "What is exchanged with it."),
            })), 64, "By origin."),
            "keptOut": {"type": "array", "items": object("A box that would be a neighbour.", json!({
                "origin": text("Origin of its log."),
                "why": text("Why it is not."),
            })), "description": "Whom a roster or the configuration shuts out."},
            "rosters": list(reference("Roster"), 64, "The rosters that the box goes by."),
            "rosterTroubles": list(object("A roster that does not count.", json!({
                "fleet": text("Its fleet."),
                "why": text("What is wrong."),
            })), 64, "Until a newer one is taken."),
            "foreign": list(object("Another fleet on this network.", json!({
                "fleet": text("Fleet domain."),
                "exchanged": one_of(&["nothing", "heads", "entries"], "What its boxes get."),
            })), 1024, "As configured; a fleet that is not listed gets nothing."),
        }),
    )
}

fn roster() -> Value {
    object(
        "A roster in force.",
        json!({
            "fleet": text("Fleet domain."),
            "version": number("Number of its version."),
            "hash": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "Hash of its version."},
            "came": one_of(&["registrar", "file", "neighbour"], "How it came."),
            "from": text("The registrar's address, the operator, or the neighbour's log."),
            "thisBox": {"type": ["string", "null"], "description": "What this box is in it; null where it is not listed."},
            "hubs": list(text("Name of a hub."), 16, "Hubs that are let in by it; none by a foreign fleet's."),
        }),
    )
}

fn attested() -> Value {
    object(
        "Whether its TPM vouches for it.",
        json!({
            "state": one_of(&["never", "fresh", "stale", "refused"], "How it stands."),
            "reason": {"type": ["string", "null"], "description": "Why it is refused: boot-changed, reset-went-back, other-key or not-genuine."},
            "since": {"type": ["integer", "null"], "description": "Unix milliseconds since which it is fresh without a gap, or refused."},
            "last": {"type": ["integer", "null"], "description": "Unix milliseconds of its last good answer."},
            "key": {"type": ["string", "null"], "description": "Where the key is that its log enrols: tpm, or software, for which no hardware vouches; null until it has been challenged."},
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
