//! `bulla-box restore --from-archive`: a lost log comes back out of the directory that `bulla-hub restore` wrote.
//!
//! Refuses to do: work beside a running box; pass over neighbours, who may hold more than the hub had pulled; touch a disk
//! that has everything the archive has; take a foreign log that no trust file vouches for.

use super::from_peers::{self, FromPeersArgs, begin, mirrors, on_disk};
use crate::config::Config;
use crate::identity::Identity;
use crate::peers::{self, Own};
use crate::retrieve::{ArchivedCopy, follow};
use anyhow::{Context as _, Result, ensure};
use bulla_formats::trust::TrustFile;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What belongs to `--from-archive`.
#[derive(Debug, Args)]
pub struct FromArchiveArgs {
    /// Takes a lost log out of the directory that `bulla-hub restore` wrote, and begins the log that follows it. Neighbours
    /// are asked first (--from-peers), or given up with --without. The box needs its identity.json and keys/ (from the disk,
    /// or from a backup restored before), or is a new one and names a trust file with --trust.
    #[arg(long, value_name = "DIR", requires = "reason", conflicts_with = "from_peers")]
    pub(super) from_archive: Option<PathBuf>,
    /// Trust file of the lost box's fleet, when it is another box's log that this one stands in for.
    #[arg(long, value_name = "FILE", requires = "from_archive")]
    trust: Option<PathBuf>,
}

/// Carries it out.
pub fn execute(
    directory: &Path,
    args: &FromArchiveArgs,
    shared: &FromPeersArgs,
    config: &Config,
    out: &mut impl Write,
) -> Result<()> {
    let reason = shared.reason()?;
    let settings = config.peers.as_ref().context(
        "the copy is kept where copies of neighbours' logs are: add a [peers] section to the configuration",
    )?;
    let own = from_peers::open(config)?;
    // Before the directory of copies is there, so that keys whose word is forgotten are not used again.
    let line = Own::open(&config.state_dir, settings, &own)?;
    let copy = open(directory, args.trust.as_deref(), &own)?;
    let known = peers::allowed_on_disk(&config.state_dir, &line.card, settings)?;
    let cards = shared.cards(known, copy.origin())?;
    let left: Vec<&str> = cards.iter().map(|card| card.origin().as_str()).collect();
    ensure!(
        left.is_empty(),
        "{} may hold more than the archive: use --from-peers, or give up each of them with --without ORIGIN",
        left.join(", ")
    );
    if *copy.origin() == own.origin
        && let Some(ledger) = on_disk(config, &own)
    {
        copy.compare(&ledger.reader())?;
        ensure!(
            ledger.size() < copy.entries(),
            "this disk has {} entries and the archive {}: nothing is to be taken from it; start the box, and if it then \
             suspects a rollback all the same, `bulla-box succeed`",
            ledger.size(),
            copy.entries()
        );
    }
    let mirrors = mirrors(config)?;
    let retrieved = copy.store(&mirrors)?;
    // The next one who takes the mirrors up is the box.
    drop(mirrors);
    let (size, root) = (retrieved.head.size, retrieved.head.root());
    writeln!(out, "taken from the archive: {} with {size} entries, root {root}", copy.origin())?;
    writeln!(
        out,
        "  entries that the box made after the hub pulled last are lost; their receipts and .seal files still verify"
    )?;
    begin(follow(config, own, copy.origin(), &retrieved, reason)?, out)
}

fn open(directory: &Path, trust: Option<&Path>, own: &Identity) -> Result<ArchivedCopy> {
    let copy = match trust {
        None => ArchivedCopy::open(directory, own.origin.fleet(), &[own.fleet_root])?,
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let trust = TrustFile::decode(&bytes).with_context(|| format!("{}", path.display()))?;
            ArchivedCopy::open(directory, &trust.fleet, &trust.roots)?
        }
    };
    ensure!(
        trust.is_some() || *copy.origin() == own.origin,
        "{} is the log of another box, {}: name the trust file of its fleet with --trust when this box stands in for it",
        directory.display(),
        copy.origin()
    );
    Ok(copy)
}
