//! How an entry lies in its segment: in one row with the digest it is found by and the request it answers. A commit
//! copies every page on the way to a row that it adds, so a table for each would cost three ways instead of one.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries-2` | index less the segment's first, u32 | the entry; its digest 9; its request 40; which of the two are there 1 |
//!
//! A digest is the algorithm and the first 8 bytes of the digest; a request is the idempotency key 16, the fingerprint
//! 16 and a binding 8 ([`Request::to_row`]). The last byte: bit 0 for a digest, bit 1 for a request; its upper half is
//! the complement of the lower one, so that no single bit makes another layout of it.
//!
//! Refuses: any other last byte, and a row shorter than what that byte announces.
//! Invariants: a row has one spelling; nothing is judged here (the tree vouches for the entry, the binding for the
//! request, the entry for its digest), so a damaged part costs nothing but itself.

use crate::contain::contain;
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::segment::SegmentFile;
use crate::tables::{DIGEST_KEY_BYTES, DigestKey, REQUEST_BYTES};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use std::ops::{Bound, Range};

pub(crate) const ENTRIES: TableDefinition<u32, &[u8]> = TableDefinition::new("entries-2");

/// Bits of the last byte.
const HAS_DIGEST: u8 = 1;
const HAS_REQUEST: u8 = 2;

/// A row, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRow<'r> {
    pub(crate) entry: &'r [u8],
    pub(crate) digest: Option<&'r DigestKey>,
    pub(crate) request: Option<&'r [u8; REQUEST_BYTES]>,
}

impl<'r> EntryRow<'r> {
    pub(crate) fn parse(row: &'r [u8]) -> Option<Self> {
        let (last, rest) = row.split_last()?;
        let flags = last & 0x0f;
        if *last != layout(flags) || flags & !(HAS_DIGEST | HAS_REQUEST) != 0 {
            return None;
        }
        let (rest, request) = split_part(rest, flags & HAS_REQUEST != 0)?;
        let (entry, digest) = split_part(rest, flags & HAS_DIGEST != 0)?;
        Some(Self { entry, digest, request })
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut row = Vec::with_capacity(self.entry.len() + DIGEST_KEY_BYTES + REQUEST_BYTES + 1);
        row.extend_from_slice(self.entry);
        row.extend(self.digest.into_iter().flatten());
        row.extend(self.request.into_iter().flatten());
        let digest = if self.digest.is_some() { HAS_DIGEST } else { 0 };
        row.push(layout(digest | if self.request.is_some() { HAS_REQUEST } else { 0 }));
        row
    }
}

fn layout(flags: u8) -> u8 {
    !flags << 4 | flags
}

/// Takes a part off the end, if it is there.
fn split_part<const N: usize>(row: &[u8], there: bool) -> Option<(&[u8], Option<&[u8; N]>)> {
    if there { row.split_last_chunk().map(|(rest, part)| (rest, Some(part))) } else { Some((row, None)) }
}

/// Key of an entry in the segment that begins at `first`; `None` for one that no such segment can have.
fn offset(first: u64, index: u64) -> Option<u32> {
    u32::try_from(index.checked_sub(first)?).ok()
}

/// Why there is no entry where one should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// There is no row under this index.
    Missing,
    /// Its row has none of the layouts.
    Malformed,
    /// The page it lies in cannot be read.
    Unreadable,
}

impl Lost {
    pub(crate) fn what(self) -> &'static str {
        match self {
            Lost::Missing => "the entry is missing",
            Lost::Malformed => "the entry cannot be told from what its row holds beside it",
            Lost::Unreadable => "the entry cannot be read, its page is damaged",
        }
    }
}

/// The entries of one segment, for reading.
pub(crate) struct EntryRows {
    table: ReadOnlyTable<u32, &'static [u8]>,
    first: u64,
    name: String,
}

/// A row that was read.
pub(crate) struct StoredRow<'t> {
    rows: &'t EntryRows,
    pub(crate) index: u64,
    bytes: AccessGuard<'static, &'static [u8]>,
}

