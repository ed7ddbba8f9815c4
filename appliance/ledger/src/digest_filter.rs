//! Whether a closed segment can hold a digest at all: a Bloom filter for each, in memory.
//!
//! Every seal asks whether its document was sealed before, and nearly every document was not. Without a filter that is
//! a look into the sorted table of each closed segment: in a log of ten million entries more work than the seal itself.
//! The filters are made from those tables by whoever has time for it, and are no part of the disk.
//!
//! Refuses: to decide that something is there. Until a segment has its filter, or when its table cannot be read,
//! whoever asks looks into the table, as without any.
//! Invariants: a filter is of one closed file, which never changes; what its table holds, it never denies.

use crate::segment::SegmentFile;
use crate::tables::DigestKey;
use fastbloom::BloomFilter;
use std::hash::RandomState;
use std::sync::{Arc, PoisonError, RwLock};

/// Of digests that are not there, one in a hundred is looked for all the same: 9.6 bits a digest, 1.2 MiB for a segment
/// of 2^20.
const FALSE_POSITIVES: f64 = 0.01;

/// `None` for a file whose table cannot be read.
type Row = (SegmentFile, Option<Arc<BloomFilter<RandomState>>>);

/// The filters of all closed segments that have one.
#[derive(Debug, Default)]
pub(crate) struct DigestFilters(RwLock<Vec<Row>>);

/// A filter in the making.
pub(crate) struct Making(BloomFilter<RandomState>);

impl Making {
    /// For `digests` of them. The hash's key is random: nobody outside can choose digests that are always looked for.
    pub(crate) fn new(digests: usize) -> Self {
        let builder = BloomFilter::with_false_pos(FALSE_POSITIVES).hasher(RandomState::new());
        Self(builder.expected_items(digests.max(1)))
    }

    pub(crate) fn insert(&mut self, key: &DigestKey) {
        self.0.insert(key);
    }
}

impl DigestFilters {
    /// Whether the segment certainly does not have this digest.
    pub(crate) fn exclude(&self, file: &SegmentFile, key: &DigestKey) -> bool {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let filter = rows.iter().find(|(of, _)| of == file).and_then(|(_, filter)| filter.as_ref());
        filter.is_some_and(|filter| !filter.contains(key))
    }

    /// The first of `files` that was not tried yet.
    pub(crate) fn missing<'a>(
        &self,
        mut files: impl Iterator<Item = &'a SegmentFile>,
    ) -> Option<SegmentFile> {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        files.find(|file| rows.iter().all(|(of, _)| of != *file)).cloned()
    }

    /// Takes a filter up; `None` when there cannot be one.
    pub(crate) fn enter(&self, file: SegmentFile, made: Option<Making>) {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|(of, _)| *of != file);
        rows.push((file, made.map(|made| Arc::new(made.0))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> DigestKey {
        let mut key = DigestKey::default();
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn file(first: u64) -> SegmentFile {
        SegmentFile { first, generation: 0 }
    }

    #[test]
    fn a_filter_denies_nothing_it_holds_and_nearly_everything_else() {
        let (filters, files) = (DigestFilters::default(), [file(0), file(100_000), file(200_000)]);
        let mut making = Making::new(10_000);
        (0..10_000).for_each(|number| making.insert(&key(number)));
        assert_eq!(filters.missing(files.iter()), Some(file(0)));
        assert!(!filters.exclude(&file(0), &key(1 << 40)), "without a filter nothing is denied");
        filters.enter(file(0), Some(making));
        filters.enter(file(100_000), None);
        assert_eq!(filters.missing(files.iter()), Some(file(200_000)));
        assert!((0..10_000).all(|number| !filters.exclude(&file(0), &key(number))));
        let passed =
            (0..10_000).filter(|number| !filters.exclude(&file(0), &key((1 << 40) + number))).count();
        assert!(passed < 300, "{passed} of 10,000 strangers pass; one in a hundred was meant to");
        for other in [file(100_000), file(200_000), SegmentFile { first: 0, generation: 1 }] {
            assert!(!filters.exclude(&other, &key(1 << 40)), "{other:?} has no filter");
        }
    }

    #[test]
    fn an_empty_segment_has_a_filter_that_denies_everything() {
        let filters = DigestFilters::default();
        filters.enter(file(0), Some(Making::new(0)));
        assert!(filters.exclude(&file(0), &key(1)));
    }
}
