//! Boxes that take their neighbours from their fleet's roster, and fleets that share a network.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::revocation::RevocationBody;
use bulla_formats::body::roster::{Came, RosterBody};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::revocation::Cause;
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::site::{entries, until};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

fn address() -> Result<String> {
    Ok(format!("/ip4/127.0.0.1/tcp/{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()))
}

fn status(rig: &Rig) -> Result<Value> {
    rig.client(Role::Reader).get("/v1/status")?.json()
}

fn neighbours(rig: &Rig) -> Result<Vec<Value>> {
    Ok(status(rig)?["peers"]["neighbours"].as_array().context("it has [peers]")?.clone())
}

/// Whether these, and nobody else, are connected neighbours.
fn sees(rig: &Rig, origins: &[&str]) -> Result<bool> {
    let all = neighbours(rig)?;
    let there = |origin: &&str| all.iter().any(|one| one["origin"] == **origin && one["connected"] == true);
    Ok(all.len() == origins.len() && origins.iter().all(there))
}

fn kept_out(rig: &Rig, origin: &str) -> Result<String> {
    let status = status(rig)?;
    let all = status["peers"]["keptOut"].as_array().context("a list")?.clone();
    let found = all.iter().find(|one| one["origin"] == origin).map(|one| one["why"].as_str().unwrap_or("?"));
    Ok(found.unwrap_or("nothing").to_owned())
}

fn seal(rig: &Rig, document: &str, wait: &str) -> Result<Value> {
    let path = format!("/v1/seals?wait={wait}&deadlineSeconds=30");
    let answer =
        rig.client(Role::Scanner).post(&path, &[("Content-Type", "text/plain")], document.as_bytes())?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn bodies(rig: &Rig, kind: Kind) -> Result<Vec<Vec<u8>>> {
    let all = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let all = all.iter().map(|bytes| Entry::decode(bytes)).collect::<Result<Vec<_>, _>>()?;
    let of_kind = all.iter().filter(|entry| entry.kind() == Some(kind));
    Ok(of_kind.map(|entry| entry.content().body.to_vec()).collect())
}

fn rosters(rig: &Rig) -> Result<Vec<RosterBody>> {
    Ok(bodies(rig, Kind::Roster)?.iter().map(|body| RosterBody::decode(body)).collect::<Result<_, _>>()?)
}

/// `bulla-box roster take`; its exit code and what it said.
fn take(rig: &Rig, roster: &Path) -> Result<(Option<i32>, String)> {
    let token = rig.file("operator.token");
    fs::write(&token, rig.token(Role::Operator))?;
    let (file, token) = (roster.to_str().context("a path")?, token.to_str().context("a path")?);
    let output = rig.try_run(&["roster", "take", file, "--token-file", token])?;
    Ok((output.status.code(), words(&output)))
}

/// The fleet's roster as it is now, in a file of its own.
fn copied(fleet: &Fleet, name: &str) -> Result<PathBuf> {
    let copy = fleet.path(name);
    fs::copy(fleet.path("fleet/roster"), &copy)?;
    Ok(copy)
}

#[test]
fn a_roster_says_who_the_neighbours_are_and_who_is_not_one_any_more() -> Result<()> {
    let mut fleet = Fleet::found()?;
    // The registrar believes the maker of the first TPM, who makes them all.
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut boxes, mut origins) = (Vec::new(), Vec::new());
    for serial in ["S-1", "S-2", "S-3"] {
        let (rig, origin) = fleet.member(serial, Some(&maker))?;
        boxes.push(rig);
        origins.push(origin);
    }
    let [one, two, three] = [0, 1, 2].map(|at| origins[at].as_str());
    boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;

    // Each has handed in its card; two people approve the keys, and the boxes find each other.
    let cards = fleet.path("fleet/cards");
    until("three cards are handed in", || Ok(fs::read_dir(&cards).map_or(0, Iterator::count) == 3))?;
    ensure!(neighbours(&boxes[0])?.is_empty(), "a card counts before anybody approved it");
    fleet.ok(&["propose", "cards", "--dir", "fleet", "--reason", "three boxes of one branch"])?;
    fleet.ok(&["approve", "--dir", "olga", "--exchange", "fleet/exchange", "--yes"])?;
    fleet.ends(&["apply", "--dir", "fleet"], 3, "2 are needed")?;
    let before = copied(&fleet, "before")?;
    fleet.carry_out()?;
    for (at, others) in [[two, three], [one, three], [one, two]].iter().enumerate() {
        until("they are connected", || sees(&boxes[at], others)).with_context(|| boxes[at].log())?;
    }
    seal(&boxes[0], "held by two", "mirrored(2)")?;
    let all = neighbours(&boxes[0])?;
    ensure!(all.iter().all(|one| one["trust"] == "roster" && one["exchanged"] == "entries"), "{all:?}");
    let told = rosters(&boxes[0])?;
    let last = told.last().context("the log tells of a roster")?;
    ensure!(last.came == Came::Registrar && last.from.starts_with("https://"), "{last:?}");
    let listed = words(&boxes[0].run(&["peers", "list"])?);
    ensure!(listed.contains(two) && listed.contains("trust the fleet's roster"), "{listed}");

    // A box moves: nobody has to approve that, and the others hear of it.
    let version = last.number;
    boxes[1].sealer.stop()?;
    let (config, moved) = (boxes[1].file("box.toml"), address()?);
    let text = fs::read_to_string(&config)?;
    let old = text.lines().find_map(|line| line.strip_prefix("listen = [\"/")).context("where it listens")?;
    fs::write(&config, text.replace(&format!("/{}", old.trim_end_matches("\"]")), &moved))?;
    boxes[1].sealer.start()?;
    until("the new address is known", || Ok(words(&boxes[0].run(&["peers", "list"])?).contains(&moved)))?;
    until("it is there again", || sees(&boxes[0], &[two, three]))?;
    ensure!(rosters(&boxes[0])?.last().context("a roster")?.number == version, "an address made a version");

    // The registrar is gone. One box is held back; the news comes by hand to one, and from there to the others.
    fleet.kill();
    fleet.ok(&["propose", "quarantine", "S-3", "--dir", "fleet", "--reason", "the seal was broken"])?;
    fleet.ok(&["approve", "--dir", "olga", "--exchange", "fleet/exchange", "--yes"])?;
    fleet.ok(&["apply", "--dir", "fleet"])?;
    let held = copied(&fleet, "held")?;
    let (code, said) = take(&boxes[0], &held)?;
    ensure!(code == Some(0) && said.contains("goes by version"), "{said}");
    until("it is shut out here", || sees(&boxes[0], &[two]))?;
    until("and there", || sees(&boxes[1], &[one])).with_context(|| boxes[1].log())?;
    assert_eq!(kept_out(&boxes[0], three)?, "the roster says: quarantined");
    let at_two = rosters(&boxes[1])?;
    until("the log tells of it", || {
        Ok(rosters(&boxes[1])?.last().is_some_and(|last| last.came == Came::Neighbour && last.from == one))
    })
    .with_context(|| format!("{at_two:?}"))?;
    until("it notices", || Ok(neighbours(&boxes[2])?.iter().all(|one| one["connected"] == false)))?;
    let mirrors = boxes[0].client(Role::Reader).get("/v1/mirrors")?.json()?;
    ensure!(mirrors.to_string().contains(three), "its copy is kept: {mirrors}");
    let alone = seal(&boxes[0], "one is shut out", "mirrored(1)")?;
    assert_eq!(alone["heldBy"], serde_json::json!([two]));
    // A card that is handed in does not bring it back.
    boxes[2].run(&["peers", "card", "--out", "peer.card"])?;
    let card = boxes[2].file("peer.card");
    boxes[0].run(&["peers", "add", card.to_str().context("a path")?, "--yes"])?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    ensure!(sees(&boxes[0], &[two])?, "{:?}", neighbours(&boxes[0])?);
    boxes[0].run(&["peers", "remove", three])?;

    // An older roster is refused, and so is another fleet's; nothing changes.
    for (file, part) in [(&before, "rolled-back"), (&fleet.path("fleet/transcript"), "malformed")] {
        let (code, said) = take(&boxes[0], file)?;
        ensure!(code == Some(1) && said.contains(part), "{said}");
    }
    let stranger = Fleet::found()?;
    let (code, said) = take(&boxes[0], &stranger.path("fleet/roster"))?;
    ensure!(code == Some(1) && said.contains("other-root"), "{said}");
    let status_of = status(&boxes[0])?;
    ensure!(status_of["peers"]["rosters"][0]["version"] == version + 1, "{status_of}");

    // It is let go: the other box is told, and all three are neighbours again.
    fleet.ok(&["propose", "release", "S-3", "--dir", "fleet", "--reason", "it was the courier"])?;
    fleet.carry_out()?;
    let (code, said) = take(&boxes[1], &copied(&fleet, "released")?)?;
    ensure!(code == Some(0), "{said}");
    until("it is back", || sees(&boxes[0], &[two, three])).with_context(|| boxes[0].log())?;
    seal(&boxes[2], "back again", "mirrored(2)")?;
    until("it has the roster, too", || {
        Ok(status(&boxes[2])?["peers"]["rosters"][0]["version"] == version + 2)
    })?;

    // It is revoked, and the logs of the others say so. After a restart it is still shut out.
    let gone = ["--cause", "compromise", "--nothing-good", "--reason", "the box was stolen"];
    fleet.ok(&[&["revoke", "S-3", "--dir", "fleet"], &gone[..]].concat())?;
    fleet.carry_out()?;
    let revoked = copied(&fleet, "revoked")?;
    take(&boxes[1], &revoked)?;
    until("it is out", || sees(&boxes[0], &[two]))?;
    until("the log tells of it", || Ok(bodies(&boxes[0], Kind::Revocation)?.len() == 1))?;
    let said = RevocationBody::decode(&bodies(&boxes[0], Kind::Revocation)?[0])?;
    ensure!(said.origin == three && said.cause == Cause::Compromise && said.good.size == 0, "{said:?}");
    boxes[0].sealer.stop()?;
    boxes[0].sealer.start()?;
    until("the other one is there", || sees(&boxes[0], &[two]))?;
    assert_eq!(kept_out(&boxes[0], three)?, "the roster says: revoked");

    // Somebody puts an older roster on the disk: it counts for nothing until the newest comes again.
    boxes[0].sealer.stop()?;
    let on_disk = boxes[0].state().join("rosters/demo.bulla.test");
    fs::copy(&held, &on_disk)?;
    boxes[0].sealer.start()?;
    let status_of = status(&boxes[0])?;
    let why = status_of["peers"]["rosterTroubles"][0]["why"].to_string();
    ensure!(why.contains("rolled-back") && neighbours(&boxes[0])?.is_empty(), "{status_of}");
    let (code, said) = take(&boxes[0], &held)?;
    ensure!(code == Some(1) && said.contains("rolled-back"), "{said}");
    take(&boxes[0], &revoked)?;
    until("all is well", || sees(&boxes[0], &[two]))?;
    boxes[0].sealer.stop()?;
    boxes[0].fsck()?;
    Ok(())
}

/// A box that is a fleet of one, of this domain.
fn lone(fleet: &str) -> Result<Rig> {
    let address = address()?;
    let extra = format!("[peers]\nlisten = [\"{address}\"]\nadvertise = [\"{address}\"]\nmdns = false\n");
    let options =
        RigOptions { keys: Keys::Software, residency: "software", extra: &extra, ..RigOptions::default() };
    let mut rig = Rig::unborn_on(&options, None)?;
    let config = rig.file("box.toml");
    fs::write(&config, fs::read_to_string(&config)?.replace("demo.bulla.test", fleet))?;
    rig.run(&["init"])?;
    rig.furnish()?;
    rig.run(&["peers", "card", "--out", "peer.card"])?;
    Ok(rig)
}

/// What this box allows to that fleet from its next start on.
fn allow(rig: &Rig, fleet: &str, level: &str) -> Result<()> {
    let config = rig.file("box.toml");
    let text = fs::read_to_string(&config)?;
    let (kept, _) = text.split_once("\n[[peers.foreign]]").unwrap_or((&text, ""));
    let more = format!("\n[[peers.foreign]]\nfleet = \"{fleet}\"\nlevel = \"{level}\"\n");
    Ok(fs::write(&config, format!("{}{more}", kept.trim_end()))?)
}

#[test]
fn fleets_on_one_network_exchange_what_they_allow_and_nothing_else() -> Result<()> {
    let fleets = ["one.bulla.test", "two.bulla.test"];
    let mut boxes = [lone(fleets[0])?, lone(fleets[1])?];
    let card = |rig: &Rig| -> Result<String> {
        Ok(rig.file("peer.card").to_str().context("a path in UTF-8")?.to_owned())
    };
    // A fleet that nobody named gets nothing, whoever hands in its card.
    let refused = boxes[0].try_run(&["peers", "add", &card(&boxes[1])?, "--yes"])?;
    ensure!(words(&refused).contains("[[peers.foreign]]"), "{}", words(&refused));
    for (at, other) in [(0, 1), (1, 0)] {
        allow(&boxes[at], fleets[other], "heads")?;
        boxes[at].run(&["peers", "add", &card(&boxes[other])?, "--yes"])?;
    }
    boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;

    // Heads: they witness each other, again and again, and hold nothing of each other.
    for round in 0..3 {
        for rig in &boxes {
            let json = seal(rig, &format!("witnessed {round}"), "witnessed(1)")?;
            ensure!(json["waited"] == "witnessed", "{json}\n{}", rig.log());
        }
    }
    let copies =
        |rig: &Rig| -> Result<u64> { neighbours(rig)?[0]["copy"]["size"].as_u64().context("a size") };
    for rig in &boxes {
        let all = neighbours(rig)?;
        ensure!(all[0]["exchanged"] == "heads" && all[0]["trust"] == "by-hand", "{all:?}");
        ensure!(all[0]["mirrored"] == 0 && copies(rig)? == 0, "{all:?}");
        ensure!(status(rig)?["peers"]["foreign"][0]["exchanged"] == "heads");
    }

    // One of them would like entries: the other one tells heads, and no more.
    boxes[0].sealer.stop()?;
    allow(&boxes[0], fleets[1], "entries")?;
    boxes[0].sealer.start()?;
    until("they are connected", || Ok(neighbours(&boxes[0])?[0]["connected"] == true))?;
    seal(&boxes[1], "not for the other one", "witnessed(1)").ok();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((copies(&boxes[0])?, copies(&boxes[1])?), (0, 0));

    // Both allow entries: they are neighbours.
    boxes[1].sealer.stop()?;
    allow(&boxes[1], fleets[0], "entries")?;
    boxes[1].sealer.start()?;
    for rig in &boxes {
        let json = seal(rig, "held by a foreign box", "mirrored(1)")?;
        ensure!(json["waited"] == "mirrored", "{json}\n{}", rig.log());
    }

    // Nothing: the other one does not get through the handshake; what was copied stays.
    boxes[1].sealer.stop()?;
    allow(&boxes[1], fleets[0], "nothing")?;
    boxes[1].sealer.start()?;
    let listed = words(&boxes[1].run(&["peers", "list"])?);
    ensure!(listed.contains("allows nothing to fleet one.bulla.test"), "{listed}");
    until("it is refused", || {
        let one = neighbours(&boxes[0])?.remove(0);
        let why = one["trouble"].as_str().unwrap_or_default().to_owned();
        Ok(one["connected"] == false && why.contains("not on its list"))
    })
    .with_context(|| boxes[0].log())?;
    ensure!(neighbours(&boxes[1])?.is_empty());
    let mirrors = boxes[1].client(Role::Reader).get("/v1/mirrors")?.json()?;
    ensure!(mirrors["mirrors"].as_array().is_some_and(|all| all.len() == 1), "{mirrors}");
    Ok(())
}
