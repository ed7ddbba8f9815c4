//! Time-stamp authorities of the vectors: root, signer and RFC 3161 replies, DER by hand, the same bytes every time.
//!
//! Refuses to do: check what it is told to make. Keys are those of the names; signatures are RFC 6979.
//! Invariant: a [`Stamp`] that nothing was changed of verifies under the root of its operator, also by `openssl ts`.

use super::der::{oid, tlv};
use super::keys;
use super::plan::NOW;
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;

pub(super) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
pub(super) const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const CONTEXT_0: u8 = 0xa0;
const CONTEXT_3: u8 = 0xa3;

pub(super) const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";
const TST_INFO: &str = "1.2.840.113549.1.9.16.1.4";
/// What the stamps of the vectors are made under.
pub(super) const POLICY: &str = "1.3.6.1.4.1.32473.1.1";
/// The purpose that a signer of stamps has, and the one of a web server.
pub(super) const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";
pub(super) const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

pub(super) fn algorithm(name: &str) -> Vec<u8> {
    sequence(&[&oid(name)])
}

pub(super) fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], bytes].concat())
}

pub(super) fn common_name(text: &str) -> Vec<u8> {
    sequence(&[&tlv(SET, &sequence(&[&oid("2.5.4.3"), &tlv(0x0c, text.as_bytes())]))])
}

pub(super) fn extension(name: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { vec![1, 1, 0xff] } else { Vec::new() };
    sequence(&[&oid(name), &critical, &tlv(OCTET_STRING, value)])
}

/// One certificate, signed by the key named `by`.
struct Certificate<'a> {
    serial: u8,
    issuer: &'a str,
    subject: &'a str,
    validity: (&'a str, &'a str),
    extensions: Vec<Vec<u8>>,
}

impl Certificate<'_> {
    fn signed(&self, by: &str) -> Vec<u8> {
        self.signed_for(self.subject, by)
    }

    /// For the key of this name.
    fn signed_for(&self, holder: &str, by: &str) -> Vec<u8> {
        let key = sequence(&[
            &sequence(&[&oid("1.2.840.10045.2.1"), &oid("1.2.840.10045.3.1.7")]),
            &bits(&keys::point(&keys::p256(holder))),
        ]);
        let time = |text: &str| tlv(UTC_TIME, text.as_bytes());
        let content = sequence(&[
            &tlv(CONTEXT_0, &tlv(INTEGER, &[2])),
            &tlv(INTEGER, &[self.serial]),
            &algorithm(ECDSA_SHA256),
            &common_name(self.issuer),
            &sequence(&[&time(self.validity.0), &time(self.validity.1)]),
            &common_name(self.subject),
            &key,
            &tlv(CONTEXT_3, &tlv(SEQUENCE, &self.extensions.concat())),
        ]);
        let signature = keys::p256_der(&keys::sign_p256(&keys::p256(by), &content));
        sequence(&[&content, &algorithm(ECDSA_SHA256), &bits(&signature)])
    }
}

/// From long ago to long from now.
const LONG: (&str, &str) = ("200101000000Z", "491231235959Z");

/// The root of an operator's authority.
pub(super) fn root(operator: &str) -> Vec<u8> {
    // keyCertSign, cRLSign.
    root_for(operator, &[BIT_STRING, 2, 1, 6])
}

/// The same, with a key that may be used for this.
pub(super) fn root_for(operator: &str, usage: &[u8]) -> Vec<u8> {
    let name = format!("tsa root {operator}");
    let ca = extension("2.5.29.19", true, &sequence(&[&[1, 1, 0xff]]));
    let usage = extension("2.5.29.15", true, usage);
    let extensions = vec![ca, usage];
    Certificate { serial: 1, issuer: &name, subject: &name, validity: LONG, extensions }.signed(&name)
}

/// The next key of an operator's root, under the same name, as the key before vouches for it; and that key's name.
pub(super) fn renewed(operator: &str) -> (Vec<u8>, String) {
    let name = format!("tsa root {operator}");
    let ca = extension("2.5.29.19", true, &sequence(&[&[1, 1, 0xff]]));
    let usage = extension("2.5.29.15", true, &[BIT_STRING, 2, 1, 6]);
    let certificate =
        Certificate { serial: 4, issuer: &name, subject: &name, validity: LONG, extensions: vec![ca, usage] };
    let next = format!("{name}, the next");
    (certificate.signed_for(&next, &name), next)
}

