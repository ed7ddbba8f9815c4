//! Everything CI runs, in the order in which it is cheapest to fail: format, licences, lints, documentation, fuzzing,
//! tests. Fuzzing comes before the tests so that their count stays the last line.
//!
//! - Each step is announced with the time so far; the first that fails ends the run with the command that repeats it.
//! - `Cargo.lock` is taken as it is (`--locked`): what CI checked is what is committed.
//! - Security advisories are not looked at, because their database is not in reach of every machine that runs this.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::fuzz::{self, Counters, Plan};
use crate::setup;
use crate::suites;
use crate::tests;
use crate::workspace::Workspace;

/// How long CI runs each fuzz target.
const FUZZ_SECONDS: u64 = 60;

/// Runs all checks. An error says which step did not run or not pass; failed tests have told so themselves by then, and
/// come back as [`ExitCode::FAILURE`], so that their count stays the last line.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let started = Instant::now();
    let step = |title: &str, command: &mut Command| step(started, title, command);

    step("format", workspace.cargo().args(["fmt", "--all", "--check"]))?;
    let deny = setup::cargo_deny(workspace).context("cargo-deny is missing; run: cargo xtask setup")?;
    step(
        "licences, bans, sources",
        Command::new(deny).current_dir(&workspace.root).args([
            "--locked",
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ]),
    )?;
    step(
        "lints",
        workspace.cargo().args([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    )?;
    step(
        "documentation",
        workspace
            .cargo()
            .args(["doc", "--locked", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    // Tests start the programs, so these must exist before any test runs; one invocation for programs and tests
    // gives both the same features, and compiles each dependency once.
    step(
        "build of programs and tests",
        workspace.cargo().args(["build", "--locked", "--workspace", "--all-targets"]),
    )?;
    fuzz_for(
        workspace,
        started,
        &Plan { target: None, seconds: FUZZ_SECONDS, jobs: 2, counters: Counters::OurCrates },
    )?;
    tests::run(workspace, started)
}

/// Builds and runs fuzz targets.
pub fn fuzz(workspace: &Workspace, plan: &Plan) -> Result<ExitCode> {
    fuzz_for(workspace, Instant::now(), plan)?;
    Ok(ExitCode::SUCCESS)
}

fn fuzz_for(workspace: &Workspace, started: Instant, plan: &Plan) -> Result<()> {
    step(started, "build of fuzz targets", &mut fuzz::build(workspace, plan.counters)?)?;
    announce(started, "fuzzing");
    fuzz::run(workspace, plan)
}

/// Builds the programs and the benchmark for release and runs it; the tables are its output. `arguments` go to the
/// benchmark; without any it measures everything and draws the committed plot.
pub fn bench(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let started = Instant::now();
    let programs = ["bulla-box", "bulla", "bulla-fleet", "bulla-hub", "bulla-tests"];
    let packages = programs.iter().flat_map(|package| ["-p", package]);
    step(
        started,
        "release build",
        workspace.cargo().args(["build", "--locked", "--release"]).args(packages),
    )?;
    let ceiling =
        ["build", "--locked", "--release", "-p", "bulla-ledger", "--example", "group_commit_ceiling"];
    step(started, "release build of the baseline", workspace.cargo().args(ceiling))?;
    let release = workspace.target.join("release");
    let mut bench = Command::new(release.join("bench"));
    bench.current_dir(&workspace.root).envs(suites::programs(workspace, "release"));
    bench.arg("--python").arg(setup::python(workspace)).args(arguments);
    if arguments.is_empty() {
        bench.args(["--plot", "docs/performance.svg"]);
    }
    step(started, "benchmark", &mut bench)?;
    Ok(ExitCode::SUCCESS)
}

/// The fault tests at full length, on the release build; then every fuzz target for `seconds`.
pub fn soak(workspace: &Workspace, seconds: u64) -> Result<ExitCode> {
    let started = Instant::now();
    let build = ["build", "--locked", "--release", "--workspace", "--all-targets"];
    step(started, "release build", workspace.cargo().args(build))?;
    let tests =
        ["test", "--locked", "--release", "-p", "bulla-tests", "--", "--test-threads=1", "--nocapture"];
    let mut soak = workspace.cargo();
    soak.args(tests).env("BULLA_SOAK", "1").envs(suites::programs(workspace, "release"));
    step(started, "fault tests at full length", &mut soak)?;
    for (title, name) in [
        ("a hundred thousand simulated boxes", "simulation"),
        ("fifty thousand simulated sites, and two thousand of fifty boxes for weeks", "gossip_simulation"),
    ] {
        let simulation =
            ["test", "--locked", "--release", "-p", "bulla-protocol", "--test", name, "--", "--nocapture"];
        step(started, title, workspace.cargo().args(simulation).env("BULLA_SOAK", "1"))?;
    }
    fuzz_for(workspace, started, &Plan { target: None, seconds, jobs: 2, counters: Counters::Everywhere })?;
    Ok(ExitCode::SUCCESS)
}

fn step(started: Instant, title: &str, command: &mut Command) -> Result<()> {
    announce(started, title);
    let status = command.status().with_context(|| format!("cannot start: {}", shell_line(command)))?;
    ensure!(
        status.success(),
        "{title}: not passed ({status}). To repeat this step:\n    {}",
        shell_line(command)
    );
    Ok(())
}

pub(crate) fn announce(started: Instant, title: &str) {
    let Elapsed { minutes, seconds } = started.elapsed().into();
    println!("=== {title} (after {minutes}:{seconds:02})");
}

pub(crate) struct Elapsed {
    pub(crate) minutes: u64,
    pub(crate) seconds: u64,
}

impl From<Duration> for Elapsed {
    fn from(elapsed: Duration) -> Self {
        Self { minutes: elapsed.as_secs() / 60, seconds: elapsed.as_secs() % 60 }
    }
}

/// The command as one would type it, with the environment it adds. Programs go by their names; no argument of ours
/// needs more quoting than spaces do.
pub(crate) fn shell_line(command: &Command) -> String {
    let quoted = |text: String| if text.contains(' ') { format!("'{text}'") } else { text };
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={}", name.display(), quoted(value?.display().to_string())))
    });
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let arguments = command.get_args().map(|argument| quoted(argument.display().to_string()));
    variables.chain([program.display().to_string()]).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod unit {
    use std::process::Command;

    use super::shell_line;

    #[test]
    fn a_command_to_repeat_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.arg("doc").env("RUSTDOCFLAGS", "--deny warnings");
        assert_eq!(shell_line(&command), "RUSTDOCFLAGS='--deny warnings' cargo doc");
    }
}
