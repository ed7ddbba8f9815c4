//! `bulla-box scanner`: registers, lists and revokes clients.
//!
//! Refuses to do: show a token twice. A running box takes note of every change at once.

use crate::clients::{ClientLimits, ClientStore, Role};
use crate::config::Config;
use anyhow::Result;
use clap::{Args, Subcommand};

/// What to do with clients.
#[derive(Subcommand)]
pub enum ScannerCommand {
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
        #[command(flatten)]
        limits: LimitArguments,
    },
    /// Gives a client limits of its own, in place of those it had; without limits, those of the configuration.
    Limit {
        /// Its name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        limits: LimitArguments,
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

/// Limits of one client.
#[derive(Args)]
pub struct LimitArguments {
    /// Requests a second in place of limits.client_requests_per_second; 0: no limit.
    #[arg(long, value_name = "PER-SECOND", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    rate: Option<u32>,
    /// Largest document in place of limits.document_bytes_max.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=1 << 50))]
    max_bytes: Option<u64>,
}

impl From<LimitArguments> for ClientLimits {
    fn from(given: LimitArguments) -> Self {
        ClientLimits { requests_per_second: given.rate, document_bytes_max: given.max_bytes }
    }
}

/// Carries it out; answers go to `out`, what must not be piped on goes to stderr.
pub fn execute(command: ScannerCommand, config: &Config, out: &mut impl std::io::Write) -> Result<()> {
    let clients = ClientStore::new(&config.state_dir);
    match command {
        ScannerCommand::Add { name, role, certificate: None, limits } => {
            let token = clients.add_token(&name, role, limits.into())?;
            eprintln!("token of {name} ({}), shown this once:", role.name());
            writeln!(out, "token: {}", token.as_str())?;
        }
        ScannerCommand::Add { name, role, certificate: Some(common_name), limits } => {
            anyhow::ensure!(
                config.tls.client_ca.is_some(),
                "client certificates are not looked at: set tls.client_ca first"
            );
            clients.add_certificate(&name, role, &common_name, limits.into())?;
            writeln!(out, "{name} ({}) is known by the certificate of {common_name}", role.name())?;
        }
        ScannerCommand::Limit { name, limits } => {
            clients.limit(&name, limits.into())?;
            writeln!(out, "{name} has these limits from its next request on")?;
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
