//! What a registrar keeps of one enrolment: the request, and what became of it, each step with its time.
//!
//! Refuses to do: go back. A step is added once and never changed.
//! Invariant: approved only what is proven, issued only what is approved, nothing after a refusal.

use crate::proof::{claim_code, fingerprint};
use crate::refusal::{Code, Refusal};
use crate::wire::{Issued, REQUEST_BYTES_MAX, Request};
use bulla_formats::der::{self, DerError};
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::hash::Hash;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest record in bytes.
pub const RECORD_BYTES_MAX: usize = REQUEST_BYTES_MAX + (128 << 10);

/// The evidence held.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct ProvenStep {
    /// When (Unix milliseconds, the registrar's clock).
    pub at: u64,
    /// DER(Evidence): whoever doubts can judge it again.
    pub evidence: OctetString,
    /// Name of the known boot; empty when boots are not judged.
    pub boot: String,
    /// `on`, `off` or `not proven`.
    pub secure_boot: String,
}

/// A person said yes.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct ApprovedStep {
    /// When.
    pub at: u64,
    /// Who.
    pub by: String,
}

/// The box was refused.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct RefusedStep {
    /// When.
    pub at: u64,
    /// Name of a [`Code`].
    pub code: String,
    /// One sentence.
    pub sentence: String,
    /// Who, if it was a person; else empty.
    pub by: String,
}

/// Certificates were made.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct IssuedStep {
    /// When.
    pub at: u64,
    /// As the box gets it.
    pub issued: Issued,
}

/// One enrolment.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 1.
    pub version: u64,
    /// DER(Request).
    pub request: OctetString,
    /// When it came (Unix milliseconds, the registrar's clock).
    pub received_at: u64,
    /// What the manufacturer says of the TPM.
    pub described: String,
    /// Subject of the manufacturer's root.
    pub manufacturer: String,
    /// See [`ProvenStep`].
    #[rasn(tag(context, 0))]
    pub proven: Option<ProvenStep>,
    /// See [`ApprovedStep`].
    #[rasn(tag(context, 1))]
    pub approved: Option<ApprovedStep>,
    /// See [`RefusedStep`].
    #[rasn(tag(context, 2))]
    pub refused: Option<RefusedStep>,
    /// See [`IssuedStep`].
    #[rasn(tag(context, 3))]
    pub issued: Option<IssuedStep>,
}

/// How far an enrolment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The box has to answer a challenge.
    Requested,
    /// A person has to decide.
    Proven,
    /// Certificates are to be made.
    Approved,
    /// The box is part of the fleet.
    Issued,
    /// It is not.
    Refused,
}

impl Stage {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Requested => "requested",
            Stage::Proven => "proven",
            Stage::Approved => "approved",
            Stage::Issued => "issued",
            Stage::Refused => "refused",
        }
    }
}

/// A step that cannot be taken from where the enrolment stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Not from this stage.
    #[error("the enrolment is {is}; {needs}")]
    Stage {
        /// Where it stands.
        is: &'static str,
        /// Where it must stand.
        needs: &'static str,
    },
    /// What was read out is not the fingerprint.
    #[error(
        "that is not the fingerprint of this request: have it read out again from the box; if it stays so, the request \
         is not that box's"
    )]
    Fingerprint,
    /// A name or reason that cannot be shown.
    #[error("{0} must be 1 to 256 bytes without control characters")]
    Text(&'static str),
}

impl Record {
    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        const WHAT: &str = "enrolment record";
        let record: Record = der::decode(WHAT, bytes, RECORD_BYTES_MAX)?;
        let range = |reason| Err(DerError::Range { what: WHAT, reason });
        let times = [
            Some(record.received_at),
            record.proven.as_ref().map(|step| step.at),
            record.approved.as_ref().map(|step| step.at),
            record.refused.as_ref().map(|step| step.at),
            record.issued.as_ref().map(|step| step.at),
        ];
        if record.version != 1 || times.into_iter().flatten().any(|at| at > NUMBER_MAX) {
            return range("its version is not 1, or a time is larger than 2^63 - 1");
        }
        let skipped = (record.approved.is_some() && record.proven.is_none())
            || (record.issued.is_some() && (record.approved.is_none() || record.refused.is_some()));
        if skipped {
            return range("it has skipped a step");
        }
        if record.refused.as_ref().is_some_and(|refused| Code::parse(&refused.code).is_none()) {
            return range("its code is none of this version");
        }
        Request::decode(&record.request)?;
        Ok(record)
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// The request.
    pub fn request(&self) -> Request {
        Request::decode(&self.request).expect("a record is made of, and read with, a request that decodes")
    }

