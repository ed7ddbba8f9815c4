//! A box that dies anywhere, in front of a world that fails in every way it can.
//!
//! The driver here does what the driver of a real box does, no more: it carries out effects and reports what came of
//! them. Every append and every write to the disk may fail, succeed although it is reported as failed, or be the last
//! thing the process does, before or after it is durable.

mod authorities;
mod sources;

use crate::log::{Body, Broken, Log, Proof, Signer};
use crate::nature::{EPOCH, HOUR, MINUTE, Nature, SECOND};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::{Fault, Options};
use bulla_formats::entry::Mode;
use bulla_protocol::anchoring::{
    AnchorAuthority, AnchorConfig, AnchorEffect, AnchorEvent, AnchorPlanner, AnchorStart, AnchorState,
    Refused, Together,
};
use bulla_protocol::authority::{self, Failure};
use bulla_protocol::mode::{
    AtLimit, Limits, ModeConfig, ModeEffect, ModeEvent, ModeMachine, ModeRecord, Stage,
};
use bulla_protocol::time::{Bounds, Moment, TimeConfig, TimeEffect, TimeEvent, TimeKeeper, TimeState};
use sources::Tellers;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

pub const PROBE_EVERY: u64 = 15 * SECOND;

/// Who is told what became of an append.
#[derive(Clone, Copy, PartialEq)]
enum Asker {
    Mode(u64),
    Anchor(u64),
    Nobody,
}

enum Happening {
    TurnWan,
    TurnAuthority(usize),
    WallJump,
    Scan,
    Operator,
    PowerCut,
    Start,
    Calm,
    Quiet,
    Probe { run: u64, authority: usize },
    Probed { run: u64, authority: usize, result: Result<(), Failure>, signer: Option<u32> },
    LookAtTpm { run: u64 },
    Answered { run: u64, ticket: u64, result: Result<Bounds, Refused>, signer: u32 },
    Decide { run: u64 },
    Undo { run: u64, places: Vec<usize> },
    TurnSigner(usize),
    LookAtCrls { run: u64 },
    Append { run: u64, asker: Asker, body: Body },
    Keep { run: u64, ticket: u64, state: AnchorState, moment: Moment, truth: u64 },
    Gathered { run: u64, ticket: u64, heads: usize },
    HoldOff { run: u64 },
    TurnTeller(usize),
    AskTellers { run: u64 },
    Told { run: u64, place: usize, result: Option<(Bounds, i64)>, sent: u64 },
}

/// How a write ends.
#[derive(Clone, Copy)]
enum Fate {
    Durable,
    Failed,
    Unknown { durable: bool },
    Crash { durable: bool },
}

/// What is kept of quotas: the state, when that was, and what the wall clock showed.
struct Quotas {
    state: AnchorState,
    moment: Moment,
    wall: u64,
    /// When it really was.
    truth: u64,
}

/// What a power cut leaves.
#[derive(Default)]
struct Disk {
    quotas: Option<Quotas>,
    time: Option<TimeState>,
    locked: bool,
    /// Signers that a CRL lists which the box holds.
    revoked: BTreeSet<Signer>,
}

/// What it does not.
struct Process {
    modes: ModeMachine,
    planner: AnchorPlanner,
    keeper: TimeKeeper,
    /// Questions under way: authority, and when they left.
    asked: BTreeMap<u64, (usize, u64)>,
    /// Proofs that came, by authority.
    proofs: BTreeMap<usize, (u32, Bounds)>,
    /// The certificate of the newest stamp of each authority, as far as anybody knows.
    signers: Vec<Option<u32>>,
    failing: Vec<bool>,
    /// Until when the authorities want to be left alone, as far as the box can know: in true time.
    alone: BTreeMap<usize, u64>,
    /// The disk may be an older one; nothing is logged until somebody decides.
    suspected: bool,
    /// A write is on its way, so the machine may differ from the log.
    mode_append: bool,
    /// When to wake, in true time.
    wake: u64,
}

