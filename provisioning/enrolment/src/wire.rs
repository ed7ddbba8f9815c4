//! The messages of an enrolment: request, evidence, and what the registrar answers.
//!
//! Refuses to do: read anything longer than it may be, of another version, or in a second spelling.
//! Invariant: a decoded message is within its limits; what is in it is still anybody's claim.

use crate::refusal::Code;
use bulla_formats::body::key_epoch::TpmQuote;
use bulla_formats::der::{self, DerError, Octets32};
use bulla_formats::enrolment::{EnrolmentContent, Hardware};
use bulla_formats::entry::{NUMBER_MAX, TreeState};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::origin::Origin;
use bulla_formats::tpm::{TpmError, TpmtPublic};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest event log in bytes: what firmware writes stays well below.
pub const EVENT_LOG_BYTES_MAX: usize = bulla_appraisal::event_log::LOG_BYTES_MAX;
/// Longest request in bytes.
pub const REQUEST_BYTES_MAX: usize = EVENT_LOG_BYTES_MAX + (64 << 10);
/// Longest evidence in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 16 << 10;
/// Longest answer in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Most EK certificates in a request: what an enrolment may hold.
pub const CERTIFICATES_MAX: usize = 8;
/// Longest EK certificate in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 4 << 10;
/// Longest structure of a TPM in bytes.
pub const STRUCTURE_BYTES_MAX: usize = 1 << 10;
/// Most remarks of a box about itself.
pub const REMARKS_MAX: usize = 16;
/// Longest value of a remark in bytes; its name has at most a quarter.
pub const REMARK_BYTES_MAX: usize = 256;

/// Something that a box says of itself, for people: nothing proves it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// `serial`, `model`, `image`, ...
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What a box asks to be enrolled with.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// Whom the box believes to talk to: SHA-256 of the SubjectPublicKeyInfo it has pinned.
    pub registrar: Octets32,
    /// Random, the box's.
    pub nonce: Octets32,
    /// TPMT_PUBLIC of the endorsement key.
    pub ek_public: OctetString,
    /// X.509 DER, leaf first.
    pub ek_certificates: Vec<OctetString>,
    /// TPMT_PUBLIC of the attestation key.
    pub attestation_key: OctetString,
    /// TPMT_PUBLIC of the TLS key.
    pub tls_key: OctetString,
    /// TPMT_PUBLIC of the issuing key.
    pub issuing_key: OctetString,
    /// TPMS_NV_PUBLIC of the rollback counter.
    pub counter: OctetString,
    /// The log's name; its incarnation is the counter's value.
    pub origin: String,
    /// Ed25519 public key of the log.
    pub log_key: Octets32,
    /// The log's head: nothing, before it begins.
    pub head: TreeState,
    /// The firmware's event log; empty where there is none.
    pub event_log: OctetString,
    /// What the box says of itself.
    pub remarks: Vec<Remark>,
    /// The log that the box goes on with: present when the one that is asked for is to be begun later, by the box alone.
    #[rasn(tag(context, 0))]
    pub in_use: Option<String>,
}

/// What an attestation key says.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// TPMS_ATTEST.
    pub attest: OctetString,
    /// TPMT_SIGNATURE.
    pub signature: OctetString,
}

/// A box's answer to a challenge.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// 1.
    pub version: u64,
    /// Hash of the request.
    pub transcript: Octets32,
    /// The registrar's nonce.
    pub nonce: Octets32,
    /// Binding of the connection through which the challenge came, as the box saw it.
    pub channel: Octets32,
    /// HMAC-SHA-256 under the activated secret over the proof `activation`.
    pub activation: Octets32,
    /// TPM2_Quote.
    pub quote: TpmQuote,
    /// TPM2_Certify of the TLS key.
    pub tls_key: Attestation,
    /// TPM2_Certify of the issuing key.
    pub issuing_key: Attestation,
    /// TPM2_NV_Certify of the counter.
    pub counter: Attestation,
    /// Ed25519 of the log key over the proof `log-key`.
    pub log_signature: OctetString,
}

