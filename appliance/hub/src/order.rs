//! All archived logs in one order, the same wherever it is computed: by Lamport time, then log, then index; each entry with
//! its proven interval. Narrowed to a box, a kind or a time, and handed out in pages.
//!
//! Refuses to do: order anything by clocks; show quarantined entries, which the audit refuses and a finding tells of each.
//! Invariants: pages put together are the whole, without gaps or repetition, as long as nothing is pulled between them;
//! memory is one bundle a log.

use crate::archive::ArchivedLog;
use crate::hub::{Hub, HubError};
use crate::shelf::Shelf;
use crate::timing::{Span, Timing};
use bulla_formats::entry::{Entry, Kind, LocalTime};
use bulla_formats::hash::Hash;
use bulla_formats::tile::width_at;
use bulla_protocol::gossip::merge::Place;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only this log.
    pub origin: Option<String>,
    /// Only entries of this kind.
    pub kind: Option<Kind>,
    /// Only entries that may have been made then or later.
    pub from: Option<u64>,
    /// Only entries that may have been made then or earlier.
    pub to: Option<u64>,
    /// Only entries proven to have been made in that time.
    pub within: bool,
    /// Only what stands after this place.
    pub after: Option<Place>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it stands.
    pub place: Place,
    /// Its kind as a number; later versions have others.
    pub kind: u16,
    /// Its leaf hash.
    pub leaf: Hash,
    /// What the box's clock said.
    pub local: LocalTime,
    /// Proven not to be older.
    pub after: Option<u64>,
    /// Proven not to be younger.
    pub before: Option<u64>,
}

impl Row {
    /// Name of its kind.
    pub fn kind_name(&self) -> &'static str {
        Kind::from_number(self.kind).map_or("unknown", Kind::name)
    }
}

/// `LAMPORT,ORIGIN,INDEX`, as `find` prints where a page ends.
pub fn parse_place(text: &str) -> Option<Place> {
    let (lamport, rest) = text.split_once(',')?;
    let (origin, index) = rest.rsplit_once(',')?;
    Some(Place { lamport: lamport.parse().ok()?, origin: origin.into(), index: index.parse().ok()? })
}

/// The same back.
pub fn place_text(place: &Place) -> String {
    format!("{},{},{}", place.lamport, place.origin, place.index)
}

/// The intervals of an archived log.
pub fn timing(hub: &Hub, id: u32, size: u64) -> Result<Timing, HubError> {
    let operators = hub.trust.authorities.as_ref().map_or(1, |all| all.operators);
    Ok(Timing::of(size, &hub.index.bounds(id)?, &hub.index.evidence(id)?, operators))
}

/// One log, walked from its beginning.
struct Walk<'a> {
    hub: &'a Hub,
    query: &'a Query,
    origin: std::sync::Arc<str>,
    id: u32,
    size: u64,
    log: ArchivedLog,
    spans: std::vec::IntoIter<Span>,
    span: Option<Span>,
    next: u64,
    bundle: Option<(u64, Vec<Vec<u8>>, BTreeSet<u64>)>,
}

impl<'a> Walk<'a> {
    fn new(hub: &'a Hub, query: &'a Query, id: u32, shelf: Shelf) -> Result<Self, HubError> {
        let size = shelf.head.size();
        let fits = |span: &Span| {
            if query.within {
                span.is_within(query.from, query.to)
            } else {
                span.overlaps(query.from, query.to)
            }
        };
        let all = timing(hub, id, size)?;
        let spans: Vec<Span> = all.spans().iter().copied().filter(fits).collect();
        let next = match &query.after {
            Some(after) => hub.index.at_lamport(id, after.lamport)?,
            None => 0,
        };
        let origin = shelf.origin.as_str().into();
        let (log, spans) = (shelf.log, spans.into_iter());
        Ok(Walk { hub, query, origin, id, size, log, spans, span: None, next, bundle: None })
    }

