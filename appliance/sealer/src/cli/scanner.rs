//! `bulla-box scanner`: registers, lists and revokes clients.
//!
//! Refuses to do: show a token twice. A running box takes note of every change at once.

use crate::clients::{ClientStore, Role};
use crate::config::Config;
use anyhow::Result;
use clap::Subcommand;

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

/// Carries it out; answers go to `out`, what must not be piped on goes to stderr.
pub fn execute(command: ScannerCommand, config: &Config, out: &mut impl std::io::Write) -> Result<()> {
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
