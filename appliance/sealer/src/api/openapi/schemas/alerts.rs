//! The component of alert delivery.

use super::{list, number, object, one_of, text};
use serde_json::{Value, json};

/// All of it.
pub fn all() -> Value {
    let or_null = |what: &str| json!({"type": ["string", "null"], "description": what});
    json!({
        "Alerts": object("Alerts that the box delivers itself; absent without receivers.", json!({
            "firing": list(object("An alert that is firing.", json!({
                "name": text("Its name; `bulla-box alerts list` has all."),
                "subject": or_null("A neighbour, a folder's client, an authority or a receiver, where there are several."),
                "severity": one_of(&["page", "ticket"], "Whether it is worth waking somebody."),
                "sinceMillis": number("When it began, by the box's clock."),
            })), 256, "By name."),
            "receivers": list(object("A receiver.", json!({
                "name": text("Its name."),
                "kind": one_of(&["webhook", "mail"], "How it is told."),
                "delivered": number("Notifications that it took since the start."),
                "failures": number("Attempts that failed since the start."),
                "undelivered": number("Alerts that it is owed."),
                "waitingSeconds": number("For how long the oldest of them."),
                "failing": or_null("Why the last attempt failed."),
            })), 16, "As configured."),
        })),
    })
}
