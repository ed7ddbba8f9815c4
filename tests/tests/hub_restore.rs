//! A box whose disk is gone and that has no neighbour goes on from a hub's archive: the old log comes back whole, and the new
//! one says where it left off.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::{leaf_hash, sha256};
use bulla_formats::merkle::Frontier;
use bulla_formats::note::{SignedNote, parse_checkpoint_text};
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::hub::HubRig;
use bulla_tests::rig::site::entries;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use std::path::Path;
use std::process::{Command, Output};

const REASON: &str = "the branch burned";

/// A box that could have neighbours and has none, and whose backups `recipient` can open.
fn lonely(keys: Keys, recipient: Option<&str>) -> Result<Rig> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let backup = recipient.map_or_else(String::new, |key| format!("[backup]\nrecipients = [{key:?}]\n"));
    let extra = format!("[peers]\nlisten = [\"/ip4/127.0.0.1/tcp/{port}\"]\nmdns = false\n{backup}");
    let residency = if keys == Keys::Tpm { "tpm-endorsed-ram" } else { "software" };
    Rig::start_with(&RigOptions { keys, residency, extra: &extra, ..RigOptions::default() })
}

fn seals(rig: &Rig, documents: std::ops::Range<u32>) -> Result<Vec<(String, SealFile)>> {
    documents
        .map(|number| {
            let document = format!("document {number}");
            let answer = rig.client(Role::Scanner).seal(document.as_bytes())?;
            ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
            Ok((document, answer.seal()?))
        })
        .collect()
}

