//! `bulla-box alerts`: tries the receivers of alerts, and lists what is alerted.

use crate::alerts;
use crate::alerts::conditions::{self, Condition};
use crate::config::Config;
use crate::identity;
use anyhow::{Result, ensure};
use clap::Subcommand;
use std::io::Write;

/// What to do.
#[derive(Subcommand)]
pub enum AlertsCommand {
    /// Sends a test to every receiver, whether the box runs or not. Exit code 1 when one of them did not take it.
    Test,
    /// Lists what is alerted: name, severity, seconds that it has to hold, and what is the matter, with tabs between.
    List,
}

/// Every condition that somebody is told of, with its hold time.
fn list(config: &Config, out: &mut impl Write) -> Result<()> {
    let alerts = &config.alerts;
    let told = |condition: &&Condition| !alerts.off.iter().any(|name| name.as_str() == condition.name);
    for condition in conditions::ALL.iter().filter(told) {
        let hold = alerts.hold_seconds.get(condition.name).unwrap_or(&condition.hold);
        let severity = if condition.page { "page" } else { "ticket" };
        writeln!(out, "{}\t{severity}\t{hold}\t{}", condition.name, condition.what)?;
    }
    Ok(())
}

/// Carries it out; 1 when a receiver did not take the test.
pub fn execute(command: &AlertsCommand, config: &Config, out: &mut impl Write) -> Result<u8> {
    if let AlertsCommand::List = command {
        list(config, out)?;
        return Ok(0);
    }
    let receivers = config.alerts.webhook.len() + config.alerts.mail.len();
    ensure!(
        receivers > 0,
        "there is nobody to tell; add [[alerts.webhook]] or [[alerts.mail]] to the configuration"
    );
    let (origin, _) = identity::current_log(config)?;
    let mut failed = 0;
    for tested in alerts::test(config, origin.as_str())? {
        let alerts::Tested { name, kind, attempt } = tested;
        match attempt {
            Ok(()) => writeln!(out, "{name} ({kind}): it took the test")?,
            Err(why) => {
                failed += 1;
                writeln!(out, "{name} ({kind}): failed: {}", why.words)?;
            }
        }
    }
    Ok(u8::from(failed > 0))
}
