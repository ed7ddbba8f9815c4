//! The thread itself: what has happened goes to the machines, what they want is carried out, until nothing is left.
//!
//! Invariant: one effect at a time, in the order in which the machines wanted them.

use super::authority::{Line, Proof};
use super::crls::Fetching;
use super::doubt::Signing;
use super::facts::{AuthorityFacts, Facts};
use super::files::Courier;
use super::http::Trouble;
use super::kept::{self, Story};
use super::lease::Kept;
use super::restore::Told;
use super::sources::Sources;
use super::together::Together;
use super::{DrillError, DrillOrder, Handle, Inbox, Message};
use crate::config::{CrlsConfig, OutageConfig, TimeSourcesConfig};
use crate::driver::clock::{boottime_millis, now_millis};
use crate::driver::{Command, Shared, neighbours};
use bulla_formats::entry::{EntryRef, TreeState};
use bulla_keys::KeyService;
use bulla_ledger::Control;
use bulla_protocol::anchoring::{
    AnchorConfig, AnchorEffect, AnchorEvent, AnchorPlanner, AnchorStart, AnchorState, Batch, Refused,
};
use bulla_protocol::authority::Authority;
use bulla_protocol::mode::{Limits, ModeConfig, ModeEffect, ModeEvent, ModeMachine};
use bulla_protocol::site::{SiteEffect, SiteEvent};
use bulla_protocol::time::{Bounds, TimeConfig, TimeEffect, TimeEvent, TpmClock};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Longest pause between two looks at the log's size and the clocks.
const LOOK_MILLIS: u64 = 1_000;

/// What the thread is made of.
pub struct Parts {
    pub(in crate::driver) shared: Arc<Shared>,
    pub(in crate::driver) queue: mpsc::Sender<Command>,
    pub(in crate::driver) keys: KeyService,
    pub(in crate::driver) control: Control,
    pub(in crate::driver) pcrs: Vec<u8>,
    pub(in crate::driver) event_log: Option<PathBuf>,
    pub(in crate::driver) state_dir: PathBuf,
    pub(in crate::driver) config: OutageConfig,
    pub(in crate::driver) modes: ModeConfig,
    pub(in crate::driver) planning: AnchorConfig,
    pub(in crate::driver) crls: CrlsConfig,
    pub(in crate::driver) lines: Vec<Line>,
    pub(in crate::driver) sources: TimeSourcesConfig,
    pub(in crate::driver) told: Told,
    /// The neighbours that heads are anchored together with.
    pub(in crate::driver) neighbours: Option<neighbours::Handle>,
    pub(in crate::driver) handle: Handle,
    pub(in crate::driver) runtime: tokio::runtime::Handle,
}

/// What is to be done, whoever wants it.
enum Effect {
    Mode(ModeEffect),
    Anchor(AnchorEffect),
    Time(TimeEffect),
    Site(SiteEffect),
}

/// State of the outage thread.
pub struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Sender<Command>,
    pub(super) keys: KeyService,
    pub(super) control: Control,
    pub(super) pcrs: Vec<u8>,
    pub(super) event_log: Option<PathBuf>,
    pub(super) state_dir: PathBuf,
    pub(super) config: OutageConfig,
    pub(super) courier: Courier,
    /// The limits in force, and those of the configuration.
    pub(super) limits: Limits,
    pub(super) own_limits: Limits,
    pub(super) lease: Option<Kept>,
    /// The change of the fleet's hubs that the lease was last looked at after.
    pub(super) hubs_seen: u64,
    pub(super) authorities: Vec<Authority>,
    /// What was last seen of each authority that fails; empty while it does not.
    pub(super) details: Vec<String>,
    /// Whether it has answered since this start.
    heard: Vec<bool>,
    pub(super) counts: Vec<AuthorityFacts>,
    pub(super) signing: Vec<Signing>,
    pub(super) lines: Arc<Vec<Line>>,
    pub(super) modes: ModeMachine,
    pub(super) planner: AnchorPlanner,
    pub(super) crls: Fetching,
    pub(super) sources: Sources,
    /// Whose answer was last read to the clock's keeper.
    pub(super) speaker: String,
    pub(super) story: Story,
    /// The tree before the change that ended the outage, and the outage's seals.
    pub(super) ended: Option<(TreeState, u64)>,
    /// Closing manifests that no anchor covers yet.
    pub(super) unanchored: Vec<EntryRef>,
    /// Proofs over trees of a size and what was in the batch beside, by authority.
    pub(super) proofs: HashMap<(Batch, u64, usize), Proof>,
    pub(super) together: Option<Together>,
    /// Entries there were at this start.
    pub(super) first_of_run: u64,
    pub(super) outage_millis: u64,
    effects: VecDeque<Effect>,
    refused: Option<bulla_protocol::mode::DrillRefusal>,
    pub(super) handle: Handle,
    pub(super) runtime: tokio::runtime::Handle,
    seen: Seen,
}

