//! The words of a notification: JSON in the shape of Alertmanager's webhooks, and plain text for mail.
//!
//! docs/formats.md, "Alerts", has the members. A receiver of Alertmanager's `version` "4" reads it as it is; `bulla` and the
//! members beside it are ours.
//! Refuses to do: say more than box, site, times, and the words of [`super::conditions`] with the details of [`super::look`].
//! Invariant: one notification has one text, whenever it is sent; only `sent` tells the attempts apart.

use super::conditions::{self, Condition, TEST};
use super::plan::{Item, Key, Notification, Said};
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Version of the members that are ours.
pub const FORMAT: &str = "alert/v1";
/// What Alertmanager writes for an end that has not come.
const NOT_ENDED: &str = "0001-01-01T00:00:00Z";

/// Whose message it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The log's name.
    pub origin: String,
    /// What people call the place.
    pub site: String,
    /// Where the box's own pages are.
    pub url: String,
}

/// A mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub text: String,
}

/// What a condition is called in words; one that this version does not know was kept by another.
fn row(key: &Key) -> Condition {
    let known = conditions::find(&key.name).or((key.name == TEST.name).then_some(&TEST));
    known.copied().unwrap_or(Condition {
        name: "",
        page: false,
        hold: 0,
        what: "A condition that another version of the box alerted of",
        remedy: "See the status of the box.",
        runbook: "docs/operating.md",
    })
}

/// A time with its uncertainty.
fn stated(said: &Said) -> String {
    match said.uncertainty_millis {
        Some(millis) => format!("{} (± {}.{:03} s)", utc(said.millis), millis / 1_000, millis % 1_000),
        None => format!("{} (uncertainty not known)", utc(said.millis)),
    }
}

/// The sentence of an item.
fn sentence(item: &Item) -> String {
    let mut text = row(&item.key).what.to_owned();
    if !item.key.subject.is_empty() {
        let _ = write!(text, " ({})", item.key.subject);
    }
    if !item.detail.is_empty() {
        let _ = write!(text, ": {}", item.detail);
    }
    text.push('.');
    text
}

/// When it was, in words.
fn span(item: &Item) -> String {
    let mut text = match &item.ended {
        None if item.again => format!("Goes on since {}.", stated(&item.began)),
        None => format!("Since {}.", stated(&item.began)),
        Some(ended) => format!("From {} to {}.", stated(&item.began), stated(ended)),
    };
    match item.times {
        0 | 1 => {}
        2 => text.push_str(" In between it was over once."),
        times => {
            let _ = write!(text, " In between it was over {} times.", times - 1);
        }
    }
    text
}

fn severity(item: &Item) -> &'static str {
    if item.page { "page" } else { "ticket" }
}

fn firing(notification: &Notification) -> bool {
    notification.items.iter().any(|item| item.ended.is_none())
}

/// The body of a webhook's post. `sent`: now, as the box states it.
pub fn json(sender: &Sender, receiver: &str, notification: &Notification, sent: &Said) -> Value {
    let alert = |item: &Item| {
        let row = row(&item.key);
        let mut labels = json!({
            "alertname": item.key.name,
            "severity": severity(item),
            "job": "bulla-box",
            "instance": sender.origin,
            "site": sender.site,
        });
        if !item.key.subject.is_empty() {
            labels["subject"] = item.key.subject.as_str().into();
        }
        // The same for every notification of one alert of one box, and for no other.
        let print = sha256(&[
            b"bulla/alert-fingerprint/v1\0",
            sender.origin.as_bytes(),
            b"\0",
            item.key.name.as_bytes(),
            b"\0",
            item.key.subject.as_bytes(),
        ]);
        json!({
            "status": if item.ended.is_some() { "resolved" } else { "firing" },
            "labels": labels,
            "annotations": {
                "summary": format!("{}: {}", sender.site, sentence(item)),
                "description": row.remedy,
                "runbook": row.runbook,
                "when": span(item),
            },
            "startsAt": utc(item.began.millis),
            "endsAt": item.ended.map_or(NOT_ENDED.to_owned(), |ended| utc(ended.millis)),
            "generatorURL": sender.url,
            "fingerprint": &print.to_string()[..16],
        })
    };
    let common = json!({"job": "bulla-box", "instance": sender.origin, "site": sender.site});
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{instance={:?}}}", sender.origin),
        "truncatedAlerts": 0,
        "status": if firing(notification) { "firing" } else { "resolved" },
        "receiver": receiver,
        "groupLabels": {"instance": sender.origin},
        "commonLabels": common,
        "commonAnnotations": {},
        "externalURL": sender.url,
        "alerts": notification.items.iter().map(alert).collect::<Vec<_>>(),
        "bulla": FORMAT,
        "notification": notification.id,
        "box": sender.origin,
        "site": sender.site,
        "sent": {"millis": sent.millis, "uncertaintyMillis": sent.uncertainty_millis},
    })
}

