//! `bulla-box erase`: destroys the openings of a document or a person, for good.
//!
//! One writer owns the log. A running box is therefore asked over its own API, as the operator whose token is given;
//! without a token the box must be stopped, and this process is the box for a moment.
//! Refuses to do: erase without being told so twice (`--yes`, or "erase" typed at a terminal).

use super::running::Running;
use crate::config::Config;
use crate::driver::{self, Selection};
use crate::identity;
use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::TEXT_BYTES_MAX;
use clap::Args;
use serde_json::{Value, json};
use std::io::{BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

/// From the last byte sent to the first of the answer: a large search index is written anew meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3_600);

/// What to erase, and why.
#[derive(Args)]
pub struct EraseArgs {
    #[command(flatten)]
    what: What,
    /// Why; it is in the log for ever, so name a file number and no person.
    #[arg(long)]
    reason: String,
    /// An operator's token, in a file: asks the running box. Without it the box must be stopped.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Only says what would be erased.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The openings of all seals with exactly this document id.
    #[arg(long, value_name = "ID")]
    document_id: Option<String>,
    /// The openings of all seals with exactly this user.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The openings of this seal; repeatable.
    #[arg(long, value_name = "ID")]
    seal: Vec<String>,
}

impl What {
    fn selection(&self) -> Selection {
        match (&self.document_id, &self.user) {
            (Some(id), _) => Selection::DocumentId(id.clone()),
            (None, Some(user)) => Selection::User(user.clone()),
            (None, None) => Selection::Seals(self.seal.clone()),
        }
    }
}

/// Counts of one request.
struct Done {
    erased: usize,
    already: usize,
    without: usize,
    entries: Vec<u64>,
    more: bool,
}

/// Erases until nothing that matches is left.
pub fn execute(args: &EraseArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let selection = args.what.selection();
    let reason = args.reason.trim();
    ensure!(!reason.is_empty() && reason.len() < TEXT_BYTES_MAX - 80, "--reason says why in 1 to 900 bytes");
    let repeated =
        selection.value().is_some_and(|value| reason.to_lowercase().contains(&value.to_lowercase()));
    ensure!(
        !repeated,
        "--reason stays in the log for ever, and it repeats what is to be erased; name a file number"
    );
    ensure!(selection.value() != Some(""), "an empty value selects nothing");
    let by = By::new(args, config)?;
    let result = by.execute(args, &selection, reason, out);
    by.close();
    result
}

/// Who carries it out.
enum By {
    Running(Running),
    Stopped { runtime: tokio::runtime::Runtime, sealer: driver::Sealer },
}

impl By {
    fn new(args: &EraseArgs, config: &Config) -> Result<Self> {
        let Some(token_file) = &args.token_file else {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let identity = identity::open(config)?;
            let sealer = driver::start(config, identity).context(
                "the log cannot be opened; while the box runs, ask it with --token-file FILE, which holds an operator's token",
            )?;
            return Ok(By::Stopped { runtime, sealer });
        };
        Ok(By::Running(Running::new(token_file, config, ANSWER_TIMEOUT)?))
    }

    fn execute(
        &self,
        args: &EraseArgs,
        selection: &Selection,
        reason: &str,
        out: &mut impl Write,
    ) -> Result<()> {
        let first = self.request(selection, reason, true)?;
        let more = if first.more { " at least" } else { "" };
        writeln!(
            out,
            "{}{more} {} seal(s) have openings to erase, {} are erased already, {} never had any",
            if args.dry_run { "would erase:" } else { "found:" },
            first.erased,
            first.already,
            first.without
        )?;
        if args.dry_run || first.erased == 0 {
            return Ok(());
        }
        if !args.yes {
            confirm()?;
        }
        loop {
            let done = self.request(selection, reason, false)?;
            let entries: Vec<String> = done.entries.iter().map(u64::to_string).collect();
            writeln!(
                out,
                "erased the openings of {} seal(s); recorded by entries {}",
                done.erased,
                entries.join(", ")
            )?;
            if !done.more || done.erased == 0 {
                break;
            }
        }
        writeln!(
            out,
            "every proof still verifies; .seal files that were handed out before, and backups, keep what they hold"
        )?;
        Ok(())
    }

    fn request(&self, selection: &Selection, reason: &str, dry_run: bool) -> Result<Done> {
        match self {
            By::Stopped { runtime, sealer } => {
                let reason = format!("at the stopped box: {reason}");
                let done = runtime.block_on(sealer.erase(selection.clone(), reason, dry_run))?;
                Ok(Done {
                    erased: done.erased.len(),
                    already: done.already.len(),
                    without: done.without.len(),
                    entries: done.entries,
                    more: done.more,
                })
            }
            By::Running(running) => {
                let mut body = match selection {
                    Selection::DocumentId(id) => json!({"documentId": id}),
                    Selection::User(user) => json!({"user": user}),
                    Selection::Seals(seals) => json!({"seals": seals}),
                };
                body["reason"] = reason.into();
                body["dryRun"] = dry_run.into();
                let value = running.post("/v1/erasures", &body)?;
                let count = |name: &str| value[name].as_array().map_or(0, Vec::len);
                let entries =
                    value["entries"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
                Ok(Done {
                    erased: count("erased"),
                    already: count("already"),
                    without: count("withoutOpenings"),
                    entries,
                    more: value["more"].as_bool().unwrap_or(false),
                })
            }
        }
    }

    fn close(self) {
        if let By::Stopped { runtime, sealer } = self {
            runtime.block_on(sealer.close());
        }
    }
}

fn confirm() -> Result<()> {
    ensure!(std::io::stdin().is_terminal(), "nothing was erased: this is no terminal, so say --yes");
    eprint!("what is erased cannot be brought back; type \"erase\" to go on: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    ensure!(line.trim() == "erase", "nothing was erased");
    Ok(())
}
