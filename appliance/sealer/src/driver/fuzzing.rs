//! For fuzz targets: values of the control store, rows of the queue, openings as they are kept.

use super::erase::Pending;
use super::evidence::unpack_openings;
use super::lock::Lock;
use super::queueing::{self, Draft};
use bulla_formats::hash::Hash;
use bulla_ledger::{QueueId, QueuedRow, Request, WaitingRow};
use zeroize::Zeroizing;

/// Whether a stored value is a lock, and if so, how it is stored again.
pub fn lock(bytes: &[u8]) -> Option<Vec<u8>> {
    Lock::decode(bytes).map(|lock| lock.encode())
}

/// A promised erasure, stored again, and how many entries record it; `None` when it is refused.
pub fn erasure(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let pending = Pending::decode(bytes)?;
    let entries = pending.bodies().len();
    Some((pending.encode(), entries))
}

/// An order kept for later, kept again; else what its client hears.
pub fn kept_order(order: &[u8]) -> Result<Vec<u8>, &'static str> {
    let request = Request::new(&Hash([0; 32]), &Hash([0; 32]));
    let id = QueueId { place: 0, tag: [0; 8] };
    let row = WaitingRow { id, queued_ms: 0, client: String::new(), request };
    Draft::unpack(&QueuedRow { row, order: Some(Zeroizing::new(order.to_vec())) }).map(|draft| draft.pack())
}

/// The public name of a queued request, written again.
pub fn queue_id(text: &str) -> Option<String> {
    queueing::parse_queue_id(text).map(|id| queueing::queue_id(&id))
}

/// Openings in a row of theirs.
pub fn openings(packed: &[u8]) -> Option<Vec<&[u8]>> {
    unpack_openings(packed)
}
