//! The archive: a C2SP tlog-tiles tree for each log and the evidence of findings, as objects in a store.
//!
//! ```text
//! logs/<hex SHA-256 of the origin>/origin            the log's name
//!                                  checkpoint        the newest archived head, a signed note
//!                                  tile/...          as C2SP tlog-tiles names them
//! evidence/<hex SHA-256 of the origin>/<name>        what findings refer to: notes, fork proofs, bad entries
//! ```
//!
//! Refuses to do: decide what is archived. Invariants: an object is there whole or not at all; after [`Archive::settle`]
//! what was put before it survives a power cut.

use bulla_formats::hash::{Hash, sha256};
use bulla_formats::tile::{TileCoordinate, parse_hashes};
use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, PutPayload};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::{Handle, Runtime};

/// Why the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error(
        "the archive cannot be read or written at {key} ({source}); check its directory, its disk and permissions"
    )]
    Store {
        /// The object.
        key: String,
        /// The store's reason.
        source: object_store::Error,
    },
    /// An object that must be there is not, or not what it must be.
    #[error("the archive is damaged: {key} {what}; `bulla-hub fsck` says more")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The directory cannot be opened or synced.
    #[error("the archive {path} cannot be used ({source}); `bulla-hub init` makes it")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// The archive; clones share it.
#[derive(Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    directory: PathBuf,
}

impl Archive {
    /// Opens the archive in `directory`, which must exist.
    pub fn open(directory: &Path, runtime: &Runtime) -> Result<Self, ArchiveError> {
        let unusable = |source| ArchiveError::Directory { path: directory.to_owned(), source };
        let directory = directory.canonicalize().map_err(unusable)?;
        let store = LocalFileSystem::new_with_prefix(&directory)
            .map_err(|source| ArchiveError::Store { key: directory.display().to_string(), source })?;
        Ok(Archive { store: Arc::new(store), runtime: runtime.handle().clone(), directory })
    }

    /// Puts an object, in place of what has its name.
    pub fn put(&self, key: &str, bytes: impl Into<PutPayload>) -> Result<(), ArchiveError> {
        let path = Key::from(key);
        self.runtime
            .block_on(self.store.put(&path, bytes.into()))
            .map(drop)
            .map_err(|source| ArchiveError::Store { key: key.to_owned(), source })
    }

    /// An object, if there is one of this name.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let path = Key::from(key);
        let read = async { self.store.get(&path).await?.bytes().await };
        match self.runtime.block_on(read) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(ArchiveError::Store { key: key.to_owned(), source }),
        }
    }

    /// Takes an object away, if there is one of this name.
    pub fn delete(&self, key: &str) -> Result<(), ArchiveError> {
        match self.runtime.block_on(self.store.delete(&Key::from(key))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(ArchiveError::Store { key: key.to_owned(), source }),
        }
    }

    /// Names of all objects below `prefix`.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, ArchiveError> {
        let path = Key::from(prefix);
        let all = self.store.list(Some(&path)).map_ok(|meta| meta.location.to_string()).try_collect();
        let mut names: Vec<String> = self
            .runtime
            .block_on(all)
            .map_err(|source| ArchiveError::Store { key: prefix.to_owned(), source })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Waits until everything that was put is durable.
    pub fn settle(&self) -> Result<(), ArchiveError> {
        let synced = std::fs::File::open(&self.directory)
            .and_then(|directory| rustix::fs::syncfs(&directory).map_err(Into::into));
        synced.map_err(|source| ArchiveError::Directory { path: self.directory.clone(), source })
    }

    /// The part of one log.
    pub fn log(&self, origin: &str) -> ArchivedLog {
        ArchivedLog { archive: self.clone(), name: sha256(&[origin.as_bytes()]).to_string() }
    }
}

/// One log in the archive.
#[derive(Clone)]
pub struct ArchivedLog {
    archive: Archive,
    name: String,
}

impl ArchivedLog {
    /// Name of an object of this log.
    pub fn key(&self, path: &str) -> String {
        format!("logs/{}/{path}", self.name)
    }

    /// Name of a piece of evidence about this log.
    pub fn evidence_key(&self, name: &str) -> String {
        format!("evidence/{}/{name}", self.name)
    }

    /// The archive it is in.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Puts an object of this log.
    pub fn put(&self, path: &str, bytes: impl Into<PutPayload>) -> Result<(), ArchiveError> {
        self.archive.put(&self.key(path), bytes)
    }

    /// An object of this log, if there is one of this name.
    pub fn get(&self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.archive.get(&self.key(path))
    }

    /// A tile or entry bundle of which `width` hashes or entries are wanted: that one, or the full one.
    fn tile(&self, asked: TileCoordinate, full: TileCoordinate) -> Result<(Vec<u8>, u16), ArchiveError> {
        if let Some(bytes) = self.get(&asked.path())? {
            return Ok((bytes, asked.width()));
        }
        match self.get(&full.path())? {
            Some(bytes) => Ok((bytes, full.width())),
            None => Err(self.damaged(&asked.path(), "is missing")),
        }
    }

    /// What is said of an object that is not what it must be.
    pub fn damaged(&self, path: &str, what: &'static str) -> ArchiveError {
        ArchiveError::Damaged { key: self.key(path), what }
    }

    /// The first `width` hashes of a tile.
    pub fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<Hash>, ArchiveError> {
        let no_tile = |_| self.damaged(&format!("tile/{level}/{index}"), "is no tile");
        let asked = TileCoordinate::hashes(level, index, width).map_err(no_tile)?;
        let full = TileCoordinate::hashes(level, index, 256).map_err(no_tile)?;
        let (bytes, came) = self.tile(asked, full)?;
        let mut hashes =
            parse_hashes(&bytes, came).ok_or_else(|| self.damaged(&asked.path(), "has another width"))?;
        hashes.truncate(usize::from(width));
        Ok(hashes)
    }

    /// The first `width` entries of a bundle.
    pub fn entries(&self, index: u64, width: u16) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let no_tile = |_| self.damaged(&format!("tile/entries/{index}"), "is no entry bundle");
        let asked = TileCoordinate::entries(index, width).map_err(no_tile)?;
        let full = TileCoordinate::entries(index, 256).map_err(no_tile)?;
        let (bytes, came) = self.tile(asked, full)?;
        let entries = bulla_formats::tile::parse_entries(&bytes, came).map_err(no_tile)?;
        Ok(entries.into_iter().take(usize::from(width)).map(<[u8]>::to_vec).collect())
    }
}
