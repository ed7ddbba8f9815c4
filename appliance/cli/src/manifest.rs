//! `bulla manifest verify`: a manifest from a file, or from the codes on its printed page; no network.
//!
//! Refuses to do: take part of a page for the whole.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::{self, printable};
use bulla_formats::body::manifest::ManifestStatement;
use bulla_formats::manifest_file::MANIFEST_BYTES_MAX;
use bulla_formats::report::{Verdict, utc};
use bulla_formats::verify::verify_manifest;
use bulla_page::codes;
use clap::{Args, Subcommand};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Arguments of `bulla manifest`.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify a manifest, offline
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The manifest's .der file; or text files with what a reader of QR codes made of the printed page, in any order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whom to believe: the fleet's trust file
    #[arg(long, value_name = "TRUST")]
    trust: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn run(args: &ManifestArgs) -> Result<Exit, Failure> {
    let Command::Verify(args) = &args.command;
    let (trust, fingerprint) = files::read_trust(&args.trust)?;
    let bytes = read(&args.files)?;
    let found = verify_manifest(&bytes, &trust);
    let said = found.manifest.as_ref().map(|manifest| &manifest.statement);
    if args.json {
        let mut report = found.report.to_json();
        report["trustFingerprint"] = fingerprint.into();
        report["manifest"] = said.map_or(serde_json::Value::Null, |said| {
            json!({
                "origin": said.origin,
                "outage": said.outage,
                "phase": said.phase.name(),
                "drill": said.drill,
                "first": said.first,
                "last": said.head.size - 1,
                "seals": said.seals,
                "entriesRoot": hex::encode(*said.entries),
                "beganMillis": said.began.unix_millis,
                "madeMillis": said.made.unix_millis,
                "durationMillis": said.duration_millis,
                "wording": said.wording.id,
            })
        });
        output::print_json(&report);
    } else {
        output::print(&text(&found.report.to_string(), said, found.report.verdict, &fingerprint));
    }
    Ok(found.report.verdict.into())
}

fn text(report: &str, said: Option<&ManifestStatement>, verdict: Verdict, fingerprint: &str) -> String {
    let mut text = String::new();
    for line in report.lines() {
        // The sentences of verdicts speak of seals and documents.
        match line.strip_prefix("verdict     ") {
            None if line.starts_with("facts ") => {}
            None => text.push_str(&(printable(line) + "\n")),
            Some(_) => {
                let sentence = match verdict {
                    Verdict::Valid => "The manifest is the box's own, and its evidence holds.",
                    Verdict::Refused => "The evidence does not hold; the failed check says which part.",
                    Verdict::PolicyUnmet => {
                        "The manifest is genuine, but the trust file's policy asks for more."
                    }
                    other => other.sentence(),
                };
                let _ = writeln!(text, "verdict     {}: {sentence}", verdict.name());
            }
        }
    }
    if let Some(said) = said {
        let drill = if said.drill { ", a drill" } else { "" };
        let _ = writeln!(
            text,
            "covers      entries {} to {} of {}{drill}: {} seals from {} on, for {} s",
            said.first,
            said.head.size - 1,
            printable(&said.origin),
            said.seals,
            utc(said.began.unix_millis),
            said.duration_millis / 1_000
        );
    }
    let _ = writeln!(text, "trust file  fingerprint {fingerprint}");
    text
}

/// One DER file, or the texts of codes.
fn read(paths: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    let read_one = |path: &Path| -> Result<Vec<u8>, Failure> {
        let failed = |error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    };
    let contents = paths.iter().map(|path| read_one(path)).collect::<Result<Vec<_>, _>>()?;
    if let [only] = &contents[..]
        && !only.starts_with(b"BULLA1/")
        && !only.starts_with(b"QR-Code:")
    {
        return Ok(only.clone());
    }
    let mut texts = Vec::new();
    for (content, path) in contents.iter().zip(paths) {
        let content = std::str::from_utf8(content).map_err(|_| {
            Failure::usage(format!("{} is neither a manifest nor text of codes", path.display()))
        })?;
        // zbarimg names the kind of code first.
        let lines = content.lines().map(|line| line.trim().trim_start_matches("QR-Code:"));
        texts.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
    }
    codes::join(&texts).map_err(|error| Failure::usage(format!("the codes do not make a page: {error}")))
}
