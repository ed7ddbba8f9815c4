//! Tokens as they leave: `TSTInfo` (RFC 3161, 2.4.2) in CMS SignedData (RFC 5652) of one signer, bound to its certificate
//! by ESSCertIDv2 (RFC 5816).
//!
//! Refuses to do: other signatures than ECDSA with SHA-256; more certificates than the signer's own (verifiers have the
//! CA above it as their root).
//! Invariant: the signed attributes are in the order that DER gives a SET OF.

use super::query::Query;
use crate::certificate;
use crate::der::{
    self, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, element, number_content,
};
use crate::oid::{self, Oid};
use crate::time;
use sha2::{Digest as _, Sha256};

/// Content of the extended key usage that a signer's certificate has, alone and critical: id-kp-timeStamping.
pub const TIME_STAMPING_PURPOSE: &[u8] = b"\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x08";

/// A certificate, as far as a responder has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    not_before_micros: u64,
    not_after_micros: u64,
}

impl Certificate {
    /// Reads a certificate; `None` when it is not X.509 version 3.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let read = certificate::Certificate::read(bytes).ok()?;
        Some(Certificate {
            der: bytes.to_vec(),
            issuer: read.issuer.to_vec(),
            serial: read.serial.to_vec(),
            not_before_micros: read.not_before_micros,
            not_after_micros: read.not_after_micros,
        })
    }

    /// Its DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// First and last second of its validity, since 1970.
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before_micros / time::SECOND, self.not_after_micros / time::SECOND)
    }

    /// Whether a stamp of this time could have its signature.
    pub fn is_valid_at(&self, unix_millis: u64) -> bool {
        let (first, last) = self.validity();
        (first..=last).contains(&(unix_millis / 1_000))
    }

    fn issuer_and_serial(&self, issuer: &[u8]) -> Vec<u8> {
        element(SEQUENCE, &[issuer, &element(INTEGER, &[&self.serial])])
    }

    /// `SigningCertificateV2` with the hash that is the default.
    fn signing_certificate(&self) -> Vec<u8> {
        let name = element(SEQUENCE, &[&element(der::context(4), &[&self.issuer])]);
        let hash = element(OCTET_STRING, &[&Sha256::digest(&self.der)]);
        let id = element(SEQUENCE, &[&hash, &self.issuer_and_serial(&name)]);
        element(SEQUENCE, &[&element(SEQUENCE, &[&id])])
    }
}

/// What a token says.
#[derive(Debug, Clone)]
pub struct Statement<'a> {
    /// The request it answers.
    pub query: &'a Query<'a>,
    /// Under which policy.
    pub policy: &'a Oid,
    /// Its number: 128 bits, never used twice.
    pub serial: u128,
    /// The time, Unix milliseconds.
    pub unix_millis: u64,
    /// How far the time may be off; `None`: not stated.
    pub accuracy_millis: Option<u64>,
}

