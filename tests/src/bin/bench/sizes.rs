//! The same log at several sizes: append rate, proofs, reopening after SIGKILL, memory, disk.
//!
//! Logs are filled once, each going on from a copy of the smaller one. Then the sizes take turns: a child times
//! appends and is killed amid them, the next child times the reopening and proofs. Figures are medians of the turns.
//! Refuses to do: leave its directories behind.

use crate::figures::{Sized, median_of};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ROUNDS: usize = 3;
/// From the child's word that it appends without end to its death.
const BEFORE_KILL: Duration = Duration::from_millis(150);

/// Measures `sizes`, ascending, in a directory below `place`; prints the table.
pub fn measure(place: &Path, sizes: &[u64]) -> Result<Vec<Sized>> {
    let home = tempfile::Builder::new().prefix("bulla-sizes-").tempdir_in(place)?;
    let needed = sizes.iter().sum::<u64>() * 600 + (1 << 30);
    let free = free_bytes(place)?;
    ensure!(free > needed, "{} has {free} bytes free, these sizes need {needed}", place.display());
    let mut logs: Vec<(u64, PathBuf, u64, u64)> = Vec::new();
    for size in sizes {
        let dir = home.path().join(size.to_string());
        std::fs::create_dir(&dir)?;
        let mut entry_bytes = 0;
        if let Some((_, smaller, _, bytes)) = logs.last() {
            copy(smaller, &dir)?;
            entry_bytes = *bytes;
        }
        let figures = run(&["fill", &text(&dir)?, &size.to_string()], Some(*size))?;
        entry_bytes += figure(&figures, "entry_bytes")? as u64;
        logs.push((*size, dir.clone(), allocated(&dir)?, entry_bytes));
    }
    let mut turns: Vec<Vec<HashMap<String, f64>>> = vec![Vec::new(); logs.len()];
    for round in 0..ROUNDS {
        for (at, (size, dir, ..)) in logs.iter().enumerate() {
            eprint!("\rround {} of {ROUNDS}: {size} entries, appends, SIGKILL, reopening   ", round + 1);
            // A small log would grow with every turn, so it is its copy that takes the appends.
            let copied = home.path().join("turn");
            let dir = if *size <= 100_000 {
                std::fs::create_dir(&copied)?;
                copy(dir, &copied)?;
                copied.clone()
            } else {
                dir.clone()
            };
            let mut figures = run(&["append", &text(&dir)?], None)?;
            let looked = run(&["look", &text(&dir)?], None)?;
            let peak = figure(&figures, "rss_peak")?.max(figure(&looked, "rss_peak")?);
            figures.extend(looked);
            figures.insert("rss_peak".to_owned(), peak);
            turns[at].push(figures);
            if copied.exists() {
                std::fs::remove_dir_all(&copied)?;
            }
        }
    }
    eprintln!();
    let mut measured = Vec::new();
    for ((size, _, disk, entry_bytes), turns) in logs.iter().zip(turns) {
        let of = |name: &str| median_of(turns.iter().filter_map(|turn| turn.get(name).copied()));
        measured.push(Sized {
            entries: *size,
            batched: of("batched_per_second"),
            single: of("single_per_second"),
            single_p99_ms: of("single_p99_us") / 1e3,
            proof_p50_ms: of("proof_p50_us") / 1e3,
            proof_p99_ms: of("proof_p99_us") / 1e3,
            open_seconds: of("open_ms") / 1e3,
            stranger_us: of("stranger_p50_us"),
            rss_mb: of("rss_peak") / 1024.0,
            entry_bytes: *entry_bytes as f64 / *size as f64,
            disk_bytes: *disk as f64 / *size as f64,
        });
    }
    print(&measured);
    Ok(measured)
}

fn print(measured: &[Sized]) {
    println!("\nOne log at several sizes ({ROUNDS} turns, medians; batches of 512 and single entries)\n");
    println!(
        "| entries | batched/s | of smallest | single/s | p99 ms | proof p50 ms | p99 ms | reopen after kill -9 s \
         | never sealed µs | peak RSS MB | entry B | disk B | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for log in measured {
        println!(
            "| {} | {:.0} | {:.0} % | {:.0} | {:.2} | {:.3} | {:.3} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} | {:.2} |",
            log.entries,
            log.batched,
            100.0 * log.batched / measured[0].batched,
            log.single,
            log.single_p99_ms,
            log.proof_p50_ms,
            log.proof_p99_ms,
            log.open_seconds,
            log.stranger_us,
            log.rss_mb,
            log.entry_bytes,
            log.disk_bytes,
            log.disk_bytes / log.entry_bytes
        );
    }
}

/// Runs an act of `bench log` and collects its figures; one that says `appending` is killed amid it.
fn run(act: &[&str], goal: Option<u64>) -> Result<HashMap<String, f64>> {
    let mut command = Command::new(std::env::current_exe()?);
    let child =
        command.arg("log").args(act).stdout(Stdio::piped()).spawn().context("cannot start a child")?;
    let mut child = Killed(child);
    let output = child.0.stdout.take().context("the child has no output")?;
    let mut figures = HashMap::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        let Some((name, value)) = line.split_once(' ') else { bail!("the child said {line:?}") };
        let value: f64 = value.parse().with_context(|| format!("the child said {line:?}"))?;
        match (name, goal) {
            ("progress", Some(goal)) => {
                let percent = 100.0 * value / goal as f64;
                eprint!("\rfilling a log of {goal} entries: {percent:.0} %   ");
                std::io::stderr().flush()?;
            }
            ("appending", _) => {
                std::thread::sleep(BEFORE_KILL);
                child.0.kill()?;
                child.0.wait()?;
                return Ok(figures);
            }
            _ => drop(figures.insert(name.to_owned(), value)),
        }
    }
    let status = child.0.wait()?;
    ensure!(status.success(), "bench log {} ended with {status}", act.join(" "));
    Ok(figures)
}

/// A child that does not outlive an error.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already gone in the good case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn figure(figures: &HashMap<String, f64>, name: &str) -> Result<f64> {
    figures.get(name).copied().with_context(|| format!("the child did not tell {name}"))
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a directory's name is not UTF-8")?.to_owned())
}

/// Copies the files of a directory, holes as holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-r").arg("--sparse=always").arg(from.join(".")).arg(to).status()?;
    ensure!(copied.success(), "cp ended with {copied}");
    Ok(())
}

/// Bytes on the disk; redb makes files longer than what it has written.
fn allocated(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for file in std::fs::read_dir(dir)? {
        bytes += file?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

fn free_bytes(place: &Path) -> Result<u64> {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(place).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("df prints the free space")
}
