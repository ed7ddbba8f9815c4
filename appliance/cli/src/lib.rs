//! `bulla`: seal and verify documents, inspect evidence, check logs.
//!
//! The program is a library with a thin `main`, so that fuzz targets reach what it reads.
//! Refuses to do: link TPM or peer-to-peer code, or need a network for anything but `seal`, `watch`, `upgrade`,
//! `search`, `log`, `backup` and `status`.
//! Invariant: every end has a documented exit code, and every failure a sentence on stderr.
#![forbid(unsafe_code)]

mod backup;
mod client;
mod exit;
mod extract;
mod files;
mod fsck;
mod fsck_copy;
#[doc(hidden)]
pub mod fuzzing;
mod given_up;
mod inspect;
mod log;
mod manifest;
mod media;
mod order;
mod output;
mod progress;
mod seal;
mod search;
mod status;
mod upgrade;
mod verifier;
mod verify;
mod verify_many;
mod watch;

use bulla_manual::ManualCommand;
use clap::{Args, CommandFactory, Parser, Subcommand};
use exit::{Exit, Failure};
use std::path::PathBuf;
use std::process::ExitCode;

/// Seals documents with a Bulla box and verifies them anywhere, offline, for ever.
#[derive(Debug, Parser)]
#[command(name = "bulla", version, after_help = exit::TABLE, after_long_help = exit::TABLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Seal documents: FILE gets FILE.seal beside it
    Seal(seal::SealArgs),
    /// Watch a folder: every complete document that appears in it is sealed once, by the first box that can
    Watch(watch::WatchArgs),
    /// Verify documents against their seals, offline
    Verify(verify::VerifyArgs),
    /// Write the browser verifier: one HTML file for people without this program
    Verifier(verifier::VerifierArgs),
    /// Take newer evidence from the box into .seal files
    Upgrade(upgrade::UpgradeArgs),
    /// Show what is inside a .seal, a trust file or an entry, without judging it
    Inspect(inspect::InspectArgs),
    /// Verify what a box stated about an outage, from a file or from its printed page
    Manifest(manifest::ManifestArgs),
    /// Check a whole log on disk; the box must be stopped
    Fsck(fsck::FsckArgs),
    /// Find seals on a box by file, digest, document id, user, client or time
    Search(search::SearchArgs),
    /// Show the entries of all logs that a box holds, its own and its neighbours', in one order
    Log(log::LogArgs),
    /// Take an encrypted backup of a running box
    Backup(backup::BackupArgs),
    /// Show the state of a box
    Status(status::StatusArgs),
    /// Print the fingerprint of a trust file, to compare over the phone
    TrustFingerprint(FingerprintArgs),
    #[command(flatten)]
    Manual(ManualCommand),
}

#[derive(Debug, Args)]
struct FingerprintArgs {
    /// The trust file
    #[arg(value_name = "TRUST")]
    trust: PathBuf,
}

fn trust_fingerprint(args: &FingerprintArgs) -> Result<Exit, Failure> {
    let (_, fingerprint) = files::read_trust(&args.trust)?;
    output::print(&format!("{fingerprint}\n"));
    Ok(Exit::Ok)
}

fn manual(command: &ManualCommand) -> Result<Exit, Failure> {
    match command.execute(Cli::command(), "1") {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(Failure::usage(format!("cannot be written: {error}"))),
    }
}

/// The program.
pub fn main() -> ExitCode {
    let done = match &Cli::parse().command {
        Command::Seal(args) => seal::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Verifier(args) => verifier::run(args),
        Command::Upgrade(args) => upgrade::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Manifest(args) => manifest::run(args),
        Command::Fsck(args) => fsck::run(args),
        Command::Search(args) => search::run(args),
        Command::Log(args) => log::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Status(args) => status::run(args),
        Command::TrustFingerprint(args) => trust_fingerprint(args),
        Command::Manual(command) => manual(command),
    };
    let exit = done.unwrap_or_else(|failure| {
        output::complain(&format!("bulla: {failure}"));
        failure.exit
    });
    exit.into()
}
