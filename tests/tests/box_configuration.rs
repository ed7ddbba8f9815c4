//! A member of a fleet that goes by the configuration its people approved: fetched from a real registrar or brought on a
//! stick, tried, gone back from, and in the log.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::sha256;
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::site::{entries, until};
use bulla_tests::rig::{Rig, RigOptions, Role};
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// What a box ends with when another configuration waits.
const AGAIN: i32 = 75;
const PATIENCE: Duration = Duration::from_secs(60);
/// Somebody who would be told at once, and is away.
const ALERTS: &str = "[alerts]\nsettle_seconds = 1\n[alerts.hold_seconds]\nBullaConfigurationRefused = 0\n\
    [[alerts.webhook]]\nname = \"nobody\"\nurl = \"http://127.0.0.1:9/\"\nplain = true\n";

fn bodies(rig: &Rig, kind: Kind) -> Result<Vec<Vec<u8>>> {
    let all = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let all = all.iter().map(|bytes| Entry::decode(bytes)).collect::<Result<Vec<_>, _>>()?;
    let of_kind = all.iter().filter(|entry| entry.kind() == Some(kind));
    Ok(of_kind.map(|entry| entry.content().body.to_vec()).collect())
}

/// The changes of configuration in the log: version of the roster, and file.
fn changes(rig: &Rig) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for body in bodies(rig, Kind::OperatorAction)? {
        let action = OperatorActionBody::decode(&body)?;
        let value = |name: &str| {
            let one = action.parameters.iter().find(|one| one.name == name);
            one.map(|one| one.value.clone()).unwrap_or_default()
        };
        if action.action == "configuration-change" {
            found.push((value("roster"), value("file")));
        }
    }
    Ok(found)
}

fn refusals(rig: &Rig) -> Result<Vec<String>> {
    let all = bodies(rig, Kind::Incident)?;
    let all = all.iter().map(|body| IncidentBody::decode(body)).collect::<Result<Vec<_>, _>>()?;
    let refused = all.into_iter().filter(|incident| incident.code == "configuration-refused");
    Ok(refused.map(|incident| incident.detail).collect())
}

fn facts(rig: &Rig) -> Result<Value> {
    Ok(serde_json::from_slice(&rig.run(&["configuration", "show", "--json"])?.stdout)?)
}

fn metric(rig: &Rig) -> Result<Option<String>> {
    let shown = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let line = shown.lines().find_map(|line| line.strip_prefix("bulla_configuration_refused "));
    Ok(line.map(str::to_owned))
}

/// Whether its receivers are to be told of it.
fn alerted(rig: &Rig) -> Result<bool> {
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    let firing = status["alerts"]["firing"].as_array().context("alerts")?;
    Ok(firing.iter().any(|alert| alert["name"] == "BullaConfigurationRefused"))
}

/// Status of the answer to a document of so many bytes.
fn seal(rig: &Rig, bytes: usize) -> Result<u16> {
    let document = vec![b'x'; bytes];
    Ok(rig.client(Role::Scanner).post("/v1/seals", &[("Content-Type", "text/plain")], &document)?.status)
}

/// The box's own file with another limit and, where named, another line.
fn file(rig: &Rig, limit: usize, other: Option<(&str, &str)>) -> Result<String> {
    let text = fs::read_to_string(rig.file("box.toml"))?;
    let (from, to) = other.unwrap_or_default();
    ensure!(text.contains(from), "{from:?} is not in it");
    Ok(text.replacen(from, to, usize::from(!from.is_empty()))
        + &format!("\n[limits]\ndocument_bytes_max = {limit}\n"))
}

fn of(text: &str) -> String {
    format!("sha256:{}", sha256(&[text.as_bytes()]))
}

/// Two people approve it; the version of the roster that says so.
fn approve(fleet: &Fleet, name: &str, text: &str) -> Result<u64> {
    let path = fleet.path(name);
    fs::write(&path, text)?;
    let path = path.to_str().context("a path")?;
    let reason = ["--dir", "fleet", "--reason", "smaller documents"];
    fleet.ok(&[&["propose", "configuration", path, "--box", "S-1"], &reason[..]].concat())?;
    fleet.carry_out()?;
    version(fleet)
}

fn version(fleet: &Fleet) -> Result<u64> {
    let shown: Value = serde_json::from_str(&fleet.ok(&["roster", "show", "--dir", "fleet", "--json"])?)?;
    shown["version"].as_u64().context("a version")
}

fn started_again(rig: &mut Rig) -> Result<()> {
    ensure!(rig.sealer.ends_by_itself(PATIENCE)? == Some(AGAIN), "it ends with {AGAIN}");
    rig.sealer.start()
}

fn fleet_of_one_box() -> Result<(Fleet, Rig, Rig)> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut rig, _) = fleet.member("S-1", Some(&maker))?;
    rig.sealer.start()?;
    Ok((fleet, maker, rig))
}

