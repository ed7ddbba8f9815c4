//! `bulla-box enroll`: makes this box part of a fleet, with a claim code for the person who approves it.
//!
//! Refuses to do: hide what it waits for; give an enrolment up because its claim page cannot be shown.

use crate::config::{Config, claim_address};
use crate::enrolling::{self, ClaimPage, Outcome, Pending, Registrar, Told, code_text};
use crate::on_console::Teller;
use anyhow::{Context as _, Result};
use bulla_console::claim::{Claim, Progress};
use bulla_enrolment::proof::{claim_code, fingerprint};
use bulla_formats::box_status::{Enrolling, one_line};
use bulla_formats::hash::Hash;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use std::io::{self, IsTerminal as _, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

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
    /// Shows the claim page at this address and port of a private network while it waits, over plain HTTP: for a box
    /// without a screen. In place of `console.claim_page`.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = page_address, conflicts_with = "once")]
    page: Option<SocketAddr>,
    /// On an image of its own: says here every second how far it is, for the console of its machine.
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    status: Option<PathBuf>,
}

fn page_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().map_err(|_| "write an address and a port, as in 0.0.0.0:8443".to_owned())?;
    claim_address(address).map(|()| address)
}

/// Who is told how it goes: whoever is at the terminal, at the machine's own screen, and whoever looks at the claim page.
struct Onlookers<'a> {
    terminal: &'a mut dyn Write,
    page: Option<&'a ClaimPage>,
    screen: Option<&'a Teller>,
}

impl Onlookers<'_> {
    fn show(&self, progress: Progress) {
        if let Some(page) = self.page {
            page.tell(progress);
        }
    }

    fn say(&self, text: &str) {
        if let Some(screen) = self.screen {
            screen.progress(text);
        }
    }
}

impl Told for Onlookers<'_> {
    fn proven(&mut self) {
        // What is said on the way is lost with the terminal; the enrolment goes on.
        let _ = writeln!(
            self.terminal,
            "the TPM is proven; waiting until somebody approves the fingerprint above"
        );
        self.say("The TPM is proven. Waiting until somebody approves the fingerprint.");
        self.show(Progress::Proven);
    }

    fn obstacle(&mut self, what: &str) {
        let _ = writeln!(self.terminal, "waiting: {what}");
        self.say(&format!("Waiting: {what}"));
        self.show(Progress::Obstacle(what.to_owned()));
    }
}

/// What the page shows of a request.
fn claim(config: &Config, registrar: &Registrar, pending: &Pending, transcript: &Hash) -> Claim {
    let port = config.listen.port();
    let names = config.identity.names.iter().filter(|_| config.console.enabled);
    Claim {
        code: claim_code(transcript),
        fingerprint: fingerprint(transcript),
        chip: pending.keys.description().ek_spki_sha256.to_string(),
        request: transcript.to_string(),
        fleet: config.identity.fleet.clone(),
        registrar: registrar.address().to_owned(),
        pin: registrar.pin().to_string(),
        console: names.map(|name| format!("https://{}:{port}/", host(name))).collect(),
    }
}

/// A name as it stands in an address.
fn host(name: &str) -> String {
    if matches!(name.parse(), Ok(IpAddr::V6(_))) { format!("[{name}]") } else { name.to_owned() }
}

/// Opens the claim page, if one is wanted, and says where.
fn open_page(
    address: Option<SocketAddr>,
    claim: Claim,
    transcript: &Hash,
    config: &Config,
    out: &mut dyn Write,
) -> Result<Option<ClaimPage>> {
    let Some(address) = address else { return Ok(None) };
    match ClaimPage::open(address, claim, transcript, config) {
        Ok(page) => {
            let (at, port) = (page.address(), page.address().port());
            if at.ip().is_unspecified() {
                for name in &config.identity.names {
                    writeln!(out, "claim page   http://{}:{port}/", host(name))?;
                }
            } else {
                writeln!(out, "claim page   http://{at}/")?;
            }
            writeln!(
                out,
                "The network can change that page, and not this screen: where they differ, this counts."
            )?;
            Ok(Some(page))
        }
        Err(error) => {
            writeln!(
                out,
                "no claim page: cannot be shown at {address} ({error}); the enrolment goes on without it"
            )?;
            Ok(None)
        }
    }
}

/// Tells the machine's own screen, if it has one that is wanted.
fn tell_screen(
    arguments: &EnrollArgs,
    config: &Config,
    registrar: &Registrar,
    pending: &Pending,
    transcript: &Hash,
    out: &mut dyn Write,
) -> Result<Option<Teller>> {
    let Some(file) = &arguments.status else { return Ok(None) };
    let said = Enrolling {
        claim_code: claim_code(transcript),
        fingerprint: fingerprint(transcript),
        code: code_text(transcript),
        fleet: one_line(&config.identity.fleet),
        registrar: one_line(registrar.address()),
        tpm: pending.keys.description().ek_spki_sha256.to_string(),
        progress: "Asking the registrar.".to_owned(),
    };
    match Teller::start(file.clone(), said) {
        Ok(teller) => Ok(Some(teller)),
        Err(error) => {
            writeln!(out, "the console is told nothing: {} cannot be written ({error})", file.display())?;
            Ok(None)
        }
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
        let code = QrCode::new(code_text(&transcript)).context("the claim cannot be drawn")?;
        writeln!(out, "{}", code.render::<Dense1x2>().build())?;
    }
    writeln!(out, "Read the fingerprint to the person who approves: it must be the one on their screen.")?;
    let wanted = arguments.page.or(config.console.claim_page).filter(|_| !arguments.once);
    let page = open_page(wanted, claim(config, &registrar, &pending, &transcript), &transcript, config, out)?;
    out.flush()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let screen = tell_screen(arguments, config, &registrar, &pending, &transcript, out)?;
    let mut told = Onlookers { terminal: out, page: page.as_ref(), screen: screen.as_ref() };
    let outcome =
        runtime.block_on(enrolling::enrol(config, &registrar, &pending, arguments.once, &mut told))?;
    let last = match &outcome {
        Outcome::Enrolled(created) => Some(Progress::Enrolled { origin: created.origin.to_string() }),
        Outcome::Refused(refused) => {
            Some(Progress::Refused { sentence: refused.sentence.clone(), code: refused.code.clone() })
        }
        Outcome::Waiting(_) => None,
    };
    last.into_iter().for_each(|last| told.show(last));
    let code = match outcome {
        Outcome::Enrolled(created) => {
            writeln!(out, "enrolled as {}", created.origin)?;
            writeln!(
                out,
                "next: bulla-box scanner add --name NAME, bulla-box run; auditors get the fleet's trust file"
            )?;
            0
        }
        Outcome::Waiting(what) => {
            writeln!(out, "not enrolled yet: {what}; run the same command again")?;
            WAITING
        }
        Outcome::Refused(refused) => {
            writeln!(out, "refused: {} ({})", refused.sentence, refused.code)?;
            writeln!(out, "the next run asks anew, with another claim code")?;
            REFUSED
        }
    };
    out.flush()?;
    page.into_iter().for_each(ClaimPage::close);
    Ok(code)
}
