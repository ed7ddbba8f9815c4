//! What the Debian packages are made of agrees with the programs, as far as that can be seen without installing them.
//!
//! The rest is `cargo xtask deb --check`, which boots a system for it.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::box_program;
use bulla_tests::rig::hub::hub_program;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("image/deb").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(source(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `bulla-box check-config` on a text; whether it is accepted, and the words.
fn check_config(config: &str) -> Result<(bool, String)> {
    let directory = TempDir::new()?;
    let path = directory.path().join("box.toml");
    fs::write(&path, config)?;
    let output = Command::new(box_program()?).arg("check-config").arg("--config").arg(&path).output()?;
    let words = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(words)?))
}

#[test]
fn the_shipped_configuration_asks_for_the_fleet_and_for_nothing_else() -> Result<()> {
    let shipped = text("bulla-box/box.toml");
    let (accepted, words) = check_config(&shipped)?;
    ensure!(!accepted && words.contains("fleet"), "nobody named the fleet: {words}");
    let (accepted, words) = check_config(&shipped.replace("# fleet = ", "fleet = "))?;
    ensure!(accepted, "{words}");
    Ok(())
}

#[test]
fn unit_scripts_and_configuration_speak_of_the_same_places() {
    let unit = text("bulla-box/bulla-box.service");
    let shipped = text("bulla-box/box.toml");
    let state =
        shipped.lines().find_map(|line| line.strip_prefix("state_dir = \"")?.strip_suffix('"')).unwrap();
    assert!(unit.contains(&format!("\nConditionPathExists={state}/identity.json\n")), "{state}");
    let home = Path::new(state).parent().unwrap().display().to_string();
    assert_eq!(home, "/var/lib/bulla");
    assert!(unit.contains("\nStateDirectory=bulla\n") && unit.contains("\nStateDirectoryMode=0700\n"));
    for file in
        ["bulla-box/tmpfiles.conf", "bulla-box/sysusers.conf", "bulla-box/postinst", "bulla-box/postrm"]
    {
        assert!(text(file).contains(&home), "{file} does not speak of {home}");
    }
    assert!(text("bulla-box/conffiles").lines().eq(["/etc/bulla/box.toml"]));
    // The exit codes that another start does not mend are those of the program's own help.
    assert!(unit.contains("\nRestartPreventExitStatus=2 4\n"));
    let help = Command::new(box_program().unwrap()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    for code in ["2 wrong usage or configuration;", "4 a rollback is suspected;"] {
        assert!(help.contains(code), "{code:?} is not in {help}");
    }
}

#[test]
fn the_hubs_unit_scripts_and_configuration_speak_of_the_same_places() -> Result<()> {
    let (unit, shipped) = (text("bulla-hub/bulla-hub.service"), text("bulla-hub/hub.toml"));
    let state =
        shipped.lines().find_map(|line| line.strip_prefix("state_dir = \"")?.strip_suffix('"')).unwrap();
    assert_eq!(state, "/var/lib/bulla-hub");
    assert!(unit.contains(&format!("\nConditionPathExists={state}/hub-keys.json\n")));
    assert!(unit.contains("\nStateDirectory=bulla-hub\n") && unit.contains("\nStateDirectoryMode=0700\n"));
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nUser=bulla-hub\n"));
    for file in
        ["bulla-hub/tmpfiles.conf", "bulla-hub/sysusers.conf", "bulla-hub/postinst", "bulla-hub/postrm"]
    {
        assert!(text(file).contains(state), "{file} does not speak of {state}");
    }
    assert!(text("bulla-hub/conffiles").lines().eq(["/etc/bulla/hub.toml"]));
    // Shipped, it asks for the two names; with them it is read, and what is missing is the trust file.
    let run = |config: &str| -> Result<String> {
        let directory = TempDir::new()?;
        let path = directory.path().join("hub.toml");
        fs::write(&path, config)?;
        let output = Command::new(hub_program()?).arg("status").arg("--config").arg(&path).output()?;
        ensure!(output.status.code() == Some(2), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    let words = run(&shipped)?;
    ensure!(words.contains("`name`"), "{words}");
    let named = shipped.replacen("# name = ", "name = ", 1);
    let words = run(&named)?;
    ensure!(words.contains("`name`"), "the keys have no name: {words}");
    let words = run(&named.replacen("# name = ", "name = ", 1).replace("/etc/bulla/", "/nowhere/"))?;
    ensure!(words.contains("the trust file /nowhere/trust.json cannot be read"), "{words}");
    Ok(())
}

#[test]
fn scripts_are_sound_shell_and_no_log_is_deleted() -> Result<()> {
    for (shell, script) in [
        ("sh", "bulla-box/postinst"),
        ("sh", "bulla-box/prerm"),
        ("sh", "bulla-box/postrm"),
        ("sh", "bulla-hub/postinst"),
        ("sh", "bulla-hub/prerm"),
        ("sh", "bulla-hub/postrm"),
        ("sh", "check/boot.sh"),
        ("bash", "check/guest.sh"),
    ] {
        let output = Command::new(shell).arg("-n").arg(source(script)).output().context("no shell")?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && words.is_empty(), "{script}: {words}");
        ensure!(
            text(script).lines().any(|line| line.starts_with("set -e")),
            "{script} goes on after a failure"
        );
    }
    for script in [
        "bulla-box/postinst",
        "bulla-box/prerm",
        "bulla-box/postrm",
        "bulla-hub/postinst",
        "bulla-hub/prerm",
        "bulla-hub/postrm",
    ] {
        let deletes = |line: &&str| {
            let line = line.trim();
            !line.starts_with('#')
                && !line.starts_with("echo")
                && line.split_whitespace().any(|word| word == "rm")
        };
        let found = text(script).lines().find(deletes).map(str::to_owned);
        ensure!(found.is_none(), "{script} deletes: {found:?}");
    }
    Ok(())
}
