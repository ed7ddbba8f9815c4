//! Backups of a real box: stock tools open them, a restored box goes on where nothing was lost, and is stopped by the
//! rollback rule where something was.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::backup::Manifest;
use bulla_formats::hash::sha256;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::{Keys, Response, Rig, RigOptions, Role, bulla_program};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A key pair made by stock age-keygen: the file with the secret key, and the public key.
fn age_key(directory: &Path, name: &str) -> Result<(PathBuf, String)> {
    let file = directory.join(name);
    let made = Command::new("age-keygen").arg("-o").arg(&file).output();
    let made = made.context("age-keygen cannot be started; install the package age")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = fs::read_to_string(&file)?;
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
    Ok((file, public.context("age-keygen writes the public key as a comment")?.to_owned()))
}

/// Options of a box whose backups `recipient` can open. Leaks a line of configuration; the process is a test's.
fn options(keys: Keys, recipient: &str) -> RigOptions<'static> {
    let extra = format!("[queue]\nwhen = [\"locked\"]\n[backup]\nrecipients = [{recipient:?}]\n");
    let extra: &'static str = Box::leak(extra.into_boxed_str());
    let residency = if keys == Keys::Tpm { "tpm-endorsed-ram" } else { "software" };
    RigOptions { keys, residency, extra, ..RigOptions::default() }
}

fn start(keys: Keys) -> Result<(Rig, PathBuf, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let (key, recipient) = age_key(directory.path(), "backup.key")?;
    Ok((Rig::start_with(&options(keys, &recipient))?, key, directory))
}

fn seal(rig: &Rig, key: &str, document: &str) -> Result<SealFile> {
    let headers = [("Content-Type", "text/plain"), ("Idempotency-Key", key), ("Bulla-User", "clerk")];
    let answer = rig.client(Role::Scanner).post("/v1/seals", &headers, document.as_bytes())?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    answer.seal()
}

fn download(rig: &Rig, to: &Path) -> Result<Response> {
    let answer = rig.client(Role::Operator).post("/v1/backups", &[], b"")?;
    ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
    fs::write(to, &answer.body)?;
    Ok(answer)
}

/// Moves the state directory away: the disk is gone.
fn lose_disk(rig: &Rig) -> Result<()> {
    let mut number = 0;
    let away = loop {
        let path = rig.file(&format!("lost-{number}"));
        if !path.exists() {
            break path;
        }
        number += 1;
    };
    Ok(fs::rename(rig.state(), away)?)
}

fn try_restore(rig: &Rig, from: &Path, key: &Path) -> Result<Output> {
    rig.try_run(&["restore", "--from", from.to_str().unwrap(), "--key", key.to_str().unwrap()])
}

