//! The disks of a machine: what they are, and what is on them.
//!
//! What a disk is, `lsblk` says (util-linux, of the verified root), as udev and the kernel know it. What is on it is read
//! from the disk itself.
//! Refuses: nothing; a disk that cannot be read is one that is in use by somebody else.
//! Invariant: nothing is called empty of which a byte in the first or last mebibyte says otherwise, or in which the data of a
//! box would begin where it does.

use super::layout::{DATA_NAME, DATA_START, is_ours};
use crate::table::{MBR_SIGNATURE, Partition, SECTOR, Table};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
/// In the sector before the first partition while an installation is under way.
pub const UNFINISHED: &[u8] = b"bulla: installation under way\n";
/// Where that stands, in bytes.
pub const UNFINISHED_AT: u64 = MIB - SECTOR;
/// What an encrypted volume begins with (LUKS2 on-disk format, section 2.1).
const LUKS: &[u8] = b"LUKS\xba\xbe";
/// Memory and network that the kernel calls disks.
const NO_DISKS: [&str; 5] = ["/dev/zram", "/dev/ram", "/dev/nbd", "/dev/loop", "/dev/md"];

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Disk {
    /// Its device.
    pub path: PathBuf,
    /// What its maker calls it.
    #[serde(default)]
    pub model: Option<String>,
    /// Its serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// Its length in bytes.
    #[serde(rename = "size")]
    pub bytes: u64,
    /// Whether it can be taken out while the machine runs, as far as it says so itself.
    #[serde(rename = "rm")]
    pub removable: bool,
    /// Whether it cannot be written.
    #[serde(rename = "ro")]
    pub read_only: bool,
    /// How it is connected: `nvme`, `sata`, `usb`, ...
    #[serde(rename = "tran", default)]
    pub transport: Option<String>,
    /// Bytes in a sector.
    #[serde(rename = "log-sec")]
    pub sector: u64,
    #[serde(rename = "type")]
    kind: String,
}

impl Disk {
    /// Whether it is built in: neither on a USB port, nor removable, nor a card.
    pub fn internal(&self) -> bool {
        let card = self.path.to_string_lossy().starts_with("/dev/mmcblk");
        !self.removable && !card && self.transport.as_deref() != Some("usb")
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| {
            let text: String =
                text.iter().flat_map(|text| text.trim().chars()).filter(|c| !c.is_control()).collect();
            if text.is_empty() { "-".to_owned() } else { text }
        };
        let gigabytes = self.bytes as f64 / 1e9;
        let transport = if self.removable { "removable".to_owned() } else { text(&self.transport) };
        write!(
            f,
            "{}  {gigabytes:.1} GB  {transport}  model {}  serial {}",
            self.path.display(),
            text(&self.model),
            text(&self.serial)
        )
    }
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// An installation that was cut off.
    Unfinished,
    /// An image of ours that never started: there is no data yet. Its name.
    Image(String),
    /// A box and its data, in this partition.
    Box(Partition),
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Empty => f.write_str("empty"),
            Content::Unfinished => f.write_str("an installation that was cut off"),
            Content::Image(name) => write!(f, "the image {name}, which has no data yet"),
            Content::Box(_) => f.write_str("a box and its data"),
            Content::Other(what) => f.write_str(what),
        }
    }
}

/// The disks that this machine has.
///
/// # Errors
/// `lsblk` cannot be asked.
pub fn list() -> Result<Vec<Disk>> {
    let mut ask = Command::new("lsblk");
    ask.args(["--json", "--bytes", "--nodeps", "--output", "PATH,MODEL,SERIAL,SIZE,RM,RO,TRAN,TYPE,LOG-SEC"]);
    let told = ask.output().context("cannot ask lsblk for the disks of this machine")?;
    ensure!(told.status.success(), "lsblk failed: {}", String::from_utf8_lossy(&told.stderr).trim());
    parse(&told.stdout)
}

/// What `lsblk` tells of disks, less what is none.
///
/// # Errors
/// It is not what `lsblk` tells.
pub fn parse(told: &[u8]) -> Result<Vec<Disk>> {
    #[derive(Deserialize)]
    struct Told {
        blockdevices: Vec<Disk>,
    }
    let told: Told = serde_json::from_slice(told).context("lsblk says what is not understood")?;
    let is_disk = |disk: &Disk| {
        let path = disk.path.to_string_lossy();
        disk.kind == "disk" && disk.bytes > 0 && !NO_DISKS.iter().any(|none| path.starts_with(none))
    };
    Ok(told.blockdevices.into_iter().filter(is_disk).collect())
}

/// Looks at what is on a disk, or on a file that stands for one.
pub fn content(path: &Path, bytes: u64) -> Content {
    File::open(path)
        .map_err(anyhow::Error::from)
        .and_then(|disk| look(&disk, bytes))
        .unwrap_or_else(|error| Content::Other(format!("cannot be read: {error:#}")))
}

fn look(disk: &File, bytes: u64) -> Result<Content> {
    let edge = bytes.min(MIB) as usize;
    let (mut first, mut last) = (vec![0; edge], vec![0; edge]);
    disk.read_exact_at(&mut first, 0)?;
    disk.read_exact_at(&mut last, bytes - edge as u64)?;
    let starts = first.get(510..512) == Some(MBR_SIGNATURE.as_slice());
    if !starts && first.get(UNFINISHED_AT as usize..).is_some_and(|mark| mark.starts_with(UNFINISHED)) {
        return Ok(Content::Unfinished);
    }
    if let Ok(table) = Table::read(disk, bytes) {
        let partitions = table.partitions()?;
        if let Some(data) = partitions.iter().find(|partition| partition.name == DATA_NAME) {
            return Ok(Content::Box(data.clone()));
        }
        return Ok(match partitions.get(1) {
            Some(root) if is_ours(&partitions) && starts => Content::Image(root.name.clone()),
            Some(_) if is_ours(&partitions) => Content::Unfinished,
            _ => Content::Other(format!("a partition table with {} partitions", partitions.len())),
        });
    }
    let mut start = [0; LUKS.len()];
    if disk.read_exact_at(&mut start, DATA_START).is_ok() && start == LUKS {
        return Ok(Content::Other("the data of a box whose partition table is lost".to_owned()));
    }
    // What tells a file system, a table, a volume or an encrypted disk stands within these two.
    let blank = |edge: &[u8]| edge.iter().all(|byte| *byte == 0) || edge.iter().all(|byte| *byte == 0xff);
    Ok(match blank(&first) && blank(&last) {
        true => Content::Empty,
        false => Content::Other("something that is no box's".to_owned()),
    })
}
