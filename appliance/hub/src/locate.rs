//! Where an entry stands of which only the leaf hash is known: what a relation names.
//!
//! Leaf hashes are in the tiles, 32 bytes an entry, and in no index: few seals name another, and a row for each entry would
//! double what a pull writes. So tiles are read, the newest first, those of the log that says so before those of others.
//! Refuses to do: believe that an entry stands somewhere because somebody says so.

use crate::archive::ArchivedLog;
use crate::hub::{Hub, HubError};
use crate::shelf::Shelf;
use bulla_formats::hash::Hash;
use bulla_formats::tile::width_at;

/// Log and index of an entry, or its leaf hash, when no archived log has it.
pub type Located = Result<(u32, u64), Hash>;

/// Log and index of each leaf hash, or the hash itself when no archived log has it. Begins with the log of number `first`.
pub fn locate(hub: &Hub, first: u32, wanted: &[Hash]) -> Result<Vec<Located>, HubError> {
    let mut found: Vec<Located> = wanted.iter().map(|leaf| Err(*leaf)).collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let origins = hub.index.origins()?;
    let own = origins.get(&first).map(|origin| (first, origin));
    let others = origins.iter().filter(|(id, _)| **id != first).map(|(id, origin)| (*id, origin));
    for (id, origin) in own.into_iter().chain(others) {
        if let Some(shelf) = Shelf::open(hub, origin)? {
            search(id, &shelf.log, shelf.head.size(), &mut found)?;
        }
        if found.iter().all(Result::is_ok) {
            break;
        }
    }
    Ok(found)
}

fn search(id: u32, log: &ArchivedLog, size: u64, found: &mut [Located]) -> Result<(), HubError> {
    for tile in (0..size.div_ceil(256)).rev() {
        if found.iter().all(Result::is_ok) {
            return Ok(());
        }
        for (offset, hash) in log.hashes(0, tile, width_at(0, tile, size))?.into_iter().enumerate() {
            for wanted in found.iter_mut().filter(|wanted| **wanted == Err(hash)) {
                *wanted = Ok((id, tile * 256 + offset as u64));
            }
        }
    }
    Ok(())
}
