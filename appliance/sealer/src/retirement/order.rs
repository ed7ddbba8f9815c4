//! The decision that a box retires: judged by the roster it goes by, and kept in `retirement.json`.
//!
//! Refuses to do: take what is for another box, another state of it, or another question than the one it asked; decide for
//! a member of a fleet by anybody but its people.
//! Invariant: writing the file is what takes the nonce back, so an approval is taken once. Until the log has ended, another
//! decision may take the place of the one before: people may agree to more.

use super::{ASKED, ORDER, ask, remove};
use crate::config::Config;
use crate::identity::{self, write_atomically};
use crate::{peers, trust};
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::checked_json;
use bulla_formats::hash::Hash;
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::retirement::Extent;
use bulla_roster::RosterRefusal;
use bulla_roster::approvals::Refusal;
use bulla_roster::approvals::action::{CHANGE_BYTES_MAX, Change};
use bulla_roster::approvals::at_box::{Ask, BoxAction, Retire};
use bulla_roster::roster::{ROSTER_BYTES_MAX, Roster};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

const FORMAT: &str = "retirement/v1";

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Order {
    bulla: String,
    /// The log that ends.
    pub origin: String,
    everything: bool,
    /// It may be done though no authority has anchored the last seals.
    pub without_anchors: bool,
    /// It may be done though no neighbour holds them.
    pub without_copies: bool,
    /// Why.
    pub reason: String,
    /// DER of the change that people approved, in base64; absent when the owner of a fleet of one decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<String>,
}

/// Who decides.
pub enum Decided<'a> {
    /// People of the fleet: the change, and a roster where the box has none.
    Approved {
        /// As `bulla-fleet apply` handed it out.
        change: &'a Path,
        /// The newest roster.
        roster: Option<&'a Path>,
    },
    /// The owner of a fleet of one, who has typed its name.
    Owner {
        /// The log that ends.
        origin: &'a str,
        /// What is to be done.
        retire: Retire,
        /// Why.
        reason: &'a str,
    },
}

impl Order {
    /// What goes.
    pub fn extent(&self) -> Extent {
        if self.everything { Extent::Everything } else { Extent::KeepLog }
    }

    /// The change that people approved.
    ///
    /// # Errors
    /// It is damaged.
    pub fn change(&self) -> Result<Option<Change>> {
        let Some(text) = &self.change else { return Ok(None) };
        Ok(Some(Change::decode(&base64_decode(text)?)?))
    }

    /// Hash of the action.
    pub fn action(&self) -> Result<Option<Hash>> {
        Ok(self.change()?.map(|change| change.action.hash()))
    }
}

/// The decision on the disk.
pub fn pending(state: &Path) -> Result<Option<Order>> {
    let path = state.join(ORDER);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    parse(&bytes).map(Some).with_context(|| format!("{} is not believed", path.display()))
}

/// A decision in the bytes of its file.
pub fn parse(bytes: &[u8]) -> Result<Order> {
    let order: Order = serde_json::from_slice(&checked_json::body(bytes)?).context("it is damaged")?;
    ensure!(order.bulla == FORMAT, "it is of format {:?}; use a newer bulla-box", order.bulla);
    order.change()?;
    Ok(order)
}

/// The text of its file.
pub fn text(order: &Order) -> Result<String> {
    Ok(checked_json::with_checksum(&serde_json::to_string_pretty(order)?))
}