fn restore(rig: &Rig, from: &Path, key: &Path) -> Result<String> {
    let output = try_restore(rig, from, key)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn condition(rig: &Rig) -> Result<serde_json::Value> {
    Ok(rig.client(Role::Operator).get("/v1/status")?.json()?["condition"].clone())
}

#[test]
fn stock_age_and_tar_open_a_backup_and_its_manifest_is_true() -> Result<()> {
    let (mut rig, key, directory) = start(Keys::Tpm)?;
    for number in 0..20 {
        seal(&rig, &format!("k{number}"), &format!("document {number}"))?;
    }
    let backup = directory.path().join("box.bulla-backup");
    download(&rig, &backup)?;
    let out = directory.path().join("out");
    fs::create_dir(&out)?;
    let opened = Command::new("sh")
        .arg("-c")
        .arg("age --decrypt -i \"$1\" \"$2\" | tar -x -C \"$3\"")
        .args([Path::new("sh"), &key, &backup, &out])
        .output()?;
    ensure!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    let text = fs::read_to_string(out.join("backup.json"))?;
    let manifest = Manifest::decode(text.as_bytes())?;
    let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    for wanted in ["identity.json", "clients.json", "ca.pem", "keys/keys.json"] {
        assert!(names.contains(&wanted), "{wanted} is not in {names:?}");
    }
    for ending in ["openings.redb", "opening-keys.redb", "control.redb", "seg-0000000000000000.redb"] {
        assert!(names.iter().any(|name| name.ends_with(ending)), "{ending} is not in {names:?}");
    }
    for file in &manifest.files {
        let bytes = fs::read(out.join(&file.name))?;
        assert_eq!((bytes.len() as u64, sha256(&[&bytes])), (file.bytes, file.sha256), "{}", file.name);
    }
    let origin = seal(&rig, "last", "the last")?;
    assert_eq!(manifest.origin, origin.origin);
    let log_key = bulla_formats::enrolment::Enrolment::decode(&origin.enrolment)?.content.log_key;
    Manifest::verify(&text, &log_key, &fs::read(out.join("backup.sig"))?)?;
    // Who could open it is in the log for ever, and nobody without a key reads anything in the file.
    let raw = fs::read(&backup)?;
    for secret in ["scanner-1", "clerk", "seg-0000", "backup/v1"] {
        assert!(!raw.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is readable");
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn g2_a_box_that_went_on_after_its_backup_is_not_set_back() -> Result<()> {
    let (mut rig, key, directory) = start(Keys::Tpm)?;
    let first = seal(&rig, "k1", "before the backup")?;
    let backup = directory.path().join("online.bulla-backup");
    download(&rig, &backup)?;
    // Not even one attestation window passes: the counter has moved with the backup itself.
    let second = seal(&rig, "k2", "after the backup")?;
    rig.sealer.kill()?;
    lose_disk(&rig)?;
    let said = restore(&rig, &backup, &key)?;
    assert!(said.contains("rollback-suspected"), "{said}");
    rig.sealer.start_unready()?;
    assert_eq!(condition(&rig)?["state"], "rollback-suspected");
    assert_eq!(rig.client(Role::Scanner).seal(b"on the restored disk")?.problem()?, "rollback-suspected");
    let found = rig.client(Role::Reader).post("/v1/verify", &[], b"before the backup")?.json()?;
    assert_eq!(found["known"], true, "what the backup holds can be looked up: {found}");
    rig.sealer.kill()?;
    rig.run(&["succeed", "--reason", "the disk burned; restored from last night's backup"])?;
    rig.sealer.start()?;
    let after = seal(&rig, "k3", "in the new log")?;
    assert_ne!(after.origin, first.origin);
    for (seal, document) in
        [(&first, "before the backup"), (&second, "after the backup"), (&after, "in the new log")]
    {
        assert_eq!(rig.judge(seal, document.as_bytes()).report.verdict, Verdict::Valid, "{document}");
    }
    // The log that was ended is in the next backup too.
    let again = directory.path().join("again.bulla-backup");
    download(&rig, &again)?;
    rig.sealer.stop()?;
    lose_disk(&rig)?;
    restore(&rig, &again, &key)?;
    let logs = fs::read_dir(rig.state())?.filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("log-"))
    });
    assert_eq!(logs.count(), 2);
    Ok(())
}

#[test]
fn g1_a_backup_that_was_the_last_word_continues_the_same_log() -> Result<()> {
    let (mut rig, key, directory) = start(Keys::Tpm)?;
    let mut seals = Vec::new();
    for number in 0..10 {
        let document = format!("document {number}");
        seals.push((seal(&rig, &format!("k{number}"), &document)?, document));
    }
    rig.sealer.stop()?;
    let backup = directory.path().join("offline.bulla-backup");
    rig.run(&["backup", "--out", backup.to_str().unwrap()])?;
    let twice = rig.try_run(&["backup", "--out", backup.to_str().unwrap()])?;
    assert!(!twice.status.success(), "a backup never replaces a file");
    lose_disk(&rig)?;
    restore(&rig, &backup, &key)?;
    rig.fsck()?;
    rig.sealer.start()?;
    assert_eq!(condition(&rig)?["state"], "sealing");
    let headers = [("Content-Type", "text/plain"), ("Idempotency-Key", "k3"), ("Bulla-User", "clerk")];
    let replay = rig.client(Role::Scanner).post("/v1/seals", &headers, b"document 3")?;
    assert_eq!((replay.status, &replay.json()?["replayed"]), (200, &serde_json::Value::Bool(true)));
    let next = seal(&rig, "new", "after the restore")?;
    assert_eq!(next.origin, seals[0].0.origin, "the same log goes on");
    for (seal, document) in &seals {
        assert_eq!(rig.judge(seal, document.as_bytes()).report.verdict, Verdict::Valid);
    }
    assert!(rig.log().contains("moved past the backup"), "{}", rig.log());
    // From here on the backup is an older disk.
    rig.sealer.kill()?;
    lose_disk(&rig)?;
    restore(&rig, &backup, &key)?;
    rig.sealer.start_unready()?;
    assert_eq!(condition(&rig)?["state"], "rollback-suspected");
    Ok(())
}

/// Copies of neighbours' logs are in no backup, and so is not what the box cosigned of them.
#[test]
fn g9_a_restored_box_does_not_cosign_with_keys_whose_word_it_has_forgotten() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (key, recipient) = age_key(directory.path(), "backup.key")?;
    let backups = options(Keys::Tpm, &recipient);
    let extra = format!("{}[peers]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\n", backups.extra);
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..backups })?;
    let card = |rig: &Rig| -> Result<PeerCard> {
        rig.run(&["peers", "card", "--out", "peer.card"])?;
        Ok(PeerCard::decode(&fs::read(rig.file("peer.card"))?)?)
    };
    let before = card(&rig)?;
    seal(&rig, "k1", "before the backup")?;
    rig.sealer.stop()?;
    let backup = directory.path().join("offline.bulla-backup");
    rig.run(&["backup", "--out", backup.to_str().unwrap()])?;
    lose_disk(&rig)?;
    restore(&rig, &backup, &key)?;
    assert!(!rig.state().join("mirrors").exists());
    rig.sealer.start()?;
    assert_eq!(condition(&rig)?["state"], "sealing", "it was the last word, and the same log goes on");
    let after = card(&rig)?;
    assert_ne!(before.content().witness_key, after.content().witness_key);
    assert_ne!(before.content().mirror_key, after.content().mirror_key);
    assert_eq!(before.content().transport_key, after.content().transport_key);
    assert_eq!(before.fingerprint(), after.fingerprint());
    assert!(after.replaces(&before));
    rig.sealer.stop()?;
    rig.sealer.start()?;
    assert_eq!(card(&rig)?.bytes(), after.bytes(), "once");
    Ok(())
}

