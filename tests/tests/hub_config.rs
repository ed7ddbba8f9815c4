//! `bulla-hub check-config` names every fault of the files that a configuration names, at once; and a hub's state directory
//! is worked on by its owner alone.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::Result;
use bulla_tests::rig::hub::HubRig;
use bulla_tests::rig::outage::software;
use bulla_tests::rig::{Rig, Role};
use std::fs;
use std::os::unix::fs::chown;

/// What it prints to both, and its exit code.
fn said(hub: &HubRig, arguments: &[&str]) -> Result<(i32, String)> {
    let output = hub.command(arguments)?.output()?;
    let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.code().unwrap(), words.concat()))
}

fn of_one_box() -> Result<(Rig, HubRig, String)> {
    let rig = Rig::start_with(&software())?;
    let origin = rig.client(Role::Scanner).seal(b"deed")?.seal()?.origin;
    let hub = HubRig::create(&[("branch", &origin, &[(&rig, false)])])?;
    Ok((rig, hub, origin))
}

#[test]
fn every_fault_of_a_configuration_is_named_at_once() -> Result<()> {
    let (rig, hub, _) = of_one_box()?;
    let (code, words) = said(&hub, &["check-config"])?;
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("1 boxes, 1 sources") || words.contains("\"sources\":1"), "{words}");

    let good = fs::read_to_string(hub.file("hub.toml"))?;
    let (top, boxes) = good.split_once("[[boxes]]").unwrap();
    fs::write(hub.file("empty.pem"), "")?;
    fs::write(hub.file("short"), "x")?;
    fs::write(hub.file("other.key"), rcgen::KeyPair::generate()?.serialize_pem())?;
    let ca = rig.file("ca.pem");
    let sections = format!(
        "roster = \"no-roster\"\n\
         [postgres]\nhost = \"127.0.0.1\"\ndatabase = \"d\"\nuser = \"u\"\npassword_file = \"no-password\"\n\
         [webhook]\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"short\"\n\
         [serve]\nlisten = \"127.0.0.1:1\"\nname = \"hub.example/north\"\n\
         certificate = {ca:?}\nkey = \"other.key\"\nclient_ca = \"empty.pem\"\n\
         [[serve.dial_in]]\nname = \"branch\"\ntoken_file = \"short\"\n\
         [[boxes]]{boxes}\
         [[boxes.sources]]\nurl = \"https://neighbour:8443\"\nca = \"empty.pem\"\nmirror = true\ndial_in = \"branch\"\n\
         [[boxes.sources]]\nurl = \"https://neighbour:8444\"\nca = {ca:?}\ntoken_file = \"no-token\"\n"
    );
    fs::write(hub.file("hub.toml"), format!("{top}{sections}"))?;
    fs::remove_file(hub.file("trust.json"))?;
    let (code, words) = said(&hub, &["check-config"])?;
    assert_eq!(code, 2, "{words}");
    for fault in [
        "trust.json",
        "roster: no-roster",
        "no-password",
        "webhook: short has less than",
        "ca.pem cannot be used (keys may not be consistent",
        "serve.client_ca: empty.pem",
        "serve.dial_in: short",
        "branch by https://neighbour:8443: empty.pem",
        "branch by https://neighbour:8444: no-token",
    ] {
        assert!(words.contains(fault), "{fault} is missing in:\n{words}");
    }
    assert_eq!(words.lines().count(), 9, "{words}");

    // What is not a configuration at all ends before any file is read.
    fs::write(hub.file("hub.toml"), format!("{top}unknown = 1\n[[boxes]]{boxes}"))?;
    let (code, words) = said(&hub, &["check-config"])?;
    assert!(code == 2 && words.contains("unknown"), "{words}");
    Ok(())
}

#[test]
fn nobody_but_its_owner_works_on_a_hubs_state() -> Result<()> {
    assert!(rustix::process::geteuid().is_root(), "files are given to another user here: run it as root");
    let (_rig, hub, _) = of_one_box()?;
    hub.furnish_serve("hub.example/north")?;
    hub.pull("branch")?;
    let state = hub.file("state");
    let files = || -> Result<Vec<_>> {
        let mut files = Vec::new();
        for file in fs::read_dir(&state)? {
            let file = file?;
            files.push((file.file_name(), file.metadata()?.modified()?));
        }
        files.sort();
        Ok(files)
    };
    chown(&state, Some(4_711), None)?;
    let before = files()?;
    for command in [
        &["init"][..],
        &["pull"],
        &["serve"],
        &["status"],
        &["fsck"],
        &["findings"],
        &["notify"],
        &["reindex"],
        &["keys"],
        &["audit"],
        &["find", "--kind", "seal"],
        &["people", "add", "anna", "--role", "auditor"],
    ] {
        let (code, words) = said(&hub, command)?;
        assert_eq!(code, 2, "{command:?}: {words}");
        assert!(
            words.contains("user 4711") && words.contains("runuser -u bulla-hub -- bulla-hub"),
            "{words}"
        );
    }
    assert_eq!(files()?, before, "nothing was written");
    assert_eq!(said(&hub, &["check-config"])?.0, 0, "who may look at a configuration may check it");
    chown(&state, Some(0), None)?;
    assert_eq!(hub.pull("branch")?, hub.pull("branch")?);
    Ok(())
}
