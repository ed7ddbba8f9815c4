//! The fields of a certificate that decide whether its key may make stamps (RFC 3161, 2.3; RFC 5280, 4).
//!
//! Refuses to do: path validation, which is webpki's; what is read here is what webpki does not ask.
//! Invariant: an extension that comes twice is refused, so every reader of the certificate means the same one.

use crate::crl;
use crate::der::{self, BIT_STRING, BOOLEAN, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE};
use crate::oid;
use crate::refusal::Refusal;
use crate::signature::AlgorithmIdentifier;
use crate::time;

/// Most extensions of a certificate.
const EXTENSIONS_MAX: usize = 64;

/// An extension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extension<'a> {
    pub oid: &'a [u8],
    pub critical: bool,
    pub value: &'a [u8],
}

/// A certificate, taken apart as far as it matters here.
#[derive(Debug, Clone)]
pub(crate) struct Certificate<'a> {
    /// All of it.
    pub der: &'a [u8],
    /// Content of the serial number.
    pub serial: &'a [u8],
    /// DER of the issuer's name.
    pub issuer: &'a [u8],
    /// DER of the subject's name.
    pub subject: &'a [u8],
    pub not_before_micros: u64,
    pub not_after_micros: u64,
    extensions: Vec<Extension<'a>>,
}

impl<'a> Certificate<'a> {
    /// Takes a certificate of X.509 version 3 apart.
    pub fn read(bytes: &'a [u8]) -> der::Result<Self> {
        let mut certificate = Reader::whole(bytes, SEQUENCE)?;
        let mut content = certificate.enter(SEQUENCE)?;
        AlgorithmIdentifier::read(&mut certificate)?;
        certificate.take(BIT_STRING)?;
        certificate.end()?;

        let mut version = content.enter(der::context(0))?;
        if version.take(INTEGER)?.number()? != 2 {
            return Err(der::Malformed);
        }
        version.end()?;
        let serial = content.take(INTEGER)?.content;
        AlgorithmIdentifier::read(&mut content)?;
        let issuer = content.take(SEQUENCE)?.raw;
        let mut validity = content.enter(SEQUENCE)?;
        let [not_before, not_after] = [validity.any()?, validity.any()?];
        validity.end()?;
        let subject = content.take(SEQUENCE)?.raw;
        content.take(SEQUENCE)?;
        for unique_id in [1, 2] {
            content.take_if(der::context_primitive(unique_id))?;
        }
        let mut extensions: Vec<Extension<'a>> = Vec::new();
        if let Some(list) = content.take_if(der::context(3))? {
            for extension in read_extensions(list.content)? {
                if extensions.iter().any(|other| other.oid == extension.oid) {
                    return Err(der::Malformed);
                }
                extensions.push(extension);
            }
        }
        content.end()?;
        Ok(Certificate {
            der: bytes,
            serial,
            issuer,
            subject,
            not_before_micros: time::of_certificate(not_before.tag, not_before.content)?,
            not_after_micros: time::of_certificate(not_after.tag, not_after.content)?,
            extensions,
        })
    }

