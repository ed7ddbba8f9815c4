//! What people hold in their hands after an outage: manifests on paper and on a stick, seals, and other people's tools.

use anyhow::{Context, Result, ensure};
use bulla_formats::report::{Fact, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::outage::{
    LOOK, QUICK, anchors, id_of, seal_now, software, start, wait_anchored, wait_for, wait_mode,
};
use bulla_tests::rig::stick::Stick;
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Rig, RigOptions, Role, bulla_program};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

fn down(tsa: &Stamps) -> Result<()> {
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })
}

/// Runs a program in this directory; its exit code and what it printed.
fn run(program: impl AsRef<Path>, directory: &Path, arguments: &[&str]) -> Result<(i32, String, String)> {
    let program = program.as_ref();
    let output = Command::new(program).current_dir(directory).args(arguments).output();
    let output = output.with_context(|| format!("{} does not start", program.display()))?;
    let code =
        output.status.code().with_context(|| format!("{} was ended by a signal", program.display()))?;
    Ok((code, String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

fn bulla(directory: &Path, arguments: &[&str]) -> Result<(i32, String, String)> {
    run(bulla_program()?, directory, arguments)
}

/// Names in a directory, sorted.
fn names(directory: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut names: Vec<_> =
        files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The path of the manifest of this phase, without its extension.
fn manifest(directory: &Path, phase: &str) -> Result<PathBuf> {
    let all = names(directory)?;
    let name = all.iter().find(|name| name.ends_with(&format!("{phase}.der")));
    let name = name.with_context(|| format!("no {phase} in {all:?}"))?;
    Ok(directory.join(name.trim_end_matches(".der")))
}

#[test]
fn a_manifest_survives_paper_and_a_stick() -> Result<()> {
    let stick = Disk::new(DiskKind::Ext4, 16 << 20)?;
    let tsa = Stamps::start("Operator A")?;
    let media = format!("media = [{:?}, \"/nowhere/at/all\"]\n", stick.mount_point());
    let extra = format!("{QUICK}{media}{}", anchors(&[(&tsa, LOOK)]));
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..RigOptions::default() })?;
    wait_mode(&rig, "online", PATIENCE)?;
    down(&tsa)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    ensure!(rig.client(Role::Scanner).seal(b"inside")?.status == 201);
    tsa.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    rig.sealer.stop()?;
    let own = rig.state().join("manifests");
    let (here, mut carried) = (names(&own)?, names(&stick.mount_point())?);
    carried.retain(|name| name != "lost+found");
    ensure!(here.len() == carried.len() && here.len() % 3 == 0, "{here:?} {carried:?}");
    for (name, copy) in here.iter().zip(&carried) {
        ensure!(copy.ends_with(name.as_str()), "{name} {copy}");
        ensure!(fs::read(own.join(name))? == fs::read(stick.mount_point().join(copy))?, "{name} differs");
    }
    // Whoever checks it has the trust file, and nothing of the box.
    let desk = tempfile::tempdir()?;
    fs::copy(rig.file("trust.json"), desk.path().join("trust.json"))?;
    for phase in ["open", "close"] {
        on_paper(&manifest(&stick.mount_point(), phase)?, desk.path())?;
    }
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_stick_with_fat_carries_manifests_to_another_computer() -> Result<()> {
    let mut stick = Stick::new()?;
    let tsa = Stamps::start("Operator A")?;
    let extra = format!("{QUICK}media = [{:?}]\n{}", stick.mount_point(), anchors(&[(&tsa, LOOK)]));
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..software() })?;
    for outage in 1..=2 {
        wait_mode(&rig, "online", PATIENCE)?;
        down(&tsa)?;
        // Refreshed, so that files are replaced.
        wait_for(&rig, "a few manifests", PATIENCE, |status| {
            status["outage"]["outages"] == outage
                && status["outage"]["outage"]["manifests"].as_u64() >= Some(4)
        })?;
        ensure!(rig.client(Role::Scanner).seal(b"inside")?.status == 201);
        tsa.answer(Answer::Stamp)?;
    }
    wait_mode(&rig, "online", PATIENCE)?;
    rig.sealer.stop()?;
    stick.pull_out()?;
    let (own, desk) = (rig.state().join("manifests"), tempfile::tempdir()?);
    let (here, carried) = (names(&own)?, stick.names()?);
    ensure!(here.len() == carried.len() && here.len() >= 12, "{here:?} {carried:?}");
    fs::copy(rig.file("trust.json"), desk.path().join("trust.json"))?;
    for (name, copy) in here.iter().zip(&carried) {
        let bytes = stick.read(copy)?;
        ensure!(copy.ends_with(name.as_str()) && bytes == fs::read(own.join(name))?, "{name} {copy} differ");
        if name.ends_with(".der") {
            fs::write(desk.path().join(copy), bytes)?;
            let (code, said, error) =
                bulla(desk.path(), &["manifest", "verify", copy, "--trust", "trust.json"])?;
            ensure!(code == 0, "{copy}: {said}{error}");
        }
    }
    rig.fsck()?;
    Ok(())
}

/// Prints it, reads the codes, and has both judged.
fn on_paper(manifest: &Path, desk: &Path) -> Result<()> {
    let file = |extension: &str| format!("{}.{extension}", manifest.display());
    let judge = |path: &str| bulla(desk, &["manifest", "verify", path, "--trust", "trust.json"]);
    let (code, said, error) = judge(&file("der"))?;
    ensure!(code == 0 && said.contains("covers      entries"), "{said}{error}");
    let (code, _, error) = run("pdftoppm", desk, &["-r", "300", "-gray", "-png", &file("pdf"), "page"])?;
    ensure!(code == 0, "{error}");
    let pages: Vec<String> = names(desk)?.into_iter().filter(|name| name.ends_with(".png")).collect();
    ensure!(!pages.is_empty());
    let arguments =
        [vec!["--quiet", "-Sdisable", "-Sqrcode.enable"], pages.iter().map(String::as_str).collect()];
    let (code, codes, error) = run("zbarimg", desk, &arguments.concat())?;
    ensure!(code == 0, "{error}");
    pages.iter().try_for_each(|page| fs::remove_file(desk.join(page)))?;
    fs::write(desk.join("codes.txt"), &codes)?;
    let (code, said, error) = judge("codes.txt")?;
    ensure!(code == 0, "{said}{error}");
    // The order in which somebody held the paper under the reader is of no account; a missing code is.
    let mut lines: Vec<&str> = codes.lines().collect();
    lines.reverse();
    fs::write(desk.join("reversed.txt"), lines.join("\n"))?;
    ensure!(judge("reversed.txt")?.0 == 0);
    lines.pop();
    fs::write(desk.join("less.txt"), lines.join("\n"))?;
    let (code, _, error) = judge("less.txt")?;
    ensure!(code == 2 && error.contains("codes"), "{code}: {error}");
    let json = bulla(desk, &["manifest", "verify", &file("der"), "--trust", "trust.json", "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&json.1)?;
    ensure!(json["verdict"] == "valid" && json["manifest"]["outage"] == 1, "{json:#}");
    // A changed byte, wherever it is.
    let der = fs::read(file("der"))?;
    for at in [der.len() / 5, der.len() / 2, der.len() - 100] {
        let mut changed = der.clone();
        changed[at] ^= 1;
        fs::write(desk.join("changed.der"), changed)?;
        let (code, said, error) = judge("changed.der")?;
        // Refused, or no manifest at all.
        ensure!(matches!(code, 1 | 4), "byte {at}: {code} {said}{error}");
    }
    Ok(())
}

#[test]
fn seals_of_an_outage_are_brought_up_to_date_and_strangers_agree() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let mut rig = start(&[&a, &b], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    down(&a)?;
    down(&b)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    let desk = tempfile::tempdir()?;
    let id = id_of(&rig.client(Role::Scanner).seal(b"inside")?)?;
    let path = desk.path().join("inside.seal");
    fs::write(&path, seal_now(&rig, &id)?.encode())?;
    let text = metrics(&rig)?;
    for line in
        ["bulla_mode{mode=\"emergency\"} 1", "bulla_drill 0", "bulla_authority_up{authority=\"tsa-0\"} 0"]
    {
        ensure!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
    }
    a.answer(Answer::Stamp)?;
    b.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    for file in ["ca.pem", "trust.json"] {
        fs::copy(rig.file(file), desk.path().join(file))?;
    }
    fs::write(desk.path().join("token"), rig.token(Role::Operator))?;
    let url = rig.sealer.url();
    let order = ["upgrade", "inside.seal", "--box", &url, "--ca", "ca.pem", "--token-file", "token"];
    let (code, said, error) = bulla(desk.path(), &[&order[..], &["--trust", "trust.json"]].concat())?;
    ensure!(code == 0 && (said.clone() + &error).contains("1 upgraded"), "{said}{error}");
    let seal = SealFile::decode(&fs::read(&path)?)?;
    let judged = rig.judge(&seal, b"inside").report;
    ensure!(judged.verdict == Verdict::Valid && judged.facts.contains(&Fact::Anchored), "{judged}");
    let interval = judged.interval.as_ref().context("an interval")?;
    ensure!(interval.after.is_some() && interval.after < interval.before, "{judged}");
    // What openssl says of the same.
    let (code, said, error) = bulla(desk.path(), &["inspect", "inside.seal", "--extract", "parts"])?;
    ensure!(code == 0, "{said}{error}");
    let parts = desk.path().join("parts");
    let replies: Vec<_> = names(&parts)?.into_iter().filter(|name| name.ends_with(".tsr")).collect();
    ensure!(replies.len() >= 2, "{replies:?}");
    for reply in &replies {
        let number = reply.trim_start_matches("anchor-").split('-').next().context("a number")?;
        let batch = format!("anchor-{number}-batch.bin");
        let judge = |tsa: &Stamps, data: &str| {
            let root = tsa.root_pem().to_string_lossy().into_owned();
            run("openssl", &parts, &["ts", "-verify", "-in", reply, "-data", data, "-CAfile", &root])
        };
        let accepted = [judge(&a, &batch)?, judge(&b, &batch)?].map(|(code, ..)| code == 0);
        ensure!(accepted[0] != accepted[1], "{reply}: one operator's it is, {accepted:?}");
        ensure!(judge(&a, "token.der")?.0 != 0 && judge(&b, "token.der")?.0 != 0, "{reply}");
    }
    // What the runbook's alerts are made of.
    let text = metrics(&rig)?;
    for name in [
        "bulla_mode{mode=\"online\"} 1",
        "bulla_outages_total 1",
        "bulla_unanchored_entries{operators=\"1\"} 0",
        "bulla_unanchored_entries{operators=\"2\"} 0",
        "bulla_last_anchor_timestamp_seconds ",
        "bulla_authority_up{authority=\"tsa-1\"} 1",
        "bulla_mode{mode=\"safe\"} 0",
        "bulla_locked 0",
    ] {
        ensure!(text.lines().any(|said| said.starts_with(name)), "{name} is not in\n{text}");
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

fn metrics(rig: &Rig) -> Result<String> {
    Ok(String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?)
}
