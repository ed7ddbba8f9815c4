//! The lease of this box: taken, kept for the next start, and taken up again there.
//!
//! `bulla_protocol::lease` decides which one counts and for how long.
//! Refuses to do: take one that neither the fleet's root nor a hub of the roster vouches for, or that the log does not
//! mention; go by a hub's lease any longer than the roster names that hub as one that issues them.
//! Invariant: the log says that a lease is taken before it is kept, and it is kept before it counts; so one that counts
//! survives a restart, and a newer one is never followed by an older one.

use super::desk::{Desk, through};
use crate::driver::clock::now_millis;
use crate::driver::{Command, Shared};
use bulla_formats::body::manifest::AtLimit;
use bulla_formats::body::operator_action::{OperatorActionBody, Parameter};
use bulla_formats::der;
use bulla_formats::entry::Kind;
use bulla_formats::hash::sha256;
use bulla_formats::lease::{Lease, LeaseContent, LeaseError};
use bulla_protocol::lease::{Known, LeaseRefusal, judge, narrower, seals_left};
use bulla_protocol::mode::ModeEvent;

/// Name of the control value: version, entries there were when it was taken u64, DER(Lease).
const LEASE: &str = "lease";
const VERSION: u8 = 1;

/// Why a lease is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseFault {
    /// What it is, or who signed it.
    #[error("this is no lease for this box: {0}")]
    Unfounded(String),
    /// What is known beside it.
    #[error("the lease is not taken: {0}")]
    Refused(#[from] LeaseRefusal),
    /// It could not be written down.
    #[error("the lease is not taken, because it cannot be written down: {0}; retry when the box seals again")]
    NotKept(String),
    /// The box is stopping.
    #[error("the box is stopping; retry in a moment")]
    Stopping,
}

impl From<LeaseError> for LeaseFault {
    fn from(error: LeaseError) -> Self {
        LeaseFault::Unfounded(error.to_string())
    }
}

/// A lease as it is handed in: bytes, and by which client.
#[derive(Debug, Clone)]
pub struct LeaseOrder {
    /// DER(Lease).
    pub lease: Vec<u8>,
    /// The operator's registered name.
    pub operator: String,
}

/// The lease that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    lease: Lease,
    since: u64,
}

/// What is shown of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseFacts {
    /// What it says.
    pub content: LeaseContent,
    /// For how many milliseconds it holds, and for how many seals; `None`: it is over, and only its limits hold.
    pub left: Option<(u64, Option<u64>)>,
}

impl Kept {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.since.to_be_bytes());
        bytes.extend_from_slice(&der::encode(&self.lease));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (since, lease) = rest.split_first_chunk::<8>()?;
        let lease = Lease::decode(lease).ok().filter(|_| *version == VERSION)?;
        Some(Kept { lease, since: u64::from_be_bytes(*since) })
    }
}

impl Desk {
    /// Takes up the lease that the last run knew.
    pub(super) fn resume_lease(&mut self) {
        let kept = match self.control.get(LEASE) {
            Ok(None) => return,
            Ok(Some(bytes)) => Kept::decode(&bytes),
            Err(error) => {
                log::error!("whether this box has a lease cannot be read, and it counts as none: {error}");
                return;
            }
        };
        // One without a chain is of the root or of a hub; which hubs there are is known once the roster is.
        let good = |kept: &Kept| verify(&kept.lease, &self.shared).is_ok() || kept.lease.chain.is_empty();
        let Some(kept) = kept.filter(good) else {
            log::error!("the lease that was kept is not one, and does not count: hand it in again");
            return;
        };
        self.lease = Some(kept);
        self.narrow();
        self.weigh_lease();
    }

    /// Goes by the lease as far as somebody vouches for it now.
    fn weigh_lease(&mut self) {
        self.hubs_seen = self.shared.hubs.changes();
        let Some(kept) = &self.lease else { return };
        let content = &kept.lease.content;
        if verify(&kept.lease, &self.shared).is_err() {
            if self.modes.facts().lease.is_some_and(|(left, _)| left > 0) {
                log::warn!(
                    "the roster takes leases of {} no more: the one of this box is over",
                    content.issuer
                );
                self.mode(ModeEvent::Lease { expires_in: 0, seals: Some(0) });
            }
            return;
        }
        let seals = seals_left(content, kept.since, self.shared.reader.size());
        match judge(content, Some(content), &self.known()) {
            Ok(term) => self.mode(ModeEvent::Lease { expires_in: term.expires_in, seals }),
            Err(refusal) => log::info!("the lease of this box counts no more: {refusal}"),
        }
    }

