//! A key per entry out of few secrets, of which a single one can be destroyed: a puncturable tree (GGM).
//!
//! A bucket of 2^16 consecutive indexes is a binary tree of depth 16. A node is 32 secret bytes, its children are
//! hashes of it, the leaf of an index is the entry's key. Stored are only the nodes that cover what may still be
//! opened: at first the root, which is random. To destroy a key the node above it gives way to the siblings along the
//! path down to it, at most 16; nothing that is left leads to the key.
//!
//! Refuses: to derive what a node does not cover; to take a row that changed for a node.
//! Invariants: no node of a cover lies above another; a punctured key is below none of them. Nodes that are random are
//! fresh ones: no secret is made twice.

use bulla_formats::hash::sha256;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// Levels below the root; a level 16 node is a key.
pub(crate) const DEPTH: u8 = 16;
/// With a secret and the byte that says which child it is one block of SHA-256.
const NODE_LABEL: &[u8; 22] = b"bulla/opening-node/v1\0";
const CHECK_LABEL: &[u8] = b"bulla/opening-node-check/v1\0";
const SECRET_BYTES: usize = 32;
pub(crate) const ROW_BYTES: usize = 40;

pub(crate) type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// A node's place: the bucket, the level (0 is the root) and the position in the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) bucket: u64,
    pub(crate) level: u8,
    pub(crate) position: u32,
}

impl Place {
    /// The leaf of an entry.
    pub(crate) fn of(index: u64) -> Self {
        Self { bucket: index >> DEPTH, level: DEPTH, position: (index & 0xffff) as u32 }
    }

    /// The node of `level` on the way from the root to this one, `level` being none below it.
    pub(crate) fn above(self, level: u8) -> Self {
        Self { level, position: self.position >> (self.level - level), ..self }
    }

    /// All of them, the root first and this node last.
    pub(crate) fn path(self) -> impl Iterator<Item = Place> {
        (0..=self.level).map(move |level| self.above(level))
    }

    fn sibling(self) -> Self {
        Self { position: self.position ^ 1, ..self }
    }

    fn covers(self, other: Place) -> bool {
        self.bucket == other.bucket && self.level <= other.level && other.above(self.level) == self
    }

    /// The positions of `level` below this node, `level` being none above it.
    pub(crate) fn below(self, level: u8) -> RangeInclusive<u32> {
        let down = level - self.level;
        self.position << down..=(self.position << down) | ((1 << down) - 1)
    }

    /// The indexes of the entries below this node.
    pub(crate) fn indexes(self) -> RangeInclusive<u64> {
        let (first, positions) = (self.bucket << DEPTH, self.below(DEPTH));
        first + u64::from(*positions.start())..=first + u64::from(*positions.end())
    }

    pub(crate) fn exists(self) -> bool {
        self.bucket <= u64::MAX >> DEPTH && self.level <= DEPTH && self.position >> self.level == 0
    }
}

/// A node with its secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    secret: Secret,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Node {
    /// A random node.
    pub(crate) fn fresh(place: Place) -> io::Result<Self> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(secret.as_mut_slice()).map_err(io::Error::other)?;
        Ok(Self { place, secret })
    }

    fn child(&self, place: Place) -> Self {
        let right = (place.position & 1) as u8;
        Self { place, secret: Zeroizing::new(sha256(&[NODE_LABEL, &*self.secret, &[right]]).0) }
    }

    /// The key of an entry; `None` when this node does not cover it.
    pub(crate) fn key(&self, index: u64) -> Option<Secret> {
        let leaf = Place::of(index);
        if !self.place.covers(leaf) {
            return None;
        }
        let mut node = self.clone();
        for level in self.place.level..DEPTH {
            node = node.child(leaf.above(level + 1));
        }
        Some(node.secret)
    }

    /// The nodes that cover what this one covers, without one entry.
    fn without(self, leaf: Place) -> Vec<Node> {
        let (from, mut node, mut left) = (self.place.level, self, Vec::new());
        for level in from..DEPTH {
            let down = leaf.above(level + 1);
            left.push(node.child(down.sibling()));
            node = node.child(down);
        }
        left
    }

    /// The row that it is stored as: the secret, and 8 bytes by which a changed row or place is noticed.
    pub(crate) fn row(&self) -> Zeroizing<[u8; ROW_BYTES]> {
        let mut row = Zeroizing::new([0; ROW_BYTES]);
        row[..SECRET_BYTES].copy_from_slice(&*self.secret);
        row[SECRET_BYTES..].copy_from_slice(&self.check());
        row
    }

    /// The node that was stored as `row` at `place`.
    pub(crate) fn parse(place: Place, row: &[u8; ROW_BYTES]) -> Option<Self> {
        let (secret, check) = row.split_first_chunk::<SECRET_BYTES>()?;
        let node = Self { place, secret: Zeroizing::new(*secret) };
        (place.exists() && node.check() == check).then_some(node)
    }

    fn check(&self) -> [u8; ROW_BYTES - SECRET_BYTES] {
        let Place { bucket, level, position } = self.place;
        let place = [&bucket.to_be_bytes()[..], &[level], &position.to_be_bytes()].concat();
        let hash = sha256(&[CHECK_LABEL, &place, &*self.secret]);
        let mut check = [0; ROW_BYTES - SECRET_BYTES];
        check.copy_from_slice(&hash.0[..ROW_BYTES - SECRET_BYTES]);
        check
    }
}

