//! The ways into an outage and through it: cuts of every kind, power cuts in the middle, a start when it is over.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::manifest::{ManifestStatement, MeasuredBy, Phase};
use bulla_formats::body::probe::Failure;
use bulla_formats::entry::Mode;
use bulla_tests::rig::outage::{
    QUICK, anchors, changes, manifests, software, start, start_behind, wait_anchored, wait_for, wait_mode,
};
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::wan::{Cut, Wan};
use bulla_tests::rig::{Rig, RigOptions, Role};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);
/// Three seconds without an authority, one until the next look, one until that has failed; the rest is a slow machine's.
const NOTICED: Duration = Duration::from_secs(15);

/// What a look at an authority may fail with under this cut.
fn expected(cut: Cut) -> &'static [Failure] {
    match cut {
        Cut::Refused => &[Failure::Refused],
        // Without a carrier the kernel knows, or, for as long as it believes its neighbours, does not.
        Cut::Unplugged => &[Failure::Unreachable, Failure::Timeout],
        Cut::HangingDns => &[Failure::Dns],
        Cut::CaptivePortal => &[Failure::BadAnswer],
        _ => &[Failure::Timeout],
    }
}

/// Seals under each of these cuts until the box has noticed, heals, and waits until all is vouched for.
fn survives(cuts: &[Cut], named: bool) -> Result<()> {
    let wan = Wan::new()?;
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start_behind(&wan, &[&a, &b], named)?;
    let client = rig.client(Role::Scanner);
    for (number, cut) in (1..).zip(cuts) {
        wait_mode(&rig, "online", PATIENCE)?;
        wan.cut(*cut)?;
        let begun = Instant::now();
        loop {
            let answer = client.seal(format!("while {cut:?}").as_bytes())?;
            ensure!(answer.status == 201, "{cut:?}: {}", String::from_utf8_lossy(&answer.body));
            let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
            if status["mode"] == "emergency" {
                break;
            }
            ensure!(begun.elapsed() < NOTICED, "{cut:?} is not noticed: {status:#}\n{}", rig.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        ensure!(client.seal(format!("after {cut:?}").as_bytes())?.status == 201);
        let said = changes(&rig)?;
        let said = said.iter().rfind(|change| change.to == Mode::Emergency).context("it is in the log")?;
        ensure!(said.outages == number && said.findings.len() == 2, "{cut:?}: {said:?}");
        for finding in &said.findings {
            let failure = finding.failure.with_context(|| format!("{cut:?}: {finding:?}"))?;
            ensure!(expected(*cut).contains(&failure), "{cut:?}: {finding:?}");
        }
        wan.heal()?;
    }
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    let closed = closing(&rig)?;
    ensure!(closed.len() == cuts.len() && closed.iter().all(|said| said.seals > 0), "{closed:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

fn closing(rig: &Rig) -> Result<Vec<ManifestStatement>> {
    Ok(manifests(rig)?.into_iter().filter(|said| said.phase == Phase::Close).collect())
}

#[test]
fn cuts_of_the_line_are_noticed_and_named() -> Result<()> {
    survives(&[Cut::Refused, Cut::BlackHole, Cut::Unplugged], false)
}

#[test]
fn cuts_of_one_direction_are_noticed_and_named() -> Result<()> {
    survives(&[Cut::RequestsLost, Cut::RepliesLost, Cut::AnswersLost], false)
}

#[test]
fn networks_that_pretend_are_noticed_and_named() -> Result<()> {
    survives(&[Cut::HangingDns, Cut::CaptivePortal, Cut::Stalled], true)
}

/// Whoever is only looked at by connecting, as by default, is taken at its word: what it said when it was last asked.
#[test]
fn an_authority_that_connects_and_does_not_stamp_is_none() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let lines = "timeout_seconds = 2\nprobe = \"connect\"";
    let extra = format!("{QUICK}{}", anchors(&[(&a, lines), (&b, lines)]));
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..software() })?;
    for (answer, failure) in [
        (Answer::Stalled, Failure::Timeout),
        (Answer::Unavailable, Failure::HttpStatus),
        (Answer::CaptivePortal, Failure::BadAnswer),
    ] {
        wait_mode(&rig, "online", PATIENCE)?;
        wait_anchored(&rig, PATIENCE)?;
        a.answer(answer)?;
        b.answer(answer)?;
        // Nobody is asked before there is something to ask about.
        ensure!(rig.client(Role::Scanner).seal(format!("{answer:?}").as_bytes())?.status == 201);
        wait_for(&rig, &format!("{answer:?}, noticed"), NOTICED, |status| status["mode"] == "emergency")?;
        let said = changes(&rig)?;
        let said = said.iter().rfind(|change| change.to == Mode::Emergency).context("it is in the log")?;
        let failures: Vec<_> = said.findings.iter().map(|finding| finding.failure).collect();
        ensure!(failures == [Some(failure); 2], "{answer:?}: {said:?}");
        a.answer(Answer::Stamp)?;
        b.answer(Answer::Stamp)?;
    }
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

fn down(tsa: &Stamps) -> Result<()> {
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })
}

