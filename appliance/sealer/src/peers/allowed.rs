//! Who is a neighbour now: the rosters, the cards handed in by hand, and what the configuration allows, put together.
//!
//! Refuses to do: let a card that was handed in bring back whom a roster does not list as a member.
//! Invariants: where there is a roster of a fleet, its word on that fleet's boxes counts; no two neighbours share a key; no
//! more of them than the configuration says.

use super::neighbours::NeighbourStore;
use super::rosters::{Held, on_disk};
use crate::config::{FromRoster, Level, PeersConfig};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::PeerCard;
use bulla_roster::inventory::State;
use std::collections::BTreeMap;
use std::path::Path;

/// Where trust in a neighbour comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Its fleet's roster.
    Roster,
    /// An operator of this box.
    ByHand,
}

impl Source {
    /// Name in status and lists.
    pub fn name(self) -> &'static str {
        match self {
            Source::Roster => "roster",
            Source::ByHand => "by-hand",
        }
    }
}

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its newest card.
    pub card: PeerCard,
    /// What is exchanged with it.
    pub level: Level,
    /// Why it is one.
    pub source: Source,
}

/// Everybody, and who is kept out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Neighbours, by their logs.
    pub neighbours: BTreeMap<String, Neighbour>,
    /// Logs whose boxes would be neighbours, and why they are not.
    pub kept_out: BTreeMap<String, String>,
}

impl Allowed {
    fn add(&mut self, own: &PeerCard, most: usize, card: &PeerCard, level: Level, source: Source) {
        let origin = card.origin().to_string();
        if self.neighbours.contains_key(&origin) || *origin == *own.origin().as_str() {
            return;
        }
        let others = self.neighbours.values().map(|known| &known.card).chain([own]);
        if others.into_iter().any(|other| other.shares_a_key(card)) {
            self.kept_out
                .insert(origin, "a key of it is another box's too, and one box must not count twice".into());
        } else if self.neighbours.len() >= most {
            self.kept_out
                .insert(origin, "there are as many neighbours as may be; see peers.neighbours_max".into());
        } else {
            self.neighbours.insert(origin, Neighbour { card: card.clone(), level, source });
        }
    }
}

/// What a stopped box, or a command beside a running one, knows of its neighbours.
pub struct OnDisk {
    /// The rosters that are there, by fleet.
    pub rosters: BTreeMap<String, Held>,
    /// Everybody.
    pub allowed: Allowed,
}

/// The same as [`allowed`], of what lies on the disk.
///
/// # Errors
/// A roster or the list of cards is there and cannot be used.
pub fn allowed_on_disk(state_dir: &Path, own: &PeerCard, config: &PeersConfig) -> anyhow::Result<OnDisk> {
    let by_hand = NeighbourStore::new(state_dir).list()?;
    let foreign = config.foreign.iter().map(|foreign| foreign.fleet.as_str());
    let mut rosters = BTreeMap::new();
    for fleet in foreign.chain([own.origin().fleet()]) {
        let held = on_disk(state_dir, fleet);
        let held = held.map_err(|why| anyhow::anyhow!("the roster of {fleet} cannot be used: {why}"))?;
        rosters.extend(held.map(|held| (fleet.to_owned(), held)));
    }
    let allowed = allowed(own, config, &by_hand, &rosters);
    Ok(OnDisk { rosters, allowed })
}

