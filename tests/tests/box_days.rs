//! Days pass without the registrar: members seal on, are attested, anchored and mirrored, start anew and are killed, and
//! who waits to become a member waits on; then it comes back.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::entry::Entry;
use bulla_tests::rig::clock::WallClock;
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::outage::{LOOK, QUICK, anchors, id_of, seal_now, wait_mode};
use bulla_tests::rig::site::until;
use bulla_tests::rig::tsa::{Knobs, Stamps};
use bulla_tests::rig::{Rig, RigOptions, Role, box_program, bulla_program};
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);
const DAY_SECONDS: i64 = 86_400;
const DAYS: i64 = 6;

fn status(rig: &Rig) -> Result<Value> {
    rig.client(Role::Reader).get("/v1/status")?.json()
}

fn connected(rig: &Rig) -> Result<bool> {
    let status = status(rig)?;
    let all = status["peers"]["neighbours"].as_array().context("it has [peers]")?.clone();
    Ok(all.len() == 1 && all[0]["connected"] == true)
}

fn roster_version(rig: &Rig) -> Result<u64> {
    status(rig)?["peers"]["rosters"][0]["version"].as_u64().context("it goes by a roster")
}

/// Seals a document, which the neighbour holds and the TPM attests; its id.
fn seal(rig: &Rig, document: &str) -> Result<String> {
    let kind = [("Content-Type", "text/plain")];
    let mirrored = "/v1/seals?wait=mirrored(1)&deadlineSeconds=60";
    let answer = rig.client(Role::Scanner).post(mirrored, &kind, document.as_bytes())?;
    ensure!(answer.json()?["waited"] == "mirrored", "{}\n{}", answer.json()?, rig.log());
    id_of(&answer)
}

/// Whether authorities vouch for the tree that has this seal, whose id begins with its index.
fn anchored(rig: &Rig, id: &str) -> Result<bool> {
    let index: u64 = id.split_once('-').context("an index in the id")?.0.parse()?;
    Ok(status(rig)?["anchors"]["anchoredSize"].as_u64().is_some_and(|size| size > index))
}

#[test]
fn g10_members_seal_on_while_the_registrar_is_away_for_days() -> Result<()> {
    let (clock, mut fleet, tsa) = (WallClock::new()?, Fleet::found()?, Stamps::start("Operator A")?);
    fleet.keep_time(&clock);
    let roots = tsa.root_pem().to_str().context("a path")?;
    let time = ["propose", "anchors", "--operator", tsa.operator(), "--add", roots, "--operators", "1"];
    fleet.ok(&[&time[..], &["--dir", "fleet", "--reason", "whose time counts"]].concat())?;
    fleet.carry_out()?;
    let launcher = clock.launcher(&box_program()?)?;
    let third = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&third)?;
    fleet.serve(&[])?;
    let extra = format!(
        "[attestation]\nwindow_seconds = 1\ncounter_seconds = 0\n{QUICK}{}",
        anchors(&[(&tsa, LOOK)])
    );
    let options = RigOptions { extra: &extra, launcher: Some(&launcher), ..RigOptions::default() };
    let mut boxes = [
        fleet.member_with("S-1", Some(&third), &options)?.0,
        fleet.member_with("S-2", Some(&third), &options)?.0,
    ];
    boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    let cards = fleet.path("fleet/cards");
    until("both cards are handed in", || Ok(fs::read_dir(&cards).map_or(0, Iterator::count) == 2))?;
    fleet.ok(&["propose", "cards", "--dir", "fleet", "--reason", "two boxes of one branch"])?;
    fleet.carry_out()?;
    for rig in &boxes {
        until("they are neighbours", || connected(rig)).with_context(|| rig.log())?;
    }
    // A third has proven its TPM, and waits for people.
    fleet.list(&fleet.enroll(&third)?.after("TPM")?, "S-3")?;
    let claim = fleet.enroll(&third)?;
    claim.ends(3, "somebody has to approve")?;
    let mut waiting = third.command(&["enroll"])?;
    waiting.args(fleet.registrar()).envs(clock.environment()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut waiting = waiting.stderr(Stdio::null()).spawn()?;
    let before = roster_version(&boxes[0])?;

    fleet.kill();
    let mut sealed = Vec::new();
    for day in 1..=DAYS {
        // Midnight comes while they run, while they are off, and at the moment one of them loses its power.
        if day % 3 == 2 {
            boxes.iter_mut().try_for_each(|rig| rig.sealer.stop())?;
        } else if day % 3 == 0 {
            boxes[0].sealer.kill()?;
        }
        clock.set(&format!("+{day}d"))?;
        tsa.set(&Knobs { clock_offset_seconds: day * DAY_SECONDS, ..Knobs::default() })?;
        match day % 3 {
            2 => boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?,
            0 => boxes[0].sealer.start()?,
            _ => {}
        }
        for (at, rig) in boxes.iter().enumerate() {
            wait_mode(rig, "online", PATIENCE)?;
            until("its neighbour is there", || connected(rig)).with_context(|| rig.log())?;
            let name = format!("box {at}, day {day}");
            let id = seal(rig, &name)?;
            until("it is anchored", || anchored(rig, &id)).with_context(|| rig.log())?;
            sealed.push((at, id, name, day));
            ensure!(roster_version(rig)? == before, "it goes by another roster");
        }
        ensure!(waiting.try_wait()?.is_none(), "it waits no more on day {day}");
    }

    // Every one of them holds, by the fleet's trust file, and says the day on which it was made.
    let trust = fleet.path("trust.json");
    fleet.ok(&["trust", "export", "--dir", "fleet", "--out", "trust.json"])?;
    let mut days = Vec::new();
    for (at, id, document, day) in &sealed {
        let rig = &boxes[*at];
        let seal = seal_now(rig, id)?;
        fs::write(rig.file(document), document)?;
        fs::write(rig.file(&format!("{document}.seal")), seal.encode())?;
        let mut verify = clock.command(&bulla_program()?);
        let done = verify.arg("verify").arg("--trust").arg(&trust).arg(rig.file(document)).output()?;
        let said = words(&done);
        ensure!(done.status.success() && said.contains("anchored"), "{document}: {said}");
        let millis = Entry::decode(&seal.entry)?.content().time.unix_millis;
        days.push((millis / 1_000 / DAY_SECONDS.unsigned_abs(), *day));
    }
    let begun = days[0].0;
    ensure!(
        days.iter().all(|(unix, day)| unix - begun + 1 >= day.unsigned_abs()),
        "no days passed: {days:?}"
    );
    println!("{} seals on {DAYS} days without a registrar", sealed.len());

    // It comes back: people approve who has waited, and the members hear what is new.
    fleet.serve(&[])?;
    fleet.admit(&claim)?;
    until("who waited is a member", || Ok(waiting.try_wait()?.is_some_and(|status| status.success())))?;
    fleet.ok(&["propose", "quarantine", "S-2", "--dir", "fleet", "--reason", "the seal was broken"])?;
    fleet.carry_out()?;
    until("the members hear of it", || {
        Ok(boxes.iter().all(|rig| roster_version(rig).is_ok_and(|now| now > before)))
    })?;
    until("who is held back is shut out", || Ok(!connected(&boxes[0])?))?;
    for rig in &mut boxes {
        rig.sealer.stop()?;
        rig.fsck()?;
    }
    third.fsck()?;
    Ok(())
}
