//! The hub's parts: configuration, trust, archive, index.
//!
//! Refuses to do: make what is not there; `bulla-hub init` does that.

use crate::archive::{Archive, ArchiveError};
use crate::config::Config;
use crate::exit::Failure;
use crate::handing::Handed;
use crate::index::{self, Index, IndexError};
use crate::progress::Progress;
use crate::reindex;
use crate::room::Room;
use bulla_formats::trust::TrustFile;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// Why the hub cannot go on: its own disk, never a box.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// What the hub itself keeps contradicts itself.
    #[error("{0}")]
    Contradiction(String),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Failure::usage(error.to_string())
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        Failure::usage(error.to_string())
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Failure::usage(error.to_string())
    }
}

/// A hub.
pub struct Hub {
    /// Its configuration.
    pub config: Config,
    /// What counts as proof.
    pub trust: TrustFile,
    /// The archive.
    pub archive: Archive,
    /// The index.
    pub index: Box<dyn Index>,
    /// Threads that verify entries of one box.
    pub threads: usize,
    /// Where boxes that dial the hub wait; only a hub that serves has it.
    pub room: Option<Arc<Room>>,
    /// What boxes were handed.
    pub handed: Arc<Handed>,
    /// Kept because the archive's work runs on it.
    _runtime: Runtime,
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(format!("no threads can be started ({error})")))
}

/// Reads the configuration, for work on what is in its state directory.
///
/// # Errors
/// It cannot be used, or the state directory is another user's.
pub fn load(path: &Path) -> Result<Config, Failure> {
    let config = Config::load(path).map_err(|error| Failure::usage(error.to_string()))?;
    bulla_owner::check(&config.state_dir, "bulla-hub", "bulla-hub")
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(config)
}

fn configured(path: &Path) -> Result<(Config, TrustFile), Failure> {
    let config = load(path)?;
    let trust = trusted(&config)?;
    Ok((config, trust))
}

/// What counts as proof, and that it does for the boxes of the configuration.
pub fn trusted(config: &Config) -> Result<TrustFile, Failure> {
    let bytes = std::fs::read(&config.trust).map_err(|error| {
        let file = config.trust.display();
        Failure::usage(format!("the trust file {file} cannot be read ({error}); the configuration names it"))
    })?;
    let trust = TrustFile::decode(&bytes)
        .map_err(|error| Failure::usage(format!("the trust file {}: {error}", config.trust.display())))?;
    for branch in &config.boxes {
        let origin = branch.origin().map_err(|error| Failure::usage(error.to_string()))?;
        if origin.fleet() != trust.fleet {
            let (name, fleet) = (&branch.name, &trust.fleet);
            let words =
                format!("boxes.origin: the log of {name} is of another fleet than the trust file, {fleet}");
            return Err(Failure::usage(words));
        }
    }
    Ok(trust)
}

/// Makes state directory, archive and an empty index.
pub fn init(path: &Path) -> Result<Config, Failure> {
    let (config, _) = configured(path)?;
    for directory in [Some(&config.state_dir), config.archive.as_ref()].into_iter().flatten() {
        std::fs::create_dir_all(directory).map_err(|error| {
            Failure::usage(format!("the directory {} cannot be made ({error})", directory.display()))
        })?;
    }
    let runtime = runtime()?;
    let archive = Archive::open(&config, &runtime)?;
    archive.prove_kept()?;
    archive.prove_locked()?;
    index::create(&config)?;
    Ok(config)
}

/// Makes the index again from the archive and puts it in the place of the old one. Returns the number of entries read, and
/// whether the old one could be read.
pub fn remake(path: &Path, progress: &Progress) -> Result<(u64, bool), Failure> {
    let (config, trust) = configured(path)?;
    let old = match index::open(&config) {
        Ok(old) => {
            old.exclusive()?;
            Some(old)
        }
        Err(error) if !error.is_loss() => return Err(error.into()),
        Err(error) => {
            progress.complain(&format!("{error}; what was found before is not known"));
            None
        }
    };
    let new = index::begin_again(&config)?;
    let hub = Hub::of(config, trust, new)?;
    let read = reindex::rebuild(&hub, old.as_deref(), progress)?;
    let Hub { config, index, .. } = hub;
    index::take_over(&config, index)?;
    Ok((read, old.is_some()))
}

impl Hub {
    /// Opens what `path` configures.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let (config, trust) = configured(path)?;
        let index = index::open(&config)?;
        if !index.is_catalogued()? {
            let words = "the index was made by an earlier version; `bulla-hub reindex` makes it again from the archive";
            return Err(Failure::usage(words));
        }
        Self::of(config, trust, index)
    }

    /// The same; anchors are judged again first, when the trust file believes others than it did.
    pub fn open_judged(path: &Path, progress: &Progress) -> Result<Self, Failure> {
        let hub = Self::open(path)?;
        if reindex::refresh(&hub)? {
            progress.complain(
                "the trust file believes other authorities than before: all anchors were judged again",
            );
        }
        Ok(hub)
    }

    fn of(config: Config, trust: TrustFile, index: Box<dyn Index>) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let archive = Archive::open(&config, &runtime)?;
        let handed = Arc::new(Handed::open(&config));
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = if config.pull.threads == 0 { cores } else { config.pull.threads };
        Ok(Hub { config, trust, archive, index, threads, room: None, handed, _runtime: runtime })
    }

    /// The origin of a box: by its name, or by the origin itself.
    pub fn origin_of(&self, named: &str) -> Result<String, Failure> {
        let found = self.config.boxes.iter().find(|branch| branch.name == named || branch.origin == named);
        found.map(|branch| branch.origin.clone()).ok_or_else(|| {
            Failure::nothing(format!("no box of the configuration has the name or origin {named:?}"))
        })
    }
}

/// Unix milliseconds by the wall clock; only stated, never decided on, but for how long something is overdue.
pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
