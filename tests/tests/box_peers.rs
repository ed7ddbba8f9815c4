//! Boxes that mirror and witness each other's logs: real processes, real disks, loopback between them.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::leaf_hash;
use bulla_formats::peer::card::PeerCard;
use bulla_tests::rig::site::{Site, entries, until};
use bulla_tests::rig::{Keys, Rig, Role};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp -a {} {}", from.display(), to.display());
    Ok(())
}

/// The state of a stopped box, copied.
fn copied(rig: &Rig, name: &str) -> Result<PathBuf> {
    let copy = rig.directory().join(name);
    replace(&rig.state(), &copy)?;
    Ok(copy)
}

#[test]
fn three_boxes_hold_each_others_logs_and_a_lost_disk_loses_no_acknowledged_entry() -> Result<()> {
    let mut site = Site::start(&[Keys::Software; 3])?;
    let mut leaves = Vec::new();
    for round in 0..5 {
        for at in 0..3 {
            let json = site.mirrored(at, &format!("document {round} of box {at}"), 2)?;
            if at == 0 {
                leaves.push(json["leafHash"].as_str().context("a leaf hash")?.to_owned());
            }
        }
    }
    let witnessed = site.seal(1, "witnessed", "witnessed(2)")?.json()?;
    assert_eq!(witnessed["waited"], "witnessed", "{witnessed}");
    for at in 0..3 {
        let status = site.status(at)?;
        let all = status["peers"]["neighbours"].as_array().unwrap().clone();
        assert!(all.len() == 2 && all.iter().all(|one| one["connected"] == true), "{status}");
        let metrics = site.boxes[at].client(Role::Reader).get("/metrics")?;
        assert!(String::from_utf8(metrics.body)?.contains("bulla_peers_connected 2\n"));
    }

    // Figures, and load on all three logs.
    let mut millis = Vec::new();
    for round in 0..60 {
        let begun = Instant::now();
        let json = site.mirrored(0, &format!("timed {round}"), 2)?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
        leaves.push(json["leafHash"].as_str().context("a leaf hash")?.to_owned());
    }
    millis.sort_by(f64::total_cmp);
    println!("seal held by 2 neighbours: p50 {:.1} ms, p99 {:.1} ms", millis[30], millis[59]);

    // One is killed and comes back: it catches up.
    site.boxes[2].sealer.kill()?;
    let alone = site.boxes[0].client(Role::Scanner).post(
        "/v1/seals?wait=mirrored(2)&deadlineSeconds=1",
        &[("Content-Type", "text/plain")],
        b"one neighbour is away",
    )?;
    let json = alone.json()?;
    assert_eq!((alone.status, &json["waited"]), (201, &"timed-out".into()), "{json}");
    site.boxes[2].sealer.start()?;
    site.mirrored(0, "it is back", 2)?;

    // Two of them part, go on, and meet again.
    site.boxes[0].run(&["peers", "remove", site.origin(2)])?;
    until("they part", || Ok(site.neighbour(0, 2).is_err()))?;
    for round in 0..3 {
        site.mirrored(0, &format!("without the third {round}"), 1)?;
        site.mirrored(2, &format!("without the first {round}"), 1)?;
    }
    site.introduce(0, 2)?;
    until("they meet", || Ok(site.neighbour(0, 2).unwrap_or_default()["connected"] == true))?;
    site.mirrored(0, "together again", 2)?;
    site.mirrored(2, "together again", 2)?;

    // The first one is lost for good, with its disk.
    site.boxes[0].sealer.kill()?;
    std::fs::remove_dir_all(site.boxes[0].state())?;
    for at in [1, 2] {
        let held: Vec<String> = site.copy(at, 0)?.iter().map(|entry| leaf_hash(entry).to_string()).collect();
        for leaf in &leaves {
            assert!(held.contains(leaf), "box {at} lacks an acknowledged entry");
        }
    }
    site.mirrored(1, "the others go on", 1)?;
    for at in [1, 2] {
        site.boxes[at].sealer.stop()?;
        let said = site.boxes[at].fsck()?;
        assert!(said.contains(&format!("clean: the copy of {}", site.origin(0))), "{said}");
    }
    Ok(())
}

