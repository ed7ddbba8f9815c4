//! Creating a log, and starting on one that is there: what is believed after a crash.
//!
//! Creation is its own act; starting on a missing log is an error, because a lost disk must not quietly become a
//! second history under the same origin.
//!
//! Refuses: another origin, a gap between segments, a root that does not follow from the entries.
//!
//! Invariants: the active segment is verified completely (every entry hashed, every tile and request compared,
//! nothing past the head), which is what makes redb's one-phase commit enough: its checksum is not keyed and LAN
//! clients shape the input, but a state it wrongly took for complete would not add up here. Of older segments the
//! headers must chain (see [`crate::closed`]).

use crate::append::Ledger;
use crate::backend::Writable;
use crate::closed::{self, check_chain, check_last_tile};
use crate::companion::NEW;
use crate::contain::contain;
use crate::control::{self, Control};
use crate::edge::{Edge, FullTile};
use crate::entry_rows::EntryRows;
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::index::{DigestMap, RequestWindow, WINDOW_MAX};
use crate::openings::Openings;
use crate::queue::{self, Queue};
use crate::segment::{SegmentFile, begin, create, current_segments, frontier_of, read_meta, scan};
use crate::shared::{Companions, Indexes, Segments, Shared};
use crate::side::{self, SideObjects};
use crate::store::Store;
use crate::tables::{Head, Header, Request};
use crate::tile_rows::write_tiles;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::retirement::is_final;
use redb::ReadTransaction;
use std::sync::Arc;
use thiserror::Error;

/// What can be chosen. The defaults are the product's; tests choose small segments.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment closes at the first batch end at or past a multiple of this. Default 2^20: it bounds the repair
    /// after a crash (0.7 s) and the memory of the active segment's indexes. At least 1, at most 2^24.
    pub segment_entries: u64,
    /// For how many indexes an idempotency key counts. Default 2^20, at most 2^24.
    pub request_window: u64,
    /// Bytes that must stay free; below, appends are refused before anything is promised. Default 256 MiB.
    pub reserve_bytes: u64,
    /// Page cache of the segment that takes entries, bytes. Default 8 MiB: appends touch its right edge only, and the
    /// processor's own caches forget what is only taken up again after 32 MiB of others.
    pub active_cache_bytes: usize,
    /// Page cache of each closed segment that is open for reading, bytes. Default 1 MiB: the inner pages; random reads
    /// find the others in the kernel's cache.
    pub closed_cache_bytes: usize,
    /// Page cache of each database beside the segments, bytes. Default 8 MiB.
    pub companion_cache_bytes: usize,
    /// Closed segments kept open for reading. Default 32, all of a log of 33 million entries: whether a document was
    /// sealed before, and any random proof, is asked of each of them. At least 1.
    pub closed_open_max: usize,
    /// Full tiles of leaves kept with their inner nodes, 16 KiB each. Default 64.
    pub leaf_tiles_cached: usize,
    /// Full tiles above them: every proof needs one of each level. Default 256, all of a log of 16 million entries.
    pub upper_tiles_cached: usize,
    /// Commit entries in two phases. Default false: start-up verifies every table of the active segment.
    pub two_phase_commit: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_entries: 1 << 20,
            request_window: 1 << 20,
            reserve_bytes: 256 << 20,
            active_cache_bytes: 8 << 20,
            closed_cache_bytes: 1 << 20,
            companion_cache_bytes: 8 << 20,
            closed_open_max: 32,
            leaf_tiles_cached: 64,
            upper_tiles_cached: 256,
            two_phase_commit: false,
        }
    }
}

/// Why a log could not be created or started.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no log here. Create one, or find the disk that has it.
    #[error("there is no log in this directory; create one explicitly, or restore the disk that holds it")]
    Missing,
    /// There already is a log here.
    #[error("there already is a log in this directory ({0}); it is never overwritten")]
    Exists(String),
    /// An option is outside its range.
    #[error("a segment takes 1 to 2^24 entries, not {0}")]
    SegmentEntries(u64),
    /// An option is outside its range.
    #[error("an idempotency key counts for at most 2^24 entries, not for {0}")]
    RequestWindow(u64),
    /// A file was written by a version of the program that stores it in another way.
    #[error(
        "{file} has the table {table}, which this version does not understand; start the version that wrote it"
    )]
    Layout {
        /// The file.
        file: &'static str,
        /// What is not understood.
        table: String,
    },
    /// The disk fails, or what it holds does not add up.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StorageFault> for OpenError {
    fn from(fault: StorageFault) -> Self {
        OpenError::Read(fault.into())
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        OpenError::Read(damage.into())
    }
}

