//! Leases: a hub's word that keeps a member of a fleet out of an emergency, and bounds the one that follows.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::manifest::AtLimit;
use bulla_formats::body::mode_change::LimitReached;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::entry::{Entry, Kind, Mode};
use bulla_formats::json::base64_encode;
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::outage::{LOOK, QUICK, anchors, entries, manifests, wait_for, wait_mode};
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Response, Rig, RigOptions, Role};
use serde_json::json;
use std::fs;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

/// A member of a fleet whose authority this is.
fn member(fleet: &mut Fleet, tsa: &Stamps) -> Result<Rig> {
    let extra = format!("{QUICK}{}", anchors(&[(tsa, LOOK)]));
    let options = RigOptions { extra: &extra, ..RigOptions::default() };
    let mut rig = Rig::unborn_on(&options, Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    fleet.list(&fleet.enroll(&rig)?.after("TPM")?, "S-1")?;
    fleet.admit(&fleet.enroll(&rig)?)?;
    fleet.enroll(&rig)?.ends(0, "enrolled as")?;
    fleet.kill();
    rig.furnish()?;
    rig.sealer.start()?;
    Ok(rig)
}

/// A lease for the box, in a file of the fleet's.
fn issue(fleet: &Fleet, name: &str, more: &[&str]) -> Result<Vec<u8>> {
    let path = fleet.path(name);
    let out = path.to_str().context("a path")?;
    fleet.ok(&[&["lease", "issue", "S-1", "--dir", "fleet", "--hours", "1", "--out", out], more].concat())?;
    Ok(fs::read(path)?)
}

/// `bulla-box lease take`; its exit code and what it said.
fn take(rig: &Rig, lease: &[u8]) -> Result<(Option<i32>, String)> {
    let (file, token) = (rig.file("lease"), rig.file("operator.token"));
    fs::write(&file, lease)?;
    fs::write(&token, rig.token(Role::Operator))?;
    let (file, token) = (file.to_str().context("a path")?, token.to_str().context("a path")?);
    let output = rig.try_run(&["lease", "take", file, "--token-file", token])?;
    Ok((output.status.code(), words(&output)))
}

fn seal(rig: &Rig, document: &str) -> Result<Response> {
    rig.client(Role::Scanner).seal(document.as_bytes())
}

/// The mode that a seal made now says.
fn mode_of(answer: &Response) -> Result<Mode> {
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    Ok(Entry::decode(&answer.seal()?.entry)?.content().mode)
}

#[test]
fn g4_a_lease_keeps_a_box_out_of_emergency_and_bounds_what_follows() -> Result<()> {
    let (mut fleet, tsa) = (Fleet::found()?, Stamps::start("Operator A")?);
    let mut rig = member(&mut fleet, &tsa)?;
    wait_mode(&rig, "online", PATIENCE)?;
    let limits = ["--limit-seals", "3", "--at-limit", "safe", "--issuer", "hub-west"];
    let lease = issue(&fleet, "lease", &[&["--seals", "40"], &limits[..]].concat())?;
    let shown = fleet.ok(&["lease", "show", fleet.path("lease").to_str().context("a path")?])?;
    ensure!(shown.contains("hub-west") && shown.contains("no new seals are taken"), "{shown}");
    let (code, said) = take(&rig, &lease)?;
    ensure!(code == Some(0) && said.contains("the lease of hub-west holds for 3"), "{said}");
    let (code, said) = take(&rig, &lease)?;
    ensure!(code == Some(0), "handing it in again is no error: {said}");

    // The world is away for much longer than an outage needs, and there is none.
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    wait_mode(&rig, "degraded", PATIENCE)?;
    std::thread::sleep(Duration::from_secs(6));
    ensure!(mode_of(&seal(&rig, "under the lease")?)? == Mode::Degraded);
    // It survives the process, killed.
    rig.sealer.kill()?;
    rig.sealer.start()?;
    std::thread::sleep(Duration::from_secs(6));
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    ensure!(status["mode"] == "degraded", "{status:#}");
    ensure!(status["lease"]["issuer"] == "hub-west", "{status:#}");
    ensure!(status["lease"]["secondsLeft"].as_u64().is_some_and(|left| (3_000..3_600).contains(&left)));
    let metrics = rig.client(Role::Operator).get("/metrics")?;
    ensure!(String::from_utf8_lossy(&metrics.body).contains("\nbulla_lease_seconds 3"), "no metric of it");

    // Used up: now it is an emergency, and the lease says how far it may go.
    for document in 0..40 {
        mode_of(&seal(&rig, &format!("document {document}"))?)?;
    }
    wait_mode(&rig, "emergency", PATIENCE)?;
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    ensure!(status["lease"]["secondsLeft"].is_null(), "{status:#}");
    let opening = manifests(&rig)?;
    let said = opening.first().and_then(|said| said.limits.clone()).context("limits in the manifest")?;
    ensure!((said.seals, said.at_limit) == (Some(3), AtLimit::Safe), "{said:?}");
    let mut sealed = 0;
    let refused = loop {
        let answer = seal(&rig, &format!("in the emergency {sealed}"))?;
        if answer.status != 201 {
            break answer;
        }
        sealed += 1;
        ensure!(sealed < 200, "the limit of 3 does not hold");
        std::thread::sleep(Duration::from_millis(300));
    };
    let why = String::from_utf8_lossy(&refused.body).into_owned();
    ensure!(refused.status == 503 && sealed >= 3 && why.contains("limit of emergency operation"), "{why}");
    wait_mode(&rig, "safe", PATIENCE)?;
    let last =
        wait_for(&rig, "the limit", PATIENCE, |status| status["outage"]["limitsReached"] == json!(["seals"]));
    last?;
    let reached = |said: &bulla_formats::body::manifest::ManifestStatement| {
        said.limits.as_ref().is_some_and(|limits| limits.reached == [LimitReached::Seals])
    };
    ensure!(manifests(&rig)?.iter().any(reached), "no manifest says that the limit was reached");

    // A wider one lets it go on at once, while the outage lasts.
    let wider = issue(&fleet, "wider", &["--seals", "0", "--issuer", "hub-west"])?;
    let (code, said) = take(&rig, &wider)?;
    ensure!(code == Some(0), "{said}");
    wait_mode(&rig, "emergency", PATIENCE)?;
    ensure!(mode_of(&seal(&rig, "goes on")?)? == Mode::Emergency);
    // And the one before is not brought back.
    let (code, said) = take(&rig, &lease)?;
    ensure!(code == Some(1) && said.contains("a lease that was issued later is known"), "{said}");
    tsa.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;

    // The log tells of both, by whom they were issued and handed in.
    let told: Vec<OperatorActionBody> = entries(&rig)?
        .iter()
        .filter(|entry| entry.kind() == Some(Kind::OperatorAction))
        .map(|entry| OperatorActionBody::decode(&entry.content().body))
        .collect::<Result<_, _>>()?;
    let told: Vec<_> = told.iter().filter(|action| action.action == "lease").collect();
    ensure!(told.len() == 2 && told.iter().all(|action| action.reason == "operator-1"), "{told:?}");
    let parameter = |name: &str| told[0].parameters.iter().find(|one| one.name == name).map(|one| &one.value);
    ensure!(parameter("limit-seals").is_some_and(|value| value == "3"), "{told:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_lease_of_somebody_else_for_somebody_else_or_changed_is_refused_and_changes_nothing() -> Result<()> {
    let (mut fleet, tsa) = (Fleet::found()?, Stamps::start("Operator A")?);
    let rig = member(&mut fleet, &tsa)?;
    wait_mode(&rig, "online", PATIENCE)?;
    let lease = issue(&fleet, "lease", &[])?;
    let size = || rig.log_size();
    let before = size()?;
    let mut flipped = lease.clone();
    *flipped.last_mut().context("bytes")? ^= 1;
    // Another fleet of the same name, with a box of the same name.
    let (mut stranger, other_tsa) = (Fleet::found()?, Stamps::start("Operator A")?);
    let other = member(&mut stranger, &other_tsa)?;
    let foreign = issue(&stranger, "lease", &[])?;
    for (lease, why) in [
        (&flipped[..], "no root of this fleet vouches for it"),
        (&lease[..lease.len() - 1], "no lease for this box"),
        (&[&lease[..], b"x"].concat(), "no lease for this box"),
        (&foreign, "it is for the log"),
        (b"", "no lease for this box"),
        (&[0x30; 9_000], "no lease for this box"),
    ] {
        let (code, said) = take(&rig, lease)?;
        ensure!(code == Some(1) && said.contains(why), "{why}: {said}");
        let body = json!({"lease": base64_encode(lease)}).to_string();
        let headers = [("content-type", "application/json")];
        let answer = rig.client(Role::Operator).post("/v1/leases", &headers, body.as_bytes())?;
        let problem = answer.json()?;
        ensure!(
            answer.status == 422
                && problem["type"].as_str().is_some_and(|kind| kind.ends_with("lease-refused"))
        );
    }
    // Within one fleet, another box's.
    let (code, said) = take(&other, &lease)?;
    ensure!(code == Some(1) && said.contains("it is for the log"), "{said}");
    for body in ["", "{}", "{\"lease\": 7}", "{\"lease\": \"not base64!\"}", "{\"lease\": \"\", \"more\": 1}"]
    {
        let headers = [("content-type", "application/json")];
        let answer = rig.client(Role::Operator).post("/v1/leases", &headers, body.as_bytes())?;
        ensure!((400..500).contains(&answer.status), "{body}: {}", answer.status);
    }
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    ensure!(status["lease"].is_null(), "{status:#}");
    let actions = entries(&rig)?.into_iter().skip(usize::try_from(before)?);
    ensure!(actions.filter(|entry| entry.kind() == Some(Kind::OperatorAction)).count() == 0);
    fleet.ends(&["lease", "issue", "S-1", "--dir", "fleet", "--hours", "745", "--out", "x"], 2, "31 days")?;
    fleet.ends(
        &["lease", "issue", "S-9", "--dir", "fleet", "--hours", "1", "--out", "x"],
        2,
        "no box is called",
    )?;
    Ok(())
}
