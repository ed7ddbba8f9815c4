//! The judgement: from the bytes of a reply to a [`TimeStamp`], or the one reason why not.
//!
//! In this order: reply, CMS, content, what was asked for, the binding of the certificate, its purpose, the signature,
//! its validity and the path to a pinned root, all at the time that the stamp states.
//! Refuses to do: ask whether a certificate was revoked. No reply carries that; [`crate::standing`] answers it by CRLs.
//! Invariant: a signature is verified before anything that only the signer can vouch for is handed out.

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::der::{
    self, INTEGER, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, number_content,
};
use crate::oid::{self, Oid};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::revocation::Vouched;
use crate::signature::{self, AlgorithmIdentifier, Digest};
use crate::signed_data::{SignedData, SignerName};
use crate::text;
use crate::tst_info::TstInfo;
use ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, Error, KeyUsage};

/// What is taken for the accuracy of a stamp that states none. RFC 3161 leaves that to the authority's policy; one
/// second is what ETSI EN 319 421 allows an authority at most, and the unit of a time without a fraction.
pub const UNSTATED_ACCURACY_MICROS: u64 = 1_000_000;

/// What a stamp must be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// SHA-256 of what is stamped.
    pub imprint: [u8; 32],
    /// Nonce of the request. `None` for whoever judges the reply later and did not ask: the nonce says that a reply is
    /// fresh, nothing about what it proves.
    pub nonce: Option<u64>,
}

/// A stamp that has passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStamp {
    gen_time_micros: u64,
    rounded: bool,
    accuracy_micros: Option<u64>,
    policy: Oid,
    serial: Vec<u8>,
    signer: String,
    signer_not_after_micros: u64,
    vouched: Vec<Vouched>,
}

impl TimeStamp {
    /// The time it states, in microseconds since 1970, rounded down.
    pub fn gen_time_micros(&self) -> u64 {
        self.gen_time_micros
    }
    /// The accuracy it states.
    pub fn accuracy_micros(&self) -> Option<u64> {
        self.accuracy_micros
    }
    /// The earliest moment at which it was made: its time less its accuracy.
    pub fn earliest_micros(&self) -> u64 {
        self.gen_time_micros.saturating_sub(self.accuracy_micros.unwrap_or(UNSTATED_ACCURACY_MICROS))
    }
    /// The latest moment at which it was made: what is stamped existed before.
    pub fn latest_micros(&self) -> u64 {
        let accuracy = self.accuracy_micros.unwrap_or(UNSTATED_ACCURACY_MICROS);
        self.gen_time_micros.saturating_add(accuracy).saturating_add(u64::from(self.rounded))
    }
    /// The policy it was made under.
    pub fn policy(&self) -> &Oid {
        &self.policy
    }
    /// Its serial number, big-endian.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }
    /// Subject of the signer's certificate, for people.
    pub fn signer(&self) -> &str {
        &self.signer
    }
    /// When the signer's certificate expires: until then stock tools verify the stamp without being told a time.
    pub fn signer_not_after_micros(&self) -> u64 {
        self.signer_not_after_micros
    }
    /// The signer's certificate, then every CA's below the pinned root, each with the one that vouches for it.
    pub fn vouched(&self) -> &[Vouched] {
        &self.vouched
    }
}

/// Judges a reply.
pub fn verify(reply: &[u8], expected: &Expected, authority: &Authority) -> Result<TimeStamp, Refusal> {
    let signed = SignedData::read(Reply::decode(reply)?.stamp)?;
    let info = TstInfo::read(signed.content)?;
    if info.imprint != expected.imprint {
        return Err(Refusal::Imprint);
    }
    if expected.nonce.is_some_and(|nonce| info.nonce != Some(&number_content(nonce))) {
        return Err(Refusal::Nonce);
    }
    let policy = Oid::from_content(info.policy);
    if !authority.accepts(&policy) {
        return Err(Refusal::Policy(policy.to_string()));
    }
    check_attributes(&signed)?;
    let signer = signer_certificate(&signed)?;
    signer.check_purpose()?;
    let named = |name| signer.is_named(name).map_err(|Malformed| Refusal::Malformed("authority's name"));
    if !info.authority.map_or(Ok(true), named)? {
        return Err(Refusal::AuthorityName);
    }
    check_signature(&signed, &signer)?;
    let vouched = check_path(&signed, &signer, info.gen_time_micros, authority)?;
    Ok(TimeStamp {
        gen_time_micros: info.gen_time_micros,
        rounded: info.rounded,
        accuracy_micros: info.accuracy_micros,
        policy,
        serial: info.serial.strip_prefix(&[0]).unwrap_or(info.serial).to_vec(),
        signer: text::name(signer.subject).map_err(|Malformed| Refusal::Malformed("signer's certificate"))?,
        signer_not_after_micros: signer.not_after_micros,
        vouched,
    })
}

