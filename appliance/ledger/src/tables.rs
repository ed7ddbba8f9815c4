//! The tables of a segment and the bytes of their rows. A table's name carries the version of its rows.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries-2` | see [`crate::entry_rows`] | the entry, and with it its digest and its request |
//! | `tiles-3` | see [`crate::tile_rows`] | full tiles, stored in the segment that holds their last leaf |
//! | `digests-2` | algorithm 1, digest 8, index u64 BE | nothing; sorted, written once when the segment closes |
//! | `meta-1` | `header`, `head` | [`Header`], [`Head`] |
//!
//! Refuses: rows of any other length or version; a segment of an earlier header version.
//! Invariants: integers are big-endian; entries, header and head are ground truth, the rest is derived from them or
//! bound to them, so that a request which belongs to another entry cannot pass.

use crate::edge::Edge;
use bulla_formats::hash::{Hash, sha256};
use redb::TableDefinition;
use std::borrow::Cow;

pub(crate) const DIGESTS: TableDefinition<&[u8; SORTED_DIGEST_BYTES], ()> = TableDefinition::new("digests-2");
pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta-1");

pub(crate) const HEADER: &str = "header";
pub(crate) const HEAD: &str = "head";

/// Version of the header row, and with it of the whole segment file.
const HEADER_VERSION: u16 = 3;
/// Bytes of a hash in a [`Request`].
pub(crate) const REQUEST_HASH_BYTES: usize = 16;
const BINDING_BYTES: usize = 8;
/// Bytes of a request beside its entry.
pub(crate) const REQUEST_BYTES: usize = 2 * REQUEST_HASH_BYTES + BINDING_BYTES;
/// Bytes of a digest that a [`DigestKey`] keeps. They find the candidates; the entry itself decides.
const DIGEST_PREFIX_BYTES: usize = 8;
pub(crate) const DIGEST_KEY_BYTES: usize = 1 + DIGEST_PREFIX_BYTES;
/// A document digest as it is kept beside its entry and in the sorted table.
pub(crate) type DigestKey = [u8; DIGEST_KEY_BYTES];
/// A digest and the entry that has it: the order of the sorted table.
pub(crate) type DigestRow = (DigestKey, u64);
/// Bytes of a `digests-2` key.
pub(crate) const SORTED_DIGEST_BYTES: usize = DIGEST_KEY_BYTES + 8;
/// Domain label of a request's binding.
const REQUEST_BINDING: &[u8] = b"bulla/request-row/v2\0";

/// First row of a segment: whose log, from which index on, on top of which tree.
/// The right edge lets a segment be opened without reading the ones before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) origin: String,
    pub(crate) root: Hash,
    pub(crate) edge: Edge,
}

impl Header {
    pub(crate) fn first(&self) -> u64 {
        self.edge.size()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER_VERSION.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(self.origin.len() as u32).to_be_bytes());
        bytes.extend_from_slice(self.origin.as_bytes());
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(&self.edge.to_bytes());
        bytes
    }

    /// Refuses other versions, trailing bytes and an edge that does not have the stated root.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Cow<'static, str>> {
        const SHORT: &str = "the segment header is cut short";
        let (version, rest) = bytes.split_first_chunk::<2>().ok_or(SHORT)?;
        let version = u16::from_be_bytes(*version);
        if version != HEADER_VERSION {
            return Err(format!(
                "its layout is version {version}, and this program knows none but {HEADER_VERSION}: the version of the \
                 program that wrote it reads it"
            )
            .into());
        }
        let (origin_len, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let (origin, rest) = rest.split_at_checked(u32::from_be_bytes(*origin_len) as usize).ok_or(SHORT)?;
        let origin = std::str::from_utf8(origin).map_err(|_| "the origin is not UTF-8")?.to_owned();
        let (root, rest) = rest.split_first_chunk::<32>().ok_or(SHORT)?;
        let edge = Edge::parse(rest).ok_or("the right edge in the segment header is malformed")?;
        let root = Hash(*root);
        if edge.root() != root {
            return Err("the right edge in the segment header does not have the root stated beside it".into());
        }
        Ok(Self { origin, root, edge })
    }
}

/// Last row of a segment: the tree after its last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    /// First index of the last batch; equals `size` in a segment without entries.
    pub(crate) batch_first: u64,
}

