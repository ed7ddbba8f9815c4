//! The rosters that this box goes by: its own fleet's, and those of foreign fleets that the configuration names with a root.
//!
//! `<state>/rosters/<fleet>` is DER of the roster, `<fleet>.moved` cards that moved its boxes, as an
//! answer between peers has them. What was seen last is
//! in the ledger's control values, so an older file in its place is noticed.
//! Refuses to do: take a roster that another root founded, that is older than the one seen before, or goes another way.
//! Invariants: a roster is on the disk, and its version noted as seen, before it counts; what the log has to say of it is
//! remembered until the log has said it.

use crate::config::PeersConfig;
use crate::identity::{make_private_dir, write_atomically};
use bulla_formats::body::revocation::RevocationBody;
use bulla_formats::body::roster::{Came, RosterBody};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::Hash;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::roster::{MOVED_MAX, RosterSaid};
use bulla_formats::trust::TrustFile;
use bulla_ledger::Control;
use bulla_roster::RosterRefusal;
use bulla_roster::approvals::action::Version;
use bulla_roster::inventory::Listed;
use bulla_roster::roster::{ROSTER_BYTES_MAX, Roster};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "rosters";
const FORMAT: &str = "roster-seen/v1";

/// Why a roster is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RosterFault {
    /// What it is, or what it follows.
    #[error("the roster is refused ({}): {_0}", .0.code())]
    Refused(#[from] RosterRefusal),
    /// Of a fleet that nobody named.
    #[error(
        "the roster is of fleet {0}, not of this box's, and the configuration names no root of that fleet under \
         [[peers.foreign]]"
    )]
    Fleet(String),
    /// It could not be written.
    #[error("the roster is not taken, because it cannot be written down: {0}")]
    NotKept(String),
    /// There is nobody to take it for.
    #[error("this box has no neighbours: add a [peers] section to its configuration")]
    NoPeers,
    /// The box is stopping.
    #[error("the box is stopping; retry in a moment")]
    Stopping,
}

/// What is remembered of a roster beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    bulla: String,
    number: u64,
    hash: String,
    /// Version that the log has told of last.
    logged: Option<u64>,
    came: String,
    from: String,
}

/// A roster in force.
#[derive(Debug, Clone)]
pub struct Held {
    /// The roster.
    pub roster: Roster,
    /// Cards that moved its boxes, newer than its own.
    pub moved: BTreeMap<String, PeerCard>,
    seen: Seen,
}

/// What the log is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learnt {
    /// The version.
    pub body: RosterBody,
    /// Logs given up since the version that the log told of last.
    pub revocations: Vec<RevocationBody>,
}

/// All of them, by fleet.
pub struct Rosters {
    directory: PathBuf,
    control: Control,
    own: TrustFile,
    foreign: BTreeMap<String, [u8; 32]>,
    held: BTreeMap<String, Held>,
    /// Versions seen of rosters that cannot be used.
    lost: BTreeMap<String, Seen>,
    /// What is wrong, by fleet.
    troubles: BTreeMap<String, String>,
}

fn key(fleet: &str) -> String {
    format!("roster/{fleet}")
}

