//! What belongs to a backup, as files that do not change while they are read.
//!
//! Closed segments and the small files (replaced by rename, never edited) are read where they are; what a running
//! box goes on writing is copied by the ledger into a directory of its own, removed when this value is dropped.
//! Refuses to do: begin without the room for the copies, so that a backup never fills the disk of a box.

use crate::config::Config;
use crate::identity;
use crate::problem::{Kind, Problem};
use crate::retirement;
use anyhow::{Context as _, Result};
use bulla_formats::backup::is_file_name;
use bulla_formats::hash::Hash;
use bulla_ledger::{DirStore, Reader, Store as _};
use std::fs;
use std::path::{Path, PathBuf};

/// Directory of the copies, inside the state directory.
const WORK: &str = "backup.tmp";
/// Files that a box makes again by itself; what it owed receivers of alerts, and what it had asked people to approve, is over
/// when a backup is brought back.
const DERIVED: [&str; 4] = ["lock", "search.redb", "alerts.json", retirement::ASKED];

/// One file of the backup.
#[derive(Debug)]
pub struct Source {
    /// Its name in the backup.
    pub name: String,
    /// Where its bytes are.
    pub path: PathBuf,
}

/// All files of a backup.
#[derive(Debug)]
pub struct Gathered {
    /// The log in force.
    pub origin: String,
    /// Entries of that log in the backup.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
    /// The files, in the order of the archive.
    pub files: Vec<Source>,
    /// Removed at the end.
    _work: WorkDirectory,
}

/// Why nothing was gathered.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// Too little room for the copies; nothing was written.
    #[error("{free} bytes are free and {needed} are needed for the copies; free disk space")]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes needed, with the reserve.
        needed: u64,
    },
    /// The disk or the log.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl From<GatherError> for Problem {
    fn from(error: GatherError) -> Self {
        match error {
            GatherError::Full { .. } => {
                Problem::new(Kind::DiskFull, format!("no backup was made: {error}")).retry_after(60)
            }
            GatherError::Failed(_) => {
                Problem::new(Kind::Internal, format!("no backup was made: {error}; try again"))
                    .retry_after(60)
            }
        }
    }
}

/// Copies what changes and lists everything; `reader` is of the log in force.
pub fn gather(config: &Config, reader: &Reader) -> Result<Gathered, GatherError> {
    let state = &config.state_dir;
    let (origin, log) = identity::current_log(config)?;
    let work = WorkDirectory::make(state.join(WORK))?;
    let store = DirStore::open(&work.0).context("cannot open the directory of the copies")?;
    let free = store.free_bytes().context("cannot ask for the free space")?;
    let needed = copied_bytes(&log)?.saturating_add(config.sealing.reserve_bytes);
    if free < needed {
        return Err(GatherError::Full { free, needed });
    }
    let exported = reader.export(&store).context("the log cannot be copied; `bulla-box fsck` says more")?;
    let log_name = name_of(&log)?;
    let mut files = Vec::new();
    files.extend(plain_files(state, "")?);
    files.extend(plain_files(&state.join("keys"), "keys/")?);
    for directory in directories(state, "log-")? {
        let name = name_of(&directory)?;
        if name != log_name {
            files.extend(plain_files(&directory, &format!("{name}/"))?);
        }
    }
    let of_log = |name: &String, directory: &Path| Source {
        name: format!("{log_name}/{name}"),
        path: directory.join(name),
    };
    files.extend(exported.closed.iter().map(|name| of_log(name, &log)));
    files.extend(exported.copied.iter().map(|name| of_log(name, &work.0)));
    Ok(Gathered {
        origin: origin.as_str().to_owned(),
        size: exported.size,
        root: exported.root,
        files,
        _work: work,
    })
}

/// Bytes that the copies take at most: everything but the closed segments.
fn copied_bytes(log: &Path) -> Result<u64> {
    let mut segments = Vec::new();
    let mut bytes = 0u64;
    for source in plain_files(log, "")? {
        let length = fs::metadata(&source.path)?.len();
        if source.name.starts_with("seg-") {
            segments.push((source.name, length));
        } else {
            bytes = bytes.saturating_add(length);
        }
    }
    segments.sort_unstable();
    Ok(bytes.saturating_add(segments.last().map_or(0, |(_, length)| *length)))
}

/// Regular files of a directory that are not on their way to another name and not derived, by name.
fn plain_files(directory: &Path, prefix: &str) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    let listing = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in listing {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let passing = name.ends_with(".new") || DERIVED.contains(&name.as_str());
        if !entry.file_type()?.is_file() || passing {
            continue;
        }
        let name = format!("{prefix}{name}");
        if is_file_name(&name) {
            files.push(Source { name, path: entry.path() });
        } else {
            log::warn!("{name:?} in the state directory is none of the box's and is not in the backup");
        }
    }
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn directories(parent: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if ours && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn name_of(directory: &Path) -> Result<String> {
    let name = directory.file_name().and_then(|name| name.to_str());
    Ok(name.context("a log directory has a plain name")?.to_owned())
}

#[derive(Debug)]
struct WorkDirectory(PathBuf);

impl WorkDirectory {
    /// Makes it empty: copies of a backup that a crash ended are worth nothing.
    fn make(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        identity::make_private_dir(&path)?;
        Ok(WorkDirectory(path))
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("the copies of a backup could not be removed, the next one will try again: {error}");
        }
    }
}

/// Removes what a backup left behind when the box died in it.
pub fn sweep(state: &Path) {
    let work = state.join(WORK);
    if work.exists()
        && let Err(error) = fs::remove_dir_all(&work)
    {
        log::warn!("the copies of an interrupted backup could not be removed: {error}");
    }
}
