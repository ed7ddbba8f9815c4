//! A page of commands and of what they print, run as it stands.
//!
//! Blocks of `sh` run in order in one directory, under `bash -euo pipefail`; a block of `text` right after one says what that
//! must have printed, line by line, where `...` stands for anything: within a line, or, alone on it, for any lines.
//! Refuses to do: skip a block of another language that is not known to be no command (`toml`, `ini`).

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;

/// A block of commands, and what they print where the page says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The commands.
    pub commands: String,
    /// What they print.
    pub printed: Option<String>,
}

/// The steps of the section under `## heading`, subsections included.
pub fn section(page: &str, heading: &str) -> Result<Vec<Step>> {
    let wanted = format!("## {heading}");
    let mut lines = page.lines().skip_while(|line| *line != wanted);
    ensure!(lines.next().is_some(), "the page has no section {heading:?}");
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = lines.take_while(|line| !line.starts_with("## "));
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        match language {
            "sh" => steps.push(Step { commands: block, printed: None }),
            "text" => {
                let step = steps.last_mut().context("what is printed follows its commands")?;
                ensure!(step.printed.replace(block).is_none(), "one block of text follows its commands");
            }
            "toml" | "ini" => {}
            other => bail!("a block of {other:?} is neither commands nor what they print"),
        }
    }
    ensure!(!steps.is_empty(), "the section {heading:?} has no commands");
    Ok(steps)
}

impl Step {
    /// Runs the commands in `place` with these variables; fails unless they succeed and print what the page says.
    pub fn run(&self, place: &Path, variables: &[(&str, &str)]) -> Result<String> {
        // The commands share one standard output, so that the order of what they say is that of a terminal.
        let script = format!("exec 2>&1\n{}", self.commands);
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(place)
            .envs(variables.iter().copied())
            .output()
            .context("cannot start bash")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{}\n\nended with {}:\n{said}", self.commands, output.status);
        if let Some(printed) = &self.printed {
            let (wanted, got): (Vec<&str>, Vec<&str>) = (printed.lines().collect(), said.lines().collect());
            ensure!(fit(&wanted, &got), "{}\n\nprinted\n{said}\nand the page says\n{printed}", self.commands);
        }
        Ok(said)
    }
}

fn fit(wanted: &[&str], got: &[&str]) -> bool {
    match wanted.split_first() {
        None => got.is_empty(),
        Some((&"...", rest)) => (0..=got.len()).any(|from| fit(rest, &got[from..])),
        Some((first, rest)) => got
            .split_first()
            .is_some_and(|(line, others)| is_like(first, line.trim_end()) && fit(rest, others)),
    }
}

fn is_like(wanted: &str, line: &str) -> bool {
    match wanted.split_once("...") {
        None => wanted.trim_end() == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|after| {
            after.char_indices().map(|(at, _)| at).chain([after.len()]).any(|at| is_like(rest, &after[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# T\n\n## A\n\n```toml\nx = 1\n```\n\n```sh\necho one; echo two\n```\n\n```text\n...\ntwo\n```\n\n\
                        ### B\n\n```sh\ntrue\n```\n\n## C\n\n```sh\nfalse\n```\n";

    #[test]
    fn a_section_is_its_steps() {
        let steps = section(PAGE, "A").unwrap();
        let first = Step { commands: "echo one; echo two".to_owned(), printed: Some("...\ntwo".to_owned()) };
        assert_eq!(steps, [first, Step { commands: "true".to_owned(), printed: None }]);
        assert!(section(PAGE, "D").is_err() && section("## A\n\n```python\n1\n```\n", "A").is_err());
    }

    #[test]
    fn what_is_printed_is_compared() {
        let run = |commands: &str, printed: &str| {
            let step = Step { commands: commands.to_owned(), printed: Some(printed.to_owned()) };
            step.run(Path::new("/"), &[("NAME", "x")])
        };
        run("echo one; echo two >&2", "one\ntwo").unwrap();
        run("echo \"at 12:00 $NAME\"", "at ... x").unwrap();
        run("echo a; echo b; echo c", "a\n...\nc").unwrap();
        for (commands, printed) in [
            ("echo one", "two"),
            ("echo one", ""),
            ("echo one; echo two", "one"),
            ("false", "..."),
            ("echo $NONE", "..."),
        ] {
            assert!(run(commands, printed).is_err(), "{commands}: {printed}");
        }
    }
}
