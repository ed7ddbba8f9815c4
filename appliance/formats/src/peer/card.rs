//! A peer's card: the keys of one box, bound to its log by that log's own key, and where the box can be reached.
//!
//! Refuses to do: say that the box belongs to anybody; whoever takes a card compares its fingerprint with the box's.
//! Invariants: a [`PeerCard`] comes only from bytes whose four signatures verify, one by each of its four keys, all of
//! them different; so nobody can put somebody else's key on a card.

use crate::der::{self, DerError, Octets32};
use crate::entry::NUMBER_MAX;
use crate::note::{Checkpoint, NoteError, SignedNote};
use crate::origin::{Origin, OriginError};
use crate::sig::{Algorithm, PublicKey, SignatureError, label, labelled, labelled_with_origin};
use crate::trust::spoken;
use crate::witness::{Role, WitnessKey};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most bytes of a card.
pub const CARD_BYTES_MAX: usize = 4_096;
/// Most addresses on a card.
pub const ADDRESSES_MAX: usize = 8;
/// Most bytes of one address.
pub const ADDRESS_BYTES_MAX: usize = 256;
const WHAT: &str = "peer card";

/// Why a card is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// The bytes are no card, or a value in it is out of range.
    #[error(transparent)]
    Der(#[from] DerError),
    /// Of a version that this program does not know.
    #[error("the peer card is of a version that this program does not know; use a newer one")]
    Version,
    /// The name of its log.
    #[error("the peer card: {0}")]
    Origin(#[from] OriginError),
    /// A key is none, or its signature does not verify.
    #[error("the peer card's {key} key: {error}")]
    Key {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        error: SignatureError,
    },
    /// One key for two purposes.
    #[error("two of the peer card's keys are the same")]
    SameKey,
}

/// What a card says.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct CardContent {
    /// 1.
    pub version: u64,
    /// The box's log.
    pub origin: String,
    /// Ed25519; signs the log's checkpoints.
    pub log_key: Octets32,
    /// Ed25519; cosigns heads of other logs that were found consistent.
    pub witness_key: Octets32,
    /// Ed25519; cosigns heads of other logs whose entries are durable here.
    pub mirror_key: Octets32,
    /// Ed25519; the box's identity on the wire.
    pub transport_key: Octets32,
    /// Of two cards of one log the one with the higher number counts.
    pub sequence: u64,
    /// Multiaddresses, in the order in which they are worth trying.
    pub addresses: Vec<String>,
}

/// One signature by each key, all over [`CardContent::message`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct CardSignatures {
    /// By the log key.
    pub log: OctetString,
    /// By the witness key.
    pub witness: OctetString,
    /// By the mirror key.
    pub mirror: OctetString,
    /// By the transport key.
    pub transport: OctetString,
}

#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
struct SignedCard {
    content: CardContent,
    signatures: CardSignatures,
}

impl CardContent {
    /// What all four keys sign.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::PEER_CARD, &der::encode(self))
    }

    fn check(&self) -> Result<(), CardError> {
        let range = |reason| Err(DerError::Range { what: WHAT, reason }.into());
        if self.version != 1 {
            return Err(CardError::Version);
        }
        if self.sequence == 0 || self.sequence > NUMBER_MAX {
            return range("its sequence number is 0 or above 2^63 - 1");
        }
        if self.addresses.len() > ADDRESSES_MAX {
            return range("it has more than 8 addresses");
        }
        let plain = |address: &String| {
            address.len() <= ADDRESS_BYTES_MAX
                && address.starts_with('/')
                && address.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let twice = |(place, address): (usize, &String)| self.addresses[..place].contains(address);
        if !self.addresses.iter().all(plain) || self.addresses.iter().enumerate().any(twice) {
            return range("an address is no multiaddress of at most 256 bytes, or comes twice");
        }
        Ok(())
    }
}

/// A card that has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCard {
    bytes: Vec<u8>,
    content: CardContent,
    origin: Origin,
    log_key: PublicKey,
    witness_key: WitnessKey,
    mirror_key: WitnessKey,
}

impl PeerCard {
    /// Reads a card and verifies it.
    pub fn decode(bytes: &[u8]) -> Result<Self, CardError> {
        let card: SignedCard = der::decode(WHAT, bytes, CARD_BYTES_MAX)?;
        Self::verify(card, bytes.to_vec())
    }

