//! The record of changes to a box's network settings, for `bulla-box` to enter into its log (docs/formats.md, *Network
//! settings*): made by whoever changes them, read by the box.
//!
//! Refuses to do: change settings; forget the number of a change: what fell out of the record leaves a gap in the numbers.
//! Invariants: a record has one spelling; every change in it makes an entry that its readers take.

use crate::body::incident::IncidentBody;
use crate::body::operator_action::{OperatorActionBody, Parameter};
use crate::checked_json;
use crate::der;
use crate::entry::{Kind, LocalTime, NUMBER_MAX};
use crate::json;
use crate::network::Settings;
use serde_json::{Value, json};

/// Most changes in a record: older ones are in the log, or were never seen by a box that did not run.
pub const CHANGES_MAX: usize = 8;
/// Longest record file in bytes.
pub const CHANGES_BYTES_MAX: usize = 32 << 10;
/// Longest detail in bytes.
pub const DETAIL_BYTES_MAX: usize = 200;
const VERSION: &str = "network-changes/v1";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody changed the settings, and confirmed that they work.
    Changed,
    /// Nobody confirmed: the former ones came back.
    FellBack,
    /// The file could not be believed: the box is as it was delivered.
    Damaged,
}

/// Who it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Whoever is at the box's own keyboard.
    Console,
    /// The stick that took the box into service.
    Stick,
    /// The box itself, when it starts.
    Start,
}

impl Event {
    const ALL: [Event; 3] = [Event::Changed, Event::FellBack, Event::Damaged];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Event::Changed => "changed",
            Event::FellBack => "fell-back",
            Event::Damaged => "damaged",
        }
    }
}

impl By {
    const ALL: [By; 3] = [By::Console, By::Stick, By::Start];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            By::Console => "console",
            By::Stick => "stick",
            By::Start => "start",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number, from 1 on without gaps.
    pub number: u64,
    /// What happened.
    pub event: Event,
    /// Who it was.
    pub by: By,
    /// When the settings were tried (Unix milliseconds, the machine's clock); at most `at_millis`.
    pub began_millis: u64,
    /// When it was settled.
    pub at_millis: u64,
    /// What was in force before, or, of what fell back, what was tried; `None` where nobody can know.
    pub before: Option<Settings>,
    /// What is in force since.
    pub after: Settings,
    /// For people; at most 200 bytes without control characters.
    pub detail: String,
}

impl Change {
    fn object(&self) -> Value {
        json!({
            "number": self.number,
            "event": self.event.name(),
            "by": self.by.name(),
            "beganMillis": self.began_millis,
            "atMillis": self.at_millis,
            "before": self.before.as_ref().map(Settings::object),
            "after": self.after.object(),
            "detail": self.detail,
        })
    }

    fn from_object(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let number = |name: &str| value.get(name)?.as_u64().filter(|number| *number <= NUMBER_MAX);
        let before = match value.get("before")? {
            Value::Null => None,
            object => Some(Settings::from_object(object).ok()?),
        };
        let change = Change {
            number: number("number")?,
            event: Event::ALL.into_iter().find(|event| text("event") == Some(event.name()))?,
            by: By::ALL.into_iter().find(|by| text("by") == Some(by.name()))?,
            began_millis: number("beganMillis")?,
            at_millis: number("atMillis")?,
            before,
            after: Settings::from_object(value.get("after")?).ok()?,
            detail: text("detail")?.to_owned(),
        };
        let plain = change.detail.len() <= DETAIL_BYTES_MAX && !change.detail.contains(char::is_control);
        let knows = change.before.is_some() == (change.event != Event::Damaged);
        (plain && knows && change.number > 0 && change.began_millis <= change.at_millis).then_some(change)
    }

    /// The body of its entry.
    pub fn entry(&self) -> (Kind, Vec<u8>) {
        let before = self.before.as_ref().map(Settings::to_string).unwrap_or_default();
        let incident = |code: &str, detail: String| {
            let local = |unix_millis| LocalTime { unix_millis, uncertainty_millis: None };
            let body = IncidentBody {
                code: code.to_owned(),
                began: local(self.began_millis),
                ended: Some(local(self.at_millis)),
                detail,
            };
            (Kind::Incident, der::encode(&body))
        };
        match self.event {
            Event::Changed => {
                let parameter = |name: &str, value: String| Parameter { name: name.to_owned(), value };
                let action = OperatorActionBody {
                    action: "network-change".to_owned(),
                    parameters: vec![
                        parameter("number", self.number.to_string()),
                        parameter("by", self.by.name().to_owned()),
                        parameter("at", self.at_millis.to_string()),
                        parameter("before", before),
                        parameter("after", self.after.to_string()),
                    ],
                    reason: self.detail.clone(),
                    approvals: Vec::new(),
                };
                (Kind::OperatorAction, der::encode(&action))
            }
            Event::FellBack => incident(
                "network-fell-back",
                format!(
                    "change {}: the former settings are in force again ({}); tried: {before}",
                    self.number, self.detail
                ),
            ),
            Event::Damaged => incident(
                "network-settings-damaged",
                format!("change {}: the network is as delivered, with DHCP ({})", self.number, self.detail),
            ),
        }
    }
}

/// The newest changes, the oldest of them first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// All of them.
    pub fn all(&self) -> &[Change] {
        &self.0
    }

    /// Adds a change; it gets the next number, and the oldest makes room.
    pub fn add(&mut self, mut change: Change) {
        change.number = self.0.last().map_or(1, |last| last.number + 1);
        self.0.push(change);
        let surplus = self.0.len().saturating_sub(CHANGES_MAX);
        self.0.drain(..surplus);
    }

    /// The file.
    pub fn encode(&self) -> String {
        let changes: Vec<Value> = self.0.iter().map(Change::object).collect();
        checked_json::with_checksum(&format!("{:#}", json!({"bulla": VERSION, "changes": changes})))
    }

    /// Reads a record file; `None` for anything but what [`Self::encode`] writes.
    pub fn parse(file: &[u8]) -> Option<Self> {
        if file.len() > CHANGES_BYTES_MAX {
            return None;
        }
        let object = json::parse(&checked_json::body(file).ok()?, CHANGES_BYTES_MAX).ok()?;
        let changes: Option<Vec<Change>> =
            object.get("changes")?.as_array()?.iter().map(Change::from_object).collect();
        let record = Changes(changes?);
        let gapless = record.0.windows(2).all(|pair| pair[0].number + 1 == pair[1].number);
        let fits = (1..=CHANGES_MAX).contains(&record.0.len());
        (gapless && fits && record.encode().as_bytes() == file).then_some(record)
    }
}
