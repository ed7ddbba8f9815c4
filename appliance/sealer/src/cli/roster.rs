//! `bulla-box roster`: hands a roster to the running box.

use super::running::Running;
use crate::config::Config;
use anyhow::{Context as _, Result};
use bulla_formats::json::base64_encode;
use bulla_roster::roster::ROSTER_BYTES_MAX;
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

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
    Take {
        /// The roster, as it lies in the fleet's exchange directory.
        file: PathBuf,
        /// An operator's token, in a file.
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
    },
}

/// Asks the running box.
pub fn execute(args: &RosterArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let What::Take { file, token_file } = &args.what;
    let roster = read(file)?;
    let running = Running::new(token_file, config, PATIENCE)?;
    let state = running.post("/v1/roster", &json!({"roster": base64_encode(&roster)}))?;
    let (fleet, version) = (state["fleet"].as_str().unwrap_or("?"), &state["version"]);
    writeln!(out, "the box goes by version {version} of the roster of {fleet}")?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut bytes = Vec::new();
    // One byte more shows the box that it is too long; more need not be read.
    file.take(ROSTER_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(bytes)
}
