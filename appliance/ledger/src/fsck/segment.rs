//! One segment under examination.
//!
//! Invariant: after damage the walk goes on with the right edge that the next segment's header records, so that one
//! bad page does not hide what else is wrong.

use super::leaves::{self, Leaf, Resolved};
use super::{EntryJudge, FsckError, FsckOptions, FsckReport, Judged, Stated};
use crate::append::write_sorted_digests;
use crate::backend::{Writable, open_frozen};
use crate::contain::contain;
use crate::edge::{Edge, FullTile};
use crate::entry_rows::{EntryRows, EntryWriter};
use crate::error::{During, ReadError};
use crate::index::RequestWindow;
use crate::segment::{SegmentFile, begin, frontier_of, read_meta, table_or_none};
use crate::store::Store;
use crate::tables::{
    DIGESTS, DigestKey, DigestRow, Header, REQUEST_BYTES, Request, digest_key, split_sorted_digest,
};
use crate::tile_rows::{TILES, read_tile, tile_of, write_tiles};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::tile::{TILE_HEIGHT, parse_hashes};
use redb::{Database, ReadTransaction, ReadableTable};
use std::collections::BTreeMap;

/// Page cache while checking, bytes: one pass needs no more.
const CACHE_BYTES: usize = 16 << 20;
/// Most entries of a segment: [`crate::Options::segment_entries`] and one batch.
const SEGMENT_ENTRIES_MAX: u64 = (1 << 24) + (1 << 12);
/// Entries between two calls of the progress function.
const PROGRESS_EVERY: u64 = 4096;
/// The request beside an entry does not pass its binding.
pub(crate) const FOREIGN_REQUEST: &str = "its request belongs to another entry, or the entry was changed";

/// rs_merkle with the hashing of RFC 6962.
#[derive(Clone)]
struct Rfc6962;

impl rs_merkle::Hasher for Rfc6962 {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        sha256(&[data]).0
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        right.map_or(*left, |right| sha256(&[&[0x01], left, right]).0)
    }
}

/// Whether every page of a file has its checksum. redb's own repair of what a crash left is not a finding.
pub(crate) fn check_pages(store: &dyn Store, name: &str) -> Result<(), String> {
    let check = || {
        let mut db = open_frozen(store, name, CACHE_BYTES)?;
        Ok(db.check_integrity().during("check the pages of", name)?)
    };
    match contain(name, 0, check) {
        Ok(true) => Ok(()),
        Ok(false) => Err("pages fail their checksums".to_owned()),
        Err(ReadError::Damaged(damage)) => Err(damage.what),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads header and head; `None` when they cannot be read, which the check of that segment reports.
pub(crate) fn read_stated(store: &dyn Store, file: &SegmentFile, origin: &str) -> Option<Stated> {
    let name = file.name();
    let db = open_frozen(store, &name, CACHE_BYTES).ok()?;
    let read = || read_meta(&begin(&db, &name)?, file, origin);
    let (header, head) = contain(&name, file.first, read).ok()?;
    Some(Stated { edge: header.edge, size: head.size, root: head.root })
}

/// First index of the next segment and the right edge that its header records, if it could be read.
pub(crate) type Next<'n> = Option<(u64, Option<&'n Edge>)>;

/// The pass over all segments.
pub(crate) struct Walk<'a> {
    store: &'a dyn Store,
    origin: &'a str,
    options: FsckOptions,
    judge: &'a mut dyn EntryJudge,
    progress: &'a mut dyn FnMut(u64, u64),
    total: u64,
    /// The tree so far; `None` after damage, when only the next header tells.
    carried: Option<Edge>,
    requests: RequestWindow,
    /// False once the judge lacks something that was lost.
    judging: bool,
    /// Whether the judge has been shown a hash in place of an entry.
    skipped: bool,
}

/// The tree of one segment.
struct Tree {
    resolved: Resolved,
    edge: Edge,
    /// Tiles that the leaves imply, by (level, index).
    tiles: BTreeMap<(u8, u64), FullTile>,
}

