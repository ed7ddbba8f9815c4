//! Gossip, with a meter in front of it.
//!
//! Gossipsub keeps what it has received for some seconds by time, not by size. So what one neighbour passes on is counted
//! here before gossipsub sees it; what is too much is dropped unseen.
//!
//! - One topic; subscriptions to others are not even remembered.
//! - Every message is signed by its author (strict); the task lets pass only those of neighbours, and only those are passed on.

use crate::bucket::Bucket;
use crate::config::Limits;
use crate::error::StartError;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, Event, IdentTopic, IdentityTransform, MessageAcceptance, MessageAuthenticity,
    MessageId, PublishError, ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The topic with its version.
const TOPIC: &str = "bulla/hints/1";
/// Around a hint: author, number, topic, signature, framing.
const ENVELOPE_BYTES: usize = 512;
/// A neighbour passes on hints of so many authors ...
const AUTHORS: u32 = 4;
/// ... and has so much to say about gossip itself, a second.
const CONTROL_PER_SECOND: u32 = 20;
/// Duplicates of what came within this time are dropped; whatever is repeated later is a hint like any other.
const REMEMBERED: Duration = Duration::from_secs(60);

type Gossip = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// Gossip behind its meter.
pub(crate) struct Hints {
    gossip: Gossip,
    topic: IdentTopic,
    per_second: u32,
    meters: HashMap<PeerId, Bucket>,
    /// Whose messages were dropped; one entry a message, taken by the task after each event.
    over: VecDeque<PeerId>,
}

/// Dropped messages that wait to be told; further ones are dropped in silence.
const OVER_MAX: usize = 1024;

impl Hints {
    pub(crate) fn new(keys: &Keypair, limits: &Limits) -> Result<Self, StartError> {
        let library = |error: &dyn std::fmt::Display| StartError::Library(error.to_string());
        let topic = IdentTopic::new(TOPIC);
        let config = ConfigBuilder::default()
            .max_transmit_size(limits.hint_bytes_max + ENVELOPE_BYTES)
            .validation_mode(ValidationMode::Strict)
            .validate_messages()
            .flood_publish(true)
            .duplicate_cache_time(REMEMBERED)
            .connection_handler_queue_len(64)
            .max_publish_messages(8)
            .build()
            .map_err(|error| library(&error))?;
        let filter = WhitelistSubscriptionFilter([topic.hash()].into());
        let authentic = MessageAuthenticity::Signed(keys.clone());
        let mut gossip = Gossip::new_with_subscription_filter(authentic, config, filter)
            .map_err(|error| library(&error))?;
        gossip.subscribe(&topic).map_err(|error| library(&error))?;
        let per_second = limits.hints_per_second.saturating_mul(AUTHORS).saturating_add(CONTROL_PER_SECOND);
        Ok(Hints { gossip, topic, per_second, meters: HashMap::new(), over: VecDeque::new() })
    }

    /// Tells everybody, as far as anybody is there.
    pub(crate) fn publish(&mut self, bytes: Vec<u8>) -> Result<(), PublishError> {
        self.gossip.publish(self.topic.clone(), bytes).map(drop)
    }

    /// Whether a message is to be passed on; each is judged once.
    pub(crate) fn judge(&mut self, id: &MessageId, from: &PeerId, acceptance: MessageAcceptance) {
        self.gossip.report_message_validation_result(id, from, acceptance);
    }

    /// Somebody whose message was dropped because there were too many.
    pub(crate) fn over(&mut self) -> Option<PeerId> {
        self.over.pop_front()
    }
}

impl NetworkBehaviour for Hints {
    type ConnectionHandler = <Gossip as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gossip.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gossip.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, remaining_established: 0, .. }) = event
        {
            self.meters.remove(&peer_id);
        }
        self.gossip.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let (now, per_second) = (Instant::now(), self.per_second);
        let meter = self
            .meters
            .entry(peer)
            .or_insert_with(|| Bucket::new(per_second, per_second.saturating_mul(2), now));
        if meter.take(now) {
            self.gossip.on_connection_handler_event(peer, connection, event);
        } else if self.over.len() < OVER_MAX {
            self.over.push_back(peer);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.gossip.poll(context)
    }
}
