//! A manifest as a file of its own: what was emitted, and everything that verifies it with the trust file alone.
//!
//! It is DER so that it is short enough to be printed as codes. Printed, it has neither place nor anchors: those come later.
//! Refuses to do: judge; [`crate::verify::verify_manifest`] does.
//! Invariant: a decoded file encodes back to the same bytes and keeps the bounds of `docs/formats.md` section 19.

use crate::der::{self, DerError, Octets32};
use crate::seal_file::{AnchorEvidence, Placed};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most bytes of a manifest file.
pub const MANIFEST_BYTES_MAX: usize = 131_072;
/// Most anchors in one.
pub const MANIFEST_ANCHORS_MAX: usize = 4;
/// Most hashes of one path.
const PATH_MAX: usize = 64;
const WHAT: &str = "manifest file";

/// Where the manifest stands in its log.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// A checkpoint that covers it, a signed note.
    pub checkpoint: String,
    /// Inclusion proof of the manifest entry.
    pub entry_proof: Vec<Octets32>,
}

/// An anchor and the path from the manifest entry to what it anchors.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct FiledAnchor {
    /// DER of an anchor body.
    pub body: OctetString,
    /// Inclusion proof of the manifest entry in the anchored tree.
    pub entry_proof: Vec<Octets32>,
}

/// A manifest with its evidence.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestFile {
    /// 1.
    pub version: u64,
    /// Log origin.
    pub origin: String,
    /// DER of the manifest entry.
    pub entry: OctetString,
    /// DER of the key-epoch entry of its epoch.
    pub epoch: OctetString,
    /// DER of the enrolment.
    pub enrolment: OctetString,
    /// Its place in the log.
    #[rasn(tag(context, 0))]
    pub place: Option<Place>,
    /// What authorities said of trees it stands in.
    pub anchors: Vec<FiledAnchor>,
}

impl ManifestFile {
    /// Reads a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let file: ManifestFile = der::decode(WHAT, bytes, MANIFEST_BYTES_MAX)?;
        let range = |reason| Err(DerError::Range { what: WHAT, reason });
        if file.version != 1 {
            return range("its version is not 1");
        }
        if file.anchors.len() > MANIFEST_ANCHORS_MAX {
            return range("it has more than 4 anchors");
        }
        let paths = file.place.iter().map(|place| &place.entry_proof);
        let mut paths = paths.chain(file.anchors.iter().map(|anchor| &anchor.entry_proof));
        if paths.any(|path| path.len() > PATH_MAX) {
            return range("a path of it is longer than 64 hashes");
        }
        Ok(file)
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// The file as it is printed: without what would not fit, and is not needed to verify it.
    pub fn printed(&self) -> Self {
        ManifestFile { place: None, anchors: Vec::new(), ..self.clone() }
    }

    /// The manifest entry and its place, as `.seal` files carry them.
    pub fn placed(&self) -> Option<Placed> {
        self.place.as_ref().map(|place| Placed {
            entry: self.entry.to_vec(),
            checkpoint: place.checkpoint.clone(),
            entry_proof: hashes(&place.entry_proof),
        })
    }

    /// Its anchors, as `.seal` files carry them.
    pub fn anchor_evidence(&self) -> Vec<AnchorEvidence> {
        let evidence = |anchor: &FiledAnchor| AnchorEvidence {
            body: anchor.body.to_vec(),
            entry_proof: hashes(&anchor.entry_proof),
        };
        self.anchors.iter().map(evidence).collect()
    }
}

fn hashes(path: &[Octets32]) -> Vec<Vec<u8>> {
    path.iter().map(|hash| hash.to_vec()).collect()
}