/// Takes a decision.
///
/// # Errors
/// It is not for this box, or not theirs to take; nothing has changed then.
pub fn decide(config: &Config, by: &Decided<'_>) -> Result<Order> {
    let state = &config.state_dir;
    let ledger = ask::open(config)?;
    if let Some(order) = pending(state)? {
        let same = match by {
            Decided::Approved { change, .. } => {
                order.change == Some(base64_encode(&read(change, CHANGE_BYTES_MAX)?))
            }
            Decided::Owner { .. } => false,
        };
        // The same command goes on; another decision counts only until the log has ended.
        if same || ledger.has_ended() {
            remove(&state.join(ASKED))?;
            return Ok(order);
        }
    }
    ensure!(!ledger.has_ended(), "the log of this box has ended already");
    let (retire, reason, change) = match by {
        Decided::Owner { origin, retire, reason } => {
            ensure!(
                identity::of_one(config)?,
                "this box is a member of a fleet, whose people decide: `bulla-box approval ask`, then --approved FILE"
            );
            ensure!(
                ledger.reader().origin() == *origin,
                "this box is {}, and --yes-retire names another one",
                ledger.reader().origin()
            );
            let reason = reason.trim();
            ensure!((1..=700).contains(&reason.len()), "--reason says why in 1 to 700 bytes");
            (retire.clone(), reason.to_owned(), None)
        }
        Decided::Approved { change, roster } => {
            ensure!(
                !identity::of_one(config)?,
                "this box is a fleet of one, and has no people who could approve: --yes-retire ORIGIN"
            );
            let change = Change::decode(&read(change, CHANGE_BYTES_MAX)?).map_err(refused)?;
            let roster = roster_of(config, *roster, &ledger)?;
            let asked = asked(state)?;
            // Another history of this log would be another box.
            let there = ledger.size() >= asked.target.size
                && *asked.target.root == ledger.reader().root_at(asked.target.size)?.0
                && asked.target.origin == ledger.reader().origin();
            let wanted = change.action.parameters == asked.parameters;
            if !there || (change.action.target.as_ref() == Some(&asked.target) && !wanted) {
                return Err(refused(Refusal::OtherTarget));
            }
            let now = crate::driver::clock::now_millis();
            let judged = roster.judge_at_box(&change, &asked.target, now).map_err(refused_by_roster)?;
            let (approved, BoxAction::Retire(retire)) = judged;
            log::info!("approved by {}", approved.by().join(", "));
            (retire, change.action.reason.clone(), Some(base64_encode(&change.encode())))
        }
    };
    let order = Order {
        bulla: FORMAT.to_owned(),
        origin: ledger.reader().origin().to_owned(),
        everything: retire.extent == Extent::Everything,
        without_anchors: retire.without_anchors,
        without_copies: retire.without_copies,
        reason,
        change,
    };
    write_atomically(&state.join(ORDER), text(&order)?.as_bytes())?;
    remove(&state.join(ASKED))?;
    Ok(order)
}

/// Gives a decision up; its approvals are used all the same.
///
/// # Errors
/// The log has ended, or nobody has decided.
pub fn cancel(config: &Config) -> Result<()> {
    let ledger = ask::open(config)?;
    ensure!(!ledger.has_ended(), "the log has its final entry, and there is no way back");
    ensure!(pending(&config.state_dir)?.is_some(), "nobody has decided that this box retires");
    remove(&config.state_dir.join(ORDER))
}

fn refused(refusal: Refusal) -> anyhow::Error {
    refused_by_roster(refusal.into())
}

fn refused_by_roster(refusal: RosterRefusal) -> anyhow::Error {
    anyhow::anyhow!("the approved action is refused ({}): {refusal}", refusal.code())
}

fn asked(state: &Path) -> Result<Ask> {
    match read(&state.join(ASKED), CHANGE_BYTES_MAX) {
        Ok(bytes) => Ask::decode(&bytes).map_err(refused),
        Err(_) => Err(refused(Refusal::OtherTarget)
            .context("this box waits for no approval; `bulla-box approval ask` asks for one")),
    }
}

fn roster_of(config: &Config, given: Option<&Path>, ledger: &bulla_ledger::Ledger) -> Result<Roster> {
    let (root, origin, hardware) = identity::fleet_root(config)?;
    let roster = match given {
        Some(path) => Roster::decode(&read(path, ROSTER_BYTES_MAX)?).map_err(refused_by_roster)?,
        None => match peers::roster_on_disk(&config.state_dir, origin.fleet()) {
            Ok(Some(held)) => held.roster,
            Ok(None) => bail!("this box has no roster of {}; name one with --roster", origin.fleet()),
            Err(why) => bail!("the roster on this disk is not believed ({why}); name one with --roster"),
        },
    };
    roster.check_root(&trust::of_fleet(origin.fleet(), root, hardware, None)).map_err(refused_by_roster)?;
    if let Some(seen) = peers::roster_seen(&ledger.control(), origin.fleet())? {
        roster.check_seen(&seen).map_err(refused_by_roster)?;
    }
    Ok(roster)
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    ensure!(bytes.len() <= limit, "{} is longer than {limit} bytes", path.display());
    Ok(bytes)
}
