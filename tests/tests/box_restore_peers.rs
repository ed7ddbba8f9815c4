//! A lost log comes back from the neighbours that mirror it: whole, under the box that lost it or one that takes its place,
//! and never as a second history.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::{leaf_hash, sha256};
use bulla_formats::merkle::Frontier;
use bulla_formats::note::SignedNote;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_formats::witness::Role as Cosigner;
use bulla_tests::rig::site::{Site, entries, until};
use bulla_tests::rig::{Keys, Rig, Role, rounds};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const REASON: &str = "the disk burned";

fn restore(rig: &Rig, more: &[&str]) -> Result<Output> {
    rig.try_run(&[&["restore", "--from-peers", "--reason", REASON, "--wait-seconds", "20"], more].concat())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(output: Output) -> Result<String> {
    ensure!(output.status.success(), "{}", said(&output));
    Ok(said(&output))
}

/// What only the disk has: the log, and the copies of others.
fn lose_logs(rig: &Rig) -> Result<()> {
    for entry in std::fs::read_dir(rig.state())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("log-") || name == "mirrors" {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// The lost log as `rig` serves it, held against the card that it was known by, and its note.
fn served(rig: &Rig, card: &PeerCard) -> Result<(Vec<Vec<u8>>, SignedNote)> {
    let client = rig.client_with(None);
    let base = format!("/mirrors/{}", sha256(&[card.origin().as_str().as_bytes()]));
    let answer = client.get(&format!("{base}/checkpoint"))?;
    ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
    let note = SignedNote::parse(std::str::from_utf8(&answer.body)?)?;
    let checkpoint = card.checkpoint(&note)?;
    let entries = entries(&client, &base, checkpoint.size())?;
    let mut tree = Frontier::new();
    entries.iter().for_each(|entry| tree.append(leaf_hash(entry)));
    ensure!(tree.root() == checkpoint.root(), "the copy is not what its head says");
    Ok((entries, note))
}

/// The succession entries of the box's own log.
fn successions(rig: &Rig) -> Result<Vec<SuccessionBody>> {
    let entries = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let entries = entries.iter().map(|bytes| Ok(Entry::decode(bytes)?)).collect::<Result<Vec<_>>>()?;
    let wanted = entries.iter().filter(|entry| entry.kind() == Some(Kind::Succession));
    wanted.map(|entry| Ok(SuccessionBody::decode(&entry.content().body)?)).collect()
}

fn kept(site: &Site, at: usize, documents: usize, peers: usize) -> Result<Vec<(String, SealFile)>> {
    let mut kept = Vec::new();
    for number in 0..documents {
        let document = format!("document {number}");
        let answer = site.seal(at, &document, &format!("mirrored({peers})"))?;
        ensure!(answer.json()?["waited"] == "mirrored");
        kept.push((document, answer.seal()?));
    }
    Ok(kept)
}

#[test]
fn g1_g2_a_lost_log_comes_back_from_its_neighbours_and_never_goes_on_under_its_name() -> Result<()> {
    let mut site = Site::start(&[Keys::Tpm, Keys::Software, Keys::Software])?;
    let kept = kept(&site, 0, 12, 2)?;
    let running = restore(&site.boxes[0], &[])?;
    assert!(!running.status.success() && said(&running).contains("stop the box"), "{}", said(&running));
    site.boxes[0].sealer.stop()?;
    let whole = restore(&site.boxes[0], &[])?;
    assert!(!whole.status.success() && said(&whole).contains("nothing is to be fetched"), "{}", said(&whole));
    site.boxes[0].sealer.start()?;
    site.mirrored(0, "it goes on as if nobody had asked", 2)?;
    site.boxes[0].sealer.kill()?;
    lose_logs(&site.boxes[0])?;

    // Somebody who may know more is away.
    site.boxes[2].sealer.stop()?;
    let silent =
        site.boxes[0].try_run(&["restore", "--from-peers", "--reason", REASON, "--wait-seconds", "3"])?;
    let words = said(&silent);
    assert!(
        !silent.status.success() && words.contains("--without") && words.contains(site.origin(2)),
        "{words}"
    );
    site.boxes[2].sealer.start()?;

    let words = done(restore(&site.boxes[0], &[])?)?;
    assert!(words.contains("cosigned as witness and mirror"), "{words}");
    site.boxes[0].sealer.start()?;
    let (entries, note) = served(&site.boxes[0], &site.cards[0])?;
    let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    for (document, seal) in &kept {
        assert!(leaves.contains(&leaf_hash(&seal.entry)), "{document} is lost");
        assert_eq!(site.boxes[0].judge(seal, document.as_bytes()).report.verdict, Verdict::Valid);
    }
    // What the neighbours say of the head stays provable.
    for neighbour in [1, 2] {
        for role in [Cosigner::Witness, Cosigner::Mirror] {
            assert!(
                site.cards[neighbour].cosigner(role).cosignature(&note)?.is_some(),
                "{neighbour} {role:?}"
            );
        }
    }
    // It is found by its bytes, and its .seal file is made anew.
    let (document, _) = kept.last().context("a document")?;
    let reader = site.boxes[0].client(Role::Reader);
    let known = reader.post("/v1/verify", &[], document.as_bytes())?.json()?;
    let found = &known["elsewhere"][0];
    assert_eq!((&known["known"], &found["origin"]), (&false.into(), &site.origin(0).into()), "{known}");
    let file = reader.get(found["sealFile"].as_str().context("a path")?)?;
    let judged = site.boxes[0].judge(&file.seal()?, document.as_bytes());
    assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
    let said = successions(&site.boxes[0])?;
    let [one] = &said[..] else { panic!("{said:?}") };
    assert_eq!((one.predecessor.as_str(), one.cause), (site.origin(0), Cause::LostDisk));
    assert_eq!(one.head.size, entries.len() as u64);
    assert!(one.reason.starts_with(REASON) && one.reason.contains("TPM counter"), "{}", one.reason);

    // With its new card it is a neighbour again, and seals under another name.
    site.boxes[0].run(&["peers", "card", "--out", "peer.card"])?;
    let (old, new) =
        (site.cards[0].clone(), PeerCard::decode(&std::fs::read(site.boxes[0].file("peer.card"))?)?);
    assert_ne!(old.origin(), new.origin());
    site.cards[0] = new;
    for at in [1, 2] {
        site.boxes[at].run(&["peers", "remove", old.origin().as_str()])?;
        site.introduce(at, 0)?;
    }
    site.mirrored(0, "in the new log", 2)?;
    site.boxes[0].sealer.stop()?;
    assert!(site.boxes[0].fsck()?.contains(&format!("clean: the copy of {}", old.origin())));
    Ok(())
}

#[test]
fn g2_kill_9_at_any_step_leaves_the_old_state_or_the_new_one() -> Result<()> {
    let mut site = Site::start(&[Keys::Software; 2])?;
    let kept = kept(&site, 0, 3, 1)?;
    for batch in 0..40 {
        let document = format!("more {batch}");
        site.seal(0, &document, "sealed")?;
    }
    site.mirrored(0, "the last", 1)?;
    let size = site.boxes[0].log_size()?;
    site.boxes[0].sealer.kill()?;
    lose_logs(&site.boxes[0])?;
    let identity = std::fs::read(site.boxes[0].state().join("identity.json"))?;
    let mut begun = false;
    for kill in 0..rounds(12, 200) {
        let mut command = site.boxes[0].command(&["restore", "--from-peers", "--reason", REASON])?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Denser towards the end, where entries are stored and the log begins.
        std::thread::sleep(Duration::from_millis(30 + (kill as u64 * 67) % 900));
        child.kill()?;
        child.wait()?;
        begun = std::fs::read(site.boxes[0].state().join("identity.json"))? != identity;
        if begun {
            break;
        }
    }
    if !begun {
        done(restore(&site.boxes[0], &[])?)?;
    }
    site.boxes[0].sealer.start()?;
    let (entries, _) = served(&site.boxes[0], &site.cards[0])?;
    assert!(entries.len() as u64 >= size, "{} of {size}", entries.len());
    for (document, seal) in &kept {
        assert!(entries.contains(&seal.entry), "{document} is lost");
    }
    let said = successions(&site.boxes[0])?;
    assert_eq!((said.len(), said[0].head.size), (1, entries.len() as u64));
    site.boxes[0].sealer.stop()?;
    site.boxes[0].fsck()?;
    Ok(())
}

#[test]
fn g9_an_older_disk_is_completed_and_one_with_another_history_is_refused() -> Result<()> {
    let mut site = Site::start(&[Keys::Software; 2])?;
    site.mirrored(0, "before the copy", 1)?;
    site.boxes[0].sealer.stop()?;
    let older = site.boxes[0].directory().join("older");
    let copied = Command::new("cp").arg("-a").arg(site.boxes[0].state()).arg(&older).status()?;
    ensure!(copied.success());
    site.boxes[0].sealer.start()?;
    let last = site.mirrored(0, "after the copy", 1)?;
    site.boxes[0].sealer.kill()?;

    let back = |rig: &Rig| -> Result<()> {
        std::fs::remove_dir_all(rig.state())?;
        let copied = Command::new("cp").arg("-a").arg(&older).arg(rig.state()).status()?;
        ensure!(copied.success());
        Ok(())
    };
    // The older disk ran on where it heard nobody.
    back(&site.boxes[0])?;
    site.boxes[0].run(&["peers", "remove", site.origin(1)])?;
    site.boxes[0].sealer.start()?;
    for round in 0..12 {
        site.seal(0, &format!("another history {round}"), "sealed")?;
    }
    site.boxes[0].sealer.stop()?;
    site.introduce(0, 1)?;
    let forked = restore(&site.boxes[0], &[])?;
    assert!(!forked.status.success() && said(&forked).contains("forked"), "{}", said(&forked));
    assert!(
        !site.boxes[0]
            .state()
            .join("mirrors")
            .join(sha256(&[site.origin(0).as_bytes()]).to_string())
            .exists()
    );

    back(&site.boxes[0])?;
    site.boxes[0].sealer.start_unready()?;
    assert_eq!(site.status(0)?["condition"]["state"], "rollback-suspected");
    site.boxes[0].sealer.kill()?;
    done(restore(&site.boxes[0], &[])?)?;
    site.boxes[0].sealer.start()?;
    let (entries, _) = served(&site.boxes[0], &site.cards[0])?;
    let wanted = last["leafHash"].as_str().context("a leaf hash")?;
    assert!(entries.iter().any(|entry| leaf_hash(entry).to_string() == wanted));
    assert_eq!(site.seal(0, "in the new log", "sealed")?.status, 201);
    Ok(())
}

#[test]
fn g1_a_box_that_takes_the_place_of_a_lost_one_holds_its_log() -> Result<()> {
    // The third is new: the second one and it know each other, and nobody has told it of the first.
    let mut site = Site::create(&[Keys::Software; 3])?;
    for (one, other) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        site.introduce(one, other)?;
    }
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    let kept = kept(&site, 0, 5, 1)?;
    site.boxes[0].sealer.kill()?;
    std::fs::remove_dir_all(site.boxes[0].state())?;
    let without_keys = restore(&site.boxes[0], &[])?;
    assert!(
        !without_keys.status.success() && said(&without_keys).contains("identity.json"),
        "{}",
        said(&without_keys)
    );

    let lost = site.boxes[2].file("lost.card");
    site.boxes[1].run(&["peers", "card", "--of", site.origin(0), "--out", lost.to_str().unwrap()])?;
    site.boxes[2].sealer.stop()?;
    let of =
        |fingerprint: &str| restore(&site.boxes[2], &["--log", "lost.card", "--fingerprint", fingerprint]);
    let wrong = of(&site.cards[1].fingerprint())?;
    assert!(!wrong.status.success() && said(&wrong).contains("fingerprint is another"), "{}", said(&wrong));
    let words = done(of(&site.cards[0].fingerprint())?)?;
    assert!(words.contains("names it"), "{words}");
    site.boxes[2].sealer.start()?;
    until("it is connected", || Ok(site.neighbour(2, 1)?["connected"] == true))?;
    let (entries, note) = served(&site.boxes[2], &site.cards[0])?;
    for (document, seal) in &kept {
        assert!(entries.contains(&seal.entry), "{document} is lost");
    }
    assert!(site.cards[1].cosigner(Cosigner::Mirror).cosignature(&note)?.is_some());
    let said = successions(&site.boxes[2])?;
    assert_eq!(
        (said.len(), said[0].cause, said[0].predecessor.as_str()),
        (1, Cause::Replaced, site.origin(0))
    );
    site.mirrored(2, "its own log goes on", 1)?;
    Ok(())
}
