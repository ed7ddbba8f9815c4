//! Mirror body: which neighbours hold this log, and up to which head, in their own cosigned words.
//!
//! Refuses to do: say that a key is a neighbour's; the neighbour's card or the fleet's roster does.
//! Invariants: a decoded body names each neighbour once, each key once, and no head of nothing;
//! [`MirrorBody::verify`] says whether every cosignature in it was made.

use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX, TreeState};
use crate::note::checkpoint_text;
use crate::origin::Origin;
use crate::sig::SignatureError;
use crate::witness::{Role, WitnessKey};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most neighbours in one body.
pub const NEIGHBOURS_MAX: usize = 32;
const WHAT: &str = "mirror body";

/// A head of this log under a neighbour's key.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct CosignedHead {
    /// The neighbour's key in that role, Ed25519.
    pub key: Octets32,
    /// The head.
    pub head: TreeState,
    /// When, Unix seconds by the neighbour's clock.
    pub seconds: u64,
    /// Ed25519 over `cosignature/v1`, time and checkpoint text; 64 bytes.
    pub signature: OctetString,
}

/// What one neighbour has.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The neighbour, by the origin of its own log.
    pub origin: String,
    /// It holds every entry under this head.
    #[rasn(tag(context, 0))]
    pub mirrored: Option<CosignedHead>,
    /// It found this head consistent with those before.
    #[rasn(tag(context, 1))]
    pub witnessed: Option<CosignedHead>,
}

impl Neighbour {
    /// What was cosigned in which role.
    pub fn heads(&self) -> impl Iterator<Item = (Role, &CosignedHead)> {
        let mirrored = self.mirrored.iter().map(|head| (Role::Mirror, head));
        mirrored.chain(self.witnessed.iter().map(|head| (Role::Witness, head)))
    }
}

/// Body of a `mirror` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct MirrorBody {
    /// 1.
    pub version: u64,
    /// The neighbours, in ascending order of their origins.
    pub neighbours: Vec<Neighbour>,
}

impl MirrorBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: MirrorBody = der::decode(WHAT, bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape; also for bodies about to be signed.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: WHAT, reason });
        if self.version != 1 {
            return range("its version is not 1");
        }
        if self.neighbours.is_empty() || self.neighbours.len() > NEIGHBOURS_MAX {
            return range("it names no neighbour, or more than 32");
        }
        if !self.neighbours.is_sorted_by(|a, b| a.origin < b.origin) {
            return range("its neighbours are not in ascending order");
        }
        let mut keys = Vec::new();
        for neighbour in &self.neighbours {
            if Origin::parse(&neighbour.origin).is_err() {
                return range("a neighbour is no origin");
            }
            if neighbour.heads().next().is_none() {
                return range("a neighbour has neither mirrored nor witnessed");
            }
            for (_, cosigned) in neighbour.heads() {
                if cosigned.head.size == 0 || cosigned.head.size > NUMBER_MAX {
                    return range("a head is empty or above 2^63 - 1");
                }
                if cosigned.signature.len() != 64
                    || cosigned.seconds == 0
                    || cosigned.seconds > NUMBER_MAX / 1_000
                {
                    return range("a cosignature's time or signature is out of bounds");
                }
                if keys.contains(&cosigned.key) {
                    return range("one key stands for two cosigners");
                }
                keys.push(cosigned.key);
            }
        }
        Ok(())
    }

    /// Checks every cosignature, of heads of the log named `origin`.
    pub fn verify(&self, origin: &Origin) -> Result<(), SignatureError> {
        for neighbour in &self.neighbours {
            let named = Origin::parse(&neighbour.origin).map_err(|_| SignatureError::BadKey)?;
            for (role, cosigned) in neighbour.heads() {
                let key = WitnessKey::of_peer(&named, role, *cosigned.key);
                let text = checkpoint_text(origin.as_str(), cosigned.head.size, &cosigned.head.root());
                key.ok_or(SignatureError::BadKey)?.verify(&text, cosigned.seconds, &cosigned.signature)?;
            }
        }
        Ok(())
    }
}
