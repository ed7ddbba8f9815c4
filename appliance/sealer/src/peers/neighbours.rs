//! The neighbours of this box: their cards, as an operator handed them in.
//!
//! `<state>/neighbours.json` (mode 0600) is replaced as a whole by `bulla-box peers add|remove`; the running box looks at
//! the file's identity every second and takes over what has changed.
//! Refuses to do: take a card that does not verify, the box's own, one that shares a key with another, one that goes back,
//! or one of another fleet unless the configuration allows it; believe a file whose checksum is not that of its bytes.

use crate::config::{Level, PeersConfig};
use crate::identity::write_atomically;
use bulla_formats::checked_json;
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::{CardError, PeerCard};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const FILE: &str = "neighbours.json";
const FORMAT: &str = "neighbours/v1";

/// Why a card is not taken, or the list cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// The operating system refused.
    #[error("{path}: {source}; check that it exists and that this user may use it")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The file cannot be replaced.
    #[error("{0}")]
    Write(String),
    /// The file is there but not understood.
    #[error("{path} is not a list of neighbours ({reason}); restore it from a copy")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The bytes are no card.
    #[error("this is no card of a box, or not as it was made ({0}); have its operator export it again")]
    Card(#[from] CardError),
    /// Its own.
    #[error("this is the card of this box itself; hand it to the neighbours instead")]
    Own,
    /// A key on it stands for somebody else already.
    #[error(
        "a key on this card is also {0}'s, and one box must not count twice; have both boxes' cards made anew"
    )]
    SharesKey(String),
    /// The box has this card, or a newer one.
    #[error(
        "the card of {0} that this box has is as new or newer; have it exported again if addresses changed"
    )]
    Older(String),
    /// Another log key under a known name.
    #[error(
        "{0} is known with another log key: this is another box, or a forgery; remove the old card first"
    )]
    OtherKey(String),
    /// Another fleet.
    #[error(
        "the card is of fleet {0}, not of this box's; name that fleet under [[peers.foreign]] to allow it"
    )]
    Fleet(String),
    /// As many as may be.
    #[error("there are {0} neighbours, and no more may be; remove one, or raise peers.neighbours_max")]
    Full(usize),
    /// No such neighbour.
    #[error("no neighbour has the log {0}; see `bulla-box peers list`")]
    Unknown(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NeighboursFile {
    bulla: String,
    cards: Vec<String>,
    /// How often a changed boot was accepted, by the log's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    accepted: BTreeMap<String, u64>,
}

/// Identity of the file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64, u64, (i64, i64));

/// What a new card is held against.
pub struct Rules<'a> {
    /// The box's own log and its key.
    pub own: (&'a Origin, &'a [u8; 32]),
    /// The box's own card, when it has one.
    pub card: Option<&'a PeerCard>,
    /// What is allowed to other fleets.
    pub config: &'a PeersConfig,
    /// Most neighbours.
    pub most: usize,
}

/// The list.
#[derive(Debug, Clone)]
pub struct NeighbourStore {
    path: PathBuf,
}

