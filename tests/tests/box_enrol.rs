//! Enrolment as it happens: real TPMs with the certificates of their maker, a registrar, operators with directories of
//! their own, and boxes that are killed, forged and sent away.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::json::base64_decode;
use bulla_tests::rig::fleet::{Fleet, event_log, replay, words};
use bulla_tests::rig::{Rig, RigOptions, Role, bulla_program};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn unborn() -> Result<Rig> {
    Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))
}

#[test]
fn g8_a_box_becomes_a_member_when_its_tpm_its_people_and_the_roster_say_so() -> Result<()> {
    let (mut fleet, mut rig) = (Fleet::found()?, unborn()?);
    fleet.ends(&["serve", "--dir", "fleet"], 2, "no root of a TPM manufacturer")?;
    fleet.believe(&rig)?;
    fleet.serve(&[])?;

    // Nobody has listed it: it waits, and is noted.
    let said = fleet.enroll(&rig)?;
    said.ends(3, "ek-unknown")?;
    let ek = said.after("TPM")?;
    let listed = fleet.ok(&["enrolments", "list", "--dir", "fleet"])?;
    ensure!(listed.contains("held in quarantine") && listed.contains(&ek), "{listed}");

    // Listed, and held back.
    fleet.list(&ek, "S-1")?;
    fleet.ok(&["propose", "quarantine", "S-1", "--dir", "fleet", "--reason", "the seal was broken"])?;
    fleet.ok(&["approve", "--dir", "olga", "--exchange", "fleet/exchange", "--yes"])?;
    fleet.ok(&["apply", "--dir", "fleet"])?;
    fleet.enroll(&rig)?.ends(3, "ek-quarantined")?;
    fleet.ok(&["propose", "release", "S-1", "--dir", "fleet", "--reason", "it was the courier"])?;
    fleet.carry_out()?;

    // Proven; the request stays the same however often it is sent.
    let said = fleet.enroll(&rig)?;
    said.ends(3, "somebody has to approve")?;
    let claim = said.after("claim code")?;
    assert_eq!(fleet.enroll(&rig)?.after("fingerprint")?, said.after("fingerprint")?);
    let shown = fleet.ok(&["enrolments", "show", &claim, "--dir", "fleet"])?;
    ensure!(shown.contains("proven") && shown.contains("swtpm"), "{shown}");
    // Without the fingerprint nobody approves anything.
    let other = "0000-0000-0000-0000-0000";
    let wrong = ["--heard", other, "--by", "olga", "--reason", "a guess"];
    fleet.ends(
        &[&["enrolments", "approve", &claim, "--dir", "fleet"], &wrong[..]].concat(),
        1,
        "not the fingerprint",
    )?;
    // Approved is not yet decided.
    let heard = said.after("fingerprint")?;
    let right = ["--heard", &heard, "--by", "olga", "--reason", "it stands in the branch"];
    fleet.ok(&[&["enrolments", "approve", &claim, "--dir", "fleet"], &right[..]].concat())?;
    fleet.enroll(&rig)?.ends(3, "somebody has to approve")?;
    fleet.carry_out()?;
    let said = fleet.enroll(&rig)?;
    said.ends(0, "enrolled as")?;
    let origin = said.after("enrolled as")?;
    let shown = fleet.ok(&["inventory", "show", "S-1", "--dir", "fleet"])?;
    ensure!(shown.contains("enrolled") && shown.contains(&origin), "{shown}");

    // It seals, and whoever trusts the fleet believes it. The registrar is not needed for that.
    fleet.kill();
    rig.furnish()?;
    rig.sealer.start()?;
    let answer =
        rig.client(Role::Scanner).post("/v1/seals?wait=attested&deadlineSeconds=60", &[], b"a scan")?;
    ensure!(answer.json()?["facts"] == serde_json::json!(["sealed", "attested"]), "{}", answer.json()?);
    fs::write(rig.file("scan"), b"a scan")?;
    fs::write(rig.file("scan.seal"), answer.seal()?.encode())?;
    let verified = Command::new(bulla_program()?)
        .arg("verify")
        .args([rig.file("scan"), rig.file("scan.seal")])
        .arg("--trust")
        .arg(fleet.path("fleet/trust.json"))
        .output()?;
    ensure!(verified.status.success(), "{}", words(&verified));
    rig.sealer.stop()?;
    rig.fsck()?;

    // A member is not made twice, and cannot make itself a fleet of one or another log of this one.
    fleet.enroll(&rig)?.ends(1, "has its log already")?;
    let succeeded = rig.try_run(&["succeed", "--reason", "a try"])?;
    ensure!(
        !succeeded.status.success() && words(&succeeded).contains("only the fleet can"),
        "{}",
        words(&succeeded)
    );

    // Stock tools agree on the quote and on the endorsement certificate.
    let claimed = fleet.path("evidence");
    let out = claimed.to_string_lossy().into_owned();
    fleet.ok(&["enrolments", "export", &claim, "--dir", "fleet", "--out", &out])?;
    fleet.ends(
        &["enrolments", "export", &claim, "--dir", "fleet", "--out", &out],
        2,
        "holds something already",
    )?;
    let qualifying = fs::read_to_string(claimed.join("quote.qualifying"))?;
    let checkquote = |qualifying: &str| -> Result<Output> {
        let quote = ["-u", "ak.pem", "-m", "quote.attest", "-s", "quote.signature", "-g", "sha256", "-q"];
        Ok(Command::new("tpm2_checkquote")
            .current_dir(&claimed)
            .args(quote)
            .arg(qualifying.trim())
            .output()?)
    };
    let judged = checkquote(&qualifying)?;
    ensure!(judged.status.success(), "{}", words(&judged));
    ensure!(!checkquote(&"00".repeat(32))?.status.success(), "any qualifying data will do");
    let ca = rig.directory().join("tpm/ca");
    let judged = Command::new("openssl")
        .current_dir(&claimed)
        .args(["verify", "-CAfile"])
        .arg(ca.join("swtpm-localca-rootca-cert.pem"))
        .arg("-untrusted")
        .arg(ca.join("issuercert.pem"))
        .arg("ek-0.pem")
        .output()?;
    ensure!(judged.status.success(), "{}", words(&judged));

    // And on the certificates of the fleet CA.
    let file: serde_json::Value = serde_json::from_slice(&fs::read(rig.state().join("fleet.json"))?)?;
    for name in ["authority", "tlsCertificate", "issuingCertificate"] {
        fs::write(rig.file(name), base64_decode(file[name].as_str().context("base64")?)?)?;
        let converted = Command::new("openssl")
            .args(["x509", "-inform", "DER", "-in"])
            .arg(rig.file(name))
            .arg("-out")
            .arg(rig.file(&format!("{name}.pem")))
            .output()?;
        ensure!(converted.status.success(), "{}", words(&converted));
    }
    for name in ["tlsCertificate", "issuingCertificate"] {
        let verified = Command::new("openssl")
            .args(["verify", "-x509_strict", "-CAfile"])
            .args([rig.file("authority.pem"), rig.file(&format!("{name}.pem"))])
            .output()?;
        ensure!(verified.status.success(), "{name}: {}", words(&verified));
    }
    Ok(())
}

