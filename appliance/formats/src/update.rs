//! Update bundle: one file with which a box in a branch takes its next image, and what its makers say of it.
//!
//! A signed statement first, then the parts it names, one behind the other: root, hashes of the root, kernel image. So a
//! reader knows who says it, and whether it wants it, before it takes a byte of a part.
//! Refuses to do: read the parts; their sizes and hashes are here, and `bulla-update` holds the bytes against them.
//! Invariant: a [`VerifiedUpdate`] exists only for a statement that one of the given keys has signed.

use crate::der::{self, DerError, Octets32};
use crate::entry::NUMBER_MAX;
use crate::hash::Hash;
use crate::sig::{Algorithm, PublicKey, label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::fmt;

/// What a bundle begins with; its line feed included.
pub const MAGIC: &[u8; 15] = b"bulla-update/1\n";
/// The magic and the length of the statement.
pub const HEAD_BYTES: usize = MAGIC.len() + 4;
/// Longest statement in bytes.
pub const UPDATE_BYTES_MAX: usize = 4_096;
/// Largest part in bytes: 1 GiB.
pub const PART_BYTES_MAX: u64 = 1 << 30;
/// Largest number in a release.
pub const RELEASE_NUMBER_MAX: u64 = 65_535;
const TARGET_BYTES_MAX: usize = 64;
/// A part that is written to a partition has whole sectors.
const SECTOR: u64 = 512;

/// Which image: three numbers, compared in this order.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Release {
    /// First number; each is at most 65,535.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
}

impl Release {
    /// Older than every image.
    pub const ZERO: Release = Release { major: 0, minor: 0, patch: 0 };

    /// Reads `1.2.3`: three decimal numbers up to 65,535 without zeros in front.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| {
            let number = part.parse().ok()?;
            (number <= RELEASE_NUMBER_MAX && format!("{number}") == part).then_some(number)
        });
        let mut next = || numbers.next().flatten();
        let release = Release { major: next()?, minor: next()?, patch: next()? };
        (release.to_string() == text).then_some(release)
    }

    /// One number that orders as releases do: 16 bits each, below 2^48.
    pub fn number(&self) -> u64 {
        self.major << 32 | self.minor << 16 | self.patch
    }

    /// The release with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        let part = |shift: u32| number >> shift & RELEASE_NUMBER_MAX;
        (number >> 48 == 0).then(|| Release { major: part(32), minor: part(16), patch: part(0) })
    }

    fn in_range(&self) -> bool {
        [self.major, self.minor, self.patch].into_iter().all(|number| number <= RELEASE_NUMBER_MAX)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// One part of a bundle.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Part {
    /// How many bytes; at least 1.
    pub bytes: u64,
    /// Their SHA-256.
    pub hash: Octets32,
}

/// What the makers of an image say of it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpdateContent {
    /// 1.
    pub version: u64,
    /// Which machines it is for, e.g. `bulla/x86-64`; 1 to 64 bytes of `a-z 0-9 . / _ -`.
    pub target: String,
    /// Which image it is.
    pub image: Release,
    /// Once this image has proven itself, none below this one starts on that box again; not above `image`.
    pub floor: Release,
    /// The hash over the whole root (dm-verity), which the kernel image names too.
    pub root_hash: Octets32,
    /// When it was made (Unix milliseconds), for people.
    pub made_at: u64,
    /// The root's file system; whole sectors of 512 bytes.
    pub root: Part,
    /// The hashes of its blocks; whole sectors.
    pub verity: Part,
    /// Kernel, initial RAM disk and command line in one signed file.
    pub kernel: Part,
}

impl UpdateContent {
    /// The message its makers sign.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::UPDATE, &der::encode(self))
    }

    /// Whether it is within what the format allows.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "update", reason });
        if self.version != 1 {
            return range("its version is not 1");
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"./_-".contains(&byte);
        if !(1..=TARGET_BYTES_MAX).contains(&self.target.len()) || !self.target.bytes().all(plain) {
            return range("its target is not 1 to 64 of a-z 0-9 . / _ -");
        }
        if !self.image.in_range() || !self.floor.in_range() {
            return range("a number of a release is above 65535");
        }
        if self.image == Release::ZERO || self.floor > self.image {
            return range("its release is 0.0.0, or its floor is above it");
        }
        if self.made_at > NUMBER_MAX {
            return range("its time is too large");
        }
        if self.parts().iter().any(|part| part.bytes == 0 || part.bytes > PART_BYTES_MAX) {
            return range("a part is empty, or longer than 1 GiB");
        }
        if !self.root.bytes.is_multiple_of(SECTOR) || !self.verity.bytes.is_multiple_of(SECTOR) {
            return range("root or verity are not whole sectors");
        }
        Ok(())
    }

    /// The parts in the order in which they stand in the file.
    pub fn parts(&self) -> [&Part; 3] {
        [&self.root, &self.verity, &self.kernel]
    }
}

/// A signed update.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Update {
    /// What is said.
    pub content: UpdateContent,
    /// Ed25519 signature over label "bulla/update/v1"; 64 bytes.
    pub signature: OctetString,
}

