//! What an update must know of the machine: which image runs, from which disk, and whom that image trusts.
//!
//! Everything comes from the running kernel and the verified root, never from the data partition or a stick.
//! Refuses: a root without keys, and a kernel that was not started with a root hash.

use crate::esp::Esp;
use crate::table::{halves, written};
use anyhow::{Context, Result, ensure};
use bulla_formats::update::Release;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// The machine that is updated.
pub struct Machine {
    /// The disk with the slots: a block device, or a file in tests.
    pub disk: PathBuf,
    /// Its boot partition.
    pub esp: Esp,
    /// The record for the box's log.
    pub record: PathBuf,
    /// Which bundles are for it.
    pub target: String,
    /// The image that runs.
    pub running: Release,
    /// Below this nothing may start.
    pub floor: Release,
    /// The root hash of what runs.
    pub root_hash: [u8; 32],
}

impl Machine {
    /// How long the disk is, in bytes.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn disk_bytes(&self) -> Result<u64> {
        disk_bytes(&self.disk)
    }
}

/// How long a disk is, in bytes.
///
/// # Errors
/// It cannot be opened.
pub fn disk_bytes(disk: &Path) -> Result<u64> {
    let bytes = File::open(disk).and_then(|mut disk| disk.seek(SeekFrom::End(0)));
    bytes.with_context(|| format!("cannot open the disk {}", disk.display()))
}

/// What a root says of itself in `/usr/lib/os-release`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// `IMAGE_VERSION`.
    pub release: Release,
    /// `BULLA_FLOOR`: once this image is proven, nothing below it starts on the box again.
    pub floor: Release,
    /// `IMAGE_ID` and the processor: which bundles are for it.
    pub target: String,
}

impl About {
    /// Reads `os-release`.
    ///
    /// # Errors
    /// It is not that of an image of ours.
    pub fn read(os_release: &str) -> Result<Self> {
        let value = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.with_context(|| format!("os-release has no {name}: this is no image of a box"))
        };
        let release = |name: &str| -> Result<Release> {
            let text = value(name)?;
            Release::parse(text).with_context(|| format!("{name} in os-release is no release: {text}"))
        };
        Ok(Self {
            release: release("IMAGE_VERSION")?,
            floor: release("BULLA_FLOOR")?,
            target: format!("{}/{}", value("IMAGE_ID")?, std::env::consts::ARCH.replace('_', "-")),
        })
    }
}

/// The root hash in a kernel's command line.
///
/// # Errors
/// There is none.
pub fn root_hash(cmdline: &str) -> Result<[u8; 32]> {
    let hash = hex_value(cmdline, "roothash=");
    hash.context("the kernel was not started with a root hash: this is no image of a box")
}

/// The 32 bytes in hex behind `name` in a kernel's command line.
pub fn hex_value(cmdline: &str, name: &str) -> Option<[u8; 32]> {
    let value = cmdline.split_whitespace().find_map(|word| word.strip_prefix(name))?;
    hex::decode(value).ok()?.try_into().ok()
}

/// The keys whose updates an image takes: a line of hex each.
///
/// # Errors
/// A line is no key, or there is none.
pub fn keys(text: &str) -> Result<Vec<[u8; 32]>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Result<Vec<[u8; 32]>> = lines
        .map(|line| {
            let bytes = hex::decode(line).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.with_context(|| format!("{line:?} is no Ed25519 public key in hex"))
        })
        .collect();
    let keys = keys?;
    ensure!(!keys.is_empty(), "this image trusts nobody's updates: it names no update key");
    Ok(keys)
}

/// The disk of the slot with this root hash.
///
/// # Errors
/// No partition has it.
pub fn disk_of(root_hash: &[u8; 32]) -> Result<PathBuf> {
    let link = Path::new("/dev/disk/by-partuuid").join(written(&halves(root_hash).0));
    let partition = fs::canonicalize(&link).with_context(|| format!("no partition {}", link.display()))?;
    let name = partition.file_name().context("a partition has a name")?;
    // /sys/devices/.../vda/vda2
    let place = fs::canonicalize(Path::new("/sys/class/block").join(name))?;
    let disk = place.parent().and_then(Path::file_name).context("a partition is on a disk")?;
    Ok(Path::new("/dev").join(disk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_is() {
        let about =
            About::read("ID=debian\nIMAGE_ID=bulla\nIMAGE_VERSION=0.2.0\nBULLA_FLOOR=0.1.0\n").unwrap();
        assert_eq!((about.release.to_string(), about.floor.to_string()), ("0.2.0".into(), "0.1.0".into()));
        assert!(about.target.starts_with("bulla/") && !about.target.contains('_'));
        for bad in
            ["", "IMAGE_ID=bulla\nIMAGE_VERSION=0.2.0\n", "IMAGE_ID=b\nIMAGE_VERSION=2\nBULLA_FLOOR=0.0.0\n"]
        {
            assert!(About::read(bad).is_err(), "{bad:?}");
        }
        assert_eq!(root_hash(&format!("quiet roothash={} gpt", "ab".repeat(32))).unwrap(), [0xab; 32]);
        for bad in ["", "roothash=", "roothash=abcd", &format!("roothash={}", "xy".repeat(32))] {
            assert!(root_hash(bad).is_err(), "{bad:?}");
        }
        let two = format!("# ours\n{}\n{}\n", "01".repeat(32), "02".repeat(32));
        assert_eq!(keys(&two).unwrap(), [[1; 32], [2; 32]]);
        for bad in ["", "# none\n", "01\n", &"zz".repeat(32)] {
            assert!(keys(bad).is_err(), "{bad:?}");
        }
    }
}
