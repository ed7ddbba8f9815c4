//! What the outage thread shows of itself, to status, console and telemetry.

use super::crls::CrlsFacts;
use super::http::Trouble;
use super::lease::LeaseFacts;
use super::sources::SourceFacts;
use super::together::TogetherFacts;
use crate::driver::Shared;
use bulla_protocol::anchoring::AnchorFacts;
use bulla_protocol::authority::{Authority, Failure};
use bulla_protocol::mode::ModeFacts;
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// Upper bounds of the buckets in which answers are counted, milliseconds.
pub const LATENCY_MILLIS: [u64; 8] = [10, 50, 100, 250, 1_000, 2_500, 10_000, 60_000];

/// How it goes with one authority.
#[derive(Debug, Clone, Default)]
pub struct AuthorityFacts {
    /// Its name.
    pub name: String,
    /// Who runs it.
    pub operator: String,
    /// Proofs asked for.
    pub asked: u64,
    /// Proofs that came and hold.
    pub proofs: u64,
    /// Questions and looks that failed, by how.
    pub failures: BTreeMap<&'static str, u64>,
    /// Answers by how long they took: cumulative, as `LATENCY_MILLIS`, then all.
    pub latency: [u64; LATENCY_MILLIS.len() + 1],
    /// Milliseconds that all answers took together.
    pub latency_sum: u64,
}

impl AuthorityFacts {
    pub(super) fn new(authority: &Authority) -> Self {
        let (name, operator) = (authority.id.clone(), authority.operator.clone());
        AuthorityFacts { name, operator, ..AuthorityFacts::default() }
    }

    pub(super) fn asked(&mut self) {
        self.asked += 1;
    }

    pub(super) fn answered(&mut self, millis: u64, holds: bool) {
        self.proofs += u64::from(holds);
        for (count, bound) in self.latency.iter_mut().zip(LATENCY_MILLIS.iter().chain([&u64::MAX])) {
            *count += u64::from(millis <= *bound);
        }
        self.latency_sum += millis;
    }

    pub(super) fn failed(&mut self, trouble: &Trouble) {
        *self.failures.entry(Failure::name(trouble.failure)).or_default() += 1;
    }
}

/// How it goes.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Modes and the outage under way.
    pub modes: ModeFacts,
    /// What is anchored, and what is not.
    pub anchors: AnchorFacts,
    /// How many operators it takes.
    pub needed: usize,
    /// The largest tree that so many have anchored.
    pub anchored: u64,
    /// Each authority, as configured.
    pub authorities: Vec<AuthorityFacts>,
    /// What was last seen of each that fails; empty while it does not.
    pub details: Vec<String>,
    /// Seconds of this run in emergency.
    pub outage_seconds: f64,
    /// The newest lease, in force or over.
    pub lease: Option<LeaseFacts>,
    /// The CRLs behind its time stamps.
    pub crls: CrlsFacts,
    /// Each Roughtime server, as configured.
    pub sources: Vec<SourceFacts>,
    /// Heads that are anchored together with neighbours', where they are.
    pub together: Option<TogetherFacts>,
}

impl Shared {
    pub(in crate::driver) fn set_outage_facts(&self, facts: Facts) {
        *self.outage.write().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }

    /// How it goes, as of the last look; `None` while the thread does not run.
    pub(in crate::driver) fn outage_facts(&self) -> Option<Facts> {
        self.outage.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