impl NeighbourStore {
    /// The list in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        NeighbourStore { path: state_dir.join(FILE) }
    }

    /// What identifies the file as it is now; `None` without one.
    pub fn stamp(&self) -> Result<Option<Stamp>, NeighboursError> {
        match fs::metadata(&self.path) {
            Ok(meta) => Ok(Some(Stamp(meta.ino(), meta.len(), (meta.ctime(), meta.ctime_nsec())))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.io(source)),
        }
    }

    /// The neighbours, by their logs' names.
    pub fn list(&self) -> Result<Vec<PeerCard>, NeighboursError> {
        self.read(parse)
    }

    /// How often an operator has accepted a changed boot of a neighbour, by its log's name.
    pub fn accepted(&self) -> Result<BTreeMap<String, u64>, NeighboursError> {
        self.read(|bytes| file(bytes).map(|file| file.accepted))
    }

    fn read<T: Default>(&self, parse: fn(&[u8]) -> Result<T, String>) -> Result<T, NeighboursError> {
        match fs::read(&self.path) {
            Ok(bytes) => {
                parse(&bytes).map_err(|reason| NeighboursError::Damaged { path: self.path.clone(), reason })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(source) => Err(self.io(source)),
        }
    }

    /// Takes a card; whether it replaces an older one.
    pub fn add(&self, card: &PeerCard, rules: &Rules<'_>) -> Result<bool, NeighboursError> {
        let _lock = self.lock()?;
        let mut cards = self.list()?;
        check(card, rules, &cards)?;
        let before = cards.iter().position(|known| known.origin() == card.origin());
        match before {
            Some(at) => cards[at] = card.clone(),
            None if cards.len() >= rules.most => return Err(NeighboursError::Full(cards.len())),
            None => cards.push(card.clone()),
        }
        self.replace(cards, self.accepted()?)?;
        Ok(before.is_some())
    }

    /// Forgets a neighbour. What is mirrored of its log stays.
    pub fn remove(&self, origin: &str) -> Result<(), NeighboursError> {
        let _lock = self.lock()?;
        let mut cards = self.list()?;
        let at = cards.iter().position(|card| card.origin().as_str() == origin);
        cards.remove(at.ok_or_else(|| NeighboursError::Unknown(origin.to_owned()))?);
        self.replace(cards, self.accepted()?)
    }

    /// Accepts whatever boot a neighbour shows next.
    pub fn accept_boot(&self, origin: &str) -> Result<(), NeighboursError> {
        let _lock = self.lock()?;
        let (cards, mut accepted) = (self.list()?, self.accepted()?);
        if !cards.iter().any(|card| card.origin().as_str() == origin) {
            return Err(NeighboursError::Unknown(origin.to_owned()));
        }
        *accepted.entry(origin.to_owned()).or_default() += 1;
        self.replace(cards, accepted)
    }

    fn replace(
        &self,
        mut cards: Vec<PeerCard>,
        accepted: BTreeMap<String, u64>,
    ) -> Result<(), NeighboursError> {
        cards.sort_by(|a, b| a.origin().as_str().cmp(b.origin().as_str()));
        let cards = cards.iter().map(|card| base64_encode(card.bytes())).collect();
        let file = NeighboursFile { bulla: FORMAT.to_owned(), cards, accepted };
        let json = serde_json::to_string_pretty(&file).expect("strings always serialise");
        let text = checked_json::with_checksum(&json);
        write_atomically(&self.path, text.as_bytes())
            .map_err(|error| NeighboursError::Write(format!("{error:#}")))
    }

    /// Two administrators at once must not undo each other.
    fn lock(&self) -> Result<fs::File, NeighboursError> {
        let path = self.path.with_extension("lock");
        let io = |source: io::Error| NeighboursError::Io { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(io)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
        Ok(file)
    }

    fn io(&self, source: io::Error) -> NeighboursError {
        NeighboursError::Io { path: self.path.clone(), source }
    }
}

/// What people hear of bytes that are no card.
pub fn refused(error: CardError) -> NeighboursError {
    error.into()
}

fn check(card: &PeerCard, rules: &Rules<'_>, cards: &[PeerCard]) -> Result<(), NeighboursError> {
    let name = card.origin().as_str();
    let (own, log_key) = rules.own;
    if card.origin() == own || *card.content().log_key == *log_key {
        return Err(NeighboursError::Own);
    }
    if rules.card.is_some_and(|own| own.shares_a_key(card)) {
        return Err(NeighboursError::SharesKey(own.to_string()));
    }
    let foreign = card.origin().fleet();
    if foreign != own.fleet() && rules.config.level_of(foreign) == Level::Nothing {
        return Err(NeighboursError::Fleet(card.origin().fleet().to_owned()));
    }
    for known in cards {
        if known.origin() != card.origin() {
            if known.shares_a_key(card) {
                return Err(NeighboursError::SharesKey(known.origin().to_string()));
            }
        } else if known.content().log_key != card.content().log_key {
            return Err(NeighboursError::OtherKey(name.to_owned()));
        } else if !card.replaces(known) {
            return Err(NeighboursError::Older(name.to_owned()));
        }
    }
    Ok(())
}

/// The neighbours in the bytes of their file; else what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Vec<PeerCard>, String> {
    let card = |text: &String| {
        let bytes = base64_decode(text).map_err(|error| error.to_string())?;
        PeerCard::decode(&bytes).map_err(|error| error.to_string())
    };
    file(bytes)?.cards.iter().map(card).collect()
}

