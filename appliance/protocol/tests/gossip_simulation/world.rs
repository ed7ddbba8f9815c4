//! A site: its boxes, the network between them, and the time.

use crate::chips::Chip;
use crate::driver::{Disk, Process};
use crate::liars::Kind;
use crate::rng::Rng;
use crate::tree::{Entry, Proof, Tree};
use crate::weather::{Links, SECOND, Span, Weather};
use crate::{Fault, Options};
use bulla_formats::hash::Hash;
use bulla_formats::witness::Role;
use bulla_protocol::gossip::{GossipEvent, Head, Name};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Which invariant, and how.
pub type Broken = (&'static str, String);

/// What travels.
#[derive(Clone, Debug)]
pub enum Packet {
    Hint { origin: usize, head: Head },
    ForkHint { origin: usize },
    Ask { ticket: u64, run: u64, ask: Asked },
    Answer { ticket: u64, run: u64, said: Said },
}

#[derive(Clone, Debug)]
pub enum Asked {
    Heads,
    Range {
        origin: usize,
        from: u64,
        to: u64,
    },
    Objects {
        origin: usize,
        ids: Vec<u64>,
    },
    Consistency {
        origin: usize,
        old: u64,
    },
    /// Cosignatures: of what, presented as which role, and who really made them as what.
    Cosigned {
        head: Head,
        made: Vec<(Role, usize, Role)>,
    },
    Fork(Proof),
    ForkOf {
        origin: usize,
    },
    Challenge {
        nonce: u64,
    },
}

#[derive(Clone, Debug)]
pub enum Said {
    Heads(Vec<(usize, Head, u64)>),
    Range {
        from: u64,
        entries: Vec<Entry>,
        proof: Vec<Hash>,
        head: Head,
    },
    Objects(Vec<u64>),
    Consistency {
        root: Hash,
        proof: Vec<Hash>,
        head: Head,
    },
    Taken,
    Fork(Proof),
    /// Whose key signed, over which nonce, and what the chip says.
    Vouched {
        by: usize,
        nonce: u64,
        chip: Chip,
    },
    Refused,
}

pub enum Happening {
    Append(usize),
    Lie(usize),
    Turn(usize, usize),
    /// Some boxes are cut off from the others, and come back.
    Part,
    Heal(Vec<usize>),
    Crash(usize),
    Start(usize),
    /// An operator strikes a neighbour off this box's list.
    Strike(usize),
    /// And puts it back.
    Restore(usize, usize),
    Calm,
    /// To a box, from a box; an answer only counts in the run that asked.
    Arrives {
        to: usize,
        from: usize,
        run: u64,
        packet: Packet,
    },
    Report {
        to: usize,
        run: u64,
        event: GossipEvent,
    },
}

pub struct Member {
    pub kind: Kind,
    pub disk: Disk,
    pub chip: Chip,
    pub process: Option<Process>,
    pub run: u64,
    /// It came back with an older disk, and what the newest head it had let others see was.
    pub lost: Option<Head>,
    /// Has said that it is behind.
    pub learnt: bool,
}

/// What nobody in the world knows.
pub struct Truth {
    /// Every history of each log.
    pub branches: Vec<Vec<Tree>>,
    /// Every head that the log's key has signed.
    pub signed: Vec<BTreeSet<Head>>,
    /// Of each log: cosigner, role, head.
    pub cosigned: Vec<BTreeSet<(usize, Role, Head)>>,
    /// The newest state that each box has made durable for each log.
    pub states: BTreeMap<(usize, usize), bulla_protocol::gossip::CosignerState>,
    /// The newest boot that each box has made durable of each other.
    pub boots: BTreeMap<(usize, usize), bulla_formats::peer::challenge::Boot>,
    /// Boxes whose boot has changed, or whose TPM has gone back.
    pub tampered: BTreeSet<usize>,
    /// In which run of a box whose chip has vouched to it.
    pub vouched: BTreeSet<(usize, u64, usize)>,
    /// When a box challenged another, and when it quoted for one, in which run.
    pub challenged: BTreeMap<(usize, u64, usize), u64>,
    pub quoted: BTreeMap<(usize, u64, usize), u64>,
}

/// Something that is to happen; the greatest is the first, and of two at a time the one that was planned first.
struct Planned {
    at: u64,
    order: u64,
    what: Box<Happening>,
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Planned {}

pub struct World {
    pub rng: Rng,
    pub options: Options,
    pub weather: Weather,
    pub now: u64,
    order: u64,
    queue: BinaryHeap<Planned>,
    pub names: Vec<Name>,
    pub members: Vec<Member>,
    /// When each box's machine is to be told that time has passed; `u64::MAX` for never.
    pub wakes: Vec<u64>,
    pub truth: Truth,
    /// Cables, of each pair once.
    up: Vec<bool>,
    /// Whose list lacks whom.
    struck: Vec<bool>,
    pub calm: bool,
    pub ids: u64,
    /// How many events the machines were told of.
    pub events: u64,
    pub seen: BTreeSet<&'static str>,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let boxes = options.boxes;
        // At least two are honest.
        let of = if options.weeks { 8 } else { 3 };
        let liars = rng.size(0, (boxes / of).max(1).min(boxes - 2));
        let member = |place: usize, rng: &mut Rng| Member {
            kind: if place < liars { rng.pick(&Kind::LIARS) } else { Kind::Honest },
            disk: Disk::new(),
            chip: Chip::new(),
            process: None,
            run: 0,
            lost: None,
            learnt: false,
        };
        let members = (0..boxes).map(|place| member(place, &mut rng)).collect();
        let weather = match options.weeks {
            true => Weather::of_weeks(options.seed),
            false => Weather::of_minutes(options.seed, &mut rng),
        };
        let name = |place| format!("bank.example/{place:02}/1").into();
        let names: Vec<Name> = (0..boxes).map(name).collect();
        let mut world = World {
            weather,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            names,
            members,
            wakes: vec![u64::MAX; boxes],
            truth: Truth {
                branches: vec![vec![Tree::new()]; boxes],
                signed: vec![BTreeSet::new(); boxes],
                cosigned: vec![BTreeSet::new(); boxes],
                states: BTreeMap::new(),
                boots: BTreeMap::new(),
                tampered: BTreeSet::new(),
                vouched: BTreeSet::new(),
                challenged: BTreeMap::new(),
                quoted: BTreeMap::new(),
            },
            up: vec![false; boxes * boxes],
            struck: vec![false; boxes * boxes],
            calm: false,
            ids: 0,
            events: 0,
            seen: BTreeSet::new(),
            trace: Vec::new(),
            rng,
            options,
        };
        for place in 0..boxes {
            world.plan(0, Happening::Start(place));
            let (first, death) =
                (world.rng.between(1, world.weather.first), world.within(world.weather.crash));
            if world.is_honest(place) {
                world.plan(first, Happening::Append(place));
                world.plan(death, Happening::Crash(place));
                let strike = world.within(world.weather.strike);
                world.plan(strike, Happening::Strike(place));
            } else {
                world.plan(first, Happening::Lie(place));
            }
            for other in place + 1..boxes {
                let first = world.rng.between(0, 5 * SECOND);
                world.plan(first, Happening::Turn(place, other));
            }
        }
        if let Links::Parts(every, _) = world.weather.links {
            let first = world.within(every);
            world.plan(first, Happening::Part);
        }
        world.plan(world.weather.rough, Happening::Calm);
        world
    }

    pub fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.options.trace {
            let line = format!("{:>8} {}", self.now, what(self));
            self.trace.push(line);
        }
    }

    pub fn plan(&mut self, after: u64, what: Happening) {
        self.order += 1;
        let what = Box::new(what);
        self.queue.push(Planned { at: self.now + after, order: self.order, what });
    }

    pub fn is_honest(&self, place: usize) -> bool {
        self.members[place].kind == Kind::Honest
    }

    /// A box whose log has one history.
    pub fn is_single(&self, place: usize) -> bool {
        self.is_honest(place) && self.truth.branches[place].len() == 1
    }

    /// Read from the name, because the world asks all the time.
    pub fn place(&self, name: &str) -> usize {
        let place = name.split('/').nth(1).and_then(|place| place.parse().ok());
        place.filter(|place: &usize| &*self.names[*place] == name).expect("every name is a box's")
    }

    pub fn breaks(&self, fault: Fault) -> bool {
        self.options.fault == fault
    }

    fn pair(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.members.len() + a.max(b)
    }

    /// There is a cable, and neither refuses the other.
    pub fn is_up(&self, a: usize, b: usize) -> bool {
        self.up[self.pair(a, b)] && self.trusts(a, b) && self.trusts(b, a)
    }

    fn trusts(&self, place: usize, other: usize) -> bool {
        !self.struck[place * self.members.len() + other]
    }

    /// Whose cards a box has, its own included.
    pub fn trusted(&self, place: usize) -> Vec<Name> {
        let trusted = (0..self.names.len()).filter(|other| self.trusts(place, *other));
        trusted.map(|other| self.names[other].clone()).collect()
    }

    /// Runs to the end; what is broken first ends it.
    pub fn go(&mut self) -> Result<(), Broken> {
        let end = self.weather.rough + self.weather.calm;
        loop {
            let wake = self.wakes.iter().copied().min().expect("there are boxes");
            let next = self.queue.peek().map_or(u64::MAX, |planned| planned.at);
            if wake.min(next) > end {
                break;
            }
            if wake < next {
                self.now = self.now.max(wake);
                let first = self.wakes.iter().position(|at| *at == wake).expect("it is one of them");
                self.drive(first, GossipEvent::Tick)?;
            } else if let Some(Planned { at, what, .. }) = self.queue.pop() {
                self.now = at;
                self.happen(*what)?;
            }
        }
        self.judge()
    }

    fn happen(&mut self, what: Happening) -> Result<(), Broken> {
        match what {
            Happening::Append(place) => {
                let after = self.within(self.weather.append);
                if self.now < self.weather.rough + self.weather.quiet {
                    self.append(place)?;
                    self.plan(after, Happening::Append(place));
                }
            }
            Happening::Lie(place) => {
                self.lie(place);
                let after = self.within(self.weather.lie);
                self.plan(after, Happening::Lie(place));
            }
            Happening::Turn(a, b) => {
                let up = self.calm || !self.up[self.pair(a, b)];
                self.turn(a, b, up)?;
                if let Links::Each(often, seldom) = self.weather.links {
                    let after = if self.rng.one_in(3) { seldom } else { often };
                    let after = self.rng.between(100, after);
                    if !self.calm {
                        self.plan(after, Happening::Turn(a, b));
                    }
                }
            }
            Happening::Part if !self.calm => {
                if let Links::Parts(every, during) = self.weather.links {
                    let part = self.part();
                    self.turn_part(&part, false)?;
                    let (after, next) = (self.within(during), self.within(every));
                    self.plan(after, Happening::Heal(part));
                    self.plan(next, Happening::Part);
                }
            }
            Happening::Part => {}
            Happening::Heal(part) => self.turn_part(&part, true)?,
            Happening::Crash(place) => {
                if !self.calm {
                    self.die(place);
                    let after = self.within(self.weather.crash);
                    self.plan(after, Happening::Crash(place));
                }
            }
            Happening::Start(place) => self.start(place)?,
            Happening::Strike(place) => {
                if !self.calm {
                    self.strike(place)?;
                    let after = self.within(self.weather.strike);
                    self.plan(after, Happening::Strike(place));
                }
            }
            Happening::Restore(place, other) => self.restore(place, other)?,
            Happening::Calm => {
                self.calm = true;
                self.note(|_| "the network is whole from here on".to_owned());
                let boxes = self.members.len();
                for pair in 0..boxes * boxes {
                    self.restore(pair / boxes, pair % boxes)?;
                }
                for a in 0..self.members.len() {
                    self.start(a)?;
                    for b in a + 1..self.members.len() {
                        self.turn(a, b, true)?;
                    }
                }
            }
            Happening::Arrives { to, from, run, packet } => {
                if self.is_up(from, to) && self.members[to].run == run {
                    self.arrived(to, from, packet)?;
                }
            }
            Happening::Report { to, run, event } => {
                if self.members[to].run == run {
                    self.drive(to, event)?;
                }
            }
        }
        Ok(())
    }

    fn within(&mut self, (from, to): Span) -> u64 {
        self.rng.between(from, to)
    }

    /// Mostly one box; sometimes any half of them.
    fn part(&mut self) -> Vec<usize> {
        let boxes = self.members.len();
        match self.rng.one_in(6) {
            true => (0..boxes).filter(|_| self.rng.one_in(2)).collect(),
            false => vec![self.rng.size(0, boxes - 1)],
        }
    }

    fn turn_part(&mut self, part: &[usize], up: bool) -> Result<(), Broken> {
        for a in part {
            for b in (0..self.members.len()).filter(|b| !part.contains(b)) {
                self.turn(*a, b, up)?;
            }
        }
        Ok(())
    }

    /// A link comes or goes; both ends notice.
    fn turn(&mut self, a: usize, b: usize, up: bool) -> Result<(), Broken> {
        let pair = self.pair(a, b);
        if std::mem::replace(&mut self.up[pair], up) == up {
            return Ok(());
        }
        if !self.trusts(a, b) || !self.trusts(b, a) {
            return Ok(());
        }
        self.note(|_| format!("{a} and {b} are {}", if up { "connected" } else { "cut off" }));
        for (one, other) in [(a, b), (b, a)] {
            let told = !up || !self.breaks(Fault::OneConnection) || self.now < 5 * SECOND;
            if told && self.alive(other) {
                self.tell_link(one, other, up)?;
            }
        }
        Ok(())
    }

    /// An operator takes a neighbour off the list: it is refused from now on, and what is held of its log stays.
    fn strike(&mut self, place: usize) -> Result<(), Broken> {
        let other = self.rng.size(0, self.members.len() - 1);
        if other == place || !self.trusts(place, other) {
            return Ok(());
        }
        let connected = self.is_up(place, other);
        let pair = place * self.members.len() + other;
        self.struck[pair] = true;
        // Its pace is forgotten with it.
        let pair = (place, self.members[place].run, other);
        self.truth.challenged.remove(&pair);
        self.truth.quoted.remove(&pair);
        self.seen.insert("struck");
        self.note(|_| format!("{place} does not trust {other}"));
        let peers = self.trusted(place);
        self.drive(place, GossipEvent::Peers(peers))?;
        if connected && self.alive(other) {
            self.tell_link(other, place, false)?;
        }
        let after = self.within(self.weather.struck);
        self.plan(after, Happening::Restore(place, other));
        Ok(())
    }

    /// And puts it back: the copy is taken up from the disk.
    fn restore(&mut self, place: usize, other: usize) -> Result<(), Broken> {
        let pair = place * self.members.len() + other;
        if !std::mem::take(&mut self.struck[pair]) {
            return Ok(());
        }
        self.note(|_| format!("{place} trusts {other} again"));
        let peers = self.trusted(place);
        self.drive(place, GossipEvent::Peers(peers))?;
        if let Some(boot) = self.members[place].disk.boots.get(&other).cloned() {
            let peer = self.names[other].clone();
            self.drive(place, GossipEvent::BootKnown { peer, boot })?;
        }
        if let Some(copy) = self.copy_start(place, other).filter(|_| !self.breaks(Fault::LeaveCopies)) {
            self.seen.insert("taken up");
            self.drive(place, GossipEvent::TakenUp(copy))?;
        }
        if self.is_up(place, other) && self.alive(place) && self.alive(other) {
            self.tell_link(place, other, true)?;
            self.tell_link(other, place, true)?;
        }
        Ok(())
    }

    fn alive(&self, place: usize) -> bool {
        !self.is_honest(place) || self.members[place].process.is_some()
    }

    fn tell_link(&mut self, to: usize, about: usize, up: bool) -> Result<(), Broken> {
        let name = self.names[about].clone();
        let event = if up { GossipEvent::Connected(name) } else { GossipEvent::Disconnected(name) };
        self.drive(to, event)
    }

    /// A box that began: its neighbours are connected again, on both sides.
    pub fn meet(&mut self, place: usize) -> Result<(), Broken> {
        for other in 0..self.members.len() {
            if other != place && self.is_up(place, other) && self.alive(other) {
                self.tell_link(place, other, true)?;
                self.tell_link(other, place, true)?;
            }
        }
        Ok(())
    }

    /// A box that died: its neighbours lose it.
    pub fn die(&mut self, place: usize) {
        let member = &mut self.members[place];
        if member.process.take().is_none() {
            return;
        }
        member.run += 1;
        self.wakes[place] = u64::MAX;
        self.seen.insert("crash");
        self.note(|_| format!("{place} dies"));
        let after = self.within(self.weather.down);
        self.plan(after, Happening::Start(place));
        for other in 0..self.members.len() {
            let run = self.members[other].run;
            let event = GossipEvent::Disconnected(self.names[place].clone());
            if other != place && self.is_up(place, other) {
                self.plan(0, Happening::Report { to: other, run, event });
            }
        }
    }

    /// Puts a packet on the network, which loses, doubles and delays it.
    pub fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if from == to || !self.is_up(from, to) {
            return;
        }
        let copies = match self.rng.between(0, 39) {
            0..=2 if !self.calm => 0,
            3 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let slow = !self.calm && self.rng.one_in(15);
            let delay = if slow { self.rng.between(1, 4 * SECOND) } else { self.rng.between(1, 30) };
            let run = self.members[to].run;
            self.plan(delay, Happening::Arrives { to, from, run, packet: packet.clone() });
        }
    }

    /// New entries of a log, with Lamport times after `lamport`.
    pub fn fresh(&mut self, count: usize, lamport: u64) -> Vec<Entry> {
        (0..count as u64)
            .map(|more| {
                self.ids += 1;
                Entry { lamport: lamport + 1 + more, id: self.ids }
            })
            .collect()
    }
}
