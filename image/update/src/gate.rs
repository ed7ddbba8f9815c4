//! The check that an image passes before it counts as good: the box must have opened its log and verified the end of it,
//! sealed a document, had its TPM attest it, and verified the seal. `bulla-box` does this and says so (`--health`); here it
//! is waited for.
//!
//! Refuses: to go back when there is nothing to go back to. A box that was not taken into service yet has nothing to seal
//! with; of it the data partition and the TPM are asked.
//! Invariant: this ends well, or with the machine on its way to its other image, or with the words that there is none.

use super::{BOOT, RECORD, about, now_millis, tpm_floor};
use anyhow::{Context, Result, bail};
use bulla_formats::update::Release;
use bulla_update::esp::Esp;
use bulla_update::settle;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What `bulla-box` says of itself: `passed`, or `failed: ` and why.
const HEALTH: &str = "/run/bulla/health";
/// There once the box is in service.
const IDENTITY: &str = "/var/lib/bulla/box/identity.json";
const DATA: &str = "/var/lib/bulla-conf";
/// A start verifies the active part of the log, which may take minutes on a slow disk.
const PATIENCE: Duration = Duration::from_secs(480);
const POLL: Duration = Duration::from_millis(500);
/// systemd starts the box again for ever, two seconds after each end; a TPM that is slow to come costs a few.
const RESTARTS_MAX: u32 = 10;

/// Waits for the check; when it fails, the machine starts again, and systemd-boot counts.
pub fn gate() -> Result<()> {
    let running = about()?.release;
    match check() {
        Ok(()) => {
            settle::proven(Path::new(RECORD), running, now_millis())?;
            println!("the image {running} has passed its check");
            Ok(())
        }
        Err(error) => {
            let why = format!("{error:#}");
            // A record that cannot be written must not keep the machine from going back.
            if let Err(error) = settle::failed(Path::new(RECORD), running, &why) {
                eprintln!("bulla-update: {error:#}");
            }
            go_back(running, &why)
        }
    }
}

fn check() -> Result<()> {
    // The TPM answers, and the data partition is there and takes a file.
    tpm_floor()?;
    let probe = Path::new(DATA).join("health.new");
    fs::write(&probe, b"written")
        .and_then(|()| fs::remove_file(&probe))
        .context("the data partition takes no file")?;
    if !Path::new(IDENTITY).exists() {
        return Ok(());
    }
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        last = fs::read_to_string(HEALTH).unwrap_or_default();
        if last.trim_end() == "passed" {
            return Ok(());
        }
        if restarts() >= RESTARTS_MAX {
            bail!("bulla-box does not stay up: it was started {RESTARTS_MAX} times");
        }
        sleep(POLL);
    }
    match last.trim_end().strip_prefix("failed: ") {
        Some(why) => bail!("the self-test failed: {why}"),
        None => bail!("bulla-box did not come as far as its self-test in {} s", PATIENCE.as_secs()),
    }
}

/// How often systemd has started the box again; 0 when it does not say.
fn restarts() -> u32 {
    let asked = Command::new("systemctl")
        .args(["show", "--property=NRestarts", "--value", "bulla-box.service"])
        .output();
    let said = asked.map(|asked| String::from_utf8_lossy(&asked.stdout).trim().parse());
    said.ok().and_then(Result::ok).unwrap_or(0)
}

fn go_back(running: Release, why: &str) -> Result<()> {
    let images = Esp::at(Path::new(BOOT)).images()?;
    let other = images.iter().find(|image| image.release != running && image.tries_left != Some(0));
    let Some(other) = other else {
        bail!("the image {running} has not passed its check ({why}), and there is no other to go back to");
    };
    eprintln!("bulla-update: starting again: the image {running} has not passed its check");
    Command::new("systemctl")
        .args(["--no-block", "reboot"])
        .status()
        .context("cannot restart the machine")?;
    bail!("the image {running} has not passed its check: {why}; {} is the way back", other.release)
}
