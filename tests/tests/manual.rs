//! Man pages and shell completions: what the programs write about themselves is complete, and others can read it.
//!
//! The judges are groff and mandoc for pages, and bash for completions.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::hub::hub_program;
use bulla_tests::rig::{box_program, bulla_program, fleet_program};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A moment in 2026, for pages that have to bear a date.
const EPOCH: (&str, &str) = ("1790000000", "2026-09-21");

struct Program {
    path: PathBuf,
    name: &'static str,
    section: &'static str,
}

fn programs() -> Result<[Program; 4]> {
    Ok([
        Program { path: bulla_program()?, name: "bulla", section: "1" },
        Program { path: box_program()?, name: "bulla-box", section: "8" },
        Program { path: fleet_program()?, name: "bulla-fleet", section: "1" },
        Program { path: hub_program()?, name: "bulla-hub", section: "8" },
    ])
}

impl Program {
    /// Runs it with nothing of the environment, in an empty directory: it finds no configuration, and needs none.
    fn run(&self, arguments: &[&str], directory: &Path) -> Result<String> {
        let output = Command::new(&self.path)
            .env_clear()
            .env("SOURCE_DATE_EPOCH", EPOCH.0)
            .current_dir(directory)
            .args(arguments)
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{} {arguments:?}: {complaint}", self.name);
        Ok(String::from_utf8(output.stdout)?)
    }

    fn pages(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        self.run(&["man", "--out", "."], directory)?;
        let entries = fs::read_dir(directory)?;
        Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
    }

    /// The names of all subcommands with their parents', and the long options each shows in its `--help`.
    fn subcommands(&self) -> Result<Vec<(Vec<String>, BTreeSet<String>)>> {
        let nowhere = TempDir::new()?;
        let mut open: Vec<Vec<String>> = vec![Vec::new()];
        let mut found = Vec::new();
        while let Some(path) = open.pop() {
            let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
            let help = self.run(&arguments, nowhere.path())?;
            let listed = help.split_once("\nCommands:\n").map_or("", |(_, after)| after);
            for line in listed.lines().take_while(|line| !line.is_empty()) {
                // Deeper lines go on with the description of the one above.
                let Some(entry) = line.strip_prefix("  ").filter(|entry| !entry.starts_with(' ')) else {
                    continue;
                };
                let name = entry.split_whitespace().next().unwrap().to_owned();
                if name != "help" {
                    open.push([path.clone(), vec![name]].concat());
                }
            }
            let options = help.lines().filter_map(|line| {
                let option = line.trim_start().split(", ").last()?.split_whitespace().next()?;
                (line.trim_start().starts_with('-') && option.starts_with("--")).then(|| option.to_owned())
            });
            found.push((path.clone(), options.collect()));
        }
        Ok(found)
    }
}

#[test]
fn every_subcommand_has_a_page_with_every_option() -> Result<()> {
    for program in programs()? {
        let directory = TempDir::new()?;
        let mut pages: BTreeSet<PathBuf> = program.pages(directory.path())?.into_iter().collect();
        let subcommands = program.subcommands()?;
        ensure!(subcommands.len() > 8, "the help of {} is understood: {subcommands:?}", program.name);
        for (path, options) in subcommands {
            let mut names = vec![program.name.to_owned()];
            names.extend(path);
            let file = directory.path().join(format!("{}.{}", names.join("-"), program.section));
            ensure!(pages.remove(&file), "there is no page {}", file.display());
            let page = fs::read_to_string(&file)?.replace("\\-", "-");
            for part in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", &names.join(" "), EPOCH.1] {
                ensure!(page.contains(part), "{} lacks {part}", file.display());
            }
            for option in options {
                ensure!(page.contains(&option), "{} lacks {option}", file.display());
            }
        }
        ensure!(pages.is_empty(), "pages of no subcommand: {pages:?}");
    }
    Ok(())
}

#[test]
fn groff_and_mandoc_read_every_page_without_a_warning() -> Result<()> {
    let judge = |program: &str, arguments: &[&str], page: &Path| -> Result<String> {
        let output = Command::new(program).args(arguments).arg(page).output().with_context(|| {
            format!("cannot start {program}; `cargo xtask setup` installs it (packages groff-base, mandoc)")
        })?;
        let words = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&words).into_owned())
    };
    let mut judged = 0;
    for program in programs()? {
        let directory = TempDir::new()?;
        for page in program.pages(directory.path())? {
            for (judge_name, arguments) in
                [("groff", &["-man", "-Tutf8", "-ww", "-z"][..]), ("mandoc", &["-Tlint", "-Wwarning"][..])]
            {
                let words = judge(judge_name, arguments, &page)?;
                ensure!(words.is_empty(), "{judge_name} on {}:\n{words}", page.display());
            }
            judged += 1;
        }
        // They do find fault where there is some.
        let bad = directory.path().join("bad.1");
        fs::write(&bad, ".TH BAD 1\n.SH NAME\n.nonsense\n\\fXbad\n")?;
        ensure!(!judge("mandoc", &["-Tlint", "-Wwarning"], &bad)?.is_empty());
        ensure!(!judge("groff", &["-man", "-Tutf8", "-ww", "-z"], &bad)?.is_empty());
    }
    ensure!(judged > 20, "only {judged} pages");
    Ok(())
}

#[test]
fn bash_completes_subcommands_and_options() -> Result<()> {
    for program in programs()? {
        let directory = TempDir::new()?;
        let script = directory.path().join("completion");
        fs::write(&script, program.run(&["completions", "bash"], directory.path())?)?;
        let bash = |arguments: &[&str]| -> Result<String> {
            let output =
                Command::new("bash").arg("--norc").args(arguments).output().context("cannot start bash")?;
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success() && complaint.is_empty(), "bash: {complaint}");
            Ok(String::from_utf8(output.stdout)?)
        };
        let path = script.display().to_string();
        bash(&["-n", &path])?;
        // What bash does at the TAB key: find the function registered for the word, set the words, call it.
        let press_tab = "source \"$1\"; shift
            function=$(complete -p \"$1\" | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
            COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            \"$function\" \"$1\" \"${COMP_WORDS[-1]}\" \"${COMP_WORDS[-2]}\"
            printf '%s\\n' \"${COMPREPLY[@]}\"";
        for (path_of_words, options) in program.subcommands()? {
            let words: Vec<&str> =
                [program.name].into_iter().chain(path_of_words.iter().map(String::as_str)).collect();
            let offered = bash(&[&["-c", press_tab, "bash", &path], &words[..], &["--"]].concat())?;
            for option in options {
                ensure!(
                    offered.lines().any(|line| line == option),
                    "{words:?}: {option} is not in\n{offered}"
                );
            }
        }
        for shell in ["zsh", "fish"] {
            let script = program.run(&["completions", shell], directory.path())?;
            ensure!(script.contains("completions") && script.contains(program.name), "{shell}: {script}");
        }
    }
    Ok(())
}
