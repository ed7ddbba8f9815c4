//! The subcommands: what they take, what they print, how they end.
//!
//! Refuses to do: decide anything about evidence; that is the pull's, the verifier's and the fsck's.
//! Invariant: with `--json` every line of stdout is one JSON value.

pub mod audit;
pub mod feed;
pub mod find;

use crate::config::{BoxConfig, Config};
use crate::exit::{Exit, Failure};
use crate::handing::Handed;
use crate::hub::{self, Hub};
use crate::journal::{self, Who};
use crate::progress::{Progress, print};
use crate::pull::Outcome;
use crate::{fsck, run, seal, webhook};
use bulla_formats::report::utc;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Pull this box only (its name or its origin)
    #[arg(value_name = "BOX")]
    only: Option<String>,
    /// Pull again and again, every `pull.every_seconds`
    #[arg(long)]
    watch: bool,
}

/// Arguments of `fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Examine this box only (its name or its origin)
    #[arg(value_name = "BOX")]
    only: Option<String>,
}

/// Arguments of `seal`.
#[derive(Debug, Args)]
pub struct SealArgs {
    /// The box (its name or its origin)
    #[arg(value_name = "BOX")]
    origin: String,
    /// The entry's index
    #[arg(value_name = "INDEX")]
    index: u64,
    /// Where to write it; standard output otherwise
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `init`.
pub fn init(path: &Path, json: bool) -> Result<Exit, Failure> {
    let Config { name, archive, s3, state_dir, .. } = hub::init(path)?;
    let archive = match (archive, s3) {
        (None, Some(s3)) => format!("{}/{}/{}", s3.endpoint.trim_end_matches('/'), s3.bucket, s3.prefix),
        (directory, _) => directory.unwrap_or_default().display().to_string(),
    };
    let line = format!("{name}: archive {archive}, index in {}", state_dir.display());
    let value = json!({"name": name, "archive": archive, "stateDir": state_dir});
    Progress::new(json).say(&line, &value);
    Ok(Exit::Ok)
}

/// `pull`.
pub fn pull(path: &Path, args: &PullArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let mut handed: Option<Arc<Handed>> = None;
    loop {
        let began = Instant::now();
        // Opened for each round: between two of them other commands have the index, and a changed configuration counts.
        let mut hub = Hub::open_judged(path, &progress)?;
        hub.handed = handed.get_or_insert_with(|| hub.handed.clone()).clone();
        if let Some(only) = &args.only {
            hub.origin_of(only)?;
        }
        hub.archive.prove_locked()?;
        hub.index.exclusive()?;
        let outcomes = run::round(&hub, args.only.as_deref(), &progress)?;
        let mut exit = Exit::Ok;
        for (name, outcome) in &outcomes {
            told(&progress, name, outcome);
            exit = worse(exit, outcome);
        }
        let every = Duration::from_secs(hub.config.pull.every_seconds);
        drop(hub);
        // Once a round; `notify` is patient.
        if let Err(failure) = webhook::deliver(path, 1) {
            progress.complain(&failure.to_string());
        }
        if !args.watch {
            return Ok(exit);
        }
        std::thread::sleep(every.saturating_sub(began.elapsed()));
    }
}

fn worse(exit: Exit, outcome: &Outcome) -> Exit {
    let serious = |finding: &Value| matches!(finding["severity"].as_str(), Some("error" | "critical"));
    if exit == Exit::Found || outcome.frozen.is_some() || outcome.findings.iter().any(serious) {
        return Exit::Found;
    }
    if outcome.is_complete() { exit } else { Exit::Unreached }
}

pub(crate) fn told(progress: &Progress, name: &str, outcome: &Outcome) {
    let end = match (&outcome.frozen, outcome.is_complete()) {
        (Some(why), _) => format!("frozen: {why}"),
        (None, true) => "complete".to_owned(),
        (None, false) if outcome.reached => format!("not complete: {} entries are signed", outcome.newest),
        (None, false) => "no source can be reached".to_owned(),
    };
    let line = format!("{name}: {} entries, {} of them new, {end}", outcome.size, outcome.new);
    let value = json!({
        "box": name, "entries": outcome.size, "new": outcome.new, "complete": outcome.is_complete(),
        "reached": outcome.reached, "frozen": outcome.frozen, "trouble": outcome.trouble,
    });
    progress.say(&line, &value);
    for trouble in &outcome.trouble {
        progress.complain(&format!("{name}: {trouble}"));
    }
    for finding in &outcome.findings {
        progress.say(&sentence(finding), finding);
    }
}

pub(crate) fn sentence(finding: &Value) -> String {
    let text = |member: &str| finding[member].as_str().unwrap_or_default().to_owned();
    let origin = finding["origin"].as_str().map_or_else(String::new, |origin| format!(" {origin}"));
    format!("[{}] {} {}{origin}: {}", finding["seq"], text("severity"), text("kind"), text("detail"))
}

/// `status`.
pub fn status(path: &Path, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let progress = Progress::new(json);
    for branch in &hub.config.boxes {
        let (line, value) = standing(&hub, branch)?;
        progress.say(&line, &value);
    }
    Ok(Exit::Ok)
}

/// How far a log is archived: for people, and for programs.
pub(crate) fn standing(hub: &Hub, branch: &BoxConfig) -> Result<(String, Value), Failure> {
    let state = match hub.index.known(&branch.origin)? {
        Some(id) => hub.index.state(id)?,
        None => Default::default(),
    };
    let newest = if state.progress > 0 { utc(state.newest_millis) } else { "never".to_owned() };
    let line = format!(
        "{}: {} entries, newest {newest}, {} anchored, {} quarantined{}",
        branch.name,
        state.progress,
        state.anchored,
        state.quarantined,
        state.frozen.as_ref().map_or_else(String::new, |why| format!(", frozen: {why}"))
    );
    let value = json!({
        "box": branch.name, "origin": branch.origin, "entries": state.progress,
        "newestMillis": state.newest_millis, "anchored": state.anchored,
        "quarantined": state.quarantined, "frozen": state.frozen,
        "pulling": state.pending.is_some(),
    });
    Ok((line, value))
}

/// `fsck`.
pub fn fsck(path: &Path, args: &FsckArgs, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let progress = Progress::new(json);
    let only = args.only.as_ref().map(|only| hub.origin_of(only)).transpose()?;
    let wanted = |branch: &&BoxConfig| only.as_ref().is_none_or(|it| *it == branch.origin);
    let branches: Vec<&BoxConfig> = hub.config.boxes.iter().filter(wanted).collect();
    let mut exit = Exit::Ok;
    fsck::examine(&hub, &branches, &progress, |branch, mut found| -> Result<(), Failure> {
        let state = match hub.index.known(&branch.origin)? {
            Some(id) => hub.index.state(id)?,
            None => Default::default(),
        };
        if state.head.is_some() && state.progress < found.entries {
            found.damage.push(format!("the index is behind: it knows {} entries", state.progress));
        }
        if state.head.is_some() && found.entries == 0 && found.damage.is_empty() {
            found.damage.push("the index knows this log, and the archive has no checkpoint of it".to_owned());
        }
        if !found.damage.is_empty() {
            exit = Exit::Found;
        }
        let verdict = if found.damage.is_empty() { "sound" } else { "DAMAGED" };
        let line = format!(
            "{}: {} entries, {verdict}, {} quarantined, {} surplus objects",
            branch.name,
            found.entries,
            found.refused,
            found.surplus.len()
        );
        let value = json!({
            "box": branch.name, "origin": branch.origin, "entries": found.entries,
            "quarantined": found.refused, "damage": found.damage, "surplus": found.surplus,
        });
        progress.say(&line, &value);
        for damage in &found.damage {
            progress.complain(&format!("{}: {damage}", branch.name));
        }
        Ok(())
    })?;
    Ok(exit)
}

/// `seal`.
pub fn seal(path: &Path, args: &SealArgs, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let origin = hub.origin_of(&args.origin)?;
    let asked = json!({"origin": origin, "index": args.index});
    journal::record(&hub.config.state_dir, &Who::Unix, "seal", &asked)?;
    let (file, verification) = seal::file(&hub, &origin, args.index)?;
    if verification.seal.is_none() {
        let words = format!("the seal does not verify by the hub's trust file:\n{}", verification.report);
        return Err(Failure { exit: Exit::Found, message: words });
    }
    let Some(out) = &args.out else {
        print(&file.encode());
        return Ok(Exit::Ok);
    };
    std::fs::write(out, file.encode())
        .map_err(|error| Failure::usage(format!("{} cannot be written ({error})", out.display())))?;
    let facts: Vec<&str> = verification.report.facts.iter().map(|fact| fact.name()).collect();
    let line = format!("{}: {}", out.display(), facts.join(", "));
    Progress::new(json).say(&line, &json!({"file": out, "facts": facts}));
    Ok(Exit::Ok)
}

/// `reindex`.
pub fn reindex(path: &Path, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let (entries, kept) = hub::remake(path, &progress)?;
    let from = if kept { "what was found is kept" } else { "there was none that could be read" };
    let line = format!("the index is made from {entries} archived entries; {from}");
    progress.say(&line, &json!({"entries": entries, "findingsKept": kept}));
    Ok(Exit::Ok)
}
