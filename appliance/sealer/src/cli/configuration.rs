//! `bulla-box configuration`: what the fleet's people approved for this box to go by.
//!
//! Refuses to do: take a file that no roster names for this box. Needs no token: what counts is whom the roster names.

use super::running::handed_in;
use crate::approved::{self, FILE_BYTES_MAX, Named, Place, Wanted};
use crate::config::Config;
use anyhow::{Context as _, Result};
use bulla_roster::roster::ROSTER_BYTES_MAX;
use clap::Subcommand;
use std::io::Write;
use std::path::PathBuf;

/// What to do.
#[derive(Subcommand)]
pub enum ConfigurationCommand {
    /// Takes a configuration file that people have approved; a running box starts again with it, and goes back when it
    /// cannot. Not needed where the registrar can be reached: the box fetches it.
    Take {
        /// The file, byte for byte as it was approved.
        file: Option<PathBuf>,
        /// The newest roster, where the box does not follow one.
        #[arg(long, value_name = "FILE")]
        roster: Option<PathBuf>,
    },
    /// Which configuration is in force, which one waits, which one did not do.
    Show {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// Prints the file in force.
        #[arg(long, conflicts_with = "json")]
        text: bool,
    },
}

fn words(named: &Named) -> String {
    let file =
        named.hash().map_or("the file that lies on the box".to_owned(), |hash| format!("sha256:{hash}"));
    match named.roster {
        0 => file,
        version => format!("{file}, by version {version} of the roster"),
    }
}

/// Carries it out. `config`: as it lies on the box.
pub fn execute(command: &ConfigurationCommand, config: &Config, out: &mut impl Write) -> Result<()> {
    match command {
        ConfigurationCommand::Take { file, roster } => {
            let roster = roster.as_ref().map(|path| handed_in(path, ROSTER_BYTES_MAX)).transpose()?;
            let (version, named) = approved::named_by(config, roster.as_deref())?;
            let bytes = match (file, &named) {
                (Some(path), Some(hash)) => {
                    let bytes = handed_in(path, FILE_BYTES_MAX)?;
                    approved::check_file(&bytes, hash).with_context(|| path.display().to_string())?;
                    Some(bytes)
                }
                (None, None) => None,
                (Some(_), None) => anyhow::bail!(
                    "version {version} of the roster names no configuration for this box: let people approve it (`bulla-fleet \
                     propose configuration`), and bring the newest roster with --roster"
                ),
                (None, Some(hash)) => {
                    anyhow::bail!("name the file: the roster has this box go by sha256:{hash}")
                }
            };
            let place = Place::of(config);
            match approved::wants(&config.state_dir, version, named) {
                None => writeln!(out, "this box goes by it already, or has refused it: nothing was changed")?,
                Some(Wanted::AsItIs) => {
                    approved::agree(&config.state_dir, version)?;
                    writeln!(out, "this box goes by it already; what it refused counts no more")?;
                }
                Some(_) => {
                    approved::take(&place, version, bytes.as_deref())?;
                    writeln!(
                        out,
                        "taken: the box goes by it from its next start on; a running one starts again now"
                    )?;
                }
            }
        }
        ConfigurationCommand::Show { json: true, .. } => {
            let facts = approved::facts(&approved::read(&config.state_dir)?);
            writeln!(out, "{facts}")?;
        }
        ConfigurationCommand::Show { text: true, .. } => {
            let state = approved::read(&config.state_dir)?;
            match &state.in_force.text {
                Some(text) => out.write_all(text.as_bytes())?,
                None => anyhow::bail!(
                    "the file that lies on the box is in force; it is the one that --config names"
                ),
            }
        }
        ConfigurationCommand::Show { .. } => {
            let state = approved::read(&config.state_dir)?;
            writeln!(out, "in force  {}", words(&state.in_force))?;
            if let Some(trial) = &state.trial {
                let (what, named) = (if trial.starts == 0 { "waits" } else { "tried" }, words(&trial.named));
                writeln!(out, "{what:<9} {named}")?;
            }
            if let Some(refused) = &state.refused {
                let file = refused
                    .file
                    .as_ref()
                    .map_or("the file that lies on the box".to_owned(), |hash| format!("sha256:{hash}"));
                writeln!(
                    out,
                    "refused   {file}, by version {} of the roster: {}",
                    refused.roster, refused.why
                )?;
            }
        }
    }
    Ok(())
}
