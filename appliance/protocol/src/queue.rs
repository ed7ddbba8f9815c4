//! Queueing: whether a request is sealed, kept for later or refused, and what the writer does next.
//!
//! A request that cannot be sealed now may be kept durably when policy says so for *every* hindrance in force. Kept
//! requests are sealed in the order they were taken, before anything that came after them. Never for a full disk
//! (nothing can be promised there), and never while a rollback is suspected (the log may be abandoned).
//! Refuses to do: promise; a promise is made by whoever has made the row durable.
//! Invariants: nothing is sealed ahead of a kept request unless it is behind it in the same batch; no batch begins
//! while outcomes of an earlier one are unrecorded; the log never goes so far past an unrecorded entry that its
//! request key could leave the window that would find it again.

/// Why sealing is not possible now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hindrance {
    /// An operator has locked the box.
    Locked,
    /// The device that holds the sealing key does not answer.
    KeyAway,
    /// Storage failed and has not recovered.
    StorageFailed,
}

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Keep requests while locked.
    pub when_locked: bool,
    /// Keep requests while the key is away.
    pub when_key_away: bool,
    /// Keep requests while storage has failed.
    pub when_storage_failed: bool,
    /// Most requests kept.
    pub entries_max: u64,
    /// Most bytes kept.
    pub bytes_max: u64,
}

impl QueuePolicy {
    fn allows(&self, hindrance: Hindrance) -> bool {
        match hindrance {
            Hindrance::Locked => self.when_locked,
            Hindrance::KeyAway => self.when_key_away,
            Hindrance::StorageFailed => self.when_storage_failed,
        }
    }

    fn allows_any(&self) -> bool {
        self.when_locked || self.when_key_away || self.when_storage_failed
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Requests.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Why a request is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Sealing is not possible now.
    Hindered(Hindrance),
    /// It is, but older requests come first.
    Behind,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Sealing is not possible now, and policy keeps nothing for that.
    Hindered(Hindrance),
    /// Policy would keep it, but the queue is full.
    Full(Hindrance),
    /// Older requests come first, and this one cannot be kept behind them.
    Behind,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Seal it, behind whatever is kept, in the same batch.
    Seal,
    /// Keep it.
    Keep(Cause),
    /// Refuse it.
    Refuse(Refusal),
}

/// What the writer does with what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something happens.
    Wait,
    /// Record the outcomes that are not recorded yet; nothing else comes first.
    Record,
    /// Seal the oldest, at most so many.
    Drain(u64),
}

/// What stands between requests and their seals.
#[derive(Debug, Clone)]
pub struct Gate {
    policy: QueuePolicy,
    batch: u64,
    locked: bool,
    key_away: bool,
    storage_failed: bool,
    /// The last attempt to drain or to record failed; nobody tries again before something has happened.
    held: bool,
}

impl Gate {
    /// A gate of a box that starts; `batch`: most kept requests sealed at once.
    pub fn new(policy: QueuePolicy, batch: u64, locked: bool) -> Self {
        let batch = batch.max(1);
        Gate { policy, batch, locked, key_away: false, storage_failed: false, held: false }
    }

    /// Whether an operator has locked the box.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether the sealing key is known to be away.
    pub fn is_key_away(&self) -> bool {
        self.key_away
    }

    /// An operator locks or unlocks the box.
    pub fn set_locked(&mut self, locked: bool) {
        self.locked = locked;
        self.held = false;
    }

    /// The sealing key did not sign.
    pub fn key_failed(&mut self) {
        self.key_away = true;
    }

    /// The device answers, or has signed.
    pub fn key_answers(&mut self) {
        self.key_away = false;
        self.held = false;
    }

    /// Whether the log can take entries.
    pub fn set_storage_failed(&mut self, failed: bool) {
        self.storage_failed = failed;
    }

    /// Draining or recording failed.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Something happened: what was held may be tried again.
    pub fn retry(&mut self) {
        self.held = false;
    }

    /// The first hindrance in force.
    pub fn hindrance(&self) -> Option<Hindrance> {
        self.hindrances().next()
    }

