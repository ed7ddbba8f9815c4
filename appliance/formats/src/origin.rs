//! Origin: the name of a log, derived from the fleet and the TPM, never chosen.
//!
//! `<fleet domain>/<box id>/<incarnation>`; the same text is the name of the log key (C2SP
//! signed-note) and the first line of every checkpoint.
//! Refuses to do: accept names that a signed note could not carry, or two spellings of one origin.

use crate::hash::{Hash, sha256};
use crate::sig::label;
use std::fmt;

/// Longest origin in bytes (a C2SP cosignature carries it with a one-byte length).
pub const ORIGIN_BYTES_MAX: usize = 255;

/// A parsed log origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    text: String,
    fleet_bytes: usize,
    incarnation: u64,
}

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The fleet domain is not a lower-case DNS name.
    #[error("the fleet domain {0:?} is not a lower-case DNS name of at most 150 characters")]
    Fleet(String),
    /// The text does not have the three parts of an origin.
    #[error("{0:?} is not an origin (<fleet domain>/<40 hex digits>/<number>)")]
    Shape(String),
}

/// The identity of a box in a fleet: the first 20 bytes, in lower-case hex, of
/// SHA-256("bulla/box-id/v1" || 0x00 || uint16 BE length of fleet || fleet || SHA-256 of the EK's
/// SubjectPublicKeyInfo).
pub fn box_id(fleet: &str, ek_spki_sha256: &Hash) -> String {
    let length = (fleet.len() as u16).to_be_bytes();
    let hash = sha256(&[label::BOX_ID.as_bytes(), &[0], &length, fleet.as_bytes(), &ek_spki_sha256.0]);
    hex::encode(&hash.0[..20])
}

/// Checks a fleet domain: dot-separated labels of `a-z 0-9 -`, 1 to 150 characters.
pub fn check_fleet(fleet: &str) -> Result<(), OriginError> {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if fleet.len() <= 150 && fleet.split('.').all(label_ok) {
        Ok(())
    } else {
        Err(OriginError::Fleet(fleet.chars().take(ORIGIN_BYTES_MAX).collect()))
    }
}

impl Origin {
    /// The origin of the `incarnation`-th log of the box whose EK has this hash.
    pub fn derive(fleet: &str, ek_spki_sha256: &Hash, incarnation: u64) -> Result<Self, OriginError> {
        check_fleet(fleet)?;
        let text = format!("{fleet}/{}/{incarnation}", box_id(fleet, ek_spki_sha256));
        Ok(Origin { text, fleet_bytes: fleet.len(), incarnation })
    }

    /// Reads an origin in its only spelling.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let shape = || OriginError::Shape(text.chars().take(ORIGIN_BYTES_MAX).collect());
        if text.len() > ORIGIN_BYTES_MAX {
            return Err(shape());
        }
        let mut parts = text.split('/');
        let (Some(fleet), Some(id), Some(number), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(shape());
        };
        check_fleet(fleet)?;
        let hex_ok = id.len() == 40 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let incarnation: u64 = number.parse().map_err(|_| shape())?;
        if !hex_ok || incarnation.to_string() != number {
            return Err(shape());
        }
        Ok(Origin { text: text.to_owned(), fleet_bytes: fleet.len(), incarnation })
    }

    /// The whole origin.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The fleet domain.
    pub fn fleet(&self) -> &str {
        &self.text[..self.fleet_bytes]
    }

    /// The box id (40 hex digits).
    pub fn box_id(&self) -> &str {
        &self.text[self.fleet_bytes + 1..self.fleet_bytes + 41]
    }

    /// Which log of this box this is; on a TPM, the value of its counter when the log was created.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether this origin belongs to `fleet` and to the box whose EK has this hash.
    pub fn belongs_to(&self, fleet: &str, ek_spki_sha256: &Hash) -> bool {
        self.fleet() == fleet && self.box_id() == box_id(fleet, ek_spki_sha256)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
