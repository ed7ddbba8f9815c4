//! When which authority is asked to anchor the log, and when the log says so.
//!
//! What is anchored is a tree: a proof over its size covers every entry in it. One *round* at a time asks as many
//! operators as policy wants for a proof over the same tree; the proofs that came go into one `anchor` entry when all
//! are there, or when the rest has failed for now: those come with a later round. Entries wait until there are enough
//! of them, or they are old enough, or somebody waits; questions that can wait are spread over an authority's quota, so
//! that a flood of impatient clients shares them. Closing manifests jump that queue, not the quota.
//! Stamps whose signer is found revoked anchor nothing any more: what only they covered waits again, at once. An authority
//! that stamped so is asked beside the others in every round, within quota and backoff, until it stamps under another
//! certificate; nobody relies on it meanwhile.
//! With neighbours, a round first gathers the heads that they want anchored, so that one proof covers a site; a box for
//! which a neighbour asks holds off for a bounded time; what a neighbour hands over is logged as an answer is, under the
//! same rules. A box that reaches nobody gathers nothing: it would only keep others waiting.
//!
//! Refuses to do: I/O, clocks, randomness (jitter comes as a number); ask beyond a quota.
//! Invariants: a question leaves only after the state that counts it is durable; one question at a time to each
//! authority; while entries wait and some authority may be asked, a question is under way or `next_wakeup` names a
//! time; anchored is what the log says is anchored, less what is known to count for nothing; all questions of a round are
//! over one batch.

mod quota;
mod types;

pub use quota::Quota;
pub use types::{
    AnchorAuthority, AnchorConfig, AnchorEffect, AnchorEvent, AnchorFacts, AnchorStart, AnchorState,
    AuthorityFacts, AuthorityState, Batch, Refused, Together,
};

use crate::authority::Failure;
use quota::{Slots, remaining};

/// First pause after the disk or the log failed; doubles up to 64 times this.
const RETRY_MILLIS: u64 = 1_000;
/// However long an authority wants to be left alone, it is tried again after a day.
const BLOCKED_MAX: u64 = 86_400_000;

/// One authority.
#[derive(Debug, Clone)]
struct Line {
    id: String,
    operator: usize,
    timeout: u64,
    period: u64,
    slots: Slots,
    failures: u32,
    failure: Option<Failure>,
    not_before: u64,
    blocked_until: u64,
    /// The signer of its newest stamp is revoked.
    revoked: bool,
    /// One proof covers a batch.
    batches: bool,
    /// It has answered, and nothing has failed since.
    reachable: bool,
}

/// An authority that is not configured any more, and may be again: what it counts against its quota goes on.
#[derive(Debug, Clone)]
struct Absent {
    id: String,
    free_at: Vec<u64>,
    blocked_until: u64,
}

/// One operator.
#[derive(Debug, Clone)]
struct Operator {
    name: String,
    /// Largest tree that the log shows a proof of this operator for.
    anchored: u64,
    /// Since when there is something beyond it.
    lacking_since: Option<u64>,
}

#[derive(Debug, Clone)]
struct Flight {
    ticket: u64,
    authority: usize,
    deadline: u64,
}

/// A state on its way to the disk, and who may be asked once it is there.
#[derive(Debug, Clone)]
struct Persisting {
    ticket: u64,
    since: u64,
    asks: Vec<usize>,
}

/// Questions over one tree.
#[derive(Debug, Clone)]
struct Round {
    size: u64,
    /// Since when there is something beyond it.
    beyond: Option<u64>,
    tried: Vec<usize>,
    flights: Vec<Flight>,
    proofs: Vec<usize>,
    /// The anchor entry on its way.
    logging: Option<u64>,
    /// What the questions are over.
    batch: Batch,
    /// Neighbours are being asked for heads: the ticket, and until when.
    gathering: Option<(u64, u64)>,
    /// Neighbours were asked for heads, whether they gave any or not.
    offered: bool,
    /// Begun for neighbours' heads alone.
    for_site: bool,
}

