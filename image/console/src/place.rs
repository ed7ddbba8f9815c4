//! Where things are on a box of the image, and how its files are replaced.
//!
//! Refuses to do: write anything but a whole file. Invariant: whoever reads meets one version or the next.

use anyhow::{Context as _, Result};
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Paths of a box.
#[derive(Debug, Clone)]
pub struct Places {
    /// Network settings that count.
    pub settings: PathBuf,
    /// The record of changes, for the box's log.
    pub changes: PathBuf,
    /// The configuration of a box that was taken into service.
    pub configuration: PathBuf,
    /// Settings that are being tried; below `/run`.
    pub trial: PathBuf,
    /// Why the settings that count are not believed; below `/run`.
    pub damage: PathBuf,
    /// What systemd-networkd reads first.
    pub networkd: PathBuf,
    /// What a box that runs says of itself.
    pub running: PathBuf,
    /// What a box that asks to be enrolled says of itself.
    pub enrolling: PathBuf,
    /// There when the data partition does not open.
    pub locked: PathBuf,
    /// What the image is.
    pub os_release: PathBuf,
    /// The ports of the machine.
    pub ports: PathBuf,
}

impl Places {
    /// Those below this directory: `/`, or that of a test.
    pub fn below(root: &Path) -> Self {
        let at = |path: &str| root.join(path);
        Places {
            settings: at("var/lib/bulla-conf/network.json"),
            changes: at("var/lib/bulla-conf/network-changes.json"),
            configuration: at("var/lib/bulla-conf/box.toml"),
            trial: at("run/bulla-console/trial.json"),
            damage: at("run/bulla-console/damage"),
            networkd: at("run/systemd/network"),
            running: at("run/bulla/status.json"),
            enrolling: at("run/bulla-enrolling/status.json"),
            locked: at("run/bulla-locked"),
            os_release: at("usr/lib/os-release"),
            ports: at("sys/class/net"),
        }
    }
}

/// Puts these bytes in place of the file, durably; who may enter its folder may read it.
///
/// # Errors
/// It cannot be written; the file is what it was.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&new)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// Removes a file that may not be there.
///
/// # Errors
/// It stays.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}
