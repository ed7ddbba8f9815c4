//! The end of a log, and the destruction certificate: docs/formats.md section 24.
//!
//! A box that retires logs one *final entry*, says what it is about to destroy (signed by its log key, vouched for by its
//! attestation key), destroys it, and lets a *farewell key* say that it did. The TPM derives that key from its endorsement
//! seed, before it is cleared and again afterwards, and its quote shows a clock that begins anew.
//! Refuses to do: take the box's word for a cleared TPM, or for an end that is not the last entry of its log.
//! Invariant: a [`VerifiedRetirement`] exists only for a certificate of which everything was checked.

use crate::body::TEXT_BYTES_MAX;
use crate::body::key_epoch::{Endorsement, TpmQuote};
use crate::body::operator_action::OperatorActionBody;
use crate::der::{self, DerError, Octets32};
use crate::endorsement::{AttestationKey, EndorsementError, verify_prehashed};
use crate::enrolment::{Enrolment, EnrolmentError};
use crate::entry::{ENTRY_BYTES_MAX, Entry, Kind, NUMBER_MAX, TreeState};
use crate::hash::{Hash, sha256};
use crate::merkle::verify_inclusion;
use crate::origin::Origin;
use crate::sig::{label, labelled};
use crate::tpm::{TpmtPublic, check_ak_template, verify_certify, verify_quote};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// The action of a final entry.
pub const RETIRE: &str = "retire";
/// Longest certificate in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 512 << 10;
/// Most things that are named as erased.
pub const ERASED_MAX: usize = 1024;
/// DER of the UTF8String [`RETIRE`].
const RETIRE_DER: &[u8] = b"\x0c\x06retire";

/// Whether these bytes are an entry after which its log takes no other one.
pub fn is_final(entry: &[u8]) -> bool {
    // Every entry that is appended is asked, and all but one end here.
    if !entry.windows(RETIRE_DER.len()).any(|window| window == RETIRE_DER) {
        return false;
    }
    Entry::decode(entry).is_ok_and(|entry| ends(&entry))
}

/// The same of an entry that was read.
pub fn ends(entry: &Entry) -> bool {
    let said = || OperatorActionBody::decode(&entry.content().body).ok();
    entry.kind() == Some(Kind::OperatorAction) && said().is_some_and(|body| body.action == RETIRE)
}

/// What goes.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Extent {
    /// Keys, openings and everything secret; the entries stay on the disk.
    KeepLog = 0,
    /// The entries, too.
    Everything = 1,
}

impl Extent {
    /// Name in texts, in the final entry and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Extent::KeepLog => "keep-log",
            Extent::Everything => "everything",
        }
    }
}

/// What a box says before it destroys anything.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Statement {
    /// 1.
    pub version: u64,
    /// Its log.
    pub origin: String,
    /// The log with its final entry.
    pub head: TreeState,
    /// What goes.
    pub extent: Extent,
    /// Hash of the action that people approved; absent when the owner of a fleet of one stood at the box.
    #[rasn(tag(context, 0))]
    pub action: Option<Octets32>,
    /// Why.
    pub reason: String,
    /// Seals that no authority has anchored.
    pub unanchored: u64,
    /// Seals that no neighbour holds.
    pub unmirrored: u64,
    /// Value of the rollback counter, moved for this; absent without a TPM.
    #[rasn(tag(context, 1))]
    pub counter: Option<u64>,
    /// When (Unix milliseconds, the box's clock).
    pub made_at: u64,
}

/// What became of it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// 1.
    pub version: u64,
    /// SHA-256 of the statement under its label.
    pub statement: Octets32,
    /// Files and directories that are gone, by their names in the state directory, ascending.
    pub erased: Vec<String>,
    /// Whether the TPM carried out TPM2_Clear.
    pub cleared: bool,
    /// Why it did not, and what was done in its place; empty when it did.
    pub why_not: String,
    /// When (Unix milliseconds, the box's clock).
    pub made_at: u64,
}

