//! `[peers]`: where this box meets its neighbours, and how much of anything.
//!
//! Refuses to do: say who they are; an operator hands in their cards with `bulla-box peers add`.

use super::{ConfigError, between, refuse};
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
    /// Take cards of boxes of other fleets too. Default false.
    pub other_fleets: bool,
    /// Most neighbours. Default 64.
    pub neighbours_max: usize,
    /// Longest wait at a start, in seconds, for what the neighbours know of this box's own log. Default 5; 0: no wait.
    pub start_wait_seconds: u64,
    /// A new head that nobody waits for is told to the neighbours no more often than every so many seconds. Default 5.
    pub hint_seconds: u64,
}

impl Default for PeersConfig {
    fn default() -> Self {
        PeersConfig {
            listen: vec![LISTEN_DEFAULT.to_owned()],
            advertise: Vec::new(),
            mdns: true,
            other_fleets: false,
            neighbours_max: 64,
            start_wait_seconds: 5,
            hint_seconds: 5,
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
    between("peers.neighbours_max", peers.neighbours_max as u64, 1, 64)?;
    between("peers.start_wait_seconds", peers.start_wait_seconds, 0, 60)?;
    between("peers.hint_seconds", peers.hint_seconds, 1, 3_600)
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
