//! Certificate revocation lists (RFC 5280, 5): read strictly, entry by entry, and verified by the issuer's certificate.
//!
//! Refuses to do: delta CRLs, indirect CRLs, CRLs for some reasons only, CRLs without an end of their validity, anything
//! critical that is not read here; CRLs beyond 10 MiB. It keeps no table of the entries: a CRL is walked, in place.
//! Invariants: a [`Crl`] is well-formed to its last entry; what it says counts only after [`Crl::verify`].

use crate::certificate::{Certificate, Extension, read_extensions};
use crate::der::{self, BIT_STRING, INTEGER, Malformed, Reader, Result as Der, SEQUENCE};
use crate::oid;
use crate::signature::{self, AlgorithmIdentifier};
use crate::text;
use crate::time;
use rustls_pki_types::CertificateDer;
use std::fmt;
use webpki::{EndEntityCert, Error};

/// Largest CRL that is read. The largest of public CAs had some 8 MB.
pub const CRL_BYTES_MAX: usize = 10 << 20;
/// Most names in a distribution point.
const NAMES_MAX: usize = 16;
/// ENUMERATED.
const ENUMERATED: u8 = 0x0a;
/// Longest serial number: RFC 5280 allows 20 bytes, some CAs take a few more.
const SERIAL_BYTES_MAX: usize = 32;

/// Why a CRL is not taken, or says nothing of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrlRefusal {
    /// It has more bytes than are read.
    #[error("the CRL has more than the 10485760 bytes that are read")]
    TooLong,
    /// It is something else: a web page of a captive portal, say.
    #[error("it is not DER of a CRL, version 2, with an end of its validity")]
    Malformed,
    /// A critical extension nobody here knows.
    #[error("the CRL has a critical extension that is not known")]
    CriticalExtension,
    /// Only changes since another CRL, or only some of the revocations.
    #[error("the CRL is not a whole one: it is a delta, indirect, or for some reasons or attributes only")]
    Partial,
    /// SHA-1, or something unknown.
    #[error("the CRL's signature algorithm is not one that is accepted")]
    Algorithm,
    /// Of another CA.
    #[error("the CRL is of another issuer")]
    Issuer,
    /// RFC 5280, 6.3.3 (f).
    #[error("the issuer's certificate does not allow it to sign CRLs")]
    KeyUsage,
    /// The signature does not verify.
    #[error("the CRL's signature does not verify")]
    Signature,
    /// It speaks of other certificates of this issuer.
    #[error("the CRL does not cover this certificate")]
    Scope,
    /// It had expired when the stamp was made.
    #[error("the CRL had expired when the stamp was made")]
    Expired,
    /// Revocations of certificates that have expired may be left out.
    #[error("the CRL is from after the certificate's end, when it need not name it any more")]
    TooLate,
}

impl CrlRefusal {
    /// The code.
    pub fn code(self) -> &'static str {
        match self {
            CrlRefusal::TooLong => "crl-too-long",
            CrlRefusal::Malformed => "crl-malformed",
            CrlRefusal::CriticalExtension => "crl-critical-extension",
            CrlRefusal::Partial => "crl-partial",
            CrlRefusal::Algorithm => "crl-algorithm",
            CrlRefusal::Issuer => "crl-issuer",
            CrlRefusal::KeyUsage => "crl-key-usage",
            CrlRefusal::Signature => "crl-signature",
            CrlRefusal::Scope => "crl-scope",
            CrlRefusal::Expired => "crl-expired",
            CrlRefusal::TooLate => "crl-too-late",
        }
    }
}

impl From<Malformed> for CrlRefusal {
    fn from(_: Malformed) -> Self {
        CrlRefusal::Malformed
    }
}

/// `CRLReason`, where an entry states one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 5280, 5.3.1")]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    CertificateHold,
    RemoveFromCrl,
    PrivilegeWithdrawn,
    AaCompromise,
}

impl Reason {
    fn of(code: u64) -> Der<Self> {
        Ok(match code {
            0 => Reason::Unspecified,
            1 => Reason::KeyCompromise,
            2 => Reason::CaCompromise,
            3 => Reason::AffiliationChanged,
            4 => Reason::Superseded,
            5 => Reason::CessationOfOperation,
            6 => Reason::CertificateHold,
            8 => Reason::RemoveFromCrl,
            9 => Reason::PrivilegeWithdrawn,
            10 => Reason::AaCompromise,
            _ => return Err(Malformed),
        })
    }

