//! `bulla-fleet propose`, `revoke`, `pardon`: lay out an action for others to approve.
//!
//! Refuses to do: propose what could not be carried out if everybody approved it now.
//! Invariant: proposing changes nothing; it needs no key and no secret.

use crate::cards::{self, Cards};
use crate::desk::{Desk, short};
use crate::exit::{Exit, Failure};
use crate::{configuration, files, random, terms};
use bulla_approvals::action::{Action, Target};
use bulla_approvals::at_box::{ASK_BYTES_MAX, Ask};
use bulla_ceremony::wire::Card;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{ENROLMENT_BYTES_MAX, EnrolmentContent};
use bulla_formats::hash::empty_root;
use bulla_formats::note::{Checkpoint, SignedNote};
use bulla_formats::origin::Origin;
use bulla_formats::report::utc_millis;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_roster::deed::{Cause, Deed, GoodTree, Named, Revocation};
use bulla_roster::inventory::Listed;
use bulla_roster::roster::Roster;
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// What every proposal says.
#[derive(Debug, Args)]
pub struct Proposal {
    /// The fleet directory, or an exchange directory
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: PathBuf,
    /// The exchange directory; by default `exchange` in the fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    exchange: Option<PathBuf>,
    /// Why; it is signed and stays in the roster
    #[arg(long)]
    reason: String,
    /// Days until it cannot be carried out any more
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=30))]
    days: u64,
    /// The custodians decide in place of the operators; it stays in the roster that they did
    #[arg(long = "override")]
    overriding: bool,
}

/// Subcommands of `bulla-fleet propose`.
#[derive(Debug, Subcommand)]
pub enum ProposeCommand {
    /// Boxes become members of the fleet
    Enrol(EnrolArgs),
    /// A box is held back: nothing of it is enrolled; one approval is enough
    Quarantine(BoxArgs),
    /// A box is held back no longer
    Release(BoxArgs),
    /// Other people decide
    Operators(OperatorsArgs),
    /// Members are known by these cards: keys for their neighbours, and addresses
    Cards(CardsArgs),
    /// Whose time is believed: roots of time-stamp authorities, keys of witnesses
    Anchors(terms::AnchorsArgs),
    /// What a seal must meet
    Policy(terms::PolicyArgs),
    /// A boot is known to be good, or is no more
    Reference(terms::ReferenceArgs),
    /// A hub of the fleet: whom boxes let in, and whose leases they take
    Hub(terms::HubArgs),
    /// Boxes go by these configuration files
    Configuration(configuration::ConfigurationArgs),
    /// A box does what it has asked for (`bulla-box approval ask`), and its own log records it
    Box(AtBoxArgs),
}

/// Arguments of `enrol`.
#[derive(Debug, Args)]
pub struct EnrolArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// DER of an EnrolmentContent each, as the registrar prepared it
    #[arg(required = true, value_name = "FILE")]
    contents: Vec<PathBuf>,
}

/// Arguments that name one box.
#[derive(Debug, Args)]
pub struct BoxArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Serial number, or the first 8 digits or more of the endorsement key's hash
    #[arg(value_name = "BOX")]
    which: String,
}

/// Arguments of `operators`.
#[derive(Debug, Args)]
pub struct OperatorsArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Card of a new operator, or another key of one who is known by the same name
    #[arg(long, value_name = "CARD")]
    add: Vec<PathBuf>,
    /// Name of an operator who leaves, with all keys
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Operators that must approve a dangerous action; by default as many as before
    #[arg(long, value_name = "NUMBER")]
    needed: Option<u64>,
}

/// Arguments of `cards`.
#[derive(Debug, Args)]
pub struct CardsArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Cards, as `bulla-box peers card` writes them; by default those that boxes have handed to the registrar and that
    /// have other keys than the roster's
    #[arg(value_name = "CARD")]
    cards: Vec<PathBuf>,
}

/// Arguments of `box`.
#[derive(Debug, Args)]
pub struct AtBoxArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// What the box asks for, as `bulla-box approval ask` wrote it
    #[arg(value_name = "FILE")]
    asked: PathBuf,
}

/// Why a box leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CauseName {
    /// Somebody else may have used its keys: only what stands under the last good tree stays valid by itself
    Compromise,
    /// It has served its time: everything it sealed stays valid
    Retirement,
    /// It is broken, and another box takes its place: everything it sealed stays valid
    Replaced,
}

/// Arguments of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Serial number, or the first 8 digits or more of the endorsement key's hash
    #[arg(value_name = "BOX")]
    which: String,
    /// Why it leaves
    #[arg(long, value_enum)]
    cause: CauseName,
    /// Last checkpoint of a log of the box that is known to be good, once for each log: the file of /checkpoint as the
    /// hub, a neighbour or a backup has it
    #[arg(long, value_name = "FILE")]
    good: Vec<PathBuf>,
    /// Nothing is good in the logs for which --good gives no checkpoint
    #[arg(long)]
    nothing_good: bool,
    /// From when on its keys may have been in other hands, or its service ended, e.g. 2026-11-21T08:30:00Z; by default
    /// now
    #[arg(long, value_name = "TIME", value_parser = utc_millis)]
    from: Option<u64>,
    /// The box that takes its place
    #[arg(long, value_name = "BOX")]
    successor: Option<String>,
}

