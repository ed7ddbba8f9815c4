//! Logs staged for the day of need: enrolled while the registrar is there, begun when it is not, once, in the same TPM and
//! boot, by an operator; and what fleet and neighbours make of it afterwards.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::entry::{Entry, Kind};
use bulla_tests::rig::clock::WallClock;
use bulla_tests::rig::fleet::{Fleet, Said, words};
use bulla_tests::rig::site::{entries, until};
use bulla_tests::rig::{Rig, RigOptions, Role, bulla_program};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use xtask::swtpm::Swtpm;

/// The counter moves with every attestation, which comes at once; and a log may be staged.
const EXTRA: &str = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 0\n[staged]\ndays = 30\n";
const WHY: &str = "the disk is dead and the line is cut";

/// A member that has sealed and attested, and stands still.
fn member(fleet: &mut Fleet, extra: &str) -> Result<Rig> {
    let options = RigOptions { extra, ..RigOptions::default() };
    let mut rig = Rig::unborn_on(&options, Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    fleet.list(&fleet.enroll(&rig)?.after("TPM")?, "S-1")?;
    fleet.admit(&fleet.enroll(&rig)?)?;
    fleet.enroll(&rig)?.ends(0, "enrolled as")?;
    rig.furnish()?;
    run(&mut rig)?;
    Ok(rig)
}

/// Starts, seals, attests, stops.
fn run(rig: &mut Rig) -> Result<()> {
    rig.sealer.start()?;
    sealed(rig, "before")?;
    rig.sealer.stop()
}

/// Seals a document and keeps it with its `.seal` file.
fn sealed(rig: &Rig, document: &str) -> Result<()> {
    let answer = rig.client(Role::Scanner).post(
        "/v1/seals?wait=attested&deadlineSeconds=60",
        &[],
        document.as_bytes(),
    )?;
    ensure!(answer.json()?["facts"] == serde_json::json!(["sealed", "attested"]), "{}", answer.json()?);
    fs::write(rig.file(document), document)?;
    fs::write(rig.file(&format!("{document}.seal")), answer.seal()?.encode())?;
    Ok(())
}

/// `bulla verify` by the fleet's trust file, which must end well.
fn verified(fleet: &Fleet, rig: &Rig, document: &str) -> Result<()> {
    let trust = fleet.path("fleet/trust.json");
    let mut command = Command::new(bulla_program()?);
    let done = command.arg("verify").arg("--trust").arg(trust).arg(rig.file(document)).output()?;
    ensure!(done.status.success(), "{}", words(&done));
    Ok(())
}

fn prepare(fleet: &Fleet, rig: &Rig) -> Result<Said> {
    let registrar = fleet.registrar();
    let mut arguments = vec!["staged", "prepare", "--once"];
    arguments.extend(registrar.iter().map(String::as_str));
    said(rig, &arguments)
}

fn said(rig: &Rig, arguments: &[&str]) -> Result<Said> {
    let done = rig.try_run(arguments)?;
    Ok(Said { code: done.status.code(), words: words(&done) })
}

/// People look at the list and let every member have its next log.
fn approve(fleet: &Fleet) -> Result<()> {
    let why = ["--by", "olga", "--reason", "before the winter"];
    fleet.ok(&[&["enrolments", "propose", "--staged", "--dir", "fleet"], &why[..]].concat())?;
    fleet.carry_out()
}

/// From a member to one whose next log is staged; its name.
fn stage(fleet: &Fleet, rig: &Rig) -> Result<String> {
    prepare(fleet, rig)?.ends(3, "somebody has to approve")?;
    approve(fleet)?;
    let said = prepare(fleet, rig)?;
    said.ends(0, "only this TPM can use it")?;
    said.after("staged ")
}

fn token(rig: &Rig, role: Role) -> Result<PathBuf> {
    let path = rig.file(&format!("{role:?}.token"));
    fs::write(&path, rig.token(role))?;
    Ok(path)
}

fn beginning(rig: &Rig, token: &Path, cause: &str) -> Result<Command> {
    let token = token.to_str().context("a path")?.to_owned();
    rig.command(&["staged", "begin", "--token-file", &token, "--cause", cause, "--reason", WHY])
}

fn begin(rig: &Rig, cause: &str) -> Result<Said> {
    let done = beginning(rig, &token(rig, Role::Operator)?, cause)?.output()?;
    Ok(Said { code: done.status.code(), words: words(&done) })
}

fn package(rig: &Rig) -> PathBuf {
    rig.file("state.staged")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cp -a {} {}", from.display(), to.display());
    Ok(())
}

/// For how long the box says that a staged log can be begun.
fn for_seconds(rig: &Rig) -> Result<u64> {
    let shown = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let line = shown.lines().find_map(|line| line.strip_prefix("bulla_staged_seconds "));
    Ok(line.with_context(|| shown.clone())?.parse()?)
}

/// The succession entries of the box's own log.
fn successions(rig: &Rig) -> Result<Vec<SuccessionBody>> {
    let all = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let all = all.iter().map(|bytes| Entry::decode(bytes)).collect::<Result<Vec<_>, _>>()?;
    let wanted = all.iter().filter(|entry| entry.kind() == Some(Kind::Succession));
    wanted.map(|entry| Ok(SuccessionBody::decode(&entry.content().body)?)).collect()
}

#[test]
fn g2_a_box_that_lost_its_log_begins_the_staged_one_alone_and_only_once() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let mut rig = member(&mut fleet, EXTRA)?;
    let old = fs::read_to_string(rig.state().join("identity.json"))?;
    let old: Value = serde_json::from_str(&old)?;
    let old = old["origin"].as_str().context("an origin")?.to_owned();
    // Killed on the way it asks for the same log again.
    for round in 0..6_u64 {
        let registrar = fleet.registrar();
        let mut asking = rig.command(&["staged", "prepare"])?;
        asking.args(&registrar).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = asking.spawn()?;
        std::thread::sleep(Duration::from_millis(60 + 60 * round));
        child.kill()?;
        child.wait()?;
    }
    let asked = prepare(&fleet, &rig)?;
    asked.ends(3, "somebody has to approve")?;
    let claim = asked.after("claim code")?;
    let listed = fleet.ok(&["enrolments", "list", "--dir", "fleet"])?;
    ensure!(listed.lines().filter(|line| line.contains("STAGED")).count() == 1, "{listed}");
    let shown = fleet.ok(&["enrolments", "show", &claim, "--dir", "fleet"])?;
    ensure!(shown.contains("STAGED") && shown.contains(&old), "{shown}");
    approve(&fleet)?;
    let kept = prepare(&fleet, &rig)?;
    kept.ends(0, "only this TPM can use it")?;
    let origin = kept.after("staged ")?;
    let shown = fleet.ok(&["inventory", "show", "S-1", "--dir", "fleet", "--json"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(shown["logs"][0]["origin"] == old && shown["staged"][0]["origin"] == origin, "{shown}");
    ensure!(!rig.file("state.staging").exists(), "nothing is under way any more");
    said(&rig, &["staged", "show"])?.ends(0, &origin)?;
    // One counter value names one log: there is no second package before the counter has moved.
    prepare(&fleet, &rig)?.ends(1, "a log has that number already")?;
    // The log in use goes on as if nothing had been, with the counter.
    run(&mut rig)?;
    run(&mut rig)?;

    // The line is cut, and the disk dies. What is left is the TPM and the file, which was kept elsewhere, too.
    fleet.kill();
    let copies = rig.directory().join("copies");
    fs::create_dir(&copies)?;
    copy(&package(&rig), &copies.join("package"))?;
    copy(&rig.state(), &copies.join("state"))?;
    fs::remove_dir_all(rig.state())?;
    // Killed at every step, it goes on; nothing that was half begun runs.
    let operator = token(&rig, Role::Operator)?;
    let token_then = rig.token(Role::Operator).to_owned();
    for round in 0..24_u64 {
        let mut child = beginning(&rig, &operator, "lost-disk")?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(20 + 17 * round));
        child.kill()?;
        child.wait()?;
        if rig.state().join("identity.json").exists() {
            break;
        }
    }
    let done = begin(&rig, "lost-disk")?;
    ensure!(
        done.code == Some(0) && done.words.contains(&origin)
            || done.words.contains("it was begun")
            || done.words.contains("no log is staged"),
        "{}",
        done.words
    );
    rig.furnish()?;
    rig.sealer.start()?;
    sealed(&rig, "after")?;
    let told = successions(&rig)?;
    ensure!(told.len() == 1 && told[0].predecessor == old && told[0].cause == Cause::LostDisk, "{told:?}");
    ensure!(told[0].reason == format!("{WHY} (by operator-1)"), "{}", told[0].reason);
    rig.sealer.stop()?;
    for document in ["before", "after"] {
        verified(&fleet, &rig, document)?;
    }
    rig.fsck()?;

    // Not a second time: not with a copy of the file, not on the disk from before, and that disk does not go on either.
    let again = |cause: &str, operator: &Path| -> Result<Said> {
        let done = beginning(&rig, operator, cause)?.output()?;
        Ok(Said { code: done.status.code(), words: words(&done) })
    };
    copy(&copies.join("package"), &package(&rig))?;
    let then = rig.file("then.token");
    fs::write(&then, &token_then)?;
    again("lost-disk", &token(&rig, Role::Operator)?)?.ends(1, "it was begun")?;
    fs::rename(rig.state(), copies.join("new"))?;
    again("lost-disk", &then)?.ends(1, "the staged log is spent")?;
    copy(&copies.join("state"), &rig.state())?;
    again("rollback", &then)?.ends(1, "the staged log is spent")?;
    ensure!(rig.try_run(&["staged", "show"])?.status.success());
    rig.sealer.start_unready()?;
    rig.sealer.kill()?;
    fs::remove_dir_all(rig.state())?;
    copy(&copies.join("new"), &rig.state())?;
    rig.sealer.start()?;
    sealed(&rig, "later")?;
    rig.sealer.stop()?;
    verified(&fleet, &rig, "later")?;
    Ok(())
}

#[test]
fn g2_a_staged_log_is_begun_by_nobody_else_nowhere_else_and_not_too_late() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let mut rig = member(&mut fleet, EXTRA)?;
    let first = stage(&fleet, &rig)?;
    copy(&package(&rig), &rig.file("first"))?;
    run(&mut rig)?;
    let second = stage(&fleet, &rig)?;
    assert_ne!(first, second);
    fleet.kill();

    // Policy and people.
    let config = fs::read_to_string(rig.file("box.toml"))?;
    fs::write(rig.file("box.toml"), config.replace("[staged]\ndays = 30\n", ""))?;
    begin(&rig, "rollback")?.ends(1, "does not allow it")?;
    fs::write(rig.file("box.toml"), &config)?;
    let scanner = beginning(&rig, &token(&rig, Role::Scanner)?, "rollback")?.output()?;
    ensure!(words(&scanner).contains("no operator's"), "{}", words(&scanner));
    rig.sealer.start()?;
    begin(&rig, "rollback")?.ends(1, "the box runs")?;
    let left = for_seconds(&rig)?;
    ensure!((29 * 86_400..30 * 86_400).contains(&left), "{left}");
    rig.sealer.stop()?;
    // Too late; and the disk is not asked what time it is.
    let clock = WallClock::new()?;
    for (shift, part) in [("+31d", "too old"), ("-3d", "clock is wrong")] {
        let mut shifted = beginning(&rig, &token(&rig, Role::Operator)?, "rollback")?;
        clock.set(shift)?;
        let shifted = shifted.envs(clock.environment()).output()?;
        ensure!(!shifted.status.success() && words(&shifted).contains(part), "{shift}: {}", words(&shifted));
    }
    // A file whose parts were exchanged.
    let newer = fs::read(package(&rig))?;
    let text = String::from_utf8(newer.clone())?;
    fs::write(package(&rig), text.replacen("\"counter\": ", "\"counter\": 1", 1))?;
    begin(&rig, "rollback")?.ends(1, "is not believed")?;
    // The one before it is worth nothing any more.
    fs::copy(rig.file("first"), package(&rig))?;
    begin(&rig, "rollback")?.ends(1, "the staged log is spent")?;
    fs::write(package(&rig), &newer)?;
    // Another TPM.
    let stranger = Swtpm::manufacture(&rig.directory().join("other"))?;
    let own = rig.tpm.as_ref().context("it has a TPM")?.tcti();
    fs::write(rig.file("box.toml"), config.replace(&own, &stranger.tcti()))?;
    begin(&rig, "rollback")?.ends(1, "not the TPM it was staged for")?;
    drop(stranger);
    fs::write(rig.file("box.toml"), &config)?;
    // Another boot: the PCR is named.
    let extended = format!("4:sha256={}", "17".repeat(32));
    let done = Command::new("tpm2_pcrextend").args(["-T", &own, &extended]).output()?;
    ensure!(done.status.success(), "{}", words(&done));
    begin(&rig, "rollback")?.ends(1, "PCR 4 was")?;
    ensure!(!rig.file("state.beginning").exists(), "nothing of it is left");
    // Half begun, and killed: the log in use does not go on beside it.
    let half = rig.file("state.beginning");
    fs::create_dir(&half)?;
    fs::write(half.join("identity.json"), "{}")?;
    said(&rig, &["run"])?.ends(1, "was being begun")?;
    fs::remove_dir_all(&half)?;
    // None of that has spent it, or harmed the log in use.
    run(&mut rig)?;
    let tpm = rig.tpm.as_mut().context("it has a TPM")?;
    tpm.crash()?;
    tpm.start()?;
    begin(&rig, "rollback")?.ends(0, &second)?;
    rig.sealer.start()?;
    sealed(&rig, "after")?;
    assert_eq!(for_seconds(&rig)?, 0, "nothing is staged for the log that has begun");
    let told = successions(&rig)?;
    ensure!(told.len() == 1 && told[0].cause == Cause::Rollback && told[0].head.size > 3, "{told:?}");
    rig.sealer.stop()?;
    verified(&fleet, &rig, "after")?;
    verified(&fleet, &rig, "before")?;
    rig.fsck()?;
    Ok(())
}

