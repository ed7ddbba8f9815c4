//! `bulla verify`: documents, their `.seal` files, one trust file, no network. One document gets a whole report here,
//! many get a table ([`crate::verify_many`]).
//!
//! Refuses to do: say "forged"; a document without a seal is one that no seal is known for.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::{self, printable};
use crate::verify_many::{self, Many};
use bulla_formats::body::seal::{Assurance, DigestAlgorithm, Opening};
use bulla_formats::verify::{VerifiedSeal, Verifier};
use clap::Args;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};

/// Arguments of `bulla verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A document and its seal [default: FILE.seal], or many documents, or directories of them
    ///
    /// One FILE is judged with the seal beside it, FILE.seal, and gets a whole report. So do two names, FILE and SEAL, unless
    /// the second is a directory or has a seal beside it. Everything else is many documents, each with its seal beside
    /// it: one line for each, in the order given. In place of a document its .seal file can be named; both together
    /// count once.
    #[arg(required = true, value_name = "FILE")]
    names: Vec<PathBuf>,
    /// Whom to believe: the fleet's trust file
    #[arg(long, value_name = "TRUST")]
    trust: PathBuf,
    /// Every FILE is a document of its own, however many there are
    #[arg(long)]
    each: bool,
    /// Go into the directories below those given, too
    #[arg(long)]
    recursive: bool,
    /// Seals are here and not beside the documents, under the same names and paths below the directory given
    #[arg(long, value_name = "DIR")]
    seal_dir: Option<PathBuf>,
    /// Print the report as JSON; of many documents one line each
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

impl VerifyArgs {
    /// The one document and its seal; `None` when there are many.
    fn pair(&self) -> Option<(&Path, PathBuf)> {
        if self.each || self.recursive || self.seal_dir.is_some() {
            return None;
        }
        match &self.names[..] {
            [document] if !document.is_dir() => Some((document, files::seal_path(document))),
            [document, seal] => {
                let document_too = seal.is_dir() || files::seal_path(seal).exists();
                (!document.is_dir() && !document_too).then(|| (document.as_path(), seal.clone()))
            }
            _ => None,
        }
    }
}

/// Verifies and prints what came of it.
pub fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let (trust, fingerprint) = files::read_trust(&args.trust)?;
    let Some((document, seal_path)) = args.pair() else {
        return verify_many::run(&Many {
            names: &args.names,
            recursive: args.recursive,
            seal_dir: args.seal_dir.as_deref(),
            trust_path: &args.trust,
            trust: &trust,
            fingerprint: &fingerprint,
            json: args.json,
            quiet: args.quiet,
        });
    };
    let bytes = files::read_seal(&seal_path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let message = format!("no seal known for these bytes: {} does not exist", seal_path.display());
            Failure::new(Exit::NoSeal, message)
        }
        _ => Failure::usage(format!("{} cannot be read: {error}", seal_path.display())),
    })?;
    // What a broken file would have been made with is unknown, and its verdict does not depend on it.
    let mut verifier = Verifier::new(&trust);
    let seal = verifier.unpack(&bytes);
    let algorithm = seal.wanted_digest().unwrap_or(DigestAlgorithm::Sha256);
    let digest = files::hash_file(document, algorithm)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", document.display())))?;
    let found = verifier.judge(seal, Some(&digest));
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
    if found.report.failed().is_some_and(|check| check.name == "seal-file") && !files::is_seal(&seal_path) {
        let (seal, document) = (seal_path.display(), document.display());
        output::complain(&format!(
            "{seal} was taken as the seal of {document}; add --each when it is a document too"
        ));
    }
    Ok(found.report.verdict.into())
}

fn assurance(opening: &Opening) -> &'static str {
    match opening.assurance {
        Assurance::Asserted => "asserted",
        Assurance::Authenticated => "authenticated",
    }
}

/// An opening as it stands in a report.
pub fn opened(opening: &Opening) -> Value {
    json!({"name": opening.name, "value": opening.value, "assurance": assurance(opening)})
}
