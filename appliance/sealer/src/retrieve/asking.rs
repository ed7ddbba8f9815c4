//! Questions to the neighbours at a box that does not run, one at a time.
//!
//! Refuses to do: answer anybody; what neighbours ask meanwhile finds a box that is not there yet.
//! Invariant: only those whose cards are given are called or let in.

use crate::config::PeersConfig;
use anyhow::{Context as _, Result, bail};
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::message::{Answer, Asked, Question, Said};
use bulla_peers::{Event, Limits, Neighbour, PeerKey, Wire};
use ed25519_dalek::SigningKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;
use zeroize::Zeroizing;

/// A line to the neighbours.
pub struct Asking {
    runtime: Runtime,
    wire: Wire,
    events: Receiver<Event>,
    there: BTreeSet<PeerKey>,
    troubles: BTreeMap<PeerKey, String>,
}

impl Asking {
    /// Calls all of them, as the box with this transport key.
    pub fn begin(config: &PeersConfig, transport: &SigningKey, cards: &[PeerCard]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let neighbour = |card: &PeerCard| Neighbour {
            key: PeerKey::new(*card.transport_key()),
            addresses: card.content().addresses.clone(),
        };
        let config = bulla_peers::Config {
            key: Zeroizing::new(transport.to_bytes()),
            listen: config.listen.clone(),
            neighbours: cards.iter().map(neighbour).collect(),
            mdns: config.mdns,
            limits: Limits { neighbours_max: config.neighbours_max, ..Limits::default() },
        };
        let (wire, events) = runtime.block_on(Wire::start(config))?;
        Ok(Asking { runtime, wire, events, there: BTreeSet::new(), troubles: BTreeMap::new() })
    }

    /// Waits until each of them is connected, at most so long.
    pub fn wait_for(&mut self, cards: &[PeerCard], patience: Duration) {
        let end = Instant::now() + patience;
        while !cards.iter().all(|card| self.there.contains(&PeerKey::new(*card.transport_key()))) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            match self.next(left) {
                Some(event) => self.note(event),
                None => return,
            }
        }
    }

    /// What is known of why this one is not there.
    pub fn trouble(&self, card: &PeerCard) -> String {
        let trouble = self.troubles.get(&PeerKey::new(*card.transport_key())).cloned();
        trouble.unwrap_or_else(|| "nobody answers at its addresses".to_owned())
    }

    /// Puts a question and waits for the answer, which the wire bounds.
    ///
    /// # Errors
    /// No answer, or one that is none.
    pub fn ask(&mut self, card: &PeerCard, asked: Asked) -> Result<Said> {
        let key = PeerKey::new(*card.transport_key());
        if !self.there.contains(&key) {
            bail!("{}", self.trouble(card));
        }
        let put = self.wire.ask(key, Question::new(asked).encode())?;
        loop {
            match self.next(Limits::default().answer_within * 2).context("it does not answer")? {
                Event::Answered { id, result, .. } if id == put => {
                    return Ok(Answer::decode(&result?).context("its answer is none")?.said);
                }
                event => self.note(event),
            }
        }
    }

    /// Says good-bye.
    pub fn end(self) {
        let Asking { runtime, wire, events, .. } = self;
        drop(events);
        runtime.block_on(wire.stop());
    }

    fn next(&mut self, within: Duration) -> Option<Event> {
        let Asking { runtime, events, .. } = self;
        runtime.block_on(async { tokio::time::timeout(within, events.recv()).await.ok().flatten() })
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Connected { peer } => {
                self.there.insert(peer);
                self.troubles.remove(&peer);
            }
            Event::Disconnected { peer, .. } => {
                self.there.remove(&peer);
                self.troubles.insert(peer, "it has gone".to_owned());
            }
            Event::Refused { peer: Some(peer), why, .. } => {
                self.troubles.insert(peer, why.to_string());
            }
            Event::Refused { .. }
            | Event::Asked { .. }
            | Event::Answered { .. }
            | Event::Hint { .. }
            | Event::Listening { .. }
            | Event::AddressSeen { .. } => {}
        }
    }
}
