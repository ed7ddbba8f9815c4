//! A box of a fleet is lost, and another one takes its place: real boxes with swtpm, a registrar, two people.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::sha256;
use bulla_formats::note::SignedNote;
use bulla_formats::trust::TrustFile;
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::outage::id_of;
use bulla_tests::rig::site::{entries, until};
use bulla_tests::rig::{Rig, RigOptions, Role, bulla_program};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

fn connected(rig: &Rig) -> Result<usize> {
    let status: Value = rig.client(Role::Reader).get("/v1/status")?.json()?;
    let all = status["peers"]["neighbours"].as_array().context("it has [peers]")?;
    Ok(all.iter().filter(|one| one["connected"] == true).count())
}

/// Seals a document and keeps it with its `.seal` file.
fn sealed(rig: &Rig, dir: &Path, document: &str, wait: &str) -> Result<()> {
    let path = format!("/v1/seals?wait={wait}&deadlineSeconds=30");
    let client = rig.client(Role::Scanner);
    let answer = client.post(&path, &[("Content-Type", "text/plain")], document.as_bytes())?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    let id = id_of(&answer)?;
    let seal = rig.client(Role::Operator).get(&format!("/v1/seals/{id}/seal-file"))?;
    ensure!(seal.status == 200, "{}", String::from_utf8_lossy(&seal.body));
    fs::write(dir.join(document), document)?;
    fs::write(dir.join(format!("{document}.seal")), &seal.body)?;
    Ok(())
}

/// `bulla verify` by the fleet's trust file, which must end well; what it said.
fn verified(fleet: &Fleet, document: &str) -> Result<String> {
    let mut command = Command::new(bulla_program()?);
    command.current_dir(fleet.path(".")).args(["verify", "--trust", "trust.json", document]);
    let done = command.output()?;
    ensure!(done.status.success(), "{}", words(&done));
    Ok(words(&done))
}

/// The succession entries of the box's own log.
fn successions(rig: &Rig) -> Result<Vec<SuccessionBody>> {
    let all = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let all = all.iter().map(|bytes| Entry::decode(bytes)).collect::<Result<Vec<_>, _>>()?;
    let wanted = all.iter().filter(|entry| entry.kind() == Some(Kind::Succession));
    wanted.map(|entry| Ok(SuccessionBody::decode(&entry.content().body)?)).collect()
}

/// So many cards, handed in by so many boxes, are approved.
fn approve_cards(fleet: &Fleet, count: usize) -> Result<()> {
    let cards = fleet.path("fleet/cards");
    until("the cards are handed in", || Ok(fs::read_dir(&cards).map_or(0, Iterator::count) >= count))?;
    until("they wait for people", || {
        let why = ["propose", "cards", "--dir", "fleet", "--reason", "boxes of one branch"];
        Ok(fleet.run(&why)?.status.success())
    })?;
    fleet.carry_out()
}

/// All neighbours hold the whole log.
fn held(rig: &Rig, neighbours: usize) -> Result<()> {
    until("everything is held", || {
        let status: Value = rig.client(Role::Reader).get("/v1/status")?.json()?;
        let all = status["peers"]["neighbours"].as_array().context("it has [peers]")?;
        let size = rig.log_size()?;
        Ok(all.iter().filter(|one| one["mirrored"].as_u64() >= Some(size)).count() == neighbours)
    })
}

/// The box of this rig, which has no state any more, is enrolled again with its TPM; its new log.
fn enrolled_again(fleet: &Fleet, rig: &mut Rig) -> Result<String> {
    fleet.admit(&fleet.enroll(rig)?)?;
    let said = fleet.enroll(rig)?;
    said.ends(0, "enrolled as")?;
    rig.furnish()?;
    rig.sealer.start()?;
    said.after("enrolled as")
}

