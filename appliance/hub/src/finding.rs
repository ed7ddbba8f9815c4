//! Findings: what speaks against a box, a source or the state of a log, each told once.
//!
//! Refuses to do: forget. A finding is about a subject (an entry, a head, an outage); the same kind about the same subject is
//! the same finding, however often it is met, so pulling again after a crash adds none.

use bulla_formats::hash::{Hash, sha256};
use serde_json::{Value, json};
use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Evidence is missing or bad.
    Error,
    /// A box, or somebody with its keys, has lied.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        })
    }
}

impl Severity {
    /// Whether a line of the feed is at least so severe.
    pub fn admits(self, line: &Value) -> bool {
        let all = [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical];
        all.into_iter().any(|severity| severity >= self && line["severity"] == severity.to_string())
    }
}

/// What kind of finding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The log key signed two histories; nothing more is taken from this log.
    Fork,
    /// Entries of a log that was given up as compromised, beyond its last good tree.
    RevokedKey,
    /// Entries that the audit refuses.
    Quarantined,
    /// A source serves what does not lead to the head it serves.
    BadSource,
    /// A signed head covers entries that no source has.
    Gap,
    /// An anchor's proof does not hold, though the trust file knows who should have made it.
    BadAnchor,
    /// A boot state that is none of the trust file's references, or keys in software where policy wants a TPM.
    Policy,
    /// The log does not grow.
    StaleHead,
    /// Entries that nobody vouches for yet, though it is time.
    AnchorOverdue,
    /// An outage without its closing manifest.
    OutageUnclosed,
    /// The box's clock was further off than the box said it could be.
    Clock,
    /// One document sealed by more than one log.
    Duplicate,
}

impl Kind {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fork => "fork",
            Kind::RevokedKey => "revoked-key",
            Kind::Quarantined => "quarantined",
            Kind::BadSource => "bad-source",
            Kind::Gap => "gap",
            Kind::BadAnchor => "bad-anchor",
            Kind::Policy => "policy",
            Kind::StaleHead => "stale-head",
            Kind::AnchorOverdue => "anchor-overdue",
            Kind::OutageUnclosed => "outage-unclosed",
            Kind::Clock => "clock",
            Kind::Duplicate => "duplicate",
        }
    }

    /// How bad findings of this kind are.
    pub fn severity(self) -> Severity {
        match self {
            Kind::Fork | Kind::RevokedKey => Severity::Critical,
            Kind::Quarantined | Kind::Gap | Kind::BadAnchor => Severity::Error,
            Kind::BadSource | Kind::Policy | Kind::StaleHead => Severity::Warning,
            Kind::AnchorOverdue | Kind::OutageUnclosed | Kind::Clock => Severity::Warning,
            Kind::Duplicate => Severity::Info,
        }
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// The log; empty when it is about several.
    pub origin: String,
    /// What it is about, within its kind and log.
    pub subject: String,
    /// One sentence.
    pub detail: String,
    /// Objects of the archive that show it.
    pub evidence: Vec<String>,
}

impl Finding {
    /// A finding without evidence of its own.
    pub fn new(kind: Kind, origin: &str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        let (origin, subject, detail) = (origin.to_owned(), subject.into(), detail.into());
        Finding { kind, origin, subject, detail, evidence: Vec::new() }
    }

    /// What makes it the same finding.
    pub fn key(&self) -> Hash {
        let (kind, origin) = (self.kind.name().as_bytes(), self.origin.as_bytes());
        sha256(&[kind, &[0], origin, &[0], self.subject.as_bytes()])
    }

    /// As one line of the feed.
    pub fn to_json(&self, seq: u64, found_millis: u64) -> Value {
        json!({
            "seq": seq,
            "foundMillis": found_millis,
            "severity": self.kind.severity().to_string(),
            "kind": self.kind.name(),
            "origin": if self.origin.is_empty() { Value::Null } else { self.origin.clone().into() },
            "subject": self.subject,
            "detail": self.detail,
            "evidence": self.evidence,
        })
    }
}
