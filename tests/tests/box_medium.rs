//! A box without neighbours and a stick that its log is copied to: whole at any moment, stated for what it is, and never
//! counted as a mirror.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::medium::MediumStatement;
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::hub::HubRig;
use bulla_tests::rig::site::until;
use bulla_tests::rig::stick::Stick;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, bulla_program};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A box with this medium.
fn create(path: &Path, more: &str) -> Result<Rig> {
    let extra = format!("[medium]\npath = {path:?}\nevery_seconds = 1\n{more}");
    Rig::create(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        extra: &extra,
        ..RigOptions::default()
    })
}

fn start(path: &Path, more: &str) -> Result<Rig> {
    let mut rig = create(path, more)?;
    rig.sealer.start()?;
    Ok(rig)
}

fn status(rig: &Rig) -> Result<Value> {
    rig.client(Role::Reader).get("/v1/status")?.json()
}

fn seal(rig: &Rig, count: usize) -> Result<()> {
    (0..count).try_for_each(|number| {
        let answer = rig.client(Role::Scanner).seal(format!("document {number}").as_bytes())?;
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
        Ok(())
    })
}

/// Waits for a state; what the status says of the medium then.
fn wait(rig: &Rig, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    let reached = until(state, || {
        last = status(rig)?["medium"].clone();
        Ok(last["state"] == state)
    });
    reached.with_context(|| format!("{last}\n{}", rig.log()))?;
    Ok(last)
}

/// Waits until the medium that is in holds the whole log.
fn holds_all(rig: &Rig) -> Result<Value> {
    let mut last = Value::Null;
    let reached = until("all of it is on the medium", || {
        last = status(rig)?;
        let here = last["medium"]["media"][0].clone();
        Ok(last["medium"]["state"] == "current" && here["here"] == true && here["size"] == last["size"])
    });
    reached.with_context(|| format!("{last}\n{}", rig.log()))?;
    Ok(last["medium"].clone())
}

/// `bulla fsck --copy` of a directory, with the box's trust file: exit code and report.
fn fsck(rig: &Rig, copy: &Path) -> Result<(i32, Value)> {
    let mut command = Command::new(bulla_program()?);
    command.arg("fsck").arg("--copy").arg(copy).arg("--json").arg("--trust").arg(rig.file("trust.json"));
    let output = command.output()?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code().context("ended by a signal")?, report))
}

/// The copied log, found clean; its entries.
fn clean(rig: &Rig, copy: &Path) -> Result<u64> {
    let (code, report) = fsck(rig, copy)?;
    ensure!(code == 0 && report["clean"] == true, "{report:#}");
    report["logs"][0]["entries"].as_u64().context("a number of entries")
}

/// Directory of the one log on a medium.
fn log_on(medium: &Path) -> Result<PathBuf> {
    let mut logs = fs::read_dir(medium.join("bulla-mirror/logs"))?;
    Ok(logs.next().context("a log")??.path())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(done.success(), "cp -a {} {}", from.display(), to.display());
    Ok(())
}