/// What only the TPM with that endorsement key can answer.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// 1.
    pub version: u64,
    /// Hash of the request.
    pub transcript: Octets32,
    /// Random, the registrar's.
    pub nonce: Octets32,
    /// TPMS_ID_OBJECT: the content of TPM2B_ID_OBJECT.
    pub credential: OctetString,
    /// The content of TPM2B_ENCRYPTED_SECRET.
    pub secret: OctetString,
    /// Last moment (Unix milliseconds, the registrar's clock).
    pub expires_at: u64,
}

/// Proven; a person has to say yes.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// 1.
    pub version: u64,
    /// Hash of the request.
    pub transcript: Octets32,
    /// Since when (Unix milliseconds, the registrar's clock).
    pub since: u64,
}

/// The box is part of the fleet.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// 1.
    pub version: u64,
    /// Hash of the request.
    pub transcript: Octets32,
    /// Ed25519 public key of the fleet root.
    pub root: Octets32,
    /// DER(Enrolment), section 5.
    pub enrolment: OctetString,
    /// X.509 of the fleet CA, signed by itself.
    pub authority: OctetString,
    /// X.509 of the TLS key, by the fleet CA.
    pub tls_certificate: OctetString,
    /// X.509 of the issuing key, by the fleet CA.
    pub issuing_certificate: OctetString,
}

/// The box is not enrolled.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// 1.
    pub version: u64,
    /// Hash of the request; absent when it could not be read.
    #[rasn(tag(context, 0))]
    pub transcript: Option<Octets32>,
    /// Name of a [`Code`].
    pub code: String,
    /// One sentence.
    pub sentence: String,
}

/// Whatever the registrar answers.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
#[rasn(choice)]
pub enum Answer {
    /// Prove it.
    #[rasn(tag(context, 0))]
    Challenge(Challenge),
    /// Wait.
    #[rasn(tag(context, 1))]
    Pending(Pending),
    /// Yes.
    #[rasn(tag(context, 2))]
    Issued(Issued),
    /// No.
    #[rasn(tag(context, 3))]
    Refused(Refused),
}

fn limit(what: &'static str, holds: bool, reason: &'static str) -> Result<(), DerError> {
    if holds { Ok(()) } else { Err(DerError::Range { what, reason }) }
}

const VERSION: &str = "its version is not 1";
const STRUCTURE: &str = "a structure of the TPM is longer than 1024 bytes";
const NUMBER: &str = "a number is larger than 2^63 - 1";

/// A name or sentence that can be shown to people as it is.
fn presentable(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

impl Request {
    /// Reads a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        const WHAT: &str = "enrolment request";
        let request: Request = der::decode(WHAT, bytes, REQUEST_BYTES_MAX)?;
        let structures = [
            &request.ek_public,
            &request.attestation_key,
            &request.tls_key,
            &request.issuing_key,
            &request.counter,
        ];
        let certificates = &request.ek_certificates;
        let certificates_fit = certificates.len() <= CERTIFICATES_MAX
            && certificates.iter().all(|certificate| certificate.len() <= CERTIFICATE_BYTES_MAX);
        let remarks_fit = request.remarks.len() <= REMARKS_MAX
            && request.remarks.iter().all(|remark| {
                presentable(&remark.name, REMARK_BYTES_MAX / 4)
                    && presentable(&remark.value, REMARK_BYTES_MAX)
            });
        limit(WHAT, request.version == 1, VERSION)?;
        limit(WHAT, structures.iter().all(|bytes| bytes.len() <= STRUCTURE_BYTES_MAX), STRUCTURE)?;
        limit(WHAT, certificates_fit, "it has more than 8 EK certificates, or one longer than 4096 bytes")?;
        limit(WHAT, request.event_log.len() <= EVENT_LOG_BYTES_MAX, "its event log is too long")?;
        limit(WHAT, request.head.size <= NUMBER_MAX, NUMBER)?;
        let in_use = request.in_use.as_deref();
        limit(WHAT, in_use.is_none_or(|log| Origin::parse(log).is_ok()), "the log in use is no origin")?;
        limit(
            WHAT,
            remarks_fit,
            "it has more than 16 remarks, or one that is empty, too long or unprintable",
        )?;
        Ok(request)
    }

    /// What the fleet says of this box, when its people agree at this time (Unix milliseconds).
    ///
    /// # Errors
    /// When the endorsement key is no public area.
    pub fn content(&self, enrolled_at: u64) -> Result<EnrolmentContent, TpmError> {
        let ek = TpmtPublic::parse(&self.ek_public)?;
        Ok(EnrolmentContent {
            version: 1,
            fleet: self.fleet.clone(),
            origin: self.origin.clone(),
            hardware: Hardware::Tpm,
            ek_spki_sha256: Octets32::new(sha256(&[&ek.spki_der()]).0),
            ek_certificates: self.ek_certificates.clone(),
            attestation_key: self.attestation_key.clone(),
            log_key: self.log_key,
            enrolled_at,
        })
    }

    /// The transcript: SHA-256("bulla/enrolment-request/v1" || 0x00 || DER of this request).
    pub fn transcript(&self) -> Hash {
        crate::proof::transcript(&der::encode(self))
    }
}

