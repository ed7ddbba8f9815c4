//! fsck: the judge. Recomputes everything that can be recomputed from the entries and names what does not agree.
//!
//! It shares the table layouts with the writer and as little code as possible beyond that: tiles are rebuilt with
//! rs_merkle, an implementation that is not ours, so a mistake in our tree would not confirm itself.
//!
//! Refuses: to write, unless repair is asked for; then only what follows from the entries is rebuilt, and only in
//! segments whose entries lead to the recorded root. Entries, headers, heads and requests are never changed: they are
//! evidence. (The digest beside an entry shares its row: the row is written anew, with the same entry and request.)
//!
//! What it can tell: where a tile vouches for the hash of an entry that was changed or cannot be read, exactly that
//! entry is named and all others are proven; else its request or the judge of its meaning may name it, and among
//! the last entries that fill no tile yet and have neither, the whole stretch is named.

mod leaves;
mod segment;

pub(crate) use segment::{FOREIGN_REQUEST, Walk, check_pages, read_stated};

use crate::companion::NEW;
use crate::edge::Edge;
use crate::error::{During, ReadError, StorageFault};
use crate::opening_keys;
use crate::openings::{self, Openings};
use crate::queue;
use crate::search;
use crate::segment::{SegmentFile, current_segments};
use crate::side::{self, SideObjects};
use crate::store::Store;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::merkle::Frontier;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Problems kept word for word; beyond, they are only counted.
const PROBLEMS_MAX: usize = 1000;

/// What an entry means is its judge's matter; the ledger only knows bytes and the tree.
pub trait EntryJudge {
    /// Called once per entry in order. `before` is the tree of the entries before it, so that an entry's statement
    /// about the tree before its batch can be checked: the first entry of a batch states `before` itself.
    fn judge(&mut self, index: u64, entry: &[u8], before: &Frontier) -> Result<Judged, String>;

    /// Called in place of [`EntryJudge::judge`] for an entry whose bytes are lost while its hash is proven.
    fn skip(&mut self, index: u64, leaf: &Hash) {
        let _ = (index, leaf);
    }
}

/// What the judge says about a good entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// The judge does not know what digest the entry is about; the digests beside entries and the sorted ones are compared with each other.
    Opaque,
    /// The entry is about this document digest (algorithm, digest), or about none.
    Digest(Option<(u8, Vec<u8>)>),
}

/// Judges nothing: for checking the tree alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct TreeOnly;

impl EntryJudge for TreeOnly {
    fn judge(&mut self, _: u64, _: &[u8], _: &Frontier) -> Result<Judged, String> {
        Ok(Judged::Opaque)
    }
}

/// What fsck may do.
#[derive(Debug, Clone, Copy)]
pub struct FsckOptions {
    /// Rebuild what is derived (tiles, digests) and wrong. Without it nothing is written.
    pub repair: bool,
    /// For how many indexes an idempotency key must be unique; as in [`crate::Options`], where more than 2^24 is not
    /// allowed and here is as good as 2^24.
    pub request_window: u64,
}

impl Default for FsckOptions {
    fn default() -> Self {
        Self { repair: false, request_window: crate::Options::default().request_window }
    }
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file inside the log directory.
    pub file: String,
    /// First entry concerned; where no entry is, the place in the log where the file belongs.
    pub index: u64,
    /// Last entry concerned; `None` where no particular entry is.
    pub last: Option<u64>,
    /// What does not agree.
    pub what: String,
    /// Whether it can be rebuilt from the entries.
    pub derived: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.derived { "rebuildable" } else { "DAMAGE" };
        match self.last {
            Some(last) if last > self.index => {
                write!(f, "{kind}: entries {} to {last} in {}: {}", self.index, self.file, self.what)
            }
            Some(_) => write!(f, "{kind}: entry {} in {}: {}", self.index, self.file, self.what),
            None => write!(f, "{kind}: {}: {}", self.file, self.what),
        }
    }
}