impl Statement<'_> {
    /// DER of the TSTInfo. `ordering` is FALSE, which DER leaves out.
    fn encode(&self) -> Vec<u8> {
        let serial = self.serial.to_be_bytes();
        let first = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len() - 1);
        let zero: &[u8] = if serial[first] >= 0x80 { &[0] } else { &[] };
        let accuracy = self.accuracy_millis.map(accuracy);
        let nonce = self.query.nonce().map(|nonce| element(INTEGER, &[nonce]));
        element(
            SEQUENCE,
            &[
                &element(INTEGER, &[&[1]]),
                &element(OBJECT_IDENTIFIER, &[self.policy.content()]),
                self.query.imprint.raw(),
                &element(INTEGER, &[zero, &serial[first..]]),
                &element(GENERALIZED_TIME, &[time::to_stamp(self.unix_millis).as_bytes()]),
                accuracy.as_deref().unwrap_or_default(),
                nonce.as_deref().unwrap_or_default(),
            ],
        )
    }

    /// The token: DER of a ContentInfo. `sign` gives the DER of an ECDSA signature with SHA-256 over the bytes it gets.
    ///
    /// # Errors
    /// Those of `sign`.
    pub fn token<E>(
        &self,
        signer: &Certificate,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let content = self.encode();
        let oid_of = |content: &[u8]| element(OBJECT_IDENTIFIER, &[content]);
        let attribute =
            |kind: &[u8], value: &[u8]| element(SEQUENCE, &[&oid_of(kind), &element(SET, &[value])]);
        let mut attributes = [
            attribute(oid::CONTENT_TYPE, &oid_of(oid::TST_INFO)),
            attribute(oid::MESSAGE_DIGEST, &element(OCTET_STRING, &[&Sha256::digest(&content)])),
            attribute(oid::SIGNING_CERTIFICATE_V2, &signer.signing_certificate()),
        ];
        attributes.sort_unstable();
        let attributes = attributes.concat();
        // Signed as a SET OF; in the token the tag is another (RFC 5652, 5.4).
        let signature = sign(&element(SET, &[&attributes]))?;
        let sha256 = element(SEQUENCE, &[&oid_of(oid::SHA256)]);
        let signer_info = element(
            SEQUENCE,
            &[
                &element(INTEGER, &[&[1]]),
                &signer.issuer_and_serial(&signer.issuer),
                &sha256,
                &element(der::context(0), &[&attributes]),
                &element(SEQUENCE, &[&oid_of(oid::ECDSA_SHA256)]),
                &element(OCTET_STRING, &[&signature]),
            ],
        );
        let inside = element(der::context(0), &[&element(OCTET_STRING, &[&content])]);
        let certificates = self.query.certificates.then(|| element(der::context(0), &[&signer.der]));
        let signed = element(
            SEQUENCE,
            &[
                &element(INTEGER, &[&[3]]),
                &element(SET, &[&sha256]),
                &element(SEQUENCE, &[&oid_of(oid::TST_INFO), &inside]),
                certificates.as_deref().unwrap_or_default(),
                &element(SET, &[&signer_info]),
            ],
        );
        Ok(element(SEQUENCE, &[&oid_of(oid::SIGNED_DATA), &element(der::context(0), &[&signed])]))
    }
}

/// `Accuracy`: seconds and thousandths, each left out when it is none.
fn accuracy(millis: u64) -> Vec<u8> {
    let part = |tag: u8, number: u64| match number {
        0 => Vec::new(),
        number => element(tag, &[&number_content(number)]),
    };
    let seconds = part(INTEGER, millis / 1_000);
    element(SEQUENCE, &[&seconds, &part(der::context_primitive(0), millis % 1_000)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;
    use crate::tst_info::TstInfo;
    use proptest::prelude::*;

    fn statement<'a>(query: &'a Query<'a>, policy: &'a Oid) -> Statement<'a> {
        Statement { query, policy, serial: 7, unix_millis: 1_795_303_800_500, accuracy_millis: Some(1_250) }
    }

    #[test]
    fn a_statement_is_these_bytes() {
        let request = Request::new([0x11; 32], 0x80, None).encode();
        let (query, policy) = (Query::decode(&request).unwrap(), Oid::parse("1.2.3.4.1").unwrap());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(&statement(&query, &policy).encode()),
            format!(
                "305f020101 06042a030401 3031300d060960864801650304020105000420{} 020107 \
                 181132303236313132313233333030302e355a 300702010180 0200fa 02020080",
                "11".repeat(32)
            )
            .replace(' ', "")
        );
    }

    proptest! {
        #[test]
        fn what_is_stated_is_what_is_read(
            serial: u128,
            unix_millis in 0u64..253_402_300_800_000,
            accuracy in proptest::option::of(1u64..86_400_000),
            nonce: u64,
        ) {
            let request = Request::new([0x22; 32], nonce, None).encode();
            let (query, policy) = (Query::decode(&request).unwrap(), Oid::parse("2.999.1").unwrap());
            let said = Statement { query: &query, policy: &policy, serial, unix_millis, accuracy_millis: accuracy };
            let bytes = said.encode();
            let read = TstInfo::read(&bytes).unwrap();
            prop_assert_eq!(read.gen_time_micros, unix_millis * 1_000);
            prop_assert_eq!(read.accuracy_micros, accuracy.map(|millis| millis * 1_000));
            let digits = read.serial.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
            prop_assert_eq!((digits, read.imprint, read.policy), (serial, [0x22; 32], policy.content()));
            prop_assert_eq!(read.nonce, query.nonce());
        }
    }
}
