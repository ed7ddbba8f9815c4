//! `bulla-fleet roster`: who decides, what happened by whose will, and whether a copy is genuine and the newest.
//!
//! Refuses to do: replace a roster by an older or another one.

use crate::desk::{Desk, ROSTER, read_roster};
use crate::exit::{Exit, Failure};
use crate::{files, terms};
use bulla_approvals::electorate::Bench;
use bulla_formats::report::utc;
use bulla_formats::trust::{TRUST_BYTES_MAX, TrustFile};
use bulla_roster::inventory::State;
use bulla_roster::roster::{Done, Roster};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Subcommands of `bulla-fleet roster`.
#[derive(Debug, Subcommand)]
pub enum RosterCommand {
    /// Print version, people, numbers of boxes, hubs, whose time is believed, and the policy
    Show(ShowArgs),
    /// Print every change, by whose will and why
    History(ShowArgs),
    /// Verify a copy: by a root of a trust file, and against one that was seen before
    Verify(VerifyArgs),
    /// Take up a newer roster than the fleet directory has, as after a restore
    Take(TakeArgs),
}

/// Arguments of `show` and `history`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The fleet directory, or an exchange directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The roster
    #[arg(value_name = "ROSTER")]
    roster: PathBuf,
    /// Trust file whose root must have signed the minutes it begins with
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// A roster that was seen before: this one must continue it
    #[arg(long, value_name = "ROSTER")]
    seen: Option<PathBuf>,
}

/// Arguments of `take`.
#[derive(Debug, Args)]
pub struct TakeArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The newer roster, e.g. of the exchange directory
    #[arg(long, value_name = "ROSTER")]
    from: PathBuf,
}

/// Carries it out.
pub fn run(command: &RosterCommand) -> Result<Exit, Failure> {
    match command {
        RosterCommand::Show(args) => show(args),
        RosterCommand::History(args) => history(args),
        RosterCommand::Verify(args) => verify(args),
        RosterCommand::Take(args) => take(args),
    }
}

fn people(bench: &Bench) -> Value {
    let people: Vec<Value> = bench
        .people
        .iter()
        .map(|person| {
            let keys: Vec<String> = person.keys.iter().map(|key| hex::encode(**key)).collect();
            json!({"name": person.name, "keys": keys})
        })
        .collect();
    json!({"needed": bench.needed, "people": people})
}

fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let roster = read_roster(&args.dir.join(ROSTER))?;
    let (electorate, version) = (roster.electorate(), roster.version());
    let count = |state: State| roster.inventory().boxes().filter(|listed| listed.state == state).count();
    if args.json {
        let boxes: serde_json::Map<String, Value> =
            State::ALL.iter().map(|state| (state.name().to_owned(), count(*state).into())).collect();
        let (anchors, policy, hubs) = terms::to_json(&roster);
        let value = json!({
            "fleet": roster.fleet(),
            "root": hex::encode(*roster.founding().content.root),
            "version": version.number,
            "hash": hex::encode(*version.hash),
            "operators": electorate.operators().map(people),
            "custodians": people(electorate.custodians()),
            "boxes": boxes,
            "anchors": anchors,
            "policy": policy,
            "hubs": hubs,
        });
        crate::say(&format!("{value}\n"));
        return Ok(Exit::Ok);
    }
    crate::say(&format!(
        "fleet       {}\nfleet root  ed25519:{}\nversion     {}, sha256:{}\n",
        roster.fleet(),
        hex::encode(*roster.founding().content.root),
        version.number,
        hex::encode(*version.hash)
    ));
    let benches = [("operators", electorate.operators()), ("custodians", Some(electorate.custodians()))];
    for (name, bench) in benches {
        let Some(bench) = bench else {
            crate::say("operators   none: the custodians decide\n");
            continue;
        };
        let names: Vec<String> = bench
            .people
            .iter()
            .map(|person| match person.keys.len() {
                1 => person.name.clone(),
                keys => format!("{} ({keys} keys)", person.name),
            })
            .collect();
        crate::say(&format!("{name:<10}  {} of {}: {}\n", bench.needed, names.len(), names.join(", ")));
    }
    let counts: Vec<String> =
        State::ALL.iter().map(|state| format!("{} {}", count(*state), state.name())).collect();
    crate::say(&format!("boxes       {}\n", counts.join(", ")));
    crate::say(&terms::to_text(&roster));
    Ok(Exit::Ok)
}

