//! How a mirror stands, as it is told to whoever asks: no file is touched for it.

use crate::mirror::rows::MirrorHead;
use crate::tree::Tree;
use bulla_formats::hash::Hash;
use std::sync::Arc;

/// What an object is to the mirror that lacks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingObject {
    /// Its SHA-256.
    pub object: Hash,
    /// The first entry that refers to it.
    pub index: u64,
}

/// What is known of a row that may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept<T> {
    /// It says this.
    Known(T),
    /// It is damaged or gone; this is what is wrong.
    Lost(String),
}

impl<T> From<&Result<T, String>> for Kept<T>
where
    T: Clone,
{
    fn from(row: &Result<T, String>) -> Self {
        match row {
            Ok(value) => Kept::Known(value.clone()),
            Err(what) => Kept::Lost(what.clone()),
        }
    }
}

/// How a mirror stands. Costs nothing: no file is touched for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The mirrored log.
    pub origin: String,
    /// Its entries here. Until the mirror is first used: as its last segment states them.
    pub tree: Tree,
    /// Whether `tree` was proven in this process.
    pub proven: bool,
    /// The newest authenticated head.
    pub head: Option<MirrorHead>,
    /// The fork proof that froze it, if it is frozen.
    pub frozen: Kept<Option<Arc<[u8]>>>,
    /// The newest tree that may have been cosigned as witness.
    pub witness: Kept<Tree>,
    /// The newest tree that may have been cosigned as mirror.
    pub mirror: Kept<Tree>,
    /// Objects that are missing. Until the mirror is first used: as it was noted.
    pub missing: usize,
    /// Whether a write of unknown effect happened; [`crate::Mirror::recover`] leads on.
    pub poisoned: bool,
    /// Why the mirrored log could not be taken up when it was last tried.
    pub trouble: Option<String>,
}
