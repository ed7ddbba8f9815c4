//! schemathesis asks a real box whatever its OpenAPI document allows, and much that it forbids: no 5xx, no answer that
//! is not described, nothing malformed accepted. Then the box is alive and its log whole.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::described;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, soak};
use std::path::Path;
use std::process::Command;

/// One run with one role's token; `arguments` say how much.
fn ask(rig: &Rig, role: Role, arguments: &[&str]) -> Result<()> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis.toml");
    let output = Command::new(described::schemathesis()?)
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("{}/openapi.json", rig.sealer.url()), "--no-color"])
        .arg("--tls-verify")
        .arg(rig.file("ca.pem"))
        .args(["--header", &format!("Authorization: Bearer {}", rig.token(role))])
        // A stream has no end to wait for; tests/tests/box_events.rs is about it. Of DER it knows nothing; box_tsa.rs does.
        .args(["--exclude-operation-id", "events", "--exclude-operation-id", "stampTime"])
        .args(["--request-timeout", "30"])
        .args(arguments)
        .current_dir(rig.directory())
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .context("cannot start schemathesis")?;
    let said = String::from_utf8_lossy(&output.stdout);
    // It repeats whole requests, some of them of megabytes.
    let short: Vec<String> = said.lines().map(|line| line.chars().take(400).collect()).collect();
    ensure!(
        output.status.success(),
        "as {role:?}:\n{}\n{}",
        short.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    let count = said.lines().find(|line| line.contains("generated")).unwrap_or_default();
    println!("as {role:?}: {}", count.trim());
    ensure!(!count.is_empty(), "schemathesis did not say what it did:\n{}", short.join("\n"));
    Ok(())
}

#[test]
fn the_api_keeps_to_its_document() -> Result<()> {
    let software = RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() };
    let mut rig = Rig::start_with(&software)?;
    let few = ["--generation-deterministic", "--max-examples", "5"];
    let many = ["--max-examples", "500", "--max-time", "1800"];
    let amount = if soak() { &many[..] } else { &few };
    // The scanner reaches all but metrics and epochs; the others differ from it in what they may.
    ask(&rig, Role::Scanner, amount)?;
    for (role, paths) in
        [(Role::Reader, "^/(metrics|v1/status)$"), (Role::Operator, "^/v1/(epochs|backups)$")]
    {
        let part = ["--include-path-regex", paths, "--phases", "coverage,fuzzing"];
        ask(&rig, role, &[&part[..], amount].concat())?;
    }
    rig.sealer.require_alive()?;
    let made = rig.client(Role::Scanner).seal(b"afterwards")?;
    ensure!(made.status == 201, "{}", String::from_utf8_lossy(&made.body));
    ensure!(!rig.log().contains("panicked"), "{}", rig.log());
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}
