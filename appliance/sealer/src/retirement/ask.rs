//! What a box asks people to approve: its log as it is, and a nonce that it takes back by use.
//!
//! Refuses to do: ask for two things at once; a new question takes the place of the one before, whose approvals are worth
//! nothing from then on.
//! Invariant: the question is on the disk before anybody sees it. It is in no backup, so what was asked before a restore
//! is not carried out after it.

use super::{ASKED, remove};
use crate::config::Config;
use crate::identity::{self, write_atomically};
use crate::random;
use anyhow::{Context as _, Result, ensure};
use bulla_formats::der::Octets32;
use bulla_ledger::{DirStore, Ledger};
use bulla_roster::approvals::action::Target;
use bulla_roster::approvals::at_box::{Ask, BoxAction};
use std::sync::Arc;

/// Asks; the question.
///
/// # Errors
/// The box runs, or its log does not open or has ended.
pub fn ask(config: &Config, action: &BoxAction) -> Result<Ask> {
    ensure!(
        !identity::of_one(config)?,
        "this box is a fleet of one: nobody but its owner decides; `bulla-box retire --yes-retire ORIGIN`"
    );
    let ledger = open(config)?;
    let nonce = random::bytes::<32>()?;
    let target = Target {
        origin: ledger.reader().origin().to_owned(),
        size: ledger.size(),
        root: Octets32::new(ledger.root().0),
        nonce: Octets32::new(nonce),
    };
    let ask = Ask { version: 1, target, parameters: action.encode().into() };
    write_atomically(&config.state_dir.join(ASKED), &ask.encode())?;
    Ok(ask)
}

/// Takes the question back.
pub fn withdraw(config: &Config) -> Result<()> {
    remove(&config.state_dir.join(ASKED))
}

/// The log of the stopped box.
pub(super) fn open(config: &Config) -> Result<Ledger> {
    let (origin, directory) = identity::current_log(config)?;
    let store = DirStore::open(&directory)
        .with_context(|| format!("cannot open {}; stop the box first", directory.display()))?;
    let (ledger, _) = Ledger::open(Arc::new(store), origin.as_str(), identity::options(config))
        .context("the log does not open; `bulla-box fsck` says what is damaged")?;
    Ok(ledger)
}
