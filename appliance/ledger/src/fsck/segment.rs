//! One segment under examination.
//!
//! Invariant: after damage the walk goes on with the right edge that the next segment's header records, so that one
//! bad page does not hide what else is wrong.

use super::{EntryJudge, FsckError, FsckOptions, FsckReport, Judged, Stated};
use crate::append::write_sorted_digests;
use crate::backend::{Writable, open_frozen};
use crate::edge::{Edge, FullTile};
use crate::error::{During, ReadError};
use crate::index::RequestWindow;
use crate::segment::{SegmentFile, begin, frontier_of, read_meta, table_or_none, write_tiles};
use crate::store::Store;
use crate::tables::{
    DIGEST_ROWS, DIGESTS, DigestKey, DigestRow, ENTRIES, Header, REQUESTS, Request, TILES, digest_key,
    split_sorted_digest,
};
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::tile::{TILE_HEIGHT, TILE_WIDTH, parse_hashes};
use redb::{Database, ReadTransaction, ReadableTable};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Page cache while checking, bytes: one pass needs no more.
const CACHE_BYTES: usize = 16 << 20;
/// Entries between two calls of the progress function.
const PROGRESS_EVERY: u64 = 4096;

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

/// Reads header and head; `None` when they cannot be read, which the check of that segment reports.
pub(super) fn read_stated(store: &dyn Store, file: &SegmentFile, origin: &str) -> Option<Stated> {
    let db = open_frozen(store, &file.name(), CACHE_BYTES).ok()?;
    let txn = begin(&db, &file.name()).ok()?;
    let (header, head) = read_meta(&txn, file, origin).ok()?;
    Some(Stated { edge: header.edge, size: head.size })
}

/// First index of the next segment and the right edge that its header records, if it could be read.
type Next<'n> = Option<(u64, Option<&'n Edge>)>;

/// The pass over all segments.
pub(super) struct Walk<'a> {
    store: &'a dyn Store,
    origin: &'a str,
    options: FsckOptions,
    judge: &'a mut dyn EntryJudge,
    progress: &'a mut dyn FnMut(u64, u64),
    total: u64,
    /// The tree so far; `None` after damage, when only the next header tells.
    carried: Option<Edge>,
    requests: RequestWindow,
}