/// What a start found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Entries in the log.
    pub size: u64,
    /// Root of the log.
    pub root: Hash,
    /// What was put right or is worth a journal line, in words.
    pub notes: Vec<String>,
}

impl Ledger {
    /// Creates the log of `origin` in an empty store.
    pub fn create(store: Arc<dyn Store>, origin: &str, options: Options) -> Result<Ledger, OpenError> {
        let names = prepare_store(store.as_ref(), &options)?.0;
        if let Some(name) = names.iter().find(|name| name.ends_with(".redb") && *name != control::NAME) {
            return Err(OpenError::Exists(name.clone()));
        }
        let header = Header { origin: origin.to_owned(), root: empty_root(), edge: Edge::default() };
        let (file, writable) = create(store.as_ref(), &header, options.active_cache_bytes)?;
        let indexes = Indexes {
            digests: vec![DigestMap::new(0)],
            requests: RequestWindow::new(options.request_window),
        };
        let segments = Segments { files: vec![file], active: Some(writable) };
        assemble(store, origin, options, &names, segments, indexes, header.edge)
    }

    /// Starts on the log of `origin`; verifies before it believes.
    pub fn open(
        store: Arc<dyn Store>,
        origin: &str,
        options: Options,
    ) -> Result<(Ledger, Opened), OpenError> {
        // Damage that redb meets at a start is a reason to refuse, not to end in a panic.
        let mut opened = None;
        contain("the log", 0, || {
            opened = Some(Self::verify_and_open(store, origin, options));
            Ok(())
        })?;
        opened.unwrap_or(Err(OpenError::Missing))
    }

    fn verify_and_open(
        store: Arc<dyn Store>,
        origin: &str,
        options: Options,
    ) -> Result<(Ledger, Opened), OpenError> {
        let (names, mut notes) = prepare_store(store.as_ref(), &options)?;
        let files = current_segments(&names);
        let Some((active, closed)) = files.split_last() else { return Err(OpenError::Missing) };
        for name in
            names.iter().filter(|name| SegmentFile::parse(name).is_some_and(|it| !files.contains(&it)))
        {
            notes.push(format!("{name} is superseded by a later generation and not read"));
        }

        let writable = Writable::open(store.as_ref(), &active.name(), options.active_cache_bytes)?;
        let txn = begin(&writable.db, &active.name())?;
        let (header, head) = read_meta(&txn, active, origin)?;
        let mut indexes =
            Indexes { digests: Vec::new(), requests: RequestWindow::new(options.request_window) };
        let window_start = indexes.requests.start(head.size);

        if files[0].first != 0 {
            return Err(Damage::new(&files[0].name(), 0, "the segments before it are missing").into());
        }
        // The end of the previous segment, as its own head row states it.
        let mut previous: Option<Head> = None;
        for (file, end) in closed.iter().zip(files[1..].iter().map(|next| next.first)) {
            let db = crate::backend::open_frozen(store.as_ref(), &file.name(), options.closed_cache_bytes)?;
            let txn = begin(&db, &file.name())?;
            let (header, head) = read_meta(&txn, file, origin)?;
            check_chain(previous.replace(head), file, &header)?;
            notes.extend(check_last_tile(&txn, file, end)?);
            notes.extend(closed::load(&txn, file, end, window_start, &mut indexes)?);
        }
        check_chain(previous, active, &header)?;

        let (edge, wrong_tiles) =
            verify_active(&txn, active, &header, head.size, window_start, &mut indexes)?;
        if edge.root() != head.root {
            let what = "the entries do not have the root that the head row states";
            return Err(Damage::new(&active.name(), head.batch_first, what).into());
        }
        drop(txn);
        if !wrong_tiles.is_empty() {
            notes.push(format!("{}: {} tiles rebuilt from the entries", active.name(), wrong_tiles.len()));
            rebuild_tiles(&writable, &wrong_tiles).during("commit tiles to", &active.name())?;
        }

        let segments = Segments { files: files.clone(), active: Some(writable) };
        let ledger = assemble(store, origin, options, &names, segments, indexes, edge)?;
        let opened = Opened { size: ledger.size(), root: ledger.root(), notes };
        Ok((ledger, opened))
    }
}

