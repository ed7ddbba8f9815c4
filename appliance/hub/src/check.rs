//! `check-config`: whether the hub could work with its configuration, before it does.
//!
//! Reads every file that the configuration names as the work itself would, and says of each what is wrong with it.
//! Refuses to do: connect to anything; write anything; stop at the first fault.
//! Invariant: the sentence about a file is the one that the work would end with.

use crate::archive::Archive;
use crate::config::{BoxConfig, Config, SourceConfig};
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::source::Source;
use crate::{handing, hub, index, serve, webhook};
use serde_json::json;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

/// `check-config`.
///
/// # Errors
/// The configuration itself cannot be used: what it names is then not known.
pub fn execute(path: &Path, json: bool) -> Result<Exit, Failure> {
    let config = Config::load(path).map_err(|error| Failure::usage(error.to_string()))?;
    let faults = faults(&config);
    let progress = Progress::new(json);
    for fault in &faults {
        progress.complain(&format!("bulla-hub: {fault}"));
    }
    if !faults.is_empty() {
        return Ok(Exit::Usage);
    }
    let (boxes, sources) =
        (config.boxes.len(), config.boxes.iter().map(|branch| branch.sources.len()).sum::<usize>());
    let line = format!("the configuration is good: {boxes} boxes, {sources} sources");
    progress.say(&line, &json!({"good": true, "boxes": boxes, "sources": sources}));
    Ok(Exit::Ok)
}

/// Everything that is wrong with what it names.
fn faults(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let mut note = |fault: Option<String>| faults.extend(fault);
    note(wrong(hub::trusted(config)));
    note(wrong(Archive::check(config)));
    note(wrong(index::check(config)));
    if let Some(webhook) = &config.webhook {
        note(wrong(webhook::check(webhook, &config.name)));
    }
    if let Some(serve) = &config.serve {
        note(wrong(serve::check_tls(serve)));
        note(wrong(serve::check_people(serve)));
        note(wrong(serve::check_dial_in(serve)));
    }
    if let Some(roster) = &config.roster {
        note(handing::read_roster(roster).err().map(|why| format!("roster: {why}")));
    }
    let timeout = Duration::from_secs(config.pull.timeout_seconds);
    for branch in &config.boxes {
        for source in &branch.sources {
            note(unusable(branch, source, timeout));
        }
    }
    faults
}

fn wrong<T, E: Display>(read: Result<T, E>) -> Option<String> {
    read.err().map(|error| error.to_string())
}

fn unusable(branch: &BoxConfig, source: &SourceConfig, timeout: Duration) -> Option<String> {
    // Who dials the hub is waited for by `serve` only; certificates and token are the same.
    let reached = SourceConfig { dial_in: None, ..source.clone() };
    let fault = Source::new(&reached, &branch.origin, timeout, None).err()?;
    Some(format!("boxes.sources: {} by {}: {fault}", branch.name, source.url))
}
