//! The thread itself: what has happened goes to the machine, what it wants is carried out, until nothing is left.
//!
//! Invariants: one effect at a time, in the order in which the machine wanted them; before anything else the own log is
//! looked at, so that no head of it comes back from a peer before the machine knows it.

use super::challenge::Challenges;
use super::copies::Copy;
use super::cosigned::ToldHeads;
use super::courier::Courier;
use super::elsewhere::Documents;
use super::together::Together;
use super::{Handle, Inbox, Message, finding};
use crate::approved::Place;
use crate::config::PeersConfig;
use crate::driver::clock::boottime_millis;
use crate::driver::{Command, Condition, Shared, attest, outage};
use crate::peers::{Allowed, NeighbourStore, Own, Rosters, Stamp, allowed};
use anyhow::{Context as _, Result};
use bulla_formats::body::mirror::CosignedHead;
use bulla_formats::body::roster::Came;
use bulla_formats::hash::Hash;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::roster::RosterKnown;
use bulla_formats::witness::Role;
use bulla_ledger::{Control, DirShelf, MirrorOptions, Mirrors};
use bulla_peers::{AskId, Event, Limits, Neighbour, PeerKey, Wire};
use bulla_protocol::gossip::{
    Ask, Finding, Gossip, GossipConfig, GossipEffect, GossipEvent, GossipStart, Head, Name, Standing,
};
use bulla_roster::delivery;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

/// A mirror entry is logged no more often than this by a box that retires: it waits for nothing else.
const RETIRING_ENTRY_EVERY_MILLIS: u64 = 2_000;
/// Longest pause between two looks.
const LOOK_MILLIS: u64 = 1_000;
/// For one neighbour the TPM quotes no more often than this.
const QUOTE_GAP_MILLIS: u64 = 10_000;
/// Directory of the mirrors in the state directory.
pub const MIRRORS: &str = "mirrors";

/// How copies are kept by a box that keeps so much room for itself.
pub fn mirror_options(reserve_bytes: u64) -> MirrorOptions {
    let mut options = MirrorOptions::new(Arc::new(Documents));
    options.log.reserve_bytes = reserve_bytes.saturating_mul(2);
    options
}

/// What the thread is made of.
pub struct Parts {
    pub(in crate::driver) shared: Arc<Shared>,
    pub(in crate::driver) queue: mpsc::Sender<Command>,
    pub(in crate::driver) control: Control,
    pub(in crate::driver) outage: outage::Handle,
    pub(in crate::driver) attestor: attest::Handle,
    pub(in crate::driver) own: Own,
    pub(in crate::driver) config: PeersConfig,
    pub(in crate::driver) reserve_bytes: u64,
    pub(in crate::driver) state_dir: PathBuf,
    pub(in crate::driver) place: Place,
    pub(in crate::driver) handle: Handle,
    pub(in crate::driver) runtime: tokio::runtime::Handle,
    /// Whoever starts the box waits here for what the neighbours know of it.
    pub(in crate::driver) start: Sender<Standing>,
}

/// A tree that the last answer showed to lead to a head.
pub(super) struct Shown {
    pub origin: Name,
    pub begins: Head,
    pub head: Head,
    pub proof: Vec<Hash>,
}