impl Round {
    fn over(size: u64) -> Self {
        let (tried, flights, proofs) = (Vec::new(), Vec::new(), Vec::new());
        let (batch, gathering, offered, for_site) = (Batch::Alone, None, false, false);
        Round {
            size,
            beyond: None,
            tried,
            flights,
            proofs,
            logging: None,
            batch,
            gathering,
            offered,
            for_site,
        }
    }
}

/// Proofs that a neighbour has handed over.
#[derive(Debug, Clone)]
struct Handed {
    id: u64,
    size: u64,
    authorities: Vec<usize>,
}

/// A pause that doubles.
#[derive(Debug, Clone, Default)]
struct Retry {
    failures: u32,
    at: u64,
}

impl Retry {
    fn failed(&mut self, now: u64) {
        self.at = now.saturating_add(RETRY_MILLIS << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
    }
}

/// Decides whom to ask, and when.
#[derive(Debug, Clone)]
pub struct AnchorPlanner {
    config: AnchorConfig,
    needed: usize,
    lines: Vec<Line>,
    absent: Vec<Absent>,
    operators: Vec<Operator>,
    site: Slots,
    now: u64,
    size: u64,
    worth: u64,
    expedite: u64,
    urgent: u64,
    round: Option<Round>,
    /// Handed over while a round is under way.
    handed: Option<Handed>,
    /// Nobody is asked before.
    hold: u64,
    /// When neighbours were last asked for heads.
    offered: Option<u64>,
    persisting: Option<Persisting>,
    /// The state on disk misses something other than a question.
    dirty: bool,
    persist_retry: Retry,
    log_retry: Retry,
    last_anchor: Option<u64>,
    ticket: u64,
}

impl AnchorPlanner {
    /// A planner of a box that starts. `now` is in milliseconds of a clock that only goes forward, the same for all
    /// calls.
    pub fn new(config: AnchorConfig, start: &AnchorStart, now: u64) -> Self {
        let mut operators: Vec<Operator> = Vec::new();
        let mut lines: Vec<Line> = Vec::new();
        let left = |millis: u64| millis.saturating_sub(start.elapsed);
        for each in &config.authorities {
            let name = &each.authority.operator;
            let operator = operators.iter().position(|known| known.name == *name).unwrap_or_else(|| {
                operators.push(Operator { name: name.clone(), anchored: 0, lacking_since: None });
                operators.len() - 1
            });
            let mut slots = Slots::new(each.quota, each.timeout.saturating_mul(2));
            let known = start.state.authorities.iter().find(|state| state.id == each.authority.id);
            let taken = known.into_iter().flat_map(|state| &state.taken);
            slots.restore(taken.map(|millis| left(*millis)).filter(|millis| *millis > 0), now);
            lines.push(Line {
                id: each.authority.id.clone(),
                operator,
                timeout: each.timeout,
                period: each.quota.map_or(0, |quota| quota.period),
                slots,
                failures: 0,
                failure: None,
                not_before: 0,
                blocked_until: now.saturating_add(known.map_or(0, |state| left(state.blocked))),
                revoked: false,
                batches: each.batches,
                reachable: false,
            });
        }
        let unknown = |state: &&AuthorityState| lines.iter().all(|line| line.id != state.id);
        let until = |millis: &u64| now.saturating_add(left(*millis));
        let absent = start.state.authorities.iter().filter(unknown).map(|state| Absent {
            id: state.id.clone(),
            free_at: state.taken.iter().map(until).collect(),
            blocked_until: until(&state.blocked),
        });
        let absent = absent.collect();
        let longest = config.authorities.iter().map(|each| each.timeout).max().unwrap_or(0);
        let mut site = Slots::new(config.site_quota, longest.saturating_mul(2));
        let taken = start.state.site.iter().map(|millis| millis.saturating_sub(start.elapsed));
        site.restore(taken.filter(|millis| *millis > 0), now);
        let needed = config.operators.clamp(1, operators.len().max(1));
        let mut planner = AnchorPlanner {
            config,
            needed,
            lines,
            absent,
            operators,
            site,
            now,
            size: 0,
            worth: 0,
            expedite: 0,
            urgent: 0,
            round: None,
            handed: None,
            hold: 0,
            offered: None,
            persisting: None,
            dirty: false,
            persist_retry: Retry::default(),
            log_retry: Retry::default(),
            last_anchor: None,
            ticket: 0,
        };
        planner.reread(&start.anchored);
        planner
    }