/// A 202 is a promise, and the disk may go before it is kept.
#[test]
fn g3_what_was_queued_when_the_backup_was_taken_is_sealed_once_after_the_restore() -> Result<()> {
    let (mut rig, key, directory) = start(Keys::Tpm)?;
    let operate = |rig: &Rig, path: &str| -> Result<()> {
        let answer = rig.client(Role::Operator).post(path, &[], br#"{"reason":"a test"}"#)?;
        ensure!(answer.status == 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        Ok(())
    };
    operate(&rig, "/v1/lock")?;
    let post = |rig: &Rig, number: u64| {
        let idempotency = format!("k{number}");
        let headers = [("Content-Type", "text/plain"), ("Idempotency-Key", idempotency.as_str())];
        rig.client(Role::Scanner).post("/v1/seals", &headers, format!("document {number}").as_bytes())
    };
    let mut promised = Vec::new();
    for number in 0..3 {
        let answer = post(&rig, number)?;
        ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
        promised.push(answer.location.context("a 202 says where to ask")?);
    }
    rig.sealer.stop()?;
    let backup = directory.path().join("locked.bulla-backup");
    rig.run(&["backup", "--out", backup.to_str().unwrap()])?;
    lose_disk(&rig)?;
    restore(&rig, &backup, &key)?;
    rig.fsck()?;
    rig.sealer.start_unready()?;
    assert_eq!(condition(&rig)?["state"], "locked", "the lock is part of the state");
    operate(&rig, "/v1/unlock")?;
    let (scanner, mut ids) = (rig.client(Role::Scanner), Vec::new());
    for location in &promised {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let sealed = loop {
            let state = scanner.get(location)?.json()?;
            if state["state"] != "queued" {
                break state;
            }
            ensure!(std::time::Instant::now() < until, "{state}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        ensure!(sealed["state"] == "sealed", "{sealed}");
        ids.push(sealed["seal"].as_str().context("a sealed request names its seal")?.to_owned());
    }
    let index = |id: &String| id.split('-').next().and_then(|index| index.parse::<u64>().ok());
    assert!(ids.is_sorted_by_key(index), "out of order: {ids:?}");
    for (number, id) in (0..).zip(&ids) {
        let again = post(&rig, number)?;
        let body = again.json()?;
        assert_eq!((again.status, body["id"].as_str()), (200, Some(id.as_str())), "{body}");
    }
    Ok(())
}

#[test]
fn g2_a_box_without_tpm_asks_an_operator_after_a_restore() -> Result<()> {
    let (mut rig, key, directory) = start(Keys::Software)?;
    seal(&rig, "k", "a document")?;
    let backup = directory.path().join("software.bulla-backup");
    download(&rig, &backup)?;
    rig.sealer.stop()?;
    lose_disk(&rig)?;
    restore(&rig, &backup, &key)?;
    rig.sealer.start_unready()?;
    let found = condition(&rig)?;
    assert_eq!(found["state"], "rollback-suspected");
    assert!(found["finding"].as_str().unwrap().contains("backup"), "{found}");
    rig.sealer.kill()?;
    rig.run(&["succeed", "--reason", "restored"])?;
    rig.sealer.start()?;
    seal(&rig, "k", "a document")?;
    Ok(())
}

#[test]
fn what_is_not_a_whole_backup_of_this_box_changes_nothing() -> Result<()> {
    let (mut rig, key, directory) = start(Keys::Tpm)?;
    seal(&rig, "k", "a document")?;
    let backup = directory.path().join("good.bulla-backup");
    download(&rig, &backup)?;
    rig.sealer.stop()?;

    let refused = try_restore(&rig, &backup, &key)?;
    assert!(!refused.status.success(), "an existing box is never overwritten");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("empty state directory"));
    let (stranger, _) = age_key(directory.path(), "stranger.key")?;
    lose_disk(&rig)?;
    let good = fs::read(&backup)?;
    let bad = directory.path().join("bad.bulla-backup");
    let mut cases: Vec<(String, Vec<u8>)> =
        vec![("empty".into(), Vec::new()), ("text".into(), b"hello".to_vec())];
    for keep in [1, 100, 200, good.len() / 2, good.len() - 1] {
        cases.push((format!("cut at {keep}"), good[..keep].to_vec()));
    }
    for at in (0..good.len()).step_by(good.len() / 23) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        cases.push((format!("flipped at {at}"), bytes));
    }
    cases.push(("with something after it".into(), [good.as_slice(), b"x"].concat()));
    for (what, bytes) in cases {
        fs::write(&bad, bytes)?;
        let refused = try_restore(&rig, &bad, &key)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{what}: {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
        assert_eq!(fs::read_dir(rig.state())?.count(), 0, "{what}: something was left behind");
    }
    let refused = try_restore(&rig, &backup, &stranger)?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not open"), "another key");
    // Another archive to the same recipient, as somebody without the log key would make it.
    let forged = directory.path().join("forged.bulla-backup");
    let forge = Command::new("sh")
        .arg("-c")
        .arg(
            "mkdir \"$3\" && age --decrypt -i \"$1\" \"$2\" | tar -x -C \"$3\" && cd \"$3\" && echo '[]' > clients.json \
             && tar -c $(sed 's/\"name\":\"/\\n@/g' backup.json | sed -n 's/^@\\([^\"]*\\)\".*/\\1/p') backup.json backup.sig \
             | age --encrypt -i \"$1\" -o \"$4\"",
        )
        .args([Path::new("sh"), &key, &backup, &directory.path().join("work"), &forged])
        .output()?;
    ensure!(forge.status.success(), "{}", String::from_utf8_lossy(&forge.stderr));
    let refused = try_restore(&rig, &forged, &key)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("manifest"), "{said}");

    // On another TPM the keys do not open; the files can still be laid out and checked.
    let (_, public) = age_key(directory.path(), "other.key")?;
    let other = Rig::create(&options(Keys::Tpm, &public))?;
    lose_disk(&other)?;
    let refused = try_restore(&other, &backup, &key)?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--without-keys"));
    let arguments =
        ["restore", "--from", backup.to_str().unwrap(), "--key", key.to_str().unwrap(), "--without-keys"];
    other.run(&arguments)?;
    other.fsck()?;

    // An interrupted restore says so at start, and is begun anew.
    fs::create_dir_all(rig.state().join("restoring/keys"))?;
    fs::write(rig.state().join("restoring/keys/half"), "x")?;
    fs::create_dir_all(rig.state().join("keys"))?;
    let refused = rig.try_run(&["run"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("restore was interrupted"));
    restore(&rig, &backup, &key)?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn the_command_line_takes_a_backup_of_a_running_box() -> Result<()> {
    let (mut rig, key, directory) = start(Keys::Software)?;
    let token = directory.path().join("token");
    fs::write(&token, rig.token(Role::Operator))?;
    let backup = directory.path().join("cli.bulla-backup");
    let take = |out: &Path| {
        Command::new(bulla_program().unwrap())
            .args(["backup", "--box", &rig.sealer.url(), "--ca"])
            .arg(rig.file("ca.pem"))
            .arg("--token-file")
            .arg(&token)
            .arg("--out")
            .arg(out)
            .output()
    };
    let taken = take(&backup)?;
    ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(take(&backup)?.status.code(), Some(2), "a backup never replaces a file");
    let running = rig.try_run(&["backup", "--out", directory.path().join("x").to_str().unwrap()])?;
    assert!(String::from_utf8_lossy(&running.stderr).contains("while the box runs"), "{running:?}");
    fs::write(&token, rig.token(Role::Scanner))?;
    assert_eq!(take(&directory.path().join("y"))?.status.code(), Some(7), "a scanner takes no backups");
    rig.sealer.stop()?;
    lose_disk(&rig)?;
    restore(&rig, &backup, &key)?;
    rig.fsck()?;
    // Without a recipient nobody could open it.
    let plain = Rig::start_with(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        ..RigOptions::default()
    })?;
    let refused = plain.client(Role::Operator).post("/v1/backups", &[], b"")?;
    assert_eq!((refused.status, refused.problem()?.as_str()), (409, "backup-unavailable"));
    Ok(())
}