impl Head {
    pub(crate) fn to_bytes(self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&self.size.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.root.0);
        bytes[40..].copy_from_slice(&self.batch_first.to_be_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (root, rest) = rest.split_first_chunk::<32>()?;
        let batch_first = u64::from_be_bytes(rest.try_into().ok()?);
        Some(Self { size: u64::from_be_bytes(*size), root: Hash(*root), batch_first })
    }
}

/// Half a SHA-256: who makes two requests collide, at the cost of 2^64 hashes, gets the answer to his own other one.
pub type RequestHash = [u8; REQUEST_HASH_BYTES];

/// What makes a request the same request: the idempotency key as hashed by the caller, and what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Hash of the client's identity and its idempotency key.
    pub key: RequestHash,
    /// Hash of the request; another fingerprint under the same key is another request.
    pub fingerprint: RequestHash,
}

impl Request {
    /// The request whose key and content have these hashes; half of each is kept.
    pub fn new(key: &Hash, fingerprint: &Hash) -> Self {
        let half = |hash: &Hash| -> RequestHash { std::array::from_fn(|at| hash.0[at]) };
        Self { key: half(key), fingerprint: half(fingerprint) }
    }

    /// What stands beside the entry, bound to it: what was moved there from another entry, or has changed, is told from
    /// what is true.
    pub(crate) fn to_row(self, index: u64, leaf: &Hash) -> [u8; REQUEST_BYTES] {
        let binding = sha256(&[REQUEST_BINDING, &index.to_be_bytes(), &leaf.0, &self.key, &self.fingerprint]);
        let mut row = [0; REQUEST_BYTES];
        row[..REQUEST_HASH_BYTES].copy_from_slice(&self.key);
        row[REQUEST_HASH_BYTES..][..REQUEST_HASH_BYTES].copy_from_slice(&self.fingerprint);
        row[2 * REQUEST_HASH_BYTES..].copy_from_slice(&binding.0[..BINDING_BYTES]);
        row
    }

    /// Key and fingerprint of what was checked when it was loaded.
    pub(crate) fn from_row(row: &[u8; REQUEST_BYTES]) -> Self {
        let (mut key, mut fingerprint) = ([0; REQUEST_HASH_BYTES], [0; REQUEST_HASH_BYTES]);
        key.copy_from_slice(&row[..REQUEST_HASH_BYTES]);
        fingerprint.copy_from_slice(&row[REQUEST_HASH_BYTES..][..REQUEST_HASH_BYTES]);
        Self { key, fingerprint }
    }

    /// The request, if it was written for this entry at this index.
    pub(crate) fn check_row(row: &[u8; REQUEST_BYTES], index: u64, leaf: &Hash) -> Option<Self> {
        let request = Self::from_row(row);
        (request.to_row(index, leaf) == *row).then_some(request)
    }
}

/// Truncated document digest. `None` unless the digest has 32 to 64 bytes.
pub(crate) fn digest_key(algorithm: u8, digest: &[u8]) -> Option<DigestKey> {
    if !(32..=64).contains(&digest.len()) {
        return None;
    }
    let mut key = [algorithm; DIGEST_KEY_BYTES];
    key[1..].copy_from_slice(&digest[..DIGEST_PREFIX_BYTES]);
    Some(key)
}

/// Key of the sorted digest table.
pub(crate) fn sorted_digest(key: &DigestKey, index: u64) -> [u8; SORTED_DIGEST_BYTES] {
    let mut row = [0; SORTED_DIGEST_BYTES];
    row[..DIGEST_KEY_BYTES].copy_from_slice(key);
    row[DIGEST_KEY_BYTES..].copy_from_slice(&index.to_be_bytes());
    row
}

/// Splits a key of the sorted digest table.
pub(crate) fn split_sorted_digest(row: &[u8; SORTED_DIGEST_BYTES]) -> DigestRow {
    let (mut key, mut index) = ([0; DIGEST_KEY_BYTES], [0; 8]);
    key.copy_from_slice(&row[..DIGEST_KEY_BYTES]);
    index.copy_from_slice(&row[DIGEST_KEY_BYTES..]);
    (key, u64::from_be_bytes(index))
}
