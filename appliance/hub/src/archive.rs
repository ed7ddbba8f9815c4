//! The archive: a C2SP tlog-tiles tree for each log and the evidence of findings, as objects in a store.
//!
//! ```text
//! logs/<hex SHA-256 of the origin>/origin            the log's name
//!                                  checkpoint        the newest archived head, a signed note
//!                                  tile/...          as C2SP tlog-tiles names them
//! evidence/<hex SHA-256 of the origin>/<name>        what findings refer to: notes, fork proofs, bad entries
//! ```
//!
//! The store is a directory, or a bucket of an S3-compatible server, perhaps below a prefix.
//! Refuses to do: decide what is archived; in a bucket, put anything in the place of an object but a head in the place of a
//! smaller one of the same log.
//! Invariants: an object is there whole or not at all; after [`Archive::settle`] what was put before it survives a power
//! cut. In a directory what a power cut has damaged before that is put again; a bucket's server says that an object is
//! there only once it is durable.

mod bucket;

use crate::config::Config;
use bucket::{Bucket, BucketError, patiently, said};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::tile::{TileCoordinate, parse_hashes};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, PutMode, PutPayload, UpdateVersion};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// Objects of one step that are on their way to a bucket at a time.
const PUTS_AT_ONCE: usize = 8;

/// Why the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error("the archive cannot be read or written at {key} ({reason}); check {what}")]
    Store {
        /// The object.
        key: String,
        /// The store's reason.
        reason: String,
        /// Where to look.
        what: &'static str,
    },
    /// An object that must be there is not, or not what it must be.
    #[error("the archive is damaged: {key} {what}; `bulla-hub fsck` says more")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An object is there already, with other bytes.
    #[error(
        "the archive has other bytes at {key} than belong there now; nothing was overwritten, `bulla-hub fsck` says which are right"
    )]
    Differs {
        /// The object.
        key: String,
    },
    /// The directory cannot be opened or synced.
    #[error("the archive {path} cannot be used ({source}); `bulla-hub init` makes it")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Where objects are.
#[derive(Clone)]
enum Place {
    Directory(PathBuf),
    Bucket { bucket: Arc<Bucket>, patience: Duration, object_lock: bool },
}

/// The archive; clones share it.
#[derive(Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    place: Place,
}

/// How putting an object without overwriting ended.
enum Put {
    Done,
    Differs,
}

impl Archive {
    /// Opens the archive of a configuration. A directory must exist; a bucket's server is not asked anything yet.
    pub fn open(config: &Config, runtime: &Runtime) -> Result<Self, ArchiveError> {
        let runtime = runtime.handle().clone();
        match (&config.archive, &config.s3) {
            (_, Some(s3)) => {
                let bucket = Bucket::open(s3)?;
                let store: Arc<dyn ObjectStore> = match s3.prefix.as_str() {
                    "" => Arc::new(bucket.store()),
                    prefix => Arc::new(PrefixStore::new(bucket.store(), prefix)),
                };
                let patience = Duration::from_secs(s3.patience_seconds);
                let place = Place::Bucket { bucket: Arc::new(bucket), patience, object_lock: s3.object_lock };
                Ok(Archive { store, runtime, place })
            }
            (Some(directory), None) => Self::directory(directory, runtime),
            // `Config::parse` refuses it.
            (None, None) => Self::directory(Path::new(""), runtime),
        }
    }

    /// Reads the files that the configuration of a bucket names.
    pub fn check(config: &Config) -> Result<(), ArchiveError> {
        if let Some(s3) = &config.s3 {
            Bucket::open(s3)?;
        }
        Ok(())
    }

    fn directory(directory: &Path, runtime: Handle) -> Result<Self, ArchiveError> {
        let unusable = |source| ArchiveError::Directory { path: directory.to_owned(), source };
        let directory = directory.canonicalize().map_err(unusable)?;
        let store = LocalFileSystem::new_with_prefix(&directory).map_err(|error| {
            let (key, reason) = (directory.display().to_string(), said(&error));
            ArchiveError::Store { key, reason, what: "its directory" }
        })?;
        Ok(Archive { store: Arc::new(store), runtime, place: Place::Directory(directory) })
    }

    /// Checks that a bucket's server refuses to overwrite; for `init`.
    pub fn prove_kept(&self) -> Result<(), ArchiveError> {
        let Place::Bucket { bucket, patience, .. } = &self.place else { return Ok(()) };
        Ok(self.runtime.block_on(bucket.keeps(*patience))?)
    }

