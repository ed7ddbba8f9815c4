//! `cargo xtask fuzz`: builds the fuzz targets with coverage counters and runs them, some at a time, for so many seconds.
//!
//! - Stable Rust: the counters are LLVM's own pass, asked for by flags that hold for this build alone, which has a
//!   target directory of its own. `--target` keeps the flags away from build scripts and procedural macros.
//! - CI cannot afford to compile every dependency twice: there only our own crates get counters, and everything else is
//!   what the tests link ([`Counters`]).
//! - What a target has learnt stays in `fuzz-corpus/<target>` below the target directory, and the next run goes on
//!   from there. Seeds are written anew each time, by the target itself.
//! - A target that fails does not stop the others. The end is then an error that names each input that was found and
//!   the command that shows its panic again.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;

/// What is compiled with [`COUNTERS`]. libFuzzer learns only from what counts, so `Everywhere` finds more an hour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Counters {
    /// Our crates and all they depend on, in the profile `fuzz`.
    Everywhere,
    /// Our crates alone, in the profile `dev` but optimised; dependencies are those of an ordinary build.
    OurCrates,
}

/// Flags of the compiler: a counter per edge, and calls before comparisons.
const COUNTERS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Seconds that one input may take before it is a find of its own.
const INPUT_SECONDS_MAX: u32 = 60;
/// How often the running targets are looked at.
const POLL: Duration = Duration::from_millis(100);

/// What to run.
pub struct Plan {
    /// One target, or all.
    pub target: Option<String>,
    /// How long each.
    pub seconds: u64,
    /// How many at a time.
    pub jobs: usize,
    /// Which build runs.
    pub counters: Counters,
}

/// The command that builds the fuzzing program.
pub fn build(workspace: &Workspace, counters: Counters) -> Result<Command> {
    let mut command = workspace.cargo();
    command.args(["build", "--locked", "-p", "bulla-fuzz", "--features", "libfuzzer", "--bin", "fuzz"]);
    match counters {
        Counters::Everywhere => command
            .args(["--profile", "fuzz", "--target", &host()?, "--target-dir"])
            .arg(workspace.target.join("fuzz"))
            .env("RUSTFLAGS", COUNTERS)
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
        // `bulla-protocol` has an optimisation of its own in that profile, which would win over this one.
        Counters::OurCrates => command
            .args(["--config", "profile.dev.opt-level=2"])
            .args(["--config", "profile.dev.package.bulla-protocol.opt-level=2"])
            .env("RUSTC_WORKSPACE_WRAPPER", counting_compiler(workspace)?),
    };
    Ok(command)
}

/// A script that cargo calls in place of the compiler, for crates of this workspace only.
fn counting_compiler(workspace: &Workspace) -> Result<PathBuf> {
    let script = workspace.target.join("counting-rustc");
    fs::create_dir_all(&workspace.target)
        .and_then(|()| fs::write(&script, format!("#!/bin/sh\nexec \"$@\" {COUNTERS}\n")))
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", script.display()))?;
    Ok(script)
}

/// Runs what [`build`] built.
pub fn run(workspace: &Workspace, plan: &Plan) -> Result<()> {
    let program = match plan.counters {
        Counters::Everywhere => workspace.target.join("fuzz").join(host()?).join("fuzz/fuzz"),
        Counters::OurCrates => workspace.target.join("debug/fuzz"),
    };
    let all = targets(workspace)?;
    let mut waiting = match &plan.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no fuzz target {name:?}; there are: {}", all.join(", ")),
    };
    waiting.reverse();
    let (started, count) = (Instant::now(), waiting.len());
    println!("{count} targets, {} seconds each, {} at a time", plan.seconds, plan.jobs);
    let mut running: Vec<Run> = Vec::new();
    let mut finds = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < plan.jobs.max(1)
            && let Some(name) = waiting.pop()
        {
            running.push(Run::start(workspace, &program, name, plan.seconds)?);
        }
        sleep(POLL);
        let mut at = 0;
        while at < running.len() {
            match running[at].ended()? {
                None => at += 1,
                Some(outcome) => {
                    let run = running.swap_remove(at);
                    let after = started.elapsed().as_secs();
                    println!("{:<14} {outcome} (after {}:{:02})", run.name, after / 60, after % 60);
                    finds.extend(outcome.find.map(|input| run.complaint(&input)));
                }
            }
        }
    }
    ensure!(
        finds.is_empty(),
        "{} of {count} fuzz targets failed:\n{}\nOnce mended, the input goes to tests/fuzz/regressions/<target>/",
        finds.len(),
        finds.join("\n")
    );
    Ok(())
}

/// Names of all targets, from their sources.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let directory = workspace.root.join("tests/fuzz/src/targets");
    let listing = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in listing {
        let path = entry?.path();
        let name = path.file_stem().with_context(|| format!("{} has no name", path.display()))?;
        if name != "mod" {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "{} holds no fuzz target", directory.display());
    Ok(names)
}

/// The triple that this toolchain runs on.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// One target at work. Dropping it ends it.
struct Run {
    name: String,
    program: PathBuf,
    log: PathBuf,
    scratch: PathBuf,
    process: Child,
}

