//! The handle: what may be said to a wire.
//!
//! - No call waits for the network. What cannot be taken now is refused as busy, and is still the caller's.
//! - Dropping the handle, or the receiver of its events, ends the task and closes every connection.

use crate::config::{Config, Limits, Listed, Neighbour, listed};
use crate::counters::{Counted, Counters};
use crate::error::{BusyError, ConfigError, StartError};
use crate::event::{AskId, Event};
use crate::key::PeerKey;
use crate::socket::Sockets;
use crate::swarm::swarm;
use crate::task::Task;
use libp2p::Multiaddr;
use libp2p::identity::{Keypair, ed25519};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// Hints that wait to be published.
const HINTS_WAITING_MAX: usize = 64;

/// What the task is told. Each holds its place in a queue until it is done.
pub(crate) enum Command {
    /// Tell everybody.
    Publish(Vec<u8>, OwnedSemaphorePermit),
    /// Ask one peer.
    Ask(Ask),
}

/// A request of ours.
pub(crate) struct Ask {
    pub(crate) id: AskId,
    pub(crate) peer: PeerKey,
    pub(crate) bytes: Vec<u8>,
    pub(crate) until: Instant,
    pub(crate) place: OwnedSemaphorePermit,
}

/// A running wire.
pub struct Wire {
    own: PeerKey,
    limits: Limits,
    counters: Arc<Counters>,
    commands: mpsc::UnboundedSender<Command>,
    list: watch::Sender<Vec<Listed>>,
    asks: Arc<Semaphore>,
    hints: Arc<Semaphore>,
    next_ask: AtomicU64,
    task: JoinHandle<()>,
}

impl Wire {
    /// Listens, and calls the neighbours, in a task of the runtime that this is called in.
    pub async fn start(config: Config) -> Result<(Wire, mpsc::Receiver<Event>), StartError> {
        let Config { mut key, listen, neighbours, mdns, limits } = config;
        limits.check()?;
        // Takes the bytes and leaves zeros; libp2p's own copies are zeroed when they are dropped.
        let secret = ed25519::SecretKey::try_from_bytes(&mut *key)
            .map_err(|error| StartError::Library(error.to_string()))?;
        let keys = Keypair::from(ed25519::Keypair::from(secret));
        let own = PeerKey::of(&keys.public().to_peer_id())
            .ok_or_else(|| StartError::Library("an Ed25519 id without its key".to_owned()))?;
        let list = listed(&neighbours, own, &limits)?;
        let counters = Arc::<Counters>::default();
        let sockets = Sockets::default();
        let mut swarm = swarm(&keys, &limits, mdns, counters.clone(), sockets.clone())?;
        for address in &listen {
            let parsed: Multiaddr = address.parse().map_err(|_| ConfigError::Address(address.clone()))?;
            swarm.listen_on(parsed).map_err(|error| {
                let why = match error {
                    libp2p::TransportError::MultiaddrNotSupported(_) => {
                        return ConfigError::Address(address.clone()).into();
                    }
                    libp2p::TransportError::Other(error) => error.to_string(),
                };
                StartError::Listen { address: address.clone(), why }
            })?;
        }
        let (commands, orders) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::channel(limits.events_queued);
        let (list_sender, list_receiver) = watch::channel(list);
        let task = Task::new(swarm, own, limits.clone(), counters.clone(), sockets, events);
        let task = tokio::spawn(task.run(orders, list_receiver));
        let asks = Arc::new(Semaphore::new(limits.asks_queued));
        let hints = Arc::new(Semaphore::new(HINTS_WAITING_MAX));
        let (list, next_ask) = (list_sender, AtomicU64::new(0));
        Ok((Wire { own, limits, counters, commands, list, asks, hints, next_ask, task }, receiver))
    }

    /// Our own name on the wire.
    pub fn own(&self) -> PeerKey {
        self.own
    }

    /// Tells every peer that is there. It may be lost, and nobody says so.
    pub fn publish(&self, bytes: Vec<u8>) -> Result<(), BusyError> {
        check(bytes.len(), self.limits.hint_bytes_max)?;
        let place = self.hints.clone().try_acquire_owned().map_err(|_| self.full())?;
        self.commands.send(Command::Publish(bytes, place)).map_err(|_| BusyError::Stopped)
    }

    /// Asks one peer. However it ends, exactly one [`Event::Answered`] with this id follows, within
    /// [`Limits::answer_within`]; unless the wire is stopped first.
    pub fn ask(&self, peer: PeerKey, bytes: Vec<u8>) -> Result<AskId, BusyError> {
        check(bytes.len(), self.limits.request_bytes_max)?;
        let place = self.asks.clone().try_acquire_owned().map_err(|_| self.full())?;
        let id = AskId(self.next_ask.fetch_add(1, Relaxed));
        let until = Instant::now() + self.limits.answer_within;
        let ask = Ask { id, peer, bytes, until, place };
        self.commands.send(Command::Ask(ask)).map_err(|_| BusyError::Stopped)?;
        Ok(id)
    }

    /// Takes over a new list of neighbours. Connections to whoever is not on it end at once, whoever is new is called.
    pub fn set_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), ConfigError> {
        let list = listed(neighbours, self.own, &self.limits)?;
        self.list.send_replace(list);
        Ok(())
    }

    /// What has passed so far.
    pub fn counted(&self) -> Counted {
        self.counters.read()
    }

    /// Whether the task still runs.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Says good-bye to the peers and ends; nothing is listening any more when this returns.
    pub async fn stop(self) {
        let Wire { commands, list, task, .. } = self;
        drop((commands, list));
        if let Err(error) = task.await {
            log::error!("the wire to the peers ended badly: {error}");
        }
    }

    fn full(&self) -> BusyError {
        if self.is_running() { BusyError::Full } else { BusyError::Stopped }
    }
}

fn check(bytes: usize, most: usize) -> Result<(), BusyError> {
    if bytes > most { Err(BusyError::TooLong { bytes, most }) } else { Ok(()) }
}
