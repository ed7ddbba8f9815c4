//! An older copy of the disk is noticed, a crash is never mistaken for one, and there is a way out.

use anyhow::{Context, Result};
use bulla_formats::report::Verdict;
use bulla_tests::rig::{Rig, RigOptions, Role, rounds};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Windows often, and each moves the counter.
const EAGER: &str = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 0";

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    anyhow::ensure!(status.success(), "cp -a {} {}", from.display(), to.display());
    Ok(())
}

fn seal_attested(rig: &Rig, document: &str) -> Result<bulla_tests::rig::Response> {
    let answer = rig.client(Role::Scanner).post(
        "/v1/seals?wait=attested&deadlineSeconds=30",
        &[("Content-Type", "text/plain")],
        document.as_bytes(),
    )?;
    anyhow::ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    let facts = answer.json()?["facts"].clone();
    anyhow::ensure!(facts.as_array().is_some_and(|f| f.iter().any(|f| f == "attested")), "{facts}");
    Ok(answer)
}

#[test]
fn g2_any_older_copy_of_the_database_is_noticed_and_an_operator_has_a_way_out() -> Result<()> {
    let mut rig = Rig::start_with(&RigOptions { extra: EAGER, ..RigOptions::default() })?;
    let mut copies = Vec::new();
    let mut receipts = Vec::new();
    for round in 0..4 {
        let document = format!("document {round}");
        receipts.push((seal_attested(&rig, &document)?.seal()?, document));
        rig.sealer.stop()?;
        let copy = rig.directory().join(format!("copy-{round}"));
        copy_directory(&rig.state(), &copy)?;
        copies.push(copy);
        rig.sealer.start()?;
    }
    seal_attested(&rig, "the newest")?;
    rig.sealer.stop()?;
    let newest = rig.directory().join("newest");
    copy_directory(&rig.state(), &newest)?;

    for copy in &copies {
        copy_directory(copy, &rig.state())?;
        rig.sealer.start_unready()?;
        let ready = rig.client_with(None).get("/readyz")?;
        assert_eq!(ready.status, 503, "{}", String::from_utf8_lossy(&ready.body));
        let refused = rig.client(Role::Scanner).seal(b"on an old disk")?;
        assert_eq!(refused.status, 503);
        assert_eq!(refused.problem()?, "rollback-suspected");
        let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
        assert_eq!(status["condition"]["state"], "rollback-suspected", "{status}");
        assert_eq!(rig.client_with(None).get("/healthz")?.status, 200, "verification goes on");
        rig.sealer.kill()?;
    }

    // The newest disk is good again: nothing that was tried in between has moved anything.
    copy_directory(&newest, &rig.state())?;
    rig.sealer.start()?;
    assert_eq!(rig.client(Role::Scanner).seal(b"on the newest disk")?.status, 201);
    rig.sealer.stop()?;

    // When no newer disk can be had: a new incarnation that names the old log.
    copy_directory(&copies[1], &rig.state())?;
    rig.run(&["succeed", "--reason", "the disk died; the newest copy is from yesterday"])?;
    rig.sealer.start()?;
    let answer = rig.client(Role::Scanner).seal(b"in the new log")?;
    assert_eq!(answer.status, 201);
    let seal = answer.seal()?;
    assert_ne!(seal.origin, receipts[0].0.origin, "never a second history under the old name");
    assert_eq!(rig.judge(&seal, b"in the new log").report.verdict, Verdict::Valid);
    for (seal, document) in &receipts {
        let judged = rig.judge(seal, document.as_bytes());
        assert_eq!(
            judged.report.verdict,
            Verdict::Valid,
            "seals of the old log stay good: {}",
            judged.report
        );
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn g2_kill_9_at_any_step_of_a_window_is_never_taken_for_a_rollback() -> Result<()> {
    let mut rig = Rig::start_with(&RigOptions { extra: EAGER, ..RigOptions::default() })?;
    let kills = rounds(30, 1_000);
    let began = Instant::now();
    for kill in 0..kills {
        let scanner = rig.client(Role::Scanner);
        let waiting = std::thread::spawn(move || {
            // The answer does not matter: the box dies somewhere in this attestation window.
            let _ = scanner.post("/v1/seals?wait=attested", &[], format!("window {kill}").as_bytes());
        });
        // A window takes a few milliseconds on a swtpm; sweep over it, and a little beyond.
        std::thread::sleep(Duration::from_micros(500 + (kill as u64 * 733) % 25_000));
        rig.sealer.kill()?;
        waiting.join().ok().context("the client thread must not panic")?;
        rig.sealer.start().with_context(|| format!("after kill {kill}: {}", rig.log()))?;
        let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
        assert_eq!(status["condition"]["state"], "sealing", "a false alarm after kill {kill}: {status}");
    }
    seal_attested(&rig, "after all of them")?;
    rig.sealer.stop()?;
    rig.fsck()?;
    println!("{kills} kills in attestation windows in {:?}, no false alarm", began.elapsed());
    Ok(())
}