#[test]
fn an_older_copy_of_the_disk_is_noticed_by_the_neighbours_and_seals_nothing() -> Result<()> {
    let mut site = Site::start(&[Keys::Software; 2])?;
    site.mirrored(0, "before the copy", 1)?;
    site.boxes[0].sealer.stop()?;
    let older = copied(&site.boxes[0], "older")?;
    site.boxes[0].sealer.start()?;
    site.mirrored(0, "after the copy", 1)?;
    site.boxes[0].sealer.stop()?;
    let newest = copied(&site.boxes[0], "newest")?;

    replace(&older, &site.boxes[0].state())?;
    site.boxes[0].sealer.start_unready()?;
    let status = site.status(0)?;
    assert_eq!(status["condition"]["state"], "rollback-suspected", "{status}");
    assert!(status["condition"]["finding"].as_str().unwrap().contains(site.origin(1)), "{status}");
    assert_eq!(status["peers"]["atStart"], "behind", "{status}");
    let size = status["size"].clone();
    let refused = site.boxes[0].client(Role::Scanner).seal(b"on an old disk")?;
    assert_eq!((refused.status, refused.problem()?.as_str()), (503, "rollback-suspected"));
    assert_eq!(site.status(0)?["size"], size, "nothing was added, not even the epoch of this run");
    site.boxes[0].sealer.kill()?;

    replace(&newest, &site.boxes[0].state())?;
    site.boxes[0].sealer.start()?;
    site.mirrored(0, "on the newest disk", 1)?;
    assert_eq!(site.neighbour(1, 0)?["copy"]["frozen"], false, "no fork came of it");
    Ok(())
}

#[test]
fn a_clone_that_forks_the_log_is_proven_frozen_and_logged() -> Result<()> {
    let mut site = Site::start(&[Keys::Software; 3])?;
    site.mirrored(0, "before the copy", 2)?;
    site.boxes[0].sealer.stop()?;
    let clone = copied(&site.boxes[0], "clone")?;
    site.boxes[0].sealer.start()?;
    site.mirrored(0, "the true history", 2)?;
    site.boxes[0].sealer.stop()?;

    // The clone runs where it hears nobody, and seals.
    replace(&clone, &site.boxes[0].state())?;
    for other in [1, 2] {
        site.boxes[0].run(&["peers", "remove", site.origin(other)])?;
    }
    site.boxes[0].sealer.start()?;
    for round in 0..8 {
        site.seal(0, &format!("another history {round}"), "sealed")?;
    }
    for other in [1, 2] {
        site.introduce(0, other)?;
    }
    for at in [1, 2] {
        until("the fork is frozen", || Ok(site.neighbour(at, 0)?["copy"]["frozen"] == true))
            .with_context(|| site.boxes[at].log())?;
        let client = site.boxes[at].client_with(None);
        let logged = entries(&client, "", site.boxes[at].log_size()?)?;
        let forks = logged.iter().filter_map(|bytes| {
            let entry = Entry::decode(bytes).ok()?;
            let body =
                (entry.kind() == Some(Kind::Incident)).then(|| IncidentBody::decode(&entry.content().body));
            body?.ok().filter(|body| body.code == "fork")
        });
        assert_eq!(forks.count(), 1, "box {at} logs it once");
        let frozen = site.copy(at, 0)?.len();
        assert!(frozen > 0, "it is kept and served");
        // In the merged order of all logs it is marked, and holds nothing up.
        let view = site.boxes[at].client(Role::Reader).get("/v1/reconciled?limit=1")?;
        let head: Value = serde_json::from_slice(view.body.split(|byte| *byte == b'\n').next().unwrap())?;
        let logs = head["logs"].as_array().unwrap();
        assert!(logs.iter().all(|log| log["frozen"] == (log["origin"] == site.origin(0))), "{head}");
        let growing =
            logs.iter().filter(|log| log["frozen"] == false).filter_map(|log| log["lamport"].as_u64());
        assert_eq!(head["stable"].as_u64(), growing.min(), "{head}");
    }
    until("the clone learns it", || Ok(site.status(0)?["condition"]["state"] == "rollback-suspected"))?;
    assert_eq!(site.boxes[0].client(Role::Scanner).seal(b"no more")?.problem()?, "rollback-suspected");
    site.mirrored(1, "the others go on", 1)?;
    Ok(())
}