impl StoredRow<'_> {
    /// The row taken apart; damage if it is none.
    pub(crate) fn parts(&self) -> Result<EntryRow<'_>, Damage> {
        EntryRow::parse(self.bytes.value()).ok_or_else(|| self.rows.lost(self.index, Lost::Malformed))
    }
}

impl EntryRows {
    pub(crate) fn open(txn: &ReadTransaction, file: &SegmentFile) -> Result<Self, StorageFault> {
        let name = file.name();
        Ok(Self { table: txn.open_table(ENTRIES).during("read", &name)?, first: file.first, name })
    }

    /// The damage of having lost entry `index`.
    pub(crate) fn lost(&self, index: u64, lost: Lost) -> Damage {
        Damage::new(&self.name, index, lost.what())
    }

    pub(crate) fn get(&self, index: u64) -> Result<Option<StoredRow<'_>>, StorageFault> {
        let Some(offset) = offset(self.first, index) else { return Ok(None) };
        let bytes = self.table.get(offset).during("read", &self.name)?;
        Ok(bytes.map(|bytes| StoredRow { rows: self, index, bytes }))
    }

    /// The row of an entry that must be there.
    pub(crate) fn expect(&self, index: u64) -> Result<StoredRow<'_>, ReadError> {
        self.get(index)?.ok_or_else(|| self.lost(index, Lost::Missing).into())
    }

    /// The rows of `range` in order.
    pub(crate) fn range(
        &self,
        range: Range<u64>,
    ) -> Result<impl Iterator<Item = Result<StoredRow<'_>, StorageFault>>, StorageFault> {
        let clamped = |index: u64| offset(self.first, index.max(self.first)).unwrap_or(u32::MAX);
        let offsets = clamped(range.start)..clamped(range.end);
        self.rows((Bound::Included(offsets.start), Bound::Excluded(offsets.end)))
    }

    /// Index of the first row at or past `end`.
    pub(crate) fn past(&self, end: u64) -> Result<Option<u64>, StorageFault> {
        let Some(offset) = offset(self.first, end) else { return Ok(None) };
        let row = self.rows((Bound::Included(offset), Bound::Unbounded))?.next();
        Ok(row.transpose()?.map(|row| row.index))
    }

    fn rows(
        &self,
        bounds: (Bound<u32>, Bound<u32>),
    ) -> Result<impl Iterator<Item = Result<StoredRow<'_>, StorageFault>>, StorageFault> {
        let rows = self.table.range::<u32>(bounds).during("read", &self.name)?;
        Ok(rows.map(|row| {
            let (offset, bytes) = row.during("read", &self.name)?;
            Ok(StoredRow { rows: self, index: self.first.saturating_add(offset.value().into()), bytes })
        }))
    }

    /// Tells `visit` of every index of `range` in order, and goes around what cannot be read.
    pub(crate) fn survey(&self, range: Range<u64>, mut visit: impl FnMut(u64, Result<EntryRow<'_>, Lost>)) {
        let mut next = range.start;
        while next < range.end {
            // What was told before a panic stays: a panic is no return value.
            let stopped = contain(&self.name, next, || {
                for row in self.range(next..range.end)? {
                    let row = row?;
                    if row.index != next {
                        return Ok(row.index);
                    }
                    visit(next, row.parts().map_err(|_| Lost::Malformed));
                    next += 1;
                }
                Ok(range.end)
            });
            // A page of nonsense that happens to parse looks like a gap, like the end, or like a circle.
            let until = self.found_after(next, range.end);
            let lost = if stopped.is_ok_and(|at| at == until) { Lost::Missing } else { Lost::Unreadable };
            for index in next..until {
                visit(index, Err(lost));
            }
            next = until;
        }
    }

    /// First entry after `from` that is found: by strides that double, then halve. What cannot be read are
    /// pages, stretches of neighbours, so this asks a few dozen times where one by one would ask a million times.
    fn found_after(&self, from: u64, end: u64) -> u64 {
        let is_there = |index| contain(&self.name, index, || Ok(self.get(index)?.is_some())).unwrap_or(false);
        let (mut bad, mut stride) = (from, 1);
        let mut good = loop {
            let Some(probe) = bad.checked_add(stride).filter(|probe| *probe < end) else { break end };
            if is_there(probe) {
                break probe;
            }
            (bad, stride) = (probe, stride * 2);
        };
        while bad + 1 < good {
            let middle = bad + (good - bad) / 2;
            if is_there(middle) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        good
    }
}

/// The entries of one segment, for writing.
pub(crate) struct EntryWriter<'t> {
    table: Table<'t, u32, &'static [u8]>,
    first: u64,
}

