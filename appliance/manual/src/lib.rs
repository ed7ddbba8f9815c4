//! Man pages and shell completions, written by a program about itself: what `--help` says is what the page says.
//!
//! Refuses to do: know any program. It takes a `clap::Command` and adds nothing but the order of the sections.
//! Invariants: every subcommand that `--help` shows has a page, named `program-group-subcommand.SECTION`; the same
//! command line and the same `SOURCE_DATE_EPOCH` give the same bytes.
#![forbid(unsafe_code)]

use bulla_formats::report::utc;
use clap::{Command, Subcommand, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a program's own table of exit codes begins in its `after_help`.
const EXIT_CODES: &str = "Exit codes:";

/// The subcommands every program of the project has.
#[derive(Debug, Clone, Subcommand)]
pub enum ManualCommand {
    /// Print the completion script of a shell: source it, or put it where the shell looks
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages, one for each subcommand
    ///
    /// The pages bear the date of SOURCE_DATE_EPOCH (seconds since 1970), or else today's.
    Man {
        /// Directory for the pages; it must exist
        #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
        out: PathBuf,
    },
}

impl ManualCommand {
    /// Carries it out for `program`, whose pages belong to `section` of the manual.
    ///
    /// # Errors
    /// When a page or standard output cannot be written; the error names the file. A reader of standard output that
    /// has gone away is no error.
    pub fn execute(&self, program: Command, section: &str) -> io::Result<()> {
        match self {
            ManualCommand::Completions { shell } => {
                let script = completions(program, *shell);
                match io::stdout().lock().write_all(&script) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    done => done,
                }
            }
            ManualCommand::Man { out } => {
                write_pages(program, section, &date(), out)?;
                Ok(())
            }
        }
    }
}

/// The completion script of `program` for `shell`.
pub fn completions(mut program: Command, shell: Shell) -> Vec<u8> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, &name, &mut script);
    match (shell, String::from_utf8(script)) {
        (Shell::Bash, Ok(text)) => with_one_spelling(&text, &name).into_bytes(),
        (_, Ok(text)) => text.into_bytes(),
        (_, Err(other)) => other.into_bytes(),
    }
}

/// The bash script of clap_complete 4.6.11 spells a hyphen in the program's name differently where it sets its state
/// and where it looks at it, and then completes nothing after a subcommand (clap issue 6421). This makes it one
/// spelling; a script without that defect stays as it is.
fn with_one_spelling(script: &str, program: &str) -> String {
    let (looked_at, set) = (program.replace('-', "__subcmd__"), program.replace('-', "__"));
    script.replace(&format!("{looked_at}__subcmd__"), &format!("{set}__subcmd__"))
}

/// Writes the pages of `program` and of all its subcommands into `directory`; returns their paths.
///
/// # Errors
/// When a page cannot be written; the error names it.
pub fn write_pages(
    program: Command,
    section: &str,
    date: &str,
    directory: &Path,
) -> io::Result<Vec<PathBuf>> {
    // Built once, here: this gives subcommands their full names, and the global options of the program.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    collect(&program, None, section, date, &mut pages)?;
    pages
        .into_iter()
        .map(|(name, page)| {
            let path = directory.join(name);
            match fs::write(&path, page) {
                Ok(()) => Ok(path),
                Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        })
        .collect()
}

fn collect(
    command: &Command,
    parent: Option<&str>,
    section: &str,
    date: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    pages.push((format!("{name}.{section}"), page(command, &name, parent, section, date)?));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        collect(subcommand, Some(&name), section, date, pages)?;
    }
    Ok(())
}

fn page(
    command: &Command,
    name: &str,
    parent: Option<&str>,
    section: &str,
    date: &str,
) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(section)
        .date(date)
        .source(format!("Bulla {}", env!("CARGO_PKG_VERSION")))
        .manual("Bulla");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    synopsis(command).to_writer(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut out)?;
    }
    if command.get_subcommands().any(|subcommand| !subcommand.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    if let Some(words) = command.get_after_long_help().or(command.get_after_help()) {
        notes(&words.to_string()).to_writer(&mut out)?;
    }
    if let Some(parent) = parent {
        let mut also = Roff::new();
        also.control("SH", ["SEE ALSO"]);
        also.text([bold(parent), roman(format!("({section})"))]);
        also.to_writer(&mut out)?;
    }
    Ok(without_empty_breaks(&out))
}

/// The line that `--help` calls usage: it tells required options from others, and shows what they take.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim).filter(|line| !line.is_empty());
    for (at, line) in usage.enumerate() {
        if at > 0 {
            roff.control("br", []);
        }
        roff.text([roman(line)]);
    }
    roff
}

/// Takes out line breaks that stand beside a paragraph or a heading: they do nothing, and linters say so.
fn without_empty_breaks(page: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = page.split(|byte| *byte == b'\n').collect();
    let ends = |line: Option<&&[u8]>| {
        line.is_none_or(|line| line.is_empty() || line.starts_with(b".sp") || line.starts_with(b".SH"))
    };
    let kept = lines.iter().enumerate().filter(|(at, line)| {
        let before = at.checked_sub(1).and_then(|before| lines.get(before));
        **line != b".br" || !(ends(before) || ends(lines.get(at + 1)))
    });
    kept.map(|(_, line)| *line).collect::<Vec<_>>().join(&b'\n')
}

/// The words below `--help`, line by line as they stand there.
fn notes(words: &str) -> Roff {
    let (heading, rest) = match words.trim().strip_prefix(EXIT_CODES) {
        Some(codes) => ("EXIT STATUS", codes),
        None => ("NOTES", words),
    };
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    roff.control("nf", []);
    for line in rest.lines().flat_map(|line| line.split("; ")).filter(|line| !line.trim().is_empty()) {
        roff.text([roman(line.trim())]);
    }
    roff.control("fi", []);
    roff
}

/// The day of `SOURCE_DATE_EPOCH`, or today, as `YYYY-MM-DD`.
fn date() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut text = utc(given.unwrap_or_else(now).saturating_mul(1_000));
    text.truncate("2026-11-21".len());
    text
}