fn restore(rig: &Rig, archive: &Path, more: &[&str]) -> Result<Output> {
    let archive = archive.to_str().context("a name in UTF-8")?;
    rig.try_run(&[&["restore", "--from-archive", archive, "--reason", REASON], more].concat())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn refused(output: Output, why: &str) -> Result<()> {
    let words = said(&output);
    ensure!(!output.status.success() && words.contains(why), "not {why:?}: {words}");
    Ok(())
}

/// The old log as the box serves its copy, whole and under the head that the archive had.
fn copy(rig: &Rig, origin: &str) -> Result<Vec<Vec<u8>>> {
    let client = rig.client_with(None);
    let base = format!("/mirrors/{}", sha256(&[origin.as_bytes()]));
    let answer = client.get(&format!("{base}/checkpoint"))?;
    ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
    let note = SignedNote::parse(std::str::from_utf8(&answer.body)?)?;
    let (_, size, root) = parse_checkpoint_text(&note.text)?;
    let entries = entries(&client, &base, size)?;
    let mut tree = Frontier::new();
    entries.iter().for_each(|entry| tree.append(leaf_hash(entry)));
    ensure!(tree.root() == root, "the copy is not what its head says");
    Ok(entries)
}

fn successions(rig: &Rig) -> Result<Vec<SuccessionBody>> {
    let entries = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let entries = entries.iter().map(|bytes| Ok(Entry::decode(bytes)?)).collect::<Result<Vec<_>>>()?;
    let wanted = entries.iter().filter(|entry| entry.kind() == Some(Kind::Succession));
    wanted.map(|entry| Ok(SuccessionBody::decode(&entry.content().body)?)).collect()
}

#[test]
fn g1_g2_a_box_without_disk_and_neighbours_goes_on_from_the_archive() -> Result<()> {
    let desk = tempfile::tempdir()?;
    let key = desk.path().join("backup.key");
    let made = Command::new("age-keygen").arg("-o").arg(&key).output().context("install the package age")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = std::fs::read_to_string(&key)?;
    let recipient =
        text.lines().find_map(|line| line.strip_prefix("# public key: ")).context("a public key")?;
    let mut rig = lonely(Keys::Tpm, Some(recipient))?;
    let mut kept = seals(&rig, 0..4)?;
    let origin = kept[0].1.origin.clone();
    let backup = desk.path().join("box.bulla-backup");
    std::fs::write(&backup, rig.client(Role::Operator).post("/v1/backups", &[], b"")?.body)?;
    let hub = HubRig::create(&[("branch", &origin, &[(&rig, false)])])?;
    hub.lines(&["restore", "branch", "--to", "early"], 4)?;
    hub.pull("branch")?;
    kept.extend(seals(&rig, 4..304)?);
    let archived = hub.pull("branch")?;
    hub.lines(&["restore", "branch", "--to", "lost-log"], 0)?;
    hub.lines(&["restore", "branch", "--to", "lost-log"], 2)?;
    let archive = hub.file("lost-log");
    refused(restore(&rig, &archive, &[])?, "stop the box")?;
    rig.sealer.stop()?;
    // The hub has no entry that the disk lacks.
    refused(restore(&rig, &archive, &[])?, "nothing is to be taken")?;

    // The fire. What the backup brings back are the keys, and a log that has been overtaken.
    std::fs::rename(rig.state(), rig.file("burned"))?;
    refused(restore(&rig, &archive, &[])?, "identity.json")?;
    let (from, secret) = (backup.to_str().unwrap(), key.to_str().unwrap());
    rig.run(&["restore", "--from", from, "--key", secret])?;
    // A stick with a bad block, and one that was pulled out early.
    let damaged = hub.file("lost-log/tile/entries/000");
    let genuine = std::fs::read(&damaged)?;
    let mut bent = genuine.clone();
    bent[genuine.len() / 2] ^= 1;
    std::fs::write(&damaged, &bent)?;
    refused(restore(&rig, &archive, &[])?, "")?;
    std::fs::write(&damaged, &genuine)?;
    let checkpoint = hub.file("lost-log/checkpoint");
    let head = std::fs::read(&checkpoint)?;
    std::fs::remove_file(&checkpoint)?;
    refused(restore(&rig, &archive, &[])?, "bulla-hub restore")?;
    std::fs::write(&checkpoint, &head)?;
    let words = said(&restore(&rig, &archive, &[])?);
    ensure!(words.contains("the new log is"), "{words}");

    rig.sealer.start()?;
    let old = copy(&rig, &origin)?;
    ensure!(old.len() as u64 == archived, "{} of {archived}", old.len());
    for (document, seal) in &kept {
        ensure!(old.contains(&seal.entry), "{document} is lost");
        let judged = rig.judge(seal, document.as_bytes());
        assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
    }
    let said = successions(&rig)?;
    let [one] = &said[..] else { panic!("{said:?}") };
    assert_eq!((one.predecessor.as_str(), one.cause), (origin.as_str(), Cause::LostDisk));
    let (_, size, root) = parse_checkpoint_text(&SignedNote::parse(std::str::from_utf8(&head)?)?.text)
        .map(|(origin, size, root)| (origin.to_owned(), size, root))?;
    assert_eq!((one.head.size, one.head.root()), (size, root));
    ensure!(one.reason.starts_with(REASON) && one.reason.contains("archive of a hub"), "{}", one.reason);
    let new = seals(&rig, 1_000..1_003)?;
    for (document, seal) in &new {
        assert_ne!(seal.origin, origin);
        assert_eq!(rig.judge(seal, document.as_bytes()).report.verdict, Verdict::Valid);
    }
    rig.sealer.stop()?;
    let checked = rig.fsck()?;
    ensure!(checked.contains(&format!("clean: the copy of {origin}")), "{checked}");
    // The hub takes up the new log beside the old one.
    rig.sealer.start()?;
    let both = HubRig::create(&[
        ("branch", &new[0].1.origin, &[(&rig, false)]),
        ("before", &origin, &[(&rig, true)]),
    ])?;
    ensure!(both.pull("before")? == archived, "the old log, from the box that lost it");
    Ok(())
}

#[test]
fn g1_a_new_box_holds_the_log_of_one_of_which_nothing_is_left() -> Result<()> {
    let lost = lonely(Keys::Software, None)?;
    let kept = seals(&lost, 0..3)?;
    let origin = kept[0].1.origin.clone();
    let hub = HubRig::create(&[("lost", &origin, &[(&lost, false)])])?;
    let archived = hub.pull("lost")?;
    hub.lines(&["restore", "lost", "--to", "lost-log"], 0)?;
    let trust = hub.file("lost-trust.json");
    std::fs::copy(lost.file("trust.json"), &trust)?;
    drop(lost);

    let mut new = lonely(Keys::Software, None)?;
    let first = seals(&new, 10..11)?;
    new.sealer.stop()?;
    let archive = hub.file("lost-log");
    refused(restore(&new, &archive, &[])?, "vouches")?;
    let own = new.file("trust.json");
    refused(restore(&new, &archive, &["--trust", own.to_str().unwrap()])?, "vouches")?;
    let words = said(&restore(&new, &archive, &["--trust", trust.to_str().unwrap()])?);
    ensure!(words.contains("names it"), "{words}");
    new.sealer.start()?;
    let copied = copy(&new, &origin)?;
    ensure!(copied.len() as u64 == archived && kept.iter().all(|(_, seal)| copied.contains(&seal.entry)));
    let said = successions(&new)?;
    assert_eq!(
        (said.len(), said[0].cause, said[0].predecessor.as_str()),
        (1, Cause::Replaced, origin.as_str())
    );
    let next = seals(&new, 11..12)?;
    assert_eq!(next[0].1.origin, first[0].1.origin, "its own log goes on");
    Ok(())
}
