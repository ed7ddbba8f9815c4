//! A box whose TPM is a signer's: it seals and is attested as ever, has no connection to the TPM of its own, and outlives
//! its signer.

use anyhow::{Context, Result, ensure};
use bulla_formats::report::{Fact, Verdict};
use bulla_tests::rig::proxy::SlowTpm;
use bulla_tests::rig::{Client, Rig, RigOptions, Role, signer_program};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const QUICK: &str = "[attestation]\nwindow_seconds = 1\ncounter_seconds = 1\ntimeout_seconds = 2";

/// A `bulla-signer` that runs. Dropping it kills it.
struct Signer {
    socket: PathBuf,
    /// Counts what the TPM is asked.
    tpm: SlowTpm,
    child: Child,
}

impl Signer {
    fn start(directory: &Path, tpm_port: u16) -> Result<Self> {
        let (socket, tpm) = (directory.join("signer"), SlowTpm::start(tpm_port)?);
        let child = Self::spawn(&socket, &tpm.tcti())?;
        Ok(Signer { socket, tpm, child })
    }

    fn spawn(socket: &Path, tcti: &str) -> Result<Child> {
        let mut child = Command::new(signer_program()?)
            .arg("--socket")
            .arg(socket)
            .args(["--tcti", tcti])
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start bulla-signer")?;
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            ensure!(child.try_wait()?.is_none(), "bulla-signer has ended");
            ensure!(began.elapsed() < Duration::from_secs(60), "bulla-signer does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(child)
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn again(&mut self) -> Result<()> {
        self.child = Self::spawn(&self.socket, &self.tpm.tcti())?;
        Ok(())
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.kill();
    }
}

fn started(residency: &str, extra: &str) -> Result<(Rig, Signer)> {
    let (tpm, directory) = Rig::manufacture_tpm()?;
    let signer = Signer::start(directory.path(), tpm.port())?;
    let tcti = format!("signer:{}", signer.socket.display());
    let options = RigOptions { tcti: Some(&tcti), residency, extra, ..RigOptions::default() };
    let mut rig = Rig::create_on(&options, Some((tpm, directory)))?;
    rig.sealer.start()?;
    Ok((rig, signer))
}

/// Seals it and has it quoted, as soon as the box does.
fn attested(rig: &Rig, document: &[u8]) -> Result<()> {
    let began = Instant::now();
    let answer = loop {
        let answer = rig.client(Role::Scanner).post("/v1/seals?wait=attested", &[], document)?;
        // With its sealing key in the TPM a box is locked until it has noticed that the signer is back.
        if answer.status == 201 {
            break answer;
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "{}", String::from_utf8_lossy(&answer.body));
        std::thread::sleep(Duration::from_millis(100));
    };
    let judged = rig.judge(&answer.seal()?, document);
    ensure!(judged.report.verdict == Verdict::Valid, "{}", judged.report);
    ensure!(judged.report.facts.contains(&Fact::Attested), "{}", judged.report);
    Ok(())
}

fn status(client: &Client) -> Result<serde_json::Value> {
    client.get("/v1/status")?.json()
}

#[test]
fn g8_a_box_seals_by_a_signer_that_alone_has_the_tpm() -> Result<()> {
    for residency in ["tpm-endorsed-ram", "tpm"] {
        let (mut rig, mut signer) = started(residency, QUICK)?;
        attested(&rig, residency.as_bytes())?;
        // What reaches the TPM, the signer sent: without it nothing does, whatever the box would like.
        signer.kill()?;
        let asked = signer.tpm.commands();
        ensure!(asked > 0, "the TPM was asked");
        let answer = rig.client(Role::Scanner).seal(b"alone")?;
        let attested_alone = answer.status == 201
            && rig.judge(&answer.seal()?, b"alone").report.facts.contains(&Fact::Attested);
        assert!(!attested_alone, "nobody can have attested it");
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(signer.tpm.commands(), asked);
        signer.again()?;
        attested(&rig, b"together")?;
        rig.sealer.stop()?;
        rig.fsck()?;
    }
    Ok(())
}

#[test]
fn g4_a_dead_signer_costs_no_seal_and_attestation_resumes() -> Result<()> {
    let (mut rig, mut signer) = started("tpm-endorsed-ram", QUICK)?;
    attested(&rig, b"before")?;
    for round in 0..3 {
        signer.kill()?;
        let began = Instant::now();
        loop {
            let answer = rig.client(Role::Scanner).seal(b"while it is dead")?;
            ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
            let status = status(&rig.client(Role::Operator))?;
            if let Some(trouble) = status["attestationTrouble"].as_str() {
                ensure!(trouble.contains("signer"), "{trouble}");
                break;
            }
            ensure!(began.elapsed() < Duration::from_secs(60), "round {round}: nobody says so: {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
        signer.again()?;
        attested(&rig, format!("after {round}").as_bytes())?;
    }
    // And the box comes back while its signer is away: it says so, and starts once it is there.
    rig.sealer.kill()?;
    signer.kill()?;
    let output = rig.try_run(&["run"])?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned() + &rig.log();
    ensure!(!output.status.success() && words.contains("the signer at"), "{words}");
    signer.again()?;
    rig.sealer.start()?;
    attested(&rig, b"again")?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_signer_that_cannot_serve_says_why() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for (socket, tcti, reason) in [
        (directory.path().join("s"), "device:tpm0", "absolute path"),
        (directory.path().join("s"), "signer:/run/bulla-signer/socket", "expected device:"),
        (directory.path().join("no/such/place"), "device:/dev/tpmrm0", "No such file"),
    ] {
        let output =
            Command::new(signer_program()?).arg("--socket").arg(socket).args(["--tcti", tcti]).output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains(reason), "{words}");
    }
    Ok(())
}