/// Lays out an action.
pub fn run(command: &ProposeCommand) -> Result<Exit, Failure> {
    match command {
        ProposeCommand::Enrol(args) => enrol(args),
        ProposeCommand::Quarantine(args) => about(args, Deed::Quarantine),
        ProposeCommand::Release(args) => about(args, Deed::Release),
        ProposeCommand::Operators(args) => operators(args),
        ProposeCommand::Cards(args) => propose_cards(args),
        ProposeCommand::Anchors(args) => terms::anchors(args),
        ProposeCommand::Policy(args) => terms::policy(args),
        ProposeCommand::Reference(args) => terms::reference(args),
        ProposeCommand::Hub(args) => terms::hub(args),
        ProposeCommand::Configuration(args) => configuration::propose(args),
        ProposeCommand::Box(args) => at_box(args),
    }
}

/// `bulla-fleet pardon`.
pub fn pardon(args: &BoxArgs) -> Result<Exit, Failure> {
    about(args, Deed::Pardon)
}

impl Proposal {
    /// Where it is laid out, and the roster it acts on.
    pub fn open(&self) -> Result<(Desk, Roster), Failure> {
        let desk = Desk::of(&self.dir, self.exchange.as_deref())?;
        let roster = desk.roster_of(&self.dir)?;
        Ok((desk, roster))
    }

    /// Lays out `deed` for approval.
    pub fn lay(&self, desk: &Desk, roster: &Roster, deed: &Deed) -> Result<Exit, Failure> {
        self.lay_for(desk, roster, deed, None)
    }

    /// The same for what the box that named `target` carries out.
    fn lay_for(
        &self,
        desk: &Desk,
        roster: &Roster,
        deed: &Deed,
        target: Option<Target>,
    ) -> Result<Exit, Failure> {
        deed.check()?;
        let now = crate::now_millis()?;
        let action = Action {
            version: 1,
            fleet: roster.fleet().to_owned(),
            roster: roster.version().clone(),
            target,
            kind: deed.kind(),
            parameters: deed.encode().into(),
            reason: self.reason.trim().to_owned(),
            overriding: self.overriding,
            nonce: Octets32::new(*random()?),
            proposed_at: now,
            not_after: now + self.days * 24 * 3_600_000,
        };
        roster.would(&action, now)?;
        // Whoever approves reads the roster there.
        desk.lay_roster(&roster.encode())?;
        desk.lay_action(&action)?;
        crate::say(&roster.describe(&action, deed));
        let (bench, needed) = roster
            .electorate()
            .quorum(action.kind, action.overriding)
            .map_err(bulla_roster::RosterRefusal::from)?;
        let people: Vec<&str> = bench.people.iter().map(|person| person.name.as_str()).collect();
        crate::say(&format!(
            "Proposed as {}. Now {needed} of {} approve it: bulla-fleet approve\n",
            short(&action),
            people.join(", ")
        ));
        if people.len() == 1 {
            crate::say(
                "WARNING: ONE PERSON DECIDES ALONE in this fleet. Fit for a laptop or a trial, not for a bank.\n",
            );
        }
        Ok(Exit::Ok)
    }
}

/// The one box that `text` means.
pub fn one_box<'a>(roster: &'a Roster, text: &str) -> Result<&'a Listed, Failure> {
    let mut found = roster.inventory().find(text);
    // A serial number may have been another board's before: whoever is still there is meant.
    if found.len() > 1 {
        let there = |listed: &&Listed| listed.tombstones.last().is_none_or(|stone| stone.pardoned.is_some());
        let still: Vec<&Listed> = found.iter().copied().filter(there).collect();
        if still.len() == 1 {
            found = still;
        }
    }
    match found[..] {
        [listed] => Ok(listed),
        [] => Err(Failure::usage(format!(
            "no box is called {text:?}; `bulla-fleet inventory list` shows serial numbers and endorsement keys"
        ))),
        _ => Err(Failure::usage(format!(
            "{} boxes are called {text:?}; name one by its endorsement key",
            found.len()
        ))),
    }
}

fn about(args: &BoxArgs, deed: fn(Named) -> Deed) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let ek_spki_sha256 = one_box(&roster, &args.which)?.row.ek_spki_sha256;
    args.proposal.lay(&desk, &roster, &deed(Named { ek_spki_sha256 }))
}

fn enrol(args: &EnrolArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let mut contents = Vec::new();
    for path in &args.contents {
        let bytes = files::read(path, ENROLMENT_BYTES_MAX)?;
        let content: EnrolmentContent = der::decode("enrolment content", &bytes, ENROLMENT_BYTES_MAX)
            .map_err(|error| {
                Failure::new(Exit::Refused, format!("{} is refused: {error}", path.display()))
            })?;
        contents.push(content);
    }
    args.proposal.lay(&desk, &roster, &Deed::Enrol(contents))
}

