//! Report: one line per check, a verdict, the facts that hold, the interval.
//!
//! Refuses to do: hide a failed check behind a verdict, or call a seal forged when it is only of
//! other bytes or newer than the verifier.

use crate::body::seal::SealBody;
use crate::entry::LocalTime;
use serde_json::{Value, json};
use std::fmt;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// It could not be judged with what was given; the detail says why.
    NotJudged,
}

impl Outcome {
    /// The word printed in reports.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::NotJudged => "not judged",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable name, listed in `docs/formats.md`.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, for people.
    pub detail: String,
}

/// What the whole report amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Seal genuine, document the one that was sealed, policy met.
    Valid,
    /// Seal genuine and policy met; no document was given to compare.
    SealOnly,
    /// Seal genuine; the document given is another one.
    OtherDocument,
    /// Some evidence does not hold.
    Refused,
    /// The log was compromised, and nothing shows that the seal was made before.
    Indeterminate,
    /// Made by a newer version; nothing is known to be wrong.
    NotUnderstood,
    /// Genuine, but the trust file's policy asks for more.
    PolicyUnmet,
}

impl Verdict {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Valid => "valid",
            Verdict::SealOnly => "seal-only",
            Verdict::OtherDocument => "other-document",
            Verdict::Refused => "refused",
            Verdict::Indeterminate => "indeterminate",
            Verdict::NotUnderstood => "not-understood",
            Verdict::PolicyUnmet => "policy-unmet",
        }
    }

    /// One sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Verdict::Valid => "This document is the one that was sealed, and its evidence holds.",
            Verdict::SealOnly => "The seal is genuine; no document was given to compare it with.",
            Verdict::OtherDocument => {
                "The seal is genuine, but it seals other bytes than this document: no seal is known for these bytes."
            }
            Verdict::Refused => "The evidence does not hold; the failed check says which part.",
            Verdict::Indeterminate => {
                "Nothing is known to be wrong with this seal, but its box was compromised, and nothing here shows that the seal was made before."
            }
            Verdict::NotUnderstood => {
                "The seal needs a newer verifier; nothing is known to be wrong with it."
            }
            Verdict::PolicyUnmet => "The seal is genuine, but the trust file's policy asks for more.",
        }
    }

    /// Exit code of `bulla verify`.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Valid | Verdict::SealOnly => 0,
            Verdict::Refused => 1,
            Verdict::OtherDocument => 3,
            Verdict::NotUnderstood => 5,
            Verdict::PolicyUnmet => 6,
            Verdict::Indeterminate => 8,
        }
    }
}

/// Most boxes that a fact counts.
const COUNTED_MAX: usize = 32;

macro_rules! counted {
    ($what:literal: $($boxes:literal)*) => { [$(concat!($what, "(", $boxes, ")")),*] };
}

const MIRRORED: [&str; COUNTED_MAX] = counted!("mirrored": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
    17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
const WITNESSED: [&str; COUNTED_MAX] = counted!("witnessed": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
    17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);

/// The name of a fact of so many boxes; at least one, and no more than can be counted.
fn counted(names: &[&'static str; COUNTED_MAX], boxes: u8) -> &'static str {
    names[usize::from(boxes).clamp(1, COUNTED_MAX) - 1]
}

/// Facts, each provable on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// Token signed, under a signed checkpoint.
    Sealed,
    /// Under a checkpoint that a TPM quote covers.
    Attested,
    /// In a tree that as many independent operators vouch for as the trust file asks.
    Anchored,
    /// So many other boxes hold it and what it refers to, durably.
    Mirrored(u8),
    /// So many other boxes found a tree that it is in consistent with all they saw before.
    Witnessed(u8),
}

impl Fact {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Fact::Sealed => "sealed",
            Fact::Attested => "attested",
            Fact::Anchored => "anchored",
            Fact::Mirrored(boxes) => counted(&MIRRORED, boxes),
            Fact::Witnessed(boxes) => counted(&WITNESSED, boxes),
        }
    }

    /// The fact of this name.
    pub fn parse(name: &str) -> Option<Self> {
        let boxes = |names: &[&str]| names.iter().position(|known| *known == name);
        let count = |at: usize| u8::try_from(at + 1).ok();
        match name {
            "sealed" => Some(Fact::Sealed),
            "attested" => Some(Fact::Attested),
            "anchored" => Some(Fact::Anchored),
            _ => boxes(&MIRRORED)
                .and_then(count)
                .map(Fact::Mirrored)
                .or_else(|| boxes(&WITNESSED).and_then(count).map(Fact::Witnessed)),
        }
    }

    /// The fact that so many boxes make, if any do.
    pub(crate) fn counted(boxes: usize, fact: fn(u8) -> Fact) -> Option<Self> {
        u8::try_from(boxes.min(COUNTED_MAX)).ok().filter(|boxes| *boxes > 0).map(fact)
    }

    /// Whether it takes cosigners to prove it.
    pub fn is_of_cosigners(self) -> bool {
        matches!(self, Fact::Mirrored(_) | Fact::Witnessed(_))
    }

    /// Whether what holds is what is required, or more of it.
    pub fn meets(self, required: Fact) -> bool {
        match (self, required) {
            (Fact::Mirrored(boxes), Fact::Mirrored(least))
            | (Fact::Witnessed(boxes), Fact::Witnessed(least)) => boxes >= least,
            _ => self == required,
        }
    }
}

