//! A tree of a log: how many entries, and the root over them.

use bulla_formats::hash::{Hash, empty_root};
use std::fmt;

/// Size and root of a tree. What it is worth is said where it is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tree {
    /// Entries in it.
    pub size: u64,
    /// RFC 6962 root of them.
    pub root: Hash,
}

impl Tree {
    /// The tree without entries.
    pub fn empty() -> Self {
        Self { size: 0, root: empty_root() }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries with root {}", self.size, self.root)
    }
}
