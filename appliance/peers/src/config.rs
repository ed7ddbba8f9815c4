//! What a wire is told when it starts: who we are, where we listen, whom we talk to, how much of anything.
//!
//! Refuses: what cannot be meant, before anything is opened.

use crate::addresses::usable;
use crate::error::ConfigError;
use crate::key::PeerKey;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;
use std::time::Duration;
use zeroize::Zeroizing;

/// Everything a wire is started with.
pub struct Config {
    /// The libp2p key: an Ed25519 seed. It is the box's name on the wire and signs nothing else.
    pub key: Zeroizing<[u8; 32]>,
    /// Where to listen, as multiaddrs: `/ip4/0.0.0.0/tcp/7440` follows the machine's addresses as they come and go.
    pub listen: Vec<String>,
    /// Whom to talk to. Nobody else gets in.
    pub neighbours: Vec<Neighbour>,
    /// Announce ourselves to the LAN and look for the neighbours there by multicast DNS.
    pub mdns: bool,
    /// How much of anything.
    pub limits: Limits,
}

/// Somebody to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Who.
    pub key: PeerKey,
    /// Where, as far as known; none is fine with multicast DNS, or when the neighbour knows where we are.
    pub addresses: Vec<String>,
}

/// Bounds. What is beyond them is refused or waits; it never takes memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Neighbours on the list.
    pub neighbours_max: usize,
    /// Bytes of one hint. 8 KiB hold a checkpoint with its lines.
    pub hint_bytes_max: usize,
    /// Bytes of one request.
    pub request_bytes_max: usize,
    /// Bytes of one answer.
    pub answer_bytes_max: usize,
    /// Requests of ours under way to one peer; further ones wait. Keep it below the neighbours' `requests_per_peer`.
    pub asks_per_peer: usize,
    /// Requests of ours under way in all. Times `answer_bytes_max`: what answers take at most.
    pub asks_total: usize,
    /// Requests of ours that wait in all.
    pub asks_queued: usize,
    /// Requests of one peer that wait for our answer; further ones are refused as busy.
    pub requests_per_peer: usize,
    /// Requests of all peers that wait for our answer.
    pub requests_total: usize,
    /// Hints of one author, and for each author hints passed on by one peer, a second; twice as many at once. More than
    /// the protocol lets anybody publish (`GossipConfig::hint_gap`): who keeps it loses a hint only when a line
    /// held many up.
    pub hints_per_second: u32,
    /// Requests of one peer a second; four times as many at once.
    pub requests_per_second: u32,
    /// Whether hints of one neighbour are passed on to the others. Whoever publishes tells all its own neighbours anyway.
    pub pass_on_hints: bool,
    /// Hints that wait for whoever reads events; further ones are dropped.
    pub hints_queued: usize,
    /// Events handed over and not yet read.
    pub events_queued: usize,
    /// How long a request may take, from its first byte to the last of the answer.
    pub answer_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            neighbours_max: 64,
            hint_bytes_max: 8 << 10,
            request_bytes_max: 64 << 10,
            answer_bytes_max: 5 << 20,
            asks_per_peer: 4,
            asks_total: 8,
            asks_queued: 256,
            requests_per_peer: 8,
            requests_total: 32,
            hints_per_second: 60,
            requests_per_second: 200,
            pass_on_hints: true,
            hints_queued: 256,
            events_queued: 8,
            answer_within: Duration::from_secs(90),
        }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("hint_bytes_max", self.hint_bytes_max),
            ("request_bytes_max", self.request_bytes_max),
            ("answer_bytes_max", self.answer_bytes_max),
            ("asks_per_peer", self.asks_per_peer),
            ("asks_total", self.asks_total),
            ("asks_queued", self.asks_queued),
            ("requests_per_peer", self.requests_per_peer),
            ("requests_total", self.requests_total),
            ("hints_per_second", self.hints_per_second as usize),
            ("requests_per_second", self.requests_per_second as usize),
            ("hints_queued", self.hints_queued),
            ("events_queued", self.events_queued),
            ("answer_within", self.answer_within.as_millis() as usize),
        ];
        zero.iter().find(|(_, value)| *value == 0).map_or(Ok(()), |(name, _)| Err(ConfigError::Limit(name)))
    }
}

/// A neighbour as libp2p knows it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) key: PeerKey,
    pub(crate) id: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// The list, if it can be meant.
pub(crate) fn listed(
    neighbours: &[Neighbour],
    own: PeerKey,
    limits: &Limits,
) -> Result<Vec<Listed>, ConfigError> {
    let (given, most) = (neighbours.len(), limits.neighbours_max);
    if given > most {
        return Err(ConfigError::TooMany { given, most });
    }
    let mut seen = HashSet::new();
    let listed = |neighbour: &Neighbour| {
        let key = neighbour.key;
        if key == own {
            return Err(ConfigError::Own(key));
        }
        if !seen.insert(key) {
            return Err(ConfigError::Twice(key));
        }
        let id = key.id().ok_or(ConfigError::Key(key))?;
        let address = |text: &String| {
            let parsed = text.parse().ok().and_then(|address| usable(&address, &id));
            parsed.ok_or_else(|| ConfigError::Address(text.clone()))
        };
        let addresses = neighbour.addresses.iter().map(address).collect::<Result<_, _>>()?;
        Ok(Listed { key, id, addresses })
    };
    neighbours.iter().map(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    fn key() -> PeerKey {
        PeerKey::of(&Keypair::generate_ed25519().public().to_peer_id()).unwrap()
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let (own, limits) = (key(), Limits::default());
        let of = |key, address: &str| Neighbour { key, addresses: vec![address.to_owned()] };
        let good = of(key(), "/ip4/192.0.2.1/tcp/7440");
        assert_eq!(listed(std::slice::from_ref(&good), own, &limits).unwrap()[0].key, good.key);
        for (bad, why) in [
            (vec![of(own, "/ip4/192.0.2.1/tcp/1")], ConfigError::Own(own)),
            (vec![good.clone(), good.clone()], ConfigError::Twice(good.key)),
            (vec![of(key(), "192.0.2.1:7440")], ConfigError::Address("192.0.2.1:7440".into())),
            (vec![of(key(), "/dns/box/tcp/1")], ConfigError::Address("/dns/box/tcp/1".into())),
            (vec![good.clone(); 65], ConfigError::TooMany { given: 65, most: 64 }),
        ] {
            assert_eq!(listed(&bad, own, &limits).unwrap_err(), why);
        }
        assert_eq!(limits.check(), Ok(()));
        assert_eq!(Limits { asks_total: 0, ..limits }.check(), Err(ConfigError::Limit("asks_total")));
    }
}
