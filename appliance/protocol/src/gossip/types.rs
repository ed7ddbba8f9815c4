//! What the gossip machine goes by, begins with, and shows.

use super::challenge::Attested;
use super::events::Holder;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::peer::challenge::Boot;
use std::sync::Arc;

/// A box, by the origin of its log: every box is both.
pub type Name = Arc<str>;

/// A tree: how many entries, and their root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Number of entries.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

impl Head {
    /// The tree without entries.
    pub fn empty() -> Self {
        Head { size: 0, root: empty_root() }
    }
}

/// What the machine goes by. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipConfig {
    /// Heads for which nobody waits are hinted at no more often than this.
    pub hint_every: u64,
    /// Others no more often than this.
    pub hint_gap: u64,
    /// A hint that somebody waits for is repeated after this, ten times.
    pub hint_again: u64,
    /// How often each peer is asked what it holds.
    pub heads_every: u64,
    /// So many peers are asked that often; each of more is asked less often, because each answers with the heads of all.
    pub heads_peers: usize,
    /// How long an answer is waited for.
    pub timeout: u64,
    /// First pause after a failure; doubles up to `backoff_max`.
    pub backoff: u64,
    /// Longest pause after a failure.
    pub backoff_max: u64,
    /// A peer that is connected and leaves so many questions unanswered, one after another, ...
    pub silent_after: u32,
    /// ... is asked for nothing but what it holds, with pauses of up to this.
    pub silent_max: u64,
    /// How long a peer that lied is left alone.
    pub liar_pause: u64,
    /// How long a box that starts waits for what its peers know of its own log.
    pub start_wait: u64,
    /// A mirror entry is logged no more often than this.
    pub entry_every: u64,
    /// Most entries asked for at once.
    pub chunk: u64,
    /// Most questions about entries under way to one peer.
    pub asks_per_peer: usize,
    /// Most that the Lamport time is advanced for one range of a neighbour's entries.
    pub lamport_cap: u64,
    /// How often each neighbour is challenged; 0: only during outages of this box.
    pub challenge_every: u64,
    /// How often at least during them.
    pub challenge_outage: u64,
    /// Nobody is challenged, and for nobody is quoted, twice within this.
    pub quote_gap: u64,
}

impl Default for GossipConfig {
    fn default() -> Self {
        GossipConfig {
            hint_every: 5_000,
            hint_gap: 20,
            hint_again: 1_000,
            heads_every: 30_000,
            heads_peers: 8,
            timeout: 10_000,
            backoff: 250,
            backoff_max: 60_000,
            silent_after: 20,
            silent_max: 3_600_000,
            liar_pause: 600_000,
            start_wait: 5_000,
            entry_every: 300_000,
            chunk: 4_096,
            asks_per_peer: 4,
            lamport_cap: 1 << 20,
            challenge_every: 600_000,
            challenge_outage: 120_000,
            quote_gap: 10_000,
        }
    }
}

impl GossipConfig {
    /// The pause between two questions to one of so many peers what it holds.
    pub(super) fn heads_pause(&self, peers: usize) -> u64 {
        self.heads_every.saturating_mul(peers.div_ceil(self.heads_peers.max(1)).max(1) as u64)
    }
}

/// What this box has cosigned of a foreign log. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CosignerState {
    /// Newest head found consistent with all before.
    pub witnessed: Option<Head>,
    /// Newest head whose entries and objects are durable here.
    pub mirrored: Option<Head>,
    /// The log has forked: nothing is added, nothing cosigned again.
    pub frozen: bool,
}

/// What is on the disk of a foreign log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStart {
    /// Whose log.
    pub origin: Name,
    /// The copy.
    pub copy: Head,
    /// The newest head signed by the log that the copy covers, and whose note is kept.
    pub reached: Option<Head>,
    /// Objects that its entries refer to are missing.
    pub lacking: bool,
    /// What has been cosigned.
    pub state: CosignerState,
}

/// What a machine begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipStart {
    /// This box.
    pub own: Name,
    /// The head of its own log.
    pub head: Head,
    /// Lamport time of its newest entry.
    pub lamport: u64,
    /// The peers that it was told to trust.
    pub peers: Vec<Name>,
    /// What it holds of their logs; a peer that is absent here has a log of which nothing is held.
    pub copies: Vec<CopyStart>,
    /// What is durable of their boots.
    pub boots: Vec<(Name, Boot)>,
}

/// What a status page shows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFacts {
    /// Who.
    pub peer: Name,
    /// Whether it can be asked.
    pub connected: bool,
    /// For how long it is still left alone, since it lied.
    pub blamed: Option<u64>,
    /// How much is held of its log.
    pub copy: u64,
    /// The newest head known of it.
    pub known: u64,
    /// What is cosigned of it.
    pub state: CosignerState,
    /// What it holds of the own log.
    pub holds: Holder,
    /// Whether its TPM vouches for it.
    pub attested: Attested,
}
