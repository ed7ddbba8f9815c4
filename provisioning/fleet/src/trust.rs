//! `bulla-fleet trust`: what the roster says of logs that were given up and of those that take their place, for everybody who verifies.
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
use bulla_formats::peer::card::PeerCard;
use bulla_formats::revocation::{Cause, Revocation, RevocationContent};
use bulla_formats::succession::{Succession, SuccessionContent};
use bulla_formats::trust::{
    COSIGNERS_MAX, FromRoster, TRUST_BYTES_MAX, TRUST_REVOCATIONS_MAX, TrustFile, fingerprint,
};
use bulla_roster::followed::Followed;
use bulla_roster::inventory::State;
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
    /// Names the boxes whose cosignatures count: those whose keys people have approved, but for compromised ones. Without,
    /// the cosigners of the trust file stay as they are
    #[arg(long)]
    cosigners: bool,
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
    let fleet_ca = init::fleet_ca(&args.dir)?;
    let revocations = revocations(&roster, &fleet_ca);
    let successions = successions(&roster, &fleet_ca);
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
    let followed = match successions.len() {
        0 => String::new(),
        count => format!(", and says of {count} which log takes their place"),
    };
    trust.roster =
        Some(FromRoster { version: version.number, hash: *version.hash, revocations, successions });
    if args.cosigners {
        trust.cosigners = cosigners(&roster)?;
    }
    trust.issued_millis = crate::now_millis()?;
    let text = trust.encode();
    // What nobody could read would help nobody.
    TrustFile::decode(text.as_bytes()).map_err(|error| refused(&error))?;
    files::write(&args.out, text.as_bytes())?;
    crate::say(&format!(
        "{} gives up logs by version {} of the roster: {}{followed}. Its fingerprint: {}\n",
        args.out.display(),
        version.number,
        counts.join(", "),
        fingerprint(text.as_bytes())
    ));
    Ok(Exit::Ok)
}

/// Cards of everybody who may have cosigned something that counts, in ascending order of their logs. Who was retired or
/// replaced was honest while it served.
fn cosigners(roster: &Roster) -> Result<Vec<PeerCard>, Failure> {
    let honest = roster.inventory().boxes().filter(|listed| listed.state != State::Revoked);
    let mut cards: Vec<PeerCard> = honest.filter_map(|listed| listed.card.clone()).collect();
    if cards.len() > COSIGNERS_MAX {
        return Err(Failure::usage(format!(
            "a trust file has room for {COSIGNERS_MAX} cosigners, and the roster has {}; leave --cosigners away, and let \
             each branch hand out the trust file of its boxes (`bulla-box trust export`)",
            cards.len()
        )));
    }
    cards.sort_by(|a, b| a.origin().as_str().cmp(b.origin().as_str()));
    Ok(cards)
}

/// Hash of a version of the roster, and when what it says is stated.
fn version(roster: &Roster, number: u64) -> Option<(Octets32, u64)> {
    let done = roster.history().get(usize::try_from(number).ok()?.checked_sub(1)?)?;
    let version = roster.versions().get(usize::try_from(number).ok()?)?;
    // Not now: the statement is the same however often it is written. Clocks of laptops differ.
    let not_before = roster.founding().content.fleet_ca.content.not_before;
    Some((version.hash, done.change.action.proposed_at.max(not_before)))
}

/// A statement for every log that takes the place of a lost one, signed by the fleet CA, in ascending order of the lost.
fn successions(roster: &Roster, fleet_ca: &SigningKey) -> Vec<Succession> {
    let stated = |(predecessor, step): (&str, Followed<'_>)| {
        let (roster_hash, issued_at) = version(roster, step.version)?;
        let content = SuccessionContent {
            version: 1,
            fleet: roster.fleet().to_owned(),
            predecessor: predecessor.to_owned(),
            successor: step.successor.to_owned(),
            head: TreeState { size: step.held.tree.size, root: step.held.tree.root },
            holders: step.held.holders.clone(),
            roster: step.version,
            roster_hash,
            issued_at,
        };
        let signature = fleet_ca.sign(&content.message()).to_bytes().to_vec().into();
        let chain = vec![roster.founding().content.fleet_ca.clone()];
        Some(Succession { content, chain, signature })
    };
    roster.successions().into_iter().filter_map(stated).collect()
}

/// A statement for every log that was given up, signed by the fleet CA, in ascending order of the origins.
fn revocations(roster: &Roster, fleet_ca: &SigningKey) -> Vec<Revocation> {
    let certificate = &roster.founding().content.fleet_ca;
    let mut revocations = Vec::new();
    for listed in roster.inventory().boxes() {
        for log in &listed.logs {
            let Some((stone, good)) = listed.revocation_of(&log.origin) else { continue };
            let Some((version_hash, issued_at)) = version(roster, stone.version) else { continue };
            let content = RevocationContent {
                version: 1,
                fleet: roster.fleet().to_owned(),
                origin: log.origin.clone(),
                cause: stone.revocation.cause,
                good: TreeState { size: good.size, root: good.root },
                invalid_from: stone.revocation.invalid_from,
                roster: stone.version,
                roster_hash: version_hash,
                issued_at,
            };
            let signature = fleet_ca.sign(&content.message()).to_bytes().to_vec().into();
            revocations.push(Revocation { content, chain: vec![certificate.clone()], signature });
        }
    }
    revocations.sort_by(|a, b| a.content.origin.cmp(&b.content.origin));
    revocations
}
