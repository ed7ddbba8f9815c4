//! `bulla-box staged`: the next log, prepared while the registrar is there and begun when it is not.
//!
//! Refuses to do: begin anything without an operator's token and a reason.

use crate::config::Config;
use crate::enrolling::{Registrar, Told};
use crate::staging::{self, Prepared};
use anyhow::{Context as _, Result};
use bulla_enrolment::proof::{claim_code, fingerprint};
use bulla_formats::body::succession::Cause;
use bulla_formats::enrolment::Enrolment;
use bulla_formats::report::utc;
use clap::{Args, Subcommand, ValueEnum};
use std::io::Write;
use std::path::PathBuf;

const WAITING: u8 = 3;
const REFUSED: u8 = 1;

/// What to do.
#[derive(Subcommand)]
pub enum StagedCommand {
    /// Asks the registrar for the enrolment of the next log, and keeps it. Nothing of the log in use changes.
    Prepare(PrepareArgs),
    /// What is staged, until when, and who may begin it.
    Show,
    /// Begins the staged log, in place of one that is lost or must be given up; the box must be stopped.
    Begin(BeginArgs),
}

/// Arguments of `prepare`.
#[derive(Args)]
pub struct PrepareArgs {
    /// The registrar, as in https://registrar.bank.example:8444. Default: the one that enrolled this box.
    #[arg(long, requires = "pin")]
    registrar: Option<String>,
    /// SHA-256 of the registrar's key in hex.
    #[arg(long, requires = "registrar")]
    pin: Option<String>,
    /// Goes as far as it can without waiting; exit code 3 when somebody else must act first.
    #[arg(long)]
    once: bool,
}

/// Arguments of `begin`.
#[derive(Args)]
pub struct BeginArgs {
    /// An operator's token, in a file.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// What became of the log in use.
    #[arg(long, value_enum)]
    cause: CauseName,
    /// Why; it is in the new log for ever, with the operator's name.
    #[arg(long)]
    reason: String,
}

/// What became of the log in use.
#[derive(Clone, Copy, ValueEnum)]
enum CauseName {
    /// Its disk is lost.
    LostDisk,
    /// Its disk is an older copy, and no newer one is to be had.
    Rollback,
    /// Its key may be in other hands, or it was forked.
    KeyCompromise,
}

struct Terminal<'a>(&'a mut dyn Write);

impl Told for Terminal<'_> {
    fn proven(&mut self) {
        // What is said on the way is lost with the terminal; the request goes on.
        let _ = writeln!(self.0, "the TPM is proven; waiting until people approve it as staged");
    }

    fn obstacle(&mut self, what: &str) {
        let _ = writeln!(self.0, "waiting: {what}");
    }
}

/// Runs it.
///
/// # Errors
/// What cannot pass by waiting.
pub fn execute(command: &StagedCommand, config: &Config, out: &mut dyn Write) -> Result<u8> {
    match command {
        StagedCommand::Prepare(args) => prepare(args, config, out),
        StagedCommand::Show => show(config, out),
        StagedCommand::Begin(args) => begin(args, config, out),
    }
}

fn prepare(args: &PrepareArgs, config: &Config, out: &mut dyn Write) -> Result<u8> {
    let registrar = match (&args.registrar, &args.pin) {
        (Some(address), Some(pin)) => Registrar::parse(address, pin)?,
        _ => crate::enrolling::fleet_file(&config.state_dir)?
            .context("this box was enrolled by no registrar; name one with --registrar and --pin")?,
    };
    let preparing = staging::prepare(config, &registrar)?;
    let transcript = preparing.pending.request.transcript();
    let begun = if preparing.pending.is_new { "asks" } else { "goes on asking" };
    writeln!(out, "this box goes on with {}", preparing.in_use)?;
    writeln!(out, "and {begun} {} for {}", registrar.address(), preparing.pending.request.origin)?;
    writeln!(out, "claim code   {}", claim_code(&transcript))?;
    writeln!(out, "fingerprint  {}", fingerprint(&transcript))?;
    out.flush()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut told = Terminal(out);
    let ran = preparing.run(&registrar, args.once, &mut told, &config.state_dir);
    let code = match runtime.block_on(ran)? {
        Prepared::Kept { origin, file } => {
            writeln!(out, "staged {origin}")?;
            writeln!(
                out,
                "kept in {}; only this TPM can use it, so keep copies wherever they outlive this disk",
                file.display()
            )?;
            0
        }
        Prepared::Waiting(what) => {
            writeln!(out, "not staged yet: {what}; run the same command again")?;
            WAITING
        }
        Prepared::Refused(code, sentence) => {
            writeln!(out, "refused: {sentence} ({code})")?;
            REFUSED
        }
    };
    Ok(code)
}

fn show(config: &Config, out: &mut dyn Write) -> Result<u8> {
    let (staged, _) = staging::policy(config)?;
    let (package, file) = staging::package(config)?;
    let content = Enrolment::decode(&package.issued()?.enrolment)?.content;
    let until = content.enrolled_at.saturating_add(staged.days.saturating_mul(staging::DAY_MILLIS));
    writeln!(out, "staged       {}", content.origin)?;
    writeln!(out, "follows      {}", package.in_use())?;
    writeln!(out, "enrolled     {}", utc(content.enrolled_at))?;
    writeln!(out, "can begin    until {}, once, in this TPM and boot", utc(until))?;
    for operator in package.operators() {
        writeln!(out, "operator     {}", operator.name)?;
    }
    writeln!(out, "file         {}", file.display())?;
    Ok(0)
}

fn begin(args: &BeginArgs, config: &Config, out: &mut dyn Write) -> Result<u8> {
    let token = std::fs::read_to_string(&args.token_file)
        .with_context(|| format!("the token file {} cannot be read", args.token_file.display()))?;
    let cause = match args.cause {
        CauseName::LostDisk => Cause::LostDisk,
        CauseName::Rollback => Cause::Rollback,
        CauseName::KeyCompromise => Cause::KeyCompromise,
    };
    let begun = staging::begin(config, token.trim(), cause, &args.reason)?;
    let how = if begun.resumed { "an earlier run had begun it" } else { "from the staged enrolment" };
    writeln!(out, "begun {} by {}: {how}", begun.created.origin, begun.by)?;
    if begun.created.left_queued > 0 {
        writeln!(
            out,
            "{} requests are still queued in the old log and are not sealed in the new one; their clients send them again",
            begun.created.left_queued
        )?;
    }
    writeln!(
        out,
        "next: bulla-box run; when the fleet is back, its people approve the new log's card (`bulla-fleet propose cards`), \
         and stage the next log (`bulla-box staged prepare`)"
    )?;
    Ok(0)
}
