//! Entry: one leaf of the log, in DER, signed by the sealing key of its epoch.
//!
//! Refuses to do: interpret bodies it does not know. An entry of an unknown kind still has a
//! checkable header, signature and proofs; its meaning is refused.
//! Invariants: an [`Entry`] was decoded from bytes that encode back identically, is at most
//! [`ENTRY_BYTES_MAX`] long, and its numbers are in range. ASN.1: `docs/formats.md` section 3.

use crate::der::{self, DerError, Octets32};
use crate::hash::{Hash, empty_root, leaf_hash};
use crate::sig::{self, PublicKey, SignatureError, label};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::fmt;

/// Longest entry in bytes (a C2SP entry bundle carries it with a two-byte length).
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// Largest index, size, Lamport time and millisecond count: 2^63 - 1, so that every language can hold it.
pub const NUMBER_MAX: u64 = i64::MAX as u64;

/// Where a signing key lived while it signed.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Residency {
    /// Inside the TPM; one TPM signature per entry.
    Tpm = 0,
    /// In RAM only, endorsed by a TPM quote, zeroised at rotation.
    TpmEndorsedRam = 1,
    /// On a machine without TPM; production policy refuses it.
    Software = 2,
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Residency::Tpm => "tpm",
            Residency::TpmEndorsedRam => "tpm-endorsed-ram",
            Residency::Software => "software",
        })
    }
}

/// The mode the box was in when it made the entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Mode {
    /// Every configured authority is reachable.
    Online = 0,
    /// Some authority is unreachable.
    Degraded = 1,
    /// No authority or hub has been reachable for the configured time.
    Emergency = 2,
    /// The world is back; the gap is being closed.
    Reconciling = 3,
    /// Read-only.
    Safe = 4,
    /// No authority is configured: nothing is expected to be reachable.
    AirGapped = 5,
    /// The state on disk may be older than what this box has signed.
    RollbackSuspected = 6,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Online => "online",
            Mode::Degraded => "degraded",
            Mode::Emergency => "emergency",
            Mode::Reconciling => "reconciling",
            Mode::Safe => "safe",
            Mode::AirGapped => "air-gapped",
            Mode::RollbackSuspected => "rollback-suspected",
        })
    }
}

/// Body kinds. Numbers are for ever; those without a body module here are reserved, and entries of
/// such kinds are opaque to this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs, reason = "each variant's name is its meaning; docs/formats.md section 4 has the table")]
pub enum Kind {
    Seal = 0,
    KeyEpoch = 1,
    Attestation = 2,
    Anchor = 3,
    ModeChange = 4,
    Manifest = 5,
    Clock = 6,
    Roster = 7,
    Revocation = 8,
    Succession = 9,
    OperatorAction = 10,
    Mirror = 11,
    Integrity = 12,
    SelfTest = 13,
    Incident = 14,
    Retention = 15,
}

impl Kind {
    /// All kinds, in number order.
    pub const ALL: [Kind; 16] = [
        Kind::Seal,
        Kind::KeyEpoch,
        Kind::Attestation,
        Kind::Anchor,
        Kind::ModeChange,
        Kind::Manifest,
        Kind::Clock,
        Kind::Roster,
        Kind::Revocation,
        Kind::Succession,
        Kind::OperatorAction,
        Kind::Mirror,
        Kind::Integrity,
        Kind::SelfTest,
        Kind::Incident,
        Kind::Retention,
    ];

    /// The kind of this number, if this version has a name for it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name used in documents and output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Seal => "seal",
            Kind::KeyEpoch => "key-epoch",
            Kind::Attestation => "attestation",
            Kind::Anchor => "anchor",
            Kind::ModeChange => "mode-change",
            Kind::Manifest => "manifest",
            Kind::Clock => "clock",
            Kind::Roster => "roster",
            Kind::Revocation => "revocation",
            Kind::Succession => "succession",
            Kind::OperatorAction => "operator-action",
            Kind::Mirror => "mirror",
            Kind::Integrity => "integrity",
            Kind::SelfTest => "self-test",
            Kind::Incident => "incident",
            Kind::Retention => "retention",
        }
    }
}

/// The box's own clock: advisory, with its stated uncertainty.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalTime {
    /// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
    pub unix_millis: u64,
    /// Bound of the error in milliseconds; absent when the box knows none.
    #[rasn(tag(context, 0))]
    pub uncertainty_millis: Option<u64>,
}

