//! What a box says of itself to the console of its own machine, once a second (docs/formats.md, *Status for the console*).
//!
//! Nothing of it is secret, and nothing of it is signed: it goes from one program to the next through a file of this machine.
//! Refuses to do: hand on a text that a terminal could take for a command.
//! Invariant: a status has one spelling; its texts are one line each, of bounded length, without control characters.

use crate::json;
use serde::{Deserialize, Serialize};

/// Longest status in bytes.
pub const STATUS_BYTES_MAX: usize = 16 << 10;
/// Longest text in it, in bytes.
pub const LINE_BYTES_MAX: usize = 300;
/// Most reasons for which somebody should look.
pub const ATTENTION_MAX: usize = 8;
const VERSION: &str = "box-status/v1";

/// A status. One of `enrolling` and `running` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoxStatus {
    bulla: String,
    /// When it was written: milliseconds since the machine started, sleep included, so that a clock that is set says nothing.
    pub boottime_millis: u64,
    /// The box asks to be enrolled.
    pub enrolling: Option<Enrolling>,
    /// The box runs.
    pub running: Option<Running>,
}

/// A box that waits for a registrar and its people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolling {
    /// Under which its request is found.
    pub claim_code: String,
    /// What is read out to the person who approves.
    pub fingerprint: String,
    /// What the QR code holds.
    pub code: String,
    /// The fleet.
    pub fleet: String,
    /// Whom it asks.
    pub registrar: String,
    /// SHA-256 of its endorsement key, hex.
    pub tpm: String,
    /// How far it is.
    pub progress: String,
}

/// A box that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Running {
    /// `sealing`, or why it does not seal: the `state` of `/v1/status`.
    pub condition: String,
    /// More on that, for people.
    pub why: Option<String>,
    /// The mode in force.
    pub mode: String,
    /// Whether it is a drill.
    pub drill: bool,
    /// Name of its log.
    pub origin: String,
    /// The branch, as the roster names it.
    pub branch: Option<String>,
    /// SHA-256 of the certificate of its CA, hex.
    pub ca: String,
    /// Version of the program.
    pub version: String,
    /// Since its start.
    pub uptime_seconds: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Seals since its start.
    pub seals: u64,
    /// Requests promised a seal.
    pub queued: u64,
    /// The outage under way.
    pub outage: Option<Outage>,
    /// Anchors, where authorities are configured.
    pub anchors: Option<Anchors>,
    /// Neighbours, where there are to be some.
    pub neighbours: Option<Neighbours>,
    /// Room for the log beyond the reserve, in bytes.
    pub free_bytes: Option<u64>,
    /// Why somebody should look: a sentence each.
    pub attention: Vec<String>,
}

/// An outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outage {
    /// Its number.
    pub number: u64,
    /// How long it has lasted.
    pub seconds: u64,
    /// Seals in it.
    pub seals: u64,
}

/// Anchors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anchors {
    /// How old the newest is; absent before the first of this run.
    pub age_seconds: Option<u64>,
    /// Entries that enough operators have anchored.
    pub anchored: u64,
    /// How many operators are enough.
    pub needed: u64,
}

/// Neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Neighbours {
    /// Those that can be asked now.
    pub connected: u64,
    /// All of them.
    pub known: u64,
}

/// Any text as one line that a status may have.
pub fn one_line(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut line = String::new();
    for letter in plain {
        if line.len() + letter.len_utf8() > LINE_BYTES_MAX {
            break;
        }
        line.push(letter);
    }
    line
}

impl BoxStatus {
    /// The status of a box that asks to be enrolled.
    pub fn enrolling(boottime_millis: u64, enrolling: Enrolling) -> Self {
        BoxStatus { bulla: VERSION.to_owned(), boottime_millis, enrolling: Some(enrolling), running: None }
    }

    /// The status of a box that runs.
    pub fn running(boottime_millis: u64, running: Running) -> Self {
        BoxStatus { bulla: VERSION.to_owned(), boottime_millis, enrolling: None, running: Some(running) }
    }

    fn lines(&self) -> Vec<&String> {
        let mut lines = vec![&self.bulla];
        if let Some(of) = &self.enrolling {
            lines.extend([&of.claim_code, &of.fingerprint, &of.code, &of.fleet, &of.registrar, &of.tpm]);
            lines.push(&of.progress);
        }
        if let Some(of) = &self.running {
            lines.extend([&of.condition, &of.mode, &of.origin, &of.ca, &of.version]);
            lines.extend(of.why.iter().chain(&of.branch).chain(&of.attention));
        }
        lines
    }

    /// The file.
    pub fn encode(&self) -> String {
        serde_json::to_value(self).map(|value| format!("{value}\n")).unwrap_or_default()
    }

    /// Reads the file; `None` for anything but what [`Self::encode`] writes.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let value = json::parse(file, STATUS_BYTES_MAX).ok()?;
        let status: BoxStatus = serde_json::from_value(value).ok()?;
        let plain = |line: &&String| line.len() <= LINE_BYTES_MAX && !line.contains(char::is_control);
        let fits = status.running.as_ref().is_none_or(|of| of.attention.len() <= ATTENTION_MAX);
        let one = status.enrolling.is_some() != status.running.is_some();
        let good = one && fits && status.bulla == VERSION && status.lines().iter().all(plain);
        (good && status.encode().as_bytes() == file).then_some(status)
    }
}
