//! Signatures: which algorithms exist, and the one message every signature here is made over.
//!
//! Refuses to do: hold secrets, pick algorithms by guessing, accept small-order Ed25519 points.
//! Invariant: no two purposes share a label, so a signature for one never verifies for another.

use ed25519_dalek as ed25519;
use p256::ecdsa::signature::Verifier;
use rasn::{AsnType, Decode, Encode};

/// Domain labels. The signed message is `label || 0x00 || ...` as `docs/formats.md` spells out.
pub mod label {
    /// Entry content, signed by the sealing key of its epoch.
    pub const ENTRY: &str = "bulla/entry/v1";
    /// Enrolment content, signed by the fleet root or a fleet CA.
    pub const ENROLMENT: &str = "bulla/enrolment/v1";
    /// Revocation content, signed by the fleet root or a fleet CA.
    pub const REVOCATION: &str = "bulla/revocation/v1";
    /// Succession content, signed by the fleet root or a fleet CA.
    pub const SUCCESSION: &str = "bulla/succession/v1";
    /// Fleet certificate content, signed by its issuer.
    pub const FLEET_CERTIFICATE: &str = "bulla/fleet-certificate/v1";
    /// Epoch statement, endorsed by a quote of the attestation key.
    pub const EPOCH: &str = "bulla/quote/epoch/v1";
    /// Epoch statement, signed by the sealing key of the epoch before.
    pub const EPOCH_SUCCESSOR: &str = "bulla/epoch-successor/v1";
    /// Checkpoint text, covered by a quote of the attestation key.
    pub const CHECKPOINT_QUOTE: &str = "bulla/quote/checkpoint/v1";
    /// Mode statement, covered by a quote of the attestation key.
    pub const MODE_QUOTE: &str = "bulla/quote/mode/v1";
    /// Manifest statement, covered by a quote of the attestation key.
    pub const MANIFEST_QUOTE: &str = "bulla/quote/manifest/v1";
    /// Challenge between neighbours, covered by a quote of the attestation key.
    pub const CHALLENGE_QUOTE: &str = "bulla/quote/challenge/v1";
    /// Batch of checkpoints, hashed by time-stamp authorities.
    pub const ANCHOR: &str = "bulla/anchor/v1";
    /// Rollback counter, certified by the attestation key together with the head it stands for.
    pub const COUNTER: &str = "bulla/certify/counter/v1";
    /// Key certification (TPM2_Certify) by the attestation key.
    pub const KEY: &str = "bulla/certify/key/v1";
    /// Salted commitment to one field.
    pub const COMMITMENT: &str = "bulla/commitment/v1";
    /// Identity of a box inside a fleet.
    pub const BOX_ID: &str = "bulla/box-id/v1";
    /// Manifest of a backup, signed by the log key.
    pub const BACKUP: &str = "bulla/backup/v1";
    /// A person's card, signed by the person's own key.
    pub const CEREMONY_CARD: &str = "bulla/ceremony-card/v1";
    /// Hash of a ceremony's plan.
    pub const CEREMONY_PLAN: &str = "bulla/ceremony-plan/v1";
    /// Message of a ceremony, signed by its sender.
    pub const CEREMONY_MESSAGE: &str = "bulla/ceremony-message/v1";
    /// Hash over the commitments that a custodian was shown.
    pub const CEREMONY_SEEN: &str = "bulla/ceremony-seen/v1";
    /// Minutes of a ceremony, signed by the fleet root it made.
    pub const CEREMONY_TRANSCRIPT: &str = "bulla/ceremony-transcript/v1";
    /// Hash of an action that needs approval.
    pub const ACTION: &str = "bulla/action/v1";
    /// Approval of an action, signed by a person's key.
    pub const APPROVAL: &str = "bulla/approval/v1";
    /// Hash of a version of the roster.
    pub const ROSTER_VERSION: &str = "bulla/roster-version/v1";
    /// Hash of an enrolment request: the transcript that everything later is bound to.
    pub const ENROLMENT_REQUEST: &str = "bulla/enrolment-request/v1";
    /// What a box proves while it is enrolled: quoted, certified, authenticated or signed.
    pub const ENROLMENT_PROOF: &str = "bulla/enrolment-proof/v1";
    /// Fingerprint of an enrolment request, read out by whoever stands before the box.
    pub const ENROLMENT_FINGERPRINT: &str = "bulla/enrolment-fingerprint/v1";
    /// A backup of a fleet directory.
    pub const FLEET_BACKUP: &str = "bulla/fleet-backup/v1";
    /// A lease: a hub answers for a box.
    pub const LEASE: &str = "bulla/lease/v1";
    /// An update of the image of the operating system.
    pub const UPDATE: &str = "bulla/update/v1";
    /// A box asks the registrar for the roster, signed by the transport key of its card.
    pub const ROSTER_REQUEST: &str = "bulla/roster-request/v1";
    /// A peer's card, signed by each of its keys.
    pub const PEER_CARD: &str = "bulla/peer-card/v1";
    /// Fingerprint of a peer: its log and the log's key.
    pub const PEER_FINGERPRINT: &str = "bulla/peer-fingerprint/v1";
    /// What a box is about to destroy, signed by the log key and covered by a quote of the attestation key.
    pub const RETIREMENT: &str = "bulla/retirement/v1";
    /// What it has destroyed, covered by a quote of the farewell key.
    pub const RETIREMENT_OUTCOME: &str = "bulla/retirement-outcome/v1";
    /// Fingerprint of a trust file.
    pub const TRUST_FINGERPRINT: &str = "bulla/trust-fingerprint/v1";
}

