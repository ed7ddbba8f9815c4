//! A `.seal` unpacked for judging: what seals share is held in common, and named by its SHA-256.
//!
//! A file in the spelling that programs write is read piece by piece ([`super::scan`]), and a piece that was met a moment
//! ago is not read again. Every other file goes through [`SealFile::decode`], which alone refuses.
//! Refuses to do: judge; take a piece of text for one that differs from it in a single byte.
//! Invariant: what is unpacked is what [`SealFile::decode`] makes of the same bytes, whatever was met before.

use super::memory::Key;
use super::scan;
use crate::body::seal::{DigestAlgorithm, SealBody};
use crate::der::DerError;
use crate::entry::{Entry, Kind};
use crate::hash::Hash;
use crate::revocation::RevocationEvidence;
use crate::seal_file::{AnchorEvidence, Cosigned, Head, Placed, SealFile, SealFileError};
use std::sync::Arc;

/// Texts of each kind that are known at a time.
const TEXTS_KNOWN: usize = 16;
/// Longest text known, in bytes.
const TEXT_BYTES: usize = 65_536;

/// A `.seal` file that has been read and not judged yet; a [`super::Verifier`] makes and takes it.
#[derive(Debug)]
pub struct Unpacked(pub(super) Result<(Parts, Token), SealFileError>);

impl Unpacked {
    /// The digest algorithm a document must be hashed with to be compared with this `.seal`; nothing is verified. `None`
    /// for a file that will be refused whatever the document is.
    pub fn wanted_digest(&self) -> Option<DigestAlgorithm> {
        let (_, token) = self.0.as_ref().ok()?;
        token.body.as_ref()?.as_ref().ok().map(|body| body.algorithm)
    }
}

/// The token, taken apart at once: whoever asks how the document is hashed needs it, too.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) entry: Result<Entry, DerError>,
    /// Of an entry that decodes and is a seal.
    pub(super) body: Option<Result<SealBody, DerError>>,
}

impl Token {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let entry = Entry::decode(bytes);
        let seal = entry.as_ref().ok().filter(|entry| entry.kind() == Some(Kind::Seal));
        let body = seal.map(|entry| SealBody::decode(&entry.content().body));
        Token { entry, body }
    }
}

/// What is in a `.seal` file besides the token, except members that nobody here knows.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) origin: String,
    pub(super) epoch: Arc<Der>,
    pub(super) enrolment: Arc<Der>,
    pub(super) heads: Vec<HeadParts>,
    pub(super) openings: Vec<Vec<u8>>,
    pub(super) erasures: Vec<Placed>,
    pub(super) anchors: Vec<AnchorEvidence>,
    pub(super) evidence: Option<Vec<u8>>,
    pub(super) crls: Vec<Arc<Der>>,
    pub(super) manifests: Vec<Placed>,
    pub(super) revocations: Vec<RevocationEvidence>,
    pub(super) cosignatures: Vec<Cosigned>,
}

/// A [`Head`]: all but the token's own path is shared by the seals of a batch.
#[derive(Debug)]
pub(super) struct HeadParts {
    pub(super) checkpoint: Arc<Note>,
    pub(super) entry_proof: Option<Vec<Hash>>,
    pub(super) epoch_proof: Arc<Path>,
    pub(super) pcrs: Option<Arc<Pcrs>>,
}

/// Bytes and their name.
#[derive(Debug)]
pub(super) struct Der {
    pub(super) bytes: Vec<u8>,
    pub(super) key: Key,
}

impl Der {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Der { key: Key::of(&bytes), bytes }
    }
}

/// A signed note and its name.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) text: String,
    pub(super) key: Key,
}

impl Note {
    pub(super) fn new(text: String) -> Self {
        Note { key: Key::of(text.as_bytes()), text }
    }
}

/// A path, if all of its items are hashes, and its name.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) hashes: Option<Vec<Hash>>,
    pub(super) key: Key,
}

