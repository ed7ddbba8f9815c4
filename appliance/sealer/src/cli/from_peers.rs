//! `bulla-box restore --from-peers`.
//!
//! Refuses to do: work beside a running box; touch a disk that has everything the neighbours have; trust a foreign log's card
//! whose fingerprint nobody has compared.

use super::peers::{plain, read};
use crate::config::Config;
use crate::driver::neighbours::{MIRRORS, mirror_options};
use crate::identity::{self, Identity};
use crate::peers::{self, OnDisk, Own};
use crate::retrieve::{Asking, Followed, HeldBy, Retrieved, copy, follow, survey};
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::witness::Role;
use bulla_ledger::{DirShelf, DirStore, Ledger, Mirrors};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What belongs to `--from-peers`.
#[derive(Debug, Args)]
pub struct FromPeersArgs {
    /// Fetches a lost log from the neighbours that mirror it, and begins the log that follows it. The box needs its
    /// identity.json and keys/ (from the disk, or from a backup restored before), or is a new one and names the log with
    /// --log, or its box with --lost.
    #[arg(long, requires = "reason")]
    from_peers: bool,
    /// Why; it is in the log for ever.
    #[arg(long, conflicts_with = "from")]
    pub(super) reason: Option<String>,
    /// Card of the lost box, for which this one stands in (`bulla-box peers card --of ORIGIN` at a neighbour).
    #[arg(long, value_name = "CARD", requires = "from_peers", requires = "fingerprint")]
    log: Option<PathBuf>,
    /// The same, in a fleet: the lost box by its serial number, endorsement key or log, as the roster on this disk has it.
    #[arg(long, value_name = "BOX", requires = "from_peers", conflicts_with = "log")]
    lost: Option<String>,
    /// Fingerprint of that card, as the operators of the neighbours read it.
    #[arg(long, requires = "log")]
    fingerprint: Option<String>,
    /// Writes the newest head that they hold, with their cosignatures: `bulla-fleet replace` asks for it.
    #[arg(long, value_name = "FILE", requires = "from_peers")]
    head: Option<PathBuf>,
    /// A neighbour that is gone for good, by the name of its log; may be repeated. All others must answer.
    #[arg(long, value_name = "ORIGIN", conflicts_with = "from")]
    pub(super) without: Vec<String>,
    /// Longest wait for the neighbours, in seconds.
    #[arg(long, default_value_t = 30, requires = "from_peers")]
    wait_seconds: u64,
}

impl FromPeersArgs {
    /// Whether it was asked for.
    pub fn wanted(&self) -> bool {
        self.from_peers
    }

    /// Why a log is begun.
    pub(super) fn reason(&self) -> Result<&str> {
        let reason = self.reason.as_deref().unwrap_or_default().trim();
        ensure!(!reason.is_empty() && reason.len() <= 700, "--reason says why in 1 to 700 bytes");
        Ok(reason)
    }

    /// The cards of the neighbours that are not given up; `lost`, whose log it is, does not answer.
    pub(super) fn cards(&self, known: OnDisk, lost: &Origin) -> Result<Vec<PeerCard>> {
        let neighbours = known.allowed.neighbours.into_values().map(|neighbour| neighbour.card);
        let mut cards: Vec<PeerCard> = neighbours.filter(|card| card.origin() != lost).collect();
        for origin in &self.without {
            ensure!(
                cards.iter().any(|card| card.origin().as_str() == origin),
                "no neighbour has the log {origin}; see `bulla-box peers list`"
            );
        }
        cards.retain(|card| !self.without.iter().any(|origin| card.origin().as_str() == origin));
        Ok(cards)
    }
}

