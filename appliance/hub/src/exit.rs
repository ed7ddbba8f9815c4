//! How the program ends: exit codes, and failures that say what, why, and what to do.
//!
//! Refuses to do: end without words, or with a code that `bulla-hub --help` does not list.

use std::fmt;
use std::process::ExitCode;

/// The table of `bulla-hub --help`.
pub const TABLE: &str = "\
Exit codes:
  0  all is well
  1  something was found that speaks against a box or the archive: a fork, quarantined entries, damage
  2  wrong usage, or a file, the archive or the index cannot be read or written
  4  nothing matches; of `produce`: there are exceptions
  7  a box could not be pulled: none of its sources gave what the hub can verify; or the webhook did not take a finding";

/// Exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Something serious was found.
    Found = 1,
    /// Usage or I/O.
    Usage = 2,
    /// No match.
    Nothing = 4,
    /// A box could not be pulled.
    Unreached = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Code to end with.
    pub exit: Exit,
    /// One sentence: what, why, what to do.
    pub message: String,
}

impl Failure {
    /// Wrong usage, or a file that cannot be read or written.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure { exit: Exit::Usage, message: message.into() }
    }

    /// There is no such thing.
    pub fn nothing(message: impl Into<String>) -> Self {
        Failure { exit: Exit::Nothing, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table() {
        for exit in [Exit::Ok, Exit::Found, Exit::Usage, Exit::Nothing, Exit::Unreached] {
            assert!(TABLE.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
    }
}