#[test]
fn a_lone_box_keeps_its_log_on_a_medium_and_says_no_more_than_that() -> Result<()> {
    let disk = Disk::new(DiskKind::Ext4, 32 << 20)?;
    let mut rig = start(&disk.mount_point(), "")?;
    seal(&rig, 300)?;
    let facts = holds_all(&rig)?;
    let (id, size) = (facts["id"].as_str().unwrap().to_owned(), facts["media"][0]["size"].as_u64().unwrap());
    assert_eq!((clean(&rig, &disk.mount_point())?, facts["fileSystem"].as_str()), (size, Some("ext4")));
    // It is no mirror: nobody waits for it, and nothing counts it.
    let path = "/v1/seals?wait=mirrored(1)&deadlineSeconds=1";
    let answer = rig.client(Role::Scanner).post(path, &[("Content-Type", "text/plain")], b"alone")?.json()?;
    assert_eq!(answer["waited"], "no-neighbours", "{answer}");
    assert_eq!(answer["facts"], serde_json::json!(["sealed"]));
    assert!(status(&rig)?["peers"].is_null());
    let metrics = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    for line in [
        "bulla_medium_state{state=\"current\"} ",
        "bulla_medium_state{state=\"absent\"} 0",
        "bulla_medium_size ",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }

    // What is stated, signed by the log key, is what is there. Nothing unfilled of before is left behind.
    holds_all(&rig)?;
    rig.sealer.stop()?;
    let log = log_on(&disk.mount_point())?;
    let (_, report) = fsck(&rig, &disk.mount_point())?;
    assert_eq!(report["logs"][0]["medium"], id, "{report}");
    let statement = disk.mount_point().join("bulla-mirror/statements").join(log.file_name().unwrap());
    let stated = MediumStatement::parse(
        fs::read_to_string(&statement)?
            .split("\n\n")
            .next()
            .map(|text| format!("{text}\n"))
            .unwrap()
            .as_str(),
    )?;
    assert_eq!(
        (stated.medium.to_string(), Some(stated.size)),
        (id.clone(), report["logs"][0]["entries"].as_u64())
    );
    let unfilled: Vec<_> = fs::read_dir(log.join("tile/entries"))?
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "p"))
        .collect();
    let kept: usize = unfilled.iter().map(|path| fs::read_dir(path).map_or(0, Iterator::count)).sum();
    assert_eq!(kept, 1, "{unfilled:?}");

    // Any damage on it is found by who checks it, and mended by the box when it is in again.
    let whole = tempfile::tempdir()?;
    copy(&disk.mount_point().join("bulla-mirror"), whole.path())?;
    let name = log.file_name().unwrap();
    for file in ["tile/0/000", "tile/entries/000", "checkpoint", "origin"] {
        let path = whole.path().join("bulla-mirror/logs").join(name).join(file);
        let before = fs::read(&path)?;
        let mut bent = before.clone();
        bent[before.len() / 2] ^= 1;
        fs::write(&path, bent)?;
        let (code, report) = fsck(&rig, whole.path())?;
        assert!(code == 1 && report["clean"] == false, "{file}: {report}");
        fs::remove_file(&path)?;
        assert_eq!(fsck(&rig, whole.path())?.0, 1, "{file}");
        fs::write(&path, before)?;
    }
    assert!(clean(&rig, whole.path())? >= size);
    fs::remove_file(log.join("tile/0/000"))?;
    let bundle = fs::read(log.join("tile/entries/000"))?;
    fs::write(log.join("tile/entries/000"), &bundle[..bundle.len() / 2])?;
    assert_eq!(fsck(&rig, &disk.mount_point())?.0, 1);
    rig.sealer.start()?;
    let facts = holds_all(&rig)?;
    assert_eq!(
        (facts["id"].as_str(), facts["media"].as_array().unwrap().len()),
        (Some(id.as_str()), 1),
        "{facts}"
    );
    clean(&rig, &disk.mount_point())?;

    // It has the form of a hub's archive: each one's copy is judged by the other one's program.
    let origin = stated.origin.as_str();
    let hub = HubRig::create(&[("lone", origin, &[(&rig, false)])])?;
    hub.pull("lone")?;
    rig.sealer.stop()?;
    clean(&rig, &hub.file("archive"))?;
    fs::remove_dir_all(hub.archived(origin))?;
    copy(&log, &hub.archived(origin))?;
    hub.lines(&["fsck"], 0)?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn pulled_out_full_read_only_or_swapped_nothing_is_lost_and_all_is_said() -> Result<()> {
    let (mut first, second) = (Disk::new(DiskKind::Ext4, 16 << 20)?, Disk::new(DiskKind::Ext4, 16 << 20)?);
    // The box knows one place; which disk is there is a matter of a mount.
    let place = tempfile::tempdir()?;
    let plug = |disk: &Disk| -> Result<()> {
        let done = Command::new("mount").arg("--bind").arg(disk.mount_point()).arg(place.path()).status()?;
        ensure!(done.success());
        Ok(())
    };
    let unplug = || -> Result<()> {
        let done = Command::new("umount").arg("--lazy").arg(place.path()).status()?;
        ensure!(done.success());
        Ok(())
    };
    let mut rig = start(place.path(), "")?;
    seal(&rig, 3)?;
    // Nothing is mounted: nothing is written, least of all on the box's own disk.
    let facts = wait(&rig, "absent")?;
    assert!(
        facts["trouble"].as_str().unwrap().contains("nothing is mounted")
            && facts["media"] == serde_json::json!([])
    );
    assert_eq!(fs::read_dir(place.path())?.count(), 0);

    plug(&first)?;
    let one = holds_all(&rig)?["id"].clone();
    // Out, and another one in: both are known, each for what it holds.
    unplug()?;
    wait(&rig, "absent")?;
    seal(&rig, 300)?;
    plug(&second)?;
    let facts = holds_all(&rig)?;
    assert!(facts["media"].as_array().unwrap().len() == 2 && facts["id"] != one, "{facts}");
    assert!(facts["media"][1]["id"] == one && facts["media"][1]["here"] == false, "{facts}");
    let behind = facts["media"][1]["size"].as_u64().unwrap();
    assert!(behind < facts["media"][0]["size"].as_u64().unwrap());
    assert_eq!(clean(&rig, &first.mount_point())?, behind);
    unplug()?;
    wait(&rig, "absent")?;

    // Its room is gone.
    let held = clean(&rig, &second.mount_point())?;
    let mut balloon = second.balloon()?;
    balloon.fill()?;
    seal(&rig, 300)?;
    plug(&second)?;
    let facts = wait(&rig, "full")?;
    assert!(facts["trouble"].as_str().unwrap().contains("no room"), "{facts}");
    assert_eq!(clean(&rig, &second.mount_point())?, held, "what it held stays");
    seal(&rig, 1)?;
    balloon.deflate()?;
    holds_all(&rig)?;
    assert!(clean(&rig, &second.mount_point())? > held);
    unplug()?;
    wait(&rig, "absent")?;

    // It takes nothing any more, and then fails while it is written.
    first.turn_read_only()?;
    plug(&first)?;
    wait(&rig, "read-only")?;
    assert_eq!(clean(&rig, &first.mount_point())?, behind);
    unplug()?;
    wait(&rig, "absent")?;
    first.repair()?;
    plug(&first)?;
    holds_all(&rig)?;
    let held = clean(&rig, &first.mount_point())?;
    first.cut_power()?;
    seal(&rig, 20)?;
    let facts = wait(&rig, "failed")?;
    assert!(facts["trouble"].as_str().unwrap().contains("pulled out"), "{facts}");
    seal(&rig, 1)?;
    unplug()?;
    wait(&rig, "absent")?;
    first.power_on()?;
    assert!(clean(&rig, &first.mount_point())? >= held, "every head that it had is whole");
    plug(&first)?;
    holds_all(&rig)?;
    clean(&rig, &first.mount_point())?;
    // What is known of the media outlives the program.
    rig.sealer.stop()?;
    unplug()?;
    rig.sealer.start()?;
    let facts = wait(&rig, "absent")?;
    assert_eq!(facts["media"].as_array().unwrap().len(), 2, "{facts}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn g2_a_medium_that_knows_more_than_the_disk_stops_an_older_copy() -> Result<()> {
    let disk = Disk::new(DiskKind::Ext4, 16 << 20)?;
    let mut rig = start(&disk.mount_point(), "")?;
    seal(&rig, 2)?;
    holds_all(&rig)?;
    rig.sealer.stop()?;
    let older = rig.directory().join("older");
    copy(&rig.state(), &older)?;
    rig.sealer.start()?;
    seal(&rig, 2)?;
    holds_all(&rig)?;
    rig.sealer.stop()?;
    let held = clean(&rig, &disk.mount_point())?;
    fs::remove_dir_all(rig.state())?;
    copy(&older, &rig.state())?;
    rig.sealer.start_unready()?;
    let said = status(&rig)?;
    assert_eq!(said["condition"]["state"], "rollback-suspected", "{said}\n{}", rig.log());
    assert!(said["condition"]["finding"].as_str().unwrap().contains("the medium "), "{said}");
    assert_eq!(wait(&rig, "ahead")?["state"], "ahead");
    let refused = rig.client(Role::Scanner).seal(b"on an old disk")?;
    assert_eq!((refused.status, refused.problem()?.as_str()), (503, "rollback-suspected"));
    rig.sealer.kill()?;
    assert_eq!(clean(&rig, &disk.mount_point())?, held, "the medium is not touched");
    Ok(())
}

#[test]
fn a_stick_with_fat_is_read_by_another_computer_and_a_strange_one_is_not_written() -> Result<()> {
    let mut stick = Stick::new()?;
    let mut rig = start(&stick.mount_point(), "")?;
    seal(&rig, 270)?;
    let facts = holds_all(&rig)?;
    let size = facts["media"][0]["size"].as_u64().unwrap();
    assert!(clean(&rig, &stick.mount_point())? >= size);
    holds_all(&rig)?;
    rig.sealer.stop()?;
    stick.pull_out()?;
    let desk = tempfile::tempdir()?;
    stick.copy_out("bulla-mirror", desk.path())?;
    assert!(clean(&rig, desk.path())? >= size);

    // Another box is told to use one medium only.
    let other = Disk::new(DiskKind::Ext4, 16 << 20)?;
    let wanted = format!("id = {}\n", facts["id"]);
    let strict = start(&other.mount_point(), &wanted)?;
    let facts = wait(&strict, "foreign")?;
    assert!(facts["trouble"].as_str().unwrap().contains("medium.id"), "{facts}");
    assert!(!other.mount_point().join("bulla-mirror").exists());
    Ok(())
}
