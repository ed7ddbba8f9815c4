//! The switches of a witness, and what it counts; both are JSON on its second port.

use crate::faults::Quota;
use crate::gate::Transport;
use serde::{Deserialize, Serialize};

/// The switches. What a `PUT` leaves out is as at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Knobs {
    /// What becomes of connections.
    pub transport: Transport,
    /// How long an answer takes.
    pub delay_millis: u64,
    /// What the answer is.
    pub answer: Answer,
    /// How far the witness's clock is off.
    pub clock_offset_seconds: i64,
    /// How much one may ask.
    pub quota: Option<Quota>,
}

/// What a request that deserves a cosignature is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It.
    #[default]
    Cosignature,
    /// It, between lines of other witnesses and of an algorithm that nobody knows yet.
    Crowd,
    /// It, with one wrong bit.
    Damaged,
    /// A cosignature of another checkpoint.
    OtherCheckpoint,
    /// Lines of other witnesses alone.
    Strangers,
    /// HTTP 409 with a size that it never cosigned.
    FalseSize,
    /// HTTP 503.
    Unavailable,
    /// HTTP 200 and a web page.
    CaptivePortal,
    /// HTTP 302 to a web page.
    Redirect,
    /// A hundred million bytes.
    Huge,
    /// Headers, a few bytes, then nothing.
    Stalled,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Connections.
    pub connections: u64,
    /// Requests for a cosignature.
    pub requests: u64,
    /// Cosignatures given.
    pub cosignatures: u64,
    /// Requests answered with 409: the client did not know where the witness stood.
    pub conflicts: u64,
    /// Requests answered with 422: somebody tried to make it cosign a fork.
    pub inconsistencies: u64,
    /// Requests that the quota forbade.
    pub beyond_quota: u64,
}
