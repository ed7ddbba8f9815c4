//! How fast connections may come in, before anything is spent on their handshakes.
//!
//! - One address (of IPv6: one /64) may try a few times a second, all together some more.
//! - Addresses that are not remembered share one bucket; so ever new ones take no memory.

use crate::addresses::ip;
use crate::bucket::Bucket;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Instant;

/// From one address a second, and at once.
const ONE: (u32, u32) = (4, 24);
/// From all together.
const ALL: (u32, u32) = (32, 128);
/// Addresses remembered.
const KNOWN_MAX: usize = 256;

/// Too many connections come in.
#[derive(Debug, thiserror::Error)]
#[error("too many connections in too short a time")]
pub(crate) struct TooFast;

/// Counts who knocks.
pub(crate) struct Door {
    all: Bucket,
    known: HashMap<IpAddr, Bucket>,
    /// Everybody for whom there is no room in `known`.
    others: Bucket,
}

impl Door {
    pub(crate) fn new(now: Instant) -> Self {
        let bucket = |(per_second, burst)| Bucket::new(per_second, burst, now);
        Door { all: bucket(ALL), known: HashMap::new(), others: bucket(ONE) }
    }

    fn may_enter(&mut self, from: Option<IpAddr>, now: Instant) -> bool {
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, bucket| !bucket.is_full(now));
        }
        let room = self.known.len() < KNOWN_MAX;
        let bucket = match from.map(network) {
            Some(from) if room => self.known.entry(from).or_insert_with(|| Bucket::new(ONE.0, ONE.1, now)),
            Some(from) => self.known.get_mut(&from).unwrap_or(&mut self.others),
            None => &mut self.others,
        };
        // Whoever is too fast takes nothing from the others.
        bucket.take(now) && self.all.take(now)
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let fine = self.may_enter(ip(from), Instant::now());
        if fine { Ok(()) } else { Err(ConnectionDenied::new(TooFast)) }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, nothing: THandlerOutEvent<Self>) {
        match nothing {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn who_knocks_too_fast_shuts_out_itself() {
        let now = Instant::now();
        let mut door = Door::new(now);
        let one = Some(IpAddr::from([192, 0, 2, 1]));
        let other = Some(IpAddr::from([192, 0, 2, 2]));
        assert_eq!((0..1000).filter(|_| door.may_enter(one, now)).count(), ONE.1 as usize);
        assert!(door.may_enter(other, now));
    }

    #[test]
    fn ever_new_addresses_take_no_memory() {
        let now = Instant::now();
        let mut door = Door::new(now);
        let entered = (0..100_000_u32)
            .filter(|number| door.may_enter(Some(Ipv4Addr::from(*number).into()), now))
            .count();
        assert_eq!(entered, ALL.1 as usize);
        assert!(door.known.len() <= KNOWN_MAX);
        let (a, b) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:2".parse().unwrap());
        assert_eq!(network(a), network(b));
    }
}
