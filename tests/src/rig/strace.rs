//! System calls of a running box that fail as told: strace attached to it, injecting errors.
//!
//! An injected call is not made at all; the box sees the error and nothing reaches the disk.
//! Refuses to do: skip. Without strace, or without the right to trace, the test fails and says so.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Attaching stops every thread once; a box has a dozen.
const ATTACHED_WITHIN: Duration = Duration::from_secs(20);

/// Faults that last until this value is dropped.
pub struct Faults {
    strace: Child,
    report: PathBuf,
    _directory: tempfile::TempDir,
}

impl Faults {
    /// From now on `call` of process `pid` fails with EIO on those occasions that `when` names, as strace's
    /// `when=` does (`3`, `1..4`, `1+`), counted for each thread.
    pub fn inject(pid: u32, call: &str, when: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let report = directory.path().join("report");
        let words = directory.path().join("words");
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-p", &pid.to_string(), "-o"])
            .arg(&report)
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error=EIO:when={when}")])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&words)?)
            .spawn()
            .context("strace cannot be started; install the package strace")?;
        let mut faults = Faults { strace, report, _directory: directory };
        let began = Instant::now();
        while traced_threads(pid)? == 0 {
            let said = || std::fs::read_to_string(&words).unwrap_or_default();
            ensure!(faults.strace.try_wait()?.is_none(), "strace has ended: {}", said());
            ensure!(began.elapsed() < ATTACHED_WITHIN, "strace does not attach: {}", said());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(faults)
    }

    /// How many calls have failed so far.
    pub fn failed(&self) -> usize {
        let report = std::fs::read_to_string(&self.report).unwrap_or_default();
        report.lines().filter(|line| line.ends_with("(INJECTED)")).count()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // SIGTERM makes strace let go of the box and end; SIGKILL might take the box along.
        let asked = Command::new("kill").args(["-TERM", &self.strace.id().to_string()]).status();
        let ended = self.strace.wait();
        if !(asked.is_ok_and(|status| status.success()) && ended.is_ok()) {
            eprintln!("strace could not be ended");
        }
    }
}

/// Threads of the process that somebody traces; all of them, or none.
fn traced_threads(pid: u32) -> Result<usize> {
    let (mut all, mut traced) = (0, 0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the box has ended")? {
        let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        all += 1;
        traced += usize::from(tracer.is_some_and(|tracer| tracer.trim() != "0"));
    }
    Ok(if all == traced { traced } else { 0 })
}
