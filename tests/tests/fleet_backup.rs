//! The fleet directory in one encrypted, signed file, and back.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::fleet::Fleet;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const EK: &str = "4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e";
const OTHER_EK: &str = "5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f";

/// A key pair made by stock age-keygen in the fleet's room; its public key.
fn age_key(fleet: &Fleet, name: &str) -> Result<String> {
    let made = Command::new("age-keygen").arg("-o").arg(fleet.path(name)).output();
    ensure!(made.context("age-keygen cannot be started; install the package age")?.status.success());
    let text = fs::read_to_string(fleet.path(name))?;
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
    Ok(public.context("age-keygen writes the public key as a comment")?.to_owned())
}

/// Every file below `dir` by its name, with its permissions; hidden ones and the custodian's are not.
fn files(dir: &Path) -> Result<BTreeMap<String, (Vec<u8>, u32)>> {
    let (mut found, mut ahead) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = ahead.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            let name = path.strip_prefix(dir)?.to_string_lossy().into_owned();
            if name.starts_with("custodian")
                || path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.')
            {
                continue;
            }
            if path.is_dir() {
                ahead.push(path);
            } else {
                let mode = fs::metadata(&path)?.permissions().mode() & 0o077;
                found.insert(name, (fs::read(&path)?, mode));
            }
        }
    }
    Ok(found)
}

#[test]
fn a_fleet_comes_back_from_its_backup_as_it_was_and_goes_on() -> Result<()> {
    let fleet = Fleet::found()?;
    fleet.list(EK, "S-1")?;
    let (recipient, other) = (age_key(&fleet, "key")?, age_key(&fleet, "other-key")?);
    let kept = fleet.path("kept-trust.json");
    fs::copy(fleet.path("fleet/trust.json"), &kept)?;
    fleet.ends(&["backup", "--dir", "fleet", "--out", "backup"], 2, "--recipient")?;
    fleet.ends(
        &["backup", "--dir", "fleet", "--out", "backup", "--recipient", "age1nobody"],
        2,
        "no public key of age",
    )?;
    let said = fleet.ok(&[
        "backup",
        "--dir",
        "fleet",
        "--out",
        "backup",
        "--recipient",
        &recipient,
        "--recipient",
        &other,
    ])?;
    ensure!(said.contains("version 1 of the roster"), "{said}");
    ensure!(fs::metadata(fleet.path("backup"))?.permissions().mode() & 0o077 == 0, "others can read it");
    let sealed = fs::read(fleet.path("backup"))?;
    let keys = fs::read(fleet.path("fleet/fleet.keys"))?;
    ensure!(!sealed.windows(32).any(|part| keys.windows(32).any(|key| key == part)), "a key in clear");

    // Whole, or not at all.
    let restore = |backup: &str, key: &str, dir: &str| -> Vec<String> {
        ["restore", backup, "--identity", key, "--trust", "kept-trust.json", "--dir", dir]
            .map(str::to_owned)
            .into()
    };
    let ends = |arguments: &[String], code: i32, part: &str| -> Result<()> {
        fleet.ends(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), code, part)?;
        ensure!(!fleet.path("again").exists(), "something was restored");
        Ok(())
    };
    ends(&restore("backup", "other-key", "fleet"), 2, "is there already")?;
    ends(&restore("backup", "kept-trust.json", "again"), 2, "no secret key of age")?;
    age_key(&fleet, "stranger")?;
    ends(&restore("backup", "stranger", "again"), 1, "this key does not open it")?;
    ends(&restore("kept-trust.json", "key", "again"), 1, "no backup of a fleet directory")?;
    for at in [sealed.len() - 1, sealed.len() / 2, 400] {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        fs::write(fleet.path("damaged"), damaged)?;
        ends(&restore("damaged", "key", "again"), 1, "is refused")?;
        fs::write(fleet.path("damaged"), &sealed[..at])?;
        ends(&restore("damaged", "key", "again"), 1, "is refused")?;
    }
    // Another fleet's: its trust file does not believe this one.
    let stranger = Fleet::found()?;
    fs::copy(stranger.path("fleet/trust.json"), fleet.path("foreign-trust.json"))?;
    let mut foreign = restore("backup", "key", "again");
    foreign[5] = "foreign-trust.json".to_owned();
    ends(&foreign, 1, "other-root")?;

    // The building burns; the backup and the trust file were elsewhere.
    let before = files(&fleet.path("fleet"))?;
    ensure!(
        before.contains_key("fleet.keys") && before.contains_key("exchange/roster"),
        "{:?}",
        before.keys()
    );
    fs::rename(fleet.path("fleet"), fleet.path("burnt"))?;
    fleet.ok(&["restore", "backup", "--identity", "key", "--trust", "kept-trust.json", "--dir", "fleet"])?;
    let after = files(&fleet.path("fleet"))?;
    ensure!(after == before, "{:?} became {:?}", before.keys(), after.keys());
    let shown = fleet.ok(&["inventory", "show", "S-1", "--dir", "fleet"])?;
    ensure!(shown.contains("expected"), "{shown}");
    fleet.list(OTHER_EK, "S-2")?;

    // An older backup than what somebody has seen is refused when that is shown, and at the next proposal at the latest.
    fs::copy(fleet.path("fleet/exchange/roster"), fleet.path("seen"))?;
    let mut older = restore("backup", "other-key", "again");
    older.extend(["--seen".to_owned(), "seen".to_owned()]);
    ends(&older, 1, "rolled-back")?;
    fleet.ok(&["restore", "backup", "--identity", "key", "--trust", "kept-trust.json", "--dir", "again"])?;
    fleet.ok(&["roster", "take", "--dir", "again", "--from", "seen"])?;
    let shown = fleet.ok(&["inventory", "show", "S-2", "--dir", "again"])?;
    ensure!(shown.contains("expected"), "{shown}");
    Ok(())
}