fn operators(args: &OperatorsArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let (before, needed) = roster.operator_cards();
    let mut cards = before.to_vec();
    for name in &args.remove {
        let all = cards.len();
        cards.retain(|card| card.content.name.to_lowercase() != name.to_lowercase());
        if cards.len() == all {
            return Err(Failure::usage(format!("there is no operator {name:?}")));
        }
    }
    for path in &args.add {
        let bytes = files::read(path, 4 << 10)?;
        let card = Card::decode(&bytes).map_err(|error| {
            Failure::new(Exit::Refused, format!("{} is refused: {error}", path.display()))
        })?;
        cards.push(card);
    }
    let needed = args.needed.unwrap_or(if cards.is_empty() { 0 } else { needed });
    args.proposal.lay(&desk, &roster, &Deed::Operators { cards, needed })
}

fn propose_cards(args: &CardsArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let cards = match args.cards.is_empty() {
        true => Cards::open(&args.proposal.dir).waiting(&roster)?,
        false => args.cards.iter().map(|path| cards::read(path)).collect::<Result<_, _>>()?,
    };
    if cards.is_empty() {
        return Err(Failure::usage(
            "no box has handed in a card with other keys than the roster's; name a file",
        ));
    }
    args.proposal.lay(&desk, &roster, &Deed::Cards(cards))
}

fn at_box(args: &AtBoxArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let bytes = files::read(&args.asked, ASK_BYTES_MAX)?;
    let refused = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{} is refused: {why}", args.asked.display()))
    };
    let ask = Ask::decode(&bytes).map_err(|refusal| refused(&refusal))?;
    let action = ask.action().map_err(|refusal| refused(&refusal))?;
    args.proposal.lay_for(&desk, &roster, &Deed::AtBox(action), Some(ask.target))
}

/// `bulla-fleet revoke`.
pub fn revoke(args: &RevokeArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let listed = one_box(&roster, &args.which)?;
    let successor = args.successor.as_deref().map(|text| one_box(&roster, text)).transpose()?;
    let cause = match args.cause {
        CauseName::Compromise => Cause::Compromise,
        CauseName::Retirement => Cause::Retirement,
        CauseName::Replaced => Cause::Replaced,
    };
    if (cause == Cause::Replaced) != successor.is_some() {
        return Err(Failure::usage("give --successor exactly when the cause is `replaced`"));
    }
    let trees = args.good.iter().map(|path| good_tree(listed, path)).collect::<Result<Vec<_>, _>>()?;
    let mut logs = Vec::new();
    for log in listed.revocable(cause) {
        let mut of_log = trees.iter().filter(|tree| tree.origin == log.origin);
        let tree = match (of_log.next(), of_log.next()) {
            (Some(tree), None) => tree.clone(),
            (Some(_), Some(_)) => {
                return Err(Failure::usage(format!("--good gives two checkpoints of {}", log.origin)));
            }
            (None, _) if cause != Cause::Compromise || args.nothing_good => {
                let root = Octets32::new(empty_root().0);
                GoodTree { origin: log.origin.clone(), size: 0, root }
            }
            (None, _) => {
                return Err(Failure::usage(format!(
                    "give the last good checkpoint of {} with --good, or say --nothing-good",
                    log.origin
                )));
            }
        };
        logs.push(tree);
    }
    let revocation = Revocation {
        ek_spki_sha256: listed.row.ek_spki_sha256,
        cause,
        invalid_from: args.from.map_or_else(crate::now_millis, Ok)?,
        logs,
        successor: successor.map(|successor| successor.row.ek_spki_sha256),
    };
    args.proposal.lay(&desk, &roster, &Deed::Revoke(revocation))
}

/// The tree of a checkpoint that one of the box's logs signed.
fn good_tree(listed: &Listed, path: &Path) -> Result<GoodTree, Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{} is refused: {why}", path.display()))
    };
    let bytes = files::read(path, 64 << 10)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| refused(&error))?;
    let note = SignedNote::parse(text).map_err(|error| refused(&error))?;
    let first = note.text.lines().next().unwrap_or_default();
    let Some(log) = listed.revocable(Cause::Compromise).find(|log| log.origin == first) else {
        return Err(refused(&"it is of no log of this box that is not given up already"));
    };
    let origin = Origin::parse(&log.origin).map_err(|error| refused(&error))?;
    let key = PublicKey::from_bytes(Algorithm::Ed25519, &*log.log_key).map_err(|error| refused(&error))?;
    let checkpoint = Checkpoint::open(&note, &origin, &key, &log.log_key, &log.attestation_key)
        .map_err(|error| refused(&error))?;
    let root = Octets32::new(checkpoint.root().0);
    Ok(GoodTree { origin: log.origin.clone(), size: checkpoint.size(), root })
}