/// A key that outlives TPM2_Clear, and its last word.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Farewell {
    /// TPMT_PUBLIC of the farewell key.
    pub public_area: OctetString,
    /// TPMS_ATTEST of TPM2_Certify by the attestation key; qualifying data: the statement's.
    pub attest: OctetString,
    /// TPMT_SIGNATURE.
    pub signature: OctetString,
    /// Its quote; qualifying data: the outcome's.
    pub quote: TpmQuote,
}

/// A destruction certificate.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// What was going to be done.
    pub statement: Statement,
    /// DER of the enrolment that begins the log.
    pub enrolment: OctetString,
    /// The final entry.
    pub entry: OctetString,
    /// Its inclusion proof under the statement's head.
    pub path: Vec<Octets32>,
    /// Ed25519 of the log key over label "bulla/retirement/v1" and the statement.
    pub signature: OctetString,
    /// The attestation key over the same.
    pub endorsement: Endorsement,
    /// What was done.
    pub outcome: Outcome,
    /// The TPM's word for that; absent without a TPM.
    #[rasn(tag(context, 2))]
    pub farewell: Option<Farewell>,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetirementError {
    /// Not the bytes of a certificate.
    #[error("it is malformed: {0}")]
    Malformed(#[from] DerError),
    /// Nobody vouches for its box.
    #[error("its box is not vouched for: {0}")]
    Enrolment(#[from] EnrolmentError),
    /// The enrolment is another log's.
    #[error("its enrolment is of the log {0}, not of the one that it says has ended")]
    OtherLog(String),
    /// The final entry is none, or not the last of its log.
    #[error("its final entry does not hold: {0}")]
    FinalEntry(&'static str),
    /// The log key did not sign the statement.
    #[error("the log key did not sign its statement")]
    Signature,
    /// The attestation key does not vouch for the statement.
    #[error("its attestation does not hold: {0}")]
    Attestation(String),
    /// The outcome is another statement's.
    #[error("its outcome is of another statement")]
    OtherOutcome,
    /// The farewell key does not vouch for the outcome.
    #[error("the farewell of its TPM does not hold: {0}")]
    Farewell(String),
    /// It says that the TPM was cleared, and the TPM's clock went on.
    #[error(
        "it says that the TPM was cleared, but the TPM's clock and its count of resets do not begin anew"
    )]
    NotCleared,
}

impl RetirementError {
    /// Stable name, listed in docs/formats.md.
    pub fn code(&self) -> &'static str {
        match self {
            RetirementError::Malformed(_) => "malformed",
            RetirementError::Enrolment(_) => "enrolment",
            RetirementError::OtherLog(_) => "other-log",
            RetirementError::FinalEntry(_) => "final-entry",
            RetirementError::Signature => "signature",
            RetirementError::Attestation(_) => "attestation",
            RetirementError::OtherOutcome => "other-outcome",
            RetirementError::Farewell(_) => "farewell",
            RetirementError::NotCleared => "not-cleared",
        }
    }
}

/// What a TPM has shown of its clearing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clearing {
    /// The same TPM quoted before and after, and its clock and count of resets began anew in between.
    Shown,
    /// The box says that the TPM did not do it.
    Refused,
    /// There was no TPM.
    NoTpm,
}

/// A certificate that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRetirement {
    certificate: Certificate,
    origin: Origin,
    clearing: Clearing,
}

impl VerifiedRetirement {
    /// What was said before.
    pub fn statement(&self) -> &Statement {
        &self.certificate.statement
    }
    /// What became of it.
    pub fn outcome(&self) -> &Outcome {
        &self.certificate.outcome
    }
    /// The log that has ended.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
    /// What the TPM has shown.
    pub fn clearing(&self) -> Clearing {
        self.clearing
    }
}

