//! A peer's name on the wire: its Ed25519 public key, and libp2p's spelling of it.
//!
//! Invariant: the two spellings are one to one; a libp2p id that is not an Ed25519 key has none of ours.

use libp2p::PeerId;
use libp2p::identity::{PublicKey, ed25519};
use std::fmt;

/// An Ed25519 public key: who a peer is, and what its end of a connection proves to hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey([u8; 32]);

impl PeerKey {
    /// These bytes, whatever they are; [`crate::Wire::start`] refuses a neighbour whose bytes are no point of the curve.
    pub const fn new(bytes: [u8; 32]) -> Self {
        PeerKey(bytes)
    }

    /// The key's 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// libp2p's name for it; `None` when the bytes are no key.
    pub(crate) fn id(&self) -> Option<PeerId> {
        let key = ed25519::PublicKey::try_from_bytes(&self.0).ok()?;
        Some(PublicKey::from(key).to_peer_id())
    }

    /// Whose id this is; `None` for ids of other kinds of keys. An Ed25519 id holds its key, not a hash of it.
    pub(crate) fn of(id: &PeerId) -> Option<Self> {
        let key = PublicKey::try_decode_protobuf(id.as_ref().digest()).ok()?;
        Some(PeerKey(key.try_into_ed25519().ok()?.to_bytes()))
    }
}

impl From<[u8; 32]> for PeerKey {
    fn from(bytes: [u8; 32]) -> Self {
        PeerKey(bytes)
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", hex::encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    #[test]
    fn key_and_id_name_each_other() {
        let id = Keypair::generate_ed25519().public().to_peer_id();
        let key = PeerKey::of(&id).unwrap();
        assert_eq!(key.id(), Some(id));
        assert_eq!(PeerKey::of(&PeerId::random()), None, "a hash is no key");
        // y = 2 is no point of the curve.
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert_eq!(PeerKey::new(bytes).id(), None);
    }
}
