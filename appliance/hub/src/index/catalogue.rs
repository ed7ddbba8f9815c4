//! What the index keeps so that logs can be asked: by place, kind, proven time and relation. Nothing here is a row for each
//! entry: most entries are seals, and what is proven of their time changes with the anchors, not with them.
//!
//! Refuses to do: answer from an index that lacks some of it; `bulla-hub reindex` makes it.
//! Invariant: rows come with the step of the pull that they are of, in its transaction.

use super::IndexError;
use bulla_formats::anchoring::Attested;
use bulla_formats::hash::Hash;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Rows of one step.
#[derive(Debug, Default)]
pub struct Entries {
    /// Lamport time and index of every 256th entry.
    pub places: Vec<(u64, u64)>,
    /// Index and kind of entries that are no seals.
    pub others: Vec<(u64, u16)>,
    /// From which index on which time evidence is named.
    pub evidence: Vec<(u64, Option<u64>)>,
    /// Size, index and words of anchors that hold.
    pub bounds: Vec<(u64, u64, Vec<Attested>)>,
    /// Leaf hash, kind of relation, index of the entry that says so.
    pub relations: Vec<(Hash, u8, u64)>,
}

/// What an anchor proves: size, index, words.
pub type Bound = (u64, u64, Vec<Attested>);

/// What is asked.
pub trait Catalogue {
    /// Whether it has what this file is about; indexes of earlier versions have not.
    fn is_catalogued(&self) -> Result<bool, IndexError>;

    /// Names of all logs by number.
    fn origins(&self) -> Result<BTreeMap<u32, String>, IndexError>;

    /// By whom the bounds were judged.
    fn authorities(&self) -> Result<Option<Vec<u8>>, IndexError>;

    /// Number of the finding that the webhook is told next.
    fn untold(&self) -> Result<u64, IndexError>;

    /// The webhook has taken everything before this finding.
    fn told(&self, next: u64) -> Result<(), IndexError>;

    /// Puts these bounds, and only these, in the place of all there are.
    fn judged_by(&self, authorities: &[u8], all: &[(u32, Vec<Bound>)]) -> Result<(), IndexError>;

    /// What anchors of a log prove, smallest tree first.
    fn bounds(&self, id: u32) -> Result<Vec<Bound>, IndexError>;

    /// From which index on entries of a log name which time evidence.
    fn evidence(&self, id: u32) -> Result<Vec<(u64, Option<u64>)>, IndexError>;

    /// An index of a log at or before which its Lamport times are not beyond `lamport`, and little further back than need be.
    fn at_lamport(&self, id: u32, lamport: u64) -> Result<u64, IndexError>;

    /// The first entry of this kind, which is not that of seals, in a range of a log.
    fn next_of_kind(&self, id: u32, kind: u16, range: Range<u64>) -> Result<Option<u64>, IndexError>;

    /// Entries of a range of a log that were quarantined.
    fn quarantined_in(&self, id: u32, range: Range<u64>) -> Result<BTreeSet<u64>, IndexError>;

    /// Who says what of the entry with this leaf hash: kind of relation, log, index.
    fn relations(&self, leaf: &Hash, most: usize) -> Result<Vec<(u8, u32, u64)>, IndexError>;
}

/// The words of an anchor as they are stored.
pub(super) fn said_text(said: &[Attested]) -> String {
    let said = said.iter().map(|one| json!([one.operator, one.earliest, one.latest]));
    Value::from(said.collect::<Vec<Value>>()).to_string()
}

/// The same, read.
pub(super) fn said_of(bytes: &[u8]) -> Result<Vec<Attested>, IndexError> {
    let all: Vec<(String, u64, u64)> =
        serde_json::from_slice(bytes).map_err(|_| IndexError::Damaged("a bound is not understood"))?;
    let one = |(operator, earliest, latest)| Attested { operator, earliest, latest };
    Ok(all.into_iter().map(one).collect())
}
