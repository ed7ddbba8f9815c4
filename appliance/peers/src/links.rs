//! The connections to one neighbour, and which of two stays.
//!
//! Pure. Both sides decide alike, without asking each other:
//!
//! - Of two made at about the same time stays the one that the smaller key made.
//! - Else the newer one stays: the older one is of an address, a process or a cable that is not there any more.

use crate::socket::Pulse;
use libp2p::swarm::ConnectionId;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Connections that are not further apart than this were made at the same time.
const SAME_TIME: Duration = Duration::from_secs(2);
/// Without a byte for so long, though pings ask for one every two seconds, a connection is dead. The kernel notices most cut
/// cables earlier; on a slow line an answer may have to wait for seconds.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    /// We made it.
    pub(crate) ours: bool,
    pub(crate) since: Instant,
    /// The other side has let us in: it answers.
    pub(crate) let_in: bool,
    /// When it was heard last: by any byte, the answer to a ping or another, or because it was made.
    pub(crate) pulse: Pulse,
    /// Which of our addresses it is made from.
    pub(crate) local: Option<IpAddr>,
    /// It does not leave the machine.
    pub(crate) loopback: bool,
}

/// All connections to one neighbour.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<Link>);

impl Links {
    /// One more. What is returned is to be closed. `first` says that we are the one who calls first.
    pub(crate) fn add(&mut self, link: Link, first: bool) -> Vec<ConnectionId> {
        self.0.push(link);
        let newest = self.0.iter().map(|link| link.since).max();
        let Some(newest) = newest.filter(|_| self.0.len() > 1) else { return Vec::new() };
        let fresh: Vec<&Link> =
            self.0.iter().filter(|link| newest.duration_since(link.since) < SAME_TIME).collect();
        let wanted = fresh.iter().rev().find(|link| link.ours == first);
        let stays = wanted.or(fresh.last()).map(|link| link.id);
        self.0.iter().map(|link| link.id).filter(|id| Some(*id) != stays).collect()
    }

    /// One less; returns it.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Link> {
        let at = self.0.iter().position(|link| link.id == id)?;
        Some(self.0.remove(at))
    }

    /// This one.
    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut Link> {
        self.0.iter_mut().find(|link| link.id == id)
    }

    /// Those from this address of ours.
    pub(crate) fn from(&self, local: IpAddr) -> impl Iterator<Item = ConnectionId> {
        self.0.iter().filter(move |link| link.local == Some(local)).map(|link| link.id)
    }

    /// Those that have been silent for too long.
    pub(crate) fn silent(&self, now: Instant) -> impl Iterator<Item = ConnectionId> {
        let silent = move |link: &&Link| now.duration_since(link.pulse.last()) >= SILENT_AFTER;
        self.0.iter().filter(silent).map(|link| link.id)
    }

    /// When the first of them will have been.
    pub(crate) fn silent_at(&self) -> Option<Instant> {
        self.0.iter().map(|link| link.pulse.last() + SILENT_AFTER).min()
    }

    /// There is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them lets us in.
    pub(crate) fn let_in(&self) -> bool {
        self.0.iter().any(|link| link.let_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: usize, ours: bool, since: Instant) -> Link {
        let id = ConnectionId::new_unchecked(number);
        Link { id, ours, since, pulse: Pulse::new(since), let_in: false, local: None, loopback: false }
    }

    #[test]
    fn of_two_calls_at_once_both_sides_keep_the_same() {
        let now = Instant::now();
        // Connection 1 was made by the smaller key, 2 by the other one; each side sees them in either order.
        for order in [[1, 2], [2, 1]] {
            for first in [true, false] {
                let mut links = Links::default();
                let [one, two] = order.map(|number| link(number, (number == 1) == first, now));
                assert!(links.add(one, first).is_empty());
                assert_eq!(links.add(two, first), [ConnectionId::new_unchecked(2)], "{order:?} {first}");
            }
        }
    }

    #[test]
    fn an_old_connection_makes_room_for_a_new_one() {
        let now = Instant::now();
        for first in [true, false] {
            let mut links = Links::default();
            links.add(link(1, first, now), first);
            let later = now + 2 * SAME_TIME;
            assert_eq!(links.add(link(2, !first, later), first), [ConnectionId::new_unchecked(1)]);
            assert!(links.remove(ConnectionId::new_unchecked(1)).is_some());
            assert!(links.remove(ConnectionId::new_unchecked(1)).is_none());
            assert!(links.get(ConnectionId::new_unchecked(2)).is_some_and(|link| !link.let_in));
        }
    }

    #[test]
    fn who_is_silent_for_too_long_is_named() {
        let now = Instant::now();
        let mut links = Links::default();
        assert_eq!(links.silent_at(), None);
        links.add(link(1, true, now), true);
        let then = links.silent_at().unwrap();
        assert_eq!((links.silent(now).count(), links.silent(then).count()), (0, 1));
        links.get(ConnectionId::new_unchecked(1)).unwrap().pulse.beat(then);
        assert_eq!(links.silent(then).count(), 0);
    }

    #[test]
    fn of_two_of_one_side_the_newer_stays() {
        let now = Instant::now();
        let mut links = Links::default();
        links.add(link(1, true, now), true);
        let soon = now + Duration::from_millis(10);
        assert_eq!(links.add(link(2, true, soon), true), [ConnectionId::new_unchecked(1)]);
    }
}
