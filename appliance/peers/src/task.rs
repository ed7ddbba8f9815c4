//! The loop between the handle, the network and whoever reads the events. It owns the swarm; nobody else touches it.
//!
//! Invariants:
//! - The swarm is polled whatever the reader of events does: pings are answered, connections stay. What cannot be handed
//!   over waits in the [`Outbox`], within its bounds, or is refused.
//! - Every request of ours ends in exactly one event; its place is given back when that has been handed over.
//! - When it ends, everything it owns is closed.

use crate::addresses::{Source, ip, socket, usable};
use crate::codec::{Answer, Request};
use crate::config::{Limits, Listed};
use crate::counters::{Counters, add, count};
use crate::error::AskFailure;
use crate::event::{Event, Gone, Refusal, Reply};
use crate::key::PeerKey;
use crate::links::Link;
use crate::neighbourhood::Neighbourhood;
use crate::outbox::{Answered, Asked, Outbox};
use crate::reports::Reports;
use crate::socket::{Pulse, Sockets};
use crate::swarm::{Box as Behaviours, BoxEvent, finder};
use crate::wire::{Ask, Command};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use libp2p::allow_block_list::NotAllowed;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::MessageAcceptance;
use libp2p::request_response::{
    InboundRequestId, Message, OutboundFailure, OutboundRequestId, ResponseChannel,
};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionError, ConnectionId, DialError, FromSwarm, ListenError, NetworkBehaviour, NewListenAddr,
    SwarmEvent,
};
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, identify, mdns, ping, request_response};
use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// How long the good-bye may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// When nothing else is due.
const TICK: Duration = Duration::from_secs(5);
/// Addresses that the LAN may claim, of whomever; more of them are an attack on our memory, and the search begins anew.
const FOUND_MAX: usize = 1024;

type ReplyFuture = Pin<Box<dyn Future<Output = (ResponseChannel<Answer>, Option<Vec<u8>>)> + Send>>;

/// A request of ours that is under way.
struct UnderWay {
    ask: crate::event::AskId,
    peer: PeerId,
    key: PeerKey,
    place: OwnedSemaphorePermit,
}

/// See the top of the file.
pub(crate) struct Task {
    swarm: Swarm<Behaviours>,
    neighbours: Neighbourhood,
    limits: Limits,
    counters: Arc<Counters>,
    sockets: Sockets,
    events: mpsc::Sender<Event>,
    outbox: Outbox,
    reports: Reports,
    /// Requests of ours that wait for their turn.
    waiting: VecDeque<Ask>,
    under_way: HashMap<OutboundRequestId, UnderWay>,
    /// Requests of peers that wait for an answer.
    held: HashMap<InboundRequestId, PeerId>,
    replies: FuturesUnordered<ReplyFuture>,
    /// Where we listen now.
    listening: Vec<(ListenerId, Multiaddr)>,
}

impl Task {
    pub(crate) fn new(
        swarm: Swarm<Behaviours>,
        own: PeerKey,
        limits: Limits,
        counters: Arc<Counters>,
        sockets: Sockets,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Task {
            swarm,
            neighbours: Neighbourhood::new(own),
            outbox: Outbox::new(limits.hints_queued),
            limits,
            counters,
            sockets,
            events,
            reports: Reports::default(),
            waiting: VecDeque::new(),
            under_way: HashMap::new(),
            held: HashMap::new(),
            replies: FuturesUnordered::new(),
            listening: Vec::new(),
        }
    }

