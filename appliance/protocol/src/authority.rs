//! Authorities: the remote services whose answers are evidence, and how one fails to give any.
//!
//! Invariant: only an answer that was verified counts as one. A captive portal, a quota refusal or an error page is a
//! failure like a dead line: it brings no evidence; so is a stamp whose signer is known to be revoked.

/// One remote service: a timestamp authority, a witness, a hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Its name in the configuration; for ever the same, because quotas are remembered under it.
    pub id: String,
    /// Who runs it. Proofs count by operator, not by service.
    pub operator: String,
}

/// How a question to an authority failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// The connection was refused.
    Refused,
    /// No answer in time: a black hole, a stalled handshake, or nothing heard at all.
    Timeout,
    /// Its name did not resolve.
    Dns,
    /// TLS failed: a wrong certificate, an interception.
    Tls,
    /// An answer that is not one: a captive portal, a token that does not verify.
    BadAnswer,
    /// An HTTP status that is an error.
    HttpStatus,
    /// No route.
    Unreachable,
    /// It says that it was asked too often.
    Quota,
    /// A stamp that verifies, by a signer that is revoked for what makes its stamps count for nothing.
    Revoked,
    /// Something else.
    Other,
}

impl Failure {
    /// All kinds.
    pub const ALL: [Failure; 10] = [
        Failure::Refused,
        Failure::Timeout,
        Failure::Dns,
        Failure::Tls,
        Failure::BadAnswer,
        Failure::HttpStatus,
        Failure::Unreachable,
        Failure::Quota,
        Failure::Revoked,
        Failure::Other,
    ];

    /// Its stable name, for configuration, metrics and people.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Timeout => "timeout",
            Failure::Dns => "dns",
            Failure::Tls => "tls",
            Failure::BadAnswer => "bad-answer",
            Failure::HttpStatus => "http-status",
            Failure::Unreachable => "unreachable",
            Failure::Quota => "quota",
            Failure::Revoked => "revoked",
            Failure::Other => "other",
        }
    }
}

/// What is known of an authority that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its id.
    pub authority: String,
    /// How it failed last.
    pub failure: Failure,
    /// How long it has been failing, in milliseconds.
    pub for_millis: u64,
}