impl Tree {
    fn build(header: &Header, resolved: Resolved) -> Self {
        let (mut edge, mut full) = (header.edge.clone(), Vec::new());
        resolved.hashes.iter().for_each(|leaf| edge.append(*leaf, &mut full));
        let tiles = full.into_iter().map(|tile| ((tile.level, tile.index), tile)).collect();
        Self { resolved, edge, tiles }
    }
}

/// What the pass over one segment's entries leaves behind.
struct Found {
    tree: Tree,
    digests: Vec<DigestRow>,
    /// Digests beside entries that differ from the judge's word: what they should be.
    wrong_digests: BTreeMap<u64, Option<DigestKey>>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        store: &'a dyn Store,
        origin: &'a str,
        options: FsckOptions,
        judge: &'a mut dyn EntryJudge,
        progress: &'a mut dyn FnMut(u64, u64),
        total: u64,
    ) -> Self {
        let requests = RequestWindow::new(options.request_window);
        let carried = Some(Edge::default());
        Self {
            store,
            origin,
            options,
            judge,
            progress,
            total,
            carried,
            requests,
            judging: true,
            skipped: false,
        }
    }

    /// Begins with any segment: what its header says of the tree before it is believed.
    pub(crate) fn begin_anywhere(&mut self) {
        self.carried = None;
    }

    /// The tree after the last segment, unless that was damaged.
    pub(crate) fn finish(self) -> Option<Edge> {
        (self.progress)(self.total, self.total);
        self.carried
    }

    /// Checks one segment.
    pub(crate) fn check(
        &mut self,
        file: &SegmentFile,
        next: Next<'_>,
        report: &mut FsckReport,
    ) -> Result<(), FsckError> {
        let name = file.name();
        let carried = self.carried.take();
        // Page checksums first, on a handle of its own: where a newest commit is damaged redb goes back to the one
        // before it, and the passes below must not see that one.
        let whole = check_pages(self.store, &name);
        let before = report.problems_total;
        if let Err(what) = &whole {
            report.add(&name, file.first, what.clone(), false);
        }
        let db = match open_frozen(self.store, &name, CACHE_BYTES) {
            Ok(db) => db,
            Err(error) => {
                if whole.is_ok() {
                    report.add(&name, file.first, error.to_string(), false);
                }
                self.judging = false;
                return Ok(());
            }
        };
        let checked = contain(&name, file.first, || self.check_tables(&db, file, next, carried, report));
        let rebuild = match checked {
            Ok(rebuild) => rebuild,
            Err(error) => {
                let index = if let ReadError::Damaged(damage) = &error { damage.index } else { file.first };
                report.add(&name, index, error.to_string(), false);
                return Ok(());
            }
        };
        drop(db);
        // A file with damaged pages is evidence: nothing is written to it.
        let worth = whole.is_ok() && self.options.repair && report.problems_total > before;
        if let Some(rebuild) = rebuild.filter(|_| worth) {
            self.repair(&name, &rebuild, report).map_err(FsckError::Storage)?;
        }
        Ok(())
    }

    /// Returns what repair would write, if the segment's entries lead to the recorded root.
    fn check_tables(
        &mut self,
        db: &Database,
        file: &SegmentFile,
        next: Next<'_>,
        carried: Option<Edge>,
        report: &mut FsckReport,
    ) -> Result<Option<Rebuild>, ReadError> {
        let name = file.name();
        let txn = begin(db, &name)?;
        // Without its header a segment proves nothing, but the next one's still tells where this one ends.
        let (header, head) = match contain(&name, file.first, || read_meta(&txn, file, self.origin)) {
            Ok(meta) => meta,
            Err(error) => {
                self.judging = false;
                return Err(error);
            }
        };
        if carried.is_some_and(|carried| carried != header.edge) {
            report.add(
                &name,
                file.first,
                "its header does not continue the tree of the segment before it",
                false,
            );
        }
        let end = next.map_or(head.size, |(first, _)| first);
        if head.size < end {
            report.add(&name, head.size, "entries between it and the next segment are missing", false);
            self.judging = false;
            return Ok(None);
        }
        if end < file.first || end - file.first > SEGMENT_ENTRIES_MAX {
            self.judging = false;
            return Err(
                crate::Damage::new(&name, file.first, "its head row states an impossible size").into()
            );
        }
        // Where the segment is clipped by a recovery its head row is about a tree that does not exist; the next
        // header records the proven root.
        let clipped = head.size > end;
        let next_edge = next.and_then(|(_, edge)| edge);
        let recorded = if clipped { next_edge.map(Edge::root) } else { Some(head.root) };

        let read = leaves::read(&txn, file, end);
        let build = |resolved: Resolved| Tree::build(&header, resolved);
        let own = Resolved::of_entries(&read).map(build);
        let tree = match own.filter(|tree| recorded == Some(tree.edge.root())) {
            Some(tree) => Some(tree),
            // Something was changed. If the tiles' word for it leads to the recorded root, it is exactly known what.
            None => Resolved::of_tiles(&txn, &name, file.first, &read, next_edge)
                .map(build)
                .filter(|tree| recorded == Some(tree.edge.root())),
        };
        let Some(tree) = tree else {
            self.report_unproven(&txn, &name, file, &read, end, next_edge, report);
            self.judge_until_refused(&txn, file, &header, &read, report);
            return Ok(None);
        };
        for range in &tree.resolved.damaged {
            report.add_range(&name, range.first, range.last, range.what, false);
        }
        let found = self.walk_entries(&txn, file, &header, tree, report)?;
        if !clipped {
            // Entries that the head row does not know.
            if let Some(index) = EntryRows::open(&txn, file)?.past(end)? {
                report.add(&name, index, "an entry past the head row", false);
            }
        }
        let wrong = compare_tiles(&txn, &name, &found, clipped, report)?;
        let whole = found.tree.resolved.damaged.is_empty();
        let sorted = if whole { compare_sorted(&txn, &name, &found, end, report)? } else { None };
        for index in found.wrong_digests.keys() {
            report.add(&name, *index, "the digest beside it is not the entry's", true);
        }
        let surplus = wrong.surplus.iter().map(|key| tile_of(*key));
        for (level, index) in wrong.tiles.iter().map(|tile| (tile.level, tile.index)).chain(surplus) {
            let shift = u32::from(level).saturating_add(1).saturating_mul(u32::from(TILE_HEIGHT));
            let first = index.checked_shl(shift).unwrap_or(u64::MAX);
            let what = format!("tile {index} of level {level} is not what the entries imply");
            report.add(&name, first.min(end), what, true);
        }
        self.carried = Some(found.tree.edge);
        Ok(whole.then_some(Rebuild { first: file.first, wrong, wrong_digests: found.wrong_digests, sorted }))
    }

    /// Names what is known to be damaged where the whole cannot be proven: what cannot be read, what differs from its
    /// tile; else the stretch after the last full tile, which nothing but the root vouches for.
    #[allow(clippy::too_many_arguments, reason = "one step of check_tables, with what that has at hand")]
    fn report_unproven(
        &self,
        txn: &ReadTransaction,
        name: &str,
        file: &SegmentFile,
        read: &[Leaf],
        end: u64,
        next_edge: Option<&Edge>,
        report: &mut FsckReport,
    ) {
        let mut ranges = leaves::unread(file.first, read);
        if ranges.is_empty()
            && let Some(resolved) = Resolved::of_tiles(txn, name, file.first, read, next_edge)
        {
            ranges = resolved.damaged;
        }
        for range in &ranges {
            report.add_range(name, range.first, range.last, range.what, false);
        }
        if ranges.is_empty() {
            let first = (end & !0xff).max(file.first);
            let what = "the entries from here on do not lead to the recorded root";
            report.add_range(name, first, end.saturating_sub(1).max(first), what, false);
        }
    }

    /// In a segment that is not proven a signature may still tell which entry was changed: the first that the judge
    /// refuses is named, and what stands after it cannot be judged.
    fn judge_until_refused(
        &mut self,
        txn: &ReadTransaction,
        file: &SegmentFile,
        header: &Header,
        read: &[Leaf],
        report: &mut FsckReport,
    ) {
        let name = &file.name();
        let mut before = frontier_of(&header.edge).unwrap_or_default();
        for (index, leaf) in (header.first()..).zip(read) {
            let (Leaf::Read(hash), true) = (leaf, self.judging) else { break };
            let judged = contain(name, index, || {
                let rows = EntryRows::open(txn, file)?;
                let stored = rows.expect(index)?;
                let row = stored.parts()?;
                let foreign = row.request.is_some_and(|it| Request::check_row(it, index, hash).is_none());
                Ok((self.judge.judge(index, row.entry, &before), foreign))
            });
            match judged {
                Ok((Err(what), _)) => {
                    report.add(name, index, what, false);
                    self.judging = false;
                }
                Ok((Ok(_), true)) => report.add(name, index, FOREIGN_REQUEST, false),
                Ok((Ok(_), false)) => {}
                Err(_) => self.judging = false,
            }
            before.append(*hash);
        }
        if self.judging {
            self.judging = false;
        }
        report.unjudged_from.get_or_insert(before.size());
    }

    /// What the entries mean, and what stands beside them. The tree is known by now.
    fn walk_entries(
        &mut self,
        txn: &ReadTransaction,
        file: &SegmentFile,
        header: &Header,
        tree: Tree,
        report: &mut FsckReport,
    ) -> Result<Found, ReadError> {
        let name = &file.name();
        let mut found = Found { tree, digests: Vec::new(), wrong_digests: BTreeMap::new() };
        let entries = EntryRows::open(txn, file)?;
        let mut before = frontier_of(&header.edge).unwrap_or_default();
        let (first, hashes) = (header.first(), std::mem::take(&mut found.tree.resolved.hashes));
        for (index, leaf) in (first..).zip(&hashes) {
            if index.is_multiple_of(PROGRESS_EVERY) {
                (self.progress)(index, self.total);
            }
            if found.tree.resolved.is_damaged(index) {
                // Its hash is proven, its words are lost.
                self.judge.skip(index, leaf);
                self.skipped = true;
                before.append(*leaf);
                continue;
            }
            let row = entries.expect(index)?;
            let row = row.parts()?;
            let stored = row.digest.copied();
            let judged =
                if self.judging { self.judge.judge(index, row.entry, &before) } else { Ok(Judged::Opaque) };
            let digest = match judged {
                Ok(Judged::Opaque) => stored,
                Ok(Judged::Digest(digest)) => {
                    let digest = digest.and_then(|(algorithm, digest)| digest_key(algorithm, &digest));
                    if digest != stored {
                        found.wrong_digests.insert(index, digest);
                    }
                    digest
                }
                // What was lost may be what this entry rests on (its key epoch): that is not this entry's fault.
                Err(_) if self.skipped => {
                    self.judging = false;
                    report.unjudged_from.get_or_insert(index);
                    stored
                }
                Err(what) => {
                    report.add(name, index, what, false);
                    stored
                }
            };
            found.digests.extend(digest.map(|digest| (digest, index)));
            if let Some(request) = row.request {
                self.check_request(name, index, leaf, request, report);
            }
            before.append(*leaf);
        }
        Ok(found)
    }

    fn check_request(
        &mut self,
        name: &str,
        index: u64,
        leaf: &Hash,
        stored: &[u8; REQUEST_BYTES],
        report: &mut FsckReport,
    ) {
        let Some(request) = Request::check_row(stored, index, leaf) else {
            report.add(name, index, FOREIGN_REQUEST, false);
            return;
        };
        if let Some(earlier) = self.requests.find(&request.key, index).first() {
            report.add(name, index, format!("it has the idempotency key of entry {earlier}"), false);
        }
        self.requests.insert(index, &request.key);
    }

    fn repair(
        &self,
        name: &str,
        rebuild: &Rebuild,
        report: &mut FsckReport,
    ) -> Result<(), crate::StorageFault> {
        if rebuild.is_empty() {
            return Ok(());
        }
        let writable = Writable::open(self.store, name, CACHE_BYTES)?;
        rebuild.write(&writable.db).during("commit rebuilt tables to", name)?;
        if let Some(sorted) = &rebuild.sorted {
            write_sorted_digests(&writable.db, sorted).during("commit the digest table to", name)?;
        }
        report.rebuilt.tiles += (rebuild.wrong.tiles.len() + rebuild.wrong.surplus.len()) as u64;
        report.rebuilt.digests += rebuild.wrong_digests.len() as u64;
        report.rebuilt.digests += rebuild.sorted.as_ref().map_or(0, |sorted| sorted.len() as u64);
        Ok(())
    }
}

