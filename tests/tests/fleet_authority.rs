//! `bulla-fleet authority`: whose time a trust file believes.

use anyhow::{Context, Result, ensure};
use bulla_formats::trust::{Policy, TrustFile};
use bulla_formats::witness::WitnessKey;
use bulla_tests::rig::fleet_program;
use bulla_tests::rig::tsa::Stamps;
use ed25519_dalek::SigningKey;
use std::path::Path;
use std::process::{Command, Output};

fn authority(directory: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(fleet_program()?);
    command.arg("authority").args(arguments).current_dir(directory);
    command.output().context("cannot start bulla-fleet")
}

fn added(directory: &Path, arguments: &[&str]) -> Result<TrustFile> {
    let mut all = vec!["add", "--trust", "trust.json", "--out", "trust.json"];
    all.extend_from_slice(arguments);
    let output = authority(directory, &all)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(TrustFile::decode(&std::fs::read(directory.join("trust.json"))?)?)
}

fn refused(directory: &Path, arguments: &[&str], word: &str) -> Result<()> {
    let before = std::fs::read(directory.join("trust.json"))?;
    let mut all = vec!["add", "--trust", "trust.json", "--out", "trust.json"];
    all.extend_from_slice(arguments);
    let output = authority(directory, &all)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains(word), "{arguments:?}: {word:?} is not in {said}");
    ensure!(std::fs::read(directory.join("trust.json"))? == before, "{arguments:?} changed the trust file");
    Ok(())
}

#[test]
fn roots_and_witnesses_are_added_listed_and_refused() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let (a_pem, b_pem) = (a.root_pem().display().to_string(), b.root_pem().display().to_string());
    let room = tempfile::tempdir()?;
    let directory = room.path();
    let policy = Policy { accept_software: false, require_facts: Vec::new() };
    let trust = TrustFile {
        fleet: "bank.example".to_owned(),
        issued_millis: 1,
        roots: vec![[7; 32]],
        references: Vec::new(),
        policy,
        roster: None,
        authorities: None,
        cosigners: Vec::new(),
    };
    std::fs::write(directory.join("trust.json"), trust.encode())?;
    let first = added(directory, &["--operator", "Operator A", "--roots", &a_pem])?;
    let all = first.authorities.context("authorities")?;
    ensure!(all.operators == 1 && all.tsas.len() == 1 && all.tsas[0].authority.roots().count() == 1);
    let second = ["--operator", "Operator B", "--roots", &b_pem, "--policy", "1.2.3.4", "--operators", "2"];
    let all = added(directory, &second)?.authorities.context("authorities")?;
    ensure!(
        all.operators == 2 && all.tsa("Operator B").is_some_and(|tsa| tsa.authority.policies().len() == 1)
    );
    // A second root of an operator comes beside the first.
    let more = added(directory, &["--operator", "Operator A", "--roots", &b_pem])?;
    let all = more.authorities.context("authorities")?;
    ensure!(
        all.operators == 2 && all.tsa("Operator A").is_some_and(|tsa| tsa.authority.roots().count() == 2)
    );
    let key = SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes();
    let key = WitnessKey::new("witness.example/w1", key).context("a witness's key")?.to_string();
    let all =
        added(directory, &["--operator", "W", "--witness", &key])?.authorities.context("authorities")?;
    ensure!(all.witness("W", "witness.example/w1").is_some());
    refused(directory, &["--operator", "W", "--witness", &key], "already")?;
    let listed = authority(directory, &["list", "--trust", "trust.json"])?;
    let listed = String::from_utf8(listed.stdout)?;
    ensure!(listed.contains("takes 2 operator(s)") && listed.matches("time stamps").count() == 3, "{listed}");
    std::fs::write(directory.join("nothing.pem"), "no certificate\n")?;
    refused(directory, &["--operator", "C", "--roots", "nothing.pem"], "refused")?;
    refused(directory, &["--operator", "C", "--roots", "missing.pem"], "missing.pem")?;
    refused(directory, &["--operator", "", "--roots", &a_pem], "no trust file")?;
    refused(directory, &["--operator", "C", "--roots", &a_pem, "--operators", "9"], "no trust file")?;
    refused(directory, &["--operator", "C", "--roots", &a_pem, "--policy", "one.two"], "OID")?;
    refused(directory, &["--operator", "C", "--witness", "w+00000000+AAAA"], "verifier key")?;
    refused(directory, &["--operator", "C"], "required")?;
    Ok(())
}
