//! `bulla-fleet reference`: from the event log of a known good boot to the reference values of a trust file, and from
//! an event log that does not fit to the measurement that differs.
//!
//! Refuses to do: change by hand what several people decide (`terms`); believe an event's type; take over a reference of the same name or of the same values; change a trust
//! file in place unless it is told to write there.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::terms::not_by_hand;
use bulla_appraisal::difference::{Described, first_difference, nearest};
use bulla_appraisal::event_log::{EventLog, LOG_BYTES_MAX};
use bulla_appraisal::replay::{PcrValues, replay, secure_boot};
use bulla_approvals::action::Kind;
use bulla_formats::trust::{Reference, TRUST_BYTES_MAX, TrustFile, fingerprint};
use bulla_timestamps::certificates_in_pem;
use clap::{Args, Subcommand};
use rustls::pki_types::CertificateDer;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Longest file with a certificate, and with a signature, in bytes.
const VOUCHER_BYTES_MAX: usize = 1 << 16;
/// Longest name of a reference in bytes.
const NAME_BYTES_MAX: usize = 128;
/// PCRs that count unless others are named.
pub const PCRS: &str = "0,2,3,4,6,7";

/// Subcommands of `bulla-fleet reference`.
#[derive(Debug, Subcommand)]
pub enum ReferenceCommand {
    /// Replay an event log and print PCR values and measurements
    Show(ShowArgs),
    /// Add the boot of an event log to the known good ones of a trust file
    Add(AddArgs),
    /// Say which known good boot an event log is, or what differs
    Check(CheckArgs),
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Event log: a copy of /sys/kernel/security/tpm0/binary_bios_measurements
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Trust file
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Name of the boot, e.g. "image 1.2.0"
    #[arg(long)]
    name: String,
    /// Event log of a boot that is known to be good
    #[arg(long, value_name = "LOG")]
    log: PathBuf,
    /// PCRs that count. The default leaves out what differs from board to board (1: serial numbers, 5: disk layout) and
    /// what user space measures into (8 to 15); a box must quote all of them
    #[arg(long, value_delimiter = ',', default_value = PCRS)]
    pcrs: Vec<u8>,
    #[command(flatten)]
    vouched: Vouched,
    /// Where to write the trust file; it may be the same
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Who vouches for an event log that was computed, beside the word of whoever hands it in.
#[derive(Debug, Args)]
pub struct Vouched {
    /// Signature over the event log, as `cargo xtask image` leaves it: RSA (PKCS #1 v1.5) or ECDSA P-256, with SHA-256
    #[arg(long, value_name = "FILE", requires = "certificate", requires = "log")]
    signature: Option<PathBuf>,
    /// PEM file of the certificate whose key must have signed it: db.crt of the image's Secure Boot keys
    #[arg(long, value_name = "FILE", requires = "signature")]
    certificate: Option<PathBuf>,
}

impl Vouched {
    /// Refuses an event log that was not signed with the key of the certificate, if one is named. When it was issued, and
    /// by whom, does not matter: whoever names the file believes this key.
    fn check(&self, log: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let (Some(signature), Some(certificate)) = (&self.signature, &self.certificate) else {
            return Ok(());
        };
        let refused = |path: &Path, why: &dyn std::fmt::Display| {
            Failure::new(Exit::Refused, format!("{} is refused: {why}", path.display()))
        };
        let found = certificates_in_pem(&files::read(certificate, VOUCHER_BYTES_MAX)?)
            .map_err(|error| refused(certificate, &error))?;
        let [der] = <[Vec<u8>; 1]>::try_from(found)
            .map_err(|_| refused(certificate, &"it must hold one certificate in PEM"))?;
        let der = CertificateDer::from(der);
        let key = webpki::EndEntityCert::try_from(&der).map_err(|error| refused(certificate, &error))?;
        let signed = files::read(signature, VOUCHER_BYTES_MAX)?;
        let by = [webpki::ring::RSA_PKCS1_2048_8192_SHA256, webpki::ring::ECDSA_P256_SHA256];
        if by.into_iter().any(|how| key.verify_signature(how, bytes, &signed).is_ok()) {
            return Ok(());
        }
        let why = format!(
            "{} is no signature over it by the key in {}; take event log, signature and certificate from one image",
            signature.display(),
            certificate.display()
        );
        Err(refused(log, &why))
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Trust file
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Event log to judge
    #[arg(long, value_name = "LOG")]
    log: PathBuf,
    /// Event log of the expected boot: names the first measurement that differs
    #[arg(long, value_name = "LOG")]
    expected: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(command: &ReferenceCommand) -> Result<Exit, Failure> {
    match command {
        ReferenceCommand::Show(args) => show(args),
        ReferenceCommand::Add(args) => add(args),
        ReferenceCommand::Check(args) => check(args),
    }
}

fn read_log(path: &Path) -> Result<EventLog, Failure> {
    parse_log(path, &files::read(path, LOG_BYTES_MAX)?)
}

fn parse_log(path: &Path, bytes: &[u8]) -> Result<EventLog, Failure> {
    EventLog::parse(bytes)
        .map_err(|error| Failure::new(Exit::Refused, format!("{} is no event log: {error}", path.display())))
}

fn read_trust(path: &Path) -> Result<TrustFile, Failure> {
    let bytes = files::read(path, TRUST_BYTES_MAX)?;
    TrustFile::decode(&bytes)
        .map_err(|error| Failure::new(Exit::Refused, format!("{} is refused: {error}", path.display())))
}

fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let log = read_log(&args.log)?;
    let (values, secure_boot) = (replay(&log), secure_boot(&log));
    if args.json {
        let events: Vec<_> = log
            .events
            .iter()
            .map(|event| {
                serde_json::json!({
                    "number": event.number,
                    "pcr": event.pcr,
                    "claimedType": event.claimed_name(),
                    "sha256": hex::encode(event.digest),
                    "measured": event.is_measured(),
                    "dataProven": event.data_is_proven(),
                })
            })
            .collect();
        let value = serde_json::json!({
            "pcrs": pcrs_json(&values), "secureBoot": secure_boot.name(), "events": events,
        });
        crate::say(&format!("{value}\n"));
        return Ok(Exit::Ok);
    }
    let mut text = String::new();
    for (pcr, value) in &values {
        let count = log.events.iter().filter(|event| event.pcr == *pcr && event.is_measured()).count();
        writes(&mut text, format_args!("PCR {pcr:>2}  {}  {count} measurements\n", hex::encode(value)));
    }
    writes(&mut text, format_args!("Secure Boot: {}\n\n", secure_boot.name()));
    for event in log.events.iter().filter(|event| event.is_measured()) {
        writes(&mut text, format_args!("PCR {:>2}  {}\n", event.pcr, Described(Some(event))));
    }
    crate::say(&text);
    Ok(Exit::Ok)
}

/// Writing to a string cannot fail.
fn writes(text: &mut String, words: std::fmt::Arguments<'_>) {
    let _infallible = text.write_fmt(words);
}

fn pcrs_json(values: &PcrValues) -> serde_json::Value {
    values.iter().map(|(pcr, value)| serde_json::json!({"pcr": pcr, "value": hex::encode(value)})).collect()
}

/// The boot of an event log as a reference by these PCRs.
pub fn reference_of(name: &str, log: &Path, wanted: &[u8], vouched: &Vouched) -> Result<Reference, Failure> {
    let bytes = files::read(log, LOG_BYTES_MAX)?;
    vouched.check(log, &bytes)?;
    let values = replay(&parse_log(log, &bytes)?);
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let why = format!("a reference has a name of 1 to {NAME_BYTES_MAX} bytes without control characters");
        return Err(Failure::usage(why));
    }
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let mut pcrs = Vec::new();
    for pcr in wanted {
        let Some(value) = values.get(&pcr) else {
            return Err(Failure::usage(format!(
                "the log measures nothing into PCR {pcr}; leave it out of --pcrs"
            )));
        };
        pcrs.push((pcr, *value));
    }
    Ok(Reference { name: name.to_owned(), pcrs })
}

fn add(args: &AddArgs) -> Result<Exit, Failure> {
    not_by_hand([&args.trust, &args.out], Kind::Policy, "reference")?;
    let mut trust = read_trust(&args.trust)?;
    let Reference { name, pcrs } = reference_of(&args.name, &args.log, &args.pcrs, &args.vouched)?;
    if let Some(known) = trust.references.iter().find(|known| known.name == name || known.pcrs == pcrs) {
        let why = format!(
            "{} has a reference of that name or with these values already: {:?}",
            args.trust.display(),
            known.name
        );
        return Err(Failure::usage(why));
    }
    let listed = pcrs.iter().map(|(pcr, _)| pcr.to_string()).collect::<Vec<_>>().join(", ");
    trust.references.push(Reference { name: name.clone(), pcrs });
    trust.issued_millis = crate::now_millis()?;
    let text = trust.encode();
    files::write(&args.out, text.as_bytes())?;
    crate::say(&format!(
        "{} knows {name:?} by PCRs {listed}. Its new fingerprint: {}\n",
        args.out.display(),
        fingerprint(text.as_bytes())
    ));
    Ok(Exit::Ok)
}

fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let (trust, log) = (read_trust(&args.trust)?, read_log(&args.log)?);
    let (values, secure_boot) = (replay(&log), secure_boot(&log));
    let Some((reference, differences)) = nearest(&trust.references, &values) else {
        let why =
            format!("{} knows no good boot: add one with `bulla-fleet reference add`", args.trust.display());
        return Err(Failure::usage(why));
    };
    let expected = args.expected.as_deref().map(read_log).transpose()?;
    let first = |pcr| expected.as_ref().and_then(|expected| first_difference(expected, &log, pcr));
    let good = differences.is_empty();
    if args.json {
        let differences: Vec<_> = differences
            .iter()
            .map(|difference| {
                serde_json::json!({
                    "pcr": difference.pcr,
                    "expected": hex::encode(difference.expected),
                    "found": difference.found.map(hex::encode),
                    "firstEvent": first(difference.pcr).map(|(expected, found)| serde_json::json!({
                        "expected": Described(expected).to_string(), "found": Described(found).to_string(),
                    })),
                })
            })
            .collect();
        let value = serde_json::json!({
            "good": good, "nearest": reference.name, "secureBoot": secure_boot.name(), "differences": differences,
        });
        crate::say(&format!("{value}\n"));
    } else if good {
        crate::say(&format!("The boot is {:?}. Secure Boot: {}\n", reference.name, secure_boot.name()));
    } else {
        let mut text = String::new();
        for difference in &differences {
            let found = difference.found.map_or_else(|| "nothing measured".to_owned(), hex::encode);
            let (pcr, expected) = (difference.pcr, hex::encode(difference.expected));
            writes(
                &mut text,
                format_args!("PCR {pcr} differs: expected {expected} from {}, got {found}\n", reference.name),
            );
            if let Some((expected, found)) = first(pcr) {
                writes(
                    &mut text,
                    format_args!("  expected {}\n  got      {}\n", Described(expected), Described(found)),
                );
            }
        }
        crate::say(&text);
    }
    if good {
        return Ok(Exit::Ok);
    }
    let pcrs = differences.iter().map(|difference| difference.pcr.to_string()).collect::<Vec<_>>().join(", ");
    let why = format!(
        "the boot is none of the known good ones; nearest is {:?}, PCR {pcrs} differing",
        reference.name
    );
    Err(Failure::new(Exit::Refused, why))
}
