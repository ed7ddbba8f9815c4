//! The component of the configuration that the fleet's people approved.

use super::{number, object, text};
use serde_json::{Value, json};

fn named(description: &str) -> Value {
    let file = json!({"type": ["string", "null"], "description": "sha256:<hex> of the file; null: the one that lies on the box."});
    let roster = json!({"type": ["integer", "null"], "minimum": 0, "description": "The version of the roster that named it."});
    object(description, json!({"file": file, "roster": roster}))
}

fn perhaps(schema: Value) -> Value {
    json!({"oneOf": [{"type": "null"}, schema]})
}

/// All of it.
pub fn all() -> Value {
    json!({
        "Configuration": object("What the fleet's people approved for this box to go by; absent where they never did.", json!({
            "inForce": named("What the box goes by."),
            "waits": perhaps(named("What it goes by from its next start on, or tries now.")),
            "refused": perhaps(object("The last one that did not do.", json!({
                "file": {"type": ["string", "null"], "description": "sha256:<hex> of the file; null: the one that lies on the box."},
                "roster": number("The version of the roster that named it."),
                "why": text("What was wrong with it."),
                "atMillis": number("When (Unix milliseconds)."),
            }))),
            "damaged?": text("Why what is kept of it is not believed; it is asked for again."),
        })),
    })
}
