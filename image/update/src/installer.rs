//! `bulla-update install`: puts the image of the stick that this machine has started from onto its disk.
//!
//! Runs only under the kernel image of such a stick, whose signed command line names the boot loader that belongs to it.
//! Refuses: a machine whose Secure Boot is off, because its data would be bound to that; one without a TPM; and what
//! [`bulla_update::install`] names.
//! Invariant: what is said here stands on the console, on the screen, and in `install.txt` on the stick.

use super::{KEYS, OS_RELEASE, about, tpm_floor};
use anyhow::{Context, Result, bail, ensure};
use bulla_update::bundle::Bundle;
use bulla_update::install::choice::{Candidate, ORDER, Order, choose};
use bulla_update::install::disks::{self, content};
use bulla_update::install::layout::Ids;
use bulla_update::install::write::{Source, Target, install};
use bulla_update::machine::{hex_value, keys};
use bulla_update::table::{ESP, Table, written};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The partition that the stick's root is on; `image/os/stick` names it.
const STICK_ROOT: &str = "bulla-install";
/// Where the stick's boot partition is mounted.
const STICK: &str = "/run/bulla-install";
/// What was said, for whoever has no screen.
const SAID: &str = "install.txt";
/// Of the verified root: the boot loader's configuration.
const LOADER_CONFIGURATION: &str = "/usr/lib/bulla/loader.conf";
const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
/// The screen; the console of services may be a serial line.
const SCREEN: &str = "/dev/tty1";
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// How long the last words stay on the screen before the machine switches itself off.
const READING_TIME: Duration = Duration::from_secs(30);

/// What has been said so far.
#[derive(Default)]
struct Told {
    lines: String,
}

impl Told {
    fn say(&mut self, line: &str) {
        println!("bulla: {line}");
        if let Ok(mut screen) = File::options().write(true).open(SCREEN) {
            // A machine without a screen has the stick.
            let _ = writeln!(screen, "bulla: {line}\r");
        }
        self.lines += line;
        self.lines.push('\n');
    }
}

/// Installs, or with `check` lists the disks and what would be done.
pub fn run(check: bool) -> Result<()> {
    let mut told = Told::default();
    let cmdline = fs::read_to_string("/proc/cmdline")?;
    let loader = hex_value(&cmdline, "bulla.loader=")
        .context("this kernel image installs nothing: start the machine from an installation stick")?;
    let all = disks::list()?;
    let (stick_disk, boot) = stick(&all)?;
    mount(&boot)?;
    let done = carry_out(&mut told, &all, &stick_disk, loader, check);
    if let Err(error) = &done {
        told.say(&format!("not installed: {error:#}"));
    }
    if let Err(error) = leave_word(&told) {
        told.say(&format!("{SAID} cannot be written onto the stick: {error:#}"));
    }
    if done.is_ok() {
        sleep(READING_TIME);
    }
    // The sentence is on the console already.
    done.map_err(|_| anyhow::anyhow!("see above"))
}

