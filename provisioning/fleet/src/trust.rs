//! `bulla-fleet trust`: what the roster says of logs that were given up, of those that take their place, of whose time is
//! believed, of good boots and of the policy, for everybody who verifies.
//!
//! Refuses to do: write a trust file from a roster that is older than the one the file at hand was written from, or of
//! another root; where several people decide, hand on what nobody has approved.
//! Invariant: the same roster makes the same statements, byte for byte, so that files which carry them agree.

use crate::desk::{Desk, read_roster};
use crate::exit::{Exit, Failure};
use crate::{files, init, terms};
use bulla_approvals::action::{Kind, Version};
use bulla_formats::der::Octets32;
use bulla_formats::entry::TreeState;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::revocation::{Cause, Revocation, RevocationContent};
use bulla_formats::succession::{Succession, SuccessionContent};
use bulla_formats::trust::{
    COSIGNERS_MAX, FromRoster, TRUST_BYTES_MAX, TRUST_REVOCATIONS_MAX, TrustFile, fingerprint,
};
use bulla_roster::deed::Deed;
use bulla_roster::followed::Followed;
use bulla_roster::inventory::State;
use bulla_roster::roster::Roster;
use bulla_roster::terms::{Anchors, Policy, Terms};
use clap::{Args, Subcommand};
use ed25519_dalek::{Signer, SigningKey};
use std::path::PathBuf;

/// Subcommands of `bulla-fleet trust`.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Write a trust file that says what the roster says as it is
    Export(ExportArgs),
    /// Say whether a trust file says what the people of a roster have approved, and nothing else
    Check(CheckArgs),
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
    /// Trust file to begin with; by default trust.json in the fleet directory. What the roster says nothing of stays as it is
    /// there
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Names the boxes whose cosignatures count: those whose keys people have approved, but for compromised ones. Without,
    /// the cosigners of the trust file stay as they are
    #[arg(long)]
    cosigners: bool,
    /// Drops what somebody has written into the trust file and nobody has approved
    #[arg(long)]
    discard: bool,
    /// Where to write the trust file; it may be the same
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The trust file
    #[arg(value_name = "FILE")]
    trust: PathBuf,
    /// The roster; a copy does, e.g. that of the exchange directory
    #[arg(long, value_name = "ROSTER")]
    roster: PathBuf,
}

/// Carries it out.
pub fn run(command: &TrustCommand) -> Result<Exit, Failure> {
    match command {
        TrustCommand::Export(args) => export(args),
        TrustCommand::Check(args) => check(args),
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
    let foreign = not_approved(&roster, &trust)?;
    if !foreign.is_empty() && !args.discard {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{} says what nobody has approved: {}. Propose it (`bulla-fleet propose ... --from {}`), or drop it with \
                 --discard",
                path.display(),
                foreign.join("; "),
                path.display()
            ),
        ));
    }
    let told = take_terms(&roster, &mut trust)?;
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
    crate::say(&told);
    Ok(Exit::Ok)
}

/// The terms that a trust file was written with: those of the version of the roster that it names; of the ceremony's, none.
fn terms_of(roster: &Roster, trust: &TrustFile) -> Terms {
    trust.roster.as_ref().map_or_else(Terms::default, |from| roster.terms_at(from.version))
}

/// Whether a card's keys are those of one that people have approved.
fn is_approved(roster: &Roster, card: &PeerCard) -> bool {
    let mut approved = roster.history().iter().filter_map(|done| match &done.deed {
        Deed::Cards(cards) => Some(cards),
        _ => None,
    });
    approved.any(|cards| {
        cards.iter().any(|known| {
            let (a, b) = (known.content(), card.content());
            a.origin == b.origin
                && [a.log_key, a.witness_key, a.mirror_key] == [b.log_key, b.witness_key, b.mirror_key]
        })
    })
}

/// What a trust file says beside or against what the people of the roster had approved when it was written. Where one person
/// decides alone, what the roster says nothing of is that person's to write.
fn not_approved(roster: &Roster, trust: &TrustFile) -> Result<Vec<String>, Failure> {
    let then = terms_of(roster, trust);
    let mut foreign = Vec::new();
    let (found, several) =
        (Anchors::of(trust.authorities.as_ref()), terms::needed(roster, Kind::Anchors)? > 1);
    match &then.anchors {
        Some((version, anchors)) if *anchors != found => {
            foreign.push(format!("whose time is believed differs from version {version} of the roster"));
        }
        None if several && !found.is_empty() => {
            foreign.push("whose time is believed stands in no version of the roster".to_owned());
        }
        _ => {}
    }
    let found = Policy::of(&trust.policy, &trust.references);
    match &then.policy {
        Some((version, policy)) if *policy != found => {
            foreign.push(format!("policy or known good boots differ from version {version} of the roster"));
        }
        None if several && found != Policy::of(&init::first_policy(), &[]) => {
            foreign.push("policy or known good boots stand in no version of the roster".to_owned());
        }
        _ => {}
    }
    if several {
        if trust.roots != [*roster.founding().content.root] {
            foreign.push("it believes another fleet root, too".to_owned());
        }
        let strangers = trust.cosigners.iter().filter(|card| !is_approved(roster, card));
        foreign.extend(strangers.map(|card| format!("nobody has approved the cosigner {}", card.origin())));
    }
    Ok(foreign)
}

