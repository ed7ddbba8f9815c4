//! Small file systems that can lose their power and their room.
//!
//! - A power cut is ext4's shutdown without a flush of its journal: from that instant nothing reaches the disk any
//!   more, and what only the page cache held is gone. The disk is a file behind a loop device.
//! - A balloon takes away room and gives it back.
//!
//! Refuses to do: skip. Mounting needs root, and without it the test fails and says so.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What kind of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// A journalling file system in an image.
    Ext4,
    /// Memory: what is written takes room at once, and there is no power to cut.
    Tmpfs,
}

/// A mounted file system of its own; unmounted when dropped, so drop whatever uses it first.
pub struct Disk {
    kind: DiskKind,
    bytes: u64,
    mounted: bool,
    directory: TempDir,
}

impl Disk {
    /// A fresh file system of this size.
    pub fn new(kind: DiskKind, bytes: u64) -> Result<Self> {
        let root = Command::new("id").arg("-u").output().context("cannot ask for the user id")?;
        ensure!(
            root.stdout.trim_ascii() == b"0",
            "this test mounts file systems, which takes root: run it as root, or with sudo -E"
        );
        let directory = tempfile::Builder::new().prefix("bulla-disk-").tempdir()?;
        // Programs of other tests begin mount namespaces of their own, which copy what is mounted. Below a shared mount their
        // copies go with ours; else the file system would live on there, without power, and be what is mounted the next time.
        run(Command::new("mount").arg("--bind").args([directory.path(); 2]), "mount")?;
        let mut disk = Disk { kind, bytes, mounted: false, directory };
        run(Command::new("mount").arg("--make-shared").arg(disk.directory.path()), "mount")?;
        std::fs::create_dir(disk.mount_point())?;
        if kind == DiskKind::Ext4 {
            File::create(disk.image())?.set_len(bytes)?;
            // No blocks reserved for root, as whom the balloon and, here, the box write.
            let how = ["-q", "-m", "0", "-e", "remount-ro"];
            run(Command::new("mkfs.ext4").args(how).arg(disk.image()), "e2fsprogs")?;
        }
        disk.mount()?;
        Ok(disk)
    }

    /// A directory on it for the box.
    pub fn state(&self) -> PathBuf {
        self.mount_point().join("state")
    }

    /// Its topmost directory.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    fn mount(&mut self) -> Result<()> {
        let mut command = Command::new("mount");
        match self.kind {
            DiskKind::Ext4 => command.args(["-o", "loop"]).arg(self.image()),
            DiskKind::Tmpfs => {
                command.args(["-t", "tmpfs", "-o", &format!("size={}", self.bytes), "bulla-test"])
            }
        };
        run(command.arg(self.mount_point()), "mount")?;
        self.mounted = true;
        Ok(())
    }

    /// From now on nothing is written to the disk any more. Whoever writes gets errors, as from a disk that has gone.
    pub fn cut_power(&self) -> Result<()> {
        ensure!(self.kind == DiskKind::Ext4, "memory forgets everything: there is nothing to test");
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.mount_point()), "xfsprogs")
    }

    /// The file system finds an error of its own and takes no more writes, as it does on a disk that goes bad.
    pub fn turn_read_only(&self) -> Result<()> {
        ensure!(self.kind == DiskKind::Ext4, "only ext4 can be told to find an error");
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let device = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let device = words.next()?;
            (Path::new(words.next()?) == self.mount_point()).then_some(device)
        });
        let device =
            device.and_then(|device| device.strip_prefix("/dev/")).context("the disk is not mounted")?;
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(&trigger, "1").with_context(|| format!("cannot write {trigger}"))
    }

    /// What an operator does with such a file system. Nobody may have a file open.
    pub fn repair(&mut self) -> Result<()> {
        run(Command::new("umount").arg(self.mount_point()), "mount")?;
        self.mounted = false;
        let checked = Command::new("e2fsck").args(["-p", "-f"]).arg(self.image()).output()?;
        // 1: errors were corrected.
        ensure!(matches!(checked.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&checked.stdout));
        self.mount()
    }

    /// The power is back. Nobody may have a file open.
    pub fn power_on(&mut self) -> Result<()> {
        run(Command::new("umount").arg(self.mount_point()), "mount")?;
        self.mounted = false;
        self.mount()
    }

    /// A balloon that is still empty.
    pub fn balloon(&self) -> Result<Balloon> {
        let path = self.mount_point().join("balloon");
        Ok(Balloon { file: File::create(&path)?, path, bytes: 0 })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a test that failed may have left a file open, and the directory is to go all the same.
            let unmounted = Command::new("umount").arg("--lazy").arg(self.mount_point()).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("{} is still mounted", self.mount_point().display());
            }
        }
        let directory = self.directory.path();
        let unmounted = Command::new("umount").arg("--lazy").arg(directory).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted on itself", directory.display());
        }
    }
}

/// A file that takes the room of others.
pub struct Balloon {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Balloon {
    /// Makes it as large, or as small, as leaves this many bytes free.
    pub fn leave(&mut self, bytes: u64) -> Result<()> {
        let free = free_bytes(&self.path)?;
        if free < bytes {
            return self.shrink_to(self.bytes.saturating_sub(bytes - free));
        }
        self.grow_by(free - bytes)
    }

    /// Takes what is left faster than anybody who has just looked can write, and gives it back after `pause`.
    pub fn snatch(&mut self, pause: Duration) -> Result<()> {
        let before = self.bytes;
        self.grow_by(u64::MAX)?;
        std::thread::sleep(pause);
        self.shrink_to(before)
    }

    /// Takes everything, and keeps it.
    pub fn fill(&mut self) -> Result<()> {
        self.grow_by(u64::MAX)
    }

    /// Gives all of it back.
    pub fn deflate(&mut self) -> Result<()> {
        self.shrink_to(0)
    }

    fn shrink_to(&mut self, bytes: u64) -> Result<()> {
        self.bytes = bytes;
        self.file.set_len(bytes).context("the balloon")
    }

    /// Grows, at most until the disk is full.
    fn grow_by(&mut self, mut bytes: u64) -> Result<()> {
        static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
        while bytes > 0 {
            match self.file.write_at(&ZEROS[..bytes.min(ZEROS.len() as u64) as usize], self.bytes) {
                Ok(written) => {
                    self.bytes += written as u64;
                    bytes -= written as u64;
                }
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("the balloon"),
            }
        }
        Ok(())
    }
}

fn free_bytes(path: &Path) -> Result<u64> {
    let output = Command::new("stat").args(["--file-system", "--format", "%a %S"]).arg(path).output()?;
    let printed = String::from_utf8(output.stdout)?;
    let mut numbers = printed.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(blocks)), Some(Ok(size))) => Ok(blocks * size),
        _ => anyhow::bail!("stat --file-system {} printed {printed:?}", path.display()),
    }
}

fn run(command: &mut Command, package: &str) -> Result<()> {
    let output =
        command.output().with_context(|| format!("{command:?} does not start (package {package})"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
