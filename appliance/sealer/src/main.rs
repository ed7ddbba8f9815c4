//! `bulla-box`: the box of a branch. Seals documents over the LAN, with or without a WAN.
//!
//! This file reads the command line and puts the parts together: configuration, identity, driver, listener.
//! Refuses to do: create state by itself (`init` is an act of its own), or start on a configuration it does
//! not fully understand.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 4 a rollback is suspected.
#![forbid(unsafe_code)]

mod api;
mod clients;
mod config;
mod driver;
mod fsck;
mod identity;
mod problem;
mod server;
mod telemetry;
mod tls;
mod trust;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use clients::{ClientStore, Role};
use config::Config;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

const FAILED: u8 = 1;
const CONFIGURATION: u8 = 2;
const ROLLBACK_SUSPECTED: u8 = 4;
/// How often the age of the TLS certificate is looked at.
const RENEWAL_PERIOD: Duration = Duration::from_secs(300);

/// Seals documents over the LAN.
#[derive(Parser)]
#[command(
    name = "bulla-box",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage or \
    configuration; 4 a rollback is suspected."
)]
struct Cli {
    /// Configuration file (TOML; docs/box.toml is a commented sample).
    #[arg(long, short, global = true, default_value = "/etc/bulla/box.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates keys, CA and log of a new box in an empty state directory.
    Init,
    /// Runs the box until SIGTERM or SIGINT.
    Run {
        /// Only checks the configuration.
        #[arg(long)]
        check_config: bool,
    },
    /// Checks the configuration and exits.
    CheckConfig,
    /// Registers, lists and revokes clients; a running box takes note at once.
    Scanner {
        #[command(subcommand)]
        command: ScannerCommand,
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
    /// Ends a log that may be an older copy, and begins a new incarnation that names it.
    Succeed {
        /// Why; it is in the new log for ever.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Subcommand)]
enum ScannerCommand {
    /// Registers a client and prints its token, which is shown this once.
    Add {
        /// Its name; it is in every seal of the client, so name the device, not a person.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long, value_enum, default_value_t = Role::Scanner)]
        role: Role,
        /// Instead of a token: the common name of its TLS client certificate.
        #[arg(long, value_name = "COMMON-NAME")]
        certificate: Option<String>,
    },
    /// Lists clients, revoked ones too.
    List,
    /// Revokes a client for good.
    Revoke {
        /// Its name.
        #[arg(long)]
        name: String,
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("bulla-box: {error}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    match execute(cli.command, config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("bulla-box: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn execute(command: Command, config: Config) -> Result<u8> {
    let mut out = std::io::stdout();
    match command {
        Command::CheckConfig | Command::Run { check_config: true } => {
            writeln!(out, "the configuration is good")?;
        }
        Command::Run { check_config: false } => return run(config),
        Command::Init => {
            let created = identity::create(&config)?;
            writeln!(out, "created {} ({:?})", created.origin, created.hardware)?;
            writeln!(
                out,
                "next: bulla-box scanner add --name NAME, bulla-box trust export --out FILE, bulla-box run"
            )?;
        }
        Command::Scanner { command } => scanner(command, &config, &mut out)?,
        Command::Trust { command: Export::Export { out: path } } => {
            writeln!(out, "fingerprint {}", trust::export(&config, &path)?)?;
        }
        Command::Ca { command: Export::Export { out: path } } => {
            writeln!(out, "sha256:{}", tls::export_ca(&config, &path)?)?;
        }
        Command::Fsck { repair } => {
            return Ok(if fsck::run(&config, repair, &mut out)? { 0 } else { FAILED });
        }
        Command::Succeed { reason } => {
            let created = identity::succeed(&config, &reason)?;
            writeln!(
                out,
                "the new log is {}; the trust file stays as it is, and seals of the old log stay verifiable",
                created.origin
            )?;
        }
    }
    Ok(0)
}

fn scanner(command: ScannerCommand, config: &Config, out: &mut impl std::io::Write) -> Result<()> {
    let clients = ClientStore::new(&config.state_dir);
    match command {
        ScannerCommand::Add { name, role, certificate: None } => {
            let token = clients.add_token(&name, role)?;
            eprintln!("token of {name} ({}), shown this once:", role.name());
            writeln!(out, "token: {}", token.as_str())?;
        }
        ScannerCommand::Add { name, role, certificate: Some(common_name) } => {
            anyhow::ensure!(
                config.tls.client_ca.is_some(),
                "client certificates are not looked at: set tls.client_ca first"
            );
            clients.add_certificate(&name, role, &common_name)?;
            writeln!(out, "{name} ({}) is known by the certificate of {common_name}", role.name())?;
        }
        ScannerCommand::List => {
            for client in clients.list()? {
                writeln!(out, "{client}")?;
            }
        }
        ScannerCommand::Revoke { name } => {
            clients.revoke(&name)?;
            writeln!(out, "{name} is revoked")?;
        }
    }
    Ok(())
}

fn run(config: Config) -> Result<u8> {
    telemetry::init(config.log.level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .context("cannot start threads")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<u8> {
    // Signals count from here on, so that a stop during a slow start is a stop.
    let stop = stop_signal()?;
    let prepare = config.clone();
    let started = tokio::task::spawn_blocking(move || start(&prepare));
    let (sealer, tls, certificates) = started.await.context("the start was interrupted")??;
    let listener = tokio::net::TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}; is another program there, or is it below 1024?", config.listen)
    })?;
    log::info!("{} listens on {}", sealer.origin(), listener.local_addr()?);
    let api = Arc::new(api::Api::new(sealer.clone(), config, certificates.clone()));
    notify(&[sd_notify::NotifyState::Ready]);
    let housekeeping = tokio::spawn(housekeeping(certificates));
    server::serve(listener, tls, api, stop).await;
    notify(&[sd_notify::NotifyState::Stopping]);
    housekeeping.abort();
    let suspected = matches!(sealer.status().condition, driver::Condition::RollbackSuspected { .. });
    sealer.close().await;
    log::info!("stopped");
    Ok(if suspected { ROLLBACK_SUSPECTED } else { 0 })
}

type Started = (driver::Sealer, Arc<rustls::ServerConfig>, Arc<tls::Certificates>);

fn start(config: &Config) -> Result<Started> {
    let identity = identity::open(config)?;
    // Before the driver: on a suspected rollback it closes the keys, and verification goes on over TLS.
    let (tls, certificates) = tls::server_config(&identity.keys, config)?;
    let sealer = driver::start(config, identity)?;
    Ok((sealer, tls, certificates))
}

/// Turns true at SIGTERM or SIGINT.
fn stop_signal() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log::info!("stopping: no new connections, running requests finish");
        sender.send_replace(true);
    });
    Ok(receiver)
}

/// Pings the watchdog and renews the listener's certificate; a slow TPM delays only the second.
async fn housekeeping(certificates: Arc<tls::Certificates>) {
    let watchdog = async {
        while let Some(limit) = sd_notify::watchdog_enabled() {
            notify(&[sd_notify::NotifyState::Watchdog]);
            tokio::time::sleep(limit / 3).await;
        }
    };
    let renewal = async {
        loop {
            tokio::time::sleep(RENEWAL_PERIOD).await;
            let certificates = certificates.clone();
            let renew = move || certificates.renew_if_due(SystemTime::now());
            match tokio::task::spawn_blocking(renew).await {
                Ok(Ok(true)) => log::info!("the TLS certificate was renewed"),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => {
                    log::warn!("the TLS certificate was not renewed, the old one stays: {error}")
                }
            }
        }
    };
    tokio::join!(watchdog, renewal);
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd was not told: {error}");
    }
}