fn carry_out(
    told: &mut Told,
    all: &[disks::Disk],
    stick_disk: &Path,
    loader: [u8; 32],
    check: bool,
) -> Result<()> {
    let about = about()?;
    let order = match fs::read_to_string(Path::new(STICK).join(ORDER)) {
        Ok(text) => Order::parse(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Order::default(),
        Err(error) => return Err(error).with_context(|| format!("{ORDER} cannot be read")),
    };
    told.say(&format!("installing the image of this stick, {} ({OS_RELEASE}); disks:", about.release));
    let candidates: Vec<Candidate> = all
        .iter()
        .map(|disk| Candidate {
            disk: disk.clone(),
            content: content(&disk.path, disk.bytes),
            stick: disk.path == stick_disk,
        })
        .collect();
    for candidate in &candidates {
        told.say(&format!("  {}", candidate.line()));
    }
    let chosen = choose(&candidates, &order);
    if check || order.check {
        match &chosen {
            Ok(one) => {
                told.say(&format!("would install onto {}; only asked to list: nothing was changed", one.disk))
            }
            Err(error) => told.say(&format!("would install onto none: {error:#}")),
        }
        return Ok(());
    }
    let chosen = chosen?;
    ensure!(
        fs::read(SECURE_BOOT).ok().and_then(|variable| variable.get(4).copied()) == Some(1),
        "Secure Boot is off: enrol the image's keys in the firmware first (docs/hardware.md), or its data would open for any system"
    );
    let floor =
        tpm_floor().context("this machine's TPM does not answer, and a box needs one")?.max(about.floor);

    let trusted = fs::read_to_string(KEYS).with_context(|| format!("cannot read {KEYS}"))?;
    let mut bundle = Bundle::open(&bundle_on_stick()?, &keys(&trusted)?)?;
    bundle.update().suits(&about.target, floor)?;
    let image = bundle.update().content().image;
    let path = Path::new(STICK).join(LOADER);
    let loader_file = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let found: [u8; 32] = Sha256::digest(&loader_file).into();
    ensure!(
        found == loader,
        "the boot loader on the stick is not the one that belongs to this image: the stick was changed"
    );
    let configuration = fs::read(LOADER_CONFIGURATION)?;

    told.say(&format!("installing the image {image} onto {}", chosen.disk));
    // A block device opened so is refused to whoever comes second, and to us when it is in use.
    let disk = File::options()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::EXCL.bits() as i32)
        .open(&chosen.disk.path)
        .with_context(|| format!("the disk {} is in use", chosen.disk.path.display()))?;
    let mut source = Source { bundle: &mut bundle, loader: loader_file, configuration, ids: ids()? };
    let target = Target { disk: &disk, bytes: chosen.disk.bytes, content: &chosen.content };
    let begun = Instant::now();
    install(&target, &mut source, &mut || Ok(()), &mut |line| told.say(line))?;
    told.say(&format!(
        "the image {image} is on the disk after {:.1} s. This machine switches itself off in {} s: then remove the stick, and switch it on",
        begun.elapsed().as_secs_f64(),
        READING_TIME.as_secs()
    ));
    Ok(())
}

/// The disk that the machine has started from, and the device of its boot partition.
fn stick(all: &[disks::Disk]) -> Result<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for disk in all {
        let Ok(table) =
            File::open(&disk.path).map_err(Into::into).and_then(|file| Table::read(&file, disk.bytes))
        else {
            continue;
        };
        let partitions = table.partitions()?;
        if partitions.iter().any(|partition| partition.name == STICK_ROOT) {
            let boot = partitions.iter().find(|partition| hex::encode(partition.kind) == ESP);
            let boot = boot.context("the stick has no boot partition")?;
            found.push((disk.path.clone(), Path::new("/dev/disk/by-partuuid").join(written(&boot.uuid))));
        }
    }
    match found.len() {
        1 => found.pop().context("a stick"),
        0 => bail!("the stick that this machine has started from is not there any more"),
        _ => bail!("there are two installation sticks: remove one and start again"),
    }
}

fn mount(boot: &Path) -> Result<()> {
    fs::create_dir_all(STICK)?;
    let mut mount = Command::new("mount");
    mount.args(["-t", "vfat", "-o", "ro,nodev,nosuid,noexec,umask=077"]).arg(boot).arg(STICK);
    ensure!(mount.status()?.success(), "the stick's boot partition {} cannot be mounted", boot.display());
    Ok(())
}

/// The only bundle on the stick.
fn bundle_on_stick() -> Result<PathBuf> {
    let mut bundles: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(STICK)? {
        let path = entry?.path();
        bundles.extend(path.extension().is_some_and(|kind| kind == "update").then_some(path));
    }
    match bundles.len() {
        1 => bundles.pop().context("a bundle"),
        number => bail!("there must be one bundle, *.update, on the stick, and there are {number}"),
    }
}

fn ids() -> Result<Ids> {
    let mut ids = Ids { uuids: [[0; 16]; 4], volume: 0 };
    for uuid in &mut ids.uuids {
        getrandom::fill(uuid).context("there is no randomness")?;
        // RFC 9562: version 4, variant 1.
        (uuid[6], uuid[8]) = (uuid[6] & 0x0f | 0x40, uuid[8] & 0x3f | 0x80);
    }
    let mut volume = [0; 4];
    getrandom::fill(&mut volume).context("there is no randomness")?;
    ids.volume = u32::from_le_bytes(volume);
    Ok(ids)
}

/// Writes what was said onto the stick.
fn leave_word(told: &Told) -> Result<()> {
    let remount = Command::new("mount").args(["-o", "remount,rw", STICK]).status()?;
    ensure!(remount.success(), "it is read-only");
    let mut file = File::create(Path::new(STICK).join(SAID))?;
    file.write_all(told.lines.as_bytes())?;
    file.sync_all()?;
    drop(file);
    let status = Command::new("umount").arg(STICK).status()?;
    ensure!(status.success(), "it cannot be unmounted");
    Ok(())
}