    /// Puts the signatures of its four keys to a card.
    pub fn assemble(content: CardContent, signatures: CardSignatures) -> Result<Self, CardError> {
        let card = SignedCard { content, signatures };
        let bytes = der::encode(&card);
        if bytes.len() > CARD_BYTES_MAX {
            return Err(DerError::TooLong { what: WHAT, length: bytes.len(), limit: CARD_BYTES_MAX }.into());
        }
        Self::verify(card, bytes)
    }

    fn verify(card: SignedCard, bytes: Vec<u8>) -> Result<Self, CardError> {
        let SignedCard { content, signatures } = card;
        content.check()?;
        let origin = Origin::parse(&content.origin)?;
        let keys = [
            ("log", content.log_key, &signatures.log),
            ("witness", content.witness_key, &signatures.witness),
            ("mirror", content.mirror_key, &signatures.mirror),
            ("transport", content.transport_key, &signatures.transport),
        ];
        let same = |place: usize| keys[..place].iter().any(|(_, key, _)| *key == keys[place].1);
        if (0..keys.len()).any(same) {
            return Err(CardError::SameKey);
        }
        let message = content.message();
        for (key, bytes, signature) in &keys {
            PublicKey::from_bytes(Algorithm::Ed25519, &**bytes)
                .and_then(|public| public.verify(&message, signature))
                .map_err(|error| CardError::Key { key, error })?;
        }
        let bad = |key| CardError::Key { key, error: SignatureError::BadKey };
        let log_key = PublicKey::from_bytes(Algorithm::Ed25519, &*content.log_key).map_err(|_| bad("log"))?;
        let witness_key = WitnessKey::of_peer(&origin, Role::Witness, *content.witness_key);
        let mirror_key = WitnessKey::of_peer(&origin, Role::Mirror, *content.mirror_key);
        Ok(PeerCard {
            witness_key: witness_key.ok_or(bad("witness"))?,
            mirror_key: mirror_key.ok_or(bad("mirror"))?,
            bytes,
            content,
            origin,
            log_key,
        })
    }

    /// The bytes that were read: what stands in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// What it says.
    pub fn content(&self) -> &CardContent {
        &self.content
    }
    /// The box's log.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
    /// The key of the log.
    pub fn log_key(&self) -> &PublicKey {
        &self.log_key
    }
    /// What its cosignatures as a witness verify with.
    pub fn witness_key(&self) -> &WitnessKey {
        &self.witness_key
    }
    /// What its cosignatures as a mirror verify with.
    pub fn mirror_key(&self) -> &WitnessKey {
        &self.mirror_key
    }
    /// What its cosignatures in a role verify with.
    pub fn cosigner(&self, role: Role) -> &WitnessKey {
        match role {
            Role::Witness => &self.witness_key,
            Role::Mirror => &self.mirror_key,
        }
    }
    /// The key by which the box is known on the wire.
    pub fn transport_key(&self) -> &[u8; 32] {
        &self.content.transport_key
    }

    /// To be read out over the phone: names the log and its key, so that it stays the same when addresses or other keys
    /// change.
    pub fn fingerprint(&self) -> String {
        let origin = self.origin.as_str();
        let named = labelled_with_origin(label::PEER_FINGERPRINT, origin, &*self.content.log_key);
        spoken(&crate::hash::sha256(&[&named]))
    }

    /// Whether this card takes the place of `older`.
    pub fn replaces(&self, older: &PeerCard) -> bool {
        let same = self.origin == older.origin && self.content.log_key == older.content.log_key;
        same && self.content.sequence > older.content.sequence
    }

    /// Whether this card takes the place of `older` without a change of keys: its own keys vouch for all that is new.
    pub fn moves(&self, older: &PeerCard) -> bool {
        let keys = |card: &PeerCard| {
            let CardContent { witness_key, mirror_key, transport_key, .. } = card.content;
            [witness_key, mirror_key, transport_key]
        };
        self.replaces(older) && keys(self) == keys(older)
    }

    /// Whether two cards of different logs have a key in common: one box under two names, which must not count twice.
    pub fn shares_a_key(&self, other: &PeerCard) -> bool {
        let keys = |card: &PeerCard| {
            let CardContent { log_key, witness_key, mirror_key, transport_key, .. } = card.content;
            [log_key, witness_key, mirror_key, transport_key]
        };
        keys(self).iter().any(|key| keys(other).contains(key))
    }

