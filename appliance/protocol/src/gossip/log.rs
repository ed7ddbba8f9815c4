//! A neighbour's log: what is held of it, what is known to be there, and what of that may be cosigned.
//!
//! Invariants: `wanted` and `durable` never go back, and `wanted` moves only to heads that a proof led to from the one
//! before; `reached` lies in the copy.

use super::{CopyStart, CosignerState, GossipConfig, Head, Name, Retry};
use std::collections::{BTreeMap, BTreeSet};

/// Whom to ask for what all of them may have: each once, then a pause.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    pub tried: BTreeSet<Name>,
    pub retry: Retry,
    /// Somebody's answer did not hold.
    pub doubt: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Log {
    pub copy: Head,
    /// The newest signed head that the copy covers.
    pub reached: Option<Head>,
    pub lacking: bool,
    /// The newest signed head beyond the copy.
    pub target: Option<Head>,
    /// A signed head that a proof led to from the copy and from what was witnessed.
    pub proven: Option<Head>,
    /// So much of the copy is known to agree with what was witnessed, as long as that is larger than the copy.
    agreed: u64,
    /// A signed head that is none of the copy's tree; shown as a fork once a signed head covers it.
    pub suspect: Option<Head>,
    /// A head that nobody could prove.
    pub given_up: Option<Head>,
    pub durable: CosignerState,
    pub wanted: CosignerState,
    pub persisting: Option<(u64, CosignerState)>,
    pub persist_retry: Retry,
    /// The question for entries, objects or proofs that is under way; one at a time.
    pub fetching: Option<u64>,
    pub dispute: Option<Name>,
    pub entries: Round,
    pub objects: Round,
    pub disk_retry: Retry,
    pub prove_at: u64,
    /// What the log's box has taken since it is connected.
    handed: (Option<Head>, Option<Head>),
    /// How many entries others say they hold.
    pub holds: BTreeMap<Name, u64>,
}

pub(super) fn beyond(head: Option<Head>, other: Option<Head>) -> bool {
    head.map_or(0, |head| head.size) > other.map_or(0, |head| head.size)
}

impl Log {
    pub fn nothing(origin: Name) -> Self {
        let state = CosignerState::default();
        Log::new(&CopyStart { origin, copy: Head::empty(), reached: None, lacking: false, state })
    }

    pub fn new(start: &CopyStart) -> Self {
        Log {
            copy: start.copy,
            reached: start.reached,
            lacking: start.lacking,
            target: start.state.witnessed.filter(|head| head.size > start.copy.size),
            proven: None,
            agreed: start.state.mirrored.map_or(0, |head| head.size),
            suspect: None,
            given_up: None,
            durable: start.state,
            wanted: start.state,
            persisting: None,
            persist_retry: Retry::default(),
            fetching: None,
            dispute: None,
            entries: Round::default(),
            objects: Round::default(),
            disk_retry: Retry::default(),
            prove_at: 0,
            handed: (None, None),
            holds: BTreeMap::new(),
        }
    }

    /// Nothing is held, cosigned or under way.
    pub fn is_nothing(&self) -> bool {
        let nothing = CosignerState::default();
        self.copy.size == 0
            && self.durable == nothing
            && self.wanted == nothing
            && self.persisting.is_none()
            && self.fetching.is_none()
    }

    pub fn is_frozen(&self) -> bool {
        self.wanted.frozen
    }

    pub fn freeze(&mut self) {
        self.wanted.frozen = true;
    }

    /// Heads that are known.
    pub fn heads(&self) -> impl Iterator<Item = Head> {
        let CosignerState { witnessed, mirrored, .. } = self.wanted;
        [witnessed, mirrored, self.reached, self.target, self.proven, self.suspect].into_iter().flatten()
    }

    /// A head that is known, and aimed at if it is beyond the copy; or that was given up not long ago.
    pub fn is_known(&self, head: Head, now: u64) -> bool {
        if self.is_dropped(head, now) {
            return true;
        }
        let aimed_at = head.size <= self.copy.size || !beyond(Some(head), self.target);
        aimed_at && self.heads().any(|known| known == head)
    }

    /// Whether what a peer says it holds is of use, and was not said before.
    pub fn is_more(&self, from: &Name, holds: u64) -> bool {
        let of_use = holds > self.copy.size || self.lacking && holds == self.copy.size;
        of_use && self.holds.get(from) != Some(&holds)
    }

    pub fn remembered(&self) -> usize {
        self.holds.len() + self.entries.tried.len() + self.objects.tried.len() + 8
    }

