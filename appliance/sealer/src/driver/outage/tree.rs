//! Trees beside the log's own: over the checkpoints of a batch, and over the entries of an outage. rs_merkle, with the
//! hashing of RFC 9162, so that the strict verifier of `bulla_formats` reads what is built here.
//!
//! Refuses to do: verify; rs_merkle's own verification takes malformed proofs for good ones.
//! Invariant: memory is bounded by one group of leaves and one hash a group, whatever the outage has become.

use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, leaf_hash, node_hash};
use bulla_ledger::{ReadError, Reader};
use rs_merkle::{Hasher, MerkleTree};
use std::ops::Range;

/// Leaves whose tree is built at once: a power of two, so that the roots of groups are nodes of the whole tree.
const GROUP: u64 = 1 << 16;
/// Hashes in a full tile.
const TILE: u64 = 256;

/// Inner hashes of RFC 9162; leaves come hashed.
#[derive(Debug, Clone)]
struct Rfc9162;

impl Hasher for Rfc9162 {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        leaf_hash(data).0
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        right.map_or(*left, |right| node_hash(&Hash(*left), &Hash(*right)).0)
    }
}

/// A batch of checkpoint texts.
pub struct Batch {
    tree: MerkleTree<Rfc9162>,
    size: u64,
}

impl Batch {
    /// The batch of these texts, in this order.
    pub fn new(texts: &[String]) -> Self {
        let leaves: Vec<[u8; 32]> = texts.iter().map(|text| leaf_hash(text.as_bytes()).0).collect();
        Batch { tree: MerkleTree::from_leaves(&leaves), size: leaves.len() as u64 }
    }

    /// Its size and root.
    pub fn state(&self) -> TreeState {
        TreeState::new(self.size, Hash(self.tree.root().unwrap_or_default()))
    }

    /// The path of the text at `index`.
    pub fn path(&self, index: usize) -> Vec<Hash> {
        self.tree.proof(&[index]).proof_hashes().iter().map(|hash| Hash(*hash)).collect()
    }
}

/// Root over the leaf hashes of a range of entries, the first of them at index 0.
///
/// # Errors
/// They cannot be read.
pub fn range_root(reader: &Reader, range: Range<u64>) -> Result<Hash, ReadError> {
    let mut groups = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + GROUP);
        let leaves = leaves(reader, at..end)?;
        groups.extend(MerkleTree::<Rfc9162>::from_leaves(&leaves).root());
        at = end;
    }
    Ok(Hash(MerkleTree::<Rfc9162>::from_leaves(&groups).root().unwrap_or_default()))
}

fn leaves(reader: &Reader, range: Range<u64>) -> Result<Vec<[u8; 32]>, ReadError> {
    let size = reader.size();
    let mut leaves = Vec::with_capacity((range.end - range.start) as usize);
    let mut at = range.start;
    while at < range.end {
        let tile = at / TILE;
        let width = (size - tile * TILE).min(TILE);
        let bytes = reader.tile(0, tile, width as u16)?;
        let (first, last) = (at - tile * TILE, (range.end - tile * TILE).min(width));
        for hash in bytes.chunks_exact(32).take(last as usize).skip(first as usize) {
            leaves.push(hash.try_into().unwrap_or([0; 32]));
        }
        at = tile * TILE + last;
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::merkle::verify_inclusion;

    #[test]
    fn a_batch_is_a_tree_that_the_strict_verifier_reads() {
        for count in 1..40usize {
            let texts: Vec<String> = (0..count).map(|n| format!("log {n}\n{n}\nroot\n")).collect();
            let batch = Batch::new(&texts);
            let state = batch.state();
            for (index, text) in texts.iter().enumerate() {
                let path = batch.path(index);
                let leaf = leaf_hash(text.as_bytes());
                let led = verify_inclusion(index as u64, state.size, &leaf, &path, &state.root());
                assert_eq!(led, Ok(()), "{index} of {count}");
            }
        }
    }
}
