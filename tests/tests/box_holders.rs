//! How far a box goes on by itself in an outage when neighbours must hold copies of its log.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::manifest::{Limits, Phase};
use bulla_formats::body::mode_change::LimitReached;
use bulla_formats::entry::Mode;
use bulla_tests::rig::outage::{LOOK, QUICK, anchors, changes, manifests, wait_mode};
use bulla_tests::rig::site::Site;
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Keys, Rig, Role};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn down(tsa: &Stamps) -> Result<()> {
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })
}

/// Limits of the closing manifests, oldest first.
fn closed(rig: &Rig) -> Result<Vec<Limits>> {
    let closing = manifests(rig)?.into_iter().filter(|said| said.phase == Phase::Close);
    closing.map(|said| said.limits.context("limits are stated")).collect()
}

#[test]
fn without_a_neighbour_that_holds_its_log_a_box_stops_in_an_outage_and_with_one_it_goes_on() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let mut site = Site::create(&[Keys::Software; 2])?;
    let limits = "[outage.limits]\nholders = 1\nat_limit = \"safe\"\n";
    let text = format!("\n{QUICK}{limits}{}", anchors(&[(&tsa, LOOK)]));
    OpenOptions::new().append(true).open(site.boxes[0].file("box.toml"))?.write_all(text.as_bytes())?;
    site.introduce_all()?;

    // The neighbour is not there.
    site.boxes[0].sealer.start()?;
    wait_mode(&site.boxes[0], "online", PATIENCE)?;
    site.seal(0, "nobody else has it, and the world is there", "sealed")?;
    down(&tsa)?;
    let status = wait_mode(&site.boxes[0], "safe", PATIENCE)?;
    ensure!(status["outage"]["below"] == "emergency", "{status:#}");
    let refused = site.boxes[0].client(Role::Scanner).seal(b"nobody would have it")?;
    ensure!(refused.status == 503 && refused.problem()? == "locked", "{refused:?}");
    let said = changes(&site.boxes[0])?;
    let last = said.last().context("a mode change")?;
    ensure!(last.to == Mode::Safe && last.limits == [LimitReached::Holders], "{last:?}");
    tsa.answer(Answer::Stamp)?;
    wait_mode(&site.boxes[0], "online", PATIENCE)?;

    // It is there.
    site.boxes[1].sealer.start()?;
    site.mirrored(0, "the neighbour has it", 1)?;
    down(&tsa)?;
    wait_mode(&site.boxes[0], "emergency", PATIENCE)?;
    for number in 0..3 {
        site.mirrored(0, &format!("in the outage, {number}"), 1)?;
    }
    tsa.answer(Answer::Stamp)?;
    wait_mode(&site.boxes[0], "online", PATIENCE)?;
    let closed = closed(&site.boxes[0])?;
    let [first, second] = &closed[..] else { anyhow::bail!("{closed:?}") };
    ensure!((first.holders, &first.reached[..]) == (Some(1), &[LimitReached::Holders][..]), "{first:?}");
    ensure!((second.holders, &second.reached[..]) == (Some(1), &[][..]), "{second:?}");

    // It is a neighbour no more, whatever it has held.
    down(&tsa)?;
    wait_mode(&site.boxes[0], "emergency", PATIENCE)?;
    site.boxes[0].run(&["peers", "remove", site.origin(1)])?;
    wait_mode(&site.boxes[0], "safe", PATIENCE)?;
    tsa.answer(Answer::Stamp)?;
    wait_mode(&site.boxes[0], "online", PATIENCE)?;
    site.boxes[0].sealer.stop()?;
    site.boxes[0].fsck()?;
    Ok(())
}
