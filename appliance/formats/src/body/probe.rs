//! What mode changes and manifests say of authorities that could not be reached, and how.
//!
//! Refuses to do: carry addresses, answers or secrets; a name, a failure, a duration, words for an engineer.

use super::TEXT_BYTES_MAX;
use crate::der::DerError;
use crate::entry::NUMBER_MAX;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most findings in one body.
pub const FINDINGS_MAX: usize = 32;
/// Most bytes of the name of an authority or operator.
pub const NAME_BYTES_MAX: usize = 64;

/// In which way an authority could not be used.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[rasn(enumerated)]
pub enum Failure {
    /// The connection was refused.
    Refused = 0,
    /// The network said that there is no way there.
    Unreachable = 1,
    /// Nothing came in time.
    Timeout = 2,
    /// Its name could not be resolved.
    Dns = 3,
    /// TLS failed, or whoever answered is not who was asked.
    Tls = 4,
    /// An HTTP status other than success.
    HttpStatus = 5,
    /// An answer that is none of the authority's, such as the page of a captive portal.
    BadAnswer = 6,
    /// It answers but takes no more requests for now.
    Quota = 7,
    /// A drill treats it as unreachable.
    Drill = 8,
    /// Another way, told in the detail.
    Other = 9,
}

impl Failure {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Unreachable => "unreachable",
            Failure::Timeout => "timeout",
            Failure::Dns => "dns",
            Failure::Tls => "tls",
            Failure::HttpStatus => "http-status",
            Failure::BadAnswer => "bad-answer",
            Failure::Quota => "quota",
            Failure::Drill => "drill",
            Failure::Other => "other",
        }
    }
}

/// How one authority was when last looked at.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProbeFinding {
    /// The authority's name in the box's configuration.
    pub authority: String,
    /// Who runs it.
    pub operator: String,
    /// How it failed; absent when it could be reached.
    #[rasn(tag(context, 0))]
    pub failure: Option<Failure>,
    /// For how long it has been so, milliseconds on the box's steady clock.
    pub for_millis: u64,
    /// What was seen, for people.
    pub detail: String,
}

/// Bounds that every list of findings keeps.
pub(super) fn check_findings(what: &'static str, findings: &[ProbeFinding]) -> Result<(), DerError> {
    let range = |reason| Err(DerError::Range { what, reason });
    if findings.len() > FINDINGS_MAX {
        return range("it has more than 32 findings");
    }
    for finding in findings {
        if !is_name(&finding.authority) || !is_name(&finding.operator) {
            return range("the name of an authority or operator is empty or longer than 64 bytes");
        }
        if finding.detail.len() > TEXT_BYTES_MAX || finding.for_millis > NUMBER_MAX {
            return range("a finding's detail is longer than 1024 bytes, or its duration above 2^63 - 1");
        }
    }
    Ok(())
}

/// Whether `name` has the length that names of authorities and operators have.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}
