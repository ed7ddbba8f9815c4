//! Alert delivery, as status and telemetry show it.
//!
//! Refuses to do: show an address, a secret, or what a receiver said.

use super::Shared;
use crate::alerts::ReceiverFacts;
use crate::telemetry::{family, line};
use serde_json::{Value, json};

/// Member `alerts` of the status; `None` without receivers.
pub fn status(api: &Shared) -> Option<Value> {
    if api.alerts.is_empty() {
        return None;
    }
    let firing = api.alerts.firing().into_iter().map(|alert| {
        json!({
            "name": alert.key.name,
            "subject": (!alert.key.subject.is_empty()).then_some(alert.key.subject),
            "severity": if alert.page { "page" } else { "ticket" },
            "sinceMillis": alert.began.millis,
        })
    });
    let receivers = api.alerts.receivers().into_iter().map(|receiver| {
        json!({
            "name": receiver.name,
            "kind": receiver.kind,
            "delivered": receiver.delivered,
            "failures": receiver.failures,
            "undelivered": receiver.line.undelivered,
            "waitingSeconds": receiver.line.waiting / 1_000,
            "failing": receiver.failing,
        })
    });
    Some(json!({"firing": firing.collect::<Vec<_>>(), "receivers": receivers.collect::<Vec<_>>()}))
}

/// Metrics; nothing without receivers.
pub fn metrics(out: &mut String, api: &Shared) {
    if api.alerts.is_empty() {
        return;
    }
    let name = "bulla_alerts_firing";
    family(out, name, "gauge", "Alerts of the box's own that are firing.");
    line(out, name, "", api.alerts.firing().len());
    let receivers = api.alerts.receivers();
    type Of = fn(&ReceiverFacts) -> f64;
    let families: [(&str, &str, &str, Of); 4] = [
        ("bulla_alerts_delivered_total", "counter", "Notifications that the receiver took.", |one| {
            one.delivered as f64
        }),
        ("bulla_alerts_failures_total", "counter", "Attempts at the receiver that failed.", |one| {
            one.failures as f64
        }),
        ("bulla_alerts_undelivered", "gauge", "Alerts that the receiver is owed.", |one| {
            one.line.undelivered as f64
        }),
        ("bulla_alerts_undelivered_seconds", "gauge", "For how long the oldest of them; 0: none.", |one| {
            one.line.waiting as f64 / 1e3
        }),
    ];
    for (name, kind, help, of) in families {
        family(out, name, kind, help);
        for receiver in &receivers {
            // A receiver's name is made of letters, digits and three signs: nothing to escape.
            line(out, name, &format!("receiver=\"{}\"", receiver.name), of(receiver));
        }
    }
}
