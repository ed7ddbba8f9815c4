//! Proofs against two foreign implementations, and every small damage refused.
//!
//! Goal: what the builders build is what RFC 9162 says (rs_merkle and tlog_tiles agree byte for byte), and the
//! verifiers accept exactly that: a proof with a flipped, missing or surplus hash, another index, another size or
//! another root is refused. Method: exhaustive over small trees, random over large ones.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

use bulla_formats::hash::{Hash, empty_root, leaf_hash, node_hash, sha256};
use bulla_formats::merkle::{
    self, BuildError, Frontier, HashReader, ProofError, consistency_proof, inclusion_proof,
    verify_consistency, verify_inclusion,
};
use proptest::prelude::*;
use std::convert::Infallible;

/// All complete subtrees of a tree, by level.
struct Tree(Vec<Vec<Hash>>);

impl Tree {
    fn new(leaves: u64) -> Self {
        let mut levels = vec![(0..leaves).map(leaf).collect::<Vec<_>>()];
        while levels[levels.len() - 1].len() > 1 {
            let below = &levels[levels.len() - 1];
            levels.push(below.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect());
        }
        Self(levels)
    }
}

impl HashReader for Tree {
    type Error = Infallible;
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        Ok(self.0[usize::from(level)][index as usize])
    }
}

fn leaf(index: u64) -> Hash {
    leaf_hash(&index.to_be_bytes())
}

fn root(size: u64, tree: &Tree) -> Hash {
    merkle::root(size, tree).unwrap()
}

#[derive(Clone)]
struct Rfc6962;
impl rs_merkle::Hasher for Rfc6962 {
    type Hash = [u8; 32];
    fn hash(data: &[u8]) -> [u8; 32] {
        sha256(&[data]).0
    }
    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        right.map_or(*left, |right| sha256(&[&[1], left, right]).0)
    }
}

/// tlog_tiles addresses stored hashes by one number.
impl tlog_tiles::HashReader for Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes
            .iter()
            .map(|index| {
                let (level, n) = tlog_tiles::split_stored_hash_index(*index);
                tlog_tiles::Hash(self.0[usize::from(level)][n as usize].0)
            })
            .collect())
    }
}

fn foreign(proof: Vec<tlog_tiles::Hash>) -> Vec<Hash> {
    proof.into_iter().map(|hash| Hash(hash.0)).collect()
}

/// Every proof that differs from `proof` by one flipped bit, one hash left out or one hash put in.
fn damaged(proof: &[Hash]) -> impl Iterator<Item = Vec<Hash>> + '_ {
    let flipped = (0..proof.len()).map(|at| {
        let mut bad = proof.to_vec();
        bad[at].0[at % 32] ^= 1 << (at % 8);
        bad
    });
    let removed = (0..proof.len()).map(|at| {
        let mut bad = proof.to_vec();
        bad.remove(at);
        bad
    });
    let added = (0..=proof.len()).flat_map(|at| {
        let duplicate = proof.get(at).copied().unwrap_or(Hash([0; 32]));
        [duplicate, Hash([7; 32])].map(|hash| {
            let mut bad = proof.to_vec();
            bad.insert(at, hash);
            bad
        })
    });
    flipped.chain(removed).chain(added)
}

#[test]
fn roots_and_inclusion_paths_are_those_of_rs_merkle_and_tlog_tiles() {
    let tree = Tree::new(300);
    assert_eq!(root(0, &tree), empty_root());
    let mut frontier = Frontier::new();
    assert_eq!(frontier.root(), empty_root());
    for size in 1..=300u64 {
        let leaves: Vec<[u8; 32]> = (0..size).map(|index| leaf(index).0).collect();
        let oracle = rs_merkle::MerkleTree::<Rfc6962>::from_leaves(&leaves);
        let expected = root(size, &tree);
        assert_eq!(oracle.root(), Some(expected.0), "size {size}");
        assert_eq!(tlog_tiles::tree_hash(size, &tree).unwrap().0, expected.0, "size {size}");
        frontier.append(leaf(size - 1));
        assert_eq!((frontier.size(), frontier.root()), (size, expected));
        for index in 0..size {
            let proof = inclusion_proof(index, size, &tree).unwrap();
            let theirs = oracle.proof(&[index as usize]);
            assert_eq!(theirs.proof_hashes(), proof.iter().map(|hash| hash.0).collect::<Vec<_>>());
            assert_eq!(foreign(tlog_tiles::prove_record(size, index, &tree).unwrap()), proof);
            assert_eq!(verify_inclusion(index, size, &leaf(index), &proof, &expected), Ok(()));
        }
    }
}

#[test]
fn g6_an_inclusion_proof_with_any_single_damage_is_refused() {
    let tree = Tree::new(301);
    for size in 1..=300u64 {
        let expected = root(size, &tree);
        for index in 0..size {
            let (hash, proof) = (leaf(index), inclusion_proof(index, size, &tree).unwrap());
            for bad in damaged(&proof) {
                assert!(verify_inclusion(index, size, &hash, &bad, &expected).is_err(), "{index}/{size}");
            }
            for other in [index ^ 1, index + 1, index.wrapping_sub(1), size - 1 - index, u64::MAX] {
                let accepted = verify_inclusion(other, size, &hash, &proof, &expected).is_ok();
                assert_eq!(accepted, other == index, "{index} as {other} of {size}");
            }
            assert!(verify_inclusion(index, size, &leaf(index + 1), &proof, &expected).is_err());
            assert!(verify_inclusion(index, size, &hash, &proof, &root(size + 1, &tree)).is_err());
            // Another size is refused under that size's own root, which is what a verifier holds then. (Under the
            // same root several sizes fit the same path; a checkpoint binds size and root together.)
            for other in [size - 1, size + 1] {
                let refused = verify_inclusion(index, other, &hash, &proof, &root(other, &tree)).is_err();
                assert!(refused || other == size, "{index} of {size} as of {other}");
            }
        }
        assert_eq!(
            inclusion_proof(size, size, &tree),
            Err(BuildError::Request(ProofError::OutOfRange { index: size, size }))
        );
    }
}

