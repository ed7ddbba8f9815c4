//! `bulla-box lease`: hands a lease to the running box.

use super::running::HandIn;
use crate::config::Config;
use anyhow::Result;
use bulla_formats::lease::LEASE_BYTES_MAX;
use clap::{Args, Subcommand};
use std::io::Write;

/// Leases.
#[derive(Args)]
pub struct LeaseArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Hands in a lease of the fleet: while it holds, the box declares no emergency.
    Take(HandIn),
}

/// Asks the running box.
pub fn execute(args: &LeaseArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let What::Take(handed) = &args.what;
    let state = handed.post(config, "/v1/leases", "lease", LEASE_BYTES_MAX)?;
    let issuer = state["issuer"].as_str().unwrap_or("?");
    match state["secondsLeft"].as_u64() {
        Some(left) => writeln!(out, "the lease of {issuer} holds for {left} s")?,
        None => writeln!(out, "the lease of {issuer} is used up; its limits hold")?,
    }
    Ok(())
}
