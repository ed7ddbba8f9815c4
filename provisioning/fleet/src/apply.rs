//! `bulla-fleet apply`: carries out what enough people have approved.
//!
//! What a box carries out makes no version of the roster: it is handed out as a file, and a copy is kept as a record.
//!
//! Refuses to do: carry out anything on a roster that a newer one is known of, or half of a change.
//! Invariant: the fleet's roster is on disk before the exchange directory shows it; killed at any moment and started
//! again, it goes on.

use crate::desk::{Desk, ROSTER, short};
use crate::exit::{Exit, Failure};
use crate::{configuration, files};
use bulla_approvals::action::Change;
use bulla_roster::RosterRefusal;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `bulla-fleet apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The exchange directory; by default `exchange` in the fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    exchange: Option<PathBuf>,
    /// The first digits of an action's hash; without it, everything that is approved
    #[arg(value_name = "ACTION")]
    action: Option<String>,
}

/// Carries out what can be.
pub fn run(args: &ApplyArgs) -> Result<Exit, Failure> {
    let _alone = files::Lock::take(&args.dir)?;
    let desk = Desk::of(&args.dir, args.exchange.as_deref())?;
    let mut roster = desk.roster_of(&args.dir)?;
    // It may have been killed before it showed the last one.
    desk.lay_roster(&roster.encode())?;
    let now = crate::now_millis()?;
    let (mut done, mut waits) = (0, false);
    for action in desk.actions(args.action.as_deref())? {
        let name = short(&action);
        let deed = match roster.would(&action, now) {
            Ok(deed) => deed,
            Err(refusal) if args.action.is_some() => return Err(refusal.into()),
            // Of what was carried out or overtaken long ago nobody needs to hear each time.
            Err(refusal) if ["used", "expired"].contains(&refusal.code()) => continue,
            Err(refusal) if refusal.code() == "stale" && done == 0 => continue,
            Err(refusal) => {
                crate::say(&format!(
                    "{name} ({}) is not carried out ({}): {refusal}\n",
                    action.kind.name(),
                    refusal.code()
                ));
                continue;
            }
        };
        let electorate = roster.electorate();
        let (_, needed) = electorate.quorum(action.kind, action.overriding).map_err(RosterRefusal::from)?;
        let (names, approvals): (Vec<_>, Vec<_>) = desk.approvals(&roster, &action)?.into_iter().unzip();
        if names.len() < needed {
            waits = true;
            let so_far = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            crate::say(&format!(
                "{name} ({}) waits: {so_far} approved it, and {needed} are needed\n",
                action.kind.name()
            ));
            continue;
        }
        if let Some(target) = action.target.clone() {
            let change = Change::new(action.clone(), approvals);
            roster.judge_at_box(&change, &target, now)?;
            let bytes = change.encode();
            let (known, path) = desk.hand_out(&args.dir, &action, &bytes)?;
            if !known {
                done += 1;
                let by = names.join(", ");
                let how = if action.overriding { " by OVERRIDE" } else { "" };
                crate::say(&format!(
                    "{name} (box) is approved{how} by {by}; the box carries it out: hand it {}\n",
                    path.display()
                ));
            }
            continue;
        }
        configuration::keep(&desk, &args.dir, &deed)?;
        let mut next = roster.clone();
        let number = next.apply(Change::new(action.clone(), approvals), now)?.number;
        let bytes = next.encode();
        files::write(&args.dir.join(ROSTER), &bytes)?;
        desk.lay_roster(&bytes)?;
        roster = next;
        done += 1;
        let by = names.join(", ");
        let how = if action.overriding { " by OVERRIDE" } else { "" };
        crate::say(&format!(
            "{name} ({}) is carried out{how}, approved by {by}: version {number} of the roster\n",
            action.kind.name()
        ));
    }
    if done == 0 && !waits {
        crate::say(&format!("Nothing waits; the roster is at version {}.\n", roster.version().number));
    }
    Ok(if waits { Exit::Waits } else { Exit::Ok })
}