impl Evidence {
    /// Reads evidence.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        const WHAT: &str = "enrolment evidence";
        let evidence: Evidence = der::decode(WHAT, bytes, EVIDENCE_BYTES_MAX)?;
        let attestations = [&evidence.tls_key, &evidence.issuing_key, &evidence.counter];
        let fits = |part: &OctetString| part.len() <= STRUCTURE_BYTES_MAX;
        let structures_fit = fits(&evidence.quote.attest)
            && fits(&evidence.quote.signature)
            && attestations.iter().all(|said| fits(&said.attest) && fits(&said.signature));
        limit(WHAT, evidence.version == 1, VERSION)?;
        limit(WHAT, structures_fit, STRUCTURE)?;
        limit(WHAT, evidence.quote.pcrs.len() <= 24, "it has more than 24 PCR values")?;
        limit(WHAT, evidence.log_signature.len() == 64, "its signature by the log key is not 64 bytes long")?;
        Ok(evidence)
    }
}

impl Answer {
    /// Reads an answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        const WHAT: &str = "answer of the registrar";
        let answer: Answer = der::decode(WHAT, bytes, ANSWER_BYTES_MAX)?;
        match &answer {
            Answer::Challenge(challenge) => {
                let fits = challenge.credential.len().max(challenge.secret.len()) <= STRUCTURE_BYTES_MAX;
                limit(WHAT, challenge.version == 1, VERSION)?;
                limit(WHAT, fits, STRUCTURE)?;
                limit(WHAT, challenge.expires_at <= NUMBER_MAX, NUMBER)?;
            }
            Answer::Pending(pending) => {
                limit(WHAT, pending.version == 1, VERSION)?;
                limit(WHAT, pending.since <= NUMBER_MAX, NUMBER)?;
            }
            Answer::Issued(issued) => limit(WHAT, issued.version == 1, VERSION)?,
            Answer::Refused(refused) => {
                let known = Code::parse(&refused.code).is_some();
                let readable = presentable(&refused.sentence, 4 << 10);
                limit(WHAT, refused.version == 1, VERSION)?;
                limit(WHAT, known, "its code is none of this version")?;
                limit(WHAT, readable, "its sentence is empty, too long or unprintable")?;
            }
        }
        Ok(answer)
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// The request it answers; a refusal may not know.
    pub fn transcript(&self) -> Option<Hash> {
        let named = match self {
            Answer::Challenge(challenge) => Some(&challenge.transcript),
            Answer::Pending(pending) => Some(&pending.transcript),
            Answer::Issued(issued) => Some(&issued.transcript),
            Answer::Refused(refused) => refused.transcript.as_ref(),
        };
        named.map(|transcript| Hash(**transcript))
    }
}
