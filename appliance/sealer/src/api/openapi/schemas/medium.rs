//! The component of the medium that the log is copied to.

use super::{list, number, object, one_of, text};
use crate::driver::medium::State;
use serde_json::{Value, json};

/// All of it.
pub fn all() -> Value {
    let id = || json!({"type": ["string", "null"], "pattern": "^[0-9a-f]{32}$", "description": "Name of the medium that is in."});
    let or_null = |what: &str| json!({"type": ["string", "null"], "description": what});
    json!({
        "Medium": object("The medium that the log is copied to; absent without [medium]. It is no mirror.", json!({
            "state": one_of(&State::ALL.map(State::name), "How it stands."),
            "trouble": or_null("Why it does not go on."),
            "id": id(),
            "device": or_null("What is mounted."),
            "fileSystem": or_null("As what."),
            "media": list(object("A medium that this log was copied to.", json!({
                "id": text("Its name."),
                "size": number("Entries that were read back from it."),
                "statedMillis": number("When, by the box's clock."),
                "here": {"type": "boolean", "description": "Whether it is in now."},
            })), 16, "The newest first."),
        })),
    })
}
