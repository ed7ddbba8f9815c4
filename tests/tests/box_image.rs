//! A box that runs from an image of its own: it proves at once that it works, and what became of updates is in its log.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::der::Octets32;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::tile::parse_entries;
use bulla_formats::update::Release;
use bulla_formats::update_record::{Outcome, UpdateRecord};
use bulla_tests::rig::{Rig, RigOptions, Role, box_program};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const STAGED: u64 = 1_790_000_000_000;
const PATIENCE: Duration = Duration::from_secs(90);

fn record(outcome: Option<Outcome>, detail: &str) -> UpdateRecord {
    UpdateRecord {
        from: Release { major: 0, minor: 1, patch: 0 },
        to: Release { major: 0, minor: 2, patch: 0 },
        statement: Octets32::new([7; 32]),
        staged_millis: STAGED,
        outcome: outcome.map(|outcome| (outcome, STAGED + 5)),
        detail: detail.to_owned(),
    }
}

/// What the log says of updates: kinds, and parameters or details.
fn told(rig: &Rig) -> Result<Vec<(Kind, String)>> {
    let reader = rig.client(Role::Reader);
    let size = rig.log_size()?;
    ensure!(size < 256, "the log has outgrown its first bundle");
    let bundle = reader.get(&format!("/tile/entries/000.p/{size}"))?.body;
    let mut told = Vec::new();
    for entry in parse_entries(&bundle, size as u16)? {
        let content = Entry::decode(entry)?.content().clone();
        if content.kind == Kind::OperatorAction as u16 {
            let action = OperatorActionBody::decode(&content.body)?;
            if action.action == "image-update" {
                let parameters = action.parameters.iter().map(|each| format!("{}={}", each.name, each.value));
                told.push((Kind::OperatorAction, parameters.collect::<Vec<_>>().join(" ")));
            }
        } else if content.kind == Kind::Incident as u16 {
            let incident = IncidentBody::decode(&content.body)?;
            if incident.code == "image-fell-back" {
                told.push((Kind::Incident, incident.detail));
            }
        }
    }
    Ok(told)
}

fn until(what: &str, rig: &Rig, done: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        ensure!(begun.elapsed() < PATIENCE, "{what} does not happen:\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A box as the image starts it.
fn launcher(directory: &Path) -> Result<std::path::PathBuf> {
    let launcher = directory.join("bulla-box-on-its-image");
    let (record, health) = (directory.join("update.json"), directory.join("health"));
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' run '*|*' run') set -- \"$@\" --updates {} --health {};; esac\nexec {} \"$@\"\n",
        record.display(),
        health.display(),
        box_program()?.display()
    );
    fs::write(&launcher, script)?;
    fs::set_permissions(&launcher, Permissions::from_mode(0o755))?;
    Ok(launcher)
}

#[test]
fn a_box_says_that_it_works_and_its_log_what_became_of_updates() -> Result<()> {
    let scripts = tempfile::tempdir()?;
    let (file, health) = (scripts.path().join("update.json"), scripts.path().join("health"));
    let launcher = launcher(scripts.path())?;
    // A record of an update that has still to prove itself is no news.
    fs::write(&file, record(None, "").encode())?;
    let mut rig = Rig::start_with(&RigOptions { launcher: Some(&launcher), ..RigOptions::default() })?;
    until("the first self-test", &rig, || {
        Ok(fs::read_to_string(&health).is_ok_and(|word| word == "passed\n"))
    })?;
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    ensure!(status["selfTest"]["passed"] == true && status["selfTest"]["attested"] == true, "{status}");
    ensure!(told(&rig)?.is_empty());

    let put = |record: &UpdateRecord| -> Result<()> {
        fs::write(scripts.path().join("new"), record.encode())?;
        Ok(fs::rename(scripts.path().join("new"), &file)?)
    };
    put(&record(Some(Outcome::Proven), ""))?;
    until("the entry of an update", &rig, || Ok(told(&rig)?.len() == 1))?;
    let statement = "07".repeat(32);
    let expected = format!("from=0.1.0 to=0.2.0 statement={statement} staged-at={STAGED}");
    assert_eq!(told(&rig)?, [(Kind::OperatorAction, expected)]);
    // Nothing twice, also not after a restart; a record that is none says nothing.
    rig.sealer.stop()?;
    fs::remove_file(&health)?;
    rig.sealer.start()?;
    until("the self-test of the next run", &rig, || Ok(health.exists()))?;
    fs::write(&file, b"{}")?;
    put(&record(Some(Outcome::FellBack), "the self-test failed: no TPM"))?;
    until("the entry of a fall-back", &rig, || Ok(told(&rig)?.len() > 1))?;
    let told = told(&rig)?;
    assert_eq!(told.len(), 2, "{told:?}");
    let (kind, detail) = told.last().context("two")?;
    assert_eq!(*kind, Kind::Incident);
    assert_eq!(
        detail,
        "the image 0.2.0 did not prove itself, 0.1.0 runs again: the self-test failed: no TPM"
    );
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_box_that_cannot_seal_says_why_and_passes_once_it_can() -> Result<()> {
    let scripts = tempfile::tempdir()?;
    let health = scripts.path().join("health");
    let launcher = launcher(scripts.path())?;
    let mut rig = Rig::start_with(&RigOptions { launcher: Some(&launcher), ..RigOptions::default() })?;
    until("a first pass", &rig, || Ok(health.exists()))?;
    let act = |rig: &Rig, path: &str| -> Result<()> {
        let answer = rig.client(Role::Operator).post(path, &[], b"{\"reason\": \"update\"}")?;
        ensure!(answer.status == 200, "{path} is answered with {}", answer.status);
        Ok(())
    };
    // A lock survives the restart, so the first test of the next run cannot seal.
    act(&rig, "/v1/lock")?;
    rig.sealer.stop()?;
    fs::remove_file(&health)?;
    rig.sealer.start_unready()?;
    until("a word", &rig, || Ok(health.exists()))?;
    let word = fs::read_to_string(&health)?;
    ensure!(word.starts_with("failed: ") && word.ends_with('\n'), "{word:?}");
    act(&rig, "/v1/unlock")?;
    until("a pass", &rig, || Ok(fs::read_to_string(&health)? == "passed\n"))?;
    rig.sealer.stop()?;
    Ok(())
}
