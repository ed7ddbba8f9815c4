//! A box whose WAN is cut in every way there is.

use anyhow::{Result, ensure};
use bulla_formats::report::{Fact, Verdict};
use bulla_tests::rig::wan::{Cut, Wan};
use bulla_tests::rig::{Rig, RigOptions, Role};
use std::time::{Duration, Instant};

#[test]
fn g4_no_cut_of_the_wan_costs_or_delays_a_seal() -> Result<()> {
    let wan = Wan::new()?;
    let mut rig = Rig::create_behind(&wan, &RigOptions::default())?;
    rig.sealer.start()?;
    let client = rig.client(Role::Scanner);
    for cut in Cut::ALL {
        wan.cut(cut)?;
        let document = format!("sealed while {cut:?}");
        let begun = Instant::now();
        let answer = client.post("/v1/seals?wait=attested", &[], document.as_bytes())?;
        ensure!(answer.status == 201, "{cut:?}: {}", String::from_utf8_lossy(&answer.body));
        ensure!(begun.elapsed() < Duration::from_secs(30), "{cut:?}: {:?}", begun.elapsed());
        let judged = rig.judge(&answer.seal()?, document.as_bytes());
        ensure!(judged.report.verdict == Verdict::Valid, "{cut:?}: {}", judged.report);
        ensure!(judged.report.facts.contains(&Fact::Attested), "{cut:?}: {}", judged.report);
    }
    // It starts without a WAN, too.
    wan.cut(Cut::BlackHole)?;
    rig.sealer.kill()?;
    rig.sealer.start()?;
    ensure!(rig.client(Role::Scanner).seal(b"sealed after a start in a black hole")?.status == 201);
    // And it is where it should be: its own kernel knows no way out but the router.
    let routes = wan.command("ip").args(["route", "show", "default"]).output()?;
    ensure!(String::from_utf8_lossy(&routes.stdout).contains("dev wan"));
    let pids = std::process::Command::new("ip").args(["netns", "pids", wan.namespace()]).output()?;
    let pid = rig.sealer.pid().map(|pid| pid.to_string()).unwrap_or_default();
    ensure!(String::from_utf8_lossy(&pids.stdout).lines().any(|line| line == pid), "the box is elsewhere");
    Ok(())
}
