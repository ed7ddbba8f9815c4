//! Power cuts while scanners seal: no receipt is lost. And the proof that this test would notice: without fsync,
//! receipts are lost.
//!
//! The box's whole state is on a disk of its own, whose file system is shut down without a flush. The TPM's state is
//! elsewhere: a chip survives a power cut.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::account::{Account, leaves};
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::load::{Load, random_millis};
use bulla_tests::rig::{Rig, RigOptions, Role, box_program, rounds};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const SCANNERS: usize = 8;
const DISK_BYTES: u64 = 512 << 20;
/// Attestation windows all the time, each with a counter increment.
const EAGER: &str = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 0";

/// Scanners seal, the power fails, and is back. Every other time the box lives on for a moment on its dead disk, and
/// whatever it hands out then counts as well.
fn cut(rig: &mut Rig, disk: &mut Disk, account: &mut Account, number: usize) -> Result<()> {
    let load = Load::start(rig, SCANNERS, &format!("cut {number}"));
    std::thread::sleep(random_millis(100, 500));
    disk.cut_power()?;
    if number % 2 == 1 {
        std::thread::sleep(Duration::from_millis(100));
    }
    rig.sealer.kill()?;
    let refusals = account.enter(load.finish()?);
    let unclear = refusals.iter().find(|refusal| !["internal", "locked"].contains(&refusal.problem.as_str()));
    ensure!(unclear.is_none(), "{unclear:?}");
    disk.power_on()
}

#[test]
fn g1_power_cut_loses_no_receipt() -> Result<()> {
    let mut disk = Disk::new(DiskKind::Ext4, DISK_BYTES)?;
    let state = disk.state();
    let options = RigOptions { extra: EAGER, state_dir: Some(&state), ..RigOptions::default() };
    let mut rig = Rig::start_with(&options)?;
    let mut account = Account::default();
    let cuts = rounds(8, 120);
    for number in 0..cuts {
        cut(&mut rig, &mut disk, &mut account, number)?;
        account.restart(&mut rig).with_context(|| format!("after cut {number}; its log:\n{}", rig.log()))?;
    }
    let balance = account.close(&mut rig)?;
    ensure!(balance.receipts > cuts * 10, "the box was hardly busy: {balance:?}");
    println!("{cuts} power cuts: {balance:?}");
    Ok(())
}

#[test]
fn negative_control_without_fsync_receipts_are_lost() -> Result<()> {
    let mut disk = Disk::new(DiskKind::Ext4, DISK_BYTES)?;
    let (state, scripts) = (disk.state(), tempfile::tempdir()?);
    let launcher = scripts.path().join("bulla-box-without-fsync");
    without_fsync(&launcher)?;
    let options = RigOptions { state_dir: Some(&state), launcher: Some(&launcher), ..RigOptions::default() };
    let mut rig = Rig::create(&options)?;
    let mut account = Account::default();
    for number in 0..rounds(8, 20) {
        rig.sealer.start()?;
        cut(&mut rig, &mut disk, &mut account, number)?;
        if let Some(loss) = loss(&mut rig, &account) {
            ensure!(!account.is_empty(), "nothing was promised, so nothing can have been lost: {loss}");
            println!("without fsync, cut {number} of a box with {} receipts: {loss}", account.len());
            return Ok(());
        }
        rig.sealer.kill()?;
    }
    anyhow::bail!("a box without fsync has lost nothing, so the power cuts of this test are none")
}

/// What is lost, judged by the box with its fsync taken away: it does not start, or does not have a receipt.
fn loss(rig: &mut Rig, account: &Account) -> Option<String> {
    if let Err(error) = rig.sealer.start_unready() {
        return Some(format!("the box does not start any more: {error:#}"));
    }
    match leaves(&rig.client(Role::Reader)) {
        Err(error) => Some(format!("the log is not served any more: {error:#}")),
        Ok(leaves) => {
            let lost = account.missing(&leaves);
            (lost > 0).then(|| format!("{lost} receipts are lost, {} entries are left", leaves.len()))
        }
    }
}

/// A script that runs the box with fsync and its relatives made to do nothing (package libeatmydata1).
fn without_fsync(script: &Path) -> Result<()> {
    let program = box_program()?;
    let program = program.to_str().context("the program's path is not UTF-8")?;
    std::fs::write(script, format!("#!/bin/sh\nexec env LD_PRELOAD=libeatmydata.so '{program}' \"$@\"\n"))?;
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}