/// A change in one line.
pub fn line_of(number: u64, done: &Done) -> String {
    let action = &done.change.action;
    format!(
        "version {number}: {}{} by {}, proposed {}: {}",
        action.kind.name(),
        if action.overriding { " (OVERRIDE)" } else { "" },
        done.by.join(", "),
        utc(action.proposed_at),
        action.reason
    )
}

fn history(args: &ShowArgs) -> Result<Exit, Failure> {
    let roster = read_roster(&args.dir.join(ROSTER))?;
    let content = &roster.founding().content;
    if args.json {
        let changes: Vec<Value> = roster
            .history()
            .iter()
            .zip(&roster.versions()[1..])
            .map(|(done, version)| {
                let action = &done.change.action;
                let at: Vec<Value> = done
                    .change
                    .approvals
                    .iter()
                    .map(|approval| json!({"key": hex::encode(*approval.key), "atMillis": approval.at}))
                    .collect();
                json!({
                    "version": version.number,
                    "hash": hex::encode(*version.hash),
                    "kind": action.kind.name(),
                    "override": action.overriding,
                    "reason": action.reason,
                    "proposedMillis": action.proposed_at,
                    "action": action.hash().to_string(),
                    "approvedBy": done.by,
                    "approvals": at,
                })
            })
            .collect();
        let value =
            json!({"fleet": roster.fleet(), "foundedMillis": content.plan.created_at, "changes": changes});
        crate::say(&format!("{value}\n"));
        return Ok(Exit::Ok);
    }
    crate::say(&format!(
        "version 0: founded by {} custodian(s), planned {}, root ed25519:{}\n",
        content.plan.custodians.len(),
        utc(content.plan.created_at),
        hex::encode(*content.root)
    ));
    for (done, number) in roster.history().iter().zip(1..) {
        crate::say(&format!("{}\n", line_of(number, done)));
    }
    Ok(Exit::Ok)
}

fn verify(args: &VerifyArgs) -> Result<Exit, Failure> {
    let roster = read_roster(&args.roster)?;
    let trust = TrustFile::decode(&files::read(&args.trust, TRUST_BYTES_MAX)?).map_err(|error| {
        Failure::new(Exit::Refused, format!("{} is refused: {error}", args.trust.display()))
    })?;
    roster.check_root(&trust)?;
    if let Some(seen) = &args.seen {
        roster.check_seen(read_roster(seen)?.version())?;
    }
    crate::say(&format!(
        "It verifies: {} change(s) by the will of the people of {}, from the fleet root to version {}, sha256:{}\n",
        roster.history().len(),
        roster.fleet(),
        roster.version().number,
        hex::encode(*roster.version().hash)
    ));
    Ok(Exit::Ok)
}

fn take(args: &TakeArgs) -> Result<Exit, Failure> {
    let _alone = files::Lock::take(&args.dir)?;
    let newer = read_roster(&args.from)?;
    let own = args.dir.join(ROSTER);
    match own.exists() {
        true => newer.check_seen(read_roster(&own)?.version())?,
        // Without one, the minutes say which roster is this fleet's.
        false => of_these_minutes(args, &newer)?,
    }
    let bytes = newer.encode();
    files::write(&own, &bytes)?;
    Desk::of(&args.dir, None)?.lay_roster(&bytes)?;
    crate::say(&format!("{} is at version {} now.\n", own.display(), newer.version().number));
    Ok(Exit::Ok)
}

fn of_these_minutes(args: &TakeArgs, roster: &Roster) -> Result<(), Failure> {
    let path = args.dir.join("transcript");
    let minutes = files::read(&path, bulla_ceremony::transcript::TRANSCRIPT_BYTES_MAX)?;
    if bulla_formats::der::encode(roster.founding()) != minutes[..] {
        let why = format!("{} begins with other minutes than {}", args.from.display(), path.display());
        return Err(Failure::new(Exit::Refused, why));
    }
    Ok(())
}