#[test]
fn a_box_goes_by_what_its_people_approved_and_back_from_what_does_not_do() -> Result<()> {
    let (fleet, _maker, mut rig) = fleet_of_one_box()?;
    ensure!(facts(&rig)?["inForce"]["roster"].is_null() && seal(&rig, 5_000)? == 201, "as it lies there");

    // One person alone decides nothing.
    let first = file(&rig, 4_096, None)? + ALERTS;
    fs::write(fleet.path("S-1.toml"), &first)?;
    let path = fleet.path("S-1.toml");
    let path = path.to_str().context("a path")?;
    fleet.ok(&["propose", "configuration", path, "--dir", "fleet", "--reason", "smaller documents"])?;
    let shown = fleet.run(&["approve", "--dir", "olga", "--exchange", "fleet/exchange", "--yes"])?;
    ensure!(
        words(&shown).contains("| document_bytes_max = 4096"),
        "who approves reads it: {}",
        words(&shown)
    );
    fleet.ends(&["apply", "--dir", "fleet"], 3, "2 are needed")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(facts(&rig)?["waits"].is_null() && seal(&rig, 5_000)? == 201, "nobody has decided");

    // Two do; the box fetches the file, starts again with it, and its log says so.
    fleet.carry_out()?;
    let one = version(&fleet)?;
    started_again(&mut rig).with_context(|| rig.log())?;
    ensure!(seal(&rig, 5_000)? == 413 && seal(&rig, 4_000)? == 201, "the limit counts");
    let shown = facts(&rig)?;
    ensure!(shown["inForce"]["file"] == *of(&first) && shown["inForce"]["roster"] == one, "{shown}");
    ensure!(shown["waits"].is_null() && shown["refused"].is_null(), "{shown}");
    until("the log says it", || Ok(changes(&rig)?.len() == 1))?;
    assert_eq!(changes(&rig)?[0], (one.to_string(), sha256(&[first.as_bytes()]).to_string()));
    // It survives a power cut, and the log says it once.
    rig.sealer.kill()?;
    rig.sealer.start()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(seal(&rig, 5_000)? == 413 && changes(&rig)?.len() == 1, "in force still");

    // What the box does not understand, or what would make it another box, is not tried.
    let strange = first.clone() + "\n[colours]\nwall = \"red\"\n";
    let two = approve(&fleet, "strange.toml", &strange)?;
    until("it is refused", || Ok(facts(&rig)?["refused"]["roster"] == two))?;
    ensure!(facts(&rig)?["refused"]["why"].to_string().contains("colours"), "{}", facts(&rig)?);
    until("the log says it", || Ok(refusals(&rig)?.len() == 1))?;
    ensure!(
        refusals(&rig)?[0].contains("colours") && refusals(&rig)?[0].contains(&of(&strange)[7..]),
        "named"
    );
    let other = file(&rig, 4_096, Some(("demo.bulla.test", "other.bulla.test")))?;
    let three = approve(&fleet, "other.toml", &other)?;
    until("it is refused", || Ok(facts(&rig)?["refused"]["roster"] == three))?;
    ensure!(facts(&rig)?["refused"]["why"].to_string().contains("identity.fleet"), "{}", facts(&rig)?);
    ensure!(seal(&rig, 4_000)? == 201, "it seals on");

    // One with which it does not start (somebody else has the port) is tried twice, and it goes back by itself.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = format!("127.0.0.1:{}\"", taken.local_addr()?.port());
    let own = format!("127.0.0.1:{}\"", rig.sealer.port());
    let bad = file(&rig, 3_000, Some((&own, &port)))?;
    let four = approve(&fleet, "bad.toml", &bad)?;
    ensure!(rig.sealer.ends_by_itself(PATIENCE)? == Some(AGAIN), "it tries it");
    for _ in 0..2 {
        ensure!(rig.sealer.start().is_err(), "it cannot listen there");
    }
    rig.sealer.start().with_context(|| rig.log())?;
    let shown = facts(&rig)?;
    ensure!(shown["refused"]["roster"] == four && shown["inForce"]["file"] == *of(&first), "{shown}");
    until("the log says it", || Ok(refusals(&rig)?.len() == 3))?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(seal(&rig, 4_000)? == 201 && facts(&rig)?["waits"].is_null(), "it is not tried again");

    // It says so, until people come round to what is in force; nothing starts again for that.
    ensure!(metric(&rig)?.as_deref() == Some("1"), "{:?}", metric(&rig)?);
    until("it is alerted", || alerted(&rig))?;
    let round = approve(&fleet, "round.toml", &first)?;
    until("it is refused no more", || Ok(metric(&rig)?.as_deref() == Some("0") && !alerted(&rig)?))?;
    ensure!(
        facts(&rig)?["inForce"]["roster"] == round && facts(&rig)?["waits"].is_null(),
        "{}",
        facts(&rig)?
    );
    until("the log says it", || Ok(changes(&rig)?.len() == 2))?;
    assert_eq!(changes(&rig)?[1], (round.to_string(), sha256(&[first.as_bytes()]).to_string()));

    // People take it back: the file that lies on the box counts again.
    let back = [
        "propose",
        "configuration",
        "--take-back",
        "S-1",
        "--dir",
        "fleet",
        "--reason",
        "it was right before",
    ];
    fleet.ok(&back)?;
    fleet.carry_out()?;
    started_again(&mut rig).with_context(|| rig.log())?;
    ensure!(seal(&rig, 5_000)? == 201 && facts(&rig)?["inForce"]["file"].is_null(), "as it lies there");
    until("the log says it", || Ok(changes(&rig)?.len() == 3))?;
    ensure!(changes(&rig)?[2].1 == "the one that lies on the box", "{:?}", changes(&rig)?);
    rig.sealer.stop()?;
    rig.fsck()?;

    // A damaged record keeps nobody from sealing; what is in force is asked for again.
    let five = approve(&fleet, "again.toml", &first)?;
    rig.sealer.start()?;
    started_again(&mut rig)?;
    rig.sealer.kill()?;
    let record = rig.state().join("configuration.json");
    let mut bytes = fs::read(&record)?;
    bytes[40] ^= 1;
    fs::write(&record, bytes)?;
    let damaged = rig.try_run(&["fsck"])?;
    ensure!(
        damaged.status.code() == Some(1) && words(&damaged).contains("configuration.json"),
        "{}",
        words(&damaged)
    );
    rig.sealer.start()?;
    started_again(&mut rig)?;
    ensure!(facts(&rig)?["inForce"]["roster"] == five && seal(&rig, 5_000)? == 413, "{}", facts(&rig)?);
    Ok(())
}