/// Puts the roster's terms in the place of the trust file's; what is said of it.
fn take_terms(roster: &Roster, trust: &mut TrustFile) -> Result<String, Failure> {
    let several = terms::needed(roster, Kind::Anchors)? > 1;
    let mut told = String::new();
    match &roster.terms().anchors {
        Some((version, anchors)) => {
            trust.authorities = anchors.authorities()?;
            told += &format!("Whose time is believed: as version {version} of the roster has it.\n");
        }
        None if several => trust.authorities = None,
        None => told += "Whose time is believed: as it was; the roster says nothing of it.\n",
    }
    match &roster.terms().policy {
        Some((version, policy)) => {
            (trust.policy, trust.references) = (policy.policy(), policy.references());
            told += &format!("Policy and known good boots: as version {version} of the roster has them.\n");
        }
        None if several => (trust.policy, trust.references) = (init::first_policy(), Vec::new()),
        None => told += "Policy and known good boots: as they were; the roster says nothing of them.\n",
    }
    if several {
        trust.roots = vec![*roster.founding().content.root];
        trust.cosigners.retain(|card| is_approved(roster, card));
    }
    Ok(told)
}

/// The roster as it was at version `number`.
fn at(roster: &Roster, number: u64) -> Result<Roster, Failure> {
    let mut then = Roster::found(roster.founding().clone())?;
    for (done, _) in roster.history().iter().zip(0..number) {
        then.replay(done.change.clone())?;
    }
    Ok(then)
}

fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let roster = read_roster(&args.roster)?;
    let named = args.trust.display();
    let trust = TrustFile::decode(&files::read(&args.trust, TRUST_BYTES_MAX)?)
        .map_err(|error| Failure::new(Exit::Refused, format!("{named} is refused: {error}")))?;
    roster.check_root(&trust)?;
    let mut foreign = not_approved(&roster, &trust)?;
    let version = trust.roster.as_ref().map_or(0, |from| from.version);
    if let Some(from) = &trust.roster {
        roster.check_seen(&Version { number: from.version, hash: Octets32::new(from.hash) })?;
        let then = at(&roster, from.version)?;
        // Who signed them is verified where the file is read; whether they are all, and the roster's, is not.
        let said: Vec<_> = from.revocations.iter().map(|said| said.content.clone()).collect();
        if said != revoked(&then) {
            foreign.push(format!("its revocations are not those of version {version} of the roster"));
        }
        let said: Vec<_> = from.successions.iter().map(|said| said.content.clone()).collect();
        if said != succeeded(&then) {
            foreign.push(format!("its successions are not those of version {version} of the roster"));
        }
    }
    if !foreign.is_empty() {
        let why = format!("{named} says what nobody has approved: {}", foreign.join("; "));
        return Err(Failure::new(Exit::Refused, why));
    }
    let newest = roster.version().number;
    let behind = match newest - version {
        0 => "the newest version there is".to_owned(),
        count => format!("{count} change(s) behind this roster"),
    };
    crate::say(&format!(
        "{named} says what the people of {} had approved at version {version}, {behind}.\n",
        roster.fleet()
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

/// What is stated of every log that takes the place of a lost one, in ascending order of the lost.
fn succeeded(roster: &Roster) -> Vec<SuccessionContent> {
    let stated = |(predecessor, step): (&str, Followed<'_>)| {
        let (roster_hash, issued_at) = version(roster, step.version)?;
        Some(SuccessionContent {
            version: 1,
            fleet: roster.fleet().to_owned(),
            predecessor: predecessor.to_owned(),
            successor: step.successor.to_owned(),
            head: TreeState { size: step.held.tree.size, root: step.held.tree.root },
            holders: step.held.holders.clone(),
            roster: step.version,
            roster_hash,
            issued_at,
        })
    };
    roster.successions().into_iter().filter_map(stated).collect()
}

/// The same, signed by the fleet CA.
fn successions(roster: &Roster, fleet_ca: &SigningKey) -> Vec<Succession> {
    let sign = |content: SuccessionContent| {
        let signature = fleet_ca.sign(&content.message()).to_bytes().to_vec().into();
        let chain = vec![roster.founding().content.fleet_ca.clone()];
        Succession { content, chain, signature }
    };
    succeeded(roster).into_iter().map(sign).collect()
}

/// What is stated of every log that was given up, in ascending order of the origins.
fn revoked(roster: &Roster) -> Vec<RevocationContent> {
    let mut revoked = Vec::new();
    for listed in roster.inventory().boxes() {
        for log in &listed.logs {
            let Some((stone, good)) = listed.revocation_of(&log.origin) else { continue };
            let Some((version_hash, issued_at)) = version(roster, stone.version) else { continue };
            revoked.push(RevocationContent {
                version: 1,
                fleet: roster.fleet().to_owned(),
                origin: log.origin.clone(),
                cause: stone.revocation.cause,
                good: TreeState { size: good.size, root: good.root },
                invalid_from: stone.revocation.invalid_from,
                roster: stone.version,
                roster_hash: version_hash,
                issued_at,
            });
        }
    }
    revoked.sort_by(|a, b| a.origin.cmp(&b.origin));
    revoked
}

/// The same, signed by the fleet CA.
fn revocations(roster: &Roster, fleet_ca: &SigningKey) -> Vec<Revocation> {
    let sign = |content: RevocationContent| {
        let signature = fleet_ca.sign(&content.message()).to_bytes().to_vec().into();
        Revocation { content, chain: vec![roster.founding().content.fleet_ca.clone()], signature }
    };
    revoked(roster).into_iter().map(sign).collect()
}