#[test]
fn g2_another_box_takes_the_place_of_a_lost_one_and_those_who_hold_its_log_vouch_for_it() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut boxes, mut origins) = (Vec::new(), Vec::new());
    for serial in ["S-1", "S-2", "S-3"] {
        let (mut rig, origin) = fleet.member(serial, Some(&maker))?;
        rig.sealer.start()?;
        boxes.push(rig);
        origins.push(origin);
    }
    approve_cards(&fleet, 3)?;
    for rig in &boxes {
        until("they are connected", || Ok(connected(rig)? == 2)).with_context(|| rig.log())?;
    }
    sealed(&boxes[0], &fleet.path("."), "kept.txt", "mirrored(2)")?;
    held(&boxes[0], 2)?;

    // It is gone, with its disk and its TPM. The third box fetches what the second one holds.
    boxes[0].sealer.kill()?;
    fs::remove_dir_all(boxes[0].state())?;
    boxes[2].sealer.stop()?;
    let restore = |more: &[&str]| {
        let first = ["restore", "--from-peers", "--reason", "S-1 burnt"];
        boxes[2].try_run(&[&first[..], more].concat())
    };
    let (nobody, itself) = (restore(&["--lost", "S-9"])?, restore(&["--lost", "S-3"])?);
    ensure!(!nobody.status.success() && words(&nobody).contains("0 boxes"), "{}", words(&nobody));
    ensure!(!itself.status.success() && words(&itself).contains("this box itself"), "{}", words(&itself));
    let head = fleet.path("lost.head");
    let done = restore(&["--lost", "S-1", "--head", head.to_str().context("a path")?])?;
    ensure!(done.status.success() && words(&done).contains("cosigned as"), "{}", words(&done));
    boxes[2].sealer.start()?;
    let said = successions(&boxes[2])?.pop().context("a succession")?;
    ensure!(said.predecessor == origins[0] && said.cause == Cause::Replaced, "{said:?}");

    // A head that nobody vouches for is refused before anybody is asked; so is a box that takes its own place.
    let replace = |by: &'static str, head: &'static str| {
        [
            &["replace", "S-1", "--by", by, "--head", head][..],
            &["--dir", "fleet", "--reason", "S-1 burnt in the fire of 21 November"],
        ]
        .concat()
    };
    let note = SignedNote::parse(&fs::read_to_string(&head)?)?;
    let own = note.lines.iter().filter(|line| line.name == origins[0]).cloned().collect();
    fs::write(fleet.path("bare.head"), SignedNote { text: note.text.clone(), lines: own }.encode())?;
    fleet.ends(&replace("S-3", "bare.head"), 1, "not-vouched")?;
    // The holder does not vouch where it is the one to take the place.
    fleet.ends(&replace("S-2", "bare.head"), 1, "not-vouched")?;
    fleet.ends(&replace("S-1", "lost.head"), 1, "parameters")?;
    let other =
        SignedNote { text: note.text.replacen(&origins[0], &origins[1], 1), lines: note.lines.clone() };
    fs::write(fleet.path("other.head"), other.encode())?;
    fleet.ends(&replace("S-3", "other.head"), 1, "it is of no log of S-1")?;

    // Two people decide, seeing who holds it; the registrar tells the boxes.
    let proposed = fleet.ok(&replace("S-3", "lost.head"))?;
    ensure!(proposed.contains(&format!("cosigned  {}/mirror", origins[1])), "{proposed}");
    fleet.ok(&["approve", "--dir", "olga", "--exchange", "fleet/exchange", "--yes"])?;
    fleet.ends(&["apply", "--dir", "fleet"], 3, "2 are needed")?;
    fleet.carry_out()?;
    fleet.ends(&replace("S-3", "lost.head"), 1, "wrong-state")?;
    until("the second box goes by it", || {
        let listed = words(&boxes[1].run(&["peers", "list"])?);
        Ok(listed.contains(&format!("{}\n  kept out: the roster says: retired", origins[0])))
    })?;
    sealed(&boxes[2], &fleet.path("."), "after.txt", "mirrored(1)")?;
    // Whoever takes its place can fetch the log afterwards, too, when its own copy is lost.
    boxes[2].sealer.stop()?;
    let copy = sha256(&[origins[0].as_bytes()]).to_string();
    fs::remove_dir_all(boxes[2].state().join("mirrors").join(copy))?;
    let again = ["restore", "--from-peers", "--reason", "once more", "--lost", "S-1"];
    let done = boxes[2].try_run(&again)?;
    ensure!(done.status.success() && words(&done).contains(&origins[0]), "{}", words(&done));
    boxes[2].sealer.start()?;

    // The trust file says of either log where the other one is, and whose cosignatures count.
    fleet.ok(&["trust", "export", "--dir", "fleet", "--cosigners", "--out", "trust.json"])?;
    let trust = TrustFile::decode(&fs::read(fleet.path("trust.json"))?)?;
    let steps = trust.roster.context("it is of a roster")?.successions;
    ensure!(steps.len() == 1 && trust.cosigners.len() == 3, "{steps:?}");
    let step = &steps[0].content;
    ensure!(step.predecessor == origins[0] && step.successor == origins[2], "{step:?}");
    ensure!(
        step.head.size == said.head.size && step.holders.iter().all(|name| name.starts_with(&origins[1]))
    );
    let kept = verified(&fleet, "kept.txt")?;
    ensure!(
        kept.contains(&format!("{} takes its place", origins[2])) && kept.contains("mirrored(2)"),
        "{kept}"
    );
    let after = verified(&fleet, "after.txt")?;
    ensure!(after.contains(&format!("it takes the place of {}", origins[0])), "{after}");
    boxes[2].sealer.stop()?;
    boxes[2].fsck()?;
    Ok(())
}

