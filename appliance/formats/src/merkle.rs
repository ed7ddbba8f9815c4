//! The Merkle tree of RFC 6962 / RFC 9162 section 2.1: roots, proofs, strict verification, the frontier.
//!
//! Refuses: proofs of the wrong length (a missing or a surplus hash), indexes at or past the size, sizes that
//! shrink, and sizes for which the RFC defines no proof but some hashes came along.
//!
//! Invariants:
//! - A verifier reads every hash of a proof exactly once, so no bytes of an accepted proof are unexplained.
//! - The number of hashes is a function of the two integers alone; it is checked before anything is hashed.
//! - Builders ask only for *complete* subtrees, so a full tile never changes what it answers.
//!
//! Own verification, because rs_merkle's accepts surplus hashes and wrong leaf counts; it and `tlog_tiles` are
//! the test oracles for building.

use crate::hash::{Hash, empty_root, node_hash};
use thiserror::Error;

/// Where builders get hashes from: the hash of the complete subtree over leaves
/// `[index << level, (index + 1) << level)`. Level 0 is the leaf hashes themselves.
pub trait HashReader {
    /// Why a hash could not be had.
    type Error;
    /// The hash of that subtree. Only asked for subtrees that lie wholly inside the tree.
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

impl<R: HashReader + ?Sized> HashReader for &R {
    type Error = R::Error;
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
        (**self).subtree(level, index)
    }
}

/// Leaf hashes in memory as a reader; recomputes inner nodes, so for small trees (a manifest, a batch).
impl HashReader for [Hash] {
    type Error = ProofError;
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, ProofError> {
        let outside = || ProofError::OutOfRange { index, size: self.len() as u64 };
        let width = 1u64.checked_shl(u32::from(level)).ok_or_else(outside)?;
        let first = index.checked_mul(width).ok_or_else(outside)?;
        let end = first.checked_add(width).filter(|end| *end <= self.len() as u64).ok_or_else(outside)?;
        let mut row = self[first as usize..end as usize].to_vec();
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        Ok(row[0])
    }
}

/// Why a proof was refused. Always the fault of whoever made the proof or the statement it is checked against.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The leaf is not in a tree of that size.
    #[error(
        "leaf index {index} is outside a tree of {size} leaves; the proof and the checkpoint do not belong together"
    )]
    OutOfRange {
        /// Leaf (or subtree) index asked for.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// A log only grows: the newer tree is smaller than the older.
    #[error("tree size {new} is smaller than the earlier size {old}; an append-only log cannot shrink")]
    Shrunk {
        /// Size claimed first.
        old: u64,
        /// Size claimed later.
        new: u64,
    },
    /// A hash is missing from the proof or one too many is in it.
    #[error("the proof has {found} hashes where these sizes need exactly {expected}")]
    Length {
        /// Hashes that the two integers call for.
        expected: usize,
        /// Hashes found.
        found: usize,
    },
    /// The hashes do not lead to the root: something was altered, or the proof is for another leaf or tree.
    #[error("the proof does not lead to the stated root of the tree of {size} leaves")]
    RootMismatch {
        /// Size of the tree whose root was missed.
        size: u64,
    },
}

/// Why a proof could not be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BuildError<E> {
    /// The caller asked for something that no tree of that size has.
    #[error(transparent)]
    Request(ProofError),
    /// The reader failed.
    #[error(transparent)]
    Reader(E),
}

/// Root of the first `size` leaves. The root of an empty tree is SHA-256 of the empty string.
pub fn root<R: HashReader + ?Sized>(size: u64, reader: &R) -> Result<Hash, R::Error> {
    if size == 0 { Ok(empty_root()) } else { range_hash(0, size, reader) }
}

/// Inclusion proof of leaf `index` in the tree of `size` leaves, leaf side first. RFC 9162 section 2.1.3.1.
pub fn inclusion_proof<R: HashReader + ?Sized>(
    index: u64,
    size: u64,
    reader: &R,
) -> Result<Vec<Hash>, BuildError<R::Error>> {
    if index >= size {
        return Err(BuildError::Request(ProofError::OutOfRange { index, size }));
    }
    let mut proof = Vec::with_capacity(inclusion_proof_len(index, size));
    let (mut first, mut end) = (0, size);
    while end - first > 1 {
        let split = first + largest_power_below(end - first);
        if index < split {
            proof.push(range_hash(split, end, reader).map_err(BuildError::Reader)?);
            end = split;
        } else {
            proof.push(range_hash(first, split, reader).map_err(BuildError::Reader)?);
            first = split;
        }
    }
    // The walk went root to leaf; the RFC lists the leaf's sibling first.
    proof.reverse();
    Ok(proof)
}

