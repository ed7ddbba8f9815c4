//! The command line: arguments, and which part of the program answers them.
//!
//! Refuses to do: anything itself. A subcommand with more than a few lines has a file of its own beside this one.
//! Invariant: an error is one sentence on stderr and a documented exit code.

mod alerts;
mod approval;
mod backup;
mod configuration;
mod drill;
mod enroll;
mod erase;
mod from_archive;
mod from_peers;
mod lease;
mod peers;
mod people;
mod retire;
mod roster;
mod running;
mod scanner;
mod staged;

use crate::config::Config;
use crate::{api, approved, fsck, identity, run, tls, trust};
use anyhow::Result;
use bulla_manual::ManualCommand;
use clap::{CommandFactory, Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

const FAILED: u8 = 1;
const CONFIGURATION: u8 = 2;

/// Seals documents over the LAN.
#[derive(Parser)]
#[command(
    name = "bulla-box",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage or \
    configuration; 3 somebody else must act first; 4 a rollback is suspected; 75 `run` is to be started again, with the \
    configuration that was approved."
)]
struct Cli {
    /// Configuration file (TOML; docs/box.toml is a commented sample).
    #[arg(long, short, global = true, default_value = "/etc/bulla/box.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Line,
}

#[derive(Subcommand)]
enum Line {
    #[command(flatten)]
    OfTheBox(Command),
    /// Prints the OpenAPI document of the HTTP API; needs no configuration.
    Openapi,
    #[command(flatten)]
    OfTheManual(ManualCommand),
}

