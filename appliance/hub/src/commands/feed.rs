//! `findings` and `notify`: the event feed, read or handed out.
//!
//! Refuses to do: keep the index while nothing happens; other commands need it.
//! Invariant: findings come in the order of their numbers, each at least once.

use crate::commands::sentence;
use crate::exit::{Exit, Failure};
use crate::finding::Severity;
use crate::hub::Hub;
use crate::progress::Progress;
use crate::webhook;
use clap::Args;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// How often `--follow` looks.
const LOOK: Duration = Duration::from_secs(1);

/// Arguments of `findings`.
#[derive(Debug, Args)]
pub struct FindingsArgs {
    /// Begin with the finding of this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Only findings at least so severe
    #[arg(long, value_name = "SEVERITY", default_value = "info")]
    severity: Severity,
    /// Go on with what is found from now on, until killed
    #[arg(long)]
    follow: bool,
}

/// Arguments of `notify`.
#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// How often a finding is tried before it is left for the next time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
    /// Go on with what is found from now on, until killed
    #[arg(long)]
    follow: bool,
}

/// `findings`.
pub fn findings(path: &Path, args: &FindingsArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let (mut from, mut shown) = (args.from, 0);
    loop {
        let lines = Hub::open(path)?.index.findings(from)?;
        for finding in &lines {
            if args.severity.admits(finding) {
                progress.say(&sentence(finding), finding);
                shown += 1;
            }
            from = finding["seq"].as_u64().map_or(from, |seq| seq + 1);
        }
        if !args.follow {
            return Ok(if shown == 0 { Exit::Nothing } else { Exit::Ok });
        }
        std::thread::sleep(LOOK);
    }
}

/// `notify`.
pub fn notify(path: &Path, args: &NotifyArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    loop {
        match webhook::deliver(path, args.attempts) {
            Ok(None) => {
                return Err(Failure::usage("the configuration has no [webhook] to hand findings to"));
            }
            Ok(Some(told)) if told > 0 || !args.follow => {
                progress.say(&format!("{told} findings handed out"), &json!({"told": told}));
            }
            Ok(Some(_)) => {}
            // Whoever follows goes on: what was not taken is tried again.
            Err(failure) if args.follow && failure.exit == Exit::Unreached => {
                progress.complain(&failure.to_string());
            }
            Err(failure) => return Err(failure),
        }
        if !args.follow {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(LOOK);
    }
}
