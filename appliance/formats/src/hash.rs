//! Hashes: the 32-byte SHA-256 value every structure refers to, and RFC 6962 tree hashing.
//!
//! Refuses to do: anything keyed, anything that reads the outside world.
//! Invariant: a leaf hash and a node hash can never be equal inputs (prefix 0x00 against 0x01).

use sha2::{Digest, Sha256};
use std::fmt;

/// A SHA-256 value, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Reads a hash from exactly 32 bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Hash)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// SHA-256 of the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Hash(hasher.finalize().into())
}

/// Leaf hash of an entry: SHA-256(0x00 || entry). RFC 6962 section 2.1.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0x00], entry])
}

/// Interior node: SHA-256(0x01 || left || right). RFC 6962 section 2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[0x01], &left.0, &right.0])
}

/// Root of the tree without entries: SHA-256 of the empty string. RFC 6962 section 2.1.
pub fn empty_root() -> Hash {
    sha256(&[])
}
