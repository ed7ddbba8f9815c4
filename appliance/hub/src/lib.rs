//! `bulla-hub`: the program of the regional hub. Pulls the logs of many boxes, verifies every entry, archives them for good,
//! and says what speaks against a box.
//!
//! The program is a library with a thin `main`. Refuses to do: seal; it links neither keys nor peers.
//! Invariant: every end has a documented exit code, and every failure a sentence on stderr.
#![forbid(unsafe_code)]

mod archive;
mod commands;
mod config;
mod exit;
mod finding;
mod fsck;
mod hub;
mod index;
mod judge;
mod overdue;
mod progress;
mod pull;
mod run;
mod seal;
mod shelf;
mod source;
mod tiles;

use bulla_manual::ManualCommand;
use clap::{CommandFactory, Parser, Subcommand};
use commands::{FindArgs, FindingsArgs, FsckArgs, PullArgs, SealArgs};
use exit::{Exit, Failure};
use std::path::PathBuf;
use std::process::ExitCode;

/// Pulls, verifies and archives the logs of Bulla boxes.
#[derive(Debug, Parser)]
#[command(name = "bulla-hub", version, after_help = exit::TABLE, after_long_help = exit::TABLE)]
struct Cli {
    /// Configuration; `docs/hub.toml` is the commented sample
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/bulla/hub.toml")]
    config: PathBuf,
    /// Print JSON, one value a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the directories and an empty index
    Init,
    /// Pull the logs of all boxes: fetch, verify, archive
    Pull(PullArgs),
    /// Show how far each log is archived
    Status,
    /// Show what was found, oldest first: the event feed
    Findings(FindingsArgs),
    /// Read the whole archive again and check every entry, tile and head
    Fsck(FsckArgs),
    /// Find the seals of a document in all logs
    Find(FindArgs),
    /// Write the .seal file of an entry out of the archive
    Seal(SealArgs),
    #[command(flatten)]
    Manual(ManualCommand),
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (config, json) = (cli.config.as_path(), cli.json);
    let done = match &cli.command {
        Command::Init => commands::init(config, json),
        Command::Pull(args) => commands::pull(config, args, json),
        Command::Status => commands::status(config, json),
        Command::Findings(args) => commands::findings(config, args, json),
        Command::Fsck(args) => commands::fsck(config, args, json),
        Command::Find(args) => commands::find(config, args, json),
        Command::Seal(args) => commands::seal(config, args, json),
        Command::Manual(command) => command
            .execute(Cli::command(), "8")
            .map(|()| Exit::Ok)
            .map_err(|error| Failure::usage(format!("cannot be written: {error}"))),
    };
    let exit = done.unwrap_or_else(|failure| {
        progress::Progress::new(json).complain(&format!("bulla-hub: {failure}"));
        failure.exit
    });
    exit.into()
}
