//! The proof that a log has forked: two statements under its own key that cannot both be true.
//!
//! Either two heads: the larger one's tree begins with another tree than the smaller one. Or two leaves: one index, two
//! entries, each in a tree that the log has signed. Nobody's word is needed but the log key's.
//! Refuses to do: prove anything by a missing answer; pairs that can both be true.
//! Invariants: a [`Fork`] comes only from [`ForkProof::verify`]; the notes in a proof carry the log's line alone, and
//! what is symmetric stands in ascending order, so that a fork shown twice is mostly the same bytes.

use super::{HEAD_BYTES_MAX, PATH_MAX};
use crate::der::{self, DerError, Octets32};
use crate::entry::NUMBER_MAX;
use crate::hash::{Hash, sha256};
use crate::merkle::{ProofError, verify_consistency, verify_inclusion};
use crate::note::{Checkpoint, NoteError, SignedNote};
use crate::origin::{Origin, OriginError};
use crate::sig::{Algorithm, PublicKey, SignatureError};
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most bytes of a fork proof.
pub const FORK_BYTES_MAX: usize = 24_576;
const WHAT: &str = "fork proof";

/// Why something is no proof of a fork.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// The bytes are no fork proof, or a value in it is out of range.
    #[error(transparent)]
    Der(#[from] DerError),
    /// Of a version that this program does not know.
    #[error("the fork proof is of a version that this program does not know; use a newer one")]
    Version,
    /// It names no log.
    #[error("the fork proof: {0}")]
    Origin(#[from] OriginError),
    /// The log key is none.
    #[error("the log key: {0}")]
    Key(SignatureError),
    /// A checkpoint is not one of the log.
    #[error("a checkpoint in the fork proof: {0}")]
    Checkpoint(#[from] NoteError),
    /// A checkpoint has lines besides the log's.
    #[error("a checkpoint in the fork proof has lines besides the log's")]
    Lines,
    /// A path does not lead where it should.
    #[error("a path in the fork proof: {0}")]
    Path(#[from] ProofError),
    /// What it shows can both be true.
    #[error("what the fork proof shows can both be true")]
    Consistent,
    /// Its parts stand in the other order.
    #[error("the parts of the fork proof are not in their order")]
    Order,
}

/// Two heads of which the larger does not extend the smaller.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForkedHeads {
    /// A checkpoint note with the log's line alone.
    pub smaller: String,
    /// Another one, of the same size or a larger one.
    pub larger: String,
    /// Root of the tree that the larger head had when it was as small as the smaller; of one size its own root.
    pub root: Octets32,
    /// Consistency proof from there to the larger head; of one size empty.
    pub proof: Vec<Octets32>,
}

/// An entry's place under a checkpoint.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForkedLeaf {
    /// Its leaf hash.
    pub leaf_hash: Octets32,
    /// Inclusion proof.
    pub path: Vec<Octets32>,
    /// A checkpoint note with the log's line alone.
    pub checkpoint: String,
}

/// One index and two entries.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForkedLeaves {
    /// The index.
    pub index: u64,
    /// The entry with the smaller leaf hash.
    pub first: ForkedLeaf,
    /// The other one.
    pub second: ForkedLeaf,
}

/// What is shown.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Shown {
    /// Two heads.
    #[rasn(tag(context, 0))]
    Heads(ForkedHeads),
    /// Two leaves.
    #[rasn(tag(context, 1))]
    Leaves(ForkedLeaves),
}

/// A proof that a log has forked, not judged yet.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForkProof {
    /// 1.
    pub version: u64,
    /// The log.
    pub origin: String,
    /// What is shown.
    pub shown: Shown,
}

/// Two things that a log has signed and that cannot both be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    origin: Origin,
    detail: String,
}

impl Fork {
    /// The log that has forked.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
    /// What was shown, in a sentence for an incident entry.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl ForkProof {
    /// Code of the incident entry that tells of a fork; its detail is [`Fork::detail`].
    pub const INCIDENT: &str = "fork";

    /// Shows that the tree of one head does not begin with that of the other. `root` and `proof` are what the tree of
    /// the larger head has to show for the smaller size; of one size neither is needed.
    pub fn of_heads(
        origin: &Origin,
        smaller: &Head<'_>,
        larger: &Head<'_>,
        root: Hash,
        proof: &[Hash],
    ) -> Self {
        let mut pair = [smaller, larger];
        let mut root = root;
        if smaller.1.size() == larger.1.size() {
            pair.sort_by_key(|head| head.1.root());
            root = pair[1].1.root();
        }
        let [smaller, larger] = pair.map(|(note, _)| alone(origin, note));
        let heads = ForkedHeads { smaller, larger, root: Octets32::new(root.0), proof: octets(proof) };
        ForkProof { version: 1, origin: origin.to_string(), shown: Shown::Heads(heads) }
    }