impl Path {
    pub(super) fn new(hashes: Option<Vec<Hash>>) -> Self {
        let bytes: Vec<u8> = hashes.iter().flatten().flat_map(|hash| hash.0).collect();
        Path { hashes, key: Key::of(&bytes) }
    }
}

/// PCR values and their name.
#[derive(Debug)]
pub(super) struct Pcrs {
    pub(super) values: Vec<(u8, [u8; 32])>,
    pub(super) key: Key,
}

impl Pcrs {
    pub(super) fn new(values: Vec<(u8, [u8; 32])>) -> Self {
        // Each in 33 bytes, so that the bytes fall into values in one way only.
        let mut bytes = Vec::with_capacity(33 * values.len());
        for (number, value) in &values {
            bytes.push(*number);
            bytes.extend_from_slice(value);
        }
        Pcrs { key: Key::of(&bytes), values }
    }
}

impl From<SealFile> for Parts {
    fn from(file: SealFile) -> Self {
        Parts {
            origin: file.origin,
            epoch: Arc::new(Der::new(file.epoch)),
            enrolment: Arc::new(Der::new(file.enrolment)),
            heads: file.heads.into_iter().map(HeadParts::from).collect(),
            openings: file.openings,
            erasures: file.erasures,
            anchors: file.anchors,
            evidence: file.evidence,
            crls: file.crls.into_iter().map(|crl| Arc::new(Der::new(crl))).collect(),
            manifests: file.manifests,
            revocations: file.revocations,
            cosignatures: file.cosignatures,
        }
    }
}

impl From<Head> for HeadParts {
    fn from(head: Head) -> Self {
        HeadParts {
            checkpoint: Arc::new(Note::new(head.checkpoint)),
            entry_proof: hashes(&head.entry_proof),
            epoch_proof: Arc::new(Path::new(hashes(&head.epoch_proof))),
            pcrs: head.pcrs.map(|values| Arc::new(Pcrs::new(values))),
        }
    }
}

/// The items of a path, if each is a hash.
pub(super) fn hashes(items: &[Vec<u8>]) -> Option<Vec<Hash>> {
    items.iter().map(|item| Hash::from_slice(item)).collect()
}

/// The pieces of text met last, and what they say. Reading depends on nothing but the text, so it holds under every
/// trust file.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) enrolments: Known<Der>,
    pub(super) epochs: Known<Der>,
    pub(super) notes: Known<Note>,
    pub(super) paths: Known<Path>,
    pub(super) pcrs: Known<Pcrs>,
    pub(super) crls: Known<Der>,
}

impl Texts {
    /// Reads a file.
    pub(super) fn unpack(&mut self, bytes: &[u8]) -> Unpacked {
        match scan::parts(bytes, self) {
            Some((parts, token)) => Unpacked(Ok((parts, Token::new(&token)))),
            None => Unpacked(SealFile::decode(bytes).map(|file| {
                let token = Token::new(&file.entry);
                (Parts::from(file), token)
            })),
        }
    }
}

/// Pieces of one kind, the one met last in front.
#[derive(Debug)]
pub(super) struct Known<T>(Vec<(Box<str>, Arc<T>)>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known(Vec::new())
    }
}

impl<T> Known<T> {
    /// The known piece that `rest` begins with, and its length. Pieces are whole JSON strings or arrays: none is the
    /// beginning of another, and where one stands, a reader of JSON reads exactly it.
    pub(super) fn find(&mut self, rest: &str) -> Option<(usize, Arc<T>)> {
        let at = self.0.iter().position(|(text, _)| rest.starts_with(&**text))?;
        self.0[..=at].rotate_right(1);
        let (text, value) = &self.0[0];
        Some((text.len(), value.clone()))
    }

    /// Makes a piece known; the one that was met least recently is forgotten for it.
    pub(super) fn keep(&mut self, text: &str, value: T) -> Arc<T> {
        let value = Arc::new(value);
        if text.len() <= TEXT_BYTES {
            self.0.truncate(TEXTS_KNOWN - 1);
            self.0.insert(0, (text.into(), value.clone()));
        }
        value
    }
}