/// When the document was sealed, as far as it is proven. Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Not before this; `None` while no external time evidence precedes the entry.
    pub after: Option<u64>,
    /// Not after this; `None` while no anchor covers the entry.
    pub before: Option<u64>,
    /// What the box's own clock said: advisory.
    pub local: LocalTime,
}

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Checks in the order they were made; the first failed one ends them.
    pub checks: Vec<Check>,
    /// What it amounts to.
    pub verdict: Verdict,
    /// Facts that hold; empty unless the seal is genuine.
    pub facts: Vec<Fact>,
    /// Present when the seal is genuine.
    pub interval: Option<Interval>,
    /// When the trust file used was written.
    pub trust_issued_millis: u64,
    /// Version of the fleet's roster that it was written from, if it was.
    pub trust_roster_version: Option<u64>,
}

impl Report {
    /// The report as JSON (`bulla verify --json`, `POST /v1/verify`).
    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|c| json!({"check": c.name, "outcome": c.outcome.word(), "detail": c.detail}))
            .collect();
        let facts: Vec<&str> = self.facts.iter().map(|f| f.name()).collect();
        let interval = self.interval.map(|i| {
            json!({
                "notBeforeMillis": i.after,
                "notAfterMillis": i.before,
                "localMillis": i.local.unix_millis,
                "localUncertaintyMillis": i.local.uncertainty_millis,
            })
        });
        json!({
            "verdict": self.verdict.name(),
            "sentence": self.verdict.sentence(),
            "facts": facts,
            "interval": interval,
            "trustIssuedMillis": self.trust_issued_millis,
            "trustRosterVersion": self.trust_roster_version,
            "checks": checks,
        })
    }

    /// The first check that failed.
    pub fn failed(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.outcome == Outcome::Failed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{:<11} {:<18} {}", check.outcome.word(), check.name, check.detail)?;
        }
        writeln!(f, "verdict     {}: {}", self.verdict.name(), self.verdict.sentence())?;
        let facts: Vec<&str> = self.facts.iter().map(|fact| fact.name()).collect();
        let facts = if facts.is_empty() { "none".to_owned() } else { facts.join(", ") };
        writeln!(f, "facts       {facts}")?;
        if let Some(interval) = &self.interval {
            writeln!(f, "interval    {interval}")?;
        }
        write!(f, "trust file  written {}", utc(self.trust_issued_millis))?;
        match self.trust_roster_version {
            Some(version) => writeln!(f, " from version {version} of the roster"),
            None => writeln!(f),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) => write!(f, "after {}", utc(after))?,
            None => f.write_str("no external lower bound")?,
        }
        match self.before {
            Some(before) => write!(f, ", before {}", utc(before))?,
            None => f.write_str(", no external upper bound yet")?,
        }
        write!(f, "; the box's own clock said {}", utc(self.local.unix_millis))?;
        match self.local.uncertainty_millis {
            Some(uncertainty) => write!(f, " \u{b1} {uncertainty} ms"),
            None => f.write_str(" (uncertainty not known)"),
        }
    }
}

