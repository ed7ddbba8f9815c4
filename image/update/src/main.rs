//! `bulla-update`: takes the next image into the other slot, decides at each boot whether the image that runs may, and puts
//! an image onto a new disk.
//!
//! Refuses: what `bulla_update` names. Invariant: an error is one sentence on stderr and a documented exit code.

mod gate;
mod installer;
mod new_again;

use anyhow::{Context, Result, bail, ensure};
use bulla_formats::update::Release;
use bulla_formats::update_record::{Outcome, UpdateRecord};
use bulla_keys::Provider;
use bulla_update::apply::apply;
use bulla_update::bundle::Bundle;
use bulla_update::esp::Esp;
use bulla_update::machine::{About, Machine, disk_of, keys, root_hash};
use bulla_update::settle;
use clap::{Parser, Subcommand};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Of the verified root: what this image is, and whose updates it takes.
const OS_RELEASE: &str = "/usr/lib/os-release";
const KEYS: &str = "/usr/lib/bulla/update-keys";
const BOOT: &str = "/boot";
const RECORD: &str = "/var/lib/bulla-conf/update.json";
/// There while systemd-boot counts the tries of what runs: it has not proven itself yet.
const COUNTED: &str = "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const TCTI: &str = "device:/dev/tpmrm0";
const FAILED: u8 = 1;

/// Installs and updates the image of a box in a branch.
#[derive(Parser)]
#[command(
    name = "bulla-update",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Line,
}

#[derive(Subcommand)]
enum Line {
    /// Takes an update into the slot that does not run; it starts at the next boot.
    Take {
        /// The bundle.
        bundle: PathBuf,
    },
    /// Says what a bundle is and whether this box would take it; changes nothing.
    Check {
        /// The bundle.
        bundle: PathBuf,
    },
    /// Before the data is opened: refuses an image below the floor, and raises the floor for one that has proven itself.
    Floor,
    /// Before an image counts as good: waits until the box has shown that it works, else goes back to the other image.
    Gate,
    /// After a boot: tells the record when an update has fallen back, and sets the floor again after a reset.
    Settle,
    /// Around the end of a box's log: makes a new box of it.
    Reset {
        #[command(subcommand)]
        step: new_again::Step,
    },
    /// When the data does not open: says so, or finishes a reset that was cut off.
    Locked,
    /// On a machine that has started from an installation stick: puts the image onto its disk.
    Install {
        /// Only list the disks, and say what would be done.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Line::Take { bundle } => take(&bundle),
        Line::Check { bundle } => check(&bundle),
        Line::Floor => floor(),
        Line::Gate => gate::gate(),
        Line::Settle => settle(),
        Line::Reset { step } => new_again::step(&step),
        Line::Locked => new_again::locked(),
        Line::Install { check } => installer::run(check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulla-update: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn about() -> Result<About> {
    About::read(&fs::read_to_string(OS_RELEASE).with_context(|| format!("cannot read {OS_RELEASE}"))?)
}

fn tpm() -> Provider {
    Provider::Tpm { tcti: TCTI.to_owned() }
}

/// What the TPM says; nothing is below a floor that was never set.
fn tpm_floor() -> Result<Release> {
    let number = bulla_keys::floor(&tpm())?;
    let floor = number.map_or(Some(Release::ZERO), Release::from_number);
    floor.context("the version floor in the TPM is no release")
}

fn machine() -> Result<Machine> {
    let about = about()?;
    let root_hash = root_hash(&fs::read_to_string("/proc/cmdline")?)?;
    Ok(Machine {
        disk: disk_of(&root_hash)?,
        esp: Esp::at(Path::new(BOOT)),
        record: RECORD.into(),
        target: about.target,
        running: about.release,
        floor: tpm_floor()?.max(about.floor),
        root_hash,
    })
}

fn open(path: &Path) -> Result<Bundle> {
    let text = fs::read_to_string(KEYS).with_context(|| format!("cannot read {KEYS}"))?;
    Bundle::open(path, &keys(&text)?)
}

fn take(path: &Path) -> Result<()> {
    let (machine, mut bundle) = (machine()?, open(path)?);
    refuse_what_fell_back(&bundle)?;
    let begun = Instant::now();
    let next = apply(&machine, &mut bundle, now_millis(), &mut || Ok(()))?;
    println!(
        "the image {next} is in the other slot after {:.1} s and starts at the next boot; {} ran until now",
        begun.elapsed().as_secs_f64(),
        machine.running
    );
    Ok(())
}

/// A stick that is left in the box would bring the same failure again and again.
fn refuse_what_fell_back(bundle: &Bundle) -> Result<()> {
    let record = fs::read(RECORD).ok().and_then(|file| UpdateRecord::parse(&file));
    if let Some(record) = record
        && record.statement == bundle.statement()
        && matches!(record.outcome, Some((Outcome::FellBack, _)))
    {
        bail!(
            "this very bundle of the image {} was tried on this box and fell back ({}); build another one",
            record.to,
            record.detail
        );
    }
    Ok(())
}

fn check(path: &Path) -> Result<()> {
    let (machine, mut bundle) = (machine()?, open(path)?);
    let content = bundle.update().content().clone();
    println!("image {} for {}, floor {}", content.image, content.target, content.floor);
    bundle.update().admit(&machine.target, machine.running, machine.floor)?;
    bundle.check_parts()?;
    println!("this box, which runs {}, would take it", machine.running);
    Ok(())
}

fn floor() -> Result<()> {
    let about = about()?;
    let floor = tpm_floor()?;
    ensure!(
        about.release >= floor,
        "this image is {}, and {floor} is the oldest that may start on this box: its data stays closed",
        about.release
    );
    // Until it has proven itself, the image before is the way back and must be able to open the data.
    if !Path::new(COUNTED).exists() && about.floor > floor {
        bulla_keys::raise_floor(&tpm(), about.floor.number())?;
        println!("from now on nothing older than {} starts on this box", about.floor);
    }
    Ok(())
}

fn settle() -> Result<()> {
    let running = about()?.release;
    let failed = settle::fell_back(Path::new(RECORD), &Esp::at(Path::new(BOOT)), running, now_millis())?;
    if let Some(failed) = failed {
        println!("the image {failed} did not prove itself: {running} runs again");
    }
    // The data is open, so no reset is under way; but one may just have ended.
    new_again::floor_back()
}

/// Unix milliseconds, the machine's clock.
fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