impl Statement {
    /// What the log key signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::RETIREMENT, &der::encode(self))
    }

    /// Qualifying data of the attestation key's word for it.
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[&self.message()])
    }

    /// Whether its values are within their limits.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "retirement", reason });
        let numbers = [self.head.size, self.unanchored, self.unmirrored, self.made_at];
        if self.version != 1 || self.head.size == 0 {
            return range("its version is not 1, or its log is empty");
        }
        if numbers.iter().chain(&self.counter).any(|number| *number > NUMBER_MAX) {
            return range("a number is larger than 2^63 - 1");
        }
        if self.reason.is_empty() || self.reason.len() > TEXT_BYTES_MAX || !plain(&self.reason) {
            return range("a reason has 1 to 1024 bytes without control characters");
        }
        Ok(())
    }
}

fn plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

impl Outcome {
    /// Qualifying data of the farewell key's quote.
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[&labelled(label::RETIREMENT_OUTCOME, &der::encode(self))])
    }

    /// Whether its values are within their limits.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "retirement", reason });
        if self.version != 1 || self.made_at > NUMBER_MAX {
            return range("the version of its outcome is not 1, or its time too large");
        }
        let name = |name: &String| (1..=128).contains(&name.len()) && plain(name);
        if self.erased.len() > ERASED_MAX
            || !self.erased.iter().all(name)
            || self.erased.windows(2).any(|pair| pair[0] >= pair[1])
        {
            return range(
                "what was erased is named in ascending order, in 1 to 128 bytes each, 1024 at most",
            );
        }
        if self.cleared != self.why_not.is_empty()
            || self.why_not.len() > TEXT_BYTES_MAX
            || !plain(&self.why_not)
        {
            return range("it says why the TPM was not cleared exactly when it was not");
        }
        Ok(())
    }
}