/// What repair wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Tiles written or removed.
    pub tiles: u64,
    /// Digests written or removed, beside entries and in the sorted tables.
    pub digests: u64,
    /// Search indexes removed, to be built again when the log is next in use.
    pub search_indexes: u64,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsckReport {
    /// Entries that the log states to have.
    pub entries: u64,
    /// Root recomputed from the entries; meaningful when no problem is damage.
    pub root: Hash,
    /// Lowest index that any problem concerns, and the problem.
    pub first_bad: Option<(u64, String)>,
    /// The problems, the first thousand.
    pub problems: Vec<Problem>,
    /// How many there were.
    pub problems_total: u64,
    /// First entry whose meaning could not be judged, because something it may rest on is lost. Its place in the tree
    /// is judged all the same.
    pub unjudged_from: Option<u64>,
    /// What was rebuilt. The problems it solved stay listed.
    pub rebuilt: Rebuilt,
}

impl FsckReport {
    /// Whether nothing at all was found.
    pub fn is_clean(&self) -> bool {
        self.problems_total == 0
    }

    pub(crate) fn new() -> Self {
        FsckReport {
            entries: 0,
            root: empty_root(),
            first_bad: None,
            problems: Vec::new(),
            problems_total: 0,
            unjudged_from: None,
            rebuilt: Rebuilt::default(),
        }
    }

    /// Something about one entry.
    pub(crate) fn add(&mut self, file: &str, index: u64, what: impl Into<String>, derived: bool) {
        self.add_range(file, index, index, what, derived);
    }

    /// Something about the entries from `index` to `last`.
    pub(crate) fn add_range(
        &mut self,
        file: &str,
        index: u64,
        last: u64,
        what: impl Into<String>,
        derived: bool,
    ) {
        self.push(Problem { file: file.to_owned(), index, last: Some(last), what: what.into(), derived });
    }

    /// Something about a file as a whole.
    pub(crate) fn add_file(&mut self, file: &str, what: impl Into<String>, derived: bool) {
        let index = self.entries;
        self.push(Problem { file: file.to_owned(), index, last: None, what: what.into(), derived });
    }