/// The nodes of one bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cover(BTreeMap<Place, Node>);

impl Cover {
    pub(crate) fn insert(&mut self, node: Node) {
        self.0.insert(node.place, node);
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.0.values()
    }

    /// Destroys the key of an entry; nothing when there is none.
    pub(crate) fn puncture(&mut self, index: u64) {
        let leaf = Place::of(index);
        let node = leaf.path().find_map(|place| self.0.remove(&place));
        node.into_iter().flat_map(|node| node.without(leaf)).for_each(|node| self.insert(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::hash::Hash;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const BUCKET: u64 = 7;
    const FIRST: u64 = BUCKET << DEPTH;

    fn root() -> Node {
        let place = Place { bucket: BUCKET, level: 0, position: 0 };
        Node { place, secret: Zeroizing::new([0x5e; 32]) }
    }

    fn cover() -> Cover {
        let mut cover = Cover::default();
        cover.insert(root());
        cover
    }

    fn key(cover: &Cover, index: u64) -> Option<Secret> {
        let mut keys = cover.nodes().filter_map(|node| node.key(index));
        let key = keys.next();
        assert!(keys.next().is_none(), "two nodes cover {index}");
        key
    }

    /// The definition, without a tree: the hashes along the bits of the index.
    fn defined(index: u64) -> [u8; 32] {
        (0..16).rev().fold([0x5e; 32], |secret, bit| {
            let side = [(index >> bit & 1) as u8];
            sha256(&[b"bulla/opening-node/v1\0", &secret, &side]).0
        })
    }

    /// Every secret from the root down to the key of an entry.
    fn path(index: u64) -> BTreeSet<[u8; 32]> {
        let mut secrets = BTreeSet::from([[0x5e; 32]]);
        let mut node = root();
        for level in 1..=DEPTH {
            node = node.child(Place::of(index).above(level));
            secrets.insert(*node.secret);
        }
        assert_eq!(secrets.len(), 17);
        secrets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("BULLA_SOAK").is_some() { 500 } else { 40 }))]

        /// Against the naive model, a key per index and a set of those that are erased.
        #[test]
        fn an_erased_key_follows_from_nothing_that_is_left_and_all_others_are_unchanged(
            scattered in prop::collection::vec(0u64..1 << DEPTH, 0..60),
            run in (0u64..65_000, 0u64..400),
            probes in prop::collection::vec(0u64..1 << DEPTH, 50),
        ) {
            let mut cover = cover();
            let mut erased = BTreeSet::new();
            for offset in scattered.into_iter().chain(run.0..run.0 + run.1) {
                cover.puncture(FIRST + offset);
                erased.insert(offset);
                cover.puncture(FIRST + offset);
            }
            let near = erased.iter().flat_map(|offset| [offset ^ 1, offset ^ 2, offset.wrapping_sub(1)]);
            for offset in probes.into_iter().chain(near).filter(|offset| *offset < 1 << DEPTH) {
                let wanted = (!erased.contains(&offset)).then(|| defined(FIRST + offset));
                prop_assert_eq!(key(&cover, FIRST + offset).map(|key| *key), wanted);
            }
            // What could lead to an erased key are the secrets above it: none of them is stored.
            let stored: BTreeSet<[u8; 32]> = cover.nodes().map(|node| *node.secret).collect();
            for offset in &erased {
                prop_assert_eq!(key(&cover, FIRST + offset), None);
                prop_assert!(path(FIRST + offset).is_disjoint(&stored), "{}", offset);
            }
            // The nodes cover everything else, once.
            let covered: u64 = cover.nodes().map(|node| 1u64 << (DEPTH - node.place.level)).sum();
            prop_assert_eq!(covered, (1 << DEPTH) - erased.len() as u64);
            prop_assert!(cover.nodes().count() <= 1 + 16 * erased.len());
        }

        #[test]
        fn a_row_that_changed_or_lies_elsewhere_is_no_node(level in 0u8..=16, bit in 0usize..ROW_BYTES * 8) {
            let place = Place::of(FIRST + 4_711).above(level);
            let node = Node { place, secret: Zeroizing::new([3; 32]) };
            let row = node.row();
            let mut bad = *row;
            bad[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Node::parse(place, &bad), None);
            let moved = [
                Place { bucket: BUCKET + 1, ..place },
                Place { level: level ^ 1, ..place },
                Place { position: place.position ^ 1, ..place },
                Place { level: 17, ..place },
                Place { position: place.position | 1 << 20, ..place },
                Place { bucket: 1 << 60, ..place },
            ];
            for elsewhere in moved {
                prop_assert_eq!(Node::parse(elsewhere, &row), None);
            }
            prop_assert_eq!(Node::parse(place, &row), Some(node));
        }
    }

