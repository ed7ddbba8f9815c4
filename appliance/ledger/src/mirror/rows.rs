//! The rows of `mirror.redb`, each bound to its log and its name, so that one that was lost, cut short or put in place
//! of another is told from what is true.
//!
//! | row of `state-1` | value, before its check |
//! |---|---|
//! | `origin` | version 1, the origin in UTF-8 |
//! | `witness`, `mirror` | version 1, size u64, root 32: the newest tree that may have been cosigned |
//! | `head` | version 1, size u64, root 32, signed note; just the version: none yet |
//! | `frozen` | version 1, 0; or version 1, 1, fork proof |
//! | `wanted` | version 1, version of the references u32, count u32, exclusive-or of the SHA-256 of every row of `wanted-1` |
//!
//! The check is the first 16 bytes of SHA-256(`bulla/mirror-row/v1` 0x00, length of the origin u16, origin, length of the
//! name u8, name, value) and stands behind the value. `wanted-1`: SHA-256 of an object u8[32] -> index u64 of the first
//! entry that refers to it.
//!
//! Refuses: a value under another name, of another log, of another version, with one bit changed.
//! Invariants: integers are big-endian; all rows exist from the creation on, so a row that is not there was lost.

use crate::tree::Tree;
use bulla_formats::hash::{Hash, sha256};
use redb::TableDefinition;

pub(super) const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state-1");
/// SHA-256 of an object to the index of the first entry that refers to it.
pub(super) const WANTED: TableDefinition<&[u8; 32], u64> = TableDefinition::new("wanted-1");

pub(super) const ORIGIN: &str = "origin";
pub(super) const WITNESS: &str = "witness";
pub(super) const MIRROR: &str = "mirror";
pub(super) const HEAD: &str = "head";
pub(super) const FROZEN: &str = "frozen";
pub(super) const WANTED_SUM: &str = "wanted";

const LABEL: &[u8] = b"bulla/mirror-row/v1\0";
const CHECK_BYTES: usize = 16;
const VERSION: u8 = 1;

/// The newest head of a mirrored log that its caller found authentic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorHead {
    /// Its tree.
    pub tree: Tree,
    /// The signed checkpoint.
    pub note: Vec<u8>,
}

/// What the rows of `wanted-1` add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WantedSum {
    /// Version of the references that the rows were made with; 0: they are to be made anew.
    pub(super) references: u32,
    pub(super) count: u32,
    pub(super) xor: [u8; 32],
}

impl WantedSum {
    /// Adds a row, or takes it away again.
    pub(super) fn toggle(&mut self, object: &Hash, index: u64) {
        let hash = sha256(&[&object.0, &index.to_be_bytes()]);
        self.xor.iter_mut().zip(hash.0).for_each(|(sum, byte)| *sum ^= byte);
    }
}

fn check(origin: &str, name: &str, value: &[u8]) -> [u8; CHECK_BYTES] {
    let (origin_len, name_len) = ((origin.len() as u16).to_be_bytes(), [name.len() as u8]);
    let hash = sha256(&[LABEL, &origin_len, origin.as_bytes(), &name_len, name.as_bytes(), value]);
    std::array::from_fn(|at| hash.0[at])
}

/// The bytes of a row.
fn bound(origin: &str, name: &str, rest: &[&[u8]]) -> Vec<u8> {
    let mut row = vec![VERSION];
    rest.iter().for_each(|part| row.extend_from_slice(part));
    let check = check(origin, name, &row);
    row.extend_from_slice(&check);
    row
}

/// What a row says behind its version; `None` when it is not the row of this log and name.
fn unbound<'r>(origin: &str, name: &str, row: &'r [u8]) -> Option<&'r [u8]> {
    let (value, found) = row.split_last_chunk::<CHECK_BYTES>()?;
    let rest = value.strip_prefix(&[VERSION])?;
    (check(origin, name, value) == *found).then_some(rest)
}

pub(super) fn origin_row(origin: &str) -> Vec<u8> {
    bound(origin, ORIGIN, &[origin.as_bytes()])
}

/// The origin that a file says it is about.
pub(super) fn read_origin(row: &[u8]) -> Option<String> {
    let value = row.split_last_chunk::<CHECK_BYTES>()?.0.strip_prefix(&[VERSION])?;
    let origin = std::str::from_utf8(value).ok()?;
    unbound(origin, ORIGIN, row).map(|_| origin.to_owned())
}

fn tree_bytes(tree: &Tree) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&tree.size.to_be_bytes());
    bytes[8..].copy_from_slice(&tree.root.0);
    bytes
}

fn split_tree(bytes: &[u8]) -> Option<(Tree, &[u8])> {
    let (size, rest) = bytes.split_first_chunk::<8>()?;
    let (root, rest) = rest.split_first_chunk::<32>()?;
    Some((Tree { size: u64::from_be_bytes(*size), root: Hash(*root) }, rest))
}

pub(super) fn tree_row(origin: &str, name: &str, tree: &Tree) -> Vec<u8> {
    bound(origin, name, &[&tree_bytes(tree)])
}

pub(super) fn read_tree(origin: &str, name: &str, row: &[u8]) -> Option<Tree> {
    let (tree, rest) = split_tree(unbound(origin, name, row)?)?;
    rest.is_empty().then_some(tree)
}

