//! `bulla-fleet`: the fleet's root, and the people who hold it.
//!
//! Refuses to do: hold the root where several custodians do, or seal documents (that is the boxes' work).
//! Invariant: every end has a documented exit code, and every failure a sentence on stderr.
#![forbid(unsafe_code)]

mod apply;
mod approve;
mod ask;
mod attend;
mod authority;
mod backup;
mod cards;
mod configuration;
mod desk;
mod enrolments;
mod exchange;
mod exit;
mod files;
mod init;
mod inventory;
mod lease;
mod makers;
mod person;
mod propose;
mod reference;
mod replace;
mod retire;
mod roster;
mod seen;
mod serve;
mod terms;
mod transcript;
mod trust;

use bulla_manual::ManualCommand;
use clap::{CommandFactory, Parser, Subcommand};
use exit::{Exit, Failure};
use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Makes a fleet, and keeps its roster: the key ceremony, the boxes, and what people approve.
#[derive(Debug, Parser)]
#[command(name = "bulla-fleet", version, after_help = exit::TABLE, after_long_help = exit::TABLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the keys of a custodian or operator, and the card to hand out
    Person(person::PersonArgs),
    /// Lead the ceremony that makes the fleet root, the fleet CA and the trust file
    Init(init::InitArgs),
    /// Take part in a ceremony as a custodian
    Attend(attend::AttendArgs),
    /// Verify and print the minutes of a ceremony
    Transcript(transcript::TranscriptArgs),
    /// Known good boots: read event logs, add them to a trust file, say what differs
    #[command(subcommand)]
    Reference(reference::ReferenceCommand),
    /// Whose time is believed: add time-stamp authorities and witnesses to a trust file, list them
    #[command(subcommand)]
    Authority(authority::AuthorityCommand),
    /// Which boxes the fleet has: import rows (proposes it), list, show
    #[command(subcommand)]
    Inventory(inventory::InventoryCommand),
    /// Propose an action that needs approval
    #[command(subcommand)]
    Propose(propose::ProposeCommand),
    /// Propose that a box leaves the fleet for ever
    Revoke(propose::RevokeArgs),
    /// Propose that another box takes the place of a lost one, whose log others hold
    Replace(replace::ReplaceArgs),
    /// Propose that a box leaves for having retired, by its destruction certificate
    Retire(retire::RetireArgs),
    /// Verify and print a destruction certificate
    Certificate(retire::CertificateArgs),
    /// Propose that a box that left may be enrolled once more
    Pardon(propose::BoxArgs),
    /// Approve what was proposed, at one's own machine with one's own directory
    Approve(approve::ApproveArgs),
    /// Carry out what enough people have approved
    Apply(apply::ApplyArgs),
    /// The roster: who decides, what happened, whether a copy is genuine and the newest
    #[command(subcommand)]
    Roster(roster::RosterCommand),
    /// The trust file: write what the roster says of logs that were given up
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Leases: answer for a box for a while, and bound the emergency that may follow
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Whose TPMs are believed: list manufacturers' certificates, pin them, import others
    #[command(subcommand)]
    Makers(makers::MakersCommand),
    /// Run the registrar, which boxes ask to be enrolled
    Serve(serve::ServeArgs),
    /// What boxes have asked for: list, show, approve, refuse
    #[command(subcommand)]
    Enrolments(enrolments::EnrolmentsCommand),
    /// Write the fleet directory into one encrypted, signed file
    Backup(backup::BackupArgs),
    /// Make a fleet directory from a backup
    Restore(backup::RestoreArgs),
    #[command(flatten)]
    Manual(ManualCommand),
}

/// Prints on standard output; a reader that has gone away is no error.
fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    let _reader_gone = out.write_all(words.as_bytes()).and_then(|()| out.flush());
}

/// 32 random bytes of the system.
fn random() -> Result<Zeroizing<[u8; 32]>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes)
        .map_err(|error| Failure::usage(format!("the operating system gives no randomness: {error}")))?;
    Ok(bytes)
}

/// Milliseconds since 1970 by this machine's clock.
fn now_millis() -> Result<u64, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.map_err(|_| Failure::usage("the clock stands before 1970; set it"))?;
    Ok(since.as_millis() as u64)
}

fn main() -> ExitCode {
    let done = match &Cli::parse().command {
        Command::Person(args) => person::run(args),
        Command::Init(args) => init::run(args),
        Command::Attend(args) => attend::run(args),
        Command::Transcript(args) => transcript::run(args),
        Command::Reference(command) => reference::run(command),
        Command::Authority(command) => authority::run(command),
        Command::Inventory(command) => inventory::run(command),
        Command::Propose(command) => propose::run(command),
        Command::Revoke(args) => propose::revoke(args),
        Command::Replace(args) => replace::run(args),
        Command::Retire(args) => retire::run(args),
        Command::Certificate(args) => retire::show(args),
        Command::Pardon(args) => propose::pardon(args),
        Command::Approve(args) => approve::run(args),
        Command::Apply(args) => apply::run(args),
        Command::Roster(command) => roster::run(command),
        Command::Trust(command) => trust::run(command),
        Command::Lease(command) => lease::run(command),
        Command::Makers(command) => makers::run(command),
        Command::Serve(args) => serve::run(args),
        Command::Enrolments(command) => enrolments::run(command),
        Command::Backup(args) => backup::back_up(args),
        Command::Restore(args) => backup::restore(args),
        Command::Manual(command) => command
            .execute(Cli::command(), "1")
            .map(|()| Exit::Ok)
            .map_err(|error| Failure::usage(format!("cannot be written: {error}"))),
    };
    let exit = done.unwrap_or_else(|failure| {
        let mut err = std::io::stderr().lock();
        let _reader_gone = writeln!(err, "bulla-fleet: {failure}");
        failure.exit
    });
    exit.into()
}
