//! Power cuts while scanners seal: no receipt is lost. And the proof that this test would notice: without fsync,
//! receipts are lost.
//!
//! The box's whole state is on a disk of its own, whose file system is shut down without a flush. The TPM's state is
//! elsewhere: a chip survives a power cut.
//!
//! A real power cut has no instant at which a sync that is under way reports success and is not carried out; ext4's
//! shutdown has. (Twenty lines of C that write a block, sync, and note it elsewhere lose the last one in every sixth
//! cut on Linux 6.18, and none in a hundred when the process is stopped first.) So there are two kinds of cuts: the
//! box is stopped between two system calls, and every receipt counts; or it is cut in the middle of its syncs, and the
//! receipts that come after the cut began are not counted as lost, because nobody can tell.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::account::{Account, leaves};
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::load::{Load, Receipt, random_millis};
use bulla_tests::rig::{Rig, RigOptions, Role, box_program, rounds, stop_still};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SCANNERS: usize = 8;
const DISK_BYTES: u64 = 512 << 20;
/// Attestation windows all the time, each with a counter increment.
const EAGER: &str = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 0";

/// Scanners seal, the power fails between two system calls of the box, and is back.
fn cut_between_calls(rig: &mut Rig, disk: &mut Disk, account: &mut Account, number: usize) -> Result<()> {
    let load = Load::start(rig, SCANNERS, &format!("cut {number}"));
    std::thread::sleep(random_millis(100, 500));
    stop_still(rig)?;
    disk.cut_power()?;
    rig.sealer.kill()?;
    let refusals = account.enter(load.finish()?);
    ensure!(refusals.is_empty(), "{refusals:?}");
    disk.power_on()
}

/// Scanners seal, the power fails in the middle of everything, and the box lives on for a moment on its dead disk.
/// Gives back what the box handed out from the cut on.
fn cut_in_the_middle(
    rig: &mut Rig,
    disk: &mut Disk,
    account: &mut Account,
    number: usize,
) -> Result<Vec<Receipt>> {
    let load = Load::start(rig, SCANNERS, &format!("cut {number}"));
    std::thread::sleep(random_millis(100, 500));
    let began = Instant::now();
    disk.cut_power()?;
    std::thread::sleep(Duration::from_millis(100));
    rig.sealer.kill()?;
    let mut harvest = load.finish()?;
    let (sure, doubtful) = harvest.receipts.into_iter().partition(|receipt| receipt.at < began);
    harvest.receipts = sure;
    let refusals = account.enter(harvest);
    let other = refusals.iter().find(|refusal| !["internal", "locked"].contains(&refusal.problem.as_str()));
    ensure!(other.is_none(), "{other:?}");
    disk.power_on()?;
    Ok(doubtful)
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
        cut_between_calls(&mut rig, &mut disk, &mut account, number)?;
        account.restart(&mut rig).with_context(|| format!("after cut {number}"))?;
    }
    let balance = account.close(&mut rig)?;
    ensure!(balance.receipts > cuts * 10, "the box was hardly busy: {balance:?}");
    println!("{cuts} power cuts: {balance:?}");
    Ok(())
}

#[test]
fn g1_power_cut_in_the_middle_of_a_sync_loses_no_receipt() -> Result<()> {
    let mut disk = Disk::new(DiskKind::Ext4, DISK_BYTES)?;
    let state = disk.state();
    // Few attestation windows: an intent whose sync reports a false success would be a false alarm.
    let mut rig = Rig::start_with(&RigOptions { state_dir: Some(&state), ..RigOptions::default() })?;
    let (mut account, mut doubts) = (Account::default(), 0);
    let cuts = rounds(6, 120);
    for number in 0..cuts {
        let doubtful = cut_in_the_middle(&mut rig, &mut disk, &mut account, number)?;
        account.restart(&mut rig).with_context(|| format!("after cut {number}"))?;
        doubts += account.enter_if_there(&rig, doubtful)?;
    }
    let balance = account.close(&mut rig)?;
    ensure!(balance.receipts > cuts * 10, "the box was hardly busy: {balance:?}");
    println!("{cuts} power cuts in the middle of syncs, {doubts} receipts in doubt: {balance:?}");
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
        cut_between_calls(&mut rig, &mut disk, &mut account, number)?;
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