fn read(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    match fs::File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn moved_path(path: &Path) -> PathBuf {
    crate::identity::with_suffix(path, ".moved")
}

/// A roster, and cards that moved its boxes.
type OnDisk = (Roster, BTreeMap<String, PeerCard>);

/// The roster in a file, and the cards beside it; `None` without one. What was seen before is not asked.
fn load(path: &Path) -> Result<Option<OnDisk>, String> {
    let bytes = read(path, ROSTER_BYTES_MAX).map_err(|error| error.to_string())?;
    let Some(bytes) = bytes else { return Ok(None) };
    let roster = Roster::decode(&bytes).map_err(|refusal| refusal.to_string())?;
    let bytes = read(&moved_path(path), ROSTER_BYTES_MAX).ok().flatten().unwrap_or_default();
    // Where boxes are is told again; a damaged list costs nothing but time.
    let cards = RosterSaid::decode(&bytes).map(|said| said.moved).unwrap_or_default();
    let cards = cards.iter().filter_map(|card| PeerCard::decode(card).ok());
    let moved = cards.filter(|card| roster.inventory().moves(card));
    let moved = moved.map(|card| (card.origin().to_string(), card)).collect();
    Ok(Some((roster, moved)))
}

/// The roster of this fleet as it is on the disk, for commands; whether it was rolled back, the running box says.
///
/// # Errors
/// It is there and no roster.
pub fn on_disk(state_dir: &Path, fleet: &str) -> Result<Option<Held>, String> {
    let loaded = load(&state_dir.join(DIRECTORY).join(fleet))?;
    Ok(loaded.map(|(roster, moved)| {
        let (number, hash) = (roster.version().number, hex::encode(*roster.version().hash));
        let (came, from) = (String::new(), String::new());
        let seen = Seen { bulla: FORMAT.to_owned(), number, hash, logged: None, came, from };
        Held { roster, moved, seen }
    }))
}

/// Every file of rosters as it is on the disk: its name in the state directory, its bytes, and what is wrong with it. Whether
/// one is older than what was seen, the running box says.
pub fn check(state_dir: &Path) -> Vec<(String, u64, Option<String>)> {
    let listed = match fs::read_dir(state_dir.join(DIRECTORY)) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![(DIRECTORY.to_owned(), 0, Some(error.to_string()))],
    };
    let mut names: Vec<String> =
        listed.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let judge = |name: String| {
        let bytes = read(&state_dir.join(DIRECTORY).join(&name), ROSTER_BYTES_MAX);
        let length = bytes.as_ref().map_or(0, |bytes| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
        let wrong = match bytes {
            Err(error) => Some(error.to_string()),
            // It was replaced meanwhile.
            Ok(None) => None,
            Ok(Some(bytes)) if name.ends_with(".moved") => {
                RosterSaid::decode(&bytes).err().map(|error| error.to_string())
            }
            Ok(Some(bytes)) => match Roster::decode(&bytes) {
                Ok(roster) if roster.fleet() == name => None,
                Ok(roster) => Some(format!("it is the roster of {}", roster.fleet())),
                Err(refusal) => Some(format!("{refusal} ({})", refusal.code())),
            },
        };
        (format!("{DIRECTORY}/{name}"), length, wrong)
    };
    // What an interrupted write left is no roster; the next one replaces it.
    names.into_iter().filter(|name| !name.ends_with(".new")).map(judge).collect()
}

impl Rosters {
    /// Takes up what is on the disk, as far as it is what was seen last. `own` names fleet and root of this box.
    pub fn open(
        state_dir: &Path,
        control: Control,
        own: TrustFile,
        config: &PeersConfig,
    ) -> anyhow::Result<Self> {
        let directory = state_dir.join(DIRECTORY);
        make_private_dir(&directory)?;
        let foreign = config.foreign.iter().filter(|foreign| foreign.fleet != own.fleet);
        let foreign: BTreeMap<String, [u8; 32]> =
            foreign.filter_map(|foreign| Some((foreign.fleet.clone(), foreign.root()?))).collect();
        let fleets: Vec<String> = foreign.keys().cloned().chain([own.fleet.clone()]).collect();
        let (held, lost, troubles) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut rosters = Rosters { directory, control, own, foreign, held, lost, troubles };
        for fleet in fleets {
            let seen = rosters.seen(&fleet)?;
            match rosters.take_up(&fleet, seen.as_ref()) {
                Ok(()) => {}
                Err(why) => {
                    let what = format!("{why}; hand in the newest roster with `bulla-box roster take`");
                    log::error!("the roster of {fleet} does not count: {what}");
                    rosters.troubles.insert(fleet.clone(), what);
                    rosters.lost.extend(seen.map(|seen| (fleet, seen)));
                }
            }
        }
        Ok(rosters)
    }

    fn seen(&self, fleet: &str) -> anyhow::Result<Option<Seen>> {
        let Some(bytes) = self.control.get(&key(fleet))? else { return Ok(None) };
        let seen: Seen = serde_json::from_slice(&bytes)?;
        anyhow::ensure!(seen.bulla == FORMAT, "what was seen of a roster is of format {:?}", seen.bulla);
        Ok(Some(seen))
    }

    fn take_up(&mut self, fleet: &str, seen: Option<&Seen>) -> Result<(), String> {
        let loaded = load(&self.directory.join(fleet))?;
        let (Some((roster, moved)), seen) = (loaded, seen) else {
            return if seen.is_none() { Ok(()) } else { Err("it is gone from the disk".to_owned()) };
        };
        self.check_root(&roster).map_err(|fault| fault.to_string())?;
        // A file of which nothing is noted was written and not yet seen: nobody went by it.
        let Some(seen) = seen else { return Ok(()) };
        let version = version(seen).ok_or("what was seen of it is not understood")?;
        roster.check_seen(&version).map_err(|refusal| format!("{refusal} ({})", refusal.code()))?;
        // One that is newer than what was noted came last.
        let seen = Seen {
            number: roster.version().number,
            hash: hex::encode(*roster.version().hash),
            ..seen.clone()
        };
        self.held.insert(fleet.to_owned(), Held { roster, moved, seen });
        Ok(())
    }

    fn check_root(&self, roster: &Roster) -> Result<(), RosterFault> {
        if roster.fleet() == self.own.fleet {
            return Ok(roster.check_root(&self.own)?);
        }
        match self.foreign.get(roster.fleet()) {
            Some(root) if *root == *roster.founding().content.root => Ok(()),
            Some(_) => Err(RosterRefusal::OtherRoot.into()),
            None => Err(RosterFault::Fleet(roster.fleet().to_owned())),
        }
    }

    /// The roster of a fleet, if there is one in force.
    pub fn of(&self, fleet: &str) -> Option<&Held> {
        self.held.get(fleet)
    }

    /// All of them.
    pub fn all(&self) -> &BTreeMap<String, Held> {
        &self.held
    }

    /// What is wrong, by fleet.
    pub fn troubles(&self) -> &BTreeMap<String, String> {
        &self.troubles
    }

    /// Takes a roster; whether it is another version than before.
    ///
    /// # Errors
    /// Then the one before stays in force.
    pub fn take(&mut self, roster: Roster, came: Came, from: &str) -> Result<bool, RosterFault> {
        self.check_root(&roster)?;
        let fleet = roster.fleet().to_owned();
        let before = self.held.get(&fleet);
        let seen = before.map(|held| &held.seen).or(self.lost.get(&fleet));
        if let Some(seen) = seen.and_then(version) {
            roster.check_seen(&seen)?;
            if before.is_some() && seen == *roster.version() {
                return Ok(false);
            }
        }
        let from: String = from.chars().filter(|c| !c.is_control()).take(64).collect();
        let seen = Seen {
            bulla: FORMAT.to_owned(),
            number: roster.version().number,
            hash: hex::encode(*roster.version().hash),
            logged: seen.and_then(|seen| seen.logged),
            came: came.name().to_owned(),
            from,
        };
        let not_kept = |error: &dyn std::fmt::Display| RosterFault::NotKept(error.to_string());
        write_atomically(&self.directory.join(&fleet), &roster.encode()).map_err(|error| not_kept(&error))?;
        self.note(&fleet, &seen).map_err(|error| not_kept(&error))?;
        let moved = before.map(|held| held.moved.clone()).unwrap_or_default();
        let moved = moved.into_iter().filter(|(_, card)| roster.inventory().moves(card)).collect();
        log::info!("version {} of the roster of {fleet} counts ({}: {})", seen.number, seen.came, seen.from);
        self.lost.remove(&fleet);
        self.troubles.remove(&fleet);
        self.held.insert(fleet, Held { roster, moved, seen });
        Ok(true)
    }

    /// Takes cards that move boxes of the own fleet; whether any is news.
    pub fn take_moved(&mut self, cards: impl Iterator<Item = PeerCard>) -> bool {
        let Some(held) = self.held.get_mut(&self.own.fleet) else { return false };
        let mut news = false;
        for card in cards.take(MOVED_MAX) {
            let origin = card.origin().as_str();
            let newer = held.moved.get(origin).is_none_or(|known| card.replaces(known));
            if held.roster.inventory().moves(&card) && newer {
                held.moved.insert(origin.to_owned(), card);
                news = true;
            }
        }
        if news {
            let moved =
                held.moved.values().take(MOVED_MAX).map(|card| card.bytes().to_vec().into()).collect();
            let said = RosterSaid { founding: None, changes: Vec::new(), moved, last: held.seen.number };
            let path = moved_path(&self.directory.join(&self.own.fleet));
            if let Err(error) = write_atomically(&path, &der::encode(&said)) {
                log::warn!("where boxes of the fleet are is not kept: {error:#}");
            }
        }
        news
    }

    fn note(&self, fleet: &str, seen: &Seen) -> Result<(), String> {
        let bytes = serde_json::to_vec(seen).map_err(|error| error.to_string())?;
        self.control.put(&key(fleet), &bytes).map_err(|fault| fault.to_string())
    }

    /// What the log does not say yet: by fleet, in order.
    pub fn untold(&self) -> Vec<Learnt> {
        let untold = self.held.values().filter(|held| held.seen.logged != Some(held.seen.number));
        untold.map(Held::learnt).collect()
    }

    /// The log has said it.
    pub fn told(&mut self, body: &RosterBody) {
        let Some(held) = self.held.get_mut(&body.fleet).filter(|held| held.seen.number == body.number) else {
            return;
        };
        held.seen.logged = Some(body.number);
        let seen = held.seen.clone();
        // Said twice after a crash, rather than never.
        if let Err(error) = self.note(&body.fleet, &seen) {
            log::warn!("that the log tells of a roster is not noted: {error}");
        }
    }
}

fn version(seen: &Seen) -> Option<Version> {
    let hash: [u8; 32] = hex::decode(&seen.hash).ok()?.try_into().ok()?;
    Some(Version { number: seen.number, hash: Octets32::new(hash) })
}

/// The version of the roster of this fleet that was seen last; `None` when none was.
///
/// # Errors
/// The store's; or it is not understood.
pub fn seen(control: &Control, fleet: &str) -> anyhow::Result<Option<Version>> {
    let Some(bytes) = control.get(&key(fleet))? else { return Ok(None) };
    let seen: Seen = serde_json::from_slice(&bytes)?;
    let version = version(&seen).filter(|_| seen.bulla == FORMAT);
    Ok(Some(version.ok_or_else(|| anyhow::anyhow!("what was seen of a roster is not understood"))?))
}

impl Held {
    /// How it came, and from whom.
    pub fn came(&self) -> (&str, &str) {
        (&self.seen.came, &self.seen.from)
    }

    /// The newest card of a member's box.
    pub fn card_of<'a>(&'a self, listed: &'a Listed) -> Option<&'a PeerCard> {
        let card = listed.member_card()?;
        Some(self.moved.get(card.origin().as_str()).unwrap_or(card))
    }

    /// The box that has or had this log.
    pub fn listed(&self, origin: &str) -> Option<&Listed> {
        self.roster.inventory().boxes().find(|listed| listed.all_logs().any(|log| log.origin == origin))
    }

    fn learnt(&self) -> Learnt {
        let version = self.roster.version();
        let came = [Came::Registrar, Came::File, Came::Neighbour];
        let came = came.into_iter().find(|came| came.name() == self.seen.came).unwrap_or(Came::File);
        let from = if self.seen.from.is_empty() { "?".to_owned() } else { self.seen.from.clone() };
        let (fleet, number) = (self.roster.fleet().to_owned(), version.number);
        let body = RosterBody { version: 1, fleet, number, hash: version.hash, came, from };
        // Of the first roster the log tells as a whole.
        let since = self.seen.logged.unwrap_or(number);
        let boxes = self.roster.inventory().boxes().flat_map(|listed| &listed.tombstones);
        let revocations = boxes.filter(|stone| stone.version > since).flat_map(|stone| {
            stone.revocation.logs.iter().map(|log| RevocationBody {
                version: 1,
                roster: stone.version,
                origin: log.origin.clone(),
                cause: stone.revocation.cause,
                invalid_from: stone.revocation.invalid_from,
                good: TreeState::new(log.size, Hash(*log.root)),
            })
        });
        Learnt { body, revocations: revocations.collect() }
    }
}
