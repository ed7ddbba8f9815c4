//! The archive examined: every log read from its first entry, every tile made again, the head's signature checked; as many
//! logs at a time as there are threads.
//!
//! Refuses to do: repair, or believe the index. Invariants: of a log without a complaint every tile is what its entries
//! make it, and its checkpoint is signed and covers exactly them; logs are told of in the order in which they were asked
//! for, whichever is done first.

use crate::config::BoxConfig;
use crate::hub::{Hub, HubError};
use crate::progress::Progress;
use crate::shelf::Shelf;
use crate::tiles::{Growing, encode, unfilled};
use bulla_formats::audit::LogAuditor;
use bulla_formats::hash::Hash;
use bulla_formats::tile::{TileCoordinate, width_at};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// What was found in one log.
#[derive(Debug, Default)]
pub struct Examined {
    /// Entries read.
    pub entries: u64,
    /// Entries that the audit refuses; they were quarantined when they came.
    pub refused: u64,
    /// Damage, in sentences.
    pub damage: Vec<String>,
    /// Objects that belong to no tree of this log; harmless.
    pub surplus: Vec<String>,
}

/// Most complaints of one log.
const COMPLAINTS: usize = 64;

/// Examines the logs of `branches`, and hands each to `tell`, in this order.
///
/// # Errors
/// The hub's own disk, or what `tell` says: nothing more is told then, and the other logs are given up.
pub fn examine<E: From<HubError>>(
    hub: &Hub,
    branches: &[&BoxConfig],
    progress: &Progress,
    mut tell: impl FnMut(&BoxConfig, Examined) -> Result<(), E>,
) -> Result<(), E> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (done, examined) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..hub.threads.min(branches.len()) {
            let (next, stop, done) = (&next, &stop, done.clone());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed)
                    && let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(branch) = branches.get(at)
                {
                    // Nobody listens any more after a failure.
                    let _ = done.send((at, log(hub, branch, progress, stop)));
                }
            });
        }
        drop(done);
        let (mut told, mut waiting) = (0, BTreeMap::new());
        let end = examined.into_iter().try_for_each(|(at, found)| {
            waiting.insert(at, found?);
            while let Some(found) = waiting.remove(&told) {
                tell(branches[told], found)?;
                told += 1;
            }
            Ok(())
        });
        stop.store(end.is_err(), Ordering::Relaxed);
        end
    })
}

/// Examines one log. When `stop` is set meanwhile, nobody wants to know any more.
fn log(hub: &Hub, branch: &BoxConfig, progress: &Progress, stop: &AtomicBool) -> Result<Examined, HubError> {
    let mut found = Examined::default();
    let shelf = match Shelf::open(hub, &branch.origin) {
        Ok(Some(shelf)) => shelf,
        Ok(None) => return Ok(found),
        Err(HubError::Archive(error)) => {
            found.damage.push(error.to_string());
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let size = shelf.head.size();
    let bar = progress.bar(&branch.name, 0, size);
    let mut auditor = LogAuditor::new(shelf.origin.clone(), Some(&hub.trust));
    let mut growing = Growing::default();
    let mut expected: BTreeSet<String> =
        ["checkpoint", "origin"].into_iter().map(|name| shelf.log.key(name)).collect();
    let mut check = |found: &mut Examined, coordinate: TileCoordinate, hashes: &[Hash]| {
        expected.insert(shelf.log.key(&coordinate.path()));
        if found.damage.len() < COMPLAINTS {
            match shelf.log.get(&coordinate.path()) {
                Ok(Some(bytes)) if bytes == encode(hashes) => {}
                Ok(Some(_)) => {
                    found.damage.push(format!("{} is not what its entries make it", coordinate.path()))
                }
                Ok(None) => found.damage.push(format!("{} is missing", coordinate.path())),
                Err(error) => found.damage.push(error.to_string()),
            }
        }
    };
    let mut bundles = BTreeSet::new();
    for number in 0..size.div_ceil(256) {
        if stop.load(Ordering::Relaxed) {
            return Ok(found);
        }
        let width = width_at(0, number, size);
        bundles.extend(TileCoordinate::entries(number, width).map(|at| shelf.log.key(&at.path())));
        let entries = match shelf.log.entries(number, width) {
            Ok(entries) => entries,
            Err(error) => {
                found.damage.push(error.to_string());
                return Ok(found);
            }
        };
        for entry in entries {
            let ahead = auditor.read_ahead(&entry);
            let leaf = ahead.leaf_hash();
            found.refused += u64::from(auditor.take(ahead).is_err());
            found.entries += 1;
            for (level, index, hashes) in growing.push(leaf) {
                if let Ok(coordinate) = TileCoordinate::hashes(level, index, 256) {
                    check(&mut found, coordinate, &hashes);
                }
            }
        }
        if let Some(bar) = &bar {
            bar.set_position(found.entries);
        }
    }
    for (level, index, row) in growing.unfilled() {
        if let Ok(coordinate) = TileCoordinate::hashes(level, index, row.len() as u16) {
            check(&mut found, coordinate, row);
        }
    }
    expected.extend(bundles);
    expected.extend(unfilled(size).iter().map(|at| shelf.log.key(&at.path())));
    if auditor.root() != shelf.head.root() {
        found.damage.push(format!("the {size} entries do not lead to the signed head"));
    }
    let there = hub.archive.list(&shelf.log.key(""))?;
    found.surplus = there.into_iter().filter(|name| !expected.contains(name)).collect();
    Ok(found)
}
