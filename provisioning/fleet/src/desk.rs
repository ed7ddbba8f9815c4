//! The exchange directory after the ceremony: where actions lie until enough people have approved them, and where the
//! newest roster lies for all to see.
//!
//! Refuses to do: believe a name, or let a file that is no approval stand in the way of those that are.
//! Invariants: nothing in it is secret; a roster in it that is newer than the fleet's own shows that the fleet's came
//! back from a backup, and then nothing is proposed or carried out until it has caught up.

use crate::configuration::FILE_BYTES_MAX;
use crate::exit::{Exit, Failure};
use crate::files;
use bulla_approvals::action::{ACTION_BYTES_MAX, Action, Approval, CHANGE_BYTES_MAX};
use bulla_formats::hash::{Hash, sha256};
use bulla_roster::RosterRefusal;
use bulla_roster::roster::{ROSTER_BYTES_MAX, Roster};
use std::fs;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Name of the roster in the fleet directory and in the exchange directory.
pub const ROSTER: &str = "roster";
/// Where the fleet directory keeps what was handed out for boxes to carry out: DER of a change each, by its action's hash.
pub const HANDED_OUT: &str = "at-boxes";
/// Most actions, and most approvals, read.
const FILES_MAX: usize = 4096;

/// An exchange directory.
pub struct Desk {
    dir: PathBuf,
}

/// The roster in a file.
pub fn read_roster(path: &Path) -> Result<Roster, Failure> {
    let bytes = files::read(path, ROSTER_BYTES_MAX)?;
    decode_roster(path, &bytes)
}

fn decode_roster(path: &Path, bytes: &[u8]) -> Result<Roster, Failure> {
    Roster::decode(bytes).map_err(|refusal| {
        let why = format!("{} is refused ({}): {refusal}", path.display(), refusal.code());
        Failure::new(Exit::Refused, why)
    })
}

fn configuration_name(hash: &Hash) -> String {
    format!("configuration-{}.toml", &hash.to_string()[..16])
}

/// The first 16 digits of an action's hash: how people call it.
pub fn short(action: &Action) -> String {
    action.hash().to_string()[..16].to_owned()
}

impl Desk {
    /// The exchange directory that belongs to `dir`: the one given, else `exchange` in it, else `dir` itself.
    pub fn of(dir: &Path, given: Option<&Path>) -> Result<Self, Failure> {
        let inside = dir.join("exchange");
        let dir = match given {
            Some(given) => given.to_owned(),
            None if inside.is_dir() => inside,
            None => dir.to_owned(),
        };
        if !dir.is_dir() {
            let why = "there is no such directory; is the stick in?";
            return Err(Failure::file("open", &dir, why));
        }
        Ok(Desk { dir })
    }

    /// The roster here.
    pub fn roster(&self) -> Result<Roster, Failure> {
        read_roster(&self.dir.join(ROSTER))
    }

    /// The roster of the fleet directory `dir`, unless a newer or another one lies here.
    ///
    /// # Errors
    /// `rolled-back` or `forked`, with what to do.
    pub fn roster_of(&self, dir: &Path) -> Result<Roster, Failure> {
        let own = dir.join(ROSTER);
        let bytes = files::read(&own, ROSTER_BYTES_MAX)?;
        let roster = decode_roster(&own, &bytes)?;
        let here = self.dir.join(ROSTER);
        let Some(others) = files::read_if_there(&here, ROSTER_BYTES_MAX)? else { return Ok(roster) };
        if others[..] != bytes[..] {
            let others = decode_roster(&here, &others)?;
            roster.check_seen(others.version()).map_err(|refusal| {
                let mut failure = Failure::from(refusal);
                failure.message += &format!(
                    " (the one seen is {}; `bulla-fleet roster take --dir {} --from {}` takes up a newer one)",
                    here.display(),
                    dir.display(),
                    here.display()
                );
                failure
            })?;
        }
        Ok(roster)
    }

    /// Lays out the roster.
    pub fn lay_roster(&self, roster: &[u8]) -> Result<(), Failure> {
        let here = self.dir.join(ROSTER);
        match files::read_if_there(&here, ROSTER_BYTES_MAX)? {
            Some(there) if there[..] == *roster => Ok(()),
            _ => files::write(&here, roster),
        }
    }

    /// Lays out an action.
    pub fn lay_action(&self, action: &Action) -> Result<(), Failure> {
        files::write(&self.dir.join(format!("action-{}", short(action))), &action.encode())
    }

