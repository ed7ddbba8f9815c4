//! `[console]`: pages for people.
//!
//! Refuses to do: keep a session for ever.

use super::{ConfigError, between};
use serde::Deserialize;
use std::time::Duration;

/// `[console]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// Serve the console at `/`. Default true; nobody can log in before `bulla-box people add`.
    pub enabled: bool,
    /// Seconds after which a session ends in which nothing was done. Default 1800.
    pub idle_seconds: u64,
    /// Seconds after which a session ends in any case. Default 43200.
    pub session_seconds: u64,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        ConsoleConfig { enabled: true, idle_seconds: 1_800, session_seconds: 43_200 }
    }
}

impl ConsoleConfig {
    /// How long a session lasts without use.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    /// How long a session lasts.
    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.session_seconds)
    }
}

/// Ranges.
pub(super) fn check(console: &ConsoleConfig) -> Result<(), ConfigError> {
    between("console.idle_seconds", console.idle_seconds, 5, 86_400)?;
    between("console.session_seconds", console.session_seconds, 5, 604_800)
}