    /// Looks at the lease again when the roster names other hubs.
    pub(super) fn follow_hubs(&mut self) {
        let by_hub = |kept: &Kept| kept.lease.chain.is_empty();
        if self.hubs_seen != self.shared.hubs.changes() && self.lease.as_ref().is_some_and(by_hub) {
            self.weigh_lease();
        }
    }

    /// Takes a lease that somebody hands in.
    pub(super) fn take_lease(&mut self, order: &LeaseOrder) -> Result<LeaseFacts, LeaseFault> {
        let lease = Lease::decode(&order.lease).map_err(LeaseError::from)?;
        let hub = verify(&lease, &self.shared)?;
        let content = lease.content.clone();
        let term = judge(&content, self.lease.as_ref().map(|kept| &kept.lease.content), &self.known())?;
        if term.fresh {
            let body = action(&content, hub.as_deref(), order);
            through(&self.queue, |reply| Command::Append(Kind::OperatorAction, body, reply))
                .ok_or(LeaseFault::Stopping)?
                .map_err(|error| LeaseFault::NotKept(error.to_string()))?;
            let kept = Kept { lease, since: self.shared.reader.size() };
            let stored = self.control.put(LEASE, &kept.encode());
            stored.map_err(|fault| LeaseFault::NotKept(fault.to_string()))?;
            log::info!("a lease of {} counts for {} s", content.issuer, term.expires_in / 1_000);
            self.lease = Some(kept);
            self.narrow();
            self.mode(ModeEvent::Lease { expires_in: term.expires_in, seals: content.seals });
        }
        self.lease_facts().ok_or(LeaseFault::Stopping)
    }

    /// What is shown of it.
    pub(super) fn lease_facts(&self) -> Option<LeaseFacts> {
        let content = self.lease.as_ref()?.lease.content.clone();
        Some(LeaseFacts { content, left: self.modes.facts().lease })
    }

    fn narrow(&mut self) {
        if let Some(kept) = &self.lease {
            self.limits = narrower(self.own_limits, &kept.lease.content.limits);
            self.mode(ModeEvent::Limits(self.limits));
        }
    }

    fn known(&self) -> Known {
        let (floor, ceiling) = self.shared.clock.limits();
        Known { wall: now_millis(), floor, ceiling }
    }
}

/// Who vouches for it: the fleet's root, or the hub of the roster that is named.
fn verify(lease: &Lease, shared: &Shared) -> Result<Option<String>, LeaseError> {
    let issuer = &lease.content.issuer;
    match (lease.verify(&shared.origin, &shared.trust.roots), shared.hubs.lease_key(issuer)) {
        (Err(LeaseError::NotVouchedFor), Some(key)) => {
            lease.verify_by_hub(&shared.origin, issuer, &key).map(|_verified| Some(issuer.clone()))
        }
        (verified, _) => verified.map(|_verified| None),
    }
}

/// What the log says of it.
fn action(content: &LeaseContent, hub: Option<&str>, order: &LeaseOrder) -> Vec<u8> {
    let parameter = |name: &str, value: String| Parameter { name: name.to_owned(), value };
    let limit = |name: &str, value: Option<u64>| value.map(|value| parameter(name, value.to_string()));
    let mut parameters = vec![
        parameter("issuer", content.issuer.clone()),
        parameter("issued-at", content.issued_at.to_string()),
        parameter("expires-at", content.expires_at.to_string()),
        parameter("sha256", sha256(&[&order.lease]).to_string()),
        parameter("at-limit", at_limit(content.limits.at_limit).to_owned()),
    ];
    parameters.extend(hub.map(|name| parameter("hub", name.to_owned())));
    parameters.extend(limit("seals", content.seals));
    parameters.extend(limit("limit-seconds", content.limits.seconds));
    parameters.extend(limit("limit-seals", content.limits.seals));
    parameters.extend(limit("limit-holders", content.limits.holders));
    let (action, reason) = ("lease".to_owned(), order.operator.clone());
    der::encode(&OperatorActionBody { action, parameters, reason, approvals: Vec::new() })
}

/// Its name in texts.
pub fn at_limit(at_limit: AtLimit) -> &'static str {
    match at_limit {
        AtLimit::Continue => "continue",
        AtLimit::Safe => "safe",
    }
}