impl Run {
    fn start(workspace: &Workspace, program: &Path, name: String, seconds: u64) -> Result<Self> {
        let of = |kind: &str| workspace.target.join(kind).join(&name);
        let (corpus, seeds, finds) = (of("fuzz-corpus"), of("fuzz-seeds"), of("fuzz-finds"));
        let (scratch, log) = (of("fuzz-scratch"), of("fuzz-logs").with_extension("log"));
        // Seeds of an older version of the target are not genuine any more, and a box that was killed leaves files.
        for directory in [&seeds, &scratch] {
            if directory.exists() {
                fs::remove_dir_all(directory)
                    .with_context(|| format!("cannot remove {}", directory.display()))?;
            }
        }
        let logs = workspace.target.join("fuzz-logs");
        for directory in [&corpus, &seeds, &finds, &scratch, &logs] {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().context("cannot share the log between output and errors")?;
        // setpriv: the target dies with this thread, the only one, however it dies (see `xtask::child`).
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program)
            .args([&corpus, &seeds])
            .args([format!("-max_total_time={seconds}"), format!("-timeout={INPUT_SECONDS_MAX}")])
            // By itself libFuzzer calls ten seconds slow, which the set-up of a target takes on a machine that is busy.
            .arg(format!("-report_slow_units={INPUT_SECONDS_MAX}"))
            .args([format!("-artifact_prefix={}/", finds.display()), "-print_final_stats=1".to_owned()])
            .env("BULLA_FUZZ_TARGET", &name)
            .env("BULLA_FUZZ_SEEDS", &seeds)
            .env("TMPDIR", &scratch)
            .env("LD_PRELOAD", "libeatmydata.so")
            .current_dir(&workspace.root);
        let regressions = workspace.root.join("tests/fuzz/regressions").join(&name);
        if regressions.exists() {
            command.arg(regressions);
        }
        let process = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let process = process.context("cannot start a fuzz target through setpriv (package util-linux)")?;
        Ok(Self { name, program: program.to_owned(), log, scratch, process })
    }

    /// What came of it, once it has ended.
    fn ended(&mut self) -> Result<Option<Outcome>> {
        let Some(status) =
            self.process.try_wait().with_context(|| format!("cannot ask for the state of {}", self.name))?
        else {
            return Ok(None);
        };
        let log = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(Some(Outcome::read(&String::from_utf8_lossy(&log), status.success())))
    }

    fn complaint(&self, find: &str) -> String {
        let (program, log) = (self.program.display(), self.log.display());
        match find {
            "" => format!("    {}: no input was found; its last words are in {log}", self.name),
            input => format!(
                "    {0}: {input}\n        to see its panic: BULLA_FUZZ_TARGET={0} {program} {input}",
                self.name
            ),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // An error means that it has ended already, or that nothing can be done about it any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// The end of a target, as libFuzzer tells it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    runs: u64,
    coverage: u64,
    corpus: u64,
    /// The input that was found; empty when it failed without one.
    find: Option<String>,
}

impl Outcome {
    fn read(log: &str, success: bool) -> Self {
        let mut outcome = Outcome::default();
        for line in log.lines() {
            if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:") {
                outcome.runs = runs.trim().parse().unwrap_or(0);
            }
            if let Some((_, rest)) = line.split_once(" cov: ") {
                let mut words = rest.split(' ');
                outcome.coverage =
                    words.next().and_then(|word| word.parse().ok()).unwrap_or(outcome.coverage);
                let inputs = words.skip_while(|word| *word != "corp:").nth(1);
                let inputs = inputs.and_then(|word| word.split('/').next()?.parse().ok());
                outcome.corpus = inputs.unwrap_or(outcome.corpus);
            }
            if let Some((_, path)) = line.split_once("Test unit written to ") {
                outcome.find = Some(path.trim().to_owned());
            }
        }
        if !success && outcome.find.is_none() {
            outcome.find = Some(String::new());
        }
        outcome
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.find.is_some() { "FAILED" } else { "ok" };
        let Self { runs, coverage, corpus, .. } = self;
        write!(f, "{verdict:<6} {runs:>10} runs, {coverage:>5} edges, {corpus:>5} inputs kept")
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn the_words_of_libfuzzer_are_understood() {
        let log = "#2\tINITED cov: 50 ft: 60 corp: 2/10b exec/s: 0 rss: 27Mb\n\
            #42\tREDUCE cov: 99 ft: 270 corp: 105/3262b lim: 4096 exec/s: 10 rss: 27Mb L: 1/2 MS: 1 EraseBytes-\n\
            stat::number_of_executed_units: 4299930\n";
        let ended = Outcome { runs: 4_299_930, coverage: 99, corpus: 105, find: None };
        assert_eq!(Outcome::read(log, true), ended);
        let crashed = format!("{log}artifact_prefix='x/'; Test unit written to x/crash-1\nBase64: AA==\n");
        assert_eq!(Outcome::read(&crashed, false).find.as_deref(), Some("x/crash-1"));
        assert_eq!(Outcome::read(log, false).find.as_deref(), Some(""));
    }
}
