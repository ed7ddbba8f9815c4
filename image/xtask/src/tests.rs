//! Runs every test of the workspace and counts them: the count is the last line of a run.
//!
//! - Test programs run side by side (see [`crate::suites`]), to the end even when some fail. An ignored test counts as a
//!   failure: a check that is silently left out is worse than none.
//! - An end-to-end test waits for real processes, and a shared machine can stand still for longer than it waits. So when no
//!   more than [`AGAIN_MAX`] of them fail they are run once more, one at a time. What fails again has failed; what passes is
//!   named before the last line, because a test that needs this is to be mended. Nothing of it is left out of the output.
//! - Documentation holds no code to run (`tests/tests/tidy.rs`), so rustdoc is not asked for tests.
//! - Refuses to take a program for passed that died before it counted its tests: then nothing is run again.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::checks::{Elapsed, announce, shell_line};
use crate::suites::{self, Outcome, Suite};
use crate::workspace::Workspace;

/// So many failed tests, of more than a thousand, may be bad luck.
const AGAIN_MAX: usize = 5;
/// Tests at a time in each program: they mostly wait for boxes, so there are more of them than processors.
const THREADS: usize = 4;

/// Runs them. Failed tests have told so themselves by then, and come back as [`ExitCode::FAILURE`].
pub fn run(workspace: &Workspace, started: Instant) -> Result<ExitCode> {
    announce(started, "tests");
    let lanes = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut tests = workspace.cargo();
    tests.args(["test", "--locked", "--workspace"]);
    let line = shell_line(tests.envs(suites::programs(workspace, "debug")));
    let suites = Suite::find(tests)?;
    println!("{} test programs, {lanes} at a time", suites.len());
    let mut count = Count::default();
    let mut failed: Vec<(Suite, Vec<String>)> = Vec::new();
    let (mut sound, mut died) = (true, false);
    suites::run(workspace, suites, lanes, THREADS, |outcome| {
        let one = Count::of(&outcome.output);
        show(&outcome)?;
        sound &= outcome.status.success() && one.failed == 0;
        died |= !outcome.status.success() && one.failed == 0;
        if !one.names.is_empty() {
            failed.push((outcome.suite, one.names.iter().cloned().collect()));
        }
        count.add(one);
        Ok(())
    })?;

    let mut late = BTreeSet::new();
    if !sound && !died && count.may_be_luck() {
        announce(started, "what failed, once more and one at a time");
        let mut again = Count::default();
        sound = true;
        for (suite, names) in failed {
            let outcome = suite.run_alone(workspace, &names)?;
            show(&outcome)?;
            again.add(Count::of(&outcome.output));
            sound &= outcome.status.success();
        }
        sound &= again.failed == 0 && again.passed == count.failed;
        if sound {
            (count.passed, count.failed) = (count.passed + again.passed, 0);
            late = std::mem::take(&mut count.names);
        }
    }
    let complaint = if !sound {
        Some(format!("not passed. To repeat this step:\n    {line}"))
    } else if count.ignored > 0 {
        Some(format!("{} ignored: mend or remove ignored tests, nothing is skipped here", count.ignored))
    } else if count.passed == 0 {
        Some("no test was counted: the output of the tests is not what this program expects".to_owned())
    } else {
        None
    };
    let mut out = std::io::stdout().lock();
    let Elapsed { minutes, seconds } = started.elapsed().into();
    writeln!(out, "=== all steps took {minutes}:{seconds:02}")?;
    for name in late {
        writeln!(out, "tests: {name} passed only when it was run again, alone: it is to be mended")?;
    }
    if let Some(complaint) = &complaint {
        writeln!(out, "tests: {complaint}")?;
    }
    writeln!(out, "{} passed, {} failed", count.passed, count.failed)?;
    Ok(if complaint.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints all that a program printed, under its name.
fn show(outcome: &Outcome) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let Outcome { suite, status, output, took } = outcome;
    writeln!(out, "--- {} ({:.1} s, {status})", suite.name, took.as_secs_f64())?;
    Ok(out.write_all(output.as_bytes())?)
}

/// Sums over the `test result:` lines, and the names of those that failed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
    names: BTreeSet<String>,
    /// Programs that began, and that have not counted their tests.
    open: i64,
}

impl Count {
    /// What a program printed.
    fn of(output: &str) -> Self {
        let mut count = Self::default();
        output.lines().for_each(|line| count.take(line));
        count
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.names.extend(other.names);
        self.open += other.open;
    }

    /// Takes `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s`, and
    /// `test name ... FAILED`.
    fn take(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.names.insert(name.to_owned());
        }
        if is_beginning(line) {
            self.open += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.open -= 1;
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }

    /// Whether the failed tests are known by name and few, and nothing else went wrong.
    fn may_be_luck(&self) -> bool {
        let known = u64::try_from(self.names.len()).is_ok_and(|names| names == self.failed);
        known && self.open == 0 && (1..=AGAIN_MAX).contains(&self.names.len())
    }
}

/// Whether this is `running 3 tests`.
fn is_beginning(line: &str) -> bool {
    let count = line.strip_prefix("running ").and_then(|rest| rest.split_once(' '));
    count.is_some_and(|(number, what)| number.parse::<u64>().is_ok() && matches!(what, "test" | "tests"))
}

#[cfg(test)]
mod unit {
    use super::Count;

    fn counted(lines: &[&str]) -> Count {
        Count::of(&lines.join("\n"))
    }

    #[test]
    fn results_are_summed_and_other_lines_are_not() {
        let count = counted(&[
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "printed by a test: 9 failed;",
            "running 7 tests",
            "test a ... FAILED",
            "test b ... ok",
            "test result: FAILED. 1 passed; 2 failed; 4 ignored; 0 measured; 0 filtered out; finished in 12.00s",
        ]);
        let names = ["a".to_owned()].into();
        assert_eq!(count, Count { passed: 4, failed: 2, ignored: 4, names, open: 0 });
        assert!(!count.may_be_luck(), "one of the two is not known");
    }

    #[test]
    fn few_failures_may_be_luck_and_many_are_not() {
        let failed = |count: usize| {
            let mut lines = vec!["running 12 tests".to_owned()];
            lines.extend((0..count).map(|n| format!("test t{n} ... FAILED")));
            lines.push(format!("test result: FAILED. 9 passed; {count} failed; 0 ignored; 0 measured"));
            counted(&lines.iter().map(String::as_str).collect::<Vec<_>>()).may_be_luck()
        };
        assert_eq!([0, 1, 5, 6].map(failed), [false, true, true, false]);
    }
    #[test]
    fn a_program_that_died_is_no_bad_luck() {
        let count = counted(&[
            "running 1 test",
            "running 2 tests",
            "test a ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured",
        ]);
        assert!(!count.may_be_luck());
    }
}