/// The mail.
pub fn mail(sender: &Sender, notification: &Notification, sent: &Said) -> Mail {
    let items = &notification.items;
    let open = items.iter().filter(|item| item.ended.is_none()).count();
    let pages = items.iter().filter(|item| item.page && item.ended.is_none()).count();
    let mark = match (open, pages) {
        (0, _) => "RESOLVED",
        (_, 0) => "ALERT",
        _ => "PAGE",
    };
    let mut names: Vec<&str> = items.iter().map(|item| item.key.name.as_str()).collect();
    names.dedup();
    let more = names.len().saturating_sub(3);
    names.truncate(3);
    let mut subject = format!("[Bulla {mark}] {}: {}", sender.site, names.join(", "));
    if more > 0 {
        let _ = write!(subject, " and {more} more");
    }
    let mut text = format!("Site  {}\nBox   {}\nPages {}\n", sender.site, sender.origin, sender.url);
    for item in items {
        let row = row(&item.key);
        let state = if item.ended.is_some() { "RESOLVED" } else { "FIRING" };
        let _ = write!(
            text,
            "\n{state}  {}  ({})\n  {}\n  {}\n",
            item.key.name,
            severity(item),
            sentence(item),
            span(item)
        );
        if item.ended.is_none() {
            let _ = write!(text, "  What to do: {}\n  Read on: {}\n", row.remedy, row.runbook);
        }
    }
    let _ = write!(text, "\nNotification {}, sent {}.\n", notification.id, stated(sent));
    Mail { subject, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Sender, Notification, Said) {
        let sender = Sender {
            origin: "bank.example/ab/1".to_owned(),
            site: "Branch 17".to_owned(),
            url: "https://box:8443/".to_owned(),
        };
        let said = |millis| Said { millis, uncertainty_millis: Some(20) };
        let item = |name: &str, ended, times| Item {
            key: Key { name: name.to_owned(), subject: String::new() },
            page: false,
            detail: String::new(),
            began_at: 0,
            began: said(1_000),
            ended,
            again: false,
            times,
            owed_at: 0,
        };
        let emergency = item("BullaEmergency", None, 1);
        let rejected = Item {
            key: Key { name: "BullaFilesRejected".to_owned(), subject: "desk-1".to_owned() },
            detail: "3 since the start of the box".to_owned(),
            ..item("", Some(said(61_000)), 2)
        };
        let notification = Notification { id: "aaaa-1".to_owned(), items: vec![emergency, rejected] };
        (sender, notification, Said { millis: 90_000, uncertainty_millis: None })
    }

    #[test]
    fn a_post_is_what_alertmanager_posts_and_says_more() {
        let (sender, notification, sent) = example();
        let body = json(&sender, "pager", &notification, &sent);
        assert_eq!((body["version"].as_str(), body["status"].as_str()), (Some("4"), Some("firing")));
        assert_eq!(body["receiver"], "pager");
        assert_eq!(body["bulla"], "alert/v1");
        let [open, over] = body["alerts"].as_array().unwrap().as_slice() else { panic!("{body}") };
        assert_eq!((open["status"].as_str(), open["endsAt"].as_str()), (Some("firing"), Some(NOT_ENDED)));
        assert_eq!(open["startsAt"], "1970-01-01T00:00:01.000Z");
        assert_eq!(open["labels"]["alertname"], "BullaEmergency");
        assert_eq!(over["endsAt"], "1970-01-01T00:01:01.000Z");
        assert_eq!(over["labels"]["subject"], "desk-1");
        assert!(over["annotations"]["when"].as_str().unwrap().contains("over once."), "{over}");
        assert_ne!(open["fingerprint"], over["fingerprint"]);
        assert_eq!(open["fingerprint"].as_str().map(str::len), Some(16));
    }

    #[test]
    fn a_mail_says_what_and_what_to_do() {
        let (sender, mut notification, sent) = example();
        let found = mail(&sender, &notification, &sent);
        assert_eq!(found.subject, "[Bulla ALERT] Branch 17: BullaEmergency, BullaFilesRejected");
        for words in [
            "no authority and no hub answers.",
            "What to do: Seals go on.",
            "wan-outage.md",
            "± 0.020 s",
            "aaaa-1",
        ] {
            assert!(found.text.contains(words), "{words:?} is not in {}", found.text);
        }
        notification.items.remove(0);
        assert!(mail(&sender, &notification, &sent).subject.starts_with("[Bulla RESOLVED]"));
    }
}
