//! Installation onto a disk that is a file, and once onto one that is a block device: whole, refused without a trace, and cut
//! off before every single change.
//!
//! The table is read back by the crate `gpt`, the boot partition by mtools and fsck.vfat, which share nothing with ours.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::bail;
use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_formats::update::{Part, Release, Update, UpdateContent};
use bulla_update::bundle::Bundle;
use bulla_update::install::choice::{Candidate, Order, choose};
use bulla_update::install::disks::{self, Content, Disk, content};
use bulla_update::install::layout::{DISK_BYTES_MIN, Ids, partitions};
use bulla_update::install::write::{Source, Target, install};
use bulla_update::reset::forget_data;
use bulla_update::table::{Partition, Table, protective_mbr};
use ed25519_dalek::{Signer as _, SigningKey};
use gpt::disk::LogicalBlockSize;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const DISK: u64 = DISK_BYTES_MIN + 5 * MIB;
const ROOT_HASH: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";
const IDS: Ids = Ids { uuids: [[0x41; 16], [0x42; 16], [0x43; 16], [0x44; 16]], volume: 0x0b0b_1111 };
const LOADER: &[u8] = b"the signed boot loader";
const CONFIGURATION: &[u8] = b"timeout 0\n";

fn release(text: &str) -> Release {
    Release::parse(text).unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn noise(seed: u8, length: u64) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

/// A directory with a disk and the bundle of a stick.
struct Room {
    directory: TempDir,
    parts: [Vec<u8>; 3],
}

impl Room {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("disk.raw")).unwrap().set_len(DISK).unwrap();
        let room = Self { directory, parts: [noise(5, 3 * MIB), noise(6, MIB / 4), noise(7, 2 * MIB + 100)] };
        let part =
            |bytes: &Vec<u8>| Part { bytes: bytes.len() as u64, hash: Octets32::new(sha256(&[bytes]).0) };
        let content = UpdateContent {
            version: 1,
            target: "bulla/x86-64".to_owned(),
            image: release("0.2.0"),
            floor: release("0.1.0"),
            root_hash: Octets32::new(ROOT_HASH),
            made_at: 1_790_000_000_000,
            root: part(&room.parts[0]),
            verity: part(&room.parts[1]),
            kernel: part(&room.parts[2]),
        };
        let signature = key().sign(&content.message()).to_bytes().to_vec().into();
        let head = Update { content, signature }.head();
        fs::write(room.bundle(), [&head[..], &room.parts.concat()].concat()).unwrap();
        room
    }

    fn disk(&self) -> PathBuf {
        self.directory.path().join("disk.raw")
    }

    fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle.update")
    }

    fn content(&self) -> Content {
        content(&self.disk(), DISK)
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(self.disk()).unwrap()
    }

    /// A disk on which nothing has been yet; sparse.
    fn empty(&self) {
        File::create(self.disk()).unwrap().set_len(DISK).unwrap();
    }

    /// A disk with a box and its data; sparse but for what is looked at.
    fn with_a_box(&self) -> Partition {
        self.empty();
        let layout = partitions(release("0.1.0"), &[0x77; 32], &IDS);
        let end = layout[4].start + layout[4].bytes;
        let data = Partition {
            index: 5,
            kind: hex::decode("0fc63daf848347728e793d69d8477de4").unwrap().try_into().unwrap(),
            uuid: [0x55; 16],
            name: "bulla-data".to_owned(),
            start: end,
            bytes: DISK - MIB - end,
        };
        let all: Vec<Partition> = layout.into_iter().chain([data.clone()]).collect();
        let disk = self.open();
        Table::fresh(DISK, &[0x40; 16], &all).unwrap().write(&disk, &mut || Ok(())).unwrap();
        disk.write_all_at(&protective_mbr(DISK), 0).unwrap();
        disk.write_all_at(&[b"LUKS\xba\xbe".as_slice(), &[7; 4096]].concat(), data.start).unwrap();
        data
    }

    fn install(&self, go_on: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<String>> {
        install_onto(&self.disk(), DISK, &self.bundle(), go_on)
    }

    /// What must hold at every moment: what firmware would start from is there whole, or not at all.
    fn starts(&self, at: &str) -> bool {
        let disk = self.open();
        let mut first = [0; 512];
        disk.read_exact_at(&mut first, 0).unwrap();
        if first == [0; 512] {
            return false;
        }
        assert_eq!(first, protective_mbr(DISK), "{at}");
        let layout = partitions(release("0.2.0"), &ROOT_HASH, &IDS);
        let table = Table::read(&disk, DISK).unwrap().partitions().unwrap();
        if table != layout {
            assert_eq!(table[1].name, "bulla_0.1.0", "{at}: neither the old table nor the new one");
            return false;
        }
        for (partition, part) in [(1, &self.parts[0]), (2, &self.parts[1])] {
            let mut found = vec![0; part.len()];
            disk.read_exact_at(&mut found, layout[partition].start).unwrap();
            assert!(found == *part, "{at}: partition {partition} is not whole");
        }
        true
    }
}