/// What is wrong in one segment and follows from its entries.
struct Rebuild {
    first: u64,
    wrong: WrongTiles,
    wrong_digests: BTreeMap<u64, Option<DigestKey>>,
    sorted: Option<Vec<DigestRow>>,
}

#[derive(Default)]
struct WrongTiles {
    tiles: Vec<FullTile>,
    /// Keys of rows of tiles that do not exist.
    surplus: Vec<(u8, u64)>,
}

impl Rebuild {
    fn is_empty(&self) -> bool {
        self.wrong.tiles.is_empty()
            && self.wrong.surplus.is_empty()
            && self.wrong_digests.is_empty()
            && self.sorted.is_none()
    }

    fn write(&self, db: &Database) -> Result<(), redb::Error> {
        let txn = db.begin_write()?;
        write_tiles(&txn, &self.wrong.tiles)?;
        {
            let mut tiles = txn.open_table(TILES)?;
            for key in &self.wrong.surplus {
                tiles.remove(key)?;
            }
            let mut entries = EntryWriter::open(&txn, self.first)?;
            for (index, digest) in &self.wrong_digests {
                entries.set_digest(*index, digest.as_ref())?;
            }
        }
        if self.sorted.is_some() {
            txn.delete_table(DIGESTS)?;
        }
        Ok(txn.commit()?)
    }
}