    fn hindrances(&self) -> impl Iterator<Item = Hindrance> {
        [
            (self.locked, Hindrance::Locked),
            (self.key_away, Hindrance::KeyAway),
            (self.storage_failed, Hindrance::StorageFailed),
        ]
        .into_iter()
        .filter_map(|(holds, hindrance)| holds.then_some(hindrance))
    }

    /// What becomes of a request of `bytes`, when so much is kept already.
    pub fn arrival(&self, kept: Backlog, bytes: u64) -> Arrival {
        let fits = kept.entries < self.policy.entries_max
            && kept.bytes.saturating_add(bytes) <= self.policy.bytes_max;
        if let Some(first) = self.hindrance() {
            if let Some(forbidden) = self.hindrances().find(|each| !self.policy.allows(*each)) {
                return Arrival::Refuse(Refusal::Hindered(forbidden));
            }
            return if fits {
                Arrival::Keep(Cause::Hindered(first))
            } else {
                Arrival::Refuse(Refusal::Full(first))
            };
        }
        if kept.entries == 0 || (kept.entries <= self.batch && !self.held) {
            return Arrival::Seal;
        }
        if fits && self.policy.allows_any() {
            Arrival::Keep(Cause::Behind)
        } else {
            Arrival::Refuse(Refusal::Behind)
        }
    }

    /// What comes next. `unrecorded`: outcomes of kept requests that are not recorded.
    pub fn next(&self, kept: Backlog, unrecorded: u64) -> Next {
        if self.held {
            Next::Wait
        } else if unrecorded > 0 {
            Next::Record
        } else if kept.entries > 0 && self.hindrance().is_none() {
            Next::Drain(kept.entries.min(self.batch))
        } else {
            Next::Wait
        }
    }
}

