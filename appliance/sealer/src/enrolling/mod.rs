//! Enrolment, the box's side: prove the TPM to the registrar, wait for a person, and begin the log with what was issued.
//!
//! Refuses to do: believe a registrar with another key than the pinned one; begin a log before the fleet's word for it is
//! on the disk; ask forever in silence.
//! Invariants: killed at any moment, the same command goes on; until the last rename the box has no state.

mod claim_page;
mod pending;
mod registrar;

pub use claim_page::{ClaimPage, code_text};
pub use pending::{Boot, Pending};
pub use registrar::Registrar;

use crate::beginning::{self, Beginning};
use crate::config::Config;
use crate::identity::{self, Created};
use crate::tls;
use anyhow::{Context as _, Result, ensure};
use bulla_enrolment::boot::QUOTED_PCRS;
use bulla_enrolment::proof::{Proofs, Purpose};
use bulla_enrolment::refusal::Code;
use bulla_enrolment::wire::{Answer, Attestation, Challenge, Evidence, Issued, Refused};
use bulla_formats::body::key_epoch::{PcrValue, TpmQuote};
use bulla_formats::checked_json;
use bulla_formats::der::{self, Octets32};
use bulla_formats::json::base64_encode;
use bulla_keys::Role;
use ed25519_dalek::Signer as _;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The fleet's certificates for this box, in the state directory.
pub const FLEET_FILE: &str = "fleet.json";
/// Between two questions whether a person has decided.
const POLL: Duration = Duration::from_secs(3);
/// First and longest pause after something that can pass.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How far it came.
pub enum Outcome {
    /// The state directory is there.
    Enrolled(Created),
    /// A person, or something that can pass, is waited for.
    Waiting(String),
    /// No.
    Refused(Refused),
}

/// What the operator of the box is told on the way.
pub trait Told {
    /// The registrar has the evidence: now a person compares the fingerprint.
    fn proven(&mut self);
    /// What can pass, and is waited for.
    fn obstacle(&mut self, what: &str);
}

/// How far the conversation with the registrar came.
pub enum Asked {
    /// It has issued.
    Issued(Box<Issued>),
    /// A person, or something that can pass, is waited for.
    Waiting(String),
    /// No.
    Refused(Refused),
}

/// Speaks to the registrar until the box is enrolled or refused; with `once`, until something must be waited for.
///
/// # Errors
/// The TPM's and the file system's. That the registrar cannot be reached is no error but waited for.
pub async fn enrol(
    config: &Config,
    registrar: &Registrar,
    pending: &Pending,
    once: bool,
    told: &mut dyn Told,
) -> Result<Outcome> {
    Ok(match ask(registrar, pending, once, told).await? {
        Asked::Issued(issued) => Outcome::Enrolled(finish(config, pending, &issued)?),
        Asked::Waiting(what) => Outcome::Waiting(what),
        Asked::Refused(refused) => Outcome::Refused(refused),
    })
}

