//! `bulla-box enroll`: makes this box part of a fleet, with a claim code for the person who approves it.
//!
//! Refuses to do: hide what it waits for.

use crate::config::Config;
use crate::enrolling::{self, Outcome, Pending, Registrar, Told};
use anyhow::{Context as _, Result};
use bulla_enrolment::proof::{claim_code, fingerprint};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use std::io::{self, IsTerminal as _, Write};

/// Somebody else has to act first.
const WAITING: u8 = 3;
const REFUSED: u8 = 1;

/// See the head of this file.
#[derive(clap::Args)]
pub struct EnrollArgs {
    /// The registrar, as in https://registrar.bank.example:8444.
    #[arg(long)]
    registrar: String,
    /// SHA-256 of the registrar's key in hex, as `bulla-fleet serve` prints it. Not from the network: from the people who
    /// run the fleet.
    #[arg(long)]
    pin: String,
    /// Goes as far as it can without waiting; exit code 3 when somebody else must act first.
    #[arg(long)]
    once: bool,
}

struct Terminal<'a>(&'a mut dyn Write);

impl Told for Terminal<'_> {
    fn proven(&mut self) {
        // What is said on the way is lost with the terminal; the enrolment goes on.
        let _ = writeln!(self.0, "the TPM is proven; waiting until somebody approves the fingerprint above");
    }

    fn obstacle(&mut self, what: &str) {
        let _ = writeln!(self.0, "waiting: {what}");
    }
}

/// Runs it.
///
/// # Errors
/// What cannot pass by waiting.
pub fn execute(arguments: &EnrollArgs, config: &Config, out: &mut dyn Write) -> Result<u8> {
    let registrar = Registrar::parse(&arguments.registrar, &arguments.pin)?;
    let pending = Pending::open(config, &registrar)?;
    let transcript = pending.request.transcript();
    let begun = if pending.is_new { "asks" } else { "goes on asking" };
    writeln!(out, "this box {begun} to join the fleet {} at {}", config.identity.fleet, registrar.address())?;
    writeln!(out, "claim code   {}", claim_code(&transcript))?;
    writeln!(out, "fingerprint  {}", fingerprint(&transcript))?;
    writeln!(out, "TPM          {}", pending.keys.description().ek_spki_sha256)?;
    if io::stdout().is_terminal() {
        let code = QrCode::new(format!("bulla-enrol:{transcript}")).context("the claim cannot be drawn")?;
        writeln!(out, "{}", code.render::<Dense1x2>().build())?;
    }
    writeln!(out, "Read the fingerprint to the person who approves: it must be the one on their screen.")?;
    out.flush()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut told = Terminal(out);
    let outcome =
        runtime.block_on(enrolling::enrol(config, &registrar, &pending, arguments.once, &mut told))?;
    match outcome {
        Outcome::Enrolled(created) => {
            writeln!(out, "enrolled as {}", created.origin)?;
            writeln!(
                out,
                "next: bulla-box scanner add --name NAME, bulla-box run; auditors get the fleet's trust file"
            )?;
            Ok(0)
        }
        Outcome::Waiting(what) => {
            writeln!(out, "not enrolled yet: {what}; run the same command again")?;
            Ok(WAITING)
        }
        Outcome::Refused(refused) => {
            writeln!(out, "refused: {} ({})", refused.sentence, refused.code)?;
            writeln!(out, "the next run asks anew, with another claim code")?;
            Ok(REFUSED)
        }
    }
}
