//! `bulla-update reset`: what surrounds `bulla-box retire` when a box becomes a new one, and what the console says when the
//! data does not open.
//!
//! Refuses: what [`bulla_update::reset`] names.
//! Invariant: the floor in the TPM is at the end what it was at the beginning, or what the image wants, if that is more.

use super::{BOOT, about, tpm, tpm_floor};
use anyhow::{Context, Result};
use bulla_update::machine::{disk_bytes, disk_of, root_hash};
use bulla_update::reset;
use clap::Subcommand;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

const LOCKED: &str = "the data partition does not open with this machine's TPM. It is another machine's disk, its TPM was cleared, or its \
    Secure Boot keys were changed. docs/image.md, 'When the data does not open'.";

/// The steps of a reset.
#[derive(Subcommand)]
pub enum Step {
    /// Before the log ends: notes the floor.
    Begin,
    /// It was refused, or has to wait: nothing is noted any more.
    Cancel,
    /// The log has ended: the data partition goes, the floor comes back.
    Finish,
}

/// Carries a step out.
pub fn step(step: &Step) -> Result<()> {
    let boot = Path::new(BOOT);
    match step {
        Step::Begin => {
            let floor = tpm_floor()?.max(about()?.floor);
            // Even if it is nothing: whether it is still there tells whether the TPM was cleared since.
            bulla_keys::raise_floor(&tpm(), floor.number())?;
            reset::write_mark(boot, floor)
        }
        Step::Cancel => reset::remove_mark(boot),
        Step::Finish => finish(),
    }
}

fn finish() -> Result<()> {
    let disk = disk_of(&root_hash(&fs::read_to_string("/proc/cmdline")?)?)?;
    let file = File::options().read(true).write(true).open(&disk);
    let file = file.with_context(|| format!("cannot open the disk {}", disk.display()))?;
    let gone = reset::forget_data(&file, disk_bytes(&disk)?, &mut || Ok(()))?;
    floor_back()?;
    println!("{}", if gone { "the data of this box is gone" } else { "there was no data" });
    Ok(())
}

/// Sets the floor again if a reset has noted one, and removes the note.
pub fn floor_back() -> Result<()> {
    let boot = Path::new(BOOT);
    let Some(mark) = reset::read_mark(boot) else { return reset::remove_mark(boot) };
    let about = about()?;
    let floor = reset::floor_after(Some(mark), about.floor, about.release);
    bulla_keys::raise_floor(&tpm(), floor.number())?;
    reset::remove_mark(boot)
}

/// The data does not open: says so, or ends the reset that a power cut has left half done.
pub fn locked() -> Result<()> {
    let cut_off =
        reset::cut_off(reset::read_mark(Path::new(BOOT)), bulla_keys::floor(&tpm()).unwrap_or(Some(0)));
    if !cut_off {
        println!("bulla: {LOCKED}");
        return Ok(());
    }
    println!("bulla: the reset of this box was cut off after its TPM was cleared: it is finished now");
    finish()?;
    let status = Command::new("systemctl").args(["--no-block", "reboot"]).status()?;
    anyhow::ensure!(status.success(), "the machine does not restart: switch it off and on");
    Ok(())
}
