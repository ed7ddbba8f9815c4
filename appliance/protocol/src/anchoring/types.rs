//! What goes into the anchor planner and what comes out of it.

use super::quota::Quota;
use crate::authority::{Authority, Failure};

/// What the planner goes by. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorConfig {
    /// Whom to ask.
    pub authorities: Vec<AnchorAuthority>,
    /// By how many distinct operators an entry is to be anchored; never more than there are.
    pub operators: usize,
    /// So many entries that wait are anchored at once.
    pub window_entries: u64,
    /// No entry waits longer than this for the first attempt.
    pub window_age: u64,
    /// What all boxes of the site together may ask, as far as it is this box's to use.
    pub site_quota: Option<Quota>,
    /// First pause after a failure; doubles up to `backoff_max`.
    pub backoff: u64,
    /// Longest pause after a failure.
    pub backoff_max: u64,
    /// How to anchor together with neighbours; `None`: alone.
    pub site: Option<Together>,
}

/// How neighbours' heads are anchored with the own one ([`crate::site`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// So long at most a round waits for the neighbours' heads before it asks.
    pub gather_wait: u64,
    /// With nothing of its own to anchor a box offers no more often than this to have others' heads anchored.
    pub offer_every: u64,
}

impl Default for Together {
    fn default() -> Self {
        Together { gather_wait: 5_000, offer_every: 300_000 }
    }
}

/// What a proof is over, beside the own checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Batch {
    /// Nothing.
    Alone,
    /// The heads that neighbours gave when they were gathered.
    Gathered {
        /// Ticket of the gathering.
        gather: u64,
    },
    /// A neighbour has asked, and has handed over what came.
    Handed {
        /// Names it.
        handed: u64,
    },
}

impl Default for AnchorConfig {
    fn default() -> Self {
        AnchorConfig {
            authorities: Vec::new(),
            operators: 2,
            window_entries: 4_096,
            window_age: 300_000,
            site_quota: None,
            backoff: 5_000,
            backoff_max: 600_000,
            site: None,
        }
    }
}

/// An authority that anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorAuthority {
    /// Who it is.
    pub authority: Authority,
    /// How often it may be asked.
    pub quota: Option<Quota>,
    /// How long an answer is waited for; the shell gives up no later.
    pub timeout: u64,
    /// Whether one proof of it covers a batch, as a time stamp does; a witness cosigns one checkpoint.
    pub batches: bool,
}

/// What must survive a restart, or an authority could be asked beyond its quota. All numbers are milliseconds that
/// remain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnchorState {
    /// What is known of each authority, under its id; of one that is not configured now, while it still counts.
    pub authorities: Vec<AuthorityState>,
    /// How long each slot of the site's quota is still taken.
    pub site: Vec<u64>,
}

/// What is known of one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityState {
    /// Its id.
    pub id: String,
    /// How long each slot of its quota is still taken.
    pub taken: Vec<u64>,
    /// How long it wants to be left alone.
    pub blocked: u64,
}

impl AnchorState {
    /// For a box whose state is lost: every quota is taken to be used up just now.
    pub fn used_up(config: &AnchorConfig) -> Self {
        let taken = |quota: Option<Quota>, timeout: u64| {
            let quota = quota.unwrap_or(Quota { requests: 0, period: 0 });
            vec![quota.period.saturating_add(timeout * 2); usize::try_from(quota.requests).unwrap_or(0)]
        };
        let longest = config.authorities.iter().map(|each| each.timeout).max().unwrap_or(0);
        let authorities = config.authorities.iter().map(|each| AuthorityState {
            id: each.authority.id.clone(),
            taken: taken(each.quota, each.timeout),
            blocked: 0,
        });
        AnchorState { authorities: authorities.collect(), site: taken(config.site_quota, longest) }
    }
}

