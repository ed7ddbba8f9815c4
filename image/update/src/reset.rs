//! A box becomes a new one: its data partition goes, its version floor stays.
//!
//! Who may decide that, `bulla-box retire` knows; it ends the log and clears the TPM, and with it the version floor and the
//! TPM's key to the data. So the floor is noted on the boot partition before (the *mark*), and set again after.
//!
//! Refuses: to take a mark as a licence. Whoever holds the disk can write one, so it counts for two things only: a floor,
//! which never rises above the image that runs, and the end of a reset whose TPM was cleared already ([`cut_off`]).
//! Invariant: the partition leaves the table before its key slots go, so a power cut in between leaves a machine that makes
//! a new one at its next boot.

use crate::install::layout::DATA_NAME;
use crate::install::write::KEY_SLOTS;
use crate::table::Table;
use anyhow::{Context, Result, ensure};
use bulla_formats::update::Release;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The mark's name on the boot partition.
const NAME: &str = "bulla-reset";
const HEAD: &str = "bulla-reset/1 ";
const MIB: u64 = 1 << 20;

/// Notes the floor that has to survive.
///
/// # Errors
/// The boot partition takes no file.
pub fn write_mark(boot: &Path, floor: Release) -> Result<()> {
    let (path, new) = (boot.join(NAME), boot.join("bulla-reset.new"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(format!("{HEAD}{floor}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    sync(boot)
}

/// The floor that was noted; a mark that is none says nothing.
pub fn read_mark(boot: &Path) -> Option<Release> {
    parse(&fs::read(boot.join(NAME)).ok()?)
}

fn parse(mark: &[u8]) -> Option<Release> {
    Release::parse(std::str::from_utf8(mark).ok()?.strip_prefix(HEAD)?.strip_suffix('\n')?)
}

/// Takes the mark away; there may be none.
///
/// # Errors
/// It stays.
pub fn remove_mark(boot: &Path) -> Result<()> {
    match fs::remove_file(boot.join(NAME)) {
        Ok(()) => sync(boot),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("the mark of the reset stays on the boot partition"),
    }
}

fn sync(boot: &Path) -> Result<()> {
    let folder = File::open(boot).context("no boot partition")?;
    rustix::fs::syncfs(&folder).context("the boot partition is not on the disk")
}

/// Whether a reset was cut off between TPM2_Clear and its end: there is a mark, and the floor, which was in the TPM when
/// the mark was written, is not there any more.
pub fn cut_off(mark: Option<Release>, floor_in_tpm: Option<u64>) -> bool {
    mark.is_some() && floor_in_tpm.is_none()
}

/// The floor from now on: what was noted and what this image wants, and never above this image, because a mark proves
/// nothing.
pub fn floor_after(mark: Option<Release>, image_floor: Release, image: Release) -> Release {
    mark.unwrap_or(Release::ZERO).max(image_floor).min(image)
}

/// Takes the data partition out of the table, and overwrites its key slots; says whether there was one. `go_on` is asked
/// before every change and may end it there.
///
/// # Errors
/// The disk fails.
pub fn forget_data(disk: &File, disk_bytes: u64, go_on: &mut dyn FnMut() -> Result<()>) -> Result<bool> {
    let mut table = Table::read(disk, disk_bytes)?;
    let found: Vec<_> =
        table.partitions()?.into_iter().filter(|partition| partition.name == DATA_NAME).collect();
    ensure!(found.len() <= 1, "the disk has {} data partitions", found.len());
    let Some(data) = found.into_iter().next() else { return Ok(false) };
    table.remove(data.index)?;
    table.write(disk, go_on)?;
    let zeros = vec![0; MIB as usize];
    let end = data.start + data.bytes.min(KEY_SLOTS);
    let mut at = data.start;
    while at < end {
        let piece = zeros.get(..(end - at).min(MIB) as usize).unwrap_or_default();
        go_on()?;
        disk.write_all_at(piece, at).context("the data partition cannot be overwritten")?;
        at += piece.len() as u64;
    }
    go_on()?;
    disk.sync_all().context("the end of the data is not on the disk")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        Release::parse(text).unwrap()
    }

    #[test]
    fn a_mark_has_one_spelling_and_proves_nothing() {
        let boot = tempfile::tempdir().unwrap();
        assert_eq!(read_mark(boot.path()), None);
        write_mark(boot.path(), release("0.2.0")).unwrap();
        assert_eq!(fs::read(boot.path().join(NAME)).unwrap(), b"bulla-reset/1 0.2.0\n");
        assert_eq!(read_mark(boot.path()), Some(release("0.2.0")));
        remove_mark(boot.path()).unwrap();
        remove_mark(boot.path()).unwrap();
        assert_eq!(fs::read_dir(boot.path()).unwrap().count(), 0);
        for bad in [
            b"".as_slice(),
            b"bulla-reset/1 0.2.0",
            b"bulla-reset/1 0.2\n",
            b"bulla-reset/1  0.2.0\n",
            b"bulla-reset/2 0.2.0\n",
            b"bulla-reset/1 0.2.0\n\n",
            b"bulla-reset/1 0.2.65536\n",
            b"bulla-reset/1 \xff\n",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        // A floor that somebody has made up locks nobody out, and a low one lowers nothing.
        let after = |mark: &str, image: &str| {
            floor_after(Some(release(mark)), release("0.1.0"), release(image)).to_string()
        };
        assert_eq!(after("0.2.0", "0.3.0"), "0.2.0");
        assert_eq!(after("65535.0.0", "0.3.0"), "0.3.0");
        assert_eq!(after("0.0.1", "0.3.0"), "0.1.0");
        assert_eq!(floor_after(None, release("0.1.0"), release("0.3.0")), release("0.1.0"));
        // Secure Boot off, another TPM, a disk of somebody's: none of these finishes a reset.
        assert!(cut_off(Some(Release::ZERO), None));
        assert!(!cut_off(Some(Release::ZERO), Some(0)) && !cut_off(None, None) && !cut_off(None, Some(7)));
    }
}
