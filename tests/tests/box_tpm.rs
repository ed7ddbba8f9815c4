//! The TPM away, back, slow, and every residency: sealing goes on, attestation resumes.

use anyhow::{Context, Result};
use bulla_formats::entry::{Entry, Residency};
use bulla_formats::report::{Fact, Verdict};
use bulla_tests::rig::proxy::SlowTpm;
use bulla_tests::rig::{Client, Keys, Rig, RigOptions, Role};
use std::time::{Duration, Instant};

fn seal(client: &Client, document: &str) -> Result<bulla_formats::seal_file::SealFile> {
    let answer = client.seal(document.as_bytes())?;
    anyhow::ensure!(answer.status == 201, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    answer.seal()
}

/// Asks again until the newest evidence has a quote.
fn attested(
    client: &Client,
    seal: &bulla_formats::seal_file::SealFile,
) -> Result<bulla_formats::seal_file::SealFile> {
    let entry = Entry::decode(&seal.entry)?;
    let id = format!("{}-{}", entry.content().index, hex::encode(&entry.leaf_hash().0[..8]));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.get(&format!("/v1/seals/{id}/seal-file"))?;
        anyhow::ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        let newest = answer.seal()?;
        if newest.heads.iter().any(|head| head.pcrs.is_some()) {
            return Ok(newest);
        }
        anyhow::ensure!(Instant::now() < deadline, "entry {id} was not attested within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn g8_all_residencies_seal_and_say_so() -> Result<()> {
    for (keys, residency, expected) in [
        (Keys::Tpm, "tpm-endorsed-ram", Residency::TpmEndorsedRam),
        (Keys::Tpm, "tpm", Residency::Tpm),
        (Keys::Software, "software", Residency::Software),
    ] {
        let rig = Rig::start_with(&RigOptions { keys, residency, ..RigOptions::default() })?;
        let seal = seal(&rig.client(Role::Scanner), residency)?;
        let judged = rig.judge(&seal, residency.as_bytes());
        assert_eq!(judged.report.verdict, Verdict::Valid, "{residency}: {}", judged.report);
        let verified = judged.seal.context("a valid seal is a verified one")?;
        assert_eq!(verified.entry().content().residency, expected);
        let answer = rig.client(Role::Scanner).post("/v1/seals?wait=attested", &[], b"attest me")?;
        let judged = rig.judge(&answer.seal()?, b"attest me");
        assert_eq!(judged.report.verdict, Verdict::Valid, "{residency}: {}", judged.report);
        let has_quote = judged.report.facts.contains(&Fact::Attested);
        assert_eq!(has_quote, keys == Keys::Tpm, "{residency}: {}", judged.report);
    }
    Ok(())
}

#[test]
fn g4_a_dead_tpm_costs_no_seal_and_attestation_resumes() -> Result<()> {
    let extra = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 1\ntimeout_seconds = 2";
    let mut rig = Rig::start_with(&RigOptions { extra, ..RigOptions::default() })?;
    let scanner = rig.client(Role::Scanner);
    let before = seal(&scanner, "before")?;
    attested(&scanner, &before)?;
    rig.tpm.as_mut().context("a TPM box has one")?.crash()?;
    let mut during = Vec::new();
    for round in 0..30 {
        during.push((seal(&scanner, &format!("during {round}"))?, format!("during {round}")));
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    assert!(status["attestationTrouble"].is_string(), "the status names the trouble: {status}");
    rig.tpm.as_mut().context("a TPM box has one")?.start()?;
    for (seal, document) in &during {
        let newest = attested(&scanner, seal)?;
        let judged = rig.judge(&newest, document.as_bytes());
        assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
        assert!(judged.report.facts.contains(&Fact::Attested), "{}", judged.report);
    }
    rig.sealer.stop()?;
    let report = rig.fsck()?;
    assert!(rig.log().contains("the TPM attests again"), "{report}");
    Ok(())
}

#[test]
fn g4_a_slow_tpm_delays_no_seal() -> Result<()> {
    let (tpm, directory) = Rig::manufacture_tpm()?;
    let proxy = SlowTpm::start(tpm.port())?;
    let tcti = proxy.tcti();
    let extra = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 1";
    let options = RigOptions { tcti: Some(&tcti), extra, ..RigOptions::default() };
    let mut rig = Rig::create_on(&options, Some((tpm, directory)))?;
    rig.sealer.start()?;
    let scanner = rig.client(Role::Scanner);
    let first = seal(&scanner, "warm up")?;
    proxy.delay(Duration::from_millis(600));
    let mut slowest = Duration::ZERO;
    for round in 0..100 {
        let begun = Instant::now();
        seal(&scanner, &format!("slow {round}"))?;
        slowest = slowest.max(begun.elapsed());
        std::thread::sleep(Duration::from_millis(30));
    }
    let quoted = attested(&scanner, &first)?;
    assert!(quoted.heads.iter().any(|head| head.pcrs.is_some()));
    println!("100 seals while every TPM command took 600 ms: the slowest took {slowest:?}");
    // Not a speed limit: one TPM command in the write path would show as 600 ms on every seal.
    let last = seal(&scanner, "last")?;
    attested(&scanner, &last)?;
    assert!(proxy.commands() > 10, "the proxy saw the quotes");
    Ok(())
}

#[test]
fn epochs_rotate_by_count_and_by_command() -> Result<()> {
    let extra = "epoch_max_seals = 5";
    let mut rig = Rig::start_with(&RigOptions { extra, ..RigOptions::default() })?;
    let (scanner, operator) = (rig.client(Role::Scanner), rig.client(Role::Operator));
    let mut epochs = std::collections::BTreeSet::new();
    for round in 0..60 {
        let document = format!("document {round}");
        let file = seal(&scanner, &document)?;
        let judged = rig.judge(&file, document.as_bytes());
        assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
        epochs.insert(Entry::decode(&file.entry)?.content().epoch);
        if round % 20 == 19 {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let answer = operator.post(
                    "/v1/epochs",
                    &[("Content-Type", "application/json")],
                    br#"{"reason":"a test"}"#,
                )?;
                if answer.status / 100 == 2 {
                    break;
                }
                // The next epoch is endorsed beside the write path; right after a rotation it may not be ready.
                assert_eq!(answer.status, 503, "{}", String::from_utf8_lossy(&answer.body));
                anyhow::ensure!(Instant::now() < deadline, "no epoch within 20 s");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    assert!(epochs.len() >= 4, "{epochs:?}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}
