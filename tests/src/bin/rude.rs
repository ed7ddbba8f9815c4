//! A listed peer that behaves badly, for tests: `rude <seed> <manner> <key>@<address>`.
//!
//! It speaks libp2p without the limits of `bulla-peers`, and shares no code with it.
//!
//! | manner | does |
//! |---|---|
//! | `drip` | opens eight requests of ten bytes and sends a byte a second of each, over and over |
//! | `giant` | announces a request of 4 GiB and sends what is taken of it; publishes hints of a megabyte |
//! | `flood` | sends hints and requests as fast as it can |
//! | `swallow` | asks for answers and reads none of them |
//!
//! What happens to it is a JSON line on standard output.

use anyhow::{Context, Result, bail};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity};
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, noise, ping, tcp, yamux};
use serde_json::json;
use std::io;
use std::time::Duration;

/// Requests under way at once.
const AT_ONCE: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Drip,
    Giant,
    Flood,
    Swallow,
}

#[derive(NetworkBehaviour)]
struct Rude {
    ping: ping::Behaviour,
    gossip: gossipsub::Behaviour,
    ranges: request_response::Behaviour<Rules>,
}

/// The framing of requests, as far as the manner keeps to it.
#[derive(Clone)]
struct Rules(Manner);

impl Codec for Rules {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        if self.0 == Manner::Swallow {
            std::future::pending::<()>().await;
        }
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await?;
        Ok(answer)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let length =
            if self.0 == Manner::Giant { u32::MAX } else { u32::try_from(request.len()).unwrap_or(0) };
        io.write_all(&length.to_be_bytes()).await?;
        match self.0 {
            Manner::Drip => {
                for byte in request {
                    io.write_all(&[byte]).await?;
                    io.flush().await?;
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            }
            Manner::Giant => {
                for _ in 0..4096 {
                    io.write_all(&[0x5a; 1 << 20]).await?;
                }
            }
            Manner::Flood | Manner::Swallow => io.write_all(&request).await?,
        }
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seed, manner, target] = &arguments[..] else { bail!("rude <seed> <manner> <key>@<address>") };
    let manner = match manner.as_str() {
        "drip" => Manner::Drip,
        "giant" => Manner::Giant,
        "flood" => Manner::Flood,
        "swallow" => Manner::Swallow,
        other => bail!("`{other}` is no manner"),
    };
    let mut seed = [seed.parse::<u8>()?; 32];
    let keys = Keypair::from(ed25519::Keypair::from(ed25519::SecretKey::try_from_bytes(&mut seed)?));
    let (key, address) = target.split_once('@').context("<key>@<address>")?;
    let key = ed25519::PublicKey::try_from_bytes(&hex::decode(key)?)?;
    behave(keys, manner, PublicKey::from(key).to_peer_id(), address.parse()?).await
}

async fn behave(keys: Keypair, manner: Manner, target: PeerId, address: Multiaddr) -> Result<()> {
    let topic = IdentTopic::new("bulla/hints/1");
    let config = gossipsub::ConfigBuilder::default().max_transmit_size(4 << 20).build()?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Signed(keys.clone()), config)
        .map_err(|error| anyhow::anyhow!(error))?;
    gossip.subscribe(&topic)?;
    let config = request_response::Config::default().with_request_timeout(Duration::from_secs(3600));
    let protocol = (StreamProtocol::new("/bulla/range/1"), ProtocolSupport::Outbound);
    let behaviour = Rude {
        ping: ping::Behaviour::default(),
        gossip,
        ranges: request_response::Behaviour::with_codec(Rules(manner), [protocol], config),
    };
    let mut swarm = SwarmBuilder::with_existing_identity(keys)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| behaviour)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    let mut tick =
        tokio::time::interval(Duration::from_millis(if manner == Manner::Flood { 1 } else { 500 }));
    let (mut under_way, mut number) = (0, 0_u64);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if !swarm.is_connected(&target) {
                    let dial = DialOpts::peer_id(target).addresses(vec![address.clone()]).build();
                    // Being dialled already, or refused: it tries again.
                    let _ = swarm.dial(dial);
                    continue;
                }
                let at_once = if manner == Manner::Flood { 64 } else { AT_ONCE };
                while under_way < at_once {
                    let request = match manner {
                        Manner::Swallow => b"give 5000000".to_vec(),
                        Manner::Flood => b"echo flood".to_vec(),
                        Manner::Drip | Manner::Giant => vec![b'x'; 10],
                    };
                    swarm.behaviour_mut().ranges.send_request(&target, request);
                    under_way += 1;
                }
                let hints = match manner {
                    Manner::Flood => 100,
                    Manner::Giant => 1,
                    Manner::Drip | Manner::Swallow => 0,
                };
                for _ in 0..hints {
                    number += 1;
                    let mut hint = number.to_be_bytes().to_vec();
                    hint.resize(if manner == Manner::Giant { 1 << 20 } else { 200 }, 0);
                    // What it cannot send, it cannot send.
                    let _ = swarm.behaviour_mut().gossip.publish(topic.clone(), hint);
                }
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { .. } => println!("{}", json!({"event": "open"})),
                SwarmEvent::ConnectionClosed { .. } => println!("{}", json!({"event": "closed"})),
                SwarmEvent::Behaviour(RudeEvent::Ranges(event)) => {
                    use request_response::Event::{Message, OutboundFailure};
                    if let OutboundFailure { error, .. } = &event
                        && manner != Manner::Flood
                    {
                        println!("{}", json!({"event": "failed", "why": error.to_string()}));
                    }
                    if matches!(event, Message { .. } | OutboundFailure { .. }) {
                        under_way = under_way.saturating_sub(1);
                    }
                }
                _ => {}
            },
        }
    }
}
