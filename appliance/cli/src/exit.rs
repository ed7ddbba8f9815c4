//! How the program ends: exit codes, and failures that say what, why, and what to do.
//!
//! Refuses to do: end without words, or with a code that `bulla --help` does not list.

use bulla_formats::report::Verdict;
use std::fmt;
use std::process::ExitCode;

/// The table of `bulla --help`.
pub const TABLE: &str = "\
Exit codes:
  0  all is well
  1  evidence is refused, or a log is damaged
  2  wrong usage, or a file cannot be read or written
  3  the seal is genuine, but of another document
  4  no seal is known for this document, or none matches the search
  5  the seal needs a newer version of this program
  6  the seal is genuine, but the trust file's policy asks for more
  7  the box cannot be reached, or it refused
  8  the seal's box was compromised, and nothing shows that the seal was made before
Of many documents verified together the worst counts; from worst to best: 1, 8, 3, 4, 2, 5, 6, 0.";

/// Exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Evidence refused, or log damaged.
    Refused = 1,
    /// Usage or I/O.
    Usage = 2,
    /// The seal is of another document.
    OtherDocument = 3,
    /// No `.seal` file.
    NoSeal = 4,
    /// Verifier too old.
    TooOld = 5,
    /// Policy unmet.
    PolicyUnmet = 6,
    /// Box unreachable or refusing.
    Box = 7,
    /// Nothing shows that the seal is from before its box was compromised.
    Indeterminate = 8,
}

impl Exit {
    /// How bad the end of one document is among many, as [`TABLE`] says: what speaks against a document before what is
    /// merely missing, and that before what another program or trust file would settle.
    pub fn badness(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::PolicyUnmet => 1,
            Exit::TooOld => 2,
            Exit::Box => 3,
            Exit::Usage => 4,
            Exit::NoSeal => 5,
            Exit::OtherDocument => 6,
            Exit::Indeterminate => 7,
            Exit::Refused => 8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Valid | Verdict::SealOnly => Exit::Ok,
            Verdict::Refused => Exit::Refused,
            Verdict::OtherDocument => Exit::OtherDocument,
            Verdict::NotUnderstood => Exit::TooOld,
            Verdict::PolicyUnmet => Exit::PolicyUnmet,
            Verdict::Indeterminate => Exit::Indeterminate,
        }
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
    /// A failure with this code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into() }
    }

    /// Wrong usage, or a file that cannot be read or written.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
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
    fn verdicts_keep_their_documented_codes() {
        let verdicts = [
            Verdict::Valid,
            Verdict::SealOnly,
            Verdict::OtherDocument,
            Verdict::Refused,
            Verdict::NotUnderstood,
            Verdict::PolicyUnmet,
            Verdict::Indeterminate,
        ];
        for verdict in verdicts {
            let exit = Exit::from(verdict) as u8;
            assert_eq!(exit, verdict.exit_code());
            assert!(TABLE.contains(&format!("\n  {exit}  ")));
        }
    }

    #[test]
    fn the_order_of_badness_is_the_documented_one() {
        let order = TABLE.rsplit(": ").next().unwrap().trim_end_matches('.');
        let mut exits = [
            Exit::Ok,
            Exit::Refused,
            Exit::Usage,
            Exit::OtherDocument,
            Exit::NoSeal,
            Exit::TooOld,
            Exit::PolicyUnmet,
            Exit::Indeterminate,
        ];
        exits.sort_by_key(|exit| std::cmp::Reverse(exit.badness()));
        let sorted: Vec<String> = exits.iter().map(|exit| (*exit as u8).to_string()).collect();
        assert_eq!(sorted.join(", "), order);
    }
}
