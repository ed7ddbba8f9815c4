//! The system below the box fails: single system calls, the whole file system, the clock.
//!
//! What is shown: nothing is acknowledged that is not durable, the box resumes unaided where that is possible at all,
//! and the sequence of entries has no gap and no repetition.

use anyhow::{Context, Result, ensure};
use bulla_formats::entry::Entry;
use bulla_tests::rig::account::{Account, entries, last_lines};
use bulla_tests::rig::clock::WallClock;
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::load::{Load, random_millis};
use bulla_tests::rig::strace::Faults;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, box_program, soak};
use std::time::{Duration, Instant};

const SCANNERS: usize = 4;
/// Bounds every wait for the box to notice something.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// A box whose keys are in files: faults hit the log's calls and not a TPM's.
const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    // Everything is read back without a credential, faster than strangers may ask.
    extra: "[limits]\nanonymous_requests_per_second = 0\n",
    state_dir: None,
    tcti: None,
    launcher: None,
};

fn until(what: &str, mut asked: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !asked()? {
        ensure!(began.elapsed() < NOTICED_WITHIN, "still not, after {NOTICED_WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_ready(rig: &Rig) -> Result<bool> {
    Ok(rig.client_with(None).get("/readyz")?.status == 200)
}

fn metric(rig: &Rig, name: &str) -> Result<u64> {
    let text = String::from_utf8(rig.client(Role::Operator).get("/metrics")?.body)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("no {name} among the metrics"))
}

/// Calls that reach the disk, and the occasions on which they fail: each one by itself, then several in a row, so
/// that the recovery fails too, then all of them for a while.
fn plan() -> Vec<(&'static str, String)> {
    let last = if soak() { 60 } else { 3 };
    let mut plan = Vec::new();
    for call in ["fdatasync", "pwrite64", "ftruncate", "fsync", "rename", "openat"] {
        plan.extend((1..=last).map(|occasion| (call, occasion.to_string())));
        let rows: &[&str] = if soak() { &["1..2", "1..3", "2..5", "1..20", "1+"] } else { &["1..3", "1+"] };
        plan.extend(rows.iter().map(|row| (call, (*row).to_owned())));
    }
    plan
}

#[test]
fn g10_eio_at_any_call_that_reaches_the_disk_costs_no_receipt() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let mut account = Account::default();
    let (mut failed_calls, mut refusals_seen, mut poisoned) = (0, 0, 0);
    for (round, (call, when)) in plan().into_iter().enumerate() {
        let what = format!("round {round}: {call}, when={when}");
        let poisonings_before = metric(&rig, "bulla_poisonings_total")?;
        let load = Load::start(&rig, SCANNERS, &what);
        std::thread::sleep(random_millis(5, 30));
        let pid = rig.sealer.pid().context("the box runs")?;
        let faults = Faults::inject(pid, call, &when)?;
        let began = Instant::now();
        // Calls that are only made when files change (rename, openat, fsync) may not come at all.
        while faults.failed() == 0 && began.elapsed() < Duration::from_millis(400) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if when.ends_with('+') {
            std::thread::sleep(Duration::from_millis(300));
            if call != "openat" {
                account.check_readable(&rig)?;
            }
        }
        failed_calls += faults.failed();
        drop(faults);
        let at_release = load.sealed();
        until("the box seals again unaided", || Ok(load.sealed() > at_release + SCANNERS))
            .with_context(|| format!("{what}:\n{}", last_lines(&rig.log(), 20)))?;
        let harvest = load.finish()?;
        let refusals = account.enter(harvest);
        let clear = [(500, "internal"), (503, "locked"), (503, "overloaded")];
        let other = refusals.iter().find(|refusal| !clear.contains(&(refusal.status, &*refusal.problem)));
        ensure!(other.is_none(), "{what}: {other:?}");
        refusals_seen += refusals.len();
        account.check(&rig).with_context(|| what.clone())?;
        let now = metric(&rig, "bulla_poisonings_total")?;
        poisoned += usize::from(now > poisonings_before);
        if round % 4 == 3 {
            rig.sealer.kill()?;
            account.restart(&mut rig).with_context(|| what.clone())?;
        }
    }
    let balance = account.close(&mut rig)?;
    ensure!(failed_calls > 0 && poisoned > 2, "no call failed, so nothing was tested: {balance:?}");
    let told = balance.incidents.iter().filter(|incident| incident.code == "storage-failed").count();
    ensure!(told >= poisoned, "{poisoned} rounds poisoned the writer, the log tells of {told}: {balance:?}");
    println!(
        "{failed_calls} calls failed, {refusals_seen} refusals, {} receipts, {told} incidents told",
        balance.receipts
    );
    Ok(())
}