/// What a planner begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnchorStart {
    /// The state kept last.
    pub state: AnchorState,
    /// How much time has passed since at least; 0 if nobody knows.
    pub elapsed: u64,
    /// By operator, the largest tree that an anchor entry of the log covers with a proof that counts.
    pub anchored: Vec<(String, u64)>,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorEvent {
    /// Time has passed.
    Tick,
    /// The log has grown.
    Head {
        /// Its size.
        size: u64,
        /// One past the newest entry that is worth an anchor: not an anchor itself, nor what follows from one.
        worth: u64,
    },
    /// Somebody waits for this entry's anchor.
    Expedite {
        /// The entry.
        index: u64,
    },
    /// A closing manifest is at this index: anchored before anything that can wait.
    Urgent {
        /// The entry.
        index: u64,
    },
    /// An authority answers again after having failed: what held it back is tried anew, within its quota.
    Reachable {
        /// Which one.
        authority: usize,
    },
    /// Signers were found revoked for what makes their stamps count for nothing, those in the log among them.
    Doubted {
        /// What the log says without them, as in [`AnchorStart`].
        anchored: Vec<(String, u64)>,
        /// Authorities whose newest stamp is such a one. A proof of theirs that is not in the log yet goes, too.
        revoked: Vec<usize>,
    },
    /// The neighbours' heads are at hand that this ticket asked for.
    Gathered {
        /// The effect's ticket.
        ticket: u64,
        /// How many.
        heads: usize,
    },
    /// A neighbour asks for this box, too: nobody is asked before this time. It counts until the next one; 0 for not
    /// any more.
    HoldOff {
        /// When the neighbour has had its time.
        until: u64,
    },
    /// A neighbour has handed over proofs over a tree of the own log. They were verified as an answer is.
    Handed {
        /// Names them in the effect.
        handed: u64,
        /// The tree's size; not above that of the last [`AnchorEvent::Head`].
        size: u64,
        /// By whom they are.
        authorities: Vec<usize>,
    },
    /// A question was answered, and the proof verified; or not.
    Answered {
        /// The question's ticket.
        ticket: u64,
        /// What came of it.
        result: Result<(), Refused>,
    },
    /// The state is durable.
    Persisted {
        /// The effect's ticket.
        ticket: u64,
    },
    /// Nobody knows whether it is.
    NotPersisted {
        /// The effect's ticket.
        ticket: u64,
    },
    /// The anchor entry is durable.
    Logged {
        /// The effect's ticket.
        ticket: u64,
    },
    /// It is certain that it is not in the log.
    NotLogged {
        /// The effect's ticket.
        ticket: u64,
    },
    /// It was not certain, and this is what the log says, read again: by operator, the largest tree anchored.
    Reread {
        /// As in [`AnchorStart`].
        anchored: Vec<(String, u64)>,
    },
}

/// A question that brought no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How it failed.
    pub failure: Failure,
    /// How long the authority wants to be left alone.
    pub retry_after: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorEffect {
    /// Make the state durable, then say so. Whom it allows to ask is asked only then.
    Persist {
        /// Names it in the answer.
        ticket: u64,
        /// The state.
        state: AnchorState,
    },
    /// Ask for a proof over the tree of this size, which a [`AnchorEvent::Head`] has named.
    Ask {
        /// Names it in the answer.
        ticket: u64,
        /// Whom; its place in the configuration.
        authority: usize,
        /// The tree's size.
        size: u64,
        /// What else the question is over.
        batch: Batch,
        /// How long to wait.
        timeout: u64,
    },
    /// Have the neighbours give the heads that they want anchored, and say so within this time. Without an answer the
    /// box goes on alone.
    Gather {
        /// Names it in the answer.
        ticket: u64,
        /// How long to wait at most.
        wait: u64,
    },
    /// Append an `anchor` entry with the proofs these authorities gave over the tree of this size.
    LogAnchor {
        /// Names it in the answer.
        ticket: u64,
        /// The tree's size.
        size: u64,
        /// What else the proofs are over.
        batch: Batch,
        /// Whose proofs.
        authorities: Vec<usize>,
    },
}

/// What a status page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorFacts {
    /// Entries worth an anchor that are not covered by 1, 2, ... operators, up to as many as policy asks for.
    pub unanchored: Vec<u64>,
    /// How long the oldest of them has waited for all that policy asks for.
    pub waiting: Option<u64>,
    /// How long ago the last anchor entry of this run was logged.
    pub last_anchor: Option<u64>,
    /// In how many milliseconds the next question may be asked; `None` while nothing waits.
    pub next_attempt: Option<u64>,
    /// Each authority, as configured.
    pub authorities: Vec<AuthorityFacts>,
}

/// What a status page shows of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFacts {
    /// Its id.
    pub id: String,
    /// Failures since its last proof.
    pub failures: u32,
    /// How it failed last, if it did since its last proof.
    pub failure: Option<Failure>,
    /// Whether the signer of its newest stamp is revoked, so that nobody relies on it.
    pub revoked: bool,
    /// Questions left in its quota now.
    pub quota_left: Option<u32>,
    /// Whether a question is under way.
    pub asking: bool,
    /// In how many milliseconds it may be asked again; `None` for never.
    pub allowed_in: Option<u64>,
}
