//! The component of the hub that the box dials.

use super::{number, object, text};
use serde_json::{Value, json};

/// All of it.
pub fn all() -> Value {
    json!({
        "DialOut": object("The hub that this box dials; absent without [dial_out].", json!({
            "hub": text("Its name or address, and port."),
            "waiting": number("Connections that wait there now."),
            "taken": number("Those that the hub has spoken through since the start."),
            "trouble": {"type": ["string", "null"], "description": "Why none waits."},
        })),
    })
}