#[test]
fn g2_consistency_proofs_are_those_of_tlog_tiles_and_any_single_damage_is_refused() {
    let tree = Tree::new(131);
    for new in 0..=130u64 {
        let new_root = root(new, &tree);
        for old in 0..=new {
            let old_root = root(old, &tree);
            let proof = consistency_proof(old, new, &tree).unwrap();
            if old > 0 {
                assert_eq!(
                    foreign(tlog_tiles::prove_tree(new, old, &tree).unwrap()),
                    proof,
                    "{old} -> {new}"
                );
            }
            assert_eq!(verify_consistency(old, &old_root, new, &new_root, &proof), Ok(()), "{old} -> {new}");
            for bad in damaged(&proof) {
                assert!(verify_consistency(old, &old_root, new, &new_root, &bad).is_err(), "{old} -> {new}");
            }
            let wrong = Hash([9; 32]);
            assert!(verify_consistency(old, &wrong, new, &new_root, &proof).is_err(), "{old} -> {new}");
            // Nothing is claimed about the newer root when the older tree is empty.
            if old > 0 || new == 0 {
                assert!(verify_consistency(old, &old_root, new, &wrong, &proof).is_err(), "{old} -> {new}");
            }
            if old > 0 && old < new {
                for (other_old, other_new) in [(old + 1, new), (old - 1, new), (old, new + 1), (old, new - 1)]
                {
                    if other_old > other_new {
                        continue;
                    }
                    let (older, newer) = (root(other_old, &tree), root(other_new, &tree));
                    let verdict = verify_consistency(other_old, &older, other_new, &newer, &proof);
                    assert!(verdict.is_err(), "{old} -> {new} as {other_old} -> {other_new}");
                }
            }
        }
        let shrunk = verify_consistency(new + 1, &new_root, new, &new_root, &[]);
        assert_eq!(shrunk, Err(ProofError::Shrunk { old: new + 1, new }));
    }
}

#[test]
fn sizes_near_the_end_of_u64_neither_panic_nor_pass() {
    for (index, size) in
        [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX), (0, 0), (1 << 63, u64::MAX)]
    {
        for len in [0, 1, 63, 64, 65] {
            let proof = vec![Hash([1; 32]); len];
            assert!(verify_inclusion(index, size, &leaf(0), &proof, &Hash([2; 32])).is_err());
            assert!(verify_consistency(index, &leaf(0), size, &Hash([2; 32]), &proof).is_err());
        }
    }
}

#[test]
fn a_frontier_needs_one_peak_per_set_bit() {
    let mut frontier = Frontier::new();
    (0..77).for_each(|index| frontier.append(leaf(index)));
    assert_eq!(Frontier::from_peaks(77, frontier.peaks().to_vec()), Some(frontier.clone()));
    assert_eq!(Frontier::from_peaks(78, frontier.peaks()[1..].to_vec()), None);
    assert_eq!(Frontier::from_peaks(76, frontier.peaks().to_vec()), None);
}

#[test]
fn leaf_slices_are_readers_too() {
    let leaves: Vec<Hash> = (0..77).map(leaf).collect();
    let tree = Tree::new(77);
    assert_eq!(merkle::root(77, leaves.as_slice()).unwrap(), root(77, &tree));
    assert_eq!(inclusion_proof(40, 77, leaves.as_slice()).unwrap(), inclusion_proof(40, 77, &tree).unwrap());
    assert!(leaves.as_slice().subtree(0, 77).is_err());
    assert!(leaves.as_slice().subtree(64, 0).is_err());
    assert!(leaves.as_slice().subtree(6, 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn large_trees_agree_with_tlog_tiles(size in 1u64..70_000, pick in any::<u64>(), other in any::<u64>()) {
        let tree = Tree::new(size);
        let (index, old) = (pick % size, other % size + 1);
        let expected = root(size, &tree);
        prop_assert_eq!(tlog_tiles::tree_hash(size, &tree).unwrap().0, expected.0);
        let proof = inclusion_proof(index, size, &tree).unwrap();
        prop_assert_eq!(&foreign(tlog_tiles::prove_record(size, index, &tree).unwrap()), &proof);
        prop_assert_eq!(verify_inclusion(index, size, &leaf(index), &proof, &expected), Ok(()));
        let proof = consistency_proof(old, size, &tree).unwrap();
        prop_assert_eq!(&foreign(tlog_tiles::prove_tree(size, old, &tree).unwrap()), &proof);
        prop_assert_eq!(verify_consistency(old, &root(old, &tree), size, &expected, &proof), Ok(()));
    }

    #[test]
    fn random_proofs_never_panic(old in any::<u64>(), new in any::<u64>(), len in 0usize..70) {
        let proof = vec![Hash([3; 32]); len];
        prop_assert!(verify_inclusion(old, new, &leaf(1), &proof, &leaf(2)).is_err());
        prop_assert!(verify_consistency(old, &leaf(1), new, &leaf(2), &proof).is_err());
    }
}