#[test]
fn g1_a_file_system_that_turns_read_only_costs_no_receipt() -> Result<()> {
    let mut disk = Disk::new(DiskKind::Ext4, 96 << 20)?;
    let state = disk.state();
    let extra = "reserve_bytes = 16777216\n";
    let options = RigOptions { extra, state_dir: Some(&state), ..RigOptions::default() };
    let mut rig = Rig::start_with(&options)?;
    let mut account = Account::default();
    for round in 0..if soak() { 20 } else { 2 } {
        let load = Load::start(&rig, SCANNERS, &format!("round {round}"));
        std::thread::sleep(random_millis(50, 150));
        disk.turn_read_only()?;
        until("the box says that it is not ready", || Ok(!is_ready(&rig)?))?;
        let answer = rig.client(Role::Scanner).seal(b"a document for a disk that takes none")?;
        ensure!(answer.status == 500 || answer.status == 503, "{}", String::from_utf8_lossy(&answer.body));
        let harvest = load.finish()?;
        ensure!(harvest.unanswered.is_empty(), "connections broke: {:?}", harvest.unanswered);
        let refusals = account.enter(harvest);
        let clear = [(500, "internal"), (503, "locked")];
        let other = refusals.iter().find(|refusal| !clear.contains(&(refusal.status, &*refusal.problem)));
        ensure!(other.is_none(), "{other:?}");
        // Reading and verifying go on.
        account.check_readable(&rig)?;
        let metrics = rig.client(Role::Operator).get("/metrics")?;
        ensure!(metrics.status == 200, "{}", String::from_utf8_lossy(&metrics.body));
        // A file system that has given itself up is for an operator: repaired and mounted anew.
        rig.sealer.kill()?;
        disk.repair()?;
        account.restart(&mut rig).with_context(|| format!("in round {round}"))?;
        account.undisturbed(&rig, SCANNERS, &format!("after round {round}"), Duration::from_millis(50))?;
    }
    let balance = account.close(&mut rig)?;
    println!("{} receipts over read-only file systems", balance.receipts);
    Ok(())
}

#[test]
fn g2_a_clock_that_jumps_a_year_costs_no_seal_and_no_order() -> Result<()> {
    let clock = WallClock::new()?;
    let launcher = clock.launcher(&box_program()?)?;
    let extra = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 0";
    let options = RigOptions { extra, launcher: Some(&launcher), ..RigOptions::default() };
    let mut rig = Rig::start_with(&options)?;
    let mut account = Account::default();
    for (round, jump) in ["+365d", "-365d", "+0"].into_iter().enumerate() {
        let load = Load::start(&rig, SCANNERS, &format!("round {round}"));
        std::thread::sleep(Duration::from_millis(50));
        // In the middle of the load.
        clock.set(jump)?;
        std::thread::sleep(Duration::from_millis(150));
        let harvest = load.finish()?;
        ensure!(harvest.refusals.is_empty() && harvest.unanswered.is_empty(), "{jump}: {harvest:?}");
        account.enter(harvest);
        let answer = rig.client(Role::Scanner).post(
            "/v1/seals?wait=attested&deadlineSeconds=30",
            &[("Content-Type", "text/plain")],
            format!("attested after {jump}").as_bytes(),
        )?;
        ensure!(answer.json()?["waited"] == "attested", "{}", String::from_utf8_lossy(&answer.body));
        account.check(&rig)?;
        // Certificates and epochs of the next run are made by the wrong clock.
        rig.sealer.kill()?;
        account.restart(&mut rig).with_context(|| format!("with the clock at {jump}"))?;
    }
    let entries = entries(&rig.client(Role::Reader))?;
    let contents = entries.iter().map(|bytes| Ok(Entry::decode(bytes)?.content().clone()));
    let contents = contents.collect::<Result<Vec<_>>>()?;
    let lamport = contents.windows(2).all(|pair| pair[0].lamport < pair[1].lamport);
    ensure!(lamport, "the order of entries is the box's own and not the clock's");
    let times: Vec<u64> = contents.iter().map(|content| content.time.unix_millis).collect();
    let (earliest, latest) = (times.iter().min().copied(), times.iter().max().copied());
    let spread = latest.unwrap_or_default() - earliest.unwrap_or_default();
    ensure!(spread > 700 * 86_400_000, "the clock did not jump, so nothing was tested: {spread} ms");
    let balance = account.close(&mut rig)?;
    println!("{} receipts over {} days of jumping clock", balance.receipts, spread / 86_400_000);
    Ok(())
}
