//! The scrub: fsck of a log that is being written, at a pace that does not disturb the writer.
//!
//! - Closed segments change no more: they are checked like fsck does, from the disk, through an overlay.
//! - A file that is written to is checked page by page under a read transaction that pins what it holds, as long as it
//!   is small ([`PINNED_BYTES_MAX`]): pinned pages cannot be used again, so a long look would make the file grow. What
//!   is checked is a copy in memory, because redb must not be shown pages that change under its eyes: it repairs what
//!   it opens, and a repair that meets another page than the one it verified ends the process.
//! - The segment that takes entries, once it is larger, is read through the writer's own handle in short transactions.
//!   What redb has cached comes from memory then; the rest from the disk. It is checked as a whole when it closes, and
//!   by every start.
//!
//! Refuses: to write anything, to judge what entries mean (a proven hash is enough to find rot), and to call a file
//! damaged that merely changed under its eyes: a finding in a live file counts when nobody committed to it meanwhile.
//! Invariant: the head of a result is a published one, and everything below it was compared with it.

use crate::companion::Companion;
use crate::entry_rows::{EntryRows, Lost};
use crate::error::{Damage, During, ReadError};
use crate::fsck::{
    FOREIGN_REQUEST, FsckOptions, FsckReport, Problem, TreeOnly, Walk, check_opening_keys, check_pages,
    read_stated,
};
use crate::paced::{Pace, PacedStore, Watched};
use crate::reader::Reader;
use crate::segment::{SegmentFile, read_meta};
use crate::tables::Request;
use crate::tile_rows::{TILES, read_tile};
use crate::{mirror, opening_keys, openings, side};
use bulla_formats::hash::{Hash, leaf_hash};
use std::sync::Arc;

/// Largest live file that is checked page by page: a fraction of a second of reading, and in memory meanwhile.
const PINNED_BYTES_MAX: u64 = 32 << 20;
/// How often a live file is looked at, when it is committed to each time.
const LOOKS: usize = 3;
/// Of a redb file: what names its commits.
const HEADER_BYTES: usize = 320;
/// Entries per read transaction in the live segment, and bytes after which one ends early.
const CHUNK: u64 = 256;
const CHUNK_BYTES: usize = 1 << 20;

/// How much of one kind of store was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubStore {
    /// `segments`, or the name of a companion without its ending.
    pub name: String,
    /// Bytes read.
    pub bytes: u64,
    /// Problems found.
    pub damaged: u64,
}

/// What a pass found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// Entries in the tree that the stored entries were compared with.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// What was read.
    pub stores: Vec<ScrubStore>,
    /// What was found, the first thousand.
    pub problems: Vec<Problem>,
    /// How much was found.
    pub problems_total: u64,
}

impl Reader {
    /// One pass over everything that is stored of this log. `found` hears of problems as they are met. `None` when
    /// the pace ended the pass.
    pub fn scrub(&self, pace: Arc<dyn Pace>, found: &mut dyn FnMut(&Problem)) -> Option<Scrubbed> {
        self.scrub_with(None, pace, found)
    }

    /// The same, with what a mirror knows beside its log.
    pub(crate) fn scrub_with(
        &self,
        mirror: Option<&Companion>,
        pace: Arc<dyn Pace>,
        found: &mut dyn FnMut(&Problem),
    ) -> Option<Scrubbed> {
        let paced: Arc<PacedStore> = Arc::new(PacedStore::new(Arc::clone(&self.shared().store), pace));
        let mut pass = Pass { reader: self, paced, report: FsckReport::new(), stores: Vec::new(), found };
        let snapshot = pass.segments()?;
        pass.companions()?;
        if let Some(file) = mirror {
            pass.mirror(file)?;
        }
        if pass.paced.stopped() {
            return None;
        }
        let (size, root) = snapshot;
        let Pass { report, stores, .. } = pass;
        Some(Scrubbed {
            size,
            root,
            stores,
            problems: report.problems,
            problems_total: report.problems_total,
        })
    }
}