/// State of the thread.
pub struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Sender<Command>,
    pub(super) control: Control,
    pub(super) outage: outage::Handle,
    pub(super) attestor: attest::Handle,
    pub(super) own: Own,
    pub(super) name: Name,
    pub(super) machine: Gossip,
    pub(super) wire: Wire,
    pub(super) mirrors: Arc<Mirrors>,
    pub(super) store: NeighbourStore,
    stamp: Option<Stamp>,
    /// Cards that operators have handed in.
    pub(super) by_hand: Vec<PeerCard>,
    pub(super) config: PeersConfig,
    /// The own fleet, and the rosters.
    pub(super) fleet: String,
    pub(super) rosters: Rosters,
    /// Who is let in, and why.
    pub(super) allowed: Allowed,
    /// The version of the own fleet's roster, for whoever asks the registrar.
    pub(super) version: watch::Sender<Option<RosterKnown>>,
    /// Questions for the roster under way.
    pub(super) asked_roster: HashMap<AskId, Name>,
    pub(super) together: Together,
    /// When neighbours were last connected, and how many hold the own log.
    pub(super) there: BTreeMap<Name, u64>,
    pub(super) holders: u32,
    pub(super) rosters_at: u64,
    pub(super) log_rosters_at: u64,
    /// Cards of the neighbours, and whose key is whose.
    pub(super) cards: BTreeMap<Name, PeerCard>,
    pub(super) by_key: HashMap<PeerKey, Name>,
    /// Right edges of the neighbours' logs as they are here.
    pub(super) copies: BTreeMap<Name, Copy>,
    /// Notes of heads that the machine still knows.
    pub(super) notes: BTreeMap<Name, BTreeMap<Head, String>>,
    /// Questions under way.
    pub(super) asked: HashMap<AskId, (u64, Name, Ask)>,
    /// Verified entries, until they are stored.
    pub(super) verified: HashMap<u64, (Vec<Vec<u8>>, Copy)>,
    pub(super) shown: Option<Shown>,
    pub(super) challenges: Challenges,
    /// Proofs of forks, judged.
    pub(super) forks: BTreeMap<Name, Vec<u8>>,
    /// Newest cosignatures of the own log.
    pub(super) cosigned: BTreeMap<(Name, Role), CosignedHead>,
    /// What neighbours could have cosigned of it: heads that they were told of, with their notes.
    pub(super) told_heads: ToldHeads,
    pub(super) troubles: BTreeMap<Name, String>,
    pub(super) standing: Option<Standing>,
    start: Option<Sender<Standing>>,
    /// Size of the own log's newest head, as told to the machine.
    pub(super) told: u64,
    awaited: u64,
    /// When to look at the list of neighbours again.
    cards_at: u64,
    pub(super) events: VecDeque<GossipEvent>,
    runtime: tokio::runtime::Handle,
    handle: Handle,
}