/// Who is a neighbour of the box with the card `own`. `by_hand`: cards that an operator handed in.
pub fn allowed(
    own: &PeerCard,
    config: &PeersConfig,
    by_hand: &[PeerCard],
    rosters: &BTreeMap<String, Held>,
) -> Allowed {
    let (mut all, most) = (Allowed::default(), config.neighbours_max);
    let level_of = |fleet: &str| {
        if fleet == own.origin().fleet() { Level::Entries } else { config.level_of(fleet) }
    };
    for card in by_hand {
        let (origin, fleet) = (card.origin(), card.origin().fleet());
        let level = level_of(fleet);
        if level == Level::Nothing {
            let why = format!("the configuration allows nothing to fleet {fleet}");
            all.kept_out.insert(origin.to_string(), why);
            continue;
        }
        match rosters.get(fleet).map(|held| standing(held, origin, card)) {
            None => all.add(own, most, card, level, Source::ByHand),
            Some(Ok(None)) => all.add(own, most, card, level, Source::ByHand),
            Some(Ok(Some(listed))) => all.add(own, most, listed, level, Source::Roster),
            Some(Err(why)) => drop(all.kept_out.insert(origin.to_string(), why)),
        }
    }
    for (fleet, held) in rosters {
        let (level, mine) = (level_of(fleet), fleet == own.origin().fleet());
        if level == Level::Nothing || mine && config.from_roster == FromRoster::Nothing {
            continue;
        }
        let branch = held.listed(own.origin().as_str()).map(|listed| listed.row.branch.clone());
        let same = |listed: &bulla_roster::inventory::Listed| Some(&listed.row.branch) == branch.as_ref();
        let mut boxes: Vec<_> = held.roster.inventory().boxes().collect();
        // Those of the branch come first, if there is no room for all.
        boxes.sort_by_key(|listed| !same(listed));
        for listed in boxes {
            if mine && config.from_roster == FromRoster::Branch && !same(listed) {
                continue;
            }
            if listed.all_logs().any(|log| log.origin == own.origin().as_str()) {
                // Its own box, perhaps under the log before.
                continue;
            }
            match (held.card_of(listed), &listed.card) {
                (Some(card), _) => all.add(own, most, card, level, Source::Roster),
                (None, Some(card)) if card.origin() != own.origin() => {
                    let why = format!("the roster says: {}", listed.state.name());
                    all.kept_out.insert(card.origin().to_string(), why);
                }
                (None, _) => {}
            }
        }
    }
    let Allowed { neighbours, kept_out } = &mut all;
    kept_out.retain(|origin, _| !neighbours.contains_key(origin));
    all
}

