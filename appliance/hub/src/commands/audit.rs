//! `statement`, `timeline`, `produce`, `drift`: what auditors ask for.
//!
//! Refuses to do: write a file in the place of another without being told; hand out a statement without evidence.

use crate::commands::find::{digest_texts, digests, unsealed};
use crate::dossier::{self, Dossier, gather};
use crate::exit::{Exit, Failure};
use crate::hub::{self, Hub, now_millis};
use crate::journal::{self, Who};
use crate::progress::Progress;
use crate::statement::{Asked, Statement, Verdict};
use crate::{drift, produce, rivals, statement_page, timeline};
use bulla_formats::hash::sha256;
use bulla_formats::report::{utc, utc_millis};
use bulla_formats::trust::fingerprint;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Which document.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Document {
    /// The document's digest, e.g. sha-256:9f86d081...
    #[arg(long, value_name = "ALGORITHM:HEX")]
    digest: Option<String>,
    /// The document itself; looked for under every algorithm
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
}

/// Arguments of `statement`.
#[derive(Debug, Args)]
pub struct StatementArgs {
    #[command(flatten)]
    document: Document,
    /// Where to write the PDF; nothing may be there
    #[arg(long, value_name = "FILE")]
    pdf: Option<PathBuf>,
    /// The time to state as that of the statement; now otherwise
    #[arg(long, value_name = "TIME", value_parser = utc_millis)]
    at: Option<u64>,
}

/// Arguments of `timeline`.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    #[command(flatten)]
    document: Document,
}

/// Arguments of `produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// CSV: the first column is a digest (SHA-256 unless it is ALGORITHM:HEX), the second, if there is one, your reference
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// Directory for load.csv, exceptions.csv and seals/; made, or gone on with
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Begin with the query of this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
}

/// Arguments of `drift`.
#[derive(Debug, Args)]
pub struct DriftArgs {
    /// This box only (its name or its origin)
    #[arg(value_name = "BOX")]
    only: Option<String>,
}

impl Document {
    /// Enters the query in the list of queries and gathers what is known.
    fn gather(&self, hub: &Hub, query: &str) -> Result<(Dossier, Option<Asked>), Failure> {
        let (asked, size) = digests(self.digest.as_deref(), self.document.as_deref())?;
        let entered = json!({"digests": digest_texts(&asked)});
        journal::record(&hub.config.state_dir, &Who::Unix, query, &entered)?;
        let dossier = gather(hub, &asked)?;
        if dossier.items.is_empty() {
            return Err(match dossier.gaps.first() {
                Some(gap) => Failure::nothing(gap.clone()),
                None => unsealed(&asked),
            });
        }
        let name = self.document.as_ref().and_then(|path| path.file_name());
        let asked =
            name.zip(size).map(|(name, size)| Asked { name: name.to_string_lossy().into_owned(), size });
        Ok((dossier, asked))
    }
}

fn exit_of(dossier: &Dossier) -> Exit {
    let bad = |item: &crate::dossier::Item| item.asked && item.report.failed().is_some();
    if dossier.items.iter().any(bad) { Exit::Found } else { Exit::Ok }
}

/// `statement`.
pub fn statement(path: &Path, args: &StatementArgs, json: bool) -> Result<Exit, Failure> {
    if args.pdf.is_none() && !json {
        return Err(Failure::usage(
            "write --pdf FILE for a PDF, --json for JSON on standard output, or both",
        ));
    }
    let progress = Progress::new(json);
    let hub = Hub::open_judged(path, &progress)?;
    let (dossier, asked) = args.document.gather(&hub, "statement")?;
    stated(&hub, &dossier, asked, args.at, |statement| hand_out(args, statement, &progress))?;
    Ok(exit_of(&dossier))
}

/// Makes a statement of what is known, and hands it to `take`.
pub fn stated<T>(
    hub: &Hub,
    dossier: &Dossier,
    asked: Option<Asked>,
    at: Option<u64>,
    take: impl FnOnce(&Statement<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (events, findings) = (timeline::events(hub, dossier)?, dossier::findings(hub, dossier)?);
    let trust = std::fs::read(&hub.config.trust)
        .map_err(|error| Failure::usage(format!("the trust file cannot be read ({error})")))?;
    take(&Statement {
        hub,
        dossier,
        events: &events,
        findings: &findings,
        asked,
        fingerprint: fingerprint(&trust),
        made_millis: at.unwrap_or_else(now_millis),
    })
}

fn hand_out(args: &StatementArgs, statement: &Statement<'_>, progress: &Progress) -> Result<(), Failure> {
    if let Some(pdf) = &args.pdf {
        let bytes = statement_page::pdf(statement)?;
        let mut options = std::fs::OpenOptions::new();
        let written = options
            .write(true)
            .create_new(true)
            .open(pdf)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes));
        written.map_err(|error| {
            Failure::usage(format!("{} cannot be written ({error}); nothing is overwritten", pdf.display()))
        })?;
    }
    let standing = Verdict::of(statement.dossier).name();
    let file = args.pdf.as_ref().map_or_else(String::new, |pdf| pdf.display().to_string());
    let (seals, findings) = (statement.dossier.items.len(), statement.findings.len());
    progress.say(&format!("{file}: {standing}, {seals} seals, {findings} findings"), &statement.to_json());
    Ok(())
}

