//! The subcommands: what they take, what they print, how they end.
//!
//! Refuses to do: decide anything about evidence; that is the pull's, the verifier's and the fsck's.
//! Invariant: with `--json` every line of stdout is one JSON value.

use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::finding::Severity;
use crate::hub::{self, Hub};
use crate::progress::{Progress, print};
use crate::pull::Outcome;
use crate::{fsck, run, seal};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use bulla_formats::report::utc;
use clap::Args;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
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

/// Arguments of `findings`.
#[derive(Debug, Args)]
pub struct FindingsArgs {
    /// Begin with the finding of this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Only findings at least so severe
    #[arg(long, value_name = "SEVERITY", default_value = "info")]
    severity: Severity,
}

/// Arguments of `fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Examine this box only (its name or its origin)
    #[arg(value_name = "BOX")]
    only: Option<String>,
}

/// Arguments of `find`.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// The document's digest, e.g. sha-256:9f86d081...
    #[arg(long, value_name = "ALGORITHM:HEX", required_unless_present = "document")]
    digest: Option<String>,
    /// The document itself; looked for under every algorithm
    #[arg(long, value_name = "FILE", conflicts_with = "digest")]
    document: Option<PathBuf>,
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
    let Config { name, archive, state_dir, .. } = hub::init(path)?;
    let line = format!("{name}: archive {}, index in {}", archive.display(), state_dir.display());
    let value = json!({"name": name, "archive": archive, "stateDir": state_dir});
    Progress::new(json).say(&line, &value);
    Ok(Exit::Ok)
}

/// `pull`.
pub fn pull(path: &Path, args: &PullArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    loop {
        let began = Instant::now();
        // Opened for each round: between two of them other commands have the index, and a changed configuration counts.
        let hub = Hub::open(path)?;
        if let Some(only) = &args.only {
            hub.origin_of(only)?;
        }
        let outcomes = run::round(&hub, args.only.as_deref(), &progress)?;
        let mut exit = Exit::Ok;
        for (name, outcome) in &outcomes {
            told(&progress, name, outcome);
            exit = worse(exit, outcome);
        }
        if !args.watch {
            return Ok(exit);
        }
        let every = Duration::from_secs(hub.config.pull.every_seconds);
        drop(hub);
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

fn told(progress: &Progress, name: &str, outcome: &Outcome) {
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

fn sentence(finding: &Value) -> String {
    let text = |member: &str| finding[member].as_str().unwrap_or_default().to_owned();
    let origin = finding["origin"].as_str().map_or_else(String::new, |origin| format!(" {origin}"));
    format!("[{}] {} {}{origin}: {}", finding["seq"], text("severity"), text("kind"), text("detail"))
}

/// `status`.
pub fn status(path: &Path, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let progress = Progress::new(json);
    for branch in &hub.config.boxes {
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
        progress.say(&line, &value);
    }
    Ok(Exit::Ok)
}

/// `findings`.
pub fn findings(path: &Path, args: &FindingsArgs, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let progress = Progress::new(json);
    let wanted = |finding: &Value| {
        [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical]
            .iter()
            .any(|severity| *severity >= args.severity && finding["severity"] == severity.to_string())
    };
    let mut shown = 0;
    for finding in hub.index.findings(args.from)?.iter().filter(|finding| wanted(finding)) {
        progress.say(&sentence(finding), finding);
        shown += 1;
    }
    Ok(if shown == 0 { Exit::Nothing } else { Exit::Ok })
}

/// `fsck`.
pub fn fsck(path: &Path, args: &FsckArgs, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let progress = Progress::new(json);
    let only = args.only.as_ref().map(|only| hub.origin_of(only)).transpose()?;
    let mut exit = Exit::Ok;
    for branch in hub.config.boxes.iter().filter(|branch| only.as_ref().is_none_or(|it| *it == branch.origin))
    {
        let mut found = fsck::examine(&hub, &branch.origin)?;
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
    }
    Ok(exit)
}

/// `find`.
pub fn find(path: &Path, args: &FindArgs, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let progress = Progress::new(json);
    let mut found = Vec::new();
    for (algorithm, digest) in digests(args)? {
        found.extend(hub.index.find(algorithm, &digest)?);
    }
    for seal in &found {
        let verification = match seal::file(&hub, &seal.origin, seal.index) {
            Ok((_, verification)) => verification,
            // Of a log whose first pull has not come to its head yet.
            Err(failure) if failure.exit == Exit::Nothing => {
                let line = format!("{} {}: not under an archived head yet", seal.origin, seal.index);
                let value = json!({"origin": seal.origin, "index": seal.index, "verdict": Value::Null});
                progress.say(&line, &value);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let report = &verification.report;
        let time = |millis: Option<u64>| millis.map_or_else(|| "unknown".to_owned(), utc);
        let (after, before) =
            report.interval.map_or((None, None), |interval| (interval.after, interval.before));
        let local = report.interval.map(|interval| interval.local.unix_millis);
        let line = format!(
            "{} {}: {}, not before {}, not after {}, local time {}",
            seal.origin,
            seal.index,
            report.verdict.name(),
            time(after),
            time(before),
            time(local)
        );
        let facts: Vec<&str> = report.facts.iter().map(|fact| fact.name()).collect();
        let value = json!({
            "origin": seal.origin, "index": seal.index, "verdict": report.verdict.name(), "facts": facts,
            "notBeforeMillis": after, "notAfterMillis": before, "localMillis": local,
        });
        progress.say(&line, &value);
    }
    Ok(if found.is_empty() { Exit::Nothing } else { Exit::Ok })
}

fn digests(args: &FindArgs) -> Result<Vec<(DigestAlgorithm, Vec<u8>)>, Failure> {
    if let Some(text) = &args.digest {
        let parsed = text.split_once(':').and_then(|(name, digest)| {
            let algorithm = DigestAlgorithm::from_name(name)?;
            let digest = hex::decode(digest).ok()?;
            (digest.len() == algorithm.digest_bytes()).then_some((algorithm, digest))
        });
        return parsed.map(|digest| vec![digest]).ok_or_else(|| {
            Failure::usage(format!(
                "--digest {text:?} is not sha-256:, sha-512: or sha3-256: and its hex digits"
            ))
        });
    }
    let Some(path) = &args.document else { return Ok(Vec::new()) };
    let unreadable =
        |error: std::io::Error| Failure::usage(format!("{} cannot be read ({error})", path.display()));
    let algorithms = [DigestAlgorithm::Sha256, DigestAlgorithm::Sha512, DigestAlgorithm::Sha3_256];
    let mut hashers = algorithms.map(DocumentHasher::new);
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut piece = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut piece).map_err(unreadable)?;
        if length == 0 {
            break;
        }
        hashers.iter_mut().for_each(|hasher| hasher.update(&piece[..length]));
    }
    let finished = hashers.into_iter().map(DocumentHasher::finish);
    Ok(finished.map(|digest| (digest.algorithm, digest.value)).collect())
}

/// `seal`.
pub fn seal(path: &Path, args: &SealArgs, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let origin = hub.origin_of(&args.origin)?;
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