/// What a roster says of a card that was handed in: the card that counts in its place, nothing (a member without one), or
/// why its box is kept out.
fn standing<'a>(held: &'a Held, origin: &Origin, card: &'a PeerCard) -> Result<Option<&'a PeerCard>, String> {
    let listed = held.listed(origin.as_str()).ok_or("the roster does not know it")?;
    if listed.state != State::Enrolled {
        return Err(format!("the roster says: {}", listed.state.name()));
    }
    let log = listed
        .logs
        .last()
        .filter(|log| log.origin == origin.as_str() && log.log_key == card.content().log_key);
    if log.is_none() {
        return Err("the roster has another log of that box".to_owned());
    }
    match held.card_of(listed) {
        // Its own keys say where it is by now.
        Some(known) if card.moves(known) => Ok(Some(card)),
        known => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ForeignConfig;
    use bulla_formats::der::Octets32;
    use bulla_formats::hash::sha256;
    use bulla_formats::peer::card::{CardContent, CardSignatures};
    use ed25519_dalek::{Signer as _, SigningKey};

    const FLEET: &str = "bank.example";

    /// Keys and origins as in the vectors of rosters.
    fn card(fleet: &str, number: u8, log: u64, whose: &str, sequence: u64) -> PeerCard {
        let key = |whose: String| SigningKey::from_bytes(&sha256(&[b"key of ", whose.as_bytes()]).0);
        let keys = [
            key(format!("log {log} of {number}")),
            key(format!("witness {whose}")),
            key(format!("mirror {whose}")),
            key(format!("transport {whose}")),
        ];
        let [log_key, witness_key, mirror_key, transport_key] =
            keys.each_ref().map(|key| Octets32::new(key.verifying_key().to_bytes()));
        let ek = sha256(&[b"endorsement key", &[number]]);
        let origin = Origin::derive(fleet, &ek, log).unwrap().to_string();
        let addresses = Vec::new();
        let content = CardContent {
            version: 1,
            origin,
            log_key,
            witness_key,
            mirror_key,
            transport_key,
            sequence,
            addresses,
        };
        let [log, witness, mirror, transport] =
            keys.map(|key| key.sign(&content.message()).to_bytes().to_vec().into());
        PeerCard::assemble(content, CardSignatures { log, witness, mirror, transport }).unwrap()
    }

    /// A roster in which boxes 1 (with card 6, keys `two`) and 2 (without one) are members, and box 4 has left.
    fn rosters() -> BTreeMap<String, Held> {
        let state = tempfile::tempdir().unwrap();
        let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors-roster");
        std::fs::create_dir(state.path().join("rosters")).unwrap();
        let file = format!("{vectors}/valid--card-with-other-keys");
        std::fs::copy(file, state.path().join("rosters").join(FLEET)).unwrap();
        let held = on_disk(state.path(), FLEET).unwrap().unwrap();
        BTreeMap::from([(FLEET.to_owned(), held)])
    }

    fn one(all: &Allowed) -> (u64, Level, Source) {
        assert_eq!(all.neighbours.len(), 1, "{all:?}");
        let neighbour = all.neighbours.values().next().unwrap();
        (neighbour.card.content().sequence, neighbour.level, neighbour.source)
    }

    #[test]
    fn the_rosters_word_counts_and_a_box_says_where_it_is() {
        let (own, config, rosters) = (card(FLEET, 2, 1, "own", 1), PeersConfig::default(), rosters());
        let with = |by_hand: &[PeerCard]| allowed(&own, &config, by_hand, &rosters);
        assert_eq!(one(&with(&[])), (6, Level::Entries, Source::Roster));
        // The same keys, and newer: the box has moved. Other keys: two people have to say so.
        assert_eq!(one(&with(&[card(FLEET, 1, 2, "two", 9)])), (9, Level::Entries, Source::Roster));
        assert_eq!(one(&with(&[card(FLEET, 1, 2, "else", 9)])), (6, Level::Entries, Source::Roster));
        for (outside, why) in [
            (card(FLEET, 4, 7, "four", 1), "the roster says: retired"),
            (card(FLEET, 9, 1, "nine", 1), "the roster does not know it"),
            (card(FLEET, 1, 1, "old", 1), "the roster has another log of that box"),
        ] {
            let all = with(std::slice::from_ref(&outside));
            assert_eq!(all.kept_out.get(outside.origin().as_str()).map(String::as_str), Some(why));
            assert_eq!(one(&all), (6, Level::Entries, Source::Roster));
        }
        let nothing = PeersConfig { from_roster: FromRoster::Nothing, ..PeersConfig::default() };
        assert_eq!(allowed(&own, &nothing, &[], &rosters), Allowed::default());
        // Without a roster a card counts that was handed in; two with one key count once.
        let by_hand = [card(FLEET, 4, 7, "four", 1), card(FLEET, 5, 1, "four", 1)];
        let all = allowed(&own, &config, &by_hand, &BTreeMap::new());
        assert_eq!(one(&all), (1, Level::Entries, Source::ByHand));
        assert!(all.kept_out[by_hand[1].origin().as_str()].contains("count twice"), "{all:?}");
        let full = PeersConfig { neighbours_max: 1, ..PeersConfig::default() };
        let both = [card(FLEET, 4, 7, "four", 1), card(FLEET, 5, 1, "five", 1)];
        assert!(allowed(&own, &full, &both, &BTreeMap::new()).kept_out.len() == 1);
    }

    #[test]
    fn another_fleet_gets_what_the_configuration_says() {
        let (own, rosters) = (card("other.example", 2, 1, "own", 1), rosters());
        let of = |level| {
            let foreign = vec![ForeignConfig { fleet: FLEET.into(), root: None, level }];
            PeersConfig { foreign, ..PeersConfig::default() }
        };
        let by_hand = [card(FLEET, 1, 2, "two", 9)];
        let unnamed = PeersConfig::default();
        for config in [&unnamed, &of(Level::Nothing)] {
            let all = allowed(&own, config, &by_hand, &rosters);
            assert!(all.neighbours.is_empty() && all.kept_out.len() == 1, "{all:?}");
        }
        for level in [Level::Heads, Level::Entries] {
            assert_eq!(one(&allowed(&own, &of(level), &[], &rosters)), (6, level, Source::Roster));
            let all = allowed(&own, &of(level), &by_hand, &BTreeMap::new());
            assert_eq!(one(&all), (9, level, Source::ByHand));
        }
    }
}
