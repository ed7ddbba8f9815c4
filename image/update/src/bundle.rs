//! A bundle file: who says what of it, and its parts (docs/formats.md, *Update bundles*).
//!
//! Refuses: a file that is longer or shorter than its statement says; a part that is not what was signed, each time it is
//! read: a stick may give other bytes the second time.
//! Invariant: whoever has a [`Bundle`] knows that its statement is signed by a key that was given.

use anyhow::{Context, Result, ensure};
use bulla_formats::der::Octets32;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::update::{HEAD_BYTES, Part, Update, VerifiedUpdate, parse_head};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// How much is read and written at a time.
const CHUNK: usize = 1 << 20;

/// A bundle whose statement is signed.
pub struct Bundle {
    file: File,
    update: VerifiedUpdate,
    /// SHA-256 of the signed statement.
    statement: Hash,
    /// Where the first part begins.
    parts_at: u64,
}

impl Bundle {
    /// Opens a bundle that one of `keys` (Ed25519) has signed; reads none of its parts.
    ///
    /// # Errors
    /// It is none, nobody of these signed it, or its length is another.
    pub fn open(path: &Path, keys: &[[u8; 32]]) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let short = || format!("{} is no update bundle, or was copied only in part", path.display());
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head).with_context(short)?;
        let mut statement = vec![0; parse_head(&head)?];
        file.read_exact(&mut statement).with_context(short)?;
        let update = Update::decode(&statement)?;
        let verified = update.verify(keys)?;
        let (found, expected) = (file.metadata()?.len(), update.file_bytes());
        ensure!(
            found == expected,
            "the bundle has {found} bytes and not {expected}: it was copied only in part, or changed"
        );
        Ok(Self {
            file,
            update: verified,
            statement: sha256(&[&statement]),
            parts_at: (HEAD_BYTES + statement.len()) as u64,
        })
    }

    /// What its makers say.
    pub fn update(&self) -> &VerifiedUpdate {
        &self.update
    }

    /// SHA-256 of the signed statement: the bundle's name in the box's log.
    pub fn statement(&self) -> Octets32 {
        Octets32::new(self.statement.0)
    }

    /// Reads all parts and holds them against their hashes; gives them to nobody.
    ///
    /// # Errors
    /// A part is damaged.
    pub fn check_parts(&mut self) -> Result<()> {
        for part in 0..self.update.content().parts().len() {
            self.read_part(part, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Hands out a part in pieces of a mebibyte: 0 the root, 1 its hashes, 2 the kernel image.
    ///
    /// # Errors
    /// It cannot be read, `take` refuses a piece, or, after the last one, the bytes were not those that were signed.
    pub fn read_part(&mut self, part: usize, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let parts = self.update.content().parts();
        let before: u64 = parts.iter().take(part).map(|part| part.bytes).sum();
        let Part { bytes, hash } =
            parts.get(part).map(|part| (*part).clone()).context("a bundle has three parts")?;
        self.file.seek(SeekFrom::Start(self.parts_at + before))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let piece = buffer.get_mut(..left.min(CHUNK as u64) as usize).unwrap_or_default();
            self.file.read_exact(piece).context("the bundle cannot be read to its end")?;
            hasher.update(&*piece);
            left -= piece.len() as u64;
            take(piece)?;
        }
        let found: [u8; 32] = hasher.finalize().into();
        ensure!(found == *hash, "the bundle is damaged: its part {part} is not what was signed");
        Ok(())
    }
}