pub struct World {
    rng: Rng,
    options: Options,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Box<Happening>>,
    nature: Nature,
    mode_config: ModeConfig,
    anchor_config: AnchorConfig,
    /// Whom the box is told to ask: places in nature.
    configured: Vec<usize>,
    /// Whom it is told to ask from the next start on.
    edited: Option<Vec<usize>>,
    /// Distinct operators.
    operators: u64,
    first_mode: Mode,
    pub log: Log,
    disk: Disk,
    power_off: bool,
    run: u64,
    process: Option<Process>,
    /// Receipts given: first index, count and id.
    receipts: Vec<(u64, u64, u64)>,
    quiet: bool,
    seen: BTreeSet<&'static str>,
    oracle: Oracle,
    tellers: Tellers,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let count = rng.size(1, 4);
        let nature = Nature::new(&mut rng, count);
        let operators = rng.between(1, 3);
        let limit = |rng: &mut Rng, low, high| rng.one_in(4).then(|| rng.between(low, high));
        let mode_config = ModeConfig {
            limits: Limits {
                duration: limit(&mut rng, MINUTE, HOUR),
                seals: limit(&mut rng, 1, 500),
                holders: 0,
                at_limit: rng.pick(&[AtLimit::Continue, AtLimit::Safe]),
            },
            ..ModeConfig::default()
        };
        let anchor_config = AnchorConfig {
            operators: rng.size(1, 3),
            window_entries: rng.pick(&[10, 500, 4_096]),
            site: rng.one_in(2).then(Together::default),
            ..AnchorConfig::default()
        };
        let first_mode = ModeRecord::first_mode(true);
        let mut world = World {
            oracle: Oracle::new(count),
            rng,
            options,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            nature,
            mode_config,
            anchor_config,
            configured: Vec::new(),
            edited: None,
            operators,
            first_mode,
            log: Log::new(first_mode),
            disk: Disk::default(),
            power_off: false,
            run: 0,
            process: None,
            receipts: Vec::new(),
            quiet: false,
            seen: BTreeSet::new(),
            tellers: Tellers::new(options.seed),
            trace: Vec::new(),
        };
        world.configure((0..count).collect());
        world.plan(0, Happening::Start);
        world.plan(1, Happening::TurnWan);
        for place in 0..count {
            world.plan(2, Happening::TurnAuthority(place));
            let after = world.rng.between(1, 6 * HOUR);
            world.plan(after, Happening::TurnSigner(place));
        }
        for place in 0..world.tellers.count() {
            world.plan(2, Happening::TurnTeller(place));
        }
        for first in [Happening::WallJump, Happening::Scan, Happening::Operator, Happening::PowerCut] {
            let after = world.rng.between(1, HOUR);
            world.plan(after, first);
        }
        world.plan(world.options.rough, Happening::Calm);
        world.plan(world.options.rough + HOUR, Happening::Quiet);
        world
    }

    /// Tells the box whom to ask; it hears of it when it starts.
    fn configure(&mut self, places: Vec<usize>) {
        let name = |place: usize| authority::Authority {
            id: format!("tsa-{place}"),
            operator: format!("operator-{}", place as u64 % self.operators),
        };
        self.mode_config.authorities = places.iter().map(|place| name(*place)).collect();
        let each = |place: &usize| AnchorAuthority {
            authority: name(*place),
            quota: Some(self.nature.authorities[*place].quota),
            timeout: 10 * SECOND,
            batches: true,
        };
        self.anchor_config.authorities = places.iter().map(each).collect();
        self.configured = places;
    }

    /// Somebody edits the configuration: others, or in another order.
    fn reconfigure(&mut self) {
        let mut left: Vec<usize> = (0..self.nature.authorities.len()).collect();
        let mut chosen = Vec::new();
        for _ in 0..self.rng.size(1, left.len()) {
            chosen.push(left.swap_remove(self.rng.size(0, left.len() - 1)));
        }
        self.seen.insert("another configuration");
        self.note(|_| format!("configured: {chosen:?}"));
        let before = self.configured.clone();
        self.configure(chosen);
        if self.rng.one_in(2) {
            // Whoever did it takes it back soon.
            let after = self.rng.between(10 * SECOND, 10 * MINUTE);
            self.plan(after, Happening::Undo { run: self.run + 1, places: before });
        }
    }

    fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.options.trace {
            let line = format!("{:>12} {}", self.now, what(self));
            self.trace.push(line);
        }
    }

    fn plan(&mut self, after: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse((self.now + after, self.order)));
        self.happenings.insert(self.order, Box::new(what));
    }

    fn steady(&self) -> u64 {
        self.nature.clocks.steady(self.now)
    }

    /// Runs to the end; what is broken first ends it.
    pub fn go(&mut self) -> Result<(), Broken> {
        let end = self.options.rough + 2 * HOUR;
        loop {
            let wake = self.process.as_ref().map_or(u64::MAX, |process| process.wake);
            let next = self.queue.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            if wake.min(next) > end {
                break;
            }
            if wake < next {
                self.now = self.now.max(wake);
                self.modes(ModeEvent::Tick)?;
                self.anchors(AnchorEvent::Tick)?;
            } else if let Some(Reverse((at, order))) = self.queue.pop() {
                self.now = at;
                let what = self.happenings.remove(&order).expect("it was planned");
                self.happen(*what)?;
            }
            self.sleep();
        }
        self.judge()
    }

    /// Finds out when to wake next.
    fn sleep(&mut self) {
        let (clocks, now) = (&self.nature.clocks, self.now);
        if let Some(process) = self.process.as_mut().filter(|_| self.options.fault != Fault::NoTicks) {
            let next = process.modes.next_wakeup().into_iter().chain(process.planner.next_wakeup()).min();
            process.wake = next.map_or(u64::MAX, |steady| clocks.when(steady).max(now + 1));
        }
    }

    fn happen(&mut self, what: Happening) -> Result<(), Broken> {
        let alive = |run: u64| self.process.is_some() && run == self.run;
        match what {
            Happening::TurnWan => {
                self.nature.turn_wan();
                self.note(|world| format!("the WAN is {}", world.nature.wan));
                let after = Nature::spell(&mut self.rng) * if self.nature.wan { 2 } else { 1 };
                self.plan(after, Happening::TurnWan);
            }
            Happening::TurnAuthority(place) => {
                self.nature.turn_authority(&mut self.rng, place);
                self.note(|world| format!("authority {place} is {}", world.nature.authorities[place].up));
                let after = 4 * Nature::spell(&mut self.rng);
                self.plan(after, Happening::TurnAuthority(place));
            }
            Happening::TurnSigner(place) => {
                self.nature.turn_signer(place);
                self.note(|world| {
                    let authority = &world.nature.authorities[place];
                    format!(
                        "authority {place} has certificate {}; listed {:?}",
                        authority.signer, authority.listed
                    )
                });
                let after = self.rng.between(MINUTE, 6 * HOUR);
                self.plan(after, Happening::TurnSigner(place));
            }
            Happening::WallJump => {
                if !self.quiet {
                    self.nature.clocks.jump(&mut self.rng);
                }
                let after = self.rng.between(MINUTE, 12 * HOUR);
                self.plan(after, Happening::WallJump);
            }
            Happening::Calm => {
                self.nature.clear_up();
                self.tellers.clear_up();
                self.disk.locked = false;
                self.note(|_| "everything is up from here on".to_owned());
                self.start()?;
                self.decide()?;
                self.modes(ModeEvent::Locked(false))?;
                self.modes(ModeEvent::DrillStop)?;
            }
            Happening::Quiet => self.quiet = true,
            Happening::Scan => self.scan()?,
            Happening::Operator => self.operator()?,
            Happening::PowerCut => {
                let after = self.rng.between(10 * MINUTE, 24 * HOUR);
                if !self.nature.calm {
                    self.die();
                }
                self.plan(after, Happening::PowerCut);
            }
            Happening::Start => self.start()?,
            Happening::Probe { run, authority } if alive(run) => {
                let place = self.configured[authority];
                let answer = self.nature.ask(&mut self.rng, place, self.now, false);
                let answer = answer.map_err(|why| ("quota", why))?;
                let result = answer.result.map(|_| ());
                let after = answer.after.unwrap_or(10 * SECOND);
                let mute = self.nature.authorities[place].mute;
                let signer = (!mute && result.is_ok()).then_some(answer.signer);
                self.plan(after, Happening::Probed { run, authority, result, signer });
                self.plan(PROBE_EVERY, Happening::Probe { run, authority });
            }
            Happening::Probed { run, authority, result, signer } if alive(run) => {
                let result = self.judged(authority, result, signer);
                self.probed(authority, result)?;
            }
            Happening::TurnTeller(place) => self.turn_teller(place),
            Happening::AskTellers { run } if alive(run) => self.ask_tellers()?,
            Happening::Told { run, place, result, sent } if alive(run) => self.told(place, result, sent)?,
            Happening::Decide { run } if alive(run) => self.decide()?,
            Happening::Undo { run, places } if alive(run) && !self.nature.calm => {
                self.edited = Some(places);
                self.die();
            }
            Happening::LookAtCrls { run } if alive(run) => {
                self.look_at_crls()?;
                let after = self.rng.between(MINUTE, HOUR);
                self.plan(after, Happening::LookAtCrls { run });
            }
            Happening::LookAtTpm { run } if alive(run) => {
                let clock = self.nature.clocks.tpm(self.now);
                self.clocks(TimeEvent::Tpm(clock));
                self.plan(10 * MINUTE, Happening::LookAtTpm { run });
            }
            Happening::Answered { run, ticket, result, signer } if alive(run) => {
                self.answered(ticket, result, signer)?
            }
            Happening::Append { run, asker, body } if alive(run) => self.appended(asker, body)?,
            Happening::Keep { run, ticket, state, moment, truth } if alive(run) => {
                self.kept(ticket, state, moment, truth)?
            }
            Happening::Gathered { run, ticket, heads } if alive(run) => {
                self.anchors(AnchorEvent::Gathered { ticket, heads })?;
            }
            Happening::HoldOff { run } if alive(run) => {
                self.seen.insert("held off");
                let until = self.steady() + self.rng.between(0, 30 * SECOND);
                self.anchors(AnchorEvent::HoldOff { until })?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A process begins: from what is on the disk, and nothing else.
    fn start(&mut self) -> Result<(), Broken> {
        if self.process.is_some() {
            return Ok(());
        }
        if std::mem::take(&mut self.power_off) {
            self.nature.clocks.power_on(&mut self.rng, self.now);
        }
        if let Some(places) = self.edited.take() {
            self.configure(places);
        } else if !self.nature.calm && self.run > 0 && self.rng.one_in(2) {
            self.reconfigure();
        }
        self.run += 1;
        let (run, steady) = (self.run, self.steady());
        let believed = TimeConfig {
            drift_ppm: if self.options.fault == Fault::NoDrift { 0 } else { 100 },
            ..TimeConfig::default()
        };
        let mut keeper = TimeKeeper::new(believed, self.nature.clocks.boot(), self.disk.time, steady);
        // A TPM that does not answer is another reason for knowing nothing.
        if !self.rng.one_in(5) {
            let clock = self.nature.clocks.tpm(self.now);
            keeper.handle(TimeEvent::Tpm(clock), steady);
        }
        let moment = keeper.moment(steady);
        let wall = self.nature.clocks.wall(self.now);
        let (state, elapsed) = match &self.disk.quotas {
            None => (AnchorState::default(), 0),
            Some(_) if self.options.fault == Fault::ForgetQuota => (AnchorState::default(), 0),
            Some(kept) if self.options.fault == Fault::TrustWall => {
                (kept.state.clone(), wall.saturating_sub(kept.wall))
            }
            Some(kept) => (kept.state.clone(), moment.since(&kept.moment, &believed)),
        };
        let state =
            if self.options.fault == Fault::ForgetAbsent { self.only_configured(state) } else { state };
        let suspected = !self.nature.calm && self.run > 1 && self.rng.one_in(12);
        let mut record = self.log.read_record(self.first_mode);
        match self.options.fault {
            Fault::ForgetOutages => record = ModeRecord::new(record.mode),
            Fault::ForgetClosing => {
                if let Some(outage) = &mut record.outage {
                    outage.closing = None;
                }
            }
            _ => {}
        }
        self.note(|_| format!("start {run}: {record:?}, {elapsed} ms after the quotas were kept"));
        let mut config = self.mode_config.clone();
        if self.options.fault == Fault::SlowToSee {
            config.outage_after *= 5;
        }
        if self.options.fault == Fault::QuickToForget {
            config.recover_after = 0;
        }
        let start = AnchorStart { state, elapsed, anchored: self.log.anchored(&self.known_revoked()) };
        let newest = |place: &usize| Some(self.log.newest_signer(*place)?.1);
        let kept = self.disk.quotas.iter().flat_map(|kept| {
            kept.state.authorities.iter().map(|each| (each.id.clone(), kept.truth + each.blocked))
        });
        let kept: BTreeMap<String, u64> = kept.collect();
        let ids = self.mode_config.authorities.iter().enumerate();
        let alone = ids.filter_map(|(place, each)| Some((place, *kept.get(&each.id)?))).collect();
        self.process = Some(Process {
            modes: ModeMachine::new(config, record, steady),
            planner: AnchorPlanner::new(self.anchor_config.clone(), &start, steady),
            keeper,
            asked: BTreeMap::new(),
            proofs: BTreeMap::new(),
            signers: self.configured.iter().map(newest).collect(),
            failing: vec![true; self.mode_config.authorities.len()],
            alone,
            suspected,
            mode_append: false,
            wake: u64::MAX,
        });
        self.oracle.started(self.now, &self.configured);
        if suspected {
            self.seen.insert("rollback suspected");
            self.oracle.suspected();
            if self.options.fault != Fault::LogOnOldDisk {
                self.modes(ModeEvent::RollbackSuspected(true))?;
            }
            let after = self.rng.between(MINUTE, HOUR);
            self.plan(after, Happening::Decide { run });
        }
        for authority in 0..self.mode_config.authorities.len() {
            let after = self.rng.between(0, PROBE_EVERY);
            self.plan(after, Happening::Probe { run, authority });
        }
        self.plan(10 * MINUTE, Happening::LookAtTpm { run });
        self.tellers.start(steady);
        self.plan(0, Happening::AskTellers { run });
        let after = self.rng.between(MINUTE, HOUR);
        self.plan(after, Happening::LookAtCrls { run });
        self.doubt()?;
        let locked = self.disk.locked;
        self.modes(ModeEvent::Locked(locked))?;
        self.told_head()?;
        self.told_anchored()
    }

    /// What a planner would keep that forgets whom it is not told to ask.
    fn only_configured(&self, mut state: AnchorState) -> AnchorState {
        let known = |id: &String| self.mode_config.authorities.iter().any(|each| each.id == *id);
        state.authorities.retain(|each| known(&each.id));
        state
    }

    /// Somebody has looked: the disk is the newest one.
    fn decide(&mut self) -> Result<(), Broken> {
        let Some(process) = &mut self.process else { return Ok(()) };
        if !std::mem::take(&mut process.suspected) {
            return Ok(());
        }
        self.oracle.cleared(self.now);
        self.modes(ModeEvent::RollbackSuspected(false))?;
        self.doubt()?;
        self.told_head()?;
        self.told_anchored()
    }

    fn is_suspected(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.suspected)
    }

    /// The process, or the power, is gone; all that is on its way goes with it.
    fn die(&mut self) {
        if self.process.take().is_none() {
            return;
        }
        self.oracle.stopped(self.now);
        let power = self.rng.one_in(3);
        let away = if self.rng.one_in(4) {
            self.rng.between(MINUTE, 6 * HOUR)
        } else {
            self.rng.between(SECOND, MINUTE)
        };
        self.seen.insert(if power { "power cut" } else { "restart" });
        self.note(|_| format!("dead for {away} ms, power cut: {power}"));
        if power {
            self.nature.clocks.power_off(&mut self.rng, self.now);
            self.power_off = true;
        }
        self.plan(away, Happening::Start);
    }

    fn fate(&mut self) -> Fate {
        if self.nature.calm {
            return Fate::Durable;
        }
        let fate = match self.rng.between(0, 199) {
            0..=2 => Fate::Failed,
            3 => Fate::Unknown { durable: false },
            4 => Fate::Unknown { durable: true },
            5 => Fate::Crash { durable: false },
            6 => Fate::Crash { durable: true },
            _ => return Fate::Durable,
        };
        self.oracle.trouble(self.now);
        fate
    }

    fn modes(&mut self, event: ModeEvent) -> Result<(), Broken> {
        let steady = self.steady();
        let Some(process) = &mut self.process else { return Ok(()) };
        for effect in process.modes.handle(event, steady) {
            self.note(|_| format!("{effect:?}"));
            let (ticket, body) = match effect {
                ModeEffect::LogModeChange { ticket, change } => {
                    self.oracle.changes(&self.mode_config, &self.log.record, &change, self.now)?;
                    (ticket, Body::Change(change))
                }
                ModeEffect::LogManifest { ticket, manifest } => (ticket, Body::Manifest(manifest)),
                ModeEffect::DrillEnded(_) => {
                    self.oracle.drill_ended(self.now);
                    continue;
                }
                ModeEffect::DrillRefused(_) => {
                    self.oracle.drill_refused();
                    continue;
                }
                ModeEffect::LimitReached { .. } => continue,
            };
            if let Some(process) = &mut self.process {
                process.mode_append = true;
            }
            self.append_later(Asker::Mode(ticket), body);
        }
        Ok(())
    }

    fn append_later(&mut self, asker: Asker, body: Body) {
        let after =
            if self.rng.one_in(50) { self.rng.between(0, 5 * SECOND) } else { self.rng.between(0, 20) };
        let run = self.run;
        self.plan(after, Happening::Append { run, asker, body });
    }

    fn anchors(&mut self, event: AnchorEvent) -> Result<(), Broken> {
        let (steady, random) = (self.steady(), self.rng.next());
        let Some(process) = self.process.as_mut().filter(|process| !process.suspected) else { return Ok(()) };
        for effect in process.planner.handle(event, steady, random) {
            self.note(|_| format!("{effect:?}"));
            match effect {
                AnchorEffect::Persist { ticket, state } => {
                    let Some(process) = &self.process else { continue };
                    let moment = process.keeper.moment(steady);
                    let late = self.rng.one_in(100);
                    let after = if late { self.rng.between(0, 20 * SECOND) } else { self.rng.between(0, 20) };
                    let (run, truth) = (self.run, self.now);
                    self.plan(after, Happening::Keep { run, ticket, state, moment, truth });
                }
                AnchorEffect::Ask { ticket, authority, .. } => self.ask(ticket, authority)?,
                AnchorEffect::Gather { ticket, .. } => self.gather(ticket),
                AnchorEffect::LogAnchor { ticket, size, authorities, .. } => {
                    let Some(process) = &self.process else { continue };
                    let proof = |place: &usize| {
                        let operator = self.anchor_config.authorities[*place].authority.operator.clone();
                        let (signer, bounds) = process.proofs[place];
                        Proof { operator, signer: (self.configured[*place], signer), bounds }
                    };
                    let proofs = authorities.iter().map(proof).collect();
                    self.append_later(Asker::Anchor(ticket), Body::Anchor { size, proofs });
                }
            }
        }
        Ok(())
    }

    /// Neighbours give heads, or want to ask themselves, or are not heard of.
    fn gather(&mut self, ticket: u64) {
        let (run, after) = (self.run, self.rng.between(0, 2 * SECOND));
        match self.rng.between(0, 8) {
            0 => self.plan(after, Happening::HoldOff { run }),
            1 => {}
            heads => {
                self.seen.insert("gathered");
                self.plan(after, Happening::Gathered { run, ticket, heads: heads as usize - 2 });
            }
        }
    }

    fn clocks(&mut self, event: TimeEvent) {
        let steady = self.steady();
        let Some(process) = &mut self.process else { return };
        let effects = process.keeper.handle(event, steady);
        for effect in effects {
            match effect {
                TimeEffect::Persist(state) => self.disk.time = Some(state),
                TimeEffect::LogClock(finding) => {
                    self.tellers.found(&finding, steady);
                    self.note(|_| format!("{finding:?}"));
                    // Nothing is logged on what may be an older disk.
                    if self.is_suspected() {
                        continue;
                    }
                    self.append_later(Asker::Nobody, Body::Clock);
                }
            }
        }
    }

    fn appended(&mut self, asker: Asker, body: Body) -> Result<(), Broken> {
        if self.is_suspected() {
            return Err((
                "rollback",
                format!("an entry is appended at {} while the disk may be old", self.log.size),
            ));
        }
        let fate = self.fate();
        if let Some(process) = &mut self.process {
            process.mode_append &= !matches!(asker, Asker::Mode(_));
        }
        let closing = matches!(&body, Body::Manifest(manifest) if manifest.stage == Stage::Closing);
        let durable = match fate {
            Fate::Durable => true,
            Fate::Failed => false,
            Fate::Unknown { durable } | Fate::Crash { durable } => durable,
        };
        let index = if durable { Some(self.log.append(body, EPOCH + self.now, None)?) } else { None };
        let unknown = match fate {
            Fate::Crash { .. } => {
                self.die();
                return Ok(());
            }
            Fate::Unknown { .. } => self.options.fault != Fault::AssumeLogged,
            _ => false,
        };
        let believed = index.or((self.options.fault == Fault::AssumeLogged).then_some(self.log.size));
        match asker {
            Asker::Nobody => {}
            Asker::Mode(_) if unknown => {
                let record = self.log.read_record(self.first_mode);
                self.modes(ModeEvent::Reread(record))?;
            }
            Asker::Mode(ticket) => {
                self.modes(match believed {
                    Some(index) => ModeEvent::Logged { ticket, index },
                    None => ModeEvent::NotLogged { ticket },
                })?;
            }
            Asker::Anchor(_) if unknown => {
                let anchored = self.log.anchored(&self.known_revoked());
                self.anchors(AnchorEvent::Reread { anchored })?;
            }
            Asker::Anchor(ticket) => {
                self.anchors(match believed {
                    Some(_) => AnchorEvent::Logged { ticket },
                    None => AnchorEvent::NotLogged { ticket },
                })?;
            }
        }
        if let (true, Some(index)) = (closing, index) {
            self.anchors(AnchorEvent::Urgent { index })?;
        }
        self.told_head()?;
        self.told_anchored()
    }

    fn told_head(&mut self) -> Result<(), Broken> {
        let (size, worth) = (self.log.size, self.log.worth);
        self.anchors(AnchorEvent::Head { size, worth })
    }

    /// The planner's claims are the log's, and the mode machine hears of them.
    fn told_anchored(&mut self) -> Result<(), Broken> {
        let Some(process) = &self.process else { return Ok(()) };
        for operators in 1..=process.planner.needed() {
            let claimed = process.planner.anchored(operators);
            let proven = self.log.anchored_by(operators, &BTreeSet::new());
            let counts = self.log.anchored_by(operators, &self.disk.revoked);
            let what = |by| format!("{claimed} by {operators} operators, the log proves {by}");
            if claimed > proven {
                return Err(("anchored", what(proven)));
            }
            if claimed > counts {
                return Err(("revoked", what(counts)));
            }
        }
        let size = process.planner.anchored(process.planner.needed());
        self.modes(ModeEvent::Anchored { size })
    }

    fn kept(&mut self, ticket: u64, state: AnchorState, moment: Moment, truth: u64) -> Result<(), Broken> {
        let wall = self.nature.clocks.wall(self.now);
        let fate = self.fate();
        if matches!(fate, Fate::Durable | Fate::Unknown { durable: true } | Fate::Crash { durable: true }) {
            self.disk.quotas = Some(Quotas { state, moment, wall, truth });
        }
        match fate {
            Fate::Durable => self.anchors(AnchorEvent::Persisted { ticket }),
            Fate::Failed | Fate::Unknown { .. } => self.anchors(AnchorEvent::NotPersisted { ticket }),
            Fate::Crash { .. } => {
                self.die();
                Ok(())
            }
        }
    }

    /// A scanner posts documents.
    fn scan(&mut self) -> Result<(), Broken> {
        let after = if self.rng.one_in(3) {
            self.rng.between(1, SECOND)
        } else {
            self.rng.between(SECOND, 10 * MINUTE)
        };
        self.plan(after, Happening::Scan);
        let silent = self.quiet || self.process.is_none() || self.is_suspected();
        if silent || self.log.record.mode == Mode::Safe {
            return Ok(());
        }
        let (count, id) = (self.rng.between(1, 40), self.rng.next());
        let durable = match self.fate() {
            Fate::Durable => true,
            Fate::Failed => false,
            Fate::Unknown { durable } | Fate::Crash { durable } => {
                // Its effect is known after recovery; a crash is one.
                if durable {
                    self.log.append(Body::Seals { count, id }, EPOCH + self.now, None)?;
                }
                if self.options.fault == Fault::EarlyReceipt {
                    self.receipts.push((self.log.size, count, id));
                }
                self.die();
                return Ok(());
            }
        };
        if !durable {
            return Ok(());
        }
        self.check_clock()?;
        let settled = self.process.as_ref().filter(|process| !process.mode_append);
        let said = settled.map(|process| (process.modes.mode(), process.modes.is_drill()));
        let index = self.log.append(Body::Seals { count, id }, EPOCH + self.now, said)?;
        self.receipts.push((index, count, id));
        self.modes(ModeEvent::Sealed { count })?;
        self.told_head()?;
        if self.rng.one_in(4) {
            self.seen.insert("expedite");
            self.anchors(AnchorEvent::Expedite { index })?;
        }
        Ok(())
    }

    /// The uncertainty stated with every entry is never too small.
    fn check_clock(&self) -> Result<(), Broken> {
        let Some(process) = self.process.as_ref().filter(|_| !self.tellers.doubtful) else { return Ok(()) };
        let (wall, steady, truth) = (self.nature.clocks.wall(self.now), self.steady(), EPOCH + self.now);
        let uncertainty = process.keeper.uncertainty(wall, steady);
        if uncertainty.is_some_and(|uncertainty| wall.abs_diff(truth) > uncertainty) {
            return Err(("clock", format!("wall {wall}, truth {truth}, stated {uncertainty:?}")));
        }
        if process.keeper.floor(steady).is_some_and(|floor| floor > truth) {
            return Err(("clock", format!("it is {truth}, said to be later than that")));
        }
        Ok(())
    }

    /// Somebody locks the box, or drills, or a hub grants a lease.
    fn operator(&mut self) -> Result<(), Broken> {
        let after = self.rng.between(MINUTE, HOUR);
        self.plan(after, Happening::Operator);
        if self.nature.calm || self.process.is_none() {
            return Ok(());
        }
        match self.rng.between(0, 7) {
            0 => {
                self.disk.locked = true;
                self.modes(ModeEvent::Locked(true))
            }
            1 | 2 => {
                self.disk.locked = false;
                self.modes(ModeEvent::Locked(false))
            }
            3 => {
                let expires_in = self.rng.between(MINUTE, HOUR);
                self.note(|_| format!("a lease for {expires_in} ms"));
                self.oracle.lease(self.now, expires_in);
                self.modes(ModeEvent::Lease { expires_in, seals: None })?;
                // It may bring limits of its own, and be replaced by one with others in the middle of an outage.
                let at_limit = self.rng.pick(&[AtLimit::Continue, AtLimit::Safe]);
                let seals = self.rng.one_in(2).then(|| self.rng.between(1, 500));
                self.modes(ModeEvent::Limits(Limits { seals, at_limit, ..Limits::default() }))
            }
            4 => self.modes(ModeEvent::DrillStop),
            _ => {
                let millis = self.rng.between(SECOND, 30 * MINUTE);
                self.oracle.drill_asked(self.now, millis);
                self.modes(ModeEvent::DrillStart { millis })
            }
        }
    }

    /// What has happened.
    pub fn seen(&self) -> BTreeSet<&'static str> {
        let mut seen = self.log.seen();
        seen.extend(&self.seen);
        seen
    }

    /// What must be true when it is over.
    fn judge(&self) -> Result<(), Broken> {
        self.log.check_intervals()?;
        self.log.check_modes(self.first_mode)?;
        for (index, count, id) in &self.receipts {
            let place = self.log.entries.binary_search_by_key(index, |entry| entry.index);
            let entry = place.ok().map(|place| &self.log.entries[place].body);
            if !matches!(entry, Some(Body::Seals { count: c, id: i }) if (c, i) == (count, id)) {
                return Err(("receipts", format!("the seals at {index} are lost")));
            }
        }
        let liveness = |what: String| Err(("liveness", what));
        let Some(process) = &self.process else { return liveness("the box is dead".to_owned()) };
        let facts = process.modes.facts();
        if facts.mode != Mode::Online || facts.drill || facts.outage.is_some() {
            return liveness(format!("{facts:?}"));
        }
        self.check_known()?;
        let anchored = process.planner.anchored(process.planner.needed());
        if anchored < self.log.worth {
            return liveness(format!(
                "{anchored} of {} anchored: {:?}",
                self.log.worth,
                process.planner.facts()
            ));
        }
        Ok(())
    }
}