/// What the pass over one segment's entries leaves behind.
struct Found {
    edge: Edge,
    digests: Vec<DigestRow>,
    /// Tiles that the entries imply, by (level, index).
    tiles: BTreeMap<(u8, u64), FullTile>,
    /// Digest rows that differ from the judge's word: what they should be.
    digest_rows: BTreeMap<u64, Option<DigestKey>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        origin: &'a str,
        options: FsckOptions,
        judge: &'a mut dyn EntryJudge,
        progress: &'a mut dyn FnMut(u64, u64),
        total: u64,
    ) -> Self {
        let requests = RequestWindow::new(options.request_window);
        Self { store, origin, options, judge, progress, total, carried: Some(Edge::default()), requests }
    }

    /// The tree after the last segment, unless that was damaged.
    pub(super) fn finish(self) -> Option<Edge> {
        (self.progress)(self.total, self.total);
        self.carried
    }

    /// Checks one segment.
    pub(super) fn check(
        &mut self,
        file: &SegmentFile,
        next: Next<'_>,
        report: &mut FsckReport,
    ) -> Result<(), FsckError> {
        let name = file.name();
        let carried = self.carried.take();
        let mut db = match open_frozen(self.store, &name, CACHE_BYTES) {
            Ok(db) => db,
            Err(error) => {
                report.add(&name, file.first, error.to_string(), false);
                return Ok(());
            }
        };
        // Page checksums first: the passes below would trip over a torn page. redb may panic on one.
        match catch_unwind(AssertUnwindSafe(|| db.check_integrity())) {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => report.add(&name, file.first, "pages fail their checksums", false),
            Ok(Err(error)) => report.add(&name, file.first, error.to_string(), false),
            Err(_) => {
                report.add(&name, file.first, "redb gave up on a damaged page", false);
                return Ok(());
            }
        }
        let before = report.problems_total;
        let checked = catch_unwind(AssertUnwindSafe(|| self.check_tables(&db, file, next, carried, report)));
        let rebuild = match checked {
            Ok(Ok(rebuild)) => rebuild,
            Ok(Err(error)) => {
                let index = if let ReadError::Damaged(damage) = &error { damage.index } else { file.first };
                report.add(&name, index, error.to_string(), false);
                return Ok(());
            }
            Err(_) => {
                report.add(&name, file.first, "redb gave up on a damaged page", false);
                return Ok(());
            }
        };
        drop(db);
        if let Some(rebuild) = rebuild.filter(|_| self.options.repair && report.problems_total > before) {
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
        let (header, head) = read_meta(&txn, file, self.origin)?;
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
            return Ok(None);
        }
        // Where the segment is clipped by a recovery its head row is about a tree that does not exist; the next
        // header records the proven root.
        let clipped = head.size > end;
        let next_edge = next.and_then(|(_, edge)| edge);
        let recorded = if clipped { next_edge.map(Edge::root) } else { Some(head.root) };
        let found = self.walk_entries(&txn, &name, &header, end, report)?;
        if !clipped {
            self.check_past_end(&txn, &name, end, report)?;
        }
        let wrong = compare_tiles(&txn, &name, &found, clipped, report)?;
        if recorded != Some(found.edge.root()) {
            // Names the entry as closely as the records allow: by its full tile, by the partial tile that the next
            // header keeps; else it is after the last full tile.
            let in_edge = || next_edge.and_then(|edge| found.edge.first_differing_leaf(edge));
            match wrong.first_leaf.or_else(in_edge) {
                Some(index) => {
                    report.add(&name, index, "the entry does not have the hash that its tile records", false)
                }
                None => {
                    let index = (end & !0xff).max(file.first);
                    report.add(
                        &name,
                        index,
                        "the entries from here on do not lead to the recorded root",
                        false,
                    );
                }
            }
            return Ok(None);
        }
        let sorted = compare_sorted(&txn, &name, &found, end, report)?;
        for index in found.digest_rows.keys() {
            report.add(&name, *index, "its digest row is not the entry's digest", true);
        }
        for (level, index) in
            wrong.tiles.iter().map(|tile| (tile.level, tile.index)).chain(wrong.surplus.clone())
        {
            let first = index << (u32::from(level + 1) * u32::from(TILE_HEIGHT));
            report.add(
                &name,
                first,
                format!("tile {index} of level {level} is not what the entries imply"),
                true,
            );
        }
        self.carried = Some(found.edge);
        Ok(Some(Rebuild { wrong, digest_rows: found.digest_rows, sorted }))
    }

    fn walk_entries(
        &mut self,
        txn: &ReadTransaction,
        name: &str,
        header: &Header,
        end: u64,
        report: &mut FsckReport,
    ) -> Result<Found, ReadError> {
        let entries = txn.open_table(ENTRIES).during("read", name)?;
        let requests = txn.open_table(REQUESTS).during("read", name)?;
        let digests = txn.open_table(DIGEST_ROWS).during("read", name)?;
        let mut edge = header.edge.clone();
        let mut before = frontier_of(&edge).unwrap_or_default();
        let mut found = Found {
            edge: Edge::default(),
            digests: Vec::new(),
            tiles: BTreeMap::new(),
            digest_rows: BTreeMap::new(),
        };
        let mut full = Vec::new();
        for row in entries.range(header.first()..end).during("read", name)? {
            let (at, entry) = row.during("read", name)?;
            let (index, entry) = (edge.size(), entry.value());
            if at.value() != index {
                return Err(crate::Damage::new(name, index, "the entry is missing").into());
            }
            let leaf = leaf_hash(entry);
            let stored = digests.get(index).during("read", name)?.map(|row| *row.value());
            let digest = match self.judge.judge(index, entry, &before) {
                Ok(Judged::Opaque) => stored,
                Ok(Judged::Digest(digest)) => {
                    let digest = digest.and_then(|(algorithm, digest)| digest_key(algorithm, &digest));
                    if digest != stored {
                        found.digest_rows.insert(index, digest);
                    }
                    digest
                }
                Err(what) => {
                    report.add(name, index, what, false);
                    stored
                }
            };
            found.digests.extend(digest.map(|digest| (digest, index)));
            if let Some(row) = requests.get(index).during("read", name)? {
                self.check_request(name, index, &leaf, row.value(), report);
            }
            edge.append(leaf, &mut full);
            before.append(leaf);
            found.tiles.extend(full.drain(..).map(|tile| ((tile.level, tile.index), tile)));
            if index.is_multiple_of(PROGRESS_EVERY) {
                (self.progress)(index, self.total);
            }
        }
        if edge.size() != end {
            return Err(crate::Damage::new(name, edge.size(), "the entry is missing").into());
        }
        found.edge = edge;
        Ok(found)
    }

    /// Rows of entries that the head row does not know.
    fn check_past_end(
        &self,
        txn: &ReadTransaction,
        name: &str,
        end: u64,
        report: &mut FsckReport,
    ) -> Result<(), ReadError> {
        let entries = txn.open_table(ENTRIES).during("read", name)?;
        let requests = txn.open_table(REQUESTS).during("read", name)?;
        if let Some(row) = entries.range(end..).during("read", name)?.next() {
            report.add(name, row.during("read", name)?.0.value(), "an entry past the head row", false);
        }
        if let Some(row) = requests.range(end..).during("read", name)?.next() {
            report.add(name, row.during("read", name)?.0.value(), "a request row past the head row", false);
        }
        Ok(())
    }

    fn check_request(
        &mut self,
        name: &str,
        index: u64,
        leaf: &Hash,
        row: &[u8; 80],
        report: &mut FsckReport,
    ) {
        let Some(request) = Request::check_row(row, index, leaf) else {
            report.add(
                name,
                index,
                "its request row belongs to another entry, or the entry was changed",
                false,
            );
            return;
        };
        if let Some(earlier) = self.requests.find(&request.key, index) {
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
        report.rebuilt.digests += rebuild.digest_rows.len() as u64;
        report.rebuilt.digests += rebuild.sorted.as_ref().map_or(0, |sorted| sorted.len() as u64);
        Ok(())
    }
}

