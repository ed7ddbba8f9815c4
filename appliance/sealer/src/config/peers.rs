//! `[peers]`: where this box meets its neighbours, and how much of anything.
//!
//! Refuses to do: say who they are; the fleet's roster does, and the cards that an operator hands in with `bulla-box peers
//! add`. Let in a foreign fleet that it does not name.

use super::{ConfigError, between, refuse};
use bulla_formats::origin::check_fleet;
use serde::Deserialize;

/// Port for peers when none is named.
const LISTEN_DEFAULT: &str = "/ip4/0.0.0.0/tcp/7440";
/// Most addresses on a card.
const ADDRESSES_MAX: usize = bulla_formats::peer::card::ADDRESSES_MAX;

/// `[peers]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeersConfig {
    /// Where to listen, as multiaddrs. Default `["/ip4/0.0.0.0/tcp/7440"]`.
    pub listen: Vec<String>,
    /// Addresses put on this box's card, for neighbours that multicast DNS does not reach. Default none.
    pub advertise: Vec<String>,
    /// Announce the box on the LAN, and find the neighbours there. Default true.
    pub mdns: bool,
    /// Which boxes of the fleet's roster are neighbours: `branch` (those of this box's branch), `fleet` (all), `nothing`
    /// (only those whose cards were handed in). Default `branch`.
    pub from_roster: FromRoster,
    /// How often the registrar is asked for the roster, in seconds; 0: never. Default 300.
    pub registrar_seconds: u64,
    /// Other fleets on this network. A fleet that is not named gets nothing.
    pub foreign: Vec<ForeignConfig>,
    /// Most neighbours. Default 64.
    pub neighbours_max: usize,
    /// Longest wait at a start, in seconds, for what the neighbours know of this box's own log. Default 5; 0: no wait.
    pub start_wait_seconds: u64,
    /// A new head that nobody waits for is told to the neighbours no more often than every so many seconds. Default 5.
    pub hint_seconds: u64,
    /// How often each neighbour's TPM is challenged to vouch for it, in seconds. Default 600; 0: only during outages, every
    /// two minutes.
    pub challenge_every_seconds: u64,
    /// Have authorities vouch for the neighbours' heads with the own one, and take from neighbours what they had vouched
    /// for. Default true.
    pub anchor_together: bool,
}

/// Which boxes of the fleet's roster are neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromRoster {
    /// Those of this box's branch.
    Branch,
    /// All.
    Fleet,
    /// None.
    Nothing,
}

/// What is exchanged with a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing: it does not get through the handshake.
    Nothing,
    /// Heads and proofs that they are consistent: the boxes witness each other's logs, and hold no copies.
    Heads,
    /// Entries too: the boxes are neighbours.
    Entries,
}

impl Level {
    /// Name in status and lists.
    pub fn name(self) -> &'static str {
        match self {
            Level::Nothing => "nothing",
            Level::Heads => "heads",
            Level::Entries => "entries",
        }
    }
}

/// `[[peers.foreign]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignConfig {
    /// Its fleet domain.
    pub fleet: String,
    /// Its fleet root, 64 hex digits: a roster founded by it counts. Without it only cards that an operator hands in.
    #[serde(default)]
    pub root: Option<String>,
    /// What is exchanged with its boxes. Default `nothing`.
    #[serde(default = "nothing")]
    pub level: Level,
}

fn nothing() -> Level {
    Level::Nothing
}

impl ForeignConfig {
    /// Its root; checked when the configuration was read.
    pub fn root(&self) -> Option<[u8; 32]> {
        hex::decode(self.root.as_deref()?).ok()?.try_into().ok()
    }
}

impl PeersConfig {
    /// What is exchanged with boxes of a fleet other than this box's own.
    pub fn level_of(&self, fleet: &str) -> Level {
        self.foreign.iter().find(|foreign| foreign.fleet == fleet).map_or(Level::Nothing, |named| named.level)
    }
}

impl Default for PeersConfig {
    fn default() -> Self {
        PeersConfig {
            listen: vec![LISTEN_DEFAULT.to_owned()],
            advertise: Vec::new(),
            mdns: true,
            from_roster: FromRoster::Branch,
            registrar_seconds: 300,
            foreign: Vec::new(),
            neighbours_max: 64,
            start_wait_seconds: 5,
            hint_seconds: 5,
            challenge_every_seconds: 600,
            anchor_together: true,
        }
    }
}

/// Ranges.
pub(super) fn check(peers: &PeersConfig) -> Result<(), ConfigError> {
    if !(1..=ADDRESSES_MAX).contains(&peers.listen.len()) || !peers.listen.iter().all(|text| is_address(text))
    {
        return refuse(
            "peers.listen",
            "list 1 to 8 addresses like /ip4/0.0.0.0/tcp/7440 or /ip6/::/tcp/7440",
        );
    }
    let twice = |(at, text): (usize, &String)| peers.advertise[..at].contains(text);
    if peers.advertise.len() > ADDRESSES_MAX
        || !peers.advertise.iter().all(|text| is_address(text))
        || peers.advertise.iter().enumerate().any(twice)
    {
        return refuse("peers.advertise", "list at most 8 addresses like /ip4/192.0.2.7/tcp/7440, each once");
    }
    for (at, foreign) in peers.foreign.iter().enumerate() {
        let twice = peers.foreign[..at].iter().any(|other| other.fleet == foreign.fleet);
        if check_fleet(&foreign.fleet).is_err() || twice {
            return refuse("peers.foreign", "name each foreign fleet once, as in fleet = \"other.example\"");
        }
        if foreign.root.is_some() && foreign.root().is_none() {
            return refuse(
                "peers.foreign",
                "write its root as 64 hex digits, as `bulla-fleet roster show` prints it",
            );
        }
    }
    if peers.registrar_seconds != 0 {
        between("peers.registrar_seconds", peers.registrar_seconds, 1, 86_400)?;
    }
    between("peers.neighbours_max", peers.neighbours_max as u64, 1, 64)?;
    between("peers.start_wait_seconds", peers.start_wait_seconds, 0, 60)?;
    between("peers.hint_seconds", peers.hint_seconds, 1, 3_600)?;
    if peers.challenge_every_seconds == 0 {
        return Ok(());
    }
    between("peers.challenge_every_seconds", peers.challenge_every_seconds, 2, 86_400)
}

/// `/ip4/A/tcp/P` or `/ip6/A/tcp/P`, which is all that boxes speak.
fn is_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let ["", family, host, "tcp", port] = parts[..] else { return false };
    let host = match family {
        "ip4" => host.parse::<std::net::Ipv4Addr>().is_ok(),
        "ip6" => host.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => false,
    };
    host && port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
}