    /// Verifies a checkpoint of the box's log. A quote line is not looked at.
    pub fn checkpoint(&self, note: &SignedNote) -> Result<Checkpoint, NoteError> {
        Checkpoint::open(note, &self.origin, &self.log_key, &self.content.log_key, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;
    use crate::note::{checkpoint_text, log_line};
    use ed25519_dalek::{Signer as _, SigningKey};

    fn keys(seed: u8) -> [SigningKey; 4] {
        [0, 1, 2, 3].map(|which| SigningKey::from_bytes(&[seed + which; 32]))
    }

    fn content(seed: u8, sequence: u64) -> CardContent {
        let [log, witness, mirror, transport] =
            keys(seed).map(|key| Octets32::new(key.verifying_key().to_bytes()));
        CardContent {
            version: 1,
            origin: Origin::derive("bank.example", &Hash([seed; 32]), 3).unwrap().to_string(),
            log_key: log,
            witness_key: witness,
            mirror_key: mirror,
            transport_key: transport,
            sequence,
            addresses: vec!["/ip4/192.0.2.7/tcp/7070".into()],
        }
    }

    fn card(seed: u8, content: CardContent) -> Result<PeerCard, CardError> {
        let [log, witness, mirror, transport] =
            keys(seed).map(|key| key.sign(&content.message()).to_bytes().to_vec().into());
        PeerCard::assemble(content, CardSignatures { log, witness, mirror, transport })
    }

    #[test]
    fn a_card_is_read_back_and_replaced_by_a_newer_one() {
        let old = card(1, content(1, 1)).unwrap();
        assert_eq!(PeerCard::decode(old.bytes()).as_ref(), Ok(&old));
        let moved = CardContent { addresses: Vec::new(), ..content(1, 2) };
        let new = card(1, moved).unwrap();
        assert!(new.replaces(&old) && !old.replaces(&new) && !old.replaces(&old));
        assert_eq!(new.fingerprint(), old.fingerprint());
        assert!(new.moves(&old) && !old.moves(&new) && !old.moves(&old));
        let other = card(11, content(11, 3)).unwrap();
        assert_ne!(other.fingerprint(), old.fingerprint());
        assert!(!other.replaces(&old) && !other.shares_a_key(&old) && old.shares_a_key(&new));
        assert_eq!(old.witness_key().name(), format!("{}/witness", old.origin()));
        assert_eq!(old.mirror_key().name(), format!("{}/mirror", old.origin()));
    }

    #[test]
    fn nobody_puts_a_foreign_key_on_a_card() {
        let foreign = content(11, 1);
        for change in [
            |content: &mut CardContent, foreign: &CardContent| content.log_key = foreign.log_key,
            |content: &mut CardContent, foreign: &CardContent| content.witness_key = foreign.witness_key,
            |content: &mut CardContent, foreign: &CardContent| content.mirror_key = foreign.mirror_key,
            |content: &mut CardContent, foreign: &CardContent| content.transport_key = foreign.transport_key,
        ] {
            let mut content = content(1, 1);
            change(&mut content, &foreign);
            assert!(matches!(card(1, content), Err(CardError::Key { .. })));
        }
        let same = CardContent { mirror_key: content(1, 1).witness_key, ..content(1, 1) };
        assert_eq!(card(1, same), Err(CardError::SameKey));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let genuine = card(1, content(1, 1)).unwrap();
        for at in 0..genuine.bytes().len() {
            let mut bytes = genuine.bytes().to_vec();
            bytes[at] ^= 1;
            assert!(PeerCard::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn only_checkpoints_of_its_own_log_are_its_own() {
        let card = card(1, content(1, 1)).unwrap();
        let [log, witness, ..] = keys(1);
        let origin = card.origin().as_str();
        let note = |key: &SigningKey, origin: &str| {
            let text = checkpoint_text(origin, 5, &Hash([9; 32]));
            let line =
                log_line(origin, &key.verifying_key().to_bytes(), &key.sign(text.as_bytes()).to_bytes());
            SignedNote { text, lines: vec![line] }
        };
        assert_eq!(card.checkpoint(&note(&log, origin)).unwrap().size(), 5);
        assert!(matches!(card.checkpoint(&note(&witness, origin)), Err(NoteError::Unsigned(_))));
        assert!(matches!(card.checkpoint(&note(&log, "else")), Err(NoteError::OtherOrigin(_))));
    }
}