    /// The next index that may be asked for.
    fn candidate(&mut self) -> Result<Option<(u64, Span)>, HubError> {
        loop {
            let span = match self.span {
                Some(span) if self.next < span.end => span,
                _ => match self.spans.next() {
                    None => return Ok(None),
                    Some(span) => {
                        self.next = self.next.max(span.first);
                        self.span = Some(span);
                        continue;
                    }
                },
            };
            let index = match self.query.kind {
                None | Some(Kind::Seal) => Some(self.next),
                Some(kind) => self.hub.index.next_of_kind(self.id, kind as u16, self.next..span.end)?,
            };
            match index {
                Some(index) => {
                    self.next = index + 1;
                    return Ok(Some((index, span)));
                }
                None => self.next = span.end,
            }
        }
    }

    fn entry(&mut self, index: u64) -> Result<Option<Entry>, HubError> {
        let number = index / 256;
        if self.bundle.as_ref().is_none_or(|(known, ..)| *known != number) {
            let entries = self.log.entries(number, width_at(0, number, self.size))?;
            let bad = self.hub.index.quarantined_in(self.id, number * 256..(number + 1) * 256)?;
            self.bundle = Some((number, entries, bad));
        }
        let Some((_, entries, bad)) = &self.bundle else { return Ok(None) };
        if bad.contains(&index) {
            return Ok(None);
        }
        let entry = entries.get((index % 256) as usize).and_then(|bytes| Entry::decode(bytes).ok());
        let damaged =
            || self.log.damaged(&format!("tile/entries of entry {index}"), "is not what it must be");
        entry.map(Some).ok_or_else(|| damaged().into())
    }

    fn row(&mut self) -> Result<Option<Row>, HubError> {
        while let Some((index, span)) = self.candidate()? {
            let Some(entry) = self.entry(index)? else { continue };
            let content = entry.content();
            let place = Place { lamport: content.lamport, origin: self.origin.clone(), index };
            let asked = self.query.kind.is_none_or(|kind| kind as u16 == content.kind);
            if asked && self.query.after.as_ref().is_none_or(|after| place > *after) {
                return Ok(Some(Row {
                    place,
                    kind: content.kind,
                    leaf: entry.leaf_hash(),
                    local: content.time,
                    after: span.after,
                    before: span.before,
                }));
            }
        }
        Ok(None)
    }
}

/// The entries that are asked for, in the order of all logs.
pub struct Merged<'a> {
    walks: Vec<Walk<'a>>,
    waiting: BinaryHeap<Reverse<(Place, usize)>>,
    rows: Vec<Option<Row>>,
}

impl<'a> Merged<'a> {
    /// Reads the first entry of each log.
    pub fn new(hub: &'a Hub, query: &'a Query) -> Result<Self, HubError> {
        let mut merged = Merged { walks: Vec::new(), waiting: BinaryHeap::new(), rows: Vec::new() };
        for (id, origin) in hub.index.origins()? {
            if query.origin.as_ref().is_some_and(|only| *only != origin) {
                continue;
            }
            // A log whose first pull has not come to its head has nothing that is proven.
            let Some(shelf) = Shelf::open(hub, &origin)? else { continue };
            merged.walks.push(Walk::new(hub, query, id, shelf)?);
            merged.rows.push(None);
            merged.advance(merged.walks.len() - 1)?;
        }
        Ok(merged)
    }

    fn advance(&mut self, at: usize) -> Result<(), HubError> {
        self.rows[at] = self.walks[at].row()?;
        if let Some(row) = &self.rows[at] {
            self.waiting.push(Reverse((row.place.clone(), at)));
        }
        Ok(())
    }

    /// The next entry.
    pub fn next(&mut self) -> Result<Option<Row>, HubError> {
        let Some(Reverse((_, at))) = self.waiting.pop() else { return Ok(None) };
        let row = self.rows[at].take();
        self.advance(at)?;
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = Place { lamport: 7, origin: "bank.example/0a/1".into(), index: 3 };
        assert_eq!(parse_place(&place_text(&place)), Some(place));
        for bad in ["", "7", "7,x", "x,y,3", "7,y,-3", ",,"] {
            assert!(parse_place(bad).is_none(), "{bad}");
        }
    }
}
