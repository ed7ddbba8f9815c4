//! `bulla-signer`: has the TPM of a box, and serves `bulla-box` by a Unix socket (`tpm.tcti = "signer:..."` there).
//!
//! Refuses to do: anything but what `bulla_keys` offers; touch a network or the box's files.
//! Invariant: it may be killed at any moment. It holds nothing but connections.
#![forbid(unsafe_code)]

use bulla_keys::Signer;
use bulla_manual::ManualCommand;
use clap::{CommandFactory as _, Parser, Subcommand};
use log::{LevelFilter, Log, Metadata, Record};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const FAILED: u8 = 1;

/// Has the TPM of a Bulla box, and does for it what needs the TPM.
#[derive(Debug, Parser)]
#[command(
    name = "bulla-signer",
    version,
    after_help = "Exit codes: 1 the socket cannot be made, another signer has it, or the TPM's address is wrong; 2 wrong usage. \
                  It ends by itself only so."
)]
struct Cli {
    /// Where it listens; whoever may open this file may use the keys
    #[arg(long, value_name = "FILE", default_value = "/run/bulla-signer/socket")]
    socket: PathBuf,
    /// The TPM: device:PATH, or swtpm:host=HOST,port=PORT
    #[arg(long, value_name = "ADDRESS", default_value = "device:/dev/tpmrm0")]
    tcti: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Manual(ManualCommand),
}

/// Lines for people, where no journal listens.
struct StandardError;

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{:<5} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

fn listen_to_logs() -> Result<(), Box<dyn Error>> {
    if systemd_journal_logger::connected_to_journal() {
        systemd_journal_logger::JournalLog::new()?.install()?;
    } else {
        log::set_boxed_logger(Box::new(StandardError))?;
    }
    log::set_max_level(LevelFilter::Info);
    Ok(())
}

fn run(socket: &Path, tcti: &str) -> Result<(), Box<dyn Error>> {
    listen_to_logs()?;
    let signer = Signer::bind(socket, tcti)?;
    log::info!("the TPM at {tcti} is served at {}", socket.display());
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    Ok(signer.serve()?)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Manual(command)) => command.execute(Cli::command(), "8").map_err(Into::into),
        None => run(&cli.socket, &cli.tcti),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulla-signer: {error}");
            ExitCode::from(FAILED)
        }
    }
}
