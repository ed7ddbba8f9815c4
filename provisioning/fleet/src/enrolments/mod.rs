//! `bulla-fleet enrolments`: what boxes ask for, and what people answer.
//!
//! Who approves has heard the whole fingerprint from whoever stands before the box; that makes the request this box's.
//! Whether the box becomes a member is then decided like everything else: as an action on the roster.
//! Refuses to do: approve without the fingerprint, or what the box has not proven.

mod export;
mod shelf;

pub use shelf::Shelf;

use crate::exit::{Exit, Failure};
use crate::propose::Proposal;
use bulla_enrolment::proof::fingerprint;
use bulla_enrolment::record::{Record, Stage, StepError};
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::report::utc;
use bulla_roster::deed::Deed;
use clap::{Args, Subcommand};
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Most boxes of one action (docs/formats.md, section 15).
const ENROLMENTS_MAX: usize = 64;

/// Subcommands of `bulla-fleet enrolments`.
#[derive(Debug, Subcommand)]
pub enum EnrolmentsCommand {
    /// What boxes have asked for, and TPMs that came without being listed
    List(ListArgs),
    /// Everything about one
    Show(ShowArgs),
    /// The fingerprint is the one read out at the box: propose that it becomes a member
    Approve(ApproveArgs),
    /// Propose that all whose fingerprint was heard (`approve --later`) become members, at most 64 at a time; or, with
    /// --staged, that all members that ask for it may begin their next log by themselves
    Propose(ProposeArgs),
    /// It is not to become a member
    Refuse(RefuseArgs),
    /// Write what one has proven to files that stock tools judge
    Export(export::ExportArgs),
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Claim code, as the box shows it
    #[arg(value_name = "CLAIM")]
    which: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Claim code, as the box shows it
    #[arg(value_name = "CLAIM")]
    which: String,
    /// The whole fingerprint, as it was read out at the box
    #[arg(long, value_name = "FINGERPRINT")]
    heard: String,
    /// Who heard it
    #[arg(long, value_name = "NAME")]
    by: String,
    /// Only note that it was heard; `enrolments propose` proposes all of them at once
    #[arg(long)]
    later: bool,
}

/// Arguments of `propose`.
#[derive(Debug, Args)]
pub struct ProposeArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// The next logs of members, which they begin by themselves when the one in use is lost
    #[arg(long, requires = "by")]
    staged: bool,
    /// Who has looked at the list of them
    #[arg(long, value_name = "NAME", requires = "staged")]
    by: Option<String>,
}

/// Arguments of `refuse`.
#[derive(Debug, Args)]
pub struct RefuseArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Claim code, as the box shows it
    #[arg(value_name = "CLAIM")]
    which: String,
    /// Why; the box shows it
    #[arg(long)]
    reason: String,
    /// Who refuses
    #[arg(long, value_name = "NAME")]
    by: String,
}

/// Runs it.
pub fn run(command: &EnrolmentsCommand) -> Result<Exit, Failure> {
    match command {
        EnrolmentsCommand::List(args) => list(args),
        EnrolmentsCommand::Show(args) => show(args),
        EnrolmentsCommand::Approve(args) => approve(args),
        EnrolmentsCommand::Propose(args) => propose(args),
        EnrolmentsCommand::Refuse(args) => refuse(args),
        EnrolmentsCommand::Export(args) => export::run(args),
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Failure::new(Exit::Refused, error.to_string())
    }
}

/// What stands behind the stage, in a few words.
fn remark(record: &Record) -> String {
    match (record.stage(), &record.proven, &record.approved, &record.refused) {
        (Stage::Refused, _, _, Some(step)) => format!("{} ({})", step.sentence, step.code),
        (Stage::Approved, _, Some(step), _) => format!("approved by {}; waits for the roster", step.by),
        (Stage::Proven, Some(step), _, _) if step.boot.is_empty() => "boot not judged".to_owned(),
        (Stage::Proven, Some(step), _, _) => format!("boot {}", step.boot),
        _ => String::new(),
    }
}

/// Marks what a member asks for ahead of time.
fn staged(record: &Record) -> &'static str {
    if record.is_staged() { "STAGED; " } else { "" }
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let shelf = Shelf::open(&args.dir)?;
    let (records, strangers) = (shelf.all()?, shelf.strangers()?);
    if args.json {
        let rows: Vec<_> = records.iter().map(as_json).collect();
        let strangers: Vec<_> =
            strangers.iter().map(|one| json!({"ekSpkiSha256": one.ek, "note": one.note})).collect();
        crate::say(&format!("{:#}\n", json!({"enrolments": rows, "strangers": strangers})));
        return Ok(Exit::Ok);
    }
    let mut out = String::new();
    if records.is_empty() {
        out += "no box has asked yet\n";
    } else {
        let _ = writeln!(out, "{:<10} {:<10} {:<24} {:<28} WHAT", "CLAIM", "STAGE", "SINCE", "TPM");
    }
    for record in &records {
        let _ = writeln!(
            out,
            "{:<10} {:<10} {:<24} {:<28} {}",
            record.claim_code(),
            record.stage().name(),
            utc(record.received_at),
            record.described,
            [staged(record), &remark(record)].concat()
        );
    }
    for stranger in &strangers {
        let _ = writeln!(out, "not listed, held in quarantine: TPM {} ({})", stranger.ek, stranger.note);
    }
    crate::say(&out);
    Ok(Exit::Ok)
}

