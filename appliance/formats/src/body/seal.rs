//! Seal body: which document, seen how, sent by whom, committed metadata, relations.
//!
//! Refuses to do: carry personal data. User, document id and free metadata are present only as
//! salted hashes; their openings live elsewhere and can be erased without touching the log (G5).
//! Invariant: a decoded body has a digest of the right length and at most
//! [`COMMITMENTS_MAX`] commitments and [`RELATIONS_MAX`] relations.

use super::TEXT_BYTES_MAX;
use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX};
use crate::hash::{Hash, sha256};
use crate::sig::label;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use sha2::Digest as _;
use std::fmt;

/// Most commitments one seal carries.
pub const COMMITMENTS_MAX: usize = 64;
/// Most relations one seal carries.
pub const RELATIONS_MAX: usize = 16;
/// Longest opened value in bytes.
pub const OPENING_VALUE_BYTES_MAX: usize = 8_192;

/// Digest algorithms of documents.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum DigestAlgorithm {
    /// SHA-256, 32 bytes.
    Sha256 = 0,
    /// SHA-512, 64 bytes.
    Sha512 = 1,
    /// SHA3-256, 32 bytes.
    Sha3_256 = 2,
}

impl DigestAlgorithm {
    /// Length of the digest in bytes.
    pub fn digest_bytes(self) -> usize {
        match self {
            DigestAlgorithm::Sha256 | DigestAlgorithm::Sha3_256 => 32,
            DigestAlgorithm::Sha512 => 64,
        }
    }

    /// The name used in `Content-Digest` (RFC 9530) and in output.
    pub fn name(self) -> &'static str {
        match self {
            DigestAlgorithm::Sha256 => "sha-256",
            DigestAlgorithm::Sha512 => "sha-512",
            DigestAlgorithm::Sha3_256 => "sha3-256",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512, Self::Sha3_256].into_iter().find(|a| a.name() == name)
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Hashes a document piece by piece with one algorithm.
#[derive(Debug, Clone)]
pub struct DocumentHasher {
    state: HasherState,
    size: u64,
}

#[derive(Debug, Clone)]
enum HasherState {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Sha3_256(sha3::Sha3_256),
}

impl DocumentHasher {
    /// Starts with nothing hashed.
    pub fn new(algorithm: DigestAlgorithm) -> Self {
        let state = match algorithm {
            DigestAlgorithm::Sha256 => HasherState::Sha256(sha2::Sha256::new()),
            DigestAlgorithm::Sha512 => HasherState::Sha512(sha2::Sha512::new()),
            DigestAlgorithm::Sha3_256 => HasherState::Sha3_256(sha3::Sha3_256::new()),
        };
        DocumentHasher { state, size: 0 }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        match &mut self.state {
            HasherState::Sha256(h) => h.update(piece),
            HasherState::Sha512(h) => h.update(piece),
            HasherState::Sha3_256(h) => h.update(piece),
        }
    }

    /// The digest and the number of bytes hashed.
    pub fn finish(self) -> DocumentDigest {
        let (algorithm, value) = match self.state {
            HasherState::Sha256(h) => (DigestAlgorithm::Sha256, h.finalize().to_vec()),
            HasherState::Sha512(h) => (DigestAlgorithm::Sha512, h.finalize().to_vec()),
            HasherState::Sha3_256(h) => (DigestAlgorithm::Sha3_256, h.finalize().to_vec()),
        };
        DocumentDigest { algorithm, value, size: Some(self.size) }
    }
}

/// The digest of a document, and its size when the bytes were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentDigest {
    /// Which hash.
    pub algorithm: DigestAlgorithm,
    /// The digest.
    pub value: Vec<u8>,
    /// Bytes hashed; `None` when only the digest is known.
    pub size: Option<u64>,
}

/// What the box itself saw.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Observation {
    /// The bytes passed through the box, which hashed them itself.
    BytesObserved = 0,
    /// Only a digest was handed in; the box never saw the document.
    DigestClaimed = 1,
}

/// How the client proved who it is.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum ClientMethod {
    /// Bearer token.
    BearerToken = 0,
    /// TLS client certificate.
    ClientCertificate = 1,
    /// On the box itself.
    Local = 2,
}

/// The authenticated scanner.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its registered name.
    pub id: String,
    /// How it proved it.
    pub method: ClientMethod,
}

/// Which field a commitment hides.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Field {
    /// The person at the scanner.
    User = 0,
    /// The institution's id of the document.
    DocumentId = 1,
    /// Any other name and value.
    Metadata = 2,
}

/// How sure the box is of a committed value.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Assurance {
    /// The client said so.
    Asserted = 0,
    /// The box verified it.
    Authenticated = 1,
}

