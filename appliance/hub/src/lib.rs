//! `bulla-hub`: the program of the regional hub. Pulls the logs of many boxes, verifies every entry, archives them for good,
//! and says what speaks against a box.
//!
//! The program is a library with a thin `main`. Refuses to do: seal; it links neither keys nor peers.
//! Invariant: every end has a documented exit code, and every failure a sentence on stderr.
#![forbid(unsafe_code)]

mod archive;
mod check;
mod commands;
mod config;
mod csv;
mod dialled;
mod dossier;
mod drift;
mod exit;
mod finding;
mod fsck;
mod handing;
mod hub;
mod index;
mod journal;
mod judge;
mod keys;
mod lease;
mod locate;
mod order;
mod overdue;
mod people;
mod produce;
mod progress;
mod published;
mod pull;
mod reindex;
mod restore;
mod rivals;
mod room;
mod run;
mod seal;
mod serve;
mod shelf;
mod source;
mod statement;
mod statement_page;
mod tiles;
mod timeline;
mod timing;
mod webhook;
mod witness;

use bulla_manual::ManualCommand;
use clap::{CommandFactory, Parser, Subcommand};
use commands::audit::{AuditArgs, DriftArgs, ProduceArgs, StatementArgs, TimelineArgs};
use commands::feed::{FindingsArgs, NotifyArgs};
use commands::find::FindArgs;
use commands::{FsckArgs, PullArgs, SealArgs};
use exit::{Exit, Failure};
use people::PeopleCommand;
use restore::RestoreArgs;
use rivals::CompareArgs;
use serve::ServeArgs;
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
    /// Check the configuration and every file that it names; nothing is connected to, nothing written
    CheckConfig,
    /// Pull the logs of all boxes: fetch, verify, archive
    Pull(PullArgs),
    /// Show how far each log is archived
    Status,
    /// Show what was found, oldest first: the event feed
    Findings(FindingsArgs),
    /// Read the whole archive again and check every entry, tile and head
    Fsck(FsckArgs),
    /// Hand findings to the webhook of the configuration
    Notify(NotifyArgs),
    /// Find the seals of a document in all logs, or entries by box, kind and proven time
    #[command(after_long_help = commands::find::ASKED)]
    Find(FindArgs),
    /// State what the archive knows of a document: PDF for people, with the .seal files inside, and JSON
    Statement(StatementArgs),
    /// Show what happened to a document's seals, in the order of all logs
    Timeline(TimelineArgs),
    /// Write the .seal files of many documents, a load file and what could not be produced
    Produce(ProduceArgs),
    /// Compare the clocks of boxes with the times that authorities prove
    Drift(DriftArgs),
    /// Make the index again from the archive
    Reindex,
    /// Write the .seal file of an entry out of the archive
    Seal(SealArgs),
    /// Write a lost log as a directory that `bulla-box restore --from-archive` takes it from
    Restore(RestoreArgs),
    /// Serve a witness, the hub's own log and queries over HTTPS; pull meanwhile
    Serve(ServeArgs),
    /// Show the hub's keys, as boxes and other hubs need them
    Keys,
    /// Leases: answer for a box for a while, and bound the emergency that may follow
    Lease {
        #[command(subcommand)]
        command: lease::LeaseCommand,
    },
    /// Say who may ask a served hub
    People {
        #[command(subcommand)]
        command: PeopleCommand,
    },
    /// Show who asked for what
    Audit(AuditArgs),
    /// Hold this hub's log of heads against another hub's
    CompareHeads(CompareArgs),
    /// Print the OpenAPI 3.1 document of what a hub serves
    Openapi,
    #[command(flatten)]
    Manual(ManualCommand),
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (config, json) = (cli.config.as_path(), cli.json);
    let done = match &cli.command {
        Command::Init => commands::init(config, json),
        Command::CheckConfig => check::execute(config, json),
        Command::Pull(args) => commands::pull(config, args, json),
        Command::Status => commands::status(config, json),
        Command::Findings(args) => commands::feed::findings(config, args, json),
        Command::Notify(args) => commands::feed::notify(config, args, json),
        Command::Fsck(args) => commands::fsck(config, args, json),
        Command::Find(args) => commands::find::find(config, args, json),
        Command::Statement(args) => commands::audit::statement(config, args, json),
        Command::Timeline(args) => commands::audit::timeline(config, args, json),
        Command::Produce(args) => commands::audit::produce(config, args, json),
        Command::Drift(args) => commands::audit::drift(config, args, json),
        Command::Reindex => commands::reindex(config, json),
        Command::Seal(args) => commands::seal(config, args, json),
        Command::Restore(args) => restore::execute(config, args, json),
        Command::Serve(args) => serve::execute(config, args, json),
        Command::Keys => serve::keys(config, json),
        Command::Lease { command } => lease::execute(config, command, json),
        Command::People { command } => {
            hub::load(config).and_then(|config| people::execute(&config, command, json))
        }
        Command::Audit(args) => commands::audit::audit(config, args, json),
        Command::CompareHeads(args) => rivals::compare(config, args, json),
        Command::Openapi => {
            progress::print(serve::openapi::text());
            Ok(Exit::Ok)
        }
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