    fn extension(&self, oid: &[u8]) -> Option<&Extension<'a>> {
        self.extensions.iter().find(|extension| extension.oid == oid)
    }

    /// Whether it says that it is a CA's.
    pub fn is_ca(&self) -> der::Result<bool> {
        let Some(constraints) = self.extension(oid::BASIC_CONSTRAINTS) else { return Ok(false) };
        let mut constraints = Reader::whole(constraints.value, SEQUENCE)?;
        let ca = constraints.take_if(BOOLEAN)?.is_some_and(|ca| ca.content == [0xff]);
        constraints.take_if(INTEGER)?;
        constraints.end()?;
        Ok(ca)
    }

    /// Whether its key may sign CRLs: nothing is said of what it may do, or that it may.
    pub fn may_sign_crls(&self) -> der::Result<bool> {
        // cRLSign.
        Ok(self.key_usage()?.is_none_or(|bits| bits.contains(&6)))
    }

    fn key_usage(&self) -> der::Result<Option<Vec<usize>>> {
        let Some(usage) = self.extension(oid::KEY_USAGE) else { return Ok(None) };
        let mut usage = Reader::new(usage.value);
        let bits = usage.take(BIT_STRING)?.flags()?;
        usage.end()?;
        Ok(Some(bits))
    }

    /// The GeneralNames, DER each, under which its issuer publishes CRLs for it.
    pub fn distribution_points(&self) -> der::Result<Vec<&'a [u8]>> {
        let points = self.extension(oid::CRL_DISTRIBUTION_POINTS);
        points.map_or(Ok(Vec::new()), |points| crl::names_of_points(points.value))
    }

    /// The identifier of its key that others may name it by.
    pub fn key_identifier(&self) -> der::Result<Option<&'a [u8]>> {
        let Some(extension) = self.extension(oid::SUBJECT_KEY_IDENTIFIER) else { return Ok(None) };
        let mut value = Reader::new(extension.value);
        let identifier = value.take(OCTET_STRING)?;
        value.end()?;
        Ok(Some(identifier.content))
    }

    /// Whether `name`, a GeneralName, is one of the subject's.
    pub fn is_named(&self, name: &[u8]) -> der::Result<bool> {
        let mut reader = Reader::new(name);
        let element = reader.any()?;
        reader.end()?;
        if element.tag == der::context(4) && element.content == self.subject {
            return Ok(true);
        }
        let Some(others) = self.extension(oid::SUBJECT_ALT_NAME) else { return Ok(false) };
        let others = Reader::whole(others.value, SEQUENCE)?.all(EXTENSIONS_MAX)?;
        Ok(others.iter().any(|other| other.raw == name))
    }

    /// Whether its key may make stamps, and nothing else.
    pub fn check_purpose(&self) -> Result<(), Refusal> {
        let malformed = |_| Refusal::Malformed("signer's certificate");
        if self.is_ca().map_err(malformed)? {
            return Err(Refusal::SignerIsCa);
        }
        let purposes = self.extension(oid::EXTENDED_KEY_USAGE).ok_or(Refusal::PurposeMissing)?;
        let listed = Reader::whole(purposes.value, SEQUENCE)
            .and_then(|list| list.all(EXTENSIONS_MAX))
            .map_err(malformed)?;
        let [only] = listed[..] else { return Err(Refusal::PurposeNotSole) };
        if only.tag != OBJECT_IDENTIFIER || only.content != oid::TIME_STAMPING {
            return Err(Refusal::PurposeNotSole);
        }
        if !purposes.critical {
            return Err(Refusal::PurposeNotCritical);
        }
        // digitalSignature and contentCommitment (nonRepudiation).
        match self.key_usage().map_err(malformed)? {
            Some(bits) if bits.is_empty() || bits.iter().any(|bit| *bit > 1) => Err(Refusal::KeyUsage),
            _ => Ok(()),
        }
    }
}

/// `Extensions`, of a certificate or a stamp: whether any is critical is the caller's business.
pub(crate) fn read_extensions(list: &[u8]) -> der::Result<Vec<Extension<'_>>> {
    Reader::whole(list, SEQUENCE)?.all(EXTENSIONS_MAX)?.iter().map(|one| extension(one.raw)).collect()
}

fn extension(bytes: &[u8]) -> der::Result<Extension<'_>> {
    let mut inside = Reader::whole(bytes, SEQUENCE)?;
    let oid = inside.take(OBJECT_IDENTIFIER)?.content;
    let critical = inside.take_if(BOOLEAN)?.is_some_and(|critical| critical.content == [0xff]);
    let value = inside.take(OCTET_STRING)?.content;
    inside.end()?;
    Ok(Extension { oid, critical, value })
}

/// Whether one of the elements of `Extensions` is critical; refuses malformed ones.
pub(crate) fn any_critical(list: Reader<'_>) -> der::Result<bool> {
    let mut found = false;
    for one in list.all(EXTENSIONS_MAX)? {
        found |= extension(one.raw)?.critical;
    }
    Ok(found)
}
