//! The switches of an authority, and what it counts; both are JSON on its second port.

use crate::faults::Quota;
use crate::gate::Transport;
use crate::tls::Handshake;
use serde::{Deserialize, Serialize};

/// The switches. What a `PUT` leaves out is as at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Knobs {
    /// What becomes of connections.
    pub transport: Transport,
    /// What becomes of handshakes, where the authority speaks https.
    pub handshake: Handshake,
    /// How long an answer takes.
    pub delay_millis: u64,
    /// What the answer is.
    pub answer: Answer,
    /// How far the authority's clock is off (libfaketime).
    pub clock_offset_seconds: i64,
    /// How much one may ask.
    pub quota: Option<Quota>,
    /// What becomes of whoever asks for a CRL, where the certificates name any.
    pub crl: CrlAnswer,
}

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A stamp.
    #[default]
    Stamp,
    /// A refusal in the words of RFC 3161.
    TimeNotAvailable,
    /// HTTP 503.
    Unavailable,
    /// HTTP 200 and a web page: the branch's network wants somebody to accept its terms.
    CaptivePortal,
    /// HTTP 302 to a web page, as other captive portals do.
    Redirect,
    /// A hundred million bytes.
    Huge,
    /// Headers, a few bytes, then nothing.
    Stalled,
    /// A stamp, a byte every 50 ms.
    Trickle,
    /// A stamp of which one bit is wrong.
    Damaged,
    /// A good stamp, over another hash.
    WrongImprint,
    /// A good stamp over the hash, for another request.
    WrongNonce,
    /// The first stamp that was ever made, again.
    Replay,
    /// A stamp under a root that has the same name and another key.
    Stranger,
    /// A stamp by a certificate that has expired.
    ExpiredCertificate,
    /// A stamp by a certificate for web servers.
    WrongPurpose,
    /// A stamp by the signer's successor, whom no CRL lists.
    Successor,
}

/// What is answered where certificates say that a CRL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrlAnswer {
    /// A CRL on which nobody is.
    #[default]
    Good,
    /// Connections are refused.
    Unreachable,
    /// HTTP 404.
    Missing,
    /// HTTP 200 and a web page.
    CaptivePortal,
    /// Headers, a few bytes, then nothing.
    Stalled,
    /// A hundred million bytes.
    Giant,
    /// One that held for a minute, an hour ago.
    Expired,
    /// By a CA of the same name with another key.
    Stranger,
    /// The signer is on it: its key was compromised.
    Compromised,
    /// The signer is on it, nobody says why.
    WithoutReason,
    /// The signer is on it: it has a successor.
    Superseded,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Connections.
    pub connections: u64,
    /// Requests for a stamp.
    pub requests: u64,
    /// Replies that hold a genuine stamp, made for the request or not.
    pub stamps: u64,
    /// Requests that the quota forbade.
    pub beyond_quota: u64,
    /// Requests for a CRL.
    pub crls: u64,
}