/// The signed attributes speak of this content.
fn check_attributes(signed: &SignedData<'_>) -> Result<(), Refusal> {
    let primitive = |oid, tag, name| {
        let value = signed.attribute(oid).ok_or(Refusal::AttributeMissing(name))?;
        let mut reader = Reader::new(value);
        reader
            .take(tag)
            .map(|element| element.content)
            .map_err(|Malformed| Refusal::Malformed("signed attributes"))
    };
    if primitive(oid::CONTENT_TYPE, OBJECT_IDENTIFIER, "contentType")? != oid::TST_INFO {
        return Err(Refusal::ContentType);
    }
    let digest = primitive(oid::MESSAGE_DIGEST, OCTET_STRING, "messageDigest")?;
    if digest != signed.digest.hash(signed.content) { Err(Refusal::Digest) } else { Ok(()) }
}

/// How a signed attribute names the signer's certificate (RFC 2634, 5.4; RFC 5035, 4).
struct Binding<'a> {
    /// `None`: SHA-1, as the attribute of RFC 2634 has it.
    digest: Option<Digest>,
    hash: &'a [u8],
    /// DER of the issuer's name and content of the serial number, when they are there.
    issuer_and_serial: Option<(&'a [u8], &'a [u8])>,
}

impl Binding<'_> {
    fn names(&self, certificate: &[u8]) -> bool {
        match self.digest {
            Some(digest) => digest.hash(certificate) == self.hash,
            None => ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref() == self.hash,
        }
    }
}

/// The certificate that the signature is bound to, in the stamp itself; every name of it must mean the same one.
///
/// Authorities that many rely on (IdenTrust, FreeTSA) still name it by SHA-1 alone. That is taken: who wanted to pass
/// another certificate off would need one with the same key and the same issuer and serial number, vouched for by the
/// pinned root, whose SHA-1 collides. Where both attributes are there, the one of RFC 5816 counts.
fn signer_certificate<'a>(signed: &SignedData<'a>) -> Result<Certificate<'a>, Refusal> {
    let malformed = |Malformed| Refusal::Malformed("signer's certificate");
    let binding =
        match (signed.attribute(oid::SIGNING_CERTIFICATE_V2), signed.attribute(oid::SIGNING_CERTIFICATE)) {
            (Some(attribute), _) => binding(attribute, true),
            (None, Some(attribute)) => binding(attribute, false),
            (None, None) => return Err(Refusal::AttributeMissing("signingCertificateV2")),
        };
    let binding = binding.map_err(|Malformed| Refusal::Malformed("signingCertificate"))?;
    let binding = binding.ok_or(Refusal::Algorithm("hash in signingCertificateV2"))?;
    let mut bound = signed.certificates.iter().filter(|certificate| binding.names(certificate));
    let found = bound.next().ok_or(Refusal::SignerCertificateMissing)?;
    let certificate = Certificate::read(found).map_err(malformed)?;
    let issuer_and_serial = (certificate.issuer, certificate.serial);
    let same = match signed.signer {
        SignerName::IssuerAndSerial(issuer, serial) => (issuer, serial) == issuer_and_serial,
        SignerName::KeyIdentifier(identifier) => {
            certificate.key_identifier().map_err(malformed)? == Some(identifier)
        }
    };
    if !same || binding.issuer_and_serial.is_some_and(|named| named != issuer_and_serial) {
        return Err(Refusal::SignerCertificateAmbiguous);
    }
    Ok(certificate)
}