#[test]
fn g8_who_has_left_does_not_come_back_under_another_name() -> Result<()> {
    let (mut fleet, rig) = (Fleet::found()?, unborn()?);
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    let ek = fleet.enroll(&rig)?.after("TPM")?;
    fleet.list(&ek, "S-1")?;
    let said = fleet.enroll(&rig)?;
    fleet.admit(&said)?;
    fleet.enroll(&rig)?.ends(0, "enrolled as")?;
    let gone = ["--cause", "compromise", "--nothing-good", "--reason", "the box was stolen"];
    fleet.ok(&[&["revoke", "S-1", "--dir", "fleet"], &gone[..]].concat())?;
    fleet.carry_out()?;
    // The same TPM, a fresh disk.
    fs::rename(rig.state(), rig.file("old-state"))?;
    fleet.enroll(&rig)?.ends(1, "ek-tombstoned")?;
    // One pardon, one more life, one more log.
    fleet.ok(&["pardon", "S-1", "--dir", "fleet", "--reason", "found again, and examined"])?;
    fleet.carry_out()?;
    let said = fleet.enroll(&rig)?;
    said.ends(3, "somebody has to approve")?;
    fleet.admit(&said)?;
    fleet.enroll(&rig)?.ends(0, "enrolled as")?;
    Ok(())
}