    /// Hash of the request: what the record is kept under.
    pub fn transcript(&self) -> Hash {
        crate::proof::transcript(&self.request)
    }

    /// First two groups of the fingerprint.
    pub fn claim_code(&self) -> String {
        claim_code(&self.transcript())
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        match self {
            Record { refused: Some(_), .. } => Stage::Refused,
            Record { issued: Some(_), .. } => Stage::Issued,
            Record { approved: Some(_), .. } => Stage::Approved,
            Record { proven: Some(_), .. } => Stage::Proven,
            _ => Stage::Requested,
        }
    }

    /// A person says yes, having heard the whole fingerprint from whoever stands before the box.
    ///
    /// # Errors
    /// When nothing is proven, something is decided, or the fingerprint is another.
    pub fn approve(mut self, heard: &str, by: &str, now_millis: u64) -> Result<Self, StepError> {
        match self.stage() {
            Stage::Proven => {}
            stage => {
                return Err(StepError::Stage { is: stage.name(), needs: "only proven ones can be approved" });
            }
        }
        if normal(heard) != normal(&fingerprint(&self.transcript())) {
            return Err(StepError::Fingerprint);
        }
        check_text("who approves", by)?;
        self.approved = Some(ApprovedStep { at: now_millis, by: by.to_owned() });
        Ok(self)
    }

    /// Whether the box goes on with another log, and begins this one by itself when that is lost.
    pub fn is_staged(&self) -> bool {
        self.request().in_use.is_some()
    }

    /// A person says yes to a log that is staged for a member, without going to the box: its TPM has proven that it is
    /// that member's, so there is no other box that a fingerprint could tell it from.
    ///
    /// # Errors
    /// When nothing is proven, something is decided, or the box is no member yet.
    pub fn approve_staged(mut self, by: &str, now_millis: u64) -> Result<Self, StepError> {
        match self.stage() {
            Stage::Proven if self.is_staged() => {}
            Stage::Proven => return Err(StepError::Fingerprint),
            stage => {
                return Err(StepError::Stage { is: stage.name(), needs: "only proven ones can be approved" });
            }
        }
        check_text("who approves", by)?;
        self.approved = Some(ApprovedStep { at: now_millis, by: by.to_owned() });
        Ok(self)
    }

    /// A person says no.
    ///
    /// # Errors
    /// When it is decided already.
    pub fn decline(self, reason: &str, by: &str, now_millis: u64) -> Result<Self, StepError> {
        match self.stage() {
            Stage::Requested | Stage::Proven => {}
            stage => {
                return Err(StepError::Stage {
                    is: stage.name(),
                    needs: "only undecided ones can be refused",
                });
            }
        }
        check_text("who refuses", by)?;
        check_text("the reason", reason)?;
        Ok(self.refuse(&Refusal::new(Code::Declined, format!("{by} refused it: {reason}")), by, now_millis))
    }

    pub(crate) fn refuse(mut self, refusal: &Refusal, by: &str, at: u64) -> Self {
        let (code, sentence) = (refusal.code.name().to_owned(), refusal.sentence.clone());
        self.refused = Some(RefusedStep { at, code, sentence, by: by.to_owned() });
        self
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), StepError> {
    let fine = !text.trim().is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(StepError::Text(what)) }
}

/// As people may type it: without hyphens and blanks, in either case, with the letters that look like digits.
fn normal(heard: &str) -> String {
    let characters =
        heard.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase());
    characters
        .map(|c| match c {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}
