//! `[staged]`: whether this box may begin its next log by itself, from an enrolment that the fleet gave it ahead of time.
//!
//! Refuses to do: allow it by default. Without the section nothing is staged and nothing staged is begun.

use super::{ConfigError, between, refuse};
use serde::Deserialize;
use std::path::PathBuf;

/// How old an enrolment may be when nothing else is said.
const DAYS: u64 = 365;

/// `[staged]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedConfig {
    /// File of the staged log. Default `<state_dir>.staged`; on another disk it outlives this one.
    pub file: Option<PathBuf>,
    /// How many days after its enrolment the staged log can be begun. Default 365.
    #[serde(default = "days")]
    pub days: u64,
}

fn days() -> u64 {
    DAYS
}

/// Ranges.
pub(super) fn check(staged: &StagedConfig) -> Result<(), ConfigError> {
    if staged.file.as_ref().is_some_and(|file| !file.is_absolute() || file.file_name().is_none()) {
        return refuse(
            "staged.file",
            "write the absolute path of a file, e.g. \"/srv/other-disk/bulla.staged\"",
        );
    }
    between("staged.days", staged.days, 1, 1_825)
}