/// Consistency proof between the trees of `old` and `new` leaves. RFC 9162 section 2.1.4.1.
/// Empty when the sizes are equal and when `old` is 0: then there is nothing to prove.
pub fn consistency_proof<R: HashReader + ?Sized>(
    old: u64,
    new: u64,
    reader: &R,
) -> Result<Vec<Hash>, BuildError<R::Error>> {
    if old > new {
        return Err(BuildError::Request(ProofError::Shrunk { old, new }));
    }
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    let (mut first, mut end) = (0, new);
    while end != old {
        let split = first + largest_power_below(end - first);
        if old <= split {
            proof.push(range_hash(split, end, reader).map_err(BuildError::Reader)?);
            end = split;
        } else {
            proof.push(range_hash(first, split, reader).map_err(BuildError::Reader)?);
            first = split;
        }
    }
    // When the walk ends at leaf 0 the subtree *is* the old tree, whose root the verifier already holds.
    if first != 0 {
        proof.push(range_hash(first, end, reader).map_err(BuildError::Reader)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the leaf is at `index` in the tree `(size, root)`. RFC 9162 section 2.1.3.2.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf_hash: &Hash,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { index, size });
    }
    expect_len(inclusion_proof_len(index, size), proof)?;
    let (mut fnode, mut snode) = (index, size - 1);
    let mut hash = *leaf_hash;
    for sibling in proof {
        if fnode & 1 == 1 || fnode == snode {
            hash = node_hash(sibling, &hash);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    if snode == 0 && hash == *root { Ok(()) } else { Err(ProofError::RootMismatch { size }) }
}

/// Checks that the tree `(new, new_root)` extends the tree `(old, old_root)`. RFC 9162 section 2.1.4.2.
/// `old` = 0 is accepted only with the empty tree's root and no hashes; equal sizes only with equal roots.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    expect_len(consistency_proof_len(old, new), proof)?;
    if new == 0 && *new_root != empty_root() {
        return Err(ProofError::RootMismatch { size: 0 });
    }
    if old == 0 {
        return if *old_root == empty_root() { Ok(()) } else { Err(ProofError::RootMismatch { size: 0 }) };
    }
    if old == new {
        return if old_root == new_root { Ok(()) } else { Err(ProofError::RootMismatch { size: new }) };
    }
    // A power of two is one complete subtree: the RFC leaves its root out of the proof, the verifier has it.
    let (start, rest) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (start, rest) = proof.split_first().ok_or(ProofError::Length { expected: 1, found: 0 })?;
        (*start, rest)
    };
    let (mut fnode, mut snode) = (old - 1, new - 1);
    while fnode & 1 == 1 {
        fnode >>= 1;
        snode >>= 1;
    }
    let (mut old_hash, mut new_hash) = (start, start);
    for sibling in rest {
        if snode == 0 {
            return Err(ProofError::RootMismatch { size: new });
        }
        if fnode & 1 == 1 || fnode == snode {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    if old_hash != *old_root {
        return Err(ProofError::RootMismatch { size: old });
    }
    if snode != 0 || new_hash != *new_root {
        return Err(ProofError::RootMismatch { size: new });
    }
    Ok(())
}

/// The compact right edge: the roots of the complete subtrees that make up a tree, widest first.
/// Enough to append and to name the root; at most 64 hashes whatever the size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rebuilds a frontier from its size and peaks (widest first); `None` unless there is exactly one peak per
    /// bit that is set in `size`.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// Adds one leaf hash at index `size()`. Amortised one node hash.
    pub fn append(&mut self, leaf_hash: Hash) {
        let mut hash = leaf_hash;
        // Each trailing one bit of the old size is a peak of the same width that the carry merges with.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, widest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(smallest) = peaks.next() else { return empty_root() };
        peaks.fold(*smallest, |right, left| node_hash(left, &right))
    }
}

/// Hashes in an inclusion proof: one per level where the leaf's path has a sibling. Needs `index < size`.
fn inclusion_proof_len(index: u64, size: u64) -> usize {
    // Below the point where the paths to the leaf and to the last leaf part, every level has a sibling;
    // above it only those where the path is a right child have one.
    let inner = 64 - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner + border) as usize
}

/// Hashes in a consistency proof: the inclusion path of the old tree's last complete subtree, and that
/// subtree's own hash unless it is the whole old tree.
fn consistency_proof_len(old: u64, new: u64) -> usize {
    if old == 0 || old >= new {
        return 0;
    }
    let level = old.trailing_zeros();
    let path = inclusion_proof_len((old - 1) >> level, ((new - 1) >> level) + 1);
    path + usize::from(!old.is_power_of_two())
}

fn expect_len(expected: usize, proof: &[Hash]) -> Result<(), ProofError> {
    if proof.len() == expected { Ok(()) } else { Err(ProofError::Length { expected, found: proof.len() }) }
}

/// Largest power of two strictly below `n`; `n` is at least 2. RFC 9162's `k`.
fn largest_power_below(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// Hash of leaves `[first, end)`, where `first` is a multiple of a power of two that is not below `end - first`,
/// as every range that the RFC's splitting produces is.
fn range_hash<R: HashReader + ?Sized>(first: u64, end: u64, reader: &R) -> Result<Hash, R::Error> {
    let width = end - first;
    if width.is_power_of_two() {
        let level = width.trailing_zeros();
        return reader.subtree(level as u8, first >> level);
    }
    let split = first + largest_power_below(width);
    let left = range_hash(first, split, reader)?;
    let right = range_hash(split, end, reader)?;
    Ok(node_hash(&left, &right))
}
