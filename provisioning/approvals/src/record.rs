//! The record that consumes approvals: the versions of one roster, and the action that made each.
//!
//! Refuses to do: carry out what acts on another version than the last, whatever happened in between.
//! Invariants: an action makes at most one version of a record; the number goes up by one each time; what a record has
//! consumed is in its last version's hash, so two records with the same last version consumed the same.

use crate::action::{Action, Change, Target, Version};
use crate::electorate::Electorate;
use crate::refusal::{Refusal, Result};
use bulla_formats::hash::Hash;
use std::collections::BTreeMap;

/// What one roster has been through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    fleet: String,
    /// Version 0, 1, 2, ...
    versions: Vec<Version>,
    /// The number of the version that each action made.
    used: BTreeMap<Hash, u64>,
}

/// A change that enough people want, not carried out yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    change: Change,
    by: Vec<String>,
}

impl Approved {
    /// What is done.
    pub fn action(&self) -> &Action {
        &self.change.action
    }
    /// The whole change.
    pub fn change(&self) -> &Change {
        &self.change
    }
    /// Who approved it.
    pub fn by(&self) -> &[String] {
        &self.by
    }
}

impl Record {
    /// A record at its version 0, which is `founding`.
    pub fn founded(fleet: &str, founding: Version) -> Self {
        Record { fleet: fleet.to_owned(), versions: vec![founding], used: BTreeMap::new() }
    }

    /// Fleet domain.
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// The last version.
    pub fn version(&self) -> &Version {
        self.versions.last().expect("a record begins with one version and only gains more")
    }

    /// All versions, the founding first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Whether this record continues what was seen before.
    ///
    /// # Errors
    /// [`Refusal::RolledBack`] when it is older, [`Refusal::Forked`] when it is another one.
    pub fn check(&self, seen: &Version) -> Result<()> {
        let held = self.version().number;
        match self.at(seen.number) {
            None => Err(Refusal::RolledBack { held, seen: seen.number }),
            Some(version) if version != seen => Err(Refusal::Forked(seen.number)),
            Some(_) => Ok(()),
        }
    }

    fn at(&self, number: u64) -> Option<&Version> {
        self.versions.get(usize::try_from(number).ok()?)
    }

    /// Whether `action` acts on the last version, and on no box but `target`; `now` is absent when a record is read
    /// again.
    ///
    /// # Errors
    /// The code says whether it was used, is stale, or whether this record is the old one.
    pub fn is_open(&self, action: &Action, target: Option<&Target>, now: Option<u64>) -> Result<()> {
        if action.fleet != self.fleet {
            return Err(Refusal::OtherFleet(action.fleet.clone()));
        }
        if action.target.as_ref() != target {
            return Err(Refusal::OtherTarget);
        }
        if let Some(made) = self.used.get(&action.hash()) {
            return Err(Refusal::Used(*made));
        }
        let (held, asked) = (self.version().number, action.roster.number);
        match self.at(asked) {
            None => return Err(Refusal::RosterBehind { held, asked }),
            Some(version) if *version != action.roster => return Err(Refusal::Forked(asked)),
            Some(_) if asked < held => return Err(Refusal::Stale { held, asked }),
            Some(_) => {}
        }
        match now {
            Some(now) if now > action.not_after => Err(Refusal::Expired(action.not_after)),
            _ => Ok(()),
        }
    }

    /// Whether `change` is to be carried out: by enough of `electorate`, on this record's last version, before its end.
    ///
    /// # Errors
    /// The first condition of docs/formats.md section 15 that it breaks.
    pub fn judge(
        &self,
        change: &Change,
        electorate: &Electorate,
        target: Option<&Target>,
        now: Option<u64>,
    ) -> Result<Approved> {
        change.check()?;
        self.is_open(&change.action, target, now)?;
        let by = electorate.decide(&change.action, &change.approvals)?;
        Ok(Approved { change: change.clone(), by })
    }

    /// Consumes an approved change: from now on it is used, and everything else that was approved is stale.
    ///
    /// # Errors
    /// When the record has moved on since it was judged, or is another one.
    pub fn consume(&mut self, approved: &Approved) -> Result<&Version> {
        let action = approved.action();
        self.is_open(action, None, None)?;
        let next = Version::made_by(action.roster.number + 1, &approved.change.encode());
        self.used.insert(action.hash(), next.number);
        self.versions.push(next);
        Ok(self.version())
    }
}
