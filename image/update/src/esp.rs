//! The kernel images on the boot partition, one a slot, with systemd-boot's counting of tries in their names (UAPI boot
//! loader specification: `NAME+LEFT-DONE.efi`).
//!
//! systemd-boot starts the newest one that has tries left or no counter, so a file with its final name is what makes an image
//! bootable: it gets that name when all of it is on the disk.
//! Refuses: to remove what runs.

use anyhow::{Context, Result, ensure};
use bulla_formats::update::Release;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

const PREFIX: &str = "bulla_";
const SUFFIX: &str = ".efi";
/// What an image that is not there whole is called; the boot loader does not look at it.
const UNFINISHED: &str = "next.part";
/// How often an image may try to prove itself.
const TRIES: &str = "+3-0";

/// A kernel image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// Where it is.
    pub path: PathBuf,
    /// Which image it belongs to.
    pub release: Release,
    /// How often it may still be tried; `None` once it has proven itself.
    pub tries_left: Option<u32>,
}

/// The folder of kernel images, `EFI/Linux` on the boot partition.
pub struct Esp {
    folder: PathBuf,
}

impl Esp {
    /// The boot partition that is mounted here.
    pub fn at(mount: &Path) -> Self {
        Self { folder: mount.join("EFI/Linux") }
    }

    /// The images that are there whole.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn images(&self) -> Result<Vec<KernelImage>> {
        let folder = || format!("cannot read {}", self.folder.display());
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.folder).with_context(folder)? {
            let path = entry.with_context(folder)?.path();
            images.extend(read_name(&path));
        }
        images.sort_by_key(|image| image.release);
        Ok(images)
    }

    /// The image of this release.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn image(&self, release: Release) -> Result<Option<KernelImage>> {
        Ok(self.images()?.into_iter().find(|image| image.release == release))
    }

    /// Removes every image but the one that runs, and what an update that was cut off has left.
    ///
    /// # Errors
    /// A file cannot be removed, or `go_on` refuses.
    pub fn keep_only(&self, running: Release, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let others = self.images()?.into_iter().filter(|image| image.release != running);
        let unfinished = Some(self.folder.join(UNFINISHED)).filter(|path| path.exists());
        for path in others.map(|image| image.path).chain(unfinished) {
            go_on()?;
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        go_on()?;
        self.sync()
    }

    /// Bytes that are free on the boot partition.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.folder).context("cannot ask for room on the boot partition")?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Writes a kernel image under a name that the boot loader does not look at, from what `fill` writes.
    ///
    /// # Errors
    /// It cannot be written, or `fill` refuses.
    pub fn begin(&self, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
        let path = self.folder.join(UNFINISHED);
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        fill(&mut file)?;
        file.flush()?;
        file.sync_all().context("the kernel image is not on the disk")?;
        self.sync()
    }

    /// Gives the image that was begun its name: from here on it is the one that starts.
    ///
    /// # Errors
    /// There is none, or it cannot be renamed.
    pub fn finish(&self, release: Release) -> Result<()> {
        let to = self.folder.join(first_name(release));
        ensure!(!to.exists(), "{} is there already", to.display());
        fs::rename(self.folder.join(UNFINISHED), &to)
            .with_context(|| format!("cannot give the kernel image its name {}", to.display()))?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        let folder = File::open(&self.folder).with_context(|| format!("no {}", self.folder.display()))?;
        // FAT keeps its table apart from folder and file: the whole file system, then.
        rustix::fs::syncfs(&folder).context("the boot partition is not on the disk")
    }
}

/// What the kernel image of this release is called before its first try.
pub fn first_name(release: Release) -> String {
    format!("{PREFIX}{release}{TRIES}{SUFFIX}")
}

/// `bulla_1.2.3.efi`, `bulla_1.2.3+2.efi` or `bulla_1.2.3+2-1.efi`.
fn read_name(path: &Path) -> Option<KernelImage> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (release, tries) = match name.split_once('+') {
        None => (name, None),
        Some((release, tries)) => (release, Some(tries.split('-').next()?.parse().ok()?)),
    };
    Some(KernelImage { path: path.to_owned(), release: Release::parse(release)?, tries_left: tries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernel_images_are_read() {
        let read = |name: &str| {
            read_name(Path::new(name)).map(|image| (image.release.to_string(), image.tries_left))
        };
        for (name, release, tries) in [
            ("bulla_0.1.0.efi", "0.1.0", None),
            ("bulla_0.2.0+3.efi", "0.2.0", Some(3)),
            ("bulla_0.2.0+3-0.efi", "0.2.0", Some(3)),
            ("bulla_0.12.0+0-3.efi", "0.12.0", Some(0)),
        ] {
            assert_eq!(read(name), Some((release.to_owned(), tries)), "{name}");
        }
        for name in ["next.part", "bulla_0.1.efi", "bulla_0.1.0", "other_0.1.0.efi", "bulla_0.1.0+x-1.efi"] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