/// The first identifier is the signer's. Others would only narrow the path, which ends at a pinned root anyway.
/// `None` when its hash is not one that is accepted.
fn binding(attribute: &[u8], names_its_hash: bool) -> der::Result<Option<Binding<'_>>> {
    let mut attribute = Reader::whole(attribute, SEQUENCE)?;
    let mut first = attribute.enter(SEQUENCE)?.enter(SEQUENCE)?;
    attribute.take_if(SEQUENCE)?;
    attribute.end()?;
    let digest = match first.take_if(SEQUENCE)? {
        Some(algorithm) if names_its_hash => {
            let algorithm = AlgorithmIdentifier::read(&mut Reader::new(algorithm.raw))?;
            Digest::of(&algorithm).map(Some)
        }
        Some(_) => return Err(Malformed),
        None if names_its_hash => Some(Some(Digest::Sha256)),
        None => Some(None),
    };
    let hash = first.take(OCTET_STRING)?.content;
    let issuer_and_serial =
        first.take_if(SEQUENCE)?.map(|named| issuer_and_serial(named.open())).transpose()?;
    first.end()?;
    Ok(digest.map(|digest| Binding { digest, hash, issuer_and_serial }))
}

fn issuer_and_serial(mut named: Reader<'_>) -> der::Result<(&[u8], &[u8])> {
    let mut names = named.enter(SEQUENCE)?;
    let name = names.take(der::context(4))?.content;
    names.end()?;
    let serial = named.take(INTEGER)?.content;
    named.end()?;
    Ok((name, serial))
}

fn check_signature(signed: &SignedData<'_>, signer: &Certificate<'_>) -> Result<(), Refusal> {
    let certificate = CertificateDer::from(signer.der);
    let certificate = EndEntityCert::try_from(&certificate).map_err(path_refusal)?;
    let algorithms = signature::of_signer(&signed.signature_algorithm, signed.digest)
        .ok_or(Refusal::Algorithm("signature algorithm"))?;
    let message = signed.signed_bytes();
    for algorithm in algorithms {
        match certificate.verify_signature(algorithm, &message, signed.signature) {
            Ok(()) => return Ok(()),
            // A key of another kind; the next algorithm may be for it.
            Err(Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(_) => return Err(Refusal::Signature),
        }
    }
    Err(Refusal::Algorithm("key"))
}

/// The certificate was valid then, and so was every CA up to a pinned root. Returns who vouches for whom.
fn check_path(
    signed: &SignedData<'_>,
    signer: &Certificate<'_>,
    micros: u64,
    authority: &Authority,
) -> Result<Vec<Vouched>, Refusal> {
    let second = micros - micros % crate::time::SECOND;
    if second < signer.not_before_micros {
        return Err(Refusal::SignerNotYetValid);
    }
    if second > signer.not_after_micros {
        return Err(Refusal::SignerExpired);
    }
    let others = signed.certificates.iter().filter(|other| **other != signer.der);
    let others: Vec<CertificateDer<'_>> = others.map(|other| CertificateDer::from(*other)).collect();
    let leads_to = |anchors: &[TrustAnchor<'_>]| -> Result<Vec<Vouched>, Error> {
        let certificate = CertificateDer::from(signer.der);
        let certificate = EndEntityCert::try_from(&certificate)?;
        let time = UnixTime::since_unix_epoch(Duration::from_micros(second));
        // Intermediate CAs need not say what they are for; the signer's own purpose has been checked already.
        let usage = KeyUsage::required_if_present(oid::TIME_STAMPING);
        let algorithms = signature::OF_CERTIFICATES;
        let path = certificate.verify_for_usage(algorithms, anchors, &others, time, usage, None, None)?;
        let mut chain = vec![signer.der.to_vec()];
        chain.extend(path.intermediate_certificates().map(|ca| ca.der().to_vec()));
        chain.extend(authority.root_of(path.anchor()).map(<[u8]>::to_vec));
        Ok(chain.windows(2).map(|pair| Vouched::new(&pair[0], &pair[1])).collect())
    };
    let outcome = leads_to(&authority.anchors(micros, true));
    // Walked again only where that can give a better reason.
    let not_valid_then = authority.anchors(micros, false);
    if outcome.is_err() && !not_valid_then.is_empty() && leads_to(&not_valid_then).is_ok() {
        return Err(Refusal::RootNotValidThen);
    }
    outcome.map_err(path_refusal)
}

fn path_refusal(error: Error) -> Refusal {
    match error {
        // A CA of the same name has another key.
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Refusal::Untrusted,
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            Refusal::Algorithm("certificates' signature algorithm")
        }
        // The signer's own validity has been checked, so this is a CA's.
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => Refusal::CaNotValidThen,
        other => Refusal::Path(text::harmless(&other.to_string())),
    }
}