/// Milliseconds since the Unix epoch as `YYYY-MM-DDThh:mm:ss.mmmZ` (proleptic Gregorian, no leap seconds).
pub fn utc(unix_millis: u64) -> String {
    let (days, millis) = (unix_millis / 86_400_000, unix_millis % 86_400_000);
    // Days to civil date: eras of 400 years, years that start in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
    let (second, milli) = (millis / 1_000 % 60, millis % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// A UTC date, a UTC time or Unix milliseconds, as Unix milliseconds.
pub fn utc_millis(text: &str) -> Result<u64, String> {
    let wrong = || {
        "write a UTC date like 2026-11-21, a time like 2026-11-21T08:30:00Z, or Unix milliseconds".to_owned()
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong());
    }
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z').ok_or_else(wrong)?),
        None => (text, "00:00:00"),
    };
    let parts = |text: &str, separator: char, widths: [usize; 3]| -> Option<[u64; 3]> {
        let parts: Vec<&str> = text.split(separator).collect();
        let parts: [&str; 3] = parts.try_into().ok()?;
        let mut numbers = [0; 3];
        for ((number, part), width) in numbers.iter_mut().zip(parts).zip(widths) {
            let digits = part.len() == width && part.bytes().all(|b| b.is_ascii_digit());
            *number = part.parse().ok().filter(|_| digits)?;
        }
        Some(numbers)
    };
    let [year, month, day] = parts(date, '-', [4, 2, 2]).ok_or_else(wrong)?;
    let [hour, minute, second] = parts(time, ':', [2, 2, 2]).ok_or_else(wrong)?;
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return Err(wrong());
    }
    // The inverse of `utc`, by search: its own table of days decides what is a date.
    let (mut low, mut high) = (0, (year - 1969) * 366);
    while low < high {
        let middle = (low + high) / 2;
        if utc(middle * 86_400_000).as_str() < date { low = middle + 1 } else { high = middle }
    }
    if !utc(low * 86_400_000).starts_with(&format!("{year:04}-{month:02}-{day:02}T")) {
        return Err(format!("{date} is no date"));
    }
    Ok(low * 86_400_000 + (hour * 3600 + minute * 60 + second) * 1000)
}

/// What was sealed, for a report's header: media type, size, observation, client.
pub fn describe(body: &SealBody) -> String {
    let size = body.size.map_or("unknown size".to_owned(), |size| format!("{size} bytes"));
    let seen = match body.observation {
        crate::body::seal::Observation::BytesObserved => "bytes observed",
        crate::body::seal::Observation::DigestClaimed => "digest claimed",
    };
    format!("{}, {size}, {seen}, from {:?}", body.media_type, body.client.id)
}

#[cfg(test)]
mod tests {
    use super::{Fact, utc, utc_millis};

    #[test]
    fn facts_have_names_and_some_are_more_than_others() {
        let all = [Fact::Sealed, Fact::Attested, Fact::Anchored].into_iter();
        let counted = (1..=32).flat_map(|boxes| [Fact::Mirrored(boxes), Fact::Witnessed(boxes)]);
        for fact in all.chain(counted) {
            assert_eq!(Fact::parse(fact.name()), Some(fact));
        }
        for bad in ["", "mirrored", "mirrored(0)", "mirrored(33)", "mirrored(01)", "Sealed", "witnessed(1) "]
        {
            assert_eq!(Fact::parse(bad), None, "{bad}");
        }
        assert_eq!(Fact::counted(0, Fact::Mirrored), None);
        assert_eq!(Fact::counted(300, Fact::Mirrored), Some(Fact::Mirrored(32)));
        assert!(Fact::Mirrored(3).meets(Fact::Mirrored(2)) && !Fact::Mirrored(1).meets(Fact::Mirrored(2)));
        assert!(!Fact::Mirrored(3).meets(Fact::Witnessed(1)) && Fact::Sealed.meets(Fact::Sealed));
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_795_219_200_123), "2026-11-21T00:00:00.123Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn times_are_utc_dates_times_or_milliseconds() {
        for (text, wanted) in [
            ("0", 0),
            ("1795219200123", 1_795_219_200_123),
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2026-11-21", 1_795_219_200_000),
            ("2026-11-21T23:59:59Z", 1_795_219_200_000 + 86_399_000),
            ("2100-03-01", 4_107_542_400_000),
        ] {
            assert_eq!(utc_millis(text), Ok(wanted), "{text}");
        }
        for bad in [
            "",
            "2026-2-1",
            "2026-02-30",
            "2100-02-29",
            "2026-13-01",
            "2026-11-21T24:00:00Z",
            "1969-12-31",
            "2026-11-21T08:00:00",
            "2026-11-21T08:00Z",
            "-1",
            "x",
            "2026-11-21T8:00:00Z",
        ] {
            assert!(utc_millis(bad).is_err(), "{bad}");
        }
    }
}