fn open_manifests(rig: &Rig) -> Result<usize> {
    Ok(manifests(rig)?.iter().filter(|said| said.phase == Phase::Open).count())
}

#[test]
fn power_cuts_do_not_end_or_double_an_outage() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start(&[&a, &b], &RigOptions::default(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    // As soon as the emergency is in the log, whether or not its manifest is.
    down(&a)?;
    down(&b)?;
    let begun = Instant::now();
    let before = changes(&rig)?.len();
    while !changes(&rig)?[before..].iter().any(|change| change.to == Mode::Emergency) {
        ensure!(begun.elapsed() < NOTICED, "{}", rig.log());
        // Whoever reads the log without a credential may ask so often and no more.
        std::thread::sleep(Duration::from_millis(50));
    }
    rig.sealer.kill()?;
    rig.sealer.start()?;
    wait_for(&rig, "an opening manifest", PATIENCE, |status| {
        status["mode"] == "emergency" && status["outage"]["outage"]["manifests"].as_u64() > Some(0)
    })?;
    // With the manifest in the log.
    ensure!(rig.client(Role::Scanner).seal(b"between power cuts")?.status == 201);
    rig.sealer.kill()?;
    rig.sealer.start()?;
    ensure!(rig.client(Role::Scanner).seal(b"after the last")?.status == 201);
    let status = wait_mode(&rig, "emergency", PATIENCE)?;
    ensure!(status["outage"]["outage"]["number"] == 1, "{status:#}");
    ensure!(open_manifests(&rig)? == 1, "{:?}", manifests(&rig)?);
    // With one operator of two the gap cannot be closed, and it is not.
    a.answer(Answer::Stamp)?;
    wait_mode(&rig, "reconciling", PATIENCE)?;
    rig.sealer.kill()?;
    rig.sealer.start()?;
    wait_for(&rig, "a closing manifest", PATIENCE, |status| status["outage"]["outage"]["closing"].is_u64())?;
    b.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    let closed = closing(&rig)?;
    ensure!(closed.len() == 1, "{closed:?}");
    let said = &closed[0];
    ensure!((said.outage, said.seals, said.measured_by) == (1, 2, MeasuredBy::WallClock), "{said:?}");
    ensure!(said.duration_millis > 0 && open_manifests(&rig)? == 1, "{said:?}");
    let numbers: Vec<u64> = manifests(&rig)?.iter().map(|said| said.sequence).collect();
    ensure!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_box_that_was_off_when_the_world_came_back_closes_the_outage() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start(&[&a, &b], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    down(&a)?;
    down(&b)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    ensure!(rig.client(Role::Scanner).seal(b"inside")?.status == 201);
    rig.sealer.stop()?;
    a.answer(Answer::Stamp)?;
    b.answer(Answer::Stamp)?;
    rig.sealer.start()?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    let closed = closing(&rig)?;
    ensure!(closed.len() == 1 && (closed[0].outage, closed[0].seals) == (1, 1), "{closed:?}");
    ensure!(closed[0].measured_by == MeasuredBy::WallClock, "{closed:?}");
    // A start is no outage of its own.
    rig.sealer.stop()?;
    rig.sealer.start()?;
    let status = wait_mode(&rig, "online", PATIENCE)?;
    ensure!(status["outage"]["outages"] == 1 && closing(&rig)?.len() == 1, "{status:#}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}