fn install_onto(
    path: &Path,
    bytes: u64,
    bundle: &Path,
    go_on: &mut dyn FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<String>> {
    let mut bundle = Bundle::open(bundle, &[key().verifying_key().to_bytes()])?;
    let disk = File::options().read(true).write(true).open(path)?;
    let mut source = Source {
        bundle: &mut bundle,
        loader: LOADER.to_vec(),
        configuration: CONFIGURATION.to_vec(),
        ids: IDS,
    };
    let target = Target { disk: &disk, bytes, content: &content(path, bytes) };
    let mut said = Vec::new();
    install(&target, &mut source, go_on, &mut |line| said.push(line.to_owned()))?;
    Ok(said)
}

/// Reads a file of the boot partition as another computer does.
fn on_boot_partition(disk: &Path, name: &str) -> Vec<u8> {
    let image = format!("{}@@1M", disk.display());
    let told = Command::new("mtype").args(["-i", &image, &format!("::/{name}")]).output().unwrap();
    assert!(told.status.success(), "{name}: {}", String::from_utf8_lossy(&told.stderr));
    told.stdout
}

/// Another reader's view of table and boot partition.
fn judged_by_others(path: &Path, room: &Room) {
    let others = gpt::GptConfig::new().logical_block_size(LogicalBlockSize::Lb512).open(path).unwrap();
    let names: Vec<&str> = others.partitions().values().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["esp", "bulla_0.2.0", "bulla_0.2.0_verity", "_empty", "_empty"]);
    let root = &others.partitions()[&2];
    assert_eq!(root.part_guid.simple().to_string(), hex::encode(&ROOT_HASH[..16]));
    assert_eq!(root.flags, 1 << 60);
    assert!(on_boot_partition(path, "EFI/Linux/bulla_0.2.0+3-0.efi") == room.parts[2]);
    for loader in ["EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi"] {
        assert_eq!(on_boot_partition(path, loader), LOADER);
    }
    assert_eq!(on_boot_partition(path, "loader/loader.conf"), CONFIGURATION);
    // A file without a date is one that firmware does not rename.
    let listing =
        Command::new("mdir").args(["-/", "-i", &format!("{}@@1M", path.display())]).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    assert_eq!(listing.matches(" 1980-01-01 ").count(), 4 + 5 + 2 * 5, "{listing}");
    let boot = room.directory.path().join("boot.raw");
    let mut bytes = vec![0; 384 * MIB as usize];
    File::open(path).unwrap().read_exact_at(&mut bytes, MIB).unwrap();
    fs::write(&boot, bytes).unwrap();
    let told = Command::new("fsck.vfat").arg("-n").arg(&boot).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
    fs::remove_file(&boot).unwrap();
}

#[test]
fn an_installation_cut_off_before_any_change_never_leaves_half_an_image_that_starts() {
    let room = Room::new();
    assert_eq!(room.content(), Content::Empty);
    let mut steps = 0;
    let said = room
        .install(&mut || {
            steps += 1;
            Ok(())
        })
        .unwrap();
    assert!(said.iter().any(|line| line.contains("writing the image: 100 %")), "{said:?}");
    assert!(room.starts("whole"));
    judged_by_others(&room.disk(), &room);
    assert_eq!(room.content(), Content::Image("bulla_0.2.0".to_owned()));
    assert!(steps > 80, "{steps}");

    for (kind, with_a_box) in [("empty", false), ("a box", true)] {
        let mut steps = steps;
        if with_a_box {
            room.with_a_box();
            steps = 0;
            room.install(&mut || {
                steps += 1;
                Ok(())
            })
            .unwrap();
        }
        for cut in 0..steps {
            let data = with_a_box.then(|| room.with_a_box());
            if data.is_none() {
                room.empty();
            }
            let mut step = 0;
            let ended = room.install(&mut || {
                step += 1;
                if step > cut { bail!("the plug is pulled") } else { Ok(()) }
            });
            let at = format!("{kind}, cut {cut}");
            assert!(ended.unwrap_err().to_string().contains("plug"), "{at}");
            // The last change but one makes it whole; the last step only asks whether that is on the disk.
            assert_eq!(room.starts(&at), cut == steps - 1, "{at}");
            match (room.content(), &data) {
                // Nothing of the old data opens once anything else of the disk has changed.
                (Content::Box(found), Some(data)) => assert_eq!(&found, data, "{at}"),
                (Content::Empty | Content::Unfinished | Content::Image(_), _) => {
                    if let Some(data) = &data {
                        let mut keys = [1; 512];
                        room.open().read_exact_at(&mut keys, data.start).unwrap();
                        assert_eq!(keys, [0; 512], "{at}: the old keys are still there");
                    }
                }
                (found, _) => panic!("{at}: {found:?}"),
            }
            if cut % 23 == 0 {
                room.install(&mut || Ok(())).unwrap();
                assert!(room.starts(&format!("again after {at}")));
            }
        }
    }
}

