//! `bulla-fleet trust`: what the roster says of logs that were given up, for everybody who verifies.
//!
//! Refuses to do: write a trust file from a roster that is older than the one the file at hand was written from, or of
//! another root.
//! Invariant: the same roster makes the same statements, byte for byte, so that files which carry them agree.

use crate::desk::Desk;
use crate::exit::{Exit, Failure};
use crate::{files, init};
use bulla_approvals::action::Version;
use bulla_formats::der::Octets32;
use bulla_formats::entry::TreeState;
use bulla_formats::revocation::{Cause, Revocation, RevocationContent};
use bulla_formats::trust::{FromRoster, TRUST_BYTES_MAX, TRUST_REVOCATIONS_MAX, TrustFile, fingerprint};
use bulla_roster::roster::Roster;
use clap::{Args, Subcommand};
use ed25519_dalek::{Signer, SigningKey};
use std::path::PathBuf;

/// Subcommands of `bulla-fleet trust`.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Write a trust file with the revocations of the roster as it is
    Export(ExportArgs),
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The exchange directory; by default `exchange` in the fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    exchange: Option<PathBuf>,
    /// Trust file whose roots, references and policy are kept; by default trust.json in the fleet directory
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Where to write the trust file; it may be the same
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Carries it out.
pub fn run(command: &TrustCommand) -> Result<Exit, Failure> {
    match command {
        TrustCommand::Export(args) => export(args),
    }
}

fn export(args: &ExportArgs) -> Result<Exit, Failure> {
    let roster = Desk::of(&args.dir, args.exchange.as_deref())?.roster_of(&args.dir)?;
    let path = args.trust.clone().unwrap_or_else(|| args.dir.join("trust.json"));
    let refused = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{} is refused: {why}", path.display()))
    };
    let mut trust =
        TrustFile::decode(&files::read(&path, TRUST_BYTES_MAX)?).map_err(|error| refused(&error))?;
    roster.check_root(&trust)?;
    if let Some(from) = &trust.roster {
        roster.check_seen(&Version { number: from.version, hash: Octets32::new(from.hash) })?;
    }
    let revocations = revocations(&roster, &init::fleet_ca(&args.dir)?);
    if revocations.len() > TRUST_REVOCATIONS_MAX {
        return Err(Failure::usage(format!(
            "a trust file has room for {TRUST_REVOCATIONS_MAX} revocations, and the roster has {}",
            revocations.len()
        )));
    }
    let count = |cause: Cause| revocations.iter().filter(|said| said.content.cause == cause).count();
    let counts = [Cause::Compromise, Cause::Retirement, Cause::Replaced]
        .map(|cause| format!("{} for {}", count(cause), cause.name()));
    let version = roster.version();
    trust.roster = Some(FromRoster { version: version.number, hash: *version.hash, revocations });
    trust.issued_millis = crate::now_millis()?;
    let text = trust.encode();
    // What nobody could read would help nobody.
    TrustFile::decode(text.as_bytes()).map_err(|error| refused(&error))?;
    files::write(&args.out, text.as_bytes())?;
    crate::say(&format!(
        "{} gives up logs by version {} of the roster: {}. Its fingerprint: {}\n",
        args.out.display(),
        version.number,
        counts.join(", "),
        fingerprint(text.as_bytes())
    ));
    Ok(Exit::Ok)
}

/// A statement for every log that was given up, signed by the fleet CA, in ascending order of the origins.
fn revocations(roster: &Roster, fleet_ca: &SigningKey) -> Vec<Revocation> {
    let certificate = &roster.founding().content.fleet_ca;
    let mut revocations = Vec::new();
    for listed in roster.inventory().boxes() {
        for log in &listed.logs {
            let Some((stone, good)) = listed.revocation_of(&log.origin) else { continue };
            let (Some(done), Some(version)) = (
                roster.history().get((stone.version - 1) as usize),
                roster.versions().get(stone.version as usize),
            ) else {
                continue;
            };
            let content = RevocationContent {
                version: 1,
                fleet: roster.fleet().to_owned(),
                origin: log.origin.clone(),
                cause: stone.revocation.cause,
                good: TreeState { size: good.size, root: good.root },
                invalid_from: stone.revocation.invalid_from,
                roster: stone.version,
                roster_hash: version.hash,
                // Not now: the statement is the same however often it is written. Clocks of laptops differ.
                issued_at: done.change.action.proposed_at.max(certificate.content.not_before),
            };
            let signature = fleet_ca.sign(&content.message()).to_bytes().to_vec().into();
            revocations.push(Revocation { content, chain: vec![certificate.clone()], signature });
        }
    }
    revocations.sort_by(|a, b| a.content.origin.cmp(&b.content.origin));
    revocations
}