/// Carries it out.
pub fn execute(args: &FromPeersArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let reason = args.reason()?;
    let settings = config.peers.as_ref();
    let settings =
        settings.context("this box has no neighbours: add a [peers] section to its configuration")?;
    let own = open(config)?;
    let line = Own::open(&config.state_dir, settings, &own)?;
    let known = peers::allowed_on_disk(&config.state_dir, &line.card, settings)?;
    let of = match (&args.log, &args.lost) {
        (Some(path), _) => foreign(path, args.fingerprint.as_deref().unwrap_or_default(), &own)?,
        (None, Some(lost)) => of_roster(lost, &known, &own)?,
        (None, None) => line.card.clone(),
    };
    let mirrors = mirrors(config)?;
    let cards = args.cards(known, of.origin())?;
    ensure!(
        !cards.is_empty(),
        "this box has nobody's card: take the neighbours' with `bulla-box peers add`, and hand them this box's (`peers \
         card`); in a fleet, hand in the roster with `bulla-box roster take` while the box runs"
    );
    let mut asking = Asking::begin(settings, &line.transport, &cards)?;
    asking.wait_for(&cards, Duration::from_secs(args.wait_seconds));
    let fetched = fetch(&mut asking, &of, &cards, config, &own, &mirrors);
    asking.end();
    let retrieved = fetched?;
    // The next one who takes the mirrors up is the box.
    drop(mirrors);
    tell(&of, &retrieved, out)?;
    if let Some(path) = &args.head {
        std::fs::write(path, retrieved.note.encode())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    begin(follow(config, own, of.origin(), &retrieved, reason)?, out)
}

/// The keys of this box.
pub(super) fn open(config: &Config) -> Result<Identity> {
    identity::open(config).context(
        "without identity.json and keys/ nobody can show that this box was the lost one: bring them back from a backup \
         (`restore --from`), or make a new box and name the lost log (--log CARD of a neighbour, --trust FILE of an archive)",
    )
}

/// The copies that a stopped box has.
pub(super) fn mirrors(config: &Config) -> Result<Mirrors> {
    let directory = config.state_dir.join(MIRRORS);
    let shelf = DirShelf::open(&directory)
        .with_context(|| format!("cannot open {}; stop the box first", directory.display()))?;
    Ok(Mirrors::open(Arc::new(shelf), mirror_options(config.sealing.reserve_bytes))?)
}

/// Says what has begun.
pub(super) fn begin(followed: Followed, out: &mut impl Write) -> Result<()> {
    match followed {
        Followed::Log(created) => writeln!(
            out,
            "the new log is {}, and names the old one; hand its card to the neighbours (`bulla-box peers card`), then \
             bulla-box run",
            created.origin
        )?,
        Followed::Entry(index) => {
            writeln!(out, "entry {index} of this box's log names it; next: bulla-box run")?
        }
    }
    Ok(())
}

fn foreign(path: &std::path::Path, fingerprint: &str, own: &Identity) -> Result<PeerCard> {
    let card = read(path)?;
    ensure!(
        plain(fingerprint) == plain(&card.fingerprint()),
        "the fingerprint is another one: this is not the card of that box; fetch it again"
    );
    ensure!(card.origin() != &own.origin, "this is the card of this box itself; leave --log away");
    Ok(card)
}

/// The card of a box that the fleet's roster names: people have approved its keys.
fn of_roster(lost: &str, known: &OnDisk, own: &Identity) -> Result<PeerCard> {
    let held = known.rosters.get(own.origin.fleet()).with_context(|| {
        format!(
            "this box has no roster of {}: hand it in with `bulla-box roster take` while it runs",
            own.origin.fleet()
        )
    })?;
    let found = match held.listed(lost) {
        Some(listed) => vec![listed],
        None => held.roster.inventory().find(lost),
    };
    let [listed] = found[..] else {
        bail!(
            "the roster lists {} boxes as {lost:?}; name one by its endorsement key or its log",
            found.len()
        );
    };
    // Named by its log, it may be one before the last.
    let card = match Origin::parse(lost) {
        Ok(_) => held.roster.card_of(lost),
        Err(_) => listed.card.as_ref(),
    };
    let card = card.with_context(|| {
        format!(
            "the roster has no card of the log of {}: fetch it from a neighbour (`bulla-box peers card --of`) and \
             name it with --log",
            listed.row.serial
        )
    })?;
    ensure!(card.origin() != &own.origin, "this is this box itself; leave --lost away");
    Ok(card.clone())
}

fn fetch(
    asking: &mut Asking,
    of: &PeerCard,
    cards: &[PeerCard],
    config: &Config,
    own: &Identity,
    mirrors: &Mirrors,
) -> Result<Retrieved> {
    let survey = survey(asking, of, cards)?;
    if of.origin() == &own.origin
        && let Some(ledger) = on_disk(config, own)
    {
        survey.compare(&ledger.reader())?;
        if ledger.size() >= survey.entries() {
            bail!(
                "this disk has {} entries and the neighbours hold {}: nothing is to be fetched; start the box, and if \
                 it then suspects a rollback all the same, `bulla-box succeed`",
                ledger.size(),
                survey.entries()
            );
        }
    }
    copy(asking, &survey, mirrors)
}

/// The log of this box as its disk has it. What does not open is lost; that is what retrieving is for.
pub(super) fn on_disk(config: &Config, own: &Identity) -> Option<Ledger> {
    let log = identity::log_directory(&config.state_dir, &own.origin);
    let store = log.is_dir().then(|| DirStore::open(&log).ok()).flatten()?;
    Ledger::open(Arc::new(store), own.origin.as_str(), identity::options(config))
        .ok()
        .map(|(ledger, _)| ledger)
}

fn tell(of: &PeerCard, retrieved: &Retrieved, out: &mut impl Write) -> Result<()> {
    let (size, root) = (retrieved.head.size, retrieved.head.root());
    writeln!(out, "fetched {} with {size} entries, root {root}", of.origin())?;
    let holders = match &retrieved.held_by {
        HeldBy::Neighbours(holders) => holders.as_slice(),
        HeldBy::Archive => &[],
    };
    for (origin, roles) in holders {
        let roles: Vec<&str> = roles.iter().map(|role: &Role| role.name()).collect();
        let said = if roles.is_empty() {
            "knows an older head".to_owned()
        } else {
            format!("cosigned as {}", roles.join(" and "))
        };
        writeln!(out, "  held by {origin}: {said}")?;
    }
    if let Some(beyond) = retrieved.beyond {
        writeln!(out, "  a head of {beyond} entries was signed; nobody holds those after {size}")?;
    }
    writeln!(
        out,
        "  entries that the box made after that and no neighbour had taken are lost; their receipts and .seal files still \
         verify"
    )?;
    Ok(())
}
