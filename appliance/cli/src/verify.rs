//! `bulla verify`: one document, one `.seal`, one trust file, no network.
//!
//! Refuses to do: say "forged"; a document without a seal is one that no seal is known for.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::{self, printable};
use bulla_formats::body::seal::{Assurance, DigestAlgorithm, Opening};
use bulla_formats::seal_file::SealFile;
use bulla_formats::verify::{VerifiedSeal, verify, wanted_digest};
use clap::Args;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;

/// Arguments of `bulla verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The document
    #[arg(value_name = "FILE")]
    document: PathBuf,
    /// Its seal [default: FILE.seal]
    #[arg(value_name = "SEAL")]
    seal: Option<PathBuf>,
    /// Whom to believe: the fleet's trust file
    #[arg(long, value_name = "TRUST")]
    trust: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Verifies and prints the report.
pub fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let (trust, fingerprint) = files::read_trust(&args.trust)?;
    let seal_path = args.seal.clone().unwrap_or_else(|| files::seal_path(&args.document));
    let bytes = files::read_seal(&seal_path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let message = format!("no seal known for these bytes: {} does not exist", seal_path.display());
            Failure::new(Exit::NoSeal, message)
        }
        _ => Failure::usage(format!("{} cannot be read: {error}", seal_path.display())),
    })?;
    // What a broken file would have been made with is unknown, and its verdict does not depend on it.
    let algorithm = SealFile::decode(&bytes).ok().and_then(|seal| wanted_digest(&seal));
    let algorithm = algorithm.unwrap_or(DigestAlgorithm::Sha256);
    let digest = files::hash_file(&args.document, algorithm)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", args.document.display())))?;
    let found = verify(&bytes, &trust, Some(&digest));
    let openings = found.seal.as_ref().map_or(&[][..], VerifiedSeal::openings);
    if args.json {
        let mut report = found.report.to_json();
        report["trustFingerprint"] = fingerprint.into();
        report["opened"] = openings.iter().map(opened).collect();
        output::print_json(&report);
    } else {
        // Details quote names from the file: they are cleaned line by line.
        let mut text = String::new();
        let report = found.report.to_string();
        let (checks, rest) = report.split_at(report.find("verdict     ").unwrap_or(0));
        let lines = |part: &str| part.lines().map(|line| printable(line) + "\n").collect::<String>();
        text.push_str(&lines(checks));
        for opening in openings {
            let (name, value) = (printable(&opening.name), printable(&opening.value));
            text.push_str(&format!("{:<11} {name}: {value} ({})\n", "opened", assurance(opening)));
        }
        text.push_str(&lines(rest));
        text.push_str(&format!("trust file  fingerprint {fingerprint}\n"));
        output::print(&text);
    }
    Ok(found.report.verdict.into())
}

fn assurance(opening: &Opening) -> &'static str {
    match opening.assurance {
        Assurance::Asserted => "asserted",
        Assurance::Authenticated => "authenticated",
    }
}

fn opened(opening: &Opening) -> Value {
    json!({"name": opening.name, "value": opening.value, "assurance": assurance(opening)})
}