#[test]
fn a_damaged_stick_and_a_defective_disk_leave_nothing_that_starts() {
    let room = Room::new();
    let data = room.with_a_box();
    // Before every change somebody is asked.
    let refused = || {
        let mut asked = false;
        let ended = room.install(&mut || {
            asked = true;
            Ok(())
        });
        assert!(!asked && room.content() == Content::Box(data.clone()), "something was changed");
        ended.unwrap_err().to_string()
    };
    let good = fs::read(room.bundle()).unwrap();
    // Damage in the root, in the hashes, in the kernel image, and in what is signed.
    for at in [good.len() - 100, good.len() - 2 * MIB as usize - 1_000, 2 * MIB as usize, 60] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(room.bundle(), &bad).unwrap();
        let error = refused();
        assert!(error.contains("damaged") || error.contains("update"), "{at}: {error}");
    }
    fs::write(room.bundle(), &good[..good.len() - 1]).unwrap();
    let error = refused();
    assert!(error.contains("copied only in part"), "{error}");

    // A disk that forgets what was written to it: one byte is another after the last write, before it is read back.
    fs::write(room.bundle(), &good).unwrap();
    let layout = partitions(release("0.2.0"), &ROOT_HASH, &IDS);
    for at in [layout[1].start + 1000, layout[2].start + 5, layout[0].start + 3] {
        room.empty();
        let disk = room.open();
        let mut before = [0];
        let error = room
            .install(&mut || {
                let mut now = [0; 1];
                disk.read_exact_at(&mut now, at).unwrap();
                if now != [0] && before == [0] {
                    before = now;
                }
                if before != [0] {
                    disk.write_all_at(&[before[0] ^ 1], at).unwrap();
                }
                Ok(())
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains("it is defective"), "{at}: {error}");
        assert!(!room.starts("defective"));
        assert_eq!(room.content(), Content::Unfinished);
    }
}

fn disk(path: &str, serial: &str, bytes: u64) -> Disk {
    let told = serde_json::json!({ "blockdevices": [{
        "path": path, "model": "Maker  Model", "serial": serial, "size": bytes, "rm": false, "ro": false,
        "tran": "nvme", "type": "disk", "log-sec": 512
    }]});
    disks::parse(told.to_string().as_bytes()).unwrap().pop().unwrap()
}