impl Certificate {
    /// Reads a certificate without judging it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RetirementError> {
        let certificate: Certificate = der::decode("retirement", bytes, CERTIFICATE_BYTES_MAX)?;
        certificate.check()?;
        Ok(certificate)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "retirement", reason });
        self.statement.check()?;
        self.outcome.check()?;
        if self.signature.len() != 64 || self.path.len() > 63 || self.entry.len() > ENTRY_BYTES_MAX {
            return range("its signature, path or final entry is too long or too short");
        }
        let tpm = match &self.endorsement {
            Endorsement::Quote(quote) => {
                quote.check("retirement")?;
                true
            }
            Endorsement::Software(signature) if signature.len() == 64 => false,
            Endorsement::Software(_) => return range("a signature has not 64 bytes"),
        };
        if let Some(farewell) = &self.farewell {
            farewell.quote.check("retirement")?;
        }
        if self.farewell.is_some() != tpm || self.statement.counter.is_some() != tpm {
            return range("a farewell and a counter are there exactly when there is a TPM");
        }
        if self.outcome.cleared && !tpm {
            return range("without a TPM nothing is cleared");
        }
        Ok(())
    }

    /// Verifies everything, by the roots (Ed25519 public keys) of `fleet`.
    ///
    /// # Errors
    /// The first condition of docs/formats.md section 24 that it breaks.
    pub fn verify(&self, fleet: &str, roots: &[[u8; 32]]) -> Result<VerifiedRetirement, RetirementError> {
        self.check()?;
        let statement = &self.statement;
        let enrolment = Enrolment::decode(&self.enrolment)?.verify(fleet, roots)?;
        let origin = enrolment.origin().clone();
        if origin.as_str() != statement.origin {
            return Err(RetirementError::OtherLog(origin.to_string()));
        }
        self.check_final_entry()?;
        let signed = enrolment.log_key().verify(&statement.message(), &self.signature);
        signed.map_err(|_| RetirementError::Signature)?;
        let attestation = |error: EndorsementError| RetirementError::Attestation(error.to_string());
        let content = enrolment.content();
        let key = AttestationKey::read(content.hardware, &content.attestation_key).map_err(attestation)?;
        if *self.outcome.statement != statement.qualifying_data().0 {
            return Err(RetirementError::OtherOutcome);
        }
        let clearing = match (&self.endorsement, &key, &self.farewell) {
            (Endorsement::Quote(quote), AttestationKey::Tpm(key), Some(farewell)) => {
                self.check_tpm(quote, key, farewell)?
            }
            (Endorsement::Software(signature), AttestationKey::Software(key), None) => {
                if !verify_prehashed(key, &statement.qualifying_data(), signature) {
                    return Err(RetirementError::Attestation("the device key did not sign".to_owned()));
                }
                Clearing::NoTpm
            }
            _ => {
                let why = "its kind does not fit the box's hardware";
                return Err(RetirementError::Attestation(why.to_owned()));
            }
        };
        Ok(VerifiedRetirement { certificate: self.clone(), origin, clearing })
    }

    fn check_final_entry(&self) -> Result<(), RetirementError> {
        let refused = RetirementError::FinalEntry;
        let entry = Entry::decode(&self.entry).map_err(|_| refused("it is no entry"))?;
        if !ends(&entry) {
            return Err(refused("it ends no log"));
        }
        let statement = &self.statement;
        let body = OperatorActionBody::decode(&entry.content().body).map_err(|_| refused("it is damaged"))?;
        let said = |name: &str| body.parameters.iter().find(|one| one.name == name).map(|one| &*one.value);
        let action = statement.action.as_ref().map(|action| hex::encode(**action));
        if said("extent") != Some(statement.extent.name()) || said("action") != action.as_deref() {
            return Err(refused("it says something else than the statement"));
        }
        let (size, root) = (statement.head.size, statement.head.root());
        let path: Vec<Hash> = self.path.iter().map(|hash| Hash(**hash)).collect();
        if entry.content().index != size - 1 {
            return Err(refused("it is not the last of its log"));
        }
        verify_inclusion(size - 1, size, &entry.leaf_hash(), &path, &root)
            .map_err(|_| refused("its inclusion proof does not lead to the head"))
    }

    /// The clock of the TPM (milliseconds of power) and its count of resets start from zero when it is cleared, and only
    /// then; both keys are its own, and the second one was certified before by the first.
    fn check_tpm(
        &self,
        quote: &TpmQuote,
        key: &TpmtPublic,
        farewell: &Farewell,
    ) -> Result<Clearing, RetirementError> {
        let qualifying = self.statement.qualifying_data().0;
        let attestation = |error: crate::tpm::TpmError| RetirementError::Attestation(error.to_string());
        let before = verify_quote(key, &quote.attest, &quote.signature, &qualifying).map_err(attestation)?;
        before.check_pcrs(&quote.pcr_values()).map_err(attestation)?;
        let parting = |error: crate::tpm::TpmError| RetirementError::Farewell(error.to_string());
        let last = TpmtPublic::parse(&farewell.public_area).map_err(parting)?;
        check_ak_template(&last).map_err(parting)?;
        let certified = verify_certify(key, &farewell.attest, &farewell.signature, &qualifying, &last.name());
        certified.map_err(parting)?;
        let outcome = self.outcome.qualifying_data().0;
        let after = verify_quote(&last, &farewell.quote.attest, &farewell.quote.signature, &outcome);
        let after = after.map_err(parting)?;
        after.check_pcrs(&farewell.quote.pcr_values()).map_err(parting)?;
        // Without a clear in between, a reset would be counted, and without a reset the clock never goes back.
        let anew = after.reset_count == 0 && (before.reset_count > 0 || after.clock < before.clock);
        match (self.outcome.cleared, anew) {
            (true, true) => Ok(Clearing::Shown),
            (true, false) => Err(RetirementError::NotCleared),
            (false, _) => Ok(Clearing::Refused),
        }
    }
}