    /// Checks that a bucket has the lock that the configuration demands.
    pub fn prove_locked(&self) -> Result<(), ArchiveError> {
        match &self.place {
            Place::Bucket { bucket, patience, object_lock: true } => {
                Ok(self.runtime.block_on(bucket.is_locked(*patience))?)
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, key: &str, error: &object_store::Error) -> ArchiveError {
        let what = match self.place {
            Place::Directory(_) => "its directory, its disk and permissions",
            Place::Bucket { .. } => "the server of [s3], the way to it, credentials and rights",
        };
        ArchiveError::Store { key: key.to_owned(), reason: said(error), what }
    }

    fn patience(&self) -> Duration {
        match &self.place {
            Place::Directory(_) => Duration::ZERO,
            Place::Bucket { patience, .. } => *patience,
        }
    }

    /// Waits for this as long as the store's faults may pass.
    fn wait<T>(
        &self,
        key: &str,
        work: impl AsyncFnMut() -> object_store::Result<T>,
    ) -> Result<T, ArchiveError> {
        let done = self.runtime.block_on(patiently(self.patience(), work));
        done.map_err(|error| self.failed(key, &error))
    }

    /// Puts an object that never changes. In a bucket nothing is overwritten.
    pub fn put(&self, key: &str, bytes: impl Into<PutPayload>) -> Result<(), ArchiveError> {
        self.put_all([(key.to_owned(), bytes.into())])
    }

    /// Puts objects that never change, several at a time where the store is far away.
    pub fn put_all(
        &self,
        objects: impl IntoIterator<Item = (String, PutPayload)>,
    ) -> Result<(), ArchiveError> {
        let at_once = match self.place {
            Place::Directory(_) => 1,
            Place::Bucket { .. } => PUTS_AT_ONCE,
        };
        let puts = objects.into_iter().map(|(key, payload)| async move {
            let path = Key::from(key.as_str());
            match patiently(self.patience(), async || self.put_one(&path, &payload).await).await {
                Ok(Put::Done) => Ok(()),
                Ok(Put::Differs) => Err(ArchiveError::Differs { key }),
                Err(error) => Err(self.failed(&key, &error)),
            }
        });
        let all = futures_util::stream::iter(puts).buffer_unordered(at_once).try_collect::<()>();
        self.runtime.block_on(all)
    }

    async fn put_one(&self, path: &Key, payload: &PutPayload) -> object_store::Result<Put> {
        if let Place::Directory(_) = self.place {
            return self.store.put(path, payload.clone()).await.map(|_| Put::Done);
        }
        match self.store.put_opts(path, payload.clone(), PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Done),
            // Put before a kill, by an attempt whose answer was lost, or by another hub.
            Err(object_store::Error::AlreadyExists { .. }) => match self.bytes(path).await? {
                Some((bytes, _)) if bytes.iter().eq(payload.iter().flatten()) => Ok(Put::Done),
                Some(_) => Ok(Put::Differs),
                None => Err(object_store::Error::Generic {
                    store: "S3",
                    source: "an object is there for puts, and is not for gets".into(),
                }),
            },
            Err(error) => Err(error),
        }
    }

    /// Bytes and version of an object.
    async fn bytes(&self, path: &Key) -> object_store::Result<Option<(Vec<u8>, Option<String>)>> {
        match self.store.get(path).await {
            Ok(found) => {
                let version = found.meta.e_tag.clone();
                Ok(Some((found.bytes().await?.to_vec(), version)))
            }
            Err(object_store::Error::NotFound { source, path }) => {
                // An archive that is not there at all is no empty archive.
                if source.to_string().contains("NoSuchBucket") {
                    return Err(object_store::Error::NotFound { source, path });
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a head in the place of a smaller one. `verified` reads what is there: size and root, if it is a head of the same
    /// log; anything else is replaced. In a bucket, a head that another hub has put is never replaced by a smaller one.
    fn put_head(
        &self,
        key: &str,
        note: &str,
        (size, root): (u64, Hash),
        verified: impl Fn(&[u8]) -> Option<(u64, Hash)>,
    ) -> Result<(), ArchiveError> {
        let path = Key::from(key);
        if let Place::Directory(_) = self.place {
            return self.put(key, note.to_owned());
        }
        let done = self.wait(key, async || {
            let there = self.bytes(&path).await?;
            let mode = match there {
                None => PutMode::Create,
                Some((bytes, _)) if bytes == note.as_bytes() => return Ok(Put::Done),
                Some((bytes, version)) => match verified(&bytes) {
                    Some((its, of)) if its == size && of != root => return Ok(Put::Differs),
                    Some((its, _)) if its >= size => return Ok(Put::Done),
                    _ => PutMode::Update(UpdateVersion { e_tag: version, version: None }),
                },
            };
            match self.store.put_opts(&path, note.to_owned().into(), mode.into()).await {
                Ok(_) => Ok(Put::Done),
                // Somebody was faster: look again.
                Err(
                    error @ (object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. }),
                ) => Err(object_store::Error::Generic { store: "S3", source: Box::new(error) }),
                Err(error) => Err(error),
            }
        })?;
        match done {
            Put::Done => Ok(()),
            Put::Differs => Err(ArchiveError::Differs { key: key.to_owned() }),
        }
    }

    /// An object, if there is one of this name.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let path = Key::from(key);
        Ok(self.wait(key, async || self.bytes(&path).await)?.map(|(bytes, _)| bytes))
    }

    /// Takes an object away, if there is one of this name.
    pub fn delete(&self, key: &str) -> Result<(), ArchiveError> {
        let path = Key::from(key);
        self.wait(key, async || match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        })
    }

    /// Names of all objects below `prefix`.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, ArchiveError> {
        let path = Key::from(prefix);
        let mut names: Vec<String> = self.wait(prefix, async || {
            let all = self.store.list(Some(&path)).map_ok(|meta| meta.location.to_string());
            all.try_collect().await
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Waits until everything that was put is durable.
    pub fn settle(&self) -> Result<(), ArchiveError> {
        let Place::Directory(path) = &self.place else { return Ok(()) };
        let synced = std::fs::File::open(path)
            .and_then(|directory| rustix::fs::syncfs(&directory).map_err(Into::into));
        synced.map_err(|source| ArchiveError::Directory { path: path.clone(), source })
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

    /// Puts objects of this log.
    pub fn put_all(&self, objects: Vec<(String, Vec<u8>)>) -> Result<(), ArchiveError> {
        self.archive.put_all(objects.into_iter().map(|(path, bytes)| (self.key(&path), bytes.into())))
    }

    /// Makes a signed note of this size and root the archived head; see [`Archive`].
    pub fn put_head(
        &self,
        note: &str,
        of: (u64, Hash),
        verified: impl Fn(&[u8]) -> Option<(u64, Hash)>,
    ) -> Result<(), ArchiveError> {
        self.archive.put_head(&self.key("checkpoint"), note, of, verified)
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
