//! Objects that are kept for their own sake: what they say is signed by others, so no entry has to vouch for them.
//!
//! Refuses: handing out bytes that do not hash to their name.
//! Invariant: nothing done here touches an object that an entry refers to.

use crate::error::{ReadError, StorageFault};
use crate::shared::Shared;
use bulla_formats::hash::{Hash, sha256};
use std::sync::Arc;

/// Handle to them; clones share it.
#[derive(Debug, Clone)]
pub struct KeptObjects(Arc<Shared>);

impl KeptObjects {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        KeptObjects(shared)
    }

    /// Keeps an object, durably; returns its name.
    pub fn keep(&self, object: &[u8]) -> Result<Hash, StorageFault> {
        self.0.side.keep(object)?;
        Ok(sha256(&[object]))
    }

    /// Forgets all but these.
    pub fn keep_only(&self, wanted: &[Hash]) -> Result<(), StorageFault> {
        self.0.side.keep_only(wanted)
    }

    /// The object of this name.
    pub fn read(&self, name: &Hash) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.side.read(name)
    }
}
