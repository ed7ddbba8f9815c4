//! `bulla-fleet transcript`: verifies the minutes of a ceremony and prints them.
//!
//! Refuses to do: print minutes that do not verify, or say that their root is the right one without a trust file.

use crate::exit::{Exit, Failure};
use crate::files;
use bulla_ceremony::transcript::{TRANSCRIPT_BYTES_MAX, Transcript};
use bulla_formats::trust::{TRUST_BYTES_MAX, TrustFile, fingerprint};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `bulla-fleet transcript`.
#[derive(Debug, Args)]
pub struct TranscriptArgs {
    /// The signed minutes: `transcript` in the fleet or exchange directory
    #[arg(value_name = "TRANSCRIPT")]
    transcript: PathBuf,
    /// Trust file whose root must be the one of the minutes
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

/// Verifies and prints.
pub fn run(args: &TranscriptArgs) -> Result<Exit, Failure> {
    let refused = |path: &PathBuf, why: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{} is refused: {why}", path.display()))
    };
    let bytes = files::read(&args.transcript, TRANSCRIPT_BYTES_MAX)?;
    let transcript = Transcript::decode(&bytes).map_err(|error| refused(&args.transcript, &error))?;
    let text = files::read(&args.trust, TRUST_BYTES_MAX)?;
    let trust = TrustFile::decode(&text).map_err(|error| refused(&args.trust, &error))?;
    let content = &transcript.content;
    if trust.fleet != content.plan.fleet || !trust.roots.contains(&content.root) {
        return Err(refused(&args.transcript, &"its root is not one of the trust file's"));
    }
    crate::say(&transcript.to_text(&fingerprint(&text)));
    crate::say("It verifies: every custodian signed the result, and the root signed this record.\n");
    Ok(Exit::Ok)
}