    /// Lays out an approval of `action`.
    pub fn lay_approval(&self, action: &Action, approval: &Approval) -> Result<(), Failure> {
        let of = &hex::encode(*approval.key)[..16];
        files::write(&self.dir.join(format!("approval-{}-of-{of}", short(action))), &approval.encode())
    }

    /// Lays out a configuration file, for whoever approves it to read.
    pub fn lay_configuration(&self, bytes: &[u8]) -> Result<(), Failure> {
        files::write(&self.dir.join(configuration_name(&sha256(&[bytes]))), bytes)
    }

    /// The configuration file with this hash.
    ///
    /// # Errors
    /// It is not here, or the file under its name is another one.
    pub fn configuration(&self, hash: &Hash) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let path = self.dir.join(configuration_name(hash));
        let found = files::read_if_there(&path, FILE_BYTES_MAX)?;
        found.filter(|bytes| sha256(&[bytes]) == *hash).ok_or_else(|| {
            let why = format!(
                "{} is not there, or is not what was proposed (sha256:{hash}): lay it there again",
                path.display()
            );
            Failure::new(Exit::Refused, why)
        })
    }

    /// Lays out an approved action for the box that carries it out, and keeps a copy in the fleet directory `dir`; whether
    /// it was handed out before, and where it lies.
    pub fn hand_out(&self, dir: &Path, action: &Action, change: &[u8]) -> Result<(bool, PathBuf), Failure> {
        let record = dir.join(HANDED_OUT);
        files::make_private_dir(&record)?;
        let record = record.join(action.hash().to_string());
        let here = self.dir.join(format!("approved-{}", short(action)));
        let known = files::read_if_there(&record, CHANGE_BYTES_MAX)?;
        if known.is_none() {
            files::write(&record, change)?;
        }
        let known = known.is_some() && here.exists();
        if !known {
            files::write(&here, change)?;
        }
        Ok((known, here))
    }

    /// All actions whose hash begins with `which`, oldest first; files that are none are named on the way.
    pub fn actions(&self, which: Option<&str>) -> Result<Vec<Action>, Failure> {
        let mut actions = Vec::new();
        for path in self.files("action-")? {
            let bytes = files::read(&path, ACTION_BYTES_MAX)?;
            match Action::decode(&bytes) {
                Ok(action) => actions.push(action),
                Err(refusal) => {
                    let refusal = RosterRefusal::from(refusal);
                    crate::say(&format!("{} is no action: {refusal}\n", path.display()));
                }
            }
        }
        if let Some(which) = which {
            actions.retain(|action| action.hash().to_string().starts_with(which));
            if actions.is_empty() {
                let why = format!("{} holds no action {which}", self.dir.display());
                return Err(Failure::usage(why));
            }
        }
        actions.sort_by_key(|action| (action.proposed_at, action.hash()));
        actions.dedup();
        Ok(actions)
    }

    /// What there is of approvals of `action`: one for each person who gave one that counts, by their names.
    pub fn approvals(&self, roster: &Roster, action: &Action) -> Result<Vec<(String, Approval)>, Failure> {
        let mut votes: Vec<(String, Approval)> = Vec::new();
        for path in self.files(&format!("approval-{}-of-", short(action)))? {
            let bytes = files::read(&path, 4 << 10)?;
            let vote = Approval::decode(&bytes).map_err(RosterRefusal::from).and_then(|approval| {
                let name = roster.vote(action, &approval)?.to_owned();
                Ok((name, approval))
            });
            match vote {
                Ok((name, _)) if votes.iter().any(|(known, _)| *known == name) => {}
                Ok(vote) => votes.push(vote),
                Err(refusal) => crate::say(&format!("{} does not count: {refusal}\n", path.display())),
            }
        }
        Ok(votes)
    }

    /// Files whose name begins like this, by name.
    fn files(&self, prefix: &str) -> Result<Vec<PathBuf>, Failure> {
        let failed = |error| Failure::file("read", &self.dir, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name.to_string_lossy().starts_with(prefix) {
                found.push(self.dir.join(name));
            }
            if found.len() > FILES_MAX {
                let why = format!("it holds more than {FILES_MAX} of {prefix}...; put old ones away");
                return Err(Failure::file("read", &self.dir, why));
            }
        }
        found.sort();
        Ok(found)
    }
}
