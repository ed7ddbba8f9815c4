//! The partition table (GPT, UEFI 2.10 section 5.3): which slot runs, which is spare, and the names of the spare one; and
//! the table of a disk that is new.
//!
//! A disk has the table twice. Both copies are checked whole, and written one after the other, the second only when the first
//! is on the disk: so one of them is whole at any moment, and firmware and kernel (`gpt` on its command line) take that one.
//! Refuses: a disk on which no copy is whole, and one that does not have exactly two slots.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// The only size of a sector that is dealt with.
pub const SECTOR: u64 = 512;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: usize = 128;
const ENTRIES_MAX: u32 = 128;
/// Characters of a partition's name.
const NAME_MAX: usize = 36;
/// Discoverable Partitions Specification: root on x86-64, and its verity hashes.
pub const ROOT: &str = "4f68bce3e8cd4db196e7fbcaf984b709";
/// The hashes of such a root.
pub const VERITY: &str = "2c7357edebd246d9aec123d437ec2bf5";
/// UEFI: the boot partition.
pub const ESP: &str = "c12a7328f81f11d2ba4b00a0c93ec93b";
/// Nobody writes to the partition as a file system (Discoverable Partitions Specification, attribute 60).
const READ_ONLY: u64 = 1 << 60;
/// The sectors of a copy's entries, and of one copy with its header.
const ENTRIES_SECTORS: u64 = ENTRIES_MAX as u64 * ENTRY_BYTES as u64 / SECTOR;

/// A UUID in the order in which it is written; on the disk its first three fields are turned round.
pub type Uuid = [u8; 16];

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table.
    pub index: usize,
    /// What it is.
    pub kind: Uuid,
    /// Which one it is.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The two partitions of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The root's file system.
    pub root: Partition,
    /// The hashes of its blocks.
    pub verity: Partition,
}

/// One copy of the table, checked.
#[derive(Debug, Clone)]
struct Copy {
    header: [u8; SECTOR as usize],
    entries: Vec<u8>,
}

/// The table of a disk.
#[derive(Debug, Clone)]
pub struct Table {
    primary: Option<Copy>,
    backup: Option<Copy>,
    /// The last sector, where the backup's header is.
    last: u64,
}

impl Table {
    /// Reads both copies.
    ///
    /// # Errors
    /// None is whole.
    pub fn read(disk: &File, disk_bytes: u64) -> Result<Self> {
        let last = (disk_bytes / SECTOR).saturating_sub(1);
        let table = Self { primary: Copy::read(disk, 1), backup: Copy::read(disk, last), last };
        ensure!(
            table.primary.is_some() || table.backup.is_some(),
            "the disk has no partition table that is whole"
        );
        Ok(table)
    }

    /// The table of a disk on which there is none: these partitions, of which the roots and their hashes are read-only.
    ///
    /// # Errors
    /// A partition does not fit.
    pub fn fresh(disk_bytes: u64, disk: &Uuid, partitions: &[Partition]) -> Result<Self> {
        let last = (disk_bytes / SECTOR).saturating_sub(1);
        let (first_usable, last_usable) =
            (2 + ENTRIES_SECTORS, last.checked_sub(ENTRIES_SECTORS + 1).context("the disk is too small")?);
        let mut entries = vec![0; ENTRIES_MAX as usize * ENTRY_BYTES];
        for partition in partitions {
            let (first, end) = (partition.start / SECTOR, (partition.start + partition.bytes) / SECTOR);
            ensure!(
                first >= first_usable && first < end && end <= last_usable + 1,
                "the partition {} does not fit onto the disk",
                partition.name
            );
            let at = partition.index * ENTRY_BYTES;
            let entry = entries.get_mut(at..at + ENTRY_BYTES).context("a table has 128 partitions")?;
            entry[..16].copy_from_slice(&turned(&partition.kind));
            let kind = hex::encode(partition.kind);
            let attributes = if kind == ROOT || kind == VERITY { READ_ONLY } else { 0 };
            for (place, value) in [(32, first), (40, end - 1), (48, attributes)] {
                entry[place..place + 8].copy_from_slice(&value.to_le_bytes());
            }
            name_entry(entry, &partition.uuid, &partition.name)?;
        }
        let mut header = [0; SECTOR as usize];
        header[..8].copy_from_slice(SIGNATURE);
        // Revision 1.0.
        header[8..12].copy_from_slice(&[0, 0, 1, 0]);
        let words = [(12, HEADER_BYTES as u32), (80, ENTRIES_MAX), (84, ENTRY_BYTES as u32)];
        for (place, value) in words {
            header[place..place + 4].copy_from_slice(&value.to_le_bytes());
        }
        header[40..48].copy_from_slice(&first_usable.to_le_bytes());
        header[48..56].copy_from_slice(&last_usable.to_le_bytes());
        header[56..72].copy_from_slice(&turned(disk));
        let copy = Copy { header, entries };
        Ok(Self { primary: Some(copy.placed(1, last)?), backup: Some(copy.placed(last, last)?), last })
    }

