//! Programs that run beside xtask and never outlive it.
//!
//! - Dropping a [`Child`] asks it to stop, waits, and then kills it.
//! - When xtask itself is killed (Ctrl-C, SIGTERM, even SIGKILL) no destructor runs; the kernel then ends the child,
//!   because it was started through util-linux's `setpriv --pdeathsig`, which needs no unsafe code and no signal
//!   handler here. The kernel ties this to the *thread* that spawned it: start children from the main thread.
//! - Standard output and error go to a log file, which every failure names.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(20);
/// Time for a clean stop before the child is killed: a box finishes its batch and tells its TPM to shut down.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A running program with its log.
pub struct Child {
    name: &'static str,
    log: PathBuf,
    process: std::process::Child,
}

impl Child {
    /// Starts `program` with `arguments` in `directory`, with its output in `log` (appended).
    pub fn spawn(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        directory: &Path,
        log: &Path,
    ) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().context("cannot share the log between output and errors")?;
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {name} through setpriv (package util-linux)"))?;
        Ok(Self { name, log: log.to_path_buf(), process })
    }

    /// Waits until `ready` says yes. Fails when the program ends before that, or when `within` has passed.
    pub fn wait_until(
        &mut self,
        within: Duration,
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.ended()? {
                bail!(
                    "{} ended ({status}) before it {what}; its last words:\n{}",
                    self.name,
                    self.last_words()
                );
            }
            if started.elapsed() > within {
                bail!(
                    "{} has not {what} within {} s; its last words:\n{}",
                    self.name,
                    within.as_secs(),
                    self.last_words()
                );
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_wait().with_context(|| format!("cannot ask for the state of {}", self.name))
    }

    /// Its process id; `setpriv` replaces itself, so this is the program's.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL: no clean-up, as a crash would leave it.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.process.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// SIGTERM, and its exit status. Fails when it does not stop in time (it is then killed).
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.terminate()
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        // The process is our unreaped child, so its id cannot have been given to another process.
        // The shell's own kill: a minimal system has no program of that name.
        let signalled =
            Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.process.id().to_string()]).status();
        let deadline = Instant::now() + STOP_WITHIN;
        while signalled.as_ref().is_ok_and(|status| status.success()) && Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            sleep(POLL);
        }
        self.process.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.process.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        bail!(
            "{} did not stop on SIGTERM within {} s and was killed; see {}",
            self.name,
            STOP_WITHIN.as_secs(),
            self.log.display()
        )
    }

    /// The end of its log, for error messages.
    pub fn last_words(&self) -> String {
        last_lines(&self.log, 12)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Reached only on a path that already reports something; a second error has nowhere to go.
        let _ = self.terminate();
    }
}

/// The last `count` lines of a text file, indented; empty when it cannot be read.
fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("    {line}\n")).collect()
}
