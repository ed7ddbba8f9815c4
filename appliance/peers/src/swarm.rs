//! What libp2p is told to be: TCP, Noise, Yamux, and the behaviours of a box.
//!
//! The order of the fields of [`Box`] matters: who is not on the list, or too much, is refused before any other part hears
//! of the connection.

use crate::codec::{Framing, PROTOCOL};
use crate::config::Limits;
use crate::counters::Counters;
use crate::door::Door;
use crate::error::StartError;
use crate::hints::Hints;
use crate::socket::{Felt, Pulse, Sockets};
use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, identify, mdns, noise, ping, request_response, tcp, yamux};
use socket2::SockRef;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection must be through its handshake after this.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(4);
/// What was sent must be acknowledged after this, or the cable is cut. Together with a ping every two seconds, a cut is
/// noticed on both sides after at most eight.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(6);
/// So much waits in the kernel beyond what the line carries; more, and a ping stands in line behind it.
const UNSENT_BYTES_MAX: u32 = 32 << 10;
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_WITHIN: Duration = Duration::from_secs(8);
/// Streams of one connection: pings, identity, gossip, requests.
const STREAMS_MAX: usize = 64;
/// Connections whose handshake is under way, in each direction.
const HANDSHAKES_MAX: u32 = 32;
/// Connections to one neighbour: one, and one that takes its place.
const CONNECTIONS_PER_PEER_MAX: u32 = 3;
/// Neighbours are looked for so often; who comes later announces itself.
const MDNS_EVERY: Duration = Duration::from_secs(60);
const MDNS_TTL: Duration = Duration::from_secs(150);

/// Everything a box does on the wire.
#[derive(NetworkBehaviour)]
pub(crate) struct Box {
    pub(crate) door: Door,
    pub(crate) list: allow_block_list::Behaviour<AllowedPeers>,
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    pub(crate) hints: Hints,
    pub(crate) ranges: request_response::Behaviour<Framing>,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// A swarm that listens nowhere and lets in nobody yet.
pub(crate) fn swarm(
    keys: &Keypair,
    limits: &Limits,
    mdns: bool,
    counters: Arc<Counters>,
    sockets: Sockets,
) -> Result<Swarm<Box>, StartError> {
    let own = keys.public().to_peer_id();
    let behaviour = Box {
        door: Door::new(Instant::now()),
        list: allow_block_list::Behaviour::default(),
        limits: connection_limits::Behaviour::new(connections(limits)),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_WITHIN)),
        identify: identify::Behaviour::new(
            identify::Config::new("bulla/1".to_owned(), keys.public())
                .with_agent_version("bulla".to_owned())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0),
        ),
        hints: Hints::new(keys, limits)?,
        ranges: request_response::Behaviour::with_codec(
            Framing::new(limits, counters),
            [(PROTOCOL, ProtocolSupport::Full)],
            request_response::Config::default()
                .with_request_timeout(limits.answer_within)
                .with_max_concurrent_streams(limits.asks_per_peer + limits.requests_per_peer),
        ),
        mdns: mdns.then(|| finder(own)).transpose()?.into(),
    };
    let config = libp2p::swarm::Config::with_tokio_executor()
        // Neighbours stay connected although nothing is said; pings notice when they are gone.
        .with_idle_connection_timeout(Duration::from_secs(u64::from(u32::MAX)))
        .with_max_negotiating_inbound_streams(16);
    Ok(Swarm::new(transport(keys, sockets)?, behaviour, own, config))
}

/// Looks for neighbours on the LAN.
pub(crate) fn finder(own: PeerId) -> Result<mdns::tokio::Behaviour, StartError> {
    let config = mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_EVERY, enable_ipv6: false };
    mdns::tokio::Behaviour::new(config, own).map_err(StartError::Mdns)
}

fn transport(keys: &Keypair, sockets: Sockets) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let noise = noise::Config::new(keys).map_err(|error| StartError::Library(error.to_string()))?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let transport = tcp
        .map(move |stream, _| {
            let pulse = Pulse::new(Instant::now());
            if let (Ok(remote), Ok(local)) = (stream.0.peer_addr(), stream.0.local_addr()) {
                sockets.note(remote, local, pulse.clone());
            }
            let socket = SockRef::from(&stream.0);
            // Both only help to notice earlier; a kernel without them still has pings.
            let set = [
                socket.set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN)),
                socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX),
            ];
            for error in set.into_iter().filter_map(Result::err) {
                log::debug!("a socket option is not to be had: {error}");
            }
            Felt::new(stream, pulse)
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .timeout(HANDSHAKE_WITHIN)
        .boxed();
    Ok(transport)
}

fn connections(limits: &Limits) -> ConnectionLimits {
    let peers = u32::try_from(limits.neighbours_max).unwrap_or(u32::MAX);
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(HANDSHAKES_MAX))
        .with_max_pending_outgoing(Some(peers.max(HANDSHAKES_MAX)))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
        .with_max_established(Some(peers.saturating_mul(2)))
}
