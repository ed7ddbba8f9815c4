//! `[medium]`: a removable medium that the box keeps a copy of its log on.
//!
//! Refuses to do: say what is on it; the box reads that.

use super::{ConfigError, between, refuse};
use bulla_formats::medium::MediumId;
use serde::Deserialize;
use std::path::PathBuf;

/// How often the box looks when nothing else is said.
const EVERY_SECONDS: u64 = 30;

/// `[medium]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediumConfig {
    /// Where the medium is mounted. Required. Without a mount there nothing is written.
    pub path: PathBuf,
    /// Only the medium of this id, as the status shows it. Default: any.
    pub id: Option<String>,
    /// How often the box looks whether it is there, and brings what is new. Default 30.
    #[serde(default = "every_seconds")]
    pub every_seconds: u64,
}

fn every_seconds() -> u64 {
    EVERY_SECONDS
}

impl MediumConfig {
    /// The only medium that is used, when one is named.
    pub fn wanted(&self) -> Option<MediumId> {
        self.id.as_deref().and_then(MediumId::parse)
    }
}

/// Ranges.
pub(super) fn check(medium: &MediumConfig) -> Result<(), ConfigError> {
    if !medium.path.is_absolute() {
        return refuse("medium.path", "write the absolute path of a mount point, e.g. \"/media/bulla\"");
    }
    if medium.id.is_some() && medium.wanted().is_none() {
        return refuse("medium.id", "write the 32 hex digits that the status shows, or leave it out");
    }
    between("medium.every_seconds", medium.every_seconds, 1, 3_600)
}
