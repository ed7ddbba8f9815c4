//! Strict JSON and base64: packaging that has one reading.
//!
//! Refuses to do: accept duplicate member names, base64 with line breaks, missing padding or stray
//! bits, or text past the end. JSON here is untrusted packaging; what counts is inside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use std::fmt;

/// Why a JSON text or a base64 string is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or JSON with two readings.
    #[error("it is not strict JSON: {0}")]
    Malformed(String),
    /// Longer than the format allows.
    #[error("it is {length} bytes long, more than the {limit} the format allows")]
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not base64 in its only encoding.
    #[error("a value is not strict base64")]
    Base64,
}

/// Reads `bytes` as one JSON value without duplicate member names at any level.
pub fn parse(bytes: &[u8], limit: usize) -> Result<Value, JsonError> {
    if bytes.len() > limit {
        return Err(JsonError::TooLong { length: bytes.len(), limit });
    }
    let strict: Strict =
        serde_json::from_slice(bytes).map_err(|error| JsonError::Malformed(error.to_string()))?;
    Ok(strict.0)
}

/// Whether a value is an array whose items are all objects. Derived readers also take an array for an
/// object with the members in order; such a second spelling of one file is refused with this.
pub fn is_array_of_objects(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_object))
}

/// Standard alphabet, padded (RFC 4648 section 4).
pub fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The inverse of [`base64_encode`]; every other spelling of the same bytes is refused.
pub fn base64_decode(text: &str) -> Result<Vec<u8>, JsonError> {
    STANDARD.decode(text).map_err(|_| JsonError::Base64)
}

/// A hash in the one spelling of [`base64_encode`]; `None` for anything else.
pub(crate) fn base64_hash(text: &str) -> Option<[u8; 32]> {
    // The decoder asks for room for whole groups of three bytes.
    let mut room = [0; 33];
    let length = STANDARD.decode_slice(text, &mut room).ok()?;
    room[..length].try_into().ok()
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(Value::Number(value.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Strict, E> {
        Number::from_f64(value).map(|n| Strict(Value::Number(n))).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(Value::String(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Strict(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            match members.entry(name) {
                Entry::Vacant(free) => {
                    let Strict(value) = access.next_value()?;
                    free.insert(value);
                }
                Entry::Occupied(taken) => {
                    return Err(A::Error::custom(format!("member {:?} appears twice", taken.key())));
                }
            }
        }
        Ok(Strict(Value::Object(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readings_are_refused() {
        assert!(parse(br#"{"a":1,"b":{"c":[true,null,1.5,"x"]}}"#, 100).is_ok());
        for bad in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"a":{"b":1,"b":2}}"#,
            br#"{"a":1} x"#,
            br#"{"a":1"#,
            b"",
            b"\xff",
            br#"{"a":1,"\u0061":2}"#,
        ] {
            assert!(parse(bad, 100).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(parse(br#"{"a":1}"#, 6).is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes(), 1 << 20).is_err());
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(base64_decode("QUI=").unwrap(), b"AB");
        for bad in ["QUI", "QUJ=", "QU I=", "QUI=\n", "QUI==", "-_8="] {
            assert!(base64_decode(bad).is_err(), "{bad:?}");
        }
    }
}