    /// Whether stamps from before the revocation stay what they are: RFC 3161, 4, names these four.
    pub fn leaves_earlier_stamps(self) -> bool {
        matches!(
            self,
            Reason::Unspecified
                | Reason::AffiliationChanged
                | Reason::Superseded
                | Reason::CessationOfOperation
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Unspecified => "unspecified",
            Reason::KeyCompromise => "keyCompromise",
            Reason::CaCompromise => "cACompromise",
            Reason::AffiliationChanged => "affiliationChanged",
            Reason::Superseded => "superseded",
            Reason::CessationOfOperation => "cessationOfOperation",
            Reason::CertificateHold => "certificateHold",
            Reason::RemoveFromCrl => "removeFromCRL",
            Reason::PrivilegeWithdrawn => "privilegeWithdrawn",
            Reason::AaCompromise => "aACompromise",
        })
    }
}

/// When a certificate was revoked, and why as far as that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub at_micros: u64,
    pub reason: Option<Reason>,
}

/// A CRL, well-formed and not verified.
#[derive(Debug, Clone)]
pub struct Crl<'a> {
    signed: &'a [u8],
    algorithm: AlgorithmIdentifier<'a>,
    signature: &'a [u8],
    /// DER of the issuer's name.
    pub(crate) issuer: &'a [u8],
    this_update_micros: u64,
    next_update_micros: u64,
    entries: Reader<'a>,
    scope: Scope<'a>,
}

/// Which of the issuer's certificates it speaks of.
#[derive(Debug, Clone, Default)]
struct Scope<'a> {
    users_only: bool,
    cas_only: bool,
    /// DER of the GeneralNames of its distribution point.
    names: Option<Vec<&'a [u8]>>,
}

impl<'a> Crl<'a> {
    /// Reads one, all of it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, CrlRefusal> {
        if bytes.len() > CRL_BYTES_MAX {
            return Err(CrlRefusal::TooLong);
        }
        let mut outer = Reader::whole(bytes, SEQUENCE)?;
        let signed = outer.take(SEQUENCE)?;
        let algorithm = AlgorithmIdentifier::read(&mut outer)?;
        let signature = outer.take(BIT_STRING)?.content;
        outer.end()?;
        let signature = signature.strip_prefix(&[0]).ok_or(CrlRefusal::Malformed)?;

        let mut list = signed.open();
        if list.take(INTEGER)?.number()? != 1 {
            return Err(CrlRefusal::Malformed);
        }
        let inner = AlgorithmIdentifier::read(&mut list)?;
        if (inner.oid, inner.parameters) != (algorithm.oid, algorithm.parameters) {
            return Err(CrlRefusal::Malformed);
        }
        let issuer = list.take(SEQUENCE)?.raw;
        let [this_update, next_update] = [list.any()?, list.any()?];
        let this_update_micros = time::of_certificate(this_update.tag, this_update.content)?;
        let next_update_micros = time::of_certificate(next_update.tag, next_update.content)?;
        if next_update_micros < this_update_micros {
            return Err(CrlRefusal::Malformed);
        }
        let entries = list.take_if(SEQUENCE)?.map_or(Reader::new(&[]), |entries| entries.open());
        let mut rest = entries;
        while !rest.is_empty() {
            entry(rest.take(SEQUENCE)?.open())?;
        }
        let scope = match list.take_if(der::context(0))? {
            None => Scope::default(),
            Some(extensions) => scope(&read_extensions(extensions.content)?)?,
        };
        list.end()?;
        Ok(Crl {
            signed: signed.raw,
            algorithm,
            signature,
            issuer,
            this_update_micros,
            next_update_micros,
            entries,
            scope,
        })
    }

    /// When it was made, in microseconds since 1970.
    pub fn this_update_micros(&self) -> u64 {
        self.this_update_micros
    }

    /// When the next one was to be there.
    pub fn next_update_micros(&self) -> u64 {
        self.next_update_micros
    }

    /// The issuer's name, for people.
    pub fn issuer_name(&self) -> String {
        text::name(self.issuer).unwrap_or_default()
    }

    /// Whether `issuer` is the CA that it names, and signed it.
    pub(crate) fn verify(&self, issuer: &Certificate<'_>) -> Result<(), CrlRefusal> {
        if issuer.subject != self.issuer {
            return Err(CrlRefusal::Issuer);
        }
        if !issuer.may_sign_crls().map_err(|Malformed| CrlRefusal::KeyUsage)? {
            return Err(CrlRefusal::KeyUsage);
        }
        let algorithms = signature::of_issuer(&self.algorithm).ok_or(CrlRefusal::Algorithm)?;
        let certificate = CertificateDer::from(issuer.der);
        let certificate = EndEntityCert::try_from(&certificate).map_err(|_| CrlRefusal::Issuer)?;
        for algorithm in algorithms {
            match certificate.verify_signature(algorithm, self.signed, self.signature) {
                Ok(()) => return Ok(()),
                // A key of another kind; the next algorithm may be for it.
                Err(Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => return Err(CrlRefusal::Signature),
            }
        }
        Err(CrlRefusal::Algorithm)
    }

    /// Whether it speaks of this certificate of its issuer.
    pub(crate) fn covers(&self, certificate: &Certificate<'_>) -> Der<bool> {
        let is_ca = certificate.is_ca()?;
        if self.scope.users_only && is_ca || self.scope.cas_only && !is_ca {
            return Ok(false);
        }
        let Some(names) = &self.scope.names else { return Ok(true) };
        let own = certificate.distribution_points()?;
        Ok(own.iter().any(|name| names.contains(name)))
    }

    /// What it says of the certificate with this serial number: the first entry counts.
    pub(crate) fn find(&self, serial: &[u8]) -> Der<Option<Entry>> {
        let mut rest = self.entries;
        while !rest.is_empty() {
            let inside = rest.take(SEQUENCE)?.open();
            // A reader is a place in the bytes: this one looks ahead, `inside` stays.
            if Reader::take(&mut inside.clone(), INTEGER)?.content == serial {
                return entry(inside).map(Some).map_err(|_| Malformed);
            }
        }
        Ok(None)
    }
}

