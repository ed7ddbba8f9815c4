//! The proven intervals of all entries of a log, from what its anchors prove and which time evidence its entries name.
//!
//! Refuses to do: judge proofs, or use the box's clock.
//! Invariant: the interval of an entry is the one that its `.seal` out of this archive verifies to.

use crate::index::catalogue::Bound;
use bulla_formats::anchoring::{self, Attested};
use std::collections::{BTreeMap, BTreeSet};

/// Most anchors that a seal is given.
pub const ANCHORS: usize = 4;
/// Most that are looked at for them.
pub const ANCHORS_TRIED: usize = 64;

/// Entries of one interval: proven not to be older, proven not to be younger; Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first of them.
    pub first: u64,
    /// The first beyond them.
    pub end: u64,
    /// Not before.
    pub after: Option<u64>,
    /// Not after.
    pub before: Option<u64>,
}

impl Span {
    /// Whether the interval has something in common with this one; a bound that is not proven limits nothing.
    pub fn overlaps(&self, from: Option<u64>, to: Option<u64>) -> bool {
        let apart = |begin: Option<u64>, end: Option<u64>| matches!((begin, end), (Some(begin), Some(end)) if begin > end);
        !apart(from, self.before) && !apart(self.after, to)
    }

    /// Whether all of the interval is inside this one; what is not proven is not inside.
    pub fn is_within(&self, from: Option<u64>, to: Option<u64>) -> bool {
        from.is_none_or(|from| self.after.is_some_and(|after| after >= from))
            && to.is_none_or(|to| self.before.is_some_and(|before| before <= to))
    }
}

/// All spans of a log, in order and without gaps.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    spans: Vec<Span>,
}

impl Timing {
    /// Of a log of `size` entries: its bounds, smallest tree first; which evidence is named from which entry on; and how
    /// many operators a bound takes.
    pub fn of(size: u64, bounds: &[Bound], evidence: &[(u64, Option<u64>)], operators: u64) -> Self {
        let mut ends: BTreeSet<u64> = bounds.iter().map(|(covered, ..)| *covered).collect();
        ends.extend(evidence.iter().map(|(first, _)| *first));
        ends.insert(size);
        let (mut first, mut run, mut spans) = (0, None, Vec::new());
        let (mut evidence, mut covering) = (evidence.iter().peekable(), bounds);
        let anchors: BTreeMap<u64, &[Attested]> =
            bounds.iter().map(|(_, index, said)| (*index, said.as_slice())).collect();
        for end in ends.into_iter().filter(|end| *end > 0 && *end <= size) {
            while let Some((_, named)) = evidence.next_if(|(from, _)| *from <= first) {
                let said = named.and_then(|named| anchors.get(&named));
                run = said.and_then(|said| anchoring::not_before(said, operators));
            }
            while covering.first().is_some_and(|(covered, ..)| *covered <= first) {
                covering = &covering[1..];
            }
            let (mut after, mut before) = (run, not_after(covering, operators));
            if matches!((after, before), (Some(after), Some(before)) if after > before) {
                (after, before) = (None, None);
            }
            spans.push(Span { first, end, after, before });
            first = end;
        }
        Timing { spans }
    }

    /// What is proven of the entry at `index`.
    pub fn at(&self, index: u64) -> (Option<u64>, Option<u64>) {
        let at = self.spans.partition_point(|span| span.end <= index);
        self.spans.get(at).map_or((None, None), |span| (span.after, span.before))
    }

    /// All of them.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
}

