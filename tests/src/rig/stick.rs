//! A USB stick: FAT, as people carry it, in an image that is mounted while the box runs and read by others afterwards.
//!
//! The kernel need not know FAT: `fusefat` writes it, `fsck.vfat` judges it, `mtools` read it; three programs with nothing
//! in common. Refuses to do: skip. Without FUSE or one of them a test fails and says so.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// FAT32, as sticks have; smaller file systems would be FAT16, whose first entry fusefat does not write as mtools want it.
const BYTES: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// When it is asked once more to end. Long before, it has written what it has.
const AGAIN: Duration = Duration::from_secs(5);

/// A stick, plugged in from the beginning.
pub struct Stick {
    /// Serves the mount, in the foreground; ends with it.
    server: Option<Child>,
    directory: TempDir,
}

impl Stick {
    /// An empty stick, mounted.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bulla-stick-").tempdir()?;
        let mut stick = Stick { server: None, directory };
        fs::create_dir(stick.mount_point())?;
        File::create(stick.image())?.set_len(BYTES)?;
        run(Command::new("mkfs.vfat").args(["-F", "32", "-n", "STICK"]).arg(stick.image()), "dosfstools")?;
        let mut server = Command::new("fusefat");
        server.args(["-f", "-s", "-o", "rw+"]).arg(stick.image()).arg(stick.mount_point());
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        stick.server = Some(server.context("fusefat (package fusefat) does not start")?);
        let until = Instant::now() + PATIENCE;
        while !is_mounted(&stick.mount_point())? {
            ensure!(Instant::now() < until, "fusefat does not mount: is there a /dev/fuse?");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(stick)
    }

    /// Where it is while it is plugged in.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("stick.img")
    }

    /// Unmounts it, and has it judged: a stick that needs repair fails.
    pub fn pull_out(&mut self) -> Result<()> {
        let server = self.server.as_mut().context("it is plugged in")?;
        // Asked to end, it unmounts. After a mere umount it would go on for whoever has got a copy of the mount: every
        // network namespace that begins meanwhile comes with one.
        let pid = server.id().to_string();
        let mut asked: Option<Instant> = None;
        let until = Instant::now() + PATIENCE;
        while server.try_wait()?.is_none() {
            // libfuse looks whether it is to end, and then reads; a signal between the two is lost.
            if asked.is_none_or(|asked| asked.elapsed() > AGAIN) {
                asked = Some(Instant::now());
                run(Command::new("kill").args(["-TERM", &pid]), "procps")?;
            }
            let waits = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            ensure!(Instant::now() < until, "fusefat does not end, it waits in {waits}");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server = None;
        ensure!(!is_mounted(&self.mount_point())?, "it is still mounted");
        run(Command::new("fsck.vfat").arg("-n").arg(self.image()), "dosfstools").map(drop)
    }

    /// Names of its files, sorted, as another computer sees them.
    pub fn names(&self) -> Result<Vec<String>> {
        let listed = run(Command::new("mdir").args(["-b", "-i"]).arg(self.image()).arg("::"), "mtools")?;
        let listed = String::from_utf8(listed.stdout)?;
        let mut names: Vec<_> =
            listed.lines().filter_map(|line| line.strip_prefix("::/")).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// A directory and what is in it, as another computer reads it.
    pub fn copy_out(&self, name: &str, to: &Path) -> Result<()> {
        let directory = format!("::{name}");
        run(Command::new("mcopy").arg("-s").arg("-i").arg(self.image()).arg(directory).arg(to), "mtools")
            .map(drop)
    }

    /// A file, as another computer reads it.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = format!("::{name}");
        Ok(run(Command::new("mcopy").arg("-i").arg(self.image()).args([&file, "-"]), "mtools")?.stdout)
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Lazily: a test that failed may have left a file open.
            let _ = Command::new("fusermount").args(["-u", "-z"]).arg(self.mount_point()).status();
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|mounted| Path::new(mounted) == path)))
}

fn run(command: &mut Command, package: &str) -> Result<Output> {
    let output =
        command.output().with_context(|| format!("{command:?} does not start (package {package})"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(output)
}
