//! `bulla-box people`: who may use the console.
//!
//! Refuses to do: take or show a password. A person chooses its own, with a one-time code that is shown here once. A running
//! box takes note of every change at once, and sessions of whoever is concerned end.

use crate::config::Config;
use crate::people::{CODE_LASTS, Duty, PeopleStore};
use anyhow::Result;
use clap::Subcommand;
use zeroize::Zeroizing;

/// What to do with people.
#[derive(Subcommand)]
pub enum PeopleCommand {
    /// Adds a person and prints a one-time code, which is shown this once.
    Add {
        /// The name to log in with: 1 to 64 of a-z 0-9 . _ - ; it is in the person's seals, as a commitment, and never given twice.
        #[arg(long)]
        name: String,
        /// What the person is there for; docs/console.md says what each may do.
        #[arg(long, value_enum)]
        role: Duty,
    },
    /// Lists people, removed ones too, with the number that stands for each in the log.
    List,
    /// Takes a person's password away and prints a one-time code for a new one.
    Passwd {
        /// The person.
        #[arg(long)]
        name: String,
    },
    /// Gives a person another role.
    Role {
        /// The person.
        #[arg(long)]
        name: String,
        /// What the person is there for from now on.
        #[arg(long, value_enum)]
        role: Duty,
    },
    /// Removes a person for good.
    Remove {
        /// The person.
        #[arg(long)]
        name: String,
    },
}

/// Carries it out; answers go to `out`, what must not be piped on goes to stderr.
pub fn execute(command: PeopleCommand, config: &Config, out: &mut impl std::io::Write) -> Result<()> {
    let people = PeopleStore::new(&config.state_dir);
    let mut show = |name: &str, code: Zeroizing<String>| -> Result<()> {
        eprintln!(
            "one-time code of {name}, shown this once and good for {} hours; with it {name} chooses a password in the \
             console, under \"First time here?\":",
            CODE_LASTS.as_secs() / 3_600
        );
        Ok(writeln!(out, "code: {}", code.as_str())?)
    };
    match command {
        PeopleCommand::Add { name, role } => show(&name, people.add(&name, role)?)?,
        PeopleCommand::Passwd { name } => show(&name, people.reset(&name)?)?,
        PeopleCommand::List => {
            for person in people.list()? {
                writeln!(out, "{person}")?;
            }
        }
        PeopleCommand::Role { name, role } => {
            people.assign(&name, role)?;
            writeln!(out, "{name} is {} from the next login on", role.name())?;
        }
        PeopleCommand::Remove { name } => {
            people.remove(&name)?;
            writeln!(out, "{name} is removed")?;
        }
    }
    Ok(())
}