/// What works on a box, and therefore needs its configuration.
#[derive(Subcommand)]
enum Command {
    /// Creates keys, CA and log of a new box in an empty state directory: a fleet of one, with its own root.
    Init,
    /// Makes a new box part of a fleet: proves its TPM to the registrar and waits for approval. Exit code 3 with --once
    /// while somebody else must act.
    Enroll(enroll::EnrollArgs),
    /// Runs the box until SIGTERM or SIGINT.
    Run {
        /// Only checks the configuration.
        #[arg(long)]
        check_config: bool,
        /// On an image of its own: where `bulla-update` records what became of updates, for the log.
        #[arg(long, value_name = "FILE")]
        updates: Option<PathBuf>,
        /// On an image of its own: tests itself at once, and writes here whether the test has passed.
        #[arg(long, value_name = "FILE")]
        health: Option<PathBuf>,
        /// On an image of its own: says here every second how the box does, for the console of its machine.
        #[arg(long, value_name = "FILE")]
        status: Option<PathBuf>,
        /// On an image of its own: where `bulla-console` records changes to the network settings, for the log.
        #[arg(long, value_name = "FILE")]
        network: Option<PathBuf>,
    },
    /// Checks the configuration and exits.
    CheckConfig,
    /// Registers, lists and revokes clients; a running box takes note at once.
    Scanner {
        #[command(subcommand)]
        command: scanner::ScannerCommand,
    },
    /// Adds, lists and removes people who use the console; a running box takes note at once.
    People {
        #[command(subcommand)]
        command: people::PeopleCommand,
    },
    /// The trust file, for those who verify seals.
    Trust {
        #[command(subcommand)]
        command: Export,
    },
    /// The CA certificate, for those who connect to the box.
    Ca {
        #[command(subcommand)]
        command: Export,
    },
    /// Checks the log on disk; the box must be stopped. Exit code 1 when something is damaged.
    Fsck {
        /// Rebuilds derived tables. Never touches entries.
        #[arg(long)]
        repair: bool,
    },
    /// Backs up a stopped box into one encrypted file; a running one is asked with `bulla backup`.
    Backup(backup::BackupArgs),
    /// Restores a backup into an empty state directory; or a lost log from the neighbours that mirror it, or from
    /// a hub's archive.
    Restore(backup::RestoreArgs),
    /// Destroys what opens the personal data in seals; the seals stay valid.
    Erase(erase::EraseArgs),
    /// Rehearses an outage on the running box, without harm: every entry it touches says that it is a drill.
    Drill(drill::DrillArgs),
    /// Alerts: whom the box tells of its own troubles.
    Alerts {
        #[command(subcommand)]
        command: alerts::AlertsCommand,
    },
    /// Leases of the fleet: for a while a hub answers for the box.
    Lease(lease::LeaseArgs),
    /// The configuration that the fleet's people approved for this box.
    Configuration {
        #[command(subcommand)]
        command: configuration::ConfigurationCommand,
    },
    /// Rosters: who the boxes of a fleet are.
    Roster(roster::RosterArgs),
    /// Neighbours: boxes that mirror and witness each other's logs; a running box takes note at once.
    Peers {
        #[command(subcommand)]
        command: peers::PeersCommand,
    },
    /// Approvals of what this box carries out itself: asks the fleet's people for them.
    Approval(approval::ApprovalArgs),
    /// Takes the stopped box out of service: its log ends, what is secret is destroyed, its TPM cleared. Exit code 3 while
    /// something must happen first. Killed at any moment, the same command goes on.
    Retire(retire::RetireArgs),
    /// The next log of a member, enrolled ahead of time: for the day on which the log in use is lost and nobody can be asked.
    Staged {
        #[command(subcommand)]
        command: staged::StagedCommand,
    },
    /// Ends a log that may be an older copy, and begins a new incarnation that names it.
    Succeed {
        /// Why; it is in the new log for ever.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Subcommand)]
enum Export {
    /// Writes it to a file and prints its fingerprint.
    Export {
        /// Where to.
        #[arg(long)]
        out: PathBuf,
    },
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = match cli.command {
        Line::OfTheBox(command) => command,
        Line::Openapi => return print_openapi(),
        Line::OfTheManual(command) => return manual(&command),
    };
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("bulla-box: {error}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    match execute(command, config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("bulla-box: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn print_openapi() -> ExitCode {
    match std::io::stdout().write_all(api::openapi().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulla-box: the document could not be written: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn manual(command: &ManualCommand) -> ExitCode {
    match command.execute(Cli::command(), "8") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulla-box: cannot be written: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn execute(command: Command, config: Config) -> Result<u8> {
    let mut out = std::io::stdout();
    if !matches!(command, Command::CheckConfig | Command::Run { check_config: true, .. }) {
        bulla_owner::check(&config.state_dir, "bulla-box", "bulla")?;
    }
    let config = match &command {
        // There is nothing but the file yet, or it is what is asked about.
        Command::CheckConfig
        | Command::Run { check_config: true, .. }
        | Command::Init
        | Command::Enroll(_)
        | Command::Configuration { .. } => config,
        Command::Run { .. } => approved::start(config)?,
        _ => approved::current(&config)?,
    };
    match command {
        Command::CheckConfig | Command::Run { check_config: true, .. } => {
            writeln!(out, "the configuration is good")?;
        }
        Command::Run { check_config: false, updates, health, status, network } => {
            return run::run(config, run::OnImage { updates, health, status, network });
        }
        // Answered by `main`, before there is a configuration.
        Command::Init => {
            let created = identity::create(&config)?;
            writeln!(out, "created {} ({:?})", created.origin, created.hardware)?;
            writeln!(
                out,
                "next: bulla-box people add --name NAME --role ops, bulla-box scanner add --name NAME, bulla-box trust export --out \
                 FILE, bulla-box run"
            )?;
        }
        Command::Enroll(arguments) => return enroll::execute(&arguments, &config, &mut out),
        Command::Scanner { command } => scanner::execute(command, &config, &mut out)?,
        Command::People { command } => people::execute(command, &config, &mut out)?,
        Command::Trust { command: Export::Export { out: path } } => {
            writeln!(out, "fingerprint {}", trust::export(&config, &path)?)?;
        }
        Command::Ca { command: Export::Export { out: path } } => {
            writeln!(out, "sha256:{}", tls::export_ca(&config, &path)?)?;
        }
        Command::Fsck { repair } => {
            return Ok(if fsck::run(&config, repair, &mut out)? { 0 } else { FAILED });
        }
        Command::Backup(arguments) => backup::back_up(&arguments, &config, &mut out)?,
        Command::Restore(arguments) => backup::bring_back(&arguments, &config, &mut out)?,
        Command::Drill(arguments) => drill::execute(&arguments, &config, &mut out)?,
        Command::Alerts { command } => return alerts::execute(&command, &config, &mut out),
        Command::Lease(arguments) => lease::execute(&arguments, &config, &mut out)?,
        Command::Configuration { command } => configuration::execute(&command, &config, &mut out)?,
        Command::Roster(arguments) => roster::execute(&arguments, &config, &mut out)?,
        Command::Peers { command } => peers::execute(command, &config, &mut out)?,
        Command::Approval(arguments) => approval::execute(&arguments, &config, &mut out)?,
        Command::Retire(arguments) => return retire::execute(&arguments, &config, &mut out),
        Command::Erase(args) => erase::execute(&args, &config, &mut out)?,
        Command::Staged { command } => return staged::execute(&command, &config, &mut out),
        Command::Succeed { reason } => {
            let created = identity::succeed(&config, &reason)?;
            writeln!(
                out,
                "the new log is {}; the trust file stays as it is, and seals of the old log stay verifiable",
                created.origin
            )?;
            if created.left_queued > 0 {
                writeln!(
                    out,
                    "{} requests are still queued in the old log and are not sealed in the new one, because the lost \
                     state may have sealed them; their clients send them again",
                    created.left_queued
                )?;
            }
        }
    }
    Ok(0)
}