/// Removes files that never became what their name says, and lists the rest.
fn prepare_store(store: &dyn Store, options: &Options) -> Result<(Vec<String>, Vec<String>), OpenError> {
    if !(1..=1 << 24).contains(&options.segment_entries) {
        return Err(OpenError::SegmentEntries(options.segment_entries));
    }
    if options.request_window > WINDOW_MAX {
        return Err(OpenError::RequestWindow(options.request_window));
    }
    let names = store.list().during("list", "the log directory")?;
    let (torn, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with(NEW));
    for name in &torn {
        store.remove(name).during("remove", name)?;
    }
    // Also when nothing was removed: the process before may have died, or its disk have failed it, between giving a file
    // its name and making that durable; what is written to the file from now on counts on the name.
    store.sync_dir().during("make durable the names in", "the log directory")?;
    Ok((names, torn.iter().map(|name| format!("{name} was never completed and is removed")).collect()))
}

fn assemble(
    store: Arc<dyn Store>,
    origin: &str,
    options: Options,
    names: &[String],
    segments: Segments,
    indexes: Indexes,
    edge: Edge,
) -> Result<Ledger, OpenError> {
    let present = |name: &str| names.iter().any(|each| each == name);
    let openings = Openings::new(Arc::clone(&store), present);
    if let Some((file, table)) = openings.unknown_table()? {
        return Err(OpenError::Layout { file, table });
    }
    openings.clip(edge.size())?;
    let side = SideObjects::new(Arc::clone(&store), present(side::NAME), options.companion_cache_bytes);
    let control = Control::new(Arc::clone(&store), present(control::NAME));
    let queue = Queue::open(Arc::clone(&store), present(queue::NAME), options.reserve_bytes)?;
    let companions = Companions { openings, side, control, queue };
    let frontier = frontier_of(&edge)
        .ok_or_else(|| Damage::new("the log", edge.size(), "the right edge lost a hash in memory"))?;
    let shared = Shared::new(store, origin.to_owned(), options, companions, segments, indexes, edge);
    let mut ledger = Ledger { shared: Arc::new(shared), frontier, poisoned: false, ended: false };
    if let Some(newest) = ledger.size().checked_sub(1) {
        ledger.ended = is_final(&ledger.reader().entry(newest)?);
    }
    Ok(ledger)
}

/// Everything in the segment that takes entries, against its entries; fills the indexes on the way.
fn verify_active(
    txn: &ReadTransaction,
    file: &SegmentFile,
    header: &Header,
    size: u64,
    window_start: u64,
    indexes: &mut Indexes,
) -> Result<(Edge, Vec<FullTile>), ReadError> {
    let name = file.name();
    if let Some(index) = EntryRows::open(txn, file)?.past(size)? {
        return Err(Damage::new(&name, index, "an entry past the head row").into());
    }
    let mut map = DigestMap::new(file.first);
    let found = scan(txn, file, header, size, |index, row, leaf| {
        if let Some(request) = row.request {
            let request = Request::check_row(request, index, leaf)
                .ok_or_else(|| Damage::new(&name, index, "its request belongs to another entry"))?;
            if index >= window_start {
                indexes.requests.insert(index, &request.key);
            }
        }
        if let Some(digest) = row.digest {
            map.insert(index, digest);
        }
        Ok(())
    })?;
    indexes.digests.push(map);
    Ok((found.edge, found.wrong_tiles))
}

fn rebuild_tiles(writable: &Writable, tiles: &[FullTile]) -> Result<(), redb::Error> {
    let txn = writable.db.begin_write()?;
    write_tiles(&txn, tiles)?;
    Ok(txn.commit()?)
}
