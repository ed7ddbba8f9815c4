//! `bulla-box retire`: ends the log of the stopped box and destroys what is secret, by approval of the fleet's people.
//!
//! Refuses to do: begin without a decision; ask whether it is meant when it has begun.

use super::approval::ExtentName;
use crate::config::Config;
use crate::retirement::{self, Decided, Reached};
use anyhow::{Context as _, Result, ensure};
use bulla_formats::hash::Hash;
use bulla_formats::report::utc;
use bulla_roster::approvals::at_box::Retire;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Others must act first.
const WAITS: u8 = 3;

/// Arguments.
#[derive(Args)]
pub struct RetireArgs {
    /// The approved action, as `bulla-fleet apply` handed it out. Once taken it need not be named again.
    #[arg(long, value_name = "FILE", conflicts_with = "yes_retire")]
    approved: Option<PathBuf>,
    /// The fleet's roster, for a box that does not keep it itself.
    #[arg(long, value_name = "FILE", requires = "approved")]
    roster: Option<PathBuf>,
    /// At a fleet of one, in place of approvals: the name of the log that ends.
    #[arg(long, value_name = "ORIGIN", requires = "reason", requires = "extent")]
    yes_retire: Option<String>,
    /// What goes, with --yes-retire.
    #[arg(long, value_enum, requires = "yes_retire")]
    extent: Option<ExtentName>,
    /// Even if no authority has anchored the last seals, with --yes-retire.
    #[arg(long, requires = "yes_retire")]
    without_anchors: bool,
    /// Even if no neighbour holds the last seals, with --yes-retire.
    #[arg(long, requires = "yes_retire")]
    without_copies: bool,
    /// Why, with --yes-retire; it stands in the final entry and in the certificate.
    #[arg(long, requires = "yes_retire")]
    reason: Option<String>,
    /// Gives up what was decided, as long as the log has not ended: the box seals again. Approvals are used all the same.
    #[arg(long, conflicts_with_all = ["approved", "yes_retire", "out"])]
    cancel: bool,
    /// Where else to write the destruction certificate.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Carries it as far as it goes.
pub fn execute(args: &RetireArgs, config: &Config, out: &mut impl Write) -> Result<u8> {
    let state = &config.state_dir;
    if args.cancel {
        retirement::cancel(config)?;
        writeln!(out, "this box does not retire, and seals again")?;
        return Ok(0);
    }
    let begun = retirement::in_place_of_identity(state).is_some();
    let decided = match (&args.approved, &args.yes_retire) {
        _ if begun => None,
        (Some(change), _) => Some(Decided::Approved { change, roster: args.roster.as_deref() }),
        (None, Some(origin)) => Some(Decided::Owner {
            origin,
            retire: Retire {
                extent: args.extent.context("--extent says what goes")?.extent(),
                without_anchors: args.without_anchors,
                without_copies: args.without_copies,
            },
            reason: args.reason.as_deref().unwrap_or_default(),
        }),
        (None, None) => None,
    };
    if let Some(decided) = decided {
        let order = retirement::decide(config, &decided)?;
        writeln!(out, "decided: {} retires, and takes no new seals", order.origin)?;
    }
    match retirement::go_on(config, out)? {
        Reached::Waits(what) => {
            writeln!(out, "not yet: {what}")?;
            return Ok(WAITS);
        }
        Reached::Done => {}
    }
    let certificate = retirement::certificate(state)?;
    if let Some(path) = &args.out {
        ensure!(path != &state.join(retirement::CERTIFICATE), "--out names the certificate itself");
        std::fs::write(path, certificate.encode())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let statement = &certificate.statement;
    writeln!(
        out,
        "{} has ended with {} entries, root {}, at {}\nthe certificate is {}; `bulla-fleet certificate` verifies and prints it, \
         `bulla-fleet retire` takes the box out of the roster",
        statement.origin,
        statement.head.size,
        Hash(*statement.head.root),
        utc(statement.made_at),
        state.join(retirement::CERTIFICATE).display()
    )?;
    Ok(0)
}
