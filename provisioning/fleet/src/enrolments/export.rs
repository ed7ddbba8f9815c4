//! `bulla-fleet enrolments export`: the evidence of one enrolment as files that stock tools read.
//!
//! `openssl verify` judges the endorsement certificate, `tpm2_checkquote` the quote; what they are told to expect follows
//! from the request alone. Refuses to do: write into a directory that holds anything.

use super::Shelf;
use crate::exit::{Exit, Failure};
use crate::files;
use bulla_enrolment::proof::{Proofs, Purpose};
use bulla_enrolment::wire::Evidence;
use bulla_formats::json::base64_encode;
use bulla_formats::tpm::TpmtPublic;
use clap::Args;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Claim code, as the box shows it
    #[arg(value_name = "CLAIM")]
    which: String,
    /// Where to, a directory that is made
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
}

/// Writes the files.
pub fn run(args: &ExportArgs) -> Result<Exit, Failure> {
    let record = Shelf::open(&args.dir)?.find(&args.which)?;
    let Some(proven) = &record.proven else {
        return Err(Failure::new(Exit::Waits, "the box has proven nothing yet; there is only its request"));
    };
    let refused = |why: String| Failure::new(Exit::Refused, format!("the record cannot be read: {why}"));
    let evidence = Evidence::decode(&proven.evidence).map_err(|error| refused(error.to_string()))?;
    let request = record.request();
    let proofs = Proofs::new(&request, &evidence.nonce, &evidence.channel);
    let proofs = proofs.map_err(|error| refused(error.to_string()))?;
    let key = TpmtPublic::parse(&request.attestation_key).map_err(|error| refused(error.to_string()))?;
    if fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::file("export to", &args.out, "it holds something already"));
    }
    files::make_private_dir(&args.out)?;
    let qualifying = hex::encode(proofs.qualifying(Purpose::Quote));
    let mut pcrs = String::new();
    for pcr in &evidence.quote.pcrs {
        let _ = writeln!(pcrs, "{}:sha256={}", pcr.pcr, hex::encode(*pcr.value));
    }
    let mut written: Vec<(String, Vec<u8>)> = vec![
        ("request.der".into(), record.request.to_vec()),
        ("evidence.der".into(), proven.evidence.to_vec()),
        ("event.log".into(), request.event_log.to_vec()),
        ("ak.pem".into(), pem("PUBLIC KEY", &key.spki_der())),
        ("quote.attest".into(), evidence.quote.attest.to_vec()),
        ("quote.signature".into(), evidence.quote.signature.to_vec()),
        ("quote.pcrs".into(), pcrs.into_bytes()),
        ("quote.qualifying".into(), format!("{qualifying}\n").into_bytes()),
    ];
    for (number, certificate) in request.ek_certificates.iter().enumerate() {
        written.push((format!("ek-{number}.pem"), pem("CERTIFICATE", certificate)));
    }
    for (name, bytes) in &written {
        files::write(&args.out.join(name), bytes)?;
    }
    crate::say(&format!(
        "{} files in {}. To judge them with stock tools, there:\n  \
         openssl verify -CAfile ROOT.pem -untrusted INTERMEDIATES.pem ek-0.pem\n  \
         tpm2_checkquote -u ak.pem -m quote.attest -s quote.signature -g sha256 -q $(cat quote.qualifying)\n",
        written.len(),
        args.out.display()
    ));
    Ok(Exit::Ok)
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = base64_encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII.
        out += &String::from_utf8_lossy(line);
        out.push('\n');
    }
    out += &format!("-----END {label}-----\n");
    out.into_bytes()
}