/// A reply to be: what it says, and what its signer may do.
pub(super) struct Stamp {
    pub(super) operator: &'static str,
    pub(super) imprint: [u8; 32],
    /// Seconds after [`NOW`].
    pub(super) at: u64,
    pub(super) purpose: &'static str,
    pub(super) purpose_is_critical: bool,
    pub(super) validity: (&'static str, &'static str),
    /// Name of the key that makes the stamp.
    pub(super) by: String,
    /// Name of the key that signed the signer's certificate.
    pub(super) root: String,
    /// Certificates that are sent along.
    pub(super) along: Vec<Vec<u8>>,
    /// PKIStatus.
    pub(super) status: u8,
}

impl Stamp {
    pub(super) fn of(operator: &'static str, imprint: [u8; 32], at: u64) -> Self {
        Stamp {
            operator,
            imprint,
            at,
            purpose: TIME_STAMPING,
            purpose_is_critical: true,
            validity: LONG,
            by: format!("tsa {operator}"),
            root: format!("tsa root {operator}"),
            along: Vec::new(),
            status: 0,
        }
    }

    /// The signer's certificate.
    pub(super) fn certificate(&self) -> Vec<u8> {
        let purpose = sequence(&[&oid(self.purpose)]);
        Certificate {
            serial: 2,
            issuer: &format!("tsa root {}", self.operator),
            subject: &format!("tsa {}", self.operator),
            validity: self.validity,
            // digitalSignature.
            extensions: vec![
                extension("2.5.29.15", true, &[BIT_STRING, 2, 7, 0x80]),
                extension("2.5.29.37", self.purpose_is_critical, &purpose),
            ],
        }
        .signed(&self.root)
    }

    /// TimeStampResp.
    pub(super) fn reply(&self) -> Vec<u8> {
        let digits: String =
            utc(NOW + 1_000 * self.at).chars().filter(char::is_ascii_digit).take(14).collect();
        let info = sequence(&[
            &tlv(INTEGER, &[1]),
            &oid(POLICY),
            &sequence(&[&algorithm(SHA256), &tlv(OCTET_STRING, &self.imprint)]),
            &tlv(INTEGER, &[7]),
            &tlv(GENERALIZED_TIME, format!("{digits}Z").as_bytes()),
        ]);
        let certificate = self.certificate();
        let bound = sequence(&[&sequence(&[&sequence(&[&tlv(OCTET_STRING, &sha256(&[&certificate]).0)])])]);
        let attribute = |name: &str, value: &[u8]| sequence(&[&oid(name), &tlv(SET, value)]);
        let mut attributes = [
            attribute("1.2.840.113549.1.9.3", &oid(TST_INFO)),
            attribute("1.2.840.113549.1.9.4", &tlv(OCTET_STRING, &sha256(&[&info]).0)),
            attribute("1.2.840.113549.1.9.16.2.47", &bound),
        ];
        attributes.sort();
        let attributes = attributes.concat();
        let signature = keys::p256_der(&keys::sign_p256(&keys::p256(&self.by), &tlv(SET, &attributes)));
        let signer = sequence(&[
            &tlv(INTEGER, &[1]),
            &sequence(&[&common_name(&format!("tsa root {}", self.operator)), &tlv(INTEGER, &[2])]),
            &algorithm(SHA256),
            &tlv(CONTEXT_0, &attributes),
            &algorithm(ECDSA_SHA256),
            &tlv(OCTET_STRING, &signature),
        ]);
        let signed = sequence(&[
            &tlv(INTEGER, &[3]),
            &tlv(SET, &algorithm(SHA256)),
            &sequence(&[&oid(TST_INFO), &tlv(CONTEXT_0, &tlv(OCTET_STRING, &info))]),
            &tlv(CONTEXT_0, &[&certificate[..], &self.along.concat()].concat()),
            &tlv(SET, &signer),
        ]);
        let stamp = sequence(&[&oid("1.2.840.113549.1.7.2"), &tlv(CONTEXT_0, &signed)]);
        sequence(&[&sequence(&[&tlv(INTEGER, &[self.status])]), &stamp])
    }
}