#[test]
fn a_box_on_a_tpm_is_mirrored_and_an_unknown_box_gets_nothing() -> Result<()> {
    let mut site = Site::create(&[Keys::Tpm, Keys::Software, Keys::Software])?;
    site.introduce(0, 1)?;
    site.introduce(1, 0)?;
    // The third knows both; nobody knows it.
    site.introduce(2, 0)?;
    site.introduce(2, 1)?;
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    site.mirrored(0, "on a TPM", 1)?;
    site.mirrored(1, "beside it", 1)?;
    std::thread::sleep(Duration::from_secs(3));
    for other in [0, 1] {
        let seen = site.neighbour(2, other)?;
        assert_eq!((&seen["connected"], &seen["copy"]["known"]), (&false.into(), &0.into()), "{seen}");
    }
    assert_eq!(
        site.boxes[2].client(Role::Reader).get("/v1/mirrors")?.json()?["mirrors"],
        serde_json::json!([])
    );
    // Introduced while it runs, it is one of them.
    site.introduce(0, 2)?;
    until("the third box holds the first one's log", || {
        // The list is read again within a second.
        let seen = site.neighbour(0, 2).unwrap_or_default();
        Ok(seen["mirrored"].as_u64().unwrap_or(0) > 0)
    })?;
    // The keys are kept, and sealed.
    let kept = std::fs::read_to_string(site.boxes[0].state().join("peers.json"))?;
    site.boxes[0].sealer.stop()?;
    site.boxes[0].sealer.start()?;
    assert_eq!(std::fs::read_to_string(site.boxes[0].state().join("peers.json"))?, kept);
    site.mirrored(0, "after a restart", 2)?;
    Ok(())
}

#[test]
fn cards_are_taken_only_when_they_are_meant() -> Result<()> {
    let site = Site::create(&[Keys::Software; 2])?;
    let refused = |arguments: &[&str], words: &str| -> Result<()> {
        let output = site.boxes[0].try_run(arguments)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && said.contains(words), "{arguments:?}: {said}");
        Ok(())
    };
    let other = site.boxes[1].file("peer.card");
    let other = other.to_str().unwrap();
    refused(&["peers", "add", "peer.card", "--yes"], "of this box itself")?;
    refused(&["peers", "add", other], "compare the fingerprint")?;
    refused(&["peers", "add", other, "--fingerprint", &site.cards[0].fingerprint()], "another one")?;
    std::fs::write(site.boxes[0].file("bad.card"), b"no card")?;
    refused(&["peers", "add", "bad.card", "--yes"], "no card of a box")?;
    refused(&["peers", "add", "nothing.card", "--yes"], "cannot be read")?;
    refused(&["peers", "remove", site.origin(1)], "no neighbour")?;
    site.introduce(0, 1)?;
    refused(&["peers", "add", other, "--yes"], "as new or newer")?;
    let listed = String::from_utf8(site.boxes[0].run(&["peers", "list"])?.stdout)?;
    assert!(listed.contains(site.origin(1)) && listed.contains(&site.cards[1].fingerprint()), "{listed}");
    Ok(())
}

#[test]
fn whoever_forgot_what_it_cosigned_cosigns_with_other_keys() -> Result<()> {
    let mut site = Site::start(&[Keys::Software; 2])?;
    site.mirrored(1, "held by the first", 1)?;
    let card = |rig: &Rig| -> Result<PeerCard> {
        rig.run(&["peers", "card", "--out", "peer.card"])?;
        Ok(PeerCard::decode(&std::fs::read(rig.file("peer.card"))?)?)
    };
    let before = card(&site.boxes[0])?;
    site.boxes[0].sealer.stop()?;
    site.boxes[0].sealer.start()?;
    assert_eq!(card(&site.boxes[0])?.bytes(), before.bytes(), "a restart changes nothing");

    site.boxes[0].sealer.stop()?;
    std::fs::remove_dir_all(site.boxes[0].state().join("mirrors"))?;
    site.boxes[0].sealer.start()?;
    let after = card(&site.boxes[0])?;
    let keys = |card: &PeerCard| {
        let content = card.content();
        (content.witness_key, content.mirror_key, content.transport_key, content.log_key)
    };
    let ((witness, mirror, transport, log), now) = (keys(&before), keys(&after));
    assert!(witness != now.0 && mirror != now.1, "what they have cosigned is not known any more");
    assert_eq!((transport, log, before.fingerprint()), (now.2, now.3, after.fingerprint()));
    assert!(after.replaces(&before));

    // The neighbour lets it in, and counts nothing that its old card does not speak for.
    site.mirrored(0, "the neighbour holds its log as before", 1)?;
    let path = "/v1/seals?wait=mirrored(1)&deadlineSeconds=2";
    let answer =
        site.boxes[1].client(Role::Scanner).post(path, &[("Content-Type", "text/plain")], b"new keys")?;
    assert_eq!((answer.status, &answer.json()?["waited"]), (201, &"timed-out".into()));
    site.introduce(1, 0)?;
    site.mirrored(1, "with the new card", 1)?;
    Ok(())
}