/// One entry: number, time, extensions.
fn entry(mut inside: Reader<'_>) -> Result<Entry, CrlRefusal> {
    if inside.take(INTEGER)?.content.len() > SERIAL_BYTES_MAX {
        return Err(CrlRefusal::Malformed);
    }
    let at = inside.any()?;
    let at_micros = time::of_certificate(at.tag, at.content)?;
    let mut reason = None;
    if let Some(extensions) = inside.take_if(SEQUENCE)? {
        for extension in read_extensions(extensions.raw)? {
            match extension.oid {
                oid::CRL_REASON if reason.is_none() => {
                    let mut value = Reader::new(extension.value);
                    let code = value.take(ENUMERATED)?.content;
                    value.end()?;
                    let [code] = code else { return Err(CrlRefusal::Malformed) };
                    reason = Some(Reason::of(u64::from(*code))?);
                }
                oid::CRL_REASON => return Err(CrlRefusal::Malformed),
                _ if extension.critical => return Err(CrlRefusal::CriticalExtension),
                _ => {}
            }
        }
    }
    inside.end()?;
    Ok(Entry { at_micros, reason })
}

fn scope<'a>(extensions: &[Extension<'a>]) -> Result<Scope<'a>, CrlRefusal> {
    let mut found = None;
    for extension in extensions {
        match extension.oid {
            oid::ISSUING_DISTRIBUTION_POINT if found.is_none() => {
                found = Some(issuing_distribution_point(extension.value)?);
            }
            oid::ISSUING_DISTRIBUTION_POINT => return Err(CrlRefusal::Malformed),
            oid::DELTA_CRL_INDICATOR => return Err(CrlRefusal::Partial),
            _ if extension.critical => return Err(CrlRefusal::CriticalExtension),
            _ => {}
        }
    }
    Ok(found.unwrap_or_default())
}

/// RFC 5280, 5.2.5.
fn issuing_distribution_point(value: &[u8]) -> Result<Scope<'_>, CrlRefusal> {
    let mut point = Reader::whole(value, SEQUENCE)?;
    let names = point.take_if(der::context(0))?.map(|name| full_name(name.open())).transpose()?;
    let mut flag = |number| -> Result<bool, CrlRefusal> {
        match point.take_if(der::context_primitive(number))?.map(|flag| flag.content) {
            None | Some([0]) => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err(CrlRefusal::Malformed),
        }
    };
    let (users_only, cas_only) = (flag(1)?, flag(2)?);
    let some_reasons = point.take_if(der::context_primitive(3))?.is_some();
    let mut flag = |number| -> Result<bool, CrlRefusal> {
        Ok(point.take_if(der::context_primitive(number))?.is_some_and(|flag| flag.content != [0]))
    };
    let (indirect, attributes_only) = (flag(4)?, flag(5)?);
    point.end()?;
    if some_reasons || indirect || attributes_only {
        return Err(CrlRefusal::Partial);
    }
    Ok(Scope { users_only, cas_only, names })
}

/// The GeneralNames of a DistributionPointName; a name relative to the issuer's has none.
fn full_name(mut name: Reader<'_>) -> Der<Vec<&[u8]>> {
    let choice = name.any()?;
    name.end()?;
    match choice.tag {
        tag if tag == der::context(0) => {
            Ok(choice.open().all(NAMES_MAX)?.iter().map(|name| name.raw).collect())
        }
        tag if tag == der::context(1) => Ok(Vec::new()),
        _ => Err(Malformed),
    }
}