#[test]
fn the_disk_is_the_only_empty_one_or_the_one_that_is_named() {
    let big = DISK_BYTES_MIN;
    let data = partitions(release("0.1.0"), &[1; 32], &IDS)[4].clone();
    let candidate = |path: &str, serial: &str, content: Content| Candidate {
        disk: disk(path, serial, big),
        content,
        stick: false,
    };
    let mut stick = candidate("/dev/sda", "STICK", Content::Other("a partition table".to_owned()));
    stick.stick = true;
    let order = |text: &str| Order::parse(text).unwrap();
    let chosen = |candidates: &[Candidate], text: &str| -> Result<String, String> {
        let one = choose(candidates, &order(text)).map_err(|error| format!("{error:#}"))?;
        Ok(one.disk.path.display().to_string())
    };
    let empty = candidate("/dev/nvme0n1", "S1", Content::Empty);
    let cut = candidate("/dev/nvme1n1", "S2", Content::Unfinished);
    let other = candidate("/dev/nvme2n1", "S3", Content::Other("something".to_owned()));
    let with_data = candidate("/dev/nvme3n1", "S4", Content::Box(data));
    let image = candidate("/dev/nvme4n1", "S5", Content::Image("bulla_0.2.0".to_owned()));

    assert_eq!(
        chosen(&[stick.clone(), empty.clone(), other.clone(), with_data.clone()], ""),
        Ok("/dev/nvme0n1".into())
    );
    assert_eq!(chosen(&[stick.clone(), cut.clone()], ""), Ok("/dev/nvme1n1".into()));
    for (candidates, text, expected) in [
        (vec![stick.clone(), empty.clone(), other.clone()], "disk = \"S1\"", "/dev/nvme0n1"),
        (vec![empty.clone(), cut.clone()], "disk = \"/dev/nvme1n1\"", "/dev/nvme1n1"),
        (vec![empty.clone(), other.clone()], "disk = \"S3\"\noverwrite = true", "/dev/nvme2n1"),
        (vec![empty.clone(), other.clone()], "disk = \"/dev/nvme2n1\"\noverwrite = true", "/dev/nvme2n1"),
        (vec![with_data.clone()], "disk = \"S4\"\noverwrite = true", "/dev/nvme3n1"),
        (vec![image.clone()], "disk = \"S5\"\noverwrite = true", "/dev/nvme4n1"),
    ] {
        assert_eq!(chosen(&candidates, text), Ok(expected.to_owned()), "{text}");
    }

    let with = |change: fn(&mut Candidate)| {
        let mut one = empty.clone();
        change(&mut one);
        vec![one]
    };
    for (candidates, text, words) in [
        (vec![stick.clone()], "", "no built-in disk that is empty"),
        (vec![empty.clone(), cut.clone()], "", "2 disks are empty"),
        (vec![with_data.clone(), other.clone()], "", "no built-in disk that is empty"),
        (vec![stick.clone(), image.clone()], "", "remove the stick, switch on"),
        (with(|one| one.disk.transport = Some("usb".to_owned())), "", "no built-in disk"),
        (with(|one| one.disk.removable = true), "", "no built-in disk"),
        (with(|one| one.disk.path = "/dev/mmcblk0".into()), "", "no built-in disk"),
        (with(|one| one.disk.bytes -= 512), "", "no built-in disk"),
        (with(|one| one.disk.bytes -= 512), "disk = \"S1\"", "is too small: a box needs 2.0 GB"),
        (with(|one| one.disk.read_only = true), "disk = \"S1\"", "is read-only"),
        (with(|one| one.disk.sector = 4096), "disk = \"S1\"", "sectors of 4096 bytes"),
        (vec![empty.clone()], "disk = \"S9\"", "no disk \"S9\""),
        (vec![empty.clone(), empty.clone()], "disk = \"S1\"", "2 disks of this machine are called"),
        (vec![stick.clone()], "disk = \"STICK\"\noverwrite = true", "is the stick"),
        (vec![other.clone()], "disk = \"S3\"", "say overwrite = true"),
        (vec![image], "disk = \"S5\"", "is not empty (the image bulla_0.2.0"),
        (vec![with_data.clone()], "disk = \"S4\"", "disk = \"S4\" and overwrite = true"),
        (vec![with_data.clone()], "disk = \"/dev/nvme3n1\"", "would be gone for good"),
        (vec![with_data], "disk = \"/dev/nvme3n1\"\noverwrite = true", "must say its serial number"),
    ] {
        let error = chosen(&candidates, text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
    assert_eq!(
        stick.line(),
        "/dev/sda  1.9 GB  nvme  model Maker  Model  serial STICK: is the stick that this machine has started from"
    );
    assert!(other.line().ends_with("serial S3: something"), "{}", other.line());
    for bad in [
        "overwrite = true",
        "disk = \"\"",
        "disk = 7",
        "device = \"S1\"",
        "disk = \"a\"\ndisk = \"b\"",
        "overwrite",
    ] {
        assert!(Order::parse(bad).is_err(), "{bad}");
    }
    assert!(order("check = true").check);
}

#[test]
fn what_a_disk_holds_is_told_from_the_disk() {
    let room = Room::new();
    let disk = |bytes: &[u8], at: u64| {
        room.empty();
        room.open().write_all_at(bytes, at).unwrap();
        room.content()
    };
    assert_eq!(disk(&[0; 1], 0), Content::Empty);
    assert_eq!(disk(&[0xff; MIB as usize], 0), Content::Empty);
    for (what, bytes, at) in [
        ("a file system", b"\x53\xef".as_slice(), 1024 + 56),
        ("an encrypted disk", b"LUKS\xba\xbe", 0),
        ("a volume group", b"LABELONE", 512),
        ("a member of an array, whose mark is at the end", b"\xfc\x4e\x2b\xa9", DISK - 8192),
        ("an old partition table", b"\x55\xaa", 510),
    ] {
        assert!(matches!(disk(bytes, at), Content::Other(_)), "{what}");
    }
    room.with_a_box();
    assert!(matches!(room.content(), Content::Box(_)));
    // A box stays one when its first sector, its first table or its last one is lost.
    for (at, length) in [(0, 512), (0, MIB), (DISK - MIB, MIB)] {
        room.with_a_box();
        room.open().write_all_at(&vec![0; length as usize], at).unwrap();
        assert!(matches!(room.content(), Content::Box(_)), "{at}");
    }
    // With both tables lost it is not taken for an empty disk.
    room.with_a_box();
    for at in [0, DISK - MIB] {
        room.open().write_all_at(&[0; MIB as usize], at).unwrap();
    }
    assert_eq!(room.content(), Content::Other("the data of a box whose partition table is lost".to_owned()));
    assert!(matches!(content(Path::new("/nonexistent"), DISK), Content::Other(_)));
    let told = br#"{"blockdevices":[
        {"path":"/dev/zram0","model":null,"serial":null,"size":0,"rm":false,"ro":false,"tran":null,"type":"disk","log-sec":4096},
        {"path":"/dev/loop0","model":null,"serial":null,"size":4096,"rm":false,"ro":false,"tran":null,"type":"loop","log-sec":512},
        {"path":"/dev/sr0","model":"DVD","serial":null,"size":4096,"rm":true,"ro":false,"tran":"sata","type":"rom","log-sec":512},
        {"path":"/dev/vda","model":null,"serial":null,"size":274877906944,"rm":false,"ro":false,"tran":null,"type":"disk","log-sec":512}]}"#;
    let found = disks::parse(told).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "/dev/vda  274.9 GB  -  model -  serial -");
    assert!(found[0].internal());
    for bad in [b"".as_slice(), b"{}", br#"{"blockdevices":[{"path":"/dev/vda"}]}"#] {
        assert!(disks::parse(bad).is_err());
    }
    // Whatever this machine has, lsblk tells it in this form.
    disks::list().unwrap();
}

