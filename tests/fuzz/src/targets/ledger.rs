//! Rows of the database files.
//!
//! Holds: a row that is read is written back to the same bytes; a kept request says openly what it was given, and its
//! order opens under its own key, at its own place, unchanged, or not at all.

use super::{seed, split};
use bulla_formats::hash::Hash;
use bulla_ledger::fuzzing::{Row, keep, kept, samples};
use bulla_ledger::{QueueId, Request, WaitingRow};

const KINDS: u8 = Row::ALL.len() as u8;
const CHOICES: u8 = KINDS + 2;
const ORDER: &[u8] = b"an order";

fn row() -> WaitingRow {
    let request = Request::new(&Hash([1; 32]), &Hash([2; 32]));
    WaitingRow { id: QueueId { place: 5, tag: [3; 8] }, queued_ms: 7, client: "desk-1".to_owned(), request }
}

/// The first byte chooses the kind of row.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    if let Some(kind) = Row::ALL.get(usize::from(choice)) {
        if let Some(again) = kind.again(data) {
            assert_eq!(again, data, "{kind:?} has another spelling");
        }
    } else if choice == KINDS {
        let Some((waiting, order)) = kept(5, &[0; 32], data) else { return };
        assert_eq!(order, None, "opened with a key that nobody drew");
        let (key, bytes) = keep(&waiting, ORDER).expect("what was read of a row fits into one");
        assert_eq!(kept(5, &key, &bytes), Some((waiting, Some(ORDER.to_vec()))));
    } else {
        // A genuine row, changed byte by byte: place, what is added, and so on.
        let (key, genuine) = keep(&row(), ORDER).expect("a short name");
        let mut bytes = genuine.clone();
        for change in data.chunks_exact(2) {
            let at = usize::from(change[0]) % bytes.len();
            bytes[at] = bytes[at].wrapping_add(change[1]);
        }
        let opened = kept(5, &key, &bytes).and_then(|(_, order)| order);
        assert_eq!(opened.is_some(), bytes == genuine, "a damaged row opens, or a genuine one does not");
        assert_eq!(kept(6, &key, &bytes).and_then(|(_, order)| order), None, "a row opens at another place");
    }
}

/// Genuine rows, and changes to one.
pub fn seeds() -> Vec<Vec<u8>> {
    let place = |kind: Row| Row::ALL.iter().position(|one| *one == kind).unwrap_or(0) as u8;
    let mut seeds: Vec<_> = samples().iter().map(|(kind, row)| seed(place(*kind), row)).collect();
    let (_, waiting) = keep(&row(), ORDER).expect("a short name");
    seeds.push(seed(KINDS, waiting));
    seeds.extend([&[3, 0][..], &[60, 1, 3, 255]].map(|changes| seed(KINDS + 1, changes)));
    seeds
}
