//! System calls of a running box that fail, or take long, as told: strace attached to it.
//!
//! A call that is made to fail is not made at all; the box sees the error and nothing reaches the disk.
//! Refuses to do: skip. Without strace, or without the right to trace, the test fails and says so.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
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
        let inject = format!("inject={call}:error=EIO:when={when}");
        Self::attach(
            pid,
            &["-f", "-p", &pid.to_string(), "-e", &format!("trace={call}"), "-e", &inject],
            || Ok(traced_threads(pid)? > 0),
        )
    }

    /// From now on every flush of the box's thread of this name takes at least `pause`; other threads are as fast as ever.
    pub fn slow_flushes(pid: u32, thread: &str, pause: Duration) -> Result<Self> {
        let id = thread_id(pid, thread)?;
        let inject = format!("inject=fdatasync,fsync:delay_enter={}", pause.as_micros());
        Self::attach(pid, &["-p", &id.to_string(), "-e", "trace=fdatasync,fsync", "-e", &inject], || {
            Ok(is_traced(&PathBuf::from(format!("/proc/{pid}/task/{id}"))))
        })
    }

    fn attach(pid: u32, arguments: &[&str], attached: impl Fn() -> Result<bool>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let report = directory.path().join("report");
        let words = directory.path().join("words");
        let strace = Command::new("strace")
            .args(["-qq", "-o"])
            .arg(&report)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&words)?)
            .spawn()
            .context("strace cannot be started; install the package strace")?;
        let mut faults = Faults { strace, report, _directory: directory };
        let began = Instant::now();
        while !attached()? {
            let said = || std::fs::read_to_string(&words).unwrap_or_default();
            ensure!(faults.strace.try_wait()?.is_none(), "strace has ended: {}", said());
            ensure!(began.elapsed() < ATTACHED_WITHIN, "strace does not attach to {pid}: {}", said());
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
        all += 1;
        traced += usize::from(is_traced(&task?.path()));
    }
    Ok(if all == traced { traced } else { 0 })
}

fn is_traced(task: &Path) -> bool {
    let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// The id of the process's thread of this name.
pub fn thread_id(pid: u32, name: &str) -> Result<u32> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the box has ended")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim() == name {
            let id = path.file_name().and_then(|id| id.to_str()).context("a thread has a number")?;
            return Ok(id.parse()?);
        }
    }
    bail!("the box has no thread {name}")
}
