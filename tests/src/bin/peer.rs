//! A wire as a program, for tests: `peer <seed> [--mdns] [--listen <multiaddr>] [<key>@<address>|<key> ...]`.
//!
//! The libp2p key's seed is the byte `<seed>` 32 times. Lines on standard input:
//!
//! | line | does |
//! |---|---|
//! | `hint <text>` | publishes |
//! | `ask <key> echo <text>`, `give <bytes>`, `hold`, `drop` | asks; the other side answers so |
//! | `list <key>@<address> ...` | takes over a list |
//! | `pause`, `resume` | stops reading events, goes on |
//! | `count` | prints the counters |
//!
//! Events are JSON lines on standard output. It ends when its input does.

use anyhow::{Context, Result};
use bulla_peers::{Config, Event, Limits, Neighbour, PeerKey, Reply, Wire};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seed: u8 = arguments.next().context("a seed")?.parse()?;
    let mut config = Config {
        key: [seed; 32].into(),
        listen: Vec::new(),
        neighbours: Vec::new(),
        mdns: false,
        limits: Limits::default(),
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--mdns" => config.mdns = true,
            "--listen" => config.listen.push(arguments.next().context("--listen takes an address")?),
            _ => config.neighbours.push(neighbour(&argument)?),
        }
    }
    if config.listen.is_empty() {
        config.listen.push("/ip4/0.0.0.0/tcp/7440".to_owned());
    }
    // Lines come from a thread: standard input has no other way to be waited for beside events.
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(config, lines))
}

async fn run(config: Config, lines: Receiver<String>) -> Result<()> {
    let (wire, mut events) = Wire::start(config).await?;
    let (sender, mut orders) = tokio::sync::mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        while let Ok(line) = lines.recv() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let (mut paused, mut held) = (false, Vec::new());
    loop {
        tokio::select! {
            event = events.recv(), if !paused => match event {
                Some(event) => say(&describe(event, &mut held)),
                None => break,
            },
            order = orders.recv() => match order.as_deref() {
                Some("pause") => paused = true,
                Some("resume") => paused = false,
                Some(order) => obey(&wire, order)?,
                None => break,
            },
        }
    }
    wire.stop().await;
    Ok(())
}

fn say(event: &Value) {
    let mut out = std::io::stdout().lock();
    // Nobody listens: the end of the input will come, too.
    let _ = writeln!(out, "{event}").and_then(|()| out.flush());
}

fn obey(wire: &Wire, order: &str) -> Result<()> {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    let refused =
        |why: &dyn std::fmt::Display| say(&json!({"event": "busy", "order": order, "why": why.to_string()}));
    match verb {
        "hint" => wire.publish(rest.as_bytes().to_vec()).unwrap_or_else(|error| refused(&error)),
        "ask" => {
            let (peer, request) = rest.split_once(' ').context("ask <key> <request>")?;
            if let Err(error) = wire.ask(key(peer)?, request.as_bytes().to_vec()) {
                refused(&error);
            }
        }
        "list" => {
            let list = rest.split_whitespace().map(neighbour).collect::<Result<Vec<_>>>()?;
            wire.set_neighbours(&list)?;
        }
        "count" => {
            let mut counted = json!({"event": "counted"});
            for (name, number) in wire.counted().rows() {
                counted[name] = number.into();
            }
            say(&counted);
        }
        _ => anyhow::bail!("`{order}` is no order"),
    }
    Ok(())
}

fn describe(event: Event, held: &mut Vec<Reply>) -> Value {
    match event {
        Event::Listening { address } => json!({"event": "listening", "address": address}),
        Event::Connected { peer } => json!({"event": "connected", "peer": peer.to_string()}),
        Event::Disconnected { peer, why } => {
            json!({"event": "disconnected", "peer": peer.to_string(), "why": format!("{why:?}")})
        }
        Event::Hint { from, bytes } => {
            json!({"event": "hint", "peer": from.to_string(), "text": short(&bytes)})
        }
        Event::Asked { from, bytes, reply } => {
            let text = short(&bytes);
            answer(&bytes, reply, held);
            json!({"event": "asked", "peer": from.to_string(), "text": text})
        }
        Event::Answered { id, peer, result } => {
            let (bytes, text, error) = match &result {
                Ok(bytes) => (bytes.len(), short(bytes), None),
                Err(error) => (0, String::new(), Some(format!("{error:?}"))),
            };
            json!({"event": "answered", "id": id.0, "peer": peer.to_string(), "bytes": bytes, "text": text, "error": error})
        }
        Event::Refused { peer, address, why, times } => json!({
            "event": "refused", "peer": peer.map(|peer| peer.to_string()), "address": address,
            "why": format!("{why:?}"), "times": times,
        }),
        Event::AddressSeen { peer, address } => {
            json!({"event": "address", "peer": peer.to_string(), "address": address})
        }
    }
}

fn answer(request: &[u8], reply: Reply, held: &mut Vec<Reply>) {
    let request = String::from_utf8_lossy(request);
    let (verb, rest) = request.split_once(' ').unwrap_or((&request, ""));
    // An asker that is gone by now misses nothing.
    let _ = match verb {
        "echo" => reply.answer(rest.as_bytes().to_vec()),
        "give" => reply.answer(vec![0x5a; rest.parse().unwrap_or(0)]),
        "hold" => {
            held.push(reply);
            Ok(())
        }
        _ => Ok(()),
    };
}

fn short(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned()
}

fn key(text: &str) -> Result<PeerKey> {
    let bytes: [u8; 32] = hex::decode(text)?.try_into().ok().context("a key has 32 bytes")?;
    Ok(PeerKey::new(bytes))
}

fn neighbour(text: &str) -> Result<Neighbour> {
    let (name, addresses) = match text.split_once('@') {
        Some((name, address)) => (name, vec![address.to_owned()]),
        None => (text, Vec::new()),
    };
    Ok(Neighbour { key: key(name)?, addresses })
}
