//! The endorsement key's certificate: that a pinned manufacturer made this TPM.
//!
//! X.509 as RFC 5280 and the TCG EK Credential Profile 2.5 have it. General-purpose path validation does not fit: these
//! certificates have an empty subject, critical extensions that TLS never sees, and chips outlive the habits of CAs.
//! Refuses: SHA-1, RSA below 2048 bits, curves beyond P-384, critical extensions it does not know, certificates that are
//! not for endorsement keys, keys that are not the one presented.
//! Invariant: what is accepted leads by valid signatures of CAs to a root that the registrar was given; a root counts
//! by name and key alone, as RFC 5280, 6.1.1 (d) has it.

use crate::refusal::{Code, Judged, Refusal};
use bulla_formats::der::first_element;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::tpm::TpmtPublic;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const EC_PUBLIC_KEY: ObjectIdentifier = oid("1.2.840.10045.2.1");
const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = oid("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
/// Older RSA endorsement certificates name the key so.
const RSA_OAEP: ObjectIdentifier = oid("1.2.840.113549.1.1.7");
const RSA_SHA256: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
const ECDSA_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
/// tcg-kp-EKCertificate.
const EK_CERTIFICATE: ObjectIdentifier = oid("2.23.133.8.1");
const ANY_USAGE: ObjectIdentifier = oid("2.5.29.37.0");
/// tcg-at-tpmManufacturer, tcg-at-tpmModel, tcg-at-tpmVersion.
const ATTRIBUTES: [ObjectIdentifier; 3] = [oid("2.23.133.2.1"), oid("2.23.133.2.2"), oid("2.23.133.2.3")];
/// basicConstraints, keyUsage, subjectAltName, extKeyUsage, certificatePolicies: those that may be critical.
const UNDERSTOOD: [ObjectIdentifier; 5] =
    [BasicConstraints::OID, KeyUsage::OID, SubjectAltName::OID, ExtendedKeyUsage::OID, oid("2.5.29.32")];
/// Most certificates between the endorsement key and a root.
const DEPTH_MAX: usize = 4;
/// Most signatures that one chain costs: certificates come from strangers.
const SIGNATURES_MAX: usize = 32;

/// A certificate with the bytes that were signed.
#[derive(Debug, Clone)]
struct Parsed {
    certificate: Certificate,
    signed: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
}

impl Parsed {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let certificate = Certificate::from_der(bytes).map_err(|error| error.to_string())?;
        let signed = first_element(bytes).ok_or("it is cut short")?.to_vec();
        let content = certificate.tbs_certificate();
        if content.signature() != certificate.signature_algorithm() {
            return Err("it names two signature algorithms".into());
        }
        let (issuer, subject) = (comparable(content.issuer())?, comparable(content.subject())?);
        Ok(Parsed { signed, issuer, subject, certificate })
    }

    fn key(&self) -> &SubjectPublicKeyInfoOwned {
        self.certificate.tbs_certificate().subject_public_key_info()
    }

    /// An extension, or what is wrong with it.
    fn extension<T: for<'a> Decode<'a, Error = x509_cert::der::Error> + AssociatedOid>(
        &self,
    ) -> Result<Option<T>, &'static str> {
        let found = self.certificate.tbs_certificate().get_extension::<T>();
        found
            .map(|found| found.map(|(_, value)| value))
            .map_err(|_| "an extension is malformed or comes twice")
    }

    fn check_critical(&self) -> Result<(), &'static str> {
        let extensions = self.certificate.tbs_certificate().extensions();
        let unknown = |extension: &&x509_cert::ext::Extension| {
            extension.critical && !UNDERSTOOD.contains(&extension.extn_id)
        };
        match extensions.into_iter().flatten().find(unknown) {
            Some(_) => Err("it has a critical extension that is not understood"),
            None => Ok(()),
        }
    }

    fn usage_allows(&self, wanted: impl Fn(&KeyUsage) -> bool) -> Result<(), &'static str> {
        if self.extension::<KeyUsage>()?.is_some_and(|usage| !wanted(&usage)) {
            return Err("its key usage is another");
        }
        let purposes = self.extension::<ExtendedKeyUsage>()?;
        if purposes.is_some_and(|purposes| {
            !purposes.0.iter().any(|purpose| [EK_CERTIFICATE, ANY_USAGE].contains(purpose))
        }) {
            return Err("its extended key usage is not that of endorsement keys");
        }
        Ok(())
    }

    /// Whether it is a CA that may stand `below` CAs above the endorsement certificate.
    fn check_authority(&self, below: usize) -> Result<(), &'static str> {
        self.check_critical()?;
        let constraints = self.extension::<BasicConstraints>()?.ok_or("it is no CA")?;
        if !constraints.ca {
            return Err("it is no CA");
        }
        if constraints.path_len_constraint.is_some_and(|most| usize::from(most) < below) {
            return Err("its path length does not allow the CAs below it");
        }
        self.usage_allows(KeyUsage::key_cert_sign)
    }

    fn is_valid_at(&self, now_millis: u64) -> bool {
        let validity = self.certificate.tbs_certificate().validity();
        let now = Duration::from_millis(now_millis);
        validity.not_before.to_unix_duration() <= now && now <= validity.not_after.to_unix_duration()
    }

    /// Whether the key of `issuer` made its signature.
    fn is_signed_by(&self, issuer: &Parsed) -> bool {
        let Some(algorithm) = algorithm(&self.certificate.signature_algorithm().oid, issuer.key()) else {
            return false;
        };
        let (Some(key), Some(made)) =
            (issuer.key().subject_public_key.as_bytes(), self.certificate.signature().as_bytes())
        else {
            return false;
        };
        UnparsedPublicKey::new(algorithm, key).verify(&self.signed, made).is_ok()
    }
}