    /// By how many operators entries are to be anchored.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// The largest tree that so many operators have anchored, as the log says.
    pub fn anchored(&self, operators: usize) -> u64 {
        let mut sizes: Vec<u64> = self.operators.iter().map(|operator| operator.anchored).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        operators.checked_sub(1).and_then(|place| sizes.get(place)).copied().unwrap_or(0)
    }

    /// The tree that questions are being asked about: its checkpoint must be at hand.
    pub fn open_batch(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.size)
    }

    /// Whether something that is worth it is not anchored by as many as policy asks for.
    pub fn lacks_anchor(&self) -> bool {
        !self.lines.is_empty() && self.anchored(self.needed) < self.worth
    }

    /// Until when nobody is asked, because a neighbour asks for this box.
    pub fn held_off(&self) -> Option<u64> {
        Some(self.hold).filter(|until| *until > self.now)
    }

    /// Whether these proofs, handed over, may still be logged.
    pub fn wants_handed(&self, id: u64) -> bool {
        let logged = self.round.as_ref().map(|round| round.batch);
        logged == Some(Batch::Handed { handed: id })
            || self.handed.as_ref().is_some_and(|handed| handed.id == id)
    }

    /// Whether proofs over the heads gathered under this ticket may still come.
    pub fn wants_gathered(&self, gather: u64) -> bool {
        self.round.as_ref().is_some_and(|round| {
            round.batch == Batch::Gathered { gather }
                || round.gathering.is_some_and(|(ticket, _)| ticket == gather)
        })
    }

    /// What a status page shows.
    pub fn facts(&self) -> AnchorFacts {
        let now = self.now;
        let behind = |operators| self.worth.saturating_sub(self.anchored(operators));
        let mut best: Vec<&Operator> = self.operators.iter().collect();
        best.sort_by_key(|operator| std::cmp::Reverse(operator.anchored));
        let lacking = best.get(self.needed - 1).and_then(|operator| operator.lacking_since);
        let asking = self.round.iter().flat_map(|round| &round.flights);
        let asking: Vec<usize> = asking.map(|flight| flight.authority).collect();
        let allowed = |at: Option<u64>| at.map(|at| at.saturating_sub(now));
        AnchorFacts {
            unanchored: if self.lines.is_empty() {
                Vec::new()
            } else {
                (1..=self.needed).map(behind).collect()
            },
            waiting: lacking.map(|since| now.saturating_sub(since)),
            last_anchor: self.last_anchor.map(|at| now.saturating_sub(at)),
            next_attempt: self.next_question().map(|at| at.saturating_sub(now)),
            authorities: (0..self.lines.len())
                .map(|place| AuthorityFacts {
                    id: self.lines[place].id.clone(),
                    failures: self.lines[place].failures,
                    failure: self.lines[place].failure,
                    revoked: self.lines[place].revoked,
                    quota_left: self.lines[place].slots.left(now),
                    asking: asking.contains(&place),
                    allowed_in: allowed(self.available_at(place)),
                })
                .collect(),
        }
    }

