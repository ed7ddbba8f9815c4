//! `bulla-fleet approve`: a person's yes to what was proposed, given at their own machine.
//!
//! Refuses to do: approve what cannot be carried out, what its person has no say in, or anything on a roster that is
//! older than one this person has seen.
//! Invariant: the person's memory of the roster is on disk before their approval lies in the exchange directory.

use crate::ask::ask;
use crate::desk::{Desk, short};
use crate::exit::{Exit, Failure};
use crate::seen::Seen;
use crate::{configuration, files, person};
use bulla_approvals::action::Approval;
use bulla_formats::der::Octets32;
use bulla_formats::trust::{TRUST_BYTES_MAX, TrustFile};
use bulla_roster::roster::Roster;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `bulla-fleet approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The person's own directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The exchange directory of the fleet
    #[arg(long, value_name = "DIRECTORY")]
    exchange: PathBuf,
    /// Trust file whose root must have signed the minutes that the roster begins with; without it, the first time, the
    /// person is asked to compare them with the printed ones
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The first digits of an action's hash; without it, all that wait
    #[arg(value_name = "ACTION")]
    action: Option<String>,
    /// Approve without asking; for scripts and trials
    #[arg(long)]
    yes: bool,
}

/// Asks about everything that waits for this person.
pub fn run(args: &ApproveArgs) -> Result<Exit, Failure> {
    let _alone = files::Lock::take(&args.dir)?;
    let key = person::open_signing(&args.dir)?;
    let own = Octets32::new(key.verifying_key().to_bytes());
    let desk = Desk::of(&args.exchange, Some(&args.exchange))?;
    let roster = desk.roster()?;
    if let Some(path) = &args.trust {
        let trust = TrustFile::decode(&files::read(path, TRUST_BYTES_MAX)?).map_err(|error| {
            Failure::new(Exit::Refused, format!("{} is refused: {error}", path.display()))
        })?;
        roster.check_root(&trust)?;
    }
    let mut seen = Seen::open(&args.dir, roster.fleet())?;
    seen.check(&roster)?;
    if !roster.electorate().knows(&own) {
        let why = format!("the roster of {} does not list this person's key", roster.fleet());
        return Err(Failure::new(Exit::Refused, why));
    }
    if seen.is_new() && !meets(args, &roster)? {
        return Ok(Exit::Declined);
    }
    seen.keep(&roster)?;
    let now = crate::now_millis()?;
    let mut end = Exit::Ok;
    let mut asked = false;
    for action in desk.actions(args.action.as_deref())? {
        let deed = match roster.would(&action, now) {
            Ok(deed) => deed,
            Err(refusal) if args.action.is_some() => return Err(refusal.into()),
            Err(_) => continue,
        };
        let (bench, needed) = roster
            .electorate()
            .quorum(action.kind, action.overriding)
            .map_err(bulla_roster::RosterRefusal::from)?;
        let Some(person) = bench.people.iter().find(|person| person.keys.contains(&own)) else {
            if args.action.is_some() {
                let why =
                    "others decide about it: operators about most things, custodians where they override";
                return Err(Failure::new(Exit::Refused, why));
            }
            continue;
        };
        let votes = desk.approvals(&roster, &action)?;
        let names: Vec<&str> = votes.iter().map(|(name, _)| name.as_str()).collect();
        if names.contains(&person.name.as_str()) {
            crate::say(&format!("{} has approved {} already\n", person.name, short(&action)));
            asked = true;
            continue;
        }
        let so_far = if names.is_empty() { "nobody yet".to_owned() } else { names.join(", ") };
        crate::say(&roster.describe(&action, &deed));
        configuration::show(&desk, &deed)?;
        crate::say(&format!("  approved  by {so_far}; {needed} needed\n"));
        asked = true;
        if !args.yes && !ask(&format!("{}, do you approve?", person.name))? {
            crate::say("Not approved.\n");
            end = Exit::Declined;
            continue;
        }
        desk.lay_approval(&action, &Approval::sign(&action, crate::now_millis()?, &key))?;
        crate::say(&format!("{} approved {}.\n", person.name, short(&action)));
    }
    if !asked {
        crate::say(&format!(
            "Nothing waits for this person; the roster is at version {}.\n",
            roster.version().number
        ));
    }
    Ok(end)
}

/// Whether this person believes in the roster that they see for the first time.
fn meets(args: &ApproveArgs, roster: &Roster) -> Result<bool, Failure> {
    let content = &roster.founding().content;
    crate::say(&format!(
        "This directory sees the roster of {} for the first time. It begins with the ceremony of\n\
         plan        sha256:{}\nfleet root  ed25519:{}\n",
        roster.fleet(),
        hex::encode(content.plan.id().0),
        hex::encode(*content.root)
    ));
    if args.yes || args.trust.is_some() {
        return Ok(true);
    }
    ask("Are these the ones on the printed minutes?")
}
