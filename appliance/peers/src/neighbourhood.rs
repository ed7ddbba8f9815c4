//! The list, and for each neighbour on it where it may be, whether it is being called, its connections and its meters.

use crate::addresses::Addresses;
use crate::config::{Limits, Listed};
use crate::dialer::Call;
use crate::event::Gone;
use crate::guard::Guard;
use crate::key::PeerKey;
use crate::links::Links;
use libp2p::PeerId;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// One neighbour.
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    pub(crate) addresses: Addresses,
    pub(crate) call: Call,
    pub(crate) links: Links,
    pub(crate) guard: Guard,
    /// Why its connections end, when it is we who end them.
    pub(crate) leaving: Option<Gone>,
    /// Requests of ours under way to it.
    pub(crate) asks: usize,
    /// Requests of its that wait for us.
    pub(crate) requests: usize,
}

/// All of them.
pub(crate) struct Neighbourhood {
    own: PeerKey,
    peers: HashMap<PeerId, Peer>,
}

/// What a new list changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) added: Vec<PeerId>,
    pub(crate) removed: Vec<(PeerId, PeerKey)>,
}

impl Neighbourhood {
    pub(crate) fn new(own: PeerKey) -> Self {
        Neighbourhood { own, peers: HashMap::new() }
    }

    /// Takes over a new list. Whoever stays on it keeps everything but the listed addresses.
    pub(crate) fn list(&mut self, list: Vec<Listed>, limits: &Limits, now: Instant) -> Changes {
        let stay: HashSet<PeerId> = list.iter().map(|listed| listed.id).collect();
        let mut changes = Changes::default();
        self.peers.retain(|id, peer| {
            let stays = stay.contains(id);
            if !stays {
                changes.removed.push((*id, peer.key));
            }
            stays
        });
        for Listed { key, id, addresses } in list {
            let own = self.own;
            let peer = self.peers.entry(id).or_insert_with(|| {
                changes.added.push(id);
                let salt = key.bytes()[..4].iter().chain(&own.bytes()[..4]);
                let salt =
                    salt.fold(0_u32, |salt, byte| salt.wrapping_mul(31).wrapping_add(u32::from(*byte)));
                Peer {
                    key,
                    addresses: Addresses::default(),
                    call: Call::new(own < key, salt, now),
                    links: Links::default(),
                    guard: Guard::new(limits, now),
                    leaving: None,
                    asks: 0,
                    requests: 0,
                }
            });
            peer.addresses.list(addresses);
            peer.call.news(now);
        }
        changes
    }

    pub(crate) fn get(&mut self, id: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id)
    }

    pub(crate) fn by_key(&mut self, key: PeerKey) -> Option<(PeerId, &mut Peer)> {
        let id = key.id()?;
        self.peers.get_mut(&id).map(|peer| (id, peer))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerId, &mut Peer)> {
        self.peers.iter_mut()
    }

    /// Who is to be called now.
    pub(crate) fn to_call(&self, now: Instant) -> Vec<PeerId> {
        let due = |(id, peer): (&PeerId, &Peer)| peer.call.due().filter(|due| *due <= now).map(|_| *id);
        self.peers.iter().filter_map(due).collect()
    }

    /// Who may come back now.
    pub(crate) fn to_forgive(&self, now: Instant) -> Vec<PeerId> {
        let due = |peer: &Peer| peer.guard.shut_out_until().is_some_and(|until| until <= now);
        self.peers.iter().filter(|(_, peer)| due(peer)).map(|(id, _)| *id).collect()
    }

    /// When there is something to do next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let dues = self
            .peers
            .values()
            .flat_map(|peer| [peer.call.due(), peer.guard.shut_out_until(), peer.links.silent_at()]);
        dues.flatten().min()
    }

    /// How many let us in.
    pub(crate) fn connected(&self) -> usize {
        self.peers.values().filter(|peer| peer.links.let_in()).count()
    }
}
