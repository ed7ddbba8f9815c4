//! Files through a hot folder against the same number posted by curl, in turns, to one box.
//!
//! Refuses to do: count the second for which files have to rest, which is the folder's nature and not its speed; count a file
//! that is not sealed.

use super::ROUNDS;
use anyhow::{Result, ensure};
use bulla_tests::rig::Role;
use bulla_tests::rig::branch::{Branch, until};
use bulla_tests::rig::folder::{pdf, seals_of};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Files of a round.
const FILES: u32 = 400;
/// Bytes of each.
const BYTES: usize = 50_000;
/// How long the rig's folders let a file rest.
const REST: Duration = Duration::from_secs(1);

/// Prints both rates.
pub fn measure() -> Result<()> {
    let branch = Branch::start("jobs = 8\n", "")?;
    let (mut through, mut posted) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let first = u32::try_from(round)? * 2 * FILES;
        posted.push(post(&branch, first)?);
        through.push(drop_in(&branch, first + FILES)?);
    }
    let expected = ROUNDS * FILES as usize;
    let sealed = (seals_of(&branch.rig, "desk-1")?.len(), seals_of(&branch.rig, "scanner-1")?.len());
    ensure!(sealed == (expected, expected), "{sealed:?} are sealed, and {expected} each were to be");
    println!("\n{FILES} files of {} kB at once, eight at a time\n", BYTES / 1_000);
    println!("| what | files/s |");
    println!("|---|---|");
    for (what, mut took) in [
        ("through a folder, seal and receipt beside each, synced", through),
        ("posted by curl, eight connections", posted),
    ] {
        took.sort_unstable();
        println!("| {what} | {:.0} |", f64::from(FILES) / took[ROUNDS / 2].as_secs_f64());
    }
    Ok(())
}

/// How long curl takes to post so many.
fn post(branch: &Branch, first: u32) -> Result<Duration> {
    let elsewhere = tempfile::tempdir()?;
    let url = format!("{}/v1/seals", branch.rig.sealer.url());
    let mut curl = Command::new("curl");
    curl.args(["--parallel", "--parallel-max", "8"]);
    for number in 0..FILES {
        let path = elsewhere.path().join(format!("{number}.pdf"));
        fs::write(&path, pdf(first + number, BYTES))?;
        if number > 0 {
            curl.arg("--next");
        }
        curl.args(["--silent", "--show-error", "--fail", "--cacert"]).arg(branch.rig.file("ca.pem"));
        curl.args(["--header", &format!("Authorization: Bearer {}", branch.rig.token(Role::Scanner))]);
        curl.args(["--header", "Content-Type: application/pdf"]);
        curl.arg("--data-binary").arg(format!("@{}", path.display()));
        curl.arg("--output").arg(elsewhere.path().join(format!("{number}.json"))).arg(&url);
    }
    let began = Instant::now();
    let output = curl.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(began.elapsed())
}

/// How long a folder takes for so many, once they have rested.
fn drop_in(branch: &Branch, first: u32) -> Result<Duration> {
    let sealed = || -> Result<u64> { Ok(branch.status()?["sealed"].as_u64().unwrap_or(0)) };
    let before = sealed()?;
    for number in first..first + FILES {
        fs::write(branch.folder.join(format!("{number}.pdf")), pdf(number, BYTES))?;
    }
    let began = Instant::now();
    until("all are sealed", || Ok((sealed()? == before + u64::from(FILES)).then_some(())))?;
    Ok(began.elapsed().saturating_sub(REST).max(Duration::from_millis(1)))
}