fn as_json(record: &Record) -> serde_json::Value {
    let request = record.request();
    let transcript = record.transcript();
    json!({
        "claimCode": record.claim_code(),
        "fingerprint": fingerprint(&transcript),
        "transcript": transcript.to_string(),
        "stage": record.stage().name(),
        "receivedAt": record.received_at,
        "origin": request.origin,
        "inUse": request.in_use,
        "tpm": record.described,
        "manufacturer": record.manufacturer,
        "boot": record.proven.as_ref().map(|step| &step.boot),
        "secureBoot": record.proven.as_ref().map(|step| &step.secure_boot),
        "heardBy": record.approved.as_ref().map(|step| &step.by),
        "refused": record.refused.as_ref().map(|step| json!({"code": step.code, "sentence": step.sentence})),
        "remarks": request.remarks.iter().map(|one| (one.name.clone(), one.value.clone())).collect::<Vec<_>>(),
    })
}

fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let record = Shelf::open(&args.dir)?.find(&args.which)?;
    if args.json {
        crate::say(&format!("{:#}\n", as_json(&record)));
        return Ok(Exit::Ok);
    }
    let (request, transcript) = (record.request(), record.transcript());
    let mut out = String::new();
    let _ = writeln!(out, "fingerprint  {}", fingerprint(&transcript));
    let _ = writeln!(out, "stage        {} {}", record.stage().name(), remark(&record));
    let _ = writeln!(out, "asked        {}", utc(record.received_at));
    let _ = writeln!(out, "log          {}", request.origin);
    if let Some(in_use) = &request.in_use {
        let _ = writeln!(
            out,
            "STAGED       the box goes on with {in_use}, and begins this log when that is lost"
        );
    }
    let _ = writeln!(out, "TPM          {} of {}", record.described, record.manufacturer);
    if let Some(step) = &record.proven {
        let boot = if step.boot.is_empty() { "not judged" } else { &step.boot };
        let _ = writeln!(out, "boot         {boot}; Secure Boot {}", step.secure_boot);
    }
    for remark in &request.remarks {
        let _ = writeln!(out, "says         {} {:?} (nothing proves it)", remark.name, remark.value);
    }
    crate::say(&out);
    Ok(Exit::Ok)
}

fn approve(args: &ApproveArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let shelf = Shelf::open(&args.proposal.dir)?;
    let lock = shelf.lock()?;
    let mut record = shelf.find(&args.which)?;
    // Approved before, and the proposal lost or expired: it is laid out again.
    if record.stage() != Stage::Approved {
        record = record.approve(&args.heard, &args.by, crate::now_millis()?)?;
        shelf.put(&record)?;
    }
    drop(lock);
    if args.later {
        crate::say(&format!(
            "{} is noted; propose it with `bulla-fleet enrolments propose`\n",
            record.claim_code()
        ));
        return Ok(Exit::Ok);
    }
    args.proposal.lay(&desk, &roster, &deed(record.is_staged(), vec![content(&record)?]))
}

fn deed(staged: bool, contents: Vec<EnrolmentContent>) -> Deed {
    if staged { Deed::Stage(contents) } else { Deed::Enrol(contents) }
}

/// What an approved request would make of the box.
fn content(record: &Record) -> Result<EnrolmentContent, Failure> {
    let at = record.approved.as_ref().map_or(record.received_at, |step| step.at);
    record.request().content(at).map_err(|error| {
        let why = format!("{} cannot be enrolled ({error}); have the box ask anew", record.claim_code());
        Failure::new(Exit::Refused, why)
    })
}

fn propose(args: &ProposeArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let mut contents: Vec<EnrolmentContent> = Vec::new();
    let shelf = Shelf::open(&args.proposal.dir)?;
    let _lock = shelf.lock()?;
    // Of one box the newest counts, and one action names it once.
    for mut record in shelf.all()?.into_iter().rev() {
        if record.is_staged() != args.staged || contents.len() >= ENROLMENTS_MAX {
            continue;
        }
        if let Some(by) = args.by.as_deref().filter(|_| record.stage() == Stage::Proven) {
            record = record.approve_staged(by, crate::now_millis()?)?;
            shelf.put(&record)?;
        }
        if record.stage() == Stage::Approved {
            let content = content(&record)?;
            let same = |other: &EnrolmentContent| other.ek_spki_sha256 == content.ek_spki_sha256;
            let listed = roster.inventory().get(&content.ek_spki_sha256);
            let done = listed.is_some_and(|listed| listed.all_logs().any(|log| *log == content));
            if !done && !contents.iter().any(same) {
                contents.push(content);
            }
        }
    }
    if contents.is_empty() {
        let why = match args.staged {
            true => "no member waits to have its next log staged",
            false => "nobody's fingerprint was heard who is not a member already",
        };
        return Err(Failure::new(Exit::Waits, why));
    }
    contents.reverse();
    args.proposal.lay(&desk, &roster, &deed(args.staged, contents))
}

fn refuse(args: &RefuseArgs) -> Result<Exit, Failure> {
    let shelf = Shelf::open(&args.dir)?;
    let _lock = shelf.lock()?;
    let record = shelf.find(&args.which)?.decline(&args.reason, &args.by, crate::now_millis()?)?;
    shelf.put(&record)?;
    crate::say(&format!("refused {}\n", record.claim_code()));
    Ok(Exit::Ok)
}