    /// A known head of that size with another root.
    pub fn contradiction(&self, head: Head) -> Option<Head> {
        self.heads().find(|known| known.size == head.size && known.root != head.root)
    }

    pub fn not_handed(&mut self) {
        self.handed = (None, None);
    }

    pub fn handed(&mut self, head: Head, witness: bool, mirror: bool) {
        if witness {
            self.handed.0 = Some(head);
        }
        if mirror {
            self.handed.1 = Some(head);
        }
    }

    /// The next cosignature to hand over: head, as a witness, as a mirror. Only what is durable.
    pub fn to_hand(&self) -> Option<(Head, bool, bool)> {
        let CosignerState { witnessed, mirrored, .. } = self.durable;
        if self.is_frozen() {
            return None;
        }
        if beyond(mirrored, self.handed.1) {
            return mirrored.map(|head| (head, witnessed == mirrored, true));
        }
        witnessed.filter(|_| beyond(witnessed, self.handed.0)).map(|head| (head, true, false))
    }

    pub fn is_persisting(&self, ticket: u64) -> bool {
        self.persisting.is_some_and(|persisting| persisting.0 == ticket)
    }

    pub fn not_persisted(&mut self, config: &GossipConfig, now: u64, random: u64) {
        self.persisting = None;
        self.persist_retry.failed(config, now, random);
    }

    /// A peer is there again.
    pub fn try_again(&mut self, name: &Name) {
        for round in [&mut self.entries, &mut self.objects] {
            round.tried.remove(name);
            round.retry = Retry::default();
        }
    }

    /// Peers and tickets that are no more.
    pub fn forget(&mut self, alive: impl Fn(u64) -> bool, known: impl Fn(&Name) -> bool) {
        self.fetching = self.fetching.filter(|ticket| alive(*ticket));
        self.dispute = self.dispute.take().filter(&known);
        self.holds.retain(|name, _| known(name));
        self.entries.tried.retain(&known);
        self.objects.tried.retain(&known);
    }

    /// Whether something is wanted of whoever can be asked, or is to be proven now and then.
    pub fn waits(&self) -> bool {
        let beyond_copy = self.target.is_some_and(|target| target.size > self.copy.size);
        let wants = self.fetching.is_none() && (self.lacking || self.dispute.is_some() || beyond_copy);
        !self.is_frozen() && (wants || self.suspect.is_some())
    }

    pub fn times(&self) -> [u64; 4] {
        [self.persist_retry.at, self.entries.retry.at, self.objects.retry.at, self.disk_retry.at]
    }

    fn is_dropped(&self, head: Head, now: u64) -> bool {
        self.given_up == Some(head) && now < self.entries.retry.at
    }

    pub fn aim_at(&mut self, head: Head, now: u64) {
        if head.size > self.copy.size && beyond(Some(head), self.target) && !self.is_dropped(head, now) {
            self.target = Some(head);
        }
    }

    /// The copy has become this, which leads to that signed head.
    pub fn advance(&mut self, copy: Head, head: Head) {
        self.copy = copy;
        self.reached = self.end(copy, head).or(self.reached);
        // A proof led from the copy to the head; and from what was witnessed, when that is in the copy or the head.
        let witnessed = self.wanted.witnessed;
        if witnessed.is_none_or(|witnessed| witnessed.size <= copy.size || witnessed == head) {
            (self.proven, self.agreed) = (Some(head), copy.size);
        }
        self.target = self.target.filter(|target| target.size > copy.size);
        self.entries = Round::default();
        self.disk_retry = Retry::default();
    }

    /// What may be cosigned now, once it is durable.
    pub fn settle(&mut self) {
        if self.is_frozen() {
            return;
        }
        if beyond(self.proven, self.wanted.witnessed) {
            self.wanted.witnessed = self.proven;
        }
        let witnessed = self.wanted.witnessed.map_or(0, |head| head.size);
        let agreed = if witnessed <= self.copy.size { self.copy.size } else { self.agreed };
        let reached = self.reached.filter(|head| head.size <= agreed);
        // Stored before the box died, cosigned by nobody: both heads are in the copy, so one leads to the other.
        if beyond(reached, self.wanted.witnessed) {
            self.wanted.witnessed = reached;
        }
        if !self.lacking && beyond(reached, self.wanted.mirrored) {
            self.wanted.mirrored = reached;
        }
    }

    /// The signed head that a copy, which leads to `head`, covers exactly.
    pub fn end(&self, copy: Head, head: Head) -> Option<Head> {
        self.heads().chain([head]).find(|end| *end == copy)
    }
}
