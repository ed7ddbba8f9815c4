//! How a boot differs from what was expected, in words an operator can act on.
//!
//! Refuses to do: say only "mismatch". Every PCR that differs is named with both values, and, where the expected log is
//! at hand, the first measurement that differs.

use crate::event_log::{Event, EventLog};
use crate::replay::PcrValues;
use bulla_formats::trust::Reference;
use std::fmt;

/// One PCR that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Number.
    pub pcr: u8,
    /// Value of the reference.
    pub expected: [u8; 32],
    /// Value of the boot; `None` when nothing was measured into it.
    pub found: Option<[u8; 32]>,
}

/// The PCRs of `reference` that `values` does not have as it says; empty when the boot is the expected one.
pub fn differences(reference: &Reference, values: &PcrValues) -> Vec<Difference> {
    let one = |(pcr, expected): &(u8, [u8; 32])| {
        let found = values.get(pcr).copied();
        (found != Some(*expected)).then_some(Difference { pcr: *pcr, expected: *expected, found })
    };
    reference.pcrs.iter().filter_map(one).collect()
}

/// The reference that `values` is nearest to: with the fewest PCRs that differ, the last listed of equals (the newest).
pub fn nearest<'a>(
    references: &'a [Reference],
    values: &PcrValues,
) -> Option<(&'a Reference, Vec<Difference>)> {
    let judged = references.iter().map(|reference| (reference, differences(reference, values)));
    judged.rev().min_by_key(|(_, differences)| differences.len())
}

/// The first measurement of a PCR that two logs do not share: that of `expected` and that of `found`, `None` where one of
/// them has come to its end.
pub fn first_difference<'a>(
    expected: &'a EventLog,
    found: &'a EventLog,
    pcr: u8,
) -> Option<(Option<&'a Event>, Option<&'a Event>)> {
    let of =
        |log: &'a EventLog| log.events.iter().filter(move |event| event.pcr == pcr && event.is_measured());
    let (mut expected, mut found) = (of(expected), of(found));
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return None,
            (Some(a), Some(b)) if a.digest == b.digest => {}
            differing => return Some(differing),
        }
    }
}

/// An event in a sentence: place, what the log calls it, digest, and its text when that is proven or clearly marked.
pub struct Described<'a>(pub Option<&'a Event>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(event) = self.0 else { return f.write_str("no further measurement") };
        let digest = hex::encode(event.digest);
        write!(f, "event {} (the log calls it {}) {digest}", event.number, event.claimed_name())?;
        match text(&event.data) {
            Some(text) if event.data_is_proven() => write!(f, ", {text:?}"),
            Some(text) => write!(f, ", unproven {text:?}"),
            None => Ok(()),
        }
    }
}

/// Data that is text, in UTF-8 or UTF-16: names of files and sections, command lines.
fn text(data: &[u8]) -> Option<String> {
    const LENGTH_MAX: usize = 200;
    let wide =
        data.len().is_multiple_of(2) && data.len() >= 4 && data.chunks_exact(2).all(|unit| unit[1] == 0);
    let text = if wide {
        let units: Vec<u16> =
            data.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        String::from_utf16(&units).ok()?
    } else {
        String::from_utf8(data.to_vec()).ok()?
    };
    let text = text.trim_end_matches('\0');
    let printable = !text.is_empty() && !text.chars().any(char::is_control);
    printable.then(|| text.chars().take(LENGTH_MAX).collect())
}
