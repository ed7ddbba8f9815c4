//! Anchor body: what independent authorities said about this log's head, as they said it.
//!
//! What is anchored is a batch: a tree over checkpoint texts, so that one request covers a site. Time-stamp
//! authorities sign the batch; witnesses cosign the checkpoint itself.
//! Refuses to do: judge authorities; [`crate::anchoring`] does, against a trust file.
//! Invariants: a decoded body's path leads from its own checkpoint to its batch only if [`AnchorBody::leads`] says so;
//! it has 1 to 8 proofs.

use super::probe::is_name;
use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, EntryRef, NUMBER_MAX, TreeState};
use crate::hash::{Hash, leaf_hash};
use crate::merkle::{ProofError, verify_inclusion};
use crate::note::checkpoint_text;
use crate::sig::label;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most proofs in one body.
pub const PROOFS_MAX: usize = 8;
/// Most closing manifests in one body.
pub const MANIFESTS_MAX: usize = 16;
/// Most bytes of one reply of a time-stamp authority that is kept.
pub const REPLY_BYTES_MAX: usize = 16_384;
/// Most hashes of a path in a batch: 65,536 checkpoints.
pub const BATCH_PATH_MAX: usize = 16;

/// A witness's cosignature of a checkpoint (c2sp.org/tlog-cosignature, Ed25519).
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cosignature {
    /// The witness's key name.
    pub name: String,
    /// When, Unix seconds by the witness's clock.
    pub seconds: u64,
    /// Ed25519 over `cosignature/v1`, time and checkpoint text; 64 bytes.
    pub signature: OctetString,
}

/// What an authority gave.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Evidence {
    /// TimeStampResp of RFC 3161 over [`imprint_input`] of the batch, as it was received.
    #[rasn(tag(context, 0))]
    Timestamp(OctetString),
    /// A witness's cosignature of the checkpoint.
    #[rasn(tag(context, 1))]
    Cosignature(Cosignature),
}

/// What one authority gave, and who that is.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnchorProof {
    /// Its name in the box's configuration.
    pub authority: String,
    /// Who runs it: operators are what is counted.
    pub operator: String,
    /// What it gave.
    pub evidence: Evidence,
}

/// Body of an `anchor` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnchorBody {
    /// 1.
    pub version: u64,
    /// Number of checkpoint texts in the batch, and the RFC 9162 root over them.
    pub batch: TreeState,
    /// This log's place in it.
    pub index: u64,
    /// Inclusion proof of this log's checkpoint text in the batch.
    pub path: Vec<Octets32>,
    /// The tree of this log that is anchored.
    pub head: TreeState,
    /// What the authorities gave, in ascending order of their names.
    pub proofs: Vec<AnchorProof>,
    /// Closing manifests that `head` covers and no anchor before it did.
    pub manifests: Vec<EntryRef>,
}

/// What a time-stamp authority hashes: "bulla/anchor/v1" || 0x00 || size u64 BE || root. A token over it is checked by
/// `openssl ts -verify -data`.
pub fn imprint_input(batch: &TreeState) -> Vec<u8> {
    [label::ANCHOR.as_bytes(), &[0], &batch.size.to_be_bytes(), &*batch.root].concat()
}

impl AnchorBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: AnchorBody = der::decode(WHAT, bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape; also for bodies about to be signed.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: WHAT, reason });
        if self.version != 1 {
            return range("its version is not 1");
        }
        if self.head.size == 0 || self.head.size > NUMBER_MAX || self.batch.size > 1 << BATCH_PATH_MAX {
            return range("its head is empty or above 2^63 - 1, or its batch larger than 65,536");
        }
        if self.index >= self.batch.size || self.path.len() > BATCH_PATH_MAX {
            return range("its place is not in its batch, or its path longer than 16 hashes");
        }
        if self.proofs.is_empty() || self.proofs.len() > PROOFS_MAX {
            return range("it has no proof, or more than 8");
        }
        if !self.proofs.is_sorted_by(|a, b| a.authority < b.authority) {
            return range("its proofs are not in ascending order of their authorities' names");
        }
        for proof in &self.proofs {
            if !is_name(&proof.authority) || !is_name(&proof.operator) {
                return range("the name of an authority or operator is empty or longer than 64 bytes");
            }
            match &proof.evidence {
                Evidence::Timestamp(reply) if reply.is_empty() || reply.len() > REPLY_BYTES_MAX => {
                    return range("a reply is empty or longer than 16,384 bytes");
                }
                Evidence::Cosignature(said)
                    if said.signature.len() != 64
                        || said.seconds > NUMBER_MAX / 1_000
                        || said.name.is_empty()
                        || said.name.len() > 255 =>
                {
                    return range("a cosignature's name, time or signature is out of bounds");
                }
                _ => {}
            }
        }
        let ascending = self.manifests.is_sorted_by(|a, b| a.index < b.index);
        if self.manifests.len() > MANIFESTS_MAX || !ascending {
            return range("it has more than 16 manifests, or not in ascending order");
        }
        if self.manifests.iter().any(|manifest| manifest.index >= self.head.size) {
            return range("a manifest it names is not under its head");
        }
        Ok(())
    }

    /// Text of the checkpoint of the log named `origin` that is anchored.
    pub fn checkpoint_text(&self, origin: &str) -> String {
        checkpoint_text(origin, self.head.size, &self.head.root())
    }

    /// Checks that the path leads from the checkpoint of the log named `origin` to the batch.
    pub fn leads(&self, origin: &str) -> Result<(), ProofError> {
        let leaf = leaf_hash(self.checkpoint_text(origin).as_bytes());
        let path: Vec<Hash> = self.path.iter().map(|hash| Hash(**hash)).collect();
        verify_inclusion(self.index, self.batch.size, &leaf, &path, &self.batch.root())
    }
}

const WHAT: &str = "anchor body";