fn file(bytes: &[u8]) -> Result<NeighboursFile, String> {
    let bytes = checked_json::body(bytes).map_err(|error| error.to_string())?;
    let file: NeighboursFile = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if file.bulla != FORMAT {
        return Err(format!("it is of format {:?}", file.bulla));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ForeignConfig;
    use bulla_formats::der::Octets32;
    use bulla_formats::hash::Hash;
    use bulla_formats::peer::card::{CardContent, CardSignatures};
    use ed25519_dalek::{Signer as _, SigningKey};

    fn card(fleet: &str, log: u8, keys: u8, sequence: u64) -> PeerCard {
        let of = |seed: u8| SigningKey::from_bytes(&[seed; 32]);
        let keys = [of(log), of(keys), of(keys + 1), of(keys + 2)];
        let [log_key, witness_key, mirror_key, transport_key] =
            keys.each_ref().map(|key| Octets32::new(key.verifying_key().to_bytes()));
        let content = CardContent {
            version: 1,
            origin: Origin::derive(fleet, &Hash([log % 100; 32]), 3).unwrap().to_string(),
            log_key,
            witness_key,
            mirror_key,
            transport_key,
            sequence,
            addresses: Vec::new(),
        };
        let [log, witness, mirror, transport] =
            keys.map(|key| key.sign(&content.message()).to_bytes().to_vec().into());
        PeerCard::assemble(content, CardSignatures { log, witness, mirror, transport }).unwrap()
    }

    #[test]
    fn cards_that_cannot_be_meant_are_refused_and_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let store = NeighbourStore::new(directory.path());
        let own = card("bank.example", 1, 11, 1);
        let config = PeersConfig::default();
        let rules =
            Rules { own: (own.origin(), &own.content().log_key), card: Some(&own), config: &config, most: 2 };
        assert!(matches!(store.add(&own, &rules), Err(NeighboursError::Own)));
        let shared = card("bank.example", 2, 13, 1);
        assert!(matches!(store.add(&shared, &rules), Err(NeighboursError::SharesKey(_))));
        let foreign = card("other.example", 2, 21, 1);
        assert!(matches!(store.add(&foreign, &rules), Err(NeighboursError::Fleet(_))));
        assert!(store.stamp().unwrap().is_none(), "nothing was written");
        let named = ForeignConfig { fleet: "other.example".into(), root: None, level: Level::Heads };
        let welcome = PeersConfig { foreign: vec![named], ..PeersConfig::default() };
        assert!(!store.add(&foreign, &Rules { config: &welcome, ..rules }).unwrap());
        let first = card("bank.example", 3, 31, 5);
        assert!(!store.add(&first, &rules).unwrap());
        let stamp = store.stamp().unwrap();
        let names: Vec<String> = store.list().unwrap().iter().map(|card| card.origin().to_string()).collect();
        assert_eq!(names, [first.origin().to_string(), foreign.origin().to_string()]);
        for (bad, why) in [
            (card("bank.example", 3, 31, 5), "as new or newer"),
            (card("bank.example", 3, 41, 4), "as new or newer"),
            (card("bank.example", 103, 41, 9), "another log key"),
            (card("bank.example", 4, 21, 9), "count twice"),
            (card("bank.example", 4, 51, 9), "no more may be"),
        ] {
            let error = store.add(&bad, &rules).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        assert_eq!(store.stamp().unwrap(), stamp, "refusals write nothing");
        assert!(store.add(&card("bank.example", 3, 41, 6), &rules).unwrap(), "a newer one replaces it");
        assert_ne!(store.stamp().unwrap(), stamp);
        store.accept_boot(first.origin().as_str()).unwrap();
        store.accept_boot(first.origin().as_str()).unwrap();
        assert!(matches!(store.accept_boot("nobody"), Err(NeighboursError::Unknown(_))));
        store.remove(foreign.origin().as_str()).unwrap();
        assert_eq!(store.accepted().unwrap()[first.origin().as_str()], 2, "kept when others go");
        assert!(matches!(store.remove(foreign.origin().as_str()), Err(NeighboursError::Unknown(_))));
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_list_is_no_list() {
        let directory = tempfile::tempdir().unwrap();
        let store = NeighbourStore::new(directory.path());
        for bad in [
            "{".to_owned(),
            "{\"bulla\":\"neighbours/v1\",\"cards\":[]}".to_owned(),
            checked_json::with_checksum("{\"bulla\":\"neighbours/v2\",\"cards\":[]}"),
            checked_json::with_checksum("{\"bulla\":\"neighbours/v1\",\"cards\":[\"AAAA\"]}"),
        ] {
            fs::write(directory.path().join(FILE), bad).unwrap();
            assert!(matches!(store.list(), Err(NeighboursError::Damaged { .. })));
        }
    }
}
