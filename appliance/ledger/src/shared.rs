//! What the writer and all readers share: the list of segments, the databases, the head, the indexes.
//!
//! Invariants:
//! - Only the writer changes anything here, and it publishes a head only after its batch is durable and re-read;
//!   so whatever a reader can see has been proven.
//! - A segment's database is closed under the write lock: no read transaction is open then, and redb's shutdown
//!   mark cannot race with the file being opened again.
//! - Lock order: `segments`, then `frozen`, then `indexes`, then `head`.

use crate::backend::{Writable, open_frozen};
use crate::contain::{Held, contain};
use crate::control::Control;
use crate::digest_filter::DigestFilters;
use crate::edge::{Edge, TileNodes};
use crate::error::ReadError;
use crate::index::{DigestMap, RequestWindow};
use crate::openings::Openings;
use crate::queue::Queue;
use crate::segment::{self, SegmentFile};
use crate::side::SideObjects;
use crate::store::Store;
use crate::{Options, StorageFault};
use bulla_formats::hash::Hash;
use redb::ReadTransaction;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) origin: String,
    pub(crate) options: Options,
    pub(crate) openings: Openings,
    pub(crate) side: SideObjects,
    pub(crate) control: Control,
    pub(crate) queue: Queue,
    segments: RwLock<Segments>,
    /// Most recently used last.
    frozen: Mutex<Vec<(SegmentFile, Arc<Held>)>>,
    indexes: RwLock<Indexes>,
    head: RwLock<Arc<HeadState>>,
    pub(crate) digest_filters: DigestFilters,
    /// Of leaves, and above; most recently used last.
    tiles: [Mutex<Vec<TileCacheRow>>; 2],
}

/// The databases beside the segments.
#[derive(Debug)]
pub(crate) struct Companions {
    pub(crate) openings: Openings,
    pub(crate) side: SideObjects,
    pub(crate) control: Control,
    pub(crate) queue: Queue,
}

/// (level, index) of a full tile, and the tile.
type TileCacheRow = ((u8, u64), Arc<TileNodes>);

/// The files, oldest first, and the database of the last one while it takes entries.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) files: Vec<SegmentFile>,
    /// `None` between a write of unknown effect and the recovery.
    pub(crate) active: Option<Writable>,
}

#[derive(Debug)]
pub(crate) struct Indexes {
    /// Segments without a sorted table, oldest first; the last is the active one.
    pub(crate) digests: Vec<DigestMap>,
    pub(crate) requests: RequestWindow,
}

/// The tree that the log stands for.
#[derive(Debug)]
pub(crate) struct HeadState {
    pub(crate) edge: Edge,
    pub(crate) root: Hash,
}

impl Shared {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        origin: String,
        options: Options,
        companions: Companions,
        segments: Segments,
        indexes: Indexes,
        edge: Edge,
    ) -> Self {
        let Companions { openings, side, control, queue } = companions;
        let head = RwLock::new(Arc::new(HeadState { root: edge.root(), edge }));
        Self {
            store,
            origin,
            options,
            openings,
            side,
            control,
            queue,
            segments: RwLock::new(segments),
            frozen: Mutex::new(Vec::new()),
            indexes: RwLock::new(indexes),
            head,
            digest_filters: DigestFilters::default(),
            tiles: Default::default(),
        }
    }

    // A panic under one of these locks leaves values whole (they are swapped, not edited in place), so a poisoned
    // lock is no reason to stop answering readers.
    pub(crate) fn segments(&self) -> RwLockReadGuard<'_, Segments> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segments_mut(&self) -> RwLockWriteGuard<'_, Segments> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn indexes(&self) -> RwLockReadGuard<'_, Indexes> {
        self.indexes.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn indexes_mut(&self) -> RwLockWriteGuard<'_, Indexes> {
        self.indexes.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn head(&self) -> Arc<HeadState> {
        Arc::clone(&self.head.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn publish(&self, head: Arc<HeadState>) {
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = head;
    }

    /// Runs `look` on a fresh read transaction of the segment that holds `index`.
    pub(crate) fn in_segment<T>(
        &self,
        index: u64,
        look: impl FnOnce(&ReadTransaction, &SegmentFile) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let segments = self.segments();
        let at = segments.files.partition_point(|file| file.first <= index).saturating_sub(1);
        let Some(file) = segments.files.get(at).cloned() else {
            return Err(ReadError::OutOfRange { index, size: self.head().edge.size() });
        };
        if let Some(active) = segments.active.as_ref().filter(|_| at + 1 == segments.files.len()) {
            // The guard stays until `look` is done: the writer closes the database only when nobody reads.
            let name = file.name();
            return contain(&name, index, || look(&segment::begin(&active.db, &name)?, &file));
        }
        drop(segments);
        let (name, db) = (file.name(), self.frozen(&file)?);
        contain(&name, index, || look(&segment::begin(db.as_ref(), &name)?, &file))
    }

    /// A closed segment, opened read-only through an overlay.
    pub(crate) fn frozen(&self, file: &SegmentFile) -> Result<Arc<Held>, StorageFault> {
        let mut frozen = self.lock_frozen();
        let open = match frozen.iter().position(|(each, _)| each == file) {
            Some(at) => frozen.remove(at),
            None => {
                let cache_bytes = self.options.closed_cache_bytes;
                (file.clone(), Arc::new(open_frozen(self.store.as_ref(), &file.name(), cache_bytes)?))
            }
        };
        if frozen.len() >= self.options.closed_open_max.max(1) {
            frozen.remove(0);
        }
        let db = Arc::clone(&open.1);
        frozen.push(open);
        Ok(db)
    }

    /// Forgets open handles of closed segments, so that the next read comes from the disk.
    pub(crate) fn forget_frozen(&self) {
        self.lock_frozen().clear();
    }

    fn lock_frozen(&self) -> MutexGuard<'_, Vec<(SegmentFile, Arc<Held>)>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full tile from the cache.
    pub(crate) fn cached_tile(&self, level: u8, index: u64) -> Option<Arc<TileNodes>> {
        let mut tiles = self.tiles[usize::from(level > 0)].lock().unwrap_or_else(PoisonError::into_inner);
        let at = tiles.iter().position(|(key, _)| *key == (level, index))?;
        let row = tiles.remove(at);
        let nodes = Arc::clone(&row.1);
        tiles.push(row);
        Some(nodes)
    }

    /// Keeps a full tile; full tiles never change.
    pub(crate) fn cache_tile(&self, level: u8, index: u64, nodes: Arc<TileNodes>) {
        let options = &self.options;
        let most = if level == 0 { options.leaf_tiles_cached } else { options.upper_tiles_cached };
        if most == 0 {
            return;
        }
        let mut tiles = self.tiles[usize::from(level > 0)].lock().unwrap_or_else(PoisonError::into_inner);
        if tiles.len() >= most {
            tiles.remove(0);
        }
        tiles.push(((level, index), nodes));
    }
}
