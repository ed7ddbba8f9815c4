//! A box that examines itself: self-tests on demand and on a schedule, and a scrub that finds rot while it seals.

use anyhow::{Context as _, Result, ensure};
use bulla_formats::report::Verdict;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, rounds};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

fn options(extra: &str) -> RigOptions<'_> {
    RigOptions { keys: Keys::Software, residency: "software", extra, ..RigOptions::default() }
}

/// The status once `ready` holds of it.
fn status_when(rig: &Rig, what: &str, ready: impl Fn(&Value) -> bool) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
        if ready(&status) {
            return Ok(status);
        }
        ensure!(begun.elapsed() < Duration::from_secs(40), "{what} does not happen: {status}\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Samples of the metrics page by name and labels.
fn metric(rig: &Rig, name: &str) -> Result<Option<f64>> {
    let page = rig.client(Role::Reader).get("/metrics")?;
    let text = String::from_utf8(page.body)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(|value| value.parse().with_context(|| format!("{name} {value}"))).transpose()
}

#[test]
fn a_self_test_goes_the_whole_way_and_is_in_the_log() -> Result<()> {
    let mut rig = Rig::start()?;
    let operator = rig.client(Role::Operator);
    let answer = operator.post("/v1/self-tests", &[], b"")?;
    let result = answer.json()?;
    ensure!(answer.status == 200 && result["passed"] == true, "{result}");
    ensure!(result["verdict"] == "valid" && result["attested"] == true, "{result}");
    for role in [Role::Scanner, Role::Reader] {
        let refused = rig.client(role).post("/v1/self-tests", &[], b"")?;
        assert_eq!((refused.status, refused.problem()?.as_str()), (403, "forbidden"));
    }
    // An ordinary seal, that anybody with the trust file can judge.
    let id = result["seal"].as_str().context("a test that passed names its seal")?;
    let reader = rig.client(Role::Reader);
    let receipt = reader.get(&format!("/v1/seals/{id}"))?;
    assert_eq!(receipt.json()?["document"]["client"], "self-test");
    assert_eq!(rig.judge(&receipt.seal()?, b"another document").report.verdict, Verdict::OtherDocument);
    let status = reader.get("/v1/status")?.json()?;
    assert_eq!(status["selfTest"], result);
    assert_eq!(metric(&rig, "bulla_self_test_passed")?, Some(1.0));
    ensure!(metric(&rig, "bulla_self_test_age_seconds")?.is_some_and(|age| age < 60.0));
    for name in ["bulla_disk_headroom_bytes", "bulla_checkpoint_age_seconds", "bulla_attestation_age_seconds"]
    {
        ensure!(metric(&rig, name)?.is_some(), "{name} is missing");
    }
    assert_eq!(metric(&rig, "bulla_seals_waiting")?, Some(0.0));
    // The name is the box's own.
    let taken = rig.try_run(&["scanner", "add", "--name", "self-test"])?;
    ensure!(
        taken.status.code() == Some(1) && String::from_utf8_lossy(&taken.stderr).contains("the box's own")
    );
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_self_test_that_cannot_be_attested_fails_and_the_box_seals_on() -> Result<()> {
    let mut rig = Rig::start_with(&RigOptions {
        extra: "\n[attestation]\ntimeout_seconds = 1\n[selfcheck]\nself_test_seconds = 1\n",
        ..RigOptions::default()
    })?;
    status_when(&rig, "a scheduled self-test", |status| status["selfTest"]["passed"] == true)?;
    rig.tpm.as_mut().context("the rig has a TPM")?.crash()?;
    let status = status_when(&rig, "a failed self-test", |status| status["selfTest"]["passed"] == false)?;
    assert_eq!(status["selfTest"]["verdict"], "valid", "it was sealed all the same: {status}");
    assert_eq!(rig.client(Role::Reader).get("/readyz")?.status, 200, "readiness is about sealing");
    assert_eq!(rig.client(Role::Scanner).seal(b"a document")?.status, 201);
    assert_eq!(metric(&rig, "bulla_self_test_passed")?, Some(0.0));
    ensure!(metric(&rig, "bulla_self_test_failures_total")?.is_some_and(|count| count >= 1.0));
    Ok(())
}

#[test]
fn a_scrub_finds_rot_in_a_running_box_and_says_so_in_the_log() -> Result<()> {
    // Its progress is asked for over a new connection each time, more often than an address may connect.
    let extra = "\n[selfcheck]\nself_test_seconds = 0\nscrub_pass_seconds = 1\nscrub_bytes_per_second = 67108864\n\
                 [limits]\naddress_connections_per_second = 0\n";
    let mut rig = Rig::start_with(&options(extra))?;
    let scanner = rig.client(Role::Scanner);
    for number in 0..300 {
        let headers = [("Bulla-Document-Id", &*format!("no-{number}"))];
        ensure!(scanner.post("/v1/seals", &headers, format!("document {number}").as_bytes())?.status == 201);
    }
    // Sound, while it is being written to: no pass may cry wolf, nor end the process over a page that changes under it.
    let passes = || metric(&rig, "bulla_scrub_passes_total").map(|passes| passes.unwrap_or_default());
    let before = passes()?;
    let mut number = 0;
    while passes()? < before + rounds(5, 120) as f64 {
        number += 1;
        let sealed = scanner.seal(format!("meanwhile {number}").as_bytes()).with_context(|| rig.log())?;
        ensure!(sealed.status == 201 && number < 200_000, "{}: {}", sealed.status, rig.log());
    }
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    assert_eq!(status["scrub"]["damaged"], 0, "{status}");
    assert_eq!(metric(&rig, "bulla_scrub_damaged")?, Some(0.0));

    // One bit in the middle of an entry, behind the box's back.
    let directory = fs::read_dir(rig.state())?.filter_map(|entry| Some(entry.ok()?.path()));
    let log = directory.into_iter().find(|path| path.join("lock").exists()).context("a box has a log")?;
    let path = log.join("seg-0000000000000000.redb");
    let entry = rig.client(Role::Reader).get("/tile/entries/000")?.body;
    // The bundle is length-prefixed entries; take the 100th.
    let mut rest = entry.as_slice();
    for _ in 0..100 {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        rest = &rest[2 + length..];
    }
    let victim = &rest[2..2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]))];
    let bytes = fs::read(&path)?;
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    let places: Vec<usize> =
        (0..bytes.len() - victim.len()).filter(|at| bytes[*at..].starts_with(victim)).collect();
    ensure!(!places.is_empty(), "the entry is on the disk");
    for at in places {
        let at = at + victim.len() / 2;
        file.write_all_at(&[bytes[at] ^ 1], at as u64)?;
    }
    let status = status_when(&rig, "the finding", |status| status["scrub"]["damaged"].as_u64() > Some(0))?;
    ensure!(status["scrub"]["findings"].to_string().contains("seg-0000000000000000.redb"), "{status}");
    // The box seals on, and other seals are still served.
    assert_eq!(scanner.seal(b"afterwards")?.status, 201);
    let integrity = status_when(&rig, "the entry", |_| rig.log().contains("finding(s)"))?;
    drop(integrity);
    rig.sealer.stop()?;
    let judged = rig.try_run(&["fsck"])?;
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    ensure!(judged.status.code() == Some(1) && said.contains("entry 100 in seg-"), "{said}");
    Ok(())
}
