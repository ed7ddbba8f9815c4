//! The index made again from the archive alone, whether or not any box still serves its log; and what of it depends on whom
//! the trust file believes, judged again when that has changed.
//!
//! Refuses to do: touch the archive; take the new index into use before it is complete.
//! Invariants: numbers of logs and of findings stay what they were as long as the old index can be read, so that nothing is
//! told twice; a death in the middle leaves the old index in force.

use crate::archive::ArchivedLog;
use crate::hub::{Hub, HubError, now_millis};
use crate::index::catalogue::Bound;
use crate::index::{Index, LogState, Mark};
use crate::judge::{Judge, vouched};
use crate::progress::Progress;
use crate::shelf::Shelf;
use bulla_formats::audit::LogAuditor;
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::entry::Entry;
use bulla_formats::hash::{Hash, empty_root, sha256};
use bulla_formats::tile::width_at;
use bulla_formats::trust::TrustFile;
use serde_json::Value;

/// Bundles a step.
const STEP: u64 = 64;

/// Whom the trust file believes about time, in 32 bytes.
fn authorities(trust: &TrustFile) -> Vec<u8> {
    let said: Value = serde_json::from_str(&trust.encode()).unwrap_or_default();
    sha256(&[said["tsaRoots"].to_string().as_bytes(), &[0], said["witnesses"].to_string().as_bytes()])
        .0
        .to_vec()
}

/// Judges all anchors again when the trust file believes others than it did. Returns whether it has.
pub fn refresh(hub: &Hub) -> Result<bool, HubError> {
    let now = authorities(&hub.trust);
    let before = hub.index.authorities()?;
    if before.as_ref() == Some(&now) {
        return Ok(false);
    }
    let mut all = Vec::new();
    for (id, origin) in hub.index.origins()? {
        let (log, size) = (hub.archive.log(&origin), hub.index.state(id)?.progress);
        let mut bounds: Vec<Bound> = Vec::new();
        for (_, at, _) in hub.index.marks(id, Mark::Anchor, 0, usize::MAX)? {
            let entry = Entry::decode(&archived(&log, at, size)?);
            if let Ok(body) = entry.and_then(|entry| AnchorBody::decode(&entry.content().body)) {
                let (said, refused) = vouched(&body, &origin, &hub.trust);
                if !said.is_empty() && refused.is_empty() {
                    bounds.push((body.head.size, at, said));
                }
            }
        }
        all.push((id, bounds));
    }
    hub.index.judged_by(&now, &all)?;
    Ok(before.is_some())
}

/// The bytes of an entry below what has been pulled; that it leads to a head was proven then.
fn archived(log: &ArchivedLog, index: u64, size: u64) -> Result<Vec<u8>, HubError> {
    let bundle = log.entries(index / 256, width_at(0, index / 256, size))?;
    let missing = || log.damaged(&format!("tile/entries of entry {index}"), "is missing");
    bundle.into_iter().nth((index % 256) as usize).ok_or_else(|| missing().into())
}

/// Fills the empty index of `hub` from its archive; `old` is the one before, if it can be read. Returns the number of
/// entries read.
pub fn rebuild(hub: &Hub, old: Option<&dyn Index>, progress: &Progress) -> Result<u64, HubError> {
    let mut origins = match old {
        Some(old) => old.origins()?.into_values().collect(),
        None => Vec::new(),
    };
    for branch in &hub.config.boxes {
        if !origins.contains(&branch.origin) {
            origins.push(branch.origin.clone());
        }
    }
    if let Some(old) = old {
        hub.index.adopt(&old.kept()?)?;
    }
    let mut read = 0;
    for origin in &origins {
        let id = hub.index.id(origin)?;
        let frozen = match old {
            Some(old) => match old.known(origin)? {
                Some(id) => old.state(id)?.frozen,
                None => None,
            },
            None => None,
        };
        read += log(hub, origin, id, frozen, progress)?;
    }
    hub.index.judged_by(&authorities(&hub.trust), &all_bounds(hub)?)?;
    Ok(read)
}

fn all_bounds(hub: &Hub) -> Result<Vec<(u32, Vec<Bound>)>, HubError> {
    hub.index.origins()?.into_keys().map(|id| Ok((id, hub.index.bounds(id)?))).collect()
}

fn log(
    hub: &Hub,
    origin: &str,
    id: u32,
    frozen: Option<String>,
    progress: &Progress,
) -> Result<u64, HubError> {
    let Some(shelf) = Shelf::open(hub, origin)? else {
        if frozen.is_some() {
            let state = LogState { frozen, ..LogState::default() };
            hub.index.step(id, &state, None, &Default::default(), now_millis())?;
        }
        return Ok(0);
    };
    let size = shelf.head.size();
    let bar = progress.bar(origin, 0, size);
    let mut auditor = LogAuditor::new(shelf.origin.clone(), Some(&hub.trust));
    let mut state = LogState { frozen, ..LogState::default() };
    let evidence = |index: u64, leaf: &Hash| {
        shelf.log.evidence_key(&format!("entry-{index}-{}", &leaf.to_string()[..16]))
    };
    while state.progress < size {
        let mut judge = Judge::new(&hub.trust, origin, &evidence);
        let end = size.min((state.progress / (256 * STEP) + 1) * 256 * STEP);
        for number in state.progress / 256..end.div_ceil(256) {
            for entry in shelf.log.entries(number, width_at(0, number, size))? {
                let ahead = auditor.read_ahead(&entry);
                let (index, leaf) = (auditor.size(), ahead.leaf_hash());
                let judged = auditor.take(ahead);
                judge.entry(index, leaf, judged, &auditor, &mut state);
            }
            if let Some(bar) = &bar {
                bar.set_position(auditor.size());
            }
        }
        let mut rows = judge.rows;
        if state.progress == 0 {
            rows.boundaries.push((0, empty_root()));
        }
        rows.boundaries.extend(auditor.boundaries_after(hub.index.newest_boundary(id)?));
        rows.oldest_boundary = auditor.oldest_boundary();
        state.progress = end;
        if end == size {
            if auditor.root() != shelf.head.root() {
                let words = format!(
                    "the archived entries of {origin} do not lead to its head; `bulla-hub fsck` says more"
                );
                return Err(HubError::Contradiction(words));
            }
            state.head = Some(shelf.note.clone());
        }
        hub.index.step(id, &state, Some(&auditor.save()), &rows, now_millis())?;
    }
    Ok(size)
}
