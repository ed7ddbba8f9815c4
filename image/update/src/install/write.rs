//! Writes an image onto a disk; the order of the steps stands at [`super`].
//!
//! Refuses: to leave a disk that starts when what was read back from it is not what was written.
//! Invariant: until its first sector is there, which is written last and at once, firmware finds nothing to start on it.

use super::boot::BootPartition;
use super::disks::{Content, UNFINISHED, UNFINISHED_AT};
use super::layout::{Ids, MARGIN, partitions};
use crate::bundle::Bundle;
use crate::table::{Partition, SECTOR, Table, protective_mbr};
use anyhow::{Context, Result, ensure};
use bulla_formats::update::Part;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

const MIB: u64 = 1 << 20;
/// Both headers of a LUKS2 volume and all its key slots, as `systemd-repart` makes them (cryptsetup's default).
pub const KEY_SLOTS: u64 = 16 * MIB;

/// What goes onto the disk.
pub struct Source<'a> {
    /// The image, signed.
    pub bundle: &'a mut Bundle,
    /// The boot loader, already held against what the running kernel image names.
    pub loader: Vec<u8>,
    /// The boot loader's configuration.
    pub configuration: Vec<u8>,
    /// What tells this disk from others.
    pub ids: Ids,
}

/// The disk.
pub struct Target<'a> {
    /// Open for reading and writing.
    pub disk: &'a File,
    /// Its length.
    pub bytes: u64,
    /// What is on it, which goes.
    pub content: &'a Content,
}

/// Installs. `go_on` is asked before every change of the disk and may end it there, as a power cut would; `say` is told how
/// far it is.
///
/// # Errors
/// The bundle is damaged: nothing is changed. Or the disk fails: then it starts nothing.
pub fn install(
    target: &Target<'_>,
    source: &mut Source<'_>,
    go_on: &mut dyn FnMut() -> Result<()>,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let content = source.bundle.update().content().clone();
    let layout = partitions(content.image, &content.root_hash, &source.ids);
    let [esp, root, verity, ..] = &layout;
    let fits = content.root.bytes <= root.bytes && content.verity.bytes <= verity.bytes;
    ensure!(fits, "the image {} is larger than a slot", content.image);
    let table = Table::fresh(target.bytes, &source.ids.uuids[0], &layout)?;
    say("verifying what is on the stick");
    source.bundle.check_parts()?;
    let boot = BootPartition::make(source.bundle, &source.loader, &source.configuration, source.ids.volume)?;
    let mut disk = Writer { disk: target.disk, go_on };

    if let Content::Box(data) = target.content {
        say("overwriting the keys of the data that was on this disk");
        disk.zero(data.start, data.bytes.min(KEY_SLOTS))?;
        disk.sync()?;
    }
    disk.zero(0, SECTOR)?;
    disk.sync()?;
    let mut mark = [0; SECTOR as usize];
    mark[..UNFINISHED.len()].copy_from_slice(UNFINISHED);
    disk.write(UNFINISHED_AT, &mark)?;
    disk.sync()?;
    disk.zero(SECTOR, UNFINISHED_AT - SECTOR)?;
    disk.zero(target.bytes - MARGIN, MARGIN)?;
    disk.sync()?;

    for (number, part, partition) in [(0, &content.root, root), (1, &content.verity, verity)] {
        let (mut at, mut tenths) = (0, 0);
        source.bundle.read_part(number, |piece| {
            disk.write(partition.start + at, piece)?;
            at += piece.len() as u64;
            if number == 0 && at * 10 / part.bytes > tenths {
                tenths = at * 10 / part.bytes;
                say(&format!("writing the image: {tenths}0 %"));
            }
            Ok(())
        })?;
    }
    say("writing the boot partition");
    for (at, run) in boot.runs() {
        disk.write(esp.start + at, &run)?;
    }
    disk.sync()?;

    say("reading back what was written");
    // From the disk, and not from the kernel's memory of it.
    rustix::fs::fadvise(target.disk, 0, None, rustix::fs::Advice::DontNeed)
        .context("cannot read the disk anew")?;
    same_part(target.disk, root, &content.root)?;
    same_part(target.disk, verity, &content.verity)?;
    for (at, run) in boot.runs() {
        let mut found = vec![0; run.len()];
        target.disk.read_exact_at(&mut found, esp.start + at)?;
        ensure!(found == run, "the disk has other bytes than were written to it: it is defective");
    }

    table.write(target.disk, disk.go_on)?;
    let found = Table::read(target.disk, target.bytes)?.partitions()?;
    ensure!(found == layout, "the disk has another partition table than was written to it: it is defective");
    disk.zero(UNFINISHED_AT, SECTOR)?;
    disk.sync()?;
    disk.write(0, &protective_mbr(target.bytes))?;
    disk.sync()
}

/// Reads a partition's beginning back and holds it against what was signed.
fn same_part(disk: &File, partition: &Partition, part: &Part) -> Result<()> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; MIB as usize];
    let mut at = 0;
    while at < part.bytes {
        let piece = buffer.get_mut(..(part.bytes - at).min(MIB) as usize).unwrap_or_default();
        disk.read_exact_at(piece, partition.start + at).context("the disk cannot be read back")?;
        hasher.update(&*piece);
        at += piece.len() as u64;
    }
    let found: [u8; 32] = hasher.finalize().into();
    ensure!(found == *part.hash, "the disk has other bytes than were written to it: it is defective");
    Ok(())
}

/// Changes the disk, and asks before each change.
struct Writer<'a> {
    disk: &'a File,
    go_on: &'a mut dyn FnMut() -> Result<()>,
}

impl Writer<'_> {
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        (self.go_on)()?;
        self.disk.write_all_at(bytes, at).context("the disk cannot be written")
    }

    fn zero(&mut self, at: u64, bytes: u64) -> Result<()> {
        let zeros = vec![0; bytes.min(MIB) as usize];
        let mut done = 0;
        while done < bytes {
            let piece = zeros.get(..(bytes - done).min(MIB) as usize).unwrap_or_default();
            self.write(at + done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        (self.go_on)()?;
        self.disk.sync_all().context("what was written is not on the disk")
    }
}
