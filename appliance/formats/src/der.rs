//! Strict DER: what is read must be exactly what would have been written.
//!
//! Refuses to do: BER leniency, trailing bytes, non-minimal lengths, unknown fields. Rather than
//! trusting a decoder to be strict everywhere, every decoded value is encoded again and compared.
//! Invariant: `decode(b) == Ok(v)` implies `encode(&v) == b`.

use rasn::types::FixedOctetString;
use rasn::{Decode, Encode};

/// A 32-byte OCTET STRING; any other length does not decode.
pub type Octets32 = FixedOctetString<32>;

/// Why bytes are not the DER of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    /// The bytes do not parse as the named type.
    #[error("{what} is not valid DER of its type: {reason}")]
    Malformed {
        /// Which structure was expected.
        what: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// The bytes parse, but are not the one encoding DER permits (or carry trailing bytes).
    #[error("{what} is not in its only permitted encoding")]
    NotCanonical {
        /// Which structure was expected.
        what: &'static str,
    },
    /// The bytes are longer than the format allows.
    #[error("{what} is {length} bytes long, more than the {limit} the format allows")]
    TooLong {
        /// Which structure was expected.
        what: &'static str,
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A value is outside the range the format allows.
    #[error("{what}: {reason}")]
    Range {
        /// Which structure was expected.
        what: &'static str,
        /// Which value, and what is allowed.
        reason: &'static str,
    },
}

/// Decodes `bytes` as `T`, refusing everything that does not encode back identically.
pub fn decode<T: Decode + Encode>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, DerError> {
    if bytes.len() > limit {
        return Err(DerError::TooLong { what, length: bytes.len(), limit });
    }
    let value: T = rasn::der::decode(bytes)
        .map_err(|error| DerError::Malformed { what, reason: error.kind.to_string() })?;
    if encode(&value) != bytes {
        return Err(DerError::NotCanonical { what });
    }
    Ok(value)
}

/// The first element inside `sequence`, header and all; both in DER. `None` when they are cut short.
pub fn first_element(sequence: &[u8]) -> Option<&[u8]> {
    let (header, length) = header(sequence)?;
    let inside = sequence.get(header..header.checked_add(length)?)?;
    let (header, length) = self::header(inside)?;
    inside.get(..header.checked_add(length)?)
}

/// Bytes of the header of an element with a tag of one byte, and bytes of its content.
fn header(element: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*element.get(1)?);
    if first < 0x80 {
        return Some((2, first));
    }
    let digits = element.get(2..2 + (first & 0x7f))?;
    let length = digits
        .iter()
        .try_fold(0usize, |length, digit| Some(length.checked_mul(256)? | usize::from(*digit)))?;
    Some((2 + digits.len(), length))
}

/// Encodes `value` as DER.
///
/// # Panics
/// Never for the types of this crate: their only failure would be a constraint that a decoded or
/// constructed value has already met.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    rasn::der::encode(value).expect("the types of this crate have no unencodable value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_is_found_whatever_the_lengths() {
        for (first, second) in [(0, 0), (1, 300), (127, 1), (128, 128), (255, 0), (256, 7), (70_000, 3)] {
            let parts: Vec<rasn::types::OctetString> = vec![vec![7; first].into(), vec![8; second].into()];
            let whole = encode(&parts);
            assert_eq!(first_element(&whole), Some(&encode(&parts[0])[..]), "{first} bytes");
            assert_eq!(first_element(&whole[..whole.len() - 1]), None);
        }
        for bad in [&b""[..], b"\x30", b"\x30\x01", b"\x30\x00", b"\x30\x81", b"\x30\x03\x04\x02\x00"] {
            assert_eq!(first_element(bad), None, "{bad:?}");
        }
        assert_eq!(first_element(&[&[0x30, 0x89][..], &[0xff; 9]].concat()), None);
    }
}
