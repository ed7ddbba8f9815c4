//! Recovery (G10): what follows a write of unknown effect, inside the running process.
//!
//! The failed batch is in limbo: it may be on the disk, half on it, or only in a page cache that the kernel has
//! already marked clean. Nothing is concluded from reading it back. Instead the log goes on at the size that was
//! proven before, in a fresh file:
//! 1. the old file is read again *from the disk*, and must give the proven root at the proven size;
//! 2. a fresh segment whose header fixes that root is made durable. From then on entries of the old file at or past
//!    that size do not exist, for this process and for every later start;
//! 3. appending goes on there. The caller appends its failed batch again if it still wants it.
//!
//! A crash before step 2 is complete leaves the old file in charge: if the limbo batch turns out durable there, it
//! is a batch like any other (nobody was answered, nothing was signed over its absence).
//!
//! Refuses: to go on when the disk does not give back what was proven. That is loss, and a human's matter.

use crate::append::Ledger;
use crate::edge::Edge;
use crate::error::{Damage, During, ReadError, StorageFault};
use crate::segment::{self, frontier_of, scan};
use crate::shared::HeadState;
use std::sync::Arc;
use thiserror::Error;

/// Why the ledger is still poisoned. Calling [`Ledger::recover`] again is always allowed.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// Not enough space for a fresh segment. Free space, then recover.
    #[error("the disk has {free} bytes free, recovery needs {needed}; free some space")]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// The disk still fails, or what it gives back is not what was proven.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StorageFault> for RecoverError {
    fn from(fault: StorageFault) -> Self {
        RecoverError::Read(fault.into())
    }
}

impl Ledger {
    /// Makes the ledger ready for appending after an error of unknown effect; nothing to do otherwise.
    pub fn recover(&mut self) -> Result<(), RecoverError> {
        if !self.poisoned {
            return Ok(());
        }
        let needed = self.shared.options.reserve_bytes;
        let free = self.shared.store.free_bytes().during("ask for the free space of", "the log directory")?;
        if free < needed {
            return Err(RecoverError::Full { free, needed });
        }
        let edge = self.prove_from_disk()?;
        // The tree in memory may be what failed: from here on it is the one that the disk gave.
        self.frontier = frontier_of(&edge)
            .ok_or_else(|| {
                Damage::new("the tree in memory", edge.size(), "a hash of the right edge is missing")
            })
            .map_err(ReadError::from)?;
        self.shared.publish(Arc::new(HeadState { root: edge.root(), edge }));
        // Openings of the limbo batch go before its indexes are given again.
        self.shared.openings.clip(self.size())?;
        self.start_segment()?;
        self.poisoned = false;
        Ok(())
    }

    /// Step 1: the last segment, from the disk, up to the proven size. Returns the right edge of its entries, whose
    /// root is the one that was stated last.
    fn prove_from_disk(&self) -> Result<Edge, ReadError> {
        let head = self.shared.head();
        let Some(file) = self.shared.segments().files.last().cloned() else { return Ok(Edge::default()) };
        self.shared.forget_frozen();
        let (name, size) = (file.name(), self.size());
        let db = self.shared.frozen(&file)?;
        let txn = segment::begin(db.as_ref(), &name)?;
        let (header, _) = segment::read_meta(&txn, &file, &self.shared.origin)?;
        let found = scan(&txn, &file, &header, size, |_, _, _| Ok(()))?;
        if found.edge.root() != head.root {
            return Err(
                Damage::new(&name, file.first, "the disk gives another root than the proven one").into()
            );
        }
        if let Some(tile) = found.wrong_tiles.first() {
            let what = format!("tile {} of level {} is not what the entries imply", tile.index, tile.level);
            return Err(Damage::new(&name, file.first, what).into());
        }
        Ok(found.edge)
    }
}
