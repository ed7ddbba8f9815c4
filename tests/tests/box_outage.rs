//! The world goes away and comes back: the box seals on, says so, and has everything vouched for afterwards.

use anyhow::{Context, Result, ensure};
use bulla_formats::entry::Mode;
use bulla_formats::manifest_file::ManifestFile;
use bulla_formats::report::{Fact, Verdict};
use bulla_formats::verify::verify_manifest;
use bulla_tests::rig::outage::{id_of, seal_now, start, wait_anchored, wait_mode};
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

fn cut(tsa: &Stamps, transport: Transport) -> Result<()> {
    tsa.set(&Knobs { transport, ..Knobs::default() })
}

fn manifests(rig: &Rig) -> Result<Vec<serde_json::Value>> {
    let answer = rig.client(Role::Reader).get("/v1/manifests")?.json()?;
    Ok(answer["manifests"].as_array().context("a list")?.clone())
}

#[test]
fn g4_g7_an_outage_from_its_beginning_to_the_last_upgraded_seal() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start(&[&a, &b], &RigOptions::default(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    let before = id_of(&rig.client(Role::Scanner).seal(b"before")?)?;
    wait_anchored(&rig, PATIENCE)?;
    cut(&a, Transport::Down)?;
    cut(&b, Transport::Down)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    let mut inside = Vec::new();
    for n in 0..20 {
        inside.push(id_of(&rig.client(Role::Scanner).seal(format!("inside {n}").as_bytes())?)?);
    }
    let fresh = seal_now(&rig, &inside[0])?;
    let judged = rig.judge(&fresh, b"inside 0");
    ensure!(judged.report.verdict == Verdict::Valid, "{}", judged.report);
    ensure!(!judged.report.facts.contains(&Fact::Anchored), "{}", judged.report);
    let interval = judged.report.interval.context("an interval")?;
    ensure!(interval.after.is_some() && interval.before.is_none(), "{}", judged.report);
    ensure!(judged.seal.context("genuine")?.entry().content().mode == Mode::Emergency);
    let open = manifests(&rig)?;
    ensure!(open.len() == 1 && open[0]["over"] == false, "{open:?}");
    a.answer(Answer::Stamp)?;
    b.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    for (n, id) in inside.iter().enumerate() {
        let judged = rig.judge(&seal_now(&rig, id)?, format!("inside {n}").as_bytes());
        ensure!(judged.report.verdict == Verdict::Valid, "{}", judged.report);
        ensure!(judged.report.facts.contains(&Fact::Anchored), "{}", judged.report);
        let interval = judged.report.interval.context("an interval")?;
        ensure!(interval.after < interval.before && interval.after.is_some(), "{}", judged.report);
    }
    let judged = rig.judge(&seal_now(&rig, &before)?, b"before");
    ensure!(judged.report.facts.contains(&Fact::Anchored), "{}", judged.report);
    let closed = manifests(&rig)?;
    ensure!(closed.len() == 1 && closed[0]["over"] == true, "{closed:?}");
    let path = closed[0]["links"]["der"].as_str().context("a link")?.to_owned();
    let file = rig.client(Role::Reader).get(&path)?.body;
    let judged = verify_manifest(&file, rig.trust());
    ensure!(judged.report.verdict == Verdict::Valid, "{}", judged.report);
    let said = judged.manifest.context("genuine")?.statement;
    ensure!(said.seals == 20, "{said:?}");
    let printed = ManifestFile::decode(&file)?.printed().encode();
    ensure!(verify_manifest(&printed, rig.trust()).report.verdict == Verdict::Valid);
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_box_without_authorities_is_air_gapped_and_says_so() -> Result<()> {
    let options = RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() };
    let rig = Rig::start_with(&options)?;
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    ensure!(status["mode"] == "air-gapped" && status["anchors"].is_null(), "{status}");
    let refused =
        rig.client(Role::Operator).post("/v1/drills", &[], br#"{"kind":"wan-down","seconds":5}"#)?;
    ensure!(refused.status == 409 && refused.problem()? == "drill-refused");
    Ok(())
}

#[test]
fn a_box_locked_while_it_reconciles_goes_on_afterwards() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let options = RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() };
    let mut rig = start(&[&a, &b], &options, "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    cut(&a, Transport::Down)?;
    cut(&b, Transport::Down)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    rig.client(Role::Scanner).seal(b"inside")?;
    // One operator of two: the gap cannot be closed yet.
    a.answer(Answer::Stamp)?;
    wait_mode(&rig, "reconciling", PATIENCE)?;
    let operator = rig.client(Role::Operator);
    let reason = br#"{"reason":"a test"}"#;
    ensure!(operator.post("/v1/lock", &[], reason)?.status == 200);
    let locked = operator.get("/v1/status")?.json()?;
    ensure!(locked["mode"] == "safe" && locked["condition"]["state"] == "locked", "{locked}");
    ensure!(rig.client(Role::Scanner).seal(b"not now")?.status == 503);
    rig.sealer.kill()?;
    rig.sealer.start_unready()?;
    let operator = rig.client(Role::Operator);
    ensure!(operator.post("/v1/unlock", &[], reason)?.status == 200);
    ensure!(rig.client(Role::Scanner).seal(b"again")?.status == 201, "an unlocked box seals at once");
    b.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    let closed = manifests(&rig)?;
    ensure!(closed.len() == 1 && closed[0]["over"] == true && closed[0]["seals"] == 1, "{closed:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}