    /// Runs until the handle or the reader of events is gone.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut list: watch::Receiver<Vec<Listed>>,
    ) {
        let first = list.borrow_and_update().clone();
        self.list(first);
        let events = self.events.clone();
        loop {
            self.hang_up();
            self.call();
            self.send_asks();
            self.counters.connections.store(self.neighbours.connected() as u64, Relaxed);
            let next = self.next_due();
            tokio::select! {
                room = events.reserve(), if !self.outbox.is_empty() => match room {
                    Ok(room) => if let Some(event) = self.outbox.next() { room.send(event) },
                    Err(_) => break,
                },
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = commands.recv() => match command {
                    Some(Command::Publish(bytes, _place)) => self.publish(bytes),
                    Some(Command::Ask(ask)) => self.waiting.push_back(ask),
                    None => break,
                },
                Ok(()) = list.changed() => {
                    let list = list.borrow_and_update().clone();
                    self.list(list);
                }
                Some((channel, answer)) = self.replies.next(), if !self.replies.is_empty() => {
                    self.reply(channel, answer.map_or(Answer::Declined, Answer::Whole));
                }
                () = tokio::time::sleep_until(next.into()) => {}
                () = events.closed() => break,
            }
        }
        self.goodbye().await;
    }

    async fn goodbye(mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            // Whoever is gone already needs no good-bye.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.network_info().connection_counters().num_established() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(GOODBYE_WITHIN, closed).await.is_err() {
            log::debug!("some peers were left without a good-bye");
        }
    }

    fn next_due(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let asks = self.waiting.iter().map(|ask| ask.until).min();
        [self.neighbours.next_due(), asks].into_iter().flatten().fold(tick, Instant::min)
    }

    // The list, and who is called.

    fn list(&mut self, list: Vec<Listed>) {
        let changes = self.neighbours.list(list, &self.limits, Instant::now());
        for id in changes.added {
            self.swarm.behaviour_mut().list.allow_peer(id);
        }
        for (id, key) in changes.removed {
            self.swarm.behaviour_mut().list.disallow_peer(id);
            self.outbox.stands(key, Err(Gone::Unlisted));
        }
    }

    fn call(&mut self) {
        let now = Instant::now();
        for id in self.neighbours.to_forgive(now) {
            if let Some(peer) = self.neighbours.get(&id) {
                peer.guard.forgive(now);
                self.swarm.behaviour_mut().list.allow_peer(id);
            }
        }
        for id in self.neighbours.to_call(now) {
            let Some(peer) = self.neighbours.get(&id) else { continue };
            peer.call.begin(now);
            let addresses = peer.addresses.all();
            if addresses.is_empty() {
                peer.call.failed(now);
            } else {
                self.dial(id, addresses);
            }
        }
    }

    fn dial(&mut self, id: PeerId, addresses: Vec<Multiaddr>) {
        count(&self.counters.dials);
        let condition = PeerCondition::DisconnectedAndNotDialing;
        // Two calls at once between two listening ports would be one connection with two beginnings.
        let call =
            DialOpts::peer_id(id).condition(condition).addresses(addresses).allocate_new_port().build();
        if let Err(error) = self.swarm.dial(call) {
            self.not_reached(&id, &error);
        }
    }

    fn not_reached(&mut self, id: &PeerId, error: &DialError) {
        count(&self.counters.dials_failed);
        let now = Instant::now();
        let Some(peer) = self.neighbours.get(id) else { return };
        if peer.links.is_empty() {
            peer.call.failed(now);
            if let Some(until) = peer.guard.shut_out_until() {
                peer.call.not_before(until);
            }
        }
        let key = peer.key;
        log::debug!("peer {key} is not reached: {error}");
        if let DialError::WrongPeerId { address, .. } = error {
            self.refuse(Some(key), Some(address), Refusal::WrongPeer);
        }
    }

    /// An address of ours has gone: whatever went over it is dead, and nobody else will tell us soon.
    fn address_lost(&mut self, address: &Multiaddr) {
        let Some(lost) = ip(address) else { return };
        let mut dead = Vec::new();
        for (_, peer) in self.neighbours.iter_mut() {
            let before = dead.len();
            dead.extend(peer.links.from(lost));
            if dead.len() > before {
                peer.leaving = Some(Gone::AddressLost);
            }
        }
        for connection in dead {
            self.swarm.close_connection(connection);
        }
    }

    fn see(&mut self, id: &PeerId, source: Source, address: Multiaddr) {
        let Some(peer) = self.neighbours.get(id) else { return };
        if peer.addresses.see(source, address.clone()) {
            peer.call.news(Instant::now());
            if source == Source::Itself {
                let (peer, address) = (peer.key, address.to_string());
                self.outbox.report(Event::AddressSeen { peer, address });
            }
        }
    }

    // Refusals.

    fn refuse(&mut self, peer: Option<PeerKey>, address: Option<&Multiaddr>, why: Refusal) {
        let address = address.map(Multiaddr::to_string);
        if let Some(event) = self.reports.note(peer, address, why, Instant::now()) {
            if let Event::Refused { peer, address, why, times } = &event {
                let who = peer.map_or_else(|| "somebody".to_owned(), |peer| format!("peer {peer}"));
                let place = address.as_deref().unwrap_or("an unknown place");
                log::warn!("refused {who} at {place} ({times} times): {why}");
            }
            self.outbox.report(event);
        }
    }

    /// A neighbour is over one of its rates.
    fn strike(&mut self, id: &PeerId, why: Refusal) {
        let now = Instant::now();
        let Some(peer) = self.neighbours.get(id) else { return };
        let key = peer.key;
        let out = peer.guard.strike(now);
        self.refuse(Some(key), None, why);
        if out {
            self.shut_out(id, key);
        }
    }

    fn shut_out(&mut self, id: &PeerId, key: PeerKey) {
        count(&self.counters.shut_out);
        self.refuse(Some(key), None, Refusal::Flood);
        self.swarm.behaviour_mut().list.disallow_peer(*id);
        if let Some(peer) = self.neighbours.get(id) {
            peer.leaving = Some(Gone::ShutOut);
            if let Some(until) = peer.guard.shut_out_until() {
                peer.call.not_before(until);
            }
        }
    }

    // Hints.

    fn publish(&mut self, bytes: Vec<u8>) {
        let length = bytes.len();
        match self.swarm.behaviour_mut().hints.publish(bytes) {
            Ok(()) => {
                count(&self.counters.hints_out);
                add(&self.counters.hint_bytes_out, length);
            }
            Err(error) => log::debug!("a hint is lost: {error}"),
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        let author = message.source.filter(|author| self.neighbours.get(author).is_some());
        let verdict = match author {
            Some(author) => self.on_hint(&author, message.data),
            None => {
                let from = PeerKey::of(&propagation_source);
                self.refuse(from, None, Refusal::ForeignHint);
                MessageAcceptance::Reject
            }
        };
        let verdict = match verdict {
            MessageAcceptance::Accept if !self.limits.pass_on_hints => MessageAcceptance::Ignore,
            verdict => verdict,
        };
        self.swarm.behaviour_mut().hints.judge(&message_id, &propagation_source, verdict);
    }

    fn on_hint(&mut self, author: &PeerId, bytes: Vec<u8>) -> MessageAcceptance {
        let Some(peer) = self.neighbours.get(author) else { return MessageAcceptance::Reject };
        let key = peer.key;
        if !peer.guard.hint(Instant::now()) {
            count(&self.counters.hints_dropped);
            self.strike(author, Refusal::TooManyHints);
            return MessageAcceptance::Ignore;
        }
        let length = bytes.len();
        if length > self.limits.hint_bytes_max {
            return MessageAcceptance::Reject;
        }
        if self.outbox.hint(key, bytes) {
            count(&self.counters.hints_in);
            add(&self.counters.hint_bytes_in, length);
        } else {
            count(&self.counters.hints_dropped);
        }
        MessageAcceptance::Accept
    }

    // Requests of ours.

    fn send_asks(&mut self) {
        let now = Instant::now();
        let mut later = VecDeque::new();
        while let Some(ask) = self.waiting.pop_front() {
            let full = self.under_way.len() + self.outbox.answers_waiting() >= self.limits.asks_total;
            let Some((id, peer)) = self.neighbours.by_key(ask.peer).filter(|(_, peer)| peer.links.let_in())
            else {
                self.end(ask, AskFailure::NotConnected);
                continue;
            };
            if ask.until <= now {
                self.end(ask, AskFailure::Late);
            } else if full || peer.asks >= self.limits.asks_per_peer {
                later.push_back(ask);
            } else {
                peer.asks += 1;
                let Ask { id: ask, peer: key, bytes, place, .. } = ask;
                let request = self.swarm.behaviour_mut().ranges.send_request(&id, Request::Whole(bytes));
                self.under_way.insert(request, UnderWay { ask, peer: id, key, place });
            }
        }
        self.waiting = later;
    }

    fn end(&mut self, ask: Ask, why: AskFailure) {
        let Ask { id, peer, place, .. } = ask;
        self.outbox.answered(Answered { id, peer, result: Err(why), place });
    }

    fn ended(&mut self, request: OutboundRequestId, result: Result<Vec<u8>, AskFailure>) {
        let Some(UnderWay { ask, peer, key, place }) = self.under_way.remove(&request) else { return };
        if let Some(peer) = self.neighbours.get(&peer) {
            peer.asks = peer.asks.saturating_sub(1);
        }
        self.outbox.answered(Answered { id: ask, peer: key, result, place });
    }

    // Requests of peers.

    fn on_request(
        &mut self,
        id: &PeerId,
        request: InboundRequestId,
        read: Request,
        channel: ResponseChannel<Answer>,
    ) {
        let held = self.held.len();
        let Some(peer) = self.neighbours.get(id) else { return };
        let Request::Whole(bytes) = read else {
            self.reply(channel, Answer::Declined);
            self.strike(id, Refusal::BrokenRequest);
            return;
        };
        let key = peer.key;
        let slow_enough = peer.guard.request(Instant::now());
        if !slow_enough
            || peer.requests >= self.limits.requests_per_peer
            || held >= self.limits.requests_total
        {
            count(&self.counters.requests_busy);
            self.reply(channel, Answer::Busy);
            if !slow_enough {
                self.strike(id, Refusal::TooManyRequests);
            }
            return;
        }
        peer.requests += 1;
        self.held.insert(request, *id);
        let (sender, answer) = oneshot::channel();
        let reply = Reply { sender, bytes_max: self.limits.answer_bytes_max };
        self.replies.push(Box::pin(async move { (channel, answer.await.ok()) }));
        self.outbox.asked(Asked { id: request, from: key, bytes, reply });
    }

    fn reply(&mut self, channel: ResponseChannel<Answer>, answer: Answer) {
        // When nobody waits for it any more, the failure of the stream has told so.
        let _ = self.swarm.behaviour_mut().ranges.send_response(channel, answer);
    }

    fn released(&mut self, request: InboundRequestId) {
        self.outbox.withdraw(request);
        let Some(id) = self.held.remove(&request) else { return };
        if let Some(peer) = self.neighbours.get(&id) {
            peer.requests = peer.requests.saturating_sub(1);
        }
    }

    fn on_range(&mut self, event: request_response::Event<Request, Answer>) {
        use request_response::Event::{
            InboundFailure as In, Message as Came, OutboundFailure as Out, ResponseSent,
        };
        match event {
            Came { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.on_request(&peer, request_id, request, channel);
            }
            Came { message: Message::Response { request_id, response }, .. } => {
                let result = match response {
                    Answer::Whole(bytes) => Ok(bytes),
                    Answer::Busy => Err(AskFailure::Busy),
                    Answer::Declined => Err(AskFailure::Declined),
                };
                self.ended(request_id, result);
            }
            Out { request_id, error, .. } => self.ended(request_id, Err(ask_failure(&error))),
            // It was cut, or the asker did not take the answer in time.
            In { request_id, .. } => self.released(request_id),
            ResponseSent { request_id, .. } => self.released(request_id),
        }
    }

    // Connections.

    fn on_swarm(&mut self, event: SwarmEvent<BoxEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, num_established, .. } => {
                self.closed(&peer_id, connection_id, num_established == 0, cause.as_ref());
            }
            SwarmEvent::IncomingConnectionError { peer_id, send_back_addr, error, .. } => {
                count(&self.counters.refused);
                let listed = peer_id.is_some_and(|id| self.neighbours.get(&id).is_some());
                let why = match &error {
                    // Who is on the list and not allowed has been shut out.
                    ListenError::Denied { cause }
                        if listed && cause.downcast_ref::<NotAllowed>().is_some() =>
                    {
                        Refusal::Flood
                    }
                    ListenError::Denied { cause } if cause.downcast_ref::<NotAllowed>().is_some() => {
                        Refusal::Unknown
                    }
                    ListenError::Denied { .. } => Refusal::TooManyConnections,
                    _ => Refusal::Handshake,
                };
                self.refuse(peer_id.as_ref().and_then(PeerKey::of), Some(&send_back_addr), why);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(id), error, .. } => {
                self.not_reached(&id, &error)
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.listening.push((listener_id, address.clone()));
                log::info!("peers are listened for on {address}");
                self.outbox.report(Event::Listening { address: address.to_string() });
                let now = Instant::now();
                self.neighbours.iter_mut().for_each(|(_, peer)| peer.call.news(now));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.retain(|(_, other)| *other != address);
                log::info!("this machine has lost its address {address}");
                self.address_lost(&address);
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                log::error!("peers are not listened for on {addresses:?} any more: {error}");
            }
            SwarmEvent::ListenerError { error, .. } => log::warn!("a connection was not accepted: {error}"),
            _ => {}
        }
        while let Some(peer) = self.swarm.behaviour_mut().hints.over() {
            count(&self.counters.hints_dropped);
            self.strike(&peer, Refusal::TooManyHints);
        }
    }

    fn on_behaviour(&mut self, event: BoxEvent) {
        match event {
            BoxEvent::Hints(event) => self.on_gossip(event),
            BoxEvent::Ranges(event) => self.on_range(event),
            BoxEvent::Ping(event) => self.on_ping(event),
            BoxEvent::Identify(identify::Event::Received { peer_id, connection_id, info }) => {
                let Some(peer) = self.neighbours.get(&peer_id) else { return };
                let here = peer.links.get(connection_id).is_some_and(|link| link.loopback);
                for address in
                    info.listen_addrs.iter().take(16).filter_map(|address| usable(address, &peer_id))
                {
                    // Its own loopback is not ours, unless it is on this machine.
                    if here || ip(&address).is_some_and(|ip| !ip.is_loopback()) {
                        self.see(&peer_id, Source::Itself, address);
                    }
                }
            }
            BoxEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (id, address) in found {
                    if let Some(address) = usable(&address, &id) {
                        self.see(&id, Source::Lan, address);
                    }
                }
                self.bound_search();
            }
            BoxEvent::Mdns(mdns::Event::Expired(gone)) => {
                for (id, address) in gone {
                    let address = usable(&address, &id);
                    if let (Some(peer), Some(address)) = (self.neighbours.get(&id), address) {
                        peer.addresses.forget(&address);
                    }
                }
            }
            BoxEvent::Identify(_) => {}
            BoxEvent::Door(nothing) | BoxEvent::List(nothing) | BoxEvent::Limits(nothing) => match nothing {},
        }
    }

    fn established(&mut self, id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(peer) = self.neighbours.get(&id) else {
            self.swarm.close_connection(connection);
            return;
        };
        let remote = endpoint.get_remote_address();
        let known = socket(remote).and_then(|remote| self.sockets.take(remote));
        let loopback = ip(remote).is_some_and(|ip| ip.is_loopback());
        let (ours, since) = (endpoint.is_dialer(), Instant::now());
        let (local, pulse) = known.map_or((None, Pulse::new(since)), |(local, pulse)| (Some(local), pulse));
        peer.call.connected();
        let link = Link { id: connection, ours, since, pulse, let_in: false, local, loopback };
        for surplus in peer.links.add(link, peer.call.is_first()) {
            self.swarm.close_connection(surplus);
        }
    }

    fn closed(&mut self, id: &PeerId, connection: ConnectionId, last: bool, cause: Option<&ConnectionError>) {
        let now = Instant::now();
        let Some(peer) = self.neighbours.get(id) else { return };
        let (key, link) = (peer.key, peer.links.remove(connection));
        if !last {
            return;
        }
        let why = peer.leaving.take().unwrap_or_else(|| gone(cause));
        if link.as_ref().is_some_and(|link| !link.let_in && link.ours) {
            peer.call.not_let_in(now);
            self.refuse(Some(key), None, Refusal::NotLetIn);
        } else {
            peer.call.gone(now);
            if why == Gone::AddressLost {
                peer.call.moved(now);
            }
        }
        if let Some(peer) = self.neighbours.get(id)
            && let Some(until) = peer.guard.shut_out_until()
        {
            peer.call.not_before(until);
        }
        if link.is_some_and(|link| link.let_in) {
            count(&self.counters.disconnects);
            log::info!("peer {key} is gone: {why:?}");
        }
        self.outbox.stands(key, Err(why));
    }

    fn on_ping(&mut self, event: ping::Event) {
        let ping::Event { peer: id, connection, result } = event;
        let Some(peer) = self.neighbours.get(&id) else { return };
        let Some(link) = peer.links.get(connection) else { return };
        if let Err(error) = result {
            log::debug!("peer {} has not answered a ping: {error}", peer.key);
            return;
        }
        if !std::mem::replace(&mut link.let_in, true) {
            peer.call.let_in();
            let key = peer.key;
            log::info!("peer {key} is there");
            self.outbox.stands(key, Ok(()));
        }
    }

    fn hang_up(&mut self) {
        let (now, mut dead) = (Instant::now(), Vec::new());
        for (_, peer) in self.neighbours.iter_mut() {
            for connection in peer.links.silent(now).collect::<Vec<_>>() {
                peer.leaving = Some(Gone::Silent);
                dead.push(connection);
                // It is closing; that it goes on saying nothing is no news before the next time is up.
                if let Some(link) = peer.links.get(connection) {
                    link.pulse.beat(now);
                }
            }
        }
        for connection in dead {
            self.swarm.close_connection(connection);
        }
    }

    /// libp2p keeps whatever anybody on the LAN claims until it expires. When that is more than any LAN has, it begins anew.
    fn bound_search(&mut self) {
        let own = *self.swarm.local_peer_id();
        let found = self.swarm.behaviour().mdns.as_ref().map_or(0, |mdns| mdns.discovered_nodes().len());
        if found <= FOUND_MAX {
            return;
        }
        log::warn!("the LAN claims {found} addresses of peers: the search for them begins anew");
        match finder(own) {
            Ok(mut mdns) => {
                // It announces what it has been told of.
                for (listener_id, addr) in &self.listening {
                    let event = NewListenAddr { listener_id: *listener_id, addr };
                    mdns.on_swarm_event(FromSwarm::NewListenAddr(event));
                }
                self.swarm.behaviour_mut().mdns = Some(mdns).into();
            }
            Err(error) => log::error!("{error}"),
        }
    }
}

fn ask_failure(error: &OutboundFailure) -> AskFailure {
    match error {
        OutboundFailure::DialFailure => AskFailure::NotConnected,
        OutboundFailure::Timeout => AskFailure::Late,
        OutboundFailure::ConnectionClosed => AskFailure::Cut,
        OutboundFailure::UnsupportedProtocols => AskFailure::OtherVersion,
        OutboundFailure::Io(error) => match error.kind() {
            ErrorKind::TimedOut => AskFailure::Late,
            ErrorKind::InvalidData => AskFailure::Broken,
            _ => AskFailure::Cut,
        },
    }
}

/// Whether the cable or the peer ended it.
fn gone(cause: Option<&ConnectionError>) -> Gone {
    let mut error: Option<&(dyn Error + 'static)> = cause.map(|cause| cause as _);
    while let Some(cause) = error {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && matches!(
                io.kind(),
                ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            )
        {
            return Gone::Silent;
        }
        error = cause.source();
    }
    Gone::Closed
}