/// Size and root of a tree.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct TreeState {
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Octets32,
}

impl TreeState {
    /// Pairs a size with its root.
    pub fn new(size: u64, root: Hash) -> Self {
        TreeState { size, root: Octets32::new(root.0) }
    }

    /// The root as a hash.
    pub fn root(&self) -> Hash {
        Hash(*self.root)
    }
}

/// Points at one entry of the same log.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryRef {
    /// Its index.
    pub index: u64,
    /// Its leaf hash.
    pub leaf_hash: Octets32,
}

/// Everything of an entry that the signature covers.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryContent {
    /// 1.
    pub version: u64,
    /// Position in the log: the monotonic counter.
    pub index: u64,
    /// Lamport time.
    pub lamport: u64,
    /// Advisory local time.
    pub time: LocalTime,
    /// Mode in force.
    pub mode: Mode,
    /// Whether this entry belongs to a drill.
    pub drill: bool,
    /// Number of the key epoch whose sealing key signs.
    pub epoch: u64,
    /// Where that key lived.
    pub residency: Residency,
    /// The tree before the batch of this entry.
    pub previous: TreeState,
    /// The newest external time evidence in the log, if there is any.
    #[rasn(tag(context, 0))]
    pub evidence: Option<EntryRef>,
    /// Kind of the body, see [`Kind`].
    pub kind: u16,
    /// DER of the body.
    pub body: OctetString,
}

impl EntryContent {
    /// The message the sealing key signs.
    pub fn message(&self, origin: &str) -> Vec<u8> {
        sig::labelled_with_origin(label::ENTRY, origin, &der::encode(self))
    }

    fn check_ranges(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "entry", reason });
        if self.version != 1 {
            return range("its version is not 1");
        }
        let numbers = [
            self.index,
            self.lamport,
            self.time.unix_millis,
            self.time.uncertainty_millis.unwrap_or(0),
            self.epoch,
            self.previous.size,
            self.evidence.as_ref().map_or(0, |e| e.index),
        ];
        if numbers.iter().any(|n| *n > NUMBER_MAX) {
            return range("a number is larger than 2^63 - 1");
        }
        if self.previous.size > self.index {
            return range("the tree before its batch is larger than its index");
        }
        if self.previous.size == 0 && self.previous.root() != empty_root() {
            return range("the tree before its batch is empty but has not the empty root");
        }
        if self.evidence.as_ref().is_some_and(|e| e.index >= self.index) {
            return range("its time evidence is not older than itself");
        }
        Ok(())
    }
}

/// A signed entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
struct SignedEntry {
    content: EntryContent,
    signature: OctetString,
}

/// An entry together with the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    bytes: Vec<u8>,
    content: EntryContent,
    signature: Vec<u8>,
}

impl Entry {
    /// Reads an entry. Its signature is *not* checked here: see [`Entry::verify_signature`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let signed: SignedEntry = der::decode("entry", bytes, ENTRY_BYTES_MAX)?;
        signed.content.check_ranges()?;
        Ok(Entry { bytes: bytes.to_vec(), content: signed.content, signature: signed.signature.to_vec() })
    }

    /// Puts a signature (64 bytes) to `content`.
    pub fn assemble(content: EntryContent, signature: Vec<u8>) -> Result<Self, DerError> {
        content.check_ranges()?;
        let signed = SignedEntry { content, signature: signature.clone().into() };
        let bytes = der::encode(&signed);
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(DerError::TooLong { what: "entry", length: bytes.len(), limit: ENTRY_BYTES_MAX });
        }
        Ok(Entry { bytes, content: signed.content, signature })
    }

    /// The exact bytes that are the leaf.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// RFC 6962 leaf hash.
    pub fn leaf_hash(&self) -> Hash {
        leaf_hash(&self.bytes)
    }

    /// What the signature covers.
    pub fn content(&self) -> &EntryContent {
        &self.content
    }

    /// The signature as it stands in the entry: 64 bytes when it is genuine.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The kind, when this version has a name for it.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.content.kind)
    }

    /// Checks the signature for the log named `origin`.
    pub fn verify_signature(&self, origin: &str, key: &PublicKey) -> Result<(), SignatureError> {
        // What was decoded encodes back identically, so the content stands in the entry as it would be encoded.
        let content =
            der::first_element(&self.bytes).expect("an entry is a sequence that begins with its content");
        key.verify(&sig::labelled_with_origin(label::ENTRY, origin, content), &self.signature)
    }
}