#[test]
fn g2_the_same_tpm_begins_a_new_log_after_a_lost_disk_and_after_a_pardon() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut one, first) = fleet.member("S-1", Some(&maker))?;
    let (mut other, _) = fleet.member("S-2", Some(&maker))?;
    one.sealer.start()?;
    other.sealer.start()?;
    approve_cards(&fleet, 2)?;
    until("they are connected", || Ok(connected(&one)? == 1)).with_context(|| one.log())?;
    sealed(&one, &fleet.path("."), "held.txt", "mirrored(1)")?;

    // The disk is lost, the TPM is not: a log with a higher number, and a new card.
    one.sealer.kill()?;
    fs::remove_dir_all(one.state())?;
    let second = enrolled_again(&fleet, &mut one)?;
    let (name, number) = second.rsplit_once('/').context("an origin")?;
    let (before, old) = first.rsplit_once('/').context("an origin")?;
    ensure!(name == before && number.parse::<u64>()? > old.parse::<u64>()?, "{second} after {first}");
    until("nobody knows the new log", || Ok(connected(&other)? == 0))?;
    approve_cards(&fleet, 2)?;
    until("it is known again", || Ok(connected(&one)? == 1)).with_context(|| one.log())?;
    // The copy of the old log stays where it is, and what was sealed in it stays good.
    let mirrors = other.client(Role::Reader).get("/v1/mirrors")?.json()?;
    ensure!(mirrors.to_string().contains(&first), "{mirrors}");
    fleet.ok(&["trust", "export", "--dir", "fleet", "--out", "trust.json"])?;
    verified(&fleet, "held.txt")?;
    // The box has it back, under its new name: the roster says that both are one box. Nobody else is handed it.
    one.sealer.stop()?;
    let restore = |rig: &Rig, which: &str| {
        rig.try_run(&["restore", "--from-peers", "--reason", "its disk died", "--lost", which])
    };
    let done = restore(&one, &first)?;
    ensure!(done.status.success() && words(&done).contains(&first), "{}", words(&done));
    one.sealer.start()?;
    let said = successions(&one)?.pop().context("a succession")?;
    ensure!(said.predecessor == first && said.cause == Cause::LostDisk && said.head.size > 0, "{said:?}");
    until("they are connected again", || Ok(connected(&one)? == 1)).with_context(|| one.log())?;

    // It is given up, and shut out; its TPM does not come back by itself.
    let gone = ["--cause", "compromise", "--nothing-good", "--reason", "somebody had its keys"];
    fleet.ok(&[&["revoke", "S-1", "--dir", "fleet"], &gone[..]].concat())?;
    fleet.carry_out()?;
    until("it is shut out", || Ok(connected(&other)? == 0))?;
    one.sealer.stop()?;
    fs::remove_dir_all(one.state())?;
    fleet.enroll(&one)?.ends(1, "ek-tombstoned")?;

    // Pardoned, it is a member again with a third log and a third card.
    fleet.ok(&["pardon", "S-1", "--dir", "fleet", "--reason", "it was the neighbour's key"])?;
    fleet.carry_out()?;
    let third = enrolled_again(&fleet, &mut one)?;
    ensure!(third != second && third.starts_with(name), "{third}");
    approve_cards(&fleet, 2)?;
    until("it is a neighbour again", || Ok(connected(&other)? == 1)).with_context(|| other.log())?;
    sealed(&one, &fleet.path("."), "again.txt", "mirrored(1)")?;
    fleet.ok(&["trust", "export", "--dir", "fleet", "--out", "trust.json"])?;
    verified(&fleet, "again.txt").map(drop)
}
