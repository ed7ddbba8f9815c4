//! Where neighbours may be: what the list says, what they say of themselves, what the LAN says of them.
//!
//! - Each source has its own places, so that nobody who lies on the LAN pushes out what the list or the peer itself says.
//! - The newest of a source stays, the oldest goes. All of it is only a guess: who answers there must prove its key.
//!
//! Refuses: anything but an IP address with a TCP port; nothing is looked up by name.

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::net::{IpAddr, SocketAddr};

/// Addresses kept from each source but the list.
const SEEN_MAX: usize = 4;
/// Addresses kept from the list.
const LISTED_MAX: usize = 8;

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The peer itself, over a connection that proves its key.
    Itself,
    /// Somebody on the LAN.
    Lan,
}

/// Where one neighbour may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    listed: Vec<Multiaddr>,
    itself: Vec<Multiaddr>,
    lan: Vec<Multiaddr>,
}

impl Addresses {
    /// What the list says takes the place of what it said before.
    pub(crate) fn list(&mut self, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(LISTED_MAX);
        self.listed = addresses;
    }

    /// Remembers an address; says whether it is news.
    pub(crate) fn see(&mut self, source: Source, address: Multiaddr) -> bool {
        let known = self.all().contains(&address);
        let places = match source {
            Source::Itself => &mut self.itself,
            Source::Lan => &mut self.lan,
        };
        places.retain(|other| *other != address);
        places.insert(0, address);
        places.truncate(SEEN_MAX);
        !known
    }

    /// The LAN does not say so any more.
    pub(crate) fn forget(&mut self, address: &Multiaddr) {
        self.lan.retain(|other| other != address);
    }

    /// All of them, each once.
    pub(crate) fn all(&self) -> Vec<Multiaddr> {
        let mut all: Vec<Multiaddr> = Vec::new();
        for address in self.listed.iter().chain(&self.itself).chain(&self.lan) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }
}

/// The address without its key, if this peer can be dialled there.
pub(crate) fn usable(address: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    match parts.next() {
        Some(Protocol::P2p(named)) if named != *peer => return None,
        None | Some(Protocol::P2p(_)) => {}
        Some(_) => return None,
    }
    let place = !ip.is_unspecified() && !ip.is_multicast() && port != 0 && parts.next().is_none();
    place.then(|| Multiaddr::from(ip).with(Protocol::Tcp(port)))
}

/// The IP address in front, if there is one.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

/// IP address and port in front, if they are there.
pub(crate) fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    match address.iter().nth(1)? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip(address)?, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn liars_on_the_lan_push_out_nothing_but_each_other() {
        let mut addresses = Addresses::default();
        addresses.list(vec![at(1)]);
        assert!(addresses.see(Source::Itself, at(2)));
        for port in 100..200 {
            addresses.see(Source::Lan, at(port));
        }
        assert_eq!(addresses.all(), [at(1), at(2), at(199), at(198), at(197), at(196)]);
        assert!(!addresses.see(Source::Lan, at(2)), "no news");
        addresses.forget(&at(199));
        assert!(!addresses.all().contains(&at(199)));
        addresses.list(Vec::new());
        assert!(!addresses.all().contains(&at(1)));
    }

    #[test]
    fn only_an_address_and_a_port_is_a_place() {
        let peer = PeerId::random();
        let place = |text: &str| usable(&text.parse().unwrap(), &peer);
        assert_eq!(place("/ip4/192.0.2.7/tcp/1"), Some(at(1)));
        assert_eq!(place(&format!("/ip4/192.0.2.7/tcp/1/p2p/{peer}")), Some(at(1)));
        assert!(place("/ip6/2001:db8::1/tcp/1").is_some());
        for bad in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::/tcp/1",
            "/ip4/224.0.0.251/tcp/1",
            "/ip4/192.0.2.7/tcp/0",
            "/ip4/192.0.2.7/udp/1",
            "/ip4/192.0.2.7",
            "/dns/box.example/tcp/1",
            "/ip4/192.0.2.7/tcp/1/http",
        ] {
            assert_eq!(place(bad), None, "{bad}");
        }
        assert_eq!(place(&format!("/ip4/192.0.2.7/tcp/1/p2p/{}", PeerId::random())), None);
    }
}
