//! Integrity body: what a pass of the box over its own disk found.
//!
//! Refuses to do: claim more than was read. A store that was not there is not listed; a finding that belongs to no
//! entry names none.
//! Invariants: the head is the tree that the stored entries were compared with, so it is always one of this log;
//! at most [`FINDINGS_MAX`] findings are spelt out and the rest are counted, so that a dying disk cannot make an
//! entry too long to be written.

use crate::der::{self, DerError};
use crate::entry::{ENTRY_BYTES_MAX, LocalTime, NUMBER_MAX, TreeState};
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most findings of one entry.
pub const FINDINGS_MAX: usize = 64;
/// Most stores of one entry.
pub const STORES_MAX: usize = 16;
/// Longest name of a store or a file, in bytes.
pub const STORE_BYTES_MAX: usize = 64;
/// Longest description of a finding, in bytes.
pub const WHAT_BYTES_MAX: usize = 256;

/// Body of an `integrity` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct IntegrityBody {
    /// The tree that the stored entries were compared with.
    pub head: TreeState,
    /// When the pass began.
    pub began: LocalTime,
    /// When this was said.
    pub ended: LocalTime,
    /// Whether everything was read; false for the word sent ahead at the first finding of a pass.
    pub complete: bool,
    /// What was read, by store.
    pub stores: Vec<CheckedStore>,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

/// How much of one store was read.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckedStore {
    /// `segments`, `openings`, `opening-keys`, `side`, `control`, `files`, ...
    pub name: String,
    /// Bytes read from the disk.
    pub bytes: u64,
    /// Findings in it.
    pub damaged: u64,
}

/// Something that is not as it was written.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// The file inside the state directory.
    pub file: String,
    /// The entries concerned, where it concerns entries.
    #[rasn(tag(context, 0))]
    pub entries: Option<EntryRange>,
    /// What does not agree, for people.
    pub what: String,
    /// Whether it was put right from the entries.
    pub repaired: bool,
}

/// Entries from the first to the last, both included.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryRange {
    /// First entry.
    pub first: u64,
    /// Last entry.
    pub last: u64,
}

impl IntegrityBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: IntegrityBody = der::decode("integrity body", bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "integrity body", reason });
        let named = |name: &str| (1..=STORE_BYTES_MAX).contains(&name.len());
        if self.stores.len() > STORES_MAX || self.findings.len() > FINDINGS_MAX {
            return range("it has more than 16 stores or more than 64 findings");
        }
        if !self.stores.iter().all(|store| named(&store.name) && store.bytes.max(store.damaged) <= NUMBER_MAX)
        {
            return range("the name of a store is empty or too long, or a number larger than 2^63 - 1");
        }
        for finding in &self.findings {
            if !named(&finding.file) || finding.what.is_empty() || finding.what.len() > WHAT_BYTES_MAX {
                return range("a finding names no file, or says nothing, or too much");
            }
            if finding
                .entries
                .is_some_and(|entries| entries.first > entries.last || entries.last > NUMBER_MAX)
            {
                return range("a finding ends before it begins");
            }
        }
        let late = |time: &LocalTime| time.unix_millis > NUMBER_MAX;
        if self.head.size > NUMBER_MAX || self.more > NUMBER_MAX || late(&self.began) || late(&self.ended) {
            return range("a number is larger than 2^63 - 1");
        }
        if self.more > 0 && self.findings.len() < FINDINGS_MAX {
            return range("it counts findings that it had room to spell out");
        }
        Ok(())
    }
}
