//! `docs/interop.md`, run as it stands: stock programs against a box on a TPM.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::recipe::section;
use bulla_tests::rig::stamp::UNSTATED;
use bulla_tests::rig::{Rig, RigOptions, bulla_program};
use std::path::PathBuf;
use xtask::samples;

/// The directory of the Python that has pyHanko: below the target directory, where `cargo xtask setup` puts it; or that of
/// `BULLA_PYHANKO_PYTHON`.
fn pyhanko() -> Result<PathBuf> {
    let python = match std::env::var_os("BULLA_PYHANKO_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let target = test.ancestors().nth(3).context("a test binary is three levels below the target")?;
            target.join("tools/pyhanko/bin/python3")
        }
    };
    ensure!(python.is_file(), "{} is missing; run: cargo xtask setup", python.display());
    Ok(python.parent().context("a program is in a directory")?.to_owned())
}

#[test]
fn time_stamps_as_the_page_says() -> Result<()> {
    let rig = Rig::start_with(&RigOptions { extra: UNSTATED, ..RigOptions::default() })?;
    let token = rig.add_client("desk-1", "scanner")?;
    let place = tempfile::tempdir()?;
    let page: &[&str] = &["1. The parties keep to what is written here."];
    std::fs::write(place.path().join("contract.pdf"), samples::pdf("Contract", &[page]))?;
    for name in ["ca.pem", "trust.json"] {
        std::fs::copy(rig.file(name), place.path().join(name))?;
    }
    let bulla = bulla_program()?;
    let own = bulla.parent().context("a program is in a directory")?;
    let system = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{system}", pyhanko()?.display(), own.display());
    let box_url = rig.sealer.url();
    let variables = [
        ("BOX", box_url.as_str()),
        ("TOKEN", &token),
        ("PATH", &path),
        ("NO_PROXY", "*"),
        ("LC_ALL", "C.UTF-8"),
    ];
    for step in section(include_str!("../../docs/interop.md"), "Time stamps (RFC 3161)")? {
        println!("{}\n", step.commands);
        println!("{}", step.run(place.path(), &variables)?);
    }
    Ok(())
}
