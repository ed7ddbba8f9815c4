//! A full disk is a clear 507 and costs nothing that was promised; with room again the box seals again unaided.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::account::{Account, last_lines};
use bulla_tests::rig::disk::{Balloon, Disk, DiskKind};
use bulla_tests::rig::load::{Load, random_millis};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, rounds};
use std::time::{Duration, Instant};

const SCANNERS: usize = 8;
/// The smallest reserve that can be configured.
const RESERVE: u64 = 1 << 20;
/// Room above the reserve, enough for the box to begin a batch.
const SLACK: u64 = 256 << 10;
/// How often a round takes the room away.
const SNATCHES: usize = 40;
/// Bounds every wait for the box to notice something.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// Asks until the answer is as wanted.
fn until(what: &str, mut asked: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !asked()? {
        ensure!(began.elapsed() < NOTICED_WITHIN, "still not, after {NOTICED_WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn g1_disk_full_is_a_clear_507_and_recovers() -> Result<()> {
    let disk = Disk::new(DiskKind::Tmpfs, 96 << 20)?;
    let state = disk.state();
    let extra = "reserve_bytes = 16777216\n[attestation]\nwindow_seconds = 1\ncounter_seconds = 0";
    let options = RigOptions { extra, state_dir: Some(&state), ..RigOptions::default() };
    let mut rig = Rig::start_with(&options)?;
    let mut account = Account::default();
    let mut balloon = disk.balloon()?;
    let rounds = rounds(3, 30);
    let mut refused = 0;
    for round in 0..rounds {
        let load = Load::start(&rig, SCANNERS, &format!("round {round}"));
        std::thread::sleep(Duration::from_millis(200));
        balloon.leave(8 << 20)?;
        until("the box says that it is not ready", || Ok(!is_ready(&rig)?))?;
        let answer = rig.client(Role::Scanner).seal(b"a document for a full disk")?;
        ensure!(answer.status == 507, "{}", String::from_utf8_lossy(&answer.body));
        account.check_readable(&rig)?;
        balloon.deflate()?;
        // Nobody does anything for it, not even a request to seal.
        until("the box is ready again", || is_ready(&rig))?;
        std::thread::sleep(Duration::from_millis(200));
        let harvest = load.finish()?;
        ensure!(harvest.unanswered.is_empty(), "connections broke: {:?}", harvest.unanswered);
        let refusals = account.enter(harvest);
        refused += refusals.len();
        let other = refusals.iter().find(|refusal| (refusal.status, &*refusal.problem) != (507, "disk-full"));
        ensure!(other.is_none(), "a full disk is 507 disk-full and nothing else: {other:?}");
        account.undisturbed(&rig, SCANNERS, &format!("after round {round}"), Duration::from_millis(100))?;
        account.check(&rig)?;
    }
    // Starting on a full disk costs nothing either, whether it comes to anything or not.
    balloon.leave(8 << 20)?;
    rig.sealer.kill()?;
    match rig.sealer.start_unready() {
        Ok(()) => rig.sealer.kill()?,
        Err(error) => println!("on a full disk: {error:#}"),
    }
    balloon.deflate()?;
    account.restart(&mut rig)?;
    let balance = account.close(&mut rig)?;
    let told = balance.incidents.iter().filter(|incident| incident.code == "disk-full").count();
    ensure!(refused > 0 && told == rounds, "{refused} refusals, {told} incidents of {rounds}: {balance:?}");
    println!("{rounds} times full, {refused} refusals, {} receipts", balance.receipts);
    Ok(())
}

/// The reserve cannot help when the room goes between the look and the write: the commit itself fails.
fn writes_fail_in_the_middle(kind: DiskKind, keys: Keys) -> Result<()> {
    let disk = Disk::new(kind, 96 << 20)?;
    let state = disk.state();
    let extra = format!("reserve_bytes = {RESERVE}\n[attestation]\nwindow_seconds = 1\ncounter_seconds = 0");
    let residency = if keys == Keys::Tpm { "tpm-endorsed-ram" } else { "software" };
    let options =
        RigOptions { keys, residency, extra: &extra, state_dir: Some(&state), ..RigOptions::default() };
    let mut rig = Rig::start_with(&options)?;
    let mut account = Account::default();
    let mut balloon = disk.balloon()?;
    let (rounds, mut poisonings) = (rounds(6, 200), 0);
    for round in 0..rounds {
        let load = Load::start(&rig, SCANNERS, &format!("round {round}"));
        for _ in 0..SNATCHES {
            balloon.leave(RESERVE + SLACK)?;
            std::thread::sleep(random_millis(1, 8));
            balloon.snatch(Duration::from_millis(2))?;
        }
        balloon.deflate()?;
        let at_release = load.sealed();
        until("the box seals again unaided", || Ok(load.sealed() > at_release + SCANNERS))
            .with_context(|| format!("in round {round}:\n{}", last_lines(&rig.log(), 20)))?;
        let harvest = load.finish()?;
        ensure!(harvest.unanswered.is_empty(), "connections broke: {:?}", harvest.unanswered);
        let refusals = account.enter(harvest);
        let clear = [(507, "disk-full"), (500, "internal"), (503, "locked")];
        let other = refusals.iter().find(|refusal| !clear.contains(&(refusal.status, &*refusal.problem)));
        ensure!(other.is_none(), "{other:?}");
        account.check(&rig)?;
        stays_full(&rig, &mut balloon, &mut account, round)?;
        account.undisturbed(&rig, SCANNERS, &format!("after round {round}"), Duration::from_millis(20))?;
        poisonings += poisonings_of(&rig)?;
        rig.sealer.kill()?;
        account.restart(&mut rig).with_context(|| format!("in round {round}"))?;
    }
    let balance = account.close(&mut rig)?;
    ensure!(poisonings > 0, "no write failed in the middle of a commit, so nothing was tested: {balance:?}");
    let (receipts, told) = (balance.receipts, balance.incidents.len());
    println!(
        "{kind:?}: {poisonings} commits failed in the middle, {receipts} receipts, {told} incidents told"
    );
    Ok(())
}

/// The room goes in the middle of a commit and stays away. Back again, the box gets ready and attests though nobody
/// asks it to do anything.
fn stays_full(rig: &Rig, balloon: &mut Balloon, account: &mut Account, round: usize) -> Result<()> {
    let load = Load::start(rig, SCANNERS, &format!("full in round {round}"));
    std::thread::sleep(random_millis(20, 40));
    balloon.leave(RESERVE + SLACK)?;
    std::thread::sleep(random_millis(1, 8));
    balloon.fill()?;
    until("the box says that it is not ready", || Ok(!is_ready(rig)?))?;
    account.enter(load.finish()?);
    balloon.deflate()?;
    until("the box is ready again", || is_ready(rig))?;
    let operator = rig.client(Role::Operator);
    until("the TPM attests again", || {
        let status = operator.get("/v1/status")?.json()?;
        Ok(status["attestationTrouble"].is_null() && status["hardware"] == "tpm"
            || status["hardware"] == "software")
    })
}

fn is_ready(rig: &Rig) -> Result<bool> {
    Ok(rig.client_with(None).get("/readyz")?.status == 200)
}

fn poisonings_of(rig: &Rig) -> Result<u64> {
    let text = String::from_utf8(rig.client(Role::Operator).get("/metrics")?.body)?;
    let line = text.lines().find_map(|line| line.strip_prefix("bulla_poisonings_total "));
    line.and_then(|count| count.parse().ok())
        .with_context(|| format!("no poisonings among the metrics: {text}"))
}

#[test]
fn g10_a_write_that_meets_a_full_disk_costs_no_receipt_on_tmpfs() -> Result<()> {
    writes_fail_in_the_middle(DiskKind::Tmpfs, Keys::Tpm)
}

#[test]
fn g10_a_write_that_meets_a_full_disk_costs_no_receipt_on_ext4() -> Result<()> {
    writes_fail_in_the_middle(DiskKind::Ext4, Keys::Software)
}