/// `timeline`.
pub fn timeline(path: &Path, args: &TimelineArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let hub = Hub::open_judged(path, &progress)?;
    let (dossier, _) = args.document.gather(&hub, "timeline")?;
    for event in timeline::events(&hub, &dossier)? {
        let bound = |millis: Option<u64>| millis.map_or_else(|| "-".to_owned(), utc);
        let line = format!(
            "{} {} {}: {} (not before {}, not after {}, local time {})",
            event.box_name,
            event.place.index,
            event.name,
            event.detail,
            bound(event.after),
            bound(event.before),
            utc(event.local.unix_millis)
        );
        progress.say(&line, &event.to_json());
    }
    dossier.gaps.iter().for_each(|gap| progress.complain(gap));
    Ok(exit_of(&dossier))
}

/// `produce`.
pub fn produce(path: &Path, args: &ProduceArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let hub = Hub::open_judged(path, &progress)?;
    let list = std::fs::read(&args.list)
        .map_err(|error| Failure::usage(format!("{} cannot be read ({error})", args.list.display())))?;
    let entered = json!({"list": args.list, "listSha256": sha256(&[&list]).to_string(), "out": args.out});
    journal::record(&hub.config.state_dir, &Who::Unix, "produce", &entered)?;
    let made = produce::run(&hub, &args.list, &args.out, &progress)?;
    let line = format!(
        "{}: {} documents, {} seals, {} exceptions",
        args.out.display(),
        made.documents,
        made.seals,
        made.exceptions
    );
    let value = json!({
        "out": args.out, "documents": made.documents, "seals": made.seals, "exceptions": made.exceptions,
        "refused": made.refused,
    });
    progress.say(&line, &value);
    Ok(match (made.refused, made.exceptions) {
        (0, 0) => Exit::Ok,
        (0, _) => Exit::Nothing,
        _ => Exit::Found,
    })
}

/// `drift`.
pub fn drift(path: &Path, args: &DriftArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let hub = Hub::open_judged(path, &progress)?;
    let only = args.only.as_ref().map(|only| hub.origin_of(only)).transpose()?;
    let mut exit = Exit::Ok;
    for branch in hub.config.boxes.iter().filter(|branch| only.as_ref().is_none_or(|it| *it == branch.origin))
    {
        let drift = drift::of(&hub, branch, &progress)?;
        if drift.broken > 0 {
            exit = Exit::Found;
        }
        progress.say(&drift.sentence(&branch.name), &drift.to_json(&branch.name));
        for finding in hub.index.found(&drift.findings(&branch.origin), now_millis())? {
            progress.say(&super::sentence(&finding), &finding);
        }
    }
    Ok(exit)
}

/// `audit`: who asked for what; every line is found to follow from the one before.
pub fn audit(path: &Path, args: &AuditArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let config = hub::load(path)?;
    journal::record(&config.state_dir, &Who::Unix, "audit", &json!({"from": args.from}))?;
    let told = rivals::told_queries(&config)?;
    let (mut at_told, mut seen) = (None, 0);
    let head = journal::walk(&config.state_dir, |line, hash| {
        seen += 1;
        if Some(seen) == told.map(|told| told.count) {
            at_told = Some(hash);
        }
        if line["seq"].as_u64() >= Some(args.from) {
            let who = line["who"]["person"].as_str().or(line["who"]["unixUser"].as_str()).unwrap_or("?");
            let time = line["atMillis"].as_u64().map_or_else(String::new, utc);
            let words = format!(
                "[{}] {time} {who} ({}): {} {}",
                line["seq"], line["from"], line["query"], line["asked"]
            );
            progress.say(&words, &line);
        }
    })?;
    let known = head.map_or(0, |head| head.count);
    if let Some(told) = told
        && at_told != Some(told.hash)
    {
        let message = format!(
            "the hub's own log tells of {} queries with another end than the list has, which has {known}: the list was \
             rewritten or cut off",
            told.count
        );
        return Err(Failure { exit: Exit::Found, message });
    }
    Ok(Exit::Ok)
}