/// What was last looked at.
#[derive(Default)]
struct Seen {
    size: u64,
    seals: u64,
    locked: bool,
    at: u64,
}

impl Desk {
    /// A desk that goes on where the log stands.
    ///
    /// # Errors
    /// The configuration was not checked.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let now = boottime_millis();
        let Parts { shared, control, planning, told, .. } = parts;
        let start = anchor_start(&shared, &control, &planning, &told);
        let authorities: Vec<Authority> = parts.modes.authorities.clone();
        let counts = authorities.iter().map(AuthorityFacts::new).collect();
        let limits = parts.modes.limits;
        let size = shared.reader.size();
        Ok(Desk {
            queue: parts.queue,
            keys: parts.keys,
            pcrs: parts.pcrs,
            event_log: parts.event_log,
            state_dir: parts.state_dir,
            courier: Courier::new(parts.config.media.clone()),
            config: parts.config,
            limits,
            own_limits: limits,
            lease: None,
            hubs_seen: 0,
            details: vec![String::new(); authorities.len()],
            heard: vec![false; authorities.len()],
            signing: vec![Signing::default(); authorities.len()],
            authorities,
            counts,
            lines: Arc::new(parts.lines),
            modes: ModeMachine::new(parts.modes, told.record, now),
            planner: AnchorPlanner::new(planning, &start, now),
            crls: Fetching::new(&parts.crls),
            sources: Sources::new(&parts.sources)?,
            speaker: String::new(),
            story: told.story,
            ended: None,
            unanchored: told.unanchored,
            proofs: HashMap::new(),
            together: parts.neighbours.map(|handle| Together::new(shared.origin.as_str(), handle)),
            first_of_run: size,
            outage_millis: 0,
            effects: VecDeque::new(),
            refused: None,
            handle: parts.handle,
            runtime: parts.runtime,
            seen: Seen { at: now, ..Seen::default() },
            control,
            shared,
        })
    }

    /// Works until told to stop.
    pub fn run(mut self, inbox: Inbox) {
        let probes = self.watch();
        // Before anything else: a box that was locked stays so.
        self.seen.locked = self.shared.lock().is_some();
        self.mode(ModeEvent::Locked(self.seen.locked));
        self.resume_lease();
        self.resume_crls();
        self.resume_doubt();
        let anchored = self.planner.anchored(self.planner.needed());
        self.tell_anchored(anchored);
        self.look();
        loop {
            let now = boottime_millis();
            let wakeups = self.modes.next_wakeup().into_iter().chain(self.planner.next_wakeup());
            let wakeups = wakeups.chain(self.together.as_ref().and_then(Together::next_wakeup));
            let wakeups = wakeups.chain(self.next_source());
            let pause = wakeups.min().map_or(LOOK_MILLIS, |at| at.saturating_sub(now)).clamp(1, LOOK_MILLIS);
            let mut message = match inbox.0.recv_timeout(Duration::from_millis(pause)) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            while let Some(next) = message {
                if let Message::Stop = next {
                    probes.iter().for_each(tokio::task::JoinHandle::abort);
                    return;
                }
                self.message(next);
                message = inbox.0.try_recv().ok();
            }
            self.look();
        }
    }

    /// Looks at every authority from time to time.
    fn watch(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let period = Duration::from_secs(self.config.probe_seconds);
        let count = self.lines.len().max(1) as u32;
        let watch = |authority: usize| {
            let (lines, handle) = (self.lines.clone(), self.handle.clone());
            self.runtime.spawn(async move {
                // Spread over the period, so that they are not all asked at once.
                tokio::time::sleep(period / 4 * authority as u32 / count).await;
                loop {
                    let sent = boottime_millis();
                    let result = lines[authority].probe(period).await;
                    handle.tell(Message::Probed { authority, result, sent });
                    tokio::time::sleep(period).await;
                }
            })
        };
        (0..self.lines.len()).map(watch).collect()
    }

    fn message(&mut self, message: Message) {
        // Whatever it leads to is about the log as it is now.
        self.look_at_log();
        match message {
            Message::Probed { authority, result, sent } => {
                let result = result.and_then(|proof| match proof {
                    Some(proof) => self.judged(authority, proof).map(Some),
                    None => self.relied_on(authority).map(|()| None),
                });
                if let Ok(Some(proof)) = &result {
                    self.reading(authority, proof, sent);
                }
                self.seen_of(authority, result.err());
            }
            Message::Answered { ticket, authority, over, result, sent } => {
                self.answered(ticket, authority, over, result, sent);
            }
            Message::Site(news) => self.site_news(news),
            Message::Crl { certificate, fetched } => self.crl_came(certificate, fetched),
            Message::Told { source, result, sent } => self.told(source, result, sent),
            Message::Tpm(clock) => self.tpm(clock),
            Message::Expedite(index) => self.plan(AnchorEvent::Expedite { index }),
            Message::Drill(order, reply) => {
                let answer = self.drill(order);
                // Whoever asked may have given up; the drill is what it is.
                drop(reply.send(answer));
            }
            Message::Lease(order, reply) => {
                let answer = self.take_lease(&order);
                // Whoever handed it in may have given up; it counts all the same.
                drop(reply.send(answer));
            }
            Message::Holders(count) => self.mode(ModeEvent::Holders { count }),
            Message::Look | Message::Stop => {}
        }
        self.carry_out();
    }

    /// An authority answered, or failed to.
    pub(super) fn seen_of(&mut self, authority: usize, trouble: Option<Trouble>) {
        let was_failing = !self.details[authority].is_empty();
        let result = match trouble {
            None => {
                self.details[authority].clear();
                Ok(())
            }
            Some(trouble) => {
                self.counts[authority].failed(&trouble);
                if !was_failing {
                    log::warn!("{} cannot be used: {}", self.authorities[authority].id, trouble.detail);
                }
                self.details[authority] = trouble.detail;
                Err(trouble.failure)
            }
        };
        let heard = result.is_ok() && std::mem::replace(&mut self.heard[authority], true);
        if result.is_ok() && was_failing {
            log::info!("{} answers again", self.authorities[authority].id);
        }
        if result.is_ok() && (was_failing || !heard) {
            self.plan(AnchorEvent::Reachable { authority });
        }
        self.mode(ModeEvent::Probed { authority, result });
    }

    fn answered(
        &mut self,
        ticket: u64,
        authority: usize,
        (batch, size): (Batch, u64),
        result: Result<Proof, Trouble>,
        sent: u64,
    ) {
        let result = result.and_then(|proof| self.judged(authority, proof));
        self.counts[authority].answered(boottime_millis().saturating_sub(sent), result.is_ok());
        match result {
            Ok(proof) => {
                self.reading(authority, &proof, sent);
                self.proofs.insert((batch, size, authority), proof);
                self.seen_of(authority, None);
                self.plan(AnchorEvent::Answered { ticket, result: Ok(()) });
            }
            Err(trouble) => {
                let refused = Refused { failure: trouble.failure, retry_after: trouble.retry_after };
                self.seen_of(authority, Some(trouble));
                self.plan(AnchorEvent::Answered { ticket, result: Err(refused) });
            }
        }
    }

    /// The time of a verified answer.
    fn reading(&mut self, authority: usize, proof: &Proof, sent: u64) {
        self.speaker = format!("authority {}", self.authorities[authority].id);
        let bounds = Bounds { lo: proof.bounds.0, hi: proof.bounds.1 };
        self.time(TimeEvent::Reading { bounds, sent });
    }

    fn tpm(&mut self, clock: TpmClock) {
        self.time(TimeEvent::Tpm(clock));
    }

    fn drill(&mut self, order: DrillOrder) -> Result<bulla_protocol::mode::ModeFacts, DrillError> {
        self.refused = None;
        self.mode(match order {
            DrillOrder::Start(millis) => ModeEvent::DrillStart { millis },
            DrillOrder::Stop => ModeEvent::DrillStop,
        });
        self.carry_out();
        match self.refused.take() {
            Some(refusal) => Err(DrillError::Refused(refusal)),
            None => Ok(self.modes.facts()),
        }
    }

    /// What changes without a message: the log, the lock, the clocks.
    fn look(&mut self) {
        let now = boottime_millis();
        if self.modes.facts().below == bulla_formats::entry::Mode::Emergency {
            self.outage_millis += now.saturating_sub(self.seen.at);
        }
        self.seen.at = now;
        let seals = self.shared.counters.seals.load(Relaxed);
        if seals > self.seen.seals {
            self.mode(ModeEvent::Sealed { count: seals - self.seen.seals });
            self.seen.seals = seals;
        }
        self.look_at_log();
        self.follow_hubs();
        let locked = self.shared.lock().is_some();
        if locked != self.seen.locked {
            self.seen.locked = locked;
            self.mode(ModeEvent::Locked(locked));
        }
        self.time(TimeEvent::Wall { millis: now_millis() });
        self.mode(ModeEvent::Tick);
        self.plan(AnchorEvent::Tick);
        self.site(SiteEvent::Tick);
        self.carry_out();
        self.fetch_crl();
        self.ask_sources();
        self.show();
    }

    /// Has the log grown?
    pub(super) fn look_at_log(&mut self) {
        let size = self.shared.published().map_or(0, |published| published.snapshot.size());
        if size > self.seen.size {
            self.seen.size = size;
            let worth = self.shared.worth.load(Relaxed);
            self.plan(AnchorEvent::Head { size, worth });
        }
    }

    pub(super) fn mode(&mut self, event: ModeEvent) {
        let effects = self.modes.handle(event, boottime_millis());
        self.effects.extend(effects.into_iter().map(Effect::Mode));
    }

    pub(super) fn plan(&mut self, event: AnchorEvent) {
        let mut random = [0; 8];
        // Without randomness retries are not spread; that is all.
        let _ = getrandom::fill(&mut random);
        let effects = self.planner.handle(event, boottime_millis(), u64::from_ne_bytes(random));
        self.effects.extend(effects.into_iter().map(Effect::Anchor));
    }

    pub(super) fn time(&mut self, event: TimeEvent) {
        let effects = self.shared.clock.handle(event);
        self.effects.extend(effects.into_iter().map(Effect::Time));
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Mode(ModeEffect::LogModeChange { ticket, change }) => {
                    self.log_change(ticket, &change)
                }
                Effect::Mode(ModeEffect::LogManifest { ticket, manifest }) => {
                    self.log_manifest(ticket, &manifest);
                }
                Effect::Mode(ModeEffect::LimitReached { limit, outage, drill }) => {
                    let drill = if drill { " (drill)" } else { "" };
                    log::error!(
                        "a limit of emergency operation is reached in outage {outage}{drill}: {limit:?}"
                    );
                }
                Effect::Mode(ModeEffect::DrillEnded(end)) => log::warn!("the drill has ended: {end:?}"),
                Effect::Mode(ModeEffect::DrillRefused(refusal)) => self.refused = Some(refusal),
                Effect::Anchor(AnchorEffect::Persist { ticket, state }) => self.persist(ticket, &state),
                Effect::Anchor(AnchorEffect::Ask { ticket, authority, size, batch, .. }) => {
                    self.ask(ticket, authority, size, batch);
                }
                Effect::Anchor(AnchorEffect::Gather { ticket, .. }) => {
                    self.site(SiteEvent::Gather { ticket });
                }
                Effect::Anchor(AnchorEffect::LogAnchor { ticket, size, batch, authorities }) => {
                    self.log_anchor(ticket, size, batch, &authorities);
                }
                Effect::Time(effect) => self.clock_effect(effect),
                Effect::Site(effect) => self.site_effect(effect),
            }
        }
        self.tidy_site();
    }

    pub(super) fn want_of_site(&mut self, effects: Vec<SiteEffect>) {
        self.effects.extend(effects.into_iter().map(Effect::Site));
    }

    fn persist(&mut self, ticket: u64, state: &AnchorState) {
        let plan = kept::Plan::new(state, &self.shared.clock.moment());
        let event = match kept::keep_plan(&self.control, &plan) {
            Ok(()) => AnchorEvent::Persisted { ticket },
            Err(error) => {
                log::warn!("quotas in use could not be kept, nobody is asked: {error}");
                AnchorEvent::NotPersisted { ticket }
            }
        };
        self.plan(event);
    }

    fn ask(&mut self, ticket: u64, authority: usize, size: u64, batch: Batch) {
        let (lines, handle) = (self.lines.clone(), self.handle.clone());
        let question = self.question(size, batch, lines[authority].since());
        self.counts[authority].asked();
        self.runtime.spawn(async move {
            let sent = boottime_millis();
            let result = match question {
                Ok(question) => lines[authority].ask(&question).await,
                Err(trouble) => Err(trouble),
            };
            handle.tell(Message::Answered { ticket, authority, over: (batch, size), result, sent });
        });
    }

    fn show(&self) {
        let facts = Facts {
            modes: self.modes.facts(),
            anchors: self.planner.facts(),
            needed: self.planner.needed(),
            anchored: self.planner.anchored(self.planner.needed()),
            authorities: self.counts.clone(),
            details: self.details.clone(),
            outage_seconds: self.outage_millis as f64 / 1e3,
            lease: self.lease_facts(),
            crls: self.crls_facts(),
            sources: self.sources.facts.clone(),
            together: self.together.as_ref().map(Together::facts),
        };
        self.shared.set_outage_facts(facts);
    }
}

/// What the planner begins with. Where nobody can tell what was asked, everything counts as asked just now.
fn anchor_start(shared: &Shared, control: &Control, planning: &AnchorConfig, told: &Told) -> AnchorStart {
    let kept = kept::plan(control);
    let (state, elapsed) = match kept {
        Ok(Some(plan)) => {
            let elapsed = shared.clock.moment().since(&plan.at.moment(), &TimeConfig::default());
            (plan.state(), elapsed)
        }
        Ok(None) if told.anchored.is_empty() => (AnchorState::default(), 0),
        Ok(None) => (AnchorState::used_up(planning), 0),
        Err(error) => {
            log::warn!("quotas in use cannot be read, and count as used up: {error}");
            (AnchorState::used_up(planning), 0)
        }
    };
    AnchorStart { state, elapsed, anchored: told.anchored.clone() }
}

/// Sends a command to the writer and waits for what comes of it; `None`: the box is stopping.
pub(in crate::driver) fn through<T>(
    queue: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    queue.blocking_send(command(reply)).ok()?;
    answer.blocking_recv().ok()
}
