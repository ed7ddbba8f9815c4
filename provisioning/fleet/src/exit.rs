//! How the program ends: exit codes, and failures that say what, why, and what to do.
//!
//! Refuses to do: end without words, or with a code that `bulla-fleet --help` does not list.

use bulla_ceremony::CeremonyError;
use bulla_roster::RosterRefusal;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// The table of `bulla-fleet --help`.
pub const TABLE: &str = "\
Exit codes:
  0  all is well
  1  refused: evidence does not verify, somebody played false, a boot is not a known good one, or the roster does not allow it
  2  wrong usage, or a file cannot be read or written
  3  not finished: others must act first
  4  the person did not agree";

/// Exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Evidence refused, or somebody played false.
    Refused = 1,
    /// Usage or I/O.
    Usage = 2,
    /// Others must act first.
    Waits = 3,
    /// The person said no.
    Declined = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// Code to end with.
    pub exit: Exit,
    /// One sentence: what, why, what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into() }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
    }

    /// A file that cannot be read or written.
    pub fn file(doing: &str, path: &Path, error: impl fmt::Display) -> Self {
        Failure::usage(format!("cannot {doing} {}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        Failure::new(Exit::Refused, error.to_string())
    }
}

impl From<RosterRefusal> for Failure {
    fn from(refusal: RosterRefusal) -> Self {
        Failure::new(Exit::Refused, format!("refused ({}): {refusal}", refusal.code()))
    }
}
