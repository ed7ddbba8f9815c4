//! The boot partition of a new disk, made whole in memory: boot loader, its configuration, the kernel image with its tries.
//!
//! A file system of 384 MiB with 50 MB in it: only blocks that were written are kept, and written to the disk. What stood in
//! the others before is in no file. `fatfs` gives the entries `.` and `..` of a folder long names, and a `..` in the first
//! level another cluster than FAT wants: both are put right here, before there is a file.
//! Refuses: a kernel image that is not the signed one, after its last byte.
//! Invariant: the same bundle, loader and numbers give the same blocks.

use super::layout::ESP_BYTES;
use crate::bundle::Bundle;
use crate::esp::first_name;
use anyhow::{Context, Result, ensure};
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

const BLOCK: u64 = 4096;
/// 98,304 of them, which is more than the 65,525 from which on it is FAT32.
const CLUSTER: u64 = 4096;
/// An entry of a folder, in bytes.
const ENTRY: usize = 32;
/// In an entry's byte 11: part of a long name; a folder.
const LONG_NAME: u8 = 0x0f;
const FOLDER: u8 = 0x10;
const DELETED: u8 = 0xe5;
/// 8.3, padded.
const LABEL: [u8; 11] = *b"BULLA-BOOT ";
/// Where firmware looks on a disk that it knows nothing of, and where systemd-boot looks for itself when it is updated.
const LOADERS: [&str; 2] = ["EFI/systemd/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"];
/// Kernel images of systemd-boot.
const FOLDERS: [&str; 5] = ["EFI", "EFI/BOOT", "EFI/systemd", "EFI/Linux", "loader"];

/// The first day that FAT can name: every file is of it. Without a date firmware refuses to rename a file (EDK II: Invalid
/// Parameter), and renaming is how systemd-boot counts the tries of an image.
#[derive(Debug)]
struct Beginning;
static BEGINNING: Beginning = Beginning;
const FIRST_DAY: Date = Date { year: 1980, month: 1, day: 1 };

impl TimeProvider for Beginning {
    fn get_current_date(&self) -> Date {
        FIRST_DAY
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: FIRST_DAY, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// A boot partition's blocks.
#[derive(Default)]
pub struct BootPartition {
    blocks: BTreeMap<u64, Box<[u8; BLOCK as usize]>>,
    at: u64,
}

impl BootPartition {
    /// Makes it from the bundle's kernel image, the boot loader and the loader's configuration.
    ///
    /// # Errors
    /// The bundle is damaged.
    pub fn make(bundle: &mut Bundle, loader: &[u8], configuration: &[u8], volume: u32) -> Result<Self> {
        let mut partition = Self::default();
        let options = FormatVolumeOptions::new().volume_id(volume).volume_label(LABEL);
        let options = options.fat_type(FatType::Fat32).bytes_per_cluster(CLUSTER as u32);
        fatfs::format_volume(&mut partition, options).context("the boot partition cannot be made")?;
        let disk = FileSystem::new(&mut partition, FsOptions::new().time_provider(&BEGINNING))?;
        for folder in FOLDERS {
            disk.root_dir().create_dir(folder)?;
        }
        disk.unmount()?;
        partition.mend_folders()?;
        let disk = FileSystem::new(&mut partition, FsOptions::new().time_provider(&BEGINNING))?;
        let root = disk.root_dir();
        root.create_file("loader/loader.conf")?.write_all(configuration)?;
        for path in LOADERS {
            root.create_file(path)?.write_all(loader)?;
        }
        let name = format!("EFI/Linux/{}", first_name(bundle.update().content().image));
        let mut kernel = root.create_file(&name)?;
        bundle.read_part(2, |piece| Ok(kernel.write_all(piece)?))?;
        kernel.flush()?;
        drop(kernel);
        drop(root);
        disk.unmount().context("the boot partition cannot be made")?;
        Ok(partition)
    }

    /// Its blocks in runs of at most a mebibyte: where in the partition, and what.
    pub fn runs(&self) -> Vec<(u64, Vec<u8>)> {
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        for (number, block) in &self.blocks {
            let at = number * BLOCK;
            match runs.last_mut() {
                Some((start, run)) if *start + run.len() as u64 == at && run.len() < 1 << 20 => {
                    run.extend_from_slice(block.as_slice());
                }
                _ => runs.push((at, block.to_vec())),
            }
        }
        runs
    }

    /// Puts `.` and `..` of every folder where they belong. (Microsoft, FAT 1.03: they are the first two entries, and `..` in
    /// the first level says 0.)
    fn mend_folders(&mut self) -> Result<()> {
        let mut boot = [0; 512];
        self.read_at(0, &mut boot)?;
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| word(at) | word(at + 2) << 16;
        let first_cluster = 512 * (word(14) + u64::from(boot[16]) * long(36));
        let place = |cluster: u64| first_cluster + cluster.saturating_sub(2) * CLUSTER;
        let root = long(44);
        let mut left = vec![root];
        while let Some(folder) = left.pop() {
            let mut entries = [0; CLUSTER as usize];
            self.read_at(place(folder), &mut entries)?;
            if folder != root {
                let kind = |number: usize| (entries[number * ENTRY], entries[number * ENTRY + 11]);
                let known = kind(0).1 == LONG_NAME && kind(1) == (b'.', FOLDER) && kind(2).1 == LONG_NAME;
                ensure!(known && kind(3) == (b'.', FOLDER), "a folder of the boot partition is odd");
                entries.copy_within(ENTRY..2 * ENTRY, 0);
                entries.copy_within(3 * ENTRY..4 * ENTRY, ENTRY);
                let up = &mut entries[ENTRY..2 * ENTRY];
                if entry_cluster(up) == root {
                    (up[20], up[21], up[26], up[27]) = (0, 0, 0, 0);
                }
                (entries[2 * ENTRY], entries[3 * ENTRY]) = (DELETED, DELETED);
                self.seek(SeekFrom::Start(place(folder)))?;
                self.write_all(&entries)?;
            }
            let below = entries.chunks_exact(ENTRY).filter(|entry| {
                entry[11] == FOLDER && entry[0] != b'.' && entry[0] != DELETED && entry[0] != 0
            });
            left.extend(below.map(entry_cluster));
        }
        self.at = 0;
        Ok(())
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(at))?;
        self.read_exact(buffer)
    }

    /// Where in its block a read or a write begins, and how far it goes there.
    fn place(&self, wanted: usize) -> (u64, usize, usize) {
        let within = (self.at % BLOCK) as usize;
        let left = ESP_BYTES.saturating_sub(self.at).min(usize::MAX as u64) as usize;
        (self.at / BLOCK, within, wanted.min(BLOCK as usize - within).min(left))
    }
}

/// The cluster that an entry of a folder names.
fn entry_cluster(entry: &[u8]) -> u64 {
    u64::from(u32::from_le_bytes([entry[26], entry[27], entry[20], entry[21]]))
}

impl Read for BootPartition {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (number, within, length) = self.place(buffer.len());
        match self.blocks.get(&number) {
            Some(block) => buffer[..length].copy_from_slice(&block[within..within + length]),
            None => buffer[..length].fill(0),
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for BootPartition {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (number, within, length) = self.place(bytes.len());
        if length > 0 {
            let block = self.blocks.entry(number).or_insert_with(|| Box::new([0; BLOCK as usize]));
            block[within..within + length].copy_from_slice(&bytes[..length]);
        }
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for BootPartition {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => ESP_BYTES.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
