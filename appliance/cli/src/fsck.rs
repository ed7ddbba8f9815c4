//! `bulla fsck`: checks a whole log on disk, bytes and meaning, and names the first bad entry.
//!
//! The ledger recomputes the tree and every index; [`bulla_formats::audit`] judges what the entries say.
//! Refuses to do: write anything; run beside a box that has the log open.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::output;
use crate::progress::Progress;
use bulla_formats::audit::LogAuditor;
use bulla_formats::body::seal::SealBody;
use bulla_formats::checked_json;
use bulla_formats::entry::Kind;
use bulla_formats::hash::Hash;
use bulla_formats::json;
use bulla_formats::merkle::Frontier;
use bulla_formats::origin::Origin;
use bulla_ledger::{DirStore, EntryJudge, FsckOptions, FsckReport, Judged, Store};
use clap::Args;
use serde_json::{Map, Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IDENTITY_FILE: &str = "identity.json";
const IDENTITY_BYTES_MAX: usize = 1 << 20;

/// Arguments of `bulla fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// State directory of a stopped box, or a copy of one
    #[arg(value_name = "STATE_DIR")]
    state: PathBuf,
    /// Check the log of this origin: an earlier incarnation of the same box [default: the current one]
    #[arg(long)]
    origin: Option<String>,
    /// STATE_DIR is a copy as C2SP tiles instead: a medium that a box copies its log to, or a hub's archive
    #[arg(long, conflicts_with = "origin")]
    copy: bool,
    /// Also check that the fleet of this trust file vouches for the box
    #[arg(long, value_name = "TRUST")]
    trust: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Lets the auditor judge what the ledger reads.
struct Judge(LogAuditor);

impl EntryJudge for Judge {
    fn judge(&mut self, index: u64, entry: &[u8], _before: &Frontier) -> Result<Judged, String> {
        if index != self.0.size() {
            return Err(format!("it cannot be judged, because entry {} is missing", self.0.size()));
        }
        let entry = self.0.entry(entry).map_err(|error| error.to_string())?;
        if entry.kind() != Some(Kind::Seal) {
            return Ok(Judged::Digest(None));
        }
        let body = SealBody::decode(&entry.content().body).map_err(|error| error.to_string())?;
        Ok(Judged::Digest(Some((body.algorithm as u8, body.digest.to_vec()))))
    }

    fn skip(&mut self, _index: u64, leaf: &Hash) {
        self.0.skip(*leaf);
    }
}

/// Checks the log and prints what was found.
pub fn run(args: &FsckArgs) -> Result<Exit, Failure> {
    let trust = args.trust.as_deref().map(files::read_trust).transpose()?.map(|(trust, _)| trust);
    if args.copy {
        return crate::fsck_copy::run(&args.state, trust.as_ref(), args.json);
    }
    let (origin, directory) = find_log(&args.state, args.origin.as_deref())?;
    let store = DirStore::open(&directory).map_err(|error| {
        let shown = directory.display();
        Failure::usage(match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!("the log {shown} is in use; stop the box first, or check a copy")
            }
            _ => format!("the log {shown} cannot be opened: {error}"),
        })
    })?;
    let store: Arc<dyn Store> = Arc::new(store);
    let mut judge = Judge(LogAuditor::new(origin.clone(), trust.as_ref()));
    let progress = Progress::new(!args.json);
    let task = progress.count("entries", 0);
    let mut moved = |done, total| task.set(done, total);
    let report = bulla_ledger::fsck(&store, origin.as_str(), FsckOptions::default(), &mut judge, &mut moved);
    task.finish();
    let report = report.map_err(|error| {
        Failure::usage(format!("the log {} cannot be checked: {error}", directory.display()))
    })?;
    let value = summary(&origin, &report, &judge.0);
    if args.json {
        output::print_json(&value);
    } else {
        output::print(&words(&value, &report));
    }
    Ok(if report.is_clean() { Exit::Ok } else { Exit::Refused })
}

/// Origin and directory of the log to check, as the state directory's identity file names them.
fn find_log(state: &Path, wanted: Option<&str>) -> Result<(Origin, PathBuf), Failure> {
    let path = state.join(IDENTITY_FILE);
    let unusable = |error: &dyn std::fmt::Display| {
        let shown = state.display();
        Failure::usage(format!(
            "{shown} is not the state directory of a box: {IDENTITY_FILE}: {error}; name the directory that state_dir in the box's configuration names"
        ))
    };
    let bytes = files::read_limited(&path, IDENTITY_BYTES_MAX).map_err(|error| unusable(&error))?;
    let bytes = checked_json::body(&bytes).map_err(|error| unusable(&error))?;
    let identity = json::parse(&bytes, IDENTITY_BYTES_MAX).map_err(|error| unusable(&error))?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let current = text(&identity, "origin").ok_or_else(|| unusable(&"it names no origin"))?;
    let current = Origin::parse(&current).map_err(|error| unusable(&error))?;
    let wanted = wanted.unwrap_or(current.as_str());
    if wanted == current.as_str() {
        let directory = state.join(format!("log-{}", current.incarnation()));
        return Ok((current, directory));
    }
    let before = identity.get("predecessors").and_then(Value::as_array).into_iter().flatten();
    let found = before.filter(|each| text(each, "origin").as_deref() == Some(wanted)).find_map(|each| {
        // A plain name: the file cannot lead out of the state directory.
        let name = text(each, "logDirectory").filter(|name| !name.contains('/') && !name.starts_with('.'))?;
        Some((Origin::parse(wanted).ok()?, state.join(name)))
    });
    found.ok_or_else(|| {
        Failure::usage(format!("this box never had the log {wanted:?}; its current one is {current}"))
    })
}

fn summary(origin: &Origin, report: &FsckReport, auditor: &LogAuditor) -> Value {
    let audit = auditor.summary();
    let kind =
        |number: u16| Kind::from_number(number).map_or(format!("kind {number}"), |kind| kind.name().into());
    let kinds: Map<String, Value> =
        audit.kinds.iter().map(|(number, count)| (kind(*number), (*count).into())).collect();
    let problems: Vec<Value> = report
        .problems
        .iter()
        .map(|problem| {
            json!({"file": problem.file, "index": problem.index, "last": problem.last, "what": problem.what, "derived": problem.derived})
        })
        .collect();
    json!({
        "origin": origin.as_str(),
        "clean": report.is_clean(),
        "entries": report.entries,
        "root": report.root.to_string(),
        "kinds": kinds,
        "attestedSize": audit.attested_size,
        "counter": audit.counter,
        "unjudgedFrom": report.unjudged_from,
        "firstBad": report.first_bad.as_ref().map(|(index, _)| *index),
        "problemsTotal": report.problems_total,
        "problems": problems,
    })
}

fn words(value: &Value, report: &FsckReport) -> String {
    let mut shown = value.clone();
    if let Value::Object(members) = &mut shown {
        members.retain(|name, _| !matches!(name.as_str(), "problems" | "problemsTotal" | "firstBad"));
    }
    let mut text = output::tree(&shown);
    for problem in &report.problems {
        text.push_str(&output::printable(&problem.to_string()));
        text.push('\n');
    }
    match &report.first_bad {
        None => text.push_str("clean: every entry, tree, table and signature holds\n"),
        Some((index, what)) => {
            let what = output::printable(what);
            let total = report.problems_total;
            text.push_str(&format!("damaged: {total} problem(s), the first bad entry is {index}: {what}\n"));
        }
    }
    text
}
