//! The workspace's test programs, run side by side: as many lanes as processors, each with one program at a time.
//!
//! - Most of what an end-to-end test does is wait for boxes and TPMs, so one program at a time leaves processors idle.
//! - What a program prints lies in `test-logs/` of the target directory while it runs, and is shown whole when it has
//!   ended: no two programs' lines are mixed.
//! - A program runs as under `cargo test`: in the directory of its package.
//! - Refuses to run any when cargo names none, or names one in a way that is not understood.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

/// How often the running programs are looked at.
const POLL: Duration = Duration::from_millis(50);

/// A test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// Package and target, for people and for the name of its log.
    pub name: String,
    program: PathBuf,
    /// Of its package's manifest.
    directory: PathBuf,
    /// Whether it is in a `tests` directory: these take longest, so they begin first.
    integration: bool,
}

/// What a program printed, and how it ended.
pub struct Outcome {
    pub suite: Suite,
    pub status: ExitStatus,
    pub output: String,
    pub took: Duration,
}

impl Suite {
    /// Every test program of the workspace, built by `cargo` (a `cargo test` command without options), the longest
    /// kind first.
    pub fn find(mut cargo: Command) -> Result<Vec<Self>> {
        let output = cargo
            .args(["--no-run", "--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo test")?;
        ensure!(output.status.success(), "the tests were not built ({})", output.status);
        let mut suites = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: Value =
                serde_json::from_str(line).context("cargo test --no-run printed what is no JSON")?;
            suites.extend(Self::of(&message)?);
        }
        ensure!(!suites.is_empty(), "cargo test named no test program: its output is not what was expected");
        suites.sort_by_key(|suite| !suite.integration);
        Ok(suites)
    }

    /// The test program that a message of cargo is about, if it is about one.
    fn of(message: &Value) -> Result<Option<Self>> {
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return Ok(None);
        }
        let Some(program) = message["executable"].as_str() else { return Ok(None) };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let target =
            text(&message["target"]["name"]).context("cargo named a test program without a target")?;
        let manifest = text(&message["manifest_path"]).context("cargo named a target without a manifest")?;
        let directory = Path::new(&manifest).parent().context("a manifest lies in no directory")?.to_owned();
        let package = directory.file_name().context("a manifest lies in no directory")?.to_string_lossy();
        let kind = message["target"]["kind"][0].as_str().context("cargo named a target without a kind")?;
        // A package's library and program may have one name, and both have tests.
        let name = match kind {
            "test" => format!("{package}--{target}"),
            kind => format!("{package}--{target}--{kind}"),
        };
        Ok(Some(Self { name, program: program.into(), directory, integration: kind == "test" }))
    }

    /// Runs these tests of it, one at a time and with nothing beside them.
    pub fn run_alone(&self, workspace: &Workspace, names: &[String]) -> Result<Outcome> {
        let arguments = names.iter().map(String::as_str).chain(["--exact"]);
        let mut lane = Lane::start(workspace, self.clone(), arguments, 1)?;
        loop {
            if let Some(outcome) = lane.ended()? {
                return Ok(outcome);
            }
            sleep(POLL);
        }
    }
}

/// Runs all of them, `lanes` at a time, each with `threads` tests at a time, and hands over each that ends.
pub fn run(
    workspace: &Workspace,
    suites: Vec<Suite>,
    lanes: usize,
    threads: usize,
    mut ended: impl FnMut(Outcome) -> Result<()>,
) -> Result<()> {
    let mut waiting = VecDeque::from(suites);
    let mut running: Vec<Lane> = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < lanes.max(1)
            && let Some(suite) = waiting.pop_front()
        {
            running.push(Lane::start(workspace, suite, [], threads)?);
        }
        sleep(POLL);
        let mut at = 0;
        while at < running.len() {
            match running[at].ended()? {
                None => at += 1,
                Some(outcome) => {
                    running.swap_remove(at);
                    ended(outcome)?;
                }
            }
        }
    }
    Ok(())
}

/// A program at work. Dropping it ends it.
struct Lane {
    suite: Suite,
    log: PathBuf,
    started: Instant,
    process: Child,
}

impl Lane {
    fn start<'a>(
        workspace: &Workspace,
        suite: Suite,
        arguments: impl IntoIterator<Item = &'a str>,
        threads: usize,
    ) -> Result<Self> {
        let logs = workspace.target.join("test-logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let log = logs.join(&suite.name).with_extension("log");
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().context("cannot share the log between output and errors")?;
        // setpriv: the program dies with this thread, the only one, however it dies (see `xtask::child`).
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(&suite.program)
            .args(arguments)
            .current_dir(&suite.directory)
            .envs(programs(workspace, "debug"))
            .env("RUST_TEST_THREADS", threads.to_string())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .context("cannot start a test program through setpriv (package util-linux)")?;
        Ok(Self { suite, log, started: Instant::now(), process })
    }

    fn ended(&mut self) -> Result<Option<Outcome>> {
        let name = &self.suite.name;
        let status =
            self.process.try_wait().with_context(|| format!("cannot ask for the state of {name}"))?;
        let Some(status) = status else { return Ok(None) };
        let output = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(Some(Outcome {
            suite: self.suite.clone(),
            status,
            // Tests may print bytes that are no UTF-8; that is not a reason to stop reading.
            output: String::from_utf8_lossy(&output).into_owned(),
            took: self.started.elapsed(),
        }))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // An error means that it has ended already, or that nothing can be done about it any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where tests find the programs that they start, of this profile.
pub fn programs(workspace: &Workspace, profile: &str) -> [(&'static str, PathBuf); 5] {
    let program = |name: &str| workspace.target.join(profile).join(name);
    [
        ("BULLA_BOX_BIN", program("bulla-box")),
        ("BULLA_BIN", program("bulla")),
        ("BULLA_FLEET_BIN", program("bulla-fleet")),
        ("BULLA_HUB_BIN", program("bulla-hub")),
        ("BULLA_SIGNER_BIN", program("bulla-signer")),
    ]
}

#[cfg(test)]
mod unit {
    use super::Suite;
    use serde_json::json;

    #[test]
    fn test_programs_are_told_from_other_artifacts() {
        let message = |kind: &str, test: bool, program: Option<&str>| {
            let message = json!({
                "reason": "compiler-artifact",
                "manifest_path": "/somewhere/ledger/Cargo.toml",
                "target": { "name": "faults", "kind": [kind] },
                "profile": { "test": test },
                "executable": program,
            });
            Suite::of(&message).unwrap().map(|suite| (suite.name, suite.integration))
        };
        assert_eq!(message("test", true, Some("/t/faults-1")), Some(("ledger--faults".to_owned(), true)));
        let unit = Some(("ledger--faults--lib".to_owned(), false));
        assert_eq!(message("lib", true, Some("/t/faults-2")), unit);
        assert_eq!(message("bin", false, Some("/t/faults")), None);
        assert_eq!(message("lib", false, None), None);
        assert_eq!(Suite::of(&json!({ "reason": "build-finished", "success": true })).unwrap(), None);
        let nameless =
            json!({ "reason": "compiler-artifact", "profile": { "test": true }, "executable": "/t/x" });
        assert!(Suite::of(&nameless).is_err());
    }
}