/// A name such that equal ones have equal bytes: a PrintableString and a UTF8String of the same letters are one value, because
/// makers write one name both ways (RFC 5280, 7.1). Case and spaces count.
fn comparable(name: &Name) -> Result<Vec<u8>, String> {
    let words = |error: x509_cert::der::Error| error.to_string();
    let mut bytes = Vec::new();
    for parts in name.iter_rdn() {
        let mut attributes = Vec::new();
        for attribute in parts.iter() {
            let tag = match attribute.value.tag() {
                Tag::PrintableString => Tag::Utf8String,
                other => other,
            };
            let value = Any::new(tag, attribute.value.value()).map_err(words)?;
            attributes
                .push([attribute.oid.to_der().map_err(words)?, value.to_der().map_err(words)?].concat());
        }
        // They are a set, whose order in DER may follow the tags that were changed.
        attributes.sort_unstable();
        bytes.extend((attributes.len() as u32).to_be_bytes());
        bytes.extend(attributes.concat());
    }
    Ok(bytes)
}

/// How a key of this kind makes signatures of this algorithm; `None` for what is not accepted.
fn algorithm(
    signature: &ObjectIdentifier,
    key: &SubjectPublicKeyInfoOwned,
) -> Option<&'static dyn VerificationAlgorithm> {
    let curve = || key.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
    let kind = key.algorithm.oid;
    Some(match *signature {
        RSA_SHA256 if kind == RSA_ENCRYPTION => &signature::RSA_PKCS1_2048_8192_SHA256,
        RSA_SHA384 if kind == RSA_ENCRYPTION => &signature::RSA_PKCS1_2048_8192_SHA384,
        RSA_SHA512 if kind == RSA_ENCRYPTION => &signature::RSA_PKCS1_2048_8192_SHA512,
        ECDSA_SHA256 | ECDSA_SHA384 if kind == EC_PUBLIC_KEY => {
            match (curve()?, *signature == ECDSA_SHA256) {
                (P256, true) => &signature::ECDSA_P256_SHA256_ASN1,
                (P256, false) => &signature::ECDSA_P256_SHA384_ASN1,
                (P384, true) => &signature::ECDSA_P384_SHA256_ASN1,
                (P384, false) => &signature::ECDSA_P384_SHA384_ASN1,
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// The roots of manufacturers that a fleet accepts, and the intermediate CAs that TPMs do not carry themselves.
#[derive(Debug, Clone)]
pub struct Manufacturers {
    roots: Vec<Parsed>,
    intermediates: Vec<Parsed>,
}

/// A certificate of the bundle that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate {number} of the manufacturers' {list} is not usable: {why}")]
pub struct BundleError {
    /// Which list.
    pub list: &'static str,
    /// Place in it, from 1.
    pub number: usize,
    /// What is wrong.
    pub why: String,
}

/// A CA certificate of a manufacturer, for whoever decides whether it is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFacts {
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// SHA-256 of the certificate.
    pub sha256: Hash,
    /// Whether it names itself as its issuer: a root. Roots count by name and key, so nobody looks at that signature.
    pub is_root: bool,
    /// End of its validity (Unix milliseconds).
    pub not_after: u64,
}

impl AuthorityFacts {
    /// Reads one certificate, X.509 DER.
    ///
    /// # Errors
    /// It is none, or no CA that could stand above endorsement certificates.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let parsed = Parsed::read(bytes)?;
        parsed.check_authority(0)?;
        let content = parsed.certificate.tbs_certificate();
        let end = content.validity().not_after.to_unix_duration();
        Ok(AuthorityFacts {
            subject: content.subject().to_string(),
            sha256: sha256(&[bytes]),
            is_root: parsed.subject == parsed.issuer,
            not_after: u64::try_from(end.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// What a certificate chain proves of an endorsement key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsed {
    /// SHA-256 of the endorsement key's SubjectPublicKeyInfo as section 5 of the formats has it.
    pub ek_spki_sha256: Hash,
    /// What the manufacturer says of the TPM: manufacturer, model, version; for people.
    pub described: String,
    /// The subject of the root, for people.
    pub root: String,
}

impl Manufacturers {
    /// Takes roots and intermediates, X.509 DER.
    ///
    /// # Errors
    /// For a certificate that is none, or no CA.
    pub fn new(roots: &[Vec<u8>], intermediates: &[Vec<u8>]) -> Result<Self, BundleError> {
        let read = |list, certificates: &[Vec<u8>]| {
            let one = |(index, bytes): (usize, &Vec<u8>)| {
                let parsed = Parsed::read(bytes)
                    .and_then(|parsed| parsed.check_authority(0).map(|()| parsed).map_err(str::to_owned));
                parsed.map_err(|why| BundleError { list, number: index + 1, why })
            };
            certificates.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
        };
        Ok(Manufacturers {
            roots: read("roots", roots)?,
            intermediates: read("intermediates", intermediates)?,
        })
    }

    /// Whether a CA certificate leads to one of the roots by signatures that count here.
    ///
    /// # Errors
    /// Why not.
    pub fn vouch_for(&self, authority: &[u8], now_millis: u64) -> Result<(), String> {
        let below = Parsed::read(authority)?;
        let mut search = Search {
            roots: &self.roots,
            known: &self.intermediates,
            now_millis,
            left: SIGNATURES_MAX,
            why: None,
        };
        match search.root_above(&below, 1) {
            Some(_) => Ok(()),
            None => Err(search.why.map_or("no pinned root vouches for it", |(_, why)| why).to_owned()),
        }
    }

    /// Judges the certificates that came with an endorsement key, leaf first.
    ///
    /// # Errors
    /// With the codes `ek-certificate-*` and `ek-chain`.
    pub fn judge(&self, ek: &TpmtPublic, certificates: &[Vec<u8>], now_millis: u64) -> Judged<Endorsed> {
        let refused = |code, why: String| Err(Refusal::new(code, why));
        let Some((leaf, others)) = certificates.split_first() else {
            let why = "no certificate came with the endorsement key: nothing says that it is a TPM's";
            return refused(Code::EkCertificateMissing, why.into());
        };
        let leaf = match Parsed::read(leaf) {
            Ok(leaf) => leaf,
            Err(why) => {
                let why = format!("the certificate of the endorsement key is not X.509: {why}");
                return refused(Code::EkCertificateMalformed, why);
            }
        };
        let spki = ek.spki_der();
        if !same_key(leaf.key(), &spki) {
            let why = "the certificate is over another key than the endorsement key presented";
            return refused(Code::EkCertificateOtherKey, why.into());
        }
        if let Err(why) = check_leaf(&leaf) {
            let why = format!("the certificate is not for an endorsement key: {why}");
            return refused(Code::EkCertificateUsage, why);
        }
        // Those that are none were sent for nothing; the ones that count are found by name and signature.
        let mut known: Vec<Parsed> = others.iter().filter_map(|bytes| Parsed::read(bytes).ok()).collect();
        known.extend(self.intermediates.iter().cloned());
        let mut search =
            Search { roots: &self.roots, known: &known, now_millis, left: SIGNATURES_MAX, why: None };
        let Some(root) = search.root_above(&leaf, 0) else {
            let (code, why) = search.why.unwrap_or((Code::EkChain, "no pinned manufacturer vouches for it"));
            let issuer = leaf.certificate.tbs_certificate().issuer();
            return refused(code, format!("the endorsement key's certificate, issued by {issuer}: {why}"));
        };
        let root = root.certificate.tbs_certificate().subject().to_string();
        Ok(Endorsed { ek_spki_sha256: sha256(&[&spki]), described: describe(&leaf), root })
    }
}

/// Whether a certificate is over the key of this SubjectPublicKeyInfo.
fn same_key(certified: &SubjectPublicKeyInfoOwned, presented: &[u8]) -> bool {
    let Ok(presented) = SubjectPublicKeyInfoOwned::from_der(presented) else { return false };
    let same_algorithm = certified.algorithm == presented.algorithm
        || (certified.algorithm.oid == RSA_OAEP && presented.algorithm.oid == RSA_ENCRYPTION);
    same_algorithm && certified.subject_public_key == presented.subject_public_key
}

fn check_leaf(leaf: &Parsed) -> Result<(), &'static str> {
    leaf.check_critical()?;
    if leaf.extension::<BasicConstraints>()?.is_some_and(|constraints| constraints.ca) {
        return Err("it is a CA's");
    }
    if leaf.key().algorithm.oid == EC_PUBLIC_KEY {
        leaf.usage_allows(KeyUsage::key_agreement)
    } else {
        leaf.usage_allows(KeyUsage::key_encipherment)
    }
}

/// A search upwards, with a bound on what it costs.
struct Search<'a> {
    roots: &'a [Parsed],
    known: &'a [Parsed],
    now_millis: u64,
    left: usize,
    why: Option<(Code, &'static str)>,
}

impl<'a> Search<'a> {
    /// The root above `below`, which is a certificate with `depth` CAs under it.
    fn root_above(&mut self, below: &Parsed, depth: usize) -> Option<&'a Parsed> {
        if !below.is_valid_at(self.now_millis) {
            self.why = Some((Code::EkCertificateExpired, "it, or one above it, is not valid at this time"));
            return None;
        }
        for root in self.roots {
            if self.issued(root, below, depth) {
                return Some(root);
            }
        }
        if depth == DEPTH_MAX {
            return None;
        }
        for issuer in self.known {
            if self.issued(issuer, below, depth)
                && let Some(root) = self.root_above(issuer, depth + 1)
            {
                return Some(root);
            }
        }
        None
    }

    fn issued(&mut self, issuer: &Parsed, below: &Parsed, depth: usize) -> bool {
        if issuer.subject != below.issuer || self.left == 0 {
            return false;
        }
        if let Err(why) = issuer.check_authority(depth) {
            self.why.get_or_insert((Code::EkChain, why));
            return false;
        }
        self.left -= 1;
        let signed = below.is_signed_by(issuer);
        if !signed {
            let why = "its signature, or one above it, does not verify or is of an algorithm not accepted";
            self.why.get_or_insert((Code::EkChain, why));
        }
        signed
    }
}

/// Manufacturer, model and version as the certificate has them.
fn describe(leaf: &Parsed) -> String {
    let Ok(Some(names)) = leaf.extension::<SubjectAltName>() else { return "unnamed".into() };
    let mut found = [const { None }; 3];
    for name in &names.0 {
        let GeneralName::DirectoryName(name) = name else { continue };
        for attribute in name.iter() {
            let place = ATTRIBUTES.iter().position(|known| *known == attribute.oid);
            let Some(place) = place else { continue };
            let text = std::str::from_utf8(attribute.value.value()).unwrap_or("?");
            found[place] = Some(text.chars().filter(|c| !c.is_control()).take(32).collect::<String>());
        }
    }
    found.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