fn connected(rig: &Rig) -> Result<Vec<String>> {
    let status: Value = rig.client(Role::Reader).get("/v1/status")?.json()?;
    let all = status["peers"]["neighbours"].as_array().context("it has [peers]")?;
    let there = all.iter().filter(|one| one["connected"] == true);
    Ok(there.filter_map(|one| one["origin"].as_str().map(str::to_owned)).collect())
}

/// Cards that wait are approved, once there are so many.
fn cards(fleet: &Fleet, count: usize) -> Result<()> {
    let path = fleet.path("fleet/cards");
    until("the cards are handed in", || Ok(fs::read_dir(&path).map_or(0, Iterator::count) >= count))?;
    until("they wait for people", || {
        let why = ["propose", "cards", "--dir", "fleet", "--reason", "boxes of one branch"];
        Ok(fleet.run(&why)?.status.success())
    })?;
    fleet.carry_out()
}

#[test]
fn g8_neighbours_keep_the_log_in_use_and_take_the_staged_one_with_its_card() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let first = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&first)?;
    fleet.serve(&[])?;
    let (mut one, old) = fleet.member("S-1", Some(&first))?;
    let (mut two, other) = fleet.member("S-2", Some(&first))?;
    let path = one.file("box.toml");
    let config = fs::read_to_string(&path)?;
    fs::write(&path, format!("{config}\n{EXTRA}"))?;
    one.sealer.start()?;
    two.sealer.start()?;
    cards(&fleet, 2)?;
    let sees = |rig: &Rig, origin: &str| anyhow::Ok(connected(rig)? == [origin.to_owned()]);
    until("they are neighbours", || Ok(sees(&one, &other)? && sees(&two, &old)?))?;
    sealed(&one, "before")?;
    one.sealer.stop()?;
    let new = stage(&fleet, &one)?;
    // What is staged changes nothing between them.
    one.sealer.start()?;
    until("they are neighbours again", || Ok(sees(&one, &other)? && sees(&two, &old)?))?;
    one.sealer.kill()?;
    begin(&one, "key-compromise")?.ends(0, &new)?;
    one.sealer.start()?;
    sealed(&one, "alone")?;
    // People approve the card of the new log: from then on it is the one that the roster knows.
    cards(&fleet, 3)?;
    until("they are neighbours under the new name", || Ok(sees(&one, &other)? && sees(&two, &new)?))?;
    let shown = fleet.ok(&["inventory", "show", "S-1", "--dir", "fleet", "--json"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(shown["logs"][1]["origin"] == new && shown["staged"] == serde_json::json!([]), "{shown}");
    one.sealer.stop()?;
    two.sealer.stop()?;
    verified(&fleet, &one, "alone")?;
    Ok(())
}