pub(super) fn head_row(origin: &str, head: Option<&MirrorHead>) -> Vec<u8> {
    match head {
        None => bound(origin, HEAD, &[]),
        Some(head) => bound(origin, HEAD, &[&tree_bytes(&head.tree), &head.note]),
    }
}

pub(super) fn read_head(origin: &str, row: &[u8]) -> Option<Option<MirrorHead>> {
    let rest = unbound(origin, HEAD, row)?;
    if rest.is_empty() {
        return Some(None);
    }
    let (tree, note) = split_tree(rest)?;
    Some(Some(MirrorHead { tree, note: note.to_vec() }))
}

pub(super) fn frozen_row(origin: &str, proof: Option<&[u8]>) -> Vec<u8> {
    match proof {
        None => bound(origin, FROZEN, &[&[0]]),
        Some(proof) => bound(origin, FROZEN, &[&[1], proof]),
    }
}

pub(super) fn read_frozen(origin: &str, row: &[u8]) -> Option<Option<Vec<u8>>> {
    match unbound(origin, FROZEN, row)?.split_first()? {
        (0, []) => Some(None),
        (1, proof) => Some(Some(proof.to_vec())),
        _ => None,
    }
}

pub(super) fn sum_row(origin: &str, sum: &WantedSum) -> Vec<u8> {
    bound(origin, WANTED_SUM, &[&sum.references.to_be_bytes(), &sum.count.to_be_bytes(), &sum.xor])
}

pub(super) fn read_sum(origin: &str, row: &[u8]) -> Option<WantedSum> {
    let (references, rest) = unbound(origin, WANTED_SUM, row)?.split_first_chunk::<4>()?;
    let (count, xor) = rest.split_first_chunk::<4>()?;
    let xor = xor.try_into().ok()?;
    Some(WantedSum { references: u32::from_be_bytes(*references), count: u32::from_be_bytes(*count), xor })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "fleet.example/0000000000000000000000000000000000000001/7";

    fn every_row() -> Vec<(&'static str, Vec<u8>)> {
        let tree = Tree { size: 300, root: Hash([7; 32]) };
        let head = MirrorHead { tree, note: b"a note\n".to_vec() };
        let mut sum = WantedSum { references: 3, count: 1, ..WantedSum::default() };
        sum.toggle(&Hash([9; 32]), 12);
        vec![
            (ORIGIN, origin_row(LOG)),
            (WITNESS, tree_row(LOG, WITNESS, &tree)),
            (MIRROR, tree_row(LOG, MIRROR, &tree)),
            (HEAD, head_row(LOG, Some(&head))),
            (HEAD, head_row(LOG, None)),
            (FROZEN, frozen_row(LOG, None)),
            (FROZEN, frozen_row(LOG, Some(b"proof"))),
            (WANTED_SUM, sum_row(LOG, &sum)),
        ]
    }

    /// Whether the row is read as that of `name` and `origin`.
    fn reads(origin: &str, name: &str, row: &[u8]) -> bool {
        match name {
            ORIGIN => read_origin(row).is_some_and(|found| found == origin),
            HEAD => read_head(origin, row).is_some(),
            FROZEN => read_frozen(origin, row).is_some(),
            WANTED_SUM => read_sum(origin, row).is_some(),
            name => read_tree(origin, name, row).is_some(),
        }
    }

    #[test]
    fn g9_a_row_is_read_as_nothing_but_what_was_written() {
        for (name, row) in every_row() {
            assert!(reads(LOG, name, &row), "{name}");
            for bit in 0..row.len() * 8 {
                let mut changed = row.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!reads(LOG, name, &changed), "{name}, bit {bit}");
            }
            for len in 0..row.len() {
                assert!(!reads(LOG, name, &row[..len]), "{name}, cut to {len}");
            }
            assert!(!reads(LOG, name, &[row.as_slice(), &[0]].concat()), "{name}");
            let other = LOG.replace("/7", "/8");
            assert!(!reads(&other, name, &row), "{name} of another log");
            for (other, _) in every_row().into_iter().filter(|(other, _)| *other != name) {
                assert!(!reads(LOG, other, &row), "{name} as {other}");
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let tree = Tree { size: u64::MAX, root: Hash([3; 32]) };
        assert_eq!(read_tree(LOG, WITNESS, &tree_row(LOG, WITNESS, &tree)), Some(tree));
        let head = Some(MirrorHead { tree, note: Vec::new() });
        assert_eq!(read_head(LOG, &head_row(LOG, head.as_ref())), Some(head));
        assert_eq!(read_head(LOG, &head_row(LOG, None)), Some(None));
        let proof = Some(b"proof".to_vec());
        assert_eq!(read_frozen(LOG, &frozen_row(LOG, proof.as_deref())), Some(proof));
        assert_eq!(read_frozen(LOG, &frozen_row(LOG, None)), Some(None));
        assert_eq!(read_origin(&origin_row(LOG)).as_deref(), Some(LOG));
        let mut sum = WantedSum { references: 1, count: 0, ..WantedSum::default() };
        sum.toggle(&Hash([1; 32]), 5);
        assert_eq!(read_sum(LOG, &sum_row(LOG, &sum)), Some(sum));
        sum.toggle(&Hash([1; 32]), 5);
        assert_eq!(sum.xor, [0; 32]);
    }
}