    /// The copy that counts: firmware and kernel look at the primary one first.
    fn copy(&self) -> Result<&Copy> {
        self.primary.as_ref().or(self.backup.as_ref()).context("no partition table")
    }

    /// The partitions in the order of the table.
    ///
    /// # Errors
    /// An entry makes no sense.
    pub fn partitions(&self) -> Result<Vec<Partition>> {
        let copy = self.copy()?;
        let used = copy
            .entries
            .chunks_exact(ENTRY_BYTES)
            .enumerate()
            .filter(|(_, entry)| entry.iter().take(16).any(|byte| *byte != 0));
        used.map(|(index, entry)| partition(index, entry)).collect()
    }

    /// The slot whose root hash this is, and the other one.
    ///
    /// # Errors
    /// There are not two slots, or none with this root hash.
    pub fn slots(&self, running: &[u8; 32]) -> Result<(Slot, Slot)> {
        let partitions = self.partitions()?;
        let (root, verity) = halves(running);
        let pair = |kind: &str, own: Uuid| -> Result<(Partition, Partition)> {
            let of_kind: Vec<_> =
                partitions.iter().filter(|partition| hex::encode(partition.kind) == kind).collect();
            match of_kind.as_slice() {
                [one, other] if one.uuid == own => Ok(((*one).clone(), (*other).clone())),
                [other, one] if one.uuid == own => Ok(((*one).clone(), (*other).clone())),
                [_, _] => bail!("none of the two slots is the one that runs"),
                _ => bail!("the disk has {} partitions of a kind of which it should have two", of_kind.len()),
            }
        };
        let (root, spare_root) = pair(ROOT, root)?;
        let (verity, spare_verity) = pair(VERITY, verity)?;
        Ok((Slot { root, verity }, Slot { root: spare_root, verity: spare_verity }))
    }

    /// Gives a slot the names of an image, in both copies.
    ///
    /// # Errors
    /// A name is too long.
    pub fn name_slot(&mut self, slot: &Slot, root_hash: &[u8; 32], name: &str) -> Result<()> {
        let (root, verity) = halves(root_hash);
        let mut copy = self.copy()?.clone();
        for (partition, uuid, name) in
            [(&slot.root, root, name.to_owned()), (&slot.verity, verity, format!("{name}_verity"))]
        {
            let at = partition.index * ENTRY_BYTES;
            let entry = copy.entries.get_mut(at..at + ENTRY_BYTES).context("no such partition")?;
            name_entry(entry, &uuid, &name)?;
        }
        self.place(&copy)
    }

    /// Takes a partition out, of both copies.
    ///
    /// # Errors
    /// There is none at this place.
    pub fn remove(&mut self, index: usize) -> Result<()> {
        let mut copy = self.copy()?.clone();
        let at = index * ENTRY_BYTES;
        copy.entries.get_mut(at..at + ENTRY_BYTES).context("no such partition")?.fill(0);
        self.place(&copy)
    }

    /// Makes both copies of one.
    fn place(&mut self, copy: &Copy) -> Result<()> {
        self.backup = Some(copy.placed(self.last, self.last)?);
        self.primary = Some(copy.placed(1, self.last)?);
        Ok(())
    }

    /// Writes both copies; `go_on` is asked before each step and may end it there.
    ///
    /// # Errors
    /// The disk refuses, or `go_on` does. One copy is whole all the same.
    pub fn write(&self, disk: &File, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        // The copy that is torn on the disk is not the one to keep meanwhile.
        let primary_is_torn = Copy::read(disk, 1).is_none();
        let mut copies = [(&self.backup, self.last), (&self.primary, 1)];
        if primary_is_torn {
            copies.reverse();
        }
        for (copy, at) in copies {
            let copy = copy.as_ref().context("a copy of the table is missing")?;
            let entries_at = number(&copy.header, 72).context("a header")? * SECTOR;
            for (sector, bytes) in copy.entries.chunks(SECTOR as usize).enumerate() {
                go_on()?;
                disk.write_all_at(bytes, entries_at + sector as u64 * SECTOR)?;
            }
            go_on()?;
            disk.write_all_at(&copy.header, at * SECTOR)?;
            go_on()?;
            disk.sync_data()?;
        }
        Ok(())
    }
}