/// A salted hash in place of a value.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commitment {
    /// Which field.
    pub field: Field,
    /// How sure the box was.
    pub assurance: Assurance,
    /// SHA-256("bulla/commitment/v1" || 0x00 || DER of the [`Opening`]).
    pub hash: Octets32,
}

/// What opens a commitment.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Opening {
    /// Which field.
    pub field: Field,
    /// How sure the box was.
    pub assurance: Assurance,
    /// 256 random bits.
    pub salt: Octets32,
    /// Name of a metadata field; `user` or `document-id` for the other two.
    pub name: String,
    /// The value.
    pub value: String,
}

impl Opening {
    /// Reads an opening.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let opening: Opening = der::decode("opening", bytes, OPENING_VALUE_BYTES_MAX + 512)?;
        opening.check()?;
        Ok(opening)
    }

    /// Checks names and lengths.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "opening", reason });
        if self.name.is_empty() || self.name.len() > 128 {
            return range("its name is empty or longer than 128 bytes");
        }
        if self.value.len() > OPENING_VALUE_BYTES_MAX {
            return range("its value is longer than 8192 bytes");
        }
        let fixed = match self.field {
            Field::User => Some("user"),
            Field::DocumentId => Some("document-id"),
            Field::Metadata => None,
        };
        if fixed.is_some_and(|name| name != self.name) {
            return range("its name does not fit its field");
        }
        Ok(())
    }

    /// The commitment this opens.
    pub fn commitment(&self) -> Commitment {
        let hash = sha256(&[label::COMMITMENT.as_bytes(), &[0], &der::encode(self)]);
        Commitment { field: self.field, assurance: self.assurance, hash: Octets32::new(hash.0) }
    }
}

/// What a document is to an earlier one.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum RelationKind {
    /// Replaces it.
    Supersedes = 0,
    /// Was made from it.
    DerivedFrom = 1,
    /// Declares it void (a mis-scan).
    Annuls = 2,
}

impl RelationKind {
    /// The name used in the API and in output.
    pub fn name(self) -> &'static str {
        match self {
            RelationKind::Supersedes => "supersedes",
            RelationKind::DerivedFrom => "derived-from",
            RelationKind::Annuls => "annuls",
        }
    }
}

/// Relation to another entry, by its leaf hash.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relation {
    /// Which relation.
    pub kind: RelationKind,
    /// Leaf hash of the other entry.
    pub entry: Octets32,
}

/// Body of a `seal` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealBody {
    /// Digest algorithm.
    pub algorithm: DigestAlgorithm,
    /// Digest of the document.
    pub digest: OctetString,
    /// Size in bytes; always present when the bytes were observed.
    #[rasn(tag(context, 0))]
    pub size: Option<u64>,
    /// Media type as the client named it.
    pub media_type: String,
    /// What the box saw.
    pub observation: Observation,
    /// Who sent it.
    pub client: Client,
    /// How it travelled, e.g. `https/1.1 tls1.3`.
    pub transport: String,
    /// Salted hashes of personal data and metadata.
    pub commitments: Vec<Commitment>,
    /// Relations to other entries.
    pub relations: Vec<Relation>,
}

impl SealBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: SealBody = der::decode("seal body", bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// Checks lengths and ranges; also for bodies about to be signed.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "seal body", reason });
        if self.digest.len() != self.algorithm.digest_bytes() {
            return range("its digest has not the length of its algorithm");
        }
        match (self.observation, self.size) {
            (Observation::BytesObserved, None) => return range("the bytes were observed but have no size"),
            (_, Some(size)) if size > NUMBER_MAX => return range("its size is larger than 2^63 - 1"),
            _ => {}
        }
        if self.media_type.is_empty() || self.media_type.len() > 255 {
            return range("its media type is empty or longer than 255 bytes");
        }
        if self.client.id.is_empty() || self.client.id.len() > 255 || self.transport.len() > TEXT_BYTES_MAX {
            return range("its client or transport is empty or too long");
        }
        if self.commitments.len() > COMMITMENTS_MAX || self.relations.len() > RELATIONS_MAX {
            return range("it has more than 64 commitments or 16 relations");
        }
        Ok(())
    }

    /// The digest as a value to compare with.
    pub fn document_digest(&self) -> DocumentDigest {
        DocumentDigest { algorithm: self.algorithm, value: self.digest.to_vec(), size: self.size }
    }

    /// Leaf hashes of related entries.
    pub fn related(&self) -> impl Iterator<Item = (RelationKind, Hash)> + '_ {
        self.relations.iter().map(|r| (r.kind, Hash(*r.entry)))
    }
}
