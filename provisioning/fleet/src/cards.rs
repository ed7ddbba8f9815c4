//! Cards that boxes have handed in: `cards/<SHA-256 of the log's name>` in the fleet directory.
//!
//! A card whose four keys are those of the card in the roster says where the box is now: its own keys have signed that, and
//! it is passed on as it is. One with other keys waits for people (`bulla-fleet propose cards`).
//! Refuses to do: keep a card that is not of a member's last log or one staged for it, or go back to an older one.
//! Invariant: at most one card for each log, so boxes cannot fill the disk.

use crate::exit::{Exit, Failure};
use crate::files;
use bulla_formats::hash::sha256;
use bulla_formats::peer::card::{CARD_BYTES_MAX, PeerCard};
use bulla_roster::Result as RosterResult;
use bulla_roster::deed::CARDS_MAX;
use bulla_roster::roster::Roster;
use std::path::{Path, PathBuf};

/// The directory.
pub struct Cards {
    dir: PathBuf,
}

/// The card in a file.
pub fn read(path: &Path) -> Result<PeerCard, Failure> {
    let bytes = files::read(path, CARD_BYTES_MAX)?;
    PeerCard::decode(&bytes)
        .map_err(|error| Failure::new(Exit::Refused, format!("{} is refused: {error}", path.display())))
}

impl Cards {
    /// Those of a fleet directory.
    pub fn open(fleet: &Path) -> Self {
        Cards { dir: fleet.join("cards") }
    }

    fn path(&self, origin: &str) -> PathBuf {
        self.dir.join(sha256(&[origin.as_bytes()]).to_string())
    }

    /// The card handed in of a log, if one was.
    fn of(&self, origin: &str) -> Result<Option<PeerCard>, Failure> {
        let path = self.path(origin);
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    /// Keeps a card that a box hands in, when it is news.
    ///
    /// # Errors
    /// The inner one: why the roster could not have it.
    pub fn hand_in(&self, card: &PeerCard, roster: &Roster) -> Result<RosterResult<()>, Failure> {
        let listed = match roster.inventory().of_log(card.origin().as_str()) {
            Some(listed) if listed.member_card().is_some_and(|known| known == card) => return Ok(Ok(())),
            _ => roster.inventory().check_card(card),
        };
        if let Err(refusal) = listed {
            return Ok(Err(refusal));
        }
        let origin = card.origin().as_str();
        if self.of(origin)?.is_none_or(|known| card.replaces(&known)) {
            files::make_private_dir(&self.dir)?;
            files::write(&self.path(origin), card.bytes())?;
        }
        Ok(Ok(()))
    }

    /// Cards of members that are newer than the roster's: in the order of their boxes.
    fn newer<'a>(&'a self, roster: &'a Roster) -> impl Iterator<Item = Result<PeerCard, Failure>> + 'a {
        let logs = roster.inventory().boxes();
        let logs = logs.flat_map(|listed| listed.logs.last().into_iter().chain(&listed.staged));
        let cards = logs.filter_map(|log| self.of(&log.origin).transpose());
        cards.filter(|card| match card {
            Ok(card) => roster.inventory().check_card(card).is_ok(),
            Err(_) => true,
        })
    }

    /// Cards with the keys of the roster's, and other addresses.
    pub fn moved(&self, roster: &Roster) -> Result<Vec<PeerCard>, Failure> {
        let moved = |card: &PeerCard| roster.inventory().moves(card);
        self.newer(roster).filter(|card| card.as_ref().map_or(true, moved)).collect()
    }

    /// Cards with other keys than the roster's, or the first of their boxes: what one action can name.
    pub fn waiting(&self, roster: &Roster) -> Result<Vec<PeerCard>, Failure> {
        let waits = |card: &PeerCard| !roster.inventory().moves(card);
        self.newer(roster).filter(|card| card.as_ref().map_or(true, waits)).take(CARDS_MAX).collect()
    }
}