    /// docs/ARCHITECTURE.md has these values: what is stored is read by every later version.
    #[test]
    fn known_answers() {
        let place = Place { bucket: 0x0102, level: 0, position: 0 };
        let root = Node { place, secret: Zeroizing::new(std::array::from_fn(|at| at as u8)) };
        let first = place.bucket << DEPTH;
        let keys = [
            (0, "61d6bb53195f7cc77ad890336c52edca3f1ab0a8d599dd547bcdb48c43a57f7a"),
            (0xabcd, "7353a4ae91b65cc36071e6842ab16f7ed9ff8d1f6b3c9d24122d0e9e1a3c2b2c"),
            (0xffff, "1f4dc5c2cd99dbb30f000ad7c5d760f914c25d50c0ea97b6bfa35c6349089570"),
        ];
        for (offset, key) in keys {
            assert_eq!(Hash(*root.key(first + offset).unwrap()).to_string(), key);
        }
        assert_eq!(root.row()[SECRET_BYTES..], [0x72, 0xc6, 0x46, 0x88, 0x6d, 0x2f, 0x07, 0x63]);
        let right = root.child(Place { level: 1, position: 1, ..place });
        assert_eq!(right.row()[..4], [0x1b, 0xd9, 0xe1, 0x99]);
        assert_eq!(right.row()[SECRET_BYTES..], [0xfb, 0x02, 0xca, 0x48, 0xee, 0x11, 0x61, 0x4d]);
    }

    #[test]
    fn a_bucket_can_be_erased_to_its_last_key() {
        let mut cover = cover();
        for index in FIRST..FIRST + (1 << DEPTH) {
            cover.puncture(index);
        }
        assert_eq!(cover.nodes().count(), 0);
        cover.puncture(FIRST);
        assert_eq!(cover.nodes().count(), 0);
    }

    #[test]
    fn places_name_the_entries_below_them() {
        let index = u64::MAX - 1;
        let leaf = Place::of(index);
        assert!(leaf.exists() && leaf.path().all(Place::exists));
        assert_eq!((leaf.indexes(), leaf.above(15).indexes()), (index..=index, index..=u64::MAX));
        assert_eq!(Place::of(FIRST).above(0).indexes(), FIRST..=FIRST + 0xffff);
        assert!(root().key(FIRST - 1).is_none() && root().key(FIRST + (1 << DEPTH)).is_none());
        let node = root().child(Place::of(FIRST).above(1));
        assert!(node.key(FIRST + 0x8000).is_none() && node.key(FIRST + 0x7fff).is_some());
    }
}
