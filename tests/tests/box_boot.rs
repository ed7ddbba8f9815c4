//! The way of a boot state: a real boot's event log, replayed into a TPM; a box on it; reference values made from the
//! log by `bulla-fleet`; and what a verifier then says of the box's seals.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Result, ensure};
use bulla_tests::rig::fleet::{event_log, replay};
use bulla_tests::rig::{Rig, RigOptions, Role, bulla_program, fleet_program};
use std::fs;
use std::process::{Command, Output};

fn fleet(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(fleet_program()?).args(arguments).output()?)
}

struct Sealed {
    rig: Rig,
}

impl Sealed {
    fn path(&self, name: &str) -> String {
        self.rig.file(name).to_string_lossy().into_owned()
    }

    fn verify(&self, trust: &str) -> Result<(Option<i32>, String)> {
        let verified = Command::new(bulla_program()?)
            .args(["verify", &self.path("scan"), &self.path("scan.seal"), "--trust", &self.path(trust)])
            .output()?;
        let words = [verified.stdout, verified.stderr].concat();
        Ok((verified.status.code(), String::from_utf8(words)?))
    }

    fn add(&self, trust: &str, name: &str, image: &str, out: &str, more: &[&str]) -> Result<Output> {
        let (trust, out, image) = (self.path(trust), self.path(out), event_log(image));
        let image = image.to_string_lossy().into_owned();
        let arguments =
            ["reference", "add", "--trust", &trust, "--name", name, "--log", &image, "--out", &out];
        fleet(&[&arguments[..], more].concat())
    }
}

/// A box on a TPM that booted the second image, and an attested seal of it.
fn sealed() -> Result<Sealed> {
    let (tpm, directory) = Rig::manufacture_tpm()?;
    replay(&tpm.tcti(), &event_log("image-v2.eventlog"))?;
    let mut rig = Rig::create_on(&RigOptions::default(), Some((tpm, directory)))?;
    rig.sealer.start()?;
    let answer =
        rig.client(Role::Scanner).post("/v1/seals?wait=attested&deadlineSeconds=60", &[], b"a scan")?;
    ensure!(answer.json()?["facts"] == serde_json::json!(["sealed", "attested"]), "{}", answer.json()?);
    fs::write(rig.file("scan"), b"a scan")?;
    fs::write(rig.file("scan.seal"), answer.seal()?.encode())?;
    Ok(Sealed { rig })
}

#[test]
fn a_seal_is_attested_under_the_boot_it_was_made_in_and_no_other() -> Result<()> {
    let sealed = sealed()?;
    let (code, words) = sealed.verify("trust.json")?;
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("boot state not judged"), "{words}");

    // The right image: the boot state is known, and said.
    let added = sealed.add("trust.json", "image 2", "image-v2.eventlog", "right.json", &[])?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let (code, words) = sealed.verify("right.json")?;
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("image 2") && words.contains("attested"), "{words}");

    // Another image: sealed, but not attested; who demands it hears no.
    let added = sealed.add("trust.json", "image 3", "image-v3.eventlog", "wrong.json", &[])?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let wrong = fs::read_to_string(sealed.rig.file("wrong.json"))?;
    fs::write(sealed.rig.file("strict.json"), wrong.replace("\"sealed\"", "\"sealed\",\n\"attested\""))?;
    let (code, words) = sealed.verify("wrong.json")?;
    assert_eq!(code, Some(0), "{words}");
    assert!(!words.contains("image 3"), "{words}");
    let (code, words) = sealed.verify("strict.json")?;
    assert_eq!(code, Some(6), "{words}");

    // Both, as during a roll-out: N and N + 1.
    let added = sealed.add("right.json", "image 3", "image-v3.eventlog", "both.json", &[])?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let both = fs::read_to_string(sealed.rig.file("both.json"))?;
    fs::write(sealed.rig.file("both.json"), both.replace("\"sealed\"", "\"sealed\",\n\"attested\""))?;
    let (code, words) = sealed.verify("both.json")?;
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("image 2"), "{words}");
    Ok(())
}

#[test]
fn whoever_looks_for_the_difference_is_told_pcr_and_measurement() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let fleet_dir = path("fleet");
    let made = fleet(&["init", "--dir", &fleet_dir, "--fleet", "bank.example"])?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let trust = format!("{fleet_dir}/trust.json");
    let (old, new) = (event_log("image-v2.eventlog"), event_log("image-v3.eventlog"));
    let (old, new) = (old.to_string_lossy(), new.to_string_lossy());
    let run = |arguments: &[&str]| -> Result<(Option<i32>, String, String)> {
        let ended = fleet(arguments)?;
        Ok((ended.status.code(), String::from_utf8(ended.stdout)?, String::from_utf8(ended.stderr)?))
    };
    // Nothing to compare with.
    let (code, _, words) = run(&["reference", "check", "--trust", &trust, "--log", &new])?;
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("reference add"), "{words}");
    let add = |name: &str, log: &str, more: &[&str]| {
        run(&[&["reference", "add", "--trust", &trust, "--name", name, "--log", log, "--out", &trust], more]
            .concat())
    };
    let before = fs::read(&trust)?;
    for (name, more, why) in [
        ("", &[][..], "name"),
        ("bell \u{7}", &[][..], "control characters"),
        ("image 2", &["--pcrs", "0,14"][..], "nothing into PCR 14"),
    ] {
        let (code, _, words) = add(name, &old, more)?;
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains(why), "{words}");
    }
    assert_eq!(fs::read(&trust)?, before, "a refusal changes nothing");
    let (code, words, _) = add("image 2", &old, &[])?;
    assert_eq!(code, Some(0));
    assert!(words.contains("PCRs 0, 2, 3, 4, 6, 7"), "{words}");
    // The printed fingerprint is the file's.
    let shown = Command::new(bulla_program()?).args(["trust-fingerprint", &trust]).output()?;
    assert!(words.contains(String::from_utf8(shown.stdout)?.trim()), "{words}");
    for (name, log) in [("image 2", &new), ("the same again", &old)] {
        let (code, _, words) = add(name, log, &[])?;
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains("already"), "{words}");
    }

    let (code, words, _) = run(&["reference", "check", "--trust", &trust, "--log", &old])?;
    assert_eq!(code, Some(0));
    assert!(words.contains("The boot is \"image 2\""), "{words}");
    let check = ["reference", "check", "--trust", &trust, "--log", &new, "--expected", &old];
    let (code, words, error) = run(&check)?;
    assert_eq!(code, Some(1));
    assert!(
        words.starts_with("PCR 4 differs: expected ") && words.contains(" from image 2, got "),
        "{words}"
    );
    assert!(words.contains("  got      event "), "{words}");
    assert!(error.contains("nearest is \"image 2\", PCR 4 differing"), "{error}");
    let (code, words, _) = run(&[&check[..], &["--json"]].concat())?;
    let said: serde_json::Value = serde_json::from_str(&words)?;
    assert_eq!(code, Some(1));
    assert_eq!((&said["good"], &said["differences"][0]["pcr"]), (&false.into(), &4.into()), "{said}");

    // What is no log, and what is no trust file.
    let (code, _, words) = run(&["reference", "show", &trust])?;
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("is no event log"), "{words}");
    let (code, _, words) = run(&["reference", "check", "--trust", &old, "--log", &old])?;
    assert_eq!(code, Some(1), "{words}");
    let (code, words, _) = run(&["reference", "show", &old])?;
    assert_eq!(code, Some(0));
    assert!(words.contains("Secure Boot: off") && words.contains("PCR  4  "), "{words}");
    Ok(())
}
