//! The reconciled view: the entries of many logs in one order, page by page, and where a page begins.
//!
//! A [`Cursor`] says how much of each log somebody has. A page is the beginning of the merged order of what lies between
//! two cursors; so it depends on the logs and the cursors alone, and whoever holds the same logs makes the same page.
//!
//! Refuses to do: read a cursor in another spelling than its own; put anything of a log before what comes earlier in it.
//! Invariants: pages of any lengths, one after the other, are the order of the whole; one entry of each log is held at a
//! time.

use super::Name;
use super::merge::Place;
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::origin::Origin;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;

/// Most logs in a cursor.
pub const CURSOR_LOGS_MAX: usize = 128;

/// Why a text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// A part is not `<origin>:<entries>`, or has another spelling.
    #[error("a part of it is not <origin>:<entries>, with a number from 1 on and without leading zeros")]
    Part,
    /// The logs are not in ascending order, or one is named twice.
    #[error("its logs are not in ascending order, each once")]
    Order,
    /// It names too many logs.
    #[error("it names more than {CURSOR_LOGS_MAX} logs")]
    TooMany,
}

/// How many entries of each log, by origin. A log of which there is nothing is not named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(BTreeMap<Name, u64>);

impl Cursor {
    /// Reads `<origin>:<entries>,<origin>:<entries>...`; the empty text is the beginning of everything.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let mut logs = BTreeMap::new();
        if text.is_empty() {
            return Ok(Cursor(logs));
        }
        for part in text.split(',') {
            let (origin, digits) = part.split_once(':').ok_or(CursorError::Part)?;
            let size: u64 = digits.parse().map_err(|_| CursorError::Part)?;
            let plain = size.to_string() == digits && (1..=NUMBER_MAX).contains(&size);
            if !plain || Origin::parse(origin).is_err() {
                return Err(CursorError::Part);
            }
            if logs.last_key_value().is_some_and(|(last, _): (&Name, _)| **last >= *origin) {
                return Err(CursorError::Order);
            }
            if logs.len() == CURSOR_LOGS_MAX {
                return Err(CursorError::TooMany);
            }
            logs.insert(Arc::from(origin), size);
        }
        Ok(Cursor(logs))
    }

    /// Entries of that log.
    pub fn of(&self, origin: &str) -> u64 {
        self.0.get(origin).copied().unwrap_or(0)
    }

    /// From now on, so many entries of that log.
    pub fn set(&mut self, origin: &Name, size: u64) {
        if size == 0 {
            self.0.remove(origin);
        } else {
            self.0.insert(origin.clone(), size);
        }
    }

    /// Every log that it names, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, u64)> {
        self.0.iter().map(|(origin, size)| (origin, *size))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (origin, size)) in self.iter().enumerate() {
            write!(out, "{}{origin}:{size}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// One entry of a log, on its way into the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    /// Its Lamport time; `None` when nobody can read it, which puts it right behind the one before it.
    pub lamport: Option<u64>,
    /// Its index.
    pub index: u64,
    /// What else there is.
    pub row: T,
}

/// The merged order of several logs. `S` gives the rows of one log, from where it is taken up, in the order of that log.
#[derive(Debug)]
pub struct Merged<S, T> {
    logs: Vec<(S, Option<Row<T>>)>,
    next: BinaryHeap<Reverse<(Place, usize)>>,
}

impl<T, E, S: Iterator<Item = Result<Row<T>, E>>> Merged<S, T> {
    /// Takes up the logs; fails as the first one that cannot be read.
    pub fn begin(logs: impl IntoIterator<Item = (Name, S)>) -> Result<Self, E> {
        let mut merged = Merged { logs: Vec::new(), next: BinaryHeap::new() };
        for (at, (origin, rows)) in logs.into_iter().enumerate() {
            merged.logs.push((rows, None));
            merged.take_up(at, origin)?;
        }
        Ok(merged)
    }

    fn take_up(&mut self, at: usize, origin: Name) -> Result<(), E> {
        let (rows, waiting) = &mut self.logs[at];
        *waiting = rows.next().transpose()?;
        if let Some(row) = waiting {
            let place = Place { lamport: row.lamport.unwrap_or(0), origin, index: row.index };
            self.next.push(Reverse((place, at)));
        }
        Ok(())
    }

    /// The next row, with its place and the number of its log; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<(Place, usize, Row<T>)>, E> {
        let Some(Reverse((place, at))) = self.next.pop() else { return Ok(None) };
        let Some(row) = self.logs[at].1.take() else { return Ok(None) };
        self.take_up(at, place.origin.clone())?;
        Ok(Some((place, at, row)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge::merge;
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    type Rows = std::vec::IntoIter<Result<Row<()>, Infallible>>;

    fn name(log: usize) -> Name {
        Arc::from(format!("bank.example/{:040x}/1", log))
    }

    fn rows(times: &[Option<u64>], from: u64, to: u64) -> Rows {
        let range = times.iter().zip(0u64..).filter(|(_, index)| (from..to).contains(index));
        let rows: Vec<_> =
            range.map(|(lamport, index)| Ok(Row { lamport: *lamport, index, row: () })).collect();
        rows.into_iter()
    }

    /// One page: the order, and where the next one begins.
    fn page(logs: &[Vec<Option<u64>>], after: &Cursor, most: usize) -> (Vec<(usize, u64)>, Cursor) {
        let taken = logs
            .iter()
            .enumerate()
            .map(|(log, times)| (name(log), rows(times, after.of(&name(log)), times.len() as u64)));
        let Ok(mut merged) = Merged::begin(taken);
        let (mut order, mut cursor) = (Vec::new(), after.clone());
        while order.len() < most {
            let Ok(next) = merged.next_row();
            let Some((place, log, row)) = next else { break };
            cursor.set(&place.origin, row.index + 1);
            order.push((log, row.index));
        }
        (order, cursor)
    }

    fn logs() -> impl Strategy<Value = Vec<Vec<Option<u64>>>> {
        let log = proptest::collection::vec(1u64..6, 0..30).prop_map(|steps| {
            let mut time = 0;
            steps
                .into_iter()
                .map(|step| {
                    time += step;
                    Some(time)
                })
                .collect::<Vec<_>>()
        });
        proptest::collection::vec(log, 0..6)
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_merging_two_at_a_time(logs in logs()) {
            let places = |(log, times): (usize, &Vec<Option<u64>>)| -> Vec<Place> {
                let place = |(time, index): (&Option<u64>, u64)| Place { lamport: time.unwrap_or(0), origin: name(log), index };
                times.iter().zip(0..).map(place).collect()
            };
            let all = logs.iter().enumerate().map(places).fold(Vec::new(), |all, log| merge(&all, &log));
            let (order, end) = page(&logs, &Cursor::default(), usize::MAX);
            let expected: Vec<_> = all.iter().map(|place| (logs.iter().enumerate().position(|(log, _)| name(log) == place.origin).unwrap_or(9), place.index)).collect();
            prop_assert_eq!(order, expected);
            for (log, times) in logs.iter().enumerate() {
                prop_assert_eq!(end.of(&name(log)), times.len() as u64);
            }
        }

        /// Also of logs whose times cannot be read, or stand still.
        #[test]
        fn pages_of_any_lengths_are_the_order_of_the_whole(
            mut logs in logs(),
            spoilt in proptest::collection::vec((0usize..6, 0usize..30, proptest::option::of(0u64..40)), 0..6),
            lengths in proptest::collection::vec(1usize..9, 1..5),
        ) {
            for (log, index, time) in spoilt {
                if let Some(entry) = logs.get_mut(log).and_then(|log| log.get_mut(index)) {
                    *entry = time;
                }
            }
            let (whole, _) = page(&logs, &Cursor::default(), usize::MAX);
            let (mut paged, mut cursor) = (Vec::new(), Cursor::default());
            for length in lengths.iter().cycle() {
                let (order, next) = page(&logs, &cursor, *length);
                if order.is_empty() {
                    break;
                }
                paged.extend(order);
                // As it travels.
                cursor = Cursor::parse(&next.to_string()).expect("its own text");
            }
            prop_assert_eq!(&paged, &whole);
            // Each log's own order is kept whatever its times say.
            for (log, times) in logs.iter().enumerate() {
                prop_assert!(whole.iter().filter(|(of, _)| *of == log).map(|(_, index)| *index).eq(0..times.len() as u64));
            }
        }

        #[test]
        fn no_text_has_two_readings(text in "[a-b./:,0-9]{0,60}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn cursors_have_one_spelling() {
        let (a, b) = (name(1), name(2));
        let good = format!("{a}:1,{b}:{NUMBER_MAX}");
        assert_eq!(Cursor::parse(&good).map(|cursor| cursor.to_string()), Ok(good));
        assert_eq!(Cursor::parse(""), Ok(Cursor::default()));
        for part in [
            "",
            "x",
            ":1",
            "{a}",
            "{a}:",
            "{a}:0",
            "{a}:01",
            "{a}:+1",
            "{a}: 1",
            "{a}:-1",
            "{a}:1:1",
            "{a}:1,",
            ",{a}:1",
            "{a}:9223372036854775808",
            "{a}:18446744073709551616",
            "{a}/:1",
            "Bank.example/1:1",
        ] {
            let text = part.replace("{a}", &a);
            if !text.is_empty() {
                assert_eq!(Cursor::parse(&text), Err(CursorError::Part), "{text:?}");
            }
        }
        for text in [format!("{b}:1,{a}:1"), format!("{a}:1,{a}:1"), format!("{a}:1,{a}:2")] {
            assert_eq!(Cursor::parse(&text), Err(CursorError::Order), "{text:?}");
        }
        let many =
            |count: usize| (0..count).map(|log| format!("{}:1", name(log))).collect::<Vec<_>>().join(",");
        assert!(Cursor::parse(&many(CURSOR_LOGS_MAX)).is_ok());
        assert_eq!(Cursor::parse(&many(CURSOR_LOGS_MAX + 1)), Err(CursorError::TooMany));
        let mut cursor = Cursor::default();
        cursor.set(&a, 3);
        cursor.set(&a, 0);
        assert_eq!(cursor, Cursor::default(), "nothing of a log is not named");
    }
}