impl<'t> EntryWriter<'t> {
    /// `first` is the segment's.
    pub(crate) fn open(txn: &'t WriteTransaction, first: u64) -> Result<Self, redb::Error> {
        Ok(Self { table: txn.open_table(ENTRIES)?, first })
    }

    pub(crate) fn put(&mut self, index: u64, row: &EntryRow<'_>) -> Result<(), redb::Error> {
        self.table.insert(self.offset(index)?, row.to_bytes().as_slice())?;
        Ok(())
    }

    /// Replaces the digest of an entry that is there, and nothing else of its row.
    pub(crate) fn set_digest(&mut self, index: u64, digest: Option<&DigestKey>) -> Result<(), redb::Error> {
        let offset = self.offset(index)?;
        let stored = self.table.get(offset)?.map(|row| row.value().to_vec());
        let row = stored.as_deref().and_then(EntryRow::parse);
        let row = row.ok_or_else(|| redb::Error::Corrupted(Lost::Malformed.what().to_owned()))?;
        self.table.insert(offset, EntryRow { digest, ..row }.to_bytes().as_slice())?;
        Ok(())
    }

    fn offset(&self, index: u64) -> Result<u32, redb::Error> {
        let outside = || redb::Error::Corrupted(format!("entry {index} is outside the segment"));
        offset(self.first, index).ok_or_else(outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: DigestKey = [3; DIGEST_KEY_BYTES];
    const REQUEST: [u8; REQUEST_BYTES] = [5; REQUEST_BYTES];

    fn rows() -> [EntryRow<'static>; 4] {
        let row = |digest, request| EntryRow { entry: b"an entry", digest, request };
        [
            row(None, None),
            row(Some(&DIGEST), None),
            row(None, Some(&REQUEST)),
            row(Some(&DIGEST), Some(&REQUEST)),
        ]
    }

    #[test]
    fn each_layout_reads_back_and_has_the_bytes_of_the_table_above() {
        let lengths = rows().map(|row| row.to_bytes().len());
        assert_eq!(lengths, [9, 18, 49, 58]);
        for (row, last) in rows().iter().zip([0xf0, 0xe1, 0xd2, 0xc3]) {
            let bytes = row.to_bytes();
            assert_eq!(EntryRow::parse(&bytes), Some(*row));
            assert_eq!((&bytes[..8], bytes.last()), (b"an entry".as_slice(), Some(&last)));
        }
    }

    #[test]
    fn a_last_byte_of_which_any_bit_flipped_is_no_layout() {
        for row in rows() {
            let mut bytes = row.to_bytes();
            let last = bytes.len() - 1;
            for bit in 0..8 {
                bytes[last] ^= 1 << bit;
                assert_eq!(EntryRow::parse(&bytes), None, "bit {bit}");
                bytes[last] ^= 1 << bit;
            }
        }
        for last in [0x00, 0xff, 0xb4, 0x78] {
            assert_eq!(EntryRow::parse(&[7, 7, last]), None, "{last:#x}");
        }
    }

    #[test]
    fn a_row_shorter_than_it_announces_is_refused() {
        assert_eq!(EntryRow::parse(&[]), None);
        for row in rows() {
            let parts = row.to_bytes().split_off(row.entry.len());
            // Without an entry it is one of no bytes; with less, none.
            assert_eq!(EntryRow::parse(&parts), Some(EntryRow { entry: &[], ..row }));
            assert_eq!(EntryRow::parse(&parts[1..]), None);
        }
    }
}
