//! What an approved box gets: its enrolment, and X.509 certificates for the keys that speak to stock software.
//!
//! Refuses to do: issue for what nobody approved, for a box that the fleet's people have not made a member, for a TPM
//! that was buried meanwhile, or under a fleet certificate that is not valid.
//! Invariants: the same record gives the same bytes, so that a crash between making and keeping them issues nothing twice;
//! every key certified lives in the TPM of the enrolment.

use crate::endorsement::Manufacturers;
use crate::evidence::{Policy, Presented};
use crate::record::{IssuedStep, Record, Stage, StepError};
use crate::refusal::{Code, Refusal};
use crate::registrar::{Book, admissible};
use crate::wire::{Answer, Issued, Request};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{Enrolment, EnrolmentError, FleetCertificate, VerifiedEnrolment};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::sig::label;
use bulla_formats::tpm::TpmtPublic;
use ed25519_dalek::{Signer, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use std::time::{Duration, UNIX_EPOCH};

/// Longest validity of a box's certificates in milliseconds: five years, longer than any outage, shorter than the fleet
/// CA's. They are taken back by tombstone and revocation, not by waiting.
const VALIDITY_MILLIS: u64 = 5 * 365 * 24 * 3_600 * 1_000;
/// Clocks of boxes and peers may be behind by this much.
const BEFORE_MILLIS: u64 = 24 * 3_600 * 1_000;

/// The fleet CA.
pub struct FleetCa {
    /// Fleet root, Ed25519.
    pub root: [u8; 32],
    /// From the root's child down to this CA; empty when the root itself signs.
    pub chain: Vec<FleetCertificate>,
    /// The CA's key.
    pub key: SigningKey,
}

/// Why nothing was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Nobody approved it.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The fleet's people have not made the box a member yet.
    #[error("the fleet's people have not made this box a member yet: propose it, and let them approve it")]
    NotYet,
    /// Something has changed since.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The certificates could not be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(String),
}

/// Ed25519 for rcgen.
struct Signing<'a>(&'a SigningKey, [u8; 32]);

impl PublicKeyData for Signing<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.1
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for Signing<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

/// A key in the box's TPM.
struct Certified([u8; 65]);

impl PublicKeyData for Certified {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl FleetCa {
    /// Makes enrolment and certificates for a record that a person approved and of which the fleet's people have made the
    /// box a member; what is issued already stays as it is.
    ///
    /// # Errors
    /// When that is not so, or something has changed since that forbids it.
    pub fn issue(
        &self,
        record: Record,
        book: &impl Book,
        policy: &Policy,
        manufacturers: &Manufacturers,
    ) -> Result<Record, IssueError> {
        match record.stage() {
            Stage::Issued => return Ok(record),
            Stage::Approved => {}
            stage => {
                return Err(
                    StepError::Stage { is: stage.name(), needs: "only approved ones are issued" }.into()
                );
            }
        }
        let request = record.request();
        let content = book.membership(&request.origin).ok_or(IssueError::NotYet)?;
        let at = content.enrolled_at;
        // Policy may have moved on since the box was proven; the TPM's standing and the name must still hold.
        let policy = Policy { fleet: policy.fleet.clone(), registrar: *request.registrar, ..policy.clone() };
        let presented = Presented::judge(request, &policy, manufacturers, at)?;
        admissible(book, &presented)?;
        if presented.request.content(at).as_ref() != Ok(&content) {
            let why = "the fleet's people have made another box or another log a member under this origin";
            return Err(Refusal::new(Code::OriginTaken, why).into());
        }
        let signature = self.key.sign(&content.message()).to_bytes().to_vec().into();
        let enrolment = Enrolment { content, chain: self.chain.clone(), signature };
        if let Err(error) = enrolment.verify(&policy.fleet, &[self.root]) {
            let why = format!("the fleet's own chain does not vouch for the box: {error}");
            return Err(Refusal::new(Code::FleetCertificate, why).into());
        }
        let issued = self.certificates(&presented, &enrolment, at)?;
        Ok(Record { issued: Some(IssuedStep { at, issued }), ..record })
    }

