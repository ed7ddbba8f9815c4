//! Schemas of people's sessions and of samples.

use super::{closed, list, number, object, one_of, text};
use serde_json::{Value, json};

/// All of them.
pub fn all() -> Value {
    let secret = |words: &str| json!({"type": "string", "maxLength": 1024, "description": words});
    let maybe = |words: &str| json!({"type": ["integer", "null"], "minimum": 0, "description": words});
    let sample = object(
        "What happened since the sample before.",
        json!({
            "atMillis": number("When, by the box's clock (Unix milliseconds)."),
            "seals": number("Seals made."),
            "halfMicros": maybe("Half of them took at most so long (upper end of a bucket), null for none."),
            "mostMicros": maybe("99 of 100 took at most so long."),
            "unanchored": maybe("Entries not yet anchored, null without authorities."),
            "anchorLagSeconds": maybe("How long the oldest of them has waited."),
            "unattested": number("Entries that no TPM quote covers yet."),
        }),
    );
    json!({
        "Login": closed("Who logs in.", json!({
            "name": text("As in `bulla-box people list`."),
            "password": secret("The password."),
        })),
        "NewPassword": closed("A password to be.", json!({
            "name": text("As in `bulla-box people list`."),
            "current": secret("The password so far, or the one-time code."),
            "password": secret("The new one: at least 12 characters."),
        })),
        "Session": object("Who is logged in, and what the console's pages need.", json!({
            "name": text("The person."),
            "label": text("What the log calls the person."),
            "role": one_of(&["clerk", "qa", "ops", "auditor"], "What the person is there for."),
            "rights": list(json!({"type": "string"}), 32, "What pages offer."),
            "proof": text("Goes into the header Bulla-Session-Proof of whatever changes something."),
            "idleSeconds": number("The session ends after so long without use."),
        })),
        "History": object("Samples.", json!({
            "periodSeconds": number("Between two of them."),
            "samples": list(sample, 2_160, "Oldest first."),
        })),
    })
}
