//! What a hub of real boxes tells auditors: one document at two boxes, superseded at one, a mis-scan annulled, an outage
//! around it; the statement's seals judged by the program of an auditor.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::hub::HubRig;
use bulla_tests::rig::outage;
use bulla_tests::rig::tsa::{Knobs, Stamps, Transport};
use bulla_tests::rig::{Rig, Role, bulla_program};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const TEXT: (&str, &str) = ("Content-Type", "text/plain");

/// Seals a document, with these headers; returns id, leaf hash and origin.
fn seal(rig: &Rig, document: &str, headers: &[(&str, &str)]) -> Result<(String, String, String)> {
    let headers = [&[TEXT], headers].concat();
    let answer = rig.client(Role::Scanner).post("/v1/seals", &headers, document.as_bytes())?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    let receipt = answer.json()?;
    let text = |member: &str| receipt[member].as_str().map(str::to_owned).context("a text");
    Ok((text("id")?, text("leafHash")?, text("origin")?))
}

fn statement(hub: &HubRig, document: &str) -> Result<Value> {
    let file = hub.file(document);
    std::fs::write(&file, document)?;
    let name = file.to_str().context("a name in UTF-8")?;
    let said = hub.lines(&["statement", "--document", name, "--at", "2026-11-22"], 0)?;
    said.into_iter().next().context("a statement")
}

fn names<'a>(seals: &'a Value, member: &str) -> Vec<&'a str> {
    let all = seals["seals"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|seal| seal[member].as_str().unwrap_or_default()).collect()
}

#[test]
fn g6_g7_a_statement_tells_what_became_of_a_document_and_its_seals_prove_it() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let [one, two] = [(); 2].map(|()| outage::start(&[&tsa], &outage::software(), ""));
    let (one, two) = (one?, two?);
    for rig in [&one, &two] {
        outage::wait_mode(rig, "online", PATIENCE)?;
    }
    let (first, _, origin_one) = seal(&one, "contract", &[("Bulla-Document-Id", "K-1")])?;
    let (_, _, origin_two) = seal(&two, "contract", &[])?;
    let (_, slip, _) = seal(&one, "mis-scan", &[])?;
    for rig in [&one, &two] {
        outage::wait_anchored(rig, PATIENCE)?;
    }
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    outage::wait_mode(&one, "emergency", PATIENCE)?;
    seal(&one, "contract, amended", &[("Bulla-Supersedes", &first), ("Bulla-Document-Id", "K-1")])?;
    // The other box declares it void, of whom it knows the leaf hash alone.
    seal(&two, "mis-scan", &[("Bulla-Annuls", &slip)])?;
    tsa.set(&Knobs::default())?;
    for rig in [&one, &two] {
        outage::wait_mode(rig, "online", PATIENCE)?;
        outage::wait_anchored(rig, PATIENCE)?;
    }
    let hub = HubRig::create(&[
        ("north", &origin_one, &[(&one, false)]),
        ("south", &origin_two, &[(&two, false)]),
    ])?;
    let entries = hub.pull("north")? + hub.pull("south")?;
    let all = hub.lines(&["find", "--limit", "100000"], 0)?;
    ensure!(all.len() as u64 == entries, "{} of {entries} entries", all.len());

    let old = statement(&hub, "contract")?;
    ensure!(old["standing"] == "replaced", "{old}");
    let mut standings = names(&old, "standing");
    standings.sort_unstable();
    ensure!(standings == ["current", "replaced", "replaced"], "{old}");
    ensure!(old["duplicates"].as_array().is_some_and(|of| of.len() == 1), "{old}");
    ensure!(
        old["findings"].as_array().context("findings")?.iter().any(|it| it["kind"] == "duplicate"),
        "{old}"
    );
    let void = statement(&hub, "mis-scan")?;
    ensure!(void["standing"] == "annulled", "{void}");
    let new = statement(&hub, "contract, amended")?;
    ensure!(new["standing"] == "current" && new["gaps"] == json!([]), "{new}");

    let file = hub.file("contract, amended");
    let events = hub.lines(&["timeline", "--document", file.to_str().context("a name")?], 0)?;
    let told: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    for name in
        ["key-epoch", "sealed", "supersedes", "anchored", "time-evidence", "outage-began", "outage-closed"]
    {
        ensure!(told.contains(&name), "{name} is missing: {told:?}");
    }
    let drift = hub.lines(&["drift"], 0)?;
    ensure!(drift.iter().all(|of| of["broken"] == 0 && of["bounded"].as_u64() > Some(0)), "{drift:?}");

    // The PDF, the seal out of it, and the program of an auditor who trusts one box alone.
    let pdf = hub.file("statement.pdf");
    let (document, pdf) = (file.to_str().context("a name")?, pdf.to_str().context("a name")?);
    hub.lines(&["statement", "--document", document, "--pdf", pdf], 0)?;
    let inside = hub.file("inside");
    std::fs::create_dir(&inside)?;
    let taken = Command::new("pdfdetach").arg("-saveall").arg("-o").arg(&inside).arg(pdf).output()?;
    ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let asked = new["seals"].as_array().context("seals")?.iter().find(|seal| seal["asked"] == true);
    let name = asked.and_then(|seal| seal["file"].as_str()).context("a file")?;
    let judged = Command::new(bulla_program()?)
        .args(["verify", document, "--trust"])
        .arg(one.file("trust.json"))
        .arg(inside.join(name))
        .output()?;
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    ensure!(judged.status.code() == Some(0) && said.contains("verdict     valid"), "{said}");

    // By document id only with what the branch opens.
    let id = ["find", "--document-id", "K-1"];
    ensure!(hub.run(&id)?.status.code() == Some(2), "without openings");
    let opened = hub.file("opened.seal");
    let answer = one.client(Role::Operator).get(&format!("/v1/seals/{first}/seal-file"))?;
    std::fs::write(&opened, &answer.body)?;
    let found = hub.lines(&[&id[..], &["--opened", opened.to_str().context("a name")?]].concat(), 0)?;
    ensure!(found.len() == 1 && found[0]["origin"] == origin_one.as_str(), "{found:?}");
    Ok(())
}
