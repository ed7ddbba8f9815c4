//! The order of the entries of many logs: the same whoever merges, in whatever order, however often.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::entry::NUMBER_MAX;
use bulla_protocol::gossip::Name;
use bulla_protocol::gossip::merge::{Place, merge, take_over};
use proptest::collection::vec;
use proptest::prelude::*;

/// Some logs, each with Lamport times that grow.
fn logs() -> impl Strategy<Value = Vec<Vec<Place>>> {
    vec(vec(1u64..5, 0..12), 1..5).prop_map(|logs| {
        let log = |(number, steps): (usize, Vec<u64>)| {
            let origin: Name = format!("bank.example/{number}/1").into();
            let mut lamport = 0;
            let place = |(index, step): (u64, u64)| {
                lamport += step;
                Place { lamport, origin: origin.clone(), index }
            };
            (0u64..).zip(steps).map(place).collect()
        };
        logs.into_iter().enumerate().map(log).collect()
    })
}

/// Of each log a part that begins with its first entry, as a box holds it.
fn held(logs: &[Vec<Place>], sizes: &[usize]) -> Vec<Place> {
    let parts = logs.iter().zip(sizes.iter().cycle());
    let parts = parts.map(|(log, size)| &log[..(*size).min(log.len())]);
    parts.fold(Vec::new(), |merged, part| merge(&merged, part))
}

proptest! {
    #[test]
    fn merging_is_a_union_in_one_order(
        logs in logs(),
        sizes in vec(vec(0usize..13, 5), 3),
    ) {
        let [a, b, c] = [0, 1, 2].map(|which| held(&logs, &sizes[which]));
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
        prop_assert_eq!(&merge(&a, &a), &a);
        prop_assert_eq!(&merge(&a, &[]), &a);
        let all = merge(&merge(&a, &b), &c);
        prop_assert!(all.is_sorted_by(|one, other| one < other), "each entry once, in order");
        prop_assert_eq!(merge(&all, &b), all.clone());
        prop_assert!(a.iter().chain(&b).chain(&c).all(|place| all.contains(place)));
        prop_assert!(all.iter().all(|place| a.contains(place) || b.contains(place) || c.contains(place)));
    }

    #[test]
    fn each_log_keeps_its_order(logs in logs()) {
        let all = held(&logs, &[12]);
        for log in &logs {
            let own: Vec<_> = all.iter().filter(|place| log.contains(place)).cloned().collect();
            prop_assert_eq!(&own, log);
        }
    }

    #[test]
    fn lamport_time_never_goes_back_nor_far(own in 0..NUMBER_MAX, seen: u64, cap in 0u64..1 << 32) {
        let time = take_over(own, seen, cap);
        prop_assert!(own <= time && time <= own.saturating_add(cap) && time < NUMBER_MAX);
        prop_assert!(time == own || time <= seen);
        prop_assert!(seen > own.saturating_add(cap) || seen >= NUMBER_MAX || time >= seen, "what is near is taken over");
        prop_assert_eq!(take_over(time, seen.min(time), cap), time);
    }
}
