//! A site: boxes with a planner and a site machine each, a network between them, and authorities that count.
//!
//! The driver does what that of a real box does, no more. A liar runs the same machines and says something else.

use crate::Fault;
use bulla_formats::hash::Hash;
use bulla_protocol::anchoring::{
    AnchorAuthority, AnchorConfig, AnchorEffect, AnchorEvent, AnchorPlanner, AnchorStart, AnchorState, Batch,
    Quota, Refused, Together,
};
use bulla_protocol::authority::{Authority, Failure};
use bulla_protocol::gossip::{Head, Name};
use bulla_protocol::site::{
    Judged, Site, SiteAnswer, SiteAsk, SiteConfig, SiteEffect, SiteEvent, SiteFinding,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

pub type Broken = (&'static str, String);

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const AUTHORITIES: usize = 2;
const QUOTA: Quota = Quota { requests: 20, period: 20 * MINUTE };
/// Window, holding off, gathering, the pause between two questions, and writes that fail a few times.
const BOUND: u64 = 8 * MINUTE;
/// Offers without need, and both of the above.
const SERVED: u64 = 20 * MINUTE;

/// Numbers that follow from a seed (SplitMix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Lie {
    /// Hands nothing over.
    Withhold,
    /// Stamps over something else.
    Foreign,
    /// What is somebody else's.
    Others,
    /// Offers all day long, and hands nothing over.
    Nag,
    /// Hands over after minutes.
    Delay,
}

/// A stamp: who made it, and the heads in the batch that it is over.
struct Token {
    authority: usize,
    batch: Vec<(usize, u64)>,
}

type Stamps = Vec<(usize, usize)>;

#[derive(Clone, Debug)]
enum Word {
    Offer,
    Anchor { of: usize, size: u64, stamps: Stamps },
    Wish { size: u64 },
    Taken,
    No,
}

#[derive(Debug)]
enum Event {
    Tick { at: usize },
    Seal { at: usize },
    Wan { at: usize },
    Reachable { at: usize, run: u64 },
    Cable { a: usize, b: usize },
    Die { at: usize },
    Start { at: usize },
    Nag { at: usize },
    Ask { from: usize, to: usize, run: u64, ticket: u64, word: Word },
    Answer { from: usize, to: usize, run: u64, ticket: u64, word: Word },
    Stamped { at: usize, run: u64, ticket: u64, key: (Batch, u64, usize), token: Option<usize> },
    Persisted { at: usize, run: u64, ticket: u64, state: AnchorState },
    Logged { at: usize, run: u64, ticket: u64, size: u64, stamps: Stamps },
    Calm,
    End,
}

struct Member {
    name: Name,
    planner: AnchorPlanner,
    site: Site,
    running: bool,
    run: u64,
    wan: bool,
    /// Since when it runs and reaches the authorities.
    fine_since: u64,
    size: u64,
    /// Entries that are worth an anchor: one past each, and when.
    worth: Vec<(u64, u64)>,
    /// By operator.
    anchored: [u64; AUTHORITIES],
    kept: (AnchorState, u64),
    lie: Option<Lie>,
    gathered: BTreeMap<u64, Vec<(usize, u64)>>,
    proofs: BTreeMap<(Batch, u64, usize), usize>,
    /// What is handed to whoever gave a head, by gathering.
    handing: BTreeMap<u64, Stamps>,
    /// What was handed over, by call; and calls that wait for an answer.
    handed: BTreeMap<u64, (u64, Stamps)>,
    calls: BTreeMap<u64, (usize, u64, u64)>,
    call: u64,
    arrived: Vec<Vec<u64>>,
    wakeup: u64,
}

pub struct World {
    rng: Rng,
    fault: Fault,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    members: Vec<Member>,
    cables: BTreeSet<(usize, usize)>,
    /// When the last message between two arrives: they do not overtake each other.
    last: BTreeMap<(usize, usize), u64>,
    tokens: Vec<Token>,
    calm: bool,
    lossy: bool,
    /// A site whose WAN comes back at once: fewer questions than if each asked for itself.
    reunion: bool,
    /// In calm weather this one still reaches nobody.
    cut_off: Option<usize>,
    calm_since: u64,
    pub seen: BTreeSet<&'static str>,
    pub trace: Option<Vec<String>>,
}

fn config() -> AnchorConfig {
    let authority = |n: usize| AnchorAuthority {
        authority: Authority { id: format!("tsa-{n}"), operator: format!("operator-{n}") },
        quota: Some(QUOTA),
        timeout: 10 * SECOND,
        batches: true,
    };
    AnchorConfig {
        authorities: (0..AUTHORITIES).map(authority).collect(),
        operators: 2,
        window_age: MINUTE,
        site: Some(Together::default()),
        ..AnchorConfig::default()
    }
}

fn head(of: usize, size: u64) -> Head {
    Head { size, root: Hash([of as u8; 32]) }
}

impl World {
    fn new(seed: u64, fault: Fault, count: usize) -> Self {
        let member = |at: usize| {
            let name: Name = Arc::from(format!("box-{at}"));
            Member {
                planner: AnchorPlanner::new(config(), &AnchorStart::default(), 0),
                site: Site::new(SiteConfig::default(), name.clone()),
                name,
                running: false,
                run: 0,
                wan: false,
                fine_since: u64::MAX,
                size: 0,
                worth: Vec::new(),
                anchored: [0; AUTHORITIES],
                kept: (AnchorState::default(), 0),
                lie: None,
                gathered: BTreeMap::new(),
                proofs: BTreeMap::new(),
                handing: BTreeMap::new(),
                handed: BTreeMap::new(),
                calls: BTreeMap::new(),
                call: 0,
                arrived: vec![Vec::new(); AUTHORITIES],
                wakeup: u64::MAX,
            }
        };
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        World {
            rng: Rng(seed),
            fault,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            members: (0..count).map(member).collect(),
            cables: pairs.collect(),
            last: BTreeMap::new(),
            tokens: Vec::new(),
            calm: false,
            lossy: false,
            reunion: false,
            cut_off: None,
            calm_since: u64::MAX,
            seen: BTreeSet::new(),
            trace: None,
        }
    }

    /// Bad weather for hours, then calm.
    pub fn rough(seed: u64, fault: Fault) -> Self {
        let count = 2 + (seed % 4) as usize;
        let mut world = World::new(seed, fault, count);
        world.lossy = true;
        let liars = world.rng.between(0, 2).min(count as u64 - 2) as usize;
        let lies = [Lie::Withhold, Lie::Foreign, Lie::Others, Lie::Nag, Lie::Delay];
        let first = world.rng.between(0, count as u64 - 1) as usize;
        for at in (0..liars).map(|n| (first + n) % count) {
            let lie = lies[world.rng.between(0, lies.len() as u64 - 1) as usize];
            world.members[at].lie = Some(lie);
            if lie == Lie::Nag {
                world.plan(SECOND, Event::Nag { at });
            }
        }
        let honest: Vec<usize> = (0..count).filter(|at| world.members[*at].lie.is_none()).collect();
        world.cut_off = honest.first().copied();
        for at in 0..count {
            world.members[at].wan = !world.rng.one_in(3);
            world.plan(0, Event::Start { at });
            let after = [0; 3].map(|_| world.rng.between(1, 20 * MINUTE));
            world.plan(after[0], Event::Wan { at });
            world.plan(after[1], Event::Seal { at });
            world.plan(after[2], Event::Die { at });
        }
        for (a, b) in world.cables.clone() {
            let after = world.rng.between(1, HOUR);
            world.plan(after, Event::Cable { a, b });
        }
        world.plan(2 * HOUR, Event::Calm);
        world.plan(3 * HOUR, Event::End);
        world
    }

    /// Honest boxes without a WAN, each with something to anchor; then it is back for all of them.
    pub fn reunion(seed: u64, fault: Fault) -> Self {
        let mut world = World::new(seed, fault, 3 + (seed % 3) as usize);
        world.reunion = true;
        for at in 0..world.members.len() {
            world.plan(0, Event::Start { at });
            let after = world.rng.between(SECOND, MINUTE);
            world.plan(after, Event::Seal { at });
            let after = 20 * MINUTE + world.rng.between(0, 3 * SECOND);
            world.plan(after, Event::Wan { at });
        }
        world.plan(25 * MINUTE, Event::End);
        world
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((self.now + after, self.order)));
        self.events.insert(self.order, event);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", now as f64 / 1e3, what()));
        }
    }

    pub fn go(&mut self) -> Result<(), Broken> {
        while let Some(Reverse((at, order))) = self.queue.pop() {
            self.now = at;
            let event = self.events.remove(&order).unwrap();
            if let Event::End = event {
                return self.end();
            }
            if !matches!(event, Event::Tick { .. }) {
                self.note(|| format!("{event:?}"));
            }
            self.happens(event)?;
            self.check()?;
        }
        Ok(())
    }

    fn alive(&self, at: usize, run: u64) -> bool {
        self.members[at].running && self.members[at].run == run
    }

    fn happens(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Tick { at } => {
                self.members[at].wakeup = u64::MAX;
                if self.members[at].running {
                    self.anchors(at, AnchorEvent::Tick)?;
                    self.site(at, SiteEvent::Tick)?;
                }
            }
            Event::Seal { at } => {
                if self.members[at].running {
                    let (now, member) = (self.now, &mut self.members[at]);
                    member.size += 1;
                    member.worth.push((member.size, now));
                    self.grown(at)?;
                }
                if !self.reunion {
                    let after = self.rng.between(1, 15 * MINUTE);
                    self.plan(after, Event::Seal { at });
                }
            }
            Event::Wan { at } => {
                let up = if self.calm { self.cut_off != Some(at) } else { !self.members[at].wan };
                self.wan(at, up);
                if !self.calm && !self.reunion {
                    let after = self.rng.between(SECOND, 40 * MINUTE);
                    self.plan(after, Event::Wan { at });
                }
            }
            Event::Reachable { at, run } if self.alive(at, run) && self.members[at].wan => {
                for authority in 0..AUTHORITIES {
                    self.anchors(at, AnchorEvent::Reachable { authority })?;
                }
            }
            Event::Cable { a, b } => {
                let whole = self.cables.contains(&(a, b));
                self.cable(a, b, !whole || self.calm)?;
                if !self.calm {
                    let after = self.rng.between(SECOND, HOUR);
                    self.plan(after, Event::Cable { a, b });
                }
            }
            Event::Die { at } if !self.calm => {
                self.members[at].running = false;
                self.members[at].fine_since = u64::MAX;
                for other in 0..self.members.len() {
                    self.meets(other, at, false)?;
                }
                let after = self.rng.between(SECOND, 5 * MINUTE);
                self.plan(after, Event::Start { at });
                let after = after + self.rng.between(MINUTE, 2 * HOUR);
                self.plan(after, Event::Die { at });
            }
            Event::Start { at } => self.start(at)?,
            Event::Nag { at } => {
                for to in (0..self.members.len()).filter(|to| *to != at) {
                    let run = self.members[at].run;
                    self.send(at, to, Event::Ask { from: at, to, run, ticket: 0, word: Word::Offer });
                }
                self.plan(SECOND, Event::Nag { at });
            }
            Event::Ask { from, to, run, ticket, word } if self.members[to].running => {
                self.asked(from, to, (ticket, run), word)?;
            }
            Event::Answer { from, to, run, ticket, word } if self.alive(to, run) => {
                let event = match word {
                    Word::Wish { size } => SiteEvent::Wished { ticket, head: head(from, size) },
                    Word::Taken => SiteEvent::Taken { ticket },
                    _ => SiteEvent::Failed { ticket },
                };
                self.site(to, event)?;
            }
            Event::Stamped { at, run, ticket, key, token } if self.alive(at, run) => {
                let result = match token {
                    Some(token) => {
                        self.members[at].proofs.insert(key, token);
                        Ok(())
                    }
                    None => Err(Refused { failure: Failure::Timeout, retry_after: None }),
                };
                self.anchors(at, AnchorEvent::Answered { ticket, result })?;
                if token.is_none() && self.members[at].wan {
                    // The next look finds it there.
                    let after = self.rng.between(1, 3 * SECOND);
                    self.plan(after, Event::Reachable { at, run });
                }
            }
            Event::Persisted { at, run, ticket, state } if self.alive(at, run) => {
                self.members[at].kept = (state, self.now);
                self.anchors(at, AnchorEvent::Persisted { ticket })?;
            }
            Event::Logged { at, run, ticket, size, stamps } if self.alive(at, run) => {
                if !self.calm && self.rng.one_in(20) {
                    return self.anchors(at, AnchorEvent::NotLogged { ticket });
                }
                for (authority, token) in &stamps {
                    let token = &self.tokens[*token];
                    let genuine = token.authority == *authority && token.batch.contains(&(at, size));
                    if !genuine && self.members[at].lie.is_none() {
                        let what =
                            format!("box {at} logs a stamp over {:?} for its {size} entries", token.batch);
                        return Err(("genuine", what));
                    }
                    let anchored = &mut self.members[at].anchored[*authority];
                    *anchored = (*anchored).max(size);
                }
                self.members[at].size += 1;
                self.anchors(at, AnchorEvent::Logged { ticket })?;
                self.grown(at)?;
                self.site(at, SiteEvent::Logged)?;
            }
            Event::Calm => {
                (self.calm, self.lossy, self.calm_since) = (true, false, self.now);
                for (a, b) in
                    (0..self.members.len()).flat_map(|a| (0..a).map(move |b| (b, a))).collect::<Vec<_>>()
                {
                    self.cable(a, b, true)?;
                }
                for at in 0..self.members.len() {
                    self.start(at)?;
                    let up = self.cut_off != Some(at);
                    self.wan(at, up);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wan(&mut self, at: usize, up: bool) {
        let member = &mut self.members[at];
        member.wan = up;
        member.fine_since = if up && member.running { self.now } else { u64::MAX };
        if up {
            let slow = if self.reunion { 1 } else { 3 * SECOND };
            let (after, run) = (self.rng.between(1, slow), self.members[at].run);
            self.plan(after, Event::Reachable { at, run });
        }
    }

    fn cable(&mut self, a: usize, b: usize, whole: bool) -> Result<(), Broken> {
        let before = self.cables.contains(&(a, b));
        if before != whole {
            if whole {
                self.cables.insert((a, b))
            } else {
                self.cables.remove(&(a, b))
            };
            self.meets(a, b, whole)?;
            self.meets(b, a, whole)?;
        }
        Ok(())
    }

    /// A box learns that another one is there, or is not any more.
    fn meets(&mut self, at: usize, other: usize, whole: bool) -> Result<(), Broken> {
        if at == other || !self.members[at].running {
            return Ok(());
        }
        let name = self.members[other].name.clone();
        let there = whole && self.members[other].running && self.is_joined(at, other);
        self.site(at, if there { SiteEvent::Connected(name) } else { SiteEvent::Disconnected(name) })
    }

    fn is_joined(&self, a: usize, b: usize) -> bool {
        self.cables.contains(&(a.min(b), a.max(b)))
    }

    fn start(&mut self, at: usize) -> Result<(), Broken> {
        if self.members[at].running {
            return Ok(());
        }
        let now = self.now;
        let member = &mut self.members[at];
        let (state, kept) = member.kept.clone();
        let operator = |(n, size): (usize, &u64)| (format!("operator-{n}"), *size);
        let anchored = member.anchored.iter().enumerate().map(operator).collect();
        // It never says more time than has passed.
        let elapsed = (now - kept) / 2;
        if member.run > 0 {
            self.seen.insert("restart");
        }
        member.planner = AnchorPlanner::new(config(), &AnchorStart { state, elapsed, anchored }, now);
        member.site = Site::new(SiteConfig::default(), member.name.clone());
        (member.running, member.run) = (true, member.run + 1);
        member.gathered.clear();
        member.proofs.clear();
        member.handing.clear();
        member.handed.clear();
        member.calls.clear();
        let up = member.wan;
        self.wan(at, up);
        self.grown(at)?;
        for other in 0..self.members.len() {
            self.meets(at, other, true)?;
            self.meets(other, at, true)?;
        }
        Ok(())
    }

    fn grown(&mut self, at: usize) -> Result<(), Broken> {
        let member = &self.members[at];
        let worth = member.worth.last().map_or(0, |(end, _)| *end);
        if member.size == 0 {
            return Ok(());
        }
        self.anchors(at, AnchorEvent::Head { size: member.size, worth })
    }

    /// Puts a message on the wire; it does not overtake the one before.
    fn send(&mut self, from: usize, to: usize, event: Event) {
        let lost = !self.is_joined(from, to) || (self.lossy && self.rng.one_in(30));
        if lost {
            self.seen.insert("lost");
            return;
        }
        let slow = self.lossy && self.rng.one_in(20);
        let at = self.now + if slow { self.rng.between(1, 20 * SECOND) } else { self.rng.between(1, 100) };
        let last = self.last.entry((from, to)).or_default();
        *last = at.max(*last);
        let after = *last - self.now;
        self.plan(after, event);
    }

    fn asked(&mut self, from: usize, to: usize, (ticket, run): (u64, u64), word: Word) -> Result<(), Broken> {
        self.members[to].call += 1;
        let call = self.members[to].call;
        let name = self.members[from].name.clone();
        self.members[to].calls.insert(call, (from, run, ticket));
        match word {
            Word::Offer => {
                let member = &self.members[to];
                let lacking = member.planner.lacks_anchor().then(|| head(to, member.size));
                self.site(to, SiteEvent::Offered { from: name, call, lacking })
            }
            Word::Anchor { of, size, stamps } => {
                let genuine = |(authority, token): &(usize, usize)| {
                    let token = &self.tokens[*token];
                    token.authority == *authority && token.batch.contains(&(to, size))
                };
                let holds = of == to && size <= self.members[to].size && stamps.iter().all(genuine);
                let judged = if holds || (self.fault == Fault::BelieveAll && size <= self.members[to].size) {
                    Judged::Holds { head: head(to, size), stamps: stamps.len() }
                } else {
                    Judged::False
                };
                self.members[to].handed.insert(call, (size, stamps));
                self.site(to, SiteEvent::Handed { from: name, call, judged })
            }
            _ => Ok(()),
        }
    }

    fn site(&mut self, at: usize, event: SiteEvent) -> Result<(), Broken> {
        if !self.members[at].running {
            return Ok(());
        }
        let effects = self.members[at].site.handle(event, self.now);
        for effect in effects {
            if self.trace.is_some() {
                self.note(|| format!("  box {at}: {effect:?}"));
            }
            self.site_effect(at, effect)?;
        }
        self.wake(at);
        Ok(())
    }

    fn site_effect(&mut self, at: usize, effect: SiteEffect) -> Result<(), Broken> {
        match effect {
            SiteEffect::Ask { ticket, peer, ask } => {
                let to = self.members.iter().position(|member| member.name == peer).unwrap();
                let word = match ask {
                    SiteAsk::Offer => Word::Offer,
                    SiteAsk::HandOver { gather } => match self.handed_to(at, to, gather) {
                        Some(word) => word,
                        None => return Ok(()),
                    },
                };
                let run = self.members[at].run;
                self.send(at, to, Event::Ask { from: at, to, run, ticket, word });
            }
            SiteEffect::Gathered { ticket, heads } => {
                let place =
                    |name: &Name| self.members.iter().position(|member| member.name == *name).unwrap();
                let heads: Vec<(usize, u64)> =
                    heads.iter().map(|(name, head)| (place(name), head.size)).collect();
                let count = if self.fault == Fault::GatherNothing { 0 } else { heads.len() };
                if count > 0 {
                    self.seen.insert("gathered");
                }
                self.members[at].gathered.insert(ticket, heads);
                self.anchors(at, AnchorEvent::Gathered { ticket, heads: count })?;
            }
            SiteEffect::HoldOff { until } => {
                let ignored = match self.fault {
                    Fault::KeepHolding => until == 0,
                    Fault::IgnoreHold => true,
                    _ => false,
                };
                let until = if self.fault == Fault::KeepHolding { u64::MAX } else { until };
                if !ignored {
                    self.seen.insert("held off");
                    self.anchors(at, AnchorEvent::HoldOff { until })?;
                }
            }
            SiteEffect::Answer { call, answer } => {
                let Some((to, run, ticket)) = self.members[at].calls.remove(&call) else { return Ok(()) };
                let word = match answer {
                    SiteAnswer::Give => Word::Wish { size: self.members[at].size },
                    SiteAnswer::Taken => Word::Taken,
                    // Whoever handed something over has done what it could.
                    _ if self.members[at].handed.contains_key(&call) => Word::Taken,
                    _ => Word::No,
                };
                if answer != SiteAnswer::Taken {
                    self.members[at].handed.remove(&call);
                }
                self.send(at, to, Event::Answer { from: at, to, run, ticket, word });
            }
            SiteEffect::Take { call } => {
                self.seen.insert("taken");
                let (size, stamps) = self.members[at].handed[&call].clone();
                let authorities = stamps.iter().map(|(authority, _)| *authority).collect();
                self.anchors(at, AnchorEvent::Handed { handed: call, size, authorities })?;
            }
            SiteEffect::Report(SiteFinding::Lied { .. }) => drop(self.seen.insert("refused")),
            SiteEffect::Report(SiteFinding::Late { .. }) => drop(self.seen.insert("late")),
        }
        Ok(())
    }

    /// What a box hands to another: what came, or what a liar makes of it.
    fn handed_to(&mut self, at: usize, to: usize, gather: u64) -> Option<Word> {
        if self.fault == Fault::HandNothing {
            return None;
        }
        let member = &self.members[at];
        let size = member.gathered.get(&gather)?.iter().find(|(of, _)| *of == to)?.1;
        let stamps = member.handing.get(&gather)?.clone();
        match member.lie {
            Some(Lie::Withhold | Lie::Nag) => None,
            Some(Lie::Foreign) => {
                // Stamps that exist, by the right authority, over other heads.
                let other = |authority: usize| {
                    self.tokens
                        .iter()
                        .position(|token| token.authority == authority && !token.batch.contains(&(to, size)))
                };
                let stamps =
                    stamps.iter().filter_map(|(authority, _)| Some((*authority, other(*authority)?)));
                Some(Word::Anchor { of: to, size, stamps: stamps.collect() })
            }
            Some(Lie::Others) => Some(Word::Anchor { of: at, size: size.min(1), stamps }),
            Some(Lie::Delay) if !self.rng.one_in(10) => None,
            Some(Lie::Delay) | None => Some(Word::Anchor { of: to, size, stamps }),
        }
    }

    fn anchors(&mut self, at: usize, event: AnchorEvent) -> Result<(), Broken> {
        if !self.members[at].running {
            return Ok(());
        }
        let random = self.rng.next();
        let effects = self.members[at].planner.handle(event, self.now, random);
        for effect in effects {
            if self.trace.is_some() {
                self.note(|| format!("  box {at}: {effect:?}"));
            }
            self.anchor_effect(at, effect)?;
        }
        self.wake(at);
        Ok(())
    }

    fn anchor_effect(&mut self, at: usize, effect: AnchorEffect) -> Result<(), Broken> {
        let run = self.members[at].run;
        match effect {
            AnchorEffect::Persist { ticket, state } => {
                let after = self.rng.between(0, 20);
                self.plan(after, Event::Persisted { at, run, ticket, state });
            }
            AnchorEffect::Gather { ticket, .. } => self.site(at, SiteEvent::Gather { ticket })?,
            AnchorEffect::Ask { ticket, authority, size, batch, timeout } => {
                let key = (batch, size, authority);
                if !self.members[at].wan {
                    self.plan(timeout, Event::Stamped { at, run, ticket, key, token: None });
                    return Ok(());
                }
                let mut heads = vec![(at, size)];
                if let Batch::Gathered { gather } = batch {
                    heads.extend(self.members[at].gathered[&gather].iter().copied());
                    if self.members[at].planner.anchored(2)
                        >= self.members[at].worth.last().map_or(0, |(end, _)| *end)
                    {
                        self.seen.insert("for others");
                    }
                }
                self.tokens.push(Token { authority, batch: heads });
                self.arrives(at, authority)?;
                let token = Some(self.tokens.len() - 1);
                let after = self.rng.between(50, 2 * SECOND);
                self.plan(after, Event::Stamped { at, run, ticket, key, token });
            }
            AnchorEffect::LogAnchor { ticket, size, batch, authorities } => {
                let stamps: Stamps = match batch {
                    Batch::Handed { handed } => self.members[at].handed[&handed].1.clone(),
                    batch => {
                        let proofs = &self.members[at].proofs;
                        authorities.iter().map(|place| (*place, proofs[&(batch, size, *place)])).collect()
                    }
                };
                let after = self.rng.between(1, 50);
                self.plan(after, Event::Logged { at, run, ticket, size, stamps: stamps.clone() });
                if let Batch::Gathered { gather } = batch {
                    self.members[at].handing.insert(gather, stamps);
                    self.site(at, SiteEvent::Anchored { gather })?;
                }
            }
        }
        Ok(())
    }

    fn arrives(&mut self, at: usize, authority: usize) -> Result<(), Broken> {
        let (now, member) = (self.now, &mut self.members[at]);
        let arrived = &mut member.arrived[authority];
        arrived.push(now);
        arrived.retain(|when| now - when < QUOTA.period);
        if arrived.len() > QUOTA.requests as usize {
            return Err(("quota", format!("box {at} asks authority {authority} {} times", arrived.len())));
        }
        Ok(())
    }

    fn wake(&mut self, at: usize) {
        let member = &self.members[at];
        let times = member.planner.next_wakeup().into_iter().chain(member.site.next_wakeup());
        let next = times.min().unwrap_or(u64::MAX).max(self.now + 1);
        if next < member.wakeup {
            self.members[at].wakeup = next;
            let after = next - self.now;
            self.plan(after, Event::Tick { at });
        }
    }

    /// Since when the oldest entry waits that is not anchored by both.
    fn waiting(&self, at: usize) -> Option<u64> {
        let member = &self.members[at];
        let anchored = member.anchored.iter().min().copied().unwrap_or(0);
        member.worth.iter().find(|(end, _)| *end > anchored).map(|(_, when)| *when)
    }

    fn check(&self) -> Result<(), Broken> {
        for (at, member) in self.members.iter().enumerate().filter(|(_, member)| member.lie.is_none()) {
            let remembered = member.site.remembered();
            if remembered > 10 * self.members.len() {
                return Err(("memory", format!("box {at} remembers {remembered} things")));
            }
            let Some(since) = self.waiting(at) else { continue };
            let waits = self.now - since.max(member.fine_since).min(self.now);
            if waits > BOUND {
                return Err(("bounded", format!("box {at} waits for {} s", waits / SECOND)));
            }
            let served = self.calm && self.cut_off == Some(at);
            if served && self.now - since.max(self.calm_since) > SERVED && self.has_an_honest_neighbour(at) {
                return Err(("served", format!("box {at}, which reaches nobody, waits in vain")));
            }
        }
        Ok(())
    }

    fn has_an_honest_neighbour(&self, at: usize) -> bool {
        self.members.iter().enumerate().any(|(other, member)| other != at && member.lie.is_none())
    }

    fn end(&self) -> Result<(), Broken> {
        if !self.reunion {
            return Ok(());
        }
        // Each for itself would be one question of each box to each authority.
        let alone = self.members.len() * AUTHORITIES;
        if self.tokens.len() >= alone {
            return Err(("together", format!("authorities were asked {} times", self.tokens.len())));
        }
        let left: Vec<usize> = (0..self.members.len()).filter(|at| self.waiting(*at).is_some()).collect();
        if left.is_empty() { Ok(()) } else { Err(("together", format!("boxes {left:?} are not anchored"))) }
    }
}
