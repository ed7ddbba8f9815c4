//! `bulla-box lease`: hands a lease to the running box.

use super::running::Running;
use crate::config::Config;
use anyhow::{Context as _, Result};
use bulla_formats::json::base64_encode;
use bulla_formats::lease::LEASE_BYTES_MAX;
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Leases.
#[derive(Args)]
pub struct LeaseArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Hands in a lease of the fleet: while it holds, the box declares no emergency.
    Take {
        /// The lease, as `bulla-fleet lease issue` writes it.
        file: PathBuf,
        /// An operator's token, in a file.
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
    },
}

/// Asks the running box.
pub fn execute(args: &LeaseArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let What::Take { file, token_file } = &args.what;
    let lease = read(file)?;
    let running = Running::new(token_file, config, PATIENCE)?;
    let state = running.post("/v1/leases", &json!({"lease": base64_encode(&lease)}))?;
    let issuer = state["issuer"].as_str().unwrap_or("?");
    match state["secondsLeft"].as_u64() {
        Some(left) => writeln!(out, "the lease of {issuer} holds for {left} s")?,
        None => writeln!(out, "the lease of {issuer} is used up; its limits hold")?,
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut bytes = Vec::new();
    // One byte more shows the box that it is too long; more need not be read.
    file.take(LEASE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(bytes)
}
