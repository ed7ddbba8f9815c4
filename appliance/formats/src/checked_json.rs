//! Small JSON files that a box keeps for itself, with a checksum over every byte: a disk that changes one bit of a
//! role, a name or a key must not be believed.
//!
//! The file is one JSON object whose last member is `sha256`: the SHA-256 (64 lower-case hex digits) of every byte
//! before its own first digit. What follows the digits is fixed. So every byte of the file is accounted for, and it
//! still is plain JSON.
//!
//! Refuses to do: protect against whoever may write the file; this is about rot, not about tampering.
//! Invariant: [`body`] gives back exactly what [`with_checksum`] was given, up to the white space at its end.

use crate::hash::sha256;

const MEMBER: &str = ",\n  \"sha256\": \"";
const END: &str = "\"\n}\n";
const DIGITS: usize = 64;

/// Why a file is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumError {
    /// The last member is no checksum.
    #[error("it does not end in its checksum: it is damaged, or an early development version wrote it")]
    Missing,
    /// The bytes are not those that were written.
    #[error("its checksum is not that of its bytes: it was damaged, or edited by hand")]
    Wrong,
}

/// The file that holds `object`, the text of one JSON object with at least one member.
pub fn with_checksum(object: &str) -> String {
    let head = object.trim_end();
    let head = head.strip_suffix('}').unwrap_or(head).trim_end();
    let mut text = String::with_capacity(head.len() + MEMBER.len() + DIGITS + END.len());
    text.push_str(head);
    text.push_str(MEMBER);
    let checksum = sha256(&[text.as_bytes()]).to_string();
    text.push_str(&checksum);
    text.push_str(END);
    text
}

/// The object in a file, without the checksum, when the file is as it was written.
pub fn body(file: &[u8]) -> Result<Vec<u8>, ChecksumError> {
    let rest = file.strip_suffix(END.as_bytes()).ok_or(ChecksumError::Missing)?;
    let at = rest.len().checked_sub(DIGITS).ok_or(ChecksumError::Missing)?;
    let (covered, digits) = rest.split_at(at);
    let object = covered.strip_suffix(MEMBER.as_bytes()).ok_or(ChecksumError::Missing)?;
    if sha256(&[covered]).to_string().as_bytes() != digits {
        return Err(ChecksumError::Wrong);
    }
    // Exactly as long as needed: no copy of a secret stays behind in a buffer that has grown.
    let mut bytes = Vec::with_capacity(object.len() + 2);
    bytes.extend_from_slice(object);
    bytes.extend_from_slice(b"\n}");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let object = "{\n  \"bulla\": \"clients/v2\",\n  \"role\": \"scanner\"\n}";
        let file = with_checksum(object).into_bytes();
        assert_eq!(body(&file).unwrap(), object.as_bytes());
        for bit in 0..file.len() * 8 {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(body(&changed).is_err(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(body(&file[..length]).is_err(), "{length}");
        }
        assert!(body(&[file.as_slice(), b"\n"].concat()).is_err());
        assert_eq!(body(object.as_bytes()), Err(ChecksumError::Missing));
        assert!(serde_json::from_slice::<serde_json::Value>(&file).unwrap()["sha256"].is_string());
    }
}
