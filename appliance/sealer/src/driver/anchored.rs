//! Where anchors stand in the log, by the size of the tree that each covers.
//!
//! Every entry names the newest anchor before its batch as its time evidence, an anchor too; so the anchors form a
//! chain, and an index of them is read from the log as far back as somebody asks for.
//! Refuses to do: hold the anchors themselves.
//! Invariant: what is known is a whole piece of the chain, from its newest end back.

use super::{LookupError, Shared};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::entry::{Entry, Kind};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The index.
#[derive(Debug)]
pub struct Anchors(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Size of the tree anchored, to indexes of entries that anchor it.
    by_size: BTreeMap<u64, Vec<u64>>,
    /// The anchor before the oldest one known.
    next: Option<u64>,
    /// No anchor that is not known covers a tree larger than this.
    back_to: u64,
}

impl Anchors {
    /// Knows nothing but where the chain begins.
    pub fn new(newest: Option<u64>) -> Self {
        Anchors(Mutex::new(Known { by_size: BTreeMap::new(), next: newest, back_to: u64::MAX }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An anchor entry has become durable.
    pub fn added(&self, entry: &Entry) {
        if let Ok(body) = AnchorBody::decode(&entry.content().body) {
            self.known().by_size.entry(body.head.size).or_default().push(entry.content().index);
        }
    }
}

/// Anchors whose trees hold the entry at `index`, smallest tree first, until `operators` distinct operators vouch for it;
/// at most `most` of them. Stamps of a revoked signer vouch for nothing; the first of an operator is among them all the
/// same, so that who reads the file is told.
pub fn covering(
    shared: &Shared,
    index: u64,
    operators: usize,
    most: usize,
) -> Result<Vec<AnchorBody>, LookupError> {
    reach_back(shared, index)?;
    let doubts = shared.crls.list_any();
    let places: Vec<u64> = {
        let known = shared.anchors.known();
        let places = || known.by_size.range(index + 1..).flat_map(|(_, at)| at.iter().copied());
        let mut first: Vec<u64> = places().take(8 * most).collect();
        if doubts {
            // Where the first ones count for nothing, the newest do, once the authority has been replaced.
            let newest = known.by_size.range(index + 1..).rev().flat_map(|(_, at)| at.iter().rev().copied());
            let newest: Vec<u64> = newest.take(8 * most).filter(|place| !first.contains(place)).collect();
            first.extend(newest);
        }
        first
    };
    let authorities = shared.trust.authorities.as_ref();
    let (mut found, mut counted): (Vec<AnchorBody>, Vec<String>) = (Vec::new(), Vec::new());
    let mut doubtful: Vec<String> = Vec::new();
    for place in places {
        let (body, _) = anchor(shared, place)?;
        let mut new = false;
        for proof in &body.proofs {
            let counts = !doubts || shared.crls.let_count(&body, proof, authorities);
            let names = if counts { &mut counted } else { &mut doubtful };
            if !names.contains(&proof.operator) {
                names.push(proof.operator.clone());
                new = true;
            }
        }
        if !new {
            continue;
        }
        found.push(body);
        if counted.len() >= operators || found.len() == most {
            break;
        }
    }
    Ok(found)
}

/// Most anchors that are looked back at for what each operator has anchored.
const ANCHORS_BACK: usize = 256;

/// By operator, the largest tree that an anchor covers with a proof that counts; and the largest of all. `newest`: the
/// newest anchor. What stands further back is as if it were not there: it is anchored again.
pub fn by_operator(shared: &Shared, newest: Option<u64>) -> Result<(Vec<(String, u64)>, u64), LookupError> {
    let authorities = shared.trust.authorities.as_ref();
    let mut anchored: Vec<(String, u64)> = Vec::new();
    let mut next = newest;
    for _ in 0..ANCHORS_BACK {
        let Some(index) = next else { break };
        let (body, before) = anchor(shared, index)?;
        for proof in &body.proofs {
            let known = anchored.iter_mut().find(|(operator, _)| *operator == proof.operator);
            if known.as_ref().is_some_and(|(_, size)| *size >= body.head.size)
                || !shared.crls.let_count(&body, proof, authorities)
            {
                continue;
            }
            match known {
                Some((_, size)) => *size = body.head.size,
                None => anchored.push((proof.operator.clone(), body.head.size)),
            }
        }
        next = before;
    }
    let largest = anchored.iter().map(|(_, size)| *size).max().unwrap_or(0);
    Ok((anchored, largest))
}

/// Follows the chain back until no anchor before it can cover the entry at `index`. Trees grow along the log, but for
/// proofs that came late: one anchor of a smaller tree says nothing about those before it, an anchor that stands before
/// the entry does.
fn reach_back(shared: &Shared, index: u64) -> Result<(), LookupError> {
    loop {
        let next = {
            let known = shared.anchors.known();
            match known.next {
                Some(next) if next > index && known.back_to > index => next,
                _ => return Ok(()),
            }
        };
        let (body, before) = anchor(shared, next)?;
        let mut known = shared.anchors.known();
        if known.next == Some(next) {
            known.by_size.entry(body.head.size).or_default().insert(0, next);
            known.next = before;
            known.back_to = next;
        }
    }
}

/// An anchor, and the place of the one before it.
fn anchor(shared: &Shared, index: u64) -> Result<(AnchorBody, Option<u64>), LookupError> {
    let entry = shared.entry(index)?;
    let damaged = || LookupError::Storage(format!("entry {index} is not the anchor it was"));
    if entry.kind() != Some(Kind::Anchor) {
        return Err(damaged());
    }
    let body = AnchorBody::decode(&entry.content().body).map_err(|_| damaged())?;
    Ok((body, entry.content().evidence.as_ref().map(|before| before.index)))
}
