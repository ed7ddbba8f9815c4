//! Trees and tiles: proofs, frontiers, tiles and entry bundles, against the definitions of RFC 9162 written out; and the
//! names of things (`names.rs`).
//!
//! Holds: proofs built here verify, and no other hashes do; a frontier has the definition's root; bundles and tiles
//! are read back as they were written.

use super::{seed, split};
use crate::names;
use bulla_formats::hash::{Hash, empty_root, node_hash};
use bulla_formats::merkle::{
    Frontier, consistency_proof, inclusion_proof, root, verify_consistency, verify_inclusion,
};
use bulla_formats::tile::{TILE_WIDTH, full_tile_root, parse_entries, parse_hashes, push_entry, width_at};

const CHOICES: u8 = 6;
const LEAVES_MAX: u8 = 70;

/// The root of RFC 9162 section 2.1.1, word for word.
fn defined_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&defined_root(left), &defined_root(right))
        }
    }
}

fn leaves(count: u8) -> Vec<Hash> {
    (0..count).map(|leaf| Hash([leaf; 32])).collect()
}

/// `proof` as the input changes it: each triple is a hash, a byte in it, and what is added; or one more or less.
fn changed(proof: &[Hash], data: &[u8]) -> Vec<Hash> {
    let mut proof = proof.to_vec();
    for change in data.chunks_exact(3) {
        let length = proof.len();
        match (change[0], length) {
            (0xff, _) => proof.push(Hash([change[1]; 32])),
            (0xfe, 1..) => drop(proof.pop()),
            (at, 1..) => {
                let byte = &mut proof[usize::from(at) % length].0[usize::from(change[1]) % 32];
                *byte = byte.wrapping_add(change[2]);
            }
            (_, 0) => {}
        }
    }
    proof
}

fn inclusion(data: &[u8]) {
    let [size, index, rest @ ..] = data else { return };
    let leaves = leaves(size % LEAVES_MAX + 1);
    let (size, at) = (leaves.len() as u64, usize::from(*index) % leaves.len());
    let whole = defined_root(&leaves);
    let proof = inclusion_proof(at as u64, size, leaves.as_slice()).expect("every leaf has a proof");
    assert_eq!(verify_inclusion(at as u64, size, &leaves[at], &proof, &whole), Ok(()));
    let other = changed(&proof, rest);
    let verdict = verify_inclusion(at as u64, size, &leaves[at], &other, &whole);
    assert_eq!(verdict.is_ok(), other == proof, "leaf {at} of {size}");
    for elsewhere in (0..=size).filter(|elsewhere| *elsewhere != at as u64) {
        assert!(verify_inclusion(elsewhere, size, &leaves[at], &other, &whole).is_err());
    }
}

fn consistency(data: &[u8]) {
    let [new, old, rest @ ..] = data else { return };
    let leaves = leaves(new % LEAVES_MAX);
    let (new, old) = (leaves.len() as u64, u64::from(*old) % (leaves.len() as u64 + 1));
    let (before, after) = (defined_root(&leaves[..old as usize]), defined_root(&leaves));
    let proof = consistency_proof(old, new, leaves.as_slice()).expect("every older tree has a proof");
    assert_eq!(verify_consistency(old, &before, new, &after, &proof), Ok(()));
    let other = changed(&proof, rest);
    let verdict = verify_consistency(old, &before, new, &after, &other);
    assert_eq!(verdict.is_ok(), other == proof, "{old} to {new}");
    assert!(
        old == new || verify_consistency(new, &after, old, &before, &other).is_err(),
        "a log that shrank"
    );
    let forged = Hash([0xee; 32]);
    assert!(verify_consistency(old, &forged, new, &after, &other).is_err());
    assert!(old == 0 && new > 0 || verify_consistency(old, &before, new, &forged, &other).is_err());
}

fn frontier(data: &[u8]) {
    let leaves: Vec<Hash> = data.iter().take(300).map(|byte| Hash([*byte; 32])).collect();
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    assert_eq!((frontier.size(), frontier.root()), (leaves.len() as u64, defined_root(&leaves)));
    assert_eq!(root(frontier.size(), leaves.as_slice()), Ok(frontier.root()));
    let again = Frontier::from_peaks(frontier.size(), frontier.peaks().to_vec());
    assert_eq!(again.as_ref(), Some(&frontier));
    assert_eq!(
        Frontier::from_peaks(frontier.size() + 1, frontier.peaks().to_vec()).is_some(),
        frontier.size().count_ones() == (frontier.size() + 1).count_ones()
    );
}

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => inclusion(data),
        1 => consistency(data),
        2 => frontier(data),
        3 => {
            let Some((width, bundle)) = data.split_first_chunk::<2>() else { return };
            let Ok(entries) = parse_entries(bundle, u16::from_be_bytes(*width)) else { return };
            let mut again = Vec::new();
            entries.iter().for_each(|entry| push_entry(&mut again, entry).expect("it was in a bundle"));
            assert_eq!(again, bundle);
        }
        4 => {
            let Some((numbers, bytes)) = data.split_first_chunk::<17>() else { return };
            let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
            let (level, index, size) = (numbers[16], number(0), number(8));
            let width = width_at(level, index, size);
            let hashes = if level < 8 { u128::from(size >> (8 * level)) } else { 0 };
            let left = hashes.saturating_sub(u128::from(index) * u128::from(TILE_WIDTH));
            assert_eq!(u128::from(width), left.min(TILE_WIDTH.into()), "level {level}, {index} of {size}");
            let Some(tile) = parse_hashes(bytes, u16::try_from(bytes.len() / 32).unwrap_or(0)) else {
                return;
            };
            assert_eq!(tile.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>(), bytes);
            let full = (tile.len() == usize::from(TILE_WIDTH)).then(|| defined_root(&tile));
            assert_eq!(full_tile_root(&tile), full);
        }
        _ => names::run(data),
    }
}

/// One of each, with and without changes.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut bundle = vec![0, 2];
    for entry in [&b"one"[..], b""] {
        push_entry(&mut bundle, entry).expect("a short entry");
    }
    let tile = |hashes: usize| [&[0; 15][..], &[200, 0], &vec![7; 32 * hashes]].concat();
    let mut seeds = vec![
        seed(0, [64, 5]),
        seed(0, [64, 5, 1, 2, 3]),
        seed(0, [6, 6, 0xfe, 0, 0]),
        seed(1, [69, 33]),
        seed(1, [69, 32, 0, 0, 1]),
        seed(1, [8, 0, 0xff, 1, 1]),
        seed(2, [1; 256]),
        seed(3, bundle),
        seed(4, tile(3)),
        seed(4, tile(256)),
    ];
    seeds.extend(names::seeds().iter().map(|name| seed(5, name)));
    seeds
}