/// The conversation alone: what was issued is the caller's to keep.
///
/// # Errors
/// As of [`enrol`].
pub async fn ask(registrar: &Registrar, pending: &Pending, once: bool, told: &mut dyn Told) -> Result<Asked> {
    let (mut pause, mut proven) = (PAUSES.0, false);
    loop {
        let obstacle = match step(registrar, pending, proven).await {
            Ok(Answer::Issued(issued)) => {
                issued
                    .check(&pending.request)
                    .context("the registrar has issued something that this box cannot take")?;
                return Ok(Asked::Issued(Box::new(issued)));
            }
            Ok(Answer::Pending(_)) => {
                if !proven {
                    told.proven();
                }
                (proven, pause) = (true, PAUSES.0);
                if once {
                    return Ok(Asked::Waiting("somebody has to approve it".to_owned()));
                }
                tokio::time::sleep(POLL).await;
                continue;
            }
            Ok(Answer::Refused(refused)) if !Code::parse(&refused.code).is_some_and(Code::may_pass) => {
                pending.give_up()?;
                return Ok(Asked::Refused(refused));
            }
            Ok(Answer::Refused(refused)) => format!("{} ({})", refused.sentence, refused.code),
            Ok(Answer::Challenge(_)) => "the registrar asks for the same proof again".to_owned(),
            Err(Failed::Passing(error)) => format!("{error:#}"),
            Err(Failed::Here(error)) => return Err(error),
        };
        if once {
            return Ok(Asked::Waiting(obstacle));
        }
        told.obstacle(&obstacle);
        proven = false;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

enum Failed {
    /// The network's or the registrar's doing.
    Passing(anyhow::Error),
    /// This box's.
    Here(anyhow::Error),
}

/// Asks, and answers the challenge if one comes; once `proven`, only asks how it stands.
async fn step(registrar: &Registrar, pending: &Pending, proven: bool) -> Result<Answer, Failed> {
    let mut connection = registrar.connect().await.map_err(Failed::Passing)?;
    let transcript = pending.request.transcript();
    let asked = if proven {
        connection.poll(&transcript).await
    } else {
        connection.ask(der::encode(&pending.request)).await
    };
    let answer = asked.map_err(Failed::Passing)?;
    registrar::about(&answer, &transcript).map_err(Failed::Passing)?;
    let Answer::Challenge(challenge) = answer else { return Ok(answer) };
    let evidence = evidence(pending, &challenge, &connection.channel()).map_err(Failed::Here)?;
    let answer = connection.prove(der::encode(&evidence)).await.map_err(Failed::Passing)?;
    registrar::about(&answer, &transcript).map_err(Failed::Passing)?;
    Ok(answer)
}

fn evidence(pending: &Pending, challenge: &Challenge, channel: &[u8; 32]) -> Result<Evidence> {
    let (keys, request) = (&pending.keys, &pending.request);
    let proofs = Proofs::of(request, challenge, channel).context("the challenge is for another request")?;
    let secret = keys
        .activate(&challenge.credential, &challenge.secret)
        .context("the TPM does not open the registrar's challenge")?;
    let certify = |role, purpose| {
        let said = keys
            .certify(role, proofs.qualifying(purpose))
            .context("the TPM does not certify a key of its own")?;
        anyhow::Ok(Attestation { attest: said.attest.into(), signature: said.signature.into() })
    };
    let quote =
        keys.quote(proofs.qualifying(Purpose::Quote), &QUOTED_PCRS).context("the TPM does not quote")?;
    let counter = keys
        .counter_certify(proofs.qualifying(Purpose::Counter))
        .context("the TPM does not certify its counter")?;
    // A running box may have moved it since the request was made: then nothing is sent, and the next run asks anew.
    ensure!(
        request.in_use.is_none() || counter.value == pending.counter,
        "the TPM's counter has moved from {} to {} while the registrar was asked; run the same command again",
        pending.counter,
        counter.value
    );
    let pcr = |(pcr, value): &(u8, [u8; 32])| PcrValue { pcr: *pcr, value: Octets32::new(*value) };
    let pcrs: Vec<PcrValue> = quote.pcrs.iter().map(pcr).collect();
    pending.quoted(&pcrs)?;
    Ok(Evidence {
        version: 1,
        transcript: Octets32::new(request.transcript().0),
        nonce: challenge.nonce,
        channel: Octets32::new(*channel),
        activation: Octets32::new(proofs.activation(&secret)),
        quote: TpmQuote { attest: quote.attest.into(), signature: quote.signature.into(), pcrs },
        tls_key: certify(Role::Tls, Purpose::TlsKey)?,
        issuing_key: certify(Role::Issuing, Purpose::IssuingKey)?,
        counter: Attestation { attest: counter.attest.into(), signature: counter.signature.into() },
        log_signature: pending.log_key.sign(&proofs.message(Purpose::LogKey)).to_bytes().to_vec().into(),
    })
}

/// The registrar that enrolled the box of this state directory; `None` for a fleet of one.
///
/// # Errors
/// The file is there and not believed.
pub fn fleet_file(state_dir: &Path) -> Result<Option<Registrar>> {
    let path = state_dir.join(FLEET_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let parse = || -> Result<Registrar> {
        let file: serde_json::Value = serde_json::from_slice(&checked_json::body(&bytes)?)?;
        let text = |name: &str| file[name].as_str().with_context(|| format!("it has no {name}"));
        Registrar::parse(text("registrar")?, text("pin")?)
    };
    parse()
        .map(Some)
        .with_context(|| format!("{} is not believed; bring it back from a copy", path.display()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FleetFile<'a> {
    version: u32,
    registrar: &'a str,
    pin: String,
    authority: String,
    tls_certificate: String,
    issuing_certificate: String,
}

/// The text of [`FLEET_FILE`].
///
/// # Errors
/// None for what a registrar issued.
pub fn fleet_text(registrar: &Registrar, issued: &Issued) -> Result<String> {
    let fleet = FleetFile {
        version: 1,
        registrar: registrar.address(),
        pin: registrar.pin().to_string(),
        authority: base64_encode(&issued.authority),
        tls_certificate: base64_encode(&issued.tls_certificate),
        issuing_certificate: base64_encode(&issued.issuing_certificate),
    };
    Ok(checked_json::with_checksum(&serde_json::to_string_pretty(&fleet)?))
}

/// Begins the log with the enrolment, and gives the state directory its name.
fn finish(config: &Config, pending: &Pending, issued: &Issued) -> Result<Created> {
    let directory = &pending.directory;
    // An earlier run may have come as far as this: what it wrote of a log was never used.
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let text = fleet_text(pending.registrar(), issued)?;
    identity::write_atomically(&directory.join(FLEET_FILE), text.as_bytes())?;
    let staged = Config { state_dir: directory.clone(), ..config.clone() };
    tls::create_ca(&pending.keys, &staged).context("cannot make the CA of this box")?;
    let beginning = Beginning {
        origin: pending.origin()?,
        log_key: pending.log_key.clone(),
        enrolment: issued.enrolment.to_vec(),
        fleet_root: *issued.root,
        fleet_secret: None,
        counter: Some(pending.counter),
    };
    let created = beginning::write(&staged, &pending.keys, &beginning, Vec::new(), None)?;
    pending.keys.shutdown();
    identity::take_name(directory, &config.state_dir)?;
    pending::forget(&config.state_dir)?;
    Ok(created)
}
