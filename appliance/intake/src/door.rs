//! What seals: the agent's boxes, or the box itself.
//!
//! Refuses to do: anything; it is the interface. Invariant that every door keeps: the same [`Order::key`] of one client
//! gives one seal on one box (G3).

use crate::key::Content;
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// A document to seal.
pub struct Order<'a> {
    /// The open file, as it was examined.
    pub file: &'a File,
    /// Its name in the folder.
    pub name: &'a Path,
    /// What it is.
    pub content: &'a Content,
    /// Its media type.
    pub media_type: &'static str,
    /// Idempotency key.
    pub key: String,
    /// Leaf hash of the seal of the same bytes that this one replaces: a sidecar came, or is another one.
    pub supersedes: Option<String>,
}

impl Order<'_> {
    /// What the seal commits to beside the bytes: the name, and the sidecars.
    pub fn metadata(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut metadata =
            vec![("filename".to_owned(), text(Path::new(self.name.file_name().unwrap_or_default())))];
        if let Some(parent) = self.name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            metadata.push(("folder".to_owned(), text(parent)));
        }
        metadata.extend(self.content.metadata());
        metadata
    }
}

/// A seal, as results show it.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The `.seal` file.
    pub seal: String,
    /// Members of the receipt, as the API has them, without `seal`.
    pub receipt: Value,
}

/// Why there is no seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSealed {
    /// Not now.
    Later {
        /// Why.
        reason: String,
        /// When to try again.
        after: Option<Duration>,
    },
    /// The file is not any more what was examined.
    Changed,
    /// Never.
    Refused {
        /// Why, as a sentence for whoever scanned it.
        reason: String,
    },
}

/// What somebody may want to know.
#[derive(Debug)]
pub enum Note<'a> {
    /// The folder is watched by these means.
    Watching(&'static str),
    /// A document is sealed and its results are there.
    Sealed {
        /// Its name.
        name: &'a Path,
        /// What the door said.
        sealed: &'a Sealed,
    },
    /// A document went to the error folder.
    Rejected {
        /// Its name.
        name: &'a Path,
        /// Why.
        reason: &'a str,
    },
    /// Something is in the way and tried again.
    Waits {
        /// Of which file; the folder itself when it is empty.
        name: &'a Path,
        /// What.
        reason: &'a str,
    },
}

/// What seals the documents of a folder. Called by several threads at a time.
pub trait Door: Sync {
    /// Seals; returns when the seal is durable, or why not.
    fn seal(&self, order: &Order<'_>) -> Result<Sealed, NotSealed>;
    /// Hears what happens.
    fn note(&self, note: &Note<'_>);
    /// Hears how many files are where, now and then.
    fn census(&self, census: crate::folder::Census, last: &str);
}