    /// What follows from `event`. `random` is any number that nobody can foresee; it spreads retries.
    pub fn handle(&mut self, event: AnchorEvent, now: u64, random: u64) -> Vec<AnchorEffect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        self.take(event, random, &mut effects);
        self.time_out(random);
        self.plan(&mut effects);
        effects
    }

    /// When to send a [`AnchorEvent::Tick`] if nothing happens before.
    pub fn next_wakeup(&self) -> Option<u64> {
        let deadlines = self.round.iter().flat_map(|round| &round.flights).map(|flight| flight.deadline);
        let gathering = self.round.iter().filter_map(|round| Some(round.gathering?.1));
        let times = deadlines.chain([self.persist_retry.at, self.log_retry.at]).chain(self.question_times());
        let times = times.chain(gathering).chain(self.offer_at());
        times.filter(|at| *at > self.now).min()
    }

    fn take(&mut self, event: AnchorEvent, random: u64, effects: &mut Vec<AnchorEffect>) {
        match event {
            AnchorEvent::Tick => {}
            AnchorEvent::Head { size, worth } => {
                if self.size == 0 {
                    // Nobody knows how long what is there at a start has waited.
                    self.expedite = worth.min(size);
                }
                self.size = self.size.max(size);
                self.worth = self.worth.max(worth.min(size));
                self.note_lacking();
            }
            AnchorEvent::Expedite { index } => self.expedite = self.expedite.max(index.saturating_add(1)),
            AnchorEvent::Urgent { index } => self.urgent = self.urgent.max(index.saturating_add(1)),
            AnchorEvent::Reachable { authority } => {
                if let Some(line) = self.lines.get_mut(authority) {
                    (line.not_before, line.revoked, line.reachable) = (0, false, true);
                }
            }
            AnchorEvent::Doubted { anchored, revoked } => self.doubted(&anchored, &revoked),
            AnchorEvent::Gathered { ticket, heads } => self.gathered(ticket, heads),
            AnchorEvent::HoldOff { until } => {
                self.hold = until;
                if until > self.now {
                    self.stop_gathering();
                }
            }
            AnchorEvent::Handed { handed, size, authorities } => {
                let authorities: Vec<usize> =
                    authorities.into_iter().filter(|place| *place < self.lines.len()).collect();
                let handed = Handed { id: handed, size: size.min(self.size), authorities };
                if self.handed.as_ref().is_none_or(|before| before.size <= handed.size) {
                    self.handed = Some(handed);
                }
                self.stop_gathering();
            }
            AnchorEvent::Answered { ticket, result } => self.answered(ticket, result, random),
            AnchorEvent::Persisted { ticket } => self.persisted(ticket, effects),
            AnchorEvent::NotPersisted { ticket } => {
                if let Some(lost) = self.persisting.take_if(|each| each.ticket == ticket) {
                    self.dirty = true;
                    self.persist_retry.failed(self.now);
                    self.give_back(lost);
                }
            }
            AnchorEvent::Logged { ticket } => {
                if let Some(round) = self.round.take_if(|round| round.logging == Some(ticket)) {
                    self.log_retry = Retry::default();
                    self.last_anchor = Some(self.now);
                    self.count(&round);
                }
            }
            AnchorEvent::NotLogged { ticket } => {
                if let Some(round) = self.round.as_mut().filter(|round| round.logging == Some(ticket)) {
                    round.logging = None;
                    self.log_retry.failed(self.now);
                }
            }
            AnchorEvent::Reread { anchored } => {
                self.reread(&anchored);
                if let Some(mut round) = self.round.take() {
                    round.logging = None;
                    let covered =
                        |place: &usize| self.operators[self.lines[*place].operator].anchored >= round.size;
                    if round.proofs.is_empty() || !round.proofs.iter().all(covered) {
                        self.round = Some(round);
                    }
                }
            }
        }
    }

    fn reread(&mut self, anchored: &[(String, u64)]) {
        for operator in &mut self.operators {
            let sizes = anchored.iter().filter(|(name, _)| *name == operator.name).map(|(_, size)| *size);
            operator.anchored = sizes.max().unwrap_or(0);
        }
        self.note_lacking();
    }

    /// What lost its anchor does not wait for a window again: it has waited.
    fn doubted(&mut self, anchored: &[(String, u64)], revoked: &[usize]) {
        let before: Vec<u64> = self.operators.iter().map(|operator| operator.anchored).collect();
        self.reread(anchored);
        for (operator, before) in self.operators.iter().zip(before) {
            if operator.anchored < before {
                self.expedite = self.expedite.max(before);
            }
        }
        for (place, line) in self.lines.iter_mut().enumerate() {
            line.revoked |= revoked.contains(&place);
        }
        if let Some(round) = &mut self.round {
            // Where the entry is on its way it is logged, and counts for the others in it.
            round.proofs.retain(|place| !revoked.contains(place));
        }
        if let Some(handed) = &mut self.handed {
            handed.authorities.retain(|place| !revoked.contains(place));
        }
    }

    /// The neighbours have given their heads: the round goes on with them, over what the log is by now.
    fn gathered(&mut self, ticket: u64, heads: usize) {
        let size = self.size;
        let Some(round) = self.round_gathering(ticket) else { return };
        (round.gathering, round.size) = (None, size);
        if heads > 0 {
            round.batch = Batch::Gathered { gather: ticket };
        } else if round.for_site {
            self.round = None;
        }
    }

    fn round_gathering(&mut self, ticket: u64) -> Option<&mut Round> {
        self.round.as_mut().filter(|round| round.gathering.is_some_and(|(of, _)| of == ticket))
    }

    /// Whoever is about to ask leaves it to a neighbour.
    fn stop_gathering(&mut self) {
        self.round.take_if(|round| round.gathering.is_some());
    }

    fn note_lacking(&mut self) {
        for operator in &mut self.operators {
            if self.worth <= operator.anchored {
                operator.lacking_since = None;
            } else if operator.lacking_since.is_none() {
                operator.lacking_since = Some(self.now);
            }
        }
        if let Some(round) = self.round.as_mut().filter(|round| round.size < self.worth) {
            round.beyond = round.beyond.or(Some(self.now));
        }
    }

    /// A round's proofs are in the log.
    fn count(&mut self, round: &Round) {
        for place in &round.proofs {
            let operator = &mut self.operators[self.lines[*place].operator];
            operator.anchored = operator.anchored.max(round.size);
            operator.lacking_since = round.beyond.filter(|_| self.worth > operator.anchored);
        }
        self.note_lacking();
    }

    fn answered(&mut self, ticket: u64, result: Result<(), Refused>, random: u64) {
        let Some(round) = &mut self.round else { return };
        let Some(place) = round.flights.iter().position(|flight| flight.ticket == ticket) else { return };
        let authority = round.flights.swap_remove(place).authority;
        match result {
            Ok(()) => {
                round.proofs.push(authority);
                let line = &mut self.lines[authority];
                (line.failures, line.failure, line.not_before, line.revoked) = (0, None, 0, false);
                line.reachable = true;
            }
            Err(refused) => self.failed(authority, refused, random),
        }
    }

    fn failed(&mut self, authority: usize, refused: Refused, random: u64) {
        let (config, now) = (&self.config, self.now);
        let line = &mut self.lines[authority];
        let doubled = config.backoff.saturating_mul(1 << line.failures.min(32));
        let pause = doubled.min(config.backoff_max).max(1);
        let jitter = random.rotate_left(u32::try_from(authority % 64).unwrap_or(0)) % (pause / 2 + 1);
        line.not_before = now.saturating_add(pause - pause / 2 + jitter);
        line.failures = line.failures.saturating_add(1);
        (line.failure, line.reachable) = (Some(refused.failure), false);
        line.revoked |= refused.failure == Failure::Revoked;
        let blocked = match (refused.retry_after, refused.failure) {
            (Some(millis), _) => millis,
            (None, Failure::Quota) => line.period.max(config.backoff_max),
            (None, _) => return,
        };
        line.blocked_until = now.saturating_add(blocked.min(BLOCKED_MAX));
        self.dirty = true;
    }

    fn time_out(&mut self, random: u64) {
        let gathering = self.round.as_ref().and_then(|round| round.gathering);
        if let Some((ticket, _)) = gathering.filter(|(_, until)| *until <= self.now) {
            self.gathered(ticket, 0);
        }
        let late = |flight: &&Flight| flight.deadline <= self.now;
        let flights = self.round.iter().flat_map(|round| &round.flights);
        let tickets: Vec<u64> = flights.filter(late).map(|flight| flight.ticket).collect();
        for ticket in tickets {
            let refused = Refused { failure: Failure::Timeout, retry_after: None };
            self.answered(ticket, Err(refused), random);
        }
    }

    fn persisted(&mut self, ticket: u64, effects: &mut Vec<AnchorEffect>) {
        let Some(done) = self.persisting.take_if(|each| each.ticket == ticket) else { return };
        self.persist_retry = Retry::default();
        let slow = |place: &&usize| self.now.saturating_sub(done.since) > self.lines[**place].timeout;
        if done.asks.iter().any(|place| slow(&place)) {
            // The slots count from the decision, and it is too long ago; decide anew.
            self.give_back(done);
            return;
        }
        let Some(round) = &mut self.round else { return };
        for authority in done.asks {
            self.ticket += 1;
            let (ticket, timeout) = (self.ticket, self.lines[authority].timeout);
            let deadline = self.now.saturating_add(timeout);
            round.flights.push(Flight { ticket, authority, deadline });
            let (size, batch) = (round.size, round.batch);
            effects.push(AnchorEffect::Ask { ticket, authority, size, batch, timeout });
        }
    }

    fn give_back(&mut self, never_asked: Persisting) {
        for authority in never_asked.asks {
            self.lines[authority].slots.give_back();
            self.site.give_back();
            if let Some(round) = &mut self.round {
                round.tried.retain(|tried| *tried != authority);
            }
        }
    }

    /// Whether this operator's newest proof is too old for what has come since.
    fn is_due(&self, operator: &Operator) -> bool {
        let lacks = self.worth.saturating_sub(operator.anchored);
        let aged = operator.lacking_since.is_some_and(|since| self.now >= self.ripe(since));
        self.wanted() > operator.anchored || (lacks > 0 && (lacks >= self.config.window_entries || aged))
    }

    /// Up to where somebody waits. An entry whose tree is not known yet is worth waiting for: a round without it would
    /// have to be followed by another.
    fn wanted(&self) -> u64 {
        let known = |size: &u64| *size <= self.size;
        [self.expedite, self.urgent].into_iter().filter(known).max().unwrap_or(0)
    }

    /// Whether there is anything beyond this operator's newest proof that is to be anchored.
    fn lacks(&self, operator: &Operator) -> bool {
        operator.lacking_since.is_some() || self.is_due(operator)
    }

    fn ripe(&self, since: u64) -> u64 {
        since.saturating_add(self.config.window_age)
    }

    /// When this authority may be asked, `None` for never.
    fn available_at(&self, place: usize) -> Option<u64> {
        let line = &self.lines[place];
        let quota = line.slots.available_at()?.max(self.site.available_at()?);
        // After a failure even what is urgent keeps its distance, or a flapping line would eat the quota.
        let beyond = self.urgent > self.operators[line.operator].anchored;
        let urgent = beyond && self.urgent <= self.size && line.failures == 0;
        let spaced = if urgent { 0 } else { line.slots.spaced_at().max(self.site.spaced_at()) };
        Some(quota.max(spaced).max(line.not_before).max(line.blocked_until).max(self.hold))
    }

    /// Starts a round, goes on with it, ends it; persists what must be.
    fn plan(&mut self, effects: &mut Vec<AnchorEffect>) {
        if self.round.is_none() {
            self.begin(effects);
        }
        if self.persisting.is_none() && self.now >= self.persist_retry.at {
            let asks = self.choose();
            if self.dirty || !asks.is_empty() {
                self.ticket += 1;
                self.dirty = false;
                self.persisting = Some(Persisting { ticket: self.ticket, since: self.now, asks });
                effects.push(AnchorEffect::Persist { ticket: self.ticket, state: self.state() });
            }
        }
        self.end_round(effects);
        if self.round.is_none() && self.handed.is_some() {
            // Nothing came of that round; a neighbour's did.
            self.begin(effects);
            self.end_round(effects);
        }
    }

    fn begin(&mut self, effects: &mut Vec<AnchorEffect>) {
        if let Some(handed) = self.handed.take().filter(|handed| self.adds(handed)) {
            let beyond = (handed.size < self.worth).then_some(self.now);
            let (tried, batch) = ((0..self.lines.len()).collect(), Batch::Handed { handed: handed.id });
            let proofs = handed.authorities;
            self.round = Some(Round { beyond, tried, proofs, batch, ..Round::over(handed.size) });
            return;
        }
        let own = self.should_begin();
        let for_site = !own && self.offer_at().is_some_and(|at| at <= self.now);
        if !own && !for_site {
            return;
        }
        let mut round = Round { for_site, ..Round::over(self.size) };
        if let Some(Together { gather_wait, .. }) = self.config.site.filter(|_| self.can_gather()) {
            self.ticket += 1;
            (self.offered, round.offered) = (Some(self.now), true);
            round.gathering = Some((self.ticket, self.now.saturating_add(gather_wait)));
            effects.push(AnchorEffect::Gather { ticket: self.ticket, wait: gather_wait });
        }
        self.round = Some(round);
    }

    /// Whether proofs that were handed over say more than the log does.
    fn adds(&self, handed: &Handed) -> bool {
        handed.authorities.iter().any(|place| {
            let anchored = self.operators[self.lines[*place].operator].anchored;
            anchored < handed.size && anchored < self.worth
        })
    }

    /// Whether a proof over a batch can be had now, as far as anybody knows.
    fn can_gather(&self) -> bool {
        (0..self.lines.len()).any(|place| {
            self.is_aggregating(place) && self.available_at(place).is_some_and(|at| at <= self.now)
        })
    }

    fn is_aggregating(&self, place: usize) -> bool {
        let line = &self.lines[place];
        line.batches && line.reachable && !line.revoked
    }

    /// When to offer neighbours to have their heads anchored, though nothing of the own log wants it.
    fn offer_at(&self) -> Option<u64> {
        let every = self.config.site?.offer_every;
        let places = (0..self.lines.len()).filter(|place| self.is_aggregating(*place));
        let available = places.filter_map(|place| self.available_at(place)).min()?;
        let due = self.offered.map_or(0, |at| at.saturating_add(every));
        (self.size > 0).then(|| due.max(available))
    }

    fn should_begin(&self) -> bool {
        let fresh = self.operators.iter().filter(|operator| !self.is_due(operator)).count();
        let due = |place: &usize| self.is_due(&self.operators[self.lines[*place].operator]);
        let available = |place: &usize| self.available_at(*place).is_some_and(|at| at <= self.now);
        fresh < self.needed && (0..self.lines.len()).any(|place| due(&place) && available(&place))
    }

    /// Picks whom to ask now, takes their slots and marks them as tried.
    fn choose(&mut self) -> Vec<usize> {
        let mut chosen = Vec::new();
        while let Some(place) = self.next_candidate(&chosen) {
            self.lines[place].slots.take(self.now);
            self.site.take(self.now);
            chosen.push(place);
            if let Some(round) = &mut self.round {
                round.tried.push(place);
            }
        }
        chosen
    }

    fn next_candidate(&self, chosen: &[usize]) -> Option<usize> {
        let asks = |round: &&Round| round.logging.is_none() && round.gathering.is_none();
        let round = self.round.as_ref().filter(asks)?;
        let tried = |place: &usize| round.tried.contains(place) || chosen.contains(place);
        // Who turns out to be there while others are tried alone is left to the next round, which offers.
        let lone = self.config.site.is_some() && !round.offered;
        let free = |place: &usize| {
            let left = lone && self.is_aggregating(*place);
            !left && !tried(place) && self.available_at(*place).is_some_and(|at| at <= self.now)
        };
        let others = || (0..self.lines.len()).filter(|place| self.lines[*place].revoked && free(place)).min();
        self.next_relied_on(round, chosen, free).or_else(others)
    }

    /// The best of those that are not known to stamp for nothing, while more are needed.
    fn next_relied_on(
        &self,
        round: &Round,
        chosen: &[usize],
        free: impl Fn(&usize) -> bool,
    ) -> Option<usize> {
        let operator_of = |place: &usize| self.lines[*place].operator;
        let asked = round.flights.iter().map(|flight| &flight.authority).chain(chosen);
        let asked = asked.filter(|place| !self.lines[**place].revoked).chain(&round.proofs);
        let mut engaged: Vec<usize> = asked.map(operator_of).collect();
        engaged.sort_unstable();
        engaged.dedup();
        // Who has anchored all that is worth it has nothing to add to this round, unless it is for others alone.
        let for_others = round.for_site && !self.lacks_anchor();
        let covers = |place: usize| {
            let wanted = self.worth.max(self.wanted()).min(round.size);
            !for_others && self.operators[place].anchored >= wanted
        };
        let fits = |place: &usize| !round.for_site || self.lines[*place].batches;
        let satisfied = (0..self.operators.len()).filter(|place| covers(*place) && !engaged.contains(place));
        if satisfied.count() + engaged.len() >= self.needed {
            return None;
        }
        let candidates = (0..self.lines.len()).filter(|place| {
            let operator = operator_of(place);
            let wanted = !engaged.contains(&operator) && !covers(operator) && fits(place);
            !self.lines[*place].revoked && wanted && free(place)
        });
        candidates.max_by_key(|place| {
            let line = &self.lines[*place];
            let due = self.is_due(&self.operators[line.operator]);
            (due, line.slots.left(self.now).unwrap_or(u32::MAX), std::cmp::Reverse(*place))
        })
    }

    fn end_round(&mut self, effects: &mut Vec<AnchorEffect>) {
        let asking = self.persisting.as_ref().is_some_and(|each| !each.asks.is_empty());
        let Some(round) = &mut self.round else { return };
        if asking || !round.flights.is_empty() || round.logging.is_some() || round.gathering.is_some() {
            return;
        }
        if round.proofs.is_empty() {
            // Nobody could be asked, or all failed: the next round is over what the log is then. While the disk
            // fails, the round waits for it.
            if self.now >= self.persist_retry.at {
                self.round = None;
            }
        } else if self.now >= self.log_retry.at {
            self.ticket += 1;
            round.logging = Some(self.ticket);
            let authorities = round.proofs.clone();
            let (ticket, size, batch) = (self.ticket, round.size, round.batch);
            effects.push(AnchorEffect::LogAnchor { ticket, size, batch, authorities });
        }
    }

    fn state(&self) -> AnchorState {
        let authorities = self.lines.iter().map(|line| AuthorityState {
            id: line.id.clone(),
            taken: line.slots.remaining(self.now),
            blocked: line.blocked_until.saturating_sub(self.now),
        });
        let absent = self.absent.iter().map(|absent| AuthorityState {
            id: absent.id.clone(),
            taken: remaining(&absent.free_at, self.now),
            blocked: absent.blocked_until.saturating_sub(self.now),
        });
        let counts = |state: &AuthorityState| state.blocked > 0 || !state.taken.is_empty();
        let authorities = authorities.chain(absent.filter(counts)).collect();
        AnchorState { authorities, site: self.site.remaining(self.now) }
    }

    /// Times at which a round may begin, or find another authority.
    fn question_times(&self) -> impl Iterator<Item = u64> {
        let waits = self.operators.iter().any(|operator| self.lacks(operator));
        let ripe = self.operators.iter().filter_map(|operator| Some(self.ripe(operator.lacking_since?)));
        let available = (0..self.lines.len()).filter_map(|place| self.available_at(place));
        ripe.chain(available).filter(move |_| waits)
    }

    /// When the next question may be asked, as far as anybody knows now.
    fn next_question(&self) -> Option<u64> {
        // A round begins when fewer operators are up to date than policy asks for.
        let mut due: Vec<u64> = self
            .operators
            .iter()
            .filter_map(|operator| {
                if self.is_due(operator) { Some(self.now) } else { Some(self.ripe(operator.lacking_since?)) }
            })
            .collect();
        due.sort_unstable();
        let begins = *due.get(self.operators.len().checked_sub(self.needed)?)?;
        let lacking = |place: &usize| self.lacks(&self.operators[self.lines[*place].operator]);
        let available =
            (0..self.lines.len()).filter(lacking).filter_map(|place| self.available_at(place)).min()?;
        Some(available.max(begins))
    }
}

#[cfg(test)]
mod tests;
