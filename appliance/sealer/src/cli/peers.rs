//! `bulla-box peers`: this box's card, and the cards of its neighbours.
//!
//! Refuses to do: trust a card whose fingerprint nobody has compared. A running box takes note of every change at once.

use crate::config::{Config, PeersConfig};
use crate::identity;
use crate::peers::{self, NeighbourStore, Rules};
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::peer::card::{CARD_BYTES_MAX, PeerCard};
use clap::Subcommand;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What to do with cards.
#[derive(Subcommand)]
pub enum PeersCommand {
    /// Writes this box's card to a file, for the operators of its neighbours, and prints its fingerprint.
    Card {
        /// Where to.
        #[arg(long)]
        out: PathBuf,
        /// A neighbour's instead, as it was handed in: for the box that takes the place of a lost one.
        #[arg(long, value_name = "ORIGIN")]
        of: Option<String>,
    },
    /// Takes a neighbour's card: from then on the boxes mirror and witness each other's logs. Without --fingerprint and
    /// --yes it only shows what is on the card.
    Add {
        /// The card's file.
        card: PathBuf,
        /// The fingerprint, as the neighbour's operator reads it from their box.
        #[arg(long, conflicts_with = "yes")]
        fingerprint: Option<String>,
        /// Takes it without comparing.
        #[arg(long)]
        yes: bool,
    },
    /// Lists the neighbours: where trust in each comes from, what is exchanged with it, and who is kept out and why.
    List,
    /// Accepts whatever boot a neighbour's TPM shows next, after somebody has found out why it has changed.
    AcceptBoot {
        /// The name of its log.
        origin: String,
    },
    /// Forgets a neighbour. What is mirrored of its log stays on the disk.
    Remove {
        /// The name of its log.
        origin: String,
    },
}

/// Carries it out.
pub fn execute(command: PeersCommand, config: &Config, out: &mut impl std::io::Write) -> Result<()> {
    let settings = config.peers.as_ref();
    let settings =
        settings.context("this box has no neighbours: add a [peers] section to its configuration")?;
    let store = NeighbourStore::new(&config.state_dir);
    match command {
        PeersCommand::Card { out: path, of } => {
            let card = match of {
                None => peers::current_card(config, settings)?,
                Some(origin) => {
                    let found = store.list()?.into_iter().find(|card| card.origin().as_str() == origin);
                    found.with_context(|| {
                        format!("no neighbour has the log {origin}; see `bulla-box peers list`")
                    })?
                }
            };
            std::fs::write(&path, card.bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            writeln!(out, "fingerprint {}", card.fingerprint())?;
        }
        PeersCommand::Add { card: path, fingerprint, yes } => {
            let card = read(&path)?;
            show(&card, out)?;
            match fingerprint {
                Some(given) => ensure!(
                    plain(&given) == plain(&card.fingerprint()),
                    "the fingerprint is another one: this is not the card of that box; fetch it again"
                ),
                None if yes => {}
                None => bail!(
                    "compare the fingerprint with what `bulla-box peers card` prints on that box, and repeat with \
                     --fingerprint"
                ),
            }
            add(&store, &card, config, settings)?;
            writeln!(out, "{} is a neighbour of this box", card.origin())?;
        }
        PeersCommand::List => {
            list(&store, config, settings, out)?;
        }
        PeersCommand::AcceptBoot { origin } => {
            store.accept_boot(&origin)?;
            writeln!(out, "the boot that {origin} shows next is the one that later ones are held against")?;
        }
        PeersCommand::Remove { origin } => {
            store.remove(&origin)?;
            writeln!(out, "{origin} is no neighbour any more; the copy of its log stays")?;
        }
    }
    Ok(())
}

fn list(
    store: &NeighbourStore,
    config: &Config,
    settings: &PeersConfig,
    out: &mut impl std::io::Write,
) -> Result<()> {
    let (_, origin) = identity::enrolment(config)?;
    let Some(own) = peers::stored_card(&config.state_dir, &origin)? else {
        // It has not been started with [peers] yet.
        return store.list()?.iter().try_for_each(|card| Ok(show(card, out)?));
    };
    let peers::OnDisk { rosters, allowed: all } = peers::allowed_on_disk(&config.state_dir, &own, settings)?;
    for (fleet, held) in &rosters {
        writeln!(out, "roster of {fleet}: version {}", held.roster.version().number)?;
    }
    for neighbour in all.neighbours.values() {
        show(&neighbour.card, out)?;
        let (source, level) = (neighbour.source, neighbour.level.name());
        let trust = match source {
            peers::Source::Roster => "the fleet's roster",
            peers::Source::ByHand => "by hand",
        };
        writeln!(out, "  trust {trust}")?;
        writeln!(out, "  exchanged {level}")?;
    }
    for (origin, why) in &all.kept_out {
        writeln!(out, "{origin}\n  kept out: {why}")?;
    }
    Ok(())
}

fn add(store: &NeighbourStore, card: &PeerCard, config: &Config, settings: &PeersConfig) -> Result<()> {
    let (enrolment, origin) = identity::enrolment(config)?;
    let own = peers::stored_card(&config.state_dir, &origin)?;
    let rules = Rules {
        own: (&origin, &enrolment.content.log_key),
        card: own.as_ref(),
        config: settings,
        most: settings.neighbours_max,
    };
    store.add(card, &rules)?;
    Ok(())
}

/// Reads a card.
pub(super) fn read(path: &Path) -> Result<PeerCard> {
    let what = || format!("the card {} cannot be read", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(what)?;
    file.take(CARD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).with_context(what)?;
    let card = PeerCard::decode(&bytes).map_err(peers::refused)?;
    Ok(card)
}

fn show(card: &PeerCard, out: &mut impl std::io::Write) -> std::io::Result<()> {
    writeln!(out, "{}", card.origin())?;
    writeln!(out, "  fingerprint {}", card.fingerprint())?;
    for address in &card.content().addresses {
        writeln!(out, "  address {address}")?;
    }
    Ok(())
}

/// Spelling apart, what a fingerprint says.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