/// The GeneralNames, DER each, under which a certificate says that its CRL is published: of points that are for every
/// reason and of its own issuer.
pub(crate) fn names_of_points(value: &[u8]) -> Der<Vec<&[u8]>> {
    let mut names = Vec::new();
    for point in Reader::whole(value, SEQUENCE)?.all(NAMES_MAX)? {
        let mut point = Reader::whole(point.raw, SEQUENCE)?;
        let name = point.take_if(der::context(0))?;
        let some_reasons = point.take_if(der::context_primitive(1))?.is_some();
        let other_issuer = point.take_if(der::context(2))?.is_some();
        point.end()?;
        if let (Some(name), false, false) = (name, some_reasons, other_issuer) {
            names.extend(full_name(name.open())?);
        }
    }
    Ok(names)
}

/// The text of a GeneralName that is an address of the web, short and plain enough to be asked.
pub(crate) fn web_address(name: &[u8]) -> Option<&str> {
    const ADDRESS_BYTES_MAX: usize = 1_024;
    let mut reader = Reader::new(name);
    let element = reader.any().ok().filter(|element| element.tag == der::context_primitive(6))?;
    let text = std::str::from_utf8(element.content).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['@', '#', '"']);
    let web = text.starts_with("http://") || text.starts_with("https://");
    (plain && web && text.len() <= ADDRESS_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::{OBJECT_IDENTIFIER, OCTET_STRING, UTC_TIME, element};

    fn sequence(parts: &[&[u8]]) -> Vec<u8> {
        element(SEQUENCE, parts)
    }

    fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
        let flag: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
        sequence(&[&element(OBJECT_IDENTIFIER, &[oid]), flag, &element(OCTET_STRING, &[value])])
    }

    struct Made {
        version: Vec<u8>,
        inner: &'static [u8],
        times: Vec<u8>,
        entries: Vec<u8>,
        extensions: Vec<u8>,
    }

    fn time(text: &str) -> Vec<u8> {
        element(UTC_TIME, &[text.as_bytes()])
    }

    impl Made {
        fn new() -> Self {
            Made {
                version: vec![2, 1, 1],
                inner: oid::ECDSA_SHA256,
                times: [time("260101000000Z"), time("260201000000Z")].concat(),
                entries: Vec::new(),
                extensions: Vec::new(),
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let name = |oid| sequence(&[&element(OBJECT_IDENTIFIER, &[oid])]);
            let entries = if self.entries.is_empty() { Vec::new() } else { sequence(&[&self.entries]) };
            let extensions = if self.extensions.is_empty() {
                Vec::new()
            } else {
                element(der::context(0), &[&sequence(&[&self.extensions])])
            };
            let list = sequence(&[
                &self.version,
                &name(self.inner),
                &sequence(&[]),
                &self.times,
                &entries,
                &extensions,
            ]);
            sequence(&[&list, &name(oid::ECDSA_SHA256), &element(BIT_STRING, &[&[0, 1, 2]])])
        }

        fn refused(&self) -> Option<CrlRefusal> {
            Crl::read(&self.bytes()).err()
        }
    }

    fn listed(serial: &[u8], extensions: &[u8]) -> Vec<u8> {
        let extensions = if extensions.is_empty() { Vec::new() } else { sequence(&[extensions]) };
        sequence(&[&element(INTEGER, &[serial]), &time("260115000000Z"), &extensions])
    }

    fn reason(code: u8) -> Vec<u8> {
        extension(oid::CRL_REASON, false, &[ENUMERATED, 1, code])
    }

    #[test]
    fn entries_are_found_with_their_reasons() {
        let mut made = Made::new();
        made.entries = [listed(&[5], &[]), listed(&[6], &reason(1)), listed(&[7], &reason(4))].concat();
        let bytes = made.bytes();
        let crl = Crl::read(&bytes).unwrap();
        let found = |serial: &[u8]| crl.find(serial).unwrap().map(|entry| entry.reason);
        assert_eq!(found(&[5]), Some(None));
        assert_eq!(found(&[6]), Some(Some(Reason::KeyCompromise)));
        assert_eq!(found(&[7]), Some(Some(Reason::Superseded)));
        assert_eq!(found(&[8]), None);
        assert_eq!(crl.this_update_micros(), 1_767_225_600_000_000);
        assert!(crl.next_update_micros() > crl.this_update_micros());
        let four: Vec<u64> =
            (0..=10).filter(|n| Reason::of(*n).is_ok_and(Reason::leaves_earlier_stamps)).collect();
        assert_eq!(four, [0, 3, 4, 5], "RFC 3161, section 4");
    }

    #[test]
    fn what_is_not_a_whole_crl_is_refused() {
        let good = Made::new().bytes();
        assert!(Crl::read(&good).is_ok());
        for cut in 0..good.len() {
            assert_eq!(Crl::read(&good[..cut]).err(), Some(CrlRefusal::Malformed), "cut to {cut}");
        }
        assert_eq!(Crl::read(&[&good[..], &[0]].concat()).err(), Some(CrlRefusal::Malformed));
        assert_eq!(Crl::read(&vec![0; CRL_BYTES_MAX + 1]).err(), Some(CrlRefusal::TooLong));
        let changed = |change: fn(&mut Made)| {
            let mut made = Made::new();
            change(&mut made);
            made.refused()
        };
        let malformed = Some(CrlRefusal::Malformed);
        assert_eq!(changed(|made| made.version.clear()), malformed, "version 1 has no number");
        assert_eq!(changed(|made| made.version = vec![2, 1, 2]), malformed);
        assert_eq!(changed(|made| made.inner = oid::ECDSA_SHA384), malformed, "two algorithms");
        assert_eq!(changed(|made| made.times = time("260101000000Z")), malformed, "no end");
        assert_eq!(changed(|made| made.times.rotate_left(15)), malformed, "the end before the beginning");
        assert_eq!(changed(|made| made.entries = listed(&[5], &[])[2..].to_vec()), malformed);
        assert_eq!(changed(|made| made.entries = listed(&[1; 33], &[])), malformed);
        assert_eq!(changed(|made| made.entries = listed(&[5], &reason(7))), malformed);
        assert_eq!(changed(|made| made.entries = listed(&[5], &[reason(1), reason(4)].concat())), malformed);
        let unknown = |critical| extension(b"\x55\x1d\x1d", critical, &[5, 0]);
        let critical = Some(CrlRefusal::CriticalExtension);
        let mut made = Made::new();
        made.entries = listed(&[5], &unknown(true));
        assert_eq!(made.refused(), critical, "an indirect CRL's entry");
        made.entries = listed(&[5], &unknown(false));
        assert_eq!(made.refused(), None);
        made.extensions = unknown(true);
        assert_eq!(made.refused(), critical);
    }

    #[test]
    fn a_crl_for_less_than_all_is_refused_or_narrow() {
        let with = |value: &[u8]| {
            let mut made = Made::new();
            made.extensions = extension(oid::ISSUING_DISTRIBUTION_POINT, true, value);
            made
        };
        for (part, refusal) in [
            (&[0x83, 2, 6, 0x40][..], CrlRefusal::Partial),
            (&[0x84, 1, 0xff], CrlRefusal::Partial),
            (&[0x85, 1, 0xff], CrlRefusal::Partial),
            (&[0x81, 1, 7], CrlRefusal::Malformed),
            (&[0x86, 1, 0xff], CrlRefusal::Malformed),
        ] {
            assert_eq!(with(&sequence(&[part])).refused(), Some(refusal), "{part:?}");
        }
        let mut made = Made::new();
        made.extensions = extension(oid::DELTA_CRL_INDICATOR, true, &[2, 1, 1]);
        assert_eq!(made.refused(), Some(CrlRefusal::Partial));
        made = with(&sequence(&[&[0x82, 1, 0xff]]));
        let bytes = made.bytes();
        let crl = Crl::read(&bytes).unwrap();
        assert!(crl.scope.cas_only && !crl.scope.users_only && crl.scope.names.is_none());
        made.extensions = made.extensions.repeat(2);
        assert_eq!(made.refused(), Some(CrlRefusal::Malformed), "twice");
    }

    #[test]
    fn addresses_are_of_the_web_and_plain() {
        let address = |text: &str| {
            let name = element(der::context_primitive(6), &[text.as_bytes()]);
            web_address(&name).map(str::to_owned)
        };
        for good in ["http://a.example/x.crl", "https://a.example:8443/x?y=z"] {
            assert_eq!(address(good).as_deref(), Some(good));
        }
        let long = format!("http://{}", "a".repeat(1_024));
        for bad in [
            "",
            "ldap://a/x",
            "ftp://a/x",
            "http://a/ b",
            "http://u@a/x",
            "http://a/#x",
            "http://\u{e4}/",
            &long,
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
        assert_eq!(web_address(&element(der::context_primitive(2), &[b"http://a/"])), None, "a DNS name");
    }
}