/// Whether the log, now of `size` entries, may take more while the outcome of entry `unrecorded` is not recorded:
/// after a crash its request key must still be inside the `window` of indexes in which keys count.
pub fn may_grow(size: u64, unrecorded: Option<u64>, window: u64) -> bool {
    unrecorded.is_none_or(|index| size.saturating_sub(index) < window / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};

    const ALL: QueuePolicy = QueuePolicy {
        when_locked: true,
        when_key_away: true,
        when_storage_failed: true,
        entries_max: 6,
        bytes_max: 1_000,
    };

    fn kept(entries: u64) -> Backlog {
        Backlog { entries, bytes: entries }
    }

    #[test]
    fn every_hindrance_in_force_must_be_allowed() {
        let policy = QueuePolicy { when_storage_failed: false, ..ALL };
        let mut gate = Gate::new(policy, 3, false);
        assert_eq!(gate.arrival(kept(0), 1), Arrival::Seal);
        gate.set_locked(true);
        assert_eq!(gate.arrival(kept(0), 1), Arrival::Keep(Cause::Hindered(Hindrance::Locked)));
        gate.set_storage_failed(true);
        let refused = Arrival::Refuse(Refusal::Hindered(Hindrance::StorageFailed));
        assert_eq!(gate.arrival(kept(0), 1), refused);
        let mut off = Gate::new(QueuePolicy { when_locked: false, ..ALL }, 3, true);
        assert_eq!(off.arrival(kept(0), 1), Arrival::Refuse(Refusal::Hindered(Hindrance::Locked)));
        off.set_locked(false);
        off.key_failed();
        assert_eq!(off.arrival(kept(0), 1), Arrival::Keep(Cause::Hindered(Hindrance::KeyAway)));
    }

    #[test]
    fn a_full_queue_refuses_by_number_and_by_bytes() {
        let gate = Gate::new(ALL, 3, true);
        let full = Arrival::Refuse(Refusal::Full(Hindrance::Locked));
        assert_eq!(gate.arrival(kept(6), 1), full);
        assert_eq!(gate.arrival(Backlog { entries: 1, bytes: 990 }, 11), full);
        assert_eq!(gate.arrival(Backlog { entries: 1, bytes: u64::MAX }, 11), full);
        assert!(matches!(gate.arrival(Backlog { entries: 5, bytes: 990 }, 10), Arrival::Keep(_)));
    }

    #[test]
    fn what_comes_while_much_is_kept_goes_behind() {
        let mut gate = Gate::new(ALL, 3, false);
        assert_eq!(gate.arrival(kept(3), 1), Arrival::Seal, "the rest goes first in the same batch");
        assert_eq!(gate.arrival(kept(4), 1), Arrival::Keep(Cause::Behind));
        assert_eq!(gate.arrival(kept(6), 1), Arrival::Refuse(Refusal::Behind));
        gate.hold();
        assert_eq!(gate.arrival(kept(1), 1), Arrival::Keep(Cause::Behind), "nothing overtakes what is held");
        let none =
            QueuePolicy { when_locked: false, when_key_away: false, when_storage_failed: false, ..ALL };
        assert_eq!(Gate::new(none, 3, false).arrival(kept(4), 1), Arrival::Refuse(Refusal::Behind));
    }

    #[test]
    fn outcomes_are_recorded_before_anything_is_drained() {
        let mut gate = Gate::new(ALL, 3, false);
        assert_eq!(gate.next(kept(5), 0), Next::Drain(3));
        assert_eq!(gate.next(kept(2), 0), Next::Drain(2));
        assert_eq!(gate.next(kept(5), 1), Next::Record);
        gate.hold();
        assert_eq!(gate.next(kept(5), 1), Next::Wait);
        gate.retry();
        gate.key_failed();
        assert_eq!(gate.next(kept(5), 0), Next::Wait);
        assert_eq!(gate.next(kept(5), 2), Next::Record, "recording needs no key");
        gate.key_answers();
        assert_eq!(gate.next(kept(0), 0), Next::Wait);
    }

    #[test]
    fn the_window_bounds_how_far_the_log_goes_past_an_unrecorded_entry() {
        assert!(may_grow(1_000_000, None, 10));
        assert!(may_grow(14, Some(10), 10));
        assert!(!may_grow(15, Some(10), 10));
    }

    /// One thing that happens to the modelled box.
    #[derive(Debug, Clone)]
    enum Event {
        Arrive,
        Retry(usize),
        Lock(bool),
        Key(bool),
        Storage(bool),
        Nudge,
        /// The writer's next step, cut off after so many of its effects; 3: not at all.
        Step(u8),
        /// The record of outcomes fails, done or not.
        FailRecord(bool),
        Crash,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => Just(Event::Arrive),
            2 => any::<usize>().prop_map(Event::Retry),
            1 => any::<bool>().prop_map(Event::Lock),
            2 => any::<bool>().prop_map(Event::Key),
            1 => any::<bool>().prop_map(Event::Storage),
            2 => Just(Event::Nudge),
            6 => (0u8..4).prop_map(Event::Step),
            2 => any::<bool>().prop_map(Event::FailRecord),
            1 => Just(Event::Crash),
        ]
    }

    /// The writer's shell in small: a durable log of request keys, a durable queue, and what dies with the process.
    struct World {
        log: Vec<u64>,
        rows: BTreeMap<u64, u64>,
        next_place: u64,
        promised: Vec<u64>,
        arrivals: u64,
        // Dies with the process.
        gate: Gate,
        unrecorded: Vec<u64>,
        key_is_away: bool,
        lock: bool,
    }

    impl World {
        fn kept(&self) -> Backlog {
            kept(self.rows.len() as u64)
        }

        fn request(&mut self, key: u64) {
            if self.log.contains(&key) || self.rows.values().any(|each| *each == key) {
                return;
            }
            match self.gate.arrival(self.kept(), 1) {
                Arrival::Refuse(_) => {}
                Arrival::Keep(_) => self.keep(key),
                Arrival::Seal => {
                    if self.gate.next(self.kept(), self.unrecorded.len() as u64) == Next::Record {
                        self.record();
                    }
                    let ahead = self.gate.next(self.kept(), self.unrecorded.len() as u64);
                    if let Next::Drain(_) = ahead {
                        self.seal_rows(u8::MAX);
                    }
                    if self.key_is_away {
                        self.gate.key_failed();
                        if let Arrival::Keep(_) = self.gate.arrival(self.kept(), 1) {
                            self.keep(key);
                        }
                    } else {
                        assert!(self.rows.is_empty(), "a newcomer overtakes what is kept");
                        self.log.push(key);
                    }
                }
            }
        }

        fn keep(&mut self, key: u64) {
            self.rows.insert(self.next_place, key);
            self.next_place += 1;
            self.promised.push(key);
        }

        fn record(&mut self) {
            for place in self.unrecorded.drain(..) {
                self.rows.remove(&place);
            }
        }

        /// Seals the oldest rows and records them; the process dies after `effects` effects.
        fn seal_rows(&mut self, effects: u8) {
            let Next::Drain(most) = self.gate.next(self.kept(), self.unrecorded.len() as u64) else { return };
            if self.key_is_away {
                self.gate.key_failed();
                return;
            }
            if effects == 0 {
                return self.crash();
            }
            let rows: Vec<(u64, u64)> = self.rows.iter().take(most as usize).map(|(p, k)| (*p, *k)).collect();
            for (place, key) in rows {
                if !self.log.contains(&key) {
                    self.log.push(key);
                }
                self.unrecorded.push(place);
            }
            if effects == 1 {
                return self.crash();
            }
            self.record();
            if effects == 2 {
                self.crash();
            }
        }

        fn crash(&mut self) {
            self.unrecorded.clear();
            self.gate = Gate::new(self.gate.policy, self.gate.batch, self.lock);
        }

        fn happens(&mut self, event: Event) {
            match event {
                Event::Arrive => {
                    self.arrivals += 1;
                    self.request(self.arrivals);
                }
                Event::Retry(which) => {
                    if self.arrivals > 0 {
                        self.request(1 + which as u64 % self.arrivals);
                    }
                }
                Event::Lock(locked) => {
                    self.lock = locked;
                    self.gate.set_locked(locked);
                }
                Event::Key(answers) => {
                    self.key_is_away = !answers;
                    if answers {
                        self.gate.key_answers();
                    }
                }
                Event::Storage(failed) => self.gate.set_storage_failed(failed),
                Event::Nudge => self.gate.retry(),
                Event::Step(effects) => match self.gate.next(self.kept(), self.unrecorded.len() as u64) {
                    Next::Wait => {}
                    Next::Record => self.record(),
                    Next::Drain(_) => self.seal_rows(if effects == 3 { u8::MAX } else { effects }),
                },
                Event::FailRecord(done) => {
                    // Sealed, and then the queue's file fails.
                    let before = self.rows.clone();
                    if let Next::Drain(most) = self.gate.next(self.kept(), self.unrecorded.len() as u64)
                        && !self.key_is_away
                    {
                        for (place, key) in before.iter().take(most as usize) {
                            if !self.log.contains(key) {
                                self.log.push(*key);
                            }
                            self.unrecorded.push(*place);
                        }
                        self.gate.hold();
                        if done {
                            // Only a crash shows that it was done.
                            self.record();
                            self.crash();
                        }
                    }
                }
                Event::Crash => self.crash(),
            }
        }
    }

    proptest! {
        /// Whatever happens and wherever the process dies: every promise is kept, once, in order.
        #[test]
        fn g3_kept_requests_are_sealed_once_and_in_order(events in prop::collection::vec(event(), 1..200)) {
            let mut world = World {
                log: Vec::new(),
                rows: BTreeMap::new(),
                next_place: 0,
                promised: Vec::new(),
                arrivals: 0,
                gate: Gate::new(ALL, 2, false),
                unrecorded: Vec::new(),
                key_is_away: false,
                lock: false,
            };
            for event in events {
                world.happens(event);
                let unique: HashSet<_> = world.log.iter().collect();
                prop_assert_eq!(unique.len(), world.log.len(), "sealed twice: {:?}", world.log);
            }
            for event in [Event::Lock(false), Event::Key(true), Event::Storage(false), Event::Nudge] {
                world.happens(event);
            }
            for _ in 0..100 {
                world.happens(Event::Step(3));
            }
            prop_assert!(world.rows.is_empty(), "a promise is not kept: {:?}", world.rows);
            let places: Vec<_> =
                world.promised.iter().map(|key| world.log.iter().position(|each| each == key)).collect();
            prop_assert!(places.iter().all(Option::is_some));
            prop_assert!(places.is_sorted(), "out of order: {places:?}");
        }
    }
}