/// Why a bundle is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Not the bytes of a bundle's head.
    #[error("it is no update bundle of this version")]
    NotABundle,
    /// Not the bytes of a statement.
    #[error(transparent)]
    Der(#[from] DerError),
    /// No key that this box knows signed it.
    #[error("no key that this image trusts has signed it")]
    NotSigned,
    /// It is for other machines.
    #[error("it is for {0} and not for this machine")]
    OtherTarget(String),
    /// What runs is not older.
    #[error("its image {image} is not newer than {running}, which runs here")]
    NotNewer {
        /// The bundle's image.
        image: Release,
        /// What runs.
        running: Release,
    },
    /// Nothing below the floor may ever start here again.
    #[error("its image {image} is below {floor}, the oldest that this box may still start")]
    BelowFloor {
        /// The bundle's image.
        image: Release,
        /// The box's floor.
        floor: Release,
    },
}

/// Reads the first [`HEAD_BYTES`] of a bundle; gives the length of the statement that follows.
///
/// # Errors
/// Anything but a bundle of this version, or a statement that is too long.
pub fn parse_head(head: &[u8]) -> Result<usize, UpdateError> {
    let length = head.strip_prefix(MAGIC).and_then(|rest| <[u8; 4]>::try_from(rest).ok());
    let length = u32::from_be_bytes(length.ok_or(UpdateError::NotABundle)?) as usize;
    if (1..=UPDATE_BYTES_MAX).contains(&length) { Ok(length) } else { Err(UpdateError::NotABundle) }
}

impl Update {
    /// Reads a statement without judging who signed it.
    ///
    /// # Errors
    /// Anything but the one encoding of an update within its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let update: Update = der::decode("update", bytes, UPDATE_BYTES_MAX)?;
        update.content.check()?;
        Ok(update)
    }

    /// What stands in the file before the parts.
    pub fn head(&self) -> Vec<u8> {
        let statement = der::encode(self);
        [MAGIC, (statement.len() as u32).to_be_bytes().as_slice(), &statement].concat()
    }

    /// How long the whole file is, in bytes.
    pub fn file_bytes(&self) -> u64 {
        let parts: u64 = self.content.parts().iter().map(|part| part.bytes).sum();
        self.head().len() as u64 + parts
    }

    /// Verifies that one of `keys` (Ed25519 public keys) signed it.
    ///
    /// # Errors
    /// None of them did.
    pub fn verify(&self, keys: &[[u8; 32]]) -> Result<VerifiedUpdate, UpdateError> {
        let message = self.content.message();
        let signed = keys.iter().any(|key| {
            let key = PublicKey::from_bytes(Algorithm::Ed25519, key);
            key.is_ok_and(|key| key.verify(&message, &self.signature).is_ok())
        });
        if signed { Ok(VerifiedUpdate(self.content.clone())) } else { Err(UpdateError::NotSigned) }
    }
}

/// An update that somebody vouches for whom this image trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedUpdate(UpdateContent);

impl VerifiedUpdate {
    /// What it says.
    pub fn content(&self) -> &UpdateContent {
        &self.0
    }

    /// The hash over the whole root.
    pub fn root_hash(&self) -> Hash {
        Hash(*self.0.root_hash)
    }

    /// Whether a box that runs the image `running` on a `target`, and must not start anything below `floor`, takes it.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, target: &str, running: Release, floor: Release) -> Result<(), UpdateError> {
        self.suits(target, floor)?;
        let image = self.0.image;
        if image <= running {
            return Err(UpdateError::NotNewer { image, running });
        }
        Ok(())
    }

    /// Whether a `target` that must not start anything below `floor` may have it, whatever ran there before.
    ///
    /// # Errors
    /// Why not.
    pub fn suits(&self, target: &str, floor: Release) -> Result<(), UpdateError> {
        let image = self.0.image;
        if self.0.target != target {
            return Err(UpdateError::OtherTarget(self.0.target.clone()));
        }
        if image < floor {
            return Err(UpdateError::BelowFloor { image, floor });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_one_spelling_and_orders_as_its_number() {
        let release = |text| Release::parse(text).unwrap();
        for (text, number) in [("0.0.0", 0), ("0.1.0", 1 << 16), ("1.2.3", (1 << 32) + (2 << 16) + 3)] {
            assert_eq!((release(text).number(), release(text).to_string()), (number, text.to_owned()));
            assert_eq!(Release::from_number(number), Some(release(text)));
        }
        assert_eq!(Release::from_number((1 << 48) - 1), Release::parse("65535.65535.65535"));
        assert_eq!(Release::from_number(1 << 48), None);
        assert!(release("0.9.0") < release("0.10.0") && release("1.0.0") > release("0.65535.65535"));
        for bad in
            ["", "1", "1.2", "1.2.3.4", "1.2.", "01.2.3", "+1.2.3", "1.2.65536", "1.2.3\n", "1.2.-3", "a.b.c"]
        {
            assert_eq!(Release::parse(bad), None, "{bad:?}");
        }
    }
}
