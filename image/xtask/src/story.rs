//! Tells what happens, in numbered acts. Every line that begins with `$` is handed to the shell exactly as it is
//! printed, so that a reader can type it too; its exit code is compared with the one the story claims.
//!
//! - Plain text when the output is no terminal, or when `NO_COLOR` is set.
//! - An exit code other than the told one ends the story with the command, the directory and everything it printed.

use std::ffi::OsString;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The most columns of a program's line that are shown; hashes and base64 run on for ever.
const COLUMNS_MAX: usize = 110;

/// A story being told.
pub struct Story {
    act: u32,
    colours: bool,
    path: OsString,
    checks: u32,
}

/// Which lines of a program's output a reader gets to see.
pub enum Show<'a> {
    /// None: the next sentence says what matters.
    Nothing,
    /// The first lines, at most this many.
    First(usize),
    /// Lines that begin with one of these words.
    Beginning(&'a [&'a str]),
}

/// What a program printed, and how long it took.
pub struct Told {
    pub stdout: String,
    pub took: Duration,
}

impl Story {
    /// `programs` is the directory where the shell looks first.
    pub fn begin(programs: &Path) -> Result<Self> {
        let before = std::env::var_os("PATH").unwrap_or_default();
        let directories = [PathBuf::from(programs)].into_iter().chain(std::env::split_paths(&before));
        Ok(Self {
            act: 0,
            colours: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            path: std::env::join_paths(directories)
                .context("the target directory's name cannot stand in PATH")?,
            checks: 0,
        })
    }

    /// Opens the next act.
    pub fn act(&mut self, title: &str) {
        self.act += 1;
        println!("\n{}", self.painted("1", &format!("{}. {title}", self.act)));
    }

    /// A sentence of the narrator.
    pub fn say(&self, sentence: &str) {
        println!("   {sentence}");
    }

    /// Where the story's shell looks for programs.
    pub fn path(&self) -> &OsString {
        &self.path
    }

    /// How many commands ended as told.
    pub fn checks(&self) -> u32 {
        self.checks
    }

    /// Runs `line` in `directory` and requires the exit code `told`.
    pub fn run(&mut self, directory: &Path, line: &str, told: i32, show: &Show) -> Result<Told> {
        println!("   {}", self.painted("36", &format!("$ {line}")));
        let result = self.quietly(directory, line, told)?;
        let selected: Vec<&str> = match show {
            Show::Nothing => Vec::new(),
            Show::First(count) => result.printed().take(*count).collect(),
            Show::Beginning(words) => {
                result.printed().filter(|line| words.iter().any(|word| line.starts_with(word))).collect()
            }
        };
        for line in selected {
            println!("     {}", shortened(line));
        }
        if told != 0 {
            println!("     {}", self.painted("33", &format!("exit code {told}, as it must be")));
        }
        Ok(result.told)
    }

    /// The same without a trace on the screen, unless it fails.
    pub fn quietly(&mut self, directory: &Path, line: &str, told: i32) -> Result<Printed> {
        let started = Instant::now();
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(directory)
            .env("PATH", &self.path)
            // A company's proxy has no business between here and here.
            .env("NO_PROXY", "localhost,127.0.0.1")
            .env("no_proxy", "localhost,127.0.0.1")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start a shell for: {line}"))?;
        let took = started.elapsed();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(told),
            "this should have ended with exit code {told}, but: {}\n    cd {}\n    {line}\nit printed:\n{stdout}{stderr}",
            output.status,
            directory.display()
        );
        self.checks += 1;
        Ok(Printed { told: Told { stdout, took }, stderr })
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Everything a command printed.
pub struct Printed {
    pub told: Told,
    stderr: String,
}

impl Printed {
    fn printed(&self) -> impl Iterator<Item = &str> {
        self.told.stdout.lines().chain(self.stderr.lines()).filter(|line| !line.trim().is_empty())
    }
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= COLUMNS_MAX {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(COLUMNS_MAX - 1).collect();
    short.push('…');
    short
}
