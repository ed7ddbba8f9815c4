//! Updates on a disk that is a file: taken whole, refused without a trace, and cut off before every single change.
//!
//! The table is made and read back by the crate `gpt`, which shares nothing with ours.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::bail;
use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_formats::update::{Part, Release, Update, UpdateContent};
use bulla_formats::update_record::{Outcome, UpdateRecord};
use bulla_update::apply::apply;
use bulla_update::bundle::Bundle;
use bulla_update::esp::Esp;
use bulla_update::machine::Machine;
use bulla_update::settle;
use bulla_update::table::Table;
use ed25519_dalek::{Signer as _, SigningKey};
use gpt::disk::LogicalBlockSize;
use gpt::partition_types::Type;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::LazyLock;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const ROOT: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
const VERITY: &str = "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5";
const DATA: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const RUNNING_HASH: [u8; 32] = [0x11; 32];
const NEXT_HASH: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";
const NOW: u64 = 1_790_000_000_000;
const TARGET: &str = "bulla/x86-64";

fn release(text: &str) -> Release {
    Release::parse(text).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Start, UUID and name of a partition.
type Entry = (u64, String, String);

/// Bytes that are another one's at each place.
fn noise(seed: u8, length: u64) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

/// A machine in a directory: a disk with two slots, of which the first runs 0.1.0, and a boot partition that is a folder.
struct Room {
    directory: TempDir,
}

impl Room {
    fn new() -> Self {
        let room = Self { directory: tempfile::tempdir().unwrap() };
        let disk = File::options().read(true).write(true).create_new(true).open(room.disk()).unwrap();
        disk.set_len(12 * MIB).unwrap();
        gpt::mbr::ProtectiveMBR::with_lb_size((12 * MIB / 512 - 1) as u32)
            .overwrite_lba0(&mut disk.try_clone().unwrap())
            .unwrap();
        let lb = LogicalBlockSize::Lb512;
        let config = gpt::GptConfig::new().writable(true).logical_block_size(lb);
        let mut table = config.create_from_device(disk, None).unwrap();
        let uuid = |half: &[u8]| gpt_uuid(half);
        let wanted = [
            ("esp", ESP, MIB, uuid(&[1; 16])),
            ("bulla_0.1.0", ROOT, 2 * MIB, uuid(&RUNNING_HASH[..16])),
            ("bulla_0.1.0_verity", VERITY, MIB, uuid(&RUNNING_HASH[16..])),
            ("_empty", ROOT, 2 * MIB, uuid(&[2; 16])),
            ("_empty", VERITY, MIB, uuid(&[3; 16])),
            ("bulla-data", DATA, MIB, uuid(&[4; 16])),
        ];
        for (name, kind, bytes, _) in &wanted {
            table.add_partition(name, *bytes, Type::from_str(kind).unwrap(), 0, None).unwrap();
        }
        let mut partitions = table.partitions().clone();
        for (partition, (.., uuid)) in partitions.values_mut().zip(&wanted) {
            partition.part_guid = uuid.to_string().parse().unwrap();
        }
        table.update_partitions(partitions).unwrap();
        let disk = table.write().unwrap();
        let running = noise(1, 2 * MIB);
        disk.write_all_at(&running, room.table().unwrap()[&2].0).unwrap();
        fs::create_dir_all(room.linux()).unwrap();
        fs::write(room.linux().join("bulla_0.1.0.efi"), b"the kernel that runs").unwrap();
        fs::write(room.linux().join("bulla_0.0.9+0-3.efi"), b"one that failed long ago").unwrap();
        room
    }

    fn disk(&self) -> std::path::PathBuf {
        self.directory.path().join("disk.raw")
    }

    fn linux(&self) -> std::path::PathBuf {
        self.directory.path().join("boot/EFI/Linux")
    }

    fn record(&self) -> std::path::PathBuf {
        self.directory.path().join("update.json")
    }

    fn esp(&self) -> Esp {
        Esp::at(&self.directory.path().join("boot"))
    }

    fn machine(&self) -> Machine {
        Machine {
            disk: self.disk(),
            esp: self.esp(),
            record: self.record(),
            target: TARGET.to_owned(),
            running: release("0.1.0"),
            floor: release("0.1.0"),
            root_hash: RUNNING_HASH,
        }
    }

    /// By our reader, after its checks: both slots are there.
    fn own_table(&self) -> BTreeMap<u32, Entry> {
        let disk = File::open(self.disk()).unwrap();
        let table = Table::read(&disk, 12 * MIB).unwrap();
        table.slots(&RUNNING_HASH).unwrap();
        let partitions = table.partitions().unwrap();
        let entry = |partition: &bulla_update::table::Partition| {
            (partition.start, gpt_uuid(&partition.uuid), partition.name.clone())
        };
        partitions.iter().map(|partition| (partition.index as u32 + 1, entry(partition))).collect()
    }

    /// By the other reader, which wants both copies.
    fn table(&self) -> Option<BTreeMap<u32, Entry>> {
        let disk =
            gpt::GptConfig::new().logical_block_size(LogicalBlockSize::Lb512).open(self.disk()).ok()?;
        let of = |partition: &gpt::partition::Partition| {
            (partition.first_lba * 512, partition.part_guid.to_string(), partition.name.clone())
        };
        Some(disk.partitions().iter().map(|(id, partition)| (*id, of(partition))).collect())
    }

    /// Everything a machine could look at.
    fn everything(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::from([("disk".to_owned(), fs::read(self.disk()).unwrap())]);
        for file in fs::read_dir(self.linux()).unwrap() {
            let path = file.unwrap().path();
            all.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
        }
        if let Ok(record) = fs::read(self.record()) {
            all.insert("record".to_owned(), record);
        }
        all
    }

    fn restore(&self, all: &BTreeMap<String, Vec<u8>>) {
        fs::remove_dir_all(self.linux()).unwrap();
        fs::create_dir_all(self.linux()).unwrap();
        let _ = fs::remove_file(self.record());
        for (name, bytes) in all {
            match name.as_str() {
                "disk" => fs::write(self.disk(), bytes).unwrap(),
                "record" => fs::write(self.record(), bytes).unwrap(),
                name => fs::write(self.linux().join(name), bytes).unwrap(),
            }
        }
    }

    fn bundle(&self, change: impl FnOnce(&mut UpdateContent, &mut [Vec<u8>; 3])) -> std::path::PathBuf {
        self.bundle_by(1, change)
    }

    fn bundle_by(
        &self,
        by: u8,
        change: impl FnOnce(&mut UpdateContent, &mut [Vec<u8>; 3]),
    ) -> std::path::PathBuf {
        let mut parts = parts();
        let part =
            |bytes: &Vec<u8>| Part { bytes: bytes.len() as u64, hash: Octets32::new(sha256(&[bytes]).0) };
        let mut content = UpdateContent {
            version: 1,
            target: TARGET.to_owned(),
            image: release("0.2.0"),
            floor: release("0.1.0"),
            root_hash: Octets32::new(NEXT_HASH),
            made_at: NOW,
            root: part(&parts[0]),
            verity: part(&parts[1]),
            kernel: part(&parts[2]),
        };
        change(&mut content, &mut parts);
        let signature = key(by).sign(&content.message()).to_bytes().to_vec().into();
        let head = Update { content, signature }.head();
        let path = self.directory.path().join("bundle.update");
        fs::write(&path, [&head[..], &parts[0], &parts[1], &parts[2]].concat()).unwrap();
        path
    }

    fn take(&self, path: &Path, go_on: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Release> {
        let mut bundle = Bundle::open(path, &[key(1).verifying_key().to_bytes()])?;
        apply(&self.machine(), &mut bundle, NOW, go_on)
    }
}

fn parts() -> [Vec<u8>; 3] {
    static PARTS: LazyLock<[Vec<u8>; 3]> =
        LazyLock::new(|| [noise(5, MIB + MIB / 2), noise(6, MIB / 4), noise(7, MIB + 100)]);
    PARTS.clone()
}

fn gpt_uuid(half: &[u8]) -> String {
    let hex = hex::encode(half);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// What must hold at every moment: what runs is untouched, and whatever else the boot loader would start is there whole.
fn sound(room: &Room, before: &BTreeMap<String, Vec<u8>>, at: &str) -> bool {
    let now = room.everything();
    let table = room.own_table();
    assert_eq!(table.len(), 6, "{at}");
    for running in [2, 3] {
        assert_eq!(table[&running], BEFORE[&running], "{at}: the running slot's entry");
    }
    let slot = |id: u32, length: u64| {
        let start = table[&id].0;
        now["disk"][start as usize..(start + length) as usize].to_vec()
    };
    let old = &before["disk"][table[&2].0 as usize..][..2 * MIB as usize];
    assert_eq!(slot(2, 2 * MIB), old, "{at}: the running slot");
    assert_eq!(now["bulla_0.1.0.efi"], before["bulla_0.1.0.efi"], "{at}: the running kernel image");
    let Some(next) = room.esp().image(release("0.2.0")).unwrap() else { return false };
    let [root, verity, kernel] = parts();
    assert_eq!(next.tries_left, Some(3), "{at}");
    assert!(fs::read(&next.path).unwrap() == kernel, "{at}: half a kernel image starts");
    assert!(slot(4, root.len() as u64) == root, "{at}: half a root starts");
    assert!(slot(5, verity.len() as u64) == verity, "{at}: half of the hashes");
    assert_eq!(
        (table[&4].1.as_str(), table[&4].2.as_str()),
        (gpt_uuid(&NEXT_HASH[..16]).as_str(), "bulla_0.2.0")
    );
    assert_eq!(
        (table[&5].1.as_str(), table[&5].2.as_str()),
        (gpt_uuid(&NEXT_HASH[16..]).as_str(), "bulla_0.2.0_verity")
    );
    assert_eq!(room.table().as_ref(), Some(&table), "{at}: another reader finds another table");
    true
}

/// The table of a room in which nothing has happened.
static BEFORE: LazyLock<BTreeMap<u32, Entry>> = LazyLock::new(|| Room::new().table().unwrap());

#[test]
fn an_update_cut_off_before_any_change_never_leaves_half_an_image_that_starts() {
    let room = Room::new();
    let path = room.bundle(|_, _| ());
    let before = room.everything();
    let mut steps = 0;
    let taken = room.take(&path, &mut || {
        steps += 1;
        Ok(())
    });
    assert_eq!(taken.unwrap(), release("0.2.0"));
    assert!(sound(&room, &before, "whole"), "the update is not there");
    assert!(!room.linux().join("bulla_0.0.9+0-3.efi").exists());
    let record = UpdateRecord::parse(&fs::read(room.record()).unwrap()).unwrap();
    assert_eq!((record.from, record.to, record.outcome), (release("0.1.0"), release("0.2.0"), None));
    assert!(steps > 70, "{steps}");
    for cut in 0..steps {
        room.restore(&before);
        let mut step = 0;
        let ended = room.take(&path, &mut || {
            step += 1;
            if step > cut { bail!("the plug is pulled") } else { Ok(()) }
        });
        assert!(ended.unwrap_err().to_string().contains("plug"), "{cut}");
        assert!(!sound(&room, &before, &format!("cut {cut}")), "{cut}: it starts before its last step");
        assert_eq!(
            settle::fell_back(&room.record(), &room.esp(), release("0.1.0"), NOW).unwrap(),
            None,
            "{cut}"
        );
        if cut % 9 == 0 {
            room.take(&path, &mut || Ok(())).unwrap();
            assert!(sound(&room, &before, &format!("again after {cut}")), "{cut}");
        }
    }
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let room = Room::new();
    let before = room.everything();
    let refused = |path: &Path, words: &str| {
        let error = format!("{:#}", room.take(path, &mut || Ok(())).unwrap_err());
        assert!(error.contains(words), "{words}: {error}");
        assert!(room.everything() == before, "{words}: something was changed");
    };
    refused(&room.bundle_by(2, |_, _| ()), "no key that this image trusts");
    refused(&room.bundle(|said, _| said.target = "bulla/arm64".to_owned()), "for bulla/arm64");
    refused(&room.bundle(|said, _| said.image = release("0.1.0")), "not newer than 0.1.0");
    let older = |said: &mut UpdateContent| (said.image, said.floor) = (release("0.0.9"), Release::ZERO);
    refused(&room.bundle(|said, _| older(said)), "below 0.1.0");
    for part in 0..3 {
        refused(
            &room.bundle(|_, parts| parts[part][70_000] ^= 1),
            &format!("part {part} is not what was signed"),
        );
    }
    refused(
        &room.bundle(|said, parts| {
            parts[0] = noise(5, 3 * MIB);
            said.root = Part { bytes: 3 * MIB, hash: Octets32::new(sha256(&[&parts[0]]).0) };
        }),
        "larger than the slots",
    );
    for length in [0, 10, 19, 100, 5_000] {
        let path = room.bundle(|_, _| ());
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert!(room.take(&path, &mut || Ok(())).is_err(), "{length} bytes");
        assert!(room.everything() == before);
    }
    let path = room.bundle(|_, _| ());
    let length = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(length + 1).unwrap();
    refused(&path, "copied only in part");
    // What runs has not proven itself: the other slot is its way back.
    let path = room.bundle(|_, _| ());
    let (good, counted) = (room.linux().join("bulla_0.1.0.efi"), room.linux().join("bulla_0.1.0+2-1.efi"));
    fs::rename(&good, &counted).unwrap();
    let error = room.take(&path, &mut || Ok(())).unwrap_err().to_string();
    assert!(error.contains("not proven itself yet"), "{error}");
    fs::rename(&counted, &good).unwrap();
    assert!(room.everything() == before);
}

#[test]
fn a_torn_copy_of_the_table_is_mended_and_never_the_last_one() {
    let room = Room::new();
    let path = room.bundle(|_, _| ());
    let intact = room.everything();
    for torn in [512 + 16, 1024 + 200, 12 * MIB - 512 + 16, 12 * MIB - 33 * 512 + 3] {
        room.restore(&intact);
        let disk = File::options().read(true).write(true).open(room.disk()).unwrap();
        let mut byte = [0];
        disk.read_exact_at(&mut byte, torn).unwrap();
        disk.write_all_at(&[byte[0] ^ 1], torn).unwrap();
        let before = room.everything();
        let mut steps = 0;
        room.take(&path, &mut || {
            steps += 1;
            Ok(())
        })
        .unwrap();
        assert!(sound(&room, &before, "mended"));
        for cut in (0..steps).rev().step_by(2).take(38) {
            room.restore(&before);
            let mut step = 0;
            let ended = room.take(&path, &mut || {
                step += 1;
                if step > cut { bail!("the plug is pulled") } else { Ok(()) }
            });
            assert!(ended.is_err());
            let disk = File::open(room.disk()).unwrap();
            Table::read(&disk, 12 * MIB).unwrap().slots(&RUNNING_HASH).unwrap();
        }
    }
    let disk = File::options().read(true).write(true).open(room.disk()).unwrap();
    for header in [512 + 16, 12 * MIB - 512 + 16] {
        disk.write_all_at(&[0xee; 4], header).unwrap();
    }
    assert!(Table::read(&disk, 12 * MIB).is_err(), "no copy is whole");
}

#[test]
fn an_update_ends_proven_or_fallen_back_and_only_once() {
    let room = Room::new();
    let path = room.bundle(|_, _| ());
    room.take(&path, &mut || Ok(())).unwrap();
    let staged = fs::read(room.record()).unwrap();
    let (old, new) = (release("0.1.0"), release("0.2.0"));
    let record = || UpdateRecord::parse(&fs::read(room.record()).unwrap()).unwrap();
    // Still to be tried: nothing is settled.
    assert_eq!(settle::fell_back(&room.record(), &room.esp(), old, NOW).unwrap(), None);
    settle::proven(&room.record(), old, NOW).unwrap();
    assert_eq!(fs::read(room.record()).unwrap(), staged);
    // It proves itself.
    settle::failed(&room.record(), new, "the self-test\nfailed").unwrap();
    assert_eq!((record().outcome, record().detail.as_str()), (None, "the self-test failed"));
    settle::proven(&room.record(), new, NOW + 5).unwrap();
    assert_eq!((record().outcome, record().detail.as_str()), (Some((Outcome::Proven, NOW + 5)), ""));
    settle::failed(&room.record(), new, "too late").unwrap();
    assert_eq!(record().outcome, Some((Outcome::Proven, NOW + 5)));
    // It does not.
    fs::write(room.record(), &staged).unwrap();
    settle::failed(&room.record(), new, &"long ".repeat(300)).unwrap();
    let tried = room.linux().join("bulla_0.2.0+0-3.efi");
    fs::rename(room.linux().join("bulla_0.2.0+3-0.efi"), &tried).unwrap();
    assert_eq!(settle::fell_back(&room.record(), &room.esp(), new, NOW + 9).unwrap(), None);
    assert_eq!(settle::fell_back(&room.record(), &room.esp(), old, NOW + 9).unwrap(), Some(new));
    assert_eq!(record().outcome, Some((Outcome::FellBack, NOW + 9)));
    assert!(record().detail.starts_with("long long") && record().detail.len() == 500);
    assert_eq!(settle::fell_back(&room.record(), &room.esp(), old, NOW + 10).unwrap(), None);
    // A damaged record settles nothing and stops nothing.
    fs::write(room.record(), b"{}").unwrap();
    assert_eq!(settle::fell_back(&room.record(), &room.esp(), old, NOW).unwrap(), None);
}
