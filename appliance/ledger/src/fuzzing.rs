//! For fuzz targets: the rows of the database files, read and written again.
//!
//! Refuses to do: open a file; anything a program needs. Nothing here is part of the crate's interface.
//! Invariant: bytes that a row's reader takes are the bytes its writer makes of what was read.

use crate::edge::{Edge, TileNodes};
use crate::entry_rows::EntryRow;
use crate::queue::{self, QueueId, QueueOutcome, QueueState, WaitingRow};
use crate::segment::SegmentFile;
use crate::tables::{self, Head, Header, Request};
use bulla_formats::hash::Hash;

/// A kind of row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// First row of a segment.
    Header,
    /// Last row of a segment.
    Head,
    /// The right edge of the tree.
    Edge,
    /// A tile.
    Tile,
    /// An entry with what stands beside it.
    Entry,
    /// The request beside an entry: index, leaf hash, request.
    Request,
    /// A key of the sorted digest table.
    SortedDigest,
    /// The name of a segment file.
    SegmentName,
    /// What became of a queued request.
    Outcome,
}

impl Row {
    /// Every kind.
    pub const ALL: [Row; 9] = [
        Row::Header,
        Row::Head,
        Row::Edge,
        Row::Tile,
        Row::Entry,
        Row::Request,
        Row::SortedDigest,
        Row::SegmentName,
        Row::Outcome,
    ];

    /// Reads `bytes` as such a row and writes what was read; `None` when they are refused.
    pub fn again(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Row::Header => Some(Header::parse(bytes).ok()?.to_bytes()),
            Row::Head => Some(Head::parse(bytes)?.to_bytes().to_vec()),
            Row::Edge => Some(Edge::parse(bytes)?.to_bytes()),
            Row::Tile => {
                let tile = TileNodes::parse(bytes)?;
                Some(tile.to_bytes(tile.width()))
            }
            Row::Entry => Some(EntryRow::parse(bytes)?.to_bytes()),
            Row::Request => {
                let (index, rest) = bytes.split_first_chunk::<8>()?;
                let (leaf, row) = rest.split_first_chunk::<32>()?;
                let (number, hash) = (u64::from_be_bytes(*index), Hash(*leaf));
                let request = Request::check_row(row.try_into().ok()?, number, &hash)?;
                Some([index.as_slice(), leaf, &request.to_row(number, &hash)].concat())
            }
            Row::SortedDigest => {
                let (key, index) = tables::split_sorted_digest(bytes.try_into().ok()?);
                Some(tables::sorted_digest(&key, index).to_vec())
            }
            Row::SegmentName => {
                Some(SegmentFile::parse(std::str::from_utf8(bytes).ok()?)?.name().into_bytes())
            }
            Row::Outcome => {
                let (tag, state) = queue::parse_outcome(bytes)?;
                let QueueState::Done { client, queued_ms, outcome } = state else { return None };
                let request = Request::new(&Hash([0; 32]), &Hash([0; 32]));
                let row = WaitingRow { id: QueueId { place: 0, tag }, queued_ms, client, request };
                Some(queue::outcome_bytes(&row, &outcome))
            }
        }
    }
}

/// A genuine row of each kind: of a log of three entries, and where it matters of an empty one.
pub fn samples() -> Vec<(Row, Vec<u8>)> {
    let (mut edge, mut full) = (Edge::default(), Vec::new());
    let empty = edge.clone();
    (1..=3).for_each(|leaf| edge.append(Hash([leaf; 32]), &mut full));
    let header = |edge: &Edge| {
        let origin = "bank.example/x/1".to_owned();
        Header { origin, root: edge.root(), edge: edge.clone() }.to_bytes()
    };
    let head = Head { size: 3, root: edge.root(), batch_first: 2 };
    let (index, leaf) = (7u64, Hash([4; 32]));
    let request = Request::new(&Hash([5; 32]), &Hash([6; 32]));
    let row =
        WaitingRow { id: QueueId { place: 0, tag: [3; 8] }, queued_ms: 7, client: "desk-1".into(), request };
    let beside = request.to_row(index, &leaf);
    let bound = [index.to_be_bytes().as_slice(), &leaf.0, &beside].concat();
    let key = tables::digest_key(1, &[9; 32]);
    let entry = |digest, request| (Row::Entry, EntryRow { entry: b"an entry", digest, request }.to_bytes());
    let digest = key.map(|key| tables::sorted_digest(&key, index).to_vec());
    let refused = QueueOutcome::Refused { reason: "why".to_owned() };
    vec![
        (Row::Header, header(&edge)),
        (Row::Header, header(&empty)),
        (Row::Head, head.to_bytes().to_vec()),
        (Row::Edge, edge.to_bytes()),
        (Row::Edge, empty.to_bytes()),
        (Row::Tile, TileNodes::collect((0..5).map(|hash| Hash([hash; 32]))).to_bytes(5)),
        entry(None, None),
        entry(key.as_ref(), None),
        entry(None, Some(&beside)),
        entry(key.as_ref(), Some(&beside)),
        (Row::Request, bound),
        (Row::SortedDigest, digest.unwrap_or_default()),
        (Row::SegmentName, SegmentFile { first: 255, generation: 2 }.name().into_bytes()),
        (Row::Outcome, queue::outcome_bytes(&row, &QueueOutcome::Sealed { index })),
        (Row::Outcome, queue::outcome_bytes(&row, &refused)),
    ]
}

/// A row as it is kept for a request to be sealed later, under the key that is handed back with it. `None` when the
/// client's name is too long.
pub fn keep(row: &WaitingRow, order: &[u8]) -> Option<([u8; 32], Vec<u8>)> {
    queue::seal_row(row, order).ok().map(|(key, bytes)| (*key, bytes))
}

/// What such a row says openly, and the order in it when `key` opens it. `None` when it is no such row.
pub fn kept(place: u64, key: &[u8; 32], bytes: &[u8]) -> Option<(WaitingRow, Option<Vec<u8>>)> {
    let (row, _) = queue::parse_row(place, bytes)?;
    Some((row, queue::open_row(place, key, bytes).map(|order| order.to_vec())))
}