#[test]
fn a_reset_cut_off_before_any_change_leaves_the_data_or_none() {
    let room = Room::new();
    let data = room.with_a_box();
    let forget = |go_on: &mut dyn FnMut() -> anyhow::Result<()>| forget_data(&room.open(), DISK, go_on);
    let mut steps = 0;
    let gone = forget(&mut || {
        steps += 1;
        Ok(())
    });
    assert!(gone.unwrap() && steps > 40, "{steps}");
    let keys = |from: u64| {
        let mut keys = [1; 4096];
        room.open().read_exact_at(&mut keys, from).unwrap();
        keys
    };
    assert_eq!(keys(data.start), [0; 4096]);
    assert_eq!(room.content(), Content::Image("bulla_0.1.0".to_owned()), "slots and boot partition stay");
    assert!(!forget(&mut || Ok(())).unwrap(), "there is none any more");
    for cut in 0..steps {
        room.with_a_box();
        let mut step = 0;
        let ended = forget(&mut || {
            step += 1;
            if step > cut { bail!("the plug is pulled") } else { Ok(()) }
        });
        assert!(ended.unwrap_err().to_string().contains("plug"), "{cut}");
        let whole = keys(data.start) != [0; 4096];
        match room.content() {
            // Never a partition without its keys, which would neither open nor be made anew.
            Content::Box(found) => assert!(found == data && whole, "{cut}"),
            Content::Image(_) => {}
            other => panic!("{cut}: {other:?}"),
        }
    }
}

/// A loop device, given back when the test ends.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Self {
        let told = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(told.status.success(), "a loop device, as root: {}", String::from_utf8_lossy(&told.stderr));
        Self(String::from_utf8(told.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn an_image_goes_onto_a_block_device() {
    let room = Room::new();
    let device = Loop::over(&room.disk());
    let path = Path::new(&device.0);
    install_onto(path, DISK, &room.bundle(), &mut || Ok(())).unwrap();
    assert_eq!(content(path, DISK), Content::Image("bulla_0.2.0".to_owned()));
    judged_by_others(path, &room);
    drop(device);
    assert!(room.starts("on a device"));
}
