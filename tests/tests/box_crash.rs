//! Kill -9 while eight scanners seal: no receipt is lost, none is given twice, and the box comes back by itself.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::account::Account;
use bulla_tests::rig::load::{Load, random_millis};
use bulla_tests::rig::{Rig, RigOptions, rounds};
use std::time::{Duration, Instant};

const SCANNERS: usize = 8;
/// Attestation windows all the time, each with a counter increment: kills land in them too.
const EAGER: &str = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 0";

#[test]
fn g1_kill_9_loses_no_receipt() -> Result<()> {
    let mut rig = Rig::start_with(&RigOptions { extra: EAGER, ..RigOptions::default() })?;
    let mut account = Account::default();
    let kills = rounds(25, 250);
    for kill in 0..kills {
        let load = Load::start(&rig, SCANNERS, &format!("kill {kill}"));
        std::thread::sleep(random_millis(50, 400));
        rig.sealer.kill()?;
        let refusals = account.enter(load.finish()?);
        ensure!(
            refusals.is_empty(),
            "a box that is about to be killed has no reason to refuse: {refusals:?}"
        );
        account.restart(&mut rig).with_context(|| format!("after kill {kill}"))?;
    }
    account.undisturbed(&rig, SCANNERS, "after all kills", Duration::from_millis(200))?;
    let balance = account.close(&mut rig)?;
    ensure!(balance.receipts > kills * 10, "the box was hardly busy: {balance:?}");
    println!("{kills} kills: {balance:?}");
    Ok(())
}

#[test]
fn a_box_with_a_long_log_starts_after_kill_9() -> Result<()> {
    let mut rig = Rig::start()?;
    let mut account = Account::default();
    let wanted = rounds(5_000, 20_000);
    let (load, began) = (Load::start(&rig, SCANNERS, "a long log"), Instant::now());
    while load.sealed() < wanted {
        ensure!(began.elapsed() < Duration::from_secs(600), "{} seals in ten minutes", load.sealed());
        rig.sealer.require_alive()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let filling = began.elapsed();
    rig.sealer.kill()?;
    account.enter(load.finish()?);
    account.restart(&mut rig)?;
    let balance = account.close(&mut rig)?;
    println!("{wanted} seals in {filling:?}; killed; {balance:?}");
    Ok(())
}