/// By the anchors that a seal is given: the first that bring as many operators as it takes.
fn not_after(covering: &[Bound], operators: u64) -> Option<u64> {
    let (mut taken, mut all) = (0, Vec::<Attested>::new());
    for (.., said) in covering.iter().take(ANCHORS_TRIED) {
        let known = anchoring::operators(&all).len();
        let mut with = all.clone();
        with.extend(said.iter().cloned());
        let now = anchoring::operators(&with).len();
        if now == known {
            continue;
        }
        all = with;
        taken += 1;
        if now as u64 >= operators || taken == ANCHORS {
            break;
        }
    }
    anchoring::not_after(&all, operators)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(operator: &str, earliest: u64, latest: u64) -> Attested {
        Attested { operator: operator.into(), earliest, latest }
    }

    #[test]
    fn bounds_follow_from_the_anchor_before_and_the_anchor_after() {
        // Anchors of 4 and 10 entries stand at 5 and 11; from 6 and 12 on they are named.
        let bounds = [(4, 5, vec![said("a", 100, 110)]), (10, 11, vec![said("a", 200, 210)])];
        let timing = Timing::of(14, &bounds, &[(6, Some(5)), (12, Some(11))], 1);
        assert_eq!(timing.at(0), (None, Some(110)));
        assert_eq!(timing.at(3), (None, Some(110)));
        assert_eq!(timing.at(4), (None, Some(210)));
        assert_eq!(timing.at(6), (Some(100), Some(210)));
        assert_eq!(timing.at(9), (Some(100), Some(210)));
        assert_eq!(timing.at(10), (Some(100), None));
        assert_eq!(timing.at(13), (Some(200), None));
        assert_eq!(timing.at(14), (None, None));
        // Two operators are asked for: nobody speaks beside a.
        assert!(
            Timing::of(14, &bounds, &[(6, Some(5))], 2)
                .spans()
                .iter()
                .all(|span| { (span.after, span.before) == (None, None) })
        );
        // What contradicts itself proves nothing.
        let bent = [(4, 5, vec![said("a", 300, 310)]), (10, 11, vec![said("a", 200, 210)])];
        assert_eq!(Timing::of(14, &bent, &[(6, Some(5))], 1).at(7), (None, None));
    }

    #[test]
    fn what_is_not_proven_limits_nothing_and_is_inside_of_nothing() {
        let span = |after, before| Span { first: 0, end: 1, after, before };
        for (span, from, to, overlaps, within) in [
            (span(Some(10), Some(20)), Some(20), Some(30), true, false),
            (span(Some(10), Some(20)), Some(21), Some(30), false, false),
            (span(Some(10), Some(20)), Some(10), Some(20), true, true),
            (span(Some(10), Some(20)), Some(11), None, true, false),
            (span(Some(10), Some(20)), None, Some(9), false, false),
            (span(None, Some(20)), Some(5), Some(30), true, false),
            (span(None, Some(20)), None, Some(30), true, true),
            (span(None, None), Some(5), Some(6), true, false),
            (span(None, None), None, None, true, true),
        ] {
            assert_eq!(
                (span.overlaps(from, to), span.is_within(from, to)),
                (overlaps, within),
                "{span:?} {from:?} {to:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn spans_cover_a_log_once(
            size in 0u64..50,
            anchors in prop::collection::vec((1u64..60, 0u64..1_000), 0..6),
            named in prop::collection::vec((0u64..60, prop::option::of(0u64..60)), 0..5),
        ) {
            let mut bounds: Vec<Bound> = anchors
                .iter()
                .map(|(covered, at)| (*covered, covered + 1, vec![said("a", *at, at + 10)]))
                .collect();
            bounds.sort_by_key(|(covered, index, _)| (*covered, *index));
            let mut named = named;
            named.sort_unstable();
            named.dedup_by_key(|(first, _)| *first);
            let timing = Timing::of(size, &bounds, &named, 1);
            let mut next = 0;
            for span in timing.spans() {
                prop_assert!(span.first == next && span.end > next);
                prop_assert_eq!(timing.at(span.first), (span.after, span.before));
                prop_assert_eq!(timing.at(span.end - 1), (span.after, span.before));
                next = span.end;
            }
            prop_assert_eq!(next, size);
        }
    }
}