#[test]
fn g8_a_refused_claim_says_why_and_the_next_one_is_another() -> Result<()> {
    let (mut fleet, rig) = (Fleet::found()?, unborn()?);
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    let ek = fleet.enroll(&rig)?.after("TPM")?;
    fleet.list(&ek, "S-1")?;
    let said = fleet.enroll(&rig)?;
    let claim = said.after("claim code")?;
    fleet.ok(&[
        "enrolments",
        "refuse",
        &claim,
        "--dir",
        "fleet",
        "--by",
        "omar",
        "--reason",
        "wrong branch",
    ])?;
    fleet.enroll(&rig)?.ends(1, "omar refused it: wrong branch (declined)")?;
    let again = fleet.enroll(&rig)?;
    again.ends(3, "somebody has to approve")?;
    assert_ne!(again.after("claim code")?, claim);
    // Somebody else's registrar: nothing is told to it.
    let registrar = fleet.registrar();
    let pin = "4e".repeat(32);
    let fresh = unborn()?;
    let other = fresh.try_run(&["enroll", "--once", &registrar[0], &registrar[1], "--pin", &pin])?;
    ensure!(
        other.status.code() == Some(3) && words(&other).contains("another key than the pinned one"),
        "{}",
        words(&other)
    );
    // An enrolment under way is not taken elsewhere by mistake.
    let other = rig.try_run(&["enroll", "--once", &registrar[0], &registrar[1], "--pin", &pin])?;
    ensure!(other.status.code() == Some(1) && words(&other).contains("is under way"), "{}", words(&other));
    Ok(())
}

#[test]
fn g8_strangers_fill_neither_the_registrars_disk_nor_its_patience() -> Result<()> {
    let (mut fleet, rig) = (Fleet::found()?, unborn()?);
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    let ek = fleet.enroll(&rig)?.after("TPM")?;
    fleet.list(&ek, "S-1")?;
    // What the box has sent, with other nonces: everything in it is public.
    let file = fs::read(rig.directory().join("box/state.enrolling/enrolling.json"))?;
    let file: serde_json::Value = serde_json::from_slice(&file)?;
    let mut request = base64_decode(file["request"].as_str().context("a request")?)?;
    let pin: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&fleet.registrar()[3][at..at + 2], 16).unwrap())
        .collect();
    let at = request.windows(32).position(|part| part == pin).context("the pin")? + 34;
    let post = |path: &str, body: &[u8]| -> Result<String> {
        fs::write(rig.file("body"), body)?;
        let url = format!("{}/v1/enrolments{path}", fleet.registrar()[1]);
        let posted = Command::new("curl")
            .args([
                "-sk",
                "--noproxy",
                "*",
                "-w",
                "%{http_code}",
                "-o",
                "/dev/null",
                // Who sends two megabytes before it is asked to is cut off, and may not hear why.
                "--expect100-timeout",
                "60",
                "--data-binary",
                "@body",
            ])
            .args(["-H", "Content-Type: application/octet-stream", &url])
            .current_dir(rig.sealer.directory())
            .output()?;
        Ok(words(&posted))
    };
    for nonce in 0..20 {
        request[at] = nonce;
        assert_eq!(post("", &request)?, "200");
    }
    let listed = fleet.ok(&["enrolments", "list", "--json", "--dir", "fleet"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    assert_eq!(listed["enrolments"].as_array().context("rows")?.len(), 8);
    // Nobody lists or removes over the network.
    let transcript = listed["enrolments"][0]["transcript"].as_str().context("a transcript")?;
    for (method, path) in [("GET", ""), ("DELETE", ""), ("DELETE", &*format!("/{transcript}"))] {
        let url = format!("{}/v1/enrolments{path}", fleet.registrar()[1]);
        let asked = Command::new("curl")
            .args(["-sk", "--noproxy", "*", "-w", "%{http_code}", "-X", method, &url])
            .output()?;
        assert_eq!(words(&asked), "405", "{method} {path}");
    }
    // Neither what is too long, nor what is none.
    assert_eq!(post("", &vec![0; 2 << 20])?, "413");
    for (path, body) in [("", &b"none"[..]), ("/evidence", b"none"), ("/evidence", &request)] {
        assert_eq!(post(path, body)?, if body.len() > 16 << 10 { "413" } else { "200" }, "{path}");
    }
    // The box itself gets through, before and after a restart.
    fleet.enroll(&rig)?.ends(3, "somebody has to approve")?;
    fleet.kill();
    fleet.serve(&[])?;
    fleet.enroll(&rig)?.ends(3, "somebody has to approve")?;
    Ok(())
}

/// The box's TPM has booted this, and the box is told where its firmware left the log.
fn boot(rig: &Rig, log: &Path) -> Result<()> {
    replay(&rig.tpm.as_ref().context("the rig has a TPM")?.tcti(), log)?;
    let path = rig.file("box.toml");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("[tpm]\n", &format!("[tpm]\nevent_log = {:?}\n", log.to_string_lossy())))?;
    Ok(())
}

