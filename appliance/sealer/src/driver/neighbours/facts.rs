//! What the thread shows of itself, to status, telemetry and whoever waits.

use super::challenge::Attestation;
use super::desk::Desk;
use super::rosters::RosterFacts;
use crate::config::ForeignConfig;
use bulla_peers::Counted;
use bulla_protocol::gossip::{Head, Standing};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much of the own log one peer holds, by its own cosignatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The peer, by its log.
    pub origin: String,
    /// Entries that are durable there.
    pub mirrored: u64,
    /// Entries under the newest head that it found consistent.
    pub witnessed: u64,
}

/// How it goes with one neighbour.
#[derive(Debug, Clone)]
pub struct PeerFacts {
    /// What it holds of the own log.
    pub holds: Holding,
    /// Whether it can be asked.
    pub connected: bool,
    /// Entries of its log that are durable here.
    pub copy: u64,
    /// Entries under the newest signed head that is known of it.
    pub known: u64,
    /// What this box has cosigned of it, as a mirror and as a witness.
    pub cosigned: (u64, u64),
    /// Its log has forked.
    pub frozen: bool,
    /// For how many milliseconds it is still left alone, because an answer of it did not hold.
    pub blamed: Option<u64>,
    /// What last went wrong.
    pub trouble: Option<String>,
    /// Whether its TPM vouches for it.
    pub attested: Attestation,
    /// Where trust in it comes from: `roster` or `by-hand`.
    pub source: &'static str,
    /// What is exchanged with it: `heads` or `entries`.
    pub level: &'static str,
}

/// How it goes.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Every neighbour, by its log's name.
    pub peers: Vec<PeerFacts>,
    /// What the neighbours knew of this box at its start: `waiting`, `nobody`, `equal` or `behind`.
    pub standing: &'static str,
    /// Logs whose boxes would be neighbours, and why they are kept out.
    pub kept_out: Vec<(String, String)>,
    /// The rosters that this box goes by.
    pub rosters: Vec<RosterFacts>,
    /// What is exchanged with other fleets.
    pub foreign: Vec<ForeignConfig>,
    /// What is wrong with a roster, by fleet.
    pub roster_troubles: Vec<(String, String)>,
    /// What has passed over the wire.
    pub counted: Counted,
    /// Why there is no wire.
    pub trouble: Option<String>,
}

impl Desk {
    /// Shows how it goes; and tells those who wait, when somebody holds more.
    pub(super) fn show(&self) {
        let size = |head: Option<Head>| head.map_or(0, |head| head.size);
        let facts = self.machine.facts().into_iter().map(|peer| PeerFacts {
            holds: Holding {
                origin: peer.peer.to_string(),
                mirrored: size(peer.holds.mirrored),
                witnessed: size(peer.holds.witnessed),
            },
            connected: peer.connected,
            copy: peer.copy,
            known: peer.known,
            cosigned: (size(peer.state.mirrored), size(peer.state.witnessed)),
            frozen: peer.state.frozen,
            blamed: peer.blamed,
            trouble: self.troubles.get(&peer.peer).cloned(),
            attested: Attestation::of(peer.attested, self.challenges.key_class(&peer.peer)),
            source: self.allowed.neighbours.get(&*peer.peer).map_or("roster", |one| one.source.name()),
            level: self.allowed.neighbours.get(&*peer.peer).map_or("nothing", |one| one.level.name()),
        });
        let peers: Vec<PeerFacts> = facts.collect();
        let held: Vec<Holding> = peers.iter().map(|peer| peer.holds.clone()).collect();
        self.shared.held.send_if_modified(|before| {
            let changed = **before != held;
            if changed {
                *before = Arc::new(held);
            }
            changed
        });
        let standing = match self.standing {
            None => "waiting",
            Some(Standing::Nobody) => "nobody",
            Some(Standing::Equal) => "equal",
            Some(Standing::Behind { .. }) => "behind",
        };
        let pairs = |map: &BTreeMap<String, String>| {
            map.iter().map(|(name, why)| (name.clone(), why.clone())).collect::<Vec<_>>()
        };
        let facts = Facts {
            peers,
            standing,
            kept_out: pairs(&self.allowed.kept_out),
            rosters: self.roster_facts(),
            foreign: self.config.foreign.clone(),
            roster_troubles: pairs(self.rosters.troubles()),
            counted: self.wire.counted(),
            trouble: None,
        };
        self.shared.set_neighbour_facts(facts);
    }
}
