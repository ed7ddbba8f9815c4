//! Rehearsals of an outage, and how far a box goes on by itself in a real one.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::manifest::Phase;
use bulla_formats::body::mode_change::LimitReached;
use bulla_formats::body::probe::Failure;
use bulla_formats::entry::{Entry, Kind, Mode};
use bulla_tests::rig::outage::{
    changes, entries, manifests, software, start, wait_anchored, wait_for, wait_mode,
};
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Rig, Role};
use std::fs;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

fn down(tsa: &Stamps) -> Result<()> {
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })
}

/// `bulla-box drill`, by an operator; what it printed, and its exit code.
fn drill(rig: &Rig, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let token = rig.file("operator.token");
    fs::write(&token, rig.token(Role::Operator))?;
    let token = token.to_str().context("a path")?;
    let output = rig.try_run(&[&["drill"], arguments, &["--token-file", token]].concat())?;
    Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

fn sealed(rig: &Rig, document: &str) -> Result<Entry> {
    let answer = rig.client(Role::Scanner).seal(document.as_bytes())?;
    ensure!(answer.status == 201, "{document}: {}", String::from_utf8_lossy(&answer.body));
    Ok(Entry::decode(&answer.seal()?.entry)?)
}

#[test]
fn a_drill_is_marked_costs_nothing_and_ends() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let mut rig = start(&[&tsa], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    let (code, said) = drill(&rig, &["wan-down", "--for", "8s"])?;
    ensure!(code == Some(0) && said.contains("the drill runs for"), "{said}");
    let (code, said) = drill(&rig, &["wan-down", "--for", "8s"])?;
    ensure!(code == Some(1) && said.contains("a drill is under way"), "{said}");
    wait_mode(&rig, "emergency", PATIENCE)?;
    let inside = sealed(&rig, "inside a drill")?;
    ensure!(inside.content().drill && inside.content().mode == Mode::Emergency);
    // By itself.
    let status = wait_mode(&rig, "online", PATIENCE)?;
    ensure!(status["outage"]["drill"] == false && status["outage"]["outages"] == 1, "{status:#}");
    let outside = sealed(&rig, "after the drill")?;
    ensure!(!outside.content().drill && outside.content().mode == Mode::Online);
    let said = manifests(&rig)?;
    ensure!(said.iter().all(|said| said.drill && said.outage == 1), "{said:?}");
    let closed: Vec<_> = said.iter().filter(|said| said.phase == Phase::Close).collect();
    ensure!(closed.len() == 1 && closed[0].seals == 1, "{said:?}");
    for entry in entries(&rig)? {
        let content = entry.content();
        ensure!(content.drill || content.mode != Mode::Emergency, "entry {} hides a drill", content.index);
    }
    let texts = fs::read_dir(rig.state().join("manifests"))?.flatten().map(|file| file.path());
    let texts: Vec<_> = texts.filter(|path| path.extension().is_some_and(|name| name == "txt")).collect();
    ensure!(!texts.is_empty());
    for path in texts {
        ensure!(fs::read_to_string(&path)?.contains("DRILL"), "{} hides a drill", path.display());
    }
    // Or when it is told to.
    drill(&rig, &["wan-down", "--for", "1h"])?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    let (code, said) = drill(&rig, &["stop"])?;
    ensure!(code == Some(0) && said.contains("no drill runs"), "{said}");
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn no_real_outage_hides_in_a_drill() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let mut rig = start(&[&tsa], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    drill(&rig, &["wan-down", "--for", "10m"])?;
    wait_for(&rig, "a drill", PATIENCE, |status| {
        status["mode"] == "emergency" && status["outage"]["drill"] == true
    })?;
    down(&tsa)?;
    let status = wait_for(&rig, "a real outage", PATIENCE, |status| {
        status["mode"] == "emergency" && status["outage"]["drill"] == false
    })?;
    // What the drill began is the outage's, and what was marked as a drill's remains so.
    ensure!(status["outage"]["outages"] == 1, "{status:#}");
    ensure!(!sealed(&rig, "inside the outage")?.content().drill);
    let (code, said) = drill(&rig, &["wan-down", "--for", "8s"])?;
    ensure!(code == Some(1) && said.contains("an outage"), "{said}");
    tsa.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    let closed: Vec<_> = manifests(&rig)?.into_iter().filter(|said| said.phase == Phase::Close).collect();
    let each: Vec<_> = closed.iter().map(|said| (said.outage, said.drill)).collect();
    ensure!(each == [(1, false)], "{closed:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// Seals something and waits until the log has an anchor over it, with the box where it is.
fn anchored_in_a_drill(rig: &Rig, document: &str, operators: &[&str]) -> Result<()> {
    let entry = sealed(rig, document)?;
    ensure!(entry.content().drill && entry.content().mode == Mode::Emergency, "{document}: no drill");
    let until = Instant::now() + PATIENCE;
    let covers = |body: &AnchorBody| {
        let mut by: Vec<&str> = body.proofs.iter().map(|proof| proof.operator.as_str()).collect();
        by.sort_unstable();
        body.head.size > entry.content().index && by == operators
    };
    loop {
        let anchors = entries(rig)?.into_iter().filter(|entry| entry.kind() == Some(Kind::Anchor));
        for anchor in anchors {
            if covers(&AnchorBody::decode(&anchor.content().body)?) {
                ensure!(anchor.content().drill && anchor.content().mode == Mode::Emergency, "{document}");
                return Ok(());
            }
        }
        ensure!(Instant::now() < until, "{document} is not anchored by {operators:?}\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The entries marked as a drill's are those from one index to another, without a gap; their modes, in order.
fn marked(rig: &Rig) -> Result<Vec<Mode>> {
    let all = entries(rig)?;
    let drill = |entry: &&Entry| entry.content().drill;
    let marked: Vec<_> = all.iter().filter(drill).map(Entry::content).collect();
    let indices: Vec<u64> = marked.iter().map(|content| content.index).collect();
    ensure!(indices.windows(2).all(|pair| pair[1] == pair[0] + 1), "{indices:?}");
    let mut modes: Vec<Mode> = marked.iter().map(|content| content.mode).collect();
    modes.dedup();
    Ok(modes)
}

fn closed(rig: &Rig) -> Result<Vec<(u64, bool)>> {
    let said = manifests(rig)?.into_iter().filter(|said| said.phase == Phase::Close);
    Ok(said.map(|said| (said.outage, said.drill)).collect())
}

#[test]
fn anchoring_goes_on_in_a_drill() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start(&[&a, &b], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    sealed(&rig, "before the drill")?;
    drill(&rig, &["wan-down", "--for", "1h"])?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    for number in 0..3 {
        anchored_in_a_drill(&rig, &format!("number {number}"), &["Operator A", "Operator B"])?;
    }
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    ensure!(status["mode"] == "emergency" && status["outage"]["drill"] == true, "{status:#}");
    drill(&rig, &["stop"])?;
    wait_mode(&rig, "online", PATIENCE)?;
    ensure!(!sealed(&rig, "after the drill")?.content().drill);
    wait_anchored(&rig, PATIENCE)?;
    let modes = marked(&rig)?;
    ensure!(modes.ends_with(&[Mode::Emergency, Mode::Reconciling]), "{modes:?}");
    ensure!(closed(&rig)? == [(1, true)], "{:?}", manifests(&rig)?);
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_drill_goes_on_as_long_as_one_authority_is_left() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start(&[&a, &b], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    drill(&rig, &["wan-down", "--for", "1h"])?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    down(&a)?;
    anchored_in_a_drill(&rig, "with one authority", &["Operator B"])?;
    // For longer than an outage takes to be one.
    std::thread::sleep(Duration::from_secs(5));
    anchored_in_a_drill(&rig, "with one authority, still", &["Operator B"])?;
    let open = manifests(&rig)?;
    let findings = &open.last().context("a manifest")?.findings;
    let failures: Vec<_> = findings.iter().map(|finding| finding.failure).collect();
    ensure!(failures == [Some(Failure::Refused), Some(Failure::Drill)], "{findings:?}");
    down(&b)?;
    let status = wait_for(&rig, "a real outage", PATIENCE, |status| {
        status["mode"] == "emergency" && status["outage"]["drill"] == false
    })?;
    ensure!(status["outage"]["outages"] == 1, "{status:#}");
    ensure!(!sealed(&rig, "inside the outage")?.content().drill);
    a.answer(Answer::Stamp)?;
    b.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    let modes = marked(&rig)?;
    ensure!(modes.ends_with(&[Mode::Emergency]), "{modes:?}");
    ensure!(closed(&rig)? == [(1, false)], "{:?}", manifests(&rig)?);
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn an_outage_while_a_drill_is_being_closed_is_the_next_one() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start(&[&a, &b], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    drill(&rig, &["wan-down", "--for", "1h"])?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    down(&a)?;
    anchored_in_a_drill(&rig, "with one authority", &["Operator B"])?;
    drill(&rig, &["stop"])?;
    // Two operators are wanted, and one is there: the drill cannot be closed, and its mark stays.
    wait_for(&rig, "a closing manifest", PATIENCE, |status| {
        status["mode"] == "reconciling" && status["outage"]["outage"]["closing"].is_u64()
    })?;
    let inside = sealed(&rig, "while it is being closed")?;
    ensure!(inside.content().drill && inside.content().mode == Mode::Reconciling);
    down(&b)?;
    let status = wait_mode(&rig, "emergency", PATIENCE)?;
    ensure!(status["outage"]["drill"] == false && status["outage"]["outages"] == 2, "{status:#}");
    ensure!(!sealed(&rig, "inside the outage")?.content().drill);
    a.answer(Answer::Stamp)?;
    b.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    marked(&rig)?;
    ensure!(closed(&rig)? == [(1, true), (2, false)], "{:?}", manifests(&rig)?);
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn at_its_limit_a_box_stops_says_so_and_begins_again() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let limits = "[outage.limits]\nseals = 5\nat_limit = \"safe\"";
    let mut rig = start(&[&tsa], &software(), limits)?;
    wait_mode(&rig, "online", PATIENCE)?;
    down(&tsa)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    for number in 0..5 {
        sealed(&rig, &format!("number {number}"))?;
    }
    let status = wait_mode(&rig, "safe", PATIENCE)?;
    ensure!(
        status["condition"]["state"] == "limited" && status["outage"]["below"] == "emergency",
        "{status:#}"
    );
    let refused = rig.client(Role::Scanner).seal(b"beyond")?;
    ensure!(refused.status == 503 && refused.problem()? == "locked", "{refused:?}");
    let said = changes(&rig)?;
    let last = said.last().context("a mode change")?;
    ensure!(last.to == Mode::Safe && !last.locked && last.limits == [LimitReached::Seals], "{last:?}");
    // A restart does not help.
    rig.sealer.kill()?;
    rig.sealer.start_unready()?;
    let refused = rig.client(Role::Scanner).seal(b"beyond, after a power cut")?;
    ensure!(refused.status == 503 && refused.problem()? == "locked", "{refused:?}");
    tsa.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    sealed(&rig, "after the outage")?;
    let closed: Vec<_> = manifests(&rig)?.into_iter().filter(|said| said.phase == Phase::Close).collect();
    ensure!(closed.len() == 1 && closed[0].seals <= 6, "{closed:?}");
    let limits = closed[0].limits.as_ref().context("limits are stated")?;
    ensure!(limits.seals == Some(5) && limits.reached == [LimitReached::Seals], "{limits:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_box_that_queues_while_locked_queues_at_its_limit() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let more = "[queue]\nwhen = [\"locked\"]\n[outage.limits]\nseals = 2\nat_limit = \"safe\"";
    let mut rig = start(&[&tsa], &software(), more)?;
    wait_mode(&rig, "online", PATIENCE)?;
    down(&tsa)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    for number in 0..2 {
        sealed(&rig, &format!("number {number}"))?;
    }
    wait_mode(&rig, "safe", PATIENCE)?;
    let queued = rig.client(Role::Scanner).seal(b"beyond")?;
    ensure!(queued.status == 202, "{}", String::from_utf8_lossy(&queued.body));
    tsa.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_for(&rig, "an empty queue", PATIENCE, |status| status["queue"]["depth"] == 0)?;
    let seals = entries(&rig)?.iter().filter(|entry| entry.kind() == Some(Kind::Seal)).count();
    ensure!(seals == 3, "{seals}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_box_told_to_continue_goes_on_and_its_manifests_say_so() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let limits = "[outage.limits]\nseals = 5\nat_limit = \"continue\"";
    let mut rig = start(&[&tsa], &software(), limits)?;
    wait_mode(&rig, "online", PATIENCE)?;
    down(&tsa)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    for number in 0..8 {
        sealed(&rig, &format!("number {number}"))?;
    }
    tsa.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    ensure!(changes(&rig)?.iter().all(|change| change.to != Mode::Safe));
    let said = manifests(&rig)?.into_iter().find(|said| said.phase == Phase::Close);
    let said = said.context("a closing manifest")?;
    let limits = said.limits.as_ref().context("limits are stated")?;
    ensure!(said.seals == 8 && limits.reached == [LimitReached::Seals], "{said:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}