    /// Shows that two signed trees have two entries at one index: of each its leaf hash, its path and the note.
    pub fn of_leaves(
        origin: &Origin,
        index: u64,
        one: (Hash, &[Hash], &SignedNote),
        other: (Hash, &[Hash], &SignedNote),
    ) -> Self {
        let mut pair = [one, other];
        pair.sort_by_key(|leaf| leaf.0);
        let [first, second] = pair.map(|(hash, path, note)| ForkedLeaf {
            leaf_hash: Octets32::new(hash.0),
            path: octets(path),
            checkpoint: alone(origin, note),
        });
        let leaves = ForkedLeaves { index, first, second };
        ForkProof { version: 1, origin: origin.to_string(), shown: Shown::Leaves(leaves) }
    }

    /// Reads a proof; [`ForkProof::verify`] judges it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ForkError> {
        let proof: ForkProof = der::decode(WHAT, bytes, FORK_BYTES_MAX)?;
        let range = |reason| Err(DerError::Range { what: WHAT, reason }.into());
        if proof.version != 1 {
            return Err(ForkError::Version);
        }
        let (paths, notes, index) = match &proof.shown {
            Shown::Heads(heads) => ([&heads.proof, &heads.proof], [&heads.smaller, &heads.larger], 0),
            Shown::Leaves(ForkedLeaves { index, first, second }) => {
                ([&first.path, &second.path], [&first.checkpoint, &second.checkpoint], *index)
            }
        };
        if index > NUMBER_MAX || paths.iter().any(|path| path.len() > PATH_MAX) {
            return range("an index is above 2^63 - 1, or a path longer than 64 hashes");
        }
        if notes.iter().any(|note| note.len() > HEAD_BYTES_MAX) {
            return range("a checkpoint is longer than 6144 bytes");
        }
        Ok(proof)
    }

    /// The proof's bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// What names this proof: SHA-256 of its bytes.
    pub fn hash(&self) -> Hash {
        sha256(&[&self.encode()])
    }

    /// Judges the proof by the log's key alone.
    pub fn verify(&self, log_key: &[u8; 32]) -> Result<Fork, ForkError> {
        if self.version != 1 {
            return Err(ForkError::Version);
        }
        let origin = Origin::parse(&self.origin)?;
        let key = PublicKey::from_bytes(Algorithm::Ed25519, log_key).map_err(ForkError::Key)?;
        let open = |note: &str| -> Result<Checkpoint, ForkError> {
            let note = SignedNote::parse(note)?;
            if note.lines.len() != 1 {
                return Err(ForkError::Lines);
            }
            Ok(Checkpoint::open(&note, &origin, &key, log_key, &[])?)
        };
        let detail = match &self.shown {
            Shown::Heads(heads) => {
                let (smaller, larger) = (open(&heads.smaller)?, open(&heads.larger)?);
                let (begins, proof) = (Hash(*heads.root), hashes(&heads.proof));
                if smaller.size() == 0 {
                    return Err(ForkError::Consistent);
                }
                let (size, whole) = ((smaller.size(), larger.size()), larger.root());
                verify_consistency(size.0, &begins, size.1, &whole, &proof)?;
                if begins == smaller.root() {
                    return Err(ForkError::Consistent);
                }
                if size.0 == size.1 && smaller.root() > larger.root() {
                    return Err(ForkError::Order);
                }
                format!(
                    "{origin} has signed the root {} for {} entries, and a tree of {} entries that begins with {begins}",
                    smaller.root(),
                    size.0,
                    size.1
                )
            }
            Shown::Leaves(ForkedLeaves { index, first, second }) => {
                for leaf in [first, second] {
                    let head = open(&leaf.checkpoint)?;
                    let path = hashes(&leaf.path);
                    verify_inclusion(*index, head.size(), &Hash(*leaf.leaf_hash), &path, &head.root())?;
                }
                let (one, other) = (Hash(*first.leaf_hash), Hash(*second.leaf_hash));
                if one == other {
                    return Err(ForkError::Consistent);
                }
                if one > other {
                    return Err(ForkError::Order);
                }
                format!("{origin} has signed trees with two entries at index {index}: {one} and {other}")
            }
        };
        Ok(Fork { origin, detail })
    }
}

/// A note and what it says, verified.
pub type Head<'a> = (&'a SignedNote, &'a Checkpoint);

/// The note with the log's line alone.
fn alone(origin: &Origin, note: &SignedNote) -> String {
    let own = note.lines.iter().filter(|line| line.name == origin.as_str() && line.body.len() == 64);
    SignedNote { text: note.text.clone(), lines: own.cloned().collect() }.encode()
}

fn hashes(path: &[Octets32]) -> Vec<Hash> {
    path.iter().map(|hash| Hash(**hash)).collect()
}

fn octets(path: &[Hash]) -> Vec<Octets32> {
    path.iter().map(|hash| Octets32::new(hash.0)).collect()
}