impl Copy {
    /// The copy whose header is in this sector, when every checksum of it is right.
    fn read(disk: &File, at: u64) -> Option<Self> {
        let mut header = [0; SECTOR as usize];
        disk.read_exact_at(&mut header, at * SECTOR).ok()?;
        let (size, count, each) = (word(&header, 12)?, word(&header, 80)?, word(&header, 84)?);
        let whole = header.starts_with(SIGNATURE)
            && size as usize == HEADER_BYTES
            && number(&header, 24)? == at
            && (1..=ENTRIES_MAX).contains(&count)
            && each as usize == ENTRY_BYTES
            && word(&header, 16)? == checksum(&header);
        if !whole {
            return None;
        }
        let mut entries = vec![0; count as usize * ENTRY_BYTES];
        disk.read_exact_at(&mut entries, number(&header, 72)?.checked_mul(SECTOR)?).ok()?;
        (crc32fast::hash(&entries) == word(&header, 88)?).then_some(Self { header, entries })
    }

    /// Puts the checksums right.
    fn seal(&mut self) {
        self.header[88..92].copy_from_slice(&crc32fast::hash(&self.entries).to_le_bytes());
        let sum = checksum(&self.header);
        self.header[16..20].copy_from_slice(&sum.to_le_bytes());
    }

    /// The same table as the copy whose header is in the sector `at`.
    fn placed(&self, at: u64, last: u64) -> Result<Self> {
        let mut copy = self.clone();
        let sectors = (self.entries.len() as u64).div_ceil(SECTOR);
        let (alternate, entries_at) =
            if at == last { (1, last.checked_sub(sectors).context("a disk too small")?) } else { (last, 2) };
        for (place, value) in [(24, at), (32, alternate), (72, entries_at)] {
            copy.header[place..place + 8].copy_from_slice(&value.to_le_bytes());
        }
        copy.seal();
        Ok(copy)
    }
}

/// The first sector of a disk with such a table (UEFI 2.10 section 5.2.3): without it, firmware takes no notice of the table.
pub fn protective_mbr(disk_bytes: u64) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    let sectors = u32::try_from(disk_bytes / SECTOR - 1).unwrap_or(u32::MAX);
    sector[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    sector[458..462].copy_from_slice(&sectors.to_le_bytes());
    sector[510..].copy_from_slice(&MBR_SIGNATURE);
    sector
}

/// What the first sector of a disk with any kind of table ends in.
pub const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// Gives an entry its UUID and its name.
fn name_entry(entry: &mut [u8], uuid: &Uuid, name: &str) -> Result<()> {
    let letters: Vec<u16> = name.encode_utf16().collect();
    ensure!(letters.len() <= NAME_MAX, "a partition cannot be called {name}");
    entry[16..32].copy_from_slice(&turned(uuid));
    entry[56..].fill(0);
    for (place, letter) in entry[56..].chunks_exact_mut(2).zip(letters) {
        place.copy_from_slice(&letter.to_le_bytes());
    }
    Ok(())
}

fn partition(index: usize, entry: &[u8]) -> Result<Partition> {
    let odd = || format!("partition {} of the disk makes no sense", index + 1);
    let uuid = |at: usize| -> Option<Uuid> { Some(turned(&entry.get(at..at + 16)?.try_into().ok()?)) };
    let (first, last) = (number(entry, 32).with_context(odd)?, number(entry, 40).with_context(odd)?);
    ensure!(first <= last && last < u64::MAX / SECTOR, odd());
    let letters: Vec<u16> =
        entry[56..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let name = letters.split(|letter| *letter == 0).next().unwrap_or_default();
    Ok(Partition {
        index,
        kind: uuid(0).with_context(odd)?,
        uuid: uuid(16).with_context(odd)?,
        name: String::from_utf16_lossy(name),
        start: first * SECTOR,
        bytes: (last - first + 1) * SECTOR,
    })
}

/// CRC of a header, with zeros where it stands itself.
fn checksum(header: &[u8; SECTOR as usize]) -> u32 {
    let mut header = *header;
    header[16..20].fill(0);
    crc32fast::hash(&header[..HEADER_BYTES])
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A UUID between its written order and that on the disk.
fn turned(uuid: &Uuid) -> Uuid {
    let mut turned = *uuid;
    turned[..4].reverse();
    turned[4..6].reverse();
    turned[6..8].reverse();
    turned
}

/// A UUID as people write it.
pub fn written(uuid: &Uuid) -> String {
    let hex = hex::encode(uuid);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The UUIDs of a slot's partitions: the halves of its root hash.
pub fn halves(root_hash: &[u8; 32]) -> (Uuid, Uuid) {
    let (mut root, mut verity) = ([0; 16], [0; 16]);
    root.copy_from_slice(&root_hash[..16]);
    verity.copy_from_slice(&root_hash[16..]);
    (root, verity)
}