/// Derived rows of one segment that are wrong.
struct Rebuild {
    wrong: WrongTiles,
    digest_rows: BTreeMap<u64, Option<DigestKey>>,
    sorted: Option<Vec<DigestRow>>,
}

#[derive(Default)]
struct WrongTiles {
    tiles: Vec<FullTile>,
    surplus: Vec<(u8, u64)>,
    /// First leaf whose hash differs from the one in its stored tile.
    first_leaf: Option<u64>,
}

impl Rebuild {
    fn is_empty(&self) -> bool {
        self.wrong.tiles.is_empty()
            && self.wrong.surplus.is_empty()
            && self.digest_rows.is_empty()
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
            let mut rows = txn.open_table(DIGEST_ROWS)?;
            for (index, digest) in &self.digest_rows {
                match digest {
                    Some(digest) => rows.insert(index, digest).map(drop)?,
                    None => rows.remove(index).map(drop)?,
                }
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
    for tile in found.tiles.values() {
        let right = tile.nodes.to_bytes(tile.nodes.width());
        let hashes = parse_hashes(&right, tile.nodes.width()).unwrap_or_default();
        let leaves: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
        let second = rs_merkle::MerkleTree::<Rfc6962>::from_leaves(&leaves).root();
        if second != tile.nodes.node(TILE_HEIGHT, 0).map(|root| root.0) {
            report.add(name, tile.index, "two implementations compute different roots for a tile", false);
        }
        let row = match &stored {
            Some(stored) => stored.get((tile.level, tile.index)).during("read", name)?,
            None => None,
        };
        let row = row.as_ref().map_or(&[][..], |row| row.value());
        if row == right {
            continue;
        }
        let differs = row.chunks(32).zip(right.chunks(32)).position(|(stored, right)| stored != right);
        if let Some(at) = differs.filter(|_| tile.level == 0) {
            let leaf = tile.index * u64::from(TILE_WIDTH) + at as u64;
            wrong.first_leaf = Some(wrong.first_leaf.map_or(leaf, |first| first.min(leaf)));
        }
        wrong.tiles.push(tile.clone());
    }
    if let Some(stored) = stored.filter(|_| !clipped) {
        for row in stored.iter().during("read", name)? {
            let key = row.during("read", name)?.0.value();
            if !found.tiles.contains_key(&key) {
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