/// Stored tiles against the entries', whose inner hashes rs_merkle computes again.
fn compare_tiles(
    txn: &ReadTransaction,
    name: &str,
    found: &Found,
    clipped: bool,
    report: &mut FsckReport,
) -> Result<WrongTiles, ReadError> {
    let stored = table_or_none(txn.open_table(TILES)).during("read", name)?;
    let mut wrong = WrongTiles::default();
    for tile in found.tree.tiles.values() {
        let right = tile.nodes.to_bytes(tile.nodes.width());
        let hashes = parse_hashes(&right, tile.nodes.width()).unwrap_or_default();
        let leaves: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
        let second = rs_merkle::MerkleTree::<Rfc6962>::from_leaves(&leaves).root();
        if second != tile.nodes.node(TILE_HEIGHT, 0).map(|root| root.0) {
            report.add(name, tile.index, "two implementations compute different roots for a tile", false);
        }
        let row = match &stored {
            Some(stored) => read_tile(stored, tile.level, tile.index).during("read", name)?,
            None => None,
        };
        if row.is_some_and(|row| row == right) {
            continue;
        }
        wrong.tiles.push(tile.clone());
    }
    if let Some(stored) = stored.filter(|_| !clipped) {
        for row in stored.iter().during("read", name)? {
            let key = row.during("read", name)?.0.value();
            if !found.tree.tiles.contains_key(&tile_of(key)) {
                wrong.surplus.push(key);
            }
        }
    }
    Ok(wrong)
}

/// The sorted digest table, if the segment has one, against the digests of the entries. Returns what it should be
/// if it is not.
fn compare_sorted(
    txn: &ReadTransaction,
    name: &str,
    found: &Found,
    end: u64,
    report: &mut FsckReport,
) -> Result<Option<Vec<DigestRow>>, ReadError> {
    let Some(table) = table_or_none(txn.open_table(DIGESTS)).during("read", name)? else { return Ok(None) };
    let mut sorted = found.digests.clone();
    sorted.sort_unstable();
    let mut expected = sorted.iter();
    for row in table.iter().during("read", name)? {
        let row = split_sorted_digest(row.during("read", name)?.0.value());
        if expected.next() != Some(&row) {
            report.add(name, row.1.min(end), "the sorted digest table is not what the entries imply", true);
            return Ok(Some(sorted));
        }
    }
    if let Some((_, index)) = expected.next() {
        report.add(name, *index, "the sorted digest table lacks a row", true);
        return Ok(Some(sorted));
    }
    Ok(None)
}