    fn certificates(
        &self,
        presented: &Presented,
        enrolment: &Enrolment,
        at: u64,
    ) -> Result<Issued, IssueError> {
        let words = |error: rcgen::Error| IssueError::Certificate(error.to_string());
        let signing = Signing(&self.key, self.key.verifying_key().to_bytes());
        let request = &presented.request;
        let (mut authority, last) = self.authority(&request.fleet, at);
        let not_after = last.min(at.saturating_add(VALIDITY_MILLIS));
        let not_before = at.saturating_sub(BEFORE_MILLIS);
        let subject = |purpose: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name =
                name(&request.fleet, &format!("{} {purpose}", presented.origin.box_id()));
            params.serial_number = Some(serial(&presented.transcript, purpose));
            set_validity(&mut params, not_before, not_after);
            params.use_authority_key_identifier_extension = true;
            params
        };
        let uri = format!("bulla://{}", request.origin).try_into().map_err(words)?;
        let mut tls = subject("tls");
        tls.subject_alt_names = vec![SanType::URI(uri)];
        tls.is_ca = IsCa::ExplicitNoCa;
        tls.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        tls.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let mut issuing = subject("issuing");
        issuing.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        issuing.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let own = authority.self_signed(&signing).map_err(words)?;
        authority.serial_number = None;
        let issuer = Issuer::new(authority, signing);
        let certify = |params: CertificateParams, key: &[u8]| {
            let point = TpmtPublic::parse(key).and_then(|key| key.p256_point());
            let point = point.map_err(|error| IssueError::Certificate(error.to_string()))?;
            let certificate = params.signed_by(&Certified(point), &issuer).map_err(words)?;
            Ok::<_, IssueError>(certificate.der().to_vec())
        };
        Ok(Issued {
            version: 1,
            transcript: Octets32::new(presented.transcript.0),
            root: Octets32::new(self.root),
            enrolment: der::encode(enrolment).into(),
            authority: own.der().to_vec().into(),
            tls_certificate: certify(tls, &request.tls_key)?.into(),
            issuing_certificate: certify(issuing, &request.issuing_key)?.into(),
        })
    }

    /// The CA as stock software sees it: X.509, signed by itself, valid as the fleet's certificate says. And its end.
    fn authority(&self, fleet: &str, at: u64) -> (CertificateParams, u64) {
        let own = self.chain.last().map(|certificate| &certificate.content);
        // A root that signs by itself has no dates: those of what it issues will do.
        let (first, last) =
            own.map_or((0, at.saturating_add(2 * VALIDITY_MILLIS)), |own| (own.not_before, own.not_after));
        let mut params = CertificateParams::default();
        params.distinguished_name = name(fleet, "fleet CA");
        params.serial_number = Some(serial(&sha256(&[&self.key.verifying_key().to_bytes()]), "authority"));
        set_validity(&mut params, first, last);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params, last)
    }
}

fn name(fleet: &str, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, fleet);
    name.push(DnType::CommonName, common);
    name
}

/// Positive, 16 bytes, of the request and the purpose: the same request never gets two numbers.
fn serial(transcript: &Hash, purpose: &str) -> SerialNumber {
    let mut number =
        sha256(&[label::ENROLMENT_REQUEST.as_bytes(), &[0], &transcript.0, purpose.as_bytes()]).0;
    number[0] = number[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&number[..16])
}

fn set_validity(params: &mut CertificateParams, not_before: u64, not_after: u64) {
    // X.509 ends with the year 9999.
    const LAST_MILLIS: u64 = 253_402_300_799_000;
    let at = |millis: u64| (UNIX_EPOCH + Duration::from_millis(millis.min(LAST_MILLIS))).into();
    params.not_before = at(not_before);
    params.not_after = at(not_after);
}

/// Why a box does not take what it was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It answers another request.
    #[error("it answers another request")]
    OtherRequest,
    /// The enrolment does not verify under the root that came with it.
    #[error("the enrolment does not hold: {0}")]
    Enrolment(#[from] EnrolmentError),
    /// It enrols something else than what was asked for.
    #[error("its {0} is not the one asked for")]
    Other(&'static str),
}

impl Issued {
    /// The box's own check before it begins a log: the enrolment verifies under the root that came through the pinned
    /// connection, and says what was asked.
    ///
    /// # Errors
    /// Names what is another.
    pub fn check(&self, request: &Request) -> Result<VerifiedEnrolment, ReceiptError> {
        if *self.transcript != request.transcript().0 {
            return Err(ReceiptError::OtherRequest);
        }
        let enrolment = Enrolment::decode(&self.enrolment).map_err(EnrolmentError::from)?;
        let verified = enrolment.verify(&request.fleet, &[*self.root])?;
        let content = verified.content();
        let asked = request.content(content.enrolled_at);
        let asked = asked.map_err(|_| ReceiptError::Other("endorsement key"))?;
        let pairs = [
            ("origin", content.origin == asked.origin),
            ("hardware", content.hardware == asked.hardware),
            ("endorsement key", content.ek_spki_sha256 == asked.ek_spki_sha256),
            ("attestation key", content.attestation_key == asked.attestation_key),
            ("log key", content.log_key == asked.log_key),
        ];
        match pairs.into_iter().find(|(_, same)| !same) {
            Some((what, _)) => Err(ReceiptError::Other(what)),
            None => Ok(verified),
        }
    }
}

impl From<Issued> for Answer {
    fn from(issued: Issued) -> Self {
        Answer::Issued(issued)
    }
}
