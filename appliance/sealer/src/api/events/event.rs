//! One event: an entry of the log, or the box's condition, as the lines of a stream.
//!
//! Refuses to do: show what is not in the clear in the log, or text that somebody typed.
//! Invariant: whatever the entry holds, there is exactly one event for it.

use crate::driver::{Condition, Sealer};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::{Entry, Kind};
use serde_json::{Value, json};

/// An event of the log.
#[derive(Debug)]
pub struct Event {
    /// Log index: the event's id.
    pub index: u64,
    /// Whose seal it is, when it is one.
    pub client: Option<String>,
    /// As it is sent.
    pub text: String,
}

impl Event {
    /// The event of an entry.
    pub fn of_entry(index: u64, bytes: &[u8]) -> Self {
        let Ok(entry) = Entry::decode(bytes) else { return Event::unreadable(index) };
        let content = entry.content();
        let (mut client, at, body) = (None, content.time.unix_millis, content.body.as_ref());
        let known = match entry.kind() {
            Some(Kind::Seal) => SealBody::decode(body).ok().map(|body| {
                let id = Sealer::id(index, &entry.leaf_hash());
                let data = json!({"id": id, "index": index, "client": body.client.id, "sealedAtMillis": at});
                client = Some(body.client.id);
                ("seal", data)
            }),
            Some(Kind::Attestation) => AttestationBody::decode(body).ok().map(|body| {
                let quoted = body.quote.is_some();
                let data = json!({"index": index, "size": body.head.size, "quoted": quoted, "atMillis": at});
                ("attestation", data)
            }),
            Some(Kind::KeyEpoch) => KeyEpochBody::decode(body).ok().map(|body| {
                ("epoch", json!({"index": index, "epoch": body.statement.epoch, "atMillis": at}))
            }),
            Some(Kind::Incident) => IncidentBody::decode(body).ok().map(|body| {
                let (began, ended) = (body.began.unix_millis, body.ended.map(|time| time.unix_millis));
                let data = json!({
                    "index": index, "code": body.code, "beganMillis": began, "endedMillis": ended, "atMillis": at
                });
                ("incident", data)
            }),
            _ => None,
        };
        let (name, data) = known.unwrap_or_else(|| {
            let kind = entry.kind().map(Kind::name);
            ("entry", json!({"index": index, "kind": kind, "atMillis": at}))
        });
        Event { index, client, text: block(Some(index), name, &data) }
    }

    /// The event of an entry that the disk has damaged.
    pub fn unreadable(index: u64) -> Self {
        let text = block(Some(index), "unreadable", &json!({"index": index}));
        Event { index, client: None, text }
    }
}

/// Only the name of the state: reasons are words for engineers, and `/v1/status` has them.
pub fn of_condition(condition: &Condition) -> String {
    let whole = serde_json::to_value(condition).unwrap_or_default();
    block(None, "condition", &json!({"state": whole["state"]}))
}

/// JSON has no line breaks here, so one `data` line is enough.
fn block(id: Option<u64>, name: &str, data: &Value) -> String {
    match id {
        Some(id) => format!("id: {id}\nevent: {name}\ndata: {data}\n\n"),
        None => format!("event: {name}\ndata: {data}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_entry_is_still_one_event() {
        let event = Event::of_entry(5, b"nonsense");
        assert_eq!(event.text, "id: 5\nevent: unreadable\ndata: {\"index\":5}\n\n");
        assert_eq!((event.index, event.client), (5, None));
    }

    #[test]
    fn reasons_stay_in_the_status() {
        let text = of_condition(&Condition::Poisoned { reason: "secret path".to_owned() });
        assert_eq!(text, "event: condition\ndata: {\"state\":\"poisoned\"}\n\n");
    }
}