impl Desk {
    /// Takes up the mirrors, and begins to listen.
    pub fn open(parts: Parts) -> Result<Self> {
        let Parts { shared, own, config, runtime, state_dir, .. } = parts;
        let directory = state_dir.join(MIRRORS);
        crate::identity::make_private_dir(&directory)?;
        let shelf =
            DirShelf::open(&directory).with_context(|| format!("cannot open {}", directory.display()))?;
        let mirrors = Arc::new(
            Mirrors::open(Arc::new(shelf), mirror_options(parts.reserve_bytes))
                .context("the neighbours' logs cannot be taken up")?,
        );
        // Set once; nobody reads it before.
        let _ = shared.mirrors.set(mirrors.clone());
        for unreadable in mirrors.unreadable() {
            log::error!("the mirror {} cannot be used: {}", unreadable.directory, unreadable.what);
        }
        let store = NeighbourStore::new(&state_dir);
        let (stamp, by_hand, accepted) = (store.stamp()?, store.list()?, store.accepted()?);
        let name: Name = Arc::from(shared.origin.as_str());
        let fleet = shared.origin.fleet().to_owned();
        let rosters = Rosters::open(&state_dir, parts.control.clone(), shared.trust.clone(), &config)?;
        let allowed = allowed(&own.card, &config, &by_hand, rosters.all());
        let cards = allowed.cards();
        let known = rosters.of(&fleet).map(|held| delivery::known(held.roster.version()));
        let (version, versions) = watch::channel(known);
        let wire = bulla_peers::Config {
            key: Zeroizing::new(own.transport.to_bytes()),
            listen: config.listen.clone(),
            neighbours: neighbours(&cards),
            mdns: config.mdns,
            limits: Limits {
                neighbours_max: config.neighbours_max,
                // Heads of the own fleet's boxes are not for others.
                pass_on_hints: config.foreign.is_empty(),
                ..Limits::default()
            },
        };
        let (wire, mut events) = runtime.block_on(Wire::start(wire))?;
        let handle = parts.handle.clone();
        let pump = move || {
            while let Some(event) = events.blocking_recv() {
                if !handle.wire(event) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("peers".to_owned()).spawn(pump).context("cannot start a thread")?;
        let snapshot = shared.reader.snapshot();
        let head = Head { size: snapshot.size(), root: snapshot.root() };
        let mut desk = Desk {
            by_key: by_key(&cards),
            machine: Gossip::new(GossipConfig::default(), &start(&name, head, &cards), boottime_millis()),
            queue: parts.queue,
            control: parts.control,
            outage: parts.outage,
            attestor: parts.attestor,
            own,
            name,
            wire,
            mirrors,
            store,
            stamp,
            by_hand,
            fleet,
            rosters,
            allowed,
            version,
            asked_roster: HashMap::new(),
            together: Together::default(),
            there: BTreeMap::new(),
            holders: 0,
            rosters_at: 0,
            log_rosters_at: 0,
            config,
            cards,
            copies: BTreeMap::new(),
            notes: BTreeMap::new(),
            asked: HashMap::new(),
            verified: HashMap::new(),
            shown: None,
            challenges: Challenges::new(accepted),
            forks: BTreeMap::new(),
            cosigned: BTreeMap::new(),
            told_heads: ToldHeads::default(),
            troubles: BTreeMap::new(),
            standing: None,
            start: Some(parts.start),
            told: head.size,
            awaited: 0,
            cards_at: 0,
            events: VecDeque::new(),
            runtime,
            handle: parts.handle,
            shared,
        };
        let every = Duration::from_secs(desk.config.registrar_seconds);
        if !every.is_zero()
            && let Some(courier) = Courier::of(&state_dir, parts.place, &desk.own, every, versions)?
        {
            // Ends with the thread, which nobody can tell anything then.
            desk.runtime.spawn(courier.run(desk.handle.clone()));
        }
        let copies = desk.take_up();
        let names: Vec<Name> = desk.cards.keys().cloned().collect();
        let boots = names.into_iter().filter_map(|name| desk.known_boot(&name).map(|boot| (name, boot)));
        let boots = boots.collect();
        let begun = GossipStart { copies, boots, ..start(&desk.name, head, &desk.cards) };
        let begun = GossipStart { lamport: desk.lamport(head.size), ..begun };
        let settings = GossipConfig {
            hint_every: desk.config.hint_seconds * 1_000,
            start_wait: desk.config.start_wait_seconds * 1_000,
            challenge_every: desk.config.challenge_every_seconds * 1_000,
            quote_gap: quote_gap(desk.config.challenge_every_seconds),
            entry_every: match desk.shared.retiring {
                true => RETIRING_ENTRY_EVERY_MILLIS,
                false => GossipConfig::default().entry_every,
            },
            ..GossipConfig::default()
        };
        desk.machine = Gossip::new(settings, &begun, boottime_millis());
        desk.tell(GossipEvent::WitnessOnly(desk.allowed.witness_only()));
        desk.follow_hubs();
        Ok(desk)
    }

    /// Works until told to stop.
    pub fn run(mut self, inbox: Inbox) {
        let sizes = {
            let (mut sizes, handle) = (self.shared.size.subscribe(), self.handle.clone());
            self.runtime.spawn(async move {
                while sizes.changed().await.is_ok() {
                    handle.look();
                }
            })
        };
        self.tell(GossipEvent::Tick);
        loop {
            let now = boottime_millis();
            let wakeup = self.machine.next_wakeup().map_or(LOOK_MILLIS, |at| at.saturating_sub(now));
            let pause = Duration::from_millis(wakeup.clamp(1, LOOK_MILLIS));
            match inbox.receiver.recv_timeout(pause) {
                Ok(Message::Wire(event)) => self.heard(event),
                Ok(Message::Look) => inbox.looking.store(false, Relaxed),
                Ok(Message::Site(word)) => self.say_of_site(word),
                Ok(Message::Registrar(said, from)) => {
                    // Whoever asks the registrar asks on by itself.
                    self.take_said(&said, Came::Registrar, &from);
                }
                Ok(Message::Roster(bytes, operator, reply)) => {
                    // Whoever waited may have gone.
                    let _ = reply.send(self.take_roster(&bytes, &operator));
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if inbox.stopping.load(Relaxed) {
                break;
            }
            if now >= self.cards_at {
                self.cards_at = now + LOOK_MILLIS;
                self.look_at_cards();
                self.ask_rosters(now);
                self.log_rosters(now);
            }
            self.look();
            let awaited = inbox.awaited.load(Relaxed);
            if awaited > self.awaited {
                self.awaited = awaited;
                self.tell(GossipEvent::Awaited { size: awaited });
            }
            self.look_at_challenges();
            self.look_at_site();
            self.look_at_holders();
            self.tell(GossipEvent::Tick);
            self.show();
        }
        sizes.abort();
        // Nothing more is heard; the wire says good-bye.
        drop(inbox);
        let Desk { wire, runtime, .. } = self;
        runtime.block_on(wire.stop());
    }

    /// Tells the machine, and does what it wants done.
    pub(super) fn tell(&mut self, event: GossipEvent) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            let mut random = [0; 8];
            // Without randomness retries are not spread; that is all.
            let _ = getrandom::fill(&mut random);
            let effects = self.machine.handle(event, boottime_millis(), u64::from_ne_bytes(random));
            for effect in effects {
                self.carry_out(effect);
            }
        }
        // What the machine did not want stored after all.
        self.verified.clear();
        for (origin, notes) in &mut self.notes {
            let known = self.machine.heads(origin);
            notes.retain(|head, _| known.contains(head));
        }
    }

    fn carry_out(&mut self, effect: GossipEffect) {
        match effect {
            GossipEffect::Hint => self.hint(),
            GossipEffect::HintFork { origin } => self.hint_fork(&origin),
            GossipEffect::Ask { ticket, peer, ask, .. } => self.ask(ticket, &peer, ask),
            GossipEffect::Store { ticket, origin, .. } => self.store(ticket, &origin),
            GossipEffect::Persist { ticket, origin, state } => self.persist(ticket, &origin, state),
            GossipEffect::Counted => self.counted(),
            GossipEffect::LogMirror { ticket, holders } => self.log_mirror(ticket, &holders),
            GossipEffect::ProveFork { origin, one, other } => self.prove(&origin, one, other),
            GossipEffect::Standing(standing) => self.stands(standing),
            GossipEffect::Lamport { time } => {
                // The writer takes it over when it has time; a lost one comes again with the next range.
                let _ = self.queue.try_send(Command::Lamport(time));
            }
            GossipEffect::Report(finding) => self.report(&finding),
            GossipEffect::KeepBoot { ticket, peer, boot } => self.keep_boot(ticket, &peer, &boot),
            GossipEffect::LogTrust { ticket, peer, before, why } => {
                self.log_trust(ticket, &peer, before, why);
            }
            GossipEffect::Quote { call } => self.quote(call),
            GossipEffect::Busy { call, after } => self.busy(call, after),
        }
    }

    fn heard(&mut self, event: Event) {
        self.look();
        let name = |key: &PeerKey| self.by_key.get(key).cloned();
        match event {
            Event::Connected { peer } => {
                if let Some(name) = name(&peer) {
                    log::info!("{name} is connected");
                    self.tell(GossipEvent::Connected(name.clone()));
                    self.ask_roster(&name);
                }
            }
            Event::Disconnected { peer, why } => {
                if let Some(name) = name(&peer) {
                    log::info!("{name} is not connected any more ({why:?})");
                    self.tell(GossipEvent::Disconnected(name));
                }
            }
            Event::Hint { from, bytes } => {
                if let Some(name) = name(&from) {
                    self.hinted(&name, &bytes);
                }
            }
            Event::Asked { from, bytes, reply } => {
                // Whoever is not known any more gets no answer.
                if let Some(name) = name(&from) {
                    self.asked(&name, &bytes, reply);
                }
            }
            Event::Answered { id, result, .. } => {
                if !self.roster_answered(id, &result) && !self.site_answered(id, &result) {
                    self.answered(id, result);
                }
            }
            Event::Refused { peer, address, why, times } => {
                let who = peer.map(|key| name(&key).map_or_else(|| key.to_string(), |name| name.to_string()));
                let who = who.or(address).unwrap_or_else(|| "somebody".to_owned());
                log::warn!("{who} was refused {times} time(s): {why}");
                if let Some(name) = peer.and_then(|key| name(&key)) {
                    self.troubles.insert(name, why.to_string());
                }
            }
            Event::Listening { address } => log::info!("peers reach this box at {address}"),
            Event::AddressSeen { .. } => {}
        }
    }

    /// Has an operator changed the list?
    fn look_at_cards(&mut self) {
        let read = self.store.stamp().and_then(|stamp| {
            if stamp == self.stamp {
                Ok(None)
            } else {
                self.store.list().and_then(|cards| Ok(Some((stamp, cards, self.store.accepted()?))))
            }
        });
        let (stamp, cards, accepted) = match read {
            Ok(None) => return,
            Ok(Some(read)) => read,
            Err(error) => {
                // Said once for each state of the file; the list as it was stays in force.
                let stamp = self.store.stamp().ok().flatten();
                if stamp != self.stamp {
                    self.stamp = stamp;
                    log::error!(
                        "the list of neighbours cannot be read, the last one stays in force: {error}"
                    );
                }
                return;
            }
        };
        (self.stamp, self.by_hand) = (stamp, cards);
        self.take_over();
        self.take_accepted(accepted);
    }

    /// Whether whoever starts the box still waits.
    pub(super) fn is_starting(&self) -> bool {
        self.start.is_some()
    }

    fn stands(&mut self, standing: Standing) {
        match &standing {
            Standing::Nobody if self.cards.is_empty() => {}
            Standing::Nobody => log::warn!(
                "no neighbour says what it knows of this log; whether the disk is an older copy is not known from them"
            ),
            Standing::Equal => log::info!("no neighbour knows more of this log than this disk"),
            Standing::Behind { .. } => {}
        }
        let found = finding(&standing);
        self.standing = Some(standing.clone());
        match (self.start.take(), found) {
            (Some(start), found) => {
                // Whoever starts the box may have waited long enough.
                if start.send(standing).is_err()
                    && let Some(finding) = found
                {
                    self.suspect(finding);
                }
            }
            (None, Some(finding)) => self.suspect(finding),
            (None, None) => {}
        }
    }

    /// The way to this thread.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// From now on nothing is sealed, signed or cosigned.
    pub(super) fn suspect(&mut self, finding: String) {
        if matches!(*self.shared.condition.borrow(), Condition::RollbackSuspected { .. }) {
            return;
        }
        log::error!("rollback suspected: {finding}; the box is read-only until an operator decides");
        let line = format!("rollback-suspected: {finding}");
        if let Err(error) = self.control.journal(crate::driver::clock::now_millis(), &line) {
            log::error!("the finding could not be journalled: {error}");
        }
        self.shared.set_condition(Condition::RollbackSuspected { finding });
    }

    /// Whether a rollback is suspected.
    pub(super) fn is_halted(&self) -> bool {
        matches!(self.standing, Some(Standing::Behind { .. }))
            || matches!(*self.shared.condition.borrow(), Condition::RollbackSuspected { .. })
    }

    fn report(&mut self, finding: &Finding) {
        match finding {
            Finding::Lied { peer, origin } => {
                let what = format!("an answer of it about {origin} did not hold; it is left alone for a while");
                log::warn!("{peer}: {what}");
                self.troubles.insert(peer.clone(), what);
            }
            Finding::Unproven { origin, head } => {
                let what =
                    format!("nobody can prove that its signed head of {} entries extends the copy", head.size);
                log::error!("{origin}: {what}");
                self.troubles.insert(origin.clone(), what);
            }
            Finding::OtherTree { peer, head } => {
                let what = format!("it has cosigned {} entries of a tree that this log never had", head.size);
                log::error!("{peer}: {what}");
                self.troubles.insert(peer.clone(), what);
            }
            Finding::Forked { origin } => {
                let what = "its log has forked; the copy is kept and served, never extended".to_owned();
                log::error!("{origin}: {what}");
                self.troubles.insert(origin.clone(), what);
            }
            Finding::Distrusted { peer, why } => {
                log::error!("{peer} does not answer challenges as it did: {}", why.name());
            }
            Finding::OwnForked => self.suspect(
                "there is a proof that this log has forked: two boxes run with these keys, or a copy of the disk was \
                 started"
                    .to_owned(),
            ),
        }
    }
}

fn start(name: &Name, head: Head, cards: &BTreeMap<Name, PeerCard>) -> GossipStart {
    let peers = cards.keys().cloned().collect();
    GossipStart { own: name.clone(), head, lamport: 0, peers, copies: Vec::new(), boots: Vec::new() }
}

/// How often at most a neighbour has this box's TPM quote: well within the pace at which neighbours are challenged.
fn quote_gap(every_seconds: u64) -> u64 {
    if every_seconds == 0 { QUOTE_GAP_MILLIS } else { (every_seconds * 500).min(QUOTE_GAP_MILLIS) }
}

pub(super) fn neighbours(cards: &BTreeMap<Name, PeerCard>) -> Vec<Neighbour> {
    let neighbour = |card: &PeerCard| Neighbour {
        key: PeerKey::new(*card.transport_key()),
        addresses: card.content().addresses.clone(),
    };
    cards.values().map(neighbour).collect()
}

pub(super) fn by_key(cards: &BTreeMap<Name, PeerCard>) -> HashMap<PeerKey, Name> {
    cards.iter().map(|(name, card)| (PeerKey::new(*card.transport_key()), name.clone())).collect()
}