/// Signature algorithms a sealing key may have.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032): 32-byte public key, 64-byte signature over the message itself.
    Ed25519 = 0,
    /// ECDSA on P-256 with SHA-256: 65-byte uncompressed point, signature r || s (64 bytes).
    P256 = 1,
}

/// Why a signature or public key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The public key is not a valid point in its fixed encoding.
    #[error("the public key is not a valid key of its algorithm")]
    BadKey,
    /// The signature has the wrong length or does not verify.
    #[error("the signature does not verify")]
    BadSignature,
}

/// A public key that has been checked to be a valid point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Ed25519.
    Ed25519(ed25519::VerifyingKey),
    /// P-256.
    P256(p256::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// Reads a public key: 32 bytes for Ed25519, 65 bytes (0x04 || X || Y) for P-256.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, SignatureError> {
        match algorithm {
            Algorithm::Ed25519 => {
                let raw: &[u8; 32] = bytes.try_into().map_err(|_| SignatureError::BadKey)?;
                let key = ed25519::VerifyingKey::from_bytes(raw).map_err(|_| SignatureError::BadKey)?;
                // A coordinate beyond the prime would be a second spelling of another key.
                if key.is_weak() || key.to_edwards().compress().as_bytes() != raw {
                    return Err(SignatureError::BadKey);
                }
                Ok(PublicKey::Ed25519(key))
            }
            Algorithm::P256 => {
                if bytes.len() != 65 || bytes[0] != 0x04 {
                    return Err(SignatureError::BadKey);
                }
                let key =
                    p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| SignatureError::BadKey)?;
                Ok(PublicKey::P256(key))
            }
        }
    }

    /// Verifies `signature` (64 bytes) over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        match self {
            PublicKey::Ed25519(key) => {
                let signature =
                    ed25519::Signature::from_slice(signature).map_err(|_| SignatureError::BadSignature)?;
                key.verify_strict(message, &signature).map_err(|_| SignatureError::BadSignature)
            }
            PublicKey::P256(key) => {
                let signature = p256::ecdsa::Signature::from_slice(signature)
                    .map_err(|_| SignatureError::BadSignature)?;
                key.verify(message, &signature).map_err(|_| SignatureError::BadSignature)
            }
        }
    }
}

/// `label || 0x00 || payload`: the message of a signature whose payload names its own origin.
pub fn labelled(label: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(label.len() + 1 + payload.len());
    message.extend_from_slice(label.as_bytes());
    message.push(0);
    message.extend_from_slice(payload);
    message
}

/// `label || 0x00 || uint16 BE length of origin || origin || payload`: the message of a signature
/// whose payload does not name its origin.
pub fn labelled_with_origin(label: &str, origin: &str, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(origin.len()).expect("origins are at most 255 bytes by Origin::parse");
    let mut message = Vec::with_capacity(label.len() + 3 + origin.len() + payload.len());
    message.extend_from_slice(label.as_bytes());
    message.push(0);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(origin.as_bytes());
    message.extend_from_slice(payload);
    message
}