struct Pass<'a> {
    reader: &'a Reader,
    paced: Arc<PacedStore>,
    report: FsckReport,
    stores: Vec<ScrubStore>,
    found: &'a mut dyn FnMut(&Problem),
}

impl Pass<'_> {
    /// Runs a part of the pass, tells what it found, and books it as `name`.
    fn part(&mut self, name: &str, work: impl FnOnce(&mut Self)) -> Option<()> {
        let (bytes, problems) = (self.paced.bytes_read(), self.report.problems_total);
        let listed = self.report.problems.len();
        work(self);
        if self.paced.stopped() {
            return None;
        }
        for problem in &self.report.problems[listed..] {
            (self.found)(problem);
        }
        let bytes = self.paced.bytes_read() - bytes;
        let damaged = self.report.problems_total - problems;
        match self.stores.iter_mut().find(|store| store.name == name) {
            Some(store) => (store.bytes, store.damaged) = (store.bytes + bytes, store.damaged + damaged),
            None => self.stores.push(ScrubStore { name: name.to_owned(), bytes, damaged }),
        }
        Some(())
    }

    /// Returns size and root of the tree that the entries were compared with.
    fn segments(&mut self) -> Option<(u64, Hash)> {
        let shared = Arc::clone(self.reader.shared());
        let files = shared.segments().files.clone();
        let Some((active, closed)) = files.split_last() else { return Some(self.head()) };
        let store = Watched::at_a_pace(&self.paced);
        let active_header = shared
            .in_segment(active.first, |txn, file| Ok(read_meta(txn, file, &shared.origin)?.0))
            .map(|header| header.edge);
        let mut judge = TreeOnly;
        let mut progress = |_, _| {};
        let options = FsckOptions { request_window: shared.options.request_window, ..FsckOptions::default() };
        let total = self.reader.size();
        self.report.entries = total;
        let mut walk = Walk::new(&store, &shared.origin, options, &mut judge, &mut progress, total);
        for (at, file) in closed.iter().enumerate() {
            let next = &files[at + 1];
            let edge = match closed.get(at + 1) {
                Some(next) => read_stated(&store, next, &shared.origin).map(|stated| stated.edge),
                None => active_header.as_ref().ok().cloned(),
            };
            self.part("segments", |pass| {
                // Only repair fails, and nothing is repaired here.
                drop(walk.check(file, Some((next.first, edge.as_ref())), &mut pass.report));
            })?;
        }
        drop(walk);
        let mut head = self.head();
        self.part("segments", |pass| {
            pass.live_segment(active, &mut head);
        })?;
        Some(head)
    }

    fn head(&self) -> (u64, Hash) {
        let snapshot = self.reader.snapshot();
        (snapshot.size(), snapshot.root())
    }

    fn live_segment(&mut self, file: &SegmentFile, head: &mut (u64, Hash)) {
        let name = file.name();
        let shared = Arc::clone(self.reader.shared());
        let paced = Arc::clone(&self.paced);
        let seen = self.quiet_look(&name, |report| {
            let looked = shared.in_segment(file.first, |_pinned, _| {
                // Taken under the pin: what is published by now is in the file.
                let published = shared.head();
                let (size, root) = (published.edge.size(), published.root);
                let store = Watched::still(&paced, &name, PINNED_BYTES_MAX).during("read", &name)?;
                let (mut judge, mut progress) = (TreeOnly, |_, _| {});
                let options =
                    FsckOptions { request_window: shared.options.request_window, ..FsckOptions::default() };
                report.entries = size;
                let mut walk = Walk::new(&store, &shared.origin, options, &mut judge, &mut progress, size);
                walk.begin_anywhere();
                drop(walk.check(file, None, report));
                if walk.finish().is_some_and(|edge| edge.size() < size) {
                    report.add(&name, size - 1, "the disk holds an older state than the one proven", false);
                }
                Ok((size, root))
            });
            match looked {
                Ok(published) => *head = published,
                Err(error) => report.add(&name, file.first, error.to_string(), false),
            }
        });
        if seen {
            return;
        }
        match self.live_entries(file) {
            Ok(Some(proven)) => *head = proven,
            // The segment closed meanwhile: the next pass reads it as a closed one.
            Ok(None) => {}
            Err(error) => {
                let index = if let ReadError::Damaged(damage) = &error { damage.index } else { file.first };
                self.report.add(&name, index, error.to_string(), false);
            }
        }
    }

    /// The live segment through the writer's handle. Returns the head that its entries lead to.
    fn live_entries(&mut self, file: &SegmentFile) -> Result<Option<(u64, Hash)>, ReadError> {
        let shared = Arc::clone(self.reader.shared());
        let name = file.name();
        let (mut edge, mut full) = (
            shared.in_segment(file.first, |txn, file| Ok(read_meta(txn, file, &shared.origin)?.0))?.edge,
            Vec::new(),
        );
        let snapshot = self.reader.snapshot();
        while edge.size() < snapshot.size() {
            if shared.segments().files.last() != Some(file) || self.paced.stopped() {
                return Ok(None);
            }
            let (first, mut bytes, mut wrong) = (edge.size(), 0, Vec::new());
            shared.in_segment(first, |txn, file| {
                for row in EntryRows::open(txn, file)?.range(first..snapshot.size().min(first + CHUNK))? {
                    let row = row?;
                    let (index, row) = (row.index, row.parts()?);
                    if index != edge.size() {
                        return Err(Damage::new(&name, edge.size(), Lost::Missing.what()).into());
                    }
                    let leaf = leaf_hash(row.entry);
                    if row.request.is_some_and(|request| Request::check_row(request, index, &leaf).is_none())
                    {
                        wrong.push((index, FOREIGN_REQUEST.to_owned(), false));
                    }
                    edge.append(leaf, &mut full);
                    bytes += row.entry.len();
                    if bytes >= CHUNK_BYTES {
                        break;
                    }
                }
                let tiles = txn.open_table(TILES).during("read", &name)?;
                for tile in full.drain(..) {
                    let row = read_tile(&tiles, tile.level, tile.index).during("read", &name)?;
                    if row.is_none_or(|row| row != tile.nodes.to_bytes(tile.nodes.width())) {
                        let what =
                            format!("tile {} of level {} differs from the entries", tile.index, tile.level);
                        wrong.push((edge.size() - 1, what, tile.level == 0));
                    }
                }
                Ok(())
            })?;
            if edge.size() == first {
                return Err(Damage::new(&name, first, Lost::Missing.what()).into());
            }
            for (index, what, derived) in wrong {
                self.report.add(&name, index, what, derived);
            }
            self.paced.account(bytes + (edge.size() - first) as usize * 100).ok();
        }
        if (edge.size(), edge.root()) != (snapshot.size(), snapshot.root()) {
            let first = file.first;
            let what = "the entries do not lead to the proven root";
            self.report.add_range(&name, first, snapshot.size() - 1, what, false);
        }
        Ok(Some((snapshot.size(), snapshot.root())))
    }

    fn companions(&mut self) -> Option<()> {
        let shared = Arc::clone(self.reader.shared());
        self.part("control", |pass| {
            let pinned = shared.control.pinned(|name| pass.pages(name));
            pass.fault(crate::control::NAME, pinned);
        })?;
        self.part("openings", |pass| {
            let pinned = shared.openings.pinned(|name| pass.pages(name));
            pass.fault(openings::NAME, pinned);
            let read = pass.openings();
            pass.fault(openings::NAME, read);
        })?;
        self.part("opening-keys", |pass| {
            let pinned = shared.openings.keys().pinned(|name| pass.pages(name));
            pass.fault(opening_keys::NAME, pinned);
            let checked = check_opening_keys(&shared.openings, &mut pass.report);
            pass.fault(opening_keys::NAME, checked);
        })?;
        self.part("side", |pass| {
            let pinned = shared.side.pinned(|name| pass.pages(name));
            pass.fault(side::NAME, pinned);
            let damaged = shared.side.damaged().map(|damaged| {
                damaged.iter().for_each(|name| {
                    pass.report.add_file(side::NAME, format!("the object {name} has another hash"), false);
                });
            });
            pass.fault(side::NAME, damaged.map_err(ReadError::from));
        })
    }

    fn mirror(&mut self, file: &Companion) -> Option<()> {
        let origin = self.reader.origin();
        self.part("mirror", |pass| {
            let pinned = file.pinned(|| pass.pages(mirror::NAME));
            pass.fault(mirror::NAME, pinned.map_err(ReadError::from));
            let lost = mirror::lost_rows(file, origin).map(|lost| {
                lost.into_iter().for_each(|what| pass.report.add_file(mirror::NAME, what, false));
            });
            pass.fault(mirror::NAME, lost);
        })
    }

    fn fault(&mut self, name: &str, done: Result<(), ReadError>) {
        if let Err(error) = done {
            self.report.add_file(name, error.to_string(), false);
        }
    }

    /// Page checksums of a live companion that is pinned.
    fn pages(&mut self, name: &str) {
        let paced = Arc::clone(&self.paced);
        self.quiet_look(name, |report| {
            let still = Watched::still(&paced, name, PINNED_BYTES_MAX).map_err(|error| error.to_string());
            if let Err(what) = still.and_then(|store| check_pages(&store, name)) {
                report.add_file(name, what, false);
            }
        });
    }

    /// Looks at a small live file until a look is sound, or finds something while nobody committed to the file; then
    /// the commit that its header names was whole on the disk all the time, or it is damaged. (redb uses pages of its
    /// own tables again as soon as the commit after next, pinned or not.) Returns whether there was such a look.
    fn quiet_look(&mut self, name: &str, mut look: impl FnMut(&mut FsckReport)) -> bool {
        let commits = |pass: &Self| {
            let file = pass.paced.open(name).ok()?;
            let mut header = [0; HEADER_BYTES];
            file.read(0, &mut header).ok()?;
            (file.len().ok()? <= PINNED_BYTES_MAX).then_some(header)
        };
        for _ in 0..LOOKS {
            let before = commits(self);
            if before.is_none() {
                return false;
            }
            let mut report = FsckReport::new();
            look(&mut report);
            if report.is_clean() {
                return true;
            }
            if commits(self) == before {
                self.report.problems_total += report.problems_total - report.problems.len() as u64;
                report.problems.into_iter().for_each(|problem| self.report.push(problem));
                return true;
            }
        }
        false
    }

    /// Every opening decrypts as that of its entry.
    fn openings(&mut self) -> Result<(), ReadError> {
        let shared = Arc::clone(self.reader.shared());
        let (mut start, size) = (0, self.reader.size());
        loop {
            let indexes = shared.openings.indexes(start, CHUNK as usize)?;
            let mut bytes = 0;
            for index in indexes.iter().copied().filter(|index| *index < size) {
                match shared.openings.read(index) {
                    // None: erased since they were listed.
                    Ok(opening) => bytes += opening.map_or(0, |opening| opening.len()),
                    // Said once, of all entries under that node.
                    Err(ReadError::Damaged(damage)) if damage.file == opening_keys::NAME => {}
                    Err(error) => self.report.add(openings::NAME, index, error.to_string(), false),
                }
            }
            if self.paced.account(bytes + indexes.len() * 64).is_err() {
                return Ok(());
            }
            match indexes.last() {
                Some(last) if indexes.len() == CHUNK as usize => start = last + 1,
                _ => return Ok(()),
            }
        }
    }
}
