//! Object identifiers: those this crate knows, as the content bytes of their DER, and a type for the caller's.
//!
//! Refuses to do: identifiers that have no DER (one arc, a first arc above 2, arcs beyond 64 bits).
//! Invariant: an [`Oid`] is written and read as the same text.

use std::fmt;

pub(crate) const SIGNED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
pub(crate) const TST_INFO: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x04";
pub(crate) const CONTENT_TYPE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
pub(crate) const MESSAGE_DIGEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
/// RFC 2634: the certificate is named by a SHA-1 hash.
pub(crate) const SIGNING_CERTIFICATE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x0c";
/// RFC 5035, as RFC 5816 wants it here: with a hash of its own choice.
pub(crate) const SIGNING_CERTIFICATE_V2: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x2f";
pub(crate) const SHA256: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x01";
pub(crate) const SHA384: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x02";
pub(crate) const SHA512: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x03";
pub(crate) const RSA_ENCRYPTION: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
pub(crate) const MGF1: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08";
pub(crate) const RSASSA_PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
pub(crate) const RSA_SHA256: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
pub(crate) const RSA_SHA384: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c";
pub(crate) const RSA_SHA512: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d";
pub(crate) const ECDSA_SHA256: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
pub(crate) const ECDSA_SHA384: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x03";
pub(crate) const SUBJECT_KEY_IDENTIFIER: &[u8] = b"\x55\x1d\x0e";
pub(crate) const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
pub(crate) const SUBJECT_ALT_NAME: &[u8] = b"\x55\x1d\x11";
pub(crate) const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
pub(crate) const CRL_REASON: &[u8] = b"\x55\x1d\x15";
pub(crate) const DELTA_CRL_INDICATOR: &[u8] = b"\x55\x1d\x1b";
pub(crate) const ISSUING_DISTRIBUTION_POINT: &[u8] = b"\x55\x1d\x1c";
pub(crate) const CRL_DISTRIBUTION_POINTS: &[u8] = b"\x55\x1d\x1f";
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = b"\x55\x1d\x25";
pub(crate) const TIME_STAMPING: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x03\x08";

/// A text is no object identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no object identifier; it is numbers joined by dots, the first of them 0, 1 or 2, as in 1.3.6.1.4.1.13762.3"
)]
pub struct OidError(String);

/// An object identifier, such as that of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(Vec<u8>);

impl Oid {
    /// 2.25.207429650533366187514108207163938236371, from a UUID (ITU-T X.667): the policy of a box that stamps. Every token
    /// is a logged seal; its time is the box's, with the bound of its error that the token states.
    pub fn of_boxes() -> Self {
        Oid(b"\x69\x82\xb8\x8d\xbf\xd7\xc7\xb1\xd2\xba\x8d\xa2\xea\x9b\xe3\xb0\xe2\xe3\xcf\x53".to_vec())
    }

    /// Reads numbers joined by dots.
    pub fn parse(text: &str) -> Result<Self, OidError> {
        let bad = || OidError(text.chars().take(80).collect());
        let arc = |arc: &str| arc.parse::<u64>().ok().filter(|number| number.to_string() == arc);
        let arcs: Vec<u64> = text.split('.').map(arc).collect::<Option<_>>().ok_or_else(bad)?;
        let (&[first, second], rest) = arcs.split_first_chunk::<2>().ok_or_else(bad)?;
        if first > 2 || first < 2 && second > 39 {
            return Err(bad());
        }
        let joined = (first * 40).checked_add(second).ok_or_else(bad)?;
        let mut content = Vec::new();
        for number in [joined].iter().chain(rest) {
            let groups = (64 - number.leading_zeros()).div_ceil(7).max(1);
            for group in (0..groups).rev() {
                let more = if group > 0 { 0x80 } else { 0 };
                content.push((number >> (7 * group)) as u8 & 0x7f | more);
            }
        }
        Ok(Oid(content))
    }

    /// Of the content of a DER element that a reader has found well-formed.
    pub(crate) fn from_content(content: &[u8]) -> Self {
        Oid(content.to_vec())
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut number: u128 = 0;
        for byte in &self.0 {
            // Longer arcs than 128 bits (a UUID's) are nobody's policy; they saturate, for display alone.
            number = number.saturating_mul(128).saturating_add(u128::from(byte & 0x7f));
            if byte & 0x80 != 0 {
                continue;
            }
            if first {
                let top = (number / 40).min(2);
                write!(f, "{top}.{}", number - top * 40)?;
                first = false;
            } else {
                write!(f, ".{number}")?;
            }
            number = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_written_as_they_were_read() {
        for text in
            ["1.3.6.1.4.1.13762.3", "2.999.1", "0.4.0.2023.1.1", "2.5.29.37", "1.0", "2.18446744073709551535"]
        {
            assert_eq!(Oid::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Oid::of_boxes().to_string(), "2.25.207429650533366187514108207163938236371");
        assert_eq!(Oid::parse("1.2.840.113549.1.9.16.1.4").unwrap().content(), TST_INFO);
        assert_eq!(Oid::parse("2.16.840.1.101.3.4.2.1").unwrap().content(), SHA256);
        assert_eq!(Oid::parse("1.3.6.1.5.5.7.3.8").unwrap().content(), TIME_STAMPING);
        for bad in [
            "",
            "1",
            "3.1",
            "1.40",
            "1.2.",
            ".1.2",
            "1.02",
            "1.+2",
            "1.2.x",
            "1.2.99999999999999999999",
            "2.18446744073709551600",
        ] {
            assert!(Oid::parse(bad).is_err(), "{bad}");
        }
    }
}