#[test]
fn g8_a_boot_that_nobody_knows_is_refused_and_the_pcr_named() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let (good, bad, liar) = (unborn()?, unborn()?, unborn()?);
    let (image_2, image_3) = (event_log("image-v2.eventlog"), event_log("image-v3.eventlog"));
    for rig in [&good, &bad, &liar] {
        fleet.believe(rig)?;
    }
    let image = image_2.to_string_lossy().into_owned();
    let named = ["--name", "image 2", "--log", &image, "--dir", "fleet", "--reason", "built and measured"];
    fleet.serve(&[])?;
    // The registrar goes by what people approve while it runs.
    fleet.ok(&[&["propose", "reference"], &named[..]].concat())?;
    fleet.carry_out()?;
    boot(&good, &image_2)?;
    boot(&bad, &image_3)?;
    // Booted the unknown image, and shows the log of the good one.
    boot(&liar, &image_3)?;
    let path = liar.file("box.toml");
    fs::write(&path, fs::read_to_string(&path)?.replace("image-v3", "image-v2"))?;
    for (rig, serial) in [(&good, "S-1"), (&bad, "S-2"), (&liar, "S-3")] {
        let ek = fleet.enroll(rig)?.after("TPM")?;
        fleet.list(&ek, serial)?;
    }
    let said = fleet.enroll(&good)?;
    said.ends(3, "somebody has to approve")?;
    let shown = fleet.ok(&["enrolments", "show", &said.after("claim code")?, "--dir", "fleet"])?;
    ensure!(shown.contains("boot         image 2"), "{shown}");
    let refused = fleet.enroll(&bad)?;
    refused.ends(1, "boot-unknown")?;
    ensure!(refused.words.contains("PCR 4") && refused.words.contains("image 2"), "{}", refused.words);
    fleet.enroll(&liar)?.ends(1, "event-log-differs")?;
    Ok(())
}

#[test]
fn g10_registrar_and_box_are_killed_until_it_is_done() -> Result<()> {
    let (mut fleet, rig) = (Fleet::found()?, unborn()?);
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    let ek = fleet.enroll(&rig)?.after("TPM")?;
    fleet.list(&ek, "S-1")?;
    let registrar = fleet.registrar();
    // The box asks again and again, is killed, and the registrar with it, at moments that spread over the conversation.
    for round in 0..12_u64 {
        let mut asking = rig.command(&["enroll"])?;
        asking.args(&registrar).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = asking.spawn()?;
        std::thread::sleep(Duration::from_millis(40 + 45 * round));
        if round % 2 == 0 {
            fleet.kill();
            fleet.serve(&[])?;
            std::thread::sleep(Duration::from_millis(100));
        }
        child.kill()?;
        child.wait()?;
    }
    let said = fleet.enroll(&rig)?;
    said.ends(3, "somebody has to approve")?;
    let count = |fleet: &Fleet| -> Result<usize> {
        let listed = fleet.ok(&["enrolments", "list", "--json", "--dir", "fleet"])?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        Ok(listed["enrolments"].as_array().context("rows")?.len())
    };
    assert_eq!(count(&fleet)?, 1, "one box has asked once");
    fleet.admit(&said)?;
    // It waits by itself now, while the registrar comes and goes.
    let mut waiting = rig.command(&["enroll"])?;
    let mut child = waiting.args(&registrar).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    for _ in 0..3 {
        fleet.kill();
        fleet.serve(&[])?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let begun = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None => ensure!(begun.elapsed() < Duration::from_secs(90), "it still waits"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    ensure!(status.success(), "{status}");
    assert_eq!(count(&fleet)?, 1);
    let origin = fleet.ok(&["inventory", "show", "S-1", "--dir", "fleet"])?;
    ensure!(origin.contains("enrolled"), "{origin}");
    rig.fsck()?;
    Ok(())
}
