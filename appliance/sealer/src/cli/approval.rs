//! `bulla-box approval`: what the box would do, written down for the people who approve it.
//!
//! Refuses to do: anything of it.

use crate::config::Config;
use crate::retirement;
use anyhow::{Context as _, Result};
use bulla_formats::retirement::Extent;
use bulla_roster::approvals::at_box::{BoxAction, Retire};
use clap::{Args, Subcommand, ValueEnum};
use std::io::Write;
use std::path::PathBuf;

/// Approvals of what a box carries out itself.
#[derive(Args)]
pub struct ApprovalArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Asks for approval: writes what the box would do, its log as it is and a nonce that counts once. The box must be
    /// stopped for a moment; what was asked before is worth nothing any more.
    Ask(AskArgs),
    /// Takes the question back: nothing that was approved of it is carried out.
    Withdraw,
}

/// What is asked for.
#[derive(Args)]
struct AskArgs {
    #[command(flatten)]
    retire: RetireChoice,
    /// Where to write it, for `bulla-fleet propose box`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What a retirement leaves.
#[derive(Args)]
pub struct RetireChoice {
    /// The box retires: its log ends, what is secret is destroyed, its TPM cleared.
    #[arg(long, value_enum, value_name = "EXTENT")]
    pub retire: ExtentName,
    /// Even if no authority has anchored the last seals.
    #[arg(long)]
    pub without_anchors: bool,
    /// Even if no neighbour holds the last seals.
    #[arg(long)]
    pub without_copies: bool,
}

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExtentName {
    /// Keys, openings and everything secret; the entries stay on the disk
    KeepLog,
    /// The entries, too
    Everything,
}

impl ExtentName {
    /// As the formats have it.
    pub fn extent(self) -> Extent {
        match self {
            ExtentName::KeepLog => Extent::KeepLog,
            ExtentName::Everything => Extent::Everything,
        }
    }
}

/// Carries it out.
pub fn execute(args: &ApprovalArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    match &args.what {
        What::Ask(asked) => {
            let choice = &asked.retire;
            let retire = Retire {
                extent: choice.retire.extent(),
                without_anchors: choice.without_anchors,
                without_copies: choice.without_copies,
            };
            let ask = retirement::ask(config, &BoxAction::Retire(retire))?;
            std::fs::write(&asked.out, ask.encode())
                .with_context(|| format!("cannot write {}", asked.out.display()))?;
            writeln!(
                out,
                "asked with {} entries of {} and nonce {}\nnext: bulla-fleet propose box {} --dir FLEET --reason ...",
                ask.target.size,
                ask.target.origin,
                hex::encode(*ask.target.nonce),
                asked.out.display()
            )?;
        }
        What::Withdraw => {
            retirement::withdraw(config)?;
            writeln!(out, "this box waits for no approval any more")?;
        }
    }
    Ok(())
}