#[test]
fn a_file_is_brought_by_hand_where_no_registrar_is_reached() -> Result<()> {
    let (mut fleet, _maker, mut rig) = fleet_of_one_box()?;
    let take = |rig: &Rig, arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output = rig.try_run(&[&["configuration", "take"], arguments].concat())?;
        Ok((output.status.code(), words(&output)))
    };
    until("it follows the roster", || Ok(rig.state().join("rosters/demo.bulla.test").exists()))?;
    fleet.kill();
    let text = file(&rig, 4_096, None)?;
    approve(&fleet, "new.toml", &text)?;
    let (new, roster) = (fleet.path("new.toml"), fleet.path("fleet/roster"));
    let (new, roster) = (new.to_str().context("a path")?, roster.to_str().context("a path")?);

    // The roster that the box has knows nothing of it.
    let (code, said) = take(&rig, &[new])?;
    ensure!(code == Some(1) && said.contains("names no configuration for this box"), "{said}");
    // Another file, another fleet's roster.
    fs::write(fleet.path("bent.toml"), text.replace("4096", "4097"))?;
    let bent = fleet.path("bent.toml");
    let (code, said) = take(&rig, &[bent.to_str().context("a path")?, "--roster", roster])?;
    ensure!(code == Some(1) && said.contains("and the roster names"), "{said}");
    let stranger = Fleet::found()?;
    let foreign = stranger.path("fleet/roster");
    let (code, said) = take(&rig, &[new, "--roster", foreign.to_str().context("a path")?])?;
    ensure!(code == Some(1) && said.contains("refused"), "{said}");
    ensure!(facts(&rig)?["waits"].is_null(), "nothing was taken");

    let (code, said) = take(&rig, &[new, "--roster", roster])?;
    ensure!(code == Some(0) && said.contains("taken"), "{said}");
    started_again(&mut rig).with_context(|| rig.log())?;
    ensure!(seal(&rig, 5_000)? == 413, "the limit counts");
    let (code, said) = take(&rig, &[new, "--roster", roster])?;
    ensure!(code == Some(0) && said.contains("already"), "{said}");
    // Nobody brings an older word back.
    let older = fs::read(roster)?;
    fs::write(fleet.path("older"), older)?;
    approve(&fleet, "newer.toml", &file(&rig, 3_000, None)?)?;
    let newer = fleet.path("newer.toml");
    let (code, _) = take(&rig, &[newer.to_str().context("a path")?, "--roster", roster])?;
    ensure!(code == Some(0), "the newer one");
    started_again(&mut rig)?;
    let older = fleet.path("older");
    let (code, said) = take(&rig, &[new, "--roster", older.to_str().context("a path")?])?;
    ensure!(code == Some(0) && said.contains("nothing was changed"), "{said}");
    ensure!(seal(&rig, 3_500)? == 413, "{said}");
    Ok(())
}
