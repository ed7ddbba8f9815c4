//! `bulla-box roster`: hands a roster to the running box.

use super::running::HandIn;
use crate::config::Config;
use anyhow::Result;
use bulla_roster::roster::ROSTER_BYTES_MAX;
use clap::{Args, Subcommand};
use std::io::Write;

/// Rosters.
#[derive(Args)]
pub struct RosterArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Hands in the roster of the fleet, or of a foreign one that the configuration names: who its boxes are, and who is not
    /// one any more.
    Take(HandIn),
}

/// Asks the running box.
pub fn execute(args: &RosterArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let What::Take(handed) = &args.what;
    let state = handed.post(config, "/v1/roster", "roster", ROSTER_BYTES_MAX)?;
    let (fleet, version) = (state["fleet"].as_str().unwrap_or("?"), &state["version"]);
    writeln!(out, "the box goes by version {version} of the roster of {fleet}")?;
    Ok(())
}