    /// Takes over a problem found elsewhere.
    pub(crate) fn push(&mut self, problem: Problem) {
        let index = problem.index;
        if self.first_bad.as_ref().is_none_or(|(first, _)| index < *first) {
            self.first_bad = Some((index, problem.what.clone()));
        }
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// Why no verdict could be reached.
#[derive(Debug, Error)]
pub enum FsckError {
    /// There is no segment in the directory.
    #[error("there is no log in this directory")]
    Missing,
    /// The directory cannot be listed, or repair could not write.
    #[error(transparent)]
    Storage(#[from] StorageFault),
}

/// Checks the log of `origin`; `progress(done, total)` is called now and then with entry counts.
pub fn fsck(
    store: &Arc<dyn Store>,
    origin: &str,
    options: FsckOptions,
    judge: &mut dyn EntryJudge,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<FsckReport, FsckError> {
    let names = store.list().during("list", "the log directory")?;
    let files = current_segments(&names);
    let Some(last) = files.last() else { return Err(FsckError::Missing) };
    let mut report = FsckReport::new();
    if files[0].first != 0 {
        report.add(&files[0].name(), 0, "the segments before it are missing", false);
    }
    let stated: Vec<Option<Stated>> =
        files.iter().map(|file| segment::read_stated(store.as_ref(), file, origin)).collect();
    report.entries = stated.last().and_then(Option::as_ref).map_or(last.first, |stated| stated.size);
    let mut walk = segment::Walk::new(store.as_ref(), origin, options, judge, progress, report.entries);
    for (at, file) in files.iter().enumerate() {
        let next = files.get(at + 1).map(|next| (next.first, stated[at + 1].as_ref().map(|next| &next.edge)));
        walk.check(file, next, &mut report)?;
    }
    if let Some(edge) = walk.finish() {
        report.root = edge.root();
    }
    check_companions(store, &names, &mut report);
    check_search(store, &names, options.repair, &mut report)?;
    Ok(report)
}

/// Openings and queued requests must decrypt, the secrets above the keys of openings must be whole, side objects must
/// hash to their names. Openings past the end are leftovers of a crash that the next start removes: no problem.
fn check_companions(store: &Arc<dyn Store>, names: &[String], report: &mut FsckReport) {
    let present = |name: &str| names.iter().any(|each| each == name && !each.ends_with(NEW));
    // The page checksums vouch for every row: most of them have nothing else that does.
    // (The search index is derived, and judged by itself.)
    let companion = |name: &&String| {
        name.ends_with(".redb") && SegmentFile::parse(name).is_none() && *name != search::NAME
    };
    for name in names.iter().filter(companion) {
        if let Err(what) = check_pages(store.as_ref(), name) {
            report.add_file(name, what, false);
        }
    }
    let openings = Openings::frozen(Arc::clone(store), present);
    if let Err(error) = check_opening_keys(&openings, report) {
        report.add_file(opening_keys::NAME, error.to_string(), false);
    }
    if let Err(error) = check_openings(&openings, report) {
        report.add_file(openings::NAME, error.to_string(), false);
    }
    if present(queue::NAME) {
        match queue::damages(Arc::clone(store)) {
            Ok(damages) => {
                damages.into_iter().for_each(|what| report.add(queue::NAME, report.entries, what, false))
            }
            Err(error) => report.add(queue::NAME, report.entries, error.to_string(), false),
        }
    }
    if present(side::NAME) {
        match SideObjects::frozen(Arc::clone(store)).damaged() {
            Ok(damaged) => damaged.iter().for_each(|name| {
                report.add_file(side::NAME, format!("the object {name} has another hash"), false);
            }),
            Err(error) => report.add_file(side::NAME, error.to_string(), false),
        }
    }
}

/// The search index must add up. It follows from the entries: repair removes it, and the box builds it again.
fn check_search(
    store: &Arc<dyn Store>,
    names: &[String],
    repair: bool,
    report: &mut FsckReport,
) -> Result<(), StorageFault> {
    if !names.iter().any(|name| name == search::NAME) {
        return Ok(());
    }
    let pages = || check_pages(store.as_ref(), search::NAME).err();
    let Some(what) = search::judge(store, report.entries).or_else(pages) else { return Ok(()) };
    report.add_file(search::NAME, what, true);
    if repair {
        store.remove(search::NAME).during("remove", search::NAME)?;
        store.sync_dir().during("make durable the removals in", "the log directory")?;
        report.rebuilt.search_indexes += 1;
    }
    Ok(())
}

pub(crate) fn check_opening_keys(openings: &Openings, report: &mut FsckReport) -> Result<(), ReadError> {
    for (first, last, what) in openings.keys().damages()? {
        let last = last.min(report.entries.saturating_sub(1)).max(first);
        report.add_range(opening_keys::NAME, first, last, what, false);
    }
    Ok(())
}

fn check_openings(openings: &Openings, report: &mut FsckReport) -> Result<(), ReadError> {
    const CHUNK: usize = 1024;
    if let Some((file, table)) = openings.unknown_table()? {
        let what = format!("it has the table {table}, which this version does not understand");
        report.add_file(file, what, false);
        return Ok(());
    }
    let mut start = 0;
    loop {
        let indexes = openings.indexes(start, CHUNK)?;
        for index in &indexes {
            if *index >= report.entries {
                break;
            }
            match openings.read(*index) {
                Ok(_) => {}
                // Said once, of all entries under that node.
                Err(ReadError::Damaged(damage)) if damage.file == opening_keys::NAME => {}
                Err(error) => report.add(openings::NAME, *index, error.to_string(), false),
            }
        }
        match indexes.last() {
            Some(last) if indexes.len() == CHUNK => start = last + 1,
            _ => return Ok(()),
        }
    }
}

/// What a segment says about itself, before anything of it is checked.
pub(crate) struct Stated {
    /// Right edge of the tree that it continues.
    pub(crate) edge: Edge,
    /// Entries in the log after its last batch.
    pub(crate) size: u64,
    /// Root of that tree.
    pub(crate) root: Hash,
}
