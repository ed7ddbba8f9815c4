//! Why TPM evidence was refused. Every variant names the field of the TPM structure that is at fault.
//!
//! All of them blame the evidence, never the reader: the bytes were cut, altered, made for another purpose, or made by
//! a key that does not qualify.

use thiserror::Error;

/// Refusal of a TPM structure or of the evidence in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The bytes end inside a field.
    #[error("TPM structure ends inside {field}")]
    Truncated {
        /// The field that could not be read whole.
        field: &'static str,
    },
    /// Bytes follow the structure.
    #[error("{bytes} bytes follow the {field}")]
    Trailing {
        /// The structure that had ended.
        field: &'static str,
        /// How many bytes follow.
        bytes: usize,
    },
    /// A length field is outside what the field allows.
    #[error("{field} has {found} bytes, allowed: {allowed}")]
    Size {
        /// The sized field.
        field: &'static str,
        /// The size found, in bytes.
        found: usize,
        /// The sizes allowed.
        allowed: &'static str,
    },
    /// A constant or algorithm identifier is not one that is accepted.
    #[error("{field} is {found:#x}, expected: {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// The number found.
        found: u64,
        /// What is accepted.
        expected: &'static str,
    },
    /// Attested data of another type than the caller asked for.
    #[error("type: the attestation is a {found}, expected a {expected}")]
    WrongType {
        /// The type asked for.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A value differs from what the caller says it must be.
    #[error("{field} is not the expected one")]
    Mismatch {
        /// The field that differs.
        field: &'static str,
    },
    /// A public area is not of the required kind.
    #[error("{field} of the key is wrong, required: {expected}")]
    Template {
        /// The field of the public area.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Coordinates that are no point of the curve.
    #[error("{field} is not a point of its curve")]
    Point {
        /// The field that holds the coordinates.
        field: &'static str,
    },
    /// The signature does not verify under the given key.
    #[error("signature: not made by this key over these bytes")]
    Signature,
}
